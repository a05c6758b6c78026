//! Finds what a Dockerfile needs that the engine's own builder lacks.
//!
//! Towpath uses that builder because every engine has it and it needs no session. It refuses some BuildKit features with
//! misleading errors, and silently accepts others: `ARG TARGETARCH` is empty. So Towpath checks the Dockerfile first.
//!
//! Source: <https://docs.docker.com/reference/dockerfile/>

use std::collections::BTreeMap;

/// The arguments that BuildKit sets by itself.
const PLATFORM_ARGUMENTS: [&str; 8] = [
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETARCH",
    "TARGETVARIANT",
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDARCH",
    "BUILDVARIANT",
];

/// Something that needs BuildKit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Need {
    /// The line, counted from 1.
    pub line: usize,
    /// In the Dockerfile's own words: `COPY --link`.
    pub what: String,
}

/// A joined instruction, and the lines after it.
struct Instruction<'a> {
    line: usize,
    text: String,
    rest: &'a [&'a str],
}

/// The first thing in the Dockerfile that needs BuildKit. `arguments` are the build's arguments.
pub(super) fn needs_buildkit(dockerfile: &str, arguments: &BTreeMap<String, String>) -> Option<Need> {
    let lines: Vec<&str> = dockerfile.trim_start_matches('\u{feff}').lines().collect();
    let mut escape = '\\';
    let mut at = 0;
    // Directives come before everything else.
    while let Some((name, value)) = lines.get(at).and_then(|line| directive(line)) {
        match name.as_str() {
            "escape" if value == "`" => escape = '`',
            "syntax" if !is_dockerfile_syntax(value) => {
                return Some(Need {
                    line: at + 1,
                    what: format!("# syntax={value}"),
                });
            }
            _ => {}
        }
        at += 1;
    }
    let mut declared: Vec<String> = arguments.keys().cloned().collect();
    while at < lines.len() {
        let Some((instruction, next)) = instruction(&lines, at, escape) else {
            break;
        };
        if let Some(what) = need_of(&instruction, &mut declared) {
            let line = instruction.line;
            return Some(Need { line, what });
        }
        at = next;
    }
    None
}

/// `# name=value`
fn directive(line: &str) -> Option<(String, &str)> {
    let (name, value) = line.trim().strip_prefix('#')?.split_once('=')?;
    let name = name.trim().to_ascii_lowercase();
    matches!(name.as_str(), "syntax" | "escape" | "check").then(|| (name, value.trim()))
}

/// Whether a frontend is Docker's own. Both builders read its Dockerfiles.
fn is_dockerfile_syntax(image: &str) -> bool {
    let image = image.strip_prefix("docker.io/").unwrap_or(image);
    image.split([':', '@']).next() == Some("docker/dockerfile")
}

/// The instruction that begins at or after the line `at`, and the line after it.
fn instruction<'a>(lines: &'a [&'a str], at: usize, escape: char) -> Option<(Instruction<'a>, usize)> {
    let is_comment = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    let first = (at..lines.len()).find(|at| !is_comment(lines[*at]))?;
    let mut text = String::new();
    let mut next = first;
    while next < lines.len() {
        let line = lines[next];
        next += 1;
        if next > first + 1 && is_comment(line) {
            // Comments and empty lines may stand within an instruction.
            continue;
        }
        match line.trim_end().strip_suffix(escape) {
            Some(part) => text.push_str(part),
            None => {
                text.push_str(line);
                break;
            }
        }
        text.push(' ');
    }
    let instruction = Instruction {
        line: first + 1,
        text,
        rest: &lines[next..],
    };
    Some((instruction, next))
}

fn need_of(instruction: &Instruction<'_>, declared: &mut Vec<String>) -> Option<String> {
    let mut words = instruction.text.split_whitespace();
    let mut name = words.next()?.to_ascii_uppercase();
    let mut words: Vec<&str> = words.collect();
    if name == "ONBUILD" && !words.is_empty() {
        name = words.remove(0).to_ascii_uppercase();
    }
    let flags = || words.iter().copied().take_while(|word| word.starts_with("--"));
    let known: &[&str] = match name.as_str() {
        "COPY" => &["--from", "--chown"],
        "ADD" => &["--chown"],
        "FROM" => &["--platform"],
        _ => &[],
    };
    if matches!(name.as_str(), "COPY" | "ADD" | "RUN") {
        let flag = |word: &str| word.split('=').next().unwrap_or(word).to_string();
        if let Some(flag) = flags().map(flag).find(|flag| !known.contains(&flag.as_str())) {
            return Some(format!("{name} {flag}"));
        }
        let document = words.iter().find_map(|word| Some((*word, here_document(word)?)));
        if let Some((word, end)) = document
            // A shell reads its own here-document, if that is within the instruction.
            && (name != "RUN" || instruction.rest.iter().any(|line| line.trim_start_matches('\t') == end))
        {
            return Some(format!("{name} {word}"));
        }
    }
    if name == "ARG" {
        for word in words {
            let (name, default) = word
                .split_once('=')
                .map_or((word, None), |(name, value)| (name, Some(value)));
            let is_set = default.is_some() || declared.iter().any(|known| known == name);
            if PLATFORM_ARGUMENTS.contains(&name) && !is_set {
                return Some(format!("ARG {name}"));
            }
            declared.push(name.to_string());
        }
    } else if name == "FROM" {
        let variable = |name: &&&str| {
            let text = &instruction.text;
            text.contains(&format!("${name}")) || text.contains(&format!("${{{name}"))
        };
        let used = PLATFORM_ARGUMENTS.iter().find(variable);
        if let Some(name) = used.filter(|name| !declared.iter().any(|known| known == *name)) {
            return Some(format!("FROM … ${name}"));
        }
    }
    None
}

