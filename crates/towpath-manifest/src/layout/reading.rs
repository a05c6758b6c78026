//! Which files of a repository have to be read to know its environments and to make plans for them.

use super::{
    elsewhere,
    kustomization::Kustomizations,
    paths::{
        CHART, DOT_K8S, ListedPath, ancestors, file_name, inside, is_in, is_kustomization, is_yaml, plain, resolve,
    },
};
use crate::{
    file::ManifestFile,
    settings::{DeclaredBy, LayoutSettings},
};
use std::collections::{BTreeMap, BTreeSet};

/// What to read next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The files at these paths, and those below them that [`Reading::keeps`].
    Files(BTreeSet<String>),
    /// The paths of all files of the repository and of what cannot be read there, for [`Reading::listed`].
    Paths,
}

/// The reading of a repository, one step at a time: the caller reads what [`Self::step`] asks for, and hands it in.
///
/// A repository with `.k8s/`, or whose `towpath.toml` says what its environments are made from, is never searched.
pub struct Reading {
    /// Environments have to be looked for.
    searches: Search,
    folder: Option<String>,
    /// Where to read next.
    next: BTreeSet<String>,
    /// What was read.
    read: BTreeSet<String>,
    files: BTreeMap<String, ManifestFile>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Search {
    /// Only what the settings name.
    Never,
    /// If there is no `.k8s/`.
    WithoutDotK8s,
    Now,
}

impl Reading {
    /// The reading of a repository with this `towpath.toml`.
    #[must_use]
    pub fn new(settings: &LayoutSettings) -> Self {
        let folder = settings.folder();
        let is_below_k8s = folder.is_none_or(|folder| is_in(folder, DOT_K8S));
        let mut next = BTreeSet::new();
        if is_below_k8s {
            next.insert(DOT_K8S.to_string());
        }
        for declared in settings.environments.values() {
            let mut places = vec![declared.jobs.as_ref(), declared.cron_jobs.as_ref()];
            if let Some(source) = &declared.source {
                places.push(Some(&source.folder));
                if let DeclaredBy::Chart { values, .. } = &source.by {
                    places.extend(values.iter().map(Some));
                }
            }
            // A path out of the repository is an error of the layout.
            next.extend(places.into_iter().flatten().filter_map(|path| resolve("", &path.value)));
        }
        let mut tables = settings.environments.values();
        let is_said = settings.is_the_list() && tables.all(|declared| declared.source.is_some());
        let searches = match (is_said, folder.is_some(), is_below_k8s) {
            (true, ..) | (_, true, true) => Search::Never,
            (false, _, true) => Search::WithoutDotK8s,
            (false, _, false) => Search::Now,
        };
        Self {
            searches,
            folder: folder.map(str::to_string),
            next,
            read: BTreeSet::new(),
            files: BTreeMap::new(),
        }
    }

    /// What to read next; `None` at the end.
    #[must_use]
    pub fn step(&mut self) -> Option<Wanted> {
        let next = std::mem::take(&mut self.next);
        let is_in_another = |place: &String| next.iter().any(|other| other != place && is_in(place, other));
        let new = next.iter().filter(|place| !self.has(place) && !is_in_another(place));
        let new: BTreeSet<String> = new.cloned().collect();
        if !new.is_empty() {
            self.read.extend(new.iter().cloned());
            return Some(Wanted::Files(new));
        }
        let has_dot_k8s = || self.files.keys().any(|path| is_in(path, DOT_K8S));
        let searches = match self.searches {
            Search::Never => false,
            Search::WithoutDotK8s => !has_dot_k8s(),
            Search::Now => true,
        };
        self.searches = Search::Never;
        searches.then_some(Wanted::Paths)
    }

    fn has(&self, place: &str) -> bool {
        self.read.iter().any(|read| is_in(place, read))
    }

    /// Takes the paths of all files and of what cannot be read.
    pub fn listed(&mut self, paths: &[ListedPath]) {
        self.next.extend(elsewhere::places(paths, self.folder.as_deref()));
    }

    /// Keeps, of the files at and below `places`, those that a plan needs: YAML, and in the folder of a kustomization or a
    /// chart everything. Keeps what `is_unread` whatever its name, because a broken link may have pointed to a folder.
    pub fn keeps<T>(
        places: &BTreeSet<String>,
        entries: &mut Vec<T>,
        path_of: impl Fn(&T) -> &str,
        is_unread: impl Fn(&T) -> bool,
    ) {
        let is_there = |path: &str| places.iter().any(|place| is_in(path, place));
        let special: BTreeSet<String> = entries
            .iter()
            .map(|entry| plain(path_of(entry)))
            .filter(|path| file_name(path) == CHART || is_kustomization(path))
            .map(|path| path.rsplit_once('/').map_or("", |(folder, _)| folder).to_string())
            .collect();
        let is_input = |path: &str| special.contains("") || ancestors(path).any(|folder| special.contains(folder));
        entries.retain(|entry| {
            let path = plain(path_of(entry));
            let is_around = is_unread(entry) && places.iter().any(|place| is_in(place, path));
            is_around || (is_there(path) && (is_unread(entry) || is_yaml(path) || is_input(path)))
        });
    }

    /// Takes files that were read. Kustomizations among them may lead to more.
    pub fn read(&mut self, files: Vec<ManifestFile>) {
        for file in files {
            self.files.insert(file.path.clone(), file);
        }
        let texts: BTreeMap<&str, &str> = self
            .files
            .values()
            .map(|file| (plain(&file.path), file.text_or_nothing()))
            .collect();
        let kustomizations = Kustomizations::read(&texts, &mut Vec::new());
        let references = kustomizations.references.values().flatten();
        // Everything may be below the root of the repository.
        let more = references.filter(|path| !path.is_empty() && inside(path).is_none());
        self.next.extend(more.filter(|path| !path.contains(':')).cloned());
    }

    /// Every file that was read, by path.
    #[must_use]
    pub fn into_files(self) -> Vec<ManifestFile> {
        self.files.into_values().collect()
    }
}
