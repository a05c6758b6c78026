//! Answers an editor's questions about a place in a configuration: what is here, where is it defined, and what can be written
//! here.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use serde_json::Value as Json;
use towpath_yaml::{Mapping, Node, ScalarRules, Span};

use crate::compile::with_config;
use crate::compiler::Compiler;
use crate::document::Document;
use crate::element::{CONFIG, Element, Found, Kind, NamespaceId};
use crate::explain::explain;
use crate::keys::{INVOCATION, builtin_step};
use crate::options::CompileOptions;
use crate::pipeline_values::PIPELINE_VALUES;
use crate::schema::SCHEMA as SCHEMA_TEXT;

/// A description of what is under the cursor.
#[derive(Clone, Debug)]
pub struct Hover {
    /// The text that is described.
    pub span: Span,
    /// The description, in Markdown.
    pub text: String,
}

/// Something that can be written at a place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Completion {
    /// The text to insert.
    pub label: String,
    #[allow(missing_docs)]
    pub kind: CompletionKind,
    /// A description of one line, which may be empty.
    pub detail: String,
}

/// The kind of a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CompletionKind {
    /// A key, to be followed by a colon.
    Key,
    /// A value that the language defines.
    Value,
    /// The name of a job, a command or an executor.
    Name,
    /// A name inside `<< >>`.
    Reference,
}

/// The number of values that a hover shows.
const MAX_VALUES: usize = 4;
const STEP_LISTS: &[&str] = &["steps", "pre-steps", "post-steps"];

static SCHEMA: LazyLock<Json> = LazyLock::new(|| serde_json::from_str(SCHEMA_TEXT).unwrap_or_default());

/// A segment of the path from the root to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Key(Arc<str>),
    Item,
}

impl Segment {
    fn key(&self) -> Option<&str> {
        match self {
            Segment::Key(key) => Some(key),
            Segment::Item => None,
        }
    }
}

/// What is under the cursor.
enum Thing {
    /// A kind and a name.
    Element(Kind, Arc<str>),
    /// An argument of a call: kind and name of the called element, and the parameter.
    Argument(Kind, Arc<str>, Arc<str>),
    /// A parameter of the element that contains the cursor: section, element, parameter.
    Parameter(Arc<str>, Arc<str>, Arc<str>),
    PipelineParameter(Arc<str>),
    PipelineValue(Arc<str>),
    Orb(Arc<str>),
    /// A required job: workflow and job.
    Required(Arc<str>, Arc<str>),
    Alias,
    Other,
}

struct UnderCursor {
    path: Vec<Segment>,
    node: Node,
    /// The key or the scalar under the cursor.
    span: Span,
    thing: Thing,
}

/// Describes what is at a byte offset of a configuration.
pub fn hover(document: &Document, options: &CompileOptions, offset: usize) -> Option<Hover> {
    let root = document.root()?;
    let found = under_cursor(root, offset)?;
    let (described, _) = with_config(document, options, |compiler, root| describe(compiler, root, &found));
    let mut text = described.flatten().unwrap_or_default();
    let values = compiled_values(document, options, &found);
    if !values.is_empty() {
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        text.push_str(&values);
    }
    let span = found.span;
    (!text.is_empty()).then_some(Hover { span, text })
}

/// Finds the definition of what is at a byte offset of a configuration. It may be in an orb.
pub fn definition(document: &Document, options: &CompileOptions, offset: usize) -> Option<Span> {
    let root = document.root()?;
    let found = under_cursor(root, offset)?;
    let (defined, _) = with_config(document, options, |compiler, root| define(compiler, root, &found));
    defined.flatten()
}

/// Finds what can be written at a byte offset of a configuration.
pub fn completions(document: &Document, options: &CompileOptions, offset: usize) -> Vec<Completion> {
    let text = document.source().text();
    let cursor = cursor(text, offset);
    // The line that is being written is often no valid YAML yet, so leave it out.
    let line = text[..offset].rfind('\n').map_or(0, |at| at + 1);
    let end = text[offset..].find('\n').map_or(text.len(), |at| offset + at);
    let rest = format!("{}{}{}", &text[..line], " ".repeat(end - line), &text[end..]);
    let without = Document::parse(document.source().name(), rest);
    let mut found = BTreeSet::new();
    let (names, _) = with_config(&without, options, |compiler, root| {
        let mut names = Vec::new();
        named(compiler, root, &cursor, &mut names);
        names
    });
    found.extend(names.unwrap_or_default());
    if cursor.tag.is_none() {
        found.extend(of_schema(&cursor));
    }
    let fits = |completion: &Completion| completion.label.starts_with(&cursor.prefix);
    found.into_iter().filter(fits).collect()
}

