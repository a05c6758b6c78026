//! A project that builds several images: a shop of `vote`, `result` and `worker`, beside somebody else's `redis`.

use crate::world::*;
use towpath_delivery::{DeliveryError, ErrorKind, ImageChange, LaptopRequest, Plan, PlanView, WorkflowJobs};
use towpath_store::{Commit, ImagePush, ReleaseRow, Store as _, Write};
use towpath_types::{Clock as _, CommitId, Digest, ImageReference, Outcome};

const TOML: &str = "[images.vote]
dockerfile = \"vote/Dockerfile\"
[images.result]
dockerfile = \"result/Dockerfile\"
[images.worker]
dockerfile = \"worker/Dockerfile\"
";

fn deployment(name: &str, image: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers:
        - name: {name}
          image: {image}
---
"
    )
}

fn shop() -> String {
    [
        deployment("vote", "claims/vote:latest"),
        // Manifests often leave out where an image is.
        deployment("result", "result"),
        deployment("redis", "redis:7"),
        VACUUM.replace("image: claims", "image: claims/worker"),
    ]
    .concat()
}

fn shop_request(tag: &str) -> LaptopRequest {
    LaptopRequest {
        tag: Some(tag.into()),
        files: vec![
            file(".k8s/live/dev/shop.yaml", &shop()),
            file(".k8s/live/qa/shop.yaml", &shop()),
            file(
                ".k8s/live/jobs/migrate.yaml",
                &MIGRATE.replace("image: claims", "image: claims/worker"),
            ),
        ],
        project_file: Some(TOML.into()),
        ..LaptopRequest::default()
    }
}

fn named(name: &str) -> ImageReference {
    format!("{REGISTRY}/claims/{name}").parse().unwrap()
}

fn push(world: &World, name: &str, tag_text: &str) -> Digest {
    world.images.push(&named(name), &tag(tag_text))
}

fn push_all(world: &World, tag: &str) -> [Digest; 3] {
    ["result", "vote", "worker"].map(|name| push(world, name, tag))
}

async fn deploy(world: &World, environment_name: &str, request: LaptopRequest) -> ReleaseRow {
    let id = environment(environment_name);
    let row = world.delivery.releases.deploy(&id, request, &ann()).await.unwrap();
    let (row, _) = world.carry_out(row.id).await;
    assert_eq!(row.outcome, Some(Outcome::Succeeded), "{:?}", row.message);
    row
}

/// The image of each container of the plan's objects.
fn runs(plan: &Plan) -> Vec<String> {
    let containers = plan.objects.iter().flat_map(towpath_manifest::containers);
    let mut runs: Vec<String> = containers.map(|container| container.image).collect();
    runs.sort();
    runs
}

fn digests<'a>(images: impl IntoIterator<Item = (&'a String, &'a ImageReference)>) -> Vec<(&'a str, Digest)> {
    let digest = |image: &ImageReference| image.digest.clone().unwrap();
    let all = images.into_iter();
    all.map(|(name, image)| (name.as_str(), digest(image))).collect()
}

#[tokio::test]
async fn a_release_names_a_digest_for_each_image_and_leaves_those_of_others() {
    let world = World::new().await;
    let [result, vote, worker] = push_all(&world, "app-latest");
    let redis = world.images.push(&"redis".parse().unwrap(), &tag("7"));
    let plan = world.planned("dev", shop_request("latest")).await.unwrap();
    assert_eq!(
        (plan.blockers.len(), plan.warnings.len()),
        (0, 0),
        "{:?}",
        plan.warnings
    );
    assert_eq!(
        runs(&plan),
        [
            named("result").at(result.clone()).to_string(),
            named("vote").at(vote.clone()).to_string(),
            named("worker").at(worker.clone()).to_string(),
            "redis:7".to_string(),
        ]
    );
    assert_eq!(plan.third_party, [("redis:7".to_string(), Some(redis))].into());
    let release = deploy(&world, "dev", shop_request("latest")).await;
    let expect = [("result", result), ("vote", vote), ("worker", worker)];
    assert_eq!(digests(&release.images), expect);
}

