//! From moved refs to pipelines.

use crate::{
    Control, ControlError, ErrorKind, PROJECT_FILE,
    compile::{self, Compiled, Trigger},
    conductor::{store_error, stream, to_json},
    records::{JobRecord, PipelineRecord, WorkflowRecord, collection},
    views::PipelineView,
};
use jiff::Timestamp;
use std::{fmt::Write as _, sync::Arc};
use towpath_forge::{Commit, ForgeError, ProjectName, RefUpdate};
use towpath_store::{Batch, PipelineRow, Row};
use towpath_types::{CommitId, JobId, PipelineId, WorkflowId};
use towpath_workflow::{Definition, Effect, Event, Workflow};

/// The branch that a repository is made with.
const DEFAULT_BRANCH: &str = "main";
/// Where a repository's configuration is.
pub(crate) const CONFIG_FILE: &str = ".circleci/config.yml";
/// A head commit whose message says one of these in its first 250 characters starts nothing.
/// Source: <https://circleci.com/docs/guides/orchestrate/skip-build/>
const SKIP_MARKS: [&str; 2] = ["[ci skip]", "[skip ci]"];

impl Control {
    /// Makes a project with an empty repository, and the context by which its jobs reach the registry; one that is there
    /// stays as it is.
    ///
    /// # Errors
    /// When git or the storage does not work.
    pub async fn create_project(&self, project: &ProjectName, by: &str) -> Result<(), ControlError> {
        self.forge.create(project, DEFAULT_BRANCH).await.map_err(forge_error)?;
        self.provide_registry_context(project, by).await
    }

    /// Handles the refs that a push moved, and answers with the lines that git shows to the pusher.
    ///
    /// # Errors
    /// When the storage does not work: the push has succeeded, and its pipelines are made at the next start.
    pub async fn pushed(
        self: &Arc<Self>,
        project: &ProjectName,
        updates: Vec<RefUpdate>,
        by: &str,
    ) -> Result<Vec<String>, ControlError> {
        let mut lines = Vec::new();
        self.choose_default_branch(project, &updates).await?;
        for update in updates {
            let Some(new) = &update.new else {
                let mut batch = Batch::default();
                batch.document(collection::REFS, ref_key(project, &update.name), None);
                self.store.commit(batch).await.map_err(store_error)?;
                continue;
            };
            let trigger = PushTrigger {
                name: update.name.clone(),
                branch: update.branch().map(str::to_string),
                tag: update.tag().map(str::to_string),
            };
            if trigger.branch.is_none() && trigger.tag.is_none() {
                continue;
            }
            let view = self
                .make_pipeline(project, &trigger, new, serde_json::Map::new(), by)
                .await?;
            lines.extend(self.tell_pusher(&view));
        }
        Ok(lines)
    }

    /// While there is no commit on the default branch, the main branch is the one that is pushed first: some call it `master`.
    async fn choose_default_branch(&self, project: &ProjectName, updates: &[RefUpdate]) -> Result<(), ControlError> {
        let known = self.forge.default_branch(project).await.map_err(forge_error)?;
        let refs = self.forge.refs(project).await.map_err(forge_error)?;
        let is_there = |branch: &str| {
            refs.iter()
                .any(|(name, _)| name.strip_prefix("refs/heads/") == Some(branch))
        };
        if is_there(&known) {
            return Ok(());
        }
        let pushed = updates.iter().filter(|update| update.new.is_some());
        let pushed: Vec<&str> = pushed.filter_map(RefUpdate::branch).collect();
        let usual = ["master", "trunk", "develop"]
            .into_iter()
            .find(|usual| pushed.contains(usual));
        // With other branches there already, one more is not the main one.
        let only = refs.iter().filter(|(name, _)| name.starts_with("refs/heads/")).count() == pushed.len();
        if let Some(branch) = usual.or(pushed.first().copied().filter(|_| only)) {
            self.forge
                .set_default_branch(project, branch)
                .await
                .map_err(forge_error)?;
        }
        Ok(())
    }

    fn tell_pusher(&self, view: &PipelineView) -> Vec<String> {
        let address = format!(
            "{}/projects/{}/pipelines/{}",
            self.base_url(),
            view.project,
            view.number
        );
        let mut lines = vec![String::new(), format!("Pipeline {}: {address}", view.number)];
        for error in &view.errors {
            lines.extend(error.lines().map(|line| format!("  {line}")));
        }
        for workflow in &view.workflows {
            lines.push(format!("  workflow {}: {} jobs", workflow.name, workflow.jobs.len()));
        }
        if view.errors.is_empty() && view.workflows.is_empty() {
            lines.push("  no workflow runs for this".to_string());
        }
        lines.push(String::new());
        lines
    }

