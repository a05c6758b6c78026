//! The layouts that other tools leave behind: overlays, charts with values for each environment, folders of manifests.

use super::{
    environment::{EnvironmentLayout, Origin, RenderedBy, RenderedEnvironment, Source, Sourced},
    kustomization::Kustomizations,
    paths::{
        CHART, CRON_JOBS, JOBS, KUSTOMIZATIONS, ListedPath, ancestors, file_name, inside, is_below, is_in, is_yaml,
        join, parent,
    },
};
use std::collections::{BTreeMap, BTreeSet};

/// The name of an environment that nothing names.
const UNNAMED: &str = "default";

/// The kube context of environments for which nothing names one.
pub(super) const KUBE_CONTEXT: &str = "default";

/// Words of environments' names.
const ENVIRONMENTS: [&str; 43] = [
    "acc",
    "acceptance",
    "alpha",
    "beta",
    "canary",
    "ci",
    "demo",
    "dev",
    "devel",
    "develop",
    "development",
    "dr",
    "e2e",
    "eph",
    "int",
    "integration",
    "live",
    "local",
    "nonprod",
    "perf",
    "performance",
    "pre",
    "preprod",
    "preproduction",
    "preview",
    "prd",
    "prod",
    "production",
    "qa",
    "rc",
    "rehearsal",
    "sandbox",
    "sbx",
    "sit",
    "stage",
    "staging",
    "stg",
    "systest",
    "test",
    "testing",
    "training",
    "tst",
    "uat",
];

/// Names of folders and files that belong to several environments.
const COMMON: [&str; 24] = [
    "all",
    "base",
    "bases",
    "chart",
    "common",
    "component",
    "components",
    "default",
    "defaults",
    "example",
    "examples",
    "global",
    "lib",
    "lint",
    "minimal",
    "sample",
    "samples",
    "schema",
    "secret",
    "secrets",
    "shared",
    "template",
    "templates",
    "tests",
];

/// Folders that only hold the environments' folders.
const HOLDERS: [&str; 8] = [
    "env",
    "environment",
    "environments",
    "envs",
    "overlay",
    "overlays",
    "stages",
    "variants",
];

/// Words in the name of a folder of manifests.
const MANIFESTS: [&str; 10] = [
    "deploy",
    "deployment",
    "deployments",
    "k8s",
    "kube",
    "kubernetes",
    "manifest",
    "manifests",
    "openshift",
    "specifications",
];

/// Folders that hold charts, kustomizations or values.
const SOURCES: [&str; 6] = ["chart", "charts", "helm", "kustomization", "kustomize", "values"];

/// Folders around what is not deployed.
const NOT_DEPLOYED: [&str; 17] = [
    ".circleci",
    ".git",
    ".github",
    "__tests__",
    "doc",
    "docs",
    "example",
    "examples",
    "fixtures",
    "node_modules",
    "sample",
    "samples",
    "spec",
    "testdata",
    "tests",
    "third_party",
    "vendor",
];

/// How many folders may be around a folder of manifests.
const DEEPEST: usize = 4;

/// In how many folders to look for a chart's values: the chart's own, and those around it.
const FARTHEST_VALUES: usize = 4;

/// The kinds of layouts, the most telling first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Shape {
    Overlays,
    Chart,
    Folders,
    /// The only environment of its folder, which nothing names.
    Alone,
}

/// Environments that are found together.
struct Group {
    shape: Shape,
    environments: Vec<EnvironmentLayout>,
}

/// What a repository without `.k8s/` has.
#[derive(Default)]
pub(super) struct Elsewhere {
    /// The environments, the most plausible first. Several may have the same name.
    pub environments: Vec<EnvironmentLayout>,
    /// Less plausible ones, which are in force only if `manifests` in `towpath.toml` names their folder.
    pub others: Vec<EnvironmentLayout>,
}