/// The line that ends the here-document which `word` begins: `<<EOF`, `<<-"EOF"`, `3<<EOF`.
fn here_document(word: &str) -> Option<&str> {
    let word = word.trim_start_matches(|first: char| first.is_ascii_digit());
    let end = word.strip_prefix("<<")?;
    let end = end.strip_prefix('-').unwrap_or(end).trim_matches(['"', '\'']);
    let is_name = |end: &str| {
        end.chars()
            .all(|one| one.is_ascii_alphanumeric() || matches!(one, '_' | '.' | '-'))
    };
    (!end.is_empty() && is_name(end)).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(dockerfile: &str) -> Option<(usize, String)> {
        let given = BTreeMap::from([("TARGETOS".to_string(), "linux".to_string())]);
        needs_buildkit(dockerfile, &given).map(|need| (need.line, need.what))
    }

    #[test]
    fn what_only_buildkit_knows_is_found_with_its_line() {
        for (dockerfile, line, what) in [
            ("FROM a\nCOPY --link x /", 2, "COPY --link"),
            ("FROM a\ncopy --from=b --chmod=755 x /", 2, "COPY --chmod"),
            ("FROM a\nADD --checksum=sha256:1 http://x /", 2, "ADD --checksum"),
            (
                "FROM a\n\n# c\nRUN \\\n # c\n --mount=type=cache,target=/r make",
                4,
                "RUN --mount",
            ),
            ("FROM a\nRUN --network=none make", 2, "RUN --network"),
            ("FROM a\nONBUILD RUN --mount=type=bind make", 2, "RUN --mount"),
            ("FROM a\nCOPY <<EOT /etc/motd\nhello\nEOT\n", 2, "COPY <<EOT"),
            ("FROM a\nRUN <<EOF\nmake\nEOF\n", 2, "RUN <<EOF"),
            ("FROM a\nRUN python3 <<-\"END\" > x\n1\n\tEND\n", 2, "RUN <<-\"END\""),
            ("# escape=`\nFROM a\nRUN a `\n b\nCOPY --link x /", 5, "COPY --link"),
            ("# syntax=someone/else:1\nFROM a", 1, "# syntax=someone/else:1"),
            ("FROM --platform=$BUILDPLATFORM a", 1, "FROM … $BUILDPLATFORM"),
            ("FROM --platform=${TARGETPLATFORM:-x} a", 1, "FROM … $TARGETPLATFORM"),
            ("FROM a\nARG VERSION TARGETARCH", 2, "ARG TARGETARCH"),
        ] {
            assert_eq!(need(dockerfile), Some((line, what.to_string())), "{dockerfile}");
        }
    }

    #[test]
    fn what_the_engine_builds_itself_is_left_alone() {
        for dockerfile in [
            "",
            "# syntax=docker/dockerfile:1\nFROM a\nCOPY --from=b --chown=1:1 x /",
            "# syntax = docker.io/docker/dockerfile:1.7@sha256:1\n# check=skip=all\nFROM a",
            "FROM --platform=linux/arm64 a",
            "ARG BUILDPLATFORM=linux/amd64\nFROM --platform=$BUILDPLATFORM a",
            "FROM a\nARG TARGETOS\nARG TARGETARCH=amd64",
            "FROM a\nRUN cat <<<x && make --mount",
            "FROM a\nRUN echo 1 << 2 && echo \\<<EOF",
            "FROM a\nRUN a \\\n  # COPY --link x /\n\n  b",
            "FROM a\nHEALTHCHECK --interval=1s CMD x",
            "FROM a\nRUN echo \\",
        ] {
            assert_eq!(need(dockerfile), None, "{dockerfile}");
        }
    }
}
