//! The tree of manifests: the objects of each environment of a layout.

use crate::hooks::{HOOK, Part, is_rendered_by_helm, is_test, part_of};
use crate::layout::{CRON_JOBS, DOT_K8S, JOBS, Layout, Owner, is_yaml};
use crate::object::pointer_token;
use crate::order::sort_for_apply;
use crate::{NotAnObject, Object, ObjectId};
use std::collections::BTreeMap;
use towpath_yaml::{
    Diagnostic, DuplicateKeys, Limits, Node, ParseOptions, ScalarRules, SourceFile, Span, Value, parse,
};

/// All manifests of a repository, by kube context and environment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tree {
    /// Keyed by the kube context's name.
    pub kube_contexts: BTreeMap<String, KubeContext>,
}

/// The environments of a kube context, and below `.k8s/` what they share.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KubeContext {
    /// Keyed by the environment's name.
    pub environments: BTreeMap<String, Environment>,
    /// The Jobs in `jobs/`, which can run in every environment. A Job that sets a namespace belongs to that namespace's
    /// environment.
    pub jobs: Vec<Object>,
    /// The objects in `cron_jobs/`, which every environment applies. An object that sets a namespace belongs to that
    /// namespace's environment.
    pub cron_jobs: Vec<Object>,
}

/// The objects of an environment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Environment {
    /// The objects that a release applies, including its `cron_jobs/`, in the order of application.
    pub objects: Vec<Object>,
    /// The Jobs, from whichever folder of the environment. They are run by name and never applied with the rest: a Job is an
    /// action, not a state.
    pub jobs: Vec<Object>,
    /// The Jobs in a folder of its own outside of the environment's. Several environments may share it.
    pub more_jobs: Vec<Object>,
    /// The objects in a folder for CronJobs outside of the environment's. Several environments may share it.
    pub more_cron_jobs: Vec<Object>,
    /// The Jobs that run at an event of a release: hooks of a chart.
    pub hooks: Vec<Object>,
    /// The namespace that the manifests set, if any.
    pub namespace: Option<String>,
}

/// An object together with its source.
struct Found {
    object: Object,
    node: Node,
    in_jobs: bool,
}

impl Tree {
    /// Reads the tree `.k8s/<kube context>/<environment>/`, where every folder of a kube context is an environment.
    pub fn read<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> (Self, Vec<Diagnostic>) {
        Self::read_in(&Layout::default(), files)
    }

    /// Reads the tree from paths (relative to the root of the repository, with `/`) and texts.
    ///
    /// It ignores files that belong to no environment of `layout` and files that do not end in `.yaml`, `.yml` or `.json`.
    /// Subfolders of an environment belong to it. Returns everything that it could read, together with all diagnostics.
    ///
    /// Codes of the diagnostics: those of the YAML reader, `manifest::outside-environment`, `manifest::encrypted`,
    /// `manifest::not-an-object`, `manifest::duplicate-object`, `manifest::other-namespace`, `manifest::not-a-job` and
    /// `manifest::hook`.
    pub fn read_in<'a>(
        layout: &Layout,
        files: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> (Self, Vec<Diagnostic>) {
        let mut files: Vec<_> = files.into_iter().filter(|(path, _)| is_yaml(path)).collect();
        files.sort_unstable();
        let mut diagnostics = Vec::new();
        let mut places: BTreeMap<String, Places> = BTreeMap::new();
        for (path, text) in files {
            let owners = layout.owners(path);
            if owners.is_empty() {
                continue;
            }
            let source = SourceFile::new(path, text);
            for (index, owner) in owners.iter().enumerate() {
                // What is wrong with a file is said once, however many environments have it.
                let mut again = Vec::new();
                let diagnostics = if index == 0 { &mut diagnostics } else { &mut again };
                if let Some((in_jobs, found)) = found_of(owner, &mut places) {
                    read_file(&source, in_jobs, found, diagnostics);
                    continue;
                }
                let message = format!("`{path}` belongs to no environment and is never applied");
                diagnostics.push(
                    Diagnostic::warning("manifest::outside-environment", message)
                        .at(&Span::new(&source, 0..0), "")
                        .hint(format!(
                            "manifests belong in `{DOT_K8S}/<kube context>/<environment>/`: move it there"
                        )),
                );
            }
        }
        let kube_contexts = places
            .into_iter()
            .map(|(name, places)| (name, places.check(&mut diagnostics)))
            .collect();
        diagnostics.sort_by_cached_key(|diagnostic| diagnostic.primary.as_ref().map(|label| label.span.place()));
        (Self { kube_contexts }, diagnostics)
    }

