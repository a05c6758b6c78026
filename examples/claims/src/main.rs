//! Expense claims of a small office: a web page, an API, a worker and a few jobs, in one static binary.
//!
//! The image contains only this file. So everything that operates the application is a subcommand: its jobs, its readiness
//! check and its smoke test.

mod claim;
mod database;
mod page;
mod settings;
mod smoke;
mod tasks;
mod web;
mod worker;

use settings::Settings;
use std::process::ExitCode;

const USAGE: &str = "\
usage: claims <command>

  web             serve the page and the API until SIGTERM
  worker          decide submitted claims until SIGTERM
  migrate         bring the database's schema up to date
  seed            add a few claims, unless there are some already
  archive-stale   archive claims that were decided long ago
  vacuum-db       release the database's unused space
  ready           succeed if the database is reachable and migrated
  smoke FILE      run the HTTP checks in FILE

Settings come from the environment: DATABASE_URL, SESSION_KEY, GREETING, ENVIRONMENT, LISTEN, MIGRATE_ON_START,
ARCHIVE_AFTER_DAYS, AUTO_APPROVE_PENCE.";

/// Why a command failed, for the person who reads the log.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn run(arguments: &[&str]) -> Result<(), Failure> {
    match arguments {
        ["smoke", file] => return smoke::run(&std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            return Ok(());
        }
        _ => {}
    }
    let settings = Settings::from(|name| std::env::var(name).ok())?;
    match arguments {
        ["web"] => until_sigterm(|stop| web::serve(settings, stop)),
        ["worker"] => until_sigterm(|stop| worker::work(settings, stop)),
        ["migrate"] => tasks::migrate(&settings),
        ["seed"] => tasks::seed(&settings),
        ["archive-stale"] => tasks::archive_stale(&settings),
        ["vacuum-db"] => tasks::vacuum(&settings),
        ["ready"] => tasks::ready(&settings),
        _ => Err(format!("unknown command `{}`\n\n{USAGE}", arguments.join(" ")).into()),
    }
}

/// Runs `work` to its end. Its receiver becomes true at SIGTERM or Ctrl-C.
fn until_sigterm<F: Future<Output = Result<(), Failure>>>(
    work: impl FnOnce(tokio::sync::watch::Receiver<bool>) -> F,
) -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Process 1 ignores SIGTERM by default. Without a handler, the container would always use up its grace period.
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (stop, stopped) = tokio::sync::watch::channel(false);
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            println!("asked to stop: finishing current work");
            let _ = stop.send(true);
        });
        work(stopped).await
    })
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("claims: {failure}");
            ExitCode::FAILURE
        }
    }
}
