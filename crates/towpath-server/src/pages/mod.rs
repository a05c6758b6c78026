//! The pages. They work without scripts; a script only keeps them fresh.

mod board;
mod gate;
mod job;
mod layout;
mod pipeline;
mod text;

use crate::{
    App, answer,
    auth::{Caller, session_cookie},
};
use axum::{
    Extension, Form, Router,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Redirect, Response, Sse, sse},
    routing::{get, post},
};
use futures::Stream;
use layout::page;
use maud::{Markup, html};
use std::{convert::Infallible, time::Duration};
use tokio_util::io::ReaderStream;
use towpath_control::{ControlError, ErrorKind, Grant};
use towpath_types::{JobId, WorkflowId};

/// Pages behind the sign-in.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/", get(board_page))
        .route("/projects/{project}/pipelines/{number}", get(pipeline_page))
        .route("/projects/{project}/jobs/{number}", get(job_page))
        .route("/projects/{project}/environments/{environment}", get(environment_page))
        .route(
            "/projects/{project}/environments/{environment}/rollback",
            post(rollback),
        )
        .route("/workflows/{workflow}/cancel", post(cancel))
        .route("/gates/{job}", get(gate_page))
        .route("/gates/{job}/approve", post(approve))
        .route("/logs/{job}/{node}/{step}", get(log))
        .route("/artifacts/{job}/{node}/{*path}", get(artifact))
        .route("/events", get(events))
        .layer(middleware::map_response(secure))
}

/// What anybody may see.
pub(crate) fn open_routes() -> Router<App> {
    Router::new()
        .route("/login", get(login_page).post(login))
        .route(
            "/assets/towpath.css",
            get(|| asset("text/css; charset=utf-8", include_str!("../../assets/towpath.css"))),
        )
        .route(
            "/assets/towpath.js",
            get(|| {
                asset(
                    "text/javascript; charset=utf-8",
                    include_str!("../../assets/towpath.js"),
                )
            }),
        )
        .layer(middleware::map_response(secure))
}

async fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")],
        text,
    )
}

