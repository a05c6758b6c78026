//! Environments: discovered, observed, and shown from rows alone.

use crate::world::*;
use jiff::SignedDuration;
use serde_json::json;
use towpath_delivery::{ErrorKind, ProjectFile, SightingView, is_shown};
use towpath_store::{EnvironmentStore as _, ReleaseStore as _};
use towpath_types::{Clock as _, RecordedState};

async fn names(world: &World) -> Vec<String> {
    let rows = world.store.environments(Some(&claims())).await.unwrap();
    let shown = rows.iter().filter(|row| is_shown(row));
    shown.map(|row| row.id.environment().to_string()).collect()
}

#[tokio::test]
async fn the_default_branch_says_which_environments_there_are() {
    let world = World::new().await;
    world.forge_project().await;
    let discovered = world.delivery.discoverer.discover(&claims()).await.unwrap();
    assert!(
        discovered.environments.is_empty() && discovered.is_final,
        "nothing was pushed yet"
    );
    world
        .push_commit(&[(".k8s/live/dev/web.yaml", WEB), (".k8s/live/qa/web.yaml", WEB)])
        .await;
    let discovered = world.delivery.discoverer.discover(&claims()).await.unwrap();
    assert_eq!(discovered.environments, [environment("dev"), environment("qa")]);
    assert_eq!(names(&world).await, ["dev", "qa"]);
    let row = world.store.environment(&environment("dev")).await.unwrap().unwrap();
    assert_eq!(
        (row.kube_context.as_str(), row.namespace.as_str(), row.version),
        ("live", "claims-dev", 1)
    );
    world.delivery.discoverer.discover(&claims()).await.unwrap();
    let again = world.store.environment(&environment("dev")).await.unwrap().unwrap();
    assert_eq!(again, row, "what did not change is not written");
}

#[tokio::test]
async fn an_environment_that_is_deployed_to_outlives_its_manifests() {
    let world = World::new().await;
    world
        .push_commit(&[(".k8s/live/dev/web.yaml", WEB), (".k8s/live/qa/web.yaml", WEB)])
        .await;
    world.delivery.discoverer.discover(&claims()).await.unwrap();
    world.push_image("app-latest");
    world.deploy("dev", "latest").await;
    world.delivery.observer.observe(&environment("dev")).await.unwrap();
    let project = claims();
    world
        .forge
        .commit_to(&project, "main")
        .without(".k8s/live/dev/web.yaml")
        .without(".k8s/live/qa/web.yaml")
        .push();
    world.delivery.discoverer.discover(&claims()).await.unwrap();
    assert_eq!(names(&world).await, ["dev"]);
    assert_eq!(
        world
            .delivery
            .history
            .place(&environment("dev"))
            .await
            .unwrap()
            .namespace,
        "claims-dev"
    );
    let error = world.delivery.history.place(&environment("qa")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::NotFound, "project `claims` has no environment `qa`")
    );
}

#[tokio::test]
async fn a_name_that_two_folders_have_is_no_place() {
    let world = World::new().await;
    let files = vec![file(".k8s/live/dev/web.yaml", WEB), file(".k8s/old/dev/web.yaml", WEB)];
    let discoverer = &world.delivery.discoverer;
    discoverer
        .discover_in("claims", files.clone(), &ProjectFile::default())
        .await
        .unwrap();
    assert_eq!(world.view("dev").await.ambiguous, [".k8s/live", ".k8s/old"]);
    let error = world.delivery.history.place(&environment("dev")).await.unwrap_err();
    assert!(error.to_string().contains("(`.k8s/live`, `.k8s/old`)"), "{error}");
    let row = world.delivery.observer.observe(&environment("dev")).await.unwrap();
    assert!(matches!(&row.sighting, towpath_store::Sighting::Unknown { because, .. } if because.contains("say which")));
    let file = ProjectFile::parse("manifests = \".k8s/old\"").unwrap();
    discoverer.discover_in("claims", files, &file).await.unwrap();
    let place = world.delivery.history.place(&environment("dev")).await.unwrap();
    assert_eq!(place.kube_context, "old");
}

