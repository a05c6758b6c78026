//! `[environments.NAME]` in `towpath.toml`: what a repository declares about one environment.

use crate::project_schema::{Step, place_of};
use serde::Deserialize;
use std::{collections::BTreeMap, sync::Arc};
use toml::de::DeTable;
use towpath_manifest::{DeclaredBy, DeclaredEnvironment, DeclaredSource, LayoutSettings, SourceFile, Span, Written};
use towpath_types::EnvironmentId;

/// What a repository declares about one environment. Every line is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentTable {
    /// The kube context.
    pub kube_context: Option<String>,
    /// The namespace.
    pub namespace: Option<String>,
    /// A folder of manifests, or one file.
    pub path: Option<String>,
    /// A folder with a kustomization.
    pub kustomize: Option<String>,
    /// The folder of a Helm chart.
    pub chart: Option<String>,
    /// The chart's files with values.
    #[serde(default)]
    pub values: Vec<String>,
    /// Single values of the chart.
    #[serde(default)]
    pub set: BTreeMap<String, serde_json::Value>,
    /// The name of the chart's release, where Helm has installed it under another name than the project's.
    pub release: Option<String>,
    /// Whether nothing begins there before somebody has seen its plan and agreed. By default only in `production`.
    pub protected: Option<bool>,
    /// The environment whose images this one gets.
    pub after: Option<String>,
    /// A folder with Jobs outside of the environment's own.
    pub jobs: Option<String>,
    /// A folder with CronJobs outside of the environment's own.
    pub cron_jobs: Option<String>,
}

/// What is wrong with a table, and its first byte.
pub(crate) type Wrong = (usize, String);

/// The parsed text of a project file, for the places of its values.
pub(crate) struct Text<'a> {
    pub source: Arc<SourceFile>,
    pub table: &'a DeTable<'a>,
}

impl Text<'_> {
    fn span(&self, path: &[Step<'_>]) -> Span {
        let value = place_of(self.table, path).map(|(_, value)| value);
        Span::new(&self.source, value.unwrap_or_default())
    }

    /// The first byte of the key at a path.
    pub fn key(&self, path: &[Step<'_>]) -> usize {
        place_of(self.table, path).map_or(0, |(key, _)| key.start)
    }

    /// A value of the file itself.
    pub fn written(&self, key: &str, value: Option<&String>) -> Option<Written<String>> {
        Some(Written {
            value: value?.clone(),
            span: self.span(&[Step::Key(key)]),
        })
    }
}

/// One environment's table, with its places.
struct Table<'a> {
    text: &'a Text<'a>,
    name: &'a str,
}

impl Table<'_> {
    fn path<'b>(&'b self, key: &'b str) -> [Step<'b>; 3] {
        [Step::Key("environments"), Step::Key(self.name), Step::Key(key)]
    }

    fn written<T: Clone>(&self, key: &str, value: Option<&T>) -> Option<Written<T>> {
        Some(Written {
            value: value?.clone(),
            span: self.text.span(&self.path(key)),
        })
    }

    fn wrong(&self, key: &str, message: String) -> Wrong {
        (self.text.key(&self.path(key)), message)
    }
}

/// Reads what the tables say about the layout.
///
/// # Errors
/// When a table makes no sense.
pub(crate) fn settings(
    tables: &BTreeMap<String, EnvironmentTable>,
    manifests: Option<&String>,
    kube_context: Option<&String>,
    namespace: Option<&String>,
    text: &Text<'_>,
) -> Result<LayoutSettings, Wrong> {
    let mut environments = BTreeMap::new();
    for (name, table) in tables {
        let environment = declared(table, &Table { text, name })?;
        environments.insert(name.clone(), environment);
    }
    Ok(LayoutSettings {
        manifests: text.written("manifests", manifests),
        kube_context: text.written("kube_context", kube_context),
        namespace: text.written("namespace", namespace),
        environments,
    })
}

