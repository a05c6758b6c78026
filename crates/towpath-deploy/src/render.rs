//! Rendering: runs Kustomize and Helm on an environment's files, and replaces the files by the output.
//!
//! **Invariants.** A repository without Kustomize and Helm costs nothing: no program is searched for, nothing is hashed. A
//! program sees only a temporary folder with the given files: no configuration of the server's account, and no network, unless
//! a kustomization takes something from where whoever runs Towpath allows it. Its output depends only on the given files, so
//! it can be cached.
//!
//! **It does not know** where the files come from, or what happens to the output.

mod remote;
mod unstable;

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
    sync::{OnceCell, Semaphore},
};
use towpath_manifest::{
    Dependence, ManifestContent, ManifestFile, Named, RemoteReference, RenderedFiles, UnstableCall, at_another_time,
    is_kustomization, remote_references, unstable_calls,
};
pub use towpath_manifest::{Diagnostic, Layout, LayoutSettings, RenderedBy, RenderedEnvironment, is_yaml};
use towpath_types::{Digest, Digester};

/// The variable with the beginnings of URLs that kustomizations may take files from, separated by commas.
pub const REMOTE_VARIABLE: &str = "TOWPATH_KUSTOMIZE_URL_PREFIX";
/// How long a program may take. Normal rendering takes seconds at most; anything longer hangs.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// The most bytes that a program may print.
const OUTPUT_LIMIT: usize = 32 << 20;
/// What Helm says when it leaves out a hook with an unknown event.
///
/// Source: <https://github.com/helm/helm/blob/main/pkg/release/util/manifest_sorter.go>
const UNKNOWN_HOOK: &str = "skipping unknown hook";
/// How many bytes of its errors to keep.
const COMPLAINT_LIMIT: usize = 16 << 10;
/// How many environments to keep in the cache.
const REMEMBERED: usize = 32;
/// How many bytes of output to keep in the cache.
const REMEMBERED_BYTES: usize = 64 << 20;
/// How many programs may run at once, because each occupies a processor.
const AT_ONCE: usize = 2;

/// Why an environment could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The program is not installed.
    #[error("`{folder}` is rendered by {by}, but the server finds no {wanted}: {remedy}")]
    Missing {
        /// The environment's folder.
        folder: String,
        /// The kind of renderer.
        by: &'static str,
        /// The names of the program that were searched for.
        wanted: &'static str,
        /// How to install it.
        remedy: &'static str,
    },
    /// A file that the environment may depend on cannot be read.
    #[error("`{folder}` cannot be rendered:\n{}", .files.join("\n"))]
    Unread {
        /// The environment's folder.
        folder: String,
        /// A sentence for each file.
        files: Vec<String>,
    },
    /// A file cannot be written to the program's folder.
    #[error(
        "`{path}` names no file of the repository, so `{folder}` cannot be rendered: a path has no `..`, no `\\` and no empty part"
    )]
    Path {
        /// The environment's folder.
        folder: String,
        /// The path as the caller gave it.
        path: String,
    },
    /// The files could not be written for the program.
    #[error("failed to write the files that `{folder}` is rendered from")]
    Write {
        /// The environment's folder.
        folder: String,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The program could not be run.
    #[error("failed to run `{program}` to render `{folder}`")]
    Run {
        /// The environment's folder.
        folder: String,
        /// The program's name.
        program: String,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The program failed.
    #[error("{program} cannot render `{folder}`:\n{message}{}", .hint.map(|hint| format!("\nhint: {hint}")).unwrap_or_default())]
    Refused {
        /// The environment's folder.
        folder: String,
        /// The program's name.
        program: String,
        /// Its error message, with paths from the repository's root.
        message: String,
        /// The remedy, if the message does not name it.
        hint: Option<&'static str>,
    },
    /// A kustomization takes something from elsewhere, which is not allowed.
    #[error(
        "`{folder}` takes files from elsewhere than the repository, which is not allowed:\n{}\nhint: copy them into the repository \
         (`kustomize localize` does), so that a commit always means the same; or whoever runs Towpath allows the beginning of the \
         URL in {REMOTE_VARIABLE}, such as `{REMOTE_VARIABLE}=https://github.com/my-team/`",
        .references.join("\n")
    )]
    Remote {
        /// The environment's folder.
        folder: String,
        /// Each reference with its place.
        references: Vec<String>,
    },
    /// The program renders something else each time.
    #[error(
        "`{folder}` renders to something else each time, so no plan of it would stay as somebody has seen it:\n{}\nhint: give the \
         value in a values file, or take it out of the chart and give it to the environment as a Secret (`towpath secrets`). \
         `lookup` finds nothing while Towpath renders, so it guards nothing",
        .found.join("\n")
    )]
    Unstable {
        /// The environment's folder.
        folder: String,
        /// A sentence for each object that changes, with the places of the functions that change it.
        found: Vec<String>,
    },
    /// The program took too long.
    #[error("{program} did not render `{folder}` within {} s, and was stopped", .limit.as_secs())]
    TooSlow {
        /// The environment's folder.
        folder: String,
        /// The program's name.
        program: String,
        /// How long it may take.
        limit: Duration,
    },
    /// The program printed too much.
    #[error("{program} printed more than {} MiB for `{folder}`, and was stopped", .limit >> 20)]
    TooMuch {
        /// The environment's folder.
        folder: String,
        /// The program's name.
        program: String,
        /// The most bytes that it may print.
        limit: usize,
    },
}

