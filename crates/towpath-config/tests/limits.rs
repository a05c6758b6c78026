//! Configurations that would expand without bound. Each is refused quickly, with an error that names the limit.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod common;

use std::fmt::Write as _;
use towpath_config::{Document, OrbError, OrbSource, compile};
use towpath_yaml::Diagnostic;

fn errors(text: impl Into<Box<str>>) -> Vec<Diagnostic> {
    let find = |reference: &str| {
        // Each orb of this chain imports the next one.
        let number: u64 = reference
            .rsplit('.')
            .next()
            .and_then(|text| text.parse().ok())
            .unwrap_or_default();
        match reference.starts_with("acme/chain@") {
            true => Ok(OrbSource {
                resolved: reference.to_owned(),
                text: format!("version: 2.1\norbs: {{next: acme/chain@1.0.{}}}\n", number + 1).into(),
            }),
            false => Err(OrbError::Unknown(reference.to_owned())),
        }
    };
    let document = Document::parse("config.yml", text);
    let (config, diagnostics) = compile(&document, &common::supplied(&document, find));
    let errors: Vec<Diagnostic> = diagnostics.into_iter().filter(Diagnostic::is_error).collect();
    assert!(config.is_none() || errors.is_empty());
    errors
}

fn refused(text: impl Into<Box<str>>, word: &str) {
    let errors = errors(text);
    let messages: Vec<&str> = errors.iter().map(|error| error.message.as_str()).collect();
    assert!(
        messages.iter().any(|message| message.contains(word)),
        "no message contains `{word}`: {messages:?}"
    );
    assert!(messages.len() < 20, "{} errors for one mistake", messages.len());
    assert!(
        errors
            .iter()
            .any(|error| error.primary.is_some() || error.message.contains("`config.yml`")),
        "no error has a place: {messages:?}"
    );
}

const JOB: &str = "jobs:\n  build:\n    docker: [{image: a}]\n    steps: [checkout]\n";

#[test]
fn aliases_that_multiply() {
    let mut text = format!("version: 2.1\n{JOB}x0: &x0 [a, a, a, a, a, a, a, a, a, a]\n");
    for level in 1..12 {
        let _ = writeln!(
            text,
            "x{level}: &x{level} [{}]",
            vec![format!("*x{}", level - 1); 10].join(", ")
        );
    }
    text.push_str("workflows: {w: {jobs: [{build: {context: *x11}}]}}\n");
    refused(text, "2000000 nodes");
}

#[test]
fn a_matrix_that_explodes() {
    let mut text = String::from(
        "version: 2.1\njobs:\n  build:\n    parameters: {a: {type: integer}, b: {type: integer}, c: {type: integer}}\n    docker: [{image: a}]\n    steps: [checkout]\nworkflows:\n  w:\n    jobs:\n      - build:\n          matrix:\n            parameters:\n",
    );
    for name in ["a", "b", "c"] {
        let numbers: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        let _ = writeln!(text, "              {name}: [{}]", numbers.join(", "));
    }
    refused(text, "10000");
}

#[test]
fn commands_that_call_themselves() {
    let one = "version: 2.1\ncommands:\n  again:\n    steps: [again]\njobs:\n  build:\n    docker: [{image: a}]\n    steps: [again]\n";
    refused(one, "calls itself");
    let two = "version: 2.1\ncommands:\n  ping:\n    steps: [pong]\n  pong:\n    steps: [ping]\njobs:\n  build:\n    docker: [{image: a}]\n    steps: [ping]\n";
    refused(two, "calls itself");
}

#[test]
fn commands_that_multiply() {
    // Nine levels of ten calls each would be a billion steps.
    let mut text = format!(
        "version: 2.1\ncommands:\n  c0:\n    steps: [{}]\n",
        "run: echo, ".repeat(10)
    );
    for level in 1..=8 {
        let calls = format!("c{}, ", level - 1).repeat(10);
        let _ = writeln!(text, "  c{level}:\n    steps: [{calls}]");
    }
    text.push_str("jobs:\n  build:\n    docker: [{image: a}]\n    steps: [c8]\n");
    refused(text, "50000 steps");
}

#[test]
fn commands_that_multiply_and_do_nothing() {
    let mut text = String::from("version: 2.1\ncommands:\n  c0:\n    steps: []\n");
    for level in 1..=60 {
        let _ = writeln!(text, "  c{level}:\n    steps: [c{0}, c{0}]", level - 1);
    }
    text.push_str("jobs:\n  build:\n    docker: [{image: a}]\n    steps: [c60]\n");
    refused(text, "100000 calls");
    // The same in the defaults of parameters.
    let mut text = String::from(
        "version: 2.1\ncommands:\n  c0: {parameters: {s: {type: steps, default: []}}, steps: << parameters.s >>}\n",
    );
    for level in 1..=60 {
        let below = level - 1;
        let _ = writeln!(
            text,
            "  c{level}: {{parameters: {{s: {{type: steps, default: [c{below}, c{below}]}}}}, steps: << parameters.s >>}}"
        );
    }
    text.push_str("jobs:\n  build:\n    docker: [{image: a}]\n    steps: [c60]\n");
    refused(text, "100000 calls");
}

