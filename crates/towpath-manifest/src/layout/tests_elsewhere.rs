//! Tests of the layouts outside of `.k8s/`, and of what `towpath.toml` says.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::settings::{DeclaredBy, DeclaredEnvironment, DeclaredSource, Written};
use crate::{ManifestFile, Tree};
use towpath_yaml::{SourceFile, Span};

const OBJECT: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
const CHART: &str = "apiVersion: v2\nname: shop\nversion: 0.1.0\n";
const KUSTOMIZATION: &str = "resources: [web.yaml]\n";
const OVERLAY: &str = "resources: [../../bases]\n";

fn written<T>(value: T) -> Written<T> {
    let source = SourceFile::new("towpath.toml", "x");
    Written {
        value,
        span: Span::new(&source, 0..1),
    }
}

fn in_folder(folder: &str) -> LayoutSettings {
    LayoutSettings {
        manifests: Some(written(folder.to_string())),
        ..LayoutSettings::default()
    }
}

fn table() -> DeclaredEnvironment {
    DeclaredEnvironment {
        span: written(()).span,
        kube_context: None,
        namespace: None,
        source: None,
        protected: None,
        after: None,
        jobs: None,
        cron_jobs: None,
    }
}

fn made_from(folder: &str, by: DeclaredBy) -> DeclaredEnvironment {
    let folder = written(folder.to_string());
    DeclaredEnvironment {
        source: Some(DeclaredSource { folder, by }),
        ..table()
    }
}

fn tables(tables: &[(&str, DeclaredEnvironment)]) -> LayoutSettings {
    LayoutSettings {
        environments: tables
            .iter()
            .map(|(name, table)| ((*name).to_string(), table.clone()))
            .collect(),
        ..LayoutSettings::default()
    }
}

fn listed<'a>(paths: impl IntoIterator<Item = (&'a str, bool)>) -> Vec<ListedPath> {
    let paths = paths.into_iter().map(|(path, is_unread)| ListedPath {
        path: path.to_string(),
        is_unread,
    });
    paths.collect()
}

#[test]
fn what_cannot_be_read_is_a_place_where_environments_may_be() {
    let places = |path: &str, is_unread: bool, folder: Option<&str>| {
        let files = [("ops/qa/kustomization.yaml", false), (path, is_unread)];
        super::elsewhere::places(&listed(files), folder).contains(path)
    };
    for (path, folder, expect) in [
        ("k8s", None, true),
        ("deploy/dev", None, true),
        ("a/overlays", None, true),
        ("a/overlays/dev", None, true),
        ("charts", None, true),
        ("ops/dev", None, true),
        ("latest", None, false),
        ("src/assets", None, false),
        ("vendor/charts", None, false),
        ("docs/k8s", None, false),
        (".k8s/live", None, false),
        ("a", Some("a/b"), true),
        ("a/b/c", Some("a/b"), true),
        ("k8s", Some("a/b"), false),
    ] {
        assert_eq!(places(path, true, folder), expect, "{path} {folder:?}");
        assert!(!places(path, false, folder), "{path}");
    }
}

/// The files that the steps of a reading lead to, of a repository with these files.
fn read_of<'a>(files: &[(&'a str, &'a str)], settings: &LayoutSettings) -> Vec<(&'a str, &'a str)> {
    let mut reading = Reading::new(settings);
    let mut read = BTreeSet::new();
    while let Some(wanted) = reading.step() {
        match wanted {
            Wanted::Paths => reading.listed(&listed(files.iter().map(|(path, _)| (*path, false)))),
            Wanted::Files(places) => {
                let mut kept = files.to_vec();
                Reading::keeps(&places, &mut kept, |(path, _)| path, |_| false);
                read.extend(kept.iter().map(|(path, _)| *path));
                reading.read(
                    kept.iter()
                        .map(|(path, text)| ManifestFile::text(*path, *text))
                        .collect(),
                );
            }
        }
    }
    let all = files.iter().copied();
    all.filter(|(path, _)| read.contains(path)).collect()
}

/// `dev: helm chart with values.yaml`, `dev?: …` for a rival, `(dev): …` for what is not in force.
fn describe(files: &[(&str, &str)], settings: &LayoutSettings) -> Vec<String> {
    let (layout, _) = Layout::read(files.iter().copied(), settings);
    let in_force = layout
        .environments()
        .map(|found| format!("{}: {}", found.name, found.source.value));
    let rivals = layout
        .rivals()
        .flat_map(|(_, several)| several)
        .map(|found| format!("{}?: {}", found.name, found.source.value));
    let others = layout
        .others()
        .iter()
        .map(|found| format!("({}): {}", found.name, found.source.value));
    in_force.chain(rivals).chain(others).collect()
}

