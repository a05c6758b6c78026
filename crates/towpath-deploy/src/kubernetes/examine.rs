//! What applying objects would do, found out by asking the server, and everything that stands in the way.

use super::{
    api::{Answer, Api, ApiError, Mode},
    apply::stays_by_kind,
    fields,
    foresee::{FORESEE_FROM, makes_itself, nobody_else_looks},
    kinds::{Kind, Kinds, Lookup},
    record::{Kept, State},
    rollout::rolls_out,
};
use crate::target::{Environment, Finding, PULL_SECRET, SecretSource, Severity};
use base64::Engine as _;
use futures::future::{join_all, try_join_all};
use regex::Regex;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::LazyLock,
};
use towpath_manifest::{
    Change, ChangeKind, Existing, Fingerprint, Object, ObjectId, SourceKind, backend_services, containers, diff,
    missing, missing_backend, missing_ports, pod_template_pointer, pull_secrets, reads,
};
use towpath_types::{Digest, ImageReference, Mask, SecretString};

/// From how many objects of a kind on they are listed and not asked for one by one.
const LIST_FROM: usize = 4;

/// One object and what applying it would make of it.
pub(super) struct Examined {
    pub object: Object,
    pub kind: Kind,
    /// What is there.
    pub live: Option<Value>,
    /// What would be there; `None` when it is known to be there already, or cannot be known yet.
    pub would_be: Option<Value>,
    /// Whether it is to be applied.
    pub applies: bool,
    /// Whether it is made of the vault's values and stands in no manifest.
    pub from_vault: bool,
}

/// Whether it is known what applying an object makes, before the server was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Nothing: it is as it was applied.
    AsApplied,
    /// Just what its manifest says.
    Surely,
    /// Just what its manifest says, unless somebody else has a say in it.
    Likely,
    /// It is not.
    No,
}

/// What was found out.
#[derive(Default)]
pub(super) struct Examination {
    pub objects: Vec<Examined>,
    pub findings: Vec<Finding>,
    /// Whether the server had its say on every object: not before there is a namespace.
    pub is_whole: bool,
}

impl Examination {
    pub(super) fn refused(&self) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(|finding| finding.severity == Severity::Refused)
    }

    /// The exact changes, those of `gone` among them.
    pub(super) fn changes(&self, gone: &[(ObjectId, Value)], fingerprint: Fingerprint<'_>) -> Vec<Change> {
        let (mut before, mut after, mut same) = (Vec::new(), Vec::new(), Vec::new());
        for one in &self.objects {
            if !one.applies {
                same.push(Change {
                    id: one.object.id(),
                    kind: ChangeKind::Unchanged,
                    place: one.object.place.clone(),
                    hunks: Vec::new(),
                });
                continue;
            }
            let with = |value: &Value| {
                let mut object = one.object.clone();
                object.value = plain(value);
                object
            };
            before.extend(one.live.as_ref().map(&with));
            after.push(with(one.would_be.as_ref().unwrap_or(&one.object.value)));
        }
        for (id, value) in gone {
            if let Ok(object) = Object::from_value(plain(value), "the cluster") {
                debug_assert_eq!(object.id(), *id);
                before.push(object);
            }
        }
        let mut changes = diff(&before, &after, fingerprint);
        changes.extend(same);
        changes
    }
}

/// An object without what tells which release wrote it: that alone is no change.
pub(super) fn plain(value: &Value) -> Value {
    let mut value = value.clone();
    let ours = |key: &str| key.starts_with("towpath.dev/") || key == CHANGE_CAUSE;
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["labels", "annotations"] {
            if let Some(map) = metadata.get_mut(field).and_then(Value::as_object_mut) {
                map.retain(|key, _| !ours(key));
                if map.is_empty() {
                    metadata.shift_remove(field);
                }
            }
        }
    }
    value
}

/// Source: <https://kubernetes.io/docs/reference/labels-annotations-taints/#change-cause>
pub(super) const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

/// What examining needs.
pub(super) struct Examiner<'a> {
    pub api: &'a Api,
    pub kinds: &'a Kinds,
    pub environment: &'a Environment,
    pub secrets: &'a dyn SecretSource,
    pub state: &'a State,
    /// What is to be removed.
    pub gone: &'a [ObjectId],
}

/// The digest of a manifest, or of what is owned.
pub(super) fn digest(value: &Value) -> String {
    Digest::of(value.to_string().as_bytes()).to_string()
}

