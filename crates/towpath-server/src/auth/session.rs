//! The cookie of a signed-in browser.

use crate::App;
use axum::http::{HeaderMap, HeaderValue, header};
use towpath_control::Grant;

const COOKIE: &str = "towpath_session";
/// Thirty days, in seconds.
const LASTS: u32 = 30 * 24 * 3600;

/// The `Set-Cookie` of a new session.
pub(crate) fn session_cookie(app: &App) -> Option<HeaderValue> {
    let value = app.identity.issue(&Grant::Session);
    HeaderValue::from_str(&format!(
        "{COOKIE}={}; Path=/; HttpOnly; SameSite=Strict; Max-Age={LASTS}",
        value.expose()
    ))
    .ok()
}

/// The session's token among a request's cookies.
pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    all.flat_map(|line| line.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_is_found_among_cookies() {
        let cookie_in = |text: &'static str| {
            let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static(text))]);
            cookie(&headers).map(str::to_string)
        };
        assert_eq!(cookie_in("a=b; towpath_session=tp.x; c=d").as_deref(), Some("tp.x"));
        assert_eq!(cookie_in("towpath_sessions=1"), None);
    }
}
