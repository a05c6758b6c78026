//! One pod, from its first container to its last request.
//!
//! One task looks after each pod. The task reads the engine's state and takes the next step, so it does not matter whether it
//! created the containers or found them.

use super::{
    container,
    local_environment::LocalEnvironment,
    model::{Container, PodTemplate, Probe},
    mounted, names,
    probe::Endpoint,
    start_error::StartError,
};
use futures::{FutureExt, StreamExt, future, future::BoxFuture, stream::FuturesUnordered};
use jiff::Timestamp;
use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use towpath_container::{ContainerState, Labels, Network};
use towpath_types::with_causes;

/// A container that ran for this long restarts without a pause.
///
/// Source: <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy>
const SETTLED: Duration = Duration::from_secs(600);
/// The longest pause between two starts.
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);
/// Probe a container at least this often until it is ready for the first time, so that nobody waits ten seconds for nothing.
const EAGER: Duration = Duration::from_millis(500);
/// How often to retry a pod that cannot start, in case somebody has fixed the problem.
const RETRY_TERMINAL: Duration = Duration::from_secs(300);
/// The least time between the stop signal and the kill, even if draining used up the grace period.
///
/// Source: <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination> (the one-off extension of 2 s)
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// The owner of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    Deployment { name: String, revision: String },
    Job { name: String },
}

impl Owner {
    pub(crate) fn labels(&self) -> Labels {
        match self {
            Self::Deployment { name, revision } => Labels::from([
                (names::DEPLOYMENT.to_string(), name.clone()),
                (names::REVISION.to_string(), revision.clone()),
            ]),
            Self::Job { name } => Labels::from([(names::JOB.to_string(), name.clone())]),
        }
    }
}

/// The state of a pod.
#[derive(Debug, Clone)]
pub(crate) struct PodState {
    pub address: Option<IpAddr>,
    pub ready: bool,
    pub ready_since: Option<Instant>,
    pub leaving: bool,
    pub restarts: u32,
    /// What it waits for, or why it failed; empty if it is well.
    pub message: String,
    /// Whether waiting cannot help.
    pub terminal: bool,
    /// How a container last ended; empty if none did.
    pub fell: String,
    /// The output of that container before it ended.
    pub crash_log: Vec<String>,
    pub since: Timestamp,
}

/// One pod.
pub(crate) struct Pod {
    pub name: String,
    pub owner: Owner,
    pub template: PodTemplate,
    state: Mutex<PodState>,
    /// Cancelled when the pod has to stop.
    leave: CancellationToken,
    /// Whether all proxies have reported that the pod has no requests left.
    pub drained: watch::Sender<bool>,
}

impl Pod {
    pub(crate) fn new(name: String, owner: Owner, template: PodTemplate) -> Self {
        Self {
            name,
            owner,
            template,
            state: Mutex::new(PodState {
                address: None,
                ready: false,
                ready_since: None,
                leaving: false,
                restarts: 0,
                message: String::new(),
                terminal: false,
                fell: String::new(),
                crash_log: Vec::new(),
                since: Timestamp::now(),
            }),
            leave: CancellationToken::new(),
            drained: watch::channel(false).0,
        }
    }

