//! Gates: listing those that wait, and approving one.

use super::{
    agree::asked_and_answered,
    place::project,
    plan::{below, print_plan},
};
use crate::{
    cli::{Approve, At},
    client::Client,
};
use anyhow::{Result, anyhow, bail};
use towpath_control::{GateView, PipelineView};
use towpath_delivery::plan_digest;
use towpath_server::circleci_words;
use towpath_types::{JobId, JobKind, percent_encoded, visible_name};

/// How many gates to request at once.
const PAGE: usize = 200;

/// Every gate that waits, of `project` or of all projects, the oldest first.
async fn waiting(client: &Client, project: Option<&str>) -> Result<Vec<GateView>> {
    let mut all: Vec<GateView> = Vec::new();
    let project = project
        .map(|project| format!("&project={}", percent_encoded(project)))
        .unwrap_or_default();
    loop {
        let path = format!("/api/towpath/gates?offset={}&limit={PAGE}{project}", all.len());
        let page: Vec<GateView> = client.get(&path).await?;
        let is_last = page.len() < PAGE;
        all.extend(page);
        if is_last {
            return Ok(all);
        }
    }
}

fn print_gate(gate: &GateView) {
    outln!(
        "{} of {} in pipeline {} ({})",
        visible_name(&gate.name),
        visible_name(&gate.workflow_name),
        gate.pipeline_number,
        gate.project
    );
    outln!("  id      {}", gate.job);
    outln!("  commit  {} {}", gate.commit.short(), visible_name(&gate.subject));
    if let Some(plan) = &gate.plan {
        print_plan(plan);
    }
    match (&gate.plan_error, gate.as_of, gate.waiting) {
        (Some(error), _, _) => outln!("  no plan {}", below(error)),
        (None, Some(at), true) => outln!("  as of   {at}"),
        (None, None, true) if gate.environment.is_some() => outln!("  the plan is being made"),
        (None, _, _) => {}
    }
}

/// `towpath gates`.
pub async fn list(at: &At) -> Result<()> {
    let gates = waiting(&Client::new(at)?, at.project.as_deref()).await?;
    if gates.is_empty() {
        eprintln!("No gate waits.");
    }
    for gate in gates {
        print_gate(&gate);
        outln!();
    }
    Ok(())
}

/// `towpath approve`.
pub async fn approve(options: Approve) -> Result<()> {
    let client = Client::new(&options.at)?;
    let wanted = options.agreement.plan.as_deref().map(plan_digest).transpose()?;
    let mut gate = match options.gate.parse::<JobId>() {
        Ok(id) => client.get::<GateView>(&format!("/api/towpath/gates/{id}")).await?,
        Err(_) => named_gate(&client, &options).await?,
    };
    if gate.waiting && gate.environment.is_some() {
        // Refresh the plan: the approver has to see what would happen now, not at the server's last look.
        let path = format!("/api/towpath/gates/{}/refresh", gate.job);
        gate = client.post(&path, &serde_json::json!({})).await?;
    }
    print_gate(&gate);
    let shown = gate.plan.as_ref().map(|plan| &plan.id);
    if let Some(wanted) = &wanted
        && shown != Some(wanted)
    {
        bail!("the gate's plan is no longer `{wanted}`: look at the one above, and approve that if it is right");
    }
    if wanted.is_none()
        && !options.agreement.yes
        && !asked_and_answered(&format!("Approve {}?", visible_name(&gate.name)))?
    {
        bail!("not approved");
    }
    let body = serde_json::json!({ "plan": shown });
    let path = format!("/api/towpath/gates/{}/approve", gate.job);
    client.post::<serde_json::Value>(&path, &body).await?;
    outln!("approved {} of pipeline {}", gate.name, gate.pipeline_number);
    Ok(())
}

/// Why the gate that the user named does not wait.
async fn why_it_does_not_wait(client: &Client, project: &str, gate: &str) -> Result<anyhow::Error> {
    let pipelines: Vec<PipelineView> = client
        .get(&format!("/api/towpath/projects/{}/pipelines", percent_encoded(project)))
        .await?;
    let jobs = pipelines.iter().flat_map(|pipeline| {
        let jobs = pipeline.workflows.iter().flat_map(|workflow| &workflow.jobs);
        jobs.map(|job| (pipeline.number, job))
    });
    let newest = jobs
        .filter(|(_, job)| job.kind == JobKind::Approval && job.name == gate)
        .max_by_key(|(number, _)| *number);
    Ok(match newest {
        Some((number, job)) => {
            let how = match &job.approved_by {
                Some(by) => format!("it was already approved by {by}"),
                None => format!("it is {}", circleci_words::job(job.status).replace('_', " ")),
            };
            anyhow!("gate `{gate}` of pipeline {number} does not wait: {how}")
        }
        None => anyhow!("no gate `{gate}` of `{project}` waits: `towpath gates` shows those that do"),
    })
}

async fn named_gate(client: &Client, options: &Approve) -> Result<GateView> {
    let project = project(&options.at)?;
    let mut named = waiting(client, Some(&project)).await?;
    named.retain(|gate| gate.name == options.gate);
    match (named.pop(), named.len()) {
        (Some(gate), 0) => Ok(gate),
        (None, _) => Err(why_it_does_not_wait(client, &project, &options.gate).await?),
        (Some(gate), more) => {
            let all = named.iter().chain([&gate]);
            let all: Vec<_> = all
                .map(|gate| format!("{} (pipeline {})", gate.job, gate.pipeline_number))
                .collect();
            bail!(
                "{} gates `{}` wait; name one by its id: {}",
                more + 1,
                options.gate,
                all.join(", ")
            )
        }
    }
}
