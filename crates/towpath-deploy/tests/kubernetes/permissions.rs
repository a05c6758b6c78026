//! What an account needs.

use crate::cluster::{APPLICATION, finish, in_cluster, least_privilege};
use crate::jobs::job;
use serde_json::json;
use towpath_deploy::{Identity, KubernetesOptions, KubernetesTarget, Target};
use towpath_manifest::Object;
use towpath_types::{Outcome, SecretString};

#[tokio::test]
async fn a_least_privileged_account_is_enough_and_missing_permissions_are_named() {
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

        // With less, every missing permission is reported before anything changes.
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
async fn missing_permissions_do_not_hide_other_findings() {
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
        assert!(all.contains("clusterroles.rbac.authorization.k8s.io in the whole cluster"), "{all}");
        assert!(all.contains("grant it a ClusterRole") && all.contains("all.yaml:"), "{all}");

        // Pruning needs its own permission.
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
