//! A server's dependencies: everything with an effect outside of this process. Tests replace them with fakes.

use crate::{
    Engines, Identity, ObjectSettings, Settings, TargetSettings, Tokens,
    contexts::REGISTRY_USER,
    registry_door::{RegistryDoor, push_recorder},
    secrets::{EnvironmentSecrets, NotedSecrets},
};
use std::{os::unix::fs::PermissionsExt, path::Path, sync::Arc};
use towpath_delivery::{DeliveryError, SystemClock};
use towpath_deploy::{KubernetesOptions, KubernetesTarget, LiveSecrets, LocalOptions, LocalTarget, Target};
use towpath_engines::{DockerEngine, DockerOptions, Engine, HostEngine, HostOptions, MOST_PROCESSES};
use towpath_forge::{Forge, GitForge};
use towpath_images::{Images, Registry, RegistryImages};
use towpath_secrets::SealedStore;
use towpath_store::{Database, FolderObjects, ObjectLocation, Objects, S3Objects, SqlStore, Store};
use towpath_types::Clock;

/// A server's dependencies.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Outside {
    pub store: Arc<dyn Store>,
    pub objects: Arc<dyn Objects>,
    pub clock: Arc<dyn Clock>,
    pub identity: Arc<dyn Identity>,
    pub sealed: Arc<SealedStore>,
    /// The git remote, as git talks to it.
    pub git: Arc<GitForge>,
    /// The same remote, as all other code reads it.
    pub forge: Arc<dyn Forge>,
    pub registry: Registry,
    pub images: Arc<dyn Images>,
    pub engines: Engines,
    pub target: Arc<dyn Target>,
    /// The Secrets that pods there read.
    pub live: Arc<dyn LiveSecrets>,
}

impl Outside {
    /// Opens the dependencies that `settings` name.
    ///
    /// # Errors
    /// When another Towpath uses the data directory, something in it cannot be used, the database does not answer, or
    /// no container engine is reachable.
    pub async fn open(settings: &Settings) -> Result<Self, DeliveryError> {
        let data_dir = &settings.data_dir;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store: Arc<dyn Store> = Arc::new(open_store(settings).await?);
        keep_private(data_dir);
        let objects = open_objects(settings).await?;
        let identity: Arc<dyn Identity> =
            Arc::new(Tokens::open(data_dir).map_err(|error| failed(data_dir, "the tokens", error))?);
        let addresses = settings.addresses();
        // Contexts hold these two, and the log has them in many lines.
        settings.seen.leave(&addresses.registry);
        settings.seen.leave(REGISTRY_USER);
        let sealed =
            SealedStore::open(&data_dir.join("secrets")).map_err(|error| failed(data_dir, "the secrets", error))?;
        let sealed = Arc::new(sealed.noting(settings.seen.clone()));
        let git = GitForge::open(&data_dir.join("git"), &settings.binary)
            .await
            .map_err(|error| failed(data_dir, "the git repositories", error))?;
        let git = Arc::new(git);
        let door = Arc::new(RegistryDoor {
            store: store.clone(),
            identity: identity.clone(),
        });
        let observer = push_recorder(store.clone(), clock.clone(), addresses.registry.clone());
        let registry = Registry::open(data_dir.join("registry"), door, observer)
            .map_err(|error| failed(data_dir, "the registry", error))?;
        let images = RegistryImages::new().with_own(addresses.registry.clone(), registry.clone());
        let engines = open_engines(settings, store.instance()).await?;
        let (target, live) = open_target(
            settings,
            store.instance(),
            &sealed,
            &identity,
            &addresses.registry,
            &clock,
        )
        .await?;
        Ok(Self {
            store,
            objects,
            clock,
            identity,
            sealed,
            forge: git.clone(),
            git,
            registry,
            images: Arc::new(images),
            engines,
            target,
            live,
        })
    }
}

