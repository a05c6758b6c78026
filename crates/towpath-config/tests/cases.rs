//! CircleCI's own small cases: the examples of its documentation, its error messages, and the test files of its language
//! server and its compiler.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod common;

use common::PublicOrbs;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, path::Path};
use towpath_config::{CompileOptions, Document, PackKind, compile, pack, process};
use towpath_yaml::{Diagnostic, ParseOptions, ScalarRules, SourceFile, parse, render_all};

fn data(text: &str) -> Value {
    let (documents, _) = parse(&SourceFile::new("data.yml", text), &ParseOptions::default());
    documents
        .first()
        .map_or(Value::Null, |node| node.to_json(ScalarRules::CircleCi))
}

/// Completes a fragment of the documentation to a configuration.
fn completed(mut config: Value) -> Value {
    if config.get("version").is_none() {
        config["version"] = json!(2.1);
    }
    let names: Vec<String> = config["jobs"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.clone())
        .collect();
    for job in names.iter().map(String::as_str) {
        if config["jobs"][job].get("steps").is_none() {
            config["jobs"][job]["steps"] = json!(["checkout"]);
        }
    }
    let mut jobs = serde_json::Map::new();
    for (_, workflow) in config["workflows"].as_object().into_iter().flatten() {
        for item in workflow["jobs"].as_array().into_iter().flatten() {
            let Some((name, body)) = item.as_object().and_then(|item| item.iter().next()) else {
                continue;
            };
            let parameters = body["matrix"]["parameters"].as_object().into_iter().flatten();
            let declared: serde_json::Map<String, Value> = parameters
                .map(|(name, values)| {
                    let kind = if values[0].is_number() { "integer" } else { "string" };
                    (name.clone(), json!({ "type": kind }))
                })
                .collect();
            jobs.insert(
                name.clone(),
                json!({ "docker": [{ "image": "a" }], "steps": ["checkout"], "parameters": declared }),
            );
        }
    }
    if config.get("jobs").is_none() && config.get("orbs").is_none() {
        config["jobs"] = Value::Object(jobs);
    }
    config
}

/// Checks that `whole` contains `part`. An environment may be a map in one and a list in the other.
fn holds(whole: &Value, part: &Value, path: &str) -> Result<(), String> {
    match (whole, part) {
        (Value::Array(items), Value::Object(_)) if path.ends_with(".environment") => {
            let map: serde_json::Map<String, Value> = items
                .iter()
                .filter_map(Value::as_object)
                .flat_map(|item| item.clone())
                .collect();
            holds(&Value::Object(map), part, path)
        }
        (_, Value::Array(items)) if items.is_empty() && path.ends_with(".steps") => Ok(()),
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .filter(|(key, _)| *key != "version")
            .try_for_each(|(key, part)| holds(whole.get(key).unwrap_or(&Value::Null), part, &format!("{path}.{key}"))),
        (Value::Array(whole), Value::Array(part)) if whole.len() == part.len() => {
            let mut pairs = whole.iter().zip(part).enumerate();
            pairs.try_for_each(|(at, (whole, part))| holds(whole, part, &format!("{path}[{at}]")))
        }
        // The short form of a step.
        (Value::Object(whole), Value::String(text)) if whole.get("command") == Some(&json!(text)) => Ok(()),
        _ if whole == part => Ok(()),
        _ => Err(format!("{path}: {whole} and not {part}")),
    }
}

