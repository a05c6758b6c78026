//! `towpath config`: a configuration on this disk. A server is asked for orbs only, and only when one runs.

use crate::{
    cli::{self, Compile, Config},
    client::Client,
};
use anyhow::{Context, Result, anyhow, bail};
use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
};
use tokio::runtime::Handle;
use towpath_config::{CompileOptions, CompiledConfig, GraphFormat, OrbError, OrbSource, PipelineValues};
use towpath_orbs::{
    Found, LOCK_FILE, Lock, Lookup, LookupError, OrbReference, Origin, PublicRegistry, Sources, VENDORED_FOLDER,
    Vendored,
};
use towpath_yaml::{Diagnostic, SourceFile, render_all};

/// `towpath config`.
pub async fn config(command: Config) -> Result<ExitCode> {
    match command {
        Config::Validate(options) => {
            let compiled = Compiled::of(&options, true).await?;
            compiled.report();
            if compiled.config.is_none() {
                return Ok(ExitCode::FAILURE);
            }
            outln!("Config file at {} is valid.", options.file.display());
            Ok(ExitCode::SUCCESS)
        }
        Config::Process(options) => {
            let compiled = Compiled::of(&options, true).await?;
            compiled.report();
            out!("{}", compiled.text(&options.file)?);
            Ok(ExitCode::SUCCESS)
        }
        Config::Graph {
            compile,
            workflow,
            format,
        } => {
            let compiled = Compiled::of(&compile, true).await?;
            compiled.report();
            let config = compiled.config(&compile.file)?;
            let wanted = |name: &str| workflow.as_deref().is_none_or(|wanted| wanted == name);
            let drawn: Vec<_> = config
                .workflows
                .iter()
                .filter(|workflow| wanted(&workflow.name))
                .collect();
            if let (Some(name), true) = (&workflow, drawn.is_empty()) {
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
                out!("{}", towpath_config::graph(workflow, format));
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// What came of a file.
pub struct Compiled {
    /// `None` when it does not compile.
    pub config: Option<CompiledConfig>,
    /// The same as CircleCI prints it.
    text: String,
    /// The orbs that were used.
    pub orbs: Lock,
    diagnostics: Vec<Diagnostic>,
}

/// A registry behind HTTP, as a place to look in. Blocks: only for threads that may.
struct Registry {
    client: PublicRegistry,
    runtime: Handle,
}

impl Lookup for Registry {
    fn find(&self, reference: &OrbReference) -> Result<Option<Found>, String> {
        self.runtime.block_on(self.client.find(reference))
    }
}

impl Compiled {
    /// Compiles a file, by its lock file or as if there were none.
    pub async fn of(options: &Compile, obey_lock: bool) -> Result<Self> {
        let file = &options.file;
        let text = std::fs::read_to_string(file).with_context(|| format!("failed to read `{}`", file.display()))?;
        let root = repository_of(file);
        let vendored = vendored(&root.join(VENDORED_FOLDER))?;
        let lock = match obey_lock {
            true => read_lock(&root)?,
            false => Lock::default(),
        };
        let registry = |client| Registry {
            client,
            runtime: Handle::current(),
        };
        let tls = |error| anyhow!("failed to set up TLS: {error}");
        // Without a server there is no registry of ours to ask.
        let own = match Client::new(&options.at) {
            Ok(client) if client.get_bytes("/api/v2/me").await.is_ok() => {
                let place = PublicRegistry::new(client.base()).map_err(tls)?;
                Some(registry(place.signed_in(client.token().clone())))
            }
            _ => None,
        };
        let others = match options.orb_registry.as_str() {
            "none" => None,
            base => Some(registry(PublicRegistry::new(base).map_err(tls)?)),
        };
        let mut values = PipelineValues::local();
        if let Some(branch) = &options.branch {
            values.set("git.branch", branch.as_str());
        }
        if let Some(tag) = &options.tag {
            values.set("git.branch", serde_json::Value::Null);
            values.set("git.tag", tag.as_str());
        }
        let parameters = options
            .parameters
            .iter()
            .map(|text| {
                let (name, value) = text
                    .split_once('=')
                    .with_context(|| format!("`{text}` is not a parameter: write NAME=VALUE"))?;
                Ok((name.to_string(), parameter(value)))
            })
            .collect::<Result<_>>()?;
        let source = SourceFile::new(file.to_string_lossy().into_owned(), text);
        let compile = move || {
            let mut sources = Sources::new(lock).with(Origin::Vendored, &vendored);
            for (origin, place) in [(Origin::Towpath, &own), (Origin::Circleci, &others)] {
                if let Some(place) = place {
                    sources = sources.with(origin, place);
                }
            }
            let orbs = |reference: &str| match sources.resolve(reference) {
                Ok((resolved, text)) => Ok(OrbSource {
                    resolved,
                    text: text.into(),
                }),
                Err(LookupError::Unknown { reference, .. }) => Err(OrbError::Unknown(reference)),
                Err(LookupError::Unavailable(reason) | LookupError::Refused(reason)) => Err(OrbError::Unavailable {
                    reference: reference.to_string(),
                    reason,
                }),
            };
            let options = CompileOptions {
                values,
                parameters,
                orbs: &orbs,
                ..CompileOptions::default()
            };
            let (processed, diagnostics) = towpath_config::process(&source, &options);
            let processed = processed.filter(|_| !diagnostics.iter().any(Diagnostic::is_error));
            let (config, text) = processed.unzip();
            Self {
                config,
                text: text.unwrap_or_default(),
                orbs: sources.used(),
                diagnostics,
            }
        };
        tokio::task::spawn_blocking(compile)
            .await
            .context("compiling ended early")
    }

    /// Prints what was noticed.
    pub fn report(&self) {
        if !self.diagnostics.is_empty() {
            eprint!("{}", render_all(&self.diagnostics, std::io::stderr().is_terminal()));
        }
    }

    /// The text, or the error that there is none.
    fn text(self, file: &Path) -> Result<String> {
        let text = self.text.clone();
        self.config(file).map(|_| text)
    }

    /// The configuration, or the error that there is none.
    pub fn config(self, file: &Path) -> Result<CompiledConfig> {
        self.config
            .ok_or_else(|| anyhow!("`{}` does not compile", file.display()))
    }
}

/// A parameter's value as YAML would read it.
fn parameter(text: &str) -> serde_json::Value {
    match text {
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
    let path = root.join(LOCK_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Lock::parse(&text)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Lock::default()),
        Err(error) => Err(error).with_context(|| format!("failed to read `{}`", path.display())),
    }
}

/// The orbs below `folder`: `<namespace>/<orb>@<version>.yml`.
fn vendored(folder: &Path) -> Result<Vendored> {
    let mut files = Vec::new();
    let read = |path: &Path| match std::fs::read_dir(path) {
        Ok(entries) => Ok(entries.collect::<Result<Vec<_>, _>>()?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(anyhow::Error::new(error).context(format!("failed to read `{}`", path.display()))),
    };
    for namespace in read(folder)? {
        if !namespace.file_type()?.is_dir() {
            continue;
        }
        for file in read(&namespace.path())? {
            let path = file.path();
            if !file.file_type()?.is_file() {
                continue;
            }
            let text =
                std::fs::read_to_string(&path).with_context(|| format!("failed to read `{}`", path.display()))?;
            let name = format!(
                "{}/{}",
                namespace.file_name().to_string_lossy(),
                file.file_name().to_string_lossy()
            );
            files.push((name, text));
        }
    }
    Ok(Vendored::of_files(
        files.iter().map(|(name, text)| (name.as_str(), text.clone())),
    ))
}
