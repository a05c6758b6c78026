//! Properties that hold for every object.

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use towpath_manifest::{ChangeKind, Object, Tree, diff, normalise};

fn fingerprint(bytes: &[u8]) -> String {
    towpath_types::Digest::of(bytes).short().to_string()
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~\n\t\u{e4}]{0,12}".prop_map(Value::from),
        "(yes|no|on|null|~|0x1f|1e3|007|1_000|12:30|-|- a|a: b|#x|10Gi)".prop_map(Value::from),
    ];
    let key = prop_oneof![
        Just("annotations".to_string()),
        Just("labels".to_string()),
        Just("limits".to_string()),
        Just("data".to_string()),
        Just("stringData".to_string()),
        "[a-zA-Z0-9./~ -]{1,10}",
    ];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..5)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Value> {
    let kind = prop_oneof![Just("Secret"), Just("ConfigMap"), Just("Deployment")];
    (kind, value(), value(), value(), value()).prop_map(|(kind, data, string_data, spec, annotations)| {
        json!({
            "apiVersion": "v1", "kind": kind, "metadata": {"name": "x", "annotations": annotations, "uid": "1"},
            "data": data, "stringData": string_data, "spec": spec, "status": {"a": 1},
        })
    })
}

/// The same value, with the keys of every mapping in reverse order.
fn reversed(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let entries: Vec<_> = map
                .iter()
                .rev()
                .map(|(key, value)| (key.clone(), reversed(value)))
                .collect();
            Value::Object(entries.into_iter().collect::<Map<_, _>>())
        }
        Value::Array(list) => list.iter().map(reversed).collect(),
        other => other.clone(),
    }
}

fn read(value: Value) -> Object {
    match Object::from_value(value, "x.yaml") {
        Ok(object) => object,
        Err(error) => panic!("{error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn normalising_is_idempotent(object in object()) {
        prop_assume!(object["kind"] != "Secret");
        let once = normalise(&object, &fingerprint);
        prop_assert_eq!(normalise(&once, &fingerprint), once);
    }

    #[test]
    fn equal_objects_have_no_diff_whatever_the_order_of_their_keys(object in object()) {
        let changes = diff(&[read(object.clone())], &[read(reversed(&object))], &fingerprint);
        prop_assert_eq!(changes[0].kind, ChangeKind::Unchanged);
        prop_assert!(changes[0].hunks.is_empty());
    }

    #[test]
    fn every_line_of_a_diff_is_in_the_text_it_is_shown_for(before in object(), after in object()) {
        let text = |object: &Value| towpath_yaml::emit(&normalise(object, &fingerprint));
        let mut before = before;
        before["kind"] = after["kind"].clone();
        let (old, new) = (text(&before), text(&after));
        let changes = diff(&[read(before)], &[read(after)], &fingerprint);
        prop_assert_eq!(changes[0].kind == ChangeKind::Unchanged, old == new);
        for hunk in &changes[0].hunks {
            for line in &hunk.lines {
                let shown = line.to_string();
                let (in_old, in_new) = (old.lines().any(|l| l == &shown[1..]), new.lines().any(|l| l == &shown[1..]));
                let right = match &shown[..1] {
                    "-" => in_old,
                    "+" => in_new,
                    _ => in_old && in_new,
                };
                prop_assert!(right, "{}", shown);
            }
        }
    }

    #[test]
    fn an_object_written_as_yaml_is_read_back_unchanged(object in object()) {
        let text = towpath_yaml::emit(&object);
        let (tree, wrong) = Tree::read([(".k8s/live/dev/x.yaml", text.as_str())]);
        prop_assert!(wrong.is_empty(), "{}\n{}", text, towpath_yaml::render_all(&wrong, false));
        let read = &tree.kube_contexts["live"].environments["dev"].objects[0];
        prop_assert_eq!(&read.value, &object, "{}", text);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "(?s)[ -~\n]{0,200}", path in "\\.k8s/[a-z/]{0,12}\\.ya?ml") {
        let (tree, _) = Tree::read([(path.as_str(), text.as_str())]);
        for (name, context) in &tree.kube_contexts {
            for environment in context.environments.keys() {
                prop_assert!(tree.wanted(name, environment, "x").is_some());
            }
        }
    }
}
