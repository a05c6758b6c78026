//! The API's addresses.
//!
//! Source: <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#endpoints>

use super::{
    Access, Action, Registry, RegistryError, RepositoryName, TagName, Verdict,
    answer::Refusal,
    manifest::{MAX_MANIFEST_BYTES, OCI_INDEX},
    range::{ByteRange, Wanted, chunk, wanted},
    store::{failed, if_there, tag_order},
    upload::{Claimed, Upload, UploadError, offset},
};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::any,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::io::SeekFrom;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;
use towpath_types::Digest;
use uuid::Uuid;

const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// The registry's API: everything at and below `/v2`. Merge it into the server's router. Nested, it would not answer `/v2/`,
/// which every client requests first.
///
/// It limits the size of manifests itself and does not limit blobs: do not add a body limit around it.
pub fn router(registry: Registry) -> Router {
    Router::new()
        .route("/v2", any(dispatch))
        .route("/v2/", any(dispatch))
        .route("/v2/{*path}", any(dispatch))
        .with_state(registry)
}

/// What a request's path addresses.
#[derive(Debug, PartialEq, Eq)]
enum Address {
    Base,
    Tags(RepositoryName),
    Manifest(RepositoryName, Reference),
    Blob(RepositoryName, Digest),
    Uploads(RepositoryName),
    Upload(RepositoryName, Option<Uuid>),
    Referrers(RepositoryName, Digest),
}

#[derive(Debug, PartialEq, Eq)]
enum Reference {
    Tag(TagName),
    Digest(Digest),
    /// Neither: no valid name has this form.
    Neither(String),
}

impl Address {
    /// Parses a path from its end, because a repository's name may contain slashes and words such as `blobs`.
    fn parse(path: &str) -> Result<Self, Refusal> {
        let path = path.strip_prefix("/v2").unwrap_or(path);
        let path = path.strip_prefix('/').unwrap_or(path);
        if path.is_empty() {
            return Ok(Self::Base);
        }
        let name = |text: &str| {
            text.parse::<RepositoryName>()
                .map_err(|e| Refusal::new(StatusCode::BAD_REQUEST, "NAME_INVALID", e.to_string()))
        };
        let digest = |text: &str| {
            text.parse::<Digest>()
                .map_err(|e| Refusal::digest_invalid(e.to_string()))
        };
        if let Some(repository) = path
            .strip_suffix("/blobs/uploads")
            .or(path.strip_suffix("/blobs/uploads/"))
        {
            return Ok(Self::Uploads(name(repository)?));
        }
        if let Some(repository) = path.strip_suffix("/tags/list") {
            return Ok(Self::Tags(name(repository)?));
        }
        if let Some((before, last)) = path.rsplit_once('/') {
            if let Some(repository) = before.strip_suffix("/blobs/uploads") {
                return Ok(Self::Upload(name(repository)?, Uuid::try_parse(last).ok()));
            }
            if let Some(repository) = before.strip_suffix("/blobs") {
                return Ok(Self::Blob(name(repository)?, digest(last)?));
            }
            if let Some(repository) = before.strip_suffix("/manifests") {
                let repository = name(repository)?;
                let reference = match (last.contains(':'), last.parse()) {
                    (true, _) => Reference::Digest(digest(last)?),
                    (false, Ok(tag)) => Reference::Tag(tag),
                    (false, Err(_)) => Reference::Neither(last.to_string()),
                };
                return Ok(Self::Manifest(repository, reference));
            }
            if let Some(repository) = before.strip_suffix("/referrers") {
                return Ok(Self::Referrers(name(repository)?, digest(last)?));
            }
        }
        Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "UNSUPPORTED",
            "this registry has no such address",
        ))
    }
}

async fn dispatch(State(registry): State<Registry>, request: Request) -> Response {
    let mut response = match answer(&registry, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    };
    let version = HeaderValue::from_static("registry/2.0");
    response.headers_mut().insert(API_VERSION, version);
    response
}

