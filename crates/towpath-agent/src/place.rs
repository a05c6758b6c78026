//! The agent's surroundings: its own directories, the job's home and working directory, and the steps' environment.

use crate::main_entry::AgentOptions;
use nix::unistd::{AccessFlags, access};
use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
};
use towpath_protocol::{JobSpec, Variable, variable};

/// Where programs are when the environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Names under which steps find the agent's own binary.
const NAMES: [&str; 3] = ["circleci", "circleci-agent", "towpath"];

/// What stands still while a job runs.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The agent's own directory.
    pub(crate) state: PathBuf,
    /// What `~` is.
    pub(crate) home: PathBuf,
    /// Where steps run.
    pub(crate) working_directory: PathBuf,
    /// What every step's environment begins with.
    pub(crate) environment: BTreeMap<OsString, OsString>,
}

/// Why a job has no place to run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error("failed to make `{path}`: {source}; name a `working_directory` that this user may write to")]
    WorkingDirectory { path: PathBuf, source: io::Error },
    #[error("failed to make the agent's own `{path}`: {source}")]
    State { path: PathBuf, source: io::Error },
}

impl Place {
    /// Makes what is not there.
    pub(crate) fn prepare(options: &AgentOptions, spec: &JobSpec) -> Result<Self, PlaceError> {
        Self::prepare_in(options, spec, env::vars_os().collect())
    }

    fn prepare_in(
        options: &AgentOptions,
        spec: &JobSpec,
        mut environment: BTreeMap<OsString, OsString>,
    ) -> Result<Self, PlaceError> {
        let state = &options.state_directory;
        let failed = |source| PlaceError::State {
            path: state.clone(),
            source,
        };
        for directory in ["bin", "scripts", "logs"] {
            fs::create_dir_all(state.join(directory)).map_err(failed)?;
        }
        let state = fs::canonicalize(state).map_err(failed)?;
        let failed = |source| PlaceError::State {
            path: state.clone(),
            source,
        };
        let itself = env::current_exe().map_err(failed)?;
        for name in NAMES {
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
        environment.insert(variable::JOB_TOKEN.into(), options.token.expose().into());
        environment.insert(variable::STATE_DIR.into(), state.clone().into());

        let mut place = Self {
            working_directory: PathBuf::new(),
            state,
            home,
            environment,
        };
        let wanted = place.expand(&spec.working_directory, &place.home);
        fs::create_dir_all(&wanted)
            .and_then(|()| fs::canonicalize(&wanted))
            .map(|path| place.working_directory = path)
            .map_err(|source| PlaceError::WorkingDirectory { path: wanted, source })?;
        Ok(place)
    }

    /// A path as it is written in a configuration: `~` is the home, anything relative is under `base`. Environment
    /// variables are not expanded.
    pub(crate) fn expand(&self, written: &str, base: &Path) -> PathBuf {
        let path = match written.strip_prefix('~') {
            Some("") => self.home.clone(),
            Some(rest) if rest.starts_with('/') => self.home.join(rest.trim_start_matches('/')),
            _ => base.join(written),
        };
        path.components().filter(|part| *part != Component::CurDir).collect()
    }

    /// A path of a step.
    pub(crate) fn path(&self, written: &str) -> PathBuf {
        self.expand(written, &self.working_directory)
    }

    /// The environment of a step: its own variables over the job's, and the agent's names first on the `PATH`.
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

    /// Made by `circleci-agent step halt`.
    pub(crate) fn halt_file(&self) -> PathBuf {
        halt_file(&self.state)
    }

    /// Writes a step's script down.
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
        // What the kernel cannot hand on is left out rather than making every step fail.
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

    fn prepare(working_directory: &str, job: &[Variable], image: &[(&str, &str)]) -> (tempfile::TempDir, Place) {
        let root = tempfile::tempdir().unwrap();
        let options = AgentOptions {
            socket: "/nowhere/agent.sock".into(),
            token: SecretString::new("job-token".into()),
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
            cache_key_values: towpath_protocol::CacheKeyValues::default(),
            time_limit_seconds: None,
            log_limit_bytes: None,
        };
        let image = image
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)))
            .collect();
        let place = Place::prepare_in(&options, &spec, image).unwrap();
        (root, place)
    }

    #[test]
    fn the_step_wins_over_the_job_and_the_job_over_the_image() {
        let (_root, place) = prepare(
            "~/project",
            &[set("A", "job"), set("B", "job"), set("PATH", "/job/bin:$PATH")],
            &[("A", "image"), ("C", "image")],
        );
        let environment = place.step_environment(&[set("B", "step"), set("bad=name", "x")]);
        let get = |name: &str| environment[OsStr::new(name)].to_str().unwrap().to_string();
        assert_eq!(
            (get("A").as_str(), get("B").as_str(), get("C").as_str()),
            ("job", "step", "image")
        );
        assert_eq!(get("PATH"), format!("{}/bin:/job/bin:$PATH", place.state.display()));
        assert_eq!(get(variable::JOB_TOKEN), "job-token");
        assert!(Path::new(&get("BASH_ENV")).exists());
        assert!(!environment.contains_key(OsStr::new("bad=name")));
    }

    #[test]
    fn a_home_that_cannot_be_made_is_replaced() {
        let (_root, place) = prepare("~/project", &[], &[("HOME", "/proc/nobody/home")]);
        assert_eq!(place.home, place.state.join("home"));
        assert_eq!(place.working_directory, place.home.join("project"));
        assert!(place.working_directory.is_dir());
    }

    #[test]
    fn paths_are_expanded_as_circleci_does() {
        let (_root, place) = prepare("~/project", &[], &[]);
        let check = |written: &str, expect: PathBuf| assert_eq!(place.path(written), expect, "{written}");
        check("~", place.home.clone());
        check("~/x", place.home.join("x"));
        check("~x", place.working_directory.join("~x"));
        check(".", place.working_directory.clone());
        check("./a/./b", place.working_directory.join("a/b"));
        check("/abs", PathBuf::from("/abs"));
        check("$HOME/x", place.working_directory.join("$HOME/x"));
    }
}