impl Examiner<'_> {
    /// Everything about `objects`. An error means that the cluster could not be asked.
    pub(super) async fn examine(&self, objects: &[Object]) -> Result<Examination, ApiError> {
        let mut found = Examination::default();
        let brought = self.of_the_vault(objects).await?;
        let mut known = Vec::new();
        // All versions at once; each is then known.
        let versions: BTreeMap<&str, &str> = objects
            .iter()
            .map(|object| (object.api_version.as_str(), object.kind.as_str()))
            .collect();
        let asked = versions
            .iter()
            .map(|(version, kind)| self.kinds.find(self.api, version, kind));
        try_join_all(asked).await?;
        for (object, from_vault) in objects
            .iter()
            .map(|object| (object, false))
            .chain(brought.iter().map(|object| (object, true)))
        {
            match self.kinds.find(self.api, &object.api_version, &object.kind).await? {
                Lookup::Served(kind) => known.push((object, kind, from_vault)),
                Lookup::NoVersion => self.unknown(object, objects, None, &mut found),
                Lookup::NoKind { similar } => self.unknown(object, objects, similar, &mut found),
            }
        }
        let mut removed = Vec::new();
        for kept in self.state.objects.iter().filter(|kept| self.gone.contains(&kept.id)) {
            let lookup = self.kinds.find(self.api, &kept.api_version, &kept.id.kind).await?;
            if let Lookup::Served(kind) = lookup
                && stays_by_kind(&kind).is_none()
            {
                removed.push(kind);
            }
        }
        let (lacking, findings) = permissions(self.api, self.environment, &known, &removed).await?;
        found.findings.extend(findings);
        // Of what may not be looked at all that follows would only say so again.
        known.retain(|(_, kind, _)| !lacking.contains(kind));
        let mut live = self.live(&known).await?;
        let makes_namespace = |name: &str| {
            let made = |object: &&Object| object.kind == "Namespace" && object.name == name;
            objects.iter().any(|object| made(&object))
        };
        let kept: HashMap<&ObjectId, &Kept> = self.state.objects.iter().map(|kept| (&kept.id, kept)).collect();
        let looked = known.iter().map(|one @ (object, ..)| {
            let (id, there) = (object.id(), live.remove(&object.id()));
            let is_as_applied = |there: &Value| kept.get(&id).is_some_and(|kept| is_as_applied(kept, object, there));
            let known = match &there {
                Some(there) if is_as_applied(there) => Known::AsApplied,
                there if makes_itself(object, there.as_ref()) => Known::Likely,
                _ => Known::No,
            };
            (one, there, known)
        });
        let mut looked: Vec<_> = looked.collect();
        self.foresee(&mut looked).await?;
        let answers = looked
            .into_iter()
            .map(|((object, kind, from_vault), there, known)| async move {
                match known {
                    Known::AsApplied => return (object, kind, *from_vault, there, None),
                    Known::Surely => {
                        let answer = Answer {
                            value: object.value.clone(),
                            warnings: Vec::new(),
                        };
                        return (object, kind, *from_vault, there, Some(Ok(answer)));
                    }
                    Known::Likely | Known::No => {}
                }
                let answer = self
                    .api
                    .apply(kind, &self.environment.namespace, &object.value, Mode::DryRun)
                    .await;
                let answer = match (answer, &there) {
                    (Ok(mut answer), Some(live)) => {
                        let defaults = self.defaults(object, kind, live).await;
                        answer.value = fields::without_kubectls(live, &answer.value, defaults.as_ref());
                        Ok(answer)
                    }
                    (answer, _) => answer,
                };
                (object, kind, *from_vault, there, Some(answer))
            });
        let mut no_namespace = false;
        let mut homeless = Vec::new();
        found.is_whole = true;
        for (object, kind, from_vault, live, answer) in join_all(answers).await {
            if let Some(owner) = live.as_ref().and_then(|live| self.other_owner(live)) {
                found.findings.push(self.is_of(object, kind, &owner));
            }
            if let Some(live) = &live {
                found.findings.extend(being_deleted(object, live));
                found.findings.extend(scaled_by_other(object, live, objects));
            }
            let (would_be, applies) = match answer {
                None => (None, false),
                Some(Ok(answer)) => {
                    for warning in answer.warnings {
                        found.findings.push(note(object, "", &warning));
                    }
                    let applies = live.as_ref().is_none_or(|live| differs(live, &answer.value));
                    (Some(answer.value), applies)
                }
                Some(Err(error)) => {
                    if error.is_missing() && is_about_namespace(&error) {
                        found.is_whole = false;
                        if makes_namespace(&self.environment.namespace) {
                            homeless.push((object, kind));
                        } else if !no_namespace {
                            no_namespace = true;
                            found.findings.push(self.no_namespace(object));
                        }
                    } else if let ApiError::Answered {
                        code, message, causes, ..
                    } = &error
                        && matches!(code, 400 | 403 | 404 | 405 | 409 | 413 | 415 | 422 | 500)
                    {
                        found.findings.extend(refusals(object, message, causes));
                    } else {
                        return Err(error);
                    }
                    (None, true)
                }
            };
            found.objects.push(Examined {
                object: Object::clone(object),
                kind: kind.clone(),
                live,
                would_be,
                applies,
                from_vault,
            });
        }
        let asked = homeless.iter().map(|(object, kind)| self.look_elsewhere(object, kind));
        found.findings.extend(try_join_all(asked).await?.into_iter().flatten());
        if !no_namespace {
            let (reads, names, pods) = futures::future::try_join3(
                self.look_at_reads(objects, &brought, &found.objects),
                self.look_at_names(objects),
                self.try_pods(objects, &found.objects),
            )
            .await?;
            found.findings.extend(reads.into_iter().chain(names).chain(pods));
        }
        found
            .findings
            .sort_by(|one, other| (one.severity, &one.place).cmp(&(other.severity, &other.place)));
        found.findings.dedup();
        Ok(found)
    }

    /// Makes sure of what is likely, where there is so much of it that this is less work than asking. The first that is made
    /// and the first that is changed are asked about all the same: what stands in the way of all is said of them.
    async fn foresee<O>(&self, looked: &mut [(O, Option<Value>, Known)]) -> Result<(), ApiError> {
        let likely = || looked.iter().filter(|(_, _, known)| *known == Known::Likely);
        if likely().count() < FORESEE_FROM || !nobody_else_looks(self.api, self.kinds, self.environment).await? {
            return Ok(());
        }
        for is_there in [false, true] {
            let likely = looked
                .iter_mut()
                .filter(|(_, there, known)| *known == Known::Likely && there.is_some() == is_there);
            likely.skip(1).for_each(|(_, _, known)| *known = Known::Surely);
        }
        Ok(())
    }

    /// What the server fills in where a manifest says nothing, by asking it to make the object under another name; for an
    /// object that `kubectl apply` has written, whose defaults count as said by it. `None` when that is not to be known.
    async fn defaults(&self, object: &Object, kind: &Kind, live: &Value) -> Option<Value> {
        if !fields::entries(live).any(|entry| entry.is_kubectl_apply()) {
            return None;
        }
        let mut other = object.value.clone();
        let name: String = object.name.chars().take(48).collect();
        other["metadata"]["name"] = Value::from(format!("{}-new", name.trim_end_matches(['-', '.'])));
        let answer = self.api.apply(kind, &self.environment.namespace, &other, Mode::DryRun);
        answer.await.ok().map(|answer| answer.value)
    }

    /// What the server refuses of an object whose namespace comes with it and is not there yet: it is asked about the
    /// namespace that every cluster has. What is wrong with it only where it is to be is found out there.
    async fn look_elsewhere(&self, object: &Object, kind: &Kind) -> Result<Vec<Finding>, ApiError> {
        const ELSEWHERE: &str = "default";
        let mut other = object.value.clone();
        other["metadata"]["namespace"] = Value::from(ELSEWHERE);
        // Somebody's object of that name would be changed, which may be refused for reasons of its own.
        if !matches!(self.api.find(&kind.object(ELSEWHERE, &object.name)).await, Ok(None)) {
            return Ok(Vec::new());
        }
        match self.api.apply(kind, ELSEWHERE, &other, Mode::DryRun).await {
            Err(ApiError::Answered {
                code: 400 | 422 | 500,
                message,
                causes,
                ..
            }) => Ok(refusals(object, &message, &causes)),
            Err(error @ (ApiError::Unreachable { .. } | ApiError::TimedOut { .. })) => Err(error),
            _ => Ok(Vec::new()),
        }
    }

    /// Which other environment an object is of, by its labels.
    fn other_owner(&self, live: &Value) -> Option<String> {
        let label = |label: &str| live.pointer("/metadata/labels")?.get(label)?.as_str();
        let (project, environment) = (label("towpath.dev/project")?, label("towpath.dev/environment")?);
        let id = &self.environment.id;
        ((project, environment) != (id.project(), id.environment())).then(|| format!("{project}/{environment}"))
    }

    fn is_of(&self, object: &Object, kind: &Kind, owner: &str) -> Finding {
        let place = object.place_of("/metadata/name");
        if !kind.namespaced {
            // There is one in the whole cluster, whoever's manifests it is in.
            let message = format!("{owner} has it in its manifests, too: whoever deploys last decides how it is");
            return Finding {
                place,
                ..note(object, "", &message)
            };
        }
        let namespace = &self.environment.namespace;
        Finding {
            severity: Severity::Refused,
            object: object.id(),
            field: String::new(),
            place,
            message: format!(
                "in the namespace `{namespace}` it is {owner}'s, and {} would overwrite it: give each environment a namespace or names of its \
                 own. If it is one environment that got another name, let go of the old one: `kubectl --namespace {namespace} label {} {} \
                 towpath.dev/environment-`",
                self.environment.id, kind.plural, object.name
            ),
        }
    }

    /// The Secrets that `objects` read and the vault has.
    async fn of_the_vault(&self, objects: &[Object]) -> Result<Vec<Object>, ApiError> {
        let mut brought = Vec::new();
        for name in read_names(objects, SourceKind::Secret) {
            if objects
                .iter()
                .any(|object| object.kind == "Secret" && object.name == name)
            {
                continue;
            }
            let values = self.secrets.values(&self.environment.id, &name).await;
            let values = values.map_err(|error| ApiError::Malformed {
                server: "the vault".into(),
                why: error.to_string(),
            })?;
            let Some(values) = values else { continue };
            let encoding = base64::engine::general_purpose::STANDARD;
            let data: BTreeMap<String, String> = values
                .into_iter()
                .map(|(key, value)| (key, encoding.encode(value.expose())))
                .collect();
            let value = json!({
                "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                "metadata": {"name": name, "namespace": self.environment.namespace}, "data": data,
            });
            brought.extend(Object::from_value(value, "the vault").ok());
        }
        brought.extend(self.pull_secret(objects).await?);
        Ok(brought)
    }

    /// The Secret with which `objects` pull their images, where they name ours and no manifest brings it.
    ///
    /// Source: <https://kubernetes.io/docs/tasks/configure-pod-container/pull-image-private-registry/>
    async fn pull_secret(&self, objects: &[Object]) -> Result<Option<Object>, ApiError> {
        if objects
            .iter()
            .any(|object| object.kind == "Secret" && object.name == PULL_SECRET)
        {
            return Ok(None);
        }
        let pulling = objects
            .iter()
            .filter(|object| pull_secrets(object).iter().any(|name| name == PULL_SECRET));
        let registries: BTreeSet<String> = pulling
            .flat_map(containers)
            .filter_map(|container| container.image.parse::<ImageReference>().ok()?.registry)
            .collect();
        let encoding = base64::engine::general_purpose::STANDARD;
        let mut auths = serde_json::Map::new();
        for registry in registries {
            let credentials = self.secrets.pull_credentials(&self.environment.id, &registry).await;
            let credentials = credentials.map_err(|error| ApiError::Malformed {
                server: "the vault".into(),
                why: error.to_string(),
            })?;
            if let Some(credentials) = credentials {
                let pair = format!("{}:{}", credentials.username, credentials.password.expose());
                auths.insert(registry, json!({"auth": encoding.encode(pair)}));
            }
        }
        if auths.is_empty() {
            return Ok(None);
        }
        let config = json!({"auths": auths}).to_string();
        let value = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
            "metadata": {"name": PULL_SECRET, "namespace": self.environment.namespace},
            "data": {".dockerconfigjson": encoding.encode(config)},
        });
        Ok(Object::from_value(value, "the registry").ok())
    }

    /// Writes the Secrets that `objects` read and the vault has.
    pub(super) async fn bring_secrets(&self, objects: &[Object]) -> Result<(), ApiError> {
        let kind = Kind::known("v1", "Secret", "secrets");
        for secret in self.of_the_vault(objects).await? {
            let namespace = &self.environment.namespace;
            self.api.apply(&kind, namespace, &secret.value, Mode::Real).await?;
        }
        Ok(())
    }

    /// What is to be said of an object whose kind the server does not serve, and how it is applied if it will.
    fn unknown(&self, object: &Object, objects: &[Object], similar: Option<String>, found: &mut Examination) {
        let group = object.api_version.split_once('/').map_or("", |(group, _)| group);
        // A definition that comes with its objects is there before them.
        let defined = objects.iter().any(|other| {
            other.kind == "CustomResourceDefinition"
                && other.value.pointer("/spec/group").and_then(Value::as_str) == Some(group)
                && other.value.pointer("/spec/names/kind").and_then(Value::as_str) == Some(object.kind.as_str())
        });
        if defined {
            let message = "the server can check it only once its CustomResourceDefinition is there";
            found.findings.push(note(object, "", message));
            found.objects.push(Examined {
                object: object.clone(),
                kind: Kind::unserved(&object.api_version, &object.kind),
                live: None,
                would_be: None,
                applies: true,
                from_vault: false,
            });
            return;
        }
        let hint = match similar {
            Some(similar) => format!("; did you mean `{similar}`?"),
            None => ": install its CustomResourceDefinition, or take the version that this cluster serves".to_string(),
        };
        found.findings.push(Finding {
            severity: Severity::Refused,
            object: object.id(),
            field: "kind".into(),
            place: object.place_of("/kind"),
            message: format!(
                "the cluster of the kube context `{}` serves no `{}` in `{}`{hint}",
                self.api.kube_context(),
                object.kind,
                object.api_version
            ),
        });
    }

    fn no_namespace(&self, object: &Object) -> Finding {
        let namespace = &self.environment.namespace;
        Finding {
            severity: Severity::Refused,
            object: object.id(),
            field: "metadata.namespace".into(),
            place: object.place_of("/metadata/namespace"),
            message: format!(
                "the cluster of the kube context `{}` has no namespace `{namespace}`: make it, with `kubectl create namespace {namespace}` or \
                 as a manifest beside the others",
                self.api.kube_context()
            ),
        }
    }

    /// What there is of the objects.
    async fn live(&self, known: &[(&Object, Kind, bool)]) -> Result<HashMap<ObjectId, Value>, ApiError> {
        let mut by_kind: HashMap<&Kind, Vec<&Object>> = HashMap::new();
        for (object, kind, _) in known {
            by_kind.entry(kind).or_default().push(object);
        }
        let namespace = &self.environment.namespace;
        let looked = by_kind.into_iter().map(|(kind, objects)| async move {
            // Nobody's Secrets are read but those that are ours to write.
            if objects.len() >= LIST_FROM && kind.kind != "Secret" {
                match self.api.list(&kind.collection(namespace), None).await {
                    Ok((items, _)) => {
                        let mut by_name: HashMap<String, Value> = items
                            .into_iter()
                            .filter_map(|item| {
                                let name = item.pointer("/metadata/name")?.as_str()?.to_string();
                                Some((name, item))
                            })
                            .collect();
                        let of_ours = objects.iter().filter_map(|object| {
                            let mut value = by_name.remove(&object.name)?;
                            // The items of a list come without them.
                            value["apiVersion"] = Value::from(kind.api_version.as_str());
                            value["kind"] = Value::from(kind.kind.as_str());
                            Some((object.id(), value))
                        });
                        return Ok(of_ours.collect::<Vec<_>>());
                    }
                    Err(error) if error.is_forbidden() => {}
                    Err(error) => return Err(error),
                }
            }
            let found = objects.iter().map(|object| async move {
                let value = self.api.find(&kind.object(namespace, &object.name)).await?;
                Ok::<_, ApiError>(value.map(|value| (object.id(), value)))
            });
            Ok(try_join_all(found).await?.into_iter().flatten().collect())
        });
        Ok(try_join_all(looked).await?.into_iter().flatten().collect())
    }

    /// What pods read, and whether it is there: in the tree, in the vault, in the cluster.
    async fn look_at_reads(
        &self,
        objects: &[Object],
        brought: &[Object],
        examined: &[Examined],
    ) -> Result<Vec<Finding>, ApiError> {
        // What is there of the objects themselves was read already.
        let seen: HashMap<ObjectId, Option<&Value>> = examined
            .iter()
            .map(|one| (one.object.id(), one.live.as_ref()))
            .collect();
        let mut existing = Existing::default();
        let mut unseen = BTreeSet::new();
        for (kind, known) in [
            (SourceKind::ConfigMap, Kind::known("v1", "ConfigMap", "configmaps")),
            (SourceKind::Secret, Kind::known("v1", "Secret", "secrets")),
            (
                SourceKind::PersistentVolumeClaim,
                Kind::known("v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
            ),
        ] {
            let names = read_names(objects, kind);
            let looked = names.into_iter().map(|name| {
                let path = known.object(&self.environment.namespace, &name);
                let id = ObjectId {
                    group: known.group().to_string(),
                    kind: known.kind.clone(),
                    name: name.clone(),
                };
                let seen = seen.get(&id);
                async move {
                    match seen {
                        Some(live) => (name, Ok(live.cloned())),
                        None => (name, self.api.find(&path).await),
                    }
                }
            });
            for (name, there) in join_all(looked).await {
                let there = match there {
                    Ok(there) => there,
                    Err(error) if error.is_forbidden() => {
                        unseen.insert((kind, name));
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let Some(there) = there else { continue };
                let keys = ["data", "binaryData"]
                    .iter()
                    .filter_map(|field| there.get(field)?.as_object());
                let keys: BTreeSet<String> = keys.flat_map(|map| map.keys().cloned()).collect();
                match kind {
                    SourceKind::ConfigMap => drop(existing.config_maps.insert(name, keys)),
                    SourceKind::Secret => drop(existing.secrets.insert(name, keys)),
                    SourceKind::PersistentVolumeClaim => drop(existing.claims.insert(name)),
                }
            }
        }
        let existing = existing.with(brought);
        let mut findings = Vec::new();
        for finding in missing(objects, &existing) {
            let is_unseen = unseen.contains(&(finding.read.kind, finding.read.name.clone()));
            let is_claim = finding.read.kind == SourceKind::PersistentVolumeClaim;
            let maker = objects
                .iter()
                .find(|object| !is_claim && may_make(object, &finding.read.name));
            let severity = match is_unseen || maker.is_some() {
                true => Severity::Note,
                false => Severity::Refused,
            };
            let remedy = match (severity, finding.read.kind) {
                (Severity::Note, _) if !is_unseen && maker.is_some() => {
                    let kind = maker.map_or("", |maker| &*maker.kind);
                    format!("; {kind} of these manifests may make it, and pods wait until it has")
                }
                (Severity::Note, kind) => format!("; permission to get a {kind} here would tell for certain"),
                (_, SourceKind::Secret) => ". Make it before deploying: no manifest and no vault has it".to_string(),
                _ => String::new(),
            };
            let said = finding.to_string();
            let said = said.strip_suffix(&format!(": {}", finding.read.place)).unwrap_or(&said);
            findings.push(Finding {
                severity,
                object: finding.read.object.clone(),
                field: String::new(),
                place: finding.read.place.clone(),
                message: format!("{said}{remedy}"),
            });
        }
        Ok(findings)
    }

    /// Ports, service accounts and Services that are named: whether they are there, in the tree or in the cluster.
    async fn look_at_names(&self, objects: &[Object]) -> Result<Vec<Finding>, ApiError> {
        let mut findings = Vec::new();
        for missing in missing_ports(objects) {
            findings.push(Finding {
                severity: Severity::Refused,
                object: missing.object,
                field: missing.field,
                place: missing.place,
                message: missing.message,
            });
        }
        let namespace = &self.environment.namespace;
        let brought = |kind: &str, name: &str| objects.iter().any(|object| object.kind == kind && object.name == name);
        let mut accounts: BTreeMap<String, Vec<(&Object, String)>> = BTreeMap::new();
        for object in objects {
            let Some(template) = pod_template_pointer(&object.kind) else {
                continue;
            };
            let pointer = format!("{template}/spec/serviceAccountName");
            let name = object.value.pointer(&pointer).and_then(Value::as_str);
            if let Some(name) =
                name.filter(|name| !name.is_empty() && *name != "default" && !brought("ServiceAccount", name))
            {
                accounts.entry(name.to_string()).or_default().push((object, pointer));
            }
        }
        let mut pulled: BTreeMap<String, Vec<&Object>> = BTreeMap::new();
        for object in objects {
            for name in pull_secrets(object) {
                if name != PULL_SECRET && !brought("Secret", &name) {
                    pulled.entry(name).or_default().push(object);
                }
            }
        }
        let known = Kind::known("v1", "Secret", "secrets");
        let looked = pulled
            .keys()
            .map(|name| self.look_for(known.object(namespace, name), name));
        for (name, there) in join_all(looked).await {
            if !matches!(there, Ok(None)) {
                continue;
            }
            for object in pulled.get(&name).into_iter().flatten() {
                // Without it the node pulls with what it has itself, which may do.
                let message = format!(
                    "there is no Secret `{name}` to pull its images with, neither in the manifests nor in the namespace `{namespace}`"
                );
                findings.push(note(object, "", &message));
            }
        }
        let known = Kind::known("v1", "ServiceAccount", "serviceaccounts");
        let looked = accounts
            .keys()
            .map(|name| self.look_for(known.object(namespace, name), name));
        for (name, there) in join_all(looked).await {
            for (object, pointer) in accounts.get(&name).into_iter().flatten() {
                findings.extend(self.absent(object, pointer, "ServiceAccount", &name, &there)?);
            }
        }
        let backends: Vec<_> = objects
            .iter()
            .flat_map(|object| {
                backend_services(object)
                    .into_iter()
                    .map(move |backend| (object, backend))
            })
            .filter(|(_, backend)| !brought("Service", &backend.service))
            .collect();
        let known = Kind::known("v1", "Service", "services");
        let names: BTreeSet<&String> = backends.iter().map(|(_, backend)| &backend.service).collect();
        let looked = names
            .into_iter()
            .map(|name| self.look_for(known.object(namespace, name), name));
        for (name, there) in join_all(looked).await {
            for (object, backend) in backends.iter().filter(|(_, backend)| backend.service == name) {
                findings.extend(self.absent(object, &backend.pointer, "Service", &name, &there)?);
                if let Ok(Some(service)) = &there
                    && let Some(missing) = missing_backend(backend, service)
                {
                    findings.push(Finding {
                        severity: Severity::Refused,
                        object: missing.object,
                        field: missing.field,
                        place: missing.place,
                        message: missing.message,
                    });
                }
            }
        }
        Ok(findings)
    }

    async fn look_for(&self, path: String, name: &str) -> (String, Result<Option<Value>, ApiError>) {
        (name.to_string(), self.api.find(&path).await)
    }

    /// What is to be said of `there`, the answer to a look for what `object` names at `pointer`.
    fn absent(
        &self,
        object: &Object,
        pointer: &str,
        kind: &str,
        name: &str,
        there: &Result<Option<Value>, ApiError>,
    ) -> Result<Option<Finding>, ApiError> {
        let namespace = &self.environment.namespace;
        let (severity, message) = match there {
            Ok(Some(_)) => return Ok(None),
            Ok(None) => (
                Severity::Refused,
                format!("there is no {kind} `{name}`, neither in the manifests nor in the namespace `{namespace}`"),
            ),
            Err(error) if error.is_forbidden() => (
                Severity::Note,
                format!("whether there is a {kind} `{name}` is not known: permission to get a {kind} here would tell"),
            ),
            Err(error) => return Err(error.clone()),
        };
        Ok(Some(Finding {
            severity,
            object: object.id(),
            field: pointer.trim_start_matches('/').replace('/', "."),
            place: object.place_of(pointer),
            message,
        }))
    }

    /// Asks the server to make a pod of each workload that changes, without making it: quota, LimitRange, Pod Security,
    /// service account, and every admission webhook have their say before anything is applied. Of pods that admission
    /// cannot tell apart one is asked for.
    async fn try_pods(&self, objects: &[Object], examined: &[Examined]) -> Result<Vec<Finding>, ApiError> {
        let pods = Kind::known("v1", "Pod", "pods");
        let path = format!("{}?dryRun=All", pods.collection(&self.environment.namespace));
        let mut alike: HashMap<String, Tried<'_>> = HashMap::new();
        for one in examined.iter().filter(|one| one.applies) {
            let pointer = pod_template_pointer(&one.object.kind).filter(|pointer| !pointer.is_empty());
            let (Some(pointer), Some(would_be)) = (pointer, &one.would_be) else {
                continue;
            };
            let Some(pod) = one_pod(would_be, pointer, &one.object.name) else {
                continue;
            };
            let before = one
                .live
                .as_ref()
                .and_then(|live| one_pod(live, pointer, &one.object.name));
            // What runs already has been admitted.
            if before.as_ref() != Some(&pod) {
                let tried = alike.entry(admitted_as(&pod).to_string());
                let tried = tried.or_insert_with(|| Tried { pod, of: Vec::new() });
                tried.of.push((one, pointer));
            }
        }
        let asked = alike.into_values().map(|tried| {
            let path = &path;
            async move {
                let answer = self.api.create(path, &tried.pod).await;
                (tried, answer)
            }
        });
        let mut findings = Vec::new();
        for (tried, answer) in join_all(asked).await {
            let Err(error) = answer else { continue };
            let ApiError::Answered { code, message, .. } = &error else {
                return Err(error);
            };
            // An account that may not make pods itself: their controllers may.
            if *code == 403 && message.contains("cannot create resource \"pods\"") {
                continue;
            }
            // Claims and ConfigMaps that come with the pods are not there yet; what is wrong there was said.
            if *code == 404 {
                continue;
            }
            if let Some(brought) = comes_with(message, objects, examined) {
                let said = format!("its pods can be tried only once {brought} is there, which comes with them");
                findings.extend(tried.of.into_iter().map(|(one, _)| note(&one.object, "", &said)));
                continue;
            }
            let is_quota = message.contains("exceeded quota");
            let message = message
                .rsplit_once(" is forbidden: ")
                .map_or(message.as_str(), |(_, why)| why);
            findings.extend(tried.of.into_iter().map(|(one, pointer)| Finding {
                // With a quota that is used up a rollout that stops an old pod first still comes off.
                severity: if is_quota && one.live.is_some() {
                    Severity::Note
                } else {
                    Severity::Refused
                },
                object: one.object.id(),
                field: format!("{}.spec", pointer.trim_start_matches('/').replace('/', ".")),
                place: one.object.place_of(&format!("{pointer}/spec")),
                message: format!("its pods would not be admitted: {message}"),
            }));
        }
        Ok(findings)
    }
}

/// What a pod was refused for the lack of, when it is made with the pods' workloads.
fn comes_with(message: &str, objects: &[Object], examined: &[Examined]) -> Option<String> {
    let is_there = |object: &Object| {
        let found = examined.iter().find(|one| one.object.id() == object.id());
        found.is_some_and(|one| one.live.is_some())
    };
    let new = |kind: &str, name: Option<&str>| {
        let is_it = |object: &&Object| object.kind == kind && name.is_none_or(|name| object.name == name);
        let found = objects.iter().filter(is_it).find(|object| !is_there(object));
        found.map(|object| format!("{kind} `{}`", object.name))
    };
    // `error looking up service account ns/name: serviceaccount "name" not found`
    if let Some((_, rest)) = message.split_once("serviceaccount \"") {
        return new("ServiceAccount", rest.split('"').next());
    }
    // `no PriorityClass with name x was found`
    if let Some((_, rest)) = message.split_once("no PriorityClass with name ") {
        return new("PriorityClass", rest.split_whitespace().next());
    }
    // A LimitRange gives the values that a quota asks for.
    message
        .contains("must specify")
        .then(|| new("LimitRange", None))
        .flatten()
}

/// A pod that the server is asked for, and the workloads that it stands for, each with where its template is.
struct Tried<'a> {
    pod: Value,
    of: Vec<(&'a Examined, &'static str)>,
}

/// A pod without what admission does not look at: names, what its programs are called with, and what they read.
fn admitted_as(pod: &Value) -> Value {
    let mut pod = pod.clone();
    if let Some(metadata) = pod.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.shift_remove("generateName");
        for field in ["labels", "annotations"] {
            // Policies ask for a label rather than for what it says; ours and a workload's own name differ in each pod.
            let values = metadata.get_mut(field).and_then(Value::as_object_mut);
            values.into_iter().flatten().for_each(|(_, value)| *value = Value::Null);
        }
    }
    for list in ["containers", "initContainers"] {
        let containers = pod.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            for field in ["name", "args", "command", "env", "envFrom"] {
                container.shift_remove(field);
            }
        }
    }
    pod
}

