//! Whose the objects of an environment are: what a first deployment takes over, and what it leaves alone.

use super::{
    deployers,
    drift::is_controller,
    labels::{is_owned_by, other_owner},
    preflight::{CheckedObject, Report},
};
use crate::target::{Environment, Finding, OtherObject, Severity, Surveyed};
use futures::future::join_all;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use towpath_kube::{ApiError, Client, Resource, Select, managed_fields, text_at};
use towpath_manifest::{Change, ChangeKind, KINDS, Object, ObjectId};

/// The label by which an object says what manages it, whatever that is.
const MANAGED_BY: &str = "/metadata/labels/app.kubernetes.io~1managed-by";

/// Who has deployed an object, as words: by its labels and annotations, otherwise by its field managers.
pub(super) fn owners(object: &Value, environment: &Environment) -> Vec<String> {
    if is_owned_by(object, environment) {
        return vec![format!("Towpath, in {}", environment.id)];
    }
    if let Some(other) = other_owner(object, environment) {
        return vec![format!("Towpath, in {other}")];
    }
    // Charts have this label of their own, whoever applies them.
    let managed_by = object.pointer(MANAGED_BY).and_then(Value::as_str);
    let managed_by = managed_by.filter(|value| *value != "Helm");
    let managed_by = managed_by.map(|value| format!("what calls itself `{value}`"));
    let marked = deployers::marks(object).map(|(_, words)| words);
    let marked: Vec<String> = marked.chain(managed_by).collect();
    if !marked.is_empty() {
        return marked;
    }
    let managers: BTreeSet<&str> = managed_fields::entries(object)
        .filter(|entry| entry.subresource.is_empty() && !is_controller(entry.manager))
        .map(|entry| entry.manager)
        .collect();
    managers.into_iter().map(words_for).collect()
}

fn words_for(manager: &str) -> String {
    match manager {
        "kubectl-client-side-apply" | "kubectl" => "`kubectl apply`".to_string(),
        "kubectl-create" => "`kubectl create`".to_string(),
        "kubectl-edit" => "`kubectl edit`".to_string(),
        "helm" => "`helm`".to_string(),
        manager => match deployers::program(manager) {
            Some(program) => format!("{program}, as the field manager `{manager}`"),
            None => format!("the field manager `{manager}`"),
        },
    }
}

/// What a deployment takes over, from the check of its objects.
pub(super) fn surveyed(environment: &Environment, report: &Report, changes: Vec<Change>) -> Vec<Surveyed> {
    let checked: BTreeMap<ObjectId, &CheckedObject> = report
        .objects
        .iter()
        .map(|checked| (checked.object.id(), checked))
        .collect();
    let one = |change: Change| {
        let checked = checked.get(&change.id);
        let live = checked.and_then(|checked| Some((checked, checked.live.as_ref()?)));
        let Some((checked, live)) = live else {
            return Surveyed {
                change,
                is_taken_over: false,
                owners: Vec::new(),
                overruled: Vec::new(),
            };
        };
        let would_be = checked.would_be.as_ref();
        let overruled = would_be.map(|would_be| managed_fields::overruled(live, would_be));
        Surveyed {
            is_taken_over: managed_fields::ours(live).is_none() || managed_fields::is_to_be_taken_over(live),
            owners: owners(live, environment),
            overruled: overruled.into_iter().flatten().map(str::to_string).collect(),
            change,
        }
    };
    let applied = changes.into_iter().filter(|change| change.kind != ChangeKind::Deleted);
    applied.map(one).collect()
}

/// A note about the objects that a deployment takes over from Helm. Those of `kubectl apply` are people's own.
pub(super) fn notes(report: &Report) -> Vec<Finding> {
    let mut taken: BTreeMap<&str, Vec<&Object>> = BTreeMap::new();
    for checked in &report.objects {
        let managers = checked.live.iter().flat_map(managed_fields::predecessors);
        for manager in managers.filter(|manager| *manager == "helm") {
            taken.entry(manager).or_default().push(&checked.object);
        }
    }
    let note = |(manager, objects): (&str, Vec<&Object>)| {
        let first = objects.first()?;
        let others: Vec<String> = objects.iter().skip(1).map(|object| object.id().to_string()).collect();
        let also = match others.is_empty() {
            true => String::new(),
            false => format!(", and {}", others.join(", ")),
        };
        Some(Finding {
            severity: Severity::Note,
            object: first.id(),
            field: String::new(),
            place: first.place.clone(),
            message: format!(
                "{} has deployed it{also}: this deployment takes over what it owns there. That alone restarts nothing",
                words_for(manager)
            ),
        })
    };
    taken.into_iter().filter_map(note).collect()
}

