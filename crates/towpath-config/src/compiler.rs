//! One compilation: what is known so far, and what was noticed.

use std::rc::Rc;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
use towpath_yaml::{Diagnostic, Mapping, Node, ParseOptions, SourceFile, Value as YamlValue};

use crate::compiled::{CompiledConfig, JobKind, Requirement, ResolvedOrb, Step, Workflow, WorkflowJob};
use crate::elements::ALWAYS;
use crate::jobs::{ExpandedCache, Others};
use crate::lower::lower_job;
use crate::namespace::{CONFIG, Element, Kind, MALFORMED_ALIAS, Namespace, NamespaceId, is_reference};
use crate::options::CompileOptions;
use crate::scope::{Arguments, Scope, TemplateCache};
use crate::trace::Trace;
use crate::value::Value;
use crate::workflows::{Graph, Role, definitions};

/// What one compilation holds.
pub(crate) struct Compiler<'o> {
    pub(crate) options: &'o CompileOptions<'o>,
    /// Whether the version has templates: 2.1 does, 2 does not.
    pub(crate) has_templates: bool,
    pub(crate) namespaces: Vec<Namespace>,
    /// Orbs by their references; `None` for those that could not be had.
    pub(crate) imported: HashMap<Arc<str>, Option<NamespaceId>>,
    pub(crate) orbs: Vec<ResolvedOrb>,
    pub(crate) pipeline_parameters: Arguments,
    pub(crate) expanded: ExpandedCache,
    pub(crate) templates: TemplateCache,
    /// What nodes come to in whatever call, where no template in them refers to more than the pipeline: the node and its
    /// result, by the node's identity and whose names are meant. The node is kept so that its address stays taken.
    pub(crate) in_every_call: HashMap<(usize, NamespaceId), (Node, Node)>,
    /// How many templates referred to what only their call knows, or had a mistake to report of each call.
    pub(crate) of_calls: usize,
    pub(crate) patterns: HashMap<String, regex::Regex>,
    /// Steps that several jobs share, in their typed form, by the node's identity. The node is kept so that its address
    /// stays taken.
    pub(crate) lowered: HashMap<usize, (Node, Option<Step>)>,
    /// Nodes whose keys were looked at, by identity.
    pub(crate) checked: HashSet<usize>,
    /// The commands that are being expanded, outermost first.
    pub(crate) calls: Vec<Rc<Element>>,
    /// What is being worked on, outermost first: the lines in front of a message.
    pub(crate) context: Vec<String>,
    pub(crate) depth: usize,
    pub(crate) step_count: usize,
    /// How many steps were looked at, whatever came of them.
    pub(crate) visits: usize,
    /// How large what is compiled is so far, every alias and every call written out.
    pub(crate) output_nodes: u64,
    pub(crate) output_bytes: u64,
    pub(crate) rendered_bytes: usize,
    /// Whether a limit was passed and nothing more is made.
    pub(crate) exhausted: bool,
    pub(crate) error_count: usize,
    /// How many of the errors are of keys that are not allowed where they are.
    odd_keys: usize,
    /// Where everything comes from, while an explanation is made.
    pub(crate) trace: Option<Trace>,
    /// Whether elements are read by themselves, with stand-ins for what a caller gives.
    pub(crate) stand_ins: bool,
    /// Jobs that were called with the wrong arguments, and so not read.
    pub(crate) uncalled: HashSet<Arc<str>>,
    diagnostics: Vec<Diagnostic>,
}

/// Beyond this many, more mistakes tell nobody anything.
const MAX_DIAGNOSTICS: usize = 1000;

/// The keys of a configuration. Others are dropped by the original, and often hold anchors.
pub(crate) const TOP_KEYS: &[&str] = &[
    "version",
    "setup",
    "parameters",
    "orbs",
    "commands",
    "executors",
    "jobs",
    "job-groups",
    "functions",
    "workflows",
    "description",
    "display",
    "experimental",
    "notify",
    "build_agent",
];

