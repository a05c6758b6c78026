//! Formats plans for people.

use towpath_delivery::{OnFailure, PlanView};
use towpath_types::visible;

/// Prints a plan for a person.
pub fn print_plan(plan: &PlanView) {
    outln!("plan {} for {}", plan.id, plan.environment);
    match &plan.previous_image {
        Some(previous) if *previous == plan.image => outln!("  image   {} (unchanged)", plan.image),
        Some(previous) => outln!("  image   {previous}\n       -> {}", plan.image),
        None => outln!("  image   {} (first release)", plan.image),
    }
    for commit in &plan.commits {
        outln!("  commit  {} {} ({})", commit.id.short(), commit.subject, commit.author);
    }
    for change in &plan.changes {
        outln!("  {:<8}{} {}", change.action.as_str(), change.kind, change.name);
        for line in change.diff.lines() {
            out_raw!("    {}\n", coloured(line));
        }
    }
    if plan.unchanged > 0 {
        outln!("  {} unchanged", plan.unchanged);
    }
    if plan.on_failure == OnFailure::Stop {
        outln!("  if it fails, everything stays as it is then");
    }
    for warning in &plan.warnings {
        outln!("  warning {warning}");
    }
    for blocker in &plan.blockers {
        outln!("  BLOCKED {blocker}");
    }
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
    match &plan.previous_image {
        Some(previous) if *previous == plan.image => text.push_str(&format!("`{}`, as it runs now\n", plan.image)),
        Some(previous) => text.push_str(&format!("`{previous}` → `{}`\n", plan.image)),
        None => text.push_str(&format!("`{}`, the first release\n", plan.image)),
    }
    for commit in &plan.commits {
        text.push_str(&format!(
            "- {} {} ({})\n",
            commit.id.short(),
            commit.subject,
            commit.author
        ));
    }
    for (title, lines) in [("Blocked", &plan.blockers), ("Worth knowing", &plan.warnings)] {
        if !lines.is_empty() {
            text.push_str(&format!("\n**{title}**\n\n"));
            lines.iter().for_each(|line| text.push_str(&format!("- {line}\n")));
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
            change.kind,
            change.name,
            change.diff.trim_end()
        ));
    }
    text
}
