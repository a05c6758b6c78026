//! Whose names are meant: the configuration's own elements, and those of each orb.

use std::rc::Rc;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};
use towpath_yaml::{Diagnostic, Node, ParseOptions, SourceFile, Span};

use crate::compiled::ResolvedOrb;
use crate::compiler::Compiler;
use crate::parameters::Declarations;
use crate::scope::Scope;

/// The configuration is the first one; every orb import is one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NamespaceId(pub(crate) usize);

/// The configuration's own names.
pub(crate) const CONFIG: NamespaceId = NamespaceId(0);

/// A set of names.
pub(crate) struct Namespace {
    root: Node,
    orbs: HashMap<Arc<str>, NamespaceId>,
    /// Orbs that were declared but could not be had: what uses them is not reported again.
    broken: Vec<Arc<str>>,
    elements: HashMap<(Kind, Arc<str>), Option<Rc<Element>>>,
}

/// What an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Command,
    Executor,
    Job,
    JobGroup,
}

impl Kind {
    /// The key that its definitions stand under.
    pub(crate) fn section(self) -> &'static str {
        match self {
            Kind::Command => "commands",
            Kind::Executor => "executors",
            Kind::Job => "jobs",
            Kind::JobGroup => "job-groups",
        }
    }

    /// The word in messages.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Command => "command",
            Kind::Executor => "executor",
            Kind::Job => "job",
            Kind::JobGroup => "job group",
        }
    }
}

/// A command, executor or job, as it is defined.
pub(crate) struct Element {
    pub(crate) kind: Kind,
    pub(crate) name: Arc<str>,
    pub(crate) namespace: NamespaceId,
    pub(crate) node: Node,
    pub(crate) parameters: Declarations,
}

/// What looking a name up came to.
pub(crate) enum Found {
    Element(Rc<Element>),
    /// An alias whose target does not exist; the sentence about it.
    BrokenAlias(String),
    /// It belongs to an orb that could not be imported; that has been reported.
    BrokenOrb,
    Nothing,
}

/// What is said of an alias that cannot lead to an orb's element.
pub(crate) const MALFORMED_ALIAS: &str =
    "Invalid orb element alias, expected a single 'orb-alias/element-name' reference";

const MAX_ALIASES: usize = 16;
const MAX_ORB_DEPTH: usize = 16;
const MAX_NAMESPACES: usize = 1000;

