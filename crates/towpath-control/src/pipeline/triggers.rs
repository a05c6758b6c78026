//! Triggers: requests for pipelines, stored before the requester gets an answer.
//!
//! A push is announced by git's `pre-receive` hook, before git accepts it, and completed by `post-receive`. The trigger
//! that is stored in between makes the pipeline even if this server dies before git answers; if git never accepted the
//! push, its commit is not in the repository, and the trigger is dropped.

use crate::storage::store_error;
use jiff::SignedDuration;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use towpath_delivery::{DeliveryError, ErrorKind};
use towpath_forge::{Forge, ForgeError, RefUpdate};
use towpath_store::{
    Commit, Expect, HandledRef, ProjectRow, Store, StoreError, Topic, TriggerKind, TriggerRow, Work, WorkKey, WorkKind,
    Write,
};
use towpath_types::{Actor, Clock, CommitId, Digest, PipelineId, ProjectName, TriggerId, TriggerStatus, Via};

/// How long git may take to accept an announced push. A push that `post-receive` reports does not wait for this.
pub(crate) const ACCEPTANCE: SignedDuration = SignedDuration::from_secs(30);
/// How often to compare every ref with the handled ones.
const CATCH_UP_EVERY: Duration = Duration::from_secs(60);
/// How many triggers one commit stores, so that a push of thousands of refs does not block the store.
const BATCH: usize = 200;
/// The most tags in one push that start pipelines; with more, none does. Otherwise moving a repository with its history
/// of tags would run, and deploy, every old release. GitHub sends CircleCI no event for such a push either.
///
/// Source: <https://docs.github.com/en/webhooks/webhook-events-and-payloads#push>
pub const MOST_TAGS: usize = 3;
/// Where tags are.
const TAGS: &str = "refs/tags/";
/// Where branches are.
const BRANCHES: &str = "refs/heads/";

/// The result of an announcement.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Announced {
    /// The triggers of the push.
    pub triggers: Vec<TriggerRow>,
    /// The full names of the tags that start nothing because there are more than [`MOST_TAGS`] of them.
    pub held_back: BTreeSet<String>,
}

/// Accepts pushes and requests. Clones share everything.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Triggers {
    pub store: Arc<dyn Store>,
    pub forge: Arc<dyn Forge>,
    pub clock: Arc<dyn Clock>,
}

impl Triggers {
    /// Stores a push's triggers before git accepts it.
    ///
    /// # Errors
    /// `Invalid` for a ref that is neither a branch nor a tag; otherwise when the storage does not work. Then refuse
    /// the push.
    pub async fn announce(
        &self,
        project: &ProjectName,
        updates: &[RefUpdate],
        actor: &Actor,
    ) -> Result<Announced, DeliveryError> {
        for update in updates {
            if update.branch().is_none() && update.tag().is_none() {
                return Err(DeliveryError::invalid(format!(
                    "`{}` is neither a branch nor a tag, and only those are accepted",
                    update.name.escape_debug()
                )));
            }
        }
        let held_back = held_back(updates);
        let open = self.store.open_triggers().await.map_err(store_error)?;
        let open = pushes(&open, project);
        let (mut known, mut new) = (Vec::new(), Vec::new());
        for (update, commit) in updates.iter().filter_map(|update| Some((update, update.new.as_ref()?))) {
            if held_back.contains(&update.name) {
                continue;
            }
            // A retry of a push whose answer was lost adds no triggers.
            match open.get(&(update.name.as_str(), commit)) {
                Some(trigger) => known.push(TriggerRow::clone(trigger)),
                None => new.push(TriggerRow {
                    status: TriggerStatus::Announced,
                    ..self.push_trigger(project, &update.name, commit.clone(), actor)
                }),
            }
        }
        // Store these before git moves the refs: otherwise a comparison of refs would report them as missed.
        let not_for_us = updates.iter().filter(|update| held_back.contains(&update.name));
        self.pass_over(
            project,
            not_for_us.filter_map(|update| Some((update.name.clone(), update.new.clone()?))),
        )
        .await?;
        known.extend(self.insert(new, self.clock.now() + ACCEPTANCE).await?);
        Ok(Announced {
            triggers: known,
            held_back,
        })
    }

