//! Turns the server's refusals into findings about fields, without the values of Secrets.

use crate::target::{Finding, Severity};
use base64::Engine as _;
use regex::Regex;
use serde_json::Value;
use std::sync::LazyLock;
use towpath_kube::{ApiError, text_at};
use towpath_manifest::Object;
use towpath_types::{Mask, SecretBytes};

/// Whether an error says that the namespace does not exist.
pub(super) fn is_about_namespace(error: &ApiError) -> bool {
    error.is_missing() && error.to_string().starts_with("namespaces ")
}

/// The ways in which API servers name a field in a sentence.
static FIELDS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    [
        r#"\.([^\s:,]+): field not declared in schema"#,
        r#"unknown field "([^"]+)""#,
        r#"duplicate field "([^"]+)""#,
        r#"\.([A-Za-z][^\s:]*): (?:expected|invalid|duplicate|field|element)"#,
    ]
    .iter()
    .filter_map(|pattern| Regex::new(pattern).ok())
    .collect()
});

/// The findings for an error, if the server reports it about the object. An error of the server itself, or of a webhook, says
/// nothing about the object.
pub(in crate::kubernetes) fn of_error(object: &Object, error: &ApiError) -> Option<Vec<Finding>> {
    let ApiError::Answered {
        code, message, causes, ..
    } = error
    else {
        return None;
    };
    let is_typed = message.contains("failed to create typed patch object");
    (*code < 500 || is_typed).then(|| findings(object, message, causes))
}

/// One finding for each field that the server refused, or one for the whole object.
pub(super) fn findings(object: &Object, message: &str, causes: &[(String, String)]) -> Vec<Finding> {
    let finding = |field: &str, sentence: &str| Finding {
        severity: Severity::Refused,
        object: object.id(),
        field: field.to_string(),
        place: object.place_of(&pointer_of(&object.value, field)),
        message: format!(
            "the server refuses it: {}{}",
            redacted(object, field, sentence),
            remedy(object, sentence)
                .map(|remedy| format!(". {remedy}"))
                .unwrap_or_default()
        ),
    };
    if let Some(found) = duplicate(object, message) {
        return vec![found];
    }
    if !causes.is_empty() {
        return causes
            .iter()
            .map(|(field, sentence)| finding(field, sentence))
            .collect();
    }
    let mut found: Vec<Finding> = Vec::new();
    for pattern in FIELDS.iter() {
        for captures in pattern.captures_iter(message) {
            let Some(field) = captures.get(1) else { continue };
            let field = field.as_str();
            let is_unknown = pattern.as_str().starts_with("unknown") || message.contains("not declared");
            let sentence = match is_unknown {
                true => format!("there is no field `{field}`{}", hint(object, field)),
                false => message.to_string(),
            };
            if found.iter().all(|known| known.field != field) {
                found.push(finding(field, &sentence));
            }
        }
        if !found.is_empty() {
            return found;
        }
    }
    vec![finding("", message)]
}

/// A server's sentence about an object, with the quoted values of a Secret removed.
pub(in crate::kubernetes) fn redacted(object: &Object, field: &str, sentence: &str) -> String {
    if object.kind != "Secret" {
        return sentence.to_string();
    }
    // A missing field has no value, and for a forbidden change the server names only the field.
    let has_no_value = ["Required value", "field is immutable when `immutable` is set"];
    if has_no_value
        .iter()
        .any(|end| sentence.trim_end() == *end || sentence.trim_end().ends_with(&format!(": {end}")))
    {
        return sentence.to_string();
    }
    // Servers quote values in a form in which the mask would not find them.
    let is_about_values = |text: &str| {
        let text = text.trim_start_matches('.');
        text.starts_with("data") || text.starts_with("stringData") || text.starts_with("StringData")
    };
    if is_about_values(field) || sentence.split_whitespace().any(is_about_values) {
        return "`stringData` takes strings (put numbers and booleans in quotes), and `data` takes base64. The server's message is not \
                shown, because it contains values"
            .to_string();
    }
    let mut values = Vec::new();
    for field in ["data", "stringData"] {
        collect_scalars(object.value.get(field).unwrap_or(&Value::Null), &mut values);
    }
    Mask::new(&values).text(sentence)
}

