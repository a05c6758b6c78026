//! The error of this crate: a message for the requester, and a kind.

use crate::plan::PlanView;
use std::fmt;
use towpath_deploy::TargetError;
use towpath_forge::ForgeError;
use towpath_store::StoreError;

/// What kind of answer an error is. The HTTP edge turns it into a status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// It does not exist, or the caller may not know that it does.
    NotFound,
    /// The state of the subject does not allow this.
    Conflict,
    /// The request itself makes no sense.
    Invalid,
    /// The caller may not do this.
    Forbidden,
    /// A dependency of Towpath (cluster, engine, registry, database, disk) does not work now.
    Unavailable,
    /// A bug in Towpath.
    Internal,
}

/// An error with a sentence for the requester, and a cause for the log.
#[derive(Debug)]
pub struct DeliveryError {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    plan: Option<Box<PlanView>>,
}

impl DeliveryError {
    /// An error with `message` for the requester.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
            plan: None,
        }
    }

    /// Attaches the plan to show to the requester, so that they can agree to it.
    #[must_use]
    pub(crate) fn showing(mut self, plan: PlanView) -> Self {
        self.plan = Some(Box::new(plan));
        self
    }

    /// The plan that the requester has to look at. The same request succeeds if it names this plan.
    #[must_use]
    pub fn plan(&self) -> Option<&PlanView> {
        self.plan.as_deref()
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The kind of the error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message followed by each cause, on one line: for a log or a command line.
    #[must_use]
    pub fn chain(&self) -> String {
        towpath_types::with_causes(self)
    }

    /// Whether the lease of this work was lost. Then stop and change nothing more: another server has the work.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        matches!(self.store_error(), Some(StoreError::Fenced(_)))
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self.store_error() {
            Some(error) => error.is_temporary(),
            None => self.kind == ErrorKind::Unavailable,
        }
    }

    /// Whether another writer was first: load and decide again.
    pub(crate) fn is_stale(&self) -> bool {
        matches!(self.store_error(), Some(StoreError::Conflict { .. }))
    }

    /// Whether the store failed, which says nothing about an environment.
    #[must_use]
    pub fn is_of_store(&self) -> bool {
        self.store_error().is_some()
    }

    /// Whether the store is away or its disk is full: a temporary problem that does not count as a failure.
    #[must_use]
    pub fn is_of_store_that_is_away(&self) -> bool {
        matches!(
            self.store_error(),
            Some(StoreError::Unavailable { .. } | StoreError::Full(_) | StoreError::Object { .. })
        )
    }

    /// Whether a disk is full.
    #[must_use]
    pub fn is_of_full_disk(&self) -> bool {
        matches!(self.store_error(), Some(StoreError::Full(_)))
    }

    fn store_error(&self) -> Option<&StoreError> {
        self.source.as_deref().and_then(|source| source.downcast_ref())
    }
}

impl fmt::Display for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DeliveryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// A constructor for each kind.
macro_rules! kinds {
    ($($name:ident => $kind:ident),* $(,)?) => {
        impl DeliveryError {
            $(
                #[doc = concat!("An error of the kind [`ErrorKind::", stringify!($kind), "`].")]
                #[must_use]
                pub fn $name(message: impl Into<String>) -> Self {
                    Self::new(ErrorKind::$kind, message)
                }
            )*
        }
    };
}

kinds! {
    not_found => NotFound,
    conflict => Conflict,
    invalid => Invalid,
    forbidden => Forbidden,
    unavailable => Unavailable,
    internal => Internal,
}

impl From<StoreError> for DeliveryError {
    fn from(error: StoreError) -> Self {
        let answer = match &error {
            StoreError::Conflict { .. } | StoreError::Fenced(_) => {
                Self::conflict("somebody else changed this at the same time: look at it again")
            }
            _ => Self::unavailable("Towpath's own storage does not work"),
        };
        answer.caused_by(error)
    }
}

impl From<TargetError> for DeliveryError {
    fn from(error: TargetError) -> Self {
        match error {
            TargetError::NotFound(message) => Self::not_found(message),
            TargetError::Refused(message) => Self::conflict(message),
            // Its own message says what was attempted.
            failed @ TargetError::Failed { .. } => Self::unavailable(failed.chain()),
        }
    }
}

impl From<ForgeError> for DeliveryError {
    fn from(error: ForgeError) -> Self {
        match error {
            ForgeError::UnknownProject(_) | ForgeError::NotFound { .. } => Self::not_found(error.to_string()),
            ForgeError::TooLarge { .. } | ForgeError::Unread { .. } => Self::invalid(error.to_string()),
            other => Self::unavailable("git does not work as it should").caused_by(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use towpath_store::{WorkKey, WorkKind};

    #[test]
    fn an_error_of_the_store_says_what_its_caller_has_to_do() {
        let conflict = DeliveryError::from(StoreError::Conflict { what: "a row".into() });
        assert!(conflict.is_stale() && !conflict.is_fenced() && !conflict.is_temporary());
        assert_eq!(conflict.kind(), ErrorKind::Conflict);
        let fenced = DeliveryError::from(StoreError::Fenced(WorkKey::new(WorkKind::Release, "r")));
        assert!(fenced.is_fenced() && !fenced.is_stale() && !fenced.is_temporary());
        let away = DeliveryError::from(StoreError::Unavailable {
            database: "towpath.db".into(),
            source: "it is away".into(),
        });
        assert!(away.is_temporary() && !away.is_stale());
        assert_eq!(
            away.chain(),
            "Towpath's own storage does not work: the database `towpath.db` does not answer: it is away"
        );
    }
}
