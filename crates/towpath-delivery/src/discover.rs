//! Finds a project's environments in its default branch, and stores them as rows.

use crate::{
    environment::unseen,
    error::DeliveryError,
    manifests::{Source, Whereabouts, environments_in, fill_in, namespace_pattern},
    project_file::ProjectFile,
    repository::{Repositories, project_name},
    retry::until_stored,
};
use std::{collections::BTreeMap, sync::Arc};
use towpath_deploy::{
    Environment,
    render::{RenderError, RenderFailure, Renderer},
};
use towpath_manifest::ManifestFile;
use towpath_store::{Commit, EnvironmentRow, Expect, Store, Write};
use towpath_types::{EnvironmentId, ProjectName, with_causes};

/// The result of a discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovered {
    /// The environments in the manifests.
    pub environments: Vec<EnvironmentId>,
    /// Whether the result depends on the manifests alone. If not, a program that renders them was missing or too slow:
    /// discover again later.
    pub is_final: bool,
}

/// Finds the environments of projects.
#[derive(Clone)]
pub struct Discoverer {
    store: Arc<dyn Store>,
    renderer: Arc<Renderer>,
    repositories: Repositories,
}

impl Discoverer {
    pub(crate) fn new(store: Arc<dyn Store>, renderer: Arc<Renderer>, repositories: Repositories) -> Self {
        Self {
            store,
            renderer,
            repositories,
        }
    }

    /// Stores the environments on a project's default branch, and where they are.
    ///
    /// # Errors
    /// When the project's repository or the store does not answer.
    pub async fn discover(&self, project: &ProjectName) -> Result<Discovered, DeliveryError> {
        let (files, project_file) = match self.repositories.head(project).await? {
            Some(head) => {
                // Whoever deploys reports an unreadable file.
                let file = self
                    .repositories
                    .default_project_file(project)
                    .await?
                    .unwrap_or_default();
                (self.repositories.manifests(project, &head, &file.layout).await?, file)
            }
            // An empty repository has no environments.
            None => (Vec::new(), ProjectFile::default()),
        };
        self.discover_in(project.as_str(), files, &project_file).await
    }

    /// Stores the environments in `files`, for a project without a repository here.
    ///
    /// # Errors
    /// When the store does not answer; `Invalid` for a name that is no project's.
    pub async fn discover_in(
        &self,
        project: &str,
        files: Vec<ManifestFile>,
        project_file: &ProjectFile,
    ) -> Result<Discovered, DeliveryError> {
        let name = project_name(project)?;
        let Found {
            environments: found,
            is_whole,
            is_final,
        } = self.find(project, files, project_file).await;
        until_stored!(async {
            let known = self.store.environments(Some(&name)).await?;
            let mut commit = Commit::new();
            for write in changes(&known, &found, is_whole) {
                commit.write(write);
            }
            if !commit.is_empty() {
                self.store.commit(commit).await?;
            }
            Ok(())
        })?;
        Ok(Discovered {
            environments: found.into_keys().collect(),
            is_final,
        })
    }

    async fn find(&self, project: &str, files: Vec<ManifestFile>, project_file: &ProjectFile) -> Found {
        let pattern = namespace_pattern(project, project_file);
        let unread = Source::unread_of(&files);
        let rendered = self
            .renderer
            .render(
                files,
                &project_file.layout,
                project,
                None,
                |kube_context, environment| fill_in(&pattern, kube_context, environment),
            )
            .await;
        for failure in &rendered.failures {
            let (environment, error) = (&failure.environment, with_causes(&failure.error));
            tracing::warn!(
                project,
                environment,
                error,
                "an environment is listed without its manifests"
            );
        }
        // What a program rejects, it rejects again. A missing or slow program may work next time.
        let is_for_good =
            |failure: &RenderFailure| matches!(failure.error, RenderError::Refused { .. } | RenderError::Unread { .. });
        let is_final = rendered.failures.iter().all(is_for_good);
        let source = Source::new(unread, rendered);
        Found {
            environments: environments_in(project, &source, project_file),
            is_whole: source.knows_environments(),
            is_final,
        }
    }
}

