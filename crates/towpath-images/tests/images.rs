//! Resolving tags works alike on the fake, our registry's folder, our registry's API, and another program's registry.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Everybody, OCI_MANIFEST, Served, manifest, plain_http, send_to, serve};
use futures::future::BoxFuture;
use std::time::Duration;
use towpath_images::{Images, RegistryImages, Retries, TagName, fake::FakeImages};
use towpath_types::{Digest, ImageReference};

/// Registries that a test can push to.
trait Subject: Sync {
    fn images(&self) -> &dyn Images;

    /// The repository `name` of a reachable registry.
    fn repository(&self, name: &str) -> ImageReference;

    /// Pushes an image with this layer. Returns its digest.
    fn push<'a>(&'a self, repository: &'a ImageReference, tag: &'a str, layer: &'a [u8]) -> BoxFuture<'a, Digest>;

    /// Deletes a manifest and its tags.
    fn delete<'a>(&'a self, repository: &'a ImageReference, digest: &'a Digest) -> BoxFuture<'a, ()>;

    /// A repository of an unreachable registry.
    fn unreachable(&self) -> ImageReference {
        "127.0.0.1:1/app".parse().unwrap()
    }
}

/// Ask once, so that an unreachable registry costs no time.
const ONCE: Retries = Retries {
    attempts: 1,
    first_pause: Duration::ZERO,
    longest_pause: Duration::ZERO,
};

fn tag(text: &str) -> TagName {
    text.parse().unwrap()
}

async fn contract(subject: &dyn Subject) {
    let images = subject.images();
    let app = subject.repository("team/app");
    let resolve = async |repository: &ImageReference, text: &str| images.resolve(repository, &tag(text)).await.unwrap();

    // The registry is empty.
    assert_eq!(resolve(&app, "latest").await, None);
    assert!(!images.exists(&app, &Digest::of(b"?")).await.unwrap());
    assert_eq!(images.tags(&app).await.unwrap(), []);

    let first = subject.push(&app, "one", b"1").await;
    let second = subject.push(&app, "two", b"2").await;
    assert_eq!(resolve(&app, "one").await.as_ref(), Some(&first));
    assert_eq!(resolve(&app, "two").await.as_ref(), Some(&second));
    assert_eq!(resolve(&app, "three").await, None);
    assert!(images.exists(&app, &first).await.unwrap());
    assert!(!images.exists(&app, &Digest::of(b"?")).await.unwrap());

    // The repository reference's own tag and digest do not matter.
    let mut other = app.at(second.clone());
    other.tag = Some("two".into());
    assert_eq!(resolve(&other, "one").await.as_ref(), Some(&first));
    assert!(images.exists(&other, &first).await.unwrap());
    assert_eq!(images.tags(&other).await.unwrap(), [tag("one"), tag("two")]);

    // A tag moves; digests stay.
    let third = subject.push(&app, "one", b"3").await;
    subject.push(&app, "Zeta", b"3").await;
    assert_eq!(resolve(&app, "one").await.as_ref(), Some(&third));
    assert!(images.exists(&app, &first).await.unwrap());
    assert_eq!(
        images.tags(&app).await.unwrap(),
        [tag("Zeta"), tag("one"), tag("two")],
        "sorted, capitals first"
    );

    // Repositories share nothing.
    let near = subject.repository("team");
    assert_eq!(resolve(&near, "one").await, None);
    assert!(!images.exists(&near, &first).await.unwrap());
    assert_eq!(images.tags(&near).await.unwrap(), []);

    subject.delete(&app, &second).await;
    assert_eq!(resolve(&app, "two").await, None);
    assert!(!images.exists(&app, &second).await.unwrap());
    assert_eq!(images.tags(&app).await.unwrap(), [tag("Zeta"), tag("one")]);

    // An unreachable registry is an error, not an empty answer.
    let away = subject.unreachable();
    for error in [
        images.resolve(&away, &tag("one")).await.unwrap_err(),
        images.exists(&away, &first).await.unwrap_err(),
        images.tags(&away).await.unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(
            text.contains(&format!("{}/app", away.registry.as_ref().unwrap())),
            "{text}"
        );
        assert!(std::error::Error::source(&error).is_some(), "{text}");
    }
    assert_eq!(
        resolve(&app, "one").await.as_ref(),
        Some(&third),
        "the others still answer"
    );
}

struct Fake(FakeImages);

impl Subject for Fake {
    fn images(&self) -> &dyn Images {
        &self.0
    }

    fn repository(&self, name: &str) -> ImageReference {
        format!("127.0.0.1:7070/{name}").parse().unwrap()
    }

    fn push<'a>(&'a self, repository: &'a ImageReference, text: &'a str, layer: &'a [u8]) -> BoxFuture<'a, Digest> {
        let digest = Digest::of(layer);
        self.0.point(repository, &tag(text), &digest);
        Box::pin(async { digest })
    }