#[tokio::test]
async fn nothing_is_known_of_a_project_that_nobody_showed() {
    let world = World::new().await;
    let error = world.delivery.history.place(&environment("dev")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::NotFound, "there is no project `claims`")
    );
    let error = world.delivery.observer.observe(&environment("dev")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_look_is_stored_and_a_page_reads_rows_alone() {
    let world = World::new().await;
    world.push_image("app-latest");
    let (release, _) = world.deploy("dev", "latest").await;
    let row = world.delivery.observer.observe(&environment("dev")).await.unwrap();
    assert_eq!(row.release, Some(release.id));
    let before = (
        world.target.total_calls(),
        world.images.all_calls(),
        world.forge.all_calls(),
    );
    let view = world.view("dev").await;
    let workloads: Vec<String> = view
        .workloads
        .iter()
        .map(|workload| {
            format!(
                "{}/{} {}/{}",
                workload.kind, workload.name, workload.ready, workload.desired
            )
        })
        .collect();
    assert_eq!(workloads, ["Deployment/web 1/1"]);
    assert_eq!(view.sighting, SightingView::Seen { at: world.clock.now() });
    assert_eq!(view.release.unwrap().number, 1);
    assert_eq!(
        (view.deploying, view.between, view.hold, view.drift),
        (None, None, None, None)
    );
    let after = (
        world.target.total_calls(),
        world.images.all_calls(),
        world.forge.all_calls(),
    );
    assert_eq!(before, after, "nothing was asked for a page");
}

#[tokio::test]
async fn a_deployment_under_way_is_shown() {
    let world = World::new().await;
    world.push_image("app-latest");
    let releases = &world.delivery.releases;
    let begun = releases
        .deploy(&environment("dev"), request("latest"), &ann())
        .await
        .unwrap();
    let view = world.view("dev").await;
    let deploying = view.deploying.unwrap();
    assert_eq!((deploying.id, deploying.state), (begun.id, RecordedState::Running));
    assert_eq!(view.sighting, SightingView::Never);
}

#[tokio::test]
async fn an_environment_that_does_not_answer_is_unknown_and_keeps_what_was_seen() {
    let world = World::new().await;
    world.push_image("app-latest");
    world.deploy("dev", "latest").await;
    world.delivery.observer.observe(&environment("dev")).await.unwrap();
    let seen = world.view("dev").await;
    world.target.set_unreachable(Some("connection refused"));
    world.clock.advance(SignedDuration::from_secs(60));
    let since = world.clock.now();
    for _ in 0..3 {
        world.delivery.observer.observe(&environment("dev")).await.unwrap();
        world.clock.advance(SignedDuration::from_secs(60));
        let view = world.view("dev").await;
        match &view.sighting {
            SightingView::Unknown { since: from, because } => {
                assert_eq!(*from, since);
                assert!(because.contains("connection refused"), "{because}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!((&view.workloads, &view.release), (&seen.workloads, &seen.release));
    }
    world.target.set_unreachable(None);
    world.delivery.observer.observe(&environment("dev")).await.unwrap();
    assert_eq!(
        world.view("dev").await.sighting,
        SightingView::Seen { at: world.clock.now() }
    );
}

#[tokio::test]
async fn a_look_learns_what_a_laptop_deployed() {
    let world = World::on_cluster().await;
    let laptop = world.laptop().await;
    laptop.push_image("app-latest");
    let (theirs, _) = laptop.deploy("dev", "latest").await;
    let files = request("latest").files;
    let discoverer = &world.delivery.discoverer;
    discoverer
        .discover_in("claims", files, &ProjectFile::default())
        .await
        .unwrap();
    let row = world.delivery.observer.observe(&environment("dev")).await.unwrap();
    assert_eq!(row.release, Some(theirs.id));
    let shown = world.view("dev").await.release.unwrap();
    assert_eq!(
        (shown.id, shown.number, shown.image),
        (theirs.id, 1, theirs.images["claims"].to_string())
    );
    world.delivery.observer.observe(&environment("dev")).await.unwrap();
    assert_eq!(world.store.releases(&environment("dev"), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn drift_is_stored_until_the_next_release() {
    let world = World::on_cluster().await;
    world.push_image("app-latest");
    let observer = &world.delivery.observer;
    let id = environment("dev");
    let error = observer.look_for_drift(&id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    world.deploy("dev", "latest").await;
    observer.observe(&id).await.unwrap();
    assert_eq!(observer.look_for_drift(&id).await.unwrap().objects, []);
    let web = world.target.live(&place("dev")).into_iter();
    let web = web
        .map(|object| object.id())
        .find(|id| id.kind == "Deployment")
        .unwrap();
    world.target.tamper(&place("dev"), &web, "kubectl-scale", |value| {
        value["spec"]["replicas"] = json!(5);
    });
    let found = observer.look_for_drift(&id).await.unwrap();
    assert_eq!(found.objects[0].writers[0].manager, "kubectl-scale");
    assert!(
        found.objects[0].diff.contains("+  replicas: 5"),
        "{}",
        found.objects[0].diff
    );
    assert_eq!(world.view("dev").await.drift, Some(found.clone()));
    // Looking does not check for drift; deploying removes it.
    observer.observe(&id).await.unwrap();
    assert_eq!(world.view("dev").await.drift, Some(found));
    world.push_image("app-latest");
    world.deploy("dev", "latest").await;
    observer.observe(&id).await.unwrap();
    assert_eq!(world.view("dev").await.drift, None);
}

#[tokio::test]
async fn nothing_differs_where_nothing_was_deployed() {
    let world = World::new().await;
    let files = request("latest").files;
    let discoverer = &world.delivery.discoverer;
    discoverer
        .discover_in("claims", files, &ProjectFile::default())
        .await
        .unwrap();
    let error = world
        .delivery
        .observer
        .look_for_drift(&environment("dev"))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "nothing was deployed to `dev` yet, so nothing can differ"
    );
}
