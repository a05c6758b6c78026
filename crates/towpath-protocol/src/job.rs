//! What the agent is asked to run.

use serde::{Deserialize, Serialize};
use towpath_types::{JobId, SecretString};

/// One node of one job, ready to run: everything that needs knowledge of the pipeline is already decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// The job.
    pub id: JobId,
    /// This node, from 0.
    pub node_index: u32,
    /// How many nodes run the job.
    pub node_total: u32,
    /// The job's name as people know it.
    pub name: String,
    /// Where steps run, made if absent. `~` is the job's home; environment variables are not expanded.
    ///
    /// The home is not in the specification: it is the `HOME` that the agent finds in its own environment (the image's,
    /// or the private one of a job on a host), or a directory of its own making when that cannot be written to.
    /// Source: <https://circleci.com/docs/reference/configuration-reference/#jobs>
    pub working_directory: String,
    /// The program line that runs commands, when the job names one; the script's path is appended to it.
    #[serde(default)]
    pub shell: Option<String>,
    /// The environment of every step: built-in, project's, contexts' and the job's own variables, precedence already
    /// applied. It lies over the environment that the agent itself was started with (the image's).
    #[serde(default)]
    pub environment: Vec<Variable>,
    /// Values that no log may show.
    #[serde(default)]
    pub mask: Vec<SecretString>,
    /// The steps in order. A step's index is its name in logs and reports.
    pub steps: Vec<Step>,
    /// What the templates in cache keys read.
    #[serde(default)]
    pub cache_key_values: CacheKeyValues,
    /// The job's end, in seconds from when the agent received it; then it is `TimedOut`. `None`: no limit.
    #[serde(default)]
    pub time_limit_seconds: Option<u64>,
    /// How many bytes one step's log may have; what follows is cut with a line that says so. `None`: the agent's default.
    #[serde(default)]
    pub log_limit_bytes: Option<u64>,
}

/// One environment variable. The value may be a secret, so it never prints itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value, taken literally.
    pub value: SecretString,
}

/// What `{{ .Branch }}` and its like read in a cache's key. `.Environment.X` reads [`JobSpec::environment`].
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
pub struct Step {
    /// What people read.
    pub name: String,
    /// When it runs.
    #[serde(default)]
    pub when: StepWhen,
    /// What it does.
    pub action: StepAction,
}

/// After which history a step runs. `store_artifacts` and `store_test_results` come as [`StepWhen::Always`].
///
/// Source: <https://circleci.com/docs/reference/configuration-reference/#the-when-attribute>
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepWhen {
    /// While nothing has failed.
    #[default]
    OnSuccess,
    /// Whatever happened.
    Always,
    /// Once an earlier step has failed.
    OnFail,
}

/// What a step does. Paths may begin with `~` and are else relative to the job's working directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StepAction {
    /// Runs a command in a new shell.
    Run(RunStep),
    /// Unpacks the source.
    Checkout {
        /// Where to; `.` is the working directory.
        path: String,
    },
    /// Stores files under a key, unless the key is taken.
    SaveCache {
        /// Directories and files.
        paths: Vec<String>,
        /// The key's template.
        key: String,
    },
    /// Brings the newest cache whose key begins with the first key that matches any.
    RestoreCache {
        /// The keys' templates, in order.
        keys: Vec<String>,
    },
    /// Adds a layer to the workflow's workspace.
    PersistToWorkspace {
        /// What the paths are relative to.
        root: String,
        /// Glob patterns under the root.
        paths: Vec<String>,
    },
    /// Lays down the layers of the jobs before this one.
    AttachWorkspace {
        /// Where.
        at: String,
    },
    /// Keeps a file or a directory for people.
    StoreArtifacts {
        /// What.
        path: String,
        /// Under which name; `path` without one.
        #[serde(default)]
        destination: Option<String>,
    },
    /// Sends JUnit XML files.
    StoreTestResults {
        /// A file or a directory.
        path: String,
    },
}

/// A command and how to run it.
///
/// Source: <https://circleci.com/docs/reference/configuration-reference/#run>
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStep {
    /// The script.
    pub command: String,
    /// The program line in front of the script's path, when the step names one.
    #[serde(default)]
    pub shell: Option<String>,
    /// Over the job's environment.
    #[serde(default)]
    pub environment: Vec<Variable>,
    /// Relative to the job's working directory.
    #[serde(default)]
    pub working_directory: Option<String>,
    /// Whether the next step begins at once. Its exit is ignored and it is killed when the job ends.
    #[serde(default)]
    pub background: bool,
    /// How long it may be silent.
    #[serde(default = "ten_minutes")]
    pub no_output_timeout_seconds: u64,
    /// How often it is tried again after a failure.
    #[serde(default)]
    pub max_auto_reruns: u32,
    /// How long to wait before each of those.
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
    fn what_is_left_out_has_circleci_s_defaults() {
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
