//! The working tree in which a command runs.

use anyhow::{Context, Result, bail};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};
use towpath_delivery::{
    DOT_K8S, Diagnostic, LaptopRequest, Layout, ListedPath, ManifestFile, PROJECT_FILE, ProjectFile, Reading, Wanted,
    is_of_a_pipeline, listed_path, manifest_files, select_manifests,
};
use towpath_forge::{TreeEntry, TreeFile, Unread, WorkingTree, WorkingTreeError};
use towpath_types::CommitId;

/// The name of a Dockerfile.
const DOCKERFILE: &str = "Dockerfile";

/// A repository's working tree.
#[derive(Debug)]
pub struct Repository {
    /// The root folder of the working tree.
    pub root: PathBuf,
    /// The content of `towpath.toml`; empty without one.
    pub file: ProjectFile,
    file_text: Option<String>,
    paths: OnceLock<Vec<ListedPath>>,
    tree: WorkingTree,
}

impl Repository {
    /// Finds the repository that contains the current folder.
    ///
    /// # Errors
    /// When there is none, or its `towpath.toml` cannot be read.
    pub fn find() -> Result<Self> {
        let here = std::env::current_dir().context("failed to find the current folder")?;
        let root = here
            .ancestors()
            .find(|dir| dir.join(".git").exists() || dir.join(PROJECT_FILE).exists());
        let Some(root) = root else {
            bail!(
                "`{}` is not in a git repository: change into the one to work with",
                here.display()
            );
        };
        Self::at(root)
    }

    /// Opens the repository whose root is `root`.
    ///
    /// # Errors
    /// When its `towpath.toml` cannot be read.
    pub fn at(root: &Path) -> Result<Self> {
        let tree = WorkingTree::open(root)?;
        let file_text = tree.text(PROJECT_FILE)?;
        let file = file_text.as_deref().map(ProjectFile::parse).transpose()?;
        Ok(Self {
            root: root.to_path_buf(),
            file: file.unwrap_or_default(),
            file_text,
            paths: OnceLock::new(),
            tree,
        })
    }

    /// The project's name, from the file or the folder's name.
    pub fn project(&self) -> String {
        let folder = || {
            let name = self.root.file_name().map(|name| name.to_string_lossy().into_owned());
            project_of_folder(&name.unwrap_or_default())
        };
        self.file.project.clone().unwrap_or_else(folder)
    }

