//! The contract of a target, kept on a cluster.

use super::{
    api::{Api, ApiError, Patience, escape},
    apply::{Carrier, failure, stays_by_kind, why_it_stays},
    drift,
    examine::{Examination, Examined, Examiner, digest, read_names},
    fields,
    identity::{Identity, IdentityError},
    job::{self, Runner, jobs},
    kinds::{Kind, Kinds, Lookup},
    record::{self, Kept, Loaded, Records},
    rollout::{Tolerance, rolls_out, text, workload_status},
};
use crate::schedule::Schedule;
use crate::target::{
    Applied, ApplyError, ApplyRequest, CronFailure, CronJobStatus, Deploying, Drift, Environment, Finding, Hold,
    JobHandle, Preflight, Progress, ReleaseRecord, SecretSource, Severity, Target, TargetError, Volumes,
    WorkloadStatus,
};
use base64::Engine as _;
use bytes::Bytes;
use futures::{
    StreamExt,
    future::{BoxFuture, join_all, try_join_all},
    stream::BoxStream,
};
use hmac_print::print;
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use towpath_manifest::{Fingerprints, Object, ObjectId, Place, SourceKind};
use towpath_types::{Mask, Outcome, SecretString};

/// What a Kubernetes target is opened with.
pub struct KubernetesOptions {
    /// Where clusters and credentials come from.
    pub identity: Identity,
    /// Where the values of Secrets come from that no manifest holds; what it does not have, the cluster has to have.
    pub secrets: Arc<dyn SecretSource>,
    /// How long requests may take.
    pub patience: Patience,
    /// How long a rollout may be in a state that seldom heals.
    pub tolerance: Tolerance,
    /// After how long without a sign of life a deployment is taken for dead.
    pub lock_expiry: Duration,
    /// How long a deployment waits for another to end.
    pub lock_wait: Duration,
}

impl KubernetesOptions {
    /// With the usual patience.
    #[must_use]
    pub fn new(identity: Identity, secrets: Arc<dyn SecretSource>) -> Self {
        Self {
            identity,
            secrets,
            patience: Patience::default(),
            tolerance: Tolerance::default(),
            lock_expiry: Duration::from_secs(30),
            lock_wait: Duration::from_secs(600),
        }
    }
}

/// A cluster that was reached.
struct Cluster {
    api: Arc<Api>,
    kinds: Kinds,
}

/// For how long a target goes by what it read of an environment's records. Nothing is decided by them alone: whoever
/// writes does it over the version that was read, and reads again if there is another by then.
const FRESH: Duration = Duration::from_secs(1);
/// For how long what was found out for a plan holds for carrying that plan out.
const HOLDS: Duration = Duration::from_secs(10);

/// What was found out for a plan.
pub(super) struct Seen {
    at: Instant,
    pub loaded: Loaded,
    pub examination: Examination,
    /// What the objects were whose plan it was.
    objects: Vec<Object>,
}

/// What a target remembers of an environment.
#[derive(Default)]
struct Memory {
    /// Counts this target's own writes, so that what was read before one is not remembered after it.
    writes: u64,
    records: Option<(Instant, Arc<Records>)>,
    seen: Option<Seen>,
    /// The key of its fingerprints: the one recorded there, or the one that its first release will record.
    key: Option<Vec<u8>>,
}

/// The environments of clusters.
pub struct KubernetesTarget {
    options: KubernetesOptions,
    clusters: tokio::sync::Mutex<HashMap<String, Arc<Cluster>>>,
    memory: Arc<Mutex<HashMap<Environment, Memory>>>,
}

fn failed(attempted: impl Into<String>) -> impl FnOnce(ApiError) -> TargetError {
    let attempted = attempted.into();
    move |error| TargetError::failed(attempted)(error)
}

impl KubernetesTarget {
    /// A target of every kube context that `options.identity` knows. Nothing is asked of a cluster yet.
    #[must_use]
    pub fn new(options: KubernetesOptions) -> Self {
        Self {
            options,
            clusters: tokio::sync::Mutex::default(),
            memory: Arc::default(),
        }
    }

    async fn cluster(&self, environment: &Environment) -> Result<Arc<Cluster>, TargetError> {
        let mut clusters = self.clusters.lock().await;
        if let Some(known) = clusters.get(&environment.kube_context) {
            return Ok(Arc::clone(known));
        }
        let api = self
            .options
            .identity
            .connect(&environment.kube_context, self.options.patience)
            .await
            .map_err(|error| match error {
                IdentityError::NoKubeContext { .. } | IdentityError::Settings(_) => {
                    TargetError::Refused(error.to_string())
                }
                IdentityError::Kubeconfig(_) => TargetError::Refused(error.to_string()),
            })?;
        let cluster = Arc::new(Cluster {
            api: Arc::new(api),
            kinds: Kinds::default(),
        });
        clusters.insert(environment.kube_context.clone(), Arc::clone(&cluster));
        Ok(cluster)
    }

