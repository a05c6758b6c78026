//! The content of a plan, and the differences between two plans.

use crate::project_file::{OnFailure, Wait};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};
use towpath_deploy::Environment;
use towpath_manifest::{Change, ChangeKind, HookEvent, HookOccasion, Object, ObjectId, hooks_at};
use towpath_types::{CommitId, Digest, ImageReference, ReleaseId};

/// What a deployment will do.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Where it will be carried out.
    pub place: Environment,
    /// What happens when it fails.
    pub on_failure: OnFailure,
    /// How long it may take.
    pub wait: Wait,
    /// The project's images by name, each pinned by its digest. A project's only image has the project's name.
    pub images: BTreeMap<String, ImageReference>,
    /// The release that ran when the plan was made, which it starts from.
    pub parent: Option<ReleaseId>,
    /// The images of that release.
    pub previous_images: BTreeMap<String, ImageReference>,
    /// The commit that the image was built from; if that is unknown, the commit of the manifests.
    pub commit: Option<CommitId>,
    /// The commits since the release that it starts from, newest first.
    pub commits: Vec<PlanCommit>,
    /// The images that are not the project's, as the manifests have them, each with the digest that its tag meant when
    /// the plan was made; `None` if no registry told it. Only shown: they stay as they are.
    pub third_party: BTreeMap<String, Option<Digest>>,
    /// Every object after the deployment, in order of application.
    pub objects: Vec<Object>,
    /// Every object that would change.
    pub changes: Vec<PlanChange>,
    /// The number of objects that stay unchanged.
    pub unchanged: usize,
    /// The Jobs that run around the deployment.
    pub hooks: PlanHooks,
    /// Reasons why the plan cannot be carried out; sentences.
    pub blockers: Vec<String>,
    /// Warnings, which do not prevent the deployment; sentences.
    pub warnings: Vec<String>,
}

/// The hooks of a plan's chart.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PlanHooks {
    /// What the release is to the chart.
    pub occasion: HookOccasion,
    /// All hooks that can run, as Jobs. Those of other occasions are for later: a rollback to the release runs its own, and its
    /// tests can be run.
    pub jobs: Vec<Object>,
}

impl PlanHooks {
    /// The hooks that run before the deployment, in their order.
    #[must_use]
    pub fn before(&self) -> Vec<(HookEvent, Object)> {
        self.at(self.occasion.before())
    }

    /// The hooks that run after it, in their order.
    #[must_use]
    pub fn after(&self) -> Vec<(HookEvent, Object)> {
        self.at(self.occasion.after())
    }

    /// The chart's tests, in their order.
    #[must_use]
    pub fn tests(&self) -> Vec<Object> {
        let tests = self.at(HookEvent::Test);
        tests.into_iter().map(|(_, job)| job).collect()
    }

    fn at(&self, event: HookEvent) -> Vec<(HookEvent, Object)> {
        let found = hooks_at(&self.jobs, event);
        found.into_iter().map(|job| (event, job.clone())).collect()
    }

    /// Whether both run the same Jobs in the same order.
    fn do_the_same(&self, other: &Self) -> bool {
        let values = |hooks: &Self| -> Vec<(HookEvent, serde_json::Value)> {
            let runs = hooks.before().into_iter().chain(hooks.after());
            runs.map(|(event, job)| (event, job.value)).collect()
        };
        values(self) == values(other)
    }
}

/// One commit of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PlanCommit {
    pub id: CommitId,
    pub author: String,
    /// The first line of its message.
    pub subject: String,
}

/// What the plan does to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum ChangeAction {
    Created,
    Changed,
    Deleted,
}

impl ChangeAction {
    /// The word for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Deleted => "deleted",
        }
    }
}

impl fmt::Display for ChangeAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One object that a plan changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanChange {
    /// What the plan does to it.
    pub action: ChangeAction,
    /// `Deployment`.
    pub kind: String,
    /// `claims-web`.
    pub name: String,
    /// A unified diff of its YAML. It never contains values of Secrets.
    pub diff: String,
}

impl PlanChange {
    /// The changes among `all`, and the number of unchanged objects.
    pub(crate) fn of(all: Vec<Change>) -> (Vec<Self>, usize) {
        let (changed, unchanged): (Vec<_>, Vec<_>) = all
            .into_iter()
            .map(|change| {
                let action = match change.kind {
                    ChangeKind::Created => ChangeAction::Created,
                    ChangeKind::Changed => ChangeAction::Changed,
                    ChangeKind::Deleted => ChangeAction::Deleted,
                    ChangeKind::Unchanged => return None,
                };
                Some(Self {
                    action,
                    diff: change.to_string(),
                    kind: change.id.kind,
                    name: change.id.name,
                })
            })
            .partition(Option::is_some);
        (changed.into_iter().flatten().collect(), unchanged.len())
    }
}

impl Plan {
    /// The environment's name within its project.
    #[must_use]
    pub fn environment(&self) -> &str {
        self.place.id.environment()
    }

    /// Whether carrying it out would change no object.
    #[must_use]
    pub fn changes_nothing(&self) -> bool {
        self.changes.is_empty()
    }

    /// The images as text for people.
    #[must_use]
    pub fn images_text(&self) -> String {
        images_text(&self.images)
    }

