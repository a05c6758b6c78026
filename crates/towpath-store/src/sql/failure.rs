//! What a database error means for the caller.

use crate::StoreError;

/// Sorts failures into temporary and permanent ones.
pub(crate) fn failed(database: &str, error: sqlx::Error) -> StoreError {
    let database = database.to_string();
    let code = error.as_database_error().and_then(|error| error.code());
    let kind = match &error {
        sqlx::Error::Database(from) if from.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() => {
            sqlite_failure(code.as_deref().unwrap_or_default())
        }
        sqlx::Error::Database(_) => postgres_failure(code.as_deref().unwrap_or_default()),
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => Failure::Away,
        _ => Failure::Refused,
    };
    match kind {
        Failure::Full => StoreError::Full(database),
        Failure::Away => StoreError::Unavailable {
            database,
            source: Box::new(error),
        },
        Failure::Damaged => StoreError::Damaged {
            database,
            source: Box::new(error),
        },
        Failure::Refused => StoreError::Database {
            database,
            source: Box::new(error),
        },
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Full,
    Away,
    Damaged,
    Refused,
}

/// Source: <https://www.sqlite.org/rescode.html>; the last byte of a code is its kind.
fn sqlite_failure(code: &str) -> Failure {
    match code.parse::<u32>().map(|code| code & 0xff) {
        // SQLITE_FULL.
        Ok(13) => Failure::Full,
        // SQLITE_BUSY, SQLITE_LOCKED, SQLITE_IOERR, SQLITE_CANTOPEN.
        Ok(5 | 6 | 10 | 14) => Failure::Away,
        // SQLITE_CORRUPT, SQLITE_NOTADB.
        Ok(11 | 26) => Failure::Damaged,
        _ => Failure::Refused,
    }
}

/// Source: <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn postgres_failure(code: &str) -> Failure {
    match code {
        "53100" => Failure::Full,
        // Shut down, crashed or not started yet; a standby that takes no writes.
        "57P01" | "57P02" | "57P03" | "57P05" | "25006" => Failure::Away,
        // A statement or a lock took too long; a conflict of transactions that lasted.
        "57014" | "55P03" | "40001" | "40P01" | "25P03" | "25P04" => Failure::Away,
        // Connection, resource and system errors.
        _ if code.starts_with("08") || code.starts_with("53") || code.starts_with("58") => Failure::Away,
        _ => Failure::Refused,
    }
}

/// Whether PostgreSQL ended a transaction only because of other transactions, so that a retry may succeed.
pub(crate) fn may_be_retried(error: &StoreError) -> bool {
    let StoreError::Unavailable { source, .. } = error else {
        return false;
    };
    let code = source
        .downcast_ref::<sqlx::Error>()
        .and_then(|error| error.as_database_error())
        .and_then(|error| error.code());
    matches!(code.as_deref(), Some("40001" | "40P01"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_sorted_by_whether_they_pass() {
        assert_eq!(sqlite_failure("13"), Failure::Full);
        assert_eq!(sqlite_failure("778"), Failure::Away);
        assert_eq!(sqlite_failure("11"), Failure::Damaged);
        assert_eq!(sqlite_failure("19"), Failure::Refused);
        assert_eq!(postgres_failure("53100"), Failure::Full);
        assert_eq!(postgres_failure("57P03"), Failure::Away);
        assert_eq!(postgres_failure("08006"), Failure::Away);
        assert_eq!(postgres_failure("28P01"), Failure::Refused);
        assert_eq!(postgres_failure("42601"), Failure::Refused);
    }
}
