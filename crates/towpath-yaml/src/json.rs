//! Converts nodes to JSON values.

use serde_json::{Map, Number, Value as Json};

use crate::node::{Node, Value};
use crate::scalar::{ScalarRules, Typed};

impl Node {
    /// Converts the tree to JSON. `rules` decide the type of unquoted scalars.
    ///
    /// Numbers that JSON cannot represent (`.nan`, `.inf`) become text.
    pub fn to_json(&self, rules: ScalarRules) -> Json {
        match self.value() {
            Value::Sequence(items) => Json::Array(items.iter().map(|item| item.to_json(rules)).collect()),
            Value::Mapping(mapping) => Json::Object(
                mapping
                    .iter()
                    .map(|entry| (entry.key.text.to_string(), entry.value.to_json(rules)))
                    .collect::<Map<_, _>>(),
            ),
            Value::Scalar(scalar) => match self.typed(rules) {
                None | Some(Typed::Null) => Json::Null,
                Some(Typed::Bool(value)) => Json::Bool(value),
                Some(Typed::Int(value)) => Json::Number(value.into()),
                Some(Typed::Float(value)) => {
                    Number::from_f64(value).map_or_else(|| Json::String(scalar.text.to_string()), Json::Number)
                }
                Some(Typed::Text(text)) => Json::String(text.to_owned()),
            },
        }
    }
}
