//! What happens to a workflow, and what follows from it.

use super::{definition::Definition, timer::Timer};
use jiff::Timestamp;
use towpath_types::Outcome;

/// Something that happened. An event is stored before anything acts on it.
///
/// `job` is the job's name in the workflow, `attempt` counts a job's attempts from 1, and `at` is when it happened by the
/// clock of whoever reports it: clocks differ and jump, so a later event may have an earlier moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Event {
    /// The workflow was made. Always the first event, and only the first.
    Created {
        definition: Definition,
        /// In a rerun: the jobs that succeeded in the workflow before. They do not run again.
        succeeded: Vec<String>,
        at: Timestamp,
    },
    /// A server took the attempt from the queue. Commit this before you start anything for the attempt.
    JobClaimed {
        job: String,
        attempt: u32,
        /// The server's name.
        by: String,
        at: Timestamp,
    },
    /// A claimed attempt will not be started by its server, which is gone. The job is queued again, as its next attempt.
    JobReleased {
        job: String,
        attempt: u32,
        /// Why, for a person.
        reason: String,
        at: Timestamp,
    },
    /// The attempt's environment is up.
    JobStarted { job: String, attempt: u32, at: Timestamp },
    /// The attempt ended.
    JobFinished {
        job: String,
        attempt: u32,
        outcome: Outcome,
        /// Why, for a person.
        message: Option<String>,
        at: Timestamp,
    },
    /// Somebody, or a policy, wants the job to run again. `attempt` is the attempt that ended or that was lost: naming it
    /// keeps a doubled request from giving up the attempt that the first one asked for.
    RetryRequested {
        job: String,
        attempt: u32,
        by: String,
        at: Timestamp,
    },
    /// Somebody opened a gate.
    Approved {
        job: String,
        by: String,
        /// The whole digest of the plan that they were shown.
        plan: Option<String>,
        at: Timestamp,
    },
    /// Somebody wants the whole workflow to stop.
    CancelRequested { by: String, at: Timestamp },
    /// A timer is due. It may come early, late, twice, or for something that is over.
    TimerFired { timer: Timer, at: Timestamp },
}

/// Something to do. Every effect is safe twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Effect {
    /// Find a server that runs this attempt. [`Event::JobClaimed`] confirms it; where it is refused, the attempt is not
    /// wanted any more.
    QueueJob { job: String, attempt: u32 },
    /// Tell the attempt to stop; there may be nothing that runs yet, or any more. The end of the job confirms it.
    StopJob { job: String, attempt: u32 },
    /// Ask people. [`Event::Approved`] confirms it.
    HoldJob { job: String },
    /// Report [`Event::TimerFired`] once it is `at`.
    SetTimer { timer: Timer, at: Timestamp },
    /// Forget the timer; there may be none.
    CancelTimer { timer: Timer },
    /// The workflow has ended.
    Finished { outcome: Outcome },
}
