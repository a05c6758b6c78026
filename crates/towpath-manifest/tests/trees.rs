//! Whole trees: a typical application with a web part and a worker, and trees with every kind of mistake.

use towpath_manifest::{
    CONFIG_HASH, ChangeKind, Existing, Fingerprints, ImageRule, Tree, diff, missing, sort_for_apply, with_config_hash,
    with_images,
};
use towpath_types::{Digest, ImageReference};
use towpath_yaml::render_all;

const APP_CONFIG: &str = "\
apiVersion: v1
kind: ConfigMap
metadata:
  name: app-config
data:
  RAILS_ENV: production
  FEATURE_NEW_FORM: 'true'
";

const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: claims
  namespace: claims-ENV
spec:
  replicas: 2
  selector: {matchLabels: {app: claims}}
  template:
    metadata: {labels: {app: claims}}
    spec:
      initContainers:
        - name: migrate
          image: registry.example.org/team/claims:app-latest
          command: [bin/migrate]
          env: &database
            - name: DATABASE_URL
              valueFrom:
                secretKeyRef: {name: claims-secrets, key: database_url}
      containers:
        - name: web
          image: registry.example.org/team/claims:app-latest
          envFrom:
            - configMapRef: {name: app-config}
          env: *database
          volumeMounts: [{name: files, mountPath: /files}]
      volumes:
        - name: files
          persistentVolumeClaim: {claimName: files}
";

const WORKER: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: claims-worker, namespace: claims-ENV}
spec:
  selector: {matchLabels: {app: claims-worker}}
  template:
    metadata: {labels: {app: claims-worker}}
    spec:
      containers:
        - name: worker
          image: registry.example.org/team/claims:app-latest
          args: [worker]
          envFrom:
            - secretRef:
                name: claims-secrets
        - name: metrics
          image: prom/exporter:v1
";

const SERVICE_AND_CLAIM: &str = "\
apiVersion: v1
kind: List
items:
  - apiVersion: v1
    kind: Service
    metadata: {name: claims}
    spec: {selector: {app: claims}, ports: [{port: 80, targetPort: 3000}]}
  - apiVersion: v1
    kind: PersistentVolumeClaim
    metadata: {name: files}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
";

const INGRESS: &str = "\
# Only reachable from the office.
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: claims}
spec: {rules: [{host: claims.example.org}]}
---
";

fn cron_job(name: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: {name}}}\nspec:\n  schedule: '0 3 * * *'\n  jobTemplate: {{spec: {{template: {{spec: {{containers: [{{name: job, image: claims}}]}}}}}}}}\n"
    )
}

fn job(name: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec: {{template: {{spec: {{containers: [{{name: job, image: claims}}]}}}}}}\n"
    )
}

fn claims() -> Vec<(String, String)> {
    let mut files = vec![
        (".circleci/config.yml".into(), "version: 2.1".into()),
        (".k8s/README.md".into(), "How we deploy".into()),
        (".k8s/live/scripts/deploy.sh".into(), "#!/bin/sh".into()),
        (
            ".k8s/live/cron_jobs/archive_stale.yaml".into(),
            cron_job("archive-stale"),
        ),
        (".k8s/live/cron_jobs/clean_files.yml".into(), cron_job("clean-files")),
        (".k8s/live/jobs/migrate.yaml".into(), job("migrate")),
        (".k8s/live/jobs/seed.yaml".into(), job("seed")),
    ];
    for environment in ["dev", "staging", "production"] {
        for (name, text) in [
            ("app-config.yaml", APP_CONFIG),
            ("deployment.yaml", DEPLOYMENT),
            ("deployment-worker.yaml", WORKER),
            ("service.yml", SERVICE_AND_CLAIM),
            ("ingress.yaml", INGRESS),
        ] {
            let text = text.replace("ENV", environment);
            files.push((
                format!(".k8s/live/{environment}/{name}"),
                text.replace("RAILS_dev", "RAILS_ENV"),
            ));
        }
    }
    files.push((
        ".k8s/live/dev/jobs/seed.yaml".into(),
        job("seed").replace("claims", "claims-seeds"),
    ));
    files
}

