//! Who we are to a cluster, and where it is.

use super::api::{Api, Patience};
use hyper_util::{
    client::{legacy::connect::HttpConnector, proxy::matcher::Matcher},
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    client::{AuthError, ConfigExt as _},
    config::{AuthInfo, KubeConfigOptions, Kubeconfig},
};
use secrecy::ExposeSecret as _;
use std::{net::IpAddr, path::PathBuf};
use tower::{BoxError, ServiceBuilder};
use towpath_types::{SecretString, with_causes};

/// The environment variables that name a cluster where there is no kubeconfig: a job of a pipeline, say.
pub const SERVER_VARIABLE: &str = "TOWPATH_KUBE_SERVER";
/// The certificate authority's certificate: PEM, or PEM in base64 as a service account's Secret has it.
pub const CA_VARIABLE: &str = "TOWPATH_KUBE_CA";
/// The bearer token.
pub const TOKEN_VARIABLE: &str = "TOWPATH_KUBE_TOKEN";

/// Where clusters and credentials come from.
#[derive(Debug, Clone)]
pub enum Identity {
    /// The kube contexts of a kubeconfig: this file, or without one what `KUBECONFIG` lists or `~/.kube/config`. With it
    /// come its exec plugins, proxies and OIDC.
    Kubeconfig(Option<PathBuf>),
    /// One cluster, for every kube context: the one that this process runs in, by its service account.
    InCluster,
    /// One cluster, for every kube context.
    Token {
        /// `https://…`.
        server: String,
        /// The certificate authority, PEM or PEM in base64; `None` trusts what the machine trusts.
        certificate_authority: Option<String>,
        /// The bearer token.
        token: SecretString,
    },
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kubeconfig(Some(file)) => write!(f, "in the clusters of `{}`", file.display()),
            Self::Kubeconfig(None) => f.write_str("in the clusters of this shell's kubeconfig"),
            Self::InCluster => f.write_str("in the cluster that this runs in"),
            Self::Token { server, .. } => write!(f, "in the cluster at {server}"),
        }
    }
}

/// Why there is no way to a cluster.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No such kube context.
    #[error(
        "the kubeconfig has no kube context `{wanted}`: {known}. The folder `.k8s/{wanted}/` says that its environments are there"
    )]
    NoKubeContext {
        /// The folder's name.
        wanted: String,
        /// What there is.
        known: String,
    },
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig cannot be used: {0}")]
    Kubeconfig(String),
    /// The environment variables, or the service account, cannot be used.
    #[error("{0}")]
    Settings(String),
}

impl Identity {
    /// From this process's surroundings: the three variables, else a kubeconfig, else the pod that this runs in.
    #[must_use]
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        if let Some(server) = variable(SERVER_VARIABLE) {
            return Self::Token {
                server,
                certificate_authority: variable(CA_VARIABLE),
                token: SecretString::new(variable(TOKEN_VARIABLE).unwrap_or_default()),
            };
        }
        let home = variable("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
        let has_kubeconfig = variable("KUBECONFIG").is_some() || home.is_some_and(|file| file.exists());
        if !has_kubeconfig && variable("KUBERNETES_SERVICE_HOST").is_some() {
            return Self::InCluster;
        }
        Self::Kubeconfig(None)
    }

