//! The stored form of a job: fixed when its pipeline is made, without secrets.
//!
//! This is a wire form. Raise its version when a field changes its meaning; add fields with a default.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use towpath_delivery::DeliveryError;

/// The version to write.
const VERSION: u32 = 1;

/// A job's work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredJob {
    /// Where its steps run.
    pub executor: StoredExecutor,
    /// `parallelism`, at least 1.
    pub nodes: u32,
    #[serde(default)]
    pub resource_class: Option<String>,
    pub working_directory: String,
    #[serde(default)]
    pub shell: Option<String>,
    /// The job's own variables; they override its contexts.
    #[serde(default)]
    pub environment: Vec<(String, String)>,
    /// The contexts in order; a later one overrides an earlier one.
    #[serde(default)]
    pub contexts: Vec<String>,
    pub steps: Vec<towpath_protocol::Step>,
    /// The environment that its steps name in `towpath deploy`.
    #[serde(default)]
    pub deploys_to: Option<String>,
}

/// Where a job's steps run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum StoredExecutor {
    /// In the first container; the others are services.
    Docker { images: Vec<StoredImage> },
    /// As processes of the host.
    Host,
}

/// One container of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredImage {
    /// The reference as written; may name variables.
    pub image: String,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub entrypoint: Option<Vec<String>>,
    #[serde(default)]
    pub command: Option<Vec<String>>,
    #[serde(default)]
    pub user: Option<String>,
    #[serde(default)]
    pub environment: Vec<(String, String)>,
    /// User name and password as written, usually as references to variables.
    #[serde(default)]
    pub auth: Option<(String, String)>,
    /// The place in the configuration: `.circleci/config.yml:12:9`.
    pub place: String,
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    version: u32,
    job: T,
}

impl StoredJob {
    /// Writes the wire form.
    pub(crate) fn write(&self) -> Value {
        serde_json::json!({ "version": VERSION, "job": self })
    }

    /// Reads what `write` wrote, in this or an earlier version.
    ///
    /// # Errors
    /// `Internal` when it is damaged, or written by a newer Towpath.
    pub(crate) fn read(value: &Value) -> Result<Self, DeliveryError> {
        let damaged = || DeliveryError::internal("what is stored of a job cannot be read");
        let version = value.get("version").and_then(Value::as_u64);
        if version.is_some_and(|version| version > u64::from(VERSION)) {
            return Err(DeliveryError::internal(
                "a newer Towpath stored what this job does: use that one",
            ));
        }
        let envelope: Envelope<Self> = Envelope::deserialize(value).map_err(|error| damaged().caused_by(error))?;
        Ok(envelope.job)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use towpath_protocol::{RunStep, Step, StepAction, StepWhen};

    #[test]
    fn version_1_is_read_for_ever() {
        let stored = serde_json::json!({
            "version": 1,
            "job": {
                "executor": { "type": "docker", "images": [{ "image": "$REGISTRY/app:1", "place": "config.yml:3:5" }] },
                "nodes": 2,
                "working_directory": "~/project",
                "environment": [["A", "1"]],
                "contexts": ["deploy"],
                "steps": [{ "name": "test", "when": "always", "action": { "type": "run", "command": "make test" } }],
                "deploys_to": "dev"
            }
        });
        let job = StoredJob::read(&stored).unwrap();
        let step = Step {
            name: "test".into(),
            when: StepWhen::Always,
            action: StepAction::Run(RunStep {
                command: "make test".into(),
                ..RunStep::default()
            }),
        };
        assert_eq!(job.steps, [step]);
        assert_eq!((job.nodes, job.deploys_to.as_deref()), (2, Some("dev")));
        let StoredExecutor::Docker { images } = &job.executor else {
            panic!("{job:?}")
        };
        assert_eq!(images[0].image, "$REGISTRY/app:1");
        assert_eq!(StoredJob::read(&job.write()).unwrap(), job);
    }

    #[test]
    fn a_newer_version_is_not_guessed_at() {
        let error = StoredJob::read(&serde_json::json!({ "version": 2, "job": {} })).unwrap_err();
        assert!(error.to_string().contains("newer Towpath"), "{error}");
        assert!(StoredJob::read(&serde_json::json!({ "version": 1 })).is_err());
    }
}
