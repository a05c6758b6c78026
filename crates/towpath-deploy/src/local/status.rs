//! The status of an environment's workloads and CronJobs.

use super::{
    controller::{Controller, Parsed},
    frontend::{serves, service_key},
    store::{Document, JobRecord, RolloutState},
};
use crate::target::{CronFailure, CronJobStatus, WorkloadStatus};
use towpath_manifest::Object;
use towpath_types::Outcome;

/// The status of the environment's workloads.
pub(crate) fn statuses(controller: &Controller) -> Vec<WorkloadStatus> {
    let (document, parsed) = controller.parsed();
    let status = |object: &Object| WorkloadStatus {
        kind: object.kind.clone(),
        name: object.name.clone(),
        image: towpath_manifest::containers(object)
            .into_iter()
            .next()
            .map(|container| container.image),
        ready: 0,
        desired: 0,
        since: None,
        restarts: 0,
        message: String::new(),
        addresses: Vec::new(),
    };
    let mut all = Vec::new();
    for object in &document.objects {
        let mut status = status(object);
        match object.kind.as_str() {
            "Deployment" => {
                let pods = controller.pods_of(&object.name);
                let ready = pods.iter().filter(|pod| pod.state().ready).count();
                status.ready = u32::try_from(ready).unwrap_or(u32::MAX);
                status.desired = parsed
                    .deployments
                    .get(&object.name)
                    .map_or(0, |deployment| deployment.replicas);
                status.restarts = pods.iter().map(|pod| pod.state().restarts).sum();
                status.since = pods.iter().map(|pod| pod.state().since).max();
                status.message = match document.rollouts.get(&object.name).map(|rollout| &rollout.state) {
                    Some(RolloutState::Failed { message, .. }) => message.clone(),
                    _ => pods
                        .iter()
                        .map(|pod| pod.state().message.clone())
                        .find(|message| !message.is_empty())
                        .unwrap_or_default(),
                };
                status.addresses = parsed
                    .deployments
                    .get(&object.name)
                    .filter(|deployment| parsed.services.values().any(|service| serves(service, deployment)))
                    .and_then(|_| controller.address())
                    .into_iter()
                    .collect();
            }
            "CronJob" => {
                let runs = document
                    .jobs
                    .values()
                    .filter(|job| job.cron.as_deref() == Some(&object.name));
                let (running, ended): (Vec<_>, Vec<_>) = runs.partition(|job| job.end.is_none());
                status.ready = u32::try_from(running.len()).unwrap_or(u32::MAX);
                status.message = cron_message(&document, &parsed, &object.name, &ended);
            }
            "Ingress" => status.addresses = controller.address().into_iter().collect(),
            "Service" => {
                status.message = controller
                    .frontend(&service_key(&object.name))
                    .err()
                    .unwrap_or_default()
            }
            // The other kinds have no status of their own.
            _ => continue,
        }
        all.push(status);
    }
    all
}

/// The environment's CronJobs and their runs.
pub(crate) fn cron_jobs(controller: &Controller) -> Vec<CronJobStatus> {
    let (document, parsed) = controller.parsed();
    let objects = document.objects.iter().filter(|object| object.kind == "CronJob");
    let status = |object: &Object| {
        let runs = document
            .jobs
            .iter()
            .filter(|(_, job)| job.cron.as_deref() == Some(&object.name));
        let mut failures: Vec<CronFailure> = Vec::new();
        let (mut active, mut last_run, mut last_success) = (0, None, None);
        for (name, job) in runs {
            last_run = last_run.max(Some(job.began));
            match &job.end {
                None => active += 1,
                Some((end, at)) if end.outcome == Outcome::Succeeded => last_success = last_success.max(Some(*at)),
                Some((end, at)) => failures.push(CronFailure {
                    job: name.clone(),
                    at: Some(*at),
                    message: end.message.clone(),
                }),
            }
        }
        failures.sort_by_key(|failure| std::cmp::Reverse(failure.at));
        let cron = parsed.crons.get(&object.name);
        let next = cron.filter(|cron| !cron.suspend).and_then(|cron| {
            let record = document.crons.get(&object.name)?;
            cron.schedule.next(record.last)
        });
        CronJobStatus {
            name: object.name.clone(),
            schedule: object
                .value
                .pointer("/spec/schedule")
                .and_then(serde_json::Value::as_str)
                .unwrap_or_default()
                .to_string(),
            suspended: cron.is_some_and(|cron| cron.suspend),
            image: towpath_manifest::containers(object)
                .into_iter()
                .next()
                .map(|container| container.image),
            active,
            last_run,
            last_success,
            next_run: next,
            failures,
        }
    };
    objects.map(status).collect()
}

/// The message about a CronJob: its last run, its next run, and errors in its schedule.
fn cron_message(document: &Document, parsed: &Parsed, name: &str, ended: &[&JobRecord]) -> String {
    let mut parts = Vec::new();
    let last = ended
        .iter()
        .filter_map(|job| job.end.as_ref())
        .max_by_key(|(_, at)| *at);
    if let Some((end, at)) = last {
        parts.push(format!("last run {} at {at}", end.outcome.as_str().replace('_', " ")));
    }
    match parsed.crons.get(name) {
        Some(cron) if cron.suspend => parts.push("suspended".into()),
        Some(cron) => {
            let next = document
                .crons
                .get(name)
                .and_then(|record| cron.schedule.next(record.last));
            parts.extend(next.map(|at| format!("next run at {at}")));
        }
        None => {}
    }
    if let Some(record) = document.crons.get(name).filter(|record| !record.message.is_empty()) {
        parts.push(record.message.clone());
    }
    parts.join(", ")
}
