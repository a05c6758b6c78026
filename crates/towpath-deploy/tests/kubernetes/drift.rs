//! Drift: what others have changed.

use crate::cluster::{APPLICATION, BOUND, World, in_cluster};
use serde_json::json;
use towpath_deploy::{Drift, Identity, KubernetesOptions, KubernetesTarget, Target};
use towpath_manifest::Object;
use towpath_testkit::{Probe, until};

#[tokio::test]
async fn drift_shows_what_changed_and_who_changed_it() {
    in_cluster("drift", async |world| {
        let objects = world.objects(APPLICATION);
        world.apply(objects.clone()).await.unwrap();
        let drift = async |world: &World| world.target.drift(&world.environment, &objects).await.unwrap();
        assert_eq!(drift(world).await, []);

        world
            .namespace
            .kubectl(&["scale", "deployment", "web", "--replicas=1"])
            .await
            .unwrap();
        world
            .namespace
            .kubectl(&["set", "env", "deployment/web", "DEBUG=1"])
            .await
            .unwrap();
        world.namespace.kubectl(&["delete", "cronjob", "sweep"]).await.unwrap();
        let found = drift(world).await;
        let all = format!("{found:?}");
        let names: Vec<String> = found
            .iter()
            .map(|drift| format!("{:?} {}", drift.change.kind, drift.change.id))
            .collect();
        assert_eq!(names, ["Changed Deployment/web", "Deleted CronJob/sweep"]);
        let web = found[0].change.to_string();
        assert!(web.contains("-  replicas: 2\n+  replicas: 1"), "{web}");
        assert!(web.contains("name: DEBUG"), "{web}");
        let writers: Vec<&str> = found[0].writers.iter().map(|writer| writer.manager.as_str()).collect();
        assert!(
            writers.contains(&"kubectl-set") && found[0].writers[0].at.is_some(),
            "{all}"
        );

        // Deploying again repairs it.
        world.apply(objects.clone()).await.unwrap();
        let web = world.get("deployment", "web").await;
        assert_eq!(web.pointer("/spec/replicas"), Some(&json!(2)));
        assert!(world.namespace.has("cronjob", "sweep").await.unwrap());
    })
    .await;
}

/// The diff of the drifted object of a kind.
fn drift_of(found: &[Drift], kind: &str) -> String {
    let drift = found.iter().find(|drift| drift.change.id.kind == kind);
    drift
        .unwrap_or_else(|| panic!("no {kind} in {found:?}"))
        .change
        .to_string()
}

/// Who wrote the fields that differ in the object of a kind.
fn writers_of(found: &[Drift], kind: &str) -> Vec<String> {
    let of_kind = found.iter().filter(|drift| drift.change.id.kind == kind);
    of_kind
        .flat_map(|drift| drift.writers.iter().map(|writer| writer.manager.clone()))
        .collect()
}

/// Whether a diff has a line that starts with `sign` and has `text` in it.
fn has_line(diff: &str, sign: char, text: &str) -> bool {
    let mut lines = diff.lines();
    lines.any(|line| line.starts_with(sign) && line.contains(text))
}

