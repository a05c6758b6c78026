//! Reads a repository's manifests: environments, namespaces, objects, jobs. Pure; Kustomize and Helm have run before.

use crate::{
    error::DeliveryError,
    project_file::{PROJECT_FILE, ProjectFile},
};
use std::collections::{BTreeMap, BTreeSet};
use towpath_deploy::{
    Environment,
    render::{RenderFailure, Rendered, is_yaml},
};
use towpath_forge::{TreeEntry, TreeFile};
use towpath_manifest::{
    DOT_K8S, EnvironmentLayout, Layout, ListedPath, ManifestContent, ManifestFile, Named, Object, Reading, Tree,
};
use towpath_types::{EnvironmentId, ProjectName, RunKind, with_causes};

/// The id of an environment, from names that a person wrote.
///
/// # Errors
/// `Invalid` when one of them is not a valid name for a project or an environment.
pub fn environment_id(project: &str, environment: &str) -> Result<EnvironmentId, DeliveryError> {
    EnvironmentId::new(project, environment).map_err(|error| DeliveryError::invalid(error.to_string()))
}

/// Checks that `name` is a valid project name.
///
/// # Errors
/// `Invalid`, with the rules for names.
pub fn check_project_name(name: &str) -> Result<(), DeliveryError> {
    let parsed = name.parse::<ProjectName>();
    parsed
        .map(drop)
        .map_err(|error| DeliveryError::invalid(error.to_string()))
}

/// Keeps the entries at and below `places` that a plan needs.
pub fn select_manifests(places: &BTreeSet<String>, entries: &mut Vec<TreeEntry>) {
    Reading::keeps(places, entries, |entry| &entry.path, |entry| entry.found.is_err());
}

/// Converts a tree's entry for the search for environments.
#[must_use]
pub fn listed_path(entry: TreeEntry) -> ListedPath {
    ListedPath {
        is_unread: entry.found.is_err(),
        path: entry.path,
    }
}

/// Converts a tree's files for a plan, unreadable ones included. Commits and working trees share this function.
#[must_use]
pub fn manifest_files(files: Vec<TreeFile>) -> Vec<ManifestFile> {
    let content = |path: &str, bytes: Vec<u8>| match is_yaml(path) {
        true => match towpath_forge::text(bytes) {
            Ok(text) => ManifestContent::Text(text),
            Err(why) => ManifestContent::Unread(why.to_string()),
        },
        false => match String::from_utf8(bytes) {
            Ok(text) => ManifestContent::Text(text),
            Err(error) => ManifestContent::Bytes(error.into_bytes()),
        },
    };
    let file = |file: TreeFile| ManifestFile {
        content: match file.content {
            Ok(bytes) => content(&file.path, bytes),
            Err(why) => ManifestContent::Unread(why.to_string()),
        },
        path: file.path,
    };
    files.into_iter().map(file).collect()
}

/// The files of a repository after rendering.
pub(crate) struct Source {
    rendered: Rendered,
    /// The paths that cannot be read, each with an explanation.
    unread: Vec<(String, String)>,
}

impl Source {
    /// The result of rendering.
    pub(crate) fn new(unread: Vec<(String, String)>, rendered: Rendered) -> Self {
        Self { rendered, unread }
    }

    /// The paths in `files` that cannot be read, each with an explanation.
    pub(crate) fn unread_of(files: &[ManifestFile]) -> Vec<(String, String)> {
        let unread = files.iter().filter_map(|file| Some((file.path.clone(), file.wrong()?)));
        unread.collect()
    }

