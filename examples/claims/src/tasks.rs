//! Commands that run once: jobs, cron jobs and the readiness check.

use crate::{Failure, claim::NewClaim, database::Database, settings::Settings};

pub fn migrate(settings: &Settings) -> Result<(), Failure> {
    let (before, after) = Database::open(&settings.database)?.migrate()?;
    println!("the schema was at version {before} and is now at {after}");
    Ok(())
}

pub fn ready(settings: &Settings) -> Result<(), Failure> {
    checked(settings).map(drop)
}

pub fn seed(settings: &Settings) -> Result<(), Failure> {
    let database = checked(settings)?;
    let there = database.count()?;
    if there > 0 {
        println!("there are {there} claims already: nothing was added");
        return Ok(());
    }
    let claims = [
        ("Ada Lovelace", "Train to Leeds", 4250),
        ("Charles Babbage", "Brass, assorted", 98_000),
        ("Grace Hopper", "Nanoseconds, one metre", 1199),
    ];
    for (claimant, purpose, pence) in claims {
        database.submit(&NewClaim {
            claimant: claimant.into(),
            purpose: purpose.into(),
            pence,
        })?;
    }
    println!("added {} claims", claims.len());
    Ok(())
}

pub fn archive_stale(settings: &Settings) -> Result<(), Failure> {
    let days = settings.archive_after_days;
    let archived = checked(settings)?.archive(days)?;
    println!("archived {archived} claims that were decided at least {days} days ago");
    Ok(())
}

pub fn vacuum(settings: &Settings) -> Result<(), Failure> {
    let size = || std::fs::metadata(&settings.database).map(|file| file.len());
    let database = checked(settings)?;
    let before = size()?;
    database.vacuum()?;
    println!("the database had {before} bytes and now has {}", size()?);
    Ok(())
}

fn checked(settings: &Settings) -> Result<Database, Failure> {
    let database = Database::open(&settings.database)?;
    database.check()?;
    Ok(database)
}