    /// Phrases that describe how `now` differs from this plan in what it does. Empty when both do the same, even if
    /// they show different things.
    #[must_use]
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let mut found = Vec::new();
        if self.parent != now.parent {
            found.push("another release runs there now".to_string());
        }
        found.extend(self.image_differences(now));
        if self.commit != now.commit {
            let short = |commit: &Option<CommitId>| {
                let commit = commit.as_ref().map(|commit| format!("`{}`", commit.short()));
                commit.unwrap_or_else(|| "unknown".into())
            };
            found.push(format!(
                "the commit is {} instead of {}",
                short(&now.commit),
                short(&self.commit)
            ));
        }
        if self.place != now.place {
            let place = |plan: &Self| format!("`{}` in `{}`", plan.place.namespace, plan.place.kube_context);
            found.push(format!("the namespace is {} instead of {}", place(now), place(self)));
        }
        if (self.on_failure, self.wait) != (now.on_failure, now.wait) {
            found.push("what happens when it fails, or how long it may take, is set differently".to_string());
        }
        found.extend(self.object_differences(now));
        if !self.hooks.do_the_same(&now.hooks) {
            found.push("other hooks are to run".to_string());
        }
        found
    }

    fn image_differences(&self, now: &Self) -> Vec<String> {
        let is_only = self.images.len() == 1 && now.images.len() == 1;
        let names: BTreeSet<&String> = self.images.keys().chain(now.images.keys()).collect();
        let differs = names
            .into_iter()
            .filter(|name| self.images.get(*name) != now.images.get(*name));
        let text = |image: Option<&ImageReference>| image.map_or_else(|| "none".into(), |image| format!("`{image}`"));
        differs
            .map(|name| {
                let of = if is_only { String::new() } else { format!(" `{name}`") };
                let (then, current) = (self.images.get(name), now.images.get(name));
                format!("the image{of} is {} instead of {}", text(current), text(then))
            })
            .collect()
    }

    fn object_differences(&self, now: &Self) -> Vec<String> {
        let by_id =
            |plan: &Self| -> BTreeMap<ObjectId, usize> { plan.objects.iter().map(Object::id).zip(0..).collect() };
        let (then, current) = (by_id(self), by_id(now));
        let ids: BTreeSet<&ObjectId> = then.keys().chain(current.keys()).collect();
        let mut found = Vec::new();
        for id in ids {
            match (then.get(id), current.get(id)) {
                (Some(then), Some(current)) => {
                    if self.objects[*then].value != now.objects[*current].value {
                        found.push(format!("{id} is to be different"));
                    }
                }
                (Some(_), None) => found.push(format!("{id} is no longer part of it")),
                (None, _) => found.push(format!("{id} has come in")),
            }
        }
        let order = |plan: &Self| -> Vec<ObjectId> { plan.objects.iter().map(Object::id).collect() };
        if found.is_empty() && order(self) != order(now) {
            found.push("the objects come in another order".to_string());
        }
        found
    }
}

/// Images as text for people: separated by commas.
pub(crate) fn images_text(images: &BTreeMap<String, ImageReference>) -> String {
    let images: Vec<String> = images.values().map(ToString::to_string).collect();
    images.join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::plans::{config_map, plan};
    use towpath_types::Digest;

    fn differences(change: impl FnOnce(&mut Plan)) -> String {
        let mut now = plan();
        change(&mut now);
        plan().differences(&now).join("; ")
    }

    #[test]
    fn what_is_only_shown_makes_no_difference() {
        let said = differences(|now| {
            now.commits.clear();
            now.changes.clear();
            now.unchanged = 0;
            now.blockers.clear();
            now.warnings.push("something new".into());
            now.previous_images.clear();
            now.third_party.clear();
            now.objects[0].place.line = 99;
        });
        assert_eq!(said, "");
    }

    #[test]
    fn each_difference_is_named() {
        assert_eq!(differences(|now| now.parent = None), "another release runs there now");
        let other = Digest::of(b"other");
        let said = differences(|now| {
            now.images
                .values_mut()
                .for_each(|image| *image = image.at(other.clone()));
        });
        assert_eq!(
            said,
            format!(
                "the image is `r.io/claims@{other}` instead of `r.io/claims@{}`",
                Digest::of(b"new")
            )
        );
        assert_eq!(
            differences(|now| now.commit = None),
            "the commit is unknown instead of `0123456`"
        );
        assert_eq!(
            differences(|now| now.place.namespace = "x".into()),
            "the namespace is `x` in `live` instead of `claims-dev` in `live`"
        );
        assert!(differences(|now| now.on_failure = OnFailure::Rollback).contains("set differently"));
        assert_eq!(
            differences(|now| now.objects = vec![config_map("web", "hello"), config_map("api", "")]),
            "ConfigMap/api has come in; ConfigMap/web is to be different"
        );
        assert_eq!(
            differences(|now| now.objects.clear()),
            "ConfigMap/web is no longer part of it"
        );
    }

    #[test]
    fn of_several_images_each_that_differs_is_named() {
        let other: ImageReference = format!("r.io/worker@{}", Digest::of(b"worker")).parse().unwrap();
        let said = differences(|now| {
            now.images.insert("worker".into(), other.clone());
        });
        assert_eq!(said, format!("the image `worker` is `{other}` instead of none"));
    }

    #[test]
    fn changes_are_counted_apart_from_what_stays() {
        let change = |kind| Change {
            id: config_map("web", "").id(),
            kind,
            place: config_map("web", "").place,
            hunks: Vec::new(),
        };
        let (changes, unchanged) = PlanChange::of(vec![
            change(ChangeKind::Created),
            change(ChangeKind::Unchanged),
            change(ChangeKind::Deleted),
            change(ChangeKind::Changed),
        ]);
        let actions: Vec<String> = changes.iter().map(|change| change.action.to_string()).collect();
        assert_eq!(
            (actions.join(" "), unchanged),
            ("created deleted changed".to_string(), 1)
        );
    }
}
