//! Decides what to release: the plan of a laptop, of a gate, or of an earlier release.

use super::{
    decide::{earlier, is_meant_again, is_repeat, is_well, new_release, no_earlier, release_of_attempt, same_objects},
    stream::stream,
};
use crate::{
    agreement::{Agreed, agreed},
    environment::{between_releases, unseen},
    error::DeliveryError,
    history::History,
    lock::Locks,
    plan::Plan,
    planner::Planner,
    project_file::{OnFailure, ProjectFile},
    protection::{Asked, Way},
    request::LaptopRequest,
    retry::until_stored,
    work,
    workflow::WorkflowJobs,
};
use std::sync::Arc;
use towpath_deploy::Target;
use towpath_manifest::HookOccasion;
use towpath_store::{Commit, Expect, JobRow, ReleaseRow, Store, Write};
use towpath_types::{Actor, Clock, Digest, EnvironmentId, JobId, JobKind, ReleaseId, ReleaseStatus, Right, Via};
use towpath_workflow::{release, wire::write_release_event};

/// How many releases `rollback` considers.
const MOST_RELEASES: u32 = 1000;

/// A release to begin, and what is known about the requester.
struct Beginning<'a> {
    id: ReleaseId,
    plan: &'a Plan,
    cause: &'a str,
    actor: &'a Actor,
    /// The job whose step requests it.
    job: Option<&'a JobRow>,
    asked: Asked<'a>,
}

/// The plan that a job carries out.
struct PlanForJob {
    plan: Plan,
    cause: String,
    /// The person who agreed to it.
    by: String,
    agreed: Agreed,
}

/// Begins releases and carries them out.
#[derive(Clone)]
pub struct Releases {
    pub(super) store: Arc<dyn Store>,
    pub(super) target: Arc<dyn Target>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) history: History,
    planner: Planner,
    locks: Locks,
}

