//! Authentication, and how changes and refusals look from outside.

use super::world::{ADDRESS, BUILD, GATE, RELEASE, World, plan};
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use towpath_control::Grant;
use towpath_types::{JobStatus, NodeId};

#[tokio::test]
async fn a_stranger_is_told_how_to_sign_in() {
    let world = World::start().await;
    let ask = async |path: &str| world.ask_as(&[], Method::GET, path, None).await;
    let (status, text) = ask("/api/towpath/board").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(text.contains("sign in"), "{text}");
    let (status, _) = ask(&format!("/gates/{GATE}")).await;
    assert_eq!(status, StatusCode::SEE_OTHER, "a page leads to the sign-in");
    assert_eq!(ask("/login").await.0, StatusCode::OK);
    // Compiling costs processor time, so no other site's page may trigger it.
    for path in [
        "/api/v2/compile-config-with-defaults",
        "/api/v3/configs/compile",
        "/graphql-unstable",
    ] {
        let body = json!({ "config_yaml": "version: 2.1", "query": "{ orbs { totalCount } }" });
        let evil = [("origin", "http://evil.example")];
        let (status, text) = world.ask_as(&evil, Method::POST, path, Some(body)).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        assert!(text.contains("sign in"), "{text}");
    }
    let wrong = [("circle-token", "tp.owner.00")];
    let (status, _) = world.ask_as(&wrong, Method::GET, "/api/v2/me", None).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let registry = world.system.identity.issue(&Grant::Pull {
        project: "claims".into(),
    });
    let other = [("circle-token", registry.expose())];
    let (status, _) = world.ask_as(&other, Method::GET, "/api/v2/me", None).await;
    assert_eq!(
        status,
        StatusCode::UNAUTHORIZED,
        "a registry's token is not the owner's"
    );
}

/// Signs a browser in. Returns the cookie as the browser sends it, and the whole `Set-Cookie`.
async fn sign_in(world: &World) -> (String, String) {
    let body = format!("token={}", world.system.owner_token().expose());
    let answer = world.form("/login", &[], &body).await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    let set = answer.headers()["set-cookie"].to_str().unwrap().to_string();
    (set.split(';').next().unwrap().to_string(), set)
}

