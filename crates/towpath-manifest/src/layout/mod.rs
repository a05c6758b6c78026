//! Which environments consist of plain manifests, and which are rendered by Kustomize or Helm.

use crate::tree::{CRON_JOBS, JOBS, ROOT};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};
use towpath_yaml::{Diagnostic, DuplicateKeys, Limits, Node, ParseOptions, SourceFile, Span, parse};

/// The names of a kustomization file.
///
/// Source: <https://kubectl.docs.kubernetes.io/references/kustomize/glossary/#kustomization>
const KUSTOMIZATIONS: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// The file that marks a folder as a Helm chart.
const CHART: &str = "Chart.yaml";

/// The fields of a kustomization that can refer to folders.
///
/// Source: <https://kubectl.docs.kubernetes.io/references/kustomize/kustomization/>
const REFERENCES: [&str; 6] = [
    "resources",
    "bases",
    "components",
    "generators",
    "transformers",
    "validators",
];

/// The layout of a repository's manifests: which environments are rendered, and from what.
///
/// Empty for a repository without Kustomize and Helm, whose files are plain manifests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// By folder: `.k8s/live/dev`.
    environments: BTreeMap<String, RenderedEnvironment>,
    /// Folders that environments are rendered from, each with those environments: `.k8s/base`, `.k8s/live/dev`. They are not
    /// environments themselves.
    shared: BTreeMap<String, BTreeSet<String>>,
    /// Charts that no environment uses. Who was to use them is not known.
    unused: BTreeSet<String>,
}

