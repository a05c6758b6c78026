//! Helm hooks: objects of a chart that belong to a moment of a release, and not to its state.
//!
//! Source: <https://helm.sh/docs/topics/charts_hooks/>

use crate::{Kind, Object};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fmt};

/// The annotation that lists the events of a hook: `pre-upgrade,post-install`.
pub(crate) const HOOK: &str = "helm.sh/hook";
const WEIGHT: &str = "helm.sh/hook-weight";
const DELETION: &str = "helm.sh/hook-delete-policy";

/// A moment in the life of a chart's release.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HookEvent {
    PreInstall,
    PostInstall,
    PreUpgrade,
    PostUpgrade,
    PreRollback,
    PostRollback,
    PreDelete,
    PostDelete,
    Test,
}

impl HookEvent {
    const ALL: [Self; 9] = [
        Self::PreInstall,
        Self::PostInstall,
        Self::PreUpgrade,
        Self::PostUpgrade,
        Self::PreRollback,
        Self::PostRollback,
        Self::PreDelete,
        Self::PostDelete,
        Self::Test,
    ];

    /// The event's name in the annotation.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PreInstall => "pre-install",
            Self::PostInstall => "post-install",
            Self::PreUpgrade => "pre-upgrade",
            Self::PostUpgrade => "post-upgrade",
            Self::PreRollback => "pre-rollback",
            Self::PostRollback => "post-rollback",
            Self::PreDelete => "pre-delete",
            Self::PostDelete => "post-delete",
            Self::Test => "test",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        // The names of tests in charts for Helm 2.
        if matches!(text, "test-success" | "test-failure") {
            return Some(Self::Test);
        }
        Self::ALL.into_iter().find(|event| event.as_str() == text)
    }
}

impl fmt::Display for HookEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a release is to the chart that it deploys. It selects the hooks that run.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookOccasion {
    /// The application was not deployed there before, neither by Towpath nor by Helm.
    #[default]
    Install,
    Upgrade,
    /// Somebody rolls back to an earlier release.
    Rollback,
}

impl HookOccasion {
    /// The event before anything else changes.
    #[must_use]
    pub fn before(self) -> HookEvent {
        match self {
            Self::Install => HookEvent::PreInstall,
            Self::Upgrade => HookEvent::PreUpgrade,
            Self::Rollback => HookEvent::PreRollback,
        }
    }

    /// The event after all workloads have rolled out.
    #[must_use]
    pub fn after(self) -> HookEvent {
        match self {
            Self::Install => HookEvent::PostInstall,
            Self::Upgrade => HookEvent::PostUpgrade,
            Self::Rollback => HookEvent::PostRollback,
        }
    }
}

/// When the object of a hook is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Deletion {
    /// Before it is created the next time.
    BeforeCreation,
    /// As soon as it has succeeded.
    Succeeded,
    /// As soon as it has failed.
    Failed,
}

/// What the annotations of a hook say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    events: BTreeSet<HookEvent>,
    weight: i64,
    deletion: BTreeSet<Deletion>,
}

impl Hook {
    /// Reads the annotations of an object; `None` if it is no hook.
    ///
    /// # Errors
    /// A sentence, if they say something that Helm does not know.
    pub fn of(object: &Object) -> Result<Option<Self>, String> {
        let annotation = |name: &str| {
            let value = object.value.get("metadata")?.get("annotations")?.get(name)?;
            value.as_str().map(str::trim)
        };
        let Some(events) = annotation(HOOK) else {
            return Ok(None);
        };
        let words = |text: &'static str, from: &'_ str| -> Vec<(&'static str, String)> {
            from.split(',').map(|word| (text, word.trim().to_string())).collect()
        };
        let unknown = |(name, word): &(&str, String), known: &str| {
            format!("`{name}: {word}` is nothing that Helm knows: there are {known}")
        };
        let mut hook = Self {
            events: BTreeSet::new(),
            weight: 0,
            deletion: BTreeSet::new(),
        };
        for word in words(HOOK, events) {
            let known = HookEvent::ALL.map(HookEvent::as_str).join(", ");
            hook.events
                .insert(HookEvent::parse(&word.1).ok_or_else(|| unknown(&word, &known))?);
        }
        if let Some(weight) = annotation(WEIGHT).filter(|weight| !weight.is_empty()) {
            hook.weight = weight
                .parse()
                .map_err(|_| format!("`{WEIGHT}: {weight}` is not a whole number"))?;
        }
        for word in words(DELETION, annotation(DELETION).unwrap_or_default()) {
            hook.deletion.insert(match word.1.as_str() {
                "" => continue,
                "before-hook-creation" => Deletion::BeforeCreation,
                "hook-succeeded" => Deletion::Succeeded,
                "hook-failed" => Deletion::Failed,
                _ => return Err(unknown(&word, "before-hook-creation, hook-succeeded, hook-failed")),
            });
        }
        Ok(Some(hook))
    }

