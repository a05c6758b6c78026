//! Which environments are written down plainly, and which are rendered by Kustomize or Helm first.

use crate::tree::{CRON_JOBS, JOBS, ROOT};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};
use towpath_yaml::{Diagnostic, DuplicateKeys, Limits, Node, ParseOptions, SourceFile, Span, parse};

/// The names that Kustomize looks for in a folder.
///
/// Source: <https://kubectl.docs.kubernetes.io/references/kustomize/glossary/#kustomization>
const KUSTOMIZATIONS: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// The file that makes a folder a Helm chart.
const CHART: &str = "Chart.yaml";

/// The fields of a kustomization in which folders can stand.
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

/// How a repository's manifests are laid out: which environments are rendered, and from what.
///
/// Empty for a repository without Kustomize and Helm, whose files are read as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// By folder: `.k8s/live/dev`.
    environments: BTreeMap<String, RenderedEnvironment>,
    /// Folders that others are made from, with one of these: `.k8s/base`, `.k8s/live/dev`. They are no environments.
    shared: BTreeMap<String, String>,
}

/// An environment that a program renders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedEnvironment {
    /// The kube context.
    pub kube_context: String,
    /// The environment.
    pub environment: String,
    /// Its folder, from the repository's root: `.k8s/live/dev`.
    pub folder: String,
    /// By what, from what.
    pub by: RenderedBy,
}

/// The program that renders an environment, and what it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenderedBy {
    /// `kustomize build` of the environment's folder.
    Kustomize,
    /// `helm template`.
    Helm {
        /// The chart's folder, from the repository's root.
        chart: String,
        /// The files of values, from the repository's root; a later one wins. The chart's own `values.yaml` is not
        /// among them, for Helm reads that by itself.
        values: Vec<String>,
    },
}

impl RenderedBy {
    /// The program's name: `kustomize` or `helm`.
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
    /// Recognises the layout from the paths (from the repository's root, with `/`) and texts of the files below `.k8s/`.
    ///
    /// - An environment's folder with a kustomization is rendered by Kustomize, unless another kustomization names it as
    ///   a base, a resource or a component: then it is no environment. A kustomization anywhere else is no environment.
    /// - An environment's folder with a `Chart.yaml` is rendered by Helm, with `values-<environment>.yaml` when it has
    ///   one.
    /// - An environment's folder that holds no YAML but `values*.yaml` is rendered by Helm from the chart in it, else from
    ///   the only chart of its kube context, else from the only chart of the repository; that chart is no environment.
    /// - `jobs/` and `cron_jobs/` beside the environments are never rendered.
    ///
    /// The answer is the same with and without files that are not YAML.
    ///
    /// The diagnostics are errors, and nothing shall be rendered with one: those of the YAML reader (a kustomization
    /// that cannot be read), `manifest::outside-root`, `manifest::two-renderers`, `manifest::ambiguous-chart` and
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

