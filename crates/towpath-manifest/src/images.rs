//! Which containers run the release's image.

use crate::object::pod_template_pointer;
use crate::{Object, ObjectId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use towpath_types::ImageReference;
use towpath_yaml::Place;

/// Which containers get the release's image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRule {
    /// The release's repository, without registry or tag: `team/app`.
    pub repository: String,
    /// Containers that get it whatever their manifest says, by name.
    pub containers: Vec<String>,
}

impl ImageRule {
    /// The rule that goes by the repository alone.
    #[must_use]
    pub fn repository(repository: &str) -> Self {
        Self {
            repository: repository.to_string(),
            containers: Vec::new(),
        }
    }

    /// Whether `container`, whose manifest says `image`, runs the release's image.
    ///
    /// Registry, tag and digest do not count, for manifests name the registry of another place and a tag that someone
    /// replaces. When one of the two repositories is a bare name (`app`), the other's last part (`team/app`) decides.
    #[must_use]
    pub fn matches(&self, container: &str, image: &str) -> bool {
        if self.containers.iter().any(|name| name == container) {
            return true;
        }
        let Ok(image) = image.parse::<ImageReference>() else {
            return false;
        };
        let (theirs, ours) = (image.repository.as_str(), self.repository.as_str());
        let last = |path: &str| path.rsplit('/').next().map(str::to_string);
        theirs == ours || ((!theirs.contains('/') || !ours.contains('/')) && last(theirs) == last(ours))
    }
}

/// One container whose image was replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplacedImage {
    /// The object.
    pub object: ObjectId,
    /// The container's name.
    pub container: String,
    /// What the manifest says; empty when it says nothing.
    pub before: String,
    /// Where it says so.
    pub place: Place,
}

/// The image is not pinned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no digest: a release runs exactly one image, so it names it as `repository@sha256:…`")]
pub struct NotPinned(pub ImageReference);

/// Puts `image` into every container that `rule` matches: containers and init containers of Deployments, StatefulSets,
/// DaemonSets, ReplicaSets, Jobs, CronJobs and Pods. Answers what was replaced, in the objects' order.
///
/// # Errors
/// [`NotPinned`] when `image` has no digest; nothing is changed then.
pub fn with_image(
    objects: &mut [Object],
    rule: &ImageRule,
    image: &ImageReference,
) -> Result<Vec<ReplacedImage>, NotPinned> {
    if image.digest.is_none() {
        return Err(NotPinned(image.clone()));
    }
    let mut replaced = Vec::new();
    for object in objects {
        for container in containers(object) {
            if !rule.matches(&container.name, &container.image) {
                continue;
            }
            let at = format!("{}/image", container.pointer);
            replaced.push(ReplacedImage {
                object: object.id(),
                container: container.name,
                before: container.image,
                place: object.place_of(&at),
            });
            if let Some(fields) = object
                .value
                .pointer_mut(&container.pointer)
                .and_then(Value::as_object_mut)
            {
                fields.insert("image".to_string(), Value::from(image.to_string()));
            }
        }
    }
    Ok(replaced)
}

/// Has the pods that run `image` pull it with the Secret `secret`, where their manifests name none.
pub fn with_pull_secret(objects: &mut [Object], image: &ImageReference, secret: &str) {
    let image = image.to_string();
    for object in objects {
        if !containers(object).iter().any(|container| container.image == image) {
            continue;
        }
        let Some(template) = pod_template_pointer(&object.kind) else {
            continue;
        };
        let spec = object
            .value
            .pointer_mut(&format!("{template}/spec"))
            .and_then(Value::as_object_mut);
        if let Some(spec) = spec {
            spec.entry("imagePullSecrets")
                .or_insert_with(|| serde_json::json!([{"name": secret}]));
        }
    }
}

