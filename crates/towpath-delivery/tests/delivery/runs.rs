//! One-off runs, cron jobs run by hand, and single cron jobs that are applied.

use crate::{target::Moment, world::*};
use jiff::SignedDuration;
use towpath_delivery::{ErrorKind, LaptopRequest, Unheard};
use towpath_deploy::{CronJobStatus, JobEnd, Occasion};
use towpath_store::{ReleaseStore as _, WorkKind, WorkStore as _};
use towpath_types::{Clock as _, Outcome, RunId};

fn ended(outcome: Outcome, exit_code: Option<i64>, message: &str) -> JobEnd {
    JobEnd {
        outcome,
        exit_code,
        message: message.into(),
    }
}

fn migrate() -> LaptopRequest {
    LaptopRequest {
        name: Some("migrate".into()),
        ..request("latest")
    }
}

fn vacuum(name: &str) -> CronJobStatus {
    CronJobStatus {
        name: name.into(),
        schedule: "0 3 * * *".into(),
        suspended: false,
        image: Some("r.io/claims".into()),
        active: 0,
        last_run: None,
        last_success: None,
        next_run: None,
        failures: Vec::new(),
    }
}

#[tokio::test]
async fn a_run_is_a_row_with_its_lines_and_its_end() {
    let world = World::new().await;
    let digest = world.push_image("app-latest");
    world.target.next_job(
        &["-- it waits for a pod", "migrated two"],
        ended(Outcome::Failed, Some(3), "BackoffLimitExceeded"),
    );
    let runs = &world.delivery.runs;
    let begun = runs.start_job(&environment("dev"), migrate(), &ann()).await.unwrap();
    assert_eq!(begun, world.store.run(begun.id).await.unwrap().unwrap());
    assert_eq!(
        (
            begun.kind.as_str(),
            begun.name.as_str(),
            begun.image.clone(),
            begun.outcome
        ),
        ("Job", "migrate", format!("{REGISTRY}/claims@{digest}"), None)
    );
    assert_eq!(begun.object, format!("migrate-{}", begun.id.short()));
    let (row, said) = world.follow(begun.id).await;
    assert_eq!(said, "-- it waits for a pod\nmigrated two\n-- BackoffLimitExceeded");
    assert_eq!(
        (row.outcome, row.exit_code, row.message.as_deref(), row.stopped_at),
        (
            Some(Outcome::Failed),
            Some(3),
            Some("BackoffLimitExceeded"),
            Some(world.clock.now())
        )
    );
    assert_eq!(row, world.store.run(begun.id).await.unwrap().unwrap());
}

#[tokio::test]
async fn each_run_has_a_name_of_its_own_and_the_label_of_its_job() {
    let world = World::new().await;
    world.push_image("app-latest");
    world.target.next_job(&[], ended(Outcome::Succeeded, Some(0), ""));
    let runs = &world.delivery.runs;
    let long = format!("{}-end", "m".repeat(70));
    let mut request = migrate();
    request.name = Some(long.clone());
    request.files[3] = file(
        ".k8s/live/jobs/migrate.yaml",
        &MIGRATE.replace("name: migrate", &format!("name: {long}")),
    );
    let first = runs
        .start_job(&environment("dev"), request.clone(), &ann())
        .await
        .unwrap();
    let second = runs.start_job(&environment("dev"), request, &ann()).await.unwrap();
    assert_ne!(first.object, second.object);
    assert!(first.object.len() <= 63, "{}", first.object);
    let names = world.target.place(&environment("dev")).jobs;
    assert_eq!(names.keys().cloned().collect::<Vec<_>>(), {
        let mut names = [first.object, second.object];
        names.sort();
        names
    });
    let rows = world.store.runs(&environment("dev"), 10).await.unwrap();
    assert_eq!(rows.len(), 2);
}

#[tokio::test]
async fn a_restart_takes_up_following_a_run_from_its_beginning() {
    let mut world = World::new().await;
    world.push_image("app-latest");
    world
        .target
        .next_job(&["one", "two"], ended(Outcome::Succeeded, Some(0), ""));
    let runs = &world.delivery.runs;
    let begun = runs.start_job(&environment("dev"), migrate(), &ann()).await.unwrap();
    let guard = world.lease(WorkKind::Run, begun.id).await;
    world.target.die_at(1, Moment::After);
    let died = world.target.until_death(runs.follow(&guard, begun.id, &Unheard)).await;
    assert!(died.is_none());
    world.restart();
    world.let_leases_end();
    let (row, said) = world.follow(begun.id).await;
    assert_eq!((row.outcome, said.as_str()), (Some(Outcome::Succeeded), "one\ntwo"));
    let job = &world.target.place(&environment("dev")).jobs[&begun.object];
    assert_eq!(job.starts, 1, "a migration runs once");
}

