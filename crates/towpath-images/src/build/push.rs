//! Pushes an image from the engine to a registry, through the engine.

use super::{dockerfile::BuiltImage, progress::Printer};
use futures::StreamExt;
use towpath_container::{ContainerClient, ContainerError, ErrorKind};
use towpath_types::{Digest, ImageReference, RegistryCredentials};

/// Why an image was not pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The engine does not answer.
    #[error("no container engine answers: is it running, and may this user use its socket?")]
    #[allow(missing_docs)]
    NoEngine { source: ContainerError },
    /// The engine no longer has the image, or cannot name it.
    #[error("failed to tag the image `{id}` as `{image}`")]
    #[allow(missing_docs)]
    Tag {
        id: String,
        image: String,
        source: ContainerError,
    },
    /// The registry does not know the user, or forbids the user to push.
    #[error("the registry does not let {} push `{image}`: {message}; {}", match username {
        Some(username) => format!("`{username}`"),
        None => "anonymous users".to_string(),
    }, match username {
        Some(_) => "check that the credentials are this registry's and not expired, and that the account may push",
        None => "give credentials for it",
    })]
    #[allow(missing_docs)]
    Unauthorized {
        image: String,
        /// `None` when no credentials were given.
        username: Option<String>,
        message: String,
    },
    /// The engine cannot reach the registry.
    #[error("the container engine cannot reach the registry of `{image}`: {message}")]
    #[allow(missing_docs)]
    Unreachable { image: String, message: String },
    /// Any other error of the registry or the engine.
    #[error("failed to push `{image}`: {message}")]
    #[allow(missing_docs)]
    Refused { image: String, message: String },
    /// The engine failed, or the connection to it broke.
    #[error("the container engine failed while it was pushing `{image}`")]
    #[allow(missing_docs)]
    Engine { image: String, source: ContainerError },
    /// The engine reports success, but not the digest in the registry.
    #[error("the container engine ended the push of `{image}` without naming a digest")]
    #[allow(missing_docs)]
    NoDigest { image: String },
}

/// Names `image` as `target` (its tag, `latest` when it has none) and pushes it there. Returns its digest in the registry.
/// Lines go to `progress` as they arrive. The engine does not send layers that the registry already has.
///
/// It has no timeout. Safe to repeat.
///
/// # Errors
/// See [`PushError`].
pub async fn push(
    engine: &ContainerClient,
    image: &BuiltImage,
    target: &ImageReference,
    credentials: Option<&RegistryCredentials>,
    progress: &mut (dyn FnMut(&str) + Send),
) -> Result<Digest, PushError> {
    engine.tag(&image.id, target).await.map_err(|source| {
        if source.kind() == ErrorKind::Unreachable {
            return PushError::NoEngine { source };
        }
        PushError::Tag {
            id: image.id.clone(),
            image: target.to_string(),
            source,
        }
    })?;
    let tag = target.tag.as_deref().unwrap_or("latest");
    let mut printer = Printer::new(progress);
    let mut digest = None;
    let mut answers = engine.push(target, credentials);
    while let Some(answer) = answers.next().await {
        let answer = answer.map_err(|error| classify(error, target, credentials))?;
        digest = pushed_digest(&answer.text, tag).or(digest);
        // The lines do not show which layer they are about, so print only those that make sense by themselves.
        if !answer.is_of_a_layer {
            printer.status(None, &answer.text);
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

fn classify(error: ContainerError, target: &ImageReference, credentials: Option<&RegistryCredentials>) -> PushError {
    if error.kind() == ErrorKind::Unreachable {
        return PushError::NoEngine { source: error };
    }
    let image = target.to_string();
    if !error.is_said_midway() && error.status().is_none() {
        return PushError::Engine { image, source: error };
    }
    let message = error.said();
    // The engine passes on the registry's code, or writes a sentence of its own.
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
