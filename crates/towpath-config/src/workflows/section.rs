//! The section `workflows`: which workflows run, and their settings.

use std::collections::BTreeSet;
use std::sync::Arc;

use towpath_yaml::{Diagnostic, Entry, Mapping, Node, ScalarStyle, Span};

use crate::compiler::Compiler;
use crate::element::CONFIG;
use crate::scope::Scope;
use crate::unknown_keys::UnknownKeys;
use crate::workflows::filtering::apply_filters;
use crate::workflows::model::Graph;
use crate::workflows::naming::{names_of, number_duplicates};

impl Compiler<'_> {
    /// All workflows whose conditions hold.
    pub(crate) fn workflows(&mut self, root: &Node) -> Vec<Graph> {
        let mut graphs = Vec::new();
        let Some(section) = root.get("workflows").filter(|section| !section.is_null()) else {
            return self.build_job(root).into_iter().collect();
        };
        let Some(section) = section.as_mapping() else {
            let message = format!(
                "`workflows` must be a map of names to workflows, not {}",
                section.kind()
            );
            self.report(Diagnostic::error("config::workflows", message).at(section.span(), ""));
            return graphs;
        };
        self.check_groups(root);
        let mut any = false;
        for part in section {
            if &*part.key.text == "version" && part.value.as_scalar().is_some() {
                continue;
            }
            any = true;
            if let Some(graph) = self.workflow(part) {
                graphs.push(graph);
            }
        }
        if !any {
            graphs.extend(self.build_job(root));
        } else if graphs.is_empty() && self.error_count == 0 {
            self.report(
                Diagnostic::warning(
                    "config::no-workflow",
                    "All Workflows have been filtered from this Pipeline.",
                )
                .hint("with these pipeline values and parameters, no workflow's `when` is true"),
            );
        }
        graphs
    }

    /// The workflow of a configuration without `workflows`: it runs the job `build`.
    fn build_job(&mut self, root: &Node) -> Option<Graph> {
        let Some(build) = root
            .get("jobs")
            .and_then(Node::as_mapping)
            .and_then(|jobs| jobs.entry("build"))
        else {
            let diagnostic = Diagnostic::error(
                "config::no-workflow",
                "There are no workflows or build jobs in the config.",
            );
            self.report(
                diagnostic
                    .at(root.span(), "")
                    .hint("add `workflows:` with the jobs that should run"),
            );
            return None;
        };
        let span = build.key.span.clone();
        let item = Node::scalar("build", ScalarStyle::Plain, span.clone());
        let jobs = Node::sequence(vec![item], span.clone());
        self.graph("workflow".into(), span, &jobs, &Mapping::default())
    }

    fn workflow(&mut self, part: &Entry) -> Option<Graph> {
        let name = part.key.text.clone();
        let span = part.key.span.clone();
        let Some(mapping) = part.value.as_mapping() else {
            let message = format!("workflow `{name}` must be a map with `jobs`, not {}", part.value.kind());
            self.report(Diagnostic::error("config::workflows", message).at(&span, ""));
            return None;
        };
        let top = Scope::top(CONFIG);
        if self.has_templates {
            let mut runs = true;
            if let (Some(_), Some(unless)) = (mapping.get("when"), mapping.entry("unless")) {
                let message = format!("workflow `{name}` has both `when` and `unless`; it can have only one of them");
                self.report(
                    Diagnostic::error("config::workflows", message)
                        .at(&unless.key.span, "")
                        .hint("`not:` inverts a condition"),
                );
            }
            let errors = self.error_count;
            if let Some(when) = mapping.get("when") {
                runs &= self.workflow_condition(when, &top);
            }
            if let Some(unless) = mapping.get("unless") {
                runs &= !self.workflow_condition(unless, &top);
            }
            // If the condition has an error, the workflow may be meant to run, so check the rest of it.
            if !runs && self.error_count == errors {
                return None;
            }
        }
        let known = ["when", "unless", "jobs", "triggers", "max_auto_reruns", "description"];
        self.check_keys(&part.value, &known, "a workflow", UnknownKeys::Ignored);
        let Some(jobs) = mapping.get("jobs") else {
            let message = format!("workflow `{name}` has no `jobs`");
            self.report(Diagnostic::error("config::workflows", message).at(&span, ""));
            return None;
        };
        self.graph(name, span, jobs, mapping)
    }

    fn graph(&mut self, name: Arc<str>, span: Span, jobs: &Node, mapping: &Mapping) -> Option<Graph> {
        let Some(items) = jobs.as_sequence() else {
            let message = format!("`jobs` of a workflow must be a list, not {}", jobs.kind());
            self.report(Diagnostic::error("config::workflows", message).at(jobs.span(), ""));
            return None;
        };
        self.context.push(format!("Error calling workflow: '{name}'"));
        let is_ambiguous = self.check_group_names(&name, items);
        let mut invocations = Vec::new();
        // Jobs that could not be expanded. That has been reported, so requirements on them are not.
        let mut failed: BTreeSet<Arc<str>> = BTreeSet::new();
        for (position, item) in items.iter().enumerate() {
            let before = invocations.len();
            let is_empty = self.invoke(item, position, None, &mut invocations);
            // A matrix may have no members, but then no job can require it.
            if invocations.len() == before && !is_empty {
                failed.extend(names_of(item));
            }
        }
        let top = Scope::top(CONFIG);
        let mut printed = Mapping::default();
        for key in ["triggers", "max_auto_reruns"] {
            if let Some(part) = mapping.entry(key) {
                let value = self.substitute(&part.value, &top);
                printed.insert(Entry { value, ..part.clone() });
            }
        }
        let mut graph = Graph {
            name,
            span,
            invocations,
            schedules: self.schedules(printed.get("triggers")),
            max_auto_reruns: printed
                .get("max_auto_reruns")
                .and_then(|node| self.integer_between(node, &top, "max_auto_reruns", 1, 5)),
            printed,
        };
        number_duplicates(&mut graph.invocations);
        if !is_ambiguous {
            self.resolve_requires(&mut graph, &failed);
            self.refuse_cycles(&graph);
        }
        apply_filters(&mut graph.invocations);
        self.context.pop();
        Some(graph)
    }
}
