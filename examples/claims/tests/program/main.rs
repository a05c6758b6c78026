//! The program as it ships: started, used and stopped.
#![allow(clippy::unwrap_used)]

mod ci;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, ChildStdout, Command, Output, Stdio},
};

struct Claims {
    folder: tempfile::TempDir,
}

impl Claims {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claims"));
        command
            .args(arguments)
            .env_clear()
            .env(
                "DATABASE_URL",
                format!("sqlite://{}/claims.db", self.folder.path().display()),
            )
            .env("SESSION_KEY", "a key for tests")
            .env("LISTEN", "127.0.0.1:0")
            .env("GREETING", "Hello, tests");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn start(&self, arguments: &[&str]) -> Running {
        let mut child = self.command(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Running { child, lines }
    }
}

struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    /// The rest of the first line that contains `mark`. The time limit of the test run bounds the wait.
    fn line_after(&mut self, mark: &str) -> String {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(
                self.lines.read_line(&mut line).unwrap(),
                0,
                "it ended without printing `{mark}`; it printed: {seen}"
            );
            if let Some((_, rest)) = line.trim_end().split_once(mark) {
                return rest.to_string();
            }
            seen.push_str(&line);
        }
    }

    fn terminate(&self) {
        let status = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_claim_goes_from_the_api_through_the_worker_to_the_page() {
    let claims = Claims::new();
    assert!(
        claims
            .succeed(&["migrate"])
            .contains("was at version 0 and is now at 2")
    );
    let mut web = claims.start(&["web"]);
    let address = web.line_after("listening at ");
    let checks = claims.folder.path().join("checks");
    let smoke = |text: String| {
        std::fs::write(&checks, text).unwrap();
        claims.succeed(&["smoke", checks.to_str().unwrap()]);
    };
    let commit = option_env!("CIRCLE_SHA1").unwrap_or("unknown");
    smoke(format!(
        "GET http://{address}/healthz/ready 200\n\
         GET http://{address}/ping.json 200 contains 'Hello, tests' contains '{commit}'\n\
         POST http://{address}/claims 201 send '{{\"claimant\":\"Ada\",\"purpose\":\"Train\",\"pence\":4250}}' contains receipt\n\
         POST http://{address}/claims 422 send '{{\"claimant\":\"Ada\",\"purpose\":\"Train\",\"pence\":0}}' contains 'pence is 0'\n\
         POST http://{address}/claims 422 send '{{\"claimant\":\"Ada\"}}' contains 'missing field'\n\
         GET http://{address}/claims/1?receipt=00 403\n\
         GET http://{address}/claims/2 404\n"
    ));
    let mut worker = claims.start(&["worker"]);
    assert_eq!(worker.line_after("claim 1 over "), "£42.50 is approved");
    worker.terminate();
    worker.line_after("stopped");
    smoke(format!(
        "GET http://{address}/ 200 contains '<td>approved</td>' contains 'Hello, tests'"
    ));
    web.terminate();
    web.line_after("stopped");
    assert!(web.child.wait().unwrap().success());
}

#[test]
fn a_request_that_has_begun_is_finished_after_sigterm() {
    let claims = Claims::new();
    claims.succeed(&["migrate"]);
    let mut web = claims.start(&["web"]);
    let address = web.line_after("listening at ");
    let body = r#"{"claimant":"Ada","purpose":"Train","pence":4250}"#;
    let mut slow = TcpStream::connect(&address).unwrap();
    // With `Expect`, the server tells when it has begun to read this request.
    write!(
        slow,
        "POST /claims HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    let mut go_on = [0; 25];
    slow.read_exact(&mut go_on).unwrap();
    assert!(go_on.starts_with(b"HTTP/1.1 100 Continue"));
    web.terminate();
    web.line_after("asked to stop");
    slow.write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 Created"), "{answer}");
    web.line_after("stopped");
}

#[test]
fn jobs_say_what_they_did_and_refuse_a_database_that_is_not_ready() {
    let claims = Claims::new();
    for job in ["seed", "archive-stale", "vacuum-db", "ready", "worker"] {
        let output = claims.run(&[job]);
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && message.contains("run `claims migrate`"),
            "{job}: {message}"
        );
    }
    claims.succeed(&["migrate"]);
    claims.succeed(&["ready"]);
    assert_eq!(claims.succeed(&["seed"]), "added 3 claims\n");
    assert_eq!(
        claims.succeed(&["seed"]),
        "there are 3 claims already: nothing was added\n"
    );
    assert_eq!(
        claims.succeed(&["archive-stale"]),
        "archived 0 claims that were decided at least 90 days ago\n"
    );
    assert!(claims.succeed(&["vacuum-db"]).starts_with("the database had "));
}
