//! Our own configurations with the expected results. `UPDATE_FIXTURES=1` updates the results.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{entries, name};
use std::{
    fs,
    path::{Path, PathBuf},
};
use towpath_config::{Capabilities, CompileOptions, CompiledConfig, Document, Workflow, check, compile, lint, process};
use towpath_yaml::{Diagnostic, render_all};

fn fixtures(part: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(part);
    let files = entries(&folder);
    let files: Vec<_> = files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "yml"))
        .collect();
    assert!(!files.is_empty());
    files
}

fn document(path: &Path) -> Document {
    Document::parse(name(path), fs::read_to_string(path).unwrap())
}

/// Compares `text` with the file beside a fixture that has the extension `end`.
fn same(path: &Path, end: &str, text: &str) {
    let beside = path.with_extension(end);
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        fs::write(&beside, text).unwrap();
    }
    let written = fs::read_to_string(&beside).unwrap_or_default();
    assert_eq!(text, written, "{} differs", beside.display());
}

#[test]
fn configurations_compile_to_the_expected_result() {
    let mut in_place = false;
    for path in fixtures("configs") {
        let (processed, diagnostics) = process(&document(&path), &CompileOptions::default());
        let errors: Vec<_> = diagnostics.iter().filter(|found| found.is_error()).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", path.display());
        let (config, text) = processed.unwrap();
        same(&path, "processed", &text);
        // The result compiles to itself.
        let (again, diagnostics) = process(
            &Document::parse("processed.yml", text.as_str()),
            &CompileOptions::default(),
        );
        assert!(
            again.is_some(),
            "{}: {}",
            path.display(),
            render_all(&diagnostics, false)
        );
        let (again, text_again) = again.unwrap();
        assert_eq!(text_again, text, "{}", path.display());
        let jobs = |config: &CompiledConfig| {
            let names = |workflow: &Workflow| workflow.jobs.iter().map(|job| job.name.clone()).collect::<Vec<_>>();
            config.workflows.iter().map(names).collect::<Vec<_>>()
        };
        assert_eq!(jobs(&again), jobs(&config), "{}", path.display());
        if path.ends_with("in-place.yml") {
            in_place = true;
            let push = ["build", "main", "here/start", "here/left", "here/end"];
            assert_eq!(jobs(&config)[0], push);
        }
    }
    assert!(in_place);
}

/// All errors of a file are reported at once, each with its place and a hint.
#[test]
fn errors_are_reported_as_expected() {
    for path in fixtures("errors") {
        let (_, diagnostics) = compile(&document(&path), &CompileOptions::default());
        assert!(diagnostics.iter().any(Diagnostic::is_error), "{}", path.display());
        same(&path, "txt", &render_all(&diagnostics, false));
    }
}

/// What Towpath cannot run is a warning at each place that needs it, whether a workflow runs the job or not.
#[test]
fn unsupported_features_are_reported_as_expected() {
    for path in fixtures("unsupported") {
        let checked = check(&document(&path), &CompileOptions::default(), &Capabilities::default());
        let text = render_all(&checked.all_diagnostics(), false);
        assert!(checked.config.is_some(), "{}:\n{text}", path.display());
        same(&path, "txt", &text);
    }
}

#[test]
fn probable_mistakes_are_reported_as_expected() {
    let host = Capabilities::default();
    for path in fixtures("lint") {
        let contexts = ["registry".to_owned()];
        let found = lint(&document(&path), &CompileOptions::default(), &host, Some(&contexts));
        let text = render_all(&found, false);
        same(&path, "txt", &text);
        for secret in ["9f86d081884c7d65", "AKIAIOSFODNN7"] {
            assert!(!text.contains(secret), "{}: a secret is shown", path.display());
        }
    }
    // These configurations have no other mistakes.
    for path in fixtures("configs") {
        let found = lint(&document(&path), &CompileOptions::default(), &host, None);
        let codes: Vec<_> = found.iter().map(|found| found.code).collect();
        let known = [
            "config::executor",
            "config::unknown-key",
            "lint::unused-parameter",
            "lint::unused",
            "towpath::cannot-run",
            "towpath::differs",
        ];
        assert!(
            codes.iter().all(|code| known.contains(code)),
            "{}: {}",
            path.display(),
            render_all(&found, false)
        );
    }
}
