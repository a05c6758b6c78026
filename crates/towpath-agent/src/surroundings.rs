//! Where a job runs: the agent's own directories, the job's home and working directory, and the steps' environment.

use crate::{git_remote, options::AgentOptions};
use nix::{
    sys::prctl,
    unistd::{AccessFlags, access},
};
use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
};
use towpath_protocol::{JobSpec, Variable, variable};

/// The `PATH` of an environment without one.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Names under which steps find the agent's own binary.
const NAMES: [&str; 4] = ["circleci", "circleci-agent", "towpath", git_remote::PROGRAM];

/// The name of the program that says why it cannot make anybody root.
const SUDO: &str = "sudo";

/// Where a job runs. None of it changes while the job runs.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    /// The agent's own directory.
    pub(crate) state: PathBuf,
    /// The meaning of `~`.
    pub(crate) home: PathBuf,
    pub(crate) working_directory: PathBuf,
    /// The environment of every step, before the step's own variables.
    pub(crate) environment: BTreeMap<OsString, OsString>,
}

/// Why a job has nowhere to run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SurroundingsError {
    #[error("failed to create `{path}`: {source}; set `working_directory` to one that this user may write to")]
    WorkingDirectory { path: PathBuf, source: io::Error },
    #[error("failed to prepare the agent's own directory `{path}`: {source}")]
    State { path: PathBuf, source: io::Error },
}

impl Surroundings {
    /// Creates the directories that are missing and computes the environment.
    pub(crate) fn prepare(options: &AgentOptions, spec: &JobSpec) -> Result<Self, SurroundingsError> {
        // A container's own `sudo` may be one that works without changing the user.
        let refuses_sudo = spec.on_host && prctl::get_no_new_privs().unwrap_or(false);
        Self::prepare_in(options, spec, env::vars_os().collect(), refuses_sudo)
    }

    fn prepare_in(
        options: &AgentOptions,
        spec: &JobSpec,
        mut environment: BTreeMap<OsString, OsString>,
        refuses_sudo: bool,
    ) -> Result<Self, SurroundingsError> {
        let state = &options.state_directory;
        let failed = |source| SurroundingsError::State {
            path: state.clone(),
            source,
        };
        for directory in ["bin", "scripts", "logs"] {
            fs::create_dir_all(state.join(directory)).map_err(failed)?;
        }
        let state = fs::canonicalize(state).map_err(failed)?;
        let failed = |source| SurroundingsError::State {
            path: state.clone(),
            source,
        };
        let itself = env::current_exe().map_err(failed)?;
        for name in NAMES.into_iter().chain(refuses_sudo.then_some(SUDO)) {
            let link = state.join("bin").join(name);
            match fs::remove_file(&link) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => symlink(&itself, link).map_err(failed)?,
            }
        }
        overlay(&mut environment, &spec.environment);
        let home = environment
            .get(OsStr::new("HOME"))
            .map(PathBuf::from)
            .filter(|home| home.is_absolute() && is_writable(home))
            .unwrap_or_else(|| state.join("home"));
        fs::create_dir_all(&home).map_err(failed)?;

        let bash_env = state.join("bash_env");
        if !bash_env.exists() {
            fs::write(&bash_env, "").map_err(failed)?;
        }
        environment
            .entry("BASH_ENV".into())
            .or_insert_with(|| bash_env.clone().into());
        environment
            .entry("CIRCLE_SHELL_ENV".into())
            .or_insert_with(|| bash_env.into());
        environment.insert("HOME".into(), home.clone().into());
        environment.insert(variable::AGENT_SOCKET.into(), options.socket.clone().into());
        environment.remove(OsStr::new(variable::AGENT_TOKEN));
        if let Some(token) = &spec.step_token {
            environment.insert(variable::JOB_TOKEN.into(), token.expose().into());
        }
        environment.insert(variable::STATE_DIR.into(), state.clone().into());
        if let Some(repositories) = &spec.repositories {
            git_remote::configure(&mut environment, repositories);
        }

        let mut surroundings = Self {
            working_directory: PathBuf::new(),
            state,
            home,
            environment,
        };
        let wanted = surroundings.expand(&spec.working_directory, &surroundings.home);
        fs::create_dir_all(&wanted)
            .and_then(|()| fs::canonicalize(&wanted))
            .map(|path| surroundings.working_directory = path)
            .map_err(|source| SurroundingsError::WorkingDirectory { path: wanted, source })?;
        Ok(surroundings)
    }

    /// Expands a path from a configuration: `~` is the home, and relative paths are below `base`. Does not expand environment
    /// variables.
    pub(crate) fn expand(&self, written: &str, base: &Path) -> PathBuf {
        let path = match written.strip_prefix('~') {
            Some("") => self.home.clone(),
            Some(rest) if rest.starts_with('/') => self.home.join(rest.trim_start_matches('/')),
            _ => base.join(written),
        };
        path.components().filter(|part| *part != Component::CurDir).collect()
    }

    /// Expands a path from a step, relative to the working directory.
    pub(crate) fn path(&self, written: &str) -> PathBuf {
        self.expand(written, &self.working_directory)
    }

    /// The environment of a step: the job's variables, overridden by the step's own, and the agent first on the `PATH`.
    pub(crate) fn step_environment(&self, own: &[Variable]) -> BTreeMap<OsString, OsString> {
        let mut environment = self.environment.clone();
        overlay(&mut environment, own);
        let rest = environment.get(OsStr::new("PATH")).filter(|path| !path.is_empty());
        let mut path = OsString::from(self.state.join("bin"));
        path.push(":");
        path.push(rest.map_or(OsStr::new(DEFAULT_PATH), OsString::as_os_str));
        environment.insert("PATH".into(), path);
        environment
    }

    /// The file that `circleci-agent step halt` creates.
    pub(crate) fn halt_file(&self) -> PathBuf {
        halt_file(&self.state)
    }

    /// Writes a step's script to a file.
    pub(crate) fn write_script(&self, step: u32, command: &str) -> io::Result<PathBuf> {
        let path = self.state.join("scripts").join(format!("{step}.sh"));
        let mut text = command.to_string();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        Ok(path)
    }
}

