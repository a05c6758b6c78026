//! The parts of a workflow that deployments need: its commit, and its jobs in order of their requirements.

use crate::error::DeliveryError;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use towpath_store::{JobRow, Store, WorkflowRow};
use towpath_types::{JobId, WorkflowId};

/// A workflow with its jobs.
#[derive(Debug, Clone)]
pub struct WorkflowJobs {
    /// The workflow.
    pub row: WorkflowRow,
    /// Its jobs, in the order of the configuration.
    pub jobs: Vec<JobRow>,
}

impl WorkflowJobs {
    /// Loads a workflow.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub async fn load(store: &dyn Store, id: WorkflowId) -> Result<Self, DeliveryError> {
        let row = store.workflow(id).await?;
        let row = row.ok_or_else(|| DeliveryError::not_found(format!("there is no workflow {id}")))?;
        let jobs = store.jobs_of(&[id]).await?;
        Ok(Self { row, jobs })
    }

    /// Loads the workflow of a job.
    ///
    /// # Errors
    /// `NotFound` when there is no such job.
    pub(crate) async fn of_job(store: &dyn Store, id: JobId) -> Result<(Self, JobRow), DeliveryError> {
        let job = store.job(id).await?;
        let job = job.ok_or_else(|| DeliveryError::not_found(format!("there is no job {id}")))?;
        Ok((Self::load(store, job.workflow).await?, job))
    }

    /// The jobs that have to end before `name` begins, the nearest first.
    pub(crate) fn before(&self, name: &str) -> Vec<&JobRow> {
        let by_name: BTreeMap<&str, &JobRow> = self.jobs.iter().map(|job| (job.name.as_str(), job)).collect();
        let mut wanted: BTreeSet<&str> = BTreeSet::new();
        let mut pending: VecDeque<&str> = VecDeque::from([name]);
        while let Some(job) = pending.pop_front().and_then(|name| by_name.get(name)) {
            for required in &job.requires {
                if wanted.insert(required) {
                    pending.push_back(required);
                }
            }
        }
        let mut order = self.in_order();
        order.retain(|job| wanted.contains(job.name.as_str()));
        order.reverse();
        order
    }

    /// The jobs, each after the jobs that it requires.
    fn in_order(&self) -> Vec<&JobRow> {
        // A requirement on a job outside of this workflow waits for nothing.
        let names: BTreeSet<&str> = self.jobs.iter().map(|job| job.name.as_str()).collect();
        let mut placed: BTreeSet<&str> = BTreeSet::new();
        let mut order = Vec::new();
        let mut waiting: Vec<&JobRow> = self.jobs.iter().collect();
        loop {
            let is_met = |required: &String| placed.contains(required.as_str()) || !names.contains(required.as_str());
            let (ready, rest): (Vec<&JobRow>, Vec<&JobRow>) =
                waiting.into_iter().partition(|job| job.requires.iter().all(is_met));
            // A compiled workflow has no cycles, so nothing is left then.
            if ready.is_empty() {
                return order;
            }
            placed.extend(ready.iter().map(|job| job.name.as_str()));
            order.extend(ready);
            waiting = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::rows;

    fn workflow(jobs: &[(&str, &[&str])]) -> WorkflowJobs {
        let row = rows::workflow("claims");
        let jobs = jobs.iter().zip(0..).map(|((name, requires), position)| JobRow {
            position,
            requires: requires.iter().map(ToString::to_string).collect(),
            ..rows::job(&row, name)
        });
        WorkflowJobs {
            jobs: jobs.collect(),
            row,
        }
    }

    #[test]
    fn the_jobs_before_come_with_the_nearest_first() {
        let workflow = workflow(&[
            ("deploy", &["hold", "test"]),
            ("hold", &["test"]),
            ("test", &["build"]),
            ("build", &[]),
            ("lint", &[]),
        ]);
        let names: Vec<&str> = workflow.before("deploy").iter().map(|job| job.name.as_str()).collect();
        assert_eq!(names, ["hold", "test", "build"]);
        assert!(workflow.before("build").is_empty());
        assert!(workflow.before("nosuch").is_empty());
    }
}
