//! The client against our registry, against another program's registry, and against misbehaving registries.
#![allow(clippy::unwrap_used)]

mod common;

use axum::{
    Json, Router,
    extract::{Query, Request},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use common::*;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use towpath_images::{ClientError, RegistryClient, Retries};
use towpath_types::{Digest, ImageReference, RegistryCredentials, SecretString};

const PATIENCE: Retries = Retries {
    attempts: 4,
    first_pause: Duration::from_millis(1),
    longest_pause: Duration::from_millis(5),
};

fn client(address: &str, credentials: Option<RegistryCredentials>) -> RegistryClient {
    RegistryClient::new(address, credentials)
        .unwrap()
        .with_retries(PATIENCE)
}

fn credentials(username: &str, password: &str) -> Option<RegistryCredentials> {
    Some(RegistryCredentials {
        username: username.to_string(),
        password: SecretString::new(password.to_string()),
    })
}

fn image(address: &str, rest: &str) -> ImageReference {
    format!("{address}/{rest}").parse().unwrap()
}

/// Serves `answer` on a port of its own.
async fn scripted<F>(answer: impl Fn(String, Request) -> F + Clone + Send + Sync + 'static) -> String
where
    F: Future<Output = Response> + Send + 'static,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let own = address.clone();
    let app = Router::new().fallback(any(move |request: Request| answer(own.clone(), request)));
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// The client's contract with any registry. `push` pushes an image with this layer and returns the digest.
async fn contract(address: &str, credentials: Option<RegistryCredentials>, first: &Digest, second: &Digest) {
    let client = client(address, credentials);
    let at = |rest: &str| image(address, rest);
    assert_eq!(client.resolve(&at("team/app:one")).await.unwrap().as_ref(), Some(first));
    assert_eq!(client.resolve(&at("team/app:none")).await.unwrap(), None);
    assert_eq!(client.resolve(&at("none:one")).await.unwrap(), None);
    let pinned = at("team/app").at(second.clone());
    assert_eq!(client.resolve(&pinned).await.unwrap().as_ref(), Some(second));
    assert_eq!(
        client.resolve(&at("team/app").at(Digest::of(b"?"))).await.unwrap(),
        None
    );

    let manifest = client.manifest(&at("team/app:one")).await.unwrap();
    assert_eq!((&manifest.digest, Digest::of(&manifest.bytes)), (first, first.clone()));
    let missing = client.manifest(&at("team/app:none")).await.unwrap_err();
    assert!(matches!(missing, ClientError::NotFound { .. }), "{missing}");
    assert!(missing.to_string().contains("team/app:none"), "{missing}");

    assert_eq!(client.tag(&pinned, &"moved".parse().unwrap()).await.unwrap(), *second);
    assert_eq!(
        client.resolve(&at("team/app:moved")).await.unwrap().as_ref(),
        Some(second)
    );
    client
        .tag(&at("team/app").at(first.clone()), &"moved".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(
        client.resolve(&at("team/app:moved")).await.unwrap().as_ref(),
        Some(first)
    );

    let mut tags = client.tags(&at("team/app")).await.unwrap();
    tags.sort();
    assert_eq!(tags, ["moved", "one", "two"]);
    let unknown = client.tags(&at("none")).await.unwrap_err();
    assert!(matches!(unknown, ClientError::NotFound { .. }), "{unknown}");
    let other = client.resolve(&"ghcr.io/x:1".parse().unwrap()).await.unwrap_err();
    assert!(matches!(other, ClientError::OtherRegistry { .. }), "{other}");
}

#[tokio::test]
async fn our_registry() {
    let served = serve(Everybody).await;
    let first = served.image("team/app", "one", b"1").await;
    let second = served.image("team/app", "two", b"2").await;
    contract(&served.address, None, &first, &second).await;
}

#[tokio::test]
async fn the_reference_registry() {
    let registry = match towpath_testkit::Registry::start().await.unwrap() {
        Ok(registry) => registry,
        Err(absent) => return towpath_testkit::skipped("the_reference_registry", &absent),
    };
    let address = registry.address().to_string();
    let http = plain_http();

    let mut digests = Vec::new();
    for (tag, layer) in [("one", b"1"), ("two", b"2")] {
        for bytes in [b"{}".as_slice(), layer] {
            let upload = send_to(&http, &address, "POST /v2/team/app/blobs/uploads/", &[], "")
                .await
                .expect(202);
            let place = upload.header("location").replace(&format!("http://{address}"), "");
            let line = format!("PUT {place}&digest={}", Digest::of(bytes));
            send_to(&http, &address, &line, &[], bytes.to_vec()).await.expect(201);
        }
        let bytes = manifest(layer);
        let line = format!("PUT /v2/team/app/manifests/{tag}");
        send_to(&http, &address, &line, &[("content-type", OCI_MANIFEST)], bytes.clone())
            .await
            .expect(201);
        digests.push(Digest::of(&bytes));
    }
    contract(&address, None, &digests[0], &digests[1]).await;
}

#[tokio::test]
async fn tags_on_many_pages() {
    let pages = scripted(|_, request: Request| async move {
        let last = request.uri().query().unwrap_or_default().to_string();
        match last.as_str() {
            "" => (
                [(header::LINK, "</v2/a/tags/list?last=b>; rel=\"next\"")],
                Json(serde_json::json!({"tags": ["a", "b"]})),
            )
                .into_response(),
            "last=b" => Json(serde_json::json!({"name": "a", "tags": ["c"]})).into_response(),
            other => panic!("{other}"),
        }
    })
    .await;
    assert_eq!(
        client(&pages, None).tags(&image(&pages, "a")).await.unwrap(),
        ["a", "b", "c"]
    );
    let empty = scripted(|_, _| async { Json(serde_json::json!({"tags": null})).into_response() }).await;
    assert_eq!(client(&empty, None).tags(&image(&empty, "a")).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn basic_credentials() {
    let served = serve(TwoUsers).await;
    let address = &served.address;
    let pusher = ("authorization", "Basic cHVzaGVyOm9wZW4gc2VzYW1l");
    for bytes in [b"{}".as_slice(), b"layer"] {
        let line = format!("POST /v2/a/blobs/uploads/?digest={}", Digest::of(bytes));
        served.send(&line, &[pusher], bytes.to_vec()).await.expect(201);
    }
    let headers = [pusher, ("content-type", OCI_MANIFEST)];
    served
        .send("PUT /v2/a/manifests/1", &headers, manifest(b"layer"))
        .await
        .expect(201);
    let digest = Digest::of(&manifest(b"layer"));
    let a = image(address, "a:1");

    let good = client(address, credentials("pusher", "open sesame"));
    assert_eq!(good.resolve(&a).await.unwrap(), Some(digest));
    good.tag(&a, &"2".parse().unwrap()).await.unwrap();

    let reader = client(address, credentials("reader", "open sesame"));
    let refused = reader.tag(&a, &"3".parse().unwrap()).await.unwrap_err();
    assert!(
        matches!(refused, ClientError::Forbidden { attempt: "tag", .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains("`reader`"), "{refused}");

    let anonymous = client(address, None).resolve(&a).await.unwrap_err();
    assert!(
        anonymous.to_string().contains("no credentials were given"),
        "{anonymous}"
    );
    let wrong = client(address, credentials("pusher", "hunter2"));
    let refused = wrong.resolve(&a).await.unwrap_err();
    assert!(refused.to_string().contains("credentials of `pusher`"), "{refused}");
    for text in [format!("{refused:?}"), format!("{wrong:?}"), refused.to_string()] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn tokens() {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = asked.clone();
    let registry = scripted(move |own, request: Request| {
        let log = log.clone();
        async move {
            let authorization =
                |headers: &HeaderMap| headers.get("authorization").map(|v| v.to_str().unwrap().to_string());
            let credentials = authorization(request.headers());
            if request.uri().path() == "/token" {
                let query: Query<HashMap<String, String>> = Query::try_from_uri(request.uri()).unwrap();
                log.lock()
                    .unwrap()
                    .push(format!("{} {}", query["service"], query["scope"]));
                if credentials.as_deref() != Some("Basic cHVzaGVyOm9wZW4gc2VzYW1l") {
                    return StatusCode::UNAUTHORIZED.into_response();
                }
                return Json(serde_json::json!({"token": "a-token"})).into_response();
            }
            if credentials.as_deref() == Some("Bearer a-token") {
                return [("docker-content-digest", Digest::of(b"").to_string())].into_response();
            }
            let challenge = format!("Bearer realm=\"http://{own}/token\",service=\"here\",scope=\"repository:a:pull\"");
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
        }
    })
    .await;
    let a = image(&registry, "a:1");
    let good = client(&registry, credentials("pusher", "open sesame"));
    for _ in 0..3 {
        assert_eq!(good.resolve(&a).await.unwrap(), Some(Digest::of(b"")));
    }
    assert_eq!(*asked.lock().unwrap(), ["here repository:a:pull"], "the token is kept");
    let refused = client(&registry, credentials("pusher", "hunter2"))
        .resolve(&a)
        .await
        .unwrap_err();
    assert!(matches!(refused, ClientError::Unauthorized { .. }), "{refused}");

    // The client sends no credentials to a token service without TLS.
    let elsewhere = scripted(|_, _| async {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"http://example.org/token\"")];
        (StatusCode::UNAUTHORIZED, challenge).into_response()
    })
    .await;
    let refused = client(&elsewhere, credentials("a", "b"))
        .resolve(&image(&elsewhere, "a"))
        .await
        .unwrap_err();
    assert!(matches!(refused, ClientError::Malformed { .. }), "{refused}");
}

#[tokio::test]
async fn what_passes_is_tried_again_and_what_does_not_is_not() {
    for (status, attempts) in [(429, 4), (500, 4), (503, 4), (507, 1), (400, 1), (403, 1)] {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = count.clone();
        let registry = scripted(move |_, _| {
            counter.fetch_add(1, Ordering::SeqCst);
            async move {
                let body = Json(serde_json::json!({"errors": [{"code": "SOME", "message": "thing"}]}));
                (StatusCode::from_u16(status).unwrap(), [("retry-after", "3600")], body).into_response()
            }
        })
        .await;
        let refused = client(&registry, None)
            .manifest(&image(&registry, "a:1"))
            .await
            .unwrap_err();
        assert_eq!(count.load(Ordering::SeqCst), attempts, "{status}");
        let text = refused.to_string();
        assert!(
            text.contains("/a:1") && text.contains("SOME thing") && text.contains(&status.to_string()),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_registry_that_recovers() {
    let count = Arc::new(AtomicUsize::new(0));
    let registry = scripted(move |_, _| {
        let attempt = count.fetch_add(1, Ordering::SeqCst);
        async move {
            match attempt {
                0 | 1 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                _ => [("docker-content-digest", Digest::of(b"").to_string())].into_response(),
            }
        }
    })
    .await;
    let resolved = client(&registry, None).resolve(&image(&registry, "a")).await.unwrap();
    assert_eq!(resolved, Some(Digest::of(b"")));
}

#[tokio::test]
async fn connections_that_break() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let accepted = tokio::spawn(async move {
        for _ in 0..4 {
            drop(listener.accept().await.unwrap());
        }
    });
    let broken = client(&address, None)
        .resolve(&image(&address, "a:1"))
        .await
        .unwrap_err();
    assert!(matches!(broken, ClientError::Unreachable { .. }), "{broken}");
    assert!(broken.to_string().contains(&address), "{broken}");
    tokio::time::timeout(Duration::from_secs(10), accepted)
        .await
        .expect("four attempts")
        .unwrap();
}

#[tokio::test]
async fn a_registry_without_head_and_one_that_lies() {
    let no_head = scripted(|_, request: Request| async move {
        if request.method() == "HEAD" {
            return StatusCode::METHOD_NOT_ALLOWED.into_response();
        }
        ([(header::CONTENT_TYPE, OCI_MANIFEST)], manifest(b"x")).into_response()
    })
    .await;
    let client_of = client(&no_head, None);
    let digest = Digest::of(&manifest(b"x"));
    assert_eq!(client_of.resolve(&image(&no_head, "a:1")).await.unwrap(), Some(digest));
    let lied = client_of
        .manifest(&image(&no_head, "a").at(Digest::of(b"?")))
        .await
        .unwrap_err();
    assert!(matches!(lied, ClientError::Malformed { .. }), "{lied}");
}

/// The process has no default crypto provider, and the client does not need one.
#[test]
fn tls_needs_no_default_provider() {
    assert!(rustls::crypto::CryptoProvider::get_default().is_none());
    RegistryClient::new("ghcr.io", None).unwrap();
    assert!(rustls::crypto::CryptoProvider::get_default().is_none());
}
