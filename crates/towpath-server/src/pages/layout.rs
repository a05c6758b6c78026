//! The frame of every page.

use crate::PAGES;
use maud::{DOCTYPE, Markup, html};
use towpath_store::Topic;

/// The changes that a page displays. Its script subscribes to events of these only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Watches {
    /// None: the page does not change.
    Nothing,
    /// What the board shows.
    Board,
    /// Exactly these topics.
    Topics(Vec<Topic>),
}

impl Watches {
    /// The address of the script's events; `None` if it need not listen.
    fn events(&self) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::Board => Some(format!("{PAGES}/events")),
            Self::Topics(topics) => {
                let pairs = topics.iter().map(|topic| ("topic", topic.to_string()));
                let query = url::form_urlencoded::Serializer::new(String::new())
                    .extend_pairs(pairs)
                    .finish();
                Some(format!("{PAGES}/events?{query}"))
            }
        }
    }
}

/// A whole page.
pub(super) fn page(title: &str, watches: &Watches, main: Markup) -> Markup {
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
            body data-events=[watches.events()] {
                a.skip href="#main" { "Skip to content" }
                header { nav { a.brand href=(PAGES) { "Towpath" } } }
                main #main { (main) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use towpath_types::PipelineId;

    #[test]
    fn a_page_says_which_events_it_wants() {
        let text = |watches: &Watches| page("x", watches, html! {}).into_string();
        assert!(text(&Watches::Board).contains(r#"<body data-events="/towpath/events">"#));
        assert!(text(&Watches::Nothing).contains("<body>"));
        let topics = Watches::Topics(vec![Topic::Pipeline(PipelineId::from_u128(1)), Topic::Gates]);
        let id = PipelineId::from_u128(1);
        assert_eq!(
            topics.events(),
            Some(format!("{PAGES}/events?topic=pipeline%2F{id}&topic=gates"))
        );
    }
}