/// An environment that could not be rendered.
#[derive(Debug)]
pub struct RenderFailure {
    /// The kube context of the environment.
    pub kube_context: String,
    /// The name of the environment.
    pub environment: String,
    /// The reason.
    pub error: RenderError,
}

/// A repository's manifests after rendering.
#[derive(Debug, Default)]
pub struct Rendered {
    /// Paths and texts for [`towpath_manifest::Tree::read`]. An environment that was not rendered, because it was not asked for
    /// or because rendering failed, has one empty file, so that the tree knows its name.
    pub files: Vec<(String, String)>,
    /// Errors of the layout. An environment that one of them concerns was not rendered, and must not be deployed.
    pub diagnostics: Vec<Diagnostic>,
    /// The environments that could not be rendered.
    pub failures: Vec<RenderFailure>,
    /// Differences from what the rendering program itself would do, by environment: `(environment, message)`.
    pub warnings: Vec<(String, String)>,
    /// The layout that was recognised.
    pub layout: Layout,
}

/// The result of a program for its input. The same input always gives the same result.
#[derive(Clone)]
enum Outcome {
    Rendered(Arc<RenderedFiles>),
    Refused(Arc<str>),
    Unstable(Arc<Vec<String>>),
}

impl Rendered {
    /// Why a folder called `environment` is not an environment, if the folder exists and the environment does not.
    #[must_use]
    pub fn why_no_environment(&self, environment: &str) -> Option<String> {
        let (folder, user) = self
            .layout
            .shared()
            .find(|(folder, _)| folder.rsplit('/').next() == Some(environment))?;
        (self.layout.named(environment) == Named::No)
            .then(|| format!("`{folder}` is no environment: `{user}` is made from it"))
    }
}

/// Runs Kustomize and Helm, and caches their output.
pub struct Renderer {
    path: OsString,
    /// The beginnings of URLs that kustomizations may take files from.
    remote: Vec<String>,
    time_limit: Duration,
    running: Semaphore,
    remembered: Mutex<VecDeque<(Digest, Outcome)>>,
    /// The prefix of the command line that cuts a program off from the network; empty if the machine does not support that.
    apart: OnceCell<Vec<OsString>>,
}

impl Default for Renderer {
    /// Finds the programs on this process's `PATH`, and allows what [`REMOTE_VARIABLE`] says.
    fn default() -> Self {
        let renderer = Self::with_path(std::env::var_os("PATH").unwrap_or_default());
        let allowed = std::env::var(REMOTE_VARIABLE).unwrap_or_default();
        renderer.allow(allowed.split(','))
    }
}

