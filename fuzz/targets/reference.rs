//! An orb reference, and a lock file.

#![no_main]

use towpath_orbs::{Lock, OrbReference};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(reference) = text.parse::<OrbReference>() {
        let printed = reference.to_string();
        let again: OrbReference = printed.parse().expect("a printed reference can be parsed");
        assert_eq!(printed, again.to_string());
    }
    if let Ok(lock) = Lock::parse(text) {
        let printed = lock.to_string();
        let again = Lock::parse(&printed).expect("a printed lock file can be parsed");
        assert_eq!(printed, again.to_string());
    }
});
