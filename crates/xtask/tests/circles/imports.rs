//! Which file imports which.

use super::{
    modules::{Modules, Path},
    names::{Names, Target},
};
use std::collections::BTreeSet;

/// One file's use of an item that another file of the crate defines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    /// The importing file.
    pub from: String,
    pub line: usize,
    /// The file that defines the item.
    pub to: String,
    /// The path as written.
    pub path: String,
}

/// Every import of the crate whose root module is in the file `root`; `read` answers `None` where there is no file.
///
/// # Errors
/// When a file is missing or is not Rust.
pub fn imports(root: &str, read: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Import>, String> {
    let modules = Modules::read(root, read)?;
    let names = Names::new(&modules);
    let mut found = BTreeSet::new();
    for (id, module) in modules.modules.iter().enumerate() {
        let mut add = |path: &Path, target: Target, structure: bool| {
            let Target::Item(to) = target else { return };
            let to_file = modules.modules[to].file;
            if to_file == module.file || (structure && modules.is_inside(to, id)) {
                return;
            }
            found.insert(Import {
                from: modules.files[module.file].clone(),
                line: path.line,
                to: modules.files[to_file].clone(),
                path: path.segments.join("::"),
            });
        };
        for used in &module.uses {
            for target in names.resolve(id, &used.path.segments) {
                match (target, &used.name) {
                    (Target::Module(all), None) => {
                        for target in names.everything(all) {
                            add(&used.path, target, used.public);
                        }
                    }
                    (target, _) => add(&used.path, target, used.public),
                }
            }
        }
        // Count a name that a `use` brought into the module once, at the `use`.
        for path in module.paths.iter().filter(|path| names.begins_at_module(id, path)) {
            for target in names.resolve(id, &path.segments) {
                add(path, target, false);
            }
        }
    }
    Ok(found.into_iter().collect())
}