#[tokio::test]
async fn a_plan_says_which_images_change_and_changes_only_what_runs_them() {
    let world = World::new().await;
    let [_, old, _] = push_all(&world, "app-latest");
    deploy(&world, "dev", shop_request("latest")).await;
    let new = push(&world, "vote", "app-latest");
    let plan = world.planned("dev", shop_request("latest")).await.unwrap();
    let changed: Vec<&str> = plan.changes.iter().map(|change| change.name.as_str()).collect();
    assert_eq!(changed, ["vote"]);
    let view = PlanView::from(plan);
    let (from, to) = (named("vote").at(old), named("vote").at(new));
    let changes = view.image_changes();
    assert_eq!(changes["vote"], ImageChange::Changed { from: &from, to: &to });
    assert!(matches!(changes["result"], ImageChange::Same(_)));
    assert!(matches!(changes["worker"], ImageChange::Same(_)));
}

#[tokio::test]
async fn a_tag_that_only_some_images_have_leaves_the_others_as_they_run() {
    let world = World::new().await;
    let commit = world.push_commit(&[("README", "claims\n")]).await;
    push(&world, "vote", &format!("app-{commit}"));
    let error = world.planned("dev", shop_request(commit.as_str())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(
        error.to_string(),
        format!(
            "nothing is tagged `{commit}` of `{REGISTRY}/claims/result`, and `dev` runs none yet that could stay: build it, or \
             deploy a tag that each of the images has"
        )
    );
    let [result, _, worker] = push_all(&world, "app-latest");
    deploy(&world, "dev", shop_request("latest")).await;
    let vote = push(&world, "vote", &format!("app-{commit}"));
    // What stays was built from another commit.
    let older = format!("app-{}", "f".repeat(40));
    world.images.point(&named("worker"), &tag(&older), &worker);
    for word in [commit.as_str(), &format!("app-{commit}"), &commit.as_str()[..8]] {
        let plan = world.planned("dev", shop_request(word)).await.unwrap();
        let expect = [
            ("result", result.clone()),
            ("vote", vote.clone()),
            ("worker", worker.clone()),
        ];
        assert_eq!(digests(&plan.images), expect, "{word}");
        assert_eq!(plan.commit.as_ref(), Some(&commit), "{word}");
        let kept = |name: &str| {
            format!("nothing is tagged `{word}` of `{REGISTRY}/claims/{name}`: `dev` keeps the one that it runs")
        };
        assert_eq!(plan.warnings, [kept("result"), kept("worker")]);
    }
    let error = world.planned("dev", shop_request("v9")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(
        error.to_string(),
        format!(
            "no registry has an image tagged `v9` or `app-v9` of any of `{REGISTRY}/claims/result`, `{REGISTRY}/claims/vote`, \
             `{REGISTRY}/claims/worker`: build them with `towpath build`, or push the commit"
        )
    );
}

#[tokio::test]
async fn of_images_of_several_commits_the_one_pushed_last_is_the_releases() {
    let world = World::new().await;
    let (first, second) = ("b".repeat(40), "a".repeat(40));
    for (name, commit) in [("worker", &first), ("result", &first), ("vote", &second)] {
        let digest = push(&world, name, "app-latest");
        let text = format!("app-{commit}");
        world.images.point(&named(name), &tag(&text), &digest);
        let image = ImageReference {
            tag: Some(text),
            ..named(name).at(digest)
        };
        record(&world, image, None).await;
        world.clock.advance(jiff::SignedDuration::from_secs(1));
    }
    let plan = world.planned("dev", shop_request("latest")).await.unwrap();
    assert_eq!(plan.commit.unwrap().as_str(), second);
}

#[tokio::test]
async fn promotion_and_rollback_take_each_image() {
    let world = World::new().await;
    push_all(&world, "app-latest");
    let first = deploy(&world, "dev", shop_request("latest")).await;
    let mut promote = shop_request("latest");
    (promote.tag, promote.from) = (None, Some("dev".into()));
    push(&world, "vote", "app-latest");
    let qa = deploy(&world, "qa", promote.clone()).await;
    assert_eq!(qa.images, first.images);
    let second = deploy(&world, "dev", shop_request("latest")).await;
    assert_ne!(second.images, first.images);
    let back = world
        .delivery
        .releases
        .rollback(&environment("dev"), None, None, &ann())
        .await;
    let (back, _) = world.carry_out(back.unwrap().id).await;
    assert_eq!(back.images, first.images);
    // The environment that is promoted does not run what this one needs.
    promote.files[1] = file(
        ".k8s/live/qa/shop.yaml",
        &(shop() + &deployment("admin", "claims/admin")),
    );
    let error = world.planned("qa", promote).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "release {} of `dev` names no image of `{REGISTRY}/claims/admin`: deploy there first what has it",
            back.number
        )
    );
}

