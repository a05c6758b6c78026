//! The page, the API and the platform's health checks.

use crate::{
    Failure,
    claim::{NewClaim, is_receipt, receipt},
    database::{Database, DatabaseError},
    page::page,
    settings::Settings,
};
use axum::{
    Json, Router,
    extract::{Path, Query, State, rejection::JsonRejection},
    http::StatusCode,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use serde_json::json;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// The most claims that the page and the list show.
const SHOWN: u32 = 50;

struct App {
    settings: Settings,
    database: Mutex<Database>,
}

type Shared = Arc<App>;

/// Serves until `stop` becomes true, and then finishes the current requests.
pub async fn serve(settings: Settings, mut stop: watch::Receiver<bool>) -> Result<(), Failure> {
    let mut database = Database::open(&settings.database)?;
    if settings.migrate_on_start {
        let (before, after) = database.migrate()?;
        println!("the schema was at version {before} and is now at {after}");
    }
    let listener = tokio::net::TcpListener::bind(&settings.listen)
        .await
        .map_err(|error| format!("failed to listen at {}: {error}", settings.listen))?;
    println!(
        "version {} commit {}: listening at {}",
        settings.version,
        settings.commit,
        listener.local_addr()?
    );
    let app = Arc::new(App {
        settings,
        database: Mutex::new(database),
    });
    axum::serve(listener, routes(app))
        .with_graceful_shutdown(async move {
            let _ = stop.wait_for(|stopped| *stopped).await;
        })
        .await?;
    println!("stopped");
    Ok(())
}

fn routes(app: Shared) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/claims", get(list).post(submit))
        .route("/claims/{id}", get(show))
        .route("/ping.json", get(ping))
        .route("/healthz/live", get(async || "alive\n"))
        .route("/healthz/ready", get(ready))
        .with_state(app)
}

/// An error answer, with a message for the caller.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "message": self.1 }))).into_response()
    }
}

impl From<DatabaseError> for Refusal {
    fn from(error: DatabaseError) -> Self {
        eprintln!("{error}");
        Self(StatusCode::SERVICE_UNAVAILABLE, "the database is not available".into())
    }
}

/// Runs `query` on a thread that may block.
async fn with_database<T: Send + 'static>(
    app: &Shared,
    query: impl FnOnce(&Database) -> Result<T, DatabaseError> + Send + 'static,
) -> Result<T, Refusal> {
    let app = app.clone();
    // A query that panicked has left no transaction open, so the connection behind a poisoned lock is still good.
    let work = move || query(&app.database.lock().unwrap_or_else(PoisonError::into_inner));
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Refusal(
            StatusCode::INTERNAL_SERVER_ERROR,
            "something is wrong on our side".into(),
        )),
    }
}

async fn index(State(app): State<Shared>) -> Result<Html<String>, Refusal> {
    let claims = with_database(&app, |database| database.newest(SHOWN)).await?;
    Ok(Html(page(&app.settings, &claims)))
}

async fn list(State(app): State<Shared>) -> Result<Response, Refusal> {
    let claims = with_database(&app, |database| database.newest(SHOWN)).await?;
    Ok(Json(json!({ "claims": claims })).into_response())
}

async fn submit(State(app): State<Shared>, body: Result<Json<NewClaim>, JsonRejection>) -> Result<Response, Refusal> {
    let Json(claim) = body.map_err(|rejection| Refusal(rejection.status(), rejection.body_text()))?;
    if let Some(problem) = claim.problem() {
        return Err(Refusal(StatusCode::UNPROCESSABLE_ENTITY, problem));
    }
    let id = with_database(&app, move |database| database.submit(&claim)).await?;
    let receipt = app.settings.session_key.as_ref().map(|key| receipt(key, id));
    Ok((StatusCode::CREATED, Json(json!({ "id": id, "receipt": receipt }))).into_response())
}

#[derive(Deserialize)]
struct Proof {
    receipt: Option<String>,
}

async fn show(State(app): State<Shared>, Path(id): Path<i64>, Query(proof): Query<Proof>) -> Result<Response, Refusal> {
    let own = match (&app.settings.session_key, &proof.receipt) {
        (_, None) => false,
        (Some(key), Some(receipt)) if is_receipt(key, id, receipt) => true,
        _ => {
            return Err(Refusal(
                StatusCode::FORBIDDEN,
                "this is not the receipt of that claim".into(),
            ));
        }
    };
    let Some((claim, claimant)) = with_database(&app, move |database| database.find(id)).await? else {
        return Err(Refusal(StatusCode::NOT_FOUND, format!("there is no claim {id}")));
    };
    Ok(Json(json!({ "claim": claim, "claimant": own.then_some(claimant) })).into_response())
}

async fn ping(State(app): State<Shared>) -> Json<serde_json::Value> {
    Json(json!({
        "version": app.settings.version,
        "commit": app.settings.commit,
        "environment": app.settings.environment,
        "greeting": app.settings.greeting,
    }))
}

async fn ready(State(app): State<Shared>) -> Response {
    let work = {
        let app = app.clone();
        move || app.database.lock().unwrap_or_else(PoisonError::into_inner).check()
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(())) => "ready\n".into_response(),
        Ok(Err(error)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the check failed to run\n").into_response(),
    }
}
