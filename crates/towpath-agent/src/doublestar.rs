//! File name patterns in the dialect of Go's doublestar, which CircleCI's `tests glob` uses.
//!
//! - `*` matches any characters but a slash, `?` one such character.
//! - `[a-z]` matches one character of a set, `[^a-z]` or `[!a-z]` one character outside of it.
//! - `{a,b}` matches either alternative.
//! - `**` as a whole part of the path matches any number of folders.
//! - `\` makes the next character literal.
//!
//! Hidden files match like all others.
//!
//! Source: <https://pkg.go.dev/github.com/bmatcuk/doublestar#readme-patterns>

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The most patterns that one pattern may expand to through its braces.
const MOST_PATTERNS: usize = 10_000;

/// Why a text is not a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatternError {
    #[error("a `[` has no `]`")]
    Bracket,
    #[error("a `[]` has no character in it")]
    EmptySet,
    #[error("a `{{` has no `}}`")]
    Brace,
    #[error("it ends with a `\\`")]
    Escape,
    #[error("its braces stand for more than {MOST_PATTERNS} patterns")]
    TooMany,
}

/// A part of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Exactly this name.
    Name(String),
    /// A name that matches these tokens.
    Like(Vec<Token>),
    /// `**`
    AnyDepth,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Character(char),
    /// `?`
    Any,
    /// `*`
    Rest,
    Set {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// The files and folders below `base` that match `pattern`, sorted. Paths are relative to `base`, unless the pattern begins
/// with a slash.
pub(crate) fn matches(base: &Path, pattern: &str) -> Result<Vec<PathBuf>, PatternError> {
    let mut found = BTreeSet::new();
    let mut patterns = Vec::new();
    expand_braces(pattern, &mut patterns)?;
    for pattern in patterns {
        let is_absolute = pattern.starts_with('/');
        let only_folders = pattern.ends_with('/');
        let mut parts = Vec::new();
        for text in split(&pattern) {
            let part = part(&text)?;
            // `**/**` is `**`.
            if !(part == Part::AnyDepth && parts.last() == Some(&Part::AnyDepth)) {
                parts.push(part);
            }
        }
        let start = if is_absolute {
            PathBuf::from("/")
        } else {
            PathBuf::new()
        };
        let mut walk = Walk {
            base,
            only_folders,
            found: &mut found,
        };
        if !parts.is_empty() {
            walk.enter(&start, &parts);
        }
    }
    Ok(found.into_iter().collect())
}

struct Walk<'a> {
    base: &'a Path,
    only_folders: bool,
    found: &'a mut BTreeSet<PathBuf>,
}

impl Walk<'_> {
    /// Matches `parts` against the content of the folder `at`.
    fn enter(&mut self, at: &Path, parts: &[Part]) {
        let Some((part, rest)) = parts.split_first() else {
            return;
        };
        match part {
            Part::Name(name) => self.take(at.join(name), rest),
            Part::Like(tokens) => {
                for name in self.names(at) {
                    if fits(tokens, &name.to_string_lossy()) {
                        self.take(at.join(name), rest);
                    }
                }
            }
            Part::AnyDepth => {
                self.enter(at, rest);
                for name in self.names(at) {
                    let path = at.join(name);
                    if rest.is_empty() {
                        self.take(path.clone(), &[]);
                    }
                    // Do not follow links: a link may lead back to a folder around it.
                    if fs::symlink_metadata(self.base.join(&path)).is_ok_and(|found| found.is_dir()) {
                        self.enter(&path, parts);
                    }
                }
            }
        }
    }

    fn take(&mut self, path: PathBuf, rest: &[Part]) {
        let whole = self.base.join(&path);
        if !rest.is_empty() {
            if whole.is_dir() {
                self.enter(&path, rest);
            }
        } else if fs::symlink_metadata(&whole).is_ok() && (!self.only_folders || whole.is_dir()) {
            self.found.insert(path);
        }
    }

    fn names(&self, at: &Path) -> Vec<std::ffi::OsString> {
        let folder = self.base.join(at);
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &folder
        };
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name()).collect()
    }
}

