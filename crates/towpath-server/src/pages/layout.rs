//! What every page shares.

use maud::{DOCTYPE, Markup, html};

/// A whole page.
pub(super) fn page(title: &str, main: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Towpath" }
                link rel="stylesheet" href="/assets/towpath.css";
                script src="/assets/towpath.js" defer {}
            }
            body {
                a.skip href="#main" { "Skip to content" }
                header { nav { a.brand href="/" { "Towpath" } } }
                main #main { (main) }
            }
        }
    }
}

/// A status, by word, colour and shape.
pub(super) fn status(word: &str) -> Markup {
    let (class, mark) = match word {
        "success" | "succeeded" => ("good", "✓"),
        "running" | "queued" | "failing" => ("busy", "●"),
        "on_hold" => ("hold", "‖"),
        "failed"
        | "timedout"
        | "timed_out"
        | "infrastructure_fail"
        | "error"
        | "errored"
        | "unauthorized"
        | "rejected" => ("bad", "✕"),
        _ => ("idle", "○"),
    };
    html! { span.status.(class) { span aria-hidden="true" { (mark) } " " (word.replace('_', " ")) } }
}