    /// Whether there is any cluster: a kubeconfig that is there, an account, or variables. Nothing is asked of it.
    #[must_use]
    pub fn knows_a_cluster(&self, variable: impl Fn(&str) -> Option<String>) -> bool {
        match self {
            Self::InCluster | Self::Token { .. } | Self::Kubeconfig(Some(_)) => true,
            Self::Kubeconfig(None) => {
                let home = variable("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
                variable("KUBECONFIG").is_some() || home.is_some_and(|file| file.exists())
            }
        }
    }

    pub(super) async fn connect(&self, kube_context: &str, patience: Patience) -> Result<Api, IdentityError> {
        self.connect_by(kube_context, patience, |name| std::env::var(name).ok())
            .await
    }

    /// Connects; the proxy on the way is the one that `variable` names, unless a kubeconfig's cluster has one of its own.
    async fn connect_by(
        &self,
        kube_context: &str,
        patience: Patience,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Api, IdentityError> {
        let mut has_own_proxy = false;
        let mut config = match self {
            Self::Kubeconfig(file) => {
                let (config, own) = from_kubeconfig(file.clone(), kube_context).await?;
                has_own_proxy = own;
                config
            }
            Self::InCluster => Config::incluster().map_err(|error| {
                IdentityError::Settings(format!("this process has no service account: {}", with_causes(&error)))
            })?,
            Self::Token {
                server,
                certificate_authority,
                token,
            } => from_token(server, certificate_authority.as_deref(), token)?,
        };
        if let Some(token) = &config.auth_info.token {
            let text = token.expose_secret().trim();
            // It travels in a header's line.
            if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(IdentityError::Settings(format!(
                    "the token for the kube context `{kube_context}` cannot be used: it is empty, or holds something that no token \
                     does (a space, a line break, a letter with an accent)"
                )));
            }
            config.auth_info.token = Some(text.to_string().into());
        }
        // The library looks at the environment for kubeconfigs alone, and holds `NO_PROXY` against the proxy's own name.
        if !has_own_proxy {
            config.proxy_url = proxy_to(&config.cluster_url, &variable)?;
        }
        // Our own retries know what is safe to send twice, and say what they wait for.
        config.default_retry = false;
        let server = config.cluster_url.to_string();
        let server = server.trim_end_matches('/').to_string();
        let proxy = config.proxy_url.as_ref().map(without_credentials);
        let client = client_of(config).map_err(|error| {
            IdentityError::Kubeconfig(match (&error, &proxy) {
                (kube::Error::Auth(error), _) => said_of_credentials(error),
                // Its own words hold the whole address, with the credentials.
                (kube::Error::ProxyProtocolUnsupported { .. }, Some(proxy)) => {
                    format!("the proxy at {proxy} is none of `http://`, `https://` and `socks5://`")
                }
                (error, _) => with_causes(error),
            })
        })?;
        // Every error says where the server is, and who finds a proxy in front of it has to know that it is there.
        let server = match proxy {
            Some(proxy) => format!("{server} (through the proxy at {proxy})"),
            None => server,
        };
        Ok(Api::new(client, kube_context.to_string(), server, patience))
    }
}

/// A client as the library makes it, but with connections that send at once: with Nagle's algorithm, which its own leave
/// on, the first request of each waits 40 ms for the server's acknowledgement of the handshake.
fn client_of(config: Config) -> Result<Client, kube::Error> {
    if config.proxy_url.is_some() {
        return Client::try_from(config);
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(config.connect_timeout);
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace))
}

/// Why there are no credentials. Of a program that was to bring them, only what it says to people: it prints tokens, and is
/// called with what its configuration holds.
pub(super) fn said_of_credentials(error: &AuthError) -> String {
    let AuthError::AuthExecRun { cmd, out } = error else {
        return with_causes(error);
    };
    let program = cmd.split_whitespace().next().unwrap_or_default().trim_matches('"');
    let said = String::from_utf8_lossy(&out.stderr);
    let said = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    let said = match said.trim() {
        "" => "it said nothing on standard error".to_string(),
        line => format!("it said `{line}`"),
    };
    format!(
        "`{program}`, which the kubeconfig names for them, failed ({}): {said}",
        out.status
    )
}

