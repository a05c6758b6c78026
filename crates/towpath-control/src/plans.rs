//! Plans: what a deployment would do, made whole before anybody approves it.

use crate::{
    Control, ControlError, OnFailure, PROJECT_FILE, ProjectFile, TargetSettings, Wait,
    conductor::store_error,
    push::forge_error,
    records::{Push, WorkflowImages, WorkflowRecord, collection},
    releases::{Release, project_file_of, target_error},
    views::{LaptopRequest, ManifestFile, PlanChange, PlanCommit, PlanView},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use towpath_deploy::render::{is_yaml, needs_every_file};
use towpath_deploy::{Environment, EnvironmentId, PULL_SECRET, Severity};
use towpath_forge::TreeFile;
use towpath_images::{Credentials, ImageTags, MAIN, RegistryClient, RepositoryName, TagName, resolve_tag_word};
use towpath_manifest::{
    Change, ChangeKind, ImageRule, Object, ObjectId, Tree, diff, sort_for_apply, with_config_hash, with_image,
    with_pull_secret,
};
use towpath_types::{CommitId, Digest, ImageReference, ReleaseId, with_causes};

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
    /// The kube context whose folder has the manifests.
    #[serde(default)]
    pub kube_context: String,
    /// The namespace of the objects.
    pub namespace: String,
    /// What becomes of it when it fails.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// How long it is waited for.
    #[serde(default)]
    pub wait: Wait,
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
            &self.kube_context,
            &self.namespace,
            self.on_failure,
            &self.image,
            self.parent,
            values,
        );
        let text = serde_json::to_string(&decides)
            .map_err(|error| ControlError::internal("failed to name a plan").caused_by(error))?;
        self.id = Digest::of(text.as_bytes()).short().to_string();
        Ok(())
    }

    /// Where it is to be carried out.
    pub(crate) fn target(&self) -> Result<Environment, ControlError> {
        Ok(Environment {
            id: target_id(&self.project, &self.environment)?,
            kube_context: self.kube_context.clone(),
            namespace: self.namespace.clone(),
        })
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
            on_failure: self.on_failure,
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
    /// Overrules what the project's file says.
    pub on_failure: Option<OnFailure>,
    /// Why it is deployed although the environment is frozen.
    pub despite_freeze: Option<String>,
}

impl PlanSource {
    fn image_rule(&self) -> ImageRule {
        ImageRule {
            repository: self.image.repository.clone(),
            containers: self.project_file.containers.clone(),
        }
    }
}

/// The name by which targets know an environment of a project.
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
        (None, [_, _, ..]) => return Err(which_kube_context(&source.environment, &has)),
        _ => return Err(no_environment(&tree, source)),
    };
    Ok(Manifests {
        tree,
        kube_context,
        errors,
    })
}

/// What is to be said where an environment's name is not enough.
pub(crate) fn which_kube_context(environment: &str, kube_contexts: &[impl AsRef<str>]) -> ControlError {
    let names: Vec<&str> = kube_contexts.iter().map(AsRef::as_ref).collect();
    ControlError::invalid(format!(
        "more than one kube context has an environment `{environment}` ({}): say which with `manifests = \".k8s/…\"` in `{PROJECT_FILE}`",
        names.join(", ")
    ))
}

fn no_environment(tree: &Tree, source: &PlanSource) -> ControlError {
    let wanted = source.project_file.manifests.as_deref();
    let is_wanted =
        |name: &str| wanted.is_none_or(|folder| folder.trim_end_matches('/').rsplit('/').next() == Some(name));
    if let Some(folder) = wanted.filter(|_| !tree.kube_contexts.keys().any(|name| is_wanted(name))) {
        return ControlError::not_found(format!(
            "there is no environment `{}`: `{PROJECT_FILE}` says `manifests = \"{folder}\"`, where there are none",
            source.environment
        ));
    }
    let mut known: Vec<&str> = tree
        .kube_contexts
        .iter()
        .filter(|(name, _)| is_wanted(name))
        .flat_map(|(_, context)| context.environments.keys().map(String::as_str))
        .collect();
    known.sort_unstable();
    known.dedup();
    let known = if known.is_empty() {
        "there are no manifests below `.k8s/`".into()
    } else {
        format!("there are {}", Vec::from_iter(known).join(", "))
    };
    ControlError::not_found(format!("there is no environment `{}`: {known}", source.environment))
}