/// The objects of an environment that are not among `known`, and sentences about what cannot be listed. Leaves out what other
/// objects own, and what Kubernetes, Helm and Towpath put there for themselves.
pub(super) async fn others(
    client: &Client,
    environment: &Environment,
    known: &BTreeSet<ObjectId>,
) -> Result<(Vec<OtherObject>, Vec<String>), ApiError> {
    let kinds = KINDS.iter().filter(|kind| kind.namespaced && !kind.plural.is_empty());
    // These tell what happened, or follow from Services.
    let kinds = kinds.filter(|kind| !matches!(kind.name, "Event" | "Endpoints" | "EndpointSlice"));
    let listed = kinds.map(|kind| async move {
        let collection = Resource::of(kind).collection(&environment.namespace);
        (kind, client.list_metadata(&collection, &Select::All).await)
    });
    let (mut others, mut unseen) = (Vec::new(), Vec::new());
    for (kind, listed) in join_all(listed).await {
        let objects = match listed {
            Ok(objects) => objects,
            Err(error) if error.is_missing() => continue,
            Err(error) if error.is_forbidden() => {
                unseen.push(format!("this account may not list `{}`", kind.plural));
                continue;
            }
            Err(error) => return Err(error),
        };
        for object in objects {
            let id = ObjectId {
                group: Resource::of(kind).group().to_string(),
                kind: kind.name.to_string(),
                name: text_at(&object, "/metadata/name"),
            };
            if !known.contains(&id) && !is_of_the_system(&id, &object) {
                others.push(OtherObject {
                    owners: owners(&object, environment),
                    kind: id.kind,
                    name: id.name,
                });
            }
        }
    }
    Ok((others, unseen))
}

fn is_of_the_system(id: &ObjectId, object: &Value) -> bool {
    let has_owner = object
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)
        .is_some_and(|owners| !owners.is_empty());
    let is_record =
        id.kind == "Secret" && (id.name.starts_with("towpath.") || text_at(object, "/metadata/labels/owner") == "helm");
    has_owner
        || is_record
        || matches!(
            (id.kind.as_str(), id.name.as_str()),
            ("ConfigMap", "kube-root-ca.crt") | ("ServiceAccount", "default") | ("Service", "kubernetes")
        )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::target::EnvironmentId;
    use serde_json::json;

    #[test]
    fn the_owner_of_an_object_is_found_in_its_marks_and_managers() {
        let environment = Environment {
            id: EnvironmentId::new("shop", "dev").unwrap(),
            kube_context: "live".into(),
            namespace: "dev".into(),
        };
        let said = |metadata: &Value| owners(&json!({ "metadata": metadata }), &environment).join("; ");
        let managed = |manager: &str| {
            json!({"managedFields": [
                {"manager": manager, "operation": "Update", "fieldsV1": {"f:spec": {}}},
                {"manager": "kube-controller-manager", "operation": "Update", "fieldsV1": {"f:spec": {}}},
                {"manager": "someone", "operation": "Update", "subresource": "status", "fieldsV1": {"f:status": {}}},
            ]})
        };
        for (metadata, expect) in [
            (managed("kubectl-client-side-apply"), "`kubectl apply`"),
            (managed("helm"), "`helm`"),
            (
                managed("argocd-controller"),
                "Argo CD, as the field manager `argocd-controller`",
            ),
            (
                managed("kustomize-controller"),
                "Flux, as the field manager `kustomize-controller`",
            ),
            (
                json!({"labels": {"app.kubernetes.io/managed-by": "skaffold"}}),
                "what calls itself `skaffold`",
            ),
            (managed("terraform"), "the field manager `terraform`"),
            (
                json!({"annotations": {"meta.helm.sh/release-name": "web"}, "labels": {"app.kubernetes.io/managed-by": "Helm"}}),
                "the Helm release `web`",
            ),
            (
                json!({"labels": {"argocd.argoproj.io/instance": "web"}}),
                "Argo CD, in the application `web`",
            ),
            (
                json!({"labels": {"towpath.dev/project": "other", "towpath.dev/environment": "dev"}}),
                "Towpath, in other/dev",
            ),
            (
                json!({"labels": {"towpath.dev/project": "shop", "towpath.dev/environment": "dev"}}),
                "Towpath, in shop/dev",
            ),
            (json!({}), ""),
        ] {
            assert_eq!(said(&metadata), expect, "{metadata}");
        }
    }
}