    /// Makes the triggers of an accepted push due, and forgets deleted refs.
    ///
    /// # Errors
    /// When the storage does not work; the triggers still become due a little later.
    pub async fn complete(
        &self,
        project: &ProjectName,
        updates: &[RefUpdate],
        actor: &Actor,
    ) -> Result<Vec<TriggerRow>, DeliveryError> {
        self.know_project(project, updates).await?;
        let deleted = updates.iter().filter(|update| update.new.is_none());
        let deleted = deleted.map(|update| HandledRef {
            project: project.clone(),
            name: update.name.clone(),
            commit: None,
            number: 0,
        });
        self.commit_in_batches(deleted.map(|gone| vec![Write::HandledRef(gone)]).collect())
            .await?;
        loop {
            let all = self.store.open_triggers().await.map_err(store_error)?;
            let open = pushes(&all, project);
            let now = self.clock.now();
            let (mut found, mut missing, mut writes) = (Vec::new(), Vec::new(), Vec::new());
            for (update, commit) in updates.iter().filter_map(|update| Some((update, update.new.as_ref()?))) {
                let Some(trigger) = open.get(&(update.name.as_str(), commit)) else {
                    missing.push((update.name.clone(), commit.clone()));
                    continue;
                };
                let mut accepted = TriggerRow::clone(trigger);
                let mut of_it = vec![Write::Work(trigger_work(trigger, now))];
                if trigger.status == TriggerStatus::Announced {
                    accepted.status = TriggerStatus::Received;
                    of_it.push(Write::Trigger(accepted.clone(), Expect::Version(trigger.version)));
                    accepted.version += 1;
                }
                // An earlier announcement of the same push, whose client gave up and retried.
                for other in all.iter().filter(|other| is_same_push(other, trigger)) {
                    of_it.push(Write::Trigger(
                        dropped_for(other, trigger),
                        Expect::Version(other.version),
                    ));
                }
                writes.push(of_it);
                found.push(accepted);
            }
            match self.commit_in_batches(writes).await {
                // Git took long, and a worker handled the trigger first. Load the outcome.
                Err(StoreError::Conflict { .. }) => continue,
                other => other.map_err(store_error)?,
            }
            // Already picked up, passed over, or dropped too early: it still has to be handled.
            let handled = self.handled(project).await?;
            missing.retain(|(name, commit)| handled.get(name).is_none_or(|row| row.commit.as_ref() != Some(commit)));
            if !missing.is_empty() {
                found.extend(self.catch_up_with(project, &missing, actor).await?);
            }
            return Ok(found);
        }
    }

    /// Requests a pipeline without a push.
    ///
    /// # Errors
    /// `NotFound` when there is no such branch or tag.
    pub async fn request(
        &self,
        project: &ProjectName,
        branch: Option<&str>,
        tag: Option<&str>,
        parameters: serde_json::Map<String, serde_json::Value>,
        actor: &Actor,
    ) -> Result<TriggerRow, DeliveryError> {
        let name = match (branch, tag) {
            (_, Some(tag)) => format!("refs/tags/{tag}"),
            (Some(branch), None) => format!("refs/heads/{branch}"),
            (None, None) => {
                let branch = self.forge.default_branch(project).await.map_err(forge_error)?;
                format!("refs/heads/{branch}")
            }
        };
        let commit = self.forge.find(project, &name).await.map_err(forge_error)?;
        let trigger = TriggerRow {
            kind: TriggerKind::Api,
            parameters: serde_json::Value::Object(parameters),
            ..self.push_trigger(project, &name, commit, actor)
        };
        let stored = self.insert(vec![trigger], self.clock.now()).await?;
        stored
            .into_iter()
            .next()
            .ok_or_else(|| DeliveryError::internal("a trigger was not stored"))
    }

