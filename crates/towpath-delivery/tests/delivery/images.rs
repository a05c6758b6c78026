//! Which image a workflow or a tag means.

use crate::world::*;
use jiff::SignedDuration;
use towpath_delivery::{ErrorKind, Plan, WorkflowJobs};
use towpath_store::{Commit, ImagePush, Store as _, Write};
use towpath_types::{Digest, ImageReference};

async fn planned(world: &World, flow: &Flow) -> Result<Plan, towpath_delivery::DeliveryError> {
    let workflow = WorkflowJobs::load(&world.store, flow.row.id).await.unwrap();
    let id = environment("dev");
    world.delivery.planner.plan_of_workflow(&workflow, "hold", &id).await
}

fn pushed(tag: &str, digest: &Digest) -> ImageReference {
    ImageReference {
        tag: Some(tag.into()),
        digest: Some(digest.clone()),
        ..repository()
    }
}

async fn with_manifests(world: &World) -> towpath_types::CommitId {
    world.push_commit(&[(".k8s/live/dev/web.yaml", WEB)]).await
}

#[tokio::test]
async fn a_workflow_deploys_the_image_that_it_pushed() {
    let world = World::new().await;
    let commit = with_manifests(&world).await;
    let flow = world.workflow(&commit).await;
    // The result does not depend on where the tag points by then.
    let moved = world.push_image(&format!("app-{commit}"));
    let plan = planned(&world, &flow).await.unwrap();
    assert_ne!(plan.images["claims"].digest.as_ref(), Some(&moved));
    assert_eq!(plan.commit, Some(commit));
}

#[tokio::test]
async fn a_workflow_deploys_the_image_that_a_job_before_ran_in() {
    let world = World::new().await;
    let commit = with_manifests(&world).await;
    let flow = world.workflow(&commit).await;
    let tried = world.push_image("tried");
    world
        .change_job(flow.build.id, |job| job.image = Some(pushed("tried", &tried)))
        .await;
    let plan = planned(&world, &flow).await.unwrap();
    assert_eq!(plan.images["claims"], repository().at(tried));
}

#[tokio::test]
async fn a_workflow_without_an_image_says_so() {
    let world = World::new().await;
    let commit = with_manifests(&world).await;
    let flow = world.workflow_without_image(&commit, 1).await;
    let error = planned(&world, &flow).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(
        error.to_string(),
        "this workflow pushed no image of `claims`, so there is nothing to deploy"
    );
}

#[tokio::test]
async fn an_image_in_another_registry_is_found_by_the_commit_in_its_tag() {
    let world = World::new().await;
    let commit = world
        .push_commit(&[
            (".k8s/live/dev/web.yaml", WEB),
            ("towpath.toml", "image = \"r.io/team/claims\"\n"),
        ])
        .await;
    let flow = world.workflow_without_image(&commit, 1).await;
    let missing = planned(&world, &flow).await.unwrap_err().to_string();
    assert!(
        missing.contains(&format!("`r.io/team/claims` has no image tagged app-{commit}")),
        "{missing}"
    );
    let elsewhere: ImageReference = "r.io/team/claims".parse().unwrap();
    let digest = world.images.push(&elsewhere, &tag(&format!("main-{commit}")));
    let plan = planned(&world, &flow).await.unwrap();
    assert_eq!(plan.images["claims"], elsewhere.at(digest.clone()));
    // A job's pushes are stored when it ends, and are fixed from then on.
    let workflow = WorkflowJobs::load(&world.store, flow.row.id).await.unwrap();
    let [found] = world
        .delivery
        .images
        .newly_pushed(&workflow)
        .await
        .unwrap()
        .try_into()
        .unwrap();
    assert_eq!(
        (found.workflow, found.image.digest.as_ref()),
        (Some(flow.row.id), Some(&digest))
    );
    world
        .store
        .commit(Commit::new().with(Write::ImagePush(found)))
        .await
        .unwrap();
    let before = world.images.all_calls();
    assert!(world.delivery.images.newly_pushed(&workflow).await.unwrap().is_empty());
    assert_eq!(world.images.all_calls(), before, "one is enough");
}

#[tokio::test]
async fn without_a_project_file_the_image_is_where_the_manifests_name_it() {
    let world = World::new().await;
    let web = WEB.replace("claims:latest", "r.io/team/cccd:latest");
    let commit = world.push_commit(&[(".k8s/live/dev/web.yaml", &web)]).await;
    let elsewhere: ImageReference = "r.io/team/cccd".parse().unwrap();
    let digest = world.images.push(&elsewhere, &tag(&format!("app-{commit}")));
    let flow = world.workflow_without_image(&commit, 1).await;
    let plan = planned(&world, &flow).await.unwrap();
    assert_eq!(plan.images["claims"], elsewhere.at(digest.clone()));
    assert_eq!((plan.blockers.len(), plan.warnings.len()), (0, 0));
    let workflow = WorkflowJobs::load(&world.store, flow.row.id).await.unwrap();
    let found = world.delivery.images.newly_pushed(&workflow).await.unwrap();
    assert_eq!(found[0].image.digest.as_ref(), Some(&digest));
    // From a laptop, by a tag that pipelines prefix with `app-`.
    let digest = world.images.push(&elsewhere, &tag("app-v1"));
    let mut asked = request("v1");
    asked.files[0] = file(".k8s/live/dev/web.yaml", &web);
    asked.files.truncate(1);
    let plan = world.planned("dev", asked).await.unwrap();
    assert_eq!(plan.images["claims"], elsewhere.at(digest));
}

