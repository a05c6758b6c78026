//! Creates the Job of a run, and makes sure that no other run of the same job is under way.

use super::end::end_of;
use crate::kubernetes::{error::failed_to, labels::other_owner};
use crate::target::{Environment, JOB_LABEL, TargetError};
use serde_json::Value;
use std::sync::Arc;
use tokio::time::{Duration, Instant, sleep};
use towpath_kube::{ApiError, Client, Resource, Select, text_at};
use towpath_manifest::{Kind, Object};

/// The annotation with the name of the run.
const RUN: &str = "towpath.dev/run";
/// How long to wait until the Job of an earlier run is gone.
const CLEARED: Duration = Duration::from_secs(30);
/// How often to check whether it is gone.
const CHECK: Duration = Duration::from_millis(500);

/// A Job that was created.
pub(in crate::kubernetes) struct Started {
    pub name: String,
    pub uid: String,
    /// Whether it runs several pods: in parallel, or one after the other, where the last lines of one pod may come after the
    /// first lines of the next.
    pub has_several_pods: bool,
    /// Notes to show before its output.
    pub notes: Vec<String>,
}

impl Started {
    /// A Job that was created earlier, as it is in the cluster.
    pub(in crate::kubernetes) fn of(job: &Value) -> Self {
        Self {
            name: text_at(job, "/metadata/name"),
            uid: text_at(job, "/metadata/uid"),
            has_several_pods: runs_several_pods(job),
            notes: Vec::new(),
        }
    }
}

/// The Job of the run `run`.
pub(in crate::kubernetes) async fn find_run(
    client: &Client,
    environment: &Environment,
    run: &str,
) -> Result<Option<Value>, ApiError> {
    let collection = Resource::of(&Kind::JOB).collection(&environment.namespace);
    let (jobs, _) = client.list(&collection, &Select::All).await?;
    Ok(jobs.into_iter().find(|job| run_of(job) == run))
}

fn run_of(job: &Value) -> &str {
    let annotations = job.pointer("/metadata/annotations");
    let run = annotations.and_then(|annotations| annotations.get(RUN));
    run.and_then(Value::as_str).unwrap_or_default()
}

/// The value of [`JOB_LABEL`], which all runs of a job have in common.
fn label_of(job: &Value) -> &str {
    let label = job.pointer("/metadata/labels").and_then(|labels| labels.get(JOB_LABEL));
    label.and_then(Value::as_str).unwrap_or_default()
}

/// Starts runs of jobs in an environment.
pub(in crate::kubernetes) struct Starter {
    pub client: Arc<Client>,
    pub environment: Environment,
}

