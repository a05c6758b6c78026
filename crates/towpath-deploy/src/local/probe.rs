//! Probes and hooks: requests to a container, and commands in it.

use super::model::{Check, Hook, Probe, TargetPort};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::net::TcpStream;
use towpath_container::ContainerClient;
use towpath_types::with_causes;

/// How many characters of a failed command's output a message shows.
const SHOWN: usize = 200;

/// A running container and its address.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub engine: ContainerClient,
    pub container: String,
    pub address: IpAddr,
}

impl Endpoint {
    /// Probes once. The error is a sentence.
    pub(crate) async fn ask(&self, probe: &Probe) -> Result<(), String> {
        let asked = async {
            match &probe.check {
                Check::Http { path, port, headers } => self.get(path, port, headers).await,
                Check::Tcp(port) => {
                    let address = self.socket(port)?;
                    match TcpStream::connect(address).await {
                        Ok(_) => Ok(()),
                        Err(error) => Err(format!("connecting to {address}: {error}")),
                    }
                }
                Check::Exec(command) => match self.engine.execute(&self.container, command).await {
                    Ok(ended) if ended.exit_code == 0 => Ok(()),
                    Ok(ended) => {
                        let printed: String = ended.output.chars().take(SHOWN).collect();
                        let (command, code) = (command.join(" "), ended.exit_code);
                        Err(format!("`{command}` exited with {code}: {printed}"))
                    }
                    Err(error) => Err(with_causes(&error)),
                },
            }
        };
        match tokio::time::timeout(probe.timeout, asked).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {} s", probe.timeout.as_secs())),
        }
    }

    /// Runs a hook. A failed hook stops nothing.
    pub(crate) async fn hook(&self, hook: &Hook) {
        let result = match hook {
            Hook::Sleep(pause) => {
                tokio::time::sleep(*pause).await;
                Ok(())
            }
            Hook::Exec(command) => {
                let executed = self.engine.execute(&self.container, command).await;
                executed.map(drop).map_err(|error| with_causes(&error))
            }
            Hook::Http { path, port, headers } => self.get(path, port, headers).await,
        };
        if let Err(error) = result {
            tracing::warn!(container = %self.container, error, "a preStop hook failed");
        }
    }

    fn socket(&self, port: &TargetPort) -> Result<SocketAddr, String> {
        match port {
            TargetPort::Number(port) => Ok(SocketAddr::new(self.address, *port)),
            TargetPort::Name(name) => Err(format!("no port is called `{name}`")),
        }
    }

    /// Any status from 200 to 399 is a success.
    ///
    /// Source: <https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/#http-probes>
    async fn get(&self, path: &str, port: &TargetPort, headers: &[(String, String)]) -> Result<(), String> {
        let address = self.socket(port)?;
        let failed = |error: &dyn std::fmt::Display| format!("GET http://{address}{path}: {error}");
        let stream = TcpStream::connect(address).await.map_err(|e| failed(&e))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| failed(&e))?;
        let path = if path.starts_with('/') {
            path.to_string()
        } else {
            format!("/{path}")
        };
        let mut request = Request::get(&path)
            .header(header::CONNECTION, "close")
            .header(header::ACCEPT, "*/*");
        let named = |name: &str| headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
        if !named("host") {
            request = request.header(header::HOST, address.to_string());
        }
        if !named("user-agent") {
            request = request.header(header::USER_AGENT, "towpath-probe");
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Empty::<bytes::Bytes>::new()).map_err(|e| failed(&e))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|e| failed(&e))?;
            let status = response.status();
            // Read a short answer, so that the application does not log a broken connection.
            let _ = tokio::time::timeout(Duration::from_millis(100), response.into_body().collect()).await;
            if (200..400).contains(&status.as_u16()) {
                Ok(())
            } else {
                Err(format!("GET http://{address}{path} answered {status}"))
            }
        };
        let mut exchange = std::pin::pin!(exchange);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            result = &mut exchange => result,
            _ = &mut connection => exchange.await,
        }
    }
}
