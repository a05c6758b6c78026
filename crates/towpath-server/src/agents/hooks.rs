//! Git's hooks: `pre-receive` asks before git accepts a push, `post-receive` tells that it has.

use super::speaker::Pushed;
use crate::{App, answer};
use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use towpath_control::{MOST_TAGS, PipelineView};
use towpath_delivery::{DeliveryError, ErrorKind};
use towpath_forge::RefUpdate;
use towpath_store::TriggerRow;
use towpath_types::{Actor, ProjectName, TriggerStatus, Via, visible};

/// How long a pusher waits for their pipelines.
const PATIENCE: Duration = Duration::from_secs(20);
/// For how many pipelines the pusher sees every line. The rest is only counted.
const TOLD_IN_FULL: usize = 20;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/hook/pre-receive", post(announced))
        .route("/hook/post-receive", post(accepted))
}

/// What a hook sends: who pushes, then git's own lines.
struct Push {
    actor: Actor,
    updates: Vec<RefUpdate>,
}

impl Push {
    fn parse(text: &str) -> Result<Self, DeliveryError> {
        let mut by = "git push";
        let mut updates = Vec::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("by ") {
                by = name;
                continue;
            }
            let update = RefUpdate::parse(line)
                .ok_or_else(|| DeliveryError::invalid(format!("git's line `{}` names no ref", line.escape_debug())))?;
            updates.push(update);
        }
        Ok(Self {
            actor: Actor::owner(by, Via::GitPush),
            updates,
        })
    }
}

/// Git shows a plain text to the person who pushes.
fn refused(error: DeliveryError) -> Response {
    answer::log(&error);
    let status = match error.kind() {
        ErrorKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        _ => answer::status(&error),
    };
    (status, error.to_string()).into_response()
}

/// Stores the triggers of a push before git accepts it, and tells the pusher which refs start nothing. An error refuses the
/// push.
async fn announced(State(app): State<App>, Pushed(project): Pushed, text: String) -> Result<String, Response> {
    let push = Push::parse(&text).map_err(refused)?;
    let announced = app.triggers.announce(&project, &push.updates, &push.actor).await;
    Ok(passed_over(&announced.map_err(refused)?.held_back))
}

/// What a pusher reads about tags that start nothing.
fn passed_over(tags: &BTreeSet<String>) -> String {
    let Some(last) = tags.last() else {
        return String::new();
    };
    // A tag's name may hold anything but blanks and control characters.
    let last = last.trim_start_matches("refs/tags/").replace('\'', "'\\''");
    format!(
        "{} tags in one push: with more than {MOST_TAGS}, none of them starts a pipeline, so that a history of tags does not run again.\n\
         To start the pipeline of one: towpath trigger --tag '{last}'\n",
        tags.len()
    )
}

/// Records that git has accepted a push, and tells the pusher about its pipelines.
async fn accepted(State(app): State<App>, Pushed(project): Pushed, text: String) -> Result<String, Response> {
    let push = Push::parse(&text).map_err(refused)?;
    let triggers = app.triggers.complete(&project, &push.updates, &push.actor).await;
    let triggers = triggers.map_err(refused)?;
    let triggers = app.triggers.settled(triggers, PATIENCE).await.map_err(refused)?;
    let more = triggers.len().saturating_sub(TOLD_IN_FULL);
    let (mut lines, mut known) = (Vec::new(), Known::new());
    for trigger in triggers.into_iter().take(TOLD_IN_FULL) {
        let pipeline = match trigger.status {
            TriggerStatus::Done => Some(app.queries.pipeline(trigger.pipeline).await.map_err(refused)?),
            TriggerStatus::Announced | TriggerStatus::Received | TriggerStatus::Dropped => None,
        };
        lines.extend(told(&app.addresses.base_url, &trigger, pipeline.as_ref(), &mut known));
    }
    if more > 0 {
        lines.push(format!("{more} more pipelines: {}", app.addresses.base_url));
        lines.push(String::new());
    }
    let missing = app.triggers.missing_default_branch(&project).await.map_err(refused)?;
    if let Some(missing) = missing {
        let mut pushed = push.updates.iter().filter(|update| update.new.is_some());
        lines.extend(no_default_branch(
            &project,
            &missing,
            pushed.find_map(RefUpdate::branch),
        ));
    }
    // Names and errors quote the repository, and git passes this on to a terminal.
    Ok(lines.iter().map(|line| format!("{}\n", visible(line))).collect())
}

