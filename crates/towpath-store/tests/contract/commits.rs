use crate::rows::{
    any_job, at, commit, digest, environment, environment_id, fresh, gate, name, node, one_job, pipeline, project,
    release, run, trigger, workflow,
};
use futures::future::join_all;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use towpath_store::{
    Change, Commit, Expect, Guard, JobRow, JobSpecRow, JobStore, OrbRow, OrbVersionRow, PipelineConfig, PipelineStore,
    SqlStore, Store, StoreError, Topic, Work, WorkKey, WorkKind, WorkflowStore, Write,
};
use towpath_types::{JobId, JobStatus, PipelineId, ReleaseStatus};

/// Every write that can fail, set up to fail: no row has the version that it expects.
fn failing() -> Vec<Write> {
    let guard = Guard {
        key: WorkKey::new(WorkKind::Job, "nosuch"),
        fence: 1,
    };
    let job = any_job("claims");
    let absent = Expect::Version(1);
    vec![
        Write::Project(project("claims"), absent),
        Write::Trigger(trigger("claims"), absent),
        Write::Pipeline(pipeline("claims", 1), absent),
        Write::Events {
            stream: "s".into(),
            expected: 1,
            events: vec![json!(1)],
        },
        Write::Workflow(workflow(&pipeline("claims", 1), 0), absent),
        Write::Job(job.clone(), absent),
        Write::NumberJob(job.id),
        Write::Node(node(&job, 0), absent),
        Write::Gate(gate(None, 0), absent),
        Write::Release(release("dev", ReleaseStatus::Planned), absent),
        Write::Run(run("dev", 0), absent),
        Write::Environment(environment(environment_id("dev")), absent),
        Write::Orb(
            OrbRow {
                id: fresh(),
                namespace: "a".into(),
                name: "b".into(),
                is_private: false,
                is_listed: true,
                created_at: at(0),
            },
            absent,
        ),
        Write::WorkDone(guard.clone()),
        Write::WorkFailed {
            guard: guard.clone(),
            reason: "no".into(),
            retry: None,
        },
        Write::WorkReturned {
            guard,
            due: at(0),
            engine: None,
        },
    ]
}

/// Every write that succeeds only once.
fn once() -> Vec<Write> {
    vec![
        Write::PipelineConfig(PipelineConfig {
            pipeline: fresh(),
            source: String::new(),
            processed: String::new(),
            project_file: None,
        }),
        Write::JobSpec(JobSpecRow {
            job: fresh(),
            spec: json!({}),
        }),
        Write::OrbVersion(OrbVersionRow {
            id: fresh(),
            namespace: "a".into(),
            name: "b".into(),
            version: "1.0.0".into(),
            source: String::new(),
            frozen: String::new(),
            created_at: at(0),
        }),
    ]
}

pub async fn a_failed_write_undoes_its_commit(store: SqlStore) {
    let mut number = 0;
    let mut check = async |before: Vec<Write>, write: Write| {
        number += 1;
        let stream = format!("stream/{number}");
        let mut commit = Commit::new().with(Write::Trigger(trigger("numbered"), Expect::Absent));
        commit.write(Write::Events {
            stream: stream.clone(),
            expected: 0,
            events: vec![json!(1)],
        });
        for write in before {
            commit.write(write);
        }
        commit.write(write.clone());
        let error = store.commit(commit).await.unwrap_err();
        assert!(
            matches!(error, StoreError::Conflict { .. } | StoreError::Fenced(_)),
            "{write:?}: {error:?}"
        );
        assert_eq!(
            store.events(&stream, 0).await.unwrap(),
            [],
            "{write:?} left a part of its commit"
        );
    };
    for write in failing() {
        check(Vec::new(), write).await;
    }
    for write in once() {
        check(vec![write.clone()], write).await;
    }
    // None of them has taken a number.
    let committed = commit(&store, [Write::Trigger(trigger("numbered"), Expect::Absent)])
        .await
        .unwrap();
    assert_eq!(committed.pipelines[0].1, 1);
    assert_eq!(commit(&store, []).await.unwrap(), towpath_store::Committed::default());
}

