//! The changes of a plan, before or after it is carried out.

use super::{diff::diff, text::images};
use maud::{Markup, html};
use towpath_delivery::{ChangeAction, OnFailure, PlanChange, PlanView};
use towpath_types::visible;

/// A plan under a title that the environment's name completes: `Approving would change`.
pub(super) fn plan(plan: &PlanView, title: &str) -> Markup {
    html! {
        section aria-labelledby="plan" {
            h2 #plan { (title) " " (plan.environment) }
            @if !plan.blockers.is_empty() {
                div.problem role="alert" { strong { "This stands in the way:" } @for blocker in &plan.blockers { pre.message { (visible(blocker)) } } }
            }
            @for warning in &plan.warnings { p.hold { (visible(warning)) } }
            dl.facts {
                dt { "Image" }
                dd {
                    @match &plan.previous_image {
                        Some(previous) if *previous == plan.image => { (images(&plan.image)) " (unchanged)" },
                        Some(previous) => { (images(previous)) " → " (images(&plan.image)) },
                        None => { (images(&plan.image)) " (the first release here)" },
                    }
                }
                dt { "Commits" }
                dd { @if plan.commits.is_empty() { "none since the last release" } ul.plain { @for commit in &plan.commits {
                    li { code { (commit.id.short()) } " " (visible(&commit.subject)) span.quiet { " " (visible(&commit.author)) } }
                } } }
                dt { "Objects" }
                dd { (plan.changes.len()) " change, " (plan.unchanged) " stay" }
                @if plan.on_failure == OnFailure::Stop { dt { "If it fails" } dd { "everything stays as it is then" } }
            }
            @for change in &plan.changes { (self::change(change)) }
        }
    }
}

fn change(change: &PlanChange) -> Markup {
    // The diff of a new object is the whole object, which people seldom need. They look for changed lines.
    let open = change.action == ChangeAction::Changed;
    html! {
        details.change id=(format!("change-{}-{}", change.kind, change.name)) open[open] {
            summary { span.action.(change.action.as_str()) { (change.action.as_str()) } " " (change.kind) " " strong { (change.name) } }
            (diff(&change.diff))
        }
    }
}