/// A pod of a workload's template, as its controller would make it.
fn one_pod(workload: &Value, pointer: &str, name: &str) -> Option<Value> {
    let template = workload.pointer(pointer)?;
    let mut metadata = template.get("metadata").cloned().unwrap_or_else(|| json!({}));
    metadata["generateName"] = Value::from(format!("{name}-"));
    let mut spec = template.get("spec")?.clone();
    let claims = workload.pointer("/spec/volumeClaimTemplates").and_then(Value::as_array);
    for claim in claims.into_iter().flatten() {
        let Some(volume) = claim.pointer("/metadata/name").and_then(Value::as_str) else {
            continue;
        };
        // A template's volume of that name gives way to the claim.
        let mut volumes = spec
            .get("volumes")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        volumes.retain(|known| known.get("name").and_then(Value::as_str) != Some(volume));
        volumes.push(json!({"name": volume, "persistentVolumeClaim": {"claimName": format!("{volume}-{name}-0")}}));
        spec["volumes"] = Value::Array(volumes);
    }
    Some(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))
}

/// Whether applying changes anything that counts: a field, or that the object becomes ours.
fn differs(live: &Value, would_be: &Value) -> bool {
    let hide = |_: &[u8]| String::new();
    if fields::ours(live).is_none() || fields::taken_over(live).is_some() {
        return true;
    }
    let is_secret = live.get("kind").and_then(Value::as_str) == Some("Secret");
    if is_secret && live.get("data") != would_be.get("data") {
        return true;
    }
    towpath_manifest::normalise(&plain(live), &hide) != towpath_manifest::normalise(&plain(would_be), &hide)
}

