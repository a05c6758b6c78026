//! Pushing an image of the engine to a registry, through the engine.

use super::{BuiltImage, NO_LIMIT, Printer, is_unreachable, name_image};
use crate::Credentials;
use bollard::{Docker, query_parameters::PushImageOptionsBuilder};
use futures::StreamExt;
use towpath_types::{Digest, ImageReference};

/// Why an image is not in the registry.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The engine does not answer.
    #[error("no container engine answers: is it running, and may this user use its socket?")]
    NoEngine {
        /// What happened instead.
        source: bollard::errors::Error,
    },
    /// The engine has no such image any more, or cannot name it.
    #[error("failed to tag the image `{id}` as `{image}`")]
    Tag {
        /// The engine's id.
        id: String,
        /// The name.
        image: String,
        /// Why not.
        source: bollard::errors::Error,
    },
    /// The registry does not know us, or does not let us.
    #[error("the registry does not let {} push `{image}`: {message}; {}", match username {
        Some(username) => format!("`{username}`"),
        None => "anonymous users".to_string(),
    }, match username {
        Some(_) => "check that the credentials are this registry's and not expired, and that the account may push",
        None => "give credentials for it",
    })]
    Unauthorized {
        /// The image.
        image: String,
        /// Whose credentials were tried.
        username: Option<String>,
        /// The engine's words.
        message: String,
    },
    /// The engine cannot reach the registry.
    #[error("the container engine cannot reach the registry of `{image}`: {message}")]
    Unreachable {
        /// The image.
        image: String,
        /// The engine's words.
        message: String,
    },
    /// Anything else that the registry or the engine said.
    #[error("failed to push `{image}`: {message}")]
    Refused {
        /// The image.
        image: String,
        /// The engine's words.
        message: String,
    },
    /// The engine broke off.
    #[error("the container engine failed while it was pushing `{image}`")]
    Engine {
        /// The image.
        image: String,
        /// How.
        source: bollard::errors::Error,
    },
    /// The engine said that it is done, but not what the registry has now.
    #[error("the container engine ended the push of `{image}` without naming a digest")]
    NoDigest {
        /// The image.
        image: String,
    },
}

/// Names `image` as `target` (its tag, `latest` when it has none) and pushes it there; answers the digest that the registry
/// has it under. Lines go to `progress` as they arrive. Layers that the registry has are not sent.
///
/// Never gives up by itself. Safe to repeat.
///
/// # Errors
/// See [`PushError`].
pub async fn push(
    docker: &Docker,
    image: &BuiltImage,
    target: &ImageReference,
    credentials: Option<&Credentials>,
    progress: &mut (dyn FnMut(&str) + Send),
) -> Result<Digest, PushError> {
    let docker = docker.clone().with_timeout(NO_LIMIT);
    name_image(&docker, image, target).await.map_err(|source| {
        if is_unreachable(&source) {
            return PushError::NoEngine { source };
        }
        PushError::Tag {
            id: image.id.clone(),
            image: target.to_string(),
            source,
        }
    })?;
    let tag = target.tag.as_deref().unwrap_or("latest");
    let options = PushImageOptionsBuilder::default().tag(tag).build();
    let registry = target.registry.as_deref().unwrap_or_default();
    let login = credentials.map(|credentials| credentials.for_engine(registry));
    let mut printer = Printer::new(progress);
    let mut digest = None;
    let mut answers = docker.push_image(&target.name(), Some(options), login);
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(info) => {
                if let Some(status) = &info.status {
                    digest = pushed_digest(status, tag).or(digest);
                    // The library drops the layer's name, so the statuses of layers cannot be told apart, and only
                    // those that say something by themselves are worth a line.
                    if info.progress_detail.is_none() {
                        printer.status(None, status);
                    }
                }
            }
            Err(e) => return Err(classify(e, target, credentials)),
        }
    }
    digest.ok_or_else(|| PushError::NoDigest {
        image: target.to_string(),
    })
}

/// `app-1: digest: sha256:… size: 528`
fn pushed_digest(status: &str, tag: &str) -> Option<Digest> {
    let rest = status.strip_prefix(tag)?.strip_prefix(": digest: ")?;
    rest.split_whitespace().next()?.parse().ok()
}

fn classify(error: bollard::errors::Error, target: &ImageReference, credentials: Option<&Credentials>) -> PushError {
    use bollard::errors::Error;
    if is_unreachable(&error) {
        return PushError::NoEngine { source: error };
    }
    let image = target.to_string();
    let message = match &error {
        Error::DockerStreamError { error } => error.trim().to_string(),
        Error::DockerResponseServerError { message, .. } => message.trim().to_string(),
        _ => return PushError::Engine { image, source: error },
    };
    // The engine passes on the registry's code as a word, or a sentence of its own.
    let says = |words: &[&str]| words.iter().any(|word| message.to_ascii_lowercase().contains(word));
    if says(&[
        "unauthorized",
        "denied",
        "no basic auth credentials",
        "authentication required",
        "sign in",
    ]) {
        PushError::Unauthorized {
            image,
            username: credentials.map(|credentials| credentials.username.clone()),
            message,
        }
    } else if says(&[
        "dial tcp",
        "connection refused",
        "no such host",
        "i/o timeout",
        "server gave http response",
    ]) {
        PushError::Unreachable { image, message }
    } else {
        PushError::Refused { image, message }
    }
}
