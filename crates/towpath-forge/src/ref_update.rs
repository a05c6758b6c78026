//! What a push does to a ref.

use towpath_types::CommitId;

/// One ref that a push creates, moves or deletes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct RefUpdate {
    /// The whole name: `refs/heads/main`.
    pub name: String,
    /// `None` when the push creates the ref.
    pub old: Option<CommitId>,
    /// `None` when the push deletes the ref.
    pub new: Option<CommitId>,
}

impl RefUpdate {
    /// Parses a line that git gives to the `pre-receive` and `post-receive` hooks: `<old> <new> <ref>`, where an id of zeroes
    /// stands for no commit.
    ///
    /// Source: <https://git-scm.com/docs/githooks#post-receive>
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(3, ' ');
        let mut id = || -> Option<Option<CommitId>> {
            let word = words.next()?;
            if word.bytes().all(|b| b == b'0') {
                Some(None)
            } else {
                word.parse().ok().map(Some)
            }
        };
        let (old, new) = (id()?, id()?);
        let name = words.next()?.trim_end().to_string();
        name.starts_with("refs/").then_some(Self { name, old, new })
    }

    /// The branch's name, if the ref is a branch.
    #[must_use]
    pub fn branch(&self) -> Option<&str> {
        self.name.strip_prefix("refs/heads/")
    }

    /// The tag's name, if the ref is a tag.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.name.strip_prefix("refs/tags/")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_hooks_line_says_what_moved() {
        let (zero, one) = ("0".repeat(40), "1".repeat(40));
        let made = RefUpdate::parse(&format!("{zero} {one} refs/heads/main")).unwrap();
        assert_eq!((&made.old, made.branch()), (&None, Some("main")));
        let gone = RefUpdate::parse(&format!("{one} {zero} refs/tags/v1")).unwrap();
        assert_eq!((&gone.new, gone.tag()), (&None, Some("v1")));
        assert_eq!(RefUpdate::parse("x y z"), None);
        assert_eq!(RefUpdate::parse(&format!("{zero} {one} HEAD")), None);
    }
}
