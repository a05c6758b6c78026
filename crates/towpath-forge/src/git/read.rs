//! Reading a repository: refs, commits, files.

use super::{GitForge, program::Failure};
use crate::{Commit, ForgeError, LARGEST_FILE_BYTES, MOST_FILES, MOST_FILES_BYTES, TreeFile};
use towpath_types::{CommitId, ProjectName};

/// How many characters of a subject or a name are read.
const LONGEST_LINE: usize = 1_000;
/// How many characters of the rest of a message are read.
const LONGEST_BODY: usize = 100_000;

impl GitForge {
    pub(super) async fn read_refs(&self, project: &ProjectName) -> Result<Vec<(String, CommitId)>, ForgeError> {
        self.read_refs_at(project, &["refs/heads", "refs/tags"]).await
    }

    /// The refs that `patterns` match, in the sense of `git for-each-ref`.
    async fn read_refs_at(
        &self,
        project: &ProjectName,
        patterns: &[&str],
    ) -> Result<Vec<(String, CommitId)>, ForgeError> {
        let format = "--format=%(objectname) %(refname)";
        let arguments = [&["for-each-ref", format, "--"], patterns].concat();
        let text = self.git(project, &arguments, Vec::new()).await??;
        let text = String::from_utf8_lossy(&text);
        let refs = text.lines().filter_map(|line| {
            let (id, name) = line.split_once(' ')?;
            Some((name.to_string(), id.parse().ok()?))
        });
        Ok(refs.collect())
    }

    pub(super) async fn read_default_branch(&self, project: &ProjectName) -> Result<String, ForgeError> {
        let text = self
            .git(project, &["symbolic-ref", "--short", "HEAD"], Vec::new())
            .await??;
        Ok(String::from_utf8_lossy(&text).trim().to_string())
    }

    pub(super) async fn write_default_branch(&self, project: &ProjectName, branch: &str) -> Result<(), ForgeError> {
        let name = format!("refs/heads/{branch}");
        self.git(project, &["symbolic-ref", "HEAD", &name], Vec::new())
            .await??;
        Ok(())
    }

    pub(super) async fn read_find(&self, project: &ProjectName, word: &str) -> Result<CommitId, ForgeError> {
        let missing = || ForgeError::not_found(project, format!("commit, branch or tag `{word}`"));
        if word.starts_with('-') || word.is_empty() {
            self.must_have(project).await?;
            return Err(missing());
        }
        let mut spec = format!("{word}^{{commit}}");
        if word.starts_with("refs/") {
            let refs = self.read_refs_at(project, &[word]).await?;
            let (_, object) = refs.iter().find(|(name, _)| name == word).ok_or_else(missing)?;
            spec = format!("{object}^{{commit}}");
        }
        let arguments = ["rev-parse", "--verify", "--quiet", "--end-of-options", &spec];
        match self.git(project, &arguments, Vec::new()).await? {
            Ok(text) => String::from_utf8_lossy(&text).trim().parse().map_err(|_| missing()),
            // 1: nothing is named like this; 128: git cannot make sense of the word.
            Err(Failure {
                code: Some(1 | 128), ..
            }) => Err(missing()),
            Err(failure) => Err(failure.into()),
        }
    }

    pub(super) async fn read_commit(&self, project: &ProjectName, id: &CommitId) -> Result<Commit, ForgeError> {
        let mut commits = self.read_log(project, None, id, 1).await?;
        commits
            .pop()
            .ok_or_else(|| ForgeError::not_found(project, format!("commit {id}")))
    }

    pub(super) async fn read_log(
        &self,
        project: &ProjectName,
        from: Option<&CommitId>,
        to: &CommitId,
        limit: usize,
    ) -> Result<Vec<Commit>, ForgeError> {
        let count = format!("--max-count={limit}");
        let range = from.map_or_else(|| to.to_string(), |from| format!("{from}..{to}"));
        let arguments = ["log", "-z", "--format=%H%n%an%n%s%n%b", &count, &range, "--"];
        let text = self.git(project, &arguments, Vec::new()).await?;
        let text = text.map_err(|failure| missing_commit(project, failure, &range))?;
        let text = String::from_utf8_lossy(&text);
        let commits = text.split('\0').filter_map(|record| {
            let mut lines = record.splitn(4, '\n');
            let (id, author, subject) = (lines.next()?, lines.next()?, lines.next()?);
            let body = lines.next().unwrap_or_default().trim();
            Some(Commit {
                id: id.parse().ok()?,
                subject: cut(subject, LONGEST_LINE),
                body: cut(body, LONGEST_BODY),
                author: cut(author, LONGEST_LINE),
            })
        });
        Ok(commits.collect())
    }