#[test]
fn examples_of_the_documentation_expand_as_documented() {
    let Some(folder) = common::part("oracle/docs-expansions") else {
        return;
    };
    let cases = data(&fs::read_to_string(folder.join("cases.yml")).unwrap());
    let mut wrong = Vec::new();
    let mut compared = 0;
    for case in cases.as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        let known = [
            // Describes results that other tests compare.
            "slack-on-hold-and-real-matrix-names",
            // In one line of YAML the command ends at the comma.
            "orb-job-process-output",
        ];
        if known.contains(&id) {
            continue;
        }
        compared += 1;
        let after = data(case["after"].as_str().unwrap_or_default());
        if let Some(files) = case["files"].as_object() {
            let files: BTreeMap<String, String> = files
                .iter()
                .map(|(path, text)| {
                    (
                        path.trim_start_matches("foo/").to_owned(),
                        text.as_str().unwrap().to_owned(),
                    )
                })
                .collect();
            let packed = data(&pack(&files, PackKind::Config, &|name| unreachable!("{name}")).unwrap());
            if packed != after {
                wrong.push(format!("{id}: {packed}"));
            }
            continue;
        }
        let config = completed(data(case["before"].as_str().unwrap()));
        let text = towpath_yaml::emit(&config);
        let (processed, diagnostics) = process(&Document::parse(id.to_owned(), text), &CompileOptions::default());
        let Some((config, printed)) = processed else {
            wrong.push(render_all(&diagnostics, false));
            continue;
        };
        let names: Vec<&str> = config.workflows[0].jobs.iter().map(|job| job.name.as_str()).collect();
        if let Some(wanted) = case["after-names"].as_array() {
            // The values in a name have the order of the declaration, but the documentation sorts the parameters.
            let parts = |name: &str| {
                let mut parts: Vec<String> = name.split('-').map(str::to_owned).collect();
                parts.sort();
                parts
            };
            let mut ours: Vec<_> = names.iter().map(|name| parts(name)).collect();
            let mut theirs: Vec<_> = wanted.iter().map(|name| parts(name.as_str().unwrap())).collect();
            ours.sort();
            theirs.sort();
            if ours != theirs {
                wrong.push(format!("{id}: {names:?}"));
            }
        }
        if let Some(count) = case["after-count"].as_u64()
            && names.len() as u64 != count
        {
            wrong.push(format!("{id}: {} members", names.len()));
        }
        if id == "matrix-values-in-name-and-requires" {
            let requires: Vec<_> = config.workflows[0]
                .jobs
                .iter()
                .map(|job| (&*job.name, job.requires.first().map(|own| &*own.job)))
                .collect();
            let wanted = [
                ("build-v0.1", None),
                ("build-v0.2", None),
                ("deploy-v0.1", Some("build-v0.1")),
                ("deploy-v0.2", Some("build-v0.2")),
            ];
            if requires != wanted {
                wrong.push(format!("{id}: {requires:?}"));
            }
            continue;
        }
        let printed = data(&printed);
        let whole = match after.get("steps") {
            Some(_) => json!({ "steps": printed["jobs"]["build"]["steps"] }),
            None => printed,
        };
        if !after.is_null()
            && let Err(difference) = holds(&whole, &after, "")
        {
            wrong.push(format!("{id}: {difference}"));
        }
    }
    println!("docs-expansions: compared {compared}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > 9);
}

