//! Which image a workflow or a person means. [`choice`] decides; [`finder`] asks the store, git and registries first.

pub(crate) mod choice;
pub(crate) mod finder;
pub(crate) mod named;
pub(crate) mod project;

pub use choice::image_repository;
pub use finder::ImageFinder;
pub use named::{image_in_manifests, with_found_image, workload_images};
pub use project::project_images;
