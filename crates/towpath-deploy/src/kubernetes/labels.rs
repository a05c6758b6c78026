//! The labels and annotations that Towpath puts on objects: which environment an object belongs to, which release wrote it,
//! and whether Towpath created it.

use crate::target::{ApplyRequest, Environment, Occasion};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use towpath_kube::managed_fields;
use towpath_manifest::{Object, ObjectId};

const PREFIX: &str = "towpath.dev/";
const PROJECT: &str = "towpath.dev/project";
const ENVIRONMENT: &str = "towpath.dev/environment";
/// The label with the number of the release that last wrote an object.
const RELEASE: &str = "towpath.dev/release";
/// The annotation of an object that Towpath created.
const CREATED: &str = "towpath.dev/made";
/// Source: <https://kubernetes.io/docs/reference/labels-annotations-taints/#change-cause>
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

/// The labels that say which environment an object belongs to.
pub(super) fn owner_labels(environment: &Environment) -> BTreeMap<String, String> {
    BTreeMap::from([
        (PROJECT.to_string(), environment.id.project().to_string()),
        (ENVIRONMENT.to_string(), environment.id.environment().to_string()),
    ])
}

fn label<'a>(object: &'a Value, label: &str) -> Option<&'a str> {
    object.pointer("/metadata/labels")?.get(label)?.as_str()
}

/// Whether an object belongs to `environment`.
pub(super) fn is_owned_by(object: &Value, environment: &Environment) -> bool {
    owner_labels(environment)
        .iter()
        .all(|(name, value)| label(object, name) == Some(value))
}

/// The other environment that an object belongs to: `claims/dev`.
pub(super) fn other_owner(object: &Value, environment: &Environment) -> Option<String> {
    let (project, name) = (label(object, PROJECT)?, label(object, ENVIRONMENT)?);
    let is_ours = (project, name) == (environment.id.project(), environment.id.environment());
    (!is_ours).then(|| format!("{project}/{name}"))
}

/// Whether a release wrote the object.
pub(super) fn is_of_a_release(object: &Value) -> bool {
    label(object, RELEASE).is_some()
}

/// Whether the object itself says that Towpath created it. The inventory knows that too, but it can get lost.
pub(super) fn says_created(object: &Value) -> bool {
    let annotations = object.pointer("/metadata/annotations");
    managed_fields::ours(object).is_some() && annotations.is_some_and(|annotations| annotations.get(CREATED).is_some())
}

/// An object without the marks of releases: a change of these alone is not a change.
pub(super) fn without_marks(object: &Value) -> Value {
    let mut object = object.clone();
    let is_mark = |key: &str| key.starts_with(PREFIX) || key == CHANGE_CAUSE;
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["labels", "annotations"] {
            if let Some(map) = metadata.get_mut(field).and_then(Value::as_object_mut) {
                map.retain(|key, _| !is_mark(key));
                if map.is_empty() {
                    metadata.shift_remove(field);
                }
            }
        }
    }
    object
}

/// The marks for the objects of one request.
pub(super) struct Marks {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    /// Whether an object keeps the number of the release that wrote it before.
    keeps_release: bool,
    /// The objects that Towpath created and may prune.
    created: BTreeSet<ObjectId>,
}

impl Marks {
    pub(super) fn of(request: &ApplyRequest, created: BTreeSet<ObjectId>) -> Self {
        let mut labels = owner_labels(&request.environment);
        let record = &request.record;
        if let Some(commit) = &record.commit {
            // A label has at most 63 characters.
            labels.insert("towpath.dev/commit".into(), commit.as_str().chars().take(63).collect());
        }
        let images = record.images_text();
        let cause = match request.occasion {
            Occasion::Beside => format!("{images} by {} ({})", record.by, record.cause),
            Occasion::Release | Occasion::Back => {
                labels.insert(RELEASE.into(), record.number.to_string());
                format!(
                    "release {}: {images} by {} ({})",
                    record.number, record.by, record.cause
                )
            }
        };
        let annotations = BTreeMap::from([
            ("towpath.dev/image".to_string(), images),
            ("towpath.dev/by".to_string(), record.by.clone()),
            ("towpath.dev/cause".to_string(), record.cause.clone()),
            (CHANGE_CAUSE.to_string(), cause),
        ]);
        Self {
            labels,
            annotations,
            keeps_release: request.occasion == Occasion::Beside,
            created,
        }
    }

    /// The manifest of `object` with the marks. `live` is the object in the cluster.
    pub(super) fn put_on(&self, object: &Object, live: Option<&Value>) -> Value {
        let is_created = self.created.contains(&object.id());
        let mut object = object.value.clone();
        for (field, marks) in [("labels", &self.labels), ("annotations", &self.annotations)] {
            if !object["metadata"][field].is_object() {
                object["metadata"][field] = json!({});
            }
            for (key, value) in marks {
                object["metadata"][field][key] = Value::from(value.as_str());
            }
        }
        if is_created {
            object["metadata"]["annotations"][CREATED] = Value::from("true");
        }
        let release = live.and_then(|live| live.pointer("/metadata/labels")?.get(RELEASE));
        if let Some(release) = release.filter(|_| self.keeps_release) {
            object["metadata"]["labels"][RELEASE] = release.clone();
        }
        object
    }
}