fn check_with(files: &[(&str, &str)], settings: &LayoutSettings, expect: &[&str]) {
    assert_eq!(describe(files, settings), expect, "{files:?}");
    // What is read of the repository is enough to see the same.
    assert_eq!(
        describe(&read_of(files, settings), settings),
        expect,
        "what is read of {files:?}"
    );
}

fn check(files: &[(&str, &str)], expect: &[&str]) {
    check_with(files, &LayoutSettings::default(), expect);
}

#[test]
fn overlays_over_bases_anywhere() {
    for (holder, bases, reference) in [
        ("deploy/overlays", "deploy/bases", "../../bases"),
        ("overlays", "bases", "../../bases"),
        ("apps/shop/envs", "common/web", "../../../../common/web"),
        ("kubernetes", "kubernetes/base", "../base"),
    ] {
        let overlay = format!("resources: [{reference}]\n");
        let path = |name: &str| format!("{holder}/{name}/kustomization.yaml");
        let (dev, staging, production) = (path("dev"), path("staging"), path("production"));
        let (base, web) = (format!("{bases}/kustomization.yml"), format!("{bases}/web.yaml"));
        let files = [
            (dev.as_str(), overlay.as_str()),
            (&staging, &overlay),
            (&production, &overlay),
            (&base, KUSTOMIZATION),
            (&web, OBJECT),
            ("src/main.rs", "fn main() {}"),
        ];
        check(
            &files,
            &[
                &format!("dev: kustomize {holder}/dev"),
                &format!("production: kustomize {holder}/production"),
                &format!("staging: kustomize {holder}/staging"),
            ],
        );
        let (layout, _) = Layout::read(files, &LayoutSettings::default());
        assert!(layout.concerns("default", "dev", &web), "{web}");
        assert!(!layout.concerns("default", "dev", &staging));
        assert!(read_of(&files, &LayoutSettings::default()).len() == 5);
    }
}

#[test]
fn a_base_and_a_component_are_no_environments() {
    check(
        &[
            ("deploy/overlays/dev/kustomization.yaml", OVERLAY),
            ("deploy/overlays/common/kustomization.yaml", OVERLAY),
            ("deploy/bases/kustomization.yaml", KUSTOMIZATION),
            ("deploy/overlays/debug/kustomization.yaml", "kind: Component\n"),
            ("deploy/overlays/prod/kustomization.yaml", "resources: [../staging]\n"),
            ("deploy/overlays/staging/kustomization.yaml", OVERLAY),
        ],
        &[
            "dev: kustomize deploy/overlays/dev",
            "prod: kustomize deploy/overlays/prod",
        ],
    );
}

#[test]
fn a_chart_with_values_for_each_environment() {
    for (dev, production) in [
        (
            "helm_deploy/shop/values-dev.yaml",
            "helm_deploy/shop/values-production.yaml",
        ),
        (
            "helm_deploy/shop/values.dev.yaml",
            "helm_deploy/shop/values.production.yml",
        ),
        (
            "helm_deploy/shop/dev-values.yaml",
            "helm_deploy/shop/production.values.yaml",
        ),
        (
            "helm_deploy/shop/values/dev.yaml",
            "helm_deploy/shop/values/production.yaml",
        ),
        (
            "helm_deploy/shop/env/dev/values.yaml",
            "helm_deploy/shop/env/production/values.yaml",
        ),
        (
            "helm_deploy/shop/environments/dev.yaml",
            "helm_deploy/shop/environments/production.yaml",
        ),
        ("helm_deploy/values-dev.yaml", "helm_deploy/values-production.yaml"),
        ("helm_deploy/values/dev.yaml", "helm_deploy/values/production.yaml"),
        ("helm_deploy/dev/values.yaml", "helm_deploy/production/values.yaml"),
        ("env/dev/values.yaml", "env/production/values.yaml"),
    ] {
        check(
            &[
                (dev, "a: 1\n"),
                (production, "a: 1\n"),
                ("helm_deploy/shop/Chart.yaml", CHART),
                ("helm_deploy/shop/values.yaml", "a: 0\n"),
                ("helm_deploy/shop/values.schema.json", "{}"),
                ("helm_deploy/shop/values-example.yaml", "a: 0\n"),
                ("helm_deploy/shop/charts/redis/Chart.yaml", CHART),
                ("helm_deploy/shop/charts/redis/values-dev.yaml", "a: 0\n"),
                ("helm_deploy/shop/templates/web.yaml", "{{ .Values.a }}"),
                ("helm_deploy/shop/templates/NOTES.txt", "hello"),
            ],
            &[
                &format!("dev: helm helm_deploy/shop with {dev}"),
                &format!("production: helm helm_deploy/shop with {production}"),
            ],
        );
    }
}