fn under_cursor(root: &Node, offset: usize) -> Option<UnderCursor> {
    let mut path = Vec::new();
    let (node, span, on_key) = locate(root, offset, &mut path)?;
    let thing = classify(&path, &node, on_key, offset);
    Some(UnderCursor {
        path,
        node,
        span,
        thing,
    })
}

/// Finds the key or the scalar at an offset, and appends its path. Also returns whether it is a key.
fn locate(node: &Node, offset: usize, path: &mut Vec<Segment>) -> Option<(Node, Span, bool)> {
    let holds = |span: &Span| span.range().contains(&offset) || span.range().end == offset;
    if node.span() != node.origin() {
        return holds(node.span()).then(|| (node.clone(), node.span().clone(), false));
    }
    if let Some(mapping) = node.as_mapping() {
        for part in mapping.iter().filter(|part| part.merged_at.is_none()) {
            path.push(Segment::Key(part.key.text.clone()));
            if holds(&part.key.span) {
                return Some((part.value.clone(), part.key.span.clone(), true));
            }
            if let Some(found) = locate(&part.value, offset, path) {
                return Some(found);
            }
            path.pop();
        }
        return None;
    }
    if let Some(items) = node.as_sequence() {
        for item in items {
            path.push(Segment::Item);
            if let Some(found) = locate(item, offset, path) {
                return Some(found);
            }
            path.pop();
        }
        return None;
    }
    (holds(node.span()) && !node.span().range().is_empty()).then(|| (node.clone(), node.span().clone(), false))
}

fn classify(path: &[Segment], node: &Node, on_key: bool, offset: usize) -> Thing {
    if node.span() != node.origin() && !on_key {
        return Thing::Alias;
    }
    let key = |back: usize| {
        let at = path.len().checked_sub(back)?;
        path.get(at)?.key()
    };
    let scalar = match on_key {
        true => None,
        false => node.as_scalar().map(|scalar| scalar.text.clone()),
    };
    // Inside `<< >>` take the name under the cursor.
    if scalar.is_some()
        && let Some(name) = reference_at(node.span(), offset)
    {
        if let Some(parameter) = name.strip_prefix("pipeline.parameters.") {
            return Thing::PipelineParameter(parameter.into());
        }
        if let Some(value) = name.strip_prefix("pipeline.") {
            return Thing::PipelineValue(value.into());
        }
        if let (Some(parameter), [Segment::Key(section), Segment::Key(element), ..]) =
            (name.strip_prefix("parameters."), path)
        {
            return Thing::Parameter(section.clone(), element.clone(), parameter.into());
        }
    }
    let item = |back: usize| path.len().checked_sub(back).and_then(|at| path.get(at)) == Some(&Segment::Item);
    let in_steps = |back: usize| {
        // `when` and `unless` may have one step in place of a list.
        let alone = key(back) == Some("steps") && matches!(key(back + 1), Some("when" | "unless"));
        alone || (item(back) && key(back + 1).is_some_and(|key| STEP_LISTS.contains(&key)))
    };
    let in_jobs = |back: usize| {
        item(back)
            && key(back + 1) == Some("jobs")
            && matches!(path.first().and_then(Segment::key), Some("workflows" | "job-groups"))
    };
    let own = || key(1).map(Arc::<str>::from);
    match (&scalar, path) {
        (Some(name), _) if in_steps(1) => Thing::Element(Kind::Command, name.clone()),
        (None, _) if in_steps(2) => own().map_or(Thing::Other, |name| Thing::Element(Kind::Command, name)),
        (None, _) if in_steps(3) => match (key(2), own()) {
            (Some(command), Some(argument)) => Thing::Argument(Kind::Command, command.into(), argument),
            _ => Thing::Other,
        },
        (Some(name), _) if in_jobs(1) => Thing::Element(Kind::Job, name.clone()),
        (None, _) if in_jobs(2) => own().map_or(Thing::Other, |name| Thing::Element(Kind::Job, name)),
        (None, _) if in_jobs(3) && !own().is_some_and(|name| INVOCATION.contains(&&*name)) => match (key(2), own()) {
            (Some(job), Some(argument)) => Thing::Argument(Kind::Job, job.into(), argument),
            _ => Thing::Other,
        },
        (Some(name), [Segment::Key(_), Segment::Key(workflow), ..])
            if key(1) == Some("requires") || (item(1) && key(2) == Some("requires")) =>
        {
            Thing::Required(workflow.clone(), name.clone())
        }
        (Some(name), _) if key(1) == Some("executor") => Thing::Element(Kind::Executor, name.clone()),
        (Some(name), _) if key(1) == Some("name") && key(2) == Some("executor") => {
            Thing::Element(Kind::Executor, name.clone())
        }
        (_, [Segment::Key(section), Segment::Key(alias)]) if &**section == "orbs" => Thing::Orb(alias.clone()),
        (_, [Segment::Key(section), Segment::Key(name)]) => match &**section {
            "commands" => Thing::Element(Kind::Command, name.clone()),
            "jobs" => Thing::Element(Kind::Job, name.clone()),
            "executors" => Thing::Element(Kind::Executor, name.clone()),
            _ => Thing::Other,
        },
        _ => Thing::Other,
    }
}