/// People search for CircleCI's messages.
#[test]
fn errors_have_circlecis_messages() {
    let with = |rest: &str| format!("version: 2.1\n{rest}");
    let job = "{docker: [{image: a}], steps: [checkout]}";
    let cases = [
        (
            with("workflows: {module-a-workflow: {jobs: [common-pre]}}\njobs: {}\n"),
            "Error calling workflow: 'module-a-workflow'\nCannot find a definition for job named common-pre",
        ),
        (
            with(
                "jobs: {extra-compile-tests: {docker: [{image: a}], steps: [run: << parameters.usegrackle >>]}}\nworkflows: {tests: {jobs: [extra-compile-tests]}}\n",
            ),
            "Error calling workflow: 'tests'\nError calling job: 'extra-compile-tests'\nArguments referenced without declared parameters: usegrackle",
        ),
        (
            with(
                "commands: {upload: {parameters: {file-spec: {type: string}, target: {type: string}}, steps: [checkout]}}\njobs: {build: {docker: [{image: a}], steps: [upload]}}\n",
            ),
            "Missing required argument(s): file-spec, target",
        ),
        (
            with(&format!(
                "jobs: {{a: {job}}}\nworkflows: {{j: {{jobs: [a: {{requires: [does_not_exist]}}]}}}}\n"
            )),
            "Job 'a' requires 'does_not_exist', which is the name of 0 other jobs in workflow 'j'",
        ),
        (
            with(&format!(
                "jobs: {{test: {job}, bug: {job}}}\nworkflows: {{infra: {{jobs: [test, test, bug: {{requires: [test]}}]}}}}\n"
            )),
            "Job 'bug' requires 'test', which is the name of 2 other jobs in workflow 'infra'",
        ),
        (
            with(&format!(
                "jobs: {{a: {job}}}\nworkflows: {{w: {{when: false, jobs: [a]}}}}\n"
            )),
            "All Workflows have been filtered from this Pipeline.",
        ),
        (
            with(&format!("jobs: {{a: {job}}}\n")),
            "There are no workflows or build jobs in the config.",
        ),
        (
            with(
                "parameters: {bug: {type: string, default: x}}\norbs: {buggy-orb: {jobs: {exhibit-bug: {docker: [{image: a}], steps: [run: << pipeline.parameters.bug >>]}}}}\nworkflows: {build-test-deploy-bug: {jobs: [buggy-orb/exhibit-bug]}}\n",
            ),
            "Error calling workflow: 'build-test-deploy-bug'\nError calling job: 'buggy-orb/exhibit-bug'\nReferred to a variable \"pipeline.parameters.bug\" that does not exist:\n<< pipeline.parameters.bug >>\n ^^^^^^^^^^^^^^^^^^^^^^^",
        ),
        (
            with("orbs: {o: myorg/unknown@1.0.0}\njobs: {build: {machine: true, steps: [checkout]}}\n"),
            "unknown orb 'myorg/unknown@1.0.0'",
        ),
        (
            with(
                "jobs: {build: {machine: true, steps: [c: {X: \"true\"}]}}\ncommands: {c: {parameters: {X: {type: boolean}}, steps: [checkout]}}\n",
            ),
            "Type error for argument X: expected type: boolean, actual value: \"true\" (type string)",
        ),
        (
            with(
                "jobs: {build: {machine: true, steps: [c]}}\ncommands: {c: {parameters: {x: {type: boolean, default: \"on\"}}, steps: [checkout]}}\n",
            ),
            "Parameter error: default value of parameter 'x' is 'on' (type string): expected type boolean",
        ),
        (
            with("jobs: {build: {machine: true, steps: [c: {a: 1, b: 2}]}}\ncommands: {c: {steps: [checkout]}}\n"),
            "Unexpected argument(s): a, b",
        ),
        (
            with("jobs: {build: {machine: true, steps: [run: \"cat <<EOF\"]}}\n"),
            "Unclosed '<<' tag ('<<' must be escaped as '\\<<' in config v2.1+)",
        ),
        (
            with("jobs:\n  build:\n    machine: true\n    steps:\n      - run:\n        command: x\n"),
            "a step must have one key, but this one has 2",
        ),
        (
            with("commands: {c: {steps: [c]}}\njobs: {build: {machine: true, steps: [c]}}\n"),
            "Infinite loop detected: command c calls itself",
        ),
    ];
    for (text, wanted) in cases {
        let (_, diagnostics) = compile(
            &Document::parse("config.yml", text.as_str()),
            &CompileOptions::default(),
        );
        let messages: Vec<String> = diagnostics.iter().map(Diagnostic::full_message).collect();
        let found = messages.iter().any(|message| message.contains(wanted));
        assert!(found, "{text}\nno message contains {wanted:?}: {messages:#?}");
    }
}

fn errors(text: &str, orbs: &PublicOrbs) -> Vec<Diagnostic> {
    let document = Document::parse("config.yml", text);
    let (_, diagnostics) = compile(&document, &orbs.options(&document));
    diagnostics.into_iter().filter(Diagnostic::is_error).collect()
}

