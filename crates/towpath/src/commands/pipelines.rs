//! Pipelines, gates and logs.

use super::project;
use crate::{
    cli::{Approve, At, Cancel, Logs},
    client::{Client, escape},
};
use anyhow::{Context, Result, anyhow, bail};
use std::io::{IsTerminal, Write};
use towpath_control::{GateView, JobDetail, OnFailure, PipelineView, PlanView};

/// `towpath pipelines`.
pub async fn list(at: &At) -> Result<()> {
    let client = Client::new(at)?;
    let project = project(at)?;
    let pipelines: Vec<PipelineView> = client
        .get(&format!("/api/towpath/projects/{}/pipelines", escape(&project)))
        .await?;
    if pipelines.is_empty() {
        eprintln!("No pipeline of `{project}` yet: push a commit.");
    }
    for pipeline in pipelines {
        let of = pipeline.branch.as_deref().or(pipeline.tag.as_deref()).unwrap_or("-");
        outln!(
            "#{} {of} {} {}",
            pipeline.number,
            pipeline.commit.short(),
            pipeline.subject
        );
        for error in &pipeline.errors {
            outln!("{error}");
        }
        for workflow in &pipeline.workflows {
            outln!("  {} {} {}", workflow.name, workflow.status, workflow.id);
            for job in &workflow.jobs {
                let number = job.number.map(|number| format!(" (job {number})")).unwrap_or_default();
                outln!("    {:<28} {}{number}", job.name, job.status);
            }
        }
    }
    Ok(())
}

/// Prints a plan as a person reads it.
pub fn print_plan(plan: &PlanView) {
    outln!("plan {} for {}", plan.id, plan.environment);
    match &plan.previous_image {
        Some(previous) if *previous == plan.image => outln!("  image   {} (unchanged)", plan.image),
        Some(previous) => outln!("  image   {previous}\n       -> {}", plan.image),
        None => outln!("  image   {} (first release)", plan.image),
    }
    for commit in &plan.commits {
        outln!("  commit  {} {} ({})", commit.id.short(), commit.subject, commit.author);
    }
    for change in &plan.changes {
        outln!("  {:<8}{} {}", change.action, change.kind, change.name);
        for line in change.diff.lines() {
            outln!("    {}", coloured(line));
        }
    }
    if plan.unchanged > 0 {
        outln!("  {} unchanged", plan.unchanged);
    }
    if plan.on_failure == OnFailure::Stop {
        outln!("  if it fails, all stays as it is then");
    }
    for warning in &plan.warnings {
        outln!("  warning {warning}");
    }
    for blocker in &plan.blockers {
        outln!("  BLOCKED {blocker}");
    }
}

/// A line of a diff, coloured for a terminal that shows colours.
pub fn coloured(line: &str) -> String {
    use owo_colors::{OwoColorize, Stream::Stdout};
    match line.as_bytes().first() {
        Some(b'+') => line.if_supports_color(Stdout, |line| line.green()).to_string(),
        Some(b'-') => line.if_supports_color(Stdout, |line| line.red()).to_string(),
        Some(b'@') => line.if_supports_color(Stdout, |line| line.cyan()).to_string(),
        _ => line.to_string(),
    }
}

fn print_gate(gate: &GateView) {
    outln!(
        "{} of {} in pipeline {} ({})",
        gate.job.name,
        gate.workflow_name,
        gate.pipeline_number,
        gate.project
    );
    outln!("  id      {}", gate.job.id);
    outln!("  commit  {} {}", gate.commit.short(), gate.subject);
    if let Some(plan) = &gate.plan {
        print_plan(plan);
    }
    if let Some(error) = &gate.plan_error {
        outln!("  no plan {error}");
    }
}

/// `towpath gates`.
pub async fn gates(at: &At) -> Result<()> {
    let gates: Vec<GateView> = Client::new(at)?.get("/api/towpath/gates").await?;
    let gates: Vec<_> = gates
        .iter()
        .filter(|gate| at.project.as_ref().is_none_or(|project| *project == gate.project))
        .collect();
    if gates.is_empty() {
        eprintln!("No gate waits.");
    }
    for gate in gates {
        print_gate(gate);
        outln!();
    }
    Ok(())
}

