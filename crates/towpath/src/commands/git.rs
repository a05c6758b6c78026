//! What git calls: the hook of the server's repositories and the credential helper of a laptop's.

use crate::{
    cli::At,
    client::{Client, data_dir},
};
use anyhow::{Context, Result, bail};
use std::io::{Read, Write};

/// `towpath hook post-receive`: hands what git says to the server and prints its answer, which git shows to the pusher.
pub async fn hook(name: &str) -> Result<()> {
    if name != "post-receive" {
        bail!("there is no hook `{name}`");
    }
    let variable =
        |name: &str| std::env::var(name).with_context(|| format!("{name} is not set: this is called by git"));
    let client = Client::on_socket(variable("TOWPATH_HOOK_SOCKET")?, variable("TOWPATH_HOOK_TOKEN")?)?;
    let mut lines = format!("by {}\n", variable("TOWPATH_PUSHED_BY")?).into_bytes();
    std::io::stdin()
        .read_to_end(&mut lines)
        .context("failed to read git's list of refs")?;
    let answer = client.post_bytes("/hook/post-receive", lines).await;
    match answer {
        Ok(text) => out!("{text}"),
        // The push itself has succeeded; when the server is back it notices the moved refs by itself.
        Err(error) => outln!("Towpath took the push but could not start a pipeline yet: {error:#}"),
    }
    Ok(())
}

/// `towpath credential get`: answers git's question for the password of Towpath's own address, and of no other.
///
/// Source: <https://git-scm.com/docs/git-credential#IOFMT>
pub fn credential(operation: &str, at: &At) -> Result<()> {
    if operation != "get" {
        return Ok(());
    }
    let client = Client::new(&At {
        data_dir: Some(data_dir(at.data_dir.as_deref())?),
        project: None,
    })?;
    let mut question = String::new();
    std::io::stdin()
        .read_to_string(&mut question)
        .context("failed to read git's question")?;
    let field = |name: &str| {
        question
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    };
    let asked = format!(
        "{}://{}",
        field("protocol").unwrap_or_default(),
        field("host").unwrap_or_default()
    );
    if asked == client.base() {
        let mut out = std::io::stdout();
        writeln!(out, "username=towpath\npassword={}", client.token().expose()).context("failed to answer git")?;
    }
    Ok(())
}
