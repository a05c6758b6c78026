//! Somebody else's registry: Debian's `docker-registry`, on a free port of this machine.

use crate::{Absent, Probe, cluster::image_archive, program, until};
use anyhow::{Context, Result, ensure};
use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

/// How long it may take to start.
const BOUND: Duration = Duration::from_secs(20);

/// Whom a private registry knows.
pub const REGISTRY_USER: &str = "ci";
/// That user's password.
pub const REGISTRY_PASSWORD: &str = "open sesame";
/// The same, as the registry keeps it (bcrypt).
const PASSWORD_HASH: &str = "$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW";

/// A registry. Dropped, it ends, with all that it holds.
pub struct Registry {
    process: Child,
    address: String,
    folder: tempfile::TempDir,
}

impl Registry {
    /// Starts one that anybody may use.
    ///
    /// # Errors
    /// When it does not start; the inner error says that the machine does not have it.
    pub async fn start() -> Result<Result<Self, Absent>> {
        Self::start_with(false).await
    }

    /// Starts one that knows [`REGISTRY_USER`] and nobody else.
    ///
    /// # Errors
    /// As [`Registry::start`].
    pub async fn start_private() -> Result<Result<Self, Absent>> {
        Self::start_with(true).await
    }

    async fn start_with(private: bool) -> Result<Result<Self, Absent>> {
        let program = match program("docker-registry") {
            Ok(program) => program,
            Err(absent) => return Ok(Err(absent)),
        };
        let folder = tempfile::tempdir().context("failed to make a folder")?;
        // It does not say which port it takes when it is asked for any; this one is free now.
        let free = std::net::TcpListener::bind("127.0.0.1:0").context("failed to find a port")?;
        let address = free.local_addr().context("no address")?.to_string();
        drop(free);
        let mut config = serde_json::json!({
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": folder.path().join("data")}},
            "http": {"addr": address},
        });
        if private {
            let users = folder.path().join("users");
            std::fs::write(&users, format!("{REGISTRY_USER}:{PASSWORD_HASH}\n"))
                .context("failed to write its users")?;
            config["auth"] = serde_json::json!({"htpasswd": {"realm": "private", "path": users}});
        }
        let file = folder.path().join("config.yml");
        std::fs::write(&file, config.to_string()).context("failed to write its configuration")?;
        let process = Command::new(program)
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("failed to start it")?;
        let registry = Self {
            process,
            address,
            folder,
        };
        until("the registry to listen", BOUND, async || {
            Ok(match tokio::net::TcpStream::connect(&registry.address).await {
                Ok(_) => Probe::Found(()),
                Err(error) => Probe::NotYet(error.to_string()),
            })
        })
        .await?;
        Ok(Ok(registry))
    }

    /// `127.0.0.1:41234`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Pushes an image of one static program, `/<program>`, as `repository:tag` for each of `tags`.
    ///
    /// # Errors
    /// With what skopeo says.
    pub fn push(&self, repository: &str, tags: &[&str], program: &str, content: &[u8]) -> Result<()> {
        let archive = self.folder.path().join("image.tar");
        std::fs::write(&archive, image_archive(&format!("{repository}:x"), program, content)?).context("no room")?;
        for tag in tags {
            let output = Command::new("skopeo")
                .args(["copy", "--insecure-policy", "--dest-tls-verify=false"])
                .arg(format!("docker-archive:{}", archive.display()))
                .arg(format!("docker://{}/{repository}:{tag}", self.address))
                .output()
                .context("failed to run skopeo")?;
            ensure!(
                output.status.success(),
                "skopeo does not push: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
