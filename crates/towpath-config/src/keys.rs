//! The keys and the built-in names of the language.

/// The keys of a configuration. CircleCI ignores others, which often hold anchors.
pub(crate) const CONFIG: &[&str] = &[
    "version",
    "setup",
    "parameters",
    "orbs",
    "commands",
    "executors",
    "jobs",
    "job-groups",
    "functions",
    "workflows",
    "description",
    "display",
    "experimental",
    "notify",
    "build_agent",
];

/// The keys of an orb.
pub(crate) const ORB: &[&str] = &[
    "version",
    "description",
    "display",
    "orbs",
    "commands",
    "executors",
    "jobs",
    "examples",
];

/// The keys of a job, except one of type release, lock or unlock.
pub(crate) const JOB: &[&str] = &[
    "executor",
    "docker",
    "machine",
    "macos",
    "type",
    "parameters",
    "steps",
    "environment",
    "shell",
    "working_directory",
    "parallelism",
    "resource_class",
    "circleci_ip_ranges",
    "retention",
    "plan_name",
    "key",
    "description",
];

/// The keys of a job of type release.
///
/// Source: <https://circleci.com/docs/guides/deploy/set-up-release-validation-manually/>
pub(crate) const RELEASE_JOB: &[&str] = &["type", "plan_name", "validation", "parameters", "description"];

/// The keys of a job of type lock or unlock.
pub(crate) const LOCK_JOB: &[&str] = &["type", "key", "parameters", "description"];

/// The keys of an executor.
pub(crate) const EXECUTOR: &[&str] = &[
    "docker",
    "machine",
    "macos",
    "environment",
    "shell",
    "working_directory",
    "resource_class",
    "parameters",
    "description",
];

/// The keys of a job and of an executor that say where steps run.
pub(crate) const EXECUTOR_TYPES: [&str; 3] = ["docker", "machine", "macos"];

/// The keys of an executor that a job overrides as a whole.
pub(crate) const EXECUTOR_SETTINGS: &[&str] = &[
    "docker",
    "machine",
    "macos",
    "resource_class",
    "shell",
    "working_directory",
];

/// The keys of a job in a workflow. Any other key is an argument.
pub(crate) const INVOCATION: &[&str] = &[
    "name",
    "pre-steps",
    "post-steps",
    "filters",
    "requires",
    "context",
    "type",
    "override-with",
    "upstream",
    "matrix",
    "serial-group",
];

/// The built-in steps.
pub(crate) const BUILTIN_STEPS: &[&str] = &[
    "run",
    "checkout",
    "setup_remote_docker",
    "save_cache",
    "restore_cache",
    "persist_to_workspace",
    "attach_workspace",
    "store_artifacts",
    "store_test_results",
    "add_ssh_keys",
    "deploy",
    "install_signing_bundle",
    "with_tool_cache",
];

/// The steps that contain other steps and disappear when they are expanded.
pub(crate) const CONTROL_STEPS: &[&str] = &["when", "unless", "steps"];

/// The built-in steps that the `teardown` of a `run` step can have.
pub(crate) const TEARDOWN_STEPS: &[&str] = &[
    "run",
    "save_cache",
    "persist_to_workspace",
    "store_artifacts",
    "store_test_results",
];

/// The built-in step called `name`. `restore-cache` also means `restore_cache`.
pub(crate) fn builtin_step(name: &str) -> Option<&'static str> {
    let same = |builtin: &&&str| {
        builtin.len() == name.len()
            && builtin
                .bytes()
                .zip(name.bytes())
                .all(|(one, other)| one == other || (one == b'_' && other == b'-'))
    };
    BUILTIN_STEPS.iter().find(same).copied()
}

/// Whether `text` has the form of an orb's element in a configuration: `orb/element`.
pub(crate) fn is_orb_element(text: &str) -> bool {
    let is_name = |name: &str| !name.is_empty() && !name.contains(char::is_whitespace);
    text.split_once('/')
        .is_some_and(|(orb, element)| is_name(orb) && is_name(element) && !element.contains('/'))
}
