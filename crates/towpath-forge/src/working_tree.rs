//! The files of a working tree, as a commit of it would have them.

use crate::{
    text::NotText,
    tree::{self, Entries, Entry, Select, TreeFile, Unread},
};
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

/// A working tree on this machine.
///
/// It answers like a [`Forge`](crate::Forge) for a commit of the same files: links out of the repository and submodules cannot
/// be read, though the files are there.
#[derive(Debug)]
pub struct WorkingTree {
    root: PathBuf,
    /// The submodules that `.gitmodules` names. A submodule that was never fetched is an empty folder.
    submodules: BTreeSet<String>,
}

/// Why a file of a working tree cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WorkingTreeError {
    /// The file exists, but is not a readable file of the repository.
    #[error("`{path}` {why}")]
    Unread {
        /// The path from the root.
        path: String,
        /// The reason, as the rest of a sentence.
        why: Unread,
    },
    /// The file exists, but is not text.
    #[error("`{path}` {why}")]
    NotText {
        /// The path from the root.
        path: String,
        /// The reason, as the rest of a sentence.
        why: NotText,
    },
    /// The operating system refused.
    #[error("failed to read `{path}`")]
    Io {
        /// The path on this machine.
        path: String,
        /// The operating system's reason.
        source: io::Error,
    },
}

impl WorkingTree {
    /// Opens the working tree whose root is `root`.
    ///
    /// # Errors
    /// When its `.gitmodules` cannot be read.
    pub fn open(root: &Path) -> Result<Self, WorkingTreeError> {
        let path = root.join(".gitmodules");
        let text = match fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(failed(&path)(source)),
        };
        let paths = text.lines().filter_map(|line| {
            let (key, value) = line.split_once('=')?;
            let value = value.trim().trim_matches('"').trim_end_matches('/');
            (key.trim() == "path").then(|| value.to_string())
        });
        Ok(Self {
            root: root.to_path_buf(),
            submodules: paths.collect(),
        })
    }

    /// The paths of the submodules that `.gitmodules` names.
    pub fn submodules(&self) -> impl Iterator<Item = &str> {
        self.submodules.iter().map(String::as_str)
    }

    /// The file at `path`; `None` if there is no such file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn file(&self, path: &str) -> Result<Option<Vec<u8>>, WorkingTreeError> {
        match tree::find(self, path)? {
            Ok(Some((real, _))) => self.read(&real).map(Some),
            Ok(None) => Ok(None),
            Err(why) => Err(WorkingTreeError::Unread {
                path: path.to_string(),
                why,
            }),
        }
    }

    /// The text at `path`; `None` if there is no such file.
    ///
    /// # Errors
    /// When it cannot be read, or is not UTF-8.
    pub fn text(&self, path: &str) -> Result<Option<String>, WorkingTreeError> {
        let text = |bytes| {
            crate::text(bytes).map_err(|why| WorkingTreeError::NotText {
                path: path.to_string(),
                why,
            })
        };
        self.file(path)?.map(text).transpose()
    }

    /// Every file below `folder` that `select` leaves, sorted by path; empty if there is no such folder.
    ///
    /// # Errors
    /// When a folder cannot be listed, or a file cannot be read.
    pub fn files(&self, folder: &str, select: Select<'_>) -> Result<Vec<TreeFile>, WorkingTreeError> {
        let read = |entry: tree::TreeEntry| {
            let content = match entry.found {
                Ok((real, _)) => Ok(self.read(&real)?),
                Err(why) => Err(why),
            };
            Ok(TreeFile {
                path: entry.path,
                content,
            })
        };
        tree::walk(self, folder, select)?.into_iter().map(read).collect()
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, WorkingTreeError> {
        let path = self.root.join(path);
        fs::read(&path).map_err(failed(&path))
    }

    fn entry_of(&self, path: &str, metadata: &fs::Metadata) -> Result<Entry, WorkingTreeError> {
        use std::os::unix::fs::FileTypeExt as _;
        let kind = metadata.file_type();
        let here = self.root.join(path);
        Ok(if kind.is_file() {
            Entry::File { bytes: metadata.len() }
        } else if kind.is_symlink() {
            match fs::read_link(&here)
                .map_err(failed(&here))?
                .into_os_string()
                .into_string()
            {
                Ok(target) => Entry::Link(target),
                Err(_) => Entry::Other("a link whose text is not UTF-8"),
            }
        } else if kind.is_dir() {
            match self.is_submodule(path, &here) {
                true => Entry::Submodule,
                false => Entry::Folder,
            }
        } else if kind.is_fifo() {
            Entry::Other("a pipe")
        } else if kind.is_socket() {
            Entry::Other("a socket")
        } else {
            Entry::Other("a device")
        })
    }

    fn is_submodule(&self, path: &str, here: &Path) -> bool {
        let is_empty = || fs::read_dir(here).is_ok_and(|mut entries| entries.next().is_none());
        here.join(".git").symlink_metadata().is_ok() || (self.submodules.contains(path) && is_empty())
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> WorkingTreeError {
    let path = path.display().to_string();
    move |source| WorkingTreeError::Io { path, source }
}

impl Entries for WorkingTree {
    type Error = WorkingTreeError;

    fn entry(&self, path: &str) -> Result<Option<Entry>, Self::Error> {
        let here = self.root.join(path);
        match here.symlink_metadata() {
            Ok(metadata) => self.entry_of(path, &metadata).map(Some),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(source) => Err(failed(&here)(source)),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<(String, Entry)>, Self::Error> {
        let here = self.root.join(folder);
        let mut found = Vec::new();
        for entry in fs::read_dir(&here).map_err(failed(&here))? {
            let entry = entry.map_err(failed(&here))?;
            // A commit never holds git's own folder.
            if entry.file_name() == ".git" {
                continue;
            }
            let name = match entry.file_name().into_string() {
                Ok(name) => name,
                Err(name) => {
                    found.push((name.to_string_lossy().into_owned(), Entry::BadName));
                    continue;
                }
            };
            let path = match folder {
                "" => name.clone(),
                folder => format!("{folder}/{name}"),
            };
            // The file may disappear meanwhile.
            if let Some(entry) = self.entry(&path)? {
                found.push((name, entry));
            }
        }
        Ok(found)
    }
}