pub(super) fn read_names(objects: &[Object], kind: SourceKind) -> BTreeSet<String> {
    let read = objects.iter().flat_map(reads).filter(|read| read.kind == kind);
    read.map(|read| read.name).collect()
}

/// What is to be said of an object that somebody has deleted and that is still there: what is applied to it goes with it.
fn being_deleted(object: &Object, live: &Value) -> Option<Finding> {
    let since = live.pointer("/metadata/deletionTimestamp")?.as_str()?;
    let finalizers = live.pointer("/metadata/finalizers").and_then(Value::as_array);
    let finalizers: Vec<&str> = finalizers.into_iter().flatten().filter_map(Value::as_str).collect();
    let waits = match finalizers[..] {
        [] => "what it owns".to_string(),
        _ => format!("its finalizers ({})", finalizers.join(", ")),
    };
    Some(Finding {
        severity: Severity::Refused,
        object: object.id(),
        field: "metadata.name".into(),
        place: object.place_of("/metadata/name"),
        message: format!(
            "it is being deleted since {since} and waits for {waits}; what was applied now would go with it. Deploy again when it is gone"
        ),
    })
}

/// What is to be said of a workload whose number of replicas something else decides, too.
///
/// Source: <https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#migrating-deployments-and-statefulsets-to-horizontal-autoscaling>
fn scaled_by_other(object: &Object, live: &Value, objects: &[Object]) -> Option<Finding> {
    let wanted = object.value.pointer("/spec/replicas")?;
    let runs = live.pointer("/spec/replicas")?;
    let text = |object: &Object, pointer: &str| {
        object
            .value
            .pointer(pointer)
            .and_then(Value::as_str)
            .map(str::to_string)
    };
    let scaler = objects.iter().find(|other| {
        other.kind == "HorizontalPodAutoscaler"
            && text(other, "/spec/scaleTargetRef/kind").as_deref() == Some(&*object.kind)
            && text(other, "/spec/scaleTargetRef/name").as_deref() == Some(&*object.name)
    });
    let by = match scaler {
        Some(scaler) => format!("HorizontalPodAutoscaler `{}` decides", scaler.name),
        None if wanted != runs && is_autoscaled(live) => "a HorizontalPodAutoscaler decides".to_string(),
        None => return None,
    };
    let now = match wanted == runs {
        true => String::new(),
        false => format!(" ({runs} run now)"),
    };
    let message =
        format!("{by} how many run{now}, and this deployment sets {wanted}: leave `replicas` out of the manifest");
    Some(Finding {
        place: object.place_of("/spec/replicas"),
        field: "spec.replicas".into(),
        ..note(object, "", &message)
    })
}

