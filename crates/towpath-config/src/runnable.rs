//! What a runtime cannot run of a configuration, or runs differently than CircleCI does.
//!
//! The configuration is valid, so each finding is a warning. It says which jobs or workflows it concerns, so that a server
//! can run the rest and fail exactly those when they are reached.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use towpath_yaml::{Diagnostic, Place};

use crate::compiled::{
    CompiledConfig, CompiledJob, Executor, JobKind, RegistryAuth, Step, StepAction, Workflow, WorkflowJob,
};
use crate::deployments::{Deployment, in_steps};
use crate::document::Document;
use crate::orbs::Orbs;
use crate::texts::Texts;

/// A part of the language that a runtime may not support.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Feature {
    /// `setup: true`.
    SetupConfiguration,
    /// `triggers: [{schedule: …}]` of a workflow.
    Schedule,
    /// `max_auto_reruns` of a workflow.
    WorkflowReruns,
    /// `serial-group` of a job or a job group.
    SerialGroup,
    /// Jobs of type release.
    ReleaseJob,
    /// Jobs of type lock and unlock.
    LockJob,
    /// `macos`.
    Macos,
    /// `image` of a machine.
    MachineImage,
    /// `resource_class` of a machine job.
    MachineResourceClass,
    /// `docker_layer_caching` of a machine.
    MachineLayerCaching,
    /// `entrypoint` and `command` of the primary container.
    PrimaryCommand,
    /// `aws_auth` and `gcp_auth` of an image.
    CloudRegistryAuth,
    /// `circleci_ip_ranges`.
    IpRanges,
    /// `setup_remote_docker`.
    RemoteDocker,
    /// `add_ssh_keys`.
    SshKeys,
    /// `install_signing_bundle`.
    SigningBundle,
    /// `with_tool_cache`.
    ToolCache,
    /// The `deploy` step in a job with `parallelism`.
    ParallelDeploy,
    /// `towpath deploy` without a fixed environment.
    UnclearDeployment,
    /// `towpath deploy` to a second environment.
    SecondDeployment,
}

/// What happens to a part of a configuration that needs an unsupported feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The jobs fail when they are reached.
    Fails,
    /// The workflow never starts.
    NeverStarts,
    /// The jobs run as if the feature was not used.
    Ignored,
}

impl Feature {
    /// What happens without the feature.
    pub fn effect(self) -> Effect {
        match self {
            Feature::Schedule => Effect::NeverStarts,
            Feature::WorkflowReruns
            | Feature::SerialGroup
            | Feature::MachineImage
            | Feature::MachineResourceClass
            | Feature::MachineLayerCaching => Effect::Ignored,
            Feature::SetupConfiguration
            | Feature::ReleaseJob
            | Feature::LockJob
            | Feature::Macos
            | Feature::PrimaryCommand
            | Feature::CloudRegistryAuth
            | Feature::IpRanges
            | Feature::RemoteDocker
            | Feature::SshKeys
            | Feature::SigningBundle
            | Feature::ToolCache
            | Feature::ParallelDeploy
            | Feature::UnclearDeployment
            | Feature::SecondDeployment => Effect::Fails,
        }
    }

    /// The code of the diagnostic.
    fn code(self) -> &'static str {
        match self.effect() {
            Effect::Fails | Effect::NeverStarts => "towpath::cannot-run",
            Effect::Ignored => "towpath::differs",
        }
    }

    /// What to do instead.
    fn hint(self) -> Option<&'static str> {
        Some(match self {
            Feature::SetupConfiguration => "push the configuration with which the setup would continue",
            Feature::Schedule => "remove `triggers`, and start the workflow from cron with an API call",
            Feature::WorkflowReruns => "set `max_auto_reruns` on the step that may fail",
            Feature::SerialGroup => "deployments to one environment take turns anyway",
            Feature::ReleaseJob | Feature::LockJob => "use a job with steps, or an approval",
            Feature::Macos => "use a docker or a machine executor",
            Feature::PrimaryCommand => "start the process in a step with `background: true`",
            Feature::CloudRegistryAuth => "use `auth` with a user name and a password",
            Feature::IpRanges => "remove it; the job uses the address of this machine",
            Feature::RemoteDocker => "use a machine executor, whose jobs can use this machine's container engine",
            Feature::SshKeys => "put the key into a context, and add it in a `run` step",
            Feature::SigningBundle => "run this job on macOS elsewhere",
            Feature::ToolCache => "use `save_cache` and `restore_cache`",
            Feature::ParallelDeploy => "deploy in a job of its own",
            Feature::UnclearDeployment => {
                "in a step, write `towpath deploy ENVIRONMENT` and nothing else: image and plan are the workflow's"
            }
            Feature::SecondDeployment => "make a job of each, each behind a gate of its own",
            Feature::MachineImage | Feature::MachineResourceClass | Feature::MachineLayerCaching => return None,
        })
    }
}