fn declared(table: &EnvironmentTable, at: &Table<'_>) -> Result<DeclaredEnvironment, Wrong> {
    let head = [Step::Key("environments"), Step::Key(at.name)];
    let start = at.text.key(&head);
    if let Err(error) = EnvironmentId::new("project", at.name) {
        return Err((start, error.to_string()));
    }
    for (key, value) in [
        ("kube_context", &table.kube_context),
        ("namespace", &table.namespace),
        ("path", &table.path),
        ("kustomize", &table.kustomize),
        ("chart", &table.chart),
        ("after", &table.after),
        ("jobs", &table.jobs),
        ("cron_jobs", &table.cron_jobs),
    ] {
        if value.as_ref().is_some_and(|value| value.trim().is_empty()) {
            return Err(at.wrong(key, format!("`{key}` is empty: write a value, or leave the line out")));
        }
    }
    if let Some(namespace) = table.namespace.as_ref().filter(|namespace| !is_a_label(namespace)) {
        let message = format!(
            "`{}` cannot name a namespace: it has lower-case letters, digits and `-`, and at most 63 of them",
            namespace.escape_debug()
        );
        return Err(at.wrong("namespace", message));
    }
    Ok(DeclaredEnvironment {
        span: Span::new(&at.text.source, start..start + at.name.len()),
        kube_context: at.written("kube_context", table.kube_context.as_ref()),
        namespace: at.written("namespace", table.namespace.as_ref()),
        source: source(table, at)?,
        protected: at.written("protected", table.protected.as_ref()),
        after: at.written("after", table.after.as_ref()),
        jobs: at.written("jobs", table.jobs.as_ref()),
        cron_jobs: at.written("cron_jobs", table.cron_jobs.as_ref()),
    })
}

/// Whether a text can name a namespace.
///
/// Source: <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-label-names>
fn is_a_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(is_inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn source(table: &EnvironmentTable, at: &Table<'_>) -> Result<Option<DeclaredSource>, Wrong> {
    let said: Vec<(&str, Written<String>)> = [
        ("path", &table.path),
        ("kustomize", &table.kustomize),
        ("chart", &table.chart),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key, at.written(key, value.as_ref())?)))
    .collect();
    if let [(one, _), (other, _), ..] = said.as_slice() {
        let message = format!(
            "`{}` has both `{one}` and `{other}`: it can be made from one of them only",
            at.name
        );
        return Err(at.wrong(other, message));
    }
    let Some((key, folder)) = said.into_iter().next() else {
        return of_no_chart(table, at).map(|()| None);
    };
    let by = match key {
        "chart" => DeclaredBy::Chart {
            values: values(table, at),
            set: set(table, at)?,
            release: release(table, at)?,
        },
        key => {
            of_no_chart(table, at)?;
            match key {
                "kustomize" => DeclaredBy::Kustomize,
                _ => DeclaredBy::Nothing,
            }
        }
    };
    Ok(Some(DeclaredSource { folder, by }))
}

/// Refuses what only a chart can have.
fn of_no_chart(table: &EnvironmentTable, at: &Table<'_>) -> Result<(), Wrong> {
    for (key, is_said) in [
        ("values", !table.values.is_empty()),
        ("set", !table.set.is_empty()),
        ("release", table.release.is_some()),
    ] {
        if is_said {
            let message = format!(
                "`{}` has `{key}` and no `chart`: name the chart that they are for",
                at.name
            );
            return Err(at.wrong(key, message));
        }
    }
    Ok(())
}

fn values(table: &EnvironmentTable, at: &Table<'_>) -> Vec<Written<String>> {
    let [environments, name, key] = at.path("values");
    let values = table.values.iter().enumerate();
    values
        .map(|(index, value)| Written {
            value: value.clone(),
            span: at.text.span(&[environments, name, key, Step::Item(index)]),
        })
        .collect()
}

/// The name of Helm's release.
///
/// Source: <https://github.com/helm/helm/blob/main/pkg/chart/common/util/validate_name.go>
fn release(table: &EnvironmentTable, at: &Table<'_>) -> Result<Option<String>, Wrong> {
    let Some(name) = &table.release else { return Ok(None) };
    let is_end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_name = name.len() <= 53
        && name
            .split('.')
            .all(|part| part.starts_with(is_end) && part.ends_with(is_end))
        && name.chars().all(|c| is_end(c) || matches!(c, '-' | '.'));
    match is_name {
        true => Ok(Some(name.clone())),
        false => Err(at.wrong(
            "release",
            format!(
                "`{}` cannot name a release of Helm: it has at most 53 lower-case letters, digits, `-` and `.`, with a letter or digit at both ends",
                name.escape_debug()
            ),
        )),
    }
}

