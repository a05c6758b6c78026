//! Hooks and tests of charts.

use crate::world::*;
use towpath_delivery::{ErrorKind, LaptopRequest, PlanView};
use towpath_deploy::{
    HelmRelease,
    fake::{FakeHelm, JobScript},
};
use towpath_manifest::{HookEvent, Object};
use towpath_types::{Outcome, ReleaseStatus};

const CHART: &str = "apiVersion: v2\nname: claims\nversion: 1.0.0\n";

/// A Job or Pod with annotations.
fn hook(kind: &str, name: &str, annotations: &str) -> String {
    let pod = "{restartPolicy: Never, containers: [{name: one, image: claims}]}";
    let (version, spec) = match kind {
        "Job" => ("batch/v1", format!("{{template: {{spec: {pod}}}}}")),
        _ => ("v1", pod.to_string()),
    };
    format!(
        "---\napiVersion: {version}\nkind: {kind}\nmetadata:\n  name: {name}\n  annotations: {{{annotations}}}\nspec: {spec}\n"
    )
}

fn chart(objects: &[String]) -> LaptopRequest {
    let rendered = format!("{WEB}{}", objects.concat());
    LaptopRequest {
        tag: Some("latest".into()),
        files: vec![
            file(".k8s/live/dev/Chart.yaml", CHART),
            file(".k8s/live/dev/rendered.txt", &rendered),
        ],
        ..LaptopRequest::default()
    }
}

fn usual() -> Vec<String> {
    vec![
        hook("Job", "setup", "helm.sh/hook: pre-install"),
        hook(
            "Job",
            "migrate",
            "helm.sh/hook: \"pre-install,pre-upgrade\", helm.sh/hook-weight: \"-1\"",
        ),
        hook("Job", "notify", "helm.sh/hook: post-upgrade"),
        hook("Job", "undo", "helm.sh/hook: pre-rollback"),
        hook("Pod", "probe", "helm.sh/hook: test, helm.sh/hook-weight: \"2\""),
        hook("Pod", "check", "helm.sh/hook: test"),
    ]
}

async fn deploy(world: &World, request: LaptopRequest) -> (towpath_store::ReleaseRow, String) {
    let releases = &world.delivery.releases;
    let begun = releases.deploy(&environment("dev"), request, &ann()).await.unwrap();
    world.carry_out(begun.id).await
}

/// The hooks of the last `apply`, without what makes their names unique.
fn ran(world: &World) -> Vec<String> {
    let Some(last) = world.target.requests(&place("dev")).pop() else {
        return Vec::new();
    };
    let name = |(event, job): &(HookEvent, Object)| {
        let hook = format!("{event} {}", job.name);
        let mut parts: Vec<&str> = hook.split('-').collect();
        parts.remove(parts.len() - 2);
        parts.join("-")
    };
    last.hooks.before.iter().chain(&last.hooks.after).map(name).collect()
}

#[tokio::test]
async fn a_plan_lists_the_hooks_that_its_release_runs() {
    let mut world = World::new().await;
    let _helm = world.with_helm();
    world.push_image("app-latest");
    let plan = PlanView::from(world.planned("dev", chart(&usual())).await.unwrap());
    assert_eq!(plan.blockers, Vec::<String>::new());
    assert_eq!(plan.warnings, Vec::<String>::new());
    let listed: Vec<String> = plan
        .hooks
        .iter()
        .map(|hook| format!("{} {}", hook.event, hook.name))
        .collect();
    assert_eq!(listed, ["pre-install migrate", "pre-install setup"]);
    assert!(
        plan.hooks.iter().all(|hook| hook.image.contains("@sha256:")),
        "{:?}",
        plan.hooks
    );
    let changed: Vec<&str> = plan.changes.iter().map(|change| change.name.as_str()).collect();
    assert_eq!(changed, ["web", "web"], "hooks are no objects of the release");

    deploy(&world, chart(&usual())).await;
    assert_eq!(ran(&world), ["pre-install migrate-pre", "pre-install setup-pre"]);
    world.push_image("app-latest");
    let (second, _) = deploy(&world, chart(&usual())).await;
    assert_eq!(ran(&world), ["pre-upgrade migrate-pre", "post-upgrade notify-post"]);

    // What changes nothing is no release, and runs nothing.
    let releases = &world.delivery.releases;
    let again = releases
        .deploy(&environment("dev"), chart(&usual()), &ann())
        .await
        .unwrap();
    assert_eq!((again.id, again.status), (second.id, ReleaseStatus::Succeeded));

    // A changed hook is a change, even if no object changes.
    let mut other = usual();
    other[1] = other[1].replace("image: claims", "image: claims, args: [fast]");
    let (third, _) = deploy(&world, chart(&other)).await;
    assert_eq!(third.number, 3);

    let rolled_back = releases
        .rollback(&environment("dev"), Some(1), None, &ann())
        .await
        .unwrap();
    world.carry_out(rolled_back.id).await;
    assert_eq!(ran(&world), ["pre-rollback undo-pre"]);
}

