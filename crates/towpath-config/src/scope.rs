//! What `<< >>` sees from where it stands, and putting values in place.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::{HashMap, fast::RandomState};
use indexmap::IndexMap;
use towpath_yaml::{Diagnostic, Entry, Mapping, Node, Scalar, ScalarStyle, Span, Value as YamlValue};

use crate::compiler::Compiler;
use crate::namespace::{CONFIG, NamespaceId};
use crate::options::{CompileOptions, is_pipeline_value};
use crate::template::{self, Lookup, Rendered, Template, TemplateError};
use crate::trace::{FrameId, OUTSIDE};
use crate::value::Value;

/// Values by the names of their parameters.
pub(crate) type Arguments = IndexMap<Arc<str>, Value, RandomState>;

/// What a template can see.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'s> {
    /// The parameters of the enclosing element, when there is one.
    pub(crate) parameters: Option<&'s Arguments>,
    /// The values of this member of a matrix.
    pub(crate) matrix: Option<&'s Arguments>,
    /// Whose names are meant.
    pub(crate) namespace: NamespaceId,
    /// The call that it is inside of, for explanations.
    pub(crate) frame: FrameId,
}

impl Scope<'_> {
    /// Outside of every element.
    pub(crate) fn top(namespace: NamespaceId) -> Scope<'static> {
        Scope {
            parameters: None,
            matrix: None,
            namespace,
            frame: OUTSIDE,
        }
    }
}

/// Templates by the address of their text, which is kept so that the address stays taken.
pub(crate) type TemplateCache = HashMap<usize, (Arc<str>, Rc<Result<Template, TemplateError>>)>;

/// How many mistakes in one text are reported.
const MAX_PROBLEMS: usize = 20;
const MAX_TEXT_BYTES: usize = 4 << 20;
const MAX_RENDERED_BYTES: usize = 256 << 20;

enum Problem {
    Parameter {
        name: String,
        range: Range<usize>,
    },
    Variable {
        name: String,
        range: Range<usize>,
    },
    Value {
        name: String,
        range: Range<usize>,
    },
    Deprecated {
        name: String,
        instead: &'static str,
        range: Range<usize>,
    },
}

struct Names<'c> {
    scope: &'c Scope<'c>,
    options: &'c CompileOptions<'c>,
    pipeline_parameters: &'c Arguments,
    problems: Vec<Problem>,
    /// Whether something was looked up that only this call knows.
    of_call: bool,
    /// What was looked up, when that is to be kept.
    seen: Option<Vec<(String, Arc<str>)>>,
}

impl Lookup for Names<'_> {
    fn lookup(&mut self, name: &str, range: &Range<usize>) -> Option<Value> {
        let value = self.find(name, range);
        if let (Some(seen), Some(value)) = (&mut self.seen, &value) {
            seen.push((name.to_owned(), value.to_text()));
        }
        value
    }
}

impl Names<'_> {
    fn find(&mut self, name: &str, range: &Range<usize>) -> Option<Value> {
        self.of_call |= !name.starts_with("pipeline.");
        if let Some(parameter) = name.strip_prefix("parameters.") {
            let value = self
                .scope
                .parameters
                .and_then(|parameters| parameters.get(parameter))
                .cloned();
            if value.is_none() {
                self.problems.push(Problem::Parameter {
                    name: parameter.to_owned(),
                    range: range.clone(),
                });
            }
            return value;
        }
        if let Some(parameter) = name.strip_prefix("pipeline.parameters.") {
            let visible = self.scope.namespace == CONFIG;
            let value = self.pipeline_parameters.get(parameter).filter(|_| visible).cloned();
            if value.is_none() {
                self.problems.push(Problem::Variable {
                    name: name.to_owned(),
                    range: range.clone(),
                });
            }
            return value;
        }
        if let Some(value) = name.strip_prefix("pipeline.") {
            if value == "trigger_parameters.circleci.event_type" {
                let instead = "pipeline.event.name";
                self.problems.push(Problem::Deprecated {
                    name: name.to_owned(),
                    instead,
                    range: range.clone(),
                });
            }
            if let Some(value) = self.options.values.get(value) {
                return Some(Value::of_json(value).unwrap_or(Value::Null));
            }
            if !is_pipeline_value(value) {
                self.problems.push(Problem::Value {
                    name: name.to_owned(),
                    range: range.clone(),
                });
            }
            return Some(Value::Null);
        }
        if let Some(parameter) = name.strip_prefix("matrix.")
            && let Some(value) = self.scope.matrix.and_then(|matrix| matrix.get(parameter))
        {
            return Some(value.clone());
        }
        self.problems.push(Problem::Variable {
            name: name.to_owned(),
            range: range.clone(),
        });
        None
    }
}

