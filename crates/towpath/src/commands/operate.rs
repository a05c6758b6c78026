//! Deployments, releases, jobs and cron jobs from a laptop.

use super::{
    pipelines::{coloured, print_plan},
    project,
};
use crate::{
    cli::{
        self, At, Cronjob, CronjobCommand, Deploy, Diff, Drift, Environment, Lock, Named, Policy, Promote, Rollback,
        Unlock,
    },
    client::{Client, escape, expect_success},
    direct, exit,
    repository::Repository,
};
use anyhow::{Result, anyhow, bail};
use serde::Deserialize;
use std::{collections::BTreeMap, process::ExitCode};
use towpath_control::{CronJobStatus, DriftView, EnvironmentView, Hold, LaptopRequest, PlanView, ReleaseView};

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
        let chosen =
            options.tag.is_some() || options.policy.on_failure.is_some() || options.policy.despite_freeze.is_some();
        if chosen {
            bail!(
                "in a job it is `towpath deploy {}`, and nothing else: image and plan are the workflow's",
                options.environment
            );
        }
        let started: Started = client
            .post(
                "/agent/v1/deploy",
                &serde_json::json!({ "environment": options.environment }),
            )
            .await?;
        let progress = client.follow("/agent/v1", &started.id).await?;
        return expect_success(progress.outcome, "the deployment");
    }
    let client = Client::for_environments(&options.at).await?;
    let (project, request) = request(&options.at, &options.policy)?;
    let request = LaptopRequest {
        tag: Some(options.tag.clone().unwrap_or_else(|| "latest".into())),
        ..request
    };
    let started: Started = client
        .post(&path(&project, &options.environment, "/deploy"), &request)
        .await?;
    leaves_half_done(&options.environment);
    let progress = client.follow("/api/towpath", &started.id).await?;
    expect_success(progress.outcome, "the deployment")
}

/// What a signal leaves behind of a deployment that was begun.
fn leaves_half_done(environment: &str) {
    direct::leaves(format!(
        "What was being deployed is half done: `towpath status {environment}` says how it stands; deploy again, or `towpath rollback \
         {environment}`."
    ));
}

fn request(at: &At, policy: &Policy) -> Result<(String, LaptopRequest)> {
    let repository = Repository::find()?;
    let project = at.project.clone().unwrap_or_else(|| repository.project());
    let on_failure = policy.on_failure.map(|policy| match policy {
        cli::OnFailure::Rollback => towpath_control::OnFailure::Rollback,
        cli::OnFailure::Stop => towpath_control::OnFailure::Stop,
    });
    if policy
        .despite_freeze
        .as_ref()
        .is_some_and(|reason| reason.trim().is_empty())
    {
        bail!("`--despite-freeze` needs a reason: the history shows it");
    }
    let request = LaptopRequest {
        on_failure,
        despite_freeze: policy.despite_freeze.clone(),
        ..repository.request()?
    };
    Ok((project, request))
}

/// `towpath promote`.
pub async fn promote(options: Promote) -> Result<()> {
    let client = Client::for_environments(&options.at).await?;
    let (project, request) = request(&options.at, &options.policy)?;
    let request = LaptopRequest {
        from: Some(options.from.clone()),
        ..request
    };
    let started: Started = client.post(&path(&project, &options.to, "/deploy"), &request).await?;
    leaves_half_done(&options.to);
    let progress = client.follow("/api/towpath", &started.id).await?;
    expect_success(progress.outcome, "the deployment")
}

/// `towpath diff`.
pub async fn diff(options: Diff) -> Result<ExitCode> {
    let client = Client::for_environments(&options.at).await?;
    let policy = Policy {
        on_failure: None,
        despite_freeze: None,
    };
    let (project, request) = request(&options.at, &policy)?;
    let request = LaptopRequest {
        tag: Some(options.tag.clone()),
        ..request
    };
    let plan: PlanView = client
        .post(&path(&project, &options.environment, "/plan"), &request)
        .await?;
    if options.json {
        outln!("{}", serde_json::to_string_pretty(&plan)?);
    } else if options.markdown {
        out!("{}", markdown(&plan));
    } else {
        print_plan(&plan);
    }
    if !plan.blockers.is_empty() {
        bail!(
            "this cannot be deployed to {}: see what is blocked above",
            plan.environment
        );
    }
    Ok(if plan.changes.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::CHANGES)
    })
}

