//! The containers of a workload, and which of them run the release's image.

use crate::kinds::Kind;
use crate::{Object, ObjectId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use towpath_types::ImageReference;
use towpath_yaml::Place;

/// Decides which containers run one of the project's images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRule {
    /// The repository of the image, without registry and tag: `team/app`.
    pub repository: String,
    /// The names of containers that run it whatever image their manifest has.
    pub containers: Vec<String>,
}

/// How well an [`ImageRule`] fits a container, the weakest first. Of several rules, the one that fits best counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// One of the two repositories is a bare name (`app`), and it is the last part of the other (`team/app`).
    BareName,
    /// The repositories are the same.
    Repository,
    /// The rule names the container.
    Container,
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

    /// How well the rule fits `container`, whose manifest has `image`; `None` if it does not.
    ///
    /// Registry, tag and digest do not count: manifests often name another registry and a placeholder tag.
    #[must_use]
    pub fn fit(&self, container: &str, image: &str) -> Option<Fit> {
        if self.containers.iter().any(|name| name == container) {
            return Some(Fit::Container);
        }
        let image = image.parse::<ImageReference>().ok()?;
        let (theirs, ours) = (image.repository.as_str(), self.repository.as_str());
        if theirs == ours {
            return Some(Fit::Repository);
        }
        let last = |path: &str| path.rsplit('/').next().map(str::to_string);
        let is_bare = !theirs.contains('/') || !ours.contains('/');
        (is_bare && last(theirs) == last(ours)).then_some(Fit::BareName)
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

/// Puts the image that `image_of` answers into each container and init container, in every kind that starts pods. Returns
/// what it replaced, in the order of the objects.
///
/// # Errors
/// [`NotPinned`] if such an image has no digest. Then nothing has changed.
pub fn with_images<'a>(
    objects: &mut [Object],
    image_of: impl Fn(&Container) -> Option<&'a ImageReference>,
) -> Result<Vec<ReplacedImage>, NotPinned> {
    let mut found = Vec::new();
    for (at, object) in objects.iter().enumerate() {
        for container in containers(object) {
            let Some(image) = image_of(&container) else { continue };
            if image.digest.is_none() {
                return Err(NotPinned(image.clone()));
            }
            found.push((at, container, image));
        }
    }
    let mut replaced = Vec::new();
    for (at, container, image) in found {
        let Some(object) = objects.get_mut(at) else { continue };
        replaced.push(ReplacedImage {
            object: object.id(),
            container: container.name,
            before: container.image,
            place: object.place_of(&format!("{}/image", container.pointer)),
        });
        let fields = object.value.pointer_mut(&container.pointer);
        if let Some(fields) = fields.and_then(Value::as_object_mut) {
            fields.insert("image".to_string(), Value::from(image.to_string()));
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

    fn check(repository: &str, image: &str, expect: Option<Fit>) {
        assert_eq!(
            ImageRule::repository(repository).fit("c", image),
            expect,
            "{repository} and {image}"
        );
    }

    #[test]
    fn registry_and_tag_do_not_count() {
        check("team/app", "team/app:latest", Some(Fit::Repository));
        check(
            "team/app",
            "123.dkr.ecr.eu-west-2.amazonaws.com/team/app:app-latest",
            Some(Fit::Repository),
        );
        check("team/app", "app", Some(Fit::BareName));
        check("app", "r.io/team/app:1", Some(Fit::BareName));
        check("team/app", "other/app", None);
        check("team/app", "team/app-worker", None);
        check("app", "redis:7", None);
        check("app", "${IMAGE}", None);
        check("app", "", None);
    }

    #[test]
    fn a_named_container_fits_best() {
        let rule = ImageRule {
            containers: vec!["web".into()],
            ..ImageRule::repository("app")
        };
        assert_eq!(rule.fit("web", "app"), Some(Fit::Container));
        assert_eq!(rule.fit("web", ""), Some(Fit::Container));
        assert!(Fit::Container > Fit::Repository && Fit::Repository > Fit::BareName);
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
            let fits = |container: &Container| rule.fit(&container.name, &container.image).map(|_| &image);
            let replaced = with_images(&mut objects, fits).unwrap();
            let names: Vec<&str> = replaced.iter().map(|r| r.container.as_str()).collect();
            assert_eq!(names, ["migrate", "app", "odd"], "{kind}");
            let images: Vec<String> = containers(&objects[0]).into_iter().map(|c| c.image).collect();
            let new = image.to_string();
            assert_eq!(images, [new.as_str(), new.as_str(), "redis:7", new.as_str()], "{kind}");
        }
    }

    #[test]
    fn an_image_without_a_digest_is_refused() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"},
            "spec": {"containers": [{"name": "one", "image": "one"}, {"name": "two", "image": "two"}]},
        });
        let mut objects = vec![Object::from_value(pod.clone(), "x.yaml").unwrap()];
        let pinned: ImageReference = format!("one@{}", Digest::of(b"x")).parse().unwrap();
        let loose: ImageReference = "app:1".parse().unwrap();
        let error = with_images(&mut objects, |container| match container.name.as_str() {
            "one" => Some(&pinned),
            _ => Some(&loose),
        });
        let error = error.unwrap_err();
        assert_eq!(objects[0].value, pod, "nothing has changed");
        assert_eq!(
            error.to_string(),
            "`app:1` has no digest: a release runs exactly one image, so write it as `repository@sha256:…`"
        );
    }
}
