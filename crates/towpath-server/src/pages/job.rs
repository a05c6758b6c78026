//! One job: what failed first, then everything.

use super::{
    layout::status,
    text::{plain, took},
};
use axum::body::Bytes;
use maud::{Markup, html};
use towpath_control::{JobDetail, StepView};

/// How many of the failing step's last lines come first.
const LAST_LINES: usize = 20;

pub(super) fn job(view: &JobDetail, logs: &[Bytes]) -> Markup {
    let failed = view
        .steps
        .iter()
        .zip(logs)
        .find(|(step, _)| matches!(step.status.as_str(), "failed" | "timedout" | "errored"));
    html! {
        p.crumbs {
            a href="/" { "Board" } " / " (view.workflow.project) " / "
            a href=(format!("/projects/{}/pipelines/{}", view.workflow.project, view.workflow.pipeline_number)) { "pipeline " (view.workflow.pipeline_number) }
            " / " (view.workflow.name)
        }
        h1 { (view.job.name) " " (status(&view.job.status)) " " (took(view.job.started_at, view.job.stopped_at)) }
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
                    a href=(format!("/artifacts/{}/{}/{}", view.job.id, artifact.node, artifact.path)) { (artifact.path) }
                    span.quiet { (artifact.bytes) " bytes" }
                } } }
            }
        }
    }
}

fn step(view: &JobDetail, step: &StepView, log: &Bytes) -> Markup {
    let open = step.status != "success" || step.log_bytes < 4096;
    let shown = log.len() as u64;
    html! {
        details id=(format!("step-{}-{}", step.node, step.index)) open[open] {
            summary { (status(&step.status)) " " (step.name) " " (took(Some(step.started_at), step.stopped_at)) }
            @if step.log_bytes > shown {
                p.quiet { "The last " (shown >> 10) " KiB. " a href=(format!("/logs/{}/{}/{}", view.job.id, step.node, step.index)) { "From the beginning" } }
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
