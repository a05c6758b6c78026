//! A client for any registry: resolves tags, lists them, and moves them without moving layers.
//!
//! A client talks to one registry, so that credentials cannot leak to another. All its requests are safe to repeat. If a
//! registry is busy or a connection breaks, it retries a limited number of times with growing pauses.
//!
//! It uses TLS, except for loopback addresses. It trusts the authorities that the machine trusts, and those that are configured
//! for the registry.
//!
//! Source: <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>,
//! <https://distribution.github.io/distribution/spec/auth/token/>

mod challenge;
mod error;

pub use error::ClientError;

use crate::{authorities, registry::TagName};
use bytes::{Bytes, BytesMut};
use challenge::{Challenge, challenges};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use towpath_types::{Digest, ImageReference, RegistryCredentials, SecretString, with_causes};
use url::{Host, Url};

/// The most bytes that a manifest, an index, a page of tags or a token may have.
const MAX_ANSWER: usize = 8 * 1024 * 1024;

/// The most pages of tags that are read: with a hundred tags a page, a million tags.
const MAX_PAGES: usize = 10_000;

const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// How often, and after which pauses, to repeat a request that got a temporary refusal (429 and most of 5xx) or no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// The number of attempts, including the first.
    pub attempts: u32,
    /// The pause after the first attempt. Each following pause is twice as long.
    pub first_pause: Duration,
    /// The longest pause, even if the registry asks for a longer one.
    pub longest_pause: Duration,
}

impl Default for Retries {
    /// Five attempts within about eight seconds.
    fn default() -> Self {
        Self {
            attempts: 5,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(20),
        }
    }
}

/// A manifest as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Unchanged, because the digest depends on every byte.
    pub bytes: Bytes,
    /// For example `application/vnd.oci.image.manifest.v1+json`.
    pub media_type: String,
    /// Computed from the bytes.
    pub digest: Digest,
}

/// A client for one registry. Many tasks may use it at once.
#[derive(Debug)]
pub struct RegistryClient {
    registry: String,
    base: Url,
    http: reqwest::Client,
    credentials: Option<RegistryCredentials>,
    retries: Retries,
    /// Keyed by scope: the authorization that the registry last accepted.
    authorizations: Mutex<HashMap<String, Authorization>>,
}

#[derive(Debug, Clone)]
enum Authorization {
    Basic,
    Bearer(SecretString),
}

/// One request to a registry.
struct Ask<'a> {
    /// For messages.
    image: &'a ImageReference,
    attempt: &'static str,
    method: Method,
    url: Url,
    /// The permission that the request needs, for the token service.
    scope: String,
    headers: HeaderMap,
    body: Option<Bytes>,
}

