//! Preflight: what is found before anything changes.

use crate::cluster::{APPLICATION, BOUND, in_cluster};
use serde_json::json;
use towpath_deploy::{Environment, EnvironmentId, Identity, KubernetesOptions, KubernetesTarget, Severity, Target};
use towpath_manifest::Object;
use towpath_testkit::{Probe, until};
use towpath_types::{Outcome, SecretString};

#[tokio::test]
async fn everything_that_is_wrong_is_reported_at_once_with_its_place() {
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
            "has no port called `htpp`: the only named port is `http`",
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

        // A missing namespace is reported once.
        let mut elsewhere = world.environment.clone();
        elsewhere.namespace = format!("{}-not-there", world.environment.namespace);
        let objects: Vec<Object> = world.objects(APPLICATION).into_iter().map(|object| object.in_namespace(&elsewhere.namespace)).collect();
        let findings = world.target.preflight(&elsewhere, &objects, &[]).await.unwrap().findings;
        let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(said.iter().filter(|line| line.contains("has no namespace")).count(), 1, "{said:?}");

        // Refusals by quota and Pod Security are known before anything changes.
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
async fn objects_of_another_environment_are_refused_and_values_of_secrets_are_in_no_finding() {
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
                .any(|line| line.contains("it belongs to claims/dev, and claims/staging would overwrite it")),
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

/// Pods need objects that their controller creates, or that other manifests contain.
#[tokio::test]
async fn pods_are_not_refused_for_objects_that_are_applied_with_them() {
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
        let note = "can be checked only when ServiceAccount `robot` exists";
        assert!(said.iter().any(|line| line.contains(note)), "{said:?}");
        world.apply(objects).await.unwrap();
        // Nobody creates this one.
        let said: Vec<String> = world
            .findings(&world.objects(&with_account.replace("robot", "nobody")))
            .await
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(said.iter().any(|line| line.contains("no ServiceAccount `nobody`")), "{said:?}");

        // An operator creates the Secret that these pods read. A missing pull Secret is only a note.
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
        assert!(said.iter().any(|line| line.contains("The Keep in these manifests may create it")), "{said:?}");
        assert!(said.iter().any(|line| line.contains("no Secret `none` to pull its images with")), "{said:?}");
    })
    .await;
}

#[tokio::test]
async fn a_variable_that_no_container_can_have_is_found() {
    in_cluster("unfit", async |world| {
        let secret = r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"keys"},"data":{"store":"MIIF/wo=","pem":"b25lCg=="}}"#;
        world.namespace.kubectl_apply(secret).await.unwrap();
        let reads = "envFrom: [{configMapRef: {name: app-config}}, {secretRef: {name: keys}}]";
        let text = APPLICATION.replace("envFrom: [{configMapRef: {name: app-config}}]", reads);
        let findings = world.findings(&world.objects(&text)).await;
        let refused: Vec<String> = findings
            .iter()
            .filter(|finding| finding.severity == Severity::Refused)
            .map(ToString::to_string)
            .collect();
        let [line] = refused.as_slice() else { panic!("{refused:?}") };
        assert!(
            line.contains("all.yaml:22:")
                && line.contains("the container `web` cannot have the variable `store`: its value, the key `store` of the Secret `keys`, is not text")
                && !line.contains("MIIF"),
            "{line}"
        );
        // As a file it is fine.
        let mounts = "volumeMounts: [{name: keys, mountPath: /keys}]";
        let text = APPLICATION.replace("          ports: [{name: http, containerPort", &format!("          {mounts}\n          ports: [{{name: http, containerPort"));
        let volume = "      terminationGracePeriodSeconds: 1\n      volumes: [{name: keys, secret: {secretName: keys}}]";
        let text = text.replace("      terminationGracePeriodSeconds: 1", volume);
        assert_eq!(world.findings(&world.objects(&text)).await, []);
    })
    .await;
}

#[tokio::test]
async fn objects_that_are_being_deleted_are_reported() {
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
        let goes = "deleted; it is gone when its finalizers (review.test/hold) have finished";
        assert!(said.iter().any(|line| line.contains(goes)), "{said:?}");
        let error = world.apply(more.clone()).await.unwrap_err();
        assert_eq!(error.outcome, Outcome::Rejected);
        assert!(
            error.to_string().contains("it was deleted at") && error.to_string().contains("review.test/hold"),
            "{error}"
        );
        let nothing = r#"{"metadata":{"finalizers":null}}"#;
        let let_go = ["patch", "configmap", "extra", "--type=merge", "--patch", nothing];
        world.namespace.kubectl(&let_go).await.unwrap();
        world.apply(more).await.unwrap();

        // The status lists missing objects, too.
        world.namespace.kubectl(&["delete", "deployment", "web"]).await.unwrap();
        let statuses = world.target.status(&world.environment).await.unwrap();
        let web = statuses.iter().find(|status| status.kind == "Deployment").unwrap();
        assert_eq!((web.name.as_str(), web.ready), ("web", 0));
        assert!(web.message.starts_with("it does not exist"), "{}", web.message);
    })
    .await;
}

