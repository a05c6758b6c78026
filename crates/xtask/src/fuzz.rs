//! Fuzzing: libFuzzer over every way in which text that people wrote comes in, on the stable compiler.

use anyhow::{Context, Result, bail, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The targets, as `fuzz/Cargo.toml` has them.
pub const TARGETS: &[&str] = &["config", "orb", "expression", "pack", "reference"];

/// What the compiler adds for libFuzzer: which edges were taken, and what was compared to what.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Words of the language, so that they need not be found letter by letter.
const WORDS: &[&str] = &[
    "version: 2.1",
    "parameters:",
    "type:",
    "default:",
    "enum:",
    "jobs:",
    "workflows:",
    "commands:",
    "executors:",
    "orbs:",
    "docker:",
    "image:",
    "machine:",
    "steps:",
    "run:",
    "when:",
    "unless:",
    "condition:",
    "matrix:",
    "exclude:",
    "alias:",
    "requires:",
    "filters:",
    "branches:",
    "only:",
    "ignore:",
    "pre-steps:",
    "post-steps:",
    "context:",
    "approval",
    "string",
    "boolean",
    "integer",
    "steps",
    "executor",
    "env_var_name",
    "<< parameters.",
    "<< pipeline.",
    "<< matrix.",
    " >>",
    "<<: *",
    "&a ",
    "*a",
    "environment:",
    "equal:",
    "and:",
    "or:",
    "not:",
    "matches:",
    "pattern:",
    "value:",
    " and ",
    " or ",
    "not ",
    " == ",
    " != ",
    " >= ",
    "starts-with",
    "=== ",
    "<< include(",
    "---8<---",
];

/// Builds the targets and runs each for `seconds`. What fails is kept under `fuzz/artifacts/`, what was learned under
/// `fuzz/corpus/`.
pub fn fuzz(only: Option<&str>, seconds: u32) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let folder = root.join("fuzz");
    if let Some(name) = only {
        ensure!(
            TARGETS.contains(&name),
            "no fuzz target `{name}`; there are: {}",
            TARGETS.join(", ")
        );
    }
    let triple = "x86_64-unknown-linux-gnu".replace("x86_64", std::env::consts::ARCH);
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--target", &triple, "--manifest-path"])
        .arg(folder.join("Cargo.toml"))
        // Wherever this workspace's own go.
        .arg("--target-dir")
        .arg(folder.join("target"))
        // The flags of this workspace's own configuration do not go together with these.
        .env("RUSTFLAGS", COVERAGE)
        .status()
        .context("failed to start cargo")?;
    ensure!(status.success(), "the fuzz targets do not build");
    let words: String = WORDS.iter().map(|word| format!("{word:?}\n")).collect();
    let dictionary = folder.join("target/words.dict");
    fs::write(&dictionary, words)?;
    let mut failed = Vec::new();
    for target in TARGETS.iter().filter(|target| only.is_none_or(|only| only == **target)) {
        let corpus = folder.join("corpus").join(target);
        let artifacts = folder.join("artifacts").join(target);
        fs::create_dir_all(&corpus)?;
        fs::create_dir_all(&artifacts)?;
        println!("--- {target}, {seconds} s");
        let status = Command::new(folder.join(format!("target/{triple}/release/{target}")))
            .arg(&corpus)
            .args(seeds(&root, target))
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .arg(format!("-dict={}", dictionary.display()))
            .args([
                "-timeout=20",
                "-rss_limit_mb=4096",
                "-max_len=16384",
                "-print_final_stats=1",
            ])
            .status()
            .with_context(|| format!("failed to start the fuzz target `{target}`"))?;
        if !status.success() {
            failed.push(*target);
        }
    }
    if !failed.is_empty() {
        bail!("found something: {} (see fuzz/artifacts/)", failed.join(", "));
    }
    Ok(())
}

/// Folders of inputs to start from.
fn seeds(root: &Path, target: &str) -> Vec<PathBuf> {
    let own = root.join("crates/towpath-config/tests/fixtures").join(match target {
        "config" => "configs",
        other => other,
    });
    [own].into_iter().filter(|folder| folder.is_dir()).collect()
}
