use crate::rows::{at, commit, fresh, name};
use std::{collections::BTreeSet, time::Duration};
use towpath_store::{
    Commit, Guard, Lease, SqlStore, Store, StoreError, Work, WorkKey, WorkKind, WorkState, WorkStore, Write,
};
use towpath_types::JobId;

const MINUTE: Duration = Duration::from_secs(60);

fn job(key: &str) -> WorkKey {
    WorkKey::new(WorkKind::Job, key)
}

async fn enqueue(store: &SqlStore, work: Work) {
    commit(store, [Write::Work(work)]).await.unwrap();
}

async fn claim(store: &SqlStore, key: &WorkKey, server: &str, second: i64) -> Option<Lease> {
    let mut leases = store
        .claim(std::slice::from_ref(key), server, at(second), MINUTE)
        .await
        .unwrap();
    assert!(leases.len() <= 1);
    leases.pop()
}

async fn work(store: &SqlStore, key: &WorkKey) -> Work {
    store.work(key).await.unwrap().unwrap()
}

async fn due(store: &SqlStore, kinds: &[WorkKind], engines: &[&str], second: i64, limit: u32) -> Vec<String> {
    let engines: Vec<String> = engines.iter().map(ToString::to_string).collect();
    let found = store.due_work(kinds, &engines, at(second), limit).await.unwrap();
    found.into_iter().map(|work| work.key.key).collect()
}

async fn fenced(store: &SqlStore, write: Write) {
    let error = commit(store, [write]).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced(_)), "{error:?}");
    assert!(error.to_string().contains("the lease of job/"), "{error}");
}

pub async fn work_is_due_in_order(store: SqlStore) {
    let timer = WorkKey::new(WorkKind::Timer, "later");
    let of = |key: WorkKey, created: i64, second: i64| Work {
        due: at(second),
        project: Some(name("claims")),
        ..Work::new(key, at(created))
    };
    let bound = Work {
        engine: Some("docker".into()),
        cpu_millis: 2_500,
        memory_bytes: 4 << 30,
        ..of(job("bound"), 3, 3)
    };
    for work in [
        of(job("second"), 2, 2),
        of(job("first"), 1, 5),
        of(timer, 0, 60),
        bound.clone(),
    ] {
        enqueue(&store, work).await;
    }
    assert_eq!(work(&store, &bound.key).await, bound);
    let jobs = [WorkKind::Job];
    assert_eq!(
        due(&store, &jobs, &["docker"], 9, 9).await,
        ["first", "second", "bound"]
    );
    assert_eq!(due(&store, &jobs, &["host", "other"], 9, 9).await, ["first", "second"]);
    assert_eq!(due(&store, &jobs, &[], 9, 1).await, ["first"]);
    assert_eq!(due(&store, &jobs, &[], 4, 9).await, ["second"]);
    assert_eq!(
        due(&store, &WorkKind::ALL, &["docker"], 60, 9).await,
        ["later", "first", "second", "bound"]
    );
    assert_eq!(due(&store, &[], &[], 60, 9).await, [""; 0]);
    assert_eq!(store.next_due(&jobs).await.unwrap(), Some(at(2)));
    assert_eq!(store.next_due(&[WorkKind::Timer]).await.unwrap(), Some(at(60)));
    assert_eq!(store.next_due(&[WorkKind::Gate]).await.unwrap(), None);
    // Work becomes due when its lease ends.
    claim(&store, &job("second"), "a", 2).await.unwrap();
    assert_eq!(store.next_due(&jobs).await.unwrap(), Some(at(3)));
    claim(&store, &bound.key, "a", 3).await.unwrap();
    claim(&store, &job("first"), "a", 5).await.unwrap();
    assert_eq!(store.next_due(&jobs).await.unwrap(), Some(at(62)));
    assert_eq!(due(&store, &jobs, &["docker"], 61, 9).await, [""; 0]);
    assert_eq!(due(&store, &jobs, &["docker"], 64, 9).await, ["second", "bound"]);
}

pub async fn a_project_with_much_work_hides_nobody_elses(store: SqlStore) {
    for number in 0..20 {
        let of_much = Work {
            project: Some(name("much")),
            ..Work::new(job(&format!("much{number:02}")), at(number))
        };
        enqueue(&store, of_much).await;
    }
    for (key, project) in [("other0", "other"), ("other1", "other"), ("third", "third")] {
        let work = Work {
            project: Some(name(project)),
            ..Work::new(job(key), at(30))
        };
        enqueue(&store, work).await;
    }
    assert_eq!(
        due(&store, &[WorkKind::Job], &[], 60, 6).await,
        ["much00", "other0", "third", "much01", "other1", "much02"]
    );
}

