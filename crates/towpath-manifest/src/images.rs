//! The containers of a workload, and which of them run the release's image.

use crate::kinds::Kind;
use crate::{Object, ObjectId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use towpath_types::ImageReference;
use towpath_yaml::Place;

/// Decides which containers get the release's image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRule {
    /// The repository of the release's image, without registry and tag: `team/app`.
    pub repository: String,
    /// The names of containers that get it whatever image their manifest has.
    pub containers: Vec<String>,
}

impl ImageRule {
    /// A rule that looks only at the repository.
    #[must_use]
    pub fn repository(repository: &str) -> Self {
        Self {
            repository: repository.to_string(),
            containers: Vec::new(),
        }
    }

    /// Whether `container`, whose manifest has `image`, runs the release's image.
    ///
    /// Registry, tag and digest do not count: manifests often name another registry and a placeholder tag. If one of the two
    /// repositories is a bare name (`app`), it is compared with the last part of the other (`team/app`).
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
    /// The workload.
    pub object: ObjectId,
    /// The container's name.
    pub container: String,
    /// The image in the manifest; empty if it has none.
    pub before: String,
    /// The place of that image in the manifest.
    pub place: Place,
}

/// The image has no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` has no digest: a release runs exactly one image, so write it as `repository@sha256:…`")]
pub struct NotPinned(pub ImageReference);

/// Puts `image` into every container and init container that `rule` matches, in every kind that starts pods. Returns what it
/// replaced, in the order of the objects.
///
/// # Errors
/// [`NotPinned`] if `image` has no digest. Then nothing has changed.
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

/// Makes the pods that run `image` pull it with the Secret `secret`, unless their manifests name one.
pub fn with_pull_secret(objects: &mut [Object], image: &ImageReference, secret: &str) {
    let image = image.to_string();
    for object in objects {
        if !containers(object).iter().any(|container| container.image == image) {
            continue;
        }
        let Some(template) = Kind::of(&object.kind).pod_template else {
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

/// The names of the Secrets that the pods of `object` pull their images with.
#[must_use]
pub fn pull_secrets(object: &Object) -> Vec<String> {
    let Some(template) = Kind::of(&object.kind).pod_template else {
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

/// A container in the pods of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Empty if the manifest has none.
    pub name: String,
    /// As in the manifest; empty if it has none.
    pub image: String,
    /// The JSON pointer of the container in the object.
    pub pointer: String,
    /// Whether it is an init container.
    pub init: bool,
}

/// The containers in the pods of `object`, init containers first, in the order in which Kubernetes starts them.
#[must_use]
pub fn containers(object: &Object) -> Vec<Container> {
    let Some(template) = Kind::of(&object.kind).pod_template else {
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
    fn an_image_without_a_digest_is_refused() {
        let error = with_image(&mut [], &ImageRule::repository("app"), &"app:1".parse().unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`app:1` has no digest: a release runs exactly one image, so write it as `repository@sha256:…`"
        );
    }
}