#[test]
fn general_values_around_a_chart_come_before_those_of_an_environment() {
    check(
        &[
            ("chart/Chart.yaml", CHART),
            ("values.yaml", "a: 1\n"),
            ("values-uat2.yaml", "a: 1\n"),
            ("values-d001.yaml", "a: 1\n"),
        ],
        &[
            "d001: helm chart with values.yaml, values-d001.yaml",
            "uat2: helm chart with values.yaml, values-uat2.yaml",
        ],
    );
    let files = [("chart/Chart.yaml", CHART), ("chart/values-dev.yaml", "a: 1\n")];
    let (layout, _) = Layout::read(files, &LayoutSettings::default());
    let dev = layout.get("default", "dev").unwrap();
    assert_eq!(
        dev.rendered().unwrap().path_of("web.service"),
        "chart/(rendered by helm for dev)/web.service.yaml"
    );
    let texts = [("chart/(rendered by helm for dev)/a.configmap.yaml", OBJECT), files[1]];
    let (tree, wrong) = Tree::read_in(&layout, texts);
    assert_eq!(wrong, []);
    assert_eq!(tree.environment("default", "dev").unwrap().objects.len(), 1);
}

#[test]
fn folders_of_manifests_named_after_environments() {
    for root in [
        "k8s",
        "kubernetes",
        "deploy",
        "manifests",
        "config/deploy",
        "ops/k8s/envs",
    ] {
        let path = |rest: &str| format!("{root}/{rest}");
        let (dev, web, job, other) = (
            path("dev/web.yaml"),
            path("prod-eu/web/web.json"),
            path("jobs/migrate.yaml"),
            path("scripts/settings.yaml"),
        );
        let json = "{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"a\"}}";
        let files = [
            (dev.as_str(), OBJECT),
            (&web, json),
            (&job, OBJECT),
            (&other, "verbose: true\n"),
        ];
        check(
            &files,
            &[
                &format!("dev: manifests in {root}/dev"),
                &format!("prod-eu: manifests in {root}/prod-eu"),
            ],
        );
        let (layout, _) = Layout::read(files, &LayoutSettings::default());
        let (tree, _) = Tree::read_in(&layout, files);
        let found = &tree.kube_contexts["default"].environments["dev"];
        assert_eq!((found.objects.len(), found.more_jobs.len()), (1, 1));
        assert!(layout.concerns("default", "dev", &job) && !layout.concerns("default", "dev", &web));
    }
}

#[test]
fn a_flat_folder_is_one_environment() {
    check(
        &[
            ("k8s-specifications/vote-deployment.yaml", OBJECT),
            ("k8s-specifications/vote-service.yaml", OBJECT),
            ("docker-compose.yml", "services: {}\n"),
            ("vote/Dockerfile", "FROM scratch\n"),
        ],
        &["default: manifests in k8s-specifications"],
    );
    check(
        &[
            ("kubernetes/deployments/web.yaml", OBJECT),
            ("kubernetes/services/web.yaml", OBJECT),
        ],
        &["default: manifests in kubernetes"],
    );
    check(
        &[("deploy/k8s/web.yaml", OBJECT)],
        &["default: manifests in deploy/k8s"],
    );
}

#[test]
fn what_has_no_objects_is_no_environment() {
    check(
        &[
            ("deploy/dev/settings.yaml", "verbose: true\n"),
            (
                "deploy/prod/skaffold.yaml",
                "apiVersion: skaffold/v4beta6\nkind: Config\n",
            ),
            ("config/deploy.yml", "service: shop\n"),
            (
                "k8s/cluster.yaml",
                "apiVersion: kind.x-k8s.io/v1alpha4\nkind: Cluster\n",
            ),
            ("k8s/kubeconfig.yaml", "apiVersion: v1\nkind: Config\nclusters: []\n"),
            ("docs/k8s/dev/web.yaml", OBJECT),
            ("node_modules/x/k8s/dev/web.yaml", OBJECT),
            ("tests/fixtures/overlays/dev/kustomization.yaml", KUSTOMIZATION),
            ("examples/chart/Chart.yaml", CHART),
            (".github/workflows/deploy.yaml", "on: push\n"),
            ("charts/lib/Chart.yaml", "apiVersion: v2\nname: lib\ntype: library\n"),
        ],
        &[],
    );
    // Nor is such a folder below `.k8s/`.
    check(
        &[
            (".k8s/live/dev/web.yaml", OBJECT),
            (".k8s/live/grafana/settings.yaml", "verbose: true\n"),
            (".k8s/live/bin/deploy.sh", "#!/bin/sh\n"),
        ],
        &["dev: manifests in .k8s/live/dev"],
    );
}