/// The features that a runtime supports. The default is what Towpath supports today: none of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(BTreeSet<Feature>);

impl Capabilities {
    /// Adds a feature.
    #[must_use]
    pub fn with(mut self, feature: Feature) -> Capabilities {
        self.0.insert(feature);
        self
    }

    /// Whether the runtime supports a feature.
    pub fn supports(&self, feature: Feature) -> bool {
        self.0.contains(&feature)
    }
}

/// A part of a configuration that a finding concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// All jobs of all workflows.
    Configuration,
    /// A workflow, by name.
    Workflow(String),
    /// A job of one workflow, by their names.
    WorkflowJob(String, String),
    /// A key of [`CompiledConfig::jobs`], in all workflows that run it.
    Job(String),
}

/// A place that needs a feature that the runtime does not support.
#[derive(Clone, Debug)]
pub struct Finding {
    #[allow(missing_docs)]
    pub feature: Feature,
    /// The parts of the configuration that need the feature. Empty if no workflow runs the job.
    pub subjects: Vec<Subject>,
    /// A warning with the code `towpath::cannot-run` or `towpath::differs`.
    pub diagnostic: Diagnostic,
}

impl Finding {
    /// Whether the finding keeps a workflow from starting.
    pub fn stops_workflow(&self, workflow: &str) -> bool {
        let concerns = |subject: &Subject| match subject {
            Subject::Workflow(name) => name == workflow,
            Subject::Configuration | Subject::WorkflowJob(..) | Subject::Job(_) => false,
        };
        self.feature.effect() == Effect::NeverStarts && self.subjects.iter().any(concerns)
    }

    /// Whether the finding makes a job of a workflow fail.
    pub fn fails_job(&self, workflow: &str, job: &WorkflowJob) -> bool {
        let concerns = |subject: &Subject| match subject {
            Subject::Configuration => true,
            Subject::Workflow(name) => name == workflow,
            Subject::WorkflowJob(name, own) => name == workflow && *own == job.name,
            Subject::Job(key) => matches!(&job.kind, JobKind::Build { job } if job == key),
        };
        self.feature.effect() == Effect::Fails && self.subjects.iter().any(concerns)
    }

    /// The finding in one line, for the log of a failed job.
    pub fn reason(&self) -> String {
        let mut reason = self.diagnostic.message.clone();
        if let Some(label) = &self.diagnostic.primary {
            reason = format!("{}: {reason}", label.span.place());
        }
        if let Some(hint) = &self.diagnostic.hint {
            reason = format!("{reason} ({hint})");
        }
        reason
    }
}

/// Why a job of a workflow cannot run, one line per reason. `None` if it can.
pub fn cannot_run(findings: &[Finding], workflow: &str, job: &WorkflowJob) -> Option<String> {
    let reasons: Vec<String> = findings
        .iter()
        .filter(|finding| finding.fails_job(workflow, job))
        .map(Finding::reason)
        .collect();
    (!reasons.is_empty()).then(|| reasons.join("\n"))
}

/// Finds what `host` cannot run, or runs differently. Each place is found once for each feature, whichever jobs need it.
///
/// `unused` are the jobs that no workflow runs. `document` and `orbs` are those that were compiled.
pub(crate) fn unsupported(
    config: &CompiledConfig,
    unused: &[CompiledJob],
    document: &Document,
    orbs: &Orbs,
    host: &Capabilities,
) -> Vec<Finding> {
    let mut search = Search {
        host,
        texts: Texts::of(document, orbs),
        known: HashMap::new(),
        findings: Vec::new(),
    };
    if config.setup {
        let key = document
            .root()
            .and_then(|root| root.as_mapping()?.entry("setup"))
            .map(|entry| entry.key.span.place());
        search.add(
            Feature::SetupConfiguration,
            key.as_ref(),
            Some(Subject::Configuration),
            "Towpath cannot run setup configurations yet",
        );
    }
    for workflow in &config.workflows {
        search.workflow(workflow);
    }
    for (key, job) in &config.jobs {
        search.job(Some(Subject::Job(key.clone())), job);
    }
    for job in unused {
        search.job(None, job);
    }
    let mut findings = search.findings;
    for finding in &mut findings {
        name_users(finding, document);
    }
    findings
}

