//! Rendering: Kustomize and Helm run on an environment's files, and what they print takes the files' place.
//!
//! **Invariants.** A repository without either costs nothing: no program is looked for, nothing is hashed. A program sees
//! a temporary folder with the given files and nothing else: no network, no configuration of the account that the server
//! runs under. What it prints depends on the given files alone, so what was printed once is remembered.
//!
//! **It does not know** where the files come from, and what is done with what was rendered.

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
pub use towpath_manifest::{Diagnostic, Layout, RenderedBy, RenderedEnvironment, is_yaml, needs_every_file};
use towpath_manifest::{ManifestContent, ManifestFile, RenderedFiles};
use towpath_types::{Digest, Digester};

/// How long a program may take. What is rendered in seconds is already much; the rest hangs.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// How much it may print, in bytes.
const OUTPUT_LIMIT: usize = 32 << 20;
/// How much of its complaints is kept, in bytes.
const COMPLAINT_LIMIT: usize = 16 << 10;
/// How many environments' renderings are remembered.
const REMEMBERED: usize = 32;
/// How much of what was rendered is remembered, in bytes.
const REMEMBERED_BYTES: usize = 64 << 20;
/// How many programs run at once: each takes a processor.
const AT_ONCE: usize = 2;

/// Why an environment could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The program is not there.
    #[error("`{folder}` is rendered by {by}, but the server finds no {wanted}: {remedy}")]
    Missing {
        /// The environment's folder.
        folder: String,
        /// What renders it.
        by: &'static str,
        /// The names that were looked for.
        wanted: &'static str,
        /// How to get it.
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
    /// A file cannot be laid down for the program.
    #[error(
        "`{path}` names no file below `.k8s/`, so `{folder}` cannot be rendered: a path has no `..`, no `\\` and no empty part"
    )]
    Path {
        /// The environment's folder.
        folder: String,
        /// The path as it was given.
        path: String,
    },
    /// The files could not be written for the program.
    #[error("failed to write the files that `{folder}` is rendered from")]
    Write {
        /// The environment's folder.
        folder: String,
        /// Why.
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
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The program refused.
    #[error("{program} cannot render `{folder}`:\n{message}{}", .hint.map(|hint| format!("\nhint: {hint}")).unwrap_or_default())]
    Refused {
        /// The environment's folder.
        folder: String,
        /// The program's name.
        program: String,
        /// What it said, with paths from the repository's root.
        message: String,
        /// What to do, where it does not say that itself.
        hint: Option<&'static str>,
    },
    /// It took too long.
    #[error("{program} did not render `{folder}` within {} s, and was stopped", .limit.as_secs())]
    TooSlow {
        /// The environment's folder.
        folder: String,
        /// The program's name.
        program: String,
        /// How long it may take.
        limit: Duration,
    },
    /// It printed too much.
    #[error("{program} printed more than {} MiB for `{folder}`, and was stopped", .limit >> 20)]
    TooMuch {
        /// The environment's folder.
        folder: String,
        /// The program's name.
        program: String,
        /// How much it may print, in bytes.
        limit: usize,
    },
}

/// An environment that could not be rendered.
#[derive(Debug)]
pub struct RenderFailure {
    /// The kube context.
    pub kube_context: String,
    /// The environment.
    pub environment: String,
    /// Why.
    pub error: RenderError,
}

/// A repository's manifests after rendering.
#[derive(Debug, Default)]
pub struct Rendered {
    /// Paths and texts for [`towpath_manifest::Tree::read`]. An environment that was not rendered, for it was not asked for or could not be,
    /// has one empty file, so that the tree knows its name.
    pub files: Vec<(String, String)>,
    /// What is wrong with the layout. An environment that one of these concerns was not rendered, and shall not be deployed.
    pub diagnostics: Vec<Diagnostic>,
    /// What could not be rendered.
    pub failures: Vec<RenderFailure>,
    /// What is not as the program that rendered it would have it, by environment: `(environment, message)`.
    pub warnings: Vec<(String, String)>,
    /// What was recognised.
    pub layout: Layout,
}

/// What a program made of its input: the same whenever it is asked again.
#[derive(Clone)]
enum Outcome {
    Rendered(Arc<RenderedFiles>),
    Refused(Arc<str>),
}

