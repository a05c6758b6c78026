//! Lowers expanded jobs to their typed form.

use std::rc::Rc;
use std::time::Duration;

use towpath_yaml::{Diagnostic, Mapping, Node, ScalarRules, Span, Typed};

use crate::compiled::{
    CheckoutMethod, CompiledJob, DockerImage, Executor, RegistryAuth, RunStep, Scalar, Step, StepAction, StepWhen,
    Variable,
};
use crate::compiler::Compiler;
use crate::expansion::Expanded;
use crate::keys::builtin_step;
use crate::unknown_keys::UnknownKeys;

/// The default directory in which steps start.
const WORKING_DIRECTORY: &str = "~/project";

/// The longest `auto_rerun_delay`, in seconds.
const LONGEST_RERUN_DELAY: u64 = 600;

/// Lowers a job. `None` for a job without steps, such as an approval.
pub(crate) fn lower_job(compiler: &mut Compiler<'_>, expanded: &Rc<Expanded>) -> Option<CompiledJob> {
    let job = expanded.node.as_mapping()?;
    job.get("steps")?;
    let mut lower = Lower {
        compiler,
        job: &expanded.name,
        has_remote_docker: false,
    };
    let environment = job
        .get("environment")
        .map(|node| lower.environment(node))
        .unwrap_or_default();
    let steps = job.get("steps").map(|node| lower.steps(node)).unwrap_or_default();
    if steps.is_empty() && !expanded.broken {
        let message = "this job has no steps and does nothing";
        let diagnostic = Diagnostic::warning("config::no-steps", message).at(&expanded.span, "");
        lower.compiler.report(diagnostic);
    }
    Some(CompiledJob {
        executor: lower.executor(job, &expanded.span),
        working_directory: lower
            .setting(job, "working_directory")
            .unwrap_or_else(|| WORKING_DIRECTORY.to_owned()),
        shell: lower.setting(job, "shell"),
        environment,
        parallelism: lower.parallelism(job.get("parallelism")),
        resource_class: lower.resource_class(job),
        steps,
        ip_ranges: job
            .entry("circleci_ip_ranges")
            .filter(|part| lower.boolean(Some(&part.value), "circleci_ip_ranges"))
            .map(|part| part.key.span.place()),
        cache_days: lower.cache_days(job),
        place: expanded.span.place(),
    })
}

struct Lower<'c, 'o> {
    compiler: &'c mut Compiler<'o>,
    /// The name of the job's definition.
    job: &'c str,
    /// Whether the job has had a step `setup_remote_docker`.
    has_remote_docker: bool,
}

fn text_of(node: Option<&Node>) -> Option<String> {
    let node = node?;
    node.as_scalar()
        .filter(|_| !node.is_null())
        .map(|scalar| str::to_owned(&scalar.text))
}

impl Lower<'_, '_> {
    fn error(&mut self, code: &'static str, node: &Node, message: impl Into<String>) {
        self.compiler
            .report(Diagnostic::error(code, message.into()).at(node.span(), ""));
    }

    /// Warns about unknown settings of a step.
    fn check(&mut self, node: &Node, known: &[&str], what: &str) {
        self.compiler.check_keys(node, known, what, UnknownKeys::Ignored);
    }

    /// Reports unknown keys of a part of an executor as errors.
    fn check_closed(&mut self, node: &Node, known: &[&str], what: &str) {
        self.compiler.check_keys(node, known, what, UnknownKeys::Refused);
    }

    fn required(&mut self, body: &Node, key: &str, step: &str) -> String {
        match text_of(body.get(key)) {
            Some(text) => text,
            None => {
                self.missing(body, key, step, "text");
                String::new()
            }
        }
    }

    /// Reports that a step has no `key`, or that its value is not `kind`.
    fn missing(&mut self, body: &Node, key: &str, step: &str, kind: &str) {
        match body.get(key).filter(|node| !node.is_null()).cloned() {
            None => self.error("config::steps", body, format!("step `{step}` needs `{key}`")),
            Some(node) => {
                let message = format!("`{key}` of step `{step}` must be {kind}, not {}", node.kind());
                self.error("config::type", &node, message);
            }
        }
    }