/// The name under the cursor inside a `<< >>`.
fn reference_at(span: &Span, offset: usize) -> Option<String> {
    let text = span.text();
    let at = offset.checked_sub(span.range().start)?.min(text.len());
    let opened = text.get(..at)?.rfind("<<")?;
    if text.get(opened..at)?.contains(">>") {
        return None;
    }
    let of_name = |character: char| character.is_alphanumeric() || matches!(character, '.' | '_' | '-');
    let begin = text[..at].rfind(|character| !of_name(character)).map_or(0, |at| at + 1);
    let end = text[at..]
        .find(|character| !of_name(character))
        .map_or(text.len(), |end| at + end);
    text.get(begin..end)
        .filter(|name| name.contains('.'))
        .map(str::to_owned)
}

/// The namespace of a path, and the rest of the path. An inline orb has its own namespace.
fn home<'p>(compiler: &Compiler<'_>, path: &'p [Segment]) -> (NamespaceId, &'p [Segment]) {
    match path {
        [Segment::Key(section), Segment::Key(alias), rest @ ..] if &**section == "orbs" && !rest.is_empty() => {
            (compiler.orb(CONFIG, alias).unwrap_or(CONFIG), rest)
        }
        _ => (CONFIG, path),
    }
}

fn element(compiler: &mut Compiler<'_>, found: &UnderCursor, kind: Kind, name: &str) -> Option<Rc<Element>> {
    let (namespace, _) = home(compiler, &found.path);
    match compiler.find(kind, namespace, name) {
        Found::Element(element) => Some(element),
        _ => None,
    }
}

fn declared(root: &Node, section: &str, element: &str, parameter: &str) -> Option<(Span, Node)> {
    let parameters = root.get(section)?.get(element)?.get("parameters")?.as_mapping()?;
    let entry = parameters.entry(parameter)?;
    Some((entry.key.span.clone(), entry.value.clone()))
}

fn invocation(root: &Node, workflow: &str, job: &str) -> Option<Span> {
    let jobs = root.get("workflows")?.get(workflow)?.get("jobs")?.as_sequence()?;
    jobs.iter().find_map(|item| match item.as_mapping() {
        None => (&*item.as_scalar()?.text == job).then(|| item.span().clone()),
        Some(mapping) => {
            let part = mapping.entries().first()?;
            let named = part.value.get("name").and_then(Node::as_scalar);
            let own = named.map_or(&part.key.text, |name| &name.text);
            (&**own == job).then(|| part.key.span.clone())
        }
    })
}

fn define(compiler: &mut Compiler<'_>, root: &Node, found: &UnderCursor) -> Option<Span> {
    match &found.thing {
        Thing::Alias => Some(found.node.origin().clone()),
        Thing::Element(kind, name) => {
            let element = element(compiler, found, *kind, name)?;
            compiler.definition_of(&element)
        }
        Thing::Argument(kind, name, argument) => {
            let element = element(compiler, found, *kind, name)?;
            element
                .parameters
                .get(argument)
                .map(|declaration| declaration.span.clone())
        }
        Thing::Parameter(section, element, name) => declared(root, section, element, name).map(|(span, _)| span),
        Thing::PipelineParameter(name) => {
            let parameters = root.get("parameters")?.as_mapping()?;
            parameters.entry(name).map(|entry| entry.key.span.clone())
        }
        Thing::Required(workflow, name) => invocation(root, workflow, name),
        Thing::Orb(alias) => {
            let orb = compiler.orb(CONFIG, alias)?;
            Some(compiler.root(orb).span().clone())
        }
        Thing::PipelineValue(_) | Thing::Other => None,
    }
}

