//! Tests of the layout below `.k8s/`.

#![allow(clippy::unwrap_used)]
use super::{paths::KUSTOMIZATIONS, *};
use crate::Tree;

/// `.k8s/live/dev kustomize` or `.k8s/live/dev helm <chart> <values>…`, and `.k8s/base shared`.
fn describe(files: &[(&str, &str)]) -> (Vec<String>, Vec<Diagnostic>) {
    let (layout, diagnostics) = Layout::read(files.iter().copied(), &LayoutSettings::default());
    let mut lines: Vec<String> = layout
        .rendered_environments()
        .map(|environment| match &environment.by {
            RenderedBy::Kustomize => format!("{} kustomize", environment.folder),
            RenderedBy::Helm { chart, values, .. } => {
                let words: Vec<&str> = std::iter::once(chart).chain(values).map(String::as_str).collect();
                format!("{} helm {}", environment.folder, words.join(" "))
            }
        })
        .collect();
    lines.extend(layout.shared().map(|(folder, _)| format!("{folder} shared")));
    (lines, diagnostics)
}

fn check(files: &[(&str, &str)], expect: &[&str]) {
    let (lines, diagnostics) = describe(files);
    assert_eq!(lines, expect, "{files:?}");
    assert_eq!(diagnostics, [], "{files:?}");
    // Callers look at the YAML files first: they have to give the same result.
    let yaml: Vec<_> = files.iter().copied().filter(|(path, _)| is_yaml(path)).collect();
    if !files.iter().any(|(path, _)| path.ends_with("/Kustomization")) {
        assert_eq!(describe(&yaml).0, expect, "the YAML of {files:?}");
    }
}

fn refused(files: &[(&str, &str)], code: &str, says: &str) {
    let (_, diagnostics) = describe(files);
    let [diagnostic] = diagnostics.as_slice() else {
        panic!("{diagnostics:?}")
    };
    assert_eq!(diagnostic.code, code);
    let text = diagnostic.render(false);
    assert!(text.contains(says), "{text}");
}

const K: &str = "resources: [web.yaml]\n";
const C: &str = "apiVersion: v2\nname: app\nversion: 0.1.0\n";
const O: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";

#[test]
fn a_plain_tree_has_no_layout() {
    check(&[], &[]);
    check(
        &[(".k8s/live/dev/web.yaml", O), (".k8s/live/jobs/migrate.yaml", O)],
        &[],
    );
    // Without a chart, these are ordinary file names.
    check(
        &[(".k8s/live/dev/values.yaml", "a: 1\n"), (".k8s/live/dev/chart.yaml", O)],
        &[],
    );
    check(&[("deploy/kustomization.yaml", K), ("chart/Chart.yaml", C)], &[]);
    let (layout, _) = Layout::read([(".k8s/live/dev/web.yaml", O)], &LayoutSettings::default());
    assert!(layout.is_plain() && layout.reads_as_it_is(".k8s/live/dev/web.yaml"));
}

#[test]
fn every_name_of_a_kustomization_is_recognised() {
    for name in KUSTOMIZATIONS {
        let path = format!(".k8s/live/dev/{name}");
        check(
            &[(&path, K), (".k8s/live/dev/web.yaml", O)],
            &[".k8s/live/dev kustomize"],
        );
        check(&[(&format!("./{path}"), K)], &[".k8s/live/dev kustomize"]);
    }
    check(
        &[(".k8s/live/dev/kustomization.yaml", "")],
        &[".k8s/live/dev kustomize"],
    );
}

#[test]
fn a_flux_object_is_no_kustomization() {
    let flux = "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: a}\n";
    check(&[(".k8s/live/dev/kustomization.yaml", flux)], &[]);
}

#[test]
fn a_base_is_no_environment_wherever_it_is() {
    for (base, reference) in [
        (".k8s/base", "../../base"),
        (".k8s/live/base", "../base"),
        (".k8s/live/base", "./../base/"),
        (".k8s/base/web", "../../base/web"),
        (".k8s/live/dev/base", "base"),
        (".k8s/shared/deep/down/base", "../../shared/deep/down/base"),
    ] {
        for key in ["resources", "bases", "components", "transformers", "Resources"] {
            let overlay = format!("{key}:\n  - {reference}\n");
            check(
                &[
                    (&format!("{base}/kustomization.yaml"), K),
                    (&format!("{base}/web.yaml"), O),
                    (".k8s/live/dev/kustomization.yaml", &overlay),
                ],
                &[".k8s/live/dev kustomize", &format!("{base} shared")],
            );
        }
    }
}

#[test]
fn the_bases_of_a_base_are_no_environments_either() {
    check(
        &[
            (".k8s/base/kustomization.yaml", "resources: [redis]\n"),
            (".k8s/base/redis/kustomization.yaml", K),
            (".k8s/base/other/kustomization.yaml", K),
            (".k8s/live/dev/kustomization.yaml", "resources: [../../base]\n"),
            (".k8s/live/prod/kustomization.yaml", "resources: [../dev]\n"),
        ],
        &[
            ".k8s/live/prod kustomize",
            ".k8s/base shared",
            ".k8s/base/redis shared",
            ".k8s/live/dev shared",
        ],
    );
}

