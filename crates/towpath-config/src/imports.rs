//! Imports of orbs, each of which becomes a namespace.

use std::sync::Arc;

use towpath_yaml::{Diagnostic, Node};

use crate::compiled::ResolvedOrb;
use crate::compiler::Compiler;
use crate::element::{Namespace, NamespaceId};
use crate::orbs::{MissingOrb, Orb, OrbError};
use crate::scope::Scope;

const MAX_ORB_DEPTH: usize = 16;
const MAX_NAMESPACES: usize = 1000;

impl Compiler<'_> {
    /// Adds the namespace of a configuration or an orb, and imports the orbs that it declares.
    pub(crate) fn add_namespace(&mut self, root: Node, depth: usize) -> NamespaceId {
        let id = NamespaceId(self.namespaces.len());
        self.namespaces.push(Namespace::new(root.clone()));
        // Version 2 has no orbs.
        let Some(orbs) = root.get("orbs").filter(|orbs| self.has_templates && !orbs.is_null()) else {
            return id;
        };
        let Some(orbs) = orbs.as_mapping() else {
            let message = format!("`orbs` must be a map of names to orbs, not {}", orbs.kind());
            self.report(Diagnostic::error("config::orbs", message).at(orbs.span(), ""));
            return id;
        };
        for entry in orbs {
            let name = entry.key.text.clone();
            match self.import(&entry.value, id, depth) {
                Some(orb) => {
                    self.namespaces[id.0].orbs.insert(name, orb);
                }
                None => self.namespaces[id.0].broken.push(name),
            }
        }
        id
    }

    fn import(&mut self, node: &Node, from: NamespaceId, depth: usize) -> Option<NamespaceId> {
        if depth >= MAX_ORB_DEPTH || self.namespaces.len() >= MAX_NAMESPACES {
            let message = match depth >= MAX_ORB_DEPTH {
                true => format!("orbs import each other more than {MAX_ORB_DEPTH} levels deep"),
                false => format!("more than {MAX_NAMESPACES} orbs are imported"),
            };
            self.report(Diagnostic::error("config::too-many-orbs", message).at(node.span(), ""));
            return None;
        }
        if node.as_mapping().is_some() {
            return Some(self.add_namespace(node.clone(), depth + 1));
        }
        let Some(reference) = self.text(node, &Scope::top(from)) else {
            let message = format!(
                "an orb must be a reference such as `circleci/node@5` or a map, not {}",
                node.kind()
            );
            self.report(Diagnostic::error("config::orbs", message).at(node.span(), ""));
            return None;
        };
        if let Some(known) = self.imported.get(&reference) {
            return *known;
        }
        // An orb that imports itself finds this entry instead of recursing.
        self.imported.insert(reference.clone(), None);
        let imported = match self.options.orbs.get(&reference) {
            Some(Ok(orb)) => self.import_orb(node, &reference, &orb.clone(), depth),
            Some(Err(error)) => {
                self.report_orb_error(node, &error.clone());
                None
            }
            None => {
                self.missing_orbs.push(MissingOrb {
                    reference: reference.to_string(),
                    span: node.span().clone(),
                });
                self.report_orb_error(node, &OrbError::Unknown(reference.to_string()));
                None
            }
        };
        self.imported.insert(reference, imported);
        imported
    }

    fn import_orb(&mut self, node: &Node, reference: &Arc<str>, orb: &Orb, depth: usize) -> Option<NamespaceId> {
        if depth == 0 {
            self.orbs.push(ResolvedOrb {
                reference: reference.to_string(),
                resolved: orb.resolved.clone(),
            });
        }
        // The author of the configuration cannot fix a warning in an orb.
        for diagnostic in orb.document.diagnostics().iter().filter(|found| found.is_error()) {
            self.report(diagnostic.clone());
        }
        match orb.document.root() {
            Some(root) if root.as_mapping().is_some() => Some(self.add_namespace(root.clone(), depth + 1)),
            _ => {
                let message = format!("the source of orb '{}' is not a map", orb.resolved);
                self.report(Diagnostic::error("config::orbs", message).at(node.span(), ""));
                None
            }
        }
    }

    fn report_orb_error(&mut self, node: &Node, error: &OrbError) {
        let code = match error {
            OrbError::Unknown(_) => "config::unknown-orb",
            OrbError::Unavailable { .. } => "config::orb-unavailable",
        };
        self.report(Diagnostic::error(code, error.to_string()).at(node.span(), ""));
    }
}