fn failed(data_dir: &Path, what: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> DeliveryError {
    DeliveryError::unavailable(format!("failed to open {what} in `{}`", data_dir.display())).caused_by(error)
}

/// Closes the data directory to other users, jobs on this machine among them. Whoever made it may have left it open.
fn keep_private(data_dir: &Path) {
    let closed = std::fs::metadata(data_dir).and_then(|found| match found.permissions().mode() & 0o077 {
        0 => Ok(()),
        _ => std::fs::set_permissions(data_dir, std::fs::Permissions::from_mode(0o700)),
    });
    if let Err(error) = closed {
        tracing::warn!(
            path = %data_dir.display(), %error,
            "failed to close the data directory to other users of this machine, who may read what is in it; run `chmod 700`"
        );
    }
}

async fn open_store(settings: &Settings) -> Result<SqlStore, DeliveryError> {
    let database = match &settings.database {
        None => Database::SqliteFile(settings.data_dir.clone()),
        Some(url) => Database::Postgres(url.expose().to_string()),
    };
    let fail = |error| failed(&settings.data_dir, "the storage", error);
    let store = SqlStore::open(database).await.map_err(fail)?;
    if settings.database.is_some() {
        store.belong_to(&settings.data_dir).await.map_err(fail)?;
    }
    Ok(store)
}

async fn open_objects(settings: &Settings) -> Result<Arc<dyn Objects>, DeliveryError> {
    let fail = |error| failed(&settings.data_dir, "the logs and blobs", error);
    Ok(match &settings.objects {
        ObjectSettings::DataDirectory => Arc::new(FolderObjects::open(&settings.data_dir).map_err(fail)?),
        ObjectSettings::At(ObjectLocation::Folder(path)) => Arc::new(FolderObjects::open(path).map_err(fail)?),
        ObjectSettings::At(ObjectLocation::S3 { bucket, prefix }) => {
            let spool = settings.own_folder().join("spool");
            let objects = S3Objects::open(bucket, prefix, std::env::vars(), &spool).await;
            Arc::new(objects.map_err(fail)?)
        }
    })
}

async fn open_engines(settings: &Settings, of_store: &str) -> Result<Engines, DeliveryError> {
    let agent_socket = settings.agent_socket(of_store);
    let containers: Option<Arc<dyn Engine>> = match settings.engine {
        false => None,
        true => {
            let docker = DockerEngine::connect(DockerOptions {
                instance: settings.instance(of_store),
                agent_binary: settings.binary.clone(),
                agent_socket: agent_socket.clone(),
            });
            let absent = |error| DeliveryError::unavailable("there is no container engine in reach").caused_by(error);
            Some(Arc::new(docker.await.map_err(absent)?))
        }
    };
    let directory = settings.jobs_folder(of_store);
    let host = HostEngine::new(HostOptions {
        directory: directory.clone(),
        agent_binary: settings.binary.clone(),
        agent_socket,
        inherited: settings.host_environment.clone(),
        users: settings.host_jobs.users,
        most_processes: MOST_PROCESSES,
        engine_socket: DockerEngine::socket(),
    })
    .map_err(|error| {
        let message = format!(
            "failed to open the folder for jobs on this machine, `{}`",
            directory.display()
        );
        DeliveryError::unavailable(message).caused_by(error)
    })?;
    Ok(Engines {
        containers,
        host: Arc::new(host),
    })
}

async fn open_target(
    settings: &Settings,
    instance: &str,
    sealed: &Arc<SealedStore>,
    identity: &Arc<dyn Identity>,
    registry: &str,
    clock: &Arc<dyn Clock>,
) -> Result<(Arc<dyn Target>, Arc<dyn LiveSecrets>), DeliveryError> {
    let secrets = Arc::new(EnvironmentSecrets::new(
        sealed.clone(),
        identity.clone(),
        registry.to_string(),
        matches!(settings.target, TargetSettings::Local),
    ));
    if let TargetSettings::Kubernetes(identity) = &settings.target {
        let options = KubernetesOptions::new(identity.clone(), secrets);
        let target = Arc::new(KubernetesTarget::new(options));
        let live = NotedSecrets {
            live: target.clone(),
            seen: settings.seen.clone(),
        };
        return Ok((target, Arc::new(live)));
    }
    let options = LocalOptions::new(
        settings.data_dir.join("local"),
        instance.to_string(),
        settings.binary.clone(),
        secrets.clone(),
        clock.clone(),
    );
    let target = LocalTarget::open(options)
        .await
        .map_err(|error| DeliveryError::unavailable("failed to open the local target").caused_by(error))?;
    Ok((Arc::new(target), secrets))
}
