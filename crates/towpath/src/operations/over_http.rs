//! Operations through a server.

use super::{End, Operations, Started, print_of_release, print_of_run, repeated};
use crate::client::Client;
use anyhow::Result;
use async_trait::async_trait;
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::json;
use towpath_control::ProgressView;
use towpath_delivery::{AdoptionView, DriftView, EnvironmentView, Hold, LaptopRequest, PlanView, ReleaseView};
use towpath_deploy::LiveSecret;
use towpath_types::{Digest, EnvironmentId, ReleaseId, ReleaseStatus, RunId, SecretBytes, percent_encoded};

/// Operations of a server that is up.
pub struct OverHttp {
    client: Client,
}

#[derive(Deserialize)]
struct Release {
    id: ReleaseId,
    number: i64,
    status: ReleaseStatus,
}

impl From<Release> for Started {
    fn from(release: Release) -> Self {
        Self::release(release.id, release.number, release.status)
    }
}

#[derive(Deserialize)]
struct Run {
    id: RunId,
    object: String,
}

impl From<Run> for Started {
    fn from(run: Run) -> Self {
        Self::Run {
            id: run.id,
            object: run.object,
        }
    }
}

fn path(id: &EnvironmentId, what: &str) -> String {
    format!(
        "/api/towpath/environments/{}/{}{what}",
        percent_encoded(id.project()),
        percent_encoded(id.environment())
    )
}

fn of_key(secret: &str, key: &str) -> String {
    format!("/secrets/{}/{}", percent_encoded(secret), percent_encoded(key))
}

impl OverHttp {
    /// The operations of the server that `client` talks to.
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

/// Prints a release's lines as they arrive. `prefix` is `/api/towpath`, or `/agent/v1` in a job.
pub async fn follow_release(client: &Client, prefix: &str, id: ReleaseId) -> Result<End> {
    follow(client, &format!("{prefix}/releases/{id}/progress"), print_of_release).await
}

async fn follow(client: &Client, path: &str, print: fn(&str)) -> Result<End> {
    let mut from = 0;
    loop {
        let progress: ProgressView = client.get(&format!("{path}?from={from}")).await?;
        for line in &progress.lines {
            print(line);
        }
        from = progress.next;
        if let Some(outcome) = progress.outcome {
            return Ok(End {
                outcome,
                exit_code: progress.exit_code,
            });
        }
    }
}

#[async_trait]
impl Operations for OverHttp {
    async fn environment(&self, id: &EnvironmentId) -> Result<EnvironmentView> {
        self.client.post(&path(id, "/look"), &json!({})).await
    }

    async fn history(&self, id: &EnvironmentId) -> Result<Vec<ReleaseView>> {
        // Others may have deployed since the server last looked.
        self.environment(id).await?;
        self.client.get(&path(id, "/history")).await
    }

    async fn plan(&self, id: &EnvironmentId, request: LaptopRequest) -> Result<PlanView> {
        self.client.post(&path(id, "/plan"), &request).await
    }

    async fn adoption(&self, id: &EnvironmentId, request: LaptopRequest) -> Result<AdoptionView> {
        self.client.post(&path(id, "/adopt"), &request).await
    }

    async fn deploy(&self, id: &EnvironmentId, request: LaptopRequest) -> Result<Started> {
        let release: Release = self.client.post(&path(id, "/deploy"), &request).await?;
        Ok(release.into())
    }

    async fn rollback(&self, id: &EnvironmentId, to: Option<i64>, plan: Option<Digest>) -> Result<Started> {
        let body = json!({ "to": to, "plan": plan });
        let release: Release = self.client.post(&path(id, "/rollback"), &body).await?;
        Ok(release.into())
    }

    async fn run_job(&self, id: &EnvironmentId, request: LaptopRequest) -> Result<Started> {
        let run: Run = self.client.post(&path(id, "/jobs"), &request).await?;
        Ok(run.into())
    }

    async fn run_cron_job(&self, id: &EnvironmentId, name: &str, plan: Option<Digest>) -> Result<Started> {
        let what = format!("/cronjobs/{}/run", percent_encoded(name));
        let run: Run = self.client.post(&path(id, &what), &json!({ "plan": plan })).await?;
        Ok(run.into())
    }

    async fn tests(&self, id: &EnvironmentId) -> Result<Vec<String>> {
        self.client.post(&path(id, "/tests"), &json!({})).await
    }

    async fn run_test(&self, id: &EnvironmentId, name: &str, plan: Option<Digest>) -> Result<Started> {
        let what = format!("/tests/{}/run", percent_encoded(name));
        let run: Run = self.client.post(&path(id, &what), &json!({ "plan": plan })).await?;
        Ok(run.into())
    }

    async fn apply_cron_job(&self, id: &EnvironmentId, request: LaptopRequest) -> Result<Vec<String>> {
        self.client.post(&path(id, "/cronjobs"), &request).await
    }

    async fn drift(&self, id: &EnvironmentId) -> Result<DriftView> {
        self.client.post(&path(id, "/drift"), &json!({})).await
    }

    async fn lock(&self, id: &EnvironmentId, reason: &str, lasts: SignedDuration) -> Result<Hold> {
        let body = json!({ "reason": reason, "seconds": lasts.as_secs() });
        self.client.post(&path(id, "/lock"), &body).await
    }

    async fn unlock(&self, id: &EnvironmentId, force: bool) -> Result<()> {
        let what = if force { "/lock?force=true" } else { "/lock" };
        self.client.delete(&path(id, what)).await
    }

    async fn secrets(&self, id: &EnvironmentId) -> Result<Vec<LiveSecret>> {
        self.client.get(&path(id, "/secrets")).await
    }

    async fn set_secret(&self, id: &EnvironmentId, secret: &str, key: &str, value: SecretBytes) -> Result<()> {
        self.client
            .put(&path(id, &of_key(secret, key)), value.expose().to_vec())
            .await
    }

    async fn unset_secret(&self, id: &EnvironmentId, secret: &str, key: &str) -> Result<()> {
        self.client.delete(&path(id, &of_key(secret, key))).await
    }

    async fn follow(&self, started: &Started) -> Result<End> {
        match started {
            Started::Release(id) => follow_release(&self.client, "/api/towpath", *id).await,
            Started::Repeated { number } => Ok(repeated(*number)),
            Started::Run { id, .. } => {
                follow(&self.client, &format!("/api/towpath/runs/{id}/progress"), print_of_run).await
            }
        }
    }
}