impl Renderer {
    /// Finds the programs in the folders of `path`, which has the form of `PATH`.
    #[must_use]
    pub fn with_path(path: impl Into<OsString>) -> Self {
        Self {
            path: path.into(),
            remote: Vec::new(),
            time_limit: TIME_LIMIT,
            running: Semaphore::new(AT_ONCE),
            remembered: Mutex::default(),
            apart: OnceCell::new(),
        }
    }

    /// Allows kustomizations to take files from URLs that begin with one of `prefixes`: `https://github.com/my-team/`. Ignores
    /// what is no such beginning: without `https://`, or without a `/` at the end, it would allow more than it says.
    #[must_use]
    pub fn allow<'a>(mut self, prefixes: impl IntoIterator<Item = &'a str>) -> Self {
        let prefixes = prefixes.into_iter().map(str::trim);
        let good = prefixes.filter(|prefix| prefix.starts_with("https://") && prefix.ends_with('/'));
        self.remote.extend(good.map(str::to_string));
        self
    }

    /// Replaces the time limit of a program, which is a minute by default.
    #[must_use]
    pub fn within(mut self, time_limit: Duration) -> Self {
        self.time_limit = time_limit;
        self
    }

    /// Renders the environments in `files` (paths from the repository's root): those called `only`, or all. Does not render an
    /// environment that can depend on an unreadable file, because a program would treat the file as missing.
    ///
    /// With a kustomization or a chart, `files` also contains its files that are not YAML. `settings` is what `towpath.toml` says
    /// about the layout. `project` becomes the name of Helm's releases. `namespace` returns the namespace of a kube context's
    /// environment for which neither its manifests nor `settings` name one.
    ///
    /// May be called concurrently. Dropping the future stops the program.
    pub async fn render(
        &self,
        files: Vec<ManifestFile>,
        settings: &LayoutSettings,
        project: &str,
        only: Option<&str>,
        namespace: impl Fn(&str, &str) -> String,
    ) -> Rendered {
        let mut inputs = Inputs::new();
        let mut unread = Vec::new();
        for file in files {
            match file.wrong() {
                Some(wrong) => unread.push((file.path, wrong)),
                None => inputs.files.push(file),
            }
        }
        // The name of an unreadable file still shows the kind of its folder.
        let known = inputs
            .files
            .iter()
            .map(|file| (file.path.as_str(), file.text_or_nothing()));
        let (layout, diagnostics) = Layout::read(
            known.chain(unread.iter().map(|(path, _)| (path.as_str(), ""))),
            settings,
        );
        let mut rendered = Rendered::default();
        for environment in layout.rendered_environments() {
            let (kube_context, name) = (&environment.kube_context, &environment.environment);
            let is_asked_for = only.is_none_or(|only| only == name);
            let is_wrong =
                |diagnostic: &Diagnostic| diagnostic.is_error() && layout.concerned_by(kube_context, name, diagnostic);
            let concerning = unread.iter().filter(|(path, _)| layout.needs(kube_context, name, path));
            let lacks: Vec<String> = concerning.map(|(_, wrong)| wrong.clone()).collect();
            let outcome = if !is_asked_for || diagnostics.iter().any(is_wrong) {
                Ok(None)
            } else if !lacks.is_empty() {
                Err(RenderError::Unread {
                    folder: environment.folder.clone(),
                    files: lacks,
                })
            } else {
                let said = layout
                    .get(kube_context, name)
                    .and_then(|found| found.namespace.as_ref());
                let namespace = said.map_or_else(|| namespace(kube_context, name), |said| said.value.clone());
                self.one(&layout, environment, &mut inputs, project, &namespace)
                    .await
                    .map(Some)
            };
            match outcome {
                Ok(Some(found)) => {
                    rendered.files.extend(found.files.iter().cloned());
                    let warnings = found.warnings.iter().map(|warning| (name.clone(), warning.clone()));
                    rendered.warnings.extend(warnings);
                    continue;
                }
                Ok(None) => {}
                Err(error) => rendered.failures.push(RenderFailure {
                    kube_context: environment.kube_context.clone(),
                    environment: name.clone(),
                    error,
                }),
            }
            rendered
                .files
                .push((environment.path_of("not rendered"), String::new()));
        }
        rendered.files.extend(inputs.plain(|path| layout.reads_as_it_is(path)));
        rendered.files.sort_unstable();
        rendered.diagnostics = diagnostics;
        rendered.layout = layout;
        rendered
    }

    async fn one(
        &self,
        layout: &Layout,
        environment: &RenderedEnvironment,
        inputs: &mut Inputs,
        project: &str,
        namespace: &str,
    ) -> Result<Arc<RenderedFiles>, RenderError> {
        let references = inputs.remote_references(layout, environment);
        let refused = remote::refused(&references, &self.remote);
        if !refused.is_empty() {
            return Err(RenderError::Remote {
                folder: environment.folder.clone(),
                references: refused,
            });
        }
        let program = Program::find(environment, &self.path)?;
        let arguments = program.arguments(environment, project, namespace);
        let key = key(&program, &arguments, inputs.digest());
        if let Some(known) = self.recall(&key) {
            return known.of(environment, &program);
        }
        // The semaphore is never closed, so this always gets a permit.
        let _turn = self.running.acquire().await.ok();
        // The previous holder of the permit may have rendered the same input.
        if let Some(known) = self.recall(&key) {
            return known.of(environment, &program);
        }
        let network = match references.is_empty() {
            true => Network::Apart,
            false => Network::Allowed,
        };
        let folder = inputs.folder(environment).await?;
        let outcome = match self.run(environment, &program, &arguments, folder, network).await? {
            Ok(printed) => {
                let calls = inputs.unstable_calls(environment);
                let mut rendered = environment.files(&printed);
                let found = match calls.iter().any(|call| call.on != Dependence::Cluster) {
                    true => {
                        let folder = inputs.at_another_time(environment).await?;
                        let again = self.run(environment, &program, &arguments, &folder.1, network).await?;
                        let again = again.map(|printed| environment.files(&printed)).unwrap_or_default();
                        unstable::objects(environment, &rendered, &again, &calls)
                    }
                    false => Vec::new(),
                };
                rendered.warnings.extend(unstable::lookups(&calls));
                rendered.warnings.extend(remote::unpinned(&references));
                match found.is_empty() {
                    true => Outcome::Rendered(Arc::new(rendered)),
                    false => Outcome::Unstable(Arc::new(found)),
                }
            }
            Err(message) => Outcome::Refused(message.into()),
        };
        self.remember(key, outcome.clone());
        outcome.of(environment, &program)
    }

    /// Runs the program. Returns its output, or its error message if it fails.
    async fn run(
        &self,
        environment: &RenderedEnvironment,
        program: &Program,
        arguments: &[OsString],
        folder: &Path,
        network: Network,
    ) -> Result<Result<String, String>, RenderError> {
        let home = folder.join("home");
        let mut line: Vec<OsString> = match network {
            Network::Apart => self.apart().await.clone(),
            Network::Allowed => Vec::new(),
        };
        line.push(program.file.clone().into_os_string());
        line.extend_from_slice(arguments);
        let failed = |source| RenderError::Run {
            folder: environment.folder.clone(),
            program: program.name.to_string(),
            source,
        };
        let mut command = Command::new(&line[0]);
        command
            .args(&line[1..])
            .current_dir(folder.join("files"))
            .env_clear()
            .env("PATH", &self.path)
            .env("HOME", &home)
            .env("HELM_CACHE_HOME", home.join("cache"))
            .env("HELM_CONFIG_HOME", home.join("config"))
            .env("HELM_DATA_HOME", home.join("data"))
            .env("TMPDIR", &home)
            .envs(network.variables())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(failed(std::io::Error::other("its output is not to be had")));
        };
        let work = async {
            let printed = async {
                let mut printed = Vec::new();
                stdout.take(OUTPUT_LIMIT as u64 + 1).read_to_end(&mut printed).await?;
                Ok::<_, std::io::Error>(printed)
            };
            // Read its errors to the end even if it prints too much. Then its output is closed, and it ends.
            let (printed, complaints) = tokio::try_join!(printed, beginning(stderr))?;
            Ok((printed, complaints, child.wait().await?))
        };
        let outcome = tokio::time::timeout(self.time_limit, work).await;
        let (printed, complaints, status) = outcome
            .map_err(|_| RenderError::TooSlow {
                folder: environment.folder.clone(),
                program: program.name.to_string(),
                limit: self.time_limit,
            })?
            .map_err(failed)?;
        if printed.len() > OUTPUT_LIMIT {
            return Err(RenderError::TooMuch {
                folder: environment.folder.clone(),
                program: program.name.to_string(),
                limit: OUTPUT_LIMIT,
            });
        }
        let files = folder.join("files").to_string_lossy().into_owned();
        let complaints = String::from_utf8_lossy(&complaints)
            .replace(&format!("{files}/"), "")
            .replace(&files, ".");
        if !status.success() {
            return Ok(Err(match complaints.trim() {
                "" => status.to_string(),
                said => said.to_string(),
            }));
        }
        // Helm leaves the object out, and a release without it would delete it.
        let left_out: Vec<&str> = complaints.lines().filter(|line| line.contains(UNKNOWN_HOOK)).collect();
        if !left_out.is_empty() {
            let said = left_out.join("\n");
            return Ok(Err(format!(
                "{said}\nHelm leaves out an object with an event that it does not know: correct its annotation `helm.sh/hook`"
            )));
        }
        if !complaints.trim().is_empty() {
            let folder = &environment.folder;
            tracing::debug!(folder, "{} said while it rendered: {}", program.name, complaints.trim());
        }
        Ok(String::from_utf8(printed).map_err(|error| {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
            format!("it printed something that is not UTF-8, in line {line} of its output")
        }))
    }

    /// How to start a program in an empty network namespace.
    ///
    /// The variables of [`Self::run`] stop every access by host name, but programs reach this machine itself without a proxy.
    async fn apart(&self) -> &Vec<OsString> {
        self.apart
            .get_or_init(|| async {
                let Some(unshare) = find("unshare", &self.path) else {
                    return Vec::new();
                };
                let words = ["--user", "--map-current-user", "--net", "--"].map(OsString::from);
                let line: Vec<OsString> = std::iter::once(unshare.into_os_string()).chain(words).collect();
                let trial = Command::new(&line[0])
                    .args(&line[1..])
                    .arg(&line[0])
                    .arg("--version")
                    .env_clear()
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .kill_on_drop(true)
                    .status();
                match tokio::time::timeout(Duration::from_secs(5), trial).await {
                    Ok(Ok(status)) if status.success() => line,
                    _ => Vec::new(),
                }
            })
            .await
    }

    fn recall(&self, key: &Digest) -> Option<Outcome> {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let at = remembered.iter().position(|(known, _)| known == key)?;
        let entry = remembered.remove(at)?;
        let found = entry.1.clone();
        remembered.push_front(entry);
        Some(found)
    }

    fn remember(&self, key: Digest, outcome: Outcome) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.push_front((key, outcome));
        let mut bytes = 0;
        let fits = |(_, outcome): &&(Digest, Outcome)| {
            bytes += outcome.bytes();
            bytes <= REMEMBERED_BYTES
        };
        let kept = remembered.iter().take(REMEMBERED).take_while(fits).count();
        remembered.truncate(kept);
    }
}

