//! A compiled job with everything that it needs to run: variables, images by digest, credentials.
//!
//! Made anew whenever it is asked for, because it holds secrets and so is never stored.

use crate::{
    Control, ControlError,
    environment::{BuiltIn, expand},
    records::{WorkflowImages, WorkflowRecord, collection},
};
use std::sync::Arc;
use towpath_config::{CompiledJob, DockerImage, Executor, JobKind, RegistryAuth, RunStep, Step, StepAction, StepWhen};
use towpath_engines::{
    Container, Engine, EnvironmentId, EnvironmentKind, EnvironmentRequest, Limits, RegistryCredentials,
};
use towpath_images::TagName;
use towpath_protocol::{CacheKeyValues, JobSpec, Variable};
use towpath_types::{ImageReference, JobId, Mask, SecretString};

/// How long a job may run.
const TIME_LIMIT_SECONDS: u64 = 5 * 60 * 60;

/// A job, ready to run.
pub(crate) struct Prepared {
    /// How many nodes run it.
    pub nodes: u32,
    /// The primary container's image.
    pub image: Option<ImageReference>,
    kind: EnvironmentKind,
    limits: Option<Limits>,
    /// The specification of node 0.
    spec: JobSpec,
    built_in_names: Vec<(String, String)>,
    mask: Mask,
}

impl Prepared {
    /// What the engine makes for a node.
    pub(crate) fn environment(&self, id: EnvironmentId, token: SecretString) -> EnvironmentRequest {
        EnvironmentRequest {
            id,
            token,
            kind: self.kind.clone(),
            limits: self.limits,
        }
    }

    /// What the agent of a node runs.
    pub(crate) fn spec(&self, node: u32) -> JobSpec {
        let mut spec = self.spec.clone();
        spec.node_index = node;
        for variable in &mut spec.environment {
            if variable.name == "CIRCLE_NODE_INDEX" && self.is_built_in("CIRCLE_NODE_INDEX", variable.value.expose()) {
                variable.value = SecretString::new(node.to_string());
            }
        }
        spec
    }

    fn is_built_in(&self, name: &str, value: &str) -> bool {
        self.built_in_names
            .iter()
            .any(|(known, is)| known == name && is == value)
    }

    /// Whether it runs in containers.
    pub(crate) fn in_containers(&self) -> bool {
        matches!(self.kind, EnvironmentKind::Docker { .. })
    }

    /// Under which step the log of a service is kept: behind the job's own.
    pub(crate) fn service_log_step(&self, index: usize) -> u32 {
        u32::try_from(self.spec.steps.len() + index).unwrap_or(u32::MAX)
    }

    /// `output` without the job's secrets.
    pub(crate) fn masked(&self, output: &[u8]) -> Vec<u8> {
        let mut masker = self.mask.masker();
        let mut out = Vec::with_capacity(output.len());
        masker.push(output, &mut out);
        masker.flush(&mut out);
        out
    }
}

