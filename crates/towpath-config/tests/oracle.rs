//! Compares what this compiler prints with what CircleCI printed.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod common;

use common::{PublicOrbs, folders, name};
use serde_json::Value;
use std::collections::BTreeMap;
use std::{fs, path::Path};
use towpath_config::{Capabilities, Document, PackKind, lint, pack, process};
use towpath_yaml::{Diagnostic, ParseOptions, ScalarRules, SourceFile, parse, render_all};

/// The data of a YAML text.
fn data(text: &str) -> Value {
    let (documents, _) = parse(&SourceFile::new("data.yml", text), &ParseOptions::default());
    documents
        .first()
        .map_or(Value::Null, |node| node.to_json(ScalarRules::CircleCi))
}

/// The output without the comments and blank lines that CircleCI's command line adds.
fn body(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let joined: Vec<&str> = lines.collect();
    format!("{}\n", joined.join("\n"))
}

/// Removes the keys that differ between versions of CircleCI's compiler.
fn ageless(mut document: Value) -> Value {
    if let Some(document) = document.as_object_mut() {
        document.remove("version");
        document.remove("setup");
        if let Some(workflows) = document.get_mut("workflows").and_then(Value::as_object_mut) {
            workflows.remove("version");
        }
    }
    document
}

/// The path and the values of the first difference between two trees.
fn difference(path: &str, left: &Value, right: &Value) -> Option<String> {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            for (key, value) in left {
                let path = format!("{path}/{key}");
                match right.get(key) {
                    Some(other) => {
                        if let Some(found) = difference(&path, value, other) {
                            return Some(found);
                        }
                    }
                    None => return Some(format!("{path} is only in ours: {value}")),
                }
            }
            let missing = right.iter().find(|(key, _)| !left.contains_key(*key));
            missing.map(|(key, value)| format!("{path}/{key} is missing: {value}"))
        }
        (Value::Array(left), Value::Array(right)) => {
            for (at, (one, other)) in left.iter().zip(right).enumerate() {
                if let Some(found) = difference(&format!("{path}[{at}]"), one, other) {
                    return Some(found);
                }
            }
            (left.len() != right.len()).then(|| format!("{path} has {} items, not {}", left.len(), right.len()))
        }
        (left, right) => (left != right).then(|| format!("{path}: {left} is not {right}")),
    }
}

enum Outcome {
    Identical,
    SameData(String),
    Differs(String),
    OrbMissing,
}

fn compare(folder: &Path, orbs: &PublicOrbs) -> Option<Outcome> {
    let (input, expected) = (folder.join("input.yml"), folder.join("expected.yml"));
    if !input.is_file() || !expected.is_file() {
        return None;
    }
    let document = Document::parse("config.yml", fs::read_to_string(input).unwrap());
    let expected = body(&fs::read_to_string(expected).unwrap());
    let (processed, diagnostics) = process(&document, &orbs.options(&document));
    let Some((_, text)) = processed else {
        let errors: Vec<Diagnostic> = diagnostics.into_iter().filter(Diagnostic::is_error).collect();
        let missing = errors.iter().all(|error| error.message.contains("unknown orb"));
        return Some(match missing {
            true => Outcome::OrbMissing,
            false => Outcome::Differs(render_all(&errors, false)),
        });
    };
    let text = body(&text);
    if text == expected {
        return Some(Outcome::Identical);
    }
    let (ours, theirs) = (ageless(data(&text)), ageless(data(&expected)));
    Some(match difference("", &ours, &theirs) {
        Some(found) => Outcome::Differs(found),
        None => {
            let line = text.lines().zip(expected.lines()).find(|(ours, theirs)| ours != theirs);
            Outcome::SameData(format!("{line:?}"))
        }
    })
}

fn pairs(part: &str, least_identical: usize, known: &[(&str, &str)]) {
    let (Some(folder), Some(orbs)) = (common::part(part), PublicOrbs::read()) else {
        return;
    };
    let (mut read, mut identical, mut same, mut without_orb) = (0, 0, 0, 0);
    let mut wrong = Vec::new();
    let verbose = std::env::var_os("TOWPATH_ORACLE").is_some();
    for folder in folders(&folder) {
        let name = name(&folder);
        let Some(outcome) = compare(&folder, &orbs) else {
            continue;
        };
        read += 1;
        match outcome {
            Outcome::Identical => identical += 1,
            Outcome::SameData(line) => {
                same += 1;
                if verbose {
                    println!("same data, different text: {name}: {line}");
                }
            }
            Outcome::OrbMissing => without_orb += 1,
            Outcome::Differs(_) if known.iter().any(|(known, _)| *known == name) => {}
            Outcome::Differs(why) => wrong.push(format!("{name}: {why}")),
        }
    }
    println!(
        "{part}: read {read} pairs: {identical} identical, {same} equal as data, {without_orb} need an orb that is not public"
    );
    assert!(
        wrong.is_empty(),
        "{} of {read} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(
        read > 0 && identical >= least_identical,
        "{identical} of {read} are identical"
    );
}

