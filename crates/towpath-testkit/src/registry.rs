//! Another program's registry: Debian's `docker-registry`, on a free port of this machine.

use crate::{Absent, Probe, cluster::image_archive, program, until};
use anyhow::{Context, Result, ensure};
use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

/// How long the registry may take to start.
const BOUND: Duration = Duration::from_secs(20);

/// The only user of a private registry.
pub const REGISTRY_USER: &str = "ci";
/// [`REGISTRY_USER`]'s password.
pub const REGISTRY_PASSWORD: &str = "open sesame";
/// The password's bcrypt hash.
const PASSWORD_HASH: &str = "$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW";

/// A registry. Dropping it ends it and deletes its images.
pub struct Registry {
    process: Child,
    address: String,
    folder: tempfile::TempDir,
}

impl Registry {
    /// Starts a registry that anybody may use.
    ///
    /// # Errors
    /// When it does not start. The inner error means that the program is not installed.
    pub async fn start() -> Result<Result<Self, Absent>> {
        Self::start_with(false).await
    }

    /// Starts a registry that only [`REGISTRY_USER`] may use.
    ///
    /// # Errors
    /// Like [`Registry::start`].
    pub async fn start_private() -> Result<Result<Self, Absent>> {
        Self::start_with(true).await
    }

    async fn start_with(private: bool) -> Result<Result<Self, Absent>> {
        let program = match program("docker-registry") {
            Ok(program) => program,
            Err(absent) => return Ok(Err(absent)),
        };
        let folder = tempfile::tempdir().context("failed to make a folder")?;
        // The registry does not tell which free port it picks, so pick one for it.
        let free = std::net::TcpListener::bind("127.0.0.1:0").context("failed to find a port")?;
        let address = free.local_addr().context("no address")?.to_string();
        drop(free);
        let mut config = serde_json::json!({
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": folder.path().join("data")}, "delete": {"enabled": true}},
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

    /// Host and port: `127.0.0.1:41234`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Pushes an image with one static program, `/<program>`, as `repository:tag` for each of `tags`.
    ///
    /// # Errors
    /// When skopeo fails. The message contains its error.
    pub fn push(&self, repository: &str, tags: &[&str], program: &str, content: &[u8]) -> Result<()> {
        let archive = self.folder.path().join("image.tar");
        std::fs::write(&archive, image_archive(&format!("{repository}:x"), program, content)?)
            .context("failed to write the image")?;
        for tag in tags {
            let output = Command::new("skopeo")
                .args(["copy", "--insecure-policy", "--dest-tls-verify=false"])
                .arg(format!("docker-archive:{}", archive.display()))
                .arg(format!("docker://{}/{repository}:{tag}", self.address))
                .output()
                .context("failed to run skopeo")?;
            ensure!(
                output.status.success(),
                "skopeo failed to push: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
