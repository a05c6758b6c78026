//! Jobs that are run by name, and CronJobs that are run by hand.

use crate::cluster::{APPLICATION, World, carry_out, finish, in_cluster, least_privilege};
use serde_json::{Value, json};
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};
use towpath_deploy::{Identity, KubernetesOptions, KubernetesTarget, Target, TargetError};
use towpath_manifest::Object;
use towpath_types::{Outcome, SecretString};

pub fn job(world: &World, name: &str, args: &Value) -> Object {
    let value = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name, "namespace": world.environment.namespace, "labels": {"towpath.dev/job": "migrate"}},
        "spec": {"backoffLimit": 1, "template": {"spec": {"restartPolicy": "Never", "containers": [
            {"name": "migrate", "image": world.image, "args": args, "env": [{"name": "EXIT_AFTER_MS", "value": "300"}]}]}}},
    });
    Object::from_value(value, "a test").unwrap()
}

#[tokio::test]
async fn a_job_is_watched_through_its_attempts_to_its_exit_code() {
    in_cluster("jobs", async |world| {
        let run = async |world: &World, job: Object| {
            finish(world.target.run_job(&world.environment, job, None).await.unwrap()).await
        };
        let (lines, end) = run(world, job(world, "migrate-1", &json!(["exit", "0", "migrated"]))).await;
        assert_eq!(
            (lines, end.outcome, end.exit_code),
            (vec!["migrated".to_string()], Outcome::Succeeded, Some(0))
        );

        // Two attempts print twice. The exit code is that of the last one.
        let (lines, end) = run(world, job(world, "migrate-2", &json!(["exit", "7", "no table"]))).await;
        assert_eq!(lines, ["no table", "no table"]);
        assert_eq!((end.outcome, end.exit_code), (Outcome::Failed, Some(7)));
        // It replaced the one that had ended.
        assert!(!world.namespace.has("job", "migrate-1").await.unwrap());

        // It is refused while another one runs. That one ends as canceled.
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
            matches!(&refused, TargetError::Refused(why) if why.contains("already running")),
            "{refused}"
        );
        world.target.cancel_job(&world.environment, "migrate-3").await.unwrap();
        assert_eq!(finish(handle).await.1.outcome, Outcome::Canceled);

        // A run of a CronJob by hand, and the status of its runs.
        world.apply(world.objects(APPLICATION)).await.unwrap();
        let handle = world
            .target
            .start_cron_job(&world.environment, "sweep", "sweep-1", None)
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
            .start_cron_job(&world.environment, "sweep", "sweep-2", None)
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
        // Kubernetes' times are whole seconds, and the second run may start in the second in which the first ended.
        assert!(
            sweep.last_success.is_some() && sweep.last_run >= sweep.last_success && sweep.next_run.is_some(),
            "{sweep:?}"
        );
        assert_eq!(sweep.failures.len(), 1, "{sweep:?}");
    })
    .await;
}

#[tokio::test]
async fn only_one_of_several_simultaneous_runs_of_a_job_starts() {
    in_cluster("once", async |world| {
        let job = |run: &str| {
            let text = format!(
                "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {run}, labels: {{{}: migrate}}}}\nspec:\n  backoffLimit: 0\n  template:\n    \
                 spec:\n      restartPolicy: Never\n      containers: [{{name: migrate, image: IMAGE, args: [exit, \"0\", done]}}]\n",
                towpath_deploy::JOB_LABEL
            );
            let text = text.replace("IMAGE", &world.image);
            let (tree, _) = towpath_manifest::Tree::read([(".k8s/live/dev/job.yaml", text.as_str())]);
            let job = tree.jobs("live", "dev", "x").into_iter().next().cloned().unwrap();
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
                        assert!(error.to_string().contains("is already running"), "{error}");
                        refused += 1;
                    }
                }
            }
            assert_eq!((ran, refused), (1, 3), "in round {round}");
        }
    })
    .await;
}

