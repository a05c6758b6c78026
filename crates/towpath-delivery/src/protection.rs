//! Protected environments: the conditions for a release to begin in one.
//!
//! - **Invariant:** the project's default branch declares which environments are protected. The deployed commit does
//!   not.
//! - **Invariant:** every release and every run passes [`decide`] before it begins, wherever it comes from.
//!
//! An environment that shares its namespace with a protected one is as protected as that one: writing to one means
//! writing to the other.

use crate::{
    agreement::Agreed,
    error::DeliveryError,
    plan::{Plan, PlanView},
    project_file::ProjectFile,
    repository::{DefaultFile, Repositories, project_name},
};
use jiff::Timestamp;
use std::{collections::BTreeMap, sync::Arc};
use towpath_deploy::Environment;
use towpath_store::{Commit, EnvironmentRow, Store, Write};
use towpath_types::{CommitId, EnvironmentId, ProjectName};

/// The protection of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Protection {
    /// Everybody who may deploy at all may deploy there.
    Open,
    /// Only plans that somebody has seen and agreed to begin there. The phrase, which follows the environment's name,
    /// says why.
    Protected(String),
}

/// Whether a commit is on a protected branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reach {
    pub commit: CommitId,
    /// The project's protected branches.
    pub branches: Vec<String>,
    /// Whether one of them contains the commit.
    pub is_reached: bool,
}

/// Where a release or a run comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// A job of a pipeline asks for it.
    Pipeline(Reach),
    /// A person asks for it: from a laptop, on a page, by the API.
    Person,
}

/// What is known about a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub way: &'a Way,
    pub agreed: &'a Agreed,
    /// The project file in the request, for a project without a repository here.
    pub project_file: Option<&'a ProjectFile>,
}

/// Whether something may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Begin,
    /// Somebody has to see the plan and agree to it first; the sentence says why.
    Show(String),
    /// It must not begin from there; a sentence.
    Refuse(String),
}

/// Decides whether something may begin in an environment called `environment`.
///
/// A request that names a plan is held to that plan, whether or not the environment is protected.
pub(crate) fn decide(environment: &str, protection: &Protection, way: &Way, agreed: &Agreed) -> Verdict {
    if let (Protection::Protected(why), Way::Pipeline(reach)) = (protection, way)
        && !reach.is_reached
    {
        return Verdict::Refuse(format!(
            "{environment} is protected{why}: a pipeline deploys there only commits of {}, and {} is on none of them. Merge it \
             first",
            named(&reach.branches),
            reach.commit
        ));
    }
    match (agreed, protection) {
        (Agreed::This, _) | (Agreed::Nothing, Protection::Open) => Verdict::Begin,
        (Agreed::Nothing, Protection::Protected(why)) => Verdict::Show(format!(
            "{environment} is protected{why}: look at the plan, and name it by its whole digest"
        )),
        (Agreed::Other(differences), _) => Verdict::Show(format!(
            "the plan for {environment} is no longer the one that you named: {}. Look at the new plan",
            differences.join("; ")
        )),
    }
}

/// The branches as text for people.
fn named(branches: &[String]) -> String {
    let quoted: Vec<String> = branches.iter().map(|branch| format!("`{branch}`")).collect();
    match quoted.as_slice() {
        [] => "a protected branch, and there is none".into(),
        [one] => format!("the protected branch {one}"),
        several => format!("the protected branches {}", several.join(", ")),
    }
}

/// What a project declares about its environments.
enum Rules {
    Known(Box<ProjectFile>),
    /// The reason why the default branch's file cannot be read.
    Unreadable(String),
}

impl Rules {
    fn of(&self, environment: &str) -> Protection {
        match self {
            Self::Known(file) if file.is_protected(environment) => Protection::Protected(String::new()),
            Self::Known(_) => Protection::Open,
            // The previous rules are unknown, so apply the strictest.
            Self::Unreadable(why) => Protection::Protected(format!(
                ", as every environment is while the default branch's project file cannot be read ({why})"
            )),
        }
    }
}