    /// The environment of this name, if it exists.
    #[must_use]
    pub fn environment(&self, kube_context: &str, environment: &str) -> Option<&Environment> {
        self.kube_contexts.get(kube_context)?.environments.get(environment)
    }

    /// The kube contexts that have an environment with this name.
    #[must_use]
    pub fn kube_contexts_of(&self, environment: &str) -> Vec<&str> {
        let has = self
            .kube_contexts
            .iter()
            .filter(|(_, context)| context.environments.contains_key(environment));
        has.map(|(name, _)| name.as_str()).collect()
    }

    /// The namespace of an environment: the one that its manifests set, otherwise `pattern` with `{kube_context}` and
    /// `{environment}` replaced.
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

    /// The objects that a release applies to an environment, in the order of application and all in `namespace`: its own and
    /// those in the kube context's `cron_jobs/` that name no other namespace. An object of the environment replaces one with
    /// the same name in `cron_jobs/`.
    ///
    /// `None` if the environment does not exist.
    #[must_use]
    pub fn wanted(&self, kube_context: &str, environment: &str, namespace: &str) -> Option<Vec<Object>> {
        let context = self.kube_contexts.get(kube_context)?;
        let found = context.environments.get(environment)?;
        let own = &found.objects;
        let shared = found
            .more_cron_jobs
            .iter()
            .chain(&context.cron_jobs)
            .filter(|shared| belongs_to(shared, namespace))
            .filter(|shared| own.iter().all(|own| own.id() != shared.id()));
        let mut objects: Vec<Object> = own
            .iter()
            .chain(shared)
            .map(|object| object.clone().in_namespace(namespace).with_encoded_data())
            .collect();
        sort_for_apply(&mut objects);
        Some(objects)
    }

    /// The Jobs that can be run in an environment, which is in `namespace`: its own, its hooks but for tests, and those in the kube
    /// context's `jobs/` with other names that name no other namespace.
    #[must_use]
    pub fn jobs(&self, kube_context: &str, environment: &str, namespace: &str) -> Vec<&Object> {
        let Some(context) = self.kube_contexts.get(kube_context) else {
            return Vec::new();
        };
        let found = context.environments.get(environment);
        let hooks = found.into_iter().flat_map(|found| &found.hooks);
        let own = found.into_iter().flat_map(|found| &found.jobs);
        let own: Vec<&Object> = own.chain(hooks.filter(|hook| !is_test(hook))).collect();
        let more = found.into_iter().flat_map(|found| &found.more_jobs);
        let shared = more
            .chain(&context.jobs)
            .filter(|shared| belongs_to(shared, namespace))
            .filter(|shared| own.iter().all(|own| own.name != shared.name));
        own.iter().copied().chain(shared).collect()
    }

    /// The hooks of an environment, which is in `namespace`.
    #[must_use]
    pub fn hooks(&self, kube_context: &str, environment: &str, namespace: &str) -> Vec<Object> {
        let found = self.environment(kube_context, environment).into_iter();
        let hooks = found.flat_map(|found| found.hooks.iter().cloned());
        hooks.map(|hook| hook.in_namespace(namespace)).collect()
    }
}

/// The first characters of encrypted texts, and the program that made them. Encrypted binary files are not text and never get
/// here.
const ENCRYPTED: [(&str, &str); 4] = [
    ("$ANSIBLE_VAULT;", "ansible-vault"),
    ("-----BEGIN AGE ENCRYPTED FILE-----", "age"),
    ("-----BEGIN PGP MESSAGE-----", "PGP"),
    // `Salted__` in base64.
    ("U2FsdGVkX1", "openssl"),
];

fn encrypted(span: &Span, by: &str) -> Diagnostic {
    Diagnostic::error("manifest::encrypted", format!("this file is encrypted by {by}"))
        .at(span, "")
        .hint("decrypt it in a working tree and deploy from there, or keep its values out of the repository")
}

/// Whether an object that the environments share belongs to the environment in `namespace`.
fn belongs_to(shared: &Object, namespace: &str) -> bool {
    shared.namespace.as_deref().is_none_or(|named| named == namespace)
}

