//! From a configuration's text to workflows that can run; what cannot be run yet is an error with its place.

use crate::environment::{Deployment, deployments};
use std::collections::BTreeSet;
use towpath_config::{
    CompileOptions, CompiledConfig, CompiledJob, Executor, JobKind, OrbResolver, PipelineValues, RegistryAuth, Step,
    StepAction, Workflow,
};
use towpath_forge::Commit;
use towpath_types::PipelineId;
use towpath_workflow::{Definition, JobDefinition, RequiredStatus, Requirement};
use towpath_yaml::{Place, SourceFile};

/// What started the pipeline.
pub(crate) struct Trigger<'a> {
    pub pipeline: PipelineId,
    pub number: i64,
    pub project: &'a str,
    pub branch: Option<&'a str>,
    pub tag: Option<&'a str>,
    pub default_branch: &'a str,
    pub commit: &'a Commit,
    pub repository_url: &'a str,
    pub parameters: &'a serde_json::Map<String, serde_json::Value>,
    /// Whether somebody asked for it, rather than pushed.
    pub by_api: bool,
    /// Where its orbs come from.
    pub orbs: &'a dyn OrbResolver,
}

/// What a configuration comes to.
#[derive(Default)]
pub(crate) struct Compiled {
    pub config: Option<CompiledConfig>,
    /// As `config process` prints it.
    pub text: String,
    pub workflows: Vec<CompiledWorkflow>,
    pub errors: Vec<String>,
    pub warnings: Vec<String>,
}

/// One workflow, ready to begin.
pub(crate) struct CompiledWorkflow {
    pub name: String,
    pub definition: Definition,
    pub jobs: Vec<CompiledWorkflowJob>,
}

/// One job of it.
pub(crate) struct CompiledWorkflowJob {
    pub name: String,
    /// The environment that it opens.
    pub gate_of: Option<String>,
}

/// Compiles `source` for `trigger`.
pub(crate) fn compile(source: &str, trigger: &Trigger<'_>) -> Compiled {
    let file = SourceFile::new(crate::push::CONFIG_FILE, source);
    let options = CompileOptions {
        values: values(trigger),
        parameters: trigger
            .parameters
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        continuation: false,
        orbs: trigger.orbs,
    };
    let (processed, diagnostics) = towpath_config::process(&file, &options);
    let mut compiled = Compiled::default();
    for diagnostic in &diagnostics {
        let list = if diagnostic.is_error() {
            &mut compiled.errors
        } else {
            &mut compiled.warnings
        };
        list.push(diagnostic.render(false));
    }
    let Some((config, text)) = processed.filter(|_| compiled.errors.is_empty()) else {
        return compiled;
    };
    Unhonoured {
        errors: &mut compiled.errors,
        warnings: &mut compiled.warnings,
    }
    .config(&config);
    if !compiled.errors.is_empty() {
        return compiled;
    }
    for workflow in config.workflows.iter().filter(|workflow| !workflow.jobs.is_empty()) {
        match definition(workflow, &config) {
            Ok(definition) => compiled.workflows.push(CompiledWorkflow {
                name: workflow.name.clone(),
                definition,
                jobs: workflow
                    .jobs
                    .iter()
                    .map(|job| CompiledWorkflowJob {
                        name: job.name.clone(),
                        gate_of: gate_of(workflow, &config, &job.name),
                    })
                    .collect(),
            }),
            Err(error) => compiled
                .errors
                .push(format!("{}: workflow `{}`: {error}", workflow.place, workflow.name)),
        }
    }
    compiled.config = Some(config);
    compiled.text = text;
    compiled
}

fn values(trigger: &Trigger<'_>) -> PipelineValues {
    let mut values = PipelineValues::new()
        .with("id", trigger.pipeline.to_string())
        .with("number", trigger.number)
        .with("project.git_url", trigger.repository_url)
        .with("project.type", "towpath")
        .with("project.slug", format!("towpath/local/{}", trigger.project))
        .with("trigger_source", if trigger.by_api { "api" } else { "webhook" })
        .with("trigger.type", if trigger.by_api { "api" } else { "webhook" })
        .with("event.name", if trigger.by_api { "api" } else { "push" })
        .with("event.action", if trigger.by_api { "api" } else { "push" })
        .with("git.revision", trigger.commit.id.to_string())
        .with("git.repo_url", trigger.repository_url)
        .with("git.repo_owner", "local")
        .with("git.repo_name", trigger.project)
        .with("git.commit.subject", trigger.commit.subject.clone())
        .with("git.commit.body", trigger.commit.body.clone())
        .with("git.branch.is_default", trigger.branch == Some(trigger.default_branch))
        .with("config.file_path", crate::push::CONFIG_FILE)
        .with("config.sha", trigger.commit.id.to_string());
    if let Some(branch) = trigger.branch {
        values.set("git.branch", branch);
    }
    if let Some(tag) = trigger.tag {
        values.set("git.tag", tag);
    }
    values
}

