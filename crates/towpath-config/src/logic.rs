//! Conditions: logic statements and expressions.
//!
//! Source: <https://circleci.com/docs/reference/configuration-reference/#logic-statements>

use towpath_yaml::{Diagnostic, Node};

use crate::compiler::Compiler;
use crate::expression::{self, ErrorKind};
use crate::pattern::full_match;
use crate::pipeline_values::is_pipeline_value;
use crate::scope::Scope;
use crate::substitution::span_within;
use crate::value::Value;
use towpath_types::nearest;

const MAX_DEPTH: usize = 100;

/// Whether a text is an expression that refers to values only.
fn refers_to_values(text: &str) -> bool {
    expression::parse(text).is_ok_and(|parsed| {
        let mut names = Vec::new();
        parsed.names(&mut names);
        let scopes = ["pipeline.", "parameters.", "matrix."];
        names
            .iter()
            .all(|(name, _)| scopes.iter().any(|scope| name.starts_with(scope)))
    })
}

impl Compiler<'_> {
    /// Whether a step's `condition` holds. It is a logic statement, or an expression as text. Any other text is always true.
    ///
    /// Source: <https://github.com/CircleCI-Public/circleci-yaml-language-server/blob/main/internal/parser/validate/conditions.go>
    pub(crate) fn condition(&mut self, node: &Node, scope: &Scope<'_>) -> bool {
        self.warn_of_comparison(node);
        if let Some(scalar) = node.as_scalar()
            && !scalar.text.contains("<<")
            && matches!(Value::of(node), Value::Text(text) if !text.is_empty())
        {
            if refers_to_values(&scalar.text) {
                let tag = Node::scalar(format!("<< {} >>", scalar.text), scalar.style, node.span().clone());
                return self.value(&tag, scope).truthy();
            }
            let message = format!("Condition `{}` is treated as always true.", scalar.text.trim());
            self.report(
                Diagnostic::warning("config::constant-condition", message)
                    .at(node.span(), "")
                    .hint("use a boolean (`true`/`false`), an expression, or a logic statement such as `equal:`"),
            );
            return true;
        }
        self.statement(node, scope, 0).truthy()
    }

    /// Warns about a comparison outside of `<< >>`. It makes the condition a text, which is true.
    fn warn_of_comparison(&mut self, node: &Node) {
        let Some(scalar) = node.as_scalar().filter(|scalar| scalar.text.contains("<<")) else {
            return;
        };
        let mut rest: &str = &scalar.text;
        let mut outside = String::new();
        while let Some((before, tag)) = rest.split_once("<<") {
            outside.push_str(before);
            rest = tag.split_once(">>").map_or("", |(_, after)| after);
        }
        outside.push_str(rest);
        if ["==", "!=", "<", ">"].iter().any(|operator| outside.contains(operator)) {
            let message = "A << >> template makes this condition a logic statement that is always true, so the comparison is \
                not evaluated. Use a logic statement such as `equal:` to compare a parameter value.";
            self.report(Diagnostic::warning("config::constant-condition", message).at(node.span(), ""));
        }
    }

    /// Whether a workflow's `when` holds. It is a logic statement, or an expression as text.
    pub(crate) fn workflow_condition(&mut self, node: &Node, scope: &Scope<'_>) -> bool {
        self.warn_of_comparison(node);
        match node.as_scalar() {
            Some(scalar) if !scalar.text.contains("<<") && matches!(Value::of(node), Value::Text(_)) => {
                self.expression(node, "condition").truthy()
            }
            _ => self.statement(node, scope, 0).truthy(),
        }
    }

    /// Evaluates an expression that is written as text. It can refer to pipeline values and pipeline parameters only.
    pub(crate) fn expression(&mut self, node: &Node, what: &str) -> Value {
        let Some(scalar) = node.as_scalar() else {
            return Value::Null;
        };
        let text = scalar.text.clone();
        let parsed = match expression::parse(&text) {
            Ok(parsed) => parsed,
            Err(error) => {
                let span = match error.lexeme.is_empty() {
                    true => node.span().clone(),
                    false => span_within(node, scalar, &(error.at..error.at + error.lexeme.len())),
                };
                let message = format!("Invalid {what} expression: {}", error.message());
                self.report(Diagnostic::error("config::expression", message).at(&span, ""));
                return Value::Null;
            }
        };
        let mut names = Vec::new();
        parsed.names(&mut names);
        let mut unknown = false;
        for (name, at) in names {
            let message = match name.strip_prefix("pipeline.parameters.") {
                Some(parameter) if !self.pipeline_parameters.contains_key(parameter) => {
                    format!("Pipeline parameter {parameter} is not defined")
                }
                None if !name.starts_with("pipeline.") => {
                    format!("Invalid {what} expression: {name} is not a pipeline value or parameter")
                }
                None if !is_pipeline_value(&name["pipeline.".len()..]) => {
                    let message = format!("Unknown pipeline value {name}");
                    let span = span_within(node, scalar, &(at..at + name.len()));
                    self.report(Diagnostic::warning("config::unknown-pipeline-value", message).at(&span, ""));
                    continue;
                }
                _ => continue,
            };
            unknown = true;
            let span = span_within(node, scalar, &(at..at + name.len()));
            self.report(Diagnostic::error("config::expression", message).at(&span, ""));
        }
        if unknown {
            return Value::Null;
        }
        let parameters = &self.pipeline_parameters;
        let values = &self.options.values;
        let evaluated = parsed.evaluate(&mut |name| match name.strip_prefix("pipeline.parameters.") {
            Some(parameter) => parameters.get(parameter).cloned(),
            None => {
                let value = name.strip_prefix("pipeline.").and_then(|name| values.get(name));
                Some(value.and_then(Value::of_json).unwrap_or(Value::Null))
            }
        });
        match evaluated {
            Ok(value) => value,
            Err(error) => {
                debug_assert_ne!(error.kind, ErrorKind::UnknownVariable);
                let message = format!("Invalid {what} expression: {}", error.message());
                let span = span_within(node, scalar, &(error.at..error.at + error.lexeme.len()));
                self.report(Diagnostic::error("config::expression", message).at(&span, ""));
                Value::Null
            }
        }
    }

    fn statement(&mut self, node: &Node, scope: &Scope<'_>, depth: usize) -> Value {
        let Some(mapping) = node.as_mapping() else {
            if node.as_sequence().is_some() {
                let message = "a condition must be a value or a logic statement, not a list";
                self.report(
                    Diagnostic::error("config::condition", message)
                        .at(node.span(), "")
                        .hint("use `and:` or `or:` with this list"),
                );
                return Value::Null;
            }
            return self.value(node, scope);
        };
        if depth >= MAX_DEPTH {
            let message = format!("logic statements are nested more than {MAX_DEPTH} levels deep");
            self.report(Diagnostic::error("config::condition", message).at(node.span(), ""));
            return Value::Null;
        }
        if mapping.is_empty() {
            return Value::Null;
        }
        if mapping.len() > 1 {
            let message = "a logic statement must have exactly one key";
            self.report(
                Diagnostic::error("config::condition", message)
                    .at(&mapping.entries()[1].key.span, "the second key")
                    .hint("combine several with `and:` or `or:` and a list"),
            );
        }
        let entry = &mapping.entries()[0];
        let body = &entry.value;
        match &*entry.key.text {
            key @ ("and" | "or") => {
                let Some(items) = body.as_sequence().filter(|items| !items.is_empty()) else {
                    let message = format!("`{key}` needs a list of one or more conditions");
                    self.report(Diagnostic::error("config::condition", message).at(body.span(), ""));
                    return Value::Null;
                };
                // Evaluate all of them to report all errors.
                let values: Vec<bool> = items
                    .iter()
                    .map(|item| self.statement(item, scope, depth + 1).truthy())
                    .collect();
                Value::Bool(if key == "and" {
                    values.iter().all(|value| *value)
                } else {
                    values.contains(&true)
                })
            }
            "not" => Value::Bool(!self.statement(body, scope, depth + 1).truthy()),
            "equal" => {
                let Some(items) = body.as_sequence() else {
                    let message = format!("`equal` needs a list of values, not {}", body.kind());
                    self.report(Diagnostic::error("config::condition", message).at(body.span(), ""));
                    return Value::Null;
                };
                let values: Vec<Value> = items.iter().map(|item| self.value(item, scope)).collect();
                // `equal` without values is false.
                Value::Bool(!values.is_empty() && values.windows(2).all(|pair| equal(&pair[0], &pair[1])))
            }
            "matches" => Value::Bool(self.matches(body, scope)),
            key => {
                let message = format!("`{key}` is not a logic statement");
                let mut diagnostic = Diagnostic::error("config::condition", message).at(&entry.key.span, "");
                diagnostic = match nearest(key, ["and", "or", "not", "equal", "matches"]) {
                    Some(near) => diagnostic.hint(format!("did you mean `{near}`?")),
                    None => diagnostic.hint("the logic statements are `and`, `or`, `not`, `equal` and `matches`"),
                };
                self.report(diagnostic);
                Value::Null
            }
        }
    }

    fn matches(&mut self, node: &Node, scope: &Scope<'_>) -> bool {
        let (Some(pattern), Some(value)) = (node.get("pattern"), node.get("value")) else {
            let message = "`matches` needs a `pattern` and a `value`";
            self.report(Diagnostic::error("config::condition", message).at(node.span(), ""));
            return false;
        };
        for entry in node.as_mapping().into_iter().flatten() {
            if !matches!(&*entry.key.text, "pattern" | "value") {
                let message = format!("`matches` has no key `{}`", entry.key.text);
                self.report(Diagnostic::error("config::condition", message).at(&entry.key.span, ""));
            }
        }
        let text = self.text(pattern, scope).unwrap_or_default();
        let text = text
            .strip_prefix('/')
            .and_then(|text| text.strip_suffix('/'))
            .unwrap_or(&text);
        let regex = self.regex(text, pattern);
        let value_node = value;
        let value = self.value(value_node, scope);
        let subject = match &value {
            Value::Text(text) => text.clone(),
            Value::Null => "".into(),
            _ if value_node
                .as_scalar()
                .is_some_and(|scalar| self.has_templates && scalar.text.contains("<<")) =>
            {
                let message =
                    "matches: value must produce a string, but the referenced parameter is not of type string"
                        .to_owned();
                self.report(Diagnostic::error("config::condition", message).at(value_node.span(), ""));
                return false;
            }
            value => value.to_text(),
        };
        regex.is_some_and(|regex| regex.is_match(&subject))
    }

    /// Compiles a pattern, and reports an invalid one.
    pub(crate) fn regex(&mut self, pattern: &str, node: &Node) -> Option<regex::Regex> {
        let regex = full_match(pattern);
        if regex.is_none() {
            let mut diagnostic = Diagnostic::error("config::regex", format!("Invalid regular expression: {pattern}"))
                .at(node.span(), "");
            if pattern.contains("(?=") || pattern.contains("(?!") || pattern.contains("(?<") {
                diagnostic =
                    diagnostic.hint("patterns have RE2 syntax, without lookahead, lookbehind and backreferences");
            }
            self.report(diagnostic);
        }
        regex
    }
}

/// Whether `equal:` takes two values for equal. Null equals empty text, which a pipeline value without a value is.
fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Null, Value::Text(text)) | (Value::Text(text), Value::Null) => text.is_empty(),
        (left, right) => left == right,
    }
}
