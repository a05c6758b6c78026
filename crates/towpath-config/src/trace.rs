//! Which call each value came through: kept only while somebody asks for an explanation.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;
use towpath_yaml::{Entry, Node, Span};

use crate::compiler::Compiler;
use crate::namespace::{Element, Kind};
use crate::scope::Scope;

/// A call of an element, or the configuration itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct FrameId(usize);

/// The configuration, outside of every call.
pub(crate) const OUTSIDE: FrameId = FrameId(0);

/// A call.
pub(crate) struct Frame {
    /// What is called; `None` for a member of a matrix, which only holds values.
    pub(crate) kind: Option<Kind>,
    pub(crate) name: Arc<str>,
    /// Where it is called.
    pub(crate) call: Span,
    /// Where the call is written.
    pub(crate) parent: FrameId,
    pub(crate) arguments: IndexMap<Arc<str>, Given>,
}

/// What a parameter was given.
#[derive(Clone)]
pub(crate) struct Given {
    /// As written.
    pub(crate) node: Node,
    /// What templates in it see.
    pub(crate) frame: FrameId,
    /// Whether it is the declaration's default.
    pub(crate) by_default: bool,
}

/// The names in a template with the texts that took their places.
type References = Vec<(String, Arc<str>)>;

/// Everything that is kept.
pub(crate) struct Trace {
    frames: Vec<Frame>,
    /// By the identity of a template's node, and where it was read. The nodes are kept so that their addresses stay taken.
    templates: HashMap<(usize, FrameId), (Node, References)>,
    /// By the identity of a node that a template came to.
    results: HashMap<usize, (Node, Node, FrameId)>,
    /// The frame in which a step or an entry of an environment was written, by identity.
    written: HashMap<usize, (Node, FrameId)>,
}

impl Trace {
    pub(crate) fn new(root: &Node) -> Trace {
        Trace {
            frames: vec![Frame {
                kind: None,
                name: "".into(),
                call: root.span().clone(),
                parent: OUTSIDE,
                arguments: IndexMap::new(),
            }],
            templates: HashMap::new(),
            results: HashMap::new(),
            written: HashMap::new(),
        }
    }

    pub(crate) fn frame(&self, id: FrameId) -> &Frame {
        &self.frames[id.0]
    }

    /// Where a step or an entry of an environment was written.
    pub(crate) fn written(&self, node: &Node) -> Option<FrameId> {
        self.written.get(&node.identity()).map(|(_, frame)| *frame)
    }

    /// The template that `node` is what came of, and where that was read.
    pub(crate) fn template_of(&self, node: &Node) -> Option<(&Node, FrameId)> {
        self.results
            .get(&node.identity())
            .map(|(_, template, frame)| (template, *frame))
    }

    /// The names in a template.
    pub(crate) fn references(&self, template: &Node, frame: FrameId) -> &[(String, Arc<str>)] {
        self.templates
            .get(&(template.identity(), frame))
            .map_or(&[], |(_, references)| references)
    }
}

impl Compiler<'_> {
    /// Notes a call of `element` and what its parameters were given.
    pub(crate) fn enter(&mut self, element: &Element, given: &[Entry], caller: &Scope<'_>, call: &Span) -> FrameId {
        let Some(trace) = &mut self.trace else { return OUTSIDE };
        let id = FrameId(trace.frames.len());
        let arguments = element
            .parameters
            .iter()
            .filter_map(|(name, declaration)| {
                let given = given.iter().rev().find(|entry| entry.key.text == *name);
                let given = match (given, &declaration.default) {
                    (Some(entry), _) => Given {
                        node: entry.value.clone(),
                        frame: caller.frame,
                        by_default: false,
                    },
                    (None, Some(default)) => Given {
                        node: default.clone(),
                        frame: id,
                        by_default: true,
                    },
                    (None, None) => return None,
                };
                Some((name.clone(), given))
            })
            .collect();
        trace.frames.push(Frame {
            kind: Some(element.kind),
            name: element.name.clone(),
            call: call.clone(),
            parent: caller.frame,
            arguments,
        });
        id
    }

    /// Notes a member of a matrix.
    pub(crate) fn enter_matrix(&mut self, name: &Arc<str>, values: &[Entry], call: &Span) -> FrameId {
        let Some(trace) = &mut self.trace else { return OUTSIDE };
        let arguments = values.iter().map(|entry| {
            let given = Given {
                node: entry.value.clone(),
                frame: OUTSIDE,
                by_default: false,
            };
            (entry.key.text.clone(), given)
        });
        let frame = Frame {
            kind: None,
            name: name.clone(),
            call: call.clone(),
            parent: OUTSIDE,
            arguments: arguments.collect(),
        };
        trace.frames.push(frame);
        FrameId(trace.frames.len() - 1)
    }

    /// Notes what a template refers to.
    pub(crate) fn trace_template(&mut self, template: &Node, scope: &Scope<'_>, references: References) {
        if let Some(trace) = &mut self.trace {
            trace
                .templates
                .insert((template.identity(), scope.frame), (template.clone(), references));
        }
    }

    /// Notes what a template came to.
    pub(crate) fn trace_result(&mut self, result: &Node, template: &Node, scope: &Scope<'_>) {
        if let Some(trace) = &mut self.trace
            && result.as_scalar().is_some()
        {
            let kept = (result.clone(), template.clone(), scope.frame);
            trace.results.insert(result.identity(), kept);
        }
    }

    /// Notes the frame in which a step or an entry of an environment was written.
    pub(crate) fn trace_written(&mut self, node: &Node, frame: FrameId) {
        if let Some(trace) = &mut self.trace {
            trace.written.insert(node.identity(), (node.clone(), frame));
        }
    }
}
