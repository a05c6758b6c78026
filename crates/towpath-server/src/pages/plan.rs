//! The changes of a plan, before or after it is carried out.

use super::{diff::diff, text::images};
use maud::{Markup, html};
use towpath_delivery::{ChangeAction, ImageChange, OnFailure, PlanChange, PlanView};
use towpath_types::{Digest, ImageReference, visible};

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
                @let changes = plan.image_changes();
                @let several = changes.len() > 1;
                dt { @if several { "Images" } @else { "Image" } }
                @for (name, change) in changes { dd {
                    @if several { strong { (name) } ": " }
                    (image_change(change, plan.parent.is_none()))
                } }
                @if !plan.third_party.is_empty() {
                    dt { "Images of others" }
                    @for (image, digest) in &plan.third_party { dd { (third_party(image, digest.as_ref())) } }
                }
                dt { "Commits" }
                dd { @if plan.commits.is_empty() { "none since the last release" } ul.plain { @for commit in &plan.commits {
                    li { code { (commit.id.short()) } " " (visible(&commit.subject)) span.quiet { " " (visible(&commit.author)) } }
                } } }
                dt { "Objects" }
                dd { (plan.changes.len()) " change, " (plan.unchanged) " stay" }
                @if !plan.hooks.is_empty() {
                    dt { "Hooks" }
                    dd { ul.plain { @for hook in &plan.hooks {
                        li { (hook.event) " Job " (visible(&hook.name)) span.quiet { " " (images(&hook.image)) } }
                    } } }
                }
                @if plan.on_failure == OnFailure::Stop { dt { "If it fails" } dd { "everything stays as it is then" } }
            }
            @for change in &plan.changes { (self::change(change)) }
        }
    }
}

fn image_change(change: ImageChange<'_>, is_first: bool) -> Markup {
    let image = |image: &ImageReference| images(&image.to_string());
    match change {
        ImageChange::Same(same) => html! { (image(same)) " (unchanged)" },
        ImageChange::Changed { from, to } => html! { (image(from)) " → " (image(to)) },
        ImageChange::New(new) if is_first => html! { (image(new)) " (the first release here)" },
        ImageChange::New(new) => html! { (image(new)) " (new)" },
        ImageChange::Gone(gone) => html! { (image(gone)) " (no longer)" },
    }
}

/// An image that is not the project's, as manifests have it. The whole digest is in the title.
fn third_party(image: &str, digest: Option<&Digest>) -> Markup {
    let short = digest.and_then(|digest| digest.hex().get(..12));
    html! {
        code title=[digest] { (visible(image)) }
        @match short {
            Some(_) if image.contains('@') => {},
            Some(short) => { " " span.quiet { "sha256:" (short) } },
            None => { " " span.quiet { "its registry does not tell the digest" } },
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn of_several_images_each_says_whether_it_changes() {
        let image = |name: &str, digit: &str| format!("r.io/shop/{name}@sha256:{}", digit.repeat(64));
        let digest = format!("sha256:{}", "f".repeat(64));
        let shown: PlanView = serde_json::from_value(serde_json::json!({
            "id": digest, "environment": "dev", "image": "", "previous_image": null,
            "images": {"vote": image("vote", "2"), "result": image("result", "1")},
            "previous_images": {"vote": image("vote", "1"), "result": image("result", "1")},
            "third_party": {"redis<7": digest},
            "parent": "00000000-0000-0000-0000-000000000001", "commit": null, "commits": [], "changes": [], "unchanged": 3,
            "on_failure": "rollback", "blockers": [], "warnings": [],
        }))
        .unwrap();
        let page = plan(&shown, "Approving would change").into_string();
        for part in [
            "<strong>vote</strong>: ",
            ">vote@111111111111</code> → ",
            ">vote@222222222222</code></dd>",
            ">result@111111111111</code> (unchanged)",
            "redis&lt;7</code> <span class=\"quiet\">sha256:ffffffffffff</span>",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
    }
}