    /// Reads an optional text.
    fn optional(&mut self, body: &Node, key: &str, step: &str) -> Option<String> {
        let node = body.get(key).filter(|node| !node.is_null())?.clone();
        if node.as_scalar().is_none() {
            self.missing(body, key, step, "text");
        }
        self.refuse_boolean(&node);
        text_of(Some(&node))
    }

    /// Reports a boolean where text is expected. Accepts booleans that a template produced.
    fn refuse_boolean(&mut self, node: &Node) {
        let word = node.as_scalar().map(|scalar| &scalar.text);
        if let (Some(word), Some(Typed::Bool(_))) = (word, node.typed(ScalarRules::CircleCi))
            && node.origin().text() == &**word
        {
            let message = format!("`{word}` is read as a boolean; quote it if it's meant as text.");
            self.error("config::type", node, message);
        }
    }

    /// Reads a setting of a job that must be text.
    fn setting(&mut self, job: &Mapping, key: &str) -> Option<String> {
        let node = job.get(key)?;
        // The published schema also accepts a shell as a list of words.
        if key == "shell"
            && let Some(words) = node.as_sequence()
            && words.iter().all(|word| word.as_scalar().is_some())
        {
            return Some(strings(Some(node)).join(" "));
        }
        if node.as_scalar().is_none() {
            let message = format!("`{key}` of a job must be text, not {}", node.kind());
            self.error("config::type", node, message);
        }
        self.refuse_boolean(node);
        text_of(Some(node))
    }

    /// Reads the resource class: a size, or `namespace/name` for self-hosted runners.
    ///
    /// Source: <https://circleci.com/docs/reference/configuration-reference/#resourceclass>
    fn resource_class(&mut self, job: &Mapping) -> Option<String> {
        let class = self.setting(job, "resource_class")?;
        let fits = class.split_once('/').is_none_or(|(namespace, name)| {
            let is_namespace = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b":_-+".contains(&byte);
            !namespace.is_empty()
                && namespace.bytes().all(is_namespace)
                && !name.is_empty()
                && name.bytes().all(is_name)
        });
        if let Some(node) = job.get("resource_class").filter(|_| !fits) {
            let message = format!("Invalid format in resource class or classes: {class}.");
            self.error("config::executor", node, message);
        }
        Some(class)
    }

    fn cache_days(&mut self, job: &Mapping) -> Option<u32> {
        let retention = job.get("retention").filter(|node| !node.is_null())?;
        if retention.as_mapping().is_none() {
            let message = format!(
                "`retention` must be a map such as `{{caches: 7d}}`, not {}",
                retention.kind()
            );
            self.error("config::type", retention, message);
        }
        retention.get("caches").and_then(|node| self.days(node))
    }

    fn boolean(&mut self, node: Option<&Node>, name: &str) -> bool {
        let Some(node) = node.filter(|node| !node.is_null()) else {
            return false;
        };
        match node.typed(ScalarRules::CircleCi) {
            Some(Typed::Bool(value)) => value,
            _ => {
                self.error("config::type", node, format!("{name} must be a boolean"));
                false
            }
        }
    }

    fn parallelism(&mut self, node: Option<&Node>) -> u32 {
        let Some(node) = node.filter(|node| !node.is_null()) else {
            return 1;
        };
        let number = match node.typed(ScalarRules::CircleCi) {
            Some(Typed::Int(value)) => Some(value),
            _ => None,
        };
        match number.map(u32::try_from) {
            Some(Ok(value)) if value > 0 => value,
            Some(_) => {
                self.error("config::type", node, "parallelism must be a positive integer");
                1
            }
            None => {
                self.error(
                    "config::type",
                    node,
                    "parallelism must be an integer or an expression evaluating to an integer",
                );
                1
            }
        }
    }

    fn days(&mut self, node: &Node) -> Option<u32> {
        let days = text_of(Some(node)).and_then(|text| text.strip_suffix('d')?.parse::<u32>().ok());
        let days = days.filter(|days| (1..=30).contains(days));
        if days.is_none() {
            self.error(
                "config::type",
                node,
                "`caches` must be a number of days from `1d` to `30d`",
            );
        }
        days
    }