#[tokio::test]
async fn drift_shows_the_value_of_the_release_and_the_current_one() {
    in_cluster("values", async |world| {
        let secret =
            "---\napiVersion: v1\nkind: Secret\nmetadata: {name: app-secrets}\nstringData: {TOKEN: first-value}\n";
        let objects = world.objects(&format!("{APPLICATION}{secret}"));
        let objects: Vec<Object> = objects.into_iter().map(Object::with_encoded_data).collect();
        world.apply(objects.clone()).await.unwrap();
        assert_eq!(world.target.drift(&world.environment, &objects).await.unwrap(), []);

        let edit = r#"{"data":{"GREETING":"goodbye","MORE":"theirs"}}"#;
        let secret_edit = r#"{"data":{"TOKEN":"aGFja2Vk"}}"#;
        for arguments in [
            &["set", "image", "deployment/web", "web=towpath.test/other:1"][..],
            &["patch", "configmap", "app-config", "--patch", edit],
            &["patch", "secret", "app-secrets", "--patch", secret_edit],
        ] {
            world.namespace.kubectl(arguments).await.unwrap();
        }
        let found = world.target.drift(&world.environment, &objects).await.unwrap();
        assert_eq!(found.len(), 3, "{found:?}");

        let web = drift_of(&found, "Deployment");
        assert!(has_line(&web, '-', &world.image), "{web}");
        assert!(has_line(&web, '+', "towpath.test/other:1"), "{web}");
        assert_eq!(writers_of(&found, "Deployment"), ["kubectl-set"]);

        let config = drift_of(&found, "ConfigMap");
        assert!(
            config.contains("-  GREETING: hello\n+  GREETING: goodbye\n"),
            "{config}"
        );
        assert!(config.contains("+  MORE: theirs\n"), "{config}");
        assert!(!has_line(&config, '-', "MORE"), "{config}");
        assert_eq!(writers_of(&found, "ConfigMap"), ["kubectl-patch"]);

        let secret = drift_of(&found, "Secret");
        assert!(
            has_line(&secret, '-', "TOKEN: ") && has_line(&secret, '+', "TOKEN: "),
            "{secret}"
        );
        let all = format!("{found:?}");
        for value in ["first-value", "hacked", "aGFja2Vk"] {
            assert!(!all.contains(value), "{value} is in {all}");
        }
    })
    .await;
}

/// Somebody has created objects anew, with other values in immutable fields: the server refuses the release's manifests.
#[tokio::test]
async fn drift_is_found_by_the_manifest_if_the_server_refuses_it() {
    in_cluster("anew", async |world| {
        let secret = |value: &str| {
            format!(
                "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: fixed}}\nimmutable: true\nstringData: {{TOKEN: {value}}}\n"
            )
        };
        let objects = world.objects(&format!("{APPLICATION}{}", secret("first-value")));
        let objects: Vec<Object> = objects.into_iter().map(Object::with_encoded_data).collect();
        world.apply(objects.clone()).await.unwrap();

        world
            .namespace
            .kubectl(&["delete", "deployment/web", "secret/fixed"])
            .await
            .unwrap();
        let web = format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: 2\n  \
             selector: {{matchLabels: {{app: other}}}}\n  template:\n    metadata: {{labels: {{app: other}}}}\n    \
             spec: {{containers: [{{name: web, image: '{}'}}]}}\n",
            world.image
        );
        let anew = format!("{web}{}", secret("hacked"));
        world.namespace.kubectl_apply(&anew).await.unwrap();
        let edit = r#"{"data":{"GREETING":"goodbye"}}"#;
        world
            .namespace
            .kubectl(&["patch", "configmap", "app-config", "--patch", edit])
            .await
            .unwrap();

        let found = world.target.drift(&world.environment, &objects).await.unwrap();
        assert_eq!(found.len(), 3, "{found:?}");
        let web = drift_of(&found, "Deployment");
        assert!(web.contains("-      app: web\n+      app: other\n"), "{web}");
        assert!(has_line(&web, '-', "name: VERSION"), "{web}");
        // Fields that the manifest does not have are not compared.
        assert!(
            !web.contains("imagePullPolicy") && !web.contains("revisionHistoryLimit"),
            "{web}"
        );
        assert!(!has_line(&web, '-', "replicas: "), "{web}");
        assert_eq!(writers_of(&found, "Deployment"), ["kubectl-client-side-apply"]);
        let secret = drift_of(&found, "Secret");
        assert!(
            has_line(&secret, '-', "TOKEN: ") && has_line(&secret, '+', "TOKEN: "),
            "{secret}"
        );
        let all = format!("{found:?}");
        assert!(!all.contains("first-value") && !all.contains("hacked"), "{all}");
        // Other objects are compared as usual.
        let config = drift_of(&found, "ConfigMap");
        assert!(config.contains("-  GREETING: hello\n+  GREETING: goodbye\n"), "{config}");
    })
    .await;
}

