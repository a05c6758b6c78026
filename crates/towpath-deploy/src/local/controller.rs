//! The loop of one environment. It is level-triggered: each pass reads the wanted and the actual state, and takes the next
//! steps.

use super::{
    container,
    cron::{self, Due},
    environment,
    frontend::{self, Frontend, INGRESS, Wanted},
    job,
    local_environment::LocalEnvironment,
    model::{self, CronJob, Deployment, Ingress, Resource, Service},
    names,
    pod::{self, Owner, Pod},
    rollout,
    store::{CronRecord, Document, JobRecord, RolloutState, revision_key},
};
use crate::target::{JobEnd, TargetError};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use towpath_container::{Labels, Phase};
use towpath_manifest::Object;
use towpath_types::{Outcome, with_causes};

/// How soon to read the proxies' files again while requests drain.
const WHILE_DRAINING: Duration = Duration::from_millis(50);
/// How soon to look again while pods roll.
const WHILE_ROLLING: Duration = Duration::from_millis(250);
/// How soon to check the clock again while there are schedules or Jobs.
const WHILE_SCHEDULING: Duration = Duration::from_secs(1);
/// How soon to look again otherwise.
const IDLE: Duration = Duration::from_secs(5);
/// How soon to check a running proxy again.
const PROXY_CHECK: Duration = Duration::from_secs(10);
/// How soon to retry starting a proxy.
const PROXY_PAUSE: Duration = Duration::from_millis(500);

/// The document's objects that controllers work on, keyed by name.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub deployments: BTreeMap<String, Deployment>,
    pub services: BTreeMap<String, Service>,
    pub ingresses: BTreeMap<String, Ingress>,
    pub crons: BTreeMap<String, CronJob>,
}

impl Parsed {
    pub(crate) fn of(objects: &[Object]) -> Self {
        let mut parsed = Self::default();
        for object in objects {
            let name = object.name.clone();
            match model::parse(object).0 {
                Some(Resource::Deployment(it)) => drop(parsed.deployments.insert(name, *it)),
                Some(Resource::Service(it)) => drop(parsed.services.insert(name, it)),
                Some(Resource::Ingress(it)) => drop(parsed.ingresses.insert(name, it)),
                Some(Resource::CronJob(it)) => drop(parsed.crons.insert(name, *it)),
                // Pods read the others. A refused object is in no document.
                Some(Resource::Claim | Resource::ConfigMap(_) | Resource::Secret | Resource::Job(_)) | None => {}
            }
        }
        parsed
    }
}

/// One environment's controllers.
pub(crate) struct Controller {
    pub context: Arc<LocalEnvironment>,
    /// Held during an application, so that only one runs at a time.
    pub applying: tokio::sync::Mutex<()>,
    pods: Mutex<BTreeMap<String, Arc<Pod>>>,
    frontends: Mutex<BTreeMap<String, Frontend>>,
    /// Keyed by the proxy's key.
    proxies: Mutex<BTreeMap<String, ProxyCheck>>,
    /// The Jobs that have a running task.
    jobs: Mutex<BTreeSet<String>>,
    /// Keyed by Deployment.
    progress: Mutex<BTreeMap<String, Progress>>,
    parsed: Mutex<Option<(Arc<Document>, Arc<Parsed>)>>,
    stop: CancellationToken,
}

/// The progress of a rollout, and since when it has not changed.
#[derive(Debug, Clone, Copy)]
struct Progress {
    generation: u64,
    /// The number of available pods of the wanted revision, and of all pods.
    far: (usize, usize),
    since: Instant,
}

