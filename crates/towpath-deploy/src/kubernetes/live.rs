//! Reading and setting the Secrets of an environment in a cluster.

use super::{
    error::failed_to,
    keeper::{self, KEEPER, OPERATORS, OWN_TYPES, PEOPLE},
    target::KubernetesTarget,
};
use crate::live::{Keeper, KeyChange, LiveKey, LiveSecret, LiveSecrets};
use crate::target::{Environment, TargetError};
use base64::Engine as _;
use futures::future::{BoxFuture, join_all};
use serde_json::{Value, json};
use towpath_kube::{ApiError, Client, Discovery, Lookup, Resource, Select, managed_fields, text_at};
use towpath_manifest::Kind;
use towpath_types::{Mask, SecretBytes};

/// The annotation with the person who set a value last.
const SET_BY: &str = "towpath.dev/set-by";
/// The field manager of values that people set.
const FIELD_MANAGER: &str = "towpath-secrets";
/// How often a change is tried while others write the Secret's other keys.
const ATTEMPTS: usize = 20;

/// A request that makes a change.
#[derive(Debug, PartialEq)]
enum Step {
    Create(Value),
    Patch(Value),
}

impl LiveSecrets for KubernetesTarget {
    fn needs_place(&self) -> bool {
        true
    }

    fn list<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<LiveSecret>, TargetError>> {
        Box::pin(async move {
            let cluster = self.cluster(environment).await?;
            let collection = Resource::of(&Kind::SECRET).collection(&environment.namespace);
            let listed = cluster.client.list(&collection, &Select::All).await;
            let (secrets, _) = listed.map_err(failed_to(format!("list the Secrets of {environment}")))?;
            let others = operators(&cluster.client, &cluster.discovery, environment).await;
            let secrets = secrets
                .iter()
                .filter(|secret| !text_at(secret, "/type").starts_with(OWN_TYPES));
            let mut secrets: Vec<LiveSecret> = secrets.map(|secret| view(secret, &others)).collect();
            secrets.sort_by(|one, other| one.name.cmp(&other.name));
            Ok(secrets)
        })
    }

    fn change<'a>(
        &'a self,
        environment: &'a Environment,
        change: &'a KeyChange,
    ) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(async move {
            let cluster = self.cluster(environment).await?;
            let others = operators(&cluster.client, &cluster.discovery, environment).await;
            write(&cluster.client, environment, change, &others).await
        })
    }
}

/// The objects of operators that write Secrets. Those that the account may not list are left out: the Secrets that they write
/// say so themselves, as a rule.
async fn operators(client: &Client, discovery: &Discovery, environment: &Environment) -> Vec<Value> {
    let found = OPERATORS.iter().map(|(version, kind)| async move {
        let Ok(Lookup::Served(resource)) = discovery.find(client, version, kind).await else {
            return Vec::new();
        };
        let collection = resource.collection(&environment.namespace);
        let (mut items, _) = client.list(&collection, &Select::All).await.unwrap_or_default();
        for item in &mut items {
            // The items of a list come without these fields.
            item["apiVersion"] = Value::from(*version);
            item["kind"] = Value::from(*kind);
        }
        items
    });
    join_all(found).await.into_iter().flatten().collect()
}

fn view(secret: &Value, others: &[Value]) -> LiveSecret {
    let data = secret.get("data").and_then(Value::as_object);
    let keys = data.into_iter().flatten().map(|(key, _)| {
        let (by, at) = writer(secret, key);
        LiveKey {
            key: key.clone(),
            bytes: value_of(secret, key).map_or(0, |value| value.expose().len()),
            by,
            at: at.parse().ok(),
        }
    });
    LiveSecret {
        name: text_at(secret, "/metadata/name"),
        kind: text_at(secret, "/type"),
        kept: keeper::of(secret, others),
        keys: keys.collect(),
    }
}

/// Who wrote a key last, and when.
fn writer(secret: &Value, key: &str) -> (String, String) {
    let field = format!("f:{key}");
    let wrote = |entry: &managed_fields::Entry<'_>| {
        entry
            .fields
            .get("f:data")
            .is_some_and(|data| data.get(&field).is_some())
    };
    let entries = managed_fields::entries(secret).filter(wrote);
    let Some(entry) = entries.max_by_key(|entry| entry.time.to_string()) else {
        return (String::new(), String::new());
    };
    let person = secret
        .pointer("/metadata/annotations")
        .and_then(|annotations| annotations.get(SET_BY))
        .and_then(Value::as_str)
        .filter(|_| entry.manager == FIELD_MANAGER);
    (person.unwrap_or(entry.manager).to_string(), entry.time.to_string())
}

fn value_of(secret: &Value, key: &str) -> Option<SecretBytes> {
    let text = secret.get("data")?.get(key)?.as_str()?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    Some(SecretBytes::new(bytes))
}

