//! Parts that a machine may not have.

use std::path::PathBuf;

/// Why a part cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absent(pub String);

/// The program called `name`, found as a shell would.
///
/// # Errors
/// With what to do when it is not there.
pub fn program(name: &str) -> Result<PathBuf, Absent> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A browser's driver and a daemon may be where only root's PATH leads.
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    places
        .map(|place| place.join(name))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| Absent(format!("`{name}` is not installed: run scripts/ensure-test-parts")))
}

/// Whether a container engine answers.
///
/// # Errors
/// With what to do when none does.
pub async fn engine_answers() -> Result<(), Absent> {
    let absent = |error: bollard::errors::Error| {
        Absent(format!(
            "no container engine answers ({error}): run scripts/ensure-engine"
        ))
    };
    let engine = bollard::Docker::connect_with_defaults().map_err(absent)?;
    engine.version().await.map(drop).map_err(absent)
}

/// Says loudly that a test does not run, because of `absent`; the caller returns then.
///
/// # Panics
/// With `CI=true`: there every part has to be had.
pub fn skipped(test: &str, absent: &Absent) {
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "{test} cannot run: {}",
        absent.0
    );
    eprintln!("SKIPPED: {test}: {}", absent.0);
}
