//! The order in which objects are applied.

use crate::kinds::Kind;
use crate::{Object, ObjectId};

/// Sorts `objects` by the table of kinds, then by kind and name, so that what others need comes first.
pub fn sort_for_apply(objects: &mut [Object]) {
    objects.sort_by_cached_key(|object| rank_and_name(&object.id()));
}

pub(crate) fn rank_and_name(id: &ObjectId) -> (usize, String, String) {
    (Kind::of(&id.kind).position(), id.kind.clone(), id.name.clone())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn what_others_need_comes_first() {
        let mut objects: Vec<Object> = [
            "Ingress/app",
            "CronJob/nightly",
            "Deployment/worker",
            "ServiceMonitor/app",
            "Deployment/app",
            "Service/app",
            "PersistentVolumeClaim/files",
            "Secret/app",
            "ConfigMap/app",
            "Namespace/dev",
        ]
        .iter()
        .map(|text| {
            let (kind, name) = text.split_once('/').unwrap();
            Object::from_value(
                json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}),
                "x",
            )
            .unwrap()
        })
        .collect();
        sort_for_apply(&mut objects);
        let got: Vec<String> = objects.iter().map(|object| object.id().to_string()).collect();
        assert_eq!(
            got,
            [
                "Namespace/dev",
                "ConfigMap/app",
                "Secret/app",
                "PersistentVolumeClaim/files",
                "Service/app",
                "Deployment/app",
                "Deployment/worker",
                "CronJob/nightly",
                "ServiceMonitor/app",
                "Ingress/app",
            ]
        );
    }
}
