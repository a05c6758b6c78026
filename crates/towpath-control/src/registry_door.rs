//! The built-in registry's door: who may push and pull, and what a push means.

use crate::tokens::{Grant, Identity, presented};
use futures::future::BoxFuture;
use std::sync::Arc;
use towpath_images::{
    Access, Authorize, Verdict,
    registry::{PushObserver, PushedManifest},
};
use towpath_store::{Commit, ImagePush, Store, Write};
use towpath_types::{Clock, ImageReference, ProjectName, WorkflowId};

/// Who may do what in the registry.
pub(crate) struct RegistryDoor {
    pub identity: Arc<dyn Identity>,
}

impl Authorize for RegistryDoor {
    fn authorize<'a>(&'a self, headers: &'a http::HeaderMap, access: &'a Access) -> BoxFuture<'a, Verdict> {
        Box::pin(async move {
            let Some(token) = presented(headers) else {
                return Verdict::Unauthenticated;
            };
            match self.identity.grant(&token) {
                Some(Grant::Owner) => Verdict::Allowed,
                Some(Grant::Registry { project, workflow }) => of_project(&project, workflow, access),
                Some(Grant::Session | Grant::Job(_) | Grant::Hook { .. }) => Verdict::Forbidden,
                None => Verdict::Unauthenticated,
            }
        })
    }
}

/// What a project's token may do: pull and push below its own name.
fn of_project(project: &str, workflow: Option<WorkflowId>, access: &Access) -> Verdict {
    let Some(repository) = &access.repository else {
        return Verdict::Allowed;
    };
    let name = repository.as_str();
    let own = name == project || name.strip_prefix(project).is_some_and(|rest| rest.starts_with('/'));
    if !own || access.action == towpath_images::Action::Delete {
        return Verdict::Forbidden;
    }
    match workflow {
        Some(workflow) => Verdict::AllowedAs(workflow.to_string()),
        None => Verdict::Allowed,
    }
}

/// Records pushes before the pusher is told that they are done: when a job has ended, what it pushed is known.
pub(crate) fn push_recorder(store: Arc<dyn Store>, clock: Arc<dyn Clock>, registry: String) -> PushObserver {
    let runtime = tokio::runtime::Handle::current();
    Arc::new(move |manifest: &PushedManifest| {
        let Some(tag) = &manifest.tag else { return };
        let repository = manifest.repository.as_str();
        // The first part of a repository's name is its project's.
        let first = repository.split('/').next().unwrap_or(repository);
        let project: ProjectName = match first.parse() {
            Ok(project) => project,
            Err(error) => {
                tracing::warn!(repository, %error, "a push to a repository of no project is not recorded");
                return;
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
        if let Err(error) = recorded {
            let error = towpath_types::with_causes(&error);
            tracing::error!(%image, error, "failed to record a push to the registry");
        }
    })
}
