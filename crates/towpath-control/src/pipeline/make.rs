//! Makes the pipeline of a trigger.

use crate::{
    conductor::begin,
    contexts::Contexts,
    job::resource_class::needs,
    orbs::{Orbs, Places},
    pipeline::{
        compile::{CONFIG_FILE, Cause, Compiled, CompiledWorkflow, compile, values},
        own_gates,
        triggers::{forge_error, is_same_push},
    },
    storage::store_error,
    worker::{Done, Handler},
};
use futures::future::BoxFuture;
use std::{collections::BTreeSet, sync::Arc};
use tokio_util::sync::CancellationToken;
use towpath_config::{CompileOptions, Document};
use towpath_delivery::{DeliveryError, ErrorKind, PROJECT_FILE, Protections};
use towpath_forge::{Commit as GitCommit, Forge, ForgeError, TreeEntry, TreeFile};
use towpath_orbs::{LOCK_FILE, VENDORED_FOLDER, Vendored};
use towpath_store::{
    Commit, Expect, Guard, HandledRef, JobRow, JobSpecRow, Lease, PipelineConfig, PipelineRow, Store, TriggerKind,
    TriggerRow, WorkflowRow, Write,
};
use towpath_types::{
    Clock, CommitId, EnvironmentId, JobId, JobKind, JobStatus, PipelineStatus, ProjectName, TriggerStatus, WorkflowId,
    WorkflowStatus,
};
use towpath_workflow::{DefinitionError, Event};
use towpath_yaml::{Diagnostic, write_diagnostics};

/// A head commit whose message says one of these in its first 250 characters starts nothing.
/// Source: <https://circleci.com/docs/guides/orchestrate/skip-build/>
const SKIP_MARKS: [&str; 2] = ["[ci skip]", "[skip ci]"];

/// Makes pipelines. Clones share everything.
#[derive(Clone)]
pub(crate) struct PipelineMaker {
    pub store: Arc<dyn Store>,
    pub forge: Arc<dyn Forge>,
    pub clock: Arc<dyn Clock>,
    pub orbs: Orbs,
    pub contexts: Contexts,
    pub protections: Protections,
    /// `http://127.0.0.1:7070`.
    pub base_url: String,
}

impl Handler for PipelineMaker {
    fn handle<'a>(&'a self, lease: &'a Lease, _: &'a CancellationToken) -> BoxFuture<'a, Result<Done, DeliveryError>> {
        Box::pin(async move {
            let key = &lease.work.key.key;
            let id = key
                .parse()
                .map_err(|_| DeliveryError::internal(format!("`{}` is not a trigger's id", key.escape_debug())))?;
            let Some(trigger) = self.store.trigger(id).await.map_err(store_error)? else {
                return Err(DeliveryError::internal(format!("there is no trigger {id}")));
            };
            match trigger.status {
                TriggerStatus::Done | TriggerStatus::Dropped => return Ok(Done::Finished),
                TriggerStatus::Announced | TriggerStatus::Received => {}
            }
            self.take_up(&trigger, lease).await
        })
    }

    // Nobody looks at triggers that were set aside, so make a pipeline that says why it failed.
    fn give_up<'a>(
        &'a self,
        lease: &'a Lease,
        error: &'a DeliveryError,
    ) -> BoxFuture<'a, Result<Option<Done>, DeliveryError>> {
        Box::pin(async move {
            let Ok(id) = lease.work.key.key.parse() else {
                return Ok(None);
            };
            match self.store.trigger(id).await.map_err(store_error)? {
                Some(trigger) => self.make_failed(&trigger, error, lease).await.map(Some),
                None => Ok(None),
            }
        })
    }
}

/// The result of reading the repository.
struct Made {
    config: PipelineConfig,
    compiled: Compiled,
}

impl Made {
    /// A result with only the reason for a failure.
    fn failed(trigger: &TriggerRow, reason: String) -> Self {
        Self {
            config: PipelineConfig {
                pipeline: trigger.pipeline,
                source: String::new(),
                processed: String::new(),
                project_file: None,
            },
            compiled: Compiled::failed(reason),
        }
    }
}

