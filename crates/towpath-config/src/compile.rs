//! Compiles a document: parses nothing, fetches nothing, and never stops at the first error.

use std::rc::Rc;

use towpath_yaml::{Diagnostic, Node};

use crate::compiled::{CompiledConfig, CompiledJob, JobKind, Requirement, Workflow, WorkflowJob};
use crate::compiler::Compiler;
use crate::document::Document;
use crate::element::Kind;
use crate::elements::ALWAYS;
use crate::expansion::Expanded;
use crate::keys;
use crate::lower::lower_job;
use crate::options::CompileOptions;
use crate::orbs::MissingOrb;
use crate::print;
use crate::trace::Trace;
use crate::unknown_keys::UnknownKeys;
use crate::workflows::model::{Graph, Role};
use crate::workflows::naming::definitions;

/// The orbs that a document imports, directly or through other orbs, and that `options.orbs` does not have.
///
/// Fetch them, add the answers to `options.orbs`, and ask again until there are none: an orb may import further orbs. Only
/// then compile. A document is compiled with the orbs that are there; a missing orb counts as unknown.
pub fn missing_orbs(document: &Document, options: &CompileOptions) -> Vec<MissingOrb> {
    let Some(root) = document.root().filter(|root| root.get("orbs").is_some()) else {
        return Vec::new();
    };
    let mut compiler = Compiler::new(options, &[]);
    if compiler.version(root).is_some() && compiler.has_templates {
        compiler.bind_pipeline_parameters(root);
        compiler.add_namespace(root.clone(), 0);
    }
    compiler.missing_orbs
}

/// Compiles a configuration for the pipeline that `options` describe. `None` if it has errors.
pub fn compile(document: &Document, options: &CompileOptions) -> (Option<CompiledConfig>, Vec<Diagnostic>) {
    let (compiled, diagnostics) = run(document, options, Extras::default());
    (compiled.map(|compiled| compiled.config), diagnostics)
}

/// Compiles a configuration as [`compile`] does, and prints it as CircleCI's `config process` does.
pub fn process(document: &Document, options: &CompileOptions) -> (Option<(CompiledConfig, String)>, Vec<Diagnostic>) {
    let extras = Extras {
        text: true,
        ..Extras::default()
    };
    let (compiled, diagnostics) = run(document, options, extras);
    (compiled.map(|compiled| (compiled.config, compiled.text)), diagnostics)
}

/// Checks the source of an orb: all its commands, executors and jobs, as if each were called.
///
/// Required parameters are set to placeholders of their types, so errors that depend on arguments are not found.
pub fn check_orb(document: &Document, options: &CompileOptions) -> Vec<Diagnostic> {
    let (_, compiler) = with_root(document, options, |compiler, root| {
        compiler.version(root)?;
        compiler.add_namespace(root.clone(), 0);
        compiler.check_keys(root, keys::ORB, "an orb", UnknownKeys::Ignored);
        compiler.check_sections(root);
        compiler.check_elements(root, ALWAYS, |_, _| true);
        Some(())
    });
    compiler.into_diagnostics()
}

/// What to produce besides the compiled configuration.
#[derive(Clone, Copy, Default)]
pub(crate) struct Extras {
    /// The text of `config process`.
    pub(crate) text: bool,
    /// The jobs that no workflow runs.
    pub(crate) unused_jobs: bool,
}

/// A compiled configuration, with the extras that were asked for.
pub(crate) struct Compiled {
    pub(crate) config: CompiledConfig,
    pub(crate) text: String,
    /// Jobs that no workflow runs, compiled with placeholders for required arguments.
    pub(crate) unused_jobs: Vec<CompiledJob>,
}

/// Compiles a configuration. `None` if it has errors.
pub(crate) fn run(
    document: &Document,
    options: &CompileOptions,
    extras: Extras,
) -> (Option<Compiled>, Vec<Diagnostic>) {
    let (compiled, compiler) = with_root(document, options, |compiler, root| compiler.config(root, extras));
    (
        compiled.filter(|_| compiler.error_count == 0),
        compiler.into_diagnostics(),
    )
}

/// Runs `work` on a configuration, even one with errors, and records where every value comes from.
pub(crate) fn traced<T>(
    document: &Document,
    options: &CompileOptions,
    work: impl FnOnce(&mut Compiler<'_>, &Node) -> Option<T>,
) -> (Option<T>, Vec<Diagnostic>) {
    let (done, compiler) = with_root(document, options, |compiler, root| {
        compiler.trace = Some(Trace::new(root));
        compiler.prepare(root)?;
        work(compiler, root)
    });
    (done, compiler.into_diagnostics())
}

/// Runs `work` on a configuration whose orbs and parameters have been read.
pub(crate) fn with_config<T>(
    document: &Document,
    options: &CompileOptions,
    work: impl FnOnce(&mut Compiler<'_>, &Node) -> T,
) -> (Option<T>, Vec<Diagnostic>) {
    let (done, compiler) = with_root(document, options, |compiler, root| {
        compiler.prepare(root)?;
        Some(work(compiler, root))
    });
    (done, compiler.into_diagnostics())
}

fn with_root<'o, T>(
    document: &Document,
    options: &'o CompileOptions,
    work: impl FnOnce(&mut Compiler<'o>, &Node) -> Option<T>,
) -> (Option<T>, Compiler<'o>) {
    let mut compiler = Compiler::new(options, document.diagnostics());
    if let Some(second) = document.second_root() {
        let message = "a configuration must be one YAML document; the other documents of this file are ignored";
        compiler.report(Diagnostic::warning("config::documents", message).at(second.span(), ""));
    }
    let done = match document.root() {
        _ if compiler.has_unknown_anchor() => None,
        Some(root) if root.as_mapping().is_some() => work(&mut compiler, root),
        Some(root) => {
            let message = format!("a configuration must be a map, not {}", root.kind());
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

impl Compiler<'_> {
    fn config(&mut self, root: &Node, extras: Extras) -> Option<Compiled> {
        let setup = self.prepare(root)?;
        let mut graphs = self.workflows(root);
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
        let uncalled = std::mem::take(&mut self.uncalled);
        if !uncalled.is_empty() {
            self.check_elements(root, ALWAYS, |kind, name| kind == Kind::Job && uncalled.contains(name));
        }
        self.unused_jobs = extras.unused_jobs.then(Vec::new);
        self.check_form_of_unused(root);
        let unused_jobs = self.unused_jobs.take().unwrap_or_default();
        let text = match extras.text && self.error_count == 0 {
            true => print::print(&config.orbs, &definitions, &graphs, root.get("workflows")),
            false => String::new(),
        };
        Some(Compiled {
            config,
            text,
            unused_jobs: self.lower_quietly(&unused_jobs),
        })
    }

    /// Lowers jobs that no workflow runs. CircleCI does not check their settings, so diagnostics are dropped.
    fn lower_quietly(&mut self, jobs: &[Rc<Expanded>]) -> Vec<CompiledJob> {
        if jobs.is_empty() {
            return Vec::new();
        }
        let before = self.take_diagnostics();
        let lowered = jobs.iter().filter_map(|expanded| lower_job(self, expanded)).collect();
        self.put_diagnostics(before);
        lowered
    }
}

/// The part of a workflow that runs for this pipeline.
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
                Role::Lock { key, of_group } => JobKind::Lock {
                    key: key.clone(),
                    of_group: *of_group,
                },
                Role::Unlock { key, of_group } => JobKind::Unlock {
                    key: key.clone(),
                    of_group: *of_group,
                },
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
