//! The agent: runs a job's steps inside the job's environment.
//!
//! It is the same static binary as the server. An engine starts it as `towpath agent`, either in a container, where it is
//! process 1 and may find nothing around it (an image `FROM scratch`), or as a process on a host. It asks the server what to
//! do, runs the steps, and reports what happened, as [`towpath_protocol`] says. Steps find it first on their `PATH`, under the
//! names `circleci`, `circleci-agent` and `towpath`; git finds it as `git-remote-towpath`.
//!
//! **Invariant:** whatever a step prints passes the mask before it leaves the machine.
//!
//! **Invariant:** the server may be killed and come back at any moment of a job. Steps go on; their output and results are
//! reported later, without gaps and without duplicates.
//!
//! **Invariant:** no step holds or finds the agent's token: it is not in a step's environment, and the agent's own environment
//! and memory are closed to other processes of its user.
//!
//! **Invariant:** memory does not grow with what a job prints or stores. Logs are spooled to disk, archives are streamed.
//!
//! **Invariant:** unpacking an archive writes nothing outside the archive's directory.
//!
//! The agent does not know pipelines, workflows, contexts, where its environment came from, or the engine's API.

mod archive;
mod cache;
mod cache_key;
mod checkout;
mod client;
mod doublestar;
mod env_subst;
mod git_remote;
mod in_job;
mod init;
mod job;
mod main_entry;
mod options;
mod run;
mod shell;
mod spool;
mod stderr;
mod step;
mod store;
mod surroundings;
mod test_split;
mod uplink;
mod workspace;

pub use git_remote::git_remote_main;
pub use in_job::{in_job_main, sudo_main};
pub use main_entry::main;
pub use options::{AgentOptions, OptionsError};
