//! A client for any registry: what a tag points to, which tags there are, and moving a tag without moving a layer.
//!
//! A client speaks to one registry, so that credentials cannot go to another. Everything that it sends may be sent twice;
//! so it repeats, with growing pauses and not for ever, what a busy registry or a broken connection refused.
//!
//! Loopback addresses are spoken to without TLS, everything else with it (the certificate authorities are Mozilla's).
//!
//! Source: <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>,
//! <https://distribution.github.io/distribution/spec/auth/token/>

mod challenge;

use crate::{Credentials, registry::TagName};
use bytes::{Bytes, BytesMut};
use challenge::{Challenge, challenges};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use towpath_types::{Digest, ImageReference, SecretString};
use url::{Host, Url};

/// What a registry may send us as a manifest, an index, a list of tags or a token, in bytes.
const MAX_ANSWER: usize = 8 * 1024 * 1024;

/// How many pages of tags are read: with the usual hundred a page, a million tags.
const MAX_PAGES: usize = 10_000;

const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// What went wrong with a registry. Messages name the image, the answer and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The registry's name makes no address.
    #[error("`{0}` is not the address of a registry (host[:port])")]
    Address(String),
    /// TLS could not be set up.
    #[error("could not set up a connection to registry `{registry}`")]
    Setup {
        /// The registry.
        registry: String,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The image is of another registry than the client.
    #[error("`{image}` is not an image of registry `{registry}`")]
    OtherRegistry {
        /// The image.
        image: String,
        /// The client's registry.
        registry: String,
    },
    /// The registry does not know who asks.
    #[error("registry `{registry}` wants to know who asks for `{image}` ({status}): {}", match username {
        Some(username) => format!("it did not accept the credentials of `{username}`; check that they are this registry's and not expired"),
        None => "no credentials were given for it".to_string(),
    })]
    Unauthorized {
        /// The registry.
        registry: String,
        /// The image.
        image: String,
        /// 401, or what the registry's token service answered.
        status: StatusCode,
        /// Whose credentials were tried.
        username: Option<String>,
    },
    /// The registry knows who asks and says no.
    #[error("registry `{registry}` does not let {} {attempt} `{image}` (403{}): give this account the right to, or use another", match username {
        Some(username) => format!("`{username}`"),
        None => "anonymous users".to_string(),
    }, said(message))]
    Forbidden {
        /// The registry.
        registry: String,
        /// The image.
        image: String,
        /// `read`, `tag`.
        attempt: &'static str,
        /// Whose credentials were tried.
        username: Option<String>,
        /// The registry's words.
        message: String,
    },
    /// There is no such image or repository.
    #[error(
        "`{image}` is not in the registry (404{}): push it first, or check the name",
        said(message)
    )]
    NotFound {
        /// The image.
        image: String,
        /// The registry's words.
        message: String,
    },
    /// Any other refusal; of one that may pass, the last.
    #[error("failed to {attempt} `{image}`: the registry answered {status}{}", said(message))]
    Refused {
        /// The image.
        image: String,
        /// `read`, `tag`, `list the tags of`.
        attempt: &'static str,
        /// What it answered.
        status: StatusCode,
        /// The registry's words.
        message: String,
    },
    /// No answer, after all attempts.
    #[error("failed to {attempt} `{image}`: registry `{registry}` cannot be reached")]
    Unreachable {
        /// The image.
        image: String,
        /// `read`, `tag`, `list the tags of`.
        attempt: &'static str,
        /// The registry.
        registry: String,
        /// Why not.
        source: reqwest::Error,
    },
    /// An answer that no registry may give.
    #[error("registry `{registry}` answered about `{image}` with something that cannot be used: {why}")]
    Malformed {
        /// The registry.
        registry: String,
        /// The image.
        image: String,
        /// What is wrong with it.
        why: String,
    },
}

fn said(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}

/// How often, and after which pauses, something is repeated that a registry refused for now (429 and 5xx) or that did
/// not reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// All attempts, the first among them.
    pub attempts: u32,
    /// The pause after the first; each next one is twice as long.
    pub first_pause: Duration,
    /// No pause is longer, whatever the registry asks for.
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

/// A manifest as the registry keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Byte for byte: its digest depends on it.
    pub bytes: Bytes,
    /// `application/vnd.oci.image.manifest.v1+json` and the like.
    pub media_type: String,
    /// Computed from the bytes.
    pub digest: Digest,
}

/// A client for one registry. May be used by many tasks at once.
#[derive(Debug)]
pub struct RegistryClient {
    registry: String,
    base: Url,
    http: reqwest::Client,
    credentials: Option<Credentials>,
    retries: Retries,
    /// What was accepted last for a scope.
    authorizations: Mutex<HashMap<String, Authorization>>,
}

