//! Reads the credentials that docker keeps on this machine.

use docker_credential::{CredentialRetrievalError, DockerCredential};
use std::path::PathBuf;
use towpath_types::{RegistryCredentials, SecretString};

/// The name under which docker keeps the credentials of its own registry.
///
/// Source: <https://docs.docker.com/reference/cli/docker/login/>
const DOCKERS_OWN: &str = "https://index.docker.io/v1/";
/// The answer of a helper that has no credentials.
///
/// Source: <https://github.com/docker/docker-credential-helpers> (`credentials.NewErrCredentialsNotFound`)
const NOT_FOUND: &str = "credentials not found";

/// Why the credentials that docker keeps for a registry cannot be used. Holds no value.
#[derive(Debug, thiserror::Error)]
#[error("docker's credentials for the registry `{registry}` cannot be used: {why}")]
pub struct CredentialsError {
    registry: String,
    why: String,
}

/// The credentials on this machine for `registry` (`ghcr.io`), from `docker login` or from a credential helper such as Amazon's
/// `ecr-login`; `None` if there are none.
///
/// # Errors
/// When docker's `config.json` cannot be read, or the helper that it names does not answer.
pub async fn docker_credentials(registry: &str) -> Result<Option<RegistryCredentials>, CredentialsError> {
    let of = registry.to_string();
    let asked = tokio::task::spawn_blocking(move || ask_docker(&of)).await;
    let why = match asked {
        Ok(Ok(found)) => return Ok(found),
        Ok(Err(why)) => why,
        Err(error) => error.to_string(),
    };
    Err(CredentialsError {
        registry: registry.to_string(),
        why,
    })
}

/// Docker's `config.json`.
fn config_file() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let folder = variable("DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".docker")))?;
    Some(folder.join("config.json"))
}

fn ask_docker(registry: &str) -> Result<Option<RegistryCredentials>, String> {
    let Some(path) = config_file() else { return Ok(None) };
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("failed to read `{}`: {error}", path.display())),
    };
    let server = if registry == "docker.io" { DOCKERS_OWN } else { registry };
    match docker_credential::get_credential_from_reader(std::io::BufReader::new(file), server) {
        Ok(DockerCredential::UsernamePassword(username, password)) => Ok(Some(RegistryCredentials {
            username,
            password: SecretString::new(password),
        })),
        Ok(DockerCredential::IdentityToken(_)) => Err(format!(
            "`{}` has an identity token, and Towpath needs a user name and a password or token: sign in with `docker login \
             --username`",
            path.display()
        )),
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(None),
        Err(CredentialRetrievalError::HelperFailure { stdout, .. }) if stdout.contains(NOT_FOUND) => Ok(None),
        // A helper's output may contain anything, even a password. Show only its standard error.
        Err(CredentialRetrievalError::HelperFailure { helper, stderr, .. }) => {
            Err(format!("`{helper} get` failed. {}", stderr.trim()))
        }
        Err(CredentialRetrievalError::HelperCommunicationError) => Err(format!(
            "the credential helper that `{}` names does not run, or ended before it read what it was asked: is \
             `docker-credential-<its name>` installed, and does it answer `get`?",
            path.display()
        )),
        Err(error) => Err(format!("`{}`: {error}", path.display())),
    }
}
