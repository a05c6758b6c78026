//! CircleCI's public registry, or another server that answers as it does (a second Towpath, say).

use crate::{Found, Lookup, OrbReference};
use futures::future::BoxFuture;
use serde::Deserialize;
use towpath_types::SecretString;

/// CircleCI's own.
pub const DEFAULT_REGISTRY: &str = "https://circleci.com";

const QUERY: &str = "query($reference: String!) { orbVersion(orbVersionRef: $reference) { id version source } }";

/// A client of an orb registry.
#[derive(Debug, Clone)]
pub struct PublicRegistry {
    base: String,
    token: Option<SecretString>,
    http: reqwest::Client,
}

#[derive(Deserialize)]
struct Answer {
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "orbVersion")]
    orb_version: Option<Version>,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    source: String,
}

impl PublicRegistry {
    /// Makes a client of the server at `base` (`https://circleci.com`).
    ///
    /// # Errors
    /// When no client for TLS can be made.
    pub fn new(base: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let http = crate::http::client(reqwest::redirect::Policy::default())?;
        Ok(Self {
            base: base.trim_end_matches('/').to_string(),
            token: None,
            http,
        })
    }

    /// Adds a token that shows private orbs.
    #[must_use]
    pub fn signed_in(mut self, token: SecretString) -> Self {
        self.token = Some(token);
        self
    }

    /// The version that `reference` selects.
    ///
    /// # Errors
    /// Why the registry cannot be asked, for a person.
    pub async fn find(&self, reference: &OrbReference) -> Result<Option<Found>, String> {
        let failed = |why: String| {
            format!(
                "cannot ask the orb registry at {} for `{reference}`: {why}; without a network, put the orb into `{}/{}@<version>.yml`",
                self.base,
                crate::VENDORED_FOLDER,
                reference.name
            )
        };
        let body = serde_json::json!({ "query": QUERY, "variables": { "reference": reference.to_string() } });
        let mut request = self.http.post(format!("{}/graphql-unstable", self.base)).json(&body);
        if let Some(token) = &self.token {
            request = request.header("Circle-Token", token.expose());
        }
        let bytes = crate::http::body(request).await.map_err(failed)?;
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?;
        let Some(found) = answer.data.and_then(|data| data.orb_version) else {
            return Ok(None);
        };
        let version = found
            .version
            .parse()
            .map_err(|error: crate::ReferenceError| failed(error.to_string()))?;
        if !reference.selector.matches(&version) {
            return Err(failed(format!("it answers with version {version}")));
        }
        Ok(Some(Found {
            version,
            text: found.source,
        }))
    }
}
impl Lookup for PublicRegistry {
    fn find<'a>(&'a self, reference: &'a OrbReference) -> BoxFuture<'a, Result<Option<Found>, String>> {
        Box::pin(PublicRegistry::find(self, reference))
    }
}
