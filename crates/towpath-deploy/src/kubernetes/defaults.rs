//! The defaults that a server fills in.

use serde_json::Value;
use towpath_kube::{Client, Mode, Resource};
use towpath_manifest::Object;

/// What a server would make of an object that does not exist yet: the manifest with the defaults of its fields. Found with a
/// dry run of the same object under a new name; `None` if that is refused.
pub(super) async fn as_new(client: &Client, namespace: &str, resource: &Resource, object: &Object) -> Option<Value> {
    let mut new = object.value.clone();
    let name: String = object.name.chars().take(48).collect();
    let name = format!("{}-new", name.trim_end_matches(['-', '.']));
    new["metadata"]["name"] = Value::from(name.as_str());
    let answer = client.apply(resource, namespace, &new, Mode::DryRun).await;
    let mut value = answer.ok()?.value;
    rename(&mut value, &name, &object.name);
    Some(value)
}

/// Replaces `new` by `name`: a Namespace also has the name in a label.
fn rename(value: &mut Value, new: &str, name: &str) {
    match value {
        Value::String(text) if text == new => *value = Value::from(name),
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, new, name)),
        Value::Object(map) => map.values_mut().for_each(|item| rename(item, new, name)),
        _ => {}
    }
}
