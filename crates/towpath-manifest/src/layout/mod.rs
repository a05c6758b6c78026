//! The layout of a repository: which environments it has, and what each is made from.
//!
//! Everything about environments asks the layout. Nothing else looks at the names of folders.

mod declared;
mod dot_k8s;
mod elsewhere;
mod environment;
mod kustomization;
mod paths;
mod reading;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_elsewhere;

pub use environment::{EnvironmentLayout, Origin, RenderedBy, RenderedEnvironment, Source, Sourced};
pub use paths::{DOT_K8S, ListedPath, is_kustomization, is_yaml, needs_every_file};
pub use reading::{Reading, Wanted};

pub(crate) use paths::{CRON_JOBS, JOBS};

use crate::settings::LayoutSettings;
use dot_k8s::DotK8s;
use kustomization::Kustomizations;
use paths::{ancestors, inside, is_below, is_in, plain};
use std::collections::{BTreeMap, BTreeSet};
use towpath_yaml::Diagnostic;

/// The layout of a repository. The default is that of an empty one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// The environments, in the order of promotion.
    environments: Vec<EnvironmentLayout>,
    /// By name: the environments of which nobody has said which is meant.
    rivals: BTreeMap<String, Vec<EnvironmentLayout>>,
    /// Less plausible ones, which are not in force.
    others: Vec<EnvironmentLayout>,
    dot_k8s: DotK8s,
    /// Whether the files were looked at. Without that, every folder of a kube context below `.k8s/` is an environment.
    is_known: bool,
    /// Whether `.k8s/` does not count, because `towpath.toml` names another folder.
    ignores_dot_k8s: bool,
}

