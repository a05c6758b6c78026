//! Packs a folder of small files into one document, as CircleCI's `config pack` and `orb pack` do.
//!
//! Each folder and each file becomes a key. A file whose name starts with `@`, and a file in the outermost folder, is merged
//! into its folder. A file can refer to the anchors of other files. In an orb, folders below `commands`, `jobs`, `executors` and
//! `examples` only group files, and `<< include(path) >>` inserts the text of a file, by its path from the packed folder.
//!
//! Source: <https://circleci.com/docs/orbs/author/orb-author/#orb-packing>

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};
use towpath_yaml::{Diagnostic, Node, ParseOptions, ScalarRules, SourceFile, parse};

/// The kind of document to pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum PackKind {
    Config,
    Orb,
}

/// The sections of an orb whose subfolders are no keys.
const FLAT: &[&str] = &["commands", "jobs", "executors", "examples"];

/// Reads a file that an orb includes, by its path from the packed folder as it is written (`../scripts/greet.sh`).
///
/// The error is the end of a sentence that names the file: "which does not exist".
pub type Include<'a> = dyn Fn(&str) -> Result<String, String> + 'a;

/// Whether a file of this name is packed. Others can only be included.
pub fn is_packed(name: &str) -> bool {
    name.ends_with(".yml") || name.ends_with(".yaml")
}

/// Packs files into one document. `files` has their texts by path below the folder (`commands/greet.yml`).
///
/// # Errors
/// All errors, with their places.
pub fn pack(
    files: &BTreeMap<String, String>,
    kind: PackKind,
    include: &Include<'_>,
) -> Result<String, Vec<Diagnostic>> {
    let mut errors = Vec::new();
    let yaml: Vec<(&String, &String)> = files.iter().filter(|(path, _)| is_packed(path)).collect();
    let mut whole = Map::new();
    let mut taken: BTreeMap<Vec<String>, &String> = BTreeMap::new();
    for (path, value) in read_together(&yaml, &mut errors) {
        let keys = keys_of(path, kind);
        if keys.len() + depth(&value) > MAX_DEPTH {
            let message = format!("`{path}` is nested more than {MAX_DEPTH} levels deep, including its folders");
            errors.push(Diagnostic::error("pack::too-deep", message));
            continue;
        }
        let value = match kind {
            PackKind::Orb => included(value, include, path, &mut errors),
            PackKind::Config => value,
        };
        let flattened = kind == PackKind::Orb && path.matches('/').count() > 1;
        if let Some(other) = taken.insert(keys.clone(), path)
            && (flattened || other.matches('/').count() > 1)
        {
            let message = format!("`{path}` and `{other}` both define `{}`", keys.join("."));
            errors.push(Diagnostic::error("pack::twice", message).hint("rename one of the files"));
        }
        let mut value = value;
        for key in keys.iter().rev() {
            let mut map = Map::new();
            map.insert(key.clone(), value);
            value = Value::Object(map);
        }
        match value {
            Value::Object(map) => merge(&mut whole, map),
            Value::Null => {}
            _ => {
                let message = format!("`{path}` must be a map, because it is merged with the files beside it");
                errors.push(Diagnostic::error("pack::not-a-map", message));
            }
        }
    }
    match errors.is_empty() {
        true => Ok(towpath_yaml::emit(&sorted(Value::Object(whole)))),
        false => Err(errors),
    }
}

/// The greatest depth of a packed document. It must be below the depth that the YAML parser accepts.
const MAX_DEPTH: usize = 150;

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The keys under which the content of a file belongs.
fn keys_of(path: &str, kind: PackKind) -> Vec<String> {
    let mut parts: Vec<&str> = path.split('/').collect();
    let file = parts.pop().unwrap_or_default();
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    if kind == PackKind::Orb && parts.first().is_some_and(|section| FLAT.contains(section)) {
        parts.truncate(1);
    }
    let mut keys: Vec<String> = parts.into_iter().map(str::to_owned).collect();
    if !file.starts_with('@') && !keys.is_empty() {
        keys.push(stem.to_owned());
    }
    keys
}

