//! The tree of manifests: `.k8s/<kube context>/<environment>/`.

use crate::object::pointer_token;
use crate::order::sort_for_apply;
use crate::{NotAnObject, Object, ObjectId};
use std::collections::BTreeMap;
use towpath_yaml::{
    Diagnostic, DuplicateKeys, Limits, Node, ParseOptions, ScalarRules, SourceFile, Span, Value, parse,
};

/// The folder of the manifests, from the repository's root.
pub(crate) const ROOT: &str = ".k8s";
/// The folder of Jobs, beside the environments or in one.
pub(crate) const JOBS: &str = "jobs";
/// The folder of CronJobs, beside the environments or in one.
pub(crate) const CRON_JOBS: &str = "cron_jobs";

/// Every manifest of a repository, by kube context and environment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tree {
    /// The kube contexts, by name.
    pub kube_contexts: BTreeMap<String, KubeContext>,
}

/// What lies under `.k8s/<kube context>/`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KubeContext {
    /// The environments, by name.
    pub environments: BTreeMap<String, Environment>,
    /// What lies in `jobs/`: Jobs that can be run in every environment.
    pub jobs: Vec<Object>,
    /// What lies in `cron_jobs/`: applied in every environment.
    pub cron_jobs: Vec<Object>,
}

/// What lies under `.k8s/<kube context>/<environment>/`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Environment {
    /// What is applied, `cron_jobs/` included, in the order of application.
    pub objects: Vec<Object>,
    /// The Jobs, wherever in the environment they lie. They are run by name and never applied with the rest, for a
    /// Job is an act and no state.
    pub jobs: Vec<Object>,
    /// The namespace that the manifests name, if they do.
    pub namespace: Option<String>,
}

/// To whom a file belongs.
enum Owner<'a> {
    Environment(&'a str),
    Jobs,
    CronJobs,
}

/// An object while its spans are at hand.
struct Found {
    object: Object,
    node: Node,
    in_jobs: bool,
}

impl Tree {
    /// Reads the tree from paths (from the repository's root, with `/`) and texts.
    ///
    /// Files that do not end in `.yaml` or `.yml` are ignored, as is what lies outside `.k8s/`. Folders inside an
    /// environment are part of it. What could be read is answered along with everything that is wrong.
    ///
    /// The diagnostics' codes: those of the YAML reader, `manifest::outside-environment`, `manifest::not-an-object`,
    /// `manifest::duplicate-object`, `manifest::other-namespace` and `manifest::not-a-job`.
    pub fn read<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> (Self, Vec<Diagnostic>) {
        let mut files: Vec<_> = files.into_iter().collect();
        files.sort_unstable();
        let mut diagnostics = Vec::new();
        let mut places: BTreeMap<&str, Places> = BTreeMap::new();
        for (path, text) in files {
            let Some(inside) = inside_root(path) else { continue };
            let source = SourceFile::new(path, text);
            let parts: Vec<&str> = inside.split('/').collect();
            let (kube_context, owner, in_jobs) = match parts.as_slice() {
                [kube_context, JOBS, _, ..] => (*kube_context, Owner::Jobs, true),
                [kube_context, CRON_JOBS, _, ..] => (*kube_context, Owner::CronJobs, false),
                [kube_context, environment, folder, rest @ ..] => {
                    let in_jobs = *folder == JOBS && !rest.is_empty();
                    (*kube_context, Owner::Environment(environment), in_jobs)
                }
                _ => {
                    let message = format!("`{path}` belongs to no environment and is never applied");
                    diagnostics.push(
                        Diagnostic::warning("manifest::outside-environment", message)
                            .at(&Span::new(&source, 0..0), "")
                            .hint(format!(
                                "manifests lie in `{ROOT}/<kube context>/<environment>/`: move it there"
                            )),
                    );
                    continue;
                }
            };
            let places = places.entry(kube_context).or_default();
            let found = match owner {
                Owner::Environment(name) => places.environments.entry(name).or_default(),
                Owner::Jobs => &mut places.jobs,
                Owner::CronJobs => &mut places.cron_jobs,
            };
            read_file(&source, in_jobs, found, &mut diagnostics);
        }
        let kube_contexts = places
            .into_iter()
            .map(|(name, places)| (name.to_string(), places.check(&mut diagnostics)))
            .collect();
        diagnostics.sort_by_cached_key(|diagnostic| diagnostic.primary.as_ref().map(|label| label.span.place()));
        (Self { kube_contexts }, diagnostics)
    }