impl Outcome {
    fn of(&self, environment: &RenderedEnvironment, program: &Program) -> Result<Arc<RenderedFiles>, RenderError> {
        match self {
            Self::Rendered(rendered) => Ok(rendered.clone()),
            Self::Refused(message) => Err(RenderError::Refused {
                folder: environment.folder.clone(),
                program: program.name.to_string(),
                hint: hint(message),
                message: message.to_string(),
            }),
            Self::Unstable(found) => Err(RenderError::Unstable {
                folder: environment.folder.clone(),
                found: found.to_vec(),
            }),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Rendered(rendered) => rendered.files.iter().map(|(_, text)| text.len()).sum(),
            Self::Refused(message) => message.len(),
            Self::Unstable(found) => found.iter().map(String::len).sum(),
        }
    }
}

/// What a program may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    /// Nothing.
    Apart,
    /// What this process reaches, by HTTPS.
    Allowed,
}

impl Network {
    /// The variables of a program's environment.
    fn variables(self) -> Vec<(String, OsString)> {
        let variables = match self {
            // A fallback for kernels without network namespaces: git has no protocol to use, and nobody listens at this proxy's
            // address.
            Self::Apart => vec![
                ("GIT_ALLOW_PROTOCOL", "none".into()),
                ("HTTP_PROXY", "http://127.0.0.1:1".into()),
                ("HTTPS_PROXY", "http://127.0.0.1:1".into()),
            ],
            Self::Allowed => {
                let own = ["HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"];
                let own = own.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
                own.chain([
                    ("GIT_ALLOW_PROTOCOL", "https".into()),
                    ("GIT_TERMINAL_PROMPT", "0".into()),
                ])
                .collect()
            }
        };
        variables
            .into_iter()
            .map(|(name, value)| (name.to_string(), value))
            .collect()
    }
}

