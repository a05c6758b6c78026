//! A registry on a port of its own, and the tests' requests to it.
#![allow(dead_code, clippy::unwrap_used)] // Each test program uses its part.

use futures::future::BoxFuture;
use http::HeaderMap;
use std::{
    path::Path,
    sync::{Arc, Mutex},
};
use towpath_images::{
    Access, Action, Authorize, Registry, Verdict,
    registry::{NotNoted, PushObserver, PushedManifest},
};
use towpath_types::Digest;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Allows everybody everything.
pub struct Everybody;

impl Authorize for Everybody {
    fn authorize<'a>(&'a self, _: &'a HeaderMap, _: &'a Access) -> BoxFuture<'a, Verdict> {
        Box::pin(async { Verdict::Allowed })
    }
}

/// `pusher` may do everything, `reader` may pull, but nobody may read `hidden`; both have the password `open sesame`.
pub struct TwoUsers;

impl Authorize for TwoUsers {
    fn authorize<'a>(&'a self, headers: &'a HeaderMap, access: &'a Access) -> BoxFuture<'a, Verdict> {
        // `pusher:open sesame` and `reader:open sesame`, as Basic writes them.
        let credentials = headers.get(http::header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let verdict = match credentials {
            Some("Basic cHVzaGVyOm9wZW4gc2VzYW1l") => match &access.repository {
                Some(repository) if repository.as_str() == "hidden" => Verdict::Forbidden,
                _ => Verdict::Allowed,
            },
            Some("Basic cmVhZGVyOm9wZW4gc2VzYW1l") if access.action == Action::Pull => Verdict::Allowed,
            Some("Basic cmVhZGVyOm9wZW4gc2VzYW1l") => Verdict::Forbidden,
            _ => Verdict::Unauthenticated,
        };
        Box::pin(async move { verdict })
    }
}

pub struct Served {
    pub address: String,
    pub registry: Registry,
    pub pushed: Arc<Mutex<Vec<PushedManifest>>>,
    /// Why pushes cannot be recorded, while they cannot.
    pub refusal: Arc<Mutex<Option<NotNoted>>>,
    pub http: reqwest::Client,
    pub dir: tempfile::TempDir,
}

/// Serves a new registry until the test ends.
pub async fn serve(authorize: impl Authorize) -> Served {
    let dir = tempfile::tempdir().unwrap();
    let pushed: Arc<Mutex<Vec<PushedManifest>>> = Arc::default();
    let refusal: Arc<Mutex<Option<NotNoted>>> = Arc::default();
    let (log, refused) = (pushed.clone(), refusal.clone());
    let observer: PushObserver = Arc::new(move |push| {
        if let Some(why) = refused.lock().unwrap().clone() {
            return Err(why);
        }
        log.lock().unwrap().push(push.clone());
        Ok(())
    });
    let registry = Registry::open(dir.path(), Arc::new(authorize), observer).unwrap();
    let address = listen(registry.clone()).await;
    Served {
        address,
        registry,
        pushed,
        refusal,
        http: plain_http(),
        dir,
    }
}

pub async fn listen(registry: Registry) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let app = towpath_images::router(registry);
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// A client without TLS, as no test needs it.
pub fn plain_http() -> reqwest::Client {
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .build()
        .unwrap()
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The code of the first error.
    pub fn code(&self) -> String {
        self.json()["errors"][0]["code"]
            .as_str()
            .unwrap_or_default()
            .to_string()
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Self {
        let answer = self.expect(status);
        assert_eq!(answer.code(), code);
        answer
    }
}

/// Sends `METHOD path`, with headers.
pub async fn send_to(
    http: &reqwest::Client,
    address: &str,
    line: &str,
    headers: &[(&str, &str)],
    body: impl Into<reqwest::Body>,
) -> Answer {
    let (method, path) = line.split_once(' ').unwrap();
    let url = format!("http://{address}{path}");
    let mut request = http.request(method.parse().unwrap(), url).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.bytes().await.unwrap().to_vec(),
    }
}

impl Served {
    pub async fn send(&self, line: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Answer {
        send_to(&self.http, &self.address, line, headers, body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path}"), &[], "").await
    }

    /// Uploads a blob in one request.
    pub async fn blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let line = format!("POST /v2/{repository}/blobs/uploads/?digest={digest}");
        self.send(&line, &[], bytes.to_vec()).await.expect(201);
        digest
    }

    /// Begins an upload. Returns its address.
    pub async fn upload(&self, repository: &str) -> String {
        let answer = self
            .send(&format!("POST /v2/{repository}/blobs/uploads/"), &[], "")
            .await;
        answer.expect(202).header("location").to_string()
    }

    /// Pushes an image whose layer is `layer`.
    pub async fn image(&self, repository: &str, tag: &str, layer: &[u8]) -> Digest {
        self.blob(repository, b"{}").await;
        self.blob(repository, layer).await;
        let bytes = manifest(layer);
        self.put_manifest(repository, tag, OCI_MANIFEST, &bytes)
            .await
            .expect(201);
        Digest::of(&bytes)
    }

    pub async fn put_manifest(&self, repository: &str, reference: &str, media_type: &str, bytes: &[u8]) -> Answer {
        let line = format!("PUT /v2/{repository}/manifests/{reference}");
        self.send(&line, &[("content-type", media_type)], bytes.to_vec()).await
    }

    /// How many files are below a part of the registry's folder.
    pub fn files(&self, part: &str) -> usize {
        count_files(&self.dir.path().join(part))
    }
}

pub fn count_files(dir: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .map(|entry| entry.unwrap().path())
        .map(|path| if path.is_dir() { count_files(&path) } else { 1 })
        .sum()
}

pub fn descriptor(media_type: &str, bytes: &[u8]) -> serde_json::Value {
    serde_json::json!({"mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len()})
}

pub fn manifest(layer: &[u8]) -> Vec<u8> {
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", b"{}"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
    })
    .to_string()
    .into_bytes()
}

/// Says loudly that a test was skipped, or fails where it must not be.
pub fn skipped(reason: &str) {
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "in CI nothing is skipped: {reason}"
    );
    eprintln!("SKIPPED: {reason}");
}
