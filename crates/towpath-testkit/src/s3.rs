//! An S3-compatible object store that somebody else wrote: moto's server, on a free port of this machine.

use crate::{Absent, api::plain_client};
use anyhow::{Context, Result, ensure};
use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

/// What `scripts/ensure-test-parts` installs.
const REQUIREMENTS: &str = include_str!("../../../scripts/s3-server-requirements.txt");

/// One request at a time, because moto compares and sets in two steps. It ends when its standard input closes.
const SERVER: &str = r#"
import os, sys, threading
from werkzeug.serving import make_server
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app))
print(server.port, flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
server.serve_forever()
"#;

/// An object store in memory. It ends when it is dropped or when its process ends in any way.
pub struct S3Server {
    process: Child,
    address: String,
    buckets: AtomicU32,
}

impl S3Server {
    /// Starts one.
    ///
    /// # Errors
    /// When it does not start; the inner error says that the machine does not have it.
    pub fn start() -> Result<Result<Self, Absent>> {
        let python = python();
        if !python.is_file() {
            let absent = format!("`{}` is not there: run scripts/ensure-test-parts", python.display());
            return Ok(Err(Absent(absent)));
        }
        let mut process = Command::new(python)
            .args(["-c", SERVER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("failed to start moto")?;
        let mut port = String::new();
        let output = process.stdout.take().context("moto has no output")?;
        BufReader::new(output).read_line(&mut port)?;
        ensure!(!port.is_empty(), "moto ended before it listened");
        Ok(Ok(Self {
            process,
            address: format!("http://127.0.0.1:{}", port.trim()),
            buckets: AtomicU32::new(0),
        }))
    }

    /// Makes an empty bucket and answers with its name.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn bucket(&self) -> Result<String> {
        let name = format!("bucket-{}", self.buckets.fetch_add(1, Ordering::Relaxed));
        let response = plain_client()?
            .put(format!("{}/{name}", self.address))
            .send()
            .await
            .context("the object store does not answer")?;
        ensure!(response.status().is_success(), "no bucket: {}", response.status());
        Ok(name)
    }

    /// The environment variables with which AWS's tools find the server.
    #[must_use]
    pub fn variables(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL", self.address.as_str()),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "open sesame"),
            ("AWS_REGION", "us-east-1"),
        ]
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .into()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn python() -> PathBuf {
    let version = REQUIREMENTS
        .lines()
        .find_map(|line| line.strip_prefix("moto[s3]=="))
        .unwrap_or_default();
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME")?;
        Some(PathBuf::from(home).join(".cache"))
    });
    let folder = cache.unwrap_or_default().join("towpath");
    folder.join(format!("moto-{version}")).join("bin/python")
}