    /// Waits for at most `patience` until each trigger has made its pipeline or was dropped. Returns the triggers as
    /// they are then.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn settled(
        &self,
        mut triggers: Vec<TriggerRow>,
        patience: Duration,
    ) -> Result<Vec<TriggerRow>, DeliveryError> {
        let mut changes = self.store.changes();
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let mut open = None;
            for trigger in &mut triggers {
                if is_open(trigger) {
                    if let Some(row) = self.store.trigger(trigger.id).await.map_err(store_error)? {
                        *trigger = row;
                    }
                    if is_open(trigger) {
                        open = Some(Topic::Project(trigger.project.clone()));
                        break;
                    }
                }
            }
            let Some(topic) = open else { return Ok(triggers) };
            match tokio::time::timeout_at(deadline, changes.of(&topic)).await {
                Ok(true) => {}
                Ok(false) | Err(_) => return Ok(triggers),
            }
        }
    }

    /// Creates a project with an empty repository; an existing one stays as it is.
    ///
    /// # Errors
    /// When git or the storage does not work.
    pub async fn create_project(&self, project: &ProjectName) -> Result<(), DeliveryError> {
        self.forge.create(project, DEFAULT_BRANCH).await.map_err(forge_error)?;
        self.know_project(project, &[]).await
    }

    /// Makes `branch` the default branch of `project`: its `towpath.toml` decides from now on which environments are
    /// protected.
    ///
    /// # Errors
    /// `NotFound` when there is no such branch; otherwise when git or the storage does not work.
    pub async fn set_default_branch(&self, project: &ProjectName, branch: &str, by: &str) -> Result<(), DeliveryError> {
        let refs = self.forge.refs(project).await.map_err(forge_error)?;
        if !has_branch(&refs, branch) {
            return Err(DeliveryError::not_found(format!(
                "`{project}` has no branch `{}`: push it first",
                branch.escape_debug()
            )));
        }
        let before = self.forge.default_branch(project).await.map_err(forge_error)?;
        self.forge
            .set_default_branch(project, branch)
            .await
            .map_err(forge_error)?;
        tracing::info!(%project, from = before, to = branch, by, "the default branch was changed");
        self.know_project(project, &[]).await
    }

    /// The name of a project's default branch, if that has no commit.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn missing_default_branch(&self, project: &ProjectName) -> Result<Option<String>, DeliveryError> {
        let row = self.store.project(project).await.map_err(store_error)?;
        Ok(row.filter(|row| row.head.is_none()).map(|row| row.default_branch))
    }

    /// Compares every ref with the handled ones periodically until `shutdown`.
    pub async fn catch_up_until(&self, shutdown: tokio_util::sync::CancellationToken) {
        loop {
            if let Err(error) = self.catch_up().await {
                tracing::warn!(error = error.chain(), "failed to look for pushes that were not handled");
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.clock.sleep(CATCH_UP_EVERY) => {}
            }
        }
    }

    /// Requests pipelines for refs that moved without an announcement: after a restored repository or a lost hook.
    ///
    /// # Errors
    /// When git or the storage does not work.
    pub async fn catch_up(&self) -> Result<(), DeliveryError> {
        for project in self.forge.projects().await.map_err(forge_error)? {
            // A failure in one project must not stop the others.
            if let Err(error) = self.catch_up_with_project(&project).await {
                tracing::warn!(%project, error = error.chain(), "failed to look for pushes that were not handled");
            }
        }
        Ok(())
    }

    /// Requests pipelines for refs of one project that moved without an announcement.
    async fn catch_up_with_project(&self, project: &ProjectName) -> Result<(), DeliveryError> {
        self.know_project(project, &[]).await?;
        let refs = self.forge.refs(project).await.map_err(forge_error)?;
        let actor = Actor::owner("git push", Via::GitPush);
        self.catch_up_with(project, &refs, &actor).await.map(drop)
    }

    /// Does the same, given where `refs` pointed a moment ago.
    async fn catch_up_with(
        &self,
        project: &ProjectName,
        refs: &[(String, CommitId)],
        actor: &Actor,
    ) -> Result<Vec<TriggerRow>, DeliveryError> {
        // Keep this order: a trigger is stored before its ref moves, and its ref counts as handled when the trigger
        // ends. So a ref that moved before, has no open trigger and is not handled was missed.
        let open = self.store.open_triggers().await.map_err(store_error)?;
        let open: BTreeSet<&str> = pushes(&open, project).into_keys().map(|(name, _)| name).collect();
        let handled = self.handled(project).await?;
        let mut missed = missed(refs, &handled, |name| open.contains(name));
        if missed.is_empty() {
            return Ok(Vec::new());
        }
        // Unless the ref moved on meanwhile, and the next push was handled in between.
        let now = self.forge.refs(project).await.map_err(forge_error)?;
        let now: BTreeMap<&str, &CommitId> = now.iter().map(|(name, commit)| (name.as_str(), commit)).collect();
        missed.retain(|(name, commit)| now.get(name.as_str()) == Some(&commit));
        let tags = missed.iter().filter(|(name, _)| name.starts_with(TAGS)).count();
        if tags > MOST_TAGS {
            tracing::warn!(%project, tags, "more tags than {MOST_TAGS} moved at once; no pipeline is made of them");
            let (held_back, others) = missed.into_iter().partition(|(name, _)| name.starts_with(TAGS));
            missed = others;
            let held_back: Vec<(String, CommitId)> = held_back;
            self.pass_over(project, held_back.into_iter()).await?;
        }
        let mut triggers = Vec::new();
        for (name, commit) in missed {
            tracing::info!(%project, name, commit = commit.short(), "a push was not handled yet");
            let before = handled.get(&name).map_or(0, |row| row.number);
            triggers.push(TriggerRow {
                id: missed_push(project, &name, &commit, before),
                ..self.push_trigger(project, &name, commit, actor)
            });
        }
        let mut stored = Vec::new();
        for trigger in triggers {
            match self.insert(vec![trigger], self.clock.now()).await {
                // Another server stored it first.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                inserted => stored.extend(inserted?),
            }
        }
        Ok(stored)
    }

    /// Records refs as handled without making a pipeline.
    async fn pass_over(
        &self,
        project: &ProjectName,
        refs: impl Iterator<Item = (String, CommitId)>,
    ) -> Result<(), DeliveryError> {
        let row = |(name, commit)| HandledRef {
            project: project.clone(),
            name,
            commit: Some(commit),
            number: 0,
        };
        let writes = refs.map(|one| vec![Write::HandledRef(row(one))]).collect();
        self.commit_in_batches(writes).await.map_err(store_error)
    }

    /// Commits groups of writes in batches, without splitting a group.
    async fn commit_in_batches(&self, writes: Vec<Vec<Write>>) -> Result<(), StoreError> {
        for batch in writes.chunks(BATCH) {
            let mut commit = Commit::new();
            batch.iter().flatten().for_each(|write| commit.write(write.clone()));
            self.store.commit(commit).await?;
        }
        Ok(())
    }

    async fn handled(&self, project: &ProjectName) -> Result<BTreeMap<String, HandledRef>, DeliveryError> {
        let rows = self.store.handled_refs(project).await.map_err(store_error)?;
        Ok(rows.into_iter().map(|row| (row.name.clone(), row)).collect())
    }

    fn push_trigger(&self, project: &ProjectName, name: &str, commit: CommitId, actor: &Actor) -> TriggerRow {
        TriggerRow {
            id: TriggerId::from(uuid::Uuid::now_v7()),
            project: project.clone(),
            kind: TriggerKind::Push {
                ref_name: name.to_string(),
            },
            branch: name.strip_prefix("refs/heads/").map(str::to_string),
            tag: name.strip_prefix("refs/tags/").map(str::to_string),
            commit,
            parameters: serde_json::json!({}),
            actor: actor.clone(),
            pipeline: PipelineId::from(uuid::Uuid::now_v7()),
            number: 0,
            status: TriggerStatus::Received,
            reason: None,
            created_at: self.clock.now(),
            version: 0,
        }
    }

    /// Stores triggers with work that is due at `due`. It completes even if the caller goes away.
    async fn insert(&self, triggers: Vec<TriggerRow>, due: jiff::Timestamp) -> Result<Vec<TriggerRow>, DeliveryError> {
        let store = self.store.clone();
        let stored = tokio::spawn(async move {
            let mut all = Vec::with_capacity(triggers.len());
            for batch in triggers.chunks(BATCH) {
                let mut commit = Commit::new();
                for trigger in batch {
                    commit.write(Write::Trigger(trigger.clone(), Expect::Absent));
                    commit.write(Write::Work(trigger_work(trigger, due)));
                }
                let committed = store.commit(commit).await?;
                for (trigger, (_, number)) in batch.iter().zip(committed.pipelines) {
                    all.push(TriggerRow {
                        number,
                        version: 1,
                        ..trigger.clone()
                    });
                }
            }
            Ok::<_, StoreError>(all)
        });
        let stopping = |_| DeliveryError::unavailable("Towpath is stopping; ask again");
        stored.await.map_err(stopping)?.map_err(store_error)
    }

    /// Keeps the project's row up to date. `master` becomes the default branch where there is no `main`.
    async fn know_project(&self, project: &ProjectName, updates: &[RefUpdate]) -> Result<(), DeliveryError> {
        let known = self.forge.default_branch(project).await.map_err(forge_error)?;
        let refs = self.forge.refs(project).await.map_err(forge_error)?;
        let branch = match usual_branch(&known, &refs, updates) {
            Some(branch) => {
                self.forge
                    .set_default_branch(project, branch)
                    .await
                    .map_err(forge_error)?;
                branch.to_string()
            }
            None => known,
        };
        let head = refs
            .iter()
            .find(|(name, _)| name.strip_prefix(BRANCHES) == Some(&branch))
            .map(|(_, commit)| commit.clone());
        loop {
            let row = self.store.project(project).await.map_err(store_error)?;
            let (row, expect) = match row {
                Some(row) if row.default_branch == branch && row.head == head => return Ok(()),
                Some(row) => (
                    ProjectRow {
                        default_branch: branch.clone(),
                        head: head.clone(),
                        ..row.clone()
                    },
                    Expect::Version(row.version),
                ),
                None => (
                    ProjectRow {
                        name: project.clone(),
                        default_branch: branch.clone(),
                        head: head.clone(),
                        created_at: self.clock.now(),
                        version: 0,
                    },
                    Expect::Absent,
                ),
            };
            let mut commit = Commit::new().with(Write::Project(row, expect));
            // The default branch defines the project's environments.
            commit.write(Write::Work(Work {
                project: Some(project.clone()),
                ..Work::new(WorkKey::new(WorkKind::Project, project), self.clock.now())
            }));
            match self.store.commit(commit).await {
                Err(StoreError::Conflict { .. }) => {}
                other => return other.map(drop).map_err(store_error),
            }
        }
    }
}

