//! Expands jobs: puts the job's own settings, its executor, its steps and the arguments of an invocation together.

use std::rc::Rc;

use towpath_yaml::{Diagnostic, Entry, Mapping, Node, Span};

use crate::compiler::Compiler;
use crate::element::{CONFIG, Element};
use crate::executors::EXECUTORS_PAGE;
use crate::expansion::{Expanded, Plain};
use crate::keys::{self, EXECUTOR_SETTINGS, EXECUTOR_TYPES};
use crate::scope::Scope;
use crate::unknown_keys::UnknownKeys;

impl Compiler<'_> {
    /// Expands a job with the arguments of an invocation. `around` has the `pre-steps` and the `post-steps`.
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
            // With wrong arguments, errors in the body would mostly be consequences.
            if element.namespace == CONFIG {
                self.uncalled.insert(element.name.clone());
            }
            return None;
        }
        // In an explanation each call needs its own result.
        let is_cacheable = around.0.is_none() && around.1.is_none() && self.trace.is_none();
        let of_matrix = caller.matrix.into_iter().flatten();
        let of_matrix = of_matrix.flat_map(|(name, value)| [Some(Plain::Text(name.clone())), Plain::of(value)]);
        let plain = arguments.values().map(Plain::of).chain(of_matrix);
        let plain: Option<Vec<Plain>> = if is_cacheable { plain.collect() } else { None };
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
        // The settings of a job can refer to its matrix, but its steps cannot. CircleCI's own tests have both cases.
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
        let own_place = EXECUTOR_TYPES.iter().any(|key| own.contains(key));
        for part in executor
            .iter()
            .filter(|part| EXECUTOR_SETTINGS.contains(&&*part.key.text))
        {
            // If the job says where it runs, only use the executor's other settings.
            if !(own_place && EXECUTOR_TYPES.contains(&&*part.key.text)) {
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
                // Keep their position; the values follow below.
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
        if !EXECUTOR_TYPES.iter().any(|key| result.contains(key)) {
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
        result.insert(Entry::computed("steps", Node::sequence(steps, at.clone()), &at));
        let environments = [
            (executor.get("environment"), executor_frame.unwrap_or(scope.frame)),
            (own.get("environment"), scope.frame),
        ];
        match self.environment(&environments, &span) {
            Some(environment) => drop(result.insert(Entry::computed("environment", environment, &span))),
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

    /// Reports the keys that jobs of this type do not have.
    ///
    /// Source: <https://circleci.com/docs/reference/configuration-reference/#job-type>
    fn check_job_keys(&mut self, job: &Node, kind: Option<&str>) {
        // CircleCI checks the keys of a lock only if a workflow uses it.
        let of_lock = match self.has_placeholders {
            true => UnknownKeys::Ignored,
            false => UnknownKeys::Refused,
        };
        let (known, what, others) = match kind {
            Some("release") => (keys::RELEASE_JOB, "a job of type release", UnknownKeys::Ignored),
            Some("lock") => (keys::LOCK_JOB, "a job of type lock", of_lock),
            Some("unlock") => (keys::LOCK_JOB, "a job of type unlock", of_lock),
            // The steps and the executor of such a job have no effect, but CircleCI accepts them.
            Some("approval" | "no-op") => (keys::JOB, "a job", UnknownKeys::Ignored),
            _ => (keys::JOB, "a job", UnknownKeys::Refused),
        };
        self.check_keys(job, known, what, others);
    }
}