async fn write(
    client: &Client,
    environment: &Environment,
    change: &KeyChange,
    others: &[Value],
) -> Result<(), TargetError> {
    let resource = Resource::of(&Kind::SECRET);
    let path = resource.object(&environment.namespace, &change.secret);
    let (secret, key) = (&change.secret, &change.key);
    let attempted = || format!("change `{key}` of the Secret `{secret}` in {environment}");
    let mut first: Option<Option<SecretBytes>> = None;
    for _ in 0..ATTEMPTS {
        let live = client.find(&path).await.map_err(failed_to(attempted()))?;
        let now = live.as_ref().and_then(|live| value_of(live, key));
        match &first {
            None => first = Some(now),
            // The answer to the last attempt was lost.
            Some(_) if now == change.value => return Ok(()),
            Some(before) if *before != now => {
                let live = live.unwrap_or_default();
                let (by, at) = writer(&live, key);
                return Err(TargetError::Refused(format!(
                    "somebody changed `{key}` of the Secret `{secret}` at the same moment ({}): nothing was set; look at what \
                     they did, and set it again if it is still right",
                    if by.is_empty() {
                        "it is gone".to_string()
                    } else {
                        format!("{by} at {at}")
                    }
                )));
            }
            Some(_) => {}
        }
        let written = match step(live.as_ref(), environment, change, others)? {
            Step::Create(object) => {
                let collection = resource.collection(&environment.namespace);
                let path = format!("{collection}?fieldManager={FIELD_MANAGER}");
                client.create(&path, &object).await
            }
            Step::Patch(patch) => {
                let path = format!("{path}?fieldManager={FIELD_MANAGER}");
                client.merge(&path, &patch).await
            }
        };
        match written {
            Ok(_) => return Ok(()),
            Err(error) if error.is_conflict() => {}
            Err(error @ ApiError::Answered { code: 400..=422, .. }) => {
                let said = without_value(&error.to_string(), change);
                return Err(TargetError::Refused(format!("the cluster does not take it: {said}")));
            }
            Err(error) => return Err(failed_to(attempted())(error)),
        }
    }
    Err(TargetError::Refused(format!(
        "others write the Secret `{secret}` all the time, so `{key}` could not be set: try again"
    )))
}

/// The server may quote what it refuses.
fn without_value(said: &str, change: &KeyChange) -> String {
    Mask::new(&change.value).text(said)
}

