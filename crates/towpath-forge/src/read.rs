//! What is in a repository: refs, commits, files.

use crate::{Forge, ForgeError, ProjectName};
use towpath_types::CommitId;

/// One ref that a push moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefUpdate {
    /// `refs/heads/main`.
    pub name: String,
    /// Where it was; `None` when it was made.
    pub old: Option<CommitId>,
    /// Where it is; `None` when it was deleted.
    pub new: Option<CommitId>,
}

impl RefUpdate {
    /// Reads a line of the `post-receive` hook's input: `<old> <new> <ref>`; an id of zeroes is none.
    ///
    /// Source: <https://git-scm.com/docs/githooks#post-receive>
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(3, ' ');
        let mut id = || -> Option<Option<CommitId>> {
            let word = words.next()?;
            if word.bytes().all(|b| b == b'0') {
                Some(None)
            } else {
                word.parse().ok().map(Some)
            }
        };
        let (old, new) = (id()?, id()?);
        let name = words.next()?.trim_end().to_string();
        name.starts_with("refs/").then_some(Self { name, old, new })
    }

    /// The branch, when this is one.
    #[must_use]
    pub fn branch(&self) -> Option<&str> {
        self.name.strip_prefix("refs/heads/")
    }

    /// The tag, when this is one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.name.strip_prefix("refs/tags/")
    }
}

/// A commit, as people speak of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its id.
    pub id: CommitId,
    /// The first line of its message.
    pub subject: String,
    /// The rest of its message.
    pub body: String,
    /// Its author's name.
    pub author: String,
}

/// One file of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeFile {
    /// Its path from the repository's root.
    pub path: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// Files larger than this are not read into memory: no manifest or configuration is.
const LARGEST_FILE_BYTES: u64 = 4 << 20;

/// How many links may lead to one another.
const MOST_LINKS: usize = 8;

