//! What the tests of this crate share.

pub(crate) mod plans;
pub(crate) mod rows;
