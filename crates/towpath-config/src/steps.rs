//! Steps: commands called, conditions decided, lists of steps put in place, until only the language's own steps are left.

use std::rc::Rc;
use std::sync::Arc;

use towpath_yaml::{Diagnostic, Entry, Key, Mapping, Node, Span};

use crate::compiler::Compiler;
use crate::jobs::Others;
use crate::namespace::{Element, Found, Kind};
use crate::parameters::call_entries;
use crate::scope::Scope;
use crate::value::Value;

/// The language's own steps.
pub(crate) const BUILTINS: &[&str] = &[
    "run",
    "checkout",
    "setup_remote_docker",
    "save_cache",
    "restore_cache",
    "persist_to_workspace",
    "attach_workspace",
    "store_artifacts",
    "store_test_results",
    "add_ssh_keys",
    "deploy",
    "install_signing_bundle",
    "with_tool_cache",
];

/// The step of the language that `name` is. `restore-cache` is `restore_cache`, too.
pub(crate) fn builtin_named(name: &str) -> Option<&'static str> {
    let same = |builtin: &&&str| {
        builtin.len() == name.len()
            && builtin
                .bytes()
                .zip(name.bytes())
                .all(|(one, other)| one == other || (one == b'_' && other == b'-'))
    };
    BUILTINS.iter().find(same).copied()
}

/// The steps that decide over others.
const CONTROLS: &[&str] = &["when", "unless", "steps"];

/// The steps that a `run` step's `teardown` can have.
const TEARDOWN: &[&str] = &[
    "run",
    "save_cache",
    "persist_to_workspace",
    "store_artifacts",
    "store_test_results",
];

const MAX_STEPS: usize = 1_000_000;
/// Calls that come to nothing take time, too.
const MAX_VISITS: usize = 2_000_000;
const MAX_OUTPUT_NODES: u64 = 5_000_000;
const MAX_OUTPUT_BYTES: u64 = 256 << 20;
const MAX_DEPTH: usize = 100;

