//! The words of Towpath as types: ids, digests, image references, outcomes, and strings that cannot print themselves.
//!
//! No IO, no clock, no randomness except in the `new` of an id. Nothing here knows CircleCI's status strings: those exist
//! only at the API's edge.

mod actor;
mod causes;
mod clock;
mod credentials;
mod digest;
mod environment;
mod ids;
mod image;
mod mask;
mod node;
mod outcome;
mod percent;
mod project;
mod secret;
mod seen_secrets;
mod status;
mod suggest;
mod terminal;
mod visible;

pub use actor::{Actor, Right, Via};
pub use causes::with_causes;
pub use clock::Clock;
pub use credentials::RegistryCredentials;
pub use digest::{Digest, DigestAlgorithm, DigestError, Digester};
pub use environment::{EnvironmentId, EnvironmentIdError};
pub use ids::{CommitId, IdError, JobId, PipelineId, ReleaseId, RunId, TriggerId, WorkflowId};
pub use image::{ImageReference, ImageReferenceError};
pub use mask::{Mask, Masker};
pub use node::{EngineName, NodeId};
pub use outcome::Outcome;
pub use percent::percent_encoded;
pub use project::{ProjectName, ProjectNameError};
pub use secret::{NoVariable, SESSION_COOKIE_PREFIX, Secret, SecretBytes, SecretString};
pub use seen_secrets::SeenSecrets;
pub use status::{
    JobKind, JobStatus, PipelineStatus, RecordedState, ReleaseStatus, RunKind, StatusError, StepStatus, TestResult,
    TriggerStatus, WorkflowStatus,
};
pub use suggest::nearest;
pub use terminal::plain_text;
pub use visible::{visible, visible_name};
