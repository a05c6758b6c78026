//! Requests from a working tree. The manifests come with the request, because they may not be committed.

use crate::{
    error::DeliveryError,
    project_file::{OnFailure, ProjectFile},
};
use serde::{Deserialize, Serialize};
use towpath_manifest::ManifestFile;
use towpath_types::{CommitId, Digest};

/// A request about one environment, from a laptop's working tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaptopRequest {
    /// `latest`, `<branch>-latest`, a commit's id or a whole tag; `None` for the image that the environment runs.
    pub tag: Option<String>,
    /// Every file that environments are made from.
    pub files: Vec<ManifestFile>,
    /// `towpath.toml`, if there is one.
    pub project_file: Option<String>,
    /// The commit that is checked out.
    pub commit: Option<CommitId>,
    /// The name of a Job or CronJob, for a request about one.
    pub name: Option<String>,
    /// The environment to take images from, instead of a tag.
    #[serde(default)]
    pub from: Option<String>,
    /// Overrides what `towpath.toml` says about failures.
    #[serde(default)]
    pub on_failure: Option<OnFailure>,
    /// The reason to deploy in spite of a freeze.
    #[serde(default)]
    pub despite_freeze: Option<String>,
    /// The plan that the requester saw and agreed to. A protected environment requires one.
    #[serde(default)]
    pub plan: Option<Digest>,
}

impl LaptopRequest {
    /// The project file in the request, or the default.
    ///
    /// # Errors
    /// `Invalid`, with line and column, when it cannot be read.
    pub fn parsed_project_file(&self) -> Result<ProjectFile, DeliveryError> {
        match &self.project_file {
            Some(text) => ProjectFile::parse(text).map_err(|error| DeliveryError::invalid(error.to_string())),
            None => Ok(ProjectFile::default()),
        }
    }

    /// The cause of a release that deploys to `environment`, for its history.
    pub(crate) fn cause(&self, environment: &str) -> String {
        let cause = match (&self.from, &self.tag) {
            (Some(from), _) => format!("towpath promote {from} {environment}"),
            (None, Some(tag)) => format!("towpath deploy {environment} {tag}"),
            (None, None) => format!("towpath deploy {environment}"),
        };
        match &self.despite_freeze {
            Some(reason) => format!("{cause} despite a freeze: {}", reason.trim_end()),
            None => cause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_says_what_was_asked_for() {
        let request = |from: Option<&str>, tag: Option<&str>, freeze: Option<&str>| LaptopRequest {
            from: from.map(str::to_string),
            tag: tag.map(str::to_string),
            despite_freeze: freeze.map(str::to_string),
            ..LaptopRequest::default()
        };
        for (request, cause) in [
            (request(None, Some("latest"), None), "towpath deploy dev latest"),
            (request(None, None, None), "towpath deploy dev"),
            (request(Some("qa"), Some("x"), None), "towpath promote qa dev"),
            (
                request(None, None, Some("it burns ")),
                "towpath deploy dev despite a freeze: it burns",
            ),
        ] {
            assert_eq!(request.cause("dev"), cause);
        }
    }
}