/// The proxy on the way to `server` that the environment names: `HTTPS_PROXY`, unless `NO_PROXY` has the server. None for
/// what is not `https://`, and none for this machine itself, as `kubectl` has it.
///
/// Source: <https://pkg.go.dev/golang.org/x/net/http/httpproxy#Config>
fn proxy_to(
    server: &http::Uri,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<Option<http::Uri>, IdentityError> {
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
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if is_here || server.scheme_str() != Some("https") {
        return Ok(None);
    }
    let port = server.port_u16().unwrap_or(443);
    let excepted = first(["NO_PROXY", "no_proxy"])
        .map(|(_, list)| list)
        .unwrap_or_default();
    let excepted: Vec<&str> = excepted
        .split(',')
        .filter_map(|entry| excepted_host(entry.trim(), port))
        .collect();
    // Only whether the server is excepted is asked here, so any proxy will do.
    let matcher = Matcher::builder().https("http://proxy").no(excepted.join(",")).build();
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
    // The value itself may hold a password.
    let odd = || {
        IdentityError::Settings(format!(
            "`{name}` cannot be used: it is no address of a proxy (`http://…`, `https://…` or `socks5://…`)"
        ))
    };
    url.map(Some).ok_or_else(odd)
}

/// The host of one entry of `NO_PROXY`, in the words that [`Matcher`] knows; `None` for one of another port than `port`.
fn excepted_host(entry: &str, port: u16) -> Option<&str> {
    let entry = match entry.strip_prefix('*') {
        Some(rest) if rest.starts_with('.') => rest,
        _ => entry,
    };
    match entry.rsplit_once(':') {
        // An address of version 6 has colons of its own.
        Some((host, of_port)) if !host.contains(':') || host.ends_with(']') => {
            let is_it = of_port.parse::<u16>().is_ok_and(|of_port| of_port == port);
            is_it.then(|| host.trim_matches(['[', ']']))
        }
        _ => Some(entry.trim_matches(['[', ']'])),
    }
}

/// A proxy's address as people may see it.
fn without_credentials(proxy: &http::Uri) -> String {
    let authority = proxy.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    format!("{}://{place}", proxy.scheme_str().unwrap_or("http"))
}

/// The configuration of a kube context, and whether its cluster names a proxy of its own (`proxy-url`).
async fn from_kubeconfig(file: Option<PathBuf>, kube_context: &str) -> Result<(Config, bool), IdentityError> {
    let read = tokio::task::spawn_blocking(move || match file {
        Some(file) => Kubeconfig::read_from(file),
        None => Kubeconfig::read(),
    });
    let failed = |error: &dyn std::error::Error| IdentityError::Kubeconfig(with_causes(error));
    let kubeconfig = read
        .await
        .map_err(|error| failed(&error))?
        .map_err(|error| failed(&error))?;
    let known: Vec<String> = kubeconfig
        .contexts
        .iter()
        .map(|context| format!("`{}`", context.name))
        .collect();
    if !kubeconfig.contexts.iter().any(|context| context.name == kube_context) {
        return Err(IdentityError::NoKubeContext {
            wanted: kube_context.to_string(),
            known: match known.as_slice() {
                [] => "it has none".to_string(),
                known => format!("it has {}", known.join(", ")),
            },
        });
    }
    let context = kubeconfig.contexts.iter().find(|context| context.name == kube_context);
    let cluster = context.and_then(|context| Some(context.context.as_ref()?.cluster.clone()));
    let has_own_proxy = kubeconfig.clusters.iter().any(|known| {
        let proxy = known.cluster.as_ref().and_then(|known| known.proxy_url.as_deref());
        Some(&known.name) == cluster.as_ref() && proxy.is_some_and(|proxy| !proxy.is_empty())
    });
    let options = KubeConfigOptions {
        context: Some(kube_context.to_string()),
        cluster: None,
        user: None,
    };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|error| failed(&error))?;
    Ok((config, has_own_proxy))
}