#[test]
fn configurations_are_processed_as_circleci_does() {
    pairs("oracle/process-pairs", 20, &[]);
}

#[test]
fn packed_configurations_are_processed_as_circleci_does() {
    pairs("oracle/process-pairs-packed", 21, &[]);
}

#[test]
fn compiled_configurations_compile_to_themselves() {
    let Some(orbs) = PublicOrbs::read() else { return };
    let mut files = Vec::new();
    for part in ["configs", "oracle/docs-snippets", "oracle/generated-configs"] {
        files.extend(common::part(part).into_iter().flat_map(|part| common::entries(&part)));
    }
    for part in ["oracle/process-pairs", "oracle/process-pairs-packed"] {
        let folders = common::part(part).into_iter().flat_map(|part| folders(&part));
        files.extend(folders.map(|folder| folder.join("input.yml")));
    }
    let mut compared = 0;
    for path in files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "yml"))
    {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let document = Document::parse("config.yml", text);
        let options = orbs.options(&document);
        let (Some((config, once)), _) = process(&document, &options) else {
            continue;
        };
        if config.workflows.is_empty() {
            // A configuration without workflows is refused when it is compiled again.
            continue;
        }
        let (again, diagnostics) = process(&Document::parse("compiled.yml", once.as_str()), &options);
        let Some((_, twice)) = again else {
            panic!(
                "{}: the result does not compile:\n{}",
                path.display(),
                render_all(&diagnostics, false)
            );
        };
        assert_eq!(body(&twice), body(&once), "{}", path.display());
        compared += 1;
    }
    println!("compiled {compared} configurations twice");
    assert!(compared > 200, "{compared}");
}

/// Whether two messages report the same error. The language server has its own messages for arguments and settings.
fn same_error(ours: &str, theirs: &str) -> bool {
    let list = |prefix: &str, word: &str| {
        let ours = ours.strip_prefix(prefix)?;
        let (name, _) = theirs.strip_prefix("Parameter ")?.split_once(word)?;
        Some(ours.split(", ").any(|given| given == name))
    };
    let same = ours.replace(" in config v2.1+", "") == theirs;
    same || list("Arguments referenced without declared parameters: ", " is not defined").unwrap_or_default()
        || list("Missing required argument(s): ", " is required for ").unwrap_or_default()
        || list("Unexpected argument(s): ", " is not defined for ").unwrap_or_default()
        || [", but parameter ", ": parameter "].iter().any(|tail| {
            let head = theirs.split(tail).next().unwrap_or_default();
            head != theirs && (ours.starts_with(head) || head.ends_with(ours))
        })
}

#[test]
fn errors_are_those_that_the_language_server_reports() {
    let (Some(folder), Some(orbs)) = (common::part("oracle/language-server"), PublicOrbs::read()) else {
        return;
    };
    let cases = data(&fs::read_to_string(folder.join("newest-cases.yml")).unwrap());
    let mut wrong = Vec::new();
    let mut read = 0;
    for case in cases.as_array().unwrap() {
        let Some(config) = case["config"].as_str() else {
            continue;
        };
        read += 1;
        let document = Document::parse("config.yml", config);
        let options = orbs.options(&document);
        let (_, diagnostics) = process(&document, &options);
        let ours: Vec<&str> = diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.is_error())
            .map(|diagnostic| diagnostic.message.as_str())
            .collect();
        let expected = |key: &str| -> Vec<&str> {
            let messages = case[key].as_array().into_iter().flatten();
            messages.filter_map(Value::as_str).collect()
        };
        let theirs = expected("errors");
        let missing: Vec<&&str> = theirs
            .iter()
            .filter(|theirs| !ours.iter().any(|ours| same_error(ours, theirs)))
            .collect();
        let extra: Vec<&&str> = ours
            .iter()
            .filter(|ours| !theirs.iter().any(|theirs| same_error(ours, theirs)))
            .collect();
        // Warnings about parts that do not run come from linting.
        let warnings = lint(&document, &options, &Capabilities::default(), None);
        let missing_warnings = expected("warnings");
        let missing_warnings: Vec<&&str> = missing_warnings
            .iter()
            .filter(|theirs| !warnings.iter().any(|ours| !ours.is_error() && ours.message == **theirs))
            .collect();
        if !missing.is_empty() || !extra.is_empty() || !missing_warnings.is_empty() {
            wrong.push(format!(
                "{}:\n  missing errors {missing:#?}\n  extra errors {extra:#?}\n  missing warnings {missing_warnings:#?}",
                case["id"]
            ));
        }
    }
    println!("language-server: read {read} cases");
    assert!(wrong.is_empty(), "{} of {read}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(read > 25);
}