impl Compiler<'_> {
    /// Expands `steps`, written in `scope`, onto `out`.
    pub(crate) fn expand_steps(&mut self, steps: &[Node], scope: &Scope<'_>, out: &mut Vec<Node>) {
        for step in steps {
            if self.exhausted {
                return;
            }
            self.expand_step(step, scope, out);
        }
    }

    /// Expands a list of steps, or what a template such as `<< parameters.steps >>` stands for.
    pub(crate) fn expand_list(&mut self, node: &Node, scope: &Scope<'_>, out: &mut Vec<Node>) {
        if let Some(items) = node.as_sequence() {
            return self.expand_steps(items, scope, out);
        }
        match self.value(node, scope) {
            Value::Steps(steps) => self.push_steps(&steps, out, node.span()),
            Value::Null => {}
            value => {
                let message = format!("steps are a list, and this is of type {}", value.type_name());
                self.report(Diagnostic::error("config::steps", message).at(node.span(), ""));
            }
        }
    }

    fn push_steps(&mut self, steps: &[Node], out: &mut Vec<Node>, at: &Span) {
        if self.count_steps(steps.len(), at) && steps.iter().all(|step| self.count_output(step, at)) {
            out.extend_from_slice(steps);
        }
    }

    fn count_steps(&mut self, count: usize, at: &Span) -> bool {
        self.step_count += count;
        if self.step_count > MAX_STEPS {
            self.exhaust(format!("this configuration expands to more than {MAX_STEPS} steps"), at);
        }
        !self.exhausted
    }

    /// Counts a part of what is compiled; `false` when that has become too large.
    pub(crate) fn count_output(&mut self, part: &Node, at: &Span) -> bool {
        self.output_nodes = self.output_nodes.saturating_add(part.expanded_nodes());
        self.output_bytes = self.output_bytes.saturating_add(part.expanded_bytes());
        if self.output_nodes > MAX_OUTPUT_NODES {
            let message = format!("this configuration expands to more than {MAX_OUTPUT_NODES} values");
            self.exhaust(message, at);
        }
        if self.output_bytes > MAX_OUTPUT_BYTES {
            let message = format!("this configuration expands to more than {MAX_OUTPUT_BYTES} bytes");
            self.exhaust(message, at);
        }
        !self.exhausted
    }

    /// Ends the expansion.
    fn exhaust(&mut self, message: String, at: &Span) {
        if !self.exhausted {
            self.exhausted = true;
            self.report(Diagnostic::error("config::too-large", message).at(at, "it stops here"));
        }
    }

    fn expand_step(&mut self, step: &Node, scope: &Scope<'_>, out: &mut Vec<Node>) {
        if self.depth >= MAX_DEPTH {
            let message = format!("commands and conditions are nested more than {MAX_DEPTH} levels deep");
            self.report(Diagnostic::error("config::too-deep", message).at(step.span(), ""));
            return;
        }
        self.visits += 1;
        if self.visits > MAX_VISITS {
            let message = format!("this configuration makes more than {MAX_VISITS} calls and conditions");
            return self.exhaust(message, step.span());
        }
        self.depth += 1;
        match step.as_mapping() {
            Some(mapping) => self.expand_mapping(step, mapping, scope, out),
            // An alias to a list of steps stands for them.
            None if let Some(steps) = step.as_sequence() => self.expand_steps(steps, scope, out),
            None => match self.value(step, scope) {
                Value::Steps(steps) => self.push_steps(&steps, out, step.span()),
                Value::Text(name) => self.call(&name, None, step.span(), step, scope, out),
                value => {
                    let message = format!("a step is a name or a map, and this is {}", value.type_name());
                    self.report(Diagnostic::error("config::steps", message).at(step.span(), ""));
                }
            },
        }
        self.depth -= 1;
    }

    fn expand_mapping(&mut self, step: &Node, mapping: &Mapping, scope: &Scope<'_>, out: &mut Vec<Node>) {
        let Some(entry) = mapping.entries().first() else {
            let message = "a step is a name or a map with one key, and this map is empty";
            self.report(Diagnostic::error("config::steps", message).at(step.span(), ""));
            return;
        };
        let is_own = |name: &str| builtin_named(name).is_some() || CONTROLS.contains(&name) || name.contains("<<");
        let is_call = entry.value.is_null() && self.has_templates && !is_own(&entry.key.text);
        if is_call && mapping.len() > 1 {
            self.call_beside_its_arguments(mapping, scope, out, step);
            return;
        }
        if let Some(second) = mapping.entries().get(1) {
            let message = format!(
                "a step has one key, and this one has {}: {}",
                mapping.len(),
                mapping
                    .iter()
                    .map(|entry| format!("`{}`", entry.key.text))
                    .collect::<Vec<_>>()
                    .join(", ")
            );
            let mut diagnostic = Diagnostic::error("config::steps", message)
                .at(&entry.key.span, "")
                .also(&second.key.span, "a second key");
            if entry.value.is_null() {
                diagnostic = diagnostic.hint(format!("indent `{}` by two more columns", second.key.text));
            }
            self.report(diagnostic);
            return;
        }
        // Of steps that an invocation gives the original says so.
        if is_call && scope.parameters.is_none() {
            let name = &entry.key.text;
            let message = format!(
                "Step '{name}' has a null body; treating as a no-argument invocation. Write `- {name}` instead."
            );
            self.report(Diagnostic::warning("config::empty-invocation", message).at(&entry.key.span, ""));
        }
        let body = &entry.value;
        match &*entry.key.text {
            key @ ("when" | "unless") if body.as_mapping().is_some() && self.has_templates => {
                for part in body.as_mapping().into_iter().flatten() {
                    if !matches!(&*part.key.text, "condition" | "steps" | "name" | "description") {
                        let message = format!("`{key}` has no key `{}`", part.key.text);
                        self.report(Diagnostic::error("config::unknown-key", message).at(&part.key.span, ""));
                    }
                }
                let (condition, steps) = (body.get("condition"), body.get("steps"));
                let (Some(condition), Some(steps)) = (condition, steps) else {
                    let message = format!("`{key}` needs a `condition` and `steps`");
                    self.report(Diagnostic::error("config::steps", message).at(&entry.key.span, ""));
                    return;
                };
                if self.condition(condition, scope) == (key == "when") {
                    self.expand_list(steps, scope, out);
                }
            }
            "steps" => self.expand_list(body, scope, out),
            name if name.contains("<<") => {
                let message = format!("`{name}`: the name of a step cannot come from a parameter");
                self.report(Diagnostic::error("config::steps", message).at(&entry.key.span, ""));
            }
            _ => self.call(&entry.key.text, Some(body), &entry.key.span, step, scope, out),
        }
    }

    /// A call with nothing below its name and other keys beside it: the original takes it for a call without arguments.
    fn call_beside_its_arguments(&mut self, step: &Mapping, scope: &Scope<'_>, out: &mut Vec<Node>, node: &Node) {
        let Some((call, beside)) = step.entries().split_first() else {
            return;
        };
        let name = &call.key.text;
        let keys: Vec<&str> = beside.iter().map(|part| &*part.key.text).collect();
        let message = format!(
            "Step '{name}' has {} sibling key(s) at the same indentation ({}). Keeping '{name}' as a no-argument step and \
             ignoring the rest; this usually means the step's parameters are indented to the same level as the step name.",
            beside.len(),
            keys.join(", ")
        );
        let mut diagnostic = Diagnostic::warning("config::ignored-arguments", message).at(&call.key.span, "");
        for part in beside {
            diagnostic = diagnostic.also(&part.key.span, "this is ignored");
        }
        self.report(diagnostic.hint(format!("indent `{}` by two more columns", keys.join("`, `"))));
        self.call(name, None, &call.key.span, node, scope, out);
    }

    fn call(
        &mut self,
        name: &Arc<str>,
        body: Option<&Node>,
        at: &Span,
        step: &Node,
        scope: &Scope<'_>,
        out: &mut Vec<Node>,
    ) {
        let is_own = builtin_named(name).is_some();
        let found = match is_own && !self.defines(Kind::Command, scope.namespace, name) {
            true => Found::Nothing,
            false => self.find(Kind::Command, scope.namespace, name),
        };
        match found {
            Found::Element(element) => self.call_command(name, &element, body, at, scope, out),
            Found::BrokenOrb => {}
            Found::BrokenAlias(message) => {
                self.report(Diagnostic::error("config::unknown-command", message).at(at, ""));
            }
            // A name that also is one of the language's own steps keeps that meaning.
            _ if is_own => {
                if let Some(step) = self.builtin(name, body, at, step, scope)
                    && self.count_steps(1, at)
                    && self.count_output(&step, at)
                {
                    self.trace_written(&step, scope.frame);
                    out.push(step);
                }
            }
            Found::Nothing if self.is_function(name) => {
                let message = format!("`{name}` is a function, and Towpath does not run functions");
                let hint = "an orb or a `run` step does the same";
                self.report(Diagnostic::error("config::function", message).at(at, "").hint(hint));
            }
            Found::Nothing => {
                let message = format!("Cannot find a definition for command named {name}");
                let mut diagnostic = Diagnostic::error("config::unknown-command", message).at(at, "");
                let known = self.known_names(Kind::Command, scope.namespace);
                let known = known
                    .iter()
                    .map(String::as_str)
                    .chain(BUILTINS.iter().copied())
                    .chain(["when", "unless"]);
                if !self.has_templates {
                    diagnostic = diagnostic.hint("commands, orbs and conditions need `version: 2.1`");
                } else if self.defines(Kind::Job, scope.namespace, name) {
                    diagnostic =
                        diagnostic.hint(format!("`{name}` is a job; a job is run by a workflow, not by a step"));
                } else if let Some(near) = crate::suggest::nearest(name, known) {
                    diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
                }
                self.report(diagnostic);
            }
        }
    }

    /// Whether a step calls a function: by the name under which `functions` has it, or one of its parts.
    ///
    /// Source: <https://circleci.com/docs/functions/functions-concepts/>
    fn is_function(&self, name: &str) -> bool {
        let alias = name.split_once('/').map_or(name, |(alias, _)| alias);
        let functions = self.root(crate::namespace::CONFIG).get("functions");
        functions.is_some_and(|functions| functions.get(alias).is_some())
    }

    pub(crate) fn call_command(
        &mut self,
        name: &Arc<str>,
        element: &Rc<Element>,
        body: Option<&Node>,
        at: &Span,
        scope: &Scope<'_>,
        out: &mut Vec<Node>,
    ) {
        if self.calls.iter().any(|call| Rc::ptr_eq(call, element)) {
            let message = format!("Infinite loop detected: command {name} calls itself");
            self.report(Diagnostic::error("config::recursion", message).at(at, ""));
            return;
        }
        self.calls.push(element.clone());
        self.context.push(format!("Error calling command: '{name}'"));
        match call_entries(body) {
            None => {
                let message = format!("the arguments of command `{name}` must be a map");
                let at = body.map_or(at, |body| body.span());
                self.report(Diagnostic::error("config::arguments", message).at(at, ""));
            }
            Some(given) => {
                // The caller's own calls are not on the way to its arguments.
                let own = self.calls.pop();
                let (arguments, frame) = self.bind(element, given, scope, at);
                self.calls.extend(own);
                let scope = Scope {
                    parameters: Some(&arguments),
                    matrix: None,
                    namespace: element.namespace,
                    frame,
                };
                match element.node.get("steps") {
                    Some(steps) => self.expand_list(steps, &scope, out),
                    None => {
                        let message = format!("command `{name}` has no `steps`");
                        self.report(
                            Diagnostic::error("config::definition", message)
                                .at(element.node.span(), "")
                                .also(at, "called here"),
                        );
                    }
                }
                let known = ["description", "parameters", "steps"];
                self.check_keys(&element.node, &known, "a command", Others::Refused);
            }
        }
        self.context.pop();
        self.calls.pop();
    }

    /// One of the language's own steps with everything in place, in its long form.
    fn builtin(
        &mut self,
        name: &Arc<str>,
        body: Option<&Node>,
        at: &Span,
        step: &Node,
        scope: &Scope<'_>,
    ) -> Option<Node> {
        let Some(body) = body.filter(|body| !body.is_null()) else {
            if !matches!(
                &**name,
                "checkout" | "setup_remote_docker" | "add_ssh_keys" | "install_signing_bundle"
            ) {
                // The original looks at the form of a definition's steps, and not at that of steps given to a call.
                self.report(match &**name {
                    "run" if scope.parameters.is_none() => {
                        let message = "a `run` step without a command does nothing";
                        Diagnostic::warning("config::steps", message).at(at, "")
                    }
                    "run" => Diagnostic::error("config::steps", "a `run` step needs a command").at(at, ""),
                    _ => {
                        let message = format!("step `{name}` needs more than its name");
                        Diagnostic::error("config::steps", message).at(at, "")
                    }
                });
                return None;
            }
            let span = step.span().clone();
            return Some(Node::scalar(name.clone(), towpath_yaml::ScalarStyle::Quoted, span));
        };
        let value = match &**name {
            "with_tool_cache" => {
                let mut steps = Vec::new();
                if let Some(list) = body.get("steps") {
                    self.expand_list(list, scope, &mut steps);
                }
                let mut mapping = body
                    .as_mapping()
                    .map(|body| self.substitute_mapping(body, scope, &["steps"]))?;
                mapping.insert(entry("steps", Node::sequence(steps, body.span().clone()), at));
                Node::mapping(mapping, body.span().clone())
            }
            "run" | "deploy" if let Some(teardown) = body.get("teardown") => {
                let teardown = self.teardown(teardown, scope);
                let mut mapping = body
                    .as_mapping()
                    .map(|body| self.substitute_mapping(body, scope, &["teardown"]))?;
                mapping.insert(entry("teardown", teardown, at));
                Node::mapping(mapping, body.span().clone())
            }
            _ => self.substitute(body, scope),
        };
        let value = match (&**name, value.as_scalar()) {
            ("run" | "deploy", Some(_)) => {
                let mut mapping = Mapping::default();
                mapping.insert(entry("command", value.clone(), body.span()));
                Node::mapping(mapping, body.span().clone())
            }
            _ => value,
        };
        // Explained, each step is a node of its own: one written once may come through several calls.
        if body.same(&value) && step.as_mapping().is_some() && self.trace.is_none() {
            return Some(step.clone());
        }
        let mut mapping = Mapping::default();
        mapping.insert(entry(name.clone(), value, at));
        Some(Node::mapping(mapping, at.clone()))
    }
}

