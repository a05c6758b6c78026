//! `towpath env`: which environments the working tree has, and why.

use super::place::project;
use crate::{cli::Env, repository::Repository};
use anyhow::{Result, bail};
use serde_json::json;
use towpath_delivery::{EnvironmentLayout, namespace_before_rendering};

/// `towpath env`.
pub fn env(command: Env) -> Result<()> {
    match command {
        Env::List { json, at } => {
            let repository = Repository::find()?;
            list(&repository, &project(&at)?, json)
        }
    }
}

/// The names of the environments of a working tree.
pub fn names(repository: &Repository) -> Result<Vec<String>> {
    let (layout, ..) = repository.layout()?;
    let rivals = layout.rivals().map(|(name, _)| name.to_string());
    Ok(layout
        .environments()
        .map(|found| found.name.clone())
        .chain(rivals)
        .collect())
}

/// The values of an environment: each with its name and where it comes from.
fn values(layout: &EnvironmentLayout, namespace: &(String, String)) -> Vec<(&'static str, String, String)> {
    let said = |name, value: &dyn ToString, origin: &dyn ToString| (name, value.to_string(), origin.to_string());
    let mut values = vec![
        said("source", &layout.source.value, &layout.source.origin),
        said("kube_context", &layout.kube_context.value, &layout.kube_context.origin),
        said("namespace", &namespace.0, &namespace.1),
        said("protected", &layout.protected.value, &layout.protected.origin),
    ];
    for (name, value) in [
        ("after", &layout.after),
        ("jobs", &layout.jobs),
        ("cron_jobs", &layout.cron_jobs),
    ] {
        if let Some(value) = value {
            values.push(said(name, &value.value, &value.origin));
        }
    }
    values
}

fn list(repository: &Repository, project: &str, as_json: bool) -> Result<()> {
    let (layout, files, wrong) = repository.layout()?;
    let described = layout.environments().map(|found| {
        let namespace = namespace_before_rendering(&layout, &files, project, &repository.file, found);
        (found, values(found, &namespace))
    });
    let unread = files.iter().filter_map(|file| file.wrong());
    let wrong: Vec<String> = wrong.iter().map(|wrong| wrong.render(false)).chain(unread).collect();
    if as_json {
        let environments = described.map(|(found, values)| {
            let values = values.into_iter().map(|(name, value, from)| {
                let value = match name {
                    "protected" => json!(found.protected.value),
                    _ => json!(value),
                };
                (name.to_string(), json!({"value": value, "from": from}))
            });
            let values: serde_json::Map<String, serde_json::Value> = values.collect();
            json!({"name": found.name, "values": values})
        });
        let ambiguous = layout.rivals().map(|(name, several)| {
            let folders: Vec<&str> = several.iter().map(|found| found.root.as_str()).collect();
            json!({"name": name, "folders": folders})
        });
        let all = json!({
            "environments": environments.collect::<Vec<_>>(),
            "ambiguous": ambiguous.collect::<Vec<_>>(),
            "wrong": wrong,
        });
        outln!("{}", serde_json::to_string_pretty(&all)?);
        return refuse(wrong.len());
    }
    for (found, values) in described {
        outln!("{}", found.name);
        for (name, value, from) in values {
            outln!("  {name:<13}{value}  ({from})");
        }
    }
    for (name, several) in layout.rivals() {
        outln!("{name}: more than one folder has it; `manifests` in towpath.toml says which is meant");
        for found in several {
            outln!("  manifests = \"{}\"  would be {}", found.root, found.source.value);
        }
    }
    if layout.environments().next().is_none() && layout.rivals().next().is_none() {
        outln!("There are no environments in this working tree: `towpath init` says what it looks for.");
    }
    for wrong in &wrong {
        outln!("{}", wrong.trim_end());
    }
    refuse(wrong.len())
}

fn refuse(wrong: usize) -> Result<()> {
    match wrong {
        0 => Ok(()),
        1 => bail!("one file stands in the way of an environment"),
        several => bail!("{several} things stand in the way of environments"),
    }
}
