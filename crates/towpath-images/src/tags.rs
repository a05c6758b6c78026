//! How a commit's images are tagged.
//!
//! Tags of the main branch begin with `app-`, those of another branch with the branch's name. Each build gets three tags: one
//! for the commit, which never means another commit, one that moves with the branch, and one for the time of the build.

use crate::registry::TagName;
use jiff::Timestamp;
use towpath_types::{CommitId, Digest};

/// The prefix of the main branch's tags.
pub const MAIN: &str = "app";

/// The most characters of a tag that come from a branch. A tag may have 128, of which `-` and a commit may take 65.
const SLUG_LENGTH: usize = 60;

/// The tags of one build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageTags {
    /// `app-<commit>`: releases find their image by this tag.
    pub commit: String,
    /// `app-latest`: moves with the branch.
    pub latest: String,
    /// `app-latest-<time>`: what `latest` meant then. The time is UTC to the second: `20261124T082530Z`.
    pub dated: String,
}

impl ImageTags {
    /// The tags of the image that was built at `at` from `commit` on `branch`.
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

    /// All three tags, the commit's first.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        [&self.commit, &self.latest, &self.dated]
            .into_iter()
            .map(String::as_str)
    }
}

/// The prefix of a branch's tags.
fn prefix(branch: &str, main_branch: &str) -> String {
    if branch == main_branch {
        return MAIN.to_string();
    }
    match branch_slug(branch) {
        // A branch called `app` must not move the main branch's tags.
        slug if slug == MAIN => format!("branch-{slug}"),
        slug => slug,
    }
}

/// A branch as part of a tag: in lower case, with one dash for each run of other characters. `feature/Log in` becomes
/// `feature-log-in`.
///
/// A result that would be empty or too long ends with a piece of the branch's digest, so that no two branches share it.
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
    // A slug is ASCII, so it may be cut anywhere.
    match &trimmed[..trimmed.len().min(SLUG_LENGTH - piece.len() - 1)] {
        "" => format!("branch-{piece}"),
        start => format!("{start}-{piece}"),
    }
}

/// The tags that a person may mean by `word`, in the order in which to try them.
///
/// | word | meaning |
/// | --- | --- |
/// | `latest` | the newest image of the main branch |
/// | `<branch>-latest` | the newest image of that branch |
/// | a commit's id | the main branch's image of that commit |
/// | `<branch>-<commit>` | that branch's image of the commit |
/// | anything else | the tag itself, or the tag with `app-` in front: `v1` means `app-v1` if there is no `v1` |
///
/// Empty when `word` cannot be a tag.
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
    let is_plain = meant.is_empty();
    meant.push(word.to_string());
    if is_plain && !word.is_empty() && !word.starts_with(&format!("{MAIN}-")) {
        meant.push(format!("{MAIN}-{word}"));
    }
    meant.dedup();
    meant.iter().filter_map(|tag| tag.parse().ok()).collect()
}

/// The tags that an image of `commit` may have, in the order in which to try them: the tag of Towpath's own builds, the branch
/// as scripts usually write it, and the main branch's tag.
#[must_use]
pub fn tags_of_commit(commit: &CommitId, branch: Option<&str>, main_branch: &str) -> Vec<TagName> {
    let mut tags = Vec::new();
    if let Some(branch) = branch {
        tags.push(format!("{}-{commit}", prefix(branch, main_branch)));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let written: String = branch.chars().map(|c| if plain(c) { c } else { '-' }).collect();
        tags.push(format!("{written}-{commit}"));
    }
    tags.push(format!("{MAIN}-{commit}"));
    let mut found: Vec<TagName> = Vec::new();
    for tag in tags.iter().filter_map(|tag| tag.parse().ok()) {
        if !found.contains(&tag) {
            found.push(tag);
        }
    }
    found
}

/// The commit that a tag ends with: `app-<commit>`.
#[must_use]
pub fn commit_of_tag(tag: &TagName) -> Option<CommitId> {
    tag.as_str().rsplit('-').next()?.parse().ok()
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
    fn a_commits_tags_are_tried_in_order_and_lead_back_to_it() {
        let commit: CommitId = COMMIT.parse().unwrap();
        let check = |branch: Option<&str>, expect: &[&str]| {
            let tags = tags_of_commit(&commit, branch, "main");
            let expect: Vec<String> = expect.iter().map(|prefix| format!("{prefix}-{COMMIT}")).collect();
            assert_eq!(
                tags.iter().map(TagName::as_str).collect::<Vec<_>>(),
                expect,
                "{branch:?}"
            );
            assert!(tags.iter().all(|tag| commit_of_tag(tag).as_ref() == Some(&commit)));
        };
        check(None, &["app"]);
        check(Some("main"), &["app", "main"]);
        check(Some("Feature/X"), &["feature-x", "Feature-X", "app"]);
        check(Some("feature-x"), &["feature-x", "app"]);
        // The branch has 110 characters, too many for a tag with the commit.
        check(Some(&"x/".repeat(55)), &[&branch_slug(&"x/".repeat(55)), "app"]);
        for other in ["latest", "app-latest", "v1.2.3", "app-0123"] {
            assert_eq!(commit_of_tag(&other.parse().unwrap()), None, "{other}");
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
        check("v1.2.3", &["v1.2.3", "app-v1.2.3"]);
        check("app-v1.2.3", &["app-v1.2.3"]);
        check("app-latest-20261124T082530Z", &["app-latest-20261124T082530Z"]);
        check("no tag", &[]);
        check("", &[]);
    }
}