#[tokio::test]
async fn a_session_changes_something_only_from_our_own_page() {
    let world = World::start().await;
    let (cookie, _) = sign_in(&world).await;
    let path = format!("/api/towpath/gates/{GATE}/approve");
    let approve = async |origin: &str| {
        let headers = [("cookie", cookie.as_str()), ("origin", origin)];
        world
            .ask_as(&headers, Method::POST, &path, Some(json!({ "plan": "x" })))
            .await
    };
    for origin in ["http://evil.example", "http://127.0.0.1:8080", "null"] {
        let (status, text) = approve(origin).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{origin}: {text}");
    }
    let (status, text) = approve(&format!("http://{ADDRESS}")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
    assert!(text.contains("does not name a plan"), "{text}");
}

#[tokio::test]
async fn every_sign_in_is_a_session_of_its_own_that_can_be_ended() {
    let world = World::start().await;
    let (one, set) = sign_in(&world).await;
    let (other, _) = sign_in(&world).await;
    assert_ne!(one, other, "two sign-ins have one cookie");
    let instance = &world.system.store.instance()[..8];
    assert!(set.starts_with(&format!("towpath_session_{instance}=")), "{set}");
    for part in ["; Path=/towpath;", "; HttpOnly", "; SameSite=Strict", "; Max-Age="] {
        assert!(set.contains(part), "{set}");
    }
    assert!(!set.contains(world.system.owner_token().expose()));
    let looks = async |cookie: &str| {
        let headers = [("cookie", cookie)];
        world.ask_as(&headers, Method::GET, "/towpath", None).await.0
    };
    assert_eq!(
        (looks(&one).await, looks(&other).await),
        (StatusCode::OK, StatusCode::OK)
    );
    let from_us = ("origin", format!("http://{ADDRESS}"));
    let sign_out = async |cookie: &str, body: &str| {
        let headers = [("cookie", cookie), (from_us.0, from_us.1.as_str())];
        let answer = world.form("/towpath/logout", &headers, body).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        assert!(answer.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    };
    sign_out(&one, "").await;
    assert_eq!(
        (looks(&one).await, looks(&other).await),
        (StatusCode::SEE_OTHER, StatusCode::OK)
    );
    let (third, _) = sign_in(&world).await;
    sign_out(&third, "everywhere=yes").await;
    assert_eq!(
        (looks(&third).await, looks(&other).await),
        (StatusCode::SEE_OTHER, StatusCode::SEE_OTHER)
    );
}

#[tokio::test]
async fn an_address_without_the_pages_own_path_leads_there() {
    let world = World::start().await;
    for (asked, leads) in [
        ("/", "/towpath"),
        ("/?x=1", "/towpath?x=1"),
        (
            "/projects/claims/pipelines/1?x=y",
            "/towpath/projects/claims/pipelines/1?x=y",
        ),
        ("/towpath", "/login"),
        ("/towpath/gates/1", "/login?to=%2Ftowpath%2Fgates%2F1"),
    ] {
        let answer = world.answer(Method::GET, asked, &[]).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{asked}");
        assert_eq!(answer.headers()["location"], leads, "{asked}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_in_our_words_and_in_circlecis() {
    let world = World::start().await;
    for (path, expected) in [
        ("/api/towpath/gates/nosuch", "there is no gate `nosuch`"),
        ("/api/towpath/environments/claims/nosuch", "no environment `nosuch`"),
        ("/api/towpath/projects/claims/nosuch", ""),
        ("/api/v2/project/gh/acme/claims", "Project not found"),
        ("/api/v2/workflow/nosuch", "there is no workflow `nosuch`"),
    ] {
        let (status, text) = world.ask(Method::GET, path, None).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}: {text}");
        assert!(text.contains(expected), "{path}: {text}");
    }
    let (status, text) = world.ask(Method::GET, "/events?topic=nosuch", None).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(text.contains("`nosuch` is not a topic"), "{text}");
}

#[tokio::test]
async fn many_manifests_are_one_request_and_too_many_are_refused_in_words() {
    let world = World::start().await;
    let path = "/api/towpath/environments/claims/dev/plan";
    let text = "# a comment, as generators write it\n".repeat(150_000);
    let body = |count: usize| {
        let file = |at: usize| json!({ "path": format!(".k8s/local/dev/{at}.yaml"), "text": text });
        json!({ "files": (0..count).map(file).collect::<Vec<_>>() })
    };
    let (status, said) = world.ask(Method::POST, path, Some(body(1))).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    let (status, said) = world.ask(Method::POST, path, Some(body(14))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(said.contains("a request of more than 65 MiB"), "{said}");
}

#[tokio::test]
async fn the_same_statuses_have_our_words_and_circlecis() {
    let world = World::start().await;
    let json = async |path: &str| -> Value {
        let (status, text) = world.ask(Method::GET, path, None).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str(&text).unwrap()
    };
    let ours = json("/api/towpath/jobs/claims/1").await;
    assert_eq!(ours["job"]["status"], "succeeded");
    assert_eq!(ours["steps"][0]["status"], "succeeded");
    let circlecis = json("/api/v2/project/towpath/local/claims/job/1").await;
    assert_eq!(circlecis["status"], "success");
    let gate = json(&format!("/api/towpath/gates/{GATE}")).await;
    assert_eq!(gate["plan"]["id"], json!(plan().digest()));
    assert_eq!(
        gate["environment"],
        json!({ "project": "claims", "environment": "dev" })
    );
    let progress = json(&format!("/api/towpath/releases/{RELEASE}/progress")).await;
    assert_eq!(
        (&progress["lines"], &progress["outcome"]),
        (&json!(["one"]), &json!("succeeded"))
    );
}

/// Every request of the agents' socket, with its body.
fn agents_requests() -> Vec<(Method, &'static str, String)> {
    let report = json!({ "sequence": 0, "report": {
        "type": "job_finished", "outcome": "succeeded", "at": "2026-01-01T00:00:00Z",
    } });
    vec![
        (Method::POST, "/agent/v1/logs/0?offset=0", "all is well\n".into()),
        (Method::POST, "/agent/v1/reports", report.to_string()),
        (Method::GET, "/agent/v1/source", String::new()),
        (Method::GET, "/agent/v1/caches?prefix=v1", String::new()),
        (Method::HEAD, "/agent/v1/caches?key=v1", String::new()),
        (Method::PUT, "/agent/v1/caches?key=v1", "poison".into()),
        (Method::GET, "/agent/v1/workspace", String::new()),
        (Method::PUT, "/agent/v1/workspace/0", "poison".into()),
        (Method::PUT, "/agent/v1/artifacts?path=a", "poison".into()),
        (Method::PUT, "/agent/v1/test-results?path=a.xml", "<testsuite/>".into()),
    ]
}

fn steps_requests() -> Vec<(Method, String, String)> {
    let path = format!("/agent/v1/releases/{RELEASE}/progress");
    vec![
        (
            Method::POST,
            "/agent/v1/deploy".into(),
            json!({ "environment": "dev" }).to_string(),
        ),
        (Method::GET, path, String::new()),
        (Method::GET, "/agent/v1/test-timings".into(), String::new()),
    ]
}

#[tokio::test]
async fn a_steps_token_does_nothing_of_the_agents_and_an_agents_nothing_of_a_step() {
    let world = World::start().await;
    world.change_job(BUILD, |row| row.status = JobStatus::Running).await;
    let node = NodeId::first_attempt(BUILD, 0);
    let step = world.system.identity.issue(&Grant::Step(node));
    for (method, path, body) in agents_requests() {
        let (status, text) = world.ask_as_agent(step.expose(), method, path, &body).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}: {text}");
    }
    let nodes = world.system.store.nodes(BUILD, 1).await.unwrap();
    assert!(nodes.is_empty(), "a step reported for its job: {nodes:?}");
    let agent = world.system.identity.issue(&Grant::Agent(node));
    for (method, path, body) in steps_requests() {
        let (status, text) = world.ask_as_agent(agent.expose(), method, &path, &body).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}: {text}");
    }
}

#[tokio::test]
async fn a_nodes_tokens_die_with_its_lease() {
    let world = World::start().await;
    let node = NodeId::first_attempt(BUILD, 0);
    let agent = world.system.identity.issue(&Grant::Agent(node));
    let step = world.system.identity.issue(&Grant::Step(node));
    let ask_all = async |expected: [StatusCode; 2], when: &str| {
        for (method, path, body) in agents_requests() {
            let (status, text) = world.ask_as_agent(agent.expose(), method, path, &body).await;
            assert_eq!(status, expected[0], "{when}: {path}: {text}");
        }
        for (method, path, body) in steps_requests() {
            let (status, text) = world.ask_as_agent(step.expose(), method, &path, &body).await;
            assert_eq!(status, expected[1], "{when}: {path}: {text}");
        }
    };
    ask_all([StatusCode::GONE; 2], "after its end").await;
    world
        .change_job(BUILD, |row| {
            row.status = JobStatus::Running;
            row.attempt = 2;
        })
        .await;
    ask_all([StatusCode::GONE; 2], "in another attempt").await;
    world
        .change_job(BUILD, |row| {
            row.attempt = 1;
            row.stop_requested = true;
        })
        .await;
    for (method, path, body) in steps_requests() {
        let (status, text) = world.ask_as_agent(step.expose(), method, &path, &body).await;
        assert_eq!(status, StatusCode::GONE, "canceled: {path}: {text}");
    }
    // Its agent may still report the end, once.
    let (_, path, report) = &agents_requests()[1];
    for _ in 0..2 {
        let (status, text) = world.ask_as_agent(agent.expose(), Method::POST, path, report).await;
        assert_eq!(status, StatusCode::NO_CONTENT, "{text}");
    }
    let again = report.replace("\"sequence\":0", "\"sequence\":1");
    let (status, text) = world.ask_as_agent(agent.expose(), Method::POST, path, &again).await;
    assert_eq!(status, StatusCode::GONE, "{text}");
    let (status, _) = world
        .ask_as_agent(agent.expose(), Method::GET, "/agent/v1/workspace", "")
        .await;
    assert_eq!(status, StatusCode::GONE);
}

#[tokio::test]
async fn a_step_reads_the_lines_of_its_own_releases_only() {
    let world = World::start().await;
    world.change_job(BUILD, |row| row.status = JobStatus::Running).await;
    let token = world
        .system
        .identity
        .issue(&Grant::Step(NodeId::first_attempt(BUILD, 0)));
    let path = format!("/agent/v1/releases/{RELEASE}/progress");
    let (status, text) = world.ask_as_agent(token.expose(), Method::GET, &path, "").await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{text}");
    let (status, _) = world.ask_as_agent("nonsense", Method::GET, &path, "").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_push_of_another_ref_is_refused_before_git_accepts_it() {
    let world = World::start().await;
    let under_way = world.system.pushes.begin();
    let token = world.system.identity.issue(&Grant::Hook {
        project: "claims".into(),
        push: under_way.id(),
    });
    let push = |name: &str| format!("by ann\n{} {} {name}\n", "0".repeat(40), "b".repeat(40));
    let ask = async |body: &str| {
        world
            .ask_as_agent(token.expose(), Method::POST, "/hook/pre-receive", body)
            .await
    };
    let (status, text) = ask(&push("refs/notes/x")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(text.contains("neither a branch nor a tag"), "{text}");
    let before = world.system.store.open_triggers().await.unwrap().len();
    let (status, text) = ask(&push("refs/heads/feature")).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    // The server stores the trigger before git learns that the push is accepted.
    assert_eq!(world.system.store.open_triggers().await.unwrap().len(), before + 1);
    // The token is invalid once git is done.
    drop(under_way);
    let (status, text) = ask(&push("refs/heads/later")).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{text}");
    assert_eq!(world.system.store.open_triggers().await.unwrap().len(), before + 1);
}

#[tokio::test]
async fn a_sign_in_that_never_arrives_is_given_up() {
    let world = World::start().await;
    // From here on, time passes by itself when nothing else happens.
    tokio::time::pause();
    let body = futures::stream::pending::<Result<axum::body::Bytes, std::io::Error>>();
    let request = axum::http::Request::builder()
        .method(Method::POST)
        .uri("/login")
        .header("host", super::world::ADDRESS)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(axum::body::Body::from_stream(body))
        .unwrap();
    let response = world.send(request).await;
    assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
    let large = format!("token={}", "x".repeat(64 << 10));
    let response = world.form("/login", &[], &large).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
}