    /// Reads where the job runs. A job without an executor has been reported already.
    fn executor(&mut self, job: &Mapping, span: &Span) -> Executor {
        let place = |key: &str| job.entry(key).map_or(span, |part| &part.key.span).place();
        if let Some(docker) = job.get("docker") {
            let Some(items) = docker.as_sequence().filter(|items| !items.is_empty()) else {
                self.error(
                    "config::executor",
                    docker,
                    "`docker` must be a list of one or more images",
                );
                return Executor::Docker { images: Vec::new() };
            };
            return Executor::Docker {
                images: items.iter().map(|item| self.image(item)).collect(),
            };
        }
        if let Some(macos) = job.get("macos") {
            self.check_closed(macos, &["xcode", "code_signing"], "`macos`");
            let xcode = text_of(macos.get("xcode"));
            if xcode.is_none() {
                self.error(
                    "config::executor",
                    macos,
                    "`macos` must be a map with `xcode`, the version to use",
                );
            }
            return Executor::Macos {
                xcode: xcode.unwrap_or_default(),
                place: place("macos"),
            };
        }
        let machine = job.get("machine");
        if let Some(machine) = machine {
            let known = ["image", "docker_layer_caching", "enabled", "code_signing"];
            self.check_closed(machine, &known, "`machine`");
            if let Some(enabled) = machine.as_mapping().and_then(|machine| machine.entry("enabled")) {
                let message = "The `enabled` machine key is deprecated and should be removed. See \
                    https://circleci.com/docs/reference/configuration-reference/#machine";
                let diagnostic = Diagnostic::warning("config::deprecated", message).at(&enabled.key.span, "");
                self.compiler.report(diagnostic);
            }
            let is_on = matches!(machine.typed(ScalarRules::CircleCi), Some(Typed::Bool(true)));
            if machine.as_mapping().is_none() && !is_on && !machine.is_null() {
                let message = "`machine` must be `true` or a map with the `image` to use";
                self.error("config::executor", machine, message);
            }
        }
        Executor::Machine {
            image: machine.and_then(|machine| text_of(machine.get("image"))),
            docker_layer_caching: self.boolean(
                machine.and_then(|machine| machine.get("docker_layer_caching")),
                "docker_layer_caching",
            ),
            place: place("machine"),
        }
    }

    fn image(&mut self, node: &Node) -> DockerImage {
        let known = [
            "image",
            "name",
            "entrypoint",
            "command",
            "user",
            "environment",
            "auth",
            "aws_auth",
            "gcp_auth",
        ];
        self.check_closed(node, &known, "an image");
        let image = text_of(node.get("image"));
        if image.is_none() {
            self.error("config::executor", node, "an entry of `docker` needs an `image`");
        }
        DockerImage {
            image: image.unwrap_or_default(),
            name: text_of(node.get("name")),
            entrypoint: words(node.get("entrypoint")),
            command: words(node.get("command")),
            user: text_of(node.get("user")),
            environment: node
                .get("environment")
                .map(|environment| self.environment(environment))
                .unwrap_or_default(),
            auth: self.auth(node),
            place: node.span().place(),
        }
    }

    fn auth(&mut self, image: &Node) -> Option<RegistryAuth> {
        let get = |section: &Node, key: &str| text_of(section.get(key));
        if let Some(auth) = image.get("auth").filter(|auth| !auth.is_null()) {
            if auth.as_mapping().is_none() {
                let message = format!(
                    "`auth` must be a map with `username` and `password`, not {}",
                    auth.kind()
                );
                self.error("config::type", auth, message);
            }
            let known = ["username", "password"];
            self.check_closed(auth, &known, "`auth`");
            self.both(auth, &known, "`auth`");
            return Some(RegistryAuth::Password {
                username: get(auth, "username").unwrap_or_default(),
                password: get(auth, "password").unwrap_or_default(),
            });
        }
        if let Some(auth) = image.get("aws_auth").filter(|auth| !auth.is_null()) {
            let known = ["aws_access_key_id", "aws_secret_access_key", "oidc_role_arn"];
            self.check_closed(auth, &known, "`aws_auth`");
            if get(auth, "oidc_role_arn").is_none() {
                self.both(auth, &known[..2], "`aws_auth`");
            }
            return Some(RegistryAuth::Aws {
                aws_access_key_id: get(auth, "aws_access_key_id"),
                aws_secret_access_key: get(auth, "aws_secret_access_key"),
                oidc_role_arn: get(auth, "oidc_role_arn"),
            });
        }
        let auth = image.get("gcp_auth").filter(|auth| !auth.is_null())?;
        let known = [
            "oidc_service_account",
            "workload_identity_pool",
            "workload_identity_provider",
            "project_number",
        ];
        self.check_closed(auth, &known, "`gcp_auth`");
        Some(RegistryAuth::Gcp {
            oidc_service_account: get(auth, "oidc_service_account"),
            workload_identity_pool: get(auth, "workload_identity_pool"),
            workload_identity_provider: get(auth, "workload_identity_provider"),
            project_number: get(auth, "project_number"),
        })
    }

