//! One environment of a layout, and where each of its values comes from.

use std::{collections::BTreeSet, fmt};
use towpath_yaml::{Diagnostic, Place};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Somebody wrote it into `towpath.toml`.
    Written(Place),
    /// The repository shows it: the path that does.
    Found(String),
    /// Nobody said it, so a rule holds; the rule.
    Convention(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written(place) => write!(f, "{place}"),
            Self::Found(path) => write!(f, "found: {path}"),
            Self::Convention(rule) => write!(f, "convention: {rule}"),
        }
    }
}

/// A value, and where it comes from.
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sourced<T> {
    pub value: T,
    pub origin: Origin,
}

/// What an environment is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The manifests in this folder, or in this one file.
    Folder(String),
    /// The output of a program.
    Rendered(RenderedEnvironment),
}

/// An environment that a program renders.
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedEnvironment {
    pub kube_context: String,
    pub environment: String,
    /// Relative to the root of the repository: `.k8s/live/dev`, or the folder of a chart that several environments use.
    pub folder: String,
    pub by: RenderedBy,
}

/// The program that renders an environment, and its input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenderedBy {
    /// `kustomize build` of the environment's folder.
    Kustomize,
    /// `helm template`.
    Helm {
        /// The folder of the chart, relative to the root of the repository.
        chart: String,
        /// The files with values, relative to the root of the repository. Later files override earlier ones. The chart's own
        /// `values.yaml` is not among them, because Helm reads it by itself.
        values: Vec<String>,
        /// Single values that override the files: the path in the values, and the value as JSON.
        set: Vec<(String, String)>,
        /// The name of the release; the default is the project's.
        release: Option<String>,
    },
}

impl RenderedBy {
    /// `kustomize` or `helm`.
    #[must_use]
    pub fn program(&self) -> &'static str {
        match self {
            Self::Kustomize => "kustomize",
            Self::Helm { .. } => "helm",
        }
    }
}

impl fmt::Display for RenderedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program())
    }
}

impl RenderedEnvironment {
    /// The folder that the rendered objects seem to be in: `.k8s/live/dev/(rendered by helm)`. It names the environment if its
    /// folder does not.
    #[must_use]
    pub fn output(&self) -> String {
        let (folder, by, name) = (&self.folder, &self.by, &self.environment);
        match folder.rsplit('/').next() == Some(name) {
            true => format!("{folder}/(rendered by {by})"),
            false => format!("{folder}/(rendered by {by} for {name})"),
        }
    }
}

impl Source {
    /// The folder of the manifests, of the kustomization, or of the chart or its values.
    #[must_use]
    pub fn folder(&self) -> &str {
        match self {
            Self::Folder(folder) => folder,
            Self::Rendered(rendered) => &rendered.folder,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "manifests in {folder}"),
            Self::Rendered(RenderedEnvironment { folder, by, .. }) => match by {
                RenderedBy::Kustomize => write!(f, "kustomize {folder}"),
                RenderedBy::Helm {
                    chart,
                    values,
                    set,
                    release,
                } => {
                    write!(f, "helm {chart}")?;
                    if let Some(release) = release {
                        write!(f, " as {release}")?;
                    }
                    if !values.is_empty() {
                        write!(f, " with {}", values.join(", "))?;
                    }
                    match set.as_slice() {
                        [] => Ok(()),
                        set => {
                            let names: Vec<&str> = set.iter().map(|(name, _)| name.as_str()).collect();
                            write!(f, ", setting {}", names.join(", "))
                        }
                    }
                }
            },
        }
    }
}

/// An environment of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentLayout {
    #[allow(missing_docs)]
    pub name: String,
    #[allow(missing_docs)]
    pub kube_context: Sourced<String>,
    /// The namespace, if `towpath.toml` names one for this environment.
    pub namespace: Option<Sourced<String>>,
    #[allow(missing_docs)]
    pub source: Sourced<Source>,
    /// Whether nothing begins there before somebody has seen its plan and agreed. What the default branch says is in force.
    pub protected: Sourced<bool>,
    /// The environment whose images this one gets.
    pub after: Option<Sourced<String>>,
    /// A folder with Jobs outside of the environment's own folder.
    pub jobs: Option<Sourced<String>>,
    /// A folder with CronJobs outside of the environment's own folder.
    pub cron_jobs: Option<Sourced<String>>,
    /// The folder that `manifests` in `towpath.toml` names to choose this environment among several of its name.
    pub root: String,
    /// Every file and folder that it is made from.
    pub inputs: BTreeSet<String>,
    /// What is wrong in `towpath.toml` about it.
    pub faults: Vec<Diagnostic>,
}

impl EnvironmentLayout {
    /// An environment that was found, and about which `towpath.toml` says nothing.
    pub(crate) fn found(name: &str, kube_context: Sourced<String>, root: &str, source: Sourced<Source>) -> Self {
        let mut inputs = BTreeSet::from([source.value.folder().to_string()]);
        if let Source::Rendered(RenderedEnvironment {
            by: RenderedBy::Helm { chart, values, .. },
            ..
        }) = &source.value
        {
            inputs.insert(chart.clone());
            inputs.extend(values.iter().cloned());
        }
        Self {
            name: name.to_string(),
            kube_context,
            namespace: None,
            source,
            protected: Sourced {
                value: false,
                origin: Origin::Convention("only `production` is protected"),
            },
            after: None,
            jobs: None,
            cron_jobs: None,
            root: root.to_string(),
            inputs,
            faults: Vec::new(),
        }
    }

    /// The program that renders it, and from what; `None` if its files are plain manifests.
    #[must_use]
    pub fn rendered(&self) -> Option<&RenderedEnvironment> {
        match &self.source.value {
            Source::Folder(_) => None,
            Source::Rendered(rendered) => Some(rendered),
        }
    }
}
