//! What agents ask for and report. The server has checked the token: it grants access to `node`.

use crate::{
    conductor::Conductor,
    job::{
        junit::{self, TestCase, TestOutcome},
        prepare::{Addresses, Preparation},
        supervise::{Attendance, Attended},
    },
    standing::Standing,
    storage::store_error,
    tokens::{Grant, Identity},
    trust::TrustDomain,
};
use bytes::Bytes;
use futures::stream::BoxStream;
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use towpath_delivery::DeliveryError;
use towpath_forge::{Forge, ForgeError};
use towpath_protocol::{
    JobSpec, LONG_POLL, Orders, Report, SequencedReport, TestTimings, WorkspaceLayer, WorkspaceLayers,
};
use towpath_store::{
    Artifact, BlobReader, Cache, Commit, Expect, JobRow, LogId, NodeRow, Objects, StepRow, Store, StoreError, TestRow,
    Topic, Write,
};
use towpath_types::{Digest, JobId, Mask, NodeId, StepStatus, TestResult};

/// The number of newest result files that test timings are computed from.
const TIMED_FILES: u32 = 20;
/// The most masks to cache for jobs that other servers supervise.
const MOST_MASKS: usize = 64;
/// How long a long poll stays open. The agent gives up a little later.
const HELD: Duration = Duration::from_secs(LONG_POLL.as_secs() - 5);

/// The result of storing a piece of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogAnswer {
    /// The piece is stored; the log now has this length.
    Acknowledged(u64),
    /// The piece begins past the end of the log, which has this length.
    Gap(u64),
}

/// What serves agents' requests. Clones share everything.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct AgentDoor {
    pub store: Arc<dyn Store>,
    pub objects: Arc<dyn Objects>,
    pub forge: Arc<dyn Forge>,
    pub conductor: Conductor,
    pub attendance: Attendance,
    pub preparation: Preparation,
    pub masks: Masks,
    pub addresses: Addresses,
    pub identity: Arc<dyn Identity>,
}

/// Masks of jobs that other servers supervise, cached so that they are not rebuilt for each piece of a log.
#[derive(Clone, Default)]
pub struct Masks(Arc<Mutex<VecDeque<(NodeId, Mask)>>>);

impl Masks {
    fn get(&self, node: NodeId) -> Option<Mask> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|(of, _)| *of == node).map(|(_, mask)| mask.clone())
    }

    fn keep(&self, node: NodeId, mask: Mask) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.truncate(MOST_MASKS - 1);
        known.push_front((node, mask));
    }
}

