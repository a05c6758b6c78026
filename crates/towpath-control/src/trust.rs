//! How far a job is trusted, depending on its branch.

use crate::storage::store_error;
use towpath_delivery::DeliveryError;
use towpath_store::{JobRow, Store};

/// The trust domain of a job. Each domain has its own caches, so that a push to somebody's own branch cannot affect
/// what the default branch builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TrustDomain {
    /// The project's default branch.
    Protected,
    /// Any other branch, and every tag.
    Branch,
}

impl TrustDomain {
    /// The trust domain of `job`.
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

    /// Its name in storage.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Protected => "protected",
            Self::Branch => "branch",
        }
    }

    /// The domains whose caches such a job may restore, in lookup order: never a less trusted one.
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
