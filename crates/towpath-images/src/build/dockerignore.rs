//! `.dockerignore` as the engine reads it.
//!
//! The rules differ from git's: a pattern is matched from the context's root, `**` stands for any number of folders, the last
//! matching pattern decides, and a pattern that matches a folder matches everything in it.
//!
//! Source: <https://docs.docker.com/build/concepts/context/#dockerignore-files>,
//! <https://github.com/moby/patternmatcher>

use regex::Regex;

/// The patterns of one `.dockerignore`.
#[derive(Debug, Default)]
pub(super) struct Dockerignore(Vec<Pattern>);

#[derive(Debug)]
struct Pattern {
    regex: Regex,
    /// `!pattern`: matches stay in the context.
    includes: bool,
}

/// A line that is not a valid pattern.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadPattern {
    pub line: String,
    pub why: String,
}

impl Dockerignore {
    /// Parses the file's text.
    pub fn parse(text: &str) -> Result<Self, BadPattern> {
        let mut patterns = Vec::new();
        for line in text.trim_start_matches('\u{feff}').lines() {
            if line.starts_with('#') {
                continue;
            }
            let text = line.trim();
            let bad = |why: String| BadPattern {
                line: line.to_string(),
                why,
            };
            let (includes, text) = match text.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, text),
            };
            if text.is_empty() {
                if includes {
                    return Err(bad("nothing follows the `!`".to_string()));
                }
                continue;
            }
            let cleaned = clean(text);
            let regex = to_regex(&cleaned).map_err(&bad)?;
            let regex = Regex::new(&regex).map_err(|_| bad("its brackets do not close or are empty".to_string()))?;
            patterns.push(Pattern { regex, includes });
        }
        Ok(Self(patterns))
    }

    /// Whether `path` (relative to the context, separated by `/`) is left out of the context.
    pub fn excludes(&self, path: &str) -> bool {
        let mut excluded = false;
        for pattern in &self.0 {
            // Skip patterns that would not change the answer.
            if pattern.includes == excluded && pattern.matches(path) {
                excluded = !pattern.includes;
            }
        }
        excluded
    }

    /// Whether a pattern could include something in an excluded folder.
    pub fn has_inclusions(&self) -> bool {
        self.0.iter().any(|pattern| pattern.includes)
    }
}

impl Pattern {
    /// Whether the pattern matches the path or a folder above it.
    fn matches(&self, path: &str) -> bool {
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        above.chain([path]).any(|path| self.regex.is_match(path))
    }
}

/// Normalizes a path: removes `.`, resolves `..` where possible, and drops double, leading and trailing slashes. `/` is the
/// context itself.
fn clean(text: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            // Above the root there is only the root.
            ".." if text.starts_with('/') => {}
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        ".".to_string()
    } else {
        parts.join("/")
    }
}

fn to_regex(pattern: &str) -> Result<String, String> {
    let mut regex = String::from("^");
    let mut chars = pattern.chars().peekable();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        if in_class {
            match c {
                ']' => in_class = false,
                '\\' => {
                    let escaped = chars.next().ok_or("it ends with a backslash")?;
                    regex.push_str(&regex::escape(&escaped.to_string()));
                    continue;
                }
                // In a class, only `^` and `-` have a meaning here, but a regex gives one to these characters, too.
                '[' | '&' | '~' => regex.push('\\'),
                _ => {}
            }
            regex.push(c);
            continue;
        }
        match c {
            '*' if chars.peek() == Some(&'*') => {
                chars.next();
                // `**/` stands for any number of folders, including none.
                if chars.peek() == Some(&'/') {
                    chars.next();
                    regex.push_str("(.*/)?");
                } else {
                    regex.push_str(".*");
                }
            }
            '*' => regex.push_str("[^/]*"),
            '?' => regex.push_str("[^/]"),
            '[' => {
                in_class = true;
                regex.push('[');
            }
            '\\' => {
                let escaped = chars.next().ok_or("it ends with a backslash")?;
                regex.push_str(&regex::escape(&escaped.to_string()));
            }
            c => regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    regex.push('$');
    // Let `.` of `.*` match every character of a name, even a newline.
    Ok(format!("(?s){regex}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn check(patterns: &str, path: &str, excluded: bool) {
        let ignore = Dockerignore::parse(patterns).unwrap();
        assert_eq!(ignore.excludes(path), excluded, "{path} with {patterns:?}");
    }

    #[test]
    fn what_is_left_out() {
        for (patterns, path, excluded) in [
            ("", "a", false),
            ("# a\n\n", "a", false),
            ("a", "a", true),
            ("a", "a/b/c", true),
            ("a", "b/a", false),
            ("/a", "a", true),
            ("./a/", "a", true),
            ("x/../a", "a", true),
            ("*.md", "README.md", true),
            ("*.md", "docs/README.md", false),
            ("*/*.md", "docs/README.md", true),
            ("**/*.md", "README.md", true),
            ("**/*.md", "a/b/README.md", true),
            ("a/**", "a/b/c", true),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/z", "ab/z", false),
            ("**", "anything/at/all", true),
            ("**/node_modules", "x/node_modules/y", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("[ab].txt", "b.txt", true),
            ("[a-c].txt", "d.txt", false),
            ("[^a].txt", "b.txt", true),
            ("a.b", "axb", false),
            ("a+(b)", "a+(b)", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("a\n!a/b", "a/b", false),
            ("a\n!a/b", "a/c", true),
            ("*\n!src\n!Cargo.toml", "src/main.rs", false),
            ("*\n!src\nsrc/secret", "src/secret", true),
            ("*\n!src", "target/x", true),
            ("!a\na", "a", true),
            ("\u{feff}a", "a", true),
            ("  a  ", "a", true),
            ("! a", "a", false),
        ] {
            check(patterns, path, excluded);
        }
    }

    #[test]
    fn what_is_no_pattern() {
        for bad in ["!", "[a", "a\\", "[]"] {
            assert!(Dockerignore::parse(bad).is_err(), "{bad}");
        }
    }
}
