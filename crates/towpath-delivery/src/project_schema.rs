//! The JSON Schema of `towpath.toml`, and the keys and places of a file by it.

use serde_json::Value as Json;
use std::{ops::Range, sync::LazyLock};
use toml::de::{DeTable, DeValue};
use towpath_types::nearest;

/// The JSON Schema (draft 7) of `towpath.toml`, for editors.
pub const PROJECT_SCHEMA: &str = include_str!("project_schema.json");

/// The schema as it is read. A test holds that it parses.
static SCHEMA: LazyLock<Json> = LazyLock::new(|| serde_json::from_str(PROJECT_SCHEMA).unwrap_or_default());

/// A key that nothing reads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnknownKey {
    /// Its first byte.
    pub start: usize,
    pub message: String,
}

/// The first key of `table` that the schema does not have.
pub(crate) fn unknown_key(table: &DeTable<'_>) -> Option<UnknownKey> {
    in_table(table, &SCHEMA, "")
}

fn in_table(table: &DeTable<'_>, schema: &Json, around: &str) -> Option<UnknownKey> {
    let known = schema.get("properties").and_then(Json::as_object);
    let other = schema.get("additionalProperties");
    if known.is_none() && other.is_none() {
        return None;
    }
    let mut found: Vec<UnknownKey> = Vec::new();
    for (key, value) in table {
        let name: &str = key.get_ref();
        let path = match around {
            "" => name.to_string(),
            around => format!("{around}.{name}"),
        };
        let inner = known
            .and_then(|known| known.get(name))
            .or(other.filter(|other| other.is_object()));
        match inner {
            Some(inner) => found.extend(in_value(value.get_ref(), inner, &path)),
            None => {
                let names: Vec<&str> = known
                    .into_iter()
                    .flat_map(|known| known.keys().map(String::as_str))
                    .collect();
                let place = match around {
                    "" => String::new(),
                    around => format!(" in `{}`", around.escape_debug()),
                };
                let hint = match nearest(name, &names) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there are {}", names.join(", ")),
                };
                found.push(UnknownKey {
                    start: key.span().start,
                    message: format!("unknown key `{}`{place}: {hint}", name.escape_debug()),
                });
            }
        }
    }
    found.into_iter().min_by_key(|unknown| unknown.start)
}

fn in_value(value: &DeValue<'_>, schema: &Json, path: &str) -> Option<UnknownKey> {
    match value {
        DeValue::Table(table) => in_table(table, schema, path),
        DeValue::Array(items) => {
            let schema = schema.get("items")?;
            items.iter().find_map(|item| in_value(item.get_ref(), schema, path))
        }
        _ => None,
    }
}

/// A step on the way to a value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step<'a> {
    Key(&'a str),
    Item(usize),
}

/// The bytes of the key and of the value at a path.
pub(crate) fn place_of(table: &DeTable<'_>, path: &[Step<'_>]) -> Option<(Range<usize>, Range<usize>)> {
    let (first, rest) = path.split_first()?;
    let Step::Key(name) = first else { return None };
    let (key, value) = table.iter().find(|(key, _)| key.get_ref() == name)?;
    let mut place = (key.span(), value.span());
    let mut at = value.get_ref();
    for (index, step) in rest.iter().enumerate() {
        match (step, at) {
            (Step::Key(_), DeValue::Table(inner)) => return place_of(inner, &rest[index..]),
            (Step::Item(number), DeValue::Array(items)) => {
                let item = items.get(*number)?;
                place = (item.span(), item.span());
                at = item.get_ref();
            }
            _ => return None,
        }
    }
    Some(place)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::project_file::ProjectFile;
    use std::collections::BTreeSet;

    /// The keys that serde reads in the table at `path`, from what it says about a key that there is not.
    fn read_by_serde(head: &str) -> BTreeSet<String> {
        let error = toml::from_str::<ProjectFile>(&format!("{head}\nno-such-key = 1\n")).unwrap_err();
        let message = error.message().to_string();
        let (_, known) = message.split_once("expected").unwrap_or_else(|| panic!("{message}"));
        known.split('`').skip(1).step_by(2).map(str::to_string).collect()
    }

    #[test]
    fn the_schema_has_the_keys_that_are_read() {
        for (head, pointer) in [
            ("", "/properties"),
            ("[wait]", "/properties/wait/properties"),
            ("[build]", "/properties/build/properties"),
            ("[[freeze]]", "/properties/freeze/items/properties"),
            ("[images.vote]", "/properties/images/additionalProperties/properties"),
            (
                "[environments.dev]",
                "/properties/environments/additionalProperties/properties",
            ),
        ] {
            let known = SCHEMA.pointer(pointer).and_then(Json::as_object).unwrap();
            let known: BTreeSet<String> = known.keys().cloned().collect();
            assert_eq!(read_by_serde(head), known, "{head}");
        }
    }

    #[test]
    fn everything_in_the_schema_is_described_and_closed() {
        fn check(schema: &Json, path: &str) {
            if let Some(known) = schema.get("properties").and_then(Json::as_object) {
                assert_eq!(schema.get("additionalProperties"), Some(&Json::Bool(false)), "{path}");
                for (name, inner) in known {
                    assert!(inner.get("description").is_some(), "{path}.{name}");
                    check(inner, &format!("{path}.{name}"));
                }
            }
            for inner in ["items", "additionalProperties"] {
                if let Some(inner) = schema.get(inner) {
                    check(inner, path);
                }
            }
        }
        check(&SCHEMA, "");
    }
}
