//! The contract of a target, implemented on a cluster.

use super::{
    apply::{Applier, failure},
    cron::{self, manual_run},
    drift,
    error::failed_to,
    fingerprint::{self, fingerprint},
    helm, history,
    job::{Started, Starter, Watcher, find_run},
    logs,
    memory::{CheckedPlan, Memory},
    options::KubernetesOptions,
    preflight::Checker,
    prune::{self, Fate},
    record::{self, Records},
    secrets::{mask_of, write_pull_secret},
    status, survey,
};
use crate::target::{
    Applied, ApplyError, ApplyRequest, CronJobStatus, Deploying, Drift, Environment, HelmRelease, Hold, JobHandle,
    Preflight, Progress, ReleaseRecord, Severity, Survey, Target, TargetError, Volumes, WorkloadStatus,
};
use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use jiff::Timestamp;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Mutex, mpsc};
use towpath_kube::{Client, Discovery, Lookup, Resource, text_at};
use towpath_manifest::{Fingerprints, Kind, Object, ObjectId};
use towpath_types::{Outcome, RecordedState, ReleaseId};

/// The connection to a cluster.
pub(super) struct Cluster {
    pub client: Arc<Client>,
    pub discovery: Discovery,
}

/// The environments in clusters.
pub struct KubernetesTarget {
    options: KubernetesOptions,
    /// By kube context.
    clusters: Mutex<HashMap<String, Arc<Cluster>>>,
    memory: Memory,
}

impl KubernetesTarget {
    /// A target for all kube contexts of `options.identity`. Sends no request.
    #[must_use]
    pub fn new(options: KubernetesOptions) -> Self {
        Self {
            options,
            clusters: Mutex::default(),
            memory: Memory::default(),
        }
    }

    /// The number of requests sent to the cluster of a kube context so far, retries included.
    pub async fn requests(&self, kube_context: &str) -> u64 {
        let clusters = self.clusters.lock().await;
        clusters.get(kube_context).map_or(0, |cluster| cluster.client.sent())
    }

    pub(super) async fn cluster(&self, environment: &Environment) -> Result<Arc<Cluster>, TargetError> {
        let mut clusters = self.clusters.lock().await;
        if let Some(known) = clusters.get(&environment.kube_context) {
            return Ok(Arc::clone(known));
        }
        let client = self
            .options
            .identity
            .connect(&environment.kube_context, self.options.patience)
            .await
            .map_err(|error| TargetError::Refused(error.to_string()))?;
        let cluster = Arc::new(Cluster {
            client: Arc::new(client),
            discovery: Discovery::default(),
        });
        clusters.insert(environment.kube_context.clone(), Arc::clone(&cluster));
        Ok(cluster)
    }

    /// The records of an environment, at most a moment old.
    async fn records(&self, environment: &Environment) -> Result<Arc<Records>, TargetError> {
        let writes = match self.memory.records(environment) {
            Ok(records) => return Ok(records),
            Err(writes) => writes,
        };
        let cluster = self.cluster(environment).await?;
        let at = Instant::now();
        let records = record::read(&cluster.client, environment).await;
        let records = Arc::new(records.map_err(failed_to(format!("read the releases of {environment}")))?);
        self.memory.set_records(environment, writes, at, Arc::clone(&records));
        Ok(records)
    }

    async fn check(
        &self,
        environment: &Environment,
        objects: &[Object],
        prune: &[ObjectId],
    ) -> Result<Preflight, TargetError> {
        let cluster = self.cluster(environment).await?;
        let (client, discovery) = (&cluster.client, &cluster.discovery);
        let failed = || {
            failed_to(format!(
                "ask the cluster of the kube context `{}`",
                environment.kube_context
            ))
        };
        let records = self.records(environment).await?;
        let stored = &records.stored;
        let key = self.memory.key(environment, stored.key.clone());
        let checker = Checker {
            client,
            discovery,
            environment,
            credentials: self.options.credentials.as_ref(),
            state: &stored.state,
            prune,
        };
        let began = Instant::now();
        let mut report = checker.check(objects).await.map_err(failed())?;
        let fates = prune::look_up(client, discovery, environment, &stored.state.objects, prune);
        let mut removed = Vec::new();
        for (id, fate) in fates.await.map_err(failed())? {
            match fate {
                Fate::Removed(live) => removed.push((id, live)),
                Fate::Stays(why) => report.findings.push(history::note(environment, id, why)),
            }
        }
        let changes = report.changes(&removed, &|value| fingerprint(&key, value));
        let mut findings = std::mem::take(&mut report.findings);
        let is_refused = findings.iter().any(|finding| finding.severity == Severity::Refused);
        findings.extend(history::findings(environment, &records, &report, objects));
        findings.extend(survey::notes(&report));
        let plan =
            (report.is_complete && !is_refused).then(|| CheckedPlan::new(began, stored.clone(), report, objects));
        self.memory.set_plan(environment, plan);
        Ok(Preflight {
            findings,
            changes: Some(changes),
        })
    }

