//! The values of Secrets and contexts, which come in as they are.

use crate::world::World;
use axum::http::{Method, StatusCode};
use towpath_secrets::Scope;

const STORE: &[u8] = b"0\x82\x05\xff\0\r\n";

#[tokio::test]
async fn a_secret_is_kept_byte_for_byte() {
    let world = World::start().await;
    for (key, value) in [("store", STORE), ("pem", b"one\ntwo\n"), ("line", b"\n"), ("none", b"")] {
        let path = format!("/api/towpath/environments/claims/dev/secrets/keys/{key}");
        let (status, said) = world.send_bytes(Method::PUT, &path, value).await;
        assert_eq!((status, said.as_str()), (StatusCode::NO_CONTENT, ""), "{key}");
        let kept = world.sealed.reveal(&Scope::secret("claims", "dev", "keys")).unwrap();
        assert_eq!(kept[key].expose(), value, "{key}");
    }
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