    /// Returns an error for an environment that could not be rendered.
    fn check_rendering(&self, kube_context: &str, environment: &str) -> Result<(), DeliveryError> {
        let rendered = &self.rendered;
        let layout = &rendered.layout;
        let wrong = rendered.diagnostics.iter().filter(|diagnostic| diagnostic.is_error());
        let wrong = wrong.filter(|diagnostic| layout.concerned_by(kube_context, environment, diagnostic));
        let is_of_it =
            |failure: &&RenderFailure| failure.kube_context == kube_context && failure.environment == environment;
        let failed = rendered.failures.iter().filter(is_of_it);
        let failed = failed.map(|failure| with_causes(&failure.error));
        let wrong: Vec<String> = wrong.map(|diagnostic| diagnostic.render(false)).chain(failed).collect();
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(DeliveryError::invalid(wrong.join("\n"))),
        }
    }

    fn tree(&self) -> (Tree, Vec<towpath_manifest::Diagnostic>) {
        let layout = &self.rendered.layout;
        let texts = self
            .rendered
            .files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()));
        // An unreadable file still belongs to an environment.
        let unread = self.unread.iter().map(|(path, _)| (path.as_str(), ""));
        Tree::read_in(
            layout,
            texts.chain(unread.filter(|(path, _)| layout.reads_as_it_is(path))),
        )
    }

    /// Whether the list of environments is complete. An unreadable folder may hide environments.
    pub(crate) fn knows_environments(&self) -> bool {
        let is_around = |(path, _): &(String, String)| match is_below_k8s(path) {
            true => path.split('/').count() <= 3 && !is_yaml(path),
            false => self.may_be_an_environments(path),
        };
        !self.unread.iter().any(is_around)
    }

    /// Whether an unreadable path outside of `.k8s/` may be what an unknown environment is made from: it may be a folder, or no
    /// known environment needs it.
    fn may_be_an_environments(&self, path: &str) -> bool {
        let layout = &self.rendered.layout;
        let mut known = layout.environments();
        !is_yaml(path) || !known.any(|found| layout.concerns(&found.kube_context.value, &found.name, path))
    }

    /// Unreadable paths that may explain why there is no environment of this name: in its folder, or around it.
    fn unread_around(&self, environment: &str) -> Vec<&str> {
        let is_around = |path: &str| match path.split('/').collect::<Vec<_>>().as_slice() {
            [_] | [_, _] => !is_yaml(path),
            [_, _, name, ..] => *name == environment,
            _ => false,
        };
        let around = self.unread.iter().filter(|(path, _)| match is_below_k8s(path) {
            true => is_around(path),
            false => self.may_be_an_environments(path),
        });
        around.map(|(_, why)| why.as_str()).collect()
    }
}

fn is_below_k8s(path: &str) -> bool {
    path.split('/').next() == Some(DOT_K8S)
}

/// The message when several folders have an environment of this name.
pub(crate) fn ambiguous(environment: &str, folders: &[impl AsRef<str>]) -> DeliveryError {
    let names: Vec<String> = folders.iter().map(|folder| format!("`{}`", folder.as_ref())).collect();
    let first = folders.first().map(AsRef::as_ref).unwrap_or_default();
    DeliveryError::invalid(format!(
        "more than one folder has an environment `{environment}` ({}): say which with `manifests = \"{first}\"` in `{PROJECT_FILE}`",
        names.join(", ")
    ))
}

/// The folders of environments that have the same name.
fn roots(several: &[EnvironmentLayout]) -> Vec<String> {
    several.iter().map(|layout| layout.root.clone()).collect()
}

/// The namespace of an environment for which no manifest names one: `claims-{environment}`.
pub(crate) fn namespace_pattern(project: &str, project_file: &ProjectFile) -> String {
    let pattern = project_file.namespace.clone();
    pattern.unwrap_or_else(|| format!("{project}-{{environment}}"))
}

/// Fills in a namespace's pattern, for an environment that has not been rendered yet.
pub(crate) fn fill_in(pattern: &str, kube_context: &str, environment: &str) -> String {
    Tree::default().namespace(kube_context, environment, pattern)
}