fn words(name: &str) -> impl Iterator<Item = String> {
    name.split(|c: char| !c.is_ascii_alphanumeric())
        .map(|word| word.trim_end_matches(|c: char| c.is_ascii_digit()).to_ascii_lowercase())
}

fn has_word(name: &str, known: &[&str]) -> bool {
    let whole = name.to_ascii_lowercase();
    known.contains(&whole.as_str())
        || name
            .split(|c: char| !c.is_ascii_alphanumeric())
            .any(|word| known.contains(&word.to_ascii_lowercase().as_str()))
        || words(name).any(|word| known.contains(&word.as_str()))
}

/// Whether a name is that of an environment: `dev`, `preprod-eu`, `uat2`.
fn names_an_environment(name: &str) -> bool {
    has_word(name, &ENVIRONMENTS) && !has_word(name, &COMMON)
}

/// Whether a folder holds nothing that is deployed, such as examples.
fn is_not_deployed(folder: &str) -> bool {
    let parts: Vec<&str> = folder.split('/').collect();
    parts.len() > DEEPEST + 1 || parts.iter().any(|part| NOT_DEPLOYED.contains(part))
}

/// Whether a text has a Kubernetes object: `apiVersion` and `kind` where an object has them.
fn has_object(text: &str) -> bool {
    let mut documents = text.split("\n---");
    documents.any(|document| {
        let field = |name: &str| {
            document.lines().find_map(|line| {
                let line = line.trim_start_matches("--- ");
                let rest = line.strip_prefix(name)?.strip_prefix(':')?;
                Some(rest.trim().trim_matches(['"', '\'']))
            })
        };
        let in_flow = document.trim_start_matches("---").trim_start().starts_with('{');
        let is_other = |version: &str| OTHER_VERSIONS.iter().any(|other| version.starts_with(other));
        match (field("apiVersion"), field("kind")) {
            (Some(version), Some(kind)) => !(is_other(version) || version == "v1" && kind == "Config"),
            _ => in_flow && document.contains("apiVersion") && document.contains("kind"),
        }
    })
}

/// The start of `apiVersion` in files of other programs.
const OTHER_VERSIONS: [&str; 8] = [
    "backstage.io/",
    "config.kubernetes.io/",
    "ctlptl.dev/",
    "k3d.io/",
    "kind.x-k8s.io/",
    "kustomize.config.k8s.io/",
    "kubeadm.k8s.io/",
    "skaffold/",
];

/// Finds the environments outside of `.k8s/`.
///
/// - Kustomize: a folder with a kustomization that is named after an environment, or is below `overlays/`, `envs/` or the like.
/// - Helm: a chart with values for each environment: `values-<env>.yaml`, `values.<env>.yaml`, `<env>-values.yaml`,
///   `values/<env>.yaml` and `env/<env>/values.yaml`, next to the chart, in it, or around it.
/// - Plain manifests: folders named after environments below a folder such as `k8s`, `kubernetes`, `deploy` or `manifests`.
/// - A kustomization, a chart or a folder of manifests without any environment's name is one environment called `default`. It
///   counts only if no environment has a name.
///
/// With `folder`, only what is there counts, and that folder may hold manifests whatever its name is.
pub(super) fn find(files: &BTreeMap<&str, &str>, folder: Option<&str>, kustomizations: &Kustomizations) -> Elsewhere {
    let files: BTreeMap<&str, &str> = files
        .iter()
        .filter(|(path, _)| inside(path).is_none())
        .map(|(path, text)| (*path, *text))
        .collect();
    let charts: Vec<&str> = outermost_charts(&files);
    let mut groups = overlays(kustomizations, &charts);
    let values = Values::of(&files);
    groups.extend(charts.iter().map(|chart| chart_group(chart, &values, &files)));
    groups.extend(folders(&files, folder, kustomizations, &charts));
    sort(groups, folder)
}

