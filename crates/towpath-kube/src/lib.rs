//! The one client for Kubernetes API servers.
//!
//! [`Identity`] finds the cluster of a kube context and its credentials, and connects a [`Client`]. The client sends requests
//! with [`Patience`]: it retries what is safe to send twice, and its errors name the server and what to do. [`Discovery`]
//! finds out which [`Resource`]s a cluster serves, an [`Informer`] keeps a collection up to date by watching it, and
//! [`managed_fields`] reads who owns which field of an object.
//!
//! **Invariants.** Only this crate speaks HTTP to a cluster. Objects stay JSON: nothing of an object that Towpath does not
//! know is lost. No credential, and no answer about a Secret, reaches a log or an error.
//!
//! **It does not know** what is deployed, in which order, and what a release is. What is known about a kind in general (its
//! path, its scope, its pod template) is in the table of `towpath-manifest`.

mod client;
mod credentials;
mod discovery;
mod error;
mod fields;
mod identity;
mod informer;
mod json;
pub mod managed_fields;
mod proxy;
mod resource;

pub use client::{Answer, Client, Mode, Patience, Select, WatchEvent};
pub use discovery::{Discovery, Lookup};
pub use error::ApiError;
pub use fields::{condition, container_statuses, text_at};
pub use identity::{CA_VARIABLE, Identity, IdentityError, SERVER_VARIABLE, TOKEN_VARIABLE};
pub use informer::{Gone, Informer};
pub use resource::Resource;
