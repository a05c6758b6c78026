//! A job with everything that it needs to run: variables, images by digest, credentials.
//!
//! Built on every request and never stored, because it holds secrets.

use crate::{
    capacity::Capacity,
    contexts::{Contexts, REGISTRY_USER},
    job::{
        resource_class,
        stored::{StoredExecutor, StoredImage, StoredJob},
        variables::{BuiltIn, expand},
    },
    storage::store_error,
    tokens::{Grant, Identity},
};
use std::sync::{Arc, OnceLock};
use towpath_delivery::DeliveryError;
use towpath_engines::{Container, EnvironmentKind, EnvironmentRequest, Limits};
use towpath_images::{Images, TagName};
use towpath_protocol::{CacheKeyValues, JobSpec, StepAction, Variable};
use towpath_store::{ImagePush, JobRow, PipelineRow, Store, WorkflowRow};
use towpath_types::{ImageReference, Mask, NodeId, RegistryCredentials, SecretBytes, SecretString};

/// The words by which a configuration names the container engine.
const ENGINE_WORDS: [&str; 3] = ["docker", "testcontainers", "buildx"];

/// How long a job may run.
const TIME_LIMIT_SECONDS: u64 = 5 * 60 * 60;

/// The addresses at which others reach this server.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Addresses {
    /// `http://127.0.0.1:7070`.
    pub base_url: String,
    /// The address of the built-in registry in image names: `127.0.0.1:7070`.
    pub registry: String,
}

/// Which jobs with a user of their own may use the machine's container engine, and with it everything on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EngineUse {
    /// Those whose configuration names it.
    #[default]
    Named,
    /// All of them.
    Always,
    /// None of them.
    Never,
}

/// Makes jobs ready to run. Clones share everything.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Preparation {
    pub store: Arc<dyn Store>,
    pub contexts: Contexts,
    pub identity: Arc<dyn Identity>,
    pub images: Arc<dyn Images>,
    pub addresses: Addresses,
    pub engine_use: EngineUse,
}

/// A job, ready to run.
pub(crate) struct Prepared {
    /// How many nodes run it.
    pub nodes: u32,
    /// The primary container's image.
    pub image: Option<ImageReference>,
    /// A warning to log before the first step.
    pub warning: Option<String>,
    kind: EnvironmentKind,
    limits: Option<Limits>,
    /// The specification of node 0.
    spec: JobSpec,
    /// Whether the job itself sets `CIRCLE_NODE_INDEX`.
    sets_node_index: bool,
    mask: Mask,
}

impl Prepared {
    /// The environment that the engine creates for a node.
    pub(crate) fn environment(&self, id: NodeId, token: SecretString) -> EnvironmentRequest {
        EnvironmentRequest {
            id,
            token,
            kind: self.kind.clone(),
            limits: self.limits,
        }
    }

    /// The specification that a node's agent runs.
    pub(crate) fn spec(&self, node: u32, step_token: SecretString) -> JobSpec {
        let mut spec = self.spec.clone();
        spec.node_index = node;
        spec.step_token = Some(step_token);
        if !self.sets_node_index {
            for variable in spec
                .environment
                .iter_mut()
                .filter(|one| one.name == "CIRCLE_NODE_INDEX")
            {
                variable.value = SecretString::new(node.to_string());
            }
        }
        spec
    }

    /// The step number for a service's log, after the job's own steps.
    pub(crate) fn service_log_step(&self, index: usize) -> u32 {
        u32::try_from(self.spec.steps.len() + index).unwrap_or(u32::MAX)
    }

    /// `output` without the job's secrets.
    pub(crate) fn masked(&self, output: &[u8]) -> Vec<u8> {
        let mut masker = self.mask.masker();
        let mut out = Vec::with_capacity(output.len());
        masker.push(output, &mut out);
        masker.finish(&mut out);
        out
    }
}

/// The job's secrets.
struct Secrets {
    /// The variables of its contexts.
    variables: Vec<(String, SecretString)>,
    /// The values to mask.
    hidden: Vec<SecretString>,
    /// The job's own registry token.
    of_job: SecretString,
    /// Hides these values and the job's tokens.
    mask: Mask,
}

/// The values that a variable can have, and the others: no job gets those as variables, but one may have them from elsewhere.
fn told_apart(values: Vec<(String, SecretBytes)>) -> (Vec<(String, SecretString)>, Vec<SecretBytes>) {
    let (mut variables, mut others) = (Vec::new(), Vec::new());
    for (key, value) in values {
        match value.to_variable() {
            Ok(text) => variables.push((key, text)),
            Err(_) => others.push(value),
        }
    }
    (variables, others)
}