    /// Runs git here and returns what it prints, without its last line end.
    pub fn git(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new("git")
            .current_dir(&self.root)
            // A commit is what its id says, even if a fetched `refs/replace/*` says otherwise.
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .args(arguments)
            .output()
            .context("failed to run git: is it installed?")?;
        if !output.status.success() {
            bail!(
                "`git {}` failed: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_string())
    }

    /// The commit that is checked out, if there is one.
    pub fn commit(&self) -> Option<CommitId> {
        self.git(&["rev-parse", "--verify", "--quiet", "HEAD"])
            .ok()?
            .parse()
            .ok()
    }

    /// The branch that is checked out; `None` when detached.
    pub fn branch(&self) -> Option<String> {
        self.git(&["symbolic-ref", "--quiet", "--short", "HEAD"]).ok()
    }

    /// Every file that environments are made from, for the server.
    pub fn request(&self) -> Result<LaptopRequest> {
        Ok(LaptopRequest {
            files: self.manifests()?,
            project_file: self.file_text.clone(),
            commit: self.commit(),
            ..LaptopRequest::default()
        })
    }

    /// The paths of all files that git does not ignore and of what cannot be read, in any order: as a commit has them, with what is
    /// behind a link to a folder.
    fn listed(&self) -> &[ListedPath] {
        self.paths.get_or_init(|| {
            let Walked {
                files,
                links,
                submodules,
            } = self.walk("");
            let file = |path: String| ListedPath { path, is_unread: false };
            let links = links.into_iter().flat_map(|link| self.behind(link));
            let submodules = submodules.into_iter().filter(|path| self.is_submodule(path));
            let submodules = submodules.map(|path| ListedPath { path, is_unread: true });
            files.into_iter().map(file).chain(links).chain(submodules).collect()
        })
    }

    /// What a link stands for: a file, the files of a folder, or something that cannot be read.
    fn behind(&self, link: String) -> Vec<ListedPath> {
        let one = |is_unread| {
            vec![ListedPath {
                path: link.clone(),
                is_unread,
            }]
        };
        match self.tree.file(&link) {
            Ok(Some(_)) => one(false),
            // It disappeared meanwhile.
            Ok(None) => Vec::new(),
            Err(WorkingTreeError::Unread {
                why: Unread::Folder, ..
            }) => {
                let found = Mutex::new(Vec::new());
                let select = |entries: &mut Vec<TreeEntry>| {
                    let entries = entries.drain(..).map(listed_path);
                    found.lock().unwrap_or_else(PoisonError::into_inner).extend(entries);
                };
                match self.tree.files(&link, &select) {
                    Ok(_) => found.into_inner().unwrap_or_else(PoisonError::into_inner),
                    Err(_) => one(true),
                }
            }
            // Whoever reads it says why.
            Err(_) => one(true),
        }
    }

    fn is_submodule(&self, path: &str) -> bool {
        let found = self.tree.file(path);
        matches!(
            found,
            Err(WorkingTreeError::Unread {
                why: Unread::Submodule,
                ..
            })
        )
    }

    /// What git does not ignore below a folder.
    fn walk(&self, folder: &str) -> Walked {
        let apart = Arc::new(Mutex::new(Vec::new()));
        let noted = apart.clone();
        let is_apart = move |entry: &ignore::DirEntry| {
            let is_folder = entry.file_type().is_some_and(|kind| kind.is_dir());
            let is_repository = entry.depth() > 0 && is_folder && entry.path().join(".git").exists();
            if is_repository && entry.file_name() != ".git" {
                let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                noted.push(entry.path().to_path_buf());
            }
            entry.file_name() == ".git" || is_repository
        };
        let walk = ignore::WalkBuilder::new(self.root.join(folder))
            .hidden(false)
            .require_git(false)
            .filter_entry(move |entry| !is_apart(entry))
            .build();
        let mut found = Walked::default();
        for entry in walk.flatten() {
            let Some(kind) = entry.file_type() else { continue };
            match self.path_of(entry.path()) {
                Some(path) if kind.is_file() => found.files.push(path),
                Some(path) if kind.is_symlink() => found.links.push(path),
                _ => {}
            }
        }
        let apart = std::mem::take(&mut *apart.lock().unwrap_or_else(PoisonError::into_inner));
        let apart = apart.iter().filter_map(|path| self.path_of(path));
        // A submodule that was never fetched is an empty folder.
        let named = self.tree.submodules().map(str::to_string);
        let below = named.filter(|path| Path::new(path).starts_with(folder));
        found.submodules = apart.chain(below).collect();
        found
    }

    /// A path of this machine as one from the root of the repository.
    fn path_of(&self, path: &Path) -> Option<String> {
        Some(path.strip_prefix(&self.root).ok()?.to_str()?.to_string())
    }

    fn paths(&self) -> impl Iterator<Item = &String> {
        self.listed().iter().map(|listed| &listed.path)
    }

    /// The paths of the Dockerfiles: the root's first, then the nearest to it. Leaves out files that git ignores.
    pub fn dockerfiles(&self) -> Vec<String> {
        let is_one = |path: &&String| {
            let name = path.rsplit('/').next().unwrap_or(path);
            let is_named = name.starts_with("Dockerfile.") || name.ends_with(".Dockerfile");
            name == DOCKERFILE || (is_named && !name.ends_with(".dockerignore"))
        };
        let mut found: Vec<String> = self.paths().filter(is_one).cloned().collect();
        found.sort_by_key(|path| (path.matches('/').count(), path.clone()));
        found
    }

    /// The files that may say how the pipeline builds images: paths and texts. Leaves out what cannot be read.
    pub fn pipeline_files(&self) -> Vec<(String, String)> {
        let paths = self.paths().filter(|path| is_of_a_pipeline(path));
        let read = |path: &String| Some((path.clone(), std::fs::read_to_string(self.root.join(path)).ok()?));
        let mut files: Vec<(String, String)> = paths.filter_map(read).collect();
        files.sort_unstable();
        files
    }

    /// The files of a [`Self::request`], by path. Includes what cannot be read: the code that makes the plan decides which
    /// environment needs it.
    pub fn manifests(&self) -> Result<Vec<ManifestFile>> {
        let mut reading = Reading::new(&self.file.layout);
        while let Some(wanted) = reading.step() {
            match wanted {
                Wanted::Files(places) => {
                    let mut files = Vec::new();
                    for place in &places {
                        files.extend(self.files_at(place)?);
                    }
                    reading.read(manifest_files(files));
                }
                Wanted::Paths => reading.listed(self.listed()),
            }
        }
        Ok(reading.into_files())
    }

    /// The file at `place`, or the files below it that a plan needs. A commit has no ignored files, so a plan needs none; in
    /// the folder of all manifests they count, because somebody put them there.
    fn files_at(&self, place: &str) -> Result<Vec<TreeFile>> {
        let places = BTreeSet::from([place.to_string()]);
        if self.root.join(place).is_file() {
            let content = match self.tree.file(place) {
                Ok(Some(bytes)) => Ok(bytes),
                Ok(None) => return Ok(Vec::new()),
                Err(WorkingTreeError::Unread { why, .. }) => Err(why),
                Err(error) => return Err(error.into()),
            };
            let path = place.to_string();
            return Ok(vec![TreeFile { path, content }]);
        }
        let kept = (place != DOT_K8S).then(|| {
            let Walked {
                files,
                links,
                submodules,
            } = self.walk(place);
            files
                .into_iter()
                .chain(links)
                .chain(submodules)
                .collect::<BTreeSet<String>>()
        });
        let is_kept = |path: &str| {
            let mut around = std::iter::successors(Some(path), |path| path.rsplit_once('/').map(|(folder, _)| folder));
            // What is around the place, or the place itself, cannot be read.
            let is_around = Path::new(place).starts_with(path);
            is_around || kept.as_ref().is_none_or(|kept| around.any(|path| kept.contains(path)))
        };
        let select = |entries: &mut Vec<TreeEntry>| {
            entries.retain(|entry| is_kept(&entry.path));
            select_manifests(&places, entries);
        };
        Ok(self.tree.files(place, &select)?)
    }

    /// The layout of the working tree with the files that it was recognised in, and what is wrong with it.
    pub fn layout(&self) -> Result<(Layout, Vec<ManifestFile>, Vec<Diagnostic>)> {
        let files = self.manifests()?;
        let texts = files.iter().map(|file| (file.path.as_str(), file.text_or_nothing()));
        let (layout, wrong) = Layout::read(texts, &self.file.layout);
        Ok((layout, files, wrong))
    }
}

/// What git does not ignore, by paths from the root.
#[derive(Default)]
struct Walked {
    files: Vec<String>,
    links: Vec<String>,
    /// Repositories in this one. Nothing below them is looked at.
    submodules: Vec<String>,
}

/// A folder's name as a project can have it: `My App` is `my-app`.
fn project_of_folder(folder: &str) -> String {
    let plain = |c: char| match c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') {
        true => c.to_ascii_lowercase(),
        false => '-',
    };
    let name: String = folder.chars().map(plain).collect();
    let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let name: String = name.chars().take(63).collect();
    name.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).to_string()
}