    /// Starts a pipeline without a push.
    ///
    /// # Errors
    /// `NotFound` when there is no such branch or tag.
    pub async fn trigger(
        self: &Arc<Self>,
        project: &ProjectName,
        branch: Option<String>,
        tag: Option<String>,
        parameters: serde_json::Map<String, serde_json::Value>,
        by: &str,
    ) -> Result<PipelineView, ControlError> {
        let name = match (&branch, &tag) {
            (_, Some(tag)) => format!("refs/tags/{tag}"),
            (Some(branch), None) => format!("refs/heads/{branch}"),
            (None, None) => format!(
                "refs/heads/{}",
                self.forge.default_branch(project).await.map_err(forge_error)?
            ),
        };
        let commit = self.forge.find(project, &name).await.map_err(forge_error)?;
        let branch = name.strip_prefix("refs/heads/").map(str::to_string);
        let tag = name.strip_prefix("refs/tags/").map(str::to_string);
        self.make_pipeline(
            project,
            &PushTrigger {
                name: String::new(),
                branch,
                tag,
            },
            &commit,
            parameters,
            by,
        )
        .await
    }

    /// Makes the pipelines of pushes whose hook never reached us.
    pub(crate) async fn catch_up_with_pushes(self: &Arc<Self>) -> Result<(), ControlError> {
        for project in self.forge.projects().await.map_err(forge_error)? {
            for (name, commit) in self.forge.refs(&project).await.map_err(forge_error)? {
                let known: Option<CommitId> = self.document(collection::REFS, &ref_key(&project, &name)).await?;
                if known.as_ref() != Some(&commit) {
                    tracing::info!(%project, name, commit = commit.short(), "a push was not handled yet");
                    let update = RefUpdate {
                        name,
                        old: known,
                        new: Some(commit),
                    };
                    self.pushed(&project, vec![update], "git push").await?;
                }
            }
        }
        Ok(())
    }

    async fn make_pipeline(
        self: &Arc<Self>,
        project: &ProjectName,
        trigger: &PushTrigger,
        commit: &CommitId,
        parameters: serde_json::Map<String, serde_json::Value>,
        by: &str,
    ) -> Result<PipelineView, ControlError> {
        let commit = self.forge.commit(project, commit).await.map_err(forge_error)?;
        // Held until the pipeline is committed, so that two pushes at once do not take one number.
        let numbering = self
            .numbering
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .entry(project.to_string())
            .or_default()
            .clone();
        let _numbering = numbering.lock().await;
        let made = self.compile_commit(project, trigger, &commit, parameters, by).await?;
        let mut effects: Vec<(Arc<WorkflowRecord>, Vec<Effect>)> = Vec::new();
        let mut batch = Batch::default();
        let id = made.pipeline.id;
        batch.put(Row::Pipeline(made.pipeline));
        batch.document(collection::PIPELINES, id.to_string(), Some(to_json(&made.record)?));
        if !trigger.name.is_empty() {
            batch.document(
                collection::REFS,
                ref_key(project, &trigger.name),
                Some(to_json(&commit.id)?),
            );
        }
        for (record, definition) in made.workflows {
            let event = Event::Created {
                definition,
                succeeded: Vec::new(),
                at: Timestamp::now(),
            };
            effects.push(self.put_workflow(&mut batch, record, event)?);
        }
        self.store.commit(batch).await.map_err(store_error)?;
        for (record, effects) in effects {
            self.carry_out(&record, effects).await;
        }
        self.pipeline(id).await
    }

    /// Adds a new workflow to a batch; what it asks for is carried out once the batch is committed.
    pub(crate) fn put_workflow(
        &self,
        batch: &mut Batch,
        record: WorkflowRecord,
        event: Event,
    ) -> Result<(Arc<WorkflowRecord>, Vec<Effect>), ControlError> {
        let (workflow, effects) = Workflow::create(event.clone()).map_err(crate::conductor::illegal)?;
        batch.append(stream(record.id), Some(0), vec![to_json(&event)?]);
        batch.document(collection::WORKFLOWS, record.id.to_string(), Some(to_json(&record)?));
        for row in self.changed_rows(&record, None, &workflow) {
            batch.put(row);
        }
        for job in &record.jobs {
            batch.document(collection::JOBS, job.id.to_string(), Some(to_json(&record.id)?));
        }
        Ok((Arc::new(record), effects))
    }