/// A job and its related rows.
pub(crate) struct Subject<'a> {
    pub job: &'a JobRow,
    pub workflow: &'a WorkflowRow,
    pub pipeline: &'a PipelineRow,
}

impl Preparation {
    /// Everything that a job needs on a machine with `machine`. Fills `known` with the secrets to mask before doing
    /// anything that may fail with a message.
    ///
    /// # Errors
    /// `Invalid` for what its author has to mend; otherwise when something that Towpath stands on does not answer.
    pub(crate) async fn prepare(
        &self,
        subject: &Subject<'_>,
        machine: Capacity,
        known: &OnceLock<Mask>,
    ) -> Result<Prepared, DeliveryError> {
        let Subject {
            job,
            workflow,
            pipeline,
        } = subject;
        let stored = self.stored(job).await?;
        let number = job.number.unwrap_or_default();

        let branch = workflow.branch.as_deref();
        let variables = self.contexts.variables(&stored.contexts, &job.project, branch).await?;
        let Secrets {
            variables: secrets,
            hidden,
            of_job,
            mask,
        } = self.secrets(job, stored.nodes, variables, Vec::new());
        let mask = known.get_or_init(|| mask).clone();
        let built_in = BuiltIn {
            project: job.project.as_str(),
            pipeline: pipeline.id,
            pipeline_number: pipeline.number,
            workflow: workflow.id,
            job: job.id,
            job_name: &job.name,
            job_number: number,
            node_index: 0,
            node_total: stored.nodes,
            branch: workflow.branch.as_deref(),
            tag: workflow.tag.as_deref(),
            commit: &workflow.commit,
            working_directory: &stored.working_directory,
            base_url: &self.addresses.base_url,
            user: &pipeline.actor.name,
        }
        .variables();
        let lookup = |name: &str| {
            let secret = secrets.iter().rev().find(|(known, _)| known == name);
            secret.map(|(_, value)| value.expose().to_string()).or_else(|| {
                let built_in = built_in.iter().find(|(known, _)| known == name);
                built_in.map(|(_, value)| value.clone())
            })
        };
        let (kind, image) = match &stored.executor {
            StoredExecutor::Docker { images } => self.containers(subject, images, &of_job, &lookup).await?,
            StoredExecutor::Host => {
                let uses_engine = match self.engine_use {
                    EngineUse::Named => names_engine(&stored),
                    EngineUse::Always => true,
                    EngineUse::Never => false,
                };
                (EnvironmentKind::Host { uses_engine }, None)
            }
        };
        let in_containers = matches!(stored.executor, StoredExecutor::Docker { .. });
        let (limits, warning) = match in_containers {
            true => resource_class::limits(stored.resource_class.as_deref(), machine),
            false => (None, None),
        };
        let spec = JobSpec {
            id: job.id,
            node_index: 0,
            node_total: stored.nodes,
            name: job.name.clone(),
            working_directory: stored.working_directory.clone(),
            shell: stored.shell.clone(),
            environment: merge(&secrets, &built_in, &stored),
            mask: hidden,
            steps: stored.steps.clone(),
            repositories: Some(format!("{}/git/", self.addresses.base_url)),
            cache_key_values: CacheKeyValues {
                branch: workflow.branch.clone().unwrap_or_default(),
                build_number: number.to_string(),
                revision: workflow.commit.to_string(),
            },
            time_limit_seconds: Some(TIME_LIMIT_SECONDS),
            log_limit_bytes: None,
            on_host: stored.executor == StoredExecutor::Host,
            // Each node gets its own token.
            step_token: None,
        };
        Ok(Prepared {
            nodes: stored.nodes,
            image,
            warning,
            kind,
            limits: limits.map(|limits| Limits {
                cpu_millis: limits.cpu_millis,
                memory_bytes: limits.memory_bytes,
            }),
            spec,
            sets_node_index: stored.environment.iter().any(|(name, _)| name == "CIRCLE_NODE_INDEX"),
            mask,
        })
    }

    /// Builds the mask of a job on any server, also one that does not supervise it. Skips contexts that no longer
    /// exist.
    ///
    /// # Errors
    /// When the storage does not work.
    pub(crate) async fn mask(&self, job: &JobRow) -> Result<Mask, DeliveryError> {
        let stored = self.stored(job).await?;
        let mut values = Vec::new();
        for context in &stored.contexts {
            values.extend(self.contexts.to_hide(context)?);
        }
        let (variables, others) = told_apart(values);
        Ok(self.secrets(job, stored.nodes, variables, others).mask)
    }

