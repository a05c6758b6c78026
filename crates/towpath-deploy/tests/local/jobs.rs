//! One-off jobs on the local target.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_succeeds_fails_and_is_tried_again() {
    in_world("a_job_succeeds", async |world| {
        world.secrets.set("login", "PASSWORD", "hunter2hunter2");
        let job = world.job("migrate", &["exit", "0", "as $(PASSWORD)"], |spec| {
            spec["template"]["spec"]["containers"][0]["env"] =
                json!([{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "login", "key": "PASSWORD"}}}]);
        });
        let (lines, end) = world.run_job(job.clone()).await;
        assert_eq!(lines, ["as ****"]);
        assert_eq!((end.outcome, end.exit_code), (Outcome::Succeeded, Some(0)), "{end:?}");
        // The name identifies the run, so the second call follows the run and does not start another.
        let before = world.starts().await;
        let (again, end_again) = world.run_job(job).await;
        assert_eq!((again, end_again), (lines, end));
        assert_eq!(world.starts().await, before);

        let (lines, end) = world.run_job(world.job("once", &["exit", "4", "no"], |_| {})).await;
        assert_eq!(lines, ["no"]);
        assert_eq!((end.outcome, end.exit_code), (Outcome::Failed, Some(4)), "{end:?}");

        let twice = world.job("twice", &["exit", "7", "no"], |spec| spec["backoffLimit"] = json!(1));
        let (lines, end) = world.run_job(twice).await;
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[1].starts_with("note: attempt 1 failed"), "{lines:?}");
        assert_eq!((lines[0].as_str(), lines[2].as_str()), ("no", "no"));
        assert_eq!((end.outcome, end.exit_code), (Outcome::Failed, Some(7)), "{end:?}");
        assert!(end.message.contains("attempt 2 of 2"), "{end:?}");
        assert_eq!(world.containers("dev.towpath.batch-job", "twice").await.len(), 2);

        let odd = world.job("odd", &["exit", "0"], |spec| spec["parallelism"] = json!(2));
        let refused = world.target().run_job(&world.id, odd, None).await.unwrap_err();
        assert!(
            matches!(&refused, TargetError::Refused(said) if said.contains("spec.parallelism")),
            "{refused}"
        );

        let impossible = world.job("impossible", &[], |spec| {
            spec["template"]["spec"]["containers"][0]["command"] = json!(["/bin/no-such-program"]);
        });
        let (_, end) = world.run_job(impossible).await;
        assert_eq!((end.outcome, end.exit_code), (Outcome::Errored, None), "{end:?}");
        assert!(end.message.contains("/bin/no-such-program"), "{end:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_ends_at_its_deadline_and_when_it_is_cancelled() {
    in_world("a_job_ends_at_its_deadline", async |world| {
        let long = |name: &str, deadline: Option<u32>| {
            world.job(name, &["exit", "0", "begun"], |spec| {
                spec["activeDeadlineSeconds"] = json!(deadline);
                spec["template"]["spec"]["containers"][0]["env"] =
                    json!([{"name": "EXIT_AFTER_MS", "value": "600000"}]);
            })
        };
        let began = Instant::now();
        let (lines, end) = world.run_job(long("late", Some(3))).await;
        assert!(began.elapsed() >= Duration::from_secs(3));
        assert_eq!(lines, ["begun"]);
        assert_eq!((end.outcome, end.exit_code), (Outcome::TimedOut, None), "{end:?}");
        assert!(end.message.contains("`activeDeadlineSeconds` of 3 s"), "{end:?}");
        assert_eq!(running(world, "late").await, 0);

        let mut handle: JobHandle = world
            .target()
            .run_job(&world.id, long("stop", None), None)
            .await
            .unwrap();
        assert!(handle.output.recv().await.is_some());
        world.target().cancel_job(&world.id, "stop").await.unwrap();
        let (_, end) = finish(handle).await;
        assert_eq!(end.outcome, Outcome::Canceled, "{end:?}");
        assert_eq!(running(world, "stop").await, 0);

        // A Job that cannot start for a temporary reason reports the reason to whoever waits.
        let far = world.job("far", &["exit", "0"], |spec| {
            spec["template"]["spec"]["containers"][0]["image"] = json!("127.0.0.1:1/no-registry:1");
        });
        let mut handle: JobHandle = world.target().run_job(&world.id, far, None).await.unwrap();
        let first = tokio::time::timeout(BOUND, handle.output.recv()).await.unwrap();
        let Some(JobLine::Note(note)) = first else {
            panic!("{first:?}")
        };
        assert!(
            note.starts_with("it has not started yet, and is tried again: "),
            "{note}"
        );
        world.target().cancel_job(&world.id, "far").await.unwrap();
        assert_eq!(finish(handle).await.1.outcome, Outcome::Canceled);

        let nobody = world.target().cancel_job(&world.id, "nobody").await.unwrap_err();
        assert!(matches!(nobody, TargetError::NotFound(_)), "{nobody}");
        let other = environment("live");
        let nobody = world.target().cancel_job(&other, "stop").await.unwrap_err();
        assert!(matches!(nobody, TargetError::NotFound(_)), "{nobody}");
    })
    .await;
}

async fn running(world: &World, job: &str) -> usize {
    let containers = world.containers("dev.towpath.batch-job", job).await;
    containers
        .iter()
        .filter(|c| c.state.is_some_and(|state| state.to_string() == "running"))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_while_the_server_is_dead_and_is_not_run_twice() {
    in_world("a_job_goes_on", async |world| {
        let job = |name: &str, after: &str| {
            world.job(name, &["exit", "5", "once"], |spec| {
                spec["template"]["spec"]["containers"][0]["env"] = json!([{"name": "EXIT_AFTER_MS", "value": after}]);
            })
        };
        // One Job that still runs when the server comes back, and one that ended while the server was dead.
        let (long, short) = (job("long", "6000"), job("short", "1500"));
        for job in [&long, &short] {
            let mut handle = world.target().run_job(&world.id, job.clone(), None).await.unwrap();
            assert!(handle.output.recv().await.is_some());
        }
        world.close();
        until("the short one to have ended", BOUND, async || {
            let count = running(world, "short").await;
            Ok(if count == 0 {
                Probe::Found(())
            } else {
                Probe::NotYet(format!("{count} running"))
            })
        })
        .await
        .unwrap();
        world.open().await;
        for (name, job) in [("long", long), ("short", short)] {
            let (lines, end) = world.run_job(job).await;
            assert_eq!(lines, ["once"], "{name}");
            assert_eq!(
                (end.outcome, end.exit_code),
                (Outcome::Failed, Some(5)),
                "{name}: {end:?}"
            );
            assert_eq!(world.containers("dev.towpath.batch-job", name).await.len(), 1, "{name}");
        }
    })
    .await;
}

// The contract of a target.
