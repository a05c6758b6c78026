//! The caller of a request, as it is recorded with the caller's actions.

use axum::http::{HeaderMap, header};
use towpath_types::{Actor, Via};

/// How the `towpath` command line introduces itself: `towpath/0.1.0`.
const COMMAND_LINE: &str = "towpath/";

/// The caller of a request. [`super::require_owner`] adds it to each request that it lets through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The owner's name.
    pub name: String,
    /// The client that the caller uses.
    pub via: Via,
}

impl Caller {
    /// The owner, signed in to a page.
    pub(crate) fn on_page() -> Self {
        Self {
            name: owner_name(),
            via: Via::Page,
        }
    }

    /// The owner, who sent a token with `headers`.
    pub(crate) fn with_token(headers: &HeaderMap) -> Self {
        let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        let via = match agent {
            Some(agent) if agent.starts_with(COMMAND_LINE) => Via::CommandLine,
            _ => Via::Api,
        };
        Self {
            name: owner_name(),
            via,
        }
    }

    /// The caller as an actor.
    pub(crate) fn actor(&self) -> Actor {
        Actor::owner(self.name.clone(), self.via)
    }
}

/// The name of the account that runs this process. It is recorded with the owner's actions.
///
/// A container has no `USER`. Its owner is named after its machine, so that one owner's lock keeps another owner out.
#[must_use]
pub fn owner_name() -> String {
    let user = std::env::var("USER").ok().filter(|name| !name.is_empty());
    user.unwrap_or_else(|| match std::fs::read_to_string("/proc/sys/kernel/hostname") {
        Ok(host) => format!("owner@{}", host.trim()),
        Err(_) => "owner".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn the_command_line_is_told_from_other_clients() {
        let via = |agent: Option<&'static str>| {
            let agent = agent.map(|agent| (header::USER_AGENT, HeaderValue::from_static(agent)));
            Caller::with_token(&agent.into_iter().collect()).via
        };
        assert_eq!(via(Some("towpath/0.1.0")), Via::CommandLine);
        assert_eq!(via(Some("curl/8.5")), Via::Api);
        assert_eq!(via(None), Via::Api);
    }
}
