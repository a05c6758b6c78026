//! `towpath orb`: Towpath's own registry, and the lock file.

use super::config::{Compiled, Inputs, pack, print_json, report, repository_of, verdict};
use crate::{cli::Orb, client::Client};
use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use std::process::ExitCode;
use towpath_config::PackKind;
use towpath_orbs::{LOCK_FILE, OrbReference, Selector};
use towpath_types::percent_encoded;
use towpath_yaml::Diagnostic;

/// `towpath orb`.
pub async fn orb(command: Orb) -> Result<ExitCode> {
    match command {
        Orb::Publish {
            file,
            reference,
            private,
            at,
        } => {
            let reference: OrbReference = reference.parse()?;
            let Selector::Exactly(version) = &reference.selector else {
                bail!("publish an exact version: `{}@1.2.3`, or `@dev:label`", reference.name);
            };
            let yaml =
                std::fs::read_to_string(&file).with_context(|| format!("failed to read `{}`", file.display()))?;
            let client = Client::new(&at)?;
            let orb = match package(&client, &reference).await? {
                Some(orb) => orb,
                None => {
                    let namespace: Value = client
                        .post("/api/v3/namespaces", &json!({ "name": reference.name.namespace }))
                        .await?;
                    let body = json!({ "data": {
                        "attributes": { "name": reference.name.name, "is_private": private },
                        "references": { "namespace": { "id": namespace["data"]["id"] } },
                    } });
                    let made: Value = client.post("/api/v3/orb/packages", &body).await?;
                    made["data"].clone()
                }
            };
            let attributes = json!({ "orb_id": orb["id"], "yaml": yaml, "version": version });
            let _: Value = client
                .post("/api/v3/orb/versions", &json!({ "data": { "attributes": attributes } }))
                .await?;
            outln!("published {reference}");
        }
        Orb::List { namespace, at } => {
            let client = Client::new(&at)?;
            for visibility in ["public", "private"] {
                let path = format!("/api/v3/orb/packages?filter%5Bvisibility%5D={visibility}");
                let answer: Value = client.get(&path).await?;
                for orb in answer["data"].as_array().into_iter().flatten() {
                    let name = orb["attributes"]["name"].as_str().unwrap_or_default();
                    let below = namespace
                        .as_deref()
                        .is_none_or(|namespace| name.starts_with(&format!("{namespace}/")));
                    if below {
                        let newest = orb["references"]["orb_versions"][0]["attributes"]["version"].as_str();
                        let private = if visibility == "private" { "  (private)" } else { "" };
                        outln!("{name}  {}{private}", newest.unwrap_or("no version yet"));
                    }
                }
            }
        }
        Orb::Source { reference, at } => {
            let client = Client::new(&at)?;
            let answer: Value = client
                .get(&format!(
                    "/api/v3/orb/versions?filter%5Bref%5D={}",
                    percent_encoded(&reference)
                ))
                .await?;
            let id = answer["data"][0]["id"].as_str();
            let id = id.ok_or_else(|| anyhow!("Towpath's registry has no orb `{reference}`"))?;
            let source = client.get_bytes(&format!("/api/v3/orb/versions/{id}/source")).await?;
            out_raw!("{}", String::from_utf8_lossy(&source));
        }
        Orb::Pack { folder } => return pack(&folder, PackKind::Orb),
        Orb::Validate { compile, json } => {
            let inputs = Inputs::of(&compile, false).await?;
            let work = |document: &_, options: &_| towpath_config::check_orb(document, options);
            let (found, _) = inputs.run(work).await?;
            let wrong = found.iter().any(Diagnostic::is_error);
            match json {
                true => print_json(&found)?,
                false => {
                    report(&found);
                    if !wrong {
                        outln!("Orb at {} is valid.", compile.file.display());
                    }
                }
            }
            return Ok(verdict(!wrong));
        }
        Orb::Lock(options) => {
            let compiled = Compiled::of(&options, false).await?;
            compiled.report();
            let orbs = compiled.orbs.clone();
            compiled.config(&options.file)?;
            let path = repository_of(&options.file).join(LOCK_FILE);
            std::fs::write(&path, orbs.to_string()).with_context(|| format!("failed to write `{}`", path.display()))?;
            outln!("wrote {}: {} orbs", path.display(), orbs.len());
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn package(client: &Client, reference: &OrbReference) -> Result<Option<Value>> {
    let path = format!(
        "/api/v3/orb/packages?filter%5Bname%5D={}",
        percent_encoded(&reference.name.to_string())
    );
    let answer: Value = client.get(&path).await?;
    Ok(answer["data"].get(0).cloned())
}