pub async fn work_is_leased_to_one_server(store: SqlStore) {
    let key = job("a");
    enqueue(&store, Work::new(key.clone(), at(10))).await;
    assert_eq!(claim(&store, &key, "a", 9).await, None, "it is not due");
    let wanted = [job("nosuch"), key.clone(), key.clone()];
    let leases = store.claim(&wanted, "a", at(10), MINUTE).await.unwrap();
    let leased = Work {
        fence: leases[0].fence,
        state: WorkState::Leased {
            server: "a".into(),
            until: at(70),
        },
        ..Work::new(key.clone(), at(10))
    };
    let expected = Lease {
        work: leased.clone(),
        server: "a".into(),
        fence: leased.fence,
    };
    assert_eq!(leases, [expected]);
    assert!(leased.fence > 0);
    assert_eq!(claim(&store, &key, "b", 69).await, None);
    assert_eq!(store.renew("b", at(69), MINUTE).await.unwrap(), []);
    assert_eq!(
        store.renew("a", at(69), MINUTE).await.unwrap(),
        [(key.clone(), leased.fence)]
    );
    assert_eq!(claim(&store, &key, "b", 128).await, None);
    let mut done = Commit::new();
    done.guard(&leases[0]);
    done.write(Write::WorkDone(Guard::from(&leases[0])));
    store.commit(done.clone()).await.unwrap();
    assert_eq!(store.work(&key).await.unwrap(), None);
    assert_eq!(store.renew("a", at(69), MINUTE).await.unwrap(), []);
    assert!(matches!(store.commit(done).await, Err(StoreError::Fenced(lost)) if lost == key));
}

pub async fn an_ended_lease_is_claimed_with_a_higher_fence(store: SqlStore) {
    let key = job("a");
    enqueue(&store, Work::new(key.clone(), at(0))).await;
    let first = claim(&store, &key, "a", 0).await.unwrap();
    // An expired lease that nobody took can still be renewed.
    assert_eq!(store.renew("a", at(100), MINUTE).await.unwrap().len(), 1);
    let second = claim(&store, &key, "b", 160).await.unwrap();
    assert!(second.fence > first.fence);
    assert_eq!(second.work.failures, 0);
    assert_eq!(store.renew("a", at(161), MINUTE).await.unwrap(), []);
    let third = claim(&store, &key, "a", 220).await.unwrap();
    assert!(third.fence > second.fence);
    fenced(&store, Write::WorkDone(Guard::from(&first))).await;
    commit(&store, [Write::WorkDone(Guard::from(&third))]).await.unwrap();
}

pub async fn a_lost_lease_changes_nothing(store: SqlStore) {
    let (key, other) = (job("a"), job("other"));
    enqueue(&store, Work::new(key.clone(), at(0))).await;
    let lost = claim(&store, &key, "a", 0).await.unwrap();
    let held = claim(&store, &key, "b", 60).await.unwrap();
    let mut guarded = Commit::new().with(Write::Work(Work::new(other.clone(), at(0))));
    guarded.guard(&lost);
    assert!(matches!(store.commit(guarded).await, Err(StoreError::Fenced(_))));
    assert_eq!(store.work(&other).await.unwrap(), None);
    let guard = Guard::from(&lost);
    fenced(&store, Write::WorkDone(guard.clone())).await;
    let failed = Write::WorkFailed {
        guard: guard.clone(),
        reason: "no".into(),
        retry: None,
    };
    fenced(&store, failed).await;
    let returned = Write::WorkReturned {
        guard,
        due: at(1),
        engine: None,
    };
    fenced(&store, returned).await;
    assert_eq!(work(&store, &key).await, held.work);
    // The lease's holder may write under its guard.
    let mut guarded = Commit::new().with(Write::Work(Work::new(other.clone(), at(0))));
    guarded.guard(&held);
    store.commit(guarded).await.unwrap();
    assert!(store.work(&other).await.unwrap().is_some());
}

pub async fn fences_grow_even_when_work_is_made_anew(store: SqlStore) {
    let key = job("a");
    enqueue(&store, Work::new(key.clone(), at(0))).await;
    let first = claim(&store, &key, "a", 0).await.unwrap();
    commit(&store, [Write::CancelWork(key.clone())]).await.unwrap();
    enqueue(&store, Work::new(key.clone(), at(1))).await;
    let second = claim(&store, &key, "b", 1).await.unwrap();
    assert!(second.fence > first.fence);
    fenced(&store, Write::WorkDone(Guard::from(&first))).await;
}

