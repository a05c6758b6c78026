//! The command line without a server, or with a scripted server.

#![allow(clippy::unwrap_used)]

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};

fn towpath(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_towpath"));
    command.args(arguments).stdin(Stdio::null());
    command
}

#[test]
fn a_reader_that_has_gone_ends_a_command_quietly() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let folder = repository();
    let output = towpath(&["config", "process", ".circleci/config.yml"])
        .current_dir(folder.path())
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// A repository with a configuration, an orb in parts, and no server.
fn repository() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        (
            ".circleci/config.yml",
            "version: 2.1\njobs:\n  build: {docker: [{image: app}], steps: [run: echo << pipeline.parameters.word >>]}\n  lonely: {machine: true, steps: [nosuch]}\nparameters: {word: {type: string, default: hello}}\nworkflows: {w: {jobs: [build]}}\n",
        ),
        ("orb/@orb.yml", "version: 2.1\ndescription: In parts.\n"),
        ("orb/commands/greet.yml", "steps:\n  - run: <<include(greet.sh)>>\n"),
        ("orb/greet.sh", "echo hello\n"),
        ("wrong.yml", "version: 2.1\ncommands: {greet: {steps: [chekout]}}\n"),
    ];
    for (path, text) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

/// Exit code and output.
fn run(folder: &std::path::Path, arguments: &[&str]) -> (i32, String) {
    let output = towpath(arguments)
        .current_dir(folder)
        .env("TOWPATH_DATA_DIR", folder.join("no-server"))
        .env("TOWPATH_ORB_REGISTRY", "none")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
fn a_configuration_is_checked_explained_and_linted_without_a_server() {
    let folder = repository();
    let run = |arguments: &[&str]| run(folder.path(), arguments);
    assert_eq!(
        run(&["config", "validate"]),
        (0, "Config file at .circleci/config.yml is valid.\n".into())
    );
    assert_eq!(run(&["config", "validate", "--json"]), (0, "[]\n".into()));
    let (code, text) = run(&["config", "explain", "build", "-p", "word=bye"]);
    assert_eq!(code, 0);
    assert!(
        text.contains(
            "steps[0].run.command = echo bye\n  written at .circleci/config.yml:3:48\n  << pipeline.parameters.word >> = bye, set by the trigger\n"
        ),
        "{text}"
    );
    let (code, text) = run(&["config", "explain", "nosuch"]);
    assert_eq!(
        (code, text.as_str()),
        (1, "error: no job `nosuch` runs; there are: build\n")
    );
    let (code, text) = run(&["config", "lint"]);
    assert_eq!(code, 1);
    for wanted in ["lint::unused", "lint::mutable-image", "command named nosuch"] {
        assert!(text.contains(wanted), "{text}");
    }
    let (code, text) = run(&["config", "lint", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, 1);
    assert_eq!(found[0]["primary"]["file"], ".circleci/config.yml");
    let (code, text) = run(&["config", "schema"]);
    assert_eq!(code, 0);
    let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(schema["title"], "CircleCI configuration");
    let (code, text) = run(&["config", "validate", "nosuch.yml"]);
    assert_eq!(code, 1);
    assert!(
        text.contains("failed to read `nosuch.yml`\n  because: No such file"),
        "{text}"
    );
}

#[test]
fn a_deployment_that_no_gate_could_show_is_named_once_by_validate_and_lint() {
    let folder = repository();
    let config = "version: 2.1
jobs:
  ship: {parameters: {n: {type: integer}}, machine: true, steps: [run: 'towpath deploy $TARGET']}
workflows:
  main: {jobs: [ship: {matrix: {parameters: {n: [1, 2]}}}]}
";
    std::fs::write(folder.path().join(".circleci/config.yml"), config).unwrap();
    for (command, code) in [("validate", 0), ("lint", 1)] {
        let (ended, text) = run(folder.path(), &["config", command, "--json"]);
        let found: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        let found: Vec<_> = found
            .iter()
            .filter(|found| found["code"] == "towpath::cannot-run")
            .map(|found| (found["message"].as_str().unwrap(), found["primary"]["line"].as_u64()))
            .collect();
        let message = "the environment of `towpath deploy $TARGET` cannot be read from the configuration, so no gate could show it";
        assert_eq!(
            (ended, found.as_slice()),
            (code, &[(message, Some(3))][..]),
            "{command}: {text}"
        );
    }
}

#[test]
fn a_file_that_is_not_utf_8_has_a_place() {
    let folder = repository();
    std::fs::write(folder.path().join("latin.yml"), b"version: 2.1\n# gr\xfcn\n").unwrap();
    let (code, text) = run(folder.path(), &["config", "validate", "latin.yml"]);
    assert_eq!(
        (code, text.as_str()),
        (
            1,
            "error: `latin.yml` is not UTF-8: line 2, column 5 has the byte 0xfc; save it as UTF-8\n"
        )
    );
}

#[test]
fn a_step_needs_no_certificates_to_reach_the_server() {
    use std::io::{Read as _, Write as _};
    let folder = repository();
    let socket = folder.path().join("agent.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 65536]);
            let _ = stream.write_all(
                b"HTTP/1.1 403 Forbidden\r\ncontent-length: 24\r\nconnection: close\r\n\r\n{\"message\":\"not for you\"}",
            );
        }
    });
    std::fs::create_dir(folder.path().join("no-certificates")).unwrap();
    let output = towpath(&["deploy", "dev"])
        .current_dir(folder.path())
        .env("TOWPATH_AGENT_SOCKET", &socket)
        .env("TOWPATH_JOB_TOKEN", "t")
        .env("SSL_CERT_DIR", folder.path().join("no-certificates"))
        .env_remove("SSL_CERT_FILE")
        .output()
        .unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(text.contains("not for you"), "{text}");
}

