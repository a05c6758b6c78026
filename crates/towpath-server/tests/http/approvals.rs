//! A gate that deploys opens for anybody who names its plan by the whole digest, through every API.

use super::world::{ADDRESS, PROJECT, World};
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use towpath_control::GateView;
use towpath_forge::RefUpdate;
use towpath_store::{Commit, ImagePush, Write};
use towpath_types::{Actor, CommitId, Via, WorkflowId};

const CONFIG: &str = "version: 2.1
jobs:
  ship:
    docker: [{image: cimg/base:2026.01}]
    steps: [{run: towpath deploy dev}]
  ship-production:
    docker: [{image: cimg/base:2026.01}]
    steps: [{run: towpath deploy production}]
workflows:
  held:
    jobs:
      - hold: {type: approval}
      - ship: {requires: [hold]}
  unheld:
    jobs: [ship-production]
";

const MANIFEST: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {greeting: hello}
";

/// Pushes the commit and its image. Returns the gates that wait then.
async fn gates_of(world: &World) -> Vec<GateView> {
    let system = &world.system;
    let project = PROJECT.parse().unwrap();
    let commit = world
        .forge
        .commit_to(&project, "main")
        .file(".circleci/config.yml", CONFIG)
        .file(".k8s/live/dev/settings.yml", MANIFEST)
        .file(".k8s/live/production/settings.yml", MANIFEST)
        .push();
    let updates = [RefUpdate {
        name: "refs/heads/main".into(),
        old: None,
        new: Some(commit.clone()),
    }];
    let actor = Actor::owner("ada", Via::GitPush);
    system.triggers.announce(&project, &updates, &actor).await.unwrap();
    let triggers = system.triggers.complete(&project, &updates, &actor).await.unwrap();
    let settled = system
        .triggers
        .settled(triggers, std::time::Duration::from_secs(60))
        .await;
    let pipeline = system.queries.pipeline(settled.unwrap()[0].pipeline).await.unwrap();
    for workflow in &pipeline.workflows {
        push_image(world, workflow.id, &commit).await;
    }
    let mut gates = system.queries.gates(Some(&project), 0, 10).await.unwrap();
    gates.retain(|gate| gate.commit == commit);
    gates
}

async fn push_image(world: &World, workflow: WorkflowId, commit: &CommitId) {
    let repository = format!("{ADDRESS}/{PROJECT}").parse().unwrap();
    let tag = format!("app-{commit}");
    let digest = world.images.push(&repository, &tag.parse().unwrap());
    let push = ImagePush {
        project: PROJECT.parse().unwrap(),
        workflow: Some(workflow),
        image: repository.at(digest),
        at: jiff::Timestamp::now(),
    };
    let commit = Commit::new().with(Write::ImagePush(push));
    world.system.store.commit(commit).await.unwrap();
}

#[tokio::test]
async fn a_gate_that_deploys_opens_only_for_a_whole_digest() {
    let world = World::start().await;
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let (system, shutdown) = (world.system.clone(), shutdown.clone());
        async move { system.run(shutdown).await }
    });
    let gates = gates_of(&world).await;
    let mut names: Vec<&str> = gates.iter().map(|gate| gate.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["approve-ship-production", "hold"],
        "a protected environment's deployment holds itself"
    );
    for gate in &gates {
        let job = gate.job;
        let (status, text) = world
            .ask(Method::POST, &format!("/api/towpath/gates/{job}/refresh"), None)
            .await;
        assert_eq!(status, StatusCode::OK, "{text}");
        let shown: Value = serde_json::from_str(&text).unwrap();
        let plan = shown["plan"]["id"]
            .as_str()
            .unwrap_or_else(|| panic!("{text}"))
            .to_string();
        let ours = format!("/api/towpath/gates/{job}/approve");
        let circlecis = format!("/api/v2/workflow/{}/approve/{job}", gate.workflow);
        let part = json!({ "plan": plan[..19] });
        for (path, body, expected) in [
            (&ours, Some(json!({})), StatusCode::CONFLICT),
            (&ours, Some(json!({ "plan": null })), StatusCode::CONFLICT),
            (&ours, Some(part.clone()), StatusCode::BAD_REQUEST),
            (&circlecis, None, StatusCode::CONFLICT),
            (&circlecis, Some(Value::Null), StatusCode::CONFLICT),
            (&circlecis, Some(json!({})), StatusCode::CONFLICT),
            (&circlecis, Some(part), StatusCode::BAD_REQUEST),
            (
                &circlecis,
                Some(json!({ "plan": format!("sha256:{}", "0".repeat(64)) })),
                StatusCode::CONFLICT,
            ),
        ] {
            let (status, text) = world.ask(Method::POST, path, body.clone()).await;
            assert_eq!(status, expected, "{path} {body:?}: {text}");
        }
        let (_, text) = world.ask(Method::POST, &circlecis, None).await;
        assert!(
            text.contains(&plan) && text.contains(&format!("/gates/{job} shows it")),
            "{text}"
        );
        // The whole digest, but not in the form that the page about the API has.
        let wrong = [
            json!([plan]),
            json!(plan),
            json!([{ "plan": plan }]),
            json!({ "plan": [plan] }),
            json!({ "plan": { "plan": plan } }),
            json!(1),
            json!(true),
        ];
        for body in wrong {
            for path in [&ours, &circlecis] {
                let (status, text) = world.ask(Method::POST, path, Some(body.clone())).await;
                assert_eq!(status, StatusCode::BAD_REQUEST, "{path} {body}: {text}");
            }
        }
        let (status, _) = world
            .ask(Method::POST, &circlecis, Some(json!({ "digest": plan })))
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        for form in ["", "plan="] {
            let (status, text) = world.submit(&format!("/gates/{job}/approve"), form).await;
            assert_eq!(status, StatusCode::CONFLICT, "{form:?}: {text}");
        }
        assert!(world.system.queries.gate(job).await.unwrap().waiting);
        let (status, text) = world.ask(Method::POST, &circlecis, Some(json!({ "plan": plan }))).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{text}");
        assert!(!world.system.queries.gate(job).await.unwrap().waiting);
    }
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_protected_environment_answers_with_the_plan_to_look_at() {
    let world = World::start().await;
    let repository = format!("{ADDRESS}/{PROJECT}").parse().unwrap();
    world.images.push(&repository, &"app-latest".parse().unwrap());
    let path = "/api/towpath/environments/claims/production/deploy";
    let request = |plan: Value| {
        json!({
            "tag": "latest", "plan": plan, "project_file": null, "commit": null, "name": null,
            "files": [{ "path": ".k8s/live/production/settings.yml", "text": MANIFEST }],
        })
    };
    let (status, text) = world.ask(Method::POST, path, Some(request(Value::Null))).await;
    assert_eq!(status, StatusCode::CONFLICT, "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        answer["message"],
        "production is protected: look at the plan, and name it by its whole digest"
    );
    let plan = answer["plan"]["id"].clone();
    let (status, text) = world
        .ask(
            Method::POST,
            path,
            Some(request(json!(format!("sha256:{}", "0".repeat(64))))),
        )
        .await;
    assert_eq!(status, StatusCode::CONFLICT, "{text}");
    let (status, text) = world.ask(Method::POST, path, Some(request(plan))).await;
    assert_eq!(status, StatusCode::OK, "{text}");
}
