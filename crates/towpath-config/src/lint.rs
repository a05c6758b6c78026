//! What compiles but is surely not meant.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use regex::Regex;
use regex_syntax::hir::{Hir, HirKind};
use towpath_yaml::{Diagnostic, Node, ParseOptions, SourceFile, Span, Value as YamlValue};

use crate::compiled::CompiledConfig;
use crate::compiler::compile;
use crate::namespace::Kind;
use crate::options::{CompileOptions, PipelineValues};

/// How many branches and tags are tried, each.
const MAX_REFS: usize = 40;

/// Looks for what compiles but is surely not meant. `contexts`: those that exist, where that is known.
///
/// A configuration that does not compile has its errors as the answer.
pub fn lint(source: &Arc<SourceFile>, options: &CompileOptions<'_>, contexts: Option<&[String]>) -> Vec<Diagnostic> {
    let (config, diagnostics) = compile(source, options);
    let Some(config) = config else { return diagnostics };
    let (documents, _) = towpath_yaml::parse(source, &ParseOptions::default());
    let Some(root) = documents.first() else {
        return diagnostics;
    };
    let mut lint = Lint {
        root,
        words: words(root),
        found: diagnostics,
    };
    let unused = lint.unused();
    lint.by_themselves(source, options, &unused);
    lint.parameters();
    lint.never_run(source, options);
    lint.images();
    lint.secrets(root);
    if let Some(contexts) = contexts {
        lint.contexts(&config, contexts);
    }
    let mut found = lint.found;
    found.sort_by_key(|diagnostic| diagnostic.primary.as_ref().map(|label| label.span.range().start));
    found
}

struct Lint<'r> {
    root: &'r Node,
    /// Every key and every scalar that is written anywhere, except the names in their definitions.
    words: HashSet<Arc<str>>,
    found: Vec<Diagnostic>,
}

