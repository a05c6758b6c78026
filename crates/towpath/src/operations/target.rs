//! The settings of the target.

use crate::cli::Target;
use towpath_control::TargetSettings;
use towpath_deploy::Identity;

/// The target settings, from `target` and this process's variables.
pub fn target_settings(target: Target) -> TargetSettings {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let identity = Identity::from_environment(variable);
    match target {
        Target::Local => TargetSettings::Local,
        Target::Kubernetes => TargetSettings::Kubernetes(identity),
        Target::Auto if identity.knows_a_cluster(variable) => TargetSettings::Kubernetes(identity),
        Target::Auto => TargetSettings::Local,
    }
}
