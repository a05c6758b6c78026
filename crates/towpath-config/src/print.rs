//! Prints a compiled configuration byte for byte as CircleCI's `config process` does, in version 2 of the language.
//!
//! CircleCI keeps maps in Clojure's persistent maps. Those keep up to eight entries in the order of insertion. Larger maps are
//! hash tries, whose order depends on the hashes of the keys.

use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use towpath_yaml::{Node, ScalarRules};

use crate::compiled::{RequiredStatus, ResolvedOrb};
use crate::expansion::Expanded;
use crate::workflows::model::{Graph, Invocation, Role};

/// The largest map that keeps the order of insertion.
const ORDERED: usize = 8;

/// Prints a configuration. `written` is its section `workflows`.
pub(crate) fn print(
    orbs: &[ResolvedOrb],
    definitions: &[(Arc<str>, Rc<Expanded>)],
    graphs: &[Graph],
    written: Option<&Node>,
) -> String {
    let mut text = String::new();
    for orb in orbs {
        text.push_str(&format!("# Orb '{}' resolved to '{}'\n", orb.reference, orb.resolved));
    }
    let jobs: Map<String, Value> = definitions
        .iter()
        .map(|(name, expanded)| (name.to_string(), expanded.node.to_json(ScalarRules::CircleCi)))
        .collect();
    let mut workflows = Map::new();
    let written = written.and_then(Node::as_mapping);
    // The key `version` keeps its position, or comes last if it was not written.
    let before = match written.map(|written| {
        (
            written,
            written.entries().iter().position(|part| &*part.key.text == "version"),
        )
    }) {
        None => 0,
        Some((_, None)) => graphs.len(),
        Some((written, Some(at))) => {
            let earlier = |graph: &&Graph| written.entries()[..at].iter().any(|part| part.key.text == graph.name);
            graphs.iter().filter(earlier).count()
        }
    };
    for (at, graph) in graphs.iter().enumerate() {
        if at == before {
            workflows.insert("version".into(), json!(2));
        }
        workflows.insert(graph.name.to_string(), workflow(graph));
    }
    workflows.entry("version").or_insert(json!(2));
    let document = json!({ "version": 2, "jobs": jobs, "workflows": workflows });
    text.push_str(&towpath_yaml::emit(&ordered(document)));
    text
}

fn workflow(graph: &Graph) -> Value {
    let jobs: Vec<Value> = graph
        .invocations
        .iter()
        .map(|invocation| invocation_json(graph, invocation))
        .collect();
    let mut workflow = Map::new();
    workflow.insert("jobs".into(), Value::Array(jobs));
    for part in &graph.printed {
        workflow.insert(part.key.text.to_string(), part.value.to_json(ScalarRules::CircleCi));
    }
    Value::Object(workflow)
}

fn invocation_json(graph: &Graph, invocation: &Invocation) -> Value {
    let mut body = Map::new();
    let mut put = |key: &str| {
        if let Some(node) = invocation.printed.get(key) {
            body.insert(key.to_owned(), node.to_json(ScalarRules::CircleCi));
        }
    };
    put("filters");
    put("type");
    if !matches!(invocation.role, Role::Build(_)) && !body.contains_key("type") {
        // The type was in the definition, which is not printed.
        if let Some(word) = kind(&invocation.role) {
            body.insert("type".into(), json!(word));
        }
    }
    if !invocation.resolved.is_empty() {
        let requires = invocation.resolved.iter().map(|(at, statuses)| {
            let name = &graph.invocations[*at].name;
            if statuses.len() == 1 && statuses.contains(&RequiredStatus::Success) {
                json!(&**name)
            } else {
                let words: Vec<&str> = statuses.iter().map(|status| status.as_str()).collect();
                json!({ name.to_string(): words })
            }
        });
        body.insert("requires".into(), requires.collect());
    }
    for key in ["context", "upstream", "serial-group"] {
        if let Some(node) = invocation.printed.get(key) {
            body.insert(key.to_owned(), node.to_json(ScalarRules::CircleCi));
        }
    }
    match &invocation.role {
        Role::Lock { key, .. } | Role::Unlock { key, .. } => drop(body.insert("key".into(), json!(key))),
        Role::Release { plan_name: Some(name) } => drop(body.insert("plan_name".into(), json!(name))),
        _ => {}
    }
    match body.is_empty() {
        true => json!(&*invocation.name),
        false => json!({ invocation.name.to_string(): body }),
    }
}

fn kind(role: &Role) -> Option<&'static str> {
    match role {
        Role::Build(_) => None,
        Role::Approval => Some("approval"),
        Role::NoOp => Some("no-op"),
        Role::Release { .. } => Some("release"),
        Role::Lock { .. } => Some("lock"),
        Role::Unlock { .. } => Some("unlock"),
    }
}

/// Sorts all maps in CircleCI's order.
fn ordered(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(ordered).collect(),
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map.into_iter().map(|(key, value)| (key, ordered(value))).collect();
            in_original_order(&mut entries, |(key, _)| key);
            Value::Object(entries.into_iter().collect())
        }
        other => other,
    }
}

/// Sorts the entries of a map in CircleCI's order.
pub(crate) fn in_original_order<T>(entries: &mut [T], key: impl Fn(&T) -> &str) {
    if entries.len() > ORDERED {
        entries.sort_by_key(|entry| path_in_tree(hash(key(entry))));
    }
}

/// The position of a key in a hash array mapped trie: one branch for each five bits of the hash, from the lowest.
fn path_in_tree(hash: u32) -> [u8; 7] {
    std::array::from_fn(|level| u8::try_from(hash >> (5 * level) & 31).unwrap_or_default())
}

/// Clojure's hash of a string: Murmur3 (32 bits, seed 0) of Java's hash.
///
/// Source: <https://clojure.org/reference/data_structures>, <https://en.wikipedia.org/wiki/MurmurHash>
fn hash(text: &str) -> u32 {
    let java = text
        .encode_utf16()
        .fold(0_u32, |hash, unit| hash.wrapping_mul(31).wrapping_add(unit.into()));
    if java == 0 {
        return 0;
    }
    let block = java.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let mut hash = block.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64) ^ 4;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}