impl Control {
    /// Everything that `job` needs.
    pub(crate) async fn prepare(
        self: &Arc<Self>,
        record: &Arc<WorkflowRecord>,
        job: JobId,
    ) -> Result<Prepared, ControlError> {
        let known = record
            .job(job)
            .ok_or_else(|| ControlError::internal(format!("job {job} is not of workflow {}", record.id)))?;
        let pipeline = {
            let live = self.live(record.id).await?;
            let live = live.lock().await;
            live.pipeline.clone()
        };
        let lost = || ControlError::internal(format!("the configuration of job `{}` was lost", known.name));
        let config = pipeline.compiled.as_ref().ok_or_else(lost)?;
        let workflow = config
            .workflows
            .iter()
            .find(|workflow| workflow.name == record.name)
            .ok_or_else(lost)?;
        let listed = workflow
            .jobs
            .iter()
            .find(|listed| listed.name == known.name)
            .ok_or_else(lost)?;
        let JobKind::Build { job: key } = &listed.kind else {
            return Err(lost());
        };
        let definition = config.jobs.get(key).ok_or_else(lost)?;
        let number = self
            .store
            .job(job)
            .await
            .map_err(crate::conductor::store_error)?
            .and_then(|row| row.number)
            .unwrap_or(0);

        let mut secrets = self.context_variables(&listed.contexts)?;
        // Its workflow is told by its pushes.
        let (of_project, of_workflow) = (
            self.registry_token(&record.project, None),
            self.registry_token(&record.project, Some(record.id)),
        );
        for (_, value) in &mut secrets {
            if value.expose() == of_project.expose() {
                *value = of_workflow.clone();
            }
        }
        let base_url = self.base_url();
        let built_in = BuiltIn {
            project: &record.project,
            pipeline: record.pipeline,
            pipeline_number: record.pipeline_number,
            workflow: record.id,
            job,
            job_name: &known.name,
            job_number: number,
            node_index: 0,
            node_total: definition.parallelism,
            branch: record.branch.as_deref(),
            tag: record.tag.as_deref(),
            commit: &record.commit,
            working_directory: &definition.working_directory,
            base_url: &base_url,
            user: &pipeline.user,
        }
        .variables();
        let environment = merge(&secrets, &built_in, definition);
        // What everybody knows of the registry is in many a line of a log.
        let is_known = |name: &str, value: &str| {
            (name == "REGISTRY" && value == self.registry_name()) || (name == "REGISTRY_USERNAME" && value == "towpath")
        };
        let hidden = secrets.iter().filter(|(name, value)| !is_known(name, value.expose()));
        let mask: Vec<SecretString> = hidden.map(|(_, value)| value.clone()).collect();
        let lookup = |name: &str| {
            let secret = secrets
                .iter()
                .rev()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.expose().to_string());
            secret.or_else(|| {
                built_in
                    .iter()
                    .find(|(known, _)| known == name)
                    .map(|(_, value)| value.clone())
            })
        };
        let (kind, image) = match &definition.executor {
            Executor::Docker { images } => self.containers(record, images, &lookup).await?,
            _ => (EnvironmentKind::Host, None),
        };
        let spec = JobSpec {
            id: job,
            node_index: 0,
            node_total: definition.parallelism,
            name: known.name.clone(),
            working_directory: definition.working_directory.clone(),
            shell: definition.shell.clone(),
            environment,
            mask: mask.clone(),
            steps: definition
                .steps
                .iter()
                .filter_map(|step| translate(step, definition))
                .collect(),
            cache_key_values: CacheKeyValues {
                branch: record.branch.clone().unwrap_or_default(),
                build_number: number.to_string(),
                revision: record.commit.to_string(),
            },
            time_limit_seconds: Some(TIME_LIMIT_SECONDS),
            log_limit_bytes: None,
        };
        let limits = match (&definition.executor, definition.resource_class.as_deref()) {
            (Executor::Docker { .. }, Some(class)) => resource_class(class),
            _ => None,
        };
        Ok(Prepared {
            nodes: definition.parallelism,
            image,
            kind,
            limits,
            spec,
            built_in_names: built_in,
            mask: Mask::new(&mask),
        })
    }

    /// The engine that a job runs on.
    pub(crate) fn engine_for(&self, prepared: &Prepared) -> Result<Arc<dyn Engine>, ControlError> {
        if !prepared.in_containers() {
            return Ok(self.host.clone());
        }
        let absent = || ControlError::unavailable("this Towpath was started without a container engine");
        self.docker.clone().ok_or_else(absent)
    }

    async fn containers(
        &self,
        record: &WorkflowRecord,
        images: &[DockerImage],
        lookup: &(dyn Fn(&str) -> Option<String> + Sync),
    ) -> Result<(EnvironmentKind, Option<ImageReference>), ControlError> {
        let mut containers = Vec::new();
        for image in images {
            containers.push(self.container(record, image, lookup).await?);
        }
        if containers.is_empty() {
            return Err(ControlError::invalid("the job's docker executor names no image"));
        }
        let primary = containers.remove(0);
        let reference = primary.image.clone();
        Ok((
            EnvironmentKind::Docker {
                primary,
                services: containers,
            },
            Some(reference),
        ))
    }

    async fn container(
        &self,
        record: &WorkflowRecord,
        image: &DockerImage,
        lookup: &(dyn Fn(&str) -> Option<String> + Sync),
    ) -> Result<Container, ControlError> {
        let text = expand(&image.image, lookup);
        let reference: ImageReference = text.parse().map_err(|error: towpath_types::ImageReferenceError| {
            ControlError::invalid(format!(
                "{}: {error}; is a variable of its missing from the job's contexts?",
                image.place
            ))
        })?;
        let reference = self.pin(record, reference, image).await?;
        let own = reference.registry.as_deref() == Some(&self.registry_name());
        let credentials = match &image.auth {
            Some(RegistryAuth::Password { username, password }) => Some(RegistryCredentials {
                username: expand(username, lookup),
                password: SecretString::new(expand(password, lookup)),
            }),
            _ if own => Some(RegistryCredentials {
                username: "towpath".into(),
                password: self.registry_token(&record.project, Some(record.id)),
            }),
            _ => None,
        };
        let environment = image.environment.iter().map(|variable| Variable {
            name: variable.name.clone(),
            value: SecretString::new(variable.value.in_environment()),
        });
        Ok(Container {
            name: image.name.clone(),
            entrypoint: image.entrypoint.clone(),
            command: image.command.clone(),
            user: image.user.clone(),
            environment: environment.collect(),
            credentials,
            ..Container::new(reference)
        })
    }

    /// The image by its digest: the one that this workflow pushed under that tag, or what our registry has there now.
    async fn pin(
        &self,
        record: &WorkflowRecord,
        reference: ImageReference,
        image: &DockerImage,
    ) -> Result<ImageReference, ControlError> {
        if reference.digest.is_some() {
            return Ok(reference);
        }
        let tag = reference.tag.clone().unwrap_or_else(|| "latest".into());
        let images: WorkflowImages = self
            .store
            .document(collection::IMAGES, &record.id.to_string())
            .await
            .map_err(crate::conductor::store_error)?
            .unwrap_or_default();
        let pushed = images.images.iter().find(|known| {
            known.registry == reference.registry
                && known.repository == reference.repository
                && known.tag.as_ref() == Some(&tag)
        });
        if let Some(digest) = pushed.and_then(|known| known.digest.clone()) {
            return Ok(reference.at(digest));
        }
        if reference.registry.as_deref() != Some(&self.registry_name()) {
            return Ok(reference);
        }
        let missing = || {
            ControlError::invalid(format!(
                "{}: there is no image `{reference}` in Towpath's registry: which job pushes it, and does this one require that job?",
                image.place
            ))
        };
        let tag: TagName = tag.parse().map_err(|_| missing())?;
        let digest = self.resolve(&reference, &tag).await?.ok_or_else(missing)?;
        Ok(reference.at(digest))
    }
}

