//! CronJobs: how their runs went, and runs by hand.

use super::{
    error::ClusterError,
    inventory::{digest, find_live},
    job::{end_of, failed_at},
    record::{self, Records},
};
use crate::target::{CronFailure, CronJobStatus, Environment};
use futures::future::{try_join, try_join_all};
use jiff::Timestamp;
use serde_json::{Value, json};
use towpath_kube::{Client, Discovery, Resource, Select, managed_fields, text_at};
use towpath_manifest::{Kind, Object, containers};
use towpath_schedule::Schedule;
use towpath_types::Outcome;

/// The status of each CronJob of an environment, by name.
pub(super) async fn of_environment(
    client: &Client,
    discovery: &Discovery,
    environment: &Environment,
) -> Result<Vec<CronJobStatus>, ClusterError> {
    let stored = record::load(client, environment).await?;
    let entries = stored.state.objects.iter().filter(|entry| entry.id.kind == "CronJob");
    let found = try_join_all(entries.map(|entry| find_live(client, discovery, environment, entry)));
    let jobs = Resource::of(&Kind::JOB).collection(&environment.namespace);
    let jobs = async {
        match client.list(&jobs, &Select::All).await {
            Ok((jobs, _)) => Ok(jobs),
            // Without them, only the failures are unknown.
            Err(error) if error.is_forbidden() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    };
    let (found, jobs) = try_join(found, jobs).await?;
    let mut statuses: Vec<CronJobStatus> = found
        .into_iter()
        .flatten()
        .map(|live| cron_job_status(&live, &jobs))
        .collect();
    statuses.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(statuses)
}

/// The status of a CronJob. `jobs` may include Jobs of others.
fn cron_job_status(live: &Value, jobs: &[Value]) -> CronJobStatus {
    let at = |value: &Value, pointer: &str| text_at(value, pointer).parse::<Timestamp>().ok();
    let uid = text_at(live, "/metadata/uid");
    let is_own = |job: &&Value| {
        let owners = job.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        owners.into_iter().flatten().any(|owner| text_at(owner, "/uid") == uid)
    };
    let mut failures = Vec::new();
    let (mut last_run, mut last_success) = (
        at(live, "/status/lastScheduleTime"),
        at(live, "/status/lastSuccessfulTime"),
    );
    for job in jobs.iter().filter(is_own) {
        // The status of the CronJob does not include runs by hand.
        last_run = last_run.max(at(job, "/status/startTime"));
        match end_of(job) {
            Some((Outcome::Succeeded, _)) => last_success = last_success.max(at(job, "/status/completionTime")),
            Some((_, message)) => failures.push(CronFailure {
                job: text_at(job, "/metadata/name"),
                at: failed_at(job),
                message,
            }),
            None => {}
        }
    }
    failures.sort_by_key(|failure| std::cmp::Reverse(failure.at));
    let active = live.pointer("/status/active").and_then(Value::as_array);
    let image = live.pointer("/spec/jobTemplate/spec/template/spec/containers/0/image");
    CronJobStatus {
        name: text_at(live, "/metadata/name"),
        schedule: text_at(live, "/spec/schedule"),
        suspended: is_suspended(live),
        image: image.and_then(Value::as_str).map(str::to_string),
        active: u32::try_from(active.map_or(0, Vec::len)).unwrap_or(u32::MAX),
        last_run,
        last_success,
        next_run: next_run(live),
        failures,
    }
}

/// A sentence about the runs of a CronJob, for the status of its environment.
pub(super) fn cron_message(live: &Value) -> String {
    let mut parts = Vec::new();
    if is_suspended(live) {
        parts.push("suspended".to_string());
    }
    let at = |pointer: &str| Some(text_at(live, pointer)).filter(|text| !text.is_empty());
    parts.extend(at("/status/lastScheduleTime").map(|at| format!("last run at {at}")));
    parts.extend(at("/status/lastSuccessfulTime").map(|at| format!("last success at {at}")));
    parts.extend(next_run(live).map(|next| format!("next run at {next}")));
    parts.join(", ")
}

fn is_suspended(live: &Value) -> bool {
    live.pointer("/spec/suspend").and_then(Value::as_bool) == Some(true)
}

fn next_run(live: &Value) -> Option<Timestamp> {
    if is_suspended(live) {
        return None;
    }
    let zone = text_at(live, "/spec/timeZone");
    // Without a time zone, the controller uses that of its own machine, which is usually UTC.
    let zone = if zone.is_empty() { "UTC" } else { &zone };
    let schedule = Schedule::parse(&text_at(live, "/spec/schedule"), Some(zone)).ok()?;
    schedule.next(Timestamp::now())
}

/// The Job for a run of a CronJob by hand, and a note if it does not run what is expected.
#[derive(Debug)]
pub(super) struct ManualRun {
    pub job: Object,
    pub note: Option<String>,
}

/// Decides what a run of the CronJob `name` by hand runs: what Towpath applied, whatever somebody has changed in the cluster
/// since. `live` is the CronJob in the cluster.
///
/// `None` if it has no template.
pub(super) fn manual_run(name: &str, run: &str, live: &Value, records: &Records) -> Option<ManualRun> {
    let of_cluster = job_of(live, live, run)?;
    let entry = records
        .stored
        .state
        .objects
        .iter()
        .find(|entry| entry.id.kind == "CronJob" && entry.id.name == name);
    let is_as_applied = !managed_fields::has_others(live, &["f:spec", "f:jobTemplate"])
        && entry.is_some_and(|entry| managed_fields::ours(live).is_some_and(|ours| digest(ours) == entry.owned));
    if is_as_applied {
        return Some(ManualRun {
            job: of_cluster,
            note: None,
        });
    }
    match of_last_release(records, name) {
        Some((number, released)) if entry.is_none_or(|entry| entry.manifest == digest(&released.value)) => {
            let job = job_of(live, &released.value, run)?;
            let note = differs_in_images(number, &job, &of_cluster);
            Some(ManualRun { job, note })
        }
        Some(_) => Some(ManualRun {
            job: of_cluster,
            note: Some(format!(
                "the CronJob `{name}` was applied outside of releases and changed by somebody since: this runs what is in the cluster"
            )),
        }),
        None => Some(ManualRun {
            job: of_cluster,
            note: Some(format!(
                "no release contains the CronJob `{name}`: this runs what is in the cluster"
            )),
        }),
    }
}

/// The Job `run` that a CronJob would create, from the job template in `template`, which is a CronJob. It belongs to `live`.
///
/// Source: <https://github.com/kubernetes/kubectl/blob/master/pkg/cmd/create/create_job.go> (`--from`)
fn job_of(live: &Value, template: &Value, run: &str) -> Option<Object> {
    let template = template.pointer("/spec/jobTemplate")?;
    let mut metadata = template.get("metadata").cloned().unwrap_or_else(|| json!({}));
    metadata["name"] = Value::from(run);
    metadata["namespace"] = live.pointer("/metadata/namespace")?.clone();
    metadata["annotations"]["cronjob.kubernetes.io/instantiate"] = Value::from("manual");
    metadata["ownerReferences"] = json!([{
        "apiVersion": "batch/v1", "kind": "CronJob", "controller": true,
        "name": live.pointer("/metadata/name")?, "uid": live.pointer("/metadata/uid")?,
    }]);
    let value = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template.get("spec")?});
    Object::from_value(value, "the cluster").ok()
}

