//! What a first deployment over a running environment would take over.

use super::plan::coloured;
use crate::{cli::Adopt, operations::operations, repository::Repository};
use anyhow::Result;
use towpath_delivery::{AdoptedObject, Adoption, AdoptionView, LaptopRequest};
use towpath_types::EnvironmentId;

/// `towpath adopt`.
pub async fn adopt(options: Adopt) -> Result<()> {
    let here = operations(&options.at).await?;
    let repository = Repository::find()?;
    let project = options.at.project.clone().unwrap_or_else(|| repository.project());
    let request = LaptopRequest {
        tag: Some(options.tag.clone()),
        ..repository.request()?
    };
    let id = EnvironmentId::new(&project, &options.environment)?;
    let view = here.adoption(&id, request).await?;
    match options.json {
        true => outln!("{}", serde_json::to_string_pretty(&view)?),
        false => print(&view),
    }
    Ok(())
}

fn print(view: &AdoptionView) {
    outln!(
        "what a deployment to {} would take over in the namespace {}",
        view.environment,
        view.namespace
    );
    if view.objects.is_empty() && view.others.is_empty() {
        outln!("  nothing: only Towpath deploys there");
    }
    for (adoption, title) in [
        (Adoption::TakenOver, "taken over as they are"),
        (Adoption::Changed, "changed"),
        (Adoption::Created, "created"),
        (Adoption::Unchanged, "unchanged, and Towpath's already"),
    ] {
        let objects: Vec<&AdoptedObject> = view
            .objects
            .iter()
            .filter(|object| object.adoption == adoption)
            .collect();
        if !objects.is_empty() {
            outln!("{title}:");
        }
        for object in objects {
            outln!(
                "  {} {}{} ({})",
                object.kind,
                object.name,
                from(&object.from),
                object.place
            );
            if !object.overruled.is_empty() {
                outln!("    overrules values of {}", object.overruled.join(", "));
            }
            for line in object.diff.lines() {
                out_raw!("    {}\n", coloured(line));
            }
        }
    }
    if !view.others.is_empty() {
        outln!("in no manifest, and left alone:");
    }
    for other in &view.others {
        outln!("  {} {}{}", other.kind, other.name, from(&other.owners));
    }
    for release in &view.helm {
        outln!(
            "Helm's release {}: revision {}, {}; Secrets with its record, which stay: {}",
            release.name,
            release.revision,
            release.status,
            release.revisions
        );
    }
    for warning in &view.warnings {
        outln!("warning {warning}");
    }
    for blocker in &view.blockers {
        outln!("BLOCKED {blocker}");
    }
}

fn from(owners: &[String]) -> String {
    match owners.is_empty() {
        true => String::new(),
        false => format!(", from {}", owners.join(" and ")),
    }
}
