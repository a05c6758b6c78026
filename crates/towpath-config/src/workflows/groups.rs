//! Job groups.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use towpath_yaml::{Diagnostic, Mapping, Node, Span};

use crate::compiled::RequiredStatus;
use crate::compiler::Compiler;
use crate::element::{CONFIG, Found, Kind};
use crate::scope::Scope;
use crate::unknown_keys::UnknownKeys;
use crate::workflows::model::{Invocation, Require, Role};
use crate::workflows::naming::invoked_name;

impl Compiler<'_> {
    /// Checks the definitions of job groups, whether a workflow calls them or not.
    pub(crate) fn check_groups(&mut self, root: &Node) {
        let groups = root.get("job-groups").and_then(Node::as_mapping);
        for group in groups.into_iter().flatten() {
            let jobs = group.value.get("jobs").and_then(Node::as_sequence);
            let is_job = |name: &Arc<str>| !self.defines(Kind::JobGroup, CONFIG, name);
            for (name, several) in duplicates(jobs.unwrap_or_default(), is_job) {
                let message = format!(
                    "Job '{name}' occurs {} times in job group '{}'. You can give a job within a job group an explicit \
                     name by adding a `name` key",
                    several.len(),
                    group.key.text
                );
                for job in several {
                    self.report(Diagnostic::error("config::job-group", message.clone()).at(job.span(), ""));
                }
            }
            for job in jobs.into_iter().flatten() {
                let part = job.as_mapping().and_then(|job| job.entries().first());
                let inner = invoked_name(job).filter(|name| self.defines(Kind::JobGroup, CONFIG, name));
                if let Some(inner) = inner {
                    let message = format!(
                        "Job group \"{}\" cannot reference job group \"{inner}\" -- nesting is not supported",
                        group.key.text
                    );
                    self.report(Diagnostic::error("config::job-group", message).at(job.span(), ""));
                }
                if let Some(serial) = part
                    .and_then(|part| part.value.as_mapping())
                    .and_then(|body| body.entry("serial-group"))
                {
                    let message = "Use of `serial-group` on job invocations inside a job-group is not supported. \
                        Please consider using `serial-group` on the job-group instead.";
                    self.report(Diagnostic::error("config::job-group", message).at(&serial.key.span, ""));
                }
            }
        }
    }

    /// Reports job groups that a workflow calls under the same name. Returns whether names in `requires` are ambiguous because
    /// of that, or because of duplicate names in a group.
    pub(crate) fn check_group_names(&mut self, workflow: &str, items: &[Node]) -> bool {
        let is_group = |name: &Arc<str>| self.defines(Kind::JobGroup, CONFIG, name);
        let groups = self.root(CONFIG).get(Kind::JobGroup.section());
        let jobs = |item: &Node| groups?.get(&invoked_name(item)?)?.get("jobs")?.as_sequence();
        let mut is_ambiguous = items
            .iter()
            .filter_map(jobs)
            .any(|jobs| !duplicates(jobs, |name| !is_group(name)).is_empty());
        for (name, several) in duplicates(items, is_group) {
            let message = format!(
                "Job-group '{name}' occurs {} times in workflow '{workflow}'. You can give a job-group an explicit name by \
                 adding a `name` key",
                several.len()
            );
            for item in several {
                self.report(Diagnostic::error("config::job-group", message.clone()).at(item.span(), ""));
            }
            is_ambiguous = true;
        }
        is_ambiguous
    }

    /// Expands a job group: its members between a start and an end job.
    pub(crate) fn invoke_group(
        &mut self,
        reference: &Arc<str>,
        body: &Mapping,
        span: &Span,
        position: usize,
        out: &mut Vec<Invocation>,
    ) {
        let scope = Scope::top(CONFIG);
        for part in body {
            if !matches!(&*part.key.text, "name" | "requires" | "serial-group") {
                let message = format!(
                    "a job group takes `name`, `requires` and `serial-group`, not `{}`",
                    part.key.text
                );
                self.report(Diagnostic::error("config::job-group", message).at(&part.key.span, ""));
            }
        }
        let Found::Element(element) = self.find(Kind::JobGroup, CONFIG, reference) else {
            return;
        };
        let known = ["jobs", "description", "parameters"];
        self.check_keys(&element.node, &known, "a job group", UnknownKeys::Ignored);
        let Some(jobs) = element.node.get("jobs").and_then(Node::as_sequence) else {
            let message = format!("job group `{reference}` has no list of `jobs`");
            self.report(Diagnostic::error("config::job-group", message).at(span, ""));
            return;
        };
        let prefix = self.invocation_name(body, &scope).unwrap_or_else(|| reference.clone());
        let requires = match body.get("requires") {
            Some(node) => self.requires(node, &scope),
            None => Vec::new(),
        };
        let key = match body.get("serial-group") {
            Some(node) => {
                let node = self.substitute(node, &scope);
                self.lock_key(&node, "config::serial-group", "a serial-group")
            }
            None => None,
        };
        let success = BTreeSet::from([RequiredStatus::Success]);
        let boundary = |name: String, role: Role, requires: Vec<Require>, alias: Option<Arc<str>>| Invocation {
            span: span.clone(),
            name: name.as_str().into(),
            base: name.into(),
            alternate: None,
            alias,
            matrix: None,
            group: Some(prefix.clone()),
            is_boundary: true,
            reference: reference.clone(),
            role,
            requires,
            resolved: Vec::new(),
            contexts: Vec::new(),
            serial_group: None,
            printed: Mapping::default(),
            kept: true,
        };
        let (first, last) = match key {
            Some(key) => (
                Role::Lock {
                    key: key.clone(),
                    of_group: true,
                },
                Role::Unlock { key, of_group: true },
            ),
            None => (Role::NoOp, Role::NoOp),
        };
        let start: Arc<str> = format!("{prefix}/start").into();
        let unlocks = matches!(last, Role::Unlock { .. });
        out.push(boundary(start.to_string(), first, requires, None));
        let from = out.len();
        for job in jobs {
            let nested = invoked_name(job).is_some_and(|name| self.defines(Kind::JobGroup, CONFIG, &name));
            // The check of the definition has reported a nested group.
            if !nested {
                self.invoke(job, position, Some(&prefix), out);
            }
        }
        let mut ends = Vec::new();
        for member in &mut out[from..] {
            if member.requires.is_empty() {
                member.requires.push(Require {
                    name: start.clone(),
                    statuses: success.clone(),
                    span: member.span.clone(),
                });
            }
            let statuses = if unlocks {
                RequiredStatus::ALL.into()
            } else {
                success.clone()
            };
            if !ends.iter().any(|end: &Require| end.name == member.base) {
                ends.push(Require {
                    name: member.base.clone(),
                    statuses,
                    span: member.span.clone(),
                });
            }
        }
        if ends.is_empty() {
            ends.push(Require {
                name: start,
                statuses: success,
                span: span.clone(),
            });
        }
        out.push(boundary(format!("{prefix}/end"), last, ends, Some(prefix.clone())));
    }
}

/// The entries that share a name, by name. Only looks at entries without a matrix whose reference is `wanted`.
fn duplicates(items: &[Node], wanted: impl Fn(&Arc<str>) -> bool) -> Vec<(Arc<str>, Vec<&Node>)> {
    let mut named: BTreeMap<Arc<str>, Vec<&Node>> = BTreeMap::new();
    for item in items {
        let body = item.as_mapping().and_then(|item| item.entries().first());
        let body = body.map(|part| &part.value);
        let Some(reference) = invoked_name(item).filter(&wanted) else {
            continue;
        };
        if body.is_some_and(|body| body.get("matrix").is_some()) {
            continue;
        }
        let own = body.and_then(|body| body.get("name")).and_then(Node::as_scalar);
        let name = own.map_or(reference, |own| own.text.clone());
        named.entry(name).or_default().push(item);
    }
    named.into_iter().filter(|(_, items)| items.len() > 1).collect()
}
