//! Carries a request out: writes the document first, then waits for the controllers.

use super::{
    controller::Controller,
    frontend::{INGRESS, service_key},
    names::revision,
    status::statuses,
    store::{CronRecord, Document, Rollout, RolloutState, revision_key},
};
use crate::hooks::{HookRunner, When};
use crate::target::{ApplyError, ApplyRequest, Finding, Occasion, Progress, Severity, Target, TargetError};
use jiff::Timestamp;
use std::{collections::BTreeMap, time::Duration};
use tokio::{sync::mpsc, time::Instant};
use towpath_manifest::{Object, ObjectId, is_applied_hook};
use towpath_types::Outcome;

/// How soon to look again if no change is reported.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Why the request is refused, if it is.
pub(crate) fn refusal(request: &ApplyRequest, findings: &[Finding]) -> Option<ApplyError> {
    let refused = findings.iter().filter(|finding| finding.severity == Severity::Refused);
    let mut lines: Vec<String> = refused.map(ToString::to_string).collect();
    let jobs = request.objects.iter().filter(|object| object.kind == "Job");
    lines.extend(jobs.map(|job| {
        let (place, id) = (&job.place, job.id());
        format!("{place}: {id}: a Job is run by its name and not applied with the rest")
    }));
    if lines.is_empty() {
        return None;
    }
    Some(failure(Outcome::Rejected, None, lines.join("\n")))
}

/// Carries out a request that is not refused. `target` runs its hooks.
pub(crate) async fn carry_out(
    target: &dyn Target,
    controller: &Controller,
    request: &ApplyRequest,
    progress: &mpsc::UnboundedSender<Progress>,
) -> Result<(), ApplyError> {
    let Ok(_turn) = controller.applying.try_lock() else {
        let message = format!("another application to {} is under way", request.environment);
        return Err(failure(Outcome::Rejected, None, message));
    };
    let deadline = Instant::now() + request.deadline;
    let hooks = HookRunner::new(target, request, deadline, progress);
    with_hooks(controller, request, &hooks, deadline, progress).await
}

async fn with_hooks(
    controller: &Controller,
    request: &ApplyRequest,
    hooks: &HookRunner<'_>,
    deadline: Instant,
    progress: &mpsc::UnboundedSender<Progress>,
) -> Result<(), ApplyError> {
    let context = &controller.context;
    if !request.hooks.before.is_empty() {
        let early = |document: &mut Document| {
            begin(document, request);
            let early = request.objects.iter().filter(|object| is_applied_hook(object));
            early.for_each(|object| document.upsert(object.clone()));
        };
        context.store.update(early).await.map_err(errored)?;
        hooks.run(When::Before).await?;
    }
    let now = context.clock.now();
    let said = context
        .store
        .update(|document| write_down(document, request, now))
        .await;
    for line in said.map_err(errored)? {
        // It is fine if nobody listens.
        let _ = progress.send(line);
    }
    context.notify();
    wait_for_rollouts(controller, request, deadline, progress).await?;
    hooks.run(When::After).await?;
    let pruned = context.store.update(|document| prune(document, &request.prune)).await;
    pruned.map_err(errored)?;
    context.notify();
    wait_for_the_pruned(controller, request, deadline).await?;
    if request.occasion != Occasion::Beside {
        let finished = |document: &mut Document| document.release = Some(request.record.id);
        context.store.update(finished).await.map_err(errored)?;
    }
    Ok(())
}

/// The caller's error for a failure of the engine, the disk or a source of secrets.
pub(crate) fn errored(error: TargetError) -> ApplyError {
    failure(Outcome::Errored, None, error.chain())
}

fn failure(outcome: Outcome, object: Option<ObjectId>, message: String) -> ApplyError {
    ApplyError {
        outcome,
        object,
        hook: None,
        message,
        log: Vec::new(),
        running: Vec::new(),
    }
}

/// Notes that a request has begun.
fn begin(document: &mut Document, request: &ApplyRequest) {
    document.namespace.clone_from(&request.environment.namespace);
    if request.occasion != Occasion::Beside {
        document.release = None;
        document.attempted = Some(request.record.id);
    }
}

/// Writes the request into the document, from which the controllers work. Returns messages for whoever waits.
fn write_down(document: &mut Document, request: &ApplyRequest, now: Timestamp) -> Vec<Progress> {
    begin(document, request);
    let mut said = Vec::new();
    let mut say = |object: &Object, message: &str| {
        said.push(Progress {
            object: Some(object.id()),
            message: message.into(),
        })
    };
    let mut objects = request.objects.clone();
    towpath_manifest::sort_for_apply(&mut objects);
    for object in objects {
        let before = document.object(&object.id()).map(|known| known.value.clone());
        let same = before.as_ref() == Some(&object.value);
        match (&before, same) {
            (None, _) => say(&object, "created"),
            (Some(_), false) => say(&object, "changed"),
            (Some(_), true) => {}
        }
        match object.kind.as_str() {
            "Deployment" => begin_rollout(document, &object, same, now),
            "CronJob" => {
                let schedule = |value: &serde_json::Value| {
                    (
                        value.pointer("/spec/schedule").cloned(),
                        value.pointer("/spec/timeZone").cloned(),
                    )
                };
                let moved = before
                    .as_ref()
                    .is_some_and(|before| schedule(before) != schedule(&object.value));
                let fresh = CronRecord {
                    last: now,
                    message: String::new(),
                };
                let record = document
                    .crons
                    .entry(object.name.clone())
                    .or_insert_with(|| fresh.clone());
                // The new schedule does not make up for runs that the old one missed.
                if moved {
                    *record = fresh;
                }
            }
            // The other kinds only have to be in the document.
            _ => {}
        }
        document.upsert(object);
    }
    said
}