    /// Reports the keys that are missing in `auth` or `aws_auth`.
    fn both(&mut self, auth: &Node, keys: &[&str], what: &str) {
        let missing = keys.iter().filter(|key| auth.get(key).is_none_or(Node::is_null));
        let missing: Vec<String> = missing.map(|key| format!("`{key}`")).collect();
        if !missing.is_empty() && auth.as_mapping().is_some() {
            self.error(
                "config::executor",
                auth,
                format!("{what} needs {}", missing.join(" and ")),
            );
        }
    }

    fn environment(&mut self, node: &Node) -> Vec<Variable> {
        let mut merged = Mapping::default();
        self.compiler.read_environment(node, &mut merged);
        merged
            .iter()
            .map(|entry| Variable {
                name: str::to_owned(&entry.key.text),
                value: scalar(&entry.value),
            })
            .collect()
    }

    fn steps(&mut self, list: &Node) -> Vec<Step> {
        let mut steps = Vec::new();
        for item in list.as_sequence().unwrap_or_default() {
            steps.extend(self.step(item));
            let part = item.as_mapping().and_then(|item| item.entries().first());
            let command = part.filter(|part| matches!(&*part.key.text, "run" | "deploy"));
            if let Some(teardown) = command.and_then(|part| part.value.get("teardown")) {
                // If a step that runs on failure only did not run, there is nothing to tear down.
                let when = match steps.last().map(|step| step.when) {
                    Some(StepWhen::OnFail) => StepWhen::OnFail,
                    _ => StepWhen::Always,
                };
                steps.extend(self.teardown(teardown, when));
            }
        }
        steps
    }

    /// Lowers the steps of a teardown. They run right after the command, even if it failed, unless they have a `when`.
    fn teardown(&mut self, list: &Node, when: StepWhen) -> Vec<Step> {
        let items = list.as_sequence().unwrap_or_default();
        let says_when = |item: &Node| {
            let part = item.as_mapping().and_then(|item| item.entries().first());
            part.is_some_and(|part| part.value.get("when").is_some())
        };
        let steps = items.iter().filter_map(|item| {
            let mut step = self.step(item)?;
            if !says_when(item) {
                step.when = when;
            }
            Some(step)
        });
        steps.collect()
    }

    fn step(&mut self, item: &Node) -> Option<Step> {
        if !item.is_shared() {
            return self.step_anew(item);
        }
        let key = item.identity();
        if let Some((known, step)) = self.compiler.lowered.get(&key)
            && known.span() == item.span()
        {
            return step.clone();
        }
        let before = (self.compiler.error_count, self.has_remote_docker);
        let step = self.step_anew(item);
        // Errors are reported for each job, and `setup_remote_docker` is counted for each job.
        if before == (self.compiler.error_count, self.has_remote_docker) {
            self.compiler.lowered.insert(key, (item.clone(), step.clone()));
        }
        step
    }

