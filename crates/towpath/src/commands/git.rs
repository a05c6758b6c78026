//! What git calls: the hooks of the server's repositories and the credential helper on a laptop.

use crate::{
    cli::At,
    client::{Client, addresses_in, data_dir},
};
use anyhow::{Context, Result, bail};
use std::{
    io::{Read, Write},
    time::Duration,
};

/// How long git and the pusher wait for the server's answer about a push.
const PATIENCE: Duration = Duration::from_secs(90);

/// `towpath hook NAME`: hands the refs of a push to the server and prints its answer, which git shows to the pusher.
///
/// The server gave git an environment with its address, its token, and the pusher's name.
///
/// # Errors
/// For `pre-receive`: when the server refuses the push. Git then discards the objects and moves no ref.
pub async fn hook(name: &str) -> Result<()> {
    match name {
        "pre-receive" => before_push().await,
        "post-receive" => after_push().await,
        other => bail!("there is no hook `{other}`: Towpath has `pre-receive` and `post-receive`"),
    }
}

/// Asks the server whether git may take the push.
async fn before_push() -> Result<()> {
    let refs = read_refs()?;
    if let Some(name) = refs.lines().find_map(other_ref) {
        bail!("Towpath takes branches and tags (`refs/heads/…`, `refs/tags/…`), and `{name}` is neither");
    }
    let answer = tell("pre-receive", &refs).await;
    let text = answer.context("Towpath refused the push, and nothing of it was kept")?;
    out!("{text}");
    Ok(())
}

/// Tells the server that the refs have moved.
async fn after_push() -> Result<()> {
    match tell("post-receive", &read_refs()?).await {
        Ok(text) => out!("{text}"),
        // The push itself has succeeded. The server compares the refs when it starts again.
        Err(error) => outln!("Towpath took the push but could not start a pipeline yet: {error:#}"),
    }
    Ok(())
}

/// Git's lines about a push, one ref a line: `<old> <new> <ref>`.
///
/// Source: <https://git-scm.com/docs/githooks#pre-receive>
fn read_refs() -> Result<String> {
    let mut lines = Vec::new();
    std::io::stdin()
        .read_to_end(&mut lines)
        .context("failed to read git's list of refs")?;
    String::from_utf8(lines).context("git's list of refs is not UTF-8")
}

/// The ref of a line, if it is neither a branch nor a tag.
fn other_ref(line: &str) -> Option<&str> {
    let name = line.splitn(3, ' ').nth(2).unwrap_or(line);
    let known = ["refs/heads/", "refs/tags/"]
        .iter()
        .any(|folder| name.starts_with(folder));
    (!known).then_some(name)
}

/// Posts the pusher and the refs to the server's socket.
async fn tell(hook: &str, refs: &str) -> Result<String> {
    let variable =
        |name: &str| std::env::var(name).with_context(|| format!("{name} is not set: this is called by git"));
    let client = Client::on_socket(variable("TOWPATH_HOOK_SOCKET")?, variable("TOWPATH_HOOK_TOKEN")?)?;
    let body = format!("by {}\n{refs}", variable("TOWPATH_PUSHED_BY")?).into_bytes();
    let path = format!("/hook/{hook}");
    let answer = tokio::time::timeout(PATIENCE, client.post_bytes(&path, body));
    let late = || format!("the server did not answer within {} s", PATIENCE.as_secs());
    answer.await.with_context(late)?
}

/// `towpath credential get`: answers git's request for the password of Towpath's own address, and of no other address.
///
/// Source: <https://git-scm.com/docs/git-credential#IOFMT>
pub fn credential(operation: &str, at: &At) -> Result<()> {
    if operation != "get" {
        return Ok(());
    }
    let dir = data_dir(at.data_dir.as_deref())?;
    let client = Client::new(at)?;
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
    // Servers that share a data directory share their tokens.
    if addresses_in(&dir)?.contains(&asked) {
        let mut out = std::io::stdout();
        writeln!(out, "username=towpath\npassword={}", client.token().expose()).context("failed to answer git")?;
    }
    Ok(())
}
