//! Reads a project's repository: its project file, its manifests, its history.

use crate::{
    error::{DeliveryError, ErrorKind},
    manifests::{listed_path, manifest_files, select_manifests},
    plan::PlanCommit,
    project_file::{PROJECT_FILE, ProjectFile},
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};
use towpath_forge::{Forge, ForgeError, TreeEntry};
use towpath_manifest::{DOT_K8S, LayoutSettings, ManifestFile, Reading, Wanted};
use towpath_types::{CommitId, ProjectName};

/// How many commits a plan lists.
const MOST_COMMITS: usize = 50;

/// Converts an environment's project name, which is always a valid project name.
pub(crate) fn project_name(project: &str) -> Result<ProjectName, DeliveryError> {
    project
        .parse()
        .map_err(|error: towpath_types::ProjectNameError| DeliveryError::invalid(error.to_string()))
}

/// The project file of a default branch.
pub(crate) enum DefaultFile {
    /// The project has no repository here.
    NoRepository,
    Read(Box<ProjectFile>),
    /// The reason why it cannot be read.
    Unreadable(String),
}

/// Reads projects' repositories. A project may have none here: a laptop deploys from its own.
#[derive(Clone)]
pub(crate) struct Repositories {
    forge: Arc<dyn Forge>,
}

impl Repositories {
    pub(crate) fn new(forge: Arc<dyn Forge>) -> Self {
        Self { forge }
    }

    /// The newest commit of the default branch; `None` without a repository here, and before the first push.
    pub(crate) async fn head(&self, project: &ProjectName) -> Result<Option<CommitId>, DeliveryError> {
        if !self.forge.exists(project).await? {
            return Ok(None);
        }
        let branch = self.forge.default_branch(project).await?;
        self.tip(project, &branch).await
    }

