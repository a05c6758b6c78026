//! Contexts: variables that jobs share, sealed in the data directory.

use crate::{
    storage::store_error,
    tokens::{Grant, Identity},
    views::KeyView,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use towpath_delivery::DeliveryError;
use towpath_secrets::{Entry, Scope, SealedStore, SealedStoreError};
use towpath_store::{Commit, ContextRule, Store, Write};
use towpath_types::{ProjectName, SecretBytes, SecretString};

/// The user name with which Towpath's tokens sign in to the registry. It is no secret.
pub(crate) const REGISTRY_USER: &str = "towpath";

/// The suffix of the name of the context that gives a project's jobs access to the registry.
const REGISTRY: &str = "-registry";

/// Why a job may not have a context; `None` if it may. Pure.
fn refusal(rule: &ContextRule, project: &ProjectName, branch: Option<&str>) -> Option<String> {
    let context = &rule.context;
    let way = format!("`towpath context restrict {context}` says who may");
    if !rule.projects.is_empty() && !rule.projects.iter().any(|name| name == project.as_str()) {
        return Some(format!(
            "jobs of project `{project}` may not have context `{context}`: {way}"
        ));
    }
    let fits = |pattern: &String| {
        branch.is_some_and(|branch| match pattern.strip_suffix('*') {
            Some(beginning) => branch.starts_with(beginning),
            None => branch == pattern,
        })
    };
    if rule.branches.is_empty() || rule.branches.iter().any(fits) {
        return None;
    }
    let what = branch.map_or("a tag".to_string(), |branch| format!("branch `{branch}`"));
    Some(format!("jobs of {what} may not have context `{context}`: {way}"))
}

/// The contexts in a sealed store. Clones share it.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Contexts {
    pub store: Arc<dyn Store>,
    pub sealed: Arc<SealedStore>,
    pub identity: Arc<dyn Identity>,
    /// The address of the built-in registry in image names.
    pub registry: String,
}

impl Contexts {
    /// Sets a variable of a context.
    ///
    /// # Errors
    /// `Invalid` for names that no environment variable has.
    pub fn set(&self, context: &str, key: &str, value: &SecretBytes, by: &str) -> Result<(), DeliveryError> {
        self.sealed
            .set(&Scope::context(context), key, value, by)
            .map_err(sealed_error)
    }

