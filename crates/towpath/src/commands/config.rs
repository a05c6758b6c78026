//! `towpath config`: a configuration on this disk, without a server.

use crate::cli::Config;
use anyhow::{Context, Result, anyhow};
use std::{io::IsTerminal, path::Path, process::ExitCode};
use towpath_config::{CompileOptions, CompiledConfig};
use towpath_yaml::{Diagnostic, SourceFile, render_all};

/// `towpath config`.
pub fn config(command: Config) -> Result<ExitCode> {
    match command {
        Config::Validate { file } => {
            let (config, diagnostics) = compile(&file)?;
            report(&diagnostics);
            if config.is_none() || diagnostics.iter().any(Diagnostic::is_error) {
                return Ok(ExitCode::FAILURE);
            }
            outln!("Config file at {} is valid.", file.display());
            Ok(ExitCode::SUCCESS)
        }
        Config::Process { file } => {
            let (config, diagnostics) = compile(&file)?;
            report(&diagnostics);
            let config = config.ok_or_else(|| anyhow!("`{}` does not compile", file.display()))?;
            out!("{}", towpath_config::process(&config));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn compile(file: &Path) -> Result<(Option<CompiledConfig>, Vec<Diagnostic>)> {
    let text = std::fs::read_to_string(file).with_context(|| format!("failed to read `{}`", file.display()))?;
    let source = SourceFile::new(file.to_string_lossy().into_owned(), text);
    Ok(towpath_config::compile(&source, &CompileOptions::default()))
}

fn report(diagnostics: &[Diagnostic]) {
    if !diagnostics.is_empty() {
        eprint!("{}", render_all(diagnostics, std::io::stderr().is_terminal()));
    }
}
