//! Running the `git` program.

use crate::ForgeError;
use std::{
    ffi::OsStr,
    path::Path,
    process::{Output, Stdio},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
};

/// How git ended when it did not succeed.
#[derive(Debug)]
pub(super) struct Failure {
    pub command: String,
    /// `None` when a signal killed it.
    pub code: Option<i32>,
    pub stderr: String,
}

impl Failure {
    fn of(command: String, output: &Output) -> Self {
        Self {
            command,
            code: output.status.code(),
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_string(),
        }
    }

    /// Whether git reports an object that the repository does not have. Git has no exit code for this; `LC_ALL=C` keeps its
    /// message the same everywhere.
    pub fn is_missing_object(&self) -> bool {
        [
            "bad object",
            "Invalid revision range",
            "not a tree object",
            "Not a valid object name",
            "reference is not a tree",
            "unable to read tree",
        ]
        .iter()
        .any(|words| self.stderr.contains(words))
    }
}

impl From<Failure> for ForgeError {
    fn from(failure: Failure) -> Self {
        Self::Git {
            command: failure.command,
            stderr: failure.stderr,
        }
    }
}

/// A `git` in `dir` that reads no configuration but the repository's own. `home` has to be a folder without one.
///
/// It does not honour `refs/replace/*`: a commit is what its id says.
pub(super) fn command(home: &Path, dir: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(dir)
        .env("HOME", home)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_NO_REPLACE_OBJECTS", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C")
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .arg("-c")
        .arg("safe.directory=*")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

pub(super) fn not_started(error: std::io::Error) -> ForgeError {
    ForgeError::io("run `git` (is it installed?)")(error)
}

/// The most bytes of git's output that Towpath reads: whoever pushes decides how much git prints.
pub(super) const MOST_OUTPUT: u64 = 320 << 20;
/// The most bytes of git's errors that Towpath reads.
const MOST_ERRORS: u64 = 64 << 10;

/// Runs `command` with `arguments` to its end. Returns its output, or how it failed.
pub(super) async fn run(
    command: Command,
    arguments: &[&OsStr],
    input: Vec<u8>,
) -> Result<Result<Vec<u8>, Failure>, ForgeError> {
    let ended = run_at_most(command, arguments, input, MOST_OUTPUT).await?;
    ended.ok_or_else(|| ForgeError::too_large("the answer of git", MOST_OUTPUT))
}

/// Like [`run`]; `None` if the output exceeds `most` bytes. Then it stops git.
pub(super) async fn run_at_most(
    mut command: Command,
    arguments: &[&OsStr],
    input: Vec<u8>,
    most: u64,
) -> Result<Option<Result<Vec<u8>, Failure>>, ForgeError> {
    let name = arguments.first().map(|name| name.to_string_lossy().into_owned());
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().map_err(not_started)?;
    feed(&mut child, input);
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (out, errors) = (child.stdout.take(), child.stderr.take());
    let read_out = async {
        match out {
            Some(out) => out.take(most + 1).read_to_end(&mut stdout).await,
            None => Ok(0),
        }
    };
    let read_errors = async {
        match errors {
            Some(mut errors) => {
                (&mut errors).take(MOST_ERRORS).read_to_end(&mut stderr).await?;
                // Drain the rest, so that git does not wait for a reader.
                tokio::io::copy(&mut errors, &mut tokio::io::sink()).await
            }
            None => Ok(0),
        }
    };
    // Too much output closes the pipe, and then git ends by itself.
    let (read, _) = tokio::try_join!(read_out, read_errors).map_err(not_started)?;
    if read as u64 > most {
        child.kill().await.map_err(not_started)?;
        return Ok(None);
    }
    let status = child.wait().await.map_err(not_started)?;
    Ok(Some(if status.success() {
        Ok(stdout)
    } else {
        let output = Output { status, stdout, stderr };
        Err(Failure::of(name.unwrap_or_default(), &output))
    }))
}

/// Writes `input` while the output is read, so that neither side waits for the other for ever.
fn feed(child: &mut Child, input: Vec<u8>) {
    if let Some(mut stdin) = child.stdin.take() {
        tokio::spawn(async move {
            // If git ended early, it reports the reason itself.
            let _ = stdin.write_all(&input).await;
            let _ = stdin.shutdown().await;
        });
    }
}