impl Releases {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        target: Arc<dyn Target>,
        clock: Arc<dyn Clock>,
        planner: Planner,
        locks: Locks,
    ) -> Self {
        Self {
            store,
            target,
            clock,
            history: planner.history.clone(),
            planner,
            locks,
        }
    }

    /// Begins a release of a plan that `actor` saw and agreed to: commits the release, its plan, its first events, and
    /// the work of carrying it out. `cause` says where it comes from. `job` is the job whose step requested it: it must
    /// still be running when the release is stored.
    ///
    /// A plan of exactly what runs does not become a new release: the running release counts it as a repeat and is
    /// returned.
    ///
    /// # Errors
    /// `Conflict` when the plan has blockers, while somebody deploys to the environment, and when somebody else has
    /// locked it.
    pub async fn begin(
        &self,
        plan: &Plan,
        cause: &str,
        actor: &Actor,
        job: Option<&JobRow>,
    ) -> Result<ReleaseRow, DeliveryError> {
        self.begin_as(Beginning {
            id: new_release(),
            plan,
            cause,
            actor,
            job,
            asked: Asked {
                way: &Way::Person,
                agreed: &Agreed::This,
                project_file: None,
            },
        })
        .await
    }

    /// The one place where releases begin, wherever they come from.
    async fn begin_as(&self, beginning: Beginning<'_>) -> Result<ReleaseRow, DeliveryError> {
        let Beginning {
            id,
            plan,
            cause,
            actor,
            job,
            asked,
        } = beginning;
        let protections = &self.planner.protections;
        protections.refuse_unagreed(plan, asked, self.clock.now()).await?;
        if !plan.blockers.is_empty() {
            return Err(DeliveryError::conflict(format!(
                "the plan cannot be carried out:\n{}",
                plan.blockers.join("\n")
            )));
        }
        self.locks.refuse_busy(&plan.place, actor).await?;
        if let Some(repeated) = self.repeat(plan, actor).await? {
            return Ok(repeated);
        }
        let now = self.clock.now();
        let stored = plan.row(now);
        let mut row = ReleaseRow {
            id,
            environment: plan.place.id.clone(),
            number: 0,
            status: ReleaseStatus::Approved,
            outcome: None,
            images: plan.images.clone(),
            commit: plan.commit.clone(),
            actor: actor.clone(),
            cause: cause.to_string(),
            plan: stored.digest.clone(),
            parent: plan.parent,
            job: job.map(|job| job.id),
            created_at: now,
            stopped_at: None,
            message: None,
            repeats: 0,
            repeated_at: None,
            version: 1,
        };
        let events = [
            release::Event::Planned {
                plan: stored.digest.clone(),
                parent: plan.parent,
                on_failure: match plan.on_failure {
                    OnFailure::Rollback => release::OnFailure::Rollback,
                    OnFailure::Stop => release::OnFailure::Stop,
                },
                at: now,
            },
            release::Event::Approved {
                plan: stored.digest.clone(),
                by: actor.name.clone(),
                at: now,
            },
        ];
        let mut commit = Commit::new()
            .with(Write::Plan(stored))
            .with(Write::Release(row.clone(), Expect::Absent))
            .with(Write::Events {
                stream: stream(id),
                expected: 0,
                events: events.iter().map(write_release_event).collect(),
            })
            .with(Write::Work(work::release(id, &row.environment, now)))
            .with(Write::Work(work::look(&row.environment, now)));
        if let Some(job) = job {
            commit.write(Write::JobGoesOn {
                job: job.id,
                attempt: job.attempt,
            });
        }
        if self.store.environment(&row.environment).await?.is_none() {
            commit.write(Write::Environment(unseen(&plan.place), Expect::Absent));
        }
        let committed = self.store.commit(commit).await?;
        let number = committed.releases.iter().find(|(of, _)| *of == id);
        row.number = number.map_or(0, |(_, number)| *number);
        tracing::info!(release = %id, number = row.number, environment = %row.environment, by = %actor, cause, "release begun");
        Ok(row)
    }

    /// Counts a plan of what already runs healthily as a repeat of the running release. `None` if the plan is something
    /// else.
    async fn repeat(&self, plan: &Plan, actor: &Actor) -> Result<Option<ReleaseRow>, DeliveryError> {
        let id = &plan.place.id;
        let Some(runs) = self.history.last(id).await? else {
            return Ok(None);
        };
        if !is_repeat(plan, &runs, &self.history.plan_of(&runs).await?) {
            return Ok(None);
        }
        let applied = self.target.current(&plan.place).await?;
        if applied.and_then(|applied| applied.release) != Some(runs.id)
            || !is_well(&self.target.status(&plan.place).await?)
        {
            return Ok(None);
        }
        let at = self.clock.now();
        self.target.count_repeat(&plan.place, runs.id, at).await?;
        let repeated = ReleaseRow {
            repeats: runs.repeats + 1,
            repeated_at: Some(at),
            ..runs
        };
        let write = Write::Release(repeated.clone(), Expect::Version(repeated.version));
        self.store.commit(Commit::new().with(write)).await?;
        tracing::info!(release = %repeated.id, environment = %id, by = %actor, "deployed again: nothing changes");
        Ok(Some(repeated))
    }

    /// Deploys or promotes what a laptop requests.
    ///
    /// # Errors
    /// When no plan can be made, and as for [`Releases::begin`]. `Conflict` with a [`DeliveryError::plan`] when the
    /// requester has to see that plan and name it in the request.
    pub async fn deploy(
        &self,
        id: &EnvironmentId,
        request: LaptopRequest,
        actor: &Actor,
    ) -> Result<ReleaseRow, DeliveryError> {
        let cause = request.cause(id.environment());
        let shown = request.plan.clone();
        let project_file = request.parsed_project_file()?;
        let plan = self.planner.plan_of_request(id, request).await?;
        self.begin_for_person(&plan, &cause, actor, shown.as_ref(), Some(&project_file))
            .await
    }

    /// Begins the request of a person who saw the plan `shown`.
    async fn begin_for_person(
        &self,
        plan: &Plan,
        cause: &str,
        actor: &Actor,
        shown: Option<&Digest>,
        project_file: Option<&ProjectFile>,
    ) -> Result<ReleaseRow, DeliveryError> {
        let agreed = agreed(self.store.as_ref(), shown, plan).await?;
        until_stored!(self.begin_as(Beginning {
            id: new_release(),
            plan,
            cause,
            actor,
            job: None,
            asked: Asked {
                way: &Way::Person,
                agreed: &agreed,
                project_file,
            },
        }))
    }

    /// Carries out `towpath deploy ENVIRONMENT` in a job's step: the plan that the gate in front of the job released,
    /// or the workflow's plan if there is no gate. Repeated requests by the same job are one release, unless it failed
    /// in an earlier attempt of the job.
    ///
    /// # Errors
    /// `Conflict` when the gate approved no plan of this environment, when the job's configuration does not say that it
    /// deploys there, when the job has ended or is to stop, when the environment is protected and nobody approved the
    /// plan or no protected branch has the commit, and as for [`Releases::begin`].
    pub async fn deploy_for_job(&self, job: JobId, environment: &str) -> Result<ReleaseRow, DeliveryError> {
        until_stored!(async {
            let (workflow, job) = WorkflowJobs::of_job(self.store.as_ref(), job).await?;
            let id = crate::manifests::environment_id(workflow.row.project.as_str(), environment)?;
            let release = release_of_attempt(job.id, job.attempt, environment);
            let before = self.store.release_of_job(job.id, &id).await?;
            if let Some(before) = before.filter(|before| is_meant_again(before, release)) {
                return Ok(before);
            }
            // A gate can only have shown the environment in the configuration.
            if job.environment.as_deref() != Some(environment) {
                let said = job.environment.as_ref().map_or_else(
                    || "that it deploys anywhere".to_string(),
                    |said| format!("`towpath deploy {said}`"),
                );
                return Err(DeliveryError::conflict(format!(
                    "job `{}` asks to deploy to `{environment}`, but its configuration says {said}: only a step with \
                     `towpath deploy ENVIRONMENT` can be shown at a gate",
                    job.name
                )));
            }
            if !job.goes_on(job.attempt) {
                return Err(DeliveryError::conflict(format!(
                    "job `{}` does not run any more, so it deploys nothing",
                    job.name
                )));
            }
            let found = self.plan_for_job(&workflow, &job.name, &id).await?;
            let actor = Actor {
                name: found.by,
                via: Via::Job,
                right: Right::Job,
            };
            let (project, commit) = (&workflow.row.project, &workflow.row.commit);
            let way = Way::Pipeline(self.planner.protections.reach(project, commit).await?);
            let beginning = Beginning {
                id: release,
                plan: &found.plan,
                cause: &found.cause,
                actor: &actor,
                job: Some(&job),
                asked: Asked {
                    way: &way,
                    agreed: &found.agreed,
                    project_file: None,
                },
            };
            self.begin_as(beginning).await.map_err(|error| match error.plan() {
                Some(plan) => DeliveryError::conflict(format!(
                    "{environment} is protected, and nobody approved the plan of job `{}`. A pipeline that begins now has a gate \
                     in front of the job; or put a job of `type: approval` in front of it. The plan is `{}`",
                    job.name, plan.id
                )),
                None => error,
            })
        })
    }

    /// The plan that a job carries out.
    async fn plan_for_job(
        &self,
        workflow: &WorkflowJobs,
        job: &str,
        id: &EnvironmentId,
    ) -> Result<PlanForJob, DeliveryError> {
        let pipeline = workflow.row.pipeline_number;
        let is_gate =
            |job: &&JobRow| job.kind == JobKind::Approval && job.environment.as_deref() == Some(id.environment());
        for gate in workflow.before(job).into_iter().filter(is_gate) {
            let row = self.store.gate(gate.id).await?;
            let Some((row, by)) = row.and_then(|row| row.approved_by.clone().map(|by| (row, by))) else {
                continue;
            };
            let without = || {
                DeliveryError::conflict(format!(
                    "`{}` was approved without a plan of `{}`",
                    row.name,
                    id.environment()
                ))
            };
            let digest = row.plan.as_ref().ok_or_else(without)?;
            let plan = self.history.stored_plan(digest).await?.ok_or_else(without)?;
            if plan.place.id != *id {
                return Err(without());
            }
            return Ok(PlanForJob {
                plan,
                cause: format!("gate {} of pipeline {pipeline}", row.name),
                by,
                agreed: Agreed::This,
            });
        }
        Ok(PlanForJob {
            plan: self.planner.plan_of_workflow(workflow, job, id).await?,
            cause: format!("job {job} of pipeline {pipeline}"),
            by: Actor::job().name,
            agreed: Agreed::Nothing,
        })
    }

    /// Rolls back to an earlier release, its images and its objects, as a new release. Without `to`, to the nearest one
    /// that differs from what runs; after a failed deployment that was left in place, to the one before it. `actor` saw
    /// the plan `shown`.
    ///
    /// # Errors
    /// `Conflict` when there is no release to roll back to, and as for [`Releases::deploy`].
    pub async fn rollback(
        &self,
        id: &EnvironmentId,
        to: Option<i64>,
        shown: Option<&Digest>,
        actor: &Actor,
    ) -> Result<ReleaseRow, DeliveryError> {
        let environment = id.environment();
        let place = self.history.place(id).await?;
        self.history.learn(&place).await?;
        let rows = self.store.releases(id, MOST_RELEASES).await?;
        let applied = self.target.current(&place).await?;
        let is_between = applied.is_some_and(|applied| {
            let is_deploying = applied.deploying.is_some();
            between_releases(applied.release, applied.attempted, is_deploying, &rows).is_some()
        });
        let (current, candidates) = earlier(&rows, is_between, environment)?;
        let runs = self.history.plan_of(current).await?;
        let mut found = None;
        for row in candidates {
            let is_it = match to {
                Some(number) => row.number == number,
                None if is_between => true,
                None if row.plan == current.plan => false,
                None => !same_objects(&self.history.plan_of(row).await?, &runs),
            };
            if is_it {
                found = Some(row);
                break;
            }
        }
        let row = found.ok_or_else(|| no_earlier(environment, to))?;
        let mut plan = self.history.plan_of(row).await?;
        plan.parent = Some(current.id);
        plan.hooks.occasion = HookOccasion::Rollback;
        plan.previous_images.clone_from(&runs.images);
        plan.commits = Vec::new();
        plan.third_party = self
            .planner
            .images
            .third_party(plan.third_party.into_keys().collect())
            .await;
        plan.warnings = Vec::new();
        plan.blockers = Vec::new();
        self.planner.complete(&mut plan, Some(&runs), true).await?;
        let cause = format!("rollback to release {}", row.number);
        self.begin_for_person(&plan, &cause, actor, shown, None).await
    }
}
