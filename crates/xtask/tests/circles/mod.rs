//! Finds modules of a crate that import each other in a circle.
//!
//! A module is a file. An import is any path into another file of the crate: a `use`, a path in code, in a macro's
//! arguments or in an attribute (`#[serde(with = "crate::bytes")]`). A path leads to the file that defines the item, whatever
//! re-exports it passes on its way: `use crate::Foo` imports `foo.rs` where `lib.rs` says `pub use foo::Foo`.
//!
//! Three things are not imports:
//!
//! - What a parent declares and re-exports: `mod foo;` and `pub use foo::Foo`. A private `use foo::Foo` is an import.
//! - Test code: whatever stands under `#[cfg(test)]`, whole files included.
//! - A path that ends at a module (`use crate::foo;`). What the code then takes out of it (`foo::bar()`) is an import.
//!
//! The checker reads source, not types. It does not see a call of a method whose type never appears as a path, and it takes a
//! name that a macro defines for an item of the module that the path names.

mod graph;
mod imports;
mod modules;
mod names;

pub use graph::circles;
pub use imports::{Import, imports};

#[cfg(test)]
mod tests;
