//! Circles among imports.

use super::Import;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Files that import each other in a circle, with the imports among them.
#[derive(Debug, PartialEq, Eq)]
pub struct Circle {
    pub files: BTreeSet<String>,
    pub imports: Vec<Import>,
}

impl fmt::Display for Circle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: Vec<&str> = self.files.iter().map(String::as_str).collect();
        write!(
            f,
            "{} files import each other in a circle: {}",
            files.len(),
            files.join(", ")
        )?;
        for import in &self.imports {
            write!(
                f,
                "\n  {}:{} imports {} (`{}`)",
                import.from, import.line, import.to, import.path
            )?;
        }
        Ok(())
    }
}

/// The circles that `imports` make; no two of them share a file.
pub fn circles(imports: &[Import]) -> Vec<Circle> {
    let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for import in imports {
        next.entry(&import.from).or_default().insert(&import.to);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> = next.keys().map(|file| (*file, reachable(file, &next))).collect();
    let leads = |from: &str, to: &str| reached.get(from).is_some_and(|files| files.contains(to));
    let mut placed = BTreeSet::new();
    let mut circles = Vec::new();
    for file in next.keys().filter(|file| leads(file, file)) {
        if placed.contains(file) {
            continue;
        }
        let members: BTreeSet<&str> = reached[file]
            .iter()
            .copied()
            .filter(|other| leads(other, file))
            .collect();
        placed.extend(members.iter().copied());
        let is_member = |file: &str| members.contains(file);
        circles.push(Circle {
            imports: imports
                .iter()
                .filter(|import| is_member(&import.from) && is_member(&import.to))
                .cloned()
                .collect(),
            files: members.iter().map(ToString::to_string).collect(),
        });
    }
    circles
}

/// The files that `file` leads to. Includes `file` itself only if other files lead back to it.
fn reachable<'a>(file: &str, next: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut pending: Vec<&str> = next.get(file).into_iter().flatten().copied().collect();
    while let Some(at) = pending.pop() {
        if seen.insert(at) {
            pending.extend(next.get(at).into_iter().flatten());
        }
    }
    seen
}