/// Whether a HorizontalPodAutoscaler said last how many replicas there are.
fn is_autoscaled(live: &Value) -> bool {
    fields::entries(live).any(|entry| {
        entry.manager == "kube-controller-manager"
            && entry.subresource == "scale"
            && entry.fields.pointer("/f:spec/f:replicas").is_some()
    })
}

fn note(object: &Object, field: &str, message: &str) -> Finding {
    Finding {
        severity: Severity::Note,
        object: object.id(),
        field: field.to_string(),
        place: object.place.clone(),
        message: message.to_string(),
    }
}

/// Whether an object of a kind that is not Kubernetes' own may make a Secret or a ConfigMap called `name`: an ExternalSecret, a
/// SealedSecret, a Certificate.
fn may_make(object: &Object, name: &str) -> bool {
    let group = object.api_version.split_once('/').map_or("", |(group, _)| group);
    let is_own = !group.contains('.') || group.ends_with(".k8s.io");
    let says = |pointer: &str| object.value.pointer(pointer).and_then(Value::as_str) == Some(name);
    // What makes one without saying how it is called gives it its own name, and is called after what it makes.
    let is_called_so = object.name == name && object.kind.contains("Secret");
    let targets = ["/spec/target/name", "/spec/secretName"];
    !is_own && (is_called_so || targets.into_iter().any(says))
}

