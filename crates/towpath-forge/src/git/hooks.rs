//! The hooks that every repository runs.

use crate::ForgeError;
use std::{os::unix::fs::PermissionsExt, path::Path};

/// `pre-receive` asks the server before git accepts a push; `post-receive` tells it that the refs have moved.
///
/// Source: <https://git-scm.com/docs/githooks>
const HOOKS: [&str; 2] = ["pre-receive", "post-receive"];

/// Writes the hooks into `folder`: each runs `towpath hook <name>`.
pub(super) async fn install(folder: &Path, towpath: &Path) -> Result<(), ForgeError> {
    let failed = |what: &Path| ForgeError::io(format!("write git's hook `{}`", what.display()));
    tokio::fs::create_dir_all(folder).await.map_err(failed(folder))?;
    for name in HOOKS {
        let hook = folder.join(name);
        let script = format!(
            "#!/bin/sh\nexec {} hook {name}\n",
            shell_quote(&towpath.to_string_lossy())
        );
        // A push may be running the hook now, so replace the file in one step.
        let aside = folder.join(format!("{name}.new"));
        tokio::fs::write(&aside, script).await.map_err(failed(&aside))?;
        let mode = PermissionsExt::from_mode(0o755);
        tokio::fs::set_permissions(&aside, mode).await.map_err(failed(&aside))?;
        tokio::fs::rename(&aside, &hook).await.map_err(failed(&hook))?;
    }
    Ok(())
}

fn shell_quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
