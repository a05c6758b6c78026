//! Pods: containers, probes, environment variables, volumes.

use super::fields::Node;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use towpath_types::ImageReference;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PodTemplate {
    pub labels: BTreeMap<String, String>,
    pub init_containers: Vec<Container>,
    pub containers: Vec<Container>,
    pub volumes: Vec<Volume>,
    pub grace: Duration,
    pub restart_policy: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Container {
    pub name: String,
    pub image: String,
    pub pull_policy: PullPolicy,
    pub command: Vec<String>,
    pub args: Vec<String>,
    pub working_dir: Option<String>,
    pub environment: Environment,
    /// Named ports.
    pub ports: BTreeMap<String, u16>,
    pub cpu_limit_millis: Option<i64>,
    pub cpu_request_millis: Option<i64>,
    pub memory_limit: Option<i64>,
    pub memory_request: Option<i64>,
    pub readiness: Option<Probe>,
    pub liveness: Option<Probe>,
    pub startup: Option<Probe>,
    pub pre_stop: Option<Hook>,
    pub mounts: Vec<MountedVolume>,
    pub security: Security,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// The sources of a container's variables, in the order of application.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Environment {
    pub from: Vec<EnvSource>,
    pub variables: Vec<(String, Source)>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EnvSource {
    pub secret: bool,
    pub name: String,
    pub prefix: String,
    pub optional: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Source {
    Value(String),
    Key {
        secret: bool,
        name: String,
        key: String,
        optional: bool,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Probe {
    pub check: Check,
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    pub success_threshold: u32,
    pub failure_threshold: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Check {
    Http {
        path: String,
        port: TargetPort,
        headers: Vec<(String, String)>,
    },
    Tcp(TargetPort),
    Exec(Vec<String>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Hook {
    Exec(Vec<String>),
    Http {
        path: String,
        port: TargetPort,
        headers: Vec<(String, String)>,
    },
    Sleep(Duration),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TargetPort {
    Number(u16),
    Name(String),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MountedVolume {
    pub volume: String,
    pub path: String,
    pub read_only: bool,
    pub sub_path: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Volume {
    pub name: String,
    pub source: VolumeSource,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum VolumeSource {
    Claim {
        name: String,
        read_only: bool,
    },
    EmptyDir,
    Files {
        secret: bool,
        name: String,
        optional: bool,
        /// Key and path; empty for every key under its own name.
        items: Vec<(String, String)>,
        mode: u32,
    },
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Security {
    pub user: Option<i64>,
    pub group: Option<i64>,
    pub non_root: bool,
    pub read_only_root: bool,
    pub no_new_privileges: bool,
    pub drop: Vec<String>,
}

impl PodTemplate {
    /// The number of the port that `port` refers to.
    pub(crate) fn port(&self, port: &TargetPort) -> Option<u16> {
        match port {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => self.containers.iter().find_map(|c| c.ports.get(name)).copied(),
        }
    }
}

pub(super) fn template(node: &Node<'_>) -> PodTemplate {
    let mut fields = node.fields();
    let labels = fields.get("metadata").map(|node| metadata(&node)).unwrap_or_default();
    let mut pod = PodTemplate {
        labels,
        init_containers: Vec::new(),
        containers: Vec::new(),
        volumes: Vec::new(),
        grace: Duration::from_secs(30),
        restart_policy: "Always".into(),
    };
    if let Some(node) = fields.need("spec") {
        spec(&node, &mut pod);
    }
    fields.finish();
    pod
}

/// Reads a template's metadata. Returns its labels.
fn metadata(node: &Node<'_>) -> BTreeMap<String, String> {
    let mut fields = node.fields();
    let labels = fields.get("labels").map(|node| node.text_map()).unwrap_or_default();
    fields.get("annotations");
    fields.get("creationTimestamp");
    fields.get("name");
    fields.finish();
    labels
}

fn spec(node: &Node<'_>, pod: &mut PodTemplate) {
    let mut fields = node.fields();
    let mut shared = Security::default();
    if let Some(node) = fields.get("securityContext") {
        let mut fields = node.fields();
        security(&mut fields, &mut shared);
        fields.finish();
    }
    if let Some(node) = fields.get("volumes") {
        pod.volumes = node.items().iter().filter_map(volume).collect();
    }
    let known: BTreeSet<String> = pod.volumes.iter().map(|volume| volume.name.clone()).collect();
    for node in fields.items("initContainers") {
        pod.init_containers.push(container(&node, &shared, &pod.volumes, true));
    }
    if let Some(node) = fields.need("containers") {
        let items = node.items();
        if items.is_empty() {
            node.refuse("must name at least one container");
        }
        pod.containers = items
            .iter()
            .map(|node| container(node, &shared, &pod.volumes, false))
            .collect();
    }
    let mut names = BTreeSet::new();
    for container in pod.init_containers.iter().chain(&pod.containers) {
        if !names.insert(container.name.as_str()) {
            node.refuse(format!("two containers are called `{}`", container.name));
        }
    }
    if known.len() < pod.volumes.len() {
        node.refuse("two volumes have one name");
    }
    if let Some(seconds) = fields.number("terminationGracePeriodSeconds", 0) {
        pod.grace = Duration::from_secs(seconds.unsigned_abs());
    }
    if let Some(policy) = fields.get("restartPolicy") {
        let words = ["Always", "OnFailure", "Never"].map(|word| (word, word.to_string()));
        pod.restart_policy = policy.word(&words).unwrap_or_default();
    }
    // There is no service account and there are no service links here, so only `false` is supported.
    for name in ["automountServiceAccountToken", "enableServiceLinks"] {
        if let Some(node) = fields.get(name)
            && node.flag() == Some(true)
        {
            node.refuse("is not supported by the local target; only `false` is");
        }
    }
    fields.finish();
}

fn container(node: &Node<'_>, shared: &Security, volumes: &[Volume], init: bool) -> Container {
    let mut fields = node.fields();
    let name = fields.need_text("name");
    let image_node = fields.need("image");
    let image = image_node.as_ref().and_then(Node::text).unwrap_or_default();
    if let (Some(node), Err(error)) = (&image_node, image.parse::<ImageReference>())
        && !image.is_empty()
    {
        node.refuse(error.to_string());
    }
    // Source: https://kubernetes.io/docs/concepts/containers/images/#imagepullpolicy-defaulting
    let floating = image
        .parse::<ImageReference>()
        .is_ok_and(|image| image.digest.is_none() && image.tag.as_deref().unwrap_or("latest") == "latest");
    let default_policy = if floating {
        PullPolicy::Always
    } else {
        PullPolicy::IfNotPresent
    };
    let pull_policy = fields.get("imagePullPolicy").and_then(|node| {
        node.word(&[
            ("Always", PullPolicy::Always),
            ("IfNotPresent", PullPolicy::IfNotPresent),
            ("Never", PullPolicy::Never),
        ])
    });
    let mut made = Container {
        name,
        image,
        pull_policy: pull_policy.unwrap_or(default_policy),
        command: fields.texts("command"),
        args: fields.texts("args"),
        working_dir: fields.text("workingDir"),
        environment: Environment {
            from: fields.items("envFrom").iter().filter_map(env_from).collect(),
            variables: fields.items("env").iter().filter_map(variable).collect(),
        },
        ports: BTreeMap::new(),
        cpu_limit_millis: None,
        cpu_request_millis: None,
        memory_limit: None,
        memory_request: None,
        readiness: None,
        liveness: None,
        startup: None,
        pre_stop: None,
        mounts: Vec::new(),
        security: shared.clone(),
    };
    for node in fields.items("ports") {
        let mut fields = node.fields();
        let number = fields.need("containerPort").and_then(|node| port_number(&node));
        if let Some(protocol) = fields.get("protocol") {
            protocol.word(&[("TCP", ())]);
        }
        if let (Some(name), Some(number)) = (fields.text("name"), number) {
            made.ports.insert(name, number);
        }
        fields.finish();
    }
    if let Some(node) = fields.get("resources") {
        let mut fields = node.fields();
        if let Some(node) = fields.get("limits") {
            (made.cpu_limit_millis, made.memory_limit) = quantities(&node);
        }
        if let Some(node) = fields.get("requests") {
            (made.cpu_request_millis, made.memory_request) = quantities(&node);
        }
        fields.finish();
    }
    if !init {
        made.readiness = fields.get("readinessProbe").and_then(|node| probe(&node, &made.ports));
        made.liveness = fields.get("livenessProbe").and_then(|node| probe(&node, &made.ports));
        made.startup = fields.get("startupProbe").and_then(|node| probe(&node, &made.ports));
        if let Some(node) = fields.get("lifecycle") {
            let mut fields = node.fields();
            made.pre_stop = fields.get("preStop").and_then(|node| hook(&node, &made.ports));
            fields.finish();
        }
    }
    for node in fields.items("volumeMounts") {
        let mut fields = node.fields();
        let volume = fields.need_text("name");
        let path_node = fields.need("mountPath");
        let path = path_node.as_ref().and_then(Node::text).unwrap_or_default();
        if let Some(node) = path_node.filter(|_| !path.starts_with('/')) {
            node.refuse("must be an absolute path");
        }
        let read_only = fields.flag("readOnly").unwrap_or(false);
        let sub_node = fields.get("subPath");
        let sub_path = sub_node.as_ref().and_then(Node::text).filter(|path| !path.is_empty());
        match volumes.iter().find(|known| known.name == volume) {
            None => node.refuse(format!("there is no volume `{volume}` in this pod")),
            Some(known) => {
                let files = matches!(known.source, VolumeSource::Files { .. });
                if let (Some(node), Some(path)) = (&sub_node, &sub_path) {
                    if !files {
                        node.refuse("is supported for ConfigMap and Secret volumes only");
                    } else if !is_inside(path) {
                        node.refuse("must stay inside the volume");
                    }
                }
            }
        }
        fields.finish();
        made.mounts.push(MountedVolume {
            volume,
            path,
            read_only,
            sub_path,
        });
    }
    if let Some(node) = fields.get("securityContext") {
        let mut fields = node.fields();
        security(&mut fields, &mut made.security);
        if let Some(read_only) = fields.flag("readOnlyRootFilesystem") {
            made.security.read_only_root = read_only;
        }
        if let Some(allowed) = fields.flag("allowPrivilegeEscalation") {
            made.security.no_new_privileges = !allowed;
        }
        if let Some(node) = fields.get("capabilities") {
            let mut fields = node.fields();
            made.security.drop = fields.texts("drop");
            fields.finish();
        }
        if let Some(node) = fields.get("privileged")
            && node.flag() == Some(true)
        {
            node.refuse("is not supported by the local target; only `false` is");
        }
        fields.finish();
    }
    fields.finish();
    made
}

/// The fields that pods and containers share. The container's value wins.
fn security(fields: &mut super::fields::Fields<'_>, security: &mut Security) {
    security.user = fields.number("runAsUser", 0).or(security.user);
    security.group = fields.number("runAsGroup", 0).or(security.group);
    security.non_root = fields.flag("runAsNonRoot").unwrap_or(security.non_root);
    if let Some(node) = fields.get("seccompProfile") {
        let mut fields = node.fields();
        // The engine applies its own profile by default.
        if let Some(kind) = fields.need("type") {
            kind.word(&[("RuntimeDefault", ())]);
        }
        fields.finish();
    }
}

fn env_from(node: &Node<'_>) -> Option<EnvSource> {
    let mut fields = node.fields();
    let prefix = fields.text("prefix").unwrap_or_default();
    let config_map = fields.get("configMapRef");
    let secret = fields.get("secretRef");
    let found = match (&config_map, &secret) {
        (Some(node), None) => Some((false, node)),
        (None, Some(node)) => Some((true, node)),
        _ => {
            fields.refuse("must have either `configMapRef` or `secretRef`");
            None
        }
    };
    let source = found.map(|(secret, node)| {
        let mut fields = node.fields();
        let source = EnvSource {
            secret,
            name: fields.need_text("name"),
            prefix,
            optional: fields.flag("optional").unwrap_or(false),
        };
        fields.finish();
        source
    });
    fields.finish();
    source
}

fn variable(node: &Node<'_>) -> Option<(String, Source)> {
    let mut fields = node.fields();
    let name = fields.need_text("name");
    let value = fields.text("value");
    let from = fields.get("valueFrom");
    let source = match (value, from) {
        (Some(_), Some(node)) => {
            node.refuse("cannot stand beside `value`");
            None
        }
        (Some(value), None) => Some(Source::Value(value)),
        (None, None) => Some(Source::Value(String::new())),
        (None, Some(node)) => {
            let mut fields = node.fields();
            let config_map = fields.get("configMapKeyRef");
            let secret = fields.get("secretKeyRef");
            let source = match (&config_map, &secret) {
                (Some(node), None) => Some(key_reference(node, false)),
                (None, Some(node)) => Some(key_reference(node, true)),
                (Some(_), Some(_)) => {
                    fields.refuse("cannot have both `configMapKeyRef` and `secretKeyRef`");
                    None
                }
                (None, None) => None,
            };
            fields.finish();
            source
        }
    };
    fields.finish();
    Some((name, source?))
}

fn key_reference(node: &Node<'_>, secret: bool) -> Source {
    let mut fields = node.fields();
    let source = Source::Key {
        secret,
        name: fields.need_text("name"),
        key: fields.need_text("key"),
        optional: fields.flag("optional").unwrap_or(false),
    };
    fields.finish();
    source
}

fn port_number(node: &Node<'_>) -> Option<u16> {
    let number = node
        .value
        .as_u64()
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number > 0);
    if number.is_none() {
        node.refuse("must be a port, 1 to 65535");
    }
    number
}

pub(super) fn target_port(node: &Node<'_>) -> Option<TargetPort> {
    match node.value.as_str() {
        Some(name) if !name.is_empty() => Some(TargetPort::Name(name.to_string())),
        _ => port_number(node).map(TargetPort::Number),
    }
}

/// A port of the container itself.
fn own_port(node: &Node<'_>, ports: &BTreeMap<String, u16>) -> Option<TargetPort> {
    let port = target_port(node)?;
    match &port {
        TargetPort::Name(name) => match ports.get(name) {
            Some(number) => Some(TargetPort::Number(*number)),
            None => {
                node.refuse(format!("the container has no port called `{name}`"));
                None
            }
        },
        TargetPort::Number(_) => Some(port),
    }
}

type HttpGet = (String, TargetPort, Vec<(String, String)>);

fn http_get(node: &Node<'_>, ports: &BTreeMap<String, u16>) -> Option<HttpGet> {
    let mut fields = node.fields();
    let path = fields.text("path").unwrap_or_else(|| "/".into());
    let port = fields.need("port").and_then(|node| own_port(&node, ports));
    if let Some(scheme) = fields.get("scheme") {
        scheme.word(&[("HTTP", ())]);
    }
    let headers = fields
        .items("httpHeaders")
        .iter()
        .map(|node| {
            let mut fields = node.fields();
            let header = (fields.need_text("name"), fields.need_text("value"));
            fields.finish();
            header
        })
        .collect();
    fields.finish();
    Some((path, port?, headers))
}

fn exec(node: &Node<'_>) -> Vec<String> {
    let mut fields = node.fields();
    let command = fields.need("command").map(|node| node.texts()).unwrap_or_default();
    if command.is_empty() {
        node.refuse("needs a command");
    }
    fields.finish();
    command
}

fn probe(node: &Node<'_>, ports: &BTreeMap<String, u16>) -> Option<Probe> {
    let mut fields = node.fields();
    let http = fields.get("httpGet");
    let tcp = fields.get("tcpSocket");
    let command = fields.get("exec");
    let check = match (http, tcp, command) {
        (Some(node), None, None) => {
            http_get(&node, ports).map(|(path, port, headers)| Check::Http { path, port, headers })
        }
        (None, Some(node), None) => {
            let mut fields = node.fields();
            let port = fields.need("port").and_then(|node| own_port(&node, ports));
            fields.finish();
            port.map(Check::Tcp)
        }
        (None, None, Some(node)) => Some(Check::Exec(exec(&node))),
        _ => {
            fields.refuse("must have one of `httpGet`, `tcpSocket` and `exec`");
            None
        }
    };
    let seconds = |value: Option<i64>, default: u64| Duration::from_secs(value.map_or(default, i64::unsigned_abs));
    let count = |value: Option<i64>, default: u32| value.and_then(|v| u32::try_from(v).ok()).unwrap_or(default);
    // Defaults: https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
    let probe = (
        seconds(fields.number("initialDelaySeconds", 0), 0),
        seconds(fields.number("periodSeconds", 1), 10),
        seconds(fields.number("timeoutSeconds", 1), 1),
        count(fields.number("successThreshold", 1), 1),
        count(fields.number("failureThreshold", 1), 3),
    );
    fields.finish();
    Some(Probe {
        check: check?,
        initial_delay: probe.0,
        period: probe.1,
        timeout: probe.2,
        success_threshold: probe.3,
        failure_threshold: probe.4,
    })
}

fn hook(node: &Node<'_>, ports: &BTreeMap<String, u16>) -> Option<Hook> {
    let mut fields = node.fields();
    let command = fields.get("exec");
    let http = fields.get("httpGet");
    let sleep = fields.get("sleep");
    let hook = match (command, http, sleep) {
        (Some(node), None, None) => Some(Hook::Exec(exec(&node))),
        (None, Some(node), None) => {
            http_get(&node, ports).map(|(path, port, headers)| Hook::Http { path, port, headers })
        }
        (None, None, Some(node)) => {
            let mut fields = node.fields();
            let seconds = fields.need("seconds").and_then(|node| node.number(0)).unwrap_or(0);
            fields.finish();
            Some(Hook::Sleep(Duration::from_secs(seconds.unsigned_abs())))
        }
        _ => {
            fields.refuse("must have one of `exec`, `httpGet` and `sleep`");
            None
        }
    };
    fields.finish();
    hook
}

fn is_inside(path: &str) -> bool {
    !path.starts_with('/')
        && path
            .split('/')
            .all(|part| !part.is_empty() && part != ".." && part != ".")
}

fn volume(node: &Node<'_>) -> Option<Volume> {
    let mut fields = node.fields();
    let name = fields.need_text("name");
    let claim = fields.get("persistentVolumeClaim");
    let empty = fields.get("emptyDir");
    let config_map = fields.get("configMap");
    let secret = fields.get("secret");
    let count = [&claim, &empty, &config_map, &secret]
        .iter()
        .filter(|source| source.is_some())
        .count();
    let source = if let Some(node) = claim {
        let mut fields = node.fields();
        let source = VolumeSource::Claim {
            name: fields.need_text("claimName"),
            read_only: fields.flag("readOnly").unwrap_or(false),
        };
        fields.finish();
        Some(source)
    } else if let Some(node) = empty {
        node.fields().finish();
        Some(VolumeSource::EmptyDir)
    } else if let Some(node) = config_map {
        Some(files(&node, false))
    } else {
        secret.map(|node| files(&node, true))
    };
    if count > 1 {
        node.refuse("has more than one source");
    }
    let known = source.is_some();
    if !known && fields_are_only_name(node) {
        node.refuse("has no source");
    }
    fields.finish();
    // The unknown kind of volume is refused above; do not refuse its mounts as well.
    Some(Volume {
        name,
        source: source.unwrap_or(VolumeSource::EmptyDir),
    })
}

fn fields_are_only_name(node: &Node<'_>) -> bool {
    node.value
        .as_object()
        .is_some_and(|map| map.keys().all(|key| key == "name"))
}

fn files(node: &Node<'_>, secret: bool) -> VolumeSource {
    let mut fields = node.fields();
    let name = fields.need_text(if secret { "secretName" } else { "name" });
    let items = fields
        .items("items")
        .iter()
        .map(|node| {
            let mut fields = node.fields();
            let key = fields.need_text("key");
            let path_node = fields.need("path");
            let path = path_node.as_ref().and_then(Node::text).unwrap_or_default();
            if let Some(node) = path_node.filter(|_| !is_inside(&path)) {
                node.refuse("must stay inside the volume");
            }
            fields.finish();
            (key, path)
        })
        .collect();
    let source = VolumeSource::Files {
        secret,
        name,
        optional: fields.flag("optional").unwrap_or(false),
        items,
        mode: fields
            .number("defaultMode", 0)
            .and_then(|mode| u32::try_from(mode).ok())
            .unwrap_or(0o644),
    };
    fields.finish();
    source
}

/// CPU in thousandths and memory in bytes.
fn quantities(node: &Node<'_>) -> (Option<i64>, Option<i64>) {
    let mut fields = node.fields();
    let cpu = fields.get("cpu").and_then(|node| quantity(&node, 1000.0));
    let memory = fields.get("memory").and_then(|node| quantity(&node, 1.0));
    fields.finish();
    (cpu, memory)
}

/// A quantity times `scale`, rounded up.
///
/// Source: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>
pub(super) fn quantity(node: &Node<'_>, scale: f64) -> Option<i64> {
    let text = match node.value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let factor = match suffix {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => f64::NAN,
    };
    let value = number
        .parse::<f64>()
        .map_or(f64::NAN, |number| number * factor * scale)
        .ceil();
    if !(0.0..9e15).contains(&value) {
        node.refuse("must be a quantity such as `250m`, `2`, `128Mi` or `1Gi`");
        return None;
    }
    #[allow(clippy::cast_possible_truncation)]
    Some(value as i64)
}