/// Parses each file. A file that refers to anchors of other files is parsed together with those.
fn read_together<'a>(files: &[(&'a String, &'a String)], errors: &mut Vec<Diagnostic>) -> Vec<(&'a String, Value)> {
    let read = |path: &str, text: &str| {
        let (documents, diagnostics) = parse(&SourceFile::new(path, text), &ParseOptions::default());
        let broken: Vec<Diagnostic> = diagnostics.into_iter().filter(Diagnostic::is_error).collect();
        (documents.into_iter().next(), broken)
    };
    let data = |node: Option<Node>| node.map_or(Value::Null, |node| node.to_json(ScalarRules::CircleCi));
    let mut all = Vec::new();
    let mut anchors = String::new();
    let mut later = Vec::new();
    for (path, text) in files {
        let (document, broken) = read(path, text);
        match broken.is_empty() {
            true => {
                if text.contains('&') {
                    let _ = writeln!(anchors, "f{}:", all.len());
                    nest(text, &mut anchors);
                }
                all.push((*path, data(document)));
            }
            false => later.push((*path, *text, broken)),
        }
    }
    for (path, text, broken) in later {
        let mut together = format!("{anchors}it:\n");
        nest(text, &mut together);
        if !text.ends_with('\n') {
            together.pop();
        }
        let (document, still_broken) = read("packed", &together);
        match still_broken.is_empty() {
            true => all.push((path, data(document.and_then(|document| document.get("it").cloned())))),
            // Report the errors of the file alone, whose places are right.
            false => errors.extend(broken),
        }
    }
    all.sort_by_key(|(path, _)| *path);
    all
}

/// Appends `text`, indented as the value of a key.
fn nest(text: &str, out: &mut String) {
    for line in text.lines().filter(|line| *line != "---") {
        let _ = writeln!(out, "  {line}");
    }
}

fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(known)), Value::Object(more)) => merge(known, more),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            entries.sort_by(|(left, _), (right, _)| natural(left, right));
            Value::Object(entries.into_iter().collect())
        }
        other => other,
    }
}

/// Compares keys as CircleCI's `pack` sorts them: numbers by value, and other characters before letters and digits. An
/// `environment` that is a map becomes a list in this order.
fn natural(left: &str, right: &str) -> Ordering {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let Some(at) = left.iter().zip(&right).position(|(one, other)| one != other) else {
        return left.len().cmp(&right.len());
    };
    let in_number = at > 0 && left[at - 1].is_ascii_digit();
    match (left[at].is_alphabetic(), right[at].is_alphabetic()) {
        (true, true) => return left[at].cmp(&right[at]),
        // A letter ends a number, so the shorter number comes first.
        (true, false) => return if in_number { Ordering::Less } else { Ordering::Greater },
        (false, true) => return if in_number { Ordering::Greater } else { Ordering::Less },
        (false, false) => {}
    }
    let number = |text: &[char]| {
        let begin = text[..at]
            .iter()
            .rposition(|before| !before.is_ascii_digit())
            .map_or(0, |before| before + 1);
        let digits: String = text[begin..]
            .iter()
            .take_while(|digit| digit.is_ascii_digit())
            .collect();
        (
            digits.trim_start_matches('0').len(),
            digits.trim_start_matches('0').to_owned(),
            digits.len(),
        )
    };
    match left[at].is_ascii_digit() || right[at].is_ascii_digit() {
        true => number(&left).cmp(&number(&right)).then(left[at].cmp(&right[at])),
        false => left[at].cmp(&right[at]),
    }
}

/// Replaces each `<< include(path) >>` in `value` by the text of that file.
fn included(value: Value, include: &Include<'_>, path: &str, errors: &mut Vec<Diagnostic>) -> Value {
    match value {
        Value::Array(items) => items
            .into_iter()
            .map(|item| included(item, include, path, errors))
            .collect(),
        Value::Object(map) => map
            .into_iter()
            .map(|(key, value)| (key, included(value, include, path, errors)))
            .collect(),
        Value::String(text) => Value::String(include_in(&text, include, path, errors)),
        other => other,
    }
}

