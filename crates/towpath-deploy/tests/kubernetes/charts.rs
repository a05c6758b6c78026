//! Charts and overlays, rendered by the real Helm and Kustomize, and deployed over what others have left.

use crate::cluster::{World, carry_out, in_cluster};
use serde_json::{Value, json};
use std::path::Path;
use towpath_deploy::{Target, clean_up_hooks, render::Renderer};
use towpath_manifest::{HookEvent, LayoutSettings, ManifestFile, Object, Tree, hooks_at, with_config_hash};

const CHART: &[(&str, &str)] = &[
    ("Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.0.0\n"),
    ("values.yaml", "image: {repository: REPOSITORY, tag: TAG}\ngreeting: hello\n"),
    (
        "templates/_names.tpl",
        "{{ define \"labels\" }}app.kubernetes.io/managed-by: {{ .Release.Service }}{{ end }}\n",
    ),
    (
        "templates/settings.yaml",
        "apiVersion: v1
kind: ConfigMap
metadata: {name: settings, labels: { {{- include \"labels\" . -}} }}
data: {GREETING: {{ .Values.greeting }}}
",
    ),
    (
        "templates/web.yaml",
        "apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: { {{- include \"labels\" . -}} }}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: web
          image: \"{{ .Values.image.repository }}:{{ .Values.image.tag }}\"
          envFrom: [{configMapRef: {name: settings}}]
          ports: [{name: http, containerPort: 8080}]
          readinessProbe: {httpGet: {path: /ready, port: http}, periodSeconds: 1}
",
    ),
    (
        "templates/hooks.yaml",
        "apiVersion: v1
kind: ServiceAccount
metadata: {name: robot, annotations: {helm.sh/hook: \"pre-install,pre-upgrade\", helm.sh/hook-weight: \"-1\"}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: prepare, annotations: {helm.sh/hook: \"pre-install,pre-upgrade\", helm.sh/hook-delete-policy: hook-succeeded}}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      serviceAccountName: robot
      containers: [{name: one, image: \"{{ .Values.image.repository }}:{{ .Values.image.tag }}\", args: [exit, \"0\", prepared]}]
",
    ),
    ("charts/side/Chart.yaml", "apiVersion: v2\nname: side\nversion: 1.0.0\n"),
    (
        "charts/side/templates/side.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}-side}\ndata: {a: b}\n",
    ),
];

const OVERLAY: &[(&str, &str)] = &[
    ("base/kustomization.yaml", "resources: [web.yaml]\n"),
    (
        "base/web.yaml",
        "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: web
          image: app
          envFrom: [{configMapRef: {name: settings}}]
          ports: [{name: http, containerPort: 8080}]
          readinessProbe: {httpGet: {path: /ready, port: http}, periodSeconds: 1}
",
    ),
    (
        "more/kustomization.yaml",
        "apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
patches:
  - target: {kind: Deployment, name: web}
    patch: |-
      - op: add
        path: /spec/template/spec/containers/0/env
        value: [{name: VERSION, value: more}]
",
    ),
    (
        "live/dev/kustomization.yaml",
        "resources: [../../base]
components: [../../more]
images: [{name: app, newName: REPOSITORY, newTag: TAG}]
configMapGenerator: [{name: settings, literals: [GREETING=VALUE]}]
",
    ),
];

/// The files of a repository, with the application's image.
fn files(world: &World, below: &str, files: &[(&str, &str)], value: &str) -> Vec<ManifestFile> {
    let (repository, tag) = world.image.rsplit_once(':').unwrap();
    let text = |text: &str| {
        let text = text.replace("REPOSITORY", repository);
        text.replace("TAG", tag).replace("VALUE", value)
    };
    files
        .iter()
        .map(|(path, content)| ManifestFile::text(format!("{below}/{path}"), text(content)))
        .collect()
}

/// The objects and the hooks of the environment `dev`.
async fn rendered(world: &World, files: Vec<ManifestFile>) -> (Vec<Object>, Vec<Object>) {
    let programs = world.namespace.cluster().programs().display().to_string();
    let renderer = Renderer::with_path(format!("{programs}:/usr/bin:/bin"));
    let namespace = world.environment.namespace.clone();
    let rendered = renderer
        .render(files, &LayoutSettings::default(), "claims", Some("dev"), |_, _| {
            namespace.clone()
        })
        .await;
    assert!(rendered.failures.is_empty(), "{:?}", rendered.failures);
    let texts = rendered.files.iter().map(|(path, text)| (path.as_str(), text.as_str()));
    let (tree, _) = Tree::read(texts);
    (
        tree.wanted("live", "dev", &namespace).unwrap(),
        tree.hooks("live", "dev", &namespace),
    )
}

/// The objects as a plan has them.
async fn planned(world: &World, objects: &[Object]) -> Vec<Object> {
    let fingerprints = world.target.fingerprints(&world.environment, objects).await.unwrap();
    let fingerprints = fingerprints.with_config_maps(objects);
    let mut objects = objects.to_vec();
    with_config_hash(&mut objects, &fingerprints);
    objects
}

async fn pods(world: &World) -> String {
    let selected = [
        "get",
        "pods",
        "--selector=app=web",
        "--output=jsonpath={.items[*].metadata.uid}",
    ];
    world.namespace.kubectl(&selected).await.unwrap()
}

/// Fails if `kubectl diff` of these objects says anything.
async fn nothing_differs(world: &World, objects: &[Object]) {
    let items: Vec<&Value> = objects.iter().map(|object| &object.value).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    let namespace = world.namespace.name().to_string();
    let arguments = ["--namespace", &namespace, "diff", "--filename=-"];
    let said = world.namespace.cluster().kubectl_with(&arguments, &list).await;
    assert_eq!(said.unwrap(), "");
}

/// Fails if deploying the same again would change anything.
async fn stays(world: &World, objects: &[Object]) {
    let before = pods(world).await;
    let again = planned(world, objects).await;
    assert_eq!(world.changes(&again).await, Vec::<String>::new());
    let said = world.apply(again).await.unwrap();
    assert!(
        !said
            .iter()
            .any(|line| line.ends_with(": changed") || line.ends_with(": created")),
        "{said:?}"
    );
    assert_eq!(pods(world).await, before);
}

async fn helm(world: &World, arguments: &[&str]) {
    let cluster = world.namespace.cluster();
    let run = tokio::process::Command::new(cluster.programs().join("helm"))
        .args(arguments)
        .args(["--namespace", world.namespace.name()])
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig())
        .output()
        .await
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

fn write(folder: &Path, files: &[ManifestFile]) {
    for file in files {
        let path = folder.join(&file.path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, file.text_or_nothing()).unwrap();
    }
}

#[tokio::test]
async fn what_helm_has_installed_is_taken_over_without_a_restart() {
    in_cluster("helm", async |world| {
        let chart = files(world, ".k8s/live/dev", CHART, "");
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &chart);
        let path = folder.path().join(".k8s/live/dev").display().to_string();
        helm(world, &["install", "claims", &path, "--wait", "--timeout=90s"]).await;
        let stray = ["create", "configmap", "stray", "--from-literal=a=b"];
        world.namespace.kubectl(&stray).await.unwrap();
        let before = pods(world).await;

        let (objects, hooks) = rendered(world, chart).await;
        let plan = planned(world, &objects).await;
        let notes: Vec<String> = world.findings(&plan).await.iter().map(ToString::to_string).collect();
        assert!(
            notes
                .iter()
                .any(|note| note.contains("`helm` has deployed it") && note.contains("Deployment/web")),
            "{notes:?}"
        );
        let [release] = world
            .target
            .helm_releases(&world.environment)
            .await
            .unwrap()
            .unwrap()
            .try_into()
            .unwrap();
        assert_eq!(
            (
                release.name.as_str(),
                release.revision,
                release.status.as_str(),
                release.revisions
            ),
            ("claims", 1, "deployed", 1)
        );
        let has_deployed = world.target.has_helm_deployed(&world.environment, &plan).await;
        assert!(has_deployed.unwrap());
        let other: Vec<Object> = plan
            .iter()
            .filter(|object| object.kind == "ServiceAccount")
            .cloned()
            .collect();
        let has_deployed = world.target.has_helm_deployed(&world.environment, &other).await;
        assert!(!has_deployed.unwrap(), "Helm notes no release on hooks");
        let survey = world.target.survey(&world.environment, &plan).await.unwrap();
        for surveyed in &survey.objects {
            let (id, owners) = (&surveyed.change.id, &surveyed.owners);
            // Helm notes no release on hooks.
            let owner = match id.kind.as_str() {
                "ServiceAccount" => "`helm`",
                _ => "the Helm release `claims`",
            };
            assert!(surveyed.is_taken_over && owners == &[owner], "{id}: {owners:?}");
            assert_eq!(surveyed.change.hunks.len(), 0, "{}", surveyed.change);
        }
        let others: Vec<String> = survey
            .others
            .iter()
            .map(|other| format!("{}/{} {:?}", other.kind, other.name, other.owners))
            .collect();
        assert_eq!(others, ["ConfigMap/stray [\"`kubectl create`\"]"]);

        let mut request = world.request(plan);
        let hook = hooks_at(&hooks, HookEvent::PreUpgrade)[0];
        let mut run = hook.clone();
        run.name = "prepare-1".into();
        run.value["metadata"]["name"] = json!("prepare-1");
        run.value["metadata"]["labels"] = json!({"towpath.dev/job": "prepare"});
        request.hooks.before = vec![(HookEvent::PreUpgrade, run)];
        let hooks = request.hooks.clone();
        let said = carry_out(&world.target, request).await.unwrap();
        assert!(said.contains(&"Job/prepare: | prepared".to_string()), "{said:?}");
        assert!(
            world.namespace.has("job", "prepare").await.unwrap(),
            "whoever takes the release over finds it"
        );
        clean_up_hooks(&world.target, &world.environment, &hooks, None).await;
        assert!(
            !world.namespace.has("job", "prepare").await.unwrap(),
            "its policy deletes it"
        );
        assert_eq!(pods(world).await, before, "nothing restarts");
        nothing_differs(world, &objects).await;
        stays(world, &objects).await;

        let web = world.get("deployment", "web").await;
        assert_eq!(web["metadata"]["annotations"]["meta.helm.sh/release-name"], "claims");
        let kept = world.target.helm_releases(&world.environment).await.unwrap();
        assert_eq!(kept.unwrap().len(), 1);
        let plan = planned(world, &objects).await;
        assert!(world.findings(&plan).await.is_empty());
        let drift = world.target.drift(&world.environment, &plan).await.unwrap();
        assert!(drift.is_empty(), "{drift:?}");

        // A change of what the pods read restarts them.
        let changed = CHART
            .iter()
            .map(|(path, text)| (*path, text.replace("hello", "good day")));
        let changed: Vec<(&str, String)> = changed.collect();
        let changed: Vec<(&str, &str)> = changed.iter().map(|(path, text)| (*path, text.as_str())).collect();
        let (objects, _) = rendered(world, files(world, ".k8s/live/dev", &changed, "")).await;
        world.apply(planned(world, &objects).await).await.unwrap();
        assert_ne!(pods(world).await, before);
        stays(world, &objects).await;
    })
    .await;
}

#[tokio::test]
async fn a_generated_config_map_is_removed_when_nothing_reads_it() {
    in_cluster("kustomize", async |world| {
        let overlay = async |world: &World, value: &str| rendered(world, files(world, ".k8s", OVERLAY, value)).await.0;
        let generated = |objects: &[Object]| {
            let found = objects.iter().find(|object| object.kind == "ConfigMap").unwrap();
            found.id()
        };
        let one = overlay(world, "one").await;
        world.apply(planned(world, &one).await).await.unwrap();
        let web = world.get("deployment", "web").await;
        let container = &web["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(
            (&container["image"], &container["env"][0]["value"]),
            (&json!(world.image), &json!("more")),
            "the image transformer and the component count"
        );
        nothing_differs(world, &one).await;
        stays(world, &one).await;

        // Somebody's pod still reads the first one.
        let first = generated(&one);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "reader"},
            "spec": {"containers": [{"name": "one", "image": world.image, "envFrom": [{"configMapRef": {"name": first.name}}]}],
                     "terminationGracePeriodSeconds": 1},
        });
        world.namespace.kubectl_apply(&pod.to_string()).await.unwrap();
        let two = overlay(world, "two").await;
        let second = generated(&two);
        assert_ne!(first, second);
        let plan = planned(world, &two).await;
        let said = world.apply_and_prune(plan.clone(), std::slice::from_ref(&first)).await.unwrap();
        assert!(
            said.iter().any(|line| line.contains("stays while the pod `reader` reads it")),
            "{said:?}"
        );
        assert!(world.namespace.has("configmap", &first.name).await.unwrap());
        nothing_differs(world, &two).await;

        world.namespace.kubectl(&["delete", "pod", "reader"]).await.unwrap();
        let current = world.target.current(&world.environment).await.unwrap().unwrap();
        assert!(current.objects.contains(&first), "a later deployment removes it");
        let said = world.apply_and_prune(plan, std::slice::from_ref(&first)).await.unwrap();
        assert!(said.contains(&format!("{first}: removed")), "{said:?}");
        stays(world, &two).await;
    })
    .await;
}
