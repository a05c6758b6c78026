//! Secrets and contexts: values come from standard input and are never printed.

use super::place::project;
use crate::{
    cli::{Context as ContextCommand, Secrets},
    client::Client,
    repository::Repository,
};
use anyhow::{Context, Result, bail};
use std::{
    fs::File,
    io::{IsTerminal, Read},
    os::fd::AsFd,
};
use towpath_control::KeyView;
use towpath_types::percent_encoded;

/// Reads the value from standard input. Takes a file byte for byte, and typed or piped input, too, unless it is a single line:
/// `echo value | …` adds a line end that nobody wants.
fn value() -> Result<Vec<u8>> {
    let input = std::io::stdin();
    if input.is_terminal() {
        eprintln!("Type or paste the value, then press Enter and Ctrl-D:");
    }
    let is_file = input.as_fd().try_clone_to_owned();
    let is_file = is_file.and_then(|input| File::from(input).metadata());
    let is_file = is_file.is_ok_and(|input| input.is_file());
    let mut value = Vec::new();
    input
        .lock()
        .read_to_end(&mut value)
        .context("failed to read the value from standard input")?;
    if value.is_empty() {
        bail!("standard input has no value");
    }
    let added = if is_file { 0 } else { line_end(&value) };
    value.truncate(value.len() - added);
    if value.is_empty() {
        bail!("standard input has nothing but a line end, which is left out; to keep it, give a file: `< FILE`");
    }
    if added > 0 {
        eprintln!("The line end behind the value is left out; to keep it, give a file: `< FILE`.");
    }
    Ok(value)
}

/// The length of the line end if the text is a single line, otherwise 0.
fn line_end(value: &[u8]) -> usize {
    let Some(line) = value.strip_suffix(b"\n") else {
        return 0;
    };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let is_line = !line.contains(&b'\n') && std::str::from_utf8(line).is_ok();
    if is_line { value.len() - line.len() } else { 0 }
}

fn print_keys(keys: &[KeyView], nothing: &str) {
    if keys.is_empty() {
        eprintln!("{nothing}");
    }
    for key in keys {
        outln!("{} {} (set by {} at {})", key.name, key.key, key.by, key.at);
    }
}

/// `towpath secrets`.
pub async fn secrets(command: Secrets) -> Result<()> {
    match command {
        Secrets::Set {
            environment,
            secret,
            key,
            at,
        } => {
            let path = path(&project(&at)?, &environment, Some((&secret, &key)));
            Client::new(&at)?.put(&path, value()?).await?;
            outln!("set {key} of Secret {secret} in {environment}");
        }
        Secrets::List { environment, at } => {
            let keys: Vec<KeyView> = Client::new(&at)?.get(&path(&project(&at)?, &environment, None)).await?;
            print_keys(&keys, &format!("No Secret is kept for {environment} yet."));
        }
        Secrets::Unset {
            environment,
            secret,
            key,
            at,
        } => {
            Client::new(&at)?
                .delete(&path(&project(&at)?, &environment, Some((&secret, &key))))
                .await?;
            outln!("removed {key} of Secret {secret} in {environment}");
        }
    }
    Ok(())
}

fn path(project: &str, environment: &str, key: Option<(&str, &str)>) -> String {
    let base = format!(
        "/api/towpath/environments/{}/{}/secrets",
        percent_encoded(project),
        percent_encoded(environment)
    );
    key.map_or(base.clone(), |(secret, key)| {
        format!("{base}/{}/{}", percent_encoded(secret), percent_encoded(key))
    })
}

/// `towpath context`.
pub async fn context(command: ContextCommand) -> Result<()> {
    let path = |context: &str, key: &str| {
        format!(
            "/api/towpath/contexts/{}/{}",
            percent_encoded(context),
            percent_encoded(key)
        )
    };
    match command {
        ContextCommand::Set { context, key, at } => {
            // A context that is created in a project's repository belongs to that project.
            let project = at
                .project
                .clone()
                .or_else(|| Repository::find().ok().map(|repository| repository.project()));
            let query = project.map_or(String::new(), |project| {
                format!("?project={}", percent_encoded(&project))
            });
            let path = format!("{}{query}", path(&context, &key));
            Client::new(&at)?.put(&path, value()?).await?;
            outln!("set {key} of context {context}");
        }
        ContextCommand::Restrict {
            context,
            projects,
            branches,
            at,
        } => {
            let rule = serde_json::json!({ "context": context, "projects": projects, "branches": branches });
            let body = serde_json::to_vec(&rule).context("failed to write the rule")?;
            Client::new(&at)?.put("/api/towpath/context-rules", body).await?;
            let say = |list: &[String], any: &str| {
                if list.is_empty() {
                    any.to_string()
                } else {
                    list.join(", ")
                }
            };
            let (projects, branches) = (say(&projects, "any project"), say(&branches, "any branch"));
            outln!("context {context} is for jobs of {projects}, on {branches}");
        }
        ContextCommand::List { at } => {
            let keys: Vec<KeyView> = Client::new(&at)?.get("/api/towpath/contexts").await?;
            print_keys(&keys, "No context has a variable yet.");
        }
        ContextCommand::Unset { context, key, at } => {
            Client::new(&at)?.delete(&path(&context, &key)).await?;
            outln!("removed {key} of context {context}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_line_loses_its_line_end() {
        for (value, dropped) in [
            (&b"value\n"[..], 1),
            (b"value\r\n", 2),
            (b"value", 0),
            (b"\n", 1),
            (b"one\ntwo\n", 0),
            (b"value\n\n", 0),
            (b"-----BEGIN X-----\nAQID\n-----END X-----\n", 0),
            (b"0\x82\x05\n", 0),
        ] {
            assert_eq!(line_end(value), dropped, "{value:?}");
        }
    }
}
