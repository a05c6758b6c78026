//! Talks to a running Towpath: over HTTP from a laptop, over the agent's socket from a step.

use crate::{cli::At, direct::Direct, exit};
use anyhow::{Context, Result, anyhow, bail};
use reqwest::{Method, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use towpath_control::Progress;
use towpath_types::{Outcome, SecretString};

/// The file in the data directory that says where the server listens.
pub const ADDRESS_FILE: &str = "address";

/// How long a step's deployment survives a server that is being restarted.
const PATIENCE: Duration = Duration::from_secs(300);

/// A client of one running Towpath.
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: SecretString,
    /// Whether the server may go away for a while: the agent's side of a restart.
    patient: bool,
    /// The server, when it is this process: it lives as long as its client.
    _direct: Option<Direct>,
}

/// The data directory that `at` means.
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

impl Client {
    /// A client of the Towpath whose data directory `at` means.
    ///
    /// # Errors
    /// With exit code 3 when no Towpath was ever started there.
    pub fn new(at: &At) -> Result<Self> {
        let dir = data_dir(at.data_dir.as_deref())?;
        let read = |name: &str| {
            std::fs::read_to_string(dir.join(name)).map_err(|error| exit::Coded {
                code: exit::UNREACHABLE,
                message: format!(
                    "no Towpath was started with the data directory `{}` ({error}): start it with `towpath up`, or name \
                     another with --data-dir",
                    dir.display()
                ),
            })
        };
        let base = read(ADDRESS_FILE)?.trim().to_string();
        let token = SecretString::new(read("token")?.trim().to_string());
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .context("failed to make an HTTP client")?;
        Ok(Self {
            http,
            base,
            token,
            patient: false,
            _direct: None,
        })
    }

    /// A client for what is done with environments: of the Towpath whose data directory `at` means, or, when none is up and
    /// this shell knows clusters, of one in this process, which knows what the clusters themselves say of their releases.
    ///
    /// # Errors
    /// With exit code 3 when there is neither.
    pub async fn for_environments(at: &At) -> Result<Self> {
        let up = match Self::new(at) {
            Ok(client) if client.is_up().await => return Ok(client),
            up => up,
        };
        let Some(direct) = Direct::start(at.project.as_deref()).await? else {
            return up;
        };
        eprintln!("No Towpath is up here: this command works with the clusters of this shell by itself");
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .context("failed to make an HTTP client")?;
        Ok(Self {
            http,
            base: direct.base(),
            token: direct.token(),
            patient: false,
            _direct: Some(direct),
        })
    }

    /// Whether somebody listens where the server is to be.
    async fn is_up(&self) -> bool {
        let address = self.base.trim_start_matches("http://");
        tokio::net::TcpStream::connect(address).await.is_ok()
    }

    /// A client for a step, when this process runs in one.
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
        let http = reqwest::Client::builder()
            .no_proxy()
            .unix_socket(socket)
            .build()
            .context("failed to make an HTTP client")?;
        Ok(Self {
            http,
            base: "http://towpath".into(),
            token: SecretString::new(token),
            patient: false,
            _direct: None,
        })
    }

    /// Where the server is, for people.
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
        #[derive(serde::Deserialize)]
        struct Message {
            message: String,
        }
        match serde_json::from_slice::<Message>(&body) {
            Ok(Message { message }) => Err(anyhow!("{message}")),
            Err(_) if status == StatusCode::UNAUTHORIZED => Err(anyhow!("the server does not accept this token")),
            Err(_) => Err(anyhow!("the server answered {status}")),
        }
    }

    /// `GET path`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let body = Self::answer(self.send(Method::GET, path, None, false).await?).await?;
        serde_json::from_slice(&body).with_context(|| format!("failed to read the server's answer to `GET {path}`"))
    }

    /// `GET path`, as it is.
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

    /// Prints the lines of a release or a one-off job as they come, until it ended.
    pub async fn follow(&self, prefix: &str, id: &str) -> Result<Progress> {
        let mut from = 0;
        loop {
            let progress: Progress = self
                .get(&format!("{prefix}/progress/{}?from={from}", escape(id)))
                .await?;
            for line in &progress.lines {
                outln!("{line}");
            }
            from = progress.next;
            if progress.outcome.is_some() {
                return Ok(progress);
            }
        }
    }
}

/// `outcome` as this command's success or failure.
pub fn expect_success(outcome: Option<Outcome>, what: &str) -> Result<()> {
    match outcome {
        Some(Outcome::Succeeded) => Ok(()),
        Some(Outcome::Rejected) => bail!("{what} was refused"),
        Some(Outcome::Canceled) => bail!("{what} was canceled"),
        Some(Outcome::Errored) => bail!("{what} ended with an error"),
        Some(outcome) => bail!("{what} {}", outcome.as_str().replace('_', " ")),
        None => bail!("{what} has not ended"),
    }
}

/// `text` as one segment of a URL's path.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}
