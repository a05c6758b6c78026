//! CircleCI's public registry, or another server that answers as it does (a second Towpath, say).

use crate::{Found, OrbReference};
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use towpath_types::{SecretString, with_causes};

/// CircleCI's own.
pub const DEFAULT_REGISTRY: &str = "https://circleci.com";

const TIMEOUT: Duration = Duration::from_secs(20);
/// An orb's source is far smaller; an answer that is larger is none.
const MAX_BYTES: usize = 16 << 20;
const QUERY: &str = "query($reference: String!) { orbVersion(orbVersionRef: $reference) { id version source } }";

/// A client of it.
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
    /// Of the server at `base` (`https://circleci.com`).
    ///
    /// # Errors
    /// When no client for TLS can be made.
    pub fn new(base: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        // The certificate authorities are Mozilla's, wherever this runs; the provider does not depend on the process.
        let roots = rustls::RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("towpath/", env!("CARGO_PKG_VERSION")))
            .timeout(TIMEOUT)
            .build()?;
        Ok(Self {
            base: base.trim_end_matches('/').to_string(),
            token: None,
            http,
        })
    }

    /// The same, with a token that shows private orbs.
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
        let mut response = request.send().await.map_err(|error| failed(with_causes(&error)))?;
        if !response.status().is_success() {
            return Err(failed(format!("it answers {}", response.status())));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| failed(with_causes(&error)))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_BYTES {
                return Err(failed(format!("its answer is longer than {} MiB", MAX_BYTES >> 20)));
            }
        }
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
