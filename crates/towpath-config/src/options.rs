//! The inputs of a compilation besides the text.

use indexmap::IndexMap;
use serde_json::Value as Json;

use crate::orbs::Orbs;
use crate::pipeline_values::PipelineValues;

/// The inputs of a compilation besides the text.
#[derive(Clone, Debug)]
pub struct CompileOptions {
    /// The values behind `<< pipeline.… >>`. Their branch and tag decide the filters.
    pub values: PipelineValues,
    /// The pipeline parameters that the trigger sets: booleans, integers and text.
    pub parameters: IndexMap<String, Json>,
    /// Whether the text continues a setup pipeline. It must not be a setup configuration itself then.
    pub continuation: bool,
    /// The orbs that the caller has fetched. [`crate::missing_orbs`] says which ones the text needs.
    pub orbs: Orbs,
}

impl Default for CompileOptions {
    /// The values with which CircleCI's command line processes a local file, and no orbs.
    fn default() -> CompileOptions {
        CompileOptions {
            values: PipelineValues::local(),
            parameters: IndexMap::new(),
            continuation: false,
            orbs: Orbs::default(),
        }
    }
}
