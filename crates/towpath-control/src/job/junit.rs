//! JUnit XML, as test runners of every language write it.
//!
//! There is no standard; this reads what CircleCI reads: `<testcase name classname file time>` at any depth, with
//! `<failure>`, `<error>` or `<skipped>` inside. Source: <https://circleci.com/docs/guides/test/collect-test-data/>

use quick_xml::{
    Reader,
    events::{BytesStart, Event},
};

/// How one test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TestOutcome {
    Passed,
    Failed,
    Skipped,
}

/// One test of one file of results.
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

/// A failure's message is for a person; the rest is in the step's log.
const LONGEST_MESSAGE: usize = 4000;
/// More tests than any suite has: a bound on what one file may make us hold.
const MOST_TESTS: usize = 500_000;

/// Reads every test of `xml`.
pub(crate) fn parse(xml: &[u8]) -> Result<Vec<TestCase>, String> {
    let mut reader = Reader::from_reader(xml);
    let mut tests: Vec<TestCase> = Vec::new();
    let mut inside_test = false;
    let mut inside_failure = false;
    let mut seen_element = false;
    // What the failure at hand says: its text comes in pieces, cut at each entity.
    let mut said = String::new();
    let mut buffer = Vec::new();
    loop {
        let place = reader.buffer_position();
        let event = reader
            .read_event_into(&mut buffer)
            .map_err(|error| format!("{error} (at byte {place})"))?;
        match event {
            Event::Eof => break,
            Event::Start(element) => {
                seen_element = true;
                match element.local_name().as_ref() {
                    "testcase" => {
                        tests.push(test(&element)?);
                        inside_test = true;
                    }
                    name if inside_test => inside_failure |= mark(&mut tests, name, &element),
                    _ => {}
                }
            }
            Event::Empty(element) => {
                seen_element = true;
                match element.local_name().as_ref() {
                    "testcase" => tests.push(test(&element)?),
                    name if inside_test => {
                        mark(&mut tests, name, &element);
                    }
                    _ => {}
                }
            }
            Event::End(element) => match element.local_name().as_ref() {
                "testcase" => (inside_test, inside_failure) = (false, false),
                "failure" | "error" => {
                    inside_failure = false;
                    add(&mut tests, &std::mem::take(&mut said));
                }
                _ => {}
            },
            Event::Text(text) if inside_failure => said.push_str(&text),
            Event::CData(text) if inside_failure => said.push_str(&text),
            Event::GeneralRef(name) if inside_failure => {
                let reference = format!("&{};", name.as_ref());
                said.push_str(&quick_xml::escape::unescape(&reference).unwrap_or_default());
            }
            _ => {}
        }
        if tests.len() > MOST_TESTS {
            return Err(format!("it has more than {MOST_TESTS} tests"));
        }
        buffer.clear();
    }
    if seen_element {
        Ok(tests)
    } else {
        Err("it has no element".into())
    }
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    let attribute = element
        .attributes()
        .with_checks(false)
        .flatten()
        .find(|a| a.key.as_ref() == name)?;
    let text = quick_xml::escape::unescape(&attribute.value)
        .map_or_else(|_| attribute.value.to_string(), |text| text.into_owned());
    (!text.is_empty()).then_some(text)
}

fn test(element: &BytesStart<'_>) -> Result<TestCase, String> {
    let seconds = attribute(element, "time").and_then(|time| time.replace(',', "").parse::<f64>().ok());
    Ok(TestCase {
        name: attribute(element, "name").unwrap_or_else(|| "(no name)".into()),
        classname: attribute(element, "classname"),
        file: attribute(element, "file"),
        seconds: seconds.filter(|time| time.is_finite() && *time >= 0.0).unwrap_or(0.0),
        outcome: TestOutcome::Passed,
        message: String::new(),
    })
}

/// Notes what an element inside a test says about it; returns whether text in it belongs to a failure.
fn mark(tests: &mut [TestCase], name: &str, element: &BytesStart<'_>) -> bool {
    let Some(test) = tests.last_mut() else { return false };
    match name {
        "failure" | "error" => {
            test.outcome = TestOutcome::Failed;
            if let Some(message) = attribute(element, "message") {
                push(&mut test.message, &message);
            }
            true
        }
        "skipped" => {
            if test.outcome == TestOutcome::Passed {
                test.outcome = TestOutcome::Skipped;
            }
            false
        }
        _ => false,
    }
}

fn add(tests: &mut [TestCase], text: &str) {
    if let Some(test) = tests.last_mut() {
        push(&mut test.message, text.trim());
    }
}

fn push(message: &mut String, text: &str) {
    if !message.is_empty() && !text.is_empty() {
        message.push('\n');
    }
    let room = LONGEST_MESSAGE.saturating_sub(message.chars().count());
    message.extend(text.chars().take(room));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tests_at_any_depth_with_their_ends() {
        let xml = br#"<?xml version="1.0"?><testsuites><testsuite name="s">
            <testcase name="a &amp; b" classname="c" file="t.rs" time="1,000.5"/>
            <testcase name="bad"><failure message="no">because a &lt; b <![CDATA[<x>]]></failure><system-out>noise</system-out></testcase>
            <testcase name="later"><skipped/></testcase>
            <testcase name="broke"><error/></testcase></testsuite></testsuites>"#;
        let tests = parse(xml).unwrap();
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
        for bad in [&b"not xml"[..], b"", b"<a", b"<a></b>", b"\xff\xfe\x00"] {
            assert!(parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }
}
