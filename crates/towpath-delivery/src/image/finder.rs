//! Collects facts about images from the store and from registries for [`super::choice`].

use super::{
    choice::{Candidates, NoImage, choose, explain},
    project::{Needed, ProjectImages, Run, project_images},
};
use crate::{
    error::DeliveryError,
    history::History,
    project_file::ProjectFile,
    repository::{Repositories, project_name},
    request::LaptopRequest,
    workflow::WorkflowJobs,
};
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use towpath_deploy::Environment;
use towpath_images::{Images, TagName, commit_of_tag, resolve_tag_word, tags_of_commit};
use towpath_store::{ImagePush, ReleaseRow, Store};
use towpath_types::{Clock, CommitId, Digest, EnvironmentId, ImageReference};

/// The images of a project by name.
pub(crate) type ImageMap = BTreeMap<String, ImageReference>;

/// The images of a release, each pinned by its digest.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chosen {
    /// The images that the workflow or the request means.
    pub images: ImageMap,
    /// The images that it does not have: they stay as the environment runs them.
    pub kept: ImageMap,
    /// Why they stay; sentences.
    pub notes: Vec<String>,
}

impl Chosen {
    /// All images.
    pub(crate) fn all(&self) -> ImageMap {
        let all = self.kept.iter().chain(&self.images);
        all.map(|(name, image)| (name.clone(), image.clone())).collect()
    }
}

/// The answer of an external registry about a workflow's image.
#[derive(Debug, Default)]
struct Elsewhere {
    found: Option<ImageReference>,
    /// Why it did not answer about a tag.
    unanswered: Option<DeliveryError>,
}

/// An image of a release by its name, or else by its repository: a project's only image has another name than one of
/// several.
fn named(images: &ImageMap, name: &str, repository: &ImageReference) -> Option<ImageReference> {
    let is_it = |image: &&ImageReference| image.name() == repository.name();
    images.get(name).or_else(|| images.values().find(is_it)).cloned()
}

/// The images `needed`, from a release of `environment`.
fn taken(release: &ReleaseRow, needed: &Needed, environment: &str, advice: &str) -> Result<Chosen, DeliveryError> {
    let mut chosen = Chosen::default();
    for (name, repository) in &needed.images {
        match named(&release.images, name, repository) {
            Some(image) => {
                chosen.images.insert(name.clone(), image);
            }
            None if needed.is_run => {
                return Err(DeliveryError::conflict(format!(
                    "release {} of `{environment}` names no image of `{}`: {advice}",
                    release.number,
                    repository.name()
                )));
            }
            None => {}
        }
    }
    Ok(chosen)
}

fn quoted<T: AsRef<str>>(texts: impl Iterator<Item = T>) -> String {
    let quoted: Vec<String> = texts.map(|text| format!("`{}`", text.as_ref())).collect();
    quoted.join(", ")
}

/// Finds the image that a workflow or a person means.
#[derive(Clone)]
pub struct ImageFinder {
    store: Arc<dyn Store>,
    images: Arc<dyn Images>,
    repositories: Repositories,
    history: History,
    /// The address of Towpath's own registry in image names: `127.0.0.1:7070`.
    own_registry: String,
    clock: Arc<dyn Clock>,
    /// What registries said of images that are not the project's, by image.
    seen: Arc<Mutex<BTreeMap<String, Seen>>>,
}

/// What a registry said of an image.
#[derive(Debug, Clone)]
struct Seen {
    digest: Option<Digest>,
    until: Timestamp,
}

/// How long a plan waits for the digest of an image that is not the project's.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long such a digest, or that there is none, is shown without asking again.
const STAYS_KNOWN: SignedDuration = SignedDuration::from_mins(10);