#[tokio::test]
async fn what_is_no_tag_is_said_with_what_is_one() {
    let world = World::new().await;
    let digest = Digest::of(b"an image");
    for word in [
        format!("claims@{digest}"),
        format!("app-v1@{digest}"),
        digest.to_string(),
        "r.io/team/claims:app-v1".into(),
        String::new(),
    ] {
        let error = world.planned("dev", request(&word)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{word}");
        let text = error.to_string();
        assert!(text.contains(&format!("`{word}` is no tag")), "{text}");
        assert!(text.contains("`app-v1`"), "{text}");
    }
}

#[tokio::test]
async fn a_registry_that_does_not_answer_is_no_registry_without_the_image() {
    let world = World::new().await;
    let commit = world
        .push_commit(&[
            (".k8s/live/dev/web.yaml", WEB),
            ("towpath.toml", "image = \"r.io/team/claims\"\n"),
        ])
        .await;
    let flow = world.workflow_without_image(&commit, 1).await;
    world.images.fail(Some("r.io"), Some("it is away"));
    let error = planned(&world, &flow).await.unwrap_err();
    assert!(error.to_string().contains("has no image tagged"), "{error}");
}

#[tokio::test]
async fn a_push_with_another_token_counts_if_it_came_after_the_workflow_began() {
    let world = World::new().await;
    let commit = with_manifests(&world).await;
    let push = |at| {
        let text = format!("v1-{commit}");
        ImagePush {
            project: claims(),
            workflow: None,
            image: pushed(&text, &world.push_image(&text)),
            at,
        }
    };
    let flow = world.workflow_without_image(&commit, 1).await;
    let workflow = WorkflowJobs::load(&world.store, flow.row.id).await.unwrap();
    let early = push(world.clock.now_minus(SignedDuration::from_secs(1)));
    world
        .store
        .commit(Commit::new().with(Write::ImagePush(early)))
        .await
        .unwrap();
    assert!(world.delivery.images.newly_pushed(&workflow).await.unwrap().is_empty());
    let late = push(world.clock.now_minus(SignedDuration::ZERO));
    world
        .store
        .commit(Commit::new().with(Write::ImagePush(late.clone())))
        .await
        .unwrap();
    let found = world.delivery.images.newly_pushed(&workflow).await.unwrap();
    assert_eq!(
        found,
        [ImagePush {
            workflow: Some(flow.row.id),
            ..late
        }]
    );
}

#[tokio::test]
async fn a_word_means_a_tag_or_a_commit() {
    let world = World::new().await;
    let commit = world.push_commit(&[("README", "claims\n")]).await;
    let main = world.push_image("app-latest");
    let feature = world.push_image("feature-x-latest");
    let of_commit = world.push_image(&format!("feature-x-{commit}"));
    let release = world.push_image("v1.2.3");
    for (word, expect) in [
        ("latest", &main),
        ("main-latest", &main),
        ("feature/x-latest", &feature),
        (commit.as_str(), &of_commit),
        (&commit.as_str()[..9], &of_commit),
        ("v1.2.3", &release),
    ] {
        let planned = world
            .delivery
            .planner
            .plan_of_request(&environment("dev"), request(word))
            .await
            .unwrap_or_else(|error| panic!("{word}: {error}"));
        assert_eq!(planned.images["claims"].digest.as_ref(), Some(expect), "{word}");
    }
}

/// An image that somebody else pushed for a made-up commit must not be mistaken for the intended one.
#[tokio::test]
async fn the_beginning_of_several_commits_is_refused() {
    let world = World::new().await;
    let one = format!("0123456{}", "a".repeat(33));
    let other = format!("0123456{}", "b".repeat(33));
    for commit in [&one, &other] {
        world.push_image(&format!("feature-{commit}"));
        world.push_image(&format!("app-{commit}"));
    }
    let error = world.planned("dev", request("0123456")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("`0123456` may be any of the commits `{one}`, `{other}`: give more of its digits")
    );
    world.planned("dev", request("0123456a")).await.unwrap();
}

#[tokio::test]
async fn without_a_word_the_image_that_runs_is_meant() {
    let world = World::new().await;
    world.push_image("app-latest");
    let mut request = request("latest");
    request.tag = None;
    let id = environment("dev");
    let project = claims();
    world
        .delivery
        .discoverer
        .discover_in(project.as_str(), request.files.clone(), &Default::default())
        .await
        .unwrap();
    let error = world
        .delivery
        .planner
        .plan_of_request(&id, request.clone())
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("nothing was deployed to `dev` yet, so say which image"),
        "{error}"
    );
    let (row, _) = world.deploy("dev", "latest").await;
    world.push_image("app-latest");
    let plan = world.delivery.planner.plan_of_request(&id, request).await.unwrap();
    assert_eq!(plan.images, row.images);
}