/// Whether a task is working on a proxy, and when the last one did.
#[derive(Debug, Default, Clone, Copy)]
struct ProxyCheck {
    busy: bool,
    at: Option<Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Controller {
    /// Adopts the running containers and starts the controllers.
    pub(crate) async fn start(context: LocalEnvironment, stop: CancellationToken) -> Result<Arc<Self>, TargetError> {
        let controller = Arc::new(Self {
            context: Arc::new(context),
            applying: tokio::sync::Mutex::new(()),
            pods: Mutex::default(),
            frontends: Mutex::default(),
            proxies: Mutex::default(),
            jobs: Mutex::default(),
            progress: Mutex::default(),
            parsed: Mutex::default(),
            stop,
        });
        controller.adopt().await?;
        let looping = Arc::clone(&controller);
        controller.spawn(async move { looping.run().await });
        Ok(controller)
    }

    /// Runs `task` until the target is closed. The containers continue without it.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    pub(crate) fn close(&self) {
        self.stop.cancel();
    }

    pub(crate) fn pods_of(&self, deployment: &str) -> Vec<Arc<Pod>> {
        let all = lock(&self.pods);
        let mine = |pod: &&Arc<Pod>| matches!(&pod.owner, Owner::Deployment { name, .. } if name == deployment);
        all.values().filter(mine).cloned().collect()
    }

    pub(crate) fn parsed(&self) -> (Arc<Document>, Arc<Parsed>) {
        let document = self.context.store.read();
        let mut cached = lock(&self.parsed);
        match &*cached {
            Some((of, parsed)) if Arc::ptr_eq(of, &document) => (document, Arc::clone(parsed)),
            _ => {
                let parsed = Arc::new(Parsed::of(&document.objects));
                *cached = Some((Arc::clone(&document), Arc::clone(&parsed)));
                (document, parsed)
            }
        }
    }

    /// Whether the proxy `key` runs and knows its routes. The error says why not.
    pub(crate) fn frontend(&self, key: &str) -> Result<(), String> {
        match lock(&self.frontends).get(key) {
            Some(frontend) if frontend.running => Ok(()),
            Some(frontend) => Err(frontend.message.clone()),
            None => Err("its proxy is being started".into()),
        }
    }

    async fn adopt(self: &Arc<Self>) -> Result<(), TargetError> {
        let context = &self.context;
        let document = context.store.read();
        let folder = context.store.folder.join("proxies");
        if let Ok(entries) = std::fs::read_dir(&folder) {
            for entry in entries.flatten() {
                let key = entry.file_name().to_string_lossy().into_owned();
                lock(&self.frontends).insert(key, Frontend::open(entry.path()));
            }
        }
        let labels = [
            (names::INSTANCE, context.names.instance.as_str()),
            (names::ENVIRONMENT, &context.names.slug),
        ];
        let containers = context.engine.list(&labels).await?;
        // A container with a claim's label is a volume's opener. Keep it: it marks the volume as not ready.
        let of_nobody = |labels: &Labels| {
            let known = [names::POD, names::PROXY, names::CLAIM];
            !known.iter().any(|label| labels.contains_key(*label))
        };
        for container in containers.iter().filter(|container| of_nobody(&container.labels)) {
            context.engine.remove(&container.id).await?;
        }
        for (name, members) in names::by_label(&containers, names::POD) {
            let is_of_pod = |labels: &&Labels| labels.get(names::POD) == Some(&name);
            let of = containers.iter().map(|container| &container.labels).find(is_of_pod);
            let of = of.cloned().unwrap_or_default();
            if let Some(job) = of.get(names::JOB) {
                if !document.jobs.contains_key(job) {
                    container::clear(context, &name).await?;
                }
                continue;
            }
            let owner = of.get(names::DEPLOYMENT).zip(of.get(names::REVISION));
            let template = owner.and_then(|(deployment, revision)| {
                model::parse_template(document.revisions.get(&revision_key(deployment, revision))?)
            });
            let (Some((deployment, revision)), Some(template)) = (owner, template) else {
                container::clear(context, &name).await?;
                continue;
            };
            let owner = Owner::Deployment {
                name: deployment.clone(),
                revision: revision.clone(),
            };
            let leader = template
                .containers
                .first()
                .map(|first| context.names.container(&name, &first.name));
            let seen = match &leader {
                Some(leader) if members.contains(leader) => context.engine.inspect(leader).await?,
                _ => None,
            };
            let mut pod = Pod::new(name.clone(), owner, template);
            if let Some(seen) = seen {
                if matches!(seen.phase, Phase::Ended | Phase::Removing) {
                    // The pod ended while no server ran. Its task creates the containers again.
                    if let Some(leader) = &leader {
                        context.engine.remove(leader).await?;
                    }
                }
                let served = seen
                    .address
                    .is_some_and(|ip| lock(&self.frontends).values().any(|f| f.served(ip)));
                pod = pod.adopted(&seen, served);
            }
            tracing::info!(environment = %context.id, pod = name, "took over a pod");
            self.look_after(pod);
        }
        Ok(())
    }