impl PipelineMaker {
    async fn take_up(&self, trigger: &TriggerRow, lease: &Lease) -> Result<Done, DeliveryError> {
        let commit = match self.forge.commit(&trigger.project, &trigger.commit).await {
            Ok(commit) => Some(commit),
            Err(ForgeError::NotFound { .. } | ForgeError::UnknownProject(_)) => None,
            Err(error) => return Err(forge_error(error)),
        };
        if trigger.status == TriggerStatus::Announced && self.is_taken(trigger).await? {
            return self
                .drop_trigger(trigger, "the same push has a pipeline".into(), lease)
                .await;
        }
        if trigger.status == TriggerStatus::Announced && !self.was_accepted(trigger, commit.as_ref()).await? {
            let what = format!("commit {}", trigger.commit.short());
            let reason = match &trigger.kind {
                TriggerKind::Push { ref_name } => {
                    format!("the push was not completed: `{ref_name}` does not lead to {what}")
                }
                TriggerKind::Api | TriggerKind::Schedule => format!("the repository has no {what}"),
            };
            return self.drop_trigger(trigger, reason, lease).await;
        }
        let Some(commit) = commit else {
            // Git allows tags on files and folders.
            let what = trigger
                .tag
                .as_deref()
                .map_or("it".into(), |tag| format!("the tag `{tag}`"));
            let reason = format!("{what} leads to no commit, so there is nothing to run");
            return self.drop_trigger(trigger, reason, lease).await;
        };
        if let Err(error) = self.contexts.provide_registry(&trigger.project, &trigger.actor.name) {
            tracing::warn!(project = %trigger.project, error = error.chain(), "failed to provide the registry's context");
        }
        let made = match self.compile(trigger, &commit).await {
            // Another try would fail in the same way.
            Err(error) if error.kind() == ErrorKind::Invalid => Made::failed(trigger, error.chain()),
            made => made?,
        };
        self.make(trigger, &commit, made, lease).await
    }

    /// Whether another trigger, of a retry, stands for the push of this uncompleted trigger.
    async fn is_taken(&self, trigger: &TriggerRow) -> Result<bool, DeliveryError> {
        let open = self.store.open_triggers().await.map_err(store_error)?;
        // When neither trigger was completed, the first one stands for the push.
        let stands_for_it = |other: &TriggerRow| {
            is_same_push(other, trigger) && (other.status == TriggerStatus::Received || other.number < trigger.number)
        };
        if open.iter().any(stands_for_it) {
            return Ok(true);
        }
        let handled = self.store.handled_refs(&trigger.project).await.map_err(store_error)?;
        Ok(handled.iter().any(|row| {
            matches!(&trigger.kind, TriggerKind::Push { ref_name } if *ref_name == row.name)
                && row.commit.as_ref() == Some(&trigger.commit)
                && row.number > 0
        }))
    }

