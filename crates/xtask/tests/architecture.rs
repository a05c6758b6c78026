//! Holds the floors that ARCHITECTURE.md draws: which crate may know which, and what the core keeps out.

#![allow(clippy::unwrap_used)]

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Each crate with the crates of ours that it may use, on the floors of ARCHITECTURE.md from below.
const FLOORS: &[(&str, &[&str])] = &[
    // core
    ("towpath-types", &[]),
    ("towpath-yaml", &[]),
    ("towpath-workflow", &["towpath-types"]),
    ("towpath-config", &["towpath-types", "towpath-yaml"]),
    ("towpath-manifest", &["towpath-types", "towpath-yaml"]),
    // adapters; what an agent and a server say to each other is the one thing that two of them share
    ("towpath-protocol", &["towpath-types"]),
    ("towpath-agent", &["towpath-types", "towpath-protocol"]),
    ("towpath-engines", &["towpath-types", "towpath-protocol"]),
    ("towpath-store", &["towpath-types"]),
    ("towpath-forge", &["towpath-types"]),
    ("towpath-secrets", &["towpath-types"]),
    ("towpath-images", &["towpath-types"]),
    ("towpath-deploy", &["towpath-types", "towpath-yaml", "towpath-manifest"]),
    ("towpath-orbs", &["towpath-types"]),
    // app
    (
        "towpath-control",
        &[
            "towpath-types",
            "towpath-yaml",
            "towpath-workflow",
            "towpath-config",
            "towpath-manifest",
            "towpath-protocol",
            "towpath-engines",
            "towpath-store",
            "towpath-forge",
            "towpath-secrets",
            "towpath-images",
            "towpath-deploy",
            "towpath-orbs",
        ],
    ),
    (
        "towpath-server",
        &[
            "towpath-types",
            "towpath-protocol",
            "towpath-forge",
            "towpath-images",
            "towpath-orbs",
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
            "towpath-images",
            "towpath-orbs",
            "towpath-deploy",
            "towpath-control",
            "towpath-server",
        ],
    ),
    // dev
    ("towpath-testkit", &["towpath-types"]),
    ("xtask", &["towpath-testkit"]),
];

const CORE: &[&str] = &[
    "towpath-types",
    "towpath-yaml",
    "towpath-workflow",
    "towpath-config",
    "towpath-manifest",
];

/// What does IO, keeps an executor or rolls dice. None of it may be reached from the core.
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

/// The same, spoken to directly.
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

/// What each crate of ours uses, tests aside.
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
    assert_eq!(drawn, there, "the floors and the workspace have the same crates");
    for (name, below) in FLOORS {
        let unlawful: Vec<_> = uses[*name]
            .iter()
            .filter(|used| there.contains(used.as_str()) && !below.contains(&used.as_str()))
            .collect();
        assert!(unlawful.is_empty(), "{name} may not use {unlawful:?}");
    }
    // The drawing itself has no way up.
    let mut seen = BTreeSet::new();
    for (name, below) in FLOORS {
        let above: Vec<_> = below.iter().filter(|used| !seen.contains(**used)).collect();
        assert!(above.is_empty(), "{name} stands below {above:?}");
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
        assert!(seen.len() > 3, "{} uses nearly nothing: {seen:?}", package.name);
        assert!(found.is_empty(), "{} reaches {found:?}", package.name);
    }
}

#[test]
fn the_cores_source_touches_no_file_no_clock_and_no_executor() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut read = 0;
    for name in CORE {
        let mut pending = vec![crates.join(name).join("src")];
        while let Some(path) = pending.pop() {
            if path.is_dir() {
                pending.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
            read += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            // A module's own tests stand at its end.
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
fn one_crate_names_a_yaml_library() {
    let uses = uses(&metadata());
    let names: Vec<&str> = uses
        .iter()
        .filter(|(_, used)| YAML.iter().any(|library| used.contains(*library)))
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["towpath-yaml"]);
}
