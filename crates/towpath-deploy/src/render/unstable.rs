//! Compares two renderings of a chart, and says what in its templates makes them different.

use std::collections::BTreeMap;
use towpath_manifest::{Dependence, RenderedBy, RenderedEnvironment, RenderedFiles, UnstableCall};

/// Whether Helm may execute the file at `path` as a template: those of the chart and of the charts in it, and values, which
/// templates may execute.
pub(super) fn is_template(environment: &RenderedEnvironment, path: &str) -> bool {
    let RenderedBy::Helm { chart, values, .. } = &environment.by else {
        return false;
    };
    let path = path.strip_prefix("./").unwrap_or(path);
    let inside = match chart.as_str() {
        "" => Some(path),
        chart => path.strip_prefix(chart).and_then(|inside| inside.strip_prefix('/')),
    };
    let is_of_chart = inside.is_some_and(|inside| {
        inside.starts_with("templates/") || inside.contains("/templates/") || inside.ends_with("values.yaml")
    });
    is_of_chart || values.iter().any(|values| values == path)
}

/// A sentence for each object that differs between two renderings.
pub(super) fn objects(
    environment: &RenderedEnvironment,
    one: &RenderedFiles,
    other: &RenderedFiles,
    calls: &[UnstableCall],
) -> Vec<String> {
    let texts: BTreeMap<&String, &String> = other.files.iter().map(|(path, text)| (path, text)).collect();
    let differs = |(path, text): &&(String, String)| texts.get(path).is_none_or(|other| *other != text);
    let differing = one.files.iter().filter(differs);
    differing
        .map(|(path, text)| {
            let name = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".yaml");
            let calls = calls_of(environment, text, calls);
            let calls: Vec<String> = calls
                .iter()
                .map(|call| format!("{}: `{}`", call.place, call.function))
                .collect();
            format!("  {name}: {}", calls.join(", "))
        })
        .collect()
}

/// A sentence for each `lookup`.
pub(super) fn lookups(calls: &[UnstableCall]) -> Vec<String> {
    let lookups = calls.iter().filter(|call| call.on == Dependence::Cluster);
    lookups
        .map(|call| {
            format!(
                "{}: `{}` finds nothing while Towpath renders: what depends on it is rendered as for the first installation",
                call.place, call.function
            )
        })
        .collect()
}

/// The calls that may have changed an object: those in its template, otherwise those in the templates that others include,
/// otherwise all.
fn calls_of<'a>(environment: &RenderedEnvironment, text: &str, calls: &'a [UnstableCall]) -> Vec<&'a UnstableCall> {
    let RenderedBy::Helm { chart, .. } = &environment.by else {
        return Vec::new();
    };
    // Helm writes the name of the chart in place of its folder.
    let source = text.lines().find_map(|line| line.strip_prefix("# Source: "));
    let source = source.and_then(|source| source.trim().split_once('/'));
    let template = source.map(|(_, inside)| format!("{chart}/{inside}"));
    let unstable = || calls.iter().filter(|call| call.on != Dependence::Cluster);
    let is_included = |call: &&UnstableCall| {
        let name = call.place.file.rsplit('/').next().unwrap_or_default();
        name.starts_with('_')
    };
    let own: Vec<_> = unstable()
        .filter(|call| template.as_deref() == Some(&*call.place.file))
        .collect();
    let included: Vec<_> = unstable().filter(is_included).collect();
    [own, included, unstable().collect()]
        .into_iter()
        .find(|found| !found.is_empty())
        .unwrap_or_default()
}