/// The remedy for a refusal, if the server's own sentence does not name one.
fn remedy(object: &Object, sentence: &str) -> Option<String> {
    let namespace = match text_at(&object.value, "/metadata/namespace").as_str() {
        "" => String::new(),
        namespace => format!(" --namespace {namespace}"),
    };
    let kind = object.kind.to_lowercase();
    let name = &object.name;
    if sentence.contains("may not be specified when strategy `type` is 'Recreate'")
        && object.value.pointer("/spec/strategy/rollingUpdate").is_none()
    {
        return Some(format!(
            "The defaults of the `RollingUpdate` that it has now stand in the way. Remove them, then deploy again: `kubectl{namespace} \
             patch {kind} {name} --type=merge --patch '{{\"spec\":{{\"strategy\":{{\"type\":\"Recreate\",\"rollingUpdate\":null}}}}}}'`"
        ));
    }
    let is_immutable = [
        "immutable",
        "updates to statefulset spec for fields other than",
        "may not change once set",
        "cannot change roleRef",
    ];
    if !is_immutable.iter().any(|text| sentence.contains(text)) {
        return None;
    }
    let by_another_name = "Give the new one another name, and name that where it is used";
    Some(match object.kind.as_str() {
        "Secret" | "ConfigMap" => by_another_name.to_string(),
        "PersistentVolumeClaim" | "PersistentVolume" => {
            format!("{by_another_name}: deleting the old one deletes its data")
        }
        // Delete it without its pods: they keep serving until the new one has started its own.
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" => format!(
            "{by_another_name}; or delete it without its pods, then deploy again: `kubectl{namespace} delete {kind} {name} \
             --cascade=orphan`"
        ),
        _ => format!("{by_another_name}; or delete it, then deploy again: `kubectl{namespace} delete {kind} {name}`"),
    })
}

static DUPLICATE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"\.([A-Za-z]\S*): duplicate entries for key \[(.+?)\](?:\s|$)"#).ok());

/// The finding for two items of a list that have the same key, with the places of both.
fn duplicate(object: &Object, message: &str) -> Option<Finding> {
    let captures = DUPLICATE.as_ref()?.captures(message)?;
    let (field, keys) = (captures.get(1)?.as_str(), captures.get(2)?.as_str());
    let list = pointer_of(&object.value, field);
    let items = object.value.pointer(&list)?.as_array()?;
    let same: Vec<(usize, &Value)> = items
        .iter()
        .enumerate()
        .filter(|(_, item)| has_keys(item, keys))
        .collect();
    let [(first, one), (second, other), ..] = same[..] else {
        return None;
    };
    let at = |index: usize| object.place_of(&format!("{list}/{index}"));
    // Compare the fields apart from the common key. A Secret has no lists.
    let said = |item: &Value| {
        item.get("value")
            .map(|value| format!(" with {value}"))
            .unwrap_or_default()
    };
    Some(Finding {
        severity: Severity::Refused,
        object: object.id(),
        field: format!("{}.{second}", list.trim_start_matches('/').replace('/', ".")),
        place: at(second),
        message: format!(
            "`{keys}` is in the list twice: at {}{} and here{}. Keep one of them",
            at(first),
            said(one),
            said(other)
        ),
    })
}

/// Whether an item has all of `name="app"` or `port=80,protocol="TCP"`. A key that it leaves out has its default.
fn has_keys(item: &Value, keys: &str) -> bool {
    keys.split(',').all(|pair| {
        let Some((key, wanted)) = pair.split_once('=') else {
            return false;
        };
        let wanted = serde_json::from_str::<Value>(wanted).unwrap_or_default();
        item.get(key).is_none_or(|value| *value == wanted)
    })
}

