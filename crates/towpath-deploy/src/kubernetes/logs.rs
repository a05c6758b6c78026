//! What the pods of a workload print.

use super::{error::ClusterError, secrets::mask_of};
use crate::{
    lines::{LineCutter, whole_lines},
    target::Environment,
};
use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{BoxStream, select_all},
};
use serde_json::Value;
use towpath_kube::{Client, Discovery, Lookup, Resource, Select, text_at};
use towpath_manifest::{Kind, Object, ObjectId};
use towpath_types::percent_encoded;

/// The last `tail` lines of each container of a workload, and later ones if `follow`; `None` if it does not exist.
pub(super) async fn of_workload(
    client: &Client,
    discovery: &Discovery,
    environment: &Environment,
    workload: &ObjectId,
    (tail, follow): (u32, bool),
) -> Result<Option<BoxStream<'static, Bytes>>, ClusterError> {
    let api_version = match Kind::of(&workload.kind).api_version {
        "" => "apps/v1",
        known => known,
    };
    let Lookup::Served(resource) = discovery.find(client, api_version, &workload.kind).await? else {
        return Ok(None);
    };
    let path = resource.object(&environment.namespace, &workload.name);
    let Some(mut live) = client.find(&path).await? else {
        return Ok(None);
    };
    let labels = live.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
    let selector: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    // An empty selector would select the pods of all workloads.
    if selector.is_empty() {
        return Ok(None);
    }
    let pods = Resource::of(&Kind::POD);
    let collection = pods.collection(&environment.namespace);
    let (found, _) = client.list(&collection, &Select::Labels(selector.join(","))).await?;
    live["apiVersion"] = Value::from(api_version);
    live["kind"] = Value::from(workload.kind.as_str());
    let Ok(object) = Object::from_value(live, "the cluster") else {
        return Ok(None);
    };
    let mask = mask_of(client, environment, std::slice::from_ref(&object)).await;
    let mut streams = Vec::new();
    for pod in &found {
        let name = text_at(pod, "/metadata/name");
        let prefix = match found.len() {
            1 => String::new(),
            _ => format!("[{name}] "),
        };
        let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
        for container in containers.into_iter().flatten() {
            let path = format!(
                "{}/log?container={}&tailLines={tail}&follow={follow}",
                pods.object(&environment.namespace, &name),
                percent_encoded(&text_at(container, "/name"))
            );
            // A container that has not started has printed nothing.
            let Ok(pieces) = client.stream(&path).await else {
                continue;
            };
            streams.push(whole_lines(pieces, LineCutter::new(&mask, prefix.clone())));
        }
    }
    Ok(Some(select_all(streams).boxed()))
}
