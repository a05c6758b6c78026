//! Tests the registry's protocol over real sockets and files.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use proptest::prelude::*;
use std::{
    io::{BufRead, Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};
use towpath_images::{Registry, RegistryError};
use towpath_types::{Digest, DigestAlgorithm};

#[tokio::test]
async fn the_base_answers_with_and_without_a_slash() {
    let served = serve(Everybody).await;
    for path in ["/v2/", "/v2"] {
        let answer = served.get(path).await.expect(200);
        assert_eq!(answer.header("docker-distribution-api-version"), "registry/2.0");
    }
    served.send("POST /v2/", &[], "").await.refused(405, "UNSUPPORTED");
    served.get("/v2/_catalog").await.refused(404, "UNSUPPORTED");
    served.get("/v2/A/tags/list").await.refused(400, "NAME_INVALID");
    served
        .get("/v2/a%2F..%2F..%2Fb/tags/list")
        .await
        .refused(400, "NAME_INVALID");
}

#[tokio::test]
async fn a_blob_in_one_request() {
    let served = serve(Everybody).await;
    let digest = served.blob("team/app", b"0123456789").await;
    let path = format!("/v2/team/app/blobs/{digest}");
    let head = served.send(&format!("HEAD {path}"), &[], "").await.expect(200);
    assert_eq!(head.header("content-length"), "10");
    assert_eq!(head.header("docker-content-digest"), digest.as_str());
    assert_eq!(head.body, b"");
    let get = served.get(&path).await.expect(200);
    assert_eq!(get.body, b"0123456789");
    assert_eq!(get.header("accept-ranges"), "bytes");
    // Another repository does not have the blob, even for a client that knows its digest.
    served
        .get(&format!("/v2/other/blobs/{digest}"))
        .await
        .refused(404, "BLOB_UNKNOWN");
    // Uploading the same bytes again is fine.
    served.blob("team/app", b"0123456789").await;
    served.blob("team/app", b"").await;
}

#[tokio::test]
async fn parts_of_a_blob() {
    let served = serve(Everybody).await;
    let digest = served.blob("a", b"0123456789").await;
    let line = format!("GET /v2/a/blobs/{digest}");
    for (range, status, body, content_range) in [
        ("bytes=2-4", 206, "234", "bytes 2-4/10"),
        ("bytes=7-", 206, "789", "bytes 7-9/10"),
        ("bytes=7-99", 206, "789", "bytes 7-9/10"),
        ("bytes=-1", 206, "9", "bytes 9-9/10"),
        ("bytes=0-0,2-3", 200, "0123456789", ""),
    ] {
        let answer = served.send(&line, &[("range", range)], "").await.expect(status);
        assert_eq!(String::from_utf8_lossy(&answer.body), body, "{range}");
        assert_eq!(answer.header("content-range"), content_range, "{range}");
        assert_eq!(answer.header("content-length"), body.len().to_string(), "{range}");
    }
    let answer = served.send(&line, &[("range", "bytes=10-")], "").await.expect(416);
    assert_eq!(answer.header("content-range"), "bytes */10");
}

#[tokio::test]
async fn a_digest_that_is_wrong_by_one_byte_leaves_nothing() {
    let served = serve(Everybody).await;
    let wrong = Digest::of(b"bytes that were meant");
    let line = format!("POST /v2/a/blobs/uploads/?digest={wrong}");
    served
        .send(&line, &[], "bytes that were sent!")
        .await
        .refused(400, "DIGEST_INVALID");

    let upload = served.upload("a").await;
    served
        .send(&format!("PATCH {upload}"), &[], "bytes that were")
        .await
        .expect(202);
    served
        .send(&format!("PUT {upload}?digest={wrong}"), &[], " sent!")
        .await
        .refused(400, "DIGEST_INVALID");
    served.get(&upload).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    served
        .get(&format!("/v2/a/blobs/{wrong}"))
        .await
        .refused(404, "BLOB_UNKNOWN");

    for digest in ["sha256:00", "sha512:00", "../../x", ""] {
        let line = format!("POST /v2/a/blobs/uploads/?digest={digest}");
        served.send(&line, &[], "x").await.refused(400, "DIGEST_INVALID");
    }
    assert_eq!((served.files("repositories"), served.files("blobs")), (0, 0));
}

#[tokio::test]
async fn chunks_come_in_order() {
    let served = serve(Everybody).await;
    let upload = served.upload("a").await;
    let patch = format!("PATCH {upload}");
    let status = served.get(&upload).await.expect(204);
    assert_eq!(status.header("range"), "0-0");

    let answer = served
        .send(&patch, &[("content-range", "0-3")], "0123")
        .await
        .expect(202);
    assert_eq!(answer.header("range"), "0-3");
    assert_eq!(answer.header("location"), upload);
    for range in ["0-3", "5-8", "3-6"] {
        let answer = served
            .send(&patch, &[("content-range", range)], "xxxx")
            .await
            .expect(416);
        assert_eq!(answer.header("range"), "0-3", "{range}");
    }
    served
        .send(&patch, &[("content-range", "4-9")], "4567")
        .await
        .refused(400, "SIZE_INVALID");
    served
        .send(&patch, &[("content-range", "4-5")], "4567")
        .await
        .refused(400, "SIZE_INVALID");
    served
        .send(&patch, &[("content-range", "4")], "4567")
        .await
        .refused(400, "BLOB_UPLOAD_INVALID");
    assert_eq!(
        served.get(&upload).await.header("range"),
        "0-3",
        "what was refused does not stay"
    );
    served
        .send(&patch, &[("content-range", "bytes 4-6/10")], "456")
        .await
        .expect(202);
    let digest = Digest::of(b"0123456789");
    let put = format!("PUT {upload}?digest={digest}");
    served.send(&put, &[("content-range", "8-10")], "789").await.expect(416);
    let answer = served.send(&put, &[("content-range", "7-9")], "789").await.expect(201);
    assert_eq!(answer.header("location"), format!("/v2/a/blobs/{digest}"));
    assert_eq!(served.get(answer.header("location")).await.body, b"0123456789");
    served.send(&patch, &[], "x").await.refused(404, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn an_upload_can_be_cancelled_and_belongs_to_its_repository() {
    let served = serve(Everybody).await;
    let upload = served.upload("a").await;
    let elsewhere = upload.replace("/v2/a/", "/v2/b/");
    served
        .send(&format!("PATCH {elsewhere}"), &[], "x")
        .await
        .refused(404, "BLOB_UPLOAD_UNKNOWN");
    served
        .send(&format!("PUT {upload}"), &[], "")
        .await
        .refused(400, "DIGEST_INVALID");
    served.send(&format!("DELETE {upload}"), &[], "").await.expect(204);
    served.get(&upload).await.refused(404, "BLOB_UPLOAD_UNKNOWN");
    served
        .get("/v2/a/blobs/uploads/not-a-uuid")
        .await
        .refused(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(served.files("repositories"), 0);
}

#[tokio::test]
async fn a_blob_is_mounted_from_another_repository() {
    let served = serve(Everybody).await;
    let digest = served.blob("a", b"layer").await;
    let line = format!("POST /v2/b/blobs/uploads/?mount={digest}&from=a");
    let answer = served.send(&line, &[], "").await.expect(201);
    assert_eq!(served.get(answer.header("location")).await.body, b"layer");
    // A mount that is not possible becomes an upload.
    for query in [
        format!("mount={digest}&from=c"),
        format!("mount={digest}"),
        format!("mount={digest}&from=.."),
        format!("mount={}&from=a", Digest::of(b"x")),
    ] {
        let answer = served
            .send(&format!("POST /v2/d/blobs/uploads/?{query}"), &[], "")
            .await
            .expect(202);
        assert!(answer.header("location").starts_with("/v2/d/blobs/uploads/"), "{query}");
    }
    served
        .get(&format!("/v2/d/blobs/{digest}"))
        .await
        .refused(404, "BLOB_UNKNOWN");
}

#[tokio::test]
async fn everything_may_be_named_by_sha512() {
    let served = serve(Everybody).await;
    let named = |bytes: &[u8]| DigestAlgorithm::Sha512.digest(bytes);
    let (config, layer) = (b"{}".as_slice(), b"0123456789".as_slice());
    let line = format!("POST /v2/a/blobs/uploads/?digest={}", named(config));
    served.send(&line, &[], config.to_vec()).await.expect(201);
    // In two pieces, and first with a claim that is wrong.
    for claim in [named(b"other"), named(layer)] {
        let upload = served.upload("a").await;
        let chunk = format!("PATCH {upload}");
        let next = served.send(&chunk, &[], layer[..4].to_vec()).await.expect(202);
        let last = format!("PUT {}?digest={claim}", next.header("location"));
        let answer = served.send(&last, &[], layer[4..].to_vec()).await;
        if claim == named(layer) {
            assert_eq!(answer.expect(201).header("location"), format!("/v2/a/blobs/{claim}"));
        } else {
            answer.refused(400, "DIGEST_INVALID");
        }
    }
    let path = format!("/v2/a/blobs/{}", named(layer));
    assert_eq!(served.get(&path).await.expect(200).body, layer);

    let descriptor = |bytes: &[u8]| serde_json::json!({"mediaType": "x", "digest": named(bytes), "size": bytes.len()});
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": descriptor(config), "layers": [descriptor(layer)],
    });
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let digest = named(&manifest);
    let wrong = named(b"other");
    let answer = served.put_manifest("a", wrong.as_str(), OCI_MANIFEST, &manifest);
    answer.await.refused(400, "DIGEST_INVALID");
    let answer = served.put_manifest("a", digest.as_str(), OCI_MANIFEST, &manifest);
    answer.await.expect(201);
    let path = format!("/v2/a/manifests/{digest}");
    let answer = served.get(&path).await.expect(200);
    assert_eq!(answer.header("docker-content-digest"), digest.as_str());
    assert_eq!(answer.body, manifest);

    let signature = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "application/signature",
        "config": descriptor(config), "layers": [],
        "subject": {"mediaType": OCI_MANIFEST, "digest": digest, "size": manifest.len()},
    });
    let signature = serde_json::to_vec(&signature).unwrap();
    let answer = served.put_manifest("a", "signature", OCI_MANIFEST, &signature);
    answer.await.expect(201);
    let path = format!("/v2/a/referrers/{digest}");
    let referrers = served.get(&path).await.expect(200).json();
    assert_eq!(referrers["manifests"][0]["digest"], Digest::of(&signature).as_str());

    assert_eq!(served.registry.collect(Duration::ZERO).await.unwrap().blobs, 0);
    for reference in [digest, Digest::of(&signature)] {
        let line = format!("DELETE /v2/a/manifests/{reference}");
        served.send(&line, &[], "").await.expect(202);
    }
    assert_eq!(served.registry.collect(Duration::ZERO).await.unwrap().blobs, 4);
    assert_eq!(served.files("blobs"), 0);
}

