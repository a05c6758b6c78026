//! `circleci env subst`: variables in a text, with defaults.
//!
//! CircleCI's command is the library a8m/envsubst. Source: <https://github.com/a8m/envsubst#docs>

/// Replaces `$X`, `${X}` and `${X:-default}` in `text` by the values that `lookup` knows. `$$` is a dollar sign.
///
/// `-` and `=` give the default when the variable is not set; `:-` and `:=` also when it is empty. `+` and `:+` give it when
/// the variable is set, and nothing otherwise. A default may contain variables. A dollar sign before anything else stays.
pub(crate) fn substituted(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let at = text.len() - after.len() - 1;
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some(inner) = after.strip_prefix('{') {
            let end = closing_brace(inner).ok_or_else(|| {
                let line = text[..at].matches('\n').count() + 1;
                format!("closing brace expected: `${{` in line {line} has no `}}` on its line; `$$` is a dollar sign")
            })?;
            match expression(&inner[..end], lookup)? {
                Some(value) => out.push_str(&value),
                None => out.push_str(&text[at..at + 2 + end + 1]),
            }
            rest = &inner[end + 1..];
        } else {
            let (name, tail) = after.split_at(name_length(after));
            // `$_` is the shell's.
            if name.is_empty() || name == "_" {
                out.push('$');
                out.push_str(name);
            } else {
                out.push_str(&lookup(name).unwrap_or_default());
            }
            rest = tail;
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn name_length(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len())
}

/// The end of the expression at the beginning of `inner`. An expression ends on its own line.
fn closing_brace(inner: &str) -> Option<usize> {
    let mut depth = 0;
    let mut previous = ' ';
    for (at, character) in inner.char_indices() {
        match character {
            '\n' | '\r' => return None,
            '{' if previous == '$' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
        previous = character;
    }
    None
}

/// The value of `${inner}`; `None` if `inner` is not an expression.
fn expression(inner: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>, String> {
    let (name, rest) = inner.split_at(name_length(inner));
    if name.is_empty() {
        return Ok(None);
    }
    let value = lookup(name);
    let (operator, word) = match rest.strip_prefix(':') {
        Some(rest) if rest.starts_with(['-', '=', '+']) => rest.split_at(1),
        _ => rest.split_at(rest.chars().next().map_or(0, char::len_utf8)),
    };
    let counts_empty = rest.starts_with(':');
    let chosen = match (operator, value) {
        // There is no default to choose.
        ("-" | "=" | "+", value) if word.is_empty() => value,
        ("-" | "=", Some(value)) if !counts_empty || !value.is_empty() => Some(value),
        ("-" | "=", _) | ("+", Some(_)) => Some(substituted(word, lookup)?),
        ("+", None) => None,
        (_, value) => value,
    };
    Ok(Some(chosen.unwrap_or_default()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "NAME" => Some("web".into()),
            "NONE" => Some(String::new()),
            "größe" => Some("7".into()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_substituted() {
        let check = |text: &str, expected: &str| assert_eq!(substituted(text, &lookup).unwrap(), expected, "{text}");
        check("a $NAME b ${NAME}c $GONE.", "a web b webc .");
        check("$größe $NAME2", "7 ");
        check("100$ $ $_ $-", "100$ $ $_ $-");
        check("cost: $$NAME $${NAME} $$", "cost: $NAME ${NAME} $");
        check("${-x} ${}", "${-x} ${}");
        check("${NAME?what} ${NAME:0:1}", "web web");
    }

    #[test]
    fn defaults_are_used() {
        let check = |text: &str, expected: &str| assert_eq!(substituted(text, &lookup).unwrap(), expected, "{text}");
        check("${GONE-d} ${GONE:-d} ${GONE=d} ${GONE:=d}", "d d d d");
        check("${NONE-d}|${NONE:-d}|${NONE=d}|${NONE:=d}", "|d||d");
        check("${NAME-d} ${NAME:-d} ${NAME=d} ${NAME:=d}", "web web web web");
        check("${GONE+a}|${GONE:+a}|${NAME+a}|${NAME:+a}|${NONE+a}", "||a|a|a");
        check("${GONE:-}|${GONE-}|${NAME+}", "||web");
        check(
            "${GONE:-$NAME} ${GONE:-${NAME}} ${GONE:-${NONE:-x-$NAME/y}}",
            "web web x-web/y",
        );
        check("${GONE:-a b: {c, \"d\"} }", "a b: {c, \"d\" }");
        check("repo/${NAME}:${TAG:-latest}", "repo/web:latest");
    }

    #[test]
    fn a_brace_that_is_not_closed_is_an_error() {
        for text in ["${", "${NAME", "a\n${NAME:-x\n}", "${GONE:-${NAME}"] {
            let error = substituted(text, &lookup).unwrap_err();
            assert!(error.contains("closing brace expected"), "{error}");
        }
        assert!(substituted("a\n${NAME", &lookup).unwrap_err().contains("line 2"));
    }
}