fn is_about_namespace(error: &ApiError) -> bool {
    error.to_string().starts_with("namespaces ")
}

/// The ways in which servers name a field in a sentence.
static FIELDS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    [
        r#"\.([^\s:,]+): field not declared in schema"#,
        r#"unknown field "([^"]+)""#,
        r#"duplicate field "([^"]+)""#,
        r#"\.([A-Za-z][^\s:]*): (?:expected|invalid|duplicate|field|element)"#,
    ]
    .iter()
    .filter_map(|pattern| Regex::new(pattern).ok())
    .collect()
});

/// What a server refused, field by field.
fn refusals(object: &Object, message: &str, causes: &[(String, String)]) -> Vec<Finding> {
    let finding = |field: &str, said: &str| Finding {
        severity: Severity::Refused,
        object: object.id(),
        field: field.to_string(),
        place: object.place_of(&pointer_of(&object.value, field)),
        message: format!("the server refuses it: {}", redacted(object, field, said)),
    };
    if !causes.is_empty() {
        return causes.iter().map(|(field, said)| finding(field, said)).collect();
    }
    let mut found: Vec<Finding> = Vec::new();
    for pattern in FIELDS.iter() {
        for captures in pattern.captures_iter(message) {
            let Some(field) = captures.get(1) else { continue };
            let field = field.as_str();
            let said = match pattern.as_str().starts_with("unknown") || message.contains("not declared") {
                true => format!("there is no field `{field}`{}", near(object, field)),
                false => message.to_string(),
            };
            if found.iter().all(|known| known.field != field) {
                found.push(finding(field, &said));
            }
        }
        if !found.is_empty() {
            return found;
        }
    }
    vec![finding("", message)]
}