#[test]
fn two_plausible_answers_stay_two_until_somebody_chooses() {
    let files = [
        ("helm-chart/Chart.yaml", CHART),
        ("helm-chart/values.yaml", "a: 1\n"),
        ("helm-chart/templates/web.yaml", "{{ .Values.a }}"),
        ("kustomize/kustomization.yaml", "resources: [base]\n"),
        ("kustomize/base/kustomization.yaml", KUSTOMIZATION),
        ("kustomize/base/web.yaml", OBJECT),
        ("kubernetes-manifests/web.yaml", OBJECT),
    ];
    check(
        &files,
        &[
            "default?: kustomize kustomize",
            "default?: helm helm-chart",
            "default?: manifests in kubernetes-manifests",
        ],
    );
    let (layout, _) = Layout::read(files, &LayoutSettings::default());
    assert!(matches!(layout.named("default"), Named::Several(several) if several.len() == 3));
    for (folder, expect) in [
        ("kustomize", "default: kustomize kustomize"),
        ("./helm-chart/", "default: helm helm-chart"),
        ("kubernetes-manifests", "default: manifests in kubernetes-manifests"),
    ] {
        let lines = describe(&read_of(&files, &in_folder(folder)), &in_folder(folder));
        assert_eq!(lines[0], expect, "{folder}");
        assert!(!lines.iter().any(|line| line.contains('?')), "{lines:?}");
    }
}

#[test]
fn environments_with_names_are_more_plausible_than_one_without() {
    let files = [
        ("k8s/web.yaml", OBJECT),
        ("helm/shop/Chart.yaml", CHART),
        ("helm/shop/values-dev.yaml", "a: 1\n"),
    ];
    check(
        &files,
        &[
            "dev: helm helm/shop with helm/shop/values-dev.yaml",
            "(default): manifests in k8s",
        ],
    );
    check_with(&files[..1], &in_folder("k8s"), &["default: manifests in k8s"]);
    let files = [
        ("apps/a/overlays/dev/kustomization.yaml", ""),
        ("apps/b/overlays/dev/kustomization.yaml", ""),
    ];
    check(
        &files,
        &[
            "dev?: kustomize apps/a/overlays/dev",
            "dev?: kustomize apps/b/overlays/dev",
        ],
    );
    check_with(
        &files[1..],
        &in_folder("apps/b"),
        &["dev: kustomize apps/b/overlays/dev"],
    );
}

#[test]
fn a_folder_that_is_named_may_have_any_name() {
    let files = [
        ("infra/things/dev/web.yaml", OBJECT),
        ("infra/things/qa/web.yaml", OBJECT),
    ];
    check(&files, &[]);
    check_with(
        &files,
        &in_folder("infra/things"),
        &["dev: manifests in infra/things/dev", "qa: manifests in infra/things/qa"],
    );
}

#[test]
fn manifests_below_dot_k8s_hide_everything_else() {
    let files = [
        (".k8s/live/dev/web.yaml", OBJECT),
        (".k8s/old/qa/web.yaml", OBJECT),
        ("k8s/prod/web.yaml", OBJECT),
    ];
    check(
        &files,
        &["dev: manifests in .k8s/live/dev", "qa: manifests in .k8s/old/qa"],
    );
    check_with(&files, &in_folder(".k8s/old"), &["qa: manifests in .k8s/old/qa"]);
    check_with(&files, &in_folder("k8s"), &["prod: manifests in k8s/prod"]);
    let (layout, _) = Layout::read(files, &in_folder("k8s"));
    let (tree, _) = Tree::read_in(&layout, files);
    assert_eq!(tree.kube_contexts.keys().collect::<Vec<_>>(), ["default"]);
}

