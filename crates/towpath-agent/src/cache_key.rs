//! Templates in cache keys: the part of Go's templates that CircleCI documents.
//!
//! Source: <https://circleci.com/docs/guides/optimize/caching/#using-keys-and-templates>

use crate::{step::StepError, surroundings::Surroundings};
use base64::Engine as _;
use sha2::{Digest, Sha256};
use std::{fs::File, io, path::Path};
use towpath_protocol::JobSpec;

/// The most characters that a key may have.
const LONGEST_KEY: usize = 900;

/// Evaluates `template`.
pub(crate) fn key(template: &str, spec: &JobSpec, surroundings: &Surroundings) -> Result<String, StepError> {
    let failed = |why: String| StepError::Failed(format!("error computing cache key: template: cacheKey: {why}"));
    let mut key = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        key.push_str(before);
        let (action, tail) = after.split_once("}}").ok_or_else(|| failed("unclosed action".into()))?;
        let action = action.trim().trim_start_matches('-').trim_end_matches('-').trim();
        key.push_str(&value(action, spec, surroundings).map_err(failed)?);
        rest = tail;
    }
    key.push_str(rest);
    if key.chars().count() > LONGEST_KEY {
        return Err(failed(format!("the key is longer than {LONGEST_KEY} characters")));
    }
    Ok(key)
}

fn value(action: &str, spec: &JobSpec, surroundings: &Surroundings) -> Result<String, String> {
    let values = &spec.cache_key_values;
    match action {
        ".Branch" => return Ok(values.branch.clone()),
        ".BuildNum" => return Ok(values.build_number.clone()),
        ".Revision" => return Ok(values.revision.clone()),
        "arch" => return Ok(arch()),
        "epoch" => return Ok(jiff::Timestamp::now().as_second().to_string()),
        _ => {}
    }
    if let Some(name) = action.strip_prefix(".Environment.") {
        let variable = spec.environment.iter().find(|variable| variable.name == name);
        return Ok(variable
            .map(|variable| variable.value.expose().to_string())
            .unwrap_or_default());
    }
    if let Some(argument) = action.strip_prefix("checksum") {
        let argument = argument.trim();
        let quoted = |mark: char| argument.strip_prefix(mark).and_then(|inner| inner.strip_suffix(mark));
        let file = quoted('"')
            .or_else(|| quoted('`'))
            .ok_or("checksum takes a file name in quotes")?;
        let path = surroundings.path(file);
        return checksum(&path).map_err(|error| format!("failed to read `{}`: {error}", path.display()));
    }
    Err(format!(
        "unknown action `{action}` (known: .Branch, .BuildNum, .Revision, .Environment.NAME, checksum \"file\", arch, epoch)"
    ))
}

/// The base64 of a file's SHA-256.
fn checksum(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path)?, &mut HashWriter(&mut hasher))?;
    Ok(base64::engine::general_purpose::STANDARD.encode(hasher.finalize()))
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The operating system, the architecture, and the processor's family and model: `linux-amd64-6_85`.
fn arch() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == name).then(|| value.trim().to_string())
        })
    };
    let family = field("cpu family").unwrap_or_else(|| "0".into());
    let model = field("model").unwrap_or_else(|| "0".into());
    format!("{}-{architecture}-{family}_{model}", std::env::consts::OS)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::AgentOptions;
    use towpath_protocol::{CacheKeyValues, Variable};
    use towpath_types::{JobId, SecretString};

    #[test]
    fn templates_evaluate_as_on_circleci() {
        let root = tempfile::tempdir().unwrap();
        let options = AgentOptions {
            socket: "/nowhere".into(),
            token: SecretString::new("t".into()),
            state_directory: root.path().join("state"),
        };
        let spec = JobSpec {
            id: JobId::from_u128(1),
            node_index: 0,
            node_total: 1,
            name: "test".into(),
            working_directory: root.path().join("work").to_string_lossy().into_owned(),
            shell: None,
            environment: vec![Variable {
                name: "CACHE_VERSION".into(),
                value: SecretString::new("7".into()),
            }],
            mask: Vec::new(),
            steps: Vec::new(),
            repositories: None,
            cache_key_values: CacheKeyValues {
                branch: "main".into(),
                build_number: "12".into(),
                revision: "abc".into(),
            },
            time_limit_seconds: None,
            log_limit_bytes: None,
            on_host: false,
            step_token: None,
        };
        let surroundings = Surroundings::prepare(&options, &spec).unwrap();
        std::fs::write(surroundings.working_directory.join("Cargo.lock"), "").unwrap();
        let check = |template: &str, expected: &str| {
            assert_eq!(key(template, &spec, &surroundings).unwrap(), expected, "{template}")
        };
        check("v1-{{ .Branch }}-{{.BuildNum}}-{{ .Revision }}", "v1-main-12-abc");
        check("{{ .Environment.CACHE_VERSION }}{{ .Environment.NOTHING }}", "7");
        check(
            "{{ checksum \"Cargo.lock\" }}",
            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        );
        assert!(key("{{ arch }}", &spec, &surroundings).unwrap().starts_with("linux-"));
        for (bad, expected) in [
            ("{{ checksum \"nosuch\" }}", "failed to read `"),
            ("{{ checksum nosuch }}", "in quotes"),
            ("{{ .Nothing }}", "unknown action `.Nothing`"),
            ("{{ .Branch", "unclosed action"),
        ] {
            let error = key(bad, &spec, &surroundings).unwrap_err().to_string();
            assert!(
                error.starts_with("error computing cache key: template: cacheKey") && error.contains(expected),
                "{error}"
            );
        }
        assert!(key(&"x".repeat(901), &spec, &surroundings).is_err());
    }
}