/// The default branch of a new repository.
const DEFAULT_BRANCH: &str = "main";
/// The default branch of a repository that has this one and no [`DEFAULT_BRANCH`].
const OTHER_USUAL_BRANCH: &str = "master";

/// Whether the trigger's outcome is still undecided.
fn is_open(trigger: &TriggerRow) -> bool {
    match trigger.status {
        TriggerStatus::Announced | TriggerStatus::Received => true,
        TriggerStatus::Done | TriggerStatus::Dropped => false,
    }
}

fn trigger_work(trigger: &TriggerRow, due: jiff::Timestamp) -> Work {
    Work {
        project: Some(trigger.project.clone()),
        ..Work::new(WorkKey::new(WorkKind::Trigger, trigger.id), due)
    }
}

/// The push triggers of a project among `triggers`, by ref and target.
fn pushes<'a>(triggers: &'a [TriggerRow], project: &ProjectName) -> HashMap<(&'a str, &'a CommitId), &'a TriggerRow> {
    let of_project = triggers.iter().filter(|trigger| trigger.project == *project);
    of_project
        .filter_map(|trigger| match &trigger.kind {
            TriggerKind::Push { ref_name } => Some(((ref_name.as_str(), &trigger.commit), trigger)),
            TriggerKind::Api | TriggerKind::Schedule => None,
        })
        .collect()
}