fn describe(compiler: &mut Compiler<'_>, root: &Node, found: &UnderCursor) -> Option<String> {
    match &found.thing {
        Thing::Element(kind, name) => match element(compiler, found, *kind, name) {
            Some(element) => Some(of_element(compiler, *kind, name, &element)),
            None if *kind == Kind::Command => of_keys(&found.path),
            None => None,
        },
        Thing::Argument(kind, name, argument) => match element(compiler, found, *kind, name) {
            Some(element) => {
                let written = element.node.get("parameters")?.get(argument)?;
                Some(of_parameter(argument, written))
            }
            None => of_keys(&found.path),
        },
        Thing::Parameter(section, element, name) => {
            declared(root, section, element, name).map(|(_, node)| of_parameter(name, &node))
        }
        Thing::PipelineParameter(name) => {
            let written = root.get("parameters")?.get(name)?;
            Some(of_parameter(name, written))
        }
        Thing::PipelineValue(name) => Some(format!("`pipeline.{name}`: a pipeline value")),
        Thing::Orb(alias) => {
            let orb = compiler.orb(CONFIG, alias)?;
            let root = compiler.root(orb).clone();
            let mut text = format!("**{}**", root.span().source().name());
            describe_into(&mut text, &root);
            for (section, word) in [("commands", "Commands"), ("jobs", "Jobs"), ("executors", "Executors")] {
                let names = keys(&root, section);
                if !names.is_empty() {
                    let _ = write!(text, "\n\n{word}: {}", names.join(", "));
                }
            }
            Some(text)
        }
        Thing::Required(..) | Thing::Alias => None,
        Thing::Other => of_keys(&found.path),
    }
}

fn keys(root: &Node, section: &str) -> Vec<String> {
    let section = root.get(section).and_then(Node::as_mapping);
    let names = section.into_iter().flatten();
    names.map(|part| format!("`{}`", part.key.text)).collect()
}

fn describe_into(text: &mut String, node: &Node) {
    if let Some(description) = node.get("description").and_then(Node::as_scalar) {
        let _ = write!(text, "\n\n{}", description.text.trim());
    }
}

fn of_element(compiler: &Compiler<'_>, kind: Kind, name: &str, element: &Element) -> String {
    let mut text = format!("**{} `{name}`**", kind.word());
    if element.namespace != CONFIG {
        let _ = write!(text, " of {}", compiler.root(element.namespace).span().source().name());
    }
    describe_into(&mut text, &element.node);
    let parameters = element.node.get("parameters").and_then(Node::as_mapping);
    for part in parameters.into_iter().flatten() {
        let _ = write!(text, "\n- {}", of_parameter(&part.key.text, &part.value));
    }
    text
}

fn of_parameter(name: &str, written: &Node) -> String {
    let word = |key: &str| {
        written
            .get(key)
            .and_then(Node::as_scalar)
            .map(|scalar| scalar.text.clone())
    };
    let mut text = format!("`{name}` ({}", word("type").as_deref().unwrap_or("?"));
    if let Some(values) = written.get("enum") {
        let _ = write!(text, ": {}", values.to_json(ScalarRules::CircleCi));
    }
    match written.get("default") {
        Some(default) => {
            let _ = write!(text, ", default `{}`)", default.to_json(ScalarRules::CircleCi));
        }
        None => text.push_str(", required)"),
    }
    if let Some(description) = word("description") {
        let _ = write!(text, ": {}", description.trim());
    }
    text
}

