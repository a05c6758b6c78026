//! The kinds of objects.

use super::{
    fields::{Fields, Node},
    pod::{self, PodTemplate, TargetPort},
};
use crate::proxy::{Mode, PathType};
use jiff::tz::TimeZone;
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};
use towpath_manifest::Object;
use towpath_schedule::{Schedule, ScheduleError};

/// An object that the local target supports.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Resource {
    Deployment(Box<Deployment>),
    Service(Service),
    Ingress(Ingress),
    /// A claim. Its name is its whole content.
    Claim,
    ConfigMap(BTreeMap<String, String>),
    /// A Secret. Its values come from elsewhere.
    Secret,
    Job(Box<Job>),
    CronJob(Box<CronJob>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Deployment {
    pub replicas: u32,
    pub strategy: Strategy,
    pub min_ready: Duration,
    pub progress_deadline: Duration,
    pub pod: PodTemplate,
    /// As written: the hash and the pods are made from it.
    pub template: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strategy {
    Recreate,
    Rolling { max_surge: Share, max_unavailable: Share },
}

/// A number of pods, or a percentage of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    Count(u32),
    Percent(u32),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Service {
    pub selector: BTreeMap<String, String>,
    pub ports: Vec<ServicePort>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ServicePort {
    pub name: Option<String>,
    pub port: u16,
    pub target: TargetPort,
    pub mode: Mode,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ingress {
    pub rules: Vec<IngressRule>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct IngressRule {
    pub host: Option<String>,
    pub path: String,
    pub path_type: PathType,
    pub service: String,
    pub port: TargetPort,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Job {
    pub backoff_limit: u32,
    pub active_deadline: Option<Duration>,
    pub ttl: Option<Duration>,
    pub pod: PodTemplate,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CronJob {
    pub schedule: Schedule,
    pub concurrency: ConcurrencyPolicy,
    pub starting_deadline: Option<Duration>,
    pub suspend: bool,
    pub keep_successful: usize,
    pub keep_failed: usize,
    /// As written: `metadata` and `spec` of the Jobs that it starts.
    pub job_template: Value,
    pub job: Job,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConcurrencyPolicy {
    Allow,
    Forbid,
    Replace,
}

impl Share {
    /// The share of `total`. A percentage is rounded up if `up`, otherwise down.
    pub(crate) fn of(self, total: u32, up: bool) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => {
                let exact = u64::from(total) * u64::from(percent);
                let rounded = if up { exact.div_ceil(100) } else { exact / 100 };
                u32::try_from(rounded).unwrap_or(u32::MAX)
            }
        }
    }
}

const KINDS: &[(&str, &str)] = &[
    ("apps/v1", "Deployment"),
    ("v1", "Service"),
    ("networking.k8s.io/v1", "Ingress"),
    ("v1", "PersistentVolumeClaim"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("batch/v1", "Job"),
    ("batch/v1", "CronJob"),
];

pub(super) fn resource(object: &Object, node: Node<'_>) -> Option<Resource> {
    let supported = KINDS.iter().find(|(_, kind)| *kind == object.kind);
    match supported {
        None => {
            let kinds: Vec<&str> = KINDS.iter().map(|(_, kind)| *kind).collect();
            node.refuse(format!(
                "{} of {} is not supported by the local target, which knows {}",
                object.kind,
                object.api_version,
                kinds.join(", ")
            ));
            return None;
        }
        Some((version, _)) if *version != object.api_version => {
            if let Some(node) = node.fields().get("apiVersion") {
                node.refuse(format!(
                    "`{}` is not supported by the local target; `{version}` is",
                    object.api_version
                ));
            }
            return None;
        }
        Some(_) => {}
    }
    let mut fields = node.fields();
    for name in ["apiVersion", "kind", "status"] {
        fields.get(name);
    }
    if let Some(metadata) = fields.get("metadata") {
        object_metadata(&metadata, &object.kind);
    }
    let resource = match object.kind.as_str() {
        "ConfigMap" => {
            let data = fields.get("data").map(|node| node.text_map()).unwrap_or_default();
            fields.flag("immutable");
            Some(Resource::ConfigMap(data))
        }
        "Secret" => {
            secret(&mut fields);
            Some(Resource::Secret)
        }
        kind => fields.need("spec").and_then(|spec| match kind {
            "Deployment" => Some(Resource::Deployment(Box::new(deployment(&spec)))),
            "Service" => Some(Resource::Service(service(&spec))),
            "Ingress" => Some(Resource::Ingress(ingress(&spec))),
            "PersistentVolumeClaim" => {
                claim(&spec);
                Some(Resource::Claim)
            }
            "Job" => Some(Resource::Job(Box::new(job(&spec)))),
            _ => cron_job(&spec).map(|cron_job| Resource::CronJob(Box::new(cron_job))),
        }),
    };
    fields.finish();
    resource
}

fn object_metadata(node: &Node<'_>, kind: &str) {
    let mut fields = node.fields();
    let name_node = fields.get("name");
    for name in ["namespace", "labels", "creationTimestamp"] {
        fields.get(name);
    }
    // On a cluster, these annotations configure the controller: sign-in, rewriting and the like.
    if let Some(annotations) = fields.get("annotations").filter(|_| kind == "Ingress") {
        let meant: Vec<String> = annotations
            .keys()
            .into_iter()
            .filter(|key| key.contains("ingress.") || key.contains("traefik") || key.contains("haproxy"))
            .collect();
        if !meant.is_empty() {
            annotations.note(format!(
                "mean nothing to the local target's Ingress: {}",
                meant.join(", ")
            ));
        }
    }
    if let Some(node) = name_node
        && let Some(name) = node.text()
        && !is_dns_name(&name)
    {
        node.refuse("must be 1 to 63 lower-case letters, digits, `-` and `.`, the first and last a letter or digit");
    }
    fields.finish();
}

fn is_dns_name(name: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| alnum(b) || matches!(b, b'-' | b'.'))
        && name.bytes().next().is_some_and(alnum)
        && name.bytes().last().is_some_and(alnum)
}

fn secret(fields: &mut Fields<'_>) {
    for name in ["data", "stringData"] {
        if let Some(node) = fields.get(name)
            && node.value.as_object().is_none_or(|map| !map.is_empty())
        {
            node.refuse(
                "a Secret's values do not belong into the repository; set them with `towpath secrets set` and remove them here",
            );
        }
    }
    fields.flag("immutable");
    if let Some(kind) = fields.get("type") {
        kind.word(&[("Opaque", ())]);
    }
}

fn claim(node: &Node<'_>) {
    let mut fields = node.fields();
    // Every access mode works, because all pods are on one node: this machine.
    fields.texts("accessModes");
    fields.text("storageClassName");
    if let Some(mode) = fields.get("volumeMode") {
        mode.word(&[("Filesystem", ())]);
    }
    if let Some(node) = fields.get("resources") {
        let mut resources = node.fields();
        if let Some(node) = resources.get("requests") {
            let mut requests = node.fields();
            if let Some(node) = requests.get("storage")
                && pod::quantity(&node, 1.0).is_some()
            {
                node.note("is not enforced by the local target: the volume can grow until the disk is full");
            }
            requests.finish();
        }
        resources.finish();
    }
    fields.finish();
}

fn seconds(value: Option<i64>) -> Option<Duration> {
    value.map(|seconds| Duration::from_secs(seconds.unsigned_abs()))
}

fn count(value: Option<i64>) -> Option<u32> {
    value.map(|count| u32::try_from(count).unwrap_or(u32::MAX))
}

fn selector(fields: &mut Fields<'_>, pod: &PodTemplate) {
    let Some(node) = fields.need("selector") else { return };
    let mut selector = node.fields();
    if let Some(node) = selector.need("matchLabels") {
        let labels = node.text_map();
        if labels.is_empty() {
            node.refuse("must name at least one label");
        }
        for (key, value) in labels {
            if pod.labels.get(&key) != Some(&value) {
                node.refuse(format!(
                    "the pod template has no label `{key}: {value}`, so this would select no pod"
                ));
            }
        }
    }
    selector.finish();
}

fn deployment(node: &Node<'_>) -> Deployment {
    let mut fields = node.fields();
    let template_node = fields.need("template");
    let pod = template_node.as_ref().map(pod::template).unwrap_or_else(nothing);
    if pod.restart_policy != "Always"
        && let Some(node) = &template_node
    {
        node.refuse("`restartPolicy` of a Deployment's pods is `Always`");
    }
    selector(&mut fields, &pod);
    let made = Deployment {
        replicas: count(fields.number("replicas", 0)).unwrap_or(1),
        strategy: fields.get("strategy").map(|node| strategy(&node)).unwrap_or(ROLLING),
        min_ready: seconds(fields.number("minReadySeconds", 0)).unwrap_or_default(),
        progress_deadline: seconds(fields.number("progressDeadlineSeconds", 1)).unwrap_or(Duration::from_secs(600)),
        template: template_node.map(|node| node.value.clone()).unwrap_or_default(),
        pod,
    };
    // Releases are the history here; there are no old ReplicaSets to keep.
    fields.number("revisionHistoryLimit", 0);
    if fields.flag("paused") == Some(true) {
        fields.refuse("`paused: true` is not supported by the local target");
    }
    fields.finish();
    made
}

/// Stands for the pod template if it is missing, which is refused.
fn nothing() -> PodTemplate {
    PodTemplate {
        labels: BTreeMap::new(),
        init_containers: Vec::new(),
        containers: Vec::new(),
        volumes: Vec::new(),
        grace: Duration::ZERO,
        restart_policy: "Always".into(),
    }
}

/// Source: <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#rolling-update-deployment>
const ROLLING: Strategy = Strategy::Rolling {
    max_surge: Share::Percent(25),
    max_unavailable: Share::Percent(25),
};

fn strategy(node: &Node<'_>) -> Strategy {
    let mut fields = node.fields();
    let recreate = fields
        .get("type")
        .and_then(|node| node.word(&[("RollingUpdate", false), ("Recreate", true)]))
        .unwrap_or(false);
    let (mut max_surge, mut max_unavailable) = (Share::Percent(25), Share::Percent(25));
    if let Some(node) = fields.get("rollingUpdate") {
        if recreate {
            node.refuse("cannot stand beside `type: Recreate`");
        }
        let mut fields = node.fields();
        if let Some(node) = fields.get("maxSurge") {
            max_surge = share(&node).unwrap_or(max_surge);
        }
        if let Some(node) = fields.get("maxUnavailable") {
            max_unavailable = share(&node).unwrap_or(max_unavailable);
        }
        if [max_surge, max_unavailable]
            .iter()
            .all(|s| matches!(s, Share::Count(0) | Share::Percent(0)))
        {
            node.refuse("`maxSurge` and `maxUnavailable` cannot both be 0: no pod could ever be replaced");
        }
        fields.finish();
    }
    fields.finish();
    if recreate {
        Strategy::Recreate
    } else {
        Strategy::Rolling {
            max_surge,
            max_unavailable,
        }
    }
}

fn share(node: &Node<'_>) -> Option<Share> {
    let found = match node.value {
        Value::Number(number) => number.as_u64().and_then(|n| u32::try_from(n).ok()).map(Share::Count),
        Value::String(text) => text.strip_suffix('%').and_then(|n| n.parse().ok()).map(Share::Percent),
        _ => None,
    };
    if found.is_none() {
        node.refuse("must be a number of pods or a percentage such as `25%`");
    }
    found
}

fn service(node: &Node<'_>) -> Service {
    let mut fields = node.fields();
    if let Some(kind) = fields.get("type") {
        kind.word(&[("ClusterIP", ())]);
    }
    if let Some(affinity) = fields.get("sessionAffinity") {
        affinity.word(&[("None", ())]);
    }
    let selector = fields.need("selector").map(|node| node.text_map()).unwrap_or_default();
    let ports_node = fields.need("ports");
    let ports: Vec<ServicePort> = ports_node
        .iter()
        .flat_map(Node::items)
        .filter_map(|node| service_port(&node))
        .collect();
    let mut seen = std::collections::BTreeSet::new();
    if let Some(node) = ports_node
        && !ports.iter().all(|port| seen.insert(port.port))
    {
        node.refuse("names one port twice");
    }
    fields.finish();
    Service { selector, ports }
}

fn service_port(node: &Node<'_>) -> Option<ServicePort> {
    let mut fields = node.fields();
    let name = fields.text("name");
    let port = fields.need("port").and_then(|node| pod::target_port(&node));
    let target = fields.get("targetPort").and_then(|node| pod::target_port(&node));
    if let Some(protocol) = fields.get("protocol") {
        protocol.word(&[("TCP", ())]);
    }
    let protocol = fields.text("appProtocol");
    let mode = match (protocol.as_deref(), name.as_deref()) {
        (Some("http" | "kubernetes.io/ws"), _) => Mode::Http,
        (Some(_), _) => Mode::Tcp,
        (None, Some(name)) if name.starts_with("http") && !name.starts_with("https") => Mode::Http,
        (None, Some(_)) => Mode::Tcp,
        (None, None) => Mode::Detect,
    };
    fields.finish();
    match port {
        Some(TargetPort::Number(port)) => Some(ServicePort {
            name,
            port,
            target: target.unwrap_or(TargetPort::Number(port)),
            mode,
        }),
        Some(TargetPort::Name(_)) => {
            node.refuse("`port` must be a number");
            None
        }
        None => None,
    }
}

fn ingress(node: &Node<'_>) -> Ingress {
    let mut fields = node.fields();
    // The only controller here handles every class.
    fields.text("ingressClassName");
    if let Some(node) = fields.get("tls") {
        node.note("is not served by the local target: the Ingress answers plain HTTP on 127.0.0.1");
    }
    let mut rules = Vec::new();
    if let Some((service, port)) = fields.get("defaultBackend").and_then(|node| backend(&node)) {
        rules.push(IngressRule {
            host: None,
            path: "/".into(),
            path_type: PathType::Prefix,
            service,
            port,
        });
    }
    for node in fields.items("rules") {
        let mut rule = node.fields();
        let host = rule.text("host").filter(|host| !host.is_empty());
        if let Some(node) = rule.need("http") {
            let mut http = node.fields();
            for node in http.need("paths").iter().flat_map(Node::items) {
                let mut path = node.fields();
                let text = path.text("path").unwrap_or_else(|| "/".into());
                if !text.starts_with('/') {
                    node.refuse("`path` must begin with `/`");
                }
                // The controller defines what `ImplementationSpecific` means. Here it is a prefix.
                let path_type = path.need("pathType").and_then(|node| {
                    node.word(&[
                        ("Prefix", PathType::Prefix),
                        ("Exact", PathType::Exact),
                        ("ImplementationSpecific", PathType::Prefix),
                    ])
                });
                let target = path.need("backend").and_then(|node| backend(&node));
                if let (Some(path_type), Some((service, port))) = (path_type, target) {
                    rules.push(IngressRule {
                        host: host.clone(),
                        path: text,
                        path_type,
                        service,
                        port,
                    });
                }
                path.finish();
            }
            http.finish();
        }
        rule.finish();
    }
    fields.finish();
    Ingress { rules }
}

fn backend(node: &Node<'_>) -> Option<(String, TargetPort)> {
    let mut fields = node.fields();
    let found = fields.need("service").and_then(|node| {
        let mut service = node.fields();
        let name = service.need_text("name");
        let port = service.need("port").and_then(|node| {
            let mut port = node.fields();
            let number = port.get("number").and_then(|node| pod::target_port(&node));
            let name = port.text("name").map(TargetPort::Name);
            port.finish();
            if number.is_none() && name.is_none() {
                node.refuse("must have `number` or `name`");
            }
            number.or(name)
        });
        service.finish();
        Some((name, port?))
    });
    fields.finish();
    found
}

pub(super) fn job(node: &Node<'_>) -> Job {
    let mut fields = node.fields();
    for name in ["completions", "parallelism"] {
        if let Some(node) = fields.get(name)
            && node.number(0).is_some_and(|number| number != 1)
        {
            node.refuse("is not supported by the local target; only 1 is");
        }
    }
    let template_node = fields.need("template");
    let pod = template_node.as_ref().map(pod::template).unwrap_or_else(nothing);
    if let Some(node) = &template_node
        && !matches!(pod.restart_policy.as_str(), "Never" | "OnFailure")
    {
        node.refuse("a Job's pods need `restartPolicy: Never` or `OnFailure`");
    }
    let made = Job {
        backoff_limit: count(fields.number("backoffLimit", 0)).unwrap_or(6),
        active_deadline: seconds(fields.number("activeDeadlineSeconds", 1)),
        ttl: seconds(fields.number("ttlSecondsAfterFinished", 0)),
        pod,
    };
    fields.finish();
    made
}

/// Reads `schedule` and `timeZone`. Without a time zone, the schedule uses this machine's, as a cluster uses its controller's.
fn schedule(fields: &mut Fields<'_>) -> Option<Schedule> {
    let schedule_node = fields.need("schedule");
    let zone_node = fields.get("timeZone");
    let zone = zone_node.as_ref().map(|node| (node, node.text()));
    let node = schedule_node?;
    let text = node.text()?;
    let read = match &zone {
        Some((_, name)) => Schedule::parse(&text, Some(name.as_deref()?)),
        None => Schedule::parse_in(&text, TimeZone::system()).map_err(ScheduleError::from),
    };
    match (read, zone) {
        (Ok(schedule), _) => Some(schedule),
        (Err(ScheduleError::TimeZone(error)), Some((node, _))) => {
            node.refuse(error.to_string());
            None
        }
        (Err(error), _) => {
            node.refuse(error.to_string());
            None
        }
    }
}

/// `None` if the schedule was refused.
fn cron_job(node: &Node<'_>) -> Option<CronJob> {
    let mut fields = node.fields();
    let schedule = schedule(&mut fields);
    let policies = [
        ("Allow", ConcurrencyPolicy::Allow),
        ("Forbid", ConcurrencyPolicy::Forbid),
        ("Replace", ConcurrencyPolicy::Replace),
    ];
    let keep = |value: Option<i64>, default| value.and_then(|v| usize::try_from(v).ok()).unwrap_or(default);
    let mut job_template = Value::Null;
    let mut made_job = None;
    let concurrency = fields.get("concurrencyPolicy").and_then(|node| node.word(&policies));
    let starting_deadline = seconds(fields.number("startingDeadlineSeconds", 0));
    let suspend = fields.flag("suspend").unwrap_or(false);
    let keep_successful = keep(fields.number("successfulJobsHistoryLimit", 0), 3);
    let keep_failed = keep(fields.number("failedJobsHistoryLimit", 0), 1);
    if let Some(node) = fields.need("jobTemplate") {
        job_template = node.value.clone();
        let mut template = node.fields();
        if let Some(metadata) = template.get("metadata") {
            object_metadata(&metadata, "Job");
        }
        made_job = template.need("spec").map(|node| job(&node));
        template.finish();
    }
    fields.finish();
    Some(CronJob {
        schedule: schedule?,
        concurrency: concurrency.unwrap_or(ConcurrencyPolicy::Allow),
        starting_deadline,
        suspend,
        keep_successful,
        keep_failed,
        job_template,
        job: made_job.unwrap_or_else(|| Job {
            backoff_limit: 0,
            active_deadline: None,
            ttl: None,
            pod: nothing(),
        }),
    })
}
