//! Rows with a value in every column, for tests to change.

use jiff::Timestamp;
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use towpath_store::{
    Commit, Committed, EnvironmentRow, Expect, GateRow, JobRow, NodeRow, PipelineRow, PlanRow, ProjectRow, ReleaseRow,
    RunRow, Sighting, SqlStore, StepRow, Store, StoreError, TriggerKind, TriggerRow, WorkflowRow, Write,
};
use towpath_types::{
    Actor, CommitId, Digest, EnvironmentId, JobKind, JobStatus, Outcome, PipelineStatus, ProjectName, ReleaseStatus,
    RunKind, StepStatus, TriggerStatus, Via, WorkflowStatus,
};

/// An id's bits; later ones sort later, as ids do.
pub fn fresh<T: From<uuid::Uuid>>() -> T {
    static LAST: AtomicU64 = AtomicU64::new(1);
    uuid::Uuid::from_u128(LAST.fetch_add(1, Ordering::Relaxed).into()).into()
}

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_microsecond(1_700_000_000_000_000 + second * 1_000_000 + 123_456).unwrap()
}

pub fn name(project: &str) -> ProjectName {
    project.parse().unwrap()
}

pub fn sha(digit: &str) -> CommitId {
    digit.repeat(40).parse().unwrap()
}

pub fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

pub fn environment_id(environment: &str) -> EnvironmentId {
    EnvironmentId::new("claims", environment).unwrap()
}

pub async fn commit(store: &SqlStore, writes: impl IntoIterator<Item = Write>) -> Result<Committed, StoreError> {
    let mut commit = Commit::new();
    for write in writes {
        commit.write(write);
    }
    store.commit(commit).await
}

/// Checks that the commit is refused because of another writer.
pub async fn refused(store: &SqlStore, write: Write, what: &str) {
    let error = commit(store, [write]).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains(what), "{message}");
    assert!(message.contains("was changed by somebody else"), "{message}");
    assert!(!error.is_temporary());
}

pub fn project(project: &str) -> ProjectRow {
    ProjectRow {
        name: name(project),
        default_branch: "main".into(),
        head: Some(sha("a")),
        created_at: at(0),
        version: 1,
    }
}

pub fn trigger(project: &str) -> TriggerRow {
    TriggerRow {
        id: fresh(),
        project: name(project),
        kind: TriggerKind::Push {
            ref_name: "refs/heads/main".into(),
        },
        branch: Some("main".into()),
        tag: None,
        commit: sha("a"),
        parameters: json!({"deploy": true, "count": 2}),
        actor: Actor::owner("Ada", Via::GitPush),
        pipeline: fresh(),
        number: 0,
        status: TriggerStatus::Received,
        reason: None,
        created_at: at(1),
        version: 1,
    }
}

pub fn pipeline(project: &str, number: i64) -> PipelineRow {
    PipelineRow {
        id: fresh(),
        trigger: fresh(),
        project: name(project),
        number,
        branch: None,
        tag: Some("v1".into()),
        commit: sha("b"),
        subject: "Add “claims”".into(),
        author: "Ada <ada@example.org>".into(),
        status: PipelineStatus::Created,
        diagnostics: json!({ "version": 1, "diagnostics": [{ "message": "no “such” \0 key" }] }),
        actor: Actor::process("bob"),
        created_at: at(number),
        version: 1,
    }
}

pub fn workflow(pipeline: &PipelineRow, position: i64) -> WorkflowRow {
    WorkflowRow {
        id: fresh(),
        pipeline: pipeline.id,
        pipeline_number: pipeline.number,
        project: pipeline.project.clone(),
        position,
        name: format!("workflow-{position}"),
        status: WorkflowStatus::Running,
        branch: Some("main".into()),
        tag: None,
        commit: sha("b"),
        message: None,
        created_at: at(position),
        stopped_at: None,
        version: 1,
    }
}

pub fn job(workflow: &WorkflowRow, position: i64) -> JobRow {
    JobRow {
        id: fresh(),
        workflow: workflow.id,
        pipeline: workflow.pipeline,
        project: workflow.project.clone(),
        position,
        number: None,
        name: format!("job-{position}"),
        kind: JobKind::Build,
        status: JobStatus::Blocked,
        requires: vec!["a".into(), "b".into()],
        nodes: 2,
        cpu_millis: 1000,
        memory_bytes: 1 << 30,
        attempt: 1,
        environment: Some("dev".into()),
        queued_at: Some(at(2)),
        started_at: Some(at(3)),
        stopped_at: None,
        message: Some("it waits".into()),
        approved_by: None,
        stop_requested: false,
        engine: Some("docker".into()),
        image: Some("127.0.0.1:7070/claims:latest".parse().unwrap()),
        version: 1,
    }
}