fn read(files: &[(String, String)]) -> (Tree, String) {
    let (tree, diagnostics) = Tree::read(files.iter().map(|(path, text)| (path.as_str(), text.as_str())));
    (tree, render_all(&diagnostics, false))
}

/// Reads one-file-per-entry trees and compares what is wrong with `expect`.
fn check(files: &[(&str, &str)], expect: &str) {
    let (_, diagnostics) = Tree::read(files.iter().copied());
    let got = render_all(&diagnostics, false);
    assert_eq!(got, expect, "\n--- got\n{got}\n--- expected\n{expect}");
}

#[test]
fn a_typical_tree_is_read() {
    let (tree, wrong) = read(&claims());
    assert_eq!(wrong, "");
    assert_eq!(tree.kube_contexts.keys().collect::<Vec<_>>(), ["live"]);
    let live = &tree.kube_contexts["live"];
    assert_eq!(
        live.environments.keys().collect::<Vec<_>>(),
        ["dev", "production", "staging"]
    );
    assert_eq!(tree.kube_contexts_of("staging"), ["live"]);
    assert_eq!(tree.namespace("live", "staging", "x"), "claims-staging");
    assert_eq!(
        tree.namespace("live", "none", "{kube_context}-x-{environment}"),
        "live-x-none"
    );
    assert!(tree.wanted("live", "none", "x").is_none());

    let wanted = tree
        .wanted("live", "production", "claims-production")
        .unwrap_or_default();
    let names: Vec<String> = wanted.iter().map(|object| object.id().to_string()).collect();
    assert_eq!(
        names,
        [
            "ConfigMap/app-config",
            "PersistentVolumeClaim/files",
            "Service/claims",
            "Deployment/claims",
            "Deployment/claims-worker",
            "CronJob/archive-stale",
            "CronJob/clean-files",
            "Ingress/claims",
        ]
    );
    assert!(
        wanted
            .iter()
            .all(|object| object.namespace.as_deref() == Some("claims-production"))
    );
    let web = &wanted[3];
    assert_eq!(
        web.place_of("/spec/template/spec/containers/0/image").to_string(),
        ".k8s/live/production/deployment.yaml:22:11"
    );
    assert_eq!(
        web.place_of("/spec/strategy").to_string(),
        ".k8s/live/production/deployment.yaml:6:1"
    );

    let jobs = |environment: &str| -> Vec<String> {
        tree.jobs("live", environment, &format!("claims-{environment}"))
            .iter()
            .map(|job| format!("{} {}", job.name, job.place.file))
            .collect()
    };
    assert_eq!(
        jobs("dev"),
        [
            "seed .k8s/live/dev/jobs/seed.yaml",
            "migrate .k8s/live/jobs/migrate.yaml"
        ]
    );
    assert_eq!(
        jobs("staging"),
        ["migrate .k8s/live/jobs/migrate.yaml", "seed .k8s/live/jobs/seed.yaml"]
    );
}