/// A plan for a comment on a pull request.
fn markdown(plan: &PlanView) -> String {
    let mut text = format!("### Deploying to `{}`\n\n", plan.environment);
    match &plan.previous_image {
        Some(previous) if *previous == plan.image => text.push_str(&format!("`{}`, as it runs now\n", plan.image)),
        Some(previous) => text.push_str(&format!("`{previous}` → `{}`\n", plan.image)),
        None => text.push_str(&format!("`{}`, the first release\n", plan.image)),
    }
    for commit in &plan.commits {
        text.push_str(&format!(
            "- {} {} ({})\n",
            commit.id.short(),
            commit.subject,
            commit.author
        ));
    }
    for (title, lines) in [("Blocked", &plan.blockers), ("Worth knowing", &plan.warnings)] {
        if !lines.is_empty() {
            text.push_str(&format!("\n**{title}**\n\n"));
            lines.iter().for_each(|line| text.push_str(&format!("- {line}\n")));
        }
    }
    if plan.changes.is_empty() {
        text.push_str(&format!("\nNothing would change in {} objects.\n", plan.unchanged));
        return text;
    }
    text.push_str(&format!(
        "\n{} objects would change, {} stay as they are.\n",
        plan.changes.len(),
        plan.unchanged
    ));
    for change in &plan.changes {
        // A fence longer than any in the text.
        let longest = change.diff.split(|c| c != '`').map(str::len).max().unwrap_or(0);
        let fence = "`".repeat(longest.max(2) + 1);
        text.push_str(&format!(
            "\n<details><summary>{} {} <code>{}</code></summary>\n\n{fence}diff\n{}\n{fence}\n\n</details>\n",
            change.action,
            change.kind,
            change.name,
            change.diff.trim_end()
        ));
    }
    text
}

/// `towpath rollback`.
pub async fn rollback(options: Rollback) -> Result<()> {
    let client = Client::for_environments(&options.at).await?;
    let project = project(&options.at)?;
    let body = serde_json::json!({ "to": options.release });
    let started: Started = client
        .post(&path(&project, &options.environment, "/rollback"), &body)
        .await?;
    leaves_half_done(&options.environment);
    let progress = client.follow("/api/towpath", &started.id).await?;
    expect_success(progress.outcome, "the rollback")
}

/// `towpath status`.
pub async fn status(options: Environment) -> Result<()> {
    let client = Client::for_environments(&options.at).await?;
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
    let client = Client::for_environments(&options.at).await?;
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
    let client = Client::for_environments(&options.at).await?;
    let (project, request) = named(&options)?;
    let started: Started = client
        .post(&path(&project, &options.environment, "/jobs"), &request)
        .await?;
    direct::leaves(format!(
        "The job goes on in the cluster: `towpath job {} {}` is refused until it has ended.",
        options.name, options.environment
    ));
    job_end(&client, &started).await
}

/// Prints what a job prints, and answers its exit code.
async fn job_end(client: &Client, started: &Started) -> Result<ExitCode> {
    let progress = client.follow("/api/towpath", &started.id).await?;
    match progress.exit_code.and_then(|code| u8::try_from(code).ok()) {
        Some(code) => Ok(ExitCode::from(code)),
        None => expect_success(progress.outcome, "the job").map(|()| ExitCode::SUCCESS),
    }
}

