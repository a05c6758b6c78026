//! Turns a configuration's text into workflows that can begin. Pure: the caller has fetched the orbs.

use crate::job::{stored::StoredJob, translate::stored_job};
use std::collections::BTreeSet;
use towpath_config::{
    Capabilities, CompileOptions, CompiledConfig, Document, Finding, JobKind, PipelineValues, Texts, Workflow,
    cannot_run, check, deploys_to,
};
use towpath_forge::Commit;
use towpath_types::PipelineId;
use towpath_workflow::{Definition, JobDefinition, RequiredStatus, Requirement};
use towpath_yaml::{Diagnostic, StoredDiagnostic};

/// The code of diagnostics about a pipeline as a whole.
const ABOUT_PIPELINE: &str = "towpath::pipeline";

/// The path of a repository's configuration.
pub(crate) const CONFIG_FILE: &str = ".circleci/config.yml";

/// What started the pipeline.
pub(crate) struct Cause<'a> {
    pub pipeline: PipelineId,
    pub number: i64,
    pub project: &'a str,
    pub branch: Option<&'a str>,
    pub tag: Option<&'a str>,
    pub default_branch: &'a str,
    pub commit: &'a Commit,
    pub repository_url: &'a str,
    /// Whether somebody requested it by the API rather than by a push.
    pub by_api: bool,
}

/// A compiled configuration.
#[derive(Default)]
pub(crate) struct Compiled {
    /// As `config process` prints it; empty when it does not compile.
    pub text: String,
    pub workflows: Vec<CompiledWorkflow>,
    /// What is wrong with the configuration, and what its author should know.
    pub diagnostics: Vec<StoredDiagnostic>,
}

/// One workflow, ready to begin.
pub(crate) struct CompiledWorkflow {
    pub name: String,
    pub definition: Definition,
    pub jobs: Vec<CompiledWorkflowJob>,
}

/// One job of a workflow.
pub(crate) struct CompiledWorkflowJob {
    pub name: String,
    pub kind: towpath_types::JobKind,
    /// The environment that it opens as a gate, or that it deploys to.
    pub environment: Option<String>,
    /// What the job does; `None` for approvals, and for jobs that do nothing or cannot run.
    pub stored: Option<StoredJob>,
}

/// Compiles a document with the orbs in `options`.
pub(crate) fn compile(document: &Document, options: &CompileOptions) -> Compiled {
    let checked = check(document, options, &Capabilities::default());
    let mut compiled = Compiled::default();
    for diagnostic in checked.all_diagnostics() {
        compiled.report(diagnostic.stored());
    }
    let Some(config) = checked.config.filter(|_| !compiled.has_errors()) else {
        return compiled;
    };
    let findings = &checked.findings;
    for workflow in config.workflows.iter().filter(|workflow| !workflow.jobs.is_empty()) {
        // A push does not start a workflow that has only schedules. The warning says so.
        if findings.iter().any(|finding| finding.stops_workflow(&workflow.name)) {
            continue;
        }
        match translate(workflow, &config, findings) {
            Ok(workflow) => compiled.workflows.push(workflow),
            Err(error) => {
                let diagnostic = Diagnostic::error(ABOUT_PIPELINE, format!("workflow `{}`: {error}", workflow.name));
                let texts = Texts::of(document, &options.orbs);
                let diagnostic = match texts.span(&workflow.place) {
                    Some(span) => diagnostic.at(&span, ""),
                    None => diagnostic,
                };
                compiled.report(diagnostic.stored());
            }
        }
    }
    compiled.text = checked.text;
    compiled
}

impl Compiled {
    /// A result with only the reason for a failure.
    pub(crate) fn failed(reason: impl Into<String>) -> Self {
        Self {
            diagnostics: vec![Diagnostic::error(ABOUT_PIPELINE, reason).stored()],
            ..Self::default()
        }
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(StoredDiagnostic::is_error)
    }

    fn report(&mut self, diagnostic: StoredDiagnostic) {
        if !self.diagnostics.contains(&diagnostic) {
            self.diagnostics.push(diagnostic);
        }
    }
}

