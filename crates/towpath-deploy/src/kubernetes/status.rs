//! How the workloads of an environment are doing.

use super::{cron::cron_message, error::ClusterError, helm, inventory::find_live, record};
use crate::target::{Environment, WorkloadStatus};
use futures::future::try_join_all;
use serde_json::Value;
use towpath_kube::{ApiError, Client, Discovery, Resource, Select, condition, container_statuses, text_at};
use towpath_manifest::{Kind, Readiness, pod};

/// Whether the status of an environment has a row for objects of this kind.
fn has_row(kind: &str) -> bool {
    Kind::of(kind).rolls_out || matches!(kind, "Pod" | "CronJob" | "Service" | "Ingress")
}

/// The status of each workload, Service and Ingress of an environment, by kind and name.
pub(super) async fn of_environment(
    client: &Client,
    discovery: &Discovery,
    environment: &Environment,
) -> Result<Vec<WorkloadStatus>, ClusterError> {
    let stored = record::load(client, environment).await?;
    let pods = Resource::of(&Kind::POD).collection(&environment.namespace);
    let pods = match client.list(&pods, &Select::All).await {
        Ok((pods, _)) => pods,
        Err(error) if error.is_forbidden() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let entries = stored.state.objects.iter().filter(|entry| has_row(&entry.id.kind));
    let found = entries.map(|entry| async {
        let live = find_live(client, discovery, environment, entry).await?;
        Ok::<_, ApiError>((&entry.id, live))
    });
    let mut statuses = Vec::new();
    for (id, live) in try_join_all(found).await? {
        let Some(live) = live else {
            statuses.push(WorkloadStatus {
                kind: id.kind.clone(),
                name: id.name.clone(),
                message: "it does not exist (any more): `towpath drift` shows what its release has".into(),
                ..WorkloadStatus::default()
            });
            continue;
        };
        let mut status = workload_status(&id.kind, &live, &pods_of(&live, &pods));
        match id.kind.as_str() {
            "CronJob" => status.message = cron_message(&live),
            "Service" => status.addresses = service_addresses(&live),
            "Ingress" => status.addresses = ingress_addresses(&live),
            _ => {}
        }
        statuses.push(status);
    }
    if stored.is_corrupt {
        statuses.push(WorkloadStatus {
            kind: "Secret".into(),
            name: record::state_name(environment),
            message: "it records what was applied here, but it is not as Towpath wrote it: the next deployment writes it anew".into(),
            ..WorkloadStatus::default()
        });
    }
    let releases = helm::releases(client, environment).await?;
    statuses.extend(releases.into_iter().flatten().map(|release| WorkloadStatus {
        kind: "Secret".into(),
        name: release.secret(),
        message: format!(
            "Helm's record of its release `{}` (revision {}, {}): Towpath keeps it",
            release.name, release.revision, release.status
        ),
        ..WorkloadStatus::default()
    }));
    statuses.sort_by(|one, other| (&one.kind, &one.name).cmp(&(&other.kind, &other.name)));
    Ok(statuses)
}

/// The pods that a workload selects.
fn pods_of(workload: &Value, pods: &[Value]) -> Vec<Value> {
    let Some(labels) = workload
        .pointer("/spec/selector/matchLabels")
        .and_then(Value::as_object)
    else {
        return Vec::new();
    };
    let is_selected = |pod: &&Value| {
        let of_pod = pod.pointer("/metadata/labels");
        labels
            .iter()
            .all(|(key, value)| of_pod.and_then(|of_pod| of_pod.get(key)) == Some(value))
    };
    pods.iter().filter(is_selected).cloned().collect()
}

/// The status of a workload, from its object and its pods.
pub(super) fn workload_status(kind: &str, live: &Value, pods: &[Value]) -> WorkloadStatus {
    let number = |pointer: &str| live.pointer(pointer).and_then(Value::as_i64);
    let small = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
    let (ready, desired) = match kind {
        "DaemonSet" => ("/status/numberReady", number("/status/desiredNumberScheduled")),
        "Job" => ("/status/succeeded", number("/spec/completions").or(Some(1))),
        // These have no pods of their own.
        "CronJob" | "Service" | "Ingress" => ("/status/readyReplicas", Some(0)),
        "Pod" => ("", Some(1)),
        _ => ("/status/readyReplicas", number("/spec/replicas").or(Some(1))),
    };
    let failing = pods.iter().find_map(|value| match pod(value) {
        Readiness::Failed(why) => Some(why),
        _ => None,
    });
    let row = Kind::of(kind);
    let message = failing.unwrap_or_else(|| match row.readiness(live) {
        Readiness::Done => String::new(),
        Readiness::Waiting(sentence) | Readiness::Failed(sentence) => sentence,
    });
    let template = row.pod_template.unwrap_or_default();
    let image = live
        .pointer(&format!("{template}/spec/containers/0/image"))
        .and_then(Value::as_str);
    let restarts = pods
        .iter()
        .flat_map(|pod| container_statuses(pod))
        .filter_map(|status| {
            let count = status.get("restartCount")?.as_i64()?;
            u32::try_from(count).ok()
        });
    WorkloadStatus {
        kind: kind.to_string(),
        name: text_at(live, "/metadata/name"),
        image: image.map(str::to_string),
        ready: match kind {
            "Pod" => u32::from(condition(live, "Ready").is_some_and(|ready| text_at(ready, "/status") == "True")),
            _ => small(number(ready)),
        },
        desired: small(desired),
        since: text_at(live, "/metadata/creationTimestamp").parse().ok(),
        restarts: restarts.sum(),
        message,
        addresses: Vec::new(),
    }
}

fn service_addresses(live: &Value) -> Vec<String> {
    let address = text_at(live, "/spec/clusterIP");
    if address.is_empty() || address == "None" {
        return Vec::new();
    }
    let ports = live.pointer("/spec/ports").and_then(Value::as_array);
    let ports = ports
        .into_iter()
        .flatten()
        .filter_map(|port| port.get("port")?.as_i64());
    ports.map(|port| format!("http://{address}:{port}")).collect()
}

fn ingress_addresses(live: &Value) -> Vec<String> {
    let secure: Vec<&str> = live
        .pointer("/spec/tls")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|tls| tls.get("hosts")?.as_array())
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let rules = live.pointer("/spec/rules").and_then(Value::as_array);
    let hosts = rules
        .into_iter()
        .flatten()
        .filter_map(|rule| rule.get("host")?.as_str());
    let address = |host: &str| format!("{}://{host}", if secure.contains(&host) { "https" } else { "http" });
    hosts.map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_message_of_a_workload_is_that_of_a_failing_pod() {
        let live = json!({"metadata": {"name": "web", "generation": 1}, "spec": {"replicas": 2}, "status": {
            "observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "readyReplicas": 2}});
        let status = workload_status("Deployment", &live, &[]);
        assert_eq!((status.ready, status.desired, status.message.as_str()), (2, 2, ""));
        let failing = json!({"status": {"containerStatuses": [{"name": "web", "restartCount": 3,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}});
        let status = workload_status("Deployment", &live, &[failing]);
        assert!(status.message.contains("CrashLoopBackOff"), "{status:?}");
        assert_eq!(status.restarts, 3);
    }

    #[test]
    fn addresses_of_services_and_ingresses() {
        let service = json!({"spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}});
        assert_eq!(service_addresses(&service), ["http://10.0.0.1:80"]);
        assert!(service_addresses(&json!({"spec": {"clusterIP": "None"}})).is_empty());
        let ingress = json!({"spec": {"tls": [{"hosts": ["a.org"]}], "rules": [{"host": "a.org"}, {"host": "b.org"}]}});
        assert_eq!(ingress_addresses(&ingress), ["https://a.org", "http://b.org"]);
    }
}
