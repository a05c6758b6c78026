//! A forge in memory, for tests of whatever reads commits.
//!
//! It counts its calls, so that a test can show that a page made none, and it can be told to fail.

use crate::{
    Commit, Forge, ForgeError, Select, SourceStream, TreeFile,
    tree::{Entry, Listing},
};
use bytes::Bytes;
use futures::future::{BoxFuture, ready};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};
use towpath_types::{CommitId, Digest, ProjectName};

/// A forge in memory.
///
/// ```
/// # use towpath_forge::{Forge, fake::FakeForge};
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let forge = FakeForge::default();
/// let project = "claims".parse().unwrap();
/// forge.create(&project, "main").await.unwrap();
/// let commit = forge.commit_to(&project, "main").message("Add claims").file("README", "claims\n").push();
/// assert_eq!(forge.find(&project, "main").await.unwrap(), commit);
/// assert_eq!(forge.calls("find"), 1);
/// # });
/// ```
#[derive(Debug, Default)]
pub struct FakeForge {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    repositories: BTreeMap<ProjectName, Repository>,
    calls: BTreeMap<&'static str, usize>,
    failure: Option<String>,
}

#[derive(Debug, Default)]
struct Repository {
    default_branch: String,
    /// Keyed by the whole name: `refs/heads/main`.
    refs: BTreeMap<String, CommitId>,
    /// In the order in which they were made.
    commits: Vec<Stored>,
    /// The commits that tag objects name.
    tag_objects: BTreeMap<CommitId, CommitId>,
}

#[derive(Debug, Clone)]
struct Stored {
    commit: Commit,
    parent: Option<CommitId>,
    tree: BTreeMap<String, Content>,
}

#[derive(Debug, Clone)]
enum Content {
    File(Vec<u8>),
    Link(String),
    Submodule,
}

impl FakeForge {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a commit on top of `branch`, whose files it keeps. The project is created if it is missing.
    pub fn commit_to<'a>(&'a self, project: &'a ProjectName, branch: &'a str) -> Draft<'a> {
        Draft {
            forge: self,
            project,
            branch,
            message: "A commit".into(),
            author: "Ada".into(),
            changes: BTreeMap::new(),
        }
    }

    /// Points the ref `name` (`refs/tags/v1`) to `commit`, or deletes it. Unlike a push it may name any ref.
    pub fn set_ref(&self, project: &ProjectName, name: &str, commit: Option<&CommitId>) {
        let mut state = self.state();
        let refs = &mut state.repositories.entry(project.clone()).or_default().refs;
        match commit {
            Some(commit) => refs.insert(name.to_string(), commit.clone()),
            None => refs.remove(name),
        };
    }

    /// Makes the annotated tag `name`. Returns the id of its tag object.
    pub fn annotate(&self, project: &ProjectName, name: &str, commit: &CommitId) -> CommitId {
        let digest = Digest::of(format!("tag {name} of {commit}").as_bytes());
        let Ok(object) = digest.hex()[..40].parse::<CommitId>() else {
            return commit.clone();
        };
        {
            let mut state = self.state();
            let repository = state.repositories.entry(project.clone()).or_default();
            repository.tag_objects.insert(object.clone(), commit.clone());
        }
        self.set_ref(project, &format!("refs/tags/{name}"), Some(&object));
        object
    }

    /// Removes the project's repository.
    pub fn remove(&self, project: &ProjectName) {
        self.state().repositories.remove(project);
    }

    /// How often a method of [`Forge`] was called, by its name.
    #[must_use]
    pub fn calls(&self, method: &str) -> usize {
        self.state().calls.get(method).copied().unwrap_or_default()
    }

    /// How often any method was called.
    #[must_use]
    pub fn all_calls(&self) -> usize {
        self.state().calls.values().sum()
    }

    /// Makes every call fail with this message, as if `git` did not work. `None` ends that.
    pub fn fail(&self, message: Option<&str>) {
        self.state().failure = message.map(str::to_string);
    }

    /// Counts a call and gives its answer.
    fn answer<T: Send + 'static>(
        &self,
        method: &'static str,
        answer: impl FnOnce(&mut State) -> Result<T, ForgeError>,
    ) -> BoxFuture<'static, Result<T, ForgeError>> {
        let mut state = self.state();
        *state.calls.entry(method).or_default() += 1;
        let answer = match state.failure.clone() {
            Some(stderr) => Err(ForgeError::Git {
                command: method.into(),
                stderr,
            }),
            None => answer(&mut state),
        };
        Box::pin(ready(answer))
    }

    /// Like [`FakeForge::answer`], for a project that has to exist.
    fn answer_of<T: Send + 'static>(
        &self,
        method: &'static str,
        project: &ProjectName,
        answer: impl FnOnce(&mut Repository) -> Result<T, ForgeError>,
    ) -> BoxFuture<'static, Result<T, ForgeError>> {
        self.answer(method, |state| match state.repositories.get_mut(project) {
            Some(repository) => answer(repository),
            None => Err(ForgeError::UnknownProject(project.clone())),
        })
    }
}

