//! Why an operation on an environment in a cluster failed.

use crate::{
    target::{SourceError, TargetError},
    wire::WireError,
};
use towpath_kube::ApiError;

/// Why an operation on an environment in a cluster failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClusterError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("cannot read the credentials for the registry `{registry}`")]
    Credentials { registry: String, source: SourceError },
    #[error("cannot read the record in the Secret `{secret}`")]
    Newer { secret: String, source: WireError },
    #[error("cannot write a record of the environment: {0}")]
    Record(String),
    #[error("the cluster does not serve `{kind}` in `{api_version}`, although its definition was applied")]
    NotServed { api_version: String, kind: String },
}

/// Turns an error into one of the target: "failed to `attempted`".
pub(super) fn failed_to<E: Into<ClusterError>>(attempted: impl Into<String>) -> impl FnOnce(E) -> TargetError {
    let attempted = attempted.into();
    move |error| TargetError::failed(attempted)(error.into())
}
