//! What in the cluster is no longer as its release has it, and who changed it.

use super::{
    api::{Api, ApiError, Mode},
    examine::plain,
    fields,
    kinds::{Kinds, Lookup},
};
use crate::target::{Drift, Environment, Writer};
use futures::future::try_join_all;
use serde_json::Value;
use towpath_manifest::{Change, ChangeKind, Object, diff};

/// Field managers of Kubernetes' own controllers: what they write is how a cluster works, and no drift.
const CONTROLLERS: [&str; 5] = [
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-apiserver",
    "cloud-controller-manager",
];

/// Compares each of `objects` with what is there. Says of each field that differs what the release has, by asking what
/// applying it again would make of the object, and takes what others put in beside it for theirs.
pub(super) async fn drift(
    api: &Api,
    kinds: &Kinds,
    environment: &Environment,
    objects: &[Object],
    fingerprint: &(dyn Fn(&[u8]) -> String + Sync),
) -> Result<Vec<Drift>, ApiError> {
    let looked = objects.iter().map(|object| async move {
        let Lookup::Served(kind) = kinds.find(api, &object.api_version, &object.kind).await? else {
            return Ok(None);
        };
        let Some(live) = api.find(&kind.object(&environment.namespace, &object.name)).await? else {
            return Ok(Some((object, None)));
        };
        let answer = api
            .apply(&kind, &environment.namespace, &object.value, Mode::DryRun)
            .await?;
        Ok::<_, ApiError>(Some((object, Some((live, answer.value)))))
    });
    let mut found = Vec::new();
    for (object, there) in try_join_all(looked).await?.into_iter().flatten() {
        let with = |value: &Value| {
            let mut object = object.clone();
            object.value = plain(value);
            object
        };
        let (changes, writers) = match there {
            None => (diff(&[with(&object.value)], &[], fingerprint), Vec::new()),
            Some((live, would_be)) => {
                let (foreign, mut writers) = fields::foreign(&live, |manager| CONTROLLERS.contains(&manager));
                let released = fields::without(&would_be, foreign);
                for writer in fields::who_changed(&live, &released) {
                    if !writers.contains(&writer) {
                        writers.push(writer);
                    }
                }
                (diff(&[with(&released)], &[with(&live)], fingerprint), writers)
            }
        };
        let differs = |change: &Change| change.kind != ChangeKind::Unchanged;
        let mut writers: Vec<Writer> = writers
            .into_iter()
            .map(|(manager, at)| Writer {
                manager,
                at: at.parse().ok(),
            })
            .collect();
        writers.sort_by_key(|writer| std::cmp::Reverse(writer.at));
        found.extend(changes.into_iter().filter(differs).map(|change| Drift {
            change,
            writers: writers.clone(),
        }));
    }
    Ok(found)
}