/// The files of one call, written once for all its environments, and only if a program runs.
struct Inputs {
    files: Vec<ManifestFile>,
    digest: Option<Digest>,
    folder: Option<(tempfile::TempDir, PathBuf)>,
}

fn bytes_of(file: &ManifestFile) -> &[u8] {
    match &file.content {
        ManifestContent::Text(text) => text.as_bytes(),
        ManifestContent::Bytes(bytes) => bytes,
        ManifestContent::Unread(_) => &[],
    }
}

impl Inputs {
    fn new() -> Self {
        Self {
            files: Vec::new(),
            digest: None,
            folder: None,
        }
    }

    /// The plain manifests among the files that `wanted` selects.
    fn plain(self, wanted: impl Fn(&str) -> bool) -> Vec<(String, String)> {
        let files = self
            .files
            .into_iter()
            .filter(|file| is_yaml(&file.path) && wanted(&file.path));
        let text = |file: ManifestFile| match file.content {
            ManifestContent::Text(text) => Some((file.path, text)),
            ManifestContent::Bytes(_) | ManifestContent::Unread(_) => None,
        };
        files.filter_map(text).collect()
    }

    fn digest(&mut self) -> &Digest {
        let files = &self.files;
        self.digest.get_or_insert_with(|| {
            let mut digester = Digester::default();
            for file in files {
                add(&mut digester, file.path.as_bytes());
                add(&mut digester, bytes_of(file));
            }
            digester.finish()
        })
    }