    /// How many requests were sent to the cluster of a kube context, each try counted.
    pub async fn requests(&self, kube_context: &str) -> u64 {
        let clusters = self.clusters.lock().await;
        clusters.get(kube_context).map_or(0, |cluster| cluster.api.sent())
    }

    /// What `with` makes of what is remembered of an environment; nobody else remembers meanwhile, so it is to be quick.
    fn remember<T>(&self, environment: &Environment, with: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        with(memory.entry(environment.clone()).or_default())
    }

    /// Keeps what was found out for a plan for as long as it holds.
    fn keep(&self, environment: &Environment, seen: Seen) {
        self.remember(environment, |memory| memory.seen = Some(seen));
        let (memory, environment) = (Arc::downgrade(&self.memory), environment.clone());
        tokio::spawn(async move {
            tokio::time::sleep(HOLDS).await;
            let Some(memory) = memory.upgrade() else { return };
            let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(memory) = memory.get_mut(&environment) else {
                return;
            };
            if memory.seen.as_ref().is_some_and(|seen| seen.at.elapsed() >= HOLDS) {
                memory.seen = None;
            }
        });
    }

    /// The key of an environment's fingerprints: its own, or one that it will get with its first release.
    fn key(&self, environment: &Environment, recorded: Option<Vec<u8>>) -> Vec<u8> {
        self.remember(environment, |memory| {
            if recorded.is_some() {
                memory.key = recorded;
            }
            let new = || rand::random::<[u8; 32]>().to_vec();
            memory.key.get_or_insert_with(new).clone()
        })
    }

    /// What the environment says of itself, as it was within the last [`FRESH`].
    async fn records(&self, environment: &Environment) -> Result<Arc<Records>, TargetError> {
        let (known, writes) = self.remember(environment, |memory| (memory.records.clone(), memory.writes));
        if let Some((at, records)) = known
            && at.elapsed() < FRESH
        {
            return Ok(records);
        }
        let cluster = self.cluster(environment).await?;
        let at = Instant::now();
        let records = record::read(&cluster.api, environment).await;
        let records = Arc::new(records.map_err(failed(format!("read the releases of {environment}")))?);
        self.remember(environment, |memory| {
            if memory.writes == writes {
                memory.records = Some((at, Arc::clone(&records)));
            }
        });
        Ok(records)
    }

    /// Forgets what was read of an environment, for it is written to; answers what was found out for the plan of `objects`.
    fn writing(&self, environment: &Environment, objects: &[Object]) -> Option<Seen> {
        let seen = self.remember(environment, |memory| {
            memory.writes += 1;
            memory.records = None;
            memory.seen.take()
        });
        seen.filter(|seen| seen.at.elapsed() < HOLDS && seen.objects == objects)
    }

    async fn look(
        &self,
        environment: &Environment,
        objects: &[Object],
        prune: &[ObjectId],
    ) -> Result<Preflight, TargetError> {
        let cluster = self.cluster(environment).await?;
        let asking = format!("ask the cluster of the kube context `{}`", environment.kube_context);
        let records = self.records(environment).await?;
        let loaded = &records.loaded;
        let key = self.key(environment, loaded.key.clone());
        let examiner = Examiner {
            api: &cluster.api,
            kinds: &cluster.kinds,
            environment,
            secrets: self.options.secrets.as_ref(),
            state: &loaded.state,
            gone: prune,
        };
        let began = Instant::now();
        let mut examination = examiner.examine(objects).await.map_err(failed(&asking))?;
        let gone = prune
            .iter()
            .filter_map(|id| loaded.state.objects.iter().find(|kept| kept.id == *id));
        let cluster = &cluster;
        let looked = gone.map(|kept| async move {
            let lookup = cluster
                .kinds
                .find(&cluster.api, &kept.api_version, &kept.id.kind)
                .await?;
            let Lookup::Served(kind) = lookup else { return Ok(None) };
            let found = match stays_by_kind(&kind) {
                Some(why) => Err(why),
                None => {
                    let path = kind.object(&environment.namespace, &kept.id.name);
                    Ok(cluster.api.find(&path).await?)
                }
            };
            Ok(Some((kept, found)))
        });
        let mut gone: Vec<(ObjectId, Value)> = Vec::new();
        for (kept, found) in try_join_all(looked)
            .await
            .map_err(failed(&asking))?
            .into_iter()
            .flatten()
        {
            let id = kept.id.clone();
            let live = match found {
                Ok(Some(live)) => live,
                Ok(None) => continue,
                Err(why) => {
                    examination.findings.push(note_of(environment, id, why.to_string()));
                    continue;
                }
            };
            match why_it_stays(environment, kept, &live) {
                Some(why) => examination.findings.push(note_of(environment, id, why.to_string())),
                None => gone.push((id, live)),
            }
        }
        let changes = examination.changes(&gone, &|bytes| print(&key, bytes));
        let mut findings = std::mem::take(&mut examination.findings);
        let is_whole = examination.is_whole && findings.iter().all(|finding| finding.severity != Severity::Refused);
        findings.extend(history_findings(environment, &records, &examination, objects));
        if is_whole {
            let seen = Seen {
                at: began,
                loaded: loaded.clone(),
                examination,
                objects: objects.to_vec(),
            };
            self.keep(environment, seen);
        } else {
            self.remember(environment, |memory| memory.seen = None);
        }
        Ok(Preflight {
            findings,
            changes: Some(changes),
        })
    }