/// The namespace of an environment, from the project file, from the manifests, or from the names of the project and the
/// environment.
fn namespace_in(
    tree: &Tree,
    layout: &Layout,
    kube_context: &str,
    project: &str,
    environment: &str,
    project_file: &ProjectFile,
) -> String {
    let said = layout
        .get(kube_context, environment)
        .and_then(|layout| layout.namespace.as_ref());
    if let Some(said) = said {
        return said.value.clone();
    }
    match &project_file.namespace {
        Some(pattern) => fill_in(pattern, kube_context, environment),
        None => tree.namespace(kube_context, environment, &namespace_pattern(project, project_file)),
    }
}

/// The namespace of an environment as far as it is known before anything is rendered, and where it comes from.
#[must_use]
pub fn namespace_before_rendering(
    layout: &Layout,
    files: &[ManifestFile],
    project: &str,
    file: &ProjectFile,
    environment: &EnvironmentLayout,
) -> (String, String) {
    let (kube_context, name) = (&environment.kube_context.value, &environment.name);
    if let Some(said) = &environment.namespace {
        return (said.value.clone(), said.origin.to_string());
    }
    let texts = files.iter().map(|file| (file.path.as_str(), file.text_or_nothing()));
    let (tree, _) = Tree::read_in(layout, texts.filter(|(path, _)| layout.reads_as_it_is(path)));
    let found = tree
        .environment(kube_context, name)
        .and_then(|found| found.namespace.clone());
    let pattern = namespace_pattern(project, file);
    match (&file.layout.namespace, found) {
        (Some(said), _) => (fill_in(&pattern, kube_context, name), said.span.place().to_string()),
        (None, Some(found)) => (found, "found: its manifests say so".into()),
        (None, None) => {
            let rule = match environment.rendered() {
                None => "convention: the project and the environment",
                Some(_) => "convention: the project and the environment, unless what is rendered says another",
            };
            (fill_in(&pattern, kube_context, name), rule.into())
        }
    }
}

/// The manifests of one environment.
pub(crate) struct Manifests {
    tree: Tree,
    /// The place of the environment.
    pub place: Environment,
    /// Errors in the files that the environment may depend on, rendered.
    pub errors: Vec<String>,
    /// Objects whose namespace differs from the one that the project file sets; sentences.
    pub misplaced: Vec<String>,
    /// Warnings; sentences.
    pub warnings: Vec<String>,
}

/// The namespaces of a kube context's environments.
struct Namespaces {
    /// Namespaces by environment.
    named: BTreeMap<String, String>,
    /// Whether the list is complete: an environment that was not rendered may use another namespace.
    all_known: bool,
}

impl Namespaces {
    fn of(tree: &Tree, layout: &Layout, kube_context: &str, project: &str, project_file: &ProjectFile) -> Self {
        let names = tree.kube_contexts.get(kube_context).into_iter();
        let names = names.flat_map(|context| context.environments.keys());
        let is_rendered = |name: &String| layout.rendered(kube_context, name).is_some();
        Self {
            all_known: project_file.namespace.is_some() || !names.clone().any(is_rendered),
            named: names
                .map(|name| {
                    (
                        name.clone(),
                        namespace_in(tree, layout, kube_context, project, name, project_file),
                    )
                })
                .collect(),
        }
    }

    /// Sentences about shared objects whose namespace is not that of any environment: no release applies those.
    fn homeless(&self, tree: &Tree, kube_context: &str) -> Vec<String> {
        let Some(context) = tree.kube_contexts.get(kube_context) else {
            return Vec::new();
        };
        let known: Vec<String> = self
            .named
            .iter()
            .map(|(name, namespace)| format!("{name}: `{namespace}`"))
            .collect();
        let sentence = |object: &Object| {
            let namespace = object.namespace.as_ref()?;
            (!self.named.values().any(|named| named == namespace)).then(|| {
                format!(
                    "{}: {} is shared by the environments of `{kube_context}` and names the namespace `{namespace}`, which is none of \
                     theirs ({}), so it belongs to none: leave `metadata.namespace` out, or name one of those",
                    object.place_of("/metadata/namespace"),
                    object.id(),
                    known.join(", ")
                )
            })
        };
        context
            .jobs
            .iter()
            .chain(&context.cron_jobs)
            .filter_map(sentence)
            .collect()
    }
}

