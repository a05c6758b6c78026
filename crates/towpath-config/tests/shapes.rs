//! Unusual shapes of a configuration, which CircleCI's own tests accept or refuse.
//!
//! Source: <https://github.com/CircleCI-Public/circleci-yaml-language-server>

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use serde_json::{Value, json};
use towpath_config::{CompileOptions, Document, PipelineValues, compile};
use towpath_yaml::render_all;

/// A configuration whose job `build` has these steps.
fn with_steps(steps: &str) -> String {
    with_job(&format!("docker: [{{image: a}}], steps: {steps}"))
}

/// A configuration whose workflow runs this job.
fn with_job(job: &str) -> String {
    format!("version: 2.1\njobs: {{build: {{{job}}}}}\nworkflows: {{main: {{jobs: [build]}}}}\n")
}

/// A configuration whose workflow lists its job like this.
fn with_invocation(invocation: &str) -> String {
    let job = "{docker: [{image: a}], steps: [checkout]}";
    format!("version: 2.1\njobs: {{build: {job}}}\nworkflows: {{main: {{jobs: [build: {{{invocation}}}]}}}}\n")
}

/// A configuration with these definitions and a job `build`.
fn with_definitions(definitions: &str, job: &str) -> String {
    with_job(job).replacen("jobs:", &format!("{definitions}\njobs:"), 1)
}

const GREET: &str =
    "commands: {greet: {parameters: {who: {type: string, default: world}}, steps: [run: echo << parameters.who >>]}}";

