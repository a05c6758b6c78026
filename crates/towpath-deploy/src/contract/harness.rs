//! What the suite needs to know about a target.

use super::capabilities::Capabilities;
use crate::target::{Environment, Target};
use futures::future::BoxFuture;
use std::time::Duration;
use towpath_manifest::{Object, ObjectId};

/// A target under test, and an application that it can run.
///
/// The application consists of at least a ConfigMap `contract`, whose data has the version, a Deployment `web`, and a CronJob
/// `sweep` whose runs print `swept` and succeed. A fake can script itself whenever the suite asks for an object.
pub trait Harness: Send + Sync {
    #[allow(missing_docs)]
    fn target(&self) -> &dyn Target;

    /// An environment that was never applied. The suite deletes it when it is done.
    fn environment(&self) -> &Environment;

    #[allow(missing_docs)]
    fn capabilities(&self) -> Capabilities;

    /// How long one `apply` of the application may take.
    fn deadline(&self) -> Duration;

    /// A version of the application that rolls out.
    fn application(&self, version: &str) -> Vec<Object>;

    /// A version whose rollout takes long enough for other calls during it.
    fn slow_application(&self, version: &str) -> Vec<Object>;

    /// A version whose rollout fails, because of the Deployment `web`.
    fn broken_application(&self, version: &str) -> Vec<Object>;

    /// A version with an object that `preflight` refuses.
    fn refused_application(&self) -> Vec<Object>;

    /// A Job that prints `text` and exits with `exit_code`, with this value of [`JOB_LABEL`](crate::JOB_LABEL).
    fn job(&self, name: &str, label: &str, exit_code: i64, text: &str) -> Object;

    /// A Job that runs until it is stopped.
    fn endless_job(&self, name: &str, label: &str) -> Object;

    /// Changes the data of the ConfigMap `id` as somebody with other tools. Called only if the target finds drift.
    fn tamper<'a>(&'a self, id: &'a ObjectId) -> BoxFuture<'a, ()>;
}
