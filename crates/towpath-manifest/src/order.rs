//! In which order objects are applied.

use crate::{Object, ObjectId};

/// Sorts `objects` so that what others need comes first: by kind, then by name.
///
/// Deletion goes the other way round. Kinds that are not known come after the workloads, for a custom resource is
/// mostly about a workload or a Service (a `ServiceMonitor`, a `ScaledObject`).
/// Source: <https://github.com/helm/helm/blob/main/pkg/release/v1/util/kind_sorter.go>
pub fn sort_for_apply(objects: &mut [Object]) {
    objects.sort_by_cached_key(|object| rank_and_name(&object.id()));
}

pub(crate) fn rank_and_name(id: &ObjectId) -> (usize, String, String) {
    (rank(&id.kind), id.kind.clone(), id.name.clone())
}

const ORDER: &[&str] = &[
    "Namespace",
    "NetworkPolicy",
    "ResourceQuota",
    "LimitRange",
    "PodDisruptionBudget",
    "ServiceAccount",
    "CustomResourceDefinition",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "ConfigMap",
    "Secret",
    "StorageClass",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Service",
    "DaemonSet",
    "Pod",
    "ReplicaSet",
    "Deployment",
    "StatefulSet",
    "HorizontalPodAutoscaler",
    "Job",
    "CronJob",
];

const AFTER_ALL: &[&str] = &["IngressClass", "Ingress", "APIService"];

fn rank(kind: &str) -> usize {
    let known = ORDER.iter().position(|known| *known == kind);
    let last = || {
        AFTER_ALL
            .iter()
            .position(|known| *known == kind)
            .map(|at| ORDER.len() + 1 + at)
    };
    known.or_else(last).unwrap_or(ORDER.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn what_others_need_comes_first() {
        let mut objects: Vec<Object> = [
            "Ingress/app",
            "CronJob/nightly",
            "Deployment/worker",
            "ServiceMonitor/app",
            "Deployment/app",
            "Service/app",
            "PersistentVolumeClaim/files",
            "Secret/app",
            "ConfigMap/app",
            "Namespace/dev",
        ]
        .iter()
        .map(|text| {
            let (kind, name) = text.split_once('/').unwrap();
            Object::from_value(
                json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}),
                "x",
            )
            .unwrap()
        })
        .collect();
        sort_for_apply(&mut objects);
        let got: Vec<String> = objects.iter().map(|object| object.id().to_string()).collect();
        assert_eq!(
            got,
            [
                "Namespace/dev",
                "ConfigMap/app",
                "Secret/app",
                "PersistentVolumeClaim/files",
                "Service/app",
                "Deployment/app",
                "Deployment/worker",
                "CronJob/nightly",
                "ServiceMonitor/app",
                "Ingress/app",
            ]
        );
    }
}
