//! Which files a folder of a tree has. A commit and a working tree give the same answer.
//!
//! Follows symbolic links as a checkout does, but never out of the repository. The answer keeps an entry for what cannot be
//! read: a plan that left it out would prune the objects that it created before.

use std::{collections::BTreeMap, fmt};
use towpath_types::visible_name;

/// The largest file that Towpath reads. Manifests and configurations are smaller.
pub const LARGEST_FILE_BYTES: u64 = 8 << 20;

/// The most bytes that the files of one answer may have together.
pub const LARGEST_TREE_BYTES: u64 = 32 << 20;

/// The most entries of a tree that one answer looks at. Links can make a small tree endless.
const MOST_ENTRIES: usize = 250_000;

/// The deepest nesting of folders.
const MOST_FOLDERS: usize = 100;

/// The most links to follow on the way to one file, as on Linux.
const MOST_LINKS: usize = 40;

/// The longest target of a link, as on Linux.
pub(crate) const LONGEST_LINK_BYTES: u64 = 4096;

/// One file of a tree, or the reason why an entry cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeFile {
    /// The path from the repository's root, as seen from the folder that the caller asked for.
    pub path: String,
    /// The file's bytes, or why they cannot be read. A link to a folder that cannot be followed is one such entry.
    pub content: Result<Vec<u8>, Unread>,
}

/// Why an entry of a tree cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unread {
    /// A link to nothing, with its target.
    LeadsNowhere(String),
    /// A link out of the repository, with its target.
    LeadsOut(String),
    /// A link to itself or to a folder around it, with its target.
    LeadsBack(String),
    /// A commit of another repository.
    Submodule,
    /// A folder, where the caller needs a file.
    Folder,
    /// Not a folder where the caller needs one, or neither a file nor a folder: ``a socket``.
    NoFile(&'static str),
    /// A name that is not UTF-8.
    Name,
    /// A name with a line break or another control character, which could forge the lines of a plan.
    ControlCharacter,
    /// A file with more than the allowed bytes. Holds its size.
    TooLarge(u64),
    /// The largest of several files that are too large together.
    TooMuch {
        /// The file's size.
        bytes: u64,
        /// The size of all files.
        together: u64,
    },
    /// More entries than Towpath looks at.
    TooMany,
    /// Nested in more folders than Towpath looks into.
    TooDeep,
}

impl fmt::Display for Unread {
    /// The rest of a sentence whose subject is the path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeadsNowhere(target) => {
                write!(
                    f,
                    "is a link to `{}`, and there is nothing: mend or remove the link",
                    target.escape_debug()
                )
            }
            Self::LeadsOut(target) => write!(
                f,
                "is a link to `{}`, which is outside of this repository: a commit does not hold it; put the file into the repository",
                target.escape_debug()
            ),
            Self::LeadsBack(target) => write!(
                f,
                "is a link to `{}`, which leads back to where it comes from: remove it",
                target.escape_debug()
            ),
            Self::Submodule => f.write_str(
                "is a git submodule: this repository's commits do not hold its files; put them into the repository",
            ),
            Self::Folder => f.write_str("is a folder, and a file is needed"),
            Self::NoFile(what) => write!(f, "is {what}, and neither a file nor a folder"),
            Self::Name => f.write_str("has a name that is not UTF-8: rename it"),
            Self::ControlCharacter => {
                f.write_str("has a name with a line break or another control character: rename it")
            }
            Self::TooLarge(bytes) => write!(
                f,
                "has {}, and a file may have {} MiB: split it",
                mib(*bytes),
                LARGEST_FILE_BYTES >> 20
            ),
            Self::TooMuch { bytes, together } => write!(
                f,
                "has {}: it is among the largest of files that have {} together, and {} MiB are read",
                mib(*bytes),
                mib(*together),
                LARGEST_TREE_BYTES >> 20
            ),
            Self::TooDeep => write!(f, "has more than {MOST_FOLDERS} folders around it"),
            Self::TooMany => write!(
                f,
                "has more than {MOST_ENTRIES} files and folders, those behind links counted: does a link lead to a folder around it?"
            ),
        }
    }
}

