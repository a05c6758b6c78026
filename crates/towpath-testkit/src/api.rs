//! A client of the HTTP API: CircleCI's API v2, Towpath's own, and the registry.

use crate::{Probe, until};
use anyhow::{Context, Result, bail};
use reqwest::{Client, ClientBuilder, Method};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use std::{sync::Once, time::Duration};
use towpath_types::SecretString;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much of a failed step's log is shown.
const TAIL_LINES: usize = 15;

pub(crate) fn client_builder() -> ClientBuilder {
    static PROVIDER: Once = Once::new();
    // reqwest wants one even when it only ever talks plain HTTP; a second attempt to choose is refused and harmless.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    Client::builder().no_proxy()
}

pub(crate) fn plain_client() -> Result<Client> {
    client_builder()
        .timeout(PATIENCE)
        .build()
        .context("failed to make an HTTP client")
}

/// One user of one server.
#[derive(Debug, Clone)]
pub struct Api {
    http: Client,
    base: String,
    token: SecretString,
}

/// A list as API v2 answers it.
#[derive(Deserialize)]
struct Items<T> {
    items: Vec<T>,
}

/// A pipeline.
#[derive(Debug, Clone, Deserialize)]
pub struct Pipeline {
    /// Its id.
    pub id: String,
    /// Its number in the project.
    pub number: i64,
    /// `created` or `errored`.
    pub state: String,
    /// Why it errored.
    #[serde(default)]
    pub errors: Vec<Message>,
    /// What was pushed.
    pub vcs: Vcs,
}

/// One error of a pipeline.
#[derive(Debug, Clone, Deserialize)]
pub struct Message {
    /// For a person.
    pub message: String,
}

/// What was pushed.
#[derive(Debug, Clone, Deserialize)]
pub struct Vcs {
    /// The commit.
    pub revision: String,
    /// The branch.
    pub branch: Option<String>,
}

/// A workflow.
#[derive(Debug, Clone, Deserialize)]
pub struct Workflow {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// CircleCI's word.
    pub status: String,
}

/// A job of a workflow.
#[derive(Debug, Clone, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `build` or `approval`.
    #[serde(rename = "type")]
    pub kind: String,
    /// CircleCI's word.
    pub status: String,
    /// Its number, once it has one.
    pub job_number: Option<i64>,
    /// What to approve it by.
    pub approval_request_id: Option<String>,
}

/// A gate that waits.
#[derive(Debug, Clone, Deserialize)]
pub struct Gate {
    /// The approval job.
    pub job: GateJob,
    /// The workflow's id.
    pub workflow: String,
    /// The workflow's name.
    pub workflow_name: String,
    /// The project.
    pub project: String,
    /// The pipeline's number.
    pub pipeline_number: i64,
    /// The branch.
    pub branch: Option<String>,
    /// What approving would do; `None` when it leads to no deployment.
    pub plan: Option<Plan>,
    /// Why there is no plan, when there should be one.
    pub plan_error: Option<String>,
}

/// The approval job of a gate.
#[derive(Debug, Clone, Deserialize)]
pub struct GateJob {
    /// Its id, which is the gate's.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The environment that it opens.
    pub environment: Option<String>,
}

/// What a deployment would do.
#[derive(Debug, Clone, Deserialize)]
pub struct Plan {
    /// Names exactly this content.
    pub id: String,
    /// The environment.
    pub environment: String,
    /// The image, by its digest.
    pub image: String,
    /// The image that runs now.
    pub previous_image: Option<String>,
    /// The commits since then.
    pub commits: Vec<PlanCommit>,
    /// The objects that would change.
    pub changes: Vec<Change>,
    /// How many would not.
    pub unchanged: usize,
    /// What stands in the way.
    pub blockers: Vec<String>,
}

/// A commit of a plan.
#[derive(Debug, Clone, Deserialize)]
pub struct PlanCommit {
    /// Its id.
    pub id: String,
    /// The first line of its message.
    pub subject: String,
}

/// An object that a plan changes.
#[derive(Debug, Clone, Deserialize)]
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

/// What runs in an environment.
#[derive(Debug, Clone, Deserialize)]
pub struct Environment {
    /// What runs.
    pub workloads: Vec<Workload>,
    /// Where its applications answer.
    pub addresses: Vec<String>,
    /// The newest release that succeeded.
    pub release: Option<Release>,
}

/// A workload.
#[derive(Debug, Clone, Deserialize)]
pub struct Workload {
    /// `Deployment`, `CronJob`, `Job`.
    pub kind: String,
    /// `claims-web`.
    pub name: String,
    /// The image that it runs.
    pub image: String,
    /// Pods that are ready.
    pub ready: u32,
    /// Pods that are wanted.
    pub desired: u32,
    /// A sentence.
    pub message: String,
}