    /// The environment, if there is one of that name.
    #[must_use]
    pub fn environment(&self, kube_context: &str, environment: &str) -> Option<&Environment> {
        self.kube_contexts.get(kube_context)?.environments.get(environment)
    }

    /// The kube contexts that have an environment of this name.
    #[must_use]
    pub fn kube_contexts_of(&self, environment: &str) -> Vec<&str> {
        let has = self
            .kube_contexts
            .iter()
            .filter(|(_, context)| context.environments.contains_key(environment));
        has.map(|(name, _)| name.as_str()).collect()
    }

    /// The namespace of an environment: the one that its manifests name, else `pattern` with `{kube_context}` and
    /// `{environment}` filled in.
    #[must_use]
    pub fn namespace(&self, kube_context: &str, environment: &str, pattern: &str) -> String {
        let named = self
            .environment(kube_context, environment)
            .and_then(|found| found.namespace.clone());
        named.unwrap_or_else(|| {
            pattern
                .replace("{kube_context}", kube_context)
                .replace("{environment}", environment)
        })
    }

    /// What a release applies in an environment, in the order of application: its own objects and the kube context's
    /// `cron_jobs/`, all in `namespace`. An object of the environment wins over one of the same name in `cron_jobs/`.
    ///
    /// `None` when there is no such environment.
    #[must_use]
    pub fn wanted(&self, kube_context: &str, environment: &str, namespace: &str) -> Option<Vec<Object>> {
        let context = self.kube_contexts.get(kube_context)?;
        let own = &context.environments.get(environment)?.objects;
        let shared = context
            .cron_jobs
            .iter()
            .filter(|shared| own.iter().all(|own| own.id() != shared.id()));
        let mut objects: Vec<Object> = own
            .iter()
            .chain(shared)
            .map(|object| object.clone().in_namespace(namespace).with_encoded_data())
            .collect();
        sort_for_apply(&mut objects);
        Some(objects)
    }

    /// The Jobs that can be run in an environment: its own, and those of the kube context's `jobs/` whose names it does
    /// not have itself.
    #[must_use]
    pub fn jobs(&self, kube_context: &str, environment: &str) -> Vec<&Object> {
        let Some(context) = self.kube_contexts.get(kube_context) else {
            return Vec::new();
        };
        let own = context
            .environments
            .get(environment)
            .map(|found| found.jobs.as_slice())
            .unwrap_or_default();
        let shared = context
            .jobs
            .iter()
            .filter(|shared| own.iter().all(|own| own.name != shared.name));
        own.iter().chain(shared).collect()
    }
}

/// The path inside [`ROOT`] of a file whose name says that it is YAML.
fn inside_root(path: &str) -> Option<&str> {
    let inside = path
        .strip_prefix("./")
        .unwrap_or(path)
        .strip_prefix(ROOT)?
        .strip_prefix('/')?;
    // What `kubectl apply --filename FOLDER` reads.
    [".yaml", ".yml", ".json"]
        .iter()
        .any(|end| inside.ends_with(end))
        .then_some(inside)
}

fn read_file(
    source: &std::sync::Arc<SourceFile>,
    in_jobs: bool,
    found: &mut Vec<Found>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let options = ParseOptions {
        // The API server takes no object past 1.5 MiB (etcd's limit for a request); a file may hold several.
        limits: Limits {
            source_bytes: 8 << 20,
            depth: 100,
            nodes: 500_000,
            expanded_bytes: 32 << 20,
        },
        // `kubectl` validates strictly: it refuses a key that is written twice.
        duplicate_keys: DuplicateKeys::Refuse,
        merge: true,
    };
    let (documents, wrong) = parse(source, &options);
    let is_yaml = !wrong.iter().any(Diagnostic::is_error);
    let is_template = !is_yaml && source.text().contains("{{");
    diagnostics.extend(wrong.into_iter().map(|diagnostic| match is_template {
        true => {
            diagnostic.hint("`{{` looks like a template: without a `Chart.yaml` in the environment's folder manifests are read as they are, so write down what it makes")
        }
        false => diagnostic,
    }));
    let mut follow_ups = Vec::new();
    for document in documents {
        read_object(&document, in_jobs, found, &mut follow_ups);
    }
    // What half a document lacks is no news.
    if is_yaml {
        diagnostics.append(&mut follow_ups);
    }
}