/// Compiles a configuration: what it comes to for the pipeline that `options` describes, and what was noticed.
///
/// It never stops at the first mistake. The configuration is `None` when there is an error among the diagnostics.
pub fn compile(source: &Arc<SourceFile>, options: &CompileOptions<'_>) -> (Option<CompiledConfig>, Vec<Diagnostic>) {
    let (config, diagnostics) = run(source, options, false);
    (config.map(|(config, _)| config), diagnostics)
}

/// As [`compile`], with the text that CircleCI's `config process` prints.
pub fn process(
    source: &Arc<SourceFile>,
    options: &CompileOptions<'_>,
) -> (Option<(CompiledConfig, String)>, Vec<Diagnostic>) {
    run(source, options, true)
}

fn run(
    source: &Arc<SourceFile>,
    options: &CompileOptions<'_>,
    print: bool,
) -> (Option<(CompiledConfig, String)>, Vec<Diagnostic>) {
    let (config, compiler) = with_root(source, options, |compiler, root| compiler.config(root, print));
    (config.filter(|_| compiler.error_count == 0), compiler.diagnostics)
}

/// Does `work` on a configuration of which everything is noted down; also on one with mistakes in it.
pub(crate) fn traced<T>(
    source: &Arc<SourceFile>,
    options: &CompileOptions<'_>,
    work: impl FnOnce(&mut Compiler<'_>, &Node) -> Option<T>,
) -> (Option<T>, Vec<Diagnostic>) {
    let (done, compiler) = with_root(source, options, |compiler, root| {
        compiler.trace = Some(Trace::new(&root));
        compiler.prepare(&root)?;
        work(compiler, &root)
    });
    (done, compiler.diagnostics)
}

/// Does `work` on a configuration whose orbs and parameters have been read.
pub(crate) fn with_config(
    source: &Arc<SourceFile>,
    options: &CompileOptions<'_>,
    work: impl FnOnce(&mut Compiler<'_>, &Node),
) -> Vec<Diagnostic> {
    let (_, compiler) = with_root(source, options, |compiler, root| {
        compiler.prepare(&root)?;
        work(compiler, &root);
        Some(())
    });
    compiler.diagnostics
}

/// Does `work` on an orb, as if it were the configuration.
pub(crate) fn with_orb(
    source: &Arc<SourceFile>,
    options: &CompileOptions<'_>,
    work: impl FnOnce(&mut Compiler<'_>, &Node),
) -> Vec<Diagnostic> {
    let (_, compiler) = with_root(source, options, |compiler, root| {
        compiler.version(&root)?;
        compiler.add_namespace(root.clone(), 0);
        work(compiler, &root);
        Some(())
    });
    compiler.diagnostics
}

fn with_root<'o, T>(
    source: &Arc<SourceFile>,
    options: &'o CompileOptions<'o>,
    work: impl FnOnce(&mut Compiler<'o>, Node) -> Option<T>,
) -> (Option<T>, Compiler<'o>) {
    let (documents, diagnostics) = towpath_yaml::parse(source, &ParseOptions::default());
    let mut compiler = Compiler::new(options, diagnostics);
    let mut documents = documents.into_iter();
    let first = documents.next();
    if let Some(second) = documents.next() {
        let message = "a configuration is one YAML document: what follows the first is ignored";
        compiler.report(Diagnostic::warning("config::documents", message).at(second.span(), ""));
    }
    // What an alias does not lead to is missing in many places, of which none is to be mended.
    let lost = |found: &Diagnostic| found.code == "yaml::unknown-anchor";
    let done = match first {
        _ if compiler.diagnostics.iter().any(lost) => None,
        Some(root) if root.as_mapping().is_some() => work(&mut compiler, root),
        Some(root) => {
            let message = format!("a configuration is a map, and this is {}", root.kind());
            compiler.report(Diagnostic::error("config::not-a-map", message).at(root.span(), ""));
            None
        }
        None => {
            if compiler.error_count == 0 {
                compiler.report(Diagnostic::error("config::empty", "the configuration is empty"));
            }
            None
        }
    };
    (done, compiler)
}

impl<'o> Compiler<'o> {
    fn new(options: &'o CompileOptions<'o>, diagnostics: Vec<Diagnostic>) -> Compiler<'o> {
        Compiler {
            options,
            has_templates: true,
            namespaces: Vec::new(),
            imported: HashMap::new(),
            orbs: Vec::new(),
            pipeline_parameters: Arguments::default(),
            expanded: ExpandedCache::new(),
            templates: TemplateCache::new(),
            in_every_call: HashMap::new(),
            of_calls: 0,
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
            odd_keys: 0,
            trace: None,
            stand_ins: false,
            uncalled: HashSet::new(),
            diagnostics,
        }
    }

    /// Notes something, under what is being worked on.
    pub(crate) fn report(&mut self, diagnostic: Diagnostic) {
        self.error_count += usize::from(diagnostic.is_error());
        self.odd_keys += usize::from(is_odd_key(&diagnostic));
        // What is written once and used by many is wrong once: the first that leads there is named.
        let known = |other: &Diagnostic| {
            (other.code, &other.message, &other.primary) == (diagnostic.code, &diagnostic.message, &diagnostic.primary)
                && other.secondary == diagnostic.secondary
        };
        if self.diagnostics.len() < MAX_DIAGNOSTICS && !self.diagnostics.iter().any(known) {
            self.diagnostics.push(diagnostic.in_context(self.context.clone()));
        }
    }

    /// What was noticed so far, from here on no more.
    pub(crate) fn take_diagnostics(&mut self) -> Vec<Diagnostic> {
        self.error_count = 0;
        self.odd_keys = 0;
        std::mem::take(&mut self.diagnostics)
    }

    /// Puts back what was taken, or what is left of it.
    pub(crate) fn put_diagnostics(&mut self, diagnostics: Vec<Diagnostic>) {
        self.error_count = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
        self.odd_keys = diagnostics.iter().filter(|diagnostic| is_odd_key(diagnostic)).count();
        self.diagnostics = diagnostics;
    }

    /// How many errors there are behind which something is missing. A key too many takes nothing away.
    pub(crate) fn breaking_errors(&self) -> usize {
        self.error_count.saturating_sub(self.odd_keys)
    }

    /// An integer of a setting; one that is none, or out of its bounds, is reported.
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

    /// The configuration, and its text when that is wanted.
    fn config(&mut self, root: Node, print: bool) -> Option<(CompiledConfig, String)> {
        let setup = self.prepare(&root)?;
        let mut graphs = self.workflows(&root);
        let definitions = definitions(&mut graphs);
        let mut config = CompiledConfig {
            setup,
            orbs: std::mem::take(&mut self.orbs),
            ..CompiledConfig::default()
        };
        for (name, expanded) in &definitions {
            if !expanded.broken
                && let Some(job) = lower_job(self, expanded)
            {
                config.jobs.insert(name.to_string(), job);
            }
        }
        config.workflows = graphs.iter().map(workflow).collect();
        let failed = std::mem::take(&mut self.uncalled);
        if !failed.is_empty() {
            self.check_elements(&root, ALWAYS, |kind, name| kind == Kind::Job && failed.contains(name));
        }
        self.check_form_of_unused(&root);
        let text = match print && self.error_count == 0 {
            true => crate::process::print(&config.orbs, &definitions, &graphs, root.get("workflows")),
            false => String::new(),
        };
        Some((config, text))
    }

    /// Reads what everything else needs: version, pipeline parameters, orbs. Answers whether it is a setup configuration.
    fn prepare(&mut self, root: &Node) -> Option<bool> {
        self.version(root)?;
        // A key that only holds anchors for other places to use is there on purpose.
        let entries = root.as_mapping().into_iter().flatten();
        let meant = entries.filter(|part| TOP_KEYS.contains(&&*part.key.text) || !holds_an_anchor(&part.value));
        self.check_entries(meant, TOP_KEYS, "a configuration", Others::Ignored);
        let setup = root
            .get("setup")
            .and_then(Node::as_scalar)
            .is_some_and(|scalar| matches!(&*scalar.text, "true" | "yes" | "on" | "True" | "TRUE"));
        if setup && !self.has_templates {
            let span = root.get("setup").map_or(root.span(), Node::span).clone();
            let message = "Version 2.1 is required for Setup workflows";
            self.report(Diagnostic::error("config::setup", message).at(&span, ""));
        } else if setup && self.options.continuation {
            let span = root.get("setup").map_or(root.span(), Node::span).clone();
            let message = "a configuration that continues a setup pipeline cannot be a setup configuration itself";
            self.report(Diagnostic::error("config::setup", message).at(&span, ""));
        }
        self.check_idle_sections(root);
        self.bind_pipeline_parameters(root);
        self.add_namespace(root.clone(), 0);
        self.check_sections(root);
        self.check_functions(root);
        if let Some(agent) = root.get("build_agent") {
            // Nothing here uses it; what it refers to must exist all the same.
            self.substitute(agent, &Scope::top(CONFIG));
        }
        Some(setup)
    }

    /// Says which sections come to nothing: version 2 does not have them, or nothing is in them.
    fn check_idle_sections(&mut self, root: &Node) {
        for key in ["orbs", "parameters", "commands", "executors", "job-groups"] {
            let Some(part) = root.as_mapping().and_then(|root| root.entry(key)) else {
                continue;
            };
            let is_empty = part.value.is_null() || part.value.as_mapping().is_some_and(Mapping::is_empty);
            let diagnostic = if !self.has_templates {
                let message = format!("a configuration of version 2 has no `{key}`; they are ignored");
                Diagnostic::warning("config::unknown-key", message).hint("`version: 2.1` has them")
            } else if is_empty {
                let message = format!("there is nothing in `{key}`");
                Diagnostic::warning("config::empty-section", message)
            } else {
                continue;
            };
            self.report(diagnostic.at(&part.key.span, ""));
        }
    }

    /// Refuses sections and definitions that are no maps, used or not.
    pub(crate) fn check_sections(&mut self, root: &Node) {
        for kind in [Kind::Job, Kind::Command, Kind::Executor] {
            let Some(section) = root.get(kind.section()).filter(|section| !section.is_null()) else {
                continue;
            };
            let Some(definitions) = section.as_mapping() else {
                let message = format!("`{}` is a map of names, and this is {}", kind.section(), section.kind());
                self.report(Diagnostic::error("config::definition", message).at(section.span(), ""));
                continue;
            };
            for part in definitions {
                // A job's name is for people.
                if kind != Kind::Job && !is_element_name(&part.key.text) {
                    let message = format!(
                        "{:?} isn't a valid {} name: it must start with a lowercase letter, and have only lowercase \
                         letters, digits, \"_\" and \"-\".",
                        part.key.text,
                        kind.word()
                    );
                    self.report(Diagnostic::error("config::definition", message).at(&part.key.span, ""));
                }
                if kind == Kind::Command && crate::steps::builtin_named(&part.key.text).is_some() {
                    let message = format!(
                        "command `{}` takes the place of the language's own step of that name",
                        part.key.text
                    );
                    self.report(Diagnostic::warning("config::shadowed-step", message).at(&part.key.span, ""));
                }
                let target = part.value.as_scalar().filter(|_| !part.value.is_null());
                // An executor may also stand for another of the same file.
                if let Some(target) = target.filter(|_| kind != Kind::Executor)
                    && !is_reference(&target.text)
                {
                    // Nothing can call it, and the original refuses it all the same.
                    if kind == Kind::Command && &*part.key.text == "run" {
                        self.report(Diagnostic::error("config::alias", MALFORMED_ALIAS).at(part.value.span(), ""));
                        continue;
                    }
                    let message = format!(
                        "`{}` is not a valid orb element alias, so this entry is ignored unless it is invoked. An alias must be a \
                         single `orb-alias/element-name` reference.",
                        target.text
                    );
                    self.report(Diagnostic::warning("config::alias", message).at(part.value.span(), ""));
                }
                // A text is an alias.
                if part.value.as_sequence().is_some() {
                    let message = format!(
                        "{} `{}` must be a map, and this is {}",
                        kind.word(),
                        part.key.text,
                        part.value.kind()
                    );
                    self.report(Diagnostic::error("config::definition", message).at(part.value.span(), ""));
                }
            }
        }
    }

    /// Says which functions are called as what a step can be besides.
    ///
    /// Source: <https://circleci.com/docs/functions/functions-concepts/>
    fn check_functions(&mut self, root: &Node) {
        let is_in = |section: &str, name: &str| root.get(section).is_some_and(|section| section.get(name).is_some());
        for part in root.get("functions").and_then(Node::as_mapping).into_iter().flatten() {
            let name = &part.key.text;
            let other = match &**name {
                name if is_in("orbs", name) => "an orb",
                name if is_in("commands", name) => "a command",
                "when" | "unless" | "steps" => "a built-in step",
                name if crate::steps::builtin_named(name).is_some() => "a built-in step",
                _ => continue,
            };
            let message = format!("Function name '{name}' is also {other}. Rename one of them.");
            self.report(Diagnostic::error("config::definition", message).at(&part.key.span, ""));
        }
    }

    /// Reads the version: 2 is without templates, 2.1 with.
    fn version(&mut self, root: &Node) -> Option<()> {
        let Some(version) = root.get("version") else {
            self.report(
                Diagnostic::error("config::version", "the configuration has no `version`")
                    .at(root.span(), "")
                    .hint("begin it with `version: 2.1`"),
            );
            return None;
        };
        match version.as_scalar().map(|scalar| scalar.text.trim()) {
            Some("2.1") => Some(()),
            Some("2" | "2.0") => {
                self.has_templates = false;
                Some(())
            }
            _ => {
                self.report(
                    Diagnostic::error("config::version", "this version of the language is not known")
                        .at(version.span(), "")
                        .hint("there are 2.1 and 2"),
                );
                None
            }
        }
    }
}

fn is_odd_key(diagnostic: &Diagnostic) -> bool {
    diagnostic.is_error() && diagnostic.code == "config::unknown-key"
}

/// Whether a text can be the name of a command or an executor.
///
/// Source: <https://github.com/CircleCI-Public/circleci-yaml-language-server/blob/main/schema.json>
fn is_element_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    name.starts_with(|first: char| first.is_ascii_lowercase()) && name.bytes().all(is_part)
}

fn holds_an_anchor(node: &Node) -> bool {
    node.anchor().is_some()
        || match node.value() {
            YamlValue::Scalar(_) => false,
            YamlValue::Sequence(items) => items.iter().any(holds_an_anchor),
            YamlValue::Mapping(mapping) => mapping.iter().any(|part| holds_an_anchor(&part.value)),
        }
}

/// What of a graph runs for this pipeline.
fn workflow(graph: &Graph) -> Workflow {
    let (kept, filtered): (Vec<_>, Vec<_>) = graph.invocations.iter().partition(|invocation| invocation.kept);
    let jobs = kept
        .into_iter()
        .map(|invocation| WorkflowJob {
            name: invocation.name.to_string(),
            kind: match &invocation.role {
                Role::Build(_) => JobKind::Build {
                    job: invocation.name.to_string(),
                },
                Role::Approval => JobKind::Approval,
                Role::NoOp => JobKind::NoOp,
                Role::Release { plan_name } => JobKind::Release {
                    plan_name: plan_name.clone(),
                },
                Role::Lock { key } => JobKind::Lock { key: key.clone() },
                Role::Unlock { key } => JobKind::Unlock { key: key.clone() },
            },
            requires: invocation
                .resolved
                .iter()
                .filter(|(at, _)| graph.invocations[*at].kept)
                .map(|(at, statuses)| Requirement {
                    job: graph.invocations[*at].name.to_string(),
                    statuses: statuses.clone(),
                })
                .collect(),
            contexts: invocation.contexts.clone(),
            serial_group: invocation.serial_group.clone(),
            place: invocation.span.place(),
        })
        .collect();
    Workflow {
        name: graph.name.to_string(),
        jobs,
        filtered: filtered
            .into_iter()
            .map(|invocation| invocation.name.to_string())
            .collect(),
        schedules: graph.schedules.clone(),
        max_auto_reruns: graph.max_auto_reruns,
        place: graph.span.place(),
    }
}