/// `towpath cronjob`.
pub async fn cronjob(options: Cronjob) -> Result<ExitCode> {
    match (options.command, options.name.zip(options.environment)) {
        (Some(CronjobCommand::List(options)), _) => list_cron_jobs(options).await.map(|()| ExitCode::SUCCESS),
        (Some(CronjobCommand::Run { name, environment, at }), _) => {
            let client = Client::for_environments(&at).await?;
            let run = format!("/cronjobs/{}/run", escape(&name));
            let path = path(&project(&at)?, &environment, &run);
            let started: Started = client.post(&path, &serde_json::json!({})).await?;
            direct::leaves(format!(
                "The job goes on in the cluster, as `{}`: `towpath cronjob list {environment}` says how the runs went.",
                started.id
            ));
            job_end(&client, &started).await
        }
        (None, Some((name, environment))) => {
            let options = Named {
                name,
                environment,
                tag: options.tag,
                at: options.at,
            };
            let client = Client::for_environments(&options.at).await?;
            let (project, request) = named(&options)?;
            // It answers only when all is done.
            direct::leaves(format!(
                "Whether the cron job was applied by then, `towpath cronjob list {}` says.",
                options.environment
            ));
            let lines: Vec<String> = client
                .post(&path(&project, &options.environment, "/cronjobs"), &request)
                .await?;
            lines.iter().for_each(|line| outln!("{line}"));
            Ok(ExitCode::SUCCESS)
        }
        (None, None) => bail!("name a cron job and an environment: `towpath cronjob NAME ENVIRONMENT`"),
    }
}

async fn list_cron_jobs(options: Environment) -> Result<()> {
    let client = Client::for_environments(&options.at).await?;
    let jobs: Vec<CronJobStatus> = client
        .get(&path(&project(&options.at)?, &options.environment, "/cronjobs"))
        .await?;
    if options.json {
        outln!("{}", serde_json::to_string_pretty(&jobs)?);
        return Ok(());
    }
    if jobs.is_empty() {
        eprintln!("No cron job runs in {}.", options.environment);
    }
    let at = |time: Option<jiff::Timestamp>| time.map_or_else(|| "never".to_string(), |time| time.to_string());
    for job in jobs {
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
    Ok(())
}

/// `towpath drift`.
pub async fn drift(options: Drift) -> Result<ExitCode> {
    let client = Client::for_environments(&options.at).await?;
    let project = project(&options.at)?;
    let environments = match &options.environment {
        Some(environment) => vec![environment.clone()],
        None => super::init::environments(&Repository::find()?)?,
    };
    let mut found: BTreeMap<String, DriftView> = BTreeMap::new();
    let mut unknown = Vec::new();
    for environment in environments {
        match client.get(&path(&project, &environment, "/drift")).await {
            Ok(drift) => drop(found.insert(environment, drift)),
            Err(error) if options.environment.is_none() => {
                eprintln!("{environment}: {error}");
                // One where nothing was deployed yet has nothing to say.
                let view: Result<EnvironmentView> = client.get(&path(&project, &environment, "")).await;
                if !view.is_ok_and(|view| view.release.is_none()) {
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
        bail!("whether {} drifted is not known", unknown.join(", "));
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
        outln!("  {:<8}{} {}", object.action, object.kind, object.name);
        for writer in &object.writers {
            let at = writer.at.map(|at| format!(" at {at}")).unwrap_or_default();
            outln!("    by {}{at}", writer.manager);
        }
        for line in object.diff.lines() {
            outln!("    {}", coloured(line));
        }
    }
    outln!(
        "  `towpath deploy {environment}` puts right what the release says; what others put in beside it stays until it is taken out"
    );
}

/// `towpath lock`.
pub async fn lock(options: Lock) -> Result<()> {
    let client = Client::for_environments(&options.at).await?;
    let lasts: jiff::SignedDuration = options
        .lasts
        .parse()
        .map_err(|_| anyhow!("`{}` is no length of time: write `30m` or `8h`", options.lasts))?;
    let body = serde_json::json!({ "reason": options.reason, "seconds": lasts.as_secs() });
    let path = path(&project(&options.at)?, &options.environment, "/lock");
    let hold: Hold = client.post(&path, &body).await?;
    outln!("{} is {hold}", options.environment);
    Ok(())
}

/// `towpath unlock`.
pub async fn unlock(options: Unlock) -> Result<()> {
    let client = Client::for_environments(&options.at).await?;
    let what = if options.force { "/lock?force=true" } else { "/lock" };
    client
        .delete(&path(&project(&options.at)?, &options.environment, what))
        .await?;
    outln!("{} is open to everybody", options.environment);
    Ok(())
}