/// Where the objects of an owner's file go, and whether they have to be Jobs; `None` for a file without an owner.
fn found_of<'a>(owner: &Owner<'_>, places: &'a mut BTreeMap<String, Places>) -> Option<(bool, &'a mut Vec<Found>)> {
    let (kube_context, name) = match owner {
        Owner::Environment { kube_context, name, .. }
        | Owner::JobsOf { kube_context, name }
        | Owner::CronJobsOf { kube_context, name } => (kube_context, Some(name)),
        Owner::Jobs(kube_context) | Owner::CronJobs(kube_context) => (kube_context, None),
        Owner::Nobody => return None,
    };
    let places = places.entry((*kube_context).to_string()).or_default();
    let own = name.map(|name| (*name).to_string());
    Some(match (owner, own) {
        (Owner::Environment { in_jobs, .. }, Some(name)) => {
            (*in_jobs, &mut places.environments.entry(name).or_default().own)
        }
        (Owner::JobsOf { .. }, Some(name)) => (true, &mut places.environments.entry(name).or_default().more_jobs),
        (Owner::CronJobsOf { .. }, Some(name)) => {
            (false, &mut places.environments.entry(name).or_default().more_cron_jobs)
        }
        (Owner::Jobs(_), _) => (true, &mut places.jobs),
        _ => (false, &mut places.cron_jobs),
    })
}

fn read_file(
    source: &std::sync::Arc<SourceFile>,
    in_jobs: bool,
    found: &mut Vec<Found>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    if let Some((_, by)) = ENCRYPTED.iter().find(|(start, _)| source.text().starts_with(start)) {
        diagnostics.push(encrypted(&first_line(&Span::new(source, 0..source.text().len())), by));
        return;
    }
    let options = ParseOptions {
        // The API server accepts objects up to 1.5 MiB (etcd's limit for a request). A file may hold several.
        limits: Limits {
            source_bytes: 8 << 20,
            depth: 100,
            nodes: 500_000,
            expanded_bytes: 32 << 20,
        },
        // Like `kubectl`, which validates strictly and refuses duplicate keys.
        duplicate_keys: DuplicateKeys::Refuse,
        merge: true,
    };
    let (documents, wrong) = parse(source, &options);
    let has_values = has_secret(source.text());
    // The line that is wrong may hold a value.
    let conceal = |diagnostic: Diagnostic| match has_values && diagnostic.code != "manifest::encrypted" {
        true => diagnostic.concealed(),
        false => diagnostic,
    };
    let wrong: Vec<Diagnostic> = wrong.into_iter().map(conceal).collect();
    let is_yaml = !wrong.iter().any(Diagnostic::is_error);
    let is_template = !is_yaml && source.text().contains("{{");
    diagnostics.extend(wrong.into_iter().map(|diagnostic| match is_template {
        true => {
            diagnostic.hint("`{{` looks like a template, but without a `Chart.yaml` in the environment's folder nothing renders it: add the chart, or replace the template by its output")
        }
        false => diagnostic,
    }));
    let mut follow_ups = Vec::new();
    for document in documents {
        read_object(&document, in_jobs, found, &mut follow_ups);
    }
    // After a syntax error, missing fields are only a consequence.
    if is_yaml {
        diagnostics.extend(follow_ups.into_iter().map(conceal));
    }
}

/// Whether a text may hold a Secret, even if it is not YAML.
fn has_secret(text: &str) -> bool {
    text.match_indices("kind").any(|(at, kind)| {
        let rest = &text[at + kind.len()..];
        let rest = rest.trim_start_matches(['"', '\'', ' ', '\t', ':']);
        let rest = rest.strip_prefix("Secret");
        rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_alphanumeric()))
    })
}

fn read_object(node: &Node, in_jobs: bool, found: &mut Vec<Found>, diagnostics: &mut Vec<Diagnostic>) {
    // Generators leave documents that hold only comments.
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
    // Source: <https://github.com/getsops/sops#encryption-protocol>
    if node.get("sops").and_then(|sops| sops.get("mac")).is_some() {
        diagnostics.push(encrypted(&first_line(node.span()), "sops"));
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
    // The deepest node on the path to the field that exists.
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
        NotAnObject::NotAMapping(_) => {
            format!("a file below `{DOT_K8S}/` that is not a manifest needs another extension")
        }
        NotAnObject::Lacks("metadata.name") if generated => {
            "use `name` instead of `generateName`: Towpath names each run of a Job itself".to_string()
        }
        NotAnObject::Lacks(field) => format!("set `{field}`, in quotes if it looks like a number"),
    };
    Diagnostic::error("manifest::not-an-object", error.to_string())
        .at(&first_line(at.span()), "")
        .hint(hint)
}

