//! Tests the real Kustomize and Helm on small repositories.
//!
//! The programs come from `PATH`, or else from where `scripts/ensure-cluster` installs them.

#![allow(clippy::unwrap_used)]

use std::{ffi::OsString, os::unix::fs::PermissionsExt as _, path::PathBuf};
use towpath_deploy::render::{RenderError, RenderFailure, Rendered, Renderer};
use towpath_manifest::{
    DeclaredBy, DeclaredEnvironment, DeclaredSource, LayoutSettings, ManifestContent, ManifestFile, SourceFile, Span,
    Tree, Written,
};
use towpath_testkit::{Absent, skipped};

/// A renderer that finds `program` and none of the other two, so that it is certain which one ran.
struct World {
    renderer: Renderer,
    _programs: tempfile::TempDir,
}

impl World {
    /// Returns `None`, and says so, if the program is missing.
    fn with(test: &str, program: &str) -> Option<Self> {
        match find(program) {
            Ok(found) => Some(Self::around(&[(program, &found)])),
            Err(absent) => {
                skipped(test, &absent);
                None
            }
        }
    }

    fn around(programs: &[(&str, &PathBuf)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, program) in programs {
            std::os::unix::fs::symlink(program, dir.path().join(name)).unwrap();
        }
        // The program that puts renderers into a network namespace of their own.
        for place in ["/usr/bin/unshare", "/bin/unshare"].map(PathBuf::from) {
            if place.exists() && !dir.path().join("unshare").exists() {
                std::os::unix::fs::symlink(place, dir.path().join("unshare")).unwrap();
            }
        }
        Self {
            renderer: Renderer::with_path(dir.path()),
            _programs: dir,
        }
    }

    /// A renderer with a shell script in place of a program.
    fn scripted(program: &str, script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(program);
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut path = OsString::from(dir.path());
        path.push(":/usr/bin:/bin");
        Self {
            renderer: Renderer::with_path(path),
            _programs: dir,
        }
    }

    async fn render(&self, files: &[(&str, &str)]) -> Rendered {
        self.render_only(files, None).await
    }

    async fn render_only(&self, files: &[(&str, &str)], only: Option<&str>) -> Rendered {
        let files = files.iter().map(|(path, text)| ManifestFile::text(*path, *text));
        let namespace = |kube_context: &str, environment: &str| format!("{kube_context}-{environment}-ns");
        self.renderer
            .render(files.collect(), &LayoutSettings::default(), "my_app", only, namespace)
            .await
    }

    /// The error of the only environment.
    async fn refused(&self, files: &[(&str, &str)]) -> RenderError {
        let mut rendered = self.render(files).await;
        let Some(RenderFailure { error, .. }) = rendered.failures.pop() else {
            panic!("it was rendered: {rendered:#?}")
        };
        error
    }
}

fn find(program: &str) -> Result<PathBuf, Absent> {
    if let Ok(found) = towpath_testkit::program(program) {
        return Ok(found);
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
    let clusters = std::fs::read_dir(cache.join("towpath/cluster"))
        .into_iter()
        .flatten()
        .flatten();
    clusters
        .map(|cluster| cluster.path().join("bin").join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| Absent(format!("`{program}` is not installed: run scripts/ensure-cluster")))
}

/// The tree of the rendered files, which must have no errors.
fn tree(rendered: &Rendered) -> Tree {
    assert!(rendered.failures.is_empty(), "{:#?}", rendered.failures);
    assert!(rendered.diagnostics.is_empty(), "{:#?}", rendered.diagnostics);
    let (tree, diagnostics) = Tree::read(rendered.files.iter().map(|(path, text)| (path.as_str(), text.as_str())));
    assert!(diagnostics.is_empty(), "{diagnostics:#?}");
    tree
}

fn names(tree: &Tree, kube_context: &str, environment: &str) -> Vec<String> {
    let wanted = tree.wanted(kube_context, environment, "ns").unwrap();
    wanted
        .iter()
        .map(|object| format!("{}/{}", object.kind, object.name))
        .collect()
}

const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: app
          envFrom: [{configMapRef: {name: settings}}]
";
const PATCH: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 3}\n";
const JOB: &str = "apiVersion: batch/v1
kind: Job
metadata: {name: migrate}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: migrate, image: app}]}}}
";
const OVERLAY: &str = "namespace: shop-dev
resources: [../../base]
patches: [{path: replicas.yaml}]
configMapGenerator: [{name: settings, envs: [settings.env]}]
";