impl RegistryClient {
    /// A client for `registry` (`127.0.0.1:7070`, `ghcr.io`, or `docker.io` for Docker's own). It sends `credentials` to the
    /// registry, and to the token service that the registry names, when they ask for them.
    ///
    /// # Errors
    /// `Address` when `registry` is not a host with or without a port.
    pub fn new(registry: &str, credentials: Option<RegistryCredentials>) -> Result<Self, ClientError> {
        let host = if registry == DOCKER { DOCKER_HOST } else { registry };
        let is_plain = url::Url::parse(&format!("http://{host}/"))
            .ok()
            .is_some_and(|url| is_loopback(&url));
        let scheme = if is_plain { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{host}/v2/"))
            .ok()
            .filter(|url| url.path() == "/v2/" && url.username().is_empty() && url.password().is_none())
            .filter(|url| url.query().is_none() && url.fragment().is_none())
            .ok_or_else(|| ClientError::Address(registry.to_string()))?;
        let setup = |source: Box<dyn std::error::Error + Send + Sync>| ClientError::Setup {
            registry: registry.to_string(),
            source,
        };
        let tls = authorities::tls(registry).map_err(|e| setup(e.into()))?;
        let mut http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("towpath/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_secs(60))
            .redirect(reqwest::redirect::Policy::limited(5));
        if is_plain {
            http = http.no_proxy();
        }
        Ok(Self {
            registry: registry.to_string(),
            base,
            http: http.build().map_err(|e| setup(e.into()))?,
            credentials,
            retries: Retries::default(),
            authorizations: Mutex::default(),
        })
    }

    /// Replaces the default [`Retries`].
    #[must_use]
    pub fn with_retries(mut self, retries: Retries) -> Self {
        self.retries = retries;
        self
    }

    /// The digest of `image`: what its tag (`latest` if it has none) points to now, or its own digest, if it is pinned and the
    /// registry has it. `None` when there is no such repository, tag or manifest.
    ///
    /// # Errors
    /// Any other refusal, or no answer.
    pub async fn resolve(&self, image: &ImageReference) -> Result<Option<Digest>, ClientError> {
        let ask = self.ask_manifest(image, Method::HEAD)?;
        match self.send(&ask).await {
            Ok(response) => {
                let named = response.headers().get("docker-content-digest");
                if let Some(digest) = named.and_then(|value| value.to_str().ok()?.parse::<Digest>().ok()) {
                    self.check_pin(image, &digest)?;
                    return Ok(Some(digest));
                }
            }
            Err(ClientError::NotFound { .. }) => return Ok(None),
            // Some registries do not support HEAD, or leave out the digest.
            Err(ClientError::Refused {
                status: StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED,
                ..
            }) => {}
            Err(e) => return Err(e),
        }
        match self.manifest(image).await {
            Ok(manifest) => Ok(Some(manifest.digest)),
            Err(ClientError::NotFound { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The manifest of `image`: by its digest if it is pinned, else by its tag (`latest` if it has none).
    ///
    /// # Errors
    /// `NotFound` and any other refusal; `Malformed` when the bytes do not match the digest in `image`.
    pub async fn manifest(&self, image: &ImageReference) -> Result<Manifest, ClientError> {
        let ask = self.ask_manifest(image, Method::GET)?;
        let response = self.send(&ask).await?;
        let media_type = response.headers().get(header::CONTENT_TYPE);
        let media_type = media_type.and_then(|value| value.to_str().ok()).map(str::to_string);
        let bytes = self.body(&ask, response).await?;
        let algorithm = image.digest.as_ref().map(Digest::algorithm).unwrap_or_default();
        let digest = algorithm.digest(&bytes);
        self.check_pin(image, &digest)?;
        let media_type = media_type.ok_or_else(|| self.malformed(image, "the manifest has no media type"))?;
        Ok(Manifest {
            bytes,
            media_type,
            digest,
        })
    }

    /// Points `tag`, in the same repository, to `image` and answers the digest. Reads the manifest and writes it back under the
    /// new tag; no layer moves. Safe to repeat.
    ///
    /// # Errors
    /// Like [`RegistryClient::manifest`], and `Forbidden` when the account may read but not push.
    pub async fn tag(&self, image: &ImageReference, tag: &TagName) -> Result<Digest, ClientError> {
        let manifest = self.manifest(image).await?;
        let repository = self.repository(image)?;
        let media_type = HeaderValue::from_str(&manifest.media_type)
            .map_err(|_| self.malformed(image, "the manifest's media type is not text"))?;
        let target = ImageReference {
            tag: Some(tag.to_string()),
            digest: None,
            ..image.clone()
        };
        let ask = Ask {
            image: &target,
            attempt: "tag",
            method: Method::PUT,
            url: self.url(&target, &format!("{repository}/manifests/{tag}"))?,
            scope: format!("repository:{repository}:pull,push"),
            headers: HeaderMap::from_iter([(header::CONTENT_TYPE, media_type)]),
            body: Some(manifest.bytes),
        };
        self.send(&ask).await?;
        Ok(manifest.digest)
    }

    /// The tags of `image`'s repository, in the registry's order.
    ///
    /// # Errors
    /// `NotFound` when there is no such repository; any other refusal, or no answer.
    pub async fn tags(&self, image: &ImageReference) -> Result<Vec<String>, ClientError> {
        #[derive(serde::Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let repository = self.repository(image)?;
        let mut tags = Vec::new();
        let mut ask = Ask {
            image,
            attempt: "list the tags of",
            method: Method::GET,
            url: self.url(image, &format!("{repository}/tags/list"))?,
            scope: format!("repository:{repository}:pull"),
            headers: HeaderMap::new(),
            body: None,
        };
        for _ in 0..MAX_PAGES {
            let response = self.send(&ask).await?;
            let link = response.headers().get(header::LINK);
            let next = link.and_then(|value| next_page(value.to_str().ok()?, &ask.url));
            let bytes = self.body(&ask, response).await?;
            let page: Page = serde_json::from_slice(&bytes)
                .map_err(|e| self.malformed(image, &format!("the list of tags cannot be parsed: {e}")))?;
            tags.extend(page.tags.unwrap_or_default());
            match next {
                Some(next) => ask.url = next,
                None => return Ok(tags),
            }
        }
        Err(self.malformed(image, "the list of tags does not end"))
    }

    fn ask_manifest<'a>(&self, image: &'a ImageReference, method: Method) -> Result<Ask<'a>, ClientError> {
        let repository = self.repository(image)?;
        let reference = match (&image.digest, &image.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        };
        Ok(Ask {
            image,
            attempt: "read",
            method,
            url: self.url(image, &format!("{repository}/manifests/{reference}"))?,
            scope: format!("repository:{repository}:pull"),
            headers: HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(MANIFEST_TYPES))]),
            body: None,
        })
    }

    fn repository(&self, image: &ImageReference) -> Result<String, ClientError> {
        if image.registry.as_deref().unwrap_or(DOCKER) != self.registry {
            return Err(ClientError::OtherRegistry {
                image: image.to_string(),
                registry: self.registry.clone(),
            });
        }
        // Docker's own images have a namespace that people leave out.
        if self.registry == DOCKER && !image.repository.contains('/') {
            return Ok(format!("library/{}", image.repository));
        }
        Ok(image.repository.clone())
    }

    fn url(&self, image: &ImageReference, path: &str) -> Result<Url, ClientError> {
        // After `./`, a name such as `sha256:…` cannot be taken for a scheme.
        self.base
            .join(&format!("./{path}"))
            .map_err(|e| self.malformed(image, &format!("its name does not fit into a URL: {e}")))
    }

    fn check_pin(&self, image: &ImageReference, digest: &Digest) -> Result<(), ClientError> {
        match &image.digest {
            Some(pinned) if pinned != digest => Err(self.malformed(image, &format!("its digest is {digest}"))),
            _ => Ok(()),
        }
    }

    fn malformed(&self, image: &ImageReference, why: &str) -> ClientError {
        ClientError::Malformed {
            registry: self.registry.clone(),
            image: image.to_string(),
            why: why.to_string(),
        }
    }

    fn unreachable(&self, ask: &Ask<'_>, source: reqwest::Error) -> ClientError {
        if towpath_trust::is_distrust(&with_causes(&source)) {
            return ClientError::Untrusted {
                image: ask.image.to_string(),
                attempt: ask.attempt,
                registry: self.registry.clone(),
                source: source.without_url(),
            };
        }
        ClientError::Unreachable {
            image: ask.image.to_string(),
            attempt: ask.attempt,
            registry: self.registry.clone(),
            source: source.without_url(),
        }
    }

    async fn body(&self, ask: &Ask<'_>, mut response: reqwest::Response) -> Result<Bytes, ClientError> {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.unreachable(ask, e))? {
            if bytes.len() + chunk.len() > MAX_ANSWER {
                let why = format!("the answer has more than {MAX_ANSWER} bytes");
                return Err(self.malformed(ask.image, &why));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }

    /// Sends the request until an answer comes that another attempt would not change. Turns refusals into errors.
    async fn send(&self, ask: &Ask<'_>) -> Result<reqwest::Response, ClientError> {
        let mut pause = self.retries.first_pause;
        let mut attempt = 1;
        loop {
            let answer = self.send_authorized(ask).await;
            let may_pass = match &answer {
                Ok(response) => is_passing(response.status()),
                Err(ClientError::Unreachable { .. }) => true,
                // The token service may be busy.
                Err(ClientError::Refused { status, .. }) => is_passing(*status),
                Err(_) => false,
            };
            if !may_pass || attempt >= self.retries.attempts {
                return self.accept(ask, answer?).await;
            }
            let asked_for = answer.as_ref().ok().and_then(retry_after).unwrap_or_default();
            let pause_now = pause.max(asked_for).min(self.retries.longest_pause);
            tracing::debug!(
                image = %ask.image,
                attempt,
                pause_ms = pause_now.as_millis(),
                "the registry did not answer, or asked to wait; trying again"
            );
            tokio::time::sleep(pause_now).await;
            pause = pause.saturating_mul(2);
            attempt += 1;
        }
    }

    async fn accept(&self, ask: &Ask<'_>, response: reqwest::Response) -> Result<reqwest::Response, ClientError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let username = self.credentials.as_ref().map(|c| c.username.clone());
        let image = ask.image.to_string();
        let registry = self.registry.clone();
        let message = self
            .body(ask, response)
            .await
            .map(|body| words(&body))
            .unwrap_or_default();
        Err(match status {
            StatusCode::UNAUTHORIZED => ClientError::Unauthorized {
                registry,
                image,
                status,
                username,
            },
            StatusCode::FORBIDDEN => ClientError::Forbidden {
                registry,
                image,
                attempt: ask.attempt,
                username,
                message,
            },
            StatusCode::NOT_FOUND => ClientError::NotFound { image, message },
            _ => ClientError::Refused {
                image,
                attempt: ask.attempt,
                status,
                message,
            },
        })
    }

    /// Sends the request with the authorization that the registry accepted last for this scope. If the registry asks for
    /// another one, gets it and sends the request again.
    async fn send_authorized(&self, ask: &Ask<'_>) -> Result<reqwest::Response, ClientError> {
        let known = {
            let authorizations = self.authorizations.lock().unwrap_or_else(PoisonError::into_inner);
            authorizations.get(&ask.scope).cloned()
        };
        let response = self.send_once(ask, known.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let asked = challenges(response.headers());
        let authorization = match asked {
            Some(Challenge::Bearer { realm, service, scope }) => {
                let scope = scope.unwrap_or_else(|| ask.scope.clone());
                Authorization::Bearer(self.token(ask, &realm, service.as_deref(), &scope).await?)
            }
            Some(Challenge::Basic) if self.credentials.is_some() => Authorization::Basic,
            _ => return Ok(response),
        };
        let again = self.send_once(ask, Some(&authorization)).await?;
        let mut authorizations = self.authorizations.lock().unwrap_or_else(PoisonError::into_inner);
        if again.status() == StatusCode::UNAUTHORIZED {
            authorizations.remove(&ask.scope);
        } else {
            authorizations.insert(ask.scope.clone(), authorization);
        }
        Ok(again)
    }

    async fn send_once(
        &self,
        ask: &Ask<'_>,
        authorization: Option<&Authorization>,
    ) -> Result<reqwest::Response, ClientError> {
        let mut request = self
            .http
            .request(ask.method.clone(), ask.url.clone())
            .headers(ask.headers.clone());
        request = match (authorization, &self.credentials) {
            (Some(Authorization::Bearer(token)), _) => request.bearer_auth(token.expose()),
            (Some(Authorization::Basic), Some(credentials)) => {
                request.basic_auth(&credentials.username, Some(credentials.password.expose()))
            }
            _ => request,
        };
        if let Some(body) = &ask.body {
            request = request.body(body.clone());
        }
        request.send().await.map_err(|e| self.unreachable(ask, e))
    }

    /// Gets a token from the token service that the registry named.
    async fn token(
        &self,
        ask: &Ask<'_>,
        realm: &str,
        service: Option<&str>,
        scope: &str,
    ) -> Result<SecretString, ClientError> {
        #[derive(serde::Deserialize)]
        struct Answer {
            token: Option<SecretString>,
            access_token: Option<SecretString>,
        }
        let mut url = Url::parse(realm)
            .ok()
            .filter(|url| url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url)))
            .ok_or_else(|| {
                let why = format!("it names a token service that is not reached over TLS: `{realm}`");
                self.malformed(ask.image, &why)
            })?;
        {
            let mut query = url.query_pairs_mut();
            query.extend_pairs(service.map(|service| ("service", service)));
            query.append_pair("scope", scope);
        }
        let mut request = self.http.get(url);
        if let Some(credentials) = &self.credentials {
            request = request.basic_auth(&credentials.username, Some(credentials.password.expose()));
        }
        let response = request.send().await.map_err(|e| self.unreachable(ask, e))?;
        let status = response.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(ClientError::Unauthorized {
                registry: self.registry.clone(),
                image: ask.image.to_string(),
                status,
                username: self.credentials.as_ref().map(|c| c.username.clone()),
            });
        }
        if !status.is_success() {
            return Err(ClientError::Refused {
                image: ask.image.to_string(),
                attempt: "get a token for",
                status,
                message: self.body(ask, response).await.map(|b| words(&b)).unwrap_or_default(),
            });
        }
        let body = self.body(ask, response).await?;
        // Leave the parser's message out: it could quote the token.
        serde_json::from_slice::<Answer>(&body)
            .ok()
            .and_then(|answer| answer.token.or(answer.access_token))
            .ok_or_else(|| self.malformed(ask.image, "the token service answered without a token"))
    }
}