impl Rendered {
    /// Why a folder called `environment` is no environment, when there is such a folder and no environment of the name.
    #[must_use]
    pub fn why_no_environment(&self, environment: &str) -> Option<String> {
        let is_one = self.files.iter().any(|(path, _)| {
            let inside = path.strip_prefix("./").unwrap_or(path).strip_prefix(".k8s/");
            inside.and_then(|inside| inside.split('/').nth(1)) == Some(environment)
        });
        let (folder, user) = self
            .layout
            .shared()
            .find(|(folder, _)| folder.rsplit('/').next() == Some(environment))?;
        (!is_one).then(|| format!("`{folder}` is no environment: `{user}` is made from it"))
    }
}

/// Runs Kustomize and Helm, and remembers what they printed.
pub struct Renderer {
    path: OsString,
    time_limit: Duration,
    running: Semaphore,
    remembered: Mutex<VecDeque<(Digest, Outcome)>>,
    /// What a program's command line begins with so that it has no network; empty where that cannot be had.
    apart: OnceCell<Vec<OsString>>,
}

impl Default for Renderer {
    /// With the programs on this process's `PATH`.
    fn default() -> Self {
        Self::with_path(std::env::var_os("PATH").unwrap_or_default())
    }
}

impl Renderer {
    /// With the programs in the folders of `path`, which is written like `PATH`.
    #[must_use]
    pub fn with_path(path: impl Into<OsString>) -> Self {
        Self {
            path: path.into(),
            time_limit: TIME_LIMIT,
            running: Semaphore::new(AT_ONCE),
            remembered: Mutex::default(),
            apart: OnceCell::new(),
        }
    }

    /// With another limit for how long a program may take than a minute.
    #[must_use]
    pub fn within(mut self, time_limit: Duration) -> Self {
        self.time_limit = time_limit;
        self
    }

    /// Renders the environments in `files` (paths from the repository's root): those called `only`, or all. One that can depend
    /// on a file that cannot be read is not rendered: a program takes a missing file for one that never was.
    ///
    /// Where [`needs_every_file`] says so, `files` holds what is not YAML too. `project` becomes the name of Helm's
    /// releases, and `namespace` answers the namespace of a kube context's environment where manifests name none.
    ///
    /// May be called any number of times at once, and dropped while it runs: the program is stopped then.
    pub async fn render(
        &self,
        files: Vec<ManifestFile>,
        project: &str,
        only: Option<&str>,
        namespace: impl Fn(&str, &str) -> String,
    ) -> Rendered {
        let is_rendered = needs_every_file(files.iter().map(|file| file.path.as_str()));
        let mut inputs = Inputs::new();
        let mut unread = Vec::new();
        for file in files {
            match file.wrong() {
                Some(wrong) => unread.push((file.path, wrong)),
                None => inputs.files.push(file),
            }
        }
        if !is_rendered {
            return Rendered {
                files: inputs.plain(|_| true),
                ..Rendered::default()
            };
        }
        // A file that cannot be read still says by its name what a folder is.
        let known = inputs
            .files
            .iter()
            .map(|file| (file.path.as_str(), file.text_or_nothing()));
        let (layout, diagnostics) = Layout::read(known.chain(unread.iter().map(|(path, _)| (path.as_str(), ""))));
        let mut rendered = Rendered::default();
        for environment in layout.environments() {
            let (kube_context, name) = (&environment.kube_context, &environment.environment);
            let is_asked_for = only.is_none_or(|only| only == name);
            let is_wrong = |diagnostic: &Diagnostic| layout.concerned_by(kube_context, name, diagnostic);
            let concerning = unread
                .iter()
                .filter(|(path, _)| layout.concerns(kube_context, name, path));
            let lacks: Vec<String> = concerning.map(|(_, wrong)| wrong.clone()).collect();
            let outcome = if !is_asked_for || diagnostics.iter().any(is_wrong) {
                Ok(None)
            } else if !lacks.is_empty() {
                Err(RenderError::Unread {
                    folder: environment.folder.clone(),
                    files: lacks,
                })
            } else {
                let namespace = namespace(kube_context, name);
                self.one(environment, &mut inputs, project, &namespace).await.map(Some)
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
        environment: &RenderedEnvironment,
        inputs: &mut Inputs,
        project: &str,
        namespace: &str,
    ) -> Result<Arc<RenderedFiles>, RenderError> {
        let program = Program::find(environment, &self.path)?;
        let arguments = program.arguments(environment, project, namespace);
        let key = key(&program, &arguments, inputs.digest());
        if let Some(known) = self.recall(&key) {
            return known.of(environment, &program);
        }
        // The semaphore is never closed, so this is a turn.
        let _turn = self.running.acquire().await.ok();
        // Whoever had the turn before may have rendered the same.
        if let Some(known) = self.recall(&key) {
            return known.of(environment, &program);
        }
        let folder = inputs.folder(environment).await?;
        let outcome = match self.run(environment, &program, &arguments, folder).await? {
            Ok(printed) => Outcome::Rendered(Arc::new(environment.files(&printed))),
            Err(message) => Outcome::Refused(message.into()),
        };
        self.remember(key, outcome.clone());
        outcome.of(environment, &program)
    }

    /// What the program printed, or what it said when it refused.
    async fn run(
        &self,
        environment: &RenderedEnvironment,
        program: &Program,
        arguments: &[OsString],
        folder: &Path,
    ) -> Result<Result<String, String>, RenderError> {
        let home = folder.join("home");
        let mut line: Vec<OsString> = self.apart().await.clone();
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
            // Where the kernel gives no network of its own: git has no way to speak, and nobody listens at this address.
            .env("GIT_ALLOW_PROTOCOL", "none")
            .env("HTTP_PROXY", "http://127.0.0.1:1")
            .env("HTTPS_PROXY", "http://127.0.0.1:1")
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
            // Its complaints are read to the end even when it prints too much: then its output is closed, and it ends.
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

    /// How to start a program in a network of its own, in which there is nothing.
    ///
    /// The variables of [`Self::run`] hold whatever asks for a name, but a program speaks to its own host without a proxy.
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
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Rendered(rendered) => rendered.files.iter().map(|(_, text)| text.len()).sum(),
            Self::Refused(message) => message.len(),
        }
    }
}

/// The files of one call, laid down once for all of its environments, and only if a program runs.
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

