//! The wanted state of an environment and its progress: one document, replaced as a whole.
//!
//! [`Document`] and what is in it are a wire form, in an envelope with a version. Add fields with a default; raise the version
//! when a field changes its meaning.
//!
//! **Invariant:** when [`Store::update`] returns, the change is on the disk.
//!
//! **Invariant:** the document contains no value of a Secret. Manifests of Secrets with values are refused before anything is
//! stored.

use crate::{
    target::{EnvironmentId, Hold, JobEnd, TargetError},
    wire,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};
use towpath_manifest::{Object, ObjectId};
use towpath_types::{Outcome, ReleaseId};

const FILE: &str = "environment.json";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Document {
    pub id: EnvironmentId,
    pub namespace: String,
    pub release: Option<ReleaseId>,
    pub attempted: Option<ReleaseId>,
    /// The objects, in the order of their first application.
    pub objects: Vec<Object>,
    /// Keyed by the Deployment's name.
    pub rollouts: BTreeMap<String, Rollout>,
    /// Pod templates, keyed by [`revision_key`]. Pods of an old revision need the template that they were created from.
    pub revisions: BTreeMap<String, Value>,
    /// Keyed by the CronJob's name.
    pub crons: BTreeMap<String, CronRecord>,
    /// Keyed by the Job's name.
    pub jobs: BTreeMap<String, JobRecord>,
    /// The port on 127.0.0.1 on which the Ingress answers.
    pub port: Option<u16>,
    #[serde(default)]
    pub hold: Option<Hold>,
}

