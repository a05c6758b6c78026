//! One-off jobs and cron jobs.

use super::{agree::agreed, place::at_environment};
use crate::{
    cli::{Cronjob, CronjobCommand, Environment, Named, Test},
    ending,
    operations::{Operations, Started, operations},
    repository::Repository,
};
use anyhow::{Result, bail};
use std::process::ExitCode;
use towpath_delivery::{CronJobStatus, LaptopRequest, SightingView};
use towpath_types::EnvironmentId;

fn named(options: &Named) -> Result<(EnvironmentId, LaptopRequest)> {
    let repository = Repository::find()?;
    let project = options.at.project.clone().unwrap_or_else(|| repository.project());
    let request = LaptopRequest {
        tag: options.tag.clone(),
        name: Some(options.name.clone()),
        ..repository.request()?
    };
    Ok((EnvironmentId::new(&project, &options.environment)?, request))
}

/// `towpath job`: exits with the job's exit code.
pub async fn job(options: Named) -> Result<ExitCode> {
    let here = operations(&options.at).await?;
    let (id, request) = named(&options)?;
    let started = agreed(&options.agreement, async |plan| {
        let request = LaptopRequest {
            plan,
            ..request.clone()
        };
        here.run_job(&id, request).await
    })
    .await?;
    ending::leaves(format!(
        "The job goes on in the cluster: `towpath job {} {}` is refused until it has ended.",
        options.name, options.environment
    ));
    end_of(here.as_ref(), &started).await
}

/// Prints a run's output, and returns its exit code.
async fn end_of(here: &dyn Operations, started: &Started) -> Result<ExitCode> {
    let end = here.follow(started).await?;
    match end.exit_code.and_then(|code| u8::try_from(code).ok()) {
        Some(code) => Ok(ExitCode::from(code)),
        None => end.expect_success("the job").map(|()| ExitCode::SUCCESS),
    }
}

/// `towpath test`: runs the tests one after the other, until one does not succeed.
pub async fn test(options: Test) -> Result<()> {
    let here = operations(&options.at).await?;
    let id = at_environment(&options.at, &options.environment)?;
    let tests = here.tests(&id).await?;
    if tests.is_empty() {
        eprintln!(
            "What {} runs has no tests: the templates of a chart with the annotation `helm.sh/hook: test` are its tests.",
            options.environment
        );
    }
    for name in tests {
        outln!("test {name}");
        let started = agreed(&options.agreement, async |plan| here.run_test(&id, &name, plan).await).await?;
        let end = here.follow(&started).await?;
        end.expect_success(&format!("the test `{name}`"))?;
        outln!("test {name} succeeded");
    }
    Ok(())
}

/// `towpath cronjob`.
pub async fn cronjob(options: Cronjob) -> Result<ExitCode> {
    match (options.command, options.name.zip(options.environment)) {
        (Some(CronjobCommand::List(options)), _) => list(options).await.map(|()| ExitCode::SUCCESS),
        (
            Some(CronjobCommand::Run {
                name,
                environment,
                agreement,
                at,
            }),
            _,
        ) => {
            let here = operations(&at).await?;
            let id = at_environment(&at, &environment)?;
            let started = agreed(&agreement, async |plan| here.run_cron_job(&id, &name, plan).await).await?;
            if let Started::Run { object, .. } = &started {
                ending::leaves(format!(
                    "The job goes on in the cluster, as `{object}`: `towpath cronjob list {environment}` says how the runs went."
                ));
            }
            end_of(here.as_ref(), &started).await
        }
        (None, Some((name, environment))) => {
            let options = Named {
                name,
                environment,
                tag: options.tag,
                agreement: options.agreement,
                at: options.at,
            };
            apply(&options).await.map(|()| ExitCode::SUCCESS)
        }
        (None, None) => bail!("name a cron job and an environment: `towpath cronjob NAME ENVIRONMENT`"),
    }
}

async fn apply(options: &Named) -> Result<()> {
    let here = operations(&options.at).await?;
    let (id, request) = named(options)?;
    // The call returns only when everything is done.
    ending::leaves(format!(
        "`towpath cronjob list {}` says whether the cron job was applied by then.",
        options.environment
    ));
    let lines = agreed(&options.agreement, async |plan| {
        let request = LaptopRequest {
            plan,
            ..request.clone()
        };
        here.apply_cron_job(&id, request).await
    })
    .await?;
    lines.iter().for_each(|line| outln!("{line}"));
    Ok(())
}

async fn list(options: Environment) -> Result<()> {
    let here = operations(&options.at).await?;
    let view = here
        .environment(&at_environment(&options.at, &options.environment)?)
        .await?;
    if let SightingView::Unknown { because, .. } = &view.sighting {
        bail!("{} does not answer: {because}", options.environment);
    }
    if options.json {
        outln!("{}", serde_json::to_string_pretty(&view.cron_jobs)?);
        return Ok(());
    }
    if view.cron_jobs.is_empty() {
        eprintln!("No cron job runs in {}.", options.environment);
    }
    view.cron_jobs.iter().for_each(print);
    Ok(())
}

fn print(job: &CronJobStatus) {
    let at = |time: Option<jiff::Timestamp>| time.map_or_else(|| "never".to_string(), |time| time.to_string());
    let suspended = if job.suspended { ", suspended" } else { "" };
    outln!("{} at `{}`{suspended}", job.name, job.schedule);
    if let Some(image) = &job.image {
        outln!("  {image}");
    }
    outln!("  last run {}, last success {}", at(job.last_run), at(job.last_success));
    if let Some(next) = job.next_run {
        outln!("  next run {next}");
    }
    if job.active > 0 {
        outln!("  {} under way", job.active);
    }
    for failure in &job.failures {
        outln!("  {} failed at {}: {}", failure.job, at(failure.at), failure.message);
    }
}
