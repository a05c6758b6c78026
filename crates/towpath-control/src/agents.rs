//! What agents ask for and tell. The server has checked the token: `job` and `node` are what it grants.

use crate::{
    Control, ControlError,
    conductor::{store_error, to_json},
    jobs::reports_stream,
    junit::{TestCase, TestOutcome},
};
use bytes::Bytes;
use futures::Stream;
use std::{io, sync::Arc, time::Duration};
use tokio::io::AsyncRead;
use towpath_protocol::{
    JobSpec, LONG_POLL, Orders, Report, SequencedReport, TestTimings, WorkspaceLayer, WorkspaceLayers,
};
use towpath_store::{Batch, StoreError, TestRow};
use towpath_types::{Digest, JobId};

/// How many of the newest files of results tell how long tests take.
const TIMED_FILES: u32 = 20;

/// What became of a piece of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogAnswer {
    /// It is kept; the log is this long now.
    Acknowledged(u64),
    /// It begins beyond the end of what is there, which is this long.
    Gap(u64),
}

impl Control {
    /// The job's specification, once its environments are whole; `None` when they were not within a long poll.
    ///
    /// # Errors
    /// `NotFound` when the job is over or unknown: the agent stops.
    pub async fn agent_job(self: &Arc<Self>, job: JobId, node: u32) -> Result<Option<JobSpec>, ControlError> {
        let running = self.awaited(job).await?;
        let mut ready = running.ready.subscribe();
        match tokio::time::timeout(LONG_POLL - Duration::from_secs(5), ready.wait_for(|ready| *ready)).await {
            Ok(Ok(_)) => {}
            _ => return Ok(None),
        }
        let record = self.record_of(job).await?;
        let prepared = self.prepare(&record, job).await?;
        if node >= prepared.nodes {
            return Err(ControlError::not_found(format!("job {job} has no node {node}")));
        }
        Ok(Some(prepared.spec(node)))
    }

    /// The job as this process looks after it. A job that is not over but not yet taken up after a start is waited for by
    /// the agent, which asks again.
    async fn awaited(self: &Arc<Self>, job: JobId) -> Result<Arc<crate::jobs::Running>, ControlError> {
        if let Some(running) = self.running.get(job) {
            return Ok(running);
        }
        let record = self.record_of(job).await?;
        let over = {
            let live = self.live(record.id).await?;
            let live = live.lock().await;
            let name = record.job(job).map(|job| job.name.clone()).unwrap_or_default();
            live.state.job(&name).is_none_or(|job| job.is_over())
        };
        if over {
            return Err(ControlError::not_found(format!("job {job} is over")));
        }
        Err(ControlError::unavailable("the job is not taken up yet"))
    }

    /// Keeps a piece of a step's log.
    ///
    /// # Errors
    /// When the storage does not work; the agent sends it again.
    pub async fn agent_log(
        &self,
        job: JobId,
        node: u32,
        step: u32,
        offset: u64,
        bytes: &[u8],
    ) -> Result<LogAnswer, ControlError> {
        match self.store.logs().append(job, node, step, offset, bytes).await {
            Ok(length) => Ok(LogAnswer::Acknowledged(length)),
            Err(StoreError::LogGap { length }) => Ok(LogAnswer::Gap(length)),
            Err(error) => Err(store_error(error)),
        }
    }

    /// Keeps a report; one that was seen before changes nothing.
    ///
    /// # Errors
    /// `Conflict` when reports are missing before this one; otherwise when the storage does not work.
    pub async fn agent_report(&self, job: JobId, node: u32, report: SequencedReport) -> Result<(), ControlError> {
        let stream = reports_stream(job, node);
        let mut batch = Batch::default();
        batch.append(stream.clone(), Some(report.sequence), vec![to_json(&report.report)?]);
        match self.store.commit(batch).await {
            Ok(_) => {}
            Err(StoreError::Conflict { actual, .. }) if actual > report.sequence => return Ok(()),
            Err(StoreError::Conflict { actual, .. }) => {
                return Err(ControlError::conflict(format!(
                    "reports {actual} to {} are missing",
                    report.sequence
                )));
            }
            Err(error) => return Err(store_error(error)),
        }
        if let (Report::JobFinished { .. }, Some(running)) = (&report.report, self.running.get(job)) {
            running.reported.notify_one();
        }
        Ok(())
    }

