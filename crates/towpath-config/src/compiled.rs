//! The result of a compilation: workflows of jobs, and jobs of steps.
//!
//! All types here are plain data that can be stored. All parameters are replaced. What only the running job knows is left:
//! `{{ }}` in cache keys, `$VARIABLES` in `auth`, and the variables of the shell.

use std::collections::BTreeSet;
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use towpath_yaml::Place;

/// A compiled configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CompiledConfig {
    /// Whether the pipeline continues with another configuration (`setup: true`).
    pub setup: bool,
    /// The jobs of all workflows by their final names, in the order of their first use.
    pub jobs: IndexMap<String, CompiledJob>,
    /// The workflows whose `when` is true, in the order in which they are written.
    pub workflows: Vec<Workflow>,
    /// The orbs that the configuration imports, in order.
    pub orbs: Vec<ResolvedOrb>,
}

/// An imported orb.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedOrb {
    /// The reference as written: `circleci/node@5`.
    pub reference: String,
    /// The exact version: `circleci/node@5.2.0`.
    pub resolved: String,
}

/// A workflow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Workflow {
    pub name: String,
    /// The jobs that run for the pipeline's branch or tag, in order.
    pub jobs: Vec<WorkflowJob>,
    /// The names of the jobs that filters removed, in order.
    pub filtered: Vec<String>,
    /// The legacy `triggers: [{schedule: …}]`. A workflow that has any runs on schedule only.
    pub schedules: Vec<Schedule>,
    /// How often failed jobs are rerun automatically (1 to 5).
    pub max_auto_reruns: Option<u32>,
    /// The key that names the workflow.
    pub place: Place,
}

/// A job in a workflow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkflowJob {
    /// The final name, unique in the workflow.
    pub name: String,
    /// The type, and what depends on it.
    pub kind: JobKind,
    /// The jobs that must end before this one starts. Jobs that filters removed are left out.
    pub requires: Vec<Requirement>,
    /// The contexts whose variables the job gets. A later context wins.
    pub contexts: Vec<String>,
    /// Only one job of a serial group runs at a time, over all pipelines.
    pub serial_group: Option<String>,
    /// Where the workflow lists the job.
    pub place: Place,
}

/// The type of a job in a workflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum JobKind {
    /// Runs steps.
    Build {
        /// The key in [`CompiledConfig::jobs`].
        job: String,
    },
    /// Waits for a person's approval.
    Approval,
    /// Succeeds immediately.
    NoOp,
    /// Carries out a release plan.
    Release {
        #[allow(missing_docs)]
        plan_name: Option<String>,
    },
    /// Waits until a key is free, and takes it.
    Lock {
        #[allow(missing_docs)]
        key: String,
        /// Whether the job is the start of a job group with a `serial-group`.
        #[serde(default)]
        of_group: bool,
    },
    /// Gives a key back.
    Unlock {
        #[allow(missing_docs)]
        key: String,
        /// Whether the job is the end of a job group with a `serial-group`.
        #[serde(default)]
        of_group: bool,
    },
}

impl JobKind {
    /// The name of the type in the language.
    pub fn word(&self) -> &'static str {
        match self {
            JobKind::Build { .. } => "build",
            JobKind::Approval => "approval",
            JobKind::NoOp => "no-op",
            JobKind::Release { .. } => "release",
            JobKind::Lock { .. } => "lock",
            JobKind::Unlock { .. } => "unlock",
        }
    }
}

/// A requirement of a job on another job of its workflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    /// The final name of the required job.
    pub job: String,
    /// The statuses of the required job with which this job starts.
    pub statuses: BTreeSet<RequiredStatus>,
}

/// The status of a required job.
///
/// Source: <https://circleci.com/docs/reference/configuration-reference/#requires>
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequiredStatus {
    /// All steps succeeded, or the job was approved.
    Success,
    /// A step failed.
    Failed,
    /// Somebody canceled the job.
    Canceled,
    /// The job was not allowed to run.
    Unauthorized,
    /// The job never started.
    NotRun,
}

impl RequiredStatus {
    /// All statuses, for which `terminal` stands.
    pub const ALL: [RequiredStatus; 5] = [
        RequiredStatus::Success,
        RequiredStatus::Failed,
        RequiredStatus::Canceled,
        RequiredStatus::Unauthorized,
        RequiredStatus::NotRun,
    ];

    /// The name of the status in the language.
    pub fn as_str(self) -> &'static str {
        match self {
            RequiredStatus::Success => "success",
            RequiredStatus::Failed => "failed",
            RequiredStatus::Canceled => "canceled",
            RequiredStatus::Unauthorized => "unauthorized",
            RequiredStatus::NotRun => "not_run",
        }
    }
}

/// A legacy schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Schedule {
    /// A cron expression with five fields, in UTC.
    pub cron: String,
    /// The branches on which the workflow runs.
    pub branches: Filter,
    pub place: Place,
}