/// The values for `<< pipeline.… >>`.
pub(crate) fn values(cause: &Cause<'_>) -> PipelineValues {
    let mut values = PipelineValues::new()
        .with("id", cause.pipeline.to_string())
        .with("number", cause.number)
        .with("project.git_url", cause.repository_url)
        .with("project.type", "towpath")
        .with("project.slug", format!("towpath/local/{}", cause.project))
        .with("trigger_source", if cause.by_api { "api" } else { "webhook" })
        .with("trigger.type", if cause.by_api { "api" } else { "webhook" })
        .with("event.name", if cause.by_api { "api" } else { "push" })
        .with("event.action", if cause.by_api { "api" } else { "push" })
        .with("git.revision", cause.commit.id.to_string())
        .with("git.repo_url", cause.repository_url)
        .with("git.repo_owner", "local")
        .with("git.repo_name", cause.project)
        .with("git.commit.subject", cause.commit.subject.clone())
        .with("git.commit.body", cause.commit.body.clone())
        .with("git.branch.is_default", cause.branch == Some(cause.default_branch))
        .with("config.file_path", CONFIG_FILE)
        .with("config.sha", cause.commit.id.to_string());
    if let Some(branch) = cause.branch {
        values.set("git.branch", branch);
    }
    if let Some(tag) = cause.tag {
        values.set("git.tag", tag);
    }
    values
}

fn translate(workflow: &Workflow, config: &CompiledConfig, findings: &[Finding]) -> Result<CompiledWorkflow, String> {
    let (mut definitions, mut jobs) = (Vec::new(), Vec::new());
    for job in &workflow.jobs {
        let mut reason = cannot_run(findings, &workflow.name, job);
        let (kind, known) = match &job.kind {
            JobKind::Build { job: key } => {
                let known = config
                    .jobs
                    .get(key)
                    .ok_or_else(|| format!("job `{key}` is not defined"))?;
                let nodes = known.parallelism;
                (towpath_workflow::JobKind::Build { nodes }, Some(known))
            }
            JobKind::Approval => (towpath_workflow::JobKind::Approval, None),
            JobKind::NoOp => (towpath_workflow::JobKind::NoOp, None),
            JobKind::Release { .. } | JobKind::Lock { .. } | JobKind::Unlock { .. } => {
                reason.get_or_insert_with(|| format!("Towpath cannot run jobs of the type of `{}`", job.name));
                (towpath_workflow::JobKind::Build { nodes: 1 }, None)
            }
        };
        let deploys_to = known.and_then(deploys_to);
        let environment = gate_of(workflow, config, &job.name).or_else(|| deploys_to.clone());
        jobs.push(CompiledWorkflowJob {
            name: job.name.clone(),
            kind: match kind {
                towpath_workflow::JobKind::Build { .. } => towpath_types::JobKind::Build,
                towpath_workflow::JobKind::Approval => towpath_types::JobKind::Approval,
                towpath_workflow::JobKind::NoOp => towpath_types::JobKind::NoOp,
            },
            environment,
            stored: known
                .filter(|_| reason.is_none())
                .map(|known| stored_job(known, &job.contexts, deploys_to)),
        });
        let requires = job.requires.iter().map(|requirement| Requirement {
            job: requirement.job.clone(),
            statuses: requirement.statuses.iter().map(|status| required(*status)).collect(),
        });
        definitions.push(JobDefinition {
            name: job.name.clone(),
            kind,
            requires: requires.collect(),
            // A gate still waits for a person when nothing behind it can run.
            cannot_run: reason.filter(|_| matches!(kind, towpath_workflow::JobKind::Build { .. })),
            retries: 0,
            time_limit: None,
        });
    }
    Ok(CompiledWorkflow {
        name: workflow.name.clone(),
        definition: Definition::new(definitions).map_err(|error| error.to_string())?,
        jobs,
    })
}

fn required(status: towpath_config::RequiredStatus) -> RequiredStatus {
    match status {
        towpath_config::RequiredStatus::Success => RequiredStatus::Success,
        towpath_config::RequiredStatus::Failed => RequiredStatus::Failed,
        towpath_config::RequiredStatus::Canceled => RequiredStatus::Canceled,
        towpath_config::RequiredStatus::Unauthorized => RequiredStatus::Unauthorized,
        towpath_config::RequiredStatus::NotRun => RequiredStatus::NotRun,
    }
}

/// The environment that an approval guards: the one to which the first job behind it deploys. Jobs behind a further
/// gate belong to that gate.
fn gate_of(workflow: &Workflow, config: &CompiledConfig, gate: &str) -> Option<String> {
    let is_gate = |name: &str| {
        let mut jobs = workflow.jobs.iter();
        jobs.any(|job| job.name == name && job.kind == JobKind::Approval)
    };
    if !is_gate(gate) {
        return None;
    }
    let mut seen = BTreeSet::new();
    let mut next = vec![gate];
    while let Some(name) = next.pop() {
        let behind = workflow
            .jobs
            .iter()
            .filter(|job| job.requires.iter().any(|requirement| requirement.job == name));
        for job in behind {
            if !seen.insert(job.name.as_str()) || is_gate(&job.name) {
                continue;
            }
            if let JobKind::Build { job: key } = &job.kind
                && let Some(environment) = config.jobs.get(key).and_then(deploys_to)
            {
                return Some(environment);
            }
            next.push(&job.name);
        }
    }
    None
}
