//! `save_cache` and `restore_cache`.
//!
//! The agent restores a cache to the paths it was saved from. On a host, it writes only below the job's home and working
//! directory. Each job on a host has its own home, so the agent stores paths below the home or the working directory relative
//! to those, and all other paths as absolute paths.

use crate::{
    archive::{Destination, Item, Target, receive, send},
    cache_key::key,
    client::{percent_decoded, query_value},
    spool::Spool,
    step::{RunningJob, StepError},
    surroundings::Surroundings,
};
use hyper::StatusCode;
use std::{
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use towpath_protocol::{CACHE_KEY_HEADER, route};

const WORK: &str = "work";
const HOME: &str = "home";
const ROOT: &str = "root";

/// Stores `paths` under the key that `template` evaluates to.
pub(crate) async fn save(
    job: &RunningJob,
    paths: &[String],
    template: &str,
    spool: &mut Spool,
) -> Result<(), StepError> {
    let key = key(template, &job.spec, &job.surroundings)?;
    let route = format!("{}?key={}", route::CACHES, query_value(&key));
    if job.client.head(&route).await? {
        spool.line(format!(
            "Skipping cache generation, cache already exists for key: {key}"
        ));
        return Ok(());
    }
    let mut items = Vec::new();
    for written in paths {
        let path = job.surroundings.path(written);
        if path.symlink_metadata().is_err() {
            spool.line(format!(
                "Warning: `{}` does not exist and is left out of the cache",
                path.display()
            ));
            continue;
        }
        let name = stored_name(&job.surroundings, &path);
        if job.spec.on_host && name.starts_with(ROOT) {
            return Err(StepError::Failed(format!(
                "`{}` is neither below the job's home nor below its working directory: a job on the machine itself keeps \
                 nothing else in a cache",
                path.display()
            )));
        }
        items.push(Item { name, path });
    }
    if items.is_empty() {
        spool.line("There is nothing to store.");
        return Ok(());
    }
    let status = send(&job.client, &route, &items).await?;
    spool.line(match status {
        StatusCode::CREATED => format!("Stored the cache with key: {key}"),
        _ => format!("Skipping cache generation, cache already exists for key: {key}"),
    });
    Ok(())
}

fn stored_name(surroundings: &Surroundings, path: &Path) -> PathBuf {
    let under = |base: &Path, name: &str| path.strip_prefix(base).ok().map(|rest| Path::new(name).join(rest));
    under(&surroundings.working_directory, WORK)
        .or_else(|| under(&surroundings.home, HOME))
        .unwrap_or_else(|| Path::new(ROOT).join(path.strip_prefix("/").unwrap_or(path)))
}

/// Unpacks a cache's entries to where they were saved from. On a host, absolute paths lead outside of the job, so it refuses
/// them.
struct Restored {
    surroundings: Arc<Surroundings>,
    on_host: bool,
}

impl Destination for Restored {
    fn target(&self, name: &Path) -> Option<Target> {
        let mut parts = name.components();
        let Some(Component::Normal(first)) = parts.next() else {
            return None;
        };
        let base = match first.to_str()? {
            WORK => self.surroundings.working_directory.clone(),
            HOME => self.surroundings.home.clone(),
            ROOT if !self.on_host => PathBuf::from("/"),
            _ => return None,
        };
        Some((base, parts.as_path().to_path_buf()))
    }
}

/// Restores the newest cache whose key begins with the first of `templates` that matches any cache.
pub(crate) async fn restore(job: &RunningJob, templates: &[String], spool: &mut Spool) -> Result<(), StepError> {
    for template in templates {
        let prefix = key(template, &job.spec, &job.surroundings)?;
        let route = format!("{}?prefix={}", route::CACHES, query_value(&prefix));
        let found = Arc::new(Mutex::new(String::new()));
        let noted = Arc::clone(&found);
        let surroundings = Arc::clone(&job.surroundings);
        let answer = receive(
            &job.client,
            &route,
            true,
            || Restored {
                surroundings: Arc::clone(&surroundings),
                on_host: job.spec.on_host,
            },
            |response| {
                let header = response
                    .headers()
                    .get(CACHE_KEY_HEADER)
                    .and_then(|value| value.to_str().ok())
                    .unwrap_or_default();
                *noted.lock().unwrap_or_else(PoisonError::into_inner) = percent_decoded(header);
            },
        )
        .await?;
        if answer.is_some() {
            let key = found.lock().unwrap_or_else(PoisonError::into_inner).clone();
            spool.line(format!("Found a cache with key: {key}"));
            return Ok(());
        }
        spool.line(format!("No cache is found for key: {prefix}"));
    }
    Ok(())
}
