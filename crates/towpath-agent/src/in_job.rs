//! The commands `circleci` and `circleci-agent`, as steps call them.
//!
//! Source: <https://circleci.com/docs/reference/configuration-reference/#ending-a-job-from-within-a-step>

use crate::{client::Client, surroundings::halt_file, test_split::share};
use std::{
    collections::BTreeMap,
    env,
    io::{self, Read, Write},
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};
use towpath_protocol::{TestTimings, route, variable};
use towpath_types::SecretString;

/// Runs the `circleci` command of a step. `arguments` do not include the program's name.
///
/// Results go to standard output, errors to standard error with exit code 1. Unknown commands have exit code 2.
#[must_use]
pub fn in_job_main(arguments: impl Iterator<Item = String>) -> ExitCode {
    let arguments: Vec<String> = arguments.collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["step" | "task", "halt", ..] => halt(),
        ["tests", "glob", patterns @ ..] => glob(patterns),
        ["tests", "split", rest @ ..] => split(rest),
        ["tests", "run", rest @ ..] => return run(rest),
        ["env", "subst", rest @ ..] => substitute(rest),
        ["version" | "--version", ..] => print(concat!("towpath ", env!("CARGO_PKG_VERSION"), "\n")),
        _ => {
            eprintln!(
                "circleci {}: unknown command (known: step halt, tests glob, tests split, tests run, env subst, version)",
                words.join(" ")
            );
            return ExitCode::from(2);
        }
    };
    finish(done)
}

fn finish(done: Result<(), String>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("Error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> Result<(), String> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| format!("failed to write: {error}"))
}

fn state_directory() -> Result<PathBuf, String> {
    let state = env::var_os(variable::STATE_DIR).filter(|value| !value.is_empty());
    state
        .map(PathBuf::from)
        .ok_or_else(|| "this command works in a step of a job only".to_string())
}

fn halt() -> Result<(), String> {
    let file = halt_file(&state_directory()?);
    std::fs::write(&file, "").map_err(|error| format!("failed to write `{}`: {error}", file.display()))
}

fn glob(patterns: &[&str]) -> Result<(), String> {
    let mut text = String::new();
    for pattern in patterns {
        for one in braces(pattern) {
            let paths = glob::glob(&one).map_err(|error| format!("`{pattern}` is not a pattern: {error}"))?;
            for path in paths.flatten() {
                text.push_str(&path.to_string_lossy());
                text.push('\n');
            }
        }
    }
    print(&text)
}

/// Expands `a{b,c}d` to `abd` and `acd`. Braces without a comma, or without an end, stay as they are.
fn braces(pattern: &str) -> Vec<String> {
    let Some((before, rest)) = pattern.split_once('{') else {
        return vec![pattern.to_string()];
    };
    let mut depth = 1;
    let mut cuts = Vec::new();
    for (at, character) in rest.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => cuts.push(at),
            _ => {}
        }
        if depth == 0 {
            if cuts.is_empty() {
                break;
            }
            let mut from = 0;
            let mut choices = Vec::new();
            for cut in cuts.into_iter().chain([at]) {
                choices.push(&rest[from..cut]);
                from = cut + 1;
            }
            let after = &rest[at + 1..];
            return choices
                .into_iter()
                .flat_map(|choice| braces(&format!("{before}{choice}{after}")))
                .collect();
        }
    }
    vec![pattern.to_string()]
}

/// The options of `tests split` and `tests run`.
#[derive(Debug, Default)]
struct Options {
    values: BTreeMap<String, String>,
    rest: Vec<String>,
}

fn options(arguments: &[&str]) -> Options {
    let mut options = Options::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.strip_prefix("--") {
            Some(name) => {
                let (name, value) = match name.split_once('=') {
                    Some((name, value)) => (name, value.to_string()),
                    None if matches!(name, "show-counts" | "verbose") => (name, String::new()),
                    None => (name, arguments.next().map(ToString::to_string).unwrap_or_default()),
                };
                options.values.insert(name.to_string(), value);
            }
            None => options.rest.push((*argument).to_string()),
        }
    }
    options
}

fn node(options: &Options, name: &str, variable: &str, default: usize) -> Result<usize, String> {
    let text = options.values.get(name).cloned().or_else(|| env::var(variable).ok());
    match text {
        Some(text) => text
            .parse()
            .map_err(|_| format!("`{text}` is not a number for --{name}")),
        None => Ok(default),
    }
}

fn names(options: &Options) -> Result<Vec<String>, String> {
    let text = match options.rest.first() {
        Some(file) => std::fs::read_to_string(file).map_err(|error| format!("failed to read `{file}`: {error}"))?,
        None => {
            let mut text = String::new();
            io::stdin()
                .read_to_string(&mut text)
                .map_err(|error| format!("failed to read the tests' names: {error}"))?;
            text
        }
    };
    Ok(text.split_whitespace().map(str::to_string).collect())
}

