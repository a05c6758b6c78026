//! The subjects of a change, so that a page is notified only of its own.

use std::{fmt, str::FromStr, sync::Arc};
use tokio::sync::broadcast;
use towpath_types::{EnvironmentId, JobId, PipelineId, ProjectName, ReleaseId, RunId};

/// A subject that somebody may watch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// A project's list of pipelines, or the project itself.
    Project(ProjectName),
    /// A pipeline with its workflows and jobs.
    Pipeline(PipelineId),
    /// A job with its steps, tests and artifacts; not the growth of its logs.
    Job(JobId),
    /// The logs of a job have grown.
    JobLogs(JobId),
    /// An environment: what was seen there, its releases.
    Environment(EnvironmentId),
    /// The lines of a release or a run have grown, or it ended.
    Run(RunId),
    /// The gates that wait.
    Gates,
    /// The queue of work.
    Work,
    /// The sessions of browsers: some ended.
    Sessions,
}

impl Topic {
    /// The lines of a release: [`Topic::Run`] with the release's id.
    #[must_use]
    pub fn lines_of_release(release: ReleaseId) -> Self {
        Self::Run(RunId::from(uuid::Uuid::from(release)))
    }
}

/// One commit's topics, or a notice that some were missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// These changed.
    Topics(Arc<[Topic]>),
    /// Anything may have changed: the listener was too slow, or the connection to the database was lost.
    Everything,
}

impl Change {
    /// Whether `topic` may have changed.
    #[must_use]
    pub fn concerns(&self, topic: &Topic) -> bool {
        match self {
            Self::Topics(topics) => topics.contains(topic),
            Self::Everything => true,
        }
    }
}

/// Receives changes. Subscribe before reading, so that no change is missed.
#[derive(Debug)]
pub struct Changes(pub(crate) broadcast::Receiver<Change>);

impl Changes {
    /// The next change; `None` once the store is closed.
    pub async fn next(&mut self) -> Option<Change> {
        match self.0.recv().await {
            Ok(change) => Some(change),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Change::Everything),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// Waits until `topic` may have changed; `false` once the store is closed.
    pub async fn of(&mut self, topic: &Topic) -> bool {
        loop {
            match self.next().await {
                Some(change) if change.concerns(topic) => return true,
                Some(_) => {}
                None => return false,
            }
        }
    }
}

/// The form that servers exchange: `pipeline/<id>`.
impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Project(name) => write!(f, "project/{name}"),
            Self::Pipeline(id) => write!(f, "pipeline/{id}"),
            Self::Job(id) => write!(f, "job/{id}"),
            Self::JobLogs(id) => write!(f, "logs/{id}"),
            Self::Environment(id) => write!(f, "environment/{}", id.slug()),
            Self::Run(id) => write!(f, "run/{id}"),
            Self::Gates => f.write_str("gates"),
            Self::Work => f.write_str("work"),
            Self::Sessions => f.write_str("sessions"),
        }
    }
}

impl FromStr for Topic {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("`{}` is not a topic", text.escape_debug());
        let (kind, rest) = text.split_once('/').unwrap_or((text, ""));
        match kind {
            "project" => rest.parse().map(Self::Project).map_err(|_| unknown()),
            "pipeline" => rest.parse().map(Self::Pipeline).map_err(|_| unknown()),
            "job" => rest.parse().map(Self::Job).map_err(|_| unknown()),
            "logs" => rest.parse().map(Self::JobLogs).map_err(|_| unknown()),
            "environment" => rest.parse().map(Self::Environment).map_err(|_| unknown()),
            "run" => rest.parse().map(Self::Run).map_err(|_| unknown()),
            "gates" if rest.is_empty() => Ok(Self::Gates),
            "work" if rest.is_empty() => Ok(Self::Work),
            "sessions" if rest.is_empty() => Ok(Self::Sessions),
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn topics_survive_their_way_between_servers() {
        let topics = [
            Topic::Project("claims".parse().unwrap()),
            Topic::Pipeline(PipelineId::from_u128(1)),
            Topic::Job(JobId::from_u128(2)),
            Topic::JobLogs(JobId::from_u128(2)),
            Topic::Environment(EnvironmentId::new("claims", "dev").unwrap()),
            Topic::Run(RunId::from_u128(3)),
            Topic::Gates,
            Topic::Work,
            Topic::Sessions,
        ];
        for topic in topics {
            assert_eq!(topic.to_string().parse::<Topic>().unwrap(), topic);
        }
        for bad in ["", "gates/1", "pipeline/x", "nosuch/1", "environment/x"] {
            assert!(bad.parse::<Topic>().is_err(), "{bad}");
        }
    }
}
