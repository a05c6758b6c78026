//! What is wrong with the records of an environment: somebody deleted or edited them, or a new one would be too large.

use super::{
    labels::is_of_a_release,
    preflight::Report,
    record::{self, Records},
};
use crate::target::{Environment, Finding, Severity};
use towpath_manifest::{Object, ObjectId, Place};

/// A note about an environment that belongs to none of its files.
pub(super) fn note(environment: &Environment, object: ObjectId, message: impl Into<String>) -> Finding {
    Finding {
        severity: Severity::Note,
        object,
        field: String::new(),
        place: Place {
            file: environment.id.environment().into(),
            line: 1,
            column: 1,
        },
        message: message.into(),
    }
}

/// All findings about the records of an environment to which `objects` will be applied.
pub(super) fn findings(
    environment: &Environment,
    records: &Records,
    report: &Report,
    objects: &[Object],
) -> Vec<Finding> {
    let of_record = |message: String| {
        let id = ObjectId {
            group: String::new(),
            kind: "Secret".into(),
            name: record::state_name(environment),
        };
        note(environment, id, message)
    };
    let mut findings: Vec<Finding> = messages(records, report).into_iter().map(of_record).collect();
    if let Some(bytes) = record::too_large(objects) {
        findings.push(Finding {
            severity: Severity::Refused,
            ..of_record(format!(
                "these objects take {bytes} bytes compressed, but the record of a release has to fit into a Secret, which holds 1 MiB: \
                 move large data (for example a ConfigMap's `binaryData`) into the image or a volume"
            ))
        });
    }
    findings
}

fn messages(records: &Records, report: &Report) -> Vec<String> {
    let state = &records.stored.state;
    let mut messages = Vec::new();
    let released = report
        .objects
        .iter()
        .find(|checked| checked.live.as_ref().is_some_and(is_of_a_release));
    if records.stored.version.is_none()
        && let Some(checked) = released
    {
        messages.push(format!(
            "a release applied `{}`, but somebody has deleted the record of what was applied here. This deployment writes a new one. It \
             prunes nothing, and pods restart once",
            checked.object.id()
        ));
    }
    if records.stored.is_corrupt {
        messages.push(
            "the record of what was applied here is not as Towpath wrote it. This deployment writes a new one, and prunes nothing"
                .to_string(),
        );
    }
    for name in &records.corrupt {
        messages.push(format!(
            "the Secret `{name}` is not as Towpath wrote it: its release is missing from the history"
        ));
    }
    if let Some(runs) = state.succeeded
        && records.releases.iter().all(|release| release.id != runs)
    {
        let number = state.succeeded_number;
        messages.push(format!(
            "somebody has deleted the record of release {number}, the last successful one: if this deployment fails, there is no way back \
             to it"
        ));
    }
    messages
}