/// An environment that a program renders.
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedEnvironment {
    pub kube_context: String,
    pub environment: String,
    /// Relative to the root of the repository: `.k8s/live/dev`.
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

impl Layout {
    /// Recognises the layout from the paths (relative to the root of the repository, with `/`) and texts of the files below
    /// `.k8s/`.
    ///
    /// - Kustomize renders an environment's folder that has a kustomization, unless another kustomization refers to it as a
    ///   base, a resource or a component. Then the folder is not an environment. Nor is a kustomization anywhere else.
    /// - Helm renders an environment's folder that has a `Chart.yaml`, with `values-<environment>.yaml` if there is one.
    /// - Helm renders an environment's folder whose only YAML is `values*.yaml`: from the chart in it, otherwise from the only
    ///   chart of its kube context, otherwise from the only chart of the repository. That chart is not an environment.
    /// - `jobs/` and `cron_jobs/` next to the environments are never rendered.
    ///
    /// Files that are not YAML do not change the result.
    ///
    /// All diagnostics are errors, and with one of them an environment that it concerns may not be rendered: those of the YAML
    /// reader (an invalid kustomization), `manifest::outside-root`, `manifest::two-renderers`, `manifest::ambiguous-chart` and
    /// `manifest::unused-chart`.
    pub fn read<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> (Self, Vec<Diagnostic>) {
        let files: BTreeMap<&str, &str> = files
            .into_iter()
            .map(|(path, text)| (path.strip_prefix("./").unwrap_or(path), text))
            .filter(|(path, _)| inside(path).is_some())
            .collect();
        let mut layout = Self::default();
        let mut diagnostics = Vec::new();
        if needs_every_file(files.keys().copied()) {
            layout.find_kustomizations(&files, &mut diagnostics);
            layout.find_charts(&files, &mut diagnostics);
            diagnostics.retain(Diagnostic::is_error);
        }
        (layout, diagnostics)
    }

    /// Whether every file is a plain manifest.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.environments.is_empty() && self.shared.is_empty() && self.unused.is_empty()
    }

    /// The rendered environments, sorted by folder.
    pub fn environments(&self) -> impl Iterator<Item = &RenderedEnvironment> {
        self.environments.values()
    }

    /// The renderer of an environment; `None` if its files are plain manifests.
    #[must_use]
    pub fn rendered(&self, kube_context: &str, environment: &str) -> Option<&RenderedEnvironment> {
        self.environments.get(&format!("{ROOT}/{kube_context}/{environment}"))
    }

    /// Whether the file at `path` is a plain manifest, not the input of a renderer.
    #[must_use]
    pub fn reads_as_it_is(&self, path: &str) -> bool {
        let path = path.strip_prefix("./").unwrap_or(path);
        let is_input = |dir: &str| {
            self.environments.contains_key(dir) || self.shared.contains_key(dir) || self.unused.contains(dir)
        };
        self.is_plain() || !ancestors(path).any(is_input)
    }

    /// Whether an environment can depend on the file or folder at `path`. It depends on its own files, on the files that all
    /// environments of its kube context share, and on the files that it is rendered from. It does not depend on files that only
    /// another environment has.
    #[must_use]
    pub fn concerns(&self, kube_context: &str, environment: &str, path: &str) -> bool {
        let path = path.strip_prefix("./").unwrap_or(path);
        let around = || std::iter::once(path).chain(ancestors(path));
        if around().any(|dir| self.unused.contains(dir)) {
            return true;
        }
        let users = around().find_map(|dir| self.shared.get(dir));
        if let Some(users) = users {
            return users.contains(&format!("{ROOT}/{kube_context}/{environment}"));
        }
        let Some(inside) = inside(path) else { return true };
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
        let Some(label) = &diagnostic.primary else { return true };
        self.concerns(kube_context, environment, &label.span.place().file)
    }

    /// The folders that environments are rendered from, each with one of those environments: `.k8s/base`, `.k8s/live/dev`.
    /// Neither they nor their subfolders are environments or kube contexts.
    pub fn shared(&self) -> impl Iterator<Item = (&str, &str)> {
        let used = self.shared.iter();
        used.filter_map(|(folder, users)| Some((folder.as_str(), users.first()?.as_str())))
            .chain(self.unused.iter().map(|chart| (chart.as_str(), chart.as_str())))
    }

    fn find_kustomizations(&mut self, files: &BTreeMap<&str, &str>, diagnostics: &mut Vec<Diagnostic>) {
        let mut references: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        let mut components = BTreeSet::new();
        let mut templates: BTreeMap<&str, Vec<Diagnostic>> = BTreeMap::new();
        for (path, text) in files {
            let Some((folder, name)) = path.rsplit_once('/') else {
                continue;
            };
            if !KUSTOMIZATIONS.contains(&name) {
                continue;
            }
            let mut wrong = Vec::new();
            let found = read_kustomization(folder, path, text, &mut wrong);
            // A chart can have a template with such a name. Report its errors only if an environment uses it.
            let in_chart = ancestors(folder).any(|dir| files.contains_key(format!("{dir}/{CHART}").as_str()));
            if in_chart && !wrong.is_empty() {
                templates.insert(folder, wrong);
                continue;
            }
            diagnostics.append(&mut wrong);
            let Some((is_component, found)) = found else { continue };
            references.entry(folder).or_default().extend(found);
            if is_component {
                components.insert(folder);
            }
        }
        for (folder, wrong) in templates {
            if references.values().any(|bases| bases.contains(folder)) {
                diagnostics.extend(wrong);
            }
        }
        let candidates: Vec<(&str, &str, &str)> = references
            .keys()
            .filter(|folder| !components.contains(*folder))
            .filter_map(|folder| environment_of(folder).map(|(context, name)| (*folder, context, name)))
            .collect();
        let reached: BTreeMap<&str, BTreeSet<&str>> = candidates
            .iter()
            .map(|(folder, ..)| (*folder, reachable(folder, &references)))
            .collect();
        let uses = |user: &str, folder: &str| {
            let mut bases = reached.get(user).into_iter().flatten();
            bases.any(|base| *base == folder || is_below(folder, base))
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
                for base in bases.iter().filter(|base| !self.environments.contains_key(**base)) {
                    let users = self.shared.entry((*base).to_string()).or_default();
                    users.insert((*user).to_string());
                }
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
                    several => diagnostics.push(ambiguous_chart(folder, values, several, files)),
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
                },
            },
        );
    }
}

