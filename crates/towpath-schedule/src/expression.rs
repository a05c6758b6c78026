//! Parses the text of a schedule.

use crate::duration;
use std::{fmt, time::Duration};

/// A cron expression that Kubernetes accepts. `Display` writes it as given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    text: String,
    timing: Timing,
}

/// The meaning of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Timing {
    /// Calendar times.
    Calendar {
        fields: Box<[Field; 5]>,
        /// Whether the text is a word such as `@daily` instead of fields.
        is_word: bool,
    },
    /// An interval of whole seconds, at least one.
    Every(Duration),
}

/// Names one of the five fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum FieldKind {
    Minute,
    Hour,
    DayOfMonth,
    Month,
    DayOfWeek,
}

/// One field of an expression: a list of items, of which at least one has to match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The kind of the field.
    pub kind: FieldKind,
    /// The text as written.
    pub text: String,
    /// The items of the list that are not empty.
    pub items: Vec<Item>,
    /// Bit `n` is set when the value `n` matches.
    pub(crate) mask: u64,
    /// Whether an item is a wildcard without a step above 1.
    pub(crate) is_any: bool,
}

/// One item of a field's list: `*`, `5`, `1-5`, `*/10`, `mon-fri/2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The text as written.
    pub text: String,
    /// Where it begins in the expression, in characters from 1.
    pub column: usize,
    /// The value, or the first one of a range.
    pub from: Bound,
    /// The last value of a range. `None` after a wildcard, whatever follows it.
    pub to: Option<Bound>,
    /// The number after the slash.
    pub step: Option<u64>,
}

/// One end of a range, or a value that stands alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// `*`.
    Star,
    /// `?`, which means what `*` means.
    QuestionMark,
    /// A number as written.
    Number(u64),
    /// A month's or a weekday's name, with the number that it stands for.
    Name(u64),
}

/// Why a text is not an expression, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a cron expression: {problem} (column {column})", shortened(text))]
pub struct ExpressionError {
    text: String,
    column: usize,
    problem: Problem,
}

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Nothing is written.
    Empty,
    /// The number of fields, which is not five.
    FieldCount(usize),
    /// `TZ=` or `CRON_TZ=` stands in front.
    TimeZone,
    /// An unknown word after `@`.
    Word(String),
    /// The text after `@every` is not a duration.
    Duration(String),
    /// A text that is neither a number nor a name in this field.
    Value(FieldKind, String),
    /// A number outside of this field's range.
    Range(FieldKind, u64),
    /// A range whose end comes before its beginning.
    Reversed(String),
    /// More than one `-` in a range.
    Hyphens(String),
    /// More than one `/` in an item.
    Slashes(String),
    /// A step that is not a whole number above 0.
    Step(String),
}

const NEEDED: &str = "minute, hour, day of the month, month, day of the week";

/// The words that stand for five fields.
///
/// Source: <https://pkg.go.dev/github.com/robfig/cron/v3#hdr-Predefined_schedules>
const WORDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];
const EVERY: &str = "@every ";

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl FieldKind {
    const ALL: [Self; 5] = [Self::Minute, Self::Hour, Self::DayOfMonth, Self::Month, Self::DayOfWeek];

    /// The least and the greatest value.
    #[must_use]
    pub fn range(self) -> (u64, u64) {
        match self {
            Self::Minute => (0, 59),
            Self::Hour => (0, 23),
            Self::DayOfMonth => (1, 31),
            Self::Month => (1, 12),
            Self::DayOfWeek => (0, 6),
        }
    }

    fn named(self, name: &str) -> Option<u64> {
        let (names, first): (&[&str], u64) = match self {
            Self::Month => (&MONTHS, 1),
            Self::DayOfWeek => (&WEEKDAYS, 0),
            Self::Minute | Self::Hour | Self::DayOfMonth => return None,
        };
        let found = (first..).zip(names).find(|(_, known)| name.eq_ignore_ascii_case(known));
        found.map(|(number, _)| number)
    }
}

impl fmt::Display for FieldKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::DayOfMonth => "day of the month",
            Self::Month => "month",
            Self::DayOfWeek => "day of the week",
        })
    }
}

