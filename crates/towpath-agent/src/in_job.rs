//! The commands `circleci` and `circleci-agent`, as steps call them.
//!
//! Source: <https://circleci.com/docs/reference/configuration-reference/#ending-a-job-from-within-a-step>

use crate::{client::Client, doublestar, env_subst, surroundings::halt_file, test_split::share};
use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
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
        ["version" | "--version", ..] => print(concat!("towpath ", env!("CARGO_PKG_VERSION"), "\n").as_bytes()),
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

/// Stands in for `sudo` in jobs that cannot become root, and says why.
#[must_use]
pub fn sudo_main() -> ExitCode {
    eprintln!(
        "sudo: this job cannot become root: on this machine each job runs as a user of its own. Install what the job needs on \
         the machine, give the job a `docker` executor, or start the server with `--host-jobs-user server`, which lets every \
         job do whatever the server can."
    );
    ExitCode::FAILURE
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

fn print(text: &[u8]) -> Result<(), String> {
    io::stdout()
        .write_all(text)
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
    let mut found = Vec::new();
    for pattern in patterns {
        let paths = doublestar::matches(Path::new(""), pattern);
        for path in paths.map_err(|error| format!("`{pattern}` is not a pattern: {error}"))? {
            found.extend_from_slice(path.as_os_str().as_bytes());
            found.push(b'\n');
        }
    }
    print(&found)
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
    Ok(names_in(&text, |word| Path::new(word).exists()))
}

/// The names in `text`, one a line. A line that lists several files, as `echo $FILES` prints them, holds several names.
fn names_in(text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut names = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.len() > 1 && !exists(line) && words.iter().all(|word| exists(word)) {
            names.extend(words.into_iter().map(str::to_string));
        } else {
            names.push(line.to_string());
        }
    }
    names
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
            let default = match options.values.get("time-default") {
                Some(text) => {
                    duration(text).ok_or_else(|| format!("`{text}` is not a time for --time-default: `10s`"))?
                }
                None => 0.01,
            };
            let weight = |name: &str| seconds.get(name).copied().unwrap_or(default);
            Ok(share(names, Some(&weight), index, total))
        }
        other => Err(format!("tests cannot be split by `{other}` (name, filesize, timings)")),
    }
}

/// `10s`, `1.5m`, `200ms`, in seconds.
fn duration(text: &str) -> Option<f64> {
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (number, unit) = units
        .iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))
        .unwrap_or((text, 1.0));
    let seconds = number.parse::<f64>().ok()? * unit;
    (seconds.is_finite() && seconds >= 0.0).then_some(seconds)
}

/// How long each file took. It finds a file by any of its names.
///
/// Test reporters write `./spec/x.rb` or an absolute path where `tests glob` prints `spec/x.rb`.
struct FileTimes {
    directory: PathBuf,
    /// Keyed by the path relative to the working directory, or by the absolute path of a file outside of it.
    seconds: BTreeMap<PathBuf, f64>,
    /// The absolute paths, keyed by their last part, because another job's working directory may differ.
    elsewhere: BTreeMap<OsString, Vec<PathBuf>>,
}

impl FileTimes {
    fn new(known: &BTreeMap<String, f64>, directory: &Path) -> Self {
        let mut times = Self {
            directory: directory.to_path_buf(),
            seconds: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
        };
        for (name, seconds) in known {
            let path = times.below(name);
            if let (true, Some(last)) = (path.is_absolute(), path.file_name()) {
                times
                    .elsewhere
                    .entry(last.to_os_string())
                    .or_default()
                    .push(path.clone());
            }
            *times.seconds.entry(path).or_default() += seconds;
        }
        times
    }

    fn below(&self, name: &str) -> PathBuf {
        let path: PathBuf = Path::new(name)
            .components()
            .filter(|part| *part != Component::CurDir)
            .collect();
        match path.strip_prefix(&self.directory) {
            Ok(below) => below.to_path_buf(),
            Err(_) => path,
        }
    }

