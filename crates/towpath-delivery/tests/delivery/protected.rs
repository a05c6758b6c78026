//! Protected environments: wherever a release comes from, somebody saw its plan and agreed to it.

use crate::world::*;
use towpath_delivery::{DeliveryError, ErrorKind, LaptopRequest};
use towpath_deploy::fake::Method;
use towpath_store::{Commit, Expect, ReleaseStore as _, RunRow, Store as _, Write};
use towpath_types::{CommitId, Digest, EnvironmentId};

const PRODUCTION: &str = ".k8s/live/production/web.yaml";
/// The project file of a branch that tries to lift the protection.
const OPEN: &str = "[environments.production]\nprotected = false\n";

/// A workflow with a gate and a deployment for `production`.
async fn of_production(world: &World, commit: &CommitId) -> Flow {
    let flow = world.workflow(commit).await;
    for job in [flow.hold.id, flow.deploy.id] {
        world
            .change_job(job, |job| job.environment = Some("production".into()))
            .await;
    }
    let mut gate = world.gate(flow.hold.id).await;
    gate.environment = Some(environment("production"));
    let write = Write::Gate(gate.clone(), Expect::Version(gate.version));
    world.store.commit(Commit::new().with(write)).await.unwrap();
    flow
}

/// The same without the approval in front of the deployment.
async fn without_gate(world: &World, commit: &CommitId) -> Flow {
    let flow = of_production(world, commit).await;
    world
        .change_job(flow.deploy.id, |job| job.requires = vec!["build".into()])
        .await;
    flow
}

async fn deployed_by_job(world: &World, flow: &Flow) -> Result<(), DeliveryError> {
    let releases = &world.delivery.releases;
    releases.deploy_for_job(flow.deploy.id, "production").await.map(drop)
}

async fn releases_of(world: &World, name: &str) -> usize {
    world.store.releases(&environment(name), 10).await.unwrap().len()
}

#[tokio::test]
async fn a_branch_without_the_approval_deploys_nothing() {
    let world = World::new().await;
    world.push_commit(&[(PRODUCTION, WEB)]).await;
    let evil = world.push_branch("evil", &[(PRODUCTION, WEB), ("towpath.toml", OPEN)]);
    let flow = without_gate(&world, &evil).await;
    let error = deployed_by_job(&world, &flow).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(
        error.to_string(),
        format!(
            "production is protected: a pipeline deploys there only commits of the protected branch `main`, and {evil} is on \
             none of them. Merge it first"
        )
    );
    assert_eq!(releases_of(&world, "production").await, 0);
}

#[tokio::test]
async fn a_job_of_the_default_branch_needs_an_approval_too() {
    let world = World::new().await;
    let commit = world.push_commit(&[(PRODUCTION, WEB)]).await;
    let flow = without_gate(&world, &commit).await;
    let error = deployed_by_job(&world, &flow).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let said = error.to_string();
    assert!(
        said.starts_with("production is protected, and nobody approved the plan of job `deploy`. A pipeline that begins now has a gate"),
        "{said}"
    );
    assert_eq!(releases_of(&world, "production").await, 0);
}

#[tokio::test]
async fn what_was_approved_is_released() {
    let world = World::new().await;
    let commit = world.push_commit(&[(PRODUCTION, WEB)]).await;
    let flow = of_production(&world, &commit).await;
    world.approve(flow.hold.id).await;
    deployed_by_job(&world, &flow).await.unwrap();
    assert_eq!(releases_of(&world, "production").await, 1);
}

#[tokio::test]
async fn the_gate_of_a_branch_shows_why_it_stays_shut_and_opens_after_the_merge() {
    let world = World::new().await;
    world.push_commit(&[(PRODUCTION, WEB)]).await;
    let work = world.push_branch("work", &[(PRODUCTION, WEB)]);
    let flow = of_production(&world, &work).await;
    let shown = world.delivery.gates.refresh(flow.hold.id).await.unwrap().plan.unwrap();
    let gates = &world.delivery.gates;
    let error = gates
        .decide_approval(flow.hold.id, Some(&shown), &bob())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("is on none of them. Merge it first"),
        "{error}"
    );
    // A tag with the default branch's name does not merge anything.
    world.forge.set_ref(&claims(), "refs/tags/main", Some(&work));
    assert!(gates.decide_approval(flow.hold.id, Some(&shown), &bob()).await.is_err());
    world.forge.set_ref(&claims(), "refs/tags/main", None);
    world.forge.set_ref(&claims(), "refs/heads/main", Some(&work));
    world.approve(flow.hold.id).await;
    deployed_by_job(&world, &flow).await.unwrap();
}

