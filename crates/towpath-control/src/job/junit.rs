//! JUnit XML, as test runners of every language write it.
//!
//! There is no standard; this reads what CircleCI reads: `<testcase name classname file time>` at any depth, with
//! `<failure>`, `<error>` or `<skipped>` inside. Source: <https://circleci.com/docs/guides/test/collect-test-data/>
//!
//! A report is worst when a test fails on odd bytes, and it is needed most then. So an odd byte costs itself and not the file, and
//! what was read otherwise than it is written is noted for the step's log.

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};
use quick_xml::{
    Reader,
    escape::resolve_xml_entity,
    events::{BytesStart, Event},
};
use std::borrow::Cow;
use towpath_types::{Mask, plain_text};

/// How one test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TestOutcome {
    Passed,
    Failed,
    Skipped,
}

/// One test of one file of results. No text in it holds a secret.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TestCase {
    pub name: String,
    pub classname: Option<String>,
    pub file: Option<String>,
    pub seconds: f64,
    pub outcome: TestOutcome,
    /// What the failure says, at most [`LONGEST_MESSAGE`] characters.
    pub message: String,
}

/// One file of results.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub tests: Vec<TestCase>,
    /// What was skipped or corrected, one sentence each.
    pub notes: Vec<String>,
}

/// A failure's message is for a person; the rest is in the step's log.
const LONGEST_MESSAGE: usize = 4000;
/// The most bytes of a failure to read. Mask before cutting: half a secret cannot be recognised.
const LONGEST_FAILURE: usize = 256 << 10;
/// The most tests to read from one file, to bound memory. No real suite has as many.
const MOST_TESTS: usize = 500_000;

/// Reads every test in `xml`, and masks its texts with `mask`.
///
/// # Errors
/// When there is no element in it: it is something else.
pub(crate) fn parse(xml: &[u8], mask: &Mask) -> Result<Results, String> {
    let mut notes = Vec::new();
    let text = well_formed(&decoded(xml, &mut notes));
    let mut reader = Reader::from_str(&text);
    let config = reader.config_mut();
    config.allow_dangling_amp = true;
    config.allow_unmatched_ends = true;
    config.check_end_names = false;
    let mut parser = Parser {
        mask,
        tests: Vec::new(),
        files: Vec::new(),
        state: State::Outside,
        failure: Failure::default(),
        stray_errors: 0,
    };
    let mut seen_element = false;
    // The parser reports an unclosed element only at the end.
    let mut depth = 0_u64;
    loop {
        let event = match reader.read_event() {
            Ok(event) => event,
            Err(error) => {
                let line = line_of(&text, reader.error_position());
                if !seen_element {
                    return Err(format!("{error} (line {line})"));
                }
                notes.push(format!(
                    "it breaks off at line {line} ({error}); the tests before that are kept"
                ));
                break;
            }
        };
        match event {
            Event::Eof if depth > 0 => {
                notes.push("it ends too early; the tests that are in it are kept".into());
                break;
            }
            Event::Eof => break,
            Event::Start(element) => {
                seen_element = true;
                depth += 1;
                parser.start(&element);
            }
            Event::Empty(element) => {
                seen_element = true;
                parser.start(&element);
                parser.end(element.local_name().as_ref());
            }
            Event::End(element) => {
                depth = depth.saturating_sub(1);
                parser.end(element.local_name().as_ref());
            }
            Event::Text(text) => parser.failure_says(&text),
            Event::CData(text) => parser.failure_says(&text),
            Event::GeneralRef(name) => parser.failure_says(&unescaped(&format!("&{};", name.as_ref()))),
            _ => {}
        }
        if parser.tests.len() == MOST_TESTS {
            notes.push(format!("it has more than {MOST_TESTS} tests; the others are left out"));
            break;
        }
    }
    parser.end("testcase");
    if !seen_element {
        return Err("it has no element".into());
    }
    match parser.stray_errors {
        0 => {}
        1 => notes.push("an error that belongs to no test is left out".into()),
        count => notes.push(format!("{count} errors that belong to no test are left out")),
    }
    Ok(Results {
        tests: parser.tests,
        notes,
    })
}

/// The parser's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Outside,
    InTest,
    InFailure,
}

struct Parser<'a> {
    mask: &'a Mask,
    tests: Vec<TestCase>,
    /// The `file` attribute of each enclosing suite.
    files: Vec<Option<String>>,
    state: State,
    /// The failure of the current test.
    failure: Failure,
    stray_errors: usize,
}

