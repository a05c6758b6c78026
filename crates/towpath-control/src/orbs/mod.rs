//! Orbs: Towpath's registry of them, and the places that a configuration's orbs are looked for.

mod check;
mod places;
mod registry;
mod room;
mod versions;

pub use check::CheckedText;
pub(crate) use places::Places;
pub use places::{Orbs, supply_orbs};
pub use registry::{NamespaceView, OrbVersionView, OrbView, Segment};
