//! Orbs as CircleCI's newer command line asks for them (API v3).
//!
//! A lookup by name answers with a list, which is empty if nothing matches. A namespace is the exception: it is 404 then.

use super::organisation;
use crate::{
    App,
    answer::{Answer, Failure, Object},
    auth::Caller,
};
use axum::{
    Extension, Json, Router,
    extract::{Path, RawQuery, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use towpath_control::{NamespaceView, OrbVersionView, OrbView, Segment};
use towpath_delivery::DeliveryError;
use towpath_orbs::{OrbName, OrbReference, OrbVersion};
use uuid::Uuid;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/api/v3/users", get(users))
        .route("/api/v3/orgs", get(organisations))
        .route("/api/v3/projects", get(projects))
        .route("/api/v3/namespaces", get(namespace).post(create_namespace))
        .route("/api/v3/orb/categories", get(categories))
        .route("/api/v3/orb/packages", get(packages).post(create_package))
        .route("/api/v3/orb/packages/validate", post(validate))
        .route("/api/v3/orb/packages/{id}", get(package))
        .route("/api/v3/orb/packages/{id}/set-listed", post(set_listed))
        .route("/api/v3/orb/versions", get(versions).post(publish))
        .route("/api/v3/orb/versions/{id}", get(version))
        .route("/api/v3/orb/versions/{id}/source", get(source))
        .route("/api/v3/orb/versions/{id}/promote", post(promote))
}

/// One `filter[name]=value` of a query.
fn filter(query: Option<&str>, name: &str) -> Option<String> {
    let wanted = format!("filter[{name}]");
    url::form_urlencoded::parse(query?.as_bytes()).find_map(|(key, value)| (key == wanted).then(|| value.into_owned()))
}

fn list(items: Vec<Value>) -> Json<Value> {
    Json(json!({ "data": items, "page": { "next": null, "prev": null } }))
}

async fn users(Extension(Caller { name, .. }): Extension<Caller>) -> Json<Value> {
    let attributes = json!({ "name": name, "login": name, "avatar_url": "" });
    list(vec![
        json!({ "id": "00000000-0000-0000-0000-000000000001", "attributes": attributes }),
    ])
}

/// Everything here belongs to one organisation, whatever name the client uses.
async fn organisations() -> Json<Value> {
    list(vec![
        json!({ "id": organisation::ID, "attributes": { "name": organisation::NAME } }),
    ])
}

/// An empty list is enough: a client continues without a project if its slug names none.
async fn projects() -> Json<Value> {
    list(Vec::new())
}

async fn categories() -> Json<Value> {
    list(Vec::new())
}

fn namespace_json(view: &NamespaceView) -> Value {
    json!({ "data": { "id": view.id, "attributes": { "name": view.name }, "references": { "org": { "id": organisation::ID } } } })
}

async fn namespace(State(app): State<App>, RawQuery(query): RawQuery) -> Answer<Value> {
    let name = filter(query.as_deref(), "name").unwrap_or_default();
    let all = app.orbs.namespaces().await?;
    let found = all.iter().find(|view| view.name == name);
    let view = found.ok_or_else(|| DeliveryError::not_found(format!("there is no namespace `{name}`")))?;
    Ok(Json(namespace_json(view)))
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

async fn create_namespace(
    State(app): State<App>,
    Object(Named { name }): Object<Named>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let view = app.orbs.create_namespace(&name).await?;
    Ok((StatusCode::CREATED, Json(namespace_json(&view))))
}

fn version_json(view: &OrbVersionView) -> Value {
    json!({
        "id": view.id,
        "attributes": { "version": view.version, "created_at": view.created_at },
        "references": { "orb_package": { "id": view.orb, "attributes": { "name": view.name } } },
    })
}

fn package_json(view: &OrbView) -> Value {
    let versions: Vec<Value> = view
        .versions
        .iter()
        .map(|version| json!({ "id": version.id, "attributes": { "version": version.version, "created_at": version.created_at } }))
        .collect();
    json!({
        "id": view.id,
        "attributes": {
            "name": view.name,
            "is_private": view.is_private,
            "is_listed": view.is_listed,
            "created_at": view.created_at,
            "last_30_days_build_count": 0,
            "last_30_days_project_count": 0,
            "last_30_days_org_count": 0,
        },
        "references": {
            "namespace": { "id": view.namespace, "attributes": { "name": view.name.namespace } },
            "orb_versions": versions,
            "orb_categories": [],
        },
    })
}

async fn packages(State(app): State<App>, RawQuery(query): RawQuery) -> Answer<Value> {
    let query = query.as_deref();
    if let Some(name) = filter(query, "name") {
        let orb = match name.parse::<OrbName>() {
            Ok(name) => app.orbs.orb(&name).await?,
            Err(_) => None,
        };
        return Ok(list(orb.iter().map(package_json).collect()));
    }
    let mut orbs = app.orbs.list(None).await?;
    if let Some(namespace) = filter(query, "namespace_id") {
        orbs.retain(|orb| orb.namespace.to_string() == namespace);
    }
    // Ignore the filter for certified orbs: all orbs are the owner's.
    let private_only = filter(query, "visibility").is_some_and(|value| value == "private");
    orbs.retain(|orb| orb.is_listed && orb.is_private == private_only);
    Ok(list(orbs.iter().map(package_json).collect()))
}

async fn find_orb(app: &App, id: &str) -> Result<OrbView, DeliveryError> {
    let orbs = app.orbs.list(None).await?;
    let found = orbs.into_iter().find(|orb| orb.id.to_string() == id);
    found.ok_or_else(|| DeliveryError::not_found("there is no orb of that id"))
}

async fn find_version(app: &App, id: &str) -> Result<OrbVersionView, DeliveryError> {
    let orbs = app.orbs.list(None).await?;
    let found = orbs
        .into_iter()
        .flat_map(|orb| orb.versions)
        .find(|version| version.id.to_string() == id);
    found.ok_or_else(|| DeliveryError::not_found("there is no version of that id"))
}

async fn package(State(app): State<App>, Path(id): Path<String>) -> Answer<Value> {
    Ok(Json(json!({ "data": package_json(&find_orb(&app, &id).await?) })))
}

/// The envelope of a body that creates something.
#[derive(Deserialize)]
struct Created<A, R> {
    data: Parts<A, R>,
}

#[derive(Deserialize)]
struct Parts<A, R> {
    attributes: A,
    references: Option<R>,
}

#[derive(Deserialize)]
struct NewPackage {
    name: String,
    #[serde(default)]
    is_private: bool,
}

#[derive(Deserialize)]
struct InNamespace {
    namespace: Reference,
}

#[derive(Deserialize)]
struct Reference {
    id: Uuid,
}

#[derive(Deserialize)]
struct Nothing {}

async fn create_package(
    State(app): State<App>,
    Object(Created { data }): Object<Created<NewPackage, InNamespace>>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let id = data.references.map(|references| references.namespace.id);
    let namespaces = app.orbs.namespaces().await?;
    let namespace = namespaces
        .into_iter()
        .find(|namespace| Some(namespace.id) == id)
        .ok_or_else(|| DeliveryError::not_found("there is no namespace of that id"))?;
    let name = orb_name(&format!("{}/{}", namespace.name, data.attributes.name))?;
    let orb = app.orbs.create(&name, data.attributes.is_private).await?;
    Ok((StatusCode::CREATED, Json(json!({ "data": package_json(&orb) }))))
}

pub(super) fn orb_name(text: &str) -> Result<OrbName, DeliveryError> {
    text.parse()
        .map_err(|error: towpath_orbs::ReferenceError| DeliveryError::invalid(error.to_string()))
}

pub(super) fn orb_version(text: &str) -> Result<OrbVersion, DeliveryError> {
    text.parse()
        .map_err(|error: towpath_orbs::ReferenceError| DeliveryError::invalid(error.to_string()))
}

#[derive(Deserialize)]
struct Source {
    yaml: String,
}

async fn validate(State(app): State<App>, Object(Source { yaml }): Object<Source>) -> Answer<Value> {
    let checked = app.orbs.check_orb(yaml).await?;
    let errors: Vec<String> = checked.errors.iter().map(|error| error.message_with_place()).collect();
    Ok(Json(json!({ "data": { "attributes": {
        "is_valid": errors.is_empty(),
        "output_yaml": checked.output.unwrap_or_default(),
        "errors": errors,
    } } })))
}

#[derive(Deserialize)]
struct Listed {
    is_listed: bool,
}

async fn set_listed(
    State(app): State<App>,
    Path(id): Path<String>,
    Object(Listed { is_listed }): Object<Listed>,
) -> Answer<Value> {
    let orb = find_orb(&app, &id).await?;
    app.orbs.set_listed(&orb.name, is_listed).await?;
    Ok(Json(json!({ "data": package_json(&find_orb(&app, &id).await?) })))
}

async fn versions(State(app): State<App>, RawQuery(query): RawQuery) -> Answer<Value> {
    let query = query.as_deref();
    if let Some(text) = filter(query, "ref") {
        let found = match reference(&text) {
            Some(reference) => app.orbs.version(&reference).await?,
            None => None,
        };
        return Ok(list(found.iter().map(version_json).collect()));
    }
    let orb = find_orb(&app, &filter(query, "orb_id").unwrap_or_default()).await?;
    let channel = filter(query, "channel");
    let wanted = |version: &&OrbVersionView| match channel.as_deref() {
        Some("stable") => !version.version.is_development(),
        Some("dev") => version.version.is_development(),
        _ => true,
    };
    Ok(list(orb.versions.iter().filter(wanted).map(version_json).collect()))
}

/// Parses a reference. Without a version, it means the newest release.
pub(super) fn reference(text: &str) -> Option<OrbReference> {
    match text.contains('@') {
        true => text.parse().ok(),
        false => format!("{text}@volatile").parse().ok(),
    }
}

async fn version(State(app): State<App>, Path(id): Path<String>) -> Answer<Value> {
    Ok(Json(json!({ "data": version_json(&find_version(&app, &id).await?) })))
}

async fn source(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Failure> {
    let version = find_version(&app, &id).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], version.source).into_response())
}

