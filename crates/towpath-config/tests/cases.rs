//! Small cases: the documentation's before and after, the original's wordings, and the files that its language server and
//! its compiler are tested with.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod common;

use common::Orbs;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, path::Path};
use towpath_config::{CompileOptions, PackKind, PipelineValues, compile, pack, process};
use towpath_yaml::{Diagnostic, ParseOptions, ScalarRules, SourceFile, parse, render_all};

fn data(text: &str) -> Value {
    let (documents, _) = parse(&SourceFile::new("data.yml", text), &ParseOptions::default());
    documents
        .first()
        .map_or(Value::Null, |node| node.to_json(ScalarRules::CircleCi))
}

/// The documentation shows fragments: what they leave out is put in.
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

/// Whether `whole` has everything that `part` says; an environment is a map in one and a list in the other.
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
fn the_documentations_examples_come_to_what_it_says() {
    let Some(folder) = common::part("oracle/docs-expansions") else {
        return;
    };
    let cases = data(&fs::read_to_string(folder.join("cases.yml")).unwrap());
    let mut wrong = Vec::new();
    let mut compared = 0;
    for case in cases.as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        let known = [
            // Words about outputs that other tests compare.
            "slack-on-hold-and-real-matrix-names",
            // Written as one line of YAML its command ends at the comma.
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
            let packed = data(&pack(&files, PackKind::Config).unwrap());
            if packed != after {
                wrong.push(format!("{id}: {packed}"));
            }
            continue;
        }
        let config = completed(data(case["before"].as_str().unwrap()));
        let text = towpath_yaml::emit(&config);
        let (processed, diagnostics) = process(&SourceFile::new(id.to_owned(), text), &CompileOptions::default());
        let Some((config, printed)) = processed else {
            wrong.push(render_all(&diagnostics, false));
            continue;
        };
        let names: Vec<&str> = config.workflows[0].jobs.iter().map(|job| job.name.as_str()).collect();
        if let Some(wanted) = case["after-names"].as_array() {
            // The order of values in a name is the declared one; the documentation sorts the parameters.
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

/// The wordings that people find in their search engines are the original's.
#[test]
fn mistakes_are_worded_as_the_original_words_them() {
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
            "a step has one key, and this one has 2",
        ),
        (
            with("commands: {c: {steps: [c]}}\njobs: {build: {machine: true, steps: [c]}}\n"),
            "Infinite loop detected: command c calls itself",
        ),
    ];
    for (text, wanted) in cases {
        let (_, diagnostics) = compile(
            &SourceFile::new("config.yml", text.as_str()),
            &CompileOptions::default(),
        );
        let said: Vec<String> = diagnostics.iter().map(Diagnostic::full_message).collect();
        let found = said.iter().any(|said| said.contains(wanted));
        assert!(found, "{text}\nnobody says {wanted:?}, but {said:#?}");
    }
}

fn errors(text: &str, orbs: &Orbs) -> Vec<Diagnostic> {
    let resolver = |reference: &str| orbs.resolve(reference);
    let options = CompileOptions {
        orbs: &resolver,
        ..CompileOptions::default()
    };
    let (_, diagnostics) = compile(&SourceFile::new("config.yml", text), &options);
    diagnostics.into_iter().filter(Diagnostic::is_error).collect()
}

