//! Builds, pushes, pulls and runs with a real container engine, and copies with `skopeo`.
//!
//! No image comes from elsewhere: the containers run this test program, which is static.
#![allow(clippy::unwrap_used)]

mod common;

use bollard::{
    Docker,
    auth::DockerCredentials,
    models::{ContainerCreateBody, HostConfig},
    query_parameters::{
        CreateImageOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
    },
};
use common::*;
use futures::{StreamExt, TryStreamExt};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};
use towpath_container::{
    ContainerClient, ScratchImage, load_scratch_image,
    scratch::{FileContent, ScratchFile},
};
use towpath_images::{BuildError, BuildRequest, BuiltImage, PushError, RegistryClient, build, push};
use towpath_types::{Digest, ImageReference, Outcome, RegistryCredentials, SecretString};

const LABEL: &str = "dev.towpath.test";
const SAY: &str = "TOWPATH_TEST_SAY";
const SMALL_DISK: &str = "TOWPATH_TEST_SMALL_DISK";

/// The engine as the crate uses it, and a client to inspect it; `None` if there is no engine.
async fn engine() -> Option<(ContainerClient, Docker)> {
    let client = ContainerClient::connect().await;
    let client = client
        .inspect_err(|e| skipped(&format!("no container engine answers: {e}")))
        .ok()?;
    Some((client, Docker::connect_with_defaults().unwrap()))
}

/// Removes containers and images when the test ends, however it ends.
#[derive(Default)]
struct Remove {
    containers: Vec<String>,
    images: Vec<String>,
}

impl Drop for Remove {
    fn drop(&mut self) {
        let (containers, images) = (std::mem::take(&mut self.containers), std::mem::take(&mut self.images));
        // Use a runtime of its own, because the test's may be ending.
        let removal = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let docker = Docker::connect_with_defaults().unwrap();
                for container in containers {
                    let force = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
                    let _ = docker.remove_container(&container, Some(force)).await;
                }
                for image in images {
                    remove_image(&docker, &image).await;
                }
            });
        });
        let _ = removal.join();
    }
}

async fn remove_image(docker: &Docker, image: &str) {
    let force = RemoveImageOptionsBuilder::default().force(true).build();
    let _ = docker.remove_image(image, Some(force), None).await;
}

/// A name that is unique among all tests and runs.
fn unique(what: &str) -> String {
    format!("towpath-test/{what}-{}", uuid::Uuid::new_v4().simple())
}

/// Runs a container to its end. Returns its exit code and its output.
async fn run(docker: &Docker, remove: &mut Remove, body: ContainerCreateBody) -> (i64, String) {
    let labels = HashMap::from([(LABEL.to_string(), "images".to_string())]);
    let body = ContainerCreateBody {
        labels: Some(labels),
        ..body
    };
    let id = docker.create_container(None, body).await.unwrap().id;
    remove.containers.push(id.clone());
    docker.start_container(&id, None).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_secs(60), docker.wait_container(&id, None).next()).await;
    let code = match waited.expect("the container ends within 60 s").unwrap() {
        Ok(ended) => ended.status_code,
        Err(bollard::errors::Error::DockerContainerWaitError { code, .. }) => code,
        Err(e) => panic!("{e}"),
    };
    let options = LogsOptionsBuilder::default().stdout(true).stderr(true).build();
    let log: Vec<_> = docker.logs(&id, Some(options)).try_collect().await.unwrap();
    (code, log.iter().map(ToString::to_string).collect())
}

fn own_program() -> PathBuf {
    std::env::current_exe().unwrap()
}

/// Not a test by itself: the containers run it.
#[test]
fn a_program_in_a_container() {
    let Ok(say) = std::env::var(SAY) else { return };
    println!("\nsays {say} {}", std::fs::read_to_string("/data/hello.txt").unwrap());
}

const PROGRAM: [&str; 4] = ["/program", "a_program_in_a_container", "--exact", "--nocapture"];

