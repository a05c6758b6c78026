//! The checks of `config lint`.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use towpath_yaml::{Diagnostic, Node, Span, Value as YamlValue};

use crate::check::check;
use crate::compile::{compile, with_config};
use crate::compiled::CompiledConfig;
use crate::document::Document;
use crate::elements::ALWAYS;
use crate::lint::refs::refs;
use crate::lint::secrets::secrets;
use crate::options::CompileOptions;
use crate::pipeline_values::PipelineValues;
use crate::runnable::Capabilities;
use towpath_types::nearest;

/// Finds parts of a configuration that compile but are probably mistakes, and parts that `host` cannot run.
///
/// `contexts` has the contexts that exist, if they are known. A configuration that does not compile has its errors as the
/// result.
pub fn lint(
    document: &Document,
    options: &CompileOptions,
    host: &Capabilities,
    contexts: Option<&[String]>,
) -> Vec<Diagnostic> {
    let checked = check(document, options, host);
    let mut diagnostics = checked.all_diagnostics();
    let Some(config) = checked.config else {
        return diagnostics;
    };
    let Some(root) = document.root() else {
        return diagnostics;
    };
    // Conditions may intentionally keep all workflows from running for this branch.
    diagnostics.retain(|diagnostic| diagnostic.is_error() || diagnostic.code != "config::no-workflow");
    let mut lint = Lint {
        root,
        words: words(root),
        found: diagnostics,
    };
    lint.unused();
    lint.uncalled(document, options);
    lint.parameters();
    if let Some((branches, tags)) = refs(root) {
        lint.never_run(document, options, &branches, &tags);
    }
    lint.images();
    secrets(root, &mut lint.found);
    if let Some(contexts) = contexts {
        lint.contexts(&config, contexts);
    }
    let mut found = lint.found;
    found.sort_by_key(|diagnostic| diagnostic.primary.as_ref().map(|label| label.span.range().start));
    found
}

struct Lint<'r> {
    root: &'r Node,
    /// All keys and scalars of the file, except the names that definitions define.
    words: HashSet<Arc<str>>,
    found: Vec<Diagnostic>,
}

/// The sections that define names, and the word for what they define.
const SECTIONS: &[(&str, &str)] = &[
    ("jobs", "job"),
    ("commands", "command"),
    ("executors", "executor"),
    ("orbs", "orb"),
];

fn words(root: &Node) -> HashSet<Arc<str>> {
    let mut words = HashSet::new();
    for part in root.as_mapping().into_iter().flatten() {
        let defines = SECTIONS.iter().any(|(section, _)| *section == &*part.key.text);
        match part.value.as_mapping() {
            Some(section) if defines => section.iter().for_each(|own| collect(&own.value, &mut words)),
            _ => collect(&part.value, &mut words),
        }
    }
    words
}

fn collect(node: &Node, words: &mut HashSet<Arc<str>>) {
    match node.value() {
        YamlValue::Scalar(scalar) => drop(words.insert(scalar.text.clone())),
        YamlValue::Sequence(items) => items.iter().for_each(|item| collect(item, words)),
        YamlValue::Mapping(mapping) => {
            for part in mapping {
                words.insert(part.key.text.clone());
                collect(&part.value, words);
            }
        }
    }
}