fn warnings_of(rendered: &Rendered, environment: &str) -> Vec<String> {
    let own = rendered.warnings.iter().filter(|(name, _)| name == environment);
    own.map(|(_, warning)| warning.clone()).collect()
}

impl Manifests {
    /// Finds an environment in a repository's files.
    ///
    /// # Errors
    /// `NotFound` when there is no such environment, `Invalid` when several kube contexts have one, and when it could
    /// not be rendered.
    pub(crate) fn read(source: &Source, project_file: &ProjectFile, id: &EnvironmentId) -> Result<Self, DeliveryError> {
        let name = id.environment();
        if let Some(reason) = source.rendered.why_no_environment(name) {
            return Err(DeliveryError::not_found(reason));
        }
        let layout = &source.rendered.layout;
        let kube_context = match layout.named(name) {
            Named::One(environment) => environment.kube_context.value.clone(),
            Named::Several(several) => return Err(ambiguous(name, &roots(several))),
            Named::No => return Err(no_environment(source, project_file, id)),
        };
        let (tree, diagnostics) = source.tree();
        source.check_rendering(&kube_context, name)?;
        let wrong = diagnostics.iter().filter(|diagnostic| diagnostic.is_error());
        let wrong = wrong.filter(|diagnostic| layout.concerned_by(&kube_context, name, diagnostic));
        let unread = source.unread.iter();
        let unread = unread.filter(|(path, _)| layout.needs(&kube_context, name, path));
        let errors = unread.map(|(_, wrong)| wrong.clone());
        let mut errors: Vec<String> = errors.chain(wrong.map(|diagnostic| diagnostic.render(false))).collect();
        let namespace = namespace_in(&tree, layout, &kube_context, id.project(), name, project_file);
        let namespaces = Namespaces::of(&tree, layout, &kube_context, id.project(), project_file);
        let homeless = namespaces.homeless(&tree, &kube_context);
        let mut warnings = warnings_of(&source.rendered, name);
        let concerning = diagnostics.iter().filter(|diagnostic| !diagnostic.is_error());
        let of_hooks = concerning
            .filter(|diagnostic| diagnostic.code == "manifest::hook")
            .filter(|diagnostic| layout.concerned_by(&kube_context, name, diagnostic));
        warnings.extend(of_hooks.map(|diagnostic| diagnostic.message.clone()));
        match namespaces.all_known {
            true => errors.extend(homeless),
            false => warnings.extend(homeless),
        }
        let is_said = layout
            .get(&kube_context, name)
            .is_some_and(|found| found.namespace.is_some());
        let mut manifests = Self {
            tree,
            place: Environment {
                id: id.clone(),
                kube_context,
                namespace,
            },
            errors,
            misplaced: Vec::new(),
            warnings,
        };
        if is_said || project_file.namespace.is_some() {
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

    /// Everything that a release applies, in order of application.
    pub(crate) fn objects(&self) -> Vec<Object> {
        let place = &self.place;
        let wanted = self
            .tree
            .wanted(&place.kube_context, place.id.environment(), &place.namespace);
        // `read` has found the environment in this tree, so it exists.
        wanted.unwrap_or_default()
    }

    /// Every Job of the environment, wherever it is.
    pub(crate) fn jobs(&self) -> Vec<Object> {
        let Environment {
            id,
            kube_context,
            namespace,
        } = &self.place;
        let jobs = self.tree.jobs(kube_context, id.environment(), namespace);
        jobs.into_iter().cloned().collect()
    }

    /// The Jobs that run at an event of a release.
    pub(crate) fn hooks(&self) -> Vec<Object> {
        let place = &self.place;
        self.tree
            .hooks(&place.kube_context, place.id.environment(), &place.namespace)
    }

    /// Warnings about Jobs that are outside of any `jobs/` and so would be deployed; sentences.
    pub(crate) fn jobs_apart(&self) -> Vec<String> {
        let place = &self.place;
        let found = self.tree.environment(&place.kube_context, place.id.environment());
        let jobs = found.into_iter().flat_map(|found| &found.jobs);
        let is_beside = |job: &&Object| !job.place.file.split('/').any(|folder| folder == "jobs");
        jobs.filter(is_beside)
            .map(|job| {
                format!(
                    "{}: {}: a deployment runs no Jobs: `towpath job {} {}` runs it",
                    job.place,
                    job.id(),
                    job.name,
                    place.id.environment()
                )
            })
            .collect()
    }

    /// The Job or CronJob in the environment's namespace whose name or file name is `name`.
    ///
    /// # Errors
    /// `Invalid` when a manifest is wrong, `NotFound`, with the existing names, when there is no such object.
    pub(crate) fn job(&self, kind: RunKind, name: &str) -> Result<Object, DeliveryError> {
        if let Some(wrong) = [&self.errors, &self.misplaced]
            .into_iter()
            .find(|wrong| !wrong.is_empty())
        {
            return Err(DeliveryError::invalid(wrong.join("\n")));
        }
        let place = &self.place;
        let objects: Vec<Object> = match kind {
            RunKind::Job => {
                let jobs = self
                    .tree
                    .jobs(&place.kube_context, place.id.environment(), &place.namespace);
                jobs.into_iter().cloned().collect()
            }
            RunKind::CronJob => self.objects(),
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
            // List the objects' names, which every command accepts: one file may hold several objects.
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

fn no_environment(source: &Source, project_file: &ProjectFile, id: &EnvironmentId) -> DeliveryError {
    let environment = id.environment();
    let unread = source.unread_around(environment);
    if !unread.is_empty() {
        return DeliveryError::invalid(unread.join("\n"));
    }
    let layout = &source.rendered.layout;
    let rivals = layout.rivals().map(|(name, _)| name);
    let known: BTreeSet<&str> = layout
        .environments()
        .map(|found| found.name.as_str())
        .chain(rivals)
        .collect();
    let known = match (&project_file.manifests, known.is_empty()) {
        (Some(folder), true) => {
            format!("`{PROJECT_FILE}` says `manifests = \"{folder}\"`, and there are none in that folder")
        }
        (None, true) => "there are none in this repository: `towpath init` says what it looks for".to_string(),
        (_, false) => {
            let list = match project_file.layout.is_the_list() {
                true => format!(", which `{PROJECT_FILE}` lists"),
                false => String::new(),
            };
            format!("there are {}{list}", Vec::from_iter(known).join(", "))
        }
    };
    DeliveryError::not_found(format!("there is no environment `{environment}`: {known}"))
}

/// Where an environment is, according to the manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// In exactly one place.
    At(Environment),
    /// Several folders have an environment of this name.
    Ambiguous(Vec<String>),
}

/// Every environment in a project's manifests, by id.
///
/// Skips folders whose names are not valid for an environment. Deploying to one reports why.
pub(crate) fn environments_in(
    project: &str,
    source: &Source,
    project_file: &ProjectFile,
) -> BTreeMap<EnvironmentId, Whereabouts> {
    let (tree, _) = source.tree();
    let layout = &source.rendered.layout;
    let mut environments = BTreeMap::new();
    for found in layout.environments() {
        let Ok(id) = EnvironmentId::new(project, &found.name) else {
            continue;
        };
        let kube_context = &found.kube_context.value;
        let place = Environment {
            id: id.clone(),
            kube_context: kube_context.clone(),
            namespace: namespace_in(&tree, layout, kube_context, project, &found.name, project_file),
        };
        environments.insert(id, Whereabouts::At(place));
    }
    for (name, several) in layout.rivals() {
        if let Ok(id) = EnvironmentId::new(project, name) {
            environments.insert(id, Whereabouts::Ambiguous(roots(several)));
        }
    }
    environments
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::error::ErrorKind;
    use towpath_forge::Unread;
    use towpath_manifest::LayoutSettings;

    fn file(path: &str, text: &str) -> ManifestFile {
        ManifestFile::text(path, text)
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

    /// Files that need no rendering.
    fn plain(files: &[ManifestFile], settings: &LayoutSettings) -> Source {
        let texts = files.iter().filter(|file| file.wrong().is_none());
        let all = files.iter().map(|file| (file.path.as_str(), file.text_or_nothing()));
        let rendered = Rendered {
            files: texts
                .map(|file| (file.path.clone(), file.text_or_nothing().to_string()))
                .collect(),
            layout: Layout::read(all, settings).0,
            ..Rendered::default()
        };
        Source::new(Source::unread_of(files), rendered)
    }

    fn read(files: &[ManifestFile], file: &ProjectFile, environment: &str) -> Manifests {
        Manifests::read(&plain(files, &file.layout), file, &id(environment)).unwrap()
    }

    fn refused(files: &[ManifestFile], file: &str, environment: &str) -> DeliveryError {
        let file = project_file(file);
        Manifests::read(&plain(files, &file.layout), &file, &id(environment))
            .err()
            .unwrap()
    }

    #[test]
    fn an_environment_is_found_in_the_only_kube_context_that_has_it() {
        let files = [
            file(".k8s/live/dev/web.yaml", &deployment("web", "")),
            file(".k8s/old/qa/web.yaml", &deployment("web", "elsewhere")),
        ];
        let dev = read(&files, &ProjectFile::default(), "dev");
        assert_eq!(
            (dev.place.kube_context.as_str(), dev.place.namespace.as_str()),
            ("live", "claims-dev")
        );
        assert_eq!(dev.objects().len(), 1);
        let qa = read(&files, &ProjectFile::default(), "qa");
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
        assert!(error.to_string().contains("(`.k8s/live`, `.k8s/old`)"), "{error}");
        let file = project_file("manifests = \".k8s/old/\"");
        let found = read(&files, &file, "dev");
        assert_eq!(found.place.kube_context, "old");
        let all = environments_in(
            "claims",
            &plain(&files, &LayoutSettings::default()),
            &ProjectFile::default(),
        );
        assert_eq!(
            all[&id("dev")],
            Whereabouts::Ambiguous(vec![".k8s/live".into(), ".k8s/old".into()])
        );
        let told = environments_in("claims", &plain(&files, &file.layout), &file);
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
            "there is no environment `dev`: there are none in this repository: `towpath init` says what it looks for"
        );
        let error = refused(&files, "manifests = \".k8s/other\"", "dev").to_string();
        assert!(error.contains("says `manifests = \".k8s/other\"`"), "{error}");
    }

    #[test]
    fn an_object_in_another_namespace_than_the_project_file_says_is_named_with_its_place() {
        let files = [file(".k8s/live/dev/web.yaml", &deployment("web", "other"))];
        let pattern = project_file("namespace = \"c-{environment}-{kube_context}\"");
        let manifests = read(&files, &pattern, "dev");
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
        let manifests = read(&files, &ProjectFile::default(), "dev");
        for name in ["claims-migrate", "migrate"] {
            let found = manifests.job(RunKind::Job, name).unwrap();
            assert_eq!((found.name.as_str(), found.kind.as_str()), ("claims-migrate", "Job"));
            assert_eq!(
                found
                    .value
                    .pointer("/metadata/namespace")
                    .and_then(|value| value.as_str()),
                Some("claims-dev")
            );
        }
        let error = manifests.job(RunKind::Job, "x").unwrap_err().to_string();
        assert_eq!(error, "`dev` has no Job `x`: there are claims-migrate");
        let error = manifests.job(RunKind::CronJob, "x").unwrap_err().to_string();
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
        let manifests = read(&files, &ProjectFile::default(), "dev");
        let error = manifests.job(RunKind::Job, "m").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(".k8s/live/dev/web.yaml"), "{error}");
    }

    #[test]
    fn only_files_that_may_be_needed_are_taken_from_a_tree() {
        let entry = |path: &str, found| TreeEntry {
            path: path.into(),
            found,
        };
        let good = |path: &str| entry(path, Ok((path.into(), 1)));
        let selected = |mut entries: Vec<TreeEntry>| {
            select_manifests(&BTreeSet::from([".k8s".to_string()]), &mut entries);
            entries.into_iter().map(|entry| entry.path).collect::<Vec<_>>()
        };
        let gone = entry(".k8s/a/b/more", Err(Unread::LeadsNowhere("x".into())));
        assert_eq!(
            selected(vec![good(".k8s/a/b/x.yaml"), good(".k8s/a/b/notes.txt"), gone]),
            [".k8s/a/b/x.yaml", ".k8s/a/b/more"]
        );
        let with_helm = vec![good(".k8s/a/b/Chart.yaml"), good(".k8s/a/b/notes.txt")];
        assert_eq!(selected(with_helm).len(), 2);
    }

    #[test]
    fn what_is_not_text_is_said_of_yaml_and_kept_for_renderers() {
        let tree = |path: &str, content: Result<&[u8], Unread>| TreeFile {
            path: path.into(),
            content: content.map(<[u8]>::to_vec),
        };
        let files = manifest_files(vec![
            tree("a.yaml", Ok(b"a: b\n")),
            tree("latin.yaml", Ok(b"a: b\nc: M\xfcnchen\n")),
            tree("locked.yaml", Ok(b"\0GITCRYPT\0\x01\x02")),
            tree("logo.png", Ok(b"\x89PNG\xff")),
            tree("large.yaml", Err(Unread::TooLarge(10 << 20))),
        ]);
        assert_eq!(files[0], file("a.yaml", "a: b\n"));
        assert_eq!(files[3].content, ManifestContent::Bytes(b"\x89PNG\xff".to_vec()));
        let wrong: Vec<String> = files.iter().filter_map(ManifestFile::wrong).collect();
        let [latin, locked, large] = wrong.as_slice() else {
            panic!("{wrong:?}")
        };
        assert!(latin.contains("`latin.yaml` is not UTF-8: line 2, column 5"), "{latin}");
        assert!(locked.contains("`locked.yaml` is encrypted by git-crypt"), "{locked}");
        assert!(
            large.contains("`large.yaml` has 10.0 MiB, and a file may have 8 MiB"),
            "{large}"
        );
    }

    fn unread(path: &str) -> ManifestFile {
        ManifestFile {
            path: path.into(),
            content: ManifestContent::Unread("is away".into()),
        }
    }

    #[test]
    fn an_environment_is_wrong_with_what_it_needs_and_with_nothing_else() {
        let files = |path: &str| {
            [
                file(".k8s/live/dev/web.yaml", &deployment("web", "")),
                file(".k8s/live/qa/web.yaml", &deployment("web", "")),
                unread(path),
            ]
        };
        for (path, wrong_in_dev) in [
            (".k8s/live/dev/secrets.yaml", true),
            (".k8s/live/dev/common", true),
            (".k8s/live/dev", true),
            (".k8s/live/cron_jobs/clean.yaml", true),
            (".k8s/live/jobs", true),
            (".k8s/live", true),
            (".k8s", true),
            (".k8s/live/qa/secrets.yaml", false),
            (".k8s/live/qa", false),
            (".k8s/live/api-sandbox/secrets.yaml", false),
            (".k8s/other/dev-2/web.yaml", false),
            (".k8s/other/cron_jobs/clean.yaml", false),
            (".k8s/other", false),
        ] {
            let manifests = read(&files(path), &ProjectFile::default(), "dev");
            let expect = match wrong_in_dev {
                true => vec![format!("error[manifest::unread]: `{path}` is away")],
                false => Vec::new(),
            };
            assert_eq!(manifests.errors, expect, "{path}");
        }
        let broken = [
            file(".k8s/live/dev/web.yaml", &deployment("web", "")),
            file(".k8s/live/qa/web.yaml", "kind: [\n"),
        ];
        assert_eq!(
            read(&broken, &ProjectFile::default(), "dev").errors,
            Vec::<String>::new()
        );
        assert_eq!(read(&broken, &ProjectFile::default(), "qa").errors.len(), 1);
    }

    #[test]
    fn an_environment_whose_folder_cannot_be_read_is_not_said_to_be_missing() {
        let files = [
            file(".k8s/live/dev/web.yaml", &deployment("web", "")),
            unread(".k8s/live/qa"),
        ];
        let error = refused(&files, "", "qa");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("`.k8s/live/qa` is away"), "{error}");
        assert_eq!(refused(&files, "", "prod").kind(), ErrorKind::NotFound);
        assert!(!plain(&files, &LayoutSettings::default()).knows_environments());
        assert!(plain(&[unread(".k8s/live/dev/web.yaml")], &LayoutSettings::default()).knows_environments());
        // Outside of `.k8s/`, what no known environment needs may be another one's.
        let knows = |path: &str| {
            let files = [file("deploy/qa/web.yaml", &deployment("web", "")), unread(path)];
            plain(&files, &LayoutSettings::default()).knows_environments()
        };
        assert!(knows("deploy/qa/more.yaml") && !knows("deploy/dev/web.yaml") && !knows("deploy/dev"));
        // The only file of an environment.
        let found = environments_in(
            "claims",
            &plain(&[unread(".k8s/live/dev/web.yaml")], &LayoutSettings::default()),
            &ProjectFile::default(),
        );
        assert!(found.contains_key(&id("dev")));
    }

    fn cron_job(name: &str, namespace: &str) -> String {
        format!("apiVersion: batch/v1\nkind: CronJob\nmetadata:\n  name: {name}\n  namespace: {namespace}\n")
    }

    #[test]
    fn a_shared_object_that_names_a_namespace_belongs_to_the_environment_there() {
        let files = [
            file(".k8s/live/dev/web.yaml", &deployment("web", "team-dev")),
            file(".k8s/live/qa/web.yaml", &deployment("web", "")),
            file(".k8s/live/cron_jobs/a.yaml", &cron_job("clean", "team-dev")),
            file(".k8s/live/cron_jobs/b.yaml", &cron_job("clean", "claims-qa")),
            file(".k8s/live/cron_jobs/c.yaml", &cron_job("dev-only", "team-dev")),
        ];
        for (environment, expect) in [("dev", vec!["web", "clean", "dev-only"]), ("qa", vec!["web", "clean"])] {
            let manifests = read(&files, &ProjectFile::default(), environment);
            assert_eq!(manifests.errors, Vec::<String>::new());
            let names: Vec<String> = manifests.objects().into_iter().map(|object| object.name).collect();
            assert_eq!(names, expect);
        }
        let homeless = [
            files.to_vec(),
            vec![file(".k8s/live/cron_jobs/d.yaml", &cron_job("lost", "team-dve"))],
        ]
        .concat();
        for environment in ["dev", "qa"] {
            let [error] = read(&homeless, &ProjectFile::default(), environment)
                .errors
                .try_into()
                .unwrap();
            let error: String = error;
            assert!(
                error.starts_with(".k8s/live/cron_jobs/d.yaml:5:3: CronJob/lost is shared")
                    && error.contains("(dev: `team-dev`, qa: `claims-qa`)"),
                "{error}"
            );
        }
    }
}