fn sort(mut groups: Vec<Group>, folder: Option<&str>) -> Elsewhere {
    groups.sort_by_key(|group| (std::cmp::Reverse(group.environments.len()), group.shape));
    let is_asked_for = |group: &Group| {
        let mut roots = group.environments.iter().map(|environment| environment.root.as_str());
        folder.is_none_or(|folder| roots.any(|root| is_in(root, folder)))
    };
    let is_named = groups
        .iter()
        .any(|group| is_asked_for(group) && group.shape != Shape::Alone);
    let (known, others): (Vec<Group>, Vec<Group>) = groups
        .into_iter()
        .partition(|group| is_asked_for(group) && (!is_named || group.shape != Shape::Alone));
    let flat = |groups: Vec<Group>| groups.into_iter().flat_map(|group| group.environments).collect();
    Elsewhere {
        environments: flat(known),
        others: flat(others),
    }
}

/// The folders and files of a repository in which environments may be, judged by the paths of all its files, and what cannot
/// be read where they may be. With `folder`, only what is there, and the values around its charts.
pub(super) fn places(listed: &[ListedPath], folder: Option<&str>) -> BTreeSet<String> {
    let listed = || listed.iter().filter(|listed| inside(&listed.path).is_none());
    let paths: BTreeMap<&str, &str> = listed().map(|listed| (listed.path.as_str(), "")).collect();
    let mut places = BTreeSet::new();
    for path in paths.keys() {
        let around = parent(path);
        let is_kustomization = KUSTOMIZATIONS.contains(&file_name(path));
        if is_kustomization && !around.is_empty() && !is_not_deployed(parent(around)) {
            places.insert(around.to_string());
        }
        if is_yaml(path)
            && let Some(root) = manifests_folder(path, folder)
        {
            places.insert(root.to_string());
        }
    }
    let values = Values::of(&paths);
    for chart in outermost_charts(&paths) {
        places.insert(chart.to_string());
        if let Some((around, values)) = values.around(chart) {
            places.extend(values.into_values().flatten().map(ToString::to_string));
            places.extend(Values::general(chart, around, &paths));
        }
    }
    let beside: BTreeSet<String> = places.iter().map(|place| parent(place).to_string()).collect();
    let unread = listed().filter(|listed| listed.is_unread && may_hide(&listed.path, folder, &beside));
    places.extend(unread.map(|listed| listed.path.clone()));
    if let Some(folder) = folder {
        places.retain(|place| is_in(place, folder) || !is_folder(place, &paths));
        places.insert(folder.to_string());
    }
    places
}

/// Whether a path that cannot be read may be a folder with environments, or what one is made from. `beside` has the folders that
/// directly hold places of other environments.
fn may_hide(path: &str, folder: Option<&str>, beside: &BTreeSet<String>) -> bool {
    if let Some(folder) = folder {
        return is_in(path, folder) || is_below(folder, path);
    }
    let mut around = std::iter::once(path).chain(ancestors(path));
    let is_telling = |part: &str| has_word(part, &MANIFESTS) || HOLDERS.contains(&part) || SOURCES.contains(&part);
    let is_beside = !parent(path).is_empty() && beside.contains(parent(path));
    !is_not_deployed(path) && (is_beside || around.any(|part| is_telling(file_name(part))))
}

fn environment(name: &str, root: &str, source: Source, evidence: &str) -> EnvironmentLayout {
    let kube_context = Sourced {
        value: KUBE_CONTEXT.to_string(),
        origin: Origin::Convention("`default`, where nothing names another"),
    };
    let source = Sourced {
        value: source,
        origin: Origin::Found(evidence.to_string()),
    };
    EnvironmentLayout::found(name, kube_context, root, source)
}

fn rendered(name: &str, folder: &str, by: RenderedBy) -> Source {
    Source::Rendered(RenderedEnvironment {
        kube_context: KUBE_CONTEXT.to_string(),
        environment: name.to_string(),
        folder: folder.to_string(),
        by,
    })
}

