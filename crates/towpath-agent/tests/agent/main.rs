//! The agent without the rest of the product. It behaves like `towpath agent`, and like the names under which steps call it.
#![allow(missing_docs)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let own = std::env::args().next().unwrap_or_default();
    if own.ends_with("circleci") || own.ends_with("circleci-agent") {
        return towpath_agent::in_job_main(std::env::args().skip(1));
    }
    if own.ends_with("git-remote-towpath") {
        return towpath_agent::git_remote_main(std::env::args().skip(1));
    }
    match towpath_agent::AgentOptions::from_environment() {
        Ok(options) => towpath_agent::main(options),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
