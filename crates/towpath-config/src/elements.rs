//! Checks elements that nothing calls: those of an orb, and unused ones of a configuration. They are expanded as if they were
//! called, with placeholders for required arguments.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use towpath_yaml::{Diagnostic, Entry, Label, Mapping, Node, ScalarStyle};

use crate::compiler::Compiler;
use crate::element::{CONFIG, Element, Found, Kind, ParameterType};
use crate::executors::PLACEHOLDER;
use crate::scope::Scope;

/// The codes of errors that do not depend on arguments. Other errors may be consequences of the placeholders.
pub(crate) const ALWAYS: &[&str] = &[
    "config::arguments",
    "config::definition",
    "config::deprecated",
    "config::executor",
    "config::missing-argument",
    "config::no-executor",
    "config::no-steps",
    "config::orb-unavailable",
    "config::orbs",
    "config::parameter-default",
    "config::parameter-type",
    "config::parameters",
    "config::recursion",
    "config::reserved-parameter",
    "config::template",
    "config::too-deep",
    "config::too-large",
    "config::too-many-orbs",
    "config::undeclared-parameter",
    "config::unexpected-argument",
    "config::unknown-command",
    "config::unknown-executor",
    "config::unknown-key",
    "config::unknown-orb",
    "config::unknown-pipeline-value",
    "config::unknown-variable",
    "config::version",
];

/// The codes of errors in the form of a definition. CircleCI reports these for unused definitions, too, but does not look up
/// the names in them.
const FORM: &[&str] = &[
    "config::arguments",
    "config::definition",
    "config::deprecated",
    "config::no-executor",
    "config::no-steps",
    "config::parameter-type",
    "config::parameters",
    "config::steps",
    "config::unknown-key",
];

/// All executors, commands and jobs that a document defines.
fn definitions(root: &Node) -> impl Iterator<Item = (Kind, &Entry)> {
    [Kind::Executor, Kind::Command, Kind::Job].into_iter().flat_map(|kind| {
        let section = root.get(kind.section()).and_then(Node::as_mapping);
        section.into_iter().flatten().map(move |part| (kind, part))
    })
}

impl Compiler<'_> {
    /// Checks the form of the configuration's elements that have not been read.
    pub(crate) fn check_form_of_unused(&mut self, root: &Node) {
        let mut unused = HashSet::new();
        for (kind, part) in definitions(root) {
            // An empty definition is an error only if it is called.
            if part.value.as_mapping().is_some() && !self.was_read(kind, &part.key.text) {
                unused.insert((kind, part.key.text.clone()));
            }
        }
        if !unused.is_empty() {
            self.check_elements(root, FORM, |kind, name| unused.contains(&(kind, name.into())));
        }
    }

    /// Checks the elements of the document that are `wanted`, and keeps the errors whose codes are in `codes`.
    pub(crate) fn check_elements(&mut self, root: &Node, codes: &[&str], wanted: impl Fn(Kind, &str) -> bool) {
        let before = self.take_diagnostics();
        self.has_placeholders = true;
        for (kind, part) in definitions(root) {
            if wanted(kind, &part.key.text)
                && let Found::Element(element) = self.find(kind, CONFIG, &part.key.text)
            {
                self.check_element(kind, &element);
            }
        }
        self.has_placeholders = false;
        let found = self.take_diagnostics();
        let key = |diagnostic: &Diagnostic| {
            let place = diagnostic.primary.as_ref().map(|label| label.span.clone());
            (diagnostic.code, diagnostic.message.clone(), place)
        };
        let mut seen: Vec<_> = before.iter().map(key).collect();
        let kept = found.into_iter().filter(|diagnostic| {
            // The author cannot fix an error in an imported orb.
            let is_own = |label: &Label| Arc::ptr_eq(label.span.source(), root.span().source());
            let key = key(diagnostic);
            let is_new = !seen.contains(&key);
            seen.push(key);
            is_new && codes.contains(&diagnostic.code) && diagnostic.primary.as_ref().is_none_or(is_own)
        });
        let kept: Vec<Diagnostic> = kept.collect();
        self.put_diagnostics(before.into_iter().chain(kept).collect());
    }

    fn check_element(&mut self, kind: Kind, element: &Rc<Element>) {
        let given: Vec<Entry> = element
            .parameters
            .iter()
            .filter(|(_, declaration)| declaration.default.is_none())
            .map(|(name, declaration)| {
                let at = &declaration.span;
                let text = |text: &str| Node::scalar(text, ScalarStyle::Quoted, at.clone());
                let plain = |text: &str| Node::scalar(text, ScalarStyle::Plain, at.clone());
                let value = match &declaration.kind {
                    ParameterType::String | ParameterType::Unknown => text("text"),
                    ParameterType::Boolean => plain("true"),
                    ParameterType::Integer => plain("1"),
                    ParameterType::Enum(values) => text(values.first().map_or("", |value| value)),
                    ParameterType::EnvVarName => text("VARIABLE"),
                    ParameterType::Steps => Node::sequence(Vec::new(), at.clone()),
                    ParameterType::Executor => text(PLACEHOLDER),
                };
                Entry::computed(name.clone(), value, at)
            })
            .collect();
        let span = element.node.span().clone();
        let scope = Scope::top(CONFIG);
        match kind {
            Kind::Command => {
                let body = Node::mapping(Mapping::from_entries(given), span.clone());
                self.call_command(&element.name, element, Some(&body), &span, &scope, &mut Vec::new());
            }
            Kind::Job => {
                let expanded = self.expand_job(element, &given, &scope, &span, (None, None));
                if let (Some(jobs), Some(expanded)) = (&mut self.unused_jobs, expanded)
                    && !expanded.broken
                {
                    jobs.push(expanded);
                }
            }
            Kind::Executor => self.check_executor(element, &given, &scope),
            Kind::JobGroup => {}
        }
    }
}
