//! Errors with their causes, for a place that has room for one text only.

use std::{error::Error, fmt::Write as _};

/// An error with its causes, outermost first, joined by `: `. A cause that the text before it holds already is not said
/// again: some errors print their source themselves.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            let _ = write!(text, ": {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Link>>,
    }

    #[test]
    fn each_cause_is_said_once() {
        let link = |text, source: Option<Link>| Link {
            text,
            source: source.map(Box::new),
        };
        let error = link(
            "failed to read: no room",
            Some(link("no room", Some(link("the disk is full", None)))),
        );
        assert_eq!(with_causes(&error), "failed to read: no room: the disk is full");
    }
}
