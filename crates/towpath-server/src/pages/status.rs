//! A status as a word, a colour and a shape.

use maud::{Markup, html};
use towpath_types::{JobStatus, Outcome, PipelineStatus, ReleaseStatus, StepStatus, WorkflowStatus};

/// How a status looks.
#[derive(Clone, Copy)]
enum Look {
    Good,
    Busy,
    Hold,
    Bad,
    Idle,
}

impl Look {
    fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Busy => "busy",
            Self::Hold => "hold",
            Self::Bad => "bad",
            Self::Idle => "idle",
        }
    }

    fn mark(self) -> &'static str {
        match self {
            Self::Good => "✓",
            Self::Busy => "●",
            Self::Hold => "‖",
            Self::Bad => "✕",
            Self::Idle => "○",
        }
    }
}

fn shown(look: Look, word: &str) -> Markup {
    let word = word.replace('_', " ");
    html! { span.status.(look.class()) { span aria-hidden="true" { (look.mark()) } " " (word) } }
}

fn of_outcome(outcome: Outcome) -> Look {
    match outcome {
        Outcome::Succeeded => Look::Good,
        Outcome::Failed | Outcome::Errored | Outcome::TimedOut | Outcome::Rejected => Look::Bad,
        Outcome::Canceled | Outcome::Skipped => Look::Idle,
    }
}

/// The status of a job.
pub(super) fn job(status: JobStatus) -> Markup {
    let look = match status {
        JobStatus::Blocked => Look::Idle,
        JobStatus::OnHold => Look::Hold,
        JobStatus::Queued | JobStatus::Claimed | JobStatus::Running => Look::Busy,
        JobStatus::Ended(outcome) => of_outcome(outcome),
    };
    shown(look, status.as_str())
}

/// The status of a workflow.
pub(super) fn workflow(status: WorkflowStatus) -> Markup {
    let look = match status {
        WorkflowStatus::Running | WorkflowStatus::Failing => Look::Busy,
        WorkflowStatus::OnHold => Look::Hold,
        WorkflowStatus::Ended(outcome) => of_outcome(outcome),
    };
    shown(look, status.as_str())
}

/// The status of a pipeline; nothing for one that runs its workflows, whose statuses say more.
pub(super) fn pipeline(status: PipelineStatus) -> Markup {
    match status {
        PipelineStatus::Created => html! {},
        PipelineStatus::Errored => shown(Look::Bad, status.as_str()),
    }
}

/// The status of a step.
pub(super) fn step(status: StepStatus) -> Markup {
    let look = match status {
        StepStatus::Running => Look::Busy,
        StepStatus::Ended(outcome) => of_outcome(outcome),
    };
    shown(look, status.as_str())
}

/// The status of a release. `state` is its word, such as the outcome of one that has ended.
pub(super) fn release(status: ReleaseStatus, state: &str) -> Markup {
    let look = match status {
        ReleaseStatus::Planned
        | ReleaseStatus::Approved
        | ReleaseStatus::Applying
        | ReleaseStatus::Watching
        | ReleaseStatus::RollingBack => Look::Busy,
        ReleaseStatus::Succeeded => Look::Good,
        ReleaseStatus::Failed | ReleaseStatus::RolledBack | ReleaseStatus::Abandoned => Look::Bad,
    };
    shown(look, state)
}

/// Something that is running now.
pub(super) fn under_way() -> Markup {
    shown(Look::Busy, "under way")
}