#[test]
fn an_overlay_below_dot_k8s_may_use_a_base_outside() {
    let files = [
        (
            ".k8s/live/dev/kustomization.yaml",
            "resources: [../../../deploy/base]\n",
        ),
        ("deploy/base/kustomization.yaml", KUSTOMIZATION),
        ("deploy/base/web.yaml", OBJECT),
        ("deploy/base/settings.env", "A=1\n"),
        ("deploy/other/web.yaml", OBJECT),
    ];
    check(&files, &["dev: kustomize .k8s/live/dev"]);
    assert_eq!(read_of(&files, &LayoutSettings::default()), files[..4]);
    let (layout, _) = Layout::read(files, &LayoutSettings::default());
    assert!(layout.concerns("live", "dev", "deploy/base/web.yaml"));
    assert!(!layout.reads_as_it_is("deploy/base/web.yaml"));
}

#[test]
fn a_table_says_it_all() {
    let files = [
        ("charts/shop/Chart.yaml", CHART),
        ("charts/shop/templates/web.yaml", "{{ .Values.a }}"),
        ("settings/staging.yaml", "a: 1\n"),
        ("flat/web.yaml", OBJECT),
        ("flat/more/web.yaml", OBJECT),
        ("once/migrate.yaml", OBJECT),
        ("over/kustomization.yaml", "resources: [../under]\n"),
        ("under/kustomization.yaml", KUSTOMIZATION),
        ("under/web.yaml", OBJECT),
        ("k8s/prod/web.yaml", OBJECT),
    ];
    let chart = DeclaredBy::Chart {
        values: vec![written("./settings/staging.yaml".to_string())],
        set: BTreeMap::from([("replicas".to_string(), "2".to_string())]),
        release: None,
    };
    let staging = DeclaredEnvironment {
        kube_context: Some(written("live".to_string())),
        namespace: Some(written("shop-s".to_string())),
        after: Some(written("dev".to_string())),
        jobs: Some(written("once".to_string())),
        ..made_from("charts/shop", chart)
    };
    let settings = tables(&[
        ("staging", staging),
        ("dev", made_from("flat/", DeclaredBy::Nothing)),
        (
            "a",
            DeclaredEnvironment {
                after: Some(written("staging".to_string())),
                ..made_from("over", DeclaredBy::Kustomize)
            },
        ),
    ]);
    // In the order of promotion, and without what only looks like an environment.
    check_with(
        &files,
        &settings,
        &[
            "dev: manifests in flat",
            "staging: helm charts/shop with settings/staging.yaml, setting replicas",
            "a: kustomize over",
        ],
    );
    assert_eq!(read_of(&files, &settings), files[..9]);
    let (layout, wrong) = Layout::read(files, &settings);
    assert_eq!(wrong, []);
    let staging = layout.get("live", "staging").unwrap();
    assert_eq!(staging.namespace.as_ref().unwrap().value, "shop-s");
    assert_eq!(staging.rendered().unwrap().kube_context, "live");
    assert!(matches!(staging.kube_context.origin, Origin::Written(_)));
    let (tree, _) = Tree::read_in(
        &layout,
        files.into_iter().filter(|(path, _)| layout.reads_as_it_is(path)),
    );
    assert_eq!(tree.kube_contexts["live"].environments["staging"].more_jobs.len(), 1);
    assert_eq!(tree.kube_contexts["default"].environments["dev"].objects.len(), 1);
}

#[test]
fn a_table_without_a_source_adds_to_what_is_found() {
    let files = [
        ("k8s/dev/web.yaml", OBJECT),
        ("k8s/qa/web.yaml", OBJECT),
        (".k8s/x/README.md", ""),
    ];
    let qa = DeclaredEnvironment {
        protected: Some(written(true)),
        kube_context: Some(written("live".to_string())),
        ..table()
    };
    let settings = tables(&[("qa", qa)]);
    check_with(
        &files,
        &settings,
        &["dev: manifests in k8s/dev", "qa: manifests in k8s/qa"],
    );
    let (layout, _) = Layout::read(files, &settings);
    assert!(layout.get("live", "qa").unwrap().protected.value);
    assert!(!layout.get("default", "dev").unwrap().protected.value);
    // Below `.k8s/`, it chooses the kube context.
    let files = [(".k8s/a/dev/web.yaml", OBJECT), (".k8s/b/dev/web.yaml", OBJECT)];
    check(
        &files,
        &["dev?: manifests in .k8s/a/dev", "dev?: manifests in .k8s/b/dev"],
    );
    let dev = DeclaredEnvironment {
        kube_context: Some(written("b".to_string())),
        ..table()
    };
    check_with(&files, &tables(&[("dev", dev)]), &["dev: manifests in .k8s/b/dev"]);
}