/// The Secrets with which the pods that `object` starts pull their images.
#[must_use]
pub fn pull_secrets(object: &Object) -> Vec<String> {
    let Some(template) = pod_template_pointer(&object.kind) else {
        return Vec::new();
    };
    let list = object
        .value
        .pointer(&format!("{template}/spec/imagePullSecrets"))
        .and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(|one| Some(one.get("name")?.as_str()?.to_string()))
        .collect()
}

/// A container of an object's pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its name; empty when the manifest gives none.
    pub name: String,
    /// Its image as written; empty when the manifest gives none.
    pub image: String,
    /// Its JSON pointer in the object.
    pub pointer: String,
    /// Whether it is an init container.
    pub init: bool,
}

/// The containers of the pods that `object` starts, init containers first, as Kubernetes runs them.
#[must_use]
pub fn containers(object: &Object) -> Vec<Container> {
    let Some(template) = pod_template_pointer(&object.kind) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (list, init) in [("initContainers", true), ("containers", false)] {
        let pointer = format!("{template}/spec/{list}");
        let Some(Value::Array(items)) = object.value.pointer(&pointer) else {
            continue;
        };
        for (index, item) in items.iter().enumerate() {
            let text = |key: &str| item.get(key).and_then(Value::as_str).unwrap_or_default().to_string();
            found.push(Container {
                name: text("name"),
                image: text("image"),
                pointer: format!("{pointer}/{index}"),
                init,
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;
    use towpath_types::Digest;

    fn check(repository: &str, image: &str, expect: bool) {
        assert_eq!(
            ImageRule::repository(repository).matches("c", image),
            expect,
            "{repository} and {image}"
        );
    }

    #[test]
    fn registry_and_tag_do_not_count() {
        check("team/app", "team/app:latest", true);
        check(
            "team/app",
            "123.dkr.ecr.eu-west-2.amazonaws.com/team/app:app-latest",
            true,
        );
        check("team/app", "app", true);
        check("app", "r.io/team/app:1", true);
        check("team/app", "other/app", false);
        check("team/app", "team/app-worker", false);
        check("app", "redis:7", false);
        check("app", "${IMAGE}", false);
        check("app", "", false);
    }

    #[test]
    fn every_kind_that_starts_pods_gets_the_image() {
        let pod = json!({"initContainers": [{"name": "migrate", "image": "app"}],
                         "containers": [{"name": "app", "image": "app:1"}, {"name": "redis", "image": "redis:7"}, {"name": "odd"}]});
        let image: ImageReference = format!("r.io/app@{}", Digest::of(b"x")).parse().unwrap();
        let rule = ImageRule {
            repository: "app".into(),
            containers: vec!["odd".into()],
        };
        for (kind, value) in [
            ("Pod", json!({"spec": pod})),
            ("Deployment", json!({"spec": {"template": {"spec": pod}}})),
            ("StatefulSet", json!({"spec": {"template": {"spec": pod}}})),
            ("DaemonSet", json!({"spec": {"template": {"spec": pod}}})),
            ("Job", json!({"spec": {"template": {"spec": pod}}})),
            (
                "CronJob",
                json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": pod}}}}}),
            ),
        ] {
            let mut value = value;
            value["apiVersion"] = json!("v1");
            value["kind"] = json!(kind);
            value["metadata"] = json!({"name": "x"});
            let mut objects = vec![Object::from_value(value, "x.yaml").unwrap()];
            let replaced = with_image(&mut objects, &rule, &image).unwrap();
            let names: Vec<&str> = replaced.iter().map(|r| r.container.as_str()).collect();
            assert_eq!(names, ["migrate", "app", "odd"], "{kind}");
            let images: Vec<String> = containers(&objects[0]).into_iter().map(|c| c.image).collect();
            let new = image.to_string();
            assert_eq!(images, [new.as_str(), new.as_str(), "redis:7", new.as_str()], "{kind}");
        }
    }

    #[test]
    fn a_tag_is_no_release() {
        let error = with_image(&mut [], &ImageRule::repository("app"), &"app:1".parse().unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`app:1` names no digest: a release runs exactly one image, so it names it as `repository@sha256:…`"
        );
    }
}