#[tokio::test]
async fn jobs_and_cron_jobs_run_the_image_of_their_own() {
    let world = World::new().await;
    let [.., worker] = push_all(&world, "app-latest");
    deploy(&world, "dev", shop_request("latest")).await;
    push(&world, "worker", "app-latest");
    let request = LaptopRequest {
        tag: None,
        name: Some("migrate".into()),
        ..shop_request("latest")
    };
    let id = environment("dev");
    let run = world.delivery.runs.start_job(&id, request, &ann()).await.unwrap();
    let image = named("worker").at(worker);
    assert_eq!(run.image, image.to_string());
    // A single cron job that is applied keeps the digest of the release, too.
    let request = LaptopRequest {
        tag: None,
        name: Some("vacuum-db".into()),
        ..shop_request("latest")
    };
    world.delivery.runs.apply_cron_job(&id, request, &ann()).await.unwrap();
    let live = world.target.live(&place("dev"));
    let vacuum = live.iter().find(|object| object.kind == "CronJob").unwrap();
    let applied = vacuum
        .value
        .pointer("/spec/jobTemplate/spec/template/spec/containers/0/image")
        .unwrap();
    assert_eq!(applied.as_str(), Some(image.to_string().as_str()));
    // A job needs only the image that it runs.
    let other = push(&world, "worker", "v2");
    let request = LaptopRequest {
        name: Some("migrate".into()),
        ..shop_request("v2")
    };
    let run = world
        .delivery
        .runs
        .start_job(&environment("qa"), request, &ann())
        .await
        .unwrap();
    assert_eq!(run.image, named("worker").at(other).to_string());
}

#[tokio::test]
async fn without_a_table_the_images_below_the_projects_name_are_the_projects() {
    let world = World::new().await;
    let [_, vote, _] = push_all(&world, "app-latest");
    let request = LaptopRequest {
        files: vec![file(
            ".k8s/live/dev/shop.yaml",
            &(deployment("vote", "claims/vote") + &deployment("redis", "redis:7")),
        )],
        project_file: None,
        ..shop_request("latest")
    };
    let plan = world.planned("dev", request).await.unwrap();
    assert_eq!(digests(&plan.images), [("vote", vote)]);
    assert_eq!(plan.warnings, Vec::<String>::new());
    // Nobody told the digest, and the plan is made all the same.
    assert_eq!(plan.third_party, [("redis:7".to_string(), None)].into());
}

#[tokio::test]
async fn an_image_that_nothing_runs_is_not_needed_and_the_plan_says_so() {
    let world = World::new().await;
    push(&world, "vote", "app-latest");
    let request = LaptopRequest {
        files: vec![file(".k8s/live/dev/shop.yaml", &deployment("vote", "claims/vote"))],
        ..shop_request("latest")
    };
    let plan = world.planned("dev", request).await.unwrap();
    assert_eq!(plan.images.len(), 1);
    let unused = |name: &str| {
        format!(
            "nothing in `dev` runs `{REGISTRY}/claims/{name}`, the image `{name}` of `towpath.toml`, so the release names none"
        )
    };
    assert_eq!(plan.warnings, [unused("result"), unused("worker")]);
}

