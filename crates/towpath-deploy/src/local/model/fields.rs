//! Reads a mapping field by field, and reports each unread field.

use crate::target::{Finding, Severity};
use serde_json::{Map, Value};
use std::{cell::RefCell, collections::BTreeSet};
use towpath_manifest::Object;

/// Collects findings about one object.
pub(super) struct Report<'a> {
    object: &'a Object,
    findings: RefCell<Vec<Finding>>,
}

impl<'a> Report<'a> {
    pub(super) fn new(object: &'a Object) -> Self {
        Self {
            object,
            findings: RefCell::default(),
        }
    }

    fn add(&self, severity: Severity, pointer: &str, message: String) {
        self.findings.borrow_mut().push(Finding {
            severity,
            object: self.object.id(),
            field: field_path(pointer),
            place: self.object.place_of(pointer),
            message,
        });
    }

    pub(super) fn refuse(&self, pointer: &str, message: impl Into<String>) {
        self.add(Severity::Refused, pointer, message.into());
    }

    pub(super) fn note(&self, pointer: &str, message: impl Into<String>) {
        self.add(Severity::Note, pointer, message.into());
    }

    pub(super) fn into_findings(self) -> Vec<Finding> {
        self.findings.into_inner()
    }
}

/// Formats `/spec/containers/0/image` as people write it: `spec.containers[0].image`.
pub(crate) fn field_path(pointer: &str) -> String {
    let mut path = String::new();
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        if token.bytes().all(|b| b.is_ascii_digit()) && !path.is_empty() {
            path.push_str(&format!("[{token}]"));
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&token);
        }
    }
    path
}

/// A value and its place.
#[derive(Clone)]
pub(super) struct Node<'a> {
    report: &'a Report<'a>,
    pub(super) value: &'a Value,
    pub(super) pointer: String,
}

/// A mapping that is being read. [`Fields::finish`] refuses the unread fields.
pub(super) struct Fields<'a> {
    report: &'a Report<'a>,
    map: Option<&'a Map<String, Value>>,
    pub(super) pointer: String,
    asked: BTreeSet<&'static str>,
}

impl<'a> Node<'a> {
    pub(super) fn root(report: &'a Report<'a>) -> Self {
        Self {
            report,
            value: &report.object.value,
            pointer: String::new(),
        }
    }

    pub(super) fn refuse(&self, message: impl Into<String>) {
        self.report.refuse(&self.pointer, message);
    }

    pub(super) fn note(&self, message: impl Into<String>) {
        self.report.note(&self.pointer, message);
    }

    /// The keys of a mapping; empty for any other value.
    pub(super) fn keys(&self) -> Vec<String> {
        self.value
            .as_object()
            .into_iter()
            .flat_map(|map| map.keys().cloned())
            .collect()
    }

    fn wrong<T>(&self, expected: &str) -> Option<T> {
        self.refuse(format!("must be {expected}"));
        None
    }

    pub(super) fn fields(&self) -> Fields<'a> {
        let map = self.value.as_object();
        if map.is_none() {
            self.refuse("must be a mapping");
        }
        Fields {
            report: self.report,
            map,
            pointer: self.pointer.clone(),
            asked: BTreeSet::new(),
        }
    }

    pub(super) fn items(&self) -> Vec<Node<'a>> {
        let Some(items) = self.value.as_array() else {
            self.refuse("must be a list");
            return Vec::new();
        };
        items
            .iter()
            .enumerate()
            .map(|(index, value)| Node {
                report: self.report,
                value,
                pointer: format!("{}/{index}", self.pointer),
            })
            .collect()
    }

    pub(super) fn text(&self) -> Option<String> {
        match self.value {
            Value::String(text) => Some(text.clone()),
            // An unquoted value that was most likely meant as text. Kubernetes refuses it, too.
            _ => self.wrong("a string (quote it)"),
        }
    }

    pub(super) fn number(&self, least: i64) -> Option<i64> {
        match self.value.as_i64().filter(|number| *number >= least) {
            Some(number) => Some(number),
            None => self.wrong(&format!("a whole number, {least} or more")),
        }
    }

    pub(super) fn flag(&self) -> Option<bool> {
        match self.value.as_bool() {
            Some(flag) => Some(flag),
            None => self.wrong("`true` or `false`"),
        }
    }

    pub(super) fn texts(&self) -> Vec<String> {
        self.items().iter().filter_map(Node::text).collect()
    }

    pub(super) fn text_map(&self) -> std::collections::BTreeMap<String, String> {
        let Some(map) = self.value.as_object() else {
            self.refuse("must be a mapping");
            return Default::default();
        };
        map.iter()
            .filter_map(|(key, value)| {
                let node = Node {
                    report: self.report,
                    value,
                    pointer: child(&self.pointer, key),
                };
                Some((key.clone(), node.text()?))
            })
            .collect()
    }

    /// One of `words`.
    pub(super) fn word<T: Clone>(&self, words: &[(&str, T)]) -> Option<T> {
        let found = self
            .value
            .as_str()
            .and_then(|text| words.iter().find(|(word, _)| *word == text));
        match found {
            Some((_, meaning)) => Some(meaning.clone()),
            None => {
                let known: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
                self.refuse(format!(
                    "{} is not supported here; {} is",
                    shown(self.value),
                    known.join(" or ")
                ));
                None
            }
        }
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    let text = text.trim_matches('"');
    format!("`{}`", text.chars().take(60).collect::<String>())
}

fn child(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

impl<'a> Fields<'a> {
    /// The field `name`; `None` if it is absent or null.
    pub(super) fn get(&mut self, name: &'static str) -> Option<Node<'a>> {
        self.asked.insert(name);
        let value = self.map?.get(name).filter(|value| !value.is_null())?;
        Some(Node {
            report: self.report,
            value,
            pointer: child(&self.pointer, name),
        })
    }

    /// The field `name`. Refuses the mapping if it is absent.
    pub(super) fn need(&mut self, name: &'static str) -> Option<Node<'a>> {
        let found = self.get(name);
        if found.is_none() && self.map.is_some() {
            self.report.refuse(&self.pointer, format!("`{name}` is missing"));
        }
        found
    }

    pub(super) fn need_text(&mut self, name: &'static str) -> String {
        self.need(name).and_then(|node| node.text()).unwrap_or_default()
    }

    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        self.get(name)?.text()
    }

    pub(super) fn number(&mut self, name: &'static str, least: i64) -> Option<i64> {
        self.get(name)?.number(least)
    }

    pub(super) fn flag(&mut self, name: &'static str) -> Option<bool> {
        self.get(name)?.flag()
    }

    pub(super) fn items(&mut self, name: &'static str) -> Vec<Node<'a>> {
        self.get(name).map(|node| node.items()).unwrap_or_default()
    }

    pub(super) fn texts(&mut self, name: &'static str) -> Vec<String> {
        self.get(name).map(|node| node.texts()).unwrap_or_default()
    }

    pub(super) fn refuse(&self, message: impl Into<String>) {
        self.report.refuse(&self.pointer, message);
    }

    /// Refuses every field that was not read.
    pub(super) fn finish(self) {
        let Some(map) = self.map else { return };
        for key in map.keys().filter(|key| !self.asked.contains(key.as_str())) {
            self.report.refuse(
                &child(&self.pointer, key),
                "is not supported by the local target; remove it or use a cluster",
            );
        }
    }
}
