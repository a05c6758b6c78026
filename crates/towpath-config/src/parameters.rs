//! Parameters: what elements declare, what calls give, and whether that fits.
//!
//! Source: <https://circleci.com/docs/guides/orchestrate/reusing-config/#using-the-parameters-declaration>

use std::sync::Arc;

use foldhash::fast::RandomState;
use indexmap::IndexMap;
use towpath_yaml::{Diagnostic, Entry, Node, Span, Value as YamlValue};

use crate::compiler::Compiler;
use crate::jobs::Others;
use crate::namespace::{CONFIG, Element, Kind, NamespaceId};
use crate::scope::{Arguments, Scope};
use crate::trace::FrameId;
use crate::value::Value;
use crate::workflows::INVOCATION_KEYS;

/// The parameters of an element.
pub(crate) type Declarations = IndexMap<Arc<str>, Declaration, RandomState>;

/// A declared parameter.
pub(crate) struct Declaration {
    pub(crate) kind: ParameterType,
    pub(crate) default: Option<Node>,
    /// Where it is declared.
    pub(crate) span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ParameterType {
    String,
    Boolean,
    Integer,
    Enum(Vec<Arc<str>>),
    Executor,
    Steps,
    EnvVarName,
    /// The declaration is wrong and has been reported; anything goes.
    Unknown,
}

impl ParameterType {
    fn word(&self) -> &'static str {
        match self {
            ParameterType::String => "string",
            ParameterType::Boolean => "boolean",
            ParameterType::Integer => "integer",
            ParameterType::Enum(_) => "enum",
            ParameterType::Executor => "executor",
            ParameterType::Steps => "steps",
            ParameterType::EnvVarName => "env_var_name",
            ParameterType::Unknown => "unknown",
        }
    }
}

/// The keys of an invocation that the original lets be names of parameters.
const FREE: [&str; 2] = ["matrix", "serial-group"];

/// The names that a job's parameter cannot have: they mean something on an invocation.
fn reserved() -> impl Iterator<Item = &'static str> {
    INVOCATION_KEYS.iter().copied().filter(|key| !FREE.contains(key))
}

/// Who declares parameters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Declarer {
    Element(Kind),
    Pipeline,
}

impl Compiler<'_> {
    /// Reads the parameters that an element declares.
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
                "`parameters` must be a map of names to declarations, and this is {}",
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
        self.check_entries(mapping, &known, "the declaration of a parameter", Others::Refused);
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
                            Declarer::Pipeline => "there are string, boolean, integer and enum",
                            Declarer::Element(Kind::Executor) => {
                                "there are string, boolean, integer, enum and env_var_name"
                            }
                            Declarer::Element(_) => {
                                "there are string, boolean, integer, enum, executor, steps and env_var_name"
                            }
                        }),
                );
                ParameterType::Unknown
            }
        };
        // Nothing is no default.
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

    /// Reads the pipeline's parameters and gives them the values of the trigger or their defaults.
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
                Some(node) => diagnostic.at(node.span(), "these are the parameters of this pipeline"),
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
                    // The pipeline's own values are known by now; its parameters are not.
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
                    .hint("give each a `default`, or a value with the trigger");
            }
            self.report(diagnostic);
        }
    }

    /// The values of an element's parameters in a call: what was given, checked, and the defaults.
    ///
    /// `given` is in the scope of the caller; defaults are in the element's own, whose frame is the other half of the answer.
    pub(crate) fn bind(
        &mut self,
        element: &Element,
        given: &[Entry],
        caller: &Scope<'_>,
        call: &Span,
    ) -> (Arguments, FrameId) {
        let frame = self.enter(element, given, caller, call);
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
                diagnostic = diagnostic.also(&other.key.span, "nor this one");
            }
            let known = || {
                let invocation = INVOCATION_KEYS.iter().copied().filter(|_| element.kind == Kind::Job);
                element.parameters.keys().map(|name| &**name).chain(invocation)
            };
            let meant: Vec<String> = unexpected
                .iter()
                .filter_map(|entry| Some(format!("`{}`", crate::suggest::nearest(&entry.key.text, known())?)))
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
                // Pipeline values are text to whoever wants text: `<< pipeline.number >>`.
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
            // As it is written: `3.10` is not `3.1`.
            let written = span.text();
            let is_literal = !written.is_empty() && !written.starts_with('*') && !written.contains("<<");
            let text = if is_literal { written.into() } else { value.to_text() };
            diagnostic = diagnostic.hint(format!("put it in quotes: \"{text}\""));
        }
        if declaration.kind == ParameterType::Boolean
            && matches!(value, Value::Text(text) if &**text == "true" || &**text == "false")
        {
            diagnostic = diagnostic.hint(format!("without quotes: {}", value.to_text()));
        }
        self.report(diagnostic);
    }
}

fn executor(name: &Arc<str>, node: &Node, namespace: NamespaceId) -> Value {
    let node = Node::scalar(name.clone(), towpath_yaml::ScalarStyle::Quoted, node.span().clone());
    Value::Executor { node, namespace }
}

/// A number that is to be one of an enumeration's texts, as it is written: `1.10` is not `1.1`.
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

/// The value as a parameter's type takes it.
fn fit(kind: &ParameterType, value: Value, lenient: bool) -> Result<Value, ()> {
    match (kind, value) {
        // A pipeline value that this pipeline does not have is empty, whatever is expected.
        (ParameterType::Unknown, value) => Ok(value),
        (ParameterType::String | ParameterType::Enum(_) | ParameterType::EnvVarName, Value::Null) if lenient => {
            Ok(Value::Text("".into()))
        }
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

/// A POSIX name.
pub(crate) fn is_env_var_name(text: &str) -> bool {
    text.bytes()
        .enumerate()
        .all(|(at, byte)| byte == b'_' || byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit()))
        && !text.is_empty()
}

/// The entries of a call's arguments: a map, or nothing.
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
