//! Collects facts about images from the store and from registries for [`super::choice`].

use super::choice::{Candidates, NoImage, choose, explain, image_repository};
use crate::{
    error::DeliveryError,
    history::History,
    manifests::with_found_image,
    project_file::ProjectFile,
    repository::{Repositories, project_name},
    request::LaptopRequest,
    workflow::WorkflowJobs,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use towpath_images::{Images, TagName, commit_of_tag, resolve_tag_word, tags_of_commit};
use towpath_store::{ImagePush, ReleaseRow, Store};
use towpath_types::{CommitId, Digest, EnvironmentId, ImageReference};

/// The images of a project by name.
pub(crate) type ImageMap = BTreeMap<String, ImageReference>;

/// Finds the image that a workflow or a person means.
#[derive(Clone)]
pub struct ImageFinder {
    store: Arc<dyn Store>,
    images: Arc<dyn Images>,
    repositories: Repositories,
    history: History,
    /// The address of Towpath's own registry in image names: `127.0.0.1:7070`.
    own_registry: String,
}

impl ImageFinder {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        images: Arc<dyn Images>,
        repositories: Repositories,
        history: History,
        own_registry: String,
    ) -> Self {
        Self {
            store,
            images,
            repositories,
            history,
            own_registry,
        }
    }

    /// The repository of a project's image, without tag and digest.
    #[must_use]
    pub fn repository_of(&self, project: &str, file: &ProjectFile) -> ImageReference {
        image_repository(project, file, &self.own_registry)
    }

    pub(crate) fn is_own(&self, repository: &ImageReference) -> bool {
        repository.registry.as_deref() == Some(&self.own_registry)
    }

    /// The image that the job `job` of a workflow deploys, or that the gate `job` shows.
    ///
    /// # Errors
    /// `Conflict`, with instructions, when no image can be chosen.
    pub(crate) async fn of_workflow(
        &self,
        workflow: &WorkflowJobs,
        job: &str,
        file: &ProjectFile,
    ) -> Result<ImageMap, DeliveryError> {
        let row = &workflow.row;
        let repository = self.repository_of(row.project.as_str(), file);
        let mut candidates = Candidates {
            ran_in: workflow
                .before(job)
                .into_iter()
                .filter_map(|job| job.image.clone())
                .collect(),
            pushed: Vec::new(),
        };
        // If a job ran in the image, pushes need not be read.
        let tried = choose(&candidates, &repository, &row.commit);
        let chosen = match tried {
            Ok(image) => Ok(image),
            Err(_) => {
                let pushed = self.store.pushes_of(row.id).await?;
                candidates.pushed = pushed.into_iter().map(|push| push.image).collect();
                let elsewhere = self.pushed_elsewhere(workflow, &repository, &candidates.pushed).await?;
                candidates.pushed.extend(elsewhere);
                choose(&candidates, &repository, &row.commit)
            }
        };
        match chosen {
            Ok(image) => Ok(BTreeMap::from([(row.project.to_string(), image)])),
            Err(why) => {
                let tags = match why {
                    NoImage::Nothing => self.tags_of(workflow).await?,
                    NoImage::Several(_) => Vec::new(),
                };
                Err(explain(&why, &repository, &self.own_registry, &tags))
            }
        }
    }

    /// The images that a workflow's jobs have pushed since it began and that the store does not attribute to the
    /// workflow: those pushed with another token than the job's, or to an external registry.
    ///
    /// Call this when a job has ended, and commit each as [`towpath_store::Write::ImagePush`]: later moves of a tag
    /// then do not change what the workflow built.
    ///
    /// # Errors
    /// When the store or git does not answer.
    pub async fn newly_pushed(&self, workflow: &WorkflowJobs) -> Result<Vec<ImagePush>, DeliveryError> {
        let row = &workflow.row;
        // The gate reports an unreadable file.
        let file = self.repositories.project_file(&row.project, &row.commit).await;
        let mut file = file.unwrap_or_default();
        if file.image.is_none() {
            let files = self
                .repositories
                .manifests(&row.project, &row.commit, &file.layout)
                .await?;
            file = with_found_image(file, row.project.as_str(), &files);
        }
        let repository = self.repository_of(row.project.as_str(), &file);
        let known = self.store.pushes_of(row.id).await?;
        let known: Vec<ImageReference> = known.into_iter().map(|push| push.image).collect();
        let mut found = Vec::new();
        for image in self.pushed_elsewhere(workflow, &repository, &known).await? {
            found.push(ImagePush {
                project: row.project.clone(),
                workflow: Some(row.id),
                image,
                at: row.created_at,
            });
        }
        if !self.is_own(&repository) {
            return Ok(found);
        }
        for tag in self.tags(&repository).await? {
            let is_known = known
                .iter()
                .any(|image| image.repository == repository.repository && image.tag.as_deref() == Some(tag.as_str()));
            if is_known || !tag.as_str().ends_with(row.commit.as_str()) {
                continue;
            }
            let push = self.store.last_push(&repository.repository, tag.as_str()).await?;
            // The tag and the time show that the push belongs to the workflow.
            let push = push.filter(|push| push.workflow.is_none() && push.at >= row.created_at);
            found.extend(push.map(|push| ImagePush {
                workflow: Some(row.id),
                ..push
            }));
        }
        Ok(found)
    }

    /// The images of a workflow in an external registry, found by tags that name its commit. Stops at the first one,
    /// and asks no registry if one is known.
    async fn pushed_elsewhere(
        &self,
        workflow: &WorkflowJobs,
        repository: &ImageReference,
        known: &[ImageReference],
    ) -> Result<Vec<ImageReference>, DeliveryError> {
        if self.is_own(repository) {
            return Ok(Vec::new());
        }
        let tags = self.tags_of(workflow).await?;
        let is_it = |image: &ImageReference| {
            image.registry == repository.registry
                && image.repository == repository.repository
                && image
                    .tag
                    .as_ref()
                    .is_some_and(|tag| tags.iter().any(|one| one.as_str() == tag))
        };
        if known.iter().any(is_it) {
            return Ok(Vec::new());
        }
        for tag in tags {
            match self.resolve(repository, &tag).await {
                Ok(Some(digest)) => {
                    return Ok(vec![ImageReference {
                        tag: Some(tag.as_str().to_string()),
                        digest: Some(digest),
                        ..repository.clone()
                    }]);
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(
                    error = error.chain(),
                    "another registry does not say whether it has an image"
                ),
            }
        }
        Ok(Vec::new())
    }

    async fn tags_of(&self, workflow: &WorkflowJobs) -> Result<Vec<TagName>, DeliveryError> {
        let row = &workflow.row;
        let main_branch = self.repositories.default_branch(&row.project).await?;
        Ok(tags_of_commit(&row.commit, row.branch.as_deref(), &main_branch))
    }

    /// The images that a request names: those of another environment, those that run now, or those of a tag.
    ///
    /// # Errors
    /// `NotFound` when no image has the tag; `Conflict` when nothing runs in the environment to take images from.
    pub(crate) async fn of_request(
        &self,
        id: &EnvironmentId,
        request: &LaptopRequest,
        file: &ProjectFile,
    ) -> Result<ImageMap, DeliveryError> {
        if let Some(from) = &request.from {
            return Ok(self.release_to_promote(id, from).await?.images);
        }
        let Some(word) = &request.tag else {
            let place = self.history.place(id).await?;
            self.history.learn(&place).await?;
            let nothing = || {
                DeliveryError::conflict(format!(
                    "nothing was deployed to `{}` yet, so say which image: `latest`, for example",
                    id.environment()
                ))
            };
            return Ok(self.history.last(id).await?.ok_or_else(nothing)?.images);
        };
        let repository = self.repository_of(id.project(), file);
        let main_branch = self.repositories.default_branch(&project_name(id.project())?).await?;
        let image = |digest: Digest| BTreeMap::from([(id.project().to_string(), repository.at(digest))]);
        let tags = resolve_tag_word(word, &main_branch);
        for tag in &tags {
            if let Some(digest) = self.resolve(&repository, tag).await? {
                return Ok(image(digest));
            }
        }
        if let Some(digest) = self.of_commit(&repository, word).await? {
            return Ok(image(digest));
        }
        let tried: Vec<String> = tags.iter().map(|tag| format!("`{}`", tag.as_str())).collect();
        Err(DeliveryError::not_found(format!(
            "the registry has no image of `{}` tagged {}: build it with `towpath build`, or push the commit",
            repository.name(),
            tried.join(" or ")
        )))
    }

    /// The release in the environment `from`, of the same project, whose images a promotion uses.
    pub(crate) async fn release_to_promote(&self, to: &EnvironmentId, from: &str) -> Result<ReleaseRow, DeliveryError> {
        let id = crate::manifests::environment_id(to.project(), from)?;
        let place = self.history.place(&id).await?;
        self.history.learn(&place).await?;
        let nothing = || {
            DeliveryError::conflict(format!(
                "nothing was deployed to `{from}` yet, so nothing can be promoted"
            ))
        };
        self.history.last(&id).await?.ok_or_else(nothing)
    }

    /// The digest behind a tag.
    async fn resolve(&self, repository: &ImageReference, tag: &TagName) -> Result<Option<Digest>, DeliveryError> {
        self.images.resolve(repository, tag).await.map_err(|error| {
            DeliveryError::unavailable(format!("failed to look for `{}:{}`", repository.name(), tag.as_str()))
                .caused_by(error)
        })
    }

    async fn tags(&self, repository: &ImageReference) -> Result<Vec<TagName>, DeliveryError> {
        let listed = self.images.tags(repository).await;
        listed.map_err(|error| {
            DeliveryError::unavailable(format!("failed to list the tags of `{}`", repository.name())).caused_by(error)
        })
    }

    /// The image of a commit on any branch, found by the end of its tag. `word` is a commit's id or a prefix of one.
    async fn of_commit(&self, repository: &ImageReference, word: &str) -> Result<Option<Digest>, DeliveryError> {
        if word.len() < 7 || !word.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let mut fits = self.tags_of_commits(repository).await?;
        fits.retain(|(_, commit)| commit.as_str().starts_with(word));
        let commits: BTreeSet<&CommitId> = fits.iter().map(|(_, commit)| commit).collect();
        if commits.len() > 1 {
            let commits: Vec<String> = commits.iter().map(|commit| format!("`{commit}`")).collect();
            return Err(DeliveryError::conflict(format!(
                "`{word}` may be any of the commits {}: give more of its digits",
                commits.join(", ")
            )));
        }
        match fits.first() {
            Some((tag, _)) => self.resolve(repository, tag).await,
            None => Ok(None),
        }
    }

    /// The commit that images were built from, according to their tags. `otherwise` if it is among those, or if no tag
    /// names a commit.
    pub(crate) async fn commit_of(
        &self,
        images: &ImageMap,
        otherwise: Option<CommitId>,
    ) -> Result<Option<CommitId>, DeliveryError> {
        let mut found = None;
        for image in images.values() {
            for (tag, commit) in self.tags_of_commits(image).await? {
                if self.resolve(image, &tag).await? == image.digest {
                    if Some(&commit) == otherwise.as_ref() {
                        return Ok(otherwise);
                    }
                    found = Some(commit);
                }
            }
        }
        Ok(found.or(otherwise))
    }

    /// The tags in a repository of Towpath's own registry that end with a commit: `app-<commit>`.
    async fn tags_of_commits(&self, repository: &ImageReference) -> Result<Vec<(TagName, CommitId)>, DeliveryError> {
        if !self.is_own(repository) {
            return Ok(Vec::new());
        }
        let tags = self.tags(repository).await?;
        let with_commit = |tag: TagName| commit_of_tag(&tag).map(|commit| (tag, commit));
        Ok(tags.into_iter().filter_map(with_commit).collect())
    }

    /// The message when the registry no longer has a pinned image. An unreachable registry is not an error here: the
    /// pull will tell.
    pub(crate) async fn missing(&self, image: &ImageReference) -> Option<String> {
        let there = self.images.exists(image, image.digest.as_ref()?).await.ok()?;
        (!there).then(|| {
            format!(
                "the registry has no `{image}`: it was removed there; build the commit again, or deploy a newer release"
            )
        })
    }
}
