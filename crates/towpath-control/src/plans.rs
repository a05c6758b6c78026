//! Plans: what a deployment would do, made whole before anybody approves it.

use crate::{
    Control, ControlError, PROJECT_FILE, ProjectFile,
    conductor::store_error,
    push::forge_error,
    records::{Push, WorkflowImages, WorkflowRecord, collection},
    releases::Release,
    views::{LaptopRequest, ManifestFile, PlanChange, PlanCommit, PlanView},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use towpath_deploy::EnvironmentId;
use towpath_images::{RegistryClient, RepositoryName, TagName, resolve_tag_word};
use towpath_manifest::{
    ChangeKind, Fingerprint, ImageRule, Object, Tree, diff, sort_for_apply, with_config_hash, with_image,
};
use towpath_types::{CommitId, Digest, ImageReference, ReleaseId};

/// How many commits a plan lists.
const MOST_COMMITS: usize = 50;

/// What a deployment will do. Immutable once made; carried out exactly, or refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// A hash of everything below that decides what is done.
    pub id: String,
    /// The project.
    pub project: String,
    /// The environment.
    pub environment: String,
    /// The namespace that Services answer to.
    pub namespace: String,
    /// The image, pinned.
    pub image: ImageReference,
    /// The release that it starts from.
    pub parent: Option<ReleaseId>,
    /// What runs now.
    pub previous_image: Option<ImageReference>,
    /// The commit that the image was built from, or, when that is not known, the manifests' own.
    pub commit: Option<CommitId>,
    /// The commits since the release that it starts from.
    pub commits: Vec<PlanCommit>,
    /// Everything that is to be there, in the order of application.
    pub objects: Vec<Object>,
    /// What changes.
    pub changes: Vec<PlanChange>,
    /// How many objects stay.
    pub unchanged: usize,
    /// What stands in the way.
    pub blockers: Vec<String>,
    /// What was noticed.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Gives the plan its id, once everything in it is decided.
    pub(crate) fn name(&mut self) -> Result<(), ControlError> {
        let values: Vec<_> = self.objects.iter().map(|object| &object.value).collect();
        let decides = (
            &self.project,
            &self.environment,
            &self.namespace,
            &self.image,
            self.parent,
            values,
        );
        let text = serde_json::to_string(&decides)
            .map_err(|error| ControlError::internal("failed to name a plan").caused_by(error))?;
        self.id = Digest::of(text.as_bytes()).short().to_string();
        Ok(())
    }

    pub(crate) fn view(&self) -> PlanView {
        PlanView {
            id: self.id.clone(),
            environment: self.environment.clone(),
            image: self.image.to_string(),
            previous_image: self.previous_image.as_ref().map(ToString::to_string),
            parent: self.parent,
            commit: self.commit.clone(),
            commits: self.commits.clone(),
            changes: self.changes.clone(),
            unchanged: self.unchanged,
            blockers: self.blockers.clone(),
            warnings: self.warnings.clone(),
        }
    }
}

/// What a plan is made from.
pub(crate) struct PlanSource {
    pub project: String,
    pub environment: String,
    pub files: Vec<ManifestFile>,
    pub project_file: ProjectFile,
    pub image: ImageReference,
    pub commit: Option<CommitId>,
}

/// The name by which the local target knows an environment of a project.
pub(crate) fn target_id(project: &str, environment: &str) -> Result<EnvironmentId, ControlError> {
    EnvironmentId::new(project, environment).map_err(|error| ControlError::invalid(error.to_string()))
}

/// A source's manifests, with the kube context that has the environment.
struct Manifests {
    tree: Tree,
    kube_context: String,
    /// What is wrong in any file of the tree, rendered.
    errors: Vec<String>,
}