async fn answer(registry: &Registry, request: Request) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let address = Address::parse(parts.uri.path())?;
    let asked = Asked {
        registry,
        parts: &parts,
    };
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    let action = |action: Action| if reads { Action::Pull } else { action };
    match address {
        Address::Base if reads => {
            asked.allow(None, Action::Pull).await?;
            Ok(axum::Json(serde_json::json!({})).into_response())
        }
        Address::Tags(repository) if reads => {
            asked.allow(Some(&repository), Action::Pull).await?;
            asked.list_tags(&repository).await
        }
        Address::Referrers(repository, subject) if reads => {
            asked.allow(Some(&repository), Action::Pull).await?;
            asked.list_referrers(&repository, subject).await
        }
        Address::Blob(repository, digest) if reads || parts.method == Method::DELETE => {
            asked.allow(Some(&repository), action(Action::Delete)).await?;
            if reads {
                asked.get_blob(&repository, digest).await
            } else {
                asked.delete_blob(&repository, digest).await
            }
        }
        Address::Manifest(repository, reference) => match parts.method {
            Method::GET | Method::HEAD => {
                asked.allow(Some(&repository), Action::Pull).await?;
                asked.get_manifest(&repository, reference).await
            }
            Method::PUT => {
                let by = asked.allow(Some(&repository), Action::Push).await?;
                asked.put_manifest(repository, reference, body, by).await
            }
            Method::DELETE => {
                asked.allow(Some(&repository), Action::Delete).await?;
                asked.delete_manifest(&repository, reference).await
            }
            _ => Err(Refusal::method()),
        },
        Address::Uploads(repository) if parts.method == Method::POST => {
            asked.allow(Some(&repository), Action::Push).await?;
            asked.begin_upload(&repository, body).await
        }
        Address::Upload(repository, id) => {
            asked.allow(Some(&repository), Action::Push).await?;
            let id = id.ok_or_else(Refusal::upload_unknown)?;
            match parts.method {
                Method::GET | Method::HEAD => asked.upload_status(&repository, id).await,
                Method::PATCH => asked.add_chunk(&repository, id, body).await,
                Method::PUT => asked.finish_upload(&repository, id, body).await,
                Method::DELETE => asked.cancel_upload(&repository, id).await,
                _ => Err(Refusal::method()),
            }
        }
        _ => Err(Refusal::method()),
    }
}

/// A request, without its body.
struct Asked<'a> {
    registry: &'a Registry,
    parts: &'a Parts,
}

