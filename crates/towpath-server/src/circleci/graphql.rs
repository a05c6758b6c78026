//! The GraphQL of CircleCI's older command line: for orbs and, with older servers, for configurations.
//!
//! Only the root fields that it uses exist. Anything else is an error in GraphQL's own form.

use super::{
    orbs::{orb_name, orb_version, reference},
    organisation,
};
use crate::{App, answer::Object};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    routing::post,
};
use graphql_parser::query::{
    Definition, Field, OperationDefinition, Selection, SelectionSet, Value as Literal, parse_query,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use towpath_control::{CheckedText, OrbVersionView, OrbView};
use towpath_delivery::DeliveryError;

const MAX_BODY_BYTES: usize = 8 << 20;
/// The deepest nesting of a query: the parser recurses for each level.
const DEEPEST: usize = 64;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/graphql-unstable", post(graphql))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
}

#[derive(Deserialize)]
struct Request {
    query: String,
    #[serde(default)]
    variables: Option<Map<String, Value>>,
}

/// A root field's arguments.
struct Arguments(Map<String, Value>);

impl Arguments {
    fn text(&self, name: &str) -> Result<&str, DeliveryError> {
        let value = self.0.get(name).and_then(Value::as_str);
        value.ok_or_else(|| DeliveryError::invalid(format!("argument `{name}` is missing")))
    }

    fn flag(&self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or_default()
    }
}

/// Counts every opening bracket, even in strings and comments. No client comes near the limit.
fn is_too_deep(query: &str) -> bool {
    let mut depth = 0usize;
    let mut deepest = 0usize;
    for byte in query.bytes() {
        match byte {
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest > DEEPEST
}

/// Always answers 200: clients read failures from `errors`.
async fn graphql(State(app): State<App>, Object(request): Object<Request>) -> Json<Value> {
    let failed = |message: String| Json(json!({ "data": null, "errors": [{ "message": message }] }));
    if is_too_deep(&request.query) {
        return failed(format!("this query is nested more than {DEEPEST} deep"));
    }
    let document = match parse_query::<String>(&request.query) {
        Ok(document) => document,
        Err(error) => return failed(format!("this query cannot be read: {error}")),
    };
    let operation = document.definitions.iter().find_map(|definition| match definition {
        Definition::Operation(operation) => Some(operation),
        Definition::Fragment(_) => None,
    });
    let (changes, set) = match operation {
        Some(OperationDefinition::Query(query)) => (false, &query.selection_set),
        Some(OperationDefinition::SelectionSet(set)) => (false, set),
        Some(OperationDefinition::Mutation(mutation)) => (true, &mutation.selection_set),
        _ => return failed("this request has no query".into()),
    };
    let variables = request.variables.unwrap_or_default();
    let mut data = Map::new();
    for field in fields(set) {
        let arguments = Arguments(
            field
                .arguments
                .iter()
                .map(|(name, value)| (name.clone(), literal(value, &variables)))
                .collect(),
        );
        let answer = match changes {
            true => mutation(&app, &field.name, &arguments).await,
            false => query(&app, &field.name, &arguments).await,
        };
        match answer {
            Ok(value) => drop(data.insert(
                field.alias.clone().unwrap_or_else(|| field.name.clone()),
                selected(&value, &field.selection_set),
            )),
            Err(error) => {
                crate::answer::log(&error);
                return failed(error.to_string());
            }
        }
    }
    Json(json!({ "data": data }))
}

fn fields<'a>(set: &'a SelectionSet<'a, String>) -> impl Iterator<Item = &'a Field<'a, String>> {
    set.items.iter().filter_map(|selection| match selection {
        Selection::Field(field) => Some(field),
        _ => None,
    })
}

fn literal(value: &Literal<'_, String>, variables: &Map<String, Value>) -> Value {
    match value {
        Literal::Variable(name) => variables.get(name).cloned().unwrap_or(Value::Null),
        Literal::Int(number) => json!(number.as_i64()),
        Literal::Float(number) => json!(number),
        Literal::String(text) | Literal::Enum(text) => json!(text),
        Literal::Boolean(value) => json!(value),
        Literal::Null => Value::Null,
        Literal::List(items) => items.iter().map(|item| literal(item, variables)).collect(),
        Literal::Object(entries) => entries
            .iter()
            .map(|(name, value)| (name.clone(), literal(value, variables)))
            .collect(),
    }
}

/// The part of `value` that the query selects.
fn selected<'a>(value: &Value, set: &'a SelectionSet<'a, String>) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| selected(item, set)).collect(),
        Value::Object(all) if !set.items.is_empty() => fields(set)
            .map(|field| {
                let value = all.get(&field.name).unwrap_or(&Value::Null);
                let mut value = selected(value, &field.selection_set);
                let count = field.arguments.iter().find(|(name, _)| name == "count");
                if let (Some((_, Literal::Int(count))), Some(items)) = (count, value.as_array_mut()) {
                    items.truncate(
                        count
                            .as_i64()
                            .and_then(|count| usize::try_from(count).ok())
                            .unwrap_or_default(),
                    );
                }
                (field.alias.clone().unwrap_or_else(|| field.name.clone()), value)
            })
            .collect(),
        other => other.clone(),
    }
}

