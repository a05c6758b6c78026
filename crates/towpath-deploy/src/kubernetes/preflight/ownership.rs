//! Objects that somebody else owns or deletes.

use super::finding::{note, refused_at};
use crate::kubernetes::labels::other_owner;
use crate::target::{Environment, Finding};
use serde_json::Value;
use towpath_kube::Resource;
use towpath_manifest::Object;

/// All findings about an object that exists.
pub(super) fn check(environment: &Environment, object: &Object, resource: &Resource, live: &Value) -> Vec<Finding> {
    let other = other_owner(live, environment).map(|owner| belongs_to_other(environment, object, resource, &owner));
    other.into_iter().chain(is_being_deleted(object, live)).collect()
}

fn belongs_to_other(environment: &Environment, object: &Object, resource: &Resource, owner: &str) -> Finding {
    if !resource.namespaced {
        // The cluster has only one of it, whichever manifests contain it.
        return Finding {
            place: object.place_of("/metadata/name"),
            ..note(
                object,
                &format!("the manifests of {owner} contain it, too: the last deployment decides what it is like"),
            )
        };
    }
    let namespace = &environment.namespace;
    let message = format!(
        "in the namespace `{namespace}` it belongs to {owner}, and {} would overwrite it: give each environment its own namespace, or \
         its own names. If the environment was renamed, release the old one's object: `kubectl --namespace {namespace} label {} {} \
         towpath.dev/environment-`",
        environment.id, resource.plural, object.name
    );
    Finding {
        field: String::new(),
        ..refused_at(object, "/metadata/name", message)
    }
}

/// An object that somebody has deleted, but that still exists: everything that is applied to it would be deleted with it.
fn is_being_deleted(object: &Object, live: &Value) -> Option<Finding> {
    let since = live.pointer("/metadata/deletionTimestamp")?.as_str()?;
    let finalizers = live.pointer("/metadata/finalizers").and_then(Value::as_array);
    let finalizers: Vec<&str> = finalizers.into_iter().flatten().filter_map(Value::as_str).collect();
    let waits_for = match finalizers[..] {
        [] => "the objects that it owns".to_string(),
        _ => format!("its finalizers ({})", finalizers.join(", ")),
    };
    let message = format!(
        "it was deleted at {since} and still waits for {waits_for}. Anything applied now would be deleted with it: deploy again when \
         it is gone"
    );
    Some(refused_at(object, "/metadata/name", message))
}
