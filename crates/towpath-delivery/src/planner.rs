//! Makes plans: reads manifests, pins images, and asks the target what would change.

use crate::{
    error::DeliveryError,
    freeze::{Frozen, frozen},
    history::History,
    image::{
        ImageFinder,
        finder::{Chosen, ImageMap},
        project::{Needed, ProjectImages, runs_of},
        with_found_image,
    },
    manifests::{Manifests, Source, fill_in, namespace_pattern},
    occasion::{HelmTraces, Known},
    plan::{Plan, PlanChange, PlanHooks},
    project_file::{OnFailure, ProjectFile},
    protection::{Protections, Way},
    repository::{Repositories, project_name},
    request::LaptopRequest,
    run_name::as_run,
    workflow::WorkflowJobs,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use towpath_deploy::{
    Environment, HelmRelease, PULL_SECRET, Severity, Target,
    render::{Renderer, release_name},
};
use towpath_manifest::{
    Container, DeclaredBy, ManifestFile, Object, ObjectId, diff, sort_for_apply, with_config_hash, with_images,
    with_pull_secret,
};
use towpath_types::{Clock, CommitId, EnvironmentId, RunKind};

/// Replaces a Secret's value by a fingerprint: the same for equal values, and revealing nothing about them.
pub type Fingerprinter = Arc<dyn Fn(&[u8]) -> String + Send + Sync>;

/// Whether pods need a Secret from Towpath to pull from Towpath's own registry. On a cluster they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullSecret {
    /// Towpath adds one.
    Brought,
    /// Towpath passes the credentials to this machine's engine directly.
    NotNeeded,
}

/// The inputs of a plan.
pub(crate) struct PlanSource {
    pub manifests: Manifests,
    pub project_file: ProjectFile,
    /// The images that the project has.
    pub known: ProjectImages,
    /// The images of the release.
    pub chosen: Chosen,
    pub commit: Option<CommitId>,
    /// Overrides the project file.
    pub on_failure: Option<OnFailure>,
    /// The reason to deploy in spite of a freeze.
    pub despite_freeze: Option<String>,
}

/// A Job or CronJob from a request, ready to run.
pub(crate) struct NamedObject {
    pub object: Object,
    pub place: Environment,
    pub project_file: ProjectFile,
    pub images: ImageMap,
    pub commit: Option<CommitId>,
}

/// Makes plans.
#[derive(Clone)]
pub struct Planner {
    pub(crate) target: Arc<dyn Target>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) renderer: Arc<Renderer>,
    pub(crate) fingerprint: Fingerprinter,
    pub(crate) pull_secret: PullSecret,
    pub(crate) repositories: Repositories,
    pub(crate) images: ImageFinder,
    pub(crate) history: History,
    pub(crate) protections: Protections,
}

impl Planner {
    /// The plan of the job `job` of a workflow, or of the gate `job` in front of it: the manifests at the workflow's
    /// commit, and the image that the workflow built.
    ///
    /// # Errors
    /// `Conflict` when the workflow has no image to deploy, `Invalid` when a file of the commit is wrong, `NotFound`
    /// when there is no such environment.
    pub async fn plan_of_workflow(
        &self,
        workflow: &WorkflowJobs,
        job: &str,
        id: &EnvironmentId,
    ) -> Result<Plan, DeliveryError> {
        let (project, commit) = (&workflow.row.project, &workflow.row.commit);
        let project_file = self.repositories.project_file(project, commit).await?;
        let files = self
            .repositories
            .manifests(project, commit, &project_file.layout)
            .await?;
        let project_file = with_found_image(project_file, project.as_str(), &files);
        let manifests = self.manifests(id, files, &project_file).await?;
        let (known, needed) = self.images_of(&manifests, &project_file)?;
        let chosen = self
            .images
            .of_workflow(workflow, job, &manifests.place, &needed)
            .await?;
        let source = PlanSource {
            manifests,
            project_file,
            known,
            chosen,
            commit: Some(commit.clone()),
            on_failure: None,
            despite_freeze: None,
        };
        let mut plan = self.plan(source).await?;
        let way = Way::Pipeline(self.protections.reach(project, commit).await?);
        plan.blockers.extend(self.protections.why_not(&plan, &way).await?);
        Ok(plan)
    }