    fn step_anew(&mut self, item: &Node) -> Option<Step> {
        let place = item.span().place();
        let (name, body) = match item.as_mapping().and_then(|mapping| mapping.entries().first()) {
            Some(entry) => (&*entry.key.text, Some(&entry.value)),
            None => (&*item.as_scalar().filter(|_| !item.is_null())?.text, None),
        };
        let body = match body.filter(|body| !body.is_null()) {
            Some(body) => body.clone(),
            None => Node::mapping(Mapping::default(), item.span().clone()),
        };
        let builtin = builtin_step(name).unwrap_or(name);
        if body.as_mapping().is_none() {
            let message = format!("step `{name}` takes a map of settings, not {}", body.kind());
            self.error("config::type", &body, message);
        }
        if builtin == "setup_remote_docker" {
            if self.has_remote_docker {
                let job = self.job;
                let message = format!("More than one setup_remote_docker is not valid, please adjust in job {job}.");
                self.error("config::steps", item, message);
            }
            self.has_remote_docker = true;
        }
        let action = self.action(builtin, &body)?;
        let when = match text_of(body.get("when")).as_deref() {
            None | Some("on_success") => StepWhen::OnSuccess,
            Some("always") => StepWhen::Always,
            Some("on_fail") => StepWhen::OnFail,
            Some(other) => {
                let node = body.get("when").unwrap_or(&body).clone();
                let message = format!("`when` must be always, on_success or on_fail, not {other}");
                // CircleCI refuses a boolean from a template for commands only.
                let is_flag = matches!(node.typed(ScalarRules::CircleCi), Some(Typed::Bool(_)));
                let is_ignored = is_flag && node.origin().text().contains("<<") && !matches!(builtin, "run" | "deploy");
                self.compiler.report(match is_ignored {
                    true => {
                        Diagnostic::warning("config::steps", format!("{message}; it is ignored")).at(node.span(), "")
                    }
                    false => Diagnostic::error("config::steps", message).at(node.span(), ""),
                });
                StepWhen::OnSuccess
            }
        };
        Some(Step {
            name: self.optional(&body, "name", name),
            when,
            action,
            place,
        })
    }

    fn action(&mut self, step: &str, body: &Node) -> Option<StepAction> {
        Some(match step {
            "run" => StepAction::Run(self.run(body)),
            "deploy" => StepAction::Deploy(self.run(body)),
            "checkout" => {
                self.check(body, &["name", "path", "method", "depth", "when"], "step `checkout`");
                StepAction::Checkout {
                    path: text_of(body.get("path")).unwrap_or_else(|| ".".to_owned()),
                    method: self.method(body),
                }
            }
            "setup_remote_docker" => {
                let known = [
                    "name",
                    "version",
                    "docker_layer_caching",
                    "prefer_same_region",
                    "reusable",
                    "exclusive",
                    "when",
                ];
                self.check(body, &known, "step `setup_remote_docker`");
                for key in ["prefer_same_region", "reusable", "exclusive"] {
                    self.boolean(body.get(key), key);
                }
                StepAction::SetupRemoteDocker {
                    version: text_of(body.get("version")),
                    docker_layer_caching: self.boolean(body.get("docker_layer_caching"), "docker_layer_caching"),
                }
            }
            "save_cache" => {
                self.check(body, &["name", "key", "paths", "when"], "step `save_cache`");
                let key = self.required(body, "key", step);
                if let Some(node) = body
                    .get("key")
                    .filter(|node| key.is_empty() && node.as_scalar().is_some())
                    .cloned()
                {
                    self.error("config::steps", &node, "the `key` of step `save_cache` cannot be empty");
                }
                StepAction::SaveCache {
                    key,
                    paths: self.list(body, "paths", step),
                }
            }
            "restore_cache" => {
                self.check(body, &["name", "key", "keys", "when"], "step `restore_cache`");
                let keys = match text_of(body.get("key")) {
                    Some(key) => vec![key],
                    None => self.list(body, "keys", step),
                };
                StepAction::RestoreCache { keys }
            }
            "persist_to_workspace" => {
                let paths = match body.get("paths").is_none() && body.get("path").is_some() {
                    true => "path",
                    false => "paths",
                };
                self.check(body, &["name", "root", paths, "when"], "step `persist_to_workspace`");
                StepAction::PersistToWorkspace {
                    root: self.required(body, "root", step),
                    paths: self.list(body, paths, step),
                }
            }
            "attach_workspace" => {
                self.check(body, &["name", "at", "when"], "step `attach_workspace`");
                StepAction::AttachWorkspace {
                    at: self.required(body, "at", step),
                }
            }
            "store_artifacts" => {
                self.check(body, &["name", "path", "destination", "when"], "step `store_artifacts`");
                StepAction::StoreArtifacts {
                    path: self.required(body, "path", step),
                    destination: self.optional(body, "destination", step),
                }
            }
            "store_test_results" => {
                self.check(body, &["name", "path", "when"], "step `store_test_results`");
                StepAction::StoreTestResults {
                    path: self.required(body, "path", step),
                }
            }
            "add_ssh_keys" => {
                self.check(body, &["name", "fingerprints", "when"], "step `add_ssh_keys`");
                StepAction::AddSshKeys {
                    fingerprints: strings(body.get("fingerprints")),
                }
            }
            "install_signing_bundle" => StepAction::InstallSigningBundle {
                arguments: body.to_json(ScalarRules::CircleCi),
            },
            "with_tool_cache" => {
                self.check_closed(body, &["tool", "steps"], "step `with_tool_cache`");
                let steps = body.get("steps").cloned();
                StepAction::WithToolCache {
                    steps: steps.map(|steps| self.steps(&steps)).unwrap_or_default(),
                }
            }
            _ => return None,
        })
    }