async fn secure(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; \
                  frame-ancestors 'none'; base-uri 'none'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// An error as a page.
struct Trouble(ControlError);

impl From<ControlError> for Trouble {
    fn from(error: ControlError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        answer::log(&self.0);
        let title = match self.0.kind() {
            ErrorKind::NotFound => "Not here",
            ErrorKind::Conflict => "Not now",
            _ => "That did not work",
        };
        let body = html! {
            h1 { (title) }
            pre.message { (self.0.to_string()) }
            p { a href="/" { "Back to the board" } }
        };
        (answer::status(&self.0), page(title, body)).into_response()
    }
}

type Shown = Result<Markup, Trouble>;

async fn board_page(State(app): State<App>) -> Shown {
    Ok(page("Board", board::board(&app.board().await?)))
}

async fn pipeline_page(State(app): State<App>, Path((project, number)): Path<(String, i64)>) -> Shown {
    let view = app.pipeline_by_number(&project, number).await?;
    Ok(page(
        &format!("Pipeline {number} of {project}"),
        pipeline::pipeline(&view),
    ))
}

/// How much of a log's end a page shows.
const LOG_TAIL: u64 = 64 << 10;

async fn job_page(State(app): State<App>, Path((project, number)): Path<(String, i64)>) -> Shown {
    let view = app.job(&project, number).await?;
    let mut logs = Vec::new();
    for step in &view.steps {
        let from = step.log_bytes.saturating_sub(LOG_TAIL);
        logs.push(app.step_log(view.job.id, step.node, step.index, from, LOG_TAIL).await?);
    }
    Ok(page(&format!("{} of {project}", view.job.name), job::job(&view, &logs)))
}

async fn environment_page(State(app): State<App>, Path((project, environment)): Path<(String, String)>) -> Shown {
    let view = app.environment(&project, &environment).await?;
    let history = app.history(&project, &environment).await?;
    Ok(page(
        &format!("{environment} of {project}"),
        board::environment(&view, &history),
    ))
}

#[derive(serde::Deserialize)]
struct Back {
    to: i64,
}

async fn rollback(
    State(app): State<App>,
    Extension(Caller(by)): Extension<Caller>,
    Path((project, environment)): Path<(String, String)>,
    Form(back): Form<Back>,
) -> Result<Redirect, Trouble> {
    app.rollback(&project, &environment, Some(back.to), &by).await?;
    Ok(Redirect::to(&format!("/projects/{project}/environments/{environment}")))
}

async fn cancel(
    State(app): State<App>,
    Extension(Caller(by)): Extension<Caller>,
    Path(workflow): Path<WorkflowId>,
) -> Result<Redirect, Trouble> {
    app.cancel(workflow, &by).await?;
    let view = app.workflow(workflow).await?;
    Ok(Redirect::to(&format!(
        "/projects/{}/pipelines/{}",
        view.project, view.pipeline_number
    )))
}

async fn gate_page(State(app): State<App>, Path(job): Path<JobId>) -> Shown {
    let view = app.gate(job).await?;
    Ok(page(&format!("Gate {}", view.job.name), gate::gate(&view, None)))
}

#[derive(serde::Deserialize)]
struct Approval {
    #[serde(default)]
    plan: String,
}

async fn approve(
    State(app): State<App>,
    Extension(Caller(by)): Extension<Caller>,
    Path(job): Path<JobId>,
    Form(approval): Form<Approval>,
) -> Result<Response, Trouble> {
    let plan = Some(approval.plan.as_str()).filter(|plan| !plan.is_empty());
    match app.approve(job, &by, plan).await {
        Ok(()) => Ok(Redirect::to(&format!("/gates/{job}")).into_response()),
        Err(error) if error.kind() == ErrorKind::Conflict => {
            // What was approved is no longer what would be done: the new plan comes with the reason.
            let view = app.gate(job).await?;
            let body = gate::gate(&view, Some(&error.to_string()));
            Ok((StatusCode::CONFLICT, page(&format!("Gate {}", view.job.name), body)).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

#[derive(serde::Deserialize)]
struct Start {
    #[serde(default)]
    from: u64,
}

/// A log as plain text, a megabyte at a time.
async fn log(
    State(app): State<App>,
    Path((job, node, step)): Path<(JobId, u32, u32)>,
    Query(Start { from }): Query<Start>,
) -> Result<Response, Trouble> {
    let bytes = app.step_log(job, node, step, from, 1 << 20).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], bytes).into_response())
}

async fn artifact(
    State(app): State<App>,
    Path((job, node, path)): Path<(JobId, u32, String)>,
) -> Result<Response, Trouble> {
    let file = app.artifact(job, node, &path).await?;
    // A job's files are not our pages: they are downloaded, and never run with our cookies.
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment")),
    ];
    Ok((headers, Body::from_stream(ReaderStream::new(file))).into_response())
}

/// Says that something changed, at most a few times a second; the page then fetches itself.
async fn events(State(app): State<App>) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
    let mut changes = app.changes();
    let stream = async_stream::stream! {
        loop {
            tokio::select! {
                change = changes.recv() => if matches!(change, Err(tokio::sync::broadcast::error::RecvError::Closed)) { return },
                () = app.store().logs().grown() => {}
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
            while changes.try_recv().is_ok() {}
            yield Ok(sse::Event::default().event("change").data(""));
        }
    };
    Sse::new(stream).keep_alive(sse::KeepAlive::default())
}

#[derive(serde::Deserialize)]
struct SignIn {
    token: Option<String>,
    /// The page that a stranger asked for, which is shown once the visitor is known.
    to: Option<String>,
}

impl SignIn {
    /// A page of this server, whatever the link said that brought the visitor here.
    fn page(&self) -> &str {
        let to = self.to.as_deref().unwrap_or_default();
        // Browsers read `//host` and `/\host` as another server, and leave tabs and line ends out before they look.
        let is_ours = to.starts_with('/')
            && !to.starts_with("//")
            && !to.contains('\\')
            && to.bytes().all(|byte| byte.is_ascii_graphic());
        if is_ours { to } else { "/" }
    }
}

async fn login_page(State(app): State<App>, Query(given): Query<SignIn>) -> Response {
    match &given.token {
        // The redirect takes the token out of the address bar at once.
        Some(token) => sign_in(&app, token, given.page()),
        None => page("Sign in", login_form(given.page(), None)).into_response(),
    }
}

async fn login(State(app): State<App>, _: HeaderMap, Form(given): Form<SignIn>) -> Response {
    sign_in(&app, given.token.as_deref().unwrap_or_default().trim(), given.page())
}

fn sign_in(app: &App, token: &str, to: &str) -> Response {
    if app.tokens().check(token) == Some(Grant::Owner)
        && let Some(cookie) = session_cookie(app)
    {
        return ([(header::SET_COOKIE, cookie)], Redirect::to(to)).into_response();
    }
    let form = login_form(to, Some("This is not the owner's token."));
    (StatusCode::UNAUTHORIZED, page("Sign in", form)).into_response()
}

fn login_form(to: &str, problem: Option<&str>) -> Markup {
    html! {
        section.narrow {
            h1 { "Sign in" }
            p { "The owner's token is in the file " code { "token" } " of Towpath's data directory." }
            @if let Some(problem) = problem { p.problem role="alert" { (problem) } }
            form method="post" action="/login" {
                input name="to" type="hidden" value=(to);
                label for="token" { "Token" }
                input #token name="token" type="password" autocomplete="current-password" required autofocus;
                button.primary type="submit" { "Sign in" }
            }
        }
    }
}
