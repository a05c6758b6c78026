//! The Kubernetes target on a real cluster.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod cluster;

use cluster::{APPLICATION, carry_out, finish, in_cluster};
use serde_json::{Value, json};
use towpath_deploy::{Identity, KubernetesOptions, KubernetesTarget, Severity, Target, TargetError};
use towpath_manifest::Object;
use towpath_types::{Outcome, SecretString};

#[tokio::test]
async fn an_application_is_deployed_changed_and_left_alone() {
    in_cluster("whole", async |world| {
        let objects = world.objects(APPLICATION);
        assert_eq!(
            world.changes(&objects).await,
            ["created configmap/app-config", "created service/web", "created deployment/web", "created cronjob/sweep"]
        );
        let said = world.apply(objects.clone()).await.unwrap();
        assert!(said.iter().any(|line| line == "Deployment/web: created"), "{said:?}");
        assert!(said.iter().any(|line| line == "Deployment/web: rolled out"), "{said:?}");
        let web = world.get("deployment", "web").await;
        assert_eq!(web.pointer("/status/readyReplicas"), Some(&json!(2)));
        let labels = web.pointer("/metadata/labels").unwrap();
        assert_eq!(labels["towpath.dev/project"], "claims");
        assert_eq!(labels["towpath.dev/release"], "1");
        let cause = web.pointer("/metadata/annotations/kubernetes.io~1change-cause").unwrap();
        assert!(cause.as_str().unwrap().starts_with("release 1: towpath.test/app"), "{cause}");

        // The same again: nothing would change, and nothing does.
        assert_eq!(world.changes(&objects).await, Vec::<String>::new());
        let before = web.pointer("/metadata/resourceVersion").cloned();
        world.apply(objects).await.unwrap();
        assert_eq!(world.get("deployment", "web").await.pointer("/metadata/resourceVersion").cloned(), before);

        // One line changes one object.
        let objects = world.objects(&APPLICATION.replace("value: one", "value: two"));
        assert_eq!(world.changes(&objects).await, ["changed deployment/web"]);
        let preflight = world.target.preflight(&world.environment, &objects, &[]).await.unwrap();
        let diff: String = preflight.changes.unwrap().iter().map(ToString::to_string).collect();
        assert!(diff.contains("-          value: one\n+          value: two") || diff.contains("value: two"), "{diff}");
        assert_eq!(diff.lines().filter(|line| line.starts_with('+') && !line.starts_with("+++")).count(), 1, "{diff}");
        world.apply(objects.clone()).await.unwrap();

        let releases = world.target.releases(&world.environment).await.unwrap();
        let numbers: Vec<(i64, &str)> = releases.iter().map(|release| (release.number, release.state.as_str())).collect();
        assert_eq!(numbers, [(3, "succeeded"), (2, "succeeded"), (1, "succeeded")]);
        let current = world.target.current(&world.environment).await.unwrap().unwrap();
        assert_eq!(current.release, Some(releases[0].id));
        assert_eq!(current.objects.len(), 4);

        // What leaves the manifests leaves the cluster; what somebody else made stays.
        world.namespace.kubectl(&["create", "configmap", "other", "--from-literal=a=b"]).await.unwrap();
        let less: Vec<Object> = objects.into_iter().filter(|object| object.kind != "CronJob").collect();
        let gone: Vec<_> = current.objects.iter().filter(|id| id.kind == "CronJob").cloned().collect();
        let said = world.apply_and_prune(less, &gone).await.unwrap();
        assert!(said.contains(&"CronJob/sweep: removed".to_string()), "{said:?}");
        assert!(!world.namespace.has("cronjob", "sweep").await.unwrap());
        assert!(world.namespace.has("configmap", "other").await.unwrap());

        let statuses = world.target.status(&world.environment).await.unwrap();
        let web = statuses.iter().find(|status| status.kind == "Deployment").unwrap();
        assert_eq!((web.ready, web.desired, web.message.as_str()), (2, 2, ""));
    })
    .await;
}
