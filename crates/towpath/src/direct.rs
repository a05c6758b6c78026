//! A Towpath for one command: where none is up, a laptop or another system's job deploys to clusters all the same.
//!
//! It keeps nothing: what the clusters say of their releases is all that it knows.

use crate::{cli::Target, repository::Repository};
use anyhow::{Context, Result};
use std::{net::SocketAddr, sync::Arc};
use tokio_util::sync::CancellationToken;
use towpath_control::{Control, Grant, Identity, Settings, TargetSettings};
use towpath_types::SecretString;

/// The variable that says where environments are, as `towpath up --target` does.
const TARGET_VARIABLE: &str = "TOWPATH_TARGET";

/// A server in this process. Dropped, it ends.
pub struct Direct {
    control: Arc<Control>,
    address: SocketAddr,
    shutdown: CancellationToken,
    _folder: tempfile::TempDir,
}

/// Where environments are, by what `target` says and this process's variables.
pub fn target_settings(target: Target) -> TargetSettings {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let identity = Identity::from_environment(variable);
    match target {
        Target::Local => TargetSettings::Local,
        Target::Kubernetes => TargetSettings::Kubernetes(identity),
        Target::Auto if identity.knows_a_cluster(variable) => TargetSettings::Kubernetes(identity),
        Target::Auto => TargetSettings::Local,
    }
}

impl Direct {
    /// Starts one; `None` when this shell knows no cluster.
    pub async fn start(project: Option<&str>) -> Result<Option<Self>> {
        let target = match std::env::var(TARGET_VARIABLE).as_deref() {
            Ok("local") => return Ok(None),
            Ok("kubernetes") => Target::Kubernetes,
            _ => Target::Auto,
        };
        let target = target_settings(target);
        if matches!(target, TargetSettings::Local) {
            return Ok(None);
        }
        // In memory where there is such a folder: nothing in it outlives this command.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let folder = folder.context("failed to make a folder for this command")?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .context("failed to listen on 127.0.0.1")?;
        let address = listener.local_addr().context("failed to learn the address")?;
        let control = Control::open(Settings {
            data_dir: folder.path().to_path_buf(),
            address,
            binary: std::env::current_exe().context("failed to find this program's file")?,
            host_environment: Vec::new(),
            orb_registry: None,
            target,
            engine: false,
        })
        .await?;
        // Without a repository around, the manifests come with what is asked, if they are needed at all.
        if let Ok(repository) = Repository::find() {
            let project = project.map_or_else(|| repository.project(), str::to_string);
            control
                .show_manifests(&project, repository.manifests()?, &repository.file)
                .await;
        }
        let shutdown = CancellationToken::new();
        tokio::spawn(towpath_server::serve(control.clone(), listener, shutdown.clone()));
        Ok(Some(Self {
            control,
            address,
            shutdown,
            _folder: folder,
        }))
    }

    /// Where it listens.
    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The token that it asks for.
    pub fn token(&self) -> SecretString {
        self.control.tokens().issue(&Grant::Owner)
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        self.control.leave();
        self.shutdown.cancel();
    }
}
