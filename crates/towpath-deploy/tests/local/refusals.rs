//! What the local target refuses before anything changes.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_supported_is_refused_by_kind_field_and_place_and_nothing_changes() {
    in_world("what_is_not_supported", async |world| {
        let text = format!(
            "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      hostNetwork: true
      containers:
        - name: app
          image: {image}
          envFrom:
            - secretRef: {{name: login}}
          livenessProbe:
            grpc: {{port: 80}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db}}
spec: {{}}
---
apiVersion: batch/v1beta1
kind: CronJob
metadata: {{name: tick}}
spec: {{}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: web}}
spec:
  rules:
    - http:
        paths:
          - path: /
            pathType: Prefix
            backend: {{service: {{name: nobody, port: {{number: 80}}}}}}
",
            image = world.image
        );
        let objects = objects_of("all.yaml", &text);
        let findings = world.target().preflight(&world.id, &objects, &[]).await.unwrap().findings;
        let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
        for expected in [
            "all.yaml:9:7: Deployment/web `spec.template.spec.hostNetwork`: is not supported by the local target",
            "all.yaml:16:13: Deployment/web `spec.template.spec.containers[0].livenessProbe.grpc`: is not supported",
            "all.yaml:18:1: StatefulSet/db: StatefulSet of apps/v1 is not supported by the local target, which knows",
            "all.yaml:23:1: CronJob/tick `apiVersion`: `batch/v1beta1` is not supported by the local target; `batch/v1` is",
            "Ingress/web `spec.rules`: it leads to the Service `nobody`, which is not there",
            "all.yaml:14:27: Deployment/web: there is no Secret `login`",
            "towpath secrets set dev login KEY",
        ] {
            assert!(said.iter().any(|line| line.contains(expected)), "no {expected:?} in\n{}", said.join("\n"));
        }
        assert!(findings.iter().all(|finding| finding.severity == Severity::Refused), "{said:?}");
        let refused = world.apply(&objects).await.unwrap_err();
        assert_eq!(refused.outcome, Outcome::Rejected);
        assert_eq!(refused.message, said.join("\n"));
        assert!(world.target().current(&world.id).await.unwrap().is_none());
        assert_eq!(world.containers("dev.towpath.environment", "").await, []);

        // A missing Secret stops the next version before the first old pod stops.
        world.apply(&web_objects(world.web("1", |_| {}))).await.unwrap();
        let before = world.starts().await;
        let missing = world.web("2", |value| {
            container(value)["env"] = json!([{"name": "P", "valueFrom": {"secretKeyRef": {"name": "login", "key": "P"}}}]);
        });
        let refused = world.apply(std::slice::from_ref(&missing)).await.unwrap_err();
        assert_eq!(refused.outcome, Outcome::Rejected);
        assert!(refused.message.contains("set it with `towpath secrets set dev login P`"), "{refused}");
        assert_eq!(world.starts().await, before);
        world.secrets.set("login", "Q", "other");
        let refused = world.apply(std::slice::from_ref(&missing)).await.unwrap_err();
        assert!(refused.message.contains("`P`"), "{refused}");
        world.secrets.set("login", "P", "set now");
        world.apply(&[missing]).await.unwrap();
        assert_eq!(world.ask("/env?P").await, (200, "set now".into()));

        // A Job is an action, not a state: a release does not apply it.
        let refused = world.apply(&[world.job("migrate", &["exit", "0"], |_| {})]).await.unwrap_err();
        assert_eq!(refused.outcome, Outcome::Rejected, "{refused}");
        assert!(refused.message.contains("Job/migrate"), "{refused}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_not_text_is_a_file_byte_for_byte_and_no_variable() {
    in_world("a_secret_that_is_not_text", async |world| {
        world.secrets.set_bytes("keys", "store", b"0\x82\x05\xff\0\r\n");
        world.secrets.set("keys", "pem", "one\ntwo\n");
        let with = |environment: serde_json::Value| {
            let mut objects = web_objects(world.web("1", |value| {
                value["spec"]["replicas"] = json!(1);
                container(value)["envFrom"] = environment;
                container(value)["volumeMounts"] = json!([{"name": "keys", "mountPath": "/keys"}]);
                value["spec"]["template"]["spec"]["volumes"] =
                    json!([{"name": "keys", "secret": {"secretName": "keys"}}]);
            }));
            let settings = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"store": "plain"},
            });
            objects.push(object(settings));
            objects
        };
        let refused = world.apply(&with(json!([{"secretRef": {"name": "keys"}}]))).await.unwrap_err();
        assert_eq!(refused.outcome, Outcome::Rejected, "{refused}");
        let expected = "the container `app` cannot have the variable `store`: its value, the key `store` of the Secret `keys`, is \
                        not text (UTF-8); mount it as a file";
        assert!(refused.message.contains(expected), "{refused}");
        // A later source overrides it.
        let overridden = json!([{"secretRef": {"name": "keys"}}, {"configMapRef": {"name": "settings"}}]);
        world.apply(&with(overridden)).await.unwrap();
        for (path, expected) in [
            ("/hex?/keys/store", "308205ff000d0a"),
            ("/hex?/keys/pem", "6f6e650a74776f0a"),
            ("/env?store", "plain"),
            ("/env?pem", "one\ntwo\n"),
        ] {
            assert_eq!(world.ask(path).await, (200, expected.into()), "{path}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_does_not_exist_is_said_before_anything_changes() {
    in_world("an_image_that_does_not_exist", async |world| {
        let registry = empty_registry().await;
        let missing = world.web("1", |value| {
            container(value)["image"] = json!(format!("{registry}/claims:nosuch"))
        });
        let refused = world.apply(&[missing]).await.unwrap_err();
        assert_eq!(refused.outcome, Outcome::Rejected, "{refused}");
        let expected = format!("the image `{registry}/claims:nosuch` cannot be pulled");
        assert!(refused.message.contains(&expected), "{refused}");
        assert!(
            refused.message.contains("spec.template.spec.containers[0].image"),
            "{refused}"
        );
        assert!(world.target().current(&world.id).await.unwrap().is_none());

        let never = world.web("1", |value| {
            container(value)["image"] = json!("localhost:1/claims:nosuch");
            container(value)["imagePullPolicy"] = json!("Never");
        });
        let began = Instant::now();
        let failed = world.apply(&[never]).await.unwrap_err();
        assert!(
            failed.message.contains("`imagePullPolicy: Never` forbids pulling it"),
            "{failed}"
        );
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "what can never come off is not waited for"
        );
    })
    .await;
}

/// An empty registry. Returns its address.
async fn empty_registry() -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                let is_base = head.starts_with(b"GET /v2/ ");
                let unknown = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
                let (status, body) = if is_base {
                    ("200 OK", "{}")
                } else {
                    ("404 Not Found", unknown)
                };
                let body = if head.starts_with(b"HEAD") { "" } else { body };
                let answer = format!(
                    "HTTP/1.1 {status}\r\nDocker-Distribution-Api-Version: registry/2.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}

// Jobs.
