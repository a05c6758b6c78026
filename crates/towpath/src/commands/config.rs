//! `towpath config`: works on a configuration on this disk. Asks a server only for orbs, and only if one is running.

use crate::{
    cli::{self, Compile, Config},
    client::Client,
};
use anyhow::{Context, Result, anyhow, bail};
use indexmap::IndexMap;
use std::{
    collections::BTreeMap,
    io::{IsTerminal, Read as _},
    path::{Component, Path, PathBuf},
    process::ExitCode,
};
use towpath_config::{
    Capabilities, CompileOptions, CompiledConfig, Document, GraphFormat, Orbs, PackKind, PipelineValues,
};
use towpath_control::supply_orbs;
use towpath_forge::{TreeEntry, WorkingTree};
use towpath_orbs::{LOCK_FILE, Lock, Origin, PublicRegistry, Sources, UrlOrbs, VENDORED_FOLDER, Vendored};
use towpath_yaml::{Diagnostic, render_all};

/// `towpath config`.
pub async fn config(command: Config) -> Result<ExitCode> {
    match command {
        Config::Validate { compile, json } => {
            let compiled = Compiled::of(&compile, true).await?;
            if json {
                print_json(&compiled.diagnostics)?;
                return Ok(verdict(compiled.config.is_some()));
            }
            compiled.report();
            if compiled.config.is_none() {
                return Ok(ExitCode::FAILURE);
            }
            outln!("Config file at {} is valid.", compile.file.display());
            Ok(ExitCode::SUCCESS)
        }
        Config::Process(options) => {
            let compiled = Compiled::of(&options, true).await?;
            compiled.report();
            out_raw!("{}", compiled.text(&options.file)?);
            Ok(ExitCode::SUCCESS)
        }
        Config::Graph {
            compile,
            workflow,
            format,
        } => graph(&compile, workflow.as_deref(), format).await,
        Config::Explain { job, compile, json } => explain(&job, &compile, json).await,
        Config::Lint { compile, json } => {
            let contexts = contexts(&compile).await;
            let inputs = Inputs::of(&compile, true).await?;
            let work = move |document: &_, options: &_| {
                towpath_config::lint(document, options, &Capabilities::default(), contexts.as_deref())
            };
            let (found, _) = inputs.run(work).await?;
            match json {
                true => print_json(&found)?,
                false if found.is_empty() => outln!("Nothing in {} looks unintended.", compile.file.display()),
                false => out_raw!("{}", render_all(&found, std::io::stdout().is_terminal())),
            }
            Ok(verdict(found.is_empty()))
        }
        Config::Pack { folder } => pack(&folder, PackKind::Config),
        Config::Schema => {
            out_raw!("{}", towpath_config::SCHEMA);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The exit code that says whether all is well.
pub fn verdict(fine: bool) -> ExitCode {
    match fine {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Prints the diagnostics as JSON, for editors and other programs.
pub fn print_json(diagnostics: &[Diagnostic]) -> Result<()> {
    let all: Vec<_> = diagnostics.iter().map(Diagnostic::to_json).collect();
    outln!("{}", serde_json::to_string_pretty(&all)?);
    Ok(())
}

async fn graph(compile: &Compile, workflow: Option<&str>, format: cli::Graph) -> Result<ExitCode> {
    let compiled = Compiled::of(compile, true).await?;
    compiled.report();
    let config = compiled.config(&compile.file)?;
    let wanted = |name: &str| workflow.is_none_or(|wanted| wanted == name);
    let drawn: Vec<_> = config
        .workflows
        .iter()
        .filter(|workflow| wanted(&workflow.name))
        .collect();
    if let (Some(name), true) = (workflow, drawn.is_empty()) {
        let names: Vec<&str> = config.workflows.iter().map(|workflow| workflow.name.as_str()).collect();
        bail!(
            "no workflow `{name}` runs for this branch or tag; there are: {}",
            names.join(", ")
        );
    }
    let drawn: Vec<_> = match format {
        cli::Graph::Svg => drawn.into_iter().filter(|workflow| !workflow.jobs.is_empty()).collect(),
        _ => drawn,
    };
    let format = match format {
        cli::Graph::Text => GraphFormat::Text,
        cli::Graph::Dot => GraphFormat::Dot,
        // One picture is one document.
        cli::Graph::Svg if drawn.len() > 1 => bail!("there are several workflows: name one with --workflow"),
        cli::Graph::Svg => GraphFormat::Svg,
    };
    for workflow in drawn {
        out_raw!("{}", towpath_config::graph(workflow, format));
    }
    Ok(ExitCode::SUCCESS)
}

async fn explain(job: &str, compile: &Compile, json: bool) -> Result<ExitCode> {
    let wanted = job.to_owned();
    let work = move |document: &_, options: &_| {
        let (explainer, diagnostics) = towpath_config::explain(document, options);
        let found = explainer.map(|explainer| match explainer.job(&wanted) {
            Some(explanation) => Ok(explanation),
            None => Err(explainer.jobs().map(str::to_owned).collect::<Vec<_>>()),
        });
        (found, diagnostics)
    };
    let ((found, diagnostics), _) = Inputs::of(compile, true).await?.run(work).await?;
    // Even a configuration with errors can be explained. Print its errors first.
    report(&diagnostics);
    match found {
        None => bail!("`{}` does not compile", compile.file.display()),
        Some(Err(names)) => bail!("no job `{job}` runs; there are: {}", names.join(", ")),
        Some(Ok(explanation)) if json => outln!("{}", serde_json::to_string_pretty(&explanation)?),
        Some(Ok(explanation)) => out!("{explanation}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// The contexts of the project's server; `None` when there is no server to ask.
pub async fn contexts(compile: &Compile) -> Option<Vec<String>> {
    let client = Client::new(&compile.at).ok()?;
    let answer: serde_json::Value = client.get("/api/towpath/contexts").await.ok()?;
    let names = answer.as_array()?.iter().filter_map(|context| context["name"].as_str());
    Some(names.map(str::to_owned).collect())
}

/// Prints a folder as one document.
pub fn pack(folder: &Path, kind: PackKind) -> Result<ExitCode> {
    let mut files = BTreeMap::new();
    read_folder(folder, "", &mut files)?;
    if files.is_empty() {
        bail!("`{}` has no YAML files to pack", folder.display());
    }
    let packed = std::path::absolute(folder).with_context(|| format!("failed to read `{}`", folder.display()))?;
    let packed = joined(Path::new("/"), &packed);
    match towpath_config::pack(&files, kind, &|name| included(&packed, name)) {
        Ok(text) => {
            out_raw!("{text}");
            Ok(ExitCode::SUCCESS)
        }
        Err(errors) => {
            report(&errors);
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Every YAML file below `folder`, by its path there.
fn read_folder(folder: &Path, prefix: &str, files: &mut BTreeMap<String, String>) -> Result<()> {
    let failed = || format!("failed to read `{}`", folder.display());
    for entry in std::fs::read_dir(folder).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let failed = || format!("failed to read `{}`", entry.path().display());
        let kind = std::fs::metadata(entry.path()).with_context(failed)?;
        if kind.is_dir() {
            read_folder(&entry.path(), &format!("{prefix}{name}/"), files)?;
        } else if towpath_config::is_packed(&name) {
            let text = std::fs::read_to_string(entry.path()).with_context(failed)?;
            files.insert(format!("{prefix}{name}"), text);
        }
    }
    Ok(())
}

/// The absolute path of `path` in `folder`, without `.` and `..`. They are removed from the text, without following links.
fn joined(folder: &Path, path: &Path) -> PathBuf {
    let mut joined = folder.to_path_buf();
    for part in path.components() {
        match part {
            Component::Normal(part) => joined.push(part),
            Component::ParentDir => drop(joined.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    joined
}

/// The text of the file that `<< include(name) >>` in the absolute path `folder` refers to.
///
/// Like CircleCI's `orb pack`, joins the name to the packed folder, which it may leave. It may not leave the repository:
/// somebody else's orb must not reveal other files of the machine.
fn included(folder: &Path, name: &str) -> Result<String, String> {
    let path = joined(folder, Path::new(name));
    let repository = folder.ancestors().find(|folder| folder.join(".git").exists());
    let (bounds, called) = match repository {
        Some(repository) => (repository, "repository"),
        None => (folder, "packed folder, and that is in no git repository"),
    };
    let real = |path: &Path| {
        std::fs::canonicalize(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => format!("but there is no `{}`", path.display()),
            _ => format!("but `{}` cannot be read: {error}", path.display()),
        })
    };
    let file = real(&path)?;
    if !file.starts_with(real(bounds)?) {
        return Err(format!("which is outside of the {called}"));
    }
    let bytes = std::fs::read(&file).map_err(|error| format!("but `{}` cannot be read: {error}", path.display()))?;
    String::from_utf8(bytes).map_err(|_| "which is not text (UTF-8)".to_owned())
}

/// The result of compiling a file.
pub struct Compiled {
    /// `None` if the file does not compile.
    pub config: Option<CompiledConfig>,
    /// The configuration as CircleCI prints it.
    text: String,
    /// The orbs that were used.
    pub orbs: Lock,
    diagnostics: Vec<Diagnostic>,
}

/// A file, and everything that compiling it depends on.
pub struct Inputs {
    document: Document,
    values: PipelineValues,
    parameters: IndexMap<String, serde_json::Value>,
    vendored: Vendored,
    lock: Lock,
    own: Option<PublicRegistry>,
    others: Option<PublicRegistry>,
    urls: UrlOrbs,
}

impl Inputs {
    /// Reads a file (`-` is standard input). Obeys its lock file if `obey_lock`.
    pub async fn of(options: &Compile, obey_lock: bool) -> Result<Self> {
        let file = &options.file;
        let text = match file.as_os_str() == "-" {
            true => {
                let mut bytes = Vec::new();
                let read = std::io::stdin().read_to_end(&mut bytes);
                read.context("failed to read standard input")?;
                towpath_forge::text(bytes).map_err(|why| anyhow::anyhow!("standard input {why}"))?
            }
            false => configuration(file)?,
        };
        Self::with_text(options, obey_lock, text).await
    }

    /// Like [`Inputs::of`], with a text in place of the file's content.
    pub async fn with_text(options: &Compile, obey_lock: bool, text: String) -> Result<Self> {
        let file = &options.file;
        let root = repository_of(file);
        let vendored = vendored(&root)?;
        let lock = match obey_lock {
            true => read_lock(&root)?,
            false => Lock::default(),
        };
        let tls = |error| anyhow!("failed to set up TLS: {error}");
        // Without a server there is no registry of ours to ask.
        let own = match Client::new(&options.at) {
            Ok(client) if client.get_bytes("/api/v2/me").await.is_ok() => {
                let place = PublicRegistry::new(client.base()).map_err(tls)?;
                Some(place.signed_in(client.token().clone()))
            }
            _ => None,
        };
        let others = match options.orbs.registry() {
            None => None,
            Some(base) => {
                let registry = PublicRegistry::new(base).map_err(tls)?;
                Some(match cli::OrbOptions::registry_token() {
                    Some(token) => registry.signed_in(token),
                    None => registry,
                })
            }
        };
        let urls = UrlOrbs::new(options.orbs.url_prefixes()?);
        let mut values = PipelineValues::local();
        if let Some(branch) = &options.branch {
            values.set("git.branch", branch.as_str());
        }
        if let Some(tag) = &options.tag {
            values.set("git.branch", serde_json::Value::Null);
            values.set("git.tag", tag.as_str());
        }
        let document = Document::parse(file.to_string_lossy().into_owned(), text);
        let declared = |name: &str| {
            let kind = document
                .root()
                .and_then(|root| root.get("parameters")?.get(name)?.get("type")?.as_scalar());
            kind.map(|kind| kind.text.to_string()).unwrap_or_default()
        };
        let parameters = options
            .parameters
            .iter()
            .map(|text| {
                let (name, value) = text
                    .split_once('=')
                    .with_context(|| format!("`{text}` is not a parameter: write NAME=VALUE"))?;
                Ok((name.to_string(), parameter(value, &declared(name))))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            document,
            values,
            parameters,
            vendored,
            lock,
            own,
            others,
            urls,
        })
    }

    /// Fetches the orbs, then runs `work`. Also returns the orbs that were used.
    pub async fn run<T>(self, work: impl FnOnce(&Document, &CompileOptions) -> T) -> Result<(T, Lock)> {
        let mut options = self.options(Orbs::default());
        let sources = self.sources();
        supply_orbs(&sources, &self.document, &mut options).await;
        Ok((work(&self.document, &options), sources.used()))
    }

    /// The options of a compilation with the known orbs.
    pub fn options(&self, orbs: Orbs) -> CompileOptions {
        CompileOptions {
            values: self.values.clone(),
            parameters: self.parameters.clone(),
            orbs,
            ..CompileOptions::default()
        }
    }

    /// The places to look for orbs.
    pub fn sources(&self) -> Sources<'_> {
        let mut sources = Sources::new(self.lock.clone())
            .with(Origin::Vendored, &self.vendored)
            .with_urls(&self.urls);
        for (origin, place) in [(Origin::Towpath, &self.own), (Origin::Circleci, &self.others)] {
            if let Some(place) = place {
                sources = sources.with(origin, place);
            }
        }
        sources
    }
}

impl Compiled {
    /// Compiles a file. Obeys its lock file if `obey_lock`.
    pub async fn of(options: &Compile, obey_lock: bool) -> Result<Self> {
        let work = |document: &_, options: &_| towpath_config::check(document, options, &Capabilities::default());
        let (checked, orbs) = Inputs::of(options, obey_lock).await?.run(work).await?;
        let diagnostics = checked.all_diagnostics();
        Ok(Self {
            config: checked.config,
            text: checked.text,
            orbs,
            diagnostics,
        })
    }

    /// Prints the diagnostics.
    pub fn report(&self) {
        report(&self.diagnostics);
    }

    /// The text, or an error if the file does not compile.
    fn text(self, file: &Path) -> Result<String> {
        let text = self.text.clone();
        self.config(file).map(|_| text)
    }

    /// The configuration, or an error if the file does not compile.
    pub fn config(self, file: &Path) -> Result<CompiledConfig> {
        self.config
            .ok_or_else(|| anyhow!("`{}` does not compile", file.display()))
    }
}

/// Prints diagnostics.
pub fn report(diagnostics: &[Diagnostic]) {
    if !diagnostics.is_empty() {
        eprint!("{}", render_all(diagnostics, std::io::stderr().is_terminal()));
    }
}

/// The value of a parameter, parsed as its declared type, or as YAML if the type is unknown.
fn parameter(text: &str, declared: &str) -> serde_json::Value {
    match text {
        text if matches!(declared, "string" | "enum") => text.into(),
        "true" => true.into(),
        "false" => false.into(),
        number => number.parse::<i64>().map_or_else(|_| text.into(), Into::into),
    }
}

/// The repository's root, for a file in its `.circleci`; otherwise the file's own folder.
pub fn repository_of(file: &Path) -> PathBuf {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    match (folder.file_name(), folder.parent()) {
        (Some(name), Some(root)) if name == ".circleci" => match root.as_os_str().is_empty() {
            true => PathBuf::from("."),
            false => root.to_path_buf(),
        },
        _ => folder.to_path_buf(),
    }
}

fn read_lock(root: &Path) -> Result<Lock> {
    match WorkingTree::open(root)?.text(LOCK_FILE)? {
        Some(text) => Ok(Lock::parse(&text)?),
        None => Ok(Lock::default()),
    }
}

/// The text of a configuration. Reads a file in `.circleci` as the server reads it from a commit: follows links, but not out of
/// the repository.
fn configuration(file: &Path) -> Result<String> {
    let root = repository_of(file);
    let inside = file.strip_prefix(&root).unwrap_or(file);
    let in_tree = inside.to_str().filter(|path| path.starts_with(".circleci/"));
    if let Some(path) = in_tree
        && let Some(text) = WorkingTree::open(&root)?.text(path)?
    {
        return Ok(text);
    }
    let bytes = std::fs::read(file).with_context(|| format!("failed to read `{}`", file.display()))?;
    towpath_forge::text(bytes).map_err(|why| anyhow!("`{}` {why}", file.display()))
}

/// The orbs in a repository's folder for them: `<namespace>/<orb>@<version>.yml`.
fn vendored(root: &Path) -> Result<Vendored> {
    let select = |entries: &mut Vec<TreeEntry>| {
        entries.retain(|entry| entry.found.is_err() || Vendored::may_be(&entry.path));
    };
    let mut files = Vec::new();
    for file in WorkingTree::open(root)?.files(VENDORED_FOLDER, &select)? {
        let bytes = file.content.map_err(|why| anyhow!("`{}` {why}", file.path))?;
        let text = towpath_forge::text(bytes).map_err(|why| anyhow!("`{}` {why}", file.path))?;
        let below = file.path.strip_prefix(VENDORED_FOLDER).unwrap_or(&file.path);
        files.push((below.trim_start_matches('/').to_string(), text));
    }
    Ok(Vendored::of_files(
        files.iter().map(|(name, text)| (name.as_str(), text.clone())),
    ))
}
