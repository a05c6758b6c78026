//! What the paths of a repository say by themselves.

/// The folder that most repositories have all manifests in, relative to the root of the repository.
pub const DOT_K8S: &str = ".k8s";
/// The folder for Jobs, next to the environments or in one of them.
pub(crate) const JOBS: &str = "jobs";
/// The folder for CronJobs, next to the environments or in one of them.
pub(crate) const CRON_JOBS: &str = "cron_jobs";

/// The names of a kustomization file.
///
/// Source: <https://kubectl.docs.kubernetes.io/references/kustomize/glossary/#kustomization>
pub(crate) const KUSTOMIZATIONS: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// The file that marks a folder as a Helm chart.
pub(crate) const CHART: &str = "Chart.yaml";

/// A path of a repository, as it is listed in the search for environments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedPath {
    /// The path from the root of the repository.
    pub path: String,
    /// Whether it cannot be read: a link to nothing, a submodule. It may stand for a file or for a folder.
    pub is_unread: bool,
}

/// Whether rendering needs more than the YAML files (templates, files for generated ConfigMaps): whether `paths` include a
/// kustomization or a chart.
pub fn needs_every_file<'a>(paths: impl IntoIterator<Item = &'a str>) -> bool {
    paths
        .into_iter()
        .any(|path| file_name(path) == CHART || is_kustomization(path))
}

/// Whether the file at `path` has the name of a kustomization.
#[must_use]
pub fn is_kustomization(path: &str) -> bool {
    KUSTOMIZATIONS.contains(&file_name(path))
}

/// Whether a file's name says that it is YAML, or JSON, which is valid YAML. `kubectl apply --filename FOLDER` reads the same
/// extensions.
#[must_use]
pub fn is_yaml(path: &str) -> bool {
    [".yaml", ".yml", ".json"].iter().any(|end| path.ends_with(end))
}

/// A path without `./` at its start.
pub(crate) fn plain(path: &str) -> &str {
    path.strip_prefix("./").unwrap_or(path)
}

pub(crate) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The folder that contains a path; empty for the root of the repository.
pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

pub(crate) fn join(folder: &str, name: &str) -> String {
    match folder {
        "" => name.to_string(),
        folder => format!("{folder}/{name}"),
    }
}

/// The path below `.k8s/`.
pub(crate) fn inside(path: &str) -> Option<&str> {
    plain(path).strip_prefix(DOT_K8S)?.strip_prefix('/')
}

/// The kube context and the environment, if this is an environment's folder below `.k8s/`.
pub(crate) fn environment_of(folder: &str) -> Option<(&str, &str)> {
    let (kube_context, environment) = inside(folder)?.split_once('/')?;
    let is_one = !environment.is_empty() && !environment.contains('/') && ![JOBS, CRON_JOBS].contains(&environment);
    is_one.then_some((kube_context, environment))
}

/// Whether a folder is `jobs/` or `cron_jobs/` next to the environments below `.k8s/`, or inside one of those.
pub(crate) fn is_shared_folder(folder: &str) -> bool {
    let second = inside(folder).and_then(|inside| inside.split('/').nth(1));
    second.is_some_and(|second| [JOBS, CRON_JOBS].contains(&second))
}

/// The folders that contain a path, innermost first, without the root of the repository.
pub(crate) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(path.rsplit_once('/'), |(dir, _)| dir.rsplit_once('/')).map(|(dir, _)| dir)
}

/// Whether a path is inside a folder; everything is inside the root of the repository, which is the empty path.
pub(crate) fn is_below(path: &str, folder: &str) -> bool {
    folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether a path is a file or folder, or inside it.
pub(crate) fn is_in(path: &str, place: &str) -> bool {
    path == place || is_below(path, place)
}

/// A path from the root of the repository, without `.`, `..` and double slashes; `None` if it leads out of the repository. The
/// root is the empty path.
pub(crate) fn resolve(folder: &str, reference: &str) -> Option<String> {
    if reference.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in reference.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
