//! The layout below `.k8s/`: `.k8s/<kube context>/<environment>/`.

use super::{
    environment::{EnvironmentLayout, Origin, RenderedBy, RenderedEnvironment, Source, Sourced},
    kustomization::Kustomizations,
    paths::{CHART, DOT_K8S, ancestors, environment_of, file_name, inside, is_below, is_shared_folder, is_yaml},
};
use std::collections::{BTreeMap, BTreeSet};
use towpath_yaml::{Diagnostic, SourceFile, Span};

/// What is below `.k8s/`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DotK8s {
    /// The rendered environments by folder: `.k8s/live/dev`.
    environments: BTreeMap<String, RenderedEnvironment>,
    /// The folders of environments with plain manifests.
    folders: BTreeSet<String>,
    /// Folders that environments are rendered from, each with those environments' folders: `.k8s/base`, `.k8s/live/dev`. They
    /// are not environments themselves.
    pub shared: BTreeMap<String, BTreeSet<String>>,
    /// Charts that no environment uses. Who was to use them is not known.
    pub unused: BTreeSet<String>,
}

impl DotK8s {
    /// Recognises what is below `.k8s/`.
    ///
    /// - Kustomize renders an environment's folder that has a kustomization, unless another kustomization refers to it as a
    ///   base, a resource or a component. Then the folder is not an environment. Nor is a kustomization anywhere else.
    /// - Helm renders an environment's folder that has a `Chart.yaml`, with `values-<environment>.yaml` if there is one.
    /// - Helm renders an environment's folder whose only YAML is `values*.yaml`: from the chart in it, otherwise from the only
    ///   chart of its kube context, otherwise from the only chart below `.k8s/`. That chart is not an environment.
    /// - Every other folder of a kube context with YAML that may be manifests is an environment of plain manifests.
    /// - `jobs/` and `cron_jobs/` next to the environments are never rendered.
    pub fn read(
        files: &BTreeMap<&str, &str>,
        kustomizations: &Kustomizations,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Self {
        let files: BTreeMap<&str, &str> = files
            .iter()
            .map(|(path, text)| (*path, *text))
            .filter(|(path, _)| inside(path).is_some())
            .collect();
        let mut found = Self::default();
        found.find_kustomizations(kustomizations);
        found.find_charts(&files, diagnostics);
        found.find_folders(&files);
        found
    }

    /// The environments.
    pub fn environments(&self) -> Vec<EnvironmentLayout> {
        let rendered = self.environments.values().cloned().map(Source::Rendered);
        let all = rendered.chain(self.folders.iter().cloned().map(Source::Folder));
        let layout = |source: Source| {
            let folder = source.folder().to_string();
            let (kube_context, name) = environment_of(&folder)?;
            let origin = Origin::Found(folder.clone());
            let context = Sourced {
                value: kube_context.to_string(),
                origin: origin.clone(),
            };
            let root = format!("{DOT_K8S}/{kube_context}");
            let mut layout = EnvironmentLayout::found(name, context, &root, Sourced { value: source, origin });
            let bases = self.shared.iter().filter(|(_, users)| users.contains(&folder));
            layout.inputs.extend(bases.map(|(base, _)| base.clone()));
            Some(layout)
        };
        all.filter_map(layout).collect()
    }

    /// Whether the file at `path` is a plain manifest, not the input of a renderer.
    pub fn reads_as_it_is(&self, path: &str) -> bool {
        let is_input = |dir: &str| {
            self.environments.contains_key(dir) || self.shared.contains_key(dir) || self.unused.contains(dir)
        };
        !ancestors(path).any(is_input)
    }

    /// Whether every file is a plain manifest.
    pub fn is_plain(&self) -> bool {
        self.environments.is_empty() && self.shared.is_empty() && self.unused.is_empty()
    }

    fn find_kustomizations(&mut self, kustomizations: &Kustomizations) {
        let candidates: Vec<(&str, &str, &str)> = kustomizations
            .references
            .keys()
            .filter(|folder| !kustomizations.components.contains(*folder))
            .filter_map(|folder| environment_of(folder).map(|(context, name)| (folder.as_str(), context, name)))
            .collect();
        let reached: BTreeMap<&str, BTreeSet<String>> = candidates
            .iter()
            .map(|(folder, ..)| (*folder, kustomizations.reachable(folder)))
            .collect();
        let uses = |user: &str, folder: &str| {
            let mut bases = reached.get(user).into_iter().flatten();
            bases.any(|base| base == folder || is_below(folder, base))
        };
        for (folder, kube_context, environment) in &candidates {
            // If two kustomizations use each other, neither is the base: let Kustomize report the cycle.
            let user = candidates
                .iter()
                .find(|(user, ..)| user != folder && uses(user, folder) && !uses(folder, user));
            if user.is_none() {
                self.environments.insert(
                    (*folder).to_string(),
                    RenderedEnvironment {
                        kube_context: (*kube_context).to_string(),
                        environment: (*environment).to_string(),
                        folder: (*folder).to_string(),
                        by: RenderedBy::Kustomize,
                    },
                );
            }
        }
        for (user, bases) in &reached {
            // The bases of a base belong to the environment that uses it.
            if self.environments.contains_key(*user) {
                for base in bases.iter().filter(|base| !self.environments.contains_key(*base)) {
                    let users = self.shared.entry(base.clone()).or_default();
                    users.insert((*user).to_string());
                }
            }
        }
    }

    fn find_folders(&mut self, files: &BTreeMap<&str, &str>) {
        for (path, text) in files.iter().filter(|(path, _)| is_yaml(path)) {
            let folder = ancestors(path).find(|dir| environment_of(dir).is_some());
            if let Some(folder) = folder
                && self.reads_as_it_is(path)
                && may_hold_objects(text)
            {
                self.folders.insert(folder.to_string());
            }
        }
    }

    fn find_charts(&mut self, files: &BTreeMap<&str, &str>, diagnostics: &mut Vec<Diagnostic>) {
        let all: BTreeSet<&str> = files
            .keys()
            .filter_map(|path| path.rsplit_once('/'))
            .filter(|(folder, name)| *name == CHART && !is_shared_folder(folder))
            .map(|(folder, _)| folder)
            .collect();
        let mut charts = BTreeSet::new();
        for chart in &all {
            if self.environments.contains_key(*chart) {
                diagnostics.push(two_renderers(chart, files));
            }
            let in_chart = ancestors(chart).any(|dir| all.contains(dir));
            if !in_chart && self.reads_as_it_is(&format!("{chart}/{CHART}")) {
                charts.insert(*chart);
            }
        }
        if charts.is_empty() {
            return;
        }
        // By environment folder: its YAML files outside charts.
        let mut folders: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for path in files.keys().filter(|path| is_yaml(path) && self.reads_as_it_is(path)) {
            let folder = ancestors(path).find(|dir| environment_of(dir).is_some());
            if let Some(folder) = folder
                && !ancestors(path).any(|dir| charts.contains(dir))
            {
                folders.entry(folder).or_default().push(path);
            }
        }
        folders.retain(|_, files| files.iter().all(|path| is_values(path)));
        let mut used: BTreeSet<&str> = BTreeSet::new();
        let mut without: Vec<(&str, Vec<&str>)> = Vec::new();
        for (folder, values) in folders {
            let inner: Vec<&str> = charts.iter().copied().filter(|chart| is_below(chart, folder)).collect();
            match inner.as_slice() {
                [] => without.push((folder, values)),
                [chart] => {
                    used.insert(chart);
                    self.add_helm(folder, chart, &values);
                }
                several => {
                    used.extend(several);
                    self.folders.insert(folder.to_string());
                    diagnostics.push(ambiguous_chart(folder, &values, several, files));
                }
            }
        }
        // First the chart of the environment's own kube context, then the remaining ones.
        for near in [true, false] {
            let free: Vec<&str> = charts.iter().copied().filter(|chart| !used.contains(chart)).collect();
            without.retain(|(folder, values)| {
                let kube_context = folder.rsplit_once('/').map_or(*folder, |(context, _)| context);
                let mut candidates = free.clone();
                candidates.retain(|chart| !near || is_below(chart, kube_context));
                match candidates.as_slice() {
                    [] => return true,
                    [chart] => {
                        let users = self.shared.entry((*chart).to_string()).or_default();
                        users.insert((*folder).to_string());
                        self.add_helm(folder, chart, values);
                    }
                    several => {
                        self.folders.insert((*folder).to_string());
                        diagnostics.push(ambiguous_chart(folder, values, several, files));
                    }
                }
                used.extend(candidates);
                false
            });
        }
        for chart in charts.into_iter().filter(|chart| !used.contains(chart)) {
            let Some((_, environment)) = environment_of(chart) else {
                diagnostics.push(unused_chart(chart, files));
                // Its templates are not manifests. Reading them would only repeat this error.
                self.unused.insert(chart.to_string());
                continue;
            };
            let own = ["-", "."]
                .into_iter()
                .flat_map(|joint| ["yaml", "yml"].map(|ending| format!("{chart}/values{joint}{environment}.{ending}")));
            let own: Vec<String> = own.filter(|path| files.contains_key(path.as_str())).collect();
            let own: Vec<&str> = own.iter().map(String::as_str).collect();
            self.add_helm(chart, chart, &own);
        }
    }

    fn add_helm(&mut self, folder: &str, chart: &str, values: &[&str]) {
        let Some((kube_context, environment)) = environment_of(folder) else {
            return;
        };
        // `values.yaml` has the general values, the others override them.
        let mut values: Vec<String> = values.iter().map(ToString::to_string).collect();
        values.sort_by_key(|path| {
            (
                !path.ends_with("/values.yaml") && !path.ends_with("/values.yml"),
                path.clone(),
            )
        });
        self.environments.insert(
            folder.to_string(),
            RenderedEnvironment {
                kube_context: kube_context.to_string(),
                environment: environment.to_string(),
                folder: folder.to_string(),
                by: RenderedBy::Helm {
                    chart: chart.to_string(),
                    values,
                    set: Vec::new(),
                    release: None,
                },
            },
        );
    }
}

/// Whether a file may hold objects, so that its folder is an environment: unless it is clearly something else. An empty file
/// may be one that cannot be read.
fn may_hold_objects(text: &str) -> bool {
    text.trim().is_empty() || text.contains("kind") || text.contains("{{") || !looks_like_a_mapping(text)
}

/// Whether a text is a YAML or JSON mapping, judged by the first line that says something.
fn looks_like_a_mapping(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim_end);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with(['#', '-']));
    first.is_some_and(|line| line.starts_with('{') || line.split_once(':').is_some_and(|(key, _)| !key.contains(' ')))
}