fn definition(workflow: &Workflow, config: &CompiledConfig) -> Result<Definition, String> {
    let mut jobs = Vec::new();
    for job in &workflow.jobs {
        let kind = match &job.kind {
            JobKind::Build { job: key } => {
                let nodes = config
                    .jobs
                    .get(key)
                    .map(|job| job.parallelism)
                    .ok_or_else(|| format!("job `{key}` is not defined"))?;
                towpath_workflow::JobKind::Build { nodes }
            }
            JobKind::Approval => towpath_workflow::JobKind::Approval,
            JobKind::NoOp => towpath_workflow::JobKind::NoOp,
            JobKind::Release { .. } | JobKind::Lock { .. } | JobKind::Unlock { .. } => {
                return Err(format!("job `{}` is of a type that cannot be run yet", job.name));
            }
        };
        let requires = job
            .requires
            .iter()
            .map(|requirement| Requirement {
                job: requirement.job.clone(),
                statuses: requirement.statuses.iter().map(|status| required(*status)).collect(),
            })
            .collect();
        jobs.push(JobDefinition {
            name: job.name.clone(),
            kind,
            requires,
        });
    }
    Definition::new(jobs).map_err(|error| error.to_string())
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

/// The environment that an approval opens: the one to which the first job behind it deploys. Jobs behind a further gate
/// are that gate's.
fn gate_of(workflow: &Workflow, config: &CompiledConfig, gate: &str) -> Option<String> {
    let is_gate = |name: &str| {
        workflow
            .jobs
            .iter()
            .any(|job| job.name == name && job.kind == JobKind::Approval)
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
                && let Some(environment) = config.jobs.get(key).and_then(|job| deploys_to(&job.steps))
            {
                return Some(environment);
            }
            next.push(&job.name);
        }
    }
    None
}

/// Every deployment that a job's steps speak of, with its place.
fn deployments_in(steps: &[Step]) -> Vec<(&Place, Deployment)> {
    let in_step = |step: &'_ Step| match &step.action {
        StepAction::Run(run) | StepAction::Deploy(run) => deployments(&run.command),
        _ => Vec::new(),
    };
    steps
        .iter()
        .flat_map(|step| in_step(step).into_iter().map(move |one| (&step.place, one)))
        .collect()
}

fn deploys_to(steps: &[Step]) -> Option<String> {
    deployments_in(steps).into_iter().find_map(|(_, one)| match one {
        Deployment::To(environment) => Some(environment),
        Deployment::Unclear(_) => None,
    })
}

/// The environment that a workflow's job deploys to, as its steps say.
pub(crate) fn deployed_by(config: &CompiledConfig, workflow: &str, job: &str) -> Option<String> {
    let workflow = config.workflows.iter().find(|one| one.name == workflow)?;
    let job = workflow.jobs.iter().find(|one| one.name == job)?;
    let JobKind::Build { job: key } = &job.kind else {
        return None;
    };
    deploys_to(&config.jobs.get(key)?.steps)
}

/// Says what the language has and this runtime does not do yet. Nothing is passed over in silence.
struct Unhonoured<'a> {
    errors: &'a mut Vec<String>,
    warnings: &'a mut Vec<String>,
}

