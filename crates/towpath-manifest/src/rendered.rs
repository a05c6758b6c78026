//! Turns the output of Kustomize and Helm into files of the tree.

use crate::RenderedEnvironment;
use std::collections::BTreeSet;
use towpath_yaml::{Diagnostic, DuplicateKeys, Limits, Node, ParseOptions, SourceFile, parse};

/// The output of a renderer, ready to be read together with the rest of the tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RenderedFiles {
    /// Paths and texts: one file for each object, in the folder of the environment.
    pub files: Vec<(String, String)>,
    /// What is worth knowing about how they were rendered.
    pub warnings: Vec<String>,
}

impl RenderedEnvironment {
    /// The path for a rendered object: `.k8s/live/dev/(rendered by helm)/migrate.job.yaml`.
    ///
    /// In a message, it shows which object is meant, and that its lines are not in any file of the repository. It ends in a
    /// file name, because a Job can be run by the name of its file.
    #[must_use]
    pub fn path_of(&self, object: &str) -> String {
        format!("{}/{object}.yaml", self.output())
    }

    /// Splits the output of the program into files.
    #[must_use]
    pub fn files(&self, printed: &str) -> RenderedFiles {
        let mut rendered = RenderedFiles::default();
        let mut names = BTreeSet::new();
        for (index, text) in documents(printed).into_iter().enumerate() {
            let Some(document) = describe(text) else {
                continue;
            };
            let name = match &document.name {
                Some((kind, name)) => format!("{name}.{}", kind.to_lowercase()).replace('/', "_"),
                None => format!("document {}", index + 1),
            };
            // Keep both of two objects with the same name: the reader of the tree reports them.
            let name = match names.insert(name.clone()) {
                true => name,
                false => format!("{name} ({})", index + 1),
            };
            rendered.files.push((self.path_of(&name), text.to_string()));
        }
        if rendered.files.is_empty() {
            // An environment without objects still exists.
            rendered.files.push((self.path_of("nothing"), String::new()));
        }
        rendered
    }
}

/// The documents of a stream. A line that starts with `---` always ends a document: inside a block of text, it would be
/// indented.
///
/// Source: <https://yaml.org/spec/1.2.2/#912-document-markers>
fn documents(stream: &str) -> Vec<&str> {
    let mut documents = Vec::new();
    let (mut start, mut at) = (0, 0);
    for line in stream.split_inclusive('\n') {
        let rest = line.strip_prefix("---");
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace)) {
            documents.push(&stream[start..at]);
            // Content after the marker belongs to the document. Leave out only a bare marker.
            start = if line.trim_end() == "---" { at + line.len() } else { at };
        }
        at += line.len();
    }
    documents.push(&stream[start..]);
    documents
}

#[derive(Default)]
struct Description {
    /// Kind and name.
    name: Option<(String, String)>,
}

