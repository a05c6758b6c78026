//! Operations in this process, without a server: a laptop, or another system's job, can still deploy to clusters.
//!
//! Stores nothing. This process knows only what the clusters record about their releases.

use super::{
    End, Operations, Started,
    nowhere::{NoCredentials, NoRepositories, fingerprinter},
    print_of_release, print_of_run, repeated,
    target::target_settings,
};
use crate::{cli::Target, ending, repository::Repository};
use anyhow::{Context, Result, anyhow, bail};
use async_trait::async_trait;
use jiff::SignedDuration;
use std::{io::IsTerminal as _, sync::Arc, time::Duration};
use towpath_control::TargetSettings;
use towpath_delivery::{
    AdoptionView, Delivery, DriftView, EnvironmentView, HISTORY, Hold, LaptopRequest, PlanView, Ports, Progress,
    PullSecret, ReleaseView, SystemClock, project_images,
};
use towpath_deploy::{KubernetesOptions, KubernetesTarget, LiveSecret, render::Renderer};
use towpath_images::RegistryImages;
use towpath_store::{Database, Guard, SqlStore, Store, WorkKey, WorkKind};
use towpath_types::{Actor, Clock, Digest, EnvironmentId, Outcome, SecretBytes};

/// The variable that selects the target, like `towpath up --target`.
const TARGET_VARIABLE: &str = "TOWPATH_TARGET";
/// Stands for the registry of images that name none.
const NO_REGISTRY: &str = "no-registry.invalid";
/// The lease on work that this process began. It outlasts every process.
const LEASE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Operations in this process.
pub struct InProcess {
    delivery: Delivery,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    actor: Actor,
}

/// Prints lines as they come.
struct Printed(fn(&str));

impl Progress for Printed {
    fn line(&self, line: &str) {
        self.0(line);
    }
}

/// Prints lines as they arrive.
fn show_warnings() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TOWPATH_LOG");
    // If a subscriber is already installed, keep it.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| "towpath_deploy=warn,towpath_kube=warn".into()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .try_init();
}

impl InProcess {
    /// Prepares this process to deploy; `None` if this shell knows no cluster. `project` overrides the name of the repository's
    /// project.
    pub async fn start(project: Option<&str>) -> Result<Option<Self>> {
        let target = match std::env::var(TARGET_VARIABLE).as_deref() {
            Ok("local") => return Ok(None),
            Ok("kubernetes") => Target::Kubernetes,
            _ => Target::Auto,
        };
        let TargetSettings::Kubernetes(identity) = target_settings(target) else {
            return Ok(None);
        };
        ending::begin_work();
        show_warnings();
        let store: Arc<dyn Store> = Arc::new(
            SqlStore::open(Database::SqliteMemory)
                .await
                .context("failed to make room for what this command has to remember")?,
        );
        let target = Arc::new(KubernetesTarget::new(KubernetesOptions::new(
            identity,
            Arc::new(NoCredentials),
        )));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let delivery = Delivery::new(Ports {
            store: store.clone(),
            target: target.clone(),
            live: target,
            forge: Arc::new(NoRepositories),
            images: Arc::new(RegistryImages::new()),
            clock: clock.clone(),
            renderer: Arc::new(Renderer::default()),
            fingerprint: fingerprinter(),
            own_registry: NO_REGISTRY.into(),
            pull_secret: PullSecret::NotNeeded,
        });
        // Outside of a repository, the request brings the manifests, if it needs any.
        if let Ok(repository) = Repository::find() {
            let project = project.map_or_else(|| repository.project(), str::to_string);
            delivery
                .discoverer
                .discover_in(&project, repository.manifests()?, &repository.file)
                .await?;
        }
        Ok(Some(Self {
            delivery,
            store,
            clock,
            actor: Actor::process(towpath_server::owner_name()),
        }))
    }

    /// Leases the work that was begun, so that this process carries it out.
    async fn lease(&self, kind: WorkKind, id: impl ToString) -> Result<Guard> {
        let key = WorkKey::new(kind, id);
        let leases = self
            .store
            .claim(&[key], "command line", self.clock.now(), LEASE)
            .await?;
        let lease = leases.first().ok_or_else(|| anyhow!("nothing was begun"))?;
        Ok(Guard::from(lease))
    }
}

/// Refuses a tag of an image that names no registry. Such an image is in a server's registry, and no server is up.
fn refuse_no_registry(project: &str, request: &LaptopRequest) -> Result<()> {
    if request.tag.is_none() || request.from.is_some() {
        return Ok(());
    }
    let file = request.parsed_project_file()?;
    let images = project_images(project, &file, &request.files, NO_REGISTRY)?;
    let mut without = images
        .iter()
        .filter(|(_, image)| image.registry.as_deref() == Some(NO_REGISTRY));
    let Some((name, image)) = without.next() else {
        return Ok(());
    };
    let last = image.repository.rsplit('/').next().unwrap_or(name);
    let (table, key) = match file.images.contains_key(name) {
        true => (format!("`[images.{name}]` of towpath.toml"), "repository"),
        false => ("towpath.toml".to_string(), "image"),
    };
    bail!(
        "no Towpath is up, so there is no registry to look in: write in {table} where the image is, such as \
         `{key} = \"registry.example.org/team/{last}\"`"
    )
}

#[async_trait]
impl Operations for InProcess {
    async fn environment(&self, id: &EnvironmentId) -> Result<EnvironmentView> {
        let row = self.delivery.observer.observe(id).await?;
        let releases = self.store.releases(id, HISTORY).await?;
        Ok(EnvironmentView::from_row(&row, &releases, self.clock.now())?)
    }