#[derive(Debug, Default)]
struct Failure {
    text: String,
    is_cut: bool,
}

impl Failure {
    fn push(&mut self, text: &str) {
        let room = LONGEST_FAILURE.saturating_sub(self.text.len());
        let end = text.floor_char_boundary(room);
        self.text.push_str(&text[..end]);
        self.is_cut |= end < text.len();
    }

    fn message(&self, mask: &Mask) -> String {
        let mut masked = Vec::new();
        let mut masker = mask.masker();
        masker.push(self.text.trim().as_bytes(), &mut masked);
        if !self.is_cut {
            masker.finish(&mut masked);
        }
        let plain = plain_text(&String::from_utf8_lossy(&masked));
        plain.chars().take(LONGEST_MESSAGE).collect()
    }
}

impl Parser<'_> {
    fn start(&mut self, element: &BytesStart<'_>) {
        let name = element.local_name();
        let name = name.as_ref();
        if name.eq_ignore_ascii_case("testcase") {
            self.end("testcase");
            self.state = State::InTest;
            let test = self.test(element);
            self.tests.push(test);
            return;
        }
        if name.eq_ignore_ascii_case("testsuite") {
            let file = self.text(element, "file");
            self.files.push(file);
            return;
        }
        let is_error = name.eq_ignore_ascii_case("failure") || name.eq_ignore_ascii_case("error");
        let is_skip = ["skipped", "ignored", "disabled"]
            .iter()
            .any(|one| name.eq_ignore_ascii_case(one));
        match (self.state, self.tests.last_mut()) {
            (State::InTest, Some(test)) if is_error => {
                test.outcome = TestOutcome::Failed;
                self.state = State::InFailure;
                if !self.failure.text.is_empty() {
                    self.failure.push("\n");
                }
                let message = attribute(element, "message").or_else(|| attribute(element, "type"));
                if let Some(message) = message {
                    self.failure.push(&message);
                    self.failure.push("\n");
                }
            }
            (State::InTest, Some(test)) if is_skip && test.outcome == TestOutcome::Passed => {
                test.outcome = TestOutcome::Skipped;
            }
            (State::Outside, _) if is_error => self.stray_errors += 1,
            _ => {}
        }
    }

    fn end(&mut self, name: &str) {
        if name.eq_ignore_ascii_case("testcase") {
            let failure = std::mem::take(&mut self.failure);
            if self.state != State::Outside
                && let Some(test) = self.tests.last_mut()
            {
                test.message = failure.message(self.mask);
            }
            self.state = State::Outside;
        } else if name.eq_ignore_ascii_case("testsuite") {
            self.files.pop();
        } else if self.state == State::InFailure
            && (name.eq_ignore_ascii_case("failure") || name.eq_ignore_ascii_case("error"))
        {
            self.state = State::InTest;
        }
    }

    fn failure_says(&mut self, text: &str) {
        if self.state == State::InFailure {
            self.failure.push(text);
        }
    }

    fn test(&self, element: &BytesStart<'_>) -> TestCase {
        let says = |name: &str, words: &[&str]| {
            attribute(element, name).is_some_and(|value| words.iter().any(|word| value.eq_ignore_ascii_case(word)))
        };
        const SKIPPED: [&str; 5] = ["skipped", "notrun", "disabled", "ignored", "suppressed"];
        const FAILED: [&str; 3] = ["failed", "failure", "error"];
        let outcome = if says("status", &FAILED) || says("result", &FAILED) {
            TestOutcome::Failed
        } else if says("status", &SKIPPED) || says("result", &SKIPPED) {
            TestOutcome::Skipped
        } else {
            TestOutcome::Passed
        };
        TestCase {
            name: self.text(element, "name").unwrap_or_else(|| "(no name)".into()),
            classname: self.text(element, "classname"),
            file: self
                .text(element, "file")
                .or_else(|| self.files.iter().rev().flatten().next().cloned()),
            seconds: attribute(element, "time")
                .and_then(|time| seconds(&time))
                .unwrap_or(0.0),
            outcome,
            message: String::new(),
        }
    }

    /// An attribute's text with secrets masked.
    fn text(&self, element: &BytesStart<'_>, name: &str) -> Option<String> {
        let text = plain_text(&self.mask.text(&attribute(element, name)?));
        (!text.is_empty()).then_some(text)
    }
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    let attribute = element
        .attributes()
        .with_checks(false)
        .flatten()
        .find(|a| a.key.local_name().as_ref() == name)?;
    let text = unescaped(&attribute.value);
    (!text.is_empty()).then_some(text)
}