fn overlays(kustomizations: &Kustomizations, charts: &[&str]) -> Vec<Group> {
    let leaves: Vec<&str> = kustomizations
        .references
        .keys()
        .map(String::as_str)
        .filter(|folder| !folder.is_empty() && inside(folder).is_none() && !kustomizations.components.contains(*folder))
        .filter(|folder| !is_not_deployed(parent(folder)) && !NOT_DEPLOYED.contains(&file_name(folder)))
        .filter(|folder| !charts.iter().any(|chart| is_below(folder, chart)))
        .collect();
    let (named, unnamed): (Vec<&str>, Vec<&str>) = leaves.into_iter().partition(|folder| {
        let name = file_name(folder);
        let is_held = HOLDERS.contains(&file_name(parent(folder))) && !has_word(name, &COMMON);
        names_an_environment(name) || is_held
    });
    let reached: BTreeMap<&str, BTreeSet<String>> = named
        .iter()
        .map(|folder| (*folder, kustomizations.reachable(folder)))
        .collect();
    let uses = |user: &str, base: &str| reached.get(user).is_some_and(|bases| bases.contains(base));
    let is_base = |folder: &str| named.iter().any(|user| uses(user, folder) && !uses(folder, user));
    let mut groups: BTreeMap<&str, Vec<EnvironmentLayout>> = BTreeMap::new();
    for folder in named.iter().filter(|folder| !is_base(folder)) {
        groups.entry(parent(folder)).or_default().push(overlay(
            file_name(folder),
            parent(folder),
            folder,
            kustomizations,
        ));
    }
    let named_groups = groups.into_values().map(|environments| Group {
        shape: Shape::Overlays,
        environments,
    });
    // A kustomization that no other uses, and that is not a base by its name.
    let is_used = |folder: &str| {
        let mut others = kustomizations.references.iter();
        others.any(|(user, references)| user != folder && references.contains(folder))
    };
    let alone = unnamed
        .iter()
        .filter(|folder| !is_used(folder) && !has_word(file_name(folder), &COMMON))
        .map(|folder| Group {
            shape: Shape::Alone,
            environments: vec![overlay(UNNAMED, folder, folder, kustomizations)],
        });
    named_groups.chain(alone).collect()
}

fn overlay(name: &str, root: &str, folder: &str, kustomizations: &Kustomizations) -> EnvironmentLayout {
    let source = rendered(name, folder, RenderedBy::Kustomize);
    let mut found = environment(name, root, source, folder);
    found.inputs.extend(kustomizations.reachable(folder));
    found
}

/// The charts that are in no other chart.
fn outermost_charts<'a>(files: &BTreeMap<&'a str, &str>) -> Vec<&'a str> {
    let is_chart = |folder: &str| files.contains_key(join(folder, CHART).as_str());
    // Everything in the repository may belong to a chart at its root, so `towpath.toml` has to name it.
    if files.contains_key(CHART) {
        return Vec::new();
    }
    files
        .iter()
        .filter(|(path, text)| file_name(path) == CHART && !is_library(text))
        .map(|(path, _)| parent(path))
        .filter(|folder| !is_not_deployed(parent(folder)) && !NOT_DEPLOYED.contains(&file_name(folder)))
        .filter(|folder| !ancestors(folder).any(is_chart))
        .collect()
}

/// Whether a `Chart.yaml` is that of a chart that only others use.
///
/// Source: <https://helm.sh/docs/topics/library_charts/>
fn is_library(text: &str) -> bool {
    let mut types = text.lines().filter_map(|line| line.strip_prefix("type:"));
    types.any(|kind| kind.trim().trim_matches(['"', '\'']) == "library")
}

