//! The scripts that CI runs.

use std::{
    io::Write,
    process::{Command, Stdio},
};

const TESTS: &str = "     Running unittests src/main.rs (target/claims-1)\n\nrunning 4 tests\ntest a::b ... ok\n\
test a::c - should panic ... ok\ntest x<y> ... FAILED\ntest z ... ignored, for now\n\nfailures:\n\n---- x<y> stdout ----\n\
thread panicked: \"a\" & b\n\nfailures:\n    x<y>\n\ntest result: FAILED. 2 passed\n";

const JUNIT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="4" failures="1" skipped="1">
<testsuite name="cargo test" tests="4" failures="1" skipped="1">
<testcase classname="src/main.rs" name="a::b"/>
<testcase classname="src/main.rs" name="a::c - should panic"/>
<testcase classname="src/main.rs" name="x&lt;y&gt;"><failure message="failed">thread panicked: &quot;a&quot; &amp; b

</failure></testcase>
<testcase classname="src/main.rs" name="z"><skipped/></testcase>
</testsuite>
</testsuites>
"#;

#[test]
fn the_output_of_cargo_test_becomes_junit() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("results/cargo.xml");
    let mut junit = Command::new("ci/junit")
        .arg(&file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    junit.stdin.take().unwrap().write_all(TESTS.as_bytes()).unwrap();
    let output = junit.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        TESTS,
        "what it reads passes through"
    );
    assert_eq!(std::fs::read_to_string(file).unwrap(), JUNIT);
}

#[test]
fn a_branch_cannot_move_the_tags_of_the_main_branch() {
    let tags = |branch: &str| {
        let output = Command::new("ci/tags")
            .env("CIRCLE_BRANCH", branch)
            .env("CIRCLE_SHA1", "c0ffee")
            .output()
            .unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .map(|tag| tag.split("-20").next().unwrap().to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(tags("main"), ["app-c0ffee", "app-latest", "app-latest"]);
    for (branch, slug) in [
        ("feature/Log in", "feature-log-in"),
        ("app", "branch-app"),
        ("--x--", "x"),
    ] {
        let expect = [
            format!("{slug}-c0ffee"),
            format!("{slug}-latest"),
            format!("{slug}-latest"),
            "commit-c0ffee".into(),
        ];
        assert_eq!(tags(branch), expect, "{branch}");
    }
}