    async fn statuses(&self, environment: &Environment) -> Result<Vec<WorkloadStatus>, TargetError> {
        let cluster = self.cluster(environment).await?;
        let api = &cluster.api;
        let asking = format!("look at {environment}");
        let loaded = record::load(api, environment).await.map_err(failed(&asking))?;
        let pods = Kind::known("v1", "Pod", "pods").collection(&environment.namespace);
        let pods = match api.list(&pods, None).await {
            Ok((pods, _)) => pods,
            Err(error) if error.is_forbidden() => Vec::new(),
            Err(error) => return Err(failed(&asking)(error)),
        };
        let looked = loaded
            .state
            .objects
            .iter()
            .filter(|kept| {
                rolls_out(&kept.id.kind) || matches!(kept.id.kind.as_str(), "Pod" | "CronJob" | "Service" | "Ingress")
            })
            .map(|kept| async { Ok((&kept.id, find_kept(&cluster, environment, kept).await?)) });
        let mut statuses = Vec::new();
        for (id, found) in try_join_all(looked).await.map_err(failed(&asking))? {
            let Some(live) = found else {
                statuses.push(WorkloadStatus {
                    kind: id.kind.clone(),
                    name: id.name.clone(),
                    message: "it is not there (any more): `towpath drift` says what its release has".into(),
                    ..WorkloadStatus::default()
                });
                continue;
            };
            let labels = live.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
            let own: Vec<Value> = pods
                .iter()
                .filter(|pod| {
                    labels.is_some_and(|labels| {
                        let of_pod = pod.pointer("/metadata/labels");
                        labels
                            .iter()
                            .all(|(key, value)| of_pod.and_then(|of_pod| of_pod.get(key)) == Some(value))
                    })
                })
                .cloned()
                .collect();
            let mut status = workload_status(&id.kind, &live, &own);
            match id.kind.as_str() {
                "CronJob" => status.message = cron_message(&live),
                "Service" => status.addresses = service_addresses(&live),
                "Ingress" => status.addresses = ingress_addresses(&live),
                _ => {}
            }
            statuses.push(status);
        }
        if loaded.is_odd {
            statuses.push(WorkloadStatus {
                kind: "Secret".into(),
                name: record::name(environment),
                message: "it records what was applied here, and is not as Towpath wrote it: deploying makes it anew"
                    .into(),
                ..WorkloadStatus::default()
            });
        }
        statuses.sort_by(|one, other| (&one.kind, &one.name).cmp(&(&other.kind, &other.name)));
        Ok(statuses)
    }

    async fn look_at_cron_jobs(&self, environment: &Environment) -> Result<Vec<CronJobStatus>, TargetError> {
        let cluster = self.cluster(environment).await?;
        let looking = || failed(format!("look at the CronJobs of {environment}"));
        let loaded = record::load(&cluster.api, environment).await.map_err(looking())?;
        let kept = loaded.state.objects.iter().filter(|kept| kept.id.kind == "CronJob");
        let found = try_join_all(kept.map(|kept| find_kept(&cluster, environment, kept)));
        let runs = jobs().collection(&environment.namespace);
        let (found, runs) = futures::future::join(found, cluster.api.list(&runs, None)).await;
        let runs = match runs {
            Ok((runs, _)) => runs,
            // Without them it is only not known which runs failed.
            Err(error) if error.is_forbidden() => Vec::new(),
            Err(error) => return Err(looking()(error)),
        };
        let mut statuses: Vec<CronJobStatus> = found
            .map_err(looking())?
            .into_iter()
            .flatten()
            .map(|live| cron_job_status(&live, &runs))
            .collect();
        statuses.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(statuses)
    }

    async fn runner(
        &self,
        environment: &Environment,
        job: &Object,
        unschedulable: Option<Duration>,
    ) -> Result<Runner, TargetError> {
        let cluster = self.cluster(environment).await?;
        let mask = mask_of(
            &cluster.api,
            environment,
            std::slice::from_ref(job),
            self.options.secrets.as_ref(),
        )
        .await;
        Ok(Runner {
            api: Arc::clone(&cluster.api),
            environment: environment.clone(),
            tolerance: self.options.tolerance.with_unschedulable(unschedulable),
            mask,
        })
    }