/// Adds the jobs to a diagnostic whose place is in an orb: the author of the configuration looks for them.
fn name_users(finding: &mut Finding, document: &Document) {
    const NAMED: usize = 3;
    let is_in_orb = |diagnostic: &Diagnostic| {
        let source = diagnostic.primary.as_ref().map(|label| label.span.source());
        source.is_some_and(|source| !Arc::ptr_eq(source, document.source()))
    };
    let names: Vec<String> = finding
        .subjects
        .iter()
        .filter_map(|subject| match subject {
            Subject::Job(name) | Subject::WorkflowJob(_, name) => Some(format!("'{name}'")),
            Subject::Configuration | Subject::Workflow(_) => None,
        })
        .collect();
    if !is_in_orb(&finding.diagnostic) || names.is_empty() {
        return;
    }
    let mut line = format!("Used by job {}", names[..names.len().min(NAMED)].join(", "));
    if names.len() > NAMED {
        line.push_str(&format!(" and {} more", names.len() - NAMED));
    }
    finding.diagnostic.context.push(line);
}

struct Search<'a> {
    host: &'a Capabilities,
    texts: Texts<'a>,
    /// The index of the finding for a feature, a place and a message.
    known: HashMap<(Feature, Option<Place>, String), usize>,
    findings: Vec<Finding>,
}