    /// The plan of a laptop's request: a deployment of a tag, or a promotion.
    ///
    /// # Errors
    /// When no plan can be made, for example because the environment or the tag is unknown.
    pub async fn plan_of_request(&self, id: &EnvironmentId, request: LaptopRequest) -> Result<Plan, DeliveryError> {
        let project_file = with_found_image(request.parsed_project_file()?, id.project(), &request.files);
        let manifests = self.manifests(id, request.files.clone(), &project_file).await?;
        let (known, needed) = self.images_of(&manifests, &project_file)?;
        let chosen = self.images.of_request(&manifests.place, &request, &needed).await?;
        let commit = match &request.from {
            Some(from) => self.images.release_to_promote(id, from).await?.commit,
            None => self.images.commit_of(&chosen.images, request.commit).await?,
        };
        let source = PlanSource {
            manifests,
            project_file: project_file.clone(),
            known,
            chosen,
            commit,
            on_failure: request.on_failure,
            despite_freeze: request.despite_freeze,
        };
        let mut plan = self.plan(source).await?;
        plan.warnings
            .extend(out_of_order(id, request.from.as_deref(), &project_file));
        plan.warnings
            .extend(self.protections.unmerged(&plan, &project_file).await?);
        Ok(plan)
    }

    /// The project's images, and those that an environment needs: what it runs, and what its Jobs do.
    fn images_of(&self, manifests: &Manifests, file: &ProjectFile) -> Result<(ProjectImages, Needed), DeliveryError> {
        let objects = [manifests.objects(), manifests.jobs()].concat();
        let known = self
            .images
            .of_project(manifests.place.id.project(), file, &runs_of(&objects))?;
        let needed = known.needed(&objects);
        Ok((known, needed))
    }

    /// Makes the plan of `source` against what runs now.
    pub(crate) async fn plan(&self, source: PlanSource) -> Result<Plan, DeliveryError> {
        let (file, manifests, known) = (&source.project_file, source.manifests, &source.known);
        let (id, images) = (manifests.place.id.clone(), source.chosen.all());
        let mut warnings = manifests.warnings.clone();
        let mut blockers = manifests.errors.clone();
        blockers.extend(manifests.misplaced.iter().cloned());
        warnings.extend(manifests.jobs_apart());
        let is_whole = blockers.is_empty();
        let mut objects = manifests.objects();
        // Hooks get their images as the other objects do.
        let mut hooks = manifests.hooks();
        let applied = objects.len();
        objects.append(&mut hooks);
        blockers.extend(known.ambiguous(&objects));
        warnings.extend(known.unused(&images, id.environment()));
        warnings.extend(source.chosen.notes);
        let third_party = self.images.third_party(known.third_party(&objects)).await;
        warnings.extend(self.put_images(&mut objects, &images, known)?);
        let hooks = objects.split_off(applied);
        let place = manifests.place;
        if let Some(freeze) = self.frozen(&id, Some(file)).await? {
            match &source.despite_freeze {
                None => blockers.push(format!(
                    "{freeze}; `towpath deploy {} --despite-freeze REASON` deploys all the same, and the history says so",
                    id.environment()
                )),
                Some(reason) => warnings.push(format!("{freeze}; deployed all the same: {reason}")),
            }
        }
        self.history.learn(&place).await?;
        let previous = self.history.last(&id).await?;
        let runs = match &previous {
            Some(previous) => Some(self.history.plan_of(previous).await?),
            None => None,
        };
        let commits = match &source.commit {
            Some(commit) => {
                let from = previous.as_ref().and_then(|release| release.commit.as_ref());
                let project = project_name(id.project())?;
                self.repositories.commits_since(&project, from, commit).await
            }
            None => Vec::new(),
        };
        warnings.extend(runs.as_ref().and_then(|runs| moved(&runs.place, &place)));
        let helm = self.target.helm_releases(&place).await?;
        warnings.extend(helm.iter().flatten().map(|release| kept_release(&place, release)));
        let known = match &previous {
            Some(_) => Known::Installed,
            None if hooks.is_empty() => Known::New,
            None => HelmTraces {
                recorded: helm.as_deref(),
                release: &release_of(&id, file),
                has_deployed: self.target.has_helm_deployed(&place, &objects).await?,
            }
            .known(),
        };
        warnings.extend(known.warning(&place.namespace));
        let mut plan = Plan {
            place,
            on_failure: source.on_failure.unwrap_or_else(|| file.on_failure(id.environment())),
            wait: file.wait,
            images,
            parent: previous.as_ref().map(|release| release.id),
            previous_images: runs.as_ref().map(|runs| runs.images.clone()).unwrap_or_default(),
            commit: source.commit,
            commits,
            third_party,
            objects,
            changes: Vec::new(),
            unchanged: 0,
            hooks: PlanHooks {
                occasion: known.occasion(),
                jobs: hooks,
            },
            blockers,
            warnings,
        };
        self.complete(&mut plan, runs.as_ref(), is_whole).await?;
        Ok(plan)
    }

