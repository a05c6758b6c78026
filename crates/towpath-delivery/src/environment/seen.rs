//! What a poller saw in an environment, as it is stored: `{"version": 1, …}`.

use super::view::{DriftView, DriftedObject, WorkloadView};
use crate::plan::ChangeAction;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use towpath_deploy::{Applied, CronFailure, CronJobStatus, Deploying, Drift, Hold, WorkloadStatus, Writer};
use towpath_manifest::ChangeKind;
use towpath_store::EnvironmentRow;
use towpath_types::ReleaseId;

const VERSION: u32 = 1;

/// Why what was seen cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SeenWireError {
    /// A newer Towpath wrote it.
    #[error("a newer Towpath wrote what was seen there (version {0}; this one reads up to version {VERSION})")]
    Version(u32),
    /// The stored form has an unexpected shape.
    #[error("what was seen there is not stored in a known form")]
    Form(#[from] serde_json::Error),
}

/// What was seen in an environment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Seen {
    pub workloads: Vec<WorkloadView>,
    pub addresses: Vec<String>,
    /// The release that was carried out completely; `None` while one is in progress or after a failed one.
    pub release: Option<ReleaseId>,
    /// The release that began last.
    pub attempted: Option<ReleaseId>,
    pub hold: Option<Hold>,
    pub deploying: Option<Deploying>,
    pub cron_jobs: Vec<CronJobStatus>,
}

