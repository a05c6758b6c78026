//! A folder to pack. A line `=== path` starts a file.

#![no_main]

use std::collections::BTreeMap;
use towpath_config::{PackKind, pack};
use towpath_yaml::{ParseOptions, SourceFile, parse, render_all};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let mut files = BTreeMap::new();
    for part in text.split("=== ") {
        if let Some((path, text)) = part.split_once('\n') {
            files.insert(path.to_owned(), text.to_owned());
        }
    }
    let include = |name: &str| files.get(name).cloned().ok_or_else(|| "which is not there".to_owned());
    for kind in [PackKind::Config, PackKind::Orb] {
        match pack(&files, kind, &include) {
            Ok(packed) => {
                let (_, diagnostics) = parse(
                    &SourceFile::new("packed.yml", packed.as_str()),
                    &ParseOptions::default(),
                );
                let errors: Vec<_> = diagnostics.iter().filter(|found| found.is_error()).collect();
                assert!(
                    errors.is_empty(),
                    "the packed document cannot be parsed: {errors:?}\n{packed}"
                );
            }
            Err(errors) => {
                assert!(!errors.is_empty());
                render_all(&errors, false);
            }
        }
    }
});