    async fn compile_commit(
        &self,
        project: &ProjectName,
        trigger: &PushTrigger,
        commit: &Commit,
        parameters: serde_json::Map<String, serde_json::Value>,
        by: &str,
    ) -> Result<Made, ControlError> {
        let mut pipeline = PipelineRow {
            id: PipelineId::from(uuid::Uuid::now_v7()),
            project: project.to_string(),
            number: self.next_pipeline_number(project).await?,
            branch: trigger.branch.clone(),
            tag: trigger.tag.clone(),
            commit: commit.id.clone(),
            subject: commit.subject.clone(),
            author: commit.author.clone(),
            state: "created".into(),
            errors: Vec::new(),
            warnings: Vec::new(),
            created_at: Timestamp::now(),
        };
        let project_file = self.optional_file(project, &commit.id, PROJECT_FILE).await?;
        let mut record = PipelineRecord {
            source: String::new(),
            compiled: None,
            compiled_text: String::new(),
            warnings: Vec::new(),
            project_file,
            user: by.to_string(),
        };
        let Some(source) = self.optional_file(project, &commit.id, CONFIG_FILE).await? else {
            pipeline.state = "errored".into();
            pipeline.errors = vec![format!("no configuration was found: the commit has no `{CONFIG_FILE}`")];
            return Ok(Made {
                pipeline,
                record,
                workflows: Vec::new(),
            });
        };
        let default_branch = self.forge.default_branch(project).await.map_err(forge_error)?;
        let repository_url = format!("{}/git/{project}.git", self.base_url());
        let compiled = match self.orb_places_of(project, &commit.id).await {
            // An orb may have to be fetched, and whoever fetches it blocks.
            Ok(places) => tokio::task::block_in_place(|| {
                let sources = places.sources();
                compile::compile(
                    &source,
                    &Trigger {
                        pipeline: pipeline.id,
                        number: pipeline.number,
                        project: project.as_str(),
                        branch: trigger.branch.as_deref(),
                        tag: trigger.tag.as_deref(),
                        default_branch: &default_branch,
                        commit,
                        repository_url: &repository_url,
                        parameters: &parameters,
                        by_api: trigger.name.is_empty(),
                        orbs: &crate::orbs::resolver(&sources),
                    },
                )
            }),
            Err(error) if error.kind() == ErrorKind::Invalid => Compiled {
                errors: vec![error.chain()],
                ..Compiled::default()
            },
            Err(error) => return Err(error),
        };
        record.source = source;
        pipeline.warnings.clone_from(&compiled.warnings);
        record.warnings = compiled.warnings;
        if !compiled.errors.is_empty() {
            pipeline.state = "errored".into();
            pipeline.errors = compiled.errors;
            return Ok(Made {
                pipeline,
                record,
                workflows: Vec::new(),
            });
        }
        let mut message = String::new();
        let _ = write!(message, "{}\n{}", commit.subject, commit.body);
        let head: String = message.chars().take(250).collect();
        let mut workflows = Vec::new();
        if !SKIP_MARKS.iter().any(|mark| head.contains(mark)) {
            for (position, workflow) in (0..).zip(compiled.workflows) {
                let jobs = workflow
                    .jobs
                    .into_iter()
                    .map(|job| JobRecord {
                        id: JobId::from(uuid::Uuid::now_v7()),
                        name: job.name,
                        gate_of: job.gate_of,
                    })
                    .collect();
                let record = WorkflowRecord {
                    id: WorkflowId::from(uuid::Uuid::now_v7()),
                    pipeline: pipeline.id,
                    pipeline_number: pipeline.number,
                    position,
                    project: project.to_string(),
                    name: workflow.name,
                    branch: trigger.branch.clone(),
                    tag: trigger.tag.clone(),
                    commit: commit.id.clone(),
                    jobs,
                };
                workflows.push((record, workflow.definition));
            }
        }
        record.compiled = compiled.config;
        record.compiled_text = compiled.text;
        Ok(Made {
            pipeline,
            record,
            workflows,
        })
    }

    async fn next_pipeline_number(&self, project: &ProjectName) -> Result<i64, ControlError> {
        let newest = self
            .store
            .pipelines(Some(project.as_str()), None, 1)
            .await
            .map_err(store_error)?;
        Ok(newest.first().map_or(1, |row| row.number + 1))
    }

    /// A file of a commit as text; `None` when it has none of that name.
    pub(crate) async fn optional_file(
        &self,
        project: &ProjectName,
        commit: &CommitId,
        path: &str,
    ) -> Result<Option<String>, ControlError> {
        match self.forge.file(project, commit, path).await {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(ForgeError::NotFound { .. }) => Ok(None),
            Err(error) => Err(forge_error(error)),
        }
    }
}

struct PushTrigger {
    /// The whole ref; empty when nothing was pushed.
    name: String,
    branch: Option<String>,
    tag: Option<String>,
}

struct Made {
    pipeline: PipelineRow,
    record: PipelineRecord,
    workflows: Vec<(WorkflowRecord, Definition)>,
}

fn ref_key(project: &ProjectName, name: &str) -> String {
    format!("{project}/{name}")
}

pub(crate) fn forge_error(error: ForgeError) -> ControlError {
    match error {
        ForgeError::UnknownProject(_) | ForgeError::NotFound { .. } => ControlError::not_found(error.to_string()),
        other => ControlError::unavailable("git does not do what is needed").caused_by(other),
    }
}