#[tokio::test]
async fn a_container_that_may_run_several_images_blocks() {
    let world = World::new().await;
    push(&world, "a/web", "app-latest");
    push(&world, "b/web", "app-latest");
    let request = LaptopRequest {
        files: vec![file(".k8s/live/dev/shop.yaml", &deployment("web", "web"))],
        project_file: Some("[images.\"a/web\"]\n[images.\"b/web\"]\n".into()),
        ..shop_request("latest")
    };
    let plan = world.planned("dev", request).await.unwrap();
    assert_eq!(
        plan.blockers,
        [
            ".k8s/live/dev/shop.yaml:12:11: Deployment/web: the container `web` may run any of the images `a/web`, `b/web`: write \
             out the image's repository"
        ]
    );
}

#[tokio::test]
async fn the_digests_of_others_are_asked_for_once() {
    let world = World::new().await;
    push_all(&world, "app-latest");
    let first = world.planned("dev", shop_request("latest")).await.unwrap();
    let before = world.images.calls("resolve");
    world.planned("dev", shop_request("latest")).await.unwrap();
    let each = world.images.calls("resolve") - before;
    world.clock.advance(jiff::SignedDuration::from_mins(11));
    let redis = world.images.push(&"redis".parse().unwrap(), &tag("7"));
    let later = world.planned("dev", shop_request("latest")).await.unwrap();
    assert_eq!(world.images.calls("resolve"), before + 2 * each + 1);
    assert_eq!(later.third_party["redis:7"], Some(redis));
    // Only shown: whoever saw the first plan agreed to the same.
    assert_eq!(first.differences(&later), Vec::<String>::new());
}

#[tokio::test]
async fn pods_pull_each_of_the_projects_images_with_the_secret() {
    let mut world = World::new().await;
    world.pull_with_secret();
    push_all(&world, "app-latest");
    let plan = world.planned("dev", shop_request("latest")).await.unwrap();
    let pulls = plan
        .objects
        .iter()
        .map(|object| (object.name.as_str(), towpath_manifest::pull_secrets(object).len()));
    let mut pulls: Vec<_> = pulls.collect();
    pulls.sort();
    assert_eq!(pulls, [("redis", 0), ("result", 1), ("vacuum-db", 1), ("vote", 1)]);
}

async fn record(world: &World, image: ImageReference, workflow: Option<&Flow>) {
    let push = ImagePush {
        project: claims(),
        workflow: workflow.map(|flow| flow.row.id),
        image,
        at: world.clock.now(),
    };
    let commit = Commit::new().with(Write::ImagePush(push));
    world.store.commit(commit).await.unwrap();
}

/// A commit of the shop, and a workflow of it that pushed the images `names`.
async fn workflow(world: &World, toml: &str, names: &[&str], number: u128) -> (CommitId, Flow) {
    let files = [(".k8s/live/dev/shop.yaml", shop()), ("towpath.toml", toml.to_string())];
    let files = files.each_ref().map(|(path, text)| (*path, text.as_str()));
    let commit = world.push_commit(&files).await;
    let flow = world.workflow_without_image(&commit, number).await;
    for name in names {
        let text = format!("app-{commit}");
        let image = ImageReference {
            digest: Some(push(world, name, &text)),
            tag: Some(text),
            ..named(name)
        };
        record(world, image, Some(&flow)).await;
    }
    (commit, flow)
}

async fn planned(world: &World, flow: &Flow) -> Result<Plan, DeliveryError> {
    let workflow = WorkflowJobs::load(&world.store, flow.row.id).await.unwrap();
    let id = environment("dev");
    world.delivery.planner.plan_of_workflow(&workflow, "hold", &id).await
}