/// A filter of branches or tags. An entry `/…/` is a regular expression that must match the whole name. Any other entry is an
/// exact name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// The names to let through. Empty if there is no `only`.
    pub only: Vec<String>,
    /// The names to keep out.
    pub ignore: Vec<String>,
}

/// A job with all parameters, commands and executors expanded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct CompiledJob {
    pub executor: Executor,
    /// The directory in which steps start. `~` is the home of the user who runs them.
    pub working_directory: String,
    /// The default shell of `run` steps, with its arguments.
    pub shell: Option<String>,
    /// The variables of the executor, then those of the job. A later variable wins.
    pub environment: Vec<Variable>,
    /// The number of nodes (1 or more).
    pub parallelism: u32,
    pub resource_class: Option<String>,
    pub steps: Vec<Step>,
    /// If the traffic of the job must leave from fixed IP addresses, the key that says so.
    pub ip_ranges: Option<Place>,
    /// The number of days to keep caches (1 to 30), if the job sets it.
    pub cache_days: Option<u32>,
    /// The body of the definition.
    pub place: Place,
}

/// Where the steps of a job run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Executor {
    /// In a container. Further containers run services.
    Docker {
        /// The image of the primary container, then those of the services.
        images: Vec<DockerImage>,
    },
    /// In a virtual machine, or with `resource_class: namespace/name` on a self-hosted runner.
    Machine {
        /// The machine image; `None` for the default image (`machine: true`).
        image: Option<String>,
        /// Whether image layers are kept between jobs.
        docker_layer_caching: bool,
        /// The key `machine`, which may be in an executor.
        place: Place,
    },
    /// On macOS.
    Macos {
        /// The version of Xcode.
        xcode: String,
        /// The key `macos`, which may be in an executor.
        place: Place,
    },
}

/// A container of a docker executor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct DockerImage {
    /// The image reference.
    pub image: String,
    /// The host name under which the other containers reach this one.
    pub name: Option<String>,
    /// Replaces the entrypoint of the image.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the command of the image.
    pub command: Option<Vec<String>>,
    pub user: Option<String>,
    pub environment: Vec<Variable>,
    /// How to sign in to the registry.
    pub auth: Option<RegistryAuth>,
    pub place: Place,
}

/// How to sign in to the registry of an image. Values may contain variables (`$PASSWORD`), which are replaced when the job
/// starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum RegistryAuth {
    Password {
        username: String,
        /// Usually a variable.
        password: String,
    },
    /// Elastic Container Registry, with a key pair or a role.
    Aws {
        aws_access_key_id: Option<String>,
        /// Usually a variable.
        aws_secret_access_key: Option<String>,
        /// The role to assume with the identity token of the job.
        oidc_role_arn: Option<String>,
    },
    /// Google's registries, with the identity token of the job.
    Gcp {
        oidc_service_account: Option<String>,
        workload_identity_pool: Option<String>,
        workload_identity_provider: Option<String>,
        project_number: Option<String>,
    },
}

/// An environment variable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Variable {
    pub name: String,
    pub value: Scalar,
}

/// A single value with its YAML type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
#[allow(missing_docs)]
pub enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}

impl Scalar {
    /// The text that a job sees. CircleCI passes booleans as `1` and `0`, null as `<nil>`, and numbers of seven or more digits
    /// in exponential notation. Text in quotes stays as it is.
    ///
    /// Source: <https://github.com/circleci/circleci-docs/issues/5304>
    pub fn in_environment(&self) -> String {
        match self {
            Scalar::Null => "<nil>".to_owned(),
            Scalar::Bool(true) => "1".to_owned(),
            Scalar::Bool(false) => "0".to_owned(),
            Scalar::Int(value) if value.unsigned_abs() < 1_000_000 => value.to_string(),
            Scalar::Int(value) => exponential(*value as f64),
            Scalar::Float(value) if *value == 0.0 || (1e-4..1e6).contains(&value.abs()) => value.to_string(),
            Scalar::Float(value) => exponential(*value),
            Scalar::Text(text) => text.clone(),
        }
    }
}

/// Formats a number as `1.234567e+06`: the exponent has a sign and at least two digits.
fn exponential(value: f64) -> String {
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => match exponent.strip_prefix('-') {
            Some(exponent) => format!("{mantissa}e-{exponent:0>2}"),
            None => format!("{mantissa}e+{exponent:0>2}"),
        },
        None => text,
    }
}

/// A step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Step {
    /// The explicit name. [`Step::title`] is never empty.
    pub name: Option<String>,
    pub when: StepWhen,
    pub action: StepAction,
    /// Where the step is written, which may be in an orb.
    pub place: Place,
}

/// Whether a step runs after a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepWhen {
    /// Only if no step has failed.
    #[default]
    OnSuccess,
    /// Whether or not a step has failed.
    Always,
    /// Only if a step has failed.
    OnFail,
}