/// A commit's files as a plan takes them: the YAML, and with Kustomize or Helm every text.
pub(crate) fn manifest_files(files: Vec<TreeFile>) -> Vec<ManifestFile> {
    let every = needs_every_file(files.iter().map(|file| file.path.as_str()));
    let text = |file: TreeFile| match (is_yaml(&file.path), String::from_utf8(file.bytes)) {
        (true, Err(error)) => Some((file.path, String::from_utf8_lossy(error.as_bytes()).into_owned())),
        (true, Ok(text)) => Some((file.path, text)),
        // What is no text cannot be rendered from; the program says so if it misses it.
        (false, text) => text.ok().filter(|_| every).map(|text| (file.path, text)),
    };
    let files = files.into_iter().filter_map(text);
    files.map(|(path, text)| ManifestFile { path, text }).collect()
}

/// The environments that a project's manifests have.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environments {
    /// Where each is, by name.
    pub places: BTreeMap<String, Environment>,
    /// Those of which a name does not say where they are: the kube contexts that have them.
    pub ambiguous: BTreeMap<String, Vec<String>>,
}

/// The environments that a project's manifests have.
pub(crate) fn environments_in(project: &str, files: &[(String, String)], project_file: &ProjectFile) -> Environments {
    let (tree, _) = Tree::read(files.iter().map(|(path, text)| (path.as_str(), text.as_str())));
    let wanted = project_file
        .manifests
        .as_deref()
        .and_then(|folder| folder.trim_end_matches('/').rsplit('/').next());
    let mut environments = Environments::default();
    for (kube_context, context) in &tree.kube_contexts {
        if wanted.is_some_and(|wanted| wanted != kube_context) {
            continue;
        }
        for name in context.environments.keys() {
            // A folder that cannot name an environment is said when it is deployed to.
            let Ok(id) = EnvironmentId::new(project, name) else {
                continue;
            };
            let has = tree.kube_contexts_of(name);
            if wanted.is_none() && has.len() > 1 {
                let has = has.into_iter().map(str::to_string).collect();
                environments.ambiguous.insert(name.clone(), has);
                continue;
            }
            let place = Environment {
                id,
                kube_context: kube_context.clone(),
                namespace: namespace_in(&tree, kube_context, project, name, project_file),
            };
            environments.places.insert(name.clone(), place);
        }
    }
    environments
}

/// The images, without tag and digest, that the workloads of manifests run, each with the names of the containers that run it.
#[must_use]
pub fn workload_images(files: &[ManifestFile]) -> BTreeMap<String, BTreeSet<String>> {
    let (tree, _) = Tree::read(files.iter().map(|file| (file.path.as_str(), file.text.as_str())));
    let environments = tree
        .kube_contexts
        .values()
        .flat_map(|context| context.environments.values());
    let workloads = environments
        .flat_map(|environment| &environment.objects)
        .filter(|object| matches!(object.kind.as_str(), "Deployment" | "StatefulSet" | "DaemonSet"));
    let mut images: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for container in workloads.flat_map(towpath_manifest::containers) {
        if let Ok(image) = container.image.parse::<ImageReference>() {
            images.entry(image.name()).or_default().insert(container.name);
        }
    }
    images
}

/// Whether a project can be called `name`.
///
/// # Errors
/// `Invalid`, with what a name may be.
pub fn check_project_name(name: &str) -> Result<(), ControlError> {
    let parsed = name.parse::<towpath_forge::ProjectName>();
    parsed
        .map(drop)
        .map_err(|error| ControlError::invalid(error.to_string()))
}

/// The namespace of an environment: what the project's file says, what its manifests name, or the project's and the
/// environment's names.
fn namespace_in(
    tree: &Tree,
    kube_context: &str,
    project: &str,
    environment: &str,
    project_file: &ProjectFile,
) -> String {
    match &project_file.namespace {
        Some(pattern) => fill_in(pattern, kube_context, environment),
        None => tree.namespace(kube_context, environment, &namespace_pattern(project, project_file)),
    }
}

