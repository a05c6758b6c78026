//! The worker: decides submitted claims one after the other.

use crate::{Failure, claim::pounds, database::Database, settings::Settings};
use std::time::Duration;
use tokio::sync::watch;

/// How often an idle worker looks for claims.
const PAUSE: Duration = Duration::from_millis(500);

/// Works until `stop` becomes true, and finishes the current claim first.
pub async fn work(settings: Settings, mut stop: watch::Receiver<bool>) -> Result<(), Failure> {
    let mut database = Database::open(&settings.database)?;
    if settings.migrate_on_start {
        database.migrate()?;
    }
    database.check()?;
    println!("version {} commit {}: working", settings.version, settings.commit);
    let limit = settings.auto_approve_pence;
    while !*stop.borrow() {
        // Move the connection to a thread that may block, and get it back.
        let (back, decided) = tokio::task::spawn_blocking(move || {
            let decided = database.decide_next(limit);
            (database, decided)
        })
        .await?;
        database = back;
        match decided? {
            Some(claim) => println!(
                "claim {} over {} is {}",
                claim.id,
                pounds(claim.pence),
                claim.status.name()
            ),
            None => {
                let _ = tokio::time::timeout(PAUSE, stop.wait_for(|stopped| *stopped)).await;
            }
        }
    }
    println!("stopped");
    Ok(())
}