/// A script with `kubectl apply` leaves a Job with the same name, but without Towpath's label.
#[tokio::test]
async fn an_ended_job_of_somebody_else_is_replaced() {
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
        let replaced = "-- replaced the Job `migrate`, which somebody else had created and which had ended";

        world.namespace.kubectl_apply(&by_hand("1", &[])).await.unwrap();
        world.namespace.kubectl(&until_it_ended).await.unwrap();
        let ours = job(world, "migrate-1", &json!(["exit", "0", "migrated"]));
        let (lines, end) = finish(world.target.run_job(&world.environment, ours, None).await.unwrap()).await;
        assert_eq!(lines, [replaced, "migrated"]);
        assert_eq!(end.outcome, Outcome::Succeeded);

        // One that still runs is not replaced.
        world.namespace.kubectl(&["delete", "job", "migrate"]).await.unwrap();
        world.namespace.kubectl_apply(&by_hand("60000", &[])).await.unwrap();
        let ours = job(world, "migrate-2", &json!(["exit", "0"]));
        let refused = world.target.run_job(&world.environment, ours, None).await.unwrap_err();
        assert!(refused.to_string().contains("is already running"), "{refused}");
        world.namespace.kubectl(&["delete", "job", "migrate"]).await.unwrap();

        // One with finalizers that take a while is waited for.
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

/// A Job's status says nothing about refused pods, and it would wait for them forever.
#[tokio::test]
async fn a_job_whose_pods_cannot_be_created_is_given_up_with_the_reason() {
    in_cluster("podless", async |world| {
        let impatient = |identity: Identity| {
            let mut options = KubernetesOptions::new(identity, world.secrets.clone());
            options.tolerance.refusal = Duration::from_secs(3);
            KubernetesTarget::new(options)
        };
        let cluster = world.namespace.cluster();
        let target = impatient(Identity::Kubeconfig(Some(cluster.kubeconfig().to_path_buf())));
        let waits = |lines: &[String]| lines.iter().any(|line| line.starts_with("-- it waits for a pod"));

        // A missing service account.
        let sweep = APPLICATION.rsplit("---\n").next().unwrap();
        let sweep = sweep.replace("IMAGE", &world.image).replace(
            "          restartPolicy: Never",
            "          restartPolicy: Never\n          serviceAccountName: nobody",
        );
        world.namespace.kubectl_apply(&sweep).await.unwrap();
        let started = target
            .start_cron_job(&world.environment, "sweep", "sweep-1", None)
            .await;
        let handle = started.unwrap();
        let run = handle.name.clone();
        let (lines, end) = finish(handle).await;
        assert!(waits(&lines), "{lines:?}");
        assert_eq!(end.outcome, Outcome::Failed);
        assert!(
            end.message.contains("serviceaccount \"nobody\" not found") && end.message.ends_with("The Job was deleted"),
            "{end:?}"
        );
        assert!(!world.namespace.has("job", &run).await.unwrap());

        // An unschedulable pod, for as long as the caller allows.
        let mut ours = job(world, "migrate-0", &json!(["exit", "0"]));
        ours.value["spec"]["template"]["spec"]["nodeSelector"] = json!({"nobody": "has"});
        let began = Instant::now();
        let patience = Some(Duration::from_secs(2));
        let (_, end) = finish(target.run_job(&world.environment, ours, patience).await.unwrap()).await;
        assert_eq!(end.outcome, Outcome::Failed);
        assert!(end.message.contains("node"), "{end:?}");
        assert!(began.elapsed() < Duration::from_secs(60), "{end:?}");

        // A used-up quota. Without permission to read events, the message lists possible reasons.
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
async fn a_cron_job_run_by_hand_runs_the_released_image() {
    in_cluster("released", async |world| {
        let runs = AtomicU32::new(0);
        let run = async |world: &World| {
            let name = format!("sweep-{}", runs.fetch_add(1, Ordering::Relaxed));
            let handle = world
                .target
                .start_cron_job(&world.environment, "sweep", &name, None)
                .await
                .unwrap();
            let (lines, end) = finish(handle).await;
            assert_eq!(end.outcome, Outcome::Succeeded, "{lines:?} {end:?}");
            lines
        };
        // No release has this one.
        let sweep = APPLICATION.rsplit("---\n").next().unwrap();
        let sweep = sweep.replace("IMAGE", &world.image);
        world.namespace.kubectl_apply(&sweep).await.unwrap();
        let note = "-- no release contains the CronJob `sweep`: this runs what is in the cluster";
        assert_eq!(run(world).await, [note, "swept"]);

        let mut request = world.request(world.objects(APPLICATION));
        request.record.plan = json!({"objects": request.objects});
        carry_out(&world.target, request).await.unwrap();
        assert_eq!(run(world).await, ["swept"]);

        // An image that somebody has set in the cluster is not run.
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
async fn lines_of_several_pods_start_with_the_name_of_their_pod() {
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

/// The cluster deletes such a Job and its pods at once.
#[tokio::test]
async fn a_job_that_is_deleted_at_its_end_has_an_outcome_and_an_exit_code() {
    in_cluster("cleared", async |world| {
        let run = async |number: i64, code: i64| {
            let mut job = job(
                world,
                &format!("short-{number}"),
                &json!(["exit", code.to_string(), "over"]),
            );
            job.value["metadata"]["labels"]["towpath.dev/job"] = json!(format!("short-{number}"));
            job.value["spec"]["backoffLimit"] = json!(0);
            job.value["spec"]["ttlSecondsAfterFinished"] = json!(0);
            let handle = world.target.run_job(&world.environment, job, None).await.unwrap();
            let (_, end) = finish(handle).await;
            (end.outcome, end.exit_code)
        };
        let failing = (1..=12).map(|number| run(number, 2 + number));
        let ends = futures::future::join_all(failing).await;
        let expect: Vec<_> = (1..=12).map(|number| (Outcome::Failed, Some(2 + number))).collect();
        assert_eq!(ends, expect);
        let fine = futures::future::join_all((21..=24).map(|number| run(number, 0))).await;
        assert_eq!(fine, [(Outcome::Succeeded, Some(0)); 4]);
    })
    .await;
}