fn is_values(path: &str) -> bool {
    let name = file_name(path);
    let rest = name.strip_prefix("values");
    rest.is_some_and(|rest| rest.starts_with(['.', '-', '_']))
}

/// The first line of a file.
fn top(path: &str, files: &BTreeMap<&str, &str>) -> Span {
    let source = SourceFile::new(path, files.get(path).copied().unwrap_or_default());
    let length = source.text().find('\n').unwrap_or(source.text().len());
    Span::new(&source, 0..length)
}

fn two_renderers(folder: &str, files: &BTreeMap<&str, &str>) -> Diagnostic {
    let message = format!("`{folder}` is both a Kustomize folder and a Helm chart");
    Diagnostic::error("manifest::two-renderers", message)
        .at(&top(&format!("{folder}/{CHART}"), files), "")
        .hint(
            "only one program can render an environment: remove the kustomization, or move the chart into its own folder",
        )
}

fn ambiguous_chart(folder: &str, values: &[&str], charts: &[&str], files: &BTreeMap<&str, &str>) -> Diagnostic {
    let charts: Vec<String> = charts.iter().map(|chart| format!("`{chart}`")).collect();
    let message = format!(
        "`{folder}` holds only values, and several charts could use them: {}",
        charts.join(", ")
    );
    Diagnostic::error("manifest::ambiguous-chart", message)
        .at(&top(values.first().copied().unwrap_or_default(), files), "")
        .hint(format!(
            "move the chart into the environment's folder, for example to `{folder}/chart/`"
        ))
}

fn unused_chart(chart: &str, files: &BTreeMap<&str, &str>) -> Diagnostic {
    Diagnostic::error(
        "manifest::unused-chart",
        format!("no environment uses the chart `{chart}`"),
    )
    .at(&top(&format!("{chart}/{CHART}"), files), "")
    .hint(format!(
        "to use it, add a folder `{DOT_K8S}/<kube context>/<environment>/` with a `values.yaml` and no other YAML"
    ))
}
