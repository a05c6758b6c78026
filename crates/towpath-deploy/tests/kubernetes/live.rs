//! The Secrets that pods read: who keeps them, and that nobody else's are written.

use crate::cluster::{APPLICATION, World, in_cluster};
use serde_json::{Value, json};
use towpath_deploy::{KeyChange, LiveSecrets, TargetError};
use towpath_types::{Outcome, SecretBytes};

fn change(secret: &str, key: &str, value: Option<&[u8]>) -> KeyChange {
    KeyChange {
        secret: secret.into(),
        key: key.into(),
        value: value.map(|value| SecretBytes::new(value.to_vec())),
        by: "ada".into(),
    }
}

async fn set(world: &World, secret: &str, key: &str, value: &[u8]) -> Result<(), TargetError> {
    world
        .target
        .change(&world.environment, &change(secret, key, Some(value)))
        .await
}

async fn refused(world: &World, secret: &str) -> String {
    match set(world, secret, "url", b"mine").await {
        Err(TargetError::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

/// Writes a Secret as another field manager does.
async fn write_as(world: &World, manager: &str, secret: &Value) {
    let manager = format!("--field-manager={manager}");
    let arguments = [
        "--namespace",
        world.namespace.name(),
        "create",
        "--filename",
        "-",
        manager.as_str(),
    ];
    let cluster = world.namespace.cluster();
    cluster.kubectl_with(&arguments, &secret.to_string()).await.unwrap();
}

#[tokio::test]
async fn a_deployment_writes_no_value_of_a_live_secret() {
    in_cluster("live", async |world| {
        // Terraform's, one of another type, and one that the data directory knows by another value.
        let rds =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "rds"}, "data": {"url": "dGhlaXJz"}});
        write_as(world, "HashiCorp", &rds).await;
        let tls = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/basic-auth",
                         "metadata": {"name": "login", "labels": {"team": "blue"}}, "data": {"password": "b2xk"}});
        write_as(world, "kubectl-create", &tls).await;
        world.secrets.set("rds", "url", "ours");
        world.secrets.set("login", "password", "ours");
        let reads =
            "envFrom: [{configMapRef: {name: app-config}}, {secretRef: {name: rds}}, {secretRef: {name: login}}]";
        let text = APPLICATION.replace("envFrom: [{configMapRef: {name: app-config}}]", reads);
        let before = (world.get("secret", "rds").await, world.get("secret", "login").await);
        let objects = world.objects(&text);
        let changes = world.changes(&objects).await;
        assert!(changes.iter().all(|change| !change.contains("secret/")), "{changes:?}");
        world.apply(objects).await.unwrap();
        assert_eq!(
            (world.get("secret", "rds").await, world.get("secret", "login").await),
            before
        );

        // A person sets one key: type, labels and other keys stay, and who it was is there.
        set(world, "login", "username", b"\xff\0\n").await.unwrap();
        let login = world.get("secret", "login").await;
        assert_eq!(login["type"], "kubernetes.io/basic-auth");
        assert_eq!(login["data"], json!({"password": "b2xk", "username": "/wAK"}));
        assert_eq!(login["metadata"]["labels"], json!({"team": "blue"}));
        let annotations = json!({"towpath.dev/keeper": "people", "towpath.dev/set-by": "ada"});
        assert_eq!(login["metadata"]["annotations"], annotations);

        // Terraform's is refused, until somebody says that people keep it.
        let why = refused(world, "rds").await;
        assert!(
            why.contains("kept by terraform (the field manager `HashiCorp` wrote its values)"),
            "{why}"
        );
        assert_eq!(world.get("secret", "rds").await, before.0);
        world
            .namespace
            .kubectl(&["annotate", "secret", "rds", "towpath.dev/keeper=people"])
            .await
            .unwrap();
        set(world, "rds", "url", b"mine").await.unwrap();
        assert_eq!(world.get("secret", "rds").await["data"]["url"], "bWluZQ==");

        let listed = world.target.list(&world.environment).await.unwrap();
        let said: Vec<String> = listed
            .iter()
            .filter(|secret| ["rds", "login"].contains(&secret.name.as_str()))
            .flat_map(|secret| {
                let key = |key: &towpath_deploy::LiveKey| {
                    format!(
                        "{} {} {} {} {}",
                        secret.name, key.key, key.bytes, key.by, secret.kept.by
                    )
                };
                secret.keys.iter().map(key).collect::<Vec<_>>()
            })
            .collect();
        let expected = [
            "login password 3 kubectl-create people",
            "login username 3 ada people",
            "rds url 4 ada people",
        ];
        assert_eq!(said, expected);
        let own = format!("towpath.{}", world.environment.id.project());
        assert!(listed.iter().all(|secret| !secret.name.starts_with(&own)), "{listed:?}");
    })
    .await;
}

