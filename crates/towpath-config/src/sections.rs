//! The top-level sections: the version, pipeline parameters, orbs, and the form of all definitions.

use towpath_yaml::{Diagnostic, Mapping, Node, Value as YamlValue};

use crate::compiler::Compiler;
use crate::element::{CONFIG, Kind};
use crate::keys::{self, builtin_step, is_orb_element};
use crate::names::MALFORMED_ALIAS;
use crate::scope::Scope;
use crate::unknown_keys::UnknownKeys;

impl Compiler<'_> {
    /// Reads the version, the pipeline parameters and the orbs, on which everything else depends. Returns whether this is a
    /// setup configuration, or `None` for an unknown version.
    pub(crate) fn prepare(&mut self, root: &Node) -> Option<bool> {
        self.version(root)?;
        // An unknown key may exist only to hold anchors.
        let entries = root.as_mapping().into_iter().flatten();
        let checked = entries.filter(|part| keys::CONFIG.contains(&&*part.key.text) || !holds_an_anchor(&part.value));
        self.check_entries(checked, keys::CONFIG, "a configuration", UnknownKeys::Ignored);
        let setup = root
            .get("setup")
            .and_then(Node::as_scalar)
            .is_some_and(|scalar| matches!(&*scalar.text, "true" | "yes" | "on" | "True" | "TRUE"));
        if setup && !self.has_templates {
            let span = root.get("setup").map_or(root.span(), Node::span).clone();
            let message = "Version 2.1 is required for Setup workflows";
            self.report(Diagnostic::error("config::setup", message).at(&span, ""));
        } else if setup && self.options.continuation {
            let span = root.get("setup").map_or(root.span(), Node::span).clone();
            let message = "a configuration that continues a setup pipeline cannot be a setup configuration";
            self.report(Diagnostic::error("config::setup", message).at(&span, ""));
        }
        self.check_idle_sections(root);
        self.bind_pipeline_parameters(root);
        self.add_namespace(root.clone(), 0);
        self.check_sections(root);
        self.check_functions(root);
        if let Some(agent) = root.get("build_agent") {
            // Nothing uses the key, but CircleCI checks the names in its templates.
            self.substitute(agent, &Scope::top(CONFIG));
        }
        Some(setup)
    }

    /// Warns about sections without effect: those that version 2 does not have, and empty ones.
    fn check_idle_sections(&mut self, root: &Node) {
        for key in ["orbs", "parameters", "commands", "executors", "job-groups"] {
            let Some(part) = root.as_mapping().and_then(|root| root.entry(key)) else {
                continue;
            };
            let is_empty = part.value.is_null() || part.value.as_mapping().is_some_and(Mapping::is_empty);
            let diagnostic = if !self.has_templates {
                let message = format!("a configuration of version 2 has no `{key}`; the section is ignored");
                Diagnostic::warning("config::unknown-key", message).hint("use `version: 2.1`")
            } else if is_empty {
                let message = format!("`{key}` is empty");
                Diagnostic::warning("config::empty-section", message)
            } else {
                continue;
            };
            self.report(diagnostic.at(&part.key.span, ""));
        }
    }

    /// Checks the form of all sections and definitions, used or not.
    pub(crate) fn check_sections(&mut self, root: &Node) {
        for kind in [Kind::Job, Kind::Command, Kind::Executor] {
            let Some(section) = root.get(kind.section()).filter(|section| !section.is_null()) else {
                continue;
            };
            let Some(definitions) = section.as_mapping() else {
                let message = format!("`{}` must be a map of names, not {}", kind.section(), section.kind());
                self.report(Diagnostic::error("config::definition", message).at(section.span(), ""));
                continue;
            };
            for part in definitions {
                // Any text can be the name of a job.
                if kind != Kind::Job && !is_element_name(&part.key.text) {
                    let message = format!(
                        "{:?} isn't a valid {} name: it must start with a lowercase letter, and have only lowercase \
                         letters, digits, \"_\" and \"-\".",
                        part.key.text,
                        kind.word()
                    );
                    self.report(Diagnostic::error("config::definition", message).at(&part.key.span, ""));
                }
                if kind == Kind::Command && builtin_step(&part.key.text).is_some() {
                    let message = format!("command `{}` replaces the built-in step of that name", part.key.text);
                    self.report(Diagnostic::warning("config::shadowed-step", message).at(&part.key.span, ""));
                }
                let target = part.value.as_scalar().filter(|_| !part.value.is_null());
                // The alias of an executor can also refer to an executor of the same file.
                if let Some(target) = target.filter(|_| kind != Kind::Executor)
                    && !is_orb_element(&target.text)
                {
                    // No step can call this command, but CircleCI refuses it.
                    if kind == Kind::Command && &*part.key.text == "run" {
                        self.report(Diagnostic::error("config::alias", MALFORMED_ALIAS).at(part.value.span(), ""));
                        continue;
                    }
                    let message = format!(
                        "`{}` is not a valid orb element alias, so this entry is ignored unless it is invoked. An alias must be a \
                         single `orb-alias/element-name` reference.",
                        target.text
                    );
                    self.report(Diagnostic::warning("config::alias", message).at(part.value.span(), ""));
                }
                // Text is an alias.
                if part.value.as_sequence().is_some() {
                    let message = format!(
                        "{} `{}` must be a map, not {}",
                        kind.word(),
                        part.key.text,
                        part.value.kind()
                    );
                    self.report(Diagnostic::error("config::definition", message).at(part.value.span(), ""));
                }
            }
        }
    }

    /// Reports functions that share their name with something else that a step can call.
    ///
    /// Source: <https://circleci.com/docs/functions/functions-concepts/>
    fn check_functions(&mut self, root: &Node) {
        let is_in = |section: &str, name: &str| root.get(section).is_some_and(|section| section.get(name).is_some());
        for part in root.get("functions").and_then(Node::as_mapping).into_iter().flatten() {
            let name = &part.key.text;
            let other = match &**name {
                name if is_in("orbs", name) => "an orb",
                name if is_in("commands", name) => "a command",
                "when" | "unless" | "steps" => "a built-in step",
                name if builtin_step(name).is_some() => "a built-in step",
                _ => continue,
            };
            let message = format!("Function name '{name}' is also {other}. Rename one of them.");
            self.report(Diagnostic::error("config::definition", message).at(&part.key.span, ""));
        }
    }

    /// Reads the version. Version 2 has no templates.
    pub(crate) fn version(&mut self, root: &Node) -> Option<()> {
        let Some(version) = root.get("version") else {
            self.report(
                Diagnostic::error("config::version", "the configuration has no `version`")
                    .at(root.span(), "")
                    .hint("start it with `version: 2.1`"),
            );
            return None;
        };
        match version.as_scalar().map(|scalar| scalar.text.trim()) {
            Some("2.1") => Some(()),
            Some("2" | "2.0") => {
                self.has_templates = false;
                Some(())
            }
            _ => {
                self.report(
                    Diagnostic::error("config::version", "unknown version of the language")
                        .at(version.span(), "")
                        .hint("the versions are 2.1 and 2"),
                );
                None
            }
        }
    }
}

/// Whether `name` is valid for a command or an executor.
///
/// Source: <https://github.com/CircleCI-Public/circleci-yaml-language-server/blob/main/schema.json>
fn is_element_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    name.starts_with(|first: char| first.is_ascii_lowercase()) && name.bytes().all(is_part)
}

/// Whether there is an anchor anywhere in a tree.
fn holds_an_anchor(node: &Node) -> bool {
    node.anchor().is_some()
        || match node.value() {
            YamlValue::Scalar(_) => false,
            YamlValue::Sequence(items) => items.iter().any(holds_an_anchor),
            YamlValue::Mapping(mapping) => mapping.iter().any(|part| holds_an_anchor(&part.value)),
        }
}