    fn look_after(self: &Arc<Self>, pod: Pod) {
        let pod = Arc::new(pod);
        lock(&self.pods).insert(pod.name.clone(), Arc::clone(&pod));
        let controller = Arc::clone(self);
        self.spawn(async move {
            pod::run(Arc::clone(&controller.context), Arc::clone(&pod)).await;
            lock(&controller.pods).remove(&pod.name);
            controller.context.notify();
        });
    }

    async fn run(self: &Arc<Self>) {
        let mut troubled = false;
        loop {
            let wait = match self.pass().await {
                Ok(wait) => {
                    troubled = false;
                    wait
                }
                Err(error) => {
                    if !troubled {
                        tracing::error!(environment = %self.context.id, error = error.chain(), "a pass failed; trying again");
                    }
                    troubled = true;
                    WHILE_SCHEDULING
                }
            };
            let _ = tokio::time::timeout(wait, self.context.wake.notified()).await;
        }
    }

    /// Makes one pass. Returns how long to wait for the next change.
    async fn pass(self: &Arc<Self>) -> Result<Duration, TargetError> {
        // Look at the clock first. What was applied before this time is in the document, so that no old schedule decides on
        // a run that is due now.
        let now = self.context.clock.now();
        let (document, parsed) = self.parsed();
        let mut wait = IDLE;
        let needs_network = !document.objects.is_empty() || document.jobs.values().any(|job| job.end.is_none());
        if needs_network {
            let network = self.context.names.network();
            self.context
                .engine
                .ensure_network(&network, &self.context.names.labels())
                .await?;
        }
        for (name, deployment) in &parsed.deployments {
            if self.roll(name, deployment, &document).await? {
                wait = wait.min(WHILE_ROLLING);
            }
        }
        for pod in lock(&self.pods).values() {
            if let Owner::Deployment { name, .. } = &pod.owner
                && !parsed.deployments.contains_key(name)
                && !pod.is_leaving()
            {
                pod.let_go();
            }
        }
        if self.front(&document, &parsed) {
            wait = wait.min(WHILE_DRAINING);
        }
        self.jobs(&document, &parsed, now).await?;
        if !parsed.crons.is_empty() || !document.jobs.is_empty() {
            wait = wait.min(WHILE_SCHEDULING);
        }
        Ok(wait)
    }

