//! From triggers to pipelines.

pub(crate) mod compile;
pub(crate) mod make;
mod own_gates;
pub(crate) mod triggers;
