//! Compiles a configuration: the endpoints behind `circleci config validate` and `circleci config process`.
//!
//! CircleCI answers these without a token. Here they require the owner's token, because compiling costs processor time.
//! CircleCI's clients report a missing token as "the host requires a token".

use crate::{App, answer::Answer};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    routing::post,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use towpath_delivery::DeliveryError;

/// The largest body. A configuration has a smaller limit of its own, whose error is more precise.
const MAX_BODY_BYTES: usize = 8 << 20;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/api/v2/compile-config-with-defaults", post(compile_v2))
        .route("/api/v3/configs/compile", post(compile_v3))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
}

#[derive(Deserialize)]
struct V2 {
    config_yaml: String,
    #[serde(default)]
    options: Option<Options>,
}

#[derive(Default, Deserialize)]
struct Options {
    #[serde(default)]
    pipeline_parameters: Option<Map<String, Value>>,
    #[serde(default)]
    pipeline_values: Option<Map<String, Value>>,
}

fn body<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DeliveryError> {
    serde_json::from_slice(bytes).map_err(|error| DeliveryError::invalid(format!("the body cannot be read: {error}")))
}

/// CircleCI's older command line first sends an empty body. It takes any answer but 404 as a sign that this endpoint exists.
async fn compile_v2(State(app): State<App>, bytes: Bytes) -> Answer<Value> {
    let V2 { config_yaml, options } = body(&bytes)?;
    let options = options.unwrap_or_default();
    let checked = app
        .orbs
        .check_config(
            config_yaml.clone(),
            options.pipeline_parameters.unwrap_or_default(),
            options.pipeline_values.unwrap_or_default(),
        )
        .await?;
    let errors: Vec<Value> = checked
        .errors
        .iter()
        .map(|error| json!({ "message": error.message_with_place() }))
        .collect();
    Ok(Json(json!({
        "valid": errors.is_empty(),
        "source-yaml": config_yaml,
        "output-yaml": checked.output.unwrap_or_default(),
        "errors": errors,
    })))
}

#[derive(Deserialize)]
struct V3 {
    data: V3Data,
}

#[derive(Deserialize)]
struct V3Data {
    attributes: V3Attributes,
}

#[derive(Deserialize)]
struct V3Attributes {
    config: String,
    #[serde(default)]
    pipeline_parameters: Option<Map<String, Value>>,
    #[serde(default)]
    pipeline_values: Option<Map<String, Value>>,
}

async fn compile_v3(State(app): State<App>, bytes: Bytes) -> Answer<Value> {
    let V3 { data } = body(&bytes)?;
    let V3Attributes {
        config,
        pipeline_parameters,
        pipeline_values,
    } = data.attributes;
    let checked = app
        .orbs
        .check_config(
            config,
            pipeline_parameters.unwrap_or_default(),
            pipeline_values.unwrap_or_default(),
        )
        .await?;
    let outcome = if checked.errors.is_empty() {
        "succeeded"
    } else {
        "failed"
    };
    let messages: Vec<Value> = checked
        .errors
        .iter()
        .map(|error| json!({ "title": error.message_with_place() }))
        .collect();
    Ok(Json(json!({
        "data": { "attributes": { "outcome": outcome, "compiled_config": checked.output } },
        "meta": { "messages": messages },
    })))
}