#[test]
fn an_orb_registry_is_trusted_as_the_machine_trusts_it() {
    let body =
        r#"{"data":{"orbVersion":{"id":"1","version":"1.0.0","source":"commands: {hi: {steps: [run: echo hi]}}"}}}"#;
    let server = towpath_testkit::TlsServer::start(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    ))
    .unwrap();
    let folder = repository();
    let config =
        "version: 2.1\norbs: {o: a/o@1.0.0}\njobs: {j: {machine: true, steps: [o/hi]}}\nworkflows: {w: {jobs: [j]}}\n";
    std::fs::write(folder.path().join(".circleci/config.yml"), config).unwrap();
    let process = |authority: Option<&std::path::Path>| {
        let output = towpath(&["config", "process"])
            .current_dir(folder.path())
            .env("TOWPATH_DATA_DIR", folder.path().join("no-server"))
            .env("TOWPATH_ORB_REGISTRY", format!("https://{}", server.address))
            .env_remove("SSL_CERT_DIR")
            .env_remove("SSL_CERT_FILE")
            .envs(authority.map(|file| ("SSL_CERT_FILE", file)))
            .output()
            .unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let trusted = process(Some(&server.authority));
    assert!(trusted.contains("command: echo hi"), "{trusted}");
    let untrusted = process(None);
    assert!(
        untrusted.contains("of an authority that this machine does not trust") && untrusted.contains("`SSL_CERT_FILE`"),
        "{untrusted}"
    );
}

