//! What a configuration comes down to: workflows of jobs, jobs of steps, every value in its place.
//!
//! Everything here is plain data that can be stored and read back. Nothing is left to substitute, except what only the
//! running job knows: `{{ }}` in cache keys, `$VARIABLES` in `auth`, and the shell's own.

use std::collections::BTreeSet;
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use towpath_yaml::Place;

/// A compiled configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CompiledConfig {
    /// `setup: true`: this pipeline ends in another configuration.
    pub setup: bool,
    /// The job definitions by their final names, in the order in which workflows use them.
    pub jobs: IndexMap<String, CompiledJob>,
    /// The workflows that run, in the order in which they are written. Those whose `when` is false are not here.
    pub workflows: Vec<Workflow>,
    /// The orbs that were imported, in order: the reference as written, and what it resolved to.
    pub orbs: Vec<ResolvedOrb>,
}

/// An orb reference and what it resolved to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedOrb {
    /// As written: `circleci/node@5`.
    pub reference: String,
    /// Exact: `circleci/node@5.2.0`.
    pub resolved: String,
}

/// A workflow that runs for this pipeline's branch or tag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workflow {
    /// Its name.
    pub name: String,
    /// Its jobs that the filters leave, in order.
    pub jobs: Vec<WorkflowJob>,
    /// The names of the jobs that filters removed, in order.
    pub filtered: Vec<String>,
    /// The legacy `triggers: [{schedule: …}]`; a workflow that has any runs by schedule only.
    pub schedules: Vec<Schedule>,
    /// Reruns from failed that happen by themselves (1 to 5).
    pub max_auto_reruns: Option<u32>,
    /// Where it is written.
    pub place: Place,
}

/// A job as a workflow uses it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkflowJob {
    /// Its final name, unique in the workflow.
    pub name: String,
    /// What it is.
    pub kind: JobKind,
    /// What must have happened before it starts. Requirements on jobs that filters removed are not here.
    pub requires: Vec<Requirement>,
    /// The contexts whose variables it gets, in order: a later one wins.
    pub contexts: Vec<String>,
    /// The group of which one job at a time runs, over all pipelines.
    pub serial_group: Option<String>,
    /// Where the workflow names it.
    pub place: Place,
}

/// What a workflow's job is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum JobKind {
    /// Runs the steps of a definition.
    Build {
        /// The key in [`CompiledConfig::jobs`].
        job: String,
    },
    /// Waits for a person.
    Approval,
    /// Succeeds at once.
    NoOp,
    /// Carries out a release plan.
    Release {
        /// The plan's name.
        plan_name: Option<String>,
    },
    /// Waits for a key and takes it.
    Lock {
        /// The key.
        key: String,
    },
    /// Gives a key back.
    Unlock {
        /// The key.
        key: String,
    },
}

/// A job's dependency on another job of its workflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    /// The other job's final name.
    pub job: String,
    /// The ends of it that let this job start.
    pub statuses: BTreeSet<RequiredStatus>,
}

/// How a required job may have ended.
///
/// Source: <https://circleci.com/docs/reference/configuration-reference/#requires>
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequiredStatus {
    /// Its steps succeeded, or it was approved.
    Success,
    /// A step failed.
    Failed,
    /// Somebody canceled it.
    Canceled,
    /// It was not allowed to run.
    Unauthorized,
    /// It never started.
    NotRun,
}

impl RequiredStatus {
    /// Every status; what `terminal` stands for.
    pub const ALL: [RequiredStatus; 5] = [
        RequiredStatus::Success,
        RequiredStatus::Failed,
        RequiredStatus::Canceled,
        RequiredStatus::Unauthorized,
        RequiredStatus::NotRun,
    ];

    /// The word in the language.
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

/// A legacy schedule trigger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Five fields, in UTC.
    pub cron: String,
    /// The branches it runs on, as patterns.
    pub branches: Filter,
    /// Where it is written.
    pub place: Place,
}

/// A pair of pattern lists: `/…/` is a regular expression that must match in full, anything else an exact name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// The names to run on; empty when not given.
    pub only: Vec<String>,
    /// The names not to run on.
    pub ignore: Vec<String>,
}

/// A job definition, everything expanded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompiledJob {
    /// Where the steps run.
    pub executor: Executor,
    /// The directory in which steps start; `~` is the home of the user who runs them.
    pub working_directory: String,
    /// The shell line for `run` steps that have none of their own.
    pub shell: Option<String>,
    /// Variables, in order: the executor's, then the job's. A later one wins.
    pub environment: Vec<Variable>,
    /// How many nodes run it (1 or more).
    pub parallelism: u32,
    /// The size of the machine.
    pub resource_class: Option<String>,
    /// The steps.
    pub steps: Vec<Step>,
    /// Whether its traffic leaves from well-known addresses.
    pub ip_ranges: bool,
    /// How many days its caches are kept, when it says so (1 to 30).
    pub cache_days: Option<u32>,
    /// Where it is defined.
    pub place: Place,
}

/// Where a job's steps run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Executor {
    /// In the first of these containers; the others run beside it.
    Docker {
        /// One or more.
        images: Vec<DockerImage>,
    },
    /// In a virtual machine, or with `resource_class: namespace/name` on a machine of one's own.
    Machine {
        /// The machine image; `None` is the default one (`machine: true`).
        image: Option<String>,
        /// Whether image layers are kept between jobs.
        docker_layer_caching: bool,
    },
    /// On a Mac.
    Macos {
        /// The version of Xcode.
        xcode: String,
    },
}