fn overlays(settings: &'static str) -> Vec<(&'static str, &'static str)> {
    vec![
        (".k8s/base/kustomization.yaml", "resources: [web.yaml, job.yaml]\n"),
        (".k8s/base/web.yaml", DEPLOYMENT),
        (".k8s/base/job.yaml", JOB),
        (".k8s/live/dev/kustomization.yaml", OVERLAY),
        (".k8s/live/dev/replicas.yaml", PATCH),
        (".k8s/live/dev/settings.env", settings),
        (".k8s/live/plain/web.yaml", DEPLOYMENT),
        (".k8s/live/cron_jobs/README.md", "no manifest"),
    ]
}

async fn check_overlays(world: &World) {
    let rendered = world.render(&overlays("COLOUR=blue\n")).await;
    let tree = tree(&rendered);
    assert_eq!(
        tree.kube_contexts.keys().collect::<Vec<_>>(),
        ["live"],
        "a base is no kube context"
    );
    let environments: Vec<_> = tree.kube_contexts["live"].environments.keys().collect();
    assert_eq!(environments, ["dev", "plain"]);
    assert_eq!(names(&tree, "live", "plain"), ["Deployment/web"]);
    assert_eq!(tree.namespace("live", "dev", "other"), "shop-dev");
    assert_eq!(tree.jobs("live", "dev", "x")[0].name, "migrate");

    let wanted = tree.wanted("live", "dev", "shop-dev").unwrap();
    let deployment = wanted.iter().find(|object| object.kind == "Deployment").unwrap();
    assert_eq!(deployment.value["spec"]["replicas"], 3);
    let place = deployment.place_of("/spec/replicas");
    assert!(place.file.ends_with("/web.deployment.yaml") && place.file.starts_with(".k8s/live/dev/(rendered by"));
    assert!(place.line > 1, "{place:?}");
    let config = wanted.iter().find(|object| object.kind == "ConfigMap").unwrap();
    assert!(config.name.starts_with("settings-"), "{}", config.name);
    let from = &deployment.value["spec"]["template"]["spec"]["containers"][0]["envFrom"][0]["configMapRef"]["name"];
    assert_eq!(from, config.name.as_str());

    // Other settings give the object another name, and the old object is then pruned.
    let after = self::tree(&world.render(&overlays("COLOUR=red\n")).await);
    let after = names(&after, "live", "dev");
    let before = names(&tree, "live", "dev");
    assert_ne!(after, before);
    assert_eq!(after.len(), before.len());
}

#[tokio::test]
async fn overlays_by_kustomize() {
    if let Some(world) = World::with("overlays_by_kustomize", "kustomize") {
        check_overlays(&world).await;
    }
}

#[tokio::test]
async fn overlays_by_kubectl_where_kustomize_is_not_there() {
    if let Some(world) = World::with("overlays_by_kubectl", "kubectl") {
        check_overlays(&world).await;
    }
}

#[tokio::test]
async fn what_is_broken_is_said_by_the_program() {
    let Some(world) = World::with("what_is_broken_is_said_by_the_program", "kustomize") else {
        return;
    };
    let missing = [(".k8s/live/dev/kustomization.yaml", "resources: [nowhere.yaml]\n")];
    let message = world.refused(&missing).await.to_string();
    for word in [
        "kustomize cannot render `.k8s/live/dev`",
        "'.k8s/live/dev/nowhere.yaml'",
        "no such file",
        "hint: only the files of the kustomization",
    ] {
        assert!(message.contains(word), "{word}: {message}");
    }
    assert!(
        !message.contains("towpath-render-"),
        "the temporary folder says nothing to anybody: {message}"
    );
    let unknown = [(".k8s/live/dev/kustomization.yaml", "resource: [a.yaml]\n")];
    let message = world.refused(&unknown).await.to_string();
    assert!(message.contains("unknown field \"resource\""), "{message}");
}