/// What a server says of an object, without what it quotes of a Secret's values.
pub(super) fn redacted(object: &Object, field: &str, said: &str) -> String {
    if object.kind != "Secret" {
        return said.to_string();
    }
    // What is not there has no value that could be shown.
    if said.trim_end() == "Required value" || said.trim_end().ends_with(": Required value") {
        return said.to_string();
    }
    // It quotes a value in a form of its own, in which no mask would find it.
    let is_of_values = |text: &str| {
        let text = text.trim_start_matches('.');
        text.starts_with("data") || text.starts_with("stringData") || text.starts_with("StringData")
    };
    if is_of_values(field) || said.split_whitespace().any(is_of_values) {
        return "`stringData` takes texts (put numbers and booleans in quotes) and `data` takes base64. What else the server says of \
                it is not shown, for it shows values"
            .to_string();
    }
    let mut values = Vec::new();
    for field in ["data", "stringData"] {
        scalars(object.value.get(field).unwrap_or(&Value::Null), &mut values);
    }
    Mask::new(&values).text(said)
}

/// Every scalar in a value, as text, and what it is in base64.
fn scalars(value: &Value, found: &mut Vec<SecretString>) {
    match value {
        Value::Null => {}
        Value::String(text) => {
            let decoded = base64::engine::general_purpose::STANDARD.decode(text).ok();
            let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
            found.extend(decoded.map(SecretString::new));
            found.push(SecretString::new(text.clone()));
        }
        Value::Bool(_) | Value::Number(_) => found.push(SecretString::new(value.to_string())),
        Value::Array(items) => items.iter().for_each(|item| scalars(item, found)),
        Value::Object(map) => map.values().for_each(|item| scalars(item, found)),
    }
}

/// For a field that is written in the wrong case, or beside its place.
fn near(object: &Object, field: &str) -> String {
    let name = field.rsplit('.').next().unwrap_or(field);
    let mut first = name.chars();
    let lower: String = first
        .next()
        .into_iter()
        .flat_map(char::to_lowercase)
        .chain(first)
        .collect();
    if lower != name {
        return format!(
            ": names begin with a small letter (`{lower}`), and each has its place in `{}`",
            object.kind
        );
    }
    ": look for a slip of the pen, or for an indentation that puts it in the wrong place".to_string()
}

/// The JSON pointer of `spec.template.spec.containers[0].image` or `spec.containers[name="app"].image`.
fn pointer_of(object: &Value, field: &str) -> String {
    let (mut pointer, mut at) = (String::new(), Some(object));
    for part in field.trim_start_matches('.').split('.') {
        let (name, indexes) = part.split_once('[').map_or((part, ""), |(name, rest)| (name, rest));
        if !name.is_empty() {
            pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
            at = at.and_then(|value| value.get(name));
        }
        for index in indexes
            .split('[')
            .map(|text| text.trim_end_matches(']'))
            .filter(|text| !text.is_empty())
        {
            let number = index.parse::<usize>().ok().or_else(|| {
                let (key, value) = index.split_once('=')?;
                let items = at?.as_array()?;
                items
                    .iter()
                    .position(|item| item.get(key).and_then(Value::as_str) == Some(value.trim_matches('"')))
            });
            let Some(number) = number else { return pointer };
            pointer = format!("{pointer}/{number}");
            at = at.and_then(|value| value.get(number));
        }
    }
    pointer
}

