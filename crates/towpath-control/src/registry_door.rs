//! Access to the built-in registry: who may push and pull, and what to record about a push.

use crate::tokens::{Grant, Identity, presented};
use futures::future::BoxFuture;
use std::sync::Arc;
use towpath_images::{
    Access, Action, Authorize, Verdict,
    registry::{NotNoted, PushObserver, PushedManifest},
};
use towpath_store::{Commit, ImagePush, Store, StoreError, Write};
use towpath_types::{Clock, ImageReference, ProjectName};

/// Decides who may do what in the registry.
pub(crate) struct RegistryDoor {
    pub identity: Arc<dyn Identity>,
    pub store: Arc<dyn Store>,
}

impl Authorize for RegistryDoor {
    fn authorize<'a>(&'a self, headers: &'a http::HeaderMap, access: &'a Access) -> BoxFuture<'a, Verdict> {
        Box::pin(async move {
            let Some(token) = presented(headers) else {
                return Verdict::Unauthenticated;
            };
            match self.identity.grant(&token) {
                Some(Grant::Owner) => Verdict::Allowed,
                Some(Grant::Pull { project }) => match may(&project, access, &[Action::Pull]) {
                    true => Verdict::Allowed,
                    false => Verdict::Forbidden,
                },
                Some(Grant::JobImages { project, job, attempt }) => {
                    if !may(&project, access, &[Action::Pull, Action::Push]) {
                        return Verdict::Forbidden;
                    }
                    match self.store.job(job).await {
                        Ok(Some(row)) if row.goes_on(attempt) => Verdict::AllowedAs(row.workflow.to_string()),
                        Ok(_) => Verdict::Unauthenticated,
                        Err(error) => {
                            let error = towpath_types::with_causes(&error);
                            tracing::warn!(%job, error, "failed to look whether a job still runs; its push is refused");
                            Verdict::Unavailable
                        }
                    }
                }
                Some(Grant::Agent(_) | Grant::Step(_) | Grant::Hook { .. }) => Verdict::Forbidden,
                None => Verdict::Unauthenticated,
            }
        })
    }
}

/// Whether a token of `project` that permits `actions` permits `access`: only below the project's own name.
fn may(project: &str, access: &Access, actions: &[Action]) -> bool {
    let Some(repository) = &access.repository else {
        return true;
    };
    let name = repository.as_str();
    let own = name == project || name.strip_prefix(project).is_some_and(|rest| rest.starts_with('/'));
    own && actions.contains(&access.action)
}

/// Records a push before the pusher gets an answer, so that everything that a job pushed is known when the job ends.
pub(crate) fn push_recorder(store: Arc<dyn Store>, clock: Arc<dyn Clock>, registry: String) -> PushObserver {
    let runtime = tokio::runtime::Handle::current();
    Arc::new(move |manifest: &PushedManifest| {
        let Some(tag) = &manifest.tag else { return Ok(()) };
        let repository = manifest.repository.as_str();
        // The first part of a repository's name is its project's.
        let first = repository.split('/').next().unwrap_or(repository);
        let project: ProjectName = match first.parse() {
            Ok(project) => project,
            Err(error) => {
                tracing::warn!(repository, %error, "a push to a repository of no project is not recorded");
                return Ok(());
            }
        };
        let push = ImagePush {
            project,
            workflow: manifest.by.as_ref().and_then(|by| by.parse().ok()),
            image: ImageReference {
                registry: Some(registry.clone()),
                repository: repository.to_string(),
                tag: Some(tag.as_str().to_string()),
                digest: Some(manifest.digest.clone()),
            },
            at: clock.now(),
        };
        let image = push.image.clone();
        let recorded = runtime.block_on(store.commit(Commit::new().with(Write::ImagePush(push))));
        recorded.map(drop).map_err(|error| {
            let shown = towpath_types::with_causes(&error);
            tracing::error!(%image, error = shown, "failed to record a push to the registry");
            NotNoted {
                message: "Towpath's own storage does not work".into(),
                is_disk_full: matches!(error, StoreError::Full(_)),
            }
        })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Tokens, testing::job_row};
    use towpath_store::{Database, Expect, JobRow, SqlStore};
    use towpath_types::{JobId, JobStatus, Outcome, SecretString};

    async fn verdict(door: &RegistryDoor, token: &SecretString, repository: &str, action: Action) -> Verdict {
        let mut headers = http::HeaderMap::new();
        let value = format!("Bearer {}", token.expose()).parse().unwrap();
        headers.insert(http::header::AUTHORIZATION, value);
        let access = Access {
            repository: Some(repository.parse().unwrap()),
            action,
        };
        door.authorize(&headers, &access).await
    }

    #[tokio::test]
    async fn a_projects_tokens_reach_its_own_repositories_and_push_while_their_job_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(SqlStore::open(Database::SqliteMemory).await.unwrap());
        let door = RegistryDoor {
            identity: Arc::new(Tokens::open(folder.path()).unwrap()),
            store: store.clone(),
        };
        let row = JobRow {
            status: JobStatus::Running,
            ..job_row(JobId::from_u128(7))
        };
        let put = async |row: &JobRow, expect| {
            let write = Write::Job(row.clone(), expect);
            store.commit(Commit::new().with(write)).await.unwrap();
        };
        put(&row, Expect::Absent).await;
        let of_job = door.identity.issue(&Grant::JobImages {
            project: "claims".into(),
            job: row.id,
            attempt: 1,
        });
        let pull = door.identity.issue(&Grant::Pull {
            project: "claims".into(),
        });
        let as_workflow = Verdict::AllowedAs(row.workflow.to_string());
        for (token, repository, action, expected) in [
            (&of_job, "claims", Action::Push, as_workflow.clone()),
            (&of_job, "claims/cache", Action::Pull, as_workflow),
            (&of_job, "claims", Action::Delete, Verdict::Forbidden),
            (&of_job, "claims-other", Action::Push, Verdict::Forbidden),
            (&of_job, "other/claims", Action::Pull, Verdict::Forbidden),
            (&pull, "claims", Action::Pull, Verdict::Allowed),
            (&pull, "claims", Action::Push, Verdict::Forbidden),
            (&pull, "other", Action::Pull, Verdict::Forbidden),
        ] {
            let said = verdict(&door, token, repository, action).await;
            assert_eq!(said, expected, "{repository} {action:?}");
        }
        let ends: [fn(&mut JobRow); 3] = [
            |row| row.stop_requested = true,
            |row| row.status = JobStatus::Ended(Outcome::Succeeded),
            |row| row.attempt = 2,
        ];
        for (version, end) in (1..).zip(ends) {
            let mut ended = row.clone();
            end(&mut ended);
            put(&ended, Expect::Version(version)).await;
            for action in [Action::Pull, Action::Push] {
                let said = verdict(&door, &of_job, "claims", action).await;
                assert_eq!(said, Verdict::Unauthenticated, "{ended:?}");
            }
        }
        assert_eq!(verdict(&door, &pull, "claims", Action::Pull).await, Verdict::Allowed);
    }
}