#[test]
fn environments_that_multiply() {
    let entries: String = (0..20_000).fold(String::new(), |mut text, at| {
        let _ = writeln!(text, "      V{at}: << parameters.p >>");
        text
    });
    let numbers: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
    let job = format!(
        "version: 2.1\njobs:\n  build:\n    parameters: {{p: {{type: integer}}}}\n    docker: [{{image: a}}]\n    environment:\n{entries}    steps: [checkout]\nworkflows: {{w: {{jobs: [{{build: {{matrix: {{parameters: {{p: [{}]}}}}}}}}]}}}}\n",
        numbers.join(", ")
    );
    refused(job, "500000 values");
    let calls = "c, ".repeat(1_000);
    let entries = entries.replace("<< parameters.p >>", "x");
    let command = format!(
        "version: 2.1\ncommands:\n  c:\n    steps:\n      - run:\n          command: echo\n          environment:\n{}jobs: {{build: {{docker: [{{image: a}}], steps: [{calls}]}}}}\n",
        entries.replace("      V", "            V")
    );
    refused(command, "500000 values");
}

#[test]
fn texts_that_multiply() {
    let text = "x".repeat(1 << 20);
    let steps = "      - run: << pipeline.parameters.text >>\n".repeat(1_000);
    refused(
        format!(
            "version: 2.1\nparameters: {{text: {{type: string, default: {text}}}}}\njobs:\n  build:\n    docker: [{{image: a}}]\n    steps:\n{steps}"
        ),
        "33554432 bytes",
    );
}

#[test]
fn exclusions_that_multiply() {
    let list = |count: u32| (0..count).map(|at| at.to_string()).collect::<Vec<_>>().join(", ");
    let exclusions: Vec<String> = (0..1_000).map(|at| format!("{{a: {at}, b: x}}")).collect();
    let text = format!(
        "version: 2.1\njobs:\n  build:\n    parameters: {{a: {{type: integer}}, b: {{type: integer}}}}\n    docker: [{{image: a}}]\n    steps: [checkout]\nworkflows: {{w: {{jobs: [{{build: {{matrix: {{parameters: {{a: [{}], b: [{}]}}, exclude: [{}]}}}}}}]}}}}\n",
        list(100),
        list(100),
        exclusions.join(", ")
    );
    refused(text, "5000000 times");
}

#[test]
fn a_pattern_in_many_calls() {
    // The pattern is compiled once.
    let mut text = String::from(
        "version: 2.1\ncommands:\n  c0:\n    steps:\n      - when: {condition: {matches: {pattern: '(a{50}){50}', value: b}}, steps: [checkout]}\n",
    );
    for level in 1..=14 {
        let _ = writeln!(text, "  c{level}:\n    steps: [c{0}, c{0}]", level - 1);
    }
    text.push_str("jobs:\n  build:\n    docker: [{image: a}]\n    steps: [c14]\n");
    assert_eq!(errors(text).len(), 0);
}

#[test]
fn parameters_that_double() {
    let mut text = String::from(
        "version: 2.1\ncommands:\n  c0:\n    parameters: {t: {type: string}}\n    steps: [{run: << parameters.t >>}]\n",
    );
    for level in 1..=60 {
        let below = level - 1;
        let _ = writeln!(
            text,
            "  c{level}:\n    parameters: {{t: {{type: string}}}}\n    steps: [{{c{below}: {{t: \"<< parameters.t >><< parameters.t >>\"}}}}]"
        );
    }
    text.push_str("jobs:\n  build:\n    docker: [{image: a}]\n    steps: [{c60: {t: '0123456789'}}]\n");
    refused(text, "4194304 bytes");
}

#[test]
fn orbs_that_never_end() {
    refused(
        format!("version: 2.1\norbs: {{chain: acme/chain@1.0.0}}\n{JOB}"),
        "deep",
    );
}

#[test]
fn a_file_of_a_hundred_megabytes() {
    let mut text = format!("version: 2.1\n{JOB}filler:\n");
    let line = format!("  - {}\n", "x".repeat(1000));
    while text.len() < 100 << 20 {
        text.push_str(&line);
    }
    refused(text, "33554432 bytes");
}

#[test]
fn a_tree_that_is_deep() {
    let deep = format!("version: 2.1\n{JOB}x: {}{}\n", "[".repeat(100_000), "]".repeat(100_000));
    let errors = errors(deep);
    assert!(!errors.is_empty());
}