#[tokio::test]
async fn a_commit_that_left_the_branch_after_the_approval_is_not_released() {
    let world = World::new().await;
    let first = world.push_commit(&[(PRODUCTION, WEB)]).await;
    let commit = world.push_commit(&[("README", "claims")]).await;
    let flow = of_production(&world, &commit).await;
    world.approve(flow.hold.id).await;
    world.forge.set_ref(&claims(), "refs/heads/main", Some(&first));
    let error = deployed_by_job(&world, &flow).await.unwrap_err();
    assert!(error.to_string().contains("is on none of them"), "{error}");
    assert_eq!(releases_of(&world, "production").await, 0);
}

#[tokio::test]
async fn the_default_branch_says_what_is_protected_and_which_branches_are() {
    let world = World::new().await;
    let rules =
        "protected_branches = [\"release\"]\n[environments]\ndev.protected = true\nproduction.protected = false\n";
    world
        .push_commit(&[
            (PRODUCTION, WEB),
            (".k8s/live/dev/web.yaml", WEB),
            ("towpath.toml", rules),
        ])
        .await;
    let protections = &world.delivery.protections;
    for (name, expected) in [("dev", true), ("production", false), ("qa", false)] {
        assert_eq!(
            protections.is_protected(&environment(name)).await.unwrap(),
            expected,
            "{name}"
        );
    }
    let commit = world.push_branch("release", &[(".k8s/live/dev/web.yaml", WEB)]);
    let flow = world.workflow(&commit).await;
    world.approve(flow.hold.id).await;
    world
        .delivery
        .releases
        .deploy_for_job(flow.deploy.id, "dev")
        .await
        .unwrap();
}

#[tokio::test]
async fn while_the_rules_cannot_be_read_everything_is_protected() {
    let world = World::new().await;
    let commit = world
        .push_commit(&[(".k8s/live/dev/web.yaml", WEB), ("towpath.toml", "environments = 1\n")])
        .await;
    assert!(
        world
            .delivery
            .protections
            .is_protected(&environment("dev"))
            .await
            .unwrap()
    );
    world.push_image(&format!("app-{commit}"));
    let request = LaptopRequest {
        tag: Some(commit.to_string()),
        ..request("latest")
    };
    let error = world
        .delivery
        .releases
        .deploy(&environment("dev"), request, &ann())
        .await
        .unwrap_err();
    let said = error.to_string();
    assert!(
        said.starts_with("dev is protected, as every environment is while the default branch's project file cannot be read (towpath.toml:1:"),
        "{said}"
    );
}

#[tokio::test]
async fn without_the_default_branch_everything_is_protected() {
    let world = World::new().await;
    let protected = async || {
        world
            .delivery
            .protections
            .is_protected(&environment("dev"))
            .await
            .unwrap()
    };
    let commit = world.push_commit(&[(".k8s/live/dev/web.yaml", WEB)]).await;
    assert!(!protected().await);
    world.forge.set_ref(&claims(), "refs/heads/other", Some(&commit));
    world.forge.set_ref(&claims(), "refs/heads/main", None);
    assert!(protected().await, "nobody's rules are not no rules");
}

/// The plan attached to an error.
fn shown(error: &DeliveryError) -> Digest {
    assert_eq!(error.kind(), ErrorKind::Conflict);
    error
        .plan()
        .unwrap_or_else(|| panic!("nothing to look at: {error}"))
        .id
        .clone()
}

#[tokio::test]
async fn from_a_laptop_the_plan_is_looked_at_first() {
    let world = World::new().await;
    world.push_image("app-latest");
    let (releases, id) = (&world.delivery.releases, environment("production"));
    let error = releases.deploy(&id, request("latest"), &ann()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "production is protected: look at the plan, and name it by its whole digest"
    );
    let plan = shown(&error);
    assert_eq!(releases_of(&world, "production").await, 0);
    // Warnings may change between showing and doing; actions may not.
    world.note("the cluster is old");
    let agreed = |plan: &Digest| LaptopRequest {
        plan: Some(plan.clone()),
        ..request("latest")
    };
    let begun = releases.deploy(&id, agreed(&plan), &ann()).await.unwrap();
    world.carry_out(begun.id).await;
    let error = releases.deploy(&id, agreed(&plan), &ann()).await.unwrap_err();
    assert!(error.to_string().contains("another release runs there now"), "{error}");
    assert_ne!(shown(&error), plan);
    for made_up in [Digest::of(b"made up"), world.release(begun.id).await.plan] {
        let error = releases.deploy(&id, agreed(&made_up), &ann()).await.unwrap_err();
        shown(&error);
    }
    assert_eq!(releases_of(&world, "production").await, 1);
}

