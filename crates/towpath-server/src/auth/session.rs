//! The cookie of a signed-in browser.
//!
//! Browsers send a cookie to every port of a host. Therefore our cookie has a name of its own, taken from the store, and
//! applies only to the pages' own path. The proxy in front of applications removes it from requests.

use crate::{App, PAGES};
use axum::http::{HeaderMap, HeaderValue, header};
use towpath_control::SESSION_LASTS;
use towpath_types::SecretString;

/// How many characters of the store's name distinguish several Towpaths on one host.
const NAME_CHARACTERS: usize = 8;

fn name(app: &App) -> String {
    let store: String = app.store.instance().chars().take(NAME_CHARACTERS).collect();
    format!("{}{store}", towpath_types::SESSION_COOKIE_PREFIX)
}

/// The `Set-Cookie` of a session with `token`.
pub(crate) fn session_cookie(app: &App, token: &SecretString) -> Option<HeaderValue> {
    let (name, lasts) = (name(app), SESSION_LASTS.as_secs());
    let text = format!(
        "{name}={}; Path={PAGES}; HttpOnly; SameSite=Strict; Max-Age={lasts}",
        token.expose()
    );
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The `Set-Cookie` that deletes the cookie.
pub(crate) fn no_session_cookie(app: &App) -> Option<HeaderValue> {
    let name = name(app);
    HeaderValue::from_str(&format!("{name}=; Path={PAGES}; HttpOnly; SameSite=Strict; Max-Age=0")).ok()
}

/// The session's token among a request's cookies.
pub(crate) fn session_token(app: &App, headers: &HeaderMap) -> Option<SecretString> {
    cookie(headers, &name(app)).map(|value| SecretString::new(value.to_string()))
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    all.flat_map(|line| line.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_is_found_among_cookies() {
        let cookie_in = |text: &'static str| {
            let headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static(text))]);
            cookie(&headers, "towpath_session_1").map(str::to_string)
        };
        let found = cookie_in("a=b; towpath_session_1=x; towpath_session_2=y");
        assert_eq!(found.as_deref(), Some("x"));
        assert_eq!(cookie_in("towpath_session_12=1"), None);
    }
}