/// A container of a docker executor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DockerImage {
    /// The image reference.
    pub image: String,
    /// The host name under which the other containers reach it.
    pub name: Option<String>,
    /// The process, replacing the image's.
    pub entrypoint: Option<Vec<String>>,
    /// The process' arguments, replacing the image's.
    pub command: Option<Vec<String>>,
    /// The user that runs it.
    pub user: Option<String>,
    /// Variables of that container.
    pub environment: Vec<Variable>,
    /// How to sign in to the registry.
    pub auth: Option<RegistryAuth>,
    /// Where it is written.
    pub place: Place,
}

/// How to sign in to an image's registry. Values may name variables (`$PASSWORD`); they are looked up when the job starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum RegistryAuth {
    /// Name and password.
    Password {
        /// The name.
        username: String,
        /// The password, as a rule the name of a variable.
        password: String,
    },
    /// Elastic Container Registry with a key pair or a role.
    Aws {
        /// Access key id.
        aws_access_key_id: Option<String>,
        /// Secret access key, as a rule the name of a variable.
        aws_secret_access_key: Option<String>,
        /// The role to assume with the job's identity token.
        oidc_role_arn: Option<String>,
    },
    /// Google's registries with the job's identity token.
    Gcp {
        /// The service account.
        oidc_service_account: Option<String>,
        /// The pool.
        workload_identity_pool: Option<String>,
        /// The provider.
        workload_identity_provider: Option<String>,
        /// The project's number.
        project_number: Option<String>,
    },
}

/// An environment variable with the type its YAML value had.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Scalar,
}

/// A single value with its YAML type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// Nothing.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// Another number.
    Float(f64),
    /// Text.
    Text(String),
}

impl Scalar {
    /// The text a job finds in its environment. CircleCI hands booleans over as `1` and `0`, nothing as `<nil>`, and numbers
    /// of seven digits and more in exponents; whoever means the text puts it in quotes.
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

/// `1.234567e+06`: at least two digits of exponent, always with its sign.
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

/// A step: what it does, when, and where its author wrote it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The name its author gave it.
    pub name: Option<String>,
    /// Whether it runs after a failure.
    pub when: StepWhen,
    /// What it does.
    pub action: StepAction,
    /// Where it is written; for a step of an orb, a place in the orb.
    pub place: Place,
}

/// Whether a step runs after a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepWhen {
    /// Only while nothing has failed.
    #[default]
    OnSuccess,
    /// In any case.
    Always,
    /// Only once something has failed.
    OnFail,
}

/// What a step does.
///
/// Source: <https://circleci.com/docs/reference/configuration-reference/#steps>
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StepAction {
    /// A command in a new shell.
    Run(RunStep),
    /// The same, on the first of parallel nodes only, once all have succeeded so far (the legacy `deploy` step).
    Deploy(RunStep),
    /// Brings the source.
    Checkout {
        /// Where to; `.` is the working directory.
        path: String,
        /// How much history comes along.
        method: CheckoutMethod,
    },
    /// Starts a container engine for this job.
    SetupRemoteDocker {
        /// The engine's version.
        version: Option<String>,
        /// Whether image layers are kept between jobs.
        docker_layer_caching: bool,
    },
    /// Stores files under a key, unless the key is taken.
    SaveCache {
        /// The key, a `{{ }}` template.
        key: String,
        /// Directories and files.
        paths: Vec<String>,
    },
    /// Brings the newest cache whose key starts with the first of these that matches any.
    RestoreCache {
        /// The prefixes, `{{ }}` templates, in order.
        keys: Vec<String>,
    },
    /// Adds files to the workflow's workspace.
    PersistToWorkspace {
        /// The directory to which the paths are relative.
        root: String,
        /// Glob patterns.
        paths: Vec<String>,
    },
    /// Brings the workflow's workspace.
    AttachWorkspace {
        /// Where to.
        at: String,
    },
    /// Keeps files for people.
    StoreArtifacts {
        /// A file or a directory.
        path: String,
        /// The name under which they are kept.
        destination: Option<String>,
    },
    /// Reads JUnit results.
    StoreTestResults {
        /// A file or a directory.
        path: String,
    },
    /// Adds SSH keys to the job; all of the project's when the list is empty.
    AddSshKeys {
        /// Their fingerprints.
        fingerprints: Vec<String>,
    },
    /// Installs Apple signing material (macOS).
    InstallSigningBundle {
        /// The arguments as written.
        arguments: serde_json::Value,
    },
    /// Steps that run with a cache of tools.
    WithToolCache {
        /// The steps.
        steps: Vec<Step>,
    },
}

/// How much history a checkout brings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum CheckoutMethod {
    /// All commits; files' contents as needed.
    #[default]
    Blobless,
    /// Everything.
    Full,
    /// The newest commits only.
    Shallow {
        /// How many.
        depth: u32,
    },
}

/// A command and how to run it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunStep {
    /// The script.
    pub command: String,
    /// The shell line, when it is not the job's.
    pub shell: Option<String>,
    /// Variables of this step, over the job's.
    pub environment: Vec<Variable>,
    /// The directory it starts in, relative to the job's.
    pub working_directory: Option<String>,
    /// Whether the job goes on without waiting for it.
    pub background: bool,
    /// How long it may print nothing; `None` is ten minutes.
    pub no_output_timeout: Option<Duration>,
    /// How often it is tried again by itself (1 to 5).
    pub max_auto_reruns: Option<u32>,
    /// How long to wait before that.
    pub auto_rerun_delay: Option<Duration>,
}

impl Step {
    /// The name people see: the author's, or the action's, for a command its first line.
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
    fn the_environment_gets_the_texts_that_circleci_hands_over() {
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