    /// Whether it runs at `event`.
    #[must_use]
    pub fn runs_at(&self, event: HookEvent) -> bool {
        self.events.contains(&event)
    }

    /// Whether its Job is deleted after it has succeeded, or failed.
    #[must_use]
    pub fn is_deleted_after(&self, success: bool) -> bool {
        let policy = match success {
            true => Deletion::Succeeded,
            false => Deletion::Failed,
        };
        self.deletion.contains(&policy)
    }

    fn is_only_for(&self, events: &[HookEvent]) -> bool {
        self.events.iter().all(|event| events.contains(event))
    }

    /// The events as text: `pre-install, pre-upgrade`.
    fn events_text(&self) -> String {
        let events: Vec<&str> = self.events.iter().map(|event| event.as_str()).collect();
        events.join(", ")
    }
}

/// The hooks among `hooks` that run at `event`, in their order: by weight, then by name.
///
/// Source: <https://github.com/helm/helm/blob/main/pkg/action/hooks.go>
#[must_use]
pub fn hooks_at(hooks: &[Object], event: HookEvent) -> Vec<&Object> {
    let weight = |object: &Object| {
        let hook = Hook::of(object).ok().flatten()?;
        hook.runs_at(event).then_some(hook.weight)
    };
    let mut found: Vec<(i64, &Object)> = hooks.iter().filter_map(|hook| Some((weight(hook)?, hook))).collect();
    found.sort_by_key(|(weight, object)| (*weight, object.name.as_str()));
    found.into_iter().map(|(_, object)| object).collect()
}

/// Whether an object is a hook that is applied with the objects of a release, before the hooks that run.
#[must_use]
pub fn is_applied_hook(object: &Object) -> bool {
    object.kind != "Job" && matches!(Hook::of(object), Ok(Some(_)))
}

/// Whether a path is that of an object that Helm rendered: the forms of `RenderedEnvironment::path_of`.
pub(crate) fn is_rendered_by_helm(path: &str) -> bool {
    let by_helm = |part: &str| part == "(rendered by helm)" || part.starts_with("(rendered by helm for ");
    path.split('/').any(by_helm)
}

/// Whether a hook is a test and nothing else.
pub(crate) fn is_test(object: &Object) -> bool {
    matches!(Hook::of(object), Ok(Some(hook)) if hook.is_only_for(&[HookEvent::Test]))
}

/// What becomes of an object of a chart.
pub(crate) enum Part {
    /// It is no hook, and an object like any other.
    Plain,
    /// It runs as this Job when its event comes.
    Runs(Box<Object>),
    /// Hooks need it: it is applied with the objects of the release. A sentence says how that differs from Helm.
    Applied(String),
    /// Its events never come. A sentence says so.
    Never(String),
    /// It cannot run as a hook. A sentence says why.
    Refused(String),
}

