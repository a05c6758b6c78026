//! What a repository's manifests have: environments, namespaces, objects, jobs. Pure; Kustomize and Helm have run before.

use crate::{
    error::DeliveryError,
    project_file::{PROJECT_FILE, ProjectFile},
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use towpath_deploy::{
    Environment,
    render::{is_yaml, needs_every_file},
};
use towpath_forge::TreeFile;
use towpath_manifest::{Object, Tree};
use towpath_types::{EnvironmentId, ImageReference, ProjectName};

/// One manifest file, as the command line sends it and as it is read from a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its path from the repository's root.
    pub path: String,
    /// Its content.
    pub text: String,
}

/// The id of an environment, from names that a person wrote.
///
/// # Errors
/// `Invalid`, when one of them cannot name a project or an environment.
pub fn environment_id(project: &str, environment: &str) -> Result<EnvironmentId, DeliveryError> {
    EnvironmentId::new(project, environment).map_err(|error| DeliveryError::invalid(error.to_string()))
}

/// Whether `name` can name a project.
///
/// # Errors
/// `Invalid`, with what a name may look like.
pub fn check_project_name(name: &str) -> Result<(), DeliveryError> {
    let parsed = name.parse::<ProjectName>();
    parsed
        .map(drop)
        .map_err(|error| DeliveryError::invalid(error.to_string()))
}

/// A commit's files as a plan takes them: the YAML files, and with Kustomize or Helm every text file.
pub(crate) fn manifest_files(files: Vec<TreeFile>) -> Vec<ManifestFile> {
    let every = needs_every_file(files.iter().map(|file| file.path.as_str()));
    let text = |file: TreeFile| match (is_yaml(&file.path), String::from_utf8(file.bytes)) {
        (true, Err(error)) => Some((file.path, String::from_utf8_lossy(error.as_bytes()).into_owned())),
        (true, Ok(text)) => Some((file.path, text)),
        // Nothing is rendered from a file that is not text. A program that needs it complains.
        (false, text) => text.ok().filter(|_| every).map(|text| (file.path, text)),
    };
    let files = files.into_iter().filter_map(text);
    files.map(|(path, text)| ManifestFile { path, text }).collect()
}

/// The images, without tag and digest, that the workloads of manifests run, each with the names of its containers.
#[must_use]
pub fn workload_images(files: &[ManifestFile]) -> BTreeMap<String, BTreeSet<String>> {
    let (tree, _) = read_tree(files);
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

fn read_tree(files: &[ManifestFile]) -> (Tree, Vec<String>) {
    let (tree, diagnostics) = Tree::read(files.iter().map(|file| (file.path.as_str(), file.text.as_str())));
    let errors = diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.is_error())
        .map(|diagnostic| diagnostic.render(false))
        .collect();
    (tree, errors)
}

/// The kube context whose folder the project's file names.
fn wanted_kube_context(project_file: &ProjectFile) -> Option<&str> {
    let folder = project_file.manifests.as_deref()?.trim_end_matches('/');
    Some(folder.rsplit('/').next().unwrap_or(folder))
}

/// What to say when an environment's name does not say where the environment is.
pub(crate) fn ambiguous(environment: &str, kube_contexts: &[impl AsRef<str>]) -> DeliveryError {
    let names: Vec<&str> = kube_contexts.iter().map(AsRef::as_ref).collect();
    DeliveryError::invalid(format!(
        "more than one kube context has an environment `{environment}` ({}): say which with `manifests = \".k8s/…\"` in `{PROJECT_FILE}`",
        names.join(", ")
    ))
}

/// The namespace of an environment for which no manifest names one: `claims-{environment}`.
pub(crate) fn namespace_pattern(project: &str, project_file: &ProjectFile) -> String {
    let pattern = project_file.namespace.clone();
    pattern.unwrap_or_else(|| format!("{project}-{{environment}}"))
}

/// Fills in a namespace's pattern, for an environment that is yet to be rendered.
pub(crate) fn fill_in(pattern: &str, kube_context: &str, environment: &str) -> String {
    Tree::default().namespace(kube_context, environment, pattern)
}

/// The namespace of an environment: what the project's file says, or what the manifests name, or the names of the project
/// and the environment.
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

/// The manifests of one environment.
pub(crate) struct Manifests {
    tree: Tree,
    /// Where the environment is.
    pub place: Environment,
    /// What is wrong in any file of the tree, rendered.
    pub errors: Vec<String>,
    /// Objects that name another namespace than the project's file gives their environment; sentences.
    pub misplaced: Vec<String>,
}

