//! The built-in environment variables of every job. Pure.

use towpath_types::{CommitId, JobId, PipelineId, WorkflowId};

/// The inputs of one node's built-in variables.
#[derive(Debug)]
pub(crate) struct BuiltIn<'a> {
    pub project: &'a str,
    pub pipeline: PipelineId,
    pub pipeline_number: i64,
    pub workflow: WorkflowId,
    pub job: JobId,
    pub job_name: &'a str,
    pub job_number: i64,
    pub node_index: u32,
    pub node_total: u32,
    pub branch: Option<&'a str>,
    pub tag: Option<&'a str>,
    pub commit: &'a CommitId,
    pub working_directory: &'a str,
    /// `http://127.0.0.1:7070`.
    pub base_url: &'a str,
    /// The user who pushed.
    pub user: &'a str,
}

impl BuiltIn<'_> {
    /// The variables, in the order of CircleCI's list.
    ///
    /// Source: <https://circleci.com/docs/reference/variables/#built-in-environment-variables>. Variables that name a pull
    /// request or an organisation are absent: a plain git remote has neither.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let mut variables = vec![
            ("CI", "true".to_string()),
            ("CIRCLECI", "true".to_string()),
            ("CIRCLE_BUILD_NUM", self.job_number.to_string()),
            (
                "CIRCLE_BUILD_URL",
                format!("{}/projects/{}/jobs/{}", self.base_url, self.project, self.job_number),
            ),
            ("CIRCLE_JOB", self.job_name.to_string()),
            ("CIRCLE_NODE_INDEX", self.node_index.to_string()),
            ("CIRCLE_NODE_TOTAL", self.node_total.to_string()),
            ("CIRCLE_PIPELINE_ID", self.pipeline.to_string()),
            ("CIRCLE_PIPELINE_NUMBER", self.pipeline_number.to_string()),
            ("CIRCLE_PROJECT_REPONAME", self.project.to_string()),
            ("CIRCLE_PROJECT_USERNAME", "local".to_string()),
            (
                "CIRCLE_REPOSITORY_URL",
                format!("{}/git/{}.git", self.base_url, self.project),
            ),
            ("CIRCLE_SHA1", self.commit.to_string()),
            ("CIRCLE_USERNAME", self.user.to_string()),
            ("CIRCLE_WORKFLOW_ID", self.workflow.to_string()),
            ("CIRCLE_WORKFLOW_JOB_ID", self.job.to_string()),
            ("CIRCLE_WORKFLOW_WORKSPACE_ID", self.workflow.to_string()),
            ("CIRCLE_WORKING_DIRECTORY", self.working_directory.to_string()),
        ];
        variables.extend(self.branch.map(|branch| ("CIRCLE_BRANCH", branch.to_string())));
        variables.extend(self.tag.map(|tag| ("CIRCLE_TAG", tag.to_string())));
        variables
            .into_iter()
            .map(|(name, value)| (name.to_string(), value))
            .collect()
    }
}

/// Replaces `$NAME` and `${NAME}` with the value from `lookup`; unknown names stay as written.
///
/// CircleCI does this in `docker: image:` and in registry credentials, with project and context variables. Source:
/// <https://circleci.com/docs/guides/execution-managed/private-images/>
pub(crate) fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let braced = after.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let (name, tail) = match braced {
            Some((name, tail)) => (name, tail),
            None => {
                let end = after
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(after.len());
                after.split_at(end)
            }
        };
        match lookup(name).filter(|_| !name.is_empty()) {
            Some(value) => {
                expanded.push_str(&value);
                rest = tail;
            }
            None => {
                expanded.push('$');
                rest = after;
            }
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn variables_in_an_image_are_expanded() {
        let lookup = |name: &str| (name == "REGISTRY").then(|| "127.0.0.1:7070".to_string());
        assert_eq!(expand("$REGISTRY/claims:app", lookup), "127.0.0.1:7070/claims:app");
        assert_eq!(expand("${REGISTRY}/claims", lookup), "127.0.0.1:7070/claims");
        assert_eq!(expand("$OTHER/${OTHER}/$", lookup), "$OTHER/${OTHER}/$");
        assert_eq!(expand("${REGISTRY", lookup), "${REGISTRY");
        assert_eq!(expand("plain", lookup), "plain");
    }
}