/// The number of the last successful release, and its manifest of the CronJob `name`.
fn of_last_release(records: &Records, name: &str) -> Option<(i64, Object)> {
    let last = records
        .releases
        .iter()
        .find(|release| Some(release.id) == records.stored.state.succeeded);
    // The state may be lost.
    let last = last.or_else(|| records.releases.iter().find(|release| release.has_succeeded()))?;
    let objects = last.plan.get("objects").and_then(Value::as_array)?;
    let object = objects
        .iter()
        .filter_map(|object| serde_json::from_value::<Object>(object.clone()).ok())
        .find(|object| object.kind == "CronJob" && object.name == name)?;
    Some((last.number, object))
}

fn differs_in_images(number: i64, job: &Object, of_cluster: &Object) -> Option<String> {
    let images =
        |job: &Object| -> Vec<String> { containers(job).into_iter().map(|container| container.image).collect() };
    let (released, live) = (images(job), images(of_cluster));
    (released != live).then(|| {
        format!(
            "this runs what release {number} has, {}; the CronJob in the cluster has {}",
            released.join(", "),
            live.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn live() -> Value {
        json!({"metadata": {"name": "sweep", "namespace": "dev", "uid": "1"},
               "spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "x:1"}]}}}}}})
    }

    #[test]
    fn a_run_by_hand_belongs_to_its_cron_job() {
        let found = manual_run("sweep", "sweep-1", &live(), &Records::default()).unwrap();
        assert_eq!(found.job.name, "sweep-1");
        assert_eq!(found.job.value["metadata"]["ownerReferences"][0]["uid"], "1");
        assert_eq!(
            found.note.unwrap(),
            "no release contains the CronJob `sweep`: this runs what is in the cluster"
        );
    }

    #[test]
    fn the_status_includes_runs_by_hand_and_only_own_runs() {
        let job = |name: &str, owner: &str, condition: Value| {
            json!({"metadata": {"name": name, "ownerReferences": [{"uid": owner}]},
                   "status": {"startTime": "2026-01-02T00:00:00Z", "completionTime": "2026-01-02T00:01:00Z", "conditions": [condition]}})
        };
        let complete = json!({"type": "Complete", "status": "True"});
        let failed = json!({"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "no"});
        let jobs = [
            job("good", "1", complete),
            job("bad", "1", failed.clone()),
            job("other", "2", failed),
        ];
        let status = cron_job_status(&live(), &jobs);
        assert_eq!(status.last_run, "2026-01-02T00:00:00Z".parse().ok());
        assert_eq!(status.last_success, "2026-01-02T00:01:00Z".parse().ok());
        let names: Vec<&str> = status.failures.iter().map(|failure| failure.job.as_str()).collect();
        assert_eq!(names, ["bad"]);
    }
}