#[tokio::test]
async fn manifests_by_tag_and_by_digest() {
    let served = serve(Everybody).await;
    let first = served.image("team/app", "latest", b"one").await;
    for reference in ["latest", first.as_str()] {
        let answer = served
            .get(&format!("/v2/team/app/manifests/{reference}"))
            .await
            .expect(200);
        assert_eq!(answer.body, manifest(b"one"));
        assert_eq!(answer.header("content-type"), OCI_MANIFEST);
        assert_eq!(answer.header("docker-content-digest"), first.as_str());
        let head = served
            .send(&format!("HEAD /v2/team/app/manifests/{reference}"), &[], "")
            .await
            .expect(200);
        assert_eq!(head.header("content-length"), answer.body.len().to_string());
        assert_eq!(head.body, b"");
    }
    // The tag moves. The old manifest stays, and no layer moves.
    let second = served.image("team/app", "latest", b"two").await;
    assert_eq!(served.get("/v2/team/app/manifests/latest").await.body, manifest(b"two"));
    let blobs = served.files("blobs");
    let name = "team/app".parse().unwrap();
    served
        .registry
        .tag(&name, &first, &"latest".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(served.get("/v2/team/app/manifests/latest").await.body, manifest(b"one"));
    assert_eq!(served.files("blobs"), blobs);
    assert_eq!(
        served
            .registry
            .resolve(&name, &"latest".parse().unwrap())
            .await
            .unwrap(),
        Some(first.clone())
    );
    assert_eq!(
        served.registry.resolve(&name, &"x".parse().unwrap()).await.unwrap(),
        None
    );
    assert!(served.registry.manifest_exists(&name, &second).await.unwrap());
    let unknown = served
        .registry
        .tag(&name, &Digest::of(b"?"), &"x".parse().unwrap())
        .await;
    assert!(matches!(unknown, Err(RegistryError::ManifestUnknown { .. })));

    let pushed: Vec<_> = served
        .pushed
        .lock()
        .unwrap()
        .iter()
        .map(|p| {
            (
                p.repository.to_string(),
                p.tag.as_ref().map(ToString::to_string),
                p.digest.clone(),
            )
        })
        .collect();
    let latest = || ("team/app".to_string(), Some("latest".to_string()));
    let expect = [first.clone(), second].map(|digest| (latest().0, latest().1, digest));
    assert_eq!(pushed, expect);

    // Deleting a tag deletes nothing else. Deleting a manifest deletes its tags.
    served.image("team/app", "other", b"two").await;
    served
        .send("DELETE /v2/team/app/manifests/other", &[], "")
        .await
        .expect(202);
    served
        .get("/v2/team/app/manifests/other")
        .await
        .refused(404, "MANIFEST_UNKNOWN");
    let delete = format!("DELETE /v2/team/app/manifests/{first}");
    served.send(&delete, &[], "").await.expect(202);
    served.send(&delete, &[], "").await.refused(404, "MANIFEST_UNKNOWN");
    served
        .get("/v2/team/app/manifests/latest")
        .await
        .refused(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn a_manifest_needs_what_it_refers_to() {
    let served = serve(Everybody).await;
    let bytes = manifest(b"layer");
    let answer = served.put_manifest("a", "x", OCI_MANIFEST, &bytes).await;
    let answer = answer.refused(404, "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(
        answer.json()["errors"][0]["detail"]["digests"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    served.blob("a", b"{}").await;
    served.blob("other", b"layer").await;
    served
        .put_manifest("a", "x", OCI_MANIFEST, &bytes)
        .await
        .refused(404, "MANIFEST_BLOB_UNKNOWN");
    served.blob("a", b"layer").await;
    served
        .put_manifest("a", Digest::of(b"other").as_str(), OCI_MANIFEST, &bytes)
        .await
        .refused(400, "DIGEST_INVALID");
    served
        .put_manifest("a", "x", "text/plain", &bytes)
        .await
        .refused(400, "MANIFEST_INVALID");
    served
        .put_manifest("a", ".x", OCI_MANIFEST, &bytes)
        .await
        .refused(400, "MANIFEST_INVALID");
    served
        .put_manifest("a", "x", OCI_MANIFEST, b"{")
        .await
        .refused(400, "MANIFEST_INVALID");
    let mut wrong: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    wrong["layers"][0]["size"] = 4.into();
    served
        .put_manifest("a", "x", OCI_MANIFEST, wrong.to_string().as_bytes())
        .await
        .refused(400, "SIZE_INVALID");
    let big = vec![b' '; 4 * 1024 * 1024 + 1];
    served
        .put_manifest("a", "x", OCI_MANIFEST, &big)
        .await
        .refused(413, "SIZE_INVALID");
    served.get("/v2/a/tags/list").await.refused(404, "NAME_UNKNOWN");

    served.put_manifest("a", "x", OCI_MANIFEST, &bytes).await.expect(201);
    let mut docker: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    docker["mediaType"] = DOCKER_MANIFEST.into();
    served
        .put_manifest("a", "docker", DOCKER_MANIFEST, docker.to_string().as_bytes())
        .await
        .expect(201);
    assert_eq!(
        served.get("/v2/a/manifests/docker").await.header("content-type"),
        DOCKER_MANIFEST
    );

    let index = |entry: serde_json::Value| serde_json::json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
    let good = index(descriptor(OCI_MANIFEST, &bytes));
    served
        .put_manifest("a", "index", OCI_INDEX, good.as_bytes())
        .await
        .expect(201);
    assert_eq!(
        served.get("/v2/a/manifests/index").await.header("content-type"),
        OCI_INDEX
    );
    let bad = index(descriptor(OCI_MANIFEST, b"unknown"));
    served
        .put_manifest("a", "bad", OCI_INDEX, bad.as_bytes())
        .await
        .refused(404, "MANIFEST_BLOB_UNKNOWN");
}

#[tokio::test]
async fn tags_are_listed_in_pages() {
    let served = serve(Everybody).await;
    for tag in ["b", "A", "c", "a", "d"] {
        served.image("a", tag, b"layer").await;
    }
    let tags = |answer: &Answer| {
        answer.json()["tags"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t.as_str().unwrap().to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(tags(&served.get("/v2/a/tags/list").await), ["A", "a", "b", "c", "d"]);
    let (mut path, mut all) = ("/v2/a/tags/list?n=2".to_string(), Vec::new());
    let mut pages = 0;
    loop {
        let answer = served.get(&path).await.expect(200);
        all.extend(tags(&answer));
        pages += 1;
        let Some(next) = answer.header("link").strip_prefix('<') else {
            break;
        };
        path = next.strip_suffix(">; rel=\"next\"").unwrap().to_string();
    }
    assert_eq!((all.join(" ").as_str(), pages), ("A a b c d", 3));
    assert_eq!(tags(&served.get("/v2/a/tags/list?n=0").await), [""; 0]);
    assert_eq!(tags(&served.get("/v2/a/tags/list?last=bb").await), ["c", "d"]);
    served.get("/v2/a/tags/list?n=x").await.expect(400);
    let names: Vec<_> = served.registry.tags(&"a".parse().unwrap()).await.unwrap();
    assert_eq!(names.len(), 5);
    assert!(served.registry.tags(&"none".parse().unwrap()).await.unwrap().is_empty());
}

#[tokio::test]
async fn referrers_of_a_subject() {
    let served = serve(Everybody).await;
    served.blob("a", b"{}").await;
    // The subject need not exist.
    let subject = descriptor(OCI_MANIFEST, b"later");
    let path = format!("/v2/a/referrers/{}", Digest::of(b"later"));
    let empty = served.get(&path).await.expect(200);
    assert_eq!(empty.json()["manifests"].as_array().unwrap().len(), 0);
    assert_eq!(empty.header("content-type"), OCI_INDEX);
    served
        .get("/v2/a/referrers/sha256:0")
        .await
        .refused(400, "DIGEST_INVALID");

    let mut digests = Vec::new();
    for (artifact_type, config_type) in [(Some("application/sbom"), "x"), (None, "application/signature")] {
        let mut document = serde_json::json!({
            "schemaVersion": 2, "config": descriptor(config_type, b"{}"), "layers": [], "subject": subject,
            "annotations": {"who": "test"},
        });
        if let Some(artifact_type) = artifact_type {
            document["artifactType"] = artifact_type.into();
        }
        let bytes = document.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        let answer = served
            .put_manifest("a", digest.as_str(), OCI_MANIFEST, &bytes)
            .await
            .expect(201);
        assert_eq!(answer.header("oci-subject"), Digest::of(b"later").as_str());
        digests.push(digest);
    }
    let all = served.get(&path).await;
    assert_eq!(all.json()["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(all.header("oci-filters-applied"), "");
    for (digest, artifact_type) in digests.iter().zip(["application/sbom", "application/signature"]) {
        let some = served
            .get(&format!("{path}?artifactType={artifact_type}"))
            .await
            .expect(200);
        assert_eq!(some.header("oci-filters-applied"), "artifactType");
        let manifests = some.json()["manifests"].clone();
        assert_eq!(manifests.as_array().unwrap().len(), 1);
        assert_eq!(manifests[0]["digest"], digest.as_str());
        assert_eq!(manifests[0]["artifactType"], artifact_type);
        assert_eq!(manifests[0]["annotations"]["who"], "test");
    }
    served
        .send(&format!("DELETE /v2/a/manifests/{}", digests[0]), &[], "")
        .await
        .expect(202);
    assert_eq!(served.get(&path).await.json()["manifests"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn who_may_do_what() {
    let served = serve(TwoUsers).await;
    let pusher = ("authorization", "Basic cHVzaGVyOm9wZW4gc2VzYW1l");
    let reader = ("authorization", "Basic cmVhZGVyOm9wZW4gc2VzYW1l");
    for line in [
        "GET /v2/",
        "GET /v2/a/tags/list",
        "POST /v2/a/blobs/uploads/",
        "DELETE /v2/a/manifests/x",
    ] {
        let answer = served.send(line, &[], "").await.refused(401, "UNAUTHORIZED");
        assert_eq!(answer.header("www-authenticate"), "Basic realm=\"towpath\"", "{line}");
    }
    served.send("GET /v2/", &[reader], "").await.expect(200);
    served
        .send("POST /v2/a/blobs/uploads/", &[reader], "")
        .await
        .refused(403, "DENIED");
    let upload = served
        .send("POST /v2/a/blobs/uploads/", &[pusher], "")
        .await
        .expect(202);
    let upload = upload.header("location").to_string();
    for method in ["GET", "PATCH", "PUT", "DELETE"] {
        served
            .send(&format!("{method} {upload}"), &[reader], "")
            .await
            .refused(403, "DENIED");
    }
    let digest = Digest::of(b"x");
    let line = format!("POST /v2/a/blobs/uploads/?digest={digest}");
    served.send(&line, &[pusher], "x").await.expect(201);
    served
        .send(&format!("DELETE /v2/a/blobs/{digest}"), &[reader], "")
        .await
        .refused(403, "DENIED");
    served
        .send(&format!("GET /v2/a/blobs/{digest}"), &[reader], "")
        .await
        .expect(200);

    // A mount cannot read what its user may not read.
    served
        .registry
        .resolve(&"hidden".parse().unwrap(), &"x".parse().unwrap())
        .await
        .unwrap();
    let hidden = served.dir.path().join("repositories/hidden/_layers");
    std::fs::create_dir_all(&hidden).unwrap();
    std::fs::write(hidden.join(digest.hex()), "").unwrap();
    let line = format!("POST /v2/b/blobs/uploads/?mount={digest}&from=hidden");
    served.send(&line, &[pusher], "").await.expect(202);
}

#[tokio::test]
async fn garbage_is_what_no_manifest_needs() {
    let served = serve(Everybody).await;
    let image = served.image("a", "latest", b"layer").await;
    served.image("b", "latest", b"layer").await;
    let orphan = served.blob("a", b"orphan").await;
    let upload = served.upload("a").await;
    served.send(&format!("PATCH {upload}"), &[], "half").await.expect(202);

    let none = served.registry.collect(Duration::from_secs(3600)).await.unwrap();
    assert_eq!(none, Default::default(), "all of it is young");
    let some = served.registry.collect(Duration::ZERO).await.unwrap();
    assert_eq!((some.unlinked, some.blobs, some.bytes, some.uploads), (1, 1, 6, 0));
    let file = served
        .dir
        .path()
        .join("repositories/a/_uploads")
        .join(upload.rsplit('/').next().unwrap());
    make_old(&file);
    let some = served.registry.collect(Duration::ZERO).await.unwrap();
    assert_eq!((some.unlinked, some.blobs, some.uploads), (0, 0, 1));
    served
        .get(&format!("/v2/a/blobs/{orphan}"))
        .await
        .refused(404, "BLOB_UNKNOWN");
    served
        .send(&format!("PATCH {upload}"), &[], "half")
        .await
        .refused(404, "BLOB_UPLOAD_UNKNOWN");

    // The collection keeps an untagged manifest with everything that it needs, and another repository's layer.
    served.send("DELETE /v2/a/manifests/latest", &[], "").await.expect(202);
    assert_eq!(
        served.registry.collect(Duration::ZERO).await.unwrap(),
        Default::default()
    );
    served
        .send(&format!("DELETE /v2/a/manifests/{image}"), &[], "")
        .await
        .expect(202);
    let some = served.registry.collect(Duration::ZERO).await.unwrap();
    assert_eq!((some.unlinked, some.blobs), (2, 0), "`b` needs the bytes");
    let layer = Digest::of(b"layer");
    served.get(&format!("/v2/a/blobs/{layer}")).await.expect(404);
    served.get(&format!("/v2/b/blobs/{layer}")).await.expect(200);
    served
        .send(&format!("DELETE /v2/b/manifests/{image}"), &[], "")
        .await
        .expect(202);
    let some = served.registry.collect(Duration::ZERO).await.unwrap();
    assert_eq!((some.unlinked, some.blobs), (2, 3));
    assert_eq!(served.files("blobs"), 0);
}

#[tokio::test]
async fn a_blob_that_a_client_heard_of_is_young_again() {
    let served = serve(Everybody).await;
    let digest = served.blob("a", b"layer").await;
    let link = served.dir.path().join("repositories/a/_layers").join(digest.hex());
    let age = || make_old(&link);
    let grace = Duration::from_secs(3600);

    age();
    served
        .send(&format!("HEAD /v2/a/blobs/{digest}"), &[], "")
        .await
        .expect(200);
    assert_eq!(served.registry.collect(grace).await.unwrap().unlinked, 0);
    age();
    served.blob("a", b"layer").await;
    assert_eq!(served.registry.collect(grace).await.unwrap().unlinked, 0);
    age();
    assert_eq!(served.registry.collect(grace).await.unwrap().unlinked, 1);
}

/// Many clients push images with a common layer during continuous garbage collection. Every push that succeeded must be
/// complete, whatever was collected. The refusal of a manifest names the collected blob.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pushes_and_collections_at_the_same_time() {
    let served = Arc::new(serve(Everybody).await);
    let mut pushes = tokio::task::JoinSet::new();
    for client in 0..8 {
        let served = served.clone();
        pushes.spawn(async move {
            let mut refused = 0;
            for round in 0..6 {
                let layer = if round % 2 == 0 {
                    b"common".to_vec()
                } else {
                    vec![client; 100_000]
                };
                served.blob("a", b"{}").await;
                served.blob("a", &layer).await;
                let tag = format!("c{client}-{round}");
                let answer = served.put_manifest("a", &tag, OCI_MANIFEST, &manifest(&layer)).await;
                if answer.status == 404 {
                    answer.refused(404, "MANIFEST_BLOB_UNKNOWN");
                    refused += 1;
                    continue;
                }
                answer.expect(201);
                let got = served
                    .get(&format!("/v2/a/blobs/{}", Digest::of(&layer)))
                    .await
                    .expect(200);
                assert_eq!(got.body, layer);
            }
            refused
        });
    }
    let collecting = {
        let served = served.clone();
        tokio::spawn(async move {
            for _ in 0..20 {
                served.registry.collect(Duration::ZERO).await.unwrap();
            }
        })
    };
    while let Some(refused) = pushes.join_next().await {
        eprintln!(
            "{} of 6 manifests came after their blob was collected",
            refused.unwrap()
        );
    }
    collecting.await.unwrap();
    for tag in served.registry.tags(&"a".parse().unwrap()).await.unwrap() {
        let answer = served.get(&format!("/v2/a/manifests/{tag}")).await.expect(200);
        let layer = answer.json()["layers"][0]["digest"].as_str().unwrap().to_string();
        let blob = served.get(&format!("/v2/a/blobs/{layer}")).await.expect(200);
        assert_eq!(Digest::of(&blob.body).as_str(), layer);
    }
    assert_eq!(served.files("temporary"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_blob_from_many_clients() {
    let served = Arc::new(serve(Everybody).await);
    let bytes = vec![7; 3_000_000];
    let mut pushes = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (served, bytes) = (served.clone(), bytes.clone());
        pushes.spawn(async move { served.blob("a", &bytes).await });
    }
    pushes.join_all().await;
    assert_eq!(
        served.get(&format!("/v2/a/blobs/{}", Digest::of(&bytes))).await.body,
        bytes
    );
    assert_eq!((served.files("blobs"), served.files("repositories/a/_uploads")), (1, 0));
}

#[tokio::test]
async fn a_push_that_cannot_be_noted_is_not_said_to_be_done() {
    let served = serve(Everybody).await;
    served.blob("a", b"{}").await;
    served.blob("a", b"layer").await;
    let bytes = manifest(b"layer");
    let push = async || served.put_manifest("a", "v1", OCI_MANIFEST, &bytes).await;
    for (is_disk_full, status) in [(false, 503), (true, 507)] {
        *served.refusal.lock().unwrap() = Some(towpath_images::registry::NotNoted {
            message: "the storage is away".into(),
            is_disk_full,
        });
        let refused = push().await.refused(status, "UNKNOWN");
        let text = String::from_utf8_lossy(&refused.body).into_owned();
        assert!(text.contains("the storage is away; push again"), "{text}");
    }
    *served.refusal.lock().unwrap() = None;
    push().await.expect(201);
    assert_eq!(served.pushed.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_folder_is_served_by_several_and_cleaned_by_the_only_one() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Registry::open(dir.path(), Arc::new(Everybody), Arc::new(|_| Ok(()))).unwrap();
    let left = dir.path().join("temporary/left");
    let first = open();
    std::fs::write(&left, "x").unwrap();
    let second = open();
    assert!(left.exists(), "the first one may be writing it");
    drop(first);
    drop(second);
    // Between its fork and its exec, a process of another test shares this one's files, and with them the lock on the folder.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while left.exists() && std::time::Instant::now() < deadline {
        drop(open());
        std::thread::yield_now();
    }
    assert!(!left.exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A blob arrives intact however it is cut into chunks, even with a wrong chunk, a query or a restart of the server in
    /// between.
    #[test]
    fn any_chunking_gives_the_same_blob(
        bytes in proptest::collection::vec(any::<u8>(), 0..200_000),
        cuts in proptest::collection::vec((any::<proptest::sample::Index>(), 0..4_u8), 0..6),
        last_in_put in any::<bool>(),
    ) {
        let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let open = || Registry::open(dir.path(), Arc::new(Everybody), Arc::new(|_| Ok(()))).unwrap();
        let mut places: Vec<(usize, u8)> = cuts.iter().map(|(at, event)| (at.index(bytes.len() + 1), *event)).collect();
        places.sort_unstable();
        places.push((bytes.len(), 0));
        let mut server = runtime();
        let mut address = server.block_on(listen(open()));
        let client = runtime();
        let mut http = plain_http();
        let send = |http: &reqwest::Client, address: &str, line: String, range: Option<String>, body: Vec<u8>| {
            let headers: Vec<(&str, &str)> = range.iter().map(|r| ("content-range", r.as_str())).collect();
            client.block_on(send_to(http, address, &line, &headers, body))
        };
        let upload = send(&http, &address, "POST /v2/a/blobs/uploads/".into(), None, vec![]);
        let upload = upload.expect(202).header("location").to_string();
        let mut at = 0;
        for (place, event) in places {
            let chunk = &bytes[at..place];
            let is_left_for_put = last_in_put && place == bytes.len();
            if !chunk.is_empty() && !is_left_for_put {
                let range = format!("{at}-{}", place - 1);
                let answer = send(&http, &address, format!("PATCH {upload}"), Some(range), chunk.to_vec()).expect(202);
                at = place;
                prop_assert_eq!(answer.header("range"), format!("0-{}", at - 1));
            }
            match event {
                1 => {
                    let wrong = format!("{}-{}", at + 1, at + 1);
                    send(&http, &address, format!("PATCH {upload}"), Some(wrong), vec![0]).expect(416);
                }
                2 => {
                    let answer = send(&http, &address, format!("GET {upload}"), None, vec![]).expect(204);
                    prop_assert_eq!(answer.header("range"), format!("0-{}", at.saturating_sub(1)));
                }
                3 => {
                    // This waits for the runtime's tasks, so that the folder is free.
                    server.shutdown_timeout(Duration::from_secs(10));
                    server = runtime();
                    address = server.block_on(listen(open()));
                    http = plain_http();
                }
                _ => {}
            }
        }
        let digest = Digest::of(&bytes);
        let line = format!("PUT {upload}?digest={digest}");
        send(&http, &address, line, None, bytes[at..].to_vec()).expect(201);
        let blob = send(&http, &address, format!("GET /v2/a/blobs/{digest}"), None, vec![]).expect(200);
        prop_assert_eq!(blob.body, bytes);
        server.shutdown_timeout(Duration::from_secs(10));
    }
}

const SERVE: &str = "TOWPATH_TEST_SERVE";

/// Not a test by itself: the server that `an_upload_outlives_a_killed_server` starts and kills.
#[tokio::test]
async fn a_server_to_kill() {
    let Ok(dir) = std::env::var(SERVE) else { return };
    let registry = Registry::open(dir, Arc::new(Everybody), Arc::new(|_| Ok(()))).unwrap();
    println!("\nlistening {}", listen(registry).await);
    std::future::pending::<()>().await;
}

/// A server in a process of its own. Dropping the value kills it.
struct Server {
    process: std::process::Child,
    address: String,
}

impl Server {
    fn start(dir: &std::path::Path) -> Self {
        let mut process = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["a_server_to_kill", "--exact", "--nocapture"])
            .env(SERVE, dir)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(process.stdout.take().unwrap()).lines();
        let address = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("listening ").map(str::to_string))
            .expect("the server says where it listens");
        Self { process, address }
    }
}

impl Drop for Server {
    /// SIGKILL: the process gets no warning.
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_outlives_a_killed_server() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    let digest = Digest::of(&bytes);
    let server = Server::start(dir.path());
    let answer = send_to(&plain_http(), &server.address, "POST /v2/a/blobs/uploads/", &[], "").await;
    let upload = answer.expect(202).header("location").to_string();

    // Send half of the promised bytes. Then the server dies with the connection open.
    let mut half = TcpStream::connect(&server.address).unwrap();
    let head = format!(
        "PATCH {upload} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    );
    half.write_all(head.as_bytes()).unwrap();
    half.write_all(&bytes[..1_500_000]).unwrap();
    let arrived = wait_for_bytes(dir.path(), 1_000_000).await;
    drop(server);
    assert_eq!(half.read(&mut [0]).unwrap_or(0), 0);

    let server = Server::start(dir.path());
    let http = plain_http();
    let status = send_to(&http, &server.address, &format!("GET {upload}"), &[], "")
        .await
        .expect(204);
    let last: usize = status.header("range").strip_prefix("0-").unwrap().parse().unwrap();
    assert!(last + 1 >= arrived, "{last} of {arrived}");
    let range = format!("{}-{}", last + 1, bytes.len() - 1);
    let rest = bytes[last + 1..].to_vec();
    let patch = format!("PATCH {upload}");
    send_to(&http, &server.address, &patch, &[("content-range", &range)], rest)
        .await
        .expect(202);
    let put = format!("PUT {upload}?digest={digest}");
    send_to(&http, &server.address, &put, &[], "").await.expect(201);
    let line = format!("GET /v2/a/blobs/{digest}");
    assert_eq!(
        send_to(&http, &server.address, &line, &[], "").await.expect(200).body,
        bytes
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_goes_on_after_the_client_hung_up() {
    let served = serve(Everybody).await;
    let bytes = vec![5; 2_000_000];
    let upload = served.upload("a").await;
    let mut half = TcpStream::connect(&served.address).unwrap();
    let head = format!(
        "PATCH {upload} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    );
    half.write_all(head.as_bytes()).unwrap();
    half.write_all(&bytes[..700_000]).unwrap();
    wait_for_bytes(served.dir.path(), 600_000).await;
    drop(half);
    // The first answer may come before the server notices. A second writer waits for it, and then learns the offset.
    let wrong = [("content-range", "1999998-1999998")];
    let answer = served.send(&format!("PATCH {upload}"), &wrong, "x").await.expect(416);
    let last: usize = answer.header("range").strip_prefix("0-").unwrap().parse().unwrap();
    assert_eq!(last, 699_999);
    let put = format!("PUT {upload}?digest={}", Digest::of(&bytes));
    served.send(&put, &[], bytes[last + 1..].to_vec()).await.expect(201);
}

/// Makes a file two hours old.
fn make_old(path: &std::path::Path) {
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(7200);
    let file = std::fs::File::options().append(true).open(path).unwrap();
    file.set_modified(long_ago).unwrap();
}

/// Waits until an upload of repository `a` has at least this many bytes. Returns how many it has.
async fn wait_for_bytes(dir: &std::path::Path, at_least: usize) -> usize {
    let uploads = dir.join("repositories/a/_uploads");
    let mut seen = 0;
    let wait = async {
        loop {
            for entry in std::fs::read_dir(&uploads).unwrap() {
                seen = entry.unwrap().metadata().unwrap().len() as usize;
                if seen >= at_least {
                    return seen;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
    waited.unwrap_or_else(|_| panic!("the upload has {seen} bytes after 20 s, not {at_least}"))
}

#[tokio::test]
async fn uploads_that_nobody_finishes_are_bounded() {
    let served = serve(Everybody).await;
    let begin = async |repository: &str| {
        let address = format!("http://{}/v2/{repository}/blobs/uploads/", served.address);
        served.http.post(address).send().await.unwrap().status().as_u16()
    };
    for _ in 0..100 {
        assert_eq!(begin("team/app").await, 202);
    }
    assert_eq!(begin("team/app").await, 429);
    assert_eq!(begin("team/other").await, 202);
}