/// The values of `set` by their whole paths, as JSON.
fn set(table: &EnvironmentTable, at: &Table<'_>) -> Result<BTreeMap<String, String>, Wrong> {
    fn flatten(path: &str, value: &serde_json::Value, found: &mut BTreeMap<String, String>) {
        match value {
            serde_json::Value::Object(inner) if !inner.is_empty() => {
                for (key, value) in inner {
                    flatten(&format!("{path}.{key}"), value, found);
                }
            }
            value => drop(found.insert(path.to_string(), value.to_string())),
        }
    }
    let mut found = BTreeMap::new();
    for (key, value) in &table.set {
        flatten(key, value, &mut found);
    }
    match found.keys().find(|key| key.is_empty() || key.contains(['=', ','])) {
        Some(key) => Err(at.wrong(
            "set",
            format!("`{}` is no path of a value: write `image.tag`", key.escape_debug()),
        )),
        None => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::project_file::ProjectFile;

    fn refused(text: &str, says: &str) {
        let error = ProjectFile::parse(text).unwrap_err().to_string();
        assert_eq!(error, says);
    }

    #[test]
    fn every_value_has_its_place() {
        let file = ProjectFile::parse(
            "manifests = \"deploy\"\n\n[environments.staging]\nkube_context = \"live\"\nchart = \"helm_deploy/shop\"\n\
             values = [\n  \"a.yaml\",\n  \"b.yaml\",\n]\nset = { \"image.tag\" = \"x\", replicas = 2, a.b = true }\n\
             protected = true\nafter = \"dev\"\n",
        )
        .unwrap();
        let places = format!("{:?}", file.layout);
        for place in ["1:13", "3:15", "4:16", "5:9", "7:3", "8:3", "11:13", "12:9"] {
            assert!(places.contains(&format!("towpath.toml:{place}")), "{place}: {places}");
        }
        assert!(
            places.contains(r#"{"a.b": "true", "image.tag": "\"x\"", "replicas": "2"}"#),
            "{places}"
        );
    }

    #[test]
    fn tables_that_make_no_sense_are_refused_with_their_place() {
        refused(
            "[environments.dev]\npath = \"k8s\"\nchart = \"c\"\n",
            "towpath.toml:3:1: `dev` has both `path` and `chart`: it can be made from one of them only",
        );
        refused(
            "[environments.dev]\nkustomize = \"k8s\"\nvalues = [\"v\"]\n",
            "towpath.toml:3:1: `dev` has `values` and no `chart`: name the chart that they are for",
        );
        refused(
            "[environments.dev]\n  set.a = 1\n",
            "towpath.toml:2:3: `dev` has `set` and no `chart`: name the chart that they are for",
        );
        refused(
            "[environments.dev]\nrelease = \"web\"\n",
            "towpath.toml:2:1: `dev` has `release` and no `chart`: name the chart that they are for",
        );
        refused(
            "[environments.dev]\nchart = \"c\"\nrelease = \"My_web\"\n",
            "towpath.toml:3:1: `My_web` cannot name a release of Helm: it has at most 53 lower-case letters, digits, `-` and `.`, with a letter or digit at both ends",
        );
        refused(
            "environments.dev.namespace = \"A_b\"\n",
            "towpath.toml:1:18: `A_b` cannot name a namespace: it has lower-case letters, digits and `-`, and at most 63 of them",
        );
        refused(
            "[environments.dev]\npath = \" \"\n",
            "towpath.toml:2:1: `path` is empty: write a value, or leave the line out",
        );
        refused(
            "[environments.dev]\nchart = \"c\"\nset = { \"a=b\" = 1 }\n",
            "towpath.toml:3:1: `a=b` is no path of a value: write `image.tag`",
        );
        let error = ProjectFile::parse("[environments.\"a b\"]\n").unwrap_err().to_string();
        assert!(error.starts_with("towpath.toml:1:15: "), "{error}");
    }

    #[test]
    fn an_unknown_key_is_an_error_with_a_suggestion() {
        refused(
            "[environments.dev]\nnamespace = \"x\"\nprotect = true\n",
            "towpath.toml:3:1: unknown key `protect` in `environments.dev`: did you mean `protected`?",
        );
        refused(
            "imag = \"x\"\n",
            "towpath.toml:1:1: unknown key `imag`: did you mean `image`?",
        );
        refused(
            "[[freeze]]\nfrom = \"2026-12-20T00:00:00Z\"\nuntill = \"2026-12-21T00:00:00Z\"\n",
            "towpath.toml:3:1: unknown key `untill` in `freeze`: did you mean `until`?",
        );
        let error = ProjectFile::parse("[wait]\nwhatever = 1\n").unwrap_err().to_string();
        assert_eq!(
            error,
            "towpath.toml:2:1: unknown key `whatever` in `wait`: there are release, unschedulable"
        );
    }
}