#[test]
fn the_language_servers_cases_are_accepted_and_refused_alike() {
    let (Some(folder), Some(orbs)) = (common::part("oracle/language-server"), PublicOrbs::read()) else {
        return;
    };
    let cases: Value = serde_json::from_str(&fs::read_to_string(folder.join("cases.json")).unwrap()).unwrap();
    // The language server checks only a part of these files, and the rest is wrong: the message for each.
    let known = BTreeMap::from([
        ("Should work on jobs", "has no `steps`"),
        ("Should work on jobs with parameter", "has no `steps`"),
        // The language server does not check the statuses.
        (
            "Mix of terminal and non-terminal statuses - no hint",
            "`unknown` is not a status",
        ),
        // The language server cannot tell which jobs these are. The job that requires them has no matrix.
        (
            "Requires with matrix partial reference is allowed",
            "\"matrix.os\" that does not exist",
        ),
        ("Local orb with job", "unknown version of the language"),
    ]);
    let (mut fine, mut refused, mut fragments) = (0, 0, 0);
    let mut wrong = Vec::new();
    for case in cases.as_array().unwrap() {
        let text = case["yaml"].as_str().unwrap();
        let whole = text.contains("version:") && (text.contains("jobs:") || text.contains("workflows:"));
        let (test, name) = (case["test"].as_str().unwrap(), case["case"].as_str().unwrap());
        if !whole {
            fragments += 1;
            continue;
        }
        let found: Vec<Diagnostic> = errors(text, &orbs)
            .into_iter()
            .filter(|error| !matches!(error.code, "config::unknown-orb" | "config::no-workflow"))
            .collect();
        // In one table of tests only the names say what is expected.
        let severity = match name.starts_with("Invalid: ") {
            true => "error",
            false => case["severity"].as_str().unwrap(),
        };
        match (severity, found.first()) {
            // In newer tests this configuration is right, because the names differ.
            ("error", None) if name == "one invocation without name, one with name is an error (the nameless one)" => {
                fine += 1;
            }
            ("error", None) => wrong.push(format!(
                "{test} / {name}: accepted\n{text}\ntheirs: {}",
                case["messages"]
            )),
            ("hint/none" | "warning", Some(error))
                if known.get(name).is_some_and(|word| error.message.contains(word)) =>
            {
                fine += 1
            }
            ("hint/none" | "warning", Some(error)) => wrong.push(format!("{test} / {name}:\n{}", error.render(false))),
            ("error", Some(_)) => refused += 1,
            _ => fine += 1,
        }
    }
    println!("language-server cases: {fine} fine, {refused} refused, {fragments} fragments not read");
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

/// The names of files and folders say whether they are valid.
#[test]
fn the_language_servers_files_are_accepted_and_refused_alike() {
    let (Some(folder), Some(orbs)) = (common::part("oracle/language-server"), PublicOrbs::read()) else {
        return;
    };
    let mut files = Vec::new();
    let parts = [
        "compiler-testdata",
        "validate-testdata",
        "services-testdata",
        "test-files",
    ];
    for part in parts {
        collect(&folder.join(part), &mut files);
    }
    // These files test something else and do not compile: the message for each.
    let known = BTreeMap::from([
        (
            "compiler-testdata/simple-cases/config2.yml",
            "\"otherCommand\" isn't a valid command name",
        ),
        ("test-files/config2.yml", "\"otherCommand\" isn't a valid command name"),
        (
            "compiler-testdata/workflows_missing/build.yml",
            "There are no workflows or build jobs",
        ),
        (
            "services-testdata/anchorNoErrors.yml",
            "Unexpected argument(s): py_version",
        ),
        (
            "services-testdata/autocomplete1.yml",
            "\"dummyCommand\" isn't a valid command name",
        ),
        (
            "services-testdata/noErrors.yml",
            "Missing required argument(s): myparam",
        ),
        (
            "services-testdata/references.yml",
            "Missing required argument(s): tf_partition_path",
        ),
        ("services-testdata/schemaError.yml", "unknown version of the language"),
        ("test-files/diagnostic.yml", "does not say where it runs"),
        ("test-files/parameter-inline.yml", "command named test"),
        // These compile, but have mistakes that `lint` finds.
        ("test-files/invalid-files/autocomplete-jobs.yml", ""),
        ("test-files/invalid-files/unused-job.yml", ""),
        ("test-files/invalid-files/unused-orb.yml", ""),
    ]);
    let (mut fine, mut refused, mut wrong) = (0, 0, Vec::new());
    for path in &files {
        let shown = path.strip_prefix(&folder).unwrap().display().to_string();
        let Ok(text) = fs::read_to_string(path) else { continue };
        if shown.contains("/orb-registry/") || shown.contains("/orbs/") {
            continue;
        }
        let found: Vec<Diagnostic> = errors(&text, &orbs)
            .into_iter()
            .filter(|error| error.code != "config::unknown-orb")
            .collect();
        let meant_wrong = shown.contains("invalid") && !shown.contains("/valid_") || shown.contains("wrong_");
        match (meant_wrong, found.first()) {
            (_, Some(error)) if known.get(&*shown).is_some_and(|word| error.message.contains(word)) => refused += 1,
            (true, None) if known.get(&*shown) == Some(&"") => fine += 1,
            (true, None) => wrong.push(format!("{shown}: accepted")),
            (false, Some(error)) => wrong.push(format!("{shown}:\n{}", error.render(false))),
            (true, Some(_)) => refused += 1,
            (false, None) => fine += 1,
        }
    }
    println!("files: {fine} fine, {refused} refused");
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for path in common::entries(folder) {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|end| end == "yml") {
            files.push(path);
        }
    }
}