pub async fn failed_work_is_retried_or_set_aside(store: SqlStore) {
    let key = job("a");
    enqueue(&store, Work::new(key.clone(), at(0))).await;
    let fail = async |second, retry: Option<i64>| {
        let lease = claim(&store, &key, "a", second).await.unwrap();
        let failed = Write::WorkFailed {
            guard: Guard::from(&lease),
            reason: format!("failure at {second}"),
            retry: retry.map(at),
        };
        commit(&store, [failed]).await.unwrap();
        work(&store, &key).await
    };
    let found = fail(0, Some(30)).await;
    assert_eq!(
        (found.failures, &found.state, found.due),
        (1, &WorkState::Ready, at(30))
    );
    assert_eq!(found.last_failure.as_deref(), Some("failure at 0"));
    assert_eq!(claim(&store, &key, "a", 29).await, None);
    let found = fail(30, None).await;
    let reason = "failure at 30".to_string();
    assert_eq!((found.failures, &found.state), (2, &WorkState::SetAside { reason }));
    assert_eq!(claim(&store, &key, "a", 9_999).await, None);
    assert_eq!(store.set_aside().await.unwrap(), [found]);
    assert_eq!(store.next_due(&[WorkKind::Job]).await.unwrap(), None);
    assert_eq!(due(&store, &[WorkKind::Job], &[], 9_999, 9).await, [""; 0]);
    // A person, or a new request, gives it another chance.
    enqueue(&store, Work::new(key.clone(), at(500))).await;
    let found = work(&store, &key).await;
    assert_eq!(
        (found.failures, &found.state, found.due),
        (0, &WorkState::Ready, at(30))
    );
    assert_eq!(found.last_failure.as_deref(), Some("failure at 30"));
    assert_eq!(store.set_aside().await.unwrap(), []);
    assert!(claim(&store, &key, "a", 500).await.is_some());
}

pub async fn returned_work_may_be_bound_to_an_engine(store: SqlStore) {
    let key = job("a");
    enqueue(&store, Work::new(key.clone(), at(0))).await;
    let give_back = async |second, engine: Option<&str>| {
        let lease = claim(&store, &key, "a", second).await.unwrap();
        let returned = Write::WorkReturned {
            guard: Guard::from(&lease),
            due: at(second + 10),
            engine: engine.map(str::to_string),
        };
        commit(&store, [returned]).await.unwrap();
        work(&store, &key).await
    };
    let found = give_back(0, Some("docker")).await;
    assert_eq!(
        (found.failures, found.due, &found.state),
        (0, at(10), &WorkState::Ready)
    );
    assert_eq!(due(&store, &[WorkKind::Job], &["host"], 10, 9).await, [""; 0]);
    assert_eq!(due(&store, &[WorkKind::Job], &["docker"], 10, 9).await, ["a"]);
    assert_eq!(due(&store, &[WorkKind::Job], &["docker"], 9, 9).await, [""; 0]);
    // Requests do not unbind it: only that engine has its environments.
    enqueue(&store, Work::new(key.clone(), at(5))).await;
    let found = work(&store, &key).await;
    assert_eq!((found.engine.as_deref(), found.due), (Some("docker"), at(5)));
    assert_eq!(give_back(10, None).await.engine, None);
}

pub async fn a_wish_makes_work_due_earlier(store: SqlStore) {
    let key = job("a");
    enqueue(&store, Work::new(key.clone(), at(50))).await;
    enqueue(&store, Work::new(key.clone(), at(70))).await;
    assert_eq!(work(&store, &key).await.due, at(50));
    assert_eq!(store.next_due(&[WorkKind::Job]).await.unwrap(), Some(at(50)));
    enqueue(&store, Work::new(key.clone(), at(20))).await;
    assert_eq!(work(&store, &key).await.due, at(20));
    assert_eq!(work(&store, &key).await.created_at, at(50));
    assert!(claim(&store, &key, "a", 20).await.is_some());
}

