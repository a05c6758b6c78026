//! Where clusters are, and which credentials to use.

use crate::{
    client::{Client, Patience},
    credentials::why_unavailable,
    proxy::{InvalidProxy, proxy_for, without_credentials},
};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioExecutor};
use kube::{
    Config,
    client::ConfigExt as _,
    config::{AuthInfo, KubeConfigOptions, Kubeconfig},
};
use secrecy::ExposeSecret as _;
use std::path::PathBuf;
use tower::{BoxError, ServiceBuilder};
use towpath_types::{SecretString, with_causes};

/// The environment variable with the URL of the API server, for places without a kubeconfig, such as a pipeline's job.
pub const SERVER_VARIABLE: &str = "TOWPATH_KUBE_SERVER";
/// The environment variable with the certificate of the certificate authority: PEM, or PEM in base64 as in the Secret of a
/// service account.
pub const CA_VARIABLE: &str = "TOWPATH_KUBE_CA";
/// The environment variable with the bearer token.
pub const TOKEN_VARIABLE: &str = "TOWPATH_KUBE_TOKEN";

/// Where clusters and credentials come from.
#[derive(Debug, Clone)]
pub enum Identity {
    /// The kube contexts of a kubeconfig: of this file, or if `None`, of the files in `KUBECONFIG` or of `~/.kube/config`.
    /// Supports exec plugins, proxies and OIDC.
    Kubeconfig(Option<PathBuf>),
    /// The cluster that this process runs in, with its service account, for every kube context.
    InCluster,
    /// One cluster for every kube context.
    Token {
        /// `https://…`.
        server: String,
        /// The certificate authority as PEM or PEM in base64; `None` to trust the same authorities as this machine.
        certificate_authority: Option<String>,
        #[allow(missing_docs)]
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

/// Why no cluster can be reached.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The kubeconfig does not have the kube context.
    #[error(
        "the kubeconfig has no kube context `{wanted}`: {known}. Environments need it: their folder below `.k8s/` or `kube_context` in towpath.toml says so"
    )]
    NoKubeContext {
        /// The name of the folder.
        wanted: String,
        /// A sentence with the kube contexts that it has.
        known: String,
    },
    /// The kubeconfig is not usable.
    #[error("cannot use the kubeconfig: {0}")]
    Kubeconfig(String),
    /// The environment variables or the service account are not usable.
    #[error("{0}")]
    Settings(String),
}

impl From<InvalidProxy> for IdentityError {
    fn from(error: InvalidProxy) -> Self {
        Self::Settings(error.to_string())
    }
}

impl Identity {
    /// Finds the identity of this process: the three variables, otherwise a kubeconfig, otherwise the service account of its
    /// pod. `variable` reads an environment variable.
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

    /// Whether there is any cluster: variables, a service account, or a kubeconfig that exists. Sends no request.
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

    /// Makes the client of a kube context's cluster. Sends no request.
    ///
    /// # Errors
    /// If the kube context does not exist, or its settings are not usable.
    pub async fn connect(&self, kube_context: &str, patience: Patience) -> Result<Client, IdentityError> {
        self.connect_by(kube_context, patience, |name| std::env::var(name).ok())
            .await
    }

    /// Uses the proxy that the environment variables name, unless the kubeconfig has one for the cluster.
    async fn connect_by(
        &self,
        kube_context: &str,
        patience: Patience,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Client, IdentityError> {
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
            // It is sent in a header.
            if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(IdentityError::Settings(format!(
                    "cannot use the token for the kube context `{kube_context}`: it is empty, or has a character that tokens \
                     do not have (a space, a line break, an accented letter)"
                )));
            }
            config.auth_info.token = Some(text.to_string().into());
        }
        // The library reads the variables only for kubeconfigs, and compares `NO_PROXY` with the name of the proxy.
        if !has_own_proxy {
            config.proxy_url = proxy_for(&config.cluster_url, &variable)?;
        }
        // The library asks the machine itself, and fails on one without certificates, even if the server has no TLS.
        if config.root_cert.is_none() {
            let trusted = towpath_trust::authorities().map_err(|error| IdentityError::Settings(error.to_string()))?;
            config.root_cert = Some(trusted.iter().map(|authority| authority.to_vec()).collect());
        }
        // `Client` retries what is safe to send twice, and logs it.
        config.default_retry = false;
        let server = config.cluster_url.to_string();
        let server = server.trim_end_matches('/').to_string();
        let proxy = config.proxy_url.as_ref().map(without_credentials);
        let http = http_client(config).map_err(|error| {
            IdentityError::Kubeconfig(match (&error, &proxy) {
                (kube::Error::Auth(error), _) => why_unavailable(error),
                // The library's message has the whole address, with the password.
                (kube::Error::ProxyProtocolUnsupported { .. }, Some(proxy)) => {
                    format!(
                        "the address of the proxy at {proxy} has to start with `http://`, `https://` or `socks5://`"
                    )
                }
                (error, _) => with_causes(error),
            })
        })?;
        // Errors name the server, and the proxy in front of it, because the proxy may be the cause.
        let server = match proxy {
            Some(proxy) => format!("{server} (through the proxy at {proxy})"),
            None => server,
        };
        Ok(Client::new(http, kube_context.to_string(), server, patience))
    }
}

