//! Orbs that a configuration names by a URL. The URL must be below a prefix that the owner of this Towpath allowed.
//!
//! **Invariant:** Towpath fetches nothing outside the allowed prefixes, whatever redirects a server sends.
//!
//! Source: <https://circleci.com/docs/orbs/use/managing-url-orbs-allow-lists>

use crate::LookupError;
use reqwest::Url;
use std::{fmt, str::FromStr};

/// Whether a reference is a URL rather than the name of an orb.
#[must_use]
pub fn is_url(reference: &str) -> bool {
    reference.starts_with("https://") || reference.starts_with("http://")
}

/// A prefix of the URLs that orbs may come from. It begins with `https` and ends with a slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlPrefix(String);

/// Why a text is not a prefix.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no prefix for orbs' URLs: write https:// with a host, and a slash at the end, such as `https://example.com/orbs/`"
)]
pub struct UrlPrefixError(String);

impl FromStr for UrlPrefix {
    type Err = UrlPrefixError;

    fn from_str(text: &str) -> Result<Self, UrlPrefixError> {
        let url = parse(text).filter(|url| text.ends_with('/') && url.query().is_none() && url.fragment().is_none());
        url.map(|url| Self(url.to_string()))
            .ok_or_else(|| UrlPrefixError(text.to_string()))
    }
}

impl fmt::Display for UrlPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Parses a URL that an orb may have. It must be encrypted or on this machine, and must not hold credentials, because they
/// would be stored in the repository.
fn parse(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_here = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    let is_safe = url.scheme() == "https" || url.scheme() == "http" && is_here;
    let is_open = url.username().is_empty() && url.password().is_none();
    (is_safe && is_open && url.has_host()).then_some(url)
}

/// Orbs by their URLs.
#[derive(Debug, Clone)]
pub struct UrlOrbs {
    prefixes: Vec<UrlPrefix>,
}

impl UrlOrbs {
    /// Allows orbs below `prefixes`.
    #[must_use]
    pub fn new(prefixes: Vec<UrlPrefix>) -> Self {
        Self { prefixes }
    }

    /// A client that follows redirects only below the prefixes. It is made at the first fetch, because most configurations
    /// fetch nothing.
    fn client(&self) -> Result<reqwest::Client, Box<dyn std::error::Error + Send + Sync>> {
        let allowed = self.prefixes.clone();
        crate::http::client(reqwest::redirect::Policy::custom(move |attempt| {
            if attempt.previous().len() > 5 {
                return attempt.error("too many redirects");
            }
            match is_below(&allowed, attempt.url()) {
                true => attempt.follow(),
                false => {
                    let to = attempt.url().to_string();
                    attempt.error(format!("it redirects to {to}, which is below no allowed prefix"))
                }
            }
        }))
    }

    /// The source at a URL.
    ///
    /// # Errors
    /// `Refused` when it is below no allowed prefix, `Unavailable` when it cannot be fetched.
    pub(crate) async fn find(&self, text: &str) -> Result<String, LookupError> {
        let url = parse(text).ok_or_else(|| {
            LookupError::Refused("the URL of an orb begins with https://, and holds neither user nor password".into())
        })?;
        if !is_below(&self.prefixes, &url) {
            let allowed = match &self.prefixes[..] {
                [] => "no prefix is allowed here".to_string(),
                prefixes => {
                    let prefixes: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
                    format!("allowed is what begins with {}", prefixes.join(", "))
                }
            };
            return Err(LookupError::Refused(format!(
                "orbs by URL come only from where whoever runs Towpath allows it, and {allowed}: give `--orb-url-prefix` (or \
                 TOWPATH_ORB_URL_PREFIX)"
            )));
        }
        let failed = |why| LookupError::Unavailable(format!("cannot fetch {url}: {why}"));
        let client = self.client().map_err(|error| failed(error.to_string()))?;
        let bytes = crate::http::body(client.get(url.clone())).await.map_err(failed)?;
        String::from_utf8(bytes).map_err(|_| failed("it is not text".into()))
    }
}

/// Whether `url` is below one of `prefixes`. `Url` has already resolved `..`, so comparing the beginnings is enough. Refuses
/// encoded separators, which a server may decode and which no orb's path needs.
fn is_below(prefixes: &[UrlPrefix], url: &Url) -> bool {
    let path = url.path().to_ascii_lowercase();
    let hides = ["%2f", "%5c", "%25"].iter().any(|escape| path.contains(escape));
    !hides && prefixes.iter().any(|prefix| url.as_str().starts_with(&prefix.0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Lock, Origin, Sources};
    use axum::{Router, response::Redirect, routing::get};

    #[test]
    fn a_prefix_is_encrypted_and_ends_with_a_slash() {
        for good in [
            "https://example.com/",
            "https://example.com/orbs/",
            "http://127.0.0.1:1/orbs/",
        ] {
            assert_eq!(good.parse::<UrlPrefix>().unwrap().to_string(), good);
        }
        for bad in [
            "https://example.com/orbs",
            "http://example.com/",
            "https://me:pass@example.com/",
            "https://example.com/?a=/",
            "ftp://example.com/",
            "example.com/",
            "",
        ] {
            assert!(bad.parse::<UrlPrefix>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn only_what_is_below_a_prefix_is_fetched() {
        let routes = Router::new()
            .route("/orbs/greet.yml", get(|| async { "commands: {}" }))
            .route("/orbs/moved.yml", get(|| async { Redirect::to("/orbs/greet.yml") }))
            .route("/orbs/out.yml", get(|| async { Redirect::to("/other/greet.yml") }))
            .route("/other/greet.yml", get(|| async { "commands: {evil: {}}" }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });

        let prefix = format!("{base}/orbs/").parse().unwrap();
        let orbs = UrlOrbs::new(vec![prefix]);
        let sources = Sources::default().with_urls(&orbs);
        let get = async |path: &str| sources.resolve(&format!("{base}{path}")).await;
        let greet = format!("{base}/orbs/greet.yml");
        assert_eq!(
            get("/orbs/greet.yml").await.unwrap(),
            (greet.clone(), "commands: {}".into())
        );
        assert_eq!(get("/orbs/moved.yml").await.unwrap().1, "commands: {}");
        for (path, says) in [
            ("/orbs/out.yml", "redirects to"),
            ("/orbs/none.yml", "404"),
            ("/other/greet.yml", "allowed is what begins with"),
            ("/orbs/../other/greet.yml", "allowed is what begins with"),
            ("/orbs/%2e%2e/other/greet.yml", "allowed is what begins with"),
            ("/orbs/..%2Fother/greet.yml", "allowed is what begins with"),
            ("/orbs/..%5cother/greet.yml", "allowed is what begins with"),
            ("/orbs/..%252fother/greet.yml", "allowed is what begins with"),
        ] {
            let said = get(path).await.unwrap_err().to_string();
            assert!(said.contains(says), "{path}: {said}");
        }

        // A locked orb is used byte for byte.
        let lock = Lock::parse(&sources.used().to_string()).unwrap();
        assert_eq!(lock.get(&greet).unwrap().from, Origin::Url);
        let mut other = lock.get(&greet).unwrap().clone();
        other.digest = towpath_types::Digest::of(b"before");
        let locked = Sources::new([other].into_iter().collect()).with_urls(&orbs);
        let error = locked.resolve(&greet).await.unwrap_err().to_string();
        assert!(error.contains("is not what `.circleci/orbs.lock` says"), "{error}");
    }
}