/// Collects every scalar as text, and strings also decoded from base64.
fn collect_scalars(value: &Value, found: &mut Vec<SecretBytes>) {
    match value {
        Value::Null => {}
        Value::String(text) => {
            let decoded = base64::engine::general_purpose::STANDARD.decode(text).ok();
            found.extend(decoded.map(SecretBytes::new));
            found.push(SecretBytes::new(text.clone().into_bytes()));
        }
        Value::Bool(_) | Value::Number(_) => found.push(SecretBytes::new(value.to_string().into_bytes())),
        Value::Array(items) => items.iter().for_each(|item| collect_scalars(item, found)),
        Value::Object(map) => map.values().for_each(|item| collect_scalars(item, found)),
    }
}

/// What is probably wrong with an unknown field.
fn hint(object: &Object, field: &str) -> String {
    let name = field.rsplit('.').next().unwrap_or(field);
    let mut first = name.chars();
    let lower: String = first
        .next()
        .into_iter()
        .flat_map(char::to_lowercase)
        .chain(first)
        .collect();
    if lower != name {
        return format!(
            ": names of fields start with a lower-case letter (`{lower}`), and each has its place in a `{}`",
            object.kind
        );
    }
    ": check its spelling and its indentation".to_string()
}

/// The JSON pointer of `spec.template.spec.containers[0].image` or `spec.containers[name="app"].image`.
fn pointer_of(object: &Value, field: &str) -> String {
    let (mut pointer, mut at) = (String::new(), Some(object));
    for part in field.trim_start_matches('.').split('.') {
        let (name, indexes) = part.split_once('[').map_or((part, ""), |(name, rest)| (name, rest));
        if !name.is_empty() {
            pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
            at = at.and_then(|value| value.get(name));
        }
        for index in indexes
            .split('[')
            .map(|text| text.trim_end_matches(']'))
            .filter(|text| !text.is_empty())
        {
            let number = index.parse::<usize>().ok().or_else(|| {
                let items = at?.as_array()?;
                items.iter().position(|item| has_keys(item, index))
            });
            let Some(number) = number else { return pointer };
            pointer = format!("{pointer}/{number}");
            at = at.and_then(|value| value.get(number));
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_in_sentences_have_places() {
        let object =
            json!({"spec": {"template": {"spec": {"containers": [{"name": "a"}, {"name": "b", "image": 1}]}}}});
        for (field, pointer) in [
            ("spec.template.spec.BackoffLimit", "/spec/template/spec/BackoffLimit"),
            (
                ".spec.template.spec.containers[name=\"b\"].image",
                "/spec/template/spec/containers/1/image",
            ),
            (
                "spec.template.spec.containers[0].name",
                "/spec/template/spec/containers/0/name",
            ),
            (
                "spec.template.spec.containers[name=\"c\"].image",
                "/spec/template/spec/containers",
            ),
            ("", ""),
        ] {
            assert_eq!(pointer_of(&object, field), pointer, "{field}");
        }
    }

    #[test]
    fn a_fault_of_the_server_is_told_from_one_of_the_object() {
        let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
        let object = Object::from_value(value, "a.yaml").unwrap();
        let answered = |code: u16, message: &str| ApiError::Answered {
            code,
            reason: String::new(),
            message: message.into(),
            causes: Vec::new(),
            retry_after: None,
        };
        let typed =
            "failed to create typed patch object (dev/a; /v1, Kind=ConfigMap): .datax: field not declared in schema";
        assert_eq!(of_error(&object, &answered(500, typed)).unwrap()[0].field, "datax");
        assert!(of_error(&object, &answered(422, "no")).is_some());
        assert!(of_error(&object, &answered(500, "failed calling webhook")).is_none());
    }

    #[test]
    fn unknown_fields_are_named_with_a_hint() {
        let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
        let object = Object::from_value(value, "a.yaml").unwrap();
        let message = "failed to create typed patch object: .datax: field not declared in schema";
        let found = findings(&object, message, &[]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].field, "datax");
        assert_eq!(
            found[0].message,
            "the server refuses it: there is no field `datax`: check its spelling and its indentation"
        );
    }

    #[test]
    fn two_items_with_one_key_are_shown_with_their_places() {
        let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  template:\n    spec:\n      containers:\n        \
                    - name: web\n          env:\n            - {name: A, value: \"1\"}\n            - {name: B, value: \"1\"}\n            \
                    - {name: A, value: \"2\"}\n";
        let (tree, _) = towpath_manifest::Tree::read([(".k8s/live/dev/web.yaml", text)]);
        let object = tree.environment("live", "dev").unwrap().objects[0].clone();
        let message = "failed to create typed patch object (dev/web; apps/v1, Kind=Deployment): \
                       .spec.template.spec.containers[name=\"web\"].env: duplicate entries for key [name=\"A\"]";
        let found = findings(&object, message, &[]);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].place.line, found[0].field.as_str()),
            (12, "spec.template.spec.containers.0.env.2")
        );
        assert_eq!(
            found[0].message,
            "`name=\"A\"` is in the list twice: at .k8s/live/dev/web.yaml:10:15 with \"1\" and here with \"2\". Keep one of them"
        );
    }

    #[test]
    fn two_ports_of_a_service_with_one_number_are_found_by_their_defaults() {
        let value = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
                           "spec": {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80, "protocol": "TCP"}]}});
        let object = Object::from_value(value, "a.yaml").unwrap();
        let message = "failed to create typed patch object (dev/web; /v1, Kind=Service): .spec.ports: duplicate entries for key \
                       [port=80,protocol=\"TCP\"]";
        let found = findings(&object, message, &[]);
        assert_eq!(found[0].field, "spec.ports.1");
    }

    #[test]
    fn what_cannot_change_comes_with_a_way() {
        let said = |kind: &str, field: &str, sentence: &str| {
            let value = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "a", "namespace": "dev"}, "data": {"A": "Yg=="},
                               "spec": {"strategy": {"type": "Recreate"}}});
            let object = Object::from_value(value, "a.yaml").unwrap();
            let causes = [(field.to_string(), sentence.to_string())];
            findings(&object, "x", &causes).remove(0).message
        };
        let secret = said(
            "Secret",
            "data",
            "Forbidden: field is immutable when `immutable` is set",
        );
        assert_eq!(
            secret,
            "the server refuses it: Forbidden: field is immutable when `immutable` is set. Give the new one another name, and name that \
             where it is used"
        );
        let selector = said("Deployment", "spec.selector", "Invalid value: {}: field is immutable");
        assert!(
            selector.ends_with("then deploy again: `kubectl --namespace dev delete deployment a --cascade=orphan`"),
            "{selector}"
        );
        let sentence = "Forbidden: updates to statefulset spec for fields other than 'replicas' are forbidden";
        assert!(said("StatefulSet", "spec", sentence).contains("--cascade=orphan"));
        let claim = said(
            "PersistentVolumeClaim",
            "spec",
            "Forbidden: spec is immutable after creation",
        );
        assert!(
            claim.contains("deletes its data") && !claim.contains("kubectl"),
            "{claim}"
        );
        assert!(
            said("RoleBinding", "roleRef", "Invalid value: {}: cannot change roleRef").contains("delete rolebinding a")
        );
        let strategy = said(
            "Deployment",
            "spec.strategy.rollingUpdate",
            "Forbidden: may not be specified when strategy `type` is 'Recreate'",
        );
        assert!(
            strategy.ends_with(
                "`kubectl --namespace dev patch deployment a --type=merge --patch \
                 '{\"spec\":{\"strategy\":{\"type\":\"Recreate\",\"rollingUpdate\":null}}}'`"
            ),
            "{strategy}"
        );
        assert!(!said("ConfigMap", "data", "Invalid value").contains("another name"));
    }

    #[test]
    fn the_values_of_a_secret_are_never_repeated() {
        let value =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": {"PIN": "hunter2"}});
        let secret = Object::from_value(value, "a.yaml").unwrap();
        let quoted = redacted(&secret, "stringData.PIN", "stringData.PIN: Invalid value: \"hunter2\"");
        assert!(
            !quoted.contains("hunter2") && quoted.contains("put numbers and booleans in quotes"),
            "{quoted}"
        );
        let elsewhere = redacted(&secret, "", "webhook denied: hunter2 is too short");
        assert!(!elsewhere.contains("hunter2"), "{elsewhere}");
        assert_eq!(
            redacted(&secret, "type", "type: Required value"),
            "type: Required value"
        );
    }
}
