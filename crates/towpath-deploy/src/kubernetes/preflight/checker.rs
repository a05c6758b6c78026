//! The check of all objects of a deployment.

use super::{
    admission,
    finding::{note, refused_at},
    ownership, permissions, prediction,
    references::References,
    refusal,
    report::{CheckedObject, Report},
    scaling::{Scalers, with_live_replicas},
};
use crate::kubernetes::{
    defaults::as_new, error::ClusterError, inventory::InventoryEntry, labels::without_marks, prune::why_kind_stays,
    record::State, secrets,
};
use crate::target::{Environment, Finding, PullCredentials};
use futures::future::{join_all, try_join, try_join_all};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use towpath_kube::{Answer, ApiError, Client, Discovery, Lookup, Mode, Resource, Select, managed_fields, text_at};
use towpath_manifest::{Object, ObjectId};

/// From this number of objects of a kind, list them instead of getting each one.
const LIST_FROM: usize = 4;

/// A namespace that every cluster has.
const DEFAULT_NAMESPACE: &str = "default";

/// What is known about the result of applying an object before the server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prediction {
    /// The object is as it was applied: nothing would change.
    Unchanged,
    /// The object would become its manifest.
    Certain,
    /// The object would become its manifest, unless an admission controller or a quota interferes.
    Likely,
    /// Ask the server.
    Unknown,
}

/// An object with the resource that the cluster serves it as, and whether Towpath brings it: the Secret that pods pull images
/// with.
type Served<'a> = (&'a Object, Resource, bool);

/// Checks what applying objects to an environment would do.
pub(in crate::kubernetes) struct Checker<'a> {
    pub client: &'a Client,
    pub discovery: &'a Discovery,
    pub environment: &'a Environment,
    pub credentials: &'a dyn PullCredentials,
    pub state: &'a State,
    /// The objects that the deployment prunes.
    pub prune: &'a [ObjectId],
}

