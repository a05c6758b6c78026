//! The jobs of a workflow: what each entry calls, with which arguments, under which name.

use std::rc::Rc;
use std::sync::Arc;

use towpath_yaml::{Diagnostic, Entry, Mapping, Node, ScalarStyle, Span};

use crate::compiler::Compiler;
use crate::element::{CONFIG, Element, Found, Kind};
use crate::keys;
use crate::matrix::Member;
use crate::scope::Scope;
use crate::trace::OUTSIDE;
use crate::value::Value;
use crate::workflows::model::{Invocation, Role};
use towpath_types::nearest;

const MAX_INVOCATIONS: usize = 10_000;

/// What an entry of `jobs` calls.
enum Target {
    Element(Rc<Element>),
    /// A job without a definition.
    Inline(Role),
}

impl Compiler<'_> {
    /// Expands one entry of `jobs`: a job, all members of a matrix, or a job group. Returns whether it is a matrix without
    /// members.
    pub(crate) fn invoke(
        &mut self,
        item: &Node,
        position: usize,
        group: Option<&Arc<str>>,
        out: &mut Vec<Invocation>,
    ) -> bool {
        let top = Scope::top(CONFIG);
        let (reference, body, span) = match item.as_mapping() {
            None => match self.text(item, &top) {
                Some(name) => (name, None, item.span().clone()),
                None => {
                    let message = format!("a job of a workflow must be a name or a map, not {}", item.kind());
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
                    None => {
                        "a job of a workflow must be a name or a map with one key, but this map is empty".to_owned()
                    }
                    Some(second) => format!("`{}` is beside the job's name instead of below it", second.key.text),
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
                let message = format!("job `{reference}` has a colon but no arguments");
                self.report(
                    Diagnostic::warning("config::empty-invocation", message)
                        .at(&span, "")
                        .hint("remove the colon, or indent the following lines"),
                );
                &empty
            }
            Some(node) => match node.as_mapping() {
                Some(mapping) => mapping,
                None => {
                    let message = format!("the arguments of job `{reference}` must be a map, not {}", node.kind());
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

    /// Finds what an entry calls. An approval job needs no definition.
    fn target(&mut self, reference: &str, body: &Mapping, span: &Span) -> Option<Target> {
        let scope = Scope::top(CONFIG);
        let kind = body.get("type").and_then(|kind| self.text(kind, &scope));
        match kind.as_deref() {
            Some("approval") => return Some(Target::Inline(Role::Approval)),
            None | Some("build") => {}
            // A compiled configuration is of version 2, and has these types in the workflow.
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
                    "lock" => Role::Lock { key, of_group: false },
                    "unlock" => Role::Unlock { key, of_group: false },
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
                Found::Broken => return None,
                Found::BrokenAlias(_) | Found::Nothing => {
                    let why = match self.orb(CONFIG, orb) {
                        Some(_) => format!("orb `{orb}` has no job `{job}`"),
                        None => format!("there is no orb `{orb}`"),
                    };
                    let message = format!("override-with: {why}, so job `{reference}` runs instead");
                    self.report(Diagnostic::warning("config::override-with", message).at(over.span(), ""));
                }
            }
        }
        match self.find(Kind::Job, CONFIG, reference) {
            Found::Element(element) => Some(Target::Element(element)),
            Found::Broken => None,
            Found::BrokenAlias(message) => {
                self.report(Diagnostic::error("config::unknown-job", message).at(span, ""));
                None
            }
            Found::Nothing => {
                // CircleCI reports this for the workflow, not for the job.
                let job = self.context.pop();
                let message = format!("Cannot find a definition for job named {reference}");
                let mut diagnostic = Diagnostic::error("config::unknown-job", message).at(span, "");
                if let Some(near) = nearest(reference, self.known_names(Kind::Job, CONFIG)) {
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

    /// Expands a job, or one member of its matrix.
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
            // A matrix parameter `name` sets the name of the job.
            if &**name == "name" {
                matrix_name = Some(value.to_text());
            } else {
                let at = body
                    .get("matrix")
                    .and_then(|matrix| matrix.get("parameters")?.as_mapping()?.entry(name));
                let at = at.map_or(span, |part| &part.key.span);
                given.push(Entry::computed(name.clone(), node.clone(), at));
            }
        }
        let scope = Scope {
            parameters: None,
            matrix,
            namespace: CONFIG,
            frame: match (matrix, &mut self.trace) {
                (Some(_), Some(trace)) => trace.enter_matrix(reference, &given, span),
                _ => OUTSIDE,
            },
        };
        for part in body {
            if !keys::INVOCATION.contains(&&*part.key.text) {
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
        // A compiled configuration refers to no names, so print the result of an expression.
        let filters = filters.map(|node| match node.as_scalar() {
            Some(_) if !node.is_null() => Node::scalar(kept.to_string(), ScalarStyle::Plain, node.span().clone()),
            _ => node,
        });
        let around = (body.get("pre-steps"), body.get("post-steps"));
        let role = match target {
            Target::Inline(role) => {
                let extra = body
                    .iter()
                    .find(|part| &*part.key.text == "context" || !keys::INVOCATION.contains(&&*part.key.text));
                if matches!(role, Role::Approval)
                    && let Some(extra) = extra
                {
                    let message = format!("an approval job has no key `{}`; it is ignored", extra.key.text);
                    self.report(Diagnostic::warning("config::unknown-key", message).at(&extra.key.span, ""));
                }
                role.clone()
            }
            Target::Element(element) => self.role(element, &given, &scope, span, around)?,
        };
        if matches!(role, Role::Approval)
            && let Some(key) = ["pre-steps", "post-steps"].iter().find_map(|key| body.entry(key))
        {
            let message = format!("an approval job runs no steps, so `{}` is ignored", key.key.text);
            self.report(Diagnostic::warning("config::unknown-key", message).at(&key.key.span, ""));
        }
        let mut printed = Mapping::default();
        for key in ["type", "context", "filters", "serial-group", "upstream"] {
            if let Some(part) = body.entry(key) {
                let value = match (&filters, key) {
                    (Some(filters), "filters") => filters.clone(),
                    _ => self.substitute(&part.value, &scope),
                };
                printed.insert(Entry::computed(part.key.text.clone(), value, &part.key.span));
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

    /// The explicit name of an entry.
    pub(crate) fn invocation_name(&mut self, body: &Mapping, scope: &Scope<'_>) -> Option<Arc<str>> {
        let node = body.get("name")?;
        let name = self.text(node, scope)?;
        if name.trim().is_empty() {
            let message = "the name of a job cannot be blank";
            self.report(Diagnostic::error("config::invocation", message).at(node.span(), ""));
        }
        Some(name)
    }

    /// Expands a job and determines its type.
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
                match kind {
                    "lock" => Role::Lock { key, of_group: false },
                    _ => Role::Unlock { key, of_group: false },
                }
            }
            Some(other) => {
                let message = format!("there is no job type `{other}`");
                let at = expanded.node.get("type").map_or(&expanded.span, |node| node.span());
                let diagnostic = Diagnostic::error("config::job-type", message).at(at, "");
                self.report(diagnostic.hint("the types are build, approval, no-op, release, lock and unlock"));
                return None;
            }
        })
    }

    /// Reads the key of a lock or a serial group.
    pub(crate) fn lock_key(&mut self, node: &Node, code: &'static str, what: &str) -> Option<String> {
        // A template may have no value yet. Ignore the key then.
        let name = node.as_scalar().filter(|_| !node.is_null())?.text.to_string();
        let fits = name.len() <= 512
            && !name.is_empty()
            && name
                .chars()
                .all(|character| character.is_ascii_alphanumeric() || "._/-".contains(character));
        if !fits {
            let message = format!("{what} can have up to 512 letters, digits, dots, underscores, slashes and dashes");
            self.report(Diagnostic::error(code, message).at(node.span(), ""));
        }
        fits.then_some(name)
    }

    /// Reads a list of texts, or a single text.
    fn string_list(&mut self, node: &Node, what: &str) -> Vec<String> {
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
                    let message = format!("`{what}` must be text or a list of texts, not {}", item.kind());
                    self.report(Diagnostic::error("config::type", message).at(item.span(), ""));
                }
            }
        }
        texts
    }
}