    fn get(&self, name: &str) -> Option<f64> {
        let path = self.below(name);
        if let Some(seconds) = self.seconds.get(&path) {
            return Some(*seconds);
        }
        let known = self.elsewhere.get(path.file_name()?)?;
        let mut same = known.iter().filter(|whole| whole.ends_with(&path));
        match (same.next(), same.next()) {
            (Some(one), None) => self.seconds.get(one).copied(),
            _ => None,
        }
    }
}

/// How long these tests took, keyed by the kind of name that matches them.
fn timings(names: &[String], kind: &str) -> Option<BTreeMap<String, f64>> {
    let known = ask_timings()?;
    let files = FileTimes::new(&known.by_file, &env::current_dir().unwrap_or_default());
    let of_files = || {
        names
            .iter()
            .filter_map(|name| Some((name.clone(), files.get(name)?)))
            .collect()
    };
    let of_tests = |known: &BTreeMap<String, f64>| {
        let times = names.iter().filter_map(|name| Some((name.clone(), *known.get(name)?)));
        times.collect::<BTreeMap<String, f64>>()
    };
    let times = match kind {
        "filename" | "file" => of_files(),
        "classname" => of_tests(&known.by_class),
        "testname" => of_tests(&known.by_name),
        _ => {
            let mut kinds = [of_files(), of_tests(&known.by_class), of_tests(&known.by_name)].into_iter();
            kinds.find(|times| !times.is_empty()).unwrap_or_default()
        }
    };
    (!times.is_empty()).then_some(times)
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
    let lines: String = share.iter().map(|name| format!("{name}\n")).collect();
    print(lines.as_bytes())
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
    let lookup = |name: &str| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    print(env_subst::substituted(&text, &lookup)?.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_writes_them() {
        for (text, expected) in [
            ("10s", Some(10.0)),
            ("1.5m", Some(90.0)),
            ("200ms", Some(0.2)),
            ("1h", Some(3600.0)),
            ("7", Some(7.0)),
            ("-1s", None),
            ("soon", None),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
    }

    #[test]
    fn a_name_is_a_line() {
        let exists = |word: &str| matches!(word, "a.rb" | "b.rb" | "with blank.rb");
        let check = |text: &str, expected: &[&str]| assert_eq!(names_in(text, exists), expected, "{text}");
        check("a.rb\nwith blank.rb\r\n\n", &["a.rb", "with blank.rb"]);
        check("a test\nb test\n", &["a test", "b test"]);
        check("a.rb b.rb\n", &["a.rb", "b.rb"]);
        check("a.rb gone.rb", &["a.rb gone.rb"]);
    }

    #[test]
    fn a_file_has_one_time_however_it_is_written() {
        let known = BTreeMap::from([
            ("./spec/a_spec.rb".to_string(), 1.0),
            ("/home/ci/project/spec/b_spec.rb".to_string(), 2.0),
            ("/elsewhere/build/spec/c_spec.rb".to_string(), 3.0),
            ("spec//d_spec.rb".to_string(), 4.0),
            ("spec/d_spec.rb".to_string(), 0.5),
            ("/x/one/e.rb".to_string(), 5.0),
            ("/x/two/e.rb".to_string(), 6.0),
        ]);
        let files = FileTimes::new(&known, Path::new("/home/ci/project"));
        let check = |name: &str, expected: Option<f64>| assert_eq!(files.get(name), expected, "{name}");
        check("spec/a_spec.rb", Some(1.0));
        check("./spec/a_spec.rb", Some(1.0));
        check("/home/ci/project/spec/a_spec.rb", Some(1.0));
        check("spec/b_spec.rb", Some(2.0));
        check("spec/c_spec.rb", Some(3.0));
        check("./spec/./d_spec.rb", Some(4.5));
        check("pec/a_spec.rb", None);
        check("e.rb", None);
        check("two/e.rb", Some(6.0));
    }

    #[test]
    fn options_are_read_in_both_forms() {
        let read = options(&["--split-by=timings", "--index", "2", "--show-counts", "tests.txt"]);
        assert_eq!(read.values["split-by"], "timings");
        assert_eq!(read.values["index"], "2");
        assert_eq!(read.rest, ["tests.txt"]);
    }
}
