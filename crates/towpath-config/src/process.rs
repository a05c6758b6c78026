//! A compiled configuration as text: version 2 of the language, with everything in place.

use serde_json::{Map, Value, json};

use crate::compiled::{
    CheckoutMethod, CompiledConfig, CompiledJob, DockerImage, Executor, JobKind, RequiredStatus, RunStep, Scalar, Step,
    StepAction, StepWhen, Variable, WorkflowJob,
};

/// What a configuration compiles to, as `config process` prints it.
pub fn process(config: &CompiledConfig) -> String {
    let mut text = String::new();
    for orb in &config.orbs {
        text.push_str(&format!("# Orb '{}' resolved to '{}'\n", orb.reference, orb.resolved));
    }
    let jobs: Map<String, Value> = config
        .jobs
        .iter()
        .map(|(name, job)| (name.clone(), job_json(job)))
        .collect();
    let mut workflows = Map::new();
    workflows.insert("version".into(), json!(2));
    for workflow in &config.workflows {
        let jobs: Vec<Value> = workflow.jobs.iter().map(invocation_json).collect();
        workflows.insert(workflow.name.clone(), json!({ "jobs": jobs }));
    }
    let document = json!({ "version": 2, "jobs": jobs, "workflows": workflows });
    text.push_str(&towpath_yaml::emit(&document));
    text
}

/// An object without the keys that have no value.
fn object(pairs: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    Value::Object(
        pairs
            .into_iter()
            .filter(|(_, value)| !empty(value))
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
    )
}

fn scalar_json(value: &Scalar) -> Value {
    match value {
        Scalar::Null => Value::Null,
        Scalar::Bool(value) => json!(value),
        Scalar::Int(value) => json!(value),
        Scalar::Float(value) => json!(value),
        Scalar::Text(value) => json!(value),
    }
}

fn map(variables: &[Variable]) -> Value {
    if variables.is_empty() {
        return Value::Null;
    }
    Value::Object(
        variables
            .iter()
            .map(|variable| (variable.name.clone(), scalar_json(&variable.value)))
            .collect(),
    )
}

fn job_json(job: &CompiledJob) -> Value {
    let (docker, machine, macos) = match &job.executor {
        Executor::Docker { images } => (
            Value::Array(images.iter().map(image_json).collect()),
            Value::Null,
            Value::Null,
        ),
        Executor::Machine {
            image: None,
            docker_layer_caching: false,
        } => (Value::Null, json!(true), Value::Null),
        Executor::Machine {
            image,
            docker_layer_caching,
        } => {
            let caching = if *docker_layer_caching {
                json!(true)
            } else {
                Value::Null
            };
            (
                Value::Null,
                object([("image", json!(image)), ("docker_layer_caching", caching)]),
                Value::Null,
            )
        }
        Executor::Macos { xcode } => (Value::Null, Value::Null, json!({ "xcode": xcode })),
    };
    let environment: Vec<Value> = job
        .environment
        .iter()
        .map(|variable| json!({ variable.name.clone(): scalar_json(&variable.value) }))
        .collect();
    object([
        ("docker", docker),
        ("machine", machine),
        ("macos", macos),
        ("environment", Value::Array(environment)),
        ("resource_class", json!(job.resource_class)),
        ("shell", json!(job.shell)),
        (
            "working_directory",
            if job.working_directory == "~/project" {
                Value::Null
            } else {
                json!(job.working_directory)
            },
        ),
        (
            "parallelism",
            if job.parallelism == 1 {
                Value::Null
            } else {
                json!(job.parallelism)
            },
        ),
        (
            "circleci_ip_ranges",
            if job.ip_ranges { json!(true) } else { Value::Null },
        ),
        ("steps", Value::Array(job.steps.iter().map(step_json).collect())),
    ])
}

fn image_json(image: &DockerImage) -> Value {
    use crate::compiled::RegistryAuth;
    let (mut auth, mut aws, mut gcp) = (Value::Null, Value::Null, Value::Null);
    match &image.auth {
        Some(RegistryAuth::Password { username, password }) => {
            auth = json!({ "username": username, "password": password })
        }
        Some(RegistryAuth::Aws {
            aws_access_key_id,
            aws_secret_access_key,
            oidc_role_arn,
        }) => {
            aws = object([
                ("aws_access_key_id", json!(aws_access_key_id)),
                ("aws_secret_access_key", json!(aws_secret_access_key)),
                ("oidc_role_arn", json!(oidc_role_arn)),
            ]);
        }
        Some(RegistryAuth::Gcp {
            oidc_service_account,
            workload_identity_pool,
            workload_identity_provider,
            project_number,
        }) => {
            gcp = object([
                ("project_number", json!(project_number)),
                ("oidc_service_account", json!(oidc_service_account)),
                ("workload_identity_pool", json!(workload_identity_pool)),
                ("workload_identity_provider", json!(workload_identity_provider)),
            ]);
        }
        None => {}
    }
    object([
        ("image", json!(image.image)),
        ("name", json!(image.name)),
        ("entrypoint", json!(image.entrypoint)),
        ("command", json!(image.command)),
        ("user", json!(image.user)),
        ("environment", map(&image.environment)),
        ("auth", auth),
        ("aws_auth", aws),
        ("gcp_auth", gcp),
    ])
}

