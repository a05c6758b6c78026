//! The stream of a release's events, and the row beside it.

use super::decide::row_of;
use crate::{error::DeliveryError, work};
use towpath_store::{Commit, Expect, Guard, ReleaseRow, Store, Write};
use towpath_types::{Clock, ReleaseId};
use towpath_workflow::{
    release::{Event, Release},
    wire::{read_release_event, write_release_event},
};

/// The name of a release's stream.
pub(crate) fn stream(id: ReleaseId) -> String {
    format!("release/{id}")
}

/// A release as it is stored.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    pub row: ReleaseRow,
    pub release: Release,
    /// The number of the release that it starts from and would roll back to.
    pub before: Option<i64>,
    /// The number of events in its stream.
    events: u64,
}

impl Loaded {
    /// Loads a release.
    ///
    /// # Errors
    /// `NotFound` when there is none, `Internal` when the stored events are not a valid release.
    pub(super) async fn load(store: &dyn Store, id: ReleaseId) -> Result<Self, DeliveryError> {
        let row = store.release(id).await?;
        let row = row.ok_or_else(|| DeliveryError::not_found(format!("there is no release {id}")))?;
        let stored = store.events(&stream(id), 0).await?;
        let events = stored.len() as u64;
        let unreadable = || DeliveryError::internal(format!("the events of release {id} cannot be read"));
        let mut read = Vec::new();
        for event in stored {
            read.push(read_release_event(event.event).map_err(|error| unreadable().caused_by(error))?);
        }
        let release = Release::fold(read).map_err(|error| unreadable().caused_by(error))?;
        let parent = match release.parent() {
            Some(parent) => store.release(parent).await?,
            None => None,
        };
        Ok(Self {
            row,
            release,
            before: parent.map(|parent| parent.number),
            events,
        })
    }

    /// Commits `happened` and the resulting row under the lease `guard`. The last event also ends the work.
    pub(super) async fn record(
        &self,
        store: &dyn Store,
        clock: &dyn Clock,
        guard: &Guard,
        happened: &[Event],
    ) -> Result<(), DeliveryError> {
        let mut release = self.release.clone();
        for event in happened {
            release.apply(event.clone()).map_err(|error| {
                DeliveryError::internal(format!("release {} cannot go on", self.row.id)).caused_by(error)
            })?;
        }
        let mut commit = Commit::new();
        commit.guard(guard.clone());
        commit.write(Write::Events {
            stream: stream(self.row.id),
            expected: self.events,
            events: happened.iter().map(write_release_event).collect(),
        });
        let next = row_of(&self.row, &release, self.before);
        if next != self.row {
            commit.write(Write::Release(next, Expect::Version(self.row.version)));
        }
        if release.is_over() && !self.release.is_over() {
            commit.write(Write::Work(work::look(&self.row.environment, clock.now())));
        }
        if release.outstanding().is_none() {
            commit.write(Write::WorkDone(guard.clone()));
        }
        store.commit(commit).await?;
        Ok(())
    }
}