/// What is to be said of manifests that name another namespace than the one that the project's file gives their environment.
fn other_namespaces(manifests: &Manifests, source: &PlanSource, namespace: &str) -> Vec<String> {
    let Some(environment) = manifests.tree.environment(&manifests.kube_context, &source.environment) else {
        return Vec::new();
    };
    let other = |object: &&Object| object.namespace.as_deref().is_some_and(|named| named != namespace);
    let found = environment.objects.iter().chain(&environment.jobs).filter(other);
    found
        .map(|object| {
            format!(
                "{}: {} is in the namespace `{}`, and `{PROJECT_FILE}` says that {} is in `{namespace}`: leave `metadata.namespace` out",
                object.place_of("/metadata/namespace"),
                object.id(),
                object.namespace.as_deref().unwrap_or_default(),
                source.environment
            )
        })
        .collect()
}

pub(crate) fn namespace_pattern(project: &str, project_file: &ProjectFile) -> String {
    let pattern = project_file.namespace.clone();
    pattern.unwrap_or_else(|| format!("{project}-{{environment}}"))
}

/// A namespace by its pattern, for what is rendered before its manifests can name one.
pub(crate) fn fill_in(pattern: &str, kube_context: &str, environment: &str) -> String {
    Tree::default().namespace(kube_context, environment, pattern)
}

/// One Job or CronJob by the name of its object or its file, on the source's image, with its namespace.
pub(crate) fn read_job(source: &PlanSource, name: &str, kind: &str) -> Result<(Object, Environment), ControlError> {
    let manifests = read_manifests(source)?;
    if !manifests.errors.is_empty() {
        return Err(ControlError::invalid(manifests.errors.join("\n")));
    }
    let namespace = namespace_in(
        &manifests.tree,
        &manifests.kube_context,
        &source.project,
        &source.environment,
        &source.project_file,
    );
    let wrong = other_namespaces(&manifests, source, &namespace);
    if source.project_file.namespace.is_some() && !wrong.is_empty() {
        return Err(ControlError::invalid(wrong.join("\n")));
    }
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
        // By the names that every command knows them by; one file may hold several.
        let known: BTreeSet<&str> = objects.iter().map(|object| object.name.as_str()).collect();
        let known = if known.is_empty() {
            "there is none".to_string()
        } else {
            format!("there are {}", Vec::from_iter(known).join(", "))
        };
        return Err(ControlError::not_found(format!(
            "`{}` has no {kind} `{name}`: {known}",
            source.environment
        )));
    };
    let mut objects = [object.clone().in_namespace(&namespace)];
    with_image(&mut objects, &source.image_rule(), &source.image)
        .map_err(|error| ControlError::internal("a job was made without a digest").caused_by(error))?;
    let [object] = objects;
    let environment = Environment {
        id: target_id(&source.project, &source.environment)?,
        kube_context: manifests.kube_context,
        namespace,
    };
    Ok((object, environment))
}

