//! What a kustomization takes from elsewhere than the repository.

use towpath_yaml::{DuplicateKeys, Limits, Node, ParseOptions, Place, SourceFile, Value, parse};

/// Fields of a kustomization whose texts are never loaded.
const TEXTS: [&str; 16] = [
    "apiVersion",
    "kind",
    "metadata",
    "commonLabels",
    "commonAnnotations",
    "labels",
    "images",
    "replicas",
    "vars",
    "namePrefix",
    "nameSuffix",
    "namespace",
    "buildMetadata",
    "literals",
    "target",
    "options",
];

/// Hosts that Kustomize takes a repository from without a scheme.
///
/// Source: <https://github.com/kubernetes-sigs/kustomize/blob/master/api/internal/git/repospec.go>
const HOSTS: [&str; 3] = ["github.com/", "gitlab.com/", "bitbucket.org/"];

/// Something that a kustomization takes from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteReference {
    /// As the kustomization has it.
    pub text: String,
    /// Where it is.
    pub place: Place,
}

impl RemoteReference {
    /// Its URL with a scheme: `https://github.com/org/repository//base?ref=v1`.
    #[must_use]
    pub fn url(&self) -> String {
        let text = self.text.strip_prefix("git::").unwrap_or(&self.text);
        match HOSTS.iter().any(|host| text.starts_with(host)) {
            true => format!("https://{text}"),
            false => text.to_string(),
        }
    }

    /// Whether it names a commit, so that it always means the same.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        let query = self.text.split_once('?').map_or("", |(_, query)| query);
        let reference = query.split('&').find_map(|part| {
            let (key, value) = part.split_once('=')?;
            matches!(key, "ref" | "version").then_some(value)
        });
        reference.is_some_and(|commit| commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }
}

/// The remote references in the kustomization at `path`.
#[must_use]
pub fn remote_references(path: &str, text: &str) -> Vec<RemoteReference> {
    let options = ParseOptions {
        limits: Limits {
            source_bytes: 1 << 20,
            depth: 100,
            nodes: 100_000,
            expanded_bytes: 8 << 20,
        },
        duplicate_keys: DuplicateKeys::Warn,
        merge: true,
    };
    let (documents, _) = parse(&SourceFile::new(path, text), &options);
    let mut found = Vec::new();
    documents.iter().for_each(|document| walk(document, &mut found));
    found
}

fn walk(node: &Node, found: &mut Vec<RemoteReference>) {
    match node.value() {
        Value::Scalar(scalar) => {
            // In a generator, a file may have another name: `settings.json=https://…`.
            let text = &*scalar.text;
            let file = text
                .split_once('=')
                .map(|(_, file)| file)
                .filter(|file| is_remote(file))
                .unwrap_or(text);
            if is_remote(file) {
                found.push(RemoteReference {
                    text: file.to_string(),
                    place: node.span().place(),
                });
            }
        }
        Value::Sequence(items) => items.iter().for_each(|item| walk(item, found)),
        Value::Mapping(mapping) => {
            let loaded = mapping
                .iter()
                .filter(|entry| !TEXTS.iter().any(|name| name.eq_ignore_ascii_case(&entry.key.text)));
            loaded.for_each(|entry| walk(&entry.value, found));
        }
    }
}

fn is_remote(text: &str) -> bool {
    if text.contains(['\n', ' ']) {
        return false;
    }
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    let has_scheme = !scheme.is_empty()
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-:".contains(&byte));
    has_scheme
        || text.starts_with("git::")
        || text.starts_with("git@")
        || text.contains("?ref=")
        || HOSTS.iter().any(|host| text.starts_with(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_elsewhere_is_found_with_its_place() {
        let text = "resources:\n- ../base\n- https://example.org/a.yaml\n- github.com/org/repo//base?ref=v1\ncomponents: [git@example.org:a/b]\npatches:\n- path: https://example.org/p.yaml\n  target: {kind: Deployment}\n- patch: |\n    - {op: add, value: https://example.org/}\nconfigMapGenerator:\n- name: a\n  files: [x=https://example.org/x]\n  literals: [URL=https://example.org]\ncommonAnnotations: {home: https://example.org}\n";
        let found: Vec<String> = remote_references("k.yaml", text)
            .iter()
            .map(|reference| format!("{} {}", reference.place, reference.url()))
            .collect();
        assert_eq!(
            found,
            [
                "k.yaml:3:3 https://example.org/a.yaml",
                "k.yaml:4:3 https://github.com/org/repo//base?ref=v1",
                "k.yaml:5:14 git@example.org:a/b",
                "k.yaml:7:9 https://example.org/p.yaml",
                "k.yaml:13:11 https://example.org/x",
            ]
        );
    }

    #[test]
    fn only_a_commit_always_means_the_same() {
        let is_pinned = |text: &str| {
            let reference = RemoteReference {
                text: text.into(),
                place: Place {
                    file: "k.yaml".into(),
                    line: 1,
                    column: 1,
                },
            };
            reference.is_pinned()
        };
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert!(is_pinned(&format!(
            "https://example.org/a/b//c?timeout=9s&ref={commit}"
        )));
        assert!(!is_pinned("https://example.org/a/b?ref=main"));
        assert!(!is_pinned("https://example.org/a.yaml"));
    }
}
