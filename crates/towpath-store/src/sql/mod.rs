//! The rows in SQLite or PostgreSQL: one implementation of all traits for both.
//!
//! From the bottom: [`value`] and [`query`] turn Rust types into SQL and back, [`database`] runs SQL on either
//! database, [`record`] maps row types to tables. A file per noun implements the noun's trait and its writes.
//! [`perform`] carries out an operation in a transaction, and [`writer`] has a task that does so, so that a caller that
//! goes away leaves no transaction unfinished.
//!
//! - Columns are texts, 64-bit integers and floating-point numbers. Moments are microseconds; lists and wire forms are
//!   JSON in a text column; ids and words are texts. SQL is the same for both databases where that is possible.
//! - SQLite has one writing connection. Operations that wait for it share a transaction, and with it one wait for the
//!   disk; each has a savepoint of its own, so that one which fails does not fail its neighbours.
//! - PostgreSQL runs operations side by side at `READ COMMITTED`: an update repeats what it expects in its `WHERE`, an
//!   insert does nothing if the key is taken, and the number of changed rows says which it was.

mod artifacts;
mod connections;
mod contexts;
mod counters;
mod database;
mod environments;
mod failure;
mod faults;
mod folder;
mod gates;
mod handle;
mod jobs;
mod mark;
mod migrate;
mod operation;
mod orbs;
mod perform;
mod pipelines;
mod postgres;
mod publish;
mod query;
mod record;
mod releases;
mod servers;
mod sessions;
mod store;
mod topics;
mod triggers;
mod value;
mod work;
mod workflows;
mod writer;

pub use database::Database;
pub use faults::Faults;
pub use folder::belong_together;
pub use handle::SqlStore;