    fn run(&mut self, body: &Node) -> RunStep {
        let known = [
            "name",
            "command",
            "shell",
            "environment",
            "background",
            "working_directory",
            "no_output_timeout",
            "when",
            "max_auto_reruns",
            "auto_rerun_delay",
            "teardown",
        ];
        self.check(body, &known, "step `run`");
        let background = self.boolean(body.get("background"), "background");
        let (reruns, delay) = (body.get("max_auto_reruns"), body.get("auto_rerun_delay"));
        if let Some(node) = reruns.or(delay).filter(|_| background).cloned() {
            let message = "Background steps cannot use max_auto_reruns or auto_rerun_delay fields";
            self.error("config::steps", &node, message);
        } else if let Some(node) = delay.filter(|_| reruns.is_none()).cloned() {
            let message = "auto_rerun_delay requires max_auto_reruns to be specified";
            self.error("config::steps", &node, message);
        }
        RunStep {
            command: match body.get("command") {
                Some(_) => self.required(body, "command", "run"),
                None => {
                    self.error("config::steps", body, "a `run` step needs a command");
                    String::new()
                }
            },
            shell: self.optional(body, "shell", "run"),
            environment: body
                .get("environment")
                .map(|node| self.environment(node))
                .unwrap_or_default(),
            working_directory: self.optional(body, "working_directory", "run"),
            background,
            no_output_timeout: body
                .get("no_output_timeout")
                .and_then(|node| self.duration(node, "no_output_timeout")),
            max_auto_reruns: body.get("max_auto_reruns").and_then(|node| self.reruns(node)),
            auto_rerun_delay: body.get("auto_rerun_delay").and_then(|node| self.rerun_delay(node)),
        }
    }

