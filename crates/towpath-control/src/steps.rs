//! What one node of a job reported, folded into what people see.

use crate::views::StepView;
use towpath_protocol::Report;
use towpath_types::Outcome;

/// One node's history so far.
#[derive(Debug, Default, Clone)]
pub(crate) struct NodeHistory {
    /// Its steps in the order in which they began.
    pub steps: Vec<StepView>,
    /// How the node ended, when it did, and why.
    pub finished: Option<(Outcome, Option<String>)>,
}

impl NodeHistory {
    /// Folds `reports` of `node`, oldest first.
    pub(crate) fn fold<'a>(node: u32, reports: impl IntoIterator<Item = &'a Report>) -> Self {
        let mut history = Self::default();
        for report in reports {
            history.add(node, report);
        }
        history
    }

    fn add(&mut self, node: u32, report: &Report) {
        match report {
            Report::StepStarted { step, name, at, .. } => self.steps.push(StepView {
                node,
                index: *step,
                name: name.clone(),
                status: "running".into(),
                exit_code: None,
                message: None,
                started_at: *at,
                stopped_at: None,
                log_bytes: 0,
            }),
            Report::StepFinished {
                step,
                exit_code,
                outcome,
                message,
                at,
            } => {
                if let Some(view) = self.steps.iter_mut().find(|view| view.index == *step) {
                    view.status = step_status(*outcome).into();
                    view.exit_code = *exit_code;
                    view.message.clone_from(message);
                    view.stopped_at = Some(*at);
                }
            }
            Report::JobFinished { outcome, message, at } => {
                for view in self.steps.iter_mut().filter(|view| view.stopped_at.is_none()) {
                    view.status = step_status(*outcome).into();
                    view.stopped_at = Some(*at);
                }
                self.finished = Some((*outcome, message.clone()));
            }
        }
    }
}

/// CircleCI's word for a step's end.
fn step_status(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "success",
        Outcome::Failed => "failed",
        Outcome::Errored => "errored",
        Outcome::TimedOut => "timedout",
        Outcome::Canceled | Outcome::Skipped | Outcome::Rejected => "canceled",
    }
}

/// The outcome of a job from those of its nodes: the worst, where a failure of the user's command counts before ours.
pub(crate) fn worst(nodes: impl IntoIterator<Item = (Outcome, Option<String>)>) -> (Outcome, Option<String>) {
    let rank = |outcome: Outcome| match outcome {
        Outcome::Succeeded => 0,
        Outcome::Skipped => 1,
        Outcome::Rejected => 2,
        Outcome::Canceled => 3,
        Outcome::Errored => 4,
        Outcome::TimedOut => 5,
        Outcome::Failed => 6,
    };
    nodes
        .into_iter()
        .max_by_key(|(outcome, _)| rank(*outcome))
        .unwrap_or((Outcome::Succeeded, None))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use jiff::Timestamp;

    #[test]
    fn reports_become_steps_with_ends() {
        let at = Timestamp::UNIX_EPOCH;
        let started = |step| Report::StepStarted {
            step,
            name: format!("step {step}"),
            command: None,
            at,
        };
        let finished = |step, outcome| Report::StepFinished {
            step,
            exit_code: Some(1),
            outcome,
            message: None,
            at,
        };
        let reports = [
            started(0),
            finished(0, Outcome::Succeeded),
            started(2),
            Report::JobFinished {
                outcome: Outcome::Canceled,
                message: Some("canceled".into()),
                at,
            },
        ];
        let history = NodeHistory::fold(1, &reports);
        let seen: Vec<_> = history
            .steps
            .iter()
            .map(|s| (s.node, s.index, s.status.as_str()))
            .collect();
        assert_eq!(seen, [(1, 0, "success"), (1, 2, "canceled")]);
        assert_eq!(history.finished, Some((Outcome::Canceled, Some("canceled".into()))));
    }

    #[test]
    fn a_job_ends_as_its_worst_node() {
        let check = |outcomes: &[Outcome], expected| {
            assert_eq!(worst(outcomes.iter().map(|o| (*o, None))).0, expected, "{outcomes:?}");
        };
        check(&[Outcome::Succeeded, Outcome::Succeeded], Outcome::Succeeded);
        check(
            &[Outcome::Errored, Outcome::Failed, Outcome::Succeeded],
            Outcome::Failed,
        );
        check(&[Outcome::Succeeded, Outcome::Canceled], Outcome::Canceled);
    }
}
