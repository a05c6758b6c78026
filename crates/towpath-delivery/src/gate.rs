//! Gates: approval jobs on hold, and the plans that approving them releases.
//!
//! **Invariant:** an approval carries out exactly the plan that the approver saw, or nothing. The approver names the
//! plan by its digest. Towpath makes the plan again; if it differs, Towpath refuses the approval and the gate shows the
//! new plan.

use crate::{
    agreement::{Agreed, agreed},
    error::DeliveryError,
    lock::Locks,
    plan::Plan,
    planner::Planner,
    retry::until_stored,
    workflow::WorkflowJobs,
};
use jiff::Timestamp;
use std::sync::Arc;
use towpath_store::{Commit, Expect, GateRow, Store, Write};
use towpath_types::{Actor, Clock, Digest, EnvironmentId, JobId};

/// A decision that a gate may open. Nothing is stored yet: commit `writes` with the event that opens the gate.
#[derive(Debug, Clone, PartialEq)]
pub struct Approval {
    /// The gate before the approval.
    pub gate: GateRow,
    /// The approved plan; `None` for a gate without an environment.
    pub plan: Option<Digest>,
    /// The writes to commit with the event. They expect the gate unchanged: on a conflict, decide again.
    pub writes: Vec<Write>,
}

/// Whether a plan may be approved.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// The plan that was shown can be carried out.
    Approve,
    /// The request does not name the plan that was shown.
    NothingShown,
    /// The plan has changed since it was shown; the phrases describe the differences.
    Changed(Vec<String>),
    /// Blockers prevent the plan; sentences.
    Blocked(Vec<String>),
}

fn judge(agreed: Agreed, current: &Plan) -> Verdict {
    match (agreed, current.blockers.as_slice()) {
        (Agreed::Nothing, _) => Verdict::NothingShown,
        (Agreed::Other(differences), _) => Verdict::Changed(differences),
        (Agreed::This, []) => Verdict::Approve,
        (Agreed::This, blockers) => Verdict::Blocked(blockers.to_vec()),
    }
}

/// Shows what approving gates would do, and decides whether they may open.
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

    /// Makes a gate's plan again, and stores it or the reason why there is none. Returns the gate's row. A gate that
    /// does not wait, or that has no environment, stays unchanged.
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

    /// Stores what the gate shows from now on.
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

    /// Decides whether `actor`, who saw the plan `shown`, may open a gate. Makes the plan again in order to compare.
    ///
    /// Ask the workflow first whether the gate can open at all, so that a late approver hears that first.
    ///
    /// # Errors
    /// - `Conflict` when the gate leads to an environment and no plan was named; when the gate does not wait; when the
    ///   plan has changed (the gate then shows the new plan, and the message lists the changes); when the plan has
    ///   blockers; while somebody deploys to the environment, or somebody else has locked it.
    /// - Any error from making the plan.
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
        // Keep the gate closed until the deployment ends: a plan made now would be stale by then.
        self.locks.refuse_busy(&current.place, actor).await?;
        let agreed = agreed(self.store.as_ref(), shown, &current).await?;
        let name = environment.environment();
        let now = current.digest();
        match (judge(agreed, &current), shown) {
            (Verdict::Approve, Some(shown)) => {
                let mut approval = approval(gate, Some(shown.clone()), actor, self.clock.now());
                if *shown == now {
                    approval.writes.insert(0, Write::Plan(current.row(self.clock.now())));
                }
                Ok(approval)
            }
            (Verdict::Approve | Verdict::NothingShown, _) => {
                let gate = self.show(gate, Ok(current)).await?;
                Err(DeliveryError::conflict(format!(
                    "approving `{}` deploys to {name}, so name the plan that you were shown by its whole digest. It is now `{now}`",
                    gate.name
                )))
            }
            (Verdict::Changed(differences), shown) => {
                self.show(gate, Ok(current)).await?;
                let shown = shown.map(ToString::to_string).unwrap_or_default();
                Err(DeliveryError::conflict(format!(
                    "the plan for {name} is now `{now}`, not `{shown}` that you were shown: {}. Look at the new plan, and approve that one",
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
