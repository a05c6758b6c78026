//! A server whose certificate is of an authority that only the test knows.

use anyhow::{Context, Result};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Answers every request alike, over TLS, until the process ends.
pub struct TlsServer {
    /// `0.0.0.0:PORT`, which is this machine but no loopback address: some clients speak without TLS on those.
    pub address: String,
    /// A file (PEM) with the certificate of the authority.
    pub authority: PathBuf,
    connections: Arc<AtomicUsize>,
    _folder: tempfile::TempDir,
}

impl TlsServer {
    /// Starts one. `answer` is the whole answer: status line, headers and body.
    ///
    /// # Errors
    /// When there is no port or no certificate to be had.
    pub fn start(answer: impl Into<String>) -> Result<Self> {
        let key = rcgen::KeyPair::generate()?;
        let mut authority = rcgen::CertificateParams::default();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = rcgen::CertifiedIssuer::self_signed(authority, key)?;
        let own_key = rcgen::KeyPair::generate()?;
        let names = vec![Ipv4Addr::UNSPECIFIED.to_string(), "localhost".to_string()];
        let own = rcgen::CertificateParams::new(names)?.signed_by(&own_key, &authority)?;

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let private =
            rustls::pki_types::PrivateKeyDer::try_from(own_key.serialize_der()).map_err(anyhow::Error::msg)?;
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![own.der().clone()], private)?;

        let folder = tempfile::tempdir()?;
        let file = folder.path().join("authority.pem");
        std::fs::write(&file, authority.pem())?;
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("failed to listen")?;
        let address = listener.local_addr()?.to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let (tls, counted, answer) = (Arc::new(tls), connections.clone(), answer.into());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                let (tls, answer) = (tls.clone(), answer.clone());
                // A client that does not trust the server hangs up.
                std::thread::spawn(move || drop(serve(stream, tls, &answer)));
            }
        });
        Ok(Self {
            address,
            authority: file,
            connections,
            _folder: folder,
        })
    }

    /// How many connections were made, trusted or not.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn serve(stream: TcpStream, tls: Arc<rustls::ServerConfig>, answer: &str) -> Result<()> {
    let mut stream = rustls::StreamOwned::new(rustls::ServerConnection::new(tls)?, stream);
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => request.extend_from_slice(&buffer[..read]),
        }
    }
    stream.write_all(answer.as_bytes())?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(())
}
