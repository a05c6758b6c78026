//! Who keeps a Secret in a cluster.

use super::deployers;
use crate::live::{Keeper, Kept};
use crate::target::PULL_SECRET;
use serde_json::Value;
use towpath_kube::{managed_fields, text_at};

/// The annotation that says that people keep a Secret, whatever else wrote it before. Setting a value writes it.
pub(super) const KEEPER: &str = "towpath.dev/keeper";
/// The value of [`KEEPER`].
pub(super) const PEOPLE: &str = "people";
/// The type of the Secrets with Towpath's own records begins so.
pub(super) const OWN_TYPES: &str = "towpath.dev/";

/// Types of Secrets that the cluster or a program writes for itself.
///
/// Source: <https://kubernetes.io/docs/concepts/configuration/secret/#secret-types>; `helm.sh/release.v1`:
/// <https://helm.sh/docs/topics/kubernetes_apis/>
const CLUSTER_TYPES: &[&str] = &[
    "kubernetes.io/service-account-token",
    "bootstrap.kubernetes.io/token",
    "helm.sh/release.v1",
];

/// Labels and annotations by which an operator marks the Secrets that it writes, with the value if it matters.
///
/// Source: <https://external-secrets.io/latest/guides/ownership-deletion-policy/>,
/// <https://cert-manager.io/docs/reference/annotations/>, <https://github.com/1Password/onepassword-operator>,
/// <https://developer.hashicorp.com/vault/docs/deploy/kubernetes/vso>,
/// <https://github.com/bitnami/sealed-secrets#managing-existing-secrets>
const OPERATOR_MARKS: &[(&str, Option<&str>)] = &[
    ("reconcile.external-secrets.io/managed", Some("true")),
    ("cert-manager.io/certificate-name", None),
    ("operator.1password.io/item-path", None),
    ("app.kubernetes.io/managed-by", Some("hashicorp-vso")),
    ("sealedsecrets.bitnami.com/managed", Some("true")),
    ("sealedsecrets.bitnami.com/patch", Some("true")),
];

/// The field managers of Terraform's provider: of typed resources, and of `kubernetes_manifest`. The first is the beginning of
/// its user agent.
///
/// Source: <https://github.com/hashicorp/terraform-provider-kubernetes/pull/1333>
const TERRAFORM: &[&str] = &["HashiCorp", "Terraform"];

/// Who keeps a Secret, by what the Secret itself says, and by `others`: the objects of operators in its namespace.
pub(super) fn of(secret: &Value, others: &[Value]) -> Kept {
    let name = text_at(secret, "/metadata/name");
    let kind = text_at(secret, "/type");
    if CLUSTER_TYPES.contains(&kind.as_str()) || kind.starts_with(OWN_TYPES) {
        return Kept::new(Keeper::Cluster, format!("its type is `{kind}`"));
    }
    if name == PULL_SECRET && managed_fields::ours(secret).is_some() {
        return Kept::new(Keeper::Cluster, "Towpath writes it, for pods to pull images with");
    }
    if let Some(owner) = controller(secret) {
        return Kept::new(Keeper::Operator, format!("its controller is {owner}"));
    }
    if let Some(mark) = mark(secret, OPERATOR_MARKS) {
        return Kept::new(Keeper::Operator, format!("it has the mark `{mark}`"));
    }
    if let Some(other) = others.iter().find(|other| creates(other, &name)) {
        let (kind, other) = (text_at(other, "/kind"), text_at(other, "/metadata/name"));
        return Kept::new(Keeper::Operator, format!("the {kind} `{other}` writes it"));
    }
    if says_people(secret) {
        return Kept::new(Keeper::People, format!("its annotation `{KEEPER}` says so"));
    }
    let of_data: Vec<_> = managed_fields::entries(secret)
        .filter(|entry| entry.fields.get("f:data").is_some())
        .collect();
    if let Some(entry) = of_data.iter().find(|entry| TERRAFORM.contains(&entry.manager)) {
        let because = format!("the field manager `{}` wrote its values", entry.manager);
        return Kept::new(Keeper::Terraform, because);
    }
    if let Some((mark, _)) = deployers::marks(secret).next() {
        return Kept::new(Keeper::Manifest, format!("it has the mark `{}`", mark.name));
    }
    if let Some((entry, program)) = of_data
        .iter()
        .find_map(|entry| Some((entry, deployers::program(entry.manager)?)))
    {
        let because = format!("{program} wrote its values, as the field manager `{}`", entry.manager);
        return Kept::new(Keeper::Manifest, because);
    }
    if of_data.iter().any(managed_fields::Entry::is_ours) {
        return Kept::new(
            Keeper::Manifest,
            "a deployment applied it from the environment's manifests",
        );
    }
    Kept::new(Keeper::People, "nothing shows another keeper")
}