/// The first line of a span: do not underline a whole document.
fn first_line(span: &Span) -> Span {
    let length = span.text().find('\n').unwrap_or(span.text().len());
    span.within(0..length)
}

/// Records the place of each field (the place of its key) and of each list item.
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

/// The objects found under one kube context, before they are checked.
#[derive(Default)]
struct Places {
    environments: BTreeMap<String, FoundInEnvironment>,
    jobs: Vec<Found>,
    cron_jobs: Vec<Found>,
}

/// The objects found for one environment.
#[derive(Default)]
struct FoundInEnvironment {
    own: Vec<Found>,
    more_jobs: Vec<Found>,
    more_cron_jobs: Vec<Found>,
}

impl Places {
    fn check(self, diagnostics: &mut Vec<Diagnostic>) -> KubeContext {
        let mut context = KubeContext::default();
        for (name, places) in &self.environments {
            let what = format!("the environment `{name}`");
            let found = &places.own;
            let namespace = check_namespace(&what, found, diagnostics);
            let (hooks, found) = split_hooks(found, diagnostics);
            let (jobs, objects): (Vec<&Found>, Vec<&Found>) =
                found.into_iter().partition(|found| found.object.kind == "Job");
            check_jobs(objects.iter().copied(), diagnostics);
            let mut environment = Environment {
                objects: unique(&what, objects, diagnostics),
                jobs: unique(&what, jobs, diagnostics),
                more_jobs: unique(&what, places.more_jobs.iter().collect(), diagnostics),
                more_cron_jobs: unique(&what, places.more_cron_jobs.iter().collect(), diagnostics),
                hooks: unique(&what, hooks.iter().collect(), diagnostics),
                namespace,
            };
            check_jobs(
                places.more_jobs.iter().filter(|found| found.object.kind != "Job"),
                diagnostics,
            );
            sort_for_apply(&mut environment.objects);
            context.environments.insert(name.clone(), environment);
        }
        check_jobs(self.jobs.iter().filter(|found| found.object.kind != "Job"), diagnostics);
        context.jobs = unique(&format!("`{JOBS}/`"), self.jobs.iter().collect(), diagnostics);
        context.cron_jobs = unique(&format!("`{CRON_JOBS}/`"), self.cron_jobs.iter().collect(), diagnostics);
        sort_for_apply(&mut context.cron_jobs);
        context
    }
}

/// Splits the objects of an environment into hooks that run, as Jobs, and the rest. Says what becomes of other hooks.
fn split_hooks<'a>(found: &'a [Found], diagnostics: &mut Vec<Diagnostic>) -> (Vec<Found>, Vec<&'a Found>) {
    let (mut hooks, mut rest) = (Vec::new(), Vec::new());
    for found in found {
        let part = match is_rendered_by_helm(&found.object.place.file) {
            true => part_of(&found.object),
            false => Part::Plain,
        };
        let span = || span_of(&found.node, &["metadata", "annotations", HOOK]);
        let warning = |message: String| Diagnostic::warning("manifest::hook", message).at(&span(), "");
        match part {
            Part::Plain => rest.push(found),
            Part::Runs(job) => hooks.push(Found {
                object: *job,
                node: found.node.clone(),
                in_jobs: found.in_jobs,
            }),
            Part::Applied(message) => {
                diagnostics.push(warning(message));
                rest.push(found);
            }
            Part::Never(message) => diagnostics.push(warning(message)),
            Part::Refused(message) => {
                diagnostics.push(Diagnostic::error("manifest::hook", message).at(&span(), ""));
            }
        }
    }
    (hooks, rest)
}