/// Adds the patterns that `pattern` expands to, without braces, to `found`.
fn expand_braces(pattern: &str, found: &mut Vec<String>) -> Result<(), PatternError> {
    let mut open: Option<usize> = None;
    let (mut depth, mut in_set, mut cuts) = (0, false, Vec::new());
    let mut characters = pattern.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            '[' if !in_set => in_set = true,
            ']' => in_set = false,
            _ if in_set => {}
            '{' => {
                open.get_or_insert(at);
                depth += 1;
            }
            ',' if depth == 1 => cuts.push(at),
            '}' if depth > 0 => {
                depth -= 1;
                if depth > 0 {
                    continue;
                }
                let Some(open) = open else { continue };
                let mut from = open + 1;
                for cut in cuts.into_iter().chain([at]) {
                    let one = format!("{}{}{}", &pattern[..open], &pattern[from..cut], &pattern[at + 1..]);
                    expand_braces(&one, found)?;
                    from = cut + 1;
                }
                return Ok(());
            }
            _ => {}
        }
    }
    if depth > 0 {
        return Err(PatternError::Brace);
    }
    if found.len() == MOST_PATTERNS {
        return Err(PatternError::TooMany);
    }
    found.push(pattern.to_string());
    Ok(())
}

/// Splits a pattern at its slashes. A slash in a set separates, too, because no name contains one.
fn split(pattern: &str) -> Vec<String> {
    let parts = pattern.split('/').filter(|part| !part.is_empty() && *part != ".");
    parts.map(str::to_string).collect()
}

fn part(text: &str) -> Result<Part, PatternError> {
    if text == "**" {
        return Ok(Part::AnyDepth);
    }
    let mut tokens = Vec::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        tokens.push(match character {
            '*' => Token::Rest,
            '?' => Token::Any,
            '\\' => Token::Character(characters.next().ok_or(PatternError::Escape)?),
            '[' => set(&mut characters)?,
            other => Token::Character(other),
        });
    }
    let name: Option<String> = tokens
        .iter()
        .map(|token| match token {
            Token::Character(character) => Some(*character),
            Token::Any | Token::Rest | Token::Set { .. } => None,
        })
        .collect();
    Ok(name.map_or(Part::Like(tokens), Part::Name))
}

fn set(characters: &mut std::str::Chars<'_>) -> Result<Token, PatternError> {
    let negated = characters.as_str().starts_with(['^', '!']);
    if negated {
        characters.next();
    }
    let mut ranges = Vec::new();
    let escaped = |characters: &mut std::str::Chars<'_>| match characters.next() {
        Some('\\') => characters.next().ok_or(PatternError::Escape),
        Some(other) => Ok(other),
        None => Err(PatternError::Bracket),
    };
    loop {
        match characters.as_str().chars().next() {
            None => return Err(PatternError::Bracket),
            Some(']') if ranges.is_empty() => return Err(PatternError::EmptySet),
            Some(']') => {
                characters.next();
                return Ok(Token::Set { negated, ranges });
            }
            Some(_) => {
                let first = escaped(characters)?;
                let mut ahead = characters.clone();
                let last = match (ahead.next(), ahead.next()) {
                    (Some('-'), Some(end)) if end != ']' => {
                        characters.next();
                        escaped(characters)?
                    }
                    _ => first,
                };
                ranges.push((first, last));
            }
        }
    }
}

