//! The project's own configurations, and what is said of them. `UPDATE_FIXTURES=1` writes the answers anew.

#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{entries, name};
use std::{
    fs,
    path::{Path, PathBuf},
};
use towpath_config::{CompileOptions, CompiledConfig, Workflow, compile, lint, process};
use towpath_yaml::{Diagnostic, SourceFile, render_all};

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

fn source(path: &Path) -> std::sync::Arc<SourceFile> {
    SourceFile::new(name(path), fs::read_to_string(path).unwrap())
}

/// Compares `text` with what is written beside a fixture.
fn same(path: &Path, end: &str, text: &str) {
    let beside = path.with_extension(end);
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        fs::write(&beside, text).unwrap();
    }
    let written = fs::read_to_string(&beside).unwrap_or_default();
    assert_eq!(text, written, "{} is otherwise", beside.display());
}

#[test]
fn configurations_come_to_what_is_written_down() {
    let mut in_place = false;
    for path in fixtures("configs") {
        let (processed, diagnostics) = process(&source(&path), &CompileOptions::default());
        let errors: Vec<_> = diagnostics.iter().filter(|found| found.is_error()).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", path.display());
        let (config, text) = processed.unwrap();
        same(&path, "processed", &text);
        // Compiled again it is the same, but for what only the first form says.
        let (again, diagnostics) = process(
            &SourceFile::new("processed.yml", text.as_str()),
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
        let left = |config: &CompiledConfig| {
            let names = |workflow: &Workflow| workflow.jobs.iter().map(|job| job.name.clone()).collect::<Vec<_>>();
            config.workflows.iter().map(names).collect::<Vec<_>>()
        };
        assert_eq!(left(&again), left(&config), "{}", path.display());
        if path.ends_with("in-place.yml") {
            in_place = true;
            let push = ["build", "main", "here/start", "here/left", "here/end"];
            assert_eq!(left(&config)[0], push);
        }
    }
    assert!(in_place);
}

/// Each mistake has its place, what is wrong and what to do; and all of a file's are said at once.
#[test]
fn mistakes_are_said_as_is_written_down() {
    for path in fixtures("errors") {
        let (_, diagnostics) = compile(&source(&path), &CompileOptions::default());
        assert!(diagnostics.iter().any(Diagnostic::is_error), "{}", path.display());
        same(&path, "txt", &render_all(&diagnostics, false));
    }
}

#[test]
fn what_is_surely_not_meant_is_said_as_is_written_down() {
    for path in fixtures("lint") {
        let contexts = ["registry".to_owned()];
        let found = lint(&source(&path), &CompileOptions::default(), Some(&contexts));
        let text = render_all(&found, false);
        same(&path, "txt", &text);
        for secret in ["9f86d081884c7d65", "AKIAIOSFODNN7"] {
            assert!(!text.contains(secret), "{}: a secret is shown", path.display());
        }
    }
    // Configurations that are meant as they are.
    for path in fixtures("configs") {
        let found = lint(&source(&path), &CompileOptions::default(), None);
        let codes: Vec<_> = found.iter().map(|found| found.code).collect();
        let known = [
            "config::executor",
            "config::unknown-key",
            "lint::unused-parameter",
            "lint::unused",
        ];
        assert!(
            codes.iter().all(|code| known.contains(code)),
            "{}: {}",
            path.display(),
            render_all(&found, false)
        );
    }
}
