//! `towpath lsp`, driven like an editor drives it.

#![allow(clippy::unwrap_used, clippy::panic)]

use lsp_server::{Message, Notification, Request, RequestId, Response};
use serde_json::{Value, json};
use std::{
    fs,
    io::BufReader,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

struct Editor {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    uri: String,
    next: i32,
}

impl Editor {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_towpath"))
            .args(["lsp", "--orb-registry", "none", "--data-dir"])
            .arg(folder.join("no-server"))
            .env("XDG_CACHE_HOME", folder.join("cache"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to = child.stdin.take().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        let uri = format!("file://{}", folder.join(".circleci/config.yml").display());
        let mut editor = Self {
            child,
            to,
            from,
            uri,
            next: 0,
        };
        let answer = editor.ask("initialize", json!({ "capabilities": {} }));
        assert_eq!(answer["capabilities"]["hoverProvider"], true);
        editor.tell("initialized", json!({}));
        editor
    }

    fn tell(&mut self, method: &str, params: Value) {
        let notification = Notification::new(method.to_owned(), params);
        Message::from(notification).write(&mut self.to).unwrap();
    }

    fn read(&mut self) -> Message {
        Message::read(&mut self.from).unwrap().expect("the server has gone")
    }

    /// Sends a request and returns its answer. Ignores other messages.
    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = RequestId::from(self.next);
        let request = Request::new(id.clone(), method.to_owned(), params);
        Message::from(request).write(&mut self.to).unwrap();
        loop {
            if let Message::Response(Response {
                id: of,
                response_result,
                ..
            }) = self.read()
                && of == id
            {
                return response_result.unwrap();
            }
        }
    }

    fn diagnostics(&mut self) -> Vec<Value> {
        loop {
            if let Message::Notification(notification) = self.read()
                && notification.method == "textDocument/publishDiagnostics"
            {
                return notification.params["diagnostics"].as_array().unwrap().clone();
            }
        }
    }

    fn open(&mut self, text: &str) -> Vec<Value> {
        let document = json!({ "uri": self.uri, "languageId": "yaml", "version": 1, "text": text });
        self.tell("textDocument/didOpen", json!({ "textDocument": document }));
        self.diagnostics()
    }

    fn change(&mut self, text: &str) -> Vec<Value> {
        let document = json!({ "uri": self.uri, "version": 2 });
        let changes = json!([{ "text": text }]);
        self.tell(
            "textDocument/didChange",
            json!({ "textDocument": document, "contentChanges": changes }),
        );
        self.diagnostics()
    }

    /// Sends a request about the first occurrence of `mark` in `text`.
    fn at(&mut self, method: &str, text: &str, mark: &str) -> Value {
        let offset = text.find(mark).unwrap() + 1;
        let line = text[..offset].matches('\n').count();
        let start = text[..offset].rfind('\n').map_or(0, |at| at + 1);
        let character = text[start..offset].encode_utf16().count();
        let position = json!({ "line": line, "character": character });
        let document = json!({ "uri": self.uri });
        self.ask(method, json!({ "textDocument": document, "position": position }))
    }
}

impl Drop for Editor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const TEXT: &str = "version: 2.1
orbs: {tools: acme/tools@1}
jobs:
  build:
    parameters: {what: {type: string, default: 😀 world}}
    docker: [{image: 'cimg/base:2024.01'}]
    steps:
      - tools/greet: {to: << parameters.what >>}
workflows:
  w:
    jobs:
      - build
";

#[test]
fn an_editor_is_told_what_is_wrong_what_stands_there_and_what_could() {
    let folder = tempfile::tempdir().unwrap();
    let orbs = folder.path().join(".circleci/orbs/acme");
    fs::create_dir_all(&orbs).unwrap();
    fs::write(
        orbs.join("tools@1.0.0.yml"),
        "version: 2.1\ncommands:\n  greet:\n    description: Greets.\n    parameters: {to: {type: string}}\n    steps:\n      - run: echo << parameters.to >>\n",
    )
    .unwrap();
    let mut editor = Editor::start(folder.path());
    assert_eq!(editor.open(TEXT), Vec::<Value>::new());

    let hover = editor.at("textDocument/hover", TEXT, "tools/greet");
    let said = hover["contents"]["value"].as_str().unwrap();
    assert!(
        said.contains("Greets.") && said.contains("`to` (string, required)"),
        "{said}"
    );
    assert_eq!(hover["range"]["start"], json!({ "line": 7, "character": 8 }));
    let hover = editor.at("textDocument/hover", TEXT, "parameters.what");
    assert!(
        hover["contents"]["value"].as_str().unwrap().contains("😀 world"),
        "{hover}"
    );

    let place = editor.at("textDocument/definition", TEXT, "parameters.what");
    assert_eq!(place["range"]["start"], json!({ "line": 4, "character": 17 }));
    assert_eq!(place["uri"], editor.uri);
    let place = editor.at("textDocument/definition", TEXT, "tools/greet");
    let uri = place["uri"].as_str().unwrap();
    assert_eq!(place["range"]["start"], json!({ "line": 2, "character": 2 }));
    let shown = fs::read_to_string(uri.strip_prefix("file://").unwrap()).unwrap();
    assert!(shown.contains("description: Greets."));

    // Editors count the wide letter before it as two.
    let wrong = TEXT
        .replace("      - build\n", "      - biuld\n")
        .replace("default: 😀 world", "default: 😀, enumm: x");
    let found = editor.change(&wrong);
    let codes: Vec<_> = found.iter().map(|found| found["code"].as_str().unwrap()).collect();
    assert!(codes.contains(&"config::unknown-job"), "{codes:?}");
    let unknown = found
        .iter()
        .find(|found| found["code"] == "config::unknown-job")
        .unwrap();
    assert!(unknown["message"].as_str().unwrap().contains("did you mean `build`?"));
    assert_eq!(unknown["range"]["start"], json!({ "line": 11, "character": 8 }));

    let unfinished = TEXT.replace("- tools/greet: {to: << parameters.what >>}", "- tools/");
    let found = editor.change(&unfinished);
    assert!(!found.is_empty());
    let offered = editor.at("textDocument/completion", &unfinished, "/\nworkflows");
    let labels: Vec<_> = offered
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["label"].clone())
        .collect();
    assert_eq!(labels, [json!("tools/greet")]);
    let edit = &offered[0]["textEdit"];
    assert_eq!(edit["newText"], "tools/greet");
    assert_eq!(edit["range"]["start"], json!({ "line": 7, "character": 8 }));

    editor.ask("shutdown", Value::Null);
    editor.tell("exit", Value::Null);
    assert!(editor.child.wait().unwrap().success());
}