    /// Removes a variable of a context.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub fn unset(&self, context: &str, key: &str) -> Result<(), DeliveryError> {
        unset(&self.sealed, &Scope::context(context), key)
    }

    /// The variables of all contexts.
    ///
    /// # Errors
    /// When the sealed store cannot be read.
    pub fn list(&self) -> Result<Vec<KeyView>, DeliveryError> {
        let mut keys = Vec::new();
        for context in self.sealed.contexts().map_err(sealed_error)? {
            let listing = self.sealed.list(&Scope::context(&context)).map_err(sealed_error)?;
            keys.extend(listing.entries.into_iter().map(|entry| key_view(&context, entry)));
        }
        Ok(keys)
    }

    /// Sets which jobs may use a context's variables; replaces the previous rule.
    ///
    /// # Errors
    /// `Invalid` for a `*` that is not at the end of a branch.
    pub async fn restrict(&self, rule: ContextRule) -> Result<(), DeliveryError> {
        let is_wrong = |branch: &&String| branch.is_empty() || branch.trim_end_matches('*').contains('*');
        if let Some(branch) = rule.branches.iter().find(is_wrong) {
            return Err(DeliveryError::invalid(format!(
                "`{}` is no branch: write its name, or the beginning of names with a `*` at the end",
                branch.escape_debug()
            )));
        }
        let commit = Commit::new().with(Write::ContextRule(rule));
        self.store.commit(commit).await.map(drop).map_err(store_error)
    }

    /// Restricts a new context to a project, if that project exists: other projects' jobs may not use it.
    ///
    /// # Errors
    /// When the sealed store cannot be read, or the storage does not work.
    pub async fn give_new(&self, context: &str, project: &ProjectName) -> Result<(), DeliveryError> {
        let is_new = self
            .sealed
            .list(&Scope::context(context))
            .map_err(sealed_error)?
            .entries
            .is_empty();
        let rule = self.store.context_rule(context).await.map_err(store_error)?;
        let known = self.store.project(project).await.map_err(store_error)?;
        if !is_new || rule.is_some() || known.is_none() {
            return Ok(());
        }
        self.restrict(ContextRule {
            context: context.to_string(),
            projects: vec![project.to_string()],
            branches: Vec::new(),
        })
        .await
    }

    /// Every rule.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn rules(&self) -> Result<Vec<ContextRule>, DeliveryError> {
        self.store.context_rules().await.map_err(store_error)
    }

    /// The variables of a job's contexts, in order; a later context overrides an earlier one. `branch` is the branch of
    /// the job's workflow, and `None` for a tag.
    ///
    /// # Errors
    /// `Invalid` for a context that does not exist; `Forbidden` for one that this job may not have.
    pub(crate) async fn variables(
        &self,
        contexts: &[String],
        project: &ProjectName,
        branch: Option<&str>,
    ) -> Result<Vec<(String, SecretString)>, DeliveryError> {
        let mut variables = Vec::new();
        for context in contexts {
            let rule = self.store.context_rule(context).await.map_err(store_error)?;
            let rule = match (rule, context.strip_suffix(REGISTRY).and_then(|name| name.parse().ok())) {
                (Some(rule), _) => Some(rule),
                // Only the project's own jobs may use its registry context.
                (None, Some(owner)) => self.registry_rule(context, &owner).await?,
                (None, None) => None,
            };
            if let Some(why) = rule.and_then(|rule| refusal(&rule, project, branch)) {
                return Err(DeliveryError::forbidden(why));
            }
            let values = self.sealed.reveal(&Scope::context(context)).map_err(sealed_error)?;
            if values.is_empty() {
                return Err(DeliveryError::invalid(format!(
                    "there is no context `{context}`: set its variables with `towpath context set {context} NAME`"
                )));
            }
            for (key, value) in values {
                let value = value.to_variable().map_err(|why| {
                    DeliveryError::invalid(format!(
                        "the value of `{key}` in the context `{context}` {why}: set it again with `towpath context set`"
                    ))
                })?;
                variables.push((key, value));
            }
        }
        Ok(variables)
    }

    /// The values of a context, whoever may use it. Use them for masking only. Empty when there is no such context.
    ///
    /// # Errors
    /// When the values cannot be read.
    pub(crate) fn to_hide(&self, context: &str) -> Result<BTreeMap<String, SecretBytes>, DeliveryError> {
        self.sealed.reveal(&Scope::context(context)).map_err(sealed_error)
    }

    async fn registry_rule(&self, context: &str, owner: &ProjectName) -> Result<Option<ContextRule>, DeliveryError> {
        let known = self.store.project(owner).await.map_err(store_error)?;
        Ok(known.map(|row| ContextRule {
            context: context.to_string(),
            projects: vec![row.name.to_string()],
            branches: Vec::new(),
        }))
    }

    /// Sets what a project's jobs need to reach the registry, in the context `<project>-registry`. Existing variables
    /// stay, except the address: it is this server's own and changes with it.
    ///
    /// # Errors
    /// When the sealed store cannot be written.
    pub fn provide_registry(&self, project: &ProjectName, by: &str) -> Result<(), DeliveryError> {
        let scope = Scope::context(&format!("{project}{REGISTRY}"));
        // A job gets a token of its own instead, which may also push.
        let token = self.identity.issue(&Grant::Pull {
            project: project.to_string(),
        });
        let wanted = [
            ("REGISTRY", SecretString::new(self.registry.clone())),
            ("REGISTRY_USERNAME", SecretString::new(REGISTRY_USER.into())),
            ("REGISTRY_PASSWORD", token),
        ];
        let listing = self.sealed.list(&scope).map_err(sealed_error)?;
        let known: BTreeSet<String> = listing.entries.into_iter().map(|entry| entry.key).collect();
        for (key, value) in wanted {
            if key == "REGISTRY" || !known.contains(key) {
                self.sealed
                    .set(&scope, key, &SecretBytes::from(&value), by)
                    .map_err(sealed_error)?;
            }
        }
        Ok(())
    }
}

