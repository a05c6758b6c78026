//! Replaces templates by their values.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use towpath_yaml::{Diagnostic, Entry, Mapping, Node, Scalar, ScalarStyle, Span, Value as YamlValue};

use crate::compiler::Compiler;
use crate::element::CONFIG;
use crate::options::CompileOptions;
use crate::pipeline_values::{PIPELINE_VALUES, is_pipeline_value};
use crate::scope::{Arguments, Scope};
use crate::template::{self, Lookup, Rendered, Template, TemplateError};
use crate::value::Value;
use towpath_types::nearest;

/// The number of errors that are reported for one text.
const MAX_PROBLEMS: usize = 20;
const MAX_TEXT_BYTES: usize = 4 << 20;
const MAX_RENDERED_BYTES: usize = 32 << 20;

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
    options: &'c CompileOptions,
    pipeline_parameters: &'c Arguments,
    problems: Vec<Problem>,
    /// Whether a name was looked up whose value depends on the call.
    of_call: bool,
    /// The names that were looked up, while an explanation is made.
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

/// The span of a part of a scalar's text. If the part cannot be found in the source, the span of the whole scalar.
pub(crate) fn span_within(node: &Node, scalar: &Scalar, range: &Range<usize>) -> Span {
    let origin = node.origin();
    let written = origin.text();
    // Report an alias where it is used.
    if node.span() != origin || written.is_empty() {
        return node.span().clone();
    }
    match scalar.style {
        ScalarStyle::Plain if written == &*scalar.text => origin.within(range.clone()),
        ScalarStyle::Quoted if written.get(1..written.len().max(2) - 1) == Some(&*scalar.text) => {
            origin.within(range.start + 1..range.end + 1)
        }
        // In a block, find the same occurrence of the part in the source.
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

    /// Renders a scalar that contains a template.
    fn render(&mut self, node: &Node, scalar: &Scalar, scope: &Scope<'_>) -> Value {
        let template = self.template(&scalar.text);
        let template = match &*template {
            Ok(template) => template,
            Err(error) => {
                let error = error.clone();
                self.call_dependent += 1;
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
        self.call_dependent += usize::from(names.of_call || !problems.is_empty() || !errors.is_empty());
        if let (Some(trace), Some(seen)) = (&mut self.trace, names.seen) {
            trace.note_references(node, scope.frame, seen);
        }
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
                        true => format!("with all parameters replaced, this text has more than {MAX_TEXT_BYTES} bytes"),
                        false => {
                            format!("with all parameters replaced, all texts have more than {MAX_RENDERED_BYTES} bytes")
                        }
                    };
                    self.call_dependent += 1;
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
                        "declare it in the `parameters:` of this element: `{name}: {{type: string}}`"
                    ))
            }
            Problem::Variable { name, range } => {
                let tag = scalar.text.get(range.clone()).unwrap_or_default();
                let carets = "^".repeat(name.chars().count().max(1));
                let message = format!("Referred to a variable \"{name}\" that does not exist:\n{tag}\n {carets}");
                Diagnostic::error("config::unknown-variable", message).at(&span_within(node, scalar, range), "")
            }
            Problem::Value { name, range } => {
                let known = PIPELINE_VALUES.iter().map(|value| format!("pipeline.{value}"));
                let mut diagnostic = Diagnostic::warning(
                    "config::unknown-pipeline-value",
                    format!("Unknown pipeline value {name}"),
                )
                .at(&span_within(node, scalar, range), "replaced by empty text");
                if let Some(near) = nearest(name, known) {
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

    /// The value of a node in a scope, with all templates in lists and maps replaced.
    pub(crate) fn value(&mut self, node: &Node, scope: &Scope<'_>) -> Value {
        match node.as_scalar() {
            Some(scalar) if self.has_templates && scalar.text.contains("<<") => self.render(node, scalar, scope),
            Some(_) => Value::of(node),
            None => Value::Tree(self.substitute(node, scope)),
        }
    }

    /// Escapes `<<` in a node. For a value whose templates have been replaced, and that is passed on as an argument, where
    /// templates are replaced again.
    pub(crate) fn escaped(&self, node: &Node) -> Node {
        if !self.has_templates || !node.mentions_tag() {
            return node.clone();
        }
        match node.value() {
            YamlValue::Scalar(scalar) => {
                Node::scalar(scalar.text.replace("<<", "\\<<"), scalar.style, node.span().clone())
            }
            YamlValue::Sequence(items) => {
                let items = items.iter().map(|item| self.escaped(item)).collect();
                Node::sequence(items, node.span().clone())
            }
            YamlValue::Mapping(mapping) => {
                let entries = mapping.iter().map(|entry| Entry {
                    value: self.escaped(&entry.value),
                    ..entry.clone()
                });
                Node::mapping(Mapping::from_entries(entries), node.span().clone())
            }
        }
    }

    /// The text of a scalar. `None` for anything else, which is not reported.
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

    /// Replaces all templates in a node. A node without templates is shared, not copied.
    pub(crate) fn substitute(&mut self, node: &Node, scope: &Scope<'_>) -> Node {
        if !self.has_templates || !node.mentions_tag() {
            return node.clone();
        }
        // In an explanation each call needs its own results.
        if self.trace.is_some() {
            return self.substitute_anew(node, scope);
        }
        let key = (node.identity(), scope.namespace);
        if let Some((known, result)) = self.call_independent.get(&key)
            && known.span() == node.span()
        {
            return result.clone();
        }
        let of_calls = self.call_dependent;
        let result = self.substitute_anew(node, scope);
        if self.call_dependent == of_calls {
            self.call_independent.insert(key, (node.clone(), result.clone()));
        }
        result
    }

    fn substitute_anew(&mut self, node: &Node, scope: &Scope<'_>) -> Node {
        match node.value() {
            YamlValue::Scalar(scalar) => {
                let result = self.render(node, scalar, scope).to_node(node.span());
                if let Some(trace) = &mut self.trace {
                    trace.note_result(&result, node, scope.frame);
                }
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

    /// Replaces all templates in the values of a map, and drops the keys in `without`.
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