fn from_token(
    server: &str,
    certificate_authority: Option<&str>,
    token: &SecretString,
) -> Result<Config, IdentityError> {
    let odd = |variable: &str, why: String| IdentityError::Settings(format!("`{variable}` cannot be used: {why}"));
    if token.expose().is_empty() {
        return Err(odd(TOKEN_VARIABLE, "it is empty".into()));
    }
    let url: http::Uri = server
        .parse()
        .map_err(|error| odd(SERVER_VARIABLE, format!("{error}")))?;
    if !matches!(url.scheme_str(), Some("https" | "http")) {
        return Err(odd(SERVER_VARIABLE, "it is no URL that begins with `https://`".into()));
    }
    let mut config = Config::new(url);
    if let Some(text) = certificate_authority.filter(|text| !text.trim().is_empty()) {
        config.root_cert = Some(certificates(text).map_err(|why| odd(CA_VARIABLE, why))?);
    }
    config.auth_info = AuthInfo {
        token: Some(token.expose().to_string().into()),
        ..AuthInfo::default()
    };
    Ok(config)
}

/// The certificates (DER) in PEM, or in base64 of PEM.
fn certificates(text: &str) -> Result<Vec<Vec<u8>>, String> {
    use base64::Engine as _;
    let encoding = base64::engine::general_purpose::STANDARD;
    let decode = |text: &str| {
        let compact: String = text.split_whitespace().collect();
        encoding
            .decode(compact)
            .map_err(|error| format!("it is neither PEM nor base64 of PEM ({error})"))
    };
    let pem = if text.contains("-----BEGIN") {
        text.to_string()
    } else {
        String::from_utf8(decode(text)?).map_err(|error| format!("it is neither PEM nor base64 of PEM ({error})"))?
    };
    let blocks = pem.split("-----BEGIN CERTIFICATE-----").skip(1);
    let certificates: Result<Vec<_>, _> = blocks
        .map(|block| decode(block.split("-----END CERTIFICATE-----").next().unwrap_or_default()))
        .collect();
    let certificates = certificates?;
    if certificates.is_empty() {
        return Err("it holds no certificate".into());
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Identity {
        Identity::from_environment(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_string())
        })
    }

    #[test]
    fn the_surroundings_say_who_we_are() {
        assert!(matches!(from(&[]), Identity::Kubeconfig(None)));
        assert!(matches!(
            from(&[("KUBERNETES_SERVICE_HOST", "10.0.0.1")]),
            Identity::InCluster
        ));
        let both = [("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("KUBECONFIG", "/x")];
        assert!(matches!(from(&both), Identity::Kubeconfig(None)));
        let token = from(&[
            (SERVER_VARIABLE, "https://k"),
            (TOKEN_VARIABLE, "t"),
            ("KUBECONFIG", "/x"),
        ]);
        assert!(matches!(token, Identity::Token { server, .. } if server == "https://k"));
    }

    #[test]
    fn certificates_come_as_pem_or_in_base64() {
        use base64::Engine as _;
        let pem = "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n";
        assert_eq!(certificates(pem).unwrap(), [vec![1, 2, 3]]);
        let encoded = base64::engine::general_purpose::STANDARD.encode(pem);
        assert_eq!(certificates(&encoded).unwrap(), [vec![1, 2, 3]]);
        assert_eq!(certificates("AQID").unwrap_err(), "it holds no certificate");
        assert!(certificates("***").unwrap_err().starts_with("it is neither"));
    }

    #[test]
    fn of_a_program_for_credentials_only_what_it_says_is_shown() {
        let run = |script: &str| {
            let out = std::process::Command::new("sh").args(["-c", script]).output().unwrap();
            said_of_credentials(&AuthError::AuthExecRun {
                cmd: r#""aws" "eks" "get-token" "--secret" "hunter2""#.into(),
                out: Box::new(out),
            })
        };
        let said = run("echo '{\"token\": \"hunter2\"}'; echo first >&2; echo 'the session has expired' >&2; exit 3");
        assert!(
            said.starts_with("`aws`, which the kubeconfig names for them, failed"),
            "{said}"
        );
        assert!(
            said.contains("`the session has expired`") && !said.contains("hunter2"),
            "{said}"
        );
        assert!(run("exit 1").contains("said nothing"));
    }

    #[tokio::test]
    async fn a_token_that_fits_into_no_header_is_said_and_a_line_break_at_its_end_is_not_missed() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let connect = async |token: &str| {
            let identity = Identity::Token {
                server: "https://127.0.0.1:1".into(),
                certificate_authority: None,
                token: SecretString::new(token.into()),
            };
            identity.connect("live", Patience::default()).await.map(drop)
        };
        let odd = connect("hunter2\nhunter3").await.unwrap_err().to_string();
        assert!(
            odd.starts_with("the token for the kube context `live` cannot be used") && !odd.contains("hunter"),
            "{odd}"
        );
        connect("hunter2\n").await.unwrap();
    }

    #[test]
    fn the_environment_names_the_proxy_on_the_way() {
        let through = |server: &str, variables: &[(&str, &str)]| {
            let found = proxy_to(&server.parse().unwrap(), &|name: &str| {
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
        for excepted in [
            "*",
            "k.example.com",
            "example.com",
            ".example.com",
            "*.example.com",
            "k.example.com:6443",
            "other,, k.example.com",
        ] {
            assert_eq!(
                through(server, &[proxy, ("NO_PROXY", excepted)]).unwrap(),
                None,
                "{excepted}"
            );
        }
        // Of the proxy itself nothing is excepted.
        for other in ["ample.com", "k.example.com:443", "10.0.0.0/8", "proxy"] {
            assert_eq!(
                through(server, &[proxy, ("no_proxy", other)]).unwrap(),
                used(),
                "{other}"
            );
        }
        let by_address = |server: &str, excepted: &str| through(server, &[proxy, ("NO_PROXY", excepted)]).unwrap();
        assert_eq!(by_address("https://10.1.2.3:6443", "10.0.0.0/8"), None);
        assert_eq!(by_address("https://10.1.2.3:6443", "10.1.2.3:6443"), None);
        assert_eq!(by_address("https://10.1.2.3:6443", "10.1.2.4"), used());
        assert_eq!(by_address("https://[fd00::1]:6443", "[fd00::1]:6443"), None);
        assert_eq!(by_address("https://[fd00::1]:6443", "fd00::1"), None);
        for here in [
            "https://127.0.0.1:6443",
            "https://[::1]:6443",
            "https://localhost",
            "http://k",
        ] {
            assert_eq!(through(here, &[proxy]).unwrap(), None, "{here}");
        }
        let odd = through(server, &[("HTTPS_PROXY", "ftp://ann:hunter2@proxy")]).unwrap_err();
        let odd = odd.to_string();
        assert!(
            odd.starts_with("`HTTPS_PROXY` cannot be used") && !odd.contains("hunter2"),
            "{odd}"
        );
    }

    #[tokio::test]
    async fn an_error_behind_a_proxy_names_the_proxy_without_its_credentials() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let identity = Identity::Token {
            server: "https://k.example.com:6443".into(),
            certificate_authority: None,
            token: SecretString::new("t".into()),
        };
        let patience = Patience {
            request: std::time::Duration::from_secs(10),
            retries: std::time::Duration::ZERO,
        };
        let variable = |name: &str| (name == "HTTPS_PROXY").then(|| "http://ann:hunter2@127.0.0.1:1".to_string());
        let Ok(api) = identity.connect_by("live", patience, variable).await else {
            panic!("a proxy that is not there is found out by the first request");
        };
        let said = api.get("/version").await.unwrap_err().to_string();
        assert!(
            said.contains("https://k.example.com:6443 (through the proxy at http://127.0.0.1:1)")
                && !said.contains("hunter2"),
            "{said}"
        );
    }

    #[test]
    fn what_is_missing_is_said_by_its_name() {
        let no_token = from_token("https://k", None, &SecretString::new(String::new())).unwrap_err();
        assert_eq!(no_token.to_string(), "`TOWPATH_KUBE_TOKEN` cannot be used: it is empty");
        let no_url = from_token("k:6443", None, &SecretString::new("t".into())).unwrap_err();
        assert!(
            no_url.to_string().starts_with("`TOWPATH_KUBE_SERVER` cannot be used"),
            "{no_url}"
        );
    }
}
