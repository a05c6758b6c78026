//! YAML nodes that know their place, and diagnostics that show it.
//!
//! All YAML that people write (CircleCI configurations, Kubernetes manifests, Towpath's own files) is read with this crate,
//! so that every diagnostic can point at a line. No other crate uses a YAML library.
//!
//! - **Invariant:** a [`Node`] is cheap to clone, because aliases share one tree. It knows two places: where it is used
//!   ([`Node::span`]) and where it was written ([`Node::origin`]). They differ for aliases.
//! - **Invariant:** a scalar stays raw text with its [`ScalarStyle`]. The reader decides what `on` or `010` means, with the
//!   [`ScalarRules`] of its format.
//! - **Invariant:** a tree that [`parse`] returns respects its [`Limits`] in depth, and in size *with every alias expanded*.
//!   Walking it recursively is safe.
//!
//! This crate knows no schema and reads no files.

mod diagnostic;
mod emit;
mod json;
mod node;
mod parse;
mod scalar;
mod source;
mod stored;

pub use diagnostic::{Diagnostic, Label, render_all};
pub use emit::emit;
pub use node::{Entry, Key, Mapping, Node, Scalar, Value};
pub use parse::{DuplicateKeys, Limits, ParseOptions, parse};
pub use scalar::{ScalarRules, ScalarStyle, Typed};
pub use source::{Place, SourceFile, Span};
pub use stored::{Excerpt, Severity, StoredDiagnostic, StoredDiagnosticsError, read_diagnostics, write_diagnostics};