/// The code and the text of the only diagnostic.
fn wrong(files: &[(&str, &str)], settings: &LayoutSettings) -> (&'static str, String) {
    let (_, diagnostics) = Layout::read(files.iter().copied(), settings);
    let [diagnostic] = diagnostics.as_slice() else {
        panic!("{diagnostics:?}")
    };
    (diagnostic.code, diagnostic.render(false))
}

#[test]
fn what_a_table_names_has_to_be_there() {
    let files = [
        ("helm/shop/Chart.yaml", CHART),
        ("helm/shop/values-dev.yaml", "a: 1\n"),
        ("k8s/dev/a.yaml", OBJECT),
    ];
    let chart = |values: &str| DeclaredBy::Chart {
        values: vec![written(values.to_string())],
        set: BTreeMap::new(),
        release: None,
    };
    let declared = |table: DeclaredEnvironment| tables(&[("dev", table)]);
    for (table, code, says) in [
        (
            made_from("k8s/qa", DeclaredBy::Nothing),
            "manifest::nothing-there",
            "`k8s/qa` has no YAML file",
        ),
        (
            made_from("k8s", DeclaredBy::Kustomize),
            "manifest::nothing-there",
            "`k8s` has no kustomization",
        ),
        (
            made_from("helm", chart("helm/shop/values-dev.yaml")),
            "manifest::nothing-there",
            "`helm` has no `Chart.yaml`",
        ),
        (
            made_from("helm/shop", chart("values-dev.yaml")),
            "manifest::no-such-file",
            "write `helm/shop/values-dev.yaml`",
        ),
        (
            made_from("../k8s", DeclaredBy::Nothing),
            "manifest::outside-root",
            "`../k8s` in `path` is outside",
        ),
        (
            made_from("/etc", DeclaredBy::Nothing),
            "manifest::outside-root",
            "`/etc` in `path` is outside",
        ),
    ] {
        let found = wrong(&files, &declared(table));
        assert_eq!(found.0, code);
        assert!(
            found.1.contains(says) && found.1.contains("towpath.toml:1:1"),
            "{}",
            found.1
        );
    }
    // A fault concerns its environment and no other.
    let settings = tables(&[
        ("dev", made_from("k8s/dev", DeclaredBy::Nothing)),
        ("qa", made_from("k8s/qa", DeclaredBy::Nothing)),
    ]);
    let (layout, diagnostics) = Layout::read(files, &settings);
    assert_eq!(diagnostics.len(), 1);
    assert!(layout.concerned_by("default", "qa", &diagnostics[0]));
    assert!(!layout.concerned_by("default", "dev", &diagnostics[0]));
}

#[test]
fn names_that_lead_nowhere_are_reported() {
    let files = [("k8s/dev/a.yaml", OBJECT), ("k8s/staging/a.yaml", OBJECT)];
    let found = wrong(&files, &tables(&[("stagng", table())]));
    assert_eq!(found.0, "manifest::no-such-environment");
    assert!(found.1.contains("did you mean `staging`?"), "{}", found.1);
    let after = |name: &str| DeclaredEnvironment {
        after: Some(written(name.to_string())),
        ..table()
    };
    let found = wrong(&files, &tables(&[("staging", after("dve"))]));
    assert!(found.1.contains("did you mean `dev`?"), "{}", found.1);
    let (layout, diagnostics) = Layout::read(files, &tables(&[("dev", after("staging")), ("staging", after("dev"))]));
    assert_eq!(diagnostics.len(), 2, "{diagnostics:?}");
    assert_eq!(layout.environments().count(), 2);
}

#[test]
fn the_values_of_another_environment_are_not_needed() {
    let files = [
        ("chart/Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.0.0\n"),
        ("chart/values.yaml", ""),
        ("chart/values-dev.yaml", "a: 1\n"),
        ("chart/values-production.yaml", ""),
        ("chart/templates/web.yaml", ""),
    ];
    let (layout, _) = Layout::read(files, &LayoutSettings::default());
    let dev = layout.environments().find(|found| found.name == "dev").unwrap();
    let needed: Vec<&str> = files
        .iter()
        .map(|(path, _)| *path)
        .filter(|path| layout.needs(&dev.kube_context.value, "dev", path))
        .collect();
    assert_eq!(
        needed,
        [
            "chart/Chart.yaml",
            "chart/values.yaml",
            "chart/values-dev.yaml",
            "chart/templates/web.yaml"
        ]
    );
}