    /// Starts the run `run` of a job and watches it. `note` is shown before its output.
    async fn run(
        &self,
        environment: &Environment,
        run: &str,
        job: Object,
        unschedulable: Option<Duration>,
        note: Option<String>,
    ) -> Result<JobHandle, TargetError> {
        let cluster = self.cluster(environment).await?;
        let watcher = self.watcher(environment, &job, unschedulable).await?;
        let starter = Starter {
            client: Arc::clone(&cluster.client),
            environment: environment.clone(),
        };
        let started = starter.start(run, job).await?;
        let notes = started.notes.into_iter().chain(note).collect();
        Ok(watcher.watch(run, Started { notes, ..started }))
    }

    /// Watches a job whose output hides the values of the Secrets that it reads.
    async fn watcher(
        &self,
        environment: &Environment,
        job: &Object,
        unschedulable: Option<Duration>,
    ) -> Result<Watcher, TargetError> {
        let cluster = self.cluster(environment).await?;
        Ok(Watcher {
            client: Arc::clone(&cluster.client),
            environment: environment.clone(),
            tolerance: self.options.tolerance.with_unschedulable(unschedulable),
            mask: mask_of(&cluster.client, environment, std::slice::from_ref(job)).await,
        })
    }
}

impl Target for KubernetesTarget {
    fn preflight<'a>(
        &'a self,
        environment: &'a Environment,
        objects: &'a [Object],
        prune: &'a [ObjectId],
    ) -> BoxFuture<'a, Result<Preflight, TargetError>> {
        Box::pin(self.check(environment, objects, prune))
    }

    fn fingerprints<'a>(
        &'a self,
        environment: &'a Environment,
        objects: &'a [Object],
    ) -> BoxFuture<'a, Result<Fingerprints, TargetError>> {
        Box::pin(async move {
            let cluster = self.cluster(environment).await?;
            let records = self.records(environment).await?;
            let key = self.memory.key(environment, records.stored.key.clone());
            fingerprint::of_sources(&cluster.client, environment, objects, &key)
                .await
                .map_err(failed_to(format!("read what the pods of {environment} read")))
        })
    }

    fn helm_releases<'a>(
        &'a self,
        environment: &'a Environment,
    ) -> BoxFuture<'a, Result<Option<Vec<HelmRelease>>, TargetError>> {
        Box::pin(async move {
            let cluster = self.cluster(environment).await?;
            let releases = helm::releases(&cluster.client, environment).await;
            releases.map_err(failed_to(format!("look for releases of Helm in {environment}")))
        })
    }

    fn has_helm_deployed<'a>(
        &'a self,
        environment: &'a Environment,
        objects: &'a [Object],
    ) -> BoxFuture<'a, Result<bool, TargetError>> {
        Box::pin(async move {
            let cluster = self.cluster(environment).await?;
            helm::has_deployed(&cluster.client, &cluster.discovery, environment, objects)
                .await
                .map_err(failed_to(format!("look for objects of Helm in {environment}")))
        })
    }

    fn survey<'a>(
        &'a self,
        environment: &'a Environment,
        objects: &'a [Object],
    ) -> BoxFuture<'a, Result<Survey, TargetError>> {
        Box::pin(async move {
            let failed = || failed_to(format!("look at what there is in {environment}"));
            let cluster = self.cluster(environment).await?;
            let records = self.records(environment).await?;
            let key = self.memory.key(environment, records.stored.key.clone());
            let checker = Checker {
                client: &cluster.client,
                discovery: &cluster.discovery,
                environment,
                credentials: self.options.credentials.as_ref(),
                state: &records.stored.state,
                prune: &[],
            };
            let report = checker.check(objects).await.map_err(failed())?;
            let changes = report.changes(&[], &|value| fingerprint(&key, value));
            let known = report.objects.iter().map(|checked| checked.object.id()).collect();
            let others = survey::others(&cluster.client, environment, &known).await;
            let (others, unseen) = others.map_err(failed_to(format!("look at what there is in {environment}")))?;
            Ok(Survey {
                objects: survey::surveyed(environment, &report, changes),
                others,
                unseen,
            })
        })
    }

    fn releases<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<ReleaseRecord>, TargetError>> {
        Box::pin(async move {
            let records = self.records(environment).await?;
            let mut releases = records.releases.clone();
            let state = &records.stored.state;
            let running = state.live_lock().map(|lock| lock.release);
            for release in releases
                .iter_mut()
                .filter(|release| release.state == RecordedState::Running)
            {
                // A success is recorded in the release and then in the state. The first write may have failed.
                if state.succeeded == Some(release.id) {
                    release.state = RecordedState::Ended(Outcome::Succeeded);
                } else if running != Some(release.id) {
                    release.state = RecordedState::Ended(Outcome::Errored);
                    release.message = Some(record::DIED.into());
                }
            }
            Ok(releases)
        })
    }

    fn current<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Option<Applied>, TargetError>> {
        Box::pin(async move {
            let records = self.records(environment).await?;
            let state = &records.stored.state;
            let is_known = state.attempted.is_some() || state.hold.is_some() || state.lock.is_some();
            Ok(is_known.then(|| Applied {
                release: state.current,
                attempted: state.attempted,
                objects: state.objects.iter().map(|entry| entry.id.clone()).collect(),
                hold: state.hold.clone(),
                deploying: state.live_lock().map(|lock| Deploying {
                    by: lock.by.clone(),
                    what: lock.what.clone(),
                    since: lock.since,
                    renewed: lock.renewed,
                }),
            }))
        })
    }

    fn apply(
        &self,
        request: ApplyRequest,
        progress: mpsc::UnboundedSender<Progress>,
    ) -> BoxFuture<'_, Result<(), ApplyError>> {
        Box::pin(async move {
            let errored = |error: TargetError| failure(Outcome::Errored, None, error.chain());
            let cluster = self.cluster(&request.environment).await.map_err(errored)?;
            let key = self.memory.key(&request.environment, None);
            let plan = self.memory.begin_write(&request.environment, &request.objects);
            let applier = Applier {
                client: &cluster.client,
                discovery: &cluster.discovery,
                options: &self.options,
                target: self,
                key: &key,
                progress: &progress,
            };
            let result = applier.apply(&request, plan).await;
            self.memory.begin_write(&request.environment, &[]);
            result
        })
    }

    fn count_repeat<'a>(
        &'a self,
        environment: &'a Environment,
        id: ReleaseId,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(async move {
            let failed = || failed_to(format!("write the releases of {environment}"));
            let cluster = self.cluster(environment).await?;
            let records = record::read(&cluster.client, environment).await.map_err(failed())?;
            let Some(record) = records.releases.into_iter().find(|record| record.id == id) else {
                return Ok(());
            };
            let counted = ReleaseRecord {
                repeats: record.repeats + 1,
                repeated_at: Some(at),
                ..record
            };
            let written = record::end(&cluster.client, environment, &counted).await;
            self.memory.begin_write(environment, &[]);
            written.map_err(failed())
        })
    }

    fn status<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<WorkloadStatus>, TargetError>> {
        Box::pin(async move {
            let cluster = self.cluster(environment).await?;
            status::of_environment(&cluster.client, &cluster.discovery, environment)
                .await
                .map_err(failed_to(format!("look at {environment}")))
        })
    }

    fn drift<'a>(
        &'a self,
        environment: &'a Environment,
        objects: &'a [Object],
    ) -> BoxFuture<'a, Result<Vec<Drift>, TargetError>> {
        Box::pin(async move {
            let cluster = self.cluster(environment).await?;
            let failed = || failed_to(format!("look for drift in {environment}"));
            let stored = record::load(&cluster.client, environment)
                .await
                .map_err(failed_to(format!("look for drift in {environment}")))?;
            let key = self.memory.key(environment, stored.key);
            let fingerprint = |value: &[u8]| fingerprint(&key, value);
            drift::drift(&cluster.client, &cluster.discovery, environment, objects, &fingerprint)
                .await
                .map_err(failed())
        })
    }

    fn set_hold<'a>(
        &'a self,
        environment: &'a Environment,
        hold: Option<Hold>,
    ) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(async move {
            let cluster = self.cluster(environment).await?;
            let client = &cluster.client;
            let failed = || failed_to(format!("lock or unlock {environment}"));
            loop {
                let mut stored = record::load(client, environment).await.map_err(failed())?;
                let key = self.memory.key(environment, stored.key.clone());
                stored.state.hold.clone_from(&hold);
                // A running deployment writes the state, too: try again after a conflict.
                let is_saved = record::save(client, environment, &mut stored, &key).await;
                if is_saved.map_err(failed())? {
                    self.memory.begin_write(environment, &[]);
                    return Ok(());
                }
            }
        })
    }

    fn cron_jobs<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<CronJobStatus>, TargetError>> {
        Box::pin(async move {
            let cluster = self.cluster(environment).await?;
            cron::of_environment(&cluster.client, &cluster.discovery, environment)
                .await
                .map_err(failed_to(format!("look at the CronJobs of {environment}")))
        })
    }

    fn run_job<'a>(
        &'a self,
        environment: &'a Environment,
        job: Object,
        unschedulable: Option<Duration>,
    ) -> BoxFuture<'a, Result<JobHandle, TargetError>> {
        Box::pin(async move {
            let cluster = self.cluster(environment).await?;
            let objects = std::slice::from_ref(&job);
            write_pull_secret(&cluster.client, environment, objects, self.options.credentials.as_ref())
                .await
                .map_err(failed_to(format!(
                    "write the Secret that `{}` is pulled with",
                    job.name
                )))?;
            let run = job.name.clone();
            self.run(environment, &run, job, unschedulable, None).await
        })
    }

    fn follow_job<'a>(
        &'a self,
        environment: &'a Environment,
        name: &'a str,
        unschedulable: Option<Duration>,
    ) -> BoxFuture<'a, Result<JobHandle, TargetError>> {
        Box::pin(async move {
            let cluster = self.cluster(environment).await?;
            let found = find_run(&cluster.client, environment, name).await;
            let found = found.map_err(failed_to(format!("look for the Job `{name}`")))?;
            let missing = || TargetError::NotFound(format!("{environment} has no Job `{name}`"));
            let mut found = found.ok_or_else(missing)?;
            // A list does not say what its items are.
            found["apiVersion"] = "batch/v1".into();
            found["kind"] = "Job".into();
            let started = Started::of(&found);
            let job = Object::from_value(found, "the cluster").map_err(|_| missing())?;
            Ok(self
                .watcher(environment, &job, unschedulable)
                .await?
                .watch(name, started))
        })
    }

    fn start_cron_job<'a>(
        &'a self,
        environment: &'a Environment,
        name: &'a str,
        run: &'a str,
        unschedulable: Option<Duration>,
    ) -> BoxFuture<'a, Result<JobHandle, TargetError>> {
        Box::pin(async move {
            let cluster = self.cluster(environment).await?;
            let path = Resource::of(&Kind::CRON_JOB).object(&environment.namespace, name);
            let live = cluster.client.find(&path).await;
            let live = live.map_err(failed_to(format!("read the CronJob `{name}`")))?;
            let missing = || TargetError::NotFound(format!("{environment} has no CronJob `{name}`"));
            let live = live.ok_or_else(missing)?;
            let records = self.records(environment).await?;
            let manual = manual_run(name, run, &live, &records).ok_or_else(missing)?;
            self.run(environment, run, manual.job, unschedulable, manual.note).await
        })
    }

    fn cancel_job<'a>(&'a self, environment: &'a Environment, name: &'a str) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(async move {
            let cluster = self.cluster(environment).await?;
            let failed = || failed_to(format!("stop the Job `{name}`"));
            let job = find_run(&cluster.client, environment, name).await.map_err(failed())?;
            let missing = || TargetError::NotFound(format!("{environment} has no Job `{name}`"));
            let job = job.ok_or_else(missing)?;
            let path = Resource::of(&Kind::JOB).object(&environment.namespace, &text_at(&job, "/metadata/name"));
            let uid = text_at(&job, "/metadata/uid");
            cluster.client.delete(&path, Some(&uid)).await.map_err(failed())
        })
    }

    fn logs<'a>(
        &'a self,
        environment: &'a Environment,
        workload: &'a ObjectId,
        tail: u32,
        follow: bool,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Bytes>, TargetError>> {
        Box::pin(async move {
            let cluster = self.cluster(environment).await?;
            let lines = logs::of_workload(
                &cluster.client,
                &cluster.discovery,
                environment,
                workload,
                (tail, follow),
            );
            let lines = lines.await.map_err(failed_to(format!("read the logs of {workload}")))?;
            lines.ok_or_else(|| TargetError::NotFound(format!("{environment} has no {workload}")))
        })
    }

    fn delete_environment<'a>(
        &'a self,
        environment: &'a Environment,
        volumes: Volumes,
    ) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(async move {
            let cluster = self.cluster(environment).await?;
            let (client, discovery) = (&cluster.client, &cluster.discovery);
            let deleted = async {
                let stored = record::load(client, environment).await?;
                for entry in stored.state.objects.iter().rev() {
                    if entry.id.kind == "PersistentVolumeClaim" && volumes == Volumes::Keep {
                        continue;
                    }
                    let lookup = discovery.find(client, &entry.api_version, &entry.id.kind).await?;
                    let Lookup::Served(resource) = lookup else {
                        continue;
                    };
                    let path = resource.object(&environment.namespace, &entry.id.name);
                    client.delete(&path, None).await?;
                }
                record::delete_all(client, environment).await
            };
            let deleted = deleted.await;
            self.memory.forget(environment);
            deleted.map_err(failed_to(format!("delete {environment}")))
        })
    }
}
