//! Resolves paths.

use super::modules::{ModuleId, Modules, Path};
use std::collections::BTreeSet;

/// What a path leads to, within the crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The module itself.
    Module(ModuleId),
    /// An item that this module defines.
    Item(ModuleId),
}

/// Follows paths through re-exports.
pub struct Names<'a> {
    modules: &'a Modules,
}

/// The names that are being resolved, so that a re-export of itself does not loop for ever.
type Asked = BTreeSet<(ModuleId, String)>;

impl<'a> Names<'a> {
    pub fn new(modules: &'a Modules) -> Self {
        Self { modules }
    }

    /// The targets of `segments`, written in `module`: a module and an item if both have the name, nothing if the path leads
    /// out of the crate.
    pub fn resolve(&self, module: ModuleId, segments: &[String]) -> Vec<Target> {
        self.follow(module, segments, &mut Asked::new())
    }

    /// Whether `path`, written in `module`, begins at a module and not at an item.
    pub fn begins_at_module(&self, module: ModuleId, path: &Path) -> bool {
        let first = &path.segments[..1];
        let found = self.resolve(module, first);
        found.iter().any(|target| matches!(target, Target::Module(_)))
    }

    fn follow(&self, module: ModuleId, segments: &[String], asked: &mut Asked) -> Vec<Target> {
        let mut rest = segments;
        let mut at = module;
        // Whether the path began with `crate`, `self` or `super`.
        let mut anchored = false;
        while let Some((first, after)) = rest.split_first() {
            at = match first.as_str() {
                "crate" => 0,
                "self" => at,
                "super" => match self.modules.modules[at].parent {
                    Some(parent) => parent,
                    None => return Vec::new(),
                },
                _ => break,
            };
            anchored = true;
            rest = after;
        }
        let Some((first, after)) = rest.split_first() else {
            return vec![Target::Module(at)];
        };
        let found = self.lookup(at, first, asked);
        if found.is_empty() {
            // A macro may have made this name, if the path says that it is in this crate.
            return if anchored { vec![Target::Item(at)] } else { Vec::new() };
        }
        self.within(found, after, asked)
    }

    /// The targets of `segments`, starting from `found`.
    fn within(&self, found: Vec<Target>, segments: &[String], asked: &mut Asked) -> Vec<Target> {
        let Some((first, after)) = segments.split_first() else {
            return found;
        };
        let module = found.iter().find_map(|target| match target {
            Target::Module(module) => Some(*module),
            Target::Item(_) => None,
        });
        // What follows a type is one of its variants or functions.
        let Some(module) = module else { return found };
        let next = self.lookup(module, first, asked);
        if next.is_empty() {
            return vec![Target::Item(module)];
        }
        self.within(next, after, asked)
    }

    /// The meaning of `name` in `module`: a child module, an item, or a name that a `use` brought in.
    fn lookup(&self, module: ModuleId, name: &str, asked: &mut Asked) -> Vec<Target> {
        let here = &self.modules.modules[module];
        let mut found = Vec::new();
        found.extend(here.children.get(name).map(|child| Target::Module(*child)));
        if here.items.contains(name) {
            found.push(Target::Item(module));
        }
        if !asked.insert((module, name.to_string())) {
            return found;
        }
        for used in &here.uses {
            let path = &used.path.segments;
            if used.name.as_deref() == Some(name) {
                // `use foo::foo` next to `mod foo`: the path's first segment is the module, not this `use` again.
                found.extend(self.follow(module, path, asked));
            }
        }
        if found.is_empty() {
            for glob in here.uses.iter().filter(|used| used.name.is_none()) {
                for target in self.follow(module, &glob.path.segments, asked) {
                    if let Target::Module(inside) = target {
                        found.extend(self.lookup(inside, name, asked));
                    }
                }
            }
        }
        found.sort();
        found.dedup();
        asked.remove(&(module, name.to_string()));
        found
    }

    /// The names that a glob `use` of `module` may bring: its own items and its re-exports.
    pub fn everything(&self, module: ModuleId) -> Vec<Target> {
        let here = &self.modules.modules[module];
        let mut found = Vec::new();
        if !here.items.is_empty() {
            found.push(Target::Item(module));
        }
        for used in here.uses.iter().filter(|used| used.public) {
            found.extend(self.resolve(module, &used.path.segments));
        }
        found
    }
}
