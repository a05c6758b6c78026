//! Whether the account may do everything that a deployment does.

use crate::target::{Environment, Finding, Severity};
use futures::future::try_join_all;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use towpath_kube::{ApiError, Client, Resource};
use towpath_manifest::{Kind, Object};

/// The result of the check.
pub(super) struct Permissions {
    /// The kinds whose objects the account may not read or apply. The server would refuse every other check of them, too.
    pub inaccessible: Vec<Resource>,
    pub findings: Vec<Finding>,
}

/// What the account has to be allowed to do, on every object of a kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Permission<'a> {
    verb: &'static str,
    group: &'a str,
    plural: &'a str,
    namespaced: bool,
}

/// Checks the permissions for applying `objects` and for removing objects of the kinds `pruned`.
pub(super) async fn check(
    client: &Client,
    environment: &Environment,
    objects: &[(&Object, Resource, bool)],
    pruned: &[Resource],
) -> Result<Permissions, ApiError> {
    let needed = needed(objects, pruned);
    let rules = rules(client, environment).await?;
    // The rules are about the namespace. They say nothing about cluster-wide kinds.
    let in_doubt = needed
        .into_iter()
        .filter(|(permission, _)| !permission.namespaced || !allow(&rules, permission));
    let asked = in_doubt.map(|(permission, object)| async move {
        let is_allowed = review(client, environment, &permission).await?;
        Ok::<_, ApiError>((!is_allowed).then_some((permission, object)))
    });
    let mut missing: BTreeMap<(&str, &str, bool), (Vec<&str>, &Object)> = BTreeMap::new();
    for (permission, object) in try_join_all(asked).await?.into_iter().flatten() {
        let Permission {
            verb,
            group,
            plural,
            namespaced,
        } = permission;
        let (verbs, _) = missing
            .entry((group, plural, namespaced))
            .or_insert_with(|| (Vec::new(), object));
        verbs.push(verb);
    }
    let is_inaccessible = |resource: &&Resource| {
        let missing = missing.get(&(resource.group(), resource.plural.as_str(), resource.namespaced));
        missing.is_some_and(|(verbs, _)| ["get", "create", "patch"].iter().any(|verb| verbs.contains(verb)))
    };
    let inaccessible = objects.iter().map(|(_, resource, _)| resource).filter(is_inaccessible);
    let inaccessible = inaccessible.cloned().collect();
    let findings = missing
        .into_iter()
        .map(|((group, plural, namespaced), (verbs, object))| {
            let resource = match group {
                "" => plural.to_string(),
                group => format!("{plural}.{group}"),
            };
            finding(client, environment, object, &resource, &verbs, namespaced)
        });
    let findings = findings.collect();
    Ok(Permissions { inaccessible, findings })
}

/// What a deployment needs, each with an object that needs it.
fn needed<'a>(
    objects: &'a [(&'a Object, Resource, bool)],
    pruned: &'a [Resource],
) -> BTreeMap<Permission<'a>, &'a Object> {
    let mut needed = BTreeMap::new();
    let mut need = |verb, resource: &'a Resource, object| {
        let permission = Permission {
            verb,
            group: resource.group(),
            plural: &resource.plural,
            namespaced: resource.namespaced,
        };
        needed.entry(permission).or_insert(object);
    };
    for (object, resource, _) in objects {
        // Waiting for a rollout takes `list`; without `watch` it lists again and again.
        let lists = Kind::of(&resource.kind).rolls_out.then_some("list");
        for verb in ["get", "create", "patch"].into_iter().chain(lists) {
            need(verb, resource, *object);
        }
    }
    if let Some((object, ..)) = objects.first() {
        for resource in pruned {
            need("delete", resource, *object);
        }
        // The records of the environment are Secrets.
        for verb in ["get", "list", "create", "patch"] {
            let permission = Permission {
                verb,
                group: "",
                plural: Kind::SECRET.plural,
                namespaced: true,
            };
            needed.entry(permission).or_insert(*object);
        }
    }
    needed
}

/// The rules of the account in the namespace; null if the cluster does not tell.
async fn rules(client: &Client, environment: &Environment) -> Result<Value, ApiError> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": environment.namespace},
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    match client.create(path, &review).await {
        Ok(answer) => Ok(answer.pointer("/status/resourceRules").cloned().unwrap_or_default()),
        // Some clusters do not let everybody ask. Then each permission is reviewed on its own.
        Err(error) if error.is_forbidden() || error.is_missing() => Ok(Value::Null),
        Err(error) => Err(error),
    }
}

async fn review(client: &Client, environment: &Environment, permission: &Permission<'_>) -> Result<bool, ApiError> {
    let namespace = match permission.namespaced {
        true => environment.namespace.as_str(),
        false => "",
    };
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {
            "namespace": namespace, "verb": permission.verb, "group": permission.group, "resource": permission.plural,
        }},
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer = client.create(path, &review).await?;
    Ok(answer.pointer("/status/allowed").and_then(Value::as_bool) == Some(true))
}

/// Whether the rules of an account allow something for objects of every name.
fn allow(rules: &Value, permission: &Permission<'_>) -> bool {
    let has = |rule: &Value, field: &str, wanted: &str| {
        let list = rule.get(field).and_then(Value::as_array);
        list.into_iter().flatten().any(|one| one == wanted || one == "*")
    };
    rules.as_array().into_iter().flatten().any(|rule| {
        let is_for_all = rule
            .get("resourceNames")
            .and_then(Value::as_array)
            .is_none_or(Vec::is_empty);
        is_for_all
            && has(rule, "verbs", permission.verb)
            && has(rule, "apiGroups", permission.group)
            && has(rule, "resources", permission.plural)
    })
}

fn finding(
    client: &Client,
    environment: &Environment,
    object: &Object,
    resource: &str,
    verbs: &[&str],
    namespaced: bool,
) -> Finding {
    let remedy = match namespaced {
        true => format!(
            "in the namespace `{}`: grant it a Role that allows that",
            environment.namespace
        ),
        false => "in the whole cluster: grant it a ClusterRole that allows that, or let somebody with that permission apply the \
                  manifest, and remove it here"
            .to_string(),
    };
    Finding {
        severity: Severity::Refused,
        object: object.id(),
        field: String::new(),
        place: object.place.clone(),
        message: format!(
            "the account of the kube context `{}` may not {} {resource} {remedy}",
            client.kube_context(),
            verbs.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_for_named_objects_do_not_allow_all_objects() {
        let rules = json!([
            {"verbs": ["get", "patch"], "apiGroups": ["apps"], "resources": ["deployments"]},
            {"verbs": ["*"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["one"]},
            {"verbs": ["*"], "apiGroups": [""], "resources": ["*"]},
        ]);
        let is_allowed = |rules: &Value, verb: &'static str, group: &'static str, plural: &'static str| {
            let permission = Permission {
                verb,
                group,
                plural,
                namespaced: true,
            };
            allow(rules, &permission)
        };
        assert!(is_allowed(&rules, "patch", "apps", "deployments"));
        assert!(!is_allowed(&rules, "create", "apps", "deployments"));
        assert!(is_allowed(&rules, "create", "", "secrets"));
        assert!(!is_allowed(&Value::Null, "get", "", "secrets"));
    }
}