#[test]
fn other_files_are_taken_for_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let mut editor = Editor::start(folder.path());
    let mut open = |path: &str, text: &str| {
        editor.uri = format!("file://{}", folder.path().join(path).display());
        let messages = editor.open(text);
        messages
            .iter()
            .map(|found| found["message"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let orb = "version: 2.1\ndescription: An orb.\ncommands:\n  greet:\n    steps: [{run: echo hello}]\n";
    assert_eq!(open(".circleci/orbs/acme/tools@1.0.0.yml", orb), [""; 0]);
    assert_eq!(open("orb.yml", orb), [""; 0]);
    let wrong = orb.replace("run:", "runn:");
    let said = open("orb.yml", &wrong);
    assert!(said[0].contains("runn"), "{said:?}");
    assert_eq!(open("src/commands/greet.yml", "steps: [{runn: echo hello}]\n"), [""; 0]);
    assert_eq!(open("compose.yml", "services: {web: {image: web}}\n"), [""; 0]);
    let said = open(".circleci/continue.yml", "version: 2.1\ncommands: {}\n");
    assert!(
        said.iter().any(|said| said.contains("no workflows or build jobs")),
        "{said:?}"
    );
    // Outside of `.circleci`, a file with workflows is a configuration.
    let said = open("ci.yml", "version: 2.1\nworkflows: {w: {jobs: [none]}}\n");
    assert!(said[0].contains("job named none"), "{said:?}");
}

#[test]
fn nonsense_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let mut editor = Editor::start(folder.path());
    for text in [
        "",
        "\u{feff}",
        "a: [",
        "- - -",
        "version: 2.1\njobs: 7\n",
        "\t\tx: y",
        "<<: *nothing",
        "&a [*a]",
    ] {
        let found = editor.open(text);
        assert!(!found.is_empty(), "{text:?}");
        for method in [
            "textDocument/hover",
            "textDocument/definition",
            "textDocument/completion",
        ] {
            let document = json!({ "uri": editor.uri });
            for position in [
                json!({ "line": 0, "character": 0 }),
                json!({ "line": 9, "character": 99 }),
            ] {
                editor.ask(method, json!({ "textDocument": document, "position": position }));
            }
        }
    }
}
