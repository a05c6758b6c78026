//! What a registry is told about who asks.

use bollard::auth::DockerCredentials;
use std::fmt;
use towpath_types::SecretString;

/// A user name and a password (or token) of one registry.
///
/// Amazon's registry hands out a password that lasts twelve hours: whoever fetches it makes new credentials, and with
/// them a new client.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name; `AWS` for Amazon's registry.
    pub username: String,
    /// The password or token.
    pub password: SecretString,
}

impl Credentials {
    /// As the engine takes them, which speaks to the registry for us.
    pub(crate) fn for_engine(&self, registry: &str) -> DockerCredentials {
        DockerCredentials {
            username: Some(self.username.clone()),
            password: Some(self.password.expose().to_string()),
            serveraddress: Some(registry.to_string()),
            ..DockerCredentials::default()
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}