pub async fn a_commit_happens_whole_without_its_caller(store: SqlStore) {
    for round in 0..20 {
        let stream = format!("stream/{round}");
        let writes: Vec<Write> = (0..5)
            .map(|expected| Write::Events {
                stream: stream.clone(),
                expected,
                events: vec![json!(expected)],
            })
            .collect();
        let mut whole = Commit::new();
        for write in writes {
            whole.write(write);
        }
        let mut pending = Box::pin(store.commit(whole));
        // Requested, and dropped at once.
        assert!(futures::poll!(&mut pending).is_pending());
        drop(pending);
    }
    // The writer is free, and each request happens completely.
    for round in 0..20 {
        let stream = format!("stream/{round}");
        let wait = towpath_testkit::until("the commit", std::time::Duration::from_secs(20), async || {
            let found = store.events(&stream, 0).await?.len();
            assert!(found == 0 || found == 5, "a part of a commit: {found}");
            Ok(if found == 5 {
                towpath_testkit::Probe::Found(())
            } else {
                towpath_testkit::Probe::NotYet(format!("{found} events"))
            })
        });
        wait.await.unwrap();
    }
}

pub async fn numbers_have_no_gaps_under_eight_writers(store: SqlStore) {
    const EACH: usize = 25;
    let writers = (0..8).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut taken: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
            for round in 0..EACH {
                let (job, mut writes) = one_job("claims");
                // The pipeline's row needs its trigger's number, which only the commit assigns: leave it out.
                writes.remove(1);
                writes.push(Write::NumberJob(job.id));
                writes.push(Write::Release(release("dev", ReleaseStatus::Planned), Expect::Absent));
                if round % 5 == writer % 5 {
                    // It fails completely, so its numbers go to others.
                    let mut failing = writes.clone();
                    failing.push(Write::Project(project("nosuch"), Expect::Version(1)));
                    assert!(commit(&store, failing).await.is_err());
                }
                let committed = commit(&store, writes).await.unwrap();
                taken.entry("pipelines").or_default().push(committed.pipelines[0].1);
                taken.entry("jobs").or_default().push(committed.jobs[0].1);
                taken.entry("releases").or_default().push(committed.releases[0].1);
            }
            taken
        })
    });
    let mut all: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for taken in join_all(writers).await {
        for (kind, numbers) in taken.unwrap() {
            assert!(numbers.is_sorted(), "{kind}: {numbers:?}");
            all.entry(kind).or_default().extend(numbers);
        }
    }
    for (kind, mut numbers) in all {
        numbers.sort_unstable();
        let expected: Vec<i64> = (1..).take(8 * EACH).collect();
        assert_eq!(numbers, expected, "{kind}");
    }
    let found: BTreeSet<Option<i64>> = (1..=200)
        .map(async |number| store.job_by_number(&name("claims"), number).await.unwrap())
        .collect::<futures::stream::FuturesUnordered<_>>()
        .collect_into()
        .await;
    assert_eq!(found.len(), 200);
}

trait Collect {
    async fn collect_into(self) -> BTreeSet<Option<i64>>;
}

impl<F: Future<Output = Option<JobRow>>> Collect for futures::stream::FuturesUnordered<F> {
    async fn collect_into(mut self) -> BTreeSet<Option<i64>> {
        let mut all = BTreeSet::new();
        while let Some(row) = futures::StreamExt::next(&mut self).await {
            all.insert(row.unwrap().number);
        }
        all
    }
}

pub async fn one_of_eight_writers_of_a_version_wins(store: SqlStore) {
    let (job, writes) = one_job("claims");
    commit(&store, writes).await.unwrap();
    for version in 1..=10 {
        let stream = |writer: usize| format!("stream/{version}/{writer}");
        let writers = (0..8).map(|writer| {
            let (store, job, stream) = (store.clone(), job.clone(), stream(writer));
            tokio::spawn(async move {
                let row = JobRow {
                    status: JobStatus::Queued,
                    name: format!("by {writer}"),
                    ..job
                };
                let events = Write::Events {
                    stream,
                    expected: 0,
                    events: vec![json!(writer)],
                };
                commit(&store, [events, Write::Job(row, Expect::Version(version))]).await
            })
        });
        let results: Vec<_> = join_all(writers).await.into_iter().map(Result::unwrap).collect();
        let winners: Vec<usize> = (0..8).filter(|writer| results[*writer].is_ok()).collect();
        assert_eq!(winners.len(), 1, "{results:?}");
        for (writer, result) in results.iter().enumerate() {
            let lost = matches!(result, Err(StoreError::Conflict { .. }));
            assert!(lost || writer == winners[0], "{result:?}");
            let stored = !store.events(&stream(writer), 0).await.unwrap().is_empty();
            assert_eq!(stored, writer == winners[0]);
        }
        let found = store.job(job.id).await.unwrap().unwrap();
        assert_eq!((found.version, found.name), (version + 1, format!("by {}", winners[0])));
    }
}

