//! The one table of Kubernetes' own kinds: how requests name them, when they are applied, when they are ready, and
//! whether they are pruned.
//!
//! Everything in Towpath that has to know something about a kind in general asks this table. A kind that is not in it (a
//! custom resource) gets the answers of [`OTHER`].

use crate::readiness::{self, Readiness};
use serde_json::Value;

/// The step of a deployment in which objects are applied. Objects of one wave do not need each other, so a target may
/// apply them at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wave {
    /// Without these, the API server accepts none of the others: namespaces and definitions of kinds.
    Definitions,
    /// What others refer to: configuration, accounts, roles, storage, limits.
    Inputs,
    /// What refers to the inputs and has to be there before pods start.
    Bindings,
    /// What starts pods.
    Workloads,
    /// What refers to workloads and Services, and every kind that is not in the table.
    Dependents,
}

/// A row of the table: one kind of object.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// `Deployment`; empty in [`OTHER`].
    pub name: &'static str,
    /// The name in request paths: `deployments`.
    pub plural: &'static str,
    /// The version that Towpath uses when no manifest says one: `apps/v1`.
    pub api_version: &'static str,
    /// Whether objects of this kind live in a namespace.
    pub namespaced: bool,
    /// When objects of this kind are applied.
    pub wave: Wave,
    /// The JSON pointer of the pod template; `""` when the object itself is the pod, `None` when it starts no pods.
    pub pod_template: Option<&'static str>,
    /// Whether a deployment waits until an object of this kind has rolled out.
    pub rolls_out: bool,
    /// Whether deleting an object of this kind deletes data. Such an object is never pruned.
    pub holds_data: bool,
    readiness: fn(&Value) -> Readiness,
}

/// The pod template of every workload but Pods and CronJobs.
const TEMPLATE: &str = "/spec/template";

impl Kind {
    const fn new(name: &'static str, plural: &'static str, api_version: &'static str, wave: Wave) -> Self {
        Self {
            name,
            plural,
            api_version,
            namespaced: true,
            wave,
            pod_template: None,
            rolls_out: false,
            holds_data: false,
            readiness: always_ready,
        }
    }

    const fn cluster_wide(self) -> Self {
        Self {
            namespaced: false,
            ..self
        }
    }

    const fn starts_pods(self, pod_template: &'static str) -> Self {
        Self {
            pod_template: Some(pod_template),
            ..self
        }
    }

    const fn ready_by(self, readiness: fn(&Value) -> Readiness) -> Self {
        Self { readiness, ..self }
    }

    const fn rolls_out(self) -> Self {
        Self {
            rolls_out: true,
            ..self
        }
    }

    const fn holds_data(self) -> Self {
        Self {
            holds_data: true,
            ..self
        }
    }

    /// The row of a kind; [`OTHER`] for one that is not Kubernetes' own.
    #[must_use]
    pub fn of(name: &str) -> &'static Self {
        let row = KINDS.iter().find(|kind| kind.name == name);
        row.unwrap_or(&OTHER)
    }

    /// Whether `object`, which is of this kind, is ready. Kinds with nothing to wait for are always ready.
    #[must_use]
    pub fn readiness(&self, object: &Value) -> Readiness {
        (self.readiness)(object)
    }

    /// The position in the order of application.
    pub(crate) fn position(&self) -> usize {
        let position = KINDS.iter().position(|kind| kind.name == self.name);
        position.unwrap_or(KINDS.len())
    }
}

fn always_ready(_: &Value) -> Readiness {
    Readiness::Done
}

