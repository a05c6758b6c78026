//! What in the templates of a chart makes each rendering another one.

use towpath_yaml::Place;

/// What a function of a template depends on, besides the files of the chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependence {
    /// Chance.
    Chance,
    /// The time of day.
    Time,
    /// The cluster, which answers nothing while a chart is rendered outside of it.
    Cluster,
}

/// A call of such a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnstableCall {
    /// `randAlphaNum`.
    pub function: &'static str,
    /// What it depends on.
    pub on: Dependence,
    /// Where it is.
    pub place: Place,
    /// Its first byte in the text.
    at: usize,
}

/// The functions whose result is not always the same.
///
/// Source: <https://helm.sh/docs/chart_template_guide/function_list/>
const FUNCTIONS: [(&str, Dependence); 21] = [
    ("lookup", Dependence::Cluster),
    ("now", Dependence::Time),
    ("ago", Dependence::Time),
    ("randAlphaNum", Dependence::Chance),
    ("randAlpha", Dependence::Chance),
    ("randNumeric", Dependence::Chance),
    ("randAscii", Dependence::Chance),
    ("randBytes", Dependence::Chance),
    ("randInt", Dependence::Chance),
    ("uuidv4", Dependence::Chance),
    ("shuffle", Dependence::Chance),
    ("genPrivateKey", Dependence::Chance),
    ("genCA", Dependence::Chance),
    ("genCAWithKey", Dependence::Chance),
    ("genSelfSignedCert", Dependence::Chance),
    ("genSelfSignedCertWithKey", Dependence::Chance),
    ("genSignedCert", Dependence::Chance),
    ("genSignedCertWithKey", Dependence::Chance),
    ("encryptAES", Dependence::Chance),
    ("bcrypt", Dependence::Chance),
    ("htpasswd", Dependence::Chance),
];

/// The calls in a template of functions whose result is not always the same, in their order.
#[must_use]
pub fn unstable_calls(path: &str, text: &str) -> Vec<UnstableCall> {
    let mut calls = Vec::new();
    let mut from = 0;
    while let Some(start) = text[from..].find("{{").map(|at| from + at + 2) {
        let end = action_end(text, start);
        for (at, word) in words(&text[start..end]) {
            if let Some((function, on)) = FUNCTIONS.iter().find(|(function, _)| *function == word) {
                calls.push(UnstableCall {
                    function,
                    on: *on,
                    place: place(path, text, start + at),
                    at: start + at,
                });
            }
        }
        from = end;
    }
    calls
}

/// The text with another, fixed time in place of each `now`.
#[must_use]
pub fn at_another_time(text: &str) -> String {
    const ANOTHER: &str = r#"(toDate "2006-01-02" "2001-02-03")"#;
    let mut other = text.to_string();
    for call in unstable_calls("", text)
        .iter()
        .rev()
        .filter(|call| call.function == "now")
    {
        other.replace_range(call.at..call.at + call.function.len(), ANOTHER);
    }
    other
}

fn place(path: &str, text: &str, at: usize) -> Place {
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Place {
        file: path.into(),
        line: number(before.matches('\n').count() + 1),
        column: number(before[line_start..].chars().count() + 1),
    }
}

/// Where the action that starts at `start` ends: at its `}}`, which may also be in a string or a comment.
fn action_end(text: &str, start: usize) -> usize {
    let inside = &text[start..];
    let trimmed = inside.strip_prefix('-').unwrap_or(inside).trim_start();
    if trimmed.starts_with("/*") {
        return inside.find("*/").map_or(text.len(), |at| start + at + 2);
    }
    let bytes = inside.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'"' | b'`' | b'\'') => at = string_end(bytes, at, quote),
            b'}' if bytes.get(at + 1) == Some(&b'}') => return start + at,
            _ => at += 1,
        }
    }
    text.len()
}

/// The first byte after a string.
fn string_end(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quote != b'`' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The words of an action that may be functions: not in strings, not fields, not variables, not in comments.
fn words(action: &str) -> Vec<(usize, &str)> {
    let bytes = action.as_bytes();
    let trimmed = action.trim_start_matches('-').trim_start();
    if trimmed.starts_with("/*") {
        return Vec::new();
    }
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let (mut words, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'"' | b'`' | b'\'') => at = string_end(bytes, at, quote),
            byte if is_word(byte) => {
                let start = at;
                while at < bytes.len() && is_word(bytes[at]) {
                    at += 1;
                }
                if start == 0 || !matches!(bytes[start - 1], b'.' | b'$') {
                    words.push((start, &action[start..at]));
                }
            }
            _ => at += 1,
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let calls = unstable_calls("templates/a.yaml", text);
        calls
            .iter()
            .map(|call| format!("{} {}", call.place, call.function))
            .collect()
    }

    #[test]
    fn a_call_is_found_with_its_place() {
        let text = "a: b\nc: {{ .Values.password | default (randAlphaNum 16) | quote }}\nd: {{- uuidv4 -}}\n";
        assert_eq!(
            found(text),
            ["templates/a.yaml:2:35 randAlphaNum", "templates/a.yaml:3:8 uuidv4"]
        );
    }

    #[test]
    fn what_only_looks_like_a_call_is_none() {
        for text in [
            "now: randAlpha",
            "{{ .Values.now }}{{ $now }}{{ $lookup := 1 }}",
            "{{ \"now }} uuidv4\" | quote }}",
            "{{ `randAlpha` }}",
            "{{/* now }} {{ uuidv4 */}}",
            "{{- /* genCA */ -}}",
            "{{ include \"nowhere\" . }}",
            "{{ knowledge }}",
        ] {
            assert!(found(text).is_empty(), "{text}: {:?}", found(text));
        }
        assert_eq!(found("{{ .now }} {{ now").len(), 1, "an action without an end");
        assert_eq!(found("{{ \"é\" }}{{ \"").len(), 0);
    }

    #[test]
    fn only_the_time_is_replaced() {
        let text = "{{ now | date \"2006\" }} {{ .now }} {{ uuidv4 }}{{now}}";
        assert_eq!(
            at_another_time(text),
            "{{ (toDate \"2006-01-02\" \"2001-02-03\") | date \"2006\" }} {{ .now }} {{ uuidv4 }}\
             {{(toDate \"2006-01-02\" \"2001-02-03\")}}"
        );
    }
}