impl Compiler<'_> {
    /// Makes a namespace of a configuration or an orb, importing the orbs that it declares.
    pub(crate) fn add_namespace(&mut self, root: Node, depth: usize) -> NamespaceId {
        let id = NamespaceId(self.namespaces.len());
        self.namespaces.push(Namespace {
            root: root.clone(),
            orbs: HashMap::new(),
            broken: Vec::new(),
            elements: HashMap::new(),
        });
        // Version 2 has none.
        let Some(orbs) = root.get("orbs").filter(|orbs| self.has_templates && !orbs.is_null()) else {
            return id;
        };
        let Some(orbs) = orbs.as_mapping() else {
            let message = format!("`orbs` must be a map of names to orbs, and this is {}", orbs.kind());
            self.report(Diagnostic::error("config::orbs", message).at(orbs.span(), ""));
            return id;
        };
        for entry in orbs {
            let alias = entry.key.text.clone();
            match self.import(&entry.value, id, depth) {
                Some(orb) => {
                    self.namespaces[id.0].orbs.insert(alias, orb);
                }
                None => self.namespaces[id.0].broken.push(alias),
            }
        }
        id
    }

    fn import(&mut self, node: &Node, from: NamespaceId, depth: usize) -> Option<NamespaceId> {
        if depth >= MAX_ORB_DEPTH || self.namespaces.len() >= MAX_NAMESPACES {
            let message = match depth >= MAX_ORB_DEPTH {
                true => format!("orbs import one another more than {MAX_ORB_DEPTH} levels deep"),
                false => format!("more than {MAX_NAMESPACES} orbs are imported"),
            };
            self.report(Diagnostic::error("config::too-many-orbs", message).at(node.span(), ""));
            return None;
        }
        if node.as_mapping().is_some() {
            return Some(self.add_namespace(node.clone(), depth + 1));
        }
        let scope = Scope::top(from);
        let Some(reference) = self.text(node, &scope) else {
            let message = format!(
                "an orb is a reference such as `circleci/node@5` or a map, and this is {}",
                node.kind()
            );
            self.report(Diagnostic::error("config::orbs", message).at(node.span(), ""));
            return None;
        };
        if let Some(known) = self.imported.get(&reference) {
            return *known;
        }
        let imported = match self.options.orbs.resolve(&reference) {
            Ok(source) => {
                if depth == 0 {
                    self.orbs.push(ResolvedOrb {
                        reference: reference.to_string(),
                        resolved: source.resolved.clone(),
                    });
                }
                let file = SourceFile::new(format!("orb {}", source.resolved), &*source.text);
                let (documents, diagnostics) = towpath_yaml::parse(&file, &ParseOptions::default());
                // What is odd in somebody else's orb is not this author's to mend; what is wrong is.
                diagnostics
                    .into_iter()
                    .filter(Diagnostic::is_error)
                    .for_each(|diagnostic| self.report(diagnostic));
                // An orb that imports itself finds nothing under its own reference, rather than no end.
                self.imported.insert(reference.clone(), None);
                match documents.into_iter().next() {
                    Some(root) if root.as_mapping().is_some() => Some(self.add_namespace(root, depth + 1)),
                    _ => {
                        let message = format!("the source of orb '{}' is not a map", source.resolved);
                        self.report(Diagnostic::error("config::orbs", message).at(node.span(), ""));
                        None
                    }
                }
            }
            Err(error) => {
                let code = match error {
                    crate::OrbError::Unknown(_) => "config::unknown-orb",
                    crate::OrbError::Unavailable { .. } => "config::orb-unavailable",
                };
                self.report(Diagnostic::error(code, error.to_string()).at(node.span(), ""));
                None
            }
        };
        self.imported.insert(reference, imported);
        imported
    }

    /// The element `name` (or `orb/name`) as `namespace` sees it.
    pub(crate) fn find(&mut self, kind: Kind, namespace: NamespaceId, name: &str) -> Found {
        if !self.has_templates && kind != Kind::Job {
            return Found::Nothing;
        }
        let mut namespace = namespace;
        let mut name: Arc<str> = name.into();
        let mut alias: Option<Arc<str>> = None;
        for _ in 0..MAX_ALIASES {
            let mut local: Arc<str> = name.clone();
            // An orb of an orb is not visible from outside, so a name has one slash at most.
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
                        return Found::BrokenOrb;
                    }
                    // A compiled configuration defines jobs by the names that they had in their orbs.
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
                let message = format!("{} `{local}` must be a map, and this is {}", kind.word(), node.kind());
                self.report(Diagnostic::error("config::definition", message).at(node.span(), ""));
                self.namespaces[namespace.0]
                    .elements
                    .insert((kind, local.clone()), None);
                return Found::BrokenOrb;
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

    fn nothing(&self, kind: Kind, namespace: NamespaceId, alias: Option<Arc<str>>, name: &str) -> Found {
        let Some(alias) = alias else { return Found::Nothing };
        let local = name.rsplit('/').next().unwrap_or(name);
        let job = kind == Kind::Command && self.defines(Kind::Job, namespace, local);
        Found::BrokenAlias(match kind {
            _ if job => format!("{name} is a job, not a command: a job can't be run as a step"),
            Kind::Executor if !name.contains('/') => {
                format!("Executor alias '{alias}' refers to '{name}', which is not a known local executor")
            }
            _ if !is_reference(name) => MALFORMED_ALIAS.to_owned(),
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

    /// Whether an element of the configuration itself has been looked at.
    pub(crate) fn was_read(&self, kind: Kind, name: &str) -> bool {
        self.namespaces[CONFIG.0].elements.contains_key(&(kind, name.into()))
    }

    /// The text of a namespace.
    pub(crate) fn root(&self, namespace: NamespaceId) -> &Node {
        &self.namespaces[namespace.0].root
    }

    /// The orb that a namespace calls `alias`.
    pub(crate) fn orb(&self, namespace: NamespaceId, alias: &str) -> Option<NamespaceId> {
        self.namespaces[namespace.0].orbs.get(alias).copied()
    }

    /// Where the name of an element is, in its definition.
    pub(crate) fn definition_of(&self, element: &Element) -> Option<Span> {
        let section = self.root(element.namespace).get(element.kind.section())?;
        let entry = section.as_mapping()?.entry(&element.name)?;
        Some(entry.key.span.clone())
    }

    /// Whether a name is defined, without reading the definition.
    pub(crate) fn defines(&self, kind: Kind, namespace: NamespaceId, name: &str) -> bool {
        self.namespaces[namespace.0]
            .root
            .get(kind.section())
            .is_some_and(|section| section.get(name).is_some())
    }

    /// The names that `namespace` itself defines, and those of its orbs, for suggestions.
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

/// Whether a text can be the name of an orb's element as a configuration writes it.
pub(crate) fn is_reference(text: &str) -> bool {
    let is_name = |name: &str| !name.is_empty() && !name.contains(char::is_whitespace);
    text.split_once('/')
        .is_some_and(|(orb, element)| is_name(orb) && is_name(element) && !element.contains('/'))
}
