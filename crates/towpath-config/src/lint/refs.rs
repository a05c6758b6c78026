//! Finds sample branches and tags that a configuration's filters and conditions distinguish.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;
use regex_syntax::hir::{Hir, HirKind};
use towpath_yaml::{Node, Value as YamlValue};

/// The number of branches, and of tags, that are tried.
const MAX_REFS: usize = 40;
/// The number of samples for one pattern.
const MAX_SAMPLES: usize = 6;

/// Sample branches and tags: every name that a filter or a condition has, samples for each pattern, and combinations of samples.
/// `None` if there are too many to try.
pub(crate) fn refs(root: &Node) -> Option<(BTreeSet<String>, BTreeSet<String>)> {
    let mut branches = Refs::of(&["main", "some/other-branch", "Another-Branch"]);
    let mut tags = Refs::of(&["v1.2.3", "1.2.3", "some-other-tag"]);
    collect_refs(root, &mut branches, &mut tags);
    Some((branches.all()?, tags.all()?))
}

#[derive(Default)]
struct Refs {
    names: BTreeSet<String>,
    /// Names that patterns match.
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
        // Names that match two patterns, one at the start and one at the end.
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

    /// Adds a text of a filter or a condition: a name, `/a pattern/`, or an expression that contains some of them.
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
                // The pattern of `matches` may have slashes around it.
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
                    // A condition may compare the branch or the tag with any of its texts.
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

/// Texts that a pattern usually matches: one for each of its alternatives, up to [`MAX_SAMPLES`].
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
