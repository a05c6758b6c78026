//! The JSON Schema of the language.

/// The JSON Schema (draft 7) of the language, for editors. It describes the shape of a file, not what names refer to.
pub const SCHEMA: &str = include_str!("schema.json");

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::keys;

    #[test]
    fn the_schema_has_the_keys_that_the_compiler_reads() {
        let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
        let check = |pointer: &str, known: &[&[&str]]| {
            let object = schema.pointer(pointer).and_then(|keys| keys.as_object()).unwrap();
            let mut keys: Vec<&str> = object.keys().map(String::as_str).collect();
            keys.sort_unstable();
            let mut known = known.concat();
            known.sort_unstable();
            assert_eq!(keys, known, "{pointer}");
        };
        check("/properties", &[keys::CONFIG]);
        check("/definitions/orb/anyOf/1/properties", &[keys::ORB]);
        // The schema has one list for all types of jobs.
        check("/definitions/job/anyOf/1/properties", &[keys::JOB, &["validation"]]);
        check("/definitions/executor/anyOf/1/properties", &[keys::EXECUTOR]);
        check(
            "/definitions/builtinStep/properties",
            &[keys::BUILTIN_STEPS, keys::CONTROL_STEPS],
        );
        check("/definitions/invocation/properties", &[keys::INVOCATION]);
    }
}
