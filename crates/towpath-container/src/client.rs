//! The connection to an engine.

use crate::error::ContainerError;
use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};
use std::{fmt, path::PathBuf};

/// The oldest API version with everything that this crate needs (Docker 19.03).
const OLDEST: ClientVersion = ClientVersion {
    major_version: 1,
    minor_version: 40,
};
/// How long an answer may take to begin, in seconds.
const PATIENCE_SECONDS: u64 = 120;

/// An engine's API. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct ContainerClient {
    pub(crate) docker: Docker,
}

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// Identifies this engine for as long as it keeps its storage.
    pub id: String,
    /// The processors that containers may use together.
    pub processors: u64,
    /// The machine's memory.
    pub memory_bytes: u64,
}

impl ContainerClient {
    /// Connects to the engine that `DOCKER_HOST` names, or at the default socket, and negotiates the API version.
    ///
    /// # Errors
    /// When none answers, or it is too old.
    pub async fn connect() -> Result<Self, ContainerError> {
        let docker = Docker::connect_with_defaults().map_err(ContainerError::of(
            "find the container engine; does `DOCKER_HOST` name one, and is it installed",
        ))?;
        Self { docker }.agreed().await
    }

    /// The Unix socket that [`Self::connect`] uses. `None` if `DOCKER_HOST` names an address of another kind.
    #[must_use]
    pub fn socket() -> Option<PathBuf> {
        match std::env::var("DOCKER_HOST") {
            Ok(address) if !address.is_empty() => address.strip_prefix("unix://").map(PathBuf::from),
            _ => Some(PathBuf::from("/var/run/docker.sock")),
        }
    }

    /// The engine at `address` (`http://127.0.0.1:2375`). Sends no request yet.
    ///
    /// # Errors
    /// When it is not a valid address.
    pub fn at(address: &str) -> Result<Self, ContainerError> {
        let attempted = format!("understand the engine's address `{address}`");
        // The client itself checks the address only when it connects.
        let host = address
            .strip_prefix("http://")
            .or_else(|| address.strip_prefix("tcp://"));
        if host.is_none_or(|host| host.is_empty() || host.contains(char::is_whitespace)) {
            return Err(ContainerError::other(attempted)(
                "it has to look like `http://127.0.0.1:2375`",
            ));
        }
        let docker = Docker::connect_with_http(address, PATIENCE_SECONDS, API_DEFAULT_VERSION);
        let docker = docker.map_err(ContainerError::of(attempted))?;
        Ok(Self { docker })
    }

    async fn agreed(self) -> Result<Self, ContainerError> {
        let attempted = "talk to the container engine; is it running, and may this user open its socket";
        let docker = self
            .docker
            .negotiate_version()
            .await
            .map_err(ContainerError::of(attempted))?;
        let version = docker.client_version();
        if version < OLDEST {
            let ClientVersion {
                major_version,
                minor_version,
            } = version;
            return Err(ContainerError::other("use the container engine")(format!(
                "it speaks version {major_version}.{minor_version} of Docker's API, and Towpath needs {}.{}: update it to \
                 Docker 19.03 or later",
                OLDEST.major_version, OLDEST.minor_version
            )));
        }
        Ok(Self { docker })
    }

    /// The engine's identity and resources.
    ///
    /// # Errors
    /// When it cannot be asked, or does not say which it is.
    pub async fn info(&self) -> Result<EngineInfo, ContainerError> {
        let attempted = "ask the container engine what it has";
        let info = self.docker.info().await.map_err(ContainerError::of(attempted))?;
        let id = info.id.filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| ContainerError::other(attempted)("its answer names no id"))?;
        Ok(EngineInfo {
            id,
            processors: info.ncpu.and_then(|count| u64::try_from(count).ok()).unwrap_or(0),
            memory_bytes: info.mem_total.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0),
        })
    }
}

impl fmt::Debug for ContainerClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContainerClient")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    /// Starts an engine that answers every request with `body`, and returns its address.
    async fn engine_that_says(body: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length:";
                let _ = stream
                    .write_all(format!("{head} {}\r\n\r\n{body}", body.len()).as_bytes())
                    .await;
            }
        });
        address
    }

    #[tokio::test]
    async fn an_engine_that_is_too_old_is_refused_with_the_remedy() {
        let address = engine_that_says(r#"{"ApiVersion":"1.39"}"#).await;
        let error = ContainerClient::at(&address).unwrap().agreed().await.unwrap_err();
        let said = error.said();
        assert!(
            said.contains("version 1.39") && said.contains("Docker 19.03 or later"),
            "{said}"
        );
        let address = engine_that_says(r#"{"ApiVersion":"1.40"}"#).await;
        ContainerClient::at(&address).unwrap().agreed().await.unwrap();
        let address = engine_that_says("{}").await;
        let error = ContainerClient::at(&address).unwrap().info().await.unwrap_err();
        assert!(error.said().contains("names no id"), "{error:?}");
    }
}