impl Search<'_> {
    fn add(&mut self, feature: Feature, place: Option<&Place>, subject: Option<Subject>, message: impl Into<String>) {
        if self.host.supports(feature) {
            return;
        }
        let message = message.into();
        let key = (feature, place.cloned(), message.clone());
        let at = match self.known.get(&key) {
            Some(at) => *at,
            None => {
                let mut diagnostic = Diagnostic::warning(feature.code(), message);
                if let Some(span) = place.and_then(|place| self.texts.span(place)) {
                    diagnostic = diagnostic.at(&span, "");
                }
                if let Some(hint) = feature.hint() {
                    diagnostic = diagnostic.hint(hint);
                }
                self.known.insert(key, self.findings.len());
                self.findings.push(Finding {
                    feature,
                    subjects: Vec::new(),
                    diagnostic,
                });
                self.findings.len() - 1
            }
        };
        if let Some(subject) = subject.filter(|subject| !self.findings[at].subjects.contains(subject)) {
            self.findings[at].subjects.push(subject);
        }
    }

    fn workflow(&mut self, workflow: &Workflow) {
        let whole = Subject::Workflow(workflow.name.clone());
        if let Some(schedule) = workflow.schedules.first() {
            self.add(
                Feature::Schedule,
                Some(&schedule.place),
                Some(whole.clone()),
                format!(
                    "Towpath does not start workflows on a schedule yet, so workflow `{}` never runs",
                    workflow.name
                ),
            );
        }
        if workflow.max_auto_reruns.is_some() {
            self.add(
                Feature::WorkflowReruns,
                Some(&workflow.place),
                Some(whole),
                "`max_auto_reruns` of a workflow has no effect: Towpath does not rerun workflows automatically yet",
            );
        }
        for job in &workflow.jobs {
            let subject = || Some(Subject::WorkflowJob(workflow.name.clone(), job.name.clone()));
            let is_serial = match &job.kind {
                JobKind::Lock { of_group, .. } | JobKind::Unlock { of_group, .. } => *of_group,
                JobKind::Build { .. } | JobKind::Approval | JobKind::NoOp | JobKind::Release { .. } => {
                    job.serial_group.is_some()
                }
            };
            if is_serial {
                let message = "`serial-group` has no effect in Towpath yet";
                self.add(Feature::SerialGroup, Some(&job.place), subject(), message);
            }
            let feature = match &job.kind {
                JobKind::Release { .. } => Feature::ReleaseJob,
                JobKind::Lock { of_group: false, .. } | JobKind::Unlock { of_group: false, .. } => Feature::LockJob,
                JobKind::Lock { of_group: true, .. }
                | JobKind::Unlock { of_group: true, .. }
                | JobKind::Build { .. }
                | JobKind::Approval
                | JobKind::NoOp => continue,
            };
            let message = format!("Towpath cannot run jobs of type {} yet", job.kind.word());
            self.add(feature, Some(&job.place), subject(), message);
        }
    }

    fn job(&mut self, subject: Option<Subject>, job: &CompiledJob) {
        match &job.executor {
            Executor::Docker { images } => {
                for (index, image) in images.iter().enumerate() {
                    let place = Some(&image.place);
                    if index == 0 && (image.entrypoint.is_some() || image.command.is_some()) {
                        let message =
                            "Towpath cannot replace the `entrypoint` or the `command` of the primary container yet";
                        self.add(Feature::PrimaryCommand, place, subject.clone(), message);
                    }
                    if matches!(image.auth, Some(RegistryAuth::Aws { .. } | RegistryAuth::Gcp { .. })) {
                        let message = "Towpath cannot sign in to a registry with `aws_auth` or `gcp_auth` yet";
                        self.add(Feature::CloudRegistryAuth, place, subject.clone(), message);
                    }
                }
            }
            Executor::Machine {
                image,
                docker_layer_caching,
                place,
            } => {
                let place = Some(place);
                if *docker_layer_caching {
                    let message = "`docker_layer_caching` has no effect: machine jobs share this machine's container engine, \
                                   which always keeps image layers";
                    self.add(Feature::MachineLayerCaching, place, subject.clone(), message);
                }
                if let Some(class) = &job.resource_class {
                    let message =
                        format!("resource class `{class}` has no effect: machine jobs can use all of this machine");
                    self.add(Feature::MachineResourceClass, place, subject.clone(), message);
                }
                if let Some(image) = image.as_ref().filter(|image| *image != "default") {
                    let message =
                        format!("machine image `{image}` has no effect: machine jobs run directly on this machine");
                    self.add(Feature::MachineImage, place, subject.clone(), message);
                }
            }
            Executor::Macos { place, .. } => {
                let message = "Towpath cannot run jobs on macOS yet";
                self.add(Feature::Macos, Some(place), subject.clone(), message);
            }
        }
        if let Some(place) = &job.ip_ranges {
            let message = "Towpath cannot run jobs with `circleci_ip_ranges` yet";
            self.add(Feature::IpRanges, Some(place), subject.clone(), message);
        }
        self.steps(subject.as_ref(), &job.steps, job.parallelism);
        self.deployments(subject.as_ref(), &job.steps);
    }

    /// Finds deployments that no gate could show.
    fn deployments(&mut self, subject: Option<&Subject>, steps: &[Step]) {
        let mut first: Option<String> = None;
        for (place, deployment) in in_steps(steps) {
            let (feature, message) = match (deployment, &first) {
                (Deployment::To(environment), None) => {
                    first = Some(environment);
                    continue;
                }
                (Deployment::To(environment), Some(first)) if environment == *first => continue,
                (Deployment::To(environment), Some(first)) => (
                    Feature::SecondDeployment,
                    format!(
                        "this job deploys to `{first}` and to `{environment}`, and a gate in front of it can show only one plan"
                    ),
                ),
                (Deployment::Unclear(rest), _) => {
                    let command = format!("towpath deploy {rest}");
                    (
                        Feature::UnclearDeployment,
                        format!(
                            "the environment of `{}` cannot be read from the configuration, so no gate could show it",
                            command.trim_end()
                        ),
                    )
                }
            };
            self.add(feature, Some(place), subject.cloned(), message);
        }
    }

    fn steps(&mut self, subject: Option<&Subject>, steps: &[Step], nodes: u32) {
        for step in steps {
            let (feature, what) = match &step.action {
                StepAction::SetupRemoteDocker { .. } => (Feature::RemoteDocker, "`setup_remote_docker`"),
                StepAction::AddSshKeys { .. } => (Feature::SshKeys, "`add_ssh_keys`"),
                StepAction::InstallSigningBundle { .. } => (Feature::SigningBundle, "`install_signing_bundle`"),
                StepAction::WithToolCache { steps } => {
                    self.steps(subject, steps, nodes);
                    (Feature::ToolCache, "`with_tool_cache`")
                }
                StepAction::Deploy(_) if nodes > 1 => (Feature::ParallelDeploy, "`deploy` in a job with `parallelism`"),
                StepAction::Deploy(_)
                | StepAction::Run(_)
                | StepAction::Checkout { .. }
                | StepAction::SaveCache { .. }
                | StepAction::RestoreCache { .. }
                | StepAction::PersistToWorkspace { .. }
                | StepAction::AttachWorkspace { .. }
                | StepAction::StoreArtifacts { .. }
                | StepAction::StoreTestResults { .. } => continue,
            };
            let message = format!("Towpath cannot run {what} yet");
            self.add(feature, Some(&step.place), subject.cloned(), message);
        }
    }
}
