//! Checks the layout in ARCHITECTURE.md: which crate may use which, what the core must not use, that modules do not import each
//! other in circles, and that no file is too long.

#![allow(clippy::unwrap_used)]

mod circles;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// Each crate with those of our crates that it may use, from the bottom floor of ARCHITECTURE.md to the top.
const FLOORS: &[(&str, &[&str])] = &[
    // core
    ("towpath-types", &[]),
    ("towpath-yaml", &["towpath-types"]),
    ("towpath-schedule", &[]),
    ("towpath-workflow", &["towpath-types"]),
    ("towpath-config", &["towpath-types", "towpath-yaml"]),
    ("towpath-manifest", &["towpath-types", "towpath-yaml"]),
    // adapters; three things are shared by several of them: what an agent and a server say to each other, the client of a
    // container engine, and whose certificates are trusted
    ("towpath-protocol", &["towpath-types"]),
    ("towpath-container", &["towpath-types"]),
    ("towpath-trust", &[]),
    ("towpath-agent", &["towpath-types", "towpath-protocol"]),
    (
        "towpath-engines",
        &["towpath-types", "towpath-container", "towpath-protocol"],
    ),
    ("towpath-store", &["towpath-types", "towpath-trust"]),
    ("towpath-forge", &["towpath-types"]),
    ("towpath-secrets", &["towpath-types"]),
    (
        "towpath-images",
        &["towpath-types", "towpath-container", "towpath-trust"],
    ),
    ("towpath-kube", &["towpath-types", "towpath-manifest", "towpath-trust"]),
    (
        "towpath-deploy",
        &[
            "towpath-types",
            "towpath-schedule",
            "towpath-manifest",
            "towpath-container",
            "towpath-kube",
        ],
    ),
    ("towpath-orbs", &["towpath-types", "towpath-trust"]),
    // app
    (
        "towpath-delivery",
        &[
            "towpath-types",
            "towpath-schedule",
            "towpath-workflow",
            "towpath-manifest",
            "towpath-store",
            "towpath-forge",
            "towpath-images",
            "towpath-deploy",
        ],
    ),
    (
        "towpath-control",
        &[
            "towpath-types",
            "towpath-yaml",
            "towpath-schedule",
            "towpath-workflow",
            "towpath-config",
            "towpath-protocol",
            "towpath-engines",
            "towpath-store",
            "towpath-forge",
            "towpath-secrets",
            "towpath-images",
            "towpath-deploy",
            "towpath-orbs",
            "towpath-delivery",
        ],
    ),
    (
        "towpath-server",
        &[
            "towpath-types",
            "towpath-protocol",
            "towpath-store",
            "towpath-forge",
            "towpath-images",
            "towpath-orbs",
            "towpath-delivery",
            "towpath-control",
        ],
    ),
    (
        "towpath",
        &[
            "towpath-types",
            "towpath-yaml",
            "towpath-config",
            "towpath-agent",
            "towpath-container",
            "towpath-store",
            "towpath-forge",
            "towpath-images",
            "towpath-orbs",
            "towpath-deploy",
            "towpath-delivery",
            "towpath-control",
            "towpath-server",
            "towpath-trust",
        ],
    ),
    // dev
    ("towpath-testkit", &["towpath-types"]),
    ("xtask", &["towpath-testkit"]),
];

const CORE: &[&str] = &[
    "towpath-types",
    "towpath-yaml",
    "towpath-schedule",
    "towpath-workflow",
    "towpath-config",
    "towpath-manifest",
];

/// Crates for IO, executors and randomness. The core must not depend on them, not even through others.
const NOT_IN_THE_CORE: &[&str] = &[
    "async-std",
    "axum",
    "bollard",
    "fastrand",
    "hyper",
    "kube",
    "mio",
    "nix",
    "rand",
    "reqwest",
    "rustix",
    "smol",
    "sqlx",
    "tokio",
];

/// The same in the standard library, and in source text.
const NOT_IN_THE_CORES_SOURCE: &[&str] = &[
    "std::env::var",
    "std::fs",
    "std::io::std",
    "std::net",
    "std::process",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
    "async fn",
    "async move",
    "now_v7",
    "new_v4",
];

/// Libraries that read YAML.
const YAML: &[&str] = &[
    "granit-parser",
    "saphyr",
    "saphyr-parser",
    "serde_yaml",
    "serde_yml",
    "serde_norway",
    "yaml-rust2",
];

/// How many lines a source file may have.
const MOST_LINES: usize = 1_000;

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml"))
        .other_options([
            "--locked".into(),
            "--filter-platform".into(),
            format!("{}-unknown-linux-gnu", std::env::consts::ARCH),
        ])
        .exec()
        .unwrap()
}

/// The dependencies of each of our crates, except those of its tests.
fn uses(metadata: &Metadata) -> BTreeMap<String, BTreeSet<String>> {
    let members = metadata.workspace_packages();
    let of = |package: &&cargo_metadata::Package| {
        let used = package
            .dependencies
            .iter()
            .filter(|used| used.kind != DependencyKind::Development);
        used.map(|used| used.name.to_string()).collect()
    };
    members
        .iter()
        .map(|package| (package.name.to_string(), of(package)))
        .collect()
}