/// Parses a number of seconds: `1.5`, `1,000.5`, `0,25`, `1e-3`, `1.5s`, `20ms`.
fn seconds(text: &str) -> Option<f64> {
    let text = text.trim().to_ascii_lowercase();
    let (number, unit) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 0.001),
        (None, Some(number)) => (number, 1.0),
        (None, None) => (text.as_str(), 1.0),
    };
    let number = number.trim();
    let number = match number.split_once(',') {
        // A comma before three digits separates thousands, unless no other digit comes before it.
        Some((whole, rest)) if !number.contains('.') && (rest.len() != 3 || whole == "0") => {
            number.replacen(',', ".", 1)
        }
        _ => number.replace(',', ""),
    };
    let seconds = number.parse::<f64>().ok()? * unit;
    (seconds.is_finite() && seconds >= 0.0).then_some(seconds)
}

/// Replaces character references. An invalid reference stays as written and does not affect the others.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let reference = after.split_once(';').filter(|(name, _)| name.len() <= 10);
        let known = reference.and_then(|(name, tail)| Some((character(name)?, tail)));
        match known {
            Some((text, tail)) => {
                out.push_str(&text);
                rest = tail;
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// The character that `&name;` stands for. A number that is not a character gives an empty string.
fn character(name: &str) -> Option<Cow<'static, str>> {
    let Some(number) = name.strip_prefix('#') else {
        return resolve_xml_entity(name).map(Cow::Borrowed);
    };
    let number = match number.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => number.parse(),
    };
    let character = char::from_u32(number.ok()?);
    Some(character.map_or(Cow::Borrowed(""), |one| Cow::Owned(one.to_string())))
}

/// Decodes a file by its byte order mark or its declared encoding.
fn decoded<'a>(xml: &'a [u8], notes: &mut Vec<String>) -> Cow<'a, str> {
    let encoding = match xml {
        _ if Encoding::for_bom(xml).is_some() => UTF_8,
        [b'<', 0, ..] => UTF_16LE,
        [0, b'<', ..] => UTF_16BE,
        _ => match declared_encoding(xml) {
            None => UTF_8,
            Some(label) => match Encoding::for_label(label.as_bytes()) {
                // The declaration was readable as ASCII, so the file cannot be UTF-16.
                Some(encoding) if encoding == UTF_16LE || encoding == UTF_16BE => UTF_8,
                Some(encoding) => encoding,
                None => {
                    let label = plain_text(&label);
                    notes.push(format!("there is no encoding `{label}`; it is read as UTF-8"));
                    UTF_8
                }
            },
        },
    };
    let (text, encoding, had_errors) = encoding.decode(xml);
    if had_errors {
        let name = encoding.name();
        notes.push(format!("it has bytes that are not {name}; each is shown as \u{fffd}"));
    }
    text
}

/// The `encoding` of `<?xml … ?>`.
fn declared_encoding(xml: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(&xml[..xml.len().min(1024)]);
    let declaration = head.trim_start().strip_prefix("<?xml")?;
    let (declaration, _) = declaration.split_once("?>")?;
    let (_, value) = declaration.split_once("encoding")?;
    let value = value.trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    value[1..].split_once(quote).map(|(label, _)| label.to_string())
}

/// Escapes every `<` in `text` that does not start an element: `expected 1 < 2`.
fn well_formed(text: &str) -> String {
    const CDATA: (&str, &str) = ("<![CDATA[", "]]>");
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with(CDATA.0) {
            let end = rest.find(CDATA.1).map_or(rest.len(), |end| end + CDATA.1.len());
            out.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        let begins = rest[1..].starts_with(|c: char| c.is_alphabetic() || matches!(c, '_' | ':' | '/' | '!' | '?'));
        out.push_str(if begins { "<" } else { "&lt;" });
        rest = &rest[1..];
    }
    out.push_str(rest);
    out
}

