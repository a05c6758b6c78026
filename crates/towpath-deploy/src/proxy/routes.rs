//! The routes file: the supervisor's instructions to a proxy, and the proxy's report.

use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::SocketAddr,
    path::Path,
};

/// The name of the file with [`Routes`] in a proxy's directory.
pub const ROUTES_FILE: &str = "routes.json";
/// The name of the file with [`ProxyState`] in a proxy's directory.
pub const STATE_FILE: &str = "state.json";

/// The ports of a proxy and the destinations of their requests. The file is replaced as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    /// Counts up with each change.
    pub generation: u64,
    /// The ports to listen on.
    pub listeners: Vec<Listener>,
    /// Backends, keyed by the pool's name.
    pub pools: BTreeMap<String, Vec<Backend>>,
}

/// One port of a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The port, on every address of the proxy's network.
    pub port: u16,
    /// The protocol of the port.
    pub mode: Mode,
    /// The destinations of its requests.
    pub rules: Vec<Rule>,
    /// The host that replaces a loopback name (`localhost`, `127.0.0.1`) in a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loopback_host: Option<String>,
}

/// The protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// HTTP/1.1, request by request.
    Http,
    /// HTTP/1.1 if the client begins like it. Otherwise, or if it is silent for a second, a spliced connection. For a port
    /// without a declared protocol.
    Detect,
    /// A connection, spliced to one backend.
    Tcp,
}

/// Maps requests to a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The host, or `*.` and a host; `None` matches every host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The path to compare with.
    pub path: String,
    /// How the path is compared.
    pub path_type: PathType,
    /// The pool's name.
    pub pool: String,
}

/// How a rule's path is compared with a request's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathType {
    /// Matches the same path only.
    Exact,
    /// Matches paths that begin with the same elements.
    Prefix,
}

/// One address of a pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Backend {
    /// The address that it listens on.
    pub address: SocketAddr,
    /// It is leaving: it gets no new requests and finishes those that it has.
    #[serde(default)]
    pub draining: bool,
}

/// The report of a proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyState {
    /// The routes in force. The proxy sends nothing more to backends that left in this generation or before.
    pub generation: u64,
    /// Requests in progress, keyed by backend. Only zero counts are left out.
    pub requests: BTreeMap<SocketAddr, usize>,
    /// Spliced and upgraded connections, keyed by backend. They end when the application ends them.
    pub streams: BTreeMap<SocketAddr, usize>,
}

impl ProxyState {
    /// Whether a backend that left in `generation` has finished its requests.
    #[must_use]
    pub fn drained(&self, generation: u64, backend: &SocketAddr) -> bool {
        self.generation >= generation && !self.requests.contains_key(backend)
    }
}

impl Listener {
    /// The pool for a request. An exact host wins over a wildcard, and a wildcard over no host. For the same host, an exact
    /// path wins over a prefix, and a long prefix over a short one.
    ///
    /// Source: <https://kubernetes.io/docs/concepts/services-networking/ingress/#multiple-matches>
    #[must_use]
    pub fn pool_for(&self, host: Option<&str>, path: &str) -> Option<&str> {
        let host = host.map(|host| {
            let bare = without_port(host).to_ascii_lowercase();
            match &self.loopback_host {
                Some(meant) if is_loopback(&bare) => meant.clone(),
                _ => bare,
            }
        });
        self.rules
            .iter()
            .filter_map(|rule| Some((rule.rank(host.as_deref(), path)?, rule)))
            .max_by_key(|(rank, _)| *rank)
            .map(|(_, rule)| rule.pool.as_str())
    }
}

impl Rule {
    /// How specifically the rule matches: host, then kind of path, then length of path. `None` if it does not match.
    fn rank(&self, host: Option<&str>, path: &str) -> Option<(u8, u8, usize)> {
        let by_host = match (&self.host, host) {
            (None, _) => 0,
            (Some(_), None) => return None,
            (Some(wanted), Some(host)) => match wanted.strip_prefix("*.") {
                // A wildcard matches exactly one label.
                Some(parent) => match host.split_once('.') {
                    Some((label, rest)) if !label.is_empty() && rest.eq_ignore_ascii_case(parent) => 1,
                    _ => return None,
                },
                None if wanted.eq_ignore_ascii_case(host) => 2,
                None => return None,
            },
        };
        let by_path = match self.path_type {
            PathType::Exact if self.path == path => 1,
            PathType::Prefix if is_prefix(&self.path, path) => 0,
            _ => return None,
        };
        Some((by_host, by_path, self.path.len()))
    }
}

/// Source: <https://kubernetes.io/docs/concepts/services-networking/ingress/#examples> (compares element by element, and
/// ignores a trailing slash).
fn is_prefix(prefix: &str, path: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    match path.strip_prefix(prefix) {
        Some(rest) => rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

fn without_port(host: &str) -> &str {
    match host.rfind(']') {
        Some(end) => &host[..=end],
        None => host.split(':').next().unwrap_or(host),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host == "[::1]" || host.ends_with(".localhost") || host.starts_with("127.")
}

/// Replaces `directory/name` by `value`. A reader sees either the old text or the new one.
///
/// It does not sync: after a power cut, nothing that the file describes is running anyway.
pub(crate) fn replace_file<T: Serialize>(directory: &Path, name: &str, value: &T) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".").tempfile_in(directory)?;
    serde_json::to_writer(&mut file, value)?;
    file.flush()?;
    file.persist(directory.join(name)).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener() -> Listener {
        let rule = |host: &str, path: &str, path_type, pool: &str| Rule {
            host: (!host.is_empty()).then(|| host.to_string()),
            path: path.to_string(),
            path_type,
            pool: pool.to_string(),
        };
        Listener {
            port: 80,
            mode: Mode::Http,
            rules: vec![
                rule("claims.example", "/", PathType::Prefix, "web"),
                rule("claims.example", "/api", PathType::Prefix, "api"),
                rule("claims.example", "/api/v2/", PathType::Prefix, "api2"),
                rule("claims.example", "/api", PathType::Exact, "index"),
                rule("*.example", "/", PathType::Prefix, "any"),
                rule("", "/health", PathType::Exact, "health"),
            ],
            loopback_host: Some("claims.example".into()),
        }
    }

    #[test]
    fn rules_as_kubernetes_ranks_them() {
        let check = |host: &str, path: &str, expect: Option<&str>| {
            let host = (!host.is_empty()).then_some(host);
            assert_eq!(listener().pool_for(host, path), expect, "{host:?} {path}");
        };
        check("claims.example", "/", Some("web"));
        check("CLAIMS.example:8080", "/apix", Some("web"));
        check("claims.example", "/api", Some("index"));
        check("claims.example", "/api/", Some("api"));
        check("claims.example", "/api/v1", Some("api"));
        check("claims.example", "/api/v2", Some("api2"));
        check("claims.example", "/api/v2/x", Some("api2"));
        check("other.example", "/api", Some("any"));
        check("a.other.example", "/api", None);
        check("a.other.example", "/health", Some("health"));
        check("", "/health", Some("health"));
        check("", "/", None);
        check("localhost:41234", "/", Some("web"));
        check("127.0.0.1:41234", "/api", Some("index"));
        check("[::1]:41234", "/", Some("web"));
        check("dev.localhost", "/", Some("web"));
    }
}
