//! A project's name: one path component, safe in a URL, a folder, an image repository and a Kubernetes label.

use std::{fmt, str::FromStr};

/// `claims`: lower-case letters, digits, `-`, `_` and `.`, starting with a letter or digit, at most 63 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProjectName(String);

/// Why a text is not a project name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a project name (lower-case letters, digits, `-`, `_`, `.`; it starts with a letter or digit; at most 63)"
)]
pub struct ProjectNameError(String);

impl ProjectName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ProjectName {
    type Error = ProjectNameError;
    fn try_from(text: String) -> Result<Self, ProjectNameError> {
        text.parse()
    }
}

impl From<ProjectName> for String {
    fn from(name: ProjectName) -> Self {
        name.0
    }
}

impl FromStr for ProjectName {
    type Err = ProjectNameError;
    fn from_str(text: &str) -> Result<Self, ProjectNameError> {
        let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let good = (1..=63).contains(&text.len())
            && text.bytes().all(|b| alnum(b) || matches!(b, b'-' | b'_' | b'.'))
            && text.bytes().next().is_some_and(alnum)
            && text.bytes().last().is_some_and(alnum)
            && !text.ends_with(".git")
            && !text.contains("..");
        if good {
            Ok(Self(text.to_string()))
        } else {
            Err(ProjectNameError(text.chars().take(80).collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_everywhere() {
        for good in ["claims", "a", "my-app_2.0"] {
            assert!(good.parse::<ProjectName>().is_ok(), "{good}");
        }
        for bad in ["", "..", "a/b", "Claims", "-a", "a-", "a..b", "x.git", &"a".repeat(64)] {
            assert!(bad.parse::<ProjectName>().is_err(), "{bad}");
        }
    }
}
