//! Decides which pods a Deployment starts and stops. Pure.
//!
//! Source of the arithmetic: <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#rolling-update-deployment>

use super::model::{Deployment, Strategy};

/// The relevant facts about a pod that is not stopping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodView {
    pub name: String,
    /// Whether it has the wanted revision.
    pub current: bool,
    pub ready: bool,
    /// Ready for `minReadySeconds`.
    pub available: bool,
}

/// The next steps.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Moves {
    /// How many pods of the current revision to start.
    pub start: u32,
    /// Which pods to stop.
    pub leave: Vec<String>,
    /// Whether the Deployment is in its wanted state.
    pub complete: bool,
}

/// Decides about `deployment`, which has `pods` and `leaving` more that are stopping.
pub(crate) fn decide(deployment: &Deployment, pods: &[PodView], leaving: u32) -> Moves {
    let desired = deployment.replicas;
    let count =
        |of: &dyn Fn(&PodView) -> bool| u32::try_from(pods.iter().filter(|p| of(p)).count()).unwrap_or(u32::MAX);
    let current = count(&|p| p.current);
    let total = count(&|_| true);
    let mut moves = Moves {
        complete: total == desired && leaving == 0 && count(&|p| p.current && p.available) == desired,
        ..Moves::default()
    };
    let mut excess: Vec<&PodView> = pods.iter().filter(|p| p.current).collect();
    // When scaling down, stop pods that are not ready first, then those with the last names.
    excess.sort_by_key(|p| (p.ready, std::cmp::Reverse(p.name.clone())));
    let surplus = current.saturating_sub(desired) as usize;
    moves.leave.extend(excess.iter().take(surplus).map(|p| p.name.clone()));

    let old: Vec<&PodView> = pods.iter().filter(|p| !p.current).collect();
    match deployment.strategy {
        Strategy::Recreate => {
            moves.leave.extend(old.iter().map(|p| p.name.clone()));
            if old.is_empty() && leaving == 0 {
                moves.start = desired.saturating_sub(current);
            }
        }
        Strategy::Rolling {
            max_surge,
            max_unavailable,
        } => {
            let surge = max_surge.of(desired, true);
            let mut unavailable = max_unavailable.of(desired, false);
            if surge == 0 && unavailable == 0 {
                unavailable = 1;
            }
            let room = desired.saturating_add(surge).saturating_sub(total);
            moves.start = desired.saturating_sub(current).min(room);

            let least = desired.saturating_sub(unavailable);
            let current_unavailable = count(&|p| p.current && !p.available);
            let mut removable = total.saturating_sub(least).saturating_sub(current_unavailable) as usize;
            let mut available = count(&|p| p.available);
            // Stop old pods that serve nobody first, then as many others as availability allows.
            let (unhealthy, healthy): (Vec<&PodView>, Vec<&PodView>) = old.into_iter().partition(|p| !p.available);
            for pod in unhealthy.into_iter().take(removable) {
                moves.leave.push(pod.name.clone());
                removable -= 1;
            }
            for pod in healthy.into_iter().take(removable) {
                if available <= least {
                    break;
                }
                available -= 1;
                moves.leave.push(pod.name.clone());
            }
        }
    }
    moves
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{super::model, *};
    use serde_json::{Value, json};
    use towpath_manifest::Object;

    fn deployment(replicas: u32, strategy: &Value) -> Deployment {
        let value = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "strategy": strategy,
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app", "image": "app"}]}},
            },
        });
        match model::parse(&Object::from_value(value, "web.yaml").unwrap()) {
            (Some(model::Resource::Deployment(deployment)), _) => *deployment,
            (other, findings) => panic!("{other:?}: {findings:?}"),
        }
    }

    /// Rolls `old` pods over to `replicas` new ones. `seed` decides the order of events. Checks the limits after each event.
    fn roll(old: u32, replicas: u32, surge: u32, unavailable: u32, seed: u32) {
        let strategy = json!({"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}});
        let deployment = deployment(replicas, &strategy);
        let pod = |name: String, current, ready| PodView {
            name,
            current,
            ready,
            available: ready,
        };
        let mut pods: Vec<PodView> = (0..old)
            .map(|number| pod(format!("old-{number}"), false, true))
            .collect();
        let (mut leaving, mut made, mut random) = (0_u32, 0, seed);
        let least = replicas.saturating_sub(unavailable.max(u32::from(surge == 0)));
        let most = (replicas + surge).max(old);
        for _ in 0..1000 {
            let moves = decide(&deployment, &pods, leaving);
            if moves.complete {
                assert!(pods.iter().all(|pod| pod.current && pod.available));
                assert_eq!(pods.len(), replicas as usize);
                return;
            }
            for name in &moves.leave {
                pods.retain(|pod| pod.name != *name);
                leaving += 1;
            }
            for _ in 0..moves.start {
                pods.push(pod(format!("new-{made}"), true, false));
                made += 1;
            }
            let available = u32::try_from(pods.iter().filter(|pod| pod.available).count()).unwrap();
            let case = format!("{old} to {replicas}, surge {surge}, unavailable {unavailable}, seed {seed}: {pods:?}");
            assert!(available >= least.min(old), "{case}");
            assert!(u32::try_from(pods.len()).unwrap() <= most, "{case}");
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let waiting: Vec<usize> = (0..pods.len()).filter(|at| !pods[*at].ready).collect();
            match waiting.get(random as usize % (waiting.len() + 1)) {
                Some(at) => (pods[*at].ready, pods[*at].available) = (true, true),
                None => leaving = leaving.saturating_sub(1),
            }
        }
        panic!("{old} to {replicas}, surge {surge}, unavailable {unavailable}, seed {seed}: it never ended");
    }

    #[test]
    fn every_rollout_keeps_its_bounds_and_ends() {
        for old in 0..4 {
            for replicas in 0..5 {
                for (surge, unavailable) in [(1, 0), (0, 1), (1, 1), (2, 0), (0, 0), (3, 2)] {
                    // Kubernetes refuses zero for both, and so does the model.
                    if (surge, unavailable) != (0, 0) {
                        (0..20).for_each(|seed| roll(old, replicas, surge, unavailable, seed));
                    }
                }
            }
        }
    }

    #[test]
    fn recreate_starts_nothing_before_the_old_are_gone() {
        let deployment = deployment(2, &json!({"type": "Recreate"}));
        let old = |name: &str| PodView {
            name: name.into(),
            current: false,
            ready: true,
            available: true,
        };
        let moves = decide(&deployment, &[old("a"), old("b")], 0);
        assert_eq!((moves.start, moves.leave.len()), (0, 2));
        assert_eq!(decide(&deployment, &[], 2).start, 0);
        assert_eq!(decide(&deployment, &[], 0).start, 2);
    }
}
