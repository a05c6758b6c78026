//! Runs the hooks of a deployment, as jobs of its target.

use crate::target::{ApplyError, ApplyRequest, JobEnd, JobLine, Progress, Target, TargetError};
use std::collections::VecDeque;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use towpath_manifest::{Hook, HookEvent, Object, ObjectId};
use towpath_types::Outcome;

/// How many of its last lines the error about a failed hook has.
const LAST_LINES: usize = 20;

/// When hooks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Before anything else changes.
    Before,
    /// After all workloads have rolled out.
    After,
}

/// The hooks of one deployment.
pub(crate) struct HookRunner<'a> {
    target: &'a dyn Target,
    request: &'a ApplyRequest,
    deadline: Instant,
    progress: &'a mpsc::UnboundedSender<Progress>,
    /// The runs to delete at the end. Until then they stay: a process that takes the deployment over follows a run that exists,
    /// and so no hook runs twice.
    to_delete: Vec<String>,
}

impl<'a> HookRunner<'a> {
    pub(crate) fn new(
        target: &'a dyn Target,
        request: &'a ApplyRequest,
        deadline: Instant,
        progress: &'a mpsc::UnboundedSender<Progress>,
    ) -> Self {
        Self {
            target,
            request,
            deadline,
            progress,
            to_delete: Vec::new(),
        }
    }

    /// Runs the hooks of a moment, one after the other. The first that fails ends it.
    pub(crate) async fn run(&mut self, when: When) -> Result<(), ApplyError> {
        let hooks = match when {
            When::Before => &self.request.hooks.before,
            When::After => &self.request.hooks.after,
        };
        for (event, job) in hooks {
            self.run_one(*event, job, when).await?;
        }
        Ok(())
    }

    async fn run_one(&mut self, event: HookEvent, job: &Object, when: When) -> Result<(), ApplyError> {
        let id = shown(job);
        self.tell(&id, format!("runs as the hook `{event}`"));
        let mut last = VecDeque::new();
        let end = match self.follow(job, &id, &mut last).await {
            Ok(end) => end,
            Err(error) => JobEnd {
                outcome: match error {
                    TargetError::Refused(_) | TargetError::NotFound(_) => Outcome::Failed,
                    TargetError::Failed { .. } => Outcome::Errored,
                },
                exit_code: None,
                message: error.chain(),
            },
        };
        let has_succeeded = end.outcome == Outcome::Succeeded;
        if matches!(Hook::of(job), Ok(Some(hook)) if hook.is_deleted_after(has_succeeded)) {
            self.to_delete.push(job.name.clone());
        }
        if has_succeeded {
            self.tell(&id, "the hook has succeeded".to_string());
            return Ok(());
        }
        let ended = match end.message.as_str() {
            "" => end.outcome.as_str().replace('_', " "),
            message => message.to_string(),
        };
        let consequence = match when {
            When::Before => "The release's own objects were not touched",
            When::After => "Everything else was applied, and nothing was removed",
        };
        Err(ApplyError {
            outcome: match end.outcome {
                // `Rejected` would promise that nothing has happened.
                Outcome::Failed | Outcome::TimedOut => end.outcome,
                _ => Outcome::Errored,
            },
            object: Some(id),
            message: format!("the hook `{event}` did not succeed: {ended}. {consequence}"),
            log: last.into(),
            running: Vec::new(),
        })
    }

    /// Starts a hook, or follows the run that a process before this one started.
    async fn follow(&self, job: &Object, id: &ObjectId, last: &mut VecDeque<String>) -> Result<JobEnd, TargetError> {
        let environment = &self.request.environment;
        let mut handle = self
            .target
            .run_job(environment, job.clone(), self.request.unschedulable)
            .await?;
        let ended = async {
            while let Some(line) = handle.output.recv().await {
                match line {
                    JobLine::Output(bytes) => {
                        for line in String::from_utf8_lossy(&bytes).lines() {
                            self.tell(id, format!("| {line}"));
                            if last.len() == LAST_LINES {
                                last.pop_front();
                            }
                            last.push_back(line.to_string());
                        }
                    }
                    JobLine::Note(note) => self.tell(id, note),
                }
            }
            (&mut handle.end).await
        };
        match timeout_at(self.deadline, ended).await {
            Ok(Ok(end)) => Ok(end),
            Ok(Err(_)) => Ok(JobEnd {
                outcome: Outcome::Errored,
                exit_code: None,
                message: "whoever followed it stopped, so it is not known how it ended".into(),
            }),
            Err(_) => {
                self.delete(&handle.name).await;
                Ok(JobEnd {
                    outcome: Outcome::TimedOut,
                    exit_code: None,
                    message: format!(
                        "it did not end within the {} s of the release, and was stopped",
                        self.request.deadline.as_secs()
                    ),
                })
            }
        }
    }

    /// Deletes the runs whose policy says so. Call this when nobody will take the deployment over any more.
    pub(crate) async fn clean_up(&mut self) {
        for name in std::mem::take(&mut self.to_delete) {
            self.delete(&name).await;
        }
    }

    /// A run that stays does no harm: the next one replaces it.
    async fn delete(&self, name: &str) {
        let canceled = self.target.cancel_job(&self.request.environment, name).await;
        if let Err(error) = canceled {
            let error = error.chain();
            tracing::warn!(job = name, error, "the Job of a hook was not deleted");
        }
    }

    fn tell(&self, object: &ObjectId, message: String) {
        // It is fine if nobody listens.
        let _ = self.progress.send(Progress {
            object: Some(object.clone()),
            message,
        });
    }
}

/// The hook as its chart names it.
fn shown(job: &Object) -> ObjectId {
    let label = job.value.pointer("/metadata/labels");
    let label = label.and_then(|labels| labels.get(crate::target::JOB_LABEL)?.as_str());
    let mut id = job.id();
    if let Some(label) = label {
        id.name = label.to_string();
    }
    id
}