/// The value at `.jobs["a b"].steps[4].run.command`, or with `| length` its length.
fn at(document: &Value, path: &str) -> Value {
    let (path, length) = match path.split_once(" | ") {
        Some((path, "length")) => (path, true),
        Some((_, other)) => panic!("this test does not know `{other}`"),
        None => (path, false),
    };
    let mut value = document.clone();
    for part in path.split(['.', '[', ']']).filter(|part| !part.is_empty()) {
        value = match part.parse::<usize>() {
            Ok(number) => value[number].clone(),
            Err(_) => value[part.trim_matches('"')].clone(),
        };
    }
    match (length, &value) {
        (true, Value::Array(items)) => items.len().into(),
        (true, Value::Object(map)) => map.len().into(),
        _ => value,
    }
}

/// The compiled data. `None` if an orb is not public.
fn compiled(text: &str, orbs: &PublicOrbs) -> Option<Value> {
    let document = Document::parse("config.yml", text);
    let (processed, diagnostics) = process(&document, &orbs.options(&document));
    match processed {
        Some((_, text)) => Some(data(&text)),
        None if diagnostics
            .iter()
            .any(|diagnostic| diagnostic.code == "config::unknown-orb") =>
        {
            None
        }
        None => panic!("it does not compile:\n{}", render_all(&diagnostics, false)),
    }
}

/// Inputs that do not fit the current source of their orb: they pass arguments that it no longer has, or expect a variable
/// that it no longer sets.
const STALE: &[&str] = &[
    "queue__command-script-will-consider-branch__8c4c496",
    "queue__command-script-will-not-wait-with-previous-job-of-non-matchi__8c4c496",
    "queue__command-script-will-proceed-with-no-previous-jobs__8c4c496",
    "queue__command-script-will-wait-with-previous-job-of-similar-name-u__8c4c496",
    "queue__command-server-hostname-is-respected-by-command__91399ac",
    "queue__race-condition-on-previous-workflow-does-not-fool-us__8c4c496",
];

/// Texts of an orb whose source had no line break at the end when the result was recorded, and has one today.
const ENDED_WITHOUT_BREAK: &[(&str, &str)] = &[
    (
        "artifactory__job-docker-job-with-steps-matches-expected-configuration__34f5bfd",
        "/jobs/Docker Publish/steps/1/run/command",
    ),
    (
        "artifactory__job-docker-job-with-steps-matches-expected-configuration__ff51876",
        "/jobs/Docker Publish/steps/1/run/command",
    ),
    (
        "artifactory__job-job-without-spec-generates-valid-config__34f5bfd",
        "/jobs/Test Upload/steps/1/run/command",
    ),
    (
        "artifactory__job-job-without-spec-generates-valid-config__ff51876",
        "/jobs/Test Upload/steps/1/run/command",
    ),
];

#[test]
fn orbs_expand_as_their_authors_expect() {
    let (Some(folder), Some(orbs)) = (common::part("oracle/orb-expansion-tests"), PublicOrbs::read()) else {
        return;
    };
    let mut read = 0;
    for folder in folders(&folder) {
        let file = |name: &str| fs::read_to_string(folder.join(name)).ok();
        if STALE.contains(&name(&folder).as_str()) {
            continue;
        }
        let Some(ours) = compiled(&file("input.yml").unwrap(), &orbs) else {
            continue;
        };
        read += 1;
        if let Some(expected) = file("expected.yml") {
            let (mut ours, theirs) = (ageless(ours.clone()), ageless(data(&expected)));
            for (case, path) in ENDED_WITHOUT_BREAK {
                let text = ours.pointer_mut(path).filter(|_| *case == name(&folder));
                if let Some(text) = text {
                    *text = text.as_str().unwrap().strip_suffix('\n').unwrap().into();
                }
            }
            let difference = difference("", &ours, &theirs);
            assert_eq!(difference, None, "{}", folder.display());
        }
        let assertions = file("assertions.json").map_or(Value::Null, |text| serde_json::from_str(&text).unwrap());
        for assertion in assertions.as_array().into_iter().flatten() {
            let found = at(&ours, assertion["jq"].as_str().unwrap());
            let found = found.as_str().map_or_else(|| found.to_string(), str::to_string);
            let expected = assertion["value"].as_str().unwrap();
            let holds = match assertion["op"].as_str().unwrap() {
                "contains" => found.contains(expected),
                _ => found == expected,
            };
            assert!(holds, "{}: {assertion}: {found}", folder.display());
        }
    }
    println!("orb-expansion-tests: read {read}");
    assert!(read > 0);
}