pub(crate) fn halt_file(state: &Path) -> PathBuf {
    state.join("halt")
}

fn overlay(environment: &mut BTreeMap<OsString, OsString>, variables: &[Variable]) {
    for variable in variables {
        // Leave out what the kernel would not accept: it would make every step fail.
        let good = !variable.name.is_empty() && !variable.name.contains(['=', '\0']);
        if good && !variable.value.expose().contains('\0') {
            environment.insert(variable.name.clone().into(), variable.value.expose().into());
        }
    }
}

fn is_writable(directory: &Path) -> bool {
    fs::create_dir_all(directory).is_ok() && access(directory, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use towpath_types::{JobId, SecretString};

    fn set(name: &str, value: &str) -> Variable {
        Variable {
            name: name.into(),
            value: SecretString::new(value.into()),
        }
    }

    fn prepare(working_directory: &str, job: &[Variable], image: &[(&str, &str)]) -> (tempfile::TempDir, Surroundings) {
        let root = tempfile::tempdir().unwrap();
        let options = AgentOptions {
            socket: "/nowhere/agent.sock".into(),
            token: SecretString::new("agent-token".into()),
            state_directory: root.path().join("state"),
        };
        let spec = JobSpec {
            id: JobId::from_u128(1),
            node_index: 0,
            node_total: 1,
            name: "test".into(),
            working_directory: working_directory.into(),
            shell: None,
            environment: job.to_vec(),
            mask: Vec::new(),
            steps: Vec::new(),
            repositories: None,
            cache_key_values: towpath_protocol::CacheKeyValues::default(),
            time_limit_seconds: None,
            log_limit_bytes: None,
            on_host: false,
            step_token: Some(SecretString::new("step-token".into())),
        };
        let image = image
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)))
            .collect();
        let surroundings = Surroundings::prepare_in(&options, &spec, image, false).unwrap();
        (root, surroundings)
    }

    #[test]
    fn the_step_wins_over_the_job_and_the_job_over_the_image() {
        let (_root, surroundings) = prepare(
            "~/project",
            &[set("A", "job"), set("B", "job"), set("PATH", "/job/bin:$PATH")],
            &[("A", "image"), ("C", "image"), (variable::AGENT_TOKEN, "agent-token")],
        );
        let environment = surroundings.step_environment(&[set("B", "step"), set("bad=name", "x")]);
        let get = |name: &str| environment[OsStr::new(name)].to_str().unwrap().to_string();
        assert_eq!(
            (get("A").as_str(), get("B").as_str(), get("C").as_str()),
            ("job", "step", "image")
        );
        assert_eq!(
            get("PATH"),
            format!("{}/bin:/job/bin:$PATH", surroundings.state.display())
        );
        assert_eq!(get(variable::JOB_TOKEN), "step-token");
        assert!(!environment.values().any(|value| value == "agent-token"));
        assert!(Path::new(&get("BASH_ENV")).exists());
        assert!(!environment.contains_key(OsStr::new("bad=name")));
    }

    #[test]
    fn a_home_that_cannot_be_created_is_replaced() {
        let (_root, surroundings) = prepare("~/project", &[], &[("HOME", "/proc/nobody/home")]);
        assert_eq!(surroundings.home, surroundings.state.join("home"));
        assert_eq!(surroundings.working_directory, surroundings.home.join("project"));
        assert!(surroundings.working_directory.is_dir());
    }

    #[test]
    fn paths_are_expanded_as_circleci_does() {
        let (_root, surroundings) = prepare("~/project", &[], &[]);
        let check = |written: &str, expect: PathBuf| assert_eq!(surroundings.path(written), expect, "{written}");
        check("~", surroundings.home.clone());
        check("~/x", surroundings.home.join("x"));
        check("~x", surroundings.working_directory.join("~x"));
        check(".", surroundings.working_directory.clone());
        check("./a/./b", surroundings.working_directory.join("a/b"));
        check("/abs", PathBuf::from("/abs"));
        check("$HOME/x", surroundings.working_directory.join("$HOME/x"));
    }
}
