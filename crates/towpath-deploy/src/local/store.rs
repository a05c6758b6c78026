//! The wanted state of an environment and its progress: one document, replaced as a whole.
//!
//! **Invariant:** when [`Store::update`] returns, the change is on the disk.
//!
//! **Invariant:** the document contains no value of a Secret. Manifests of Secrets with values are refused before anything is
//! stored.

use crate::target::{EnvironmentId, Hold, JobEnd, TargetError};
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
        let document =
            serde_json::from_slice(&text).map_err(TargetError::failed(format!("understand `{}`", path.display())))?;
        Ok(Some(Self::with(folder, document)))
    }

    /// Creates the folder with an empty document.
    pub(crate) fn create(folder: &Path, id: EnvironmentId) -> Result<Self, TargetError> {
        let document = Document::new(id);
        std::fs::create_dir_all(folder)
            .and_then(|()| write(folder, &serde_json::to_vec_pretty(&document)?))
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
            let text = serde_json::to_vec_pretty(&document)?;
            write(&folder, &text)?;
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

fn write(folder: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".").tempfile_in(folder)?;
    file.write_all(text)?;
    file.as_file().sync_all()?;
    file.persist(folder.join(FILE)).map_err(|error| error.error)?;
    // The rename is durable only once the folder is synced.
    std::fs::File::open(folder)?.sync_all()
}