fn read_object(node: &Node, in_jobs: bool, found: &mut Vec<Found>, diagnostics: &mut Vec<Diagnostic>) {
    // `---` with nothing but comments behind it is what generators leave.
    if node.is_null() {
        return;
    }
    let kind = node.get("kind").and_then(Node::as_scalar);
    if kind.is_some_and(|kind| kind.text.ends_with("List"))
        && let Some(items) = node.get("items").and_then(Node::as_sequence)
    {
        for item in items {
            read_object(item, in_jobs, found, diagnostics);
        }
        return;
    }
    let mut places = BTreeMap::new();
    note_places(node, "", &mut places);
    match Object::placed(node.to_json(ScalarRules::Kubernetes), node.span().place(), places) {
        Ok(object) => found.push(Found {
            object,
            node: node.clone(),
            in_jobs,
        }),
        Err(error) => diagnostics.push(not_an_object(node, &error)),
    }
}

fn not_an_object(node: &Node, error: &NotAnObject) -> Diagnostic {
    // The last node on the way to the field that is there.
    let mut at = node;
    for part in error.pointer().split('/').skip(1) {
        match at.get(part) {
            Some(next) => at = next,
            None => break,
        }
    }
    let generated = node
        .get("metadata")
        .and_then(|metadata| metadata.get("generateName"))
        .is_some();
    let hint = match error {
        NotAnObject::NotAMapping(_) => format!("a file under `{ROOT}/` that is no manifest needs another ending"),
        NotAnObject::Lacks("metadata.name") if generated => {
            "write `name` instead of `generateName`: each run of a Job gets a name of its own anyway".to_string()
        }
        NotAnObject::Lacks(field) => format!("write `{field}`; in quotes, if it looks like a number"),
    };
    Diagnostic::error("manifest::not-an-object", error.to_string())
        .at(&first_line(at.span()), "")
        .hint(hint)
}

/// The first line of a span, so that a whole document is not underlined.
fn first_line(span: &Span) -> Span {
    let length = span.text().find('\n').unwrap_or(span.text().len());
    span.within(0..length)
}

/// Notes the place of each field (where its key is) and of each item of a list.
fn note_places(node: &Node, pointer: &str, places: &mut BTreeMap<String, (u32, u32)>) {
    let mut note = |pointer: &str, span: &Span| {
        let place = span.place();
        places.insert(pointer.to_string(), (place.line, place.column));
    };
    match node.value() {
        Value::Scalar(_) => {}
        Value::Sequence(items) => {
            for (index, item) in items.iter().enumerate() {
                let pointer = format!("{pointer}/{index}");
                note(&pointer, item.span());
            }
            for (index, item) in items.iter().enumerate() {
                note_places(item, &format!("{pointer}/{index}"), places);
            }
        }
        Value::Mapping(mapping) => {
            for entry in mapping {
                note(
                    &format!("{pointer}/{}", pointer_token(&entry.key.text)),
                    &entry.key.span,
                );
            }
            for entry in mapping {
                note_places(
                    &entry.value,
                    &format!("{pointer}/{}", pointer_token(&entry.key.text)),
                    places,
                );
            }
        }
    }
}

/// What was found under one kube context, before it was checked.
#[derive(Default)]
struct Places<'a> {
    environments: BTreeMap<&'a str, Vec<Found>>,
    jobs: Vec<Found>,
    cron_jobs: Vec<Found>,
}

impl Places<'_> {
    fn check(self, diagnostics: &mut Vec<Diagnostic>) -> KubeContext {
        let mut context = KubeContext::default();
        let mut namespaces: Vec<(&str, String, Span)> = Vec::new();
        for (name, found) in &self.environments {
            let what = format!("the environment `{name}`");
            let namespace = check_namespace(&what, found, diagnostics);
            let (jobs, objects): (Vec<&Found>, Vec<&Found>) =
                found.iter().partition(|found| found.object.kind == "Job");
            check_jobs(objects.iter().copied(), diagnostics);
            let mut environment = Environment {
                objects: unique(&what, objects, diagnostics),
                jobs: unique(&what, jobs, diagnostics),
                namespace: namespace.as_ref().map(|(namespace, _)| namespace.clone()),
            };
            namespaces.extend(namespace.map(|(namespace, span)| (*name, namespace, span)));
            sort_for_apply(&mut environment.objects);
            context.environments.insert((*name).to_string(), environment);
        }
        for shared in self.jobs.iter().chain(&self.cron_jobs) {
            let Some(theirs) = &shared.object.namespace else {
                continue;
            };
            let Some((name, ours, span)) = namespaces.iter().find(|(_, ours, _)| ours != theirs) else {
                continue;
            };
            let id = shared.object.id();
            let message = format!(
                "`{id}` is in the namespace `{theirs}`, but it belongs to every environment, and `{name}` is in `{ours}`"
            );
            diagnostics.push(
                Diagnostic::error("manifest::other-namespace", message)
                    .at(&span_of(&shared.node, &["metadata", "namespace"]), "")
                    .also(span, "named here")
                    .hint("leave out `metadata.namespace`: the environment's is put in"),
            );
        }
        check_jobs(self.jobs.iter().filter(|found| found.object.kind != "Job"), diagnostics);
        context.jobs = unique(&format!("`{JOBS}/`"), self.jobs.iter().collect(), diagnostics);
        context.cron_jobs = unique(&format!("`{CRON_JOBS}/`"), self.cron_jobs.iter().collect(), diagnostics);
        sort_for_apply(&mut context.cron_jobs);
        context
    }
}

