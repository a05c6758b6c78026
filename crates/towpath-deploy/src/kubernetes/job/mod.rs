//! Jobs that are run by name: [`starter`] creates the Job of a run, and [`watcher`] watches its pods to the end and collects
//! what they print.

mod end;
mod output;
mod podless;
mod starter;
mod watcher;

pub(super) use end::{end_of, failed_at};
pub(super) use starter::{Started, Starter, find_run};
pub(super) use watcher::Watcher;
