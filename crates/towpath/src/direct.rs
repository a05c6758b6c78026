//! A Towpath for one command: where none is up, a laptop or another system's job deploys to clusters all the same.
//!
//! It keeps nothing: what the clusters say of their releases is all that it knows.

use crate::{cli::Target, repository::Repository};
use anyhow::{Context, Result};
use std::{
    io::IsTerminal as _,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use tokio_util::sync::CancellationToken;
use towpath_control::{Control, Grant, Identity, Settings, TargetSettings};
use towpath_types::SecretString;

/// The variable that says where environments are, as `towpath up --target` does.
const TARGET_VARIABLE: &str = "TOWPATH_TARGET";

/// The beginning of the names of such a command's folders; its process follows.
const FOLDER: &str = "towpath-command-";

/// What a signal leaves behind, once something was begun.
static LEFT: Mutex<Option<String>> = Mutex::new(None);

/// Says what there is to know should a signal end this process from now on: what goes on without it, or is half done.
pub fn leaves(what: String) {
    *LEFT.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
}

/// The folder of this process, while there is one.
static CURRENT: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Whether a Towpath works in this process.
pub fn is_at_work() -> bool {
    CURRENT.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// Removes what this process keeps, before it ends without unwinding.
pub fn clean_up() {
    if let Some(folder) = CURRENT.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = std::fs::remove_dir_all(folder);
    }
}

/// A folder for this process alone: what manifests hold passes through it.
fn private_folder() -> std::io::Result<tempfile::TempDir> {
    let shared = Path::new("/dev/shm");
    // In memory where there is such a folder: nothing in it outlives this command.
    let parents = [shared.to_path_buf(), std::env::temp_dir()];
    parents.iter().for_each(|parent| sweep(parent));
    let prefix = format!("{FOLDER}{}-", std::process::id());
    let make = |parent: &PathBuf| {
        tempfile::Builder::new()
            .prefix(&prefix)
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir_in(parent)
    };
    make(&parents[0]).or_else(|_| make(&parents[1]))
}

/// Removes the folders of processes that were killed.
fn sweep(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name
            .strip_prefix(FOLDER)
            .and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Another's cannot be removed, and is not ours to.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Ends the process at a signal, cleanly and with a word on what it leaves behind.
fn end_at_signals() {
    use tokio::signal::unix::{SignalKind, signal};
    for (kind, code) in [
        (SignalKind::interrupt(), 130),
        (SignalKind::terminate(), 143),
        (SignalKind::hangup(), 129),
    ] {
        let Ok(mut signals) = signal(kind) else { continue };
        tokio::spawn(async move {
            signals.recv().await;
            match LEFT.lock().unwrap_or_else(PoisonError::into_inner).take() {
                Some(left) => eprintln!("\nStopped. {left}"),
                // Nothing was begun.
                None => eprintln!("\nStopped."),
            }
            clean_up();
            std::process::exit(code);
        });
    }
}

/// Shows what goes wrong with a cluster and does not end the command, such as an answer that is asked for again, on
/// standard error: a server writes it to its log.
fn show_warnings() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TOWPATH_LOG");
    // One that is there already is as good.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| "towpath_deploy=warn".into()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .try_init();
}

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
        let folder = private_folder().context("failed to make a folder for this command")?;
        *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = Some(folder.path().to_path_buf());
        end_at_signals();
        show_warnings();
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
            orb_url_prefixes: Vec::new(),
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
        clean_up();
    }
}
