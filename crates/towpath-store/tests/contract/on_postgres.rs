//! PostgreSQL shared by servers: they notify each other, take turns, and survive outages.

use crate::{
    backends,
    rows::{any_job, at, commit, fresh, name, one_job, trigger},
};
use futures::future::join_all;
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};
use towpath_store::{
    Change, Changes, Commit, Database, Expect, Guard, JobStore, PipelineStore, SqlStore, Store, StoreError, Topic,
    Work, WorkKey, WorkKind, WorkStore, WorkflowStore, Write,
};
use towpath_testkit::{POSTGRES_PASSWORD, Postgres, Probe, skipped, until};
use towpath_types::JobId;

const BOUND: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);

async fn open(url: &str) -> Result<SqlStore, StoreError> {
    SqlStore::open(Database::Postgres(url.into())).await
}

/// The topics received until `last`, which has to come.
async fn heard_until(changes: &mut Changes, last: &Topic) -> Vec<Topic> {
    let mut all = Vec::new();
    let listening = async {
        loop {
            match changes.next().await.unwrap() {
                Change::Topics(topics) => all.extend(topics.iter().cloned()),
                Change::Everything => panic!("everything"),
            }
            if all.contains(last) {
                return;
            }
        }
    };
    timeout(BOUND, listening)
        .await
        .unwrap_or_else(|_| panic!("{last} was not heard of"));
    all
}