#[tokio::test]
async fn a_run_that_was_never_started_is_not_started_later() {
    let mut world = World::new().await;
    world.push_image("app-latest");
    let id = environment("dev");
    // Die at each call of the start in turn; what remains is a row, or nothing.
    for moment in [Moment::Before, Moment::After] {
        world.target.next_job(&["one"], ended(Outcome::Succeeded, Some(0), ""));
        let calls = world.target.calls().len();
        let runs = &world.delivery.runs;
        let reference = runs.start_job(&id, migrate(), &ann()).await.unwrap();
        world.follow(reference.id).await;
        let calls = world.target.calls()[calls..].to_vec();
        let run_job = calls.iter().position(|call| *call == "run_job").unwrap();
        let known = world.store.runs(&id, 100).await.unwrap().len();
        world.target.die_at(run_job + 1, moment);
        let died = world.target.until_death(runs.start_job(&id, migrate(), &ann())).await;
        assert!(died.is_none());
        let rows = world.store.runs(&id, 100).await.unwrap();
        assert_eq!(rows.len(), known + 1);
        let left = rows.into_iter().find(|row| row.outcome.is_none()).unwrap();
        world.restart();
        // No server takes it up while it may still be starting.
        assert!(is_not_due(&world, left.id).await);
        world.clock.advance(SignedDuration::from_mins(5));
        let (row, _) = world.follow(left.id).await;
        match moment {
            Moment::After => assert_eq!(row.outcome, Some(Outcome::Succeeded)),
            _ => {
                assert_eq!(row.outcome, Some(Outcome::Errored));
                let message = row.message.unwrap();
                assert!(
                    message.starts_with(&format!("there is no Job `{}`", left.object)),
                    "{message}"
                );
            }
        }
    }
}

async fn is_not_due(world: &World, id: RunId) -> bool {
    let work = world
        .store
        .due_work(&[WorkKind::Run], &[], world.clock.now(), 100)
        .await
        .unwrap();
    work.iter().all(|work| work.key.key != id.to_string())
}

#[tokio::test]
async fn a_run_that_the_target_refuses_ends_at_once() {
    let world = World::new().await;
    world.push_image("app-latest");
    world.target.refuse("the quota is used up");
    let runs = &world.delivery.runs;
    let error = runs
        .start_job(&environment("dev"), migrate(), &ann())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().starts_with("the job cannot run:\n"), "{error}");
    assert!(world.store.runs(&environment("dev"), 10).await.unwrap().is_empty());
    world.target.accept();
    world.target.set_unreachable(Some("connection refused"));
    let error = runs
        .start_job(&environment("dev"), migrate(), &ann())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_target_that_goes_away_while_a_run_is_followed_is_asked_again() {
    let world = World::new().await;
    world.push_image("app-latest");
    world.target.next_job(&["one"], ended(Outcome::Succeeded, Some(0), ""));
    let runs = &world.delivery.runs;
    let begun = runs.start_job(&environment("dev"), migrate(), &ann()).await.unwrap();
    let guard = world.lease(WorkKind::Run, begun.id).await;
    world.target.set_unreachable(Some("connection refused"));
    let error = runs.follow(&guard, begun.id, &Unheard).await.unwrap_err();
    assert!(error.is_temporary(), "{error}");
    assert_eq!(world.store.run(begun.id).await.unwrap().unwrap().outcome, None);
    world.target.set_unreachable(None);
    let row = runs.follow(&guard, begun.id, &Unheard).await.unwrap();
    assert_eq!(row.outcome, Some(Outcome::Succeeded));
    // Following it again after its end is harmless.
    let again = runs.follow(&guard, begun.id, &Unheard).await.unwrap();
    assert_eq!(again, row);
}

