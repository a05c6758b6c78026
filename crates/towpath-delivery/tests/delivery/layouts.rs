//! Environments outside of `.k8s/`, from a commit.

use crate::world::*;
use towpath_delivery::{ErrorKind, LaptopRequest, ProjectFile};

const SETTINGS: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\n";

#[tokio::test]
async fn environments_of_a_commit_are_found_wherever_they_are() {
    let world = World::new().await;
    world
        .push_commit(&[
            ("deploy/dev/web.yaml", WEB),
            ("deploy/qa/web.yaml", WEB),
            ("deploy/jobs/migrate.yaml", MIGRATE),
            ("src/main.rs", "fn main() {}"),
            ("docs/k8s/prod/web.yaml", WEB),
        ])
        .await;
    let found = world.delivery.discoverer.discover(&claims()).await.unwrap();
    let names: Vec<&str> = found.environments.iter().map(|id| id.environment()).collect();
    assert_eq!(names, ["dev", "qa"]);
    let place = world.delivery.history.place(&environment("dev")).await.unwrap();
    assert_eq!(
        (place.kube_context.as_str(), place.namespace.as_str()),
        ("default", "claims-dev")
    );
}

#[tokio::test]
async fn a_commit_with_dot_k8s_is_not_searched() {
    let world = World::new().await;
    world
        .push_commit(&[(".k8s/live/dev/web.yaml", WEB), ("deploy/qa/web.yaml", WEB)])
        .await;
    let before = world.forge.calls("files");
    let found = world.delivery.discoverer.discover(&claims()).await.unwrap();
    assert_eq!(found.environments, [environment("dev")]);
    assert_eq!(world.forge.calls("files") - before, 1);
}

/// A request with a project file, and the manifests of `flat/`.
fn declared(project_file: &str) -> LaptopRequest {
    LaptopRequest {
        tag: Some("latest".into()),
        files: vec![
            file("flat/web.yaml", WEB),
            file("flat/settings.yaml", SETTINGS),
            file("once/migrate.yaml", MIGRATE),
            file("often/vacuum.yaml", VACUUM),
        ],
        project_file: Some(project_file.into()),
        ..LaptopRequest::default()
    }
}

#[tokio::test]
async fn a_table_makes_an_environment_of_any_folder() {
    let world = World::new().await;
    world.push_image("app-latest");
    let text = "[environments.blue]\nkube_context = \"live\"\nnamespace = \"shop-blue\"\npath = \"flat\"\njobs = \"once\"\ncron_jobs = \"often\"\n";
    let plan = world.planned("blue", declared(text)).await.unwrap();
    assert_eq!(plan.blockers, Vec::<String>::new());
    assert_eq!(
        (plan.place.kube_context.as_str(), plan.place.namespace.as_str()),
        ("live", "shop-blue")
    );
    let mut names: Vec<String> = plan.objects.iter().map(|object| object.id().to_string()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "ConfigMap/settings",
            "ConfigMap/web",
            "CronJob/vacuum-db",
            "Deployment/web"
        ]
    );
    let request = LaptopRequest {
        name: Some("migrate".into()),
        ..declared(text)
    };
    world
        .delivery
        .runs
        .start_job(&environment("blue"), request, &ann())
        .await
        .unwrap();

    let error = world.planned("green", declared(text)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(
        error.to_string(),
        "there is no environment `green`: there are blue, which `towpath.toml` lists"
    );
}

#[tokio::test]
async fn a_table_that_leads_nowhere_stops_its_environment_and_no_other() {
    let world = World::new().await;
    world.push_image("app-latest");
    let text = "[environments.blue]\npath = \"flat\"\n[environments.green]\npath = \"flut\"\n";
    let error = world.planned("green", declared(text)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let said = error.to_string();
    assert!(
        said.contains("`flut` has no YAML file") && said.contains("towpath.toml:4:8"),
        "{said}"
    );
    world.planned("blue", declared(text)).await.unwrap();
}

#[tokio::test]
async fn a_promotion_out_of_order_is_pointed_out() {
    let world = World::new().await;
    world.push_image("app-latest");
    world.deploy("dev", "latest").await;
    let promotion = |after: &str| LaptopRequest {
        tag: None,
        from: Some("dev".into()),
        project_file: Some(format!("[environments.qa]\nafter = \"{after}\"\n")),
        ..request("latest")
    };
    let plan = world.planned("qa", promotion("production")).await.unwrap();
    assert!(
        plan.warnings
            .contains(&"qa comes after production (towpath.toml:2:9), and this promotes from dev".to_string()),
        "{:?}",
        plan.warnings
    );
    let plan = world.planned("qa", promotion("dev")).await.unwrap();
    assert!(
        !plan.warnings.iter().any(|warning| warning.contains("comes after")),
        "{:?}",
        plan.warnings
    );
    assert!(ProjectFile::parse("[environments.qa]\nafter = [\"dev\"]\n").is_err());
}

/// A chart and overlays outside of any folder that is named after manifests, and a folder that is.
const SOURCES: &[(&str, &str)] = &[
    ("ops/chart/Chart.yaml", "apiVersion: v2\nname: shop\nversion: 0.1.0\n"),
    ("ops/chart/templates/web.yaml", WEB),
    ("ops/values.yaml", "a: 1\n"),
    ("ops/values-qa.yaml", "a: 1\n"),
    ("ops/values-dev.yaml", "a: 1\n"),
];
const OVERLAYS: &[(&str, &str)] = &[
    ("ops/overlays/qa/kustomization.yaml", "resources: [web.yaml]\n"),
    ("ops/overlays/qa/web.yaml", WEB),
];
const FOLDERS: &[(&str, &str)] = &[("deploy/qa/web.yaml", WEB)];

/// What the gate of `dev` says if a commit of `files` has a link to nothing, or a submodule, at `path`.
async fn said_of(files: &[(&str, &str)], path: &str, is_submodule: bool) -> String {
    let world = World::new().await;
    world.push_commit(files).await;
    let project = claims();
    let draft = world.forge.commit_to(&project, "main").message("Break it");
    let commit = match is_submodule {
        true => draft.submodule(path).push(),
        false => draft.link(path, "nowhere").push(),
    };
    let flow = world.workflow(&commit).await;
    let gate = world.delivery.gates.refresh(flow.hold.id).await.unwrap();
    assert_eq!(gate.plan, None, "{path}");
    gate.plan_error.unwrap()
}

#[tokio::test]
async fn what_a_commit_does_not_hold_stops_the_environment_that_needs_it() {
    for (files, path) in [
        (SOURCES, "ops/values.yaml"),
        (SOURCES, "ops/values-dev.yaml"),
        (OVERLAYS, "ops/overlays/dev/kustomization.yaml"),
        (OVERLAYS, "ops/overlays/dev"),
        (FOLDERS, "deploy/dev/web.yaml"),
        (FOLDERS, "deploy/dev"),
        (&[], "k8s"),
    ] {
        let said = said_of(files, path, false).await;
        let expect = format!("error[manifest::unread]: `{path}` is a link to `nowhere`, and there is nothing");
        assert!(said.contains(&expect), "{path}: {said}");
    }
    for (files, path) in [(OVERLAYS, "ops/overlays/dev"), (FOLDERS, "deploy/dev"), (&[], "k8s")] {
        let said = said_of(files, path, true).await;
        let expect = format!("error[manifest::unread]: `{path}` is a git submodule");
        assert!(said.contains(&expect), "{path}: {said}");
    }
    let said = said_of(FOLDERS, "vendor/library", true).await;
    assert!(said.contains("there is no environment `dev`: there are qa"), "{said}");
}
