//! The CircleCI configuration language: text in, (compiled configuration, diagnostics) out.
//!
//! [`compile`] reads versions 2 and 2.1: parameters, commands, executors, orbs, matrices, conditions, filters. It never stops
//! at the first mistake, and each diagnostic has the place in the author's own text.
//!
//! - **Invariant:** no IO, no clock, no randomness. Orbs come through an [`OrbResolver`], pipeline values through
//!   [`CompileOptions`].
//! - **Invariant:** nothing is parsed and then ignored in silence: a key that is not known is a diagnostic.
//! - **Invariant:** what is made is bounded, whatever the text: aliases, matrices, recursion and rendered text have limits
//!   that the error names.
//!
//! It does not know what a runtime does with the result, nor which part of it that runtime honours.

/// The JSON Schema (draft 7) of the language, for editors. It knows a file's shape and not what its names mean.
pub const SCHEMA: &str = include_str!("schema.json");

mod compiled;
mod compiler;
mod editor;
mod elements;
mod explain;
mod expression;
mod filters;
mod graph;
mod jobs;
mod lint;
mod logic;
mod lower;
mod matrix;
mod namespace;
mod options;
mod pack;
mod parameters;
mod process;
mod scope;
mod steps;
mod suggest;
mod template;
mod trace;
mod value;
mod workflows;

pub use compiled::{
    CheckoutMethod, CompiledConfig, CompiledJob, DockerImage, Executor, Filter, JobKind, RegistryAuth, RequiredStatus,
    Requirement, ResolvedOrb, RunStep, Scalar, Schedule, Step, StepAction, StepWhen, Variable, Workflow, WorkflowJob,
};
pub use compiler::{compile, process};
pub use editor::{Completion, CompletionKind, Hover, completions, definition, hover};
pub use elements::check_orb;
pub use explain::{CallSite, ExplainedValue, Explainer, Explanation, Origin, ReferenceOrigin, explain};
pub use graph::{GraphFormat, graph};
pub use lint::lint;
pub use options::{CompileOptions, NoOrbs, OrbError, OrbResolver, OrbSource, PipelineValues};
pub use pack::{PackKind, pack};
