//! Executors: calls of executors, and where their settings belong in a job.

use std::sync::Arc;

use towpath_yaml::{Diagnostic, Entry, Mapping, Node, ScalarStyle};

use crate::compiler::Compiler;
use crate::element::{CONFIG, Element, Found, Kind, NamespaceId};
use crate::keys::{self, EXECUTOR_TYPES};
use crate::scope::Scope;
use crate::trace::FrameId;
use crate::unknown_keys::UnknownKeys;
use crate::value::Value;
use towpath_types::nearest;

/// The documentation to which some of CircleCI's messages refer.
pub(crate) const EXECUTORS_PAGE: &str = "https://circleci.com/docs/reference/configuration-reference/#executors";

/// The name of the executor that is used as a placeholder for a required argument.
pub(crate) const PLACEHOLDER: &str = "<an executor>";

/// An executor with its parameters replaced.
pub(crate) struct CalledExecutor {
    pub(crate) name: Arc<str>,
    pub(crate) body: Node,
    pub(crate) frame: FrameId,
}

impl Compiler<'_> {
    /// Expands the `executor` of a job.
    pub(crate) fn executor(&mut self, node: &Node, scope: &Scope<'_>) -> Option<CalledExecutor> {
        let written = node;
        let mut node = node.clone();
        let mut scope = *scope;
        let mut given: Vec<Entry> = Vec::new();
        // A parameter of type executor holds a call that was written in another scope.
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
                    let value = self.escaped(&value);
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

    /// Expands the executor called `name` in `namespace`, or else in `fallback`.
    fn executor_named(
        &mut self,
        name: &str,
        given: &[Entry],
        namespace: NamespaceId,
        fallback: NamespaceId,
        scope: &Scope<'_>,
        call: &Node,
    ) -> Option<CalledExecutor> {
        if self.has_placeholders && name == PLACEHOLDER {
            let image = Node::scalar(PLACEHOLDER, ScalarStyle::Quoted, call.span().clone());
            let docker = Node::sequence(vec![image], call.span().clone());
            let body = Mapping::from_entries([Entry::computed("docker", docker, call.span())]);
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
            Found::Broken => return None,
            Found::BrokenAlias(message) => {
                self.report(Diagnostic::error("config::unknown-executor", message).at(call.span(), ""));
                return None;
            }
            Found::Nothing => {
                let message = format!("Cannot find a definition for executor named {name}");
                let mut diagnostic = Diagnostic::error("config::unknown-executor", message).at(call.span(), "");
                if !self.has_templates {
                    diagnostic = diagnostic.hint("executors need `version: 2.1`");
                } else if let Some(near) = nearest(name, self.known_names(Kind::Executor, namespace)) {
                    diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
                }
                self.report(diagnostic);
                return None;
            }
        };
        self.context.push(format!("Error calling executor: '{name}'"));
        self.check_keys(&element.node, keys::EXECUTOR, "an executor", UnknownKeys::Refused);
        // The templates in the arguments have been replaced in the scope of each call.
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
        // A job may say where it runs and use the other settings of the executor.
        if let Some(body) = &body
            && !EXECUTOR_TYPES.iter().any(|key| body.contains(key))
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

    /// Checks an executor as if a job called it with the arguments `given`.
    pub(crate) fn check_executor(&mut self, element: &Element, given: &[Entry], scope: &Scope<'_>) {
        let call = Node::scalar(element.name.clone(), ScalarStyle::Quoted, element.node.span().clone());
        self.executor_named(&element.name, given, CONFIG, CONFIG, scope, &call);
    }

    /// Moves `resource_class` and `shell` from inside `machine` or `macos` to the job. `own` has the settings of the job without
    /// those of its executor.
    pub(crate) fn hoist(&mut self, job: &mut Mapping, key_of_executor: &str, own: &Mapping) {
        let Some(part) = job.entry(key_of_executor).cloned() else {
            return;
        };
        let node = &part.value;
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
        job.insert(Entry { value: rest, ..part });
        for part in hoisted {
            let key = &part.key.text;
            match job.entry(key) {
                None => {
                    if key_of_executor == "machine" {
                        let message = format!(
                            "Setting `{key}` inside the `machine` map is undocumented; set it as a sibling of `machine` \
                             instead. See {EXECUTORS_PAGE}"
                        );
                        self.report(Diagnostic::warning("config::executor", message).at(&part.key.span, ""));
                    }
                    job.insert(part);
                }
                // CircleCI accepts a duplicate if the job replaces the machine of its executor.
                Some(beside)
                    if key_of_executor == "machine" && (own.contains(key) || !own.contains(key_of_executor)) =>
                {
                    let message = format!(
                        "{key} is set both on the job and inside the `machine` map; remove the one inside `machine`"
                    );
                    self.report(
                        Diagnostic::error("config::executor", message)
                            .at(&part.key.span, "")
                            .also(&beside.key.span, "also set here"),
                    );
                }
                Some(_) => {}
            }
        }
    }
}