fn own_share(options: &Options) -> Result<Vec<String>, String> {
    let names = names(options)?;
    let index = node(options, "index", "CIRCLE_NODE_INDEX", 0)?;
    let total = node(options, "total", "CIRCLE_NODE_TOTAL", 1)?;
    if index >= total {
        return Err(format!("node {index} is not one of {total}"));
    }
    if options.values.contains_key("show-counts") {
        eprintln!("{} tests on {total} nodes", names.len());
    }
    match options.values.get("split-by").map_or("name", String::as_str) {
        "name" => Ok(share(names, None, index, total)),
        "filesize" => {
            #[allow(clippy::cast_precision_loss)]
            let size = |name: &str| std::fs::metadata(name).map_or(0.0, |metadata| metadata.len() as f64);
            Ok(share(names, Some(&size), index, total))
        }
        "timings" => {
            let kind = options.values.get("timings-type").map_or("autodetect", String::as_str);
            let Some(seconds) = timings(&names, kind) else {
                eprintln!("Error auto-detecting timing type, falling back to weighting by name.");
                return Ok(share(names, None, index, total));
            };
            let weight = |name: &str| seconds.get(name).copied().unwrap_or(0.01);
            Ok(share(names, Some(&weight), index, total))
        }
        other => Err(format!("tests cannot be split by `{other}` (name, filesize, timings)")),
    }
}

/// What is known of how long tests took, by the kind of name that fits these.
fn timings(names: &[String], kind: &str) -> Option<BTreeMap<String, f64>> {
    let known = ask_timings()?;
    let fits = |map: &BTreeMap<String, f64>| names.iter().any(|name| map.contains_key(name));
    match kind {
        "filename" | "file" => Some(known.by_file).filter(fits),
        "classname" => Some(known.by_class).filter(fits),
        "testname" => Some(known.by_name).filter(fits),
        _ => [known.by_file, known.by_class, known.by_name].into_iter().find(fits),
    }
}

fn ask_timings() -> Option<TestTimings> {
    let socket = env::var_os(variable::AGENT_SOCKET)?;
    let token = SecretString::new(env::var(variable::JOB_TOKEN).ok()?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    runtime
        .block_on(Client::new(socket.into(), token).get_json(route::TEST_TIMINGS))
        .ok()?
}

fn split(arguments: &[&str]) -> Result<(), String> {
    let share = own_share(&options(arguments))?;
    print(&share.iter().map(|name| format!("{name}\n")).collect::<String>())
}

/// Runs a command with this node's share of the tests on its standard input. Runs nothing when the share is empty.
fn run(arguments: &[&str]) -> ExitCode {
    let options = options(arguments);
    let Some(command) = options.values.get("command") else {
        return finish(Err("tests run needs --command=\"…\"".into()));
    };
    let share = match own_share(&options) {
        Ok(share) if share.is_empty() => {
            eprintln!("No tests for this node.");
            return ExitCode::SUCCESS;
        }
        Ok(share) => share,
        Err(message) => return finish(Err(message)),
    };
    let child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        .spawn();
    let ended = child.and_then(|mut child| {
        if let Some(mut input) = child.stdin.take() {
            // A command that does not read all of its input has not failed.
            let _ = input
                .write_all(share.join("\n").as_bytes())
                .and_then(|()| input.write_all(b"\n"));
        }
        child.wait()
    });
    match ended {
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        Err(error) => finish(Err(format!("failed to run `{command}`: {error}"))),
    }
}

fn substitute(rest: &[&str]) -> Result<(), String> {
    let text = if rest.is_empty() {
        let mut text = String::new();
        io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| format!("failed to read: {error}"))?;
        text
    } else {
        rest.join(" ")
    };
    print(&substituted(&text, |name| env::var(name).unwrap_or_default()))
}

/// Replaces `$X` and `${X}`. A dollar sign before anything else stays.
fn substituted(text: &str, value: impl Fn(&str) -> String) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some((name, tail)) = after.strip_prefix('{').and_then(|inner| inner.split_once('}'))
            && !name.is_empty()
            && name.chars().all(is_name)
        {
            out.push_str(&value(name));
            rest = tail;
            continue;
        }
        let end = after.find(|c| !is_name(c)).unwrap_or(after.len());
        if end == 0 {
            out.push('$');
        } else {
            out.push_str(&value(&after[..end]));
        }
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_are_expanded() {
        assert_eq!(braces("spec/{a,b}/*.rb"), ["spec/a/*.rb", "spec/b/*.rb"]);
        assert_eq!(braces("{a,{b,c}}"), ["a", "b", "c"]);
        assert_eq!(braces("{a}"), ["{a}"]);
        assert_eq!(braces("{a"), ["{a"]);
    }

    #[test]
    fn variables_are_substituted() {
        let value = |name: &str| if name == "X" { "1".to_string() } else { String::new() };
        let check = |text: &str, expected: &str| assert_eq!(substituted(text, value), expected, "{text}");
        check("a $X b ${X}c $Y.", "a 1 b 1c .");
        check("100$ $", "100$ $");
        check("${", "${");
        check("${a-b}", "${a-b}");
    }

    #[test]
    fn options_are_read_in_both_forms() {
        let read = options(&["--split-by=timings", "--index", "2", "--show-counts", "tests.txt"]);
        assert_eq!(read.values["split-by"], "timings");
        assert_eq!(read.values["index"], "2");
        assert_eq!(read.rest, ["tests.txt"]);
    }
}
