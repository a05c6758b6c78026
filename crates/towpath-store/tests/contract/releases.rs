use crate::rows::{at, commit, digest, environment_id, fresh, name, refused, release, run};
use towpath_store::{Expect, ImagePush, ReleaseRow, ReleaseStore, RunRow, SqlStore, Write};
use towpath_types::{Outcome, ReleaseStatus, WorkflowId};

pub async fn releases_are_numbered_and_listed(store: SqlStore) {
    let rows = [
        release("dev", ReleaseStatus::Succeeded),
        release("dev", ReleaseStatus::Applying),
        release("production", ReleaseStatus::Planned),
    ];
    let writes = rows.clone().map(|row| Write::Release(row, Expect::Absent));
    let committed = commit(&store, writes).await.unwrap();
    let numbers: Vec<i64> = committed.releases.iter().map(|(_, number)| *number).collect();
    assert_eq!(numbers, [1, 2, 1]);
    assert_eq!(committed.releases[1].0, rows[1].id);
    refused(&store, Write::Release(rows[0].clone(), Expect::Absent), "the release").await;
    // Another store's release, recorded in the environment under its own number, even if that number is taken here.
    let others = ReleaseRow {
        number: 2,
        ..release("dev", ReleaseStatus::Succeeded)
    };
    let far = ReleaseRow {
        number: 40,
        ..release("dev", ReleaseStatus::Failed)
    };
    let next = release("dev", ReleaseStatus::Approved);
    let writes = [&others, &far, &next].map(|row| Write::Release(row.clone(), Expect::Absent));
    let committed = commit(&store, writes).await.unwrap();
    let numbers: Vec<i64> = committed.releases.iter().map(|(_, number)| *number).collect();
    assert_eq!(numbers, [2, 40, 41]);
    let dev = environment_id("dev");
    let found = store.releases(&dev, 10).await.unwrap();
    let ids: Vec<_> = found.iter().map(|row| row.id).collect();
    assert_eq!(ids, [next.id, far.id, others.id, rows[1].id, rows[0].id]);
    assert_eq!(store.releases(&dev, 1).await.unwrap(), found[..1]);
    // The writer may not know the number of its release.
    let ended = ReleaseRow {
        status: ReleaseStatus::RolledBack,
        outcome: Some(Outcome::Errored),
        number: 0,
        ..rows[1].clone()
    };
    let update = Write::Release(ended.clone(), Expect::Version(1));
    assert_eq!(commit(&store, [update.clone()]).await.unwrap().releases, []);
    refused(&store, update, "the release").await;
    let expected = ReleaseRow {
        number: 2,
        version: 2,
        ..ended
    };
    assert_eq!(store.release(expected.id).await.unwrap(), Some(expected.clone()));
    let job = expected.job.unwrap();
    assert_eq!(store.release_of_job(job, &dev).await.unwrap(), Some(expected));
    assert_eq!(
        store.release_of_job(job, &environment_id("production")).await.unwrap(),
        None
    );
    let open: Vec<_> = store.open_releases().await.unwrap().iter().map(|row| row.id).collect();
    assert_eq!(open, [rows[2].id, next.id]);
    assert_eq!(store.release(fresh()).await.unwrap(), None);
}

pub async fn the_last_release_in_a_status_is_found(store: SqlStore) {
    let every = [
        ReleaseStatus::Planned,
        ReleaseStatus::Approved,
        ReleaseStatus::Applying,
        ReleaseStatus::Watching,
        ReleaseStatus::Succeeded,
        ReleaseStatus::Failed,
        ReleaseStatus::RollingBack,
        ReleaseStatus::RolledBack,
        ReleaseStatus::Abandoned,
    ];
    for status in every.into_iter().chain(std::iter::repeat_n(ReleaseStatus::Failed, 60)) {
        commit(&store, [Write::Release(release("dev", status), Expect::Absent)])
            .await
            .unwrap();
    }
    let dev = environment_id("dev");
    let number = async |statuses: &[ReleaseStatus]| {
        let row = store.last_release(&dev, statuses).await.unwrap();
        row.map(|row| row.number)
    };
    assert_eq!(number(&[]).await, Some(69));
    assert_eq!(number(&[ReleaseStatus::Succeeded]).await, Some(5));
    assert_eq!(
        number(&[ReleaseStatus::Succeeded, ReleaseStatus::RolledBack]).await,
        Some(8)
    );
    let nowhere = environment_id("nosuch");
    assert_eq!(store.last_release(&nowhere, &[]).await.unwrap(), None);
    // The enum and the index agree on which statuses are open.
    let open: Vec<ReleaseStatus> = store
        .open_releases()
        .await
        .unwrap()
        .iter()
        .map(|row| row.status)
        .collect();
    let expected: Vec<ReleaseStatus> = every.into_iter().filter(|status| !status.is_over()).collect();
    assert_eq!(open, expected);
}

pub async fn runs_are_listed_newest_first(store: SqlStore) {
    let rows = [run("dev", 1), run("dev", 3), run("production", 4), run("dev", 2)];
    for row in &rows {
        let write = Write::Run(row.clone(), Expect::Absent);
        commit(&store, [write.clone()]).await.unwrap();
        refused(&store, write, "the run").await;
    }
    let [a, b, _, d] = rows;
    let dev = environment_id("dev");
    assert_eq!(store.runs(&dev, 10).await.unwrap(), [b.clone(), d, a.clone()]);
    assert_eq!(store.runs(&dev, 1).await.unwrap(), [b]);
    let ended = RunRow {
        outcome: Some(Outcome::Succeeded),
        exit_code: Some(0),
        stopped_at: Some(at(9)),
        ..a
    };
    let update = Write::Run(ended.clone(), Expect::Version(1));
    commit(&store, [update.clone()]).await.unwrap();
    refused(&store, update, "the run").await;
    let found = store.run(ended.id).await.unwrap();
    assert_eq!(found, Some(RunRow { version: 2, ..ended }));
    assert_eq!(store.run(fresh()).await.unwrap(), None);
}

pub async fn the_last_push_of_a_tag_is_found(store: SqlStore) {
    let push = |workflow: Option<WorkflowId>, tag: &str, content: &str, second| ImagePush {
        project: name("claims"),
        workflow,
        image: format!("127.0.0.1:7070/team/claims:{tag}@{}", digest(content))
            .parse()
            .unwrap(),
        at: at(second),
    };
    let workflow: WorkflowId = fresh();
    let rows = [
        push(Some(workflow), "v1", "one", 1),
        push(Some(workflow), "v2", "two", 4),
        push(None, "v1", "three", 3),
        push(Some(fresh()), "v1", "four", 2),
        push(Some(workflow), "v1", "five", 5),
        push(None, "v1", "six", 4),
    ];
    commit(&store, rows.clone().map(Write::ImagePush)).await.unwrap();
    let [a, b, _, _, e, _] = rows;
    // In the order of the pushes, including the earlier target of a moved tag.
    assert_eq!(store.pushes_of(workflow).await.unwrap(), [a, b, e.clone()]);
    assert_eq!(store.last_push("team/claims", "v1").await.unwrap(), Some(e));
    assert_eq!(store.last_push("team/claims", "v3").await.unwrap(), None);
    assert_eq!(store.last_push("claims", "v1").await.unwrap(), None);
    let newest = push(None, "v1", "seven", 6);
    commit(&store, [Write::ImagePush(newest.clone())]).await.unwrap();
    assert_eq!(store.last_push("team/claims", "v1").await.unwrap(), Some(newest));
    assert_eq!(store.pushes_of(fresh()).await.unwrap(), []);
}