/// The progress of a Deployment from one revision to the next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rollout {
    /// The wanted revision.
    pub revision: String,
    /// Counts the applications.
    pub generation: u64,
    pub began: Timestamp,
    pub state: RolloutState,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum RolloutState {
    Progressing,
    Complete,
    Failed {
        outcome: Outcome,
        message: String,
        log: Vec<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CronRecord {
    /// When the last run that was started or given up was due. Before the first run, when the CronJob was created.
    pub last: Timestamp,
    /// What is wrong with the schedule; empty if nothing is.
    pub message: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct JobRecord {
    pub object: Object,
    /// The CronJob that started it.
    pub cron: Option<String>,
    pub began: Timestamp,
    /// The current or last attempt, counted from 0.
    pub attempt: u32,
    /// The attempt does not start before this time.
    pub not_before: Option<Timestamp>,
    pub canceled: bool,
    pub end: Option<(JobEnd, Timestamp)>,
}

impl Document {
    pub(crate) fn new(id: EnvironmentId) -> Self {
        Self {
            namespace: id.environment().to_string(),
            id,
            release: None,
            attempted: None,
            objects: Vec::new(),
            rollouts: BTreeMap::new(),
            revisions: BTreeMap::new(),
            crons: BTreeMap::new(),
            jobs: BTreeMap::new(),
            port: None,
            hold: None,
        }
    }

    pub(crate) fn object(&self, id: &ObjectId) -> Option<&Object> {
        self.objects.iter().find(|object| object.id() == *id)
    }

    pub(crate) fn named(&self, kind: &str, name: &str) -> Option<&Object> {
        self.objects
            .iter()
            .find(|object| object.kind == kind && object.name == name)
    }

    /// Adds `object`, or replaces the object of the same kind and name.
    pub(crate) fn upsert(&mut self, object: Object) {
        match self.objects.iter_mut().find(|known| known.id() == object.id()) {
            Some(known) => *known = object,
            None => self.objects.push(object),
        }
    }
}

/// The key of a Deployment's revision in [`Document::revisions`].
pub(crate) fn revision_key(deployment: &str, revision: &str) -> String {
    format!("{deployment}/{revision}")
}

/// One environment's document and its folder.
#[derive(Debug)]
pub(crate) struct Store {
    pub folder: PathBuf,
    current: RwLock<Arc<Document>>,
    writing: tokio::sync::Mutex<()>,
}

impl Store {
    /// Reads the document in `folder`; `None` if there is none.
    pub(crate) fn open(folder: &Path) -> Result<Option<Self>, TargetError> {
        let path = folder.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(TargetError::failed(format!("read `{}`", path.display()))(error)),
        };
        let document = wire::read(&text).map_err(TargetError::failed(format!("understand `{}`", path.display())))?;
        Ok(Some(Self::with(folder, document)))
    }

    /// Creates the folder with an empty document.
    pub(crate) fn create(folder: &Path, id: EnvironmentId) -> Result<Self, TargetError> {
        let document = Document::new(id);
        std::fs::create_dir_all(folder)
            .and_then(|()| write(folder, &document))
            .map_err(TargetError::failed(format!(
                "make the environment's folder `{}`",
                folder.display()
            )))?;
        Ok(Self::with(folder, document))
    }

    fn with(folder: &Path, document: Document) -> Self {
        Self {
            folder: folder.to_path_buf(),
            current: RwLock::new(Arc::new(document)),
            writing: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) fn read(&self) -> Arc<Document> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the document. Readers see the change once it is on the disk.
    pub(crate) async fn update<R>(&self, change: impl FnOnce(&mut Document) -> R) -> Result<R, TargetError> {
        let _turn = self.writing.lock().await;
        let mut document = Document::clone(&self.read());
        let result = change(&mut document);
        let folder = self.folder.clone();
        let attempted = format!("write `{}`", folder.join(FILE).display());
        let written = tokio::task::spawn_blocking(move || {
            write(&folder, &document)?;
            Ok::<_, io::Error>(document)
        })
        .await;
        let document = match written {
            Ok(Ok(document)) => document,
            Ok(Err(error)) => return Err(TargetError::failed(attempted)(error)),
            Err(error) => return Err(TargetError::failed(attempted)(error)),
        };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(document);
        Ok(result)
    }
}

fn write(folder: &Path, document: &Document) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(&wire::versioned(document))?;
    let mut file = tempfile::Builder::new().prefix(".").tempfile_in(folder)?;
    file.write_all(&text)?;
    file.as_file().sync_all()?;
    file.persist(folder.join(FILE)).map_err(|error| error.error)?;
    // The rename is durable only once the folder is synced.
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn document_v1() -> Value {
        let job = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "migrate" }, "spec": {},
        });
        json!({
            "version": 1,
            "towpath": "0.1.0",
            "record": {
                "id": { "project": "claims", "environment": "dev" },
                "namespace": "claims-dev",
                "release": null,
                "attempted": "00000000-0000-0000-0000-000000000003",
                "objects": [],
                "rollouts": {
                    "web": {
                        "revision": "r1", "generation": 2, "began": "2026-01-01T00:00:00Z",
                        "state": { "Failed": { "outcome": "failed", "message": "no", "log": ["line"] } },
                    },
                    "worker": {
                        "revision": "r1", "generation": 1, "began": "2026-01-01T00:00:00Z", "state": "Complete",
                    },
                },
                "revisions": { "web/r1": { "spec": {} } },
                "crons": { "sweep": { "last": "2026-01-01T00:00:00Z", "message": "" } },
                "jobs": {
                    "migrate": {
                        "object": Object::from_value(job, "jobs.yml").unwrap(),
                        "cron": null, "began": "2026-01-01T00:00:00Z", "attempt": 0, "not_before": null, "canceled": false,
                        "end": [{ "outcome": "succeeded", "exit_code": 0, "message": "" }, "2026-01-01T00:01:00Z"],
                    },
                },
                "port": 8080,
                "hold": null,
            },
        })
    }

    fn open(text: &str) -> Result<Option<Store>, TargetError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), text).unwrap();
        Store::open(folder.path())
    }

    #[test]
    fn version_1_is_read_for_ever() {
        let store = open(&document_v1().to_string()).unwrap().unwrap();
        let document = store.read();
        assert_eq!((document.namespace.as_str(), document.port), ("claims-dev", Some(8080)));
        assert_eq!(document.rollouts["worker"].state, RolloutState::Complete);
        assert!(document.jobs["migrate"].end.is_some());
        let written = serde_json::to_value(wire::versioned(&*document)).unwrap();
        assert_eq!(written["record"], document_v1()["record"]);
    }

    #[tokio::test]
    async fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let id = EnvironmentId::new("claims", "dev").unwrap();
        let store = Store::create(folder.path(), id.clone()).unwrap();
        store.update(|document| document.port = Some(81)).await.unwrap();
        let again = Store::open(folder.path()).unwrap().unwrap().read();
        assert_eq!((&again.id, again.port), (&id, Some(81)));
    }

    #[test]
    fn a_document_that_is_not_of_this_version_says_what_to_do() {
        let said = |text: &str| open(text).err().unwrap().chain();
        let newer = said(r#"{"version": 2, "towpath": "7.1.0", "record": {}}"#);
        assert!(
            newer.contains("environment.json") && newer.contains("use Towpath 7.1.0 or a newer one"),
            "{newer}"
        );
        let unversioned = said(&document_v1()["record"].to_string());
        assert!(
            unversioned.contains("begin with an empty data directory"),
            "{unversioned}"
        );
        let mut wrong = document_v1();
        wrong["record"]["rollouts"]["web"]["state"] = json!("Exploded");
        let wrong = said(&wrong.to_string());
        assert!(wrong.contains("Exploded"), "{wrong}");
    }
}
