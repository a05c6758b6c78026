//! A configuration.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| towpath_fuzz::holds(text, None));