/// Reports objects in a folder for Jobs that are not Jobs: they would be neither applied nor run.
fn check_jobs<'a>(found: impl Iterator<Item = &'a Found>, diagnostics: &mut Vec<Diagnostic>) {
    for found in found.filter(|found| found.in_jobs) {
        let message = format!("`{}` is in `{JOBS}/`, but it is not a Job", found.object.id());
        diagnostics.push(
            Diagnostic::error("manifest::not-a-job", message)
                .at(&span_of(&found.node, &["kind"]), "")
                .hint(format!(
                    "`{JOBS}/` holds Jobs, which are run by name: move objects that a release applies out of it"
                )),
        );
    }
}

/// The objects of one owner, without duplicates: the first object of each name stays. Duplicates never differ in namespace
/// here. In an environment, different namespaces are an error of their own; shared objects with different namespaces belong to
/// different environments.
fn unique(owner: &str, found: Vec<&Found>, diagnostics: &mut Vec<Diagnostic>) -> Vec<Object> {
    let mut seen: BTreeMap<ObjectId, Vec<&Found>> = BTreeMap::new();
    let mut objects = Vec::new();
    for found in found {
        let id = found.object.id();
        let same_name = seen.entry(id.clone()).or_default();
        let meets = |other: &&&Found| match (&other.object.namespace, &found.object.namespace) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        let Some(first) = same_name.iter().find(meets).copied() else {
            objects.push(found.object.clone());
            same_name.push(found);
            continue;
        };
        let (one, other) = (first.node.span().source(), found.node.span().source());
        if one.name() != other.name() && one.text() == other.text() {
            // The same file, reached both directly and by a link to its folder.
            continue;
        }
        diagnostics.push(
            Diagnostic::error("manifest::duplicate-object", format!("{owner} has two objects `{id}`"))
                .at(&span_of(&found.node, &["metadata", "name"]), "the second")
                .also(&span_of(&first.node, &["metadata", "name"]), "the first")
                .hint("the object that is applied last would overwrite the other: rename one, or delete it"),
        );
    }
    objects
}

/// Namespaces that are made for Kubernetes itself.
///
/// Source: <https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/#initial-namespaces>
const SYSTEM_NAMESPACES: [&str; 3] = ["kube-node-lease", "kube-public", "kube-system"];

/// The namespace of an environment's manifests: the name of its Namespace object, otherwise the one that most objects set.
fn check_namespace(owner: &str, found: &[Found], diagnostics: &mut Vec<Diagnostic>) -> Option<String> {
    let mut said: Vec<(&Found, &str, Span)> = Vec::new();
    for found in found {
        if found.object.kind == "Namespace" {
            said.push((found, &found.object.name, span_of(&found.node, &["metadata", "name"])));
        } else if let Some(namespace) = &found.object.namespace {
            said.push((found, namespace, span_of(&found.node, &["metadata", "namespace"])));
        }
    }
    let votes = |(found, namespace, _): &(&Found, &str, Span)| {
        // A RoleBinding in `kube-system` does not move the application there.
        let is_of_system = SYSTEM_NAMESPACES.contains(namespace);
        let same = said.iter().filter(|(_, other, _)| other == namespace).count();
        (!is_of_system, found.object.kind == "Namespace", same)
    };
    // On a tie, the first file decides. `max_by_key` returns the last maximum, hence `rev`.
    let (_, namespace, span) = said.iter().rev().max_by_key(|one| votes(one))?;
    if SYSTEM_NAMESPACES.contains(namespace) {
        let message = format!("`{namespace}` is Kubernetes' own namespace, so {owner} cannot be there");
        diagnostics.push(
            Diagnostic::error("manifest::other-namespace", message)
                .at(span, "")
                .hint("an environment has one namespace: apply this object by other means, or put it into the environment's"),
        );
        return None;
    }
    for (found, other, at) in &said {
        if other == namespace {
            continue;
        }
        let message = if found.object.kind == "Namespace" {
            format!(
                "{owner} is in the namespace `{namespace}`, so its manifests cannot contain the Namespace `{other}`"
            )
        } else {
            format!(
                "`{}` is in the namespace `{other}`, but {owner} is in the namespace `{namespace}`",
                found.object.id()
            )
        };
        diagnostics.push(
            Diagnostic::error("manifest::other-namespace", message)
                .at(at, "")
                .also(span, "named here")
                .hint("an environment has one namespace: set the same one everywhere, or none"),
        );
    }
    Some((*namespace).to_string())
}

/// The span of the deepest node on `path` that exists.
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