/// Whom a file with plain manifests belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner<'a> {
    /// An environment, or the Jobs in it.
    Environment {
        kube_context: &'a str,
        name: &'a str,
        in_jobs: bool,
    },
    /// A folder with Jobs that this environment has outside of its own.
    JobsOf { kube_context: &'a str, name: &'a str },
    /// A folder with CronJobs that this environment has outside of its own.
    CronJobsOf { kube_context: &'a str, name: &'a str },
    /// The Jobs of all environments of a kube context below `.k8s/`.
    Jobs(&'a str),
    /// The CronJobs of all environments of a kube context below `.k8s/`.
    CronJobs(&'a str),
    /// It is below `.k8s/`, and in no environment's folder.
    Nobody,
}

/// The environments of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named<'a> {
    /// There is none.
    No,
    /// There is exactly one.
    One(&'a EnvironmentLayout),
    /// There are several, and nobody has said which is meant.
    Several(&'a [EnvironmentLayout]),
}

impl Layout {
    /// Recognises the layout from the paths (relative to the root of the repository, with `/`) and texts of its files, and from
    /// what `towpath.toml` says.
    ///
    /// - `.k8s/<kube context>/<environment>/`: Kustomize, Helm or plain manifests in each.
    /// - Where there is no `.k8s/`, or `manifests` names another folder: overlays, charts with values for each environment, and
    ///   folders of manifests.
    /// - An environment whose table in `towpath.toml` says what it is made from. With one such table there are no other
    ///   environments than those that have a table.
    ///
    /// Files that are not YAML do not change the result.
    ///
    /// All errors among the diagnostics concern environments ([`Self::concerned_by`]), and with one of them an environment may
    /// not be rendered: those of the YAML reader (an invalid kustomization), and the codes `manifest::outside-root`,
    /// `manifest::two-renderers`, `manifest::ambiguous-chart`, `manifest::unused-chart`, `manifest::no-such-file`,
    /// `manifest::nothing-there`, `manifest::other-kube-context` and `manifest::order`. The warning
    /// `manifest::no-such-environment` is about a table in `towpath.toml`.
    pub fn read<'a>(
        files: impl IntoIterator<Item = (&'a str, &'a str)>,
        settings: &LayoutSettings,
    ) -> (Self, Vec<Diagnostic>) {
        let files: BTreeMap<&str, &str> = files.into_iter().map(|(path, text)| (plain(path), text)).collect();
        let mut diagnostics = Vec::new();
        let kustomizations = Kustomizations::read(&files, &mut diagnostics);
        let folder = settings.folder();
        let ignores_dot_k8s = folder.is_some_and(|folder| !is_in(folder, DOT_K8S));
        let mut dot_k8s = DotK8s::default();
        if !ignores_dot_k8s {
            dot_k8s = DotK8s::read(&files, &kustomizations, &mut diagnostics);
        }
        diagnostics.retain(Diagnostic::is_error);
        let mut found = dot_k8s.environments();
        let mut others = Vec::new();
        if found.is_empty() && folder.is_none_or(|_| ignores_dot_k8s) {
            let elsewhere = elsewhere::find(&files, folder, &kustomizations);
            found = elsewhere.environments;
            others = elsewhere.others;
        }
        found.retain(|layout| folder.is_none_or(|folder| is_in(&layout.root, folder)));
        let (by_name, wrong) = declared::apply(found, settings, &files, &kustomizations, elsewhere::KUBE_CONTEXT);
        if settings.is_the_list() {
            others = Vec::new();
        }
        let mut layout = Self {
            others,
            dot_k8s,
            is_known: true,
            ignores_dot_k8s,
            ..Self::default()
        };
        for (name, several) in by_name {
            match <[EnvironmentLayout; 1]>::try_from(several) {
                Ok([only]) => layout.environments.push(only),
                Err(several) => drop(layout.rivals.insert(name, several)),
            }
        }
        layout.sort();
        diagnostics.retain(|diagnostic| layout.is_concerned(diagnostic));
        let faults = layout.environments.iter().flat_map(|environment| &environment.faults);
        diagnostics.extend(faults.cloned());
        diagnostics.extend(wrong);
        (layout, diagnostics)
    }

    /// Sorts the environments by the order of promotion, then by name.
    fn sort(&mut self) {
        let after: BTreeMap<String, String> = self
            .environments
            .iter()
            .filter_map(|layout| Some((layout.name.clone(), layout.after.as_ref()?.value.clone())))
            .collect();
        let before = |name: &str| {
            let mut seen = BTreeSet::new();
            let mut next = after.get(name);
            while let Some(before) = next.filter(|before| seen.insert(before.as_str())) {
                next = after.get(before);
            }
            seen.len()
        };
        self.environments
            .sort_by_cached_key(|layout| (before(&layout.name), layout.name.clone(), layout.root.clone()));
    }

    /// Whether a diagnostic is about something below `.k8s/`, or about an environment.
    fn is_concerned(&self, diagnostic: &Diagnostic) -> bool {
        let Some(label) = &diagnostic.primary else { return true };
        let place = label.span.place();
        let mut all = self.environments.iter().chain(self.rivals.values().flatten());
        inside(&place.file).is_some() && !self.ignores_dot_k8s
            || all.any(|environment| environment.inputs.iter().any(|input| is_in(&place.file, input)))
    }

    /// Whether every file is a plain manifest.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.dot_k8s.is_plain() && self.rendered_environments().next().is_none()
    }

    /// The environments, in the order of promotion.
    pub fn environments(&self) -> impl Iterator<Item = &EnvironmentLayout> {
        self.environments.iter()
    }

    /// The environments that programs render.
    pub fn rendered_environments(&self) -> impl Iterator<Item = &RenderedEnvironment> {
        self.environments.iter().filter_map(EnvironmentLayout::rendered)
    }

    /// The names for which several environments are plausible, with those.
    pub fn rivals(&self) -> impl Iterator<Item = (&str, &[EnvironmentLayout])> {
        self.rivals
            .iter()
            .map(|(name, several)| (name.as_str(), several.as_slice()))
    }

    /// What else in the repository looks like environments, and is not in force.
    pub fn others(&self) -> &[EnvironmentLayout] {
        &self.others
    }

    /// The environments of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Named<'_> {
        let one = self.environments.iter().find(|layout| layout.name == name);
        match (one, self.rivals.get(name)) {
            (Some(one), _) => Named::One(one),
            (None, Some(several)) => Named::Several(several),
            (None, None) => Named::No,
        }
    }

    /// An environment by its kube context and name.
    #[must_use]
    pub fn get(&self, kube_context: &str, name: &str) -> Option<&EnvironmentLayout> {
        let mut all = self.environments.iter();
        all.find(|layout| layout.name == name && layout.kube_context.value == kube_context)
    }

    /// The renderer of an environment; `None` if its files are plain manifests.
    #[must_use]
    pub fn rendered(&self, kube_context: &str, environment: &str) -> Option<&RenderedEnvironment> {
        self.get(kube_context, environment)?.rendered()
    }

    /// Whether the file at `path` is a plain manifest, not the input of a renderer.
    #[must_use]
    pub fn reads_as_it_is(&self, path: &str) -> bool {
        let path = plain(path);
        match inside(path).is_some() && !self.ignores_dot_k8s {
            true => self.dot_k8s.reads_as_it_is(path) || self.is_declared_plain(path),
            false => !self.owners(path).is_empty(),
        }
    }

    /// Whether a file below `.k8s/` belongs to an environment that `towpath.toml` gives a folder of plain manifests.
    fn is_declared_plain(&self, path: &str) -> bool {
        self.environments.iter().any(|layout| {
            let is_written = matches!(layout.source.origin, Origin::Written(_));
            is_written && matches!(&layout.source.value, Source::Folder(folder) if is_in(path, folder))
        })
    }

    /// Whom the file with plain manifests or rendered objects at `path` belongs to.
    pub(crate) fn owners<'a>(&'a self, path: &'a str) -> Vec<Owner<'a>> {
        let path = plain(path);
        let mut owners = Vec::new();
        if let Some(inside) = inside(path)
            && !self.ignores_dot_k8s
        {
            owners.extend(self.owner_below_k8s(path, inside));
        }
        let mut in_folders: Vec<(&EnvironmentLayout, &str)> = Vec::new();
        for layout in &self.environments {
            let (kube_context, name) = (layout.kube_context.value.as_str(), layout.name.as_str());
            for (folder, owner) in [
                (&layout.jobs, Owner::JobsOf { kube_context, name }),
                (&layout.cron_jobs, Owner::CronJobsOf { kube_context, name }),
            ] {
                if folder.as_ref().is_some_and(|folder| is_in(path, &folder.value)) {
                    owners.push(owner);
                }
            }
            match &layout.source.value {
                Source::Folder(folder) if is_in(path, folder) => in_folders.push((layout, folder)),
                Source::Rendered(rendered) if is_below(path, &rendered.output()) => {
                    in_folders.push((layout, &rendered.folder));
                }
                Source::Folder(_) | Source::Rendered(_) => {}
            }
        }
        // The folder of one environment may be in that of another.
        let innermost = in_folders.iter().map(|(_, folder)| folder.len()).max();
        in_folders.retain(|(_, folder)| Some(folder.len()) == innermost);
        for (layout, folder) in in_folders {
            let rest = path.strip_prefix(folder).unwrap_or_default().trim_start_matches('/');
            let owner = Owner::Environment {
                kube_context: &layout.kube_context.value,
                name: &layout.name,
                in_jobs: rest.strip_prefix(JOBS).is_some_and(|rest| rest.starts_with('/')),
            };
            if !owners.contains(&owner) {
                owners.push(owner);
            }
        }
        owners
    }

    fn owner_below_k8s<'a>(&'a self, path: &str, inside: &'a str) -> Option<Owner<'a>> {
        let parts: Vec<&str> = inside.split('/').collect();
        Some(match parts.as_slice() {
            [kube_context, JOBS, _, ..] => Owner::Jobs(kube_context),
            [kube_context, CRON_JOBS, _, ..] => Owner::CronJobs(kube_context),
            [kube_context, name, folder, rest @ ..] => {
                let is_it = |layout: &EnvironmentLayout| {
                    layout.name == *name
                        && layout.kube_context.value == *kube_context
                        && is_in(path, layout.source.value.folder())
                };
                let mut all = self.environments.iter().chain(self.rivals.values().flatten());
                if self.is_known && !all.any(is_it) {
                    return None;
                }
                Owner::Environment {
                    kube_context,
                    name,
                    in_jobs: *folder == JOBS && !rest.is_empty(),
                }
            }
            _ => Owner::Nobody,
        })
    }

    /// Whether an environment can depend on the file or folder at `path`. It depends on its own files, on the files that all
    /// environments of its kube context share, and on the files that it is rendered from. It does not depend on files that only
    /// another environment has.
    #[must_use]
    pub fn concerns(&self, kube_context: &str, environment: &str, path: &str) -> bool {
        let path = plain(path);
        let layout = self.get(kube_context, environment);
        if let Some(layout) = layout {
            let mut inputs = layout.inputs.iter();
            if inputs.any(|input| is_in(path, input) || is_in(input, path)) {
                return true;
            }
        }
        let is_below_k8s = layout.is_none_or(|layout| inside(&layout.root).is_some());
        match inside(path) {
            Some(inside) if is_below_k8s => self.concerns_below_k8s(kube_context, environment, path, inside),
            // A link in the place of the folder of all manifests.
            _ => path.is_empty() || (is_below_k8s && path == DOT_K8S),
        }
    }

    /// Whether an environment needs the file at `path`, so that it cannot be deployed while the file cannot be read. A chart's
    /// values for another environment are in its folder, but it does without them.
    #[must_use]
    pub fn needs(&self, kube_context: &str, environment: &str, path: &str) -> bool {
        let has_values = |layout: &EnvironmentLayout| match layout.rendered().map(|rendered| &rendered.by) {
            Some(RenderedBy::Helm { values, .. }) => values.iter().any(|values| values == plain(path)),
            Some(RenderedBy::Kustomize) | None => false,
        };
        let own = self.get(kube_context, environment);
        let is_for_others = self.environments.iter().any(has_values) && !own.is_some_and(has_values);
        !is_for_others && self.concerns(kube_context, environment, path)
    }

    fn concerns_below_k8s(&self, kube_context: &str, environment: &str, path: &str, inside: &str) -> bool {
        let around = || std::iter::once(path).chain(ancestors(path));
        if around().any(|dir| self.dot_k8s.unused.contains(dir)) {
            return true;
        }
        let users = around().find_map(|dir| self.dot_k8s.shared.get(dir));
        if let Some(users) = users {
            return users.contains(&format!("{DOT_K8S}/{kube_context}/{environment}"));
        }
        match inside.split('/').collect::<Vec<_>>().as_slice() {
            // A folder of bases or a kube context.
            [folder] => *folder == kube_context || self.rendered(kube_context, environment).is_some(),
            [context, JOBS | CRON_JOBS, ..] => *context == kube_context,
            [context, name, ..] => *context == kube_context && *name == environment,
            [] => true,
        }
    }

    /// Whether a diagnostic concerns something that the environment can depend on.
    #[must_use]
    pub fn concerned_by(&self, kube_context: &str, environment: &str, diagnostic: &Diagnostic) -> bool {
        let layout = self.get(kube_context, environment);
        if layout.is_some_and(|layout| layout.faults.contains(diagnostic)) {
            return true;
        }
        let is_of_another = self
            .environments
            .iter()
            .any(|layout| layout.faults.contains(diagnostic));
        let Some(label) = &diagnostic.primary else {
            return !is_of_another;
        };
        !is_of_another && self.concerns(kube_context, environment, &label.span.place().file)
    }

    /// The folders that environments are rendered from, each with one of those environments: `.k8s/base`, `.k8s/live/dev`.
    /// Neither they nor their subfolders are environments or kube contexts.
    pub fn shared(&self) -> impl Iterator<Item = (&str, &str)> {
        let used = self.dot_k8s.shared.iter();
        let below_k8s = used
            .filter_map(|(folder, users)| Some((folder.as_str(), users.first()?.as_str())))
            .chain(self.dot_k8s.unused.iter().map(|chart| (chart.as_str(), chart.as_str())));
        let elsewhere = self.environments.iter().filter(|layout| inside(&layout.root).is_none());
        below_k8s.chain(elsewhere.flat_map(|layout| {
            let own = layout.source.value.folder();
            let bases = layout
                .inputs
                .iter()
                .map(String::as_str)
                .filter(move |input| *input != own);
            bases.map(move |base| (base, own))
        }))
    }
}
