//! Jobs: an executor, the job's own settings, and its steps, put together with the arguments of an invocation.

use std::rc::Rc;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};
use towpath_yaml::{Diagnostic, Entry, Mapping, Node, ScalarStyle, Span};

use crate::compiler::Compiler;
use crate::elements::STAND_IN;
use crate::namespace::{CONFIG, Element, Found, Kind, NamespaceId};
use crate::scope::Scope;
use crate::steps::entry;
use crate::trace::FrameId;
use crate::value::Value;

/// A job definition with everything in place, as `config process` prints it.
pub(crate) struct Expanded {
    /// The name of the definition.
    pub(crate) name: Arc<str>,
    pub(crate) node: Node,
    /// Where it is defined.
    pub(crate) span: Span,
    /// Whether a mistake in it was reported: what is missing then is missing because of that.
    pub(crate) broken: bool,
    /// The call that made it, for explanations.
    pub(crate) frame: FrameId,
    /// The call of its executor, and the keys that came of it.
    pub(crate) executor: Option<(FrameId, Vec<Arc<str>>)>,
}

/// Jobs by what they are called with: called so again, in another workflow say, they come out the same.
pub(crate) type ExpandedCache = HashMap<(NamespaceId, Arc<str>, Vec<Plain>), Rc<Expanded>>;

/// A value that is easily told from others.
#[derive(PartialEq, Eq, Hash)]
pub(crate) enum Plain {
    Null,
    Bool(bool),
    Int(i64),
    Text(Arc<str>),
    Executor(Arc<str>, NamespaceId),
}

impl Plain {
    fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Int(value) => Self::Int(*value),
            Value::Text(text) => Self::Text(text.clone()),
            Value::Executor { node, namespace } => Self::Executor(node.as_scalar()?.text.clone(), *namespace),
            Value::Float(_) | Value::Pattern(_) | Value::Steps(_) | Value::Tree(_) => return None,
        })
    }
}

const JOB_KEYS: &[&str] = &[
    "executor",
    "docker",
    "machine",
    "macos",
    "type",
    "parameters",
    "steps",
    "environment",
    "shell",
    "working_directory",
    "parallelism",
    "resource_class",
    "circleci_ip_ranges",
    "retention",
    "plan_name",
    "key",
    "description",
];

/// The keys of a job that carries out a release plan.
///
/// Source: <https://circleci.com/docs/guides/deploy/set-up-release-validation-manually/>
const RELEASE_KEYS: &[&str] = &["type", "plan_name", "validation", "parameters", "description"];

const LOCK_KEYS: &[&str] = &["type", "key", "parameters", "description"];

const EXECUTORS_PAGE: &str = "https://circleci.com/docs/reference/configuration-reference/#executors";

/// Where a job can run.
const PLACES: [&str; 3] = ["docker", "machine", "macos"];

const EXECUTOR_KEYS: &[&str] = &[
    "docker",
    "machine",
    "macos",
    "environment",
    "shell",
    "working_directory",
    "resource_class",
    "parameters",
    "description",
];

/// The keys that an executor and a job share, of which the job's replaces the executor's.
const SETTINGS: &[&str] = &[
    "docker",
    "machine",
    "macos",
    "resource_class",
    "shell",
    "working_directory",
];

/// What becomes of a key that a map does not have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Others {
    /// It is ignored, and that is said.
    Ignored,
    /// It is refused, in the versions that have templates; one without a value is ignored all the same.
    Refused,
}

/// An executor with its parameters in place.
struct CalledExecutor {
    name: Arc<str>,
    body: Node,
    frame: FrameId,
}

