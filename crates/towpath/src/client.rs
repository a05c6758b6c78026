//! Talks to a running Towpath: over HTTP from a laptop, over the agent's socket from a step.

use crate::{cli::At, exit};
use anyhow::{Context, Result, anyhow};
use reqwest::{Method, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use towpath_delivery::PlanView;
use towpath_types::SecretString;

/// The file in a server's folder that contains its address.
pub const ADDRESS_FILE: &str = "address";
/// The folder in the data directory that has one folder for each named server.
pub const SERVERS_FOLDER: &str = "servers";
/// How long a server may take to accept a connection before the client tries another one.
const TO_CONNECT: Duration = Duration::from_secs(1);

/// How long a step waits for a server that is being restarted.
const PATIENCE: Duration = Duration::from_secs(300);
/// This client's `User-Agent`.
const USER_AGENT: &str = concat!("towpath/", env!("CARGO_PKG_VERSION"));
/// The longest answer that is shown as an error.
const LONGEST_ERROR_BYTES: usize = 4096;

/// The server's answer to a request that would go through if it named the plan in this answer.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Unagreed {
    pub message: String,
    pub plan: PlanView,
}

impl std::fmt::Display for Unagreed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Unagreed {}

/// A client of one running Towpath.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: SecretString,
    /// Whether to wait for a server that is away. A step does so while the server restarts.
    patient: bool,
}

/// A server listens on this machine without TLS, and an agent on a Unix socket. So the client needs no certificates, and a
/// job's image need not have any.
fn http_client() -> Result<reqwest::ClientBuilder> {
    let plain = towpath_trust::without_tls()?;
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(plain)
        .no_proxy()
        .user_agent(USER_AGENT))
}

/// The data directory that the options select.
pub fn data_dir(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(dir) = given {
        return Ok(dir.to_path_buf());
    }
    let folder = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    folder("XDG_DATA_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".local/share")))
        .map(|dir| dir.join("towpath"))
        .ok_or_else(|| anyhow!("neither --data-dir nor $TOWPATH_DATA_DIR nor $HOME says where Towpath keeps its data"))
}

/// The addresses at which the servers of a data directory listen or listened. The server without a name comes first.
pub fn addresses_in(dir: &Path) -> io::Result<Vec<String>> {
    let first = read_address(dir);
    let mut folders: Vec<PathBuf> = match std::fs::read_dir(dir.join(SERVERS_FOLDER)) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => return first.map(|address| vec![address]),
    };
    folders.sort();
    let named = folders.iter().filter_map(|folder| read_address(folder).ok());
    let mut all: Vec<String> = first.as_ref().ok().cloned().into_iter().chain(named).collect();
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|address| seen.insert(address.clone()));
    if all.is_empty() {
        first.map(|address| vec![address])
    } else {
        Ok(all)
    }
}

/// The address of a data directory's server. If several servers share the directory, the first one that accepts a connection.
fn address_in(dir: &Path) -> io::Result<String> {
    let mut all = addresses_in(dir)?;
    let up = match all.len() {
        1 => None,
        _ => all.iter().position(|address| accepts(address)),
    };
    // If no server is up, the request to the first one reports that.
    Ok(all.swap_remove(up.unwrap_or(0)))
}

fn read_address(folder: &Path) -> io::Result<String> {
    let text = std::fs::read_to_string(folder.join(ADDRESS_FILE))?;
    Ok(text.trim().to_string())
}

fn accepts(address: &str) -> bool {
    let address = address.trim_start_matches("http://").parse();
    address.is_ok_and(|address| std::net::TcpStream::connect_timeout(&address, TO_CONNECT).is_ok())
}

impl Client {
    /// A client of the Towpath whose data directory `at` selects.
    ///
    /// # Errors
    /// With exit code 3 when no Towpath was ever started there.
    pub fn new(at: &At) -> Result<Self> {
        let dir = data_dir(at.data_dir.as_deref())?;
        let never_started = |error: io::Error| exit::Coded {
            code: exit::UNREACHABLE,
            message: format!(
                "no Towpath was started with the data directory `{}` ({error}): start it with `towpath up`, or name \
                 another with --data-dir",
                dir.display()
            ),
        };
        let base = address_in(&dir).map_err(never_started)?;
        let token = std::fs::read_to_string(dir.join("token")).map_err(never_started)?;
        let token = SecretString::new(token.trim().to_string());
        let http = http_client()?.build().context("failed to make an HTTP client")?;
        Ok(Self {
            http,
            base,
            token,
            patient: false,
        })
    }

    /// Whether the server's address accepts connections.
    pub async fn is_up(&self) -> bool {
        let address = self.base.trim_start_matches("http://");
        tokio::net::TcpStream::connect(address).await.is_ok()
    }

    /// A client for a step, if this process runs in one.
    pub fn in_job() -> Result<Option<Self>> {
        let (Ok(socket), Ok(token)) = (
            std::env::var("TOWPATH_AGENT_SOCKET"),
            std::env::var("TOWPATH_JOB_TOKEN"),
        ) else {
            return Ok(None);
        };
        Ok(Some(Self {
            patient: true,
            ..Self::on_socket(socket, token)?
        }))
    }

