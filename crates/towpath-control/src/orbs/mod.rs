//! Orbs: Towpath's registry, and the places to look for a configuration's orbs.

mod check;
mod places;
mod registry;
mod room;
mod versions;

pub use check::CheckedText;
pub(crate) use places::Places;
pub use places::{Orbs, supply_orbs};
pub use registry::{NamespaceView, OrbVersionView, OrbView, Segment};
