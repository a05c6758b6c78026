//! The names of jobs: unique in a workflow, and unique among the definitions of all workflows.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};
use towpath_yaml::Node;

use crate::expansion::Expanded;
use crate::value::same_tree;
use crate::workflows::model::{Graph, Invocation, Role};

/// Makes the names in a workflow unique: jobs that share a name get a number.
pub(crate) fn number_duplicates(invocations: &mut [Invocation]) {
    let mut counts: HashMap<Arc<str>, usize> = HashMap::new();
    for invocation in invocations.iter() {
        *counts.entry(invocation.base.clone()).or_default() += 1;
    }
    let mut taken: BTreeSet<Arc<str>> = counts
        .iter()
        .filter(|(_, count)| **count == 1)
        .map(|(name, _)| name.clone())
        .collect();
    let mut next: HashMap<Arc<str>, usize> = HashMap::new();
    for invocation in invocations.iter_mut().filter(|invocation| counts[&invocation.base] > 1) {
        let number = next.entry(invocation.base.clone()).or_default();
        invocation.name = loop {
            *number += 1;
            let name: Arc<str> = format!("{}-{number}", invocation.base).into();
            if taken.insert(name.clone()) {
                break name;
            }
        };
    }
}

/// The name of the job or group that an entry of `jobs` calls.
pub(crate) fn invoked_name(item: &Node) -> Option<Arc<str>> {
    match item.as_mapping() {
        None => item.as_scalar().map(|scalar| scalar.text.clone()),
        Some(mapping) => mapping.entries().first().map(|part| part.key.text.clone()),
    }
}

/// The names by which an entry of `jobs` can be required.
pub(crate) fn names_of(item: &Node) -> Vec<Arc<str>> {
    let text = |node: &Node| node.as_scalar().map(|scalar| scalar.text.clone());
    match item.as_mapping() {
        None => text(item).into_iter().collect(),
        Some(mapping) => mapping
            .iter()
            .flat_map(|part| {
                let named = part
                    .value
                    .get("name")
                    .or_else(|| part.value.get("matrix")?.get("alias"));
                [Some(part.key.text.clone()), named.and_then(text)]
            })
            .flatten()
            .collect(),
    }
}

/// The jobs that use a definition, by the index of the workflow and of the job.
type Uses = Vec<(usize, usize)>;

/// Collects the definitions of all workflows in the order of their first use. Different definitions that share a name in
/// different workflows get a number.
pub(crate) fn definitions(graphs: &mut [Graph]) -> Vec<(Arc<str>, Rc<Expanded>)> {
    // For each name, the different definitions with their uses.
    let mut order: Vec<Arc<str>> = Vec::new();
    let mut known: HashMap<Arc<str>, Vec<(Rc<Expanded>, Uses)>> = HashMap::new();
    for (graph_at, graph) in graphs.iter().enumerate() {
        for (at, invocation) in graph.invocations.iter().enumerate() {
            let Role::Build(expanded) = &invocation.role else {
                continue;
            };
            let variants = known.entry(invocation.name.clone()).or_insert_with(|| {
                order.push(invocation.name.clone());
                Vec::new()
            });
            let same = variants
                .iter_mut()
                .find(|(other, _)| Rc::ptr_eq(other, expanded) || same_tree(&other.node, &expanded.node));
            match same {
                Some((_, uses)) => uses.push((graph_at, at)),
                None => variants.push((expanded.clone(), vec![(graph_at, at)])),
            }
        }
    }
    let mut taken: BTreeSet<Arc<str>> = order.iter().cloned().collect();
    let mut definitions = Vec::with_capacity(order.len());
    for name in order {
        let Some(variants) = known.remove(&name) else { continue };
        let several = variants.len() > 1;
        let mut number = 0;
        for (expanded, uses) in variants {
            let own = if several {
                loop {
                    number += 1;
                    let own: Arc<str> = format!("{name}-{number}").into();
                    if taken.insert(own.clone()) {
                        break own;
                    }
                }
            } else {
                name.clone()
            };
            let first = uses.first().copied();
            for (graph, at) in uses {
                graphs[graph].invocations[at].name = own.clone();
            }
            definitions.push((first, (own, expanded)));
        }
    }
    // Sort by first use. The order must be the same when the printed configuration is compiled again.
    definitions.sort_by_key(|(first, _)| *first);
    definitions.into_iter().map(|(_, definition)| definition).collect()
}
