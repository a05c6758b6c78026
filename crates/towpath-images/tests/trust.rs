//! Which certificates a registry client trusts. The environment decides what the machine trusts, so each case runs in a process
//! of its own.
#![allow(clippy::unwrap_used)]

use std::{path::Path, process::Command};
use towpath_images::RegistryClient;
use towpath_testkit::TlsServer;
use towpath_types::{ImageReference, with_causes};

/// The variable that makes a process ask this registry.
const ASK: &str = "TOWPATH_TEST_ASK";
const DIGEST: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

#[tokio::test]
async fn a_process_that_asks() {
    let Ok(registry) = std::env::var(ASK) else { return };
    let image: ImageReference = format!("{registry}/app:1").parse().unwrap();
    let asked = match RegistryClient::new(&registry, None) {
        Ok(client) => client.resolve(&image).await,
        Err(error) => Err(error),
    };
    match asked {
        Ok(digest) => println!("\nfound {}", digest.unwrap()),
        Err(error) => println!("\nrefused {}", with_causes(&error)),
    }
}

/// Asks in a process with only these variables. Returns the answer.
fn ask(registry: &str, variables: &[(&str, &str)]) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["a_process_that_asks", "--exact", "--nocapture"])
        .env_clear()
        .env(ASK, registry)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let said = text
        .lines()
        .find(|line| line.starts_with("found ") || line.starts_with("refused "));
    said.unwrap_or(&text).to_string()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_registry_is_trusted_if_the_machine_or_somebody_trusts_its_authority() {
    let server = TlsServer::start(format!(
        "HTTP/1.1 200 OK\r\ndocker-content-digest: {DIGEST}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    ))
    .unwrap();
    let registry = server.address.as_str();
    let authority = path(&server.authority);
    let found = format!("found {DIGEST}");

    let said = ask(registry, &[]);
    assert!(
        said.starts_with("refused ")
            && said.contains(&format!("`TOWPATH_REGISTRY_CA={registry}=FILE`"))
            && said.contains("UnknownIssuer"),
        "{said}"
    );
    assert_eq!(server.connections(), 1, "asking again does not help");

    assert_eq!(ask(registry, &[("SSL_CERT_FILE", authority)]), found);
    let own = format!("{registry}={authority}");
    assert_eq!(ask(registry, &[("TOWPATH_REGISTRY_CA", &own)]), found);
    let of_another = format!("other:5000={authority}");
    assert!(ask(registry, &[("TOWPATH_REGISTRY_CA", &of_another)]).starts_with("refused "));

    let settings = tempfile::tempdir().unwrap();
    let folder = settings.path().join("docker/certs.d").join(registry);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(&server.authority, folder.join("ca.crt")).unwrap();
    assert_eq!(ask(registry, &[("XDG_CONFIG_HOME", path(settings.path()))]), found);
    std::fs::write(folder.join("old.crt"), "nothing").unwrap();
    let said = ask(registry, &[("XDG_CONFIG_HOME", path(settings.path()))]);
    assert!(said.contains("old.crt`: it has no certificate"), "{said}");
}

#[test]
fn a_store_that_is_named_and_not_there_is_an_error() {
    let said = ask("0.0.0.0:1", &[("SSL_CERT_FILE", "/no/such/file.pem")]);
    assert!(
        said.contains("`SSL_CERT_FILE` names no certificate that can be used") && said.contains("/no/such/file.pem"),
        "{said}"
    );
    let said = ask("0.0.0.0:1", &[("TOWPATH_REGISTRY_CA", "/etc/ssl/company.pem")]);
    assert!(said.contains("`/etc/ssl/company.pem` is not of that form"), "{said}");
}
