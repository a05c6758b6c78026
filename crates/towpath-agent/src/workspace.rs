//! `persist_to_workspace` and `attach_workspace`.

use crate::{
    archive::{Destination, Item, Target, receive, send},
    doublestar,
    spool::Spool,
    step::{RunningJob, StepError},
};
use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use towpath_protocol::{WorkspaceLayer, WorkspaceLayers, route};

/// Stores what `patterns` match below `root`.
pub(crate) async fn persist(
    job: &RunningJob,
    step: u32,
    root: &str,
    patterns: &[String],
    spool: &mut Spool,
) -> Result<(), StepError> {
    let root = job.surroundings.path(root);
    let mut items = Vec::new();
    for pattern in patterns {
        let matched = matches(&root, pattern)?;
        if matched.is_empty() {
            return Err(StepError::Failed(format!(
                "`{pattern}` matches no file in `{}`",
                root.display()
            )));
        }
        items.extend(matched);
    }
    let path = route::WORKSPACE_LAYER.replace("{layer}", &step.to_string());
    send(&job.client, &path, &items).await?;
    spool.line(format!("Persisted {} to the workspace", patterns.join(", ")));
    Ok(())
}

fn matches(root: &Path, pattern: &str) -> Result<Vec<Item>, StepError> {
    let failed = |why: String| StepError::Failed(format!("`{pattern}` is not a valid path of a workspace: {why}"));
    if Path::new(pattern)
        .components()
        .any(|part| part == std::path::Component::ParentDir)
    {
        return Err(failed("it leads out of the root".into()));
    }
    if pattern.trim_end_matches('/') == "." {
        return Ok(if root.is_dir() {
            vec![Item {
                path: root.to_path_buf(),
                name: PathBuf::new(),
            }]
        } else {
            Vec::new()
        });
    }
    // A pattern that begins with a slash is also relative to the root.
    let names =
        doublestar::matches(root, pattern.trim_start_matches('/')).map_err(|error| failed(error.to_string()))?;
    let items = names.into_iter().map(|name| Item {
        path: root.join(&name),
        name,
    });
    Ok(items.collect())
}

/// The layer that each file came from, to detect files that two unrelated jobs wrote.
type Writers = Arc<Mutex<HashMap<PathBuf, String>>>;

struct Attached {
    at: PathBuf,
    layer: WorkspaceLayer,
    writers: Writers,
}

impl Destination for Attached {
    fn target(&self, name: &Path) -> Option<Target> {
        Some((self.at.clone(), name.to_path_buf()))
    }

    fn admit(&mut self, name: &Path) -> io::Result<()> {
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = writers.get(name)
            && *writer != self.layer.id
            && !self.layer.follows.contains(writer)
        {
            return Err(io::Error::other(
                "Concurrent upstream jobs persisted the same file(s) into the workspace",
            ));
        }
        writers.insert(name.to_path_buf(), self.layer.id.clone());
        Ok(())
    }
}

/// Unpacks the layers of the jobs before this one.
pub(crate) async fn attach(job: &RunningJob, at: &str, spool: &mut Spool) -> Result<(), StepError> {
    let at = job.surroundings.path(at);
    let layers: WorkspaceLayers = job.client.get_json(route::WORKSPACE).await?.unwrap_or_default();
    if layers.layers.is_empty() {
        return Err(StepError::Failed(
            "the workspace is empty: no job that this one requires has persisted any files".to_string(),
        ));
    }
    fs::create_dir_all(&at)
        .map_err(|error| StepError::Failed(format!("failed to create `{}`: {error}", at.display())))?;
    let writers = Writers::default();
    for layer in layers.layers {
        spool.line(format!("Applying the layer of {}", layer.job));
        let path = route::WORKSPACE_LAYER.replace("{layer}", &layer.id);
        let destination = || Attached {
            at: at.clone(),
            layer: layer.clone(),
            writers: Arc::clone(&writers),
        };
        let found = receive(&job.client, &path, true, destination, |_| {}).await;
        let found = found.map_err(|error| match error {
            crate::client::ClientError::Refused { message, .. } => StepError::Failed(message),
            other => other.into(),
        })?;
        found.ok_or_else(|| StepError::Errored(format!("the workspace's layer of {} is gone", layer.job)))?;
    }
    Ok(())
}
