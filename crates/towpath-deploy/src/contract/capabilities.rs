//! Where targets may differ.

/// What happens to a second `apply` for an environment while another is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecondApply {
    /// It waits until the first has ended.
    Waits,
    /// It fails with `Rejected`.
    IsRefused,
}

/// Where targets may differ from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// `releases` lists the releases, and `current` names a running deployment. Otherwise only the caller records them.
    pub records_releases: bool,
    /// `apply` itself refuses whom a hold keeps out. Otherwise the caller has to look at `current` first.
    pub enforces_holds: bool,
    /// `preflight` predicts the changes. Otherwise the caller compares with the last release.
    pub predicts_changes: bool,
    /// Others can change the objects, and `drift` finds that.
    pub finds_drift: bool,
    /// A run of a job is refused while another run with the same label is under way.
    pub runs_exclude_each_other: bool,
    #[allow(missing_docs)]
    pub second_apply: SecondApply,
}

impl Capabilities {
    /// The Kubernetes target.
    pub const KUBERNETES: Self = Self {
        records_releases: true,
        enforces_holds: true,
        predicts_changes: true,
        finds_drift: true,
        runs_exclude_each_other: true,
        second_apply: SecondApply::Waits,
    };

    /// The local target.
    pub const LOCAL: Self = Self {
        records_releases: false,
        enforces_holds: false,
        predicts_changes: false,
        finds_drift: false,
        runs_exclude_each_other: false,
        second_apply: SecondApply::IsRefused,
    };
}
