//! Matrices: the combinations of their values.
//!
//! Source: <https://circleci.com/docs/guides/orchestrate/using-matrix-jobs/>

use std::sync::Arc;

use towpath_yaml::{Diagnostic, Node};

use crate::compiler::Compiler;
use crate::scope::{Arguments, Scope};
use crate::value::Value;

const MAX_MEMBERS: usize = 10_000;
const MAX_EXCLUDING: usize = 5_000_000;

/// A matrix.
pub(crate) struct Matrix {
    pub(crate) members: Vec<Member>,
    /// The name under which other jobs require all members.
    pub(crate) alias: Option<Arc<str>>,
}

/// One combination of values.
pub(crate) struct Member {
    pub(crate) values: Arguments,
    /// The argument that the job is given for each value, in the same order.
    pub(crate) given: Vec<Node>,
}

/// A parameter of a matrix: its values, and the argument that a job is given for each.
struct Axis {
    name: Arc<str>,
    values: Vec<(Value, Node)>,
}

impl Compiler<'_> {
    /// Reads the `matrix` of a job. The first parameter changes slowest.
    pub(crate) fn matrix(&mut self, node: &Node, scope: &Scope<'_>) -> Option<Matrix> {
        let Some(mapping) = node.as_mapping() else {
            let message = format!("`matrix` must be a map with `parameters`, not {}", node.kind());
            self.report(Diagnostic::error("config::matrix", message).at(node.span(), ""));
            return None;
        };
        for part in mapping {
            if !matches!(&*part.key.text, "parameters" | "exclude" | "alias") {
                let message = format!("`matrix` has no key `{}`", part.key.text);
                self.report(Diagnostic::error("config::matrix", message).at(&part.key.span, ""));
            }
        }
        let Some(parameters) = mapping.get("parameters").and_then(Node::as_mapping) else {
            let message = "`matrix` needs `parameters`: a map of names to lists of values";
            self.report(Diagnostic::error("config::matrix", message).at(node.span(), ""));
            return None;
        };
        let mut axes: Vec<Axis> = Vec::new();
        let mut product = 1usize;
        for part in parameters {
            let list = match part.value.as_sequence() {
                Some(items) => items.to_vec(),
                None => match self.value(&part.value, scope) {
                    Value::Tree(tree) if tree.as_sequence().is_some() => {
                        tree.as_sequence().map(<[Node]>::to_vec).unwrap_or_default()
                    }
                    Value::Null => {
                        let name = &part.key.text;
                        let message = format!("Matrix parameter '{name}' is null; the matrix will produce 0 jobs");
                        self.report(Diagnostic::warning("config::matrix", message).at(&part.key.span, ""));
                        Vec::new()
                    }
                    _ => {
                        let message = format!("the values of matrix parameter `{}` must be a list", part.key.text);
                        self.report(Diagnostic::error("config::matrix", message).at(part.value.span(), ""));
                        return None;
                    }
                },
            };
            product = product.saturating_mul(list.len());
            let values = list.iter().map(|item| {
                let value = self.value(item, scope);
                // Pass a scalar on as written: `1.10` is not `1.1`.
                let given = match item.as_scalar().is_some() && !item.mentions_tag() {
                    true => item.clone(),
                    false => self.escaped(&value.to_node(item.span())),
                };
                (value, given)
            });
            let values = values.collect();
            axes.push(Axis {
                name: part.key.text.clone(),
                values,
            });
        }
        if product > MAX_MEMBERS {
            let message = format!("Matrices cannot generate more than {MAX_MEMBERS} jobs.");
            self.report(
                Diagnostic::error("config::matrix", message)
                    .at(node.span(), format!("this one would generate {product}")),
            );
            return None;
        }
        let excluded = self.exclusions(mapping.get("exclude"), parameters)?;
        if excluded.len().saturating_mul(product) > MAX_EXCLUDING {
            let message =
                format!("a matrix cannot compare its members with its exclusions more than {MAX_EXCLUDING} times");
            let label = format!("{product} members and {} exclusions", excluded.len());
            self.report(Diagnostic::error("config::too-large", message).at(node.span(), label));
            return None;
        }
        let alias = mapping.get("alias").and_then(|alias| self.text(alias, scope));
        let mut members = Vec::with_capacity(product);
        for index in 0..product {
            // Write the index in the mixed base of the axes' lengths. The last axis changes fastest.
            let mut rest = index;
            let mut picked = vec![0; axes.len()];
            for (position, axis) in axes.iter().enumerate().rev() {
                picked[position] = rest % axis.values.len();
                rest /= axis.values.len();
            }
            let picked = || axes.iter().zip(&picked).map(|(axis, pick)| (axis, &axis.values[*pick]));
            let values: Arguments = picked()
                .map(|(axis, (value, _))| (axis.name.clone(), value.clone()))
                .collect();
            let out = excluded.iter().any(|exclusion| {
                exclusion
                    .iter()
                    .all(|(name, value)| values.get(name).is_some_and(|own| own == value))
            });
            if !out {
                let given = picked().map(|(_, (_, given))| given.clone()).collect();
                members.push(Member { values, given });
            }
        }
        Some(Matrix { members, alias })
    }

    fn exclusions(&mut self, node: Option<&Node>, parameters: &towpath_yaml::Mapping) -> Option<Vec<Arguments>> {
        let Some(node) = node.filter(|node| !node.is_null()) else {
            return Some(Vec::new());
        };
        let Some(items) = node.as_sequence() else {
            let message = format!("`exclude` must be a list of maps, not {}", node.kind());
            self.report(Diagnostic::error("config::matrix", message).at(node.span(), ""));
            return None;
        };
        let mut exclusions = Vec::new();
        for item in items {
            let Some(mapping) = item.as_mapping().filter(|mapping| !mapping.is_empty()) else {
                let message = "an exclusion must be a map of parameters to values";
                self.report(Diagnostic::error("config::matrix", message).at(item.span(), ""));
                continue;
            };
            let mut exclusion = Arguments::default();
            for part in mapping {
                if !parameters.contains(&part.key.text) {
                    let message = format!(
                        "`{}` is not a parameter of this matrix, so this excludes nothing",
                        part.key.text
                    );
                    self.report(Diagnostic::warning("config::matrix", message).at(&part.key.span, ""));
                }
                // CircleCI replaces no templates here.
                exclusion.insert(part.key.text.clone(), Value::of(&part.value));
            }
            exclusions.push(exclusion);
        }
        Some(exclusions)
    }
}
