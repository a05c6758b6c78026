//! One function a command: gather what it needs, ask the server, print.

mod config;
mod git;
mod image;
mod init;
mod lsp;
mod operate;
mod orbs;
mod pipelines;
mod secrets;
mod up;

use crate::cli::Command;
use anyhow::Result;
use std::process::ExitCode;

/// Runs a command.
pub async fn run(command: Command) -> Result<ExitCode> {
    let done = |()| ExitCode::SUCCESS;
    match command {
        Command::Up(options) => up::up(options).await.map(done),
        Command::Init(options) => init::init(&options.at).await.map(done),
        Command::Pipelines(at) => pipelines::list(&at).await.map(done),
        Command::Gates(at) => pipelines::gates(&at).await.map(done),
        Command::Approve(options) => pipelines::approve(options).await.map(done),
        Command::Cancel(options) => pipelines::cancel(options).await.map(done),
        Command::Logs(options) => pipelines::logs(options).await.map(done),
        Command::Build(options) => image::build(options).await.map(done),
        Command::Deploy(options) => operate::deploy(options).await.map(done),
        Command::Diff(options) => operate::diff(options).await,
        Command::Rollback(options) => operate::rollback(options).await.map(done),
        Command::Status(options) => operate::status(options).await.map(done),
        Command::History(options) => operate::history(options).await.map(done),
        Command::Job(options) => operate::job(options).await,
        Command::Cronjob(options) => operate::cronjob(options).await,
        Command::Promote(options) => operate::promote(options).await.map(done),
        Command::Drift(options) => operate::drift(options).await,
        Command::Lock(options) => operate::lock(options).await.map(done),
        Command::Unlock(options) => operate::unlock(options).await.map(done),
        Command::Secrets(command) => secrets::secrets(command).await.map(done),
        Command::Context(command) => secrets::context(command).await.map(done),
        Command::Config(command) => config::config(command).await,
        Command::Lsp(options) => lsp::lsp(options).await,
        Command::Orb(command) => orbs::orb(command).await,
        Command::Proxy(options) => up::proxy(options).await.map(done),
        Command::Hook { name } => git::hook(&name).await.map(done),
        Command::Credential { operation, at } => git::credential(&operation, &at).map(done),
        // `main` runs the agent before there is a runtime.
        Command::Agent => anyhow::bail!("the agent is started by an engine, not by a person"),
    }
}

/// The project that `at` means: named, or the repository's.
fn project(at: &crate::cli::At) -> Result<String> {
    match &at.project {
        Some(project) => Ok(project.clone()),
        None => crate::repository::Repository::find().map(|repository| repository.project()),
    }
}
