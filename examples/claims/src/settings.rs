//! Settings from environment variables.

use crate::Failure;
use std::path::PathBuf;

/// The commit that CI compiled this from. It also makes cargo recompile for each commit, so that a cached build folder never
/// passes for the current commit.
pub const COMMIT: &str = match option_env!("CIRCLE_SHA1") {
    Some(commit) => commit,
    None => "unknown",
};

/// A value that cannot be printed.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

#[derive(Clone)]
pub struct Settings {
    /// The database's file, from `sqlite:///data/claims.db`.
    pub database: PathBuf,
    /// The key that signs receipts. Without it, the API issues none.
    pub session_key: Option<Secret>,
    /// Shown on the page and in `/ping.json`.
    pub greeting: String,
    /// `dev`, `staging`, `production`.
    pub environment: String,
    /// The address that `web` listens on.
    pub listen: String,
    /// Whether `web` and `worker` migrate the database when they start.
    pub migrate_on_start: bool,
    /// `archive-stale` archives claims this many days after their decision.
    pub archive_after_days: u32,
    /// The highest amount that the worker approves by itself.
    pub auto_approve_pence: u64,
    /// The image's version, or else the package's.
    pub version: String,
    /// The image's commit, or else [`COMMIT`].
    pub commit: String,
}

impl Settings {
    pub fn from(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let given = |name: &str| variable(name).filter(|value| !value.is_empty());
        let or = |name: &str, default: &str| given(name).unwrap_or_else(|| default.to_string());
        let url = given("DATABASE_URL").ok_or("DATABASE_URL is not set; it looks like sqlite:///data/claims.db")?;
        // Do not repeat the URL in a message: one day it may contain a password.
        let file = url
            .strip_prefix("sqlite://")
            .filter(|file| !file.is_empty())
            .ok_or("DATABASE_URL does not begin with sqlite:// and a path")?;
        Ok(Self {
            database: file.into(),
            session_key: given("SESSION_KEY").map(Secret),
            greeting: or("GREETING", "Welcome to claims"),
            environment: or("ENVIRONMENT", "local"),
            listen: or("LISTEN", "0.0.0.0:3000"),
            migrate_on_start: match or("MIGRATE_ON_START", "false").as_str() {
                "true" => true,
                "false" => false,
                other => return Err(format!("MIGRATE_ON_START is `{other}`; it has to be true or false").into()),
            },
            archive_after_days: number("ARCHIVE_AFTER_DAYS", &or("ARCHIVE_AFTER_DAYS", "90"))?,
            auto_approve_pence: number("AUTO_APPROVE_PENCE", &or("AUTO_APPROVE_PENCE", "10000"))?,
            version: or("VERSION", env!("CARGO_PKG_VERSION")),
            commit: or("COMMIT", COMMIT),
        })
    }
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, Failure> {
    text.parse()
        .map_err(|_| format!("{name} is `{text}`; it has to be a whole number").into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, String> {
        let find = |name: &str| {
            variables
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| value.to_string())
        };
        Settings::from(find).map_err(|failure| failure.to_string())
    }

    #[test]
    fn the_database_url_names_a_file() {
        let check = |url: &str, expect: Option<&str>| {
            let found = settings(&[("DATABASE_URL", url)])
                .ok()
                .map(|settings| settings.database);
            assert_eq!(found.as_deref(), expect.map(std::path::Path::new), "{url}");
        };
        check("sqlite:///data/claims.db", Some("/data/claims.db"));
        check("sqlite://claims.db", Some("claims.db"));
        check("sqlite://", None);
        check("postgres://claims:hunter2@db/claims", None);
        check("", None);
    }

    #[test]
    fn a_refused_url_is_not_repeated() {
        let message = settings(&[("DATABASE_URL", "postgres://claims:hunter2@db/claims")])
            .err()
            .unwrap();
        assert!(!message.contains("hunter2"), "{message}");
    }

    #[test]
    fn missing_settings_have_defaults_and_wrong_ones_are_refused() {
        let url = ("DATABASE_URL", "sqlite://claims.db");
        let defaults = settings(&[url, ("GREETING", "")]).unwrap();
        assert_eq!(
            (defaults.greeting.as_str(), defaults.migrate_on_start),
            ("Welcome to claims", false)
        );
        assert!(defaults.session_key.is_none());
        assert!(settings(&[url, ("MIGRATE_ON_START", "true")]).unwrap().migrate_on_start);
        let message = settings(&[url, ("MIGRATE_ON_START", "yes")]).err().unwrap();
        assert_eq!(message, "MIGRATE_ON_START is `yes`; it has to be true or false");
        let message = settings(&[url, ("ARCHIVE_AFTER_DAYS", "soon")]).err().unwrap();
        assert_eq!(message, "ARCHIVE_AFTER_DAYS is `soon`; it has to be a whole number");
    }
}
