//! Public data beside the checkout. It is not part of the project, so it may be absent.

#![allow(dead_code)]

use std::{
    fs,
    path::{Path, PathBuf},
};
use towpath_config::{CompileOptions, Document, OrbError, OrbSource, missing_orbs};
use towpath_orbs::{OrbReference, OrbVersion};

/// The folder `corpus/circleci/<part>`. Prints a loud message if it is absent.
pub fn part(part: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/corpus/circleci")
        .join(part);
    if path.is_dir() {
        return Some(path);
    }
    println!(
        "SKIPPED: there is no `{}`, so nothing was compared with CircleCI",
        path.display()
    );
    None
}

/// The folders in `path`, sorted.
pub fn folders(path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = entries(path).into_iter().filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

/// The files and folders in `path`, sorted.
pub fn entries(path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// The last part of a path.
pub fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// The orbs of the corpus: `<namespace>__<orb>@<version>.yml`.
pub struct PublicOrbs(Vec<(String, OrbVersion, PathBuf)>);

impl PublicOrbs {
    pub fn read() -> Option<Self> {
        let named = |path: PathBuf| {
            let name = name(&path);
            let (orb, version) = name.strip_suffix(".yml")?.split_once('@')?;
            Some((orb.replacen("__", "/", 1), version.parse().ok()?, path))
        };
        Some(Self(entries(&part("orbs")?).into_iter().filter_map(named).collect()))
    }

    pub fn find(&self, reference: &str) -> Result<OrbSource, OrbError> {
        let unknown = || OrbError::Unknown(reference.to_owned());
        let wanted: OrbReference = reference.parse().map_err(|_| unknown())?;
        let name = wanted.name.to_string();
        let versions = self.0.iter().filter(|(orb, ..)| *orb == name);
        let picked = wanted
            .selector
            .pick(versions.clone().map(|(_, version, _)| version))
            .cloned();
        let (_, version, path) = versions
            .clone()
            .find(|(_, version, _)| Some(version) == picked.as_ref())
            .ok_or_else(unknown)?;

        Ok(OrbSource {
            resolved: format!("{name}@{version}"),
            text: fs::read_to_string(path).unwrap().into(),
        })
    }

    /// Default options with the orbs that `document` imports.
    pub fn options(&self, document: &Document) -> CompileOptions {
        supplied(document, |reference| self.find(reference))
    }
}

/// Default options with the orbs that `document` imports and `find` has.
pub fn supplied(document: &Document, find: impl Fn(&str) -> Result<OrbSource, OrbError>) -> CompileOptions {
    let mut options = CompileOptions::default();
    loop {
        let missing = missing_orbs(document, &options);
        if missing.is_empty() {
            return options;
        }
        for orb in missing {
            let found = find(&orb.reference);
            assert!(
                !options.orbs.contains(&orb.reference),
                "{} is asked for again",
                orb.reference
            );
            options.orbs.insert(orb.reference, found);
        }
    }
}
