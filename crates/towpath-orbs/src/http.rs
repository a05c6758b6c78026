//! What both kinds of servers are asked with.

use std::{sync::Arc, time::Duration};
use towpath_types::with_causes;

const TIMEOUT: Duration = Duration::from_secs(20);
/// An orb's source is far smaller; an answer that is larger is none.
const MAX_BYTES: usize = 16 << 20;

/// A client that trusts Mozilla's certificate authorities, wherever this runs.
pub(crate) fn client(
    redirects: reqwest::redirect::Policy,
) -> Result<reqwest::Client, Box<dyn std::error::Error + Send + Sync>> {
    // The provider does not depend on the process.
    let roots = rustls::RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("towpath/", env!("CARGO_PKG_VERSION")))
        .redirect(redirects)
        .timeout(TIMEOUT)
        .build()?;
    Ok(http)
}

/// The body of an answer that is a success.
///
/// # Errors
/// Why there is none, for a person.
pub(crate) async fn body(request: reqwest::RequestBuilder) -> Result<Vec<u8>, String> {
    let mut response = request.send().await.map_err(|error| with_causes(&error))?;
    if !response.status().is_success() {
        return Err(format!("it answers {}", response.status()));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| with_causes(&error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_BYTES {
            return Err(format!("its answer is longer than {} MiB", MAX_BYTES >> 20));
        }
    }
    Ok(bytes)
}
