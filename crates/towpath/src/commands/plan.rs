//! Formats plans for people.

use towpath_delivery::{ImageChange, OnFailure, PlanView};
use towpath_types::{Digest, visible, visible_name};

/// Prints a plan for a person.
pub fn print_plan(plan: &PlanView) {
    outln!("plan {} for {}", plan.id, plan.environment);
    let images = plan.image_changes();
    let several = images.len() > 1;
    for (name, change) in images {
        let name = if several { format!("{name}: ") } else { String::new() };
        match change {
            ImageChange::Same(image) => outln!("  image   {name}{image} (unchanged)"),
            ImageChange::Changed { from, to } => outln!("  image   {name}{from}\n       -> {to}"),
            ImageChange::New(image) if plan.parent.is_none() => outln!("  image   {name}{image} (first release)"),
            ImageChange::New(image) => outln!("  image   {name}{image} (new)"),
            ImageChange::Gone(image) => outln!("  image   {name}{image} (no longer)"),
        }
    }
    for (image, digest) in &plan.third_party {
        outln!("  others' {}", third_party(image, digest.as_ref()));
    }
    for commit in &plan.commits {
        let (subject, author) = (visible_name(&commit.subject), visible_name(&commit.author));
        outln!("  commit  {} {subject} ({author})", commit.id.short());
    }
    for change in &plan.changes {
        let (kind, name) = (visible_name(&change.kind), visible_name(&change.name));
        outln!("  {:<8}{kind} {name}", change.action.as_str());
        for line in change.diff.lines() {
            out_raw!("    {}\n", coloured(line));
        }
    }
    if plan.unchanged > 0 {
        outln!("  {} unchanged", plan.unchanged);
    }
    for hook in &plan.hooks {
        outln!("  runs    Job {} ({}): {}", hook.name, hook.event, hook.image);
    }
    if plan.on_failure == OnFailure::Stop {
        outln!("  if it fails, everything stays as it is then");
    }
    for warning in &plan.warnings {
        outln!("  warning {}", below(warning));
    }
    for blocker in &plan.blockers {
        outln!("  BLOCKED {}", below(blocker));
    }
}

/// An image that is not the project's, with the digest that it means now.
fn third_party(image: &str, digest: Option<&Digest>) -> String {
    let image = visible(image);
    match digest {
        Some(_) if image.contains('@') => image.into_owned(),
        Some(digest) => format!("{image} ({digest})"),
        None => format!("{image} (its registry does not tell the digest)"),
    }
}

/// A text of several lines, of which only the first is where a plan's own lines begin.
pub fn below(text: &str) -> String {
    text.replace('\n', "\n          ")
}

/// A line of a diff, coloured if the terminal shows colours. Escapes everything else that could control the terminal.
pub fn coloured(line: &str) -> String {
    use owo_colors::{OwoColorize, Stream::Stdout};
    let line = visible(line);
    match line.as_bytes().first() {
        Some(b'+') => line.if_supports_color(Stdout, |line| line.green()).to_string(),
        Some(b'-') => line.if_supports_color(Stdout, |line| line.red()).to_string(),
        Some(b'@') => line.if_supports_color(Stdout, |line| line.cyan()).to_string(),
        _ => line.into_owned(),
    }
}

/// A plan as Markdown, for a comment on a pull request.
pub fn markdown(plan: &PlanView) -> String {
    let mut text = format!("### Deploying to `{}`\n\n", plan.environment);
    let images = plan.image_changes();
    let several = images.len() > 1;
    for (name, change) in images {
        let name = if several { format!("- {name}: ") } else { String::new() };
        text.push_str(&match change {
            ImageChange::Same(image) => format!("{name}`{image}`, as it runs now\n"),
            ImageChange::Changed { from, to } => format!("{name}`{from}` → `{to}`\n"),
            ImageChange::New(image) if plan.parent.is_none() => format!("{name}`{image}`, the first release\n"),
            ImageChange::New(image) => format!("{name}`{image}`, new\n"),
            ImageChange::Gone(image) => format!("{name}`{image}`, no longer\n"),
        });
    }
    if !plan.third_party.is_empty() {
        text.push_str("\nImages of others:\n\n");
    }
    for (image, digest) in &plan.third_party {
        text.push_str(&format!("- {}\n", third_party(image, digest.as_ref())));
    }
    for commit in &plan.commits {
        text.push_str(&format!(
            "- {} {} ({})\n",
            commit.id.short(),
            visible_name(&commit.subject),
            visible_name(&commit.author)
        ));
    }
    for (title, lines) in [("Blocked", &plan.blockers), ("Worth knowing", &plan.warnings)] {
        if !lines.is_empty() {
            text.push_str(&format!("\n**{title}**\n\n"));
            lines
                .iter()
                .for_each(|line| text.push_str(&format!("- {}\n", visible(line).replace('\n', "\n  "))));
        }
    }
    if !plan.hooks.is_empty() {
        text.push_str("\n**Hooks**\n\n");
        for hook in &plan.hooks {
            text.push_str(&format!("- {}: Job `{}`, `{}`\n", hook.event, hook.name, hook.image));
        }
    }
    if plan.changes.is_empty() {
        text.push_str(&format!("\nNothing would change in {} objects.\n", plan.unchanged));
        return text;
    }
    text.push_str(&format!(
        "\n{} objects would change, {} stay as they are.\n",
        plan.changes.len(),
        plan.unchanged
    ));
    for change in &plan.changes {
        // The fence has to be longer than any fence in the text.
        let longest = change.diff.split(|c| c != '`').map(str::len).max().unwrap_or(0);
        let fence = "`".repeat(longest.max(2) + 1);
        text.push_str(&format!(
            "\n<details><summary>{} {} <code>{}</code></summary>\n\n{fence}diff\n{}\n{fence}\n\n</details>\n",
            change.action,
            visible_name(&change.kind),
            visible_name(&change.name),
            visible(change.diff.trim_end())
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn of_several_images_each_says_whether_it_changes() {
        let image = |name: &str, digit: &str| format!("r.io/shop/{name}@sha256:{}", digit.repeat(64));
        let digest = format!("sha256:{}", "f".repeat(64));
        let plan: PlanView = serde_json::from_value(serde_json::json!({
            "id": digest, "environment": "dev", "image": "", "previous_image": null,
            "images": {"vote": image("vote", "2"), "result": image("result", "1"), "worker": image("worker", "1")},
            "previous_images": {"vote": image("vote", "1"), "result": image("result", "1"), "old": image("old", "1")},
            "third_party": {"redis:7": digest, "odd": null},
            "parent": "00000000-0000-0000-0000-000000000001", "commit": null, "commits": [], "changes": [], "unchanged": 3,
            "on_failure": "rollback", "blockers": [], "warnings": [],
        }))
        .unwrap();
        let text = markdown(&plan);
        for line in [
            format!("- old: `{}`, no longer", image("old", "1")),
            format!("- result: `{}`, as it runs now", image("result", "1")),
            format!("- vote: `{}` → `{}`", image("vote", "1"), image("vote", "2")),
            format!("- worker: `{}`, new", image("worker", "1")),
            "- odd (its registry does not tell the digest)".to_string(),
            format!("- redis:7 ({digest})"),
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in:\n{text}");
        }
    }
}