/// Whether rendering needs more than the YAML files (templates, files for generated ConfigMaps): whether `paths`, relative to
/// the root of the repository, include a kustomization or a chart below `.k8s/`.
pub fn needs_every_file<'a>(paths: impl IntoIterator<Item = &'a str>) -> bool {
    paths.into_iter().any(|path| {
        let name = path.rsplit('/').next().unwrap_or(path);
        (name == CHART || KUSTOMIZATIONS.contains(&name)) && inside(path).is_some()
    })
}

/// Whether a file's name says that it is YAML, or JSON, which is valid YAML. `kubectl apply --filename FOLDER` reads the same
/// extensions.
#[must_use]
pub fn is_yaml(path: &str) -> bool {
    [".yaml", ".yml", ".json"].iter().any(|end| path.ends_with(end))
}

/// The path below `.k8s/`.
fn inside(path: &str) -> Option<&str> {
    path.strip_prefix("./")
        .unwrap_or(path)
        .strip_prefix(ROOT)?
        .strip_prefix('/')
}

/// The kube context and the environment, if this is an environment's folder.
fn environment_of(folder: &str) -> Option<(&str, &str)> {
    let (kube_context, environment) = inside(folder)?.split_once('/')?;
    let is_one = !environment.is_empty() && !environment.contains('/') && ![JOBS, CRON_JOBS].contains(&environment);
    is_one.then_some((kube_context, environment))
}

/// Whether a folder is `jobs/` or `cron_jobs/` next to the environments, or inside one of those.
fn is_shared_folder(folder: &str) -> bool {
    let second = inside(folder).and_then(|inside| inside.split('/').nth(1));
    second.is_some_and(|second| [JOBS, CRON_JOBS].contains(&second))
}

/// The folders that contain a path, innermost first.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(path.rsplit_once('/'), |(dir, _)| dir.rsplit_once('/')).map(|(dir, _)| dir)
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

fn is_values(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let rest = name.strip_prefix("values");
    rest.is_some_and(|rest| rest.starts_with(['.', '-', '_']))
}

/// The folders that a kustomization uses, except itself and the folders that contain it.
fn reachable<'a>(from: &'a str, references: &'a BTreeMap<&str, BTreeSet<String>>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut next = vec![from];
    while let Some(folder) = next.pop() {
        for base in references.get(folder).into_iter().flatten() {
            let base = base.as_str();
            // Kustomize refuses a base that contains its user. Leave that error to Kustomize.
            let around = base == from || is_below(from, base);
            if !around && references.contains_key(base) && reached.insert(base) {
                next.push(base);
            }
        }
    }
    reached
}