    /// The Secrets that the vault has and a lone object reads: a job's are there before it starts.
    async fn bring_secrets(&self, environment: &Environment, job: &Object) -> Result<(), TargetError> {
        let cluster = self.cluster(environment).await?;
        let state = record::State::default();
        let examiner = Examiner {
            api: &cluster.api,
            kinds: &cluster.kinds,
            environment,
            secrets: self.options.secrets.as_ref(),
            state: &state,
            gone: &[],
        };
        examiner
            .bring_secrets(std::slice::from_ref(job))
            .await
            .map_err(failed(format!("write the Secrets that `{}` reads", job.name)))
    }
}

/// Something about an environment that no file of it says.
fn note_of(environment: &Environment, object: ObjectId, message: String) -> Finding {
    Finding {
        severity: Severity::Note,
        object,
        field: String::new(),
        place: Place {
            file: format!(".k8s/{}/{}", environment.kube_context, environment.id.environment()).into(),
            line: 1,
            column: 1,
        },
        message,
    }
}

/// What is odd about an environment's history: somebody deleted or edited some of it, or it is more than can be kept.
fn history_findings(
    environment: &Environment,
    records: &Records,
    examination: &Examination,
    objects: &[Object],
) -> Vec<Finding> {
    let state = &records.loaded.state;
    let mut said = Vec::new();
    let by_a_release = |one: &&Examined| {
        let labels = one.live.as_ref().and_then(|live| live.pointer("/metadata/labels"));
        labels.is_some_and(|labels| labels.get("towpath.dev/release").is_some())
    };
    let released = examination.objects.iter().find(by_a_release);
    if records.loaded.version.is_none()
        && let Some(one) = released
    {
        said.push(format!(
            "`{}` was applied by a release, but the record of what was applied here is gone: somebody deleted it. It is made anew, what \
             left the manifests is not removed this time, and pods restart once",
            one.object.id()
        ));
    }
    if records.loaded.is_odd {
        said.push(
            "the record of what was applied here is not as Towpath wrote it: it is made anew, and what left the manifests \
             is not removed this time"
                .to_string(),
        );
    }
    for name in &records.odd {
        said.push(format!(
            "the Secret `{name}` is not as Towpath wrote it: that release is left out of the history"
        ));
    }
    if let Some(runs) = state.succeeded
        && records.releases.iter().all(|release| release.id != runs)
    {
        let number = state.succeeded_number;
        said.push(format!(
            "the record of release {number}, which ran last, was deleted: it cannot be gone back to from here"
        ));
    }
    let of_the_record = || ObjectId {
        group: String::new(),
        kind: "Secret".into(),
        name: record::name(environment),
    };
    let note = |message| note_of(environment, of_the_record(), message);
    let mut findings: Vec<Finding> = said.into_iter().map(note).collect();
    if let Some(bytes) = record::too_large(objects) {
        findings.push(Finding {
            severity: Severity::Refused,
            ..note_of(
                environment,
                of_the_record(),
                format!(
                    "these objects take {bytes} bytes packed, and the record of a release has to fit into a Secret, which holds 1 MiB: \
                     large data (a ConfigMap's `binaryData`, say) belongs into the image or a volume"
                ),
            )
        });
    }
    findings
}

/// An object that was applied, as it is now.
async fn find_kept(cluster: &Cluster, environment: &Environment, kept: &Kept) -> Result<Option<Value>, ApiError> {
    let Lookup::Served(kind) = cluster
        .kinds
        .find(&cluster.api, &kept.api_version, &kept.id.kind)
        .await?
    else {
        return Ok(None);
    };
    cluster
        .api
        .find(&kind.object(&environment.namespace, &kept.id.name))
        .await
}

/// The values of the Secrets that `objects` read, for masking; what may not be read masks nothing.
pub(super) async fn mask_of(
    api: &Api,
    environment: &Environment,
    objects: &[Object],
    secrets: &dyn SecretSource,
) -> Mask {
    let mut values: Vec<SecretString> = Vec::new();
    let encoding = base64::engine::general_purpose::STANDARD;
    let names = read_names(objects, SourceKind::Secret);
    let paths = names
        .iter()
        .map(|name| record::secrets().object(&environment.namespace, name));
    let found = join_all(paths.map(|path| async move { api.find(&path).await })).await;
    for secret in found.into_iter().filter_map(|found| found.ok().flatten()) {
        let data = secret.get("data").and_then(Value::as_object);
        for value in data
            .into_iter()
            .flat_map(|data| data.values())
            .filter_map(Value::as_str)
        {
            if let Some(text) = encoding
                .decode(value)
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
            {
                values.push(SecretString::new(text));
            }
        }
    }
    for name in &names {
        if let Ok(Some(known)) = secrets.values(&environment.id, name).await {
            values.extend(known.into_values());
        }
    }
    Mask::new(&values)
}

