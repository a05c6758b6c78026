//! Pipelines, workflows and logs. Shows statuses in CircleCI's words, which people know.

use super::place::project;
use crate::{
    cli::{At, Cancel, DefaultBranch, Logs, Trigger},
    client::Client,
};
use anyhow::{Context, Result};
use std::io::Write;
use towpath_control::{JobDetail, PipelineView};
use towpath_server::circleci_words;
use towpath_types::{percent_encoded, visible_name};

/// `towpath pipelines`.
pub async fn list(at: &At) -> Result<()> {
    let client = Client::new(at)?;
    let project = project(at)?;
    let pipelines: Vec<PipelineView> = client
        .get(&format!(
            "/api/towpath/projects/{}/pipelines",
            percent_encoded(&project)
        ))
        .await?;
    if pipelines.is_empty() {
        eprintln!("No pipeline of `{project}` yet: push a commit.");
    }
    pipelines.iter().for_each(print);
    Ok(())
}

fn print(pipeline: &PipelineView) {
    let of = pipeline.branch.as_deref().or(pipeline.tag.as_deref()).unwrap_or("-");
    outln!(
        "#{} {of} {} {}",
        pipeline.number,
        pipeline.commit.short(),
        visible_name(&pipeline.subject)
    );
    for error in &pipeline.errors {
        out!("{}", error.render(false));
    }
    for workflow in &pipeline.workflows {
        let status = circleci_words::workflow(workflow.status);
        outln!("  {} {status} {}", visible_name(&workflow.name), workflow.id);
        for job in &workflow.jobs {
            let number = job.number.map(|number| format!(" (job {number})")).unwrap_or_default();
            outln!(
                "    {:<28} {}{number}",
                visible_name(&job.name),
                circleci_words::job(job.status)
            );
            for line in job.message.iter().flat_map(|message| message.lines()) {
                outln!("      {line}");
            }
        }
    }
}

/// `towpath trigger`.
pub async fn trigger(options: Trigger) -> Result<()> {
    #[derive(serde::Deserialize)]
    struct Started {
        number: i64,
    }
    let client = Client::new(&options.at)?;
    let project = project(&options.at)?;
    let path = format!("/api/v2/project/towpath/local/{}/pipeline", percent_encoded(&project));
    let what = match (&options.branch, &options.tag) {
        (_, Some(tag)) => serde_json::json!({ "tag": tag }),
        (Some(branch), None) => serde_json::json!({ "branch": branch }),
        (None, None) => serde_json::json!({}),
    };
    let started: Started = client.post(&path, &what).await?;
    outln!("started pipeline {} of {project}", started.number);
    Ok(())
}

/// `towpath default-branch`.
pub async fn default_branch(options: DefaultBranch) -> Result<()> {
    #[derive(serde::Deserialize)]
    struct Known {
        branch: String,
    }
    let client = Client::new(&options.at)?;
    let project = project(&options.at)?;
    let path = format!("/api/towpath/projects/{}/default-branch", percent_encoded(&project));
    match &options.branch {
        Some(branch) => {
            let known: Known = client.post(&path, &serde_json::json!({ "branch": branch })).await?;
            outln!("the default branch of {project} is now {}", known.branch);
        }
        None => outln!("{}", client.get::<Known>(&path).await?.branch),
    }
    Ok(())
}

/// `towpath cancel`.
pub async fn cancel(options: Cancel) -> Result<()> {
    let client = Client::new(&options.at)?;
    let path = format!("/api/v2/workflow/{}/cancel", percent_encoded(&options.workflow));
    client.post::<serde_json::Value>(&path, &serde_json::json!({})).await?;
    outln!("canceled {}", options.workflow);
    Ok(())
}

/// `towpath logs`.
pub async fn logs(options: Logs) -> Result<()> {
    let client = Client::new(&options.at)?;
    let project = project(&options.at)?;
    let detail: JobDetail = client
        .get(&format!(
            "/api/towpath/jobs/{}/{}",
            percent_encoded(&project),
            options.job
        ))
        .await?;
    outln!(
        "{} {} {}",
        visible_name(&detail.job.name),
        circleci_words::job(detail.job.status),
        detail.job.message.unwrap_or_default()
    );
    for step in &detail.steps {
        outln!(
            "--- {} ({})",
            visible_name(&step.name),
            circleci_words::step(step.status)
        );
        let mut from = 0;
        while from < step.log_bytes {
            let path = format!(
                "/api/towpath/jobs/{}/log?node={}&step={}&from={from}",
                detail.job.id, step.node, step.index
            );
            let bytes = client.get_bytes(&path).await?;
            if bytes.is_empty() {
                break;
            }
            from += bytes.len() as u64;
            std::io::stdout().write_all(&bytes).context("failed to print the log")?;
        }
        if let Some(message) = &step.message {
            outln!("{message}");
        }
    }
    Ok(())
}
