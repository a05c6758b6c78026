//! Turns a compiled job into its stored form. Pure.

use crate::job::stored::{StoredExecutor, StoredImage, StoredJob};
use towpath_config::{CompiledJob, DockerImage, Executor, RegistryAuth, RunStep, Step, StepAction, StepWhen};
use towpath_types::SecretString;

/// The stored form of a job that can run here. Jobs that cannot run are rejected earlier.
pub(crate) fn stored_job(job: &CompiledJob, contexts: &[String], deploys_to: Option<String>) -> StoredJob {
    let executor = match &job.executor {
        Executor::Docker { images } => StoredExecutor::Docker {
            images: images.iter().map(stored_image).collect(),
        },
        Executor::Machine { .. } | Executor::Macos { .. } => StoredExecutor::Host,
    };
    StoredJob {
        executor,
        nodes: job.parallelism,
        resource_class: job.resource_class.clone(),
        working_directory: job.working_directory.clone(),
        shell: job.shell.clone(),
        environment: job.environment.iter().map(pair).collect(),
        contexts: contexts.to_vec(),
        steps: job.steps.iter().filter_map(|step| protocol_step(step, job)).collect(),
        deploys_to,
    }
}

fn pair(variable: &towpath_config::Variable) -> (String, String) {
    (variable.name.clone(), variable.value.in_environment())
}

fn stored_image(image: &DockerImage) -> StoredImage {
    StoredImage {
        image: image.image.clone(),
        name: image.name.clone(),
        entrypoint: image.entrypoint.clone(),
        command: image.command.clone(),
        user: image.user.clone(),
        environment: image.environment.iter().map(pair).collect(),
        auth: match &image.auth {
            Some(RegistryAuth::Password { username, password }) => Some((username.clone(), password.clone())),
            // Jobs that sign in with a cloud identity are rejected earlier.
            Some(RegistryAuth::Aws { .. } | RegistryAuth::Gcp { .. }) | None => None,
        },
        place: image.place.to_string(),
    }
}

fn protocol_step(step: &Step, job: &CompiledJob) -> Option<towpath_protocol::Step> {
    use towpath_protocol::StepAction as Action;
    let mut when = match step.when {
        StepWhen::OnSuccess => towpath_protocol::StepWhen::OnSuccess,
        StepWhen::Always => towpath_protocol::StepWhen::Always,
        StepWhen::OnFail => towpath_protocol::StepWhen::OnFail,
    };
    let action = match &step.action {
        StepAction::Run(run) => Action::Run(run_step(run)),
        // On one node it is a `run`. On several it would have to wait for all nodes, and a later step of node 0 cannot
        // see the others.
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
        // Jobs with such a step are rejected earlier.
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
    let variable = |variable: &towpath_config::Variable| towpath_protocol::Variable {
        name: variable.name.clone(),
        value: SecretString::new(variable.value.in_environment()),
    };
    towpath_protocol::RunStep {
        command: run.command.clone(),
        shell: run.shell.clone(),
        environment: run.environment.iter().map(variable).collect(),
        working_directory: run.working_directory.clone(),
        background: run.background,
        no_output_timeout_seconds: run
            .no_output_timeout
            .map_or(defaults.no_output_timeout_seconds, |limit| limit.as_secs().max(1)),
        max_auto_reruns: run.max_auto_reruns.unwrap_or(0),
        auto_rerun_delay_seconds: run.auto_rerun_delay.map_or(0, |delay| delay.as_secs()),
    }
}
