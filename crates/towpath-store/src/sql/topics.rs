//! Which subjects a change is about.

use super::operation::Operation;
use crate::{Change, Commit, Topic, Write};
use towpath_types::{EnvironmentId, ProjectName};

/// What listeners are told of an operation that was carried out; a commit's topics each once.
pub(crate) fn of(operation: &Operation) -> Change {
    match operation {
        Operation::Commit(commit) => Change::Topics(of_commit(commit).into()),
        // The server may have been killed between a commit and its notification.
        Operation::ForgetServer(_) => Change::Everything,
        // A claim only takes work away, and nobody waits for that.
        Operation::Claim { .. } | Operation::Renew { .. } | Operation::PutServer(_) | Operation::RemoveServer(_) => {
            Change::Topics([].into())
        }
    }
}

fn of_commit(commit: &Commit) -> Vec<Topic> {
    let mut topics: Vec<Topic> = commit.writes.iter().flat_map(topics_of).collect();
    topics.extend(commit.topics.iter().cloned());
    topics.sort();
    topics.dedup();
    topics
}

/// The topics that follow from a write.
pub(crate) fn topics_of(write: &Write) -> Vec<Topic> {
    match write {
        Write::Project(row, _) => vec![Topic::Project(row.name.clone())],
        // The pipeline's address is known before the pipeline is made.
        Write::Trigger(row, _) => vec![Topic::Project(row.project.clone()), Topic::Pipeline(row.pipeline)],
        Write::Pipeline(row, _) => vec![Topic::Project(row.project.clone()), Topic::Pipeline(row.id)],
        Write::PipelineConfig(row) => vec![Topic::Pipeline(row.pipeline)],
        Write::Workflow(row, _) => vec![Topic::Project(row.project.clone()), Topic::Pipeline(row.pipeline)],
        Write::Job(row, _) => vec![
            Topic::Project(row.project.clone()),
            Topic::Pipeline(row.pipeline),
            Topic::Job(row.id),
        ],
        Write::NumberJob(job) => vec![Topic::Job(*job)],
        Write::Node(row, _) => vec![Topic::Job(row.job)],
        Write::Step(row) => vec![Topic::Job(row.job)],
        Write::Artifact(_, row) => vec![Topic::Job(row.job)],
        Write::Tests { job, .. } => vec![Topic::Job(*job)],
        Write::Gate(row, _) => {
            let mut topics = vec![Topic::Gates, Topic::Pipeline(row.pipeline), Topic::Job(row.job)];
            topics.extend(row.environment.clone().map(Topic::Environment));
            topics
        }
        Write::Release(row, _) => {
            let mut topics = of_environment(&row.environment);
            topics.push(Topic::lines_of_release(row.id));
            topics.extend(row.job.map(Topic::Job));
            topics
        }
        Write::Run(row, _) => vec![Topic::Environment(row.environment.clone()), Topic::Run(row.id)],
        Write::Environment(row, _) => of_environment(&row.id),
        Write::Work(_)
        | Write::WorkDone(_)
        | Write::CancelWork(_)
        | Write::WorkFailed { .. }
        | Write::WorkReturned { .. } => vec![Topic::Work],
        Write::EndSession(_) => vec![Topic::Sessions],
        // No page shows these directly; the rows that pages show are written with them.
        Write::HandledRef(_)
        | Write::Events { .. }
        | Write::JobGoesOn { .. }
        | Write::JobSpec(_)
        | Write::Cache(_)
        | Write::WorkspaceLayer(_)
        | Write::Plan(_)
        | Write::ImagePush(_)
        | Write::OrbNamespace(_)
        | Write::Orb(..)
        | Write::OrbVersion(_)
        | Write::FetchedOrb(_)
        | Write::ContextRule(_)
        | Write::Session(_)
        | Write::SessionSeen { .. }
        | Write::WorkBound { .. } => Vec::new(),
    }
}

/// The pages of the environment's project list it.
fn of_environment(id: &EnvironmentId) -> Vec<Topic> {
    let mut topics = vec![Topic::Environment(id.clone())];
    topics.extend(id.project().parse::<ProjectName>().ok().map(Topic::Project));
    topics
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Guard, WorkKey, WorkKind};
    use towpath_types::JobId;

    #[test]
    fn a_commit_tells_each_topic_once_with_the_announced_ones() {
        let job = JobId::from_u128(1);
        let guard = Guard {
            key: WorkKey::new(WorkKind::Job, job),
            fence: 1,
        };
        let mut commit = Commit::new()
            .with(Write::NumberJob(job))
            .with(Write::NumberJob(job))
            .with(Write::WorkDone(guard));
        commit.announce(Topic::JobLogs(job));
        let told = [Topic::Job(job), Topic::JobLogs(job), Topic::Work];
        assert_eq!(of(&Operation::Commit(commit)), Change::Topics(told.into()));
    }

    #[test]
    fn a_server_that_is_gone_may_have_told_nothing() {
        assert_eq!(of(&Operation::ForgetServer("a".into())), Change::Everything);
    }
}
