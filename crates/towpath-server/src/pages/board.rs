//! The board: what runs where, what waits, what happened.

use super::{
    layout::{Watches, page},
    problem::Shown,
    status,
    text::{ago, images},
};
use crate::{App, PAGES};
use axum::{Router, extract::State, routing::get};
use maud::{Markup, html};
use towpath_control::{Board, GateView, PipelineView, SetAsideView};
use towpath_delivery::{EnvironmentView, SightingView};
use towpath_types::visible;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/", get(board_page))
}

async fn board_page(State(app): State<App>) -> Shown {
    let view = app.queries.board().await?;
    let set_aside = app.queries.set_aside().await?;
    Ok(page("Board", &Watches::Board, board(&view, &set_aside)))
}

fn board(board: &Board, set_aside: &[SetAsideView]) -> Markup {
    html! {
        h1 { "Board" }
        @if board.projects.is_empty() {
            section.card {
                h2 { "No project yet" }
                p { "In your repository, run " code { "towpath init" } " and then " code { "git push towpath HEAD" } "." }
            }
        }
        @if !set_aside.is_empty() { (work(set_aside)) }
        @if !board.gates.is_empty() { (gates(board)) }
        @for project in &board.projects {
            section aria-label=(format!("Environments of {}", project.name)) {
                h2 { (project.name) }
                @if project.environments.is_empty() { p.quiet { "No environment: nothing was pushed, or no manifests were found. `towpath init` says what it looks for." } }
                ul.cards { @for environment in &project.environments { (environment_card(environment)) } }
            }
        }
        section aria-labelledby="pipelines" {
            h2 #pipelines { "Pipelines" }
            @if board.pipelines.is_empty() { p.quiet { "None yet." } }
            ul.rows { @for pipeline in &board.pipelines { (pipeline_row(pipeline)) } }
        }
        form.inline method="post" action=(format!("{PAGES}/logout")) {
            button type="submit" { "Sign out" }
            button type="submit" name="everywhere" value="yes" { "Sign out everywhere" }
        }
    }
}

fn gates(board: &Board) -> Markup {
    let shown = board.gates.len() as u64;
    html! {
        section aria-labelledby="gates" {
            h2 #gates {
                "Waiting for approval"
                @if board.waiting_gates > shown { " (" (shown) " of " (board.waiting_gates) ", the oldest first)" }
            }
            ul.cards { @for gate in &board.gates { (gate_card(gate)) } }
        }
    }
}

fn gate_card(gate: &GateView) -> Markup {
    let of = gate.branch.as_deref().or(gate.tag.as_deref()).unwrap_or_default();
    html! {
        li.card.hold {
            a.title href=(format!("{PAGES}/gates/{}", gate.job)) { (gate.name) }
            p { (gate.project) " · pipeline " (gate.pipeline_number) " · " (of) }
            p.quiet { code { (gate.commit.short()) } " " (visible(&gate.subject)) }
            @match (&gate.plan, &gate.plan_error, &gate.environment) {
                (Some(plan), _, _) => p { (plan.changes.len()) " objects would change in " strong { (plan.environment) } },
                (None, Some(_), _) => p.problem { "No plan can be made" },
                (None, None, Some(_)) => p.quiet { "The plan is being made" },
                (None, None, None) => {},
            }
        }
    }
}

fn environment_card(environment: &EnvironmentView) -> Markup {
    let unwell = environment
        .workloads
        .iter()
        .any(|workload| workload.ready < workload.desired);
    html! {
        li.card {
            a.title href=(format!("{PAGES}/projects/{}/environments/{}", environment.project, environment.name)) { (environment.name) }
            (sighting(&environment.sighting))
            @if !environment.ambiguous.is_empty() {
                p.problem { "More than one folder has it: " (environment.ambiguous.join(", ")) }
            }
            @if let Some(release) = &environment.deploying { p { (status::under_way()) " release " (release.number) " is being deployed" } }
            @if let Some(between) = &environment.between { p.problem { (between) } }
            @if let Some(hold) = &environment.hold { p.problem { (hold) } }
            @if let Some(drift) = environment.drift.as_ref().filter(|drift| !drift.objects.is_empty()) {
                p.problem { (drift.objects.len()) " objects have drifted from the release" }
            }
            @match &environment.release {
                Some(release) => {
                    p { (images(&release.image)) @if let Some(commit) = &release.commit { " from " code { (commit.short()) } } }
                    p.quiet { "release " (release.number) " by " (release.by) ", " (ago(release.at)) }
                    @if unwell { p.problem { "Not everything is ready" } }
                }
                None => p.quiet { "Nothing deployed yet" },
            }
            @for address in &environment.addresses { p { a href=(address) rel="noreferrer" { (address) } } }
        }
    }
}

