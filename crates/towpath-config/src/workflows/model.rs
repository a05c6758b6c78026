//! Workflows with their jobs expanded and named.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use towpath_yaml::{Mapping, Span};

use crate::compiled::{RequiredStatus, Schedule};
use crate::expansion::Expanded;

/// A workflow.
pub(crate) struct Graph {
    pub(crate) name: Arc<str>,
    pub(crate) span: Span,
    pub(crate) invocations: Vec<Invocation>,
    pub(crate) schedules: Vec<Schedule>,
    pub(crate) max_auto_reruns: Option<u32>,
    /// The other keys of the workflow, for `config process`.
    pub(crate) printed: Mapping,
}

/// A job of a workflow.
pub(crate) struct Invocation {
    /// Where the workflow lists the job.
    pub(crate) span: Span,
    /// The name before it is made unique.
    pub(crate) base: Arc<str>,
    /// The name of a matrix member with its values in the alphabetical order of their parameters.
    pub(crate) alternate: Option<Arc<str>>,
    /// The name under which other jobs require all members of the matrix.
    pub(crate) alias: Option<Arc<str>>,
    /// The matrix that it is a member of, by its position in the workflow.
    pub(crate) matrix: Option<usize>,
    /// The job group that it belongs to, by the name under which the workflow calls the group.
    pub(crate) group: Option<Arc<str>>,
    /// Whether it is the start or the end of its group.
    pub(crate) is_boundary: bool,
    /// The job or the group that is called.
    pub(crate) reference: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) role: Role,
    /// The requirements as written.
    pub(crate) requires: Vec<Require>,
    /// The requirements by the index of the required job.
    pub(crate) resolved: Vec<(usize, BTreeSet<RequiredStatus>)>,
    pub(crate) contexts: Vec<String>,
    pub(crate) serial_group: Option<String>,
    /// The keys besides the name and the requirements, for `config process`.
    pub(crate) printed: Mapping,
    /// Whether the pipeline's branch or tag passes the filters.
    pub(crate) kept: bool,
}

impl Invocation {
    /// Whether `other` can require it as `name`. From outside a group only the group itself can be required.
    pub(crate) fn is_seen_by(&self, other: &Self, name: &Arc<str>) -> bool {
        self.group.is_none() || self.group == other.group || self.group.as_ref() == Some(name)
    }
}

/// The type of a job in a workflow.
#[derive(Clone)]
pub(crate) enum Role {
    Build(Rc<Expanded>),
    Approval,
    NoOp,
    Release {
        plan_name: Option<String>,
    },
    Lock {
        key: String,
        /// Whether it stands for the `serial-group` of a job group.
        of_group: bool,
    },
    Unlock {
        key: String,
        of_group: bool,
    },
}

/// A requirement as written.
#[derive(Clone)]
pub(crate) struct Require {
    pub(crate) name: Arc<str>,
    pub(crate) statuses: BTreeSet<RequiredStatus>,
    pub(crate) span: Span,
}