/// The environment of every step; a later one of a name wins: contexts, built-ins, the job's own.
///
/// Source: <https://circleci.com/docs/guides/security/env-vars/#order-of-precedence>, where built-ins stand above contexts.
fn merge(secrets: &[(String, SecretString)], built_in: &[(String, String)], job: &CompiledJob) -> Vec<Variable> {
    let mut merged: Vec<Variable> = Vec::new();
    let mut set = |name: &str, value: SecretString| match merged.iter_mut().find(|known| known.name == name) {
        Some(known) => known.value = value,
        None => merged.push(Variable {
            name: name.to_string(),
            value,
        }),
    };
    for (name, value) in secrets {
        set(name, value.clone());
    }
    for (name, value) in built_in {
        set(name, SecretString::new(value.clone()));
    }
    for variable in &job.environment {
        set(&variable.name, SecretString::new(variable.value.in_environment()));
    }
    merged
}

fn translate(step: &Step, job: &CompiledJob) -> Option<towpath_protocol::Step> {
    use towpath_protocol::StepAction as Action;
    let mut when = match step.when {
        StepWhen::OnSuccess => towpath_protocol::StepWhen::OnSuccess,
        StepWhen::Always => towpath_protocol::StepWhen::Always,
        StepWhen::OnFail => towpath_protocol::StepWhen::OnFail,
    };
    let action = match &step.action {
        StepAction::Run(run) => Action::Run(run_step(run)),
        // On one node it is a `run`; with more it waits for all of them, which a later step of node 0 cannot know.
        StepAction::Deploy(run) if job.parallelism == 1 => Action::Run(run_step(run)),
        StepAction::Checkout { path, .. } => Action::Checkout { path: path.clone() },
        StepAction::SaveCache { key, paths } => Action::SaveCache {
            paths: paths.clone(),
            key: key.clone(),
        },
        StepAction::RestoreCache { keys } => Action::RestoreCache { keys: keys.clone() },
        StepAction::PersistToWorkspace { root, paths } => Action::PersistToWorkspace {
            root: root.clone(),
            paths: paths.clone(),
        },
        StepAction::AttachWorkspace { at } => Action::AttachWorkspace { at: at.clone() },
        StepAction::StoreArtifacts { path, destination } => {
            when = towpath_protocol::StepWhen::Always;
            Action::StoreArtifacts {
                path: path.clone(),
                destination: destination.clone(),
            }
        }
        StepAction::StoreTestResults { path } => {
            when = towpath_protocol::StepWhen::Always;
            Action::StoreTestResults { path: path.clone() }
        }
        // Refused when the pipeline was made.
        StepAction::Deploy(_)
        | StepAction::SetupRemoteDocker { .. }
        | StepAction::AddSshKeys { .. }
        | StepAction::InstallSigningBundle { .. }
        | StepAction::WithToolCache { .. } => return None,
    };
    Some(towpath_protocol::Step {
        name: step.title(),
        when,
        action,
    })
}

