//! Turns a workflow's state and effects into the writes of a commit. Pure.

use crate::loaded::{Loaded, expecting};
use jiff::Timestamp;
use towpath_store::{Commit, GateRow, JobRow, Work, WorkKey, WorkKind, Write};
use towpath_types::{EnvironmentId, JobKind, JobStatus, WorkflowId};
use towpath_workflow::{Effect, Job, JobState, Timer};

/// The key of a timer's work: `<workflow>/<timer>`.
pub(crate) fn timer_key(workflow: WorkflowId, timer: &Timer) -> WorkKey {
    WorkKey::new(WorkKind::Timer, format!("{workflow}/{timer}"))
}

/// Reads what [`timer_key`] writes.
pub(crate) fn read_timer_key(key: &str) -> Option<(WorkflowId, Timer)> {
    let (workflow, timer) = key.split_once('/')?;
    Some((workflow.parse().ok()?, timer.parse().ok()?))
}

/// Writes every row of a new workflow, and the work for the effects of its first event.
pub(crate) fn insert(loaded: &mut Loaded, effects: &[Effect], now: Timestamp, commit: &mut Commit) {
    loaded.row.status = loaded.state.status();
    loaded.row.stopped_at = loaded.state.ended_at();
    commit.write(Write::Workflow(loaded.row.clone(), expecting(0)));
    loaded.row.version = 1;
    for (name, row) in &mut loaded.jobs {
        if let Some(job) = loaded.state.job(name) {
            update(row, job, now);
        }
        commit.write(Write::Job(row.clone(), expecting(0)));
        row.version = 1;
    }
    follow(loaded, effects, now, commit);
}

/// Writes the rows that differ between `before` and `after`, and the work for the effects. `gates` are the gates whose
/// jobs are no longer on hold. Updates the rows in `after`.
pub(crate) fn project(
    before: &Loaded,
    after: &mut Loaded,
    effects: &[Effect],
    gates: Vec<GateRow>,
    now: Timestamp,
    commit: &mut Commit,
) {
    after.row.status = after.state.status();
    after.row.stopped_at = after.state.ended_at();
    if after.row != before.row {
        commit.write(Write::Workflow(after.row.clone(), expecting(before.row.version)));
        after.row.version += 1;
    }
    for (name, row) in &mut after.jobs {
        let (Some(was), Some(is)) = (before.state.job(name), after.state.job(name)) else {
            // Rows and definition come from the same commit and have the same names.
            continue;
        };
        if was == is {
            continue;
        }
        update(row, is, now);
        if row.attempt == 1 && row.number.is_none() && row.status == JobStatus::Claimed {
            commit.write(Write::Job(row.clone(), expecting(row.version)));
            commit.write(Write::NumberJob(row.id));
        } else {
            commit.write(Write::Job(row.clone(), expecting(row.version)));
        }
        row.version += 1;
        // A job that leaves the queue unclaimed no longer needs a server.
        if matches!(was.state, JobState::Queued) && is.is_over() {
            commit.write(Write::CancelWork(WorkKey::new(WorkKind::Job, row.id)));
        }
    }
    for mut gate in gates {
        let version = gate.version;
        let job = after.state.job(&gate.name);
        gate.waiting = false;
        if let Some(approval) = job.and_then(|job| job.approval.as_ref()) {
            gate.approved_by = Some(approval.by.clone());
            // An approved plan is named by its full digest.
            if let Some(Ok(digest)) = approval.plan.as_ref().map(|plan| plan.parse()) {
                gate.plan = Some(digest);
                gate.plan_error = None;
            }
        }
        commit.write(Write::Gate(gate.clone(), expecting(version)));
        commit.write(Write::CancelWork(WorkKey::new(WorkKind::Gate, gate.job)));
    }
    follow(after, effects, now, commit);
}

/// Brings a row up to date with the state of its job.
fn update(row: &mut JobRow, job: &Job, now: Timestamp) {
    row.status = job.status();
    row.attempt = job.attempt;
    row.started_at = job.started_at;
    row.approved_by = job.approval.as_ref().map(|approval| approval.by.clone());
    row.stop_requested = job.stop().is_some();
    (row.stopped_at, row.message) = match &job.state {
        JobState::Ended { at, message, .. } => (Some(*at), message.clone()),
        _ => (None, None),
    };
    match &job.state {
        JobState::Queued => {
            row.queued_at = Some(now);
            row.engine = None;
        }
        JobState::BackingOff { .. } => row.engine = None,
        _ => {}
    }
}

fn follow(loaded: &Loaded, effects: &[Effect], now: Timestamp, commit: &mut Commit) {
    for effect in effects {
        match effect {
            Effect::QueueJob { job, .. } => {
                if let Some(row) = loaded.jobs.get(job) {
                    commit.write(Write::Work(job_work(loaded, row, now)));
                }
            }
            // The row records the stop request, and the job's supervisor watches the row.
            Effect::StopJob { .. } => {}
            Effect::HoldJob { job } => {
                if let Some(row) = loaded.jobs.get(job) {
                    commit.write(Write::Gate(gate(loaded, row, now), expecting(0)));
                    if row.environment.is_some() {
                        let key = WorkKey::new(WorkKind::Gate, row.id);
                        commit.write(Write::Work(work_of(loaded, key, now)));
                    }
                }
            }
            Effect::SetTimer { timer, at } => {
                commit.write(Write::Work(work_of(loaded, timer_key(loaded.row.id, timer), *at)));
            }
            Effect::CancelTimer { timer } => {
                commit.write(Write::CancelWork(timer_key(loaded.row.id, timer)));
            }
            Effect::Finished { outcome } => {
                tracing::info!(workflow = %loaded.row.id, name = loaded.row.name, %outcome, "workflow ended");
            }
        }
    }
}

fn work_of(loaded: &Loaded, key: WorkKey, due: Timestamp) -> Work {
    Work {
        project: Some(loaded.row.project.clone()),
        ..Work::new(key, due)
    }
}

fn job_work(loaded: &Loaded, row: &JobRow, now: Timestamp) -> Work {
    Work {
        cpu_millis: row.cpu_millis,
        memory_bytes: row.memory_bytes,
        ..work_of(loaded, WorkKey::new(WorkKind::Job, row.id), now)
    }
}

fn gate(loaded: &Loaded, row: &JobRow, now: Timestamp) -> GateRow {
    let environment = row
        .environment
        .as_deref()
        .map(|name| EnvironmentId::new(loaded.row.project.as_str(), name));
    // Show the error for an invalid environment name in place of the plan.
    let (environment, plan_error) = match environment {
        None => (None, None),
        Some(Ok(id)) => (Some(id), None),
        Some(Err(error)) => (None, Some(error.to_string())),
    };
    debug_assert_eq!(row.kind, JobKind::Approval);
    GateRow {
        job: row.id,
        workflow: loaded.row.id,
        workflow_name: loaded.row.name.clone(),
        pipeline: loaded.row.pipeline,
        pipeline_number: loaded.row.pipeline_number,
        project: loaded.row.project.clone(),
        name: row.name.clone(),
        branch: loaded.row.branch.clone(),
        tag: loaded.row.tag.clone(),
        commit: loaded.row.commit.clone(),
        subject: loaded.pipeline.subject.clone(),
        environment,
        waiting: true,
        plan: None,
        plan_error,
        as_of: None,
        approved_by: None,
        created_at: now,
        version: 0,
    }
}
