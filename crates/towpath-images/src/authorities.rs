//! The certificate authorities of a registry, in addition to those that the machine trusts.
//!
//! Docker's folders count, as its credentials do: a machine whose docker can use a private registry needs no other settings.
//!
//! Source: <https://docs.docker.com/engine/security/certificates/>

use std::path::{Path, PathBuf};
use towpath_trust::TrustError;

/// The environment variable that names files of authorities for single registries:
/// `registry.example.com:5000=/etc/ssl/company.pem`, separated by commas.
pub const AUTHORITIES_VARIABLE: &str = "TOWPATH_REGISTRY_CA";

/// Why the authorities of a registry could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthoritiesError {
    #[error(
        "`{AUTHORITIES_VARIABLE}` has to be a list such as `registry.example.com=/etc/ssl/company.pem,other:5000=/etc/ssl/other.pem`, and \
         `{0}` is not of that form"
    )]
    Form(String),
    #[error("failed to read the folder `{}`: {why}", folder.display())]
    Folder { folder: PathBuf, why: std::io::Error },
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// The TLS configuration of a client of `registry`.
pub(crate) fn tls(registry: &str) -> Result<rustls::ClientConfig, AuthoritiesError> {
    let listed = std::env::var_os(AUTHORITIES_VARIABLE).unwrap_or_default();
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let own = variable("XDG_CONFIG_HOME").map(PathBuf::from);
    let own = own.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".config")));
    let folders: Vec<PathBuf> = [Some(PathBuf::from("/etc")), own]
        .into_iter()
        .flatten()
        .map(|folder| folder.join("docker/certs.d"))
        .collect();
    let mut authorities = Vec::new();
    for file in files(registry, &listed.to_string_lossy(), &folders)? {
        authorities.extend(towpath_trust::certificates_in(&file)?);
    }
    Ok(towpath_trust::tls(authorities)?)
}

/// The files with authorities for `registry`: those that `listed` names for it, and those in its folder below one of `folders`.
fn files(registry: &str, listed: &str, folders: &[PathBuf]) -> Result<Vec<PathBuf>, AuthoritiesError> {
    let mut files = Vec::new();
    for entry in listed.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        match entry.split_once('=') {
            Some((of, file)) if !of.is_empty() && !file.is_empty() => {
                files.extend((of == registry).then(|| PathBuf::from(file)));
            }
            _ => return Err(AuthoritiesError::Form(entry.to_string())),
        }
    }
    for folder in folders {
        // A host begins neither with a dot nor with a slash.
        let is_name = !registry.starts_with('.') && !registry.contains('/');
        if is_name {
            files.extend(authorities_in(&folder.join(registry))?);
        }
    }
    Ok(files)
}

/// Docker's rule: `*.crt` are authorities.
fn authorities_in(folder: &Path) -> Result<Vec<PathBuf>, AuthoritiesError> {
    let failed = |why| AuthoritiesError::Folder {
        folder: folder.to_path_buf(),
        why,
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        files.extend(path.extension().is_some_and(|end| end == "crt").then_some(path.clone()));
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_registrys_authorities_are_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("certs.d");
        let of = folder.join("r.example.com:5000");
        std::fs::create_dir_all(&of).unwrap();
        for name in ["b.crt", "a.crt", "client.cert", "client.key"] {
            std::fs::write(of.join(name), "").unwrap();
        }
        let folders = [folder, dir.path().join("none")];
        let listed = " r.example.com=/one.pem, other=/two.pem,r.example.com:5000=/three.pem,";
        let files = |registry: &str, listed: &str| files(registry, listed, &folders);
        assert_eq!(files("r.example.com", listed).unwrap(), [PathBuf::from("/one.pem")]);
        assert_eq!(
            files("r.example.com:5000", listed).unwrap(),
            [PathBuf::from("/three.pem"), of.join("a.crt"), of.join("b.crt")]
        );
        assert_eq!(files("docker.io", listed).unwrap(), Vec::<PathBuf>::new());
        assert_eq!(files("..", "").unwrap(), Vec::<PathBuf>::new());
        for wrong in ["/one.pem", "=x", "r="] {
            let error = files("r", wrong).unwrap_err().to_string();
            assert!(error.contains(&format!("`{wrong}` is not of that form")), "{error}");
        }
    }
}
