//! The proxy between this machine and a cluster.

use hyper_util::client::proxy::matcher::Matcher;
use std::net::IpAddr;

/// An environment variable does not hold the address of a proxy.
#[derive(Debug, thiserror::Error)]
#[error("`{variable}` is not the address of a proxy: write `http://…`, `https://…` or `socks5://…`")]
pub(crate) struct InvalidProxy {
    variable: &'static str,
}

/// The proxy for requests to `server` that the environment variables name: `HTTPS_PROXY`, unless `NO_PROXY` lists the server.
/// Like `kubectl`, use none for a server that is not at `https://` or is on this machine.
///
/// Source: <https://pkg.go.dev/golang.org/x/net/http/httpproxy#Config>
pub(crate) fn proxy_for(
    server: &http::Uri,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<Option<http::Uri>, InvalidProxy> {
    let first = |names: [&'static str; 2]| {
        names.into_iter().find_map(|name| {
            let value = variable(name).filter(|value| !value.trim().is_empty())?;
            Some((name, value))
        })
    };
    let Some((name, proxy)) = first(["HTTPS_PROXY", "https_proxy"]) else {
        return Ok(None);
    };
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if is_local || server.scheme_str() != Some("https") {
        return Ok(None);
    }
    let port = server.port_u16().unwrap_or(443);
    let exceptions = first(["NO_PROXY", "no_proxy"])
        .map(|(_, list)| list)
        .unwrap_or_default();
    let exceptions: Vec<&str> = exceptions
        .split(',')
        .filter_map(|entry| exception(entry.trim(), port))
        .collect();
    // The matcher only decides whether the server is an exception, so the proxy it gets does not matter.
    let matcher = Matcher::builder()
        .https("http://proxy")
        .no(exceptions.join(","))
        .build();
    if matcher.intercept(server).is_none() {
        return Ok(None);
    }
    let proxy = proxy.trim();
    let proxy = match proxy.contains("://") {
        true => proxy.to_string(),
        false => format!("http://{proxy}"),
    };
    let url: Option<http::Uri> = proxy.parse().ok();
    let url = url.filter(|url| {
        let is_known = matches!(url.scheme_str(), Some("http" | "https" | "socks5"));
        is_known && url.host().is_some_and(|host| !host.is_empty())
    });
    // Do not show the value: it may hold a password.
    url.map(Some).ok_or(InvalidProxy { variable: name })
}

/// One entry of `NO_PROXY` in the form that [`Matcher`] expects; `None` if it is for another port than `port`.
fn exception(entry: &str, port: u16) -> Option<&str> {
    let entry = match entry.strip_prefix('*') {
        Some(rest) if rest.starts_with('.') => rest,
        _ => entry,
    };
    match entry.rsplit_once(':') {
        // IPv6 addresses contain colons.
        Some((host, its_port)) if !host.contains(':') || host.ends_with(']') => {
            let matches = its_port.parse::<u16>().is_ok_and(|its_port| its_port == port);
            matches.then(|| host.trim_matches(['[', ']']))
        }
        _ => Some(entry.trim_matches(['[', ']'])),
    }
}

/// The address of a proxy, without user name and password.
pub(crate) fn without_credentials(proxy: &http::Uri) -> String {
    let authority = proxy.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    format!("{}://{place}", proxy.scheme_str().unwrap_or("http"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn environment_variables_decide_which_proxy_is_used() {
        let through = |server: &str, variables: &[(&str, &str)]| {
            let found = proxy_for(&server.parse().unwrap(), &|name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_string())
            });
            found.map(|proxy| proxy.map(|proxy| without_credentials(&proxy)))
        };
        let server = "https://k.example.com:6443";
        let proxy = ("HTTPS_PROXY", "http://ann:hunter2@proxy:3128");
        let used = || Some("http://proxy:3128".to_string());
        assert_eq!(through(server, &[]).unwrap(), None);
        assert_eq!(through(server, &[proxy]).unwrap(), used());
        assert_eq!(through(server, &[("https_proxy", "proxy:3128")]).unwrap(), used());
        assert_eq!(
            through(server, &[("HTTPS_PROXY", ""), ("https_proxy", "socks5://proxy:1080")]).unwrap(),
            Some("socks5://proxy:1080".into())
        );
        for exception in [
            "*",
            "k.example.com",
            "example.com",
            ".example.com",
            "*.example.com",
            "k.example.com:6443",
            "other,, k.example.com",
        ] {
            assert_eq!(
                through(server, &[proxy, ("NO_PROXY", exception)]).unwrap(),
                None,
                "{exception}"
            );
        }
        // `NO_PROXY` lists servers, not the proxy itself.
        for other in ["ample.com", "k.example.com:443", "10.0.0.0/8", "proxy"] {
            assert_eq!(
                through(server, &[proxy, ("no_proxy", other)]).unwrap(),
                used(),
                "{other}"
            );
        }
        let by_address = |server: &str, exception: &str| through(server, &[proxy, ("NO_PROXY", exception)]).unwrap();
        assert_eq!(by_address("https://10.1.2.3:6443", "10.0.0.0/8"), None);
        assert_eq!(by_address("https://10.1.2.3:6443", "10.1.2.3:6443"), None);
        assert_eq!(by_address("https://10.1.2.3:6443", "10.1.2.4"), used());
        assert_eq!(by_address("https://[fd00::1]:6443", "[fd00::1]:6443"), None);
        assert_eq!(by_address("https://[fd00::1]:6443", "fd00::1"), None);
        for local in [
            "https://127.0.0.1:6443",
            "https://[::1]:6443",
            "https://localhost",
            "http://k",
        ] {
            assert_eq!(through(local, &[proxy]).unwrap(), None, "{local}");
        }
        let invalid = through(server, &[("HTTPS_PROXY", "ftp://ann:hunter2@proxy")]).unwrap_err();
        let invalid = invalid.to_string();
        assert!(
            invalid.starts_with("`HTTPS_PROXY` is not the address of a proxy") && !invalid.contains("hunter2"),
            "{invalid}"
        );
    }
}