/// Each shape with the expected warning, or an empty text for no warning.
#[test]
fn shapes_that_circleci_accepts_are_accepted() {
    let group = "job-groups: {g: {jobs: [build]}}";
    let undocumented = "An executor with no declared \"docker\", \"machine\", or \"macos\" key is undocumented";
    let cases = [
        (
            "an executor that does not say where the job runs",
            with_definitions(
                "executors: {sized: {resource_class: large}}",
                "executor: sized, docker: [{image: a}], steps: [checkout]",
            ),
            undocumented,
        ),
        (
            "an orb's executor that does not say where the job runs",
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
            "different settings of the executor and the job",
            with_definitions(
                "executors: {box: {docker: [{image: a}], resource_class: large}}",
                "executor: box, shell: /bin/bash, steps: [checkout]",
            ),
            "",
        ),
        (
            "a matrix without values",
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
            "a single path",
            with_steps("[persist_to_workspace: {root: ., path: bin}]"),
            "",
        ),
        (
            "text instead of a list",
            with_steps(
                "[save_cache: {key: k, paths: /p}, restore_cache: {keys: k}, add_ssh_keys: {fingerprints: \"SHA256:abc\"}]",
            ),
            "",
        ),
        (
            "a matrix value in a setting of a job",
            with_job("parameters: {split: {type: integer}}, machine: true, parallelism: << matrix.split >>, steps: [checkout]")
                .replace("[build]", "[build: {matrix: {parameters: {split: [2, 4]}}}]"),
            "",
        ),
        (
            "an empty run step after the job",
            with_invocation("post-steps: [run: ]"),
            "a `run` step without a command does nothing",
        ),
        (
            "a command with an empty body before the job",
            with_invocation("pre-steps: [greet: ]").replacen("jobs:", &format!("{GREET}\njobs:"), 1),
            "Step 'greet' has a null body; treating as a no-argument invocation. Write `- greet` instead.",
        ),
        (
            "parameters named like keys that are not reserved",
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
            "`when` of other steps than commands",
            with_steps("[add_ssh_keys: {when: always}, setup_remote_docker: {when: on_fail}]"),
            "",
        ),
        (
            "a boolean for `when`",
            with_job("parameters: {p: {type: boolean, default: false}}, machine: true, steps: [checkout: {when: << parameters.p >>}]"),
            "`when` must be always, on_success or on_fail, not false; it is ignored",
        ),
        (
            "an unknown setting of a step",
            with_steps("[store_artifacts: {path: dist, prefix: build}]"),
            "step `store_artifacts` has no key `prefix`; it is ignored",
        ),
        (
            "a tool cache",
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
            "a release with validation",
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
            "a list of steps in place of a step",
            with_steps("[checkout, [run: one, run: two], run: three]"),
            "",
        ),
        (
            "a quoted boolean as text",
            with_job("docker: [{image: a}], working_directory: \"yes\", steps: [checkout]"),
            "",
        ),
        (
            "words that are almost booleans",
            with_job("docker: [{image: a}], working_directory: y, shell: onward, steps: [checkout]"),
            "",
        ),
        (
            "unquoted booleans",
            with_job("docker: [{image: a}], environment: {DEBUG: yes}, steps: [run: {command: x, background: on}]"),
            "",
        ),
        (
            "the resource class of a self-hosted runner",
            with_job("machine: true, resource_class: my-namespace/My_class:1, steps: [checkout]"),
            "",
        ),
        (
            "a group under two names",
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
            "a key pair for AWS",
            with_job(
                "docker: [{image: a, aws_auth: {aws_access_key_id: $A, aws_secret_access_key: $B}}, {image: b, aws_auth: {oidc_role_arn: r}}], steps: [checkout]",
            ),
            "",
        ),
    ];
    let mut wrong = Vec::new();
    for (what, text, warning) in cases {
        let (config, diagnostics) = compile(
            &Document::parse("config.yml", text.as_str()),
            &CompileOptions::default(),
        );
        let is_expected = match warning {
            "" => diagnostics.is_empty(),
            warning => diagnostics.iter().any(|found| found.message.contains(warning)),
        };
        if config.is_none() || !is_expected {
            wrong.push(format!("{what}:\n{text}{}", render_all(&diagnostics, false)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Each shape with a part of the expected message.
#[test]
fn shapes_that_circleci_refuses_are_refused() {
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
            "a step must have one key, but this one has 2",
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
        (
            lock("key: deploy prod!"),
            "the key of a lock can have up to 512 letters",
        ),
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
            &Document::parse("config.yml", text.as_str()),
            &CompileOptions::default(),
        );
        let mut errors = diagnostics.iter().filter(|found| found.is_error());
        if !errors.any(|found| found.message.contains(message)) {
            wrong.push(format!("{message}:\n{text}{}", render_all(&diagnostics, false)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Other errors would be consequences of the missing anchor.
#[test]
fn an_unknown_anchor_is_the_only_error() {
    let text = "version: 2.1\njobs: {build: {<<: *nope}}\nworkflows: *none\n";
    let (_, diagnostics) = compile(&Document::parse("config.yml", text), &CompileOptions::default());
    let codes: Vec<&str> = diagnostics.iter().map(|found| found.code).collect();
    assert_eq!(codes, ["yaml::unknown-anchor", "yaml::unknown-anchor"]);
}

/// A teardown follows its command, even after a failure. A single path is a list. An empty step is dropped.
#[test]
fn accepted_shapes_have_the_right_meaning() {
    let text = with_invocation("post-steps: [run: ]").replace(
        "[checkout]",
        "[run: {command: make, teardown: [run: clean, store_artifacts: {path: out, when: on_fail}]}, persist_to_workspace: {root: ., path: bin}, \
         run: {command: tell, when: on_fail, teardown: [run: tidy]}, store_artifacts: {path: out, teardown: [run: never]}]",
    );
    let (config, _) = compile(&Document::parse("config.yml", text), &CompileOptions::default());
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

/// A condition as text is an expression if all its names are values, and is true otherwise.
#[test]
fn conditions_can_be_text() {
    let on = |condition: &str| {
        let text = with_definitions(
            &format!(
                "commands: {{maybe: {{parameters: {{partition: {{type: string, default: gitlab/x}}}}, \
                 steps: [when: {{condition: '{condition}', steps: [run: it]}}]}}}}"
            ),
            "docker: [{image: a}], steps: [checkout, maybe]",
        );
        let (config, diagnostics) = compile(&Document::parse("config.yml", text), &CompileOptions::default());
        let steps = config.map(|config| config.jobs["build"].steps.len());
        let messages: Vec<String> = diagnostics.iter().map(|one| one.message.clone()).collect();
        (steps, messages.join("\n"))
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
        let (steps, messages) = on(text);
        assert_eq!(steps, Some(2), "{messages}");
        assert!(
            messages.starts_with(&format!("Condition `{text}` is treated as always true.")),
            "{messages}"
        );
    }
    let (steps, messages) = on("<< parameters.partition >> == \"x\"");
    assert_eq!(steps, Some(2), "{messages}");
    assert!(messages.contains("the comparison is not evaluated"), "{messages}");
    let (steps, messages) = on("<< parameters.partition == \"x\" >>");
    assert_eq!((steps, messages.as_str()), (Some(1), ""));
}

/// `when` and `unless` take one step in place of a list, as CircleCI's schema has it.
#[test]
fn a_condition_can_have_one_step() {
    let of = |steps: &str| {
        let definitions = format!(
            "{GREET}\njobs: {{build: {{parameters: {{more: {{type: steps, default: [checkout, run: a]}}}}, machine: true, \
             steps: [when: {{condition: true, steps: {steps}}}, unless: {{condition: false, steps: {steps}}}]}}}}"
        );
        let text = format!("version: 2.1\n{definitions}\nworkflows: {{main: {{jobs: [build]}}}}\n");
        let (config, diagnostics) = compile(&Document::parse("config.yml", text), &CompileOptions::default());
        let Some(config) = config else {
            return render_all(&diagnostics, false);
        };
        let steps = json!(config.jobs["build"].steps);
        let words = |step: &Value| match step["action"]["command"].as_str() {
            Some(command) => command.to_owned(),
            None => step["action"]["type"].to_string(),
        };
        steps
            .as_array()
            .unwrap()
            .iter()
            .map(words)
            .collect::<Vec<_>>()
            .join(",")
    };
    assert_eq!(of("checkout"), "\"checkout\",\"checkout\"");
    assert_eq!(of("{run: make}"), "make,make");
    assert_eq!(of("greet"), "echo world,echo world");
    assert_eq!(of("{greet: {who: you}}"), "echo you,echo you");
    assert_eq!(of("{when: {condition: true, steps: {run: make}}}"), "make,make");
    assert_eq!(of("<< parameters.more >>"), "\"checkout\",a,\"checkout\",a");
    assert_eq!(of("[checkout]"), "\"checkout\",\"checkout\"");
    let refused = of("nosuch");
    assert!(refused.contains("nosuch"), "{refused}");
    let refused = of("3");
    assert!(
        refused.contains("a step must be a name or a map, but this is of type integer"),
        "{refused}"
    );
}

/// In CircleCI's command line some values are empty text, not null.
#[test]
fn local_pipeline_values_are_those_of_circlecis_command_line() {
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
    let (config, _) = compile(&Document::parse("config.yml", text), &options);
    assert_eq!(config.unwrap().workflows.len(), 1);
}