/// Which of the permissions are missing that applying `known` and removing something of the kinds `removed` needs; and the
/// kinds whose objects cannot be examined for that.
async fn permissions(
    api: &Api,
    environment: &Environment,
    known: &[(&Object, Kind, bool)],
    removed: &[Kind],
) -> Result<(Vec<Kind>, Vec<Finding>), ApiError> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": environment.namespace},
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let rules = match api.create(path, &review).await {
        Ok(answer) => answer.pointer("/status/resourceRules").cloned().unwrap_or_default(),
        // Some clusters do not let everybody ask; then the questions below are asked one by one.
        Err(error) if error.is_forbidden() || error.is_missing() => Value::Null,
        Err(error) => return Err(error),
    };
    let mut needed: BTreeMap<(&str, &str, &str, bool), &Object> = BTreeMap::new();
    for (object, kind, _) in known {
        // A rollout is watched, or looked at again and again.
        let lists = rolls_out(&kind.kind).then_some("list");
        for verb in ["get", "create", "patch"].into_iter().chain(lists) {
            needed
                .entry((verb, kind.group(), &kind.plural, kind.namespaced))
                .or_insert(object);
        }
    }
    let first = known.first().map(|(object, _, _)| *object);
    if let Some(object) = first {
        for verb in ["get", "list", "create", "patch"] {
            needed.entry((verb, "", "secrets", true)).or_insert(object);
        }
        for kind in removed {
            let delete = ("delete", kind.group(), kind.plural.as_str(), kind.namespaced);
            needed.entry(delete).or_insert(object);
        }
    }
    // The rules are those of the namespace: what is allowed everywhere in it is not allowed outside of it.
    let in_doubt = needed
        .into_iter()
        .filter(|((verb, group, plural, namespaced), _)| !namespaced || !allows(&rules, verb, group, plural));
    let asked = in_doubt.map(|((verb, group, plural, namespaced), object)| async move {
        let namespace = if namespaced { environment.namespace.as_str() } else { "" };
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"namespace": namespace, "verb": verb, "group": group, "resource": plural}},
        });
        let answer = api
            .create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review)
            .await?;
        let allowed = answer.pointer("/status/allowed").and_then(Value::as_bool) == Some(true);
        Ok::<_, ApiError>((!allowed).then_some((verb, group, plural, namespaced, object)))
    });
    let mut lacking: BTreeMap<(&str, &str, bool), (Vec<&str>, &Object)> = BTreeMap::new();
    for (verb, group, plural, namespaced, object) in try_join_all(asked).await?.into_iter().flatten() {
        lacking
            .entry((group, plural, namespaced))
            .or_insert_with(|| (Vec::new(), object))
            .0
            .push(verb);
    }
    let unseen = known.iter().map(|(_, kind, _)| kind).filter(|kind| {
        let verbs = lacking.get(&(kind.group(), kind.plural.as_str(), kind.namespaced));
        verbs.is_some_and(|(verbs, _)| ["get", "create", "patch"].iter().any(|verb| verbs.contains(verb)))
    });
    let unseen = unseen.cloned().collect();
    let finding = |((group, plural, namespaced), (verbs, object)): ((&str, &str, bool), (Vec<&str>, &Object))| {
        let of_group = if group.is_empty() {
            String::new()
        } else {
            format!(".{group}")
        };
        Finding {
            severity: Severity::Refused,
            object: object.id(),
            field: String::new(),
            place: object.place.clone(),
            message: format!(
                "the account of the kube context `{}` may not {} {plural}{of_group} {}",
                api.kube_context(),
                verbs.join(", "),
                match namespaced {
                    true => format!(
                        "in the namespace `{}`: bind it a Role that allows that",
                        environment.namespace
                    ),
                    false => "in the cluster, of which there is one for all namespaces: bind it a ClusterRole that allows that, or \
                              let somebody who may apply the manifest and leave it out here"
                        .to_string(),
                }
            ),
        }
    };
    Ok((unseen, lacking.into_iter().map(finding).collect()))
}

/// Whether the rules of an account allow something for every name.
fn allows(rules: &Value, verb: &str, group: &str, resource: &str) -> bool {
    let has = |rule: &Value, field: &str, wanted: &str| {
        let list = rule.get(field).and_then(Value::as_array);
        list.into_iter().flatten().any(|one| one == wanted || one == "*")
    };
    rules.as_array().into_iter().flatten().any(|rule| {
        let for_all = rule
            .get("resourceNames")
            .and_then(Value::as_array)
            .is_none_or(Vec::is_empty);
        for_all && has(rule, "verbs", verb) && has(rule, "apiGroups", group) && has(rule, "resources", resource)
    })
}

/// Whether an object is just as this environment's last deployment left it, and nobody has taken a field over since.
fn is_as_applied(kept: &Kept, object: &Object, live: &Value) -> bool {
    kept.api_version == object.api_version
        && Some(kept.uid.as_str()) == live.pointer("/metadata/uid").and_then(Value::as_str)
        && kept.manifest == digest(&object.value)
        && fields::ours(live).is_some_and(|ours| digest(ours) == kept.owned)
        && !fields::entries(live).any(|entry| entry.is_kubectl_apply())
}

/// What an object that was just applied is to be known by.
pub(super) fn kept(object: &Object, applied: &Value, made: bool) -> Kept {
    Kept {
        id: object.id(),
        api_version: object.api_version.clone(),
        uid: applied
            .pointer("/metadata/uid")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_string(),
        manifest: digest(&object.value),
        owned: fields::ours(applied).map(digest).unwrap_or_default(),
        made,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn fields_in_sentences_have_places() {
        let object =
            json!({"spec": {"template": {"spec": {"containers": [{"name": "a"}, {"name": "b", "image": 1}]}}}});
        for (field, pointer) in [
            ("spec.template.spec.BackoffLimit", "/spec/template/spec/BackoffLimit"),
            (
                ".spec.template.spec.containers[name=\"b\"].image",
                "/spec/template/spec/containers/1/image",
            ),
            (
                "spec.template.spec.containers[0].name",
                "/spec/template/spec/containers/0/name",
            ),
            (
                "spec.template.spec.containers[name=\"c\"].image",
                "/spec/template/spec/containers",
            ),
            ("", ""),
        ] {
            assert_eq!(pointer_of(&object, field), pointer, "{field}");
        }
    }

    #[test]
    fn rules_that_name_objects_allow_nothing_for_all() {
        let rules = json!([
            {"verbs": ["get", "patch"], "apiGroups": ["apps"], "resources": ["deployments"]},
            {"verbs": ["*"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["one"]},
            {"verbs": ["*"], "apiGroups": [""], "resources": ["*"]},
        ]);
        assert!(allows(&rules, "patch", "apps", "deployments"));
        assert!(!allows(&rules, "create", "apps", "deployments"));
        assert!(allows(&rules, "create", "", "secrets"));
        assert!(!allows(&Value::Null, "get", "", "secrets"));
    }
}
