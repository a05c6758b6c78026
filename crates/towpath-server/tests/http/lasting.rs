//! What is still answered, or still arrives, ends with its credential.

use super::world::{ADDRESS, BUILD, PROJECT, RELEASE, World};
use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use bytes::Bytes;
use futures::{SinkExt, StreamExt, channel::mpsc};
use std::{convert::Infallible, time::Duration};
use towpath_control::Grant;
use towpath_store::{Commit, Expect, Topic, Write};
use towpath_types::{JobStatus, NodeId, Outcome, SecretString};

/// Long enough for everything that is to happen.
const BOUND: Duration = Duration::from_secs(15);

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, work).await.expect("it goes on")
}

/// A session, and the cookie of its browser.
async fn session(world: &World) -> (SecretString, String) {
    let token = world.system.sessions.begin("a test").await.unwrap();
    let instance = &world.system.store.instance()[..8];
    let cookie = format!("towpath_session_{instance}={}", token.expose());
    (token, cookie)
}

/// A release of [`BUILD`] that goes on, so that whoever follows it waits.
async fn open_release(world: &World) {
    let mut row = world.system.store.release(RELEASE).await.unwrap().unwrap();
    let expect = Expect::Version(row.version);
    row.status = towpath_types::ReleaseStatus::Applying;
    row.outcome = None;
    row.stopped_at = None;
    row.job = Some(BUILD);
    let write = Write::Release(row, expect);
    world.system.store.commit(Commit::new().with(write)).await.unwrap();
}

fn to(method: Method, path: &str) -> axum::http::request::Builder {
    let builder = Request::builder().method(method).uri(path);
    builder.header(header::HOST, ADDRESS)
}

#[tokio::test]
async fn events_end_with_the_session_that_they_are_for() {
    let world = World::start().await;
    let (one, cookie) = session(&world).await;
    let (_, other) = session(&world).await;
    let open = async |cookie: &str| {
        let request = to(Method::GET, "/towpath/events?topic=gates").header("cookie", cookie);
        let answer = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status(), StatusCode::OK);
        answer.into_body().into_data_stream()
    };
    let (mut ends, mut goes_on) = (open(&cookie).await, open(&other).await);
    world.system.store.announce(&[Topic::Gates]);
    assert!(matches!(within(ends.next()).await, Some(Ok(_))));
    assert!(matches!(within(goes_on.next()).await, Some(Ok(_))));
    world.system.sessions.end(Some(&one)).await.unwrap();
    world.system.store.announce(&[Topic::Gates]);
    assert!(
        !matches!(within(ends.next()).await, Some(Ok(_))),
        "it hears of changes after the sign-out"
    );
    assert!(matches!(within(goes_on.next()).await, Some(Ok(_))));
}

/// The answer to a request that waits when its credential ends. `ask` asks, and ends the credential at a moment. The moment is
/// later each time, until the request has passed the door that would refuse it.
async fn ended_while_it_waits(ask: impl AsyncFn(u32) -> axum::response::Response) {
    within(async {
        let mut yields = 64;
        loop {
            let answer = ask(yields).await;
            let status = answer.status();
            let text = axum::body::to_bytes(answer.into_body(), 1 << 16).await.unwrap();
            let text = String::from_utf8_lossy(&text);
            if status == StatusCode::UNAUTHORIZED && text.contains("has ended") {
                return;
            }
            assert!(status.is_client_error(), "{status}: {text}");
            yields *= 2;
        }
    })
    .await;
}