fn unset(sealed: &SealedStore, scope: &Scope, key: &str) -> Result<(), DeliveryError> {
    if sealed.unset(scope, key).map_err(sealed_error)? {
        return Ok(());
    }
    Err(DeliveryError::not_found(format!("{scope} has no `{key}`")))
}

fn sealed_error(error: SealedStoreError) -> DeliveryError {
    match error {
        SealedStoreError::Name(_) | SealedStoreError::Value { .. } => DeliveryError::invalid(error.to_string()),
        other => DeliveryError::unavailable("failed to read or write the sealed values").caused_by(other),
    }
}

fn key_view(name: &str, entry: Entry) -> KeyView {
    KeyView {
        name: name.to_string(),
        key: entry.key,
        by: entry.set_by,
        at: entry.set_at,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Tokens;
    use jiff::Timestamp;
    use towpath_delivery::ErrorKind;
    use towpath_store::{Database, Expect, ProjectRow, SqlStore};

    async fn contexts(folder: &std::path::Path) -> Contexts {
        let store: Arc<dyn Store> = Arc::new(SqlStore::open(Database::SqliteMemory).await.unwrap());
        let mut commit = Commit::new();
        for name in ["claims", "other"] {
            let row = ProjectRow {
                name: name.parse().unwrap(),
                default_branch: "main".into(),
                head: None,
                created_at: Timestamp::UNIX_EPOCH,
                version: 0,
            };
            commit.write(Write::Project(row, Expect::Absent));
        }
        store.commit(commit).await.unwrap();
        Contexts {
            store,
            sealed: Arc::new(SealedStore::open(&folder.join("secrets")).unwrap()),
            identity: Arc::new(Tokens::open(folder).unwrap()),
            registry: "127.0.0.1:7070".into(),
        }
    }

    #[tokio::test]
    async fn a_context_is_restricted_by_project_and_branch() {
        let folder = tempfile::tempdir().unwrap();
        let contexts = contexts(folder.path()).await;
        let (claims, other): (ProjectName, ProjectName) = ("claims".parse().unwrap(), "other".parse().unwrap());
        let value = SecretBytes::new(b"s3cret".to_vec());
        let names = ["deploy".to_string()];
        let ask = async |project: &ProjectName, branch: Option<&str>| {
            let asked = contexts.variables(&names, project, branch).await;
            asked.map(|found| found.len()).map_err(|error| error.kind())
        };
        contexts.give_new("deploy", &claims).await.unwrap();
        contexts.set("deploy", "KEY", &value, "ann").unwrap();
        assert_eq!(ask(&claims, Some("evil")).await, Ok(1));
        assert_eq!(ask(&other, Some("main")).await, Err(ErrorKind::Forbidden));
        // Setting a variable later does not change the owner.
        contexts.give_new("deploy", &other).await.unwrap();
        assert_eq!(ask(&other, Some("main")).await, Err(ErrorKind::Forbidden));
        let rule = ContextRule {
            context: "deploy".into(),
            projects: Vec::new(),
            branches: vec!["main".into(), "release/*".into()],
        };
        contexts.restrict(rule.clone()).await.unwrap();
        for (branch, expected) in [
            (Some("main"), Ok(1)),
            (Some("release/1"), Ok(1)),
            (Some("main2"), Err(ErrorKind::Forbidden)),
            (Some("evil"), Err(ErrorKind::Forbidden)),
            (None, Err(ErrorKind::Forbidden)),
        ] {
            assert_eq!(ask(&other, branch).await, expected, "{branch:?}");
        }
        let wrong = ContextRule {
            branches: vec!["a*b".into()],
            ..rule
        };
        let error = contexts.restrict(wrong).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }

    #[tokio::test]
    async fn what_reaches_the_registry_is_its_projects_own() {
        let folder = tempfile::tempdir().unwrap();
        let contexts = contexts(folder.path()).await;
        let (claims, other): (ProjectName, ProjectName) = ("claims".parse().unwrap(), "other".parse().unwrap());
        contexts.provide_registry(&claims, "ann").unwrap();
        let names = ["claims-registry".to_string()];
        let own = contexts.variables(&names, &claims, Some("any")).await.unwrap();
        assert_eq!(own.len(), 3);
        let error = contexts.variables(&names, &other, Some("main")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Forbidden, "{error}");
    }
}
