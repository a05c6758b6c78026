//! Random histories of both state machines in a world with every kind of fault.
//!
//! Each history has a seed. It begins in chaos: power cuts drop all memory between any two steps; commits fail or their
//! acknowledgements get lost; messages are duplicated, lost, late and out of order; clocks jump; servers die or wrongly
//! count as dead; people press every button. Then the faults stop, and the history has to end. The rules must hold at
//! every step.
//!
//! `TOWPATH_HISTORIES=1000000` simulates that many; `TOWPATH_SEED=17` repeats one.

#![allow(clippy::unwrap_used)]

mod random;
mod release;
mod workflow;

use std::{fmt::Debug, ops::AddAssign};

/// Simulates histories until one fails or all have ended; prints statistics.
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
