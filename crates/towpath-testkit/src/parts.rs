//! Parts that a machine may lack.

use std::path::PathBuf;

/// Why a part is absent, and how to get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absent(pub String);

/// Finds the program `name` as a shell would.
///
/// # Errors
/// When it is not installed.
pub fn program(name: &str) -> Result<PathBuf, Absent> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Daemons are in folders that only root's PATH has.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| Absent(format!("`{name}` is not installed: run scripts/ensure-test-parts")))
}

/// Checks that a container engine answers.
///
/// # Errors
/// When none does.
pub async fn engine_answers() -> Result<(), Absent> {
    let absent = |error: bollard::errors::Error| {
        Absent(format!(
            "no container engine answers ({error}): run scripts/ensure-engine"
        ))
    };
    let engine = bollard::Docker::connect_with_defaults().map_err(absent)?;
    engine.version().await.map(drop).map_err(absent)
}

/// Reports that a test cannot run because of `absent`. The caller returns afterwards.
///
/// # Panics
/// With `CI=true`, where no part may be absent.
pub fn skipped(test: &str, absent: &Absent) {
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "{test} cannot run: {}",
        absent.0
    );
    eprintln!("SKIPPED: {test}: {}", absent.0);
}
