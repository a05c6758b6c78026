//! The Kubernetes target on a real cluster.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod cluster;

use cluster::{APPLICATION, carry_out, finish, in_cluster};
use serde_json::{Value, json};
use towpath_deploy::{
    Drift, Environment, EnvironmentId, Identity, KubernetesOptions, KubernetesTarget, Occasion, Severity, Target,
    TargetError,
};
use towpath_manifest::{Object, ObjectId};
use towpath_testkit::Verdict;
use towpath_types::{Outcome, SecretString};

#[tokio::test]
async fn an_application_is_deployed_changed_and_left_alone() {
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

        // The same again: nothing would change, and nothing does.
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

        // One line changes one object.
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

        // What leaves the manifests leaves the cluster; what somebody else made stays.
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
        // Whatever wants no pods is not unready.
        assert!(
            statuses.iter().all(|status| status.ready >= status.desired),
            "{statuses:?}"
        );
    })
    .await;
}

/// What was found out for a plan is not asked again to carry it out; it is when somebody deployed since, and for other objects.
#[tokio::test]
async fn what_a_plan_found_out_serves_to_carry_it_out_until_somebody_deploys() {
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
async fn pods_restart_exactly_when_something_they_read_changed() {
    in_cluster("reads", async |world| {
        let with_secret = APPLICATION.replace(
            "envFrom: [{configMapRef: {name: app-config}}]",
            "envFrom: [{configMapRef: {name: app-config}}, {secretRef: {name: app-secrets}}]",
        );
        let hashed = async |world: &cluster::World, text: &str| {
            let mut objects = world.objects(text);
            let fingerprints = world.target.fingerprints(&world.environment, &objects).await.unwrap();
            let fingerprints = fingerprints.with_config_maps(&objects);
            towpath_manifest::with_config_hash(&mut objects, &fingerprints);
            objects
        };
        // A Secret that nobody made is said before anything changes.
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

        // From the vault, it comes with what reads it; its value is in no change.
        world.secrets.set("app-secrets", "PASSWORD", "correct-horse");
        let objects = hashed(world, &with_secret).await;
        let preflight = world.target.preflight(&world.environment, &objects, &[]).await.unwrap();
        let shown = format!("{:?}{:?}", preflight.changes, preflight.findings);
        assert!(
            shown.contains("app-secrets") && !shown.contains("correct-horse") && !shown.contains("Y29ycmVjdC1ob3JzZQ"),
            "{shown}"
        );
        world.apply(objects).await.unwrap();
        let generation = |web: &Value| web.pointer("/metadata/generation").cloned();
        let first = generation(&world.get("deployment", "web").await);

        let objects = hashed(world, &with_secret).await;
        assert_eq!(world.changes(&objects).await, Vec::<String>::new());

        world.secrets.set("app-secrets", "PASSWORD", "battery-staple");
        let objects = hashed(world, &with_secret).await;
        assert_eq!(
            world.changes(&objects).await,
            ["changed secret/app-secrets", "changed deployment/web"]
        );
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
async fn what_kubectl_applied_is_taken_over_without_a_lost_field() {
    in_cluster("takeover", async |world| {
        let text = APPLICATION.replace("IMAGE", &world.image);
        let by_kubectl = text.replace(
            "metadata: {name: web}\nspec:\n  replicas",
            "metadata: {name: web, labels: {gone: soon}}\nspec:\n  replicas",
        );
        world.namespace.kubectl_apply(&by_kubectl).await.unwrap();
        // Somebody else's word on a field that no manifest has.
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
async fn everything_that_is_wrong_is_said_at_once_with_its_place() {
    in_cluster("preflight", async |world| {
        let text = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      BackoffLimit: 3
      serviceAccountName: nobody
      containers:
        - name: web
          image: IMAGE
          ports: [{name: http, containerPort: 8080}]
          readinessProbe: {httpGet: {path: /ready, port: htpp}}
          env:
            - {name: URL, valueFrom: {secretKeyRef: {name: rds, key: url}}}
          envFrom: [{configMapRef: {name: nothing}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: web}]
---
apiVersion: example.com/v1
kind: Deploiment
metadata: {name: odd}
---
apiVersion: apps/v1
kind: Deploymnt
metadata: {name: odd}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: Upper}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec: {defaultBackend: {service: {name: elsewhere, port: {number: 80}}}}
"#;
        let objects = world.objects(text);
        let said: Vec<String> = world.findings(&objects).await.iter().map(ToString::to_string).collect();
        let all = said.join("\n");
        for expected in [
            "all.yaml:10:7: Deployment/web `spec.template.spec.BackoffLimit`: ",
            "all.yaml:11:7: Deployment/web `spec.template.spec.serviceAccountName`: there is no ServiceAccount `nobody`",
            "has no port called `htpp`: there are http",
            "Service/web `spec.ports[0].targetPort`: no container of Deployment/web has a port called `web`",
            "Secret `rds`",
            "ConfigMap `nothing`",
            "serves no `Deploiment` in `example.com/v1`",
            "serves no `Deploymnt` in `apps/v1`",
            "ConfigMap/Upper",
            "there is no Service `elsewhere`",
        ] {
            assert!(all.contains(expected), "{expected} is not in\n{all}");
        }
        let refused = world.apply(objects).await.unwrap_err();
        assert_eq!(refused.outcome, Outcome::Rejected);
        assert!(world.target.current(&world.environment).await.unwrap().is_none());

        // A namespace that is not there is said once.
        let mut elsewhere = world.environment.clone();
        elsewhere.namespace = format!("{}-not-there", world.environment.namespace);
        let objects: Vec<Object> = world.objects(APPLICATION).into_iter().map(|object| object.in_namespace(&elsewhere.namespace)).collect();
        let findings = world.target.preflight(&elsewhere, &objects, &[]).await.unwrap().findings;
        let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(said.iter().filter(|line| line.contains("has no namespace")).count(), 1, "{said:?}");

        // What admission would refuse is known before: quota and Pod Security.
        world
            .namespace
            .kubectl_apply("apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: small}\nspec: {hard: {pods: '0'}}\n")
            .await
            .unwrap();
        let name = world.namespace.name();
        let label = "pod-security.kubernetes.io/enforce=restricted";
        world.namespace.cluster().kubectl(&["label", "namespace", name, label]).await.unwrap();
        let said: Vec<String> = world.findings(&world.objects(APPLICATION)).await.iter().map(ToString::to_string).collect();
        assert!(said.iter().any(|line| line.contains("Deployment/web") && line.contains("PodSecurity")), "{said:?}");
    })
    .await;
}

#[tokio::test]
async fn what_will_not_heal_ends_a_rollout_early_with_its_reason() {
    in_cluster("stuck", async |world| {
        world.apply(world.objects(APPLICATION)).await.unwrap();
        let began = std::time::Instant::now();

        let crashing = APPLICATION.replace(
            "ports: [{name: http, c",
            "args: [exit, \"3\", 'no database']\n          ports: [{name: http, c",
        );
        let error = world.apply(world.objects(&crashing)).await.unwrap_err();
        assert_eq!(error.outcome, Outcome::Failed, "{error}");
        assert!(error.to_string().contains("Deployment/web"), "{error}");
        assert!(
            error.log.iter().any(|line| line == "no database"),
            "{error} {:?}",
            error.log
        );

        let missing = APPLICATION.replace("IMAGE", "towpath.test/nowhere:1");
        let error = world.apply(world.objects(&missing)).await.unwrap_err();
        assert_eq!(error.outcome, Outcome::Failed, "{error}");
        assert!(error.to_string().contains("towpath.test/nowhere:1"), "{error}");

        let huge = APPLICATION.replace(
            "ports: [{name: http, c",
            "resources: {requests: {memory: 900Ti}}\n          ports: [{name: http, c",
        );
        world.target = KubernetesTarget::new(KubernetesOptions {
            tolerance: towpath_deploy::kubernetes::Tolerance {
                unschedulable: std::time::Duration::from_secs(2),
                ..Default::default()
            },
            ..KubernetesOptions::new(
                Identity::Kubeconfig(Some(world.namespace.cluster().kubeconfig().to_path_buf())),
                world.secrets.clone(),
            )
        });
        let error = world.apply(world.objects(&huge)).await.unwrap_err();
        assert!(error.to_string().contains("Insufficient memory"), "{error}");
        assert!(
            began.elapsed() < std::time::Duration::from_secs(120),
            "a deadline was waited for"
        );

        // What ran before still serves, and nobody claims that a release runs.
        let web = world.get("deployment", "web").await;
        assert_eq!(web.pointer("/status/availableReplicas"), Some(&json!(2)));
        let current = world.target.current(&world.environment).await.unwrap().unwrap();
        assert_eq!(current.release, None);
        let releases = world.target.releases(&world.environment).await.unwrap();
        let states: Vec<&str> = releases.iter().map(|release| release.state.as_str()).collect();
        assert_eq!(states, ["failed", "failed", "failed", "succeeded"]);

        // The way back is the same call.
        world.apply(world.objects(APPLICATION)).await.unwrap();
        let web = world.get("deployment", "web").await;
        assert_eq!(
            web.pointer("/spec/template/spec/containers/0/resources"),
            Some(&json!({})),
            "{web}"
        );
        assert_eq!(web.pointer("/status/updatedReplicas"), Some(&json!(2)));
    })
    .await;
}

#[tokio::test]
async fn a_deadline_always_ends_it() {
    in_cluster("deadline", async |world| {
        let never = APPLICATION
            .replace(
                "env: [{name: VERSION, value: one}]",
                "env: [{name: NOT_READY, value: yes}, {name: SAY, value: 'warming up'}]",
            )
            .replace("value: yes", "value: \"yes\"")
            .replace("progressDeadlineSeconds: 60", "progressDeadlineSeconds: 600");
        let mut request = world.request(world.objects(&never));
        request.deadline = std::time::Duration::from_secs(8);
        let error = carry_out(&world.target, request).await.unwrap_err();
        assert_eq!(error.outcome, Outcome::TimedOut, "{error}");
        assert!(
            error.to_string().contains("Deployment/web") && error.to_string().contains("Readiness"),
            "{error}"
        );
        assert!(error.log.iter().any(|line| line == "warming up"), "{:?}", error.log);
    })
    .await;
}

#[tokio::test]
async fn a_definition_comes_before_the_objects_of_its_kind() {
    in_cluster("definition", async |world| {
        // Definitions belong to the whole cluster, so this one has a group of its own.
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

fn job(world: &cluster::World, name: &str, args: &Value) -> Object {
    let value = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name, "namespace": world.environment.namespace, "labels": {"towpath.dev/job": "migrate"}},
        "spec": {"backoffLimit": 1, "template": {"spec": {"restartPolicy": "Never", "containers": [
            {"name": "migrate", "image": world.image, "args": args, "env": [{"name": "EXIT_AFTER_MS", "value": "300"}]}]}}},
    });
    Object::from_value(value, "a test").unwrap()
}

#[tokio::test]
async fn a_job_is_followed_through_its_attempts_to_its_exit_code() {
    in_cluster("jobs", async |world| {
        let run = async |world: &cluster::World, job: Object| {
            finish(world.target.run_job(&world.environment, job, None).await.unwrap()).await
        };
        let (lines, end) = run(world, job(world, "migrate-1", &json!(["exit", "0", "migrated"]))).await;
        assert_eq!(
            (lines, end.outcome, end.exit_code),
            (vec!["migrated".to_string()], Outcome::Succeeded, Some(0))
        );

        // Two attempts print twice; the end is the last one's.
        let (lines, end) = run(world, job(world, "migrate-2", &json!(["exit", "7", "no table"]))).await;
        assert_eq!(lines, ["no table", "no table"]);
        assert_eq!((end.outcome, end.exit_code), (Outcome::Failed, Some(7)));
        // It took the place of the one that had ended.
        assert!(!world.namespace.has("job", "migrate-1").await.unwrap());

        // Beside a running one it is refused; cancelled, that one ends as such.
        let mut long = job(world, "migrate-3", &json!(["exit", "0", "long"]));
        long.value["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = json!("60000");
        let mut handle = world.target.run_job(&world.environment, long, None).await.unwrap();
        assert!(handle.output.recv().await.is_some());
        let refused = world
            .target
            .run_job(&world.environment, job(world, "migrate-4", &json!(["exit", "0"])), None)
            .await
            .unwrap_err();
        assert!(
            matches!(&refused, TargetError::Refused(why) if why.contains("running already")),
            "{refused}"
        );
        world.target.cancel_job(&world.environment, "migrate-3").await.unwrap();
        assert_eq!(finish(handle).await.1.outcome, Outcome::Canceled);

        // A cron job by hand, and what is known of its runs.
        world.apply(world.objects(APPLICATION)).await.unwrap();
        let handle = world
            .target
            .start_cron_job(&world.environment, "sweep", None)
            .await
            .unwrap();
        let (lines, end) = finish(handle).await;
        assert_eq!(
            (lines.last().map(String::as_str), end.outcome),
            (Some("swept"), Outcome::Succeeded),
            "{lines:?}"
        );
        let failing = APPLICATION.replace("args: [exit, \"0\", swept]", "args: [exit, \"4\", dusty]");
        world.apply(world.objects(&failing)).await.unwrap();
        let handle = world
            .target
            .start_cron_job(&world.environment, "sweep", None)
            .await
            .unwrap();
        assert_eq!(finish(handle).await.1.exit_code, Some(4));
        let [sweep] = world
            .target
            .cron_jobs(&world.environment)
            .await
            .unwrap()
            .try_into()
            .unwrap();
        assert_eq!(
            (sweep.name.as_str(), sweep.schedule.as_str(), sweep.active),
            ("sweep", "0 3 * * *", 0)
        );
        // Kubernetes' times are whole seconds, and the second run may start in the one in which the first ended.
        assert!(
            sweep.last_success.is_some() && sweep.last_run >= sweep.last_success && sweep.next_run.is_some(),
            "{sweep:?}"
        );
        assert_eq!(sweep.failures.len(), 1, "{sweep:?}");
    })
    .await;
}

#[tokio::test]
async fn drift_says_what_changed_and_who_changed_it() {
    in_cluster("drift", async |world| {
        let objects = world.objects(APPLICATION);
        world.apply(objects.clone()).await.unwrap();
        let drift = async |world: &cluster::World| world.target.drift(&world.environment, &objects).await.unwrap();
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

        // Deploying again puts right what the release says.
        world.apply(objects.clone()).await.unwrap();
        let web = world.get("deployment", "web").await;
        assert_eq!(web.pointer("/spec/replicas"), Some(&json!(2)));
        assert!(world.namespace.has("cronjob", "sweep").await.unwrap());
    })
    .await;
}

/// The diff of the object of a kind that has drifted.
fn drift_of(found: &[Drift], kind: &str) -> String {
    let drift = found.iter().find(|drift| drift.change.id.kind == kind);
    drift
        .unwrap_or_else(|| panic!("no {kind} in {found:?}"))
        .change
        .to_string()
}

/// Who wrote the fields of a kind's object that differ.
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
async fn drift_shows_what_the_release_has_and_what_is_there_instead() {
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

/// What somebody has made anew, with fields that never change: the server refuses to apply the release to it.
#[tokio::test]
async fn drift_of_what_the_release_can_no_longer_be_applied_to_is_shown_by_its_manifest() {
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
        // What the manifest says nothing of is not compared.
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
        // The others are looked at as ever.
        let config = drift_of(&found, "ConfigMap");
        assert!(config.contains("-  GREETING: hello\n+  GREETING: goodbye\n"), "{config}");
    })
    .await;
}

#[tokio::test]
async fn drift_lists_objects_whose_kind_is_no_longer_served() {
    in_cluster("unserved", async |world| {
        // Definitions belong to the whole cluster, so this one has a group of its own.
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
        towpath_testkit::until("the group to be gone", cluster::BOUND, async || {
            Ok(match cluster.kubectl(&["get", "--raw", &path]).await {
                Ok(seen) => towpath_testkit::Probe::NotYet(seen),
                Err(_) => towpath_testkit::Probe::Found(()),
            })
        })
        .await
        .unwrap();

        // The one that has seen the kind, and one that asks for it for the first time.
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
async fn what_an_autoscaler_decides_is_no_drift() {
    in_cluster("autoscaled", async |world| {
        let objects = world.objects(APPLICATION);
        world.apply(objects.clone()).await.unwrap();
        // At least three: no metrics are needed to see that two are too few.
        let autoscaler = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: web}\nspec:\n  \
                          scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}\n  minReplicas: 3\n  maxReplicas: 4\n";
        world.namespace.kubectl_apply(autoscaler).await.unwrap();
        towpath_testkit::until("the autoscaler to scale", cluster::BOUND, async || {
            let web = world.namespace.get("deployment", "web").await?;
            Ok(match web.pointer("/spec/replicas") {
                Some(replicas) if *replicas == json!(3) => towpath_testkit::Probe::Found(()),
                other => towpath_testkit::Probe::NotYet(format!("{other:?} replicas")),
            })
        })
        .await
        .unwrap();
        assert_eq!(world.target.drift(&world.environment, &objects).await.unwrap(), []);

        // What somebody changes beside it is.
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
async fn a_controllers_finalizer_is_no_drift() {
    in_cluster("finalizer", async |world| {
        let objects = world.objects(APPLICATION);
        world.apply(objects.clone()).await.unwrap();
        let patch = async |world: &cluster::World, patch: &str, manager: &str| {
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
        // With it the namespace would never go.
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

/// No events, no ReplicaSets, no pods/log, no namespaces, nothing cluster-wide.
fn least_privilege() -> Value {
    let verbs = json!(["get", "list", "watch", "create", "patch", "update", "delete"]);
    json!([
        {"apiGroups": [""], "resources": ["configmaps", "secrets", "services", "pods"], "verbs": verbs},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": verbs},
        {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses"], "verbs": verbs},
        {"apiGroups": ["batch"], "resources": ["jobs", "cronjobs"], "verbs": verbs},
    ])
}

#[tokio::test]
async fn a_least_privileged_account_is_enough_and_what_it_lacks_is_named() {
    in_cluster("least", async |world| {
        let account = world.namespace.account(&least_privilege()).await.unwrap();
        let cluster = world.namespace.cluster();
        let identity = |token: String| Identity::Token {
            server: cluster.server(),
            certificate_authority: cluster.certificate_authority().ok(),
            token: SecretString::new(token),
        };
        world.target = KubernetesTarget::new(KubernetesOptions::new(identity(account.token), world.secrets.clone()));
        world.apply(world.objects(APPLICATION)).await.unwrap();
        let crashing = APPLICATION.replace("ports: [{name: http, c", "args: [exit, \"3\", 'no database']\n          ports: [{name: http, c");
        let error = world.apply(world.objects(&crashing)).await.unwrap_err();
        assert_eq!(error.outcome, Outcome::Failed);
        assert!(error.to_string().contains("(permission to get `pods/log` and list `events` would tell more)"), "{error}");
        world.apply(world.objects(APPLICATION)).await.unwrap();
        assert_eq!(world.target.releases(&world.environment).await.unwrap().len(), 3);
        let (lines, end) = finish(
            world.target.run_job(&world.environment, job(world, "migrate-1", &json!(["exit", "5"])), None).await.unwrap(),
        )
        .await;
        assert!(lines.iter().any(|line| line.contains("pods/log")), "{lines:?}");
        assert_eq!(end.exit_code, Some(5));
        assert_eq!(world.target.drift(&world.environment, &world.objects(APPLICATION)).await.unwrap(), []);

        // Less than that is refused before anything changes, permission by permission.
        let rules = json!([{"apiGroups": ["", "apps"], "resources": ["secrets", "configmaps", "deployments"], "verbs": ["get", "list"]}]);
        let poor = world.namespace.account(&rules).await.unwrap();
        world.target = KubernetesTarget::new(KubernetesOptions::new(identity(poor.token), world.secrets.clone()));
        let said: Vec<String> = world.findings(&world.objects(APPLICATION)).await.iter().map(ToString::to_string).collect();
        let all = said.join("\n");
        for lacking in ["may not create, patch configmaps", "may not create, patch deployments.apps", "may not create, get, patch services"] {
            assert!(all.contains(lacking), "{lacking} is not in\n{all}");
        }
    })
    .await;
}

#[tokio::test]
async fn of_two_deployments_the_second_waits_and_a_dead_one_does_not_block() {
    in_cluster("lock", async |world| {
        let slow = APPLICATION.replace("value: one", "value: one}, {name: START_MS, value: '4000'");
        let first = world.request(world.objects(&slow));
        let second = {
            let mut request = world.request(world.objects(APPLICATION));
            request.record.by = "bob".into();
            request
        };
        let one = carry_out(&world.target, first);
        let two = async {
            world.until_begun().await;
            carry_out(&world.target, second).await
        };
        let (one, two) = tokio::join!(one, two);
        one.unwrap();
        let said = two.unwrap();
        assert!(said[0].starts_with("ann is deploying here since"), "{said:?}");

        // One that dies in the middle: dropped, as by a kill, it gives no sign of life.
        let options = KubernetesOptions {
            lock_expiry: std::time::Duration::from_secs(3),
            ..KubernetesOptions::new(
                Identity::Kubeconfig(Some(world.namespace.cluster().kubeconfig().to_path_buf())),
                world.secrets.clone(),
            )
        };
        let target = KubernetesTarget::new(options);
        let never = APPLICATION.replace("value: one", "value: x}, {name: NOT_READY, value: 'yes'");
        let request = world.request(world.objects(&never));
        let dying = tokio::time::timeout(std::time::Duration::from_secs(3), carry_out(&target, request)).await;
        assert!(dying.is_err(), "{dying:?}");
        let said = carry_out(&target, world.request(world.objects(APPLICATION)))
            .await
            .unwrap();
        assert!(
            said.iter().any(|line| line.contains("gave no sign of life")),
            "{said:?}"
        );

        // A person's lock keeps others out, and not its owner.
        let hold = towpath_deploy::Hold {
            by: "bob".into(),
            reason: "an incident".into(),
            since: jiff::Timestamp::now(),
            until: jiff::Timestamp::now() + jiff::SignedDuration::from_mins(5),
        };
        world.target.set_hold(&world.environment, Some(hold)).await.unwrap();
        let refused = world.apply(world.objects(APPLICATION)).await.unwrap_err();
        assert_eq!(refused.outcome, Outcome::Rejected);
        assert!(
            refused.to_string().contains("locked by bob until") && refused.to_string().contains("an incident"),
            "{refused}"
        );
        let mut bobs = world.request(world.objects(APPLICATION));
        bobs.record.by = "bob".into();
        carry_out(&world.target, bobs).await.unwrap();
        world.target.set_hold(&world.environment, None).await.unwrap();
        world.apply(world.objects(APPLICATION)).await.unwrap();
    })
    .await;
}

/// A person's lock that comes while somebody deploys keeps the next one out, and ends nothing.
#[tokio::test]
async fn a_lock_that_comes_during_a_deployment_ends_nothing() {
    in_cluster("hold", async |world| {
        let slow = APPLICATION.replace("value: one", "value: one}, {name: START_MS, value: '3000'");
        let request = world.request(world.objects(&slow));
        let deploying = carry_out(&world.target, request);
        let locking = async {
            world.until_begun().await;
            let hold = towpath_deploy::Hold {
                by: "bob".into(),
                reason: "an incident".into(),
                since: jiff::Timestamp::now(),
                until: jiff::Timestamp::now() + jiff::SignedDuration::from_mins(5),
            };
            world.target.set_hold(&world.environment, Some(hold)).await.unwrap();
        };
        let (deployed, ()) = tokio::join!(deploying, locking);
        deployed.unwrap();
        let current = world.target.current(&world.environment).await.unwrap().unwrap();
        assert_eq!(current.hold.map(|hold| hold.by).as_deref(), Some("bob"));
        assert!(current.release.is_some() && current.deploying.is_none());
        let refused = world.apply(world.objects(APPLICATION)).await.unwrap_err();
        assert!(refused.to_string().contains("locked by bob"), "{refused}");
    })
    .await;
}

/// What somebody else made stays when it leaves the manifests, though it was applied; what is applied beside the releases
/// leaves them as they are; and going back says of each object which release it is.
#[tokio::test]
async fn what_others_made_stays_and_what_is_beside_the_releases_leaves_them_alone() {
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
            note.contains("ConfigMap/shared: left the manifests, and stays: Towpath did not make it"),
            "{note}"
        );
        assert!(
            findings
                .changes
                .unwrap()
                .iter()
                .all(|change| change.id.name != "shared")
        );

        // One object beside the releases: whoever does it is said, and the release stays the one that runs.
        let sweep: Vec<Object> = more.iter().filter(|object| object.kind == "CronJob").cloned().collect();
        let mut beside = world.request(sweep);
        beside.occasion = Occasion::Beside;
        beside.record.by = "bob".into();
        beside.record.image = "towpath.test/app:other".into();
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

        // A later release fails after it took `shared` out and changed the rest; the one before is gone back to.
        let said = world
            .apply_and_prune(
                world.objects(&APPLICATION.replace("value: one", "value: two")),
                std::slice::from_ref(&id),
            )
            .await
            .unwrap();
        assert!(
            said.iter().any(|line| line.contains("Towpath did not make it")),
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

/// Another environment's object is not overwritten, and what a server says of a Secret's values is not repeated.
#[tokio::test]
async fn what_is_anothers_is_refused_and_a_secrets_values_are_in_no_finding() {
    in_cluster("anothers", async |world| {
        world.apply(world.objects(APPLICATION)).await.unwrap();
        let staging = Environment {
            id: EnvironmentId::new("claims", "staging").unwrap(),
            ..world.environment.clone()
        };
        let objects = world.objects(APPLICATION);
        let preflight = world.target.preflight(&staging, &objects, &[]).await.unwrap();
        let said: Vec<String> = preflight.refused().map(ToString::to_string).collect();
        assert!(
            said.iter()
                .any(|line| line.contains("it is claims/dev's, and claims/staging would overwrite it")),
            "{said:?}"
        );

        for values in [
            "stringData: {PIN: 87654321}",
            "stringData: my-s3cr3t-value",
            "data: {PIN: [my-s3cr3t-value]}",
        ] {
            let text = format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: pins}}\n{values}\n");
            let said: Vec<String> = world
                .findings(&world.objects(&text))
                .await
                .iter()
                .map(ToString::to_string)
                .collect();
            let said = said.join("\n");
            assert!(
                said.contains("Secret/pins") && said.contains("put numbers and booleans in quotes"),
                "{said}"
            );
            assert!(!said.contains("87654321") && !said.contains("s3cr3t"), "{said}");
        }
    })
    .await;
}

/// A tree that brings its namespace: what is wrong in it is found out before there is one.
#[tokio::test]
async fn nothing_is_made_of_a_tree_with_a_namespace_and_a_mistake() {
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

/// Secrets that manifests bring: pods restart when what they read is new, and only then; `stringData` is read back.
#[tokio::test]
async fn pods_restart_once_for_a_secret_that_the_manifests_bring() {
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
        // Deployed again, nothing changes; what leaves `stringData` leaves the cluster.
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
        // Somebody's own change is put right.
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

/// Of two who start a job at once one runs it.
#[tokio::test]
async fn of_those_who_start_a_job_at_once_one_runs_it() {
    in_cluster("once", async |world| {
        let job = |run: &str| {
            let text = format!(
                "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {run}, labels: {{{}: migrate}}}}\nspec:\n  backoffLimit: 0\n  template:\n    \
                 spec:\n      restartPolicy: Never\n      containers: [{{name: migrate, image: IMAGE, args: [exit, \"0\", done]}}]\n",
                towpath_deploy::JOB_LABEL
            );
            let text = text.replace("IMAGE", &world.image);
            let (tree, _) = towpath_manifest::Tree::read([(".k8s/live/dev/job.yaml", text.as_str())]);
            let job = tree.jobs("live", "dev").into_iter().next().cloned().unwrap();
            job.in_namespace(&world.environment.namespace)
        };
        for round in 0..2 {
            let runs: Vec<Object> = (0..4).map(|run| job(&format!("migrate-{round}{run}"))).collect();
            let started = runs.into_iter().map(|run| world.target.run_job(&world.environment, run, None));
            let (mut ran, mut refused) = (0, 0);
            for started in futures::future::join_all(started).await {
                match started {
                    Ok(handle) => {
                        let (lines, end) = finish(handle).await;
                        assert_eq!((end.outcome, lines.as_slice()), (Outcome::Succeeded, ["done".to_string()].as_slice()));
                        ran += 1;
                    }
                    Err(error) => {
                        assert!(error.to_string().contains("is running already"), "{error}");
                        refused += 1;
                    }
                }
            }
            assert_eq!((ran, refused), (1, 3), "in round {round}");
        }
    })
    .await;
}

/// A script's `kubectl apply` leaves a Job of the same name behind, without Towpath's label.
#[tokio::test]
async fn a_job_that_somebody_else_made_is_replaced_once_it_has_ended() {
    in_cluster("byhand", async |world| {
        let by_hand = |pause_ms: &str, finalizers: &[&str]| {
            let container = json!({
                "name": "migrate", "image": world.image, "args": ["exit", "0", "by hand"],
                "env": [{"name": "EXIT_AFTER_MS", "value": pause_ms}],
            });
            let job = json!({
                "apiVersion": "batch/v1", "kind": "Job",
                "metadata": {"name": "migrate", "finalizers": finalizers},
                "spec": {"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
            });
            job.to_string()
        };
        let until_it_ended = ["wait", "--for=condition=complete", "job/migrate", "--timeout=60s"];
        let replaced = "-- replaced Job `migrate`, which somebody else made and which had ended";

        world.namespace.kubectl_apply(&by_hand("1", &[])).await.unwrap();
        world.namespace.kubectl(&until_it_ended).await.unwrap();
        let ours = job(world, "migrate-1", &json!(["exit", "0", "migrated"]));
        let (lines, end) = finish(world.target.run_job(&world.environment, ours, None).await.unwrap()).await;
        assert_eq!(lines, [replaced, "migrated"]);
        assert_eq!(end.outcome, Outcome::Succeeded);

        // One that runs is in the way.
        world.namespace.kubectl(&["delete", "job", "migrate"]).await.unwrap();
        world.namespace.kubectl_apply(&by_hand("60000", &[])).await.unwrap();
        let ours = job(world, "migrate-2", &json!(["exit", "0"]));
        let refused = world.target.run_job(&world.environment, ours, None).await.unwrap_err();
        assert!(refused.to_string().contains("is running already"), "{refused}");
        world.namespace.kubectl(&["delete", "job", "migrate"]).await.unwrap();

        // One whose finalizers take a while is waited for.
        world
            .namespace
            .kubectl_apply(&by_hand("1", &["towpath.test/stay"]))
            .await
            .unwrap();
        world.namespace.kubectl(&until_it_ended).await.unwrap();
        let ours = job(world, "migrate-3", &json!(["exit", "0", "migrated again"]));
        let let_it_go = async {
            let is_going = "--for=jsonpath={.metadata.deletionTimestamp}";
            let wait = ["wait", is_going, "job/migrate", "--timeout=20s"];
            world.namespace.kubectl(&wait).await.unwrap();
            let nothing = r#"{"metadata":{"finalizers":null}}"#;
            let patch = ["patch", "job", "migrate", "--type=merge", "--patch", nothing];
            world.namespace.kubectl(&patch).await.unwrap();
        };
        let running = world.target.run_job(&world.environment, ours, None);
        let (running, ()) = futures::future::join(running, let_it_go).await;
        let (lines, end) = finish(running.unwrap()).await;
        assert_eq!(lines, [replaced, "migrated again"]);
        assert_eq!(end.outcome, Outcome::Succeeded);
    })
    .await;
}

/// A Job says nothing of pods that are refused, and would wait for them for ever.
#[tokio::test]
async fn a_job_whose_pods_cannot_be_made_is_given_up_with_the_reason() {
    in_cluster("podless", async |world| {
        let impatient = |identity: Identity| {
            let mut options = KubernetesOptions::new(identity, world.secrets.clone());
            options.tolerance.refusal = std::time::Duration::from_secs(3);
            KubernetesTarget::new(options)
        };
        let cluster = world.namespace.cluster();
        let target = impatient(Identity::Kubeconfig(Some(cluster.kubeconfig().to_path_buf())));
        let waits = |lines: &[String]| lines.iter().any(|line| line.starts_with("-- it waits for a pod"));

        // A service account that is not there.
        let sweep = APPLICATION.rsplit("---\n").next().unwrap();
        let sweep = sweep.replace("IMAGE", &world.image).replace(
            "          restartPolicy: Never",
            "          restartPolicy: Never\n          serviceAccountName: nobody",
        );
        world.namespace.kubectl_apply(&sweep).await.unwrap();
        let handle = target.start_cron_job(&world.environment, "sweep", None).await.unwrap();
        let run = handle.name.clone();
        let (lines, end) = finish(handle).await;
        assert!(waits(&lines), "{lines:?}");
        assert_eq!(end.outcome, Outcome::Failed);
        assert!(
            end.message.contains("serviceaccount \"nobody\" not found") && end.message.ends_with("The Job was deleted"),
            "{end:?}"
        );
        assert!(!world.namespace.has("job", &run).await.unwrap());

        // A pod that no node takes, for as long as the caller says.
        let mut ours = job(world, "migrate-0", &json!(["exit", "0"]));
        ours.value["spec"]["template"]["spec"]["nodeSelector"] = json!({"nobody": "has"});
        let began = std::time::Instant::now();
        let patience = Some(std::time::Duration::from_secs(2));
        let (_, end) = finish(target.run_job(&world.environment, ours, patience).await.unwrap()).await;
        assert_eq!(end.outcome, Outcome::Failed);
        assert!(end.message.contains("node"), "{end:?}");
        assert!(began.elapsed() < std::time::Duration::from_secs(60), "{end:?}");

        // A quota that is used up; who may not read events is told what it may be.
        world
            .namespace
            .kubectl_apply("apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: small}\nspec: {hard: {pods: '0'}}\n")
            .await
            .unwrap();
        let ours = job(world, "migrate-1", &json!(["exit", "0"]));
        let (lines, end) = finish(target.run_job(&world.environment, ours, None).await.unwrap()).await;
        assert!(waits(&lines), "{lines:?}");
        assert!(end.message.contains("quota"), "{end:?}");
        let account = world.namespace.account(&least_privilege()).await.unwrap();
        let target = impatient(Identity::Token {
            server: cluster.server(),
            certificate_authority: cluster.certificate_authority().ok(),
            token: SecretString::new(account.token),
        });
        let ours = job(world, "migrate-2", &json!(["exit", "0"]));
        let (lines, end) = finish(target.run_job(&world.environment, ours, None).await.unwrap()).await;
        assert!(waits(&lines), "{lines:?}");
        assert_eq!(end.outcome, Outcome::Failed);
        assert!(
            end.message.contains("within 3 s") && end.message.contains("permission to list `events` would tell"),
            "{end:?}"
        );
        assert!(!world.namespace.has("job", "migrate").await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn a_cron_job_by_hand_runs_what_was_released() {
    in_cluster("released", async |world| {
        let run = async |world: &cluster::World| {
            let handle = world
                .target
                .start_cron_job(&world.environment, "sweep", None)
                .await
                .unwrap();
            let (lines, end) = finish(handle).await;
            assert_eq!(end.outcome, Outcome::Succeeded, "{lines:?} {end:?}");
            lines
        };
        // Nobody released this one.
        let sweep = APPLICATION.rsplit("---\n").next().unwrap();
        let sweep = sweep.replace("IMAGE", &world.image);
        world.namespace.kubectl_apply(&sweep).await.unwrap();
        let note = "-- no release has the CronJob `sweep`: this runs what the cluster has";
        assert_eq!(run(world).await, [note, "swept"]);

        let mut request = world.request(world.objects(APPLICATION));
        request.record.plan = json!({"objects": request.objects});
        carry_out(&world.target, request).await.unwrap();
        assert_eq!(run(world).await, ["swept"]);

        // What somebody gave the one in the cluster since is not run: there is no such image.
        let other = "towpath.test/app:nosuch";
        let image = format!("sweep={other}");
        world
            .namespace
            .kubectl(&["set", "image", "cronjob/sweep", &image])
            .await
            .unwrap();
        let lines = run(world).await;
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(
            lines[0].starts_with("-- this runs what release 1 has")
                && lines[0].contains(&world.image)
                && lines[0].ends_with(other),
            "{lines:?}"
        );
        assert_eq!(lines[1], "swept");
    })
    .await;
}

#[tokio::test]
async fn lines_of_several_pods_say_whose_they_are() {
    in_cluster("several", async |world| {
        let mut both = job(world, "migrate-1", &json!(["exit", "0", "migrated"]));
        both.value["spec"]["parallelism"] = json!(2);
        both.value["spec"]["completions"] = json!(2);
        let (lines, end) = finish(world.target.run_job(&world.environment, both, None).await.unwrap()).await;
        assert_eq!(end.outcome, Outcome::Succeeded, "{end:?}");
        assert_eq!(lines.len(), 2, "{lines:?}");
        let is_named = |line: &String| line.starts_with("[migrate-") && line.ends_with("] migrated");
        assert!(lines.iter().all(is_named) && lines[0] != lines[1], "{lines:?}");
    })
    .await;
}

/// The controller of a StatefulSet waits for a broken pod of the template before, for ever: it is taken out of the way.
#[tokio::test]
async fn a_stateful_set_comes_back_from_a_broken_template() {
    in_cluster("stateful", async |world| {
        let set = |arguments: &str| {
            world.objects(&format!(
                "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: store}}\nspec:\n  replicas: 2\n  serviceName: store\n  selector: \
                 {{matchLabels: {{app: store}}}}\n  template:\n    metadata: {{labels: {{app: store}}}}\n    spec:\n      \
                 terminationGracePeriodSeconds: 1\n      containers: [{{name: store, image: IMAGE{arguments}, ports: [{{name: http, containerPort: 8080}}]}}]\n"
            ))
        };
        world.apply(set("")).await.unwrap();
        let failed = world.apply(set(", args: [exit, \"3\", broken]")).await.unwrap_err();
        assert_eq!(failed.outcome, Outcome::Failed, "{failed}");
        let said = world.apply(set("")).await.unwrap();
        assert!(said.iter().any(|line| line.contains("removed pod `store-1`")), "{said:?}");
        assert!(said.contains(&"StatefulSet/store: rolled out".to_string()), "{said:?}");
    })
    .await;
}

#[tokio::test]
async fn a_history_that_somebody_edited_or_deleted_is_said_and_survived() {
    in_cluster("history", async |world| {
        world.apply(world.objects(APPLICATION)).await.unwrap();
        world
            .apply(world.objects(&APPLICATION.replace("one", "two")))
            .await
            .unwrap();
        let edit = r#"{"data":{"release":"bm90aGluZw=="}}"#;
        world
            .namespace
            .kubectl(&["patch", "secret", "towpath.claims.dev.1", "--patch", edit])
            .await
            .unwrap();
        world
            .namespace
            .kubectl(&["delete", "secret", "towpath.claims.dev.2"])
            .await
            .unwrap();
        let objects = world.objects(APPLICATION);
        let said: Vec<String> = world.findings(&objects).await.iter().map(ToString::to_string).collect();
        assert!(
            said.iter()
                .any(|line| line.contains("`towpath.claims.dev.1` is not as Towpath wrote it")),
            "{said:?}"
        );
        assert!(
            said.iter()
                .any(|line| line.contains("the record of release 2, which ran last, was deleted")),
            "{said:?}"
        );
        world.apply(objects.clone()).await.unwrap();

        let edit = r#"{"data":{"state":"bm90aGluZw=="}}"#;
        world
            .namespace
            .kubectl(&["patch", "secret", "towpath.claims.dev", "--patch", edit])
            .await
            .unwrap();
        let findings = world.findings(&objects).await;
        assert!(
            findings.iter().all(|finding| finding.severity == Severity::Note),
            "{findings:?}"
        );
        assert!(
            findings.iter().any(|finding| finding.message.contains("is made anew")),
            "{findings:?}"
        );
        world.apply(objects.clone()).await.unwrap();
        world
            .namespace
            .kubectl(&["delete", "secret", "towpath.claims.dev"])
            .await
            .unwrap();
        world.apply(objects).await.unwrap();
        assert_eq!(
            world
                .target
                .current(&world.environment)
                .await
                .unwrap()
                .unwrap()
                .objects
                .len(),
            4
        );
    })
    .await;
}

#[tokio::test]
async fn a_cluster_that_is_not_there_or_does_not_know_us_is_said() {
    in_cluster("identity", async |world| {
        let objects = world.objects(APPLICATION);
        let ask = async |world: &cluster::World, identity: Identity, kube_context: &str| {
            let mut options = KubernetesOptions::new(identity, world.secrets.clone());
            options.patience.retries = std::time::Duration::from_secs(1);
            let mut environment = world.environment.clone();
            environment.kube_context = kube_context.into();
            KubernetesTarget::new(options)
                .preflight(&environment, &objects, &[])
                .await
                .unwrap_err()
                .chain()
        };
        let kubeconfig = Identity::Kubeconfig(Some(world.namespace.cluster().kubeconfig().to_path_buf()));
        let said = ask(world, kubeconfig, "nowhere").await;
        assert!(said.contains("no kube context `nowhere`: it has `live`"), "{said}");
        let token = |server: &str, token: &str| Identity::Token {
            server: server.into(),
            certificate_authority: world.namespace.cluster().certificate_authority().ok(),
            token: SecretString::new(token.into()),
        };
        let said = ask(world, token("https://127.0.0.1:9", "x"), "live").await;
        assert!(
            said.contains("https://127.0.0.1:9") && said.contains("cannot be reached"),
            "{said}"
        );
        let said = ask(
            world,
            token(&world.namespace.cluster().server(), "expired-token"),
            "live",
        )
        .await;
        assert!(
            said.contains("does not accept the credentials") && !said.contains("expired-token"),
            "{said}"
        );
    })
    .await;
}

/// Many ConfigMaps, of a value each; one has what is no plain text.
fn many_config_maps(value: &str) -> String {
    let one = |index: usize| {
        format!(
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: config-{index}, labels: {{tier: {value}}}}}\n\
             data: {{VALUE: {value}, {value}: only then}}\n"
        )
    };
    let odd = format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: odd}}\ndata: {{VALUE: \"{value} \\x7f \\x85 \\u2028.\"}}\n"
    );
    (0..70).map(one).chain([odd]).collect()
}

/// An account that may not see who else has a say in ConfigMaps asks the server about each, and learns the same.
#[tokio::test]
async fn what_many_config_maps_become_is_known_without_asking_for_each() {
    in_cluster("configs", async |world| {
        let cluster = world.namespace.cluster();
        let identity = Identity::Token {
            server: cluster.server(),
            certificate_authority: Some(cluster.certificate_authority().unwrap()),
            token: SecretString::new(world.namespace.owner().await.unwrap().token),
        };
        // A new one each time: they remember for a moment what others change meanwhile.
        let asking = || KubernetesTarget::new(KubernetesOptions::new(identity.clone(), world.secrets.clone()));
        let changes = async |target: &KubernetesTarget, objects: &[Object]| {
            let before = target.requests(&world.environment.kube_context).await;
            let preflight = target.preflight(&world.environment, objects, &[]).await.unwrap();
            let sent = target.requests(&world.environment.kube_context).await - before;
            assert!(preflight.findings.is_empty(), "{:?}", preflight.findings);
            (preflight.changes.unwrap(), sent)
        };
        let others = [
            ["patch", "configmap", "config-3", "--patch", r#"{"data":{"THEIRS":"yes"}}"#],
            ["patch", "configmap", "config-4", "--patch", r#"{"data":{"VALUE":"theirs"}}"#],
            ["label", "configmap", "config-5", "--overwrite", "tier=theirs"],
        ];
        for value in ["one", "two", "three"] {
            let objects = world.objects(&many_config_maps(value));
            let ((foreseen, few), (asked, many)) =
                (changes(&world.target, &objects).await, changes(&asking(), &objects).await);
            assert_eq!(foreseen, asked);
            assert_eq!(foreseen.len(), 71);
            assert!(few < 25 && many > 70, "{few} {many}");
            world.apply(objects.clone()).await.unwrap();
            assert_eq!(
                changes(&asking(), &objects).await.0,
                changes(&world.target, &objects).await.0
            );
            assert_eq!(world.changes(&objects).await, Vec::<String>::new());
            if value == "one" {
                for arguments in &others {
                    world.namespace.kubectl(arguments).await.unwrap();
                }
                let by_hand = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: config-6}\ndata: {HAND: made}\n";
                world.namespace.kubectl_apply(by_hand).await.unwrap();
            }
        }
        let third = world.get("configmap", "config-3").await;
        assert_eq!(third["data"], json!({"THEIRS": "yes", "VALUE": "three", "three": "only then"}));
        assert_eq!(
            world.get("configmap", "config-7").await["data"],
            json!({"VALUE": "three", "three": "only then"})
        );

        assert_eq!(
            world.get("configmap", "odd").await["data"]["VALUE"],
            "three \u{7f} \u{85} \u{2028}."
        );

        // Where a policy has a say, each is asked about.
        let name = world.environment.namespace.as_str();
        let metadata = world.namespace.metadata().await.unwrap();
        let policy = format!(
            "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\nmetadata: {metadata}\nspec:\n  \
             matchConstraints:\n    resourceRules: [{{apiGroups: [''], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [configmaps]}}]\n  \
             validations: [{{expression: \"object.metadata.name != 'config-42'\", message: nobody is called so}}]\n---\n\
             apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicyBinding\nmetadata: {metadata}\nspec:\n  \
             policyName: {name}\n  validationActions: [Deny]\n  \
             matchResources: {{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {name}}}}}}}\n"
        );
        cluster.kubectl_with(&["create", "--filename", "-"], &policy).await.unwrap();
        let objects = world.objects(&many_config_maps("four"));
        // Servers heed a policy a moment after it is there.
        let refused = towpath_testkit::until("the policy to be heeded", cluster::BOUND, async || {
            let preflight = world.target.preflight(&world.environment, &objects, &[]).await?;
            let refused: Vec<String> = preflight.refused().map(ToString::to_string).collect();
            Ok(match refused.is_empty() {
                true => towpath_testkit::Probe::NotYet("nothing is refused".into()),
                false => towpath_testkit::Probe::Found(refused),
            })
        })
        .await;
        for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
            cluster.kubectl(&["delete", kind, name]).await.unwrap();
        }
        let refused = refused.unwrap();
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert!(
            refused[0].contains("ConfigMap/config-42") && refused[0].contains("nobody is called so"),
            "{refused:?}"
        );
    })
    .await;
}

/// The application without pods, so that a deployment is nothing but its requests.
fn podless(value: &str) -> String {
    APPLICATION
        .replace("replicas: 2", "replicas: 0")
        .replace("value: one", &format!("value: {value}"))
}

/// The application with a pod on a node that is not there, which runs and stops at once.
fn weightless(value: &str) -> String {
    let pod = "      nodeSelector: {type: kwok}\n      tolerations: [{key: kwok.x-k8s.io/node, operator: Exists}]\n      containers:";
    let text = APPLICATION
        .replace("replicas: 2", "replicas: 1")
        .replacen("      containers:", pod, 1)
        .replace("value: one", &format!("value: {value}"));
    assert!(text.contains("type: kwok"));
    text
}

/// Deploys with one fault at one call, for each call of a deployment, and once more without: the first comes off or ends in an
/// error that says something, and the second converges.
async fn at_each_call(name: &str, application: fn(&str) -> String, fault: Verdict) {
    in_cluster(name, async |world| {
        let proxy = world.proxy().await;
        let mut options = world.target_through(&proxy).await;
        options.patience.request = std::time::Duration::from_millis(900);
        options.patience.retries = std::time::Duration::from_secs(4);
        options.lock_expiry = std::time::Duration::from_millis(900);
        let (identity, patience) = (options.identity.clone(), options.patience);
        let target = || {
            let mut options = KubernetesOptions::new(identity.clone(), world.secrets.clone());
            options.patience = patience;
            options.lock_expiry = std::time::Duration::from_millis(900);
            KubernetesTarget::new(options)
        };
        let transient = !matches!(fault, Verdict::Answer(400..=428 | 430..=499, _));
        let (mut call, mut failures) = (0, 0);
        loop {
            let objects = world.objects(&application(&format!("at-{call}")));
            let fault_now = fault.clone();
            proxy.script(move |asked| {
                if asked.number == call {
                    fault_now.clone()
                } else {
                    Verdict::Pass
                }
            });
            let first = target();
            let outcome = async {
                let preflight = first
                    .preflight(&world.environment, &objects, &[])
                    .await
                    .map_err(|error| error.chain())?;
                let refused: Vec<String> = preflight.refused().map(ToString::to_string).collect();
                if !refused.is_empty() {
                    return Err(refused.join("\n"));
                }
                carry_out(&first, world.request(objects.clone()))
                    .await
                    .map_err(|error| error.to_string())
            };
            let outcome = outcome.await;
            let asked = proxy.asked();
            if call >= asked.len() {
                assert!(outcome.is_ok(), "without a fault: {outcome:?}");
                break;
            }
            let at = &asked[call];
            match outcome {
                Ok(_) => {}
                Err(error) => {
                    assert!(
                        !transient,
                        "{fault:?} at {at:?}, which passes, was not survived: {error}"
                    );
                    assert!(error.len() > 10, "{fault:?} at {at:?}: {error:?}");
                    failures += 1;
                }
            }
            proxy.script(|_| Verdict::Pass);
            let second = target();
            carry_out(&second, world.request(objects.clone()))
                .await
                .unwrap_or_else(|error| panic!("after {fault:?} at {at:?}: {error}"));
            let value = world
                .get("deployment", "web")
                .await
                .pointer("/spec/template/spec/containers/0/env/0/value")
                .cloned();
            assert_eq!(value, Some(json!(format!("at-{call}"))), "after {fault:?} at {at:?}");
            assert_eq!(
                world.changes(&objects).await,
                Vec::<String>::new(),
                "after {fault:?} at {at:?}"
            );
            call += 1;
        }
        println!(
            "{fault:?} at each of {call} calls: {failures} clean errors, the rest survived; each second run converged"
        );
        assert!(call > 20, "{call}");
    })
    .await;
}

fn status(code: u16, reason: &str) -> Verdict {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
                      "message": format!("injected: {reason}")});
    Verdict::Answer(code, body.to_string())
}

#[tokio::test]
async fn connections_that_break_at_any_call_are_survived() {
    at_each_call("reset", podless, Verdict::Reset).await;
    at_each_call("lost", podless, Verdict::LoseAnswer).await;
    at_each_call("cut", podless, Verdict::Cut(20)).await;
}

#[tokio::test]
async fn a_server_that_is_slow_or_busy_at_any_call_is_survived() {
    at_each_call("busy", podless, status(429, "TooManyRequests")).await;
    at_each_call("internal", podless, status(500, "InternalError")).await;
    at_each_call("unavailable", podless, status(503, "ServiceUnavailable")).await;
    at_each_call("timeout", podless, status(504, "Timeout")).await;
    at_each_call("slow", podless, Verdict::Delay(std::time::Duration::from_millis(1100))).await;
}

#[tokio::test]
async fn answers_that_are_final_at_any_call_end_cleanly() {
    at_each_call("conflict", podless, status(409, "Conflict")).await;
    at_each_call("expired", podless, status(410, "Expired")).await;
    at_each_call("forbidden", podless, status(403, "Forbidden")).await;
}

/// Old pods are replaced by new ones meanwhile, and watched.
#[tokio::test]
async fn rollouts_go_on_through_faults_at_any_call() {
    at_each_call("rolling-cut", weightless, Verdict::Cut(20)).await;
    at_each_call("rolling-unavailable", weightless, status(503, "ServiceUnavailable")).await;
    at_each_call("rolling-expired", weightless, status(410, "Expired")).await;
}

#[tokio::test]
async fn a_server_that_goes_away_at_any_call_is_said_and_a_second_run_converges() {
    in_cluster("away", async |world| {
        let proxy = world.proxy().await;
        let options = world.target_through(&proxy).await;
        let target = |retries: u64| {
            let mut options = KubernetesOptions::new(options.identity.clone(), world.secrets.clone());
            options.patience.retries = std::time::Duration::from_millis(retries);
            options.lock_expiry = std::time::Duration::from_millis(600);
            KubernetesTarget::new(options)
        };
        let mut call = 0;
        loop {
            let objects = world.objects(&podless(&format!("at-{call}")));
            proxy.script(move |asked| {
                if asked.number >= call {
                    Verdict::Reset
                } else {
                    Verdict::Pass
                }
            });
            let mut request = world.request(objects.clone());
            request.deadline = std::time::Duration::from_secs(3);
            let outcome = carry_out(&target(150), request).await;
            let Err(error) = outcome else { break };
            assert!(
                error.to_string().contains("cannot be reached") || error.to_string().contains("deadline"),
                "at call {call}: {error}"
            );
            proxy.script(|_| Verdict::Pass);
            carry_out(&target(4000), world.request(objects.clone()))
                .await
                .unwrap_or_else(|error| panic!("after call {call}: {error}"));
            assert_eq!(world.changes(&objects).await, Vec::<String>::new(), "after call {call}");
            call += 1;
        }
        assert!(call > 15, "{call}");
    })
    .await;
}

#[tokio::test]
async fn a_watch_that_expires_is_taken_up_again() {
    in_cluster("watch", async |world| {
        let proxy = world.proxy().await;
        let target = KubernetesTarget::new(world.target_through(&proxy).await);
        let watches = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let seen = watches.clone();
        let gone =
            json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}).to_string() + "\n";
        proxy.script(move |asked| {
            if !asked.path.contains("watch=1") {
                return Verdict::Pass;
            }
            match seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                0..=2 => Verdict::Answer(200, gone.clone()),
                3..=4 => Verdict::Answer(410, "{}".into()),
                5..=6 => Verdict::Cut(300),
                _ => Verdict::Pass,
            }
        });
        carry_out(&target, world.request(world.objects(APPLICATION)))
            .await
            .unwrap();
        assert!(
            watches.load(std::sync::atomic::Ordering::SeqCst) > 3,
            "nothing was watched"
        );
    })
    .await;
}

/// What a workload's pods need and its controller, or a manifest beside it, brings.
#[tokio::test]
async fn what_comes_with_the_pods_is_no_reason_to_refuse_them() {
    in_cluster("comes", async |world| {
        let stateful = r#"
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      containers: [{name: db, image: IMAGE, volumeMounts: [{name: data, mountPath: /data}]}]
  volumeClaimTemplates:
    - metadata: {name: data}
      spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
"#;
        assert_eq!(world.findings(&world.objects(stateful)).await, []);

        let account = "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: robot}\n";
        let with_account = APPLICATION.replace(
            "terminationGracePeriodSeconds: 1",
            "terminationGracePeriodSeconds: 1\n      serviceAccountName: robot",
        );
        let objects = world.objects(&format!("{with_account}{account}"));
        let said: Vec<String> = world.findings(&objects).await.iter().map(ToString::to_string).collect();
        let note = "can be tried only once ServiceAccount `robot` is there";
        assert!(said.iter().any(|line| line.contains(note)), "{said:?}");
        world.apply(objects).await.unwrap();
        // Nobody brings this one.
        let said: Vec<String> = world
            .findings(&world.objects(&with_account.replace("robot", "nobody")))
            .await
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(said.iter().any(|line| line.contains("no ServiceAccount `nobody`")), "{said:?}");

        // An operator makes the Secret that these pods read; who pulls without one may do without.
        let operated = format!(
            "{}---\napiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: keeps.review.test}}\nspec:\n  group: \
             review.test\n  scope: Namespaced\n  names: {{plural: keeps, singular: keep, kind: Keep}}\n  versions: [{{name: v1, served: true, storage: \
             true, schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}}}]\n---\napiVersion: \
             review.test/v1\nkind: Keep\nmetadata: {{name: passwords}}\nspec: {{target: {{name: kept}}}}\n",
            APPLICATION.replace(
                "envFrom: [{configMapRef: {name: app-config}}]",
                "envFrom: [{configMapRef: {name: app-config}}, {secretRef: {name: kept}}]",
            ).replace("      terminationGracePeriodSeconds: 1", "      terminationGracePeriodSeconds: 1\n      imagePullSecrets: [{name: none}]")
        );
        let findings = world.findings(&world.objects(&operated)).await;
        let refused: Vec<String> = findings
            .iter()
            .filter(|finding| finding.severity == Severity::Refused)
            .map(ToString::to_string)
            .collect();
        assert_eq!(refused, Vec::<String>::new());
        let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(said.iter().any(|line| line.contains("Keep of these manifests may make it")), "{said:?}");
        assert!(said.iter().any(|line| line.contains("no Secret `none` to pull its images with")), "{said:?}");
    })
    .await;
}

/// However often it failed since, there is something to go back to.
#[tokio::test]
async fn releases_that_failed_do_not_cost_those_that_succeeded() {
    in_cluster("kept", async |world| {
        let config = |value: &str| {
            world.objects(&format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: config}}\ndata: {{A: {value}}}\n"
            ))
        };
        world.apply(config("one")).await.unwrap();
        world.apply(config("two")).await.unwrap();
        for _ in 0..11 {
            // A name that no image can have: that does not heal.
            let nameless = world.objects(&APPLICATION.replace("image: IMAGE", "image: 'INVALID:::x'"));
            let error = world.apply(nameless).await.unwrap_err();
            assert_eq!(error.outcome, Outcome::Failed, "{error}");
        }
        world.apply(config("three")).await.unwrap();
        let releases = world.target.releases(&world.environment).await.unwrap();
        let good: Vec<i64> = releases
            .iter()
            .filter(|release| release.state == "succeeded")
            .map(|release| release.number)
            .collect();
        assert_eq!(good, [14, 2, 1]);
        assert_eq!(releases.len() - good.len(), 10);
    })
    .await;
}

/// An object that somebody deleted, and that is still there, is going; what is applied to it would go with it.
#[tokio::test]
async fn what_is_being_deleted_is_said() {
    in_cluster("going", async |world| {
        let extra = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra}\ndata: {A: b}\n";
        let more = world.objects(&format!("{APPLICATION}{extra}"));
        let id = more.iter().find(|object| object.name == "extra").unwrap().id();
        world.apply(more.clone()).await.unwrap();
        let finalizer = r#"{"metadata":{"finalizers":["review.test/hold"]}}"#;
        let hold = ["patch", "configmap", "extra", "--type=merge", "--patch", finalizer];
        world.namespace.kubectl(&hold).await.unwrap();
        let said = world
            .apply_and_prune(world.objects(APPLICATION), std::slice::from_ref(&id))
            .await
            .unwrap();
        let goes = "deleted; it goes when its finalizers (review.test/hold) have done their work";
        assert!(said.iter().any(|line| line.contains(goes)), "{said:?}");
        let error = world.apply(more.clone()).await.unwrap_err();
        assert_eq!(error.outcome, Outcome::Rejected);
        assert!(
            error.to_string().contains("it is being deleted since") && error.to_string().contains("review.test/hold"),
            "{error}"
        );
        let nothing = r#"{"metadata":{"finalizers":null}}"#;
        let let_go = ["patch", "configmap", "extra", "--type=merge", "--patch", nothing];
        world.namespace.kubectl(&let_go).await.unwrap();
        world.apply(more).await.unwrap();

        // What is gone is in the status, too.
        world.namespace.kubectl(&["delete", "deployment", "web"]).await.unwrap();
        let statuses = world.target.status(&world.environment).await.unwrap();
        let web = statuses.iter().find(|status| status.kind == "Deployment").unwrap();
        assert_eq!((web.name.as_str(), web.ready), ("web", 0));
        assert!(web.message.starts_with("it is not there"), "{}", web.message);
    })
    .await;
}

/// That Towpath has made an object is said by the object, too: a record that is lost costs nothing that was made.
#[tokio::test]
async fn what_was_made_is_pruned_though_its_record_was_lost() {
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

/// A rollout is over when the old pods are gone, and not when they have been told to go.
#[tokio::test]
async fn a_rollout_ends_when_the_old_pods_are_gone() {
    in_cluster("leaving", async |world| {
        let deaf = APPLICATION
            .replace("replicas: 2", "replicas: 1")
            .replace("terminationGracePeriodSeconds: 1", "terminationGracePeriodSeconds: 3")
            .replace(
                "env: [{name: VERSION, value: one}]",
                "env: [{name: DEAF, value: 'yes'}, {name: VERSION, value: one}]",
            );
        world.apply(world.objects(&deaf)).await.unwrap();
        let said = world
            .apply(world.objects(&deaf.replace("value: one", "value: two")))
            .await
            .unwrap();
        let at = |text: &str| said.iter().position(|line| line == text);
        let stopping = at("Deployment/web: 1 old pod is being stopped");
        assert!(
            stopping.is_some() && stopping < at("Deployment/web: rolled out"),
            "{said:?}"
        );
        let pods = world
            .namespace
            .kubectl(&["get", "pods", "--output", "name"])
            .await
            .unwrap();
        assert_eq!(pods.lines().count(), 1, "{pods}");
    })
    .await;
}

/// A Deployment that somebody paused would be waited for until the deadline.
#[tokio::test]
async fn a_paused_deployment_ends_the_waiting() {
    in_cluster("paused", async |world| {
        world.apply(world.objects(APPLICATION)).await.unwrap();
        world
            .namespace
            .kubectl(&["rollout", "pause", "deployment/web"])
            .await
            .unwrap();
        let changed = world.objects(&APPLICATION.replace("value: one", "value: two"));
        let error = world.apply(changed).await.unwrap_err();
        assert_eq!(error.outcome, Outcome::Failed, "{error}");
        assert!(
            error.to_string().contains("it is paused, so nothing rolls out"),
            "{error}"
        );
    })
    .await;
}

/// What an account may not do is one finding among the others; what is the whole cluster's takes another remedy.
#[tokio::test]
async fn missing_permissions_hide_nothing_else() {
    in_cluster("lacks", async |world| {
        let cluster = world.namespace.cluster();
        let account = world.namespace.owner().await.unwrap();
        let identity = Identity::Token {
            server: cluster.server(),
            certificate_authority: cluster.certificate_authority().ok(),
            token: SecretString::new(account.token),
        };
        world.target = KubernetesTarget::new(KubernetesOptions::new(identity, world.secrets.clone()));
        let role = "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: review-lacks}\nrules: []\n";
        let wrong = APPLICATION.replace("data: {GREETING: hello}", "data: {GREETING: hello}\ndatax: {}");
        let findings = world.findings(&world.objects(&format!("{wrong}{role}"))).await;
        let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
        let all = said.join("\n");
        assert!(all.contains("there is no field `datax`"), "{all}");
        assert!(all.contains("clusterroles.rbac.authorization.k8s.io in the cluster"), "{all}");
        assert!(all.contains("bind it a ClusterRole") && all.contains("all.yaml:"), "{all}");

        // What is to be removed takes a permission of its own.
        world.apply(world.objects(APPLICATION)).await.unwrap();
        let mut rules = least_privilege();
        for rule in rules.as_array_mut().unwrap() {
            rule["verbs"].as_array_mut().unwrap().retain(|verb| verb != "delete");
        }
        let careful = world.namespace.account(&rules).await.unwrap();
        let identity = Identity::Token {
            server: cluster.server(),
            certificate_authority: cluster.certificate_authority().ok(),
            token: SecretString::new(careful.token),
        };
        let target = KubernetesTarget::new(KubernetesOptions::new(identity, world.secrets.clone()));
        let objects = world.objects(APPLICATION);
        let (services, rest): (Vec<Object>, Vec<Object>) =
            objects.into_iter().partition(|object| object.kind == "Service");
        let gone = [services[0].id()];
        let all_stay = target.preflight(&world.environment, &rest, &[]).await.unwrap();
        assert_eq!(all_stay.refused().count(), 0);
        let one_goes = target.preflight(&world.environment, &rest, &gone).await.unwrap();
        let said: Vec<String> = one_goes.refused().map(ToString::to_string).collect();
        assert!(said.len() == 1 && said[0].contains("may not delete services"), "{said:?}");
    })
    .await;
}

/// Who scales a workload is not overruled without a word; and a definition may be in several environments' manifests.
#[tokio::test]
async fn what_else_decides_is_noted() {
    in_cluster("decides", async |world| {
        let scaler = "---\napiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: web}\nspec:\n  minReplicas: 3\n  maxReplicas: \
                      5\n  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}\n  metrics: [{type: Resource, resource: {name: cpu, target: \
                      {type: Utilization, averageUtilization: 80}}}]\n";
        let objects = world.objects(&format!("{APPLICATION}{scaler}"));
        world.apply(objects.clone()).await.unwrap();
        let said: Vec<String> = world.findings(&objects).await.iter().map(ToString::to_string).collect();
        let note = "HorizontalPodAutoscaler `web` decides how many run";
        assert!(said.iter().any(|line| line.contains(note)), "{said:?}");

        let class = "apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {name: review-decides}\nvalue: 5\n";
        world.apply(world.objects(class)).await.unwrap();
        let staging = Environment {
            id: EnvironmentId::new("claims", "staging").unwrap(),
            ..world.environment.clone()
        };
        let preflight = world.target.preflight(&staging, &world.objects(class), &[]).await.unwrap();
        assert_eq!(preflight.refused().count(), 0);
        let said: Vec<String> = preflight.findings.iter().map(ToString::to_string).collect();
        assert!(said.iter().any(|line| line.contains("claims/dev has it in its manifests, too")), "{said:?}");
        let gone = ["delete", "priorityclass", "review-decides"];
        world.namespace.cluster().kubectl(&gone).await.unwrap();
    })
    .await;
}
