//! Whether the hooks of an installation run, or those of an upgrade.

use towpath_deploy::HelmRelease;
use towpath_manifest::HookOccasion;

/// What Helm calls a release of which it has only kept the history: installing it again is an installation.
///
/// Source: <https://github.com/helm/helm/blob/main/pkg/cmd/upgrade.go>
const UNINSTALLED: &str = "uninstalled";

/// What Helm has left in an environment where Towpath has released nothing yet.
pub(crate) struct HelmTraces<'a> {
    /// The releases that it has recorded; `None` if this account may not look.
    pub recorded: Option<&'a [HelmRelease]>,
    /// The name under which Towpath renders the chart.
    pub release: &'a str,
    /// Whether it has deployed an object of the plan, under whatever name.
    pub has_deployed: bool,
}

/// What is known of an application before its deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// Towpath has released it, or Helm has installed it.
    Installed,
    /// It was never installed.
    New,
    /// No object says that it was installed, and Helm's records cannot be read.
    Unsure,
}

impl HelmTraces<'_> {
    /// Other releases of the namespace do not count.
    pub(crate) fn known(&self) -> Known {
        let is_ours = |release: &HelmRelease| release.name == self.release && release.status != UNINSTALLED;
        match self.recorded {
            _ if self.has_deployed => Known::Installed,
            None => Known::Unsure,
            Some(recorded) if recorded.iter().any(is_ours) => Known::Installed,
            Some(_) => Known::New,
        }
    }
}

impl Known {
    pub(crate) fn occasion(self) -> HookOccasion {
        match self {
            Self::Installed => HookOccasion::Upgrade,
            Self::New | Self::Unsure => HookOccasion::Install,
        }
    }

    /// A sentence for the plan, if somebody should look.
    pub(crate) fn warning(self, namespace: &str) -> Option<String> {
        (self == Self::Unsure).then(|| {
            format!(
                "this account may not list Secrets in `{namespace}`, so Helm's records of its releases are not known. No object of \
                 this plan says that Helm has installed it, so the hooks of an installation run (`pre-install`, `post-install`)"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(name: &str, status: &str) -> HelmRelease {
        HelmRelease {
            name: name.into(),
            revision: 2,
            status: status.into(),
            revisions: 2,
        }
    }

    #[test]
    fn only_what_helm_has_done_with_this_chart_counts() {
        let check = |recorded: Option<&[HelmRelease]>, has_deployed: bool, expected: Known| {
            let traces = HelmTraces {
                recorded,
                release: "shop",
                has_deployed,
            };
            assert_eq!(traces.known(), expected, "{recorded:?} {has_deployed}");
        };
        check(Some(&[]), false, Known::New);
        check(Some(&[]), true, Known::Installed);
        check(Some(&[release("cache", "deployed")]), false, Known::New);
        check(Some(&[release("cache", "deployed")]), true, Known::Installed);
        check(Some(&[release("shop", "failed")]), false, Known::Installed);
        check(Some(&[release("shop", "uninstalled")]), false, Known::New);
        check(None, false, Known::Unsure);
        check(None, true, Known::Installed);
    }

    #[test]
    fn who_cannot_know_says_so() {
        assert_eq!(Known::Unsure.occasion(), HookOccasion::Install);
        assert!(
            Known::Unsure
                .warning("shop-dev")
                .unwrap_or_default()
                .contains("`shop-dev`")
        );
        assert_eq!((Known::New.warning("a"), Known::Installed.warning("a")), (None, None));
    }
}
