//! What a template can refer to at its place.

use std::sync::Arc;

use foldhash::fast::RandomState;
use indexmap::IndexMap;

use crate::element::NamespaceId;
use crate::trace::{FrameId, OUTSIDE};
use crate::value::Value;

/// Values by parameter name.
pub(crate) type Arguments = IndexMap<Arc<str>, Value, RandomState>;

/// What a template can refer to at its place.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'s> {
    /// The parameters of the element that contains it; `None` outside of all elements.
    pub(crate) parameters: Option<&'s Arguments>,
    /// The values of the matrix member that contains it.
    pub(crate) matrix: Option<&'s Arguments>,
    /// The namespace in which its names are looked up.
    pub(crate) namespace: NamespaceId,
    /// The call that contains it, for explanations.
    pub(crate) frame: FrameId,
}

impl Scope<'_> {
    /// The scope outside of all elements.
    pub(crate) fn top(namespace: NamespaceId) -> Scope<'static> {
        Scope {
            parameters: None,
            matrix: None,
            namespace,
            frame: OUTSIDE,
        }
    }
}
