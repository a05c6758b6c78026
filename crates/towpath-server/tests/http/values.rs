//! The values of Secrets and contexts, which come in as they are.

use crate::world::World;
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use towpath_types::EnvironmentId;

const STORE: &[u8] = b"0\x82\x05\xff\0\r\n";

#[tokio::test]
async fn a_secret_is_kept_byte_for_byte() {
    let world = World::start().await;
    let id = EnvironmentId::new("claims", "dev").unwrap();
    for (key, value) in [("store", STORE), ("pem", b"one\ntwo\n"), ("line", b"\n"), ("none", b"")] {
        let path = format!("/api/towpath/environments/claims/dev/secrets/keys/{key}");
        let (status, said) = world.send_bytes(Method::PUT, &path, value).await;
        assert_eq!((status, said.as_str()), (StatusCode::NO_CONTENT, ""), "{key}");
        let kept = world.secrets.value(&id, "keys", key).unwrap();
        assert_eq!(kept.expose(), value, "{key}");
    }
    let path = "/api/towpath/environments/claims/dev/secrets";
    let (status, listed) = world.ask(Method::GET, path, None).await;
    assert_eq!(status, StatusCode::OK);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["kept"]["by"], "people");
    let store = json!({"key": "store", "bytes": 7, "by": listed[0]["keys"][3]["by"], "at": null});
    assert_eq!(listed[0]["keys"][3], store);

    let (status, _) = world.ask(Method::DELETE, &format!("{path}/keys/store"), None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(world.secrets.value(&id, "keys", "store"), None);
    let (status, said) = world.ask(Method::DELETE, &format!("{path}/keys/store"), None).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{said}");
    // An environment that nobody has pushed.
    let path = "/api/towpath/environments/claims/nowhere/secrets/keys/store";
    let (status, said) = world.send_bytes(Method::PUT, path, STORE).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(
        said.contains("project `claims` has no environment `nowhere`") && said.contains("push its manifests first"),
        "{said}"
    );
}

#[tokio::test]
async fn a_variable_of_a_job_is_text() {
    let world = World::start().await;
    let path = "/api/towpath/contexts/keys/STORE";
    let (status, said) = world.send_bytes(Method::PUT, path, STORE).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        said.contains(
            "the value of `STORE` in the context `keys` is not text (UTF-8), so no environment variable can have it"
        ),
        "{said}"
    );
    let (status, said) = world.send_bytes(Method::PUT, path, b"one\ntwo\n").await;
    assert_eq!((status, said.as_str()), (StatusCode::NO_CONTENT, ""));
}