/// The values of a scalar in the compiled jobs, and where they come from.
fn compiled_values(document: &Document, options: &CompileOptions, found: &UnderCursor) -> String {
    if found.node.as_scalar().is_none() {
        return String::new();
    }
    let (explainer, _) = explain(document, options);
    let Some(explainer) = explainer else {
        return String::new();
    };
    let mut text = String::new();
    let (mut shown, mut more) = (0, 0);
    for job in explainer.jobs() {
        let values = explainer
            .job(job)
            .into_iter()
            .flat_map(|explanation| explanation.values);
        for value in values.filter(|value| value.span == *found.node.origin() && !value.references.is_empty()) {
            if shown == MAX_VALUES {
                more += 1;
                continue;
            }
            shown += 1;
            let _ = write!(
                text,
                "`{}` of job `{job}`:\n```\n{}\n```",
                value.path,
                value.value.trim_end()
            );
            for reference in &value.references {
                let place = reference
                    .place
                    .as_ref()
                    .map_or_else(String::new, |place| format!(" {place}"));
                let (name, value) = (&reference.name, &reference.value);
                let _ = write!(text, "\n- `{name}` = `{value}`, {}{place}", reference.origin.words());
            }
            text.push_str("\n\n");
        }
    }
    if more > 0 {
        let _ = write!(text, "and {more} more");
    }
    text.trim_end().to_owned()
}

/// The description of a key in the schema.
fn of_keys(path: &[Segment]) -> Option<String> {
    let (last, before) = path.split_last()?;
    let key = last.key()?;
    let found = schema_at(before)
        .into_iter()
        .find_map(|schema| schema["properties"].get(key));
    let described = flat(found?)
        .into_iter()
        .find_map(|schema| schema["description"].as_str());
    let description = found?["description"].as_str().or(described)?;
    Some(format!("**{key}**: {description}"))
}

/// A schema and all its alternatives.
fn flat(schema: &'static Json) -> Vec<&'static Json> {
    let mut all = vec![schema];
    if let Some(target) = schema["$ref"]
        .as_str()
        .and_then(|target| SCHEMA.pointer(target.trim_start_matches('#')))
    {
        all.extend(flat(target));
    }
    for alternative in schema["anyOf"].as_array().into_iter().flatten() {
        all.extend(flat(alternative));
    }
    all
}

/// The schemas for the value at a path.
fn schema_at(path: &[Segment]) -> Vec<&'static Json> {
    let mut here = flat(&SCHEMA);
    for segment in path {
        let next: Vec<&'static Json> = here
            .iter()
            .filter_map(|schema| match segment {
                Segment::Item => schema.get("items"),
                Segment::Key(key) => {
                    let own = schema.get("properties").and_then(|properties| properties.get(&**key));
                    own.or_else(|| schema.get("additionalProperties").filter(|rest| rest.is_object()))
                }
            })
            .collect();
        here = next.into_iter().flat_map(flat).collect();
    }
    here
}

/// The place at which the author writes.
#[derive(Debug)]
struct Cursor {
    path: Vec<Segment>,
    /// The part of the word before the cursor.
    prefix: String,
    /// The key whose value is being written on this line.
    value_of: Option<Arc<str>>,
    /// The part of the expression before the cursor, inside `<< >>`.
    tag: Option<String>,
}

/// Derives the path from the indentation of the lines above, so that it also works in invalid YAML.
fn cursor(text: &str, offset: usize) -> Cursor {
    let line = text[..offset].rfind('\n').map_or(0, |at| at + 1);
    let before = &text[line..offset];
    let tag = before
        .rfind("<<")
        .map(|at| &before[at + 2..])
        .filter(|tag| !tag.contains(">>") && !tag.trim_start().starts_with(':'))
        .map(str::to_owned);
    let (columns, rest, end) = columns(before);
    let (flow, value_of, prefix) = flow(rest);
    let prefix = match &tag {
        Some(tag) => {
            let of_name = |character: char| character.is_alphanumeric() || matches!(character, '.' | '_' | '-');
            tag.rsplit(|character| !of_name(character)).next().unwrap_or_default()
        }
        None => prefix,
    };
    // From the innermost: the dashes of this line, then lines above with less indentation.
    let mut path: Vec<Segment> = columns.iter().rev().map(|_| Segment::Item).collect();
    let mut limit = columns.first().copied().unwrap_or(end);
    let mut after_dash = !columns.is_empty();
    for above in text[..line].lines().rev() {
        let trimmed = above.trim_start();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let (dashes, rest, key_column) = self::columns(above);
        if let Some((key, _)) = rest
            .split_once(':')
            .filter(|(key, _)| !key.contains(' ') || key.starts_with(['"', '\'']))
        {
            let left = match after_dash {
                true => key_column <= limit,
                false => key_column < limit,
            };
            if left {
                path.push(Segment::Key(key.trim_matches(['"', '\'']).into()));
                limit = key_column;
                after_dash = false;
            }
        }
        for dash in dashes.iter().rev() {
            if *dash < limit {
                path.push(Segment::Item);
                limit = *dash;
                after_dash = true;
            }
        }
        if limit == 0 && !after_dash {
            break;
        }
    }
    path.reverse();
    path.extend(flow);
    Cursor {
        path,
        prefix: prefix.to_owned(),
        value_of,
        tag,
    }
}

