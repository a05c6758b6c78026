//! Public configurations and orbs. Each compiles, or fails for a reason that is given here.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod common;

use common::{PublicOrbs, entries, name, supplied};
use std::{collections::BTreeMap, fs, path::PathBuf};
use towpath_config::{Capabilities, Document, Feature, check, check_orb, compile};
use towpath_yaml::Diagnostic;

/// The errors of a configuration. `None` if it only needs orbs that are not public.
fn errors(text: &str, orbs: &PublicOrbs) -> Option<Vec<Diagnostic>> {
    let document = Document::parse("config.yml", text);
    let (_, diagnostics) = compile(&document, &orbs.options(&document));
    let errors: Vec<Diagnostic> = diagnostics.into_iter().filter(Diagnostic::is_error).collect();
    let orb_missing = |error: &Diagnostic| error.code == "config::unknown-orb";
    match !errors.is_empty() && errors.iter().any(orb_missing) && errors.iter().all(orb_missing) {
        true => None,
        false => Some(errors),
    }
}

/// Compiles all files. `known` has those that must fail, each with a part of the message.
fn all_compile(what: &str, files: Vec<PathBuf>, known: &[(&str, &str)]) {
    let Some(orbs) = PublicOrbs::read() else { return };
    let (mut read, mut fine, mut without_orb) = (0, 0, 0);
    let mut wrong = Vec::new();
    let mut expected: BTreeMap<&str, &str> = known.iter().copied().collect();
    for path in files {
        let name = name(&path);
        let Ok(text) = fs::read_to_string(&path) else { continue };
        read += 1;
        match errors(&text, &orbs) {
            None => without_orb += 1,
            Some(errors) if errors.is_empty() => fine += 1,
            Some(errors) => {
                let reason = expected.remove(name.as_str());
                if !reason.is_some_and(|reason| errors.iter().any(|error| error.message.contains(reason))) {
                    let first = errors.iter().find(|error| error.code != "config::unknown-orb");
                    wrong.push(format!("{name}:\n{}", first.unwrap_or(&errors[0]).render(false)));
                }
            }
        }
    }
    println!("{what}: read {read} files: {fine} compile, {without_orb} need an orb that is not public");
    assert!(
        wrong.is_empty(),
        "{} of {read} fail for other reasons:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(expected.is_empty(), "these compile now: {expected:?}");
    assert!(fine > 0);
}

fn yaml_in(part: &str) -> Option<Vec<PathBuf>> {
    let files = entries(&common::part(part)?);
    Some(
        files
            .into_iter()
            .filter(|path| path.extension().is_some_and(|end| end == "yml"))
            .collect(),
    )
}

#[test]
fn public_configurations_compile() {
    if let Some(files) = yaml_in("configs") {
        all_compile("configs", files, &[]);
    }
}

#[test]
fn generated_configurations_compile() {
    if let Some(files) = yaml_in("oracle/generated-configs") {
        all_compile("generated-configs", files, &[]);
    }
}

/// Samples of the documentation that are not complete configurations, and why each is refused.
const FRAGMENTS: &[(&str, &[&str])] = &[
    (
        "There are no workflows or build jobs in the config.",
        &[
            "authorize-google-cloud-sdk-01.yml",
            "authorize-google-cloud-sdk-02.yml",
            "authorize-google-cloud-sdk-03.yml",
            "automatic-reruns-01.yml",
            "automatic-reruns-02.yml",
            "configuration-reference-02.yml",
            "configuration-reference-03.yml",
            "configuration-reference-04.yml",
            "configuration-reference-05.yml",
            "configuration-reference-14.yml",
            "create-test-and-use-url-orbs-01.yml",
            "create-test-and-use-url-orbs-02.yml",
            "environment-cli-usage-guide-02.yml",
            "environment-cli-usage-guide-03.yml",
            "environment-cli-usage-guide-04.yml",
            "environment-cli-usage-guide-05.yml",
            "environment-cli-usage-guide-06.yml",
            "environment-cli-usage-guide-07.yml",
            "getting-started-with-smarter-testing-01.yml",
            "getting-started-with-smarter-testing-02.yml",
            "how-to-override-config-02.yml",
            "how-to-override-config-05.yml",
            "ios-codesigning-01.yml",
            "jobs-steps-01.yml",
            "manual-orb-authoring-process-01.yml",
            "migrating-from-teamcity-03.yml",
            "openid-connect-tokens-01.yml",
            "orb-intro-01.yml",
            "persist-data-01.yml",
            "reusing-config-02.yml",
            "reusing-config-03.yml",
            "reusing-config-05.yml",
            "reusing-config-06.yml",
            "reusing-config-08.yml",
            "reusing-config-12.yml",
            "reusing-config-13.yml",
            "reusing-config-16.yml",
            "reusing-config-17.yml",
            "reusing-config-19.yml",
            "reusing-config-20.yml",
            "reusing-config-25.yml",
            "set-up-test-impact-analysis-03.yml",
            "using-docker-01.yml",
            "using-linuxvm-01.yml",
            "using-linuxvm-02.yml",
            "using-linuxvm-03.yml",
            "using-macos-01.yml",
        ],
    ),
    (
        "job `build` has no `steps`",
        &[
            "configuration-reference-06.yml",
            "configuration-reference-08.yml",
            "configuration-reference-09.yml",
            "custom-images-01.yml",
            "databases-03.yml",
            "introduction-to-yaml-configurations-01.yml",
            "pipelines-troubleshoot-snip-01.yml",
            "private-images-03.yml",
            "reusing-config-27.yml",
        ],
    ),
    (
        "unknown orb 'circleci/macos'",
        &[
            "testing-macos-02.yml",
            "testing-macos-03.yml",
            "testing-macos-04.yml",
            "testing-macos-05.yml",
            "testing-macos-06.yml",
        ],
    ),
    (
        "Cannot find a definition for job named build",
        &["automatic-reruns-03.yml", "automatic-reruns-04.yml", "contexts-02.yml"],
    ),
    (
        "Cannot find a definition for job named mytestjob",
        &["configuration-reference-18.yml", "using-branch-filters-02.yml"],
    ),
    (
        "Cannot find a definition for executor named my-executor",
        &[
            "set-up-test-impact-analysis-01.yml",
            "set-up-test-impact-analysis-02.yml",
        ],
    ),
    (
        "Cannot find a definition for job named lint",
        &[
            "using-dynamic-configuration-04.yml",
            "using-dynamic-configuration-05.yml",
        ],
    ),
    (
        "unknown orb 'lambdatest/lambda-tunnel@0.0.1'",
        &["browser-testing-02.yml"],
    ),
    ("unknown orb 'bad/orb'", &["config-policy-management-overview-03.yml"]),
    (
        "Cannot find a definition for executor named go",
        &["configure-deploy-markers-01.yml"],
    ),
    (
        "Cannot find a definition for job named my-inline-orb/my-job",
        &["create-an-inline-orb-01.yml"],
    ),
    ("job `build` does not say where it runs", &["env-vars-04.yml"]),
    (
        "Cannot find a definition for job named my_test_job",
        &["jobs-steps-02.yml"],
    ),
    (
        "workflow `jobs` must be a map with `jobs`, not a list",
        &["migrating-from-aws-01.yml"],
    ),
    (
        "Cannot find a definition for job named Compile",
        &["migrating-from-teamcity-02.yml"],
    ),
    (
        "a step must have one key, but this one has 3: `run`, `name`, `command`",
        &["openid-connect-tokens-02.yml"],
    ),
    ("unknown orb 'some-ns/some-orb@volatile'", &["orb-concepts-03.yml"]),
    ("unknown orb '<namespace>/<orb-name>@x.y.z'", &["orb-intro-02.yml"]),
    ("unknown orb 'circleci/node@x.y'", &["orb-intro-03.yml"]),
    (
        "unknown orb 'https://raw.githubusercontent.com/my-org/orbs/refs/heads/main/platform-team.yaml'",
        &["orb-intro-04.yml"],
    ),
    (
        "a step must have one key, but this one has 2: `run`, `environment`",
        &["postgres-config-02.yml"],
    ),
    ("unknown orb 'somenamespace/foo@1'", &["reusing-config-21.yml"]),
    (
        "Cannot find a definition for job named loadsay",
        &["reusing-config-30.yml"],
    ),
    (
        "Cannot find a definition for executor named some-executor",
        &["set-up-release-validation-manually-01.yml"],
    ),
    (
        "Cannot find a definition for job named integration-test",
        &["using-branch-filters-01.yml"],
    ),
    (
        "unknown orb 'circleci/shellcheck@x.y.z'",
        &["using-shell-scripts-01.yml"],
    ),
    (
        "Invalid orb element alias, expected a single 'orb-alias/element-name' reference",
        &["using-shell-scripts-02.yml"],
    ),
];

#[test]
fn configurations_of_the_documentation_compile() {
    if let Some(files) = yaml_in("oracle/docs-snippets") {
        let known: Vec<(&str, &str)> = FRAGMENTS
            .iter()
            .flat_map(|(reason, files)| files.iter().map(|file| (*file, *reason)))
            .collect();
        all_compile("docs-snippets", files, &known);
    }
}

/// A value for a required parameter.
fn argument(parameter: &serde_json::Value) -> String {
    match parameter["type"].as_str().unwrap_or("string") {
        "boolean" => "true".into(),
        "integer" => "1".into(),
        "enum" => parameter["enum"][0].to_string(),
        "steps" => "[]".into(),
        "executor" => "some-executor".into(),
        "env_var_name" => "SOME_NAME".into(),
        _ => "some-text".into(),
    }
}

/// A configuration that calls each command and each job of an orb once.
fn calls(orb: &serde_json::Value) -> String {
    let mut text = String::from(
        "version: 2.1\norbs: {it: acme/it@1.0.0}\nexecutors:\n  some-executor: {docker: [{image: cimg/base:2024.01}]}\njobs:\n",
    );
    let section = |key: &str| orb[key].as_object().cloned().unwrap_or_default();
    let arguments = |element: &serde_json::Value, indent: &str| -> String {
        let parameters = element["parameters"].as_object().cloned().unwrap_or_default();
        let needed = parameters
            .iter()
            .filter(|(_, parameter)| parameter.get("default").is_none());
        needed
            .map(|(name, parameter)| format!("{indent}{name}: {}\n", argument(parameter)))
            .collect()
    };
    let call = |name: &str, element: &serde_json::Value, pad: &str| {
        let given = arguments(element, &format!("{pad}    "));
        match given.is_empty() {
            true => format!("{pad}- it/{name}\n"),
            false => format!("{pad}- it/{name}:\n{given}"),
        }
    };
    // Call each command in a separate job, because a job can have only one `setup_remote_docker`.
    let commands = section("commands");
    text.push_str("  checkout:\n    docker: [{image: cimg/base:2024.01}]\n    steps: [checkout]\n");
    for (at, (name, command)) in commands.iter().enumerate() {
        let head = format!("  command-{at}:\n    docker: [{{image: cimg/base:2024.01}}]\n    steps:\n");
        text.push_str(&head);
        text.push_str(&call(name, command, "      "));
    }
    text.push_str("workflows:\n  all:\n    jobs:\n      - checkout\n");
    for at in 0..commands.len() {
        text.push_str(&format!("      - command-{at}\n"));
    }
    for (name, job) in section("jobs") {
        text.push_str(&call(&name, &job, "      "));
    }
    text
}

#[test]
fn every_command_and_job_of_the_orbs_compiles() {
    let (Some(files), Some(orbs)) = (yaml_in("orbs"), PublicOrbs::read()) else {
        return;
    };
    let (mut read, mut fine, mut without_orb) = (0, 0, 0);
    let mut wrong = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let (documents, _) = towpath_yaml::parse(
            &towpath_yaml::SourceFile::new("orb.yml", text.as_str()),
            &towpath_yaml::ParseOptions::default(),
        );
        let orb = documents
            .first()
            .map(|node| node.to_json(towpath_yaml::ScalarRules::CircleCi))
            .unwrap_or_default();
        let config = calls(&orb);
        read += 1;
        let find = |reference: &str| match reference {
            "acme/it@1.0.0" => Ok(towpath_config::OrbSource {
                resolved: reference.into(),
                text: text.as_str().into(),
            }),
            other => orbs.find(other),
        };
        let config = Document::parse("config.yml", config);
        let (_, diagnostics) = compile(&config, &supplied(&config, find));
        let errors: Vec<&Diagnostic> = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).collect();
        // Checking the orb alone has the same result.
        let orb = Document::parse("orb.yml", text.as_str());
        let alone = check_orb(&orb, &supplied(&orb, find));
        let alone: Vec<&Diagnostic> = alone.iter().filter(|diagnostic| diagnostic.is_error()).collect();
        if alone.is_empty() != errors.is_empty() {
            let first = alone.first().map_or_else(String::new, |error| error.render(false));
            wrong.push(format!("{} alone:\n{first}", name(&path)));
        }
        if errors.is_empty() {
            fine += 1;
        } else if errors.iter().all(|error| error.code == "config::unknown-orb") {
            without_orb += 1;
        } else {
            // The scripts that these orbs include are not public.
            let include = errors[0].message == "Unterminated pattern";
            let incomplete = ["codecov__codecov@4.1.0.yml", "codecov__codecov@4.2.0.yml"];
            if !(include && incomplete.contains(&name(&path).as_str())) {
                wrong.push(format!("{}:\n{}", name(&path), errors[0].render(false)));
            }
        }
    }
    println!(
        "orbs: read {read}: {fine} compile with all commands and jobs called, {without_orb} import an orb that is not public"
    );
    assert!(
        wrong.is_empty(),
        "{} of {read} fail:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Each place is reported once for each feature, with a place that can be shown.
#[test]
fn unsupported_features_of_public_configurations_are_warnings() {
    let (Some(files), Some(orbs)) = (yaml_in("configs"), PublicOrbs::read()) else {
        return;
    };
    let (mut read, mut affected) = (0, 0);
    let mut features: BTreeMap<Feature, usize> = BTreeMap::new();
    for path in files {
        let document = Document::parse("config.yml", fs::read_to_string(&path).unwrap());
        let checked = check(&document, &orbs.options(&document), &Capabilities::default());
        read += 1;
        affected += usize::from(!checked.findings.is_empty());
        let mut seen = Vec::new();
        for finding in &checked.findings {
            let diagnostic = &finding.diagnostic;
            assert!(!diagnostic.is_error(), "{}: {}", name(&path), diagnostic.render(false));
            let span = &diagnostic.primary.as_ref().unwrap().span;
            assert!(!span.text().is_empty(), "{}: {}", name(&path), diagnostic.render(false));
            let key = (finding.feature, diagnostic.message.clone(), span.place());
            assert!(!seen.contains(&key), "{}: {key:?} is reported twice", name(&path));
            seen.push(key);
            *features.entry(finding.feature).or_default() += 1;
        }
    }
    println!("configs: read {read}, {affected} have findings: {features:?}");
    assert!(read > 80);
}
