//! Workflows: invocations, their members and names, what they require, and which of them this pipeline runs.
//!
//! Source: <https://circleci.com/docs/reference/configuration-reference/#workflows>

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};
use towpath_yaml::{Diagnostic, Entry, Mapping, Node, ScalarStyle, Span};

use crate::compiled::{RequiredStatus, Schedule};
use crate::compiler::Compiler;
use crate::jobs::{Expanded, Others};
use crate::matrix::Member;
use crate::namespace::{CONFIG, Element, Found, Kind};
use crate::scope::Scope;
use crate::steps::entry;
use crate::trace::OUTSIDE;
use crate::value::{Value, same_tree};

/// A workflow with its jobs expanded and named.
pub(crate) struct Graph {
    pub(crate) name: Arc<str>,
    pub(crate) span: Span,
    pub(crate) invocations: Vec<Invocation>,
    pub(crate) schedules: Vec<Schedule>,
    pub(crate) max_auto_reruns: Option<u32>,
    /// The workflow's other keys, as written.
    pub(crate) printed: Mapping,
}

/// A job of a workflow.
pub(crate) struct Invocation {
    /// Where the workflow names it.
    pub(crate) span: Span,
    /// The name before it is made unique.
    base: Arc<str>,
    /// The name with the matrix' values in the alphabetical order of their parameters.
    alternate: Option<Arc<str>>,
    /// The name under which all members of its matrix are required.
    alias: Option<Arc<str>>,
    /// The matrix it is a member of: the number of the item in the workflow.
    matrix: Option<usize>,
    /// The job group it is a member or a boundary of, by the name of its invocation.
    group: Option<Arc<str>>,
    /// Whether it is the beginning or the end of its group.
    is_boundary: bool,
    /// The job or the group that is called.
    reference: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) role: Role,
    requires: Vec<Require>,
    pub(crate) resolved: Vec<(usize, BTreeSet<RequiredStatus>)>,
    pub(crate) contexts: Vec<String>,
    pub(crate) serial_group: Option<String>,
    /// What the invocation holds besides its name and what it requires, for printing.
    pub(crate) printed: Mapping,
    /// Whether this pipeline's branch or tag passes its filters.
    pub(crate) kept: bool,
}

impl Invocation {
    /// Whether `other` may require it as `name`: a group is required from outside by its own name alone.
    fn is_seen_by(&self, other: &Self, name: &Arc<str>) -> bool {
        self.group.is_none() || self.group == other.group || self.group.as_ref() == Some(name)
    }
}

/// What a job of a workflow is.
#[derive(Clone)]
pub(crate) enum Role {
    Build(Rc<Expanded>),
    Approval,
    NoOp,
    Release { plan_name: Option<String> },
    Lock { key: String },
    Unlock { key: String },
}

#[derive(Clone)]
struct Require {
    name: Arc<str>,
    statuses: BTreeSet<RequiredStatus>,
    span: Span,
}

const MAX_INVOCATIONS: usize = 50_000;
const MAX_REQUIREMENTS: usize = 1_000_000;

/// The keys of an invocation; any other is an argument.
pub(crate) const INVOCATION_KEYS: &[&str] = &[
    "name",
    "pre-steps",
    "post-steps",
    "filters",
    "requires",
    "context",
    "type",
    "override-with",
    "upstream",
    "matrix",
    "serial-group",
];

