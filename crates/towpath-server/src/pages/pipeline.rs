//! One pipeline: its workflows, and their jobs in columns.

use super::{
    layout::{Watches, page},
    problem::{Problem, Shown},
    status,
    text::{ago, took},
};
use crate::{App, PAGES, answer::project, auth::Caller};
use axum::{
    Extension, Router,
    extract::{Path, State},
    response::Redirect,
    routing::{get, post},
};
use maud::{Markup, html};
use std::collections::BTreeMap;
use towpath_control::{JobView, PipelineView, WorkflowView};
use towpath_store::Topic;
use towpath_types::{JobKind, WorkflowId, visible};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/projects/{project}/pipelines/{number}", get(pipeline_page))
        .route("/workflows/{workflow}/cancel", post(cancel))
}

async fn pipeline_page(State(app): State<App>, Path((name, number)): Path<(String, i64)>) -> Shown {
    let view = app.queries.pipeline_by_number(&project(&name)?, number).await?;
    let watches = Watches::Topics(vec![Topic::Pipeline(view.id)]);
    Ok(page(&format!("Pipeline {number} of {name}"), &watches, pipeline(&view)))
}

async fn cancel(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(workflow): Path<WorkflowId>,
) -> Result<Redirect, Problem> {
    app.conductor.cancel(workflow, &caller.name).await?;
    let view = app.queries.workflow(workflow).await?;
    let address = format!("{PAGES}/projects/{}/pipelines/{}", view.project, view.pipeline_number);
    Ok(Redirect::to(&address))
}

fn pipeline(view: &PipelineView) -> Markup {
    let of = view.branch.as_deref().or(view.tag.as_deref()).unwrap_or_default();
    html! {
        p.crumbs { a href=(PAGES) { "Board" } " / " (view.project) }
        h1 { "Pipeline " (view.number) }
        p { code { (view.commit.short()) } " " strong { (visible(&view.subject)) } " by " (visible(&view.author)) ", on " (of) ", " (ago(view.created_at)) }
        @if !view.errors.is_empty() {
            section role="alert" aria-label="Errors" {
                h2 { (status::pipeline(view.status)) " The configuration does not work" }
                @for error in &view.errors { pre.message { (error.render(false)) } }
            }
        }
        @if view.errors.is_empty() && view.workflows.is_empty() { p.quiet { "No workflow runs for this." } }
        @for workflow in &view.workflows { (self::workflow(workflow)) }
        @if !view.warnings.is_empty() {
            details { summary { (view.warnings.len()) @if view.warnings.len() == 1 { " warning" } @else { " warnings" } } @for warning in &view.warnings { pre.message { (warning.render(false)) } } }
        }
    }
}

/// A workflow's jobs. Each job is in a column after those that it requires.
fn workflow(view: &WorkflowView) -> Markup {
    let columns = columns(&view.jobs);
    html! {
        section.workflow aria-label=(view.name) {
            h2 {
                (view.name) " " (status::workflow(view.status)) " " (took(Some(view.created_at), view.stopped_at))
                @if view.stopped_at.is_none() {
                    form.inline method="post" action=(format!("{PAGES}/workflows/{}/cancel", view.id)) { button type="submit" { "Cancel" } }
                }
            }
            @if let Some(message) = &view.message { pre.message { (message) } }
            div.scroll { ol.columns { @for column in columns { li { ul { @for job in column { li { (job_card(&view.project, job)) } } } } } } }
        }
    }
}

fn job_card(project: &str, job: &JobView) -> Markup {
    let link = match (job.kind, job.number) {
        (JobKind::Approval, _) => Some(format!("{PAGES}/gates/{}", job.id)),
        (JobKind::Build | JobKind::NoOp, Some(number)) => Some(format!("{PAGES}/projects/{project}/jobs/{number}")),
        (JobKind::Build | JobKind::NoOp, None) => None,
    };
    html! {
        div.job {
            @match link { Some(link) => a href=(link) { (job.name) }, None => span { (job.name) } }
            (status::job(job.status))
            (took(job.started_at, job.stopped_at))
            @if let Some(by) = &job.approved_by { span.quiet { "by " (by) } }
        }
    }
}

fn columns(jobs: &[JobView]) -> Vec<Vec<&JobView>> {
    let mut depths: BTreeMap<&str, usize> = BTreeMap::new();
    // The requirements of jobs have no cycles, so this settles after at most one round for each job.
    for _ in 0..jobs.len() {
        for job in jobs {
            let depth = job
                .requires
                .iter()
                .filter_map(|name| depths.get(name.as_str()))
                .max()
                .map_or(0, |deepest| deepest + 1);
            depths.insert(&job.name, depth);
        }
    }
    let mut columns: Vec<Vec<&JobView>> = Vec::new();
    for job in jobs {
        let depth = depths.get(job.name.as_str()).copied().unwrap_or(0);
        if columns.len() <= depth {
            columns.resize_with(depth + 1, Vec::new);
        }
        columns[depth].push(job);
    }
    columns
}