#[derive(Debug, Clone)]
enum Authorization {
    Basic,
    Bearer(SecretString),
}

/// One thing asked of a registry.
struct Ask<'a> {
    /// For messages.
    image: &'a ImageReference,
    attempt: &'static str,
    method: Method,
    url: Url,
    /// For the token service: what the request needs.
    scope: String,
    headers: HeaderMap,
    body: Option<Bytes>,
}

impl RegistryClient {
    /// A client for `registry` (`127.0.0.1:7070`, `ghcr.io`; `docker.io` is Docker's), which shows `credentials` to it and to
    /// the token service that it names, when it asks for them.
    ///
    /// # Errors
    /// `Address` when `registry` is not a host with or without a port.
    pub fn new(registry: &str, credentials: Option<Credentials>) -> Result<Self, ClientError> {
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
        let roots = rustls::RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        // The provider is named here, so that it does not matter what the process installed, if anything.
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| setup(e.into()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
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

    /// The same with other pauses.
    #[must_use]
    pub fn with_retries(mut self, retries: Retries) -> Self {
        self.retries = retries;
        self
    }

    /// The digest that `image` names now: its tag's (`latest` when it has none), or, when it is pinned, its own if the
    /// registry has it. `None` when there is no such repository, tag or manifest.
    ///
    /// # Errors
    /// Every other refusal, and no answer.
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
            // Some registries do not answer HEAD, or without the digest.
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

    /// The manifest that `image` names: of its digest, when it is pinned, else of its tag (`latest` when it has none).
    ///
    /// # Errors
    /// `NotFound` and every other refusal; `Malformed` when the bytes have another digest than the image names.
    pub async fn manifest(&self, image: &ImageReference) -> Result<Manifest, ClientError> {
        let ask = self.ask_manifest(image, Method::GET)?;
        let response = self.send(&ask).await?;
        let media_type = response.headers().get(header::CONTENT_TYPE);
        let media_type = media_type.and_then(|value| value.to_str().ok()).map(str::to_string);
        let bytes = self.body(&ask, response).await?;
        let digest = Digest::of(&bytes);
        self.check_pin(image, &digest)?;
        let media_type = media_type.ok_or_else(|| self.malformed(image, "the manifest has no media type"))?;
        Ok(Manifest {
            bytes,
            media_type,
            digest,
        })
    }

    /// Makes `tag` point to what `image` names, in the same repository; answers its digest. The manifest is read and put back
    /// under the new tag: no layer moves. Safe to repeat.
    ///
    /// # Errors
    /// As [`RegistryClient::manifest`], and `Forbidden` when the account may read but not push.
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
    /// `NotFound` when there is no such repository; every other refusal, and no answer.
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
                .map_err(|e| self.malformed(image, &format!("the list of tags cannot be read: {e}")))?;
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
        // Docker's own images have a namespace that nobody writes.
        if self.registry == DOCKER && !image.repository.contains('/') {
            return Ok(format!("library/{}", image.repository));
        }
        Ok(image.repository.clone())
    }

    fn url(&self, image: &ImageReference, path: &str) -> Result<Url, ClientError> {
        // Behind `./`, a name such as `sha256:…` cannot be taken for a scheme.
        self.base
            .join(&format!("./{path}"))
            .map_err(|e| self.malformed(image, &format!("its address cannot be written: {e}")))
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

    /// Sends until there is an answer that repeating would not change, and turns refusals into errors.
    async fn send(&self, ask: &Ask<'_>) -> Result<reqwest::Response, ClientError> {
        let mut pause = self.retries.first_pause;
        let mut attempt = 1;
        loop {
            let answer = self.send_authorized(ask).await;
            let may_pass = match &answer {
                Ok(response) => is_passing(response.status()),
                Err(ClientError::Unreachable { .. }) => true,
                // The token service is busy.
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

    /// Sends with what was accepted for the scope before; when the registry asks who we are, says so and sends again.
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

    /// Asks the token service that the registry named.
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
        // The parser's words are left out: they could quote the token.
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
    // A full disk (507) and the like do not pass by themselves.
    matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504)
}

/// The pause that the registry asks for, when it does so in seconds.
fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?;
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// The address behind `rel="next"`, when it is one of the same registry.
fn next_page(link: &str, current: &Url) -> Option<Url> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = parameters.contains("rel=\"next\"") || parameters.contains("rel=next");
    let next = current.join(target).ok()?;
    (is_next && next.origin() == current.origin()).then_some(next)
}

/// What the registry says, for a message: its first error, or the begin of its text.
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
