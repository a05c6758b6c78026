//! The state of one compilation, and what it has reported.

use std::rc::Rc;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
use towpath_yaml::{Diagnostic, Node, Span};

use crate::compiled::{ResolvedOrb, Step};
use crate::element::{Element, Namespace, NamespaceId};
use crate::expansion::{Expanded, ExpandedCache};
use crate::options::CompileOptions;
use crate::orbs::MissingOrb;
use crate::scope::{Arguments, Scope};
use crate::template::TemplateCache;
use crate::trace::Trace;
use crate::value::Value;

/// The state of one compilation.
pub(crate) struct Compiler<'o> {
    pub(crate) options: &'o CompileOptions,
    /// Whether the version has templates, parameters and orbs: 2.1 does, 2 does not.
    pub(crate) has_templates: bool,
    pub(crate) namespaces: Vec<Namespace>,
    /// Orbs by reference; `None` for orbs that could not be imported.
    pub(crate) imported: HashMap<Arc<str>, Option<NamespaceId>>,
    /// The orbs that the configuration itself imports.
    pub(crate) orbs: Vec<ResolvedOrb>,
    /// The imported orbs that the caller has not supplied.
    pub(crate) missing_orbs: Vec<MissingOrb>,
    pub(crate) pipeline_parameters: Arguments,
    pub(crate) expanded: ExpandedCache,
    pub(crate) templates: TemplateCache,
    /// Results of substitution that do not depend on the call, because no template refers to a parameter: the node and its
    /// result, by the node's identity and namespace. The node is kept so that its address is not reused.
    pub(crate) call_independent: HashMap<(usize, NamespaceId), (Node, Node)>,
    /// The number of rendered templates that depend on their call, or had an error to report for each call.
    pub(crate) call_dependent: usize,
    pub(crate) patterns: HashMap<String, regex::Regex>,
    /// Typed steps that several jobs share, by the node's identity. The node is kept so that its address is not reused.
    pub(crate) lowered: HashMap<usize, (Node, Option<Step>)>,
    /// The identities of nodes whose keys have been checked.
    pub(crate) checked: HashSet<usize>,
    /// The commands that are being expanded, outermost first.
    pub(crate) calls: Vec<Rc<Element>>,
    /// What is being worked on, outermost first. Diagnostics print it.
    pub(crate) context: Vec<String>,
    pub(crate) depth: usize,
    /// The number of steps in the result.
    pub(crate) step_count: usize,
    /// The number of steps that were looked at, including calls and conditions that expand to nothing.
    pub(crate) visits: usize,
    /// The size of the result, with every alias and every call expanded.
    pub(crate) output_nodes: u64,
    pub(crate) output_bytes: u64,
    pub(crate) rendered_bytes: usize,
    /// Whether a limit was exceeded. Nothing more is expanded then.
    pub(crate) exhausted: bool,
    pub(crate) error_count: usize,
    /// The number of errors about keys that are not allowed.
    unknown_key_errors: usize,
    /// The record of calls, while an explanation is made.
    pub(crate) trace: Option<Trace>,
    /// Whether elements are checked without a caller, with placeholders for required arguments.
    pub(crate) has_placeholders: bool,
    /// Jobs whose arguments were wrong, and which were therefore not expanded.
    pub(crate) uncalled: HashSet<Arc<str>>,
    /// Jobs that no workflow runs, expanded with placeholders. Only collected if somebody wants them.
    pub(crate) unused_jobs: Option<Vec<Rc<Expanded>>>,
    diagnostics: Vec<Diagnostic>,
}

/// The number of diagnostics that are kept.
const MAX_DIAGNOSTICS: usize = 1000;

const MAX_STEPS: usize = 50_000;
const MAX_OUTPUT_NODES: u64 = 500_000;
const MAX_OUTPUT_BYTES: u64 = 32 << 20;