impl Compiler<'_> {
    /// Every workflow that runs.
    pub(crate) fn workflows(&mut self, root: &Node) -> Vec<Graph> {
        let mut graphs = Vec::new();
        let Some(section) = root.get("workflows").filter(|section| !section.is_null()) else {
            return self.build_job(root).into_iter().collect();
        };
        let Some(section) = section.as_mapping() else {
            let message = format!(
                "`workflows` is a map of names to workflows, and this is {}",
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
                .hint("no workflow's `when` holds with these pipeline values and parameters"),
            );
        }
        graphs
    }

    /// A configuration without workflows runs its job `build`.
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
                    .hint("add `workflows:` with the jobs to run"),
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
            let message = format!(
                "workflow `{name}` must be a map with `jobs`, and this is {}",
                part.value.kind()
            );
            self.report(Diagnostic::error("config::workflows", message).at(&span, ""));
            return None;
        };
        let top = Scope::top(CONFIG);
        if self.has_templates {
            let mut runs = true;
            if let (Some(_), Some(unless)) = (mapping.get("when"), mapping.entry("unless")) {
                let message = format!("workflow `{name}` has both `when` and `unless`, and can have one of them");
                self.report(
                    Diagnostic::error("config::workflows", message)
                        .at(&unless.key.span, "")
                        .hint("`not:` turns a condition round"),
                );
            }
            let errors = self.error_count;
            if let Some(when) = mapping.get("when") {
                runs &= self.workflow_condition(when, &top);
            }
            if let Some(unless) = mapping.get("unless") {
                runs &= !self.workflow_condition(unless, &top);
            }
            // Behind a mistake in the condition the workflow may be meant to run: what else is wrong is said, too.
            if !runs && self.error_count == errors {
                return None;
            }
        }
        let known = ["when", "unless", "jobs", "triggers", "max_auto_reruns", "description"];
        self.check_keys(&part.value, &known, "a workflow", Others::Ignored);
        let Some(jobs) = mapping.get("jobs") else {
            let message = format!("workflow `{name}` has no `jobs`");
            self.report(Diagnostic::error("config::workflows", message).at(&span, ""));
            return None;
        };
        self.graph(name, span, jobs, mapping)
    }

    fn graph(&mut self, name: Arc<str>, span: Span, jobs: &Node, mapping: &Mapping) -> Option<Graph> {
        let Some(items) = jobs.as_sequence() else {
            let message = format!("`jobs` of a workflow is a list, and this is {}", jobs.kind());
            self.report(Diagnostic::error("config::workflows", message).at(jobs.span(), ""));
            return None;
        };
        self.context.push(format!("Error calling workflow: '{name}'"));
        let is_open = self.check_group_names(&name, items);
        let mut invocations = Vec::new();
        // What could not be called is missed by nobody: its own mistake has been reported.
        let mut failed: BTreeSet<Arc<str>> = BTreeSet::new();
        for (position, item) in items.iter().enumerate() {
            let before = invocations.len();
            let is_empty = self.invoke(item, position, None, &mut invocations);
            // A matrix without members is no mistake by itself; to require it is one.
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
        name_members(&mut graph.invocations);
        if !is_open {
            self.resolve_requires(&mut graph, &failed);
            self.refuse_cycles(&graph);
        }
        apply_filters(&mut graph.invocations);
        self.context.pop();
        Some(graph)
    }

    /// One item of a workflow's `jobs`: a job, all members of a matrix, or a group of jobs. Answers whether it is a matrix
    /// that has no members.
    fn invoke(&mut self, item: &Node, position: usize, group: Option<&Arc<str>>, out: &mut Vec<Invocation>) -> bool {
        let top = Scope::top(CONFIG);
        let (reference, body, span) = match item.as_mapping() {
            None => match self.text(item, &top) {
                Some(name) => (name, None, item.span().clone()),
                None => {
                    let message = format!("a job of a workflow is a name or a map, and this is {}", item.kind());
                    self.report(Diagnostic::error("config::workflows", message).at(item.span(), ""));
                    return false;
                }
            },
            Some(mapping) if mapping.len() == 1 => {
                let part = &mapping.entries()[0];
                (part.key.text.clone(), Some(&part.value), part.key.span.clone())
            }
            Some(mapping) => {
                let message = match mapping.entries().get(1) {
                    None => "a job of a workflow is a name or a map with one key, and this map is empty".to_owned(),
                    Some(second) => format!("`{}` stands beside the job's name instead of below it", second.key.text),
                };
                let mut diagnostic = Diagnostic::error("config::invocation", message);
                diagnostic = match mapping.entries().get(1) {
                    None => diagnostic.at(item.span(), ""),
                    Some(second) => diagnostic
                        .at(&second.key.span, "")
                        .also(&mapping.entries()[0].key.span, "the job")
                        .hint(format!("indent `{}` by two more columns", second.key.text)),
                };
                self.report(diagnostic);
                return false;
            }
        };
        let empty = Mapping::default();
        let body = match body {
            None => &empty,
            Some(node) if node.is_null() => {
                let message = format!("job `{reference}` has a colon, but nothing below it");
                self.report(
                    Diagnostic::warning("config::empty-invocation", message)
                        .at(&span, "")
                        .hint("leave the colon out, or indent what follows"),
                );
                &empty
            }
            Some(node) => match node.as_mapping() {
                Some(mapping) => mapping,
                None => {
                    let message = format!(
                        "the arguments of job `{reference}` must be a map, and this is {}",
                        node.kind()
                    );
                    self.report(Diagnostic::error("config::arguments", message).at(node.span(), ""));
                    return false;
                }
            },
        };
        if group.is_none() && self.has_templates && self.defines(Kind::JobGroup, CONFIG, &reference) {
            self.invoke_group(&reference, body, &span, position, out);
            return false;
        }
        let matrix = match body.get("matrix").filter(|_| self.has_templates) {
            Some(node) => match self.matrix(node, &top) {
                Some(matrix) => Some(matrix),
                None => return false,
            },
            None => None,
        };
        self.context.push(format!("Error calling job: '{reference}'"));
        let target = self.target(&reference, body, &span);
        let is_empty = target.is_some() && matrix.as_ref().is_some_and(|matrix| matrix.members.is_empty());
        match (target, matrix) {
            (None, _) => {}
            (Some(target), None) => {
                if let Some(invocation) = self.member(&reference, body, &span, &target, None, group, position) {
                    out.push(invocation);
                }
            }
            (Some(target), Some(matrix)) => {
                let alias = matrix.alias.unwrap_or_else(|| reference.clone());
                let alias = match group {
                    Some(prefix) => format!("{prefix}/{alias}").into(),
                    None => alias,
                };
                for member in &matrix.members {
                    if out.len() > MAX_INVOCATIONS || self.exhausted {
                        break;
                    }
                    if let Some(mut invocation) =
                        self.member(&reference, body, &span, &target, Some(member), group, position)
                    {
                        invocation.alias = Some(alias.clone());
                        out.push(invocation);
                    }
                }
            }
        }
        self.context.pop();
        if out.len() > MAX_INVOCATIONS {
            let message = format!("a workflow cannot have more than {MAX_INVOCATIONS} jobs");
            self.report(Diagnostic::error("config::too-large", message).at(&span, ""));
        }
        is_empty
    }

    /// What an invocation names: a definition, or nothing for an approval that is defined on the spot.
    fn target(&mut self, reference: &str, body: &Mapping, span: &Span) -> Option<Target> {
        let scope = Scope::top(CONFIG);
        let kind = body.get("type").and_then(|kind| self.text(kind, &scope));
        match kind.as_deref() {
            Some("approval") => return Some(Target::Inline(Role::Approval)),
            None | Some("build") => {}
            // Compiled configurations, which are version 2, have nowhere else to say it.
            Some(other @ ("no-op" | "release" | "lock" | "unlock"))
                if !self.has_templates && !self.defines(Kind::Job, CONFIG, reference) =>
            {
                let text = |key: &str| {
                    let scalar = body.get(key).and_then(Node::as_scalar);
                    scalar.map(|scalar| scalar.text.to_string())
                };
                let key = text("key").unwrap_or_default();
                return Some(Target::Inline(match other {
                    "release" => Role::Release {
                        plan_name: text("plan_name"),
                    },
                    "lock" => Role::Lock { key },
                    "unlock" => Role::Unlock { key },
                    _ => Role::NoOp,
                }));
            }
            Some(other) => {
                let node = body.get("type").map_or(span, |node| node.span());
                if !matches!(other, "no-op" | "release" | "lock" | "unlock")
                    || !self.defines(Kind::Job, CONFIG, reference)
                {
                    let message = "Only jobs with type: approval can be defined inline";
                    self.report(
                        Diagnostic::error("config::job-type", message)
                            .at(node, format!("job `{reference}` is of type {other}")),
                    );
                    return None;
                }
            }
        }
        if let Some(over) = body.get("override-with")
            && let Some(name) = self.text(over, &scope)
        {
            let Some((orb, job)) = name.split_once('/') else {
                let message = format!("override-with: \"{name}\" does not reference a job definition in an orb");
                self.report(Diagnostic::error("config::override-with", message).at(over.span(), ""));
                return None;
            };
            match self.find(Kind::Job, CONFIG, &name) {
                Found::Element(element) => return Some(Target::Element(element)),
                Found::BrokenOrb => return None,
                Found::BrokenAlias(_) | Found::Nothing => {
                    let why = match self.orb(CONFIG, orb) {
                        Some(_) => format!("orb `{orb}` has no job `{job}`"),
                        None => format!("there is no orb `{orb}`"),
                    };
                    let message = format!("override-with: {why}, so this runs the job `{reference}`");
                    self.report(Diagnostic::warning("config::override-with", message).at(over.span(), ""));
                }
            }
        }
        match self.find(Kind::Job, CONFIG, reference) {
            Found::Element(element) => Some(Target::Element(element)),
            Found::BrokenOrb => None,
            Found::BrokenAlias(message) => {
                self.report(Diagnostic::error("config::unknown-job", message).at(span, ""));
                None
            }
            Found::Nothing => {
                // The original reports this of the workflow, not of the job.
                let job = self.context.pop();
                let message = format!("Cannot find a definition for job named {reference}");
                let mut diagnostic = Diagnostic::error("config::unknown-job", message).at(span, "");
                if let Some(near) = crate::suggest::nearest(reference, self.known_names(Kind::Job, CONFIG)) {
                    diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
                } else if body.is_empty() {
                    diagnostic = diagnostic.hint("a gate needs `type: approval`");
                }
                self.report(diagnostic);
                self.context.extend(job);
                None
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn member(
        &mut self,
        reference: &Arc<str>,
        body: &Mapping,
        span: &Span,
        target: &Target,
        member: Option<&Member>,
        group: Option<&Arc<str>>,
        position: usize,
    ) -> Option<Invocation> {
        let matrix = member.map(|member| &member.values);
        let mut given: Vec<Entry> = Vec::new();
        let mut matrix_name = None;
        for ((name, value), node) in member.iter().flat_map(|member| member.values.iter().zip(&member.given)) {
            // A matrix parameter called `name` names the job.
            if &**name == "name" {
                matrix_name = Some(value.to_text());
            } else {
                let at = body
                    .get("matrix")
                    .and_then(|matrix| matrix.get("parameters")?.as_mapping()?.entry(name));
                let at = at.map_or(span, |part| &part.key.span);
                given.push(entry(name.clone(), node.clone(), at));
            }
        }
        let scope = Scope {
            parameters: None,
            matrix,
            namespace: CONFIG,
            frame: match matrix {
                Some(_) => self.enter_matrix(reference, &given, span),
                None => OUTSIDE,
            },
        };
        for part in body {
            if !INVOCATION_KEYS.contains(&&*part.key.text) {
                given.push(part.clone());
            }
        }
        let named = self.invocation_name(body, &scope).or(matrix_name);
        let (mut base, mut alternate) = match (named, matrix) {
            (Some(name), _) => (name, None),
            (None, None) => (reference.clone(), None),
            (None, Some(values)) => {
                let join = |values: &mut dyn Iterator<Item = &Value>| {
                    values.fold(reference.to_string(), |mut name, value| {
                        name.push('-');
                        value.interpolate(&mut name);
                        name
                    })
                };
                let mut sorted: Vec<_> = values.iter().collect();
                sorted.sort_by_key(|(name, _)| *name);
                let alternate =
                    (values.len() > 1).then(|| join(&mut sorted.into_iter().map(|(_, value)| value)).into());
                (join(&mut values.values()).into(), alternate)
            }
        };
        if let Some(prefix) = group {
            base = format!("{prefix}/{base}").into();
            alternate = alternate.map(|name: Arc<str>| format!("{prefix}/{name}").into());
        }
        let mut requires = match body.get("requires") {
            Some(node) => self.requires(node, &scope),
            None => Vec::new(),
        };
        if let Some(prefix) = group {
            for require in &mut requires {
                require.name = format!("{prefix}/{}", require.name).into();
            }
        }
        let filters = body.get("filters").map(|node| match node.as_scalar() {
            Some(_) => node.clone(),
            None => self.substitute(node, &scope),
        });
        let kept = self.passes(filters.as_ref(), &scope);
        // What an expression came to: compiled, nothing refers to anything any more.
        let filters = filters.map(|node| match node.as_scalar() {
            Some(_) if !node.is_null() => Node::scalar(kept.to_string(), ScalarStyle::Plain, node.span().clone()),
            _ => node,
        });
        let around = (body.get("pre-steps"), body.get("post-steps"));
        let role = match target {
            Target::Inline(role) => {
                let extra = body
                    .iter()
                    .find(|part| &*part.key.text == "context" || !INVOCATION_KEYS.contains(&&*part.key.text));
                if matches!(role, Role::Approval)
                    && let Some(extra) = extra
                {
                    let message = format!("an approval job takes no `{}`; it is ignored", extra.key.text);
                    self.report(Diagnostic::warning("config::unknown-key", message).at(&extra.key.span, ""));
                }
                role.clone()
            }
            Target::Element(element) => self.role(element, &given, &scope, span, around)?,
        };
        if matches!(role, Role::Approval)
            && let Some(key) = ["pre-steps", "post-steps"].iter().find_map(|key| body.entry(key))
        {
            let message = format!("an approval job has no steps, so `{}` is ignored", key.key.text);
            self.report(Diagnostic::warning("config::unknown-key", message).at(&key.key.span, ""));
        }
        let mut printed = Mapping::default();
        for key in ["type", "context", "filters", "serial-group", "upstream"] {
            if let Some(part) = body.entry(key) {
                let value = match (&filters, key) {
                    (Some(filters), "filters") => filters.clone(),
                    _ => self.substitute(&part.value, &scope),
                };
                printed.insert(entry(part.key.text.clone(), value, &part.key.span));
            }
        }
        let contexts = printed.get("context").cloned();
        let contexts = contexts
            .map(|node| self.string_list(&node, "context"))
            .unwrap_or_default();
        let serial_group = printed.get("serial-group").cloned();
        let serial_group = serial_group.and_then(|node| self.lock_key(&node, "config::serial-group", "a serial-group"));
        Some(Invocation {
            span: span.clone(),
            name: base.clone(),
            base,
            alternate,
            alias: None,
            matrix: matrix.map(|_| position),
            group: group.cloned(),
            is_boundary: false,
            reference: reference.clone(),
            role,
            requires,
            resolved: Vec::new(),
            contexts,
            serial_group,
            printed,
            kept,
        })
    }

    /// The name that an invocation gives.
    fn invocation_name(&mut self, body: &Mapping, scope: &Scope<'_>) -> Option<Arc<str>> {
        let node = body.get("name")?;
        let name = self.text(node, scope)?;
        if name.trim().is_empty() {
            let message = "the name of a job cannot be blank";
            self.report(Diagnostic::error("config::invocation", message).at(node.span(), ""));
        }
        Some(name)
    }

    fn role(
        &mut self,
        element: &Rc<Element>,
        given: &[Entry],
        scope: &Scope<'_>,
        span: &Span,
        around: (Option<&Node>, Option<&Node>),
    ) -> Option<Role> {
        let expanded = self.expand_job(element, given, scope, span, around)?;
        let text = |key: &str| {
            expanded
                .node
                .get(key)
                .and_then(Node::as_scalar)
                .map(|scalar| scalar.text.to_string())
        };
        Some(match text("type").as_deref() {
            None | Some("build") => Role::Build(expanded),
            Some("approval") => Role::Approval,
            Some("no-op") => Role::NoOp,
            Some("release") => {
                let plan_name = text("plan_name");
                if plan_name.is_none() {
                    let message = "a job of type release needs a `plan_name`";
                    self.report(Diagnostic::error("config::job-type", message).at(&expanded.span, ""));
                }
                Role::Release { plan_name }
            }
            Some(kind @ ("lock" | "unlock")) => {
                let Some(key) = expanded.node.get("key").filter(|key| !key.is_null()) else {
                    let message = format!("a job of type {kind} needs a `key`");
                    self.report(Diagnostic::error("config::job-type", message).at(&expanded.span, ""));
                    return None;
                };
                let key = self.lock_key(key, "config::job-type", "the key of a lock")?;
                if kind == "lock" {
                    Role::Lock { key }
                } else {
                    Role::Unlock { key }
                }
            }
            Some(other) => {
                let message = format!("there is no job type `{other}`");
                let at = expanded.node.get("type").map_or(&expanded.span, |node| node.span());
                let diagnostic = Diagnostic::error("config::job-type", message).at(at, "");
                self.report(diagnostic.hint("there are build, approval, no-op, release, lock and unlock"));
                return None;
            }
        })
    }

    /// What a lock, or a serial group, is called.
    fn lock_key(&mut self, node: &Node, code: &'static str, what: &str) -> Option<String> {
        // What a template comes to that has no value here, it has where it runs.
        let name = node.as_scalar().filter(|_| !node.is_null())?.text.to_string();
        let fits = name.len() <= 512
            && !name.is_empty()
            && name
                .chars()
                .all(|character| character.is_ascii_alphanumeric() || "._/-".contains(character));
        if !fits {
            let message = format!("{what} has up to 512 letters, digits, dots, underscores, slashes and dashes");
            self.report(Diagnostic::error(code, message).at(node.span(), ""));
        }
        fits.then_some(name)
    }

    fn requires(&mut self, node: &Node, scope: &Scope<'_>) -> Vec<Require> {
        let node = self.substitute(node, scope);
        let items = match node.as_sequence() {
            Some(items) => items.to_vec(),
            None if node.is_null() => Vec::new(),
            None if node.as_scalar().is_some() => vec![node.clone()],
            None => {
                let message = format!("`requires` is a list of jobs, and this is {}", node.kind());
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
            // A list in the list comes of an alias to a list of jobs; the original refuses it, too.
            let Some(mapping) = item.as_mapping() else {
                let message = "`requires` lists jobs: names, or a name with the statuses to wait for";
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
                                let message = format!("`{text}` is not a status that a job can be required to have");
                                self.report(
                                    Diagnostic::error("config::requires", message).at(word.span(), "").hint(
                                        "there are success, failed, canceled, unauthorized, not_run and terminal",
                                    ),
                                );
                            }
                        },
                    }
                }
                if words.is_empty() {
                    let message = format!("no status of `{}` is named, so this would wait for ever", part.key.text);
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

    /// Texts in a list, or one alone.
    pub(crate) fn string_list(&mut self, node: &Node, what: &str) -> Vec<String> {
        let items = match node.as_sequence() {
            Some(items) => items.to_vec(),
            None if node.is_null() => Vec::new(),
            None => vec![node.clone()],
        };
        let mut texts = Vec::new();
        for item in items {
            match item.as_scalar() {
                Some(_) if item.is_null() => {}
                Some(scalar) => texts.push(scalar.text.to_string()),
                None => {
                    let message = format!("`{what}` is text or a list of texts, and this is {}", item.kind());
                    self.report(Diagnostic::error("config::type", message).at(item.span(), ""));
                }
            }
        }
        texts
    }

    fn schedules(&mut self, node: Option<&Node>) -> Vec<Schedule> {
        let mut schedules = Vec::new();
        let Some(node) = node.filter(|node| !node.is_null()) else {
            return schedules;
        };
        let Some(items) = node.as_sequence() else {
            let message = format!("`triggers` is a list, and this is {}", node.kind());
            self.report(Diagnostic::error("config::triggers", message).at(node.span(), ""));
            return schedules;
        };
        for item in items {
            let Some(schedule) = item.get("schedule") else {
                let message = "a trigger has one kind, `schedule`";
                self.report(Diagnostic::error("config::triggers", message).at(item.span(), ""));
                continue;
            };
            let Some(cron) = schedule.get("cron").and_then(Node::as_scalar) else {
                let message = "a schedule needs a `cron`";
                self.report(Diagnostic::error("config::triggers", message).at(schedule.span(), ""));
                continue;
            };
            if let Err(odd) = check_cron(&cron.text) {
                let at = schedule.get("cron").unwrap_or(schedule).span();
                self.report(match odd {
                    Odd::Wrong(why) => {
                        let message = format!("`{}` is not a cron expression: {why}", cron.text);
                        Diagnostic::error("config::triggers", message).at(at, "")
                    }
                    Odd::Unsupported(why) => {
                        let message = format!("schedules do not have all of cron's syntax: {why}");
                        Diagnostic::warning("config::triggers", message).at(at, "")
                    }
                });
            }
            self.check_keys(schedule, &["cron", "filters"], "a schedule", Others::Ignored);
            if let Some(filters) = schedule.get("filters") {
                self.check_keys(filters, &["branches"], "the filter of a schedule", Others::Ignored);
            }
            let branches = match schedule.get("filters").and_then(|filters| filters.get("branches")) {
                Some(node) => self.filter(node),
                None => Default::default(),
            };
            schedules.push(Schedule {
                cron: cron.text.to_string(),
                branches,
                place: schedule.span().place(),
            });
        }
        schedules
    }

    /// What no job group may hold, invoked or not.
    fn check_groups(&mut self, root: &Node) {
        let groups = root.get("job-groups").and_then(Node::as_mapping);
        for group in groups.into_iter().flatten() {
            let jobs = group.value.get("jobs").and_then(Node::as_sequence);
            let is_job = |name: &Arc<str>| !self.defines(Kind::JobGroup, CONFIG, name);
            for (name, several) in named_alike(jobs.unwrap_or_default(), is_job) {
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

    /// Refuses job groups that a workflow invokes under one name. Answers whether that, or jobs alike in a group, leaves open
    /// what a name in `requires` means.
    fn check_group_names(&mut self, workflow: &str, items: &[Node]) -> bool {
        let is_group = |name: &Arc<str>| self.defines(Kind::JobGroup, CONFIG, name);
        let groups = self.root(CONFIG).get(Kind::JobGroup.section());
        let jobs = |item: &Node| groups?.get(&invoked_name(item)?)?.get("jobs")?.as_sequence();
        let mut open = items
            .iter()
            .filter_map(jobs)
            .any(|jobs| !named_alike(jobs, |name| !is_group(name)).is_empty());
        for (name, several) in named_alike(items, is_group) {
            let message = format!(
                "Job-group '{name}' occurs {} times in workflow '{workflow}'. You can give a job-group an explicit name by \
                 adding a `name` key",
                several.len()
            );
            for item in several {
                self.report(Diagnostic::error("config::job-group", message.clone()).at(item.span(), ""));
            }
            open = true;
        }
        open
    }

    fn invoke_group(
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
                    "a job group is invoked with `name`, `requires` and `serial-group`, not `{}`",
                    part.key.text
                );
                self.report(Diagnostic::error("config::job-group", message).at(&part.key.span, ""));
            }
        }
        let Found::Element(element) = self.find(Kind::JobGroup, CONFIG, reference) else {
            return;
        };
        let known = ["jobs", "description", "parameters"];
        self.check_keys(&element.node, &known, "a job group", Others::Ignored);
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
            Some(key) => (Role::Lock { key: key.clone() }, Role::Unlock { key }),
            None => (Role::NoOp, Role::NoOp),
        };
        let start: Arc<str> = format!("{prefix}/start").into();
        let unlocks = matches!(last, Role::Unlock { .. });
        out.push(boundary(start.to_string(), first, requires, None));
        let from = out.len();
        for job in jobs {
            let nested = invoked_name(job).is_some_and(|name| self.defines(Kind::JobGroup, CONFIG, &name));
            // That is said of the definition.
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

    fn resolve_requires(&mut self, graph: &mut Graph, failed: &BTreeSet<Arc<str>>) {
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
                    let hint =
                        "give each of them a `name` of its own, or a matrix an `alias` of its own, to require one";
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
                        if let Some(near) = crate::suggest::nearest(&require.name, others) {
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

    fn refuse_cycles(&mut self, graph: &Graph) {
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
        // Following any unfinished requirement from an unfinished job must come round to a job seen before.
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

/// The fields of a cron expression, with their least and greatest number and their names.
const CRON_FIELDS: [(&str, u32, u32, &[&str]); 5] = [
    ("minute", 0, 59, &[]),
    ("hour", 0, 23, &[]),
    ("day of the month", 1, 31, &[]),
    (
        "month",
        1,
        12,
        &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
    ),
    (
        "day of the week",
        0,
        7,
        &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    ),
];

/// What is odd about a cron expression.
enum Odd {
    /// It is none.
    Wrong(String),
    /// It is one that a schedule's trigger does not take.
    Unsupported(String),
}

/// What is odd about a text as the cron expression of a schedule's trigger: five fields, each `*`, a number, a range of
/// numbers, or a list of numbers; no steps, no ranges of names, no ranges in lists. What cron itself would take is no reason to
/// refuse a configuration whose other workflows run.
///
/// Source: <https://circleci.com/docs/reference/configuration-reference/#cron>
fn check_cron(text: &str) -> Result<(), Odd> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != CRON_FIELDS.len() {
        return Err(Odd::Wrong("it needs five fields".to_owned()));
    }
    let mut unsupported = None;
    for (field, (what, least, most, names)) in fields.into_iter().zip(CRON_FIELDS) {
        let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = |text: &str| {
            let named = names.iter().zip(0..).find(|(name, _)| text.eq_ignore_ascii_case(name));
            // Months are counted from one, and so are their names.
            let named = named.map(|(_, at): (_, u32)| at + least);
            let number = named.or_else(|| text.parse().ok().filter(|_| is_plain(text)));
            number.filter(|number| (least..=most).contains(number))
        };
        let items: Vec<&str> = field.split(',').collect();
        for item in &items {
            let (range, step) = match item.split_once('/') {
                Some((range, step)) => (range, Some(step)),
                None => (*item, None),
            };
            let ends = range.split_once('-');
            let is_good = match ends {
                Some((from, to)) => number(from).zip(number(to)).is_some_and(|(from, to)| from <= to),
                None => range == "*" || number(range).is_some(),
            };
            if !is_good || step.is_some_and(|step| !is_plain(step)) {
                return Err(Odd::Wrong(format!(
                    "`{item}` is no {what}: those are {least} to {most}"
                )));
            }
            let why = if step.is_some() {
                format!("steps such as `{field}` are not supported: list the numbers")
            } else if ends.is_some() && items.len() > 1 {
                format!("`{field}` has a range in a list, which is not supported: list the numbers")
            } else if ends.is_some_and(|(from, to)| !is_plain(from) || !is_plain(to)) {
                format!("`{field}` is a range of names, which is not supported: list the numbers")
            } else if range == "*" && items.len() > 1 {
                format!("`{field}` has `*` in a list, which is not supported")
            } else {
                continue;
            };
            unsupported.get_or_insert(why);
        }
    }
    unsupported.map_or(Ok(()), |why| Err(Odd::Unsupported(why)))
}

enum Target {
    Element(Rc<Element>),
    Inline(Role),
}

/// Makes names unique in a workflow: of several with one name, each gets its number.
fn name_members(invocations: &mut [Invocation]) {
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

/// A job whose filters do not pass is out; so is one of whose requirements none is left.
fn apply_filters(invocations: &mut [Invocation]) {
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
    // A group of whose members none is left does not begin, either. One that never had any only orders what is around it.
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
            boundary.printed.insert(entry("filters", never, &boundary.span.clone()));
        }
    }
}

/// The invocations that use a definition: a workflow's number, and the invocation's in it.
type Uses = Vec<(usize, usize)>;

/// What an item of a workflow's jobs runs.
fn invoked_name(item: &Node) -> Option<Arc<str>> {
    match item.as_mapping() {
        None => item.as_scalar().map(|scalar| scalar.text.clone()),
        Some(mapping) => mapping.entries().first().map(|part| part.key.text.clone()),
    }
}

/// The items without a matrix that come under one name, as they are written; of those whose reference is `meant`.
fn named_alike(items: &[Node], meant: impl Fn(&Arc<str>) -> bool) -> Vec<(Arc<str>, Vec<&Node>)> {
    let mut named: BTreeMap<Arc<str>, Vec<&Node>> = BTreeMap::new();
    for item in items {
        let body = item.as_mapping().and_then(|item| item.entries().first());
        let body = body.map(|part| &part.value);
        let Some(reference) = invoked_name(item).filter(&meant) else {
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

/// The names that an item of a workflow's `jobs` may be required by.
fn names_of(item: &Node) -> Vec<Arc<str>> {
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

/// Gives definitions that differ but have one name in several workflows names of their own, and answers the definitions in the
/// order of their first use.
pub(crate) fn definitions(graphs: &mut [Graph]) -> Vec<(Arc<str>, Rc<Expanded>)> {
    // By name: the different definitions, each with the invocations that use it.
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
    // Each where it is used first, so that what is printed comes to the same order again.
    definitions.sort_by_key(|(first, _)| *first);
    definitions.into_iter().map(|(_, definition)| definition).collect()
}
