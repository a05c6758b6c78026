//! One environment: what runs there, what has drifted, its releases.

use super::{
    board::sighting,
    diff::diff,
    layout::{Watches, page},
    plan,
    problem::{Problem, Shown},
    status,
    text::{ago, images},
};
use crate::{App, PAGES, answer::environment as environment_id, auth::Caller};
use axum::{
    Extension, Form, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use maud::{Markup, html};
use towpath_delivery::{CronJobStatus, DriftView, EnvironmentView, PlanView, ReleaseView, plan_digest};
use towpath_store::Topic;
use towpath_types::ReleaseStatus;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/projects/{project}/environments/{environment}", get(environment_page))
        .route(
            "/projects/{project}/environments/{environment}/rollback",
            post(rollback),
        )
}

async fn environment_page(State(app): State<App>, Path((project, name)): Path<(String, String)>) -> Shown {
    let id = environment_id(&project, &name)?;
    let view = app.queries.environment(&id).await?;
    let history = app.queries.history(&id).await?;
    let watches = Watches::Topics(vec![Topic::Environment(id)]);
    Ok(page(
        &format!("{name} of {project}"),
        &watches,
        environment(&view, &history),
    ))
}

#[derive(serde::Deserialize)]
struct Back {
    /// The number of the release to go back to.
    to: i64,
    /// The digest of the plan that the page showed; empty if it showed none.
    #[serde(default)]
    plan: String,
}

async fn rollback(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path((project, name)): Path<(String, String)>,
    Form(Back { to, plan }): Form<Back>,
) -> Result<Response, Problem> {
    let id = environment_id(&project, &name)?;
    let shown = match plan.as_str() {
        "" => None,
        text => Some(plan_digest(text)?),
    };
    let releases = &app.delivery.releases;
    match releases.rollback(&id, Some(to), shown.as_ref(), &caller.actor()).await {
        Ok(_) => Ok(Redirect::to(&format!("{PAGES}/projects/{project}/environments/{name}")).into_response()),
        Err(error) => match error.plan() {
            Some(plan) => {
                let body = going_back(&project, &name, to, &error.to_string(), plan);
                let shown = page(&format!("Going back in {name}"), &Watches::Nothing, body);
                Ok((StatusCode::CONFLICT, shown).into_response())
            }
            None => Err(error.into()),
        },
    }
}

/// What a rollback would change, and the button that confirms it.
fn going_back(project: &str, name: &str, to: i64, why: &str, plan: &PlanView) -> Markup {
    let environment = format!("{PAGES}/projects/{project}/environments/{name}");
    html! {
        p.crumbs { a href=(PAGES) { "Board" } " / " (project) " / " a href=(environment) { (name) } }
        h1 { "Go back to release " (to) "?" }
        p.hold { (why) }
        (plan::plan(plan, "Going back would change"))
        form.approve method="post" action=(format!("{environment}/rollback")) {
            input type="hidden" name="to" value=(to);
            input type="hidden" name="plan" value=(plan.id);
            button.primary #approve type="submit" { "Go back: deploy this to " (plan.environment) }
            span.quiet { "plan " code { (plan.id) } ": exactly this is done, or nothing" }
        }
    }
}

fn environment(view: &EnvironmentView, history: &[ReleaseView]) -> Markup {
    html! {
        p.crumbs { a href=(PAGES) { "Board" } " / " (view.project) }
        h1 { (view.name) }
        (sighting(&view.sighting))
        @if !view.ambiguous.is_empty() {
            p.problem { "More than one folder has an environment of this name: " (view.ambiguous.join(", ")) }
        }
        @for address in &view.addresses { p { "Answers at " a href=(address) rel="noreferrer" { (address) } } }
        @if let Some(between) = &view.between { p.problem { (between) } }
        @if let Some(hold) = &view.hold { p.problem { (hold) } }
        @if let (None, Some(elsewhere)) = (&view.deploying, &view.under_way) {
            p { (status::under_way()) " " (elsewhere.by) " is deploying: " (elsewhere.what) ", since " (ago(elsewhere.since)) }
        }
        @if let Some(drift) = view.drift.as_ref().filter(|drift| !drift.objects.is_empty()) { (self::drift(drift)) }
        (workloads(view))
        @if !view.cron_jobs.is_empty() { (cron_jobs(&view.cron_jobs)) }
        section aria-labelledby="releases" {
            h2 #releases { "Releases" }
            @if history.is_empty() { p.quiet { "None yet." } }
            ul.rows.releases { @for release in history { (release_row(view, release)) } }
        }
    }
}

fn drift(drift: &DriftView) -> Markup {
    html! {
        section aria-labelledby="drift" {
            h2 #drift { "Drifted from the release" }
            p.quiet { "Looked at " (ago(drift.at)) ". Deploying again restores what the release says; what others added beside it stays." }
            @for object in &drift.objects {
                details.change open {
                    summary {
                        (object.action.as_str()) " " (object.kind) " " strong { (object.name) }
                        @for writer in &object.writers { " · " (writer.manager) @if let Some(at) = writer.at { " " (ago(at)) } }
                    }
                    (diff(&object.diff))
                }
            }
        }
    }
}

fn workloads(view: &EnvironmentView) -> Markup {
    html! {
        section aria-labelledby="workloads" {
            h2 #workloads { "What runs" }
            @if view.workloads.is_empty() { p.quiet { "Nothing." } }
            div.scroll { table {
                thead { tr { th { "Workload" } th { "Ready" } th { "Restarts" } th { "Image" } th { "State" } } }
                tbody { @for workload in &view.workloads { tr {
                    td { (workload.kind) " " strong { (workload.name) } }
                    td { @if workload.kind == "CronJob" { "–" } @else { (workload.ready) "/" (workload.desired) } }
                    td { (workload.restarts) }
                    td { (images(&workload.image)) }
                    td { (workload.message) }
                } } }
            } }
        }
    }
}

fn cron_jobs(jobs: &[CronJobStatus]) -> Markup {
    html! {
        section aria-labelledby="cron-jobs" {
            h2 #cron-jobs { "Cron jobs" }
            ul.rows { @for job in jobs { li {
                strong { (job.name) }
                code { (job.schedule) }
                @if job.suspended { span.quiet { "suspended" } }
                span.quiet { "last run " @match job.last_run { Some(at) => (ago(at)), None => "never" } }
                @if let Some(next) = job.next_run { span.quiet { "next run " time datetime=(next) { (next) } } }
                @for failure in &job.failures { pre.message { (failure.job) ": " (failure.message) } }
            } } }
        }
    }
}

fn release_row(view: &EnvironmentView, release: &ReleaseView) -> Markup {
    let current = view.release.as_ref().is_some_and(|current| current.id == release.id);
    html! {
        li {
            strong { "#" (release.number) }
            span { (status::release(release.status, release.state.as_str())) @if current { " · runs now" } }
            span { (images(&release.image)) @if let Some(commit) = &release.commit { " from " code { (commit.short()) } } }
            span.quiet { (release.cause) ", by " (release.by) ", " (ago(release.at)) }
            @if !current && release.status == ReleaseStatus::Succeeded {
                form method="post" action=(format!("{PAGES}/projects/{}/environments/{}/rollback", view.project, view.name)) {
                    input type="hidden" name="to" value=(release.number);
                    button type="submit" { "Go back to this" }
                }
            }
            @if let Some(repeats) = release.repeats_text() { span.quiet { (repeats) } }
            @if let Some(message) = &release.message { pre.message { (message) } }
        }
    }
}