async fn query(app: &App, field: &str, arguments: &Arguments) -> Result<Value, DeliveryError> {
    match field {
        "buildConfig" => {
            let pairs = arguments.0.get("pipelineValues").and_then(Value::as_array);
            let values = pairs
                .into_iter()
                .flatten()
                .filter_map(|pair| Some((pair.get("key")?.as_str()?.to_string(), pair.get("val")?.clone())))
                .collect();
            let parameters = match arguments.0.get("pipelineParametersJson").and_then(Value::as_str) {
                Some(text) if !text.is_empty() => serde_json::from_str(text).map_err(|error| {
                    DeliveryError::invalid(format!("`pipelineParametersJson` is not an object: {error}"))
                })?,
                _ => Map::new(),
            };
            let source = arguments.text("configYaml")?;
            let checked = app.orbs.check_config(source.to_string(), parameters, values).await?;
            Ok(checked_json(source, &checked))
        }
        "orbConfig" => {
            let source = arguments.text("orbYaml")?;
            Ok(checked_json(source, &app.orbs.check_orb(source.to_string()).await?))
        }
        "orbVersion" => match reference(arguments.text("orbVersionRef")?) {
            Some(reference) => match app.orbs.version(&reference).await? {
                Some(version) => {
                    let orb = app.orbs.orb(&version.name).await?;
                    let Some(orb) = orb else { return Ok(Value::Null) };
                    let mut json = version_json(&version);
                    json["orb"] = orb_json(&orb);
                    Ok(json)
                }
                None => Ok(Value::Null),
            },
            None => Ok(Value::Null),
        },
        "orbs" => {
            let mut orbs = app.orbs.list(None).await?;
            // The client asks for certified orbs by default. CircleCI certifies its own orbs; here all orbs are the owner's.
            orbs.retain(|orb| orb.is_listed && !orb.is_private);
            Ok(connection(&orbs))
        }
        "registryNamespace" => {
            let name = arguments.text("name")?;
            let Some(namespace) = app.orbs.namespaces().await?.into_iter().find(|view| view.name == name) else {
                return Ok(Value::Null);
            };
            let mut orbs = app.orbs.list(Some(name)).await?;
            orbs.retain(|orb| orb.is_listed);
            Ok(json!({ "id": namespace.id, "name": namespace.name, "orbs": connection(&orbs) }))
        }
        "orb" => {
            let orb = app.orbs.orb(&orb_name(arguments.text("name")?)?).await?;
            Ok(orb.as_ref().map_or(Value::Null, orb_json))
        }
        "orbCategories" => Ok(json!({ "totalCount": 0, "edges": [], "pageInfo": { "hasNextPage": false } })),
        "orbCategoryByName" => Ok(Value::Null),
        "organization" => Ok(json!({ "id": organisation::ID, "name": organisation::NAME, "vcsType": "GITHUB" })),
        other => Err(DeliveryError::invalid(format!("Towpath has no query `{other}`"))),
    }
}

fn checked_json(source: &str, checked: &CheckedText) -> Value {
    let errors: Vec<Value> = checked
        .errors
        .iter()
        .map(|error| json!({ "message": error.message_with_place() }))
        .collect();
    json!({
        "valid": errors.is_empty(),
        "errors": errors,
        "sourceYaml": source,
        "outputYaml": checked.output.clone().unwrap_or_default(),
    })
}

