//! Parameters: their declarations, and the arguments of calls.
//!
//! Source: <https://circleci.com/docs/guides/orchestrate/reusing-config/#using-the-parameters-declaration>

use std::sync::Arc;

use foldhash::fast::RandomState;
use towpath_yaml::{Diagnostic, Entry, Node, ScalarStyle, Span, Value as YamlValue};

use crate::compiler::Compiler;
use crate::element::{CONFIG, Declaration, Declarations, Element, Kind, NamespaceId, ParameterType};
use crate::keys::INVOCATION;
use crate::scope::{Arguments, Scope};
use crate::trace::{FrameId, OUTSIDE};
use crate::unknown_keys::UnknownKeys;
use crate::value::Value;
use towpath_types::nearest;

/// The keys of an invocation that CircleCI accepts as names of parameters.
const UNRESERVED: [&str; 2] = ["matrix", "serial-group"];

/// The names that a parameter of a job cannot have, because they are keys of an invocation.
fn reserved() -> impl Iterator<Item = &'static str> {
    INVOCATION.iter().copied().filter(|key| !UNRESERVED.contains(key))
}

/// What declares a parameter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Declarer {
    Element(Kind),
    Pipeline,
}

impl Compiler<'_> {
    /// Reads the declarations of an element.
    pub(crate) fn declarations(&mut self, kind: Kind, name: &str, node: &Node) -> Declarations {
        match node.get("parameters") {
            Some(parameters) => self.read_declarations(parameters, Declarer::Element(kind), name),
            None => Declarations::default(),
        }
    }

    fn read_declarations(&mut self, node: &Node, declarer: Declarer, owner: &str) -> Declarations {
        let mut declarations = Declarations::default();
        if node.is_null() {
            return declarations;
        }
        let Some(mapping) = node.as_mapping() else {
            let message = format!(
                "`parameters` must be a map of names to declarations, not {}",
                node.kind()
            );
            self.report(Diagnostic::error("config::parameters", message).at(node.span(), ""));
            return declarations;
        };
        for entry in mapping {
            let declaration = self.read_declaration(entry, declarer, owner);
            declarations.insert(entry.key.text.clone(), declaration);
        }
        declarations
    }

    fn read_declaration(&mut self, entry: &Entry, declarer: Declarer, owner: &str) -> Declaration {
        let name = &entry.key.text;
        let mut declaration = Declaration {
            kind: ParameterType::Unknown,
            default: None,
            span: entry.key.span.clone(),
        };
        if declarer == Declarer::Element(Kind::Job) && reserved().any(|key| key == &**name) {
            let message = format!("`{name}` cannot be a parameter of job `{owner}`: it is a key of the invocation");
            let diagnostic = Diagnostic::error("config::reserved-parameter", message).at(&entry.key.span, "");
            let names: Vec<&str> = reserved().collect();
            self.report(diagnostic.hint(format!("the reserved names are {}", names.join(", "))));
        }
        let Some(mapping) = entry.value.as_mapping() else {
            let message = format!("parameter `{name}` needs a declaration such as `{{type: string}}`");
            self.report(Diagnostic::error("config::parameters", message).at(&entry.key.span, ""));
            return declaration;
        };
        let known = ["type", "default", "description", "enum"];
        self.check_entries(mapping, &known, "the declaration of a parameter", UnknownKeys::Refused);
        let Some(kind) = mapping.get("type") else {
            let message = format!("parameter `{name}` has no `type`");
            self.report(Diagnostic::error("config::parameters", message).at(&entry.key.span, ""));
            return declaration;
        };
        let word = kind.as_scalar().map_or("", |scalar| &*scalar.text);
        declaration.kind = match word {
            "string" => ParameterType::String,
            "boolean" => ParameterType::Boolean,
            "integer" => ParameterType::Integer,
            "enum" => match mapping.get("enum").and_then(Node::as_sequence) {
                Some(values) if !values.is_empty() => ParameterType::Enum(
                    values
                        .iter()
                        .filter_map(|value| value.as_scalar().map(|scalar| scalar.text.clone()))
                        .collect(),
                ),
                _ => {
                    let message = format!("parameter `{name}` of type enum needs a list of values under `enum`");
                    self.report(Diagnostic::error("config::parameters", message).at(&entry.key.span, ""));
                    ParameterType::Unknown
                }
            },
            "executor" if declarer != Declarer::Pipeline && declarer != Declarer::Element(Kind::Executor) => {
                ParameterType::Executor
            }
            "steps" if declarer != Declarer::Pipeline && declarer != Declarer::Element(Kind::Executor) => {
                ParameterType::Steps
            }
            "env_var_name" if declarer != Declarer::Pipeline => ParameterType::EnvVarName,
            _ => {
                let who = match declarer {
                    Declarer::Pipeline => "a pipeline parameter",
                    Declarer::Element(Kind::Executor) => "an executor's parameter",
                    Declarer::Element(_) => "a parameter",
                };
                let message = format!("{who} cannot be of type `{word}`");
                self.report(
                    Diagnostic::error("config::parameter-type", message)
                        .at(kind.span(), "")
                        .hint(match declarer {
                            Declarer::Pipeline => "the types are string, boolean, integer and enum",
                            Declarer::Element(Kind::Executor) => {
                                "the types are string, boolean, integer, enum and env_var_name"
                            }
                            Declarer::Element(_) => {
                                "the types are string, boolean, integer, enum, executor, steps and env_var_name"
                            }
                        }),
                );
                ParameterType::Unknown
            }
        };
        // An empty default is no default.
        declaration.default = mapping.get("default").filter(|default| !default.is_null()).cloned();
        if let Some(default) = declaration.default.clone()
            && !(default.mentions_tag() && default.as_scalar().is_some())
            && !matches!(declaration.kind, ParameterType::Steps | ParameterType::Executor)
        {
            let value = as_written(&declaration.kind, &default, Value::of(&default));
            if fit(&declaration.kind, value.clone(), false).is_err() {
                let message = match &declaration.kind {
                    ParameterType::Enum(values) => format!(
                        "Parameter error: default value of parameter '{name}' is '{}' (type {}): expected one of: {}",
                        value.to_text(),
                        value.type_name(),
                        values.join(", ")
                    ),
                    kind => format!(
                        "Parameter error: default value of parameter '{name}' is '{}' (type {}): expected type {}",
                        value.to_text(),
                        value.type_name(),
                        kind.word()
                    ),
                };
                self.report(Diagnostic::error("config::parameter-default", message).at(default.span(), ""));
                declaration.kind = ParameterType::Unknown;
            }
        }
        declaration
    }

    /// Reads the pipeline parameters, and sets them to the values of the trigger or to their defaults.
    pub(crate) fn bind_pipeline_parameters(&mut self, root: &Node) {
        let declarations = match root.get("parameters").filter(|_| self.has_templates) {
            Some(node) => self.read_declarations(node, Declarer::Pipeline, "pipeline"),
            None => Declarations::default(),
        };
        let unexpected: Vec<&str> = self
            .options
            .parameters
            .keys()
            .filter(|name| !declarations.contains_key(name.as_str()))
            .map(String::as_str)
            .collect();
        if !unexpected.is_empty() {
            let mut diagnostic = Diagnostic::error(
                "config::unexpected-argument",
                format!("Unexpected argument(s): {}", unexpected.join(", ")),
            );
            diagnostic = match root.get("parameters") {
                Some(node) => diagnostic.at(node.span(), "the parameters of this pipeline"),
                None => diagnostic.hint("this configuration declares no `parameters`"),
            };
            self.report(diagnostic);
        }
        let mut missing = Vec::new();
        for (name, declaration) in declarations {
            let given = self.options.parameters.get(&*name);
            let value = match (
                given.map(|json| Value::of_json(json).unwrap_or(Value::Null)),
                &declaration.default,
            ) {
                (Some(value), _) => match fit(&declaration.kind, value.clone(), false) {
                    Ok(value) => value,
                    Err(()) => {
                        self.report_type(&name, &declaration, &value, &declaration.span.clone());
                        Value::Null
                    }
                },
                (None, Some(default)) => {
                    // A default can refer to pipeline values, but not to pipeline parameters.
                    match default.mentions_tag() && self.has_templates {
                        true => self.value(default, &Scope::top(CONFIG)),
                        false => as_written(&declaration.kind, default, Value::of(default)),
                    }
                }
                (None, None) => {
                    missing.push(name.to_string());
                    Value::Null
                }
            };
            self.pipeline_parameters.insert(name, value);
        }
        if !missing.is_empty() {
            let mut diagnostic = Diagnostic::error(
                "config::missing-argument",
                format!("Missing required argument(s): {}", missing.join(", ")),
            );
            if let Some(node) = root.get("parameters") {
                diagnostic = diagnostic
                    .at(node.span(), "")
                    .hint("declare a `default` for each, or set them when you trigger the pipeline");
            }
            self.report(diagnostic);
        }
    }

    /// The arguments of a call, checked, with defaults for those that are not given. Also returns the call for explanations.
    ///
    /// `given` is written in the scope of the caller, defaults in that of the element.
    pub(crate) fn bind(
        &mut self,
        element: &Element,
        given: &[Entry],
        caller: &Scope<'_>,
        call: &Span,
    ) -> (Arguments, FrameId) {
        let frame = match &mut self.trace {
            Some(trace) => trace.enter(element, given, caller.frame, call),
            None => OUTSIDE,
        };
        let mut arguments = Arguments::with_capacity_and_hasher(element.parameters.len(), RandomState::default());
        let unexpected: Vec<&Entry> = given
            .iter()
            .filter(|entry| !element.parameters.contains_key(&*entry.key.text))
            .collect();
        if let Some(first) = unexpected.first() {
            let names: Vec<&str> = unexpected.iter().map(|entry| &*entry.key.text).collect();
            let message = format!("Unexpected argument(s): {}", names.join(", "));
            let mut diagnostic = Diagnostic::error("config::unexpected-argument", message);
            diagnostic = match &first.merged_at {
                Some(merged) => diagnostic
                    .at(merged, "merged here")
                    .also(&first.key.span, "written here"),
                None => diagnostic.at(&first.key.span, format!("`{}` has no such parameter", element.name)),
            };
            for other in &unexpected[1..] {
                diagnostic = diagnostic.also(&other.key.span, "also unexpected");
            }
            let known = || {
                let invocation = INVOCATION.iter().copied().filter(|_| element.kind == Kind::Job);
                element.parameters.keys().map(|name| &**name).chain(invocation)
            };
            let meant: Vec<String> = unexpected
                .iter()
                .filter_map(|entry| Some(format!("`{}`", nearest(&entry.key.text, known())?)))
                .collect();
            if !meant.is_empty() {
                diagnostic = diagnostic.hint(format!("did you mean {}?", meant.join(", ")));
            }
            self.report(diagnostic);
        }
        let mut missing = Vec::new();
        for (name, declaration) in &element.parameters {
            let value = match given.iter().rev().find(|entry| entry.key.text == *name) {
                Some(entry) => self.argument(name, declaration, &entry.value, caller),
                None => match &declaration.default {
                    Some(default) => {
                        let scope = Scope {
                            parameters: Some(&arguments),
                            matrix: None,
                            namespace: element.namespace,
                            frame,
                        };
                        self.argument(name, declaration, default, &scope)
                    }
                    None => {
                        missing.push(name);
                        Value::Null
                    }
                },
            };
            arguments.insert(name.clone(), value);
        }
        if !missing.is_empty() {
            let names: Vec<&str> = missing.iter().map(|name| &***name).collect();
            let message = format!("Missing required argument(s): {}", names.join(", "));
            let mut diagnostic = Diagnostic::error("config::missing-argument", message).at(call, "called here");
            for name in missing {
                if let Some(declaration) = element.parameters.get(name) {
                    diagnostic = diagnostic.also(&declaration.span, "declared here, without a default");
                }
            }
            self.report(diagnostic);
        }
        (arguments, frame)
    }

    /// The value of an argument, checked against the declaration.
    fn argument(&mut self, name: &str, declaration: &Declaration, node: &Node, scope: &Scope<'_>) -> Value {
        match &declaration.kind {
            ParameterType::Steps => {
                if let Some(items) = node.as_sequence() {
                    let mut steps = Vec::new();
                    self.expand_steps(items, scope, &mut steps);
                    return Value::Steps(steps.into());
                }
                match self.value(node, scope) {
                    value @ Value::Steps(_) => value,
                    Value::Null => Value::Steps(Vec::new().into()),
                    value => {
                        self.report_type(name, declaration, &value, node.span());
                        Value::Steps(Vec::new().into())
                    }
                }
            }
            ParameterType::Executor => {
                let value = self.value(node, scope);
                let namespace = scope.namespace;
                match value {
                    value @ Value::Executor { .. } => value,
                    Value::Text(text) => executor(&text, node, namespace),
                    Value::Tree(tree) if tree.as_mapping().is_some() => Value::Executor { node: tree, namespace },
                    value => {
                        self.report_type(name, declaration, &value, node.span());
                        Value::Null
                    }
                }
            }
            kind => {
                let value = as_written(kind, node, self.value(node, scope));
                // A pipeline value such as `<< pipeline.number >>` can be used as text.
                let lenient = node.as_scalar().is_some_and(|scalar| {
                    scalar.text.contains("<<")
                        && scalar.text.contains("pipeline.")
                        && !scalar.text.contains("pipeline.parameters.")
                });
                match fit(kind, value.clone(), lenient) {
                    Ok(value) => value,
                    Err(()) => {
                        self.report_type(name, declaration, &value, node.span());
                        Value::Null
                    }
                }
            }
        }
    }

    fn report_type(&mut self, name: &str, declaration: &Declaration, value: &Value, span: &Span) {
        let mut message = format!(
            "Type error for argument {name}: expected type: {}, actual value: {}",
            declaration.kind.word(),
            value.quoted()
        );
        if let ParameterType::Enum(values) = &declaration.kind {
            message.push_str(&format!(". Allowed values: {}", values.join(", ")));
        }
        let mut diagnostic = Diagnostic::error("config::argument-type", message)
            .at(span, "")
            .also(&declaration.span, "declared here");
        if declaration.kind == ParameterType::String
            && matches!(value, Value::Int(_) | Value::Float(_) | Value::Bool(_))
        {
            // Suggest the text as written: `3.10` is not `3.1`.
            let written = span.text();
            let is_literal = !written.is_empty() && !written.starts_with('*') && !written.contains("<<");
            let text = if is_literal { written.into() } else { value.to_text() };
            diagnostic = diagnostic.hint(format!("put it in quotes: \"{text}\""));
        }
        if declaration.kind == ParameterType::Boolean
            && matches!(value, Value::Text(text) if &**text == "true" || &**text == "false")
        {
            diagnostic = diagnostic.hint(format!("write it without quotes: {}", value.to_text()));
        }
        self.report(diagnostic);
    }
}

