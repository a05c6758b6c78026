//! Which handler does which kind of work.

use crate::{
    Contexts, Engines, Identity, Orbs, ProgressLogs,
    capacity::Capacity,
    conductor::Conductor,
    job::{
        prepare::Preparation,
        supervise::{Attendance, Supervisor},
    },
    pipeline::make::PipelineMaker,
    pollers::{EnvironmentPoller, GatePoller, ProjectPoller, ReleaseCarrier, RunFollower},
    timers::Timers,
    worker::Handler,
};
use std::{collections::BTreeMap, sync::Arc};
use towpath_delivery::Delivery;
use towpath_forge::Forge;
use towpath_store::{Objects, Store, WorkKind};
use towpath_types::Clock;

/// What the handlers of one server are made of.
pub(crate) struct Handlers {
    pub store: Arc<dyn Store>,
    pub objects: Arc<dyn Objects>,
    pub forge: Arc<dyn Forge>,
    pub clock: Arc<dyn Clock>,
    pub conductor: Conductor,
    pub engines: Engines,
    pub preparation: Preparation,
    pub identity: Arc<dyn Identity>,
    pub attendance: Attendance,
    /// This server's id.
    pub server: String,
    /// What one container may have at most.
    pub machine: Capacity,
    pub orbs: Orbs,
    pub contexts: Contexts,
    pub delivery: Arc<Delivery>,
    pub progress: ProgressLogs,
    /// `http://127.0.0.1:7070`.
    pub base_url: String,
}

impl Handlers {
    /// One handler for each kind of work.
    pub(crate) fn by_kind(self) -> BTreeMap<WorkKind, Arc<dyn Handler>> {
        let Self {
            store,
            objects,
            forge,
            clock,
            conductor,
            engines,
            preparation,
            identity,
            attendance,
            server,
            machine,
            orbs,
            contexts,
            delivery,
            progress,
            base_url,
        } = self;
        BTreeMap::from([
            (
                WorkKind::Trigger,
                Arc::new(PipelineMaker {
                    store: store.clone(),
                    forge,
                    clock: clock.clone(),
                    orbs,
                    contexts,
                    protections: delivery.protections.clone(),
                    base_url,
                }) as Arc<dyn Handler>,
            ),
            (
                WorkKind::Job,
                Arc::new(Supervisor {
                    store: store.clone(),
                    objects,
                    clock: clock.clone(),
                    conductor: conductor.clone(),
                    engines,
                    preparation,
                    identity,
                    attendance,
                    server,
                    machine,
                }),
            ),
            (
                WorkKind::Timer,
                Arc::new(Timers {
                    conductor,
                    clock: clock.clone(),
                }),
            ),
            (
                WorkKind::Release,
                Arc::new(ReleaseCarrier {
                    store: store.clone(),
                    delivery: delivery.clone(),
                    progress: progress.clone(),
                    clock: clock.clone(),
                }),
            ),
            (
                WorkKind::Run,
                Arc::new(RunFollower {
                    delivery: delivery.clone(),
                    progress,
                }),
            ),
            (
                WorkKind::Gate,
                Arc::new(GatePoller {
                    delivery: delivery.clone(),
                    clock: clock.clone(),
                }),
            ),
            (
                WorkKind::Environment,
                Arc::new(EnvironmentPoller {
                    delivery: delivery.clone(),
                    clock: clock.clone(),
                }),
            ),
            (WorkKind::Project, Arc::new(ProjectPoller { store, delivery, clock })),
        ])
    }
}