/// Kind and name of a document; `None` for an empty one. A document that is not valid YAML gets no name: the reader of
/// the tree reports the error.
fn describe(text: &str) -> Option<Description> {
    let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    if text.lines().all(blank) {
        return None;
    }
    let options = ParseOptions {
        limits: Limits {
            source_bytes: 8 << 20,
            depth: 100,
            nodes: 500_000,
            expanded_bytes: 32 << 20,
        },
        duplicate_keys: DuplicateKeys::Warn,
        merge: true,
    };
    let (nodes, wrong) = parse(&SourceFile::new("rendered", text), &options);
    let Some(node) = nodes.first().filter(|_| !wrong.iter().any(Diagnostic::is_error)) else {
        return Some(Description::default());
    };
    if node.is_null() {
        return None;
    }
    let text_at = |path: &[&str]| {
        let mut at = node;
        for part in path {
            at = at.get(part)?;
        }
        at.as_scalar()
            .filter(|_| !Node::is_null(at))
            .map(|scalar| scalar.text.to_string())
    };
    Some(Description {
        name: text_at(&["kind"]).zip(text_at(&["metadata", "name"])),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::RenderedBy;

    fn environment(by: RenderedBy) -> RenderedEnvironment {
        RenderedEnvironment {
            kube_context: "live".into(),
            environment: "dev".into(),
            folder: ".k8s/live/dev".into(),
            by,
        }
    }

    fn helm() -> RenderedEnvironment {
        environment(RenderedBy::Helm {
            chart: ".k8s/live/dev".into(),
            values: Vec::new(),
            set: Vec::new(),
            release: None,
        })
    }

    fn check(environment: &RenderedEnvironment, printed: &str, expect: &[(&str, &str)]) -> Vec<String> {
        let rendered = environment.files(printed);
        let files: Vec<(&str, &str)> = rendered.files.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
        assert_eq!(files, expect, "{printed}");
        rendered.warnings
    }

    const WEB: &str = "kind: Deployment\nmetadata: {name: web}\n";

    #[test]
    fn each_object_becomes_a_file_that_names_its_renderer() {
        let kustomize = environment(RenderedBy::Kustomize);
        let two = format!("{WEB}---\nkind: Service\nmetadata:\n  name: web\n");
        check(
            &kustomize,
            &two,
            &[
                (".k8s/live/dev/(rendered by kustomize)/web.deployment.yaml", WEB),
                (
                    ".k8s/live/dev/(rendered by kustomize)/web.service.yaml",
                    "kind: Service\nmetadata:\n  name: web\n",
                ),
            ],
        );
    }

    #[test]
    fn empty_documents_and_comments_become_no_files() {
        let printed = format!("---\n# Source: app/templates/off.yaml\n---\n\n---\n{WEB}---\nnull\n");
        check(
            &helm(),
            &printed,
            &[(".k8s/live/dev/(rendered by helm)/web.deployment.yaml", WEB)],
        );
    }

    #[test]
    fn an_environment_without_objects_still_exists() {
        check(&helm(), "\n", &[(".k8s/live/dev/(rendered by helm)/nothing.yaml", "")]);
    }

    #[test]
    fn an_indented_marker_does_not_split_a_document() {
        let text = "kind: ConfigMap\nmetadata: {name: a}\ndata:\n  x: |\n    ---\n    a\n    ----\n";
        check(
            &helm(),
            text,
            &[(".k8s/live/dev/(rendered by helm)/a.configmap.yaml", text)],
        );
    }

    #[test]
    fn invalid_yaml_is_kept_for_the_reader_of_the_tree() {
        check(
            &helm(),
            "a: [\n",
            &[(".k8s/live/dev/(rendered by helm)/document 1.yaml", "a: [\n")],
        );
        let list = "kind: List\nitems: []\n";
        check(
            &helm(),
            list,
            &[(".k8s/live/dev/(rendered by helm)/document 1.yaml", list)],
        );
    }

    #[test]
    fn both_of_two_equal_objects_are_kept() {
        let rendered = helm().files(&format!("{WEB}---\n{WEB}"));
        let paths: BTreeSet<_> = rendered.files.iter().map(|(path, _)| path).collect();
        assert_eq!(paths.len(), 2);
    }

    #[test]
    fn a_slash_in_a_name_makes_no_folder() {
        let rendered = helm().files("kind: Role\nmetadata: {name: ../../x}\n");
        assert_eq!(
            rendered.files[0].0,
            ".k8s/live/dev/(rendered by helm)/.._.._x.role.yaml"
        );
    }

    #[test]
    fn helm_annotations_mean_nothing_to_kustomize() {
        let kustomize = environment(RenderedBy::Kustomize);
        let text = "kind: Pod\nmetadata: {name: a, annotations: {helm.sh/hook: test}}\n";
        let warnings = check(
            &kustomize,
            text,
            &[(".k8s/live/dev/(rendered by kustomize)/a.pod.yaml", text)],
        );
        assert!(warnings.is_empty());
    }
}
