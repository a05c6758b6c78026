//! Towpath under attack, as a process on a real disk. What was acknowledged is done exactly once, whatever dies meanwhile.

#![allow(clippy::unwrap_used, clippy::panic)]

mod full_disk;
mod host_jobs;
mod kills;
mod world;
