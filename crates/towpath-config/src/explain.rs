//! Explains where each value of a compiled job comes from: the line that it is written in, the calls that it came through, and
//! the parameters in it.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use serde::Serialize;
use towpath_yaml::{Diagnostic, Node, Place, Span, Value as YamlValue};

use crate::compile::traced;
use crate::document::Document;
use crate::expansion::Expanded;
use crate::options::CompileOptions;
use crate::trace::{FrameId, OUTSIDE, Trace};
use crate::workflows::model::Graph;
use crate::workflows::naming::definitions;

/// Where the values of a job come from.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The final name of the job.
    pub job: String,
    /// Where the job is defined.
    pub place: Place,
    /// Where workflows list the job.
    pub invoked: Vec<Place>,
    /// The values in the order of the printed job.
    pub values: Vec<ExplainedValue>,
}

/// A value of a job, and where it comes from.
#[derive(Clone, Debug, Serialize)]
pub struct ExplainedValue {
    /// The path of the value in the job: `steps[2].run.command`, `environment.PORT`.
    pub path: String,
    /// The value with all parameters replaced.
    pub value: String,
    /// Where the value is written.
    pub place: Place,
    /// The alias or the merge that inserts the value, if there is one.
    pub aliased: Option<Place>,
    /// The calls that the value came through, innermost first.
    pub calls: Vec<CallSite>,
    /// The names in the value's templates, in order.
    pub references: Vec<ReferenceOrigin>,
    /// The value as written.
    #[serde(skip)]
    pub span: Span,
}

/// A call of a command, an executor or a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CallSite {
    /// `command`, `executor` or `job`.
    pub kind: &'static str,
    /// The name of the definition.
    pub name: String,
    /// Where it is called.
    pub place: Place,
}

/// A name in a `<< >>`, and where its value comes from.
#[derive(Clone, Debug, Serialize)]
pub struct ReferenceOrigin {
    /// The name as written: `parameters.version`.
    pub name: String,
    /// The value that replaced the name.
    pub value: String,
    #[allow(missing_docs)]
    pub origin: Origin,
    /// Where the value is written, unless it comes from outside of the configuration.
    pub place: Option<Place>,
    /// The names in the templates of that value.
    pub references: Vec<ReferenceOrigin>,
}

/// Where the value of a name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// An argument of the call.
    Given,
    /// The default of the declaration.
    Default,
    /// A value of the matrix.
    Matrix,
    /// A pipeline parameter that the trigger set.
    Trigger,
    /// A pipeline value.
    Pipeline,
}

impl Origin {
    /// The origin as a part of a sentence. A place may follow.
    pub fn words(self) -> &'static str {
        match self {
            Origin::Given => "given at",
            Origin::Default => "the default at",
            Origin::Matrix => "from the matrix at",
            Origin::Trigger => "set by the trigger",
            Origin::Pipeline => "a pipeline value",
        }
    }
}

/// A compilation that recorded where every value comes from.
pub struct Explainer {
    definitions: Vec<(Arc<str>, Rc<Expanded>)>,
    graphs: Vec<Graph>,
    trace: Trace,
    root: Node,
    triggered: Vec<String>,
}

const MAX_DEPTH: usize = 20;

/// Compiles a configuration to explain it. A configuration with errors can be explained, unless they concern the file as a
/// whole.
pub fn explain(document: &Document, options: &CompileOptions) -> (Option<Explainer>, Vec<Diagnostic>) {
    traced(document, options, |compiler, root| {
        let mut graphs = compiler.workflows(root);
        let definitions = definitions(&mut graphs);
        let trace = compiler.trace.take()?;
        Some(Explainer {
            definitions,
            graphs,
            trace,
            root: root.clone(),
            triggered: compiler.options.parameters.keys().cloned().collect(),
        })
    })
}

impl Explainer {
    /// The names of the jobs in the order of their first use.
    pub fn jobs(&self) -> impl Iterator<Item = &str> {
        self.definitions.iter().map(|(name, _)| &**name)
    }

