//! The CircleCI configuration language: compiles a text to a configuration and diagnostics.
//!
//! It reads versions 2 and 2.1, with parameters, commands, executors, orbs, matrices, conditions and filters.
//!
//! 1. [`Document::parse`] parses the text once.
//! 2. [`missing_orbs`] names the orbs that it imports. The caller fetches them and adds them to [`CompileOptions::orbs`],
//!    round after round, because an orb may import further orbs.
//! 3. [`compile`], [`check`], [`lint`], [`explain`] and the functions for editors work on the document and its orbs.
//!
//! - **Invariant:** no IO, no clock, no randomness.
//! - **Invariant:** it never stops at the first error. Every diagnostic has its place in the author's text.
//! - **Invariant:** no key is ignored silently: an unknown key is a diagnostic, and so is a key that the runtime does not
//!   support ([`Finding`]).
//! - **Invariant:** the size of the result is bounded. Aliases, matrices, recursion and rendered text have limits, which the
//!   errors name.
//!
//! How the modules depend on each other, from below: `compiled`, `options`, `document` and `orbs` are what callers see.
//! `keys`, `value`, `expression`, `template`, `element`, `scope` and `trace` are the parts of the language. `compiler` holds the
//! state of a compilation. On it work `imports`, `names`, `sections`, `parameters`, `substitution`, `logic`, `steps`,
//! `executors`, `jobs`, `workflows`, `lower` and `elements`. `compile` puts them together, and everything else uses `compile`.

mod check;
mod compile;
mod compiled;
mod compiler;
mod deployments;
mod document;
mod editor;
mod element;
mod elements;
mod environment;
mod executors;
mod expansion;
mod explain;
mod expression;
mod filters;
mod graph;
mod imports;
mod jobs;
mod keys;
mod lint;
mod logic;
mod lower;
mod matrix;
mod names;
mod options;
mod orbs;
mod pack;
mod parameters;
mod pattern;
mod pipeline_values;
mod print;
mod runnable;
mod schema;
mod scope;
mod sections;
mod steps;
mod substitution;
mod template;
mod texts;
mod trace;
mod unknown_keys;
mod value;
mod workflows;

pub use check::{Checked, check};
pub use compile::{check_orb, compile, missing_orbs, process};
pub use compiled::{
    CheckoutMethod, CompiledConfig, CompiledJob, DockerImage, Executor, Filter, JobKind, RegistryAuth, RequiredStatus,
    Requirement, ResolvedOrb, RunStep, Scalar, Schedule, Step, StepAction, StepWhen, Variable, Workflow, WorkflowJob,
};
pub use deployments::deploys_to;
pub use document::Document;
pub use editor::{Completion, CompletionKind, Hover, completions, definition, hover};
pub use explain::{CallSite, ExplainedValue, Explainer, Explanation, Origin, ReferenceOrigin, explain};
pub use graph::{GraphFormat, graph};
pub use lint::lint;
pub use options::CompileOptions;
pub use orbs::{MissingOrb, OrbError, OrbSource, Orbs};
pub use pack::{Include, PackKind, is_packed, pack};
pub use pipeline_values::PipelineValues;
pub use runnable::{Capabilities, Effect, Feature, Finding, Subject, cannot_run};
pub use schema::SCHEMA;
pub use texts::Texts;