/// Whether the kube context `other` is another cluster than that of `place`. Two kube contexts may be one cluster, and a branch
/// may name any; but where a default branch has the environment is taken at its word.
fn are_apart(rows: &[EnvironmentRow], place: &Environment, other: &str) -> bool {
    let is_listed = |row: &EnvironmentRow| row.id == place.id && row.listed && row.kube_context == place.kube_context;
    place.kube_context != other && rows.iter().any(is_listed)
}

/// Determines which environments are protected.
#[derive(Clone)]
pub struct Protections {
    store: Arc<dyn Store>,
    repositories: Repositories,
}

impl Protections {
    pub(crate) fn new(store: Arc<dyn Store>, repositories: Repositories) -> Self {
        Self { store, repositories }
    }

    /// Whether an environment is protected, as far as that is known without reading its manifests.
    ///
    /// # Errors
    /// When the project's repository or the store does not answer.
    pub async fn is_protected(&self, id: &EnvironmentId) -> Result<bool, DeliveryError> {
        let protection = match self.store.environment(id).await? {
            Some(row) => {
                let place = Environment {
                    id: row.id,
                    kube_context: row.kube_context,
                    namespace: row.namespace,
                };
                self.of(&place, None).await?
            }
            None => self
                .rules(&project_name(id.project())?, None)
                .await?
                .of(id.environment()),
        };
        Ok(protection != Protection::Open)
    }

    /// The rules on a project's default branch. `otherwise` decides for a project without a repository here.
    async fn rules(&self, project: &ProjectName, otherwise: Option<&ProjectFile>) -> Result<Rules, DeliveryError> {
        Ok(match self.repositories.default_file(project).await? {
            DefaultFile::NoRepository => Rules::Known(Box::new(otherwise.cloned().unwrap_or_default())),
            DefaultFile::Read(file) => Rules::Known(file),
            DefaultFile::Unreadable(why) => Rules::Unreadable(why),
        })
    }

    /// The protection of the environment at `place`. `otherwise` is the requester's project file.
    pub(crate) async fn of(
        &self,
        place: &Environment,
        otherwise: Option<&ProjectFile>,
    ) -> Result<Protection, DeliveryError> {
        let own = project_name(place.id.project())?;
        let own_rules = self.rules(&own, otherwise).await?;
        let protection = own_rules.of(place.id.environment());
        if protection != Protection::Open {
            return Ok(protection);
        }
        let mut read = BTreeMap::from([(own, own_rules)]);
        let rows = self.store.environments(None).await?;
        for row in &rows {
            if row.id == place.id || row.namespace != place.namespace || are_apart(&rows, place, &row.kube_context) {
                continue;
            }
            let project = project_name(row.id.project())?;
            if !read.contains_key(&project) {
                let rules = self.rules(&project, None).await?;
                read.insert(project.clone(), rules);
            }
            let there = read.get(&project).map(|rules| rules.of(row.id.environment()));
            if there.is_some_and(|there| there != Protection::Open) {
                return Ok(Protection::Protected(format!(
                    ", for it shares the namespace `{}` with {} of {}",
                    place.namespace,
                    row.id.environment(),
                    row.id.project()
                )));
            }
        }
        Ok(Protection::Open)
    }

    /// Whether a commit of a project is on one of its protected branches.
    pub(crate) async fn reach(&self, project: &ProjectName, commit: &CommitId) -> Result<Reach, DeliveryError> {
        let file = match self.repositories.default_file(project).await? {
            DefaultFile::Read(file) => file,
            DefaultFile::NoRepository | DefaultFile::Unreadable(_) => Box::default(),
        };
        let mut branches = vec![self.repositories.default_branch(project).await?];
        for branch in file.protected_branches {
            if !branches.contains(&branch) {
                branches.push(branch);
            }
        }
        let mut is_reached = false;
        for branch in &branches {
            is_reached = self.repositories.is_on_branch(project, commit, branch).await?;
            if is_reached {
                break;
            }
        }
        Ok(Reach {
            commit: commit.clone(),
            branches,
            is_reached,
        })
    }

