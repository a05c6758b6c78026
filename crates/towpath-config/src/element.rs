//! Elements: the commands, executors, jobs and job groups that a configuration or an orb defines, and the namespaces that
//! hold them.

use std::rc::Rc;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt, fast::RandomState};
use indexmap::IndexMap;
use towpath_yaml::{Node, Span};

/// The index of a namespace. Each imported orb has a namespace of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NamespaceId(pub(crate) usize);

/// The namespace of the configuration itself.
pub(crate) const CONFIG: NamespaceId = NamespaceId(0);

/// The elements of the configuration or of one orb.
pub(crate) struct Namespace {
    pub(crate) root: Node,
    /// The imported orbs by their local names.
    pub(crate) orbs: HashMap<Arc<str>, NamespaceId>,
    /// The local names of orbs that could not be imported. That has been reported, so what uses them is not.
    pub(crate) broken: Vec<Arc<str>>,
    /// The elements that have been read; `None` for a definition that is no map.
    pub(crate) elements: HashMap<(Kind, Arc<str>), Option<Rc<Element>>>,
}

impl Namespace {
    pub(crate) fn new(root: Node) -> Namespace {
        Namespace {
            root,
            orbs: HashMap::new(),
            broken: Vec::new(),
            elements: HashMap::new(),
        }
    }
}

/// The kind of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Command,
    Executor,
    Job,
    JobGroup,
}

impl Kind {
    /// The key of the section that defines elements of this kind.
    pub(crate) fn section(self) -> &'static str {
        match self {
            Kind::Command => "commands",
            Kind::Executor => "executors",
            Kind::Job => "jobs",
            Kind::JobGroup => "job-groups",
        }
    }

    /// The word for messages.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Command => "command",
            Kind::Executor => "executor",
            Kind::Job => "job",
            Kind::JobGroup => "job group",
        }
    }
}

/// A definition of a command, an executor, a job or a job group.
pub(crate) struct Element {
    pub(crate) kind: Kind,
    pub(crate) name: Arc<str>,
    pub(crate) namespace: NamespaceId,
    pub(crate) node: Node,
    pub(crate) parameters: Declarations,
}

/// The result of looking an element up.
pub(crate) enum Found {
    Element(Rc<Element>),
    /// An alias to something that does not exist, with the message for it.
    BrokenAlias(String),
    /// The definition or its orb is unusable, and that has been reported.
    Broken,
    Nothing,
}

/// The parameters of an element.
pub(crate) type Declarations = IndexMap<Arc<str>, Declaration, RandomState>;

/// The declaration of a parameter.
pub(crate) struct Declaration {
    pub(crate) kind: ParameterType,
    pub(crate) default: Option<Node>,
    /// The key that declares it.
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
    /// The declaration is wrong, and that has been reported. Any argument is accepted.
    Unknown,
}

impl ParameterType {
    /// The name of the type in the language.
    pub(crate) fn word(&self) -> &'static str {
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
