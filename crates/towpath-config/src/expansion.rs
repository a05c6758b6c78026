//! Expanded jobs, and the cache that lets calls with equal arguments share one.

use std::rc::Rc;
use std::sync::Arc;

use foldhash::HashMap;
use towpath_yaml::{Node, Span};

use crate::element::NamespaceId;
use crate::trace::FrameId;
use crate::value::Value;

/// A job with all parameters, commands and executors expanded, as `config process` prints it.
pub(crate) struct Expanded {
    /// The name of the definition.
    pub(crate) name: Arc<str>,
    pub(crate) node: Node,
    /// Where the job is defined.
    pub(crate) span: Span,
    /// Whether an error in it was reported. Something may be missing because of that.
    pub(crate) broken: bool,
    /// The call of the job, for explanations.
    pub(crate) frame: FrameId,
    /// The call of the job's executor, and the keys that the executor sets.
    pub(crate) executor: Option<(FrameId, Vec<Arc<str>>)>,
}

/// Expanded jobs by namespace, name and arguments. An equal call, perhaps in another workflow, shares the result.
pub(crate) type ExpandedCache = HashMap<(NamespaceId, Arc<str>, Vec<Plain>), Rc<Expanded>>;

/// A value that is cheap to hash and to compare.
#[derive(PartialEq, Eq, Hash)]
pub(crate) enum Plain {
    Null,
    Bool(bool),
    Int(i64),
    Text(Arc<str>),
    Executor(Arc<str>, NamespaceId),
}

impl Plain {
    pub(crate) fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Int(value) => Self::Int(*value),
            Value::Text(text) => Self::Text(text.clone()),
            Value::Executor { node, namespace } => Self::Executor(node.as_scalar()?.text.clone(), *namespace),
            Value::Float(_) | Value::Pattern(_) | Value::Steps(_) | Value::Tree(_) => return None,
        })
    }
}