#[tokio::test]
async fn only_peoples_secrets_are_written() {
    in_cluster("keepers", async |world| {
        let namespace = &world.environment.namespace;
        let secret = |name: &str, more: Value| {
            let mut secret =
                json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"url": "eA=="}});
            for (key, value) in more.as_object().unwrap() {
                secret[key] = value.clone();
            }
            secret
        };
        let owned = json!({"metadata": {"name": "owned", "ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "kube-root-ca.crt", "controller": true,
             "uid": world.get("configmap", "kube-root-ca.crt").await["metadata"]["uid"]}]}});
        write_as(world, "controller", &secret("owned", owned)).await;
        write_as(world, "kubectl-create", &secret("fixed", json!({"immutable": true}))).await;
        let chart = json!({"metadata": {"name": "chart", "annotations": {"meta.helm.sh/release-name": "app"}}});
        write_as(world, "helm", &secret("chart", chart)).await;
        let manifest = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: brought}\ndata: {url: eA==}\n";
        let all = world.objects(&format!(
            "{}{manifest}",
            APPLICATION.replace("replicas: 2", "replicas: 0")
        ));
        world.apply(all).await.unwrap();
        for (name, expected) in [
            (
                "owned",
                "kept by an operator (its controller is the ConfigMap `kube-root-ca.crt`)",
            ),
            ("fixed", "is immutable"),
            (
                "chart",
                "kept by manifests (it has the mark `meta.helm.sh/release-name`)",
            ),
            (
                "brought",
                "kept by manifests (a deployment applied it from the environment's manifests)",
            ),
        ] {
            let why = refused(world, name).await;
            assert!(why.contains(expected), "{name}: {why}");
            assert_eq!(
                world.get("secret", name).await["data"],
                json!({"url": "eA=="}),
                "{name}"
            );
        }
        // The server's refusal has its words and not the value.
        let error = set(world, "No_Such", "url", b"hunter2hunter2")
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("No_Such") && !error.contains("hunter2") && !error.contains("aHVudGVy"),
            "{error}"
        );
        let gone = world
            .target
            .change(&world.environment, &change("none", "url", None))
            .await
            .unwrap_err();
        assert_eq!(gone.to_string(), "the Secret `none` of claims/dev has no `url`");

        // A manifest may not write over what terraform keeps.
        write_as(world, "HashiCorp", &secret("rds", json!({}))).await;
        let manifest = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: rds}\ndata: {url: b3Vycw==}\n";
        let objects = world.objects(&format!(
            "{}{manifest}",
            APPLICATION.replace("replicas: 2", "replicas: 0")
        ));
        let error = world.apply(objects).await.unwrap_err();
        assert_eq!(error.outcome, Outcome::Rejected, "{error}");
        assert!(
            error
                .message
                .contains("the Secret that the cluster has is kept by terraform"),
            "{error}"
        );
        assert_eq!(
            world.get("secret", "rds").await["data"],
            json!({"url": "eA=="}),
            "{namespace}"
        );
    })
    .await;
}

#[tokio::test]
async fn people_who_set_other_keys_at_once_lose_nothing() {
    in_cluster("at-once", async |world| {
        let keys: Vec<String> = (0..8).map(|index| format!("K{index}")).collect();
        let all = keys.iter().map(|key| set(world, "shared", key, key.as_bytes()));
        for result in futures::future::join_all(all).await {
            result.unwrap();
        }
        let data = world.get("secret", "shared").await["data"].clone();
        assert_eq!(data.as_object().unwrap().len(), keys.len(), "{data}");
        // One key leaves, and the Secret stays.
        for key in &keys {
            world
                .target
                .change(&world.environment, &change("shared", key, None))
                .await
                .unwrap();
        }
        let left = world.get("secret", "shared").await;
        assert_eq!((left.get("data"), &left["type"]), (None, &json!("Opaque")));
    })
    .await;
}
