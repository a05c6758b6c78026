//! One function for each command. It gathers its inputs, sends the request, and prints the result.

mod adopt;
mod agree;
mod config;
mod env;
mod environment;
mod gates;
mod git;
mod image;
mod init;
mod lsp;
mod orbs;
mod pipelines;
mod place;
mod plan;
mod release;
mod run;
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
        Command::Gates(at) => gates::list(&at).await.map(done),
        Command::Approve(options) => gates::approve(options).await.map(done),
        Command::Trigger(options) => pipelines::trigger(options).await.map(done),
        Command::DefaultBranch(options) => pipelines::default_branch(options).await.map(done),
        Command::Cancel(options) => pipelines::cancel(options).await.map(done),
        Command::Logs(options) => pipelines::logs(options).await.map(done),
        Command::Build(options) => image::build(options).await.map(done),
        Command::Deploy(options) => release::deploy(options).await.map(done),
        Command::Diff(options) => release::diff(options).await,
        Command::Adopt(options) => adopt::adopt(options).await.map(done),
        Command::Rollback(options) => release::rollback(options).await.map(done),
        Command::Env(command) => env::env(command).map(done),
        Command::Schema => {
            out_raw!("{}", towpath_delivery::PROJECT_SCHEMA);
            Ok(ExitCode::SUCCESS)
        }
        Command::Status(options) => environment::status(options).await.map(done),
        Command::History(options) => environment::history(options).await.map(done),
        Command::Job(options) => run::job(options).await,
        Command::Cronjob(options) => run::cronjob(options).await,
        Command::Test(options) => run::test(options).await.map(done),
        Command::Promote(options) => release::promote(options).await.map(done),
        Command::Drift(options) => environment::drift(options).await,
        Command::Lock(options) => environment::lock(options).await.map(done),
        Command::Unlock(options) => environment::unlock(options).await.map(done),
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