pub async fn reads_see_what_was_answered(store: SqlStore) {
    let writers = (0..4).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            let stream = format!("stream/{writer}");
            for sequence in 0..30u64 {
                let append = Write::Events {
                    stream: stream.clone(),
                    expected: sequence,
                    events: vec![json!(sequence)],
                };
                commit(&store, [append]).await.unwrap();
                let found = store.events(&stream, sequence).await.unwrap();
                assert_eq!(found.len(), 1, "a commit was answered and cannot be read");
            }
        })
    });
    for result in join_all(writers).await {
        result.unwrap();
    }
}

pub async fn topics_follow_from_writes(store: SqlStore) {
    let mut changes = store.changes();
    let mut heard = async || match changes.next().await.unwrap() {
        Change::Topics(topics) => topics.iter().cloned().collect::<BTreeSet<Topic>>(),
        Change::Everything => panic!("everything"),
    };
    let (job, writes) = one_job("claims");
    commit(&store, writes).await.unwrap();
    let claims = Topic::Project(name("claims"));
    let of_job = [claims.clone(), Topic::Pipeline(job.pipeline), Topic::Job(job.id)];
    assert_eq!(heard().await, of_job.into());
    // A failed commit notifies nobody.
    commit(&store, [Write::Job(job.clone(), Expect::Version(9))])
        .await
        .unwrap_err();
    let row = gate(Some("dev"), 0);
    commit(&store, [Write::Gate(row.clone(), Expect::Absent)])
        .await
        .unwrap();
    let dev = Topic::Environment(environment_id("dev"));
    let expected = [
        Topic::Gates,
        Topic::Pipeline(row.pipeline),
        Topic::Job(row.job),
        dev.clone(),
    ];
    assert_eq!(heard().await, expected.into());
    let row = release("dev", ReleaseStatus::Planned);
    commit(&store, [Write::Release(row.clone(), Expect::Absent)])
        .await
        .unwrap();
    let expected = [
        dev,
        claims,
        Topic::lines_of_release(row.id),
        Topic::Job(row.job.unwrap()),
    ];
    assert_eq!(heard().await, expected.into());
    commit(
        &store,
        [Write::Work(Work::new(WorkKey::new(WorkKind::Job, "a"), at(0)))],
    )
    .await
    .unwrap();
    assert_eq!(heard().await, [Topic::Work].into());
    let mut announced = Commit::new();
    announced.announce(Topic::JobLogs(job.id));
    store.commit(announced).await.unwrap();
    assert_eq!(heard().await, [Topic::JobLogs(job.id)].into());
    store.announce(&[Topic::Gates]);
    assert_eq!(heard().await, [Topic::Gates].into());
    // A write without a topic notifies nobody, so the next one is received next.
    let spec = JobSpecRow {
        job: job.id,
        spec: json!({}),
    };
    commit(&store, [Write::JobSpec(spec)]).await.unwrap();
    commit(&store, [Write::NumberJob(job.id)]).await.unwrap();
    assert_eq!(heard().await, [Topic::Job(job.id)].into());
    let mut other = store.changes();
    store.announce(&[Topic::Work]);
    assert!(other.of(&Topic::Work).await);
    drop(store);
    assert_eq!(heard().await, [Topic::Work].into());
    assert_eq!(changes.next().await, None);
}

pub async fn a_listener_that_lags_is_told_everything(store: SqlStore) {
    let mut changes = store.changes();
    for _ in 0..10_000 {
        store.announce(&[Topic::Gates]);
    }
    let change = changes.next().await.unwrap();
    assert_eq!(change, Change::Everything);
    assert!(change.concerns(&Topic::Job(fresh::<JobId>())));
}

pub async fn a_store_knows_its_name(store: SqlStore) {
    assert!(store.is_new());
    assert_eq!(store.instance().len(), 12);
    let id: PipelineId = fresh();
    assert_eq!(store.pipeline(id).await.unwrap(), None);
    assert_eq!(digest("a"), digest("a"));
}