impl Starter {
    /// Creates the Job of the run `run`, unless it exists. Deletes the Jobs of earlier runs that have ended.
    ///
    /// All runs of a job use the same Job name. So if two start it at the same time, only one can create it.
    ///
    /// # Errors
    /// `Refused` if another run of the job is under way, or the server refuses the Job.
    pub(in crate::kubernetes) async fn start(&self, run: &str, mut job: Object) -> Result<Started, TargetError> {
        if job.value.pointer("/spec/suspend").and_then(Value::as_bool) == Some(true) {
            let place = job.place_of("/spec/suspend");
            return Err(TargetError::Refused(format!(
                "{place}: the Job is suspended (`suspend: true`), so it would never start"
            )));
        }
        let failed = |error: ApiError| failed_to(format!("run the Job `{run}`"))(error);
        let base = Some(label_of(&job.value))
            .filter(|base| !base.is_empty())
            .map(str::to_string);
        let name = base.clone().unwrap_or_else(|| run.to_string());
        job.value["metadata"]["name"] = Value::from(name.as_str());
        job.value["metadata"]["annotations"][RUN] = Value::from(run);
        let jobs = Resource::of(&Kind::JOB);
        let path = jobs.object(&self.environment.namespace, &name);
        let started = |created: &Value, notes| Started {
            name: name.clone(),
            uid: text_at(created, "/metadata/uid"),
            has_several_pods: runs_several_pods(created),
            notes,
        };
        if let Some(existing) = self.client.find(&path).await.map_err(failed)?
            && run_of(&existing) == run
        {
            return Ok(started(&existing, Vec::new()));
        }
        let notes = match &base {
            Some(base) => self.clear(base, &path).await?,
            None => Vec::new(),
        };
        let collection = format!(
            "{}?fieldValidation=Strict",
            jobs.collection(&self.environment.namespace)
        );
        match self.client.create(&collection, &job.value).await {
            Ok(created) => Ok(started(&created, notes)),
            Err(error) if error.is_conflict() => match self.client.find(&path).await.map_err(failed)? {
                // An earlier attempt arrived although its answer was lost.
                Some(existing) if run_of(&existing) == run => Ok(started(&existing, Vec::new())),
                Some(existing) => Err(is_running_already(&name, &existing)),
                None => Err(failed(error)),
            },
            Err(error) if matches!(error.code(), Some(400 | 403 | 404 | 422)) => {
                Err(TargetError::Refused(error.to_string()))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Deletes the Jobs of earlier runs of `base` that have ended, and an ended Job with its name that somebody else created.
    /// Waits until `path` is free. Returns notes about what it deleted.
    ///
    /// # Errors
    /// `Refused` if one of them still runs, belongs to somebody else, or does not go away.
    async fn clear(&self, base: &str, path: &str) -> Result<Vec<String>, TargetError> {
        let failed = |error: ApiError| failed_to(format!("look for earlier runs of `{base}`"))(error);
        let collection = Resource::of(&Kind::JOB).collection(&self.environment.namespace);
        let of_job = Select::Labels(format!("{JOB_LABEL}={base}"));
        let (runs, _) = self.client.list(&collection, &of_job).await.map_err(failed)?;
        for run in runs {
            if end_of(&run).is_none() {
                return Err(is_running_already(base, &run));
            }
            self.delete(&run).await.map_err(failed)?;
        }
        let mut notes = Vec::new();
        let deadline = Instant::now() + CLEARED;
        loop {
            let Some(existing) = self.client.find(path).await.map_err(failed)? else {
                return Ok(notes);
            };
            let is_going = !text_at(&existing, "/metadata/deletionTimestamp").is_empty();
            if !is_going && end_of(&existing).is_none() {
                return Err(is_running_already(base, &existing));
            }
            if !is_going {
                if let Some(owner) = owner_of(&existing, &self.environment) {
                    return Err(TargetError::Refused(format!(
                        "there is a Job `{base}` that belongs to {owner}: give the job another name, or the environment another namespace"
                    )));
                }
                // It has no label of ours, so it was not among the runs: `kubectl apply` may have created it.
                if label_of(&existing) != base && notes.is_empty() {
                    notes.push(format!(
                        "replaced the Job `{base}`, which somebody else had created and which had ended"
                    ));
                }
                self.delete(&existing).await.map_err(failed)?;
            }
            if Instant::now() >= deadline {
                return Err(TargetError::Refused(format!(
                    "the Job `{base}` has ended and was deleted, but does not go away: what do its finalizers wait for?"
                )));
            }
            // Without finalizers it is gone at once.
            if is_going {
                sleep(CHECK).await;
            }
        }
    }

    /// Deletes exactly this Job.
    async fn delete(&self, job: &Value) -> Result<(), ApiError> {
        let jobs = Resource::of(&Kind::JOB);
        let path = jobs.object(&self.environment.namespace, &text_at(job, "/metadata/name"));
        let uid = text_at(job, "/metadata/uid");
        match self.client.delete(&path, Some(&uid)).await {
            // Another one with its name was created in the meantime. The next look finds it.
            Err(error) if error.is_conflict() => Ok(()),
            other => other,
        }
    }
}

fn runs_several_pods(job: &Value) -> bool {
    ["/spec/parallelism", "/spec/completions"]
        .iter()
        .any(|field| job.pointer(field).and_then(Value::as_i64).unwrap_or(1) > 1)
}

/// The owner of a Job other than this environment: another environment, or a controller.
fn owner_of(job: &Value, environment: &Environment) -> Option<String> {
    if let Some(owner) = other_owner(job, environment) {
        return Some(owner);
    }
    let owners = job.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let owner = owners.into_iter().flatten().next()?;
    Some(format!("{} `{}`", text_at(owner, "/kind"), text_at(owner, "/name")))
}

fn is_running_already(base: &str, run: &Value) -> TargetError {
    TargetError::Refused(format!(
        "`{base}` is already running, as the Job `{}` since {}: wait until it ends, or delete that Job",
        text_at(run, "/metadata/name"),
        text_at(run, "/metadata/creationTimestamp")
    ))
}