/// What lies in a folder of Jobs and is none would neither be applied nor run.
fn check_jobs<'a>(found: impl Iterator<Item = &'a Found>, diagnostics: &mut Vec<Diagnostic>) {
    for found in found.filter(|found| found.in_jobs) {
        let message = format!("`{}` lies in `{JOBS}/`, but it is no Job", found.object.id());
        diagnostics.push(
            Diagnostic::error("manifest::not-a-job", message)
                .at(&span_of(&found.node, &["kind"]), "")
                .hint(format!(
                    "`{JOBS}/` holds Jobs, which are run by name; what is applied lies beside it"
                )),
        );
    }
}

/// The objects of one owner, each name once; the first stays.
fn unique(owner: &str, found: Vec<&Found>, diagnostics: &mut Vec<Diagnostic>) -> Vec<Object> {
    let mut seen: BTreeMap<ObjectId, &Found> = BTreeMap::new();
    let mut objects = Vec::new();
    for found in found {
        let id = found.object.id();
        let Some(first) = seen.get(&id) else {
            objects.push(found.object.clone());
            seen.insert(id, found);
            continue;
        };
        diagnostics.push(
            Diagnostic::error("manifest::duplicate-object", format!("{owner} has two objects `{id}`"))
                .at(&span_of(&found.node, &["metadata", "name"]), "the second")
                .also(&span_of(&first.node, &["metadata", "name"]), "the first")
                .hint("the one that is applied last would undo the other: rename one, or delete it"),
        );
    }
    objects
}

/// The namespace that an environment's manifests name: its Namespace's, else the one that most of them say.
fn check_namespace(owner: &str, found: &[Found], diagnostics: &mut Vec<Diagnostic>) -> Option<(String, Span)> {
    let mut said: Vec<(&Found, &str, Span)> = Vec::new();
    for found in found {
        if found.object.kind == "Namespace" {
            said.push((found, &found.object.name, span_of(&found.node, &["metadata", "name"])));
        } else if let Some(namespace) = &found.object.namespace {
            said.push((found, namespace, span_of(&found.node, &["metadata", "namespace"])));
        }
    }
    let votes = |(found, namespace, _): &(&Found, &str, Span)| {
        let same = said.iter().filter(|(_, other, _)| other == namespace).count();
        (found.object.kind == "Namespace", same)
    };
    // Of equals the first in the order of the files decides, hence the reversal: `max_by_key` answers the last.
    let (_, namespace, span) = said.iter().rev().max_by_key(|one| votes(one))?;
    for (found, other, at) in &said {
        if other == namespace {
            continue;
        }
        let message = if found.object.kind == "Namespace" {
            format!("{owner} is in the namespace `{namespace}`, so it cannot bring the Namespace `{other}`")
        } else {
            format!(
                "`{}` is in the namespace `{other}`, but {owner} is in `{namespace}`",
                found.object.id()
            )
        };
        diagnostics.push(
            Diagnostic::error("manifest::other-namespace", message)
                .at(at, "")
                .also(span, "named here")
                .hint("an environment has one namespace: name the same one everywhere, or none"),
        );
    }
    Some(((*namespace).to_string(), span.clone()))
}

/// The place of the last node on `path` that is there.
fn span_of(node: &Node, path: &[&str]) -> Span {
    let mut at = node;
    for part in path {
        match at.get(part) {
            Some(next) => at = next,
            None => break,
        }
    }
    first_line(at.span())
}