    /// Answers when the job is to stop, or when the long poll is over.
    ///
    /// # Errors
    /// `NotFound` when the job is over.
    pub async fn agent_orders(self: &Arc<Self>, job: JobId) -> Result<Orders, ControlError> {
        let running = self.awaited(job).await?;
        let mut cancel = running.cancel.subscribe();
        let canceled =
            tokio::time::timeout(LONG_POLL - Duration::from_secs(5), cancel.wait_for(|cancel| *cancel)).await;
        Ok(Orders {
            cancel: matches!(canceled, Ok(Ok(_))),
        })
    }

    /// The commit as a working tree.
    ///
    /// # Errors
    /// When the repository or the commit is gone.
    pub async fn agent_source(
        &self,
        job: JobId,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>, ControlError> {
        let record = self.record_of(job).await?;
        let project = self.project_name(&record.project)?;
        let origin = format!("{}/git/{}.git", self.base_url(), record.project);
        self.forge
            .source(&project, &record.commit, record.branch.as_deref(), &origin)
            .await
            .map_err(|error| ControlError::unavailable("failed to read the commit").caused_by(error))
    }

    /// Whether the project has a cache of exactly this key.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn agent_cache_exists(self: &Arc<Self>, job: JobId, key: &str) -> Result<bool, ControlError> {
        let project = self.record_of(job).await?.project.clone();
        self.store.has_cache(&project, key).await.map_err(store_error)
    }