/// What the pusher reads while a project's default branch has no commit.
fn no_default_branch(project: &ProjectName, missing: &str, pushed: Option<&str>) -> Vec<String> {
    // A branch's name may hold anything but blanks and control characters.
    let branch = match pushed {
        Some(pushed) => format!("'{}'", pushed.replace('\'', "'\\''")),
        None => "BRANCH".into(),
    };
    vec![
        format!(
            "The default branch of {project} is `{missing}`, which has no commit yet. It says which environments there are"
        ),
        "and how they are protected, and protected ones take only its commits. Push it, or choose another one:".into(),
        format!("  towpath default-branch {branch}"),
        String::new(),
    ]
}

/// The errors that the pusher has already seen as text, each list with the number of the pipeline that has it.
type Known = BTreeMap<Vec<String>, i64>;

/// The lines about one trigger for the pusher. `pipeline` is the pipeline that the trigger made, if any. A mistake that several
/// branches share appears once.
fn told(base_url: &str, trigger: &TriggerRow, pipeline: Option<&PipelineView>, known: &mut Known) -> Vec<String> {
    let mut lines = vec![String::new()];
    if trigger.status == TriggerStatus::Dropped {
        let why = trigger.reason.as_deref().unwrap_or("nothing runs for this push");
        lines.push(format!("No pipeline for commit {}: {why}", trigger.commit.short()));
        lines.push(String::new());
        return lines;
    }
    lines.push(format!(
        "Pipeline {number}: {base_url}/projects/{}/pipelines/{number}",
        trigger.project,
        number = trigger.number
    ));
    match pipeline {
        None => lines.push("  it is still being made".into()),
        Some(pipeline) => {
            let errors: Vec<String> = pipeline.errors.iter().map(|error| error.render(false)).collect();
            match known.get(&errors) {
                Some(number) => lines.push(format!("  the same errors as in pipeline {number}")),
                None => {
                    let errors = errors.iter().flat_map(|error| error.lines());
                    lines.extend(errors.map(|line| format!("  {line}")));
                }
            }
            if !errors.is_empty() {
                known.entry(errors).or_insert(trigger.number);
            }
            match pipeline.warnings.len() {
                0 => {}
                1 => lines.push("  1 warning, which that page shows".into()),
                count => lines.push(format!("  {count} warnings, which that page shows")),
            }
            for workflow in &pipeline.workflows {
                lines.push(format!("  workflow {}: {} jobs", workflow.name, workflow.jobs.len()));
            }
            if pipeline.errors.is_empty() && pipeline.workflows.is_empty() {
                lines.push("  no workflow runs for this".into());
            }
        }
    }
    lines.push(String::new());
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;
    use towpath_store::TriggerKind;
    use towpath_types::{PipelineId, TriggerId};

    fn trigger(status: TriggerStatus) -> TriggerRow {
        TriggerRow {
            id: TriggerId::from_u128(1),
            project: "claims".parse().unwrap(),
            kind: TriggerKind::Push {
                ref_name: "refs/heads/main".into(),
            },
            branch: Some("main".into()),
            tag: None,
            commit: "a".repeat(40).parse().unwrap(),
            parameters: json!({}),
            actor: Actor::owner("ann", Via::GitPush),
            pipeline: PipelineId::from_u128(2),
            number: 7,
            status,
            reason: None,
            created_at: jiff::Timestamp::UNIX_EPOCH,
            version: 1,
        }
    }

    fn pipeline(errors: &[&str], workflows: serde_json::Value) -> PipelineView {
        let error = |message: &&str| {
            let excerpt = json!({
                "file": ".circleci/config.yml", "line": 3, "column": 1, "text": "jbos:", "indent": 0, "length": 4,
            });
            json!({ "code": "config::key", "severity": "error", "message": message, "primary": excerpt })
        };
        let errors: Vec<_> = errors.iter().map(error).collect();
        serde_json::from_value(json!({
            "id": PipelineId::from_u128(2), "project": "claims", "number": 7, "branch": "main", "tag": null,
            "commit": "a".repeat(40), "subject": "Say hello", "author": "Ann", "by": "ann",
            "status": if errors.is_empty() { "created" } else { "errored" }, "errors": errors, "warnings": [],
            "created_at": "2026-01-01T00:00:00Z", "workflows": workflows,
        }))
        .unwrap()
    }

    fn check(trigger: &TriggerRow, pipeline: Option<&PipelineView>, expect: &[&str]) {
        let told = told("http://t", trigger, pipeline, &mut Known::new());
        assert_eq!(told, [&[""], expect, &[""]].concat());
    }

    #[test]
    fn a_pusher_hears_how_to_choose_the_default_branch() {
        let told = |pushed| no_default_branch(&"claims".parse().unwrap(), "main", pushed).join("\n");
        let text = told(Some("trunk"));
        assert!(text.contains("of claims is `main`, which has no commit"), "{text}");
        assert!(text.contains("towpath default-branch 'trunk'"), "{text}");
        let text = told(Some("a';reboot;'"));
        assert!(text.contains(r"default-branch 'a'\'';reboot;'\'''"), "{text}");
        assert!(told(None).contains("default-branch BRANCH"));
    }

    #[test]
    fn a_pusher_hears_where_the_pipeline_is_and_what_runs() {
        const ADDRESS: &str = "Pipeline 7: http://t/projects/claims/pipelines/7";
        let done = trigger(TriggerStatus::Done);
        let workflow = json!([{
            "id": "00000000-0000-0000-0000-000000000001", "pipeline": PipelineId::from_u128(2), "pipeline_number": 7,
            "project": "claims", "name": "main", "status": "running", "message": null,
            "created_at": "2026-01-01T00:00:00Z", "stopped_at": null, "jobs": [],
        }]);
        check(
            &done,
            Some(&pipeline(&[], workflow)),
            &[ADDRESS, "  workflow main: 0 jobs"],
        );
        check(
            &done,
            Some(&pipeline(&[], json!([]))),
            &[ADDRESS, "  no workflow runs for this"],
        );
        check(
            &done,
            Some(&pipeline(&["no"], json!([]))),
            &[
                ADDRESS,
                "  error[config::key]: no",
                "   --> .circleci/config.yml:3:1",
                "    |",
                "  3 | jbos:",
                "    | ^^^^",
            ],
        );
        let mut warned = pipeline(&["no"], json!([]));
        warned.warnings = std::mem::take(&mut warned.errors);
        check(
            &done,
            Some(&warned),
            &[
                ADDRESS,
                "  1 warning, which that page shows",
                "  no workflow runs for this",
            ],
        );
        check(
            &trigger(TriggerStatus::Received),
            None,
            &[ADDRESS, "  it is still being made"],
        );
    }

    #[test]
    fn a_mistake_that_branches_share_is_told_once() {
        let mut known = Known::new();
        let (one, other) = (pipeline(&["no"], json!([])), pipeline(&["why"], json!([])));
        let mut second = |number: i64, view: &PipelineView| {
            let trigger = TriggerRow {
                number,
                ..trigger(TriggerStatus::Done)
            };
            told("http://t", &trigger, Some(view), &mut known)[2].clone()
        };
        assert_eq!(second(7, &one), "  error[config::key]: no");
        assert_eq!(second(8, &other), "  error[config::key]: why");
        assert_eq!(second(9, &one), "  the same errors as in pipeline 7");
        let whole = pipeline(&[], json!([]));
        assert_eq!(second(10, &whole), second(11, &whole));
    }

    #[test]
    fn a_pusher_hears_why_nothing_runs() {
        let dropped = TriggerRow {
            reason: Some("git did not accept the push".into()),
            ..trigger(TriggerStatus::Dropped)
        };
        check(
            &dropped,
            None,
            &["No pipeline for commit aaaaaaa: git did not accept the push"],
        );
    }

    #[test]
    fn a_pusher_hears_which_tags_start_nothing_and_how_to_start_one() {
        assert_eq!(passed_over(&BTreeSet::new()), "");
        let tags = ["v1", "v2", "v3", "v4's"].map(|name| format!("refs/tags/{name}"));
        assert_eq!(
            passed_over(&tags.into()),
            "4 tags in one push: with more than 3, none of them starts a pipeline, so that a history of tags does not run again.\n\
             To start the pipeline of one: towpath trigger --tag 'v4'\\''s'\n"
        );
    }

    #[test]
    fn a_hooks_lines_say_who_and_what() {
        let (zero, one) = ("0".repeat(40), "1".repeat(40));
        let push = Push::parse(&format!("by ann\n{zero} {one} refs/heads/main\n")).unwrap();
        assert_eq!((push.actor.name.as_str(), push.actor.via), ("ann", Via::GitPush));
        assert_eq!(push.updates[0].branch(), Some("main"));
        let error = Push::parse("by ann\nnonsense\n").err().unwrap();
        assert_eq!(error.to_string(), "git's line `nonsense` names no ref");
    }
}