/// When an environment was last observed, or since when it does not answer, and why.
pub(super) fn sighting(sighting: &SightingView) -> Markup {
    html! {
        @match sighting {
            SightingView::Never => p.quiet { "nobody has looked there yet" },
            SightingView::Seen { at } => p.quiet { "seen " (ago(*at)) },
            SightingView::Unknown { since, because } => p.problem { "unknown since " (ago(*since)) ", because " (because) },
        }
    }
}

fn pipeline_row(pipeline: &PipelineView) -> Markup {
    let of = pipeline.branch.as_deref().or(pipeline.tag.as_deref());
    html! {
        li {
            a href=(format!("{PAGES}/projects/{}/pipelines/{}", pipeline.project, pipeline.number)) { (pipeline.project) " #" (pipeline.number) }
            span { code { (pipeline.commit.short()) } " " (visible(&pipeline.subject)) }
            span.quiet { (of.unwrap_or_default()) " · " (ago(pipeline.created_at)) }
            span.statuses {
                (status::pipeline(pipeline.status))
                @for workflow in &pipeline.workflows { span { (workflow.name) " " (status::workflow(workflow.status)) } }
            }
        }
    }
}

/// Work that failed repeatedly.
fn work(set_aside: &[SetAsideView]) -> Markup {
    html! {
        section aria-labelledby="work" {
            h2 #work { "Set aside" }
            p.quiet { "This failed again and again, and stops nothing else. It is not tried again by itself." }
            ul.rows { @for work in set_aside { li {
                strong { (work.kind.as_str()) }
                code { (work.key) }
                @if let Some(project) = &work.project { span { (project) } }
                span.quiet { "failed " (work.failures) " times, since " (ago(work.since)) }
                pre.message { (work.reason) }
            } } }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn environment(sighting: Value) -> Value {
        json!({
            "project": "claims", "name": "dev", "workloads": [], "addresses": [], "release": null, "deploying": null,
            "under_way": null, "hold": null, "between": null, "drift": null, "sighting": sighting,
        })
    }

    fn gate() -> Value {
        json!({
            "job": "00000000-0000-0000-0000-000000000001", "name": "hold-dev", "status": "on_hold",
            "workflow": "00000000-0000-0000-0000-000000000002", "workflow_name": "main", "project": "claims",
            "pipeline_number": 3, "branch": "main", "tag": null, "commit": "a".repeat(40), "subject": "Hello",
            "environment": { "project": "claims", "environment": "dev" }, "waiting": true, "plan": null,
            "plan_error": null, "as_of": null, "approved_by": null, "message": null,
        })
    }

    fn text(sighting: Value, waiting: u64, set_aside: &[SetAsideView]) -> String {
        let view: Board = serde_json::from_value(json!({
            "projects": [{ "name": "claims", "environments": [environment(sighting)] }],
            "pipelines": [], "gates": [gate(), gate()], "waiting_gates": waiting,
        }))
        .unwrap();
        board(&view, set_aside).into_string()
    }

    #[test]
    fn an_environment_that_does_not_answer_says_since_when_and_why() {
        let unknown = json!({ "state": "unknown", "since": "2026-01-01T00:00:00Z", "because": "no route to <host>" });
        let shown = text(unknown, 2, &[]);
        assert!(
            shown.contains("unknown since <time") && shown.contains("because no route to &lt;host&gt;"),
            "{shown}"
        );
        let shown = text(json!({ "state": "seen", "at": "2026-01-01T00:00:00Z" }), 2, &[]);
        assert!(shown.contains("seen <time") && !shown.contains("unknown"), "{shown}");
    }

    #[test]
    fn the_gates_that_are_left_out_are_counted() {
        let seen = json!({ "state": "never" });
        assert!(text(seen.clone(), 122, &[]).contains("(2 of 122, the oldest first)"));
        assert!(!text(seen, 2, &[]).contains("the oldest first"));
    }

    #[test]
    fn work_that_was_set_aside_is_shown_with_its_reason() {
        let seen = json!({ "state": "never" });
        let work = SetAsideView {
            kind: towpath_store::WorkKind::Trigger,
            key: "t1".into(),
            project: Some("claims".into()),
            failures: 5,
            reason: "the disk is <full>".into(),
            since: jiff::Timestamp::UNIX_EPOCH,
        };
        let shown = text(seen.clone(), 2, &[work]);
        assert!(
            shown.contains("Set aside") && shown.contains("the disk is &lt;full&gt;"),
            "{shown}"
        );
        assert!(!text(seen, 2, &[]).contains("Set aside"));
    }
}
