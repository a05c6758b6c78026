//! The agent: runs a job's steps inside the job's environment.
//!
//! The same static binary as the server, started as `towpath agent` by an engine: in a container, where it is process 1 and
//! may find nothing around it (an image made `FROM scratch`), or as a process of a host. It asks the server what to do,
//! runs the steps, and tells what happened, by [`towpath_protocol`]. Steps find it again under the names `circleci`,
//! `circleci-agent` and `towpath`, first on their `PATH`.
//!
//! **Invariant:** nothing that a step prints leaves before it has passed the mask.
//!
//! **Invariant:** the server may be killed and come back at any moment of a job: steps go on, and what they print and how
//! they end is told later, without gap and without double.
//!
//! **Invariant:** memory does not grow with what a job prints or keeps: logs are spooled to a disk, archives are streamed.
//!
//! **Invariant:** what is unpacked stays under the directory that it is unpacked to.
//!
//! It deliberately does not know: pipelines, workflows, contexts, where the environment came from, or the engine's API.

mod archive;
mod cache;
mod cache_key;
mod checkout;
mod client;
mod in_job;
mod init;
mod job;
mod main_entry;
mod place;
mod run;
mod shell;
mod spool;
mod step;
mod store;
mod test_split;
mod uplink;
mod workspace;

pub use in_job::in_job_main;
pub use main_entry::{AgentOptions, OptionsError, main};