/// `4.6 MiB`, rounded up so that a size above a limit never looks as if it fits.
fn mib(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10).div_ceil(1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

/// An entry of a tree. Links are not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    File { bytes: u64 },
    Folder,
    Link(String),
    Submodule,
    Other(&'static str),
    BadName,
}

/// Looks up the entries of a tree. Paths start at the root, without links on the way; the root is the empty path.
pub(crate) trait Entries {
    type Error;

    fn entry(&self, path: &str) -> Result<Option<Entry>, Self::Error>;

    /// The entries of a folder with their names, in any order.
    fn list(&self, folder: &str) -> Result<Vec<(String, Entry)>, Self::Error>;
}

/// The path of a file after all links are followed, and its size.
pub type RealFile = (String, u64);

/// A file that [`walk`] finds, and where its content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// The path from the repository's root, as seen from the folder that the caller asked for.
    pub path: String,
    #[allow(missing_docs)]
    pub found: Result<RealFile, Unread>,
}

/// Keeps the wanted entries, once their paths are known. Towpath does not read the entries that it removes, and reports no
/// errors about them.
pub type Select<'a> = &'a (dyn Fn(&mut Vec<TreeEntry>) + Send + Sync);

/// Keeps every entry.
pub const EVERYTHING: Select<'static> = &|_| {};

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
enum Resolved {
    File(String, u64),
    Folder(String),
    Nothing,
}

fn resolve<E: Entries>(entries: &E, path: &str) -> Result<Result<Resolved, Unread>, E::Error> {
    let parts = |text: &str| text.split('/').map(str::to_string).collect::<Vec<_>>();
    let mut ahead: Vec<String> = parts(path).into_iter().rev().collect();
    let mut real: Vec<String> = Vec::new();
    // The first link on the way, with the length of the path after it. An error before that part is reached is the link's
    // fault.
    let mut followed: Option<(String, usize)> = None;
    let mut links = 0;
    let lost = |followed: &Option<(String, usize)>| match followed {
        Some((target, _)) => Err(Unread::LeadsNowhere(target.clone())),
        None => Ok(Resolved::Nothing),
    };
    let mut last = Resolved::Folder(String::new());
    while let Some(part) = ahead.pop() {
        followed = followed.filter(|(_, behind)| ahead.len() >= *behind);
        match (part.as_str(), &last) {
            // Nothing is below a file, not even `.`.
            (_, Resolved::File(..)) => return Ok(lost(&followed)),
            ("" | ".", _) => continue,
            ("..", _) => {
                if real.pop().is_none() {
                    let target = followed.map_or_else(|| path.to_string(), |(target, _)| target);
                    return Ok(Err(Unread::LeadsOut(target)));
                }
                last = Resolved::Folder(real.join("/"));
                continue;
            }
            _ => real.push(part),
        }
        let here = real.join("/");
        match entries.entry(&here)? {
            None => return Ok(lost(&followed)),
            Some(Entry::File { bytes }) => last = Resolved::File(here, bytes),
            Some(Entry::Folder) => last = Resolved::Folder(here),
            Some(Entry::Submodule) => return Ok(Err(Unread::Submodule)),
            Some(Entry::Other(what)) => return Ok(Err(Unread::NoFile(what))),
            Some(Entry::BadName) => return Ok(Err(Unread::Name)),
            Some(Entry::Link(target)) => {
                links += 1;
                let (first, _) = followed.get_or_insert_with(|| (target.clone(), ahead.len())).clone();
                if links > MOST_LINKS {
                    return Ok(Err(Unread::LeadsBack(first)));
                }
                if target.starts_with('/') {
                    return Ok(Err(Unread::LeadsOut(first)));
                }
                if target.is_empty() || target.len() as u64 > LONGEST_LINK_BYTES {
                    return Ok(Err(Unread::LeadsNowhere(first.chars().take(80).collect())));
                }
                real.pop();
                last = Resolved::Folder(real.join("/"));
                ahead.extend(parts(&target).into_iter().rev());
            }
        }
    }
    Ok(Ok(last))
}