    /// Takes the next steps for one Deployment. Returns whether it is rolling.
    async fn roll(
        self: &Arc<Self>,
        name: &str,
        deployment: &Deployment,
        document: &Document,
    ) -> Result<bool, TargetError> {
        let Some(rollout) = document.rollouts.get(name) else {
            return Ok(false);
        };
        let pods = self.pods_of(name);
        let is_current =
            |pod: &Pod| matches!(&pod.owner, Owner::Deployment { revision, .. } if *revision == rollout.revision);
        let mut rolling = false;
        let mut views = Vec::new();
        for pod in pods.iter().filter(|pod| !pod.is_leaving()) {
            let state = pod.state();
            let available = state
                .ready_since
                .is_some_and(|since| since.elapsed() >= deployment.min_ready);
            rolling |= state.ready && !available;
            views.push(rollout::PodView {
                name: pod.name.clone(),
                current: is_current(pod),
                ready: state.ready,
                available: state.ready && available,
            });
        }
        let leaving = u32::try_from(pods.len() - views.len()).unwrap_or(u32::MAX);
        if matches!(rollout.state, RolloutState::Failed { .. }) {
            return Ok(false);
        }
        let moves = rollout::decide(deployment, &views, leaving);
        for name in &moves.leave {
            if let Some(pod) = pods.iter().find(|pod| pod.name == *name) {
                pod.let_go();
                rolling = true;
            }
        }
        for _ in 0..moves.start {
            let revision = names::short_revision(&rollout.revision);
            let slot = (0..).map(|slot| format!("{name}-{revision}-{slot}"));
            let free = slot.into_iter().find(|name| !lock(&self.pods).contains_key(name));
            let Some(pod_name) = free else { break };
            let owner = Owner::Deployment {
                name: name.to_string(),
                revision: rollout.revision.clone(),
            };
            self.look_after(Pod::new(pod_name, owner, deployment.pod.clone()));
            rolling = true;
        }
        if rollout.state != RolloutState::Progressing {
            return Ok(rolling);
        }
        if moves.complete {
            let revision = rollout.revision.clone();
            self.context
                .store
                .update(|document| {
                    if let Some(rollout) = document.rollouts.get_mut(name)
                        && rollout.revision == revision
                    {
                        rollout.state = RolloutState::Complete;
                    }
                    // No pods of an old revision are left.
                    let (prefix, current) = (revision_key(name, ""), revision_key(name, &revision));
                    document
                        .revisions
                        .retain(|key, _| !key.starts_with(&prefix) || *key == current);
                })
                .await?;
            self.context.notify();
            return Ok(false);
        }
        self.judge(name, deployment, document, &pods, &views).await?;
        Ok(true)
    }

    /// Ends a rollout that makes no progress.
    async fn judge(
        &self,
        name: &str,
        deployment: &Deployment,
        document: &Document,
        pods: &[Arc<Pod>],
        views: &[rollout::PodView],
    ) -> Result<(), TargetError> {
        let Some(rollout) = document.rollouts.get(name) else {
            return Ok(());
        };
        let far = (
            views.iter().filter(|view| view.current && view.available).count(),
            pods.len(),
        );
        let since = {
            let mut all = lock(&self.progress);
            let now = Progress {
                generation: rollout.generation,
                far,
                since: Instant::now(),
            };
            let known = all.entry(name.to_string()).or_insert(now);
            if (known.generation, known.far) != (now.generation, now.far) {
                *known = now;
            }
            known.since
        };
        let current = |pod: &&Arc<Pod>| views.iter().any(|view| view.current && view.name == pod.name);
        let stuck = pods.iter().filter(current).find(|pod| pod.state().terminal);
        let late = since.elapsed() >= deployment.progress_deadline;
        if stuck.is_none() && !late {
            return Ok(());
        }
        let culprit = stuck.or_else(|| pods.iter().filter(current).find(|pod| !pod.state().ready));
        // A container that runs between two crashes is not ready because it crashed: report the crash.
        let why = culprit
            .map(|pod| {
                let state = pod.state();
                let fell = Some(&state.fell).filter(|fell| !fell.is_empty());
                fell.unwrap_or(&state.message).clone()
            })
            .filter(|message| !message.is_empty());
        let serving = views.iter().filter(|view| !view.current && view.ready).count();
        let mut message = match (stuck, culprit) {
            (Some(_), _) => why.unwrap_or_else(|| "a pod cannot be started".into()),
            (None, Some(_)) => format!(
                "no progress within {} s: {}",
                deployment.progress_deadline.as_secs(),
                why.unwrap_or_else(|| "its pods did not become ready".into())
            ),
            (None, None) => format!("no progress within {} s", deployment.progress_deadline.as_secs()),
        };
        if serving > 0 {
            message.push_str(&format!("; {serving} of the pods before it still serve"));
        }
        let mut log = Vec::new();
        if let Some(pod) = culprit {
            let crashed = pod.state().crash_log.clone();
            log = match pod.template.containers.first() {
                Some(first) if crashed.is_empty() => {
                    container::tail(&self.context, &pod.name, &pod.template, &first.name).await
                }
                _ => crashed,
            };
            message = environment::mask(&self.context, &pod.template).await.text(&message);
        }
        tracing::warn!(environment = %self.context.id, deployment = name, message, "a rollout failed");
        let generation = rollout.generation;
        let outcome = if stuck.is_some() {
            Outcome::Failed
        } else {
            Outcome::TimedOut
        };
        self.context
            .store
            .update(|document| {
                if let Some(rollout) = document.rollouts.get_mut(name)
                    && rollout.generation == generation
                {
                    rollout.state = RolloutState::Failed { outcome, message, log };
                }
            })
            .await?;
        self.context.notify();
        Ok(())
    }