impl AgentDoor {
    /// What the credentials of a node allow now.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn standing(&self, node: NodeId) -> Result<Standing, DeliveryError> {
        Standing::of(self.store.as_ref(), node).await
    }

    /// The job's specification, once its environments are ready; `None` when they were not ready within a long poll.
    ///
    /// # Errors
    /// `NotFound` when the attempt is over or unknown: the agent stops.
    pub async fn job(&self, node: NodeId) -> Result<Option<JobSpec>, DeliveryError> {
        let attended = self.attended(node).await?;
        let mut ready = attended.ready.subscribe();
        let prepared = match tokio::time::timeout(HELD, ready.wait_for(Option::is_some)).await {
            Ok(Ok(prepared)) => prepared.clone(),
            Ok(Err(_)) | Err(_) => None,
        };
        let Some(prepared) = prepared else { return Ok(None) };
        if node.node >= prepared.nodes {
            return Err(DeliveryError::not_found(format!(
                "job {} has no node {}",
                node.job, node.node
            )));
        }
        let step_token = self.identity.issue(&Grant::Step(node));
        Ok(Some(prepared.spec(node.node, step_token)))
    }

    /// Answers when the attempt is to stop, or when the long poll is over.
    ///
    /// # Errors
    /// `NotFound` when the attempt is over.
    pub async fn orders(&self, node: NodeId) -> Result<Orders, DeliveryError> {
        let attended = self.attended(node).await?;
        let mut stop = attended.stop.subscribe();
        let stopped = tokio::time::timeout(HELD, stop.wait_for(|stop| *stop)).await;
        Ok(Orders {
            cancel: matches!(stopped, Ok(Ok(_))),
        })
    }

    /// The attempt that this process supervises. After a restart, an unfinished attempt may not have a supervisor yet:
    /// the agent waits and asks again.
    async fn attended(&self, node: NodeId) -> Result<Arc<Attended>, DeliveryError> {
        if let Some(attended) = self.attendance.get(node.job).filter(|one| one.attempt == node.attempt) {
            return Ok(attended);
        }
        let row = self.row(node.job).await?;
        if row.attempt != node.attempt || row.status.outcome().is_some() {
            return Err(DeliveryError::not_found(format!(
                "attempt {} of job {} is over",
                node.attempt, node.job
            )));
        }
        Err(DeliveryError::unavailable("the job is not taken up yet"))
    }

    /// Hides the secrets of the attempt's job. The server masks everything that agents send once more, so that an agent
    /// that does not mask cannot store a secret.
    ///
    /// The server that an agent talks to need not be the one that supervises the job.
    async fn mask(&self, node: NodeId) -> Result<Mask, DeliveryError> {
        let attended = self.attendance.get(node.job).filter(|one| one.attempt == node.attempt);
        if let Some(mask) = attended.and_then(|attended| attended.mask.get().cloned()) {
            return Ok(mask);
        }
        if let Some(mask) = self.masks.get(node) {
            return Ok(mask);
        }
        let mask = self.preparation.mask(&self.row(node.job).await?).await?;
        self.masks.keep(node, mask.clone());
        Ok(mask)
    }

    async fn row(&self, job: JobId) -> Result<JobRow, DeliveryError> {
        let row = self.store.job(job).await.map_err(store_error)?;
        row.ok_or_else(|| DeliveryError::not_found(format!("there is no job {job}")))
    }

    /// Stores a piece of a step's log. Holds back an end that may be the start of a secret, unless the piece is the
    /// `last` one.
    ///
    /// # Errors
    /// When the storage does not work; the agent sends it again.
    pub async fn log(
        &self,
        node: NodeId,
        step: u32,
        offset: u64,
        bytes: &[u8],
        last: bool,
    ) -> Result<LogAnswer, DeliveryError> {
        let bytes = Bytes::from(self.mask(node).await?.in_place(bytes, last));
        let log = LogId::Step {
            job: node.job,
            attempt: node.attempt,
            node: node.node,
            step,
        };
        match self.objects.append_log(log, offset, bytes).await {
            Ok(length) => {
                self.store.announce(&[Topic::JobLogs(node.job)]);
                Ok(LogAnswer::Acknowledged(length))
            }
            Err(StoreError::LogGap { length }) => Ok(LogAnswer::Gap(length)),
            Err(error) => Err(store_error(error)),
        }
    }

    /// Stores a report. A report that is already stored changes nothing.
    ///
    /// # Errors
    /// `Conflict` when reports are missing before this one; `NotFound` after the node's last one; otherwise when the
    /// storage does not work.
    pub async fn report(&self, node: NodeId, report: SequencedReport) -> Result<(), DeliveryError> {
        loop {
            let nodes = self.store.nodes(node.job, node.attempt).await.map_err(store_error)?;
            let known = nodes.into_iter().find(|row| row.node == node.node);
            let taken = known.as_ref().map_or(0, |row| row.reports);
            if taken > report.sequence {
                return Ok(());
            }
            if known.as_ref().is_some_and(|row| row.outcome.is_some()) {
                return Err(DeliveryError::not_found(format!("node {node} has reported its end")));
            }
            if taken < report.sequence {
                return Err(DeliveryError::conflict(format!(
                    "reports {taken} to {} are missing",
                    report.sequence
                )));
            }
            let steps = self.store.steps(node.job, node.attempt).await.map_err(store_error)?;
            let own: Vec<StepRow> = steps.into_iter().filter(|row| row.node == node.node).collect();
            let masked = masked_report(report.report.clone(), &self.mask(node).await?);
            let (row, steps) = taken_report(node, known.as_ref(), &own, &masked);
            let expect = match taken {
                0 => Expect::Absent,
                taken => Expect::Version(taken),
            };
            let mut commit = Commit::new().with(Write::Node(row, expect));
            for step in steps {
                commit.write(Write::Step(step));
            }
            match self.store.commit(commit).await {
                Ok(_) => return Ok(()),
                // The same report arrived twice at once: load again.
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(store_error(error)),
            }
        }
    }

    /// The commit as a working tree.
    ///
    /// # Errors
    /// When the repository or the commit is gone.
    pub async fn source(&self, node: NodeId) -> Result<BoxStream<'static, io::Result<Bytes>>, DeliveryError> {
        let row = self.row(node.job).await?;
        let workflow = self.store.workflow(row.workflow).await.map_err(store_error)?;
        let workflow = workflow.ok_or_else(|| DeliveryError::internal("a job's workflow was lost"))?;
        let origin = format!("{}/git/{}.git", self.addresses.base_url, row.project);
        self.forge
            .source(&row.project, &workflow.commit, workflow.branch.as_deref(), &origin)
            .await
            .map_err(|error| match error {
                // A full disk may have room again, and git may be installed again. What git refuses, it refuses again.
                ForgeError::Io { .. } => DeliveryError::unavailable("failed to read the commit").caused_by(error),
                ForgeError::Git { .. }
                | ForgeError::UnknownProject(_)
                | ForgeError::NotFound { .. }
                | ForgeError::TooLarge { .. }
                | ForgeError::Unread { .. } => {
                    DeliveryError::invalid(format!("failed to check the commit out: {error}"))
                }
            })
    }

    /// Whether a job with the same trust domain saved a cache under exactly this key.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn cache_exists(&self, node: NodeId, key: &str) -> Result<bool, DeliveryError> {
        let row = self.row(node.job).await?;
        let domain = TrustDomain::of(self.store.as_ref(), &row).await?;
        let known = self.store.has_cache(&row.project, domain.name(), key).await;
        known.map_err(store_error)
    }

    /// The newest cache that this job may restore whose key begins with `prefix`: its key and its archive.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn cache(&self, node: NodeId, prefix: &str) -> Result<Option<(String, BlobReader)>, DeliveryError> {
        let row = self.row(node.job).await?;
        for domain in TrustDomain::of(self.store.as_ref(), &row).await?.restores() {
            let found = self.store.find_cache(&row.project, domain.name(), prefix).await;
            if let Some(cache) = found.map_err(store_error)? {
                let file = self.objects.blob(&cache.digest).await.map_err(store_error)?;
                return Ok(Some((cache.key, file)));
            }
        }
        Ok(None)
    }

    /// Stores a cache; `false` when its key is taken.
    ///
    /// # Errors
    /// When the storage does not work, or the archive broke off.
    pub async fn save_cache(&self, node: NodeId, key: &str, archive: BlobReader) -> Result<bool, DeliveryError> {
        let row = self.row(node.job).await?;
        let domain = TrustDomain::of(self.store.as_ref(), &row).await?;
        let blob = self.objects.put_blob(archive).await.map_err(store_error)?;
        let cache = Cache {
            project: row.project,
            domain: domain.name().into(),
            key: key.to_string(),
            digest: blob.digest,
            bytes: blob.bytes,
        };
        let committed = self.store.commit(Commit::new().with(Write::Cache(cache))).await;
        Ok(committed
            .map_err(store_error)?
            .caches_saved
            .first()
            .copied()
            .unwrap_or_default())
    }

    /// The layers of the jobs that this job requires, in order.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn workspace(&self, node: NodeId) -> Result<WorkspaceLayers, DeliveryError> {
        let row = self.row(node.job).await?;
        let loaded = self.conductor.load(row.workflow).await?;
        let upstream = loaded.state.definition().ancestors(&row.name);
        let all = self.store.workspace_layers(row.workflow).await.map_err(store_error)?;
        let mut layers: Vec<WorkspaceLayer> = Vec::new();
        for (name, ancestors) in &upstream {
            let Some(known) = loaded.jobs.get(name) else {
                return Err(DeliveryError::internal(format!("the row of job `{name}` was lost")));
            };
            for layer in all
                .iter()
                .filter(|layer| layer.job == known.id && layer.attempt == known.attempt)
            {
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
    pub async fn workspace_layer(&self, node: NodeId, id: &str) -> Result<BlobReader, DeliveryError> {
        let row = self.row(node.job).await?;
        let layers = self.store.workspace_layers(row.workflow).await.map_err(store_error)?;
        let found = layers
            .into_iter()
            .rev()
            .find(|layer| format!("{}.{}.{}", layer.job, layer.node, layer.step) == id);
        let found = found.ok_or_else(|| DeliveryError::not_found(format!("the workspace has no layer `{id}`")))?;
        self.objects.blob(&found.digest).await.map_err(store_error)
    }

    /// Stores a layer of the workspace.
    ///
    /// # Errors
    /// When the storage does not work, or the archive broke off.
    pub async fn persist(&self, node: NodeId, step: u32, archive: BlobReader) -> Result<(), DeliveryError> {
        let row = self.row(node.job).await?;
        let blob = self.objects.put_blob(archive).await.map_err(store_error)?;
        let layer = towpath_store::WorkspaceLayer {
            workflow: row.workflow,
            job: node.job,
            attempt: node.attempt,
            node: node.node,
            step,
            digest: blob.digest,
            bytes: blob.bytes,
        };
        self.keep(Write::WorkspaceLayer(layer)).await
    }

    /// Stores an artifact.
    ///
    /// # Errors
    /// `Invalid` for a path that climbs; otherwise when the storage does not work, or the file broke off.
    pub async fn artifact(&self, node: NodeId, path: &str, bytes: BlobReader) -> Result<(), DeliveryError> {
        check_path(path)?;
        let mask = self.mask(node).await?;
        let project = self.row(node.job).await?.project;
        let blob = self.objects.put_blob(bytes).await.map_err(store_error)?;
        let artifact = Artifact {
            job: node.job,
            attempt: node.attempt,
            node: node.node,
            path: self.shown_path(node, path, &mask, &blob.digest).await?,
            digest: blob.digest,
            bytes: blob.bytes,
        };
        self.keep(Write::Artifact(project, artifact)).await
    }

    /// An artifact's path with secrets masked. Two paths that differ only in secrets get different names.
    async fn shown_path(
        &self,
        node: NodeId,
        path: &str,
        mask: &Mask,
        content: &Digest,
    ) -> Result<String, DeliveryError> {
        let shown = mask.text(path);
        if shown == path {
            return Ok(shown);
        }
        let known = self
            .store
            .artifacts(node.job, node.attempt)
            .await
            .map_err(store_error)?;
        let is_free = |name: &str| {
            let mut of_that_name = known.iter().filter(|one| one.node == node.node && one.path == name);
            of_that_name.all(|one| one.digest == *content)
        };
        let numbered = (2..).map(|number| format!("{shown}.{number}"));
        Ok(std::iter::once(shown.clone())
            .chain(numbered)
            .find(|name| is_free(name))
            .unwrap_or(shown))
    }

    /// Reads a file of test results. Returns notes for the step's log about how the file was read.
    ///
    /// # Errors
    /// `Invalid` when it is not JUnit XML; otherwise when the storage does not work.
    pub async fn test_results(&self, node: NodeId, path: &str, xml: &[u8]) -> Result<Vec<String>, DeliveryError> {
        check_path(path)?;
        let mask = self.mask(node).await?;
        let path = mask.text(path);
        let results = junit::parse(xml, &mask)
            .map_err(|error| DeliveryError::invalid(format!("`{path}` is not JUnit XML: {}", mask.text(&error))))?;
        let project = self.row(node.job).await?.project;
        let notes = results.notes.iter().map(|note| format!("`{path}`: {note}")).collect();
        self.keep(Write::Tests {
            project,
            job: node.job,
            attempt: node.attempt,
            node: node.node,
            path,
            tests: results.tests.into_iter().map(test_row).collect(),
        })
        .await?;
        Ok(notes)
    }

    /// How long the project's tests took before; `None` when nothing is known.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn test_timings(&self, node: NodeId) -> Result<Option<TestTimings>, DeliveryError> {
        let project = self.row(node.job).await?.project;
        let known = self
            .store
            .recent_tests(&project, TIMED_FILES)
            .await
            .map_err(store_error)?;
        if known.is_empty() {
            return Ok(None);
        }
        let mut timings = TestTimings::default();
        for test in known {
            let add = |map: &mut BTreeMap<String, f64>, name: Option<String>| {
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

    async fn keep(&self, write: Write) -> Result<(), DeliveryError> {
        self.store
            .commit(Commit::new().with(write))
            .await
            .map(drop)
            .map_err(store_error)
    }
}

fn masked_report(report: Report, mask: &Mask) -> Report {
    let text = |text: Option<String>| text.map(|text| mask.text(&text));
    match report {
        Report::StepStarted {
            step,
            name,
            command,
            at,
        } => Report::StepStarted {
            step,
            name: mask.text(&name),
            command: text(command),
            at,
        },
        Report::StepFinished {
            step,
            exit_code,
            outcome,
            message,
            at,
        } => Report::StepFinished {
            step,
            exit_code,
            outcome,
            message: text(message),
            at,
        },
        Report::JobFinished { outcome, message, at } => Report::JobFinished {
            outcome,
            message: text(message),
            at,
        },
    }
}

/// The node's row after a report, and the steps that the report changes. Pure.
fn taken_report(node: NodeId, known: Option<&NodeRow>, own: &[StepRow], report: &Report) -> (NodeRow, Vec<StepRow>) {
    let mut row = known.cloned().unwrap_or(NodeRow {
        job: node.job,
        attempt: node.attempt,
        node: node.node,
        reports: 0,
        outcome: None,
        message: None,
        stopped_at: None,
    });
    row.reports += 1;
    let mut changed = Vec::new();
    match report {
        Report::StepStarted { step, name, at, .. } => changed.push(StepRow {
            job: node.job,
            attempt: node.attempt,
            node: node.node,
            step: *step,
            name: name.clone(),
            status: StepStatus::Running,
            exit_code: None,
            message: None,
            started_at: *at,
            stopped_at: None,
        }),
        Report::StepFinished {
            step,
            exit_code,
            outcome,
            message,
            at,
        } => {
            // The protocol reports a step's beginning before its end.
            if let Some(known) = own.iter().find(|known| known.step == *step) {
                changed.push(StepRow {
                    status: StepStatus::Ended(*outcome),
                    exit_code: *exit_code,
                    message: message.clone(),
                    stopped_at: Some(*at),
                    ..known.clone()
                });
            }
        }
        Report::JobFinished { outcome, message, at } => {
            // No later report tells how background steps end.
            for known in own.iter().filter(|known| known.stopped_at.is_none()) {
                changed.push(StepRow {
                    status: StepStatus::Ended(*outcome),
                    stopped_at: Some(*at),
                    ..known.clone()
                });
            }
            row.outcome = Some(*outcome);
            row.message.clone_from(message);
            row.stopped_at = Some(*at);
        }
    }
    (row, changed)
}

fn test_row(test: TestCase) -> TestRow {
    TestRow {
        name: test.name,
        classname: test.classname,
        file: test.file,
        seconds: test.seconds,
        result: match test.outcome {
            TestOutcome::Passed => TestResult::Success,
            TestOutcome::Failed => TestResult::Failure,
            TestOutcome::Skipped => TestResult::Skipped,
        },
        message: test.message,
    }
}

fn same_node(layer: &str, node: u32) -> bool {
    layer.split('.').nth(1).is_some_and(|text| text == node.to_string())
}

fn check_path(path: &str) -> Result<(), DeliveryError> {
    let climbs = path
        .split('/')
        .any(|part| part.is_empty() || part == "." || part == "..");
    if climbs || path.len() > 4096 || path.contains('\0') {
        return Err(DeliveryError::invalid(format!(
            "`{}` is not a relative path without `.` and `..`",
            path.escape_debug()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use towpath_types::Outcome;

    fn fold(reports: &[Report]) -> (NodeRow, Vec<StepRow>) {
        let node = NodeId {
            job: JobId::from_u128(1),
            attempt: 1,
            node: 0,
        };
        let (mut row, mut steps): (Option<NodeRow>, Vec<StepRow>) = (None, Vec::new());
        for report in reports {
            let (next, changed) = taken_report(node, row.as_ref(), &steps, report);
            row = Some(next);
            for step in changed {
                steps.retain(|known| known.step != step.step);
                steps.push(step);
            }
        }
        steps.sort_by_key(|step| step.step);
        (row.unwrap_or_else(|| panic!("no report")), steps)
    }

    #[test]
    fn reports_become_steps_with_ends() {
        let at = Timestamp::UNIX_EPOCH;
        let started = |step| Report::StepStarted {
            step,
            name: format!("step {step}"),
            command: None,
            at,
        };
        let finished = |step, outcome| Report::StepFinished {
            step,
            exit_code: Some(1),
            outcome,
            message: None,
            at,
        };
        let (row, steps) = fold(&[
            started(0),
            finished(0, Outcome::Succeeded),
            started(2),
            Report::JobFinished {
                outcome: Outcome::Canceled,
                message: Some("canceled".into()),
                at,
            },
        ]);
        let statuses: Vec<StepStatus> = steps.iter().map(|step| step.status).collect();
        assert_eq!(
            statuses,
            [
                StepStatus::Ended(Outcome::Succeeded),
                StepStatus::Ended(Outcome::Canceled)
            ]
        );
        assert_eq!((row.reports, row.outcome), (4, Some(Outcome::Canceled)));
        assert_eq!(steps[0].exit_code, Some(1));
    }

    #[test]
    fn paths_that_climb_are_refused() {
        for bad in ["", "/a", "a/", "../a", "a/../b", "./a", "a\0b"] {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
        assert!(check_path("coverage/index.html").is_ok());
    }
}
