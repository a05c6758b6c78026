//! Preflight: what applying objects would do, and everything that stands in the way. Changes nothing.
//!
//! [`checker`] asks the server for a dry run of each object and collects the result of the other modules, each of which looks
//! at one subject: [`permissions`] of the account, [`admission`] of pods, [`references`] to other objects, [`ownership`] by
//! other environments, [`scaling`] by controllers, and the [`refusal`]s of the server, which it turns into findings with
//! places. [`prediction`] saves dry runs of ConfigMaps where their result is certain.

mod admission;
mod checker;
mod finding;
mod ownership;
mod permissions;
mod prediction;
mod references;
mod refusal;
mod report;
mod scaling;

pub(super) use checker::Checker;
pub(super) use refusal::{of_error as refusals, redacted};
pub(super) use report::{CheckedObject, Report};
pub(super) use scaling::{replicas_path, with_live_replicas};
