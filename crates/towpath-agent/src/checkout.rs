//! `checkout`: unpacks the source that the server sends, so that images need not contain git.

use crate::{
    archive::{Under, receive},
    spool::Spool,
    step::{RunningJob, StepError},
};
use std::{fs, path::Path};
use towpath_protocol::route;

/// Unpacks the working tree with its `.git` into `written`.
pub(crate) async fn checkout(job: &RunningJob, written: &str, spool: &mut Spool) -> Result<(), StepError> {
    let path = job.surroundings.path(written);
    if is_occupied(&path) {
        return Err(StepError::Failed(format!(
            "Directory ({}) you are trying to checkout to is not empty and not a git repository",
            path.display()
        )));
    }
    fs::create_dir_all(&path)
        .map_err(|error| StepError::Failed(format!("failed to create `{}`: {error}", path.display())))?;
    spool.line(format!(
        "Checking out {} to {}",
        job.spec.cache_key_values.revision,
        path.display()
    ));
    let found = receive(&job.client, route::SOURCE, false, || Under(path.clone()), |_| {}).await?;
    found.ok_or_else(|| StepError::Errored("the server has no source for this job".to_string()))
}

fn is_occupied(path: &Path) -> bool {
    let has_entries = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
    has_entries && !path.join(".git").exists()
}
