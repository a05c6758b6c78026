//! The middleware that authorises requests.

use super::{
    caller::Caller,
    origin::{comes_from_our_page, host_is_ours},
    session::session_token,
};
use crate::{App, PAGES, answer};
use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header, uri::PathAndQuery},
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
};
use towpath_control::{Grant, presented};
use towpath_types::Via;

/// Lets the owner through: by token, or by a browser's session.
pub(crate) async fn require_owner(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let headers = request.headers();
    if !host_is_ours(headers, app.address()) {
        return misdirected();
    }
    let caller = match grant(&app, headers) {
        Some(Grant::Owner) => Some(Caller::with_token(headers)),
        // A cookie does not extend a token that allows less.
        Some(Grant::Agent(_) | Grant::Step(_) | Grant::JobImages { .. } | Grant::Pull { .. } | Grant::Hook { .. }) => {
            None
        }
        None => match session_token(&app, headers) {
            Some(token) => match app.sessions.is_open(&token).await {
                Ok(is_open) => is_open.then(Caller::on_page),
                Err(error) => return answer::Failure(error).into_response(),
            },
            None => None,
        },
    };
    let Some(caller) = caller else {
        return ask_to_sign_in(&request);
    };
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if caller.via == Via::Page && !reads && !comes_from_our_page(headers) {
        let text = "this request does not come from a page of Towpath's";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

fn grant(app: &App, headers: &HeaderMap) -> Option<Grant> {
    presented(headers).and_then(|token| app.identity.grant(&token))
}

fn misdirected() -> Response {
    let text = "this is not a name of this server: open it as http://127.0.0.1 with its port";
    (StatusCode::MISDIRECTED_REQUEST, text).into_response()
}

/// Tells an unauthenticated client how to sign in, in the way that it understands.
fn ask_to_sign_in(request: &Request) -> Response {
    let path = request.uri().path();
    if path.starts_with("/git/") {
        // git asks its credential helper only after a challenge.
        return (
            [(header::WWW_AUTHENTICATE, "Basic realm=\"towpath\"")],
            StatusCode::UNAUTHORIZED,
        )
            .into_response();
    }
    if path.starts_with("/api/") || matches!(path, "/events" | "/graphql-unstable") {
        let message = "sign in: send the owner's token as `Circle-Token`";
        return (
            StatusCode::UNAUTHORIZED,
            Json(serde_json::json!({ "message": message })),
        )
            .into_response();
    }
    // The browser's session cookie is valid only below the pages' own path. Short addresses, which people get, redirect there.
    let is_below = path
        .strip_prefix(PAGES)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if !is_below && *request.method() == Method::GET {
        let asked = request.uri().path_and_query().map_or("", PathAndQuery::as_str);
        // The board is at the prefix itself.
        let asked = if path == "/" { &asked[1..] } else { asked };
        return Redirect::to(&format!("{PAGES}{asked}")).into_response();
    }
    // Return to the requested page after the sign-in.
    let asked = request
        .uri()
        .path_and_query()
        .filter(|_| *request.method() == Method::GET)
        .map(PathAndQuery::as_str)
        .filter(|asked| *asked != PAGES);
    let query: String = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(asked.map(|asked| ("to", asked)))
        .finish();
    let separator = if query.is_empty() { "" } else { "?" };
    Redirect::to(&format!("/login{separator}{query}")).into_response()
}
