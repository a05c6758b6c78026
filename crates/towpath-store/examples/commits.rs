//! How many commits a second each database takes, beside what the disk allows.
//!
//! `cargo run --release -p towpath-store --example commits`; the folder of the files is `$TMPDIR`.

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::json;
use std::{
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};
use towpath_store::{Commit, Database, Expect, NodeRow, SqlStore, Store, WorkflowStore, Write};
use towpath_testkit::Postgres;
use towpath_types::JobId;

/// How long to measure each figure.
const LASTS: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let floor = syncs(folder.path())?;
    println!("floor: {floor:.0} forced writes of 4 KiB a second, one after the other");
    let sqlite = SqlStore::open(Database::SqliteFile(folder.path().join("data"))).await?;
    measure("SQLite", &sqlite, floor).await?;
    match Postgres::start_durable()? {
        Ok(cluster) => {
            let postgres = SqlStore::open(Database::Postgres(cluster.database()?)).await?;
            measure("PostgreSQL", &postgres, floor).await?;
        }
        Err(absent) => println!("PostgreSQL is not measured: {}", absent.0),
    }
    Ok(())
}

fn syncs(folder: &Path) -> Result<f64> {
    let mut file = std::fs::File::create(folder.join("floor"))?;
    let began = Instant::now();
    let mut count = 0u32;
    while began.elapsed() < LASTS {
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

async fn measure(name: &str, store: &SqlStore, floor: f64) -> Result<()> {
    for writers in [1usize, 32] {
        let rate = commits(store, writers).await?;
        println!(
            "{name}: {rate:.0} commits a second by {writers} writer(s), {:.2} of the floor",
            rate / floor
        );
    }
    Ok(())
}

/// Each commit resembles an agent's report: an event, and a row that is compared and set.
async fn commits(store: &SqlStore, writers: usize) -> Result<f64> {
    let began = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let job = JobId::from(uuid::Uuid::new_v4());
                let stream = format!("job/{job}");
                let mut count = 0u64;
                while began.elapsed() < LASTS {
                    let node = NodeRow {
                        job,
                        attempt: 1,
                        node: 0,
                        reports: 0,
                        outcome: None,
                        message: Some("step 3 of 9".into()),
                        stopped_at: Some(Timestamp::UNIX_EPOCH),
                    };
                    let expect = match count {
                        0 => Expect::Absent,
                        reports => Expect::Version(reports),
                    };
                    let commit = Commit::new().with(Write::Node(node, expect)).with(Write::Events {
                        stream: stream.clone(),
                        expected: count,
                        events: vec![json!({"version": 1, "step": 3, "status": "running"})],
                    });
                    store.commit(commit).await?;
                    count += 1;
                }
                let stored = store.events(&stream, 0).await?.len() as u64;
                anyhow::ensure!(stored == count, "{count} commits left {stored} events");
                Ok(count)
            })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await.context("a writer ended")??;
    }
    #[allow(clippy::cast_precision_loss)]
    Ok(count as f64 / began.elapsed().as_secs_f64())
}