impl Bound {
    fn is_wildcard(self) -> bool {
        matches!(self, Self::Star | Self::QuestionMark)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "it is empty and needs five fields ({NEEDED})"),
            Self::FieldCount(1) => write!(f, "it has one field and needs five ({NEEDED})"),
            Self::FieldCount(found) => write!(f, "it has {found} fields and needs five ({NEEDED})"),
            Self::TimeZone => f.write_str("a time zone cannot stand in it; set the time zone beside the schedule"),
            Self::Word(word) => {
                let known: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
                let known = known.join("`, `");
                write!(f, "`{}` is not one of `{known}` and `@every 1h30m`", shortened(word))
            }
            Self::Duration(text) => {
                write!(f, "`{}` is not a duration such as `1h30m`", shortened(text))
            }
            Self::Value(kind, text) => match kind {
                FieldKind::Month => write!(
                    f,
                    "`{}` is not a month, which is 1 to 12 or `jan` to `dec`",
                    shortened(text)
                ),
                FieldKind::DayOfWeek => write!(
                    f,
                    "`{}` is not a day of the week, which is 0 (Sunday) to 6 or `sun` to `sat`",
                    shortened(text)
                ),
                kind => {
                    let (least, most) = kind.range();
                    write!(
                        f,
                        "`{}` is not {}, which is {least} to {most}",
                        shortened(text),
                        with_article(*kind)
                    )
                }
            },
            Self::Range(FieldKind::DayOfWeek, number) => {
                write!(f, "`{number}` is not a day of the week, which is 0 (Sunday) to 6")
            }
            Self::Range(kind, number) => {
                let (least, most) = kind.range();
                write!(
                    f,
                    "`{number}` is not {}, which is {least} to {most}",
                    with_article(*kind)
                )
            }
            Self::Reversed(text) => write!(f, "the range `{}` ends before it begins", shortened(text)),
            Self::Hyphens(text) => write!(f, "`{}` has more than one `-`", shortened(text)),
            Self::Slashes(text) => write!(f, "`{}` has more than one `/`", shortened(text)),
            Self::Step(text) => write!(f, "the step `{}` is not a whole number above 0", shortened(text)),
        }
    }
}

fn with_article(kind: FieldKind) -> String {
    let article = if kind == FieldKind::Hour { "an" } else { "a" };
    format!("{article} {kind}")
}

/// Shortens typed text for a message.
fn shortened(text: &str) -> String {
    let mut shown: String = text.chars().take(60).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

impl ExpressionError {
    /// Where the problem is, in characters from 1.
    #[must_use]
    pub fn column(&self) -> usize {
        self.column
    }

    /// What is wrong. Its `Display` is a sentence without the expression and the column.
    #[must_use]
    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}

/// A result, or a problem with its offset in characters from the beginning of the parsed part.
type Found<T> = Result<T, (usize, Problem)>;

impl Expression {
    /// Parses an expression.
    ///
    /// # Errors
    /// When Kubernetes would refuse it, or when it names a time zone.
    ///
    /// Source: `ParseStandard` in <https://github.com/robfig/cron/blob/v3.0.1/parser.go>
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        match timing(text) {
            Ok(timing) => Ok(Self {
                text: text.to_string(),
                timing,
            }),
            Err((offset, problem)) => Err(ExpressionError {
                text: text.to_string(),
                column: offset + 1,
                problem,
            }),
        }
    }

    /// The five fields, if the expression is written with them. `None` for `@daily` and the like.
    #[must_use]
    pub fn fields(&self) -> Option<&[Field; 5]> {
        match &self.timing {
            Timing::Calendar { fields, is_word: false } => Some(fields),
            Timing::Calendar { is_word: true, .. } | Timing::Every(_) => None,
        }
    }

    pub(crate) fn timing(&self) -> &Timing {
        &self.timing
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn timing(text: &str) -> Found<Timing> {
    if text.is_empty() {
        return Err((0, Problem::Empty));
    }
    if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
        return Err((0, Problem::TimeZone));
    }
    if text.starts_with('@') {
        return word(text);
    }
    Ok(Timing::Calendar {
        fields: Box::new(fields(text)?),
        is_word: false,
    })
}

fn word(text: &str) -> Found<Timing> {
    if let Some((_, meaning)) = WORDS.iter().find(|(word, _)| *word == text) {
        return Ok(Timing::Calendar {
            fields: Box::new(fields(meaning)?),
            is_word: true,
        });
    }
    let Some(every) = text.strip_prefix(EVERY) else {
        return Err((0, Problem::Word(text.to_string())));
    };
    let Some(nanoseconds) = duration::nanoseconds(every) else {
        return Err((EVERY.len(), Problem::Duration(every.to_string())));
    };
    // Whole seconds, and at least one.
    let seconds = u64::try_from(nanoseconds / 1_000_000_000).unwrap_or(0).max(1);
    Ok(Timing::Every(Duration::from_secs(seconds)))
}

fn fields(text: &str) -> Found<[Field; 5]> {
    let parts = split(text, char::is_whitespace);
    let [minute, hour, day, month, weekday] = parts.as_slice() else {
        let problem = match parts.len() {
            0 => Problem::Empty,
            count => Problem::FieldCount(count),
        };
        return Err((0, problem));
    };
    let field = |index: usize, (offset, text): &(usize, &str)| -> Found<Field> {
        field(FieldKind::ALL[index], text, *offset).map_err(|(inside, problem)| (offset + inside, problem))
    };
    Ok([
        field(0, minute)?,
        field(1, hour)?,
        field(2, day)?,
        field(3, month)?,
        field(4, weekday)?,
    ])
}

/// The non-empty parts of `text` between separators, each with the number of characters before it.
fn split(text: &str, is_separator: impl Fn(char) -> bool) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let mut begin = None;
    for (offset, (at, character)) in text.char_indices().enumerate() {
        match (is_separator(character), begin) {
            (true, Some((from, start))) => {
                parts.push((from, &text[start..at]));
                begin = None;
            }
            (false, None) => begin = Some((offset, at)),
            (true, None) | (false, Some(_)) => {}
        }
    }
    parts.extend(begin.map(|(from, start)| (from, &text[start..])));
    parts
}