#[tokio::test]
async fn one_broken_environment_leaves_the_others() {
    let Some(world) = World::with("one_broken_environment_leaves_the_others", "kustomize") else {
        return;
    };
    let mut files = overlays("COLOUR=blue\n");
    files.push((".k8s/live/broken/kustomization.yaml", "resources: [nowhere.yaml]\n"));
    let rendered = world.render(&files).await;
    assert_eq!(rendered.failures.len(), 1);
    assert_eq!(rendered.failures[0].environment, "broken");
    let (tree, _) = Tree::read(rendered.files.iter().map(|(path, text)| (path.as_str(), text.as_str())));
    let environments: Vec<_> = tree.kube_contexts["live"].environments.keys().collect();
    assert_eq!(
        environments,
        ["broken", "dev", "plain"],
        "it is there, with nothing in it"
    );
    let rendered = world.render_only(&files, Some("dev")).await;
    assert!(rendered.failures.is_empty(), "what nobody asked for is not rendered");
    assert_eq!(names(&self::tree(&rendered), "live", "dev").len(), 2);
    let rendered = world.render_only(&files, Some("base")).await;
    assert_eq!(
        rendered.why_no_environment("base").unwrap(),
        "`.k8s/base` is no environment: `.k8s/live/dev` is made from it"
    );
    assert_eq!(rendered.why_no_environment("dev"), None);
}

const SMALL_CHART: &str = "apiVersion: v2\nname: shop\nversion: 1.0.0\n";

fn secret(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData:\n  value: {value}\n")
}

#[tokio::test]
async fn a_chart_may_have_another_release_name_than_the_project() {
    let Some(world) = World::with("a_chart_may_have_another_release_name_than_the_project", "helm") else {
        return;
    };
    let span = Span::new(&SourceFile::new("towpath.toml", "x"), 0..1);
    let declared = |release: Option<&str>| LayoutSettings {
        environments: [(
            "dev".to_string(),
            DeclaredEnvironment {
                span: span.clone(),
                kube_context: None,
                namespace: None,
                source: Some(DeclaredSource {
                    folder: Written {
                        value: "chart".to_string(),
                        span: span.clone(),
                    },
                    by: DeclaredBy::Chart {
                        values: Vec::new(),
                        set: std::collections::BTreeMap::new(),
                        release: release.map(str::to_string),
                    },
                }),
                protected: None,
                after: None,
                jobs: None,
                cron_jobs: None,
            },
        )]
        .into(),
        ..LayoutSettings::default()
    };
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}-web}\n";
    for (release, expect) in [(None, "shop-web"), (Some("legacy"), "legacy-web")] {
        let files = vec![
            ManifestFile::text("chart/Chart.yaml", SMALL_CHART),
            ManifestFile::text("chart/templates/web.yaml", config),
        ];
        let settings = declared(release);
        let rendered = world
            .renderer
            .render(files, &settings, "shop", None, |_, _| "x".into())
            .await;
        let texts: Vec<&str> = rendered.files.iter().map(|(_, text)| text.as_str()).collect();
        assert!(texts.concat().contains(&format!("name: {expect}")), "{texts:?}");
    }
}

#[tokio::test]
async fn a_hook_that_helm_leaves_out_is_no_rendering() {
    let Some(world) = World::with("a_hook_that_helm_leaves_out_is_no_rendering", "helm") else {
        return;
    };
    let job =
        "apiVersion: batch/v1\nkind: Job\nmetadata: {name: migrate, annotations: {helm.sh/hook: 'pre-upgrade,nope'}}\n";
    let rendered = world
        .render(&[
            (".k8s/live/dev/Chart.yaml", SMALL_CHART),
            (".k8s/live/dev/templates/job.yaml", job),
        ])
        .await;
    let [failure] = rendered.failures.as_slice() else {
        panic!("{:?}", rendered.failures);
    };
    let said = failure.error.to_string();
    assert!(said.contains("nope") && said.contains("helm.sh/hook"), "{said}");
}

