//! The contract of a target. One controller for each environment keeps it.

use super::{
    apply,
    controller::{self, Controller},
    environment,
    job::{self, pod_name},
    local_environment::{LocalEnvironment, Shared},
    model::{self, Resource},
    names::Names,
    preflight, status,
    store::Store,
};
use crate::lines::{LineCutter, whole_lines};
use crate::target::{
    Applied, ApplyError, ApplyRequest, CronJobStatus, Drift, Environment, EnvironmentId, Finding, Hold, JobHandle,
    Preflight, Progress, ReleaseRecord, SecretSource, Severity, Target, TargetError, Volumes, WorkloadStatus,
};
use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture, stream::BoxStream};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use towpath_container::{
    ContainerClient, ScratchImage, Tail, load_scratch_image,
    scratch::{FileContent, ScratchFile},
};
use towpath_manifest::{Fingerprints, Object, ObjectId, SourceKind, reads};
use towpath_types::{Clock, ReleaseId};

/// The first pause before a crashed container restarts. It doubles each time.
///
/// Source: <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy>
const BACKOFF: Duration = Duration::from_secs(10);
/// The program's name in the proxies' image.
const PROGRAM: &str = "towpath";

/// The options of a local target.
#[allow(missing_docs)]
pub struct LocalOptions {
    /// The folder for the documents and the proxies' routes.
    pub directory: PathBuf,
    /// The data directory's name. Everything that the target makes in the engine is labelled with it.
    pub instance: String,
    /// This program's file: a static binary that runs the proxy when called with `proxy --routes DIR`.
    pub binary: PathBuf,
    pub secrets: Arc<dyn SecretSource>,
    /// The clock for schedules and for Jobs' deadlines.
    pub clock: Arc<dyn Clock>,
    /// The first pause before a failed container or Job restarts. It doubles each time.
    pub backoff: Duration,
}

impl LocalOptions {
    /// Options with Kubernetes' own pauses.
    #[must_use]
    pub fn new(
        directory: PathBuf,
        instance: String,
        binary: PathBuf,
        secrets: Arc<dyn SecretSource>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            directory,
            instance,
            binary,
            secrets,
            clock,
            backoff: BACKOFF,
        }
    }
}