/// A CronJob of the cluster, with those of `runs` that are its own.
fn cron_job_status(live: &Value, runs: &[Value]) -> CronJobStatus {
    let at = |value: &Value, pointer: &str| text(value, pointer).parse::<jiff::Timestamp>().ok();
    let uid = text(live, "/metadata/uid");
    let is_own = |run: &&Value| {
        let owners = run.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        owners.into_iter().flatten().any(|owner| text(owner, "/uid") == uid)
    };
    let mut failures = Vec::new();
    let (mut last_run, mut last_success) = (
        at(live, "/status/lastScheduleTime"),
        at(live, "/status/lastSuccessfulTime"),
    );
    for run in runs.iter().filter(is_own) {
        // One that a person started is in no status of the CronJob.
        last_run = last_run.max(at(run, "/status/startTime"));
        match job::end_of(run) {
            Some((Outcome::Succeeded, _)) => last_success = last_success.max(at(run, "/status/completionTime")),
            Some((_, message)) => failures.push(CronFailure {
                job: text(run, "/metadata/name"),
                at: job::failed_at(run),
                message,
            }),
            None => {}
        }
    }
    failures.sort_by_key(|failure| std::cmp::Reverse(failure.at));
    let active = live
        .pointer("/status/active")
        .and_then(Value::as_array)
        .map_or(0, Vec::len);
    let image = live.pointer("/spec/jobTemplate/spec/template/spec/containers/0/image");
    CronJobStatus {
        name: text(live, "/metadata/name"),
        schedule: text(live, "/spec/schedule"),
        suspended: is_suspended(live),
        image: image.and_then(Value::as_str).map(str::to_string),
        active: u32::try_from(active).unwrap_or(u32::MAX),
        last_run,
        last_success,
        next_run: next_run(live),
        failures,
    }
}

fn is_suspended(live: &Value) -> bool {
    live.pointer("/spec/suspend").and_then(Value::as_bool) == Some(true)
}

fn next_run(live: &Value) -> Option<jiff::Timestamp> {
    if is_suspended(live) {
        return None;
    }
    let zone = text(live, "/spec/timeZone");
    // A cluster's controller goes by its own machine's zone, which is mostly UTC.
    let zone = if zone.is_empty() { "UTC" } else { &zone };
    let schedule = Schedule::new(&text(live, "/spec/schedule"), Some(zone)).ok()?;
    schedule.next(jiff::Timestamp::now())
}

fn cron_message(live: &Value) -> String {
    let mut parts = Vec::new();
    if is_suspended(live) {
        parts.push("suspended".to_string());
    }
    let at = |pointer: &str| Some(text(live, pointer)).filter(|text| !text.is_empty());
    parts.extend(at("/status/lastScheduleTime").map(|at| format!("last run at {at}")));
    parts.extend(at("/status/lastSuccessfulTime").map(|at| format!("last success at {at}")));
    parts.extend(next_run(live).map(|next| format!("next run at {next}")));
    parts.join(", ")
}

fn service_addresses(live: &Value) -> Vec<String> {
    let address = text(live, "/spec/clusterIP");
    if address.is_empty() || address == "None" {
        return Vec::new();
    }
    let ports = live.pointer("/spec/ports").and_then(Value::as_array);
    let ports = ports
        .into_iter()
        .flatten()
        .filter_map(|port| port.get("port")?.as_i64());
    ports.map(|port| format!("http://{address}:{port}")).collect()
}

fn ingress_addresses(live: &Value) -> Vec<String> {
    let secure: Vec<&str> = live
        .pointer("/spec/tls")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|tls| tls.get("hosts")?.as_array())
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let rules = live.pointer("/spec/rules").and_then(Value::as_array);
    let hosts = rules
        .into_iter()
        .flatten()
        .filter_map(|rule| rule.get("host")?.as_str());
    let address = |host: &str| format!("{}://{host}", if secure.contains(&host) { "https" } else { "http" });
    hosts.map(address).collect()
}

