//! Secrets and contexts: values come from a file or standard input and are never printed.

use super::place::at_environment;
use crate::{
    cli::{Context as ContextCommand, Secrets},
    client::Client,
    operations::operations,
    repository::Repository,
};
use anyhow::{Context, Result, bail};
use std::{
    io::{IsTerminal, Read},
    path::Path,
};
use towpath_control::KeyView;
use towpath_deploy::{Keeper, LiveSecret};
use towpath_types::{SecretBytes, percent_encoded};

/// The most bytes in a value.
///
/// Source: <https://kubernetes.io/docs/concepts/configuration/secret/#restriction-data-size>
const LARGEST_VALUE: u64 = 1 << 20;

/// Reads the value from `file` or standard input, byte for byte. What a person types has a line end that is not part of the value.
fn value(file: Option<&Path>) -> Result<Vec<u8>> {
    if let Some(path) = file {
        let opened = std::fs::File::open(path);
        return opened
            .map_err(Into::into)
            .and_then(at_most)
            .with_context(|| format!("failed to read the value from `{}`", path.display()));
    }
    let input = std::io::stdin();
    let is_typed = input.is_terminal();
    if is_typed {
        eprintln!("Type or paste the value, then press Enter and Ctrl-D:");
    }
    let mut value = at_most(input.lock()).context("failed to read the value from standard input")?;
    if is_typed {
        value.truncate(value.len() - line_end(&value));
    }
    if value.is_empty() {
        bail!("standard input has no value; for a value without any byte, say `--from-file /dev/null`");
    }
    if !is_typed && is_line(&value) {
        eprintln!("The line end behind the value is part of it; `printf %s` writes none.");
    }
    Ok(value)
}

/// Reads a value to its end, or refuses it.
fn at_most(from: impl Read) -> Result<Vec<u8>> {
    let mut value = Vec::new();
    from.take(LARGEST_VALUE + 1).read_to_end(&mut value)?;
    if value.len() as u64 > LARGEST_VALUE {
        bail!(
            "the value has more than {} MiB, the most that a Secret may hold",
            LARGEST_VALUE >> 20
        );
    }
    Ok(value)
}

/// The length of the line end.
fn line_end(value: &[u8]) -> usize {
    match value {
        [.., b'\r', b'\n'] => 2,
        [.., b'\n'] => 1,
        _ => 0,
    }
}

/// Whether the value is a single line with its end, as `echo` writes it. It may be a mistake.
fn is_line(value: &[u8]) -> bool {
    let end = line_end(value);
    end > 0 && !value[..value.len() - end].contains(&b'\n') && std::str::from_utf8(value).is_ok()
}

fn print_keys(keys: &[KeyView], nothing: &str) {
    if keys.is_empty() {
        eprintln!("{nothing}");
    }
    for key in keys {
        outln!("{} {} (set by {} at {})", key.name, key.key, key.by, key.at);
    }
}

fn print_secrets(secrets: &[LiveSecret], environment: &str) {
    if secrets.is_empty() {
        eprintln!("{environment} has no Secret yet.");
    }
    for secret in secrets {
        let kept = match secret.kept.by {
            Keeper::People => String::new(),
            by => format!(", kept by {by}: {}", secret.kept.because),
        };
        if secret.keys.is_empty() {
            outln!("{} without keys ({}{kept})", secret.name, secret.kind);
        }
        for key in &secret.keys {
            let by = if key.by.is_empty() {
                String::new()
            } else {
                format!(", set by {}", key.by)
            };
            let at = key.at.map_or(String::new(), |at| format!(" at {at}"));
            outln!("{} {} ({} bytes{by}{at}{kept})", secret.name, key.key, key.bytes);
        }
    }
}

/// `towpath secrets`.
pub async fn secrets(command: Secrets) -> Result<()> {
    match command {
        Secrets::Set {
            environment,
            secret,
            key,
            from_file,
            at,
        } => {
            let id = at_environment(&at, &environment)?;
            let value = SecretBytes::new(value(from_file.as_deref())?);
            operations(&at).await?.set_secret(&id, &secret, &key, value).await?;
            outln!("set {key} of Secret {secret} in {environment}");
        }
        Secrets::List { environment, at } => {
            let id = at_environment(&at, &environment)?;
            print_secrets(&operations(&at).await?.secrets(&id).await?, &environment);
        }
        Secrets::Unset {
            environment,
            secret,
            key,
            at,
        } => {
            let id = at_environment(&at, &environment)?;
            operations(&at).await?.unset_secret(&id, &secret, &key).await?;
            outln!("removed {key} of Secret {secret} in {environment}");
        }
    }
    Ok(())
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
        ContextCommand::Set {
            context,
            key,
            from_file,
            at,
        } => {
            // A context that is created in a project's repository belongs to that project.
            let project = at
                .project
                .clone()
                .or_else(|| Repository::find().ok().map(|repository| repository.project()));
            let query = project.map_or(String::new(), |project| {
                format!("?project={}", percent_encoded(&project))
            });
            let path = format!("{}{query}", path(&context, &key));
            Client::new(&at)?.put(&path, value(from_file.as_deref())?).await?;
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
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_typed_loses_its_line_end() {
        for (value, dropped, warns) in [
            (&b"value\n"[..], 1, true),
            (b"value\r\n", 2, true),
            (b"value", 0, false),
            (b"\n", 1, true),
            (b"", 0, false),
            (b"one\ntwo\n", 1, false),
            (b"value\n\n", 1, false),
            (b"0\x82\x05\n", 1, false),
        ] {
            assert_eq!((line_end(value), is_line(value)), (dropped, warns), "{value:?}");
        }
    }

    #[test]
    fn a_value_that_no_secret_can_hold_is_refused_before_it_fills_the_memory() {
        let error = format!("{:#}", at_most(std::io::repeat(b'x')).unwrap_err());
        assert!(error.contains("more than 1 MiB"), "{error}");
        assert_eq!(at_most(&[b'x'; 1 << 20][..]).unwrap().len(), 1 << 20);
        assert!(at_most(&[b'x'; (1 << 20) + 1][..]).is_err());
    }

    #[test]
    fn a_file_is_taken_byte_for_byte() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for content in [&b"0\x82\x05\n"[..], b"\n", b"", b"line\r\n"] {
            std::fs::write(file.path(), content).unwrap();
            assert_eq!(value(Some(file.path())).unwrap(), content);
        }
        let error = value(Some(Path::new("/no/such/file"))).unwrap_err().to_string();
        assert_eq!(error, "failed to read the value from `/no/such/file`");
    }
}