#[test]
fn an_orb_includes_files_of_its_repository_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    for folder in ["inside/orb/src/commands", "inside/orb/scripts", "inside/.git"] {
        std::fs::create_dir_all(at(folder)).unwrap();
    }
    std::fs::write(at("inside/orb/src/@orb.yml"), "version: 2.1\n").unwrap();
    std::fs::write(at("inside/orb/scripts/x.sh"), "echo beside\n").unwrap();
    std::fs::write(at("inside/shared.sh"), "echo above\n").unwrap();
    std::fs::write(at("inside/orb/src/picture"), b"\xff\xfe").unwrap();
    std::fs::write(at("secret.sh"), "echo private\n").unwrap();
    std::os::unix::fs::symlink("../../../secret.sh", at("inside/orb/src/link.sh")).unwrap();
    let packed = |name: &str| {
        let step = format!("steps:\n  - run: << include({name}) >>\n");
        std::fs::write(at("inside/orb/src/commands/run.yml"), step).unwrap();
        run(&at("inside/orb/scripts"), &["orb", "pack", "../src"])
    };
    for (name, words) in [
        ("../scripts/x.sh", "echo beside"),
        ("commands/../../scripts/x.sh", "echo beside"),
        ("/../scripts/x.sh", "echo beside"),
        ("../../shared.sh", "echo above"),
    ] {
        let (code, text) = packed(name);
        assert!(code == 0 && text.contains(words), "{name}: {text}");
    }
    for (name, words) in [
        (
            "../../../secret.sh",
            "`commands/run.yml` includes `../../../secret.sh`, which is outside of the repository",
        ),
        ("link.sh", "includes `link.sh`, which is outside of the repository"),
        ("../scripts/y.sh", "includes `../scripts/y.sh`, but there is no `"),
        ("picture", "includes `picture`, which is not text (UTF-8)"),
    ] {
        let (code, text) = packed(name);
        assert!(code == 1 && text.contains(words), "{name}: {text}");
        assert!(!text.contains("private"), "{text}");
    }
    std::fs::remove_dir(at("inside/.git")).unwrap();
    let (code, text) = packed("../scripts/x.sh");
    assert!(
        code == 1 && text.contains("outside of the packed folder, and that is in no git repository"),
        "{text}"
    );
}

#[test]
fn an_orb_is_packed_and_checked_without_a_server() {
    let folder = repository();
    let run = |arguments: &[&str]| run(folder.path(), arguments);
    let (code, packed) = run(&["orb", "pack", "orb"]);
    assert_eq!(code, 0, "{packed}");
    assert!(packed.contains("echo hello"), "{packed}");
    std::fs::write(folder.path().join("orb.yml"), &packed).unwrap();
    assert_eq!(
        run(&["orb", "validate", "orb.yml"]),
        (0, "Orb at orb.yml is valid.\n".into())
    );
    std::fs::write(folder.path().join("orb/commands/wrong.yml"), b"description: gr\xfcn\n").unwrap();
    let (code, text) = run(&["orb", "pack", "orb"]);
    assert_eq!(code, 1);
    assert!(text.contains("failed to read `orb/commands/wrong.yml`"), "{text}");
    let (code, text) = run(&["orb", "validate", "wrong.yml"]);
    assert_eq!(code, 1);
    assert!(text.contains("did you mean `checkout`?"), "{text}");
    let (code, text) = run(&["config", "pack", "nosuch"]);
    assert_eq!(code, 1);
    assert!(text.contains("failed to read `nosuch`"), "{text}");
}

/// A data directory of a server that answers every request with `status` and `body`, until the test ends.
fn server(folder: &Path, status: &'static str, body: String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    std::fs::write(
        folder.join("address"),
        format!("http://{}", listener.local_addr().unwrap()),
    )
    .unwrap();
    std::fs::write(folder.join("token"), "tp.owner.00").unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // One read holds the short requests of these tests.
            let _ = stream.read(&mut [0; 16384]);
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n",
                body.len()
            );
            let _ = write!(stream, "{head}Content-Type: application/json\r\n\r\n{body}");
        }
    });
}

/// Terminal codes that try to hide the true subject and the true change.
const HOSTILE: &str = "Fix\u{1b}[2J\u{1b}[1;1H\u{9b}8m \u{202e}txt\u{2066}\rApproved";
const SHOWN: &str = "Fix\\u001b[2J\\u001b[1;1H\\u009b8m \\u202etxt\\u2066\\u000dApproved";

