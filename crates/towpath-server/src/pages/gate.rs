//! A gate: what approving would change, and the button.

use super::{
    layout::status,
    text::{ago, image},
};
use maud::{Markup, html};
use towpath_control::{GateView, PlanChange, PlanView};

pub(super) fn gate(view: &GateView, problem: Option<&str>) -> Markup {
    let waits = view.job.status == "on_hold";
    let blocked = view.plan_error.is_some() || view.plan.as_ref().is_some_and(|plan| !plan.blockers.is_empty());
    html! {
        p.crumbs {
            a href="/" { "Board" } " / " (view.project) " / "
            a href=(format!("/projects/{}/pipelines/{}", view.project, view.pipeline_number)) { "pipeline " (view.pipeline_number) }
            " / " (view.workflow_name)
        }
        h1 { (view.job.name) " " (status(&view.job.status)) }
        p { code { (view.commit.short()) } " " strong { (view.subject) } @if let Some(branch) = &view.branch { " on " (branch) } }
        @if let Some(problem) = problem { p.problem role="alert" { (problem) } }
        @if let (Some(by), Some(at)) = (&view.job.approved_by, view.job.stopped_at) { p { "Approved by " strong { (by) } " " (ago(at)) "." } }
        @if let Some(message) = &view.job.message { p.problem { (message) } }
        @if let Some(error) = &view.plan_error { section { h2 { "No plan can be made" } pre.message { (error) } } }
        @if let Some(plan) = &view.plan { (self::plan(plan, waits)) }
        @if waits {
            form.approve method="post" action=(format!("/gates/{}/approve", view.job.id)) {
                @if let Some(plan) = &view.plan { input type="hidden" name="plan" value=(plan.id); }
                button.primary #approve type="submit" disabled[blocked] {
                    @match &view.plan { Some(plan) => { "Approve: deploy this to " (plan.environment) }, None => "Approve" }
                }
                @if let Some(plan) = &view.plan { span.quiet { "plan " code { (plan.id) } ": exactly this is done, or nothing" } }
            }
        }
    }
}

fn plan(plan: &PlanView, waits: bool) -> Markup {
    html! {
        section aria-labelledby="plan" {
            h2 #plan { @if waits { "Approving would change " } @else { "What was approved for " } (plan.environment) }
            @if !plan.blockers.is_empty() {
                div.problem role="alert" { strong { "This stands in the way:" } @for blocker in &plan.blockers { pre.message { (blocker) } } }
            }
            @for warning in &plan.warnings { p.hold { (warning) } }
            dl.facts {
                dt { "Image" }
                dd {
                    @match &plan.previous_image {
                        Some(previous) if *previous == plan.image => { (image(&plan.image)) " (unchanged)" },
                        Some(previous) => { (image(previous)) " → " (image(&plan.image)) },
                        None => { (image(&plan.image)) " (the first release here)" },
                    }
                }
                dt { "Commits" }
                dd { @if plan.commits.is_empty() { "none since the last release" } ul.plain { @for commit in &plan.commits {
                    li { code { (commit.id.short()) } " " (commit.subject) span.quiet { " " (commit.author) } }
                } } }
                dt { "Objects" }
                dd { (plan.changes.len()) " change, " (plan.unchanged) " stay" }
            }
            @for change in &plan.changes { (self::change(change)) }
        }
    }
}

fn change(change: &PlanChange) -> Markup {
    // A new object is whole in its diff and seldom what one looks for; a changed line is.
    let open = change.action == "changed";
    html! {
        details.change id=(format!("change-{}-{}", change.kind, change.name)) open[open] {
            summary { span.action.(change.action) { (change.action) } " " (change.kind) " " strong { (change.name) } }
            (diff(&change.diff))
        }
    }
}

/// A unified diff, without the two lines that name its sides.
pub(super) fn diff(text: &str) -> Markup {
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("--- ") && !line.starts_with("+++ "));
    html! { pre.diff { @for line in lines { (diff_line(line)) } } }
}

fn diff_line(line: &str) -> Markup {
    let class = match line.as_bytes().first() {
        Some(b'+') => "added",
        Some(b'-') => "removed",
        Some(b'@') => "place",
        _ => "same",
    };
    html! { span.(class) { (line) "\n" } }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn view() -> GateView {
        serde_json::from_value(serde_json::json!({
            "job": { "id": "00000000-0000-0000-0000-000000000001", "number": null, "name": "hold-dev", "kind": "approval",
                     "status": "on_hold", "requires": [], "started_at": null, "stopped_at": null, "message": null,
                     "environment": "dev", "approved_by": null },
            "workflow": "00000000-0000-0000-0000-000000000002", "workflow_name": "main", "project": "claims",
            "pipeline_number": 3, "branch": "main", "commit": "a".repeat(40), "subject": "Say <b>hello</b>",
            "plan": { "id": "p1", "environment": "dev", "image": "r/claims@sha256:1", "previous_image": null, "parent": null,
                      "commit": null, "commits": [], "unchanged": 4, "blockers": [], "warnings": [],
                      "changes": [{ "action": "changed", "kind": "ConfigMap", "name": "app",
                                    "diff": "--- ConfigMap/app\n+++ ConfigMap/app\n@@ -1,1 +1,1 @@\n-GREETING: <old>\n+GREETING: new\n" }] },
            "plan_error": null
        }))
        .unwrap()
    }

    #[test]
    fn what_is_approved_is_the_plan_that_is_shown() {
        let text = gate(&view(), None).into_string();
        assert!(
            text.contains(r#"<input type="hidden" name="plan" value="p1">"#),
            "{text}"
        );
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
    }

    #[test]
    fn what_stands_in_the_way_takes_the_button_away() {
        let mut view = view();
        view.plan.as_mut().unwrap().blockers = vec!["there is no Secret `claims-secrets`".into()];
        let text = gate(&view, None).into_string();
        assert!(
            text.contains("there is no Secret `claims-secrets`") && text.contains(" disabled"),
            "{text}"
        );
        view.job.status = "success".into();
        assert!(
            !gate(&view, None).into_string().contains("<form"),
            "an open gate has no button"
        );
    }
}