/// Whether two triggers are of one push.
pub(crate) fn is_same_push(one: &TriggerRow, other: &TriggerRow) -> bool {
    one.id != other.id && one.project == other.project && one.kind == other.kind && one.commit == other.commit
}

/// Marks a trigger as dropped because another one stands for the same push.
fn dropped_for(trigger: &TriggerRow, other: &TriggerRow) -> TriggerRow {
    TriggerRow {
        status: TriggerStatus::Dropped,
        reason: Some(format!("pipeline {} is that of the same push", other.number)),
        ..trigger.clone()
    }
}

/// The id of the trigger of a missed push: the same on every server that finds it. `before` is the number of the last
/// pipeline made from the ref.
fn missed_push(project: &ProjectName, name: &str, commit: &CommitId, before: i64) -> TriggerId {
    let digest = Digest::of(format!("{project}\n{name}\n{commit}\n{before}").as_bytes());
    let digits = u128::from_str_radix(&digest.hex()[..32], 16).unwrap_or_default();
    TriggerId::from(uuid::Builder::from_custom_bytes(digits.to_be_bytes()).into_uuid())
}

/// The tags of a push that start nothing: all of them, if there are too many. Pure.
fn held_back(updates: &[RefUpdate]) -> BTreeSet<String> {
    let pushed = updates.iter().filter(|update| update.new.is_some());
    let tags: BTreeSet<String> = pushed
        .filter(|update| update.tag().is_some())
        .map(|update| update.name.clone())
        .collect();
    if tags.len() > MOST_TAGS { tags } else { BTreeSet::new() }
}

/// The refs whose commit differs from the last handled one and that have no open trigger. Pure.
fn missed(
    refs: &[(String, CommitId)],
    handled: &BTreeMap<String, HandledRef>,
    is_open: impl Fn(&str) -> bool,
) -> Vec<(String, CommitId)> {
    let is_handled = |name: &str, commit: &CommitId| {
        let row = handled.get(name);
        row.is_some_and(|row| row.commit.as_ref() == Some(commit))
    };
    refs.iter()
        .filter(|(name, commit)| !is_handled(name, commit) && !is_open(name))
        .cloned()
        .collect()
}

