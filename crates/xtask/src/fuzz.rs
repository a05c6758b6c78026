//! Fuzzing: libFuzzer, on the stable compiler, for every parser of text that people write.

use anyhow::{Context, Result, bail, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The targets in `fuzz/Cargo.toml`.
pub const TARGETS: &[&str] = &["config", "orb", "expression", "pack", "reference"];

/// The compiler's instrumentation for libFuzzer: covered edges and compared values.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Words of the language, which libFuzzer would otherwise have to find letter by letter.
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

/// Builds the targets and runs each for `seconds`. Failing inputs go to `fuzz/artifacts/`, interesting ones to `fuzz/corpus/`.
pub fn fuzz(only: Option<&str>, seconds: u32) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let folder = root.join("fuzz");
    if let Some(name) = only {
        ensure!(
            TARGETS.contains(&name),
            "there is no fuzz target `{name}`, only {}",
            TARGETS.join(", ")
        );
    }
    let triple = "x86_64-unknown-linux-gnu".replace("x86_64", std::env::consts::ARCH);
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--target", &triple, "--manifest-path"])
        .arg(folder.join("Cargo.toml"))
        // Even if this workspace builds elsewhere.
        .arg("--target-dir")
        .arg(folder.join("target"))
        // These replace the flags in this workspace's configuration, which do not work with them.
        .env("RUSTFLAGS", COVERAGE)
        .status()
        .context("failed to start cargo")?;
    ensure!(status.success(), "failed to build the fuzz targets");
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
        bail!("found failing inputs for {} (see fuzz/artifacts/)", failed.join(", "));
    }
    Ok(())
}

/// Folders of initial inputs.
fn seeds(root: &Path, target: &str) -> Vec<PathBuf> {
    let own = root.join("crates/towpath-config/tests/fixtures").join(match target {
        "config" => "configs",
        other => other,
    });
    [own].into_iter().filter(|folder| folder.is_dir()).collect()
}