#[tokio::test]
async fn drift_lists_objects_whose_kind_is_no_longer_served() {
    in_cluster("unserved", async |world| {
        // Definitions are cluster-wide, so each test uses its own group.
        let group = format!("{}.example.com", world.environment.namespace);
        let definition = format!("locks.{group}");
        let text = format!(
            "apiVersion: {group}/v1\nkind: Lock\nmetadata: {{name: upper}}\nspec: {{gates: 2}}\n---\n\
             apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: {definition}}}\nspec:\n  \
             group: {group}\n  scope: Namespaced\n  names: {{kind: Lock, plural: locks, singular: lock}}\n  versions:\n    \
             - name: v1\n      served: true\n      storage: true\n      schema: {{openAPIV3Schema: {{type: object, properties: \
             {{spec: {{type: object, properties: {{gates: {{type: integer}}}}}}}}}}}}\n"
        );
        let objects = world.objects(&text);
        let applied = world.apply(objects.clone()).await;
        let before = world.target.drift(&world.environment, &objects).await;
        let cluster = world.namespace.cluster();
        cluster.kubectl(&["delete", "crd", &definition]).await.unwrap();
        applied.unwrap();
        assert_eq!(before.unwrap(), []);
        let path = format!("/apis/{group}/v1");
        until("the group to be gone", BOUND, async || {
            Ok(match cluster.kubectl(&["get", "--raw", &path]).await {
                Ok(seen) => Probe::NotYet(seen),
                Err(_) => Probe::Found(()),
            })
        })
        .await
        .unwrap();

        // A target that knows the kind, and one that asks for it for the first time.
        let identity = Identity::Kubeconfig(Some(cluster.kubeconfig().to_path_buf()));
        let other = KubernetesTarget::new(KubernetesOptions::new(identity, world.secrets.clone()));
        for target in [&world.target, &other] {
            let found = target.drift(&world.environment, &objects).await.unwrap();
            let mut names: Vec<String> = found
                .iter()
                .map(|drift| format!("{:?} {}", drift.change.kind, drift.change.id))
                .collect();
            names.sort();
            assert_eq!(
                names,
                [
                    format!("Deleted CustomResourceDefinition/{definition}"),
                    "Deleted Lock/upper".to_string()
                ]
            );
            let lock = drift_of(&found, "Lock");
            assert!(has_line(&lock, '-', "gates: 2"), "{lock}");
        }
    })
    .await;
}

#[tokio::test]
async fn values_of_an_autoscaler_are_no_drift() {
    in_cluster("autoscaled", async |world| {
        let objects = world.objects(APPLICATION);
        world.apply(objects.clone()).await.unwrap();
        // A minimum of three: the autoscaler needs no metrics to see that two are too few.
        let autoscaler = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: web}\nspec:\n  \
                          scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}\n  minReplicas: 3\n  maxReplicas: 4\n";
        world.namespace.kubectl_apply(autoscaler).await.unwrap();
        until("the autoscaler to scale", BOUND, async || {
            let web = world.namespace.get("deployment", "web").await?;
            Ok(match web.pointer("/spec/replicas") {
                Some(replicas) if *replicas == json!(3) => Probe::Found(()),
                other => Probe::NotYet(format!("{other:?} replicas")),
            })
        })
        .await
        .unwrap();
        assert_eq!(world.target.drift(&world.environment, &objects).await.unwrap(), []);

        // Changes by somebody else are drift.
        world
            .namespace
            .kubectl(&["set", "env", "deployment/web", "VERSION=two"])
            .await
            .unwrap();
        let found = world.target.drift(&world.environment, &objects).await.unwrap();
        let web = drift_of(&found, "Deployment");
        assert!(has_line(&web, '-', "value: one") && has_line(&web, '+', "value: two"), "{web}");
        assert!(!has_line(&web, '-', "replicas") && !has_line(&web, '+', "replicas"), "{web}");
        assert_eq!(writers_of(&found, "Deployment"), ["kubectl-set"]);
    })
    .await;
}

