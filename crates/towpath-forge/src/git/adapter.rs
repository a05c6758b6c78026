//! [`GitForge`] as a [`Forge`].

use super::GitForge;
use crate::{Commit, Forge, ForgeError, Select, SourceStream, TreeFile};
use futures::future::BoxFuture;
use towpath_types::{CommitId, ProjectName};

impl Forge for GitForge {
    fn projects(&self) -> BoxFuture<'_, Result<Vec<ProjectName>, ForgeError>> {
        Box::pin(self.list())
    }

    fn exists<'a>(&'a self, project: &'a ProjectName) -> BoxFuture<'a, Result<bool, ForgeError>> {
        Box::pin(self.has(project))
    }

    fn create<'a>(&'a self, project: &'a ProjectName, branch: &'a str) -> BoxFuture<'a, Result<(), ForgeError>> {
        Box::pin(self.init(project, branch))
    }

    fn default_branch<'a>(&'a self, project: &'a ProjectName) -> BoxFuture<'a, Result<String, ForgeError>> {
        Box::pin(self.read_default_branch(project))
    }

    fn set_default_branch<'a>(
        &'a self,
        project: &'a ProjectName,
        branch: &'a str,
    ) -> BoxFuture<'a, Result<(), ForgeError>> {
        Box::pin(self.write_default_branch(project, branch))
    }

    fn refs<'a>(&'a self, project: &'a ProjectName) -> BoxFuture<'a, Result<Vec<(String, CommitId)>, ForgeError>> {
        Box::pin(self.read_refs(project))
    }

    fn find<'a>(&'a self, project: &'a ProjectName, word: &'a str) -> BoxFuture<'a, Result<CommitId, ForgeError>> {
        Box::pin(self.read_find(project, word))
    }

    fn commit<'a>(&'a self, project: &'a ProjectName, id: &'a CommitId) -> BoxFuture<'a, Result<Commit, ForgeError>> {
        Box::pin(self.read_commit(project, id))
    }

    fn log<'a>(
        &'a self,
        project: &'a ProjectName,
        from: Option<&'a CommitId>,
        to: &'a CommitId,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Commit>, ForgeError>> {
        Box::pin(self.read_log(project, from, to, limit))
    }

    fn file<'a>(
        &'a self,
        project: &'a ProjectName,
        commit: &'a CommitId,
        path: &'a str,
    ) -> BoxFuture<'a, Result<Vec<u8>, ForgeError>> {
        Box::pin(self.read_file(project, commit, path))
    }

    fn files<'a>(
        &'a self,
        project: &'a ProjectName,
        commit: &'a CommitId,
        folder: &'a str,
        select: Select<'a>,
    ) -> BoxFuture<'a, Result<Vec<TreeFile>, ForgeError>> {
        Box::pin(self.read_files(project, commit, folder, select))
    }

    fn source<'a>(
        &'a self,
        project: &'a ProjectName,
        commit: &'a CommitId,
        branch: Option<&'a str>,
        origin: &'a str,
    ) -> BoxFuture<'a, Result<SourceStream, ForgeError>> {
        Box::pin(self.stream_source(project, commit, branch, origin))
    }
}