/// A commit of a [`FakeForge`] that is being made.
#[derive(Debug)]
#[must_use]
pub struct Draft<'a> {
    forge: &'a FakeForge,
    project: &'a ProjectName,
    branch: &'a str,
    message: String,
    author: String,
    /// `None` removes a file.
    changes: BTreeMap<String, Option<Content>>,
}

impl Draft<'_> {
    /// Sets the message: a subject, a blank line, a body.
    pub fn message(mut self, message: &str) -> Self {
        self.message = message.to_string();
        self
    }

    /// Sets the author's name.
    pub fn author(mut self, author: &str) -> Self {
        self.author = author.to_string();
        self
    }

    /// Adds or replaces a file.
    pub fn file(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let content = Content::File(content.as_ref().to_vec());
        self.changes.insert(path.to_string(), Some(content));
        self
    }

    /// Adds a symbolic link.
    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.changes
            .insert(path.to_string(), Some(Content::Link(target.to_string())));
        self
    }

    /// Adds a submodule: a commit of another repository.
    pub fn submodule(mut self, path: &str) -> Self {
        self.changes.insert(path.to_string(), Some(Content::Submodule));
        self
    }

    /// Removes a file or link.
    pub fn without(mut self, path: &str) -> Self {
        self.changes.insert(path.to_string(), None);
        self
    }

    /// Makes the commit and moves the branch to it.
    ///
    /// # Panics
    /// Never: a digest is a valid commit id.
    #[allow(clippy::unwrap_used)]
    pub fn push(self) -> CommitId {
        let mut state = self.forge.state();
        let repository = state
            .repositories
            .entry(self.project.clone())
            .or_insert_with(|| Repository {
                default_branch: self.branch.to_string(),
                ..Repository::default()
            });
        let name = format!("refs/heads/{}", self.branch);
        let parent = repository.refs.get(&name).cloned();
        let mut tree = parent
            .as_ref()
            .and_then(|parent| repository.stored(parent))
            .map(|stored| stored.tree.clone())
            .unwrap_or_default();
        for (path, change) in self.changes {
            match change {
                Some(content) => tree.insert(path, content),
                None => tree.remove(&path),
            };
        }
        let (subject, body) = self.message.split_once('\n').unwrap_or((&self.message, ""));
        let seed = format!(
            "{} {} {parent:?} {}",
            self.project,
            repository.commits.len(),
            self.message
        );
        let id: CommitId = Digest::of(seed.as_bytes()).hex()[..40].parse().unwrap();
        let commit = Commit {
            id: id.clone(),
            subject: subject.to_string(),
            body: body.trim().to_string(),
            author: self.author,
        };
        repository.commits.push(Stored { commit, parent, tree });
        repository.refs.insert(name, id.clone());
        id
    }
}

impl Repository {
    fn stored(&self, id: &CommitId) -> Option<&Stored> {
        let id = self.tag_objects.get(id).unwrap_or(id);
        self.commits.iter().find(|stored| stored.commit.id == *id)
    }

