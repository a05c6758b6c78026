//! A plan with a value in each field.

#![allow(clippy::unwrap_used)]

use crate::{
    plan::{ChangeAction, Plan, PlanChange, PlanCommit, PlanHooks},
    project_file::{OnFailure, Wait},
};
use jiff::SignedDuration;
use serde_json::json;
use std::collections::BTreeMap;
use towpath_deploy::Environment;
use towpath_manifest::Object;
use towpath_types::{Digest, EnvironmentId, ImageReference, ReleaseId};

pub(crate) fn config_map(name: &str, greeting: &str) -> Object {
    let value = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"GREETING": greeting},
    });
    Object::from_value(value, &format!(".k8s/live/dev/{name}.yaml")).unwrap()
}

fn image(content: &str) -> BTreeMap<String, ImageReference> {
    let repository: ImageReference = "r.io/claims".parse().unwrap();
    BTreeMap::from([("claims".to_string(), repository.at(Digest::of(content.as_bytes())))])
}

pub(crate) fn plan() -> Plan {
    let commit = "0123456789abcdef0123456789abcdef01234567".parse();
    Plan {
        place: Environment {
            id: EnvironmentId::new("claims", "dev").unwrap(),
            kube_context: "live".into(),
            namespace: "claims-dev".into(),
        },
        on_failure: OnFailure::Stop,
        wait: Wait {
            release: Some(SignedDuration::from_mins(45)),
            unschedulable: None,
        },
        images: image("new"),
        parent: Some(ReleaseId::from_u128(1)),
        previous_images: image("old"),
        commit: commit.clone().ok(),
        commits: vec![PlanCommit {
            id: commit.unwrap(),
            author: "Ada".into(),
            subject: "Say good day".into(),
        }],
        third_party: BTreeMap::from([
            ("redis:7".to_string(), Some(Digest::of(b"redis"))),
            ("odd".to_string(), None),
        ]),
        objects: vec![config_map("web", "good day")],
        changes: vec![PlanChange {
            action: ChangeAction::Created,
            kind: "ConfigMap".into(),
            name: "web".into(),
            diff: "+a\n".into(),
        }],
        unchanged: 3,
        hooks: PlanHooks::default(),
        blockers: vec!["no".into()],
        warnings: vec!["hm".into()],
    }
}
