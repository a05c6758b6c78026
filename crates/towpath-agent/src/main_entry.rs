//! From the process's start to its exit code.

use crate::{client::Client, init, job, options::AgentOptions, stderr::say};
use std::process::ExitCode;

/// Runs one job from start to end. The binary calls it for `towpath agent` before it starts any thread.
///
/// Steps run as the same user, so it closes its memory and its environment to them first: both hold its token.
///
/// As process 1 it starts itself again and only reaps children and forwards signals. The exit code is 0 when the server was
/// told how the job ended (whatever the outcome), 1 when the agent could not work, and 3 when the server no longer knows the
/// job.
#[must_use]
pub fn main(options: AgentOptions) -> ExitCode {
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        say(&format!("failed to close its memory to the steps: {error}"));
        return ExitCode::FAILURE;
    }
    if std::process::id() == 1 {
        return init::run();
    }
    let worked = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| format!("failed to start the agent: {error}"))
        .and_then(|runtime| {
            let done = runtime.block_on(async {
                let client = Client::new(options.socket.clone(), options.token.clone());
                job::run(client, &options).await
            });
            // Do not wait for a process that still holds a step's pipe open.
            runtime.shutdown_background();
            done
        });
    match worked {
        Ok(job::Told::Yes) => ExitCode::SUCCESS,
        Ok(job::Told::NobodyAsks) => {
            say("the server no longer knows this job; stopped everything that ran");
            ExitCode::from(3)
        }
        Err(message) => {
            say(&message);
            ExitCode::FAILURE
        }
    }
}