fn run_step(run: &RunStep) -> towpath_protocol::RunStep {
    let defaults = towpath_protocol::RunStep::default();
    towpath_protocol::RunStep {
        command: run.command.clone(),
        shell: run.shell.clone(),
        environment: run
            .environment
            .iter()
            .map(|variable| Variable {
                name: variable.name.clone(),
                value: SecretString::new(variable.value.in_environment()),
            })
            .collect(),
        working_directory: run.working_directory.clone(),
        background: run.background,
        no_output_timeout_seconds: run
            .no_output_timeout
            .map_or(defaults.no_output_timeout_seconds, |limit| limit.as_secs().max(1)),
        max_auto_reruns: run.max_auto_reruns.unwrap_or(0),
        auto_rerun_delay_seconds: run.auto_rerun_delay.map_or(0, |delay| delay.as_secs()),
    }
}

/// The limits of a docker resource class; `None` for one that is not known, which then has all of the machine.
///
/// Source: <https://circleci.com/docs/guides/execution-managed/resource-class-overview/#docker-execution-environment>
fn resource_class(class: &str) -> Option<Limits> {
    let (processors, gigabytes) = match class.strip_prefix("arm.").unwrap_or(class) {
        "small" => (1, 2),
        "medium" => (2, 4),
        "medium+" => (3, 6),
        "large" => (4, 8),
        "xlarge" => (8, 16),
        "2xlarge" => (16, 32),
        "2xlarge+" => (20, 40),
        _ => return None,
    };
    Some(Limits {
        cpu_millis: processors * 1000,
        memory_bytes: gigabytes << 30,
    })
}