#[test]
fn a_tree_becomes_a_plan() {
    let (tree, _) = read(&claims());
    let mut wanted = tree.wanted("live", "dev", "claims-dev").unwrap_or_default();
    let image: ImageReference = match format!("127.0.0.1:7070/claims@{}", Digest::of(b"one")).parse() {
        Ok(image) => image,
        Err(error) => panic!("{error}"),
    };
    let rule = ImageRule::repository("claims");
    let replaced = match with_images(&mut wanted, |container| {
        rule.fit(&container.name, &container.image).map(|_| &image)
    }) {
        Ok(replaced) => replaced,
        Err(error) => panic!("{error}"),
    };
    let lines: Vec<String> = replaced
        .iter()
        .map(|one| format!("{} {} was {}", one.object, one.container, one.before))
        .collect();
    assert_eq!(
        lines,
        [
            "Deployment/claims migrate was registry.example.org/team/claims:app-latest",
            "Deployment/claims web was registry.example.org/team/claims:app-latest",
            "Deployment/claims-worker worker was registry.example.org/team/claims:app-latest",
            "CronJob/archive-stale job was claims",
            "CronJob/clean-files job was claims",
        ]
    );

    let lacks: Vec<String> = missing(&wanted, &Existing::default())
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        lacks,
        [
            "there is no Secret `claims-secrets` (with the key `database_url`), which `Deployment/claims` (container `migrate`) needs for the variable `DATABASE_URL`: .k8s/live/dev/deployment.yaml:19:54",
            "there is no Secret `claims-secrets` (with the key `database_url`), which `Deployment/claims` (container `web`) needs for the variable `DATABASE_URL`: .k8s/live/dev/deployment.yaml:19:54",
            "there is no Secret `claims-secrets`, which `Deployment/claims-worker` (container `worker`) reads with envFrom: .k8s/live/dev/deployment-worker.yaml:15:17",
        ]
    );

    // A changed setting restarts the web part, which reads it, but not the worker.
    let hashes = |setting: &str| {
        let mut objects = wanted.clone();
        for object in objects.iter_mut().filter(|object| object.kind == "ConfigMap") {
            object.value["data"]["FEATURE_NEW_FORM"] = setting.into();
        }
        let fingerprints = Fingerprints::default().with_config_maps(&objects);
        with_config_hash(&mut objects, &fingerprints);
        objects
    };
    let changes = diff(&hashes("true"), &hashes("false"), &|_| String::from("never asked"));
    let changed: Vec<String> = changes
        .iter()
        .filter(|change| change.kind != ChangeKind::Unchanged)
        .map(|change| change.id.to_string())
        .collect();
    assert_eq!(changed, ["ConfigMap/app-config", "Deployment/claims"]);
    assert!(changes.iter().any(|change| change.to_string().contains(CONFIG_HASH)));

    let mut sorted = wanted.clone();
    sort_for_apply(&mut sorted);
    assert_eq!(sorted, wanted);
}

#[test]
fn two_objects_with_the_same_name_are_reported() {
    check(
        &[
            (
                ".k8s/live/dev/a.yaml",
                "apiVersion: v1\nkind: Service\nmetadata:\n  name: app\n",
            ),
            (
                ".k8s/live/dev/b.yml",
                "apiVersion: v1\nkind: Service\nmetadata: {name: app}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: app}\n",
            ),
            (
                ".k8s/live/staging/a.yaml",
                "apiVersion: v1\nkind: Service\nmetadata: {name: app}\n",
            ),
        ],
        r#"error[manifest::duplicate-object]: the environment `dev` has two objects `Service/app`
 --> .k8s/live/dev/b.yml:3:18
  |
3 | metadata: {name: app}
  |                  ^^^ the second
 ::: .k8s/live/dev/a.yaml:4:9
  |
4 |   name: app
  |         --- the first
hint: the object that is applied last would overwrite the other: rename one, or delete it
"#,
    );
}