impl<'o> Compiler<'o> {
    /// Starts a compilation. `diagnostics` are those of the YAML parser.
    pub(crate) fn new(options: &'o CompileOptions, diagnostics: &[Diagnostic]) -> Compiler<'o> {
        Compiler {
            options,
            has_templates: true,
            namespaces: Vec::new(),
            imported: HashMap::new(),
            orbs: Vec::new(),
            missing_orbs: Vec::new(),
            pipeline_parameters: Arguments::default(),
            expanded: ExpandedCache::new(),
            templates: TemplateCache::new(),
            call_independent: HashMap::new(),
            call_dependent: 0,
            patterns: HashMap::new(),
            lowered: HashMap::new(),
            checked: HashSet::new(),
            calls: Vec::new(),
            context: Vec::new(),
            depth: 0,
            step_count: 0,
            visits: 0,
            output_nodes: 0,
            output_bytes: 0,
            rendered_bytes: 0,
            exhausted: false,
            error_count: diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count(),
            unknown_key_errors: 0,
            trace: None,
            has_placeholders: false,
            uncalled: HashSet::new(),
            unused_jobs: None,
            diagnostics: diagnostics.to_vec(),
        }
    }

    /// Reports a diagnostic, with what is being worked on as its context.
    pub(crate) fn report(&mut self, diagnostic: Diagnostic) {
        self.error_count += usize::from(diagnostic.is_error());
        self.unknown_key_errors += usize::from(is_unknown_key_error(&diagnostic));
        // Report what several calls have in common once, with the context of the first call.
        let is_known = |other: &Diagnostic| {
            (other.code, &other.message, &other.primary) == (diagnostic.code, &diagnostic.message, &diagnostic.primary)
                && other.secondary == diagnostic.secondary
        };
        if self.diagnostics.len() < MAX_DIAGNOSTICS && !self.diagnostics.iter().any(is_known) {
            self.diagnostics.push(diagnostic.in_context(self.context.clone()));
        }
    }

    /// Removes and returns what was reported so far.
    pub(crate) fn take_diagnostics(&mut self) -> Vec<Diagnostic> {
        self.error_count = 0;
        self.unknown_key_errors = 0;
        std::mem::take(&mut self.diagnostics)
    }

    /// Replaces what was reported so far.
    pub(crate) fn put_diagnostics(&mut self, diagnostics: Vec<Diagnostic>) {
        self.error_count = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
        self.unknown_key_errors = diagnostics
            .iter()
            .filter(|diagnostic| is_unknown_key_error(diagnostic))
            .count();
        self.diagnostics = diagnostics;
    }

    /// What was reported.
    pub(crate) fn into_diagnostics(self) -> Vec<Diagnostic> {
        self.diagnostics
    }

    /// Whether the YAML has an alias without an anchor. What it should refer to is missing, so nothing else is reported.
    pub(crate) fn has_unknown_anchor(&self) -> bool {
        self.diagnostics
            .iter()
            .any(|found| found.code == "yaml::unknown-anchor")
    }

    /// The number of errors that leave something out of the result. An unknown key does not.
    pub(crate) fn breaking_errors(&self) -> usize {
        self.error_count.saturating_sub(self.unknown_key_errors)
    }

    /// Reads an integer, and reports a value that is no integer or out of bounds.
    pub(crate) fn integer_between(
        &mut self,
        node: &Node,
        scope: &Scope<'_>,
        what: &str,
        least: i64,
        most: i64,
    ) -> Option<u32> {
        match self.value(node, scope) {
            Value::Int(value) if (least..=most).contains(&value) => u32::try_from(value).ok(),
            _ => {
                let message = format!("{what} must be an integer between {least} and {most}");
                self.report(Diagnostic::error("config::type", message).at(node.span(), ""));
                None
            }
        }
    }

    /// Counts steps of the result. Returns `false` once there are too many.
    pub(crate) fn count_steps(&mut self, count: usize, at: &Span) -> bool {
        self.step_count += count;
        if self.step_count > MAX_STEPS {
            self.exhaust(format!("this configuration expands to more than {MAX_STEPS} steps"), at);
        }
        !self.exhausted
    }

    /// Counts a part of the result. Returns `false` once the result is too large.
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

    /// Stops the expansion because a limit was exceeded.
    pub(crate) fn exhaust(&mut self, message: String, at: &Span) {
        if !self.exhausted {
            self.exhausted = true;
            self.report(Diagnostic::error("config::too-large", message).at(at, "the expansion stops here"));
        }
    }
}

fn is_unknown_key_error(diagnostic: &Diagnostic) -> bool {
    diagnostic.is_error() && diagnostic.code == "config::unknown-key"
}
