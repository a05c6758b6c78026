//! The CircleCI configuration language: text in, (compiled configuration, diagnostics) out.

mod compiled;
mod options;

pub use compiled::{
    CheckoutMethod, CompiledConfig, CompiledJob, DockerImage, Executor, Filter, JobKind, RegistryAuth, RequiredStatus,
    Requirement, ResolvedOrb, RunStep, Scalar, Schedule, Step, StepAction, StepWhen, Variable, Workflow, WorkflowJob,
};
pub use options::{CompileOptions, NoOrbs, OrbError, OrbResolver, OrbSource, PipelineValues};