/// The branch that a push makes the default; `None` to keep the current one. Pure.
///
/// The default branch decides what is protected. So no other branch takes its place by coming first: the owner chooses.
fn usual_branch<'a>(known: &str, refs: &[(String, CommitId)], updates: &'a [RefUpdate]) -> Option<&'a str> {
    if known != DEFAULT_BRANCH || has_branch(refs, known) {
        return None;
    }
    let pushed = updates.iter().filter(|update| update.new.is_some());
    pushed
        .filter_map(RefUpdate::branch)
        .find(|branch| *branch == OTHER_USUAL_BRANCH && has_branch(refs, branch))
}

fn has_branch(refs: &[(String, CommitId)], branch: &str) -> bool {
    refs.iter().any(|(name, _)| name.strip_prefix(BRANCHES) == Some(branch))
}

/// The error for whoever requested something from a repository.
pub(crate) fn forge_error(error: ForgeError) -> DeliveryError {
    match error {
        ForgeError::UnknownProject(_) | ForgeError::NotFound { .. } => DeliveryError::not_found(error.to_string()),
        ForgeError::TooLarge { .. } | ForgeError::Unread { .. } => DeliveryError::invalid(error.to_string()),
        other => DeliveryError::unavailable("git failed").caused_by(other),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn commit(digit: char) -> CommitId {
        digit.to_string().repeat(40).parse().unwrap()
    }

    fn push(name: &str) -> RefUpdate {
        RefUpdate {
            name: name.into(),
            old: None,
            new: Some(commit('a')),
        }
    }

    #[test]
    fn no_branch_becomes_the_default_by_being_the_first() {
        let refs = |names: &[&str]| -> Vec<(String, CommitId)> {
            names
                .iter()
                .map(|name| (format!("refs/heads/{name}"), commit('a')))
                .collect()
        };
        let check = |known: &str, there: &[&str], pushed: &[&str], expected: Option<&str>| {
            let updates: Vec<RefUpdate> = pushed.iter().map(|name| push(&format!("refs/heads/{name}"))).collect();
            assert_eq!(
                usual_branch(known, &refs(there), &updates),
                expected,
                "{known} {there:?} {pushed:?}"
            );
        };
        check("main", &["main"], &["main"], None);
        check("main", &["master"], &["master"], Some("master"));
        check("main", &["feature", "master"], &["feature", "master"], Some("master"));
        check("main", &["feature"], &["feature"], None);
        check("main", &["trunk"], &["trunk"], None);
        check("main", &["main", "master"], &["master"], None);
        // The owner chose.
        check("trunk", &["master"], &["master"], None);
        check("master", &["main"], &["main"], None);
    }

    #[test]
    fn every_ref_is_caught_up_with_unless_a_trigger_is_open() {
        let refs = [
            ("refs/heads/handled".to_string(), commit('a')),
            ("refs/heads/moved".to_string(), commit('b')),
            ("refs/heads/new".to_string(), commit('c')),
            ("refs/heads/open".to_string(), commit('d')),
        ];
        let handled = ["refs/heads/handled", "refs/heads/moved"].map(|name| {
            let row = HandledRef {
                project: "claims".parse().unwrap(),
                name: name.into(),
                commit: Some(commit('a')),
                number: 1,
            };
            (name.to_string(), row)
        });
        let handled = BTreeMap::from(handled);
        let missed = missed(&refs, &handled, |name| name == "refs/heads/open");
        assert_eq!(missed, [refs[1].clone(), refs[2].clone()]);
    }

    #[test]
    fn more_than_three_tags_of_a_push_start_nothing() {
        let pushed = |names: &[&str]| -> Vec<RefUpdate> { names.iter().map(|name| push(name)).collect() };
        let tags = ["refs/tags/v1", "refs/tags/v2", "refs/tags/v3", "refs/tags/v4"];
        assert!(held_back(&pushed(&tags[..3])).is_empty());
        let mut all = pushed(&tags);
        all.extend(pushed(&["refs/heads/main", "refs/heads/feature"]));
        assert_eq!(held_back(&all), tags.map(str::to_string).into());
        // Deleting a ref is not a push.
        all[0].new = None;
        assert!(held_back(&all).is_empty());
    }
}