/// What changes, and how many objects stay.
fn plan_changes(changes: Vec<Change>) -> (Vec<PlanChange>, usize) {
    let (unchanged, changed): (Vec<_>, Vec<_>) = changes
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
    /// The source with what Kustomize and Helm make of its environment in the place of their files, and what is to be
    /// noticed there. A source without them comes back as it is.
    pub(crate) async fn rendered(&self, mut source: PlanSource) -> Result<(PlanSource, Vec<String>), ControlError> {
        let files = std::mem::take(&mut source.files);
        let files = files.into_iter().map(|file| (file.path, file.text)).collect();
        let pattern = namespace_pattern(&source.project, &source.project_file);
        let rendered = self
            .renderer
            .render(
                files,
                &source.project,
                Some(&source.environment),
                |kube_context, environment| fill_in(&pattern, kube_context, environment),
            )
            .await;
        if let Some(reason) = rendered.why_no_environment(&source.environment) {
            return Err(ControlError::not_found(reason));
        }
        let wrong = rendered.diagnostics.iter().map(|diagnostic| diagnostic.render(false));
        let failed = rendered.failures.iter().map(|failure| with_causes(&failure.error));
        let wrong: Vec<String> = wrong.chain(failed).collect();
        if !wrong.is_empty() {
            return Err(ControlError::invalid(wrong.join("\n")));
        }
        let files = rendered.files.into_iter();
        source.files = files.map(|(path, text)| ManifestFile { path, text }).collect();
        let warnings = rendered.warnings.into_iter().map(|(_, warning)| warning).collect();
        Ok((source, warnings))
    }

    /// Makes the plan of `source` against what runs now.
    pub(crate) async fn make_plan(&self, source: PlanSource) -> Result<Plan, ControlError> {
        let (source, noticed) = self.rendered(source).await?;
        let manifests = read_manifests(&source)?;
        let namespace = namespace_in(
            &manifests.tree,
            &manifests.kube_context,
            &source.project,
            &source.environment,
            &source.project_file,
        );
        let mut blockers = manifests.errors.clone();
        if source.project_file.namespace.is_some() {
            blockers.extend(other_namespaces(&manifests, &source, &namespace));
        }
        let mut warnings = noticed;
        let objects = manifests
            .tree
            .wanted(&manifests.kube_context, &source.environment, &namespace);
        let mut objects = objects.ok_or_else(|| no_environment(&manifests.tree, &source))?;
        let replaced = with_image(&mut objects, &source.image_rule(), &source.image)
            .map_err(|error| ControlError::internal("a plan was made without a digest").caused_by(error))?;
        if self.brings_pull_secret(&source.image) {
            with_pull_secret(&mut objects, &source.image, PULL_SECRET);
        }
        if replaced.is_empty() {
            let repository = &source.image.repository;
            warnings.push(format!(
                "no container's image is called `{repository}`, so nothing here runs the new image"
            ));
        }
        let target = Environment {
            id: target_id(&source.project, &source.environment)?,
            kube_context: manifests.kube_context,
            namespace,
        };
        let on_failure = source
            .on_failure
            .unwrap_or_else(|| source.project_file.on_failure(&source.environment));
        let frozen = self
            .frozen(&source.project, &source.environment, Some(&source.project_file))
            .await?;
        self.learn_releases(&target).await?;
        let previous = self.last_release(&target.id.slug()).await?;
        let runs = previous.as_ref().map(Release::plan).transpose()?;
        let mut plan = Plan {
            id: String::new(),
            kube_context: target.kube_context,
            namespace: target.namespace,
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
            on_failure,
            wait: source.project_file.wait,
            image: source.image,
            commit: source.commit,
            objects,
            changes: Vec::new(),
            unchanged: 0,
            blockers: Vec::new(),
            warnings,
        };
        plan.blockers = blockers;
        match (frozen, source.despite_freeze) {
            (Some(freeze), None) => plan.blockers.push(format!(
                "{freeze}; `towpath deploy {} --despite-freeze REASON` deploys all the same, and says so in the history",
                plan.environment
            )),
            (Some(freeze), Some(reason)) => plan.warnings.push(format!("{freeze}; deployed all the same: {reason}")),
            (None, _) => {}
        }
        self.complete(&mut plan, runs.as_ref()).await?;
        Ok(plan)
    }

    /// Finishes a plan whose objects are decided: what its pods read, what stands in its way, what it would change.
    pub(crate) async fn complete(&self, plan: &mut Plan, runs: Option<&Plan>) -> Result<(), ControlError> {
        let environment = plan.target()?;
        if let Some(blocker) = self.missing_image(&plan.image).await {
            plan.blockers.push(blocker);
        }
        let fingerprints = self
            .target
            .fingerprints(&environment, &plan.objects)
            .await
            .map_err(target_error)?
            .with_config_maps(&plan.objects);
        with_config_hash(&mut plan.objects, &fingerprints);
        sort_for_apply(&mut plan.objects);
        // Of a file that cannot be read it is not known what it brings.
        let prune = match plan.blockers.is_empty() {
            true => self.to_prune(&environment, &plan.objects).await?,
            false => Vec::new(),
        };
        let preflight = self
            .target
            .preflight(&environment, &plan.objects, &prune)
            .await
            .map_err(target_error)?;
        for finding in &preflight.findings {
            match finding.severity {
                Severity::Refused => plan.blockers.push(finding.to_string()),
                Severity::Note => plan.warnings.push(finding.to_string()),
            }
        }
        let changes = preflight.changes.unwrap_or_else(|| {
            let before = runs.map(|runs| runs.objects.as_slice()).unwrap_or_default();
            diff(before, &plan.objects, &|bytes| {
                self.vault.fingerprint_bytes(bytes).to_string()
            })
        });
        (plan.changes, plan.unchanged) = plan_changes(changes);
        plan.name()
    }

    /// Whether pods that run `image` can pull it only with a Secret that Towpath brings them.
    pub(crate) fn brings_pull_secret(&self, image: &ImageReference) -> bool {
        matches!(self.settings.target, TargetSettings::Kubernetes(_))
            && image.registry.as_deref() == Some(&self.registry_name())
    }

    /// What is to be said when the registry does not have a pinned image.
    async fn missing_image(&self, image: &ImageReference) -> Option<String> {
        let digest = image.digest.as_ref()?;
        let there = if image.registry.as_deref() == Some(&self.registry_name()) {
            let name: RepositoryName = image.repository.parse().ok()?;
            self.registry.manifest_exists(&name, digest).await.ok()?
        } else {
            // A registry that cannot be asked has its say when the pods pull.
            let client = client_of(image.registry.as_deref()?).await.ok()?;
            client.resolve(image).await.ok()?.is_some()
        };
        (!there).then(|| {
            format!(
                "the registry has no `{image}`: it was removed there; build the commit again, or take a newer release"
            )
        })
    }

    /// Whether nothing is to be deployed now: until when, and why. The default branch has the word, for whoever deploys
    /// another commit shall not lift the freeze with it; a repository that is not known here speaks for itself.
    pub(crate) async fn frozen(
        &self,
        project: &str,
        environment: &str,
        otherwise: Option<&ProjectFile>,
    ) -> Result<Option<String>, ControlError> {
        let known = self.default_project_file(project).await?;
        let Some(file) = known.or_else(|| otherwise.cloned()) else {
            return Ok(None);
        };
        let now = jiff::Timestamp::now();
        let ends = file
            .freeze
            .iter()
            .filter_map(|freeze| Some((freeze.ends(environment, now)?, freeze)));
        Ok(ends.max_by_key(|(ends, _)| *ends).map(|(ends, freeze)| {
            let reason = match freeze.reason.as_str() {
                "" => String::new(),
                reason => format!(" ({reason})"),
            };
            format!("{environment} is frozen until {ends}{reason}")
        }))
    }

    /// The project's file on its default branch, when the repository is here.
    async fn default_project_file(&self, project: &str) -> Result<Option<ProjectFile>, ControlError> {
        let Ok(name) = self.project_name(project) else {
            return Ok(None);
        };
        if !self.forge.exists(&name).await {
            return Ok(None);
        }
        let branch = self.forge.default_branch(&name).await.map_err(forge_error)?;
        let Ok(commit) = self.forge.find(&name, &branch).await else {
            return Ok(None);
        };
        let text = self
            .optional_file(&name, &commit, PROJECT_FILE)
            .await?
            .unwrap_or_default();
        Ok(ProjectFile::parse(&text).ok())
    }

    /// What was applied in an environment and is not among `objects`.
    pub(crate) async fn to_prune(
        &self,
        environment: &Environment,
        objects: &[Object],
    ) -> Result<Vec<ObjectId>, ControlError> {
        let wanted: BTreeSet<ObjectId> = objects.iter().map(Object::id).collect();
        let current = self.target.current(environment).await.map_err(target_error)?;
        let applied = current.into_iter().flat_map(|applied| applied.objects);
        Ok(applied.filter(|id| !wanted.contains(id)).collect())
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
        job: &str,
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
        let files = manifest_files(files);
        let repository = self.image_repository(&record.project, &project_file);
        let image = self.image_of_workflow(record, job, &repository).await?;
        self.make_plan(PlanSource {
            project: record.project.clone(),
            environment: environment.to_string(),
            files,
            project_file,
            image,
            commit: Some(record.commit.clone()),
            on_failure: None,
            despite_freeze: None,
        })
        .await
    }

    /// The image that a workflow's `job` is to deploy: the one that a job before it ran in, if that is of the project's
    /// repository, for that one was tried; else the one that the workflow pushed.
    async fn image_of_workflow(
        &self,
        record: &Arc<WorkflowRecord>,
        job: &str,
        repository: &ImageReference,
    ) -> Result<ImageReference, ControlError> {
        let is_of_it = |image: &ImageReference| {
            image.registry == repository.registry && image.repository == repository.repository && image.digest.is_some()
        };
        let before: Vec<String> = {
            let live = self.live(record.id).await?;
            let live = live.lock().await;
            let ancestors = live.state.definition().ancestors(job);
            ancestors.into_iter().rev().map(|(name, _)| name).collect()
        };
        for name in before {
            let Some(known) = record.named(&name) else { continue };
            let image: Option<String> = self.document(collection::JOB_IMAGES, &known.id.to_string()).await?;
            let image = image.and_then(|text| text.parse::<ImageReference>().ok());
            if let Some(image) = image.filter(|image| is_of_it(image)) {
                return pinned(image);
            }
        }
        let known: Option<WorkflowImages> = self.document(collection::IMAGES, &record.id.to_string()).await?;
        let mut images = known.unwrap_or_default().images;
        images.extend(self.pushed_elsewhere(record, repository, &images).await);
        images.retain(is_of_it);
        let by_commit = |image: &&ImageReference| {
            let tag = image.tag.as_deref();
            tag.is_some_and(|tag| tag.ends_with(record.commit.as_str()))
        };
        let digests: BTreeSet<&Digest> = images.iter().filter_map(|image| image.digest.as_ref()).collect();
        let found = match digests.len() {
            1 => images.first(),
            _ => images.iter().find(by_commit),
        };
        if let Some(image) = found {
            return pinned(image.clone());
        }
        let tags: Vec<String> = images
            .iter()
            .filter_map(|image| Some(format!("`{}`", image.tag.as_ref()?)))
            .collect();
        Err(ControlError::conflict(match tags.as_slice() {
            [] if repository.registry.as_deref() == Some(&self.registry_name()) => format!(
                "this workflow pushed no image of `{}`, so there is nothing to deploy",
                repository.repository
            ),
            [] => format!(
                "`{}` has no image tagged {}, so there is nothing to deploy",
                repository.name(),
                self.tags_of(record).await.join(" or ")
            ),
            tags => format!(
                "this workflow pushed several images of `{}` ({}), and none of them with its commit in the tag: run a job in the one that is \
                 to be deployed, or tag it `app-$CIRCLE_SHA1`",
                repository.repository,
                tags.join(", ")
            ),
        }))
    }

    /// The images of a workflow in a registry that does not tell Towpath of pushes: by the tags that name its commit, those
    /// left out that are known.
    async fn pushed_elsewhere(
        &self,
        record: &WorkflowRecord,
        repository: &ImageReference,
        known: &[ImageReference],
    ) -> Vec<ImageReference> {
        let mut found = Vec::new();
        if repository.registry.as_deref() == Some(&self.registry_name()) {
            return found;
        }
        let tags = self.tags_of(record).await;
        let is_it = |image: &ImageReference| {
            image.registry == repository.registry
                && image.repository == repository.repository
                && image.tag.as_ref().is_some_and(|tag| tags.contains(tag))
        };
        // One is enough, and a registry is not asked again each time that somebody looks at a gate.
        if known.iter().any(is_it) {
            return found;
        }
        for text in &tags {
            let Ok(tag) = text.parse::<TagName>() else { continue };
            match self.resolve(repository, &tag).await {
                Ok(Some(digest)) => {
                    found.push(ImageReference {
                        tag: Some(text.clone()),
                        digest: Some(digest),
                        ..repository.clone()
                    });
                    return found;
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(error = error.chain(), "another registry is not asked for an image"),
            }
        }
        found
    }

    /// The plan of a laptop's request.
    pub(crate) async fn plan_of_request(
        &self,
        project: &str,
        environment: &str,
        request: LaptopRequest,
    ) -> Result<Plan, ControlError> {
        let project_file = project_file_of(&request)?;
        let image = match self
            .image_of_request(project, environment, &request, &project_file)
            .await
        {
            Ok(image) => image,
            // An image is missed by nobody where there is no such environment.
            Err(error) => {
                let source = PlanSource {
                    project: project.to_string(),
                    environment: environment.to_string(),
                    files: request.files,
                    image: self.image_repository(project, &project_file),
                    project_file,
                    commit: None,
                    on_failure: None,
                    despite_freeze: None,
                };
                read_manifests(&self.rendered(source).await?.0)?;
                return Err(error);
            }
        };
        let commit = match &request.from {
            Some(from) => self.release_of(project, from).await?.row.commit,
            None => self.commit_of_image(&image, request.commit).await?,
        };
        self.make_plan(PlanSource {
            project: project.to_string(),
            environment: environment.to_string(),
            files: request.files,
            project_file,
            image,
            commit,
            on_failure: request.on_failure,
            despite_freeze: request.despite_freeze,
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
        if let Some(from) = &request.from {
            return Ok(self.release_of(project, from).await?.plan()?.image);
        }
        let Some(word) = &request.tag else {
            let place = self.place(project, environment).await?;
            self.learn_releases(&place).await?;
            let release = self.last_release(&place.id.slug()).await?;
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

    /// The release that an environment runs.
    async fn release_of(&self, project: &str, environment: &str) -> Result<Release, ControlError> {
        let place = self.place(project, environment).await?;
        self.learn_releases(&place).await?;
        let nothing = || {
            ControlError::conflict(format!(
                "nothing was deployed to `{environment}` yet, so nothing can be promoted"
            ))
        };
        self.last_release(&place.id.slug()).await?.ok_or_else(nothing)
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
        let client = client_of(&registry).await.map_err(failed)?;
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

    /// The tags by which an image of a workflow's commit goes, the likeliest first: as Towpath's own builds name it, with the
    /// branch as it is, which is what scripts write, and as the main branch's.
    async fn tags_of(&self, record: &WorkflowRecord) -> Vec<String> {
        let main = format!("{MAIN}-{}", record.commit);
        let Some(branch) = &record.branch else {
            return vec![main];
        };
        let mut tags = Vec::new();
        let main_branch = match self.project_name(&record.project) {
            Ok(project) => self.forge.default_branch(&project).await.unwrap_or_default(),
            Err(_) => String::new(),
        };
        let own = ImageTags::new(branch, &main_branch, &record.commit, Timestamp::now()).commit;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let written: String = branch.chars().map(|c| if plain(c) { c } else { '-' }).collect();
        for tag in [own, format!("{written}-{}", record.commit), main] {
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        tags
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
        let mut new = false;
        let project_file = match self.project_name(&record.project) {
            Ok(project) => self.optional_file(&project, &record.commit, PROJECT_FILE).await?,
            Err(_) => None,
        };
        let project_file = project_file.and_then(|text| ProjectFile::parse(&text).ok());
        let repository = self.image_repository(&record.project, &project_file.unwrap_or_default());
        let elsewhere = self.pushed_elsewhere(record, &repository, &images.images).await;
        new |= !elsewhere.is_empty();
        images.images.extend(elsewhere);
        let mut pushes: Vec<(String, Push)> = Vec::new();
        // Its own jobs' pushes; and those of the project's image with another token.
        for prefix in [format!("{}/", record.id), format!("{}:", repository.repository)] {
            let found: Vec<(String, Push)> = self
                .store
                .documents(collection::PUSHES, &prefix)
                .await
                .map_err(store_error)?;
            pushes.extend(found);
        }
        for (_, push) in pushes {
            let tag = push.image.tag.clone().unwrap_or_default();
            let own = match push.workflow {
                Some(workflow) => workflow == record.id,
                // Pushed with another token than a job is given: its tag tells, and its time.
                None => tag.ends_with(record.commit.as_str()) && push.at >= began,
            };
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

/// A client of another registry than Towpath's own, with what docker on this machine knows of it.
async fn client_of(registry: &str) -> Result<RegistryClient, Box<dyn std::error::Error + Send + Sync>> {
    let credentials = Credentials::of_docker(registry).await?;
    Ok(RegistryClient::new(registry, credentials)?)
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
