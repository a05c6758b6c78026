//! Which names are valid.

/// A name is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} cannot be {what}: {rule}")]
pub struct NameError {
    /// At most the first 80 characters of the name.
    pub name: String,
    /// What it was meant to name: `a Secret's key`.
    pub what: &'static str,
    /// What a valid name looks like.
    pub rule: &'static str,
}

fn check(name: &str, what: &'static str, rule: &'static str, is_good: bool) -> Result<(), NameError> {
    if is_good {
        return Ok(());
    }
    Err(NameError {
        name: name.chars().take(80).collect(),
        what,
        rule,
    })
}

/// A Secret's name: a DNS subdomain.
///
/// Source: <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-subdomain-names>
pub(crate) fn secret(name: &str) -> Result<(), NameError> {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let label = |part: &str| {
        part.bytes().next().is_some_and(alnum)
            && part.bytes().last().is_some_and(alnum)
            && part.bytes().all(|b| alnum(b) || b == b'-')
    };
    let rule = "lower-case letters, digits, `-` and `.`, letters or digits at both ends, at most 253 characters";
    check(
        name,
        "a Secret's name",
        rule,
        name.len() <= 253 && name.split('.').all(label),
    )
}

/// A key of a Secret.
///
/// Source: <https://kubernetes.io/docs/concepts/configuration/secret/#restriction-names-data>
/// (The API server also refuses `.` and names that begin with `..`, because keys become files.)
pub(crate) fn secret_key(key: &str) -> Result<(), NameError> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let rule = "letters, digits, `-`, `_` and `.`, at most 253 characters, neither `.` nor beginning with `..`";
    let is_good = (1..=253).contains(&key.len()) && key.bytes().all(good) && key != "." && !key.starts_with("..");
    check(key, "a Secret's key", rule, is_good)
}

/// A variable of a context.
///
/// Source: <https://circleci.com/docs/guides/security/env-vars/#environment-variable-usage-options> (POSIX names)
pub(crate) fn variable(name: &str) -> Result<(), NameError> {
    let rule = "letters, digits and `_`, not beginning with a digit, at most 300 characters";
    let is_good = (1..=300).contains(&name.len())
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    check(name, "an environment variable", rule, is_good)
}

/// A context, a project or an environment: any text on one line.
pub(crate) fn free(name: &str, what: &'static str) -> Result<(), NameError> {
    let rule = "text on one line, at most 200 bytes, without blanks at its ends";
    let is_good = (1..=200).contains(&name.len()) && !name.chars().any(char::is_control) && name.trim() == name;
    check(name, what, rule, is_good)
}

/// Encodes a name as the name of a file: letters, digits, `-`, `_` and inner dots stay, every other byte becomes `%` and two
/// hex digits. Different names become different files, and none begins with a dot.
pub(crate) fn to_file_name(name: &str) -> String {
    let mut file = String::new();
    for (index, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (byte == b'.' && index > 0) {
            file.push(char::from(byte));
        } else {
            file.push_str(&format!("%{byte:02X}"));
        }
    }
    file
}

/// The inverse of [`to_file_name`]; `None` for files that the sealed store did not write.
pub(crate) fn from_file_name(file: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = file.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok())?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = tail.get(2..)?;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    let name = String::from_utf8(bytes).ok()?;
    (to_file_name(&name) == file).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(check: fn(&str) -> Result<(), NameError>, good: &[&str], bad: &[&str]) {
        for name in good {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        for name in bad {
            assert!(check(name).is_err(), "{name}");
        }
    }

    #[test]
    fn names_follow_the_rules_of_kubernetes_and_circleci() {
        verdicts(
            secret,
            &["app", "app-secrets", "a.b-c.d1"],
            &["", "App", "-a", "a-", "a..b", "a_b", "a/b", &"a".repeat(254)],
        );
        verdicts(
            secret_key,
            &["TOKEN", "tls.crt", ".env", "a-b_c", "1"],
            &["", ".", "..", "..a", "a b", "a/b", "é", &"a".repeat(254)],
        );
        verdicts(
            variable,
            &["A", "_a1", "AWS_KEY"],
            &["", "1A", "A-B", "A=B", "A B", "É"],
        );
        verdicts(
            |name| free(name, "a context"),
            &["org-global", "Team A / production", "ü"],
            &["", " a", "a\n", "a\0b", &"a".repeat(201)],
        );
    }

    #[test]
    fn every_name_has_a_file_of_its_own() {
        for name in ["app", "a.b", ".hidden", "..", "a/b", "Team A", "100%", "%2F", "ü"] {
            let file = to_file_name(name);
            assert!(!file.starts_with('.') && !file.contains('/'), "{file}");
            assert_eq!(from_file_name(&file).as_deref(), Some(name));
        }
        for foreign in ["%", "%2", "%zz", "a b", ".x", "%61"] {
            assert_eq!(from_file_name(foreign), None, "{foreign}");
        }
    }
}