/// The sections whose keys define names.
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

    /// Whatever is defined and named nowhere else; answers their names by section.
    fn unused(&mut self) -> HashSet<(&'static str, Arc<str>)> {
        let root = self.root;
        let mut unused = HashSet::new();
        // Without workflows the job `build` runs.
        let has_workflows = root.get("workflows").is_some_and(|workflows| !workflows.is_null());
        for (section, word) in SECTIONS {
            for part in root.get(section).and_then(Node::as_mapping).into_iter().flatten() {
                let name = &part.key.text;
                let prefix = format!("{name}/");
                let used = match *section {
                    "orbs" => self.words.iter().any(|word| word.starts_with(&prefix)),
                    "jobs" if !has_workflows && &**name == "build" => true,
                    // A name inside a template counts, too: `<< pipeline.parameters.executor >>` cannot be followed.
                    _ => self.words.contains(name),
                };
                if used {
                    continue;
                }
                unused.insert((*section, name.clone()));
                let message = match *section {
                    "jobs" => format!("no workflow runs job `{name}`"),
                    "orbs" => format!("nothing of orb `{name}` is used"),
                    _ => format!("nothing uses {word} `{name}`"),
                };
                let hint = match *section {
                    "jobs" => "add it to a workflow, or remove it",
                    _ => "remove it",
                };
                self.warn("lint::unused", message, &part.key.span, "", hint);
            }
        }
        unused
    }

    /// What is wrong in definitions that no workflow leads to, which compiling does not look at.
    fn by_themselves(
        &mut self,
        source: &Arc<SourceFile>,
        options: &CompileOptions<'_>,
        unused: &HashSet<(&'static str, Arc<str>)>,
    ) {
        let known: HashSet<(&'static str, String)> = self
            .found
            .iter()
            .map(|diagnostic| (diagnostic.code, diagnostic.message.clone()))
            .collect();
        let all = crate::compiler::with_config(source, options, |compiler, root| {
            compiler.check_elements(root, |kind, name| {
                let section = SECTIONS.iter().find(|(section, _)| *section == kind.section());
                matches!(kind, Kind::Job | Kind::Command | Kind::Executor)
                    && section.is_some_and(|(section, _)| unused.contains(&(*section, name.into())))
            });
        });
        self.found.extend(
            all.into_iter()
                .filter(|found| !known.contains(&(found.code, found.message.clone()))),
        );
    }

    /// Parameters that are declared and never referred to.
    fn parameters(&mut self) {
        let root = self.root;
        let whole = texts(root);
        let pipeline = root.get("parameters").and_then(Node::as_mapping);
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

    /// Jobs that no branch and no tag leads to, or none of the tags that they ask for.
    fn never_run(&mut self, source: &Arc<SourceFile>, options: &CompileOptions<'_>) {
        let (branches, tags) = refs(self.root);
        let compiled = |set: &dyn Fn(&mut PipelineValues)| {
            let mut values = options.values.clone();
            set(&mut values);
            let options = CompileOptions {
                values,
                parameters: options.parameters.clone(),
                continuation: options.continuation,
                orbs: options.orbs,
            };
            compile(source, &options).0
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
        for config in on_branches.iter().chain(&on_tags) {
            for workflow in &config.workflows {
                for name in &workflow.filtered {
                    if !seen.insert((workflow.name.clone(), name.clone())) {
                        continue;
                    }
                    let Some((key, filters)) = self.invocation(&workflow.name, name) else {
                        continue;
                    };
                    let (key, asks_for_tags) = (
                        key.clone(),
                        filters.is_some_and(|filters| filters.get("tags").is_some()),
                    );
                    let hint =
                        "a tag's pipeline runs only jobs with a `tags` filter: give one to each job that is required";
                    if !runs(&on_branches, &workflow.name, name) && !runs(&on_tags, &workflow.name, name) {
                        let message = format!(
                            "job `{name}` never runs: its filters, and those of the jobs it requires, \
                             leave no branch and no tag"
                        );
                        self.warn(
                            "lint::never-runs",
                            message,
                            &key,
                            "",
                            if asks_for_tags { hint } else { "" },
                        );
                    } else if asks_for_tags && !runs(&on_tags, &workflow.name, name) {
                        let message = format!("job `{name}` runs for no tag, though it has a `tags` filter");
                        self.warn("lint::never-runs", message, &key, "", hint);
                    }
                }
            }
        }
    }

    /// Where a workflow names a job, and that job's filters.
    fn invocation(&self, workflow: &str, name: &str) -> Option<(Span, Option<Node>)> {
        let jobs = self.root.get("workflows")?.get(workflow)?.get("jobs")?.as_sequence()?;
        jobs.iter().find_map(|item| {
            let part = item.as_mapping()?.entries().first()?;
            let given = part.value.get("name").and_then(Node::as_scalar).map(|name| &*name.text);
            let own = given.unwrap_or(&part.key.text);
            let filters = part.value.get("filters").cloned();
            (own == name).then(|| (part.key.span.clone(), filters))
        })
    }

    /// Images whose tag may name something else tomorrow.
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
                        None => format!("image `{text}` has no tag, so it is whatever `latest` is on the day"),
                        Some((_, "latest")) => format!("image `{text}` is another one whenever somebody pushes it"),
                        Some(_) => continue,
                    };
                    let hint = "name a version, or a digest: `image@sha256:…`";
                    self.warn("lint::mutable-image", message, node.span(), "", hint);
                }
            }
        }
    }

    /// Secrets that stand in the file. The value is not shown.
    fn secrets(&mut self, node: &Node) {
        match node.value() {
            YamlValue::Mapping(mapping) => {
                for part in mapping {
                    let named = part
                        .value
                        .as_scalar()
                        .is_some_and(|scalar| names_a_secret(&part.key.text) && looks_random(&scalar.text));
                    if named {
                        self.secret(&part.value, "a secret");
                    } else {
                        self.secrets(&part.value);
                    }
                }
            }
            YamlValue::Sequence(items) => items.iter().for_each(|item| self.secrets(item)),
            YamlValue::Scalar(scalar) => {
                let known = SECRETS.iter().find(|(_, pattern)| {
                    // Compiling a pattern of ours cannot fail; one that did would find nothing.
                    Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(&scalar.text))
                });
                let assigned = scalar
                    .text
                    .split_once('=')
                    .is_some_and(|(name, value)| names_a_secret(name) && looks_random(value));
                match known {
                    Some((what, _)) => self.secret(node, what),
                    None if assigned => self.secret(node, "a secret"),
                    None => {}
                }
            }
        }
    }

    fn secret(&mut self, node: &Node, what: &str) {
        let message = format!("this looks like {what}, in plain text: whoever reads the repository has it");
        let diagnostic = Diagnostic::warning("lint::secret", message)
            .at(node.origin(), "")
            .concealed()
            .hint("put it into a context, name its variable here, and replace it where it is valid");
        self.found.push(diagnostic);
    }

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
            let mut diagnostic = Diagnostic::warning("lint::unknown-context", message).hint(
                match crate::suggest::nearest(&name, contexts) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("make it with `towpath context set {name} VARIABLE`"),
                },
            );
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

/// Whether `text` has `name` as a whole word.
fn mentions(text: &str, name: &str) -> bool {
    let part_of_a_name = |character: char| character.is_alphanumeric() || character == '_' || character == '-';
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(|before| part_of_a_name(before) || before == '.') && !after.is_some_and(part_of_a_name)
    })
}

/// Branches and tags that the filters tell apart: each that is named, and one for each pattern.
fn refs(root: &Node) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut branches = BTreeSet::from(["main".to_owned(), "some/other-branch".to_owned()]);
    let mut tags = BTreeSet::from(["v1.2.3".to_owned(), "1.2.3".to_owned(), "some-other-tag".to_owned()]);
    collect_refs(root, &mut branches, &mut tags);
    (
        branches.into_iter().take(MAX_REFS).collect(),
        tags.into_iter().take(MAX_REFS).collect(),
    )
}