#[tokio::test]
async fn a_workflow_deploys_what_it_pushed_and_what_its_jobs_ran_in() {
    let world = World::new().await;
    let (_, flow) = workflow(&world, TOML, &["result", "vote", "worker"], 1).await;
    // A smoke test ran in one of them.
    let tried = ImageReference {
        tag: Some("tried".into()),
        digest: Some(push(&world, "vote", "tried")),
        ..named("vote")
    };
    world
        .change_job(flow.build.id, |job| job.image = Some(tried.clone()))
        .await;
    let plan = planned(&world, &flow).await.unwrap();
    assert_eq!(plan.images["vote"].digest, tried.digest);
    assert_eq!((plan.images.len(), plan.warnings.len()), (3, 0));
}

#[tokio::test]
async fn a_workflow_that_builds_one_image_leaves_the_others_as_they_run() {
    let world = World::new().await;
    let (_, flow) = workflow(&world, TOML, &[], 1).await;
    let error = planned(&world, &flow).await.unwrap_err().to_string();
    assert!(
        error.starts_with("this workflow built none of the project's images (`127"),
        "{error}"
    );
    let (_, flow) = workflow(&world, TOML, &["vote"], 2).await;
    let error = planned(&world, &flow).await.unwrap_err().to_string();
    assert!(
        error.starts_with("this workflow pushed no image of `127.0.0.1:7070/claims/result`, and `dev` runs none yet"),
        "{error}"
    );
    push_all(&world, "app-latest");
    let runs = deploy(&world, "dev", shop_request("latest")).await;
    let plan = planned(&world, &flow).await.unwrap();
    assert_ne!(plan.images["vote"], runs.images["vote"]);
    for name in ["result", "worker"] {
        assert_eq!(plan.images[name], runs.images[name]);
    }
    let kept = |name: &str| {
        format!("this workflow pushed no image of `{REGISTRY}/claims/{name}`: `dev` keeps the one that it runs")
    };
    assert_eq!(plan.warnings, [kept("result"), kept("worker")]);
}

#[tokio::test]
async fn a_registry_that_does_not_answer_keeps_no_old_image() {
    let world = World::new().await;
    let toml = format!("{TOML}repository = \"r.io/team/worker\"\n");
    let elsewhere: ImageReference = "r.io/team/worker".parse().unwrap();
    push_all(&world, "app-latest");
    world.images.push(&elsewhere, &tag("app-latest"));
    let request = LaptopRequest {
        project_file: Some(toml.clone()),
        files: vec![file(
            ".k8s/live/dev/shop.yaml",
            &(deployment("vote", "claims/vote") + &deployment("worker", "worker")),
        )],
        ..shop_request("latest")
    };
    let shop = request.files[0].text_or_nothing().to_string();
    deploy(&world, "dev", request).await;
    let commit = world
        .push_commit(&[
            (".k8s/live/dev/shop.yaml", shop.as_str()),
            ("towpath.toml", toml.as_str()),
        ])
        .await;
    let flow = world.workflow_without_image(&commit, 1).await;
    let text = format!("app-{commit}");
    let image = ImageReference {
        digest: Some(push(&world, "vote", &text)),
        tag: Some(text.clone()),
        ..named("vote")
    };
    record(&world, image, Some(&flow)).await;
    world.images.fail(Some("r.io"), Some("it is away"));
    let error = planned(&world, &flow).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    world.images.fail(Some("r.io"), None);
    let built = world.images.push(&elsewhere, &tag(&text));
    let plan = planned(&world, &flow).await.unwrap();
    assert_eq!(plan.images["worker"], elsewhere.at(built.clone()));
    // What a job pushed elsewhere is stored when it ends, for each image.
    let workflow = WorkflowJobs::load(&world.store, flow.row.id).await.unwrap();
    let found = world.delivery.images.newly_pushed(&workflow).await.unwrap();
    let found: Vec<_> = found.into_iter().map(|push| push.image.digest).collect();
    assert_eq!(found, [Some(built)]);
}