#[test]
fn what_was_pushed_does_not_steer_the_terminal_of_whoever_approves() {
    let folder = tempfile::tempdir().unwrap();
    let digest = format!("sha256:{}", "0".repeat(64));
    let gate = serde_json::json!({
        "job": "00000000-0000-0000-0000-000000000001", "name": "hold", "status": "on_hold",
        "workflow": "00000000-0000-0000-0000-000000000002", "workflow_name": HOSTILE, "project": "claims",
        "pipeline_number": 3, "branch": HOSTILE, "tag": null, "commit": "a".repeat(40), "subject": HOSTILE,
        "environment": { "project": "claims", "environment": "dev" }, "waiting": true,
        "plan": { "id": digest, "environment": "dev", "image": "r/claims", "images": {}, "previous_image": null,
                  "parent": null, "commit": null, "unchanged": 4, "on_failure": "rollback",
                  "commits": [{ "id": "a".repeat(40), "author": HOSTILE, "subject": HOSTILE }],
                  "blockers": [HOSTILE], "warnings": [HOSTILE],
                  "changes": [{ "action": "changed", "kind": "ConfigMap", "name": "app",
                                "diff": format!("@@ -1 +1 @@\n-{HOSTILE}\n+{HOSTILE}\n") }] },
        "plan_error": null, "as_of": "2026-01-01T00:00:00Z", "approved_by": null, "message": null,
    });
    server(folder.path(), "200 OK", serde_json::json!([gate]).to_string());
    let shown = |arguments: &[&str]| {
        let output = towpath(arguments)
            .env("TOWPATH_DATA_DIR", folder.path())
            .current_dir(folder.path())
            .output()
            .unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let steers = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202e}' | '\u{2066}');
        assert!(!text.contains(steers), "{arguments:?}: {text:?}");
        text
    };
    let text = shown(&["gates"]);
    for line in [
        format!("hold of {SHOWN} in pipeline 3 (claims)"),
        format!("  commit  aaaaaaa {SHOWN}"),
        format!("  commit  aaaaaaa {SHOWN} ({SHOWN})"),
        format!("    -{SHOWN}"),
        format!("  BLOCKED {SHOWN}"),
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
    }
    server(
        folder.path(),
        "409 Conflict",
        serde_json::json!({ "message": HOSTILE }).to_string(),
    );
    let text = shown(&["gates"]);
    assert_eq!(text, format!("error: {SHOWN}\n"));
}

#[test]
fn a_plan_of_a_protected_environment_is_shown_and_nobody_agrees_by_accident() {
    let folder = repository();
    let manifest = folder.path().join(".k8s/live/production/settings.yml");
    std::fs::create_dir_all(manifest.parent().unwrap()).unwrap();
    std::fs::write(
        manifest,
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\n",
    )
    .unwrap();
    let git = Command::new("git")
        .args(["init", "-q"])
        .current_dir(folder.path())
        .status();
    assert!(git.unwrap().success());
    let digest = format!("sha256:{}", "0".repeat(64));
    let plan = serde_json::json!({
        "id": digest, "environment": "production", "image": "r/claims", "images": {}, "previous_image": null,
        "parent": null, "commit": null, "commits": [], "changes": [], "unchanged": 1, "on_failure": "rollback",
        "blockers": [], "warnings": [],
    });
    let answer = serde_json::json!({ "message": "production is protected", "plan": plan });
    server(folder.path(), "409 Conflict", answer.to_string());
    for (more, says) in [
        (&[][..], "nobody is there to ask"),
        // The server asks again although it was shown the plan, so the plan must have changed.
        (&["--yes"], "error: production is protected"),
        (&["--plan", &digest], "error: production is protected"),
        (&["--plan", "000000000000"], "give its whole digest"),
    ] {
        let output = towpath(&[&["deploy", "production"], more].concat())
            .current_dir(folder.path())
            .env("TOWPATH_DATA_DIR", folder.path())
            .output()
            .unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(says), "{more:?}: {text}");
        let is_named_badly = says.starts_with("give");
        assert_eq!(
            text.contains(&format!("plan {digest} for production")),
            !is_named_badly,
            "{text}"
        );
    }
}
