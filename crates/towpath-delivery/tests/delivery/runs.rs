//! One-off runs, cron jobs run by hand, and single cron jobs that are applied.

use crate::world::*;
use jiff::SignedDuration;
use towpath_delivery::{ErrorKind, LaptopRequest, Unheard};
use towpath_deploy::{
    JobEnd, JobLine, Occasion,
    fake::{JobScript, Method, Moment},
};
use towpath_store::{ReleaseStore as _, WorkKind, WorkStore as _};
use towpath_types::{Clock as _, Outcome, RunId};

fn migrate() -> LaptopRequest {
    LaptopRequest {
        name: Some("migrate".into()),
        ..request("latest")
    }
}

#[tokio::test]
async fn a_run_is_a_row_with_its_lines_and_its_end() {
    let world = World::new().await;
    let digest = world.push_image("app-latest");
    world.script_migrate(JobScript {
        lines: vec![
            JobLine::Note("it waits for a pod".into()),
            JobLine::Output("migrated two\n".into()),
        ],
        end: Some(JobEnd {
            outcome: Outcome::Failed,
            exit_code: Some(3),
            message: "BackoffLimitExceeded".into(),
        }),
    });
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
    assert_eq!(world.target.runs(&place("dev")), {
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
    world.script_migrate(JobScript::exits(&["one", "two"], 0));
    let runs = &world.delivery.runs;
    let begun = runs.start_job(&environment("dev"), migrate(), &ann()).await.unwrap();
    let guard = world.lease(WorkKind::Run, begun.id).await;
    world.target.die_in_call(0, Moment::After);
    let died = world.target.until_death(runs.follow(&guard, begun.id, &Unheard)).await;
    assert!(died.is_none());
    world.restart();
    world.let_leases_end();
    let (row, said) = world.follow(begun.id).await;
    assert_eq!((row.outcome, said.as_str()), (Some(Outcome::Succeeded), "one\ntwo"));
    assert_eq!(world.target.calls(Method::RunJob), 1, "a migration runs once");
}

#[tokio::test]
async fn a_run_that_was_never_started_is_not_started_later() {
    let mut world = World::new().await;
    world.push_image("app-latest");
    let id = environment("dev");
    // Die at each call of the start in turn; what remains is a row, or nothing.
    for moment in [Moment::Before, Moment::After] {
        let calls = world.target.total_calls();
        let runs = &world.delivery.runs;
        let reference = runs.start_job(&id, migrate(), &ann()).await.unwrap();
        world.follow(reference.id).await;
        let calls = world.target.called()[calls..].to_vec();
        let run_job = calls.iter().position(|call| *call == Method::RunJob).unwrap();
        let known = world.store.runs(&id, 100).await.unwrap().len();
        world.target.die_in_call(run_job, moment);
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
    world.refuse("the quota is used up");
    let runs = &world.delivery.runs;
    let error = runs
        .start_job(&environment("dev"), migrate(), &ann())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().starts_with("the job cannot run:\n"), "{error}");
    assert!(world.store.runs(&environment("dev"), 10).await.unwrap().is_empty());
    world.target.clear_findings(&place("dev"));
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
    world.apply_cron_job("dev", "vacuum-db").await;
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
    world.apply_cron_job("dev", "claims-vacuum-db").await;
    let script = JobScript::exits(&["vacuumed"], 0);
    world.target.script_job(&place("dev"), "claims-vacuum-db", script);
    let (runs, id) = (&world.delivery.runs, environment("dev"));
    for name in ["claims-vacuum-db", "vacuum_db", "vacuum-db"] {
        let begun = runs.start_cron_job(&id, name, None, &ann()).await.unwrap();
        assert_eq!((begun.kind.as_str(), begun.image.as_str()), ("CronJob", "r.io/claims"));
        assert_eq!(begun.object, format!("claims-vacuum-db-{}", begun.id.short()));
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
    let cron_jobs = world.target.live(&place("dev")).into_iter();
    let cron_jobs = cron_jobs.filter(|object| object.kind == "CronJob");
    cron_jobs.for_each(|object| world.target.remove(&place("dev"), &object.id()));
    let error = runs.start_cron_job(&id, "nosuch", None, &ann()).await.unwrap_err();
    assert_eq!(error.to_string(), "`dev` runs no cron job `nosuch`: it has none");
}

#[tokio::test]
async fn a_cron_job_whose_start_was_cut_off_is_found_by_its_name_and_runs_once() {
    let mut world = World::new().await;
    world.push_image("app-latest");
    world.deploy("dev", "latest").await;
    world.apply_cron_job("dev", "vacuum-db").await;
    let script = JobScript::exits(&["vacuumed"], 0);
    world.target.script_job(&place("dev"), "vacuum-db", script);
    let id = environment("dev");
    let before = world.target.total_calls();
    let runs = world.delivery.runs.clone();
    runs.start_cron_job(&id, "vacuum-db", None, &ann()).await.unwrap();
    let calls = world.target.called()[before..].to_vec();
    let start = calls.iter().position(|call| *call == Method::StartCronJob).unwrap();
    for moment in [Moment::Before, Moment::After] {
        let known = world.target.runs(&place("dev")).len();
        let runs = world.delivery.runs.clone();
        let rows = world.store.runs(&id, 10).await.unwrap();
        world.target.die_in_call(start, moment);
        let ann = ann();
        let started = runs.start_cron_job(&id, "vacuum-db", None, &ann);
        assert!(world.target.until_death(started).await.is_none());
        let left = world.store.runs(&id, 10).await.unwrap().into_iter();
        let left = left.filter(|row| !rows.iter().any(|known| known.id == row.id));
        let left = Vec::from_iter(left).remove(0);
        assert!(!left.object.is_empty(), "its name is stored before anybody is asked");
        world.restart();
        world.clock.advance(SignedDuration::from_mins(5));
        let (row, said) = world.follow(left.id).await;
        let started = world.target.runs(&place("dev")).len() - known;
        match moment {
            Moment::After => {
                assert_eq!((row.outcome, said.as_str()), (Some(Outcome::Succeeded), "vacuumed"));
                assert_eq!(started, 1);
            }
            _ => {
                assert_eq!(row.outcome, Some(Outcome::Errored));
                assert!(said.contains(&format!("there is no Job `{}`", left.object)), "{said}");
                assert_eq!(started, 0, "nobody starts it later");
            }
        }
    }
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
    assert_eq!(world.running("dev").await, Some(release.id));
    assert_eq!(world.applied("dev").last().unwrap().0, Occasion::Beside);
    request.project_file = Some(
        "[[freeze]]\nenvironments = [\"dev\"]\nfrom = \"2025-01-01T00:00:00Z\"\nuntil = \"2027-01-01T00:00:00Z\"\n"
            .into(),
    );
    let error = runs.apply_cron_job(&id, request, &ann()).await.unwrap_err();
    assert_eq!(error.to_string(), "dev is frozen until 2027-01-01T00:00:00Z");
}
