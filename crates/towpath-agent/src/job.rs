//! One job from its specification to its last report.

use crate::{
    cache, checkout,
    client::{Client, ClientError},
    options::AgentOptions,
    run,
    spool::{DEFAULT_LIMIT_BYTES, Spool},
    step::{RunningJob, StepEnd, go_duration},
    store,
    surroundings::Surroundings,
    uplink::Uplink,
    workspace,
};
use jiff::Timestamp;
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use towpath_protocol::{JobSpec, Orders, Report, Step, StepAction, StepWhen, route};
use towpath_types::{Mask, Outcome};

/// The pause after the server answered "not ready yet" without holding the request open.
const READY_PAUSE: Duration = Duration::from_millis(50);

/// Whether the server knows how the job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Yes,
    /// The server no longer knows the job, so nobody wants to hear its outcome.
    NobodyAsks,
}

/// Gets this agent's job from the server and runs it.
pub(crate) async fn run(client: Client, options: &AgentOptions) -> Result<Told, String> {
    let Some(spec) = specification(&client).await? else {
        return Ok(Told::NobodyAsks);
    };
    let (uplink, telling) = Uplink::start(client.clone());
    let (outcome, message) = match Surroundings::prepare(options, &spec) {
        Ok(surroundings) => {
            let mask = Mask::new(spec.mask.iter().chain([&options.token]).chain(&spec.step_token));
            let job = RunningJob {
                client: client.clone(),
                surroundings: Arc::new(surroundings),
                spec: Arc::new(spec),
                mask,
            };
            Runner::new(job, uplink.clone()).run().await
        }
        Err(error) => (Outcome::Errored, Some(error.to_string())),
    };
    uplink.report(Report::JobFinished {
        outcome,
        message,
        at: Timestamp::now(),
    });
    uplink.close();
    match telling.await {
        Ok(true) => Ok(Told::Yes),
        Ok(false) => Ok(Told::NobodyAsks),
        Err(error) => Err(format!("failed to report to the server: {error}")),
    }
}