    /// Sets the images of the containers that run them. Returns warnings.
    fn put_images(
        &self,
        objects: &mut [Object],
        images: &ImageMap,
        known: &ProjectImages,
    ) -> Result<Vec<String>, DeliveryError> {
        let is_run = known.needed(&*objects).is_run;
        let image_of = |container: &Container| images.get(known.owner(container).ok()??);
        with_images(objects, image_of).map_err(|error| {
            DeliveryError::internal("an image without a digest was to be deployed").caused_by(error)
        })?;
        let mut warnings = Vec::new();
        if let (false, Some(only)) = (is_run, images.values().next()) {
            warnings.push(format!(
                "no container's image is called `{}`, so nothing here runs the new image",
                only.repository
            ));
        }
        for image in images.values() {
            if self.pull_secret == PullSecret::Brought && self.images.is_own(image) {
                with_pull_secret(objects, image, PULL_SECRET);
            }
        }
        Ok(warnings)
    }

    /// Completes a plan whose objects are decided: what its pods read, its blockers, its changes. `runs` is the plan of
    /// the running release. If the list of objects is incomplete, no object is known to have left the manifests.
    pub(crate) async fn complete(
        &self,
        plan: &mut Plan,
        runs: Option<&Plan>,
        is_whole: bool,
    ) -> Result<(), DeliveryError> {
        for image in plan.images.values() {
            plan.blockers.extend(self.images.missing(image).await);
        }
        let place = plan.place.clone();
        let fingerprints = self.target.fingerprints(&place, &plan.objects).await?;
        let fingerprints = fingerprints.with_config_maps(&plan.objects);
        with_config_hash(&mut plan.objects, &fingerprints);
        sort_for_apply(&mut plan.objects);
        let prune = match is_whole {
            true => to_prune(self.target.as_ref(), &place, &plan.objects).await?,
            false => Vec::new(),
        };
        let hooks = as_trials(plan);
        let checked = [plan.objects.as_slice(), hooks.as_slice()].concat();
        let mut preflight = self.target.preflight(&place, &checked, &prune).await?;
        if let Some(changes) = &mut preflight.changes {
            let hooks: BTreeSet<ObjectId> = hooks.iter().map(Object::id).collect();
            changes.retain(|change| !hooks.contains(&change.id));
        }
        for finding in &preflight.findings {
            match finding.severity {
                Severity::Refused => plan.blockers.push(finding.to_string()),
                Severity::Note => plan.warnings.push(finding.to_string()),
            }
        }
        let changes = preflight.changes.unwrap_or_else(|| {
            let before = runs.map(|runs| runs.objects.as_slice()).unwrap_or_default();
            let wanted: BTreeSet<ObjectId> = plan.objects.iter().map(Object::id).collect();
            let stays_known = |object: &&Object| is_whole || wanted.contains(&object.id());
            let before: Vec<Object> = before.iter().filter(stays_known).cloned().collect();
            diff(&before, &plan.objects, &|bytes| (self.fingerprint)(bytes))
        });
        (plan.changes, plan.unchanged) = PlanChange::of(changes);
        Ok(())
    }

