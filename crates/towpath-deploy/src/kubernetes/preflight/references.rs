//! Whether everything that objects refer to exists: in the manifests or in the cluster.

use super::{finding::note, report::CheckedObject};
use crate::kubernetes::keeper::creates;
use crate::target::{Environment, Finding, PULL_SECRET, Severity};
use futures::future::{join_all, try_join};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use towpath_kube::{ApiError, Client, Resource, text_at};
use towpath_manifest::{
    Existing, Kind, MissingPort, Object, ObjectId, SourceKind, backend_services, missing, missing_backend,
    missing_ports, names_read, pull_secrets, unfit_variables,
};
use towpath_types::NoVariable;

/// What is needed to look references up.
pub(super) struct References<'a> {
    pub client: &'a Client,
    pub environment: &'a Environment,
    pub objects: &'a [Object],
    /// `objects` as far as they could be checked. They need not be looked up again.
    pub checked: &'a [CheckedObject],
}

impl References<'_> {
    pub(super) async fn check(&self) -> Result<Vec<Finding>, ApiError> {
        let (sources, names) = try_join(self.check_sources(), self.check_names()).await?;
        Ok(sources.into_iter().chain(names).collect())
    }

    /// The ConfigMaps, Secrets, keys and claims that pods read.
    async fn check_sources(&self) -> Result<Vec<Finding>, ApiError> {
        let (existing, unknown) = self.existing_sources().await?;
        let unfit = self.check_variables(&existing).await?;
        let missing = missing(self.objects, &existing).into_iter();
        let missing = missing.map(|finding| self.missing_source(&finding, &unknown));
        Ok(missing.chain(unfit).collect())
    }

    /// The variables that no container can have.
    async fn check_variables(&self, existing: &Existing) -> Result<Vec<Finding>, ApiError> {
        let unfit = unfit_variables(self.objects, existing);
        if unfit.is_empty() {
            return Ok(Vec::new());
        }
        let version = self.client.get("/version").await?;
        let starts = starts_with_odd_text(&version);
        let findings = unfit.into_iter().map(|unfit| {
            let (severity, how) = match unfit.why {
                NoVariable::NotText if starts => (
                    Severity::Note,
                    "; some versions of Kubernetes (1.34.0 to 1.34.8, 1.35.0 to 1.35.5, 1.36.0 and 1.36.1) and of container \
                     runtimes refuse to start it. Mount it as a file, which has every byte",
                ),
                NoVariable::NotText => (
                    Severity::Refused,
                    ", and this version of Kubernetes refuses to start it: mount it as a file, which has every byte",
                ),
                NoVariable::ZeroByte => (
                    Severity::Refused,
                    ", where a variable would end: mount it as a file, which has every byte",
                ),
            };
            Finding {
                severity,
                object: unfit.object.clone(),
                field: unfit.pointer.trim_start_matches('/').replace('/', "."),
                place: unfit.place.clone(),
                message: format!("{unfit}{how}"),
            }
        });
        Ok(findings.collect())
    }

    /// The sources in the cluster, and those that the account may not read.
    async fn existing_sources(&self) -> Result<(Existing, BTreeSet<(SourceKind, String)>), ApiError> {
        let live: HashMap<ObjectId, Option<&Value>> = self
            .checked
            .iter()
            .map(|checked| (checked.object.id(), checked.live.as_ref()))
            .collect();
        let mut existing = Existing::default();
        let mut unknown = BTreeSet::new();
        for (kind, row) in [
            (SourceKind::ConfigMap, &Kind::CONFIG_MAP),
            (SourceKind::Secret, &Kind::SECRET),
            (SourceKind::PersistentVolumeClaim, &Kind::PERSISTENT_VOLUME_CLAIM),
        ] {
            let resource = Resource::of(row);
            let found = names_read(self.objects, kind).into_iter().map(|name| {
                let path = resource.object(&self.environment.namespace, &name);
                let id = ObjectId {
                    group: resource.group().to_string(),
                    kind: resource.kind.clone(),
                    name: name.clone(),
                };
                let known = live.get(&id);
                async move {
                    match known {
                        Some(live) => (name, Ok(live.cloned())),
                        None => (name, self.client.find(&path).await),
                    }
                }
            });
            for (name, found) in join_all(found).await {
                let source = match found {
                    Ok(Some(source)) => source,
                    Ok(None) => continue,
                    Err(error) if error.is_forbidden() => {
                        unknown.insert((kind, name));
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                if kind == SourceKind::Secret {
                    existing.add_secret(&name, &source);
                    continue;
                }
                let maps = ["data", "binaryData"]
                    .iter()
                    .filter_map(|field| source.get(field)?.as_object());
                let keys: BTreeSet<String> = maps.flat_map(|map| map.keys().cloned()).collect();
                if kind == SourceKind::ConfigMap {
                    existing.config_maps.insert(name, keys);
                } else {
                    existing.claims.insert(name);
                }
            }
        }
        Ok((existing, unknown))
    }

    fn missing_source(&self, finding: &towpath_manifest::Finding, unknown: &BTreeSet<(SourceKind, String)>) -> Finding {
        let read = &finding.read;
        let is_unknown = unknown.contains(&(read.kind, read.name.clone()));
        let is_claim = read.kind == SourceKind::PersistentVolumeClaim;
        let creator = self
            .objects
            .iter()
            .find(|object| !is_claim && creates(&object.value, &read.name));
        let (severity, remedy) = match creator {
            _ if is_unknown => (
                Severity::Note,
                format!(". Permission to get a {} here would tell for certain", read.kind),
            ),
            Some(creator) => (
                Severity::Note,
                format!(
                    ". The {} in these manifests may create it, and pods wait until it does",
                    creator.kind
                ),
            ),
            None if read.kind == SourceKind::Secret => (
                Severity::Refused,
                format!(
                    ": set it with `towpath secrets set {} {} {}`",
                    self.environment.id.environment(),
                    read.name,
                    read.key.as_deref().unwrap_or("KEY")
                ),
            ),
            None => (Severity::Refused, String::new()),
        };
        // The sentence ends with its place, which a finding shows by itself.
        let sentence = finding.to_string();
        let sentence = sentence.strip_suffix(&format!(": {}", read.place)).unwrap_or(&sentence);
        Finding {
            severity,
            object: read.object.clone(),
            field: String::new(),
            place: read.place.clone(),
            message: format!("{sentence}{remedy}"),
        }
    }

    /// Ports, service accounts, pull Secrets and Services that objects name.
    async fn check_names(&self) -> Result<Vec<Finding>, ApiError> {
        let mut findings: Vec<Finding> = missing_ports(self.objects).into_iter().map(missing_port).collect();
        findings.extend(self.check_pull_secrets().await);
        findings.extend(self.check_service_accounts().await?);
        findings.extend(self.check_backends().await?);
        Ok(findings)
    }

    fn in_manifests(&self, kind: &Kind, name: &str) -> bool {
        self.objects
            .iter()
            .any(|object| object.kind == kind.name && object.name == name)
    }

    /// Looks up objects of one kind by name.
    async fn look_up<'n>(
        &self,
        kind: &Kind,
        names: impl IntoIterator<Item = &'n String>,
    ) -> Vec<(&'n String, Result<Option<Value>, ApiError>)> {
        let resource = Resource::of(kind);
        let found = names.into_iter().map(|name| {
            let path = resource.object(&self.environment.namespace, name);
            async move { (name, self.client.find(&path).await) }
        });
        join_all(found).await
    }

    async fn check_pull_secrets(&self) -> Vec<Finding> {
        let mut users: BTreeMap<String, Vec<&Object>> = BTreeMap::new();
        for object in self.objects {
            for name in pull_secrets(object) {
                if name != PULL_SECRET && !self.in_manifests(&Kind::SECRET, &name) {
                    users.entry(name).or_default().push(object);
                }
            }
        }
        let mut findings = Vec::new();
        for (name, found) in self.look_up(&Kind::SECRET, users.keys()).await {
            if !matches!(found, Ok(None)) {
                continue;
            }
            // Only a note: without the Secret, the node pulls with its own credentials, which may be enough.
            let message = format!(
                "there is no Secret `{name}` to pull its images with, neither in the manifests nor in the namespace `{}`",
                self.environment.namespace
            );
            let users = users.get(name).into_iter().flatten();
            findings.extend(users.map(|object| note(object, &message)));
        }
        findings
    }

    async fn check_service_accounts(&self) -> Result<Vec<Finding>, ApiError> {
        let mut users: BTreeMap<String, Vec<(&Object, String)>> = BTreeMap::new();
        for object in self.objects {
            let Some(template) = Kind::of(&object.kind).pod_template else {
                continue;
            };
            let pointer = format!("{template}/spec/serviceAccountName");
            let name = text_at(&object.value, &pointer);
            if !name.is_empty() && name != "default" && !self.in_manifests(&Kind::SERVICE_ACCOUNT, &name) {
                users.entry(name).or_default().push((object, pointer));
            }
        }
        let mut findings = Vec::new();
        for (name, found) in self.look_up(&Kind::SERVICE_ACCOUNT, users.keys()).await {
            for (object, pointer) in users.get(name).into_iter().flatten() {
                findings.extend(self.absent(object, pointer, &Kind::SERVICE_ACCOUNT, name, &found)?);
            }
        }
        Ok(findings)
    }

    /// The Services behind Ingresses.
    async fn check_backends(&self) -> Result<Vec<Finding>, ApiError> {
        let backends = self.objects.iter().flat_map(|object| {
            let backends = backend_services(object).into_iter();
            backends.map(move |backend| (object, backend))
        });
        let backends: Vec<_> = backends
            .filter(|(_, backend)| !self.in_manifests(&Kind::SERVICE, &backend.service))
            .collect();
        let names: BTreeSet<&String> = backends.iter().map(|(_, backend)| &backend.service).collect();
        let mut findings = Vec::new();
        for (name, found) in self.look_up(&Kind::SERVICE, names).await {
            for (object, backend) in backends.iter().filter(|(_, backend)| backend.service == *name) {
                findings.extend(self.absent(object, &backend.pointer, &Kind::SERVICE, name, &found)?);
                if let Ok(Some(service)) = &found {
                    findings.extend(missing_backend(backend, service).map(missing_port));
                }
            }
        }
        Ok(findings)
    }

    /// The finding for `found`, the result of looking up what `object` names at `pointer`.
    fn absent(
        &self,
        object: &Object,
        pointer: &str,
        kind: &Kind,
        name: &str,
        found: &Result<Option<Value>, ApiError>,
    ) -> Result<Option<Finding>, ApiError> {
        let kind = kind.name;
        let (severity, message) = match found {
            Ok(Some(_)) => return Ok(None),
            Ok(None) => (
                Severity::Refused,
                format!(
                    "there is no {kind} `{name}`, neither in the manifests nor in the namespace `{}`",
                    self.environment.namespace
                ),
            ),
            Err(error) if error.is_forbidden() => (
                Severity::Note,
                format!("it is unknown whether the {kind} `{name}` exists: permission to get a {kind} here would tell"),
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
}

/// Whether the kubelets of a cluster of this version start containers with variables that are not text. Those of an unknown
/// version may not.
///
/// Source: <https://github.com/kubernetes/kubernetes/issues/139132>: refused from 1.34.0 on, and started again from 1.34.9,
/// 1.35.6 and 1.36.2 on
fn starts_with_odd_text(version: &Value) -> bool {
    // A provider's version may be `v1.33.5-gke.1080000`.
    let text = text_at(version, "/gitVersion");
    let mut numbers = text.trim_start_matches('v').splitn(3, '.').map(|part| {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().ok()
    });
    let mut next = || numbers.next().flatten();
    match (next(), next(), next()) {
        (Some(1), Some(34), Some(patch)) => patch >= 9,
        (Some(1), Some(35), Some(patch)) => patch >= 6,
        (Some(1), Some(36), Some(patch)) => patch >= 2,
        (Some(_), Some(_), Some(_)) => true,
        _ => false,
    }
}

fn missing_port(missing: MissingPort) -> Finding {
    Finding {
        severity: Severity::Refused,
        object: missing.object,
        field: missing.field,
        place: missing.place,
        message: missing.message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn some_versions_start_no_container_with_odd_text() {
        for (version, expect) in [
            ("v1.33.11", true),
            ("v1.33.5-gke.1080000", true),
            ("v1.34.0", false),
            ("v1.34.8+k3s1", false),
            ("v1.34.10", true),
            ("v1.35.5", false),
            ("v1.36.2", true),
            ("v1.40.0", true),
            ("v1.34", false),
            ("", false),
        ] {
            assert_eq!(
                starts_with_odd_text(&json!({"gitVersion": version})),
                expect,
                "{version}"
            );
        }
    }
}
