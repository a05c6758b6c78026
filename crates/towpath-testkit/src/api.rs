//! A client of the HTTP APIs: CircleCI's API v2, Towpath's own, and the registry's.

use crate::{Probe, until};
use anyhow::{Context, Result, bail};
use reqwest::{Client, ClientBuilder, Method};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Once, time::Duration};
use towpath_types::{CommitId, Digest, EnvironmentId, JobId, Outcome, ReleaseStatus, SecretString, StepStatus};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many lines of a failed step's log are shown.
const TAIL_LINES: usize = 15;

pub(crate) fn client_builder() -> ClientBuilder {
    static PROVIDER: Once = Once::new();
    // reqwest needs a provider even for plain HTTP. Installing a second one fails, which is harmless.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    Client::builder().no_proxy()
}

pub(crate) fn plain_client() -> Result<Client> {
    client_builder()
        .timeout(PATIENCE)
        .build()
        .context("failed to make an HTTP client")
}

/// One user's client of one server.
#[derive(Debug, Clone)]
pub struct Api {
    http: Client,
    base: String,
    token: SecretString,
}

/// A list in API v2.
#[derive(Deserialize)]
struct Items<T> {
    items: Vec<T>,
    next_page_token: Option<String>,
}

/// A pipeline.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs)]
pub struct Pipeline {
    pub id: String,
    /// Counts the project's pipelines.
    pub number: i64,
    /// `created` or `errored`.
    pub state: String,
    #[serde(default)]
    pub errors: Vec<Message>,
    pub vcs: Vcs,
}

/// One error of a pipeline.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs)]
pub struct Message {
    pub message: String,
}

/// What started a pipeline.
#[derive(Debug, Clone, Deserialize)]
pub struct Vcs {
    /// The commit's id.
    pub revision: String,
    /// `None` for a tag.
    pub branch: Option<String>,
}

/// A workflow.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs)]
pub struct Workflow {
    pub id: String,
    pub name: String,
    /// CircleCI's word.
    pub status: String,
}

/// A job of a workflow.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs)]
pub struct Job {
    pub id: String,
    pub name: String,
    /// `build` or `approval`.
    #[serde(rename = "type")]
    pub kind: String,
    /// CircleCI's word.
    pub status: String,
    /// `None` until the job runs.
    pub job_number: Option<i64>,
    /// Only for approvals.
    pub approval_request_id: Option<String>,
}

/// A gate.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs)]
pub struct Gate {
    /// The approval job's id, which is the gate's.
    pub job: JobId,
    /// The approval job's name.
    pub name: String,
    /// The workflow's id.
    pub workflow: String,
    pub workflow_name: String,
    pub project: String,
    pub pipeline_number: i64,
    pub branch: Option<String>,
    /// Where it leads; `None` if approving it deploys nothing.
    pub environment: Option<EnvironmentId>,
    pub waiting: bool,
    /// What approving it would do; `None` while no plan was made.
    pub plan: Option<Plan>,
    /// Why no plan could be made.
    pub plan_error: Option<String>,
    /// When the plan was made, or could not be made.
    pub as_of: Option<String>,
}

/// What a deployment would do.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs)]
pub struct Plan {
    /// The digest of everything in it.
    pub id: Digest,
    /// The environment's name within its project.
    pub environment: String,
    /// With its digest.
    pub image: String,
    /// The image that runs now.
    pub previous_image: Option<String>,
    /// The images by name, each with its digest.
    pub images: BTreeMap<String, String>,
    /// The images that run now.
    pub previous_images: BTreeMap<String, String>,
    /// The commits since the release that runs now.
    pub commits: Vec<PlanCommit>,
    /// The objects that would change.
    pub changes: Vec<Change>,
    /// How many objects would not.
    pub unchanged: usize,
    /// What prevents the deployment.
    pub blockers: Vec<String>,
}

/// A commit of a plan.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs)]
pub struct PlanCommit {
    pub id: CommitId,
    /// The first line of its message.
    pub subject: String,
}

/// An object that a plan changes.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs)]
pub struct Change {
    /// `created`, `changed` or `deleted`.
    pub action: String,
    /// `Deployment`.
    pub kind: String,
    /// `claims-web`.
    pub name: String,
    /// A unified diff.
    pub diff: String,
}

