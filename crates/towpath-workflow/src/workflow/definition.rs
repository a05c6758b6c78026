//! The jobs of a workflow and what each requires.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use towpath_types::Outcome;

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Runs steps.
    Build {
        /// `parallelism`: the number of nodes, at least 1.
        nodes: u32,
    },
    /// Waits until somebody approves it.
    Approval,
    /// Succeeds at once.
    NoOp,
}

/// The outcome that a requirement accepts.
///
/// Source: <https://circleci.com/docs/reference/configuration-reference/#requires>
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum RequiredStatus {
    Success,
    Failed,
    Canceled,
    Unauthorized,
    NotRun,
}

impl RequiredStatus {
    /// Every status: the meaning of `terminal`.
    pub const TERMINAL: [Self; 5] = [
        Self::Success,
        Self::Failed,
        Self::Canceled,
        Self::Unauthorized,
        Self::NotRun,
    ];

    /// The status that `outcome` counts as.
    #[must_use]
    pub fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Succeeded => Self::Success,
            Outcome::Failed | Outcome::Errored | Outcome::TimedOut => Self::Failed,
            Outcome::Canceled => Self::Canceled,
            Outcome::Rejected => Self::Unauthorized,
            Outcome::Skipped => Self::NotRun,
        }
    }
}

/// One job that has to end before another begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The job's name.
    pub job: String,
    /// The accepted outcomes; any of them will do.
    pub statuses: Vec<RequiredStatus>,
}

impl Requirement {
    /// `job` has to succeed.
    #[must_use]
    pub fn success(job: impl Into<String>) -> Self {
        Self {
            job: job.into(),
            statuses: vec![RequiredStatus::Success],
        }
    }
}

/// One job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobDefinition {
    /// Its name, unique in the workflow.
    pub name: String,
    /// What it does.
    pub kind: JobKind,
    /// The jobs that have to end first.
    pub requires: Vec<Requirement>,
    /// The number of automatic retries after `Errored`. Only for a `Build`.
    pub retries: u32,
    /// The time limit of an attempt, in whole seconds. Only for a `Build`.
    pub time_limit: Option<Duration>,
    /// The reason why it can never run, for a person. When it becomes ready, it ends at once as `Errored` with this
    /// message.
    pub cannot_run: Option<String>,
}

impl JobDefinition {
    /// A job without automatic retries and time limit that can run.
    #[must_use]
    pub fn new(name: impl Into<String>, kind: JobKind, requires: Vec<Requirement>) -> Self {
        Self {
            name: name.into(),
            kind,
            requires,
            retries: 0,
            time_limit: None,
            cannot_run: None,
        }
    }
}

/// The jobs of one workflow.
///
/// **Invariant:** names are unique; required jobs exist; requirements have no cycles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    jobs: Vec<JobDefinition>,
    /// The index of each job by its name.
    index: BTreeMap<String, usize>,
    /// The jobs, each after what it requires.
    order: Vec<usize>,
}

/// Why jobs are not a valid workflow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum DefinitionError {
    /// Two jobs have one name.
    #[error("two jobs are called `{0}`")]
    Duplicate(String),
    /// A required job does not exist.
    #[error("job `{job}` requires `{requires}`, which is not in the workflow")]
    Unknown { job: String, requires: String },
    /// Jobs require each other in a cycle.
    #[error("jobs wait for each other in a circle: {}", .0.join(", "))]
    Circle(Vec<String>),
    /// A job runs on no node.
    #[error("job `{0}` has a parallelism of 0")]
    NoNodes(String),
    /// No outcome can meet a requirement.
    #[error("job `{job}` requires `{requires}` with no status")]
    NoStatus { job: String, requires: String },
    /// A time limit is zero or has a fraction of a second.
    #[error("the time limit of job `{0}` is not a positive number of whole seconds")]
    TimeLimit(String),
    /// A job that runs nothing has retries or a time limit.
    #[error("job `{0}` runs nothing, so it can have neither retries nor a time limit")]
    RunsNothing(String),
}

impl Definition {
    /// Checks that `jobs` are a valid workflow.
    ///
    /// # Errors
    /// [`DefinitionError`], about the first fault.
    pub fn new(jobs: Vec<JobDefinition>) -> Result<Self, DefinitionError> {
        let mut index = BTreeMap::new();
        for (at, job) in jobs.iter().enumerate() {
            if index.insert(job.name.clone(), at).is_some() {
                return Err(DefinitionError::Duplicate(job.name.clone()));
            }
            check(job)?;
        }
        for job in &jobs {
            for requirement in &job.requires {
                let (job, requires) = (job.name.clone(), requirement.job.clone());
                if !index.contains_key(&requires) {
                    return Err(DefinitionError::Unknown { job, requires });
                }
                if requirement.statuses.is_empty() {
                    return Err(DefinitionError::NoStatus { job, requires });
                }
            }
        }
        let order = order(&jobs, &index)?;
        Ok(Self { jobs, index, order })
    }

    /// The jobs in the order of the configuration.
    #[must_use]
    pub fn jobs(&self) -> &[JobDefinition] {
        &self.jobs
    }

    /// The job called `name`.
    #[must_use]
    pub fn job(&self, name: &str) -> Option<&JobDefinition> {
        self.index.get(name).map(|at| &self.jobs[*at])
    }

