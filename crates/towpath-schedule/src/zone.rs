//! Time zones by name.

use jiff::tz::{TimeZone, TimeZoneDatabase};

/// No time zone has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{name}` is not a time zone of the IANA database{}",
    match meant {
        Some(meant) => format!("; did you mean `{meant}`?"),
        None => ", such as `Europe/London` or `UTC`".to_string(),
    }
)]
pub struct ZoneError {
    name: String,
    meant: Option<String>,
}

/// The time zone `name`, such as `Europe/London`. Case matters, as in a file's name on a cluster's machines.
///
/// # Errors
/// When there is none of that name, or it is `Local`, which Kubernetes refuses because it means another zone on each
/// machine.
///
/// Source: <https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#time-zones>
pub fn time_zone(name: &str) -> Result<TimeZone, ZoneError> {
    let unknown = |meant: Option<&str>| ZoneError {
        name: name.chars().take(60).collect(),
        meant: meant.map(str::to_string),
    };
    let zone = TimeZoneDatabase::bundled().get(name).map_err(|_| unknown(None))?;
    match zone.iana_name() {
        Some(known) if known == name && !zone.is_unknown() => Ok(zone),
        known => Err(unknown(
            known.filter(|known| known.eq_ignore_ascii_case(name) && !zone.is_unknown()),
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_as_the_database_writes_them() {
        for name in ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+3"] {
            assert_eq!(time_zone(name).unwrap().iana_name(), Some(name));
        }
        for (name, said) in [
            ("", "is not a time zone of the IANA database, such as `Europe/London`"),
            ("Local", "such as `Europe/London`"),
            ("Mars/Base", "`Mars/Base` is not a time zone"),
            (" UTC", "such as"),
            ("Etc/Unknown", "such as"),
            ("europe/berlin", "did you mean `Europe/Berlin`?"),
            ("utc", "did you mean `UTC`?"),
        ] {
            let error = time_zone(name).unwrap_err().to_string();
            assert!(error.contains(said), "{name}: {error}");
        }
    }
}