fn begin_rollout(document: &mut Document, object: &Object, same: bool, now: Timestamp) {
    let Some(template) = object.value.pointer("/spec/template") else {
        return;
    };
    let revision = revision(template);
    document
        .revisions
        .insert(revision_key(&object.name, &revision), template.clone());
    let (generation, done) = match document.rollouts.get(&object.name) {
        Some(rollout) => {
            let is_current = rollout.revision == revision && rollout.state == RolloutState::Complete;
            (rollout.generation + 1, same && is_current)
        }
        None => (1, false),
    };
    if done {
        return;
    }
    let rollout = Rollout {
        revision,
        generation,
        began: now,
        state: RolloutState::Progressing,
    };
    document.rollouts.insert(object.name.clone(), rollout);
}

fn prune(document: &mut Document, gone: &[ObjectId]) {
    for id in gone {
        document.objects.retain(|object| object.id() != *id);
        match id.kind.as_str() {
            "Deployment" => drop(document.rollouts.remove(&id.name)),
            "CronJob" => drop(document.crons.remove(&id.name)),
            _ => {}
        }
    }
}

/// Waits until every Deployment of the request has rolled out and all its proxies run.
async fn wait_for_rollouts(
    controller: &Controller,
    request: &ApplyRequest,
    deadline: Instant,
    progress: &mpsc::UnboundedSender<Progress>,
) -> Result<(), ApplyError> {
    let mut changed = controller.context.changed.subscribe();
    let mut told: BTreeMap<ObjectId, String> = BTreeMap::new();
    loop {
        changed.mark_unchanged();
        let (document, parsed) = controller.parsed();
        let mut waiting: Option<(ObjectId, String)> = None;
        for object in &request.objects {
            let state = match object.kind.as_str() {
                "Deployment" => match document.rollouts.get(&object.name).map(|rollout| &rollout.state) {
                    Some(RolloutState::Failed { outcome, message, log }) => {
                        return Err(ApplyError {
                            outcome: *outcome,
                            object: Some(object.id()),
                            hook: None,
                            message: message.clone(),
                            log: log.clone(),
                            running: statuses(controller),
                        });
                    }
                    Some(RolloutState::Complete) => Ok(()),
                    _ => {
                        let pods = controller.pods_of(&object.name);
                        let ready = pods.iter().filter(|pod| pod.state().ready).count();
                        let wanted = parsed
                            .deployments
                            .get(&object.name)
                            .map_or(0, |deployment| deployment.replicas);
                        Err(format!("{ready} ready of {wanted} wanted, {} there", pods.len()))
                    }
                },
                "Service" => controller.frontend(&service_key(&object.name)),
                "Ingress" => controller.frontend(INGRESS),
                _ => Ok(()),
            };
            let message = match state {
                Ok(()) if matches!(object.kind.as_str(), "Deployment") => "rolled out".to_string(),
                Ok(()) => continue,
                Err(message) => {
                    waiting.get_or_insert((object.id(), message.clone()));
                    message
                }
            };
            if told.get(&object.id()) != Some(&message) {
                told.insert(object.id(), message.clone());
                let _ = progress.send(Progress {
                    object: Some(object.id()),
                    message,
                });
            }
        }
        let Some((object, message)) = waiting else {
            return Ok(());
        };
        if Instant::now() >= deadline {
            let message = format!("not done within {} s: {message}", request.deadline.as_secs());
            return Err(ApplyError {
                running: statuses(controller),
                ..failure(Outcome::TimedOut, Some(object), message)
            });
        }
        // A pod can become available by time alone, without a change.
        let _ = tokio::time::timeout(LOOK_AGAIN, changed.changed()).await;
    }
}

/// Waits until nothing that was pruned runs any more.
async fn wait_for_the_pruned(
    controller: &Controller,
    request: &ApplyRequest,
    deadline: Instant,
) -> Result<(), ApplyError> {
    for id in request.prune.iter().filter(|id| id.kind == "Deployment") {
        while !controller.pods_of(&id.name).is_empty() {
            if Instant::now() >= deadline {
                let message = format!("its pods did not end within {} s", request.deadline.as_secs());
                return Err(failure(Outcome::TimedOut, Some(id.clone()), message));
            }
            let mut changed = controller.context.changed.subscribe();
            let _ = tokio::time::timeout(LOOK_AGAIN, changed.changed()).await;
        }
    }
    Ok(())
}
