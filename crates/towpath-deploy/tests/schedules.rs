//! CronJobs of the local target on a real container engine, with a clock that the test moves.
#![allow(clippy::unwrap_used, clippy::panic)]

mod world;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use towpath_deploy::{Target, TargetError};
use towpath_manifest::Object;
use towpath_testkit::{Probe, until};
use towpath_types::Outcome;
use world::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A CronJob called `tick` at eleven o'clock in Berlin, which is ten o'clock UTC in winter.
fn daily(world: &World, arguments: &[&str], change: impl FnOnce(&mut Value)) -> Object {
    let mut value = json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick"},
        "spec": {
            "schedule": "0 11 * * *", "timeZone": "Europe/Berlin",
            "successfulJobsHistoryLimit": 10, "failedJobsHistoryLimit": 10,
            "jobTemplate": {"spec": world.job_spec(arguments)},
        },
    });
    change(&mut value["spec"]);
    object(value)
}

/// Makes the run last until somebody stops it.
fn long(spec: &mut Value) {
    let container = spec
        .pointer_mut("/jobTemplate/spec/template/spec/containers/0")
        .unwrap();
    container["env"] = json!([{"name": "EXIT_AFTER_MS", "value": "600000"}]);
}

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The run that was due at ten o'clock UTC on March `day`.
fn run_of(day: i64) -> String {
    let due = at("2026-03-01T10:00:00Z").as_second() + (day - 1) * 24 * 3600;
    format!("tick-{}", due / 60)
}

/// The recorded runs with their outcomes; `None` for a running one.
fn runs(world: &World) -> BTreeMap<String, Option<String>> {
    let document = world.document();
    let jobs = document["jobs"].as_object().unwrap();
    jobs.iter()
        .map(|(name, record)| {
            let outcome = record.pointer("/end/0/outcome").and_then(Value::as_str);
            assert_ne!(outcome, Some("errored"), "{record}");
            (name.clone(), outcome.map(str::to_string))
        })
        .collect()
}

/// Waits until the recorded runs are `wanted`.
async fn runs_until(world: &World, wanted: &[(String, Option<Outcome>)]) {
    let wanted: BTreeMap<String, Option<String>> = wanted
        .iter()
        .map(|(name, outcome)| (name.clone(), outcome.map(|o| o.as_str().to_string())))
        .collect();
    until(format!("the runs to be {wanted:?}"), BOUND, async || {
        let runs = runs(world);
        Ok(if runs == wanted {
            Probe::Found(())
        } else {
            Probe::NotYet(format!("{runs:?}"))
        })
    })
    .await
    .unwrap();
}

/// Waits until the CronJob's message is as `wanted`. The message follows the recorded runs.
async fn message_until(world: &World, what: &str, wanted: impl Fn(&str) -> bool) {
    let what = format!("the CronJob to say {what}");
    let waited = until(&what, BOUND, async || {
        let message = world.status_of("CronJob", "tick").await.message;
        Ok(if wanted(&message) {
            Probe::Found(())
        } else {
            Probe::NotYet(message)
        })
    });
    waited.await.unwrap();
}