async fn specification(client: &Client) -> Result<Option<JobSpec>, String> {
    loop {
        match client.get_json::<JobSpec>(route::JOB).await {
            Ok(Some(spec)) => return Ok(Some(spec)),
            Ok(None) => tokio::time::sleep(READY_PAUSE).await,
            Err(ClientError::Gone) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Why the whole job has to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stopped {
    Canceled,
    TimedOut,
    /// A log cannot be kept.
    LogLost(String),
}

struct Runner {
    job: RunningJob,
    uplink: Uplink,
    /// Cancelled when the whole job has to stop.
    stop: CancellationToken,
    /// The outcome of the steps so far.
    outcome: Outcome,
    message: Option<String>,
}

impl Runner {
    fn new(job: RunningJob, uplink: Uplink) -> Self {
        Self {
            job,
            uplink,
            stop: CancellationToken::new(),
            outcome: Outcome::Succeeded,
            message: None,
        }
    }

    async fn run(mut self) -> (Outcome, Option<String>) {
        let watch = tokio::spawn(watch(
            self.job.client.clone(),
            self.uplink.clone(),
            self.stop.clone(),
            self.job.spec.time_limit_seconds,
        ));
        let mut background = JoinSet::new();
        let end_of_background = CancellationToken::new();
        let steps = self.job.spec.steps.clone();
        for (index, step) in (0..).zip(&steps) {
            if self.stop.is_cancelled() || self.job.surroundings.halt_file().exists() {
                break;
            }
            if !self.wants(step.when) {
                continue;
            }
            if matches!(&step.action, StepAction::Run(run) if run.background) {
                let (job, uplink, step) = (self.job.clone(), self.uplink.clone(), step.clone());
                let stop = end_of_background.clone();
                background.spawn(async move { execute(&job, &uplink, index, &step, &stop).await });
                continue;
            }
            let end = execute(&self.job, &self.uplink, index, step, &self.stop).await;
            self.note(step, end);
        }
        // Background steps end with the job, and their outcomes do not matter.
        end_of_background.cancel();
        while background.join_next().await.is_some() {}
        watch.abort();
        match watch.await {
            Ok(Stopped::TimedOut) => {
                let limit = go_duration(Duration::from_secs(
                    self.job.spec.time_limit_seconds.unwrap_or_default(),
                ));
                (Outcome::TimedOut, Some(format!("the job ran longer than {limit}")))
            }
            Ok(Stopped::Canceled) => (Outcome::Canceled, None),
            Ok(Stopped::LogLost(why)) => (Outcome::Errored, Some(why)),
            // The watch was aborted: nothing stopped the job.
            Err(_) => match self.uplink.told().await {
                Some(why) if self.outcome.is_success() => (Outcome::Errored, Some(why)),
                _ => (self.outcome, self.message),
            },
        }
    }

    fn wants(&self, when: StepWhen) -> bool {
        match when {
            StepWhen::OnSuccess => self.outcome.is_success(),
            StepWhen::Always => true,
            StepWhen::OnFail => !self.outcome.is_success(),
        }
    }

    fn note(&mut self, step: &Step, end: StepEnd) {
        if end.outcome.is_success() || !self.outcome.is_success() {
            return;
        }
        self.outcome = end.outcome;
        let name = self.job.mask.text(&step.name);
        self.message = end
            .message
            .map(|message| format!("{name}: {}", self.job.mask.text(&message)));
    }
}

/// Waits for a reason to stop the whole job: an order, the time limit, a server that no longer knows the job, or a log that
/// cannot be kept.
async fn watch(client: Client, uplink: Uplink, stop: CancellationToken, limit: Option<u64>) -> Stopped {
    let orders = async {
        loop {
            match client.get_json::<Orders>(route::ORDERS).await {
                Ok(Some(Orders { cancel: true })) | Err(ClientError::Gone) => return,
                Ok(_) => {}
                // Ask again: an order that cannot be read now may be readable later.
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    };
    let deadline = async {
        match limit {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    let why = tokio::select! {
        () = orders => Stopped::Canceled,
        () = client.gone().cancelled() => Stopped::Canceled,
        () = deadline => Stopped::TimedOut,
        why = uplink.loss() => Stopped::LogLost(why),
    };
    stop.cancel();
    why
}

async fn execute(job: &RunningJob, uplink: &Uplink, index: u32, step: &Step, stop: &CancellationToken) -> StepEnd {
    let limit = job.spec.log_limit_bytes.unwrap_or(DEFAULT_LIMIT_BYTES);
    let begun = Spool::begin(
        &job.surroundings.state.join("logs"),
        index,
        &job.mask,
        limit,
        uplink.news(),
    );
    let (mut spool, log) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            return StepEnd::new(
                Outcome::Errored,
                Some(format!("failed to begin the step's log: {error}")),
            );
        }
    };
    let command = match &step.action {
        StepAction::Run(run) => Some(job.mask.text(&run.command)),
        _ => None,
    };
    let started = Report::StepStarted {
        step: index,
        name: job.mask.text(&step.name),
        command,
        at: Timestamp::now(),
    };
    uplink.begin(started, log);
    let end = perform(job, index, step, &mut spool, stop).await;
    drop(spool);
    uplink.report(Report::StepFinished {
        step: index,
        exit_code: end.exit_code,
        outcome: end.outcome,
        message: end.message.as_deref().map(|message| job.mask.text(message)),
        at: Timestamp::now(),
    });
    end
}

async fn perform(job: &RunningJob, index: u32, step: &Step, spool: &mut Spool, stop: &CancellationToken) -> StepEnd {
    if let StepAction::Run(run) = &step.action {
        return run::run(job, index, run, spool, stop).await;
    }
    let work = async {
        match &step.action {
            StepAction::Run(_) => Ok(()),
            StepAction::Checkout { path } => checkout::checkout(job, path, spool).await,
            StepAction::SaveCache { paths, key } => cache::save(job, paths, key, spool).await,
            StepAction::RestoreCache { keys } => cache::restore(job, keys, spool).await,
            StepAction::PersistToWorkspace { root, paths } => workspace::persist(job, index, root, paths, spool).await,
            StepAction::AttachWorkspace { at } => workspace::attach(job, at, spool).await,
            StepAction::StoreArtifacts { path, destination } => {
                store::artifacts(job, path, destination.as_deref(), spool).await
            }
            StepAction::StoreTestResults { path } => store::test_results(job, path, spool).await,
        }
    };
    tokio::select! {
        result = work => result.into(),
        () = stop.cancelled() => StepEnd::new(Outcome::Canceled, None),
    }
}
