//! `status`, `history`, `drift`, `lock` and `unlock`.

use super::{
    place::{at_environment, project},
    plan::coloured,
};
use crate::{
    cli::{Drift, Environment, Lock, Unlock},
    exit,
    operations::operations,
    repository::Repository,
};
use anyhow::{Result, anyhow, bail};
use std::{collections::BTreeMap, process::ExitCode};
use towpath_delivery::{DriftView, EnvironmentView, ReleaseView, SightingView};
use towpath_types::EnvironmentId;

/// `towpath status`.
pub async fn status(options: Environment) -> Result<()> {
    let here = operations(&options.at).await?;
    let view = here
        .environment(&at_environment(&options.at, &options.environment)?)
        .await?;
    if options.json {
        outln!("{}", serde_json::to_string_pretty(&view)?);
    } else {
        print(&view);
    }
    match &view.sighting {
        SightingView::Unknown { because, .. } => bail!("{} does not answer: {because}", view.name),
        SightingView::Seen { .. } | SightingView::Never => Ok(()),
    }
}

fn print(view: &EnvironmentView) {
    outln!("{} of {}", view.name, view.project);
    if let SightingView::Unknown { since, .. } = &view.sighting {
        outln!("  unknown since {since}; before that:");
    }
    match &view.release {
        Some(release) => print_release(release),
        None => outln!("  nothing was deployed here yet"),
    }
    if let Some(between) = &view.between {
        outln!("  {between}");
    }
    match (&view.deploying, &view.under_way) {
        (Some(release), _) => {
            outln!("  a deployment is under way:");
            print_release(release);
        }
        (None, Some(elsewhere)) => outln!(
            "  {} is deploying since {}: {} (last sign of life at {})",
            elsewhere.by,
            elsewhere.since,
            elsewhere.what,
            elsewhere.renewed
        ),
        (None, None) => {}
    }
    if let Some(hold) = &view.hold {
        outln!("  {hold}");
    }
    if let Some(drift) = view.drift.as_ref().filter(|drift| !drift.objects.is_empty()) {
        outln!(
            "  {} objects have drifted (looked at {}): `towpath drift {}` shows them",
            drift.objects.len(),
            drift.at,
            view.name
        );
    }
    for workload in &view.workloads {
        let ready = (workload.kind != "CronJob").then(|| format!("{}/{} ready", workload.ready, workload.desired));
        let message = Some(workload.message.clone()).filter(|message| !message.is_empty());
        let said: Vec<String> = ready.into_iter().chain(message).collect();
        outln!("  {} {}: {}", workload.kind, workload.name, said.join(", "));
        outln!("    {}", workload.image);
    }
    for address in &view.addresses {
        outln!("  answers at {address}");
    }
}

fn print_release(release: &ReleaseView) {
    let commit = release
        .commit
        .as_ref()
        .map(|commit| format!(" commit {}", commit.short()))
        .unwrap_or_default();
    outln!(
        "  release {} {}{commit} by {} at {} ({})",
        release.number,
        release.state.as_str().replace('_', " "),
        release.by,
        release.at,
        release.cause
    );
    outln!("    {}", release.image);
    if let Some(repeats) = release.repeats_text() {
        outln!("    {repeats}");
    }
    if let Some(message) = &release.message {
        outln!("    {message}");
    }
}

/// `towpath history`.
pub async fn history(options: Environment) -> Result<()> {
    let here = operations(&options.at).await?;
    let releases = here
        .history(&at_environment(&options.at, &options.environment)?)
        .await?;
    if options.json {
        outln!("{}", serde_json::to_string_pretty(&releases)?);
        return Ok(());
    }
    if releases.is_empty() {
        eprintln!("Nothing was deployed to {} yet.", options.environment);
    }
    releases.iter().for_each(print_release);
    Ok(())
}

/// `towpath drift`.
pub async fn drift(options: Drift) -> Result<ExitCode> {
    let here = operations(&options.at).await?;
    let project = project(&options.at)?;
    let environments = match &options.environment {
        Some(environment) => vec![environment.clone()],
        None => super::env::names(&Repository::find()?)?,
    };
    let mut found: BTreeMap<String, DriftView> = BTreeMap::new();
    let mut unknown = Vec::new();
    for environment in environments {
        let id = EnvironmentId::new(&project, &environment)?;
        match here.drift(&id).await {
            Ok(drift) => drop(found.insert(environment, drift)),
            Err(error) if options.environment.is_none() => {
                eprintln!("{environment}: {error}");
                // Before the first deployment, nothing can have drifted.
                let seen = here.environment(&id).await;
                let is_empty = |view: EnvironmentView| {
                    view.release.is_none() && matches!(view.sighting, SightingView::Seen { .. })
                };
                if !seen.is_ok_and(is_empty) {
                    unknown.push(environment);
                }
            }
            Err(error) => return Err(error),
        }
    }
    if options.json {
        outln!("{}", serde_json::to_string_pretty(&found)?);
    } else {
        for (environment, drift) in &found {
            print_drift(environment, drift);
        }
    }
    if !unknown.is_empty() {
        bail!("it is not known whether {} drifted", unknown.join(", "));
    }
    Ok(match found.values().all(|drift| drift.objects.is_empty()) {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(exit::CHANGES),
    })
}

fn print_drift(environment: &str, drift: &DriftView) {
    if drift.objects.is_empty() {
        outln!("{environment} is as its release has it");
        return;
    }
    outln!("{environment} has drifted from its release:");
    for object in &drift.objects {
        outln!("  {:<8}{} {}", object.action.as_str(), object.kind, object.name);
        for writer in &object.writers {
            let at = writer.at.map(|at| format!(" at {at}")).unwrap_or_default();
            outln!("    by {}{at}", writer.manager);
        }
        for line in object.diff.lines() {
            out_raw!("    {}\n", coloured(line));
        }
    }
    outln!(
        "  `towpath deploy {environment}` restores what the release says; what others added beside it stays until somebody removes it"
    );
}

/// `towpath lock`.
pub async fn lock(options: Lock) -> Result<()> {
    let here = operations(&options.at).await?;
    let lasts: jiff::SignedDuration = options
        .lasts
        .parse()
        .map_err(|_| anyhow!("`{}` is not a length of time: write `30m` or `8h`", options.lasts))?;
    let id = at_environment(&options.at, &options.environment)?;
    let hold = here.lock(&id, &options.reason, lasts).await?;
    outln!("{} is {hold}", options.environment);
    Ok(())
}

/// `towpath unlock`.
pub async fn unlock(options: Unlock) -> Result<()> {
    let here = operations(&options.at).await?;
    let id = at_environment(&options.at, &options.environment)?;
    here.unlock(&id, options.force).await?;
    outln!("{} is open to everybody", options.environment);
    Ok(())
}
