//! Gates: held approval jobs, and the plans that approving them sets free.
//!
//! **Invariant:** what an approver was shown is what is done, or nothing is. Whoever approves names a plan by its digest;
//! the plan is made anew; if it would do anything else, the approval is refused and the new plan is what the gate shows.

use crate::{
    error::DeliveryError,
    lock::Locks,
    plan::{Plan, read_plan},
    planner::Planner,
    retry::until_stored,
    workflow::WorkflowJobs,
};
use jiff::Timestamp;
use std::sync::Arc;
use towpath_store::{Commit, Expect, GateRow, Store, Write};
use towpath_types::{Actor, Clock, Digest, EnvironmentId, JobId};

/// The fewest digits by which the command line may name a plan.
const FEWEST_DIGITS: usize = 12;

/// A decision that a gate may open. Nothing is stored yet: commit `writes` together with the event that opens the gate.
#[derive(Debug, Clone, PartialEq)]
pub struct Approval {
    /// The gate as it was.
    pub gate: GateRow,
    /// The plan that is set free; `None` for a gate that leads to no environment.
    pub plan: Option<Digest>,
    /// What to commit with the event. It expects the gate as it was: on a conflict, decide again.
    pub writes: Vec<Write>,
}

/// Whether a plan may be approved.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// The plan that was shown may be carried out.
    Approve,
    /// Nobody said which plan was shown.
    NothingShown,
    /// The plan would now do something else than what was shown; phrases.
    Changed(Vec<String>),
    /// Something stands in the way; sentences.
    Blocked(Vec<String>),
}

/// What an approver was shown.
#[derive(Debug)]
enum Shown {
    Nothing,
    /// A plan that the store does not have, so that it cannot be compared.
    Unknown,
    Plan(Box<Plan>),
}

fn judge(shown: &Shown, current: &Plan) -> Verdict {
    let differences = match shown {
        Shown::Nothing => return Verdict::NothingShown,
        Shown::Unknown => vec!["the one that you were shown is not known here".to_string()],
        Shown::Plan(shown) => shown.differences(current),
    };
    if !differences.is_empty() {
        return Verdict::Changed(differences);
    }
    match current.blockers.as_slice() {
        [] => Verdict::Approve,
        blockers => Verdict::Blocked(blockers.to_vec()),
    }
}

/// Shows what gates would set free, and decides whether they may be opened.
#[derive(Clone)]
pub struct Gates {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    planner: Planner,
    locks: Locks,
}