    /// Explains the job with this final name.
    pub fn job(&self, name: &str) -> Option<Explanation> {
        let (name, expanded) = self.definitions.iter().find(|(own, _)| **own == *name)?;
        let mut values = Vec::new();
        for part in expanded.node.as_mapping().into_iter().flatten() {
            let key = &*part.key.text;
            let frame = match &expanded.executor {
                Some((frame, keys)) if keys.contains(&part.key.text) => *frame,
                _ => expanded.frame,
            };
            match (key, part.value.as_sequence()) {
                ("steps", Some(steps)) => self.steps("steps", steps, frame, &mut values),
                ("environment", Some(items)) => {
                    for item in items {
                        let frame = self.trace.written(item).unwrap_or(frame);
                        self.leaves("environment", item, frame, &mut values);
                    }
                }
                _ => self.leaves(key, &part.value, frame, &mut values),
            }
        }
        let named = |graph: &Graph| -> Vec<Place> {
            let invocations = graph.invocations.iter();
            let named = invocations.filter(|invocation| *invocation.name == **name);
            named.map(|invocation| invocation.span.place()).collect()
        };
        Some(Explanation {
            job: name.to_string(),
            place: expanded.span.place(),
            invoked: self.graphs.iter().flat_map(named).collect(),
            values,
        })
    }

    fn steps(&self, path: &str, steps: &[Node], frame: FrameId, out: &mut Vec<ExplainedValue>) {
        for (at, step) in steps.iter().enumerate() {
            let frame = self.trace.written(step).unwrap_or(frame);
            let path = format!("{path}[{at}]");
            let nested = step.get("with_tool_cache").and_then(|body| body.get("steps"));
            match nested.and_then(Node::as_sequence) {
                Some(nested) => self.steps(&format!("{path}.with_tool_cache.steps"), nested, frame, out),
                None => self.leaves(&path, step, frame, out),
            }
        }
    }

    /// Every scalar below `node`.
    fn leaves(&self, path: &str, node: &Node, frame: FrameId, out: &mut Vec<ExplainedValue>) {
        match node.value() {
            YamlValue::Mapping(mapping) => {
                for part in mapping {
                    self.leaves(&format!("{path}.{}", part.key.text), &part.value, frame, out);
                }
            }
            YamlValue::Sequence(items) => {
                for (at, item) in items.iter().enumerate() {
                    self.leaves(&format!("{path}[{at}]"), item, frame, out);
                }
            }
            YamlValue::Scalar(scalar) => {
                let (written, frame) = self.trace.template_of(node).unwrap_or((node, frame));
                out.push(ExplainedValue {
                    path: path.to_owned(),
                    value: scalar.text.to_string(),
                    place: written.origin().place(),
                    aliased: (written.span() != written.origin()).then(|| written.span().place()),
                    calls: self.calls(frame),
                    references: self.references(written, frame, 0),
                    span: written.origin().clone(),
                });
            }
        }
    }

    fn calls(&self, mut frame: FrameId) -> Vec<CallSite> {
        let mut calls = Vec::new();
        while frame != OUTSIDE {
            let call = self.trace.frame(frame);
            if let Some(kind) = call.kind {
                calls.push(CallSite {
                    kind: kind.word(),
                    name: call.name.to_string(),
                    place: call.call.place(),
                });
            }
            frame = call.parent;
        }
        calls
    }

    fn references(&self, written: &Node, frame: FrameId, depth: usize) -> Vec<ReferenceOrigin> {
        if depth > MAX_DEPTH {
            return Vec::new();
        }
        let references = self.trace.references(written, frame).iter();
        references
            .map(|(name, value)| self.reference(name, value, frame, depth))
            .collect()
    }

    fn reference(&self, name: &str, value: &str, frame: FrameId, depth: usize) -> ReferenceOrigin {
        let mut reference = ReferenceOrigin {
            name: name.to_owned(),
            value: value.to_owned(),
            origin: Origin::Pipeline,
            place: None,
            references: Vec::new(),
        };
        if let Some(parameter) = name.strip_prefix("pipeline.parameters.") {
            let declared = self.root.get("parameters").and_then(|declared| declared.get(parameter));
            reference.origin = Origin::Trigger;
            if !self.triggered.iter().any(|given| given == parameter)
                && let Some(default) = declared.and_then(|declared| declared.get("default"))
            {
                reference.origin = Origin::Default;
                reference.place = Some(default.span().place());
            }
            return reference;
        }
        let own = name
            .strip_prefix("parameters.")
            .or_else(|| name.strip_prefix("matrix."));
        let Some(given) = own.and_then(|own| self.trace.frame(frame).arguments.get(own)) else {
            return reference;
        };
        let of_matrix = |frame: FrameId| frame != OUTSIDE && self.trace.frame(frame).kind.is_none();
        reference.origin = match given.by_default {
            true => Origin::Default,
            // A member of a matrix passes its values to the job.
            false if of_matrix(frame) || (of_matrix(given.frame) && self.holds(given.frame, &given.node)) => {
                Origin::Matrix
            }
            false => Origin::Given,
        };
        let (written, frame) = self
            .trace
            .template_of(&given.node)
            .unwrap_or((&given.node, given.frame));
        reference.place = Some(written.span().place());
        reference.references = self.references(written, frame, depth + 1);
        reference
    }

