//! Who somebody is at a registry.

use crate::SecretString;

/// A user name and a password, or a token in its place, for one registry. `Debug` shows no password.
///
/// Passwords that a registry hands out may last for hours only (Amazon's: twelve). Fetch new credentials instead of keeping
/// these.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct RegistryCredentials {
    /// `AWS` at Amazon's registry.
    pub username: String,
    pub password: SecretString,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_password() {
        let credentials = RegistryCredentials {
            username: "pusher".into(),
            password: SecretString::new("hunter2".into()),
        };
        let shown = format!("{credentials:?}");
        assert!(shown.contains("pusher") && !shown.contains("hunter2"), "{shown}");
    }
}