    /// The newest cache whose key begins with `prefix`: its key, and its archive.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn agent_cache(
        self: &Arc<Self>,
        job: JobId,
        prefix: &str,
    ) -> Result<Option<(String, impl AsyncRead + Send + Unpin + use<>)>, ControlError> {
        let project = self.record_of(job).await?.project.clone();
        let Some(cache) = self.store.find_cache(&project, prefix).await.map_err(store_error)? else {
            return Ok(None);
        };
        let file = self.store.blobs().get(&cache.digest).await.map_err(store_error)?;
        Ok(Some((cache.key, file)))
    }

    /// Keeps a cache; `false` when its key was taken.
    ///
    /// # Errors
    /// When the storage does not work, or the archive broke off.
    pub async fn agent_save_cache(
        self: &Arc<Self>,
        job: JobId,
        key: &str,
        archive: impl AsyncRead + Send + Unpin,
    ) -> Result<bool, ControlError> {
        let project = self.record_of(job).await?.project.clone();
        let file = self.store.blobs().put(archive).await.map_err(store_error)?;
        self.store.save_cache(&project, key, &file).await.map_err(store_error)
    }

    /// The layers of the jobs that this job requires, in order.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn agent_workspace(self: &Arc<Self>, job: JobId) -> Result<WorkspaceLayers, ControlError> {
        let record = self.record_of(job).await?;
        let upstream = {
            let live = self.live(record.id).await?;
            let live = live.lock().await;
            let name = record.job(job).map(|job| job.name.clone()).unwrap_or_default();
            live.state.definition().ancestors(&name)
        };
        let all = self.store.workspace_layers(record.id).await.map_err(store_error)?;
        let mut layers: Vec<WorkspaceLayer> = Vec::new();
        for (name, ancestors) in &upstream {
            let Some(known) = record.named(name) else { continue };
            let own: Vec<_> = all.iter().filter(|layer| layer.job == known.id).collect();
            for layer in own {
                let follows = layers
                    .iter()
                    .filter(|earlier| {
                        ancestors.contains(&earlier.job) || (earlier.job == *name && same_node(&earlier.id, layer.node))
                    })
                    .map(|earlier| earlier.id.clone())
                    .collect();
                layers.push(WorkspaceLayer {
                    id: format!("{}.{}.{}", known.id, layer.node, layer.step),
                    job: name.clone(),
                    follows,
                });
            }
        }
        Ok(WorkspaceLayers { layers })
    }

    /// One layer's archive.
    ///
    /// # Errors
    /// `NotFound` when this job's workflow has none of that id.
    pub async fn agent_workspace_layer(
        &self,
        job: JobId,
        id: &str,
    ) -> Result<impl AsyncRead + Send + Unpin + use<>, ControlError> {
        let record = self.record_of(job).await?;
        let layers = self.store.workspace_layers(record.id).await.map_err(store_error)?;
        let digest: Digest = layers
            .into_iter()
            .find(|layer| format!("{}.{}.{}", layer.job, layer.node, layer.step) == id)
            .map(|layer| layer.digest)
            .ok_or_else(|| ControlError::not_found(format!("the workspace has no layer `{id}`")))?;
        self.store.blobs().get(&digest).await.map_err(store_error)
    }

    /// Keeps a layer of the workspace.
    ///
    /// # Errors
    /// When the storage does not work, or the archive broke off.
    pub async fn agent_persist(
        &self,
        job: JobId,
        node: u32,
        step: u32,
        archive: impl AsyncRead + Send + Unpin,
    ) -> Result<(), ControlError> {
        let record = self.record_of(job).await?;
        let file = self.store.blobs().put(archive).await.map_err(store_error)?;
        self.store
            .put_workspace_layer(record.id, job, node, step, &file)
            .await
            .map_err(store_error)
    }

    /// Keeps an artifact.
    ///
    /// # Errors
    /// `Invalid` for a path that climbs; otherwise when the storage does not work, or the file broke off.
    pub async fn agent_artifact(
        &self,
        job: JobId,
        node: u32,
        path: &str,
        bytes: impl AsyncRead + Send + Unpin,
    ) -> Result<(), ControlError> {
        check_path(path)?;
        let file = self.store.blobs().put(bytes).await.map_err(store_error)?;
        self.store
            .put_artifact(job, node, path, &file)
            .await
            .map_err(store_error)
    }

    /// Reads a file of test results.
    ///
    /// # Errors
    /// `Invalid` when it is not JUnit XML; otherwise when the storage does not work.
    pub async fn agent_test_results(&self, job: JobId, node: u32, path: &str, xml: &[u8]) -> Result<(), ControlError> {
        check_path(path)?;
        let results = crate::junit::parse(xml)
            .map_err(|error| ControlError::invalid(format!("`{path}` is not JUnit XML: {error}")))?;
        let project = self.record_of(job).await?.project.clone();
        let rows: Vec<TestRow> = results.into_iter().map(test_row).collect();
        self.store
            .put_tests(&project, job, node, path, &rows)
            .await
            .map_err(store_error)
    }

    /// How long the project's tests took before; `None` when nothing is known.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn agent_test_timings(&self, job: JobId) -> Result<Option<TestTimings>, ControlError> {
        let record = self.record_of(job).await?;
        let known = self
            .store
            .recent_tests(&record.project, TIMED_FILES)
            .await
            .map_err(store_error)?;
        if known.is_empty() {
            return Ok(None);
        }
        let mut timings = TestTimings::default();
        for test in known {
            let add = |map: &mut std::collections::BTreeMap<String, f64>, name: Option<String>| {
                if let Some(name) = name {
                    *map.entry(name).or_default() += test.seconds;
                }
            };
            add(&mut timings.by_file, test.file);
            add(&mut timings.by_class, test.classname);
            add(&mut timings.by_name, Some(test.name));
        }
        Ok(Some(timings))
    }
}

fn test_row(test: TestCase) -> TestRow {
    TestRow {
        name: test.name,
        classname: test.classname,
        file: test.file,
        seconds: test.seconds,
        result: match test.outcome {
            TestOutcome::Passed => "success",
            TestOutcome::Failed => "failure",
            TestOutcome::Skipped => "skipped",
        }
        .into(),
        message: test.message,
    }
}

fn same_node(layer: &str, node: u32) -> bool {
    layer.split('.').nth(1).is_some_and(|text| text == node.to_string())
}

fn check_path(path: &str) -> Result<(), ControlError> {
    let climbs = path
        .split('/')
        .any(|part| part.is_empty() || part == "." || part == "..");
    if climbs || path.len() > 4096 || path.contains('\0') {
        return Err(ControlError::invalid(format!(
            "`{}` is not a relative path without `.` and `..`",
            path.escape_debug()
        )));
    }
    Ok(())
}
