//! How a Rust type becomes the value of a column, and how it is read back.

use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, fmt::Display, str::FromStr};
use towpath_types::{
    CommitId, Digest, EnvironmentId, ImageReference, JobId, JobKind, JobStatus, Outcome, PipelineId, PipelineStatus,
    ProjectName, ReleaseId, ReleaseStatus, Right, RunId, RunKind, StepStatus, TestResult, TriggerId, TriggerStatus,
    Via, WorkflowId, WorkflowStatus,
};

use crate::WorkKind;

/// A column's value. An empty value has a type, because PostgreSQL prepares a statement for the types that it sees
/// first.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(Option<String>),
    Int(Option<i64>),
    Real(Option<f64>),
}

impl Value {
    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Self::Text(None) | Self::Int(None) | Self::Real(None))
    }
}

/// A type that can be bound to a query.
pub(crate) trait ToValue {
    fn to_value(&self) -> Value;
}

/// A type that a column holds.
pub(crate) trait Stored: ToValue + Sized {
    /// The empty value of its column.
    const NULL: Value;

    /// Reads it back; the error says what is wrong with the value.
    fn from_value(value: Value) -> Result<Self, String>;
}

fn text(value: Value) -> Result<String, String> {
    match value {
        Value::Text(Some(text)) => Ok(text),
        Value::Text(None) => Err("it is empty".into()),
        other => Err(format!("{other:?} is not a text")),
    }
}

fn int(value: Value) -> Result<i64, String> {
    match value {
        Value::Int(Some(number)) => Ok(number),
        Value::Int(None) => Err("it is empty".into()),
        other => Err(format!("{other:?} is not a number")),
    }
}

impl ToValue for str {
    fn to_value(&self) -> Value {
        // PostgreSQL's text cannot hold the character 0.
        Value::Text(Some(self.replace('\0', "\u{fffd}")))
    }
}

impl ToValue for String {
    fn to_value(&self) -> Value {
        self.as_str().to_value()
    }
}

impl Stored for String {
    const NULL: Value = Value::Text(None);
    fn from_value(value: Value) -> Result<Self, String> {
        text(value)
    }
}

/// Words and ids: written with `Display`, read with `FromStr`.
macro_rules! as_text {
    ($($type:ty),* $(,)?) => {$(
        impl ToValue for $type {
            fn to_value(&self) -> Value {
                Value::Text(Some(self.to_string()))
            }
        }

        impl Stored for $type {
            const NULL: Value = Value::Text(None);
            fn from_value(value: Value) -> Result<Self, String> {
                parse(&text(value)?)
            }
        }
    )*};
}

fn parse<T: FromStr>(text: &str) -> Result<T, String>
where
    T::Err: Display,
{
    text.parse().map_err(|error: T::Err| error.to_string())
}

as_text!(
    CommitId,
    Digest,
    ImageReference,
    JobId,
    JobKind,
    JobStatus,
    Outcome,
    PipelineId,
    PipelineStatus,
    ProjectName,
    ReleaseId,
    ReleaseStatus,
    RunId,
    RunKind,
    StepStatus,
    TestResult,
    TriggerId,
    TriggerStatus,
    WorkflowId,
    WorkflowStatus,
    uuid::Uuid,
);

impl ToValue for EnvironmentId {
    fn to_value(&self) -> Value {
        Value::Text(Some(self.slug()))
    }
}

impl Stored for EnvironmentId {
    const NULL: Value = Value::Text(None);
    fn from_value(value: Value) -> Result<Self, String> {
        parse(&text(value)?)
    }
}

/// Enums whose words are kept here, because their own crate has none for storage.
macro_rules! as_word {
    ($type:ty, $what:literal, { $($variant:pat => $value:expr, $word:literal;)* }) => {
        impl ToValue for $type {
            fn to_value(&self) -> Value {
                let word = match self {
                    $($variant => $word,)*
                };
                word.to_value()
            }
        }

        impl Stored for $type {
            const NULL: Value = Value::Text(None);
            fn from_value(value: Value) -> Result<Self, String> {
                let word = text(value)?;
                $(if word == $word { return Ok($value); })*
                Err(format!("`{}` is not {}", word.escape_debug(), $what))
            }
        }
    };
}

as_word!(Via, "a way in", {
    Via::Page => Via::Page, "page";
    Via::Api => Via::Api, "api";
    Via::CommandLine => Via::CommandLine, "command_line";
    Via::GitPush => Via::GitPush, "git_push";
    Via::Job => Via::Job, "job";
    Via::Server => Via::Server, "server";
});

as_word!(Right, "a right", {
    Right::Owner => Right::Owner, "owner";
    Right::Job => Right::Job, "job";
    Right::Server => Right::Server, "server";
    Right::Process => Right::Process, "process";
});

impl ToValue for WorkKind {
    fn to_value(&self) -> Value {
        self.as_str().to_value()
    }
}

impl Stored for WorkKind {
    const NULL: Value = Value::Text(None);
    fn from_value(value: Value) -> Result<Self, String> {
        let word = text(value)?;
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or_else(|| format!("`{}` is not a kind of work", word.escape_debug()))
    }
}

