//! The words of Towpath as types: ids, digests, image references, outcomes, and strings that cannot print themselves.
//!
//! No IO, no clock, no randomness except in the `new` of an id. Nothing here knows CircleCI's status strings: those exist
//! only at the API's edge.

mod causes;
mod digest;
mod ids;
mod image;
mod mask;
mod outcome;
mod secret;

pub use causes::with_causes;
pub use digest::{Digest, DigestError, Digester};
pub use ids::{CommitId, IdError, JobId, PipelineId, ReleaseId, WorkflowId};
pub use image::{ImageReference, ImageReferenceError};
pub use mask::{Mask, Masker};
pub use outcome::Outcome;
pub use secret::SecretString;