/// Whether `name` matches `tokens`. It retries only the last `*`, so the time is at most quadratic in the two lengths.
fn fits(tokens: &[Token], name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    let (mut token, mut at) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let fits = match (tokens.get(token), name.get(at)) {
            (Some(Token::Rest), _) => {
                retry = Some((token + 1, at));
                token += 1;
                continue;
            }
            (None, None) => return true,
            (Some(Token::Any), Some(_)) => true,
            (Some(Token::Character(wanted)), Some(character)) => wanted == character,
            (Some(Token::Set { negated, ranges }), Some(character)) => {
                ranges.iter().any(|(first, last)| (first..=last).contains(&character)) != *negated
            }
            _ => false,
        };
        if fits {
            (token, at) = (token + 1, at + 1);
        } else {
            match retry {
                Some((after, from)) if from < name.len() => {
                    retry = Some((after, from + 1));
                    (token, at) = (after, from + 1);
                }
                _ => return false,
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in [
            "lib/top.spec.rb",
            "lib/.cache/hidden.spec.rb",
            "lib/a folder/blank.spec.rb",
            "lib/x/one.spec.rb",
            "lib/x/[two].spec.rb",
            "lib/x/deep/er/three.test.rb",
            "lib/x/note.md",
        ] {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        symlink("..", root.path().join("lib/x/loop")).unwrap();
        symlink("nowhere", root.path().join("lib/x/dangling.spec.rb")).unwrap();
        root
    }

    #[test]
    fn patterns_find_what_doublestar_finds() {
        let root = tree();
        let check = |pattern: &str, expected: &[&str]| {
            let found = matches(root.path(), pattern).unwrap();
            let found: Vec<&str> = found.iter().map(|path| path.to_str().unwrap()).collect();
            assert_eq!(found, expected, "{pattern}");
        };
        check(
            "lib/**/*.spec.rb",
            &[
                "lib/.cache/hidden.spec.rb",
                "lib/a folder/blank.spec.rb",
                "lib/top.spec.rb",
                "lib/x/[two].spec.rb",
                "lib/x/dangling.spec.rb",
                "lib/x/one.spec.rb",
            ],
        );
        check("**/three.*", &["lib/x/deep/er/three.test.rb"]);
        check("lib/**/**/three.*", &["lib/x/deep/er/three.test.rb"]);
        // `**` that is not a whole part of the path works like `*`.
        check("lib/**.spec.rb", &["lib/top.spec.rb"]);
        check("lib/x/**er/*/*.rb", &[]);
        check("lib/x/deep/**", &["lib/x/deep/er", "lib/x/deep/er/three.test.rb"]);
        check(
            "lib/x/[^n]*.{rb,md}",
            &["lib/x/[two].spec.rb", "lib/x/dangling.spec.rb", "lib/x/one.spec.rb"],
        );
        check("lib/x/[!a-no]*", &["lib/x/[two].spec.rb"]);
        check("lib/x/\\[two\\].*", &["lib/x/[two].spec.rb"]);
        check("lib/x/[[]two*", &["lib/x/[two].spec.rb"]);
        check("./lib/./top.*", &["lib/top.spec.rb"]);
        check("lib/../lib/top.spec.rb", &["lib/../lib/top.spec.rb"]);
        check(
            "{lib/top,lib/x/{one,no*}}{.spec.rb,.md}",
            &["lib/top.spec.rb", "lib/x/note.md", "lib/x/one.spec.rb"],
        );
        check("lib/{x}/one.spec.rb", &["lib/x/one.spec.rb"]);
        check("lib/x/loop/top*", &["lib/x/loop/top.spec.rb"]);
        check("lib/*/", &["lib/.cache", "lib/a folder", "lib/x"]);
        check("lib/a?folder/*", &["lib/a folder/blank.spec.rb"]);
        check("nothing/**/*.rb", &[]);
        check("", &[]);
        let absolute = format!("{}/lib/top*", root.path().display());
        check(&absolute, &[&format!("{}/lib/top.spec.rb", root.path().display())]);
    }

    #[test]
    fn what_is_no_pattern_is_said() {
        let error = |pattern: &str| matches(Path::new("/nowhere"), pattern).unwrap_err();
        assert_eq!(error("a[b"), PatternError::Bracket);
        assert_eq!(error("a[b-"), PatternError::Bracket);
        assert_eq!(error("a[]b"), PatternError::EmptySet);
        assert_eq!(error("a{b,c"), PatternError::Brace);
        assert_eq!(error("a\\"), PatternError::Escape);
        assert_eq!(error(&"{a,b}".repeat(20)), PatternError::TooMany);
    }

    #[test]
    fn many_stars_take_no_time() {
        let Part::Like(tokens) = part(&"*a".repeat(40)).unwrap() else {
            panic!("it is a pattern")
        };
        assert!(!fits(&tokens, &format!("{}b", "a".repeat(250))));
        assert!(fits(&tokens, &"a".repeat(250)));
    }
}
