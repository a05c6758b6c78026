//! The `towpath` binary: the command line, and the wiring of the parts. No logic.
//!
//! The same file is the server, the command line on a laptop, the agent in a job's environment, the proxy in front of an
//! application, and git's hooks and credential helper. The first argument, or the name of the program, selects one.

#[macro_use]
mod output;

mod cli;
mod client;
mod commands;
mod ending;
mod exit;
mod operations;
mod repository;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // In a job, `circleci`, `circleci-agent`, `towpath`, `git-remote-towpath` and sometimes `sudo` are links to this file.
    let name = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&name)
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    if matches!(name, "circleci" | "circleci-agent") {
        return towpath_agent::in_job_main(std::env::args().skip(1));
    }
    if name == "sudo" {
        return towpath_agent::sudo_main();
    }
    if name == "git-remote-towpath" {
        return towpath_agent::git_remote_main(std::env::args().skip(1));
    }
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // If nobody reads the output, nothing is left to do. `--help` is not a mistake.
            let _ = error.print();
            return match error.use_stderr() {
                true => ExitCode::from(exit::USAGE),
                false => ExitCode::SUCCESS,
            };
        }
    };
    match cli.command {
        // The agent may be the first process of a container: it forks before any thread exists.
        cli::Command::Agent => match towpath_agent::AgentOptions::from_environment() {
            Ok(options) => towpath_agent::main(options),
            Err(error) => exit::report(&error.into()),
        },
        command => match run(command) {
            Ok(code) => code,
            Err(error) => exit::report(&error),
        },
    }
}

fn run(command: cli::Command) -> anyhow::Result<ExitCode> {
    // Use one crypto provider for every TLS client of this process. If one is already installed, keep it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(commands::run(command));
    // A blocked read of standard input must not keep the process alive.
    runtime.shutdown_background();
    result
}
