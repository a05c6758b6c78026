//! What compiles but is surely not meant.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, LazyLock};

use regex::Regex;
use regex_syntax::hir::{Hir, HirKind};
use towpath_yaml::{Diagnostic, Node, ParseOptions, SourceFile, Span, Value as YamlValue};

use crate::compiled::CompiledConfig;
use crate::compiler::compile;
use crate::elements::ALWAYS;
use crate::options::{CompileOptions, PipelineValues};

/// How many branches and tags are tried, each. Where the filters name more, nothing is said of what never runs.
const MAX_REFS: usize = 40;
/// How many texts are made for one pattern.
const MAX_SAMPLES: usize = 6;

/// Looks for what compiles but is surely not meant. `contexts`: those that exist, where that is known.
///
/// A configuration that does not compile has its errors as the answer.
pub fn lint(source: &Arc<SourceFile>, options: &CompileOptions<'_>, contexts: Option<&[String]>) -> Vec<Diagnostic> {
    let (config, mut diagnostics) = compile(source, options);
    let Some(config) = config else { return diagnostics };
    // That a condition keeps every workflow from running now is what conditions are for.
    diagnostics.retain(|diagnostic| diagnostic.is_error() || diagnostic.code != "config::no-workflow");
    let (documents, _) = towpath_yaml::parse(source, &ParseOptions::default());
    let Some(root) = documents.first() else {
        return diagnostics;
    };
    let mut lint = Lint {
        root,
        words: words(root),
        found: diagnostics,
    };
    lint.unused();
    lint.by_themselves(source, options);
    lint.parameters();
    if let Some((branches, tags)) = refs(root) {
        lint.never_run(source, options, &branches, &tags);
    }
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

    /// Whatever is defined and named nowhere else.
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
                    // A name inside a template counts, too: `<< pipeline.parameters.executor >>` cannot be followed.
                    _ => self.words.contains(name),
                };
                if used {
                    continue;
                }
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
    }

    /// What is wrong in definitions that no workflow leads to in this pipeline, which compiling does not look at.
    fn by_themselves(&mut self, source: &Arc<SourceFile>, options: &CompileOptions<'_>) {
        let known: HashSet<(&'static str, String)> = self
            .found
            .iter()
            .map(|diagnostic| (diagnostic.code, diagnostic.message.clone()))
            .collect();
        let all = crate::compiler::with_config(source, options, |compiler, root| {
            compiler.check_elements(root, ALWAYS, |_, _| true);
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
        // A setup configuration declares what it hands on, too.
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

    /// Jobs that no branch and no tag leads to, or none of the tags that they ask for.
    fn never_run(
        &mut self,
        source: &Arc<SourceFile>,
        options: &CompileOptions<'_>,
        branches: &BTreeSet<String>,
        tags: &BTreeSet<String>,
    ) {
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
        let mut said = HashSet::new();
        for config in on_branches.iter().chain(&on_tags) {
            for workflow in &config.workflows {
                if self.asks_for_more(&workflow.name) {
                    continue;
                }
                for name in &workflow.filtered {
                    if !seen.insert((workflow.name.clone(), name.clone())) {
                        continue;
                    }
                    let Some((key, filters)) = self.invocation(&workflow.name, name) else {
                        continue;
                    };
                    // Of the members of a matrix one is named.
                    if said.contains(&key.range().start) {
                        continue;
                    }
                    let asks_for_tags = filters
                        .as_ref()
                        .and_then(|filters| filters.get("tags"))
                        .is_some_and(|tags| !refuses_all(tags));
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
                        said.insert(key.range().start);
                    } else if asks_for_tags && !runs(&on_tags, &workflow.name, name) {
                        let message = format!("job `{name}` runs for no tag, though it has a `tags` filter");
                        self.warn("lint::never-runs", message, &key, "", hint);
                        said.insert(key.range().start);
                    }
                }
            }
        }
    }

    /// Where a workflow names a job, and that job's filters.
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
        // Several jobs of one name, and the members of a matrix, have more behind it.
        let is_longer = |own: &str| name.strip_prefix(own).is_some_and(|rest| rest.starts_with('-'));
        find(&|own| own == name).or_else(|| find(&is_longer))
    }

    /// Whether a filter of the workflow looks at more than the branch and the tag, which is all that is tried.
    fn asks_for_more(&self, workflow: &str) -> bool {
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
                        Some((_, tag)) if MUTABLE_TAGS.contains(&tag) => {
                            format!("image `{text}` is another one whenever somebody pushes it")
                        }
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
                let known = PATTERNS.iter().find(|(_, pattern)| pattern.is_match(&scalar.text));
                let assigned = ASSIGNMENT.as_ref().is_some_and(|pattern| {
                    pattern.captures_iter(&scalar.text).any(|found| {
                        let part = |at: usize| found.get(at).map_or("", |part| part.as_str());
                        names_a_secret(part(1)) && looks_random(part(2))
                    })
                });
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

/// The jobs that workflows and job groups name; `None` where a name is put together when it compiles.
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

/// Whether a filter lets nothing through, which is a way to say so.
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

/// Branches and tags that the filters tell apart: each that is named, some for each pattern, and some that fit two. `None`
/// when there are too many to try.
fn refs(root: &Node) -> Option<(BTreeSet<String>, BTreeSet<String>)> {
    let mut branches = Refs::of(&["main", "some/other-branch", "Another-Branch"]);
    let mut tags = Refs::of(&["v1.2.3", "1.2.3", "some-other-tag"]);
    collect_refs(root, &mut branches, &mut tags);
    Some((branches.all()?, tags.all()?))
}

#[derive(Default)]
struct Refs {
    names: BTreeSet<String>,
    /// What patterns match.
    samples: BTreeSet<String>,
}

impl Refs {
    fn of(names: &[&str]) -> Self {
        Self {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            samples: BTreeSet::new(),
        }
    }

    fn all(self) -> Option<BTreeSet<String>> {
        let mut all = self.names;
        all.extend(self.samples.iter().cloned());
        if all.len() > MAX_REFS {
            return None;
        }
        // What two patterns want, one at the beginning and one at the end.
        let pairs = self.samples.iter().flat_map(|one| {
            let others = self.samples.iter().filter(move |other| *other != one);
            others.map(move |other| format!("{one}{other}"))
        });
        for pair in pairs {
            if all.len() >= MAX_REFS {
                break;
            }
            all.insert(pair);
        }
        Some(all)
    }

    fn name(&mut self, text: &str) {
        if !text.is_empty() && text.len() < 200 && !text.contains(char::is_whitespace) {
            self.names.insert(text.to_owned());
        }
    }

    fn pattern(&mut self, pattern: &str) {
        let Ok(hir) = regex_syntax::parse(pattern) else { return };
        let fits = |name: &String| !name.is_empty() && name.len() < 200 && !name.contains(char::is_whitespace);
        self.samples.extend(samples(&hir).into_iter().filter(fits));
    }

    /// A text in a filter or a condition: a name, `/a pattern/`, or an expression that has some of them in it.
    fn text(&mut self, text: &str) {
        if let Some(pattern) = text.strip_prefix('/').and_then(|text| text.strip_suffix('/')) {
            return self.pattern(pattern);
        }
        self.name(text);
        let Some(parts) = PARTS.as_ref().filter(|_| text.contains(char::is_whitespace)) else {
            return;
        };
        for found in parts.captures_iter(text) {
            if let Some(name) = found.get(1).or(found.get(2)) {
                self.name(name.as_str());
            }
            if let Some(pattern) = found.get(3) {
                self.pattern(pattern.as_str());
            }
        }
    }

    fn node(&mut self, node: &Node) {
        match node.value() {
            YamlValue::Mapping(mapping) => mapping.iter().for_each(|part| match part.value.as_scalar() {
                // Of `matches`, with slashes or without.
                Some(scalar) if &*part.key.text == "pattern" => self.pattern(scalar.text.trim_matches('/')),
                _ => self.node(&part.value),
            }),
            YamlValue::Sequence(items) => items.iter().for_each(|item| self.node(item)),
            YamlValue::Scalar(scalar) => self.text(&scalar.text),
        }
    }
}

fn collect_refs(node: &Node, branches: &mut Refs, tags: &mut Refs) {
    match node.value() {
        YamlValue::Mapping(mapping) => {
            for part in mapping {
                let is_expression = &*part.key.text == "filters" && part.value.as_scalar().is_some();
                match &*part.key.text {
                    "branches" => branches.node(&part.value),
                    "tags" => tags.node(&part.value),
                    // A condition may compare the branch or the tag to anything that it names.
                    "when" | "unless" => {
                        branches.node(&part.value);
                        tags.node(&part.value);
                    }
                    _ if is_expression => {
                        branches.node(&part.value);
                        tags.node(&part.value);
                    }
                    _ => collect_refs(&part.value, branches, tags),
                }
            }
        }
        YamlValue::Sequence(items) => items.iter().for_each(|item| collect_refs(item, branches, tags)),
        YamlValue::Scalar(_) => {}
    }
}

/// Texts that a pattern matches, as a rule: one for each of its alternatives, as far as there is room.
fn samples(hir: &Hir) -> Vec<String> {
    let one = |text: String| vec![text];
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => one(String::new()),
        HirKind::Literal(literal) => one(String::from_utf8_lossy(&literal.0).into_owned()),
        HirKind::Class(class) => one(match class {
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
        }),
        HirKind::Repetition(repetition) => {
            let times = repetition.min.max(1).min(repetition.max.unwrap_or(u32::MAX)).min(64);
            let of_one = samples(&repetition.sub).into_iter();
            of_one.map(|text| text.repeat(times as usize)).collect()
        }
        HirKind::Capture(capture) => samples(&capture.sub),
        HirKind::Concat(parts) => parts.iter().fold(one(String::new()), |heads, part| {
            let tails = samples(part);
            let joined = heads
                .iter()
                .flat_map(|head| tails.iter().map(move |tail| format!("{head}{tail}")));
            joined.take(MAX_SAMPLES).collect()
        }),
        HirKind::Alternation(parts) => parts.iter().flat_map(samples).take(MAX_SAMPLES).collect(),
    }
}

/// The names and patterns in an expression.
static PARTS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r#""([^"]*)"|'([^']*)'|/((?:[^/\\]|\\.)+)/"#).ok());

/// `NAME=value` in a script.
static ASSIGNMENT: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"([A-Za-z_][A-Za-z0-9_-]*)=("[^"]*"|'[^']*'|[^\s;&|]+)"#).ok());

/// Tags that are meant to move.
const MUTABLE_TAGS: &[&str] = &[
    "latest", "current", "edge", "stable", "main", "master", "nightly", "default",
];

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
    ("a private key", r"-----BEGIN ([A-Z]+ )?PRIVATE KEY( BLOCK)?-----"),
    (
        "a JSON web token",
        r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}",
    ),
    ("a SendGrid key", r"\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}\b"),
    ("an OpenAI key", r"\bsk-(proj-)?[A-Za-z0-9_-]{40,}"),
    ("a Docker token", r"\bdckr_(pat|oat)_[A-Za-z0-9_-]{20,}"),
];

/// The same, compiled once. Compiling a pattern of ours cannot fail; one that did would find nothing.
static PATTERNS: LazyLock<Vec<(&str, Regex)>> = LazyLock::new(|| {
    let compiled = |(what, pattern): &(&'static str, &str)| Some((*what, Regex::new(pattern).ok()?));
    SECRETS.iter().filter_map(compiled).collect()
});

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
        "secret_key_base",
        "_pass",
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
    // A key in letters of both cases may have few digits.
    let mixed =
        text.bytes().any(|byte| byte.is_ascii_lowercase()) && text.bytes().any(|byte| byte.is_ascii_uppercase());
    entropy > 3.3 && digits < text.len() && (digits > 2 || (digits > 0 && mixed && text.len() >= 32))
}
