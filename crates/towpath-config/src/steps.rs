//! Expands steps: calls commands, decides conditions and inserts lists of steps, until only built-in steps are left.

use std::rc::Rc;
use std::sync::Arc;

use towpath_yaml::{Diagnostic, Entry, Mapping, Node, ScalarStyle, Span};

use crate::compiler::Compiler;
use crate::element::{CONFIG, Element, Found, Kind};
use crate::keys::{BUILTIN_STEPS, CONTROL_STEPS, TEARDOWN_STEPS, builtin_step};
use crate::parameters::call_entries;
use crate::scope::Scope;
use crate::unknown_keys::UnknownKeys;
use crate::value::Value;
use towpath_types::nearest;

/// The number of calls and conditions, which take time even if they expand to nothing.
const MAX_VISITS: usize = 100_000;
const MAX_DEPTH: usize = 100;

impl Compiler<'_> {
    /// Expands steps that are written in `scope`, and appends the result to `out`.
    pub(crate) fn expand_steps(&mut self, steps: &[Node], scope: &Scope<'_>, out: &mut Vec<Node>) {
        for step in steps {
            if self.exhausted {
                return;
            }
            self.expand_step(step, scope, out);
        }
    }

    /// Expands a list of steps, or a template such as `<< parameters.steps >>`.
    pub(crate) fn expand_list(&mut self, node: &Node, scope: &Scope<'_>, out: &mut Vec<Node>) {
        if let Some(items) = node.as_sequence() {
            return self.expand_steps(items, scope, out);
        }
        match self.value(node, scope) {
            Value::Steps(steps) => self.push_steps(&steps, out, node.span()),
            Value::Null => {}
            value => {
                let message = format!("steps must be a list, but this is of type {}", value.type_name());
                self.report(Diagnostic::error("config::steps", message).at(node.span(), ""));
            }
        }
    }

    fn push_steps(&mut self, steps: &[Node], out: &mut Vec<Node>, at: &Span) {
        if self.count_steps(steps.len(), at) && steps.iter().all(|step| self.count_output(step, at)) {
            out.extend_from_slice(steps);
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
            // An alias can insert a list of steps.
            None if let Some(steps) = step.as_sequence() => self.expand_steps(steps, scope, out),
            None => match self.value(step, scope) {
                Value::Steps(steps) => self.push_steps(&steps, out, step.span()),
                Value::Text(name) => self.call(&name, None, step.span(), step, scope, out),
                value => {
                    let message = format!(
                        "a step must be a name or a map, but this is of type {}",
                        value.type_name()
                    );
                    self.report(Diagnostic::error("config::steps", message).at(step.span(), ""));
                }
            },
        }
        self.depth -= 1;
    }

    fn expand_mapping(&mut self, step: &Node, mapping: &Mapping, scope: &Scope<'_>, out: &mut Vec<Node>) {
        let Some(entry) = mapping.entries().first() else {
            let message = "a step must be a name or a map with one key, but this map is empty";
            self.report(Diagnostic::error("config::steps", message).at(step.span(), ""));
            return;
        };
        let is_own = |name: &str| builtin_step(name).is_some() || CONTROL_STEPS.contains(&name) || name.contains("<<");
        let is_call = entry.value.is_null() && self.has_templates && !is_own(&entry.key.text);
        if is_call && mapping.len() > 1 {
            self.call_beside_its_arguments(mapping, scope, out, step);
            return;
        }
        if let Some(second) = mapping.entries().get(1) {
            let message = format!(
                "a step must have one key, but this one has {}: {}",
                mapping.len(),
                mapping
                    .iter()
                    .map(|entry| format!("`{}`", entry.key.text))
                    .collect::<Vec<_>>()
                    .join(", ")
            );
            let mut diagnostic = Diagnostic::error("config::steps", message)
                .at(&entry.key.span, "")
                .also(&second.key.span, "the second key");
            if entry.value.is_null() {
                diagnostic = diagnostic.hint(format!("indent `{}` by two more columns", second.key.text));
            }
            self.report(diagnostic);
            return;
        }
        // CircleCI warns about this in the steps of an invocation only.
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
                let included = self.condition(condition, scope) == (key == "when");
                match steps.as_sequence().is_some() || steps.is_null() {
                    true if included => self.expand_list(steps, scope, out),
                    // CircleCI's schema allows one step in place of a list.
                    false if included => self.expand_step(steps, scope, out),
                    _ => {}
                }
            }
            "steps" => self.expand_list(body, scope, out),
            name if name.contains("<<") => {
                let message = format!("`{name}`: the name of a step cannot be a template");
                self.report(Diagnostic::error("config::steps", message).at(&entry.key.span, ""));
            }
            _ => self.call(&entry.key.text, Some(body), &entry.key.span, step, scope, out),
        }
    }

    /// Expands a call whose arguments are beside its name instead of below it. CircleCI ignores the arguments.
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
        // A command can replace a built-in step.
        let is_builtin = builtin_step(name).is_some();
        let found = match is_builtin && !self.defines(Kind::Command, scope.namespace, name) {
            true => Found::Nothing,
            false => self.find(Kind::Command, scope.namespace, name),
        };
        match found {
            Found::Element(element) => self.call_command(name, &element, body, at, scope, out),
            Found::Broken => {}
            Found::BrokenAlias(message) => {
                self.report(Diagnostic::error("config::unknown-command", message).at(at, ""));
            }
            _ if is_builtin => {
                if let Some(step) = self.builtin(name, body, at, step, scope)
                    && self.count_steps(1, at)
                    && self.count_output(&step, at)
                {
                    if let Some(trace) = &mut self.trace {
                        trace.note_written(&step, scope.frame);
                    }
                    out.push(step);
                }
            }
            Found::Nothing if self.is_function(name) => {
                let message = format!("`{name}` is a function, and Towpath does not run functions");
                let hint = "use an orb or a `run` step instead";
                self.report(Diagnostic::error("config::function", message).at(at, "").hint(hint));
            }
            Found::Nothing => {
                let message = format!("Cannot find a definition for command named {name}");
                let mut diagnostic = Diagnostic::error("config::unknown-command", message).at(at, "");
                let known = self.known_names(Kind::Command, scope.namespace);
                let known = known
                    .iter()
                    .map(String::as_str)
                    .chain(BUILTIN_STEPS.iter().copied())
                    .chain(["when", "unless"]);
                if !self.has_templates {
                    diagnostic = diagnostic.hint("commands, orbs and conditions need `version: 2.1`");
                } else if self.defines(Kind::Job, scope.namespace, name) {
                    diagnostic = diagnostic.hint(format!("`{name}` is a job, and only a workflow can run a job"));
                } else if let Some(near) = nearest(name, known) {
                    diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
                }
                self.report(diagnostic);
            }
        }
    }

    /// Whether a step calls a function or a part of a function that `functions` imports.
    ///
    /// Source: <https://circleci.com/docs/functions/functions-concepts/>
    fn is_function(&self, name: &str) -> bool {
        let alias = name.split_once('/').map_or(name, |(alias, _)| alias);
        let functions = self.root(CONFIG).get("functions");
        functions.is_some_and(|functions| functions.get(alias).is_some())
    }

    /// Expands a call of a command.
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
                // The arguments are written outside of the called command.
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
                self.check_keys(&element.node, &known, "a command", UnknownKeys::Refused);
            }
        }
        self.context.pop();
        self.calls.pop();
    }

    /// Expands a built-in step to its long form.
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
                // CircleCI checks the form of steps in definitions, but not of steps in arguments.
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
            return Some(Node::scalar(name.clone(), ScalarStyle::Quoted, span));
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
                mapping.insert(Entry::computed("steps", Node::sequence(steps, body.span().clone()), at));
                Node::mapping(mapping, body.span().clone())
            }
            "run" | "deploy" if let Some(teardown) = body.get("teardown") => {
                let teardown = self.teardown(teardown, scope);
                let mut mapping = body
                    .as_mapping()
                    .map(|body| self.substitute_mapping(body, scope, &["teardown"]))?;
                mapping.insert(Entry::computed("teardown", teardown, at));
                Node::mapping(mapping, body.span().clone())
            }
            _ => self.substitute(body, scope),
        };
        let value = match (&**name, value.as_scalar()) {
            ("run" | "deploy", Some(_)) => {
                let mut mapping = Mapping::default();
                mapping.insert(Entry::computed("command", value.clone(), body.span()));
                Node::mapping(mapping, body.span().clone())
            }
            _ => value,
        };
        // An explanation needs a node per step: a step that is written once may come through several calls.
        if body.same(&value) && step.as_mapping().is_some() && self.trace.is_none() {
            return Some(step.clone());
        }
        let mut mapping = Mapping::default();
        mapping.insert(Entry::computed(name.clone(), value, at));
        Some(Node::mapping(mapping, at.clone()))
    }

    /// Expands the steps of a `teardown`.
    fn teardown(&mut self, list: &Node, scope: &Scope<'_>) -> Node {
        let mut steps = Vec::new();
        let Some(items) = list.as_sequence() else {
            if !list.is_null() {
                let message = format!("`teardown` must be a list of steps, not {}", list.kind());
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
            if !TEARDOWN_STEPS.contains(&name) {
                let message = format!("`{name}` isn't allowed here: a teardown cannot have this step");
                let hint = format!("the steps of a teardown are {}", TEARDOWN_STEPS.join(", "));
                self.report(Diagnostic::error("config::steps", message).at(at, "").hint(hint));
                continue;
            }
            let body = part.filter(|_| name == "run").and_then(|part| part.value.as_mapping());
            let refused = body.and_then(|body| body.entry("background").or(body.entry("teardown")));
            if let Some(refused) = refused {
                let message = format!(
                    "`{}` isn't allowed here: a `run` step of a teardown cannot have it",
                    refused.key.text
                );
                self.report(Diagnostic::error("config::steps", message).at(&refused.key.span, ""));
                continue;
            }
            self.expand_step(item, scope, &mut steps);
        }
        Node::sequence(steps, list.span().clone())
    }
}
