//! Names and versions of orbs.
//!
//! Source: <https://circleci.com/docs/orbs/use/orb-concepts/#orb-versions-development-vs-production-vs-inline>

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// How long a name, or a development version's label, may be.
const MAX_LABEL: usize = 255;

/// Why a text is not a reference, name or version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It is not `namespace/orb`.
    #[error("`{0}` is not an orb's name: write `namespace/orb`, of letters, digits, `-` and `_`")]
    Name(String),
    /// It is not a version.
    #[error("`{0}` is not an orb's version: write `1.2.3`, or `dev:` and a label")]
    Version(String),
    /// It has no version, or one that selects nothing.
    #[error(
        "`{0}` is not an orb's reference: write `namespace/orb@version`, the version `1.2.3`, `1.2`, `1`, `volatile` or `dev:label`"
    )]
    Reference(String),
}

fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

fn is_label(text: &str) -> bool {
    (1..=MAX_LABEL).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// `namespace/orb`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OrbName {
    /// The namespace that owns the orb.
    pub namespace: String,
    /// The orb's name in that namespace.
    pub name: String,
}

impl fmt::Display for OrbName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for OrbName {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        match text.split_once('/') {
            Some((namespace, name)) if is_label(namespace) && is_label(name) => Ok(Self {
                namespace: namespace.into(),
                name: name.into(),
            }),
            _ => Err(ReferenceError::Name(shortened(text))),
        }
    }
}

/// One version of an orb. Releases sort by their numbers. Development versions sort before all releases.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum OrbVersion {
    /// `dev:label`: its owner may publish it again.
    Development(String),
    /// `1.2.3`: never changes.
    Release(u64, u64, u64),
}

impl fmt::Display for OrbVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Development(label) => write!(f, "dev:{label}"),
            Self::Release(major, minor, patch) => write!(f, "{major}.{minor}.{patch}"),
        }
    }
}

impl FromStr for OrbVersion {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        match text.parse() {
            Ok(Selector::Exactly(version)) => Ok(version),
            _ => Err(ReferenceError::Version(shortened(text))),
        }
    }
}

impl OrbVersion {
    /// Whether its owner may publish it again.
    #[must_use]
    pub fn is_development(&self) -> bool {
        matches!(self, Self::Development(_))
    }
}

/// The part of a reference after the `@`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// `1.2.3`, `dev:label`.
    Exactly(OrbVersion),
    /// `1.2`: the newest patch.
    Minor(u64, u64),
    /// `1`: the newest minor version.
    Major(u64),
    /// `volatile`: the newest release.
    Volatile,
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(version) => version.fmt(f),
            Self::Minor(major, minor) => write!(f, "{major}.{minor}"),
            Self::Major(major) => major.fmt(f),
            Self::Volatile => f.write_str("volatile"),
        }
    }
}

impl FromStr for Selector {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let bad = || ReferenceError::Version(shortened(text));
        if text == "volatile" {
            return Ok(Self::Volatile);
        }
        if let Some(label) = text.strip_prefix("dev:") {
            // A label may name a branch, and branches have slashes and dots.
            let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'/' | b'.');
            return match (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(good) {
                true => Ok(Self::Exactly(OrbVersion::Development(label.into()))),
                false => Err(bad()),
            };
        }
        let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse::<u64>().map_err(|_| bad()),
            false => Err(bad()),
        };
        let numbers = text.split('.').map(number).collect::<Result<Vec<_>, _>>()?;
        match numbers[..] {
            [major] => Ok(Self::Major(major)),
            [major, minor] => Ok(Self::Minor(major, minor)),
            [major, minor, patch] => Ok(Self::Exactly(OrbVersion::Release(major, minor, patch))),
            _ => Err(bad()),
        }
    }
}

impl Selector {
    /// Whether this selector can select `version`.
    #[must_use]
    pub fn matches(&self, version: &OrbVersion) -> bool {
        match (self, version) {
            (Self::Exactly(wanted), version) => wanted == version,
            (Self::Minor(major, minor), OrbVersion::Release(a, b, _)) => (major, minor) == (a, b),
            (Self::Major(major), OrbVersion::Release(a, ..)) => major == a,
            (Self::Volatile, OrbVersion::Release(..)) => true,
            (_, OrbVersion::Development(_)) => false,
        }
    }

    /// The newest of `versions` that this selector selects.
    pub fn pick<'a>(&self, versions: impl IntoIterator<Item = &'a OrbVersion>) -> Option<&'a OrbVersion> {
        versions.into_iter().filter(|version| self.matches(version)).max()
    }
}

/// `namespace/orb@version`, as a configuration writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrbReference {
    /// Which orb.
    pub name: OrbName,
    /// Which of its versions.
    pub selector: Selector,
}

impl fmt::Display for OrbReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.selector)
    }
}

impl FromStr for OrbReference {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (name, selector) = text
            .split_once('@')
            .ok_or_else(|| ReferenceError::Reference(shortened(text)))?;
        let read = || Some((name.parse().ok()?, selector.parse().ok()?));
        let (name, selector) = read().ok_or_else(|| ReferenceError::Reference(shortened(text)))?;
        Ok(Self { name, selector })
    }
}

macro_rules! through_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = ReferenceError;
            fn try_from(text: String) -> Result<Self, ReferenceError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    };
}
through_text!(OrbName);
through_text!(OrbVersion);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pick(selector: &str, versions: &[&str]) -> Option<String> {
        let versions: Vec<OrbVersion> = versions.iter().map(|text| text.parse().unwrap()).collect();
        let selector: Selector = selector.parse().unwrap();
        selector.pick(&versions).map(ToString::to_string)
    }

    #[test]
    fn the_newest_version_that_is_selected_is_picked() {
        let versions = ["1.2.9", "1.10.0", "1.2.10", "2.0.0", "0.9.9", "dev:main"];
        let check = |selector: &str, expected: Option<&str>| {
            assert_eq!(pick(selector, &versions).as_deref(), expected, "{selector}");
        };
        check("1.2.9", Some("1.2.9"));
        check("1.2", Some("1.2.10"));
        check("1", Some("1.10.0"));
        check("volatile", Some("2.0.0"));
        check("dev:main", Some("dev:main"));
        check("dev:other", None);
        check("3", None);
        check("1.2.11", None);
    }

    #[test]
    fn a_development_version_is_never_picked_unnamed() {
        assert_eq!(pick("volatile", &["dev:main"]), None);
        assert_eq!(pick("0", &["dev:main"]), None);
    }

    #[test]
    fn what_is_no_reference_is_an_error() {
        for good in [
            "circleci/node@5",
            "a/b@1.2",
            "a-b/c_d@1.2.3",
            "a/b@volatile",
            "a/b@dev:feature/x.y",
        ] {
            assert_eq!(good.parse::<OrbReference>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "node",
            "node@1",
            "a/b",
            "a/b@",
            "a/b@v1",
            "a/b@1.2.3.4",
            "a/b@dev:",
            "a/../b@1",
            "a/b@-1",
            "a/b@+1",
            "a//b@1",
            "a/b@1.",
            "a/b@99999999999999999999",
            "a/b@dev:x y",
            "ä/b@1",
        ] {
            assert!(bad.parse::<OrbReference>().is_err(), "{bad}");
        }
    }
}
