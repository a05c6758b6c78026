//! An expression, and the same text as a template.

#![no_main]

const FRAME: &str = "version: 2.1
parameters: {on: {type: boolean, default: true}, n: {type: integer, default: 3}, s: {type: string, default: text}}
jobs: {j: {docker: [{image: a}], steps: [run: @]}}
workflows: {w: {when: @, jobs: [j]}}
";

libfuzzer_sys::fuzz_target!(|text: &str| {
    // A JSON string is a YAML string, too.
    let quoted = serde_json::Value::from(text).to_string();
    towpath_fuzz::holds(&FRAME.replace('@', &quoted), None);
});
