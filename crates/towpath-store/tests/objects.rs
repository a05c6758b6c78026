//! The contract of logs and blobs, in a folder and in an S3-compatible object store.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use futures::future::join_all;
use std::{
    path::Path,
    pin::Pin,
    process::Command,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use towpath_store::{FolderObjects, LogId, Objects, S3Objects, StoreError};
use towpath_testkit::{Absent, S3Server, skipped};
use towpath_types::{Digest, JobId, ReleaseId, RunId};

/// Two servers that share a storage.
type Pair = [Arc<dyn Objects>; 2];

fn folder(path: &Path) -> Pair {
    [(); 2].map(|()| Arc::new(FolderObjects::open(path).unwrap()) as Arc<dyn Objects>)
}

async fn s3(test: &str, spool: &Path) -> Option<Pair> {
    static SERVER: OnceLock<Result<S3Server, Absent>> = OnceLock::new();
    match SERVER.get_or_init(|| S3Server::start().unwrap()) {
        Ok(server) => {
            let bucket = server.bucket().await.unwrap();
            let mut pair: Vec<Arc<dyn Objects>> = Vec::new();
            for _ in 0..2 {
                let objects = S3Objects::open(&bucket, "towpath/tests", server.variables(), spool).await;
                pair.push(Arc::new(objects.unwrap()));
            }
            pair.try_into().ok()
        }
        Err(absent) => {
            skipped(test, absent);
            None
        }
    }
}

macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod in_a_folder {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let folder = tempfile::tempdir().unwrap();
                super::$name(super::folder(folder.path())).await;
            })*
        }

        mod in_s3 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let spool = tempfile::tempdir().unwrap();
                if let Some(pair) = super::s3(stringify!($name), spool.path()).await {
                    super::$name(pair).await;
                    assert_eq!(std::fs::read_dir(spool.path()).unwrap().count(), 0);
                }
            })*
        }
    };
}

contract!(
    a_log_is_as_long_as_what_was_acknowledged,
    every_kind_of_log_is_kept_apart,
    racing_senders_of_the_same_bytes_write_them_once,
    closed_logs_read_as_before,
    a_blob_is_stored_under_its_digest,
    a_large_blob_is_read_as_it_was_written,
    a_blob_that_breaks_off_leaves_nothing,
);

fn step(bits: u128) -> LogId {
    LogId::Step {
        job: JobId::from_u128(bits),
        attempt: 1,
        node: 0,
        step: 2,
    }
}

async fn append(objects: &Arc<dyn Objects>, log: LogId, offset: u64, text: &str) -> Result<u64, StoreError> {
    objects
        .append_log(log, offset, Bytes::copy_from_slice(text.as_bytes()))
        .await
}

