//! Compiles a configuration and finds what a runtime cannot run of it.

use towpath_yaml::Diagnostic;

use crate::compile::{Extras, run};
use crate::compiled::CompiledConfig;
use crate::document::Document;
use crate::options::CompileOptions;
use crate::runnable::{Capabilities, Finding, unsupported};

/// The result of [`check`].
#[derive(Clone, Debug)]
pub struct Checked {
    /// The compiled configuration; `None` if it has errors.
    pub config: Option<CompiledConfig>,
    /// The configuration as CircleCI's `config process` prints it; empty if it has errors.
    pub text: String,
    /// What the compiler reported.
    pub diagnostics: Vec<Diagnostic>,
    /// What the runtime cannot run, or runs differently.
    pub findings: Vec<Finding>,
}

impl Checked {
    /// What the compiler reported, and a warning for each finding.
    pub fn all_diagnostics(&self) -> Vec<Diagnostic> {
        let findings = self.findings.iter().map(|finding| finding.diagnostic.clone());
        self.diagnostics.iter().cloned().chain(findings).collect()
    }
}

/// Compiles a configuration as [`crate::compile::process`] does, and finds what `host` cannot run of it. That includes jobs that no
/// workflow runs.
pub fn check(document: &Document, options: &CompileOptions, host: &Capabilities) -> Checked {
    let extras = Extras {
        text: true,
        unused_jobs: true,
    };
    let (compiled, diagnostics) = run(document, options, extras);
    let Some(compiled) = compiled else {
        return Checked {
            config: None,
            text: String::new(),
            diagnostics,
            findings: Vec::new(),
        };
    };
    let findings = unsupported(&compiled.config, &compiled.unused_jobs, document, &options.orbs, host);
    Checked {
        config: Some(compiled.config),
        text: compiled.text,
        diagnostics,
        findings,
    }
}
