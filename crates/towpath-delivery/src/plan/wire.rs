//! Plans as they are stored, here and in an environment's own record: `{"version": 1, …}`.
//!
//! - **Invariant:** Towpath can always read every version ever written.
//! - **Invariant:** an unknown field or version is an error: a newer Towpath wrote it, and part of a plan is useless.
//! - **Invariant:** the order of keys does not matter to the digest, because a database may reorder JSON.
//!
//! Targets read `objects`, and may empty `changes` in their own record when a plan is too large for it.

use super::content::{ChangeAction, Plan, PlanChange, PlanCommit, PlanHooks};
use crate::project_file;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use towpath_deploy::Environment;
use towpath_manifest::{HookOccasion, Object};
use towpath_store::PlanRow;
use towpath_types::{CommitId, Digest, EnvironmentId, EnvironmentIdError, ImageReference, ReleaseId};

const VERSION: u32 = 1;

/// Why a stored plan cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PlanWireError {
    /// A newer Towpath wrote it.
    #[error("a newer Towpath wrote the plan (version {0}; this one reads up to version {VERSION}): use that one")]
    Version(u32),
    /// The stored form has an unexpected shape.
    #[error("what is stored is not a plan")]
    Form(#[from] serde_json::Error),
    /// The environment's name is invalid.
    #[error("the plan's environment cannot be one")]
    Environment(#[from] EnvironmentIdError),
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanV1 {
    version: u32,
    project: String,
    environment: String,
    kube_context: String,
    namespace: String,
    on_failure: OnFailureV1,
    wait: WaitV1,
    images: BTreeMap<String, ImageReference>,
    parent: Option<ReleaseId>,
    previous_images: BTreeMap<String, ImageReference>,
    commit: Option<CommitId>,
    commits: Vec<CommitV1>,
    #[serde(default)]
    third_party: BTreeMap<String, Option<Digest>>,
    /// In the wire form of `towpath-manifest`, places included.
    objects: Vec<Object>,
    changes: Vec<ChangeV1>,
    unchanged: usize,
    /// Absent if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hooks: Option<HooksV1>,
    blockers: Vec<String>,
    warnings: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HooksV1 {
    occasion: OccasionV1,
    jobs: Vec<Object>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OccasionV1 {
    Install,
    Upgrade,
    Rollback,
}

impl HooksV1 {
    fn of(hooks: &PlanHooks) -> Option<Self> {
        (!hooks.jobs.is_empty()).then(|| Self {
            occasion: match hooks.occasion {
                HookOccasion::Install => OccasionV1::Install,
                HookOccasion::Upgrade => OccasionV1::Upgrade,
                HookOccasion::Rollback => OccasionV1::Rollback,
            },
            jobs: hooks.jobs.clone(),
        })
    }
}

impl From<HooksV1> for PlanHooks {
    fn from(stored: HooksV1) -> Self {
        Self {
            occasion: match stored.occasion {
                OccasionV1::Install => HookOccasion::Install,
                OccasionV1::Upgrade => HookOccasion::Upgrade,
                OccasionV1::Rollback => HookOccasion::Rollback,
            },
            jobs: stored.jobs,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnFailureV1 {
    Rollback,
    Stop,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WaitV1 {
    release: Option<SignedDuration>,
    unschedulable: Option<SignedDuration>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CommitV1 {
    id: CommitId,
    author: String,
    subject: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeV1 {
    action: ActionV1,
    kind: String,
    name: String,
    diff: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ActionV1 {
    Created,
    Changed,
    Deleted,
}

/// Writes a plan.
#[must_use]
pub fn write(plan: &Plan) -> Value {
    let stored = PlanV1 {
        version: VERSION,
        project: plan.place.id.project().to_string(),
        environment: plan.place.id.environment().to_string(),
        kube_context: plan.place.kube_context.clone(),
        namespace: plan.place.namespace.clone(),
        on_failure: match plan.on_failure {
            project_file::OnFailure::Rollback => OnFailureV1::Rollback,
            project_file::OnFailure::Stop => OnFailureV1::Stop,
        },
        wait: WaitV1 {
            release: plan.wait.release,
            unschedulable: plan.wait.unschedulable,
        },
        images: plan.images.clone(),
        parent: plan.parent,
        previous_images: plan.previous_images.clone(),
        commit: plan.commit.clone(),
        commits: plan
            .commits
            .iter()
            .map(|commit| CommitV1 {
                id: commit.id.clone(),
                author: commit.author.clone(),
                subject: commit.subject.clone(),
            })
            .collect(),
        third_party: plan.third_party.clone(),
        objects: plan.objects.clone(),
        changes: plan
            .changes
            .iter()
            .map(|change| ChangeV1 {
                action: match change.action {
                    ChangeAction::Created => ActionV1::Created,
                    ChangeAction::Changed => ActionV1::Changed,
                    ChangeAction::Deleted => ActionV1::Deleted,
                },
                kind: change.kind.clone(),
                name: change.name.clone(),
                diff: change.diff.clone(),
            })
            .collect(),
        unchanged: plan.unchanged,
        hooks: HooksV1::of(&plan.hooks),
        blockers: plan.blockers.clone(),
        warnings: plan.warnings.clone(),
    };
    serde_json::json!(stored)
}

/// Reads a plan.
///
/// # Errors
/// When it was written by a newer Towpath, or not by Towpath.
pub fn read(stored: Value) -> Result<Plan, PlanWireError> {
    let Versioned { version } = Versioned::deserialize(&stored)?;
    if version != VERSION {
        return Err(PlanWireError::Version(version));
    }
    let stored: PlanV1 = serde_json::from_value(stored)?;
    Ok(Plan {
        place: Environment {
            id: EnvironmentId::new(&stored.project, &stored.environment)?,
            kube_context: stored.kube_context,
            namespace: stored.namespace,
        },
        on_failure: match stored.on_failure {
            OnFailureV1::Rollback => project_file::OnFailure::Rollback,
            OnFailureV1::Stop => project_file::OnFailure::Stop,
        },
        wait: project_file::Wait {
            release: stored.wait.release,
            unschedulable: stored.wait.unschedulable,
        },
        images: stored.images,
        parent: stored.parent,
        previous_images: stored.previous_images,
        commit: stored.commit,
        commits: stored
            .commits
            .into_iter()
            .map(|commit| PlanCommit {
                id: commit.id,
                author: commit.author,
                subject: commit.subject,
            })
            .collect(),
        third_party: stored.third_party,
        objects: stored.objects,
        changes: stored
            .changes
            .into_iter()
            .map(|change| PlanChange {
                action: match change.action {
                    ActionV1::Created => ChangeAction::Created,
                    ActionV1::Changed => ChangeAction::Changed,
                    ActionV1::Deleted => ChangeAction::Deleted,
                },
                kind: change.kind,
                name: change.name,
                diff: change.diff,
            })
            .collect(),
        unchanged: stored.unchanged,
        hooks: stored.hooks.map(PlanHooks::from).unwrap_or_default(),
        blockers: stored.blockers,
        warnings: stored.warnings,
    })
}

impl Plan {
    /// The plan's name: the digest of everything in it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        digest(&write(self))
    }

    /// The row that keeps the plan.
    #[must_use]
    pub fn row(&self, now: Timestamp) -> PlanRow {
        let plan = write(self);
        PlanRow {
            digest: digest(&plan),
            environment: self.place.id.clone(),
            created_at: now,
            plan,
        }
    }
}

/// The digest of a stored plan, independent of the order of its keys.
#[must_use]
pub fn digest(stored: &Value) -> Digest {
    Digest::of(sorted(stored).to_string().as_bytes())
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<&String, &Value> = fields.iter().collect();
            let fields = fields.into_iter().map(|(key, value)| (key.clone(), sorted(value)));
            Value::Object(fields.collect::<Map<String, Value>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => plain.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::plans::plan;
    use serde_json::json;

    #[test]
    fn a_plan_is_stored_like_this() {
        let stored = json!({
            "version": 1,
            "project": "claims",
            "environment": "dev",
            "kube_context": "live",
            "namespace": "claims-dev",
            "on_failure": "stop",
            "wait": {"release": "PT45M", "unschedulable": null},
            "images": {"claims": format!("r.io/claims@{}", Digest::of(b"new"))},
            "parent": "00000000-0000-0000-0000-000000000001",
            "previous_images": {"claims": format!("r.io/claims@{}", Digest::of(b"old"))},
            "commit": "0123456789abcdef0123456789abcdef01234567",
            "commits": [{
                "id": "0123456789abcdef0123456789abcdef01234567", "author": "Ada", "subject": "Say good day",
            }],
            "third_party": {"redis:7": Digest::of(b"redis"), "odd": null},
            "objects": [{
                "api_version": "v1", "kind": "ConfigMap", "name": "web", "namespace": null,
                "value": {
                    "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}, "data": {"GREETING": "good day"},
                },
                "place": {"file": ".k8s/live/dev/web.yaml", "line": 1, "column": 1},
            }],
            "changes": [{"action": "created", "kind": "ConfigMap", "name": "web", "diff": "+a\n"}],
            "unchanged": 3,
            "blockers": ["no"],
            "warnings": ["hm"],
        });
        assert_eq!(write(&plan()), stored);
        assert_eq!(read(stored.clone()).unwrap(), plan());
        assert_eq!(plan().digest(), digest(&stored));
        let row = plan().row(crate::testing::rows::start());
        assert_eq!((row.digest, row.plan), (plan().digest(), stored));
    }

    #[test]
    fn the_order_of_keys_does_not_change_the_name() {
        let stored = write(&plan());
        let Value::Object(fields) = &stored else { panic!() };
        let turned: Map<String, Value> = fields
            .iter()
            .rev()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let turned = Value::Object(turned);
        assert_ne!(turned.to_string(), stored.to_string());
        assert_eq!(digest(&turned), digest(&stored));
    }

    #[test]
    fn everything_in_a_plan_changes_its_name() {
        let stored = write(&plan());
        let Value::Object(fields) = &stored else { panic!() };
        let mut names = std::collections::BTreeSet::from([digest(&stored)]);
        for key in fields.keys() {
            let mut other = fields.clone();
            other[key] = json!("something else");
            assert!(names.insert(digest(&Value::Object(other))), "{key}");
        }
    }

    #[test]
    fn what_a_newer_towpath_wrote_is_not_read_by_half() {
        let mut stored = write(&plan());
        stored["version"] = json!(2);
        let error = read(stored).unwrap_err();
        assert!(
            error.to_string().contains("a newer Towpath wrote the plan (version 2"),
            "{error}"
        );
        let mut stored = write(&plan());
        stored["news"] = json!(true);
        assert!(matches!(read(stored), Err(PlanWireError::Form(_))));
        assert!(matches!(read(Value::Null), Err(PlanWireError::Form(_))));
    }

    #[test]
    fn a_plan_without_the_images_of_others_can_be_read() {
        let mut stored = write(&plan());
        stored.as_object_mut().unwrap().remove("third_party");
        let expect = Plan {
            third_party: BTreeMap::new(),
            ..plan()
        };
        assert_eq!(read(stored).unwrap(), expect);
    }

    #[test]
    fn a_target_may_drop_what_is_only_shown() {
        let mut stored = write(&plan());
        stored["changes"] = json!([]);
        let read = read(stored).unwrap();
        assert!(plan().differences(&read).is_empty());
    }
}
