//! Plans: what a deployment would do, decided completely before anybody approves them.
//!
//! **Invariant:** a plan is named by the digest of everything in it, so the name fixes both what was shown and what is
//! done. Plans never change; a release carries out exactly the plan that it names, or refuses.

mod content;
mod view;
pub(crate) mod wire;

pub(crate) use content::images_text;
pub use content::{ChangeAction, Plan, PlanChange, PlanCommit, PlanHooks};
pub use view::{ImageChange, PlanHook, PlanView};
pub use wire::{PlanWireError, read as read_plan, write as write_plan};
