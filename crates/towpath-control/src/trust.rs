//! How far a job is trusted: by what its branch is.

use crate::storage::store_error;
use towpath_delivery::DeliveryError;
use towpath_store::{JobRow, Store};

/// The trust domain of a job. Its caches are kept apart from those of the others, so that what somebody pushes to a branch of
/// their own cannot end up in what the default branch builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TrustDomain {
    /// The project's default branch.
    Protected,
    /// Any other branch, and every tag.
    Branch,
}

impl TrustDomain {
    /// Of a job.
    ///
    /// # Errors
    /// When the storage does not work.
    pub(crate) async fn of(store: &dyn Store, job: &JobRow) -> Result<Self, DeliveryError> {
        let workflow = store.workflow(job.workflow).await.map_err(store_error)?;
        let project = store.project(&job.project).await.map_err(store_error)?;
        let branch = workflow.and_then(|row| row.branch);
        Ok(Self::of_branch(
            branch.as_deref(),
            project.as_ref().map(|row| row.default_branch.as_str()),
        ))
    }

    fn of_branch(branch: Option<&str>, default: Option<&str>) -> Self {
        match branch {
            Some(branch) if Some(branch) == default => Self::Protected,
            Some(_) | None => Self::Branch,
        }
    }

    /// As it is stored.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Protected => "protected",
            Self::Branch => "branch",
        }
    }

    /// Whose caches such a job restores, the first that has one: never those of somebody whom it trusts less.
    pub(crate) fn restores(self) -> &'static [Self] {
        match self {
            Self::Protected => &[Self::Protected],
            Self::Branch => &[Self::Branch, Self::Protected],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_default_branch_is_protected_and_it_restores_its_own_only() {
        let of = TrustDomain::of_branch;
        assert_eq!(of(Some("main"), Some("main")), TrustDomain::Protected);
        for other in [of(Some("evil"), Some("main")), of(None, Some("main")), of(None, None)] {
            assert_eq!(other, TrustDomain::Branch);
        }
        assert_eq!(TrustDomain::Protected.restores(), [TrustDomain::Protected]);
        assert_eq!(
            TrustDomain::Branch.restores(),
            [TrustDomain::Branch, TrustDomain::Protected]
        );
    }
}