/// The environments found in a project's manifests.
struct Found {
    environments: BTreeMap<EnvironmentId, Whereabouts>,
    /// Whether the list is complete: an unreadable folder may hide environments.
    is_whole: bool,
    /// Whether another look would find the same.
    is_final: bool,
}

/// The rows to change so that exactly `found` is listed, if the list `is_whole`.
fn changes(known: &[EnvironmentRow], found: &BTreeMap<EnvironmentId, Whereabouts>, is_whole: bool) -> Vec<Write> {
    let mut writes = Vec::new();
    for (id, whereabouts) in found {
        let before = known.iter().find(|row| row.id == *id);
        let (place, ambiguous) = match whereabouts {
            Whereabouts::At(place) => (place.clone(), Vec::new()),
            Whereabouts::Ambiguous(folders) => (nowhere(id), folders.clone()),
        };
        let mut row = before.cloned().unwrap_or_else(|| unseen(&place));
        row.kube_context = place.kube_context;
        row.namespace = place.namespace;
        row.ambiguous = ambiguous;
        row.listed = true;
        match before {
            Some(before) if *before == row => {}
            Some(before) => writes.push(Write::Environment(row, Expect::Version(before.version))),
            None => writes.push(Write::Environment(row, Expect::Absent)),
        }
    }
    // An environment with a deployment outlives its manifests.
    let is_gone = |row: &&EnvironmentRow| is_whole && row.listed && !found.contains_key(&row.id);
    for row in known.iter().filter(is_gone) {
        let gone = EnvironmentRow {
            listed: false,
            ..row.clone()
        };
        writes.push(Write::Environment(gone, Expect::Version(row.version)));
    }
    writes
}

/// The place of an environment that several folders have.
fn nowhere(id: &EnvironmentId) -> Environment {
    Environment {
        id: id.clone(),
        kube_context: String::new(),
        namespace: String::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::rows;

    fn at(environment: &str, namespace: &str) -> (EnvironmentId, Whereabouts) {
        let id = EnvironmentId::new("claims", environment).unwrap();
        let place = Environment {
            id: id.clone(),
            kube_context: "live".into(),
            namespace: namespace.into(),
        };
        (id, Whereabouts::At(place))
    }

    fn rows_of(writes: Vec<Write>) -> Vec<(EnvironmentRow, Expect)> {
        writes
            .into_iter()
            .map(|write| match write {
                Write::Environment(row, expect) => (row, expect),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn only_what_changed_is_written() {
        let found = BTreeMap::from([at("dev", "claims-dev"), at("qa", "claims-qa")]);
        let listed = |environment: &str| EnvironmentRow {
            kube_context: "live".into(),
            namespace: format!("claims-{environment}"),
            listed: true,
            version: 4,
            ..rows::environment("claims", environment)
        };
        let known = [listed("dev"), listed("gone")];
        let writes = rows_of(changes(&known, &found, true));
        let said: Vec<(&str, bool, Expect)> = writes
            .iter()
            .map(|(row, expect)| (row.id.environment(), row.listed, *expect))
            .collect();
        assert_eq!(
            said,
            [("qa", true, Expect::Absent), ("gone", false, Expect::Version(4))]
        );
        let dev = BTreeMap::from([at("dev", "claims-dev")]);
        assert!(changes(&[listed("dev")], &dev, true).is_empty());
        assert!(changes(&[listed("dev"), listed("unread")], &dev, false).is_empty());
    }

    #[test]
    fn an_environment_that_moved_keeps_what_was_seen() {
        let before = EnvironmentRow {
            release: Some(towpath_types::ReleaseId::from_u128(1)),
            listed: true,
            ..rows::environment("claims", "dev")
        };
        let found = BTreeMap::from([at("dev", "elsewhere")]);
        let [(row, _)] = rows_of(changes(std::slice::from_ref(&before), &found, true))
            .try_into()
            .unwrap();
        assert_eq!((row.namespace.as_str(), row.release), ("elsewhere", before.release));
    }
}
