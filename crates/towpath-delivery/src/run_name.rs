//! The names of runs of Jobs.

use serde_json::{Value, json};
use towpath_deploy::JOB_LABEL;
use towpath_manifest::Object;

/// The most characters in a label's value, and in the name of a Job.
const LABEL: usize = 63;

/// The first `most` characters of a name, trimmed so that they are a valid end of a name or a label.
fn shortened(name: &str, most: usize) -> String {
    let shortened: String = name.chars().take(most).collect();
    shortened.trim_end_matches(['-', '.']).to_string()
}

/// The name of the Job object of a run: `name` and the run's id, within Kubernetes' limit.
pub(crate) fn name_of_run(name: &str, run: &str) -> String {
    format!("{}-{run}", shortened(name, LABEL - 1 - run.len()))
}

/// Turns a Job into the run `run`: gives it a unique name, and the label that all runs of the Job share.
pub(crate) fn as_run(job: &mut Object, run: &str) {
    let label = shortened(&job.name, LABEL);
    let name = name_of_run(&job.name, run);
    if let Some(metadata) = job.value.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        let labels = metadata.entry("labels").or_insert_with(|| json!({}));
        if let Some(labels) = labels.as_object_mut() {
            labels.insert(JOB_LABEL.to_string(), Value::String(label));
        } else {
            *labels = json!({ JOB_LABEL: label });
        }
        metadata.insert("name".to_string(), Value::String(name.clone()));
    }
    job.name = name;
}
