//! The little of HTTP that the three programs need: a server with a thread for each request, and a client.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

/// Where each program listens.
const LISTEN: &str = "0.0.0.0:8080";
/// How long either side may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest line of a request.
const LONGEST_LINE: u64 = 8192;

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub body: String,
}

impl Answer {
    pub fn text(body: impl Into<String>) -> Self {
        Self {
            status: 200,
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
        }
    }

    pub fn page(body: impl Into<String>) -> Self {
        Self {
            content_type: "text/html; charset=utf-8",
            ..Self::text(body)
        }
    }

    pub fn error(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            ..Self::text(body)
        }
    }
}

/// Answers requests by method and path, for ever. `/healthz` is answered here.
pub fn serve(answer: impl Fn(&str, &str) -> Answer + Send + Sync + 'static) -> io::Result<()> {
    let listener = TcpListener::bind(LISTEN)?;
    println!("listening on {LISTEN}");
    let answer = Arc::new(answer);
    for stream in listener.incoming() {
        let (stream, answer) = (stream?, answer.clone());
        thread::spawn(move || {
            if let Err(error) = handle(stream, answer.as_ref()) {
                eprintln!("a request was not answered: {error}");
            }
        });
    }
    Ok(())
}

fn handle(stream: TcpStream, answer: &dyn Fn(&str, &str) -> Answer) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(&stream);
    let first = line(&mut reader)?;
    while !line(&mut reader)?.is_empty() {}
    let answer = match first.split(' ').collect::<Vec<_>>().as_slice() {
        [_, "/healthz", _] => Answer::text("ok\n"),
        [method, path, _] => answer(method, path),
        _ => Answer::error(400, "this is not HTTP\n"),
    };
    let Answer {
        status,
        content_type,
        body,
    } = answer;
    write!(
        &stream,
        "HTTP/1.1 {status} \r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.take(LONGEST_LINE).read_line(&mut line)?;
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_string()),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "a line does not end")),
    }
}

/// Sends a request to a service and answers the body.
pub fn send(method: &str, service: &str, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect((service, 80))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {service}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    body(&answer).map(str::to_string).ok_or_else(|| {
        let first = answer.lines().next().unwrap_or("nothing");
        io::Error::other(format!("`{service}` answered {first}"))
    })
}

/// The body of a good answer.
fn body(answer: &str) -> Option<&str> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_good_answer_has_a_body() {
        assert_eq!(body("HTTP/1.1 200 OK\r\nA: b\r\n\r\ncats 1\n"), Some("cats 1\n"));
        assert_eq!(body("HTTP/1.1 404 \r\n\r\nno\n"), None);
        assert_eq!(body("nonsense"), None);
    }

    #[test]
    fn a_line_that_does_not_end_is_refused() {
        assert!(line(&mut "GET / HTTP/1.1\r\n".as_bytes()).is_ok_and(|line| line == "GET / HTTP/1.1"));
        assert!(line(&mut "x".repeat(9000).as_bytes()).is_err());
    }
}
