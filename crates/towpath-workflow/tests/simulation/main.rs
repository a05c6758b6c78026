//! Random histories of both state machines in a world where everything goes wrong.
//!
//! Each history has a seed. It begins in chaos: power cuts that drop all memory between any two steps, stores that fail
//! or whose acknowledgement is lost, messages that are doubled, lost, late and out of order, clocks that jump, servers
//! that die or are wrongly taken for dead, people who press every button. Then the world turns fair, and the history has
//! to end. The rules hold at every step of it.
//!
//! `TOWPATH_HISTORIES=1000000` simulates that many; `TOWPATH_SEED=17` repeats one.

#![allow(clippy::unwrap_used)]

mod random;
mod release;
mod workflow;

use std::{fmt::Debug, ops::AddAssign};

/// Simulates histories until one fails or all have ended; prints what happened in them.
fn simulate<Seen: Default + Debug + AddAssign>(what: &str, history: fn(u64) -> Seen) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("TOWPATH_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TOWPATH_HISTORIES").unwrap_or(100_000),
    };
    let count = seeds.end - seeds.start;
    let mut seen = Seen::default();
    for seed in seeds {
        match std::panic::catch_unwind(|| history(seed)) {
            Ok(one) => seen += one,
            Err(panic) => {
                eprintln!("{what}: the history with seed {seed} went wrong: TOWPATH_SEED={seed} repeats it");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{what}: {count} histories; {seen:?}");
}