fn line_of(text: &str, position: u64) -> usize {
    let position = usize::try_from(position).unwrap_or(usize::MAX).min(text.len());
    text.as_bytes()[..position]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use towpath_types::SecretString;

    fn read(xml: &[u8]) -> Results {
        parse(xml, &Mask::new::<SecretString>(&[])).unwrap()
    }

    fn one(attributes: &str, inside: &str) -> TestCase {
        let xml = format!("<testsuite><testcase {attributes}>{inside}</testcase></testsuite>");
        let results = read(xml.as_bytes());
        assert!(results.notes.is_empty(), "{:?}", results.notes);
        results.tests[0].clone()
    }

    #[test]
    fn tests_at_any_depth_with_their_ends() {
        let xml = br#"<?xml version="1.0"?><testsuites><testsuite name="s">
            <testcase name="a &amp; b" classname="c" file="t.rs" time="1,000.5"/>
            <testcase name="bad"><failure message="no">because a &lt; b <![CDATA[<x>]]></failure><system-out>noise</system-out></testcase>
            <testcase name="later"><skipped/></testcase>
            <testcase name="broke"><error/></testcase></testsuite></testsuites>"#;
        let tests = read(xml).tests;
        let seen: Vec<_> = tests
            .iter()
            .map(|t| (t.name.as_str(), t.outcome, t.message.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                ("a & b", TestOutcome::Passed, ""),
                ("bad", TestOutcome::Failed, "no\nbecause a < b <x>"),
                ("later", TestOutcome::Skipped, ""),
                ("broke", TestOutcome::Failed, ""),
            ]
        );
        assert_eq!(
            (
                tests[0].classname.as_deref(),
                tests[0].file.as_deref(),
                tests[0].seconds
            ),
            (Some("c"), Some("t.rs"), 1000.5)
        );
    }

    #[test]
    fn what_is_not_xml_is_an_error_and_never_a_panic() {
        for bad in [&b"not xml"[..], b"", b"\xff\xfe\x00", b"{\"a\": 1 < 2}"] {
            assert!(
                parse(bad, &Mask::new::<SecretString>(&[])).is_err(),
                "{:?}",
                String::from_utf8_lossy(bad)
            );
        }
        for odd in [
            &b"<a"[..],
            b"<a></b>",
            b"<testcase",
            b"</testcase><failure>",
            b"<testcase/></x></y>",
        ] {
            let _ = parse(odd, &Mask::new::<SecretString>(&[]));
        }
    }

    #[test]
    fn every_encoding_is_read() {
        let text = "<?xml version=\"1.0\" encoding=\"ENCODING\"?><testsuite><testcase name=\"größe\"/></testsuite>";
        let utf_16 = |order: fn(u16) -> [u8; 2]| -> Vec<u8> { text.encode_utf16().flat_map(order).collect() };
        let latin: Vec<u8> = text
            .replace("ENCODING", "ISO-8859-1")
            .chars()
            .map(|c| c as u8)
            .collect();
        let with_mark = |mark: &[u8], bytes: &[u8]| [mark, bytes].concat();
        let files = [
            text.replace("ENCODING", "UTF-8").into_bytes(),
            with_mark(b"\xef\xbb\xbf", text.replace("ENCODING", "utf-8").as_bytes()),
            latin,
            utf_16(u16::to_le_bytes),
            utf_16(u16::to_be_bytes),
            with_mark(b"\xff\xfe", &utf_16(u16::to_le_bytes)),
            with_mark(b"\xfe\xff", &utf_16(u16::to_be_bytes)),
            // Wrong but common: the text was re-encoded and the declaration stayed.
            text.replace("ENCODING", "UTF-16").into_bytes(),
        ];
        for file in files {
            let results = read(&file);
            assert_eq!(results.tests[0].name, "größe", "{:?}", String::from_utf8_lossy(&file));
            assert!(results.notes.is_empty(), "{:?}", results.notes);
        }
        let unknown = read(text.replace("ENCODING", "klingon").as_bytes());
        assert_eq!(unknown.tests[0].name, "größe");
        assert_eq!(unknown.notes, ["there is no encoding `klingon`; it is read as UTF-8"]);
    }

    #[test]
    fn an_odd_byte_costs_itself() {
        let results = read(
            b"<testsuite><testcase name='a'><failure>got \xfe!</failure></testcase><testcase name='b'/></testsuite>",
        );
        assert_eq!(results.tests.len(), 2);
        assert_eq!(results.tests[0].message, "got \u{fffd}!");
        assert!(results.notes[0].contains("not UTF-8"), "{:?}", results.notes);
        assert_eq!(one("name='a\u{1b}[31mred\u{1b}[0m\u{0}'", "").name, "ared");
        assert_eq!(
            one("name='nul &#0; esc &#27;[1m &#65; &#xFFFFFFF; &nbsp; &'", "").name,
            "nul  esc  A  &nbsp; &"
        );
        let failed = one(
            "name='a'",
            "<failure>R&D &lt; 1 < 2 &amp; \u{1b}(B&#x1b;[m&unknown; &#;</failure>",
        );
        assert_eq!(failed.message, "R&D < 1 < 2 & &unknown; &#;");
        assert_eq!(
            one("name='a'", "<failure><![CDATA[1 < 2 & 3]]></failure>").message,
            "1 < 2 & 3"
        );
    }

    #[test]
    fn a_file_that_breaks_off_keeps_its_tests() {
        let results = read(b"<testsuite>\n<testcase name='a'/>\n<testcase name='b'><failure>half of");
        let seen: Vec<_> = results
            .tests
            .iter()
            .map(|t| (t.name.as_str(), t.outcome, t.message.as_str()))
            .collect();
        assert_eq!(
            seen,
            [("a", TestOutcome::Passed, ""), ("b", TestOutcome::Failed, "half of")]
        );
        assert!(results.notes[0].contains("ends too early"), "{:?}", results.notes);
        let results = read(b"<testsuite>\n<testcase name='a'/>\n<testcase na");
        assert_eq!(results.tests.len(), 1);
        assert!(results.notes[0].contains("breaks off at line 3"), "{:?}", results.notes);
    }

    #[test]
    fn dialects_are_understood() {
        let in_suite = read(b"<testsuites><testsuite file='spec/a.js'><testsuite><testcase name='a'/><testcase name='b' file='b.js'/></testsuite></testsuite><testsuite><testcase name='c'/></testsuite></testsuites>");
        let files: Vec<_> = in_suite.tests.iter().map(|test| test.file.as_deref()).collect();
        assert_eq!(files, [Some("spec/a.js"), Some("b.js"), None]);
        assert_eq!(one("name='a' status='notrun'", "").outcome, TestOutcome::Skipped);
        assert_eq!(one("name='a' result='Failed'", "").outcome, TestOutcome::Failed);
        assert_eq!(
            one("name='a' status='run' result='completed'", "").outcome,
            TestOutcome::Passed
        );
        assert_eq!(
            one("name='a'", "<failure type='AssertionError'/>").message,
            "AssertionError"
        );
        let twice = one("name='a'", "<failure message='one'/><error>two</error>");
        assert_eq!(twice.message, "one\n\ntwo");
        for (text, expected) in [
            ("1.5", 1.5),
            ("1,000.5", 1000.5),
            ("1,500", 1500.0),
            ("0,250", 0.25),
            ("1,5", 1.5),
            ("1e-3", 0.001),
            ("2.5s", 2.5),
            ("20 ms", 0.02),
            ("-1", 0.0),
            ("NaN", 0.0),
            ("soon", 0.0),
        ] {
            let read = one(&format!("name='a' time='{text}'"), "").seconds;
            assert!((read - expected).abs() < 1e-9, "{text}: {read}");
        }
        let stray = read(b"<testsuite><error>no suite</error><testcase name='a'/></testsuite>");
        assert_eq!(stray.notes, ["an error that belongs to no test is left out"]);
    }

    #[test]
    fn no_text_holds_a_secret_not_even_half_of_one() {
        let mask = Mask::new(&[SecretString::new("hunter2&hunter2".into())]);
        let long = "x".repeat(LONGEST_MESSAGE - 5);
        let xml = format!(
            "<testsuite file='hunter2&amp;hunter2.js'><testcase name='t hunter2&amp;hunter2' classname='hunter2&#38;hunter2'>\
                <failure message='{long}hunter2&amp;hunter2'>{{\"p\": \"hunter2\\u0026hunter2\"}}</failure></testcase></testsuite>"
        );
        let results = parse(xml.as_bytes(), &mask).unwrap();
        let said = format!("{results:?}");
        assert!(!said.contains("hun"), "{said}");
        assert_eq!(results.tests[0].name, "t ****");
        assert_eq!(results.tests[0].file.as_deref(), Some("****.js"));
    }
}
