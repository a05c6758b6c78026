//! git's hooks, against a scripted server.

#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Stdio},
    thread::JoinHandle,
};

const ZERO: &str = "0000000000000000000000000000000000000000";
const ONE: &str = "1111111111111111111111111111111111111111";

/// Runs `towpath hook NAME` with git's lines. Returns the exit code, and what the pusher reads.
fn hook(name: &str, socket: &Path, lines: &str) -> (i32, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_towpath"))
        .args(["hook", name])
        .env("TOWPATH_HOOK_SOCKET", socket)
        .env("TOWPATH_HOOK_TOKEN", "a-token")
        .env("TOWPATH_PUSHED_BY", "Ada")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

/// Answers one request. The handle returns the request line, the authorization and the body.
fn answering(socket: &Path, status: &'static str, body: &'static str) -> JoinHandle<(String, String, String)> {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (mut first, mut authorization, mut length) = (String::new(), String::new(), 0);
        reader.read_line(&mut first).unwrap();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            match name.to_ascii_lowercase().as_str() {
                "authorization" => authorization = value.trim().to_string(),
                "content-length" => length = value.trim().parse().unwrap(),
                _ => {}
            }
        }
        let mut sent = vec![0; length];
        reader.read_exact(&mut sent).unwrap();
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).unwrap();
        let sent = String::from_utf8(sent).unwrap();
        (first.trim().to_string(), authorization, sent)
    })
}

fn lines() -> String {
    format!("{ZERO} {ONE} refs/heads/main\n{ZERO} {ONE} refs/tags/v 1\n")
}

#[test]
fn both_hooks_hand_the_refs_to_the_server_and_show_its_answer() {
    for (name, request) in [
        ("pre-receive", "POST /hook/pre-receive HTTP/1.1"),
        ("post-receive", "POST /hook/post-receive HTTP/1.1"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let server = answering(&socket, "200 OK", "Pipeline 1: http://127.0.0.1:7070/p/1\n");
        let (code, text) = hook(name, &socket, &lines());
        assert_eq!((code, text.as_str()), (0, "Pipeline 1: http://127.0.0.1:7070/p/1\n"));
        let expected = (
            request.to_string(),
            "Bearer a-token".to_string(),
            format!("by Ada\n{}", lines()),
        );
        assert_eq!(server.join().unwrap(), expected);
    }
}

#[test]
fn the_server_may_refuse_a_push_before_it_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let server = answering(
        &socket,
        "409 Conflict",
        r#"{"message": "`main` is protected: open a branch"}"#,
    );
    let (code, text) = hook("pre-receive", &socket, &lines());
    assert_eq!(code, 1);
    assert_eq!(
        text,
        "error: Towpath refused the push, and nothing of it was kept\n  because: `main` is protected: open a branch\n"
    );
    server.join().unwrap();
}

#[test]
fn without_a_server_no_push_is_taken_but_one_that_was_taken_stands() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let (code, text) = hook("pre-receive", &socket, &lines());
    assert_ne!(code, 0);
    assert!(
        text.contains("nothing of it was kept") && text.contains("no Towpath answers"),
        "{text}"
    );
    let (code, text) = hook("post-receive", &socket, &lines());
    assert_eq!(code, 0);
    assert!(
        text.starts_with("Towpath took the push but could not start a pipeline yet: "),
        "{text}"
    );
}

#[test]
fn only_branches_and_tags_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    for name in [
        "refs/replace/1",
        "refs/notes/commits",
        "refs/headsx",
        "HEAD",
        "refs/for/main",
    ] {
        let lines = format!("{}{ZERO} {ONE} {name}\n", lines());
        let (code, text) = hook("pre-receive", &socket, &lines);
        assert_eq!(code, 1, "the server is not even asked: {text}");
        assert_eq!(
            text,
            format!(
                "error: Towpath takes branches and tags (`refs/heads/…`, `refs/tags/…`), and `{name}` is neither\n"
            )
        );
    }
}

#[test]
fn there_are_two_hooks() {
    let (code, text) = hook("update", Path::new("/nowhere"), "");
    assert_eq!(code, 1);
    assert!(text.contains("there is no hook `update`"), "{text}");
}