#[tokio::test]
async fn what_renders_to_something_else_each_time_is_named_with_its_place() {
    let Some(world) = World::with("what_renders_to_something_else", "helm") else {
        return;
    };
    let guarded = secret(
        "db",
        "{{ (lookup \"v1\" \"Secret\" \"ns\" \"db\").data | default (randAlphaNum 12) | quote }}",
    );
    let stable = secret("stable", "{{ now | date \"2006\" | len | quote }}{{/* uuidv4 */}}");
    let daily = secret("daily", "{{ now | date \"20060102\" | quote }}");
    let helper = "{{ define \"token\" }}{{ uuidv4 | quote }}{{ end }}\n";
    let files = |templates: &[(&'static str, String)]| {
        let mut files = vec![(".k8s/live/dev/Chart.yaml".to_string(), SMALL_CHART.to_string())];
        let templates = templates
            .iter()
            .map(|(name, text)| (format!(".k8s/live/dev/{name}"), text.clone()));
        files.extend(templates);
        files
    };
    let refused = async |templates: &[(&'static str, String)]| {
        let files = files(templates);
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
            .collect();
        match world.refused(&files).await {
            RenderError::Unstable { found, .. } => found,
            other => panic!("{other}"),
        }
    };
    assert_eq!(
        refused(&[
            ("templates/db.yaml", guarded.clone()),
            ("templates/stable.yaml", stable.clone())
        ])
        .await,
        ["  db.secret: .k8s/live/dev/templates/db.yaml:5:62: `randAlphaNum`"]
    );
    // Within a day, two renderings are the same.
    assert_eq!(
        refused(&[("templates/daily.yaml", daily)]).await,
        ["  daily.secret: .k8s/live/dev/templates/daily.yaml:5:13: `now`"]
    );
    assert_eq!(
        refused(&[
            ("templates/_token.tpl", helper.to_string()),
            ("templates/token.yaml", secret("token", "{{ include \"token\" . }}")),
        ])
        .await,
        ["  token.secret: .k8s/live/dev/templates/_token.tpl:1:24: `uuidv4`"]
    );
    // In the templates of a chart that it contains.
    assert_eq!(
        refused(&[
            ("charts/sub/Chart.yaml", SMALL_CHART.replace("shop", "sub")),
            ("charts/sub/templates/a.yaml", secret("a", "{{ randAlpha 9 }}")),
        ])
        .await,
        ["  a.secret: .k8s/live/dev/charts/sub/templates/a.yaml:5:13: `randAlpha`"]
    );
    // What is never called, or makes no difference, is no reason to refuse. A `lookup` is worth knowing.
    let quiet = files(&[
        ("templates/stable.yaml", stable),
        (
            "templates/off.yaml",
            format!("{{{{ if .Values.on }}}}\n{guarded}{{{{ end }}}}\n"),
        ),
    ]);
    let quiet: Vec<(&str, &str)> = quiet
        .iter()
        .map(|(path, text)| (path.as_str(), text.as_str()))
        .collect();
    let rendered = world.render(&quiet).await;
    assert_eq!(names(&tree(&rendered), "live", "dev"), ["Secret/stable"]);
    let [(environment, warning)] = rendered.warnings.as_slice() else {
        panic!("{:?}", rendered.warnings)
    };
    assert_eq!(environment, "dev");
    assert!(
        warning.starts_with(".k8s/live/dev/templates/off.yaml:6:14: `lookup` finds nothing"),
        "{warning}"
    );
}

/// Charts name an image by several values: what counts is the image that they render.
#[tokio::test]
async fn the_image_is_found_in_what_a_chart_renders() {
    let Some(world) = World::with("the_image_is_found_in_what_a_chart_renders", "helm") else {
        return;
    };
    let values = "global: {imageRegistry: registry.example.org}\nimage: {repository: team/shop, tag: v1}\nproxy: {image: envoy, tag: v9}\n";
    let helper = "{{ define \"image\" }}{{ .Values.global.imageRegistry }}/{{ .Values.image.repository }}:{{ .Values.image.tag }}{{ end }}\n";
    let web = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      initContainers: [{name: migrate, image: {{ include \"image\" . | quote }}}]
      containers:
        - {name: web, image: {{ include \"image\" . | quote }}}
        - {name: proxy, image: \"{{ .Values.global.imageRegistry }}/{{ .Values.proxy.image }}:{{ .Values.proxy.tag }}\"}
";
    let rendered = world
        .render(&[
            (".k8s/live/dev/Chart.yaml", SMALL_CHART),
            (".k8s/live/dev/values.yaml", values),
            (".k8s/live/dev/templates/_image.tpl", helper),
            (".k8s/live/dev/templates/web.yaml", web),
        ])
        .await;
    let mut objects = tree(&rendered).wanted("live", "dev", "x").unwrap();
    let digest = towpath_types::Digest::of(b"image");
    let image: towpath_types::ImageReference = format!("registry.example.org/team/shop@{digest}").parse().unwrap();
    let rule = towpath_manifest::ImageRule::repository("team/shop");
    towpath_manifest::with_images(&mut objects, |container| {
        rule.fit(&container.name, &container.image).map(|_| &image)
    })
    .unwrap();
    let images: Vec<String> = objects
        .iter()
        .flat_map(towpath_manifest::containers)
        .map(|container| format!("{} {}", container.name, container.image))
        .collect();
    let release = image.to_string();
    for expect in [
        format!("migrate {release}"),
        format!("web {release}"),
        "proxy registry.example.org/envoy:v9".to_string(),
    ] {
        assert!(images.contains(&expect), "{expect} is in {images:?}");
    }
}

#[tokio::test]
async fn a_remote_base_is_fetched_only_from_where_it_may_be() {
    // Whether the program is put apart from the network shows in its variables.
    let script = "if [ \"$GIT_ALLOW_PROTOCOL\" = https ]; then n=open; else n=apart; fi\n\
                  printf 'apiVersion: v1\\nkind: ConfigMap\\nmetadata: {name: %s}\\n' $n";
    let mut world = World::scripted("kustomize", script);
    world.renderer = world
        .renderer
        .allow(["https://example.org/ours/", "https://example", "http://example.com/"]);
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let names_of = async |base: &str| {
        let text = format!("resources: [\"{base}\"]\n");
        let rendered = world.render(&[(".k8s/live/dev/kustomization.yaml", &text)]).await;
        let warnings: Vec<String> = rendered.warnings.iter().map(|(_, warning)| warning.clone()).collect();
        (names(&tree(&rendered), "live", "dev"), warnings)
    };
    assert_eq!(
        names_of(&format!("https://example.org/ours/base?ref={commit}")).await,
        (vec!["ConfigMap/open".to_string()], Vec::new())
    );
    let (open, warnings) = names_of("https://example.org/ours/base?ref=main").await;
    assert_eq!(open, ["ConfigMap/open"]);
    assert!(warnings[0].contains("names no commit"), "{warnings:?}");
    assert_eq!(names_of("../base").await.0, ["ConfigMap/apart"]);
    for base in [
        "https://example.org/theirs/base",
        "https://example.org/ours/../theirs/base",
        "https://example.org/ours/%2e%2e/theirs",
        "https://example.com/base",
        "http://example.com/base",
        "github.com/org/repo",
        "git@example.org:ours/base",
    ] {
        let text = format!("resources: [\"{base}\"]\n");
        let error = world.refused(&[(".k8s/live/dev/kustomization.yaml", &text)]).await;
        assert!(matches!(error, RenderError::Remote { .. }), "{base}: {error}");
    }
}

#[tokio::test]
async fn nothing_is_fetched() {
    let Some(world) = World::with("nothing_is_fetched", "kustomize") else {
        return;
    };
    // The listener is on this machine, which programs reach without a proxy.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = format!("http://{}/base.yaml", listener.local_addr().unwrap());
    let mut bases = vec!["https://example.org/base.yaml"];
    let apart = ["--user", "--map-current-user", "--net", "--", "true"];
    match std::process::Command::new("unshare").args(apart).status() {
        Ok(status) if status.success() => bases.push(&own),
        _ => eprintln!("SKIPPED: nothing_is_fetched, in part: the kernel gives no network of its own here"),
    }
    for base in bases {
        let text = format!("resources: [\"{base}\"]\n");
        let message = world
            .refused(&[(".k8s/live/dev/kustomization.yaml", &text)])
            .await
            .to_string();
        assert!(
            message.contains(&format!("  .k8s/live/dev/kustomization.yaml:1:13: `{base}`"))
                && message.contains("TOWPATH_KUSTOMIZE_URL_PREFIX=https://"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn nothing_outside_is_read() {
    let Some(world) = World::with("nothing_outside_is_read", "kustomize") else {
        return;
    };
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "hush\n").unwrap();
    let file = outside.path().join("secret");
    // Kustomize restricts files, the layout restricts folders, and the renderer refuses invalid paths.
    let text = format!("configMapGenerator: [{{name: a, files: [{}]}}]\n", file.display());
    let message = world
        .refused(&[(".k8s/live/dev/kustomization.yaml", &text)])
        .await
        .to_string();
    assert!(message.contains("security") && !message.contains("hush"), "{message}");

    let climbs = [(".k8s/live/dev/kustomization.yaml", "resources: [../../../../etc]\n")];
    let rendered = world.render(&climbs).await;
    assert_eq!(rendered.diagnostics[0].code, "manifest::outside-root");
    assert!(rendered.failures.is_empty());
    assert_eq!(
        names_of_files(&rendered),
        [".k8s/live/dev/(rendered by kustomize)/not rendered.yaml"]
    );

    for path in [
        ".k8s/live/dev/../../../../x",
        ".k8s//x",
        ".k8s/./x",
        ".k8s/a\\..\\x",
        "/etc/x",
        "../x",
    ] {
        let files = [(".k8s/live/dev/kustomization.yaml", "namePrefix: a\n"), (path, "x")];
        let error = world.refused(&files).await;
        assert!(
            matches!(&error, RenderError::Path { path: said, .. } if said == path),
            "{path}: {error}"
        );
    }
}

fn names_of_files(rendered: &Rendered) -> Vec<&str> {
    rendered.files.iter().map(|(path, _)| path.as_str()).collect()
}

#[tokio::test]
async fn a_missing_program_is_said_with_how_to_get_it() {
    let world = World::around(&[]);
    let error = world
        .refused(&[(".k8s/live/dev/kustomization.yaml", "namePrefix: a\n")])
        .await;
    assert!(matches!(error, RenderError::Missing { .. }));
    let message = error.to_string();
    for word in [".k8s/live/dev", "`kustomize`", "`kubectl`", "install"] {
        assert!(message.contains(word), "{word}: {message}");
    }
    let message = world.refused(&[(".k8s/live/dev/Chart.yaml", CHART)]).await.to_string();
    assert!(message.contains("no `helm` on its PATH: install it"), "{message}");
}

const CHART: &str = "apiVersion: v2\nname: shop\nversion: 0.1.0\n";
const TEMPLATE: &str = "{{- range $name := .Values.names }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include \"shop.name\" $ }}-{{ $name }}
  namespace: {{ $.Release.Namespace }}
data: {colour: {{ $.Values.colour | quote }}, text: {{ $.Files.Get \"text.txt\" | quote }}}
{{- end }}
";
const HOOKS: &str = "apiVersion: v1
kind: Pod
metadata: {name: try, annotations: {helm.sh/hook: test}}
spec: {restartPolicy: Never, containers: [{name: try, image: app}]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: migrate, annotations: {helm.sh/hook: 'pre-install,pre-upgrade'}}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: migrate, image: app}]}}}
";

fn charts(chart: &str) -> Vec<(String, &'static str)> {
    let own = [
        ("Chart.yaml", CHART),
        ("values.yaml", "names: [a]\ncolour: none\n"),
        ("text.txt", "hello"),
        (
            "templates/_names.tpl",
            "{{ define \"shop.name\" }}{{ .Release.Name }}{{ end }}",
        ),
        ("templates/config.yaml", TEMPLATE),
        ("templates/hooks.yaml", HOOKS),
        ("templates/NOTES.txt", "Thank you"),
    ];
    own.into_iter()
        .map(|(path, text)| (format!("{chart}/{path}"), text))
        .collect()
}

#[tokio::test]
async fn a_chart_with_values() {
    let Some(world) = World::with("a_chart_with_values", "helm") else {
        return;
    };
    let mut files = charts(".k8s/live/chart");
    files.push((".k8s/live/dev/values.yaml".into(), "names: [b, c]\ncolour: blue\n"));
    files.push((".k8s/live/dev/values-a,b.yaml".into(), "colour: red\n"));
    files.push((".k8s/live/prod/values.yaml".into(), "{}\n"));
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    let rendered = world.render(&files).await;
    let tree = tree(&rendered);
    let environments: Vec<_> = tree.kube_contexts["live"].environments.keys().collect();
    assert_eq!(environments, ["dev", "prod"]);
    assert_eq!(
        names(&tree, "live", "dev"),
        ["ConfigMap/my-app-b", "ConfigMap/my-app-c"]
    );
    assert_eq!(names(&tree, "live", "prod"), ["ConfigMap/my-app-a"]);
    let wanted = tree.wanted("live", "dev", "x").unwrap();
    assert_eq!(
        wanted[0].value["data"],
        serde_json::json!({"colour": "red", "text": "hello"})
    );
    assert_eq!(
        tree.namespace("live", "dev", "x"),
        "live-dev-ns",
        "what the release is given"
    );
    let jobs: Vec<_> = tree
        .jobs("live", "dev", "x")
        .iter()
        .map(|job| job.name.clone())
        .collect();
    assert_eq!(jobs, ["migrate"]);
    let hooks: Vec<_> = tree
        .hooks("live", "dev", "x")
        .iter()
        .map(|job| job.name.clone())
        .collect();
    assert_eq!(hooks, ["migrate", "try"]);
}

#[tokio::test]
async fn a_chart_in_an_environments_folder_and_what_helm_says_of_a_broken_one() {
    let Some(world) = World::with("a_chart_in_an_environments_folder", "helm") else {
        return;
    };
    let mut files = charts(".k8s/live/dev");
    files.push((".k8s/live/dev/values-dev.yaml".into(), "names: [z]\n"));
    let borrowed: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    assert_eq!(
        names(&tree(&world.render(&borrowed).await), "live", "dev"),
        ["ConfigMap/my-app-z"]
    );

    files.push((
        ".k8s/live/dev/templates/broken.yaml".into(),
        "{{ required \"say the colour\" .Values.nothing }}",
    ));
    let borrowed: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    let message = world.refused(&borrowed).await.to_string();
    for word in [
        "helm cannot render `.k8s/live/dev`",
        "shop/templates/broken.yaml:1:3",
        "say the colour",
    ] {
        assert!(message.contains(word), "{word}: {message}");
    }

    let depends = "apiVersion: v2\nname: a\nversion: 0.1.0\ndependencies: [{name: redis, version: 1.x, repository: 'https://example.org'}]\n";
    let message = world
        .refused(&[(".k8s/live/dev/Chart.yaml", depends)])
        .await
        .to_string();
    assert!(
        message.contains("redis") && message.contains("hint: commit what the chart depends on"),
        "{message}"
    );
}

#[tokio::test]
async fn the_manifests_of_a_plain_tree_come_back_as_they_went_in() {
    let world = World::around(&[]);
    let files = [
        (".k8s/live/dev/values.yaml", "a: 1"),
        (".k8s/live/dev/web.yaml", DEPLOYMENT),
    ];
    let rendered = world.render(&files).await;
    let back: Vec<_> = rendered
        .files
        .iter()
        .map(|(path, text)| (path.as_str(), text.as_str()))
        .collect();
    assert_eq!(back, files);
    assert!(rendered.layout.is_plain());
}

#[tokio::test]
async fn what_was_printed_once_is_remembered() {
    let seen = tempfile::tempdir().unwrap();
    let count = seen.path().join("count");
    let script = format!(
        "echo x >>{}; case $(cat \"$2/kustomization.yaml\") in *broken*) echo no >&2; exit 1;; esac; \
         echo '{{apiVersion: v1, kind: ConfigMap, metadata: {{name: a}}}}'",
        count.display()
    );
    let world = World::scripted("kustomize", &script);
    let times = || std::fs::read_to_string(&count).unwrap_or_default().lines().count();
    let files = [(".k8s/live/dev/kustomization.yaml", "namePrefix: a\n")];
    for _ in 0..3 {
        assert_eq!(
            names(&tree(&world.render(&files).await), "live", "dev"),
            ["ConfigMap/a"]
        );
    }
    assert_eq!(times(), 1);
    let broken = [(".k8s/live/dev/kustomization.yaml", "namePrefix: broken\n")];
    for _ in 0..3 {
        assert!(
            world
                .refused(&broken)
                .await
                .to_string()
                .ends_with("`.k8s/live/dev`:\nno")
        );
    }
    assert_eq!(times(), 2);
}

#[tokio::test]
async fn what_prints_without_end_is_stopped() {
    let world = World::scripted("kustomize", "exec yes");
    let error = world
        .refused(&[(".k8s/live/dev/kustomization.yaml", "namePrefix: a\n")])
        .await;
    assert!(matches!(error, RenderError::TooMuch { .. }), "{error}");
    assert_eq!(
        error.to_string(),
        "kustomize printed more than 32 MiB for `.k8s/live/dev`, and was stopped"
    );
}

#[tokio::test]
async fn what_does_not_end_is_stopped() {
    let mut world = World::scripted("kustomize", "exec sleep 1000");
    world.renderer = world.renderer.within(std::time::Duration::from_millis(200));
    let error = world
        .refused(&[(".k8s/live/dev/kustomization.yaml", "namePrefix: a\n")])
        .await;
    assert!(matches!(error, RenderError::TooSlow { .. }), "{error}");
}

#[tokio::test]
async fn a_program_sees_nothing_of_the_servers_surroundings() {
    let script = "echo \"$(env | cut -d= -f1 | sort | tr '\\n' ' ')in $(ls -A)\" >&2; exit 1";
    let world = World::scripted("kustomize", script);
    let message = world
        .refused(&[(".k8s/live/dev/kustomization.yaml", "namePrefix: a\n")])
        .await
        .to_string();
    let said = message.lines().last().unwrap();
    assert!(said.ends_with("in .k8s"), "{said}");
    for word in ["CARGO", "USER", "SSH", "TOKEN", "DOCKER"] {
        assert!(!said.contains(word), "{said}");
    }
}

#[tokio::test]
async fn a_program_is_given_bytes_as_they_are() {
    let script = "printf 'apiVersion: v1\\nkind: ConfigMap\\nmetadata: {name: a%s}\\n' \"$(od -An -tx1 .k8s/live/dev/key.bin | tr -d ' ')\"";
    let world = World::scripted("kustomize", script);
    let files = vec![
        ManifestFile::text(".k8s/live/dev/kustomization.yaml", "namePrefix: a\n"),
        ManifestFile {
            path: ".k8s/live/dev/key.bin".into(),
            content: ManifestContent::Bytes(vec![0, 0xff, 0x10]),
        },
    ];
    let rendered = world
        .renderer
        .render(files, &LayoutSettings::default(), "shop", None, |_, _| "x".into())
        .await;
    assert_eq!(names(&tree(&rendered), "live", "dev"), ["ConfigMap/a00ff10"]);
}

#[tokio::test]
async fn what_is_printed_has_to_be_text() {
    let world = World::scripted("kustomize", "printf 'a: b\\nc: \\374\\n'");
    let error = world
        .refused(&[(".k8s/live/dev/kustomization.yaml", "namePrefix: a\n")])
        .await
        .to_string();
    assert!(error.contains("not UTF-8, in line 2"), "{error}");
}

#[tokio::test]
async fn a_fault_of_one_environment_leaves_the_others_rendered() {
    let world = World::scripted(
        "kustomize",
        "printf 'apiVersion: v1\\nkind: ConfigMap\\nmetadata: {name: a}\\n'",
    );
    let unread = |path: &str| ManifestFile {
        path: path.into(),
        content: ManifestContent::Unread("is away".into()),
    };
    let kustomization =
        |environment: &str, text: &str| ManifestFile::text(format!(".k8s/live/{environment}/kustomization.yaml"), text);
    let base = "resources: [../../base]\n";
    let files = vec![
        ManifestFile::text(".k8s/base/kustomization.yaml", "namePrefix: a\n"),
        unread(".k8s/base/secrets.yaml"),
        kustomization("based", base),
        kustomization("broken", "namePrefix: [\n"),
        unread(".k8s/live/hidden/kustomization.yaml"),
        kustomization("whole", "namePrefix: a\n"),
        kustomization("without", "namePrefix: a\n"),
        unread(".k8s/live/without/notes.txt"),
    ];
    let rendered = world
        .renderer
        .render(files, &LayoutSettings::default(), "shop", None, |_, _| "x".into())
        .await;
    let failed: Vec<String> = rendered
        .failures
        .iter()
        .map(|failure| failure.error.to_string())
        .collect();
    let said =
        |folder: &str, path: &str| format!("`{folder}` cannot be rendered:\nerror[manifest::unread]: `{path}` is away");
    assert_eq!(
        failed,
        [
            said(".k8s/live/based", ".k8s/base/secrets.yaml"),
            said(".k8s/live/hidden", ".k8s/live/hidden/kustomization.yaml"),
            said(".k8s/live/without", ".k8s/live/without/notes.txt"),
        ]
    );
    let (tree, _) = Tree::read(rendered.files.iter().map(|(path, text)| (path.as_str(), text.as_str())));
    assert_eq!(names(&tree, "live", "whole"), ["ConfigMap/a"]);
    assert_eq!(names(&tree, "live", "broken"), Vec::<String>::new());
    let concerned = |name: &str| {
        let all = rendered.diagnostics.iter();
        all.filter(|diagnostic| rendered.layout.concerned_by("live", name, diagnostic))
            .count()
    };
    assert!(concerned("broken") > 0 && concerned("whole") == 0);
}