/// The environments of one machine's container engine.
pub struct LocalTarget {
    directory: PathBuf,
    instance: String,
    shared: Shared,
    controllers: Mutex<BTreeMap<EnvironmentId, Arc<Controller>>>,
    /// Held while an environment is created, so that two callers do not create it twice.
    making: tokio::sync::Mutex<()>,
    stop: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LocalTarget {
    /// Adopts every environment in `options.directory`, with its running containers.
    ///
    /// # Errors
    /// When the engine does not answer, or a document cannot be read.
    pub async fn open(options: LocalOptions) -> Result<Self, TargetError> {
        let engine = ContainerClient::connect().await?;
        let target = Self {
            shared: Shared {
                proxy_image: load_proxy_image(&engine, &options.binary).await?,
                engine,
                secrets: options.secrets,
                clock: options.clock,
                memory: PathBuf::from(format!("/dev/shm/towpath-{}", options.instance)),
                backoff: options.backoff,
            },
            directory: options.directory,
            instance: options.instance,
            controllers: Mutex::default(),
            making: tokio::sync::Mutex::new(()),
            stop: CancellationToken::new(),
        };
        let failed = || format!("read `{}`", target.directory.display());
        std::fs::create_dir_all(&target.directory).map_err(TargetError::failed(failed()))?;
        for entry in std::fs::read_dir(&target.directory).map_err(TargetError::failed(failed()))? {
            let entry = entry.map_err(TargetError::failed(failed()))?;
            let slug = entry.file_name().to_string_lossy().into_owned();
            let Ok(id) = slug.parse::<EnvironmentId>() else {
                continue;
            };
            if let Some(store) = Store::open(&entry.path())? {
                target.take_over(id, store).await?;
            }
        }
        Ok(target)
    }

    async fn take_over(&self, id: EnvironmentId, store: Store) -> Result<Arc<Controller>, TargetError> {
        let context = LocalEnvironment::new(&self.shared, Names::new(&self.instance, &id), id.clone(), store);
        let controller = Controller::start(context, self.stop.child_token()).await?;
        lock(&self.controllers).insert(id, Arc::clone(&controller));
        Ok(controller)
    }

    /// The image of the proxies, which contains only this program.
    #[must_use]
    pub fn proxy_image(&self) -> &str {
        &self.shared.proxy_image
    }

    fn known(&self, id: &EnvironmentId) -> Option<Arc<Controller>> {
        lock(&self.controllers).get(id).cloned()
    }

    async fn controller(&self, id: &EnvironmentId) -> Result<Arc<Controller>, TargetError> {
        let _turn = self.making.lock().await;
        if let Some(known) = self.known(id) {
            return Ok(known);
        }
        let store = Store::create(&self.directory.join(id.slug()), id.clone())?;
        self.take_over(id.clone(), store).await
    }

    fn existing(&self, id: &EnvironmentId) -> Result<Arc<Controller>, TargetError> {
        self.known(id)
            .ok_or_else(|| TargetError::NotFound(format!("nothing was ever applied to {id}")))
    }

    async fn findings(&self, id: &EnvironmentId, objects: &[Object]) -> Result<Vec<Finding>, TargetError> {
        let document = self.known(id).map(|controller| controller.context.store.read());
        let preflight = preflight::Preflight {
            id,
            applied: document.as_ref().map_or(&[], |document| &document.objects),
            engine: &self.shared.engine,
            secrets: self.shared.secrets.as_ref(),
        };
        preflight.findings(objects).await
    }

    async fn carry_out(
        &self,
        request: ApplyRequest,
        progress: mpsc::UnboundedSender<Progress>,
    ) -> Result<(), ApplyError> {
        let id = &request.environment.id;
        let findings = self.findings(id, &request.objects).await.map_err(apply::errored)?;
        if let Some(error) = apply::refusal(&request, &findings) {
            return Err(error);
        }
        let controller = self.controller(id).await.map_err(apply::errored)?;
        apply::carry_out(self, &controller, &request, &progress).await
    }
}

impl Drop for LocalTarget {
    fn drop(&mut self) {
        // Only the loops end. The containers keep running.
        self.stop.cancel();
    }
}

/// Loads the image of the proxies, which contains only this program, once for each build of the program.
async fn load_proxy_image(engine: &ContainerClient, binary: &Path) -> Result<String, TargetError> {
    let image = ScratchImage {
        repository: "towpath/proxy".into(),
        files: vec![ScratchFile {
            path: format!("bin/{PROGRAM}"),
            mode: 0o755,
            content: FileContent::Copy(binary.to_path_buf()),
        }],
        folders: vec![("tmp".into(), 0o1777)],
        entrypoint: vec![format!("/bin/{PROGRAM}")],
        environment: vec!["PATH=/bin".into()],
        ..ScratchImage::default()
    };
    let attempted = format!("make the proxies' image of `{}`", binary.display());
    let name = load_scratch_image(engine, image).await;
    Ok(name.map_err(TargetError::failed(attempted))?.to_string())
}

impl Target for LocalTarget {
    fn preflight<'a>(
        &'a self,
        environment: &'a Environment,
        objects: &'a [Object],
        _prune: &'a [ObjectId],
    ) -> BoxFuture<'a, Result<Preflight, TargetError>> {
        Box::pin(async move {
            let findings = self.findings(&environment.id, objects).await?;
            Ok(Preflight {
                findings,
                changes: None,
            })
        })
    }

    fn fingerprints<'a>(
        &'a self,
        environment: &'a Environment,
        objects: &'a [Object],
    ) -> BoxFuture<'a, Result<Fingerprints, TargetError>> {
        Box::pin(async move {
            let mut fingerprints = Fingerprints::default();
            for name in read_names(objects, SourceKind::Secret) {
                let secrets = &self.shared.secrets;
                let values = secrets.values(&environment.id, &name).await;
                let values = values.map_err(TargetError::failed(format!("read the Secret `{name}`")))?;
                let print =
                    |(key, value): (String, towpath_types::SecretBytes)| (key, secrets.fingerprint(value.expose()));
                if let Some(values) = values {
                    fingerprints
                        .secrets
                        .insert(name, values.into_iter().map(print).collect());
                }
            }
            Ok(fingerprints)
        })
    }

    fn releases<'a>(&'a self, _: &'a Environment) -> BoxFuture<'a, Result<Vec<ReleaseRecord>, TargetError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn current<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Option<Applied>, TargetError>> {
        Box::pin(async move {
            let document = self
                .known(&environment.id)
                .map(|controller| controller.context.store.read());
            Ok(document
                .filter(|document| document.attempted.is_some() || document.hold.is_some())
                .map(|document| Applied {
                    release: document.release,
                    attempted: document.attempted,
                    objects: document.objects.iter().map(Object::id).collect(),
                    hold: document.hold.clone(),
                    deploying: None,
                }))
        })
    }

    fn apply(
        &self,
        request: ApplyRequest,
        progress: mpsc::UnboundedSender<Progress>,
    ) -> BoxFuture<'_, Result<(), ApplyError>> {
        Box::pin(self.carry_out(request, progress))
    }

    fn count_repeat<'a>(
        &'a self,
        _: &'a Environment,
        _: ReleaseId,
        _: Timestamp,
    ) -> BoxFuture<'a, Result<(), TargetError>> {
        // The caller's storage is the only record.
        Box::pin(async { Ok(()) })
    }

    fn status<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<WorkloadStatus>, TargetError>> {
        Box::pin(async move {
            Ok(self
                .known(&environment.id)
                .map(|controller| status::statuses(&controller))
                .unwrap_or_default())
        })
    }

    fn drift<'a>(&'a self, _: &'a Environment, _: &'a [Object]) -> BoxFuture<'a, Result<Vec<Drift>, TargetError>> {
        // The controllers undo every foreign change of containers.
        Box::pin(async { Ok(Vec::new()) })
    }

    fn set_hold<'a>(
        &'a self,
        environment: &'a Environment,
        hold: Option<Hold>,
    ) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(async move {
            let controller = self.controller(&environment.id).await?;
            controller.context.store.update(|document| document.hold = hold).await
        })
    }

    fn cron_jobs<'a>(&'a self, environment: &'a Environment) -> BoxFuture<'a, Result<Vec<CronJobStatus>, TargetError>> {
        Box::pin(async move {
            Ok(self
                .known(&environment.id)
                .map(|controller| status::cron_jobs(&controller))
                .unwrap_or_default())
        })
    }

    fn run_job<'a>(
        &'a self,
        environment: &'a Environment,
        job: Object,
        // There is one node, and it accepts all pods.
        _unschedulable: Option<Duration>,
    ) -> BoxFuture<'a, Result<JobHandle, TargetError>> {
        Box::pin(async move {
            let refused = self.findings(&environment.id, std::slice::from_ref(&job)).await?;
            let refused: Vec<String> = refused
                .iter()
                .filter(|f| f.severity == Severity::Refused)
                .map(ToString::to_string)
                .collect();
            if !refused.is_empty() {
                return Err(TargetError::Refused(refused.join("\n")));
            }
            let controller = self.controller(&environment.id).await?;
            if controller.context.store.read().attempted.is_none() {
                controller
                    .context
                    .store
                    .update(|document| document.namespace.clone_from(&environment.namespace))
                    .await?;
            }
            let name = job.name.clone();
            controller.start_job(job, None).await?;
            Ok(job::follow(Arc::clone(&controller.context), &name))
        })
    }

    fn follow_job<'a>(
        &'a self,
        environment: &'a Environment,
        name: &'a str,
        _unschedulable: Option<Duration>,
    ) -> BoxFuture<'a, Result<JobHandle, TargetError>> {
        Box::pin(async move {
            let controller = self.existing(&environment.id)?;
            if !controller.context.store.read().jobs.contains_key(name) {
                return Err(TargetError::NotFound(format!("{environment} has no Job `{name}`")));
            }
            Ok(job::follow(Arc::clone(&controller.context), name))
        })
    }

    fn start_cron_job<'a>(
        &'a self,
        environment: &'a Environment,
        name: &'a str,
        run: &'a str,
        _unschedulable: Option<Duration>,
    ) -> BoxFuture<'a, Result<JobHandle, TargetError>> {
        Box::pin(async move {
            let controller = self.existing(&environment.id)?;
            let (_, parsed) = controller.parsed();
            let missing = || TargetError::NotFound(format!("{environment} has no CronJob `{name}`"));
            let cron = parsed.crons.get(name).ok_or_else(missing)?;
            controller
                .start_job(controller::job_object(name, cron, run)?, Some(name))
                .await?;
            Ok(job::follow(Arc::clone(&controller.context), run))
        })
    }

    fn cancel_job<'a>(&'a self, environment: &'a Environment, name: &'a str) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(async move {
            let controller = self.existing(&environment.id)?;
            if !controller.context.store.read().jobs.contains_key(name) {
                return Err(TargetError::NotFound(format!("{environment} has no Job `{name}`")));
            }
            controller::cancel(&controller.context, &[name.to_string()]).await
        })
    }

    fn logs<'a>(
        &'a self,
        environment: &'a Environment,
        workload: &'a ObjectId,
        tail: u32,
        follow: bool,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Bytes>, TargetError>> {
        Box::pin(async move {
            let controller = self.existing(&environment.id)?;
            let context = Arc::clone(&controller.context);
            let mut sources = Vec::new();
            match workload.kind.as_str() {
                "Job" => {
                    let document = context.store.read();
                    let missing = || TargetError::NotFound(format!("{environment} has no {workload}"));
                    let record = document.jobs.get(&workload.name).ok_or_else(missing)?;
                    if let Some(Resource::Job(job)) = model::parse(&record.object).0 {
                        sources.push((pod_name(&workload.name, record.attempt), job.pod));
                    }
                }
                _ => sources.extend(
                    controller
                        .pods_of(&workload.name)
                        .iter()
                        .map(|pod| (pod.name.clone(), pod.template.clone())),
                ),
            }
            let several = sources.len() > 1;
            let mut streams = Vec::new();
            for (pod, template) in sources {
                let mask = environment::mask(&context, &template).await;
                for container in &template.containers {
                    let prefix = if several { format!("[{pod}] ") } else { String::new() };
                    let cutter = LineCutter::new(&mask, prefix);
                    let name = context.names.container(&pod, &container.name);
                    let pieces = context.engine.output(&name, Tail::Lines(tail), follow);
                    streams.push(whole_lines(pieces, cutter));
                }
            }
            Ok(futures::stream::select_all(streams).boxed())
        })
    }

    fn delete_environment<'a>(
        &'a self,
        environment: &'a Environment,
        volumes: Volumes,
    ) -> BoxFuture<'a, Result<(), TargetError>> {
        Box::pin(async move {
            let Some(controller) = self.known(&environment.id) else {
                return Ok(());
            };
            controller.wipe(volumes == Volumes::Delete).await?;
            lock(&self.controllers).remove(&environment.id);
            Ok(())
        })
    }
}

/// The names of the sources of one kind that `objects` read, without duplicates.
fn read_names(objects: &[Object], kind: SourceKind) -> BTreeSet<String> {
    let read = objects.iter().flat_map(reads).filter(|read| read.kind == kind);
    read.map(|read| read.name).collect()
}