fn field(kind: FieldKind, text: &str, offset: usize) -> Found<Field> {
    let mut made = Field {
        kind,
        text: text.to_string(),
        items: Vec::new(),
        mask: 0,
        is_any: false,
    };
    for (inside, text) in split(text, |character| character == ',') {
        let item = item(kind, text, offset + inside + 1).map_err(|(at, problem)| (inside + at, problem))?;
        let (from, to, step) = values(kind, &item).map_err(|(at, problem)| (inside + at, problem))?;
        let mut value = from;
        while value <= to {
            made.mask |= 1 << value;
            value = value.saturating_add(step);
        }
        made.is_any |= item.from.is_wildcard() && step == 1;
        made.items.push(item);
    }
    Ok(made)
}

fn item(kind: FieldKind, text: &str, column: usize) -> Found<Item> {
    let mut parts = text.split('/');
    let range = parts.next().unwrap_or_default();
    let mut ends = range.split('-');
    let first = ends.next().unwrap_or_default();
    let from = match first {
        "*" => Bound::Star,
        "?" => Bound::QuestionMark,
        value => bound(kind, value, 0)?,
    };
    let mut to = None;
    if !from.is_wildcard()
        && let Some(last) = ends.next()
    {
        let offset = first.chars().count() + 1;
        to = Some(bound(kind, last, offset)?);
        if ends.next().is_some() {
            return Err((0, Problem::Hyphens(text.to_string())));
        }
    }
    let step = match parts.next() {
        None => None,
        Some(step) => {
            let offset = range.chars().count() + 1;
            Some(integer(step).ok_or_else(|| (offset, Problem::Step(step.to_string())))?)
        }
    };
    if parts.next().is_some() {
        return Err((0, Problem::Slashes(text.to_string())));
    }
    Ok(Item {
        text: text.to_string(),
        column,
        from,
        to,
        step,
    })
}

fn bound(kind: FieldKind, text: &str, offset: usize) -> Found<Bound> {
    if let Some(number) = kind.named(text) {
        return Ok(Bound::Name(number));
    }
    let number = integer(text).map(Bound::Number);
    number.ok_or_else(|| (offset, Problem::Value(kind, text.to_string())))
}

/// A non-negative whole number, as Go's `strconv.Atoi` reads it: a sign is allowed.
fn integer(text: &str) -> Option<u64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse::<i64>().ok().and_then(|number| u64::try_from(number).ok())
}