/// The environment that a file has values for, and the folder that the values are for.
fn values_of(path: &str) -> Option<(&str, &str)> {
    let (folder, name) = (parent(path), file_name(path));
    let stem = name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".yml"))?;
    let named = |rest: &'static [&'static str]| {
        let mut affixes = rest.iter();
        affixes.find_map(|joint| {
            stem.strip_prefix("values")
                .and_then(|rest| rest.strip_prefix(joint))
                .or_else(|| stem.strip_suffix("values").and_then(|rest| rest.strip_suffix(joint)))
        })
    };
    if let Some(environment) = named(&["-", ".", "_"]) {
        // Values may be for one environment in a folder of such files.
        let around = match file_name(folder) {
            "values" => parent(folder),
            _ => folder,
        };
        return Some((environment, around));
    }
    let around = parent(folder);
    match file_name(folder) {
        "values" => Some((stem, around)),
        holder if HOLDERS.contains(&holder) && stem != "values" => Some((stem, around)),
        environment if stem == "values" && names_an_environment(environment) => match file_name(around) {
            holder if HOLDERS.contains(&holder) || holder == "values" => Some((environment, parent(around))),
            _ => Some((environment, around)),
        },
        _ => None,
    }
}

/// The files with values: by the folder that they are for, the environments and the files.
struct Values<'a>(BTreeMap<&'a str, Vec<(&'a str, &'a str)>>);

impl<'a> Values<'a> {
    fn of(files: &BTreeMap<&'a str, &str>) -> Self {
        let mut by_folder: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
        for path in files.keys() {
            if let Some((name, folder)) = values_of(path)
                && !name.is_empty()
                && !has_word(name, &COMMON)
            {
                by_folder.entry(folder).or_default().push((name, path));
            }
        }
        by_folder.retain(|_, values| values.iter().any(|(name, _)| names_an_environment(name)));
        Self(by_folder)
    }

    /// The nearest folder in or around a chart that has values for environments, and those values by environment.
    fn around(&self, chart: &'a str) -> Option<(&'a str, BTreeMap<&'a str, Vec<&'a str>>)> {
        let around = std::iter::once(chart)
            .chain(ancestors(chart))
            .chain(std::iter::once(""));
        let (folder, found) = around
            .take(FARTHEST_VALUES)
            .find_map(|folder| Some((folder, self.0.get(folder)?)))?;
        let mut values: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, path) in found {
            values.entry(name).or_default().push(path);
        }
        Some((folder, values))
    }

    /// The general values of a chart whose own values are in `folder`, unless the chart itself has them.
    fn general(chart: &str, folder: &str, files: &BTreeMap<&str, &str>) -> Option<String> {
        let path = join(folder, "values.yaml");
        (folder != chart && files.contains_key(path.as_str())).then_some(path)
    }
}

fn chart_group(chart: &str, values: &Values<'_>, files: &BTreeMap<&str, &str>) -> Group {
    let helm = |name: &str, values: Vec<String>| {
        let by = RenderedBy::Helm {
            chart: chart.to_string(),
            values,
            set: Vec::new(),
            release: None,
        };
        rendered(name, chart, by)
    };
    let Some((folder, values)) = values.around(chart) else {
        let chart_file = join(chart, CHART);
        return Group {
            shape: Shape::Alone,
            environments: vec![environment(UNNAMED, chart, helm(UNNAMED, Vec::new()), &chart_file)],
        };
    };
    let general = Values::general(chart, folder, files);
    let environments = values.into_iter().map(|(name, own)| {
        let evidence = own.first().copied().unwrap_or_default();
        let all = general
            .iter()
            .cloned()
            .chain(own.iter().map(ToString::to_string))
            .collect();
        environment(name, chart, helm(name, all), evidence)
    });
    Group {
        shape: Shape::Chart,
        environments: environments.collect(),
    }
}

/// Whether a path is that of a folder.
fn is_folder(path: &str, files: &BTreeMap<&str, &str>) -> bool {
    !files.contains_key(path)
}