#[test]
fn values_that_are_no_objects_are_reported() {
    check(
        &[
            (".k8s/live/dev/a.yaml", "- a\n- b\n"),
            (".k8s/live/dev/b.yaml", "apiVersion: v1\nmetadata:\n  name: app\n"),
            (
                ".k8s/live/dev/c.yaml",
                "apiVersion: v1\nkind: Service\nmetadata:\n  labels: {}\n",
            ),
            (
                ".k8s/live/dev/d.yaml",
                "apiVersion: v1\nkind: Service\nmetadata:\n  name: 007\n",
            ),
            (
                ".k8s/live/dev/e.yaml",
                "apiVersion: v1\nkind: Service\nmetadata:\n  name: app\n  namespace: [dev]\n",
            ),
            (
                ".k8s/live/jobs/f.yaml",
                "apiVersion: batch/v1\nkind: Job\nmetadata:\n  generateName: migrate-\n",
            ),
            (".k8s/live/dev/g.yaml", "# only a comment\n"),
            (".k8s/live/dev/h.yaml", ""),
        ],
        r#"error[manifest::not-an-object]: a Kubernetes object is a mapping with `apiVersion`, `kind` and `metadata.name`; this is a list
 --> .k8s/live/dev/a.yaml:1:1
  |
1 | - a
  | ^^^
hint: a file below `.k8s/` that is not a manifest needs another extension

error[manifest::not-an-object]: a Kubernetes object needs `kind`, a non-empty string
 --> .k8s/live/dev/b.yaml:1:1
  |
1 | apiVersion: v1
  | ^^^^^^^^^^^^^^
hint: set `kind`, in quotes if it looks like a number

error[manifest::not-an-object]: a Kubernetes object needs `metadata.name`, a non-empty string
 --> .k8s/live/dev/c.yaml:4:3
  |
4 |   labels: {}
  |   ^^^^^^^^^^
hint: set `metadata.name`, in quotes if it looks like a number

error[manifest::not-an-object]: a Kubernetes object needs `metadata.name`, a non-empty string
 --> .k8s/live/dev/d.yaml:4:9
  |
4 |   name: 007
  |         ^^^
hint: set `metadata.name`, in quotes if it looks like a number

error[manifest::not-an-object]: a Kubernetes object needs `metadata.namespace`, a non-empty string
 --> .k8s/live/dev/e.yaml:5:14
  |
5 |   namespace: [dev]
  |              ^^^^^
hint: set `metadata.namespace`, in quotes if it looks like a number

error[manifest::not-an-object]: a Kubernetes object needs `metadata.name`, a non-empty string
 --> .k8s/live/jobs/f.yaml:4:3
  |
4 |   generateName: migrate-
  |   ^^^^^^^^^^^^^^^^^^^^^^
hint: use `name` instead of `generateName`: Towpath names each run of a Job itself
"#,
    );
}

#[test]
fn files_that_are_no_yaml_are_reported() {
    check(
        &[
            (
                ".k8s/live/dev/a.yaml",
                "apiVersion: v1\nkind: Service\nmetadata: {name: app\n",
            ),
            (
                ".k8s/live/dev/b.yaml",
                "apiVersion: v1\nkind: Service\nmetadata: {name: app}\nspec: 1\nspec: 2\n",
            ),
            (".k8s/live/dev/c.yaml", "{{ if .Values.x }}\nkind: Service\n"),
        ],
        r#"error[yaml::syntax]: cannot read this as YAML: unclosed bracket '{'
 --> .k8s/live/dev/a.yaml:3:11
  |
3 | metadata: {name: app
  |           ^

error[yaml::duplicate-key]: `spec` is written twice in one map; the last one counts
 --> .k8s/live/dev/b.yaml:5:1
  |
4 | spec: 1
  | ---- written here first
5 | spec: 2
  | ^^^^

error[yaml::complex-key]: a key must be text, not a map
 --> .k8s/live/dev/c.yaml:1:2
  |
1 | {{ if .Values.x }}
  |  ^^^^^^^^^^^^^^^^
hint: `{{` looks like a template, but without a `Chart.yaml` in the environment's folder nothing renders it: add the chart, or replace the template by its output

error[yaml::syntax]: cannot read this as YAML: did not find expected <document start>
 --> .k8s/live/dev/c.yaml:2:1
  |
2 | kind: Service
  | ^
hint: `{{` looks like a template, but without a `Chart.yaml` in the environment's folder nothing renders it: add the chart, or replace the template by its output
"#,
    );
}

#[test]
fn different_namespaces_in_one_environment_are_reported() {
    let service = |name: &str, namespace: &str| {
        format!("apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: {namespace}\n")
    };
    check(
        &[
            (".k8s/live/dev/a.yaml", &service("a", "staging")),
            (".k8s/live/dev/b.yaml", &service("b", "dev")),
            (".k8s/live/dev/c.yaml", &service("c", "dev")),
            // Shared objects belong to the environment whose namespace they name.
            (".k8s/live/cron_jobs/d.yaml", &service("d", "production")),
            (".k8s/live/cron_jobs/e.yaml", &service("d", "dev")),
            (".k8s/live/production/a.yaml", &service("a", "production")),
        ],
        r#"error[manifest::other-namespace]: `Service/a` is in the namespace `staging`, but the environment `dev` is in the namespace `dev`
 --> .k8s/live/dev/a.yaml:5:14
  |
5 |   namespace: staging
  |              ^^^^^^^
 ::: .k8s/live/dev/b.yaml:5:14
  |
5 |   namespace: dev
  |              --- named here
hint: an environment has one namespace: set the same one everywhere, or none
"#,
    );
}

#[test]
fn a_file_that_is_reached_in_two_ways_counts_once() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: app}\n";
    let files = [
        (".k8s/live/dev/common/app.yaml", text),
        (".k8s/live/dev/app.yaml", text),
    ];
    check(&files, "");
    let (tree, _) = Tree::read(files);
    assert_eq!(tree.wanted("live", "dev", "x").unwrap_or_default().len(), 1);
    // Twice in one file is a mistake.
    let twice = format!("{text}---\n{text}");
    let (_, diagnostics) = Tree::read([(".k8s/live/dev/app.yaml", twice.as_str())]);
    assert_eq!(diagnostics.len(), 1);
}