#[test]
fn the_language_servers_own_cases() {
    let (Some(folder), Some(orbs)) = (common::part("oracle/language-server"), Orbs::read()) else {
        return;
    };
    let cases: Value = serde_json::from_str(&fs::read_to_string(folder.join("cases.json")).unwrap()).unwrap();
    // Where that tool looks at one part only, and the rest of the file is no configuration: each with what it says.
    let known = BTreeMap::from([
        ("Should work on jobs", "has no `steps`"),
        ("Should work on jobs with parameter", "has no `steps`"),
        // It has hints for lists of statuses, and does not look at the words.
        (
            "Mix of terminal and non-terminal statuses - no hint",
            "`unknown` is not a status",
        ),
        // It cannot tell which jobs these are; the job that requires them has no matrix.
        (
            "Requires with matrix partial reference is allowed",
            "\"matrix.os\" that does not exist",
        ),
        ("Local orb with job", "this version of the language is not known"),
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
        // Of one table of tests only the names say what is expected.
        let severity = match name.starts_with("Invalid: ") {
            true => "error",
            false => case["severity"].as_str().unwrap(),
        };
        match (severity, found.first()) {
            // Newer tests have it right: the names differ, and the configuration runs.
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

/// Files whose names or folders say whether they are right.
#[test]
fn the_compilers_and_the_language_servers_files() {
    let (Some(folder), Some(orbs)) = (common::part("oracle/language-server"), Orbs::read()) else {
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
    // Where the file is about something else than whether it compiles: each with what is said of it.
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
        (
            "services-testdata/schemaError.yml",
            "this version of the language is not known",
        ),
        ("test-files/diagnostic.yml", "does not say where it runs"),
        ("test-files/parameter-inline.yml", "command named test"),
        // What these have wrong is for `lint`: it compiles.
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

/// A configuration with a job `build` that has these steps.
fn with_steps(steps: &str) -> String {
    with_job(&format!("docker: [{{image: a}}], steps: {steps}"))
}

/// A configuration whose workflow runs this job.
fn with_job(job: &str) -> String {
    format!("version: 2.1\njobs: {{build: {{{job}}}}}\nworkflows: {{main: {{jobs: [build]}}}}\n")
}

/// A configuration whose workflow runs a job so.
fn with_invocation(invocation: &str) -> String {
    let job = "{docker: [{image: a}], steps: [checkout]}";
    format!("version: 2.1\njobs: {{build: {job}}}\nworkflows: {{main: {{jobs: [build: {{{invocation}}}]}}}}\n")
}

/// A configuration with these definitions before its job `build`.
fn with_definitions(definitions: &str, job: &str) -> String {
    with_job(job).replacen("jobs:", &format!("{definitions}\njobs:"), 1)
}

const GREET: &str =
    "commands: {greet: {parameters: {who: {type: string, default: world}}, steps: [run: echo << parameters.who >>]}}";

/// Shapes that the original's own tests say its compiler takes, each with the warning that it gives, if any.
///
/// Source: <https://github.com/CircleCI-Public/circleci-yaml-language-server>
#[test]
fn odd_shapes_that_the_original_accepts() {
    let group = "job-groups: {g: {jobs: [build]}}";
    let undocumented = "An executor with no declared \"docker\", \"machine\", or \"macos\" key is undocumented";
    let cases = [
        (
            "an executor that leaves the place to the job",
            with_definitions(
                "executors: {sized: {resource_class: large}}",
                "executor: sized, docker: [{image: a}], steps: [checkout]",
            ),
            undocumented,
        ),
        (
            "an orb's executor that leaves the place to the job",
            with_definitions(
                "orbs: {o: {executors: {sized: {resource_class: large}}}}",
                "executor: o/sized, docker: [{image: a}], steps: [checkout]",
            ),
            undocumented,
        ),
        (
            "a machine's legacy key",
            with_job("machine: {enabled: true, image: a}, steps: [checkout]"),
            "The `enabled` machine key is deprecated and should be removed. See \
             https://circleci.com/docs/reference/configuration-reference/#machine",
        ),
        (
            "a setting inside the machine",
            with_job("machine: {image: a, shell: /bin/sh}, steps: [checkout]"),
            "Setting `shell` inside the `machine` map is undocumented; set it as a sibling of `machine` instead. See \
             https://circleci.com/docs/reference/configuration-reference/#executors",
        ),
        (
            "a setting of the job and of its executor",
            with_definitions(
                "executors: {box: {docker: [{image: a}], resource_class: large}}",
                "executor: box, resource_class: xlarge, steps: [checkout]",
            ),
            "resource_class is set both on the job and on the executor; the job's value is used and the executor's is \
             ignored. See https://circleci.com/docs/reference/configuration-reference/#executors",
        ),
        (
            "a setting of the executor and another of the job",
            with_definitions(
                "executors: {box: {docker: [{image: a}], resource_class: large}}",
                "executor: box, shell: /bin/bash, steps: [checkout]",
            ),
            "",
        ),
        (
            "a matrix of nothing",
            with_job("parameters: {v: {type: string}}, machine: true, steps: [checkout]")
                .replace("jobs: [build]", "jobs: [build: {matrix: {parameters: {v: }}}]"),
            "Matrix parameter 'v' is null; the matrix will produce 0 jobs",
        ),
        (
            "arguments beside a command's name",
            with_definitions(GREET, "docker: [{image: a}], steps: [{greet: , who: me}]"),
            "Step 'greet' has 1 sibling key(s) at the same indentation (who). Keeping 'greet' as a no-argument step and \
             ignoring the rest; this usually means the step's parameters are indented to the same level as the step name.",
        ),
        (
            "arguments beside the name of an orb's command",
            with_definitions(
                &format!("orbs: {{o: {{{GREET}}}}}"),
                "docker: [{image: a}], steps: [{o/greet: , who: me}]",
            ),
            "Step 'o/greet' has 1 sibling key(s)",
        ),
        (
            "one path",
            with_steps("[persist_to_workspace: {root: ., path: bin}]"),
            "",
        ),
        (
            "texts for lists",
            with_steps(
                "[save_cache: {key: k, paths: /p}, restore_cache: {keys: k}, add_ssh_keys: {fingerprints: \"SHA256:abc\"}]",
            ),
            "",
        ),
        (
            "a matrix' value among a job's settings",
            with_job("parameters: {split: {type: integer}}, machine: true, parallelism: << matrix.split >>, steps: [checkout]")
                .replace("[build]", "[build: {matrix: {parameters: {split: [2, 4]}}}]"),
            "",
        ),
        (
            "a run without anything after the job",
            with_invocation("post-steps: [run: ]"),
            "a `run` step without a command does nothing",
        ),
        (
            "a command without anything before the job",
            with_invocation("pre-steps: [greet: ]").replacen("jobs:", &format!("{GREET}\njobs:"), 1),
            "Step 'greet' has a null body; treating as a no-argument invocation. Write `- greet` instead.",
        ),
        (
            "parameters with the names of keys that are not reserved",
            with_job(
                "parameters: {matrix: {type: string, default: x}, serial-group: {type: string, default: x}}, machine: true, steps: [checkout]",
            ),
            "",
        ),
        (
            "signing material on a machine",
            with_job("machine: {image: a, code_signing: [bundle]}, steps: [install_signing_bundle, install_signing_bundle: {}]"),
            "",
        ),
        (
            "a condition of every step",
            with_steps("[add_ssh_keys: {when: always}, setup_remote_docker: {when: on_fail}]"),
            "",
        ),
        (
            "a flag for a step's condition",
            with_job("parameters: {p: {type: boolean, default: false}}, machine: true, steps: [checkout: {when: << parameters.p >>}]"),
            "`when` is always, on_success or on_fail, and this is false; it is ignored",
        ),
        (
            "a step's setting that nothing reads",
            with_steps("[store_artifacts: {path: dist, prefix: build}]"),
            "step `store_artifacts` has no key `prefix`; it is ignored",
        ),
        (
            "a tool's cache",
            with_steps("[with_tool_cache: {tool: gradle, steps: [checkout, run: ./gradlew build]}]"),
            "",
        ),
        (
            "a teardown",
            with_steps(
                "[run: {command: make test, teardown: [run: make clean, run: {command: x, max_auto_reruns: 2, auto_rerun_delay: 30s}, store_test_results: {path: r, when: always}, save_cache: {key: k, paths: [v]}]}]",
            ),
            "",
        ),
        ("a setup configuration", format!("setup: true\n{}", with_steps("[checkout]")), ""),
        (
            "a release that is watched",
            with_job("type: release, plan_name: p, validation: {enabled: true}"),
            "",
        ),
        (
            "a lock whose key is a parameter",
            with_job("parameters: {key: {type: string, default: deploy}}, type: lock, key: << parameters.key >>"),
            "",
        ),
        (
            "a checkout whose method is a parameter",
            with_job(
                "parameters: {m: {type: string, default: full}, d: {type: integer, default: 1}}, machine: true, steps: [checkout: {method: << parameters.m >>, depth: << parameters.d >>}]",
            ),
            "",
        ),
        (
            "a list of steps for a step",
            with_steps("[checkout, [run: one, run: two], run: three]"),
            "",
        ),
        (
            "words that are booleans, quoted",
            with_job("docker: [{image: a}], working_directory: \"yes\", steps: [checkout]"),
            "",
        ),
        (
            "words that are none",
            with_job("docker: [{image: a}], working_directory: y, shell: onward, steps: [checkout]"),
            "",
        ),
        (
            "booleans where they may be",
            with_job("docker: [{image: a}], environment: {DEBUG: yes}, steps: [run: {command: x, background: on}]"),
            "",
        ),
        (
            "a class of one's own machines",
            with_job("machine: true, resource_class: my-namespace/My_class:1, steps: [checkout]"),
            "",
        ),
        (
            "one group under its name and under another",
            with_definitions(group, "machine: true, steps: [checkout]").replace("main: {jobs: [build]", "main: {jobs: [g, g: {name: h}]"),
            "",
        ),
        (
            "a name, a serial group and an expression",
            with_invocation("name: a, serial-group: deploys/main, filters: pipeline.git.branch == \"main\""),
            "",
        ),
        (
            "a job's key without a value",
            with_job("jobs: , docker: [{image: a}], steps: [checkout]"),
            "a job has no key `jobs`; it is ignored",
        ),
        (
            "pull requests in a filter",
            with_invocation("filters: {pull_requests: {only: main}}"),
            "`filters` has no key `pull_requests`; it is ignored",
        ),
        (
            "a key of AWS",
            with_job(
                "docker: [{image: a, aws_auth: {aws_access_key_id: $A, aws_secret_access_key: $B}}, {image: b, aws_auth: {oidc_role_arn: r}}], steps: [checkout]",
            ),
            "",
        ),
    ];
    let mut wrong = Vec::new();
    for (what, text, warning) in cases {
        let (config, diagnostics) = compile(
            &SourceFile::new("config.yml", text.as_str()),
            &CompileOptions::default(),
        );
        let said = match warning {
            "" => diagnostics.is_empty(),
            warning => diagnostics.iter().any(|found| found.message.contains(warning)),
        };
        if config.is_none() || !said {
            wrong.push(format!("{what}:\n{text}{}", render_all(&diagnostics, false)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// What the original's own tests say its compiler refuses, each with a part of what is said.
///
/// Source: <https://github.com/CircleCI-Public/circleci-yaml-language-server>
#[test]
fn odd_shapes_that_the_original_refuses() {
    let lock = |rest: &str| with_job(&format!("type: lock, {rest}"));
    let image = |rest: &str| with_job(&format!("docker: [{{image: a, {rest}}}], steps: [checkout]"));
    let docker = |rest: &str| with_job(&format!("docker: [{{image: a}}], {rest}, steps: [checkout]"));
    let cases = [
        (
            with_definitions(
                "functions: {greet: github.com/acme/greet@v1.0.0}\ncommands: {greet: {steps: [checkout]}}",
                "docker: [{image: a}], steps: [greet]",
            ),
            "Function name 'greet' is also a command. Rename one of them.",
        ),
        (
            with_definitions(
                "functions: {checkout: github.com/acme/checkout@v1.0.0}",
                "docker: [{image: a}], steps: [checkout]",
            ),
            "Function name 'checkout' is also a built-in step. Rename one of them.",
        ),
        (
            with_definitions(
                "executors: {sized: {resource_class: large}}",
                "executor: sized, steps: [checkout]",
            ),
            "Executor sized is missing a required key: \"docker\", \"machine\", or \"macos\"",
        ),
        (
            with_steps("[{missing: , who: me}]"),
            "Cannot find a definition for command named missing",
        ),
        (
            with_steps("[{run: , command: x}]"),
            "a step has one key, and this one has 2",
        ),
        (with_steps("[run: ]"), "a `run` step needs a command"),
        (
            with_job("parameters: {env: {type: string}}, machine: true, steps: [run: echo << matrix.env >>]")
                .replace("[build]", "[build: {matrix: {parameters: {env: [a, b]}}}]"),
            "Referred to a variable \"matrix.env\" that does not exist",
        ),
        (
            docker("parameters: {upstream: {type: string, default: x}}"),
            "`upstream` cannot be a parameter of job `build`",
        ),
        (
            docker("parameters: {foo: {type: string, default: }}"),
            "Missing required argument(s): foo",
        ),
        (
            with_definitions(
                "commands: {c: {parameters: {foo: {type: steps, default: null}}, steps: [checkout]}}",
                "machine: true, steps: [c]",
            ),
            "Missing required argument(s): foo",
        ),
        (
            with_definitions("commands: {checkout: 45m}", "machine: true, steps: [checkout]"),
            "Invalid orb element alias, expected a single 'orb-alias/element-name' reference",
        ),
        (
            with_definitions("commands: {run: 45m}", "machine: true, steps: [checkout]"),
            "Invalid orb element alias, expected a single 'orb-alias/element-name' reference",
        ),
        (
            with_definitions("commands: {c: nope/c}", "machine: true, steps: [c]"),
            "Unable to determine target for step invocation nope/c (renamed from local command c)",
        ),
        (docker("resouce_class: large"), "`resouce_class` isn't allowed here"),
        (docker("banana: 1"), "`banana` isn't allowed here"),
        (image("entrypont: [sh]"), "`entrypont` isn't allowed here"),
        (
            docker("parameters: {p: {type: string, defualt: x}}"),
            "`defualt` isn't allowed here",
        ),
        (
            with_invocation("filters: {commits: {only: main}}"),
            "`commits` isn't allowed here",
        ),
        (
            with_definitions(
                "executors: {myExec: {docker: [{image: a}]}}",
                "machine: true, steps: [checkout]",
            ),
            "\"myExec\" isn't a valid executor name: it must start with a lowercase letter, and have only lowercase letters, digits, \"_\" and \"-\".",
        ),
        (
            with_definitions(
                "commands: {otherCommand: {steps: [checkout]}}",
                "machine: true, steps: [checkout]",
            ),
            "\"otherCommand\" isn't a valid command name",
        ),
        (
            format!("setup: true\n{}", with_steps("[checkout]").replace("2.1", "2")),
            "Version 2.1 is required for Setup workflows",
        ),
        (with_job("type: release"), "a job of type release needs a `plan_name`"),
        (
            lock("key: deploy, steps: [checkout]"),
            "`steps` isn't allowed here: a job of type lock has no such key",
        ),
        (lock("key: deploy prod!"), "the key of a lock has up to 512 letters"),
        (with_job("type: unlock"), "a job of type unlock needs a `key`"),
        (
            with_invocation("filters: << pipeline.git.branch >> == \"main\""),
            "Invalid filter expression",
        ),
        (with_invocation("name: \"   \""), "the name of a job cannot be blank"),
        (
            with_job("machine: true, resource_class: my-namespace/my class, steps: [checkout]"),
            "Invalid format in resource class or classes: my-namespace/my class.",
        ),
        (
            with_job("machine: {image: a, resource_class: large}, resource_class: medium, steps: [checkout]"),
            "resource_class is set both on the job and inside the `machine` map; remove the one inside `machine`",
        ),
        (
            with_steps("[run: {command: x, auto_rerun_delay: 3m}]"),
            "auto_rerun_delay requires max_auto_reruns to be specified",
        ),
        (
            with_steps("[run: {command: x, background: true, max_auto_reruns: 3}]"),
            "Background steps cannot use max_auto_reruns or auto_rerun_delay fields",
        ),
        (
            with_steps("[run: {command: x, background: true, auto_rerun_delay: 5m}]"),
            "Background steps cannot use max_auto_reruns or auto_rerun_delay fields",
        ),
        (
            with_steps("[run: {command: x, teardown: [restore_cache: {key: k}]}]"),
            "`restore_cache` isn't allowed here",
        ),
        (
            with_steps("[run: {command: x, teardown: [run: {command: x, background: true}]}]"),
            "`background` isn't allowed here",
        ),
        (
            with_steps("[run: {command: x, teardown: [run: {command: x, auto_rerun_delay: 30s}]}]"),
            "auto_rerun_delay requires max_auto_reruns to be specified",
        ),
        (
            with_steps("[run: {command: x, teardown: [save_cache: {key: \"\", paths: [p]}]}]"),
            "the `key` of step `save_cache` cannot be empty",
        ),
        (
            with_steps("[save_cache: {key: \"\", paths: [p]}]"),
            "the `key` of step `save_cache` cannot be empty",
        ),
        (
            with_steps("[with_tool_cache: {tool: gradle, cache: true, steps: [checkout]}]"),
            "`cache` isn't allowed here",
        ),
        (
            with_steps("[checkout: {method: full, depth: 3}]"),
            "Checkout depth can only be used with the shallow checkout method",
        ),
        (
            docker("working_directory: yes"),
            "`yes` is read as a boolean; quote it if it's meant as text.",
        ),
        (
            docker("working_directory: No"),
            "`No` is read as a boolean; quote it if it's meant as text.",
        ),
        (
            docker("working_directory: on"),
            "`on` is read as a boolean; quote it if it's meant as text.",
        ),
        (
            docker("working_directory: OFF"),
            "`OFF` is read as a boolean; quote it if it's meant as text.",
        ),
        (image("auth: {username: x}"), "`auth` needs `password`"),
        (
            image("aws_auth: {aws_access_key_id: x}"),
            "`aws_auth` needs `aws_secret_access_key`",
        ),
        (
            with_job("machine: true, steps: [checkout]").replace("{jobs:", "{when: true, unless: false, jobs:"),
            "workflow `main` has both `when` and `unless`",
        ),
        (
            with_invocation("filters: {branches: {only: /a*+b/}}"),
            "Invalid regular expression: a*+b",
        ),
        (
            with_steps("[setup_remote_docker, setup_remote_docker: {version: default}]"),
            "More than one setup_remote_docker is not valid, please adjust in job build.",
        ),
        (
            with_definitions(
                "job-groups: {g: {jobs: [build, build]}}",
                "machine: true, steps: [checkout]",
            ),
            "Job 'build' occurs 2 times in job group 'g'. You can give a job within a job group an explicit name by adding a `name` key",
        ),
        (
            with_definitions("job-groups: {g: {jobs: [build]}}", "machine: true, steps: [checkout]")
                .replace("main: {jobs: [build]", "main: {jobs: [g: {name: x}, g: {name: x}]"),
            "Job-group 'x' occurs 2 times in workflow 'main'. You can give a job-group an explicit name by adding a `name` key",
        ),
    ];
    let mut wrong = Vec::new();
    for (text, message) in cases {
        let (_, diagnostics) = compile(
            &SourceFile::new("config.yml", text.as_str()),
            &CompileOptions::default(),
        );
        let mut errors = diagnostics.iter().filter(|found| found.is_error());
        if !errors.any(|found| found.message.contains(message)) {
            wrong.push(format!("{message}:\n{text}{}", render_all(&diagnostics, false)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// An alias to nothing is one mistake, whatever is missing because of it.
#[test]
fn an_alias_to_nothing_is_the_only_mistake() {
    let text = "version: 2.1\njobs: {build: {<<: *nope}}\nworkflows: *none\n";
    let (_, diagnostics) = compile(&SourceFile::new("config.yml", text), &CompileOptions::default());
    let codes: Vec<&str> = diagnostics.iter().map(|found| found.code).collect();
    assert_eq!(codes, ["yaml::unknown-anchor", "yaml::unknown-anchor"]);
}

/// A teardown comes after its command, whatever became of it; one pattern is a list of one; nothing is no step.
#[test]
fn odd_shapes_come_to_what_they_mean() {
    let text = with_invocation("post-steps: [run: ]").replace(
        "[checkout]",
        "[run: {command: make, teardown: [run: clean, store_artifacts: {path: out, when: on_fail}]}, persist_to_workspace: {root: ., path: bin}, \
         run: {command: tell, when: on_fail, teardown: [run: tidy]}, store_artifacts: {path: out, teardown: [run: never]}]",
    );
    let (config, _) = compile(&SourceFile::new("config.yml", text), &CompileOptions::default());
    let steps = json!(config.unwrap().jobs["build"].steps);
    let of = |key: &str| -> Vec<Value> {
        let steps = steps.as_array().unwrap().iter();
        steps.map(|step| step["action"][key].clone()).collect()
    };
    let types = [
        "run",
        "run",
        "store_artifacts",
        "persist_to_workspace",
        "run",
        "run",
        "store_artifacts",
    ];
    assert_eq!(of("type"), types);
    assert_eq!(of("paths")[3], json!(["bin"]));
    let when = steps.as_array().unwrap().iter().map(|step| step["when"].clone());
    assert_eq!(
        when.collect::<Vec<_>>(),
        [
            "on_success",
            "always",
            "on_fail",
            "on_success",
            "on_fail",
            "on_fail",
            "on_success"
        ]
    );
}

/// A condition's text is an expression where all its names are values', and else true.
#[test]
fn conditions_that_are_texts() {
    let on = |condition: &str| {
        let text = with_definitions(
            &format!(
                "commands: {{maybe: {{parameters: {{partition: {{type: string, default: gitlab/x}}}}, \
                 steps: [when: {{condition: '{condition}', steps: [run: it]}}]}}}}"
            ),
            "docker: [{image: a}], steps: [checkout, maybe]",
        );
        let (config, diagnostics) = compile(&SourceFile::new("config.yml", text), &CompileOptions::default());
        let steps = config.map(|config| config.jobs["build"].steps.len());
        let said: Vec<String> = diagnostics.iter().map(|one| one.message.clone()).collect();
        (steps, said.join("\n"))
    };
    assert_eq!(
        on("parameters.partition starts-with \"github/\""),
        (Some(1), String::new())
    );
    assert_eq!(
        on("parameters.partition starts-with \"gitlab/\""),
        (Some(2), String::new())
    );
    assert_eq!(on("pipeline.git.branch == \"other\""), (Some(1), String::new()));
    for text in ["always and pipeline.git.tag", "some words", "$CI", "other.partition"] {
        let (steps, said) = on(text);
        assert_eq!(steps, Some(2), "{said}");
        assert!(
            said.starts_with(&format!("Condition `{text}` is treated as always true.")),
            "{said}"
        );
    }
    let (steps, said) = on("<< parameters.partition >> == \"x\"");
    assert_eq!(steps, Some(2), "{said}");
    assert!(said.contains("the comparison is not evaluated"), "{said}");
    let (steps, said) = on("<< parameters.partition == \"x\" >>");
    assert_eq!((steps, said.as_str()), (Some(1), ""));
}

/// What the original's command line has no text for is empty there, and not null.
#[test]
fn stand_ins_of_the_command_line() {
    let values = PipelineValues::local();
    let text = |name: &str| values.get(name).and_then(Value::as_str);
    assert_eq!(text("git.tag"), Some(""));
    assert_eq!(text("git.commit.author_name"), Some(""));
    assert_eq!(text("trigger_parameters.github_app.ref"), Some("refs/heads/master"));
    assert_eq!(values.get("git.branch.is_default"), Some(&json!(false)));
    assert_eq!((values.branch(), values.tag()), (Some("main"), None));
    let options = CompileOptions {
        values,
        ..CompileOptions::default()
    };
    let text = "version: 2.1\njobs: {a: {docker: [{image: a}], steps: [checkout]}}\n\
                workflows: {w: {when: pipeline.git.tag == \"\", jobs: [a]}}\n";
    let (config, _) = compile(&SourceFile::new("config.yml", text), &options);
    assert_eq!(config.unwrap().workflows.len(), 1);
}