fn read_manifests(source: &PlanSource) -> Result<Manifests, ControlError> {
    let (tree, diagnostics) = Tree::read(source.files.iter().map(|file| (file.path.as_str(), file.text.as_str())));
    let errors = diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.is_error())
        .map(|diagnostic| diagnostic.render(false))
        .collect();
    let has: Vec<&str> = tree.kube_contexts_of(&source.environment);
    let wanted = source
        .project_file
        .manifests
        .as_deref()
        .map(|folder| folder.trim_end_matches('/').rsplit('/').next().unwrap_or(folder));
    let kube_context = match (wanted, has.as_slice()) {
        (Some(wanted), has) if has.contains(&wanted) => wanted.to_string(),
        (None, [only]) => (*only).to_string(),
        (None, [_, _, ..]) => {
            return Err(ControlError::invalid(format!(
                "more than one kube context has an environment `{}` ({}): say which with `manifests = \".k8s/…\"` in `{PROJECT_FILE}`",
                source.environment,
                has.join(", ")
            )));
        }
        _ => return Err(no_environment(&tree, source)),
    };
    Ok(Manifests {
        tree,
        kube_context,
        errors,
    })
}

fn no_environment(tree: &Tree, source: &PlanSource) -> ControlError {
    let mut known: Vec<&str> = tree
        .kube_contexts
        .values()
        .flat_map(|context| context.environments.keys().map(String::as_str))
        .collect();
    known.sort_unstable();
    known.dedup();
    let known = if known.is_empty() {
        "there are no manifests below `.k8s/`".into()
    } else {
        format!("there are {}", known.join(", "))
    };
    ControlError::not_found(format!("there is no environment `{}`: {known}", source.environment))
}