/// The first and the last value of an item, and the step between values.
fn values(kind: FieldKind, item: &Item) -> Found<(u64, u64, u64)> {
    let (least, most) = kind.range();
    let number = |bound: Bound| match bound {
        Bound::Star | Bound::QuestionMark => None,
        Bound::Number(number) | Bound::Name(number) => Some(number),
    };
    let (from, to) = match number(item.from) {
        None => (least, most),
        Some(from) => match item.to {
            Some(to) => (from, number(to).unwrap_or(most)),
            // `5/10` means `5-59/10`.
            None if item.step.is_some() => (from, most),
            None => (from, from),
        },
    };
    let second = item.text.find('-').map_or(0, |at| at + 1);
    if !(least..=most).contains(&from) {
        return Err((0, Problem::Range(kind, from)));
    }
    if to > most {
        return Err((second, Problem::Range(kind, to)));
    }
    if from > to {
        return Err((0, Problem::Reversed(item.text.clone())));
    }
    match item.step {
        Some(0) => Err((item.text.find('/').map_or(0, |at| at + 1), Problem::Step("0".into()))),
        step => Ok((from, to, step.unwrap_or(1))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn values_of(text: &str) -> [Vec<u32>; 5] {
        let Timing::Calendar { fields, .. } = Expression::parse(text).unwrap().timing else {
            unreachable!("{text} is written with fields");
        };
        fields.map(|field| (0..64).filter(|value| field.mask & (1 << value) != 0).collect())
    }

    #[test]
    fn lists_ranges_steps_and_names() {
        let [minute, hour, day, month, weekday] = values_of("1,5-7/2,3 */6 ? JAN-mar,Dec 4/2");
        assert_eq!(minute, [1, 3, 5, 7]);
        assert_eq!(hour, [0, 6, 12, 18]);
        assert_eq!(day, (1..=31).collect::<Vec<_>>());
        assert_eq!(month, [1, 2, 3, 12]);
        assert_eq!(weekday, [4, 6]);
        let [minute, _, day, _, weekday] = values_of("+5,,59/100 0 */40 * sun,6");
        assert_eq!(minute, [5, 59]);
        assert_eq!(day, [1]);
        assert_eq!(weekday, [0, 6]);
        assert_eq!(values_of(", 0 *-5 * *")[0], Vec::<u32>::new());
    }

    #[test]
    fn only_a_wildcard_without_a_step_is_any() {
        for (field, expect) in [
            ("*", true),
            ("?", true),
            ("*/1", true),
            ("5,*", true),
            ("*/2", false),
            ("1-31", false),
        ] {
            let text = format!("0 0 {field} * *");
            let parsed = Expression::parse(&text).unwrap();
            assert_eq!(parsed.fields().unwrap()[2].is_any, expect, "{text}");
        }
    }

    #[test]
    fn words_stand_for_fields() {
        for (word, fields) in WORDS {
            let (of_word, of_fields) = (Expression::parse(word).unwrap(), Expression::parse(fields).unwrap());
            assert_eq!(values_of(word), values_of(fields));
            assert_eq!((of_word.fields(), of_word.to_string()), (None, word.to_string()));
            assert!(of_fields.fields().is_some());
        }
        for (text, seconds) in [
            ("@every 1h30m", 5400),
            ("@every 1.9s", 1),
            ("@every 10ms", 1),
            ("@every -5m", 1),
        ] {
            let every = Timing::Every(Duration::from_secs(seconds));
            assert_eq!(Expression::parse(text).unwrap().timing, every, "{text}");
        }
    }

    #[test]
    fn what_is_refused_and_where() {
        for (text, column, said) in [
            ("", 1, "it is empty"),
            (" \t", 1, "it is empty"),
            ("* * * *", 1, "it has 4 fields and needs five"),
            ("* * * * * *", 1, "it has 6 fields"),
            (" @daily", 1, "it has one field"),
            ("TZ=UTC 0 0 * * *", 1, "a time zone cannot stand in it"),
            ("CRON_TZ=UTC 0 0 * * *", 1, "set the time zone beside the schedule"),
            ("@reboot", 1, "`@reboot` is not one of `@yearly`"),
            ("@Daily", 1, "`@Daily` is not one of"),
            ("@every 5", 8, "`5` is not a duration"),
            ("@every  5m", 8, "` 5m` is not a duration"),
            ("60 * * * *", 1, "`60` is not a minute, which is 0 to 59"),
            ("0  24 * * *", 4, "`24` is not an hour, which is 0 to 23"),
            ("0 0 0 * *", 5, "`0` is not a day of the month, which is 1 to 31"),
            ("0 0 L * *", 5, "`L` is not a day of the month"),
            ("0 0 * 13 *", 7, "`13` is not a month, which is 1 to 12"),
            ("0 0 * * 7", 9, "`7` is not a day of the week, which is 0 (Sunday) to 6"),
            ("0 0 * * 1-7", 11, "`7` is not a day of the week"),
            ("0 0 * * mon,sunday", 13, "`sunday` is not a day of the week"),
            ("0 0 * * 5#2", 9, "`5#2` is not a day of the week"),
            ("0 0 * * fri-mon", 9, "the range `fri-mon` ends before it begins"),
            ("1-2-3 * * * *", 1, "`1-2-3` has more than one `-`"),
            ("5,-3 * * * *", 3, "`` is not a minute"),
            ("*/5/2 * * * *", 1, "`*/5/2` has more than one `/`"),
            ("0,*/0 * * * *", 5, "the step `0` is not a whole number above 0"),
            ("*/-5 * * * *", 3, "the step `-5`"),
            ("*/ * * * *", 3, "the step ``"),
            ("1- * * * *", 3, "`` is not a minute"),
            (
                "99999999999999999999 * * * *",
                1,
                "`99999999999999999999` is not a minute",
            ),
            ("ä * * * *", 1, "`ä` is not a minute"),
        ] {
            let error = Expression::parse(text).unwrap_err();
            assert_eq!(error.column(), column, "{text}: {error}");
            assert!(error.to_string().contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn a_long_text_is_shown_shortened() {
        let error = Expression::parse(&"ä".repeat(1000)).unwrap_err().to_string();
        assert!(error.len() < 400, "{error}");
    }
}