#[test]
fn encrypted_manifests_are_named_as_such() {
    check(
        &[
            (".k8s/live/dev/a.yaml", "$ANSIBLE_VAULT;1.1;AES256\n6235\n"),
            (
                ".k8s/live/dev/b.yaml",
                "apiVersion: v1\nkind: Secret\nmetadata: {name: b}\nsops:\n  mac: ENC[AES256_GCM,data:x]\n",
            ),
        ],
        r#"error[manifest::encrypted]: this file is encrypted by ansible-vault
 --> .k8s/live/dev/a.yaml:1:1
  |
1 | $ANSIBLE_VAULT;1.1;AES256
  | ^^^^^^^^^^^^^^^^^^^^^^^^^
hint: decrypt it in a working tree and deploy from there, or keep its values out of the repository

error[manifest::encrypted]: this file is encrypted by sops
 --> .k8s/live/dev/b.yaml:1:1
  |
1 | apiVersion: v1
  | ^^^^^^^^^^^^^^
hint: decrypt it in a working tree and deploy from there, or keep its values out of the repository
"#,
    );
}

#[test]
fn a_namespace_object_decides_the_namespace() {
    check(
        &[
            (
                ".k8s/live/dev/a.yaml",
                "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: claims\n---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: more\n",
            ),
            (
                ".k8s/live/dev/b.yaml",
                "apiVersion: v1\nkind: Service\nmetadata: {name: b, namespace: x}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: c, namespace: x}\n",
            ),
        ],
        r#"error[manifest::other-namespace]: the environment `dev` is in the namespace `claims`, so its manifests cannot contain the Namespace `more`
 --> .k8s/live/dev/a.yaml:9:9
  |
4 |   name: claims
  |         ------ named here
...
9 |   name: more
  |         ^^^^
hint: an environment has one namespace: set the same one everywhere, or none

error[manifest::other-namespace]: `Service/b` is in the namespace `x`, but the environment `dev` is in the namespace `claims`
 --> .k8s/live/dev/b.yaml:3:32
  |
3 | metadata: {name: b, namespace: x}
  |                                ^
 ::: .k8s/live/dev/a.yaml:4:9
  |
4 |   name: claims
  |         ------ named here
hint: an environment has one namespace: set the same one everywhere, or none

error[manifest::other-namespace]: `Service/c` is in the namespace `x`, but the environment `dev` is in the namespace `claims`
 --> .k8s/live/dev/b.yaml:7:32
  |
7 | metadata: {name: c, namespace: x}
  |                                ^
 ::: .k8s/live/dev/a.yaml:4:9
  |
4 |   name: claims
  |         ------ named here
hint: an environment has one namespace: set the same one everywhere, or none
"#,
    );
}

