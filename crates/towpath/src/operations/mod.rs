//! The operations on environments: through a server if one is up, otherwise in this process.

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
use towpath_delivery::{AdoptionView, DriftView, EnvironmentView, Hold, LaptopRequest, PlanView, ReleaseView};
use towpath_deploy::LiveSecret;
use towpath_types::{Digest, EnvironmentId, Outcome, ReleaseId, ReleaseStatus, RunId, SecretBytes};

/// Something that was begun and can be followed to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started {
    /// A release.
    Release(ReleaseId),
    /// Nothing was begun: the environment already runs this release.
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
    /// Describes a release that was just requested.
    fn release(id: ReleaseId, number: i64, status: ReleaseStatus) -> Self {
        match status.is_over() {
            true => Self::Repeated { number },
            false => Self::Release(id),
        }
    }
}

/// Says that there is nothing to do, and returns a success.
fn repeated(number: i64) -> End {
    outln!("nothing to change: release {number} is exactly this, and it runs");
    End {
        outcome: Outcome::Succeeded,
        exit_code: None,
    }
}

/// The end of a release or a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// How it ended.
    pub outcome: Outcome,
    /// The exit code of a run, if it has one.
    pub exit_code: Option<i64>,
}

/// The operations on environments.
///
/// # Contract
/// - Every method looks at the environment as it is now.
/// - An error is for the person who typed the command. If a person has to see a plan first, the error is a
///   [`DeliveryError`](towpath_delivery::DeliveryError) with the plan, or an [`Unagreed`](crate::client::Unagreed). The same
///   request goes through once it names that plan.
/// - The caller has to follow what `deploy`, `rollback`, `run_job`, `run_cron_job` and `run_test` begin: without a server, only `follow`
///   carries it out.
#[async_trait]
pub trait Operations: Send + Sync {
    /// The state of the environment.
    async fn environment(&self, id: &EnvironmentId) -> Result<EnvironmentView>;

    /// The newest releases, newest first.
    async fn history(&self, id: &EnvironmentId) -> Result<Vec<ReleaseView>>;

    /// What `deploy` would do.
    async fn plan(&self, id: &EnvironmentId, request: LaptopRequest) -> Result<PlanView>;

    /// What `deploy` would take over, and from whom.
    async fn adoption(&self, id: &EnvironmentId, request: LaptopRequest) -> Result<AdoptionView>;

    /// Begins a release.
    async fn deploy(&self, id: &EnvironmentId, request: LaptopRequest) -> Result<Started>;

    /// Begins a rollback to the release `to`; without it, to the one before the current. `plan` is the plan that was agreed to.
    async fn rollback(&self, id: &EnvironmentId, to: Option<i64>, plan: Option<Digest>) -> Result<Started>;

    /// Begins a one-off job.
    async fn run_job(&self, id: &EnvironmentId, request: LaptopRequest) -> Result<Started>;

    /// Runs a cron job now. `plan` is the plan that was agreed to.
    async fn run_cron_job(&self, id: &EnvironmentId, name: &str, plan: Option<Digest>) -> Result<Started>;

    /// The names of the tests of what the environment runs, in their order.
    async fn tests(&self, id: &EnvironmentId) -> Result<Vec<String>>;

    /// Runs a test now. `plan` is the plan that was agreed to.
    async fn run_test(&self, id: &EnvironmentId, name: &str, plan: Option<Digest>) -> Result<Started>;

    /// Applies one cron job. Returns lines to print.
    async fn apply_cron_job(&self, id: &EnvironmentId, request: LaptopRequest) -> Result<Vec<String>>;

    /// The objects that differ from the release.
    async fn drift(&self, id: &EnvironmentId) -> Result<DriftView>;

    /// Locks the environment against others' deployments.
    async fn lock(&self, id: &EnvironmentId, reason: &str, lasts: SignedDuration) -> Result<Hold>;

    /// Unlocks the environment. `force` ends somebody else's lock, too.
    async fn unlock(&self, id: &EnvironmentId, force: bool) -> Result<()>;

    /// The Secrets that the environment's pods read, without values.
    async fn secrets(&self, id: &EnvironmentId) -> Result<Vec<LiveSecret>>;

    /// Sets a key of a Secret where pods read it.
    async fn set_secret(&self, id: &EnvironmentId, secret: &str, key: &str, value: SecretBytes) -> Result<()>;

    /// Removes a key of a Secret where pods read it.
    async fn unset_secret(&self, id: &EnvironmentId, secret: &str, key: &str) -> Result<()>;

    /// Prints the lines of what was begun as they arrive, and returns its end.
    async fn follow(&self, started: &Started) -> Result<End>;
}

/// The operations of the Towpath whose data directory `at` selects. If none is up and this shell knows clusters, the operations
/// of this process, which knows only what the clusters record about their releases.
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
        // The first request reports that the server does not answer.
        None => Ok(Box::new(OverHttp::new(client?))),
    }
}

/// Prints a line of a release. Escapes it, because it may quote a commit.
fn print_of_release(line: &str) {
    outln!("{line}");
}

/// Prints a line of a run as the application printed it, including colours.
fn print_of_run(line: &str) {
    out_raw!("{line}\n");
}

impl End {
    /// Turns the end into this command's success or failure.
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