impl Lint<'_> {
    fn warn(&mut self, code: &'static str, message: String, span: &Span, label: &'static str, hint: &str) {
        let diagnostic = Diagnostic::warning(code, message).at(span, label);
        self.found.push(match hint.is_empty() {
            true => diagnostic,
            false => diagnostic.hint(hint),
        });
    }

    /// Reports definitions that nothing refers to.
    fn unused(&mut self) {
        let root = self.root;
        // Without workflows the job `build` runs.
        let has_workflows = root.get("workflows").is_some_and(|workflows| !workflows.is_null());
        let run = jobs_that_run(root);
        for (section, word) in SECTIONS {
            for part in root.get(section).and_then(Node::as_mapping).into_iter().flatten() {
                let name = &part.key.text;
                let prefix = format!("{name}/");
                let used = match *section {
                    "orbs" => self.words.iter().any(|word| word.starts_with(&prefix)),
                    "jobs" if !has_workflows => &**name == "build",
                    "jobs" => run.as_ref().is_none_or(|run| run.contains(name)),
                    // Any mention counts, because a template such as `<< pipeline.parameters.executor >>` can hold a name.
                    _ => self.words.contains(name),
                };
                if used {
                    continue;
                }
                let message = match *section {
                    "jobs" => format!("no workflow runs job `{name}`"),
                    "orbs" => format!("nothing uses orb `{name}`"),
                    _ => format!("nothing uses {word} `{name}`"),
                };
                let hint = match *section {
                    "jobs" => "add it to a workflow, or remove it",
                    _ => "remove it",
                };
                self.warn("lint::unused", message, &part.key.span, "", hint);
            }
        }
    }

    /// Reports errors in definitions that no workflow of this pipeline uses. The compiler only checks their form.
    fn uncalled(&mut self, document: &Document, options: &CompileOptions) {
        let known: HashSet<(&'static str, String)> = self
            .found
            .iter()
            .map(|diagnostic| (diagnostic.code, diagnostic.message.clone()))
            .collect();
        let (_, all) = with_config(document, options, |compiler, root| {
            compiler.check_elements(root, ALWAYS, |_, _| true);
        });
        self.found.extend(
            all.into_iter()
                .filter(|found| !known.contains(&(found.code, found.message.clone()))),
        );
    }

    /// Reports parameters that nothing refers to.
    fn parameters(&mut self) {
        let root = self.root;
        let whole = texts(root);
        // A setup configuration may declare parameters for the configuration that continues it.
        let is_setup = root
            .get("setup")
            .and_then(Node::as_scalar)
            .is_some_and(|setup| &*setup.text == "true");
        let pipeline = root.get("parameters").filter(|_| !is_setup).and_then(Node::as_mapping);
        for part in pipeline.into_iter().flatten() {
            let name = format!("pipeline.parameters.{}", part.key.text);
            if !whole.iter().any(|text| mentions(text, &name)) {
                let message = format!("nothing refers to pipeline parameter `{}`", part.key.text);
                self.warn("lint::unused-parameter", message, &part.key.span, "", "");
            }
        }
        for section in ["jobs", "commands", "executors"] {
            let elements = root.get(section).and_then(Node::as_mapping);
            for element in elements.into_iter().flatten() {
                let declared = element.value.get("parameters").and_then(Node::as_mapping);
                let texts = texts(&element.value);
                for part in declared.into_iter().flatten() {
                    let name = format!("parameters.{}", part.key.text);
                    if !texts.iter().any(|text| mentions(text, &name)) {
                        let message = format!(
                            "`{}` declares parameter `{}` and never uses it",
                            element.key.text, part.key.text
                        );
                        self.warn("lint::unused-parameter", message, &part.key.span, "", "");
                    }
                }
            }
        }
    }

    /// Reports jobs that run for none of the sample branches and tags, and jobs with a tag filter that run for no tag.
    fn never_run(
        &mut self,
        document: &Document,
        options: &CompileOptions,
        branches: &BTreeSet<String>,
        tags: &BTreeSet<String>,
    ) {
        let mut options = options.clone();
        let defaults = options.values.clone();
        let mut compiled = |set: &dyn Fn(&mut PipelineValues)| {
            options.values = defaults.clone();
            set(&mut options.values);
            compile(document, &options).0
        };
        let on_branches: Vec<CompiledConfig> = branches
            .iter()
            .filter_map(|branch| compiled(&|values| values.set("git.branch", branch.as_str())))
            .collect();
        let on_tags: Vec<CompiledConfig> = tags
            .iter()
            .filter_map(|tag| {
                compiled(&|values| {
                    values.set("git.branch", serde_json::Value::Null);
                    values.set("git.tag", tag.as_str());
                })
            })
            .collect();
        let runs = |configs: &[CompiledConfig], workflow: &str, job: &str| {
            configs
                .iter()
                .flat_map(|config| &config.workflows)
                .filter(|own| own.name == workflow)
                .any(|own| own.jobs.iter().any(|own| own.name == job))
        };
        let mut seen = HashSet::new();
        let mut reported = HashSet::new();
        for config in on_branches.iter().chain(&on_tags) {
            for workflow in &config.workflows {
                if self.has_other_filters(&workflow.name) {
                    continue;
                }
                for name in &workflow.filtered {
                    if !seen.insert((workflow.name.clone(), name.clone())) {
                        continue;
                    }
                    let Some((key, filters)) = self.invocation(&workflow.name, name) else {
                        continue;
                    };
                    // Report only one member of a matrix.
                    if reported.contains(&key.range().start) {
                        continue;
                    }
                    let asks_for_tags = filters
                        .as_ref()
                        .and_then(|filters| filters.get("tags"))
                        .is_some_and(|tags| !refuses_all(tags));
                    let hint = "a pipeline of a tag runs only jobs with a `tags` filter: add one to each required job";
                    if !runs(&on_branches, &workflow.name, name) && !runs(&on_tags, &workflow.name, name) {
                        let message = format!(
                            "job `{name}` never runs: its filters and those of the jobs it requires exclude all branches and tags"
                        );
                        self.warn(
                            "lint::never-runs",
                            message,
                            &key,
                            "",
                            if asks_for_tags { hint } else { "" },
                        );
                        reported.insert(key.range().start);
                    } else if asks_for_tags && !runs(&on_tags, &workflow.name, name) {
                        let message = format!("job `{name}` has a `tags` filter, but runs for no tag");
                        self.warn("lint::never-runs", message, &key, "", hint);
                        reported.insert(key.range().start);
                    }
                }
            }
        }
    }

    /// Finds the entry of a job in a workflow. Returns its key and its filters.
    fn invocation(&self, workflow: &str, name: &str) -> Option<(Span, Option<Node>)> {
        let jobs = self.root.get("workflows")?.get(workflow)?.get("jobs")?.as_sequence()?;
        let find = |fits: &dyn Fn(&str) -> bool| {
            jobs.iter().find_map(|item| {
                let part = item.as_mapping()?.entries().first()?;
                let given = part.value.get("name").and_then(Node::as_scalar).map(|name| &*name.text);
                let own = given.unwrap_or(&part.key.text);
                let filters = part.value.get("filters").cloned();
                fits(own).then(|| (part.key.span.clone(), filters))
            })
        };
        // Duplicates and members of a matrix have a suffix.
        let is_longer = |own: &str| name.strip_prefix(own).is_some_and(|rest| rest.starts_with('-'));
        find(&|own| own == name).or_else(|| find(&is_longer))
    }

    /// Whether a filter of a workflow depends on more than the branch and the tag.
    fn has_other_filters(&self, workflow: &str) -> bool {
        let jobs = self
            .root
            .get("workflows")
            .and_then(|all| all.get(workflow)?.get("jobs"));
        let items = jobs.and_then(Node::as_sequence).unwrap_or_default();
        let filters = items.iter().filter_map(|item| {
            let part = item.as_mapping()?.entries().first()?;
            part.value.get("filters")?.as_scalar()
        });
        filters
            .flat_map(|scalar| scalar.text.split("pipeline.").skip(1))
            .any(|rest| {
                let end = rest.find(|character: char| !(character.is_alphanumeric() || "._-".contains(character)));
                !matches!(&rest[..end.unwrap_or(rest.len())], "git.branch" | "git.tag")
            })
    }

    /// Reports images without a fixed version.
    fn images(&mut self) {
        let root = self.root;
        for section in ["jobs", "executors"] {
            let elements = root.get(section).and_then(Node::as_mapping);
            for element in elements.into_iter().flatten() {
                let images = element.value.get("docker").and_then(Node::as_sequence);
                for image in images.into_iter().flatten() {
                    let Some(node) = image.get("image") else { continue };
                    let Some(text) = node.as_scalar().map(|scalar| scalar.text.clone()) else {
                        continue;
                    };
                    if text.contains("<<") || text.contains('$') || text.contains('@') {
                        continue;
                    }
                    let last = text.rsplit('/').next().unwrap_or(&text);
                    let message = match last.split_once(':') {
                        None => format!("image `{text}` has no tag, so its version can change at any time"),
                        Some((_, tag)) if MUTABLE_TAGS.contains(&tag) => {
                            format!("image `{text}` can change whenever somebody pushes the tag")
                        }
                        Some(_) => continue,
                    };
                    let hint = "use a version or a digest: `image@sha256:…`";
                    self.warn("lint::mutable-image", message, node.span(), "", hint);
                }
            }
        }
    }

    /// Reports contexts that do not exist.
    fn contexts(&mut self, config: &CompiledConfig, contexts: &[String]) {
        let root = self.root;
        let mut missing = BTreeSet::new();
        for workflow in &config.workflows {
            for job in &workflow.jobs {
                missing.extend(job.contexts.iter().filter(|name| !contexts.contains(name)).cloned());
            }
        }
        for name in missing {
            let mut places = Vec::new();
            find_contexts(root, &name, &mut places);
            let message = format!("there is no context `{name}`");
            let mut diagnostic =
                Diagnostic::warning("lint::unknown-context", message).hint(match nearest(&name, contexts) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("create it with `towpath context set {name} VARIABLE`"),
                });
            if let Some(place) = places.first() {
                diagnostic = diagnostic.at(place, "");
            }
            self.found.push(diagnostic);
        }
    }
}

