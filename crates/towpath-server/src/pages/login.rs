//! The sign-in.

use super::{
    layout::{Watches, page},
    problem::Problem,
};
use crate::{
    App, PAGES,
    auth::{no_session_cookie, session_cookie, session_token},
};
use axum::{
    Form, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use maud::{Markup, html};
use towpath_control::Grant;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/login", get(login_page).post(login))
}

/// The routes behind the sign-in.
pub(super) fn owned_routes() -> Router<App> {
    Router::new().route("/logout", post(logout))
}

#[derive(serde::Deserialize)]
struct SignOut {
    /// Whether to end the sessions of all browsers.
    #[serde(default)]
    everywhere: Option<String>,
}

async fn logout(State(app): State<App>, headers: HeaderMap, Form(given): Form<SignOut>) -> Response {
    let token = session_token(&app, &headers);
    let ended = match (&given.everywhere, &token) {
        (Some(_), _) => app.sessions.end(None).await,
        (None, Some(token)) => app.sessions.end(Some(token)).await,
        (None, None) => Ok(()),
    };
    if let Err(error) = ended {
        return Problem::from(error).into_response();
    }
    let cookie = no_session_cookie(&app).map(|cookie| [(header::SET_COOKIE, cookie)]);
    (cookie, Redirect::to("/login")).into_response()
}

#[derive(serde::Deserialize)]
struct SignIn {
    token: Option<String>,
    /// The page that the visitor asked for. The server shows it after the sign-in.
    to: Option<String>,
}

impl SignIn {
    /// A page of this server, whatever the link says that brought the visitor here.
    fn page(&self) -> &str {
        let to = self.to.as_deref().unwrap_or_default();
        // Browsers read `//host` and `/\host` as another server, and drop tabs and line ends first.
        let is_ours = to.starts_with('/')
            && !to.starts_with("//")
            && !to.contains('\\')
            && to.bytes().all(|byte| byte.is_ascii_graphic());
        if is_ours { to } else { PAGES }
    }
}

async fn login_page(State(app): State<App>, headers: HeaderMap, Query(given): Query<SignIn>) -> Response {
    match &given.token {
        // The redirect takes the token out of the address bar at once.
        Some(token) => sign_in(&app, token, given.page(), &headers).await,
        None => page("Sign in", &Watches::Nothing, form(given.page(), None)).into_response(),
    }
}

async fn login(State(app): State<App>, headers: HeaderMap, Form(given): Form<SignIn>) -> Response {
    let token = given.token.as_deref().unwrap_or_default().trim();
    sign_in(&app, token, given.page(), &headers).await
}

async fn sign_in(app: &App, token: &str, to: &str, headers: &HeaderMap) -> Response {
    if app.identity.grant(token) == Some(Grant::Owner) {
        let browser = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        let session = app.sessions.begin(browser.unwrap_or_default()).await;
        return match session.map(|token| session_cookie(app, &token)) {
            Ok(cookie) => (cookie.map(|cookie| [(header::SET_COOKIE, cookie)]), Redirect::to(to)).into_response(),
            Err(error) => Problem::from(error).into_response(),
        };
    }
    let form = form(to, Some("This is not the owner's token."));
    (StatusCode::UNAUTHORIZED, page("Sign in", &Watches::Nothing, form)).into_response()
}

fn form(to: &str, problem: Option<&str>) -> Markup {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_to_no_other_server() {
        let page = |to: &str| {
            let given = SignIn {
                token: None,
                to: Some(to.into()),
            };
            given.page().to_string()
        };
        assert_eq!(page("/gates/1?x=y"), "/gates/1?x=y");
        for other in [
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/\t/evil.example",
            "",
        ] {
            assert_eq!(page(other), PAGES, "{other:?}");
        }
    }
}
