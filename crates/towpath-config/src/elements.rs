//! Elements by themselves: what an orb defines, or a configuration defines and nobody uses, read as if it were called.

use std::collections::HashSet;
use std::sync::Arc;

use towpath_yaml::{Diagnostic, Entry, Label, Mapping, Node, ScalarStyle, SourceFile};

use crate::compiler::Compiler;
use crate::jobs::Others;
use crate::namespace::{CONFIG, Element, Found, Kind};
use crate::options::CompileOptions;
use crate::parameters::ParameterType;
use crate::scope::Scope;
use crate::steps::entry;

/// The keys of an orb.
pub(crate) const ORB_KEYS: &[&str] = &[
    "version",
    "description",
    "display",
    "orbs",
    "commands",
    "executors",
    "jobs",
    "examples",
];

/// Mistakes that stand in the text whatever a caller gives. Others may come of the stand-ins.
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

/// Mistakes in the form of a definition, which the original refuses before it looks at what is used. What a definition refers
/// to is another matter: as long as nobody calls it, nothing is looked up.
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

/// Checks the source of an orb: every command, executor and job of it, called or not.
///
/// What depends on a caller's arguments cannot be known; required parameters have stand-ins of their types.
pub fn check_orb(source: &Arc<SourceFile>, options: &CompileOptions<'_>) -> Vec<Diagnostic> {
    crate::compiler::with_orb(source, options, |compiler, root| {
        compiler.check_keys(root, ORB_KEYS, "an orb", Others::Ignored);
        compiler.check_sections(root);
        compiler.check_elements(root, ALWAYS, |_, _| true);
    })
}

/// Every executor, command and job that a text defines.
fn definitions(root: &Node) -> impl Iterator<Item = (Kind, &Entry)> {
    [Kind::Executor, Kind::Command, Kind::Job].into_iter().flat_map(|kind| {
        let section = root.get(kind.section()).and_then(Node::as_mapping);
        section.into_iter().flatten().map(move |part| (kind, part))
    })
}

impl Compiler<'_> {
    /// Reads the elements of the text itself that nothing has led to so far, for mistakes in their form.
    pub(crate) fn check_form_of_unused(&mut self, root: &Node) {
        let mut unused = HashSet::new();
        for (kind, part) in definitions(root) {
            // Of one that is empty nothing is wrong until it is called.
            if part.value.as_mapping().is_some() && !self.was_read(kind, &part.key.text) {
                unused.insert((kind, part.key.text.clone()));
            }
        }
        if !unused.is_empty() {
            self.check_elements(root, FORM, |kind, name| unused.contains(&(kind, name.into())));
        }
    }

    /// Reads the elements of the text itself that `wanted` picks as if each were called, and keeps the mistakes in `codes`.
    pub(crate) fn check_elements(&mut self, root: &Node, codes: &[&str], wanted: impl Fn(Kind, &str) -> bool) {
        let before = self.take_diagnostics();
        self.stand_ins = true;
        for (kind, part) in definitions(root) {
            if wanted(kind, &part.key.text)
                && let Found::Element(element) = self.find(kind, CONFIG, &part.key.text)
            {
                self.check_element(kind, &element);
            }
        }
        self.stand_ins = false;
        let found = self.take_diagnostics();
        let key = |diagnostic: &Diagnostic| {
            let place = diagnostic.primary.as_ref().map(|label| label.span.clone());
            (diagnostic.code, diagnostic.message.clone(), place)
        };
        let mut seen: Vec<_> = before.iter().map(key).collect();
        let kept = found.into_iter().filter(|diagnostic| {
            // What an orb is called for is not its caller's to mend.
            let is_own = |label: &Label| Arc::ptr_eq(label.span.source(), root.span().source());
            let key = key(diagnostic);
            let is_new = !seen.contains(&key);
            seen.push(key);
            is_new && codes.contains(&diagnostic.code) && diagnostic.primary.as_ref().is_none_or(is_own)
        });
        let kept: Vec<Diagnostic> = kept.collect();
        self.put_diagnostics(before.into_iter().chain(kept).collect());
    }

    fn check_element(&mut self, kind: Kind, element: &std::rc::Rc<Element>) {
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
                    ParameterType::Executor => text(STAND_IN),
                };
                entry(name.clone(), value, at)
            })
            .collect();
        let span = element.node.span().clone();
        let scope = Scope::top(CONFIG);
        match kind {
            Kind::Command => {
                let body = Node::mapping(Mapping::from_entries(given), span.clone());
                self.call_command(&element.name, element, Some(&body), &span, &scope, &mut Vec::new());
            }
            Kind::Job => drop(self.expand_job(element, &given, &scope, &span, (None, None))),
            Kind::Executor => self.check_executor(element, &given, &scope),
            Kind::JobGroup => {}
        }
    }
}

/// The executor that stands in for one that a caller gives.
pub(crate) const STAND_IN: &str = "<an executor>";