#[tokio::test]
async fn a_first_deployment_is_an_upgrade_of_what_helm_has_installed() {
    let mut world = World::new().await;
    let _helm = world.with_helm();
    world.push_image("app-latest");
    let check = async |names: Option<&[&str]>, has_deployed: bool, expected: &str, warns: bool| {
        let release = |name: &&str| HelmRelease {
            name: (*name).to_string(),
            revision: 1,
            status: "deployed".into(),
            revisions: 1,
        };
        let recorded = names.map(|names| names.iter().map(release).collect());
        let helm = FakeHelm { recorded, has_deployed };
        world.target.set_helm(&place("dev"), helm);
        let plan = PlanView::from(world.planned("dev", chart(&usual())).await.unwrap());
        assert_eq!(plan.hooks[0].event.to_string(), expected, "{names:?} {has_deployed}");
        let warnings = plan.warnings.join("\n");
        assert_eq!(warnings.contains("may not list Secrets"), warns, "{warnings}");
    };
    check(Some(&[]), false, "pre-install", false).await;
    check(Some(&["redis"]), false, "pre-install", false).await;
    check(Some(&["redis", "claims"]), false, "pre-upgrade", false).await;
    check(Some(&["other"]), true, "pre-upgrade", false).await;
    check(None, true, "pre-upgrade", false).await;
    check(None, false, "pre-install", true).await;
}

#[tokio::test]
async fn a_hook_that_cannot_run_blocks_by_name() {
    let mut world = World::new().await;
    let _helm = world.with_helm();
    world.push_image("app-latest");
    let objects = [
        hook("Deployment", "helper", "helm.sh/hook: pre-install"),
        hook("Job", "typo", "helm.sh/hook: pre-instal"),
        hook("Job", "goodbye", "helm.sh/hook: pre-delete"),
        hook("ServiceAccount", "robot", "helm.sh/hook: pre-install"),
    ];
    let plan = world.planned("dev", chart(&objects)).await.unwrap();
    let blockers = plan.blockers.join("\n");
    assert!(blockers.contains("Deployment/helper is a Helm hook"), "{blockers}");
    assert!(blockers.contains("Job/typo: `helm.sh/hook: pre-instal`"), "{blockers}");
    let warnings = plan.warnings.join("\n");
    assert!(
        warnings.contains("`goodbye`") && warnings.contains("never runs"),
        "{warnings}"
    );
    assert!(warnings.contains("the ServiceAccount `robot`"), "{warnings}");
    assert!(plan.objects.iter().any(|object| object.name == "robot"));
}

#[tokio::test]
async fn tests_run_only_on_request_as_they_were_released() {
    let mut world = World::new().await;
    let _helm = world.with_helm();
    world.push_image("app-latest");
    let (runs, dev) = (world.delivery.runs.clone(), environment("dev"));
    let error = runs.tests(&dev).await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound),
        "{error}"
    );
    deploy(&world, chart(&usual())).await;
    assert_eq!(runs.tests(&dev).await.unwrap(), ["check", "probe"]);
    let script = JobScript::exits(&["all is well"], 0);
    world.target.script_job(&place("dev"), "probe", script);
    let row = runs.start_test(&dev, "probe", None, &ann()).await.unwrap();
    assert!(
        row.object.starts_with("probe-") && row.image.contains("@sha256:"),
        "{row:?}"
    );
    let (row, said) = world.follow(row.id).await;
    assert_eq!((row.outcome, said.as_str()), (Some(Outcome::Succeeded), "all is well"));
    let error = runs.start_test(&dev, "migrate", None, &ann()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "a hook is no test");
}
