//! Names that are safe as parts of a path. They are validated here, once, and are types from then on.

use std::{fmt, str::FromStr};

/// The name of a repository: `team/app`.
///
/// At most 255 characters: components joined by `/`, each made of words of lower-case letters and digits that are separated by
/// `.`, `_`, `__` or dashes. So no component is empty, is `..`, or begins with an underscore, as the registry's own folders do.
///
/// Source: <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests>
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName(String);

/// A tag: at most 128 letters, digits, `_`, `.` and `-`, beginning with neither `.` nor `-`.
///
/// Source: <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests>
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagName(String);

/// A text is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a [`RepositoryName`].
    #[error("`{0}` is not a repository name (lower-case letters and digits, separated by `.`, `_`, `-` and `/`)")]
    Repository(String),
    /// Not a [`TagName`].
    #[error("`{0}` is not a tag (1 to 128 letters, digits, `_`, `.` and `-`, not beginning with `.` or `-`)")]
    Tag(String),
}

fn excerpt(text: &str) -> String {
    text.chars().take(300).collect()
}

fn is_component(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        let word = bytes[at..].iter().take_while(|b| is_word(**b)).count();
        if word == 0 {
            return false;
        }
        at += word;
        if at == bytes.len() {
            return true;
        }
        let separator = bytes[at..].iter().take_while(|b| !is_word(**b)).count();
        let legal = match &bytes[at..at + separator] {
            b"." | b"_" | b"__" => true,
            dashes => dashes.iter().all(|b| *b == b'-'),
        };
        if !legal {
            return false;
        }
        at += separator;
    }
}

impl RepositoryName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TagName {
    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepositoryName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() <= 255 && text.split('/').all(is_component) {
            Ok(Self(text.to_string()))
        } else {
            Err(NameError::Repository(excerpt(text)))
        }
    }
}

impl FromStr for TagName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let legal = (1..=128).contains(&text.len())
            && !text.starts_with(['.', '-'])
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if legal {
            Ok(Self(text.to_string()))
        } else {
            Err(NameError::Tag(excerpt(text)))
        }
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for TagName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_names() {
        for good in ["a", "team/app", "a.b_c__d---e/0", "blobs/uploads", "x/manifests"] {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good}");
        }
        let long = "a".repeat(256);
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "..",
            "a/../b",
            ".a",
            "a.",
            "_a",
            "a___b",
            "a..b",
            "a._b",
            "A",
            "a b",
            "a\0",
            "ä",
            "a%2e",
            long.as_str(),
        ] {
            assert!(bad.parse::<RepositoryName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tags() {
        for good in ["latest", "app-1.2_3", "_x", "A"] {
            assert!(good.parse::<TagName>().is_ok(), "{good}");
        }
        let long = "a".repeat(129);
        for bad in ["", ".", "..", ".a", "-a", "a/b", "a:b", "a b", "ä", long.as_str()] {
            assert!(bad.parse::<TagName>().is_err(), "{bad}");
        }
    }
}
