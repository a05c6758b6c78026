//! Runs the hooks of a deployment, as jobs of its target.

use crate::target::{ApplyError, ApplyRequest, Environment, Hooks, JobEnd, JobLine, Progress, Target, TargetError};
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

/// The hooks of one deployment. Their runs stay when they have ended: a process that takes the deployment over follows a run that
/// exists, and so no hook runs twice. [`clean_up_hooks`] deletes them.
pub(crate) struct HookRunner<'a> {
    target: &'a dyn Target,
    request: &'a ApplyRequest,
    deadline: Instant,
    progress: &'a mpsc::UnboundedSender<Progress>,
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
        }
    }

    /// Runs the hooks of a moment, one after the other. The first that fails ends it.
    pub(crate) async fn run(&self, when: When) -> Result<(), ApplyError> {
        let hooks = match when {
            When::Before => &self.request.hooks.before,
            When::After => &self.request.hooks.after,
        };
        for (event, job) in hooks {
            self.run_one(*event, job, when).await?;
        }
        Ok(())
    }

    async fn run_one(&self, event: HookEvent, job: &Object, when: When) -> Result<(), ApplyError> {
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
        if end.outcome == Outcome::Succeeded {
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
            hook: Some(job.name.clone()),
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
            Err(_) => Ok(JobEnd {
                outcome: Outcome::TimedOut,
                exit_code: None,
                message: format!(
                    "it did not end within the {} s of the release, and is stopped",
                    self.request.deadline.as_secs()
                ),
            }),
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

/// Deletes the runs of a release's hooks whose policy says so, and stops one that did not end in time. `error` is why `apply`
/// failed, if it did.
///
/// Call this when the end of the release is recorded, and not before or when another process may have taken the release over:
/// whoever takes it over follows the runs that exist, and starts those that do not. A run that stays does no harm, because the
/// next release's has another name.
pub async fn clean_up_hooks(target: &dyn Target, environment: &Environment, hooks: &Hooks, error: Option<&ApplyError>) {
    for name in to_delete(hooks, error) {
        match target.cancel_job(environment, name).await {
            // It never began, or somebody has deleted it.
            Ok(()) | Err(TargetError::NotFound(_)) => {}
            Err(error) => {
                let error = error.chain();
                tracing::warn!(job = name, error, "the Job of a hook was not deleted");
            }
        }
    }
}

/// The runs to delete after a release. Hooks run one after the other, and the first that fails ends the release: those before it
/// have succeeded, and those after it never began.
fn to_delete<'a>(hooks: &'a Hooks, error: Option<&ApplyError>) -> Vec<&'a str> {
    let failed = error.and_then(|error| error.hook.as_deref());
    let has_timed_out = error.is_some_and(|error| error.outcome == Outcome::TimedOut);
    let mut names = Vec::new();
    for (_, job) in hooks.before.iter().chain(&hooks.after) {
        let has_failed = failed == Some(job.name.as_str());
        let by_policy = matches!(Hook::of(job), Ok(Some(hook)) if hook.is_deleted_after(!has_failed));
        if by_policy || (has_failed && has_timed_out) {
            names.push(job.name.as_str());
        }
        if has_failed {
            break;
        }
    }
    names
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hook(name: &str, policy: &str) -> (HookEvent, Object) {
        let annotations = json!({"helm.sh/hook": "pre-upgrade", "helm.sh/hook-delete-policy": policy});
        let metadata = json!({"name": name, "annotations": annotations});
        let value = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata});
        (HookEvent::PreUpgrade, Object::from_value(value, "a test").unwrap())
    }

    fn error(hook: Option<&str>, outcome: Outcome) -> ApplyError {
        ApplyError {
            outcome,
            object: None,
            hook: hook.map(str::to_string),
            message: String::new(),
            log: Vec::new(),
            running: Vec::new(),
        }
    }

    #[test]
    fn each_run_is_deleted_by_the_way_it_ended() {
        let hooks = Hooks {
            before: vec![hook("one", "hook-succeeded"), hook("two", "hook-failed")],
            after: vec![
                hook("three", "before-hook-creation"),
                hook("four", "hook-succeeded,hook-failed"),
            ],
        };
        let check = |error: Option<ApplyError>, expected: &[&str]| {
            assert_eq!(to_delete(&hooks, error.as_ref()), expected, "{error:?}");
        };
        check(None, &["one", "four"]);
        check(Some(error(None, Outcome::TimedOut)), &["one", "four"]);
        check(Some(error(Some("one"), Outcome::Failed)), &[]);
        check(Some(error(Some("one"), Outcome::TimedOut)), &["one"]);
        check(Some(error(Some("two"), Outcome::Failed)), &["one", "two"]);
        check(Some(error(Some("three"), Outcome::Failed)), &["one"]);
        check(Some(error(Some("four"), Outcome::Errored)), &["one", "four"]);
    }
}
