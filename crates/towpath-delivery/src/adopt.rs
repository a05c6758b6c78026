//! What a first deployment over a running environment would take over, and from whom. Changes nothing.

use crate::{error::DeliveryError, planner::Planner, request::LaptopRequest};
use serde::{Deserialize, Serialize};
use towpath_deploy::{HelmRelease, OtherObject, Surveyed};
use towpath_manifest::ChangeKind;
use towpath_types::EnvironmentId;

/// What a deployment does to an object that may be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Adoption {
    /// It does not exist.
    Created,
    /// It becomes Towpath's, or is, and changes.
    Changed,
    /// It becomes Towpath's, and stays as it is.
    TakenOver,
    /// It is Towpath's, and stays as it is.
    Unchanged,
}

impl Adoption {
    fn of(surveyed: &Surveyed) -> Self {
        match (surveyed.change.kind, surveyed.is_taken_over) {
            (ChangeKind::Created, _) => Self::Created,
            (ChangeKind::Changed, _) if !surveyed.change.hunks.is_empty() => Self::Changed,
            (_, true) => Self::TakenOver,
            (_, false) => Self::Unchanged,
        }
    }
}

/// An object of the manifests, and what becomes of it.
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptedObject {
    pub kind: String,
    pub name: String,
    /// Where its manifest is.
    pub place: String,
    pub adoption: Adoption,
    /// Who has deployed it, as words.
    pub from: Vec<String>,
    /// The field managers whose values the manifest overrules.
    pub overruled: Vec<String>,
    /// A unified diff of its YAML, without values of Secrets. Empty for an object that does not change.
    pub diff: String,
}

/// What a deployment would take over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptionView {
    /// The environment's name within its project.
    pub environment: String,
    /// The namespace that it is in.
    pub namespace: String,
    /// The objects of the manifests.
    pub objects: Vec<AdoptedObject>,
    /// What there is that no manifest has. A deployment leaves it alone.
    pub others: Vec<OtherObject>,
    /// The releases that Helm has recorded.
    pub helm: Vec<HelmRelease>,
    /// Reasons why a deployment could not begin; sentences.
    pub blockers: Vec<String>,
    /// What is worth knowing; sentences.
    pub warnings: Vec<String>,
}

impl Planner {
    /// What the deployment of a laptop's request would take over.
    ///
    /// # Errors
    /// As for [`Planner::plan_of_request`].
    pub async fn adoption(&self, id: &EnvironmentId, request: LaptopRequest) -> Result<AdoptionView, DeliveryError> {
        let plan = self.plan_of_request(id, request).await?;
        let survey = self.target.survey(&plan.place, &plan.objects).await?;
        let object = |surveyed: &Surveyed| {
            let adoption = Adoption::of(surveyed);
            AdoptedObject {
                kind: surveyed.change.id.kind.clone(),
                name: surveyed.change.id.name.clone(),
                place: surveyed.change.place.to_string(),
                from: surveyed.owners.clone(),
                overruled: surveyed.overruled.clone(),
                diff: match adoption {
                    Adoption::Changed => surveyed.change.to_string(),
                    Adoption::Created | Adoption::TakenOver | Adoption::Unchanged => String::new(),
                },
                adoption,
            }
        };
        Ok(AdoptionView {
            environment: plan.environment().to_string(),
            namespace: plan.place.namespace.clone(),
            objects: survey.objects.iter().map(object).collect(),
            others: survey.others,
            // What cannot be listed is among the warnings.
            helm: self.target.helm_releases(&plan.place).await?.unwrap_or_default(),
            blockers: plan.blockers,
            warnings: plan.warnings.into_iter().chain(survey.unseen).collect(),
        })
    }
}