#[tokio::test]
async fn finalizers_of_controllers_are_no_drift() {
    in_cluster("finalizer", async |world| {
        let objects = world.objects(APPLICATION);
        world.apply(objects.clone()).await.unwrap();
        let patch = async |world: &World, patch: &str, manager: &str| {
            let manager = format!("--field-manager={manager}");
            let object = "configmap/app-config";
            let arguments = ["patch", object, "--type=merge", "--patch", patch, manager.as_str()];
            world.namespace.kubectl(&arguments).await
        };
        let finalizer = r#"{"metadata":{"finalizers":["example.com/cleanup"]}}"#;
        patch(world, finalizer, "cleaner").await.unwrap();
        let with_finalizer = world.target.drift(&world.environment, &objects).await;
        let edited = patch(world, r#"{"data":{"GREETING":"goodbye"}}"#, "somebody").await;
        let found = world.target.drift(&world.environment, &objects).await;
        // With the finalizer, the namespace could never be deleted.
        patch(world, r#"{"metadata":{"finalizers":null}}"#, "cleaner")
            .await
            .unwrap();

        assert_eq!(with_finalizer.unwrap(), []);
        edited.unwrap();
        let found = found.unwrap();
        let config = drift_of(&found, "ConfigMap");
        assert!(
            config.contains("-  GREETING: hello\n+  GREETING: goodbye\n"),
            "{config}"
        );
        assert!(!config.contains("finalizers"), "{config}");
        assert_eq!(writers_of(&found, "ConfigMap"), ["somebody"]);
    })
    .await;
}

/// A variable may refer only to those before it, and the owners of fields say nothing about order.
#[tokio::test]
async fn another_order_is_drift_that_a_deployment_mends() {
    in_cluster("order", async |world| {
        let two = APPLICATION.replace(
            "env: [{name: VERSION, value: one}]",
            "env: [{name: VERSION, value: one}, {name: TITLE, value: version $(VERSION)}]",
        );
        let objects = world.objects(&two.replace("replicas: 2", "replicas: 0"));
        world.apply(objects.clone()).await.unwrap();
        assert_eq!(world.changes(&objects).await, Vec::<String>::new());
        let swapped = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/env", "value": [
            {"name": "TITLE", "value": "version $(VERSION)"}, {"name": "VERSION", "value": "one"}]}]);
        world
            .namespace
            .kubectl(&[
                "patch",
                "deployment",
                "web",
                "--type=json",
                "--patch",
                &swapped.to_string(),
            ])
            .await
            .unwrap();
        let found = world.target.drift(&world.environment, &objects).await.unwrap();
        assert!(
            has_line(&drift_of(&found, "Deployment"), '-', "name: TITLE"),
            "{found:?}"
        );
        assert_eq!(world.changes(&objects).await, ["changed deployment/web"]);
        let said = world.apply(objects.clone()).await.unwrap();
        assert!(said.contains(&"Deployment/web: changed".to_string()), "{said:?}");
        let web = world.get("deployment", "web").await;
        let first = web.pointer("/spec/template/spec/containers/0/env/0/name");
        assert_eq!(first, Some(&json!("VERSION")));
        assert_eq!(world.target.drift(&world.environment, &objects).await.unwrap(), []);
        assert_eq!(world.changes(&objects).await, Vec::<String>::new());
    })
    .await;
}

/// Whoever creates an object without a server-side apply owns the server's defaults, too.
#[tokio::test]
async fn defaults_of_the_server_are_nobodys_change() {
    in_cluster("defaults", async |world| {
        let text = APPLICATION
            .replace("IMAGE", &world.image)
            .replace("replicas: 2", "replicas: 0");
        world
            .namespace
            .cluster()
            .kubectl_with(&["--namespace", world.namespace.name(), "create", "-f", "-"], &text)
            .await
            .unwrap();
        let objects = world.objects(&text);
        world.apply(objects.clone()).await.unwrap();
        assert_eq!(world.target.drift(&world.environment, &objects).await.unwrap(), []);
        // A value other than the default is somebody's change.
        let patch = r#"{"spec":{"template":{"spec":{"dnsPolicy":"Default"}}}}"#;
        let arguments = ["patch", "deployment", "web", "--type=merge", "--patch", patch];
        world.namespace.kubectl(&arguments).await.unwrap();
        let found = world.target.drift(&world.environment, &objects).await.unwrap();
        let web = drift_of(&found, "Deployment");
        assert!(has_line(&web, '+', "dnsPolicy: Default"), "{web}");
        assert!(
            !web.contains("progressDeadlineSeconds: 600") && !has_line(&web, '+', "restartPolicy"),
            "{web}"
        );
    })
    .await;
}
