//! CircleCI's words for our statuses. They exist here and nowhere else: inside, a status is an enum of `towpath-types`.
//!
//! Source: <https://circleci.com/docs/api/v2/>, and for steps <https://circleci.com/docs/api/v1/>.

use towpath_types::{JobKind, JobStatus, Outcome, PipelineStatus, StepStatus, TestResult, WorkflowStatus};

/// The state of a pipeline.
#[must_use]
pub fn pipeline(status: PipelineStatus) -> &'static str {
    match status {
        PipelineStatus::Created => "created",
        PipelineStatus::Errored => "errored",
    }
}

/// The state of a pipeline that was triggered and does not exist yet.
pub const PIPELINE_IN_THE_MAKING: &str = "pending";

/// The status of a workflow.
///
/// Source: <https://circleci.com/docs/api/v2/#operation/getWorkflowById>
#[must_use]
pub fn workflow(status: WorkflowStatus) -> &'static str {
    match status {
        WorkflowStatus::Running => "running",
        WorkflowStatus::Failing => "failing",
        WorkflowStatus::OnHold => "on_hold",
        WorkflowStatus::Ended(outcome) => match outcome {
            Outcome::Succeeded => "success",
            Outcome::Failed | Outcome::TimedOut => "failed",
            Outcome::Errored => "error",
            Outcome::Canceled => "canceled",
            Outcome::Skipped => "not_run",
            Outcome::Rejected => "unauthorized",
        },
    }
}

/// The status of a job.
///
/// Source: <https://circleci.com/docs/api/v2/#operation/listWorkflowJobs>
#[must_use]
pub fn job(status: JobStatus) -> &'static str {
    match status {
        JobStatus::Blocked => "blocked",
        JobStatus::OnHold => "on_hold",
        JobStatus::Queued => "queued",
        // CircleCI's word for a job whose environment is still being prepared.
        JobStatus::Claimed => "not_running",
        JobStatus::Running => "running",
        JobStatus::Ended(outcome) => match outcome {
            Outcome::Succeeded => "success",
            Outcome::Failed => "failed",
            Outcome::Errored => "infrastructure_fail",
            Outcome::TimedOut => "timedout",
            Outcome::Canceled => "canceled",
            Outcome::Skipped => "not_run",
            Outcome::Rejected => "unauthorized",
        },
    }
}

/// The type of a job.
#[must_use]
pub fn job_kind(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Build => "build",
        JobKind::Approval => "approval",
        JobKind::NoOp => "no-op",
    }
}

/// The status of a step.
#[must_use]
pub fn step(status: StepStatus) -> &'static str {
    match status {
        StepStatus::Running => "running",
        StepStatus::Ended(outcome) => match outcome {
            Outcome::Succeeded => "success",
            Outcome::Failed => "failed",
            Outcome::Errored => "infrastructure_fail",
            Outcome::TimedOut => "timedout",
            Outcome::Canceled => "canceled",
            Outcome::Skipped => "not_run",
            Outcome::Rejected => "unauthorized",
        },
    }
}

/// The result of a test.
#[must_use]
pub fn test(result: TestResult) -> &'static str {
    match result {
        TestResult::Success => "success",
        TestResult::Failure => "failure",
        TestResult::Skipped => "skipped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each outcome with CircleCI's words for a workflow, a job, and a step.
    const OUTCOMES: [(Outcome, &str, &str, &str); 7] = [
        (Outcome::Succeeded, "success", "success", "success"),
        (Outcome::Failed, "failed", "failed", "failed"),
        (Outcome::Errored, "error", "infrastructure_fail", "infrastructure_fail"),
        (Outcome::TimedOut, "failed", "timedout", "timedout"),
        (Outcome::Canceled, "canceled", "canceled", "canceled"),
        (Outcome::Skipped, "not_run", "not_run", "not_run"),
        (Outcome::Rejected, "unauthorized", "unauthorized", "unauthorized"),
    ];

    #[test]
    fn what_ended_has_circlecis_word() {
        for (outcome, of_workflow, of_job, of_step) in OUTCOMES {
            assert_eq!(workflow(WorkflowStatus::Ended(outcome)), of_workflow);
            assert_eq!(job(JobStatus::Ended(outcome)), of_job);
            assert_eq!(step(StepStatus::Ended(outcome)), of_step);
        }
    }

    #[test]
    fn what_goes_on_has_circlecis_word() {
        for (status, word) in [
            (JobStatus::Blocked, "blocked"),
            (JobStatus::OnHold, "on_hold"),
            (JobStatus::Queued, "queued"),
            (JobStatus::Claimed, "not_running"),
            (JobStatus::Running, "running"),
        ] {
            assert_eq!(job(status), word);
        }
        for (status, word) in [
            (WorkflowStatus::Running, "running"),
            (WorkflowStatus::Failing, "failing"),
            (WorkflowStatus::OnHold, "on_hold"),
        ] {
            assert_eq!(workflow(status), word);
        }
        assert_eq!(step(StepStatus::Running), "running");
        assert_eq!(pipeline(PipelineStatus::Created), "created");
        assert_eq!(pipeline(PipelineStatus::Errored), "errored");
    }

    #[test]
    fn kinds_and_tests_have_circlecis_words() {
        for (kind, word) in [
            (JobKind::Build, "build"),
            (JobKind::Approval, "approval"),
            (JobKind::NoOp, "no-op"),
        ] {
            assert_eq!(job_kind(kind), word);
        }
        for (result, word) in [
            (TestResult::Success, "success"),
            (TestResult::Failure, "failure"),
            (TestResult::Skipped, "skipped"),
        ] {
            assert_eq!(test(result), word);
        }
    }
}