fn find_contexts(node: &Node, name: &str, out: &mut Vec<Span>) {
    match node.value() {
        YamlValue::Mapping(mapping) => {
            for part in mapping {
                if &*part.key.text == "context" {
                    let items = part.value.as_sequence().unwrap_or(std::slice::from_ref(&part.value));
                    let named = items
                        .iter()
                        .filter(|item| item.as_scalar().is_some_and(|scalar| &*scalar.text == name));
                    out.extend(named.map(|item| item.span().clone()));
                }
                find_contexts(&part.value, name, out);
            }
        }
        YamlValue::Sequence(items) => items.iter().for_each(|item| find_contexts(item, name, out)),
        YamlValue::Scalar(_) => {}
    }
}

fn texts(node: &Node) -> Vec<Arc<str>> {
    let mut words = HashSet::new();
    collect(node, &mut words);
    words.into_iter().collect()
}

/// Whether `text` contains `name` as a whole word.
fn mentions(text: &str, name: &str) -> bool {
    let part_of_a_name = |character: char| character.is_alphanumeric() || character == '_' || character == '-';
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(|before| part_of_a_name(before) || before == '.') && !after.is_some_and(part_of_a_name)
    })
}

/// The jobs that workflows and job groups run. `None` if a name is a template.
fn jobs_that_run(root: &Node) -> Option<HashSet<Arc<str>>> {
    let mut run = HashSet::new();
    for section in ["workflows", "job-groups"] {
        for part in root.get(section).and_then(Node::as_mapping).into_iter().flatten() {
            let items = part.value.get("jobs").and_then(Node::as_sequence);
            for item in items.into_iter().flatten() {
                let part = item.as_mapping().and_then(|mapping| mapping.entries().first());
                let name = match part {
                    Some(part) => Some(part.key.text.clone()),
                    None => item.as_scalar().map(|scalar| scalar.text.clone()),
                };
                let other = part.and_then(|part| part.value.get("override-with")?.as_scalar());
                run.extend(name.into_iter().chain(other.map(|scalar| scalar.text.clone())));
            }
        }
    }
    (!run.iter().any(|name| name.contains("<<"))).then_some(run)
}

/// Whether a filter intentionally lets nothing through.
fn refuses_all(filter: &Node) -> bool {
    let ignored = filter
        .get("ignore")
        .map(|node| node.as_sequence().unwrap_or(std::slice::from_ref(node)));
    filter.get("only").is_none()
        && ignored
            .into_iter()
            .flatten()
            .any(|node| node.as_scalar().is_some_and(|scalar| &*scalar.text == "/.*/"))
}

/// Tags that usually move.
const MUTABLE_TAGS: &[&str] = &[
    "latest", "current", "edge", "stable", "main", "master", "nightly", "default",
];
