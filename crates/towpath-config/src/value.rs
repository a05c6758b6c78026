//! The values of parameters, pipeline values and expressions.

use std::rc::Rc;
use std::sync::Arc;

use regex::Regex;
use serde_json::Value as Json;
use towpath_yaml::{Mapping, Node, ScalarRules, ScalarStyle, Span, Typed};

use crate::element::NamespaceId;

/// A value during compilation.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// The value of a known name that has none.
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Arc<str>),
    Pattern(Arc<Regex>),
    /// The name or the call of an executor, and the namespace in which to look it up.
    Executor {
        node: Node,
        namespace: NamespaceId,
    },
    /// Steps, expanded in the scope in which they were written.
    Steps(Rc<[Node]>),
    /// A list or a map.
    Tree(Node),
}

impl Value {
    pub(crate) fn of(node: &Node) -> Value {
        match node.typed(ScalarRules::CircleCi) {
            None => Value::Tree(node.clone()),
            Some(Typed::Null) => Value::Null,
            Some(Typed::Bool(value)) => Value::Bool(value),
            Some(Typed::Int(value)) => Value::Int(value),
            Some(Typed::Float(value)) => Value::Float(value),
            Some(Typed::Text(_)) => match node.as_scalar() {
                Some(scalar) => Value::Text(scalar.text.clone()),
                None => Value::Null,
            },
        }
    }

    pub(crate) fn of_json(json: &Json) -> Option<Value> {
        Some(match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(value) => Value::Int(value),
                None => Value::Float(number.as_f64()?),
            },
            Json::String(text) => Value::Text(text.as_str().into()),
            Json::Array(_) | Json::Object(_) => return None,
        })
    }

    pub(crate) fn truthy(&self) -> bool {
        match self {
            Value::Null => false,
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::Float(value) => *value != 0.0 && !value.is_nan(),
            Value::Text(text) => !text.is_empty(),
            Value::Pattern(_) | Value::Executor { .. } => true,
            Value::Steps(steps) => !steps.is_empty(),
            Value::Tree(node) => match (node.as_sequence(), node.as_mapping()) {
                (Some(items), _) => !items.is_empty(),
                (_, Some(map)) => !map.is_empty(),
                _ => true,
            },
        }
    }

    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Value::Int(value) => Some(*value as f64),
            Value::Float(value) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Appends the value to a longer text.
    pub(crate) fn interpolate(&self, out: &mut String) {
        use std::fmt::Write as _;
        match self {
            Value::Null => {}
            Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Value::Int(value) => {
                let _ = write!(out, "{value}");
            }
            Value::Float(value) => {
                let _ = write!(out, "{value}");
            }
            Value::Text(text) => out.push_str(text),
            Value::Pattern(regex) => out.push_str(regex.as_str()),
            Value::Executor { node, .. } => match executor_name(node) {
                Some(name) => out.push_str(&name),
                None => out.push_str(&node.to_json(ScalarRules::CircleCi).to_string()),
            },
            Value::Steps(steps) => {
                let json: Vec<Json> = steps.iter().map(|step| step.to_json(ScalarRules::CircleCi)).collect();
                out.push_str(&Json::Array(json).to_string());
            }
            Value::Tree(node) => out.push_str(&node.to_json(ScalarRules::CircleCi).to_string()),
        }
    }

    /// The text that [`Value::interpolate`] appends.
    pub(crate) fn to_text(&self) -> Arc<str> {
        if let Value::Text(text) = self {
            return text.clone();
        }
        let mut out = String::new();
        self.interpolate(&mut out);
        out.into()
    }

    /// A node that holds the value, placed at `span`.
    pub(crate) fn to_node(&self, span: &Span) -> Node {
        match self {
            Value::Tree(node) | Value::Executor { node, .. } => node.clone(),
            Value::Steps(steps) => Node::sequence(steps.to_vec(), span.clone()),
            Value::Text(text) => Node::scalar(text.clone(), ScalarStyle::Quoted, span.clone()),
            value => Node::scalar(value.to_text(), ScalarStyle::Plain, span.clone()),
        }
    }

    /// The name of the type, for messages.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Int(_) => "integer",
            Value::Float(_) => "float",
            Value::Text(_) | Value::Pattern(_) => "string",
            Value::Executor { .. } => "executor",
            Value::Steps(_) => "steps",
            Value::Tree(node) if node.as_sequence().is_some() => "list",
            Value::Tree(_) => "map",
        }
    }

    /// The value as messages quote it: `"true" (type string)`.
    pub(crate) fn quoted(&self) -> String {
        let text = match self {
            Value::Null => "null".to_owned(),
            Value::Text(text) => format!("{text:?}"),
            value => format!("\"{}\"", value.to_text()),
        };
        format!("{text} (type {})", self.type_name())
    }
}

impl PartialEq for Value {
    /// Compares deeply. Values of different types are different, but an executor equals its name and its call.
    fn eq(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(left), Value::Bool(right)) => left == right,
            (Value::Int(left), Value::Int(right)) => left == right,
            (Value::Text(left), Value::Text(right)) => left == right,
            (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => self.number() == other.number(),
            (Value::Pattern(left), Value::Pattern(right)) => left.as_str() == right.as_str(),
            (Value::Executor { node, .. }, Value::Text(name)) | (Value::Text(name), Value::Executor { node, .. }) => {
                executor_name(node).is_some_and(|own| own == *name)
            }
            (
                Value::Executor { node: left, .. } | Value::Tree(left),
                Value::Executor { node: right, .. } | Value::Tree(right),
            ) => same_tree(left, right),
            (Value::Steps(left), Value::Steps(right)) => {
                left.len() == right.len()
                    && left
                        .iter()
                        .zip(right.iter())
                        .all(|(left, right)| same_tree(left, right))
            }
            (Value::Steps(steps), Value::Tree(node)) | (Value::Tree(node), Value::Steps(steps)) => {
                node.as_sequence().is_some_and(|items| {
                    items.len() == steps.len()
                        && items
                            .iter()
                            .zip(steps.iter())
                            .all(|(left, right)| same_tree(left, right))
                })
            }
            _ => false,
        }
    }
}

/// The name of an executor that is called without arguments.
fn executor_name(node: &Node) -> Option<Arc<str>> {
    match node.as_mapping() {
        None => node.as_scalar().map(|scalar| scalar.text.clone()),
        Some(map) if map.len() == 1 => map.get("name")?.as_scalar().map(|scalar| scalar.text.clone()),
        Some(_) => None,
    }
}

/// Whether two trees hold the same data.
pub(crate) fn same_tree(left: &Node, right: &Node) -> bool {
    if left.same(right) {
        return true;
    }
    match (left.value(), right.value()) {
        (towpath_yaml::Value::Scalar(_), towpath_yaml::Value::Scalar(_)) => {
            left.typed(ScalarRules::CircleCi) == right.typed(ScalarRules::CircleCi)
        }
        (towpath_yaml::Value::Sequence(left), towpath_yaml::Value::Sequence(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same_tree(left, right))
        }
        (towpath_yaml::Value::Mapping(left), towpath_yaml::Value::Mapping(right)) => same_mapping(left, right),
        _ => false,
    }
}

fn same_mapping(left: &Mapping, right: &Mapping) -> bool {
    left.len() == right.len()
        && left.iter().all(|entry| {
            right
                .get(&entry.key.text)
                .is_some_and(|value| same_tree(&entry.value, value))
        })
}