/// The outermost folder around a path that is named as a folder of manifests is, or `folder` if that is around it.
fn manifests_folder<'a>(path: &'a str, folder: Option<&str>) -> Option<&'a str> {
    if let Some(folder) = folder
        && is_below(path, folder)
    {
        return path.get(..folder.len());
    }
    let around: Vec<&str> = ancestors(path).collect();
    let mut outermost_first = around.into_iter().rev();
    let found = outermost_first.find(|folder| has_word(file_name(folder), &MANIFESTS))?;
    (!is_not_deployed(found)).then_some(found)
}

fn folders(
    files: &BTreeMap<&str, &str>,
    folder: Option<&str>,
    kustomizations: &Kustomizations,
    charts: &[&str],
) -> Vec<Group> {
    let is_input = |path: &str| {
        ancestors(path).any(|folder| kustomizations.references.contains_key(folder) || charts.contains(&folder))
    };
    // By the folder that holds environments' folders: those folders by name.
    let mut named: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    // By the outermost folder of manifests: the folders of manifests without an environment.
    let mut unnamed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (path, text) in files {
        if !is_yaml(path) || is_input(path) || !has_object(text) {
            continue;
        }
        let Some(root) = manifests_folder(path, folder) else {
            continue;
        };
        let below = parent(path)
            .strip_prefix(root)
            .unwrap_or_default()
            .trim_start_matches('/');
        let parts: Vec<&str> = below.split('/').filter(|part| !part.is_empty()).collect();
        let found = parts
            .iter()
            .take(3)
            .position(|part| names_an_environment(part) && !HOLDERS.contains(part));
        match found {
            Some(at) => {
                let around = parts[..at]
                    .iter()
                    .fold(root.to_string(), |folder, part| join(&folder, part));
                let folder = join(&around, parts[at]);
                named.entry(around).or_default().insert(parts[at].to_string(), folder);
            }
            // Jobs and cron jobs beside the environments belong to each of them.
            None if parts.iter().any(|part| [JOBS, CRON_JOBS].contains(part)) => {}
            None => {
                unnamed.entry(root).or_default().insert(parent(path));
            }
        }
    }
    let has = |folder: &str| files.keys().any(|path| is_yaml(path) && is_below(path, folder));
    let beside = |around: &str, name: &str| {
        let folder = join(around, name);
        has(&folder).then(|| Sourced {
            value: folder.clone(),
            origin: Origin::Found(folder),
        })
    };
    let alone = unnamed
        .iter()
        .filter(|(root, _)| !named.keys().any(|around| is_in(around, root)))
        .map(|(_, folders)| {
            let folder = common(folders);
            Group {
                shape: Shape::Alone,
                environments: vec![environment(UNNAMED, &folder, Source::Folder(folder.clone()), &folder)],
            }
        });
    let alone: Vec<Group> = alone.collect();
    let named = named.iter().map(|(around, folders)| Group {
        shape: Shape::Folders,
        environments: folders
            .iter()
            .map(|(name, folder)| {
                let mut found = environment(name, around, Source::Folder(folder.clone()), folder);
                found.jobs = beside(around, JOBS);
                found.cron_jobs = beside(around, CRON_JOBS);
                let shared = found.jobs.iter().chain(&found.cron_jobs);
                let shared: Vec<String> = shared.map(|folder| folder.value.clone()).collect();
                found.inputs.extend(shared);
                found
            })
            .collect(),
    });
    named.chain(alone).collect()
}

/// The innermost folder that contains all of `folders`.
fn common(folders: &BTreeSet<&str>) -> String {
    let mut folders = folders.iter();
    let mut common: Vec<&str> = folders
        .next()
        .map(|first| first.split('/').collect())
        .unwrap_or_default();
    for folder in folders {
        let same = common
            .iter()
            .zip(folder.split('/'))
            .take_while(|(one, other)| **one == *other)
            .count();
        common.truncate(same);
    }
    common.join("/")
}