/// Finds the file at `path`: where its content is, and its size. `None` if there is no such entry.
pub(crate) fn find<E: Entries>(entries: &E, path: &str) -> Result<Result<Option<RealFile>, Unread>, E::Error> {
    Ok(match resolve(entries, path)? {
        Ok(Resolved::Nothing) => Ok(None),
        Ok(Resolved::Folder(_)) => Err(Unread::Folder),
        Ok(Resolved::File(_, bytes)) if bytes > LARGEST_FILE_BYTES => Err(Unread::TooLarge(bytes)),
        Ok(Resolved::File(real, bytes)) => Ok(Some((real, bytes))),
        Err(unread) => Err(unread),
    })
}

/// Everything below `folder`, sorted by path; empty if there is no such folder. Only entries that `select` keeps count towards
/// the size limits.
pub(crate) fn walk<E: Entries>(entries: &E, folder: &str, select: Select<'_>) -> Result<Vec<TreeEntry>, E::Error> {
    let mut walk = Walk {
        entries,
        found: Vec::new(),
        looked_at: 0,
        around: Vec::new(),
    };
    match resolve(entries, folder)? {
        Ok(Resolved::Nothing) => {}
        Ok(Resolved::Folder(real)) => walk.folder(folder, &real)?,
        Ok(Resolved::File(..)) => walk.unread(folder.to_string(), Unread::NoFile("a file, where a folder is needed")),
        Err(unread) => walk.unread(folder.to_string(), unread),
    }
    let mut found = walk.found;
    if walk.looked_at > MOST_ENTRIES {
        // A partial answer would be as wrong as an empty one.
        found = vec![TreeEntry {
            path: folder.to_string(),
            found: Err(Unread::TooMany),
        }];
    }
    found.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    select(&mut found);
    refuse_what_is_too_large(&mut found);
    Ok(found)
}

struct Walk<'a, E> {
    entries: &'a E,
    found: Vec<TreeEntry>,
    looked_at: usize,
    /// The folders that contain the current one, with links followed.
    around: Vec<String>,
}

impl<E: Entries> Walk<'_, E> {
    fn unread(&mut self, path: String, why: Unread) {
        self.found.push(TreeEntry { path, found: Err(why) });
    }

    /// Whether the walk is in this folder, or below it.
    fn is_around(&self, real: &str) -> bool {
        let below = |folder: &String| match folder.strip_prefix(real) {
            Some(rest) => real.is_empty() || rest.is_empty() || rest.starts_with('/'),
            None => false,
        };
        self.around.iter().any(below)
    }

    fn folder(&mut self, path: &str, real: &str) -> Result<(), E::Error> {
        self.around.push(real.to_string());
        for (name, entry) in self.entries.list(real)? {
            self.looked_at += 1;
            if self.looked_at > MOST_ENTRIES {
                break;
            }
            let below = |folder: &str| match folder {
                "" => name.clone(),
                folder => format!("{folder}/{name}"),
            };
            if name.contains(char::is_control) {
                let shown = match path {
                    "" => visible_name(&name).into_owned(),
                    folder => format!("{folder}/{}", visible_name(&name)),
                };
                self.unread(shown, Unread::ControlCharacter);
                continue;
            }
            let (path, real) = (below(path), below(real));
            let target = match &entry {
                Entry::Link(target) => target.clone(),
                _ => name.clone(),
            };
            let resolved = match entry {
                Entry::File { bytes } => Ok(Resolved::File(real, bytes)),
                Entry::Folder => Ok(Resolved::Folder(real)),
                Entry::BadName => Err(Unread::Name),
                Entry::Link(_) | Entry::Submodule | Entry::Other(_) => resolve(self.entries, &real)?,
            };
            match resolved {
                Ok(Resolved::File(real, bytes)) => self.found.push(TreeEntry {
                    path,
                    found: Ok((real, bytes)),
                }),
                Ok(Resolved::Folder(real)) if self.is_around(&real) => {
                    self.unread(path, Unread::LeadsBack(target));
                }
                Ok(Resolved::Folder(_)) if self.around.len() >= MOST_FOLDERS => self.unread(path, Unread::TooDeep),
                Ok(Resolved::Folder(real)) => self.folder(&path, &real)?,
                // The entry disappeared meanwhile.
                Ok(Resolved::Nothing) => {}
                Err(why) => self.unread(path, why),
            }
        }
        self.around.pop();
        Ok(())
    }
}