/// Where a link at `link` leads that says `target`, within the repository.
fn joined(link: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = link.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

impl Forge {
    /// Every branch and tag with the commit that it leads to (a tag object is followed).
    ///
    /// # Errors
    /// When the project is unknown or git fails.
    pub async fn refs(&self, project: &ProjectName) -> Result<Vec<(String, CommitId)>, ForgeError> {
        let format = "--format=%(objectname) %(*objectname) %(refname)";
        let text = self
            .git(project, &["for-each-ref", format, "refs/heads", "refs/tags"])
            .await?;
        let text = String::from_utf8_lossy(&text);
        let refs = text.lines().filter_map(|line| {
            let mut words = line.splitn(3, ' ');
            let (object, peeled, name) = (words.next()?, words.next()?, words.next()?);
            let id = if peeled.is_empty() { object } else { peeled };
            Some((name.to_string(), id.parse().ok()?))
        });
        Ok(refs.collect())
    }

    /// The branch that `HEAD` names.
    ///
    /// # Errors
    /// When the project is unknown or git fails.
    pub async fn default_branch(&self, project: &ProjectName) -> Result<String, ForgeError> {
        let text = self.git(project, &["symbolic-ref", "--short", "HEAD"]).await?;
        Ok(String::from_utf8_lossy(&text).trim().to_string())
    }

    /// Makes `HEAD` name another branch.
    ///
    /// # Errors
    /// When the project is unknown, the name is none of a branch, or git fails.
    pub async fn set_default_branch(&self, project: &ProjectName, branch: &str) -> Result<(), ForgeError> {
        let name = format!("refs/heads/{branch}");
        self.git(project, &["symbolic-ref", "HEAD", &name]).await.map(drop)
    }

    /// The commit that `word` leads to: a branch, a tag, an id or the beginning of one.
    ///
    /// # Errors
    /// When nothing, or more than one thing, is called that.
    pub async fn find(&self, project: &ProjectName, word: &str) -> Result<CommitId, ForgeError> {
        let missing = || ForgeError::NotFound {
            project: project.clone(),
            what: format!("commit, branch or tag `{word}`"),
        };
        if word.starts_with('-') || word.is_empty() {
            return Err(missing());
        }
        let spec = format!("{word}^{{commit}}");
        match self
            .git(
                project,
                &["rev-parse", "--verify", "--quiet", "--end-of-options", &spec],
            )
            .await
        {
            Ok(text) => String::from_utf8_lossy(&text).trim().parse().map_err(|_| missing()),
            Err(ForgeError::Git { .. }) => Err(missing()),
            Err(other) => Err(other),
        }
    }

    /// What `id` says.
    ///
    /// # Errors
    /// When it is not there or git fails.
    pub async fn commit(&self, project: &ProjectName, id: &CommitId) -> Result<Commit, ForgeError> {
        let mut commits = self.log(project, None, id, 1).await?;
        commits.pop().ok_or_else(|| ForgeError::NotFound {
            project: project.clone(),
            what: format!("commit {id}"),
        })
    }

    /// The commits that lead to `to` and not to `from`, newest first, at most `limit`.
    ///
    /// # Errors
    /// When a commit is not there or git fails.
    pub async fn log(
        &self,
        project: &ProjectName,
        from: Option<&CommitId>,
        to: &CommitId,
        limit: usize,
    ) -> Result<Vec<Commit>, ForgeError> {
        let count = format!("--max-count={limit}");
        let range = from.map_or_else(|| to.to_string(), |from| format!("{from}..{to}"));
        let text = self
            .git(
                project,
                &["log", "-z", "--format=%H%n%an%n%s%n%b", &count, &range, "--"],
            )
            .await?;
        let text = String::from_utf8_lossy(&text);
        let commits = text.split('\0').filter_map(|record| {
            let mut lines = record.splitn(4, '\n');
            let (id, author, subject) = (lines.next()?, lines.next()?, lines.next()?);
            let body = lines.next().unwrap_or_default().trim().to_string();
            Some(Commit {
                id: id.parse().ok()?,
                subject: subject.to_string(),
                body,
                author: author.to_string(),
            })
        });
        Ok(commits.collect())
    }

    /// One file of a commit.
    ///
    /// # Errors
    /// `NotFound` when the commit has no such file.
    pub async fn file(&self, project: &ProjectName, commit: &CommitId, path: &str) -> Result<Vec<u8>, ForgeError> {
        let spec = format!("{commit}:{path}");
        match self.git(project, &["cat-file", "blob", &spec]).await {
            Err(ForgeError::Git { .. }) => Err(ForgeError::NotFound {
                project: project.clone(),
                what: format!("file `{path}` at {}", commit.short()),
            }),
            other => other,
        }
    }

    /// Every file below `folder`, by path, and what symbolic links to files of the same commit lead to; none when there is no
    /// such folder.
    ///
    /// # Errors
    /// When the commit is not there or git fails.
    pub async fn files(
        &self,
        project: &ProjectName,
        commit: &CommitId,
        folder: &str,
    ) -> Result<Vec<TreeFile>, ForgeError> {
        let listing = self
            .git(
                project,
                &[
                    "ls-tree",
                    "-r",
                    "-l",
                    "-z",
                    "--full-tree",
                    commit.as_str(),
                    "--",
                    folder,
                ],
            )
            .await?;
        let mut files = Vec::new();
        for record in String::from_utf8_lossy(&listing).split('\0') {
            // "<mode> blob <id> <size>\t<path>"; submodules are not files.
            let Some((meta, path)) = record.split_once('\t') else {
                continue;
            };
            let mut words = meta.split_ascii_whitespace();
            let (Some(mode), Some("blob"), Some(_), Some(size)) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                continue;
            };
            if size.parse::<u64>().is_ok_and(|bytes| bytes > LARGEST_FILE_BYTES) {
                continue;
            }
            let bytes = match mode {
                "120000" => match self.behind_link(project, commit, path).await? {
                    Some(bytes) => bytes,
                    None => continue,
                },
                mode if mode.starts_with("100") => self.file(project, commit, path).await?,
                _ => continue,
            };
            files.push(TreeFile {
                path: path.to_string(),
                bytes,
            });
        }
        Ok(files)
    }

    /// The file that a symbolic link leads to; `None` when that is no file of the commit.
    async fn behind_link(
        &self,
        project: &ProjectName,
        commit: &CommitId,
        link: &str,
    ) -> Result<Option<Vec<u8>>, ForgeError> {
        let mut path = link.to_string();
        for _ in 0..MOST_LINKS {
            let target = self.file(project, commit, &path).await?;
            let Some(next) = joined(&path, &String::from_utf8_lossy(&target)) else {
                return Ok(None);
            };
            path = next;
            let listing = self
                .git(project, &["ls-tree", "-z", "--full-tree", commit.as_str(), "--", &path])
                .await?;
            let listing = String::from_utf8_lossy(&listing).into_owned();
            match listing.split(' ').next() {
                Some("120000") => {}
                Some(mode) if mode.starts_with("100") => return self.file(project, commit, &path).await.map(Some),
                _ => return Ok(None),
            }
        }
        Ok(None)
    }
}
