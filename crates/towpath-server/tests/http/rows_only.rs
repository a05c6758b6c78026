//! **Invariant:** pages and listings read only rows.

use super::world::{BUILD, GATE, PIPELINE, RELEASE, RUN, WORKFLOW, World, environment};
use axum::http::{Method, StatusCode};
use std::path::Path;

/// Every address that can be read, with data behind it.
fn addresses() -> Vec<String> {
    let [pipeline, workflow, build, gate] = [
        PIPELINE.to_string(),
        WORKFLOW.to_string(),
        BUILD.to_string(),
        GATE.to_string(),
    ];
    vec![
        // Pages.
        "/".into(),
        "/projects/claims/pipelines/1".into(),
        "/projects/claims/jobs/1".into(),
        "/projects/claims/environments/dev".into(),
        format!("/gates/{gate}"),
        format!("/logs/{build}/0/0"),
        format!("/artifacts/{build}/0/out/report"),
        "/login".into(),
        "/assets/towpath.css".into(),
        "/assets/towpath.js".into(),
        // Our own API.
        "/api/towpath/board".into(),
        "/api/towpath/projects".into(),
        "/api/towpath/projects/claims/pipelines".into(),
        "/api/towpath/projects/claims/default-branch".into(),
        "/api/towpath/gates".into(),
        "/api/towpath/gates?project=claims&offset=0&limit=10".into(),
        format!("/api/towpath/gates/{gate}"),
        "/api/towpath/jobs/claims/1".into(),
        format!("/api/towpath/jobs/{build}/log"),
        "/api/towpath/environments/claims/dev".into(),
        "/api/towpath/environments/claims/dev/history".into(),
        "/api/towpath/environments/claims/dev/drift".into(),
        "/api/towpath/environments/claims/dev/runs".into(),
        "/api/towpath/environments/claims/dev/cronjobs".into(),
        "/api/towpath/environments/claims/dev/secrets".into(),
        "/api/towpath/contexts".into(),
        "/api/towpath/context-rules".into(),
        "/api/towpath/work".into(),
        format!("/api/towpath/releases/{RELEASE}/progress"),
        format!("/api/towpath/runs/{RUN}/progress"),
        // CircleCI's API.
        "/api/v2/me".into(),
        "/api/v2/me/collaborations".into(),
        "/api/v2/project/towpath/local/claims".into(),
        "/api/v2/project/towpath/local/claims/pipeline".into(),
        "/api/v2/project/towpath/local/claims/pipeline/1".into(),
        "/api/v2/project/towpath/local/claims/job/1".into(),
        "/api/v2/project/towpath/local/claims/1/artifacts".into(),
        "/api/v2/project/towpath/local/claims/1/tests".into(),
        format!("/api/v2/pipeline/{pipeline}"),
        format!("/api/v2/pipeline/{pipeline}/workflow"),
        format!("/api/v2/pipeline/{pipeline}/config"),
        format!("/api/v2/workflow/{workflow}"),
        format!("/api/v2/workflow/{workflow}/job"),
        "/api/v3/users".into(),
        "/api/v3/orgs".into(),
        "/api/v3/projects".into(),
        "/api/v3/namespaces?filter%5Bname%5D=acme".into(),
        "/api/v3/orb/categories".into(),
        "/api/v3/orb/packages".into(),
    ]
}

/// Routes that can be read but are not among the addresses, with the reason.
const LEFT_OUT: [(&str, &str); 7] = [
    ("/events", "it streams until its reader goes away"),
    ("/git/{repository}/info/refs", "it is git's own"),
    ("/agent/v1/releases/{id}/progress", "agents read it, not people"),
    ("/api/v3/orb/packages/{id}", "it reads the same rows as the list"),
    ("/api/v3/orb/versions", "it reads the same rows as the list"),
    ("/api/v3/orb/versions/{id}", "it reads the same rows as the list"),
    ("/api/v3/orb/versions/{id}/source", "it reads the same rows as the list"),
];

#[tokio::test]
async fn pages_and_listings_ask_nobody() {
    let world = World::start().await;
    let body = serde_json::json!({ "name": "acme" });
    let (status, text) = world.ask(Method::POST, "/api/v3/namespaces", Some(body)).await;
    assert_eq!(status, StatusCode::CREATED, "{text}");
    // Observe the environment as the poller does.
    world.system.delivery.observer.observe(&environment()).await.unwrap();
    assert!(world.calls_outside() > 0, "the fakes count nothing");
    for unreachable in [false, true] {
        if unreachable {
            world.target.set_unreachable(Some("no route to host"));
            world.system.delivery.observer.observe(&environment()).await.unwrap();
        }
        let before = world.calls_outside();
        for address in addresses() {
            let (status, text) = world.ask(Method::GET, &address, None).await;
            assert_eq!(status, StatusCode::OK, "{address}: {text}");
            assert_eq!(world.calls_outside(), before, "`{address}` asked somebody");
        }
        let (_, board) = world.ask(Method::GET, "/", None).await;
        let (_, page) = world.ask(Method::GET, "/projects/claims/environments/dev", None).await;
        for text in [board, page] {
            let is_said = text.contains("unknown since") && text.contains("no route to host");
            assert_eq!(is_said, unreachable, "{text}");
        }
    }
}

/// The paths of the routes in the sources that answer `GET`.
fn routes(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            routes(&path, found);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for route in text.split(".route(").skip(1) {
            let whole = arguments(route);
            let Some((_, rest)) = whole.split_once('"') else {
                continue;
            };
            let Some((route, handlers)) = rest.split_once('"') else {
                continue;
            };
            if handlers.contains("get(") && route.starts_with('/') {
                found.push(route.to_string());
            }
        }
    }
}

/// The arguments of a call, up to its closing parenthesis.
fn arguments(text: &str) -> &str {
    let mut depth = 1;
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..at];
        }
    }
    text
}

fn is_of(address: &str, route: &str) -> bool {
    let path = address.split('?').next().unwrap();
    let (mut parts, pattern) = (path.split('/'), route.split('/'));
    for wanted in pattern {
        if wanted.starts_with("{*") {
            return parts.next().is_some();
        }
        match parts.next() {
            Some(_) if wanted.starts_with('{') => {}
            Some(part) if part == wanted => {}
            _ => return false,
        }
    }
    parts.next().is_none()
}

#[test]
fn no_address_is_forgotten() {
    let mut found = Vec::new();
    routes(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 40, "{found:?}");
    let addresses = addresses();
    let missing: Vec<&String> = found
        .iter()
        .filter(|route| !LEFT_OUT.iter().any(|(left_out, _)| left_out == *route))
        .filter(|route| !addresses.iter().any(|address| is_of(address, route)))
        .collect();
    assert!(missing.is_empty(), "no test reads {missing:?}");
    let known = |route: &str| found.iter().any(|found| found == route);
    for (left_out, _) in LEFT_OUT {
        assert!(known(left_out), "there is no `{left_out}` any more");
    }
}