fn include_in(text: &str, include: &Include<'_>, path: &str, errors: &mut Vec<Diagnostic>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("<<") {
        let inside = &rest[start + 2..];
        let Some(end) = inside.find(">>") else { break };
        let name = inside[..end]
            .trim()
            .strip_prefix("include(")
            .and_then(|name| name.strip_suffix(')'));
        let Some(name) = name.map(str::trim) else {
            out.push_str(&rest[..start + 2]);
            rest = inside;
            continue;
        };
        out.push_str(&rest[..start]);
        match include(name) {
            Ok(content) => out.push_str(&content.replace("<<", "\\<<")),
            Err(reason) => {
                let message = format!("`{path}` includes `{name}`, {reason}");
                errors.push(Diagnostic::error("pack::include", message));
            }
        }
        rest = &inside[end + 2..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn packed(files: &[(&str, &str)], kind: PackKind) -> Result<String, Vec<String>> {
        let files: BTreeMap<String, String> = files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
            .collect();
        let include = |name: &str| files.get(name).cloned().ok_or_else(|| "which is not there".to_owned());
        pack(&files, kind, &include).map_err(|errors| errors.into_iter().map(|error| error.message).collect())
    }

    #[test]
    fn folders_become_keys_and_files_with_an_at_are_merged_into_their_folder() {
        let files = [
            ("@config.yml", "version: 2.1\n"),
            ("jobs/build.yml", "steps: [checkout]\n"),
            ("jobs/@more.yml", "test: {steps: [checkout]}\n"),
            ("README.md", "not YAML: [\n"),
        ];
        let expected =
            "jobs:\n  build:\n    steps:\n    - checkout\n  test:\n    steps:\n    - checkout\nversion: 2.1\n";
        assert_eq!(packed(&files, PackKind::Config).unwrap(), expected);
    }

    #[test]
    fn keys_are_sorted_as_circleci_sorts_them() {
        let mut keys = vec!["b10", "b9", "GOTESTARCH", "GOTEST_MOD", "b", "a-b", "ab", "b09"];
        keys.sort_by(|left, right| natural(left, right));
        assert_eq!(keys, ["GOTEST_MOD", "GOTESTARCH", "a-b", "ab", "b", "b9", "b09", "b10"]);
    }

    #[test]
    fn a_file_can_use_anchors_of_other_files() {
        let files = [
            ("commands/a.yml", "description: *text\n"),
            ("z/@anchors.yml", "one: &text some text\n"),
        ];
        let out = packed(&files, PackKind::Config).unwrap();
        assert_eq!(
            out,
            "commands:\n  a:\n    description: some text\nz:\n  one: some text\n"
        );
        let unknown = packed(&files[..1], PackKind::Config).unwrap_err();
        assert!(unknown[0].contains("text"), "{unknown:?}");
    }

    #[test]
    fn included_scripts_have_their_here_documents_escaped() {
        let files = [
            ("@orb.yml", "version: 2.1\n"),
            (
                "commands/x/greet.yml",
                "steps:\n  - run: << include(scripts/greet.sh) >>\n  - run: a << parameters.b >>\n  - run: <<include(../shared.sh)>>\n",
            ),
            ("../shared.sh", "make all\n"),
            ("scripts/greet.sh", "cat <<EOF\nhello\nEOF\n"),
        ];
        let out = packed(&files, PackKind::Orb).unwrap();
        assert!(
            out.contains("greet:\n    steps:\n    - run: |\n        cat \\<<EOF\n"),
            "{out}"
        );
        assert!(out.contains("- run: a << parameters.b >>"), "{out}");
        assert!(out.contains("- run: |\n        make all\n"), "{out}");
        let missing = packed(&files[..3], PackKind::Orb).unwrap_err();
        assert_eq!(
            missing,
            ["`commands/x/greet.yml` includes `scripts/greet.sh`, which is not there"]
        );
    }
}
