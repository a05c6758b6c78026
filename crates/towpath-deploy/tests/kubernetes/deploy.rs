//! Deployments: what changes, what stays, and in which order.

use crate::cluster::{APPLICATION, World, carry_out, in_cluster};
use serde_json::{Value, json};
use towpath_deploy::{KeyChange, KubernetesTarget, LiveSecrets, Occasion, Target};
use towpath_manifest::{Object, ObjectId};
use towpath_testkit::Verdict;
use towpath_types::{Outcome, SecretBytes};

#[tokio::test]
async fn an_application_is_created_changed_and_pruned() {
    in_cluster("whole", async |world| {
        let objects = world.objects(APPLICATION);
        assert_eq!(
            world.changes(&objects).await,
            [
                "created configmap/app-config",
                "created service/web",
                "created deployment/web",
                "created cronjob/sweep"
            ]
        );
        let said = world.apply(objects.clone()).await.unwrap();
        assert!(said.iter().any(|line| line == "Deployment/web: created"), "{said:?}");
        assert!(said.iter().any(|line| line == "Deployment/web: rolled out"), "{said:?}");
        let web = world.get("deployment", "web").await;
        assert_eq!(web.pointer("/status/readyReplicas"), Some(&json!(2)));
        let labels = web.pointer("/metadata/labels").unwrap();
        assert_eq!(labels["towpath.dev/project"], "claims");
        assert_eq!(labels["towpath.dev/release"], "1");
        let cause = web
            .pointer("/metadata/annotations/kubernetes.io~1change-cause")
            .unwrap();
        assert!(
            cause.as_str().unwrap().starts_with("release 1: towpath.test/app"),
            "{cause}"
        );

        // The same again changes nothing.
        assert_eq!(world.changes(&objects).await, Vec::<String>::new());
        let before = web.pointer("/metadata/resourceVersion").cloned();
        world.apply(objects).await.unwrap();
        assert_eq!(
            world
                .get("deployment", "web")
                .await
                .pointer("/metadata/resourceVersion")
                .cloned(),
            before
        );

        // A changed line changes one object.
        let objects = world.objects(&APPLICATION.replace("value: one", "value: two"));
        assert_eq!(world.changes(&objects).await, ["changed deployment/web"]);
        let preflight = world.target.preflight(&world.environment, &objects, &[]).await.unwrap();
        let diff: String = preflight.changes.unwrap().iter().map(ToString::to_string).collect();
        assert!(
            diff.contains("-          value: one\n+          value: two") || diff.contains("value: two"),
            "{diff}"
        );
        assert_eq!(
            diff.lines()
                .filter(|line| line.starts_with('+') && !line.starts_with("+++"))
                .count(),
            1,
            "{diff}"
        );
        world.apply(objects.clone()).await.unwrap();

        let releases = world.target.releases(&world.environment).await.unwrap();
        let numbers: Vec<(i64, &str)> = releases
            .iter()
            .map(|release| (release.number, release.state.as_str()))
            .collect();
        assert_eq!(numbers, [(3, "succeeded"), (2, "succeeded"), (1, "succeeded")]);
        let current = world.target.current(&world.environment).await.unwrap().unwrap();
        assert_eq!(current.release, Some(releases[0].id));
        assert_eq!(current.objects.len(), 4);

        // An object that leaves the manifests is pruned. An object that somebody else created stays.
        world
            .namespace
            .kubectl(&["create", "configmap", "other", "--from-literal=a=b"])
            .await
            .unwrap();
        let less: Vec<Object> = objects.into_iter().filter(|object| object.kind != "CronJob").collect();
        let gone: Vec<_> = current
            .objects
            .iter()
            .filter(|id| id.kind == "CronJob")
            .cloned()
            .collect();
        let said = world.apply_and_prune(less, &gone).await.unwrap();
        assert!(said.contains(&"CronJob/sweep: removed".to_string()), "{said:?}");
        assert!(!world.namespace.has("cronjob", "sweep").await.unwrap());
        assert!(world.namespace.has("configmap", "other").await.unwrap());

        let statuses = world.target.status(&world.environment).await.unwrap();
        let web = statuses.iter().find(|status| status.kind == "Deployment").unwrap();
        assert_eq!((web.ready, web.desired, web.message.as_str()), (2, 2, ""));
        // Objects without pods are never unready.
        assert!(
            statuses.iter().all(|status| status.ready >= status.desired),
            "{statuses:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn the_check_of_a_plan_is_not_repeated_unless_somebody_deploys() {
    in_cluster("plan", async |world| {
        let proxy = world.proxy().await;
        let target = KubernetesTarget::new(world.target_through(&proxy).await);
        let version = |version: &str| world.objects(&APPLICATION.replace("value: one", &format!("value: {version}")));
        let dry_runs = || {
            let asked = proxy.asked();
            asked.iter().filter(|asked| asked.path.contains("dryRun=All")).count()
        };
        let plan = async |objects: &[Object]| {
            proxy.script(|_| Verdict::Pass);
            let preflight = target.preflight(&world.environment, objects, &[]).await.unwrap();
            assert!(preflight.changes.is_some() && dry_runs() > 0);
            proxy.script(|_| Verdict::Pass);
        };
        let runs = async || {
            let web = world.get("deployment", "web").await;
            web.pointer("/spec/template/spec/containers/0/env/0/value").cloned()
        };

        plan(&version("one")).await;
        carry_out(&target, world.request(version("one"))).await.unwrap();
        assert_eq!((dry_runs(), runs().await), (0, Some(json!("one"))));

        plan(&version("two")).await;
        world.apply(version("meanwhile")).await.unwrap();
        carry_out(&target, world.request(version("two"))).await.unwrap();
        assert!(dry_runs() > 0);
        assert_eq!(runs().await, Some(json!("two")));

        plan(&version("three")).await;
        carry_out(&target, world.request(version("four"))).await.unwrap();
        assert!(dry_runs() > 0);
        assert_eq!(runs().await, Some(json!("four")));
    })
    .await;
}

#[tokio::test]
async fn pods_restart_exactly_when_something_they_read_changes() {
    in_cluster("reads", async |world| {
        let with_secret = APPLICATION.replace(
            "envFrom: [{configMapRef: {name: app-config}}]",
            "envFrom: [{configMapRef: {name: app-config}}, {secretRef: {name: app-secrets}}]",
        );
        let hashed = async |world: &World, text: &str| {
            let mut objects = world.objects(text);
            let fingerprints = world.target.fingerprints(&world.environment, &objects).await.unwrap();
            let fingerprints = fingerprints.with_config_maps(&objects);
            towpath_manifest::with_config_hash(&mut objects, &fingerprints);
            objects
        };
        // A missing Secret is reported before anything changes.
        let objects = hashed(world, &with_secret).await;
        let findings = world.findings(&objects).await;
        let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(
            said.iter()
                .any(|line| line.contains("app-secrets") && line.contains("all.yaml:22")),
            "{said:?}"
        );
        let refused = world.apply(objects).await.unwrap_err();
        assert_eq!(refused.outcome, Outcome::Rejected);
        assert!(!world.namespace.has("configmap", "app-config").await.unwrap());

        // What the refusal says to do. Its value is in no change, and no change is of the Secret.
        let set = async |value: &str| {
            let change = KeyChange {
                secret: "app-secrets".into(),
                key: "PASSWORD".into(),
                value: Some(SecretBytes::new(value.into())),
                by: "ann".into(),
            };
            world.target.change(&world.environment, &change).await.unwrap();
        };
        assert!(
            refused.message.contains("towpath secrets set dev app-secrets KEY"),
            "{refused}"
        );
        set("correct-horse").await;
        let objects = hashed(world, &with_secret).await;
        let preflight = world.target.preflight(&world.environment, &objects, &[]).await.unwrap();
        let shown = format!("{:?}{:?}", preflight.changes, preflight.findings);
        assert!(
            !shown.contains("kind: \"Secret\"")
                && !shown.contains("correct-horse")
                && !shown.contains("Y29ycmVjdC1ob3JzZQ"),
            "{shown}"
        );
        world.apply(objects).await.unwrap();
        let generation = |web: &Value| web.pointer("/metadata/generation").cloned();
        let first = generation(&world.get("deployment", "web").await);

        let objects = hashed(world, &with_secret).await;
        assert_eq!(world.changes(&objects).await, Vec::<String>::new());

        set("battery-staple").await;
        let objects = hashed(world, &with_secret).await;
        assert_eq!(world.changes(&objects).await, ["changed deployment/web"]);
        world.apply(objects).await.unwrap();
        let second = generation(&world.get("deployment", "web").await);
        assert_ne!(first, second);

        let objects = hashed(world, &with_secret.replace("hello", "good day")).await;
        assert_eq!(
            world.changes(&objects).await,
            ["changed configmap/app-config", "changed deployment/web"]
        );
    })
    .await;
}

#[tokio::test]
async fn pods_restart_once_for_a_secret_in_the_manifests() {
    in_cluster("brought", async |world| {
        let with = |values: &str| {
            let reads = "envFrom: [{configMapRef: {name: app-config}}, {secretRef: {name: app-secrets}}]";
            let application = APPLICATION.replace("envFrom: [{configMapRef: {name: app-config}}]", reads);
            let secret = format!("---\napiVersion: v1\nkind: Secret\nmetadata: {{name: app-secrets}}\n{values}\n");
            let mut objects = world.objects(&format!("{application}{secret}"));
            objects = objects.into_iter().map(Object::with_encoded_data).collect();
            objects
        };
        let hashed = async |objects: &[Object]| {
            let mut objects = objects.to_vec();
            let fingerprints = world.target.fingerprints(&world.environment, &objects).await.unwrap();
            let fingerprints = fingerprints.with_config_maps(&objects);
            towpath_manifest::with_config_hash(&mut objects, &fingerprints);
            objects
        };
        let first = with("stringData: {PASSWORD: first-value, GONE: soon}");
        world.apply(hashed(&first).await).await.unwrap();
        // Deploying again changes nothing. A key that leaves `stringData` leaves the cluster.
        let again = hashed(&first).await;
        assert_eq!(world.changes(&again).await, Vec::<String>::new());
        let second = hashed(&with("stringData: {PASSWORD: second-value}")).await;
        assert_eq!(
            world.changes(&second).await,
            ["changed secret/app-secrets", "changed deployment/web"]
        );
        world.apply(second.clone()).await.unwrap();
        let secret = world.get("secret", "app-secrets").await;
        assert_eq!(secret["data"], json!({"PASSWORD": "c2Vjb25kLXZhbHVl"}));
        // A change by somebody else is repaired.
        let edit = r#"{"data":{"PASSWORD":"aGFja2Vk"}}"#;
        world
            .namespace
            .kubectl(&["patch", "secret", "app-secrets", "--patch", edit])
            .await
            .unwrap();
        world.apply(second).await.unwrap();
        let secret = world.get("secret", "app-secrets").await;
        assert_eq!(secret["data"], json!({"PASSWORD": "c2Vjb25kLXZhbHVl"}));
    })
    .await;
}

#[tokio::test]
async fn fields_of_kubectl_are_taken_over() {
    in_cluster("takeover", async |world| {
        let text = APPLICATION.replace("IMAGE", &world.image);
        let by_kubectl = text.replace(
            "metadata: {name: web}\nspec:\n  replicas",
            "metadata: {name: web, labels: {gone: soon}}\nspec:\n  replicas",
        );
        world.namespace.kubectl_apply(&by_kubectl).await.unwrap();
        // Somebody else sets a field that no manifest has.
        world
            .namespace
            .kubectl(&["annotate", "deployment", "web", "team=blue"])
            .await
            .unwrap();
        let objects = world.objects(APPLICATION);
        let preflight = world.target.preflight(&world.environment, &objects, &[]).await.unwrap();
        let diff: String = preflight.changes.unwrap().iter().map(ToString::to_string).collect();
        assert!(diff.contains("-    gone: soon"), "{diff}");
        world.apply(objects.clone()).await.unwrap();
        let web = world.get("deployment", "web").await;
        assert_eq!(web.pointer("/metadata/labels/gone"), None);
        assert_eq!(web.pointer("/metadata/annotations/team"), Some(&json!("blue")));
        assert_eq!(
            web.pointer("/spec/template/spec/containers/0/env/0/value"),
            Some(&json!("one"))
        );
        assert_eq!(world.changes(&objects).await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn a_definition_is_applied_before_the_objects_of_its_kind() {
    in_cluster("definition", async |world| {
        // Definitions are cluster-wide, so each test uses its own group.
        let group = format!("{}.example.com", world.environment.namespace);
        let text = format!(
            "apiVersion: {group}/v1\nkind: Lock\nmetadata: {{name: upper}}\nspec: {{gates: 2}}\n---\n\
             apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: locks.{group}}}\nspec:\n  \
             group: {group}\n  scope: Namespaced\n  names: {{kind: Lock, plural: locks, singular: lock}}\n  versions:\n    \
             - name: v1\n      served: true\n      storage: true\n      schema: {{openAPIV3Schema: {{type: object, properties: \
             {{spec: {{type: object, properties: {{gates: {{type: integer}}}}}}}}}}}}\n"
        );
        let objects = world.objects(&text);
        let result = world.apply(objects.clone()).await;
        let there = world.namespace.kubectl(&["get", &format!("locks.{group}"), "upper", "--output", "jsonpath={.spec.gates}"]).await;
        let again = world.changes(&objects).await;
        let definition = format!("locks.{group}");
        world.namespace.cluster().kubectl(&["delete", "crd", &definition, "--wait=false"]).await.unwrap();
        result.unwrap();
        assert_eq!(there.unwrap(), "2");
        assert_eq!(again, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn objects_of_others_stay_and_applies_outside_of_releases_leave_the_release() {
    in_cluster("others", async |world| {
        let namespace = &world.namespace;
        namespace
            .kubectl(&["create", "configmap", "shared", "--from-literal=OTHER=theirs"])
            .await
            .unwrap();
        let shared = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: shared}\ndata: {OURS: yes-it-is}\n";
        let more = world.objects(&format!("{APPLICATION}{shared}"));
        let first = world.request(more.clone());
        let released = first.record.clone();
        carry_out(&world.target, first).await.unwrap();
        let id = more.iter().find(|object| object.name == "shared").unwrap().id();
        let findings = world
            .target
            .preflight(
                &world.environment,
                &world.objects(APPLICATION),
                std::slice::from_ref(&id),
            )
            .await
            .unwrap();
        let note = findings.findings.iter().map(ToString::to_string).collect::<String>();
        assert!(
            note.contains("ConfigMap/shared: left the manifests and stays: Towpath did not create it"),
            "{note}"
        );
        assert!(
            findings
                .changes
                .unwrap()
                .iter()
                .all(|change| change.id.name != "shared")
        );

        // One object is applied outside of releases: its annotations name who did it, and the release stays the same.
        let sweep: Vec<Object> = more.iter().filter(|object| object.kind == "CronJob").cloned().collect();
        let mut beside = world.request(sweep);
        beside.occasion = Occasion::Beside;
        beside.record.by = "bob".into();
        beside.record.images = vec!["towpath.test/app:other".parse().unwrap()];
        beside.objects[0].value["spec"]["schedule"] = json!("0 4 * * *");
        carry_out(&world.target, beside).await.unwrap();
        let current = world.target.current(&world.environment).await.unwrap().unwrap();
        assert_eq!(
            (current.release, current.attempted),
            (Some(released.id), Some(released.id))
        );
        let cron_job = world.get("cronjob", "sweep").await;
        assert_eq!(
            cron_job.pointer("/metadata/labels/towpath.dev~1release"),
            Some(&json!("1"))
        );
        assert_eq!(
            cron_job.pointer("/metadata/annotations/towpath.dev~1by"),
            Some(&json!("bob"))
        );

        // A later release changes the application and prunes `shared`. Then the environment goes back to the first.
        let said = world
            .apply_and_prune(
                world.objects(&APPLICATION.replace("value: one", "value: two")),
                std::slice::from_ref(&id),
            )
            .await
            .unwrap();
        assert!(
            said.iter().any(|line| line.contains("Towpath did not create it")),
            "{said:?}"
        );
        assert!(world.namespace.has("configmap", "shared").await.unwrap());
        let mut back = world.request(more);
        back.occasion = Occasion::Back;
        back.record = released;
        carry_out(&world.target, back).await.unwrap();
        let web = world.get("deployment", "web").await;
        assert_eq!(web.pointer("/metadata/labels/towpath.dev~1release"), Some(&json!("1")));
        let cause = web
            .pointer("/metadata/annotations/kubernetes.io~1change-cause")
            .unwrap();
        assert!(cause.as_str().unwrap().starts_with("release 1:"), "{cause}");
        let shared = world.get("configmap", "shared").await;
        assert_eq!(shared["data"], json!({"OTHER": "theirs", "OURS": "yes-it-is"}));
    })
    .await;
}

#[tokio::test]
async fn a_tree_with_its_own_namespace_and_a_mistake_changes_nothing() {
    in_cluster("bring", async |world| {
        world.environment.namespace = format!("{}-more", world.environment.namespace);
        let namespace = world.environment.namespace.clone();
        let text = |port: &str| {
            format!(
                "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n---{}",
                APPLICATION.replace("containerPort: 8080", &format!("containerPort: {port}"))
            )
        };
        let wrong = world.objects(&text("808080"));
        let said: Vec<String> = world.findings(&wrong).await.iter().map(ToString::to_string).collect();
        assert!(
            said.iter()
                .any(|line| line.contains("containerPort") && line.contains("65535")),
            "{said:?}"
        );
        let refused = world.apply(wrong).await.unwrap_err();
        assert_eq!(refused.outcome, Outcome::Rejected, "{refused}");
        let there = world
            .namespace
            .cluster()
            .kubectl(&["get", "namespace", &namespace])
            .await;
        assert!(there.is_err(), "{there:?}");
        world.apply(world.objects(&text("8080"))).await.unwrap();
        let gone = ["delete", "namespace", namespace.as_str(), "--wait=false"];
        world.namespace.cluster().kubectl(&gone).await.unwrap();
    })
    .await;
}

/// Objects themselves say that Towpath created them, so a lost record costs nothing.
#[tokio::test]
async fn objects_are_pruned_although_their_record_was_lost() {
    in_cluster("lost", async |world| {
        world.apply(world.objects(APPLICATION)).await.unwrap();
        let record = format!(
            "secret/towpath.{}.{}",
            world.environment.id.project(),
            world.environment.id.environment()
        );
        world.namespace.kubectl(&["delete", &record]).await.unwrap();
        world
            .namespace
            .kubectl(&["create", "configmap", "theirs"])
            .await
            .unwrap();
        let theirs = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: theirs}\ndata: {A: b}\n";
        let all = world.objects(&format!("{APPLICATION}{theirs}"));
        world.apply(all.clone()).await.unwrap();
        let gone: Vec<ObjectId> = all
            .iter()
            .filter(|object| object.kind == "Service" || object.name == "theirs")
            .map(Object::id)
            .collect();
        let without: Vec<Object> = all.into_iter().filter(|object| !gone.contains(&object.id())).collect();
        let said = world.apply_and_prune(without, &gone).await.unwrap();
        assert!(said.contains(&"Service/web: removed".to_string()), "{said:?}");
        assert!(world.namespace.has("configmap", "theirs").await.unwrap());
    })
    .await;
}

/// The server's default in the place of a number that has left the manifest is one pod.
#[tokio::test]
async fn the_number_of_pods_is_handed_over_to_an_autoscaler() {
    in_cluster("handover", async |world| {
        let web = |spec: &str, version: &str| {
            world.objects(&format!(
                "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n{spec}  selector: {{matchLabels: {{app: web}}}}\n  \
                 template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers: \
                 [{{name: web, image: IMAGE, env: [{{name: VERSION, value: {version}}}]}}]\n"
            ))
        };
        let replicas = async |world: &World| {
            let live = world.get("deployment", "web").await;
            live.pointer("/spec/replicas").cloned()
        };
        world.apply(web("  replicas: 3\n", "one")).await.unwrap();

        // Nothing scales it: the plan says what that means.
        let said: Vec<String> = world.findings(&web("", "two")).await.iter().map(ToString::to_string).collect();
        let dropped = "nothing scales it: instead of 3 pods, one will run";
        assert!(said.iter().any(|line| line.contains(dropped)), "{said:?}");

        // Without metrics, the autoscaler itself changes nothing between these limits.
        let autoscaler = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: sizes}\nspec:\n  \
                          scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}\n  minReplicas: 1\n  maxReplicas: 5\n";
        world.namespace.kubectl_apply(autoscaler).await.unwrap();
        let preflight = world.target.preflight(&world.environment, &web("", "two"), &[]).await.unwrap();
        let said: Vec<String> = preflight.findings.iter().map(ToString::to_string).collect();
        let handed = "HorizontalPodAutoscaler `sizes` decides from now on how many pods run; until then it stays at 3";
        assert!(said.iter().any(|line| line.contains(handed)), "{said:?}");
        let changes: String = preflight.changes.unwrap().iter().map(ToString::to_string).collect();
        assert!(changes.contains("value: two") && !changes.contains("-  replicas"), "{changes}");
        world.apply(web("", "two")).await.unwrap();
        assert_eq!(replicas(world).await, Some(json!(3)));
        // From now on, the object looks as if Towpath had never owned it.
        world.apply(web("", "three")).await.unwrap();
        assert_eq!(replicas(world).await, Some(json!(3)));
        assert_eq!(world.target.drift(&world.environment, &web("", "three")).await.unwrap(), []);
        let said = world.findings(&web("", "three")).await;
        assert_eq!(said, []);
    })
    .await;
}

/// The same where `kubectl apply` has set the number.
#[tokio::test]
async fn the_number_of_pods_of_kubectl_is_handed_over_too() {
    in_cluster("kubectlsize", async |world| {
        let web = |spec: &str| {
            format!(
                "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n{spec}  selector: {{matchLabels: {{app: web}}}}\n  \
                 template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers: \
                 [{{name: web, image: {}}}]\n",
                world.image
            )
        };
        world.namespace.kubectl_apply(&web("  replicas: 2\n")).await.unwrap();
        let scaler = "---\napiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: web}\nspec:\n  \
                      scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}\n  minReplicas: 1\n  maxReplicas: 5\n";
        world.apply(world.objects(&format!("{}{scaler}", web("")))).await.unwrap();
        let live = world.get("deployment", "web").await;
        assert_eq!(live.pointer("/spec/replicas"), Some(&json!(2)));
    })
    .await;
}

#[tokio::test]
async fn a_renamed_workload_runs_when_the_pods_of_the_old_name_are_gone() {
    in_cluster("renamed", async |world| {
        let web = |name: &str| {
            let text = APPLICATION.replace(
                "metadata: {name: web}\nspec:\n  replicas: 2",
                "metadata: {name: WEB}\nspec:\n  replicas: 1",
            );
            let text = text.replace("terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 3");
            world.objects(&text.replace("WEB", name))
        };
        let old = web("old");
        let id = old.iter().map(Object::id).find(|id| id.kind == "Deployment").unwrap();
        world.apply(old).await.unwrap();
        world.apply_and_prune(web("new"), &[id]).await.unwrap();
        let pods = world
            .namespace
            .kubectl(&["get", "pods", "--output=name"])
            .await
            .unwrap();
        let left: Vec<&str> = pods.lines().filter(|pod| pod.contains("/old-")).collect();
        assert_eq!(left, Vec::<&str>::new());
    })
    .await;
}