    async fn history(&self, id: &EnvironmentId) -> Result<Vec<ReleaseView>> {
        let place = self.delivery.history.place(id).await?;
        self.delivery.history.learn(&place).await?;
        let releases = self.store.releases(id, HISTORY).await?;
        Ok(releases.iter().map(ReleaseView::from).collect())
    }

    async fn plan(&self, id: &EnvironmentId, request: LaptopRequest) -> Result<PlanView> {
        refuse_no_registry(id.project(), &request)?;
        let plan = self.delivery.planner.plan_of_request(id, request).await?;
        Ok(PlanView::from(plan))
    }

    async fn adoption(&self, id: &EnvironmentId, request: LaptopRequest) -> Result<AdoptionView> {
        refuse_no_registry(id.project(), &request)?;
        Ok(self.delivery.planner.adoption(id, request).await?)
    }

    async fn deploy(&self, id: &EnvironmentId, request: LaptopRequest) -> Result<Started> {
        refuse_no_registry(id.project(), &request)?;
        let release = self.delivery.releases.deploy(id, request, &self.actor).await?;
        Ok(Started::release(release.id, release.number, release.status))
    }

    async fn rollback(&self, id: &EnvironmentId, to: Option<i64>, plan: Option<Digest>) -> Result<Started> {
        let releases = &self.delivery.releases;
        let release = releases.rollback(id, to, plan.as_ref(), &self.actor).await?;
        Ok(Started::release(release.id, release.number, release.status))
    }

    async fn run_job(&self, id: &EnvironmentId, request: LaptopRequest) -> Result<Started> {
        refuse_no_registry(id.project(), &request)?;
        let run = self.delivery.runs.start_job(id, request, &self.actor).await?;
        Ok(Started::Run {
            id: run.id,
            object: run.object,
        })
    }

    async fn run_cron_job(&self, id: &EnvironmentId, name: &str, plan: Option<Digest>) -> Result<Started> {
        let runs = &self.delivery.runs;
        let run = runs.start_cron_job(id, name, plan.as_ref(), &self.actor).await?;
        Ok(Started::Run {
            id: run.id,
            object: run.object,
        })
    }

    async fn tests(&self, id: &EnvironmentId) -> Result<Vec<String>> {
        Ok(self.delivery.runs.tests(id).await?)
    }

    async fn run_test(&self, id: &EnvironmentId, name: &str, plan: Option<Digest>) -> Result<Started> {
        let run = self
            .delivery
            .runs
            .start_test(id, name, plan.as_ref(), &self.actor)
            .await?;
        Ok(Started::Run {
            id: run.id,
            object: run.object,
        })
    }

    async fn apply_cron_job(&self, id: &EnvironmentId, request: LaptopRequest) -> Result<Vec<String>> {
        refuse_no_registry(id.project(), &request)?;
        Ok(self.delivery.runs.apply_cron_job(id, request, &self.actor).await?)
    }

    async fn drift(&self, id: &EnvironmentId) -> Result<DriftView> {
        Ok(self.delivery.observer.look_for_drift(id).await?)
    }

    async fn lock(&self, id: &EnvironmentId, reason: &str, lasts: SignedDuration) -> Result<Hold> {
        Ok(self.delivery.locks.lock(id, reason, lasts, &self.actor).await?)
    }

    async fn unlock(&self, id: &EnvironmentId, force: bool) -> Result<()> {
        Ok(self.delivery.locks.unlock(id, force, &self.actor).await?)
    }

    async fn secrets(&self, id: &EnvironmentId) -> Result<Vec<LiveSecret>> {
        Ok(self.delivery.secrets.list(id).await?)
    }

    async fn set_secret(&self, id: &EnvironmentId, secret: &str, key: &str, value: SecretBytes) -> Result<()> {
        let secrets = &self.delivery.secrets;
        Ok(secrets.set(id, secret, key, value, &self.actor.name).await?)
    }

    async fn unset_secret(&self, id: &EnvironmentId, secret: &str, key: &str) -> Result<()> {
        let secrets = &self.delivery.secrets;
        Ok(secrets.unset(id, secret, key, &self.actor.name).await?)
    }

    async fn follow(&self, started: &Started) -> Result<End> {
        match started {
            Started::Release(id) => {
                let guard = self.lease(WorkKind::Release, id).await?;
                let release = self
                    .delivery
                    .releases
                    .carry_out(&guard, *id, &Printed(print_of_release))
                    .await?;
                Ok(End {
                    outcome: release.outcome.unwrap_or(Outcome::Errored),
                    exit_code: None,
                })
            }
            Started::Repeated { number } => Ok(repeated(*number)),
            Started::Run { id, .. } => {
                let guard = self.lease(WorkKind::Run, id).await?;
                let run = self.delivery.runs.follow(&guard, *id, &Printed(print_of_run)).await?;
                Ok(End {
                    outcome: run.outcome.unwrap_or(Outcome::Errored),
                    exit_code: run.exit_code,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_image_without_a_registry_cannot_be_looked_for() {
        let request = |image: &str, tag: Option<&str>| LaptopRequest {
            tag: tag.map(str::to_string),
            project_file: Some(format!("image = \"{image}\"\n")),
            ..LaptopRequest::default()
        };
        let refused = refuse_no_registry("claims", &request("claims", Some("latest"))).unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("`image = \"registry.example.org/team/claims\"`"),
            "{refused}"
        );
        assert!(
            refuse_no_registry(
                "claims",
                &LaptopRequest {
                    tag: Some("latest".into()),
                    ..LaptopRequest::default()
                }
            )
            .is_err()
        );
        for good in [
            request("registry.example.org/team/claims", Some("latest")),
            request("127.0.0.1:5000/claims", Some("latest")),
            // The environment's current image is known by its digest.
            request("claims", None),
        ] {
            refuse_no_registry("claims", &good).unwrap();
        }
    }
}