/// Whether the Secret itself says that people keep it.
pub(super) fn says_people(secret: &Value) -> bool {
    let annotations = secret.pointer("/metadata/annotations");
    annotations.and_then(|all| all.get(KEEPER)).and_then(Value::as_str) == Some(PEOPLE)
}

fn controller(secret: &Value) -> Option<String> {
    let owners = secret.pointer("/metadata/ownerReferences").and_then(Value::as_array)?;
    let is_controller = |owner: &&Value| owner.get("controller").and_then(Value::as_bool) == Some(true);
    let owner = owners.iter().find(is_controller)?;
    Some(format!("the {} `{}`", text_at(owner, "/kind"), text_at(owner, "/name")))
}

/// The first of `marks` among the labels and annotations.
fn mark<'m>(secret: &Value, marks: &'m [(&str, Option<&str>)]) -> Option<&'m str> {
    let has = |field: &str, (name, wanted): (&str, Option<&str>)| {
        let value = secret
            .pointer(field)
            .and_then(|map| map.get(name))
            .and_then(Value::as_str);
        value.is_some_and(|value| wanted.is_none_or(|wanted| value == wanted))
    };
    let found = marks
        .iter()
        .find(|mark| has("/metadata/labels", **mark) || has("/metadata/annotations", **mark))?;
    Some(found.0)
}

/// Kinds of operators that write Secrets, in the versions that clusters serve them in, newest first.
pub(super) const OPERATORS: &[(&str, &str)] = &[
    ("external-secrets.io/v1", "ExternalSecret"),
    ("external-secrets.io/v1beta1", "ExternalSecret"),
    ("bitnami.com/v1alpha1", "SealedSecret"),
    ("cert-manager.io/v1", "Certificate"),
    ("onepassword.com/v1", "OnePasswordItem"),
    ("secrets.hashicorp.com/v1beta1", "VaultStaticSecret"),
];

