//! A unified diff.

use maud::{Markup, html};
use towpath_types::visible;

/// A unified diff, without the two lines that name its sides.
pub(super) fn diff(text: &str) -> Markup {
    let text = visible(text);
    let is_side = |at: usize, line: &str| at < 2 && (line.starts_with("--- ") || line.starts_with("+++ "));
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(at, line)| !is_side(*at, line)).map(|(_, line)| line);
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