/// An autoscaler of a workload, and another environment with the same cluster-wide object.
#[tokio::test]
async fn others_who_decide_about_an_object_are_noted() {
    in_cluster("decides", async |world| {
        let scaler = "---\napiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: web}\nspec:\n  minReplicas: 3\n  maxReplicas: \
                      5\n  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}\n  metrics: [{type: Resource, resource: {name: cpu, target: \
                      {type: Utilization, averageUtilization: 80}}}]\n";
        let objects = world.objects(&format!("{APPLICATION}{scaler}"));
        world.apply(objects.clone()).await.unwrap();
        let said: Vec<String> = world.findings(&objects).await.iter().map(ToString::to_string).collect();
        let note = "HorizontalPodAutoscaler `web` decides how many pods run";
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
        assert!(said.iter().any(|line| line.contains("the manifests of claims/dev contain it, too")), "{said:?}");
        let gone = ["delete", "priorityclass", "review-decides"];
        world.namespace.cluster().kubectl(&gone).await.unwrap();
    })
    .await;
}

/// Many ConfigMaps with this value. One contains characters that YAML does not allow.
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

/// An account that may not see admission controllers and quotas has to ask for each, with the same result.
#[tokio::test]
async fn the_changes_of_many_config_maps_are_predicted_without_a_dry_run_of_each() {
    in_cluster("configs", async |world| {
        let cluster = world.namespace.cluster();
        let identity = Identity::Token {
            server: cluster.server(),
            certificate_authority: Some(cluster.certificate_authority().unwrap()),
            token: SecretString::new(world.namespace.owner().await.unwrap().token),
        };
        // A new target each time: a target remembers for a moment what others change in the meantime.
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

        // With a policy, each gets its dry run.
        let name = world.environment.namespace.as_str();
        let metadata = world.namespace.metadata().await.unwrap();
        let policy = format!(
            "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\nmetadata: {metadata}\nspec:\n  \
             matchConstraints:\n    resourceRules: [{{apiGroups: [''], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [configmaps]}}]\n  \
             validations: [{{expression: \"object.metadata.name != 'config-42'\", message: this name is forbidden}}]\n---\n\
             apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicyBinding\nmetadata: {metadata}\nspec:\n  \
             policyName: {name}\n  validationActions: [Deny]\n  \
             matchResources: {{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {name}}}}}}}\n"
        );
        cluster.kubectl_with(&["create", "--filename", "-"], &policy).await.unwrap();
        let objects = world.objects(&many_config_maps("four"));
        // Servers apply a new policy after a moment.
        let refused = until("the policy to be heeded", BOUND, async || {
            let preflight = world.target.preflight(&world.environment, &objects, &[]).await?;
            let refused: Vec<String> = preflight.refused().map(ToString::to_string).collect();
            Ok(match refused.is_empty() {
                true => Probe::NotYet("nothing is refused".into()),
                false => Probe::Found(refused),
            })
        })
        .await;
        for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
            cluster.kubectl(&["delete", kind, name]).await.unwrap();
        }
        let refused = refused.unwrap();
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert!(
            refused[0].contains("ConfigMap/config-42") && refused[0].contains("this name is forbidden"),
            "{refused:?}"
        );
    })
    .await;
}

/// A definition of the kind `Widget`, whose objects have these fields.
fn definition(group: &str, fields: &str) -> String {
    format!(
        "---\napiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: widgets.{group}}}\nspec:\n  group: {group}\n  \
         scope: Namespaced\n  names: {{plural: widgets, singular: widget, kind: Widget}}\n  versions:\n    - name: v1\n      served: true\n      \
         storage: true\n      schema:\n        openAPIV3Schema:\n          type: object\n          properties:\n            spec: {{type: object, \
         properties: {{{fields}}}}}\n"
    )
}

