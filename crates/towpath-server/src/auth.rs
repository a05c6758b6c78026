//! Who asks, and whether they may.

use crate::App;
use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, uri::PathAndQuery},
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
};
use std::net::{IpAddr, SocketAddr};
use towpath_control::{Audience, Grant, presented};

/// The cookie of a signed-in browser.
const COOKIE: &str = "towpath_session";

/// Who asks. Put into each request that got through.
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub String);

/// What a caller may see.
pub(crate) fn audience(caller: Option<&axum::Extension<Caller>>) -> Audience {
    match caller {
        Some(_) => Audience::Owner,
        None => Audience::Anyone,
    }
}

/// The owner's name, as it stands beside what they did. A container's user has none: its machine's tells it from another's,
/// for a lock keeps out whoever is called otherwise.
fn owner() -> Caller {
    let user = std::env::var("USER").ok().filter(|name| !name.is_empty());
    let name = user.unwrap_or_else(|| match std::fs::read_to_string("/proc/sys/kernel/hostname") {
        Ok(host) => format!("owner@{}", host.trim()),
        Err(_) => "owner".into(),
    });
    Caller(name)
}

/// Lets the owner through: by token, or by a browser's session.
pub(crate) async fn require_owner(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let headers = request.headers();
    if !host_is_ours(headers, app.address()) {
        let text = "this is not the name of this server: open it as http://127.0.0.1 with its port";
        return (StatusCode::MISDIRECTED_REQUEST, text).into_response();
    }
    let by_token = presented(headers).and_then(|token| app.tokens().check(&token));
    let by_cookie =
        by_token.is_none() && cookie(headers).is_some_and(|value| app.tokens().check(value) == Some(Grant::Session));
    if by_cookie
        && *request.method() != Method::GET
        && *request.method() != Method::HEAD
        && !comes_from_our_page(headers)
    {
        return (
            StatusCode::FORBIDDEN,
            "this request does not come from Towpath's own page",
        )
            .into_response();
    }
    if by_cookie || by_token == Some(Grant::Owner) {
        request.extensions_mut().insert(owner());
        return next.run(request).await;
    }
    let path = request.uri().path();
    if path.starts_with("/git/") {
        // git asks its credential helper only when it is told so.
        return (
            [(header::WWW_AUTHENTICATE, "Basic realm=\"towpath\"")],
            StatusCode::UNAUTHORIZED,
        )
            .into_response();
    }
    if path.starts_with("/api/") || path == "/events" {
        let message = "sign in: send the owner's token as `Circle-Token`";
        return (
            StatusCode::UNAUTHORIZED,
            Json(serde_json::json!({ "message": message })),
        )
            .into_response();
    }
    // What was asked for is shown after the sign-in.
    let asked = request
        .uri()
        .path_and_query()
        .filter(|_| *request.method() == Method::GET);
    let query: String = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(
            asked
                .map(PathAndQuery::as_str)
                .filter(|asked| *asked != "/")
                .map(|asked| ("to", asked)),
        )
        .finish();
    let separator = if query.is_empty() { "" } else { "?" };
    Redirect::to(&format!("/login{separator}{query}")).into_response()
}

/// Lets everybody through, and says who asks when that is known. For what CircleCI answers without a token.
pub(crate) async fn identify(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let headers = request.headers();
    if !host_is_ours(headers, app.address()) {
        let text = "this is not the name of this server: open it as http://127.0.0.1 with its port";
        return (StatusCode::MISDIRECTED_REQUEST, text).into_response();
    }
    if presented(headers).and_then(|token| app.tokens().check(&token)) == Some(Grant::Owner) {
        request.extensions_mut().insert(owner());
    }
    next.run(request).await
}

/// The `Set-Cookie` of a new session.
pub(crate) fn session_cookie(app: &App) -> Option<HeaderValue> {
    let value = app.tokens().issue(&Grant::Session);
    HeaderValue::from_str(&format!(
        "{COOKIE}={}; Path=/; HttpOnly; SameSite=Strict; Max-Age=2592000",
        value.expose()
    ))
    .ok()
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    all.flat_map(|line| line.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

/// A page of another site can send a form here, with our cookie where browsers are old; it cannot forge these headers.
fn comes_from_our_page(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if let Some(site) = text(header::HeaderName::from_static("sec-fetch-site")) {
        return site == "same-origin" || site == "none";
    }
    match (text(header::ORIGIN), text(header::HOST)) {
        (Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, rest)| rest == host),
        _ => false,
    }
}

/// A name of another host that leads here (DNS rebinding) is not ours.
fn host_is_ours(headers: &HeaderMap, listens: SocketAddr) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    if name == "localhost" || name.ends_with(".localhost") {
        return true;
    }
    name.parse::<IpAddr>()
        .is_ok_and(|ip| ip.is_loopback() || ip == listens.ip() || listens.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn only_our_own_names_are_answered() {
        let check = |host: &str, expected: bool| {
            assert_eq!(
                host_is_ours(&headers(&[("host", host)]), "127.0.0.1:7070".parse().unwrap()),
                expected,
                "{host}"
            );
        };
        for good in [
            "127.0.0.1:7070",
            "localhost",
            "localhost:7070",
            "towpath.localhost:1",
            "[::1]:7070",
            "127.0.0.2",
        ] {
            check(good, true);
        }
        for bad in [
            "evil.example",
            "evil.example:7070",
            "10.0.0.1",
            "localhost.evil.example",
            "",
            "[",
        ] {
            check(bad, false);
        }
        assert!(!host_is_ours(&HeaderMap::new(), "127.0.0.1:7070".parse().unwrap()));
    }

    #[test]
    fn a_change_by_cookie_comes_from_our_page() {
        let check = |pairs: &[(&'static str, &str)], expected: bool| {
            assert_eq!(comes_from_our_page(&headers(pairs)), expected, "{pairs:?}");
        };
        check(&[("sec-fetch-site", "same-origin")], true);
        check(
            &[
                ("sec-fetch-site", "cross-site"),
                ("origin", "http://a:1"),
                ("host", "a:1"),
            ],
            false,
        );
        check(&[("origin", "http://127.0.0.1:7070"), ("host", "127.0.0.1:7070")], true);
        check(&[("origin", "http://evil.example"), ("host", "127.0.0.1:7070")], false);
        check(&[("origin", "null"), ("host", "127.0.0.1:7070")], false);
        check(&[("host", "127.0.0.1:7070")], false);
    }

    #[test]
    fn the_session_is_found_among_cookies() {
        assert_eq!(
            cookie(&headers(&[("cookie", "a=b; towpath_session=tp.x; c=d")])),
            Some("tp.x")
        );
        assert_eq!(cookie(&headers(&[("cookie", "towpath_sessions=1")])), None);
    }
}