#[test]
fn an_unused_component_is_no_environment() {
    let component = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n";
    check(&[(".k8s/live/debug/kustomization.yaml", component)], &[]);
}

#[test]
fn jobs_next_to_the_environments_stay_plain() {
    let files = [
        (".k8s/live/jobs/kustomization.yaml", K),
        (".k8s/live/cron_jobs/Chart.yaml", C),
        (".k8s/live/jobs/values.yaml", "a: 1\n"),
        (".k8s/live/dev/kustomization.yaml", K),
        (".k8s/live/dev/jobs/migrate.yaml", O),
    ];
    check(&files, &[".k8s/live/dev kustomize"]);
    let (layout, _) = Layout::read(files, &LayoutSettings::default());
    assert!(layout.reads_as_it_is(".k8s/live/jobs/kustomization.yaml"));
    assert!(!layout.reads_as_it_is(".k8s/live/dev/jobs/migrate.yaml"));
    assert!(layout.reads_as_it_is(".k8s/live/development/web.yaml"));
    assert_eq!(layout.rendered("live", "dev").unwrap().environment, "dev");
    assert_eq!(layout.rendered("live", "prod"), None);
}

#[test]
fn cycles_are_left_to_kustomize() {
    check(
        &[
            (".k8s/live/a/kustomization.yaml", "resources: [../b]\n"),
            (".k8s/live/b/kustomization.yaml", "resources: [../a]\n"),
        ],
        &[".k8s/live/a kustomize", ".k8s/live/b kustomize"],
    );
    // A base that contains its overlay is such a cycle, too. The other environments are not affected.
    check(
        &[
            (".k8s/live/kustomization.yaml", K),
            (".k8s/live/dev/kustomization.yaml", "resources: [..]\n"),
            (".k8s/live/prod/web.yaml", O),
        ],
        &[".k8s/live/dev kustomize"],
    );
}

#[test]
fn a_kustomization_above_environments_does_not_make_them_bases() {
    check(
        &[
            (".k8s/live/kustomization.yaml", "resources: [dev]\n"),
            (".k8s/live/dev/kustomization.yaml", K),
        ],
        &[".k8s/live/dev kustomize"],
    );
}

#[test]
fn a_reference_outside_of_the_repository_is_refused() {
    for reference in [
        "../../../../../etc",
        "/etc",
        "a/../../../../..",
        "https://../../../../../../x",
    ] {
        let text = format!("resources:\n  - web.yaml\n  - {reference}\n");
        refused(
            &[(".k8s/live/dev/kustomization.yaml", &text)],
            "manifest::outside-root",
            ".k8s/live/dev/kustomization.yaml:3:5",
        );
    }
    // The same in a base, hidden among templates.
    refused(
        &[
            (".k8s/x/Chart.yaml", C),
            (
                ".k8s/x/templates/b/kustomization.yaml",
                "resources: [../../../../../etc]\n",
            ),
            (".k8s/live/dev/kustomization.yaml", "resources: [../../x/templates/b]\n"),
            (".k8s/live/prod/values.yaml", "a: 1\n"),
        ],
        "manifest::outside-root",
        "`../../../../../etc`",
    );
}

#[test]
fn an_invalid_kustomization_is_reported_with_its_place() {
    refused(
        &[(".k8s/live/dev/kustomization.yaml", "resources: [\n")],
        describe(&[(".k8s/live/dev/kustomization.yaml", "resources: [\n")]).1[0].code,
        ".k8s/live/dev/kustomization.yaml:",
    );
}

#[test]
fn a_chart_in_the_folder_of_an_environment() {
    check(
        &[
            (".k8s/live/dev/Chart.yaml", C),
            (".k8s/live/dev/values.yaml", "a: 1\n"),
            (".k8s/live/dev/values-dev.yaml", "a: 2\n"),
            (".k8s/live/dev/values-prod.yaml", "a: 3\n"),
            (".k8s/live/dev/templates/web.yaml", "{{ .Values.a }}"),
            (".k8s/live/dev/templates/kustomization.yaml", "{{ if }}"),
            (".k8s/live/dev/charts/redis/Chart.yaml", C),
            (".k8s/live/prod/Chart.yaml", C),
        ],
        &[
            ".k8s/live/dev helm .k8s/live/dev .k8s/live/dev/values-dev.yaml",
            ".k8s/live/prod helm .k8s/live/prod",
        ],
    );
}