fn refuse_what_is_too_large(found: &mut [TreeEntry]) {
    for entry in found.iter_mut() {
        if let Ok((_, bytes)) = entry.found
            && bytes > LARGEST_FILE_BYTES
        {
            entry.found = Err(Unread::TooLarge(bytes));
        }
    }
    let size = |entry: &TreeEntry| entry.found.as_ref().map_or(0, |(_, bytes)| *bytes);
    let together: u64 = found.iter().map(size).sum();
    let mut rest = together;
    let mut largest: Vec<usize> = (0..found.len()).collect();
    largest.sort_by_key(|at| std::cmp::Reverse(size(&found[*at])));
    for at in largest {
        if rest <= LARGEST_TREE_BYTES {
            break;
        }
        let bytes = size(&found[at]);
        rest -= bytes;
        found[at].found = Err(Unread::TooMuch { bytes, together });
    }
}

/// A whole tree in memory, such as a commit's.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Files, links and submodules, keyed by path.
    entries: BTreeMap<String, Entry>,
}

impl Listing {
    pub fn insert(&mut self, path: String, entry: Entry) {
        self.entries.insert(path, entry);
    }

    /// Like [`find`], for a tree whose entries cannot fail to load.
    pub fn find(&self, path: &str) -> Result<Option<RealFile>, Unread> {
        match find(self, path) {
            Ok(found) => found,
            Err(never) => match never {},
        }
    }

    /// Like [`walk`], for a tree whose entries cannot fail to load.
    pub fn walk(&self, folder: &str, select: Select<'_>) -> Vec<TreeEntry> {
        match walk(self, folder, select) {
            Ok(found) => found,
            Err(never) => match never {},
        }
    }

    fn below<'a>(&'a self, folder: &str) -> impl Iterator<Item = (&'a str, &'a Entry)> {
        let prefix = match folder {
            "" => String::new(),
            folder => format!("{folder}/"),
        };
        let entries = self.entries.range(prefix.clone()..);
        entries.map_while(move |(path, entry)| Some((path.strip_prefix(&prefix)?, entry)))
    }
}

impl Entries for Listing {
    type Error = std::convert::Infallible;

    fn entry(&self, path: &str) -> Result<Option<Entry>, Self::Error> {
        let named = self.entries.get(path).cloned();
        Ok(named.or_else(|| self.below(path).next().map(|_| Entry::Folder)))
    }

    fn list(&self, folder: &str) -> Result<Vec<(String, Entry)>, Self::Error> {
        let mut found: Vec<(String, Entry)> = Vec::new();
        for (rest, entry) in self.below(folder) {
            let (name, entry) = match rest.split_once('/') {
                Some((name, _)) => (name, Entry::Folder),
                None => (rest, entry.clone()),
            };
            if found.last().is_none_or(|(last, _)| last != name) {
                found.push((name.to_string(), entry));
            }
        }
        Ok(found)
    }
}