    pub(super) async fn read_file(
        &self,
        project: &ProjectName,
        commit: &CommitId,
        path: &str,
    ) -> Result<Vec<u8>, ForgeError> {
        let name = format!("{commit}:{path}");
        let what = format!("file `{path}` at {}", commit.short());
        let found = self
            .read_blobs(project, &[name.into_bytes()], LARGEST_FILE_BYTES)
            .await?;
        let Some(mut found) = found else {
            return Err(ForgeError::too_large(what, LARGEST_FILE_BYTES));
        };
        match found.pop().flatten() {
            Some(bytes) if bytes.len() as u64 > LARGEST_FILE_BYTES => {
                Err(ForgeError::too_large(what, LARGEST_FILE_BYTES))
            }
            Some(bytes) => Ok(bytes),
            None => Err(ForgeError::not_found(project, what)),
        }
    }

    pub(super) async fn read_files(
        &self,
        project: &ProjectName,
        commit: &CommitId,
        folder: &str,
    ) -> Result<Vec<TreeFile>, ForgeError> {
        let arguments = [
            "ls-tree",
            "-r",
            "-l",
            "-z",
            "--full-tree",
            commit.as_str(),
            "--",
            folder,
        ];
        let listing = self.git(project, &arguments, Vec::new()).await?;
        let listing = listing.map_err(|failure| missing_commit(project, failure, commit.as_str()))?;
        let (mut paths, mut names, mut total) = (Vec::new(), Vec::new(), 0);
        for record in listing.split(|byte| *byte == 0).filter(|record| !record.is_empty()) {
            let Some(entry) = Entry::parse(record) else {
                let stderr = format!("`{}` is not an entry of a tree", String::from_utf8_lossy(record));
                let command = "ls-tree".to_string();
                return Err(ForgeError::Git { command, stderr });
            };
            if entry.bytes.is_some_and(|bytes| bytes > LARGEST_FILE_BYTES) {
                let path = String::from_utf8_lossy(entry.path);
                tracing::warn!(%project, %commit, %path, "left out a file that is too large for a manifest");
                continue;
            }
            total += entry.bytes.unwrap_or_default();
            names.push(match entry.kind {
                EntryKind::File => entry.id.to_vec(),
                // Git follows links in names that lead through a tree.
                EntryKind::Link => [commit.as_str().as_bytes(), b":", entry.path].concat(),
                EntryKind::Submodule => continue,
            });
            paths.push(String::from_utf8_lossy(entry.path).into_owned());
        }
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let what = || format!("folder `{folder}` at {}", commit.short());
        if names.len() > MOST_FILES {
            return Err(ForgeError::TooLarge {
                what: what(),
                limit: format!("{MOST_FILES} files"),
            });
        }
        let too_large = || ForgeError::too_large(what(), MOST_FILES_BYTES);
        if total > MOST_FILES_BYTES {
            return Err(too_large());
        }
        // A link may lead to something that is larger than itself.
        let blobs = self
            .read_blobs(project, &names, MOST_FILES_BYTES)
            .await?
            .ok_or_else(too_large)?;
        let files = paths.into_iter().zip(blobs);
        Ok(files
            .filter_map(|(path, bytes)| Some(TreeFile { path, bytes: bytes? }))
            .filter(|file| file.bytes.len() as u64 <= LARGEST_FILE_BYTES)
            .collect())
    }

