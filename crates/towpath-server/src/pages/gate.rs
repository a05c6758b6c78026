//! A gate: what approving it would change, and the button.

use super::{
    layout::{Watches, page},
    plan,
    problem::{Problem, Shown},
    status,
    text::ago,
};
use crate::{App, PAGES, answer::id, auth::Caller};
use axum::{
    Extension, Form, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use maud::{Markup, html};
use towpath_control::GateView;
use towpath_delivery::{ErrorKind, plan_digest};
use towpath_store::Topic;
use towpath_types::{JobId, visible};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/gates/{job}", get(gate_page))
        .route("/gates/{job}/approve", post(approve))
}

fn whole(view: &GateView, problem: Option<&str>) -> Markup {
    let watches = Watches::Topics(vec![Topic::Job(view.job)]);
    page(&format!("Gate {}", view.name), &watches, gate(view, problem))
}

async fn gate_page(State(app): State<App>, Path(job): Path<String>) -> Shown {
    let view = app.queries.gate(id(&job, "gate")?).await?;
    Ok(whole(&view, None))
}

#[derive(serde::Deserialize)]
struct Approval {
    /// The digest of the plan that the page showed; empty if it showed none.
    #[serde(default)]
    plan: String,
}

async fn approve(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Path(job): Path<String>,
    Form(Approval { plan }): Form<Approval>,
) -> Result<Response, Problem> {
    let job: JobId = id(&job, "gate")?;
    let shown = match plan.as_str() {
        "" => None,
        text => Some(plan_digest(text)?),
    };
    match app.approvals.approve(job, shown.as_ref(), &caller.actor()).await {
        Ok(()) => Ok(Redirect::to(&format!("{PAGES}/gates/{job}")).into_response()),
        Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Invalid) => {
            // Show the reason together with the gate as it is now. The plan may have changed since the page showed it, for
            // example.
            let view = app.queries.gate(job).await?;
            Ok((StatusCode::CONFLICT, whole(&view, Some(&error.to_string()))).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

fn gate(view: &GateView, problem: Option<&str>) -> Markup {
    let number = view.pipeline_number;
    let of = view.branch.as_deref().or(view.tag.as_deref());
    // Nobody approves a gate that leads to an environment without having seen its plan.
    let unseen = view.environment.is_some() && view.plan.is_none();
    let blocked = unseen || view.plan.as_ref().is_some_and(|plan| !plan.blockers.is_empty());
    html! {
        p.crumbs {
            a href=(PAGES) { "Board" } " / " (view.project) " / "
            a href=(format!("{PAGES}/projects/{}/pipelines/{number}", view.project)) { "pipeline " (number) }
            " / " (view.workflow_name)
        }
        h1 { (view.name) " " (status::job(view.status)) }
        p { code { (view.commit.short()) } " " strong { (visible(&view.subject)) } @if let Some(of) = of { " on " (visible(of)) } }
        @if let Some(problem) = problem { pre.message.problem role="alert" { (problem) } }
        @if let Some(by) = &view.approved_by {
            p { "Approved by " strong { (by) } @if let Some(at) = view.as_of { " " (ago(at)) } "." }
        }
        @if let Some(message) = &view.message { p.problem { (message) } }
        @if view.waiting { (state_of_plan(view)) }
        @if let Some(plan) = &view.plan {
            @let title = if view.waiting { "Approving would change" } else { "What was approved for" };
            (plan::plan(plan, title))
        }
        @if view.waiting {
            form.approve method="post" action=(format!("{PAGES}/gates/{}/approve", view.job)) {
                @if let Some(plan) = &view.plan { input type="hidden" name="plan" value=(plan.id); }
                button.primary #approve type="submit" disabled[blocked] {
                    @match &view.plan { Some(plan) => { "Approve: deploy this to " (plan.environment) }, None => "Approve" }
                }
                @if let Some(plan) = &view.plan { span.quiet { "plan " code { (plan.id) } ": exactly this is done, or nothing" } }
            }
        }
    }
}

/// The age of a waiting gate's plan, or why it has none.
fn state_of_plan(view: &GateView) -> Markup {
    let Some(environment) = &view.environment else {
        return html! { p.quiet { "Approving this deploys nothing by itself." } };
    };
    let name = environment.environment();
    html! {
        @match (&view.plan_error, view.as_of) {
            (Some(error), at) => section {
                h2 { "No plan can be made" }
                pre.message { (error) }
                p.quiet { "Tried " @if let Some(at) = at { (ago(at)) } ". It is tried again by itself." }
            },
            (None, Some(at)) => p.quiet { "What would change in " (name) ", as of " (ago(at)) "." },
            (None, None) => p.quiet { "The plan for " (name) " is being made." },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;
    use towpath_types::{JobStatus, Outcome};

    const PLAN: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn view() -> GateView {
        serde_json::from_value(json!({
            "job": "00000000-0000-0000-0000-000000000001", "name": "hold-dev", "status": "on_hold",
            "workflow": "00000000-0000-0000-0000-000000000002", "workflow_name": "main", "project": "claims",
            "pipeline_number": 3, "branch": "main", "tag": null, "commit": "a".repeat(40), "subject": "Say <b>hello</b>",
            "environment": { "project": "claims", "environment": "dev" }, "waiting": true,
            "plan": { "id": PLAN, "environment": "dev", "image": "r/claims@sha256:1", "images": {}, "previous_image": null,
                      "parent": null, "commit": null, "commits": [], "unchanged": 4, "on_failure": "rollback",
                      "blockers": [], "warnings": [],
                      "changes": [{ "action": "changed", "kind": "ConfigMap", "name": "app",
                                    "diff": "--- ConfigMap/app\n+++ ConfigMap/app\n@@ -1,1 +1,1 @@\n-GREETING: <old>\n+GREETING: new\n" }] },
            "plan_error": null, "as_of": "2026-01-01T00:00:00Z", "approved_by": null, "message": null,
        }))
        .unwrap()
    }

    fn text(view: &GateView) -> String {
        gate(view, None).into_string()
    }

    #[test]
    fn what_is_approved_is_the_plan_that_is_shown() {
        let text = text(&view());
        let field = format!(r#"<input type="hidden" name="plan" value="{PLAN}">"#);
        assert!(text.contains(&field), "{text}");
        assert!(
            text.contains("Say &lt;b&gt;hello&lt;/b&gt;") && !text.contains("<b>hello"),
            "{text}"
        );
        assert!(
            text.contains("<span class=\"removed\">-GREETING: &lt;old&gt;\n</span>"),
            "{text}"
        );
        assert!(
            text.contains("deploy this to dev") && !text.contains("disabled"),
            "{text}"
        );
        assert!(text.contains("as of <time datetime=\"2026-01-01T00:00:00Z\""), "{text}");
    }

    #[test]
    fn what_stands_in_the_way_takes_the_button_away() {
        let mut view = view();
        view.plan.as_mut().unwrap().blockers = vec!["there is no Secret `claims-secrets`".into()];
        let shown = text(&view);
        assert!(
            shown.contains("there is no Secret `claims-secrets`") && shown.contains(" disabled"),
            "{shown}"
        );
    }

    #[test]
    fn a_gate_without_a_plan_says_why_and_stays_shut() {
        let failed = GateView {
            plan: None,
            plan_error: Some("the registry does not answer".into()),
            ..view()
        };
        let shown = text(&failed);
        assert!(
            shown.contains("No plan can be made") && shown.contains("the registry does not answer"),
            "{shown}"
        );
        assert!(
            shown.contains(" disabled") && !shown.contains("name=\"plan\""),
            "{shown}"
        );
        let new = GateView {
            plan: None,
            as_of: None,
            ..view()
        };
        let shown = text(&new);
        assert!(
            shown.contains("is being made") && shown.contains(" disabled"),
            "{shown}"
        );
        let of_nothing = GateView {
            environment: None,
            plan: None,
            as_of: None,
            ..view()
        };
        let shown = text(&of_nothing);
        assert!(
            shown.contains("deploys nothing") && !shown.contains(" disabled"),
            "{shown}"
        );
    }

    #[test]
    fn a_gate_that_was_decided_shows_the_record_of_it() {
        let approved = GateView {
            waiting: false,
            status: JobStatus::Ended(Outcome::Succeeded),
            approved_by: Some("ann".into()),
            ..view()
        };
        let shown = text(&approved);
        assert!(shown.contains("Approved by <strong>ann</strong>"), "{shown}");
        assert!(
            shown.contains("What was approved for dev") && !shown.contains("<form"),
            "{shown}"
        );
        let canceled = GateView {
            waiting: false,
            status: JobStatus::Ended(Outcome::Canceled),
            plan: None,
            message: Some("the workflow was canceled by bob".into()),
            ..view()
        };
        let shown = text(&canceled);
        assert!(
            shown.contains("canceled by bob") && !shown.contains("<form") && !shown.contains("Approved by"),
            "{shown}"
        );
    }
}
