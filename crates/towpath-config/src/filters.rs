//! Branch and tag filters.
//!
//! Source: <https://circleci.com/docs/reference/configuration-reference/#jobfilters>

use towpath_yaml::{Diagnostic, Node};

use crate::compiled::Filter;
use crate::compiler::Compiler;
use crate::pattern::full_match;
use crate::scope::Scope;
use crate::unknown_keys::UnknownKeys;

const FILTERS: [&str; 2] = ["branches", "tags"];

impl Compiler<'_> {
    /// Whether a job with these filters runs for the pipeline's branch or tag.
    pub(crate) fn passes(&mut self, filters: Option<&Node>, scope: &Scope<'_>) -> bool {
        let branch = self.options.values.branch();
        let tag = self.options.values.tag();
        let Some(filters) = filters.filter(|filters| !filters.is_null()) else {
            return tag.is_none();
        };
        if let Some(scalar) = filters.as_scalar() {
            // A single `<< >>` is a value. An expression has names without `<< >>`.
            let text = scalar.text.trim();
            let is_tag = text.starts_with("<<") && text.find(">>") == text.len().checked_sub(2);
            return match is_tag {
                true => self.value(filters, scope).truthy(),
                false => self.expression(filters, "filter").truthy(),
            };
        }
        let Some(mapping) = filters.as_mapping() else {
            let message = "`filters` must be a map with `branches` and `tags`, or an expression";
            self.report(Diagnostic::error("config::filters", message).at(filters.span(), ""));
            return false;
        };
        // CircleCI accepts `pull_requests`, though it has no effect.
        let (ignored, others): (Vec<_>, Vec<_>) = mapping.iter().partition(|part| &*part.key.text == "pull_requests");
        self.check_entries(ignored, &FILTERS, "`filters`", UnknownKeys::Ignored);
        self.check_entries(others, &FILTERS, "`filters`", UnknownKeys::Refused);
        let branches = mapping.get("branches").map(|node| self.filter(node));
        let tags = mapping.get("tags").map(|node| self.filter(node));
        match tag {
            Some(tag) => tags.is_some_and(|filter| filter.passes(tag)),
            None => branches.is_none_or(|filter| filter.passes(branch.unwrap_or_default())),
        }
    }

    /// Reads `{only, ignore}`. An invalid pattern is reported once.
    pub(crate) fn filter(&mut self, node: &Node) -> Filter {
        let mut filter = Filter::default();
        if node.is_null() {
            return filter;
        }
        let Some(mapping) = node.as_mapping() else {
            let message = format!("a filter must be a map with `only` or `ignore`, not {}", node.kind());
            self.report(Diagnostic::error("config::filters", message).at(node.span(), ""));
            return filter;
        };
        for part in mapping {
            let list = match &*part.key.text {
                "only" => &mut filter.only,
                "ignore" => &mut filter.ignore,
                other => {
                    let message = format!("a filter has no key `{other}`");
                    self.report(
                        Diagnostic::error("config::filters", message)
                            .at(&part.key.span, "")
                            .hint("the keys are `only` and `ignore`"),
                    );
                    continue;
                }
            };
            let items = match part.value.as_sequence() {
                Some(items) => items.to_vec(),
                None if part.value.is_null() => Vec::new(),
                None => vec![part.value.clone()],
            };
            for item in items {
                match item.as_scalar() {
                    Some(scalar) => {
                        if let Some(pattern) = pattern(&scalar.text)
                            && !self.patterns.contains_key(&*scalar.text)
                            && let Some(regex) = self.regex(pattern, &item)
                        {
                            self.patterns.insert(scalar.text.to_string(), regex);
                        }
                        list.push(scalar.text.to_string());
                    }
                    None => {
                        let message = "an entry of a filter must be a name or a pattern";
                        self.report(Diagnostic::error("config::filters", message).at(item.span(), ""));
                    }
                }
            }
        }
        filter
    }
}

fn pattern(text: &str) -> Option<&str> {
    text.strip_prefix('/')?.strip_suffix('/')
}

impl Filter {
    /// Whether the filter lets `name` through. If both lists are given, `only` decides.
    pub fn passes(&self, name: &str) -> bool {
        let matches = |entries: &[String]| {
            entries.iter().any(|entry| match pattern(entry) {
                Some(pattern) => full_match(pattern).is_some_and(|regex| regex.is_match(name)),
                None => entry == name,
            })
        };
        match self.only.is_empty() {
            false => matches(&self.only),
            true => !matches(&self.ignore),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_takes_precedence_and_patterns_match_the_whole_name() {
        let check = |only: &[&str], ignore: &[&str], name: &str, expect: bool| {
            let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
            let filter = Filter {
                only: texts(only),
                ignore: texts(ignore),
            };
            assert_eq!(filter.passes(name), expect, "{only:?} {ignore:?} {name}");
        };
        check(&[], &[], "main", true);
        check(&["main"], &[], "main", true);
        check(&["main"], &[], "maintenance", false);
        check(&["/rel.*/"], &[], "release/1", true);
        check(&["/rel/"], &[], "release/1", false);
        check(&[], &["/rel.*/", "main"], "release/1", false);
        check(&["main"], &["main"], "main", true);
        check(&[], &["/.*/"], "anything", false);
    }
}
