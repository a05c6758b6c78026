//! References to ports and Services, and whether they exist.

use crate::images::containers;
use crate::kinds::Kind;
use crate::{Object, ObjectId};
use serde_json::Value;
use towpath_yaml::Place;

/// A reference to a port or a Service that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingPort {
    /// The object with the reference.
    pub object: ObjectId,
    /// The field: `spec.ports[0].targetPort`.
    pub field: String,
    /// The place of the field in the manifest.
    pub place: Place,
    /// A sentence that names what is missing and what exists instead.
    pub message: String,
}

/// A Service that an Ingress sends requests to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendService {
    /// The Ingress.
    pub object: ObjectId,
    /// The JSON pointer of the backend in the Ingress.
    pub pointer: String,
    /// The place of the backend in the manifest.
    pub place: Place,
    /// The name of the Service.
    pub service: String,
    /// The port of the Service, by name or number.
    pub port: Value,
}

/// The ports that `objects` refer to and none of them has: target ports of Services, ports of probes, and ports of Services
/// behind Ingresses. A Service that is not among `objects` may exist in the cluster: check it with [`missing_backend`].
///
/// Source: <https://kubernetes.io/docs/concepts/services-networking/service/#field-spec-ports>
#[must_use]
pub fn missing_ports(objects: &[Object]) -> Vec<MissingPort> {
    let mut found = Vec::new();
    for object in objects {
        match object.kind.as_str() {
            "Service" => target_ports(object, objects, &mut found),
            "Ingress" => {
                for backend in backend_services(object) {
                    let of_name = |other: &&Object| other.kind == "Service" && other.name == backend.service;
                    if let Some(service) = objects.iter().find(of_name) {
                        found.extend(missing_backend(&backend, &service.value));
                    }
                }
            }
            _ => probes(object, &mut found),
        }
    }
    found
}

/// The Services that an Ingress sends requests to.
#[must_use]
pub fn backend_services(ingress: &Object) -> Vec<BackendService> {
    if ingress.kind != "Ingress" {
        return Vec::new();
    }
    let mut pointers = vec!["/spec/defaultBackend/service".to_string()];
    for (rule, at) in list(&ingress.value, "/spec/rules") {
        for (_, at) in list(rule, "/http/paths").map(|(path, inner)| (path, format!("{at}{inner}"))) {
            pointers.push(format!("{at}/backend/service"));
        }
    }
    let backend = |pointer: String| {
        let service = ingress.value.pointer(&pointer)?;
        let port = service.get("port")?;
        Some(BackendService {
            object: ingress.id(),
            place: ingress.place_of(&pointer),
            service: service.get("name")?.as_str()?.to_string(),
            port: port.get("name").or_else(|| port.get("number"))?.clone(),
            pointer,
        })
    };
    pointers.into_iter().filter_map(backend).collect()
}

/// The port that `backend` needs and `service`, an object from the cluster or the manifests, does not have.
#[must_use]
pub fn missing_backend(backend: &BackendService, service: &Value) -> Option<MissingPort> {
    let ports: Vec<(&Value, &Value)> = list(service, "/spec/ports")
        .map(|(port, _)| {
            (
                port.get("name").unwrap_or(&Value::Null),
                port.get("port").unwrap_or(&Value::Null),
            )
        })
        .collect();
    if ports
        .iter()
        .any(|(name, number)| **name == backend.port || **number == backend.port)
    {
        return None;
    }
    let known: Vec<String> = ports
        .iter()
        .map(|(name, number)| match name.as_str() {
            Some(name) => format!("`{name}` ({number})"),
            None => number.to_string(),
        })
        .collect();
    Some(MissingPort {
        object: backend.object.clone(),
        field: dotted(&format!("{}/port", backend.pointer)),
        place: backend.place.clone(),
        message: format!(
            "the Service `{}` has no port {}: it has {}",
            backend.service,
            backend.port,
            if known.is_empty() {
                "no ports".into()
            } else {
                known.join(", ")
            }
        ),
    })
}

fn target_ports(service: &Object, objects: &[Object], found: &mut Vec<MissingPort>) {
    let Some(selector) = service.value.pointer("/spec/selector").and_then(Value::as_object) else {
        return;
    };
    let selected: Vec<(&Object, &str)> = objects
        .iter()
        .filter_map(|object| {
            let template = Kind::of(&object.kind)
                .pod_template
                .filter(|_| object.kind != "Job" && object.kind != "CronJob")?;
            let labels = object.value.pointer(&format!("{template}/metadata/labels"))?;
            let matches = selector.iter().all(|(key, value)| labels.get(key) == Some(value));
            (matches && !selector.is_empty()).then_some((object, template))
        })
        .collect();
    for (port, at) in list(&service.value, "/spec/ports") {
        let Some(name) = port.get("targetPort").and_then(Value::as_str) else {
            continue;
        };
        // Pods without the port get no requests on it. It is enough if one of the selected workloads has it.
        let known: Vec<String> = selected.iter().flat_map(|(workload, _)| port_names(workload)).collect();
        let Some((workload, _)) = selected.first() else {
            continue;
        };
        if known.iter().any(|known| known == name) {
            continue;
        }
        let pointer = format!("{at}/targetPort");
        let of = match selected.len() {
            1 => workload.id().to_string(),
            count => format!("the {count} workloads that the Service selects"),
        };
        found.push(MissingPort {
            object: service.id(),
            field: dotted(&pointer),
            place: service.place_of(&pointer),
            message: format!(
                "no container of {of} has a port called `{name}`: {}",
                named_ports(&known)
            ),
        });
    }
}