    fn delete<'a>(&'a self, repository: &'a ImageReference, digest: &'a Digest) -> BoxFuture<'a, ()> {
        self.0.delete(repository, digest);
        Box::pin(async {})
    }
}

/// Registries behind an API at `address`.
struct Pushed {
    images: RegistryImages,
    address: String,
    http: reqwest::Client,
}

impl Pushed {
    async fn send(&self, line: &str, headers: &[(&str, &str)], body: Vec<u8>) -> common::Answer {
        send_to(&self.http, &self.address, line, headers, body).await
    }
}

impl Subject for Pushed {
    fn images(&self) -> &dyn Images {
        &self.images
    }

    fn repository(&self, name: &str) -> ImageReference {
        format!("{}/{name}", self.address).parse().unwrap()
    }

    fn push<'a>(&'a self, repository: &'a ImageReference, text: &'a str, layer: &'a [u8]) -> BoxFuture<'a, Digest> {
        Box::pin(async move {
            let name = &repository.repository;
            for bytes in [b"{}".as_slice(), layer] {
                let begun = self
                    .send(&format!("POST /v2/{name}/blobs/uploads/"), &[], Vec::new())
                    .await;
                let begun = begun.expect(202);
                let upload = begun
                    .header("location")
                    .replace(&format!("http://{}", self.address), "");
                let mark = if upload.contains('?') { '&' } else { '?' };
                let line = format!("PUT {upload}{mark}digest={}", Digest::of(bytes));
                self.send(&line, &[], bytes.to_vec()).await.expect(201);
            }
            let bytes = manifest(layer);
            let line = format!("PUT /v2/{name}/manifests/{text}");
            let headers = [("content-type", OCI_MANIFEST)];
            self.send(&line, &headers, bytes.clone()).await.expect(201);
            Digest::of(&bytes)
        })
    }

    fn delete<'a>(&'a self, repository: &'a ImageReference, digest: &'a Digest) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let line = format!("DELETE /v2/{}/manifests/{digest}", repository.repository);
            self.send(&line, &[], Vec::new()).await.expect(202);
        })
    }
}

fn behind(served: &Served, images: RegistryImages) -> Pushed {
    Pushed {
        images: images.with_retries(ONCE),
        address: served.address.clone(),
        http: plain_http(),
    }
}

#[tokio::test]
async fn the_fake() {
    let fake = Fake(FakeImages::default());
    fake.0.fail(Some("127.0.0.1:1"), Some("connection refused"));
    contract(&fake).await;
}

#[tokio::test]
async fn our_registry_by_its_folder() {
    let served = serve(Everybody).await;
    let images = RegistryImages::new().with_own(&served.address, served.registry.clone());
    contract(&behind(&served, images)).await;
}

#[tokio::test]
async fn our_registry_by_its_api() {
    let served = serve(Everybody).await;
    contract(&behind(&served, RegistryImages::new())).await;
}

#[tokio::test]
async fn the_reference_registry() {
    let registry = match towpath_testkit::Registry::start().await.unwrap() {
        Ok(registry) => registry,
        Err(absent) => return towpath_testkit::skipped("the_reference_registry", &absent),
    };
    let subject = Pushed {
        images: RegistryImages::new().with_retries(ONCE),
        address: registry.address().to_string(),
        http: plain_http(),
    };
    contract(&subject).await;
}

#[tokio::test]
async fn our_registry_is_asked_without_its_api() {
    let served = serve(Everybody).await;
    // Nobody listens at this address.
    let name = "127.0.0.1:1";
    let images = RegistryImages::new()
        .with_own(name, served.registry.clone())
        .with_retries(ONCE);
    let digest = served.image("app", "one", b"1").await;
    let app: ImageReference = format!("{name}/app").parse().unwrap();
    assert_eq!(images.resolve(&app, &tag("one")).await.unwrap(), Some(digest));
}

#[tokio::test]
async fn the_fakes_calls_are_counted_and_each_push_is_a_new_image() {
    let images = FakeImages::default();
    let app: ImageReference = "ghcr.io/team/app".parse().unwrap();
    let first = images.push(&app, &tag("one"));
    let second = images.push(&app, &tag("one"));
    assert_ne!(first, second);
    assert_eq!(images.all_calls(), 0, "pushing is not a call");
    assert_eq!(images.resolve(&app, &tag("one")).await.unwrap(), Some(second.clone()));
    images.fail(Some("ghcr.io"), Some("no route to host"));
    assert!(images.exists(&app, &second).await.is_err());
    images.fail(Some("ghcr.io"), None);
    assert!(images.exists(&app, &second).await.unwrap());
    assert_eq!(
        (
            images.calls("exists"),
            images.calls("resolve"),
            images.calls("tags"),
            images.all_calls()
        ),
        (2, 1, 0, 3)
    );
}
