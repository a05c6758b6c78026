//! Rollouts that do not end well, and those that take long.

use crate::cluster::{APPLICATION, carry_out, in_cluster};
use serde_json::json;
use std::time::{Duration, Instant};
use towpath_deploy::{Identity, KubernetesOptions, KubernetesTarget, Target, kubernetes::Tolerance};
use towpath_types::Outcome;

#[tokio::test]
async fn a_rollout_that_will_not_heal_ends_early_with_its_reason() {
    in_cluster("stuck", async |world| {
        world.apply(world.objects(APPLICATION)).await.unwrap();
        let began = Instant::now();

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
            tolerance: Tolerance {
                unschedulable: Duration::from_secs(2),
                ..Default::default()
            },
            ..KubernetesOptions::new(
                Identity::Kubeconfig(Some(world.namespace.cluster().kubeconfig().to_path_buf())),
                world.secrets.clone(),
            )
        });
        let error = world.apply(world.objects(&huge)).await.unwrap_err();
        assert!(error.to_string().contains("Insufficient memory"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(120), "a deadline was waited for");

        // The old version still serves, and no release counts as running.
        let web = world.get("deployment", "web").await;
        assert_eq!(web.pointer("/status/availableReplicas"), Some(&json!(2)));
        let current = world.target.current(&world.environment).await.unwrap().unwrap();
        assert_eq!(current.release, None);
        let releases = world.target.releases(&world.environment).await.unwrap();
        let states: Vec<&str> = releases.iter().map(|release| release.state.as_str()).collect();
        assert_eq!(states, ["failed", "failed", "failed", "succeeded"]);

        // The same call goes back.
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
async fn a_deadline_always_ends_a_rollout() {
    in_cluster("deadline", async |world| {
        let never = APPLICATION
            .replace(
                "env: [{name: VERSION, value: one}]",
                "env: [{name: NOT_READY, value: yes}, {name: SAY, value: 'warming up'}]",
            )
            .replace("value: yes", "value: \"yes\"")
            .replace("progressDeadlineSeconds: 60", "progressDeadlineSeconds: 600");
        let mut request = world.request(world.objects(&never));
        request.deadline = Duration::from_secs(8);
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

/// The controller of a StatefulSet would wait forever for a broken pod of the old template, so Towpath removes it.
#[tokio::test]
async fn a_stateful_set_recovers_from_a_broken_template() {
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

/// Not when the old pods have been told to stop.
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