    /// The manifests among the files that `wanted` takes.
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

    /// A temporary folder with the files in `files/` and an empty `home/`, without links on the way.
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
                let files = self.files.clone();
                let written = tokio::task::spawn_blocking(move || lay_down(&files)).await;
                let written = written.map_err(std::io::Error::other).and_then(|written| written);
                written.map_err(|source| RenderError::Write {
                    folder: folder.clone(),
                    source,
                })?
            }
        };
        Ok(&self.folder.insert(laid_down).1)
    }
}

fn lay_down(files: &[ManifestFile]) -> std::io::Result<(tempfile::TempDir, PathBuf)> {
    let dir = tempfile::Builder::new().prefix("towpath-render-").tempdir()?;
    // Programs name files without the links on the way to them.
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

/// Whether a path stays below `.k8s/` wherever it is put.
fn is_clean(path: &str) -> bool {
    let path = path.strip_prefix("./").unwrap_or(path);
    path.strip_prefix(".k8s/").is_some_and(|inside| {
        let bad = |part: &str| matches!(part, "" | "." | "..") || part.contains(['\\', '\0']);
        !inside.split('/').any(bad)
    })
}

fn add(digester: &mut Digester, bytes: &[u8]) {
    digester.update(&(bytes.len() as u64).to_le_bytes());
    digester.update(bytes);
}

fn key(program: &Program, arguments: &[OsString], inputs: &Digest) -> Digest {
    let mut digester = Digester::default();
    add(&mut digester, inputs.as_str().as_bytes());
    add(&mut digester, program.file.as_os_str().as_encoded_bytes());
    // A program that was replaced may render otherwise.
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
    /// What it is called in messages.
    name: &'static str,
    /// What its command line begins with.
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
            RenderedBy::Kustomize => arguments.push(environment.folder.clone()),
            RenderedBy::Helm { chart, values } => {
                arguments.extend([
                    release_name(project),
                    chart.clone(),
                    "--namespace".into(),
                    namespace.into(),
                ]);
                // Without it a chart's `crds/` would be left out, unsaid.
                arguments.push("--include-crds".into());
                // `--values` takes a line of CSV, and a file's name may hold a comma.
                let files = values.iter().map(|path| format!("\"{}\"", path.replace('"', "\"\"")));
                arguments.extend(files.flat_map(|path| ["--values".to_string(), path]));
            }
        }
        arguments.into_iter().map(OsString::from).collect()
    }
}

/// The name of a project's Helm release: what Helm takes has no `_`, and begins and ends with a letter or digit.
///
/// Source: <https://helm.sh/docs/chart_template_guide/getting_started/>
fn release_name(project: &str) -> String {
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

/// The beginning of a stream, which is read to its end.
async fn beginning(mut stream: impl AsyncRead + Unpin) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    (&mut stream)
        .take(COMPLAINT_LIMIT as u64)
        .read_to_end(&mut kept)
        .await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(kept)
}

/// What to do about what a program says, where the way out is ours.
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
        Some("only regular text files (UTF-8) below `.k8s/` are there when manifests are rendered")
    } else {
        None
    }
}