/// Parses the flow collections that a line opens and does not close. Returns the path into them, the key whose value is being
/// written, and the part of the value before the cursor.
fn flow(line: &str) -> (Vec<Segment>, Option<Arc<str>>, &str) {
    let mut path = Vec::new();
    // The number of segments for each open bracket.
    let mut open: Vec<usize> = Vec::new();
    let mut key: Option<&str> = None;
    let mut token = 0;
    let mut quote = None;
    for (at, character) in line.char_indices() {
        let written = line[token..at].trim_start();
        match (quote, character) {
            (Some(end), _) if character == end => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') if written.is_empty() => quote = Some(character),
            (None, ':') if key.is_none() && line[at + 1..].chars().next().is_none_or(char::is_whitespace) => {
                key = Some(written.trim_end().trim_matches(['"', '\'']));
                token = at + 1;
            }
            (None, '{' | '[') if written.is_empty() => {
                let before = path.len();
                path.extend(key.take().map(|key| Segment::Key(key.into())));
                if character == '[' {
                    path.push(Segment::Item);
                }
                open.push(path.len() - before);
                token = at + 1;
            }
            (None, ',') if !open.is_empty() => {
                key = None;
                token = at + 1;
            }
            (None, '}' | ']') => {
                if let Some(segments) = open.pop() {
                    path.truncate(path.len() - segments);
                }
                key = None;
                token = at + 1;
            }
            _ => {}
        }
    }
    let prefix = line[token..].trim_start().trim_start_matches(['"', '\'']);
    (path, key.map(Arc::from), prefix)
}

/// The columns of a line's dashes, the text after them, and the column of that text.
fn columns(line: &str) -> (Vec<usize>, &str, usize) {
    let mut column = line.len() - line.trim_start_matches(' ').len();
    let mut rest = &line[column..];
    let mut dashes = Vec::new();
    while let Some(after) = rest
        .strip_prefix('-')
        .filter(|after| after.is_empty() || after.starts_with(' '))
    {
        dashes.push(column);
        let trimmed = after.trim_start_matches(' ');
        column += 1 + after.len() - trimmed.len();
        rest = trimmed;
    }
    (dashes, rest, column)
}

/// Completes keys and values that the language defines.
fn of_schema(cursor: &Cursor) -> Vec<Completion> {
    let mut found = Vec::new();
    let mut path = cursor.path.clone();
    let value = cursor.value_of.is_some();
    path.extend(cursor.value_of.clone().map(Segment::Key));
    for schema in schema_at(&path) {
        if value {
            let enumerated = schema["enum"].as_array().into_iter().flatten();
            for value in enumerated.chain(schema.get("const")) {
                let label = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                found.push(completion(label, CompletionKind::Value, ""));
            }
            if schema["type"] == "boolean" {
                found.extend(["true", "false"].map(|word| completion(word.into(), CompletionKind::Value, "")));
            }
            continue;
        }
        for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
            let described = flat(schema)
                .into_iter()
                .find_map(|schema| schema["description"].as_str());
            found.push(completion(
                key.clone(),
                CompletionKind::Key,
                described.unwrap_or_default(),
            ));
        }
    }
    found
}

fn completion(label: String, kind: CompletionKind, detail: &str) -> Completion {
    Completion {
        label,
        kind,
        detail: detail.to_owned(),
    }
}

