//! JSON that YAML readers read the same way.

use serde_json::Value;
use std::fmt::Write as _;

/// Writes JSON that is also YAML.
///
/// API servers read applied objects as YAML. YAML allows no raw control characters and treats some characters as line
/// breaks, so these are escaped.
///
/// Source: <https://yaml.org/spec/1.1/#c-printable> and <https://yaml.org/spec/1.1/#b-generic>
pub(crate) fn to_yaml_safe_json(value: &Value) -> String {
    let json = value.to_string();
    let is_unsafe = |char: char| {
        matches!(
            char,
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
        )
    };
    if !json.contains(is_unsafe) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for char in json.chars() {
        if is_unsafe(char) {
            let _ = write!(escaped, "\\u{:04x}", u32::from(char));
        } else {
            escaped.push(char);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn characters_that_yaml_reads_differently_are_escaped() {
        let value = serde_json::json!({"a": "\u{7f} \u{85} \u{9f} \u{2028} \u{2029} \u{feff} \u{ffff} \n ü 😀"});
        let text = to_yaml_safe_json(&value);
        assert_eq!(
            text,
            r#"{"a":"\u007f \u0085 \u009f \u2028 \u2029 \ufeff \uffff \n ü 😀"}"#
        );
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