#[test]
fn members_of_a_matrix_have_the_names_that_circleci_gives_them() {
    let (Some(folder), Some(orbs)) = (common::part("oracle/matrix-names"), PublicOrbs::read()) else {
        return;
    };
    let cases: Value = serde_json::from_str(&fs::read_to_string(folder.join("cases.json")).unwrap()).unwrap();
    let cases = cases["cases"].as_array().unwrap();
    for case in cases {
        let parameters: serde_json::Map<String, Value> = case["invocation"]["test"]["matrix"]["parameters"]
            .as_object()
            .unwrap()
            .keys()
            .filter(|name| *name != "name")
            .map(|name| (name.clone(), serde_json::json!({"type": "string", "default": ""})))
            .collect();
        // JSON is YAML.
        let config = serde_json::json!({
            "version": 2.1,
            "jobs": {"test": {"docker": [{"image": "a"}], "parameters": parameters, "steps": ["checkout"]}},
            "workflows": {"w": {"jobs": [case["invocation"]]}},
        });
        let ours = compiled(&config.to_string(), &orbs).unwrap();
        let jobs = ours["workflows"]["w"]["jobs"].as_array().unwrap();
        let names: Vec<&Value> = jobs.iter().collect();
        assert_eq!(serde_json::json!(names), case["names"], "{}", case["why"]);
    }
    println!("matrix-names: read {}", cases.len());
}

fn files_below(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![folder.to_path_buf()];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(common::entries(&path));
        } else if let Ok(text) = fs::read_to_string(&path) {
            let name = path.strip_prefix(folder).unwrap().to_string_lossy();
            // The corpus stores `name.sh` as `name.sh.txt`.
            found.insert(
                name.strip_suffix(".sh.txt")
                    .map_or(name.to_string(), |stem| format!("{stem}.sh")),
                text,
            );
        }
    }
    found
}

#[test]
fn folders_are_packed_as_circleci_packs_them() {
    let Some(folder) = common::part("oracle/pack") else {
        return;
    };
    let mut read = 0;
    for folder in folders(&folder) {
        let name = name(&folder);
        let Ok(expected) = fs::read_to_string(folder.join("result.yml")) else {
            continue;
        };
        // The folder to pack is the outermost one that contains YAML.
        let mut packed = folder.clone();
        while let [only] = &folders(&packed)[..] {
            let here = common::entries(&packed).iter().any(|path| {
                path.is_file() && path.extension().is_some_and(|end| end == "yml") && common::name(path) != "result.yml"
            });
            if here {
                break;
            }
            packed = only.clone();
        }
        let kind = match name.contains("orb-pack") {
            true => PackKind::Orb,
            false => PackKind::Config,
        };
        let mut files = files_below(&packed);
        files.remove("result.yml");
        if files.is_empty() {
            // This case is not about packing.
            continue;
        }
        let include = |name: &str| files.get(name).cloned().ok_or_else(|| "which is not there".to_owned());
        match pack(&files, kind, &include) {
            Ok(text) => {
                read += 1;
                let difference = difference("", &data(&text), &data(&expected));
                assert_eq!(difference, None, "{name}");
            }
            Err(errors) => panic!("{name}: {}", render_all(&errors, false)),
        }
    }
    println!("pack: read {read} folders");
}

#[test]
fn packed_sources_are_processed_as_circleci_does() {
    let (Some(folder), Some(orbs)) = (common::part("oracle/process-pairs-packed"), PublicOrbs::read()) else {
        return;
    };
    let (mut same_input, mut same_output, mut read) = (0, 0, 0);
    let mut wrong = Vec::new();
    for folder in folders(&folder) {
        let files = files_below(&folder.join("source"));
        if files.is_empty() {
            continue;
        }
        read += 1;
        let packed = match pack(&files, PackKind::Config, &|name| unreachable!("{name}")) {
            Ok(packed) => packed,
            Err(errors) => panic!("{}: {}", folder.display(), render_all(&errors, false)),
        };
        if let Ok(input) = fs::read_to_string(folder.join("input.yml")) {
            assert_eq!(
                difference("", &data(&packed), &data(&input)),
                None,
                "{}",
                folder.display()
            );
            same_input += 1;
            continue;
        }
        let Some(ours) = compiled(&packed, &orbs) else { continue };
        let theirs = data(&fs::read_to_string(folder.join("expected.yml")).unwrap());
        match difference("", &ageless(ours), &ageless(theirs)) {
            None => same_output += 1,
            // The output has fewer jobs than the source, so it belongs to another commit.
            Some(_) if name(&folder) == "hashicorp__nomad__12c3bbae" => {}
            Some(found) => wrong.push(format!("{}: {found}", name(&folder))),
        }
    }
    println!("packed sources: read {read}: {same_input} pack to CircleCI's input, {same_output} process to its output");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