    /// The newest commit of a branch; `None` if the branch does not exist. Uses the full ref name, because a tag may
    /// have the same name.
    async fn tip(&self, project: &ProjectName, branch: &str) -> Result<Option<CommitId>, DeliveryError> {
        match self.forge.find(project, &format!("refs/heads/{branch}")).await {
            Ok(commit) => Ok(Some(commit)),
            Err(ForgeError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a branch has `commit` in its history.
    pub(crate) async fn is_on_branch(
        &self,
        project: &ProjectName,
        commit: &CommitId,
        branch: &str,
    ) -> Result<bool, DeliveryError> {
        if !self.forge.exists(project).await? {
            return Ok(false);
        }
        let Some(tip) = self.tip(project, branch).await? else {
            return Ok(false);
        };
        // The log leaves out what the branch shares with the commit's history: either all of it, or not even the
        // commit.
        match self.forge.log(project, Some(&tip), commit, 1).await {
            Ok(missing) => Ok(missing.is_empty()),
            Err(ForgeError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The name of the default branch; `main` without a repository here.
    pub(crate) async fn default_branch(&self, project: &ProjectName) -> Result<String, DeliveryError> {
        match self.forge.default_branch(project).await {
            Ok(branch) => Ok(branch),
            Err(ForgeError::UnknownProject(_)) => Ok("main".into()),
            Err(error) => Err(error.into()),
        }
    }

    /// The project file at a commit, or the default if the commit has none.
    ///
    /// # Errors
    /// `Invalid`, with line and column, when it cannot be read.
    pub(crate) async fn project_file(
        &self,
        project: &ProjectName,
        commit: &CommitId,
    ) -> Result<ProjectFile, DeliveryError> {
        match self.project_file_text(project, commit).await? {
            Some(text) => ProjectFile::parse(&text).map_err(|error| DeliveryError::invalid(error.to_string())),
            None => Ok(ProjectFile::default()),
        }
    }

    async fn project_file_text(
        &self,
        project: &ProjectName,
        commit: &CommitId,
    ) -> Result<Option<String>, DeliveryError> {
        match self.forge.file(project, commit, PROJECT_FILE).await {
            Ok(bytes) => towpath_forge::text(bytes)
                .map(Some)
                .map_err(|why| DeliveryError::invalid(format!("`{PROJECT_FILE}` {why}"))),
            Err(ForgeError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The project file on the default branch; `None` without a repository here, before the first push, and while the
    /// file is unreadable.
    pub(crate) async fn default_project_file(
        &self,
        project: &ProjectName,
    ) -> Result<Option<ProjectFile>, DeliveryError> {
        let Some(head) = self.head(project).await? else {
            return Ok(None);
        };
        match self.project_file_text(project, &head).await {
            Ok(text) => Ok(ProjectFile::parse(&text.unwrap_or_default()).ok()),
            Err(error) if error.kind() == ErrorKind::Invalid => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The state of the project file on the default branch. An empty repository counts as an empty file.
    pub(crate) async fn default_file(&self, project: &ProjectName) -> Result<DefaultFile, DeliveryError> {
        if !self.forge.exists(project).await? {
            return Ok(DefaultFile::NoRepository);
        }
        let text = match self.head(project).await? {
            Some(head) => self.project_file_text(project, &head).await?,
            None if self.forge.refs(project).await?.is_empty() => None,
            // Nobody's rules are not no rules.
            None => {
                let branch = self.forge.default_branch(project).await?;
                return Ok(DefaultFile::Unreadable(format!("there is no branch `{branch}`")));
            }
        };
        Ok(match ProjectFile::parse(&text.unwrap_or_default()) {
            Ok(file) => DefaultFile::Read(Box::new(file)),
            Err(error) => DefaultFile::Unreadable(error.to_string()),
        })
    }

    /// Every file at a commit that environments are made from, for a commit whose project file has these settings.
    pub(crate) async fn manifests(
        &self,
        project: &ProjectName,
        commit: &CommitId,
        settings: &LayoutSettings,
    ) -> Result<Vec<ManifestFile>, DeliveryError> {
        let mut reading = Reading::new(settings);
        while let Some(wanted) = reading.step() {
            match wanted {
                Wanted::Files(places) => {
                    let select = |entries: &mut Vec<TreeEntry>| select_manifests(&places, entries);
                    let files = self.forge.files(project, commit, around(&places), &select);
                    reading.read(manifest_files(files.await?));
                }
                Wanted::Paths => {
                    let paths = Mutex::new(Vec::new());
                    let select = |entries: &mut Vec<TreeEntry>| {
                        // A tree that is too large is one entry without a path.
                        let (too_large, found) = entries.drain(..).partition(|entry| entry.path.is_empty());
                        *entries = too_large;
                        let found: Vec<TreeEntry> = found;
                        let found = found.into_iter().map(listed_path);
                        paths.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
                    };
                    let mut too_large = self.forge.files(project, commit, "", &select).await?;
                    for entry in &mut too_large {
                        entry.path = ".".into();
                    }
                    reading.read(manifest_files(too_large));
                    reading.listed(&paths.into_inner().unwrap_or_else(PoisonError::into_inner));
                }
            }
        }
        Ok(reading.into_files())
    }

    /// The commits after `from` up to `to`; only `to` without a `from`.
    ///
    /// Empty for a commit that was never pushed here, such as a laptop's: the list is optional in a plan.
    pub(crate) async fn commits_since(
        &self,
        project: &ProjectName,
        from: Option<&CommitId>,
        to: &CommitId,
    ) -> Vec<PlanCommit> {
        let limit = if from.is_some() { MOST_COMMITS } else { 1 };
        let log = self.forge.log(project, from, to, limit).await.unwrap_or_default();
        log.into_iter()
            .map(|commit| PlanCommit {
                id: commit.id,
                author: commit.author,
                subject: commit.subject,
            })
            .collect()
    }
}

/// A folder that contains `places`, to look below: the whole of a single folder's path, as long as it cannot be a file.
fn around(places: &BTreeSet<String>) -> &str {
    let mut all = places.iter();
    match (all.next(), all.next()) {
        (Some(only), None) if only == DOT_K8S => only,
        _ => "",
    }
}