impl Manifests {
    /// Finds an environment in the files of a repository.
    ///
    /// # Errors
    /// `NotFound` when there is no such environment, `Invalid` when several kube contexts have one.
    pub(crate) fn read(
        files: &[ManifestFile],
        project_file: &ProjectFile,
        id: &EnvironmentId,
    ) -> Result<Self, DeliveryError> {
        let (tree, errors) = read_tree(files);
        let has = tree.kube_contexts_of(id.environment());
        let kube_context = match (wanted_kube_context(project_file), has.as_slice()) {
            (Some(wanted), has) if has.contains(&wanted) => wanted.to_string(),
            (None, [only]) => (*only).to_string(),
            (None, [_, _, ..]) => return Err(ambiguous(id.environment(), &has)),
            (Some(_), _) | (None, []) => return Err(no_environment(&tree, project_file, id)),
        };
        let namespace = namespace_in(&tree, &kube_context, id.project(), id.environment(), project_file);
        let mut manifests = Self {
            tree,
            place: Environment {
                id: id.clone(),
                kube_context,
                namespace,
            },
            errors,
            misplaced: Vec::new(),
        };
        if project_file.namespace.is_some() {
            manifests.misplaced = manifests.other_namespaces();
        }
        Ok(manifests)
    }

    fn other_namespaces(&self) -> Vec<String> {
        let Environment {
            id,
            kube_context,
            namespace,
        } = &self.place;
        let Some(found) = self.tree.environment(kube_context, id.environment()) else {
            return Vec::new();
        };
        let is_other = |object: &&Object| object.namespace.as_ref().is_some_and(|named| named != namespace);
        let objects = found.objects.iter().chain(&found.jobs).filter(is_other);
        objects
            .map(|object| {
                format!(
                    "{}: {} is in the namespace `{}`, and `{PROJECT_FILE}` says that {} is in `{namespace}`: leave `metadata.namespace` out",
                    object.place_of("/metadata/namespace"),
                    object.id(),
                    object.namespace.as_deref().unwrap_or_default(),
                    id.environment()
                )
            })
            .collect()
    }

    /// Everything that a release applies, in the order of application.
    pub(crate) fn objects(&self) -> Vec<Object> {
        let place = &self.place;
        let wanted = self
            .tree
            .wanted(&place.kube_context, place.id.environment(), &place.namespace);
        // `read` has found the environment in this tree.
        wanted.unwrap_or_default()
    }

    /// The Job or CronJob that is called `name`, or whose file is, in the environment's namespace.
    ///
    /// # Errors
    /// `Invalid` when a manifest is wrong, `NotFound` when there is no such object; that names those that there are.
    pub(crate) fn job(&self, kind: JobKind, name: &str) -> Result<Object, DeliveryError> {
        if let Some(wrong) = [&self.errors, &self.misplaced]
            .into_iter()
            .find(|wrong| !wrong.is_empty())
        {
            return Err(DeliveryError::invalid(wrong.join("\n")));
        }
        let place = &self.place;
        let objects: Vec<Object> = match kind {
            JobKind::Job => {
                let jobs = self.tree.jobs(&place.kube_context, place.id.environment());
                jobs.into_iter().cloned().collect()
            }
            JobKind::CronJob => self.objects(),
        };
        let objects: Vec<Object> = objects
            .into_iter()
            .filter(|object| object.kind == kind.as_str())
            .collect();
        let stem = |object: &Object| {
            let file = object.place.file.rsplit('/').next().unwrap_or_default();
            file.split('.').next().unwrap_or_default().to_string()
        };
        let found = objects
            .iter()
            .find(|object| object.name == name)
            .or_else(|| objects.iter().find(|object| stem(object) == name));
        let Some(object) = found else {
            // By the names of the objects, which every command knows: one file may hold several.
            let known: BTreeSet<&str> = objects.iter().map(|object| object.name.as_str()).collect();
            let known = if known.is_empty() {
                "there is none".to_string()
            } else {
                format!("there are {}", Vec::from_iter(known).join(", "))
            };
            let environment = place.id.environment();
            return Err(DeliveryError::not_found(format!(
                "`{environment}` has no {} `{name}`: {known}",
                kind.as_str()
            )));
        };
        Ok(object.clone().in_namespace(&place.namespace))
    }
}

/// What runs by its name: once, or by a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Runs once, when somebody asks.
    Job,
    /// Runs by its schedule, and when somebody asks.
    CronJob,
}

impl JobKind {
    /// The kind's name in manifests and in rows.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Job => "Job",
            Self::CronJob => "CronJob",
        }
    }
}