/// The environments that a project's manifests have, by name.
pub(crate) fn environment_names(files: &[(String, String)], project_file: &ProjectFile) -> Vec<String> {
    let (tree, _) = Tree::read(files.iter().map(|(path, text)| (path.as_str(), text.as_str())));
    let wanted = project_file
        .manifests
        .as_deref()
        .and_then(|folder| folder.trim_end_matches('/').rsplit('/').next());
    let mut names: Vec<String> = tree
        .kube_contexts
        .iter()
        .filter(|(name, _)| wanted.is_none_or(|wanted| wanted == name.as_str()))
        .flat_map(|(_, context)| context.environments.keys().cloned())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The pattern of a namespace that no manifest names.
fn namespace_of(manifests: &Manifests, source: &PlanSource) -> String {
    manifests.tree.namespace(
        &manifests.kube_context,
        &source.environment,
        &format!("{}-{{environment}}", source.project),
    )
}

/// One Job or CronJob by the name of its object or its file, on the source's image, with its namespace.
pub(crate) fn read_job(source: &PlanSource, name: &str, kind: &str) -> Result<(Object, String), ControlError> {
    let manifests = read_manifests(source)?;
    if !manifests.errors.is_empty() {
        return Err(ControlError::invalid(manifests.errors.join("\n")));
    }
    let namespace = namespace_of(&manifests, source);
    let objects: Vec<Object> = if kind == "Job" {
        manifests
            .tree
            .jobs(&manifests.kube_context, &source.environment)
            .into_iter()
            .cloned()
            .collect()
    } else {
        manifests
            .tree
            .wanted(&manifests.kube_context, &source.environment, &namespace)
            .unwrap_or_default()
    };
    let objects: Vec<Object> = objects.into_iter().filter(|object| object.kind == kind).collect();
    let stem = |object: &Object| {
        let file = object.place.file.rsplit('/').next().unwrap_or_default();
        file.split('.').next().unwrap_or_default().to_string()
    };
    let found = objects
        .iter()
        .find(|object| object.name == name)
        .or_else(|| objects.iter().find(|object| stem(object) == name));
    let Some(object) = found else {
        let known: Vec<String> = objects.iter().map(stem).collect();
        let known = if known.is_empty() {
            "there is none".to_string()
        } else {
            format!("there are {}", known.join(", "))
        };
        return Err(ControlError::not_found(format!(
            "`{}` has no {kind} `{name}`: {known}",
            source.environment
        )));
    };
    let mut objects = [object.clone().in_namespace(&namespace)];
    with_image(
        &mut objects,
        &ImageRule::repository(&source.image.repository),
        &source.image,
    )
    .map_err(|error| ControlError::internal("a job was made without a digest").caused_by(error))?;
    let [object] = objects;
    Ok((object, namespace))
}

/// What changes between two lists of objects, and how many stay.
pub(crate) fn plan_changes(
    before: &[Object],
    after: &[Object],
    fingerprint: Fingerprint<'_>,
) -> (Vec<PlanChange>, usize) {
    let (unchanged, changed): (Vec<_>, Vec<_>) = diff(before, after, fingerprint)
        .into_iter()
        .partition(|change| change.kind == ChangeKind::Unchanged);
    let changes = changed
        .into_iter()
        .map(|change| PlanChange {
            action: match change.kind {
                ChangeKind::Created => "created",
                ChangeKind::Deleted => "deleted",
                ChangeKind::Changed | ChangeKind::Unchanged => "changed",
            }
            .to_string(),
            diff: change.to_string(),
            kind: change.id.kind,
            name: change.id.name,
        })
        .collect();
    (changes, unchanged.len())
}

impl Control {
    /// Makes the plan of `source` against what runs now.
    pub(crate) async fn make_plan(&self, source: PlanSource) -> Result<Plan, ControlError> {
        let manifests = read_manifests(&source)?;
        let namespace = namespace_of(&manifests, &source);
        let mut blockers = manifests.errors.clone();
        let mut warnings = Vec::new();
        let objects = manifests
            .tree
            .wanted(&manifests.kube_context, &source.environment, &namespace);
        let mut objects = objects.ok_or_else(|| no_environment(&manifests.tree, &source))?;
        let replaced = with_image(
            &mut objects,
            &ImageRule::repository(&source.image.repository),
            &source.image,
        )
        .map_err(|error| ControlError::internal("a plan was made without a digest").caused_by(error))?;
        if replaced.is_empty() {
            let repository = &source.image.repository;
            warnings.push(format!(
                "no container's image is called `{repository}`, so nothing here runs the new image"
            ));
        }
        let target = target_id(&source.project, &source.environment)?;
        let previous = self.last_release(&target.slug()).await?;
        let runs = previous.as_ref().map(Release::plan).transpose()?;
        let mut plan = Plan {
            id: String::new(),
            namespace,
            parent: previous.as_ref().map(|release| release.row.id),
            previous_image: runs.as_ref().map(|runs| runs.image.clone()),
            commits: self
                .commits_since(
                    &source,
                    previous.as_ref().and_then(|release| release.row.commit.as_ref()),
                )
                .await,
            project: source.project,
            environment: source.environment,
            image: source.image,
            commit: source.commit,
            objects,
            changes: Vec::new(),
            unchanged: 0,
            blockers: Vec::new(),
            warnings,
        };
        self.refresh_config_hashes(&mut plan)?;
        sort_for_apply(&mut plan.objects);
        blockers.extend(self.preflight(&plan.project, &plan.environment, &plan.objects).await?);
        plan.blockers = blockers;
        let before = runs.map(|runs| runs.objects).unwrap_or_default();
        (plan.changes, plan.unchanged) = plan_changes(&before, &plan.objects, &|bytes| {
            self.vault.fingerprint_bytes(bytes).to_string()
        });
        plan.name()?;
        Ok(plan)
    }

    /// Puts into each pod template the hash of what its pods read now.
    pub(crate) fn refresh_config_hashes(&self, plan: &mut Plan) -> Result<(), ControlError> {
        let fingerprints = self
            .fingerprints(&plan.project, &plan.environment)?
            .with_config_maps(&plan.objects);
        with_config_hash(&mut plan.objects, &fingerprints);
        Ok(())
    }

    async fn commits_since(&self, source: &PlanSource, from: Option<&CommitId>) -> Vec<PlanCommit> {
        let (Some(commit), Ok(project)) = (&source.commit, self.project_name(&source.project)) else {
            return Vec::new();
        };
        // A commit that was never pushed here (a laptop's) has no history here: the plan is as good without.
        let limit = if from.is_some() { MOST_COMMITS } else { 1 };
        let log = self.forge.log(&project, from, commit, limit).await.unwrap_or_default();
        log.into_iter()
            .map(|commit| PlanCommit {
                id: commit.id,
                author: commit.author,
                subject: commit.subject,
            })
            .collect()
    }

    /// The plan of a gate: the manifests at the commit, and the image that the workflow built.
    pub(crate) async fn plan_of_workflow(
        &self,
        record: &Arc<WorkflowRecord>,
        environment: &str,
    ) -> Result<Plan, ControlError> {
        let project = self.project_name(&record.project)?;
        let project_file = match self.optional_file(&project, &record.commit, PROJECT_FILE).await? {
            Some(text) => ProjectFile::parse(&text).map_err(|error| ControlError::invalid(error.to_string()))?,
            None => ProjectFile::default(),
        };
        let files = self
            .forge
            .files(&project, &record.commit, ".k8s")
            .await
            .map_err(forge_error)?;
        let files = files
            .into_iter()
            .filter(|file| is_yaml(&file.path))
            .map(|file| ManifestFile {
                path: file.path,
                text: String::from_utf8_lossy(&file.bytes).into_owned(),
            })
            .collect();
        let repository = self.image_repository(&record.project, &project_file);
        let images: WorkflowImages = self
            .document(collection::IMAGES, &record.id.to_string())
            .await?
            .unwrap_or_default();
        let image = images
            .images
            .into_iter()
            .find(|image| image.repository == repository.repository)
            .ok_or_else(|| {
                ControlError::conflict(format!(
                    "this workflow pushed no image of `{}` tagged with its commit, so there is nothing to deploy",
                    repository.repository
                ))
            })?;
        let image = pinned(image)?;
        self.make_plan(PlanSource {
            project: record.project.clone(),
            environment: environment.to_string(),
            files,
            project_file,
            image,
            commit: Some(record.commit.clone()),
        })
        .await
    }

    /// The plan of a laptop's request.
    pub(crate) async fn plan_of_request(
        &self,
        project: &str,
        environment: &str,
        request: LaptopRequest,
    ) -> Result<Plan, ControlError> {
        let project_file = match &request.project_file {
            Some(text) => ProjectFile::parse(text).map_err(|error| ControlError::invalid(error.to_string()))?,
            None => ProjectFile::default(),
        };
        let image = self
            .image_of_request(project, environment, &request, &project_file)
            .await?;
        let commit = self.commit_of_image(&image, request.commit).await?;
        self.make_plan(PlanSource {
            project: project.to_string(),
            environment: environment.to_string(),
            files: request.files,
            project_file,
            image,
            commit,
        })
        .await
    }

    /// The image that a request's tag means, pinned; without a tag, the one that the environment runs.
    pub(crate) async fn image_of_request(
        &self,
        project: &str,
        environment: &str,
        request: &LaptopRequest,
        project_file: &ProjectFile,
    ) -> Result<ImageReference, ControlError> {
        let Some(word) = &request.tag else {
            let release = self.last_release(&target_id(project, environment)?.slug()).await?;
            let nothing = || {
                ControlError::conflict(format!(
                    "nothing was deployed to `{environment}` yet, so say which image: `latest`, say"
                ))
            };
            return Ok(release.ok_or_else(nothing)?.plan()?.image);
        };
        let repository = self.image_repository(project, project_file);
        let main = match self.project_name(project) {
            Ok(name) => self.forge.default_branch(&name).await.unwrap_or_else(|_| "main".into()),
            Err(_) => "main".into(),
        };
        let tags = resolve_tag_word(word, &main);
        for tag in &tags {
            if let Some(digest) = self.resolve(&repository, tag).await? {
                return Ok(repository.at(digest));
            }
        }
        if let Some(digest) = self.image_of_commit(&repository, word).await? {
            return Ok(repository.at(digest));
        }
        let tried: Vec<String> = tags.iter().map(|tag| format!("`{}`", tag.as_str())).collect();
        Err(ControlError::not_found(format!(
            "the registry has no image of `{}` tagged {}: build it with `towpath build`, or push the commit",
            repository.name(),
            tried.join(" or ")
        )))
    }

    /// The digest behind a tag: in Towpath's own registry, or by asking another.
    pub(crate) async fn resolve(
        &self,
        repository: &ImageReference,
        tag: &TagName,
    ) -> Result<Option<Digest>, ControlError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            ControlError::unavailable(format!("failed to look for `{}:{}`", repository.name(), tag.as_str()))
                .caused_by(error)
        };
        if repository.registry.as_deref() == Some(&self.registry_name()) {
            let name: RepositoryName = repository
                .repository
                .parse()
                .map_err(|error: towpath_images::registry::NameError| failed(error.into()))?;
            return self
                .registry
                .resolve(&name, tag)
                .await
                .map_err(|error| failed(error.into()));
        }
        let reference = ImageReference {
            tag: Some(tag.as_str().to_string()),
            ..repository.clone()
        };
        let registry = repository.registry.clone().unwrap_or_default();
        let client = RegistryClient::new(&registry, None).map_err(|error| failed(error.into()))?;
        client.resolve(&reference).await.map_err(|error| failed(error.into()))
    }

    /// The image of a commit, whatever the branch that it was built on, by the end of its tag.
    async fn image_of_commit(&self, repository: &ImageReference, word: &str) -> Result<Option<Digest>, ControlError> {
        if word.len() < 7 || !word.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        for (tag, commit) in self.tags_of_commits(repository).await? {
            if commit.as_str().starts_with(word) {
                return self.resolve(repository, &tag).await;
            }
        }
        Ok(None)
    }

    /// The commit that an image was built from, by its tags; `otherwise` when that is one of them, or when no tag tells.
    async fn commit_of_image(
        &self,
        image: &ImageReference,
        otherwise: Option<CommitId>,
    ) -> Result<Option<CommitId>, ControlError> {
        let mut found = None;
        for (tag, commit) in self.tags_of_commits(image).await? {
            if self.resolve(image, &tag).await? == image.digest {
                if Some(&commit) == otherwise.as_ref() {
                    return Ok(otherwise);
                }
                found = Some(commit);
            }
        }
        Ok(found.or(otherwise))
    }

    /// The tags of a repository of Towpath's own registry that end with a commit: `app-<sha>`.
    async fn tags_of_commits(&self, repository: &ImageReference) -> Result<Vec<(TagName, CommitId)>, ControlError> {
        let own = repository.registry.as_deref() == Some(&self.registry_name());
        let Some(name) = repository.repository.parse::<RepositoryName>().ok().filter(|_| own) else {
            return Ok(Vec::new());
        };
        let failed = |error| ControlError::unavailable("failed to list the registry's tags").caused_by(error);
        let tags = self.registry.tags(&name).await.map_err(failed)?;
        let commit = |tag: TagName| Some((tag.clone(), tag.as_str().rsplit('-').next()?.parse().ok()?));
        Ok(tags.into_iter().filter_map(commit).collect())
    }

    /// What a workflow's jobs have pushed since it began, added to what was known; `None` when that is nothing new.
    pub(crate) async fn newly_pushed(
        &self,
        record: &Arc<WorkflowRecord>,
    ) -> Result<Option<WorkflowImages>, ControlError> {
        let known: Option<WorkflowImages> = self.document(collection::IMAGES, &record.id.to_string()).await?;
        let mut images = known.clone().unwrap_or_default();
        let began = {
            let live = self.live(record.id).await?;
            let live = live.lock().await;
            live.state.created_at()
        };
        let pushes: Vec<(String, Push)> = self
            .store
            .documents(collection::PUSHES, "")
            .await
            .map_err(store_error)?;
        let mut new = false;
        for (_, push) in pushes {
            let tag = push.image.tag.clone().unwrap_or_default();
            let own = tag.ends_with(record.commit.as_str()) && push.at >= began;
            // The first push of a tag counts: what a tag says later is not what was built here.
            let seen = images
                .images
                .iter()
                .any(|image| image.repository == push.image.repository && image.tag == push.image.tag);
            if own && !seen {
                images.images.push(push.image);
                new = true;
            }
        }
        Ok(new.then_some(images))
    }
}

/// The repository of a project's image, without tag and digest.
pub(crate) fn image_repository_in(project: &str, file: &ProjectFile, own_registry: String) -> ImageReference {
    let text = file.image.clone().unwrap_or_else(|| project.to_string());
    let plain = ImageReference {
        registry: None,
        repository: project.to_string(),
        tag: None,
        digest: None,
    };
    let mut reference: ImageReference = text.parse().unwrap_or(plain);
    reference.tag = None;
    reference.digest = None;
    reference.registry.get_or_insert(own_registry);
    reference
}

fn pinned(image: ImageReference) -> Result<ImageReference, ControlError> {
    let digest = image
        .digest
        .clone()
        .ok_or_else(|| ControlError::internal("an image was recorded without its digest"))?;
    Ok(image.at(digest))
}

pub(crate) fn is_yaml(path: &str) -> bool {
    path.ends_with(".yaml") || path.ends_with(".yml")
}
