//! Objects that somebody else owns or deletes.

use super::finding::{note, refused_at};
use crate::kubernetes::{keeper, labels::other_owner};
use crate::live::Keeper;
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

/// A Secret in the manifests that the cluster has from somebody else: a deployment would write over its values.
pub(super) fn kept_by_others(object: &Object, live: &Value) -> Option<Finding> {
    // A manifest may leave the values to whoever fills them in: that of a service account's token does.
    let writes_values = ["data", "stringData"].iter().any(|field| {
        let values = object.value.get(field).and_then(Value::as_object);
        values.is_some_and(|values| !values.is_empty())
    });
    if object.kind != "Secret" || !writes_values {
        return None;
    }
    let kept = keeper::of(live, &[]);
    let is_ours = match kept.by {
        Keeper::Manifest => true,
        // Manifests may take over what somebody applied or created by hand, as for every other kind.
        Keeper::People => !keeper::says_people(live),
        Keeper::Terraform | Keeper::Operator | Keeper::Cluster => false,
    };
    let message = || {
        format!(
            "the Secret that the cluster has is kept by {} ({}), and a deployment would write over its values: remove it from the \
             manifests, or give it another name",
            kept.by, kept.because
        )
    };
    (!is_ours).then(|| refused_at(object, "/metadata/name", message()))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn a_manifest_writes_over_no_values_of_others() {
        let secret = |more: &Value| {
            let mut secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "rds"}});
            for (key, value) in more.as_object().unwrap() {
                secret[key] = value.clone();
            }
            secret
        };
        let written = |manager: &str, operation: &str| {
            let entry = json!({"manager": manager, "operation": operation, "fieldsV1": {"f:data": {"f:url": {}}}});
            secret(&json!({"metadata": {"name": "rds", "managedFields": [entry]}}))
        };
        let with_value = Object::from_value(secret(&json!({"data": {"url": "eA=="}})), "rds.yaml").unwrap();
        let said = |object: &Object, live: &Value| kept_by_others(object, live).map(|finding| finding.message);
        let refused = said(&with_value, &written("HashiCorp", "Update")).unwrap();
        let expected = "the Secret that the cluster has is kept by terraform (the field manager `HashiCorp`";
        assert!(refused.starts_with(expected), "{refused}");
        let people = json!({"metadata": {"name": "rds", "annotations": {"towpath.dev/keeper": "people"}}});
        let refused = said(&with_value, &secret(&people)).unwrap();
        assert!(refused.contains("is kept by people"), "{refused}");
        for live in [
            written("towpath", "Apply"),
            written("kubectl-client-side-apply", "Update"),
        ] {
            assert_eq!(said(&with_value, &live), None, "{live}");
        }
        // The cluster fills in the token.
        let token = json!({"type": "kubernetes.io/service-account-token"});
        let manifest = Object::from_value(secret(&token), "rds.yaml").unwrap();
        assert_eq!(said(&manifest, &secret(&token)), None);
    }
}