    fn must_have(&self, project: &ProjectName, id: &CommitId) -> Result<&Stored, ForgeError> {
        self.stored(id)
            .ok_or_else(|| ForgeError::not_found(project, format!("commit {id}")))
    }

    /// A commit and its ancestors, newest first.
    fn history(&self, id: &CommitId) -> Vec<&Stored> {
        let parents = |stored: &&Stored| stored.parent.as_ref().and_then(|parent| self.stored(parent));
        std::iter::successors(self.stored(id), parents).collect()
    }

    fn find(&self, word: &str) -> Option<&CommitId> {
        if word.starts_with("refs/") {
            let object = self.refs.get(word)?;
            return self.stored(object).map(|stored| &stored.commit.id);
        }
        if let Some(named) = ["refs/tags/", "refs/heads/"]
            .iter()
            .find_map(|folder| self.refs.get(&format!("{folder}{word}")))
        {
            return self.stored(named).map(|stored| &stored.commit.id);
        }
        let ids = self.commits.iter().map(|stored| &stored.commit.id);
        let fits: Vec<&CommitId> = ids.filter(|id| id.as_str().starts_with(word)).collect();
        match fits.as_slice() {
            [only] if word.len() >= 4 => Some(only),
            _ => None,
        }
    }
}

impl Stored {
    fn listing(&self) -> Listing {
        let mut listing = Listing::default();
        for (path, content) in &self.tree {
            let entry = match content {
                Content::File(bytes) => Entry::File {
                    bytes: bytes.len() as u64,
                },
                Content::Link(target) => Entry::Link(target.clone()),
                Content::Submodule => Entry::Submodule,
            };
            listing.insert(path.clone(), entry);
        }
        listing
    }

    /// The content of the file at `path`, which no link leads to.
    fn content(&self, path: &str) -> Vec<u8> {
        match self.tree.get(path) {
            Some(Content::File(bytes)) => bytes.clone(),
            _ => Vec::new(),
        }
    }
}

