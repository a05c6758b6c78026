//! Checks that all fuzz targets share.

use std::sync::Arc;
use towpath_config::{
    Capabilities, CompileOptions, Document, OrbError, OrbSource, check, check_orb, compile, explain, lint, missing_orbs,
    process,
};
use towpath_yaml::{Diagnostic, render_all};

/// Default options in which every orb that `document` imports has the source `orb`.
fn supplied(document: &Document, orb: Option<&Arc<str>>) -> CompileOptions {
    let mut options = CompileOptions::default();
    loop {
        let missing = missing_orbs(document, &options);
        if missing.is_empty() {
            return options;
        }
        for wanted in missing {
            let reference = wanted.reference;
            assert!(!options.orbs.contains(&reference), "{reference} is asked for again");
            let answer = match orb {
                Some(text) => Ok(OrbSource {
                    resolved: reference.clone(),
                    text: text.clone(),
                }),
                None => Err(OrbError::Unknown(reference.clone())),
            };
            options.orbs.insert(reference, answer);
        }
    }
}

/// Compiles `text` with `orb` as the source of every orb, and checks what must be true of any text: nothing panics, there is
/// either an error or a configuration, and the printed configuration compiles to itself.
pub fn holds(text: &str, orb: Option<&str>) {
    let orb: Option<Arc<str>> = orb.map(Into::into);
    let source = Document::parse("config.yml", text);
    let options = supplied(&source, orb.as_ref());
    let (processed, diagnostics) = process(&source, &options);
    render_all(&diagnostics, true);
    let host = Capabilities::default();
    for finding in check(&source, &options, &host).findings {
        assert!(!finding.diagnostic.is_error(), "a finding is an error");
        finding.reason();
    }
    for diagnostic in &diagnostics {
        assert!(!diagnostic.message.is_empty(), "a diagnostic has no message");
        diagnostic.to_json();
    }
    let (explainer, _) = explain(&source, &options);
    if let Some(explainer) = explainer {
        for job in explainer.jobs().take(5) {
            let explanation = explainer.job(job).expect("a job that is listed is explained");
            assert!(explanation.to_string().starts_with(job));
        }
    }
    // Linting compiles the text for many branches and tags.
    if text.len() < 1500 {
        render_all(&lint(&source, &options, &host, Some(&[])), false);
    }
    if let Some(text) = &orb {
        let document = Document::parse("orb.yml", &**text);
        check_orb(&document, &supplied(&document, Some(text)));
    }
    let refused = diagnostics.iter().any(Diagnostic::is_error);
    let Some((config, printed)) = processed else {
        assert!(refused, "neither a configuration nor an error");
        return;
    };
    // A configuration without workflows is refused when it is compiled again.
    if refused || config.workflows.is_empty() {
        return;
    }
    serde_json::to_string(&config).expect("a compiled configuration can be stored");
    let (again, diagnostics) = compile(
        &Document::parse("printed.yml", printed.as_str()),
        &CompileOptions::default(),
    );
    let errors: Vec<_> = diagnostics.iter().filter(|found| found.is_error()).collect();
    assert!(
        errors.is_empty() && again.is_some(),
        "the printed configuration does not compile: {errors:?}\n{printed}"
    );
}