    /// Adopts a pod that an earlier server left running.
    pub(crate) fn adopted(self, seen: &ContainerState, was_ready: bool) -> Self {
        let restarts = seen.labels.get(names::RESTARTS).and_then(|text| text.parse().ok());
        {
            let mut state = self.state();
            state.restarts = restarts.unwrap_or(0);
            if seen.is_running() {
                state.address = seen.address;
                state.ready = was_ready;
                state.ready_since = was_ready.then(Instant::now);
            }
        }
        self
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, PodState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the pod to stop. It is gone when its task has ended.
    pub(crate) fn let_go(&self) {
        let mut state = self.state();
        state.leaving = true;
        state.ready = false;
        drop(state);
        self.leave.cancel();
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leave.is_cancelled()
    }

    pub(crate) async fn told_to_leave(&self) {
        self.leave.cancelled().await;
    }

    fn set(&self, context: &LocalEnvironment, change: impl FnOnce(&mut PodState)) {
        change(&mut self.state());
        context.notify();
    }

    fn set_ready(&self, context: &LocalEnvironment, ready: bool, message: &str) {
        let mut state = self.state();
        let ready = ready && !state.leaving;
        if state.ready == ready && state.message == message {
            return;
        }
        if state.ready != ready {
            state.ready_since = ready.then(Instant::now);
            state.since = Timestamp::now();
        }
        state.ready = ready;
        state.message = message.to_string();
        drop(state);
        context.notify();
    }

    /// The container whose network the whole pod shares.
    fn first(&self) -> Option<&Container> {
        self.template.containers.first()
    }

    fn labels(&self) -> Labels {
        let mut labels = self.owner.labels();
        labels.insert(names::RESTARTS.to_string(), self.state().restarts.to_string());
        labels
    }
}

/// Why a container has to restart.
enum Ended {
    /// `code` is `None` if somebody removed the container.
    Exited { index: usize, code: Option<i64> },
    /// A probe failed too often.
    Unhealthy { index: usize, why: String },
}

/// Looks after a Deployment's pod until it is told to stop, and then until it is gone.
pub(crate) async fn run(context: Arc<LocalEnvironment>, pod: Arc<Pod>) {
    let mut failures: u32 = 0;
    // A container that was found running does not have to pass its startup probe again.
    let mut adopted = pod.state().address.is_some();
    while !pod.is_leaving() {
        let began = Instant::now();
        let pause = match bring_up(&context, &pod).await {
            Ok(Some(address)) => {
                pod.set(&context, |state| {
                    state.address = Some(address);
                    state.terminal = false;
                });
                let ended = tokio::select! {
                    ended = watch_over(&context, &pod, address, adopted) => ended,
                    () = pod.told_to_leave() => break,
                };
                adopted = false;
                fell(&context, &pod, ended).await;
                if began.elapsed() > SETTLED {
                    failures = 0;
                }
                failures += 1;
                pause_before(failures, context.backoff)
            }
            Ok(None) => break,
            Err(error) => {
                failures += 1;
                let terminal = matches!(error, StartError::Terminal(_));
                tracing::warn!(environment = %context.id, pod = %pod.name, %error, terminal, "a pod does not start");
                pod.set(&context, |state| {
                    state.message = error.to_string();
                    state.terminal = terminal;
                    state.ready = false;
                });
                if terminal {
                    RETRY_TERMINAL
                } else {
                    pause_before(failures + 1, context.backoff)
                }
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = pod.told_to_leave() => break,
        }
    }
    see_out(&context, &pod).await;
}

/// The pause before a container that failed `failures` times restarts. It is zero the first time, and then doubles.
pub(crate) fn pause_before(failures: u32, backoff: Duration) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        more => backoff.saturating_mul(1 << (more - 2).min(10)).min(LONGEST_BACKOFF),
    }
}

/// Starts every container that does not run. Returns the pod's address, or `None` if the pod was told to stop meanwhile.
pub(crate) async fn bring_up(context: &LocalEnvironment, pod: &Pod) -> Result<Option<IpAddr>, StartError> {
    let Some(first) = pod.first() else {
        return Err(StartError::Terminal("the pod has no container".into()));
    };
    let labels = pod.labels();
    let leader = context.names.container(&pod.name, &first.name);
    if context.engine.inspect(&leader).await?.is_none() {
        // The others used the network of the removed container, and can no longer reach anything.
        for container in pod.template.containers.iter().skip(1) {
            context
                .engine
                .remove(&context.names.container(&pod.name, &container.name))
                .await?;
        }
        tokio::select! {
            pulled = container::ensure_images(context, &pod.template) => pulled?,
            () = pod.told_to_leave() => return Ok(None),
        }
        mounted::ensure(context, &pod.name, &pod.template).await?;
        for container in &pod.template.init_containers {
            if !initialise(context, pod, container, &labels).await? {
                return Ok(None);
            }
        }
    }
    let mut address = None;
    for (index, container) in pod.template.containers.iter().enumerate() {
        if pod.is_leaving() {
            return Ok(None);
        }
        let network = if index == 0 {
            own_network(context)
        } else {
            Network::OfContainer(leader.clone())
        };
        let seen = container::ensure(context, &pod.name, &pod.template, container, network, &labels).await?;
        if index == 0 {
            address = seen.address;
        }
    }
    // A container that has already ended has no address. Whoever watches it sees its end.
    Ok(Some(address.unwrap_or(IpAddr::from([0, 0, 0, 0]))))
}

/// The environment's network. In it, the first container answers only to its own name.
fn own_network(context: &LocalEnvironment) -> Network {
    Network::Named {
        name: context.names.network(),
        aliases: Vec::new(),
    }
}