    /// The freeze that an environment is in now.
    ///
    /// The default branch decides, so that deploying another commit cannot lift the freeze. `otherwise` decides for a
    /// project without a repository here.
    pub(crate) async fn frozen(
        &self,
        id: &EnvironmentId,
        otherwise: Option<&ProjectFile>,
    ) -> Result<Option<Frozen>, DeliveryError> {
        let known = self
            .repositories
            .default_project_file(&project_name(id.project())?)
            .await?;
        let file = known.as_ref().or(otherwise);
        Ok(file.and_then(|file| frozen(&file.freeze, id.environment(), self.clock.now())))
    }

    /// The manifests of an environment, with the output of Kustomize and Helm in place of their inputs.
    async fn manifests(
        &self,
        id: &EnvironmentId,
        files: Vec<ManifestFile>,
        project_file: &ProjectFile,
    ) -> Result<Manifests, DeliveryError> {
        let unread = Source::unread_of(&files);
        let pattern = namespace_pattern(id.project(), project_file);
        let rendered = self
            .renderer
            .render(
                files,
                &project_file.layout,
                id.project(),
                Some(id.environment()),
                |kube_context, environment| fill_in(&pattern, kube_context, environment),
            )
            .await;
        Manifests::read(&Source::new(unread, rendered), project_file, id)
    }

    /// The Job or CronJob that a request names, with the project's images.
    ///
    /// # Errors
    /// `NotFound` when there is none of the name; `Invalid` when the request names none, or a manifest is wrong.
    pub(crate) async fn named_object(
        &self,
        id: &EnvironmentId,
        request: LaptopRequest,
        kind: RunKind,
    ) -> Result<NamedObject, DeliveryError> {
        let project_file = with_found_image(request.parsed_project_file()?, id.project(), &request.files);
        let Some(name) = request.name.clone() else {
            return Err(DeliveryError::invalid(format!(
                "the request names no {}",
                kind.as_str()
            )));
        };
        let manifests = self.manifests(id, request.files.clone(), &project_file).await?;
        let (known, _) = self.images_of(&manifests, &project_file)?;
        let mut objects = [manifests.job(kind, &name)?];
        let ambiguous = known.ambiguous(&objects);
        if !ambiguous.is_empty() {
            return Err(DeliveryError::invalid(ambiguous.join("\n")));
        }
        let needed = known.needed(&objects);
        let chosen = self.images.of_request(&manifests.place, &request, &needed).await?;
        let commit = self.images.commit_of(&chosen.images, request.commit.clone()).await?;
        let images = chosen.all();
        self.put_images(&mut objects, &images, &known)?;
        let [object] = objects;
        Ok(NamedObject {
            object,
            place: manifests.place,
            project_file,
            images,
            commit,
        })
    }

