//! The types of unquoted scalars, which depend on the format.

/// How a scalar was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalarStyle {
    /// Unquoted. The [`ScalarRules`] decide its type.
    Plain,
    /// In single or double quotes. Always text.
    Quoted,
    /// A `|` or `>` block. Always text.
    Block,
}

/// The rules of a format that decide the type of an unquoted scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalarRules {
    /// CircleCI: YAML 1.1 booleans (`yes`, `no`, `on`, `off`). Dates stay text.
    CircleCi,
    /// The core schema of YAML 1.2: the only booleans are `true` and `false`.
    ///
    /// Source: <https://yaml.org/spec/1.2.2/#103-core-schema>
    Core12,
    /// `kubectl`: YAML 1.1 booleans. A leading zero means octal.
    ///
    /// Source: <https://github.com/kubernetes-sigs/yaml>
    Kubernetes,
}

/// The typed value of a scalar.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Typed<'a> {
    /// `null`, `~` or nothing.
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
}

impl ScalarRules {
    /// The value of an unquoted `text`.
    pub fn resolve(self, text: &str) -> Typed<'_> {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Typed::Null,
            "true" | "True" | "TRUE" => return Typed::Bool(true),
            "false" | "False" | "FALSE" => return Typed::Bool(false),
            "yes" | "Yes" | "YES" | "on" | "On" | "ON" if self != ScalarRules::Core12 => return Typed::Bool(true),
            "no" | "No" | "NO" | "off" | "Off" | "OFF" if self != ScalarRules::Core12 => return Typed::Bool(false),
            _ => {}
        }
        let first = text.as_bytes()[0];
        if !(first.is_ascii_digit() || matches!(first, b'-' | b'+' | b'.')) {
            return Typed::Text(text);
        }
        self.number(text).unwrap_or(Typed::Text(text))
    }

    fn number(self, text: &str) -> Option<Typed<'static>> {
        let (sign, digits) = match text.as_bytes()[0] {
            b'-' => (-1, &text[1..]),
            b'+' => (1, &text[1..]),
            _ => (1, text),
        };
        match digits {
            ".inf" | ".Inf" | ".INF" => return Some(Typed::Float(f64::from(sign) * f64::INFINITY)),
            ".nan" | ".NaN" | ".NAN" if digits.len() == text.len() => return Some(Typed::Float(f64::NAN)),
            _ => {}
        }
        let radix = |prefix: &str, radix: u32| {
            let body = digits.strip_prefix(prefix)?;
            let value = i64::from_str_radix(&body.replace('_', ""), radix).ok()?;
            (body.starts_with(|first: char| first.is_digit(radix))).then_some(Typed::Int(i64::from(sign) * value))
        };
        if let Some(value) = radix("0x", 16) {
            return Some(value);
        }
        // YAML 1.1 has no `0o`, but what `kubectl` reads numbers with does.
        if self != ScalarRules::CircleCi
            && let Some(value) = radix("0o", 8)
        {
            return Some(value);
        }
        if self != ScalarRules::Core12 {
            if let Some(value) = radix("0b", 2) {
                return Some(value);
            }
            if digits.len() > 1
                && digits.starts_with('0')
                && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_')
            {
                return radix("0", 8);
            }
        }
        if digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.is_empty() {
            return text
                .parse()
                .map(Typed::Int)
                .ok()
                .or_else(|| text.parse().map(Typed::Float).ok());
        }
        if self != ScalarRules::Core12
            && digits.starts_with(|first: char| first.is_ascii_digit())
            && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_')
        {
            return digits
                .replace('_', "")
                .parse::<i64>()
                .ok()
                .map(|value| Typed::Int(i64::from(sign) * value));
        }
        // A float has digits, at most one point, and an optional exponent. `1.2.3` and `1e` are text.
        let (mantissa, exponent) = match digits.find(['e', 'E']) {
            Some(at) => (&digits[..at], Some(&digits[at + 1..])),
            None => (digits, None),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let exponent_ok = exponent.is_none_or(|exponent| {
            let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
            !digits.is_empty() && all_digits(digits)
        });
        if !exponent_ok || !all_digits(whole) || !all_digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
            return None;
        }
        // In YAML 1.1 a float needs a point. `1e3` is text: it may be an abbreviated commit.
        if self == ScalarRules::CircleCi && !mantissa.contains('.') {
            return None;
        }
        text.parse().ok().map(Typed::Float)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_decide_the_type_of_unquoted_scalars() {
        let check = |rules: ScalarRules, text: &str, expect: Typed<'_>| {
            assert_eq!(rules.resolve(text), expect, "{rules:?} {text:?}");
        };
        use ScalarRules::{CircleCi, Core12, Kubernetes};
        for text in ["on", "Yes", "ON"] {
            check(CircleCi, text, Typed::Bool(true));
            check(Kubernetes, text, Typed::Bool(true));
            check(Core12, text, Typed::Text(text));
        }
        check(CircleCi, "off", Typed::Bool(false));
        check(CircleCi, "", Typed::Null);
        check(CircleCi, "~", Typed::Null);
        check(CircleCi, "2019-01-01", Typed::Text("2019-01-01"));
        check(CircleCi, "1.2.3", Typed::Text("1.2.3"));
        check(CircleCi, "12:30:45", Typed::Text("12:30:45"));
        check(CircleCi, "10", Typed::Int(10));
        check(CircleCi, "-10", Typed::Int(-10));
        check(CircleCi, "2.10", Typed::Float(2.1));
        check(CircleCi, "1e3", Typed::Text("1e3"));
        check(Core12, "1e3", Typed::Float(1000.0));
        check(CircleCi, "-", Typed::Text("-"));
        check(CircleCi, ".", Typed::Text("."));
        check(CircleCi, "./*", Typed::Text("./*"));
        check(CircleCi, "0x1F", Typed::Int(31));
        check(Kubernetes, "0644", Typed::Int(0o644));
        check(Core12, "0644", Typed::Int(644));
        check(Core12, "0o17", Typed::Int(15));
        check(Kubernetes, "0o17", Typed::Int(15));
        check(CircleCi, "0o17", Typed::Text("0o17"));
        check(CircleCi, "-0o7", Typed::Text("-0o7"));
        check(Kubernetes, "1_000", Typed::Int(1000));
        check(Core12, "1_000", Typed::Text("1_000"));
        check(CircleCi, "99999999999999999999", Typed::Float(1e20));
        check(CircleCi, "0x-5", Typed::Text("0x-5"));
    }
}