/// A request during a lease takes effect when the lease ends, however it ends.
pub async fn a_wish_during_a_lease_is_not_lost(store: SqlStore) {
    let key = job("a");
    let begin = async |second: i64| {
        commit(&store, [Write::CancelWork(key.clone())]).await.unwrap();
        enqueue(&store, Work::new(key.clone(), at(second))).await;
        let lease = claim(&store, &key, "a", second).await.unwrap();
        enqueue(&store, Work::new(key.clone(), at(second + 40))).await;
        let sooner = Work {
            engine: Some("host".into()),
            ..Work::new(key.clone(), at(second + 20))
        };
        enqueue(&store, sooner).await;
        enqueue(
            &store,
            Work {
                engine: Some("host".into()),
                ..Work::new(key.clone(), at(second + 30))
            },
        )
        .await;
        // The lease continues.
        assert_eq!(work(&store, &key).await.state, lease.work.state);
        assert_eq!(claim(&store, &key, "b", second + 30).await, None);
        lease
    };
    let ready = async |second: i64| {
        let found = work(&store, &key).await;
        assert_eq!(
            (&found.state, found.due, found.failures),
            (&WorkState::Ready, at(second), 0)
        );
        assert!(claim(&store, &key, "b", second - 1).await.is_none());
        let again = claim(&store, &key, "b", second).await.unwrap();
        // This fulfils the request.
        commit(&store, [Write::WorkDone(Guard::from(&again))]).await.unwrap();
        assert_eq!(store.work(&key).await.unwrap(), None);
        found
    };
    let lease = begin(0).await;
    commit(&store, [Write::WorkDone(Guard::from(&lease))]).await.unwrap();
    // It is new work, bound as the request says.
    assert_eq!(ready(20).await.engine.as_deref(), Some("host"));

    let lease = begin(100).await;
    let failed = |retry| Write::WorkFailed {
        guard: Guard::from(&lease),
        reason: "no".into(),
        retry,
    };
    commit(&store, [failed(Some(at(900)))]).await.unwrap();
    assert_eq!(ready(120).await.engine, None);

    let lease = begin(200).await;
    let failed = |retry| Write::WorkFailed {
        guard: Guard::from(&lease),
        reason: "no".into(),
        retry,
    };
    commit(&store, [failed(None)]).await.unwrap();
    assert_eq!(ready(220).await.last_failure.as_deref(), Some("no"));

    let lease = begin(300).await;
    let returned = Write::WorkReturned {
        guard: Guard::from(&lease),
        due: at(900),
        engine: Some("docker".into()),
    };
    commit(&store, [returned]).await.unwrap();
    assert_eq!(ready(320).await.engine.as_deref(), Some("docker"));

    begin(400).await;
    // The lease expires; the next claim begins after the request.
    let again = claim(&store, &key, "b", 460).await.unwrap();
    commit(&store, [Write::WorkDone(Guard::from(&again))]).await.unwrap();
    assert_eq!(store.work(&key).await.unwrap(), None);

    begin(500).await;
    store.forget_server("a").await.unwrap();
    ready(500).await;
}

pub async fn canceled_work_is_gone(store: SqlStore) {
    let key = job("a");
    enqueue(&store, Work::new(key.clone(), at(0))).await;
    let lease = claim(&store, &key, "a", 0).await.unwrap();
    commit(
        &store,
        [Write::CancelWork(key.clone()), Write::CancelWork(job("nosuch"))],
    )
    .await
    .unwrap();
    assert_eq!(store.work(&key).await.unwrap(), None);
    fenced(&store, Write::WorkDone(Guard::from(&lease))).await;
    assert_eq!(store.renew("a", at(1), MINUTE).await.unwrap(), []);
}

pub async fn a_server_that_is_gone_loses_its_leases(store: SqlStore) {
    for key in ["a", "b", "c"] {
        enqueue(&store, Work::new(job(key), at(0))).await;
    }
    let lease = claim(&store, &job("a"), "gone", 0).await.unwrap();
    claim(&store, &job("b"), "gone", 0).await.unwrap();
    let kept = claim(&store, &job("c"), "here", 0).await.unwrap();
    store.forget_server("gone").await.unwrap();
    store.forget_server("nosuch").await.unwrap();
    assert_eq!(due(&store, &[WorkKind::Job], &[], 1, 9).await, ["a", "b"]);
    fenced(&store, Write::WorkDone(Guard::from(&lease))).await;
    assert_eq!(store.renew("gone", at(1), MINUTE).await.unwrap(), []);
    assert_eq!(work(&store, &job("c")).await, kept.work);
}

pub async fn eight_servers_claim_each_piece_once(store: SqlStore) {
    let keys: Vec<WorkKey> = (0..40).map(|_| job(&fresh::<JobId>().to_string())).collect();
    let works = keys.iter().map(|key| Write::Work(Work::new(key.clone(), at(0))));
    commit(&store, works).await.unwrap();
    let servers = (0..8).map(|server| {
        let (store, keys) = (store.clone(), keys.clone());
        tokio::spawn(async move {
            let server = server.to_string();
            let mut leases = Vec::new();
            for part in keys.chunks(7) {
                leases.extend(store.claim(part, &server, at(1), MINUTE).await.unwrap());
            }
            leases
        })
    });
    let mut leases = Vec::new();
    for result in futures::future::join_all(servers).await {
        leases.extend(result.unwrap());
    }
    let claimed: BTreeSet<WorkKey> = leases.iter().map(|lease| lease.work.key.clone()).collect();
    let fences: BTreeSet<u64> = leases.iter().map(|lease| lease.fence).collect();
    assert_eq!((leases.len(), claimed.len(), fences.len()), (40, 40, 40));
    let done = leases.iter().map(|lease| Write::WorkDone(Guard::from(lease)));
    commit(&store, done).await.unwrap();
    assert_eq!(store.next_due(&[WorkKind::Job]).await.unwrap(), None);
}