/// `towpath approve`.
pub async fn approve(options: Approve) -> Result<()> {
    let client = Client::new(&options.at)?;
    let gate = match options.gate.parse::<towpath_types::JobId>() {
        Ok(id) => client.get::<GateView>(&format!("/api/towpath/gates/{id}")).await?,
        Err(_) => named_gate(&client, &options).await?,
    };
    print_gate(&gate);
    let shown = gate.plan.as_ref().map(|plan| plan.id.clone());
    if let Some(wanted) = &options.plan
        && shown.as_ref() != Some(wanted)
    {
        bail!("the gate's plan is no longer `{wanted}`: look at the one above, and approve that if it is right");
    }
    if options.plan.is_none() && !options.yes && !asked_and_answered(&gate)? {
        bail!("not approved");
    }
    let body = serde_json::json!({ "plan": shown });
    client
        .post::<serde_json::Value>(&format!("/api/towpath/gates/{}/approve", gate.job.id), &body)
        .await?;
    outln!("approved {} of pipeline {}", gate.job.name, gate.pipeline_number);
    Ok(())
}

fn asked_and_answered(gate: &GateView) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("nobody is there to ask: approve what you saw with --plan ID, or whatever it is now with --yes");
    }
    out!("Approve {}? [y/N] ", gate.job.name);
    std::io::stdout().flush().context("failed to ask")?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("failed to read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// What is to be said of a gate that is named and does not wait.
async fn why_it_does_not_wait(client: &Client, project: &str, gate: &str) -> Result<anyhow::Error> {
    let pipelines: Vec<PipelineView> = client
        .get(&format!("/api/towpath/projects/{}/pipelines", escape(project)))
        .await?;
    let jobs = pipelines.iter().flat_map(|pipeline| {
        let jobs = pipeline.workflows.iter().flat_map(|workflow| &workflow.jobs);
        jobs.map(|job| (pipeline.number, job))
    });
    let newest = jobs
        .filter(|(_, job)| job.kind == "approval" && job.name == gate)
        .max_by_key(|(number, _)| *number);
    Ok(match newest {
        Some((number, job)) => {
            let how = match &job.approved_by {
                Some(by) => format!("it was already approved by {by}"),
                None => format!("it is {}", job.status.replace('_', " ")),
            };
            anyhow!("gate `{gate}` of pipeline {number} does not wait: {how}")
        }
        None => anyhow!("no gate `{gate}` of `{project}` waits: `towpath gates` shows those that do"),
    })
}

async fn named_gate(client: &Client, options: &Approve) -> Result<GateView> {
    let project = project(&options.at)?;
    let gates: Vec<GateView> = client.get("/api/towpath/gates").await?;
    let mut named: Vec<_> = gates
        .into_iter()
        .filter(|gate| gate.project == project && gate.job.name == options.gate)
        .collect();
    match (named.pop(), named.len()) {
        (Some(gate), 0) => Ok(gate),
        (None, _) => Err(why_it_does_not_wait(client, &project, &options.gate).await?),
        (Some(gate), more) => {
            let others: Vec<_> = named
                .iter()
                .chain([&gate])
                .map(|g| format!("{} (pipeline {})", g.job.id, g.pipeline_number))
                .collect();
            bail!(
                "{} gates `{}` wait; name one by its id: {}",
                more + 1,
                options.gate,
                others.join(", ")
            )
        }
    }
}

/// `towpath cancel`.
pub async fn cancel(options: Cancel) -> Result<()> {
    let client = Client::new(&options.at)?;
    let path = format!("/api/v2/workflow/{}/cancel", escape(&options.workflow));
    client.post::<serde_json::Value>(&path, &serde_json::json!({})).await?;
    outln!("canceled {}", options.workflow);
    Ok(())
}

/// `towpath logs`.
pub async fn logs(options: Logs) -> Result<()> {
    let client = Client::new(&options.at)?;
    let project = project(&options.at)?;
    let detail: JobDetail = client
        .get(&format!("/api/towpath/jobs/{}/{}", escape(&project), options.job))
        .await?;
    outln!(
        "{} {} {}",
        detail.job.name,
        detail.job.status,
        detail.job.message.unwrap_or_default()
    );
    for step in &detail.steps {
        outln!("--- {} ({})", step.name, step.status);
        let mut from = 0;
        while from < step.log_bytes {
            let path = format!(
                "/api/towpath/jobs/{}/log?node={}&step={}&from={from}",
                detail.job.id, step.node, step.index
            );
            let bytes = client.get_bytes(&path).await?;
            if bytes.is_empty() {
                break;
            }
            from += bytes.len() as u64;
            std::io::stdout().write_all(&bytes).context("failed to print the log")?;
        }
        if let Some(message) = &step.message {
            outln!("{message}");
        }
    }
    Ok(())
}
