//! `towpath up`, and the proxy that it starts in front of applications.

use crate::{
    cli,
    client::{ADDRESS_FILE, SERVERS_FOLDER, data_dir},
    operations::target_settings,
};
use anyhow::{Context, Result, bail};
use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio_util::sync::CancellationToken;
use towpath_control::{EngineUse, HostJobs, HostUsers, ObjectSettings, Settings, System, TargetSettings};
use towpath_types::{SecretString, SeenSecrets};

/// `towpath up`.
pub async fn up(options: cli::Up) -> Result<()> {
    let seen = SeenSecrets::default();
    let log = seen.clone();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("TOWPATH_LOG").unwrap_or_else(|_| "info".into()))
        .with_writer(move || MaskedLog(log.clone()))
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let dir =
        std::path::absolute(data_dir(options.data_dir.as_deref())?).context("failed to find the data directory")?;
    let listener = tokio::net::TcpListener::bind(&options.listen).await.with_context(|| {
        format!(
            "failed to listen at {}: is something else there? Choose another with --listen",
            options.listen
        )
    })?;
    let address = listener.local_addr().context("failed to learn the address")?;
    let settings = Settings {
        data_dir: dir.clone(),
        database: database(&options)?,
        objects: options
            .objects
            .clone()
            .map_or(ObjectSettings::DataDirectory, ObjectSettings::At),
        name: options.name.clone(),
        address,
        binary: std::env::current_exe().context("failed to find this program's file")?,
        host_environment: ALWAYS
            .into_iter()
            .map(str::to_string)
            .chain(options.host_env.iter().cloned())
            .collect(),
        host_jobs: host_jobs(&options)?,
        orb_registry: options.orbs.registry().map(str::to_string),
        orb_registry_token: cli::OrbOptions::registry_token(),
        orb_url_prefixes: options.orbs.url_prefixes()?,
        target: target_settings(options.target),
        seen,
        engine: true,
    };
    let environments = match &settings.target {
        TargetSettings::Local => "on this machine's container engine (--target local)".to_string(),
        TargetSettings::Kubernetes(identity) => format!("{identity} (--target kubernetes)"),
    };
    let jobs = match settings.host_jobs.users {
        Some(users) => format!("each as a user of its own ({} and up)", users.first),
        None => "as this server's user: they can read and end whatever it can (SECURITY.md)".to_string(),
    };
    let system = Arc::new(System::open(settings).await?);
    let shutdown = CancellationToken::new();
    stop_on_signals(shutdown.clone())?;
    say_where(&dir, options.name.as_deref(), &format!("http://{address}\n"))?;
    outln!("Towpath is up at http://{address}");
    if std::io::stdout().is_terminal() {
        // A terminal is for the owner's eyes only. A log is not.
        outln!(
            "  sign in: http://{address}/login?token={}",
            system.owner_token().expose()
        );
    } else {
        outln!("  sign in: with the token in `{}`", dir.join("token").display());
    }
    outln!("  data:    {}", dir.display());
    outln!("  environments: {environments}");
    outln!("  machine jobs: {jobs}");
    outln!("  next:    run `towpath init` in your repository");
    let working = tokio::spawn({
        let (system, shutdown) = (system.clone(), shutdown.clone());
        async move { system.run(shutdown).await }
    });
    let served = towpath_server::serve(system, listener, shutdown.clone()).await;
    shutdown.cancel();
    working.await.context("the server's work ended early")?;
    served.context("the server stopped")
}

fn host_jobs(options: &cli::Up) -> Result<HostJobs> {
    let users = match options.host_jobs_user {
        cli::HostJobsUser::Own => Some(HostUsers {
            first: options.host_jobs_first_user,
            count: JOB_USERS,
        }),
        cli::HostJobsUser::Server => None,
    };
    let engine = match options.host_jobs_engine {
        cli::HostJobsEngine::Named => EngineUse::Named,
        cli::HostJobsEngine::Always => EngineUse::Always,
        cli::HostJobsEngine::Never => EngineUse::Never,
    };
    let directory = options.host_jobs_dir.as_deref().map(std::path::absolute).transpose();
    let directory = directory.context("failed to find the folder for jobs")?;
    Ok(HostJobs::allowed(users, directory, engine))
}

/// Standard error with the secrets that this process has seen masked. Each event arrives in one write.
struct MaskedLog(SeenSecrets);

impl Write for MaskedLog {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let masked = self.0.mask().text(&String::from_utf8_lossy(event));
        io::stderr().write_all(masked.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// The database that the options name.
fn database(options: &cli::Up) -> Result<Option<SecretString>> {
    let Some(url) = options.database.clone().filter(|url| !url.expose().is_empty()) else {
        return Ok(None);
    };
    // Do not show the rest of the URL: it may contain a password.
    if !["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| url.expose().starts_with(scheme))
    {
        bail!(
            "the address of the database does not begin with `postgres://`: without one, rows are kept in the data directory"
        );
    }
    Ok(Some(url))
}

/// Writes the server's address for the command line: to the data directory and, if the server has a name, to the folder of that
/// name.
fn say_where(dir: &Path, name: Option<&str>, address: &str) -> Result<()> {
    let own = name.map(|name| dir.join(SERVERS_FOLDER).join(name));
    for folder in own.into_iter().chain([dir.to_path_buf()]) {
        let wrong = || format!("failed to write in `{}`", folder.display());
        std::fs::create_dir_all(&folder).with_context(wrong)?;
        std::fs::write(folder.join(ADDRESS_FILE), address).with_context(wrong)?;
    }
    Ok(())
}

/// How many user ids are reserved for jobs, and so how many jobs can have one of their own at once.
const JOB_USERS: u32 = 1_000;

/// The variables that programs need to work at all. Jobs inherit every other variable of this shell only if it is named.
const ALWAYS: [&str; 5] = ["PATH", "LANG", "LC_ALL", "TZ", "DOCKER_HOST"];

fn stop_on_signals(shutdown: CancellationToken) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to wait for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("failed to wait for SIGTERM")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        eprintln!("Stopping. Jobs and applications go on; the next `towpath up` takes them up again.");
        shutdown.cancel();
    });
    Ok(())
}

/// `towpath proxy`.
pub async fn proxy(options: cli::Proxy) -> Result<()> {
    let routes: PathBuf = options.routes;
    towpath_deploy::proxy::run(towpath_deploy::proxy::ProxyOptions { routes_dir: routes })
        .await
        .context("the proxy stopped")
}
