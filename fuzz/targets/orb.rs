//! An orb and a configuration that uses it, separated by a line `---8<---`.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Some((orb, config)) = text.split_once("---8<---\n") {
        towpath_fuzz::holds(config, Some(orb));
    } else {
        // Only an orb.
        towpath_fuzz::holds(
            "version: 2.1\norbs: {o: a/o@1.0.0}\nworkflows: {w: {jobs: [o/j]}}\n",
            Some(text),
        );
    }
});
