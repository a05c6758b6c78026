//! How a commit's images are named.
//!
//! The main branch's images are called `app-…`, another branch's by the branch. Each build gets three tags: one that
//! names the commit and never moves to another, one that moves with the branch, and one that says when.

use crate::registry::TagName;
use jiff::Timestamp;
use towpath_types::{CommitId, Digest};

/// What the main branch's images are called.
pub const MAIN: &str = "app";

/// The longest part of a tag that is made from a branch: a tag has 128 characters, and `-` with a commit of 64 digits
/// follows at most.
const SLUG_LENGTH: usize = 60;

/// The tags of one build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageTags {
    /// `app-<commit>`: what a release is looked up by.
    pub commit: String,
    /// `app-latest`: moves with the branch.
    pub latest: String,
    /// `app-latest-<time>`: what was latest then, as `20261124T082530Z` (UTC, to the second).
    pub dated: String,
}

impl ImageTags {
    /// The tags of the image of `commit` on `branch`, built at `at`, in a repository whose main branch is `main_branch`.
    #[must_use]
    pub fn new(branch: &str, main_branch: &str, commit: &CommitId, at: Timestamp) -> Self {
        let prefix = prefix(branch, main_branch);
        let time = at.strftime("%Y%m%dT%H%M%SZ");
        Self {
            commit: format!("{prefix}-{commit}"),
            latest: format!("{prefix}-latest"),
            dated: format!("{prefix}-latest-{time}"),
        }
    }

    /// All three, the commit's first.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        [&self.commit, &self.latest, &self.dated]
            .into_iter()
            .map(String::as_str)
    }
}

/// What the tags of a branch begin with.
fn prefix(branch: &str, main_branch: &str) -> String {
    if branch == main_branch {
        return MAIN.to_string();
    }
    match branch_slug(branch) {
        // A branch must not be able to move the main branch's tags by being called like them.
        slug if slug == MAIN => format!("branch-{slug}"),
        slug => slug,
    }
}

/// A branch as part of a tag: lower case, every run of other characters one dash. `feature/Log in` is `feature-log-in`.
///
/// What would be empty or too long ends with a piece of the branch's digest instead, so that it stays one branch's own.
#[must_use]
pub fn branch_slug(branch: &str) -> String {
    let mut slug = String::new();
    for c in branch.chars().map(|c| c.to_ascii_lowercase()) {
        match c {
            'a'..='z' | '0'..='9' | '_' | '.' => slug.push(c),
            _ if slug.is_empty() || slug.ends_with('-') => {}
            _ => slug.push('-'),
        }
    }
    let trimmed = slug.trim_matches(['-', '.']);
    if !trimmed.is_empty() && trimmed.len() <= SLUG_LENGTH {
        return trimmed.to_string();
    }
    let digest = Digest::of(branch.as_bytes());
    let piece = &digest.hex()[..8];
    // A slug is ASCII, so any place is between two characters.
    match &trimmed[..trimmed.len().min(SLUG_LENGTH - piece.len() - 1)] {
        "" => format!("branch-{piece}"),
        start => format!("{start}-{piece}"),
    }
}

/// The tags that a person may mean by `word`, the likeliest first; the first that the registry has is meant.
///
/// `latest` is the main branch's latest, `<branch>-latest` that branch's, a commit's id the main branch's image of it
/// (that of another branch is written with its branch: `<branch>-<commit>`), and anything else is a tag as it stands.
/// Empty when `word` can be no tag at all.
#[must_use]
pub fn resolve_tag_word(word: &str, main_branch: &str) -> Vec<TagName> {
    let mut meant = Vec::new();
    if word == "latest" {
        meant.push(format!("{MAIN}-latest"));
    } else if word.parse::<CommitId>().is_ok() {
        meant.push(format!("{MAIN}-{word}"));
    } else if let Some(branch) = word.strip_suffix("-latest").filter(|branch| *branch != MAIN) {
        meant.push(format!("{}-latest", prefix(branch, main_branch)));
    } else if let Some((branch, commit)) = word.rsplit_once('-')
        && commit.parse::<CommitId>().is_ok()
        && branch != MAIN
    {
        meant.push(format!("{}-{commit}", prefix(branch, main_branch)));
    }
    meant.push(word.to_string());
    meant.dedup();
    meant.iter().filter_map(|tag| tag.parse().ok()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn the_tags_of_a_build() {
        let at: Timestamp = "2026-11-24T08:25:30.9Z".parse().unwrap();
        let check = |branch: &str, expect: [&str; 3]| {
            let tags = ImageTags::new(branch, "main", &COMMIT.parse().unwrap(), at);
            let expect = expect.map(|tag| tag.replace("SHA", COMMIT));
            assert_eq!(tags.iter().collect::<Vec<_>>(), expect, "{branch}");
        };
        check("main", ["app-SHA", "app-latest", "app-latest-20261124T082530Z"]);
        check(
            "feature/Log in",
            [
                "feature-log-in-SHA",
                "feature-log-in-latest",
                "feature-log-in-latest-20261124T082530Z",
            ],
        );
        check(
            "app",
            [
                "branch-app-SHA",
                "branch-app-latest",
                "branch-app-latest-20261124T082530Z",
            ],
        );
    }

    #[test]
    fn slugs() {
        for (branch, expect) in [
            ("main", "main"),
            (
                "dependabot/npm_and_yarn/lodash-4.17.21",
                "dependabot-npm_and_yarn-lodash-4.17.21",
            ),
            ("--a--b--", "a-b"),
            (".hidden.", "hidden"),
            ("a/ä/b", "a-b"),
            ("_x", "_x"),
        ] {
            assert_eq!(branch_slug(branch), expect, "{branch}");
        }
        assert!(branch_slug("ä").starts_with("branch-"));
        assert_ne!(branch_slug("ä"), branch_slug("ö"));
        let long = |end: &str| branch_slug(&format!("{}{end}", "x".repeat(80)));
        assert_ne!(long("1"), long("2"));
    }

    proptest::proptest! {
        #[test]
        fn every_branch_gives_legal_tags(branch in "\\PC{0,150}") {
            let commit = "a".repeat(64).parse().unwrap();
            for tag in ImageTags::new(&branch, "main", &commit, Timestamp::UNIX_EPOCH).iter() {
                assert!(tag.parse::<TagName>().is_ok(), "{tag}");
            }
        }
    }

    #[test]
    fn words() {
        let check = |word: &str, expect: &[&str]| {
            let meant = resolve_tag_word(word, "main");
            assert_eq!(meant.iter().map(TagName::as_str).collect::<Vec<_>>(), expect, "{word}");
        };
        check("latest", &["app-latest", "latest"]);
        check("app-latest", &["app-latest"]);
        check("main-latest", &["app-latest", "main-latest"]);
        check("feature/x-latest", &["feature-x-latest"]);
        check("feature-x-latest", &["feature-x-latest"]);
        check(COMMIT, &[&format!("app-{COMMIT}"), COMMIT]);
        check(&format!("app-{COMMIT}"), &[&format!("app-{COMMIT}")]);
        check(&format!("feature/x-{COMMIT}"), &[&format!("feature-x-{COMMIT}")]);
        check("v1.2.3", &["v1.2.3"]);
        check("app-latest-20261124T082530Z", &["app-latest-20261124T082530Z"]);
        check("no tag", &[]);
        check("", &[]);
    }
}
