//! `towpath up`, and the proxy that it starts in front of applications.

use crate::{
    cli,
    client::{ADDRESS_FILE, data_dir},
};
use anyhow::{Context, Result};
use std::{io::IsTerminal, path::PathBuf};
use tokio_util::sync::CancellationToken;
use towpath_control::{Control, Grant, Settings, TargetSettings};

/// `towpath up`.
pub async fn up(options: cli::Up) -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("TOWPATH_LOG").unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
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
        address,
        binary: std::env::current_exe().context("failed to find this program's file")?,
        host_environment: ALWAYS
            .into_iter()
            .map(str::to_string)
            .chain(options.host_env.iter().cloned())
            .collect(),
        orb_registry: options.orbs.registry().map(str::to_string),
        orb_url_prefixes: options.orbs.url_prefixes()?,
        target: crate::direct::target_settings(options.target),
        engine: true,
    };
    let environments = match &settings.target {
        TargetSettings::Local => "on this machine's container engine (--target local)".to_string(),
        TargetSettings::Kubernetes(identity) => format!("{identity} (--target kubernetes)"),
    };
    let control = Control::open(settings).await?;
    let shutdown = CancellationToken::new();
    stop_on_signals(shutdown.clone())?;
    std::fs::write(dir.join(ADDRESS_FILE), format!("http://{address}\n"))
        .with_context(|| format!("failed to write in `{}`", dir.display()))?;
    outln!("Towpath is up at http://{address}");
    if std::io::stdout().is_terminal() {
        // A terminal is the owner's eyes; a log is not.
        outln!(
            "  sign in: http://{address}/login?token={}",
            control.tokens().issue(&Grant::Owner).expose()
        );
    } else {
        outln!("  sign in: with the token in `{}`", dir.join("token").display());
    }
    outln!("  data:    {}", dir.display());
    outln!("  environments: {environments}");
    outln!("  next:    run `towpath init` in your repository");
    let conductor = tokio::spawn(control.clone().run(shutdown.clone()));
    let served = towpath_server::serve(control, listener, shutdown.clone()).await;
    shutdown.cancel();
    conductor.await.context("the conductor stopped in an unexpected way")?;
    served.context("the server stopped")
}

/// What programs need to work at all; everything else of this shell stays here unless it is named.
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
        eprintln!("Stopping; jobs and applications go on, and are taken up again by the next `towpath up`.");
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
