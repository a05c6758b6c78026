//! Why an event is refused.

use jiff::Timestamp;
use towpath_types::Outcome;

/// The format of times for people.
const WHEN: &str = "%Y-%m-%d %H:%M:%S UTC";

/// Why an event was refused. `Display` writes the message for the requester.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Illegal {
    /// The first event, and only the first, makes a workflow.
    #[error("a workflow begins with its creation, once")]
    Order,
    /// The workflow has no job of that name.
    #[error("the workflow has no job `{0}`")]
    UnknownJob(String),
    /// The report is about an old attempt. The sender should remove what it runs for that attempt.
    #[error("`{job}` is in attempt {current}: what is reported of attempt {attempt} changes nothing")]
    StaleAttempt { job: String, attempt: u32, current: u32 },
    /// Only approval jobs can be approved.
    #[error("`{0}` is not an approval: it runs by itself")]
    NotAnApproval(String),
    /// The gate is already open.
    #[error("`{job}` was already approved by {by} at {}", .at.strftime(WHEN))]
    AlreadyApproved { job: String, by: String, at: Timestamp },
    /// The gate cannot be opened yet.
    #[error("`{job}` cannot be approved yet: it waits for {}", .waits_for.join(", "))]
    NotOnHold { job: String, waits_for: Vec<String> },
    /// The gate will never open: a required job ended with another outcome.
    #[error("`{job}` is not needed any more: {why}")]
    NotNeeded { job: String, why: String },
    /// The workflow was canceled.
    #[error("the workflow was canceled by {by} at {}", .at.strftime(WHEN))]
    Canceled { by: String, at: Timestamp },
    /// The workflow has ended.
    #[error("the workflow has already ended ({0})")]
    Ended(Outcome),
    /// The job is in a state that does not allow this event.
    #[error("`{job}` is {is}, so it cannot be {wanted}")]
    WrongState {
        job: String,
        is: &'static str,
        wanted: &'static str,
    },
    /// A claimed attempt cannot end with this outcome.
    #[error("`{job}` was claimed, so it cannot have been {outcome}")]
    NotAnEnd { job: String, outcome: Outcome },
    /// Another attempt would be pointless.
    #[error("`{job}` cannot run again: {why}")]
    NotRetriable { job: String, why: String },
    /// Other jobs have already acted on the job's outcome.
    #[error("`{job}` cannot run again: {} went on after it; rerun the workflow instead", .by.join(", "))]
    Followed { job: String, by: Vec<String> },
}
