//! Variables of containers that no container can have, because of the bytes in a Secret.

use crate::images::containers;
use crate::reads::{Existing, SourceKind};
use crate::{Object, ObjectId};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use towpath_types::NoVariable;
use towpath_yaml::Place;

/// A variable whose value no variable can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfitVariable {
    /// The workload.
    pub object: ObjectId,
    /// The name of the container.
    pub container: String,
    /// The name of the variable.
    pub variable: String,
    /// The Secret that the value comes from.
    pub secret: String,
    /// The key in it.
    pub key: String,
    /// What is wrong with the value.
    pub why: NoVariable,
    /// The JSON pointer of the reference to the Secret.
    pub pointer: String,
    /// The place of that reference in the manifest.
    pub place: Place,
}

impl fmt::Display for UnfitVariable {
    /// ``the container `web` cannot have the variable `STORE`: its value, the key `p12` of the Secret `keys`, is not text
    /// (UTF-8)``
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the container `{}` cannot have the variable `{}`: its value, the key `{}` of the Secret `{}`, {}",
            self.container, self.variable, self.key, self.secret, self.why
        )
    }
}

/// The variables of the containers of `objects` that get an unfit value from a Secret of theirs or of `existing`. A value that
/// another one overrides does not count.
///
/// Source: <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#environment-variables> (`env`
/// overrides `envFrom`, and a later entry an earlier one)
#[must_use]
pub fn unfit_variables(objects: &[Object], existing: &Existing) -> Vec<UnfitVariable> {
    let existing = existing.clone().with(objects);
    if existing.unfit.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for object in objects {
        for container in containers(object) {
            let variables = Variables {
                object,
                existing: &existing,
                container: &container.name,
                by_name: BTreeMap::new(),
            };
            found.extend(variables.read(&container.pointer).into_values().flatten());
        }
    }
    found
}

/// The variables of one container; `None` for a value that a variable can have.
struct Variables<'a> {
    object: &'a Object,
    existing: &'a Existing,
    container: &'a str,
    by_name: BTreeMap<String, Option<UnfitVariable>>,
}

impl Variables<'_> {
    fn read(mut self, container: &str) -> BTreeMap<String, Option<UnfitVariable>> {
        let list = |field: &str| {
            let pointer = format!("{container}/{field}");
            let items = self.object.value.pointer(&pointer).and_then(Value::as_array);
            let items = items.into_iter().flatten().enumerate();
            items
                .map(|(index, item)| (format!("{pointer}/{index}"), item.clone()))
                .collect::<Vec<_>>()
        };
        let (from, own) = (list("envFrom"), list("env"));
        for (pointer, entry) in from {
            let prefix = text(&entry, "/prefix");
            for (field, kind) in [
                ("configMapRef", SourceKind::ConfigMap),
                ("secretRef", SourceKind::Secret),
            ] {
                let name = text(&entry, &format!("/{field}/name"));
                let keys = self.existing.keys(kind, name).cloned().unwrap_or_default();
                for key in keys {
                    let at = format!("{pointer}/{field}/name");
                    self.set(format!("{prefix}{key}"), (kind, name, &key), at);
                }
            }
        }
        for (pointer, entry) in own {
            let variable = text(&entry, "/name").to_string();
            let name = text(&entry, "/valueFrom/secretKeyRef/name");
            let key = text(&entry, "/valueFrom/secretKeyRef/key");
            if name.is_empty() {
                self.by_name.insert(variable, None);
            } else if self
                .existing
                .keys(SourceKind::Secret, name)
                .is_some_and(|keys| keys.contains(key))
            {
                let at = format!("{pointer}/valueFrom/secretKeyRef/key");
                self.set(variable, (SourceKind::Secret, name, key), at);
            }
        }
        self.by_name
    }

    fn set(&mut self, variable: String, (kind, name, key): (SourceKind, &str, &str), pointer: String) {
        let unfit = self.existing.unfit.get(name).and_then(|keys| keys.get(key));
        let unfit = unfit.filter(|_| kind == SourceKind::Secret);
        let unfit = unfit.map(|why| UnfitVariable {
            object: self.object.id(),
            container: self.container.to_string(),
            variable: variable.clone(),
            secret: name.to_string(),
            key: key.to_string(),
            why: *why,
            place: self.object.place_of(&pointer),
            pointer,
        });
        self.by_name.insert(variable, unfit);
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn secret(value: &Value) -> Object {
        let value = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "data": value});
        Object::from_value(value, "keys.yaml").unwrap()
    }

    fn check(container: &Value, expect: &[&str]) {
        let pod = json!({"spec": {"containers": [container]}});
        let value = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app"}, "spec": {"template": pod}});
        let app = Object::from_value(value, "app.yaml").unwrap();
        // `store` is ff fe, `nul` is 61 00, and `text` is `a\n`.
        let live = secret(&json!({"store": "//4=", "nul": "YQA=", "text": "YQo="}));
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "map"}, "data": {"store": "a"}});
        let map = Object::from_value(map, "map.yaml").unwrap();
        let existing = Existing::default().with(&[live.clone(), map]);
        let said: Vec<String> = unfit_variables(std::slice::from_ref(&app), &existing)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(said, expect);
        // A manifest replaces the live value.
        let mended = secret(&json!({"store": "YQ==", "nul": "YQ=="}));
        assert_eq!(unfit_variables(&[app, mended], &existing), []);
    }

    #[test]
    fn values_that_no_variable_can_have_are_found_where_they_win() {
        let store = "its value, the key `store` of the Secret `keys`, is not text (UTF-8)";
        let nul = "its value, the key `nul` of the Secret `keys`, has a zero byte";
        let of = |name: &str, key: &str| json!({"name": name, "valueFrom": {"secretKeyRef": {"name": "keys", "key": key, "optional": true}}});
        check(
            &json!({"name": "web", "envFrom": [{"prefix": "P_", "secretRef": {"name": "keys"}}]}),
            &[
                &format!("the container `web` cannot have the variable `P_nul`: {nul}"),
                &format!("the container `web` cannot have the variable `P_store`: {store}"),
            ],
        );
        check(
            &json!({"name": "web", "env": [of("A", "store"), of("B", "text"), of("C", "none")]}),
            &[&format!("the container `web` cannot have the variable `A`: {store}")],
        );
        // Overridden by the ConfigMap, and by a variable of its own.
        let overridden = json!({
            "name": "web",
            "envFrom": [{"secretRef": {"name": "keys"}}, {"configMapRef": {"name": "map"}}],
            "env": [{"name": "nul", "value": "x"}],
        });
        check(&overridden, &[]);
        check(
            &json!({"name": "web", "env": [of("A", "text"), of("A", "nul")]}),
            &[&format!("the container `web` cannot have the variable `A`: {nul}")],
        );
        check(
            &json!({"name": "web", "volumeMounts": [{"name": "keys", "mountPath": "/keys"}]}),
            &[],
        );
    }
}