impl Asked<'_> {
    async fn verdict(&self, repository: Option<&RepositoryName>, action: Action) -> Verdict {
        let access = Access {
            repository: repository.cloned(),
            action,
        };
        self.registry.authorize().authorize(&self.parts.headers, &access).await
    }

    /// Refuses the request, or answers the name in [`Verdict::AllowedAs`].
    async fn allow(&self, repository: Option<&RepositoryName>, action: Action) -> Result<Option<String>, Refusal> {
        match self.verdict(repository, action).await {
            Verdict::Allowed => Ok(None),
            Verdict::AllowedAs(by) => Ok(Some(by)),
            Verdict::Unauthenticated => Err(Refusal::unauthenticated()),
            Verdict::Forbidden => Err(Refusal::forbidden()),
            Verdict::Unavailable => Err(Refusal::unavailable()),
        }
    }

    fn query(&self, name: &str) -> Option<String> {
        let query = self.parts.uri.query().unwrap_or_default();
        url::form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    fn header(&self, name: HeaderName) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }

    fn digest_in_query(&self) -> Result<Option<Digest>, Refusal> {
        self.query("digest")
            .map(|text| text.parse().map_err(|e| Refusal::digest_invalid(format!("{e}"))))
            .transpose()
    }

    /// The size of the body according to the headers.
    fn claimed(&self) -> Result<Claimed, Refusal> {
        let range = match self.header(header::CONTENT_RANGE) {
            Some(text) => Some(chunk(text).ok_or_else(|| {
                let message = format!("`{text}` is not a Content-Range: write <first byte>-<last byte>");
                Refusal::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", message)
            })?),
            None => None,
        };
        let length = self.header(header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
        Ok(Claimed { range, length })
    }

    async fn list_tags(&self, repository: &RepositoryName) -> Result<Response, Refusal> {
        let name = repository.clone();
        let tags = self.registry.with_store(move |store| store.tags(&name)).await?;
        let mut tags = tags.ok_or_else(|| {
            let message = format!("there is no repository `{repository}`");
            Refusal::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", message)
        })?;
        if let Some(last) = self.query("last") {
            // `last` may have been deleted since: the page begins where it would be.
            let after = (last.to_ascii_lowercase(), last);
            tags.retain(|tag| tag_order(tag) > after);
        }
        let mut link = None;
        if let Some(n) = self.query("n") {
            let n: usize = n.parse().map_err(|_| {
                let message = "`n` has to be a number: how many tags to list";
                Refusal::new(StatusCode::BAD_REQUEST, "UNSUPPORTED", message)
            })?;
            if n < tags.len() {
                tags.truncate(n);
                link = tags
                    .last()
                    .map(|last| format!("</v2/{repository}/tags/list?n={n}&last={last}>; rel=\"next\""));
            }
        }
        let tags: Vec<&str> = tags.iter().map(TagName::as_str).collect();
        let body = axum::Json(serde_json::json!({"name": repository.as_str(), "tags": tags}));
        let mut response = body.into_response();
        if let Some(link) = link {
            response.headers_mut().insert(header::LINK, header_value(&link));
        }
        Ok(response)
    }

    async fn list_referrers(&self, repository: &RepositoryName, subject: Digest) -> Result<Response, Refusal> {
        let name = repository.clone();
        let mut referrers = self
            .registry
            .with_store(move |store| store.referrers(&name, &subject))
            .await?;
        let filter = self.query("artifactType");
        if let Some(wanted) = &filter {
            referrers.retain(|referrer| referrer["artifactType"].as_str() == Some(wanted));
        }
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": referrers});
        let mut response = axum::Json(index).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(OCI_INDEX));
        if filter.is_some() {
            headers.insert(OCI_FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
        }
        Ok(response)
    }

    async fn get_blob(&self, repository: &RepositoryName, digest: Digest) -> Result<Response, Refusal> {
        let (name, wanted_digest) = (repository.clone(), digest.clone());
        let is_head = self.parts.method == Method::HEAD;
        let lookup = move |store: &super::store::Store| {
            let size = if is_head {
                store.promise_blob(&name, &wanted_digest)?
            } else {
                store.blob(&name, &wanted_digest)?
            };
            let path = store.blob_path(&wanted_digest);
            Ok::<_, RegistryError>(size.map(|size| (size, path)))
        };
        let found = self.registry.with_store(lookup).await?;
        let (size, path) = found.ok_or_else(Refusal::blob_unknown)?;

        let wanted = match self.header(header::RANGE) {
            Some(text) if !is_head => wanted(text, size),
            _ => Wanted::All,
        };
        let (status, part) = match wanted {
            Wanted::All => (StatusCode::OK, None),
            Wanted::Part(part) => (StatusCode::PARTIAL_CONTENT, Some(part)),
            Wanted::Nothing => {
                let message = format!("the range lies outside the blob, which has {size} bytes");
                let refusal = Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", message);
                return Err(refusal.with(header::CONTENT_RANGE, format!("bytes */{size}")));
            }
        };
        let length = part.map_or(size, ByteRange::len);
        let body = if is_head {
            Body::empty()
        } else {
            let opened = if_there(tokio::fs::File::open(&path).await).map_err(failed("read", &path))?;
            let mut file = opened.ok_or_else(Refusal::blob_unknown)?;
            if let Some(part) = part {
                file.seek(SeekFrom::Start(part.first))
                    .await
                    .map_err(failed("read", &path))?;
            }
            Body::from_stream(ReaderStream::with_capacity(file.take(length), 64 * 1024))
        };
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(header::ETAG, header_value(&format!("\"{digest}\"")));
        headers.insert(CONTENT_DIGEST, header_value(digest.as_str()));
        if let Some(ByteRange { first, last }) = part {
            let range = format!("bytes {first}-{last}/{size}");
            headers.insert(header::CONTENT_RANGE, header_value(&range));
        }
        Ok((status, headers, body).into_response())
    }

    async fn delete_blob(&self, repository: &RepositoryName, digest: Digest) -> Result<Response, Refusal> {
        let name = repository.clone();
        let delete = move |store: &super::store::Store| store.delete_blob(&name, &digest);
        if self.registry.with_store(delete).await? {
            Ok(StatusCode::ACCEPTED.into_response())
        } else {
            Err(Refusal::blob_unknown())
        }
    }

    async fn get_manifest(&self, repository: &RepositoryName, reference: Reference) -> Result<Response, Refusal> {
        let name = repository.clone();
        let read = move |store: &super::store::Store| {
            let digest = match reference {
                Reference::Tag(tag) => store.resolve(&name, &tag)?,
                Reference::Digest(digest) => Some(digest),
                Reference::Neither(_) => None,
            };
            let Some(digest) = digest else { return Ok(None) };
            let manifest = store.read_manifest(&name, &digest)?;
            Ok::<_, RegistryError>(manifest.map(|(record, bytes)| (digest, record, bytes)))
        };
        let found = self.registry.with_store(read).await?;
        let (digest, record, bytes) = found.ok_or_else(Refusal::manifest_unknown)?;
        let headers = [
            (header::CONTENT_TYPE, header_value(&record.media_type)),
            (header::ETAG, header_value(&format!("\"{digest}\""))),
            (CONTENT_DIGEST, header_value(digest.as_str())),
        ];
        // For HEAD the server sends only the headers, with the length of this body.
        Ok((headers, bytes).into_response())
    }

    async fn put_manifest(
        &self,
        repository: RepositoryName,
        reference: Reference,
        body: Body,
        by: Option<String>,
    ) -> Result<Response, Refusal> {
        let (tag, claimed) = match reference {
            Reference::Tag(tag) => (Some(tag), None),
            Reference::Digest(digest) => (None, Some(digest)),
            Reference::Neither(text) => {
                let message = format!("`{}` is not a tag", text.chars().take(200).collect::<String>());
                return Err(Refusal::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", message));
            }
        };
        let media_type = self.header(header::CONTENT_TYPE).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_string();
        let bytes = match Limited::new(body, MAX_MANIFEST_BYTES).collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(e) if e.is::<LengthLimitError>() => {
                let message = format!("a manifest may have at most {MAX_MANIFEST_BYTES} bytes");
                return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", message));
            }
            Err(_) => {
                let message = "the connection ended in the middle of the manifest";
                return Err(Refusal::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", message));
            }
        };
        let (name, tag_name) = (repository.clone(), tag.clone());
        let observer = self.registry.observer().clone();
        // Report the push here, where it became visible: a client that hangs up must not hide it.
        let put = move |store: &super::store::Store| {
            let accepted = store.put_manifest(&name, claimed.as_ref(), tag_name.as_ref(), &media_type, &bytes)?;
            observer(&accepted.pushed(&name, tag_name.as_ref(), by))?;
            Ok::<_, super::store::ManifestRefusal>(accepted)
        };
        let accepted = self.registry.with_store(put).await?;
        let digest = &accepted.digest;
        tracing::info!(%repository, tag = tag.as_ref().map(TagName::as_str), %digest, "a manifest was pushed");
        let mut headers = HeaderMap::new();
        let location = format!("/v2/{repository}/manifests/{digest}");
        headers.insert(header::LOCATION, header_value(&location));
        headers.insert(CONTENT_DIGEST, header_value(digest.as_str()));
        if let Some(subject) = &accepted.subject {
            headers.insert(OCI_SUBJECT, header_value(subject.as_str()));
        }
        Ok((StatusCode::CREATED, headers).into_response())
    }

    async fn delete_manifest(&self, repository: &RepositoryName, reference: Reference) -> Result<Response, Refusal> {
        let name = repository.clone();
        let delete = move |store: &super::store::Store| match reference {
            Reference::Tag(tag) => store.delete_tag(&name, &tag),
            Reference::Digest(digest) => store.delete_manifest(&name, &digest),
            Reference::Neither(_) => Ok(false),
        };
        if self.registry.with_store(delete).await? {
            Ok(StatusCode::ACCEPTED.into_response())
        } else {
            Err(Refusal::manifest_unknown())
        }
    }

    /// `POST`: mounts a blob, takes a whole blob, or begins an upload.
    async fn begin_upload(&self, repository: &RepositoryName, body: Body) -> Result<Response, Refusal> {
        if let Some(mounted) = self.mount(repository).await? {
            return Ok(mounted);
        }
        let digest = self.digest_in_query()?;
        let claimed = self.claimed()?;
        let id = self.registry.uploads().begin(self.registry.store(), repository).await?;
        let Some(digest) = digest else {
            return Ok(accepted(repository, id, 0));
        };
        let wanted = digest.clone();
        let receive = async move |mut upload: Upload| match upload.append(claimed, body).await {
            Ok(_) => upload.finish(wanted).await,
            Err(e) => {
                // The client never learned the session's name, so it cannot resume it.
                upload.cancel().await?;
                Err(e)
            }
        };
        self.complete(repository, id, receive).await?;
        Ok(created_blob(repository, &digest))
    }

    /// Links a blob of another repository to this one. `None` when the client did not ask for that or it is not possible; then
    /// an ordinary upload begins. A repository that the client may not read looks like one without the blob.
    async fn mount(&self, repository: &RepositoryName) -> Result<Option<Response>, Refusal> {
        let Some(mount) = self.query("mount") else {
            return Ok(None);
        };
        let digest: Digest = mount.parse().map_err(|e| Refusal::digest_invalid(format!("{e}")))?;
        let Some(from) = self.query("from").and_then(|from| from.parse::<RepositoryName>().ok()) else {
            return Ok(None);
        };
        if self.allow(Some(&from), Action::Pull).await.is_err() {
            return Ok(None);
        }
        let (name, wanted) = (repository.clone(), digest.clone());
        let mounted = self
            .registry
            .with_store(move |store| store.mount_blob(&name, &from, &wanted))
            .await?;
        Ok(mounted.map(|()| created_blob(repository, &digest)))
    }

    async fn upload_status(&self, repository: &RepositoryName, id: Uuid) -> Result<Response, Refusal> {
        let path = self.registry.store().upload_path(repository, id);
        let at = offset(&path).await?.ok_or_else(Refusal::upload_unknown)?;
        let mut response = accepted(repository, id, at);
        *response.status_mut() = StatusCode::NO_CONTENT;
        Ok(response)
    }

    async fn add_chunk(&self, repository: &RepositoryName, id: Uuid, body: Body) -> Result<Response, Refusal> {
        let claimed = self.claimed()?;
        let at = self
            .spawn(repository, id, async move |mut upload: Upload| {
                upload.append(claimed, body).await
            })
            .await?;
        Ok(accepted(repository, id, at))
    }

    /// `PUT`: the last bytes, if any are left, and the digest of the whole blob.
    async fn finish_upload(&self, repository: &RepositoryName, id: Uuid, body: Body) -> Result<Response, Refusal> {
        let digest = self
            .digest_in_query()?
            .ok_or_else(|| Refusal::digest_invalid("the blob's digest is missing: add ?digest=sha256:…"))?;
        let claimed = self.claimed()?;
        let wanted = digest.clone();
        self.complete(repository, id, async move |mut upload: Upload| {
            upload.append(claimed, body).await?;
            upload.finish(wanted).await
        })
        .await?;
        Ok(created_blob(repository, &digest))
    }

    async fn cancel_upload(&self, repository: &RepositoryName, id: Uuid) -> Result<Response, Refusal> {
        let cancel = async move |upload: Upload| Ok(upload.cancel().await?);
        self.complete(repository, id, cancel).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    /// Runs `work`, which ends the upload unless it is interrupted, and then forgets the session.
    async fn complete<F>(
        &self,
        repository: &RepositoryName,
        id: Uuid,
        work: impl FnOnce(Upload) -> F + Send + 'static,
    ) -> Result<(), Refusal>
    where
        F: Future<Output = Result<(), UploadError>> + Send + 'static,
    {
        let done = self.spawn(repository, id, work).await;
        self.registry.uploads().forget_if_over(id);
        done
    }

    /// Runs `work` on the upload in a task of its own, which finishes even if the client hangs up.
    async fn spawn<T, F>(
        &self,
        repository: &RepositoryName,
        id: Uuid,
        work: impl FnOnce(Upload) -> F + Send + 'static,
    ) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, UploadError>> + Send + 'static,
    {
        let registry = self.registry.clone();
        let name = repository.clone();
        let task = tokio::spawn(async move {
            let upload = registry.uploads().open(registry.store(), &name, id).await?;
            work(upload).await
        });
        let done = task
            .await
            .unwrap_or(Err(UploadError::Registry(RegistryError::Stopping)));
        done.map_err(|e| {
            let at = match e {
                UploadError::OutOfOrder { at, .. } | UploadError::Interrupted { at } => Some(at),
                _ => None,
            };
            let refusal = Refusal::from(e);
            match at {
                // Tell the client where to resume.
                Some(at) => refusal
                    .with(header::RANGE, so_far(at))
                    .with(header::LOCATION, upload_location(repository, id)),
                None => refusal,
            }
        })
    }
}

/// A header's value made of validated names, which are all ASCII.
fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

fn upload_location(repository: &RepositoryName, id: Uuid) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}")
}