/// The rows that Towpath's own code names.
#[allow(missing_docs)]
impl Kind {
    pub const NAMESPACE: Self = Self::new("Namespace", "namespaces", "v1", Wave::Definitions)
        .cluster_wide()
        .holds_data();
    pub const RESOURCE_QUOTA: Self = Self::new("ResourceQuota", "resourcequotas", "v1", Wave::Inputs);
    pub const SERVICE_ACCOUNT: Self = Self::new("ServiceAccount", "serviceaccounts", "v1", Wave::Inputs);
    pub const CONFIG_MAP: Self = Self::new("ConfigMap", "configmaps", "v1", Wave::Inputs);
    pub const SECRET: Self = Self::new("Secret", "secrets", "v1", Wave::Inputs);
    pub const PERSISTENT_VOLUME_CLAIM: Self =
        Self::new("PersistentVolumeClaim", "persistentvolumeclaims", "v1", Wave::Inputs)
            .ready_by(readiness::claim)
            .holds_data();
    pub const SERVICE: Self = Self::new("Service", "services", "v1", Wave::Bindings);
    pub const POD: Self = Self::new("Pod", "pods", "v1", Wave::Workloads)
        .starts_pods("")
        .ready_by(readiness::pod);
    pub const REPLICA_SET: Self =
        Self::new("ReplicaSet", "replicasets", "apps/v1", Wave::Workloads).starts_pods(TEMPLATE);
    /// Jobs are run by name, so no release applies one.
    pub const JOB: Self = Self::new("Job", "jobs", "batch/v1", Wave::Workloads)
        .starts_pods(TEMPLATE)
        .ready_by(readiness::job);
    pub const CRON_JOB: Self =
        Self::new("CronJob", "cronjobs", "batch/v1", Wave::Workloads).starts_pods("/spec/jobTemplate/spec/template");
    pub const EVENT: Self = Self::new("Event", "events", "v1", Wave::Dependents);
}

/// The answers for every kind that is not in the table: it lives in a namespace, comes after the workloads (a custom
/// resource is mostly about a workload or a Service), starts no pods, and is ready at once.
pub const OTHER: Kind = Kind::new("", "", "", Wave::Dependents);