/// The state of an environment.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs)]
pub struct Environment {
    pub workloads: Vec<Workload>,
    /// The addresses of its applications.
    pub addresses: Vec<String>,
    /// The newest release that succeeded.
    pub release: Option<Release>,
}

/// A workload.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs)]
pub struct Workload {
    /// `Deployment`, `CronJob`, `Job`.
    pub kind: String,
    /// `claims-web`.
    pub name: String,
    pub image: String,
    /// How many pods are ready.
    pub ready: u32,
    /// How many pods there should be.
    pub desired: u32,
    /// A sentence for people.
    pub message: String,
}

/// A release.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs)]
pub struct Release {
    /// Counts the environment's releases.
    pub number: i64,
    pub status: ReleaseStatus,
    /// The image, by its digest.
    pub image: String,
}

#[derive(Deserialize)]
struct Detail {
    job: DetailJob,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct DetailJob {
    id: JobId,
    message: Option<String>,
}

#[derive(Deserialize)]
struct Step {
    node: u32,
    index: u32,
    name: String,
    status: StepStatus,
    message: Option<String>,
    log_bytes: u64,
}

impl Api {
    /// A client of the server at `base` with this token.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(base: &str, token: SecretString) -> Result<Self> {
        Ok(Self {
            http: plain_client()?,
            base: base.to_string(),
            token,
        })
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Result<Vec<u8>> {
        let shown = format!("{method} {path}");
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.base))
            .header("Circle-Token", self.token.expose());
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request
            .send()
            .await
            .with_context(|| format!("no answer to `{shown}`"))?;
        let status = response.status();
        let bytes = response
            .bytes()
            .await
            .with_context(|| format!("the answer to `{shown}` broke off"))?;
        if !status.is_success() {
            bail!(
                "the answer to `{shown}` was {status}: {}",
                String::from_utf8_lossy(&bytes).trim()
            );
        }
        Ok(bytes.to_vec())
    }

    /// Sends `GET path` and parses the answer as JSON.
    ///
    /// # Errors
    /// When the server refuses, or answers something else.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let bytes = self.send(Method::GET, path, None).await?;
        serde_json::from_slice(&bytes).with_context(|| {
            format!(
                "the answer to `GET {path}` is not as expected: {}",
                String::from_utf8_lossy(&bytes)
            )
        })
    }

    /// `POST path` with JSON. Whatever a success answers is not looked at.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn post(&self, path: &str, body: Value) -> Result<()> {
        self.send(Method::POST, path, Some(body)).await.map(drop)
    }

    /// The newest pipelines of `project`.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn pipelines(&self, project: &str) -> Result<Vec<Pipeline>> {
        Ok(self
            .get::<Items<_>>(&format!("/api/v2/project/towpath/local/{project}/pipeline"))
            .await?
            .items)
    }

    /// Every pipeline of `project`, newest first.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn all_pipelines(&self, project: &str) -> Result<Vec<Pipeline>> {
        let (mut all, mut token) = (Vec::new(), String::new());
        loop {
            let path = format!("/api/v2/project/towpath/local/{project}/pipeline{token}");
            let page: Items<Pipeline> = self.get(&path).await?;
            all.extend(page.items);
            match page.next_page_token {
                Some(next) => token = format!("?page-token={next}"),
                None => return Ok(all),
            }
        }
    }

    /// The workflows of a pipeline.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn workflows(&self, pipeline: &str) -> Result<Vec<Workflow>> {
        Ok(self
            .get::<Items<_>>(&format!("/api/v2/pipeline/{pipeline}/workflow"))
            .await?
            .items)
    }

    /// One workflow.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn workflow(&self, workflow: &str) -> Result<Workflow> {
        self.get(&format!("/api/v2/workflow/{workflow}")).await
    }

    /// The jobs of a workflow.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn jobs(&self, workflow: &str) -> Result<Vec<Job>> {
        Ok(self
            .get::<Items<_>>(&format!("/api/v2/workflow/{workflow}/job"))
            .await?
            .items)
    }

    /// Approves a job as any client of CircleCI would: without a plan's id.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn approve_as_circleci(&self, workflow: &str, job: &Job) -> Result<()> {
        let request = job
            .approval_request_id
            .as_deref()
            .with_context(|| format!("`{}` is not an approval", job.name))?;
        self.post(&format!("/api/v2/workflow/{workflow}/approve/{request}"), Value::Null)
            .await
    }

    /// All gates that wait for approval.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn gates(&self) -> Result<Vec<Gate>> {
        self.get("/api/towpath/gates").await
    }

    /// One gate, whether it waits or not.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn gate(&self, id: JobId) -> Result<Gate> {
        self.get(&format!("/api/towpath/gates/{id}")).await
    }

    /// What runs in an environment now: the server looks.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn environment(&self, project: &str, environment: &str) -> Result<Environment> {
        let path = format!("/api/towpath/environments/{project}/{environment}/look");
        let bytes = self.send(Method::POST, &path, Some(serde_json::json!({}))).await?;
        serde_json::from_slice(&bytes).with_context(|| format!("`POST {path}` was answered with something else"))
    }

    /// The tags of a repository in the registry.
    ///
    /// # Errors
    /// When the registry refuses.
    pub async fn tags(&self, repository: &str) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Tags {
            tags: Vec<String>,
        }
        let request = self.registry(Method::GET, &format!("/v2/{repository}/tags/list"));
        let response = request.send().await.context("the registry does not answer")?;
        let tags: Tags = response
            .error_for_status()
            .context("the registry refuses")?
            .json()
            .await?;
        Ok(tags.tags)
    }

    /// The digest that a tag points to.
    ///
    /// # Errors
    /// When the registry refuses, or has no such tag.
    pub async fn digest(&self, repository: &str, tag: &str) -> Result<String> {
        let accept = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json";
        let request = self
            .registry(Method::HEAD, &format!("/v2/{repository}/manifests/{tag}"))
            .header("Accept", accept);
        let response = request.send().await.context("the registry does not answer")?;
        let response = response
            .error_for_status()
            .with_context(|| format!("the registry has no {repository}:{tag}"))?;
        let digest = response
            .headers()
            .get("Docker-Content-Digest")
            .context("the registry's answer has no digest")?;
        let digest = digest.to_str().context("the registry's digest is not text")?;
        Ok(digest.to_string())
    }

    fn registry(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.base))
            .basic_auth("towpath", Some(self.token.expose()))
    }

    /// Waits for the pipeline of `commit` on `branch`.
    ///
    /// # Errors
    /// When it does not appear in time, or it errored. The message contains its errors.
    pub async fn pipeline_of(&self, project: &str, branch: &str, commit: &str, bound: Duration) -> Result<Pipeline> {
        until(format!("the pipeline of {branch} at {commit}"), bound, async || {
            let pipelines = self.pipelines(project).await?;
            let wanted = |p: &&Pipeline| p.vcs.revision == commit && p.vcs.branch.as_deref() == Some(branch);
            Ok(match pipelines.iter().find(wanted) {
                Some(pipeline) if pipeline.state == "errored" => {
                    let errors: Vec<_> = pipeline.errors.iter().map(|error| error.message.as_str()).collect();
                    Probe::Never(format!("pipeline {} errored:\n{}", pipeline.number, errors.join("\n")))
                }
                Some(pipeline) if pipeline.state == "created" => Probe::Found(pipeline.clone()),
                Some(pipeline) => Probe::NotYet(format!("pipeline {} is {}", pipeline.number, pipeline.state)),
                None => Probe::NotYet(format!("{} other pipelines", pipelines.len())),
            })
        })
        .await
    }

    /// The workflow `name` of a pipeline.
    ///
    /// # Errors
    /// When the pipeline has no such workflow.
    pub async fn workflow_of(&self, pipeline: &Pipeline, name: &str) -> Result<Workflow> {
        let workflows = self.workflows(&pipeline.id).await?;
        let names: Vec<_> = workflows.iter().map(|workflow| workflow.name.clone()).collect();
        let found = workflows.into_iter().find(|workflow| workflow.name == name);
        found.with_context(|| format!("pipeline {} has no workflow `{name}`, only {names:?}", pipeline.number))
    }

    /// Waits until `job` of a workflow has one of the statuses `wanted`.
    ///
    /// # Errors
    /// When that can no longer happen because a job failed: the message contains the end of that job's log. When the time is
    /// up: the message contains every job's status.
    pub async fn job_until(
        &self,
        project: &str,
        workflow: &Workflow,
        job: &str,
        wanted: &[&str],
        bound: Duration,
    ) -> Result<Job> {
        until(
            format!("job `{job}` of `{}` to be {}", workflow.name, wanted.join(" or ")),
            bound,
            async || {
                let jobs = self.jobs(&workflow.id).await?;
                let Some(found) = jobs.iter().find(|known| known.name == job) else {
                    let names: Vec<_> = jobs.iter().map(|job| job.name.as_str()).collect();
                    return Ok(Probe::Never(format!("it has no such job, only {names:?}")));
                };
                if wanted.contains(&found.status.as_str()) {
                    return Ok(Probe::Found(found.clone()));
                }
                let seen: Vec<_> = jobs.iter().map(|job| format!("{} {}", job.name, job.status)).collect();
                let seen = seen.join(", ");
                let bad = jobs.iter().find(|job| ended_badly(&job.status));
                let stuck = matches!(found.status.as_str(), "success" | "not_run") || ended_badly(&found.status);
                Ok(match bad {
                    Some(bad) => Probe::Never(format!("{seen}\n{}", self.why(project, bad).await)),
                    None if stuck => Probe::Never(seen),
                    None => Probe::NotYet(seen),
                })
            },
        )
        .await
    }

    /// Waits for the gate called `name` of a workflow and, if it leads to an environment, for its plan or for the reason why
    /// there is none.
    ///
    /// # Errors
    /// Like [`Self::job_until`].
    pub async fn gate_of(&self, project: &str, workflow: &Workflow, name: &str, bound: Duration) -> Result<Gate> {
        let job = self.job_until(project, workflow, name, &["on_hold"], bound).await?;
        let id: JobId = job.id.parse()?;
        until(format!("the plan of gate `{name}`"), bound, async || {
            let gate = self.gate(id).await?;
            Ok(match gate.environment.is_none() || gate.as_of.is_some() {
                true => Probe::Found(gate),
                false => Probe::NotYet("it is being made".into()),
            })
        })
        .await
    }

    /// What the steps of a job's first node printed, at most a mebibyte of each, one step after the other.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn log(&self, project: &str, number: i64) -> Result<String> {
        let detail: Detail = self.get(&format!("/api/towpath/jobs/{project}/{number}")).await?;
        let mut text = String::new();
        for step in detail.steps.iter().filter(|step| step.node == 0) {
            let path = format!("/api/towpath/jobs/{}/log?node=0&step={}", detail.job.id, step.index);
            let bytes = self.send(Method::GET, &path, None).await?;
            text += &String::from_utf8_lossy(&bytes);
        }
        Ok(text)
    }

    /// Why a job failed: its message, and the end of the failed step's log.
    async fn why(&self, project: &str, job: &Job) -> String {
        let Some(number) = job.job_number else {
            return format!("`{}` never ran", job.name);
        };
        let detail: Detail = match self.get(&format!("/api/towpath/jobs/{project}/{number}")).await {
            Ok(detail) => detail,
            Err(error) => {
                return format!(
                    "`{}` is {}, and its details are not available: {error:#}",
                    job.name, job.status
                );
            }
        };
        let mut text = format!(
            "`{}` (job {number}): {}",
            job.name,
            detail.job.message.unwrap_or_default()
        );
        let succeeded = StepStatus::Ended(Outcome::Succeeded);
        let step = detail.steps.iter().rev().find(|step| step.status != succeeded);
        let Some(step) = step.or(detail.steps.last()) else {
            return text;
        };
        let path = |from: u64| {
            format!(
                "/api/towpath/jobs/{}/log?node={}&step={}&from={from}",
                detail.job.id, step.node, step.index
            )
        };
        let from = step.log_bytes.saturating_sub(8 << 10);
        let log = self.send(Method::GET, &path(from), None).await.unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        text += &format!(
            "\nstep `{}` {}: {}",
            step.name,
            step.status,
            step.message.as_deref().unwrap_or_default()
        );
        for line in log.lines().skip(log.lines().count().saturating_sub(TAIL_LINES)) {
            text += &format!("\n  | {line}");
        }
        text
    }
}

fn ended_badly(status: &str) -> bool {
    matches!(
        status,
        "failed" | "canceled" | "infrastructure_fail" | "timedout" | "unauthorized" | "terminated-unknown"
    )
}
