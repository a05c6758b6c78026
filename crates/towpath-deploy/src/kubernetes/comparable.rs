//! Extracts the fields of an object that its manifest has, for when a server cannot tell what applying it would change.

use serde_json::Value;

/// Fields that identify the items of a list in Kubernetes' own kinds.
const ITEM_KEYS: [&str; 6] = ["name", "mountPath", "devicePath", "containerPort", "port", "ip"];

/// The part of `live` that `manifest` has.
pub(super) fn common(live: &Value, manifest: &Value) -> Value {
    match (live, manifest) {
        (Value::Object(live), Value::Object(manifest)) => {
            let mut fields = serde_json::Map::new();
            for (key, wanted) in manifest {
                match live.get(key) {
                    // A null means nothing.
                    _ if wanted.is_null() => {}
                    Some(live) => drop(fields.insert(key.clone(), common(live, wanted))),
                    // Servers drop a value that means the same as none.
                    None if is_zero(wanted) => drop(fields.insert(key.clone(), wanted.clone())),
                    None => {}
                }
            }
            Value::Object(fields)
        }
        (Value::Array(live), Value::Array(manifest)) if manifest.iter().all(Value::is_object) => {
            Value::Array(common_items(live, manifest))
        }
        _ => live.clone(),
    }
}

fn common_items(live: &[Value], manifest: &[Value]) -> Vec<Value> {
    let Some(key) = ITEM_KEYS.into_iter().find(|key| is_unique(manifest, key)) else {
        // Without a key, the list counts as one value. More items are a change of it.
        let pairs = live.iter().zip(manifest).map(|(live, wanted)| common(live, wanted));
        return pairs.chain(live.iter().skip(manifest.len()).cloned()).collect();
    };
    // In the order of the cluster: a variable may refer only to those before it, and the first container is the default one.
    let items = live.iter().filter_map(|live| {
        let item = manifest.iter().find(|item| item.get(key) == live.get(key))?;
        Some(common(live, item))
    });
    items.collect()
}

/// Whether each of `items` has its own value for `key`.
fn is_unique(items: &[Value], key: &str) -> bool {
    items.iter().enumerate().all(|(index, item)| {
        let is_another = |other: &Value| other.get(key) != item.get(key);
        item.get(key).is_some() && items.iter().take(index).all(is_another)
    })
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_fields_of_the_manifest_are_compared_if_the_server_refuses_it() {
        let check = |manifest: Value, live: Value, expect: Value| assert_eq!(common(&live, &manifest), expect);
        check(
            json!({"selector": {"app": "web"}, "paused": false, "gone": 1, "nothing": null}),
            json!({"selector": {"app": "other"}, "nothing": 2, "more": 3}),
            json!({"selector": {"app": "other"}, "paused": false}),
        );
        // Items are found by their key.
        check(
            json!([{"name": "web", "image": "1", "args": ["a"]}, {"name": "gone"}]),
            json!([{"name": "side", "image": "9"}, {"name": "web", "image": "2", "tty": true, "args": ["a", "b"]}]),
            json!([{"name": "web", "image": "2", "args": ["a", "b"]}]),
        );
        // Two mounts of the same volume.
        check(
            json!([{"name": "data", "mountPath": "/a"}, {"name": "data", "mountPath": "/b"}]),
            json!([{"name": "data", "mountPath": "/b"}, {"name": "other", "mountPath": "/a", "subPath": "x"}]),
            json!([{"name": "data", "mountPath": "/b"}, {"name": "other", "mountPath": "/a"}]),
        );
        // Without a key, the list counts as one value.
        check(
            json!([{"verbs": ["get"]}]),
            json!([{"verbs": ["get"], "more": 1}, {"verbs": ["*"]}]),
            json!([{"verbs": ["get"]}, {"verbs": ["*"]}]),
        );
    }
}
