//! A plan as pages and the command line show it.

use super::{
    content::{Plan, PlanChange, PlanCommit, images_text},
    wire::{self, PlanWireError},
};
use crate::project_file::OnFailure;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use towpath_manifest::{HookEvent, Object};
use towpath_store::PlanRow;
use towpath_types::{CommitId, Digest, ImageReference, ReleaseId};

/// What a deployment would do, or did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanView {
    /// The digest of everything in the plan. Approvals name the plan by this.
    pub id: Digest,
    /// The environment's name within its project.
    pub environment: String,
    /// The images, pinned by their digests, separated by commas.
    pub image: String,
    /// The images by name.
    pub images: BTreeMap<String, ImageReference>,
    /// The images of the release that runs now, if one does.
    pub previous_image: Option<String>,
    /// The images of that release by name.
    #[serde(default)]
    pub previous_images: BTreeMap<String, ImageReference>,
    /// The images that are not the project's, as the manifests have them, each with the digest that its tag meant when
    /// the plan was made; `None` if no registry told it. They stay as they are.
    #[serde(default)]
    pub third_party: BTreeMap<String, Option<Digest>>,
    /// The release that it starts from.
    pub parent: Option<ReleaseId>,
    /// The commit that the image was built from; if that is unknown, the commit of the manifests.
    pub commit: Option<CommitId>,
    /// The commits since the release that it starts from, newest first.
    pub commits: Vec<PlanCommit>,
    /// Every object that would change.
    pub changes: Vec<PlanChange>,
    /// The number of objects that stay unchanged.
    pub unchanged: usize,
    /// The Jobs that run around the deployment, in their order.
    #[serde(default)]
    pub hooks: Vec<PlanHook>,
    /// What happens when it fails.
    pub on_failure: OnFailure,
    /// Reasons why the plan cannot be carried out; sentences.
    pub blockers: Vec<String>,
    /// Warnings, which do not prevent the deployment; sentences.
    pub warnings: Vec<String>,
}

/// What a plan does to one of the project's images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageChange<'a> {
    /// The release that runs now has none of the name.
    New(&'a ImageReference),
    /// It stays as it is.
    Same(&'a ImageReference),
    /// Another one takes its place.
    Changed {
        #[allow(missing_docs)]
        from: &'a ImageReference,
        #[allow(missing_docs)]
        to: &'a ImageReference,
    },
    /// The new release has none of the name.
    Gone(&'a ImageReference),
}

/// A Job that a plan runs.
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanHook {
    /// `pre-upgrade`.
    pub event: String,
    pub name: String,
    /// The image of its first container.
    pub image: String,
}

impl PlanHook {
    fn of((event, job): &(HookEvent, Object)) -> Self {
        let image = towpath_manifest::containers(job).into_iter().next();
        Self {
            event: event.to_string(),
            name: job.name.clone(),
            image: image.map(|container| container.image).unwrap_or_default(),
        }
    }
}

impl PlanView {
    /// What the plan does to each image, by name.
    #[must_use]
    pub fn image_changes(&self) -> BTreeMap<&str, ImageChange<'_>> {
        let names = self.images.keys().chain(self.previous_images.keys());
        let change = |name| match (self.previous_images.get(name), self.images.get(name)) {
            (None, None) => None,
            (None, Some(to)) => Some(ImageChange::New(to)),
            (Some(from), None) => Some(ImageChange::Gone(from)),
            (Some(from), Some(to)) if from == to => Some(ImageChange::Same(to)),
            (Some(from), Some(to)) => Some(ImageChange::Changed { from, to }),
        };
        names.filter_map(|name| Some((name.as_str(), change(name)?))).collect()
    }

    /// The view of a stored plan.
    ///
    /// # Errors
    /// When it was written by a newer Towpath, or not by Towpath.
    pub fn from_row(row: &PlanRow) -> Result<Self, PlanWireError> {
        wire::read(row.plan.clone()).map(|plan| Self::named(row.digest.clone(), plan))
    }

    fn named(id: Digest, plan: Plan) -> Self {
        Self {
            id,
            environment: plan.environment().to_string(),
            image: plan.images_text(),
            previous_image: (!plan.previous_images.is_empty()).then(|| images_text(&plan.previous_images)),
            images: plan.images,
            previous_images: plan.previous_images,
            third_party: plan.third_party,
            parent: plan.parent,
            commit: plan.commit,
            commits: plan.commits,
            changes: plan.changes,
            unchanged: plan.unchanged,
            hooks: plan
                .hooks
                .before()
                .iter()
                .chain(&plan.hooks.after())
                .map(PlanHook::of)
                .collect(),
            on_failure: plan.on_failure,
            blockers: plan.blockers,
            warnings: plan.warnings,
        }
    }
}

impl From<Plan> for PlanView {
    fn from(plan: Plan) -> Self {
        Self::named(plan.digest(), plan)
    }
}