impl Compiler<'_> {
    /// Says which keys `node` has that are none of `known`.
    pub(crate) fn check_keys(&mut self, node: &Node, known: &[&str], what: &str, others: Others) {
        let Some(mapping) = node.as_mapping() else { return };
        if !self.checked.insert(node.identity()) {
            return;
        }
        // The node is kept alive by the configuration or its orb, so that its address is not another's later.
        self.check_entries(mapping, known, what, others);
    }

    /// Says which entries have a key that is none of `known`.
    pub(crate) fn check_entries<'e>(
        &mut self,
        entries: impl IntoIterator<Item = &'e Entry>,
        known: &[&str],
        what: &str,
        others: Others,
    ) {
        for part in entries {
            let key = &part.key.text;
            if known.contains(&&**key) {
                continue;
            }
            let mut diagnostic = if others == Others::Refused && self.has_templates && !part.value.is_null() {
                let message = format!("`{key}` isn't allowed here: {what} has no such key");
                Diagnostic::error("config::unknown-key", message)
            } else {
                let message = format!("{what} has no key `{key}`; it is ignored");
                Diagnostic::warning("config::unknown-key", message)
            };
            diagnostic = match &part.merged_at {
                Some(merged) => diagnostic
                    .at(merged, "merged here")
                    .also(&part.key.span, "written here"),
                None => diagnostic.at(&part.key.span, ""),
            };
            if let Some(near) = crate::suggest::nearest(key, known) {
                diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
            }
            self.report(diagnostic);
        }
    }

    /// A job with the arguments of an invocation, its `pre-steps` before and its `post-steps` after its own.
    pub(crate) fn expand_job(
        &mut self,
        element: &Rc<Element>,
        given: &[Entry],
        caller: &Scope<'_>,
        call: &Span,
        around: (Option<&Node>, Option<&Node>),
    ) -> Option<Rc<Expanded>> {
        let errors = self.breaking_errors();
        let (arguments, frame) = self.bind(element, given, caller, call);
        if self.breaking_errors() > errors {
            // With arguments that do not fit, much of what the body says would only repeat it.
            if element.namespace == CONFIG {
                self.uncalled.insert(element.name.clone());
            }
            return None;
        }
        // Explained, each call has a story of its own.
        let alone = around.0.is_none() && around.1.is_none() && self.trace.is_none();
        let of_matrix = caller.matrix.into_iter().flatten();
        let of_matrix = of_matrix.flat_map(|(name, value)| [Some(Plain::Text(name.clone())), Plain::of(value)]);
        let plain = arguments.values().map(Plain::of).chain(of_matrix);
        let plain: Option<Vec<Plain>> = if alone { plain.collect() } else { None };
        let key = plain.map(|plain| (element.namespace, element.name.clone(), plain));
        if let Some(known) = key.as_ref().and_then(|key| self.expanded.get(key)) {
            return Some(known.clone());
        }
        let scope = Scope {
            parameters: Some(&arguments),
            matrix: None,
            namespace: element.namespace,
            frame,
        };
        let mut expanded = self.expand_body(element, &scope, caller, around)?;
        expanded.broken = self.breaking_errors() > errors;
        let expanded = Rc::new(expanded);
        self.expanded.extend(key.map(|key| (key, expanded.clone())));
        Some(expanded)
    }

    fn expand_body(
        &mut self,
        element: &Rc<Element>,
        scope: &Scope<'_>,
        caller: &Scope<'_>,
        around: (Option<&Node>, Option<&Node>),
    ) -> Option<Expanded> {
        let source = element.node.as_mapping()?;
        let span = element.node.span().clone();
        // The settings see the values of the job's matrix; its steps do not. The original's own tests have both.
        let settings = Scope {
            matrix: caller.matrix,
            ..*scope
        };
        let own = self.substitute_mapping(source, &settings, &["parameters", "executor", "description", "steps"]);
        if !own.iter().all(|part| self.count_output(&part.value, &part.key.span)) {
            return None;
        }
        let mut result = Mapping::default();
        let kind = own
            .get("type")
            .and_then(|kind| kind.as_scalar())
            .map(|scalar| scalar.text.clone());
        self.check_job_keys(&element.node, kind.as_deref());
        if kind.as_deref().is_some_and(|kind| kind != "build") {
            own.iter().for_each(|entry| {
                result.insert(entry.clone());
            });
            return Some(Expanded {
                name: element.name.clone(),
                node: Node::mapping(result, span.clone()),
                span,
                broken: false,
                frame: scope.frame,
                executor: None,
            });
        }
        let called = match source.get("executor") {
            Some(node) => {
                let called = self.executor(node, scope)?;
                if !self.count_output(&called.body, node.span()) {
                    return None;
                }
                Some(called)
            }
            None => None,
        };
        let executor_frame = called.as_ref().map(|called| called.frame);
        let executor = called.as_ref().and_then(|called| called.body.as_mapping().cloned());
        let executor = executor.unwrap_or_default();
        let mut of_executor = Vec::new();
        let own_place = PLACES.iter().any(|key| own.contains(key));
        for part in executor.iter().filter(|part| SETTINGS.contains(&&*part.key.text)) {
            // A job that says itself where it runs keeps only the executor's other settings.
            if !(own_place && PLACES.contains(&&*part.key.text)) {
                if !own.contains(&part.key.text) {
                    of_executor.push(part.key.text.clone());
                }
                result.insert(part.clone());
            }
        }
        for key in ["resource_class", "shell"] {
            if let (Some(part), Some(beside)) = (own.entry(key), executor.entry(key)) {
                let message = format!(
                    "{key} is set both on the job and on the executor; the job's value is used and the executor's is \
                     ignored. See {EXECUTORS_PAGE}"
                );
                let diagnostic = Diagnostic::warning("config::executor", message).at(&part.key.span, "");
                self.report(diagnostic.also(&beside.key.span, "this is ignored"));
            }
        }
        for part in source {
            match &*part.key.text {
                "type" => {}
                // What these come to is put here below.
                "steps" | "environment" => drop(result.insert(part.clone())),
                key => {
                    if let Some(part) = own.entry(key) {
                        result.insert(part.clone());
                    }
                }
            }
        }
        if result.contains("docker") {
            result = Mapping::from_entries(
                result
                    .iter()
                    .filter(|part| !matches!(&*part.key.text, "machine" | "macos"))
                    .cloned(),
            );
        }
        if !PLACES.iter().any(|key| result.contains(key)) {
            self.report(match (&called, source.entry("executor")) {
                (Some(called), Some(part)) => {
                    let name = &called.name;
                    let message =
                        format!("Executor {name} is missing a required key: \"docker\", \"machine\", or \"macos\"");
                    Diagnostic::error("config::executor", message)
                        .at(part.value.span(), "")
                        .also(called.body.span(), "the executor")
                        .hint("the executor or the job needs one of them")
                }
                _ => {
                    let message = format!("job `{}` does not say where it runs", element.name);
                    Diagnostic::error("config::no-executor", message)
                        .at(&span, "")
                        .hint("it needs `docker`, `machine`, `macos` or `executor`")
                }
            });
        }
        let mut steps = Vec::new();
        if let Some(before) = around.0 {
            self.expand_list(before, caller, &mut steps);
        }
        match source.get("steps") {
            Some(list) => self.expand_list(list, scope, &mut steps),
            None => {
                let message = format!("job `{}` has no `steps`", element.name);
                self.report(Diagnostic::error("config::no-steps", message).at(&span, ""));
            }
        }
        if let Some(after) = around.1 {
            self.expand_list(after, caller, &mut steps);
        }
        let at = source.entry("steps").map_or(&span, |steps| &steps.key.span).clone();
        result.insert(entry("steps", Node::sequence(steps, at.clone()), &at));
        let environments = [
            (executor.get("environment"), executor_frame.unwrap_or(scope.frame)),
            (own.get("environment"), scope.frame),
        ];
        match self.environment(&environments, &span) {
            Some(environment) => drop(result.insert(entry("environment", environment, &span))),
            None => {
                let rest = result.iter().filter(|part| &*part.key.text != "environment");
                result = Mapping::from_entries(rest.cloned());
            }
        }
        self.hoist(&mut result, "machine", &own);
        self.hoist(&mut result, "macos", &own);
        Some(Expanded {
            name: element.name.clone(),
            node: Node::mapping(result, span.clone()),
            span,
            broken: false,
            frame: scope.frame,
            executor: executor_frame.map(|frame| (frame, of_executor)),
        })
    }

    /// Environments as one list of maps with one key each; a later one's value replaces an earlier one's in its position.
    fn environment(&mut self, sources: &[(Option<&Node>, FrameId)], at: &Span) -> Option<Node> {
        let mut merged = Mapping::default();
        let mut frames: HashMap<Arc<str>, FrameId> = HashMap::new();
        for (source, frame) in sources {
            let Some(source) = source else { continue };
            let mut own = Mapping::default();
            self.read_environment(source, &mut own);
            for part in &own {
                frames.insert(part.key.text.clone(), *frame);
                merged.insert(part.clone());
            }
        }
        if merged.is_empty() {
            return None;
        }
        let mut items = Vec::with_capacity(merged.len());
        for part in &merged {
            let item = Node::mapping(Mapping::from_entries([part.clone()]), part.key.span.clone());
            if let Some(frame) = frames.get(&part.key.text) {
                self.trace_written(&item, *frame);
            }
            items.push(item);
        }
        Some(Node::sequence(items, at.clone()))
    }

    /// An `environment`: a map, a list of maps, or a list of `K=V`.
    pub(crate) fn read_environment(&mut self, node: &Node, out: &mut Mapping) {
        if let Some(mapping) = node.as_mapping() {
            mapping.iter().for_each(|part| {
                out.insert(part.clone());
            });
        } else if let Some(items) = node.as_sequence() {
            for item in items {
                match (
                    item.as_mapping(),
                    item.as_scalar().map(|scalar| scalar.text.split_once('=')),
                ) {
                    (Some(mapping), _) => mapping.iter().for_each(|part| {
                        out.insert(part.clone());
                    }),
                    (_, Some(Some((name, value)))) => {
                        let value = Node::scalar(value, ScalarStyle::Quoted, item.span().clone());
                        out.insert(entry(name, value, item.span()));
                    }
                    (_, Some(None)) if !item.is_null() => {
                        let message = "an entry of an `environment` list is `NAME=value` or a map";
                        self.report(Diagnostic::error("config::environment", message).at(item.span(), ""));
                    }
                    _ => {}
                }
            }
        } else if !node.is_null() {
            let message = format!("`environment` is a map of names to values, and this is {}", node.kind());
            self.report(Diagnostic::error("config::environment", message).at(node.span(), ""));
        }
    }

    /// What an `executor:` comes to: the executor's body with its parameters in place, and its call.
    fn executor(&mut self, node: &Node, scope: &Scope<'_>) -> Option<CalledExecutor> {
        let written = node;
        let mut node = node.clone();
        let mut scope = *scope;
        let mut given: Vec<Entry> = Vec::new();
        // A parameter of type executor brings its own call and the names of where it was given.
        for _ in 0..8 {
            if let Some(mapping) = node.as_mapping() {
                let (name, arguments): (Node, Vec<Entry>) = match mapping.get("name") {
                    Some(name) => (
                        name.clone(),
                        mapping
                            .iter()
                            .filter(|part| &*part.key.text != "name")
                            .cloned()
                            .collect(),
                    ),
                    None if mapping.len() == 1 => {
                        let part = &mapping.entries()[0];
                        let name = Node::scalar(part.key.text.clone(), ScalarStyle::Quoted, part.key.span.clone());
                        (
                            name,
                            part.value
                                .as_mapping()
                                .map(|body| body.entries().to_vec())
                                .unwrap_or_default(),
                        )
                    }
                    None => {
                        let message = "an executor with arguments needs its `name`";
                        self.report(Diagnostic::error("config::executor", message).at(node.span(), ""));
                        return None;
                    }
                };
                for part in arguments {
                    let value = self.substitute(&part.value, &scope);
                    let value = self.in_place(&value);
                    given.push(Entry { value, ..part });
                }
                node = name;
                continue;
            }
            match self.value(&node, &scope) {
                Value::Executor { node: call, namespace } => {
                    let own = scope.namespace;
                    if let Some(name) = call.as_scalar() {
                        return self.executor_named(&name.text.clone(), &given, namespace, own, &scope, written);
                    }
                    scope = Scope::top(namespace);
                    node = call;
                }
                Value::Text(name) => {
                    let namespace = scope.namespace;
                    return self.executor_named(&name, &given, namespace, namespace, &scope, written);
                }
                _ => {
                    let text = node
                        .as_scalar()
                        .map_or_else(String::new, |scalar| scalar.text.to_string());
                    let message = format!("Executor invocation {text} must resolve to an executor name");
                    self.report(Diagnostic::error("config::executor", message).at(node.span(), ""));
                    return None;
                }
            }
        }
        None
    }

    fn executor_named(
        &mut self,
        name: &str,
        given: &[Entry],
        namespace: NamespaceId,
        fallback: NamespaceId,
        scope: &Scope<'_>,
        call: &Node,
    ) -> Option<CalledExecutor> {
        if self.stand_ins && name == STAND_IN {
            let image = Node::scalar(STAND_IN, ScalarStyle::Quoted, call.span().clone());
            let docker = Node::sequence(vec![image], call.span().clone());
            let body = Mapping::from_entries([entry("docker", docker, call.span())]);
            return Some(CalledExecutor {
                name: name.into(),
                body: Node::mapping(body, call.span().clone()),
                frame: scope.frame,
            });
        }
        let mut found = self.find(Kind::Executor, namespace, name);
        if matches!(found, Found::Nothing) && namespace != fallback {
            found = self.find(Kind::Executor, fallback, name);
        }
        let element = match found {
            Found::Element(element) => element,
            Found::BrokenOrb => return None,
            Found::BrokenAlias(message) => {
                self.report(Diagnostic::error("config::unknown-executor", message).at(call.span(), ""));
                return None;
            }
            Found::Nothing => {
                let message = format!("Cannot find a definition for executor named {name}");
                let mut diagnostic = Diagnostic::error("config::unknown-executor", message).at(call.span(), "");
                if !self.has_templates {
                    diagnostic = diagnostic.hint("executors need `version: 2.1`");
                } else if let Some(near) = crate::suggest::nearest(name, self.known_names(Kind::Executor, namespace)) {
                    diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
                }
                self.report(diagnostic);
                return None;
            }
        };
        self.context.push(format!("Error calling executor: '{name}'"));
        self.check_keys(&element.node, EXECUTOR_KEYS, "an executor", Others::Refused);
        // The arguments have been put in place already, in the scope of each call.
        let (arguments, frame) = self.bind(&element, given, scope, call.span());
        let inner = Scope {
            parameters: Some(&arguments),
            matrix: None,
            namespace: element.namespace,
            frame,
        };
        let body = element
            .node
            .as_mapping()
            .map(|body| self.substitute_mapping(body, &inner, &["parameters", "description"]));
        // The job may say itself where it runs, and have the rest of the executor.
        if let Some(body) = &body
            && !PLACES.iter().any(|key| body.contains(key))
        {
            let message = format!(
                "An executor with no declared \"docker\", \"machine\", or \"macos\" key is undocumented, and support for it \
                 may be removed at a future date. See {EXECUTORS_PAGE}"
            );
            self.report(Diagnostic::warning("config::executor", message).at(element.node.span(), ""));
        }
        self.context.pop();
        Some(CalledExecutor {
            name: name.into(),
            body: Node::mapping(body?, element.node.span().clone()),
            frame,
        })
    }

    /// Reads an executor by itself, as if a job called it with `given`.
    pub(crate) fn check_executor(&mut self, element: &Element, given: &[Entry], scope: &Scope<'_>) {
        let call = Node::scalar(element.name.clone(), ScalarStyle::Quoted, element.node.span().clone());
        self.executor_named(&element.name, given, CONFIG, CONFIG, scope, &call);
    }

    /// Says which keys a job has that jobs of its type do not.
    ///
    /// Source: <https://circleci.com/docs/reference/configuration-reference/#job-type>
    fn check_job_keys(&mut self, job: &Node, kind: Option<&str>) {
        // What nothing runs may hold more: the original looks at a lock when a workflow has it.
        let of_lock = match self.stand_ins {
            true => Others::Ignored,
            false => Others::Refused,
        };
        let (known, what, others) = match kind {
            Some("release") => (RELEASE_KEYS, "a job of type release", Others::Ignored),
            Some("lock") => (LOCK_KEYS, "a job of type lock", of_lock),
            Some("unlock") => (LOCK_KEYS, "a job of type unlock", of_lock),
            // What they have of other jobs' keys does nothing, and may be there for another day.
            Some("approval" | "no-op") => (JOB_KEYS, "a job", Others::Ignored),
            _ => (JOB_KEYS, "a job", Others::Refused),
        };
        self.check_keys(job, known, what, others);
    }

    /// `resource_class` and `shell` written inside `machine` or `macos` belong to the job. `own` is what the job says without
    /// its executor.
    fn hoist(&mut self, job: &mut Mapping, place: &str, own: &Mapping) {
        let Some(node) = job.get(place) else { return };
        let Some(inner) = node.as_mapping() else { return };
        let span = node.span().clone();
        let is_hoisted = |part: &&Entry| matches!(&*part.key.text, "resource_class" | "shell");
        let (hoisted, rest): (Vec<&Entry>, Vec<&Entry>) = inner.iter().partition(is_hoisted);
        if hoisted.is_empty() {
            return;
        }
        let hoisted: Vec<Entry> = hoisted.into_iter().cloned().collect();
        let rest = match rest.is_empty() {
            true => Node::scalar("true", ScalarStyle::Plain, span.clone()),
            false => Node::mapping(Mapping::from_entries(rest.into_iter().cloned()), span.clone()),
        };
        job.insert(entry(place, rest, &span));
        for part in hoisted {
            let key = &part.key.text;
            match job.entry(key) {
                None => {
                    if place == "machine" {
                        let message = format!(
                            "Setting `{key}` inside the `machine` map is undocumented; set it as a sibling of `machine` \
                             instead. See {EXECUTORS_PAGE}"
                        );
                        self.report(Diagnostic::warning("config::executor", message).at(&part.key.span, ""));
                    }
                    job.insert(part);
                }
                // A job's own machine beside its executor's other settings are two who do not know of each other.
                Some(beside) if place == "machine" && (own.contains(key) || !own.contains(place)) => {
                    let message = format!(
                        "{key} is set both on the job and inside the `machine` map; remove the one inside `machine`"
                    );
                    self.report(
                        Diagnostic::error("config::executor", message)
                            .at(&part.key.span, "")
                            .also(&beside.key.span, "the other one"),
                    );
                }
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What editors are told and what is compiled are one language.
    #[test]
    fn the_schema_has_the_keys_that_are_read() {
        let schema: serde_json::Value = serde_json::from_str(crate::SCHEMA).unwrap();
        let keys = |pointer: &str| {
            let object = schema.pointer(pointer).and_then(|keys| keys.as_object()).unwrap();
            let mut keys: Vec<&str> = object.keys().map(String::as_str).collect();
            keys.sort_unstable();
            keys
        };
        let known = |known: &[&'static str]| {
            let mut known = known.to_vec();
            known.sort_unstable();
            known
        };
        // What only a release has is in the one list of the schema, too.
        let jobs = [JOB_KEYS, &["validation"]].concat();
        assert_eq!(keys("/definitions/job/anyOf/1/properties"), known(&jobs));
        assert_eq!(keys("/definitions/executor/anyOf/1/properties"), known(EXECUTOR_KEYS));
        assert_eq!(
            keys("/definitions/orb/anyOf/1/properties"),
            known(crate::elements::ORB_KEYS)
        );
        assert_eq!(keys("/properties"), known(crate::compiler::TOP_KEYS));
        let steps = [crate::steps::BUILTINS, &["when", "unless", "steps"]].concat();
        assert_eq!(keys("/definitions/builtinStep/properties"), known(&steps));
        assert_eq!(
            keys("/definitions/invocation/properties"),
            known(crate::workflows::INVOCATION_KEYS)
        );
    }
}