impl Compiler<'_> {
    /// The steps of a `run` step's `teardown`.
    fn teardown(&mut self, list: &Node, scope: &Scope<'_>) -> Node {
        let mut steps = Vec::new();
        let Some(items) = list.as_sequence() else {
            if !list.is_null() {
                let message = format!("`teardown` is a list of steps, and this is {}", list.kind());
                self.report(Diagnostic::error("config::steps", message).at(list.span(), ""));
            }
            return Node::sequence(steps, list.span().clone());
        };
        for item in items {
            let part = item.as_mapping().and_then(|item| item.entries().first());
            let (name, at) = match part {
                Some(part) => (Some(&part.key.text), &part.key.span),
                None => (item.as_scalar().map(|scalar| &scalar.text), item.span()),
            };
            let name = name.map_or("", |name| &**name);
            if !TEARDOWN.contains(&name) {
                let message = format!("`{name}` isn't allowed here: it is no step of a teardown");
                let hint = format!("there are {}", TEARDOWN.join(", "));
                self.report(Diagnostic::error("config::steps", message).at(at, "").hint(hint));
                continue;
            }
            let body = part.filter(|_| name == "run").and_then(|part| part.value.as_mapping());
            let odd = body.and_then(|body| body.entry("background").or(body.entry("teardown")));
            if let Some(odd) = odd {
                let message = format!(
                    "`{}` isn't allowed here: a teardown's `run` step does not have it",
                    odd.key.text
                );
                self.report(Diagnostic::error("config::steps", message).at(&odd.key.span, ""));
                continue;
            }
            self.expand_step(item, scope, &mut steps);
        }
        Node::sequence(steps, list.span().clone())
    }
}

/// An entry that was computed.
pub(crate) fn entry(key: impl Into<Arc<str>>, value: Node, at: &Span) -> Entry {
    Entry {
        key: Key {
            text: key.into(),
            span: at.clone(),
        },
        value,
        merged_at: None,
    }
}