    /// The plan of running or applying a single object outside of releases.
    pub(crate) fn plan_of_object(&self, named: &NamedObject) -> Plan {
        let objects = vec![named.object.clone()];
        let (changes, _) = PlanChange::of(diff(&[], &objects, &|bytes| (self.fingerprint)(bytes)));
        Plan {
            place: named.place.clone(),
            on_failure: OnFailure::Stop,
            wait: named.project_file.wait,
            images: named.images.clone(),
            parent: None,
            previous_images: ImageMap::new(),
            commit: named.commit.clone(),
            commits: Vec::new(),
            third_party: BTreeMap::new(),
            objects,
            changes,
            unchanged: 0,
            hooks: PlanHooks::default(),
            blockers: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The reasons why one object cannot run or be applied; sentences.
    pub(crate) async fn blockers(&self, place: &Environment, object: &Object) -> Result<Vec<String>, DeliveryError> {
        let preflight = self.target.preflight(place, std::slice::from_ref(object), &[]).await?;
        Ok(preflight.refused().map(ToString::to_string).collect())
    }

    /// The image of an object's first container.
    pub(crate) fn first_image(object: &Object) -> String {
        let first = towpath_manifest::containers(object).into_iter().next();
        first.map(|container| container.image).unwrap_or_default()
    }
}

/// A sentence about a promotion from another environment than the one that `towpath.toml` says.
fn out_of_order(id: &EnvironmentId, from: Option<&str>, file: &ProjectFile) -> Option<String> {
    let environment = id.environment();
    let after = file.layout.environments.get(environment)?.after.as_ref()?;
    let from = from.filter(|from| *from != after.value)?;
    Some(format!(
        "{environment} comes after {} ({}), and this promotes from {from}",
        after.value,
        after.span.place()
    ))
}

/// The name under which Helm would have a release of an environment's chart.
fn release_of(id: &EnvironmentId, file: &ProjectFile) -> String {
    let said = file.layout.environments.get(id.environment());
    let said = match said.and_then(|said| said.source.as_ref()).map(|source| &source.by) {
        Some(DeclaredBy::Chart { release, .. }) => release.clone(),
        Some(DeclaredBy::Nothing | DeclaredBy::Kustomize) | None => None,
    };
    said.unwrap_or_else(|| release_name(id.project()))
}

/// A sentence about an environment that was somewhere else.
fn moved(from: &Environment, to: &Environment) -> Option<String> {
    let (what, before, now) = if from.kube_context != to.kube_context {
        ("kube context", &from.kube_context, &to.kube_context)
    } else if from.namespace != to.namespace {
        ("namespace", &from.namespace, &to.namespace)
    } else {
        return None;
    };
    Some(format!(
        "`{}` moves from the {what} `{before}` to `{now}`: everything is created there, and what runs in `{before}` stays until \
         somebody deletes it",
        to.id.environment()
    ))
}

fn kept_release(place: &Environment, release: &HelmRelease) -> String {
    let HelmRelease {
        name,
        revision,
        status,
        revisions,
    } = release;
    let namespace = &place.namespace;
    format!(
        "Helm has recorded its release `{name}` here (revision {revision}, {status}; Secrets: {revisions}). Towpath keeps that record. \
         When nobody uses `helm` here any more: `kubectl --namespace {namespace} delete secret --selector owner=helm,name={name}`"
    )
}

/// The hooks that a plan runs, under names that nothing has, so that a target can try them.
fn as_trials(plan: &Plan) -> Vec<Object> {
    let runs = plan.hooks.before().into_iter().map(|hook| (hook, "before"));
    let runs = runs.chain(plan.hooks.after().into_iter().map(|hook| (hook, "after")));
    let trial = |((_, mut job), when): ((_, Object), &str)| {
        as_run(&mut job, &format!("try-{when}"));
        job
    };
    runs.map(trial).collect()
}

/// The objects that were applied in an environment and are not among `objects`.
pub(crate) async fn to_prune(
    target: &dyn Target,
    place: &Environment,
    objects: &[Object],
) -> Result<Vec<ObjectId>, DeliveryError> {
    let wanted: BTreeSet<ObjectId> = objects.iter().map(Object::id).collect();
    let applied = target
        .current(place)
        .await?
        .into_iter()
        .flat_map(|applied| applied.objects);
    Ok(applied.filter(|id| !wanted.contains(id)).collect())
}