    /// A client of the server behind a unix socket.
    pub fn on_socket(socket: String, token: String) -> Result<Self> {
        let http = http_client()?
            .unix_socket(socket)
            .build()
            .context("failed to make an HTTP client")?;
        Ok(Self {
            http,
            base: "http://towpath".into(),
            token: SecretString::new(token),
            patient: false,
        })
    }

    /// The server's address, for people.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The owner's token, for git's credential helper.
    pub fn token(&self) -> &SecretString {
        &self.token
    }

    async fn send(&self, method: Method, path: &str, body: Option<Vec<u8>>, json: bool) -> Result<reqwest::Response> {
        let started = Instant::now();
        loop {
            let mut request = self
                .http
                .request(method.clone(), format!("{}{path}", self.base))
                .header("Authorization", format!("Bearer {}", self.token.expose()));
            if let Some(body) = &body {
                request = request.body(body.clone());
                if json {
                    request = request.header("Content-Type", "application/json");
                }
            }
            match request.send().await {
                // The server's storage is away. Repeating a read changes nothing.
                Ok(response)
                    if self.patient
                        && method == Method::GET
                        && response.status() == StatusCode::SERVICE_UNAVAILABLE
                        && started.elapsed() < PATIENCE =>
                {
                    tokio::time::sleep(Duration::from_millis(300)).await
                }
                Ok(response) => return Ok(response),
                Err(_) if self.patient && started.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(300)).await
                }
                Err(error) => {
                    return Err(anyhow::Error::new(error).context(exit::Coded {
                        code: exit::UNREACHABLE,
                        message: format!("no Towpath answers at {}: is `towpath up` running?", self.base),
                    }));
                }
            }
        }
    }

    async fn answer(response: reqwest::Response) -> Result<Vec<u8>> {
        let status = response.status();
        let body = response.bytes().await.context("the server's answer broke off")?;
        if status.is_success() {
            return Ok(body.to_vec());
        }
        Err(refusal(status, &body))
    }

    /// `GET path`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let body = Self::answer(self.send(Method::GET, path, None, false).await?).await?;
        serde_json::from_slice(&body).with_context(|| format!("failed to read the server's answer to `GET {path}`"))
    }

    /// `GET path` as bytes.
    pub async fn get_bytes(&self, path: &str) -> Result<Vec<u8>> {
        Self::answer(self.send(Method::GET, path, None, false).await?).await
    }

    /// `POST path` with JSON.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        let body = serde_json::to_vec(body).context("failed to write the request")?;
        let body = Self::answer(self.send(Method::POST, path, Some(body), true).await?).await?;
        serde_json::from_slice(&body).with_context(|| format!("failed to read the server's answer to `POST {path}`"))
    }

    /// `POST path` with bytes; the answer is text.
    pub async fn post_bytes(&self, path: &str, body: Vec<u8>) -> Result<String> {
        let body = Self::answer(self.send(Method::POST, path, Some(body), false).await?).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// `PUT path` with a raw body.
    pub async fn put(&self, path: &str, body: Vec<u8>) -> Result<()> {
        Self::answer(self.send(Method::PUT, path, Some(body), false).await?)
            .await
            .map(drop)
    }

    /// `DELETE path`.
    pub async fn delete(&self, path: &str) -> Result<()> {
        Self::answer(self.send(Method::DELETE, path, None, false).await?)
            .await
            .map(drop)
    }
}

/// The server's refusal as an error for the person who typed the command.
fn refusal(status: StatusCode, body: &[u8]) -> anyhow::Error {
    #[derive(serde::Deserialize)]
    struct Message {
        message: String,
        plan: Option<PlanView>,
    }
    match serde_json::from_slice(body) {
        Ok(Message {
            message,
            plan: Some(plan),
        }) => Unagreed { message, plan }.into(),
        Ok(Message { message, plan: None }) => anyhow!(message),
        Err(_) => anyhow!(plain_refusal(status, body)),
    }
}

fn plain_refusal(status: StatusCode, body: &[u8]) -> String {
    if status == StatusCode::UNAUTHORIZED {
        return "the server does not accept this token".into();
    }
    match std::str::from_utf8(body).map(str::trim) {
        Ok(text) if !text.is_empty() && text.len() <= LONGEST_ERROR_BYTES => text.to_string(),
        _ => format!("the server answered {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_the_server_says() {
        let check = |status, body: &str, expected: &str| {
            assert_eq!(refusal(status, body.as_bytes()).to_string(), expected);
        };
        check(StatusCode::CONFLICT, "{\"message\": \"not now\"}", "not now");
        check(StatusCode::UNPROCESSABLE_ENTITY, "no such ref\n", "no such ref");
        check(
            StatusCode::UNAUTHORIZED,
            "who?",
            "the server does not accept this token",
        );
        check(StatusCode::BAD_GATEWAY, "", "the server answered 502 Bad Gateway");
    }
}
