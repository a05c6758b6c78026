//! A real process that is killed while it writes.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use towpath_secrets::{Scope, SealedStore};
use towpath_types::SecretBytes;

const FOLDER: &str = "TOWPATH_TEST_SEALED_STORE";

fn scope() -> Scope {
    Scope::secret("claims", "dev", "app")
}

/// Not a test of its own: the process that is killed runs it, with a folder in its environment.
#[test]
fn writes_until_it_is_killed() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let store = SealedStore::open(folder.as_ref()).unwrap();
    for round in 0_u64.. {
        for key in ["A", "B"] {
            // Use long values, so that writes take a while.
            let value = SecretBytes::new(format!("{round} {}", "x".repeat(50_000)).into_bytes());
            store.set(&scope(), key, &value, "ada").unwrap();
        }
        println!("round {round} is written");
    }
}

#[test]
fn a_killed_writer_leaves_whole_values() {
    let folder = tempfile::tempdir().unwrap();
    for kill in 1..=12 {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writes_until_it_is_killed", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(writer.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        // Kill it at a different moment each time, always in the middle of a later round.
        let last = lines
            .by_ref()
            .filter(|line| line.ends_with("is written"))
            .nth(kill % 4)
            .unwrap();
        writer.kill().unwrap();
        writer.wait().unwrap();
        let acknowledged: u64 = last.split_whitespace().find_map(|word| word.parse().ok()).unwrap();

        let store = SealedStore::open(folder.path()).unwrap();
        let values = store
            .reveal(&scope())
            .unwrap_or_else(|error| panic!("kill {kill}: {error}"));
        for key in ["A", "B"] {
            let value = values[key].to_variable().unwrap();
            let (round, rest) = value.expose().split_once(' ').unwrap();
            assert!(
                round.parse::<u64>().unwrap() >= acknowledged,
                "kill {kill}: {key} lost round {acknowledged}"
            );
            assert!(rest.len() == 50_000, "kill {kill}: {key} is not whole");
        }
        // The kernel released the dead process's lock.
        store
            .set(&scope(), "C", &SecretBytes::new(b"after".to_vec()), "grace")
            .unwrap();
    }
}