impl Target for KubernetesTarget {
    fn preflight<'a>(
        &'a self,
        environment: &'a Environment,
        objects: &'a [Object],
        prune: &'a [ObjectId],
    ) -> BoxFuture<'a, Result<Preflight, TargetError>> {
        Box::pin(self.look(environment, objects, prune))
    }

    fn fingerprints<'a>(
        &'a self,
        environment: &'a Environment,
        objects: &'a [Object],
    ) -> BoxFuture<'a, Result<Fingerprints, TargetError>> {
        Box::pin(async move {
            let cluster = self.cluster(environment).await?;
            let asking = || failed(format!("read what the pods of {environment} read"));
            let records = self.records(environment).await?;
            let key = self.key(environment, records.loaded.key.clone());
            let mut fingerprints = Fingerprints::default();
            for kind in [SourceKind::Secret, SourceKind::ConfigMap] {
                let (known, of_kind) = match kind {
                    SourceKind::Secret => (record::secrets(), "Secret"),
                    _ => (Kind::known("v1", "ConfigMap", "configmaps"), "ConfigMap"),
                };
                let brought = |name: &String| {
                    objects
                        .iter()
                        .any(|object| object.kind == of_kind && object.name == *name)
                };
                let names = read_names(objects, kind);
                // What the manifests bring counts as they have it, whatever is there now.
                let of_manifests = names.iter().filter(|_| kind == SourceKind::Secret).filter_map(|name| {
                    let is_it = |object: &&Object| object.kind == of_kind && object.name == *name;
                    let object = objects.iter().find(is_it)?;
                    let data = object.value.get("data").and_then(Value::as_object);
                    let keys = data.into_iter().flatten().map(|(key_of, value)| {
                        let bytes = value.as_str().unwrap_or_default().as_bytes();
                        (key_of.clone(), print(&key, bytes))
                    });
                    Some((name.clone(), keys.collect()))
                });
                fingerprints.secrets.extend(of_manifests);
                let looked = names.into_iter().filter(|name| !brought(name)).map(|name| {
                    let path = known.object(&environment.namespace, &name);
                    let api = &cluster.api;
                    async move { (name, api.find(&path).await) }
                });
                for (name, there) in join_all(looked).await {
                    let there = match there {
                        Ok(there) => there,
                        // A change of what may not be read is not seen; that was said before.
                        Err(error) if error.is_forbidden() => continue,
                        Err(error) => return Err(asking()(error)),
                    };
                    let mut keys: BTreeMap<String, String> = BTreeMap::new();
                    for field in ["data", "binaryData"] {
                        let data = there.as_ref().and_then(|there| there.get(field)?.as_object());
                        for (key_of, value) in data.into_iter().flatten() {
                            let bytes = value.as_str().unwrap_or_default().as_bytes();
                            keys.insert(key_of.clone(), print(&key, bytes));
                        }
                    }
                    if kind == SourceKind::Secret {
                        // What the vault has will be written over what is there.
                        let values = self.options.secrets.values(&environment.id, &name).await;
                        let values = values.map_err(TargetError::failed(format!("read the Secret `{name}`")))?;
                        let encoding = base64::engine::general_purpose::STANDARD;
                        for (key_of, value) in values.into_iter().flatten() {
                            keys.insert(key_of, print(&key, encoding.encode(value.expose()).as_bytes()));
                        }
                    }
                    if there.is_none() && keys.is_empty() {
                        continue;
                    }
                    match kind {
                        SourceKind::Secret => fingerprints.secrets.insert(name, keys),
                        _ => fingerprints.config_maps.insert(name, keys),
                    };
                }
            }
            Ok(fingerprints)
        })
    }

    fn releases<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<ReleaseRecord>, TargetError>> {
        Box::pin(async move {
            let records = self.records(environment).await?;
            let mut releases = records.releases.clone();
            let state = &records.loaded.state;
            let under_way = state.alive().map(|lock| lock.release);
            for release in releases.iter_mut().filter(|release| release.state == "running") {
                // That it came to its end is written down in two places, one after the other.
                if state.succeeded == Some(release.id) {
                    release.state = Outcome::Succeeded.as_str().into();
                } else if under_way != Some(release.id) {
                    release.state = Outcome::Errored.as_str().into();
                    release.message = Some(record::DIED.into());
                }
            }
            Ok(releases)
        })
    }

    fn current<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Option<Applied>, TargetError>> {
        Box::pin(async move {
            let records = self.records(environment).await?;
            let state = &records.loaded.state;
            let is_anything = state.attempted.is_some() || state.hold.is_some() || state.lock.is_some();
            Ok(is_anything.then(|| Applied {
                release: state.current,
                attempted: state.attempted,
                objects: state.objects.iter().map(|kept| kept.id.clone()).collect(),
                hold: state.hold.clone(),
                deploying: state.alive().map(|lock| Deploying {
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
            let key = self.key(&request.environment, None);
            let seen = self.writing(&request.environment, &request.objects);
            let carrier = Carrier {
                api: &cluster.api,
                kinds: &cluster.kinds,
                options: &self.options,
                key: &key,
                progress: &progress,
            };
            let result = carrier.carry_out(&request, seen).await;
            self.writing(&request.environment, &[]);
            result
        })
    }

    fn status<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<WorkloadStatus>, TargetError>> {
        Box::pin(self.statuses(environment))
    }

    fn drift<'a>(
        &'a self,
        environment: &'a Environment,
        objects: &'a [Object],
    ) -> BoxFuture<'a, Result<Vec<Drift>, TargetError>> {
        Box::pin(async move {
            let cluster = self.cluster(environment).await?;
            let looking = || failed(format!("look for drift in {environment}"));
            let loaded = record::load(&cluster.api, environment).await.map_err(looking())?;
            let key = self.key(environment, loaded.key);
            let fingerprint = |bytes: &[u8]| print(&key, bytes);
            drift::drift(&cluster.api, &cluster.kinds, environment, objects, &fingerprint)
                .await
                .map_err(looking())
        })
    }

    fn set_hold<'a>(
        &'a self,
        environment: &'a Environment,
        hold: Option<Hold>,
    ) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(async move {
            let cluster = self.cluster(environment).await?;
            let writing = || failed(format!("lock or unlock {environment}"));
            loop {
                let mut loaded = record::load(&cluster.api, environment).await.map_err(writing())?;
                let key = self.key(environment, loaded.key.clone());
                loaded.state.hold.clone_from(&hold);
                // Whoever is deploying writes there, too.
                if record::save(&cluster.api, environment, &mut loaded, &key)
                    .await
                    .map_err(writing())?
                {
                    self.writing(environment, &[]);
                    return Ok(());
                }
            }
        })
    }

    fn cron_jobs<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<CronJobStatus>, TargetError>> {
        Box::pin(self.look_at_cron_jobs(environment))
    }

    fn run_job<'a>(
        &'a self,
        environment: &'a Environment,
        job: Object,
        unschedulable: Option<Duration>,
    ) -> BoxFuture<'a, Result<JobHandle, TargetError>> {
        Box::pin(async move {
            self.bring_secrets(environment, &job).await?;
            let runner = self.runner(environment, &job, unschedulable).await?;
            let run = job.name.clone();
            let started = runner.start(&run, job).await?;
            Ok(runner.follow(&run, started))
        })
    }

    fn start_cron_job<'a>(
        &'a self,
        environment: &'a Environment,
        name: &'a str,
        unschedulable: Option<Duration>,
    ) -> BoxFuture<'a, Result<JobHandle, TargetError>> {
        Box::pin(async move {
            let cluster = self.cluster(environment).await?;
            let path = Kind::known("batch/v1", "CronJob", "cronjobs").object(&environment.namespace, name);
            let found = cluster
                .api
                .find(&path)
                .await
                .map_err(failed(format!("read the CronJob `{name}`")))?;
            let missing = || TargetError::NotFound(format!("{environment} has no CronJob `{name}`"));
            let found = found.ok_or_else(missing)?;
            let run = format!("{name}-{}", jiff::Timestamp::now().as_second());
            let of_cluster = job::of_cron_job(&found, &found, &run).ok_or_else(missing)?;
            // What Towpath applied runs, whatever somebody gave the CronJob in the cluster since.
            let records = self.records(environment).await?;
            let is_it = |kept: &&Kept| kept.id.kind == "CronJob" && kept.id.name == name;
            let kept = records.loaded.state.objects.iter().find(is_it);
            let is_as_applied = !fields::has_others(&found, &["f:spec", "f:jobTemplate"])
                && kept.is_some_and(|kept| fields::ours(&found).is_some_and(|ours| digest(ours) == kept.owned));
            let of_release = job::of_release(&records, name);
            let is_of_release = |released: &Object| kept.is_none_or(|kept| kept.manifest == digest(&released.value));
            let (job, note) = match of_release {
                _ if is_as_applied => (of_cluster, None),
                Some((number, released)) if is_of_release(&released) => {
                    let job = job::of_cron_job(&found, &released.value, &run).ok_or_else(missing)?;
                    let note = job::other_images(number, &job, &of_cluster);
                    (job, note)
                }
                Some(_) => {
                    let note = format!(
                        "the CronJob `{name}` was applied beside the releases, and changed by somebody since: this runs what the cluster has"
                    );
                    (of_cluster, Some(note))
                }
                None => {
                    let note = format!("no release has the CronJob `{name}`: this runs what the cluster has");
                    (of_cluster, Some(note))
                }
            };
            let runner = self.runner(environment, &job, unschedulable).await?;
            let mut started = runner.start(&run, job).await?;
            started.notes.extend(note);
            Ok(runner.follow(&run, started))
        })
    }

    fn cancel_job<'a>(&'a self, environment: &'a Environment, name: &'a str) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(async move {
            let cluster = self.cluster(environment).await?;
            let cancelling = || failed(format!("stop the Job `{name}`"));
            let found = job::find_run(&cluster.api, environment, name)
                .await
                .map_err(cancelling())?;
            let missing = || TargetError::NotFound(format!("{environment} has no Job `{name}`"));
            let found = found.ok_or_else(missing)?;
            let path = jobs().object(&environment.namespace, &text(&found, "/metadata/name"));
            let uid = text(&found, "/metadata/uid");
            cluster.api.delete(&path, Some(&uid)).await.map_err(cancelling())
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
            let api = &cluster.api;
            let reading = || failed(format!("read what {workload} prints"));
            let version = if workload.kind == "Job" { "batch/v1" } else { "apps/v1" };
            let missing = || TargetError::NotFound(format!("{environment} has no {workload}"));
            let Lookup::Served(kind) = cluster
                .kinds
                .find(api, version, &workload.kind)
                .await
                .map_err(reading())?
            else {
                return Err(missing());
            };
            let live = api.find(&kind.object(&environment.namespace, &workload.name)).await;
            let mut live = live.map_err(reading())?.ok_or_else(missing)?;
            let labels = live
                .pointer("/spec/selector/matchLabels")
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default();
            let selector: Vec<String> = labels
                .iter()
                .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
                .collect();
            let pods = Kind::known("v1", "Pod", "pods");
            let collection = pods.collection(&environment.namespace);
            let (found, _) = api
                .list(&collection, Some(&selector.join(",")))
                .await
                .map_err(reading())?;
            live["apiVersion"] = Value::from(version);
            live["kind"] = Value::from(workload.kind.as_str());
            let object = Object::from_value(live, "the cluster").map_err(|_| missing())?;
            let mask = mask_of(
                api,
                environment,
                std::slice::from_ref(&object),
                self.options.secrets.as_ref(),
            )
            .await;
            let mut streams = Vec::new();
            for pod in &found {
                let name = text(pod, "/metadata/name");
                let prefix = if found.len() > 1 {
                    format!("[{name}] ")
                } else {
                    String::new()
                };
                let containers = pod
                    .pointer("/spec/containers")
                    .and_then(Value::as_array)
                    .cloned()
                    .unwrap_or_default();
                for container in containers {
                    let path = format!(
                        "{}/log?container={}&tailLines={tail}&follow={follow}",
                        pods.object(&environment.namespace, &name),
                        escape(&text(&container, "/name"))
                    );
                    // A container that has not started has printed nothing.
                    let Ok(pieces) = api.open(&path).await else { continue };
                    streams.push(whole_lines(pieces.boxed(), mask.clone(), prefix.clone()));
                }
            }
            Ok(futures::stream::select_all(streams).boxed())
        })
    }

    fn delete_environment<'a>(
        &'a self,
        environment: &'a Environment,
        volumes: Volumes,
    ) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(async move {
            let cluster = self.cluster(environment).await?;
            let deleting = || failed(format!("delete {environment}"));
            let loaded = record::load(&cluster.api, environment).await.map_err(deleting())?;
            for kept in loaded.state.objects.iter().rev() {
                if kept.id.kind == "PersistentVolumeClaim" && volumes == Volumes::Keep {
                    continue;
                }
                let found = cluster.kinds.find(&cluster.api, &kept.api_version, &kept.id.kind).await;
                let Lookup::Served(kind) = found.map_err(deleting())? else {
                    continue;
                };
                let path = kind.object(&environment.namespace, &kept.id.name);
                cluster.api.delete(&path, None).await.map_err(deleting())?;
            }
            let forgotten = record::forget(&cluster.api, environment).await;
            self.remember(environment, |memory| {
                *memory = Memory {
                    writes: memory.writes + 1,
                    ..Memory::default()
                }
            });
            forgotten.map_err(deleting())
        })
    }
}

/// Cuts what a container prints into whole lines, masked, each behind `prefix`.
fn whole_lines(
    pieces: BoxStream<'static, std::io::Result<Bytes>>,
    mask: Mask,
    prefix: String,
) -> BoxStream<'static, Bytes> {
    let lines = tokio_util::codec::FramedRead::new(
        tokio_util::io::StreamReader::new(pieces),
        tokio_util::codec::LinesCodec::new(),
    );
    lines
        .filter_map(move |line| {
            let line = line
                .ok()
                .map(|line| Bytes::from(format!("{prefix}{}\n", mask.text(&line))));
            async move { line }
        })
        .boxed()
}

/// Keyed fingerprints.
mod hmac_print {
    use hmac::{Hmac, KeyInit as _, Mac as _};

    /// Sixteen hex digits of an HMAC-SHA-256: equal for equal values in one environment, and telling nothing of them.
    pub(super) fn print(key: &[u8], value: &[u8]) -> String {
        // An HMAC takes keys of every length.
        let Ok(mut hmac) = Hmac::<sha2::Sha256>::new_from_slice(key) else {
            return String::new();
        };
        hmac.update(value);
        let digest = hmac.finalize().into_bytes();
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}