fn step_json(step: &Step) -> Value {
    let when = match step.when {
        StepWhen::OnSuccess => Value::Null,
        StepWhen::Always => json!("always"),
        StepWhen::OnFail => json!("on_fail"),
    };
    let common = [("name", json!(step.name)), ("when", when)];
    let body = |own: Vec<(&'static str, Value)>| object(own.into_iter().chain(common.clone()));
    match &step.action {
        StepAction::Run(run) => json!({ "run": body(run_pairs(run)) }),
        StepAction::Deploy(run) => json!({ "deploy": body(run_pairs(run)) }),
        StepAction::Checkout { path, method } => {
            let path = if path == "." { Value::Null } else { json!(path) };
            let (method, depth) = match method {
                CheckoutMethod::Blobless => (Value::Null, Value::Null),
                CheckoutMethod::Full => (json!("full"), Value::Null),
                CheckoutMethod::Shallow { depth } => (json!("shallow"), json!(depth)),
            };
            short(
                "checkout",
                body(vec![("path", path), ("method", method), ("depth", depth)]),
            )
        }
        StepAction::SetupRemoteDocker {
            version,
            docker_layer_caching,
        } => {
            let caching = if *docker_layer_caching {
                json!(true)
            } else {
                Value::Null
            };
            short(
                "setup_remote_docker",
                body(vec![("version", json!(version)), ("docker_layer_caching", caching)]),
            )
        }
        StepAction::SaveCache { key, paths } => {
            json!({ "save_cache": body(vec![("key", json!(key)), ("paths", json!(paths))]) })
        }
        StepAction::RestoreCache { keys } => match keys.as_slice() {
            [key] => json!({ "restore_cache": body(vec![("key", json!(key))]) }),
            keys => json!({ "restore_cache": body(vec![("keys", json!(keys))]) }),
        },
        StepAction::PersistToWorkspace { root, paths } => {
            json!({ "persist_to_workspace": body(vec![("root", json!(root)), ("paths", json!(paths))]) })
        }
        StepAction::AttachWorkspace { at } => json!({ "attach_workspace": body(vec![("at", json!(at))]) }),
        StepAction::StoreArtifacts { path, destination } => {
            json!({ "store_artifacts": body(vec![("path", json!(path)), ("destination", json!(destination))]) })
        }
        StepAction::StoreTestResults { path } => json!({ "store_test_results": body(vec![("path", json!(path))]) }),
        StepAction::AddSshKeys { fingerprints } => {
            short("add_ssh_keys", body(vec![("fingerprints", json!(fingerprints))]))
        }
        StepAction::InstallSigningBundle { arguments } => short("install_signing_bundle", arguments.clone()),
        StepAction::WithToolCache { steps } => {
            json!({ "with_tool_cache": { "steps": steps.iter().map(step_json).collect::<Vec<_>>() } })
        }
    }
}

/// A step that has nothing to say is its name alone.
fn short(name: &str, body: Value) -> Value {
    if body.as_object().is_some_and(Map::is_empty) {
        json!(name)
    } else {
        json!({ name: body })
    }
}

fn run_pairs(run: &RunStep) -> Vec<(&'static str, Value)> {
    let seconds = |duration: Option<std::time::Duration>| duration.map(|duration| format!("{}s", duration.as_secs()));
    vec![
        ("command", json!(run.command)),
        ("shell", json!(run.shell)),
        ("environment", map(&run.environment)),
        ("working_directory", json!(run.working_directory)),
        ("background", if run.background { json!(true) } else { Value::Null }),
        ("no_output_timeout", json!(seconds(run.no_output_timeout))),
        ("max_auto_reruns", json!(run.max_auto_reruns)),
        ("auto_rerun_delay", json!(seconds(run.auto_rerun_delay))),
    ]
}

fn invocation_json(job: &WorkflowJob) -> Value {
    let requires: Vec<Value> = job
        .requires
        .iter()
        .map(|requirement| {
            let statuses: Vec<&str> = requirement.statuses.iter().map(|status| status.as_str()).collect();
            if requirement.statuses.len() == 1 && requirement.statuses.contains(&RequiredStatus::Success) {
                json!(requirement.job)
            } else {
                json!({ requirement.job.clone(): statuses })
            }
        })
        .collect();
    let kind = if job.kind == JobKind::Approval {
        json!("approval")
    } else {
        Value::Null
    };
    let body = object([
        ("type", kind),
        ("context", json!(job.contexts)),
        ("requires", Value::Array(requires)),
        ("serial-group", json!(job.serial_group)),
    ]);
    if body.as_object().is_some_and(Map::is_empty) {
        json!(job.name)
    } else {
        json!({ job.name.clone(): body })
    }
}
