//! One job: first what failed, then everything.

use super::{
    layout::{Watches, page},
    problem::Shown,
    status,
    text::{plain, took},
};
use crate::{App, PAGES, address, answer::project};
use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    routing::get,
};
use maud::{Markup, html};
use towpath_control::{JobDetail, StepView};
use towpath_store::Topic;
use towpath_types::{Outcome, StepStatus};

/// How many of the failed step's last lines the page shows first.
const LAST_LINES: usize = 20;
/// How many bytes from the end of a log the page shows.
const LOG_TAIL_BYTES: u64 = 64 << 10;
/// The page expands a successful step if its log is shorter than this.
const SHORT_LOG_BYTES: u64 = 4096;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/projects/{project}/jobs/{number}", get(job_page))
}

async fn job_page(State(app): State<App>, Path((name, number)): Path<(String, i64)>) -> Shown {
    let view = app.queries.job(&project(&name)?, number).await?;
    let mut logs = Vec::new();
    for step in &view.steps {
        let from = step.log_bytes.saturating_sub(LOG_TAIL_BYTES);
        let log = app
            .queries
            .step_log(view.job.id, step.node, step.index, from, LOG_TAIL_BYTES);
        logs.push(log.await?);
    }
    let watches = Watches::Topics(vec![Topic::Job(view.job.id), Topic::JobLogs(view.job.id)]);
    let title = format!("{} of {name}", view.job.name);
    Ok(page(&title, &watches, job(&view, &logs)))
}

fn is_failure(step: &StepView) -> bool {
    matches!(step.status, StepStatus::Ended(outcome) if outcome.is_failure())
}

fn job(view: &JobDetail, logs: &[Bytes]) -> Markup {
    let failed = view.steps.iter().zip(logs).find(|(step, _)| is_failure(step));
    let project = &view.workflow.project;
    let number = view.workflow.pipeline_number;
    html! {
        p.crumbs {
            a href=(PAGES) { "Board" } " / " (project) " / "
            a href=(format!("{PAGES}/projects/{project}/pipelines/{number}")) { "pipeline " (number) }
            " / " (view.workflow.name)
        }
        h1 { (view.job.name) " " (status::job(view.job.status)) " " (took(view.job.started_at, view.job.stopped_at)) }
        @if view.job.attempt > 1 { p.quiet { "attempt " (view.job.attempt) } }
        @if let Some(message) = &view.job.message { pre.message { (message) } }
        @if let Some(image) = &view.image { p.quiet { "in " code { (image) } } }
        @if let Some((step, log)) = failed {
            section aria-label="What failed" {
                h2 { (step.name) " failed" }
                @if let Some(message) = &step.message { p.problem { (message) } }
                pre.log { (last_lines(log)) }
            }
        }
        @if view.tests.total > 0 {
            section aria-labelledby="tests" {
                h2 #tests { "Tests" }
                p { (view.tests.total) " ran, " (view.tests.failed) " failed, " (view.tests.skipped) " skipped" }
                @for failure in &view.tests.failures { details { summary { (failure.name) } pre.message { (failure.message) } } }
            }
        }
        section aria-labelledby="steps" {
            h2 #steps { "Steps" }
            @if view.steps.is_empty() { p.quiet { "None has begun." } }
            @for (step, log) in view.steps.iter().zip(logs) { (self::step(view, step, log)) }
        }
        @if !view.artifacts.is_empty() {
            section aria-labelledby="artifacts" {
                h2 #artifacts { "Artifacts" }
                ul.rows { @for artifact in &view.artifacts { li {
                    a href=(address::artifact(view.job.id, artifact.node, &artifact.path)) { (artifact.path) }
                    span.quiet { (artifact.bytes) " bytes" }
                } } }
            }
        }
    }
}

fn step(view: &JobDetail, step: &StepView, log: &Bytes) -> Markup {
    let open = step.status != StepStatus::Ended(Outcome::Succeeded) || step.log_bytes < SHORT_LOG_BYTES;
    let shown = log.len() as u64;
    html! {
        details id=(format!("step-{}-{}", step.node, step.index)) open[open] {
            summary { (status::step(step.status)) " " (step.name) " " (took(Some(step.started_at), step.stopped_at)) }
            @if step.log_bytes > shown {
                p.quiet { "The last " (shown >> 10) " KiB. " a href=(format!("{PAGES}/logs/{}/{}/{}", view.job.id, step.node, step.index)) { "From the beginning" } }
            }
            @if !log.is_empty() { pre.log { (plain(log)) } }
            @if let Some(message) = &step.message { p.problem { (message) } }
        }
    }
}

fn last_lines(log: &Bytes) -> String {
    let text = plain(log);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}