/// Completes names that the configuration defines.
fn named(compiler: &mut Compiler<'_>, root: &Node, cursor: &Cursor, out: &mut Vec<Completion>) {
    if cursor.tag.is_some() {
        return references(root, cursor, out);
    }
    let (namespace, rest) = home(compiler, &cursor.path);
    let key = |back: usize| {
        rest.len()
            .checked_sub(back)
            .and_then(|at| rest.get(at))
            .and_then(Segment::key)
    };
    let item = |back: usize| rest.len().checked_sub(back).and_then(|at| rest.get(at)) == Some(&Segment::Item);
    let value_of = cursor.value_of.as_deref();
    let in_workflow = matches!(rest.first().and_then(Segment::key), Some("workflows" | "job-groups"));
    let mut offer = |compiler: &Compiler<'_>, kind: Kind| {
        let names = compiler.known_names(kind, namespace);
        out.extend(
            names
                .into_iter()
                .map(|name| completion(name, CompletionKind::Name, kind.word())),
        );
    };
    let mut called = None;
    let in_list = value_of.is_none() && item(1) && key(2).is_some_and(|key| STEP_LISTS.contains(&key));
    if in_list || (value_of == Some("steps") && matches!(key(1), Some("when" | "unless"))) {
        offer(compiler, Kind::Command);
    } else if value_of.is_none() && in_workflow && item(1) && key(2) == Some("jobs") {
        offer(compiler, Kind::Job);
    } else if value_of == Some("executor") || (value_of == Some("name") && key(1) == Some("executor")) {
        offer(compiler, Kind::Executor);
    } else if value_of == Some("requires") || (item(1) && key(2) == Some("requires")) {
        if let (Some("workflows"), Some(workflow)) =
            (rest.first().and_then(Segment::key), rest.get(1).and_then(Segment::key))
        {
            let jobs = root
                .get("workflows")
                .and_then(|all| all.get(workflow))
                .and_then(|own| own.get("jobs"));
            for job in jobs.and_then(Node::as_sequence).into_iter().flatten() {
                let first = job.as_mapping().and_then(|job| job.entries().first());
                let named = first.and_then(|part| part.value.get("name")).and_then(Node::as_scalar);
                let own = first.map(|part| part.key.text.clone());
                let alone = job.as_scalar().map(|scalar| scalar.text.clone());
                if let Some(name) = named.map(|name| name.text.clone()).or(own).or(alone) {
                    out.push(completion(name.to_string(), CompletionKind::Name, "job"));
                }
            }
        }
    } else if value_of.is_none() && item(2) && key(3).is_some_and(|key| STEP_LISTS.contains(&key)) {
        called = key(1)
            .filter(|name| builtin_step(name).is_none())
            .map(|name| (Kind::Command, name));
    } else if value_of.is_none() && in_workflow && item(2) && key(3) == Some("jobs") {
        called = key(1).map(|name| (Kind::Job, name));
    }
    if let Some((kind, name)) = called
        && let Found::Element(element) = compiler.find(kind, namespace, name)
    {
        let written = element.node.get("parameters").and_then(Node::as_mapping).cloned();
        for part in &written.unwrap_or_else(Mapping::default) {
            let detail = of_parameter(&part.key.text, &part.value);
            out.push(completion(part.key.text.to_string(), CompletionKind::Key, &detail));
        }
    }
}