    /// Whether every file is read as it is.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.environments.is_empty() && self.shared.is_empty()
    }

    /// The environments that are rendered, by folder.
    pub fn environments(&self) -> impl Iterator<Item = &RenderedEnvironment> {
        self.environments.values()
    }

    /// How an environment is rendered; `None` when its files are read as they are.
    #[must_use]
    pub fn rendered(&self, kube_context: &str, environment: &str) -> Option<&RenderedEnvironment> {
        self.environments.get(&format!("{ROOT}/{kube_context}/{environment}"))
    }

    /// Whether the file at `path` is a manifest as it is: no part of what is rendered.
    #[must_use]
    pub fn reads_as_it_is(&self, path: &str) -> bool {
        let path = path.strip_prefix("./").unwrap_or(path);
        self.is_plain()
            || !ancestors(path).any(|dir| self.environments.contains_key(dir) || self.shared.contains_key(dir))
    }

    /// The folders that environments are made from, each with one of these: `.k8s/base`, `.k8s/live/dev`. Neither they
    /// nor what is in them is an environment or a kube context.
    pub fn shared(&self) -> impl Iterator<Item = (&str, &str)> {
        self.shared
            .iter()
            .map(|(folder, user)| (folder.as_str(), user.as_str()))
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
            // A chart can have a template of such a name, which is wrong only if something is made from it.
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
            // Of two that use each other neither is the base: Kustomize says that they form a circle.
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
            // What a base is made from belongs to the environment behind it.
            if self.environments.contains_key(*user) {
                for base in bases.iter().filter(|base| !self.environments.contains_key(**base)) {
                    self.shared
                        .entry((*base).to_string())
                        .or_insert_with(|| (*user).to_string());
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
        // By environment's folder: the YAML in it that is in no chart.
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
        // A kube context's own chart first, then what no kube context has for its own.
        for near in [true, false] {
            let free: Vec<&str> = charts.iter().copied().filter(|chart| !used.contains(chart)).collect();
            without.retain(|(folder, values)| {
                let kube_context = folder.rsplit_once('/').map_or(*folder, |(context, _)| context);
                let mut candidates = free.clone();
                candidates.retain(|chart| !near || is_below(chart, kube_context));
                match candidates.as_slice() {
                    [] => return true,
                    [chart] => {
                        self.shared
                            .entry((*chart).to_string())
                            .or_insert_with(|| (*folder).to_string());
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
                // Its templates are no manifests: each would be one more complaint about the same.
                self.shared.insert(chart.to_string(), chart.to_string());
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
        // What `values.yaml` says is general, what the others say is particular.
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

/// Whether files that are not YAML are needed too (templates, what ConfigMaps are generated from): whether there is a
/// kustomization or a chart below `.k8s/` among `paths`, which are from the repository's root.
pub fn needs_every_file<'a>(paths: impl IntoIterator<Item = &'a str>) -> bool {
    paths.into_iter().any(|path| {
        let name = path.rsplit('/').next().unwrap_or(path);
        (name == CHART || KUSTOMIZATIONS.contains(&name)) && inside(path).is_some()
    })
}

/// Whether a file's name says that it is YAML, or JSON, which is YAML, too: what `kubectl apply --filename FOLDER` reads.
#[must_use]
pub fn is_yaml(path: &str) -> bool {
    [".yaml", ".yml", ".json"].iter().any(|end| path.ends_with(end))
}

/// The path inside `.k8s/`.
fn inside(path: &str) -> Option<&str> {
    path.strip_prefix("./")
        .unwrap_or(path)
        .strip_prefix(ROOT)?
        .strip_prefix('/')
}

/// The kube context and the environment whose folder this is.
fn environment_of(folder: &str) -> Option<(&str, &str)> {
    let (kube_context, environment) = inside(folder)?.split_once('/')?;
    let is_one = !environment.is_empty() && !environment.contains('/') && ![JOBS, CRON_JOBS].contains(&environment);
    is_one.then_some((kube_context, environment))
}

/// Whether a folder is `jobs/` or `cron_jobs/` beside the environments, or in one of these.
fn is_shared_folder(folder: &str) -> bool {
    let second = inside(folder).and_then(|inside| inside.split('/').nth(1));
    second.is_some_and(|second| [JOBS, CRON_JOBS].contains(&second))
}

/// The folders around a path, the nearest first.
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

/// The folders that a kustomization is made from, itself and those around it excepted.
fn reachable<'a>(from: &'a str, references: &'a BTreeMap<&str, BTreeSet<String>>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut next = vec![from];
    while let Some(folder) = next.pop() {
        for base in references.get(folder).into_iter().flatten() {
            let base = base.as_str();
            // Kustomize refuses a base around what is made from it; that shall be said of an environment.
            let around = base == from || is_below(from, base);
            if !around && references.contains_key(base) && reached.insert(base) {
                next.push(base);
            }
        }
    }
    reached
}

/// Whether a kustomization is a component, and the paths that it refers to; `None` for a file that is none but only
/// called like one: Flux has objects of that kind.
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
        // Kustomize takes fields in any case, and what it follows has to be looked at here.
        if !REFERENCES.iter().any(|name| name.eq_ignore_ascii_case(key)) {
            continue;
        }
        let items = field.value.as_sequence().unwrap_or_default();
        for item in items {
            // A transformer can stand there in full.
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

/// Where a reference leads; `None` when that is not in `.k8s/`.
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
    let message = format!("`{reference}` in `{key}` leads out of `{ROOT}/`");
    Diagnostic::error("manifest::outside-root", message)
        .at(span, "")
        .hint(format!(
            "what manifests are made from lies below `{ROOT}/`: move it there, into `{ROOT}/base/`, say"
        ))
}

/// The first line of a file of the tree.
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
            "one program renders an environment: remove the kustomization, or move the chart into a folder of its own",
        )
}

fn ambiguous_chart(folder: &str, values: &[&str], charts: &[&str], files: &BTreeMap<&str, &str>) -> Diagnostic {
    let charts: Vec<String> = charts.iter().map(|chart| format!("`{chart}`")).collect();
    let message = format!(
        "`{folder}` holds only values, and there is more than one chart that they could be for: {}",
        charts.join(", ")
    );
    Diagnostic::error("manifest::ambiguous-chart", message)
        .at(&top(values.first().copied().unwrap_or_default(), files), "")
        .hint(format!(
            "move the chart into the environment's folder: `{folder}/chart/`, say"
        ))
}

fn unused_chart(chart: &str, files: &BTreeMap<&str, &str>) -> Diagnostic {
    Diagnostic::error(
        "manifest::unused-chart",
        format!("no environment uses the chart `{chart}`"),
    )
    .at(&top(&format!("{chart}/{CHART}"), files), "")
    .hint(format!(
        "an environment that uses it is a folder `{ROOT}/<kube context>/<environment>/` with a `values.yaml` and no other YAML"
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
        // The laptop and the forge look at the YAML first: it has to say the same.
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
    fn a_plain_tree_is_none_of_ours() {
        check(&[], &[]);
        check(
            &[(".k8s/live/dev/web.yaml", O), (".k8s/live/jobs/migrate.yaml", O)],
            &[],
        );
        // Without a chart these are only strange names.
        check(
            &[(".k8s/live/dev/values.yaml", "a: 1\n"), (".k8s/live/dev/chart.yaml", O)],
            &[],
        );
        check(&[("deploy/kustomization.yaml", K), ("chart/Chart.yaml", C)], &[]);
        let (layout, _) = Layout::read([(".k8s/live/dev/web.yaml", O)]);
        assert!(layout.is_plain() && layout.reads_as_it_is(".k8s/live/dev/web.yaml"));
    }

    #[test]
    fn each_name_of_a_kustomization_counts() {
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
    fn an_object_of_flux_is_no_kustomization() {
        let flux = "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: a}\n";
        check(&[(".k8s/live/dev/kustomization.yaml", flux)], &[]);
    }

    #[test]
    fn a_base_is_no_environment_wherever_it_lies() {
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
    fn what_a_base_is_made_from_is_no_environment_either() {
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
    fn a_component_is_no_environment_though_nobody_names_it() {
        let component = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n";
        check(&[(".k8s/live/debug/kustomization.yaml", component)], &[]);
    }

    #[test]
    fn jobs_beside_the_environments_stay_plain() {
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
    fn a_circle_is_for_kustomize_to_say() {
        check(
            &[
                (".k8s/live/a/kustomization.yaml", "resources: [../b]\n"),
                (".k8s/live/b/kustomization.yaml", "resources: [../a]\n"),
            ],
            &[".k8s/live/a kustomize", ".k8s/live/b kustomize"],
        );
        // A base around its overlay: refused there too, and the other environments stay what they are.
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
    fn a_kustomization_around_environments_makes_no_base_of_them() {
        check(
            &[
                (".k8s/live/kustomization.yaml", "resources: [dev]\n"),
                (".k8s/live/dev/kustomization.yaml", K),
            ],
            &[".k8s/live/dev kustomize"],
        );
    }

    #[test]
    fn nothing_leads_out_of_the_folder_of_manifests() {
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
        // The same in what it is made from, hidden where templates lie.
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
    fn a_kustomization_that_is_no_yaml_is_said_with_its_place() {
        refused(
            &[(".k8s/live/dev/kustomization.yaml", "resources: [\n")],
            describe(&[(".k8s/live/dev/kustomization.yaml", "resources: [\n")]).1[0].code,
            ".k8s/live/dev/kustomization.yaml:",
        );
    }

    #[test]
    fn a_chart_in_an_environments_folder() {
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
    fn a_chart_beside_values_in_an_environments_folder() {
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
    fn one_chart_for_folders_of_values() {
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
    fn of_two_charts_none_is_guessed() {
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
    fn a_chart_that_nobody_uses_is_said() {
        for chart in [".k8s/chart", ".k8s/live/dev/chart"] {
            refused(
                &[(&format!("{chart}/Chart.yaml"), C), (".k8s/live/dev/web.yaml", O)],
                "manifest::unused-chart",
                chart,
            );
        }
    }

    #[test]
    fn one_program_renders_an_environment() {
        refused(
            &[(".k8s/live/dev/Chart.yaml", C), (".k8s/live/dev/kustomization.yaml", K)],
            "manifest::two-renderers",
            ".k8s/live/dev/Chart.yaml:1:1",
        );
    }

    #[test]
    fn what_is_not_rendered_is_read_as_before() {
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
        assert_eq!(tree.jobs("live", "plain").len(), 1);
    }
}