/// A context with this program, a file, and a Dockerfile.
fn context(dockerfile: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(own_program(), dir.path().join("program")).unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    std::fs::write(dir.path().join("data/hello.txt"), "hello").unwrap();
    std::fs::write(dir.path().join("data/secret.txt"), "secret").unwrap();
    std::fs::write(dir.path().join(".dockerignore"), "**/secret.txt\n").unwrap();
    std::fs::write(dir.path().join("Dockerfile"), dockerfile).unwrap();
    dir
}

fn request_for(dir: &Path) -> BuildRequest {
    BuildRequest {
        context_dir: dir.to_path_buf(),
        dockerfile: "Dockerfile".into(),
        labels: [(LABEL.to_string(), "images".to_string())].into(),
        ..BuildRequest::default()
    }
}

fn pusher(password: &str) -> RegistryCredentials {
    RegistryCredentials {
        username: "pusher".into(),
        password: SecretString::new(password.into()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_is_built_pushed_pulled_by_digest_and_run() {
    let Some((engine, docker)) = engine().await else { return };
    let mut remove = Remove::default();
    let served = serve(TwoUsers).await;
    let target: ImageReference = format!("{}/{}:app-1", served.address, unique("built")).parse().unwrap();
    let dir = context(&format!(
        "FROM scratch AS base\nARG WORD\nENV {SAY}=$WORD\nCOPY program /program\nCOPY data /data/\n\
         ENTRYPOINT {PROGRAM:?}\nFROM base\nLABEL never=reached\n"
    ));
    let request = BuildRequest {
        build_args: [("WORD".to_string(), "ahoy".to_string())].into(),
        target: Some("base".to_string()),
        tags: vec![target.clone()],
        ..request_for(dir.path())
    };
    let mut lines = Vec::new();
    let built = build(&engine, &request, &mut |line| lines.push(line.to_string()))
        .await
        .unwrap();
    remove.images.extend([target.to_string(), built.id.clone()]);
    assert!(
        lines.iter().any(|line| line.contains("COPY program /program")),
        "{lines:?}"
    );
    let inspected = docker.inspect_image(&target.to_string()).await.unwrap();
    assert_eq!(inspected.id.as_deref(), Some(built.id.as_str()));
    let labels = inspected.config.unwrap().labels.unwrap();
    assert_eq!(labels.get(LABEL).map(String::as_str), Some("images"));
    assert!(!labels.contains_key("never"), "the target stops before");

    for (credentials, words) in [(None, "give credentials"), (Some(pusher("hunter2")), "`pusher`")] {
        let refused = push(&engine, &built, &target, credentials.as_ref(), &mut |_| {})
            .await
            .unwrap_err();
        assert!(matches!(refused, PushError::Unauthorized { .. }), "{refused}");
        assert!(refused.to_string().contains(words), "{refused}");
        assert!(!format!("{refused:?}").contains("hunter2"));
    }
    let mut lines = Vec::new();
    let good = pusher("open sesame");
    let digest = push(&engine, &built, &target, Some(&good), &mut |line| {
        lines.push(line.to_string())
    })
    .await
    .unwrap();
    assert!(lines.iter().any(|line| line.contains(digest.as_str())), "{lines:?}");
    assert_eq!(
        push(&engine, &built, &target, Some(&good), &mut |_| {}).await.unwrap(),
        digest,
        "twice is as once"
    );
    let client = RegistryClient::new(&served.address, Some(good)).unwrap();
    assert_eq!(client.resolve(&target).await.unwrap(), Some(digest.clone()));

    remove_image(&docker, &built.id).await;
    assert!(
        docker.inspect_image(&target.to_string()).await.is_err(),
        "the image is only in the registry"
    );
    let pinned = target.at(digest);
    let pull = CreateImageOptionsBuilder::default()
        .from_image(&pinned.to_string())
        .build();
    let login = DockerCredentials {
        username: Some("reader".into()),
        password: Some("open sesame".into()),
        serveraddress: Some(served.address.clone()),
        ..DockerCredentials::default()
    };
    let pulled: Vec<_> = docker
        .create_image(Some(pull), None, Some(login))
        .try_collect()
        .await
        .unwrap();
    assert!(!pulled.is_empty());
    remove.images.push(pinned.to_string());
    let container = ContainerCreateBody {
        image: Some(pinned.to_string()),
        ..ContainerCreateBody::default()
    };
    let (code, log) = run(&docker, &mut remove, container).await;
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("says ahoy hello"), "{log}");

    // Pulling it as a base image uses the credentials, too.
    remove_image(&docker, &pinned.to_string()).await;
    remove_image(&docker, &built.id).await;
    let above = context(&format!("FROM {pinned}\nENV {SAY}=above\n"));
    let mut request = request_for(above.path());
    let refused = build(&engine, &request, &mut |_| {}).await.unwrap_err();
    assert!(matches!(refused, BuildError::BaseImage { .. }), "{refused}");
    request
        .credentials
        .insert(served.address.clone(), pusher("open sesame"));
    let above = build(&engine, &request, &mut |_| {}).await.unwrap();
    remove.images.push(above.id.clone());

    let container = ContainerCreateBody {
        image: Some(above.id),
        entrypoint: Some(vec!["/program".into()]),
        cmd: Some(vec!["the_ignored_file_is_not_there".into(), "--exact".into()]),
        env: Some(vec![format!("{SAY}=x")]),
        ..ContainerCreateBody::default()
    };
    let (code, log) = run(&docker, &mut remove, container).await;
    assert_eq!(code, 0, "{log}");
}

/// Runs inside the container of the test above.
#[test]
fn the_ignored_file_is_not_there() {
    if std::env::var(SAY).is_ok() {
        assert!(Path::new("/data/hello.txt").exists() && !Path::new("/data/secret.txt").exists());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_fails_says_why() {
    let Some((engine, _)) = engine().await else { return };
    let mut remove = Remove::default();
    let served = serve(Everybody).await;
    let base = load_scratch_image(&engine, program_image("failing")).await.unwrap();
    remove.images.push(base.to_string());
    let unknown_base = format!("FROM {}/none:1\n", served.address);
    let failing = format!("FROM {base}\nRUN [\"/program\", \"--no-such-option\"]\n");
    type Is = fn(&BuildError) -> bool;
    let cases: [(&str, Is, Outcome, &str); 6] = [
        (
            "FROM scratch\nCOPY nothing /\n",
            |e| matches!(e, BuildError::SourceMissing { .. }),
            Outcome::Failed,
            "COPY nothing /",
        ),
        (
            "FROM scratch\nCOPY data/secret.txt /\n",
            |e| matches!(e, BuildError::SourceMissing { .. }),
            Outcome::Failed,
            ".dockerignore",
        ),
        (
            &unknown_base,
            |e| matches!(e, BuildError::BaseImage { .. }),
            Outcome::Errored,
            "none:1",
        ),
        (
            &failing,
            |e| matches!(e, BuildError::Command { .. }),
            Outcome::Failed,
            "returned a non-zero code",
        ),
        (
            "FROM scratch\nBOGUS\n",
            |e| matches!(e, BuildError::Dockerfile { .. }),
            Outcome::Failed,
            "BOGUS",
        ),
        (
            "",
            |e| matches!(e, BuildError::Dockerfile { .. }),
            Outcome::Failed,
            "empty",
        ),
    ];
    for (dockerfile, is, outcome, words) in cases {
        let dir = context(dockerfile);
        let failed = build(&engine, &request_for(dir.path()), &mut |_| {}).await.unwrap_err();
        assert!(is(&failed), "{dockerfile}: {failed:?}");
        assert_eq!(failed.outcome(), outcome, "{failed}");
        assert!(failed.to_string().contains(words), "{failed}");
    }
    let dir = context("FROM scratch\n");
    let missing = BuildRequest {
        dockerfile: "docker/Dockerfile".into(),
        ..request_for(dir.path())
    };
    let failed = build(&engine, &missing, &mut |_| {}).await.unwrap_err();
    assert!(matches!(failed, BuildError::DockerfileMissing(_)), "{failed}");

    let odd_name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"data/\xff");
    std::fs::write(dir.path().join(odd_name), "").unwrap();
    let failed = build(&engine, &request_for(dir.path()), &mut |_| {}).await.unwrap_err();
    assert!(matches!(failed, BuildError::ContextUnreadable { .. }), "{failed:?}");

    let image = BuiltImage { id: base.to_string() };
    let nowhere: ImageReference = "127.0.0.1:1/x:1".parse().unwrap();
    remove.images.push(nowhere.to_string());
    let failed = push(&engine, &image, &nowhere, None, &mut |_| {}).await.unwrap_err();
    assert!(matches!(failed, PushError::Unreachable { .. }), "{failed}");
}

/// Not a test by itself: a build step that would never end.
#[test]
fn a_step_without_end() {
    if std::env::var(SAY).as_deref() == Ok("for ever") {
        loop {
            std::thread::park();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_that_nobody_waits_for_ends() {
    let Some((engine, _)) = engine().await else { return };
    let mut remove = Remove::default();
    let mut endless = program_image("cancelled");
    endless.environment = vec![format!("{SAY}=for ever")];
    let base = load_scratch_image(&engine, endless).await.unwrap();
    remove.images.push(base.to_string());
    let dockerfile = format!("FROM {base}\nRUN [\"/program\", \"a_step_without_end\", \"--exact\"]\n");
    let dir = context(&dockerfile);
    let (running, runs) = tokio::sync::oneshot::channel();
    let mut running = Some(running);
    let builder = engine.clone();
    let building = tokio::spawn(async move {
        let mut progress = |line: &str| {
            if let Some(id) = line.trim().strip_prefix("---> Running in ") {
                let _ = running.take().map(|running| running.send(id.to_string()));
            }
        };
        build(&builder, &request_for(dir.path()), &mut progress).await
    });
    let container = tokio::time::timeout(Duration::from_secs(60), runs)
        .await
        .expect("a step runs within 60 s");
    let container = container.unwrap();
    remove.containers.push(container.clone());
    building.abort();
    assert!(building.await.unwrap_err().is_cancelled());
    tokio::time::timeout(Duration::from_secs(30), engine.wait_until_removed(&container))
        .await
        .expect("the engine removes the step's container");
}

#[tokio::test]
async fn without_an_engine() {
    let nobody = ContainerClient::at("http://127.0.0.1:1").unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("Dockerfile"), "FROM scratch\n").unwrap();
    let failed = build(&nobody, &request_for(dir.path()), &mut |_| {}).await.unwrap_err();
    assert!(matches!(failed, BuildError::NoEngine { .. }), "{failed:?}");
    assert_eq!(failed.outcome(), Outcome::Errored);
    let image = BuiltImage { id: "x".into() };
    let failed = push(&nobody, &image, &"127.0.0.1:1/x:1".parse().unwrap(), None, &mut |_| {})
        .await
        .unwrap_err();
    assert!(matches!(failed, PushError::NoEngine { .. }), "{failed:?}");
}

fn program_image(what: &str) -> ScratchImage {
    ScratchImage {
        repository: unique(what),
        files: vec![
            ScratchFile {
                path: "program".into(),
                mode: 0o755,
                content: FileContent::Copy(own_program()),
            },
            ScratchFile {
                path: "data/hello.txt".into(),
                mode: 0o644,
                content: FileContent::Bytes(b"from bytes".to_vec()),
            },
        ],
        folders: vec![("tmp".into(), 0o1777)],
        entrypoint: PROGRAM.map(str::to_string).to_vec(),
        environment: vec![format!("{SAY}=scratch")],
        labels: [(LABEL.to_string(), "images".to_string())].into(),
        ..ScratchImage::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_of_one_binary() {
    let Some((engine, docker)) = engine().await else { return };
    let mut remove = Remove::default();
    let image = program_image("scratch");
    let (name, same) = tokio::join!(
        load_scratch_image(&engine, image.clone()),
        load_scratch_image(&engine, image.clone())
    );
    let name = name.unwrap();
    remove.images.push(name.to_string());
    assert_eq!(same.unwrap(), name);
    let id = docker.inspect_image(&name.to_string()).await.unwrap().id;
    assert_eq!(load_scratch_image(&engine, image.clone()).await.unwrap(), name);
    assert_eq!(docker.inspect_image(&name.to_string()).await.unwrap().id, id);
    let container = ContainerCreateBody {
        image: Some(name.to_string()),
        ..ContainerCreateBody::default()
    };
    let (code, log) = run(&docker, &mut remove, container).await;
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("says scratch from bytes"), "{log}");

    let mut other = image.clone();
    other.entrypoint.push("--test-threads=1".into());
    let other_name = load_scratch_image(&engine, other).await.unwrap();
    remove.images.push(other_name.to_string());
    assert_ne!(other_name, name, "the name is that of everything in the image");

    let mut missing = image;
    missing.files[0].content = FileContent::Copy("/nonexistent/program".into());
    let failed = load_scratch_image(&engine, missing).await.unwrap_err();
    assert!(failed.to_string().contains("/nonexistent/program"), "{failed}");
}

/// A disk of four megabytes fills up. It is in a container's memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk() {
    if std::env::var(SMALL_DISK).is_ok() {
        return on_a_small_disk().await;
    }
    let Some((engine, docker)) = engine().await else { return };
    let mut remove = Remove::default();
    let mut image = program_image("full-disk");
    image.entrypoint = ["/program", "a_full_disk", "--exact", "--nocapture"]
        .map(str::to_string)
        .to_vec();
    image.environment = vec![format!("{SMALL_DISK}=1"), "TMPDIR=/small".into()];
    let name = load_scratch_image(&engine, image).await.unwrap();
    remove.images.push(name.to_string());
    let tmpfs = HashMap::from([("/small".to_string(), "size=4m".to_string())]);
    let container = ContainerCreateBody {
        image: Some(name.to_string()),
        host_config: Some(HostConfig {
            tmpfs: Some(tmpfs),
            network_mode: Some("none".into()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let (code, log) = run(&docker, &mut remove, container).await;
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("the small disk was full"), "{log}");
}

async fn on_a_small_disk() {
    let served = serve(Everybody).await;
    let first = served.image("a", "latest", b"small").await;
    let files = || {
        (
            served.files("blobs"),
            served.files("repositories"),
            served.files("temporary"),
        )
    };
    let before = files();
    let big = vec![1; 8 * 1024 * 1024];

    let line = format!("POST /v2/a/blobs/uploads/?digest={}", Digest::of(&big));
    let refused = served.send(&line, &[], big.clone()).await.refused(507, "UNKNOWN");
    assert!(String::from_utf8_lossy(&refused.body).contains("disk is full"));
    assert_eq!(files(), before);

    let upload = served.upload("a").await;
    served.send(&format!("PATCH {upload}"), &[], "0123").await.expect(202);
    served
        .send(&format!("PATCH {upload}"), &[], big)
        .await
        .refused(507, "UNKNOWN");
    assert_eq!(
        served.get(&upload).await.header("range"),
        "0-3",
        "what was refused takes no place"
    );
    let put = format!("PUT {upload}?digest={}", Digest::of(b"01234567"));
    served.send(&put, &[], "4567").await.expect(201);

    let second = manifest(b"01234567");
    let filler = served.dir.path().join("filler");
    {
        let mut file = std::fs::File::create(&filler).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    }
    let before = files();
    for tag in ["latest", "new"] {
        served
            .put_manifest("a", tag, OCI_MANIFEST, &second)
            .await
            .refused(507, "UNKNOWN");
    }
    assert_eq!(files(), before);
    let latest = served.get("/v2/a/manifests/latest").await.expect(200);
    assert_eq!(latest.header("docker-content-digest"), first.as_str());
    assert_eq!(
        served.get("/v2/a/tags/list").await.json()["tags"],
        serde_json::json!(["latest"])
    );
    std::fs::remove_file(filler).unwrap();
    served.put_manifest("a", "new", OCI_MANIFEST, &second).await.expect(201);
    println!("\nthe small disk was full");
}

/// Runs a program to its end.
fn command(program: &str, arguments: &[&str], input: &str, home: &Path) -> Option<(bool, String)> {
    let started = Command::new(program)
        .args(arguments)
        .env("HOME", home)
        .env("DOCKER_CONFIG", home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = started.ok()?;
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skopeo_copies_and_inspects() {
    let home = tempfile::tempdir().unwrap();
    if command("skopeo", &["--version"], "", home.path()).is_none() {
        return skipped("the program skopeo is not installed");
    }
    let served = serve(TwoUsers).await;
    // An image that a program can inspect: a layer that is an archive, and a configuration that names it.
    let dir = home.path().join("image");
    std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    let layer = {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        header.set_mode(0o644);
        archive.append_data(&mut header, "file", b"abc".as_slice()).unwrap();
        archive.into_inner().unwrap()
    };
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Labels": {"who": "towpath"}},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer)]},
    });
    let config = config.to_string().into_bytes();
    let image = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    });
    let image = image.to_string().into_bytes();
    for blob in [&layer, &config, &image] {
        std::fs::write(dir.join("blobs/sha256").join(Digest::of(blob).hex()), blob).unwrap();
    }
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [descriptor(OCI_MANIFEST, &image)]});
    std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();

    let address = &served.address;
    let source = format!("oci:{}", dir.display());
    let (one, two) = (
        format!("docker://{address}/one:1"),
        format!("docker://{address}/team/two:1"),
    );
    let back = format!("dir:{}", home.path().join("back").display());
    let skopeo = |arguments: &[&str]| {
        let arguments = [&["--insecure-policy"], arguments].concat();
        let (good, text) = command("skopeo", &arguments, "", home.path()).unwrap();
        assert!(good, "skopeo {arguments:?}: {text}");
        text
    };
    let user = "pusher:open sesame";
    let (from, to) = (
        ["--src-tls-verify=false", "--src-creds", user],
        ["--dest-tls-verify=false", "--dest-creds", user],
    );
    skopeo(&[&["copy", "--preserve-digests"], to.as_slice(), &[&source, &one]].concat());
    // A copy between two repositories of one registry mounts the layer.
    let blobs = served.files("blobs");
    skopeo(&[&["copy", "--preserve-digests"], from.as_slice(), &to, &[&one, &two]].concat());
    assert_eq!(served.files("blobs"), blobs);
    skopeo(&[&["copy", "--preserve-digests"], from.as_slice(), &[&two, &back]].concat());
    assert_eq!(std::fs::read(home.path().join("back/manifest.json")).unwrap(), image);
    let text = skopeo(&["inspect", "--tls-verify=false", "--creds", user, &two]);
    let inspected: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(inspected["Digest"], Digest::of(&image).as_str());
    assert_eq!(inspected["Labels"]["who"], "towpath");
    skopeo(&["delete", "--tls-verify=false", "--creds", user, &two]);
    let name = "team/two".parse().unwrap();
    assert_eq!(
        served.registry.resolve(&name, &"1".parse().unwrap()).await.unwrap(),
        None
    );
    let arguments = ["inspect", "--tls-verify=false", "--creds", "pusher:hunter2", &one];
    assert!(!command("skopeo", &arguments, "", home.path()).unwrap().0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_login() {
    if engine().await.is_none() {
        return;
    }
    let served = serve(TwoUsers).await;
    let home = tempfile::tempdir().unwrap();
    let login = ["login", &served.address, "-u", "pusher", "--password-stdin"];
    let Some((good, text)) = command("docker", &login, "open sesame", home.path()) else {
        return skipped("the program docker is not installed");
    };
    assert!(good, "{text}");
    let (good, text) = command("docker", &login, "hunter2", home.path()).unwrap();
    assert!(!good, "{text}");
}

/// The futures of builds and pushes are `Send`.
#[test]
fn futures_are_send() {
    fn is_send<T: Send>(_: T) {}
    let engine = ContainerClient::at("http://127.0.0.1:1").unwrap();
    let lines = Arc::new(Mutex::new(Vec::<String>::new()));
    let mut progress = move |line: &str| lines.lock().unwrap().push(line.to_string());
    let request = BuildRequest::default();
    is_send(build(&engine, &request, &mut progress));
    is_send(load_scratch_image(&engine, ScratchImage::default()));
}