async fn heard_everything(changes: &mut Changes) {
    let listening = async { while changes.next().await.unwrap() != Change::Everything {} };
    timeout(BOUND, listening).await.expect("to be told everything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_hear_of_each_other_and_once_of_themselves() {
    let Some(url) = backends::postgres_url("servers_hear_of_each_other") else {
        return;
    };
    let (here, there) = (open(&url).await.unwrap(), open(&url).await.unwrap());
    assert_eq!(here.instance(), there.instance());
    assert!(here.is_new() && !there.is_new());
    let (mut own, mut others) = (here.changes(), there.changes());
    let (job, writes) = one_job("claims");
    commit(&here, writes).await.unwrap();
    let topics = [
        Topic::Project(name("claims")),
        Topic::Pipeline(job.pipeline),
        Topic::Job(job.id),
    ];
    assert_eq!(heard_until(&mut others, &topics[2]).await, topics);
    here.announce(&[Topic::JobLogs(job.id)]);
    assert_eq!(
        heard_until(&mut others, &Topic::JobLogs(job.id)).await,
        [Topic::JobLogs(job.id)]
    );
    // The other direction, and everything that this one receives: its own topics once each, and the other's.
    there.announce(&[Topic::Gates]);
    let mut expected = topics.to_vec();
    expected.extend([Topic::JobLogs(job.id), Topic::Gates]);
    assert_eq!(heard_until(&mut own, &Topic::Gates).await, expected);
    // Many topics do not fit into one notification.
    let many: Vec<Topic> = (0..400).map(|_| Topic::Job(fresh())).collect();
    let mut announced = Commit::new();
    many.iter().for_each(|topic| announced.announce(topic.clone()));
    here.commit(announced).await.unwrap();
    let heard = heard_until(&mut others, &many[399]).await;
    // Its own topic comes first.
    assert_eq!(heard[0], Topic::Gates);
    assert!(heard[1..] == many, "{} topics were heard", heard.len());
    // A killed server may not have sent its last notifications.
    there.forget_server("gone").await.unwrap();
    heard_everything(&mut own).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_start_at_once_make_the_tables_once() {
    let Some(url) = backends::postgres_url("servers_that_start_at_once") else {
        return;
    };
    let stores: Vec<SqlStore> = join_all((0..8).map(|_| open(&url)))
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(stores.iter().filter(|store| store.is_new()).count(), 1);
    let names: BTreeSet<&str> = stores.iter().map(Store::instance).collect();
    assert_eq!(names.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_of_a_newer_version_is_refused() {
    let Some(url) = backends::postgres_url("the_database_of_a_newer_version") else {
        return;
    };
    drop(open(&url).await.unwrap());
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations VALUES (9999, 'newer', now(), true, ''::bytea, 0)";
    sqlx::query(newer).execute(&pool).await.unwrap();
    let error = open(&url).await.unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::TooNew {
                found: 9999,
                known: 1,
                ..
            }
        ),
        "{error:?}"
    );
    // It has not kept the lock.
    sqlx::query("DELETE FROM _sqlx_migrations WHERE version = 9999")
        .execute(&pool)
        .await
        .unwrap();
    timeout(BOUND, open(&url)).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_backup_beside_a_newer_data_directory_is_refused() {
    let Some(url) = backends::postgres_url("an_older_backup_beside_a_newer_data_directory") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let store = open(&url).await.unwrap();
    store.belong_to(folder.path()).await.unwrap();
    let (job, writes) = one_job("claims");
    commit(&store, writes).await.unwrap();
    commit(&store, [Write::NumberJob(job.id)]).await.unwrap();
    open(&url).await.unwrap().belong_to(folder.path()).await.unwrap();
    // As a backup from before the job's number has it.
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    sqlx::query("DELETE FROM counters WHERE name = 'jobs/claims'")
        .execute(&pool)
        .await
        .unwrap();
    let error = open(&url).await.unwrap().belong_to(folder.path()).await.unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Behind {
                height: 1,
                marked: 2,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_holds_the_password() {
    let Some(url) = backends::postgres_url("no_message_holds_the_password") else {
        return;
    };
    let shown = |error: &StoreError| {
        let text = format!("{error} {error:?} {}", towpath_types::with_causes(error));
        assert!(!text.contains(POSTGRES_PASSWORD) && !text.contains("hunter2"), "{text}");
    };
    let wrong = open(&url.replace(POSTGRES_PASSWORD, "hunter2")).await.unwrap_err();
    assert!(matches!(wrong, StoreError::Database { .. }), "{wrong:?}");
    shown(&wrong);
    let away = open("postgres://towpath:hunter2@127.0.0.1:9/towpath")
        .await
        .unwrap_err();
    assert!(matches!(away, StoreError::Unavailable { .. }), "{away:?}");
    assert!(away.to_string().contains("`postgres://127.0.0.1:9/towpath`"), "{away}");
    shown(&away);
    for bad in ["nonsense hunter2", "postgres://towpath:hunter2@host:port/towpath"] {
        let error = open(bad).await.unwrap_err();
        assert!(matches!(error, StoreError::Address(_)), "{error:?}");
        shown(&error);
    }
    let store = open(&url).await.unwrap();
    let text = format!("{store:?} {}", store.database());
    assert!(!text.contains(POSTGRES_PASSWORD), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_do_each_piece_of_work_once() {
    let Some(url) = backends::postgres_url("two_servers_do_each_piece_of_work_once") else {
        return;
    };
    let stores = [open(&url).await.unwrap(), open(&url).await.unwrap()];
    let keys: Vec<WorkKey> = (0..60)
        .map(|n| WorkKey::new(WorkKind::Job, format!("{n:02}")))
        .collect();
    let works = keys.iter().map(|key| Write::Work(Work::new(key.clone(), at(0))));
    commit(&stores[0], works).await.unwrap();
    // Four workers per server. Leases end at once, so that workers sometimes fence each other.
    let workers = (0..8).map(|worker| {
        let store = stores[worker % 2].clone();
        tokio::spawn(async move {
            let server = format!("server-{worker}");
            let mut done = Vec::new();
            loop {
                let due = store.due_work(&[WorkKind::Job], &[], at(1), 5).await.unwrap();
                if due.is_empty() {
                    return done;
                }
                let wanted: Vec<WorkKey> = due.into_iter().map(|work| work.key).collect();
                for lease in store.claim(&wanted, &server, at(1), Duration::ZERO).await.unwrap() {
                    let mut effect = Commit::new().with(Write::WorkDone(Guard::from(&lease)));
                    effect.guard(&lease);
                    effect.write(Write::Events {
                        stream: format!("job/{}", lease.work.key.key),
                        expected: 0,
                        events: vec![server.clone().into()],
                    });
                    match store.commit(effect).await {
                        Ok(_) => done.push(lease.work.key.key),
                        Err(StoreError::Fenced(_)) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
            }
        })
    });
    let mut done: Vec<String> = Vec::new();
    for result in join_all(workers).await {
        done.extend(result.unwrap());
    }
    done.sort();
    let expected: Vec<&str> = keys.iter().map(|key| key.key.as_str()).collect();
    assert_eq!(done, expected);
    for key in &expected {
        assert_eq!(stores[1].events(&format!("job/{key}"), 0).await.unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_does_not_wait_for_whoever_writes_under_a_lease() {
    let Some(url) = backends::postgres_url("a_claim_does_not_wait") else {
        return;
    };
    let store = open(&url).await.unwrap();
    let key = WorkKey::new(WorkKind::Job, "a");
    commit(&store, [Write::Work(Work::new(key.clone(), at(0)))])
        .await
        .unwrap();
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let mut other = pool.begin().await.unwrap();
    sqlx::query("SELECT fence FROM work FOR UPDATE")
        .execute(&mut *other)
        .await
        .unwrap();
    let wanted = std::slice::from_ref(&key);
    let claimed = timeout(Duration::from_secs(5), store.claim(wanted, "a", at(1), MINUTE)).await;
    assert_eq!(claimed.expect("an answer").unwrap(), []);
    other.rollback().await.unwrap();
    assert_eq!(store.claim(wanted, "a", at(1), MINUTE).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_is_resolved_by_trying_again() {
    let Some(url) = backends::postgres_url("a_deadlock_is_resolved_by_trying_again") else {
        return;
    };
    let stores = [open(&url).await.unwrap(), open(&url).await.unwrap()];
    let writers = (0..2).map(|writer: usize| {
        let store = stores[writer].clone();
        tokio::spawn(async move {
            let projects = [["a", "b"], ["b", "a"]][writer];
            for _ in 0..100 {
                // Each takes numbers of both projects, in opposite orders.
                let writes = projects.map(|one| Write::Trigger(trigger(one), Expect::Absent));
                commit(&store, writes).await.unwrap();
            }
        })
    });
    for result in join_all(writers).await {
        result.unwrap();
    }
    let committed = commit(
        &stores[0],
        ["a", "b"].map(|one| Write::Trigger(trigger(one), Expect::Absent)),
    );
    let numbers: Vec<i64> = committed
        .await
        .unwrap()
        .pipelines
        .iter()
        .map(|(_, number)| *number)
        .collect();
    assert_eq!(numbers, [201, 201]);
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    until("a deadlock", BOUND, async || {
        let deadlocks: i64 = sqlx::query_scalar(sql).fetch_one(&pool).await?;
        Ok(if deadlocks > 0 {
            Probe::Found(())
        } else {
            Probe::NotYet("none".into())
        })
    })
    .await
    .unwrap();
}

/// Fails with `Unavailable` within the documented time limit.
async fn assert_away<T: std::fmt::Debug>(result: impl Future<Output = Result<T, StoreError>>) {
    let began = Instant::now();
    let error = timeout(Duration::from_secs(20), result)
        .await
        .expect("it hangs")
        .unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(error.is_temporary());
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

async fn until_it_works(store: &SqlStore) {
    until("the database to be back", BOUND, async || {
        Ok(match store.projects().await {
            Ok(_) => Probe::Found(()),
            Err(error) => Probe::NotYet(error.to_string()),
        })
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_away_is_used_again() {
    let cluster = match Postgres::start().unwrap() {
        Ok(cluster) => cluster,
        Err(absent) => return skipped("a_database_that_was_away_is_used_again", &absent),
    };
    let url = cluster.database().unwrap();
    let (store, other) = (open(&url).await.unwrap(), open(&url).await.unwrap());
    let (job, writes) = one_job("claims");
    commit(&store, writes).await.unwrap();
    let mut changes = other.changes();
    for round in 1..=2 {
        // During writes: each commit is stored completely or not at all, and each acknowledged one is stored.
        let writing = {
            let store = store.clone();
            tokio::spawn(async move {
                let mut answered = 0u64;
                loop {
                    let events = |stream: &str| Write::Events {
                        stream: format!("{stream}/{round}"),
                        expected: answered,
                        events: vec![answered.into()],
                    };
                    match commit(&store, [events("a"), events("b")]).await {
                        Ok(_) => answered += 1,
                        Err(error) => return (answered, error),
                    }
                }
            })
        };
        until("some commits", BOUND, async || {
            let found = store.events(&format!("a/{round}"), 0).await?.len();
            Ok(if found > 10 {
                Probe::Found(())
            } else {
                Probe::NotYet(format!("{found}"))
            })
        })
        .await
        .unwrap();
        cluster.crash().unwrap();
        let (answered, error) = timeout(BOUND, writing).await.unwrap().unwrap();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        tokio::join!(
            assert_away(store.job(job.id)),
            assert_away(commit(&store, [Write::NumberJob(job.id)])),
            assert_away(store.claim(&[], "a", at(0), MINUTE)),
            assert_away(open(&url)),
        );
        cluster.resume().unwrap();
        until_it_works(&store).await;
        heard_everything(&mut changes).await;
        let length = async |stream: &str| store.events(&format!("{stream}/{round}"), 0).await.unwrap().len() as u64;
        let (a, b) = (length("a").await, length("b").await);
        assert_eq!(a, b, "half of a commit");
        assert!(a == answered || a == answered + 1, "{a} stored, {answered} answered");
        // Listening works again.
        store.announce(&[Topic::Job(job.id)]);
        assert!(timeout(BOUND, changes.of(&Topic::Job(job.id))).await.unwrap());
    }
}

/// Forwards bytes until it is told to block.
struct Line {
    port: u16,
    open: watch::Sender<bool>,
}

impl Line {
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let line = Self {
            port: listener.local_addr().unwrap().port(),
            open: watch::Sender::new(true),
        };
        let open = Arc::new(line.open.subscribe());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let open = open.clone();
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else {
                        return;
                    };
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    tokio::join!(
                        pass(from_client, to_server, (*open).clone()),
                        pass(from_server, to_client, (*open).clone())
                    );
                });
            }
        });
        line
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut open: watch::Receiver<bool>,
) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read) = from.read(&mut buffer).await {
        if read == 0 || open.wait_for(|open| *open).await.is_err() || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_lets_nothing_through_is_not_waited_for() {
    let Some(url) = backends::postgres_url("a_line_that_lets_nothing_through") else {
        return;
    };
    let before = url.find("127.0.0.1:").unwrap() + "127.0.0.1:".len();
    let digits = url[before..].find('/').unwrap();
    let line = Line::to(url[before..before + digits].parse().unwrap()).await;
    let through = url.replace(&url[before..before + digits], &line.port.to_string());
    let (store, direct) = (open(&through).await.unwrap(), open(&url).await.unwrap());
    let job = any_job("claims");
    commit(&store, [Write::Job(job.clone(), Expect::Absent)]).await.unwrap();
    let mut changes = direct.changes();
    line.open.send(false).unwrap();
    let nobody: JobId = fresh();
    let (read, write, many) = tokio::join!(
        timeout(MINUTE, assert_away(store.job(nobody))),
        timeout(MINUTE, assert_away(commit(&store, [Write::NumberJob(job.id)]))),
        // More than the number of connections.
        timeout(
            MINUTE,
            join_all(
                (0..30).map(|_| assert_away(commit(&store, [Write::CancelWork(WorkKey::new(WorkKind::Job, "a"))])))
            )
        ),
    );
    read.unwrap();
    write.unwrap();
    many.unwrap();
    // The locks of a disconnected server block others only until the database's timeout.
    let numbered = until("the lock of the job", MINUTE, async || {
        Ok(match commit(&direct, [Write::NumberJob(job.id)]).await {
            Ok(_) => Probe::Found(()),
            Err(error) => Probe::NotYet(error.to_string()),
        })
    });
    numbered.await.unwrap();
    line.open.send(true).unwrap();
    until_it_works(&store).await;
    store.announce(&[Topic::Job(job.id)]);
    let listening = async {
        loop {
            if changes.next().await.unwrap().concerns(&Topic::Job(job.id)) {
                return;
            }
        }
    };
    timeout(MINUTE, listening).await.unwrap();
}