#[test]
fn files_in_the_wrong_folder_are_reported() {
    check(
        &[
            (".k8s/values.yaml", "a: 1\n"),
            ("./.k8s/live/dev.yaml", "a: 1\n"),
            (
                ".k8s/live/jobs/config.yaml",
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n",
            ),
            (
                ".k8s/live/dev/jobs/config.yaml",
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n",
            ),
            ("other/.k8s/live/dev/x.yaml", "]["),
            (".k8s/live/dev/notes.txt", "]["),
        ],
        r#"warning[manifest::outside-environment]: `./.k8s/live/dev.yaml` belongs to no environment and is never applied
 --> ./.k8s/live/dev.yaml:1:1
  |
1 | a: 1
  | ^
hint: manifests belong in `.k8s/<kube context>/<environment>/`: move it there

error[manifest::not-a-job]: `ConfigMap/c` is in `jobs/`, but it is not a Job
 --> .k8s/live/dev/jobs/config.yaml:2:7
  |
2 | kind: ConfigMap
  |       ^^^^^^^^^
hint: `jobs/` holds Jobs, which are run by name: move objects that a release applies out of it

error[manifest::not-a-job]: `ConfigMap/c` is in `jobs/`, but it is not a Job
 --> .k8s/live/jobs/config.yaml:2:7
  |
2 | kind: ConfigMap
  |       ^^^^^^^^^
hint: `jobs/` holds Jobs, which are run by name: move objects that a release applies out of it

warning[manifest::outside-environment]: `.k8s/values.yaml` belongs to no environment and is never applied
 --> .k8s/values.yaml:1:1
  |
1 | a: 1
  | ^
hint: manifests belong in `.k8s/<kube context>/<environment>/`: move it there
"#,
    );
}

#[test]
fn a_value_of_a_secret_is_in_no_diagnostic() {
    for text in [
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData:\n  pw: \"hunter2\\q\"\n",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData:\n  pw: hunter2\n  pw: hunter2\n",
        "{\"kind\": \"Secret\", \"stringData\": {\"pw\": \"hunter2\", \"pw\": \"hunter2\"}}\n",
        "stringData: {pw: hunter2\nkind : 'Secret'\n",
    ] {
        let (_, wrong) = Tree::read([(".k8s/live/dev/a.yaml", text)]);
        assert!(!wrong.is_empty(), "{text}");
        let rendered = render_all(&wrong, false);
        assert!(!rendered.contains("hunter2"), "{rendered}");
        assert!(rendered.contains(".k8s/live/dev/a.yaml:"), "{rendered}");
    }
    let (_, wrong) = Tree::read([(".k8s/live/dev/a.yaml", "kind: SecretStore\nspec: {a: \"shown\\q\"}\n")]);
    assert!(render_all(&wrong, false).contains("shown"));
}

#[test]
fn an_object_in_a_namespace_of_the_system_does_not_move_the_environment() {
    let object = |kind: &str, namespace: &str| {
        format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: a, namespace: {namespace}}}\n")
    };
    let (own, system) = (object("ConfigMap", "shop"), object("Service", "kube-system"));
    let of = |files: &[(&str, &str)]| {
        let (tree, wrong) = Tree::read(files.iter().copied());
        let environment = &tree.kube_contexts["live"].environments["dev"];
        (environment.namespace.clone(), render_all(&wrong, false))
    };
    let (namespace, wrong) = of(&[(".k8s/live/dev/a.yaml", &system)]);
    assert_eq!(namespace, None);
    assert!(wrong.contains("`kube-system` is Kubernetes' own namespace"), "{wrong}");
    let (namespace, wrong) = of(&[
        (".k8s/live/dev/a.yaml", &system),
        (".k8s/live/dev/b.yaml", &object("Secret", "kube-system")),
        (".k8s/live/dev/c.yaml", &own),
    ]);
    assert_eq!(namespace.as_deref(), Some("shop"));
    assert!(
        wrong.contains("`Service/a` is in the namespace `kube-system`"),
        "{wrong}"
    );
}
