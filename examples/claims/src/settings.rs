//! What the environment says.

use crate::Failure;
use std::path::PathBuf;

/// The commit that this was compiled from, when CI did it. It also makes cargo compile anew for each commit, so that a
/// cached build folder can never stand in for the commit at hand.
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
    /// What receipts are signed with; without it the API gives none out.
    pub session_key: Option<Secret>,
    /// Shown on the page and in `/ping.json`.
    pub greeting: String,
    /// `dev`, `staging`, `production`.
    pub environment: String,
    /// Where `web` listens.
    pub listen: String,
    /// Whether `web` and `worker` migrate the database themselves when they start.
    pub migrate_on_start: bool,
    /// After how many days `archive-stale` archives a decided claim.
    pub archive_after_days: u32,
    /// Up to how much the worker approves without a person.
    pub auto_approve_pence: u64,
    /// The image says it; else the package's own.
    pub version: String,
    /// The image says it; else [`COMMIT`].
    pub commit: String,
}

impl Settings {
    pub fn from(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let given = |name: &str| variable(name).filter(|value| !value.is_empty());
        let or = |name: &str, default: &str| given(name).unwrap_or_else(|| default.to_string());
        let url = given("DATABASE_URL").ok_or("DATABASE_URL is not set; it looks like sqlite:///data/claims.db")?;
        // The URL may hold a password some day, so it is not repeated.
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
                other => return Err(format!("MIGRATE_ON_START is `{other}`; it is either true or false").into()),
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
        .map_err(|_| format!("{name} is `{text}`; it is a whole number").into())
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
    fn what_is_not_said_has_a_default_and_what_is_wrong_is_refused() {
        let url = ("DATABASE_URL", "sqlite://claims.db");
        let defaults = settings(&[url, ("GREETING", "")]).unwrap();
        assert_eq!(
            (defaults.greeting.as_str(), defaults.migrate_on_start),
            ("Welcome to claims", false)
        );
        assert!(defaults.session_key.is_none());
        assert!(settings(&[url, ("MIGRATE_ON_START", "true")]).unwrap().migrate_on_start);
        let message = settings(&[url, ("MIGRATE_ON_START", "yes")]).err().unwrap();
        assert_eq!(message, "MIGRATE_ON_START is `yes`; it is either true or false");
        let message = settings(&[url, ("ARCHIVE_AFTER_DAYS", "soon")]).err().unwrap();
        assert_eq!(message, "ARCHIVE_AFTER_DAYS is `soon`; it is a whole number");
    }
}
