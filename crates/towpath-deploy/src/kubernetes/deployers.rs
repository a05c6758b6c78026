//! The programs that deploy objects, and how an object shows which of them did.

use serde_json::Value;

/// A label or annotation of a program that deploys objects.
pub(super) struct Mark {
    /// The field of the metadata: `labels`.
    field: &'static str,
    pub name: &'static str,
    /// The program, as the beginning of a sentence's part that ends with the value.
    words: &'static str,
}

/// Source: <https://argo-cd.readthedocs.io/en/stable/user-guide/resource_tracking/>,
/// <https://fluxcd.io/flux/components/kustomize/kustomizations/>, <https://fluxcd.io/flux/components/helm/helmreleases/>,
/// <https://helm.sh/docs/chart_best_practices/labels/>
const MARKS: [Mark; 5] = [
    Mark {
        field: "annotations",
        name: "meta.helm.sh/release-name",
        words: "the Helm release",
    },
    Mark {
        field: "annotations",
        name: "argocd.argoproj.io/tracking-id",
        words: "Argo CD, as",
    },
    Mark {
        field: "labels",
        name: "argocd.argoproj.io/instance",
        words: "Argo CD, in the application",
    },
    Mark {
        field: "labels",
        name: "kustomize.toolkit.fluxcd.io/name",
        words: "Flux, in the Kustomization",
    },
    Mark {
        field: "labels",
        name: "helm.toolkit.fluxcd.io/name",
        words: "Flux, in the HelmRelease",
    },
];

/// The marks of an object, each with who deploys it, as words.
pub(super) fn marks(object: &Value) -> impl Iterator<Item = (&'static Mark, String)> {
    MARKS.iter().filter_map(|mark| {
        let fields = object.pointer("/metadata")?.get(mark.field)?;
        let value = fields.get(mark.name)?.as_str()?;
        Some((mark, format!("{} `{value}`", mark.words)))
    })
}

/// The program that writes as a field manager, if it is one that applies manifests by itself.
///
/// Source: <https://github.com/argoproj/argo-cd/blob/master/common/common.go> (`argocd-controller`),
/// <https://github.com/fluxcd/kustomize-controller/blob/main/main.go>, <https://github.com/fluxcd/helm-controller/blob/main/main.go>
pub(super) fn program(manager: &str) -> Option<&'static str> {
    match manager {
        manager if manager.starts_with("argocd") => Some("Argo CD"),
        "kustomize-controller" | "helm-controller" => Some("Flux"),
        "helm" => Some("Helm"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_mark_says_which_program_it_is_of() {
        let object = json!({"metadata": {
            "labels": {
                "argocd.argoproj.io/instance": "web", "kustomize.toolkit.fluxcd.io/name": "apps",
                "helm.toolkit.fluxcd.io/name": "shop", "app.kubernetes.io/instance": "web", "app.kubernetes.io/name": "web",
            },
            "annotations": {"meta.helm.sh/release-name": "shop", "argocd.argoproj.io/tracking-id": "web:v1/Secret:a/b"},
        }});
        let said: Vec<String> = marks(&object).map(|(_, words)| words).collect();
        assert_eq!(
            said,
            [
                "the Helm release `shop`",
                "Argo CD, as `web:v1/Secret:a/b`",
                "Argo CD, in the application `web`",
                "Flux, in the Kustomization `apps`",
                "Flux, in the HelmRelease `shop`",
            ]
        );
        assert_eq!(marks(&json!({"metadata": {"name": "web"}})).count(), 0);
    }

    #[test]
    fn field_managers_of_programs_are_known() {
        for (manager, expect) in [
            ("argocd-controller", Some("Argo CD")),
            ("argocd-application-controller", Some("Argo CD")),
            ("kustomize-controller", Some("Flux")),
            ("helm-controller", Some("Flux")),
            ("helm", Some("Helm")),
            ("kubectl-client-side-apply", None),
            ("towpath", None),
            ("someone", None),
        ] {
            assert_eq!(program(manager), expect, "{manager}");
        }
    }
}