    /// What the kustomizations of an environment take from elsewhere.
    fn remote_references(&self, layout: &Layout, environment: &RenderedEnvironment) -> Vec<RemoteReference> {
        if environment.by != RenderedBy::Kustomize {
            return Vec::new();
        }
        let (kube_context, name) = (&environment.kube_context, &environment.environment);
        let files = self.files.iter().filter(|file| is_kustomization(&file.path));
        let used =
            files.filter(|file| !layout.reads_as_it_is(&file.path) && layout.concerns(kube_context, name, &file.path));
        used.flat_map(|file| remote_references(&file.path, file.text_or_nothing()))
            .collect()
    }

    /// The calls in the templates and values of an environment's chart whose result is not always the same.
    fn unstable_calls(&self, environment: &RenderedEnvironment) -> Vec<UnstableCall> {
        let templates = self
            .files
            .iter()
            .filter(|file| unstable::is_template(environment, &file.path));
        templates
            .flat_map(|file| unstable_calls(&file.path, file.text_or_nothing()))
            .collect()
    }

    /// Another temporary folder, with another time in place of the time of now in the templates.
    async fn at_another_time(
        &self,
        environment: &RenderedEnvironment,
    ) -> Result<(tempfile::TempDir, PathBuf), RenderError> {
        let mut files = self.files.clone();
        for file in &mut files {
            if unstable::is_template(environment, &file.path) {
                file.content = ManifestContent::Text(at_another_time(file.text_or_nothing()));
            }
        }
        laid_down(environment, files).await
    }

