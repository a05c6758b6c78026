//! Rows with defaults for every column that a test does not care about.

#![allow(clippy::unwrap_used)]

use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;
use towpath_store::{EnvironmentRow, JobRow, ReleaseRow, Sighting, WorkflowRow};
use towpath_types::{
    Actor, Digest, EnvironmentId, JobId, JobKind, JobStatus, PipelineId, ReleaseId, ReleaseStatus, Via, WorkflowId,
    WorkflowStatus,
};

/// 2026-01-01T00:00:00Z, the start of a fake clock.
pub(crate) fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

pub(crate) fn ann() -> Actor {
    Actor::owner("ann", Via::CommandLine)
}

pub(crate) fn workflow(project: &str) -> WorkflowRow {
    WorkflowRow {
        id: WorkflowId::from_u128(1),
        pipeline: PipelineId::from_u128(1),
        pipeline_number: 1,
        project: project.parse().unwrap(),
        position: 0,
        name: "build-and-deploy".into(),
        status: WorkflowStatus::Running,
        branch: Some("main".into()),
        tag: None,
        commit: "0123456789abcdef0123456789abcdef01234567".parse().unwrap(),
        message: None,
        created_at: start(),
        stopped_at: None,
        version: 0,
    }
}

pub(crate) fn job(workflow: &WorkflowRow, name: &str) -> JobRow {
    let digits = Digest::of(format!("{}/{name}", workflow.id).as_bytes());
    JobRow {
        id: JobId::from_u128(u128::from_str_radix(&digits.hex()[..32], 16).unwrap()),
        workflow: workflow.id,
        pipeline: workflow.pipeline,
        project: workflow.project.clone(),
        position: 0,
        number: None,
        name: name.into(),
        kind: JobKind::Build,
        status: JobStatus::Blocked,
        requires: Vec::new(),
        nodes: 1,
        cpu_millis: 1000,
        memory_bytes: 1 << 30,
        attempt: 1,
        environment: None,
        queued_at: None,
        started_at: None,
        stopped_at: None,
        message: None,
        approved_by: None,
        stop_requested: false,
        engine: None,
        image: None,
        version: 0,
    }
}

pub(crate) fn release(project: &str, environment: &str) -> ReleaseRow {
    ReleaseRow {
        id: ReleaseId::from_u128(1),
        environment: EnvironmentId::new(project, environment).unwrap(),
        number: 1,
        status: ReleaseStatus::Approved,
        outcome: None,
        images: BTreeMap::new(),
        commit: None,
        actor: ann(),
        cause: "towpath deploy".into(),
        plan: Digest::of(b""),
        parent: None,
        job: None,
        created_at: start(),
        stopped_at: None,
        message: None,
        repeats: 0,
        repeated_at: None,
        version: 1,
    }
}

pub(crate) fn environment(project: &str, environment: &str) -> EnvironmentRow {
    EnvironmentRow {
        id: EnvironmentId::new(project, environment).unwrap(),
        kube_context: "live".into(),
        namespace: format!("{project}-{environment}"),
        ambiguous: Vec::new(),
        listed: true,
        sighting: Sighting::Never,
        release: None,
        seen: Value::Null,
        drift: Value::Null,
        drift_at: None,
        version: 1,
    }
}