/// Numbers that fit into 64 signed bits. A larger one is stored as the largest possible.
macro_rules! as_number {
    ($($type:ty),*) => {$(
        impl ToValue for $type {
            fn to_value(&self) -> Value {
                Value::Int(Some(i64::try_from(*self).unwrap_or(i64::MAX)))
            }
        }

        impl Stored for $type {
            const NULL: Value = Value::Int(None);
            fn from_value(value: Value) -> Result<Self, String> {
                let number = int(value)?;
                number.try_into().map_err(|_| format!("{number} is out of range"))
            }
        }
    )*};
}

as_number!(i32, u32, u64);

impl ToValue for i64 {
    fn to_value(&self) -> Value {
        Value::Int(Some(*self))
    }
}

impl Stored for i64 {
    const NULL: Value = Value::Int(None);
    fn from_value(value: Value) -> Result<Self, String> {
        int(value)
    }
}

impl ToValue for bool {
    fn to_value(&self) -> Value {
        Value::Int(Some(i64::from(*self)))
    }
}

impl Stored for bool {
    const NULL: Value = Value::Int(None);
    fn from_value(value: Value) -> Result<Self, String> {
        match int(value)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(format!("{other} is neither 0 nor 1")),
        }
    }
}

impl ToValue for f64 {
    fn to_value(&self) -> Value {
        // SQLite stores NaN as NULL. Store 0 for an unknown test duration instead.
        Value::Real(Some(if self.is_finite() { *self } else { 0.0 }))
    }
}

impl Stored for f64 {
    const NULL: Value = Value::Real(None);
    fn from_value(value: Value) -> Result<Self, String> {
        match value {
            Value::Real(Some(number)) => Ok(number),
            other => Err(format!("{other:?} is not a real number")),
        }
    }
}

/// Microseconds since 1970.
impl ToValue for Timestamp {
    fn to_value(&self) -> Value {
        Value::Int(Some(self.as_microsecond()))
    }
}

impl Stored for Timestamp {
    const NULL: Value = Value::Int(None);
    fn from_value(value: Value) -> Result<Self, String> {
        Self::from_microsecond(int(value)?).map_err(|error| error.to_string())
    }
}

/// Types that are stored as JSON text. JSON escapes the character 0 by itself.
macro_rules! as_json {
    ($($type:ty),* $(,)?) => {$(
        impl ToValue for $type {
            fn to_value(&self) -> Value {
                Value::Text(Some(json(self)))
            }
        }

        impl Stored for $type {
            const NULL: Value = Value::Text(None);
            fn from_value(value: Value) -> Result<Self, String> {
                from_json(&text(value)?)
            }
        }
    )*};
}

fn json(value: &impl Serialize) -> String {
    // Maps with text as keys, lists and JSON itself always have a JSON form.
    serde_json::to_string(value).unwrap_or_default()
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

as_json!(serde_json::Value, Vec<String>, BTreeMap<String, ImageReference>);

impl<T: Stored> ToValue for Option<T> {
    fn to_value(&self) -> Value {
        self.as_ref().map_or(T::NULL, ToValue::to_value)
    }
}

impl<T: Stored> Stored for Option<T> {
    const NULL: Value = T::NULL;
    fn from_value(value: Value) -> Result<Self, String> {
        if value.is_null() {
            Ok(None)
        } else {
            T::from_value(value).map(Some)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_are_read_back() {
        fn check<T: Stored + PartialEq + std::fmt::Debug + Clone>(values: &[T]) {
            for value in values {
                assert_eq!(T::from_value(value.to_value()).as_ref(), Ok(value));
                assert_eq!(Option::<T>::from_value(value.to_value()), Ok(Some(value.clone())));
            }
            assert_eq!(Option::<T>::from_value(T::NULL), Ok(None));
            assert!(T::from_value(T::NULL).is_err());
        }
        check(&[
            Via::Page,
            Via::Api,
            Via::CommandLine,
            Via::GitPush,
            Via::Job,
            Via::Server,
        ]);
        check(&[Right::Owner, Right::Job, Right::Server, Right::Process]);
        check(&WorkKind::ALL);
        for kind in WorkKind::ALL {
            assert_eq!(serde_json::json!(kind), kind.as_str());
        }
        check(&[RunKind::Job, RunKind::CronJob]);
        check(&[true, false]);
        check(&[0u32, 7, u32::MAX]);
        check(&[0u64, i64::MAX as u64]);
        check(&[-1i32, i32::MAX]);
        check(&[1.5f64, 0.0]);
        check(&[Timestamp::UNIX_EPOCH, Timestamp::from_microsecond(-1).unwrap()]);
        check(&[serde_json::json!(null), serde_json::json!({"a": [1, "\0"]})]);
        check(&[Vec::new(), vec!["a".to_string(), "\0".to_string()]]);
        check(&[EnvironmentId::new("claims", "dev").unwrap()]);
        check(&["claims".parse::<ProjectName>().unwrap()]);
    }

    #[test]
    fn a_value_of_another_version_is_an_error_that_says_so() {
        let error = JobStatus::from_value("paused".to_value()).unwrap_err();
        assert_eq!(error, "`paused` is not a job's status");
        let error = RunKind::from_value("DaemonSet".to_value()).unwrap_err();
        assert_eq!(error, "`DaemonSet` is not a kind of run");
        assert!(bool::from_value(2i64.to_value()).is_err());
        assert!(u32::from_value((-1i64).to_value()).is_err());
    }

    #[test]
    fn the_character_zero_is_replaced_because_postgresql_refuses_it() {
        assert_eq!("a\0b".to_value(), Value::Text(Some("a\u{fffd}b".into())));
    }
}