    /// The content of each object in `names` (an id, or `<commit>:<path>`, links followed), in their order; `None` where there
    /// is no file. `None` instead of all that when it were more than `most` bytes together.
    async fn read_blobs(
        &self,
        project: &ProjectName,
        names: &[Vec<u8>],
        most: u64,
    ) -> Result<Option<Vec<Option<Vec<u8>>>>, ForgeError> {
        // Git reads one name a line, so it cannot be asked for a path with a line break.
        let askable = |name: &&Vec<u8>| !name.contains(&b'\n');
        let input: Vec<u8> = names
            .iter()
            .filter(askable)
            .flat_map(|name| [name, &b"\n"[..]].concat())
            .collect();
        // An answer has a line of its own, which repeats the name where there is no such file.
        let most = most + input.len() as u64 + 128 * names.len() as u64;
        let arguments = ["cat-file", "--batch", "--follow-symlinks"];
        let Some(output) = self.git_at_most(project, &arguments, input, most).await? else {
            return Ok(None);
        };
        let output = output?;
        let mut rest = output.as_slice();
        let broken = || ForgeError::Git {
            command: "cat-file".into(),
            stderr: "its output ended early".into(),
        };
        let mut blobs = Vec::new();
        for name in names {
            blobs.push(match askable(&name) {
                true => take_blob(&mut rest, name).ok_or_else(broken)?,
                false => None,
            });
        }
        Ok(Some(blobs))
    }
}

/// The beginning of `text`: it is stored with every pipeline, and shown on pages.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

fn missing_commit(project: &ProjectName, failure: Failure, name: &str) -> ForgeError {
    if failure.is_missing_object() {
        ForgeError::not_found(project, format!("commit {name}"))
    } else {
        failure.into()
    }
}

/// One line of `git ls-tree -l -z`: `<mode> <type> <id> <size>\t<path>`.
struct Entry<'a> {
    kind: EntryKind,
    id: &'a [u8],
    /// `None` for a submodule.
    bytes: Option<u64>,
    path: &'a [u8],
}

enum EntryKind {
    File,
    Link,
    Submodule,
}

impl<'a> Entry<'a> {
    fn parse(record: &'a [u8]) -> Option<Self> {
        let tab = record.iter().position(|byte| *byte == b'\t')?;
        let (meta, path) = (&record[..tab], &record[tab + 1..]);
        let mut words = meta.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        let (mode, _, id, size) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let kind = match mode {
            b"120000" => EntryKind::Link,
            b"160000" => EntryKind::Submodule,
            mode if mode.starts_with(b"100") => EntryKind::File,
            _ => return None,
        };
        Some(Self {
            kind,
            id,
            bytes: std::str::from_utf8(size).ok()?.parse().ok(),
            path,
        })
    }
}

/// Takes one answer of `git cat-file --batch` from `output`: `Some(None)` when there is no file of that name, `None` when the
/// output is not an answer about `name`.
///
/// Source: <https://git-scm.com/docs/git-cat-file#_batch_output>
fn take_blob(output: &mut &[u8], name: &[u8]) -> Option<Option<Vec<u8>>> {
    for ending in [b" missing\n".as_slice(), b" ambiguous\n"] {
        if let Some(rest) = output.strip_prefix(name).and_then(|rest| rest.strip_prefix(ending)) {
            *output = rest;
            return Some(None);
        }
    }
    let end = output.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(&output[..end]).ok()?;
    let (what, size) = line.rsplit_once(' ')?;
    let size: usize = size.parse().ok()?;
    let body = output.get(end + 1..)?;
    let content = body.get(..size)?;
    *output = body.get(size..)?.strip_prefix(b"\n")?;
    // Besides objects (`<id> blob`) there are links that lead nowhere: `dangling`, `loop`, `notdir` and `symlink`.
    Some(what.ends_with(" blob").then(|| content.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_a_batch_are_taken_one_by_one() {
        let mut output: &[u8] = b"ab:x missing\n0123 blob 4\na\nb\n\nsymlink 3\n../\n0123 tree 2\nxx\nab:a b missing\n";
        let mut take = |name: &str| take_blob(&mut output, name.as_bytes());
        assert_eq!(take("ab:x"), Some(None));
        assert_eq!(take("0123"), Some(Some(b"a\nb\n".to_vec())));
        assert_eq!(take("ab:out"), Some(None));
        assert_eq!(take("ab:folder"), Some(None));
        assert_eq!(take("ab:a b"), Some(None));
        assert_eq!(take("more"), None);
        let mut cut: &[u8] = b"0123 blob 10\nabc";
        assert_eq!(take_blob(&mut cut, b"0123"), None);
    }
}
