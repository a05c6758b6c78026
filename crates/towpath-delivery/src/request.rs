//! What people ask for from a working tree: the manifests come with the request, for they may be in no commit.

use crate::{
    error::DeliveryError,
    project_file::{OnFailure, ProjectFile},
};
use serde::{Deserialize, Serialize};
use towpath_manifest::ManifestFile;
use towpath_types::{CommitId, Digest};

/// Something to do in one environment, from a laptop's working tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaptopRequest {
    /// `latest`, `<branch>-latest`, a commit's id or a whole tag; `None` for the image that the environment runs.
    pub tag: Option<String>,
    /// Every file below `.k8s/`.
    pub files: Vec<ManifestFile>,
    /// `towpath.toml`, if there is one.
    pub project_file: Option<String>,
    /// The commit that is checked out.
    pub commit: Option<CommitId>,
    /// The name of a Job or CronJob, where the request is about one.
    pub name: Option<String>,
    /// The environment whose images are meant, instead of a tag's.
    #[serde(default)]
    pub from: Option<String>,
    /// What happens when it fails, instead of what `towpath.toml` says.
    #[serde(default)]
    pub on_failure: Option<OnFailure>,
    /// Why it is deployed although the environment is frozen.
    #[serde(default)]
    pub despite_freeze: Option<String>,
    /// The plan that whoever asks was shown and agreed to. A protected environment wants one.
    #[serde(default)]
    pub plan: Option<Digest>,
}

impl LaptopRequest {
    /// The project file that came with the request; the default one if none did.
    ///
    /// # Errors
    /// `Invalid`, with line and column, when it cannot be read.
    pub fn parsed_project_file(&self) -> Result<ProjectFile, DeliveryError> {
        match &self.project_file {
            Some(text) => ProjectFile::parse(text).map_err(|error| DeliveryError::invalid(error.to_string())),
            None => Ok(ProjectFile::default()),
        }
    }

    /// How a release that deploys to `environment` came to be, as its history says.
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