impl Seen {
    /// What a target reports about an environment.
    pub(crate) fn of(workloads: Vec<WorkloadStatus>, applied: Option<Applied>, cron_jobs: Vec<CronJobStatus>) -> Self {
        let addresses: BTreeSet<String> = workloads
            .iter()
            .flat_map(|workload| workload.addresses.iter().cloned())
            .collect();
        let applied = applied.map(|applied| (applied.release, applied.attempted, applied.hold, applied.deploying));
        let (release, attempted, hold, deploying) = applied.unwrap_or_default();
        Self {
            workloads: workloads
                .into_iter()
                .filter(|workload| !matches!(workload.kind.as_str(), "Service" | "Ingress"))
                .map(|workload| WorkloadView {
                    kind: workload.kind,
                    name: workload.name,
                    image: workload.image.unwrap_or_default(),
                    ready: workload.ready,
                    desired: workload.desired,
                    restarts: workload.restarts,
                    message: workload.message,
                })
                .collect(),
            addresses: addresses.into_iter().collect(),
            release,
            attempted,
            hold,
            deploying,
            cron_jobs,
        }
    }
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeenV1 {
    version: u32,
    workloads: Vec<WorkloadV1>,
    addresses: Vec<String>,
    release: Option<ReleaseId>,
    attempted: Option<ReleaseId>,
    hold: Option<HoldV1>,
    deploying: Option<DeployingV1>,
    cron_jobs: Vec<CronJobV1>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkloadV1 {
    kind: String,
    name: String,
    image: String,
    ready: u32,
    desired: u32,
    restarts: u32,
    message: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HoldV1 {
    by: String,
    reason: String,
    since: Timestamp,
    until: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeployingV1 {
    by: String,
    what: String,
    since: Timestamp,
    renewed: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CronJobV1 {
    name: String,
    schedule: String,
    suspended: bool,
    image: Option<String>,
    active: u32,
    last_run: Option<Timestamp>,
    last_success: Option<Timestamp>,
    next_run: Option<Timestamp>,
    failures: Vec<CronFailureV1>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CronFailureV1 {
    job: String,
    at: Option<Timestamp>,
    message: String,
}

/// Writes what was seen.
pub(crate) fn write_seen(seen: &Seen) -> Value {
    json!(SeenV1 {
        version: VERSION,
        workloads: seen
            .workloads
            .iter()
            .cloned()
            .map(|workload| WorkloadV1 {
                kind: workload.kind,
                name: workload.name,
                image: workload.image,
                ready: workload.ready,
                desired: workload.desired,
                restarts: workload.restarts,
                message: workload.message,
            })
            .collect(),
        addresses: seen.addresses.clone(),
        release: seen.release,
        attempted: seen.attempted,
        hold: seen.hold.clone().map(|hold| HoldV1 {
            by: hold.by,
            reason: hold.reason,
            since: hold.since,
            until: hold.until,
        }),
        deploying: seen.deploying.clone().map(|deploying| DeployingV1 {
            by: deploying.by,
            what: deploying.what,
            since: deploying.since,
            renewed: deploying.renewed,
        }),
        cron_jobs: seen
            .cron_jobs
            .iter()
            .cloned()
            .map(|job| CronJobV1 {
                name: job.name,
                schedule: job.schedule,
                suspended: job.suspended,
                image: job.image,
                active: job.active,
                last_run: job.last_run,
                last_success: job.last_success,
                next_run: job.next_run,
                failures: job
                    .failures
                    .into_iter()
                    .map(|failure| CronFailureV1 {
                        job: failure.job,
                        at: failure.at,
                        message: failure.message,
                    })
                    .collect(),
            })
            .collect(),
    })
}

fn check_version(stored: &Value) -> Result<(), SeenWireError> {
    let Versioned { version } = Versioned::deserialize(stored)?;
    match version {
        VERSION => Ok(()),
        other => Err(SeenWireError::Version(other)),
    }
}

/// Reads what was seen; `None` before the first look.
pub(crate) fn read_seen(stored: &Value) -> Result<Option<Seen>, SeenWireError> {
    if stored.is_null() {
        return Ok(None);
    }
    check_version(stored)?;
    let seen = SeenV1::deserialize(stored)?;
    Ok(Some(Seen {
        workloads: seen
            .workloads
            .into_iter()
            .map(|workload| WorkloadView {
                kind: workload.kind,
                name: workload.name,
                image: workload.image,
                ready: workload.ready,
                desired: workload.desired,
                restarts: workload.restarts,
                message: workload.message,
            })
            .collect(),
        addresses: seen.addresses,
        release: seen.release,
        attempted: seen.attempted,
        hold: seen.hold.map(|hold| Hold {
            by: hold.by,
            reason: hold.reason,
            since: hold.since,
            until: hold.until,
        }),
        deploying: seen.deploying.map(|deploying| Deploying {
            by: deploying.by,
            what: deploying.what,
            since: deploying.since,
            renewed: deploying.renewed,
        }),
        cron_jobs: seen
            .cron_jobs
            .into_iter()
            .map(|job| CronJobStatus {
                name: job.name,
                schedule: job.schedule,
                suspended: job.suspended,
                image: job.image,
                active: job.active,
                last_run: job.last_run,
                last_success: job.last_success,
                next_run: job.next_run,
                failures: job
                    .failures
                    .into_iter()
                    .map(|failure| CronFailure {
                        job: failure.job,
                        at: failure.at,
                        message: failure.message,
                    })
                    .collect(),
            })
            .collect(),
    }))
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DriftV1 {
    version: u32,
    objects: Vec<DriftedV1>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DriftedV1 {
    action: DriftActionV1,
    kind: String,
    name: String,
    diff: String,
    writers: Vec<WriterV1>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum DriftActionV1 {
    Created,
    Changed,
    Deleted,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WriterV1 {
    manager: String,
    at: Option<Timestamp>,
}

/// The drift that a target found at `at`.
pub(crate) fn drift_view(drift: Vec<Drift>, at: Timestamp) -> DriftView {
    let objects = drift.into_iter().map(|one| DriftedObject {
        action: match one.change.kind {
            ChangeKind::Deleted => ChangeAction::Deleted,
            ChangeKind::Created => ChangeAction::Created,
            ChangeKind::Changed | ChangeKind::Unchanged => ChangeAction::Changed,
        },
        diff: one.change.to_string(),
        kind: one.change.id.kind,
        name: one.change.id.name,
        writers: one.writers,
    });
    DriftView {
        at,
        objects: objects.collect(),
    }
}

/// Writes drift. The time of the look is a column of its own.
pub(crate) fn write_drift(drift: &DriftView) -> Value {
    json!(DriftV1 {
        version: VERSION,
        objects: drift
            .objects
            .iter()
            .cloned()
            .map(|object| DriftedV1 {
                action: match object.action {
                    ChangeAction::Created => DriftActionV1::Created,
                    ChangeAction::Changed => DriftActionV1::Changed,
                    ChangeAction::Deleted => DriftActionV1::Deleted,
                },
                kind: object.kind,
                name: object.name,
                diff: object.diff,
                writers: object
                    .writers
                    .into_iter()
                    .map(|writer| WriterV1 {
                        manager: writer.manager,
                        at: writer.at,
                    })
                    .collect(),
            })
            .collect(),
    })
}

/// Reads a row's drift; `None` if nobody has looked since the last release.
pub(crate) fn read_drift(row: &EnvironmentRow) -> Result<Option<DriftView>, SeenWireError> {
    let Some(at) = row.drift_at.filter(|_| !row.drift.is_null()) else {
        return Ok(None);
    };
    check_version(&row.drift)?;
    let drift = DriftV1::deserialize(&row.drift)?;
    let objects = drift.objects.into_iter().map(|object| DriftedObject {
        action: match object.action {
            DriftActionV1::Created => ChangeAction::Created,
            DriftActionV1::Changed => ChangeAction::Changed,
            DriftActionV1::Deleted => ChangeAction::Deleted,
        },
        kind: object.kind,
        name: object.name,
        diff: object.diff,
        writers: object
            .writers
            .into_iter()
            .map(|writer| Writer {
                manager: writer.manager,
                at: writer.at,
            })
            .collect(),
    });
    Ok(Some(DriftView {
        at,
        objects: objects.collect(),
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::rows;

    fn at() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn everything() -> Seen {
        Seen {
            workloads: vec![WorkloadView {
                kind: "Deployment".into(),
                name: "web".into(),
                image: "r.io/web:1".into(),
                ready: 1,
                desired: 2,
                restarts: 3,
                message: "waits".into(),
            }],
            addresses: vec!["http://127.0.0.1:1".into()],
            release: Some(ReleaseId::from_u128(1)),
            attempted: Some(ReleaseId::from_u128(2)),
            hold: Some(Hold {
                by: "ann".into(),
                reason: "why".into(),
                since: at(),
                until: at(),
            }),
            deploying: Some(Deploying {
                by: "bob".into(),
                what: "release 3".into(),
                since: at(),
                renewed: at(),
            }),
            cron_jobs: vec![CronJobStatus {
                name: "vacuum".into(),
                schedule: "0 3 * * *".into(),
                suspended: true,
                image: None,
                active: 1,
                last_run: Some(at()),
                last_success: None,
                next_run: None,
                failures: vec![CronFailure {
                    job: "vacuum-1".into(),
                    at: None,
                    message: "it failed".into(),
                }],
            }],
        }
    }

    #[test]
    fn what_was_seen_is_stored_like_this() {
        let stored = json!({
            "version": 1,
            "workloads": [{
                "kind": "Deployment", "name": "web", "image": "r.io/web:1", "ready": 1, "desired": 2, "restarts": 3,
                "message": "waits",
            }],
            "addresses": ["http://127.0.0.1:1"],
            "release": "00000000-0000-0000-0000-000000000001",
            "attempted": "00000000-0000-0000-0000-000000000002",
            "hold": {
                "by": "ann", "reason": "why", "since": "2026-01-01T00:00:00Z", "until": "2026-01-01T00:00:00Z",
            },
            "deploying": {
                "by": "bob", "what": "release 3", "since": "2026-01-01T00:00:00Z", "renewed": "2026-01-01T00:00:00Z",
            },
            "cron_jobs": [{
                "name": "vacuum", "schedule": "0 3 * * *", "suspended": true, "image": null, "active": 1,
                "last_run": "2026-01-01T00:00:00Z", "last_success": null, "next_run": null,
                "failures": [{"job": "vacuum-1", "at": null, "message": "it failed"}],
            }],
        });
        assert_eq!(write_seen(&everything()), stored);
        assert_eq!(read_seen(&stored).unwrap(), Some(everything()));
    }

    #[test]
    fn drift_is_stored_like_this() {
        let drift = DriftView {
            at: at(),
            objects: vec![DriftedObject {
                action: ChangeAction::Changed,
                kind: "Deployment".into(),
                name: "web".into(),
                diff: "-a\n+b\n".into(),
                writers: vec![Writer {
                    manager: "kubectl-edit".into(),
                    at: Some(at()),
                }],
            }],
        };
        let stored = json!({
            "version": 1,
            "objects": [{
                "action": "changed", "kind": "Deployment", "name": "web", "diff": "-a\n+b\n",
                "writers": [{"manager": "kubectl-edit", "at": "2026-01-01T00:00:00Z"}],
            }],
        });
        assert_eq!(write_drift(&drift), stored);
        let row = EnvironmentRow {
            drift: stored,
            drift_at: Some(at()),
            ..rows::environment("claims", "dev")
        };
        assert_eq!(read_drift(&row).unwrap(), Some(drift));
    }

    #[test]
    fn what_a_newer_towpath_wrote_is_not_read_by_half() {
        assert!(matches!(
            read_seen(&json!({"version": 2, "workloads": []})),
            Err(SeenWireError::Version(2))
        ));
        let mut stored = write_seen(&everything());
        stored["news"] = json!(1);
        assert!(matches!(read_seen(&stored), Err(SeenWireError::Form(_))));
        assert_eq!(read_seen(&Value::Null).unwrap(), None);
    }
}