    /// A temporary folder with the files in `files/` and an empty `home/`. Its path contains no links.
    async fn folder(&mut self, environment: &RenderedEnvironment) -> Result<&Path, RenderError> {
        let folder = &environment.folder;
        let laid_down = match self.folder.take() {
            Some(laid_down) => laid_down,
            None => {
                if let Some(file) = self.files.iter().find(|file| !is_clean(&file.path)) {
                    return Err(RenderError::Path {
                        folder: folder.clone(),
                        path: file.path.clone(),
                    });
                }
                laid_down(environment, self.files.clone()).await?
            }
        };
        Ok(&self.folder.insert(laid_down).1)
    }
}

async fn laid_down(
    environment: &RenderedEnvironment,
    files: Vec<ManifestFile>,
) -> Result<(tempfile::TempDir, PathBuf), RenderError> {
    let written = tokio::task::spawn_blocking(move || lay_down(&files)).await;
    let written = written.map_err(std::io::Error::other).and_then(|written| written);
    written.map_err(|source| RenderError::Write {
        folder: environment.folder.clone(),
        source,
    })
}

fn lay_down(files: &[ManifestFile]) -> std::io::Result<(tempfile::TempDir, PathBuf)> {
    let dir = tempfile::Builder::new().prefix("towpath-render-").tempdir()?;
    // Programs print paths with all links resolved.
    let folder = dir.path().canonicalize()?;
    std::fs::create_dir_all(folder.join("home"))?;
    for file in files {
        let path = folder
            .join("files")
            .join(file.path.strip_prefix("./").unwrap_or(&file.path));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::File::create_new(&path)?.write_all(bytes_of(file))?;
    }
    Ok((dir, folder))
}

/// Whether a path stays in its folder, wherever that is.
fn is_clean(path: &str) -> bool {
    let path = path.strip_prefix("./").unwrap_or(path);
    let bad = |part: &str| matches!(part, "" | "." | "..") || part.contains(['\\', '\0']);
    !path.split('/').any(bad)
}

fn add(digester: &mut Digester, bytes: &[u8]) {
    digester.update(&(bytes.len() as u64).to_le_bytes());
    digester.update(bytes);
}

fn key(program: &Program, arguments: &[OsString], inputs: &Digest) -> Digest {
    let mut digester = Digester::default();
    add(&mut digester, inputs.as_str().as_bytes());
    add(&mut digester, program.file.as_os_str().as_encoded_bytes());
    // A replaced program may render differently.
    let changed = std::fs::metadata(&program.file).and_then(|metadata| metadata.modified());
    let changed = changed.ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    add(&mut digester, &changed.unwrap_or_default().as_nanos().to_le_bytes());
    for argument in arguments {
        add(&mut digester, argument.as_encoded_bytes());
    }
    digester.finish()
}

struct Program {
    file: PathBuf,
    /// The program's name in messages.
    name: &'static str,
    /// The first arguments of its command line.
    first: &'static [&'static str],
}