    /// The index in [`Definition::jobs`] of the job called `name`.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// The indexes in [`Definition::jobs`], each after those of the jobs that it requires.
    pub(crate) fn order(&self) -> &[usize] {
        &self.order
    }

    /// The jobs, each after what it requires.
    fn in_order(&self) -> impl Iterator<Item = &JobDefinition> {
        self.order.iter().map(|at| &self.jobs[*at])
    }

    /// Every job that `name` requires, directly or not, with every job that *that one* requires. Each comes after the
    /// jobs that it requires.
    #[must_use]
    pub fn ancestors(&self, name: &str) -> Vec<(String, BTreeSet<String>)> {
        let mut of: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for job in self.in_order() {
            let mut all = BTreeSet::new();
            for requirement in &job.requires {
                all.extend(of.get(requirement.job.as_str()).into_iter().flatten().cloned());
                all.insert(requirement.job.clone());
            }
            of.insert(&job.name, all);
        }
        let wanted = of.get(name).cloned().unwrap_or_default();
        self.in_order()
            .filter(|job| wanted.contains(&job.name))
            .map(|job| (job.name.clone(), of.get(job.name.as_str()).cloned().unwrap_or_default()))
            .collect()
    }
}

/// Checks one job by itself.
fn check(job: &JobDefinition) -> Result<(), DefinitionError> {
    match job.kind {
        JobKind::Build { nodes: 0 } => return Err(DefinitionError::NoNodes(job.name.clone())),
        JobKind::Build { .. } => {}
        JobKind::Approval | JobKind::NoOp => {
            if job.retries > 0 || job.time_limit.is_some() {
                return Err(DefinitionError::RunsNothing(job.name.clone()));
            }
        }
    }
    match job.time_limit {
        Some(limit) if limit.is_zero() || limit.subsec_nanos() != 0 => {
            Err(DefinitionError::TimeLimit(job.name.clone()))
        }
        _ => Ok(()),
    }
}

/// The indexes of `jobs`, each after what it requires.
fn order(jobs: &[JobDefinition], index: &BTreeMap<String, usize>) -> Result<Vec<usize>, DefinitionError> {
    let mut waiting: Vec<usize> = jobs.iter().map(|job| job.requires.len()).collect();
    let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); jobs.len()];
    for (at, job) in jobs.iter().enumerate() {
        for requirement in &job.requires {
            dependents[index[&requirement.job]].push(at);
        }
    }
    let mut order: Vec<usize> = (0..jobs.len()).filter(|at| waiting[*at] == 0).collect();
    let mut next = 0;
    while let Some(at) = order.get(next).copied() {
        next += 1;
        for dependent in &dependents[at] {
            waiting[*dependent] -= 1;
            if waiting[*dependent] == 0 {
                order.push(*dependent);
            }
        }
    }
    if order.len() == jobs.len() {
        return Ok(order);
    }
    Err(DefinitionError::Circle(
        jobs.iter()
            .zip(&waiting)
            .filter(|(_, left)| **left > 0)
            .map(|(job, _)| job.name.clone())
            .collect(),
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn job(name: &str, requires: &[&str]) -> JobDefinition {
        let requires = requires.iter().map(|job| Requirement::success(*job)).collect();
        JobDefinition::new(name, JobKind::Build { nodes: 1 }, requires)
    }

    #[test]
    fn what_makes_no_workflow_is_refused_by_name() {
        let check = |jobs: Vec<JobDefinition>, expected: &str| {
            assert_eq!(Definition::new(jobs).unwrap_err().to_string(), expected);
        };
        check(vec![job("a", &[]), job("a", &[])], "two jobs are called `a`");
        check(
            vec![job("a", &["b"])],
            "job `a` requires `b`, which is not in the workflow",
        );
        check(
            vec![job("z", &[]), job("a", &["c"]), job("b", &["a"]), job("c", &["b"])],
            "jobs wait for each other in a circle: a, b, c",
        );
        let nothing = JobDefinition {
            kind: JobKind::Build { nodes: 0 },
            ..job("a", &[])
        };
        check(vec![nothing], "job `a` has a parallelism of 0");
        let never = JobDefinition {
            requires: vec![Requirement {
                job: "a".into(),
                statuses: vec![],
            }],
            ..job("b", &[])
        };
        check(vec![job("a", &[]), never], "job `b` requires `a` with no status");
        for limit in [Duration::ZERO, Duration::from_millis(1500)] {
            let limited = JobDefinition {
                time_limit: Some(limit),
                ..job("a", &[])
            };
            check(
                vec![limited],
                "the time limit of job `a` is not a positive number of whole seconds",
            );
        }
        for kind in [JobKind::Approval, JobKind::NoOp] {
            let retried = JobDefinition {
                kind,
                retries: 1,
                ..job("a", &[])
            };
            check(
                vec![retried],
                "job `a` runs nothing, so it can have neither retries nor a time limit",
            );
        }
    }

    #[test]
    fn ancestors_come_in_order_with_their_own() {
        let definition = Definition::new(vec![
            job("d", &["b", "c"]),
            job("b", &["a"]),
            job("c", &["a"]),
            job("a", &[]),
            job("x", &[]),
        ])
        .unwrap();
        let ancestors = definition.ancestors("d");
        let names: Vec<_> = ancestors.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(ancestors[1].1, BTreeSet::from(["a".to_string()]));
        assert!(definition.ancestors("a").is_empty());
        assert!(definition.ancestors("nosuch").is_empty());
    }
}
