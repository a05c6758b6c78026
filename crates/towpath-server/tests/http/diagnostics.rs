//! A pipeline's diagnostics are rows with a code and a place, and text only where they are shown.

use super::world::{PIPELINE, World};
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use towpath_store::{Commit, Expect, Write};
use towpath_types::PipelineStatus;

const PAGE: &str = "/towpath/projects/claims/pipelines/1";
const OURS: &str = "/api/towpath/projects/claims/pipelines";
const CIRCLECI: &str = "/api/v2/project/towpath/local/claims/pipeline/1";

/// A world whose pipeline has this in its row.
async fn with(diagnostics: Value, status: PipelineStatus) -> World {
    let world = World::start().await;
    let store = &world.system.store;
    let mut row = store.pipeline(PIPELINE).await.unwrap().unwrap();
    let expect = Expect::Version(row.version);
    row.diagnostics = diagnostics;
    row.status = status;
    let commit = Commit::new().with(Write::Pipeline(row, expect));
    store.commit(commit).await.unwrap();
    world
}

async fn get(world: &World, path: &str) -> String {
    let (status, text) = world.ask(Method::GET, path, None).await;
    assert_eq!(status, StatusCode::OK, "{path}: {text}");
    text
}

#[tokio::test]
async fn each_reader_renders_what_is_stored() {
    let stored = json!({
        "version": 1,
        "diagnostics": [
            {
                "code": "config::key", "severity": "error", "message": "`jbos` is not a key", "hint": "did you mean `jobs`?",
                "primary": { "file": ".circleci/config.yml", "line": 7, "column": 1, "text": "jbos:", "indent": 0, "length": 4 },
            },
            { "code": "towpath::gate", "severity": "warning", "message": "a gate was added" },
        ],
    });
    let rendered = "error[config::key]: `jbos` is not a key
 --> .circleci/config.yml:7:1
  |
7 | jbos:
  | ^^^^
hint: did you mean `jobs`?
";
    let world = with(stored, PipelineStatus::Errored).await;
    let ours: Value = serde_json::from_str(&get(&world, OURS).await).unwrap();
    let error = &ours[0]["errors"][0];
    assert_eq!(
        (&error["code"], &error["primary"]["line"]),
        (&json!("config::key"), &json!(7))
    );
    assert_eq!(ours[0]["warnings"][0]["message"], "a gate was added");
    let circleci: Value = serde_json::from_str(&get(&world, CIRCLECI).await).unwrap();
    assert_eq!(circleci["errors"], json!([{ "type": "config", "message": rendered }]));
    let page = get(&world, PAGE).await;
    let shown = rendered.replace('>', "&gt;");
    assert!(
        page.contains(&shown) && page.contains("warning[towpath::gate]: a gate was added"),
        "{page}"
    );
}

#[tokio::test]
async fn a_page_shows_a_pipeline_whose_diagnostics_a_newer_towpath_stored() {
    for status in [PipelineStatus::Errored, PipelineStatus::Created] {
        let world = with(json!({ "version": 2, "findings": [] }), status).await;
        let page = get(&world, PAGE).await;
        assert!(page.contains("a newer Towpath stored these diagnostics"), "{page}");
        assert_eq!(
            page.contains("The configuration does not work"),
            status == PipelineStatus::Errored,
            "{page}"
        );
    }
}
