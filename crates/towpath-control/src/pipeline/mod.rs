//! From triggers to pipelines.

pub(crate) mod compile;
pub(crate) mod deployments;
pub(crate) mod make;
pub(crate) mod triggers;