/// Completes names inside `<< >>`.
fn references(root: &Node, cursor: &Cursor, out: &mut Vec<Completion>) {
    let mut offer = |prefix: &str, parameters: Option<&Node>| {
        for part in parameters.and_then(Node::as_mapping).into_iter().flatten() {
            let label = format!("{prefix}{}", part.key.text);
            let detail = of_parameter(&part.key.text, &part.value);
            out.push(completion(label, CompletionKind::Reference, &detail));
        }
    };
    if let [Segment::Key(section), Segment::Key(element), ..] = cursor.path.as_slice() {
        let element = root.get(section).and_then(|section| section.get(element));
        offer("parameters.", element.and_then(|element| element.get("parameters")));
    }
    offer("pipeline.parameters.", root.get("parameters"));
    let values = PIPELINE_VALUES.iter().map(|name| format!("pipeline.{name}"));
    out.extend(values.map(|name| completion(name, CompletionKind::Reference, "a pipeline value")));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TEXT: &str = "version: 2.1
commands:
  greet:
    description: Says hello.
    parameters:
      to: {type: string, default: you, description: Whom.}
    steps:
      - run: echo << parameters.to >>
executors:
  small: {docker: [{image: 'a:1'}]}
jobs:
  build:
    executor: small
    steps:
      - greet: {to: me}
workflows:
  w:
    jobs:
      - build
      - hold: {type: approval, requires: [build]}
";

    fn at(mark: &str) -> usize {
        TEXT.find(mark).unwrap() + 1
    }

    fn defined(mark: &str) -> Option<String> {
        let document = Document::parse("c.yml", TEXT);
        definition(&document, &CompileOptions::default(), at(mark)).map(|span| span.place().to_string())
    }

    #[test]
    fn definition_finds_the_definition_of_a_name() {
        assert_eq!(defined("greet: {to").as_deref(), Some("c.yml:3:3"));
        assert_eq!(defined("to: me").as_deref(), Some("c.yml:6:7"));
        assert_eq!(defined("parameters.to").as_deref(), Some("c.yml:6:7"));
        assert_eq!(defined("small\n").as_deref(), Some("c.yml:10:3"));
        assert_eq!(defined("build\n      - hold").as_deref(), Some("c.yml:12:3"));
        assert_eq!(defined("build]").as_deref(), Some("c.yml:19:9"));
        assert_eq!(defined("version"), None);
    }

    #[test]
    fn one_step_in_place_of_a_list_is_a_step() {
        let with = |step: &str| {
            TEXT.replace(
                "- greet: {to: me}",
                &format!("- when: {{condition: true, steps: {step}}}"),
            )
        };
        for step in ["greet", "{greet: {to: me}}"] {
            let text = with(step);
            let offset = text.rfind("greet").unwrap() + 1;
            let found = definition(&Document::parse("c.yml", text), &CompileOptions::default(), offset).unwrap();
            assert_eq!(found.place().to_string(), "c.yml:3:3", "{step}");
        }
        let text = TEXT.replace(
            "- greet: {to: me}",
            "- when:\n          condition: true\n          steps: gr",
        );
        let offset = text.rfind("gr").unwrap() + 2;
        let offered = completions(&Document::parse("c.yml", text), &CompileOptions::default(), offset);
        assert_eq!(offered[0].label, "greet");
    }

    #[test]
    fn hover_describes_what_is_under_the_cursor() {
        let document = Document::parse("c.yml", TEXT);
        let says = |mark: &str| {
            hover(&document, &CompileOptions::default(), at(mark))
                .map(|hover| hover.text)
                .unwrap()
        };
        assert!(
            says("greet: {to")
                .starts_with("**command `greet`**\n\nSays hello.\n- `to` (string, default `\"you\"`): Whom.")
        );
        assert!(says("run: echo").contains("Runs a command"));
        let value = says("echo << parameters");
        assert!(value.contains("`steps[0].run.command` of job `build`"), "{value}");
        assert!(value.contains("echo me\n"), "{value}");
        assert!(
            value.contains("- `parameters.to` = `me`, given at c.yml:15:21"),
            "{value}"
        );
        assert!(says("parameters:\n").contains("Parameters, each with a type"));
    }

    #[test]
    fn completions_fit_the_place_of_the_cursor() {
        let offered = |text: &str| {
            let offset = text.find('|').unwrap();
            let document = Document::parse("c.yml", text.replacen('|', "", 1));
            let found = completions(&document, &CompileOptions::default(), offset);
            found.into_iter().map(|completion| completion.label).collect::<Vec<_>>()
        };
        let with = |from: &str, to: &str| {
            assert!(TEXT.contains(from), "{from}");
            offered(&TEXT.replacen(from, to, 1))
        };
        assert_eq!(offered("version: 2.1\nwork|"), ["workflows"]);
        assert_eq!(with("- greet: {to: me}", "- gr|"), ["greet"]);
        assert_eq!(with("- greet: {to: me}", "- greet:\n          t|"), ["to"]);
        assert_eq!(
            with("- greet: {to: me}", "- store_|"),
            ["store_artifacts", "store_test_results"]
        );
        assert_eq!(
            with("- greet: {to: me}", "- run:\n          no_|"),
            ["no_output_timeout"]
        );
        assert_eq!(
            with("- greet: {to: me}", "- run:\n          when: on|"),
            ["on_fail", "on_success"]
        );
        assert_eq!(with("executor: small", "executor: s|"), ["small"]);
        assert_eq!(with("executor: small", "resource_c|"), ["resource_class"]);
        assert_eq!(with("      - build\n", "      - bu|\n"), ["build"]);
        assert_eq!(with("requires: [build]}", "requires: [b|"), ["build"]);
        assert_eq!(with("<< parameters.to >>", "<< parameters.|"), ["parameters.to"]);
        assert_eq!(with("<< parameters.to >>", "<< pipeline.numb|"), ["pipeline.number"]);
    }
}
