//! The store as its traits are implemented on it.

use super::{
    database::Backend,
    faults::{Faults, Verdict},
    folder,
    mark::{self, Marks},
    operation::{Done, Operation, Request},
    publish::Publisher,
    query::{Query, Row},
    record::Record,
};
use crate::StoreError;
use nix::fcntl::Flock;
use std::{fmt, fs::File, path::Path, sync::Arc};
use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
};

/// All of [`crate::Store`]'s traits over SQLite or PostgreSQL. Clones share the database; it is closed with the last one.
#[derive(Clone)]
pub struct SqlStore {
    pub(crate) shared: Arc<Shared>,
    faults: Option<Faults>,
}

pub(crate) struct Shared {
    pub(crate) backend: Backend,
    pub(crate) requests: mpsc::UnboundedSender<Request>,
    pub(crate) publisher: Publisher,
    pub(crate) instance: String,
    pub(crate) is_new: bool,
    pub(crate) marks: Marks,
    /// The tasks that listen and that keep the mark, which end with the store.
    pub(crate) _tasks: Vec<AbortOnDrop>,
    /// The data directory's lock, held while the store is open.
    pub(crate) _lock: Option<Flock<File>>,
}

/// A task that ends with its owner.
pub(crate) struct AbortOnDrop(pub(crate) AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for SqlStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStore")
            .field("database", &self.shared.backend.name)
            .finish_non_exhaustive()
    }
}

impl SqlStore {
    pub(crate) fn new(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
            faults: None,
        }
    }

    /// The same store with failures that a test injects. Clones made before have none.
    #[must_use]
    pub fn with_faults(self, faults: Faults) -> Self {
        Self {
            faults: Some(faults),
            ..self
        }
    }

    /// Where its rows are, for messages: a file, or an address without a password.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.shared.backend.name
    }

    /// Checks that the data directory `folder` belongs to this database, which is elsewhere, and that the database is not behind
    /// it; notes there how far the database has come, from now on.
    ///
    /// # Errors
    /// [`StoreError::OtherInstance`], [`StoreError::DatabaseLost`] or [`StoreError::Behind`] when they do not belong together.
    pub async fn belong_to(&self, folder: &Path) -> Result<(), StoreError> {
        folder::belong_together(folder, &self.shared.instance, self.database())?;
        let marked = mark::marked(folder)?;
        let height = mark::height_of(&self.shared.backend).await?;
        mark::check(folder, &format!("`{}`", self.database()), marked, height)?;
        self.shared.marks.keep_in(folder);
        Ok(())
    }

    /// Reads rows for the operation (a trait's method) of that name.
    pub(crate) async fn rows(
        &self,
        operation: &'static str,
        table: &'static str,
        query: Query,
    ) -> Result<Vec<Row>, StoreError> {
        if let Some(faults) = &self.faults {
            faults.record(&query.sql);
        }
        self.faulty(operation, self.shared.backend.rows(table, query)).await
    }

    /// Reads rows of a record's table.
    pub(crate) async fn all<R: Record>(&self, operation: &'static str, query: Query) -> Result<Vec<R>, StoreError> {
        self.rows(operation, R::TABLE, query)
            .await?
            .iter()
            .map(R::read)
            .collect()
    }

    /// Reads the first row of a record's table.
    pub(crate) async fn one<R: Record>(&self, operation: &'static str, query: Query) -> Result<Option<R>, StoreError> {
        self.rows(operation, R::TABLE, query)
            .await?
            .first()
            .map(R::read)
            .transpose()
    }

    /// Sends an operation to the writer. It completes even if the caller goes away.
    pub(crate) async fn change(&self, name: &'static str, operation: Operation) -> Result<Done, StoreError> {
        let sent = async {
            let (answer, result) = oneshot::channel();
            let request = Request {
                operation,
                faults: self.faults.clone(),
                answer,
            };
            self.shared.requests.send(request).map_err(|_| StoreError::Stopping)?;
            result.await.map_err(|_| StoreError::Stopping)?
        };
        self.faulty(name, sent).await
    }

    async fn faulty<T>(
        &self,
        operation: &'static str,
        effect: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let failure = || Faults::failure(&self.shared.backend.name);
        match self
            .faults
            .as_ref()
            .map_or(Verdict::Pass, |faults| faults.begin(operation))
        {
            Verdict::Pass => effect.await,
            Verdict::FailBefore => Err(failure()),
            Verdict::FailAfter => {
                effect.await?;
                Err(failure())
            }
        }
    }
}
