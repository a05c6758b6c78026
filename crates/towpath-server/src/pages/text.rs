//! Formats times, images and logs for people.

use jiff::Timestamp;
use maud::{Markup, html};
use towpath_types::plain_text;

/// The time since `at`. The exact time is in the title.
pub(super) fn ago(at: Timestamp) -> Markup {
    let seconds = Timestamp::now().duration_since(at).as_secs().max(0);
    html! { time datetime=(at) title=(at) { (span(seconds)) " ago" } }
}

/// The duration of something, or the time that it has taken so far. Empty before it begins.
pub(super) fn took(from: Option<Timestamp>, to: Option<Timestamp>) -> Markup {
    let Some(from) = from else { return html! {} };
    let seconds = to.unwrap_or_else(Timestamp::now).duration_since(from).as_secs().max(0);
    html! { span.took { (span(seconds)) } }
}

fn span(seconds: i64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

/// Images, separated by commas.
pub(super) fn images(references: &str) -> Markup {
    let mut all = references.split(", ");
    let first = all.next().unwrap_or_default();
    html! { (image(first)) @for other in all { ", " (image(other)) } }
}

/// The last part of an image's name, and the first digits of its digest. The whole reference is in the title.
fn image(reference: &str) -> Markup {
    let (name, digest) = reference.split_once("@sha256:").unwrap_or((reference, ""));
    let name = name.rsplit('/').next().unwrap_or(name);
    let digest = digest.get(..12).unwrap_or(digest);
    html! { code title=(reference) { (name) @if !digest.is_empty() { "@" (digest) } } }
}

/// A log without the characters that only a terminal understands.
pub(super) fn plain(bytes: &[u8]) -> String {
    plain_text(&String::from_utf8_lossy(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_has_no_control_characters_left() {
        assert_eq!(plain(b"\x1b[1mok\x1b(B\x1b[m \xff<script>\n"), "ok \u{fffd}<script>\n");
    }

    #[test]
    fn an_image_shows_its_name_and_the_beginning_of_its_digest() {
        let digest = "0123456789abcdef".repeat(4);
        let text = image(&format!("127.0.0.1:7070/claims@sha256:{digest}")).into_string();
        assert!(text.contains(">claims@0123456789ab<"), "{text}");
        assert!(image("busybox").into_string().contains(">busybox<"));
        let two = images("r/web@sha256:1, r/worker@sha256:2").into_string();
        assert!(two.contains(">web@1<") && two.contains(">worker@2<"), "{two}");
    }
}
