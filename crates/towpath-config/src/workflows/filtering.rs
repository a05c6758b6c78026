//! Removes the jobs that the filters exclude.

use std::collections::BTreeSet;
use std::sync::Arc;

use towpath_yaml::{Entry, Node, ScalarStyle};

use crate::workflows::model::Invocation;

/// Removes jobs whose filters do not pass, and jobs all of whose requirements were removed.
pub(crate) fn apply_filters(invocations: &mut [Invocation]) {
    let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); invocations.len()];
    let mut left: Vec<usize> = invocations.iter().map(|invocation| invocation.resolved.len()).collect();
    for (at, invocation) in invocations.iter().enumerate() {
        for (other, _) in &invocation.resolved {
            dependents[*other].push(at);
        }
    }
    let mut out: Vec<usize> = (0..invocations.len()).filter(|at| !invocations[*at].kept).collect();
    while let Some(at) = out.pop() {
        for dependent in std::mem::take(&mut dependents[at]) {
            left[dependent] -= 1;
            if left[dependent] == 0 && invocations[dependent].kept {
                invocations[dependent].kept = false;
                out.push(dependent);
            }
        }
    }
    // Remove the start and the end of a group whose members were all removed. A group without members stays: it orders the
    // jobs around it.
    let members = || invocations.iter().filter(|invocation| !invocation.is_boundary);
    let groups = |kept: bool| -> BTreeSet<Arc<str>> {
        let of_it = members().filter(|invocation| invocation.kept == kept);
        of_it.filter_map(|invocation| invocation.group.clone()).collect()
    };
    let (alive, hit) = (groups(true), groups(false));
    for boundary in invocations.iter_mut().filter(|invocation| invocation.is_boundary) {
        let is_dead = |group: &Arc<str>| hit.contains(group) && !alive.contains(group);
        if boundary.kept && boundary.group.as_ref().is_some_and(is_dead) {
            boundary.kept = false;
            let never = Node::scalar("false", ScalarStyle::Plain, boundary.span.clone());
            boundary
                .printed
                .insert(Entry::computed("filters", never, &boundary.span.clone()));
        }
    }
}
