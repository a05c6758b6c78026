//! What happens to a workflow, and the effects.

use super::{definition::Definition, timer::Timer};
use jiff::Timestamp;
use towpath_types::Outcome;

/// Something that happened. Store an event before acting on it.
///
/// `job` is the job's name in the workflow, `attempt` counts a job's attempts from 1, and `at` is the time by the
/// reporter's clock: clocks differ and jump, so a later event may have an earlier time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Event {
    /// The workflow was made. Always the first event, and only the first.
    Created {
        definition: Definition,
        /// In a rerun: the jobs that succeeded in the original workflow. They do not run again.
        succeeded: Vec<String>,
        at: Timestamp,
    },
    /// A server took the attempt from the queue. Commit this before you start anything for the attempt.
    JobClaimed {
        job: String,
        attempt: u32,
        /// A claimed attempt will not start, because its server is gone. The job is queued again, as its next attempt.
        by: String,
        at: Timestamp,
    },
    /// The reason, for a person.
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
        /// The reason, for a person.
        message: Option<String>,
        at: Timestamp,
    },
    /// Somebody, or a policy, wants the job to run again. `attempt` is the attempt that ended or was lost: naming it
    /// keeps a duplicate request from giving up the new attempt.
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
        /// The full digest of the plan that they saw.
        plan: Option<String>,
        at: Timestamp,
    },
    /// Somebody cancels the whole workflow.
    CancelRequested { by: String, at: Timestamp },
    /// A timer is due. It may come early, late, twice, or after its subject is over.
    TimerFired { timer: Timer, at: Timestamp },
}

/// Something to do. Every effect is safe to repeat.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Effect {
    /// Find a server that runs this attempt. [`Event::JobClaimed`] confirms it; if the claim is refused, the attempt is
    /// no longer wanted.
    QueueJob { job: String, attempt: u32 },
    /// Tell the attempt to stop; it may not have started yet, or may have ended. The end of the job confirms it.
    StopJob { job: String, attempt: u32 },
    /// Ask people for approval. [`Event::Approved`] confirms it.
    HoldJob { job: String },
    /// Report [`Event::TimerFired`] at `at`.
    SetTimer { timer: Timer, at: Timestamp },
    /// Cancel the timer, if it exists.
    CancelTimer { timer: Timer },
    /// The workflow has ended.
    Finished { outcome: Outcome },
}