#[tokio::test]
async fn an_unknown_job_is_answered_with_those_that_there_are() {
    let world = World::new().await;
    world.push_image("app-latest");
    let mut request = migrate();
    request.name = Some("nosuch".into());
    let runs = &world.delivery.runs;
    let error = runs
        .start_job(&environment("dev"), request.clone(), &ann())
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "`dev` has no Job `nosuch`: there are migrate");
    request.name = None;
    let error = runs.start_job(&environment("dev"), request, &ann()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_locked_environment_runs_nothing_of_others() {
    let world = World::new().await;
    world.push_image("app-latest");
    world.deploy("dev", "latest").await;
    world
        .target
        .change(&environment("dev"), |place| place.cron_jobs = vec![vacuum("vacuum-db")]);
    let (locks, runs, id) = (&world.delivery.locks, &world.delivery.runs, environment("dev"));
    locks
        .lock(&id, "", SignedDuration::from_hours(1), &ann())
        .await
        .unwrap();
    let error = runs.start_job(&id, migrate(), &bob()).await.unwrap_err();
    assert!(error.to_string().contains("locked by ann"), "{error}");
    let error = runs.start_cron_job(&id, "vacuum-db", None, &bob()).await.unwrap_err();
    assert!(error.to_string().contains("locked by ann"), "{error}");
}

#[tokio::test]
async fn a_cron_job_runs_by_hand_by_its_name_or_its_files() {
    let world = World::new().await;
    world.push_image("app-latest");
    world.deploy("dev", "latest").await;
    world.target.change(&environment("dev"), |place| {
        place.cron_jobs = vec![vacuum("claims-vacuum-db")]
    });
    world
        .target
        .next_job(&["vacuumed"], ended(Outcome::Succeeded, Some(0), ""));
    let (runs, id) = (&world.delivery.runs, environment("dev"));
    for name in ["claims-vacuum-db", "vacuum_db", "vacuum-db"] {
        let begun = runs.start_cron_job(&id, name, None, &ann()).await.unwrap();
        assert_eq!(
            (begun.kind.as_str(), begun.object.as_str(), begun.image.as_str()),
            ("CronJob", "claims-vacuum-db-1", "r.io/claims")
        );
        let (row, said) = world.follow(begun.id).await;
        assert_eq!(
            (row.outcome, said.as_str()),
            (Some(Outcome::Succeeded), "vacuumed"),
            "{name}"
        );
    }
    let error = runs.start_cron_job(&id, "nosuch", None, &ann()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "`dev` runs no cron job `nosuch`: it has claims-vacuum-db"
    );
    world.target.change(&id, |place| place.cron_jobs.clear());
    let error = runs.start_cron_job(&id, "nosuch", None, &ann()).await.unwrap_err();
    assert_eq!(error.to_string(), "`dev` runs no cron job `nosuch`: it has none");
}

#[tokio::test]
async fn a_cron_job_whose_start_was_cut_off_says_that_nobody_knows() {
    let mut world = World::new().await;
    world.push_image("app-latest");
    world.deploy("dev", "latest").await;
    world
        .target
        .change(&environment("dev"), |place| place.cron_jobs = vec![vacuum("vacuum-db")]);
    let id = environment("dev");
    let before = world.target.calls().len();
    world
        .delivery
        .runs
        .start_cron_job(&id, "vacuum-db", None, &ann())
        .await
        .unwrap();
    let calls = world.target.calls()[before..].to_vec();
    let start = calls.iter().position(|call| *call == "start_cron_job").unwrap();
    world.target.die_at(start + 1, Moment::After);
    let runs = world.delivery.runs.clone();
    assert!(
        world
            .target
            .until_death(runs.start_cron_job(&id, "vacuum-db", None, &ann()))
            .await
            .is_none()
    );
    let rows = world.store.runs(&id, 10).await.unwrap();
    let left = rows.into_iter().find(|row| row.object.is_empty()).unwrap();
    world.restart();
    world.clock.advance(SignedDuration::from_mins(5));
    let (row, said) = world.follow(left.id).await;
    assert_eq!(row.outcome, Some(Outcome::Errored));
    assert!(said.contains("`towpath cronjob list dev` says"), "{said}");
}

#[tokio::test]
async fn a_single_cron_job_is_applied_beside_the_releases() {
    let world = World::new().await;
    world.push_image("app-latest");
    let (release, _) = world.deploy("dev", "latest").await;
    let mut request = request("latest");
    request.name = Some("vacuum_db".into());
    request.files.push(file(".k8s/live/cron_jobs/vacuum_db.yaml", VACUUM));
    let (runs, id) = (&world.delivery.runs, environment("dev"));
    let lines = runs.apply_cron_job(&id, request.clone(), &ann()).await.unwrap();
    assert_eq!(lines, ["created", "applied CronJob vacuum-db to dev"]);
    let place = world.target.place(&id);
    assert_eq!(
        (place.release, place.applied.last().unwrap().0),
        (Some(release.id), Occasion::Beside)
    );
    request.project_file = Some(
        "[[freeze]]\nenvironments = [\"dev\"]\nfrom = \"2025-01-01T00:00:00Z\"\nuntil = \"2027-01-01T00:00:00Z\"\n"
            .into(),
    );
    let error = runs.apply_cron_job(&id, request, &ann()).await.unwrap_err();
    assert_eq!(error.to_string(), "dev is frozen until 2027-01-01T00:00:00Z");
}