async fn later(yields: u32) {
    for _ in 0..yields {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_follows_a_release_is_answered_when_the_session_ends() {
    let world = World::start().await;
    open_release(&world).await;
    ended_while_it_waits(async |yields| {
        let (token, cookie) = session(&world).await;
        let path = format!("/api/towpath/releases/{RELEASE}/progress?from=6");
        let request = to(Method::GET, &path).header("cookie", &cookie);
        let follows = world.send(request.body(Body::empty()).unwrap());
        let ends = async {
            later(yields).await;
            world.system.sessions.end(Some(&token)).await.unwrap();
        };
        tokio::join!(follows, ends).0
    })
    .await;
}

#[tokio::test]
async fn a_step_that_follows_its_release_is_answered_when_its_job_is_to_stop() {
    let world = World::start().await;
    open_release(&world).await;
    let token = world
        .system
        .identity
        .issue(&Grant::Step(NodeId::first_attempt(BUILD, 0)));
    ended_while_it_waits(async |yields| {
        let goes_on = |row: &mut towpath_store::JobRow| {
            row.status = JobStatus::Running;
            row.stop_requested = false;
        };
        world.change_job(BUILD, goes_on).await;
        let path = format!("/agent/v1/releases/{RELEASE}/progress?from=6");
        let request = to(Method::GET, &path).header("circle-token", token.expose());
        let follows = world.send_as_agent(request.body(Body::empty()).unwrap());
        let ends = async {
            later(yields).await;
            world.change_job(BUILD, |row| row.stop_requested = true).await;
        };
        tokio::join!(follows, ends).0
    })
    .await;
}

/// The answer to a request of which half the body has arrived when `end` ends its credential.
async fn half_arrived(
    world: &World,
    request: impl FnOnce(Body) -> Request<Body>,
    whole: &'static [u8],
    end: impl Future<Output = ()>,
) -> StatusCode {
    let (mut sender, receiver) = mpsc::channel::<Result<Bytes, Infallible>>(0);
    let answer = async { world.send(request(Body::from_stream(receiver))).await.status() };
    let sends = async {
        let half = Bytes::from_static(&whole[..whole.len() / 2]);
        sender.send(Ok(half)).await.unwrap();
        // There is no room for more until the server has taken the first half.
        std::future::poll_fn(|context| sender.poll_ready(context))
            .await
            .unwrap();
        end.await;
    };
    within(async { tokio::join!(answer, sends).0 }).await
}

#[tokio::test]
async fn a_change_that_arrives_after_its_session_ended_is_not_made() {
    let world = World::start().await;
    let (one, cookie) = session(&world).await;
    let request = |body: Body| {
        to(Method::POST, "/api/towpath/projects")
            .header("cookie", &cookie)
            .header("origin", format!("http://{ADDRESS}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .unwrap()
    };
    let end = async { world.system.sessions.end(Some(&one)).await.unwrap() };
    let status = half_arrived(&world, request, br#"{"name": "late"}"#, end).await;
    assert!(status.is_client_error(), "{status}");
    let late = world.system.store.project(&"late".parse().unwrap()).await.unwrap();
    assert!(late.is_none(), "{late:?}");
}

#[tokio::test]
async fn an_image_that_arrives_after_its_job_ended_is_not_tagged() {
    let world = World::start().await;
    world.change_job(BUILD, |row| row.status = JobStatus::Running).await;
    // The registry checks the head of a request against rows of its own.
    let row = world.system.store.job(BUILD).await.unwrap().unwrap();
    let row = Write::Job(row, Expect::Absent);
    world.registry_rows.commit(Commit::new().with(row)).await.unwrap();
    let images = Grant::JobImages {
        project: PROJECT.into(),
        job: BUILD,
        attempt: 1,
    };
    let token = world.system.identity.issue(&images);
    let put = |body: Body| {
        to(Method::PUT, "/v2/claims/manifests/late")
            .header("circle-token", token.expose())
            .header(header::CONTENT_TYPE, "application/vnd.oci.image.index.v1+json")
            .body(body)
            .unwrap()
    };
    const INDEX: &[u8] = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

    let end = world.change_job(BUILD, |row| row.status = JobStatus::Ended(Outcome::Canceled));
    let status = half_arrived(&world, put, INDEX, end).await;
    assert!(!status.is_success(), "{status}");
    let owner = world.system.owner_token();
    let headers = [("circle-token", owner.expose())];
    let tagged = world.answer(Method::GET, "/v2/claims/manifests/late", &headers).await;
    assert_eq!(tagged.status(), StatusCode::NOT_FOUND);
    // The same manifest is taken while a job goes on.
    world.change_job(BUILD, |row| row.status = JobStatus::Running).await;
    assert_eq!(world.send(put(Body::from(INDEX))).await.status(), StatusCode::CREATED);
}
