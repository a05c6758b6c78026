//! Schedules.
#![allow(clippy::unwrap_used)]
mod world;
