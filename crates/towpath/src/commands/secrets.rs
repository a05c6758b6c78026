//! Secrets and contexts: values come from standard input and are never printed.

use super::place::project;
use crate::{
    cli::{Context as ContextCommand, Secrets},
    client::{Client, escape},
};
use anyhow::{Context, Result, bail};
use std::io::{IsTerminal, Read};
use towpath_control::KeyView;

fn value() -> Result<Vec<u8>> {
    if std::io::stdin().is_terminal() {
        eprintln!("Type or paste the value, then press Enter and Ctrl-D:");
    }
    let mut value = Vec::new();
    std::io::stdin()
        .read_to_end(&mut value)
        .context("failed to read the value from standard input")?;
    // `echo value | …` and editors add one line end that nobody means.
    if value.ends_with(b"\n") {
        value.pop();
        if value.ends_with(b"\r") {
            value.pop();
        }
    }
    if value.is_empty() {
        bail!("standard input has no value");
    }
    Ok(value)
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
        escape(project),
        escape(environment)
    );
    key.map_or(base.clone(), |(secret, key)| {
        format!("{base}/{}/{}", escape(secret), escape(key))
    })
}

/// `towpath context`.
pub async fn context(command: ContextCommand) -> Result<()> {
    let path = |context: &str, key: &str| format!("/api/towpath/contexts/{}/{}", escape(context), escape(key));
    match command {
        ContextCommand::Set { context, key, at } => {
            Client::new(&at)?.put(&path(&context, &key), value()?).await?;
            outln!("set {key} of context {context}");
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