impl Program {
    fn find(environment: &RenderedEnvironment, path: &OsStr) -> Result<Self, RenderError> {
        let candidates: &[(&str, &str, &[&str])] = match environment.by {
            RenderedBy::Kustomize => &[
                ("kustomize", "kustomize", &["build"]),
                ("kubectl", "kubectl kustomize", &["kustomize"]),
            ],
            RenderedBy::Helm { .. } => &[("helm", "helm", &["template"])],
        };
        let found = candidates.iter().find_map(|(program, name, first)| {
            Some(Self {
                file: find(program, path)?,
                name,
                first,
            })
        });
        found.ok_or_else(|| {
            let (wanted, remedy) = match environment.by {
                RenderedBy::Kustomize => (
                    "`kustomize` and no `kubectl` on its PATH",
                    "install one of them (https://kubectl.docs.kubernetes.io/installation/kustomize/), or write down what it renders",
                ),
                RenderedBy::Helm { .. } => (
                    "`helm` on its PATH",
                    "install it (https://helm.sh/docs/intro/install/), or write down what it renders",
                ),
            };
            RenderError::Missing {
                folder: environment.folder.clone(),
                by: environment.by.program(),
                wanted,
                remedy,
            }
        })
    }

    fn arguments(&self, environment: &RenderedEnvironment, project: &str, namespace: &str) -> Vec<OsString> {
        let mut arguments: Vec<String> = self.first.iter().map(ToString::to_string).collect();
        match &environment.by {
            RenderedBy::Kustomize => arguments.push(folder_argument(&environment.folder)),
            RenderedBy::Helm {
                chart,
                values,
                set,
                release,
            } => {
                arguments.extend([
                    release.clone().unwrap_or_else(|| release_name(project)),
                    folder_argument(chart),
                    "--namespace".into(),
                    namespace.into(),
                ]);
                // Without this, Helm would silently leave out a chart's `crds/`.
                arguments.push("--include-crds".into());
                // `--values` takes a line of CSV, and a file's name may contain a comma.
                let files = values.iter().map(|path| format!("\"{}\"", path.replace('"', "\"\"")));
                arguments.extend(files.flat_map(|path| ["--values".to_string(), path]));
                let set = set.iter().map(|(name, value)| format!("{name}={value}"));
                arguments.extend(set.flat_map(|one| ["--set-json".to_string(), one]));
            }
        }
        arguments.into_iter().map(OsString::from).collect()
    }
}

/// A folder as an argument, which is never taken for an option or for the name of a chart that has to be fetched.
fn folder_argument(folder: &str) -> String {
    format!("./{folder}")
}

/// The name of a project's Helm release. Helm allows no `_`, and requires a letter or digit at both ends.
///
/// Source: <https://helm.sh/docs/chart_template_guide/getting_started/>
#[must_use]
pub fn release_name(project: &str) -> String {
    project.to_lowercase().replace('_', "-")
}

/// The program called `name` in the folders of `path`.
fn find(name: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// The first bytes of a stream. Reads the stream to its end.
async fn beginning(mut stream: impl AsyncRead + Unpin) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    (&mut stream)
        .take(COMPLAINT_LIMIT as u64)
        .read_to_end(&mut kept)
        .await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(kept)
}

/// The remedy for a program's error, if it lies with Towpath.
fn hint(message: &str) -> Option<&'static str> {
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&[
        "proxyconnect",
        "transport '",
        "dial tcp",
        "network is unreachable",
        "Could not resolve",
    ]) {
        Some(
            "nothing is fetched while manifests are rendered, so that a commit always means the same: copy the base into the repository (`kustomize localize` does)",
        )
    } else if says(&["missing in charts/"]) {
        Some(
            "commit what the chart depends on, unpacked, below its `charts/` (`helm dependency update`, then `tar -xf`): archives are not read",
        )
    } else if says(&["--enable-helm"]) {
        Some("charts in a kustomization are not rendered: put the chart into an environment's folder of its own")
    } else if says(&["no such file", "doesn't exist"]) {
        Some(
            "only the files of the kustomization or the chart, and of what it refers to, are there when manifests are rendered",
        )
    } else {
        None
    }
}