/// Runs an init container to its end. Returns `false` if the pod was told to stop meanwhile.
async fn initialise(
    context: &LocalEnvironment,
    pod: &Pod,
    container: &Container,
    labels: &Labels,
) -> Result<bool, StartError> {
    let name = context.names.container(&pod.name, &container.name);
    let network = own_network(context);
    container::ensure(context, &pod.name, &pod.template, container, network, labels).await?;
    let code = tokio::select! {
        code = context.engine.wait(&name) => code,
        () = pod.told_to_leave() => return Ok(false),
    };
    if code == Some(0) {
        return Ok(true);
    }
    let log = container::tail(context, &pod.name, &pod.template, &container.name).await;
    pod.set(context, |state| state.crash_log = log);
    context.engine.remove(&name).await?;
    let code = code.map_or("no exit code".to_string(), |code| format!("exit code {code}"));
    Err(StartError::Passing(format!(
        "the init container `{}` ended with {code}",
        container.name
    )))
}

/// Watches running containers until one of them has to restart.
async fn watch_over(context: &Arc<LocalEnvironment>, pod: &Arc<Pod>, address: IpAddr, adopted: bool) -> Ended {
    let containers = &pod.template.containers;
    let was_ready = pod.state().ready;
    let ready = Arc::new(Mutex::new(vec![(was_ready, String::new()); containers.len()]));
    let mut ends: FuturesUnordered<BoxFuture<'static, Ended>> = FuturesUnordered::new();
    for (index, container) in containers.iter().enumerate() {
        let endpoint = Endpoint {
            engine: context.engine.clone(),
            container: context.names.container(&pod.name, &container.name),
            address,
        };
        let (engine, name) = (context.engine.clone(), endpoint.container.clone());
        ends.push(
            async move {
                let code = engine.wait(&name).await;
                Ended::Exited { index, code }
            }
            .boxed(),
        );
        let (context, pod, ready) = (Arc::clone(context), Arc::clone(pod), Arc::clone(&ready));
        let container = container.clone();
        ends.push(
            async move {
                let say = |is_ready: bool, message: String| {
                    let mut all = ready.lock().unwrap_or_else(PoisonError::into_inner);
                    all[index] = (is_ready, message);
                    let message = all
                        .iter()
                        .map(|(_, text)| text.as_str())
                        .find(|text| !text.is_empty())
                        .unwrap_or("");
                    pod.set_ready(&context, all.iter().all(|(ready, _)| *ready), message);
                };
                let why = examine(&endpoint, &container, adopted, was_ready, say).await;
                Ended::Unhealthy { index, why }
            }
            .boxed(),
        );
    }
    ends.next().await.unwrap_or(Ended::Exited { index: 0, code: None })
}

/// Probes a container until a probe demands a restart. Returns the reason.
async fn examine(
    endpoint: &Endpoint,
    container: &Container,
    adopted: bool,
    was_ready: bool,
    say: impl Fn(bool, String),
) -> String {
    let delay = |probe: &Probe| if adopted { Duration::ZERO } else { probe.initial_delay };
    if let Some(probe) = &container.startup {
        tokio::time::sleep(delay(probe)).await;
        let mut failures = 0;
        while let Err(why) = endpoint.ask(probe).await {
            failures += 1;
            if failures >= probe.failure_threshold {
                return format!(
                    "the startup probe of `{}` failed {failures} times: {why}",
                    container.name
                );
            }
            say(false, format!("`{}` has not started: {why}", container.name));
            tokio::time::sleep(probe.period).await;
        }
    }
    let readiness = async {
        let Some(probe) = &container.readiness else {
            say(true, String::new());
            return future::pending::<String>().await;
        };
        if !was_ready {
            say(false, format!("`{}` is not ready yet", container.name));
        }
        tokio::time::sleep(delay(probe)).await;
        let (mut ready, mut once, mut streak) = (was_ready, was_ready, 0);
        loop {
            let asked = endpoint.ask(probe).await;
            if asked.is_ok() == ready {
                streak = 0;
            } else {
                streak += 1;
            }
            match asked {
                Ok(()) if !ready && streak >= probe.success_threshold => {
                    (ready, once, streak) = (true, true, 0);
                    say(true, String::new());
                }
                Err(why) if ready && streak >= probe.failure_threshold => {
                    (ready, streak) = (false, 0);
                    say(false, format!("`{}` is no longer ready: {why}", container.name));
                }
                Err(why) if !ready => say(false, format!("`{}` is not ready: {why}", container.name)),
                _ => {}
            }
            tokio::time::sleep(if once { probe.period } else { probe.period.min(EAGER) }).await;
        }
    };
    let liveness = async {
        let Some(probe) = &container.liveness else {
            return future::pending::<String>().await;
        };
        tokio::time::sleep(delay(probe)).await;
        let mut failures = 0;
        loop {
            match endpoint.ask(probe).await {
                Ok(()) => failures = 0,
                Err(why) => {
                    failures += 1;
                    if failures >= probe.failure_threshold {
                        return format!(
                            "the liveness probe of `{}` failed {failures} times: {why}",
                            container.name
                        );
                    }
                }
            }
            tokio::time::sleep(probe.period).await;
        }
    };
    tokio::select! {
        never = readiness => never,
        why = liveness => why,
    }
}

