//! Finds secrets in plain text.

use std::sync::LazyLock;

use regex::Regex;
use towpath_yaml::{Diagnostic, Node, Value as YamlValue};

/// Reports the secrets in a tree. The diagnostics do not show them.
pub(crate) fn secrets(node: &Node, found: &mut Vec<Diagnostic>) {
    match node.value() {
        YamlValue::Mapping(mapping) => {
            for part in mapping {
                let is_secret = part
                    .value
                    .as_scalar()
                    .is_some_and(|scalar| names_a_secret(&part.key.text) && looks_random(&scalar.text));
                if is_secret {
                    found.push(secret(&part.value, "a secret"));
                } else {
                    secrets(&part.value, found);
                }
            }
        }
        YamlValue::Sequence(items) => items.iter().for_each(|item| secrets(item, found)),
        YamlValue::Scalar(scalar) => {
            let known = PATTERNS.iter().find(|(_, pattern)| pattern.is_match(&scalar.text));
            let is_assigned = ASSIGNMENT.as_ref().is_some_and(|pattern| {
                pattern.captures_iter(&scalar.text).any(|assignment| {
                    let part = |at: usize| assignment.get(at).map_or("", |part| part.as_str());
                    names_a_secret(part(1)) && looks_random(part(2))
                })
            });
            match known {
                Some((what, _)) => found.push(secret(node, what)),
                None if is_assigned => found.push(secret(node, "a secret")),
                None => {}
            }
        }
    }
}

fn secret(node: &Node, what: &str) -> Diagnostic {
    let message =
        format!("this looks like {what} in plain text, which everyone with access to the repository can read");
    Diagnostic::warning("lint::secret", message)
        .at(node.origin(), "")
        .concealed()
        .hint("put it into a context, refer to it by a variable here, and revoke this one")
}

/// `NAME=value` in a script.
static ASSIGNMENT: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"([A-Za-z_][A-Za-z0-9_-]*)=("[^"]*"|'[^']*'|[^\s;&|]+)"#).ok());

/// Texts that are secrets under any key.
const SECRETS: &[(&str, &str)] = &[
    ("an AWS access key", r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    (
        "a GitHub token",
        r"\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,})\b",
    ),
    ("a GitLab token", r"\bglpat-[A-Za-z0-9_-]{20}"),
    ("a Slack token", r"\bxox[abprs]-[A-Za-z0-9-]{10,}"),
    (
        "a Slack webhook",
        r"https://hooks\.slack\.com/(services|workflows)/T[A-Za-z0-9/_-]{20,}",
    ),
    ("a Stripe key", r"\b[rs]k_live_[A-Za-z0-9]{16,}"),
    ("a Google API key", r"\bAIza[0-9A-Za-z_-]{35}"),
    ("an npm token", r"\bnpm_[A-Za-z0-9]{36}\b"),
    ("a private key", r"-----BEGIN ([A-Z]+ )?PRIVATE KEY( BLOCK)?-----"),
    (
        "a JSON web token",
        r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}",
    ),
    ("a SendGrid key", r"\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}\b"),
    ("an OpenAI key", r"\bsk-(proj-)?[A-Za-z0-9_-]{40,}"),
    ("a Docker token", r"\bdckr_(pat|oat)_[A-Za-z0-9_-]{20,}"),
];

/// The compiled patterns of [`SECRETS`].
static PATTERNS: LazyLock<Vec<(&str, Regex)>> = LazyLock::new(|| {
    let compiled = |(what, pattern): &(&'static str, &str)| Some((*what, Regex::new(pattern).ok()?));
    SECRETS.iter().filter_map(compiled).collect()
});

/// Whether a key or a variable has the name of a secret.
fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let words = [
        "password",
        "passwd",
        "secret",
        "token",
        "api_key",
        "apikey",
        "private_key",
        "access_key",
        "secret_key_base",
        "_pass",
    ];
    words.iter().any(|word| name.ends_with(word))
}

/// Whether a text is too irregular for a person to have chosen it. Keys are; `postgres` and `$PASSWORD` are not.
fn looks_random(text: &str) -> bool {
    let text = text.trim().trim_matches(['"', '\'']);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=_-.".contains(&byte);
    if text.len() < 20 || !text.bytes().all(plain) {
        return false;
    }
    let mut counts = [0_u32; 256];
    text.bytes().for_each(|byte| counts[usize::from(byte)] += 1);
    let length = text.len() as f64;
    let entropy: f64 = counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) / length)
        .map(|share| -share * share.log2())
        .sum();
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    // A key with upper and lower case letters may have few digits.
    let mixed =
        text.bytes().any(|byte| byte.is_ascii_lowercase()) && text.bytes().any(|byte| byte.is_ascii_uppercase());
    entropy > 3.3 && digits < text.len() && (digits > 2 || (digits > 0 && mixed && text.len() >= 32))
}