/// The range of bytes that an upload has. The header cannot express an empty range; clients read `0-0` as one.
fn so_far(at: u64) -> String {
    format!("0-{}", at.saturating_sub(1))
}

fn accepted(repository: &RepositoryName, id: Uuid, at: u64) -> Response {
    let headers = [
        (header::LOCATION, header_value(&upload_location(repository, id))),
        (header::RANGE, header_value(&so_far(at))),
        (UPLOAD_UUID, header_value(&id.to_string())),
    ];
    (StatusCode::ACCEPTED, headers).into_response()
}

fn created_blob(repository: &RepositoryName, digest: &Digest) -> Response {
    let headers = [
        (
            header::LOCATION,
            header_value(&format!("/v2/{repository}/blobs/{digest}")),
        ),
        (CONTENT_DIGEST, header_value(digest.as_str())),
    ];
    (StatusCode::CREATED, headers).into_response()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_from_their_end() {
        let digest = Digest::of(b"");
        let name = |text: &str| text.parse::<RepositoryName>().unwrap();
        let id = Uuid::new_v4();
        for (path, expect) in [
            ("/v2/".to_string(), Address::Base),
            ("/v2".to_string(), Address::Base),
            ("/v2/a/b/tags/list".to_string(), Address::Tags(name("a/b"))),
            ("/v2/tags/list/tags/list".to_string(), Address::Tags(name("tags/list"))),
            (
                format!("/v2/blobs/uploads/blobs/{digest}"),
                Address::Blob(name("blobs/uploads"), digest.clone()),
            ),
            ("/v2/a/blobs/uploads/".to_string(), Address::Uploads(name("a"))),
            ("/v2/a/blobs/uploads".to_string(), Address::Uploads(name("a"))),
            (
                format!("/v2/a/blobs/uploads/{id}"),
                Address::Upload(name("a"), Some(id)),
            ),
            ("/v2/a/blobs/uploads/x".to_string(), Address::Upload(name("a"), None)),
            (
                "/v2/a/manifests/list".to_string(),
                Address::Manifest(name("a"), Reference::Tag("list".parse().unwrap())),
            ),
            (
                format!("/v2/a/referrers/{digest}"),
                Address::Referrers(name("a"), digest.clone()),
            ),
        ] {
            assert_eq!(Address::parse(&path).unwrap(), expect, "{path}");
        }
        for path in [
            "/v2/_catalog",
            "/v2/a",
            "/v2/tags/list",
            "/v2/../blobs/uploads/",
            "/v2/a/../b/tags/list",
            "/v2/a%2f..%2fb/tags/list",
            "/v2/a/blobs/sha256:0",
            "/v2/a/blobs/../../x",
            "/v2//blobs/uploads/",
            "/v2/a/manifests/sha512:00",
        ] {
            assert!(Address::parse(path).is_err(), "{path}");
        }
    }
}
