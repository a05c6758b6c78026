//! A unified diff.

use maud::{Markup, html};

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
