//! Releases from a laptop and from a step: `deploy`, `diff`, `promote`, `rollback`.

use super::{
    agree::agreed,
    place::at_environment,
    plan::{markdown, print_plan},
};
use crate::{
    cli::{self, Agreement, At, Deploy, Diff, Policy, Promote, Rollback},
    client::Client,
    ending, exit,
    operations::{End, Operations, follow_release, operations},
    repository::Repository,
};
use anyhow::{Result, bail};
use serde::Deserialize;
use std::process::ExitCode;
use towpath_delivery::{LaptopRequest, OnFailure};
use towpath_types::{EnvironmentId, ReleaseId};

/// `towpath deploy`, from a laptop and from a step.
pub async fn deploy(options: Deploy) -> Result<()> {
    if let Some(client) = Client::in_job()? {
        return deploy_in_job(&client, &options).await;
    }
    let here = operations(&options.at).await?;
    let (id, request) = request(&options.at, &options.environment, &options.policy)?;
    let request = LaptopRequest {
        tag: Some(options.tag.clone().unwrap_or_else(|| "latest".into())),
        ..request
    };
    release(here.as_ref(), &id, request, &options.agreement)
        .await?
        .expect_success("the deployment")
}

/// The workflow knows which image it built and which plan was approved, so a step chooses nothing.
async fn deploy_in_job(client: &Client, options: &Deploy) -> Result<()> {
    #[derive(Deserialize)]
    struct Begun {
        id: ReleaseId,
        /// The message if nothing was begun because the environment already runs exactly this.
        #[serde(default)]
        repeated: Option<String>,
    }
    let policy = &options.policy;
    let agreement = &options.agreement;
    let is_policy = policy.on_failure.is_some() || policy.despite_freeze.is_some();
    if options.tag.is_some() || is_policy || agreement.plan.is_some() || agreement.yes {
        bail!(
            "in a job it is `towpath deploy {}`, and nothing else: image and plan are the workflow's",
            options.environment
        );
    }
    let body = serde_json::json!({ "environment": options.environment });
    let begun: Begun = client.post("/agent/v1/deploy", &body).await?;
    if let Some(repeated) = begun.repeated {
        outln!("{repeated}");
        return Ok(());
    }
    let end = follow_release(client, "/agent/v1", begun.id).await?;
    end.expect_success("the deployment")
}

/// `towpath promote`.
pub async fn promote(options: Promote) -> Result<()> {
    let here = operations(&options.at).await?;
    let (id, request) = request(&options.at, &options.to, &options.policy)?;
    let request = LaptopRequest {
        from: Some(options.from.clone()),
        ..request
    };
    release(here.as_ref(), &id, request, &options.agreement)
        .await?
        .expect_success("the deployment")
}

async fn release(
    here: &dyn Operations,
    id: &EnvironmentId,
    request: LaptopRequest,
    agreement: &Agreement,
) -> Result<End> {
    let started = agreed(agreement, async |plan| {
        let request = LaptopRequest {
            plan,
            ..request.clone()
        };
        here.deploy(id, request).await
    })
    .await?;
    leaves_half_done(id.environment());
    here.follow(&started).await
}

/// Sets the message for a signal that interrupts a begun deployment.
fn leaves_half_done(environment: &str) {
    ending::leaves(format!(
        "What was being deployed is half done: `towpath status {environment}` says how it stands; deploy again, or `towpath rollback \
         {environment}`."
    ));
}

fn request(at: &At, environment: &str, policy: &Policy) -> Result<(EnvironmentId, LaptopRequest)> {
    let repository = Repository::find()?;
    let project = at.project.clone().unwrap_or_else(|| repository.project());
    let on_failure = policy.on_failure.map(|policy| match policy {
        cli::OnFailure::Rollback => OnFailure::Rollback,
        cli::OnFailure::Stop => OnFailure::Stop,
    });
    let reason = policy.despite_freeze.as_ref();
    if reason.is_some_and(|reason| reason.trim().is_empty()) {
        bail!("`--despite-freeze` needs a reason: the history shows it");
    }
    let request = LaptopRequest {
        on_failure,
        despite_freeze: policy.despite_freeze.clone(),
        ..repository.request()?
    };
    Ok((EnvironmentId::new(&project, environment)?, request))
}

/// `towpath diff`.
pub async fn diff(options: Diff) -> Result<ExitCode> {
    let here = operations(&options.at).await?;
    let policy = Policy {
        on_failure: None,
        despite_freeze: None,
    };
    let (id, request) = request(&options.at, &options.environment, &policy)?;
    let request = LaptopRequest {
        tag: Some(options.tag.clone()),
        ..request
    };
    let plan = here.plan(&id, request).await?;
    if options.json {
        outln!("{}", serde_json::to_string_pretty(&plan)?);
    } else if options.markdown {
        out!("{}", markdown(&plan));
    } else {
        print_plan(&plan);
    }
    if !plan.blockers.is_empty() {
        bail!(
            "this cannot be deployed to {}: see what is blocked above",
            plan.environment
        );
    }
    Ok(if plan.changes.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::CHANGES)
    })
}

/// `towpath rollback`.
pub async fn rollback(options: Rollback) -> Result<()> {
    let here = operations(&options.at).await?;
    let id = at_environment(&options.at, &options.environment)?;
    let started = agreed(&options.agreement, async |plan| {
        here.rollback(&id, options.release, plan).await
    })
    .await?;
    leaves_half_done(&options.environment);
    here.follow(&started).await?.expect_success("the rollback")
}