/// Whether a custom resource may create a Secret or a ConfigMap with this name: an ExternalSecret, a SealedSecret, a
/// Certificate.
pub(super) fn creates(object: &Value, name: &str) -> bool {
    let (version, kind) = (text_at(object, "/apiVersion"), text_at(object, "/kind"));
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let is_custom = group.contains('.') && !group.ends_with(".k8s.io");
    let targets = ["/spec/target/name", "/spec/secretName", "/spec/destination/name"];
    let mut named = targets
        .iter()
        .map(|pointer| text_at(object, pointer))
        .filter(|target| !target.is_empty())
        .peekable();
    // A kind like `SealedSecret` creates a Secret with its own name, unless it sets one.
    if named.peek().is_none() {
        let has_its_name = kind.contains("Secret") || kind == "OnePasswordItem";
        return is_custom && has_its_name && text_at(object, "/metadata/name") == name;
    }
    is_custom && named.any(|target| target == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(more: &Value, expect: Keeper, because: &str) {
        let mut secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                                "metadata": {"name": "rds"}, "data": {"url": "eA=="}});
        for (key, value) in more.as_object().into_iter().flatten() {
            match key.as_str() {
                "type" => secret["type"] = value.clone(),
                key => secret["metadata"][key] = value.clone(),
            }
        }
        let external = json!({"apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret",
                              "metadata": {"name": "all"}, "spec": {"target": {"name": "outer"}}});
        let kept = of(&secret, &[external]);
        assert_eq!((kept.by, kept.because.as_str()), (expect, because), "{more}");
    }

    fn written(manager: &str, operation: &str) -> Value {
        json!([{"manager": manager, "operation": operation, "fieldsV1": {"f:data": {"f:url": {}}}}])
    }

    #[test]
    fn the_keeper_is_decided_by_what_the_secret_says() {
        check(&json!({}), Keeper::People, "nothing shows another keeper");
        for manager in ["kubectl-create", "kubectl-client-side-apply", "towpath-secrets"] {
            let more = json!({"managedFields": written(manager, "Update")});
            check(&more, Keeper::People, "nothing shows another keeper");
        }
        for (manager, operation) in [("HashiCorp", "Update"), ("Terraform", "Apply")] {
            let because = format!("the field manager `{manager}` wrote its values");
            let more = json!({"managedFields": written(manager, operation)});
            check(&more, Keeper::Terraform, &because);
            // People took it over.
            let more = json!({"managedFields": written(manager, operation), "annotations": {KEEPER: PEOPLE}});
            check(&more, Keeper::People, "its annotation `towpath.dev/keeper` says so");
        }
        // Who only put a label on it does not keep it.
        let label = json!([{"manager": "HashiCorp", "operation": "Update", "fieldsV1": {"f:metadata": {}}}]);
        check(
            &json!({"managedFields": label}),
            Keeper::People,
            "nothing shows another keeper",
        );
        let owner = json!([{"kind": "Certificate", "name": "web", "controller": true}]);
        let because = "its controller is the Certificate `web`";
        check(
            &json!({"ownerReferences": owner, "annotations": {KEEPER: PEOPLE}}),
            Keeper::Operator,
            because,
        );
        let owner = json!([{"kind": "Deployment", "name": "web"}]);
        check(
            &json!({"ownerReferences": owner}),
            Keeper::People,
            "nothing shows another keeper",
        );
        let mark = json!({"reconcile.external-secrets.io/managed": "true"});
        let because = "it has the mark `reconcile.external-secrets.io/managed`";
        check(&json!({"labels": mark}), Keeper::Operator, because);
        check(
            &json!({"name": "outer"}),
            Keeper::Operator,
            "the ExternalSecret `all` writes it",
        );
        let because = "it has the mark `meta.helm.sh/release-name`";
        check(
            &json!({"annotations": {"meta.helm.sh/release-name": "app"}}),
            Keeper::Manifest,
            because,
        );
        let because = "it has the mark `argocd.argoproj.io/instance`";
        let label = json!({"argocd.argoproj.io/instance": "web"});
        check(&json!({"labels": label}), Keeper::Manifest, because);
        for (manager, operation, program) in [
            ("argocd-controller", "Update", "Argo CD"),
            ("kustomize-controller", "Apply", "Flux"),
            ("helm-controller", "Update", "Flux"),
        ] {
            let because = format!("{program} wrote its values, as the field manager `{manager}`");
            let more = json!({"managedFields": written(manager, operation)});
            check(&more, Keeper::Manifest, &because);
            let more = json!({"managedFields": written(manager, operation), "annotations": {KEEPER: PEOPLE}});
            check(&more, Keeper::People, "its annotation `towpath.dev/keeper` says so");
        }
        let because = "a deployment applied it from the environment's manifests";
        check(
            &json!({"managedFields": written("towpath", "Apply")}),
            Keeper::Manifest,
            because,
        );
        let because = "Towpath writes it, for pods to pull images with";
        let more = json!({"name": PULL_SECRET, "managedFields": written("towpath", "Apply")});
        check(&more, Keeper::Cluster, because);
        for kind in [
            "kubernetes.io/service-account-token",
            "helm.sh/release.v1",
            "towpath.dev/state",
        ] {
            check(
                &json!({"type": kind}),
                Keeper::Cluster,
                &format!("its type is `{kind}`"),
            );
        }
        check(
            &json!({"type": "kubernetes.io/tls"}),
            Keeper::People,
            "nothing shows another keeper",
        );
    }

    #[test]
    fn custom_resources_may_create_the_secrets_that_they_name() {
        let sealed = json!({"apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "metadata": {"name": "a"}});
        assert!(creates(&sealed, "a") && !creates(&sealed, "b"));
        let external = json!({"apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "metadata": {"name": "a"},
                              "spec": {"target": {"name": "b"}}});
        assert!(creates(&external, "b") && !creates(&external, "a"));
        let item = json!({"apiVersion": "onepassword.com/v1", "kind": "OnePasswordItem", "metadata": {"name": "a"}});
        assert!(creates(&item, "a"));
        let vault = json!({"apiVersion": "secrets.hashicorp.com/v1beta1", "kind": "VaultStaticSecret",
                           "metadata": {"name": "a"}, "spec": {"destination": {"name": "b"}}});
        assert!(creates(&vault, "b"));
        let own = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}});
        assert!(!creates(&own, "a"));
    }
}
