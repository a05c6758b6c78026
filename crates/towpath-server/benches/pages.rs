//! The time in which the server answers a page, with 10,000 pipelines, 50 environments and 100 gates that wait, as a ratio to the
//! time for a file that needs no row.

#![allow(clippy::unwrap_used, missing_docs)]

#[allow(dead_code)]
#[path = "../tests/http/world.rs"]
mod world;

use axum::http::{Method, StatusCode};
use std::time::{Duration, Instant};
use towpath_store::{Commit, Database, SqlStore, Write};
use towpath_types::{EnvironmentId, JobId, PipelineId, TriggerId, WorkflowId};
use world::{BUILD, ENVIRONMENT, GATE, PIPELINE, PROJECT, World, rows};

const PIPELINES: u128 = 10_000;
const ENVIRONMENTS: u128 = 50;
const GATES: u128 = 100;
/// How often each page is asked for.
const ASKED: usize = 300;
/// The slowest of a hundred answers takes at most this long.
const GOAL: Duration = Duration::from_millis(30);
/// Ids of the rows that are made here are this far apart, so that none meets another's.
const APART: u128 = 1 << 32;

/// The row of the world's one pipeline, as that of the pipeline `index`. `None` for a row that there is once.
fn of_pipeline(row: Write, index: u128) -> Option<Write> {
    let pipeline = PipelineId::from_u128(APART + index);
    let workflow = WorkflowId::from_u128(2 * APART + index);
    let job = |id: JobId| match id {
        BUILD => JobId::from_u128(3 * APART + index),
        _ => JobId::from_u128(4 * APART + index),
    };
    let waits = index < GATES;
    let number = i64::try_from(index).unwrap() + 2;
    let environment = format!("{ENVIRONMENT}{}", index % ENVIRONMENTS);
    Some(match row {
        Write::Trigger(mut row, expect) => {
            row.id = TriggerId::from_u128(APART + index);
            row.pipeline = pipeline;
            Write::Trigger(row, expect)
        }
        Write::Pipeline(mut row, expect) => {
            row.trigger = TriggerId::from_u128(APART + index);
            (row.id, row.number) = (pipeline, number);
            Write::Pipeline(row, expect)
        }
        Write::Workflow(mut row, expect) => {
            (row.id, row.pipeline, row.pipeline_number) = (workflow, pipeline, number);
            Write::Workflow(row, expect)
        }
        Write::Job(row, _) if row.id == GATE && !waits => return None,
        Write::Job(mut row, expect) => {
            (row.id, row.workflow, row.pipeline) = (job(row.id), workflow, pipeline);
            row.environment = row.environment.map(|_| environment);
            Write::Job(row, expect)
        }
        Write::NumberJob(id) => Write::NumberJob(job(id)),
        Write::Step(mut row) => {
            row.job = job(row.job);
            Write::Step(row)
        }
        Write::Gate(mut row, expect) if waits => {
            (row.job, row.workflow, row.pipeline, row.pipeline_number) = (job(row.job), workflow, pipeline, number);
            row.environment = Some(EnvironmentId::new(PROJECT, &environment).unwrap());
            Write::Gate(row, expect)
        }
        Write::Environment(mut row, expect) if index < ENVIRONMENTS => {
            row.id = EnvironmentId::new(PROJECT, &environment).unwrap();
            row.release = None;
            Write::Environment(row, expect)
        }
        _ => return None,
    })
}

async fn fill(world: &World) {
    let mut commit = Commit::new();
    for index in 0..PIPELINES {
        for row in rows().into_iter().filter_map(|row| of_pipeline(row, index)) {
            commit.write(row);
        }
        if index % 200 == 199 {
            let whole = std::mem::replace(&mut commit, Commit::new());
            world.system.store.commit(whole).await.unwrap();
        }
    }
    world.system.store.commit(commit).await.unwrap();
}

/// How long each of some answers took, the shortest first.
async fn times(world: &World, address: &str) -> (Vec<Duration>, usize) {
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..ASKED {
        let began = Instant::now();
        let (status, text) = world.ask(Method::GET, address, None).await;
        times.push(began.elapsed());
        assert_eq!(status, StatusCode::OK, "{address}: {text}");
        bytes = text.len();
    }
    times.sort();
    (times, bytes)
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqlStore::open(Database::SqliteFile(folder.path().join("towpath.db")))
        .await
        .unwrap();
    let world = World::on(store).await;
    let began = Instant::now();
    fill(&world).await;
    println!(
        "{PIPELINES} pipelines, {ENVIRONMENTS} environments, {GATES} waiting gates, stored in {:.1} s",
        began.elapsed().as_secs_f64()
    );
    let before = world.calls_outside();
    let (floor, _) = times(&world, "/assets/towpath.css").await;
    let floor = floor[ASKED / 2];
    println!(
        "{:<32} {:>9} {:>9} {:>12} {:>9}",
        "page", "median", "p99", "median/floor", "bytes"
    );
    let mut worst = Duration::ZERO;
    for (name, address) in [
        ("a file without rows (floor)", "/assets/towpath.css".to_string()),
        ("the board", "/towpath".to_string()),
        ("a pipeline", format!("/towpath/projects/{PROJECT}/pipelines/5000")),
        ("a job", format!("/towpath/projects/{PROJECT}/jobs/5000")),
        (
            "an environment",
            format!("/towpath/projects/{PROJECT}/environments/{ENVIRONMENT}"),
        ),
        ("a gate", format!("/towpath/gates/{GATE}")),
        ("the list of gates", "/api/towpath/gates".to_string()),
        (
            "pipelines, CircleCI's API",
            format!("/api/v2/project/towpath/local/{PROJECT}/pipeline"),
        ),
        ("a pipeline, CircleCI's API", format!("/api/v2/pipeline/{PIPELINE}")),
    ] {
        let (times, bytes) = times(&world, &address).await;
        let (median, p99) = (times[ASKED / 2], times[ASKED * 99 / 100]);
        worst = worst.max(p99);
        println!(
            "{name:<32} {:>6.2} ms {:>6.2} ms {:>12.1} {bytes:>9}",
            median.as_secs_f64() * 1e3,
            p99.as_secs_f64() * 1e3,
            median.as_secs_f64() / floor.as_secs_f64(),
        );
    }
    println!(
        "slowest p99 / goal ({} ms): {:.2}",
        GOAL.as_millis(),
        worst.as_secs_f64() / GOAL.as_secs_f64()
    );
    println!(
        "calls to a cluster, a registry, an engine or git meanwhile: {}",
        world.calls_outside() - before
    );
}