/// What a step does.
///
/// Source: <https://circleci.com/docs/reference/configuration-reference/#steps>
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StepAction {
    /// Runs a command in a new shell.
    Run(RunStep),
    /// The legacy `deploy` step: runs a command on the first of parallel nodes, if all nodes have succeeded so far.
    Deploy(RunStep),
    /// Checks the source out.
    Checkout {
        /// The target. `.` is the working directory.
        path: String,
        #[allow(missing_docs)]
        method: CheckoutMethod,
    },
    /// Starts a container engine for this job.
    SetupRemoteDocker {
        /// The version of the engine.
        version: Option<String>,
        /// Whether image layers are kept between jobs.
        docker_layer_caching: bool,
    },
    /// Stores files under a key, unless the key exists.
    SaveCache {
        /// A `{{ }}` template.
        key: String,
        /// Directories and files.
        paths: Vec<String>,
    },
    /// Restores the newest cache of the first prefix that matches any.
    RestoreCache {
        /// The prefixes in order, as `{{ }}` templates.
        keys: Vec<String>,
    },
    /// Adds files to the workspace of the workflow.
    PersistToWorkspace {
        /// The directory to which the paths are relative.
        root: String,
        /// Glob patterns.
        paths: Vec<String>,
    },
    /// Copies the workspace of the workflow into the job.
    AttachWorkspace {
        /// The target directory.
        at: String,
    },
    /// Stores files for people.
    StoreArtifacts {
        /// A file or a directory.
        path: String,
        /// The name under which the files are stored.
        destination: Option<String>,
    },
    /// Stores JUnit results.
    StoreTestResults {
        /// A file or a directory.
        path: String,
    },
    /// Adds SSH keys to the job.
    AddSshKeys {
        /// The keys to add. If there are none, all keys of the project are added.
        fingerprints: Vec<String>,
    },
    /// Installs Apple signing material on macOS.
    InstallSigningBundle {
        /// The arguments as written.
        arguments: serde_json::Value,
    },
    /// Runs steps with a cache of tools.
    WithToolCache {
        #[allow(missing_docs)]
        steps: Vec<Step>,
    },
}

/// How much history a checkout fetches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum CheckoutMethod {
    /// All commits, but the contents of files only as needed.
    #[default]
    Blobless,
    /// All commits with all files.
    Full,
    /// The newest commits only.
    Shallow {
        /// The number of commits.
        depth: u32,
    },
}

/// A command and how to run it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunStep {
    /// The script.
    pub command: String,
    /// The shell with its arguments; `None` for that of the job.
    pub shell: Option<String>,
    /// Variables that override those of the job.
    pub environment: Vec<Variable>,
    /// The directory in which the command starts, relative to that of the job.
    pub working_directory: Option<String>,
    /// Whether the job continues without waiting for the command.
    pub background: bool,
    /// How long the command may run without output; `None` for ten minutes.
    pub no_output_timeout: Option<Duration>,
    /// How often a failed command is rerun automatically (1 to 5).
    pub max_auto_reruns: Option<u32>,
    /// How long to wait before a rerun.
    pub auto_rerun_delay: Option<Duration>,
}

impl Step {
    /// The name that people see: the explicit name, the first line of a command, or the name of the action.
    pub fn title(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        match &self.action {
            StepAction::Run(run) | StepAction::Deploy(run) => run
                .command
                .lines()
                .map(str::trim)
                .find(|line| !line.is_empty())
                .unwrap_or("run")
                .to_owned(),
            StepAction::Checkout { .. } => "Checkout code".to_owned(),
            StepAction::SetupRemoteDocker { .. } => "Setup a remote Docker engine".to_owned(),
            StepAction::SaveCache { .. } => "Saving cache".to_owned(),
            StepAction::RestoreCache { .. } => "Restoring cache".to_owned(),
            StepAction::PersistToWorkspace { .. } => "Persisting to workspace".to_owned(),
            StepAction::AttachWorkspace { .. } => "Attaching workspace".to_owned(),
            StepAction::StoreArtifacts { .. } => "Uploading artifacts".to_owned(),
            StepAction::StoreTestResults { .. } => "Uploading test results".to_owned(),
            StepAction::AddSshKeys { .. } => "Installing additional SSH keys".to_owned(),
            StepAction::InstallSigningBundle { .. } => "Installing signing bundle".to_owned(),
            StepAction::WithToolCache { .. } => "With tool cache".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_have_the_text_that_circleci_passes() {
        let check = |value: Scalar, expect: &str| assert_eq!(value.in_environment(), expect, "{value:?}");
        check(Scalar::Bool(true), "1");
        check(Scalar::Null, "<nil>");
        check(Scalar::Int(123_456), "123456");
        check(Scalar::Int(1_234_567), "1.234567e+06");
        check(Scalar::Int(-1_000_000), "-1e+06");
        check(Scalar::Float(2.1), "2.1");
        check(Scalar::Float(0.00001), "1e-05");
        check(Scalar::Text("true".to_owned()), "true");
    }
}
