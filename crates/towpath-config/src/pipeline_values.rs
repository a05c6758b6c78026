//! The values behind `<< pipeline.… >>`.

use std::collections::BTreeMap;

use serde_json::Value as Json;

/// The values behind `<< pipeline.… >>`, by name without the prefix `pipeline.`.
///
/// A known name without a value is null: false in a condition, empty in a text.
///
/// Source: <https://circleci.com/docs/reference/variables/#pipeline-values>
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PipelineValues {
    values: BTreeMap<String, Json>,
}

/// Every name of the language. A name that ends with a dot stands for all names below it.
pub(crate) const PIPELINE_VALUES: &[&str] = &[
    "id",
    "number",
    "name",
    "definition.id",
    "project.git_url",
    "project.type",
    "project.slug",
    "integration_source",
    "trigger_source",
    "trigger.id",
    "trigger.type",
    "trigger.name",
    "trigger.received_at",
    "schedule.name",
    "schedule.id",
    "git.branch",
    "git.tag",
    "git.revision",
    "git.base_revision",
    "git.branch.is_default",
    "git.repo_url",
    "git.repo_owner",
    "git.repo_name",
    "git.repo_id",
    "git.commit.url",
    "git.commit.subject",
    "git.commit.body",
    "git.commit.author_login",
    "git.commit.author_name",
    "git.commit.author_email",
    "git.commit.author_avatar_url",
    "git.ssh_checkout_url",
    "config.repository.name",
    "config.repository.url",
    "config.file_path",
    "config.ref",
    "config.sha",
    "event.name",
    "event.action",
    "event.github.",
    "event.context.",
    "trigger_parameters.",
    "deploy.component_name",
    "deploy.environment_name",
    "deploy.target_version",
    "deploy.current_version",
    "deploy.namespace",
    "deploy.reason",
];

/// The names for which CircleCI's command line has an empty text.
const EMPTY: &[&str] = &[
    "name",
    "git.tag",
    "git.ssh_checkout_url",
    "git.commit.author_avatar_url",
    "git.commit.author_email",
    "git.commit.author_login",
    "git.commit.author_name",
    "git.commit.body",
    "git.commit.subject",
    "git.commit.url",
    "git.repo_id",
    "git.repo_name",
    "git.repo_owner",
    "trigger.type",
    "trigger.name",
    "schedule.name",
    "schedule.id",
    "event.name",
    "event.action",
    "event.github.label",
    "event.github.comment.body",
    "event.github.head_commit.url",
    "event.github.pull_request.title",
    "event.github.sender.avatar_url",
    "event.github.sender.type",
    "config.file_path",
    "config.repository.name",
    "deploy.component_name",
    "deploy.environment_name",
    "deploy.target_version",
    "deploy.current_version",
    "deploy.namespace",
    "deploy.reason",
    "trigger_parameters.webhook.body",
    "trigger_parameters.github_app.commit_title",
    "trigger_parameters.github_app.commit_message",
    "trigger_parameters.github_app.commit_author_name",
    "trigger_parameters.github_app.repo_name",
    "trigger_parameters.github_app.repo_url",
    "trigger_parameters.github_app.user_avatar",
    "trigger_parameters.github_app.user_name",
    "trigger_parameters.github_app.user_username",
    "trigger_parameters.github_app.web_url",
];

/// Whether the language has the pipeline value `name`, without the prefix `pipeline.`.
pub(crate) fn is_pipeline_value(name: &str) -> bool {
    PIPELINE_VALUES.iter().any(|known| match known.strip_suffix('.') {
        Some(_) => name.starts_with(known),
        None => name == *known,
    })
}

impl PipelineValues {
    /// Creates an empty set of values.
    pub fn new() -> PipelineValues {
        PipelineValues::default()
    }

    /// The placeholder values with which CircleCI's command line processes a local file.
    ///
    /// Source: <https://github.com/CircleCI-Public/circleci-cli/blob/main/config/pipeline.go>
    pub fn local() -> PipelineValues {
        const ID: &str = "00000000-0000-0000-0000-000000000001";
        const URL: &str = "https://github.com/local/project";
        const REVISION: &str = "0000000000000000000000000000000000000000";
        const TIME: &str = "2020-01-01T00:00:00Z";
        let mut values = PipelineValues::new();
        for name in EMPTY {
            values.set(name, "");
        }
        let of_event = |name: &str| format!("event.github.{name}");
        let of_app = |name: &str| format!("trigger_parameters.github_app.{name}");
        for name in ["project.git_url", "git.repo_url", "config.repository.url"] {
            values.set(name, URL);
        }
        values.set("event.context.github.pr_url", URL);
        for name in ["repository.url", "pull_request.url"] {
            values.set(&of_event(name), URL);
        }
        for name in ["git.revision", "git.base_revision", "config.sha"] {
            values.set(name, REVISION);
        }
        for name in ["after", "pull_request.head.sha", "pull_request.base.sha"] {
            values.set(&of_event(name), REVISION);
        }
        for name in ["checkout_sha", "commit_sha"] {
            values.set(&of_app(name), REVISION);
        }
        for (name, value) in [
            ("repository.name", "repo-name"),
            ("repository.owner.login", "repo-owner"),
            ("sender.login", "user-login"),
            ("ref", "branch-name"),
            ("pull_request.base.ref", "base-branch"),
            ("pull_request.head.ref", "head-branch"),
        ] {
            values.set(&of_event(name), value);
        }
        values
            .with("id", ID)
            .with("number", 1)
            .with("project.type", "github")
            .with("git.branch", "main")
            .with("git.branch.is_default", false)
            .with("trigger_source", "webhook")
            .with("trigger.id", ID)
            .with("trigger.received_at", TIME)
            .with("config.ref", "refs/head/master")
            .with("trigger_parameters.circleci.event_time", TIME)
            .with("trigger_parameters.circleci.trigger_type", "github_app")
            .with("trigger_parameters.circleci.event_type", "push")
            .with(&of_app("branch"), "main")
            .with(&of_app("commit_timestamp"), TIME)
            .with(&of_app("ref"), "refs/heads/master")
            .with(&of_app("total_commits_count"), 1)
            .with(&of_app("user_id"), ID)
            .with("trigger_parameters.gitlab.commit_sha", REVISION)
            .with("trigger_parameters.gitlab.default_branch", "main")
            .with("trigger_parameters.gitlab.x_gitlab_event_id", ID)
            .with("trigger_parameters.gitlab.is_fork_merge_request", false)
            .with(&of_event("pull_request.number"), 111)
            .with(&of_event("pull_request.merged"), false)
            .with(&of_event("pull_request.draft"), false)
    }

    /// Adds a value: text, an integer, a boolean or null. `name` has no prefix `pipeline.`.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Json>) -> PipelineValues {
        self.set(name, value);
        self
    }

    /// Sets a value as [`PipelineValues::with`] does. Null removes it.
    pub fn set(&mut self, name: &str, value: impl Into<Json>) {
        match value.into() {
            Json::Null => self.values.remove(name),
            value => self.values.insert(name.to_owned(), value),
        };
    }

    /// The value of `name`, unless it is null.
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.values.get(name)
    }

    /// The branch of the pipeline. A pipeline of a tag has none.
    pub fn branch(&self) -> Option<&str> {
        self.text("git.branch")
    }

    /// The tag of the pipeline, if a tag started it.
    pub fn tag(&self) -> Option<&str> {
        self.text("git.tag")
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Json::as_str).filter(|text| !text.is_empty())
    }
}