/// A release.
#[derive(Debug, Clone, Deserialize)]
pub struct Release {
    /// Its number in the environment.
    pub number: i64,
    /// `succeeded`.
    pub state: String,
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
    id: String,
    message: Option<String>,
}

#[derive(Deserialize)]
struct Step {
    node: u32,
    index: u32,
    name: String,
    status: String,
    message: Option<String>,
    log_bytes: u64,
}

impl Api {
    /// A client of the server at `base` for the owner of `token`.
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
                "`{shown}` was answered {status}: {}",
                String::from_utf8_lossy(&bytes).trim()
            );
        }
        Ok(bytes.to_vec())
    }

    /// `GET path`, as JSON.
    ///
    /// # Errors
    /// When it is refused, or the answer is something else.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let bytes = self.send(Method::GET, path, None).await?;
        serde_json::from_slice(&bytes).with_context(|| {
            format!(
                "`GET {path}` was answered with something else: {}",
                String::from_utf8_lossy(&bytes)
            )
        })
    }

    /// `POST path` with JSON; the answer's content is not looked at.
    ///
    /// # Errors
    /// When it is refused.
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

    /// Approves a held job as any CircleCI client would: without naming a plan.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn approve_as_circleci(&self, workflow: &str, job: &Job) -> Result<()> {
        let request = job
            .approval_request_id
            .as_deref()
            .with_context(|| format!("`{}` is no approval", job.name))?;
        self.post(&format!("/api/v2/workflow/{workflow}/approve/{request}"), Value::Null)
            .await
    }

    /// Every gate that waits.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn gates(&self) -> Result<Vec<Gate>> {
        self.get("/api/towpath/gates").await
    }

    /// What runs in an environment.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn environment(&self, project: &str, environment: &str) -> Result<Environment> {
        self.get(&format!("/api/towpath/environments/{project}/{environment}"))
            .await
    }

    /// The registry's tags of a repository.
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

    /// The digest behind a tag.
    ///
    /// # Errors
    /// When the registry refuses or has no such tag.
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
            .context("the registry names no digest")?;
        Ok(digest.to_str().context("the registry's digest is no text")?.to_string())
    }

    fn registry(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.base))
            .basic_auth("towpath", Some(self.token.expose()))
    }

    /// Waits for the pipeline of `commit` on `branch`.
    ///
    /// # Errors
    /// When there is none in time, or it errored; the message has its errors.
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

    /// The workflow called `name` of a pipeline.
    ///
    /// # Errors
    /// When it has none of that name.
    pub async fn workflow_of(&self, pipeline: &Pipeline, name: &str) -> Result<Workflow> {
        let workflows = self.workflows(&pipeline.id).await?;
        let names: Vec<_> = workflows.iter().map(|workflow| workflow.name.clone()).collect();
        let found = workflows.into_iter().find(|workflow| workflow.name == name);
        found.with_context(|| format!("pipeline {} has no workflow `{name}`, only {names:?}", pipeline.number))
    }

    /// Waits until `job` of a workflow has one of the statuses `wanted`.
    ///
    /// # Errors
    /// When it can no longer come to that, because it or another job ended badly, with the end of that job's log; and
    /// when the time is over, with every job's status.
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

    /// Waits for the gate called `name` of a workflow.
    ///
    /// # Errors
    /// As [`Self::job_until`].
    pub async fn gate_of(&self, project: &str, workflow: &Workflow, name: &str, bound: Duration) -> Result<Gate> {
        let job = self.job_until(project, workflow, name, &["on_hold"], bound).await?;
        let gates = self.gates().await?;
        let found = gates.into_iter().find(|gate| gate.job.id == job.id);
        found.with_context(|| format!("`{name}` is on hold, but is not in the list of gates"))
    }

    /// Why a job ended as it did: its message, and the end of the log of the step that failed.
    async fn why(&self, project: &str, job: &Job) -> String {
        let Some(number) = job.job_number else {
            return format!("`{}` never ran", job.name);
        };
        let detail: Detail = match self.get(&format!("/api/towpath/jobs/{project}/{number}")).await {
            Ok(detail) => detail,
            Err(error) => return format!("why `{}` is {} is not known: {error:#}", job.name, job.status),
        };
        let mut text = format!(
            "`{}` (job {number}): {}",
            job.name,
            detail.job.message.unwrap_or_default()
        );
        let step = detail.steps.iter().rev().find(|step| step.status != "success");
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
