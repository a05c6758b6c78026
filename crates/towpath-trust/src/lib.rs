//! Whose certificates this process trusts: those that the machine trusts.
//!
//! Every client with TLS takes its configuration from here, so that a company's own authority, added to the machine once, is
//! enough for registries, orbs, clusters and object stores alike. The machine's store is where OpenSSL looks for it;
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` name another. A machine without a store (an image `FROM scratch`) gets Mozilla's authorities,
//! which are built in.
//!
//! Source: <https://docs.openssl.org/3.5/man7/openssl-env/>

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// The environment variables that name another store than the machine's.
const NAMED_BY: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Why it is not known whom to trust.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// An environment variable names a store that has no certificate.
    #[error(
        "{variables} names no certificate that can be used{}: correct it, or unset it to use the machine's own",
        because(why)
    )]
    Store {
        /// The variables that are set.
        variables: String,
        /// Why nothing could be read; may be empty.
        why: String,
    },
    /// A file with certificates is of no use.
    #[error("cannot use the certificates in `{}`: {why}", file.display())]
    File {
        #[allow(missing_docs)]
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// TLS cannot be set up.
    #[error("failed to set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}

fn because(why: &str) -> String {
    match why.is_empty() {
        true => String::new(),
        false => format!(" ({why})"),
    }
}

/// The certificate authorities that this machine trusts. Reads files.
///
/// # Errors
/// [`TrustError::Store`] when `SSL_CERT_FILE` or `SSL_CERT_DIR` is set, and there is no certificate where it points.
pub fn authorities() -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let set = NAMED_BY.into_iter().filter(|name| std::env::var_os(name).is_some());
    let found = rustls_native_certs::load_native_certs();
    let problems = found.errors.iter().map(ToString::to_string).collect();
    chosen(&set.collect::<Vec<_>>(), found.certs, problems)
}

/// The usable ones of the certificates that were `found`, or the built-in ones where nobody named a store and there is none.
fn chosen(
    set: &[&str],
    found: Vec<CertificateDer<'static>>,
    problems: Vec<String>,
) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    // Stores hold old certificates that no library reads any more. They are left out, as elsewhere.
    let usable: Vec<_> = found.into_iter().filter(is_usable).collect();
    if !usable.is_empty() {
        for problem in problems {
            tracing::warn!("a part of the certificate store was not read: {problem}");
        }
        return Ok(usable);
    }
    match set {
        [] => Ok(webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec()),
        set => Err(TrustError::Store {
            variables: set
                .iter()
                .map(|name| format!("`{name}`"))
                .collect::<Vec<_>>()
                .join(" or "),
            why: problems.join("; "),
        }),
    }
}

fn is_usable(certificate: &CertificateDer<'static>) -> bool {
    RootCertStore::empty().add(certificate.clone()).is_ok()
}

/// The certificates in a PEM file.
///
/// # Errors
/// [`TrustError::File`] when it cannot be read, holds no certificate, or one that is none.
pub fn certificates_in(file: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let wrong = |why: String| TrustError::File {
        file: file.to_path_buf(),
        why,
    };
    let text = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| wrong(format!("it is not PEM ({error})")))?;
    match found.is_empty() || !found.iter().all(is_usable) {
        true => Err(wrong(
            "it has no certificate, or one that cannot be read, between `-----BEGIN CERTIFICATE-----` lines".into(),
        )),
        false => Ok(found),
    }
}

/// The configuration of a client that trusts what the machine trusts, and the authorities in `more`.
///
/// # Errors
/// As [`authorities`] has them.
pub fn tls(more: Vec<CertificateDer<'static>>) -> Result<ClientConfig, TrustError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities()?.into_iter().chain(more) {
        roots.add(authority)?;
    }
    config(roots)
}

/// The configuration of a client that speaks without TLS only: over a Unix socket, or on this machine. It needs no certificate, and
/// trusts none.
///
/// # Errors
/// [`TrustError::Setup`], which does not happen with the provider that is built in.
pub fn without_tls() -> Result<ClientConfig, TrustError> {
    config(RootCertStore::empty())
}

fn config(roots: RootCertStore) -> Result<ClientConfig, TrustError> {
    // The provider is named here, so that it does not matter which one the process installed, if any.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// Whether a connection failed because the server's certificate is of an authority that is not trusted. `words` are the error's, with
/// its causes.
#[must_use]
pub fn is_distrust(words: &str) -> bool {
    words.contains("UnknownIssuer")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use base64::Engine as _;

    fn some_authority() -> CertificateDer<'static> {
        webpki_root_certs::TLS_SERVER_ROOT_CERTS[3].clone()
    }

    #[test]
    fn the_machines_store_comes_before_the_built_in_one() {
        let broken = CertificateDer::from(vec![1, 2, 3]);
        let trusted = chosen(&[], vec![broken.clone(), some_authority()], vec![]).unwrap();
        assert_eq!(trusted, [some_authority()]);
        let trusted = chosen(&["SSL_CERT_FILE"], vec![some_authority()], vec!["x".into()]).unwrap();
        assert_eq!(trusted, [some_authority()]);
        assert!(chosen(&[], vec![broken.clone()], vec![]).unwrap().len() > 50);
        let error = chosen(
            &["SSL_CERT_FILE", "SSL_CERT_DIR"],
            vec![broken],
            vec!["no such file".into()],
        );
        assert_eq!(
            error.unwrap_err().to_string(),
            "`SSL_CERT_FILE` or `SSL_CERT_DIR` names no certificate that can be used (no such file): correct it, or unset it to \
             use the machine's own"
        );
    }

    #[test]
    fn a_file_has_certificates_or_is_named_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let said = || certificates_in(&file).unwrap_err().to_string();
        assert!(said().contains("No such file"), "{}", said());
        let pem = |bytes: &[u8]| {
            let text = base64::engine::general_purpose::STANDARD.encode(bytes);
            format!("words before\n-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
        };
        std::fs::write(&file, pem(&some_authority()) + &pem(&some_authority())).unwrap();
        assert_eq!(certificates_in(&file).unwrap().len(), 2);
        for text in [
            "",
            "-----BEGIN PRIVATE KEY-----\nAQID\n-----END PRIVATE KEY-----\n",
            &pem(b"no certificate"),
        ] {
            std::fs::write(&file, text).unwrap();
            assert!(said().contains("ca.pem`: it has no certificate"), "{}", said());
        }
        std::fs::write(&file, "-----BEGIN CERTIFICATE-----\n***\n-----END CERTIFICATE-----\n").unwrap();
        assert!(said().contains("it is not PEM"), "{}", said());
    }

    #[test]
    fn a_client_without_tls_needs_no_certificate() {
        without_tls().unwrap();
    }
}
