//! What `towpath.toml` says about environments, put on top of what was found.

use super::{
    environment::{EnvironmentLayout, Origin, RenderedBy, RenderedEnvironment, Source, Sourced},
    kustomization::Kustomizations,
    paths::{CHART, KUSTOMIZATIONS, inside, is_in, is_yaml, join, resolve},
};
use crate::settings::{DeclaredBy, DeclaredEnvironment, DeclaredSource, LayoutSettings, Written};
use std::collections::{BTreeMap, BTreeSet};
use towpath_types::nearest;
use towpath_yaml::{Diagnostic, Span};

/// The environments of a repository by name, each with all that are plausible.
pub(super) type ByName = BTreeMap<String, Vec<EnvironmentLayout>>;

fn written<T: Clone>(written: &Written<T>) -> Sourced<T> {
    Sourced {
        value: written.value.clone(),
        origin: Origin::Written(written.span.place()),
    }
}

/// Applies the settings to the environments that were found. The diagnostics belong to no environment that there is.
pub(super) fn apply(
    found: Vec<EnvironmentLayout>,
    settings: &LayoutSettings,
    files: &BTreeMap<&str, &str>,
    kustomizations: &Kustomizations,
    kube_context: &str,
) -> (ByName, Vec<Diagnostic>) {
    let mut by_name = ByName::new();
    for environment in found {
        by_name.entry(environment.name.clone()).or_default().push(environment);
    }
    if settings.is_the_list() {
        by_name.retain(|name, _| settings.environments.contains_key(name));
    }
    let mut wrong = Vec::new();
    for (name, declared) in &settings.environments {
        if let Some(source) = &declared.source {
            let layout = declare(name, source, files, kustomizations, kube_context);
            by_name.insert(name.clone(), vec![layout]);
        }
        match by_name.get_mut(name) {
            Some(several) => choose_kube_context(several, declared),
            None => {
                let known: Vec<&String> = by_name.keys().collect();
                wrong.push(nothing_to_deploy(name, declared, known.as_slice()));
            }
        }
    }
    for layout in by_name.values_mut().flatten() {
        let declared = settings.environments.get(&layout.name);
        fill_in(layout, declared, settings, files);
    }
    check_order(&mut by_name);
    (by_name, wrong)
}

/// The environment of a table that says what it is made from.
fn declare(
    name: &str,
    source: &DeclaredSource,
    files: &BTreeMap<&str, &str>,
    kustomizations: &Kustomizations,
    kube_context: &str,
) -> EnvironmentLayout {
    let mut faults = Vec::new();
    let folder = place(&source.folder, source.by.key(), &mut faults);
    let rendered = |by: RenderedBy| {
        Source::Rendered(RenderedEnvironment {
            kube_context: kube_context.to_string(),
            environment: name.to_string(),
            folder: folder.clone(),
            by,
        })
    };
    let made_from = match &source.by {
        DeclaredBy::Nothing => Source::Folder(folder.clone()),
        DeclaredBy::Kustomize => rendered(RenderedBy::Kustomize),
        DeclaredBy::Chart { values, set, release } => rendered(RenderedBy::Helm {
            chart: folder.clone(),
            values: values
                .iter()
                .map(|path| values_file(path, &folder, files, &mut faults))
                .collect(),
            set: set.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            release: release.clone(),
        }),
    };
    if faults.is_empty() {
        faults.extend(lacks(source, &folder, files));
    }
    let context = Sourced {
        value: kube_context.to_string(),
        origin: Origin::Convention("`default`, where nothing names another"),
    };
    let made_from = Sourced {
        value: made_from,
        origin: Origin::Written(source.folder.span.place()),
    };
    let mut layout = EnvironmentLayout::found(name, context, &folder, made_from);
    if source.by == DeclaredBy::Kustomize {
        layout.inputs.extend(kustomizations.reachable(&folder));
    }
    layout.faults = faults;
    layout
}

/// A path as the layout has it, or a fault about it.
fn place(path: &Written<String>, key: &str, faults: &mut Vec<Diagnostic>) -> String {
    resolve("", &path.value).unwrap_or_else(|| {
        let message = format!(
            "`{}` in `{key}` is outside of this repository",
            path.value.escape_debug()
        );
        faults.push(
            Diagnostic::error("manifest::outside-root", message)
                .at(&path.span, "")
                .hint("a path starts at the root of the repository"),
        );
        path.value.clone()
    })
}

fn values_file(
    path: &Written<String>,
    chart: &str,
    files: &BTreeMap<&str, &str>,
    faults: &mut Vec<Diagnostic>,
) -> String {
    let file = place(path, "values", faults);
    if !files.contains_key(file.as_str()) {
        let in_chart = join(chart, &file);
        let hint = match files.contains_key(in_chart.as_str()) {
            true => format!("paths start at the root of the repository: write `{in_chart}`"),
            false => "paths start at the root of the repository".to_string(),
        };
        faults.push(
            Diagnostic::error(
                "manifest::no-such-file",
                format!("there is no file `{}`", file.escape_debug()),
            )
            .at(&path.span, "")
            .hint(hint),
        );
    }
    file
}

