//! Image references: `[registry/]repository[:tag][@digest]`.

use crate::{Digest, DigestError};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A parsed image reference.
///
/// Source: <https://github.com/distribution/reference> (the grammar that container engines share). The first part of the
/// path is a registry when it has a dot or a colon, or is `localhost`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageReference {
    /// `127.0.0.1:7070`; `None` means the engine's default registry.
    pub registry: Option<String>,
    /// `team/app`.
    pub repository: String,
    /// `app-latest`.
    pub tag: Option<String>,
    /// What the reference is pinned to.
    pub digest: Option<Digest>,
}

/// Why a text is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageReferenceError {
    /// A part has characters that it may not have.
    #[error("`{0}` is not an image reference ([registry/]repository[:tag][@sha256:…], the repository in lower case)")]
    Invalid(String),
    /// The part behind `@` is no digest.
    #[error("`{reference}` is not an image reference")]
    Digest {
        /// The whole text.
        reference: String,
        /// What is wrong with the digest.
        source: DigestError,
    },
}

impl ImageReference {
    /// The same image by `digest`, without a tag.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Self {
        Self {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            tag: None,
            digest: Some(digest),
        }
    }

    /// `registry/repository`, with neither tag nor digest.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.registry {
            Some(registry) => format!("{registry}/{}", self.repository),
            None => self.repository.clone(),
        }
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn is_path_component(text: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !text.is_empty()
        && text.bytes().all(|b| alnum(b) || matches!(b, b'.' | b'_' | b'-'))
        && text.bytes().next().is_some_and(alnum)
        && text.bytes().last().is_some_and(alnum)
}

fn is_tag(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && !text.starts_with(['.', '-'])
}

fn is_registry(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with([':', '.', '-'])
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'))
}

impl FromStr for ImageReference {
    type Err = ImageReferenceError;
    fn from_str(text: &str) -> Result<Self, ImageReferenceError> {
        let invalid = || ImageReferenceError::Invalid(text.chars().take(300).collect());
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|source| ImageReferenceError::Digest {
                    reference: text.chars().take(300).collect(),
                    source,
                })?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (registry, path) = match rest.split_once('/') {
            Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), path),
            _ => (None, rest),
        };
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        let good = repository.len() <= 255
            && repository.split('/').all(is_path_component)
            && tag.is_none_or(is_tag)
            && registry.is_none_or(is_registry);
        if !good {
            return Err(invalid());
        }
        Ok(Self {
            registry: registry.map(str::to_string),
            repository: repository.to_string(),
            tag: tag.map(str::to_string),
            digest,
        })
    }
}

impl TryFrom<String> for ImageReference {
    type Error = ImageReferenceError;
    fn try_from(text: String) -> Result<Self, ImageReferenceError> {
        text.parse()
    }
}

impl From<ImageReference> for String {
    fn from(reference: ImageReference) -> Self {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, registry: Option<&str>, repository: &str, tag: Option<&str>) {
        let parsed: ImageReference = text.parse().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(parsed.registry.as_deref(), registry, "{text}");
        assert_eq!(parsed.repository, repository, "{text}");
        assert_eq!(parsed.tag.as_deref(), tag, "{text}");
        assert_eq!(parsed.to_string(), text);
    }

    #[test]
    fn the_forms_in_use() {
        check("busybox", None, "busybox", None);
        check("cimg/rust:1.95", None, "cimg/rust", Some("1.95"));
        check(
            "127.0.0.1:7070/claims:app-latest",
            Some("127.0.0.1:7070"),
            "claims",
            Some("app-latest"),
        );
        check("localhost/a/b", Some("localhost"), "a/b", None);
        check(
            "123.dkr.ecr.eu-west-2.amazonaws.com/laa/cccd:app-1",
            Some("123.dkr.ecr.eu-west-2.amazonaws.com"),
            "laa/cccd",
            Some("app-1"),
        );
        let digest = Digest::of(b"");
        let pinned = "r.io/x:1".parse::<ImageReference>().map(|r| r.at(digest.clone()));
        assert_eq!(pinned.map(|r| r.to_string()), Ok(format!("r.io/x@{digest}")));
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "Upper",
            "a//b",
            "a:",
            "a:-x",
            "a@sha256:1",
            "${X}/a",
            "a b",
            "/a",
            "r.io/",
            ":7070/x",
        ] {
            assert!(bad.parse::<ImageReference>().is_err(), "{bad}");
        }
    }
}
