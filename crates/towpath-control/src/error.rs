//! The conductor's error: a message for the person who asked, and what kind of answer it is.

use std::fmt;

/// What kind of answer an error is; the HTTP edge turns it into a status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// It is not there, or the caller may not know that it is.
    NotFound,
    /// It is there, in a state that does not allow this.
    Conflict,
    /// What was asked makes no sense as it was asked.
    Invalid,
    /// The caller may not do this.
    Forbidden,
    /// Something that Towpath stands on (engine, registry, disk) does not work now.
    Unavailable,
    /// A defect of Towpath.
    Internal,
}

/// An error with the sentence for whoever asked, and the cause for the log.
#[derive(Debug)]
pub struct ControlError {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ControlError {
    /// An error that says `message` to whoever asked.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// The same with its cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of answer it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message followed by each cause, on one line: what a log and a command line show.
    #[must_use]
    pub fn chain(&self) -> String {
        towpath_types::with_causes(self)
    }
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ControlError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Shorthand for the constructors that the conductor uses everywhere.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident => $kind:ident),* $(,)?) => {
        impl ControlError {
            $($(#[$doc])*
            pub fn $name(message: impl Into<String>) -> Self {
                Self::new(ErrorKind::$kind, message)
            })*
        }
    };
}

kinds! {
    /// It is not there.
    not_found => NotFound,
    /// Its state does not allow this.
    conflict => Conflict,
    /// What was asked makes no sense.
    invalid => Invalid,
    /// The caller may not do this.
    forbidden => Forbidden,
    /// Something below does not work now.
    unavailable => Unavailable,
    /// A defect.
    internal => Internal,
}
