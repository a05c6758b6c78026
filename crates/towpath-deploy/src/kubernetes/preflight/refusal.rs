//! Turns the server's refusals into findings about fields, without the values of Secrets.

use crate::target::{Finding, Severity};
use base64::Engine as _;
use regex::Regex;
use serde_json::Value;
use std::sync::LazyLock;
use towpath_kube::ApiError;
use towpath_manifest::Object;
use towpath_types::{Mask, SecretString};

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

/// One finding for each field that the server refused, or one for the whole object.
pub(super) fn findings(object: &Object, message: &str, causes: &[(String, String)]) -> Vec<Finding> {
    let finding = |field: &str, sentence: &str| Finding {
        severity: Severity::Refused,
        object: object.id(),
        field: field.to_string(),
        place: object.place_of(&pointer_of(&object.value, field)),
        message: format!("the server refuses it: {}", redacted(object, field, sentence)),
    };
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

/// A server's sentence about an object, without the values of a Secret that it quotes.
pub(in crate::kubernetes) fn redacted(object: &Object, field: &str, sentence: &str) -> String {
    if object.kind != "Secret" {
        return sentence.to_string();
    }
    // A missing field has no value.
    if sentence.trim_end() == "Required value" || sentence.trim_end().ends_with(": Required value") {
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

/// Collects every scalar as text, and strings also decoded from base64.
fn collect_scalars(value: &Value, found: &mut Vec<SecretString>) {
    match value {
        Value::Null => {}
        Value::String(text) => {
            let decoded = base64::engine::general_purpose::STANDARD.decode(text).ok();
            let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
            found.extend(decoded.map(SecretString::new));
            found.push(SecretString::new(text.clone()));
        }
        Value::Bool(_) | Value::Number(_) => found.push(SecretString::new(value.to_string())),
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
                let (key, value) = index.split_once('=')?;
                let items = at?.as_array()?;
                items
                    .iter()
                    .position(|item| item.get(key).and_then(Value::as_str) == Some(value.trim_matches('"')))
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