/// Makes a client like the library does, but with `TCP_NODELAY`. Otherwise, the first request on each connection would wait
/// 40 ms for the acknowledgement of the TLS handshake.
fn http_client(config: Config) -> Result<kube::Client, kube::Error> {
    if config.proxy_url.is_some() {
        return kube::Client::try_from(config);
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
    Ok(kube::Client::new(service, config.default_namespace))
}

/// The configuration of a kube context, and whether the kubeconfig has a proxy for its cluster (`proxy-url`).
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
    let invalid = |variable: &str, why: String| IdentityError::Settings(format!("cannot use `{variable}`: {why}"));
    if token.expose().is_empty() {
        return Err(invalid(TOKEN_VARIABLE, "it is empty".into()));
    }
    let url: http::Uri = server
        .parse()
        .map_err(|error| invalid(SERVER_VARIABLE, format!("{error}")))?;
    if !matches!(url.scheme_str(), Some("https" | "http")) {
        return Err(invalid(
            SERVER_VARIABLE,
            "it is not a URL that starts with `https://`".into(),
        ));
    }
    let mut config = Config::new(url);
    if let Some(text) = certificate_authority.filter(|text| !text.trim().is_empty()) {
        config.root_cert = Some(certificates(text).map_err(|why| invalid(CA_VARIABLE, why))?);
    }
    config.auth_info = AuthInfo {
        token: Some(token.expose().to_string().into()),
        ..AuthInfo::default()
    };
    Ok(config)
}

/// The certificates (DER) in PEM, or in PEM in base64.
fn certificates(text: &str) -> Result<Vec<Vec<u8>>, String> {
    use base64::Engine as _;
    let encoding = base64::engine::general_purpose::STANDARD;
    let decode = |text: &str| {
        let compact: String = text.split_whitespace().collect();
        encoding
            .decode(compact)
            .map_err(|error| format!("it is neither PEM nor PEM in base64 ({error})"))
    };
    let pem = if text.contains("-----BEGIN") {
        text.to_string()
    } else {
        String::from_utf8(decode(text)?).map_err(|error| format!("it is neither PEM nor PEM in base64 ({error})"))?
    };
    let blocks = pem.split("-----BEGIN CERTIFICATE-----").skip(1);
    let certificates: Result<Vec<_>, _> = blocks
        .map(|block| decode(block.split("-----END CERTIFICATE-----").next().unwrap_or_default()))
        .collect();
    let certificates = certificates?;
    if certificates.is_empty() {
        return Err("it contains no certificate".into());
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
    fn the_environment_decides_the_identity() {
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
    fn certificates_are_pem_or_pem_in_base64() {
        use base64::Engine as _;
        let pem = "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n";
        assert_eq!(certificates(pem).unwrap(), [vec![1, 2, 3]]);
        let encoded = base64::engine::general_purpose::STANDARD.encode(pem);
        assert_eq!(certificates(&encoded).unwrap(), [vec![1, 2, 3]]);
        assert_eq!(certificates("AQID").unwrap_err(), "it contains no certificate");
        assert!(certificates("***").unwrap_err().starts_with("it is neither"));
    }

    #[tokio::test]
    async fn a_token_that_does_not_fit_into_a_header_is_refused_and_a_trailing_line_break_is_ignored() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let connect = async |token: &str| {
            let identity = Identity::Token {
                server: "https://127.0.0.1:1".into(),
                certificate_authority: None,
                token: SecretString::new(token.into()),
            };
            identity.connect("live", Patience::default()).await.map(drop)
        };
        let refused = connect("hunter2\nhunter3").await.unwrap_err().to_string();
        assert!(
            refused.starts_with("cannot use the token for the kube context `live`") && !refused.contains("hunter"),
            "{refused}"
        );
        connect("hunter2\n").await.unwrap();
    }

    #[tokio::test]
    async fn an_error_names_the_proxy_without_its_credentials() {
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
        let Ok(client) = identity.connect_by("live", patience, variable).await else {
            panic!("connecting sends no request, so it does not fail");
        };
        let said = client.get("/version").await.unwrap_err().to_string();
        assert!(
            said.contains("https://k.example.com:6443 (through the proxy at http://127.0.0.1:1)")
                && !said.contains("hunter2"),
            "{said}"
        );
    }

    #[test]
    fn invalid_variables_are_named() {
        let no_token = from_token("https://k", None, &SecretString::new(String::new())).unwrap_err();
        assert_eq!(no_token.to_string(), "cannot use `TOWPATH_KUBE_TOKEN`: it is empty");
        let no_url = from_token("k:6443", None, &SecretString::new("t".into())).unwrap_err();
        assert!(
            no_url.to_string().starts_with("cannot use `TOWPATH_KUBE_SERVER`"),
            "{no_url}"
        );
    }
}