/// Whether a kustomization is a component, and the paths that it refers to. `None` for a file that only has the name of a
/// kustomization: Flux has objects of that kind.
fn read_kustomization(
    folder: &str,
    path: &str,
    text: &str,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<(bool, BTreeSet<String>)> {
    let source = SourceFile::new(path, text);
    let options = ParseOptions {
        limits: Limits {
            source_bytes: 1 << 20,
            depth: 100,
            nodes: 100_000,
            expanded_bytes: 8 << 20,
        },
        duplicate_keys: DuplicateKeys::Refuse,
        merge: true,
    };
    let (documents, wrong) = parse(&source, &options);
    let version = documents
        .first()
        .and_then(|node| node.get("apiVersion"))
        .and_then(Node::as_scalar);
    if version.is_some_and(|version| !version.text.starts_with("kustomize.config.k8s.io/")) {
        return None;
    }
    diagnostics.extend(wrong);
    let mut is_component = false;
    let mut references = BTreeSet::new();
    let fields = documents
        .iter()
        .filter_map(Node::as_mapping)
        .flat_map(|mapping| mapping.iter());
    for field in fields {
        let key = &field.key.text;
        if &**key == "kind" {
            is_component = field.value.as_scalar().is_some_and(|kind| &*kind.text == "Component");
        }
        // Kustomize ignores the case of fields, so check all that it would follow.
        if !REFERENCES.iter().any(|name| name.eq_ignore_ascii_case(key)) {
            continue;
        }
        let items = field.value.as_sequence().unwrap_or_default();
        for item in items {
            // An inline transformer is not a reference.
            let Some(reference) = item.as_scalar().filter(|scalar| !scalar.text.contains('\n')) else {
                continue;
            };
            match resolve(folder, &reference.text) {
                Some(found) => {
                    references.insert(found);
                }
                None => diagnostics.push(outside(item.span(), key, &reference.text)),
            }
        }
    }
    Some((is_component, references))
}

/// The folder that a reference leads to; `None` if it is outside `.k8s/`.
fn resolve(folder: &str, reference: &str) -> Option<String> {
    if reference.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = folder.split('/').collect();
    for part in reference.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (parts.first() == Some(&ROOT)).then(|| parts.join("/"))
}

fn outside(span: &Span, key: &str, reference: &str) -> Diagnostic {
    let message = format!("`{reference}` in `{key}` is outside `{ROOT}/`");
    Diagnostic::error("manifest::outside-root", message)
        .at(span, "")
        .hint(format!(
            "everything that manifests are rendered from has to be below `{ROOT}/`: move it there, for example into `{ROOT}/base/`"
        ))
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
        "to use it, add a folder `{ROOT}/<kube context>/<environment>/` with a `values.yaml` and no other YAML"
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Tree;

    /// `.k8s/live/dev kustomize` or `.k8s/live/dev helm <chart> <values>…`, and `.k8s/base shared`.
    fn describe(files: &[(&str, &str)]) -> (Vec<String>, Vec<Diagnostic>) {
        let (layout, diagnostics) = Layout::read(files.iter().copied());
        let mut lines: Vec<String> = layout
            .environments()
            .map(|environment| match &environment.by {
                RenderedBy::Kustomize => format!("{} kustomize", environment.folder),
                RenderedBy::Helm { chart, values } => {
                    let words: Vec<&str> = std::iter::once(chart).chain(values).map(String::as_str).collect();
                    format!("{} helm {}", environment.folder, words.join(" "))
                }
            })
            .collect();
        lines.extend(layout.shared().map(|(folder, _)| format!("{folder} shared")));
        (lines, diagnostics)
    }

    fn check(files: &[(&str, &str)], expect: &[&str]) {
        let (lines, diagnostics) = describe(files);
        assert_eq!(lines, expect, "{files:?}");
        assert_eq!(diagnostics, [], "{files:?}");
        // Callers look at the YAML files first: they have to give the same result.
        let yaml: Vec<_> = files.iter().copied().filter(|(path, _)| is_yaml(path)).collect();
        if !files.iter().any(|(path, _)| path.ends_with("/Kustomization")) {
            assert_eq!(describe(&yaml).0, expect, "the YAML of {files:?}");
        }
    }

    fn refused(files: &[(&str, &str)], code: &str, says: &str) {
        let (_, diagnostics) = describe(files);
        let [diagnostic] = diagnostics.as_slice() else {
            panic!("{diagnostics:?}")
        };
        assert_eq!(diagnostic.code, code);
        let text = diagnostic.render(false);
        assert!(text.contains(says), "{text}");
    }

    const K: &str = "resources: [web.yaml]\n";
    const C: &str = "apiVersion: v2\nname: app\nversion: 0.1.0\n";
    const O: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";

    #[test]
    fn a_plain_tree_has_no_layout() {
        check(&[], &[]);
        check(
            &[(".k8s/live/dev/web.yaml", O), (".k8s/live/jobs/migrate.yaml", O)],
            &[],
        );
        // Without a chart, these are ordinary file names.
        check(
            &[(".k8s/live/dev/values.yaml", "a: 1\n"), (".k8s/live/dev/chart.yaml", O)],
            &[],
        );
        check(&[("deploy/kustomization.yaml", K), ("chart/Chart.yaml", C)], &[]);
        let (layout, _) = Layout::read([(".k8s/live/dev/web.yaml", O)]);
        assert!(layout.is_plain() && layout.reads_as_it_is(".k8s/live/dev/web.yaml"));
    }

    #[test]
    fn every_name_of_a_kustomization_is_recognised() {
        for name in KUSTOMIZATIONS {
            let path = format!(".k8s/live/dev/{name}");
            check(
                &[(&path, K), (".k8s/live/dev/web.yaml", O)],
                &[".k8s/live/dev kustomize"],
            );
            check(&[(&format!("./{path}"), K)], &[".k8s/live/dev kustomize"]);
        }
        check(
            &[(".k8s/live/dev/kustomization.yaml", "")],
            &[".k8s/live/dev kustomize"],
        );
    }

    #[test]
    fn a_flux_object_is_no_kustomization() {
        let flux = "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: a}\n";
        check(&[(".k8s/live/dev/kustomization.yaml", flux)], &[]);
    }

    #[test]
    fn a_base_is_no_environment_wherever_it_is() {
        for (base, reference) in [
            (".k8s/base", "../../base"),
            (".k8s/live/base", "../base"),
            (".k8s/live/base", "./../base/"),
            (".k8s/base/web", "../../base/web"),
            (".k8s/live/dev/base", "base"),
            (".k8s/shared/deep/down/base", "../../shared/deep/down/base"),
        ] {
            for key in ["resources", "bases", "components", "transformers", "Resources"] {
                let overlay = format!("{key}:\n  - {reference}\n");
                check(
                    &[
                        (&format!("{base}/kustomization.yaml"), K),
                        (&format!("{base}/web.yaml"), O),
                        (".k8s/live/dev/kustomization.yaml", &overlay),
                    ],
                    &[".k8s/live/dev kustomize", &format!("{base} shared")],
                );
            }
        }
    }

    #[test]
    fn the_bases_of_a_base_are_no_environments_either() {
        check(
            &[
                (".k8s/base/kustomization.yaml", "resources: [redis]\n"),
                (".k8s/base/redis/kustomization.yaml", K),
                (".k8s/base/other/kustomization.yaml", K),
                (".k8s/live/dev/kustomization.yaml", "resources: [../../base]\n"),
                (".k8s/live/prod/kustomization.yaml", "resources: [../dev]\n"),
            ],
            &[
                ".k8s/live/prod kustomize",
                ".k8s/base shared",
                ".k8s/base/redis shared",
                ".k8s/live/dev shared",
            ],
        );
    }

    #[test]
    fn an_unused_component_is_no_environment() {
        let component = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n";
        check(&[(".k8s/live/debug/kustomization.yaml", component)], &[]);
    }

    #[test]
    fn jobs_next_to_the_environments_stay_plain() {
        let files = [
            (".k8s/live/jobs/kustomization.yaml", K),
            (".k8s/live/cron_jobs/Chart.yaml", C),
            (".k8s/live/jobs/values.yaml", "a: 1\n"),
            (".k8s/live/dev/kustomization.yaml", K),
            (".k8s/live/dev/jobs/migrate.yaml", O),
        ];
        check(&files, &[".k8s/live/dev kustomize"]);
        let (layout, _) = Layout::read(files);
        assert!(layout.reads_as_it_is(".k8s/live/jobs/kustomization.yaml"));
        assert!(!layout.reads_as_it_is(".k8s/live/dev/jobs/migrate.yaml"));
        assert!(layout.reads_as_it_is(".k8s/live/development/web.yaml"));
        assert_eq!(layout.rendered("live", "dev").unwrap().environment, "dev");
        assert_eq!(layout.rendered("live", "prod"), None);
    }

    #[test]
    fn cycles_are_left_to_kustomize() {
        check(
            &[
                (".k8s/live/a/kustomization.yaml", "resources: [../b]\n"),
                (".k8s/live/b/kustomization.yaml", "resources: [../a]\n"),
            ],
            &[".k8s/live/a kustomize", ".k8s/live/b kustomize"],
        );
        // A base that contains its overlay is such a cycle, too. The other environments are not affected.
        check(
            &[
                (".k8s/live/kustomization.yaml", K),
                (".k8s/live/dev/kustomization.yaml", "resources: [..]\n"),
                (".k8s/live/prod/web.yaml", O),
            ],
            &[".k8s/live/dev kustomize"],
        );
    }

    #[test]
    fn a_kustomization_above_environments_does_not_make_them_bases() {
        check(
            &[
                (".k8s/live/kustomization.yaml", "resources: [dev]\n"),
                (".k8s/live/dev/kustomization.yaml", K),
            ],
            &[".k8s/live/dev kustomize"],
        );
    }

    #[test]
    fn a_reference_outside_the_folder_of_manifests_is_refused() {
        for reference in [
            "../../../../../etc",
            "../../../deploy",
            "/etc",
            "a/../../../../..",
            "https://../../../../../../x",
        ] {
            let text = format!("resources:\n  - web.yaml\n  - {reference}\n");
            refused(
                &[(".k8s/live/dev/kustomization.yaml", &text)],
                "manifest::outside-root",
                ".k8s/live/dev/kustomization.yaml:3:5",
            );
        }
        // The same in a base, hidden among templates.
        refused(
            &[
                (".k8s/x/Chart.yaml", C),
                (
                    ".k8s/x/templates/b/kustomization.yaml",
                    "resources: [../../../../../etc]\n",
                ),
                (".k8s/live/dev/kustomization.yaml", "resources: [../../x/templates/b]\n"),
                (".k8s/live/prod/values.yaml", "a: 1\n"),
            ],
            "manifest::outside-root",
            "`../../../../../etc`",
        );
    }

    #[test]
    fn an_invalid_kustomization_is_reported_with_its_place() {
        refused(
            &[(".k8s/live/dev/kustomization.yaml", "resources: [\n")],
            describe(&[(".k8s/live/dev/kustomization.yaml", "resources: [\n")]).1[0].code,
            ".k8s/live/dev/kustomization.yaml:",
        );
    }

    #[test]
    fn a_chart_in_the_folder_of_an_environment() {
        check(
            &[
                (".k8s/live/dev/Chart.yaml", C),
                (".k8s/live/dev/values.yaml", "a: 1\n"),
                (".k8s/live/dev/values-dev.yaml", "a: 2\n"),
                (".k8s/live/dev/values-prod.yaml", "a: 3\n"),
                (".k8s/live/dev/templates/web.yaml", "{{ .Values.a }}"),
                (".k8s/live/dev/templates/kustomization.yaml", "{{ if }}"),
                (".k8s/live/dev/charts/redis/Chart.yaml", C),
                (".k8s/live/prod/Chart.yaml", C),
            ],
            &[
                ".k8s/live/dev helm .k8s/live/dev .k8s/live/dev/values-dev.yaml",
                ".k8s/live/prod helm .k8s/live/prod",
            ],
        );
    }

    #[test]
    fn a_chart_next_to_values_in_the_folder_of_an_environment() {
        check(
            &[
                (".k8s/live/dev/app/Chart.yaml", C),
                (".k8s/live/dev/app/templates/web.yaml", "{{ .Values.a }}"),
                (".k8s/live/dev/values.yaml", "a: 1\n"),
                (".k8s/live/prod/app/Chart.yaml", C),
                (".k8s/live/prod/values.yaml", "a: 1\n"),
            ],
            &[
                ".k8s/live/dev helm .k8s/live/dev/app .k8s/live/dev/values.yaml",
                ".k8s/live/prod helm .k8s/live/prod/app .k8s/live/prod/values.yaml",
            ],
        );
    }

    #[test]
    fn one_chart_serves_several_folders_of_values() {
        for chart in [
            ".k8s/chart",
            ".k8s/live/chart",
            ".k8s/charts/app",
            ".k8s/live/charts/app",
            ".k8s/a/b/c/d",
        ] {
            check(
                &[
                    (&format!("{chart}/Chart.yaml"), C),
                    (&format!("{chart}/values.yaml"), "a: 0\n"),
                    (&format!("{chart}/templates/web.yaml"), "{{ .Values.a }}"),
                    (&format!("{chart}/templates/NOTES.txt"), "hello"),
                    (".k8s/live/dev/values.secret.yaml", "a: 1\n"),
                    (".k8s/live/dev/values-dev.yaml", "a: 1\n"),
                    (".k8s/live/dev/values.yaml", "a: 1\n"),
                    (".k8s/live/dev/README.md", "what it is"),
                    (".k8s/live/prod/values.yml", "a: 1\n"),
                    (".k8s/live/plain/web.yaml", O),
                ],
                &[
                    &format!(
                        ".k8s/live/dev helm {chart} .k8s/live/dev/values.yaml .k8s/live/dev/values-dev.yaml .k8s/live/dev/values.secret.yaml"
                    ),
                    &format!(".k8s/live/prod helm {chart} .k8s/live/prod/values.yml"),
                    &format!("{chart} shared"),
                ],
            );
        }
    }

    #[test]
    fn the_chart_of_the_kube_context_comes_first() {
        check(
            &[
                (".k8s/chart/Chart.yaml", C),
                (".k8s/live/chart/Chart.yaml", C),
                (".k8s/live/dev/values.yaml", "a: 1\n"),
                (".k8s/test/dev/values.yaml", "a: 1\n"),
            ],
            &[
                ".k8s/live/dev helm .k8s/live/chart .k8s/live/dev/values.yaml",
                ".k8s/test/dev helm .k8s/chart .k8s/test/dev/values.yaml",
                ".k8s/chart shared",
                ".k8s/live/chart shared",
            ],
        );
    }

    #[test]
    fn two_possible_charts_are_refused() {
        refused(
            &[
                (".k8s/charts/a/Chart.yaml", C),
                (".k8s/charts/b/Chart.yaml", C),
                (".k8s/live/dev/values.yaml", "a: 1\n"),
            ],
            "manifest::ambiguous-chart",
            "`.k8s/charts/a`, `.k8s/charts/b`",
        );
        refused(
            &[
                (".k8s/live/dev/a/Chart.yaml", C),
                (".k8s/live/dev/b/Chart.yaml", C),
                (".k8s/live/dev/values.yaml", "a: 1\n"),
            ],
            "manifest::ambiguous-chart",
            ".k8s/live/dev/values.yaml:1:1",
        );
    }

    #[test]
    fn an_unused_chart_is_reported() {
        for chart in [".k8s/chart", ".k8s/live/dev/chart"] {
            refused(
                &[(&format!("{chart}/Chart.yaml"), C), (".k8s/live/dev/web.yaml", O)],
                "manifest::unused-chart",
                chart,
            );
        }
    }

    #[test]
    fn two_renderers_for_one_environment_are_refused() {
        refused(
            &[(".k8s/live/dev/Chart.yaml", C), (".k8s/live/dev/kustomization.yaml", K)],
            "manifest::two-renderers",
            ".k8s/live/dev/Chart.yaml:1:1",
        );
    }

    #[test]
    fn plain_environments_are_read_next_to_rendered_ones() {
        let files = [
            (".k8s/base/kustomization.yaml", K),
            (".k8s/base/web.yaml", O),
            (".k8s/live/dev/kustomization.yaml", "resources: [../../base]\n"),
            (".k8s/live/plain/web.yaml", O),
            (
                ".k8s/live/jobs/migrate.yaml",
                "apiVersion: batch/v1\nkind: Job\nmetadata: {name: migrate}\n",
            ),
        ];
        let (layout, _) = Layout::read(files);
        let (tree, diagnostics) = Tree::read(files.into_iter().filter(|(path, _)| layout.reads_as_it_is(path)));
        assert_eq!(diagnostics, []);
        assert_eq!(tree.kube_contexts.keys().collect::<Vec<_>>(), ["live"]);
        assert_eq!(
            tree.kube_contexts["live"].environments.keys().collect::<Vec<_>>(),
            ["plain"]
        );
        assert_eq!(tree.jobs("live", "plain", "x").len(), 1);
    }
}