const DOCKER: &str = "docker.io";
const DOCKER_HOST: &str = "registry-1.docker.io";

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        None => false,
    }
}

fn is_passing(status: StatusCode) -> bool {
    // Others, such as a full disk (507), do not pass by themselves.
    matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504)
}

/// The pause that the registry asks for, if it gives it in seconds.
fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?;
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// The address with `rel="next"`, if it is on the same registry.
fn next_page(link: &str, current: &Url) -> Option<Url> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = parameters.contains("rel=\"next\"") || parameters.contains("rel=next");
    let next = current.join(target).ok()?;
    (is_next && next.origin() == current.origin()).then_some(next)
}

/// The registry's message: its first error, or the beginning of its text.
fn words(body: &[u8]) -> String {
    let text = serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|answer| {
            let first = answer.get("errors")?.get(0)?;
            let part = |name: &str| first.get(name).and_then(|v| v.as_str()).unwrap_or_default();
            Some(format!("{} {}", part("code"), part("message")))
        });
    let text = text.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(300).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn where_a_registry_is() {
        for (registry, expect) in [
            ("127.0.0.1:7070", Some("http://127.0.0.1:7070/v2/")),
            ("127.8.8.8", Some("http://127.8.8.8/v2/")),
            ("localhost:5000", Some("http://localhost:5000/v2/")),
            ("[::1]:5000", Some("http://[::1]:5000/v2/")),
            ("ghcr.io", Some("https://ghcr.io/v2/")),
            ("10.0.0.1:5000", Some("https://10.0.0.1:5000/v2/")),
            ("localhost.example.org", Some("https://localhost.example.org/v2/")),
            ("docker.io", Some("https://registry-1.docker.io/v2/")),
            ("a/b", None),
            ("user:pass@host", None),
            ("host?x", None),
            ("host#x", None),
            ("", None),
        ] {
            let base = RegistryClient::new(registry, None)
                .ok()
                .map(|client| client.base.to_string());
            assert_eq!(base.as_deref(), expect, "{registry}");
        }
    }

    #[test]
    fn dockers_own_images_have_a_namespace() {
        let client = RegistryClient::new("docker.io", None).unwrap();
        let repository = |image: &str| client.repository(&image.parse().unwrap()).ok();
        assert_eq!(repository("busybox").as_deref(), Some("library/busybox"));
        assert_eq!(repository("docker.io/cimg/base").as_deref(), Some("cimg/base"));
        assert_eq!(repository("ghcr.io/x"), None);
    }

    #[test]
    fn the_next_page_is_on_the_same_registry() {
        let current: Url = "https://r.io/v2/a/tags/list".parse().unwrap();
        let check = |link: &str, expect: Option<&str>| {
            assert_eq!(next_page(link, &current).as_ref().map(Url::as_str), expect, "{link}");
        };
        check(
            "</v2/a/tags/list?n=1&last=b>; rel=\"next\"",
            Some("https://r.io/v2/a/tags/list?n=1&last=b"),
        );
        check("<https://r.io/x>; rel=next", Some("https://r.io/x"));
        check("<https://evil.example/x>; rel=\"next\"", None);
        check("<http://r.io/x>; rel=\"next\"", None);
        check("</x>; rel=\"prev\"", None);
        check("nonsense", None);
    }

    #[test]
    fn a_registrys_words() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no  way"}]}"#;
        assert_eq!(words(body), "DENIED no way");
        assert_eq!(words(b"<html>\n oops"), "<html> oops");
        assert_eq!(words(b""), "");
    }
}
