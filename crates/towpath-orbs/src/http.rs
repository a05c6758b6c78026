//! The HTTP client that the public registry and URL orbs share.

use std::time::Duration;
use towpath_types::with_causes;

const TIMEOUT: Duration = Duration::from_secs(20);
/// The largest answer that Towpath reads. Orb sources are far smaller, so a larger answer is an error.
const MAX_BYTES: usize = 16 << 20;

/// Makes a client that trusts the certificates that the machine trusts.
pub(crate) fn client(
    redirects: reqwest::redirect::Policy,
) -> Result<reqwest::Client, Box<dyn std::error::Error + Send + Sync>> {
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(towpath_trust::tls(Vec::new())?)
        .user_agent(concat!("towpath/", env!("CARGO_PKG_VERSION")))
        .redirect(redirects)
        .timeout(TIMEOUT)
        .build()?;
    Ok(http)
}

/// Sends a request and returns the body of a successful answer.
///
/// # Errors
/// Why there is no such answer, for a person.
pub(crate) async fn body(request: reqwest::RequestBuilder) -> Result<Vec<u8>, String> {
    let mut response = request.send().await.map_err(|error| {
        let words = with_causes(&error);
        match towpath_trust::is_distrust(&words) {
            true => format!(
                "{words}: its certificate is of an authority that this machine does not trust; add the authority to the machine's \
                 certificates, or name a file with it in `SSL_CERT_FILE`"
            ),
            false => words,
        }
    })?;
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
