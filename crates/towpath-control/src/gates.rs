//! Gates: held jobs, and the plans that opening them sets free.

use crate::{
    Control, ControlError,
    conductor::to_json,
    plans::Plan,
    queries::job_view,
    records::{WorkflowRecord, collection},
    views::GateView,
};
use jiff::Timestamp;
use std::sync::Arc;
use towpath_store::JobRow;
use towpath_types::JobId;
use towpath_workflow::Event;

impl Control {
    /// The gates that wait, oldest first.
    ///
    /// # Errors
    /// When the storage does not work.
    pub async fn gates(self: &Arc<Self>) -> Result<Vec<GateView>, ControlError> {
        let mut gates = Vec::new();
        for workflow in self
            .store
            .unfinished_workflows()
            .await
            .map_err(crate::conductor::store_error)?
        {
            for row in self
                .store
                .jobs(workflow.id)
                .await
                .map_err(crate::conductor::store_error)?
            {
                if row.status == "on_hold" {
                    gates.push(self.gate_view(row).await?);
                }
            }
        }
        Ok(gates)
    }

    /// A gate, whether it waits or not.
    ///
    /// # Errors
    /// `NotFound` when there is no such approval job.
    pub async fn gate(self: &Arc<Self>, job: JobId) -> Result<GateView, ControlError> {
        let row = self.store.job(job).await.map_err(crate::conductor::store_error)?;
        let row = row
            .filter(|row| row.kind == "approval")
            .ok_or_else(|| ControlError::not_found(format!("there is no gate {job}")))?;
        self.gate_view(row).await
    }

    async fn gate_view(self: &Arc<Self>, row: JobRow) -> Result<GateView, ControlError> {
        let record = self.record_of(row.id).await?;
        let (plan, plan_error) = match &row.environment {
            None => (None, None),
            Some(environment) => match self.plan_of_gate(&record, &row, environment).await {
                Ok(plan) => (Some(plan.view()), None),
                Err(error) => (None, Some(error.chain())),
            },
        };
        let project = self.project_name(&record.project)?;
        let subject = self
            .forge
            .commit(&project, &record.commit)
            .await
            .map(|commit| commit.subject)
            .unwrap_or_default();
        Ok(GateView {
            job: job_view(row),
            workflow: record.id,
            workflow_name: record.name.clone(),
            project: record.project.clone(),
            pipeline_number: record.pipeline_number,
            branch: record.branch.clone(),
            commit: record.commit.clone(),
            subject,
            plan,
            plan_error,
        })
    }

    /// The plan that was approved, or the one that would be.
    async fn plan_of_gate(
        self: &Arc<Self>,
        record: &Arc<WorkflowRecord>,
        row: &JobRow,
        environment: &str,
    ) -> Result<Plan, ControlError> {
        let approved = {
            let live = self.live(record.id).await?;
            let live = live.lock().await;
            live.state
                .job(&row.name)
                .and_then(|job| job.approval.as_ref())
                .and_then(|approval| approval.plan.clone())
        };
        if let Some(id) = approved
            && let Some(plan) = self
                .document(collection::PLANS, &plan_key(&record.project, environment, &id))
                .await?
        {
            return Ok(plan);
        }
        self.plan_of_workflow(record, &row.name, environment).await
    }

    /// Opens a gate. `plan` is the id of the plan that `by` was shown; without it, the plan as it is now is approved.
    ///
    /// # Errors
    /// `Conflict` when the plan is no longer that one, the gate is not waiting, was approved or was canceled; when the plan
    /// cannot be carried out.
    pub async fn approve(self: &Arc<Self>, job: JobId, by: &str, plan: Option<&str>) -> Result<(), ControlError> {
        let row = self.store.job(job).await.map_err(crate::conductor::store_error)?;
        let row = row
            .filter(|row| row.kind == "approval")
            .ok_or_else(|| ControlError::not_found(format!("there is no gate {job}")))?;
        let record = self.record_of(job).await?;
        let event = |plan: Option<String>| Event::Approved {
            job: row.name.clone(),
            by: by.to_string(),
            plan,
            at: Timestamp::now(),
        };
        let Some(environment) = &row.environment else {
            return self.advance(record.id, event(None), |_| {}).await;
        };
        // Asked before the plan is made, so that whoever is late hears that first.
        self.may_approve(&record, event(None)).await?;
        let current = self.plan_of_workflow(&record, &row.name, environment).await?;
        // The gate stays for when that has ended: a plan of now would be stale by then.
        self.refuse_under_way(&current.target()?).await?;
        if let Some(shown) = plan
            && shown != current.id
        {
            return Err(ControlError::conflict(format!(
                "the plan for {environment} is now `{}`, not `{shown}` that you were shown: what runs there has changed. Look at the new plan, and approve that",
                current.id
            )));
        }
        if !current.blockers.is_empty() {
            return Err(ControlError::conflict(format!(
                "this cannot be deployed to {environment}:\n{}",
                current.blockers.join("\n")
            )));
        }
        let key = plan_key(&record.project, environment, &current.id);
        let json = to_json(&current)?;
        self.advance(record.id, event(Some(current.id)), |batch| {
            batch.document(collection::PLANS, key, Some(json))
        })
        .await
    }

    async fn may_approve(self: &Arc<Self>, record: &WorkflowRecord, event: Event) -> Result<(), ControlError> {
        let live = self.live(record.id).await?;
        let mut state = live.lock().await.state.clone();
        state.apply(event).map(drop).map_err(crate::conductor::illegal)
    }
}

fn plan_key(project: &str, environment: &str, id: &str) -> String {
    format!("{project}/{environment}/{id}")
}
