//! Records which call each value came through. Only kept for explanations.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;
use towpath_yaml::{Entry, Node, Span};

use crate::element::{Element, Kind};

/// The index of a call, or of the configuration itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct FrameId(usize);

/// The configuration, outside of all calls.
pub(crate) const OUTSIDE: FrameId = FrameId(0);

/// A call of an element.
pub(crate) struct Frame {
    /// The kind of the called element; `None` for a member of a matrix, which only holds values.
    pub(crate) kind: Option<Kind>,
    pub(crate) name: Arc<str>,
    /// The place of the call.
    pub(crate) call: Span,
    /// The call that contains this one.
    pub(crate) parent: FrameId,
    pub(crate) arguments: IndexMap<Arc<str>, Given>,
}

/// The value that a parameter was given.
#[derive(Clone)]
pub(crate) struct Given {
    /// The value as written.
    pub(crate) node: Node,
    /// The call whose parameters its templates see.
    pub(crate) frame: FrameId,
    /// Whether it is the default of the declaration.
    pub(crate) by_default: bool,
}

/// The names in a template with the texts that replaced them.
pub(crate) type References = Vec<(String, Arc<str>)>;

/// The record of a compilation. Nodes are kept so that their addresses are not reused.
pub(crate) struct Trace {
    frames: Vec<Frame>,
    /// By the identity of the template's node and the call that rendered it.
    templates: HashMap<(usize, FrameId), (Node, References)>,
    /// By the identity of a rendered node: that node, its template, and the call that rendered it.
    results: HashMap<usize, (Node, Node, FrameId)>,
    /// The call that contains a step or an entry of an environment, by the identity of its node.
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

    /// The call that contains a step or an entry of an environment.
    pub(crate) fn written(&self, node: &Node) -> Option<FrameId> {
        self.written.get(&node.identity()).map(|(_, frame)| *frame)
    }

    /// The template that was rendered to `node`, and the call that rendered it.
    pub(crate) fn template_of(&self, node: &Node) -> Option<(&Node, FrameId)> {
        self.results
            .get(&node.identity())
            .map(|(_, template, frame)| (template, *frame))
    }

    /// The names in a template, with the texts that replaced them in `frame`.
    pub(crate) fn references(&self, template: &Node, frame: FrameId) -> &[(String, Arc<str>)] {
        self.templates
            .get(&(template.identity(), frame))
            .map_or(&[], |(_, references)| references)
    }

    /// Records a call of `element` by `caller`, and the arguments that it was given.
    pub(crate) fn enter(&mut self, element: &Element, given: &[Entry], caller: FrameId, call: &Span) -> FrameId {
        let id = FrameId(self.frames.len());
        let arguments = element
            .parameters
            .iter()
            .filter_map(|(name, declaration)| {
                let given = given.iter().rev().find(|entry| entry.key.text == *name);
                let given = match (given, &declaration.default) {
                    (Some(entry), _) => Given {
                        node: entry.value.clone(),
                        frame: caller,
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
        self.frames.push(Frame {
            kind: Some(element.kind),
            name: element.name.clone(),
            call: call.clone(),
            parent: caller,
            arguments,
        });
        id
    }

    /// Records a member of a matrix.
    pub(crate) fn enter_matrix(&mut self, name: &Arc<str>, values: &[Entry], call: &Span) -> FrameId {
        let arguments = values.iter().map(|entry| {
            let given = Given {
                node: entry.value.clone(),
                frame: OUTSIDE,
                by_default: false,
            };
            (entry.key.text.clone(), given)
        });
        self.frames.push(Frame {
            kind: None,
            name: name.clone(),
            call: call.clone(),
            parent: OUTSIDE,
            arguments: arguments.collect(),
        });
        FrameId(self.frames.len() - 1)
    }

    /// Records the names in a template that `frame` rendered.
    pub(crate) fn note_references(&mut self, template: &Node, frame: FrameId, references: References) {
        self.templates
            .insert((template.identity(), frame), (template.clone(), references));
    }

    /// Records that `frame` rendered `template` to `result`.
    pub(crate) fn note_result(&mut self, result: &Node, template: &Node, frame: FrameId) {
        if result.as_scalar().is_some() {
            let kept = (result.clone(), template.clone(), frame);
            self.results.insert(result.identity(), kept);
        }
    }

    /// Records the call that contains a step or an entry of an environment.
    pub(crate) fn note_written(&mut self, node: &Node, frame: FrameId) {
        self.written.insert(node.identity(), (node.clone(), frame));
    }
}