#[test]
fn a_chart_next_to_values_in_the_folder_of_an_environment() {
    check(
        &[
            (".k8s/live/dev/app/Chart.yaml", C),
            (".k8s/live/dev/app/templates/web.yaml", "{{ .Values.a }}"),
            (".k8s/live/dev/values.yaml", "a: 1\n"),
            (".k8s/live/prod/app/Chart.yaml", C),
            (".k8s/live/prod/values.yaml", "a: 1\n"),
        ],
        &[
            ".k8s/live/dev helm .k8s/live/dev/app .k8s/live/dev/values.yaml",
            ".k8s/live/prod helm .k8s/live/prod/app .k8s/live/prod/values.yaml",
        ],
    );
}

#[test]
fn one_chart_serves_several_folders_of_values() {
    for chart in [
        ".k8s/chart",
        ".k8s/live/chart",
        ".k8s/charts/app",
        ".k8s/live/charts/app",
        ".k8s/a/b/c/d",
    ] {
        check(
            &[
                (&format!("{chart}/Chart.yaml"), C),
                (&format!("{chart}/values.yaml"), "a: 0\n"),
                (&format!("{chart}/templates/web.yaml"), "{{ .Values.a }}"),
                (&format!("{chart}/templates/NOTES.txt"), "hello"),
                (".k8s/live/dev/values.secret.yaml", "a: 1\n"),
                (".k8s/live/dev/values-dev.yaml", "a: 1\n"),
                (".k8s/live/dev/values.yaml", "a: 1\n"),
                (".k8s/live/dev/README.md", "what it is"),
                (".k8s/live/prod/values.yml", "a: 1\n"),
                (".k8s/live/plain/web.yaml", O),
            ],
            &[
                &format!(
                    ".k8s/live/dev helm {chart} .k8s/live/dev/values.yaml .k8s/live/dev/values-dev.yaml .k8s/live/dev/values.secret.yaml"
                ),
                &format!(".k8s/live/prod helm {chart} .k8s/live/prod/values.yml"),
                &format!("{chart} shared"),
            ],
        );
    }
}

#[test]
fn the_chart_of_the_kube_context_comes_first() {
    check(
        &[
            (".k8s/chart/Chart.yaml", C),
            (".k8s/live/chart/Chart.yaml", C),
            (".k8s/live/dev/values.yaml", "a: 1\n"),
            (".k8s/test/qa/values.yaml", "a: 1\n"),
        ],
        &[
            ".k8s/live/dev helm .k8s/live/chart .k8s/live/dev/values.yaml",
            ".k8s/test/qa helm .k8s/chart .k8s/test/qa/values.yaml",
            ".k8s/chart shared",
            ".k8s/live/chart shared",
        ],
    );
}

#[test]
fn two_possible_charts_are_refused() {
    refused(
        &[
            (".k8s/charts/a/Chart.yaml", C),
            (".k8s/charts/b/Chart.yaml", C),
            (".k8s/live/dev/values.yaml", "a: 1\n"),
        ],
        "manifest::ambiguous-chart",
        "`.k8s/charts/a`, `.k8s/charts/b`",
    );
    refused(
        &[
            (".k8s/live/dev/a/Chart.yaml", C),
            (".k8s/live/dev/b/Chart.yaml", C),
            (".k8s/live/dev/values.yaml", "a: 1\n"),
        ],
        "manifest::ambiguous-chart",
        ".k8s/live/dev/values.yaml:1:1",
    );
}

#[test]
fn an_unused_chart_is_reported() {
    for chart in [".k8s/chart", ".k8s/live/dev/chart"] {
        refused(
            &[(&format!("{chart}/Chart.yaml"), C), (".k8s/live/dev/web.yaml", O)],
            "manifest::unused-chart",
            chart,
        );
    }
}

#[test]
fn two_renderers_for_one_environment_are_refused() {
    refused(
        &[(".k8s/live/dev/Chart.yaml", C), (".k8s/live/dev/kustomization.yaml", K)],
        "manifest::two-renderers",
        ".k8s/live/dev/Chart.yaml:1:1",
    );
}

#[test]
fn plain_environments_are_read_next_to_rendered_ones() {
    let files = [
        (".k8s/base/kustomization.yaml", K),
        (".k8s/base/web.yaml", O),
        (".k8s/live/dev/kustomization.yaml", "resources: [../../base]\n"),
        (".k8s/live/plain/web.yaml", O),
        (
            ".k8s/live/jobs/migrate.yaml",
            "apiVersion: batch/v1\nkind: Job\nmetadata: {name: migrate}\n",
        ),
    ];
    let (layout, _) = Layout::read(files, &LayoutSettings::default());
    let (tree, diagnostics) = Tree::read_in(
        &layout,
        files.into_iter().filter(|(path, _)| layout.reads_as_it_is(path)),
    );
    assert_eq!(diagnostics, []);
    assert_eq!(tree.kube_contexts.keys().collect::<Vec<_>>(), ["live"]);
    assert_eq!(
        tree.kube_contexts["live"].environments.keys().collect::<Vec<_>>(),
        ["plain"]
    );
    assert_eq!(tree.jobs("live", "plain", "x").len(), 1);
}
