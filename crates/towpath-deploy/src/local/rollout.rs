//! Which pods a Deployment starts and which it lets go. Pure.
//!
//! Source of the arithmetic:
//! <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#rolling-update-deployment>

use super::model::{Deployment, Strategy};

/// What the decision looks at in one pod that is not leaving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodView {
    pub name: String,
    /// Of the revision that there should be.
    pub current: bool,
    pub ready: bool,
    /// Ready for `minReadySeconds`.
    pub available: bool,
}

/// What to do now.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Moves {
    /// How many pods of the current revision to start.
    pub start: u32,
    /// Which pods to let go.
    pub leave: Vec<String>,
    /// Everything is as it should be.
    pub complete: bool,
}

/// Decides about `deployment`, whose pods are `pods`, `leaving` more being on their way out.
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
    // Fewer replicas are wanted: those that are not ready go first, then the youngest names.
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
            // Old pods that serve nobody go first; then as many others as availability allows.
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
