//! Chooses the image that is meant, from known facts. Pure.

use crate::{error::DeliveryError, project_file::ProjectFile};
use std::collections::BTreeSet;
use towpath_images::TagName;
use towpath_types::{CommitId, Digest, ImageReference};

/// The repository of a project's image, without tag and digest. A repository without a registry is in Towpath's own.
#[must_use]
pub fn image_repository(project: &str, file: &ProjectFile, own_registry: &str) -> ImageReference {
    let text = file.image.as_deref().unwrap_or(project);
    let plain = ImageReference {
        registry: None,
        repository: project.to_string(),
        tag: None,
        digest: None,
    };
    let mut reference: ImageReference = text.parse().unwrap_or(plain);
    reference.tag = None;
    reference.digest = None;
    reference.registry.get_or_insert_with(|| own_registry.to_string());
    reference
}

/// The known images of a workflow.
#[derive(Debug, Clone, Default)]
pub(crate) struct Candidates {
    /// The images that the jobs before the deployment ran in, nearest job first.
    pub ran_in: Vec<ImageReference>,
    /// The images that the workflow pushed, first push first.
    pub pushed: Vec<ImageReference>,
}

/// Why no image could be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoImage {
    /// The repository has no image.
    Nothing,
    /// There are several images, with these tags, and no tag names the commit.
    Several(Vec<String>),
}

/// Chooses the image of `repository` that a workflow deploys, pinned: the one that a job before the deployment ran in,
/// because it was tested; else the one that the workflow pushed; of several, the one whose tag names the commit.
pub(crate) fn choose(
    candidates: &Candidates,
    repository: &ImageReference,
    commit: &CommitId,
) -> Result<ImageReference, NoImage> {
    let of_repository = |image: &&ImageReference| {
        image.registry == repository.registry && image.repository == repository.repository && image.digest.is_some()
    };
    let pinned = |image: &ImageReference| image.digest.clone().map(|digest| image.at(digest));
    if let Some(tried) = candidates.ran_in.iter().find(of_repository).and_then(pinned) {
        return Ok(tried);
    }
    let pushed: Vec<&ImageReference> = candidates.pushed.iter().filter(of_repository).collect();
    let has_commit = |image: &&&ImageReference| {
        let tag = image.tag.as_deref();
        tag.is_some_and(|tag| tag.ends_with(commit.as_str()))
    };
    let digests: BTreeSet<&Digest> = pushed.iter().filter_map(|image| image.digest.as_ref()).collect();
    let found = match digests.len() {
        1 => pushed.first(),
        _ => pushed.iter().find(has_commit),
    };
    if let Some(image) = found.and_then(|image| pinned(image)) {
        return Ok(image);
    }
    let tags: Vec<String> = pushed
        .iter()
        .filter_map(|image| Some(format!("`{}`", image.tag.as_ref()?)))
        .collect();
    Err(match tags.is_empty() {
        true => NoImage::Nothing,
        false => NoImage::Several(tags),
    })
}

/// The message when no image could be chosen. `tags` are the tags that were tried in an external registry.
pub(crate) fn explain(
    why: &NoImage,
    repository: &ImageReference,
    own_registry: &str,
    tags: &[TagName],
) -> DeliveryError {
    DeliveryError::conflict(match why {
        NoImage::Nothing if repository.registry.as_deref() == Some(own_registry) => format!(
            "this workflow pushed no image of `{}`, so there is nothing to deploy",
            repository.repository
        ),
        NoImage::Nothing => format!(
            "`{}` has no image tagged {}, so there is nothing to deploy",
            repository.name(),
            tags.iter().map(TagName::as_str).collect::<Vec<_>>().join(" or ")
        ),
        NoImage::Several(tags) => format!(
            "this workflow pushed several images of `{}` ({}), and none of them has its commit in the tag: run a job in the one \
             to deploy, or tag it `app-$CIRCLE_SHA1`",
            repository.repository,
            tags.join(", ")
        ),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn commit() -> CommitId {
        COMMIT.parse().unwrap()
    }

    fn repository() -> ImageReference {
        "127.0.0.1:7070/claims".parse().unwrap()
    }

    fn image(tag: &str, content: &str) -> ImageReference {
        ImageReference {
            tag: Some(tag.into()),
            digest: Some(Digest::of(content.as_bytes())),
            ..repository()
        }
    }

    fn chosen(candidates: Candidates) -> Result<ImageReference, NoImage> {
        choose(&candidates, &repository(), &commit())
    }

    #[test]
    fn the_image_that_was_tried_wins_over_the_one_that_was_pushed() {
        let found = chosen(Candidates {
            ran_in: vec!["cimg/rust:1.95".parse().unwrap(), image("x", "tried")],
            pushed: vec![image("y", "pushed")],
        });
        assert_eq!(found, Ok(repository().at(Digest::of(b"tried"))));
    }

    #[test]
    fn the_only_pushed_image_is_meant_whatever_its_tags() {
        let found = chosen(Candidates {
            pushed: vec![image("v1", "same"), image("v1.0", "same")],
            ..Candidates::default()
        });
        assert_eq!(found, Ok(repository().at(Digest::of(b"same"))));
    }

    #[test]
    fn of_several_images_the_one_tagged_with_the_commit_is_meant() {
        let found = chosen(Candidates {
            pushed: vec![image("base", "a"), image(&format!("app-{COMMIT}"), "b")],
            ..Candidates::default()
        });
        assert_eq!(found, Ok(repository().at(Digest::of(b"b"))));
    }

    #[test]
    fn images_of_other_repositories_and_without_a_digest_do_not_count() {
        let found = chosen(Candidates {
            ran_in: vec![repository()],
            pushed: vec![format!("127.0.0.1:7070/other@{}", Digest::of(b"x")).parse().unwrap()],
        });
        assert_eq!(found, Err(NoImage::Nothing));
    }

    #[test]
    fn without_a_choice_the_message_says_what_to_do() {
        let none = explain(&NoImage::Nothing, &repository(), "127.0.0.1:7070", &[]).to_string();
        assert_eq!(
            none,
            "this workflow pushed no image of `claims`, so there is nothing to deploy"
        );
        let tags = towpath_images::tags_of_commit(&commit(), Some("feature/Log in"), "main");
        let elsewhere = explain(
            &NoImage::Nothing,
            &"r.io/claims".parse().unwrap(),
            "127.0.0.1:7070",
            &tags,
        );
        assert_eq!(
            elsewhere.to_string(),
            format!(
                "`r.io/claims` has no image tagged feature-log-in-{COMMIT} or feature-Log-in-{COMMIT} or app-{COMMIT}, so there is \
                 nothing to deploy"
            )
        );
        let several = chosen(Candidates {
            pushed: vec![image("a", "a"), image("b", "b")],
            ..Candidates::default()
        });
        let several = explain(&several.unwrap_err(), &repository(), "127.0.0.1:7070", &[]).to_string();
        assert!(
            several.contains("(`a`, `b`)") && several.contains("tag it `app-$CIRCLE_SHA1`"),
            "{several}"
        );
    }

    #[test]
    fn a_projects_image_is_in_towpaths_own_registry_unless_it_says_otherwise() {
        let own =
            |text: &str| image_repository("claims", &ProjectFile::parse(text).unwrap(), "127.0.0.1:7070").to_string();
        assert_eq!(own(""), "127.0.0.1:7070/claims");
        assert_eq!(own("image = \"team/app:latest\""), "127.0.0.1:7070/team/app");
        assert_eq!(own("image = \"r.io/team/app\""), "r.io/team/app");
    }
}