/// The place of a part of a scalar's text. Exact for text that stands in the source as it is; else the whole scalar.
pub(crate) fn span_within(node: &Node, scalar: &Scalar, range: &Range<usize>) -> Span {
    let origin = node.origin();
    let written = origin.text();
    // An alias is reported where it is used.
    if node.span() != origin || written.is_empty() {
        return node.span().clone();
    }
    match scalar.style {
        ScalarStyle::Plain if written == &*scalar.text => origin.within(range.clone()),
        ScalarStyle::Quoted if written.get(1..written.len().max(2) - 1) == Some(&*scalar.text) => {
            origin.within(range.start + 1..range.end + 1)
        }
        // The text of a tag as it stands in the source, when it stands there once.
        _ => match scalar.text.get(range.clone()).filter(|part| !part.trim().is_empty()) {
            Some(part) => {
                let nth = scalar.text[..range.start].matches(part).count();
                match written.match_indices(part).nth(nth) {
                    Some((at, _)) => origin.within(at..at + part.len()),
                    None => origin.clone(),
                }
            }
            None => origin.clone(),
        },
    }
}

impl Compiler<'_> {
    pub(crate) fn template(&mut self, text: &Arc<str>) -> Rc<Result<Template, TemplateError>> {
        let key = text.as_ptr() as usize;
        if let Some((known, template)) = self.templates.get(&key)
            && known.len() == text.len()
        {
            return template.clone();
        }
        let template = Rc::new(template::parse(text));
        self.templates.insert(key, (text.clone(), template.clone()));
        template
    }

    /// The value of a scalar with a template in it.
    fn render(&mut self, node: &Node, scalar: &Scalar, scope: &Scope<'_>) -> Value {
        let template = self.template(&scalar.text);
        let template = match &*template {
            Ok(template) => template,
            Err(error) => {
                let error = error.clone();
                self.of_calls += 1;
                self.report_template(node, scalar, &error);
                return Value::Null;
            }
        };
        let mut names = Names {
            scope,
            options: self.options,
            pipeline_parameters: &self.pipeline_parameters,
            problems: Vec::new(),
            of_call: false,
            seen: self.trace.as_ref().map(|_| Vec::new()),
        };
        let mut errors = Vec::new();
        let rendered = template.render(&mut names, &mut errors);
        let problems = names.problems;
        self.of_calls += usize::from(names.of_call || !problems.is_empty() || !errors.is_empty());
        if let Some(seen) = names.seen {
            self.trace_template(node, scope, seen);
        }
        // One text with many mistakes of a kind is one mistake.
        for problem in problems.into_iter().take(MAX_PROBLEMS) {
            self.report_problem(node, scalar, problem);
        }
        for error in errors.into_iter().take(MAX_PROBLEMS) {
            self.report_template(node, scalar, &error);
        }
        match rendered {
            Rendered::Value(value) => value,
            Rendered::Text(text) => {
                self.rendered_bytes = self.rendered_bytes.saturating_add(text.len());
                if text.len() > MAX_TEXT_BYTES || self.rendered_bytes > MAX_RENDERED_BYTES {
                    let message = match text.len() > MAX_TEXT_BYTES {
                        true => format!("with its parameters in place this text has more than {MAX_TEXT_BYTES} bytes"),
                        false => {
                            format!("with parameters in place all texts have more than {MAX_RENDERED_BYTES} bytes")
                        }
                    };
                    self.of_calls += 1;
                    self.report(Diagnostic::error("config::too-large", message).at(node.span(), ""));
                    return Value::Null;
                }
                Value::Text(text.into())
            }
        }
    }

    fn report_template(&mut self, node: &Node, scalar: &Scalar, error: &TemplateError) {
        let span = span_within(node, scalar, &error.range);
        let mut diagnostic = Diagnostic::error("config::template", error.message.clone()).at(&span, "");
        if let Some(hint) = error.hint {
            diagnostic = diagnostic.hint(hint);
        }
        if node.span() != node.origin() {
            diagnostic = diagnostic.also(node.origin(), "written here");
        }
        self.report(diagnostic);
    }

    fn report_problem(&mut self, node: &Node, scalar: &Scalar, problem: Problem) {
        let diagnostic = match &problem {
            Problem::Parameter { name, range } => {
                let message = format!("Arguments referenced without declared parameters: {name}");
                Diagnostic::error("config::undeclared-parameter", message)
                    .at(&span_within(node, scalar, range), "")
                    .hint(format!(
                        "declare it under `parameters:` of the element this is in: `{name}: {{type: string}}`"
                    ))
            }
            Problem::Variable { name, range } => {
                let tag = scalar.text.get(range.clone()).unwrap_or_default();
                let carets = "^".repeat(name.chars().count().max(1));
                let message = format!("Referred to a variable \"{name}\" that does not exist:\n{tag}\n {carets}");
                Diagnostic::error("config::unknown-variable", message).at(&span_within(node, scalar, range), "")
            }
            Problem::Value { name, range } => {
                let known = crate::options::PIPELINE_VALUES
                    .iter()
                    .map(|value| format!("pipeline.{value}"));
                let mut diagnostic = Diagnostic::warning(
                    "config::unknown-pipeline-value",
                    format!("Unknown pipeline value {name}"),
                )
                .at(&span_within(node, scalar, range), "this is empty");
                if let Some(near) = crate::suggest::nearest(name, known) {
                    diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
                }
                diagnostic
            }
            Problem::Deprecated { name, instead, range } => {
                let message = format!("{name} is deprecated, use {instead} instead");
                Diagnostic::warning("config::deprecated", message).at(&span_within(node, scalar, range), "")
            }
        };
        self.report(diagnostic);
    }

    /// The value of a node in a scope. Lists and maps have everything in them put in place.
    pub(crate) fn value(&mut self, node: &Node, scope: &Scope<'_>) -> Value {
        match node.as_scalar() {
            Some(scalar) if self.has_templates && scalar.text.contains("<<") => self.render(node, scalar, scope),
            Some(_) => Value::of(node),
            None => Value::Tree(self.substitute(node, scope)),
        }
    }

    /// The node with what looks like a template in it escaped: for a value that is in place already, on its way through an
    /// argument where values are put in place.
    pub(crate) fn in_place(&self, node: &Node) -> Node {
        if !self.has_templates || !node.mentions_tag() {
            return node.clone();
        }
        match node.value() {
            YamlValue::Scalar(scalar) => {
                Node::scalar(scalar.text.replace("<<", "\\<<"), scalar.style, node.span().clone())
            }
            YamlValue::Sequence(items) => {
                let items = items.iter().map(|item| self.in_place(item)).collect();
                Node::sequence(items, node.span().clone())
            }
            YamlValue::Mapping(mapping) => {
                let entries = mapping.iter().map(|entry| Entry {
                    value: self.in_place(&entry.value),
                    ..entry.clone()
                });
                Node::mapping(Mapping::from_entries(entries), node.span().clone())
            }
        }
    }

    /// The text of a scalar; `None` (without a report) when it is anything else.
    pub(crate) fn text(&mut self, node: &Node, scope: &Scope<'_>) -> Option<Arc<str>> {
        match self.value(node, scope) {
            Value::Text(text) => Some(text),
            value @ (Value::Int(_) | Value::Float(_) | Value::Bool(_)) => Some(match node.as_scalar() {
                Some(scalar) if !scalar.text.contains("<<") => scalar.text.clone(),
                _ => value.to_text(),
            }),
            Value::Executor { node, .. } => node.as_scalar().map(|scalar| scalar.text.clone()),
            _ => None,
        }
    }

    /// The node with every template in it replaced by its value. What has none is shared, not copied.
    pub(crate) fn substitute(&mut self, node: &Node, scope: &Scope<'_>) -> Node {
        if !self.has_templates || !node.mentions_tag() {
            return node.clone();
        }
        // Explained, each call has results of its own.
        if self.trace.is_some() {
            return self.substitute_anew(node, scope);
        }
        let key = (node.identity(), scope.namespace);
        if let Some((known, result)) = self.in_every_call.get(&key)
            && known.span() == node.span()
        {
            return result.clone();
        }
        let of_calls = self.of_calls;
        let result = self.substitute_anew(node, scope);
        if self.of_calls == of_calls {
            self.in_every_call.insert(key, (node.clone(), result.clone()));
        }
        result
    }

    fn substitute_anew(&mut self, node: &Node, scope: &Scope<'_>) -> Node {
        match node.value() {
            YamlValue::Scalar(scalar) => {
                let result = self.render(node, scalar, scope).to_node(node.span());
                self.trace_result(&result, node, scope);
                result
            }
            YamlValue::Sequence(items) => {
                let items = items.iter().map(|item| self.substitute(item, scope)).collect();
                Node::sequence(items, node.span().clone())
            }
            YamlValue::Mapping(mapping) => {
                Node::mapping(self.substitute_mapping(mapping, scope, &[]), node.span().clone())
            }
        }
    }

    /// The entries with every template in their values replaced, except those under the keys in `without`.
    pub(crate) fn substitute_mapping(&mut self, mapping: &Mapping, scope: &Scope<'_>, without: &[&str]) -> Mapping {
        let mut result = Mapping::default();
        for entry in mapping {
            if !without.contains(&&*entry.key.text) {
                let value = self.substitute(&entry.value, scope);
                result.insert(Entry {
                    key: entry.key.clone(),
                    value,
                    merged_at: entry.merged_at.clone(),
                });
            }
        }
        result
    }
}
