//! Puts the parts of delivery together.

use crate::{
    discover::Discoverer,
    gate::Gates,
    history::History,
    image::ImageFinder,
    lock::Locks,
    observe::Observer,
    planner::{Fingerprinter, Planner, PullSecret},
    protection::Protections,
    release::Releases,
    repository::Repositories,
    run::Runs,
    secrets::Secrets,
};
use std::sync::Arc;
use towpath_deploy::{LiveSecrets, Target, render::Renderer};
use towpath_forge::Forge;
use towpath_images::Images;
use towpath_store::Store;
use towpath_types::Clock;

/// The dependencies of delivery. Every effect goes through one of these.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Ports {
    pub store: Arc<dyn Store>,
    pub target: Arc<dyn Target>,
    /// The Secrets that pods there read.
    pub live: Arc<dyn LiveSecrets>,
    pub forge: Arc<dyn Forge>,
    pub images: Arc<dyn Images>,
    pub clock: Arc<dyn Clock>,
    pub renderer: Arc<Renderer>,
    /// Fingerprints the values of Secrets in manifests.
    pub fingerprint: Fingerprinter,
    /// The address of Towpath's own registry in image names: `127.0.0.1:7070`.
    pub own_registry: String,
    /// Whether pods need a Secret from Towpath to pull from that registry.
    pub pull_secret: PullSecret,
}

/// All of delivery. Each part gets its own dependencies and can be used alone.
#[derive(Clone)]
pub struct Delivery {
    /// Reads releases, and imports those that others carried out.
    pub history: History,
    /// Finds the images that workflows use.
    pub images: ImageFinder,
    /// Makes plans.
    pub planner: Planner,
    /// Shows what approving gates would do, and decides whether they open.
    pub gates: Gates,
    /// Begins releases and carries them out.
    pub releases: Releases,
    /// Starts one-off runs and follows them.
    pub runs: Runs,
    /// Locks environments.
    pub locks: Locks,
    /// Looks at environments.
    pub observer: Observer,
    /// Finds the environments of projects.
    pub discoverer: Discoverer,
    /// Says which environments are protected.
    pub protections: Protections,
    /// Lists and sets the Secrets that pods read.
    pub secrets: Secrets,
}

impl Delivery {
    /// Puts the parts together.
    #[must_use]
    pub fn new(ports: Ports) -> Self {
        let Ports {
            store,
            target,
            live,
            forge,
            images,
            clock,
            renderer,
            fingerprint,
            own_registry,
            pull_secret,
        } = ports;
        let repositories = Repositories::new(forge);
        let history = History::new(store.clone(), target.clone(), clock.clone());
        let images = ImageFinder::new(
            store.clone(),
            images,
            repositories.clone(),
            history.clone(),
            own_registry,
            clock.clone(),
        );
        let protections = Protections::new(store.clone(), repositories.clone());
        let planner = Planner {
            target: target.clone(),
            clock: clock.clone(),
            renderer: renderer.clone(),
            fingerprint,
            pull_secret,
            repositories: repositories.clone(),
            images: images.clone(),
            history: history.clone(),
            protections: protections.clone(),
        };
        let locks = Locks::new(store.clone(), target.clone(), clock.clone(), history.clone());
        let discoverer = Discoverer::new(store.clone(), renderer, repositories);
        Self {
            gates: Gates::new(store.clone(), clock.clone(), planner.clone(), locks.clone()),
            releases: Releases::new(
                store.clone(),
                target.clone(),
                clock.clone(),
                planner.clone(),
                locks.clone(),
            ),
            runs: Runs::new(
                store.clone(),
                target.clone(),
                clock.clone(),
                planner.clone(),
                locks.clone(),
            ),
            observer: Observer::new(store, target, clock, history.clone()),
            secrets: Secrets::new(live, history.clone(), discoverer.clone()),
            discoverer,
            history,
            images,
            planner,
            locks,
            protections,
        }
    }
}
