//! YAML whose nodes know their place, and diagnostics that show it.
//!
//! Everything that reads YAML from people (the CircleCI configuration, Kubernetes manifests, our own files) goes through
//! this crate, so that every complaint can point at a line. It is the only crate that names a YAML library.
//!
//! Invariants:
//! - A [`Node`] is cheap to clone (aliases share one tree) and always knows two places: where it is used
//!   ([`Node::span`]) and where it was written ([`Node::origin`]); they differ for aliases and merged entries.
//! - Scalars stay raw text with their [`ScalarStyle`]; what `on` or `010` means is decided by the reader, with the
//!   [`ScalarRules`] of its format.
//! - A tree that [`parse`] returns is within its [`Limits`]: depth, and size *with aliases expanded*, so that walking it
//!   recursively is safe.
//!
//! It does not know any schema, and it never reads a file.

mod diagnostic;
mod emit;
mod json;
mod node;
mod parse;
mod scalar;
mod source;

pub use diagnostic::{Diagnostic, Label, Severity, render_all};
pub use emit::emit;
pub use node::{Entry, Key, Mapping, Node, Scalar, Value};
pub use parse::{DuplicateKeys, Limits, ParseOptions, parse};
pub use scalar::{ScalarRules, ScalarStyle, Typed};
pub use source::{Place, SourceFile, Span};
