//! Reading a repository: refs, commits, files.

use super::{GitForge, program::Failure};
use crate::{
    Commit, ForgeError, Select, TreeFile,
    tree::{EVERYTHING, Entry, LONGEST_LINK_BYTES, Listing},
};
use std::collections::BTreeMap;
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
        // The whole name: for a branch whose name a tag has too, `--short` answers `heads/<branch>`, which is another branch.
        let text = self.git(project, &["symbolic-ref", "HEAD"], Vec::new()).await??;
        let text = String::from_utf8_lossy(&text);
        let name = text.trim();
        Ok(name.strip_prefix("refs/heads/").unwrap_or(name).to_string())
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
            // 1: no ref has this name; 128: git does not understand the word.
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
        let tree = self.tree(project, commit, path).await?;
        let found = tree.listing.find(path).map_err(|why| ForgeError::Unread {
            commit: commit.clone(),
            path: path.to_string(),
            why,
        })?;
        let missing = || ForgeError::not_found(project, format!("file `{path}` at {}", commit.short()));
        let (real, _) = found.ok_or_else(missing)?;
        let mut content = self.read_blobs(project, &[tree.id(&real)]).await?;
        content.pop().ok_or_else(missing)
    }

    pub(super) async fn read_files(
        &self,
        project: &ProjectName,
        commit: &CommitId,
        folder: &str,
        select: Select<'_>,
    ) -> Result<Vec<TreeFile>, ForgeError> {
        let tree = self.tree(project, commit, folder).await?;
        let entries = tree.listing.walk(folder, select);
        let reals = entries.iter().filter_map(|entry| entry.found.as_ref().ok());
        let ids: Vec<&str> = reals.map(|(real, _)| tree.id(real)).collect();
        let mut contents = self.read_blobs(project, &ids).await?.into_iter();
        let files = entries.into_iter().map(|entry| TreeFile {
            path: entry.path,
            // There is one content for each file that was found.
            content: entry.found.map(|_| contents.next().unwrap_or_default()),
        });
        Ok(files.collect())
    }

    /// Reads the part of a commit's tree that is needed to find `path` and everything below it. Reads more only if there are
    /// links.
    async fn tree(&self, project: &ProjectName, commit: &CommitId, path: &str) -> Result<KnownTree, ForgeError> {
        let paths: &[&str] = match path {
            "" => &[],
            path => &[path],
        };
        let below = self.list_tree(project, commit, &["-r", "-l"], paths).await?;
        let is_special = |entry: &Listed| entry.kind != ListedKind::File;
        if !below.is_empty() && !below.iter().any(is_special) {
            return Ok(KnownTree::of(below, &BTreeMap::new()));
        }
        if below.is_empty() {
            // A folder of the path may be a link.
            let folders = path.match_indices('/').map(|(end, _)| &path[..end]);
            let on_the_way: Vec<&str> = folders.collect();
            let on_the_way = match on_the_way.is_empty() {
                true => Vec::new(),
                false => self.list_tree(project, commit, &[], &on_the_way).await?,
            };
            if !on_the_way.iter().any(is_special) {
                return Ok(KnownTree::default());
            }
        }
        let all = self.list_tree(project, commit, &["-r"], &[]).await?;
        let links: Vec<&str> = all
            .iter()
            .filter(|entry| entry.kind == ListedKind::Link)
            .map(|entry| &*entry.id)
            .collect();
        let sizes = self.read_sizes(project, &links).await?;
        let short = |id: &&str| sizes.get(*id).is_some_and(|bytes| *bytes <= LONGEST_LINK_BYTES);
        let links: Vec<&str> = links.into_iter().filter(short).collect();
        let texts = self.read_blobs(project, &links).await?;
        let texts = links.iter().map(ToString::to_string).zip(texts).collect();
        let mut tree = KnownTree::of(all, &texts);
        // Read the sizes only of the files that may be read, not of the whole repository.
        let mut reals: Vec<String> = tree
            .listing
            .find(path)
            .ok()
            .flatten()
            .map(|(real, _)| real)
            .into_iter()
            .collect();
        let found = tree.listing.walk(path, EVERYTHING).into_iter();
        reals.extend(found.filter_map(|entry| Some(entry.found.ok()?.0)));
        let ids: Vec<&str> = reals.iter().map(|real| tree.id(real)).collect();
        let sizes = self.read_sizes(project, &ids).await?;
        for real in reals {
            let bytes = sizes.get(tree.id(&real)).copied().unwrap_or_default();
            tree.listing.insert(real, Entry::File { bytes });
        }
        Ok(tree)
    }

    async fn list_tree(
        &self,
        project: &ProjectName,
        commit: &CommitId,
        options: &[&str],
        paths: &[&str],
    ) -> Result<Vec<Listed>, ForgeError> {
        let mut arguments = vec!["ls-tree", "-z", "--full-tree"];
        arguments.extend(options);
        arguments.extend([commit.as_str(), "--"]);
        arguments.extend(paths);
        let listing = self.git(project, &arguments, Vec::new()).await?;
        let listing = listing.map_err(|failure| missing_commit(project, failure, commit.as_str()))?;
        let records = listing.split(|byte| *byte == 0).filter(|record| !record.is_empty());
        let entries = records.map(|record| {
            Listed::parse(record).ok_or_else(|| ForgeError::Git {
                command: "ls-tree".to_string(),
                stderr: format!("`{}` is not an entry of a tree", String::from_utf8_lossy(record)),
            })
        });
        entries.collect()
    }

    /// The size of each object, by id.
    async fn read_sizes(&self, project: &ProjectName, ids: &[&str]) -> Result<BTreeMap<String, u64>, ForgeError> {
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let format = "--batch-check=%(objectname) %(objectsize)";
        let output = self.git(project, &["cat-file", format], lines(ids)).await??;
        let output = String::from_utf8_lossy(&output);
        let sizes = output.lines().filter_map(|line| {
            let (id, size) = line.split_once(' ')?;
            Some((id.to_string(), size.parse().ok()?))
        });
        Ok(sizes.collect())
    }

    /// The content of each object, in the order of `ids`.
    async fn read_blobs(&self, project: &ProjectName, ids: &[&str]) -> Result<Vec<Vec<u8>>, ForgeError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let output = self.git(project, &["cat-file", "--batch"], lines(ids)).await??;
        let mut rest = output.as_slice();
        let broken = |id: &str| ForgeError::Git {
            command: "cat-file".into(),
            stderr: format!("it did not print the object {id}"),
        };
        ids.iter()
            .map(|id| take_blob(&mut rest).ok_or_else(|| broken(id)))
            .collect()
    }
}