/// A job with a workflow and a pipeline, none of them stored.
pub fn any_job(project: &str) -> JobRow {
    job(&workflow(&pipeline(project, 1), 0), 0)
}

pub fn node(job: &JobRow, node: u32) -> NodeRow {
    NodeRow {
        job: job.id,
        attempt: 1,
        node,
        reports: 1,
        outcome: Some(Outcome::TimedOut),
        message: Some("too long".into()),
        stopped_at: Some(at(9)),
    }
}

pub fn step(job: &JobRow, node: u32, step: u32) -> StepRow {
    StepRow {
        job: job.id,
        attempt: 1,
        node,
        step,
        name: "make test".into(),
        status: StepStatus::Running,
        exit_code: Some(-1),
        message: None,
        started_at: at(4),
        stopped_at: None,
    }
}

pub fn gate(environment: Option<&str>, created: i64) -> GateRow {
    GateRow {
        job: fresh(),
        workflow: fresh(),
        workflow_name: "deploy".into(),
        pipeline: fresh(),
        pipeline_number: 7,
        project: name("claims"),
        name: "approve".into(),
        branch: Some("main".into()),
        tag: None,
        commit: sha("c"),
        subject: "Add".into(),
        environment: environment.map(environment_id),
        waiting: true,
        plan: Some(digest("plan")),
        plan_error: None,
        as_of: Some(at(5)),
        approved_by: None,
        created_at: at(created),
        version: 1,
    }
}

pub fn plan(text: &str) -> PlanRow {
    PlanRow {
        digest: digest(text),
        environment: environment_id("dev"),
        created_at: at(1),
        plan: json!({"version": 1, "objects": [text]}),
    }
}

pub fn release(environment: &str, status: ReleaseStatus) -> ReleaseRow {
    let image = format!("127.0.0.1:7070/claims@{}", digest("image"));
    ReleaseRow {
        id: fresh(),
        environment: environment_id(environment),
        number: 0,
        status,
        outcome: Some(Outcome::Failed),
        images: [("claims".to_string(), image.parse().unwrap())].into(),
        commit: Some(sha("d")),
        actor: Actor::job(),
        cause: "a gate".into(),
        plan: digest("plan"),
        parent: Some(fresh()),
        job: Some(fresh()),
        created_at: at(6),
        stopped_at: Some(at(7)),
        message: Some("a pod does not start".into()),
        repeats: 3,
        repeated_at: Some(at(8)),
        version: 1,
    }
}

pub fn run(environment: &str, created: i64) -> RunRow {
    RunRow {
        id: fresh(),
        environment: environment_id(environment),
        kind: RunKind::Job,
        name: "migrate".into(),
        object: "migrate-1".into(),
        image: "claims:1".into(),
        actor: Actor::server(),
        outcome: None,
        exit_code: Some(3),
        message: None,
        created_at: at(created),
        stopped_at: None,
        version: 1,
    }
}

pub fn environment(id: EnvironmentId) -> EnvironmentRow {
    EnvironmentRow {
        id,
        kube_context: "production".into(),
        namespace: "claims".into(),
        ambiguous: vec!["a".into()],
        listed: true,
        sighting: Sighting::Never,
        release: Some(fresh()),
        seen: json!({"version": 1}),
        drift: json!(null),
        drift_at: Some(at(8)),
        version: 1,
    }
}

/// The writes that make a project with one pipeline, one workflow and one job.
pub fn one_job(project: &str) -> (JobRow, Vec<Write>) {
    let trigger = trigger(project);
    let pipeline = PipelineRow {
        id: trigger.pipeline,
        ..pipeline(project, 1)
    };
    let workflow = workflow(&pipeline, 0);
    let job = job(&workflow, 0);
    let writes = vec![
        Write::Trigger(trigger, Expect::Absent),
        Write::Pipeline(pipeline, Expect::Absent),
        Write::Workflow(workflow, Expect::Absent),
        Write::Job(job.clone(), Expect::Absent),
    ];
    (job, writes)
}
