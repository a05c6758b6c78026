//! Whose certificates the client of a cluster trusts. What the machine trusts is read from the environment, so each case is a process of
//! its own.
#![allow(clippy::unwrap_used)]

use std::{path::Path, process::Command, time::Duration};
use towpath_kube::{Identity, Patience};
use towpath_testkit::TlsServer;
use towpath_types::{SecretString, with_causes};

/// The variable that makes a process ask this server.
const ASK: &str = "TOWPATH_TEST_ASK";

#[tokio::test]
async fn a_process_that_asks() {
    let Ok(server) = std::env::var(ASK) else { return };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let identity = Identity::Token {
        server,
        certificate_authority: None,
        token: SecretString::new("t".into()),
    };
    let patience = Patience {
        request: Duration::from_secs(10),
        retries: Duration::ZERO,
    };
    let client = match identity.connect("live", patience).await {
        Ok(client) => client,
        Err(error) => return println!("\nrefused {}", with_causes(&error)),
    };
    match client.get("/version").await {
        Ok(version) => println!("\nfound {version}"),
        Err(error) => println!("\nrefused {}", with_causes(&error)),
    }
}

/// What a process with only these variables is told.
fn ask(server: &str, variables: &[(&str, &Path)]) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["a_process_that_asks", "--exact", "--nocapture"])
        .env_clear()
        .env(ASK, server)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let said = text
        .lines()
        .find(|line| line.starts_with("found ") || line.starts_with("refused "));
    said.unwrap_or(&text).to_string()
}

#[test]
fn a_cluster_without_an_authority_of_its_own_is_trusted_as_the_machine_trusts_it() {
    let body = r#"{"major":"1"}"#;
    let server = TlsServer::start(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    ))
    .unwrap();
    let url = format!("https://{}", server.address);
    let said = ask(&url, &[]);
    assert!(said.starts_with("refused ") && said.contains("UnknownIssuer"), "{said}");
    let said = ask(&url, &[("SSL_CERT_FILE", &server.authority)]);
    assert_eq!(said, format!("found {body}"));
    let said = ask(&url, &[("SSL_CERT_FILE", Path::new("/no/such/file.pem"))]);
    assert!(said.contains("`SSL_CERT_FILE` names no certificate"), "{said}");
}
