//! Finds what will go wrong with objects before any of them is applied.

use super::{
    controller::Parsed,
    model::{self, Resource},
    start_error::StartError,
};
use crate::target::{EnvironmentId, Finding, SecretSource, Severity, TargetError};
use std::collections::{BTreeMap, BTreeSet};
use towpath_container::ContainerClient;
use towpath_manifest::{Existing, Object, SourceKind, missing, reads, unfit_variables};
use towpath_types::ImageReference;

/// The state that objects are checked against.
pub(crate) struct Preflight<'a> {
    pub id: &'a EnvironmentId,
    /// The objects that were applied before and still exist.
    pub applied: &'a [Object],
    pub engine: &'a ContainerClient,
    pub secrets: &'a dyn SecretSource,
}

impl Preflight<'_> {
    /// Everything that will go wrong with `objects`, or will work differently here than on a cluster.
    pub(crate) async fn findings(&self, objects: &[Object]) -> Result<Vec<Finding>, TargetError> {
        let mut findings: Vec<Finding> = objects.iter().flat_map(|object| model::parse(object).1).collect();
        findings.extend(self.missing_sources(objects).await?);
        findings.extend(self.missing_backends(objects));
        findings.extend(self.missing_images(objects).await?);
        findings.sort();
        findings.dedup();
        Ok(findings)
    }

    /// Secrets, ConfigMaps and claims that pods need and that do not exist.
    async fn missing_sources(&self, objects: &[Object]) -> Result<Vec<Finding>, TargetError> {
        let id = self.id;
        let mut existing = Existing::default().with(self.applied);
        let wanted: BTreeSet<String> = objects
            .iter()
            .flat_map(reads)
            .filter(|read| read.kind == SourceKind::Secret)
            .map(|read| read.name)
            .collect();
        for secret in wanted {
            let values = self.secrets.values(id, &secret).await;
            let values = values.map_err(|source| TargetError::Failed {
                attempted: format!("read the Secret `{secret}`"),
                source,
            })?;
            for (key, value) in values.into_iter().flatten() {
                existing.add_key(&secret, &key, value.expose());
            }
        }
        let remedy = |finding: &towpath_manifest::Finding| match finding.read.kind {
            SourceKind::Secret => {
                let key = finding.read.key.as_deref().unwrap_or("KEY");
                format!(
                    "; set it with `towpath secrets set {} {} {key}`",
                    id.environment(),
                    finding.read.name
                )
            }
            SourceKind::ConfigMap | SourceKind::PersistentVolumeClaim => {
                // A Job is applied alone, without the other manifests of its environment.
                if objects.iter().all(|object| object.kind == "Job") {
                    let environment = id.environment();
                    format!("; it comes with the environment's manifests: run `towpath deploy {environment}` first")
                } else {
                    "; add it to the environment's manifests".into()
                }
            }
        };
        let unfit = unfit_variables(objects, &existing).into_iter().map(|unfit| Finding {
            severity: Severity::Refused,
            object: unfit.object.clone(),
            field: model::field_path(&unfit.pointer),
            place: unfit.place.clone(),
            message: format!("{unfit}; mount it as a file, which has every byte"),
        });
        let missing = missing(objects, &existing);
        Ok(missing
            .into_iter()
            .map(|finding| {
                let place = finding.read.place.clone();
                let text = finding.to_string();
                // The sentence ends with its place, but a finding shows the place first.
                let sentence = text.strip_suffix(&format!(": {place}")).unwrap_or(&text);
                Finding {
                    severity: Severity::Refused,
                    object: finding.read.object.clone(),
                    field: String::new(),
                    message: format!("{sentence}{}", remedy(&finding)),
                    place,
                }
            })
            .chain(unfit)
            .collect())
    }

    /// The Ingress rules whose Service or port does not exist.
    fn missing_backends(&self, objects: &[Object]) -> Vec<Finding> {
        let all: Vec<Object> = self.applied.iter().chain(objects).cloned().collect();
        let parsed = Parsed::of(&all);
        let mut findings = Vec::new();
        for object in objects.iter().filter(|object| object.kind == "Ingress") {
            let Some(Resource::Ingress(ingress)) = model::parse(object).0 else {
                continue;
            };
            for rule in &ingress.rules {
                let message = match parsed.services.get(&rule.service) {
                    None => format!("it leads to the Service `{}`, which is not there", rule.service),
                    Some(service) if !has_port(service, &rule.port) => {
                        format!("it leads to a port that the Service `{}` does not have", rule.service)
                    }
                    Some(_) => continue,
                };
                findings.push(Finding {
                    severity: Severity::Refused,
                    object: object.id(),
                    field: "spec.rules".into(),
                    place: object.place_of("/spec/rules"),
                    message,
                });
            }
        }
        findings
    }

    /// Images that neither the engine nor their registry has.
    async fn missing_images(&self, objects: &[Object]) -> Result<Vec<Finding>, TargetError> {
        let mut known: BTreeMap<String, Option<String>> = BTreeMap::new();
        let mut findings = Vec::new();
        for object in objects {
            for container in towpath_manifest::containers(object) {
                let missing = match known.get(&container.image) {
                    Some(missing) => missing.clone(),
                    None => {
                        let missing = self.missing_image(&container.image).await;
                        known.insert(container.image.clone(), missing.clone());
                        missing
                    }
                };
                if let Some(message) = missing {
                    let pointer = format!("{}/image", container.pointer);
                    findings.push(Finding {
                        severity: Severity::Refused,
                        object: object.id(),
                        field: model::field_path(&pointer),
                        place: object.place_of(&pointer),
                        message,
                    });
                }
            }
        }
        Ok(findings)
    }

    /// Why an image is not available; `None` if it is, or if that is unknown now.
    async fn missing_image(&self, text: &str) -> Option<String> {
        let image: ImageReference = text.parse().ok()?;
        if matches!(self.engine.has_image(text).await, Ok(true)) {
            return None;
        }
        let registry = image.registry.clone().unwrap_or_default();
        let credentials = self.secrets.pull_credentials(self.id, &registry).await.ok().flatten();
        match self
            .engine
            .find_in_registry(&image, credentials.as_ref())
            .await
            .map_err(StartError::from)
        {
            Err(StartError::Terminal(message)) => Some(message),
            // A registry that does not answer now may answer when the pods start.
            Ok(()) | Err(StartError::Passing(_)) => None,
        }
    }
}

/// Whether a Service has the port that an Ingress names.
fn has_port(service: &model::Service, port: &model::TargetPort) -> bool {
    service.ports.iter().any(|known| match port {
        model::TargetPort::Number(number) => known.port == *number,
        model::TargetPort::Name(name) => known.name.as_ref() == Some(name),
    })
}
