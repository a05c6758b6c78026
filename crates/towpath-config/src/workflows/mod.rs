//! Workflows: their jobs, what those require, and which of them run for the pipeline's branch or tag.
//!
//! Source: <https://circleci.com/docs/reference/configuration-reference/#workflows>

mod filtering;
mod groups;
mod invocations;
pub(crate) mod model;
pub(crate) mod naming;
mod requires;
mod schedules;
mod section;
