//! What the targets share.

use std::sync::Arc;
use towpath_config::{CompileOptions, OrbError, OrbSource, check_orb, compile, explain, lint, process};
use towpath_yaml::{Diagnostic, SourceFile, render_all};

/// Compiles `text`, with `orb` as every orb there is, and holds what must be true of any text: no panic, an error or a
/// configuration and never both or neither, places inside the text, and what is printed compiles to the same again.
pub fn holds(text: &str, orb: Option<&str>) {
    let orb: Option<Arc<str>> = orb.map(Into::into);
    let orbs = |reference: &str| match &orb {
        Some(text) => Ok(OrbSource {
            resolved: reference.to_owned(),
            text: text.clone(),
        }),
        None => Err(OrbError::Unknown(reference.to_owned())),
    };
    let options = CompileOptions {
        orbs: &orbs,
        ..CompileOptions::default()
    };
    let source = SourceFile::new("config.yml", text);
    let (processed, diagnostics) = process(&source, &options);
    render_all(&diagnostics, true);
    for diagnostic in &diagnostics {
        assert!(!diagnostic.message.is_empty(), "an error says nothing");
        diagnostic.to_json();
    }
    let (explainer, _) = explain(&source, &options);
    if let Some(explainer) = explainer {
        for job in explainer.jobs().take(5) {
            let explanation = explainer.job(job).expect("a job that is listed is explained");
            assert!(explanation.to_string().starts_with(job));
        }
    }
    // This compiles it for one branch and tag after the other.
    if text.len() < 1500 {
        render_all(&lint(&source, &options, Some(&[])), false);
    }
    if let Some(orb) = &orb {
        check_orb(&SourceFile::new("orb.yml", &**orb), &options);
    }
    let refused = diagnostics.iter().any(Diagnostic::is_error);
    let Some((config, printed)) = processed else {
        assert!(refused, "neither a configuration nor an error");
        return;
    };
    // A configuration of which nothing is for this pipeline is refused when it is read again.
    if refused || config.workflows.is_empty() {
        return;
    }
    serde_json::to_string(&config).expect("a compiled configuration can be stored");
    let (again, diagnostics) = compile(
        &SourceFile::new("printed.yml", printed.as_str()),
        &CompileOptions::default(),
    );
    let errors: Vec<_> = diagnostics.iter().filter(|found| found.is_error()).collect();
    assert!(
        errors.is_empty() && again.is_some(),
        "what was printed does not compile: {errors:?}\n{printed}"
    );
}