fn version_json(version: &OrbVersionView) -> Value {
    json!({
        "id": version.id,
        "version": version.version,
        "source": version.source,
        "createdAt": version.created_at,
    })
}

fn orb_json(orb: &OrbView) -> Value {
    json!({
        "id": orb.id,
        "name": orb.name,
        "isPrivate": orb.is_private,
        "createdAt": orb.created_at,
        "namespace": { "id": orb.namespace, "name": orb.name.namespace },
        "categories": [],
        "statistics": { "last30DaysBuildCount": 0, "last30DaysProjectCount": 0, "last30DaysOrganizationCount": 0 },
        // List only releases: a client derives the next version from the first one.
        "versions": orb.versions.iter().filter(|version| !version.version.is_development()).map(version_json).collect::<Vec<_>>(),
    })
}

fn connection(orbs: &[OrbView]) -> Value {
    let edges: Vec<Value> = orbs
        .iter()
        .map(|orb| json!({ "cursor": orb.name, "node": orb_json(orb) }))
        .collect();
    json!({ "totalCount": edges.len(), "edges": edges, "pageInfo": { "hasNextPage": false } })
}

/// The answer to a mutation: what it created, or the errors for the person.
fn outcome(name: &str, result: Result<Value, DeliveryError>) -> Result<Value, DeliveryError> {
    match result {
        Ok(value) => Ok(json!({ name: value, "errors": [] })),
        Err(error) if crate::answer::status(&error).is_client_error() => {
            Ok(json!({ name: null, "errors": [{ "message": error.to_string(), "type": "INVALID" }] }))
        }
        Err(error) => Err(error),
    }
}

async fn mutation(app: &App, field: &str, arguments: &Arguments) -> Result<Value, DeliveryError> {
    let name = || {
        orb_name(&format!(
            "{}/{}",
            arguments.text("namespaceName")?,
            arguments.text("orbName")?
        ))
    };
    match field {
        "createNamespace" => {
            let made = app.orbs.create_namespace(arguments.text("name")?).await;
            outcome(
                "namespace",
                made.map(|view| json!({ "id": view.id, "name": view.name })),
            )
        }
        "createOrb" => {
            let id = arguments.text("registryNamespaceId")?;
            let namespaces = app.orbs.namespaces().await?;
            let namespace = namespaces.iter().find(|view| view.id.to_string() == id);
            let made = async {
                let namespace =
                    namespace.ok_or_else(|| DeliveryError::not_found("there is no namespace of that id"))?;
                let name = orb_name(&format!("{}/{}", namespace.name, arguments.text("name")?))?;
                app.orbs.create(&name, arguments.flag("isPrivate")).await
            };
            outcome("orb", made.await.map(|orb| orb_json(&orb)))
        }
        "publishOrb" => {
            let published = async {
                let source = arguments.text("orbYaml")?.to_string();
                app.orbs
                    .publish(&name()?, orb_version(arguments.text("version")?)?, source)
                    .await
            };
            outcome("orb", published.await.map(|version| version_json(&version)))
        }
        "promoteOrb" => {
            let promoted = async {
                let name = name()?;
                let label = arguments.text("devVersion").or_else(|_| arguments.text("label"))?;
                let label = label.strip_prefix("dev:").unwrap_or(label);
                let next = arguments
                    .text("semanticVersion")
                    .or_else(|_| arguments.text("toVersion"))?;
                let text = format!("{name}@dev:{label}");
                let from = match reference(&text) {
                    Some(reference) => app.orbs.version(&reference).await?,
                    None => None,
                };
                let from = from.ok_or_else(|| DeliveryError::not_found(format!("there is no `{text}`")))?;
                app.orbs.publish(&name, orb_version(next)?, from.source).await
            };
            outcome("orb", promoted.await.map(|version| version_json(&version)))
        }
        "setOrbListStatus" => {
            let id = arguments.text("orbId")?;
            let is_listed = arguments.flag("list");
            let orbs = app.orbs.list(None).await?;
            let changed = match orbs.iter().find(|orb| orb.id.to_string() == id) {
                Some(orb) => app.orbs.set_listed(&orb.name, is_listed).await,
                None => Err(DeliveryError::not_found("there is no orb of that id")),
            };
            outcome("listed", changed.map(|()| json!(is_listed)))
        }
        other => Err(DeliveryError::invalid(format!("Towpath has no mutation `{other}`"))),
    }
}