/// The beginning of `text`. Every pipeline stores it, and pages show it.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

fn lines(ids: &[&str]) -> Vec<u8> {
    ids.iter().flat_map(|id| [id.as_bytes(), b"\n"].concat()).collect()
}

/// The part of a commit's tree that was read.
#[derive(Default)]
struct KnownTree {
    listing: Listing,
    /// The objects of files and links, by path.
    ids: BTreeMap<String, String>,
}

impl KnownTree {
    /// Builds the tree. `texts` holds the targets of links, keyed by their objects.
    fn of(entries: Vec<Listed>, texts: &BTreeMap<String, Vec<u8>>) -> Self {
        let mut tree = Self::default();
        for entry in entries {
            let path = match String::from_utf8(entry.path) {
                Ok(path) => path,
                Err(error) => {
                    // The name of the first folder or file that is not UTF-8.
                    let (good, bytes) = (error.utf8_error().valid_up_to(), error.as_bytes());
                    let end = bytes[good..].iter().position(|byte| *byte == b'/');
                    let name = &bytes[..end.map_or(bytes.len(), |end| good + end)];
                    let name = String::from_utf8_lossy(name).into_owned();
                    tree.listing.insert(name, Entry::BadName);
                    continue;
                }
            };
            let content = match entry.kind {
                ListedKind::File => Entry::File { bytes: entry.bytes },
                ListedKind::Submodule => Entry::Submodule,
                ListedKind::Folder => continue,
                ListedKind::Link => match texts.get(&entry.id).map(|text| String::from_utf8(text.clone())) {
                    Some(Ok(target)) => Entry::Link(target),
                    Some(Err(_)) => Entry::Other("a link whose text is not UTF-8"),
                    None => Entry::Other("a link whose text is too long"),
                },
            };
            tree.ids.insert(path.clone(), entry.id);
            tree.listing.insert(path, content);
        }
        tree
    }

    fn id(&self, path: &str) -> &str {
        self.ids.get(path).map(String::as_str).unwrap_or_default()
    }
}

fn missing_commit(project: &ProjectName, failure: Failure, name: &str) -> ForgeError {
    if failure.is_missing_object() {
        ForgeError::not_found(project, format!("commit {name}"))
    } else {
        failure.into()
    }
}

/// One line of `git ls-tree -z`: `<mode> <type> <id>\t<path>`, with `-l` a size before the tab.
struct Listed {
    kind: ListedKind,
    id: String,
    /// 0 without `-l`, and where there is no size.
    bytes: u64,
    path: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ListedKind {
    File,
    Folder,
    Link,
    Submodule,
}

impl Listed {
    fn parse(record: &[u8]) -> Option<Self> {
        let tab = record.iter().position(|byte| *byte == b'\t')?;
        let (meta, path) = (std::str::from_utf8(&record[..tab]).ok()?, &record[tab + 1..]);
        let mut words = meta.split(' ').filter(|word| !word.is_empty());
        let (mode, _, id) = (words.next()?, words.next()?, words.next()?);
        let kind = match mode {
            "120000" => ListedKind::Link,
            "160000" => ListedKind::Submodule,
            "040000" => ListedKind::Folder,
            mode if mode.starts_with("100") => ListedKind::File,
            _ => return None,
        };
        Some(Self {
            kind,
            id: id.to_string(),
            bytes: words.next().and_then(|size| size.parse().ok()).unwrap_or_default(),
            path: path.to_vec(),
        })
    }
}

/// Takes one answer of `git cat-file --batch` from `output`; `None` if it is not a blob.
///
/// Source: <https://git-scm.com/docs/git-cat-file#_batch_output>
fn take_blob(output: &mut &[u8]) -> Option<Vec<u8>> {
    let end = output.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(&output[..end]).ok()?;
    let (what, size) = line.rsplit_once(' ')?;
    let size: usize = size.parse().ok().filter(|_| what.ends_with(" blob"))?;
    let body = output.get(end + 1..)?;
    let content = body.get(..size)?;
    *output = body.get(size..)?.strip_prefix(b"\n")?;
    Some(content.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_a_batch_are_taken_one_by_one() {
        let mut output: &[u8] = b"0123 blob 4\na\nb\n\n4567 blob 0\n\n89ab missing\n";
        assert_eq!(take_blob(&mut output), Some(b"a\nb\n".to_vec()));
        assert_eq!(take_blob(&mut output), Some(Vec::new()));
        assert_eq!(take_blob(&mut output), None);
        let mut cut: &[u8] = b"0123 blob 10\nabc";
        assert_eq!(take_blob(&mut cut), None);
        let mut tree: &[u8] = b"0123 tree 2\nxx\n";
        assert_eq!(take_blob(&mut tree), None);
    }
}
