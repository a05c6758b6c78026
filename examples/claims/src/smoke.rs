//! `claims smoke FILE`: HTTP checks, one a line, to smoke-test an image without a shell from inside.
//!
//! ```text
//! # method, address, expected status, and what else the answer has to contain
//! GET  http://localhost:3000/ping.json 200 contains '"version"' contains "greeting"
//! POST http://localhost:3000/claims 201 send '{"claimant":"Ada","purpose":"Train","pence":4250}'
//! ```
//!
//! While nothing listens, or the answer is 503, a check waits, at most for [`PATIENCE`]. Any other answer counts at once.

use crate::Failure;
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

/// How long the application may take to become ready.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, PartialEq, Eq)]
struct Check {
    method: String,
    host: String,
    target: String,
    status: u16,
    contains: Vec<String>,
    send: Option<String>,
}

struct Answer {
    status: u16,
    body: String,
}

pub fn run(text: &str) -> Result<(), Failure> {
    run_within(text, PATIENCE)
}

fn run_within(text: &str, patience: Duration) -> Result<(), Failure> {
    let mut checks = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            checks.push((
                line,
                parse(line).map_err(|problem| format!("line {}: {problem}: {line}", number + 1))?,
            ));
        }
    }
    if checks.is_empty() {
        return Err("this file contains no checks".into());
    }
    let mut failed = 0;
    for (line, check) in &checks {
        let began = Instant::now();
        match judge(check, patience) {
            Ok(()) => println!("ok    {line} ({} ms)", began.elapsed().as_millis()),
            Err(problem) => {
                failed += 1;
                println!("FAIL  {line}\n      {problem}");
            }
        }
    }
    if failed > 0 {
        return Err(format!("{failed} of {} checks failed", checks.len()).into());
    }
    println!("{} checks passed", checks.len());
    Ok(())
}