    /// Tells the proxies about changes, and starts them. Returns whether a backend is draining.
    fn front(self: &Arc<Self>, document: &Document, parsed: &Parsed) -> bool {
        let pods: Vec<Arc<Pod>> = lock(&self.pods).values().cloned().collect();
        let wanted = frontend::wanted(&document.namespace, &parsed.services, &parsed.ingresses, &pods);
        let mut frontends = lock(&self.frontends);
        for one in &wanted {
            let folder = self.context.store.folder.join("proxies").join(&one.key);
            let frontend = frontends
                .entry(one.key.clone())
                .or_insert_with(|| Frontend::open(folder));
            if let Err(error) = frontend.tell(one) {
                tracing::error!(environment = %self.context.id, proxy = one.key, %error, "failed to write a proxy's routes");
                continue;
            }
            self.ensure_proxy(one, frontend);
        }
        let gone: Vec<String> = frontends
            .keys()
            .filter(|key| !wanted.iter().any(|one| one.key == **key))
            .cloned()
            .collect();
        for key in gone {
            self.remove_proxy(&key, &mut frontends);
        }
        let mut draining = false;
        for pod in pods.iter().filter(|pod| pod.is_leaving()) {
            let address = pod.state().address;
            let drained = address.is_none_or(|address| frontends.values().all(|frontend| frontend.drained(address)));
            if drained {
                pod.drained.send_replace(true);
            } else {
                draining = true;
            }
        }
        draining
    }

    fn ensure_proxy(self: &Arc<Self>, wanted: &Wanted, frontend: &Frontend) {
        let mut checks = lock(&self.proxies);
        let check = checks.entry(wanted.key.clone()).or_default();
        let pause = if frontend.running { PROXY_CHECK } else { PROXY_PAUSE };
        if check.busy || check.at.is_some_and(|at| at.elapsed() < pause) {
            return;
        }
        check.busy = true;
        let (controller, wanted, folder) = (Arc::clone(self), wanted.clone(), frontend.folder.clone());
        self.spawn(async move {
            let result = frontend::ensure(&controller.context, &wanted, &folder).await;
            if let Some(check) = lock(&controller.proxies).get_mut(&wanted.key) {
                *check = ProxyCheck {
                    busy: false,
                    at: Some(Instant::now()),
                };
            }
            let mut changed = false;
            if let Some(frontend) = lock(&controller.frontends).get_mut(&wanted.key) {
                let message = result.as_ref().map_or_else(TargetError::chain, |()| String::new());
                changed = frontend.running != result.is_ok() || frontend.message != message;
                frontend.running = result.is_ok();
                frontend.message = message;
            }
            if changed {
                if let Err(error) = &result {
                    tracing::error!(environment = %controller.context.id, proxy = wanted.key, error = error.chain(), "a proxy does not run");
                }
                controller.context.notify();
            }
        });
    }

