//! Compiles or checks a text on request: a configuration, an orb.

use crate::orbs::places::{Orbs, Places};
use towpath_config::{CompileOptions, Document, PipelineValues};
use towpath_delivery::DeliveryError;
use towpath_yaml::{Diagnostic, StoredDiagnostic};

/// What a text compiles to.
#[derive(Debug, Clone, Default)]
pub struct CheckedText {
    /// The compiled text; `None` when it does not compile.
    pub output: Option<String>,
    /// What is wrong.
    pub errors: Vec<StoredDiagnostic>,
}

impl Orbs {
    /// Compiles a configuration's text to show the result.
    ///
    /// `values` are pipeline values by name, with or without `pipeline.` in front; missing ones get the placeholders of
    /// CircleCI's command line.
    ///
    /// # Errors
    /// When the check could not run. A text that does not compile is not an error.
    pub async fn check_config(
        &self,
        text: String,
        parameters: serde_json::Map<String, serde_json::Value>,
        values: serde_json::Map<String, serde_json::Value>,
    ) -> Result<CheckedText, DeliveryError> {
        let mut options = CompileOptions {
            values: PipelineValues::local(),
            parameters: parameters.into_iter().collect(),
            ..CompileOptions::default()
        };
        for (name, value) in values {
            let name = name.strip_prefix("pipeline.").unwrap_or(&name);
            match name.strip_prefix("parameters.") {
                Some(parameter) => drop(options.parameters.entry(parameter.to_string()).or_insert(value)),
                None => options.values.set(name, value),
            }
        }
        let document = Document::parse("config.yml", text);
        self.supply(&document, &mut options, &self.places()).await;
        self.room
            .compile("compiling a configuration", move || {
                let (processed, diagnostics) = towpath_config::process(&document, &options);
                let errors = errors_of(&diagnostics);
                CheckedText {
                    output: processed.filter(|_| errors.is_empty()).map(|(_, text)| text),
                    errors,
                }
            })
            .await
    }

    /// Checks the source of an orb.
    ///
    /// # Errors
    /// When the check could not run. A wrong source is not an error.
    pub async fn check_orb(&self, source: String) -> Result<CheckedText, DeliveryError> {
        let places = self.places();
        let frozen = match freeze(&source, &places).await {
            Ok(frozen) => frozen,
            Err(error) => {
                return Ok(CheckedText {
                    output: None,
                    errors: vec![Diagnostic::error("orb::imports", error.to_string()).stored()],
                });
            }
        };
        let document = Document::parse("orb.yml", source);
        let mut options = CompileOptions::default();
        self.supply(&document, &mut options, &places).await;
        self.room
            .compile("checking an orb", move || {
                let errors = errors_of(&towpath_config::check_orb(&document, &options));
                CheckedText {
                    output: errors.is_empty().then_some(frozen),
                    errors,
                }
            })
            .await
    }
}

/// Pins an orb's own imports to exact versions.
async fn freeze(source: &str, places: &Places) -> Result<String, DeliveryError> {
    let mut scalars = imports(source)?;
    let mut frozen = source.to_string();
    let sources = places.sources();
    // Replace from the end, so that earlier offsets stay valid.
    scalars.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
    for (range, reference) in scalars {
        let (resolved, _) = sources
            .resolve(&reference)
            .await
            .map_err(|error| DeliveryError::invalid(error.to_string()))?;
        frozen.replace_range(range, &resolved);
    }
    Ok(frozen)
}

/// The references that an orb imports, and where they are in the source.
fn imports(source: &str) -> Result<Vec<(std::ops::Range<usize>, String)>, DeliveryError> {
    let document = Document::parse("orb.yml", source);
    if let Some(first) = errors_of(document.diagnostics()).into_iter().next() {
        return Err(DeliveryError::invalid(first.message_with_place()));
    }
    let imports = document
        .root()
        .and_then(|node| node.get("orbs"))
        .and_then(|node| node.as_mapping());
    // An inline orb is a map and has no version.
    Ok(imports
        .into_iter()
        .flat_map(|imports| imports.iter())
        .filter_map(|entry| Some((entry.value.span().range(), entry.value.as_scalar()?.text.to_string())))
        .collect())
}

fn errors_of(diagnostics: &[Diagnostic]) -> Vec<StoredDiagnostic> {
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error());
    errors.map(Diagnostic::stored).collect()
}