fn parse(line: &str) -> Result<Check, String> {
    let mut words = words(line)?.into_iter();
    let mut next = |what: &str| words.next().ok_or(format!("{what} is missing"));
    let method = next("the method")?;
    let url = next("the address")?;
    let rest = url
        .strip_prefix("http://")
        .ok_or("the address does not begin with http://")?;
    let (host, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let status = next("the expected status")?;
    let mut check = Check {
        method,
        host: if host.contains(':') {
            host.into()
        } else {
            format!("{host}:80")
        },
        target: if target.is_empty() { "/".into() } else { target.into() },
        status: status.parse().map_err(|_| format!("`{status}` is not a status"))?,
        contains: Vec::new(),
        send: None,
    };
    while let Some(word) = words.next() {
        let value = words.next().ok_or(format!("nothing follows `{word}`"));
        match word.as_str() {
            "contains" => check.contains.push(value?),
            "send" => check.send = Some(value?),
            _ => return Err(format!("`{word}` is neither `contains` nor `send`")),
        }
    }
    Ok(check)
}

/// Splits a line at spaces. Text between two `'` or two `"` is one word.
fn words(line: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for character in line.chars() {
        match quote {
            Some(open) if character == open => quote = None,
            None if character == '\'' || character == '"' => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            None if character.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    quote.map_or(Ok(words), |open| Err(format!("a {open} is not closed")))
}

fn judge(check: &Check, patience: Duration) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let problem = match TcpStream::connect(&check.host) {
            Err(error) => format!("nothing answers at {}: {error}", check.host),
            Ok(stream) => {
                let answer = ask(stream, check).map_err(|error| format!("the answer broke off: {error}"))?;
                if answer.status != 503 || check.status == 503 {
                    return compare(check, &answer);
                }
                format!("still 503: {}", answer.body.trim())
            }
        };
        if began.elapsed() > patience {
            return Err(format!("gave up after {} s: {problem}", patience.as_secs()));
        }
        std::thread::sleep(PAUSE);
    }
}

fn compare(check: &Check, answer: &Answer) -> Result<(), String> {
    let body = answer.body.trim();
    if answer.status != check.status {
        return Err(format!("the status is {}, not {}: {body}", answer.status, check.status));
    }
    match check.contains.iter().find(|wanted| !answer.body.contains(*wanted)) {
        Some(wanted) => Err(format!("`{wanted}` is not in the answer: {body}")),
        None => Ok(()),
    }
}

/// Uses HTTP/1.0, whose answers end with the connection and are never chunked.
fn ask(mut stream: TcpStream, check: &Check) -> std::io::Result<Answer> {
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    let body = check.send.as_deref().unwrap_or_default();
    let request = format!(
        "{} {} HTTP/1.0\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        check.method,
        check.target,
        check.host,
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let malformed = || std::io::Error::other("this is not HTTP");
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(malformed)?;
    Ok(Answer {
        status,
        body: body.to_string(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_line_is_a_check() {
        let check = parse(r#"GET  http://localhost:3000/ping.json 200 contains '"version"' contains "a b""#).unwrap();
        assert_eq!((check.method.as_str(), check.host.as_str()), ("GET", "localhost:3000"));
        assert_eq!((check.target.as_str(), check.status), ("/ping.json", 200));
        assert_eq!(check.contains, ["\"version\"", "a b"]);
        assert_eq!(parse("GET http://claims 503").unwrap().target, "/");
        assert_eq!(parse("GET http://claims 503").unwrap().host, "claims:80");
    }

    #[test]
    fn a_wrong_line_says_what_is_wrong() {
        let check = |line: &str, expect: &str| {
            let message = run(&format!("# checks\n{line}")).unwrap_err().to_string();
            assert_eq!(message, format!("line 2: {expect}: {line}"));
        };
        check("GET", "the address is missing");
        check("GET https://x 200", "the address does not begin with http://");
        check("GET http://x ok", "`ok` is not a status");
        check("GET http://x 200 holds x", "`holds` is neither `contains` nor `send`");
        check("GET http://x 200 contains", "nothing follows `contains`");
        check("GET http://x 200 contains 'x", "a ' is not closed");
        assert_eq!(
            run("# nothing\n\n").unwrap_err().to_string(),
            "this file contains no checks"
        );
    }

    /// Serves one of `answers` to each connection, in order. Returns the server's address.
    fn server(answers: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        address
    }

    #[test]
    fn what_is_not_ready_is_waited_for_and_what_is_wrong_is_not() {
        let wait = Duration::from_secs(20);
        let address = server(&[
            "HTTP/1.1 503 x\r\n\r\nnot yet",
            "HTTP/1.1 200 OK\r\n\r\nhello",
            "HTTP/1.1 500 x\r\n\r\n",
        ]);
        run_within(&format!("GET http://{address}/ 200 contains hell"), wait).unwrap();
        let failure = run_within(&format!("GET http://{address}/ 200"), wait).unwrap_err();
        assert_eq!(failure.to_string(), "1 of 1 checks failed");
    }

    #[test]
    fn an_answer_is_compared_with_what_was_expected() {
        let check = |line: &str, status: u16, expect: Result<(), &str>| {
            let answer = Answer {
                status,
                body: "{\"version\":1}\n".into(),
            };
            assert_eq!(
                compare(&parse(line).unwrap(), &answer),
                expect.map_err(str::to_string),
                "{line}"
            );
        };
        check("GET http://x 200 contains version", 200, Ok(()));
        check(
            "GET http://x 200",
            404,
            Err("the status is 404, not 200: {\"version\":1}"),
        );
        check(
            "GET http://x 200 contains commit",
            200,
            Err("`commit` is not in the answer: {\"version\":1}"),
        );
    }

    #[test]
    fn nobody_there_is_an_error_in_the_end() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let problem = judge(&parse(&format!("GET http://{free}/ 200")).unwrap(), Duration::ZERO).unwrap_err();
        assert!(
            problem.starts_with(&format!("gave up after 0 s: nothing answers at {free}")),
            "{problem}"
        );
    }
}
