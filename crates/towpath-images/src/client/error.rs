//! What can go wrong with a registry.

use crate::authorities::AUTHORITIES_VARIABLE;
use http::StatusCode;

/// What went wrong with a registry. Messages name the image, the answer and a remedy.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The registry's name is not an address.
    #[error("`{0}` is not the address of a registry (host[:port])")]
    Address(String),
    /// TLS could not be set up.
    #[error("failed to set up a connection to registry `{registry}`")]
    Setup {
        /// The client's registry.
        registry: String,
        /// The library's reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The image belongs to another registry than the client.
    #[error("`{image}` is not an image of registry `{registry}`")]
    OtherRegistry {
        /// The image's whole name.
        image: String,
        /// The client's registry.
        registry: String,
    },
    /// The registry wants credentials, or other ones.
    #[error("registry `{registry}` wants credentials for `{image}` ({status}): {}", match username {
        Some(username) => format!("it did not accept the credentials of `{username}`; check that they belong to this registry and have not expired"),
        None => "no credentials were given for it".to_string(),
    })]
    Unauthorized {
        /// The client's registry.
        registry: String,
        /// The image's whole name.
        image: String,
        /// 401, or the answer of the registry's token service.
        status: StatusCode,
        /// The account that was tried.
        username: Option<String>,
    },
    /// The account may not do this.
    #[error("registry `{registry}` does not let {} {attempt} `{image}` (403{}): give this account the permission, or use another account", match username {
        Some(username) => format!("`{username}`"),
        None => "anonymous users".to_string(),
    }, said(message))]
    Forbidden {
        /// The client's registry.
        registry: String,
        /// The image's whole name.
        image: String,
        /// A verb: `read`, `tag`.
        attempt: &'static str,
        /// The account that was tried.
        username: Option<String>,
        /// The registry's message.
        message: String,
    },
    /// There is no such image or repository.
    #[error(
        "`{image}` is not in the registry (404{}): push it first, or check the name",
        said(message)
    )]
    NotFound {
        /// The image's whole name.
        image: String,
        /// The registry's message.
        message: String,
    },
    /// Any other refusal. If it was retried, this is the last answer.
    #[error("failed to {attempt} `{image}`: the registry answered {status}{}", said(message))]
    Refused {
        /// The image's whole name.
        image: String,
        /// A verb: `read`, `tag`, `list the tags of`.
        attempt: &'static str,
        /// The registry's answer.
        status: StatusCode,
        /// The registry's message.
        message: String,
    },
    /// There was no answer to any attempt.
    #[error("failed to {attempt} `{image}`: registry `{registry}` cannot be reached")]
    Unreachable {
        /// The image's whole name.
        image: String,
        /// A verb: `read`, `tag`, `list the tags of`.
        attempt: &'static str,
        /// The client's registry.
        registry: String,
        /// The reason of the last attempt.
        source: reqwest::Error,
    },
    /// Nobody here trusts the authority that issued the registry's certificate.
    #[error(
        "failed to {attempt} `{image}`: the certificate of registry `{registry}` is of an authority that this machine does not trust. Add \
         the authority to the machine's certificates, or name its file (PEM) for this registry alone: \
         `{AUTHORITIES_VARIABLE}={registry}=FILE`"
    )]
    Untrusted {
        /// The image's whole name.
        image: String,
        /// A verb: `read`, `tag`, `list the tags of`.
        attempt: &'static str,
        /// The client's registry.
        registry: String,
        #[allow(missing_docs)]
        source: reqwest::Error,
    },
    /// The answer violates the protocol.
    #[error("registry `{registry}` gave an unusable answer about `{image}`: {why}")]
    Malformed {
        /// The client's registry.
        registry: String,
        /// The image's whole name.
        image: String,
        /// What is wrong with the answer.
        why: String,
    },
}

fn said(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}