fn no_environment(tree: &Tree, project_file: &ProjectFile, id: &EnvironmentId) -> DeliveryError {
    let environment = id.environment();
    let wanted = wanted_kube_context(project_file);
    let is_wanted = |name: &str| wanted.is_none_or(|wanted| wanted == name);
    let folder = project_file.manifests.as_deref();
    if let Some(folder) = folder.filter(|_| !tree.kube_contexts.keys().any(|name| is_wanted(name))) {
        return DeliveryError::not_found(format!(
            "there is no environment `{environment}`: `{PROJECT_FILE}` says `manifests = \"{folder}\"`, and there are none in that folder"
        ));
    }
    let contexts = tree.kube_contexts.iter().filter(|(name, _)| is_wanted(name));
    let known: BTreeSet<&str> = contexts
        .flat_map(|(_, context)| context.environments.keys().map(String::as_str))
        .collect();
    let known = if known.is_empty() {
        "there are no manifests below `.k8s/`".into()
    } else {
        format!("there are {}", Vec::from_iter(known).join(", "))
    };
    DeliveryError::not_found(format!("there is no environment `{environment}`: {known}"))
}

/// Where an environment is, as manifests say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// There.
    At(Environment),
    /// Several kube contexts have an environment of this name.
    Ambiguous(Vec<String>),
}

