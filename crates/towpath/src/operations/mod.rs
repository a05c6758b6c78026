//! What commands do with environments: through a server where one is up, in this process where none is.

mod in_process;
mod nowhere;
mod over_http;
mod target;

pub use in_process::InProcess;
pub use over_http::{OverHttp, follow_release};
pub use target::target_settings;

use crate::{cli::At, client::Client};
use anyhow::{Result, bail};
use async_trait::async_trait;
use jiff::SignedDuration;
use towpath_delivery::{DriftView, EnvironmentView, Hold, LaptopRequest, PlanView, ReleaseView};
use towpath_types::{Digest, EnvironmentId, Outcome, ReleaseId, ReleaseStatus, RunId};

/// What was begun and is followed to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started {
    /// A release.
    Release(ReleaseId),
    /// Nothing: it runs already, as this release.
    Repeated {
        /// The release's number.
        number: i64,
    },
    /// A one-off run.
    Run {
        /// The run.
        id: RunId,
        /// The name of its Job in the environment.
        object: String,
    },
}

impl Started {
    /// What a release stands for that was just asked for.
    fn release(id: ReleaseId, number: i64, status: ReleaseStatus) -> Self {
        match status.is_over() {
            true => Self::Repeated { number },
            false => Self::Release(id),
        }
    }
}

/// Says that nothing has to be done, and ends well.
fn repeated(number: i64) -> End {
    outln!("nothing to change: release {number} is exactly this, and it runs");
    End {
        outcome: Outcome::Succeeded,
        exit_code: None,
    }
}

/// How a release or a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// How it ended.
    pub outcome: Outcome,
    /// The exit code of a run, if it has one.
    pub exit_code: Option<i64>,
}

/// What commands do with environments.
///
/// # Contract
/// - Every method looks at the environment as it is now.
/// - An error is for the person who typed the command. Where a plan has to be looked at first, it is a [`DeliveryError`](towpath_delivery::DeliveryError) with
///   the plan, or an [`Unagreed`](crate::client::Unagreed); the same request goes through if it names that plan.
/// - What `deploy`, `rollback`, `run_job` and `run_cron_job` begin ends only if it is followed: in this process nobody else
///   carries it out.
#[async_trait]
pub trait Operations: Send + Sync {
    /// What runs there.
    async fn environment(&self, id: &EnvironmentId) -> Result<EnvironmentView>;

    /// Its newest releases, newest first.
    async fn history(&self, id: &EnvironmentId) -> Result<Vec<ReleaseView>>;

    /// What `deploy` would do.
    async fn plan(&self, id: &EnvironmentId, request: LaptopRequest) -> Result<PlanView>;

    /// Begins a release.
    async fn deploy(&self, id: &EnvironmentId, request: LaptopRequest) -> Result<Started>;

    /// Begins to go back to the release `to`; without it, to the one before the current. `plan` is what was agreed to.
    async fn rollback(&self, id: &EnvironmentId, to: Option<i64>, plan: Option<Digest>) -> Result<Started>;

    /// Begins a one-off job.
    async fn run_job(&self, id: &EnvironmentId, request: LaptopRequest) -> Result<Started>;

    /// Runs a cron job now. `plan` is what was agreed to.
    async fn run_cron_job(&self, id: &EnvironmentId, name: &str, plan: Option<Digest>) -> Result<Started>;

    /// Applies one cron job. Answers with lines to print.
    async fn apply_cron_job(&self, id: &EnvironmentId, request: LaptopRequest) -> Result<Vec<String>>;

    /// What is not as the release has it.
    async fn drift(&self, id: &EnvironmentId) -> Result<DriftView>;

    /// Keeps others from deploying.
    async fn lock(&self, id: &EnvironmentId, reason: &str, lasts: SignedDuration) -> Result<Hold>;

    /// Lets everybody deploy again. `force` ends somebody else's lock, too.
    async fn unlock(&self, id: &EnvironmentId, force: bool) -> Result<()>;

    /// Prints the lines of what was begun as they come, and answers with its end.
    async fn follow(&self, started: &Started) -> Result<End>;
}

/// The operations of the Towpath whose data directory `at` means. If none is up and this shell knows clusters, those of this
/// process, which knows what the clusters themselves say of their releases.
///
/// # Errors
/// With exit code 3 when there is neither.
pub async fn operations(at: &At) -> Result<Box<dyn Operations>> {
    let client = Client::new(at);
    if let Ok(client) = &client
        && client.is_up().await
    {
        return Ok(Box::new(OverHttp::new(client.clone())));
    }
    match InProcess::start(at.project.as_deref()).await? {
        Some(here) => {
            eprintln!("No Towpath is up here: this command works with the clusters of this shell by itself");
            Ok(Box::new(here))
        }
        // Whatever is asked of it says that it does not answer.
        None => Ok(Box::new(OverHttp::new(client?))),
    }
}

/// Prints a line of a release: it may quote what a commit says.
fn print_of_release(line: &str) {
    outln!("{line}");
}

/// Prints a line of a run as the application printed it, its colours too.
fn print_of_run(line: &str) {
    out_raw!("{line}\n");
}

impl End {
    /// The end as this command's success or failure.
    pub fn expect_success(self, what: &str) -> Result<()> {
        match self.outcome {
            Outcome::Succeeded => Ok(()),
            Outcome::Rejected => bail!("{what} was refused"),
            Outcome::Canceled => bail!("{what} was canceled"),
            Outcome::Errored => bail!("{what} ended with an error"),
            outcome @ (Outcome::Failed | Outcome::TimedOut | Outcome::Skipped) => {
                bail!("{what} {}", outcome.as_str().replace('_', " "))
            }
        }
    }
}
