//! The server's routes over a system with a fake outside: a store in memory, and a target, a forge, registries and an engine
//! that count their calls.

#![allow(clippy::unwrap_used)]

mod approvals;
mod credentials;
mod diagnostics;
mod doors;
mod hosts;
mod lasting;
mod rows_only;
mod values;
mod world;