#[tokio::test]
async fn objects_are_tried_when_their_definition_is_there_and_before_anything_else_changes() {
    in_cluster("widgets", async |world| {
        let group = format!("{}.example.com", world.namespace.name());
        let widget = |spec: &str| {
            format!("---\napiVersion: {group}/v1\nkind: Widget\nmetadata: {{name: one}}\nspec: {{{spec}}}\n")
        };
        let config = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: beside}\ndata: {A: b}\n";
        let tree = |fields: &str, spec: &str| {
            world.objects(&format!("{}{config}{}", definition(&group, fields), widget(spec)))
        };

        // A mistake that the server sees only when the kind is there.
        let wrong = world
            .apply(tree("size: {type: integer}", "size: large"))
            .await
            .unwrap_err();
        let has_config = world.namespace.has("configmap", "beside").await.unwrap();
        // A valid number, and then a field that both the definition and the object gain.
        let first = world.apply(tree("size: {type: integer}", "size: 1")).await;
        let grown = tree("size: {type: integer}, colour: {type: string}", "size: 1, colour: red");
        let findings = world.findings(&grown).await;
        let second = world.apply(grown).await;
        let typing = world
            .findings(&tree(
                "size: {type: integer}, colour: {type: string}",
                "size: 1, color: red",
            ))
            .await;
        let name = format!("widgets.{group}");
        let gone = ["delete", "customresourcedefinition", name.as_str()];
        world.namespace.cluster().kubectl(&gone).await.unwrap();

        assert_eq!(wrong.outcome, Outcome::Failed, "{wrong}");
        assert!(
            wrong.message.contains("all.yaml:") && wrong.message.contains("`spec.size`") && !has_config,
            "{wrong}"
        );
        first.unwrap();
        assert!(
            findings.iter().all(|finding| finding.severity == Severity::Note)
                && findings.iter().any(|finding| finding
                    .message
                    .contains("when its changed CustomResourceDefinition is applied")),
            "{findings:?}"
        );
        second.unwrap();
        // Without a change of the definition, the unknown field is a typing mistake.
        assert!(
            typing.iter().any(|finding| finding.severity == Severity::Refused),
            "{typing:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_limit_that_is_raised_beside_the_pods_counts_for_them() {
    in_cluster("raised", async |world| {
        let tree = |pods: u32, image: &str| {
            world.objects(&format!(
                "apiVersion: v1\nkind: ResourceQuota\nmetadata: {{name: pods}}\nspec: {{hard: {{pods: '{pods}'}}}}\n---\napiVersion: \
                 apps/v1\nkind: Deployment\nmetadata: {{name: {image}}}\nspec:\n  replicas: 1\n  selector: {{matchLabels: {{app: web}}}}\n  \
                 template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers: [{{name: \
                 web, image: IMAGE}}]\n"
            ))
        };
        let quota = tree(0, "web").remove(0);
        assert_eq!(quota.kind, "ResourceQuota");
        world.apply(vec![quota]).await.unwrap();
        let refused = world.findings(&tree(0, "web")).await;
        assert!(refused.iter().any(|finding| finding.severity == Severity::Refused), "{refused:?}");
        let noted = world.findings(&tree(2, "web")).await;
        assert!(
            noted.iter().all(|finding| finding.severity == Severity::Note)
                && noted.iter().any(|finding| finding.message.contains("ResourceQuota `pods` is as its manifest has it")),
            "{noted:?}"
        );
        world.apply(tree(2, "web")).await.unwrap();
    })
    .await;
}

/// The refusals of a `Recreate` after a `RollingUpdate`, an immutable Secret and a duplicate variable name the remedy.
#[tokio::test]
async fn refusals_name_the_way_out() {
    in_cluster("ways", async |world| {
        let secret = |value: &str| {
            format!("---\napiVersion: v1\nkind: Secret\nmetadata: {{name: sealed}}\nimmutable: true\nstringData: {{KEY: {value}}}\n")
        };
        let text = format!("{}{}", APPLICATION.replace("replicas: 2", "replicas: 0"), secret("hunter2"));
        world.apply(world.objects(&text)).await.unwrap();
        let changed = format!(
            "{}{}",
            APPLICATION
                .replace("replicas: 2", "replicas: 0\n  strategy: {type: Recreate}"),
            secret("hunter3")
        );
        let said: Vec<String> = world.findings(&world.objects(&changed)).await.iter().map(ToString::to_string).collect();
        let all = said.join("\n");
        assert!(all.contains("patch deployment web --type=merge --patch"), "{all}");
        assert!(all.contains("field is immutable when `immutable` is set. Give the new one another name"), "{all}");
        assert!(!all.contains("hunter") && !all.contains("base64"), "{all}");
        let double = APPLICATION.replace("env: [{name: VERSION, value: one}]", "env: [{name: VERSION, value: one}, {name: VERSION, value: two}]");
        let said: Vec<String> = world.findings(&world.objects(&double)).await.iter().map(ToString::to_string).collect();
        assert!(
            said.iter().any(|line| line.contains("is in the list twice: at .k8s/live/dev/all.yaml:") && line.contains("with \"one\" and here with \"two\"")),
            "{said:?}"
        );
        // The named remedy works.
        let patch = r#"{"spec":{"strategy":{"type":"Recreate","rollingUpdate":null}}}"#;
        let way = ["patch", "deployment", "web", "--type=merge", "--patch", patch];
        world.namespace.kubectl(&way).await.unwrap();
        let recreate = APPLICATION.replace("replicas: 2", "replicas: 0\n  strategy: {type: Recreate}");
        world.apply(world.objects(&recreate)).await.unwrap();
    })
    .await;
}
