//! Defends against requests that a browser can be tricked into: from pages of other sites, and under other names of this
//! server.

use axum::http::{HeaderMap, HeaderValue, header};
use std::net::{IpAddr, SocketAddr};

/// Whether a request comes from a page of ours.
///
/// A page of another site can send a form here, with our cookie if the browser is old. It cannot forge these headers.
pub(super) fn comes_from_our_page(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if let Some(site) = text(header::HeaderName::from_static("sec-fetch-site")) {
        return site == "same-origin" || site == "none";
    }
    match (text(header::ORIGIN), text(header::HOST)) {
        (Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, rest)| rest == host),
        _ => false,
    }
}

/// Whether a request names this server, which listens at `listens`. A foreign name that resolves to this server (DNS rebinding)
/// does not count.
pub(super) fn host_is_ours(headers: &HeaderMap, listens: SocketAddr) -> bool {
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
}