    fn holds(&self, frame: FrameId, node: &Node) -> bool {
        let mut arguments = self.trace.frame(frame).arguments.values();
        arguments.any(|argument| argument.node.same(node))
    }
}

/// The first line of a text, and the number of lines if there are more.
fn shortened(text: &str) -> String {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    match lines.count() {
        0 if text.is_empty() => "\"\"".to_owned(),
        0 => first.to_owned(),
        more => format!("{first} … ({} lines)", more + 1),
    }
}

impl fmt::Display for Explanation {
    /// Formats the explanation for a terminal, with two or more lines per value.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}: defined at {}", self.job, self.place)?;
        for place in &self.invoked {
            writeln!(formatter, "  run by a workflow at {place}")?;
        }
        for value in &self.values {
            writeln!(formatter, "\n{} = {}", value.path, shortened(&value.value))?;
            write!(formatter, "  written at {}", value.place)?;
            if let Some(place) = &value.aliased {
                write!(formatter, ", by the alias at {place}")?;
            }
            writeln!(formatter)?;
            // Every value comes through the call of the job, which is printed above.
            for call in value.calls.iter().filter(|call| call.kind != "job") {
                writeln!(
                    formatter,
                    "  in {} `{}`, called at {}",
                    call.kind, call.name, call.place
                )?;
            }
            for reference in &value.references {
                write_reference(formatter, reference, 1)?;
            }
        }
        Ok(())
    }
}

fn write_reference(formatter: &mut fmt::Formatter<'_>, reference: &ReferenceOrigin, depth: usize) -> fmt::Result {
    let indent = "  ".repeat(depth);
    let (name, value) = (&reference.name, shortened(&reference.value));
    write!(
        formatter,
        "{indent}<< {name} >> = {value}, {}",
        reference.origin.words()
    )?;
    match &reference.place {
        Some(place) => writeln!(formatter, " {place}")?,
        None => writeln!(formatter)?,
    }
    for inner in &reference.references {
        write_reference(formatter, inner, depth + 1)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_traced_through_matrix_job_command_and_default() {
        let text = "version: 2.1
executors:
  small:
    parameters: {tag: {type: string, default: '1'}}
    docker: [{image: app:<< parameters.tag >>}]
    environment: {A: of executor}
commands:
  greet:
    parameters:
      who: {type: string}
      greeting: {type: string, default: hello}
    steps:
      - run: echo << parameters.greeting >> << parameters.who >>
jobs:
  test:
    parameters: {version: {type: string}}
    executor: {name: small, tag: v<< parameters.version >>}
    environment: {B: of job}
    steps:
      - checkout
      - greet: {who: version << parameters.version >>}
      - greet: {who: again}
workflows:
  w:
    jobs:
      - test:
          matrix: {parameters: {version: ['20', '22']}}
";
        let document = Document::parse("config.yml", text);
        let (explainer, diagnostics) = explain(&document, &CompileOptions::default());
        assert!(diagnostics.is_empty(), "{diagnostics:?}");
        let explainer = explainer.unwrap();
        assert_eq!(explainer.jobs().collect::<Vec<_>>(), ["test-20", "test-22"]);
        assert_eq!(
            explainer.job("test-22").unwrap().to_string(),
            "test-22: defined at config.yml:16:5
  run by a workflow at config.yml:26:9

docker[0].image = app:v22
  written at config.yml:5:22
  in executor `small`, called at config.yml:17:15
  << parameters.tag >> = v22, given at config.yml:17:34
    << parameters.version >> = 22, from the matrix at config.yml:27:49

environment.A = of executor
  written at config.yml:6:22
  in executor `small`, called at config.yml:17:15

environment.B = of job
  written at config.yml:18:22

steps[0] = checkout
  written at config.yml:20:9

steps[1].run.command = echo hello version 22
  written at config.yml:13:14
  in command `greet`, called at config.yml:21:9
  << parameters.greeting >> = hello, the default at config.yml:11:41
  << parameters.who >> = version 22, given at config.yml:21:22
    << parameters.version >> = 22, from the matrix at config.yml:27:49

steps[2].run.command = echo hello again
  written at config.yml:13:14
  in command `greet`, called at config.yml:22:9
  << parameters.greeting >> = hello, the default at config.yml:11:41
  << parameters.who >> = again, given at config.yml:22:22
"
        );
    }
}