async fn containers_of(world: &World, run: &str) -> usize {
    world.containers("dev.towpath.batch-job", run).await.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_starts_when_it_is_due_and_once() {
    in_world("a_run_starts_when_it_is_due", async |world| {
        let ended = Some(Outcome::Succeeded);
        world.clock.set(at("2026-03-02T09:59:30Z"));
        world
            .apply(&[daily(world, &["exit", "0", "ran"], |_| {})])
            .await
            .unwrap();
        assert!(runs(world).is_empty(), "yesterday's run is not made up for");
        let said = "next run at 2026-03-02T10:00:00Z";
        message_until(world, said, |message| message == said).await;
        world.clock.advance(SignedDuration::from_secs(30));
        runs_until(world, &[(run_of(2), ended)]).await;
        let said = "last run succeeded at 2026-03-02T10:00:00Z, next run at 2026-03-03T10:00:00Z";
        message_until(world, said, |message| message == said).await;

        // The server restarts in the minute of the run, and the same objects are applied again. The run is not due a second
        // time.
        world.reopen().await;
        world
            .apply(&[daily(world, &["exit", "0", "ran"], |_| {})])
            .await
            .unwrap();
        world.clock.advance(DAY);
        runs_until(world, &[(run_of(2), ended), (run_of(3), ended)]).await;
        assert_eq!(containers_of(world, &run_of(2)).await, 1);

        // Three runs fell due while the server was dead. Only the latest is started.
        world.close();
        world.clock.advance(DAY * 3);
        world.open().await;
        runs_until(world, &[(run_of(2), ended), (run_of(3), ended), (run_of(6), ended)]).await;

        // A new schedule does not make up for runs from before it existed.
        world.clock.set(at("2026-03-06T12:00:00Z"));
        let hourly = |spec: &mut Value| spec["schedule"] = json!("30 * * * *");
        world
            .apply(&[daily(world, &["exit", "0", "ran"], hourly)])
            .await
            .unwrap();
        world.clock.set(at("2026-03-06T12:31:00Z"));
        let half_past = format!("tick-{}", at("2026-03-06T12:30:00Z").as_second() / 60);
        let expected = [
            (run_of(2), ended),
            (run_of(3), ended),
            (run_of(6), ended),
            (half_past, ended),
        ];
        runs_until(world, &expected).await;

        // The CronJob is pruned, and its runs with it.
        let tick = daily(world, &[], |_| {}).id();
        world.apply_and_prune(&[], &[tick]).await.unwrap();
        runs_until(world, &[]).await;
        assert_eq!(world.containers("dev.towpath.batch-job", "").await, []);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_too_late_is_not_started() {
    in_world("a_run_that_is_too_late", async |world| {
        let ended = Some(Outcome::Succeeded);
        world.clock.set(at("2026-03-02T09:00:00Z"));
        let objects = [daily(world, &["exit", "0"], |spec| {
            spec["startingDeadlineSeconds"] = json!(60)
        })];
        world.apply(&objects).await.unwrap();
        // The server is dead at the due time, and back within the deadline.
        world.close();
        world.clock.set(at("2026-03-02T10:00:59Z"));
        world.open().await;
        runs_until(world, &[(run_of(2), ended)]).await;
        // The server is back after the deadline: that run is lost, but the next one is not.
        world.close();
        world.clock.set(at("2026-03-03T10:01:01Z"));
        world.open().await;
        // A round trip through the controller's loop makes sure that it has looked at the clock.
        let (_, end) = world.run_job(world.job("other", &["exit", "0"], |_| {})).await;
        assert_eq!(end.outcome, Outcome::Succeeded);
        world.clock.set(at("2026-03-04T10:00:00Z"));
        runs_until(
            world,
            &[(run_of(2), ended), (run_of(4), ended), ("other".into(), ended)],
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_a_run_while_another_is_under_way() {
    in_world("what_becomes_of_a_run", async |world| {
        let begin = |world: &World| world.clock.set(at("2026-03-02T09:59:00Z"));
        let minute = SignedDuration::from_mins(1);
        let with = |world: &World, policy: &str| {
            daily(world, &["exit", "0", "begun"], |spec| {
                spec["concurrencyPolicy"] = json!(policy);
                long(spec);
            })
        };
        // Allow: both runs run.
        begin(world);
        world.apply(&[with(world, "Allow")]).await.unwrap();
        world.clock.advance(minute);
        runs_until(world, &[(run_of(2), None)]).await;
        world.clock.advance(DAY);
        runs_until(world, &[(run_of(2), None), (run_of(3), None)]).await;
        // A change on the disk reaches the memory a moment later.
        until("both runs to be in the status", BOUND, async || {
            let ready = world.status_of("CronJob", "tick").await.ready;
            Ok(if ready == 2 {
                Probe::Found(())
            } else {
                Probe::NotYet(ready.to_string())
            })
        })
        .await
        .unwrap();
        // The runs continue while the server is dead, and none starts a second time.
        world.reopen().await;
        world.clock.advance(minute);
        for run in [run_of(2), run_of(3)] {
            until(format!("{run} to run"), BOUND, async || {
                let count = containers_of(world, &run).await;
                Ok(if count == 1 {
                    Probe::Found(())
                } else {
                    Probe::NotYet(format!("{count} containers"))
                })
            })
            .await
            .unwrap();
        }

        // Forbid: the next run waits for both to end.
        world.apply(&[with(world, "Forbid")]).await.unwrap();
        world.clock.advance(DAY);
        let held = "a run is due and waits for the one under way";
        message_until(world, held, |message| message.contains(held)).await;
        assert_eq!(runs(world).len(), 2);
        let canceled = Some(Outcome::Canceled);
        world.target().cancel_job(&world.id, &run_of(2)).await.unwrap();
        runs_until(world, &[(run_of(2), canceled), (run_of(3), None)]).await;
        world.target().cancel_job(&world.id, &run_of(3)).await.unwrap();
        runs_until(
            world,
            &[(run_of(2), canceled), (run_of(3), canceled), (run_of(4), None)],
        )
        .await;
        message_until(world, "that no run is due", |message| !message.contains("is due")).await;

        // Replace: the running one is stopped first.
        world.apply(&[with(world, "Replace")]).await.unwrap();
        world.clock.advance(DAY);
        let (second, third, fourth) = ((run_of(2), canceled), (run_of(3), canceled), (run_of(4), canceled));
        runs_until(world, &[second, third, fourth, (run_of(5), None)]).await;

        // A run by hand ignores the schedule and the policy.
        let handle = world
            .target()
            .start_cron_job(&world.id, "tick", "tick-by-hand", None)
            .await
            .unwrap();
        world.target().cancel_job(&world.id, "tick-by-hand").await.unwrap();
        let (_, end) = finish(handle).await;
        assert_eq!(end.outcome, Outcome::Canceled);
        let nobody = world
            .target()
            .start_cron_job(&world.id, "tock", "tock-by-hand", None)
            .await
            .unwrap_err();
        assert!(matches!(nobody, TargetError::NotFound(_)), "{nobody}");

        // Prune the CronJob during a run: the run is stopped, and nothing is left.
        let tick = with(world, "Replace").id();
        world.apply_and_prune(&[], &[tick]).await.unwrap();
        runs_until(world, &[]).await;
        assert_eq!(world.containers("dev.towpath.batch-job", "").await, []);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_history_and_suspension() {
    in_world("attempts_history_and_suspension", async |world| {
        let (good, bad) = (Some(Outcome::Succeeded), Some(Outcome::Failed));
        world.clock.set(at("2026-03-02T09:59:00Z"));
        let with = |world: &World, code: &str, suspend: bool| {
            daily(world, &["exit", code], |spec| {
                spec["successfulJobsHistoryLimit"] = json!(2);
                spec["failedJobsHistoryLimit"] = json!(1);
                spec["suspend"] = json!(suspend);
                spec["jobTemplate"]["spec"]["backoffLimit"] = json!(1);
            })
        };
        for (day, expected) in [
            (2, vec![(run_of(2), good)]),
            (3, vec![(run_of(2), good), (run_of(3), good)]),
            (4, vec![(run_of(3), good), (run_of(4), good)]),
        ] {
            world.apply(&[with(world, "0", false)]).await.unwrap();
            world.clock.set(at(&format!("2026-03-0{day}T10:00:00Z")));
            runs_until(world, &expected).await;
        }
        // The engine also loses runs beyond the history limit.
        until("the first run's container to be gone", BOUND, async || {
            let count = containers_of(world, &run_of(2)).await;
            Ok(if count == 0 {
                Probe::Found(())
            } else {
                Probe::NotYet(format!("{count} containers"))
            })
        })
        .await
        .unwrap();

        // A failed run is retried once after a pause, and then no more.
        world.apply(&[with(world, "9", false)]).await.unwrap();
        world.clock.set(at("2026-03-05T10:00:00Z"));
        until("the second attempt to have failed", BOUND, async || {
            world.clock.advance(SignedDuration::from_secs(1));
            let runs = runs(world);
            let failed = runs.get(&run_of(5)).cloned().flatten();
            Ok(if failed.as_deref() == Some("failed") {
                Probe::Found(())
            } else {
                Probe::NotYet(format!("{runs:?}"))
            })
        })
        .await
        .unwrap();
        assert_eq!(containers_of(world, &run_of(5)).await, 2);
        runs_until(world, &[(run_of(3), good), (run_of(4), good), (run_of(5), bad)]).await;

        // A suspended CronJob starts nothing. It makes up for the missed run afterwards.
        world.apply(&[with(world, "0", true)]).await.unwrap();
        message_until(world, "suspended", |message| message.contains("suspended")).await;
        world.clock.set(at("2026-03-07T12:00:00Z"));
        let (_, end) = world.run_job(world.job("other", &["exit", "0"], |_| {})).await;
        assert_eq!(end.outcome, Outcome::Succeeded);
        assert!(
            !runs(world).contains_key(&run_of(6)) && !runs(world).contains_key(&run_of(7)),
            "{:?}",
            runs(world)
        );
        world.apply(&[with(world, "0", false)]).await.unwrap();
        let expected = [
            (run_of(4), good),
            (run_of(5), bad),
            (run_of(7), good),
            ("other".into(), good),
        ];
        runs_until(world, &expected).await;
    })
    .await;
}
