//! The JSON Schema accepts valid configurations and refuses invalid ones.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use serde_json::{Value, json};
use std::{fs, path::Path};
use towpath_config::{CompileOptions, Document, SCHEMA, compile};
use towpath_yaml::{Diagnostic, ParseOptions, ScalarRules, SourceFile, parse};

fn schema() -> jsonschema::Validator {
    jsonschema::draft7::new(&serde_json::from_str(SCHEMA).unwrap()).unwrap()
}

fn data(text: &str) -> Value {
    let (documents, _) = parse(&SourceFile::new("config.yml", text), &ParseOptions::default());
    documents
        .first()
        .map_or(Value::Null, |node| node.to_json(ScalarRules::CircleCi))
}

fn complaints(schema: &jsonschema::Validator, config: &Value) -> Vec<String> {
    let errors = schema.iter_errors(config);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

#[test]
fn valid_configurations_pass() {
    let schema = schema();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/configs");
    let mut files = common::entries(&own);
    for part in ["configs", "oracle/generated-configs"] {
        files.extend(common::part(part).into_iter().flat_map(|part| common::entries(&part)));
    }
    let (mut read, mut wrong) = (0, Vec::new());
    for path in files {
        let yaml = path.extension().is_some_and(|end| end == "yml");
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let (_, diagnostics) = compile(
            &Document::parse("config.yml", text.as_str()),
            &CompileOptions::default(),
        );
        let other = |found: &&Diagnostic| found.is_error() && found.code != "config::unknown-orb";
        if !yaml || diagnostics.iter().any(|found| other(&found)) {
            continue;
        }
        // An unknown key is a warning of the compiler, but the schema refuses it.
        if diagnostics.iter().any(|found| found.code == "config::unknown-key") {
            continue;
        }
        read += 1;
        let said = complaints(&schema, &data(&text));
        if let Some(first) = said.first() {
            wrong.push(format!(
                "{}: {}",
                common::name(&path),
                first.chars().take(300).collect::<String>()
            ));
        }
    }
    println!("schema: {read} configurations pass");
    assert!(wrong.is_empty(), "{} of {read}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(read > 3);
}

#[test]
fn invalid_configurations_do_not_pass() {
    let schema = schema();
    let job = json!({ "docker": [{ "image": "a" }], "steps": ["checkout"] });
    let good = json!({ "version": 2.1, "jobs": { "build": job } });
    assert_eq!(complaints(&schema, &good), Vec::<String>::new());
    let with = |pointer: &str, value: Value| {
        let mut config = good.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[key] = value;
        config
    };
    let steps = |steps: Value| with("/jobs/build/steps", steps);
    let run = |more: Value| {
        let mut run = json!({ "command": "x" });
        run.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        steps(json!([{ "run": run }]))
    };
    let invoked = |invocation: Value| with("/workflows", json!({ "w": { "jobs": [{ "build": invocation }] } }));
    let right = [
        steps(json!(["checkout", [{ "run": "x" }]])),
        steps(json!([{ "persist_to_workspace": { "root": ".", "path": "bin" } }])),
        steps(json!([{ "when": { "condition": true, "steps": "checkout" } }])),
        steps(json!([{ "unless": { "condition": true, "steps": { "run": "x" } } }])),
        steps(json!([{ "with_tool_cache": { "tool": "gradle", "steps": ["checkout"] } }])),
        steps(json!([{ "setup_remote_docker": { "when": "always" } }, { "add_ssh_keys": { "when": "always" } }])),
        run(json!({ "teardown": [{ "run": "y" }, { "save_cache": { "key": "k", "paths": "p" } }] })),
        run(json!({ "max_auto_reruns": 2, "auto_rerun_delay": "30s" })),
        with("/jobs/build/machine", json!({ "image": "a", "code_signing": ["b"] })),
        with("/jobs/build/resource_class", json!("namespace/Name")),
        with("/jobs/build/resource_class", json!("medium+")),
        with(
            "/jobs/build",
            json!({ "type": "release", "plan_name": "p", "validation": { "enabled": true } }),
        ),
        with("/executors", json!({ "sized": { "resource_class": "large" } })),
        invoked(json!({ "filters": { "pull_requests": { "only": "main" } } })),
    ];
    for config in right {
        assert_eq!(complaints(&schema, &config), Vec::<String>::new(), "{config}");
    }
    let wrong = [
        steps(json!([{ "persist_to_workspace": { "root": "." } }])),
        steps(json!([{ "save_cache": { "key": "", "paths": "p" } }])),
        steps(json!([{ "with_tool_cache": { "cache": true, "steps": [] } }])),
        run(json!({ "teardown": [{ "restore_cache": { "key": "k" } }] })),
        run(json!({ "teardown": [{ "run": { "command": "y", "background": true } }] })),
        run(json!({ "auto_rerun_delay": "30s" })),
        run(json!({ "max_auto_reruns": 2, "background": true })),
        with(
            "/jobs/build/docker",
            json!([{ "image": "a", "auth": { "username": "x" } }]),
        ),
        with(
            "/jobs/build/docker",
            json!([{ "image": "a", "aws_auth": { "aws_access_key_id": "x" } }]),
        ),
        with("/jobs/build/resource_class", json!("my-namespace/my class")),
        with("/executors", json!({ "myExec": { "docker": [{ "image": "a" }] } })),
        with("/commands", json!({ "otherCommand": { "steps": ["checkout"] } })),
        with(
            "/workflows",
            json!({ "w": { "when": true, "unless": false, "jobs": ["build"] } }),
        ),
        invoked(json!({ "name": "  " })),
        invoked(json!({ "filters": { "commits": {} } })),
        with("/version", json!(3)),
        with("/jobs", json!([])),
        with("/jobs/build/stepps", json!([])),
        with("/jobs/build/docker", json!([])),
        with("/jobs/build/docker", json!([{ "imag": "a" }])),
        with("/jobs/build/steps", json!([{ "run": { "comand": "x" } }])),
        with("/jobs/build/steps", json!([{ "run": "x", "when": "always" }])),
        with("/jobs/build/steps", json!([{ "save_cache": { "key": "x" } }])),
        with("/jobs/build/parallelism", json!("two")),
        with("/jobs/build/parameters", json!({ "x": { "type": "text" } })),
        with("/parameters", json!({ "x": { "type": "steps" } })),
        with(
            "/workflows",
            json!({ "w": { "jobs": [{ "build": { "requires": [{ "a": "done" }] } }] } }),
        ),
        with("/workflows", json!({ "w": { "job": [] } })),
    ];
    for config in wrong {
        assert!(!complaints(&schema, &config).is_empty(), "{config}");
    }
}
