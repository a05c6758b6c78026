//! Requirements between the jobs of a workflow.

use std::collections::BTreeSet;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};
use towpath_yaml::{Diagnostic, Node};

use crate::compiled::RequiredStatus;
use crate::compiler::Compiler;
use crate::element::{CONFIG, Kind};
use crate::scope::Scope;
use crate::workflows::model::{Graph, Require};
use towpath_types::nearest;

const MAX_REQUIREMENTS: usize = 100_000;

impl Compiler<'_> {
    /// Reads `requires`.
    pub(crate) fn requires(&mut self, node: &Node, scope: &Scope<'_>) -> Vec<Require> {
        let node = self.substitute(node, scope);
        let items = match node.as_sequence() {
            Some(items) => items.to_vec(),
            None if node.is_null() => Vec::new(),
            None if node.as_scalar().is_some() => vec![node.clone()],
            None => {
                let message = format!("`requires` must be a list of jobs, not {}", node.kind());
                self.report(Diagnostic::error("config::requires", message).at(node.span(), ""));
                return Vec::new();
            }
        };
        let mut requires = Vec::new();
        for item in &items {
            if let Some(scalar) = item.as_scalar() {
                let statuses = BTreeSet::from([RequiredStatus::Success]);
                requires.push(Require {
                    name: scalar.text.clone(),
                    statuses,
                    span: item.span().clone(),
                });
                continue;
            }
            // An alias to a list makes a nested list. CircleCI refuses that, too.
            let Some(mapping) = item.as_mapping() else {
                let message = "an entry of `requires` must be a job, or a job with the statuses to wait for";
                self.report(Diagnostic::error("config::requires", message).at(item.span(), ""));
                continue;
            };
            for part in mapping {
                let words = match part.value.as_sequence() {
                    Some(words) => words.to_vec(),
                    None => vec![part.value.clone()],
                };
                let mut statuses = BTreeSet::new();
                for word in &words {
                    let text = word.as_scalar().map_or("", |scalar| &*scalar.text);
                    match text {
                        "terminal" => statuses.extend(RequiredStatus::ALL),
                        text => match RequiredStatus::ALL.iter().find(|status| status.as_str() == text) {
                            Some(status) => {
                                statuses.insert(*status);
                            }
                            None => {
                                let message = format!("`{text}` is not a status of a required job");
                                self.report(Diagnostic::error("config::requires", message).at(word.span(), "").hint(
                                    "the statuses are success, failed, canceled, unauthorized, not_run and terminal",
                                ));
                            }
                        },
                    }
                }
                if words.is_empty() {
                    let message = format!(
                        "the list of statuses of `{}` is empty, so this job would wait forever",
                        part.key.text
                    );
                    self.report(Diagnostic::error("config::requires", message).at(part.value.span(), ""));
                }
                requires.push(Require {
                    name: part.key.text.clone(),
                    statuses,
                    span: part.key.span.clone(),
                });
            }
        }
        requires
    }

    /// Finds the required jobs. `failed` has the names of jobs that could not be expanded.
    pub(crate) fn resolve_requires(&mut self, graph: &mut Graph, failed: &BTreeSet<Arc<str>>) {
        let mut by_base: HashMap<Arc<str>, Vec<usize>> = HashMap::new();
        let mut by_alias: HashMap<Arc<str>, Vec<usize>> = HashMap::new();
        let mut by_name: HashMap<Arc<str>, Vec<usize>> = HashMap::new();
        for (at, invocation) in graph.invocations.iter().enumerate() {
            by_base.entry(invocation.base.clone()).or_default().push(at);
            by_name.entry(invocation.name.clone()).or_default().push(at);
            if let Some(name) = &invocation.alternate {
                by_name.entry(name.clone()).or_default().push(at);
            }
            if let Some(alias) = &invocation.alias {
                by_alias.entry(alias.clone()).or_default().push(at);
            }
        }
        let mut total = 0usize;
        let mut all = Vec::with_capacity(graph.invocations.len());
        for (at, invocation) in graph.invocations.iter().enumerate() {
            let mut resolved: Vec<(usize, BTreeSet<RequiredStatus>)> = Vec::new();
            let mut known: HashMap<usize, usize> = HashMap::new();
            for require in &invocation.requires {
                let others = |found: Option<&Vec<usize>>| -> Vec<usize> {
                    found
                        .into_iter()
                        .flatten()
                        .copied()
                        .filter(|other| *other != at && graph.invocations[*other].is_seen_by(invocation, &require.name))
                        .collect()
                };
                let mut found = others(by_base.get(&require.name));
                let one_matrix = found.windows(2).all(|pair| {
                    let (left, right) = (&graph.invocations[pair[0]], &graph.invocations[pair[1]]);
                    left.matrix.is_some() && left.matrix == right.matrix
                });
                if found.is_empty() {
                    found = others(by_alias.get(&require.name));
                }
                if found.is_empty() {
                    found = others(by_name.get(&require.name));
                }
                if found.is_empty() && failed.contains(&require.name) {
                    continue;
                }
                let aliased = others(by_alias.get(&require.name));
                let matrices: BTreeSet<usize> = aliased
                    .iter()
                    .filter_map(|other| graph.invocations[*other].matrix)
                    .filter(|position| Some(*position) != invocation.matrix)
                    .collect();
                let single = others(by_base.get(&require.name));
                let single = single
                    .iter()
                    .filter(|other| graph.invocations[**other].matrix.is_none());
                let jobs = single.count();
                if !matrices.is_empty() && jobs + matrices.len() > 1 {
                    let counted = |count: usize, one: &str, several: &str| match count {
                        1 => format!("1 {one}"),
                        count => format!("{count} {several}"),
                    };
                    let mut named = counted(matrices.len(), "matrix", "matrices");
                    if jobs > 0 {
                        named = format!("{} and {named}", counted(jobs, "other job", "other jobs"));
                    }
                    let message = format!(
                        "Job '{}' requires '{}', which is the name of {named} in workflow '{}'",
                        invocation.base, require.name, graph.name
                    );
                    let hint = "give each of them its own `name`, or the matrix its own `alias`";
                    self.report(
                        Diagnostic::error("config::requires", message)
                            .at(&require.span, "")
                            .hint(hint),
                    );
                    continue;
                }
                if found.is_empty() || (found.len() > 1 && !one_matrix) {
                    let message = format!(
                        "Job '{}' requires '{}', which is the name of {} other jobs in workflow '{}'",
                        invocation.base,
                        require.name,
                        found.len(),
                        graph.name
                    );
                    let mut diagnostic = Diagnostic::error("config::requires", message).at(&require.span, "");
                    if found.is_empty() {
                        let others = by_base.keys().filter(|name| **name != invocation.base);
                        if let Some(near) = nearest(&require.name, others) {
                            diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
                        } else if require.name == invocation.base {
                            diagnostic = diagnostic.hint("a job cannot require itself");
                        } else if self.defines(Kind::Job, CONFIG, &require.name) {
                            let runs = graph.invocations.iter().find(|other| other.reference == require.name);
                            let hint = match runs {
                                Some(other) => {
                                    format!("this workflow runs `{}` under the name `{}`", require.name, other.base)
                                }
                                None => format!("`{}` is defined, but this workflow does not run it", require.name),
                            };
                            diagnostic = diagnostic.hint(hint);
                        }
                    } else {
                        for other in found.iter().take(4) {
                            diagnostic = diagnostic.also(&graph.invocations[*other].span, "one of them");
                        }
                        diagnostic = diagnostic
                            .hint("You can give a job within a workflow an explicit name by adding a name key");
                    }
                    self.report(diagnostic);
                    continue;
                }
                total += found.len();
                if total > MAX_REQUIREMENTS {
                    let message =
                        format!("the jobs of a workflow cannot have more than {MAX_REQUIREMENTS} requirements");
                    self.report(Diagnostic::error("config::too-large", message).at(&require.span, ""));
                    return;
                }
                for other in found {
                    match known.get(&other).and_then(|at| resolved.get_mut(*at)) {
                        Some((_, statuses)) => statuses.extend(require.statuses.iter().copied()),
                        None => {
                            known.insert(other, resolved.len());
                            resolved.push((other, require.statuses.clone()));
                        }
                    }
                }
            }
            all.push(resolved);
        }
        for (invocation, resolved) in graph.invocations.iter_mut().zip(all) {
            invocation.resolved = resolved;
        }
    }

    /// Reports jobs that require each other.
    pub(crate) fn refuse_cycles(&mut self, graph: &Graph) {
        let mut waiting: Vec<usize> = graph
            .invocations
            .iter()
            .map(|invocation| invocation.resolved.len())
            .collect();
        let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); graph.invocations.len()];
        for (at, invocation) in graph.invocations.iter().enumerate() {
            for (other, _) in &invocation.resolved {
                dependents[*other].push(at);
            }
        }
        let mut ready: Vec<usize> = (0..waiting.len()).filter(|at| waiting[*at] == 0).collect();
        let mut done = 0;
        while let Some(at) = ready.pop() {
            done += 1;
            for dependent in &dependents[at] {
                waiting[*dependent] -= 1;
                if waiting[*dependent] == 0 {
                    ready.push(*dependent);
                }
            }
        }
        if done == graph.invocations.len() {
            return;
        }
        // From a job in a cycle, following requirements that cannot be met leads back to a job seen before.
        let Some(mut at) = (0..waiting.len()).find(|at| waiting[*at] > 0) else {
            return;
        };
        let mut path: Vec<usize> = Vec::new();
        while !path.contains(&at) {
            path.push(at);
            match graph.invocations[at]
                .resolved
                .iter()
                .find(|(other, _)| waiting[*other] > 0)
            {
                Some((other, _)) => at = *other,
                None => return,
            }
        }
        let start = path.iter().position(|seen| *seen == at).unwrap_or(0);
        let mut names: Vec<&str> = path[start..].iter().map(|at| &*graph.invocations[*at].name).collect();
        names.push(&graph.invocations[at].name);
        let message = format!(
            "jobs of workflow '{}' require each other: {}",
            graph.name,
            names.join(" -> ")
        );
        let mut diagnostic = Diagnostic::error("config::cycle", message).at(&graph.invocations[at].span, "");
        for other in &path[start + 1..] {
            diagnostic = diagnostic.also(&graph.invocations[*other].span, "");
        }
        self.report(diagnostic);
    }
}
