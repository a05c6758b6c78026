//! Kustomizations: which there are, and which of them use which.

use super::paths::{CHART, KUSTOMIZATIONS, ancestors, is_below, resolve};
use std::collections::{BTreeMap, BTreeSet};
use towpath_yaml::{Diagnostic, DuplicateKeys, Limits, Node, ParseOptions, SourceFile, Span, parse};

/// The fields of a kustomization that can refer to folders.
///
/// Source: <https://kubectl.docs.kubernetes.io/references/kustomize/kustomization/>
const REFERENCES: [&str; 6] = [
    "resources",
    "bases",
    "components",
    "generators",
    "transformers",
    "validators",
];

/// Every kustomization of a repository.
#[derive(Default)]
pub(crate) struct Kustomizations {
    /// By folder: the paths that its kustomization refers to.
    pub references: BTreeMap<String, BTreeSet<String>>,
    /// The folders of components.
    pub components: BTreeSet<String>,
}

impl Kustomizations {
    /// Reads the kustomizations among `files` (paths and texts).
    pub fn read(files: &BTreeMap<&str, &str>, diagnostics: &mut Vec<Diagnostic>) -> Self {
        let mut found = Self::default();
        let mut templates: BTreeMap<&str, Vec<Diagnostic>> = BTreeMap::new();
        for (path, text) in files {
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
            if !KUSTOMIZATIONS.contains(&name) {
                continue;
            }
            let mut wrong = Vec::new();
            let read = read_one(folder, path, text, &mut wrong);
            // A chart can have a template with such a name. Report its errors only if an environment uses it.
            let in_chart = ancestors(folder).any(|dir| files.contains_key(format!("{dir}/{CHART}").as_str()));
            if in_chart && !wrong.is_empty() {
                templates.insert(folder, wrong);
                continue;
            }
            diagnostics.append(&mut wrong);
            let Some((is_component, references)) = read else {
                continue;
            };
            found
                .references
                .entry(folder.to_string())
                .or_default()
                .extend(references);
            if is_component {
                found.components.insert(folder.to_string());
            }
        }
        for (folder, wrong) in templates {
            if found.references.values().any(|bases| bases.contains(folder)) {
                diagnostics.extend(wrong);
            }
        }
        found
    }

    /// The folders with kustomizations that one uses, except itself and the folders that contain it.
    pub fn reachable(&self, from: &str) -> BTreeSet<String> {
        let mut reached = BTreeSet::new();
        let mut next = vec![from.to_string()];
        while let Some(folder) = next.pop() {
            for base in self.references.get(&folder).into_iter().flatten() {
                // Kustomize refuses a base that contains its user. Leave that error to Kustomize.
                let around = base == from || is_below(from, base);
                if !around && self.references.contains_key(base) && reached.insert(base.clone()) {
                    next.push(base.clone());
                }
            }
        }
        reached
    }
}

/// Whether a kustomization is a component, and the paths that it refers to. `None` for a file that only has the name of a
/// kustomization: Flux has objects of that kind.
fn read_one(
    folder: &str,
    path: &str,
    text: &str,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<(bool, BTreeSet<String>)> {
    let source = SourceFile::new(path, text);
    let options = ParseOptions {
        limits: Limits {
            source_bytes: 1 << 20,
            depth: 100,
            nodes: 100_000,
            expanded_bytes: 8 << 20,
        },
        duplicate_keys: DuplicateKeys::Refuse,
        merge: true,
    };
    let (documents, wrong) = parse(&source, &options);
    let version = documents
        .first()
        .and_then(|node| node.get("apiVersion"))
        .and_then(Node::as_scalar);
    if version.is_some_and(|version| !version.text.starts_with("kustomize.config.k8s.io/")) {
        return None;
    }
    diagnostics.extend(wrong);
    let mut is_component = false;
    let mut references = BTreeSet::new();
    let fields = documents
        .iter()
        .filter_map(Node::as_mapping)
        .flat_map(|mapping| mapping.iter());
    for field in fields {
        let key = &field.key.text;
        if &**key == "kind" {
            is_component = field.value.as_scalar().is_some_and(|kind| &*kind.text == "Component");
        }
        // Kustomize ignores the case of fields, so check all that it would follow.
        if !REFERENCES.iter().any(|name| name.eq_ignore_ascii_case(key)) {
            continue;
        }
        let items = field.value.as_sequence().unwrap_or_default();
        for item in items {
            // An inline transformer is not a reference.
            let Some(reference) = item.as_scalar().filter(|scalar| !scalar.text.contains('\n')) else {
                continue;
            };
            match resolve(folder, &reference.text) {
                Some(found) => {
                    references.insert(found);
                }
                None => diagnostics.push(outside(item.span(), key, &reference.text)),
            }
        }
    }
    Some((is_component, references))
}

fn outside(span: &Span, key: &str, reference: &str) -> Diagnostic {
    let message = format!("`{reference}` in `{key}` is outside of this repository");
    Diagnostic::error("manifest::outside-root", message)
        .at(span, "")
        .hint("everything that manifests are rendered from has to be in the repository: copy it there")
}