fn collect_refs(node: &Node, branches: &mut BTreeSet<String>, tags: &mut BTreeSet<String>) {
    match node.value() {
        YamlValue::Mapping(mapping) => {
            for part in mapping {
                match &*part.key.text {
                    "branches" => names(&part.value, branches),
                    "tags" => names(&part.value, tags),
                    // A condition may compare the branch or the tag to anything that it names.
                    "when" | "unless" => {
                        names(&part.value, branches);
                        names(&part.value, tags);
                    }
                    _ => collect_refs(&part.value, branches, tags),
                }
            }
        }
        YamlValue::Sequence(items) => items.iter().for_each(|item| collect_refs(item, branches, tags)),
        YamlValue::Scalar(_) => {}
    }
}

fn names(node: &Node, out: &mut BTreeSet<String>) {
    match node.value() {
        YamlValue::Mapping(mapping) => mapping.iter().for_each(|part| names(&part.value, out)),
        YamlValue::Sequence(items) => items.iter().for_each(|item| names(item, out)),
        YamlValue::Scalar(scalar) => {
            let text = &*scalar.text;
            let pattern = text.strip_prefix('/').and_then(|text| text.strip_suffix('/'));
            let sample = match pattern {
                Some(pattern) => regex_syntax::parse(pattern).ok().map(|hir| sample(&hir)),
                None => Some(text.to_owned()),
            };
            let fits = |name: &String| !name.is_empty() && name.len() < 200 && !name.contains(char::is_whitespace);
            out.extend(sample.filter(fits));
        }
    }
}

/// A text that a pattern matches, as a rule.
fn sample(hir: &Hir) -> String {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => String::new(),
        HirKind::Literal(literal) => String::from_utf8_lossy(&literal.0).into_owned(),
        HirKind::Class(class) => match class {
            regex_syntax::hir::Class::Unicode(class) => {
                let has = |wanted: char| {
                    class
                        .iter()
                        .any(|range| (range.start()..=range.end()).contains(&wanted))
                };
                let first = class.iter().next().map(|range| range.start());
                let letter = ['1', 'a', 'A', '-'].into_iter().find(|letter| has(*letter)).or(first);
                letter.map(String::from).unwrap_or_default()
            }
            regex_syntax::hir::Class::Bytes(_) => "a".to_owned(),
        },
        HirKind::Repetition(repetition) => {
            let times = repetition.min.max(1).min(repetition.max.unwrap_or(u32::MAX)).min(64);
            sample(&repetition.sub).repeat(times as usize)
        }
        HirKind::Capture(capture) => sample(&capture.sub),
        HirKind::Concat(parts) => parts.iter().map(sample).collect(),
        HirKind::Alternation(parts) => parts.first().map(sample).unwrap_or_default(),
    }
}

/// Texts that are secrets whatever they stand under.
const SECRETS: &[(&str, &str)] = &[
    ("an AWS access key", r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    (
        "a GitHub token",
        r"\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,})\b",
    ),
    ("a GitLab token", r"\bglpat-[A-Za-z0-9_-]{20}"),
    ("a Slack token", r"\bxox[abprs]-[A-Za-z0-9-]{10,}"),
    (
        "a Slack webhook",
        r"https://hooks\.slack\.com/(services|workflows)/T[A-Za-z0-9/_-]{20,}",
    ),
    ("a Stripe key", r"\b[rs]k_live_[A-Za-z0-9]{16,}"),
    ("a Google API key", r"\bAIza[0-9A-Za-z_-]{35}"),
    ("an npm token", r"\bnpm_[A-Za-z0-9]{36}\b"),
    ("a private key", r"-----BEGIN ([A-Z]+ )?PRIVATE KEY-----"),
];

fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let words = [
        "password",
        "passwd",
        "secret",
        "token",
        "api_key",
        "apikey",
        "private_key",
        "access_key",
    ];
    words.iter().any(|word| name.ends_with(word))
}

/// Whether a text is too irregular to have been chosen by a person: that is what keys look like, and what neither
/// `postgres` nor `$PASSWORD` do.
fn looks_random(text: &str) -> bool {
    let text = text.trim().trim_matches(['"', '\'']);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=_-.".contains(&byte);
    if text.len() < 20 || !text.bytes().all(plain) {
        return false;
    }
    let mut counts = [0_u32; 256];
    text.bytes().for_each(|byte| counts[usize::from(byte)] += 1);
    let length = text.len() as f64;
    let entropy: f64 = counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| f64::from(*count) / length)
        .map(|share| -share * share.log2())
        .sum();
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    entropy > 3.3 && digits > 2 && digits < text.len()
}
