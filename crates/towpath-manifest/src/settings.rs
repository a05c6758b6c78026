//! What a repository's `towpath.toml` says about environments, with the place of each value.

use std::collections::BTreeMap;
use towpath_yaml::Span;

/// A value, and where somebody wrote it.
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written<T> {
    pub value: T,
    pub span: Span,
}

/// Everything that `towpath.toml` says about environments. Empty for a repository without the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayoutSettings {
    /// The folder to look for environments in: `.k8s/live`, `deploy/overlays`, or the folder of a chart.
    pub manifests: Option<Written<String>>,
    /// The kube context of environments for which nothing else names one.
    pub kube_context: Option<Written<String>>,
    /// The pattern of environments' namespaces.
    pub namespace: Option<Written<String>>,
    /// By the environment's name.
    pub environments: BTreeMap<String, DeclaredEnvironment>,
}

/// One `[environments.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredEnvironment {
    /// The environment's table.
    pub span: Span,
    #[allow(missing_docs)]
    pub kube_context: Option<Written<String>>,
    #[allow(missing_docs)]
    pub namespace: Option<Written<String>>,
    /// What it is made from. Without it, the environment has to be found in the repository.
    pub source: Option<DeclaredSource>,
    /// Whether nothing begins there before somebody has seen its plan and agreed.
    pub protected: Option<Written<bool>>,
    /// The environment whose images this one gets.
    pub after: Option<Written<String>>,
    /// The folder with more Jobs.
    pub jobs: Option<Written<String>>,
    /// The folder with more CronJobs.
    pub cron_jobs: Option<Written<String>>,
}

/// What an environment is made from. Paths start at the root of the repository.
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredSource {
    /// The folder of `path`, `kustomize` or `chart`.
    pub folder: Written<String>,
    pub by: DeclaredBy,
}

/// How the objects come out of the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeclaredBy {
    /// `path`: its files are manifests.
    Nothing,
    /// `kustomize`.
    Kustomize,
    /// `chart`.
    Chart {
        /// The files with values; later ones override earlier ones.
        values: Vec<Written<String>>,
        /// Single values by their path in the chart's values, as JSON. They override the files.
        set: BTreeMap<String, String>,
        /// The name of Helm's release, if it is not that of the project.
        release: Option<String>,
    },
}

impl DeclaredBy {
    /// The key in `towpath.toml`.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::Nothing => "path",
            Self::Kustomize => "kustomize",
            Self::Chart { .. } => "chart",
        }
    }
}

/// The environment that is protected unless `towpath.toml` says otherwise.
const PROTECTED: &str = "production";

impl LayoutSettings {
    /// Whether an environment is protected.
    #[must_use]
    pub fn is_protected(&self, environment: &str) -> bool {
        let said = self
            .environments
            .get(environment)
            .and_then(|said| said.protected.as_ref());
        said.map_or(environment == PROTECTED, |said| said.value)
    }

    /// Whether `towpath.toml` lists the environments: as soon as it says what one of them is made from, there are no others
    /// than those that it names.
    #[must_use]
    pub fn is_the_list(&self) -> bool {
        self.environments.values().any(|said| said.source.is_some())
    }

    /// The folder of `manifests`, without slashes at its ends.
    #[must_use]
    pub fn folder(&self) -> Option<&str> {
        let folder = self.manifests.as_ref()?.value.as_str();
        let folder = folder.strip_prefix("./").unwrap_or(folder).trim_end_matches('/');
        (!folder.is_empty() && folder != ".").then_some(folder)
    }
}
