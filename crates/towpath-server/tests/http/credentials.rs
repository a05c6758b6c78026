//! Which credential may do what. Checks the routes against the table in `SECURITY.md`.

use super::world::{ADDRESS, BUILD, RELEASE, World};
use axum::http::{Method, StatusCode};
use std::collections::BTreeMap;
use towpath_control::Grant;
use towpath_types::{JobStatus, NodeId};

const PAGE: &str = include_str!("../../../../SECURITY.md");

/// A line of the table: the path prefixes that it covers, and a cell for each credential.
struct Line {
    paths: Vec<String>,
    cells: BTreeMap<String, String>,
}

fn table() -> Vec<Line> {
    let mut rows = PAGE.lines().filter_map(|line| {
        let cells = line.strip_prefix('|')?.strip_suffix('|')?.split('|');
        Some(cells.map(|cell| cell.trim().to_string()).collect::<Vec<String>>())
    });
    let header = rows.find(|cells| cells[0] == "requests").unwrap();
    rows.skip(1)
        .take_while(|cells| cells.len() == header.len())
        .map(|cells| Line {
            paths: cells[0].split('`').skip(1).step_by(2).map(str::to_string).collect(),
            cells: header.iter().cloned().zip(cells).skip(1).collect(),
        })
        .collect()
}

/// A request of the line that begins with `path`, and whether it uses the agents' socket.
fn request(path: &str) -> (Method, String, &'static str, bool) {
    let page = |path: &str| (Method::GET, path.to_string(), "", false);
    match path {
        "/api/" => page("/api/v2/me"),
        "/" => page("/towpath"),
        "/login" => page("/login"),
        "/git/" => page("/git/claims.git/info/refs?service=git-upload-pack"),
        "/v2" => page("/v2/claims/tags/list"),
        "/v2/{name}/blobs/uploads/" => (Method::POST, "/v2/claims/blobs/uploads/".into(), "", false),
        "/agent/v1/job" => (Method::GET, "/agent/v1/workspace".into(), "", true),
        "/agent/v1/deploy" => (Method::GET, format!("/agent/v1/releases/{RELEASE}/progress"), "", true),
        "/hook/" => (Method::POST, "/hook/pre-receive".into(), "by ann\n", true),
        other => panic!("no request is known for a line that begins with `{other}`"),
    }
}

fn is_refusal(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::GONE | StatusCode::SEE_OTHER
    )
}

#[tokio::test]
async fn each_credential_does_what_the_table_says() {
    let world = World::start().await;
    world.change_job(BUILD, |row| row.status = JobStatus::Running).await;
    let node = NodeId::first_attempt(BUILD, 0);
    let push = world.system.pushes.begin();
    let issue = |grant: Grant| world.system.identity.issue(&grant).expose().to_string();
    let project = || "claims".to_string();
    let session = world.system.sessions.begin("a test").await.unwrap();
    let instance: String = world.system.store.instance().chars().take(8).collect();
    let cookie = format!("towpath_session_{instance}={}", session.expose());
    let credentials: Vec<(&str, Option<String>)> = vec![
        ("owner", Some(issue(Grant::Owner))),
        ("session", None),
        ("agent", Some(issue(Grant::Agent(node)))),
        ("step", Some(issue(Grant::Step(node)))),
        (
            "images",
            Some(issue(Grant::JobImages {
                project: project(),
                job: BUILD,
                attempt: 1,
            })),
        ),
        ("pull", Some(issue(Grant::Pull { project: project() }))),
        (
            "hook",
            Some(issue(Grant::Hook {
                project: project(),
                push: push.id(),
            })),
        ),
        ("nobody", None),
    ];
    let lines = table();
    assert_eq!(lines.len(), 9);
    for line in &lines {
        let (method, path, body, by_socket) = request(&line.paths[0]);
        for (name, token) in &credentials {
            // The registry of this world has another store, so it cannot see whether the job still runs.
            if *name == "images" && path.starts_with("/v2") {
                continue;
            }
            let status = match by_socket {
                true => {
                    let token = token.clone().unwrap_or_default();
                    world.ask_as_agent(&token, method.clone(), &path, body).await.0
                }
                false => {
                    let bearer = token.as_ref().map(|token| format!("Bearer {token}"));
                    let origin = format!("http://{ADDRESS}");
                    let headers: Vec<(&str, &str)> = match (&bearer, *name) {
                        (Some(bearer), _) => vec![("authorization", bearer.as_str())],
                        (None, "session") => vec![("cookie", cookie.as_str()), ("origin", origin.as_str())],
                        (None, _) => Vec::new(),
                    };
                    world.ask_as(&headers, method.clone(), &path, None).await.0
                }
            };
            let said = match line.cells[*name].as_str() {
                "yes" | "own" => true,
                "–" => false,
                other => panic!("`{other}` is no answer"),
            };
            assert_eq!(!is_refusal(status), said, "{name} asks {method} {path}: {status}");
        }
    }
}

/// The routes' paths in the source: string literals in calls of `route`, and the protocol's constants.
fn routes() -> Vec<String> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut pending = vec![root.join("src")];
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            found.extend(text.split(".route(").skip(1).filter_map(|rest| {
                let rest = rest.trim_start().strip_prefix('"')?;
                Some(rest.split('"').next()?.to_string())
            }));
        }
    }
    let protocol = std::fs::read_to_string(root.join("../towpath-protocol/src/lib.rs")).unwrap();
    let constants = protocol.split(": &str = \"/").skip(1);
    found.extend(constants.map(|rest| format!("/{}", rest.split('"').next().unwrap())));
    found
}

#[test]
fn every_route_has_a_line() {
    let lines = table();
    let known: Vec<&String> = lines.iter().flat_map(|line| &line.paths).collect();
    let routes = routes();
    assert!(routes.len() > 60, "{}", routes.len());
    for route in routes {
        let covered = known.iter().any(|path| match path.as_str() {
            "/" => route == "/",
            path => route.starts_with(path),
        });
        assert!(covered, "no line of SECURITY.md is about `{route}`");
    }
}