/// What is missing in the folder that an environment is to be made from.
fn lacks(source: &DeclaredSource, folder: &str, files: &BTreeMap<&str, &str>) -> Option<Diagnostic> {
    let has = |names: &[&str]| names.iter().any(|name| files.contains_key(join(folder, name).as_str()));
    let (is_there, what) = match source.by {
        DeclaredBy::Nothing => (
            files.keys().any(|path| is_yaml(path) && is_in(path, folder)),
            "no YAML file",
        ),
        DeclaredBy::Kustomize => (has(&KUSTOMIZATIONS), "no kustomization"),
        DeclaredBy::Chart { .. } => (has(&[CHART]), "no `Chart.yaml`"),
    };
    let shown = match folder {
        "" => ".",
        folder => folder,
    };
    let message = format!("`{}` has {what}", shown.escape_debug());
    (!is_there).then(|| {
        Diagnostic::error("manifest::nothing-there", message)
            .at(&source.folder.span, "")
            .hint("paths start at the root of the repository")
    })
}

/// Chooses among the kube contexts below `.k8s/` that have an environment of the same name.
fn choose_kube_context(several: &mut Vec<EnvironmentLayout>, declared: &DeclaredEnvironment) {
    let Some(wanted) = declared.kube_context.as_ref().filter(|_| declared.source.is_none()) else {
        return;
    };
    let is_below_k8s = |layout: &EnvironmentLayout| inside(&layout.root).is_some();
    if several
        .iter()
        .any(|layout| is_below_k8s(layout) && layout.kube_context.value == wanted.value)
    {
        several.retain(|layout| layout.kube_context.value == wanted.value);
        return;
    }
    for layout in several.iter_mut().filter(|layout| is_below_k8s(layout)) {
        let (context, folder) = (&layout.kube_context.value, layout.source.value.folder());
        let message = format!("`{}` is in `{folder}`, whose kube context is `{context}`", layout.name);
        layout.faults.push(
            Diagnostic::error("manifest::other-kube-context", message)
                .at(&wanted.span, "")
                .hint(format!("say `path = \"{folder}\"` too, or leave `kube_context` out")),
        );
    }
}

fn nothing_to_deploy(name: &str, declared: &DeclaredEnvironment, known: &[&String]) -> Diagnostic {
    let message = format!("there is no environment `{name}` in this repository");
    let near = nearest(name, known.iter().map(|known| known.as_str()));
    let hint = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => "say what it is made from: `path`, `kustomize` or `chart`".to_string(),
    };
    Diagnostic::warning("manifest::no-such-environment", message)
        .at(&declared.span, "")
        .hint(hint)
}

/// Fills in everything that does not depend on how the environment was found.
fn fill_in(
    layout: &mut EnvironmentLayout,
    declared: Option<&DeclaredEnvironment>,
    settings: &LayoutSettings,
    files: &BTreeMap<&str, &str>,
) {
    layout.protected.value = settings.is_protected(&layout.name);
    let is_nowhere_said = matches!(layout.kube_context.origin, Origin::Convention(_));
    let context = declared.and_then(|declared| declared.kube_context.as_ref());
    let context = context.or(settings.kube_context.as_ref()).filter(|_| is_nowhere_said);
    if let Some(context) = context {
        layout.kube_context = written(context);
        if let Source::Rendered(rendered) = &mut layout.source.value {
            rendered.kube_context.clone_from(&context.value);
        }
    }
    let Some(declared) = declared else { return };
    layout.namespace = declared.namespace.as_ref().map(written);
    layout.after = declared.after.as_ref().map(written);
    if let Some(protected) = &declared.protected {
        layout.protected = written(protected);
    }
    for (key, said, folder) in [
        ("jobs", &declared.jobs, &mut layout.jobs),
        ("cron_jobs", &declared.cron_jobs, &mut layout.cron_jobs),
    ] {
        let Some(said) = said else { continue };
        let value = place(said, key, &mut layout.faults);
        if !files.keys().any(|path| is_yaml(path) && is_in(path, &value)) {
            let message = format!("`{}` has no YAML file", value.escape_debug());
            layout.faults.push(
                Diagnostic::error("manifest::nothing-there", message)
                    .at(&said.span, "")
                    .hint("paths start at the root of the repository"),
            );
        }
        layout.inputs.insert(value.clone());
        *folder = Some(Sourced {
            value,
            origin: Origin::Written(said.span.place()),
        });
    }
    if let Some(after) = &declared.after {
        layout
            .faults
            .extend(declared_after_itself(&layout.name, after, settings));
    }
}

/// A fault if following `after` leads back to the environment.
fn declared_after_itself(name: &str, after: &Written<String>, settings: &LayoutSettings) -> Option<Diagnostic> {
    let mut seen = BTreeSet::from([name]);
    let mut next = Some(after.value.as_str());
    while let Some(before) = next {
        if !seen.insert(before) {
            let message = format!(
                "`{name}` is after `{}`, which leads back to it",
                after.value.escape_debug()
            );
            return (before == name).then(|| order_fault(message, &after.span));
        }
        let said = settings.environments.get(before);
        next = said
            .and_then(|said| said.after.as_ref())
            .map(|after| after.value.as_str());
    }
    None
}

fn order_fault(message: String, span: &Span) -> Diagnostic {
    Diagnostic::error("manifest::order", message)
        .at(span, "")
        .hint("`after` names the environment whose images this one gets")
}

/// Reports environments that are to come after one that there is not.
fn check_order(by_name: &mut ByName) {
    let known: Vec<String> = by_name.keys().cloned().collect();
    for layout in by_name.values_mut().flatten() {
        let Some(Sourced {
            value: after,
            origin: Origin::Written(place),
        }) = &layout.after
        else {
            continue;
        };
        if known.contains(after) {
            continue;
        }
        let near = nearest(after, &known);
        let near = near.map(|near| format!(": did you mean `{near}`?")).unwrap_or_default();
        let message = format!("{place}: there is no environment `{}`{near}", after.escape_debug());
        layout.faults.push(Diagnostic::error("manifest::order", message));
    }
}
