//! Deployments, releases, jobs and cron jobs from a laptop.

use super::{pipelines::print_plan, project};
use crate::{
    cli::{Deploy, Environment, Named, Rollback},
    client::{Client, escape, expect_success},
    exit,
    repository::Repository,
};
use anyhow::Result;
use serde::Deserialize;
use std::process::ExitCode;
use towpath_control::{EnvironmentView, LaptopRequest, PlanView, ReleaseView};

#[derive(Deserialize)]
struct Started {
    id: String,
}

fn path(project: &str, environment: &str, what: &str) -> String {
    format!(
        "/api/towpath/environments/{}/{}{what}",
        escape(project),
        escape(environment)
    )
}

/// `towpath deploy`, from a laptop and from a step.
pub async fn deploy(options: Deploy) -> Result<()> {
    if let Some(client) = Client::in_job()? {
        // The workflow knows which image it built and which plan was approved; nothing is chosen here.
        let started: Started = client
            .post(
                "/agent/v1/deploy",
                &serde_json::json!({ "environment": options.environment }),
            )
            .await?;
        let progress = client.follow("/agent/v1", &started.id).await?;
        return expect_success(progress.outcome, "the deployment");
    }
    let client = Client::new(&options.at)?;
    let (project, request) = request(&options)?;
    let started: Started = client
        .post(&path(&project, &options.environment, "/deploy"), &request)
        .await?;
    let progress = client.follow("/api/towpath", &started.id).await?;
    expect_success(progress.outcome, "the deployment")
}

fn request(options: &Deploy) -> Result<(String, LaptopRequest)> {
    let repository = Repository::find()?;
    let project = options.at.project.clone().unwrap_or_else(|| repository.project());
    Ok((
        project,
        LaptopRequest {
            tag: Some(options.tag.clone()),
            ..repository.request()?
        },
    ))
}

/// `towpath diff`.
pub async fn diff(options: Deploy) -> Result<ExitCode> {
    let client = Client::new(&options.at)?;
    let (project, request) = request(&options)?;
    let plan: PlanView = client
        .post(&path(&project, &options.environment, "/plan"), &request)
        .await?;
    print_plan(&plan);
    Ok(if plan.changes.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::CHANGES)
    })
}

/// `towpath rollback`.
pub async fn rollback(options: Rollback) -> Result<()> {
    let client = Client::new(&options.at)?;
    let project = project(&options.at)?;
    let body = serde_json::json!({ "to": options.release });
    let started: Started = client
        .post(&path(&project, &options.environment, "/rollback"), &body)
        .await?;
    let progress = client.follow("/api/towpath", &started.id).await?;
    expect_success(progress.outcome, "the rollback")
}

/// `towpath status`.
pub async fn status(options: Environment) -> Result<()> {
    let client = Client::new(&options.at)?;
    let view: EnvironmentView = client
        .get(&path(&project(&options.at)?, &options.environment, ""))
        .await?;
    if options.json {
        outln!("{}", serde_json::to_string_pretty(&view)?);
        return Ok(());
    }
    outln!("{} of {}", view.name, view.project);
    match &view.release {
        Some(release) => print_release(release),
        None => outln!("  nothing was deployed here yet"),
    }
    if let Some(release) = &view.deploying {
        outln!("  a deployment is under way:");
        print_release(release);
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
    Ok(())
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
        release.state,
        release.by,
        release.at,
        release.cause
    );
    outln!("    {}", release.image);
    if let Some(message) = &release.message {
        outln!("    {message}");
    }
}

/// `towpath history`.
pub async fn history(options: Environment) -> Result<()> {
    let client = Client::new(&options.at)?;
    let releases: Vec<ReleaseView> = client
        .get(&path(&project(&options.at)?, &options.environment, "/history"))
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

fn named(options: &Named) -> Result<(String, LaptopRequest)> {
    let repository = Repository::find()?;
    let project = options.at.project.clone().unwrap_or_else(|| repository.project());
    let request = LaptopRequest {
        tag: options.tag.clone(),
        name: Some(options.name.clone()),
        ..repository.request()?
    };
    Ok((project, request))
}

/// `towpath job`: its exit code is the job's.
pub async fn job(options: Named) -> Result<ExitCode> {
    let client = Client::new(&options.at)?;
    let (project, request) = named(&options)?;
    let started: Started = client
        .post(&path(&project, &options.environment, "/jobs"), &request)
        .await?;
    let progress = client.follow("/api/towpath", &started.id).await?;
    match progress.exit_code.and_then(|code| u8::try_from(code).ok()) {
        Some(code) => Ok(ExitCode::from(code)),
        None => expect_success(progress.outcome, "the job").map(|()| ExitCode::SUCCESS),
    }
}

/// `towpath cronjob`.
pub async fn cronjob(options: Named) -> Result<()> {
    let client = Client::new(&options.at)?;
    let (project, request) = named(&options)?;
    let lines: Vec<String> = client
        .post(&path(&project, &options.environment, "/cronjobs"), &request)
        .await?;
    lines.iter().for_each(|line| outln!("{line}"));
    Ok(())
}