impl Unhonoured<'_> {
    fn error(&mut self, place: &Place, what: &str, remedy: &str) {
        self.errors.push(format!(
            "error[towpath::not-yet]: {what} cannot be run by Towpath yet\n  --> {place}\nhint: {remedy}"
        ));
    }

    fn warn(&mut self, place: &Place, text: &str) {
        self.warnings
            .push(format!("warning[towpath::differs]: {text}\n  --> {place}"));
    }

    fn config(&mut self, config: &CompiledConfig) {
        if config.setup {
            self.errors.push(format!(
                "error[towpath::not-yet]: a setup workflow (`setup: true`) cannot be run by Towpath yet\n  --> {}:1:1\nhint: push the configuration that it would continue with",
                crate::push::CONFIG_FILE
            ));
        }
        for workflow in &config.workflows {
            if !workflow.schedules.is_empty() {
                self.error(
                    &workflow.place,
                    &format!("the schedule of workflow `{}`", workflow.name),
                    "run it from cron with an API call, and remove `triggers`",
                );
            }
            if workflow.max_auto_reruns.is_some() {
                self.error(
                    &workflow.place,
                    "`max_auto_reruns` of a workflow",
                    "use `max_auto_reruns` of the step that is flaky",
                );
            }
            for job in &workflow.jobs {
                if job.serial_group.is_some() {
                    self.error(
                        &job.place,
                        &format!("`serial-group` of job `{}`", job.name),
                        "deployments to one environment already take turns",
                    );
                }
                if matches!(
                    job.kind,
                    JobKind::Release { .. } | JobKind::Lock { .. } | JobKind::Unlock { .. }
                ) {
                    self.error(
                        &job.place,
                        &format!("job `{}` of this type", job.name),
                        "use a job with steps, or an approval",
                    );
                }
            }
        }
        for (name, job) in &config.jobs {
            self.job(name, job);
        }
    }

    fn job(&mut self, name: &str, job: &CompiledJob) {
        match &job.executor {
            Executor::Docker { images } => {
                for (index, image) in images.iter().enumerate() {
                    if index == 0 && (image.entrypoint.is_some() || image.command.is_some()) {
                        self.error(
                            &image.place,
                            "`entrypoint` or `command` of the first image",
                            "start the process in a step with `background: true`",
                        );
                    }
                    if matches!(image.auth, Some(RegistryAuth::Aws { .. } | RegistryAuth::Gcp { .. })) {
                        self.error(
                            &image.place,
                            "signing in to a registry with a cloud's identity",
                            "use `auth` with a user name and a password",
                        );
                    }
                }
            }
            Executor::Machine {
                image,
                docker_layer_caching,
            } => {
                if *docker_layer_caching {
                    self.warn(
                        &job.place,
                        &format!("job `{name}` uses this machine's engine, whose layers are always kept: `docker_layer_caching` changes nothing"),
                    );
                }
                if let Some(class) = &job.resource_class {
                    self.warn(
                        &job.place,
                        &format!("job `{name}` has all of this host, not what the resource class `{class}` has"),
                    );
                }
                if let Some(image) = image.as_ref().filter(|image| *image != "default") {
                    self.warn(
                        &job.place,
                        &format!("job `{name}` runs on this host, not in the machine image `{image}`"),
                    );
                }
            }
            Executor::Macos { .. } => self.error(
                &job.place,
                &format!("job `{name}` on macOS"),
                "use a docker or a machine executor",
            ),
        }
        if job.ip_ranges {
            self.error(
                &job.place,
                &format!("`circleci_ip_ranges` of job `{name}`"),
                "remove it: jobs leave from this machine's address",
            );
        }
        self.deployments(name, job);
        self.steps(&job.steps, job.parallelism);
    }

    /// A gate shows one plan, and that of what stands in the step.
    fn deployments(&mut self, name: &str, job: &CompiledJob) {
        let mut first: Option<String> = None;
        for (place, deployment) in deployments_in(&job.steps) {
            match (deployment, &first) {
                (Deployment::To(environment), None) => first = Some(environment),
                (Deployment::To(environment), Some(first)) if environment == *first => {}
                (Deployment::To(environment), Some(first)) => self.errors.push(format!(
                    "error[towpath::deployment]: job `{name}` deploys to `{first}` and to `{environment}`, and a gate in front of it can show one \
                     plan only\n  --> {place}\nhint: make a job of each, each behind a gate of its own"
                )),
                (Deployment::Unclear(rest), _) => self.errors.push(format!(
                    "error[towpath::deployment]: what `towpath deploy {rest}` would deploy to is not known before it runs, so no gate could show \
                     it\n  --> {place}\nhint: in a step it is `towpath deploy ENVIRONMENT`, and nothing else: image and plan are the workflow's"
                )),
            }
        }
    }

    fn steps(&mut self, steps: &[Step], nodes: u32) {
        for step in steps {
            match &step.action {
                StepAction::SetupRemoteDocker { .. } => {
                    self.error(
                        &step.place,
                        "`setup_remote_docker`",
                        "use a machine executor, whose jobs reach this machine's engine",
                    );
                }
                StepAction::AddSshKeys { .. } => self.error(
                    &step.place,
                    "`add_ssh_keys`",
                    "keep the key in a context and add it in a step",
                ),
                StepAction::InstallSigningBundle { .. } => {
                    self.error(&step.place, "`install_signing_bundle`", "it needs macOS")
                }
                StepAction::WithToolCache { .. } => {
                    self.error(&step.place, "`with_tool_cache`", "use `save_cache` and `restore_cache`")
                }
                StepAction::Deploy(_) if nodes > 1 => self.error(
                    &step.place,
                    "`deploy` in a job with `parallelism`",
                    "deploy in a job of its own",
                ),
                StepAction::Deploy(_)
                | StepAction::Run(_)
                | StepAction::Checkout { .. }
                | StepAction::SaveCache { .. }
                | StepAction::RestoreCache { .. }
                | StepAction::PersistToWorkspace { .. }
                | StepAction::AttachWorkspace { .. }
                | StepAction::StoreArtifacts { .. }
                | StepAction::StoreTestResults { .. } => {}
            }
        }
    }
}