#[tokio::test]
async fn a_laptop_hears_that_its_commit_was_not_merged() {
    let world = World::new().await;
    let merged = world.push_commit(&[(PRODUCTION, WEB)]).await;
    let work = world.push_branch("work", &[(PRODUCTION, WEB)]);
    for (commit, expected) in [
        (&merged, None),
        (
            &work,
            Some(format!("{work} is not a commit of the protected branch `main`")),
        ),
    ] {
        world.push_image(&format!("app-{commit}"));
        let plan = world.planned("production", request(commit.as_str())).await.unwrap();
        assert_eq!(plan.warnings.first(), expected.as_ref());
    }
}

#[tokio::test]
async fn an_image_that_came_in_between_is_not_released() {
    let world = World::new().await;
    world.push_image("app-latest");
    let (releases, id) = (&world.delivery.releases, environment("production"));
    let plan = shown(&releases.deploy(&id, request("latest"), &ann()).await.unwrap_err());
    world.push_image("app-latest");
    let request = LaptopRequest {
        plan: Some(plan),
        ..request("latest")
    };
    let error = releases.deploy(&id, request, &ann()).await.unwrap_err();
    assert!(error.to_string().contains("the image is"), "{error}");
    assert_eq!(releases_of(&world, "production").await, 0);
}

#[tokio::test]
async fn an_open_environment_asks_nothing_but_holds_to_a_plan_that_is_named() {
    let world = World::new().await;
    world.push_image("app-latest");
    let releases = &world.delivery.releases;
    let named = LaptopRequest {
        plan: Some(Digest::of(b"made up")),
        ..request("latest")
    };
    assert!(releases.deploy(&environment("dev"), named, &ann()).await.is_err());
    world.deploy("dev", "latest").await;
}

#[tokio::test]
async fn promoting_and_going_back_are_looked_at_first() {
    let world = World::new().await;
    world.push_image("app-latest");
    world.deploy("dev", "latest").await;
    let (releases, id) = (&world.delivery.releases, environment("production"));
    let promotion = |plan: Option<Digest>| LaptopRequest {
        tag: None,
        from: Some("dev".into()),
        plan,
        ..request("latest")
    };
    let plan = shown(&releases.deploy(&id, promotion(None), &ann()).await.unwrap_err());
    let begun = releases.deploy(&id, promotion(Some(plan)), &ann()).await.unwrap();
    world.carry_out(begun.id).await;
    let mut changed = promotion(None);
    for file in &mut changed.files {
        *file = crate::world::file(&file.path, &file.text_or_nothing().replace("hello", "good day"));
    }
    let plan = shown(&releases.deploy(&id, changed.clone(), &ann()).await.unwrap_err());
    changed.plan = Some(plan);
    let begun = releases.deploy(&id, changed, &ann()).await.unwrap();
    world.carry_out(begun.id).await;
    let error = releases.rollback(&id, None, None, &ann()).await.unwrap_err();
    let plan = shown(&error);
    assert_eq!(releases_of(&world, "production").await, 2);
    let begun = releases.rollback(&id, None, Some(&plan), &ann()).await.unwrap();
    assert_eq!(begun.cause, "rollback to release 1");
}

