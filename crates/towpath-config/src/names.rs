//! Looks names up: which element a name means in a namespace.

use std::rc::Rc;
use std::sync::Arc;

use towpath_yaml::{Diagnostic, Node, Span};

use crate::compiler::Compiler;
use crate::element::{CONFIG, Element, Found, Kind, NamespaceId};
use crate::keys::is_orb_element;

/// The message for an alias that cannot refer to an orb's element.
pub(crate) const MALFORMED_ALIAS: &str =
    "Invalid orb element alias, expected a single 'orb-alias/element-name' reference";

/// The length of the longest chain of aliases.
const MAX_ALIASES: usize = 16;

impl Compiler<'_> {
    /// Looks up the element `name` or `orb/name` in `namespace`.
    pub(crate) fn find(&mut self, kind: Kind, namespace: NamespaceId, name: &str) -> Found {
        if !self.has_templates && kind != Kind::Job {
            return Found::Nothing;
        }
        let mut namespace = namespace;
        let mut name: Arc<str> = name.into();
        let mut alias: Option<Arc<str>> = None;
        for _ in 0..MAX_ALIASES {
            let mut local: Arc<str> = name.clone();
            // The orbs that an orb imports are not visible outside of it, so a name has at most one slash.
            if let Some((orb, element)) = name.split_once('/') {
                match self.namespaces[namespace.0].orbs.get(orb) {
                    Some(orb) => {
                        namespace = *orb;
                        local = element.into();
                    }
                    None if self.namespaces[namespace.0]
                        .broken
                        .iter()
                        .any(|broken| **broken == *orb) =>
                    {
                        return Found::Broken;
                    }
                    // A compiled configuration defines jobs under names such as `orb/job`.
                    None => {}
                }
            }
            if let Some(element) = self.namespaces[namespace.0].elements.get(&(kind, local.clone())) {
                return match element {
                    Some(element) => Found::Element(element.clone()),
                    None => self.nothing(kind, namespace, alias, &name),
                };
            }
            let Some(node) = self.namespaces[namespace.0]
                .root
                .get(kind.section())
                .and_then(|section| section.get(&local))
                .cloned()
            else {
                return self.nothing(kind, namespace, alias, &name);
            };
            if let Some(target) = node.as_scalar().filter(|_| !node.is_null()) {
                alias = Some(local);
                name = target.text.clone();
                continue;
            }
            if node.as_mapping().is_none() {
                let message = format!("{} `{local}` must be a map, not {}", kind.word(), node.kind());
                self.report(Diagnostic::error("config::definition", message).at(node.span(), ""));
                self.namespaces[namespace.0]
                    .elements
                    .insert((kind, local.clone()), None);
                return Found::Broken;
            }
            let parameters = self.declarations(kind, &local, &node);
            let element = Rc::new(Element {
                kind,
                name: local.clone(),
                namespace,
                node,
                parameters,
            });
            self.namespaces[namespace.0]
                .elements
                .insert((kind, local), Some(element.clone()));
            return Found::Element(element);
        }
        Found::BrokenAlias(format!("{} alias '{name}' refers to itself", kind.word()))
    }

    /// The result for a name without a definition, to which `alias` may refer.
    fn nothing(&self, kind: Kind, namespace: NamespaceId, alias: Option<Arc<str>>, name: &str) -> Found {
        let Some(alias) = alias else { return Found::Nothing };
        let local = name.rsplit('/').next().unwrap_or(name);
        let job = kind == Kind::Command && self.defines(Kind::Job, namespace, local);
        Found::BrokenAlias(match kind {
            _ if job => format!("{name} is a job, not a command: a job can't be run as a step"),
            Kind::Executor if !name.contains('/') => {
                format!("Executor alias '{alias}' refers to '{name}', which is not a known local executor")
            }
            _ if !is_orb_element(name) => MALFORMED_ALIAS.to_owned(),
            Kind::Executor => {
                format!(
                    "Unable to determine target for executor invocation {name} (renamed from local executor {alias})"
                )
            }
            Kind::Command => {
                format!("Unable to determine target for step invocation {name} (renamed from local command {alias})")
            }
            kind => format!(
                "{} alias '{alias}' refers to '{name}', which is not defined",
                kind.word()
            ),
        })
    }

    /// Whether an element of the configuration itself has been read.
    pub(crate) fn was_read(&self, kind: Kind, name: &str) -> bool {
        self.namespaces[CONFIG.0].elements.contains_key(&(kind, name.into()))
    }

    /// The root node of a namespace.
    pub(crate) fn root(&self, namespace: NamespaceId) -> &Node {
        &self.namespaces[namespace.0].root
    }

    /// The orb that a namespace imports as `alias`.
    pub(crate) fn orb(&self, namespace: NamespaceId, alias: &str) -> Option<NamespaceId> {
        self.namespaces[namespace.0].orbs.get(alias).copied()
    }

    /// The key that defines an element.
    pub(crate) fn definition_of(&self, element: &Element) -> Option<Span> {
        let section = self.root(element.namespace).get(element.kind.section())?;
        let entry = section.as_mapping()?.entry(&element.name)?;
        Some(entry.key.span.clone())
    }

    /// Whether a namespace itself defines a name. Does not read the definition.
    pub(crate) fn defines(&self, kind: Kind, namespace: NamespaceId, name: &str) -> bool {
        self.namespaces[namespace.0]
            .root
            .get(kind.section())
            .is_some_and(|section| section.get(name).is_some())
    }

    /// The names that a namespace and its orbs define, for suggestions.
    pub(crate) fn known_names(&self, kind: Kind, namespace: NamespaceId) -> Vec<String> {
        let own = |namespace: NamespaceId| {
            let section = self.namespaces[namespace.0].root.get(kind.section());
            section
                .and_then(Node::as_mapping)
                .map(|map| map.iter().map(|entry| entry.key.text.to_string()).collect::<Vec<_>>())
                .unwrap_or_default()
        };
        let mut names = own(namespace);
        for (alias, orb) in &self.namespaces[namespace.0].orbs {
            names.extend(own(*orb).into_iter().map(|name| format!("{alias}/{name}")));
        }
        names
    }
}
