//! Finds the program that runs a step's script.

use std::{
    env,
    ffi::OsStr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Why a step has no shell.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ShellError {
    #[error(
        "this environment has neither /bin/bash nor /bin/sh to run the step with; name a program with `shell:` (its last \
         argument is the script's path) or use an image that has a shell"
    )]
    NoDefault,
    #[error("this environment has no shell `{0}`; set `shell:` to one that it has, or use an image that has it")]
    Missing(String),
    #[error("`shell: {0}` is not a command: it is empty, or a quote is not closed")]
    Malformed(String),
}

/// The program and its arguments. Callers append the script's path.
///
/// Source: <https://circleci.com/docs/reference/configuration-reference/#default-shell-options>
pub(crate) fn command_line(wanted: Option<&str>, path: &OsStr, directory: &Path) -> Result<Vec<String>, ShellError> {
    let Some(wanted) = wanted else {
        return default(Path::new("/"));
    };
    let mut words = words(wanted).ok_or_else(|| ShellError::Malformed(wanted.to_string()))?;
    match find(&words[0], path, directory) {
        Some(program) => {
            words[0] = program;
            Ok(words)
        }
        None => Err(ShellError::Missing(words.swap_remove(0))),
    }
}

fn default(root: &Path) -> Result<Vec<String>, ShellError> {
    let (bash, sh) = (root.join("bin/bash"), root.join("bin/sh"));
    let line = |program: &Path, arguments: &[&str]| {
        std::iter::once(program.to_string_lossy().into_owned())
            .chain(arguments.iter().map(|argument| (*argument).to_string()))
            .collect()
    };
    if bash.exists() {
        return Ok(line(&bash, &["-eo", "pipefail"]));
    }
    if !sh.exists() {
        return Err(ShellError::NoDefault);
    }
    // CircleCI passes `pipefail` to every `/bin/sh`. A shell that does not know the option would run nothing.
    let knows = Command::new(&sh)
        .args(["-eo", "pipefail", "-c", ":"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    Ok(if knows {
        line(&sh, &["-eo", "pipefail"])
    } else {
        line(&sh, &["-e"])
    })
}

fn find(program: &str, path: &OsStr, directory: &Path) -> Option<String> {
    let runs = |candidate: &PathBuf| {
        candidate
            .metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let found = if program.contains('/') {
        Some(directory.join(program)).filter(runs)
    } else {
        env::split_paths(path).map(|part| part.join(program)).find(runs)
    };
    found.map(|path| path.to_string_lossy().into_owned())
}

/// Splits a line at spaces. Quotes and backslashes work as in a shell; nothing else does. `None` if a quote is not closed or
/// the line is empty.
pub(crate) fn words(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None::<char>);
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().push(characters.next()?),
            (None, _) if character.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    (quote.is_none() && !words.is_empty()).then_some(words)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn a_line_is_split_as_a_shell_would() {
        let check = |line: &str, expect: Option<&[&str]>| {
            assert_eq!(
                words(line),
                expect.map(|words| words.iter().map(|w| w.to_string()).collect()),
                "{line}"
            );
        };
        check("/bin/bash -eo pipefail", Some(&["/bin/bash", "-eo", "pipefail"]));
        check("  /claims   smoke ", Some(&["/claims", "smoke"]));
        check(
            r#"env "A=b c" 'd "e' f\ g """#,
            Some(&["env", "A=b c", "d \"e", "f g", ""]),
        );
        check("", None);
        check("bash 'open", None);
        check("bash \\", None);
    }

    #[test]
    fn a_missing_shell_says_what_to_do() {
        let path = OsStr::new("/usr/bin:/bin");
        let missing = command_line(Some("fish -c"), path, Path::new("/")).unwrap_err();
        assert_eq!(missing, ShellError::Missing("fish".into()));
        assert!(missing.to_string().contains("use an image that has it"));
        assert!(matches!(
            command_line(Some(" "), path, Path::new("/")),
            Err(ShellError::Malformed(_))
        ));
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(default(empty.path()), Err(ShellError::NoDefault));
        assert!(ShellError::NoDefault.to_string().contains("`shell:`"));
    }

    #[test]
    fn the_default_is_bash_or_sh_with_the_options_that_it_knows() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("bin")).unwrap();
        let sh = root.path().join("bin/sh");
        fs::write(&sh, "#!/bin/sh\nexit 2\n").unwrap();
        fs::set_permissions(&sh, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(default(root.path()).unwrap()[1..], ["-e"]);
        fs::write(&sh, "#!/bin/sh\nexit 0\n").unwrap();
        assert_eq!(default(root.path()).unwrap()[1..], ["-eo", "pipefail"]);
        symlink("/bin/sh", root.path().join("bin/bash")).unwrap();
        assert!(default(root.path()).unwrap()[0].ends_with("/bin/bash"));
    }
}