#[test]
fn every_crate_uses_only_what_lies_below_it() {
    let uses = uses(&metadata());
    let drawn: BTreeSet<&str> = FLOORS.iter().map(|(name, _)| *name).collect();
    let there: BTreeSet<&str> = uses.keys().map(String::as_str).collect();
    assert_eq!(drawn, there, "`FLOORS` and the workspace differ");
    for (name, below) in FLOORS {
        let forbidden: Vec<_> = uses[*name]
            .iter()
            .filter(|used| there.contains(used.as_str()) && !below.contains(&used.as_str()))
            .collect();
        assert!(forbidden.is_empty(), "{name} must not use {forbidden:?}");
    }
    // No crate in the list uses one that comes after it.
    let mut seen = BTreeSet::new();
    for (name, below) in FLOORS {
        let above: Vec<_> = below.iter().filter(|used| !seen.contains(**used)).collect();
        assert!(above.is_empty(), "{name} is below {above:?}");
        seen.insert(*name);
    }
}

#[test]
fn the_core_has_no_io_no_executor_and_no_randomness() {
    let metadata = metadata();
    let names: BTreeMap<&PackageId, &str> = metadata
        .packages
        .iter()
        .map(|package| (&package.id, package.name.as_str()))
        .collect();
    let nodes: BTreeMap<&PackageId, _> = metadata
        .resolve
        .as_ref()
        .unwrap()
        .nodes
        .iter()
        .map(|node| (&node.id, node))
        .collect();
    for package in metadata
        .workspace_packages()
        .into_iter()
        .filter(|package| CORE.contains(&package.name.as_str()))
    {
        let mut seen = BTreeSet::new();
        let mut pending = vec![&package.id];
        while let Some(id) = pending.pop() {
            let normal = nodes[id]
                .deps
                .iter()
                .filter(|used| used.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal));
            pending.extend(normal.map(|used| &used.pkg).filter(|used| seen.insert(*used)));
        }
        let found: Vec<_> = seen
            .iter()
            .map(|id| names[*id])
            .filter(|name| NOT_IN_THE_CORE.contains(name))
            .collect();
        assert!(seen.len() > 3, "{} has almost no dependencies: {seen:?}", package.name);
        assert!(found.is_empty(), "{} depends on {found:?}", package.name);
    }
}

#[test]
fn the_cores_source_touches_no_file_no_clock_and_no_executor() {
    let mut read = 0;
    for name in CORE {
        for path in rust_files(&crates().join(name).join("src")) {
            read += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            // Unit tests are at the end of a file.
            let code = text.split("#[cfg(test)]").next().unwrap();
            for (number, line) in (1..)
                .zip(code.lines())
                .filter(|(_, line)| !line.trim_start().starts_with("//"))
            {
                let found = NOT_IN_THE_CORES_SOURCE.iter().find(|word| line.contains(**word));
                assert_eq!(found, None, "{}:{number}", path.display());
            }
        }
    }
    assert!(read > 20, "only {read} files were read");
}

#[test]
fn one_crate_names_the_library_that_speaks_to_a_container_engine() {
    let uses = uses(&metadata());
    let with_it = uses.iter().filter(|(_, used)| used.contains("bollard"));
    let names: Vec<&str> = with_it.map(|(name, _)| name.as_str()).collect();
    // The test kit inspects the engine without the client.
    assert_eq!(names, ["towpath-container", "towpath-testkit"]);
}

#[test]
fn one_crate_names_a_yaml_library() {
    let uses = uses(&metadata());
    let names: Vec<&str> = uses
        .iter()
        .filter(|(_, used)| YAML.iter().any(|library| used.contains(*library)))
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["towpath-yaml"]);
}

/// The folder with all crates.
fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every Rust file below `folder`, without what cargo builds.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut pending = vec![folder.to_path_buf()];
    while let Some(path) = pending.pop() {
        if path.is_dir() && !path.ends_with("target") {
            pending.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

#[test]
fn modules_do_not_import_each_other_in_a_circle() {
    let mut complaints = Vec::new();
    let mut checked = 0;
    for (name, _) in FLOORS {
        let folder = crates().join(name);
        let read = |path: &str| std::fs::read_to_string(folder.join(path)).ok();
        let mut found = Vec::new();
        for root in ["src/lib.rs", "src/main.rs"] {
            if read(root).is_some() {
                let imports = circles::imports(root, &read).unwrap();
                checked += imports.len();
                found.extend(circles::circles(&imports));
            }
        }
        complaints.extend(found.iter().map(|circle| format!("{name}: {circle}")));
    }
    assert!(checked > 500, "only {checked} imports were found");
    assert!(
        complaints.is_empty(),
        "{}\nMove what both sides need into a module below them.",
        complaints.join("\n")
    );
}

#[test]
fn no_source_file_is_longer_than_it_may_be() {
    let mut long = Vec::new();
    let mut read = 0;
    for path in rust_files(&crates()) {
        read += 1;
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        let name = path.strip_prefix(crates()).unwrap().display().to_string();
        if lines > MOST_LINES {
            long.push(format!(
                "{name} has {lines} lines, and {MOST_LINES} is the limit: split it by subject"
            ));
        }
    }
    assert!(read > 200, "only {read} files were read");
    assert!(long.is_empty(), "{}", long.join("\n"));
}