#[derive(Deserialize)]
struct NewVersion {
    orb_id: String,
    yaml: String,
    version: String,
}

async fn publish(
    State(app): State<App>,
    Object(Created { data }): Object<Created<NewVersion, Nothing>>,
) -> Result<(StatusCode, Json<Value>), Failure> {
    let NewVersion { orb_id, yaml, version } = data.attributes;
    let orb = find_orb(&app, &orb_id).await?;
    let view = app.orbs.publish(&orb.name, orb_version(&version)?, yaml).await?;
    Ok((StatusCode::CREATED, Json(json!({ "data": version_json(&view) }))))
}

#[derive(Deserialize)]
struct Promotion {
    segment: String,
}

async fn promote(
    State(app): State<App>,
    Path(id): Path<String>,
    Object(Promotion { segment }): Object<Promotion>,
) -> Answer<Value> {
    let segment = match segment.as_str() {
        "major" => Segment::Major,
        "minor" => Segment::Minor,
        "patch" => Segment::Patch,
        other => {
            return Err(Failure(DeliveryError::invalid(format!(
                "`{other}` is not major, minor or patch"
            ))));
        }
    };
    let from = find_version(&app, &id).await?;
    let view = app.orbs.promote(&from, segment).await?;
    Ok(Json(json!({ "data": version_json(&view) })))
}
