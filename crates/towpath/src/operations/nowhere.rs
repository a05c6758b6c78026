//! Stand-ins for the repositories and the credentials that a process without a server does not have.

use futures::{
    FutureExt,
    future::{BoxFuture, ready},
};
use std::sync::Arc;
use towpath_delivery::Fingerprinter;
use towpath_deploy::{PullCredentials, SourceError};
use towpath_forge::{Commit, Forge, ForgeError, Select, SourceStream, TreeFile};
use towpath_types::{CommitId, Digest, EnvironmentId, ProjectName, RegistryCredentials};

/// A forge without repositories: every request brings its manifests.
pub struct NoRepositories;

fn unknown<T: Send + 'static>(project: &ProjectName) -> BoxFuture<'static, Result<T, ForgeError>> {
    ready(Err(ForgeError::UnknownProject(project.clone()))).boxed()
}

impl Forge for NoRepositories {
    fn projects(&self) -> BoxFuture<'_, Result<Vec<ProjectName>, ForgeError>> {
        ready(Ok(Vec::new())).boxed()
    }

    fn exists<'a>(&'a self, _: &'a ProjectName) -> BoxFuture<'a, Result<bool, ForgeError>> {
        ready(Ok(false)).boxed()
    }

    fn create<'a>(&'a self, project: &'a ProjectName, _: &'a str) -> BoxFuture<'a, Result<(), ForgeError>> {
        unknown(project)
    }

    fn default_branch<'a>(&'a self, project: &'a ProjectName) -> BoxFuture<'a, Result<String, ForgeError>> {
        unknown(project)
    }

    fn set_default_branch<'a>(&'a self, project: &'a ProjectName, _: &'a str) -> BoxFuture<'a, Result<(), ForgeError>> {
        unknown(project)
    }

    fn refs<'a>(&'a self, project: &'a ProjectName) -> BoxFuture<'a, Result<Vec<(String, CommitId)>, ForgeError>> {
        unknown(project)
    }

    fn find<'a>(&'a self, project: &'a ProjectName, _: &'a str) -> BoxFuture<'a, Result<CommitId, ForgeError>> {
        unknown(project)
    }

    fn commit<'a>(&'a self, project: &'a ProjectName, _: &'a CommitId) -> BoxFuture<'a, Result<Commit, ForgeError>> {
        unknown(project)
    }

    fn log<'a>(
        &'a self,
        project: &'a ProjectName,
        _: Option<&'a CommitId>,
        _: &'a CommitId,
        _: usize,
    ) -> BoxFuture<'a, Result<Vec<Commit>, ForgeError>> {
        unknown(project)
    }

    fn file<'a>(
        &'a self,
        project: &'a ProjectName,
        _: &'a CommitId,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Vec<u8>, ForgeError>> {
        unknown(project)
    }

    fn files<'a>(
        &'a self,
        project: &'a ProjectName,
        _: &'a CommitId,
        _: &'a str,
        _: Select<'a>,
    ) -> BoxFuture<'a, Result<Vec<TreeFile>, ForgeError>> {
        unknown(project)
    }

    fn source<'a>(
        &'a self,
        project: &'a ProjectName,
        _: &'a CommitId,
        _: Option<&'a str>,
        _: &'a str,
    ) -> BoxFuture<'a, Result<SourceStream, ForgeError>> {
        unknown(project)
    }
}

/// No credentials: pods pull with the cluster's own.
pub struct NoCredentials;

impl PullCredentials for NoCredentials {
    fn pull_credentials<'a>(
        &'a self,
        _: &'a EnvironmentId,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Option<RegistryCredentials>, SourceError>> {
        ready(Ok(None)).boxed()
    }
}

/// Fingerprints of values under a key that only this process knows. Equal values have equal fingerprints, which reveal nothing
/// about the values.
pub fn fingerprinter() -> Fingerprinter {
    let key = *uuid::Uuid::new_v4().as_bytes();
    Arc::new(move |value: &[u8]| Digest::of(&[&key, value].concat()).hex().to_string())
}