    /// Returns an error for a plan that must not begin in its environment. A plan that somebody has to see first is
    /// stored, so that their agreement can be checked against it, and is attached to the error.
    ///
    /// # Errors
    /// `Conflict` when it may not begin; when the project's repository or the store does not answer.
    pub(crate) async fn refuse_unagreed(
        &self,
        plan: &Plan,
        asked: Asked<'_>,
        now: Timestamp,
    ) -> Result<(), DeliveryError> {
        let protection = self.of(&plan.place, asked.project_file).await?;
        match decide(plan.environment(), &protection, asked.way, asked.agreed) {
            Verdict::Begin => Ok(()),
            Verdict::Refuse(why) => Err(DeliveryError::conflict(why)),
            Verdict::Show(why) => {
                self.store
                    .commit(Commit::new().with(Write::Plan(plan.row(now))))
                    .await?;
                Err(DeliveryError::conflict(why).showing(PlanView::from(plan.clone())))
            }
        }
    }

    /// A warning for a person who deploys a commit to a protected environment that is on no protected branch; `None` if
    /// no warning is needed.
    pub(crate) async fn unmerged(&self, plan: &Plan, otherwise: &ProjectFile) -> Result<Option<String>, DeliveryError> {
        let Some(commit) = &plan.commit else {
            return Ok(None);
        };
        if self.of(&plan.place, Some(otherwise)).await? == Protection::Open {
            return Ok(None);
        }
        let project = project_name(plan.place.id.project())?;
        if matches!(
            self.repositories.default_file(&project).await?,
            DefaultFile::NoRepository
        ) {
            return Ok(None);
        }
        let reach = self.reach(&project, commit).await?;
        Ok((!reach.is_reached).then(|| format!("{commit} is not a commit of {}", named(&reach.branches))))
    }

    /// The reason why a pipeline may not carry out `plan`, whoever agrees to it; `None` if it may.
    pub(crate) async fn why_not(&self, plan: &Plan, way: &Way) -> Result<Option<String>, DeliveryError> {
        let protection = self.of(&plan.place, None).await?;
        Ok(match decide(plan.environment(), &protection, way, &Agreed::This) {
            Verdict::Refuse(why) => Some(why),
            Verdict::Begin | Verdict::Show(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn reach(is_reached: bool) -> Way {
        Way::Pipeline(Reach {
            commit: "0123456789abcdef0123456789abcdef01234567".parse().unwrap(),
            branches: vec!["main".into(), "release".into()],
            is_reached,
        })
    }

    fn other() -> Agreed {
        Agreed::Other(vec!["the image is another".into()])
    }

    /// Every combination of inputs.
    #[test]
    fn what_may_begin_is_decided_in_one_table() {
        let protected = Protection::Protected(String::new());
        let word = |verdict: &Verdict| match verdict {
            Verdict::Begin => "begin",
            Verdict::Show(_) => "show",
            Verdict::Refuse(_) => "refuse",
        };
        for (protection, way, agreed, expected) in [
            (&Protection::Open, Way::Person, Agreed::Nothing, "begin"),
            (&Protection::Open, Way::Person, Agreed::This, "begin"),
            (&Protection::Open, Way::Person, other(), "show"),
            (&Protection::Open, reach(false), Agreed::Nothing, "begin"),
            (&Protection::Open, reach(false), Agreed::This, "begin"),
            (&Protection::Open, reach(true), other(), "show"),
            (&protected, Way::Person, Agreed::Nothing, "show"),
            (&protected, Way::Person, Agreed::This, "begin"),
            (&protected, Way::Person, other(), "show"),
            (&protected, reach(true), Agreed::Nothing, "show"),
            (&protected, reach(true), Agreed::This, "begin"),
            (&protected, reach(true), other(), "show"),
            (&protected, reach(false), Agreed::Nothing, "refuse"),
            (&protected, reach(false), Agreed::This, "refuse"),
            (&protected, reach(false), other(), "refuse"),
        ] {
            let verdict = decide("production", protection, &way, &agreed);
            assert_eq!(word(&verdict), expected, "{protection:?} {way:?} {agreed:?}");
        }
    }

    #[test]
    fn a_refusal_says_which_branches_would_do() {
        let protected = Protection::Protected(String::new());
        let verdict = decide("production", &protected, &reach(false), &Agreed::This);
        assert_eq!(
            verdict,
            Verdict::Refuse(
                "production is protected: a pipeline deploys there only commits of the protected branches `main`, `release`, and \
                 0123456789abcdef0123456789abcdef01234567 is on none of them. Merge it first"
                    .into()
            )
        );
    }
}