fn probes(object: &Object, found: &mut Vec<MissingPort>) {
    for container in containers(object) {
        let Some(value) = object.value.pointer(&container.pointer) else {
            continue;
        };
        let known: Vec<String> = names(value);
        for field in [
            "livenessProbe/httpGet",
            "livenessProbe/tcpSocket",
            "readinessProbe/httpGet",
            "readinessProbe/tcpSocket",
            "startupProbe/httpGet",
            "startupProbe/tcpSocket",
            "lifecycle/preStop/httpGet",
            "lifecycle/postStart/httpGet",
        ] {
            let pointer = format!("/{field}/port");
            let Some(name) = value.pointer(&pointer).and_then(Value::as_str) else {
                continue;
            };
            // A number in quotes counts as a number.
            if name.parse::<u16>().is_ok() || known.iter().any(|known| known == name) {
                continue;
            }
            let pointer = format!("{}{pointer}", container.pointer);
            found.push(MissingPort {
                object: object.id(),
                field: dotted(&pointer),
                place: object.place_of(&pointer),
                message: format!(
                    "the container `{}` has no port called `{name}`: {}",
                    container.name,
                    named_ports(&known)
                ),
            });
        }
    }
}

fn named_ports(known: &[String]) -> String {
    match known {
        [] => "give this name to one of its ports".to_string(),
        [known] => format!("the only named port is `{known}`"),
        known => format!("the named ports are {}", quoted(known)),
    }
}

fn quoted(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

fn port_names(workload: &Object) -> Vec<String> {
    containers(workload)
        .iter()
        .filter_map(|container| workload.value.pointer(&container.pointer))
        .flat_map(names)
        .collect()
}

fn names(container: &Value) -> Vec<String> {
    list(container, "/ports")
        .filter_map(|(port, _)| Some(port.get("name")?.as_str()?.to_string()))
        .collect()
}

/// The items of the list at `pointer`, each with its own JSON pointer.
fn list<'a>(value: &'a Value, pointer: &'a str) -> impl Iterator<Item = (&'a Value, String)> {
    let items = value.pointer(pointer).and_then(Value::as_array);
    items
        .into_iter()
        .flatten()
        .enumerate()
        .map(move |(index, item)| (item, format!("{pointer}/{index}")))
}

/// `/spec/ports/0/targetPort` as `spec.ports[0].targetPort`.
fn dotted(pointer: &str) -> String {
    let mut text = String::new();
    for part in pointer.split('/').skip(1) {
        match part.parse::<usize>() {
            Ok(index) => text.push_str(&format!("[{index}]")),
            Err(_) if text.is_empty() => text.push_str(part),
            Err(_) => text.push_str(&format!(".{part}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Tree;

    const MANIFEST: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: web
          ports: [{name: http, containerPort: 8080}]
          readinessProbe: {httpGet: {port: HTTP_PROBE}}
          livenessProbe: {tcpSocket: {port: \"8080\"}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: web, port: 80, targetPort: TARGET}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  defaultBackend: {service: {name: elsewhere, port: {number: 1}}}
  rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: BACKEND}}}]}}]
";

    fn check(probe: &str, target: &str, backend: &str, expect: &[&str]) {
        let text = MANIFEST
            .replace("HTTP_PROBE", probe)
            .replace("TARGET", target)
            .replace("BACKEND", backend);
        let (tree, diagnostics) = Tree::read([(".k8s/live/dev/all.yaml", text.as_str())]);
        assert!(diagnostics.is_empty(), "{diagnostics:?}");
        let objects = &tree.environment("live", "dev").unwrap().objects;
        let got: Vec<String> = missing_ports(objects)
            .iter()
            .map(|missing| format!("{}:{}: {}", missing.object, missing.field, missing.message))
            .collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn named_ports_exist_or_are_reported() {
        check("http", "http", "{name: web}", &[]);
        check("8080", "8080", "{number: 80}", &[]);
        check(
            "htpp",
            "web",
            "{number: 8080}",
            &[
                "Service/web:spec.ports[0].targetPort: no container of Deployment/web has a port called `web`: the only named port is `http`",
                "Deployment/web:spec.template.spec.containers[0].readinessProbe.httpGet.port: the container `web` has no port called \
                 `htpp`: the only named port is `http`",
                "Ingress/web:spec.rules[0].http.paths[0].backend.service.port: the Service `web` has no port 8080: it has `web` (80)",
            ],
        );
    }

    #[test]
    fn the_backends_of_an_ingress_are_found() {
        let text = MANIFEST.replace("BACKEND", "{name: web}");
        let (tree, _) = Tree::read([(".k8s/live/dev/all.yaml", text.as_str())]);
        let objects = &tree.environment("live", "dev").unwrap().objects;
        let found: Vec<String> = objects
            .iter()
            .flat_map(backend_services)
            .map(|backend| backend.service)
            .collect();
        assert_eq!(found, ["elsewhere", "web"]);
    }
}
