//! The schema, and the name that a store gets when it is created.

use super::{database::Transaction, failure::failed, query::Query};
use crate::StoreError;
use sqlx::{
    Connection,
    migrate::{Migrate, MigrateError, Migrator},
};

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

/// A store's own facts.
pub(crate) struct Identity {
    pub(crate) name: String,
    /// Whether this call assigned the name.
    pub(crate) is_new: bool,
}

/// Brings SQLite's schema up to date.
pub(crate) async fn sqlite(connection: &mut sqlx::SqliteConnection, database: &str) -> Result<(), StoreError> {
    up_to_date(&SQLITE, connection, database).await
}

/// Brings PostgreSQL's schema up to date. Servers that start at once take turns: the library holds an advisory lock,
/// which ends with the connection at the latest.
pub(crate) async fn postgres(connection: &mut sqlx::PgConnection, database: &str) -> Result<(), StoreError> {
    up_to_date(&POSTGRES, connection, database).await
}

async fn up_to_date<C>(migrator: &Migrator, connection: &mut C, database: &str) -> Result<(), StoreError>
where
    C: Connection + Migrate,
{
    match migrator.run_direct(None, connection, false).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(_)) => {
            let applied = connection.list_applied_migrations("_sqlx_migrations").await;
            let applied = applied.map_err(|error| refused(database, error))?;
            Err(StoreError::TooNew {
                database: database.to_string(),
                found: applied.iter().map(|migration| migration.version).max().unwrap_or(0),
                known: migrator.iter().map(|migration| migration.version).max().unwrap_or(0),
            })
        }
        Err(error) => Err(refused(database, error)),
    }
}

fn refused(database: &str, error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => failed(database, source),
        other => StoreError::Database {
            database: database.to_string(),
            source: Box::new(other),
        },
    }
}

/// Reads the store's name, or gives it one.
pub(crate) async fn identify(to: &mut Transaction<'_>) -> Result<Identity, StoreError> {
    let name = uuid::Uuid::new_v4().simple().to_string()[..12].to_string();
    let query = Query::new("INSERT INTO meta (name, value) VALUES ('instance', ")
        .value(&name)
        .sql(") ON CONFLICT DO NOTHING");
    let is_new = to.execute(query).await? == 1;
    let query = Query::new("SELECT value FROM meta WHERE name = 'instance'");
    match to.rows("meta", query).await?.first() {
        Some(row) => Ok(Identity {
            name: row.get("value")?,
            is_new,
        }),
        None => Err(StoreError::Unreadable {
            what: "the store's name".into(),
            why: "it is missing".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeMap;

    /// Tables with the names of their columns, from `CREATE TABLE` statements of one column a line.
    fn tables(migrator: &Migrator) -> BTreeMap<String, Vec<String>> {
        let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for migration in migrator.iter() {
            let mut table = None;
            for line in migration.sql.as_str().lines() {
                let mut words = line.split_whitespace();
                match (words.next(), line.strip_prefix("CREATE TABLE ")) {
                    (_, Some(rest)) => table = Some(rest.trim_end_matches(" (").to_string()),
                    (Some("UNIQUE" | "PRIMARY"), _) => {}
                    (Some(column), _) if line.starts_with("    ") => {
                        if let Some(table) = &table {
                            tables.entry(table.clone()).or_default().push(column.to_string());
                        }
                    }
                    _ => table = None,
                }
            }
        }
        tables
    }

    #[test]
    fn both_databases_have_the_same_tables_and_columns() {
        let (sqlite, postgres) = (tables(&SQLITE), tables(&POSTGRES));
        assert!(sqlite.len() > 25, "{:?}", sqlite.keys());
        assert_eq!(sqlite, postgres);
        assert_eq!(
            SQLITE.iter().map(|migration| migration.version).collect::<Vec<_>>(),
            POSTGRES.iter().map(|migration| migration.version).collect::<Vec<_>>()
        );
    }

    #[test]
    fn the_page_about_storage_lists_every_column() {
        let page = include_str!("../../../../docs/STORAGE.md");
        for (table, columns) in tables(&SQLITE) {
            let row = page.lines().find(|line| line.starts_with(&format!("| `{table}` |")));
            let row = row.unwrap_or_else(|| panic!("docs/STORAGE.md does not list `{table}`"));
            for column in columns {
                assert!(
                    row.contains(&format!("`{column}`")),
                    "docs/STORAGE.md does not list `{table}.{column}`"
                );
            }
        }
    }
}
