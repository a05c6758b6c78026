//! What the agent has to run.

use serde::{Deserialize, Serialize};
use towpath_types::{JobId, SecretString};

/// One node of one job, ready to run. Everything that needs knowledge of the pipeline has been decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct JobSpec {
    pub id: JobId,
    /// From 0.
    pub node_index: u32,
    /// The number of nodes that run the job.
    pub node_total: u32,
    /// The job's name, for people.
    pub name: String,
    /// Where steps run; created if it is missing. `~` is the job's home. Environment variables are not expanded.
    ///
    /// The home is not part of the specification. It is the `HOME` in the agent's own environment (the image's, or the private
    /// one of a job on a host), or a directory that the agent creates if it cannot write to that one.
    /// Source: <https://circleci.com/docs/reference/configuration-reference/#jobs>
    pub working_directory: String,
    /// The command that runs scripts, if the job sets one. The script's path is appended to it.
    #[serde(default)]
    pub shell: Option<String>,
    /// The environment of every step: the built-in variables and those of the project, the contexts and the job, with their
    /// precedence applied. They override the environment in which the agent was started (the image's).
    #[serde(default)]
    pub environment: Vec<Variable>,
    /// Values that no log may show.
    #[serde(default)]
    pub mask: Vec<SecretString>,
    /// In order. Logs and reports name a step by its index.
    pub steps: Vec<Step>,
    /// Where the addresses of this server's repositories begin: `http://127.0.0.1:7070/git/`. The agent lets git in the job's steps
    /// reach these through its socket, because the address may lead elsewhere inside of a container.
    #[serde(default)]
    pub repositories: Option<String>,
    /// The values for templates in cache keys.
    #[serde(default)]
    pub cache_key_values: CacheKeyValues,
    /// After this many seconds from when the agent got it, the job is `TimedOut`. `None`: no limit.
    #[serde(default)]
    pub time_limit_seconds: Option<u64>,
    /// The most bytes that one step's log may have. The rest is cut off, with a line that says so. `None`: the agent's default.
    #[serde(default)]
    pub log_limit_bytes: Option<u64>,
    /// Whether it runs on the server's own machine. What is unpacked there stays below the job's home and working directory.
    #[serde(default)]
    pub on_host: bool,
    /// What steps get as [`variable::JOB_TOKEN`](crate::variable::JOB_TOKEN); `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_token: Option<SecretString>,
}

/// One environment variable. The value may be a secret, so it never prints itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Variable {
    pub name: String,
    /// Taken literally: nothing in it is expanded.
    pub value: SecretString,
}

/// The values of `{{ .Branch }}` and similar templates in a cache's key. `.Environment.X` reads [`JobSpec::environment`].
///
/// Source: <https://circleci.com/docs/guides/optimize/caching/#using-keys-and-templates>
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheKeyValues {
    /// `.Branch`; empty on a tag.
    pub branch: String,
    /// `.BuildNum`.
    pub build_number: String,
    /// `.Revision`: the commit.
    pub revision: String,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Step {
    /// For people.
    pub name: String,
    #[serde(default)]
    pub when: StepWhen,
    pub action: StepAction,
}

/// Whether a step runs after the steps before it. For `store_artifacts` and `store_test_results` it is [`StepWhen::Always`].
///
/// Source: <https://circleci.com/docs/reference/configuration-reference/#the-when-attribute>
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepWhen {
    /// If no step has failed.
    #[default]
    OnSuccess,
    /// In any case.
    Always,
    /// If a step has failed.
    OnFail,
}

/// What a step does. Paths may begin with `~`; others are relative to the job's working directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StepAction {
    /// Runs a command in a new shell.
    Run(RunStep),
    /// Unpacks the source.
    Checkout {
        /// The destination; `.` is the working directory.
        path: String,
    },
    /// Stores files under a key, unless the key is taken.
    SaveCache {
        /// Directories and files.
        paths: Vec<String>,
        /// A template.
        key: String,
    },
    /// Restores the newest cache whose key begins with the first of `keys` that matches any cache.
    RestoreCache {
        /// Templates, in order.
        keys: Vec<String>,
    },
    /// Adds a layer to the workflow's workspace.
    PersistToWorkspace {
        /// The directory that the paths are relative to.
        root: String,
        /// Glob patterns.
        paths: Vec<String>,
    },
    /// Unpacks the layers of the jobs before this one.
    AttachWorkspace {
        /// The destination.
        at: String,
    },
    /// Uploads files for people.
    StoreArtifacts {
        /// A file or a directory.
        path: String,
        /// The artifacts' name; `path` if `None`.
        #[serde(default)]
        destination: Option<String>,
    },
    /// Uploads JUnit XML files.
    StoreTestResults {
        /// A file or a directory.
        path: String,
    },
}

/// A command and how to run it.
///
/// Source: <https://circleci.com/docs/reference/configuration-reference/#run>
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct RunStep {
    /// A script.
    pub command: String,
    /// Overrides [`JobSpec::shell`].
    #[serde(default)]
    pub shell: Option<String>,
    /// Overrides the job's environment.
    #[serde(default)]
    pub environment: Vec<Variable>,
    /// Relative to the job's working directory.
    #[serde(default)]
    pub working_directory: Option<String>,
    /// Whether the next step starts at once. How this one ends does not matter, and it is killed when the job ends.
    #[serde(default)]
    pub background: bool,
    /// How long the step may print nothing.
    #[serde(default = "ten_minutes")]
    pub no_output_timeout_seconds: u64,
    /// How often the step is run again after a failure.
    #[serde(default)]
    pub max_auto_reruns: u32,
    /// The pause before each of those runs.
    #[serde(default)]
    pub auto_rerun_delay_seconds: u64,
}

fn ten_minutes() -> u64 {
    600
}

impl Default for RunStep {
    /// An empty command with CircleCI's defaults.
    fn default() -> Self {
        Self {
            command: String::new(),
            shell: None,
            environment: Vec::new(),
            working_directory: None,
            background: false,
            no_output_timeout_seconds: ten_minutes(),
            max_auto_reruns: 0,
            auto_rerun_delay_seconds: 0,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn missing_fields_have_circlecis_defaults() {
        let job: JobSpec = serde_json::from_str(
            r#"{"id":"00000000-0000-0000-0000-000000000001","node_index":0,"node_total":1,"name":"test",
                "working_directory":"~/project","steps":[
                {"name":"ls","action":{"type":"run","command":"ls"}},
                {"name":"Checkout code","action":{"type":"checkout","path":"."}},
                {"name":"Upload","when":"always","action":{"type":"store_artifacts","path":"out"}}]}"#,
        )
        .unwrap();
        let StepAction::Run(run) = &job.steps[0].action else {
            panic!("{:?}", job.steps[0])
        };
        assert_eq!(
            run,
            &RunStep {
                command: "ls".into(),
                ..RunStep::default()
            }
        );
        assert_eq!(run.no_output_timeout_seconds, 600);
        assert_eq!(job.steps[0].when, StepWhen::OnSuccess);
        assert_eq!(job.steps[2].when, StepWhen::Always);
        let again: JobSpec = serde_json::from_str(&serde_json::to_string(&job).unwrap()).unwrap();
        assert_eq!(again, job);
    }

    #[test]
    fn no_value_of_a_variable_prints_itself() {
        let variable = Variable {
            name: "TOKEN".into(),
            value: SecretString::new("hunter2".into()),
        };
        assert!(!format!("{variable:?}").contains("hunter2"));
    }
}