/// Decides what becomes of an object that Helm rendered.
pub(crate) fn part_of(object: &Object) -> Part {
    let hook = match Hook::of(object) {
        Ok(None) => return Part::Plain,
        Ok(Some(hook)) => hook,
        Err(message) => return Part::Refused(format!("{}: {message}", object.id())),
    };
    let (id, events) = (object.id(), hook.events_text());
    if hook.is_only_for(&[HookEvent::PreDelete, HookEvent::PostDelete]) {
        return Part::Never(format!(
            "the {} `{}` is a Helm hook ({events}): Towpath uninstalls no charts, so it never runs",
            object.kind, object.name
        ));
    }
    let part = match object.kind.as_str() {
        "Job" => Part::Runs(Box::new(object.clone())),
        "Pod" => match as_job(object) {
            Ok(job) => Part::Runs(Box::new(job)),
            Err(why) => Part::Refused(why),
        },
        kind if Kind::of(kind).pod_template.is_some() => Part::Refused(format!(
            "{id} is a Helm hook ({events}), and only a Job or a Pod can run as one: make it a Job, or remove `{HOOK}` so that \
             the release has it"
        )),
        kind => Part::Applied(format!(
            "the {kind} `{}` is a Helm hook ({events}): it is applied before the hooks that run, stays, and is not deleted afterwards",
            object.name
        )),
    };
    match part {
        // No deployment runs a test, so none has to wait until it is right.
        Part::Refused(why) if hook.is_only_for(&[HookEvent::Test]) => Part::Never(format!("a test cannot run: {why}")),
        part => part,
    }
}

