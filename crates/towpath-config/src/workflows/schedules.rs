//! Legacy schedules: `triggers: [{schedule: …}]` of a workflow.

use towpath_yaml::{Diagnostic, Node};

use crate::compiled::Schedule;
use crate::compiler::Compiler;
use crate::unknown_keys::UnknownKeys;

impl Compiler<'_> {
    /// Reads `triggers`.
    pub(crate) fn schedules(&mut self, node: Option<&Node>) -> Vec<Schedule> {
        let mut schedules = Vec::new();
        let Some(node) = node.filter(|node| !node.is_null()) else {
            return schedules;
        };
        let Some(items) = node.as_sequence() else {
            let message = format!("`triggers` must be a list, not {}", node.kind());
            self.report(Diagnostic::error("config::triggers", message).at(node.span(), ""));
            return schedules;
        };
        for item in items {
            let Some(schedule) = item.get("schedule") else {
                let message = "a trigger must have the key `schedule`";
                self.report(Diagnostic::error("config::triggers", message).at(item.span(), ""));
                continue;
            };
            let Some(cron) = schedule.get("cron").and_then(Node::as_scalar) else {
                let message = "a schedule needs a `cron`";
                self.report(Diagnostic::error("config::triggers", message).at(schedule.span(), ""));
                continue;
            };
            if let Err(problem) = check_cron(&cron.text) {
                let at = schedule.get("cron").unwrap_or(schedule).span();
                self.report(match problem {
                    CronProblem::Invalid(why) => {
                        let message = format!("`{}` is not a cron expression: {why}", cron.text);
                        Diagnostic::error("config::triggers", message).at(at, "")
                    }
                    CronProblem::Unsupported(why) => {
                        let message = format!("schedules do not support all of cron's syntax: {why}");
                        Diagnostic::warning("config::triggers", message).at(at, "")
                    }
                });
            }
            self.check_keys(schedule, &["cron", "filters"], "a schedule", UnknownKeys::Ignored);
            if let Some(filters) = schedule.get("filters") {
                self.check_keys(filters, &["branches"], "the filter of a schedule", UnknownKeys::Ignored);
            }
            let branches = match schedule.get("filters").and_then(|filters| filters.get("branches")) {
                Some(node) => self.filter(node),
                None => Default::default(),
            };
            schedules.push(Schedule {
                cron: cron.text.to_string(),
                branches,
                place: schedule.span().place(),
            });
        }
        schedules
    }
}

/// The fields of a cron expression: name, least number, greatest number, and names for the numbers.
const CRON_FIELDS: [(&str, u32, u32, &[&str]); 5] = [
    ("minute", 0, 59, &[]),
    ("hour", 0, 23, &[]),
    ("day of the month", 1, 31, &[]),
    (
        "month",
        1,
        12,
        &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
    ),
    (
        "day of the week",
        0,
        7,
        &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    ),
];

/// Why a schedule cannot have a cron expression.
enum CronProblem {
    /// It is not a cron expression.
    Invalid(String),
    /// It is a cron expression that CircleCI's schedules do not support. The other workflows can run, so this is a warning.
    Unsupported(String),
}

/// Checks a cron expression of a schedule. It has five fields, each of which is `*`, a number, a range of numbers, or a list
/// of numbers. Schedules support no steps, no ranges of names, and no ranges in lists.
///
/// Source: <https://circleci.com/docs/reference/configuration-reference/#cron>
fn check_cron(text: &str) -> Result<(), CronProblem> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != CRON_FIELDS.len() {
        return Err(CronProblem::Invalid("it must have five fields".to_owned()));
    }
    let mut unsupported = None;
    for (field, (what, least, most, names)) in fields.into_iter().zip(CRON_FIELDS) {
        let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = |text: &str| {
            let named = names.iter().zip(0..).find(|(name, _)| text.eq_ignore_ascii_case(name));
            // Months start at one.
            let named = named.map(|(_, at): (_, u32)| at + least);
            let number = named.or_else(|| text.parse().ok().filter(|_| is_plain(text)));
            number.filter(|number| (least..=most).contains(number))
        };
        let items: Vec<&str> = field.split(',').collect();
        for item in &items {
            let (range, step) = match item.split_once('/') {
                Some((range, step)) => (range, Some(step)),
                None => (*item, None),
            };
            let ends = range.split_once('-');
            let is_good = match ends {
                Some((from, to)) => number(from).zip(number(to)).is_some_and(|(from, to)| from <= to),
                None => range == "*" || number(range).is_some(),
            };
            if !is_good || step.is_some_and(|step| !is_plain(step)) {
                return Err(CronProblem::Invalid(format!(
                    "`{item}` is not a valid {what} ({least} to {most})"
                )));
            }
            let why = if step.is_some() {
                format!("`{field}` has a step; list the numbers instead")
            } else if ends.is_some() && items.len() > 1 {
                format!("`{field}` has a range in a list; list the numbers instead")
            } else if ends.is_some_and(|(from, to)| !is_plain(from) || !is_plain(to)) {
                format!("`{field}` is a range of names; list the numbers instead")
            } else if range == "*" && items.len() > 1 {
                format!("`{field}` has `*` in a list; use `*` alone")
            } else {
                continue;
            };
            unsupported.get_or_insert(why);
        }
    }
    unsupported.map_or(Ok(()), |why| Err(CronProblem::Unsupported(why)))
}