async fn read(objects: &Arc<dyn Objects>, log: LogId, from: u64, limit: u64) -> String {
    let bytes = objects.read_log(log, from, limit).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn a_log_is_as_long_as_what_was_acknowledged([here, there]: Pair) {
    let log = step(1);
    assert_eq!(here.log_length(log).await.unwrap(), 0);
    assert_eq!(read(&here, log, 0, 5).await, "");
    assert_eq!(append(&here, log, 0, "").await.unwrap(), 0);
    assert_eq!(append(&here, log, 0, "hello ").await.unwrap(), 6);
    // The other server resends it, with more after it.
    assert_eq!(append(&there, log, 3, "lo world").await.unwrap(), 11);
    assert_eq!(append(&here, log, 0, "hello").await.unwrap(), 11);
    assert_eq!(append(&here, log, 11, "").await.unwrap(), 11);
    let gap = append(&there, log, 12, "x").await;
    assert!(matches!(gap, Err(StoreError::LogGap { length: 11 })), "{gap:?}");
    // Append where this server has not seen the last bytes.
    assert_eq!(append(&there, log, 11, "!").await.unwrap(), 12);
    assert_eq!(append(&here, log, 12, "?").await.unwrap(), 13);
    for objects in [&here, &there] {
        assert_eq!(objects.log_length(log).await.unwrap(), 13);
        assert_eq!(read(objects, log, 0, 100).await, "hello world!?");
        assert_eq!(read(objects, log, 0, u64::MAX).await, "hello world!?");
        assert_eq!(read(objects, log, 4, 5).await, "o wor");
        assert_eq!(read(objects, log, 6, 0).await, "");
        assert_eq!(read(objects, log, 13, 5).await, "");
        assert_eq!(read(objects, log, 99, 5).await, "");
    }
}

async fn every_kind_of_log_is_kept_apart([here, there]: Pair) {
    let job = JobId::from_u128(7);
    let of = |attempt, node, step| LogId::Step {
        job,
        attempt,
        node,
        step,
    };
    let logs = [
        of(1, 0, 0),
        of(2, 0, 0),
        of(1, 1, 0),
        of(1, 0, 1),
        LogId::Release(ReleaseId::from_u128(7)),
        LogId::Run(RunId::from_u128(7)),
    ];
    for log in logs {
        append(&here, log, 0, &log.to_string()).await.unwrap();
    }
    for log in logs {
        assert_eq!(read(&there, log, 0, 1_000).await, log.to_string());
    }
}

async fn racing_senders_of_the_same_bytes_write_them_once(pair: Pair) {
    let log = step(2);
    let text: Vec<u8> = (0..2_000u32).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    let text = Bytes::from(text);
    let sends = (0..8).map(|sender| {
        let (objects, text) = (pair[sender % 2].clone(), text.clone());
        tokio::spawn(async move {
            let mut at = 0;
            while at < text.len() {
                let end = (at + 701 + sender * 97).min(text.len());
                let length = objects.append_log(log, at as u64, text.slice(at..end)).await.unwrap();
                assert!(length >= end as u64, "{length} after {end}");
                at = usize::try_from(length).unwrap();
            }
        })
    });
    for result in join_all(sends).await {
        result.unwrap();
    }
    for objects in &pair {
        assert_eq!(objects.read_log(log, 0, 1 << 20).await.unwrap(), text);
        assert_eq!(objects.log_length(log).await.unwrap(), text.len() as u64);
    }
}

async fn closed_logs_read_as_before([here, there]: Pair) {
    let (log, short, other) = (step(3), LogId::Run(RunId::from_u128(3)), step(4));
    let lines: Vec<String> = (0..60).map(|n| format!("line {n}\n")).collect();
    let text = lines.concat();
    for log in [log, short, other] {
        let mut at = 0;
        for line in &lines {
            at = append(&here, log, at, line).await.unwrap();
        }
    }
    // The other server remembers the parts that are about to be merged.
    assert_eq!(read(&there, log, 100, 50).await, text[100..150]);
    let job = JobId::from_u128(3);
    let (first, second) = tokio::join!(here.close_logs(job), there.close_logs(job));
    first.unwrap();
    second.unwrap();
    here.close_logs(job).await.unwrap();
    here.close_logs(JobId::from_u128(99)).await.unwrap();
    for objects in [&there, &here] {
        assert_eq!(read(objects, log, 100, 50).await, text[100..150]);
        assert_eq!(read(objects, log, 0, 10_000).await, text);
        assert_eq!(objects.log_length(log).await.unwrap(), text.len() as u64);
        assert_eq!(read(objects, other, 0, 10_000).await, text);
        // A late resend of bytes that were acknowledged long ago.
        assert_eq!(append(objects, log, 0, &lines[0]).await.unwrap(), text.len() as u64);
    }
}

async fn content(objects: &Arc<dyn Objects>, digest: &Digest) -> Vec<u8> {
    let mut bytes = Vec::new();
    objects
        .blob(digest)
        .await
        .unwrap()
        .read_to_end(&mut bytes)
        .await
        .unwrap();
    bytes
}

async fn a_blob_is_stored_under_its_digest([here, there]: Pair) {
    for text in ["", "layer", "layer"] {
        let stored = here.put_blob(Box::pin(text.as_bytes())).await.unwrap();
        assert_eq!(stored.digest, Digest::of(text.as_bytes()));
        assert_eq!(stored.bytes, text.len() as u64);
        assert_eq!(content(&there, &stored.digest).await, text.as_bytes());
    }
    let nosuch = Digest::of(b"nosuch");
    let error = here.blob(&nosuch).await.err().unwrap();
    assert!(
        matches!(&error, StoreError::NoBlob(digest) if *digest == nosuch),
        "{error:?}"
    );
}

async fn a_large_blob_is_read_as_it_was_written([here, there]: Pair) {
    let mut state = 1u32;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take((20 << 20) + 12_345)
    .collect();
    let reader = Box::pin(std::io::Cursor::new(bytes.clone()));
    let stored = here.put_blob(reader).await.unwrap();
    assert_eq!(stored.bytes, bytes.len() as u64);
    assert!(content(&there, &stored.digest).await == bytes, "other bytes came back");
}

/// Returns `text`, and then fails.
struct Broken(&'static str);

impl AsyncRead for Broken {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.0.is_empty() {
            return Poll::Ready(Err(std::io::Error::other("the line is cut")));
        }
        buffer.put_slice(self.0.as_bytes());
        self.0 = "";
        Poll::Ready(Ok(()))
    }
}

async fn a_blob_that_breaks_off_leaves_nothing([here, there]: Pair) {
    let error = here.put_blob(Box::pin(Broken("part"))).await.unwrap_err();
    let StoreError::Io { attempt, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*attempt, "receive the bytes for");
    let part = there.blob(&Digest::of(b"part")).await;
    assert!(matches!(part, Err(StoreError::NoBlob(_))));
}

#[tokio::test]
async fn a_folder_keeps_no_temporary_files_of_processes_that_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let temporary = folder.path().join("temporary");
    let gone = temporary.join("0123456789ab");
    std::fs::create_dir_all(&gone).unwrap();
    std::fs::write(gone.join("half"), "x").unwrap();
    std::fs::write(gone.with_extension("lock"), "").unwrap();
    let first = FolderObjects::open(folder.path()).unwrap();
    assert!(!gone.exists());
    let of_first: Vec<_> = std::fs::read_dir(&temporary).unwrap().collect();
    assert_eq!(of_first.len(), 2, "{of_first:?}");
    let second = FolderObjects::open(folder.path()).unwrap();
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 4);
    let stored = first.put_blob(Box::pin(&b"kept"[..])).await.unwrap();
    assert!(second.blob(&stored.digest).await.is_ok());
    drop((first, second));
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
}