    fn remove_proxy(self: &Arc<Self>, key: &str, frontends: &mut BTreeMap<String, Frontend>) {
        let mut checks = lock(&self.proxies);
        let check = checks.entry(key.to_string()).or_default();
        if check.busy {
            return;
        }
        check.busy = true;
        let Some(frontend) = frontends.remove(key) else { return };
        let (controller, key) = (Arc::clone(self), key.to_string());
        self.spawn(async move {
            let name = controller.context.names.proxy(&key);
            if let Err(error) = controller.context.engine.remove(&name).await {
                tracing::warn!(error = with_causes(&error), "failed to remove a proxy");
                lock(&controller.frontends).insert(key.clone(), frontend);
            } else if let Err(error) = std::fs::remove_dir_all(&frontend.folder)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, "failed to remove a proxy's folder");
            }
            lock(&controller.proxies).remove(&key);
            controller.context.notify();
        });
    }

    async fn jobs(self: &Arc<Self>, document: &Document, parsed: &Parsed, now: Timestamp) -> Result<(), TargetError> {
        for (name, cron) in &parsed.crons {
            self.schedule(name, cron, document, now).await?;
        }
        let document = self.context.store.read();
        for (name, record) in &document.jobs {
            if record.end.is_none() && lock(&self.jobs).insert(name.clone()) {
                let (controller, name) = (Arc::clone(self), name.clone());
                self.spawn(async move {
                    job::run(Arc::clone(&controller.context), name.clone()).await;
                    lock(&controller.jobs).remove(&name);
                    controller.context.notify();
                });
            }
        }
        // When a CronJob is deleted, its runs are deleted, too.
        let orphans = |ended: bool| -> Vec<String> {
            let of_nobody = |record: &JobRecord| {
                let cron = record.cron.as_ref();
                cron.is_some_and(|cron| !document.crons.contains_key(cron)) && record.end.is_some() == ended
            };
            let found = document.jobs.iter().filter(|(_, record)| of_nobody(record));
            found.map(|(name, _)| name.clone()).collect()
        };
        let running = orphans(false);
        if running.iter().any(|name| !document.jobs[name].canceled) {
            cancel(&self.context, &running).await?;
        }
        let ended = orphans(true);
        let mut outdated: Vec<&String> = ended.iter().collect();
        outdated.extend(
            document
                .jobs
                .iter()
                .filter(|(_, r)| job::removal(r).is_some_and(|at| at <= now))
                .map(|(n, _)| n),
        );
        for (name, cron) in &parsed.crons {
            outdated.extend(beyond_history(name, cron, &document));
        }
        for name in outdated {
            job::forget(&self.context, name).await?;
        }
        Ok(())
    }

    async fn schedule(
        &self,
        name: &str,
        cron: &CronJob,
        document: &Document,
        now: Timestamp,
    ) -> Result<(), TargetError> {
        let Some(record) = document.crons.get(name) else {
            return Ok(());
        };
        let active: Vec<String> = document
            .jobs
            .iter()
            .filter(|(_, job)| job.cron.as_deref() == Some(name) && job.end.is_none())
            .map(|(name, _)| name.clone())
            .collect();
        let (last, message, run) = match cron::due(cron, record.last, now, active.len()) {
            Due::Nothing => return Ok(()),
            Due::Held(_) => (
                record.last,
                "a run is due and waits for the one under way".to_string(),
                None,
            ),
            Due::TooManyMissed => {
                let message = "more than 100 runs were missed and given up; set `startingDeadlineSeconds`, or check the machine's clock";
                (now, message.to_string(), None)
            }
            Due::Start { at, replace } => {
                if replace {
                    cancel(&self.context, &active).await?;
                    // The earlier runs have to end first.
                    return Ok(());
                }
                (
                    at,
                    String::new(),
                    Some(job_object(name, cron, &cron::run_name(name, at))?),
                )
            }
        };
        if record.last == last && record.message == message {
            return Ok(());
        }
        let decided_on = document.named("CronJob", name);
        let began = self
            .context
            .store
            .update(|current| {
                // Somebody changed or removed the CronJob meanwhile. The next pass decides anew.
                if current.named("CronJob", name) != decided_on || current.crons.get(name) != Some(record) {
                    return None;
                }
                let changed = CronRecord { last, message };
                current.crons.insert(name.to_string(), changed);
                let run = run?;
                let job = run.name.clone();
                record_job(current, run, Some(name), now);
                Some(job)
            })
            .await?;
        if let Some(job) = began {
            tracing::info!(environment = %self.context.id, cron = name, job, "a scheduled run begins");
            self.context.notify();
        }
        Ok(())
    }

    /// Records a Job, unless one with its name is recorded. Its task starts in the next pass.
    pub(crate) async fn start_job(&self, object: Object, cron: Option<&str>) -> Result<(), TargetError> {
        let now = self.context.clock.now();
        self.context
            .store
            .update(|document| record_job(document, object, cron, now))
            .await?;
        self.context.notify();
        Ok(())
    }

    /// Removes everything of the environment from the engine.
    pub(crate) async fn wipe(&self, claims: bool) -> Result<(), TargetError> {
        self.close();
        let context = &self.context;
        let labels = [
            (names::INSTANCE, context.names.instance.as_str()),
            (names::ENVIRONMENT, &context.names.slug),
        ];
        // The second round finds what was being created during the first.
        for _ in 0..2 {
            let containers = context.engine.list(&labels).await?;
            let removals = containers.iter().map(|container| context.engine.remove(&container.id));
            futures::future::try_join_all(removals).await?;
        }
        for volume in context.engine.volumes(&labels).await? {
            let claim = volume.starts_with(&context.names.claim(""));
            if claims || !claim {
                context.engine.remove_volume(&volume).await?;
            }
        }
        context.engine.remove_network(&context.names.network()).await?;
        for folder in [context.store.folder.clone(), context.memory.join(&context.names.slug)] {
            match std::fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(TargetError::failed(format!("remove `{}`", folder.display()))(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The address of the environment's Ingresses.
    pub(crate) fn address(&self) -> Option<String> {
        lock(&self.frontends).get(INGRESS)?;
        self.context
            .store
            .read()
            .port
            .map(|port| format!("http://127.0.0.1:{port}"))
    }
}

fn record_job(document: &mut Document, object: Object, cron: Option<&str>, now: Timestamp) {
    document.jobs.entry(object.name.clone()).or_insert_with(|| JobRecord {
        object,
        cron: cron.map(str::to_string),
        began: now,
        attempt: 0,
        not_before: None,
        canceled: false,
        end: None,
    });
}

/// Tells Jobs to stop.
pub(crate) async fn cancel(context: &LocalEnvironment, jobs: &[String]) -> Result<(), TargetError> {
    context
        .store
        .update(|document| {
            for name in jobs {
                if let Some(record) = document.jobs.get_mut(name) {
                    record.canceled = true;
                }
            }
        })
        .await?;
    context.notify();
    Ok(())
}

/// The finished Jobs of a CronJob that are beyond its history limits, the oldest first.
fn beyond_history<'a>(name: &str, cron: &CronJob, document: &'a Document) -> Vec<&'a String> {
    let finished = |succeeded: bool| {
        let mut found: Vec<(&Timestamp, &String)> = document
            .jobs
            .iter()
            .filter(|(_, record)| record.cron.as_deref() == Some(name))
            .filter_map(|(name, record)| {
                let (JobEnd { outcome, .. }, at) = record.end.as_ref()?;
                (outcome.is_success() == succeeded).then_some((at, name))
            })
            .collect();
        found.sort();
        found
    };
    [(true, cron.keep_successful), (false, cron.keep_failed)]
        .into_iter()
        .flat_map(|(succeeded, keep)| {
            let found = finished(succeeded);
            let excess = found.len().saturating_sub(keep);
            found.into_iter().take(excess).map(|(_, name)| name)
        })
        .collect()
}

/// The Job that a CronJob starts.
pub(crate) fn job_object(cron: &str, of: &CronJob, name: &str) -> Result<Object, TargetError> {
    let mut metadata = of
        .job_template
        .get("metadata")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_else(Map::new);
    metadata.insert("name".into(), json!(name));
    let value = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": of.job_template.get("spec").cloned().unwrap_or_default(),
    });
    Object::from_value(value, &format!("CronJob/{cron}"))
        .map_err(TargetError::failed(format!("make a Job of the CronJob `{cron}`")))
}