/// What makes the change, if people keep the Secret.
fn step(
    live: Option<&Value>,
    environment: &Environment,
    change: &KeyChange,
    others: &[Value],
) -> Result<Step, TargetError> {
    let (secret, key) = (&change.secret, &change.key);
    let encoding = base64::engine::general_purpose::STANDARD;
    let encoded = change.value.as_ref().map(|value| encoding.encode(value.expose()));
    let annotations = json!({KEEPER: PEOPLE, SET_BY: change.by});
    let missing = || TargetError::NotFound(format!("the Secret `{secret}` of {environment} has no `{key}`"));
    let Some(live) = live else {
        let made_elsewhere = others.iter().find(|other| keeper::creates(other, secret));
        if let Some(other) = made_elsewhere {
            return Err(TargetError::Refused(format!(
                "the {} `{}` makes the Secret `{secret}`: set the value where it reads it",
                text_at(other, "/kind"),
                text_at(other, "/metadata/name")
            )));
        }
        return Ok(Step::Create(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": secret, "namespace": environment.namespace, "annotations": annotations},
            "data": {key: encoded.ok_or_else(missing)?},
        })));
    };
    let refused = |why: String| {
        Err(TargetError::Refused(format!(
            "the Secret `{secret}` of {environment} {why}"
        )))
    };
    let kept = keeper::of(live, others);
    if kept.by != Keeper::People {
        let how = match kept.by {
            Keeper::Terraform => format!(
                "change it there, or, if terraform no longer has it, take it over: `kubectl --namespace {} annotate secret \
                 {secret} {KEEPER}={PEOPLE}`",
                environment.namespace
            ),
            Keeper::Operator => "set the value where the operator reads it".to_string(),
            Keeper::Manifest => "change it in the manifests, or remove it from them first".to_string(),
            Keeper::Cluster | Keeper::People => "use a Secret of your own".to_string(),
        };
        return refused(format!(
            "is kept by {} ({}), which would write over it: {how}",
            kept.by, kept.because
        ));
    }
    if !text_at(live, "/metadata/deletionTimestamp").is_empty() {
        return refused("is being deleted: set it again when it is gone".into());
    }
    if live.get("immutable").and_then(Value::as_bool) == Some(true) {
        return refused(
            "is immutable: give the new values a Secret with another name, and name that in the manifests".into(),
        );
    }
    if encoded.is_none() && value_of(live, key).is_none() {
        return Err(missing());
    }
    Ok(Step::Patch(json!({
        "metadata": {"resourceVersion": text_at(live, "/metadata/resourceVersion"), "annotations": annotations},
        "data": {key: encoded},
    })))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::target::EnvironmentId;

    fn change(value: Option<&[u8]>) -> KeyChange {
        KeyChange {
            secret: "keys".into(),
            key: "store".into(),
            value: value.map(|value| SecretBytes::new(value.to_vec())),
            by: "ada".into(),
        }
    }

    fn step_of(live: Option<&Value>, value: Option<&[u8]>) -> Result<Step, String> {
        let environment = Environment {
            id: EnvironmentId::new("claims", "dev").unwrap(),
            kube_context: "live".into(),
            namespace: "claims-dev".into(),
        };
        step(live, &environment, &change(value), &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn a_change_touches_one_key_and_expects_what_was_read() {
        let live = json!({
            "type": "kubernetes.io/tls", "metadata": {"name": "keys", "resourceVersion": "7", "labels": {"a": "b"}},
            "data": {"store": "eA==", "other": "eQ=="},
        });
        let annotations = json!({KEEPER: PEOPLE, SET_BY: "ada"});
        let patch = |value: Value| {
            let metadata = json!({"resourceVersion": "7", "annotations": annotations.clone()});
            Ok(Step::Patch(json!({"metadata": metadata, "data": {"store": value}})))
        };
        assert_eq!(step_of(Some(&live), Some(b"\xff\0\n")), patch(json!("/wAK")));
        assert_eq!(step_of(Some(&live), None), patch(Value::Null));
        let Ok(Step::Create(made)) = step_of(None, Some(b"\n")) else {
            panic!()
        };
        assert_eq!(made["data"], json!({"store": "Cg=="}));
        assert_eq!(made["metadata"]["annotations"], annotations);
    }

    #[test]
    fn what_is_not_peoples_to_write_is_refused() {
        let refused = |more: &Value| {
            let mut live = json!({"metadata": {"name": "keys", "resourceVersion": "7"}, "data": {"store": "eA=="}});
            for (key, value) in more.as_object().unwrap() {
                live[key] = value.clone();
            }
            step_of(Some(&live), Some(b"y")).unwrap_err()
        };
        let by = |manager: &str| {
            let entry = json!({"manager": manager, "operation": "Update", "fieldsV1": {"f:data": {"f:store": {}}}});
            json!({"metadata": {"name": "keys", "managedFields": [entry]}})
        };
        assert_eq!(
            refused(&by("HashiCorp")),
            "the Secret `keys` of claims/dev is kept by terraform (the field manager `HashiCorp` wrote its values), which would write \
             over it: change it there, or, if terraform no longer has it, take it over: `kubectl --namespace claims-dev annotate \
             secret keys towpath.dev/keeper=people`"
        );
        assert!(refused(&json!({"immutable": true})).contains("is immutable"));
        let going = json!({"metadata": {"name": "keys", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        assert!(refused(&going).contains("is being deleted"));
        assert_eq!(
            step_of(None, None).unwrap_err(),
            "the Secret `keys` of claims/dev has no `store`"
        );
        let live = json!({"metadata": {"name": "keys"}, "data": {"other": "eA=="}});
        assert!(step_of(Some(&live), None).unwrap_err().contains("has no `store`"));
    }

    #[test]
    fn no_refusal_repeats_the_value() {
        let change = change(Some(b"hunter2hunter2"));
        let said = "data.store: Invalid value: \"hunter2hunter2\" (aHVudGVyMmh1bnRlcjI=)";
        assert_eq!(
            without_value(said, &change),
            "data.store: Invalid value: \"****\" (****=)"
        );
    }

    #[test]
    fn a_view_has_no_value() {
        let live = json!({
            "type": "Opaque",
            "metadata": {"name": "keys", "annotations": {SET_BY: "ada"}, "managedFields": [
                {"manager": "kubectl-create", "operation": "Update", "time": "2026-01-01T00:00:00Z",
                 "fieldsV1": {"f:data": {"f:store": {}, "f:other": {}}}},
                {"manager": FIELD_MANAGER, "operation": "Update", "time": "2026-01-02T00:00:00Z",
                 "fieldsV1": {"f:data": {"f:store": {}}}},
            ]},
            "data": {"store": "aHVudGVyMg==", "other": ""},
        });
        let view = view(&live, &[]);
        let keys: Vec<_> = view
            .keys
            .iter()
            .map(|key| (key.key.as_str(), key.bytes, key.by.as_str()))
            .collect();
        assert_eq!(keys, [("store", 7, "ada"), ("other", 0, "kubectl-create")]);
        let shown = serde_json::to_string(&view).unwrap();
        assert!(!shown.contains("hunter2") && !shown.contains("aHVud"), "{shown}");
    }
}