fn executor(name: &Arc<str>, node: &Node, namespace: NamespaceId) -> Value {
    let node = Node::scalar(name.clone(), ScalarStyle::Quoted, node.span().clone());
    Value::Executor { node, namespace }
}

/// Keeps a number for an enumeration as it is written: `1.10` is not `1.1`.
fn as_written(kind: &ParameterType, node: &Node, value: Value) -> Value {
    match (kind, &value, node.as_scalar()) {
        (ParameterType::Enum(_), Value::Int(_) | Value::Float(_) | Value::Bool(_), Some(scalar))
            if !scalar.text.contains("<<") =>
        {
            Value::Text(scalar.text.clone())
        }
        _ => value,
    }
}

/// Converts a value to the type of a parameter. `lenient` also accepts numbers and booleans as text.
fn fit(kind: &ParameterType, value: Value, lenient: bool) -> Result<Value, ()> {
    match (kind, value) {
        (ParameterType::Unknown, value) => Ok(value),
        (ParameterType::String | ParameterType::Enum(_) | ParameterType::EnvVarName, Value::Null) if lenient => {
            Ok(Value::Text("".into()))
        }
        // A pipeline value can be null, whatever the type of the parameter.
        (_, Value::Null) => Ok(Value::Null),
        (ParameterType::String, value @ Value::Text(_)) => Ok(value),
        (ParameterType::String, value @ Value::Executor { .. }) => Ok(Value::Text(value.to_text())),
        (ParameterType::String, value @ (Value::Int(_) | Value::Bool(_))) if lenient => {
            Ok(Value::Text(value.to_text()))
        }
        (ParameterType::Boolean, value @ Value::Bool(_)) => Ok(value),
        (ParameterType::Integer, value @ Value::Int(_)) => Ok(value),
        (ParameterType::Enum(_), value @ Value::Text(_)) if lenient => Ok(value),
        (ParameterType::Enum(values), value) => {
            let text = value.to_text();
            match values.contains(&text) {
                true => Ok(Value::Text(text)),
                false => Err(()),
            }
        }
        (ParameterType::EnvVarName, Value::Text(text)) if is_env_var_name(&text) => Ok(Value::Text(text)),
        (ParameterType::Executor | ParameterType::Steps, value) => Ok(value),
        _ => Err(()),
    }
}

/// Whether `text` is a POSIX name of a variable.
fn is_env_var_name(text: &str) -> bool {
    text.bytes()
        .enumerate()
        .all(|(at, byte)| byte == b'_' || byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit()))
        && !text.is_empty()
}

/// The arguments of a call; `None` if they are no map.
pub(crate) fn call_entries(body: Option<&Node>) -> Option<&[Entry]> {
    match body {
        None => Some(&[]),
        Some(node) if node.is_null() => Some(&[]),
        Some(node) => match node.value() {
            YamlValue::Mapping(mapping) => Some(mapping.entries()),
            _ => None,
        },
    }
}