impl ImageFinder {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        images: Arc<dyn Images>,
        repositories: Repositories,
        history: History,
        own_registry: String,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            clock,
            seen: Arc::default(),
            store,
            images,
            repositories,
            history,
            own_registry,
        }
    }

    pub(crate) fn is_own(&self, repository: &ImageReference) -> bool {
        repository.registry.as_deref() == Some(&self.own_registry)
    }

    /// The images that a project has, according to its project file and the containers in its manifests.
    ///
    /// # Errors
    /// `Invalid` when an image would be in Towpath's own registry under the name of another project.
    pub(crate) fn of_project(
        &self,
        project: &str,
        file: &ProjectFile,
        runs: &BTreeSet<Run>,
    ) -> Result<ProjectImages, DeliveryError> {
        ProjectImages::find(project, file, &self.own_registry, runs)
    }

    /// The images that the job `job` of a workflow deploys to `place`, or that the gate `job` shows. Of an image that
    /// the workflow did not build, the one that runs in `place` stays.
    ///
    /// # Errors
    /// `Conflict`, with instructions, when an image cannot be chosen.
    pub(crate) async fn of_workflow(
        &self,
        workflow: &WorkflowJobs,
        job: &str,
        place: &Environment,
        needed: &Needed,
    ) -> Result<Chosen, DeliveryError> {
        let row = &workflow.row;
        let mut candidates = Candidates {
            ran_in: workflow
                .before(job)
                .into_iter()
                .filter_map(|job| job.image.clone())
                .collect(),
            pushed: Vec::new(),
        };
        let mut chosen = Chosen::default();
        let mut untried = Vec::new();
        for (name, repository) in &needed.images {
            match choose(&candidates, repository, &row.commit) {
                Ok(image) => {
                    chosen.images.insert(name.clone(), image);
                }
                Err(_) => untried.push((name, repository)),
            }
        }
        // If a job ran in each image, pushes need not be read.
        if untried.is_empty() {
            return Ok(chosen);
        }
        let pushed = self.store.pushes_of(row.id).await?;
        candidates.pushed = pushed.into_iter().map(|push| push.image).collect();
        let mut missing = ImageMap::new();
        let mut unanswered = None;
        for (name, repository) in untried {
            let elsewhere = self.pushed_elsewhere(workflow, repository, &candidates.pushed).await?;
            unanswered = unanswered.or(elsewhere.unanswered.filter(|_| elsewhere.found.is_none()));
            candidates.pushed.extend(elsewhere.found);
            match choose(&candidates, repository, &row.commit) {
                Ok(image) => {
                    chosen.images.insert(name.clone(), image);
                }
                Err(why @ NoImage::Several(_)) => return Err(explain(&why, repository, &self.own_registry, &[])),
                Err(NoImage::Nothing) => {
                    missing.insert(name.clone(), repository.clone());
                }
            }
        }
        if chosen.images.is_empty() && !missing.is_empty() {
            let tags = self.tags_of(workflow).await?;
            return Err(match Vec::from_iter(missing.values()).as_slice() {
                [only] => explain(&NoImage::Nothing, only, &self.own_registry, &tags),
                several => DeliveryError::conflict(format!(
                    "this workflow built none of the project's images ({}), so there is nothing to deploy",
                    quoted(several.iter().map(|image| image.name()))
                )),
            });
        }
        // An image that nobody could look for may have been built: keeping the old one would be a guess.
        if let Some(error) = unanswered {
            return Err(error);
        }
        self.keep(&mut chosen, missing, place, "this workflow pushed no image of")
            .await?;
        Ok(chosen)
    }

    /// Adds the images `missing` as `place` runs them. `why` is the beginning of a sentence that ends with the image.
    async fn keep(
        &self,
        chosen: &mut Chosen,
        missing: ImageMap,
        place: &Environment,
        why: &str,
    ) -> Result<(), DeliveryError> {
        if missing.is_empty() {
            return Ok(());
        }
        self.history.learn(place).await?;
        let runs = self.history.last(&place.id).await?.map(|release| release.images);
        let environment = place.id.environment();
        for (name, repository) in missing {
            let Some(image) = runs.as_ref().and_then(|runs| named(runs, &name, &repository)) else {
                return Err(DeliveryError::conflict(format!(
                    "{why} `{}`, and `{environment}` runs none yet that could stay: build it, or deploy a tag that each of \
                     the images has",
                    repository.name()
                )));
            };
            chosen.notes.push(format!(
                "{why} `{}`: `{environment}` keeps the one that it runs",
                repository.name()
            ));
            chosen.kept.insert(name, image);
        }
        Ok(())
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
        let file = file.unwrap_or_default();
        let files = self
            .repositories
            .manifests(&row.project, &row.commit, &file.layout)
            .await?;
        // The gate also says why an image cannot be the project's.
        let images = project_images(row.project.as_str(), &file, &files, &self.own_registry).unwrap_or_default();
        let known = self.store.pushes_of(row.id).await?;
        let known: Vec<ImageReference> = known.into_iter().map(|push| push.image).collect();
        let mut found = Vec::new();
        for repository in images.values() {
            found.extend(self.newly_pushed_to(workflow, repository, &known).await?);
        }
        Ok(found)
    }

    async fn newly_pushed_to(
        &self,
        workflow: &WorkflowJobs,
        repository: &ImageReference,
        known: &[ImageReference],
    ) -> Result<Vec<ImagePush>, DeliveryError> {
        let row = &workflow.row;
        let mut found = Vec::new();
        if let Some(image) = self.pushed_elsewhere(workflow, repository, known).await?.found {
            found.push(ImagePush {
                project: row.project.clone(),
                workflow: Some(row.id),
                image,
                at: row.created_at,
            });
        }
        if !self.is_own(repository) {
            return Ok(found);
        }
        for tag in self.tags(repository).await? {
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

    /// The image of a workflow in an external registry, found by tags that name its commit. Stops at the first one, and
    /// asks no registry if one is known.
    async fn pushed_elsewhere(
        &self,
        workflow: &WorkflowJobs,
        repository: &ImageReference,
        known: &[ImageReference],
    ) -> Result<Elsewhere, DeliveryError> {
        if self.is_own(repository) {
            return Ok(Elsewhere::default());
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
            return Ok(Elsewhere::default());
        }
        let mut elsewhere = Elsewhere::default();
        for tag in tags {
            match self.resolve(repository, &tag).await {
                Ok(Some(digest)) => {
                    elsewhere.found = Some(ImageReference {
                        tag: Some(tag.as_str().to_string()),
                        digest: Some(digest),
                        ..repository.clone()
                    });
                    return Ok(elsewhere);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(
                        error = error.chain(),
                        "another registry does not say whether it has an image"
                    );
                    elsewhere.unanswered = Some(error);
                }
            }
        }
        Ok(elsewhere)
    }

    async fn tags_of(&self, workflow: &WorkflowJobs) -> Result<Vec<TagName>, DeliveryError> {
        let row = &workflow.row;
        let main_branch = self.repositories.default_branch(&row.project).await?;
        Ok(tags_of_commit(&row.commit, row.branch.as_deref(), &main_branch))
    }

    /// The images that a request names: those of another environment, those that run now, or those of a tag. Of an
    /// image that does not have the tag, the one that runs in `place` stays.
    ///
    /// # Errors
    /// `NotFound` when no image has the tag; `Conflict` when nothing runs to take an image from.
    pub(crate) async fn of_request(
        &self,
        place: &Environment,
        request: &LaptopRequest,
        needed: &Needed,
    ) -> Result<Chosen, DeliveryError> {
        let id = &place.id;
        if let Some(from) = &request.from {
            let release = self.release_to_promote(id, from).await?;
            return taken(&release, needed, from, "deploy there first what has it");
        }
        let Some(word) = &request.tag else {
            self.history.learn(place).await?;
            let environment = id.environment();
            let nothing = || {
                DeliveryError::conflict(format!(
                    "nothing was deployed to `{environment}` yet, so say which image: `latest`, for example"
                ))
            };
            let release = self.history.last(id).await?.ok_or_else(nothing)?;
            let advice = "say which image: `latest`, for example";
            return taken(&release, needed, environment, advice);
        };
        let main_branch = self.repositories.default_branch(&project_name(id.project())?).await?;
        let tags = resolve_tag_word(word, &main_branch);
        let mut chosen = Chosen::default();
        let mut missing = ImageMap::new();
        for (name, repository) in &needed.images {
            match self.tagged(repository, word, &tags).await? {
                Some(digest) => chosen.images.insert(name.clone(), repository.at(digest)),
                None => missing.insert(name.clone(), repository.clone()),
            };
        }
        if let (true, true, Some(some)) = (tags.is_empty(), chosen.images.is_empty(), missing.values().next()) {
            return Err(DeliveryError::invalid(format!(
                "`{}` is no tag: name the image by a tag of `{}`, such as `latest` or `app-v1`, or by a commit's id. A release \
                 always names the digest that it leads to",
                word.escape_debug(),
                some.name()
            )));
        }
        if chosen.images.is_empty() && !missing.is_empty() {
            let tried = quoted(tags.iter().map(TagName::as_str)).replace(", ", " or ");
            let message = match Vec::from_iter(missing.values()).as_slice() {
                [only] => format!(
                    "the registry has no image of `{}` tagged {tried}: build it with `towpath build`, or push the commit",
                    only.name()
                ),
                several => format!(
                    "no registry has an image tagged {tried} of any of {}: build them with `towpath build`, or push the commit",
                    quoted(several.iter().map(|image| image.name()))
                ),
            };
            return Err(DeliveryError::not_found(message));
        }
        let why = format!("nothing is tagged `{word}` of");
        self.keep(&mut chosen, missing, place, &why).await?;
        Ok(chosen)
    }

    /// The digest that `word` means in a repository. `tags` are the tags that it may mean.
    async fn tagged(
        &self,
        repository: &ImageReference,
        word: &str,
        tags: &[TagName],
    ) -> Result<Option<Digest>, DeliveryError> {
        for tag in tags {
            if let Some(digest) = self.resolve(repository, tag).await? {
                return Ok(Some(digest));
            }
        }
        self.of_commit(repository, word).await
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
    /// names a commit. Of several commits, the one that was pushed last.
    pub(crate) async fn commit_of(
        &self,
        images: &ImageMap,
        otherwise: Option<CommitId>,
    ) -> Result<Option<CommitId>, DeliveryError> {
        let mut found: Option<(Option<Timestamp>, CommitId)> = None;
        for image in images.values() {
            for (tag, commit) in self.tags_of_commits(image).await? {
                if self.resolve(image, &tag).await? != image.digest {
                    continue;
                }
                if Some(&commit) == otherwise.as_ref() {
                    return Ok(otherwise);
                }
                let push = self.store.last_push(&image.repository, tag.as_str()).await?;
                let at = push.map(|push| push.at);
                if found.as_ref().is_none_or(|(newest, _)| at >= *newest) {
                    found = Some((at, commit));
                }
            }
        }
        Ok(found.map(|(_, commit)| commit).or(otherwise))
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

    /// The digests of images that are not the project's; `None` for one that no registry tells soon. `images` are as in
    /// manifests.
    ///
    /// Plans only show these digests, so an answer may be some minutes old, and a plan does not wait long for one.
    pub(crate) async fn third_party(&self, images: BTreeSet<String>) -> BTreeMap<String, Option<Digest>> {
        let look = async |text: String| {
            let digest = self.third_party_digest(&text).await;
            (text, digest)
        };
        futures::future::join_all(images.into_iter().map(look))
            .await
            .into_iter()
            .collect()
    }

    async fn third_party_digest(&self, text: &str) -> Option<Digest> {
        let image = text.parse::<ImageReference>().ok()?;
        if image.digest.is_some() {
            return image.digest;
        }
        let now = self.clock.now();
        let known = self
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(text)
            .cloned();
        if let Some(seen) = known.filter(|seen| now < seen.until) {
            return seen.digest;
        }
        let tag = image.tag.as_deref().unwrap_or("latest").parse().ok()?;
        let asked = tokio::time::timeout(PATIENCE, self.images.resolve(&image, &tag)).await;
        let digest = asked.ok().and_then(Result::ok).flatten();
        let seen = Seen {
            digest: digest.clone(),
            until: now + STAYS_KNOWN,
        };
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, seen| now < seen.until);
        all.insert(text.to_string(), seen);
        digest
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