    /// Whether git accepted a push that `post-receive` has not reported: the ref points to the commit, or did before it
    /// moved on.
    async fn was_accepted(&self, trigger: &TriggerRow, commit: Option<&GitCommit>) -> Result<bool, DeliveryError> {
        let (TriggerKind::Push { ref_name }, Some(commit)) = (&trigger.kind, commit) else {
            return Ok(false);
        };
        let leads_to = match self.forge.find(&trigger.project, ref_name).await {
            Ok(leads_to) => leads_to,
            Err(ForgeError::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(forge_error(error)),
        };
        let not_in_it = self.forge.log(&trigger.project, Some(&leads_to), &commit.id, 1);
        Ok(not_in_it.await.map_err(forge_error)?.is_empty())
    }

    /// Makes a pipeline that only says why it failed.
    async fn make_failed(
        &self,
        trigger: &TriggerRow,
        error: &DeliveryError,
        lease: &Lease,
    ) -> Result<Done, DeliveryError> {
        let reason = format!("no pipeline could be made of this commit: {}", error.chain());
        tracing::error!(project = %trigger.project, trigger = %trigger.id, reason, "gave up");
        let nameless = GitCommit {
            id: trigger.commit.clone(),
            subject: String::new(),
            body: String::new(),
            author: String::new(),
        };
        let commit = self
            .forge
            .commit(&trigger.project, &trigger.commit)
            .await
            .unwrap_or(nameless);
        self.make(trigger, &commit, Made::failed(trigger, reason), lease).await
    }

    async fn drop_trigger(&self, trigger: &TriggerRow, reason: String, lease: &Lease) -> Result<Done, DeliveryError> {
        tracing::warn!(project = %trigger.project, trigger = %trigger.id, reason, "a trigger makes no pipeline");
        let version = trigger.version;
        let dropped = TriggerRow {
            status: TriggerStatus::Dropped,
            reason: Some(reason),
            ..trigger.clone()
        };
        let mut commit = Commit::new();
        commit.guard(lease);
        if trigger.status == TriggerStatus::Received {
            handle_ref(trigger, &mut commit);
        }
        commit.write(Write::Trigger(dropped, Expect::Version(version)));
        commit.write(Write::WorkDone(Guard::from(lease)));
        self.store.commit(commit).await.map_err(store_error)?;
        Ok(Done::Committed)
    }

    async fn make(
        &self,
        trigger: &TriggerRow,
        git: &GitCommit,
        made: Made,
        lease: &Lease,
    ) -> Result<Done, DeliveryError> {
        let now = self.clock.now();
        let pipeline = PipelineRow {
            id: trigger.pipeline,
            trigger: trigger.id,
            project: trigger.project.clone(),
            number: trigger.number,
            branch: trigger.branch.clone(),
            tag: trigger.tag.clone(),
            commit: git.id.clone(),
            subject: git.subject.clone(),
            author: git.author.clone(),
            status: match made.compiled.has_errors() {
                true => PipelineStatus::Errored,
                false => PipelineStatus::Created,
            },
            diagnostics: write_diagnostics(&made.compiled.diagnostics),
            actor: trigger.actor.clone(),
            created_at: now,
            version: 0,
        };
        let mut commit = Commit::new();
        commit.guard(lease);
        commit.write(Write::Pipeline(pipeline.clone(), Expect::Absent));
        commit.write(Write::PipelineConfig(made.config));
        handle_ref(trigger, &mut commit);
        let pipeline = Arc::new(pipeline);
        if !made.compiled.has_errors() && !is_skipped(git) {
            for (position, workflow) in (0..).zip(made.compiled.workflows) {
                put_workflow(&pipeline, position, workflow, now, &mut commit)
                    .map_err(|error| DeliveryError::internal("a workflow could not begin").caused_by(error))?;
            }
        }
        let version = trigger.version;
        let done = TriggerRow {
            status: TriggerStatus::Done,
            ..trigger.clone()
        };
        commit.write(Write::Trigger(done, Expect::Version(version)));
        commit.write(Write::WorkDone(Guard::from(lease)));
        // If the answer is lost, the next try finds that it is done.
        self.store.commit(commit).await.map_err(store_error)?;
        Ok(Done::Committed)
    }

    async fn compile(&self, trigger: &TriggerRow, git: &GitCommit) -> Result<Made, DeliveryError> {
        let project = &trigger.project;
        let mut config = PipelineConfig {
            pipeline: trigger.pipeline,
            source: String::new(),
            processed: String::new(),
            project_file: None,
        };
        let errored = |config, error: String| Made {
            config,
            compiled: Compiled::failed(error),
        };
        let read = async {
            let project_file = self.optional_file(project, &git.id, PROJECT_FILE).await?;
            let source = self.optional_file(project, &git.id, CONFIG_FILE).await?;
            Ok::<_, DeliveryError>((project_file, source))
        };
        let source;
        (config.project_file, source) = match read.await {
            Ok(found) => found,
            // The file in the commit is not text: report that to whoever pushed it.
            Err(error) if error.kind() == ErrorKind::Invalid => return Ok(errored(config, error.chain())),
            Err(error) => return Err(error),
        };
        let Some(source) = source else {
            let error = format!("no configuration was found: the commit has no `{CONFIG_FILE}`");
            return Ok(errored(config, error));
        };
        config.source.clone_from(&source);
        let default_branch = self.forge.default_branch(project).await.map_err(forge_error)?;
        let repository_url = format!("{}/git/{project}.git", self.base_url);
        let cause = Cause {
            pipeline: trigger.pipeline,
            number: trigger.number,
            project: project.as_str(),
            branch: trigger.branch.as_deref(),
            tag: trigger.tag.as_deref(),
            default_branch: &default_branch,
            commit: git,
            repository_url: &repository_url,
            by_api: !matches!(trigger.kind, TriggerKind::Push { .. }),
        };
        let parameters = trigger.parameters.as_object().cloned().unwrap_or_default();
        let mut options = CompileOptions {
            values: values(&cause),
            parameters: parameters.into_iter().collect(),
            ..CompileOptions::default()
        };
        let document = Document::parse(CONFIG_FILE, source);
        let compiled = match self.places(project, &git.id).await {
            Ok(places) => {
                self.orbs.supply(&document, &mut options, &places).await;
                // Compiling is bounded but CPU-bound.
                tokio::task::spawn_blocking(move || compile(&document, &options))
                    .await
                    .map_err(|error| {
                        DeliveryError::internal("compiling a configuration ended early").caused_by(error)
                    })?
            }
            Err(error) if error.kind() == ErrorKind::Invalid => Compiled::failed(error.chain()),
            Err(error) => return Err(error),
        };
        config.processed.clone_from(&compiled.text);
        let compiled = self.with_own_gates(project, compiled).await?;
        Ok(Made { config, compiled })
    }

    /// Adds a gate to each deployment to a protected environment that no approval in the configuration guards.
    async fn with_own_gates(&self, project: &ProjectName, compiled: Compiled) -> Result<Compiled, DeliveryError> {
        let mut protected = BTreeSet::new();
        for environment in own_gates::environments(&compiled.workflows) {
            // Nothing can be deployed to an environment with an invalid name.
            let Ok(id) = EnvironmentId::new(project.as_str(), &environment) else {
                continue;
            };
            if self.protections.is_protected(&id).await? {
                protected.insert(environment);
            }
        }
        let mut diagnostics = compiled.diagnostics;
        let workflows = compiled.workflows.into_iter().map(|workflow| {
            let gated = own_gates::with_own_gates(workflow, &protected)?;
            diagnostics.extend(gated.warnings.iter().map(Diagnostic::stored));
            Ok(gated.workflow)
        });
        let workflows: Result<Vec<CompiledWorkflow>, DefinitionError> = workflows.collect();
        Ok(Compiled {
            workflows: workflows
                .map_err(|error| DeliveryError::internal("a workflow with its gates is none").caused_by(error))?,
            diagnostics,
            ..compiled
        })
    }

    /// The places to look for the orbs of a commit's configuration: first its own folder and its lock file.
    async fn places(&self, project: &ProjectName, commit: &CommitId) -> Result<Places, DeliveryError> {
        let lock = self.optional_file(project, commit, LOCK_FILE).await?;
        let select = |entries: &mut Vec<TreeEntry>| {
            entries.retain(|entry| entry.found.is_err() || Vendored::may_be(&entry.path));
        };
        let vendored = self.forge.files(project, commit, VENDORED_FOLDER, &select);
        let vendored = vendored.await.map_err(forge_error)?;
        let content = |file: TreeFile| match file.content {
            Ok(bytes) => Ok((file.path, bytes)),
            Err(why) => Err(DeliveryError::invalid(format!("`{}` {why}", file.path))),
        };
        let vendored = vendored.into_iter().map(content).collect::<Result<Vec<_>, _>>()?;
        self.orbs.places_of(vendored, lock.as_deref())
    }

    /// A file of a commit as text; `None` when the commit has no such file. `Invalid` when it is not UTF-8.
    async fn optional_file(
        &self,
        project: &ProjectName,
        commit: &CommitId,
        path: &str,
    ) -> Result<Option<String>, DeliveryError> {
        match self.forge.file(project, commit, path).await {
            Ok(bytes) => match towpath_forge::text(bytes) {
                Ok(text) => Ok(Some(text)),
                Err(why) => Err(DeliveryError::invalid(format!("`{path}` {why}"))),
            },
            Err(ForgeError::NotFound { .. }) => Ok(None),
            Err(error) => Err(forge_error(error)),
        }
    }
}

/// Records that a push's ref is handled.
fn handle_ref(trigger: &TriggerRow, commit: &mut Commit) {
    if let TriggerKind::Push { ref_name } = &trigger.kind {
        commit.write(Write::HandledRef(HandledRef {
            project: trigger.project.clone(),
            name: ref_name.clone(),
            commit: Some(trigger.commit.clone()),
            number: trigger.number,
        }));
    }
}

fn is_skipped(git: &GitCommit) -> bool {
    let message = format!("{}\n{}", git.subject, git.body);
    let head: String = message.chars().take(250).collect();
    SKIP_MARKS.iter().any(|mark| head.contains(mark))
}

fn put_workflow(
    pipeline: &Arc<PipelineRow>,
    position: i64,
    workflow: CompiledWorkflow,
    now: jiff::Timestamp,
    commit: &mut Commit,
) -> Result<(), towpath_workflow::Illegal> {
    let id = WorkflowId::from(uuid::Uuid::now_v7());
    let row = WorkflowRow {
        id,
        pipeline: pipeline.id,
        pipeline_number: pipeline.number,
        project: pipeline.project.clone(),
        position,
        name: workflow.name,
        status: WorkflowStatus::Running,
        branch: pipeline.branch.clone(),
        tag: pipeline.tag.clone(),
        commit: pipeline.commit.clone(),
        message: None,
        created_at: now,
        stopped_at: None,
        version: 0,
    };
    let (mut jobs, mut specs) = (Vec::new(), Vec::new());
    for (position, job) in (0..).zip(workflow.jobs) {
        let requires = workflow
            .definition
            .job(&job.name)
            .map(|known| known.requires.as_slice());
        let nodes = job.stored.as_ref().map_or(0, |stored| stored.nodes);
        let class = job.stored.as_ref().and_then(|stored| stored.resource_class.as_deref());
        let needs = needs(class, nodes);
        let row = JobRow {
            id: JobId::from(uuid::Uuid::now_v7()),
            workflow: id,
            pipeline: pipeline.id,
            project: pipeline.project.clone(),
            position,
            number: None,
            name: job.name,
            kind: job.kind,
            status: JobStatus::Blocked,
            requires: requires.unwrap_or_default().iter().map(|one| one.job.clone()).collect(),
            nodes: if job.kind == JobKind::Build { nodes } else { 0 },
            cpu_millis: needs.cpu_millis,
            memory_bytes: needs.memory_bytes,
            attempt: 1,
            environment: job.environment,
            queued_at: None,
            started_at: None,
            stopped_at: None,
            message: None,
            approved_by: None,
            stop_requested: false,
            engine: None,
            image: None,
            version: 0,
        };
        if let Some(stored) = job.stored {
            specs.push(JobSpecRow {
                job: row.id,
                spec: stored.write(),
            });
        }
        jobs.push(row);
    }
    let event = Event::Created {
        definition: workflow.definition,
        succeeded: Vec::new(),
        at: now,
    };
    begin(row, pipeline.clone(), jobs, event, now, commit)?;
    for spec in specs {
        commit.write(Write::JobSpec(spec));
    }
    Ok(())
}