    async fn stored(&self, job: &JobRow) -> Result<StoredJob, DeliveryError> {
        let stored = self.store.job_spec(job.id).await.map_err(store_error)?;
        let lost = || DeliveryError::internal(format!("what job `{}` does was lost", job.name));
        StoredJob::read(&stored.ok_or_else(lost)?.spec)
    }

    /// The secrets of a job with these variables. Its mask also hides `others`.
    fn secrets(
        &self,
        job: &JobRow,
        nodes: u32,
        mut variables: Vec<(String, SecretString)>,
        others: Vec<SecretBytes>,
    ) -> Secrets {
        // The registry attributes a push with the job's own token to the job's workflow.
        let project = job.project.to_string();
        let of_project = self.identity.issue(&Grant::Pull {
            project: project.clone(),
        });
        let of_job = self.identity.issue(&Grant::JobImages {
            project,
            job: job.id,
            attempt: job.attempt,
        });
        for (_, value) in &mut variables {
            if value.expose() == of_project.expose() {
                *value = of_job.clone();
            }
        }
        // These registry values are public, and many log lines contain them.
        let is_known = |name: &str, value: &str| {
            (name == "REGISTRY" && value == self.addresses.registry)
                || (name == "REGISTRY_USERNAME" && value == REGISTRY_USER)
        };
        let hidden = variables.iter().filter(|(name, value)| !is_known(name, value.expose()));
        let hidden: Vec<SecretString> = hidden.map(|(_, value)| value.clone()).collect();
        let of_node = |node| NodeId {
            job: job.id,
            attempt: job.attempt,
            node,
        };
        let of_nodes = (0..nodes).map(of_node);
        let tokens =
            of_nodes.flat_map(|id| [Grant::Agent(id), Grant::Step(id)].map(|grant| self.identity.issue(&grant)));
        let tokens: Vec<SecretString> = tokens.chain([of_project, of_job.clone()]).collect();
        let masked = hidden.iter().chain(&tokens).map(SecretBytes::from);
        let masked: Vec<SecretBytes> = masked.chain(others).collect();
        Secrets {
            mask: Mask::new(&masked),
            variables,
            hidden,
            of_job,
        }
    }

    async fn containers(
        &self,
        subject: &Subject<'_>,
        images: &[StoredImage],
        own_token: &SecretString,
        lookup: &(dyn Fn(&str) -> Option<String> + Sync),
    ) -> Result<(EnvironmentKind, Option<ImageReference>), DeliveryError> {
        let pushes = self.store.pushes_of(subject.workflow.id).await.map_err(store_error)?;
        let mut containers = Vec::new();
        for image in images {
            containers.push(self.container(&pushes, image, own_token, lookup).await?);
        }
        if containers.is_empty() {
            return Err(DeliveryError::invalid("the job's docker executor names no image"));
        }
        let primary = containers.remove(0);
        let reference = primary.image.clone();
        let kind = EnvironmentKind::Docker {
            primary,
            services: containers,
        };
        Ok((kind, Some(reference)))
    }