/// Saves a container's output, records why it ended, and removes it, so that it is created again.
async fn fell(context: &LocalEnvironment, pod: &Pod, ended: Ended) {
    let (index, mut message) = match &ended {
        Ended::Unhealthy { index, why } => (*index, why.clone()),
        Ended::Exited {
            index,
            code: Some(code),
        } => (*index, format!("exited with code {code}")),
        Ended::Exited { index, code: None } => (*index, "was removed by somebody else".to_string()),
    };
    let Some(container) = pod.template.containers.get(index) else {
        return;
    };
    let name = context.names.container(&pod.name, &container.name);
    if matches!(ended, Ended::Exited { .. }) {
        if let Ok(Some(seen)) = context.engine.inspect(&name).await
            && seen.out_of_memory
        {
            message = format!("{message} (out of memory)");
        }
        message = format!("`{}` {message}", container.name);
    }
    tracing::warn!(environment = %context.id, pod = %pod.name, message, "a container is started again");
    pod.set(context, |state| {
        state.ready = false;
        state.ready_since = None;
        state.restarts += 1;
        state.message = if state.restarts > 1 {
            format!("CrashLoopBackOff: {message}")
        } else {
            message
        };
        state.fell.clone_from(&state.message);
    });
    if matches!(ended, Ended::Unhealthy { .. })
        && let Err(error) = context.engine.stop(&name, pod.template.grace).await
    {
        tracing::warn!(error = with_causes(&error), "failed to stop an unhealthy container");
    }
    let log = container::tail(context, &pod.name, &pod.template, &container.name).await;
    pod.set(context, |state| state.crash_log = log);
    // The other containers use the network of the first one, and cannot outlive it.
    let fallen = if index == 0 {
        &pod.template.containers[..]
    } else {
        std::slice::from_ref(container)
    };
    for container in fallen.iter().rev() {
        let name = context.names.container(&pod.name, &container.name);
        if let Err(error) = context.engine.remove(&name).await {
            tracing::warn!(error = with_causes(&error), "failed to remove a container that ended");
        }
    }
}

/// Waits until no proxy sends requests to the pod, runs its hooks, stops it and removes it, all within the grace period.
async fn see_out(context: &Arc<LocalEnvironment>, pod: &Arc<Pod>) {
    let deadline = Instant::now() + pod.template.grace;
    let address = pod.state().address;
    if address.is_some() {
        let mut drained = pod.drained.subscribe();
        let _ = tokio::time::timeout_at(deadline, drained.wait_for(|drained| *drained)).await;
    }
    if let Some(address) = address {
        let hooks = pod.template.containers.iter().filter_map(|container| {
            let hook = container.pre_stop.clone()?;
            let endpoint = Endpoint {
                engine: context.engine.clone(),
                container: context.names.container(&pod.name, &container.name),
                address,
            };
            Some(async move { endpoint.hook(&hook).await })
        });
        let _ = tokio::time::timeout_at(deadline, future::join_all(hooks)).await;
    }
    let left = deadline.saturating_duration_since(Instant::now()).max(LEAST_GRACE);
    stop(context, pod, left).await;
    while let Err(error) = container::clear(context, &pod.name).await {
        tracing::warn!(pod = %pod.name, error = error.chain(), "failed to remove a pod; trying again");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Stops all containers of a pod at once.
pub(crate) async fn stop(context: &LocalEnvironment, pod: &Pod, grace: Duration) {
    let all = pod.template.init_containers.iter().chain(&pod.template.containers);
    let stops = all.map(|container| async {
        let name = context.names.container(&pod.name, &container.name);
        if let Err(error) = context.engine.stop(&name, grace).await {
            tracing::warn!(
                container = name,
                error = with_causes(&error),
                "failed to stop a container"
            );
        }
    });
    future::join_all(stops).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_minutes() {
        let pauses: Vec<u64> = (0..9)
            .map(|n| pause_before(n, Duration::from_secs(10)).as_secs())
            .collect();
        assert_eq!(pauses, [0, 0, 10, 20, 40, 80, 160, 300, 300]);
    }
}