/// Every environment of a project's manifests, by id.
///
/// A folder whose name cannot name an environment is left out here. Whoever deploys to it is told why.
pub(crate) fn environments_in(
    project: &str,
    files: &[ManifestFile],
    project_file: &ProjectFile,
) -> BTreeMap<EnvironmentId, Whereabouts> {
    let (tree, _) = read_tree(files);
    let wanted = wanted_kube_context(project_file);
    let mut environments = BTreeMap::new();
    for (kube_context, context) in &tree.kube_contexts {
        if wanted.is_some_and(|wanted| wanted != kube_context) {
            continue;
        }
        let named = context
            .environments
            .keys()
            .filter_map(|name| Some((name, EnvironmentId::new(project, name).ok()?)));
        for (name, id) in named {
            let has = tree.kube_contexts_of(name);
            let whereabouts = if wanted.is_none() && has.len() > 1 {
                Whereabouts::Ambiguous(has.into_iter().map(str::to_string).collect())
            } else {
                Whereabouts::At(Environment {
                    id: id.clone(),
                    kube_context: kube_context.clone(),
                    namespace: namespace_in(&tree, kube_context, project, name, project_file),
                })
            };
            environments.insert(id, whereabouts);
        }
    }
    environments
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::error::ErrorKind;

    fn file(path: &str, text: &str) -> ManifestFile {
        ManifestFile {
            path: path.into(),
            text: text.into(),
        }
    }

    fn deployment(name: &str, namespace: &str) -> String {
        let namespace = match namespace {
            "" => String::new(),
            namespace => format!("\n  namespace: {namespace}"),
        };
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: {name}{namespace}\nspec:\n  template:\n    spec:\n      containers:\n        - name: app\n          image: {name}\n"
        )
    }

    fn id(environment: &str) -> EnvironmentId {
        EnvironmentId::new("claims", environment).unwrap()
    }

    fn project_file(text: &str) -> ProjectFile {
        ProjectFile::parse(text).unwrap()
    }

    fn refused(files: &[ManifestFile], file: &str, environment: &str) -> DeliveryError {
        Manifests::read(files, &project_file(file), &id(environment))
            .err()
            .unwrap()
    }

    #[test]
    fn an_environment_is_found_in_the_only_kube_context_that_has_it() {
        let files = [
            file(".k8s/live/dev/web.yaml", &deployment("web", "")),
            file(".k8s/old/qa/web.yaml", &deployment("web", "elsewhere")),
        ];
        let dev = Manifests::read(&files, &ProjectFile::default(), &id("dev")).unwrap();
        assert_eq!(
            (dev.place.kube_context.as_str(), dev.place.namespace.as_str()),
            ("live", "claims-dev")
        );
        assert_eq!(dev.objects().len(), 1);
        let qa = Manifests::read(&files, &ProjectFile::default(), &id("qa")).unwrap();
        assert_eq!(qa.place.namespace, "elsewhere");
    }

    #[test]
    fn an_ambiguous_name_is_refused_until_the_project_file_says_which() {
        let files = [
            file(".k8s/live/dev/web.yaml", &deployment("web", "")),
            file(".k8s/old/dev/web.yaml", &deployment("web", "")),
        ];
        let error = refused(&files, "", "dev");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("(live, old)"), "{error}");
        let file = project_file("manifests = \".k8s/old/\"");
        let found = Manifests::read(&files, &file, &id("dev")).unwrap();
        assert_eq!(found.place.kube_context, "old");
        let all = environments_in("claims", &files, &ProjectFile::default());
        assert_eq!(
            all[&id("dev")],
            Whereabouts::Ambiguous(vec!["live".into(), "old".into()])
        );
        let told = environments_in("claims", &files, &file);
        assert!(matches!(&told[&id("dev")], Whereabouts::At(place) if place.kube_context == "old"));
    }

    #[test]
    fn a_missing_environment_is_answered_with_those_that_there_are() {
        let files = [
            file(".k8s/live/dev/web.yaml", &deployment("web", "")),
            file(".k8s/live/staging/web.yaml", &deployment("web", "")),
        ];
        let error = refused(&files, "", "nosuch");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(
            error.to_string(),
            "there is no environment `nosuch`: there are dev, staging"
        );
        let error = refused(&[], "", "dev").to_string();
        assert_eq!(
            error,
            "there is no environment `dev`: there are no manifests below `.k8s/`"
        );
        let error = refused(&files, "manifests = \".k8s/other\"", "dev").to_string();
        assert!(error.contains("says `manifests = \".k8s/other\"`"), "{error}");
    }

    #[test]
    fn an_object_in_another_namespace_than_the_project_file_says_is_named_with_its_place() {
        let files = [file(".k8s/live/dev/web.yaml", &deployment("web", "other"))];
        let pattern = project_file("namespace = \"c-{environment}-{kube_context}\"");
        let manifests = Manifests::read(&files, &pattern, &id("dev")).unwrap();
        assert_eq!(manifests.place.namespace, "c-dev-live");
        let [misplaced] = manifests.misplaced.as_slice() else {
            panic!("{:?}", manifests.misplaced)
        };
        assert!(
            misplaced.starts_with(".k8s/live/dev/web.yaml:5:") && misplaced.contains("`c-dev-live`"),
            "{misplaced}"
        );
    }

    #[test]
    fn a_job_is_found_by_its_name_or_its_file() {
        let job = "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: claims-migrate\nspec: {}\n";
        let files = [
            file(".k8s/live/dev/web.yaml", &deployment("web", "")),
            file(".k8s/live/jobs/migrate.yaml", job),
        ];
        let manifests = Manifests::read(&files, &ProjectFile::default(), &id("dev")).unwrap();
        for name in ["claims-migrate", "migrate"] {
            let found = manifests.job(JobKind::Job, name).unwrap();
            assert_eq!((found.name.as_str(), found.kind.as_str()), ("claims-migrate", "Job"));
            assert_eq!(
                found
                    .value
                    .pointer("/metadata/namespace")
                    .and_then(|value| value.as_str()),
                Some("claims-dev")
            );
        }
        let error = manifests.job(JobKind::Job, "x").unwrap_err().to_string();
        assert_eq!(error, "`dev` has no Job `x`: there are claims-migrate");
        let error = manifests.job(JobKind::CronJob, "x").unwrap_err().to_string();
        assert_eq!(error, "`dev` has no CronJob `x`: there is none");
    }

    #[test]
    fn with_a_broken_manifest_no_job_runs() {
        let files = [
            file(".k8s/live/dev/web.yaml", "kind: Deployment\n"),
            file(
                ".k8s/live/jobs/migrate.yaml",
                "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: m\n",
            ),
        ];
        let manifests = Manifests::read(&files, &ProjectFile::default(), &id("dev")).unwrap();
        let error = manifests.job(JobKind::Job, "m").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(".k8s/live/dev/web.yaml"), "{error}");
    }

    #[test]
    fn the_images_of_workloads_come_with_their_containers() {
        let files = [file(".k8s/live/dev/web.yaml", &deployment("web", ""))];
        let images = workload_images(&files);
        assert_eq!(images["web"], BTreeSet::from(["app".to_string()]));
    }

    #[test]
    fn only_text_that_may_be_needed_is_taken_from_a_commit() {
        let tree = |path: &str, bytes: &[u8]| TreeFile {
            path: path.into(),
            bytes: bytes.to_vec(),
        };
        let plain = manifest_files(vec![tree(".k8s/a/b/x.yaml", b"a"), tree(".k8s/a/b/notes.txt", b"b")]);
        assert_eq!(plain, [file(".k8s/a/b/x.yaml", "a")]);
        let with_helm = manifest_files(vec![
            tree(".k8s/a/b/Chart.yaml", b"name: x\nversion: 1\napiVersion: v2\n"),
            tree(".k8s/a/b/templates/_helpers.tpl", b"b"),
            tree(".k8s/a/b/logo.png", b"\xff\xfe"),
        ]);
        let paths: Vec<&str> = with_helm.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, [".k8s/a/b/Chart.yaml", ".k8s/a/b/templates/_helpers.tpl"]);
    }
}