impl Checker<'_> {
    /// Everything about `objects`.
    ///
    /// # Errors
    /// If the cluster, or who knows the credentials for a registry, gives no answer. Everything else is a finding.
    pub(in crate::kubernetes) async fn check(&self, objects: &[Object]) -> Result<Report, ClusterError> {
        let mut report = Report {
            is_complete: true,
            ..Report::default()
        };
        let brought = secrets::pull_secret(self.environment, objects, self.credentials).await?;
        let mut served = self.find_resources(objects, brought.as_slice(), &mut report).await?;
        let pruned = self.pruned_resources().await?;
        let permissions = permissions::check(self.client, self.environment, &served, &pruned).await?;
        report.findings.extend(permissions.findings);
        // Skip objects that we may not access: every later check would repeat the same finding.
        served.retain(|(_, resource, _)| !permissions.inaccessible.contains(resource));
        let live = self.find_live(&served).await?;
        let has_namespace = self.dry_run(objects, &served, live, &mut report).await?;
        if has_namespace {
            let references = References {
                client: self.client,
                environment: self.environment,
                objects,
                checked: &report.objects,
            };
            let references = async { Ok(references.check().await?) };
            let pods = admission::check(self.client, self.environment, objects, &report.objects);
            let (references, pods) = try_join(references, pods).await?;
            report.findings.extend(references.into_iter().chain(pods));
        }
        report
            .findings
            .sort_by(|one, other| (one.severity, &one.place).cmp(&(other.severity, &other.place)));
        report.findings.dedup();
        Ok(report)
    }

    /// Finds out how the cluster serves each object. Reports objects that it does not serve.
    async fn find_resources<'o>(
        &self,
        objects: &'o [Object],
        brought: &'o [Object],
        report: &mut Report,
    ) -> Result<Vec<Served<'o>>, ApiError> {
        // Ask for all versions at once. The loop below then finds them in memory.
        let versions: BTreeMap<&str, &str> = objects
            .iter()
            .map(|object| (object.api_version.as_str(), object.kind.as_str()))
            .collect();
        let asked = versions
            .iter()
            .map(|(version, kind)| self.discovery.find(self.client, version, kind));
        try_join_all(asked).await?;
        let mut served = Vec::new();
        let all = objects.iter().map(|object| (object, false));
        for (object, brought) in all.chain(brought.iter().map(|object| (object, true))) {
            let lookup = self
                .discovery
                .find(self.client, &object.api_version, &object.kind)
                .await?;
            match lookup {
                Lookup::Served(resource) => served.push((object, resource, brought)),
                Lookup::NoVersion => self.report_unserved(object, objects, None, report),
                Lookup::NoKind { similar } => self.report_unserved(object, objects, similar, report),
            }
        }
        Ok(served)
    }

    /// The resources of the objects that the deployment prunes.
    async fn pruned_resources(&self) -> Result<Vec<Resource>, ApiError> {
        let mut pruned = Vec::new();
        for entry in self.state.objects.iter().filter(|entry| self.prune.contains(&entry.id)) {
            let lookup = self
                .discovery
                .find(self.client, &entry.api_version, &entry.id.kind)
                .await?;
            if let Lookup::Served(resource) = lookup
                && why_kind_stays(&resource).is_none()
            {
                pruned.push(resource);
            }
        }
        Ok(pruned)
    }

    /// The objects as they are in the cluster now.
    async fn find_live(&self, served: &[Served<'_>]) -> Result<HashMap<ObjectId, Value>, ApiError> {
        let mut by_resource: HashMap<&Resource, Vec<&Object>> = HashMap::new();
        for (object, resource, _) in served {
            by_resource.entry(resource).or_default().push(object);
        }
        let found = by_resource.into_iter().map(|(resource, objects)| async move {
            // Never list Secrets: read only those that the deployment writes.
            if objects.len() >= LIST_FROM && resource.kind != "Secret" {
                match self.list_live(resource, &objects).await {
                    Err(error) if error.is_forbidden() => {}
                    listed => return listed,
                }
            }
            let found = objects.iter().map(|object| async move {
                let path = resource.object(&self.environment.namespace, &object.name);
                let live = self.client.find(&path).await?;
                Ok::<_, ApiError>(live.map(|live| (object.id(), live)))
            });
            Ok(try_join_all(found).await?.into_iter().flatten().collect())
        });
        Ok(try_join_all(found).await?.into_iter().flatten().collect())
    }

    async fn list_live(&self, resource: &Resource, objects: &[&Object]) -> Result<Vec<(ObjectId, Value)>, ApiError> {
        let collection = resource.collection(&self.environment.namespace);
        let (items, _) = self.client.list(&collection, &Select::All).await?;
        let mut by_name: HashMap<String, Value> = items
            .into_iter()
            .map(|item| (text_at(&item, "/metadata/name"), item))
            .collect();
        let wanted = objects.iter().filter_map(|object| {
            let mut live = by_name.remove(&object.name)?;
            // The items of a list come without these fields.
            live["apiVersion"] = Value::from(resource.api_version.as_str());
            live["kind"] = Value::from(resource.kind.as_str());
            Some((object.id(), live))
        });
        Ok(wanted.collect())
    }

    /// Predicts the result of applying each object, or asks the server for a dry run. Returns whether the namespace exists or
    /// comes with the objects.
    async fn dry_run(
        &self,
        objects: &[Object],
        served: &[Served<'_>],
        mut live: HashMap<ObjectId, Value>,
        report: &mut Report,
    ) -> Result<bool, ClusterError> {
        let inventory: HashMap<&ObjectId, &InventoryEntry> =
            self.state.objects.iter().map(|entry| (&entry.id, entry)).collect();
        let existing = served.iter().map(|(object, ..)| (*object, live.get(&object.id())));
        let scalers = Scalers::find(self.client, self.environment, objects, self.prune, existing).await?;
        let predicted = served.iter().map(|one @ (object, ..)| {
            let id = object.id();
            let live = live.remove(&id);
            let is_unchanged = |live: &Value| {
                inventory
                    .get(&id)
                    .is_some_and(|entry| entry.is_as_applied(object, live))
            };
            let prediction = match &live {
                Some(live) if is_unchanged(live) => Prediction::Unchanged,
                live if prediction::becomes_its_manifest(object, live.as_ref()) => Prediction::Likely,
                _ => Prediction::Unknown,
            };
            (one, live, prediction)
        });
        let mut predicted: Vec<_> = predicted.collect();
        self.confirm(&mut predicted).await?;
        let answers = predicted
            .into_iter()
            .map(|((object, resource, brought), live, prediction)| {
                let hands_over = live.as_ref().is_some_and(|live| scalers.take_over(object, live));
                (object, resource, brought, live, prediction, hands_over)
            })
            .map(|(object, resource, brought, live, prediction, hands_over)| async move {
                let answer = match prediction {
                    Prediction::Unchanged => None,
                    Prediction::Certain => Some(Ok(Answer {
                        value: object.value.clone(),
                        warnings: Vec::new(),
                    })),
                    Prediction::Likely | Prediction::Unknown => {
                        Some(self.dry_run_one(object, resource, live.as_ref(), hands_over).await)
                    }
                };
                (*object, resource, *brought, live, answer, hands_over)
            });
        let brings_namespace = objects
            .iter()
            .any(|object| object.kind == "Namespace" && object.name == self.environment.namespace);
        let mut has_namespace = true;
        let mut without_namespace = Vec::new();
        let answers = join_all(answers).await;
        let changed: Vec<&Object> = answers
            .iter()
            .filter(|(object, _, _, live, answer, _)| {
                let changes = |live: &Value| would_change(live, answer.as_ref());
                object.kind == "CustomResourceDefinition" && live.as_ref().is_none_or(changes)
            })
            .map(|(object, ..)| *object)
            .collect();
        for (object, resource, brought, live, answer, hands_over) in answers {
            let mut waits_for_definition = false;
            if let Some(live) = &live {
                let mut findings = ownership::check(self.environment, object, resource, live);
                if !brought {
                    findings.extend(ownership::kept_by_others(object, live));
                }
                report
                    .findings
                    .extend(findings.into_iter().chain(scalers.check(object, live)));
            }
            let (would_be, applies) = match answer {
                None => (None, false),
                Some(Ok(answer)) => {
                    let warnings = answer.warnings.iter();
                    report.findings.extend(warnings.map(|warning| note(object, warning)));
                    let applies = live.as_ref().is_none_or(|live| differs(live, &answer.value));
                    (Some(answer.value), applies)
                }
                Some(Err(error)) if refusal::is_about_namespace(&error) => {
                    report.is_complete = false;
                    if brings_namespace {
                        without_namespace.push((object, resource));
                    } else if has_namespace {
                        has_namespace = false;
                        report.findings.push(self.no_namespace(object));
                    }
                    (None, true)
                }
                Some(Err(ApiError::Answered {
                    code: 400 | 403 | 404 | 405 | 409 | 413 | 415 | 422 | 500,
                    message,
                    causes,
                    ..
                })) => {
                    // The definition in the cluster may be about to change.
                    if changed.iter().any(|definition| defines(definition, object)) {
                        waits_for_definition = true;
                        let message =
                            "the server can check it only when its changed CustomResourceDefinition is applied";
                        report.findings.push(note(object, message));
                    } else {
                        report.findings.extend(refusal::findings(object, &message, &causes));
                    }
                    (None, true)
                }
                Some(Err(error)) => return Err(error.into()),
            };
            report.objects.push(CheckedObject {
                object: object.clone(),
                resource: resource.clone(),
                live,
                would_be,
                waits_for_definition,
                hands_over_replicas: hands_over,
                applies,
                brought,
            });
        }
        let asked = without_namespace
            .iter()
            .filter(|(object, _)| !changed.iter().any(|definition| defines(definition, object)))
            .map(|(object, resource)| self.dry_run_in_default_namespace(object, resource));
        let findings = try_join_all(asked).await?;
        report.findings.extend(findings.into_iter().flatten());
        Ok(has_namespace)
    }

    /// Turns likely predictions into certain ones, if there are so many that this takes less time than their dry runs. Keeps a
    /// dry run for the first object that is created and the first that is changed, which then report what is wrong with all.
    async fn confirm<O>(&self, predicted: &mut [(O, Option<Value>, Prediction)]) -> Result<(), ApiError> {
        let likely = predicted
            .iter()
            .filter(|(_, _, prediction)| *prediction == Prediction::Likely);
        if likely.count() < prediction::WORTHWHILE
            || !prediction::is_reliable(self.client, self.discovery, self.environment).await?
        {
            return Ok(());
        }
        for exists in [false, true] {
            let likely = predicted
                .iter_mut()
                .filter(|(_, live, prediction)| *prediction == Prediction::Likely && live.is_some() == exists);
            likely
                .skip(1)
                .for_each(|(_, _, prediction)| *prediction = Prediction::Certain);
        }
        Ok(())
    }

    async fn dry_run_one(
        &self,
        object: &Object,
        resource: &Resource,
        live: Option<&Value>,
        hands_over_replicas: bool,
    ) -> Result<Answer, ApiError> {
        let namespace = &self.environment.namespace;
        let manifest = match live {
            Some(live) if hands_over_replicas => &with_live_replicas(object, live),
            _ => &object.value,
        };
        let mut answer = self.client.apply(resource, namespace, manifest, Mode::DryRun).await?;
        if let Some(live) = live {
            let defaults = self.defaults(object, resource, live).await;
            answer.value = managed_fields::without_abandoned_fields(live, &answer.value, defaults.as_ref());
        }
        Ok(answer)
    }

    /// The defaults that the server fills in, for an object that `kubectl apply` or Helm has written: there, defaults may count
    /// as fields of theirs. `None` if they cannot be found.
    async fn defaults(&self, object: &Object, resource: &Resource, live: &Value) -> Option<Value> {
        if !managed_fields::is_to_be_taken_over(live) {
            return None;
        }
        as_new(self.client, &self.environment.namespace, resource, object).await
    }

    /// Checks an object whose namespace comes with it and does not exist yet: tries it in a namespace that every cluster has.
    /// Problems that exist only in its own namespace are found by the deployment.
    async fn dry_run_in_default_namespace(
        &self,
        object: &Object,
        resource: &Resource,
    ) -> Result<Vec<Finding>, ApiError> {
        let mut other = object.value.clone();
        other["metadata"]["namespace"] = Value::from(DEFAULT_NAMESPACE);
        // Somebody else's object with this name would be changed, which may be refused for its own reasons.
        let path = resource.object(DEFAULT_NAMESPACE, &object.name);
        if !matches!(self.client.find(&path).await, Ok(None)) {
            return Ok(Vec::new());
        }
        match self
            .client
            .apply(resource, DEFAULT_NAMESPACE, &other, Mode::DryRun)
            .await
        {
            Err(ApiError::Answered {
                code: 400 | 422 | 500,
                message,
                causes,
                ..
            }) => Ok(refusal::findings(object, &message, &causes)),
            Err(error @ (ApiError::Unreachable { .. } | ApiError::TimedOut { .. })) => Err(error),
            _ => Ok(Vec::new()),
        }
    }

    /// Reports an object of a kind that the server does not serve, unless the kind's definition comes with it.
    fn report_unserved(&self, object: &Object, objects: &[Object], similar: Option<String>, report: &mut Report) {
        let is_defined = objects.iter().any(|other| defines(other, object));
        if is_defined {
            let message = "the server can check it only when its CustomResourceDefinition exists";
            report.findings.push(note(object, message));
            report.objects.push(CheckedObject {
                object: object.clone(),
                resource: Resource::unserved(&object.api_version, &object.kind),
                live: None,
                would_be: None,
                waits_for_definition: true,
                hands_over_replicas: false,
                applies: true,
                brought: false,
            });
            return;
        }
        let hint = match similar {
            Some(similar) => format!("; did you mean `{similar}`?"),
            None => ": install its CustomResourceDefinition, or use a version that this cluster serves".to_string(),
        };
        let message = format!(
            "the cluster of the kube context `{}` serves no `{}` in `{}`{hint}",
            self.client.kube_context(),
            object.kind,
            object.api_version
        );
        report.findings.push(refused_at(object, "/kind", message));
    }

    fn no_namespace(&self, object: &Object) -> Finding {
        let namespace = &self.environment.namespace;
        let message = format!(
            "the cluster of the kube context `{}` has no namespace `{namespace}`: create it with `kubectl create namespace \
             {namespace}`, or add its manifest to the others",
            self.client.kube_context()
        );
        refused_at(object, "/metadata/namespace", message)
    }
}

/// Whether a definition is that of the kind of an object, in its version.
fn defines(definition: &Object, object: &Object) -> bool {
    let Some((group, version)) = object.api_version.split_once('/') else {
        return false;
    };
    let versions = definition.value.pointer("/spec/versions").and_then(Value::as_array);
    definition.kind == "CustomResourceDefinition"
        && text_at(&definition.value, "/spec/group") == group
        && text_at(&definition.value, "/spec/names/kind") == object.kind
        && versions.is_none_or(|versions| versions.iter().any(|known| text_at(known, "/name") == version))
}

/// Whether the answer to a dry run differs from what there is.
fn would_change(live: &Value, answer: Option<&Result<Answer, ApiError>>) -> bool {
    matches!(answer, Some(Ok(answer)) if differs(live, &answer.value))
}

/// Whether applying changes anything that matters: a field, or that Towpath becomes the owner.
fn differs(live: &Value, would_be: &Value) -> bool {
    if managed_fields::ours(live).is_none() || managed_fields::is_to_be_taken_over(live) {
        return true;
    }
    if text_at(live, "/kind") == "Secret" && live.get("data") != would_be.get("data") {
        return true;
    }
    // Secrets were compared above, so their fingerprints do not matter here.
    let canonical = |object: &Value| towpath_manifest::normalise(&without_marks(object), &|_| String::new());
    canonical(live) != canonical(would_be)
}