    /// Reads an `auto_rerun_delay`: minutes or seconds, up to ten minutes.
    fn rerun_delay(&mut self, node: &Node) -> Option<Duration> {
        let text = text_of(Some(node)).unwrap_or_default();
        let parts = text.strip_suffix('m').map(|number| (number, 60));
        let parts = parts.or_else(|| Some((text.strip_suffix('s')?, 1)));
        let seconds = parts.and_then(|(number, unit)| {
            let is_plain = !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit());
            number.parse::<u64>().ok().filter(|_| is_plain)?.checked_mul(unit)
        });
        let too_long = seconds.or_else(|| {
            go_duration(&text)
                .filter(|_| text.ends_with('h'))
                .map(|long| long.as_secs())
        });
        match seconds {
            Some(seconds) if seconds <= LONGEST_RERUN_DELAY => return Some(Duration::from_secs(seconds)),
            _ if too_long.is_some_and(|seconds| seconds > LONGEST_RERUN_DELAY) => {
                let message = "auto_rerun_delay must not exceed 10 minutes (600 seconds)";
                self.error("config::type", node, message);
            }
            _ => {
                let message = "auto_rerun_delay must match ^((10|[1-9])m|([1-9][0-9]*)s)$";
                self.error("config::type", node, message);
            }
        }
        None
    }

    fn reruns(&mut self, node: &Node) -> Option<u32> {
        match node.typed(ScalarRules::CircleCi) {
            Some(Typed::Int(value)) if (1..=5).contains(&value) => u32::try_from(value).ok(),
            _ => {
                self.error(
                    "config::type",
                    node,
                    "max_auto_reruns must be an integer between 1 and 5",
                );
                None
            }
        }
    }

    /// Reads a duration in Go's syntax: `10m`, `1h30m`, `90s`, `1.5h`.
    fn duration(&mut self, node: &Node, name: &str) -> Option<Duration> {
        let text = text_of(Some(node)).unwrap_or_default();
        let parsed = go_duration(text.trim());
        if parsed.is_none() {
            self.error(
                "config::type",
                node,
                format!("{name} must be a duration such as `10m` or `1h30m`, not `{text}`"),
            );
        }
        parsed
    }

    fn list(&mut self, body: &Node, key: &str, step: &str) -> Vec<String> {
        let list = strings(body.get(key));
        if list.is_empty() {
            self.missing(body, key, step, "text or a list of texts");
        }
        list
    }

    fn method(&mut self, body: &Node) -> CheckoutMethod {
        // A method from a template may differ in other calls.
        if let (Some(method), Some(depth)) = (body.get("method"), body.get("depth"))
            && text_of(Some(method)).is_some_and(|method| method != "shallow")
            && !method.origin().text().contains("<<")
        {
            let message = "Checkout depth can only be used with the shallow checkout method";
            self.error("config::steps", depth, message);
        }
        match text_of(body.get("method")).as_deref() {
            None | Some("blobless") => CheckoutMethod::Blobless,
            Some("full") => CheckoutMethod::Full,
            Some("shallow") => {
                let depth = text_of(body.get("depth")).and_then(|text| text.parse().ok());
                if depth.is_none_or(|depth: u32| depth == 0) {
                    let node = body.get("depth").or(body.get("method")).unwrap_or(body).clone();
                    let message = "checkout with `method: shallow` needs a `depth`, a positive integer";
                    self.error("config::steps", &node, message);
                }
                CheckoutMethod::Shallow {
                    depth: depth.unwrap_or(1),
                }
            }
            Some(other) => {
                let node = body.get("method").unwrap_or(body).clone();
                self.error(
                    "config::steps",
                    &node,
                    format!(
                        "Unsupported checkout method, allowed methods are \"blobless\", \"shallow\", and \"full\": not {other}"
                    ),
                );
                CheckoutMethod::Blobless
            }
        }
    }
}

/// Reads a list of texts, or a single text.
fn strings(node: Option<&Node>) -> Vec<String> {
    match node {
        Some(node) => match node.as_sequence() {
            Some(items) => items.iter().filter_map(|item| text_of(Some(item))).collect(),
            None => text_of(Some(node)).into_iter().collect(),
        },
        None => Vec::new(),
    }
}

/// Reads the command of a container: a list of words, or one line.
fn words(node: Option<&Node>) -> Option<Vec<String>> {
    let node = node.filter(|node| !node.is_null())?;
    match node.as_sequence() {
        Some(_) => Some(strings(Some(node))),
        None => text_of(Some(node)).map(|line| line.split_whitespace().map(str::to_owned).collect()),
    }
}

fn scalar(node: &Node) -> Scalar {
    match node.typed(ScalarRules::CircleCi) {
        Some(Typed::Null) => Scalar::Null,
        Some(Typed::Bool(value)) => Scalar::Bool(value),
        Some(Typed::Int(value)) => Scalar::Int(value),
        Some(Typed::Float(value)) => Scalar::Float(value),
        Some(Typed::Text(text)) => Scalar::Text(text.to_owned()),
        // A job sees a list or a map as JSON.
        None => Scalar::Text(node.to_json(ScalarRules::CircleCi).to_string()),
    }
}

fn go_duration(text: &str) -> Option<Duration> {
    // Real configurations have plain numbers, which are seconds.
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return go_duration(&format!("{text}s"));
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let after = &rest[end..];
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        total += number
            * match &after[..unit_end] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &after[unit_end..];
    }
    Duration::try_from_secs_f64(total)
        .ok()
        .filter(|duration| !duration.is_zero() && duration.as_secs() < 1 << 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_gos_syntax() {
        let check = |text: &str, seconds: Option<f64>| {
            assert_eq!(go_duration(text), seconds.map(Duration::from_secs_f64), "{text}");
        };
        check("10m", Some(600.0));
        check("1h30m", Some(5400.0));
        check("1.5h", Some(5400.0));
        check("90s", Some(90.0));
        check("500ms", Some(0.5));
        check("2400", Some(2400.0));
        for bad in ["", "m", "10 m", "-1m", "1d", "0s", "99999999999999h"] {
            check(bad, None);
        }
    }
}