#[tokio::test]
async fn a_full_disk_is_said_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
        .arg(folder.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        let absent = Absent("a small disk cannot be mounted here (not root?)".into());
        return skipped("a_full_disk_is_said_and_loses_nothing", &absent);
    }
    let objects = FolderObjects::open(folder.path()).unwrap();
    let log = step(1);
    let piece = Bytes::from(vec![b'x'; 64 << 10]);
    let mut kept = 0;
    let error = loop {
        match objects.append_log(log, kept, piece.clone()).await {
            Ok(length) => kept = length,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full(_)), "{error:?}");
    assert!(error.is_temporary());
    assert!(error.to_string().contains("is full: make room"), "{error}");
    let length = objects.log_length(log).await.unwrap();
    assert_eq!(length, kept, "the log has bytes that nobody acknowledged");
    let blob = objects.put_blob(Box::pin(std::io::Cursor::new(piece))).await;
    assert!(matches!(blob, Err(StoreError::Full(_))), "{blob:?}");
    // The database still has room to record it.
    std::fs::write(folder.path().join("towpath.db"), vec![0; 200 << 10]).unwrap();
    drop(objects);
    let unmounted = Command::new("umount").arg("-l").arg(folder.path()).status();
    assert!(unmounted.unwrap().success());
}

#[tokio::test]
async fn an_object_store_that_is_away_is_said_within_seconds() {
    let spool = tempfile::tempdir().unwrap();
    let variables = [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "open sesame"),
    ]
    .map(|(name, value)| (name.to_string(), value.to_string()));
    let opened = S3Objects::open("bucket", "", variables, spool.path());
    let opened = tokio::time::timeout(std::time::Duration::from_secs(40), opened)
        .await
        .unwrap();
    let error = opened.unwrap_err();
    assert!(matches!(error, StoreError::Object { .. }), "{error:?}");
    assert!(error.is_temporary());
    let bad = [("AWS_CONDITIONAL_PUT".to_string(), "nosuch".to_string())];
    let error = S3Objects::open("bucket", "", bad, spool.path()).await.unwrap_err();
    assert!(matches!(error, StoreError::Address(_)), "{error:?}");
}