    async fn container(
        &self,
        pushes: &[ImagePush],
        image: &StoredImage,
        own_token: &SecretString,
        lookup: &(dyn Fn(&str) -> Option<String> + Sync),
    ) -> Result<Container, DeliveryError> {
        let text = expand(&image.image, lookup);
        let reference: ImageReference = text.parse().map_err(|error: towpath_types::ImageReferenceError| {
            DeliveryError::invalid(format!(
                "{}: {error}; is a variable in it missing from the job's contexts?",
                image.place
            ))
        })?;
        let reference = self.pin(pushes, reference, image).await?;
        let own = reference.registry.as_deref() == Some(self.addresses.registry.as_str());
        let credentials = match &image.auth {
            Some((username, password)) => Some(RegistryCredentials {
                username: expand(username, lookup),
                password: SecretString::new(expand(password, lookup)),
            }),
            None if own => Some(RegistryCredentials {
                username: REGISTRY_USER.into(),
                password: own_token.clone(),
            }),
            None => None,
        };
        let environment = image.environment.iter().map(|(name, value)| Variable {
            name: name.clone(),
            value: SecretString::new(value.clone()),
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

    /// Pins an image by digest: what this workflow pushed under the tag, or what the registry has now.
    async fn pin(
        &self,
        pushes: &[ImagePush],
        reference: ImageReference,
        image: &StoredImage,
    ) -> Result<ImageReference, DeliveryError> {
        if reference.digest.is_some() {
            return Ok(reference);
        }
        let tag = reference.tag.clone().unwrap_or_else(|| "latest".into());
        let pushed = pushes.iter().map(|push| &push.image).find(|known| {
            known.registry == reference.registry
                && known.repository == reference.repository
                && known.tag.as_ref() == Some(&tag)
        });
        if let Some(digest) = pushed.and_then(|known| known.digest.clone()) {
            return Ok(reference.at(digest));
        }
        if reference.registry.as_deref() != Some(self.addresses.registry.as_str()) {
            return Ok(reference);
        }
        let missing = || {
            DeliveryError::invalid(format!(
                "{}: there is no image `{reference}` in Towpath's registry: which job pushes it, and does this job require that one?",
                image.place
            ))
        };
        let tag: TagName = tag.parse().map_err(|_| missing())?;
        let resolved = self.images.resolve(&reference, &tag).await.map_err(|error| {
            DeliveryError::unavailable(format!("failed to look for `{reference}`")).caused_by(error)
        })?;
        Ok(reference.at(resolved.ok_or_else(missing)?))
    }
}

/// Whether a job's configuration names the container engine: in a step, a shell, or a variable.
fn names_engine(job: &StoredJob) -> bool {
    let variables = job.environment.iter().flat_map(|(name, value)| [name.as_str(), value]);
    let in_job = variables.chain(job.shell.as_deref());
    let steps = job.steps.iter().flat_map(|step| match &step.action {
        StepAction::Run(run) => {
            let variables = run.environment.iter();
            let variables = variables.flat_map(|variable| [variable.name.as_str(), variable.value.expose()]);
            let words = [step.name.as_str(), &run.command]
                .into_iter()
                .chain(run.shell.as_deref());
            words.chain(variables).collect()
        }
        _ => vec![step.name.as_str()],
    });
    in_job.chain(steps).any(|text| {
        let text = text.to_lowercase();
        ENGINE_WORDS.iter().any(|word| text.contains(word))
    })
}

/// The environment of every step. Later variables override earlier ones: contexts, built-ins, the job's own.
///
/// Source: <https://circleci.com/docs/guides/security/env-vars/#order-of-precedence>, where built-ins stand above
/// contexts.
fn merge(secrets: &[(String, SecretString)], built_in: &[(String, String)], job: &StoredJob) -> Vec<Variable> {
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
    for (name, value) in built_in.iter().chain(&job.environment) {
        set(name, SecretString::new(value.clone()));
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_job_names_the_engine_in_a_step_a_shell_or_a_variable() {
        let job = |command: &str, variable: &str, shell: Option<&str>| StoredJob {
            executor: StoredExecutor::Host,
            nodes: 1,
            resource_class: None,
            working_directory: "~/docker".into(),
            shell: shell.map(str::to_string),
            environment: vec![(variable.into(), "1".into())],
            contexts: vec!["docker-hub".into()],
            steps: serde_json::from_value(json!([{
                "name": "Do it", "when": "on_success",
                "action": {"type": "run", "command": command, "no_output_timeout_seconds": 600},
            }]))
            .expect("the form of a step"),
            deploys_to: None,
        };
        let check = |job: StoredJob, expected: bool| assert_eq!(names_engine(&job), expected, "{job:?}");
        check(job("make test", "CI", None), false);
        check(job("make docker-image", "CI", None), true);
        check(job("make test", "DOCKER_BUILDKIT", None), true);
        check(job("make test", "TESTCONTAINERS_RYUK_DISABLED", None), true);
        check(job("make test", "CI", Some("docker exec app sh")), true);
    }

    #[test]
    fn no_value_of_a_context_is_dropped() {
        let value = |value: &[u8]| ("KEY".to_string(), SecretBytes::new(value.to_vec()));
        let values: [&[u8]; 3] = [b"plain-text", b"\xfe\x10raw-key\xff", b"cut\0off-there"];
        let (variables, others) = told_apart(values.map(value).to_vec());
        let variables: Vec<&[u8]> = variables.iter().map(|(_, value)| value.expose().as_bytes()).collect();
        let others: Vec<&[u8]> = others.iter().map(SecretBytes::expose).collect();
        assert!(variables == values[..1] && others == values[1..]);
    }
}