impl Gates {
    pub(crate) fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, planner: Planner, locks: Locks) -> Self {
        Self {
            store,
            clock,
            planner,
            locks,
        }
    }

    async fn gate(&self, job: JobId) -> Result<GateRow, DeliveryError> {
        let gate = self.store.gate(job).await?;
        gate.ok_or_else(|| DeliveryError::not_found(format!("there is no gate {job}")))
    }

    async fn plan(&self, gate: &GateRow, environment: &EnvironmentId) -> Result<Plan, DeliveryError> {
        let workflow = WorkflowJobs::load(self.store.as_ref(), gate.workflow).await?;
        self.planner.plan_of_workflow(&workflow, &gate.name, environment).await
    }

    /// Makes the plan of a gate anew, and stores it as what the gate shows; or why there is none. Answers with the gate's
    /// row. A gate that does not wait, or that leads to no environment, stays as it is.
    ///
    /// # Errors
    /// `NotFound` when there is no such gate; when the store does not work.
    pub async fn refresh(&self, job: JobId) -> Result<GateRow, DeliveryError> {
        until_stored!(async {
            let gate = self.gate(job).await?;
            let Some(environment) = gate.environment.clone().filter(|_| gate.waiting) else {
                return Ok(gate);
            };
            let planned = self.plan(&gate, &environment).await;
            self.show(gate, planned).await
        })
    }

    /// Stores what a gate shows from now on.
    async fn show(&self, gate: GateRow, planned: Result<Plan, DeliveryError>) -> Result<GateRow, DeliveryError> {
        let now = self.clock.now();
        let mut commit = Commit::new();
        let mut next = gate.clone();
        next.as_of = Some(now);
        match planned {
            Ok(plan) => {
                let row = plan.row(now);
                next.plan = Some(row.digest.clone());
                next.plan_error = None;
                if gate.plan != next.plan {
                    commit.write(Write::Plan(row));
                }
            }
            Err(error) => {
                next.plan = None;
                next.plan_error = Some(error.chain());
            }
        }
        commit.write(Write::Gate(next.clone(), Expect::Version(gate.version)));
        self.store.commit(commit).await?;
        next.version += 1;
        Ok(next)
    }

    /// The digest of the plan that somebody names for a gate: a whole digest, its 64 digits, or at least 12 digits with
    /// which the digest of the plan begins that the gate shows. Whatever is named, approving compares whole plans.
    ///
    /// # Errors
    /// `Invalid` for a text that names no plan, `Conflict` for the beginning of another plan than the gate shows.
    pub async fn named_plan(&self, job: JobId, text: &str) -> Result<Digest, DeliveryError> {
        if let Ok(digest) = text.parse() {
            return Ok(digest);
        }
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        if let Ok(digest) = format!("sha256:{digits}").parse() {
            return Ok(digest);
        }
        let is_hex = digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !is_hex || digits.len() < FEWEST_DIGITS {
            return Err(DeliveryError::invalid(format!(
                "`{}` does not name a plan: give its digest, or at least the first {FEWEST_DIGITS} digits",
                text.escape_debug()
            )));
        }
        let gate = self.gate(job).await?;
        match gate.plan {
            Some(plan) if plan.hex().starts_with(digits) => Ok(plan),
            Some(plan) => Err(DeliveryError::conflict(format!(
                "the plan of gate `{}` is now `{}`, not `{digits}`: look at the new plan, and approve that one",
                gate.name,
                plan.short()
            ))),
            None => Err(DeliveryError::conflict(format!(
                "gate `{}` shows no plan{}",
                gate.name,
                gate.plan_error.map(|why| format!(": {why}")).unwrap_or_default()
            ))),
        }
    }

    /// Decides whether `actor` may open a gate, having been shown the plan `shown`. The plan is made anew to tell.
    ///
    /// Ask the workflow first whether the gate can be opened at all, so that whoever is late hears that first.
    ///
    /// # Errors
    /// - `Invalid` when the gate leads to an environment and no plan was named.
    /// - `Conflict` when the gate does not wait; when the plan would now do something else (the gate then shows the new plan,
    ///   and the message says what changed); when something stands in the way; while somebody deploys to the environment, or
    ///   somebody else has locked it.
    /// - Whatever making a plan meets.
    pub async fn decide_approval(
        &self,
        job: JobId,
        shown: Option<&Digest>,
        actor: &Actor,
    ) -> Result<Approval, DeliveryError> {
        until_stored!(self.decide_once(job, shown, actor))
    }

    async fn decide_once(&self, job: JobId, shown: Option<&Digest>, actor: &Actor) -> Result<Approval, DeliveryError> {
        let gate = self.gate(job).await?;
        if !gate.waiting {
            let name = &gate.name;
            return Err(DeliveryError::conflict(match &gate.approved_by {
                Some(by) => format!("`{name}` was already approved by {by}"),
                None => format!("`{name}` does not wait for approval"),
            }));
        }
        let Some(environment) = gate.environment.clone() else {
            return Ok(approval(gate, None, actor, self.clock.now()));
        };
        let current = self.plan(&gate, &environment).await?;
        // The gate stays for when that has ended: a plan of now would be stale by then.
        self.locks.refuse_busy(&current.place, actor).await?;
        let known = match shown {
            Some(digest) => self.shown(digest, &environment, &current).await?,
            None => Shown::Nothing,
        };
        let name = environment.environment();
        let now = current.digest();
        match (judge(&known, &current), shown) {
            (Verdict::Approve, Some(shown)) => {
                let mut approval = approval(gate, Some(shown.clone()), actor, self.clock.now());
                if *shown == now {
                    approval.writes.insert(0, Write::Plan(current.row(self.clock.now())));
                }
                Ok(approval)
            }
            (Verdict::Approve | Verdict::NothingShown, _) => {
                let gate = self.show(gate, Ok(current)).await?;
                Err(DeliveryError::invalid(format!(
                    "approving `{}` deploys to {name}, so name the plan that you were shown. It is now `{now}`",
                    gate.name
                )))
            }
            (Verdict::Changed(differences), shown) => {
                self.show(gate, Ok(current)).await?;
                let shown = shown.map(Digest::short).unwrap_or_default();
                Err(DeliveryError::conflict(format!(
                    "the plan for {name} is now `{}`, not `{shown}` that you were shown: {}. Look at the new plan, and approve that one",
                    now.short(),
                    differences.join("; ")
                )))
            }
            (Verdict::Blocked(blockers), _) => {
                self.show(gate, Ok(current)).await?;
                Err(DeliveryError::conflict(format!(
                    "this cannot be deployed to {name}:\n{}",
                    blockers.join("\n")
                )))
            }
        }
    }

    async fn shown(
        &self,
        digest: &Digest,
        environment: &EnvironmentId,
        current: &Plan,
    ) -> Result<Shown, DeliveryError> {
        if *digest == current.digest() {
            return Ok(Shown::Plan(Box::new(current.clone())));
        }
        let row = self.store.plan(digest).await?;
        let plan = row
            .filter(|row| row.environment == *environment)
            .and_then(|row| read_plan(row.plan).ok())
            // Only a plan that is what its name says was shown under that name.
            .filter(|plan| plan.digest() == *digest);
        Ok(plan.map_or(Shown::Unknown, |plan| Shown::Plan(Box::new(plan))))
    }
}

fn approval(gate: GateRow, plan: Option<Digest>, actor: &Actor, now: Timestamp) -> Approval {
    let opened = GateRow {
        waiting: false,
        plan: plan.clone(),
        plan_error: None,
        as_of: plan.is_some().then_some(now).or(gate.as_of),
        approved_by: Some(actor.name.clone()),
        ..gate.clone()
    };
    let write = Write::Gate(opened, Expect::Version(gate.version));
    Approval {
        gate,
        plan,
        writes: vec![write],
    }
}