/// The table, in the order of application. Deletion goes the other way round.
///
/// Sources: Helm's order of kinds, <https://github.com/helm/helm/blob/main/pkg/release/v1/util/kind_sorter.go>, with the
/// kinds of one wave together; `kubectl api-resources` for the names and `--namespaced=false` for the scopes.
pub const KINDS: &[Kind] = &[
    Kind::NAMESPACE,
    Kind::new(
        "CustomResourceDefinition",
        "customresourcedefinitions",
        "apiextensions.k8s.io/v1",
        Wave::Definitions,
    )
    .cluster_wide()
    .holds_data(),
    Kind::new("NetworkPolicy", "networkpolicies", "networking.k8s.io/v1", Wave::Inputs),
    Kind::RESOURCE_QUOTA,
    Kind::new("LimitRange", "limitranges", "v1", Wave::Inputs),
    Kind::new("PriorityClass", "priorityclasses", "scheduling.k8s.io/v1", Wave::Inputs).cluster_wide(),
    Kind::SERVICE_ACCOUNT,
    Kind::new(
        "ClusterRole",
        "clusterroles",
        "rbac.authorization.k8s.io/v1",
        Wave::Inputs,
    )
    .cluster_wide(),
    Kind::new("Role", "roles", "rbac.authorization.k8s.io/v1", Wave::Inputs),
    Kind::CONFIG_MAP,
    Kind::SECRET,
    Kind::new("StorageClass", "storageclasses", "storage.k8s.io/v1", Wave::Inputs).cluster_wide(),
    Kind::new("PersistentVolume", "persistentvolumes", "v1", Wave::Inputs).cluster_wide(),
    Kind::PERSISTENT_VOLUME_CLAIM,
    Kind::new(
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        "policy/v1",
        Wave::Bindings,
    ),
    Kind::new(
        "ClusterRoleBinding",
        "clusterrolebindings",
        "rbac.authorization.k8s.io/v1",
        Wave::Bindings,
    )
    .cluster_wide(),
    Kind::new(
        "RoleBinding",
        "rolebindings",
        "rbac.authorization.k8s.io/v1",
        Wave::Bindings,
    ),
    Kind::SERVICE,
    Kind::new("DaemonSet", "daemonsets", "apps/v1", Wave::Workloads)
        .starts_pods(TEMPLATE)
        .ready_by(readiness::daemon_set)
        .rolls_out(),
    Kind::POD,
    Kind::REPLICA_SET,
    Kind::new("Deployment", "deployments", "apps/v1", Wave::Workloads)
        .starts_pods(TEMPLATE)
        .ready_by(readiness::deployment)
        .rolls_out(),
    Kind::new("StatefulSet", "statefulsets", "apps/v1", Wave::Workloads)
        .starts_pods(TEMPLATE)
        .ready_by(readiness::stateful_set)
        .rolls_out(),
    Kind::JOB,
    Kind::CRON_JOB,
    Kind::new(
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        "autoscaling/v2",
        Wave::Dependents,
    ),
    Kind::EVENT,
    Kind::new("Node", "nodes", "v1", Wave::Dependents).cluster_wide(),
    Kind::new("RuntimeClass", "runtimeclasses", "node.k8s.io/v1", Wave::Dependents).cluster_wide(),
    Kind::new("CSIDriver", "csidrivers", "storage.k8s.io/v1", Wave::Dependents).cluster_wide(),
    Kind::new("CSINode", "csinodes", "storage.k8s.io/v1", Wave::Dependents).cluster_wide(),
    Kind::new(
        "VolumeAttachment",
        "volumeattachments",
        "storage.k8s.io/v1",
        Wave::Dependents,
    )
    .cluster_wide(),
    Kind::new(
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        "admissionregistration.k8s.io/v1",
        Wave::Dependents,
    )
    .cluster_wide(),
    Kind::new(
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        "admissionregistration.k8s.io/v1",
        Wave::Dependents,
    )
    .cluster_wide(),
    Kind::new(
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicies",
        "admissionregistration.k8s.io/v1",
        Wave::Dependents,
    )
    .cluster_wide(),
    Kind::new(
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
        "admissionregistration.k8s.io/v1",
        Wave::Dependents,
    )
    .cluster_wide(),
    OTHER,
    Kind::new(
        "IngressClass",
        "ingressclasses",
        "networking.k8s.io/v1",
        Wave::Dependents,
    )
    .cluster_wide(),
    Kind::new("Ingress", "ingresses", "networking.k8s.io/v1", Wave::Dependents),
    Kind::new(
        "APIService",
        "apiservices",
        "apiregistration.k8s.io/v1",
        Wave::Dependents,
    )
    .cluster_wide(),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_table_has_one_row_for_each_kind_in_the_order_of_the_waves() {
        let names: BTreeSet<&str> = KINDS.iter().map(|kind| kind.name).collect();
        assert_eq!(names.len(), KINDS.len());
        let waves: Vec<Wave> = KINDS.iter().map(|kind| kind.wave).collect();
        assert!(waves.is_sorted(), "{waves:?}");
        for kind in KINDS.iter().filter(|kind| !kind.name.is_empty()) {
            assert!(
                !kind.plural.is_empty() && kind.api_version.ends_with(char::is_numeric),
                "{kind:?}"
            );
            // What rolls out has pods to wait for.
            assert!(!kind.rolls_out || kind.pod_template.is_some(), "{kind:?}");
        }
    }

    #[test]
    fn a_custom_kind_comes_between_the_workloads_and_the_ingresses() {
        let other = Kind::of("ServiceMonitor");
        assert!(other.namespaced && !other.rolls_out && !other.holds_data);
        assert_eq!(other.pod_template, None);
        let positions = ["Deployment", "ServiceMonitor", "Ingress"].map(|name| Kind::of(name).position());
        assert!(positions.is_sorted(), "{positions:?}");
    }

    #[test]
    fn scopes_and_pod_templates() {
        let cluster_wide: Vec<&str> = KINDS
            .iter()
            .filter(|kind| !kind.namespaced)
            .map(|kind| kind.name)
            .collect();
        assert!(
            cluster_wide.contains(&"ClusterRole") && !cluster_wide.contains(&"Role"),
            "{cluster_wide:?}"
        );
        let template = |name: &str| Kind::of(name).pod_template;
        assert_eq!(template("Pod"), Some(""));
        assert_eq!(template("CronJob"), Some("/spec/jobTemplate/spec/template"));
        assert_eq!(template("Service"), None);
    }
}