/// The Job that runs a Pod once.
fn as_job(pod: &Object) -> Result<Object, String> {
    let policy = pod.value.pointer("/spec/restartPolicy").and_then(Value::as_str);
    if !matches!(policy, Some("Never" | "OnFailure")) {
        return Err(format!(
            "{} is a Helm hook, and it would never end: set `restartPolicy: Never` in its `spec`",
            pod.id()
        ));
    }
    let of_metadata = |field: &str| pod.value.pointer(&format!("/metadata/{field}")).cloned();
    let mut job = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": { "name": pod.name },
        "spec": { "backoffLimit": 0, "template": { "spec": pod.value.get("spec") } },
    });
    for field in ["labels", "annotations", "namespace"] {
        if let Some(value) = of_metadata(field) {
            job["metadata"][field] = value;
        }
    }
    if let Some(labels) = of_metadata("labels") {
        job["spec"]["template"]["metadata"] = json!({ "labels": labels });
    }
    let mut job = Object::from_value(job, "").map_err(|error| error.to_string())?;
    job.place = pod.place.clone();
    Ok(job)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_helm_renders_is_known_by_its_path() {
        for folder in ["chart", ".k8s/live/dev", ""] {
            for (by, expect) in [
                (
                    crate::RenderedBy::Helm {
                        chart: folder.into(),
                        values: Vec::new(),
                        set: Vec::new(),
                        release: None,
                    },
                    true,
                ),
                (crate::RenderedBy::Kustomize, false),
            ] {
                let rendered = crate::RenderedEnvironment {
                    kube_context: "live".into(),
                    environment: "dev".into(),
                    folder: folder.into(),
                    by,
                };
                assert_eq!(
                    is_rendered_by_helm(&rendered.path_of("migrate.job")),
                    expect,
                    "{folder}"
                );
            }
        }
    }

    fn object(kind: &str, name: &str, annotations: Value) -> Object {
        let value = json!({
            "apiVersion": "v1", "kind": kind, "metadata": {"name": name, "annotations": annotations},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "one", "image": "busybox"}]},
        });
        Object::from_value(value, "chart.yaml").unwrap()
    }

    fn names(hooks: &[Object], event: HookEvent) -> Vec<&str> {
        hooks_at(hooks, event)
            .into_iter()
            .map(|hook| hook.name.as_str())
            .collect()
    }

    #[test]
    fn hooks_run_by_weight_and_then_by_name() {
        let hook = |name: &str, events: &str, weight: &str| {
            object(
                "Job",
                name,
                json!({"helm.sh/hook": events, "helm.sh/hook-weight": weight}),
            )
        };
        let hooks = [
            hook("zeta", "pre-upgrade", "-5"),
            hook("beta", "pre-install, pre-upgrade", "10"),
            hook("alpha", "pre-upgrade", "10"),
            hook("omega", "post-upgrade", ""),
            object("Job", "plain", json!({})),
        ];
        assert_eq!(names(&hooks, HookEvent::PreUpgrade), ["zeta", "alpha", "beta"]);
        assert_eq!(names(&hooks, HookEvent::PreInstall), ["beta"]);
        assert_eq!(names(&hooks, HookOccasion::Upgrade.after()), ["omega"]);
        assert!(names(&hooks, HookOccasion::Rollback.before()).is_empty());
    }

    #[test]
    fn delete_policies_are_for_success_or_failure() {
        let deleted = |policy: &str| {
            let hook = object(
                "Job",
                "a",
                json!({"helm.sh/hook": "test", "helm.sh/hook-delete-policy": policy}),
            );
            let hook = Hook::of(&hook).unwrap().unwrap();
            (hook.is_deleted_after(true), hook.is_deleted_after(false))
        };
        assert_eq!(deleted("before-hook-creation"), (false, false));
        assert_eq!(deleted("before-hook-creation,hook-succeeded"), (true, false));
        assert_eq!(deleted("hook-succeeded, hook-failed"), (true, true));
    }

    #[test]
    fn what_helm_does_not_know_is_named() {
        for (annotations, expect) in [
            (json!({"helm.sh/hook": "pre-upgarde"}), "`helm.sh/hook: pre-upgarde`"),
            (
                json!({"helm.sh/hook": "test", "helm.sh/hook-weight": "heavy"}),
                "`helm.sh/hook-weight: heavy`",
            ),
            (
                json!({"helm.sh/hook": "test", "helm.sh/hook-delete-policy": "never"}),
                "`helm.sh/hook-delete-policy: never`",
            ),
        ] {
            let error = Hook::of(&object("Job", "a", annotations)).unwrap_err();
            assert!(error.starts_with(expect), "{error}");
        }
    }

    #[test]
    fn a_pod_runs_as_a_job_that_runs_once() {
        let mut pod = object("Pod", "probe", json!({"helm.sh/hook": "test"}));
        pod.value["metadata"]["labels"] = json!({"app": "probe"});
        let Part::Runs(job) = part_of(&pod) else {
            panic!("it runs")
        };
        assert_eq!(
            (job.kind.as_str(), job.api_version.as_str(), job.name.as_str()),
            ("Job", "batch/v1", "probe")
        );
        assert_eq!(job.value["spec"]["backoffLimit"], 0);
        assert_eq!(job.value["spec"]["template"]["metadata"]["labels"]["app"], "probe");
        assert!(Hook::of(&job).unwrap().unwrap().runs_at(HookEvent::Test));
        pod.value["spec"]["restartPolicy"] = json!("Always");
        let why = |pod: &Object| match part_of(pod) {
            Part::Refused(why) | Part::Never(why) => why,
            _ => panic!("it cannot run"),
        };
        assert!(why(&pod).starts_with("a test cannot run: Pod/probe") && why(&pod).contains("restartPolicy"));
        pod.value["metadata"]["annotations"]["helm.sh/hook"] = json!("test,pre-upgrade");
        assert!(why(&pod).starts_with("Pod/probe"));
    }

    #[test]
    fn only_what_ends_can_run_as_a_hook() {
        let part = |kind: &str, events: &str| part_of(&object(kind, "a", json!({"helm.sh/hook": events})));
        for kind in ["Deployment", "StatefulSet", "CronJob"] {
            assert!(matches!(part(kind, "pre-install"), Part::Refused(why) if why.contains(&format!("{kind}/a"))));
        }
        for kind in ["ServiceAccount", "ConfigMap", "Certificate"] {
            assert!(matches!(part(kind, "pre-install"), Part::Applied(_)));
            assert!(matches!(part(kind, "test"), Part::Applied(_)));
        }
        assert!(matches!(part("Job", "pre-delete"), Part::Never(_)));
        assert!(matches!(part("Job", "pre-delete,pre-upgrade"), Part::Runs(_)));
        assert!(matches!(part_of(&object("Job", "a", json!({}))), Part::Plain));
    }
}