#[tokio::test]
async fn runs_and_cron_jobs_are_looked_at_first() {
    let world = World::new().await;
    world.push_image("app-latest");
    let (runs, id) = (&world.delivery.runs, environment("production"));
    let job = |plan: Option<Digest>| LaptopRequest {
        name: Some("migrate".into()),
        plan,
        ..request("latest")
    };
    let migration = shown(&runs.start_job(&id, job(None), &ann()).await.unwrap_err());
    let cron_job = |plan: Option<Digest>| {
        let mut request = LaptopRequest {
            name: Some("vacuum-db".into()),
            plan,
            ..request("latest")
        };
        request.files.push(file(".k8s/live/production/vacuum.yaml", VACUUM));
        request
    };
    let applied = shown(&runs.apply_cron_job(&id, cron_job(None), &ann()).await.unwrap_err());
    let target = &world.target;
    assert_eq!((target.calls(Method::Apply), target.calls(Method::RunJob)), (0, 0));
    // Agreeing to one plan is not agreeing to another.
    shown(
        &runs
            .start_job(&id, job(Some(applied.clone())), &ann())
            .await
            .unwrap_err(),
    );
    runs.start_job(&id, job(Some(migration)), &ann()).await.unwrap();
    runs.apply_cron_job(&id, cron_job(Some(applied)), &ann()).await.unwrap();

    let mut deployment = cron_job(None);
    deployment.name = None;
    let releases = &world.delivery.releases;
    let plan = shown(&releases.deploy(&id, deployment.clone(), &ann()).await.unwrap_err());
    deployment.plan = Some(plan);
    let begun = releases.deploy(&id, deployment, &ann()).await.unwrap();
    world.carry_out(begun.id).await;
    for name in ["vacuum-db", "other", "another"] {
        world.apply_cron_job("production", name).await;
    }
    let mut plans = Vec::new();
    for name in ["vacuum-db", "other", "another"] {
        plans.push(shown(&runs.start_cron_job(&id, name, None, &ann()).await.unwrap_err()));
    }
    for (name, plan) in [("vacuum-db", &plans[1]), ("other", &plans[2]), ("another", &plans[0])] {
        shown(&runs.start_cron_job(&id, name, Some(plan), &ann()).await.unwrap_err());
    }
    let begun: RunRow = runs
        .start_cron_job(&id, "vacuum-db", Some(&plans[0]), &ann())
        .await
        .unwrap();
    assert!(begun.object.starts_with("vacuum-db-"), "{}", begun.object);
}

#[tokio::test]
async fn the_same_namespace_in_another_cluster_of_the_default_branch_is_not_protected() {
    let world = World::new().await;
    let in_shop = WEB.replace("  name: web\n", "  name: web\n  namespace: shop\n");
    let dev = [(".k8s/test/dev/web.yaml", in_shop.as_str())];
    world.push_commit(&[(PRODUCTION, in_shop.as_str()), dev[0]]).await;
    world.delivery.discoverer.discover(&claims()).await.unwrap();
    let branch = world.push_branch("feature", &dev);
    let flow = world.workflow(&branch).await;
    world
        .change_job(flow.deploy.id, |job| job.requires = vec!["build".into()])
        .await;
    let begun = world.delivery.releases.deploy_for_job(flow.deploy.id, "dev").await;
    assert_eq!(begun.unwrap().number, 1);
}

/// A world with `dev` and `production` on the default branch, and what becomes of `dev` on a branch that has it at `path`, with
/// `manifest`.
async fn of_a_branch(path: &str, manifest: &str) -> (World, DeliveryError) {
    let world = World::new().await;
    world
        .push_commit(&[(PRODUCTION, WEB), (".k8s/live/dev/web.yaml", WEB)])
        .await;
    world.delivery.discoverer.discover(&claims()).await.unwrap();
    let evil = world.push_branch("evil", &[(path, manifest)]);
    let flow = world.workflow(&evil).await;
    world
        .change_job(flow.deploy.id, |job| job.requires = vec!["build".into()])
        .await;
    let deployed = world.delivery.releases.deploy_for_job(flow.deploy.id, "dev").await;
    (world, deployed.unwrap_err())
}

#[tokio::test]
async fn another_environment_in_the_namespace_of_a_protected_one_is_protected() {
    let disguised = WEB.replace("  name: web\n", "  name: web\n  namespace: claims-production\n");
    let why = "dev is protected, for it shares the namespace `claims-production` with production of claims: a pipeline deploys there";
    // Another kube context may be the same cluster.
    let (_, error) = of_a_branch(".k8s/other/dev/web.yaml", &disguised).await;
    assert!(error.to_string().starts_with(why), "{error}");
    let (world, error) = of_a_branch(".k8s/live/dev/web.yaml", &disguised).await;
    assert!(error.to_string().starts_with(why), "{error}");
    // Promoting from another project's environment does not help either.
    world.push_image("app-latest");
    world
        .images
        .push(&format!("{REGISTRY}/billing").parse().unwrap(), &tag("app-latest"));
    let other = EnvironmentId::new("billing", "dev").unwrap();
    let mut from_laptop = request("latest");
    from_laptop.files = vec![file(".k8s/live/dev/web.yaml", &disguised)];
    let error = world
        .delivery
        .releases
        .deploy(&other, from_laptop, &ann())
        .await
        .unwrap_err();
    shown(&error);
}