impl Forge for FakeForge {
    fn projects(&self) -> BoxFuture<'_, Result<Vec<ProjectName>, ForgeError>> {
        self.answer("projects", |state| Ok(state.repositories.keys().cloned().collect()))
    }

    fn exists<'a>(&'a self, project: &'a ProjectName) -> BoxFuture<'a, Result<bool, ForgeError>> {
        self.answer("exists", |state| Ok(state.repositories.contains_key(project)))
    }

    fn create<'a>(&'a self, project: &'a ProjectName, branch: &'a str) -> BoxFuture<'a, Result<(), ForgeError>> {
        self.answer("create", |state| {
            let new = || Repository {
                default_branch: branch.to_string(),
                ..Repository::default()
            };
            state.repositories.entry(project.clone()).or_insert_with(new);
            Ok(())
        })
    }

    fn default_branch<'a>(&'a self, project: &'a ProjectName) -> BoxFuture<'a, Result<String, ForgeError>> {
        self.answer_of("default_branch", project, |repository| {
            Ok(repository.default_branch.clone())
        })
    }

    fn set_default_branch<'a>(
        &'a self,
        project: &'a ProjectName,
        branch: &'a str,
    ) -> BoxFuture<'a, Result<(), ForgeError>> {
        self.answer_of("set_default_branch", project, |repository| {
            repository.default_branch = branch.to_string();
            Ok(())
        })
    }

    fn refs<'a>(&'a self, project: &'a ProjectName) -> BoxFuture<'a, Result<Vec<(String, CommitId)>, ForgeError>> {
        self.answer_of("refs", project, |repository| {
            let refs = repository.refs.iter();
            let shown = refs.filter(|(name, _)| name.starts_with("refs/heads/") || name.starts_with("refs/tags/"));
            Ok(shown.map(|(name, id)| (name.clone(), id.clone())).collect())
        })
    }

    fn find<'a>(&'a self, project: &'a ProjectName, word: &'a str) -> BoxFuture<'a, Result<CommitId, ForgeError>> {
        self.answer_of("find", project, |repository| {
            let missing = || ForgeError::not_found(project, format!("commit, branch or tag `{word}`"));
            repository.find(word).cloned().ok_or_else(missing)
        })
    }

    fn commit<'a>(&'a self, project: &'a ProjectName, id: &'a CommitId) -> BoxFuture<'a, Result<Commit, ForgeError>> {
        self.answer_of("commit", project, |repository| {
            Ok(repository.must_have(project, id)?.commit.clone())
        })
    }

    fn log<'a>(
        &'a self,
        project: &'a ProjectName,
        from: Option<&'a CommitId>,
        to: &'a CommitId,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Commit>, ForgeError>> {
        self.answer_of("log", project, |repository| {
            for id in from.into_iter().chain([to]) {
                repository.must_have(project, id)?;
            }
            let left_out = from.map(|from| repository.history(from)).unwrap_or_default();
            let left_out: BTreeSet<&CommitId> = left_out.iter().map(|stored| &stored.commit.id).collect();
            let history = repository.history(to);
            let shown = history.iter().filter(|stored| !left_out.contains(&stored.commit.id));
            Ok(shown.take(limit).map(|stored| stored.commit.clone()).collect())
        })
    }

    fn file<'a>(
        &'a self,
        project: &'a ProjectName,
        commit: &'a CommitId,
        path: &'a str,
    ) -> BoxFuture<'a, Result<Vec<u8>, ForgeError>> {
        self.answer_of("file", project, |repository| {
            let missing = || ForgeError::not_found(project, format!("file `{path}` at {}", commit.short()));
            let stored = repository.stored(commit).ok_or_else(missing)?;
            let found = stored.listing().find(path).map_err(|why| ForgeError::Unread {
                commit: commit.clone(),
                path: path.to_string(),
                why,
            })?;
            found.map(|(real, _)| stored.content(&real)).ok_or_else(missing)
        })
    }

    fn files<'a>(
        &'a self,
        project: &'a ProjectName,
        commit: &'a CommitId,
        folder: &'a str,
        select: Select<'a>,
    ) -> BoxFuture<'a, Result<Vec<TreeFile>, ForgeError>> {
        self.answer_of("files", project, |repository| {
            let stored = repository.must_have(project, commit)?;
            let found = stored.listing().walk(folder, select).into_iter();
            Ok(found
                .map(|entry| TreeFile {
                    path: entry.path,
                    content: entry.found.map(|(real, _)| stored.content(&real)),
                })
                .collect())
        })
    }

    fn source<'a>(
        &'a self,
        project: &'a ProjectName,
        commit: &'a CommitId,
        _branch: Option<&'a str>,
        _origin: &'a str,
    ) -> BoxFuture<'a, Result<SourceStream, ForgeError>> {
        self.answer_of("source", project, |repository| {
            let stored = repository.must_have(project, commit)?;
            let failed = || ForgeError::io(format!("archive {commit}"));
            let mut archive = tar::Builder::new(Vec::new());
            for (path, content) in &stored.tree {
                let mut header = tar::Header::new_gnu();
                header.set_mode(0o644);
                match content {
                    Content::File(bytes) => {
                        header.set_size(bytes.len() as u64);
                        archive
                            .append_data(&mut header, path, bytes.as_slice())
                            .map_err(failed())?;
                    }
                    // A checkout has an empty folder here, which an archive need not have.
                    Content::Submodule => {}
                    Content::Link(target) => {
                        header.set_entry_type(tar::EntryType::Symlink);
                        header.set_size(0);
                        archive.append_link(&mut header, path, target).map_err(failed())?;
                    }
                }
            }
            let bytes = Bytes::from(archive.into_inner().map_err(failed())?);
            let stream: SourceStream = Box::pin(futures::stream::once(async move { Ok(bytes) }));
            Ok(stream)
        })
    }
}
