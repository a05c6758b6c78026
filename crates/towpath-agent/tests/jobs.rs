//! The agent as a process, with a server that behaves well or badly.
#![allow(clippy::unwrap_used, clippy::panic)]

mod server;

use server::*;
use std::{
    fs,
    time::{Duration, Instant},
};
use tar::EntryType;
use towpath_protocol::{Report, StepAction, StepWhen, WorkspaceLayer};
use towpath_testkit::{Probe, until};
use towpath_types::{Outcome, SecretString};

// Steps.

#[tokio::test(flavor = "multi_thread")]
async fn steps_run_in_order_and_by_what_happened_before() {
    let world = World::with(
        vec![
            run("echo one; echo two >&2; echo three; pwd"),
            run("echo \"export FROM_BEFORE=kept\" >> \"$BASH_ENV\""),
            run("echo $FROM_BEFORE $OF_JOB"),
            when(StepWhen::OnFail, run("echo passed over")),
            run_with("echo $OF_JOB; exit 3", |step| {
                step.environment = vec![set("OF_JOB", "of the step")]
            }),
            run("echo never"),
            when(StepWhen::OnFail, run("echo after the failure")),
            when(StepWhen::Always, run("false | true; echo always")),
        ],
        |spec| spec.environment = vec![set("OF_JOB", "of the job")],
    );
    let (outcome, message) = world.run().await;
    assert_eq!(outcome, Outcome::Failed);
    assert_eq!(
        message.as_deref(),
        Some("echo $OF_JOB; exit 3: Exited with code exit status 3")
    );
    let project = world.home().join("project").canonicalize().unwrap();
    assert_eq!(world.log(0), format!("one\ntwo\nthree\n{}\n", project.display()));
    assert_eq!(world.log(2), "kept of the job\n");
    assert_eq!(world.log(4), "of the step\n");
    assert_eq!(world.log(6), "after the failure\n");
    let steps: Vec<_> = world
        .steps()
        .into_iter()
        .map(|(step, outcome, code, _)| (step, outcome, code))
        .collect();
    let good = |step| (step, Outcome::Succeeded, Some(0));
    // The pipe's failure counts: `pipefail` is CircleCI's default.
    let piped = (7, Outcome::Failed, Some(1));
    assert_eq!(
        steps,
        [good(0), good(1), good(2), (4, Outcome::Failed, Some(3)), good(6), piped]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_silent_for_too_long_is_ended_with_all_that_it_started() {
    let world = World::new(vec![
        run_with(
            "echo begun; (trap '' TERM; echo $BASHPID > child; exec sleep 600) & sleep 600",
            |step| {
                step.no_output_timeout_seconds = 1;
            },
        ),
        when(
            StepWhen::Always,
            run(
                "s=/proc/$(cat child)/status; while [ -e $s ] && ! grep -q '^State:.Z' $s; do sleep 0.02; done; echo gone",
            ),
        ),
    ]);
    let began = Instant::now();
    let (outcome, message) = world.run().await;
    assert!(began.elapsed() >= Duration::from_secs(1) && began.elapsed() < Duration::from_secs(30));
    assert_eq!(outcome, Outcome::TimedOut);
    let message = message.unwrap();
    assert!(
        message.contains("Too long with no output (exceeded 1s): context deadline exceeded"),
        "{message}"
    );
    assert_eq!(world.log(0), "begun\n");
    assert_eq!(world.log(1), "gone\n");
    // A step that prints something now and then is not silent.
    let world = World::new(vec![run_with(
        "for i in 1 2 3 4; do echo $i; sleep 0.4; done",
        |step| {
            step.no_output_timeout_seconds = 1;
        },
    )]);
    assert_eq!(world.run().await.0, Outcome::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn background_steps_go_on_beside_the_others_and_end_with_the_job() {
    let world = World::new(vec![
        run_with(
            "echo $$ > pid; i=0; while true; do i=$((i+1)); echo tick $i; echo $i > next; mv next ticks; sleep 0.05; done",
            |step| {
                step.background = true;
                // Background steps may be silent.
                step.no_output_timeout_seconds = 1;
            },
        ),
        run_with("exit 9", |step| step.background = true),
        run("until [ \"$(cat ticks 2>/dev/null || echo 0)\" -ge 5 ]; do sleep 0.02; done; echo seen"),
    ]);
    let (outcome, message) = world.run().await;
    assert_eq!(
        (outcome, message),
        (Outcome::Succeeded, None),
        "how a background step ends does not matter"
    );
    assert_eq!(world.log(2), "seen\n");
    assert!(world.log(0).starts_with("tick 1\ntick 2\n"), "{}", world.log(0));
    let steps = world.steps();
    assert_eq!(steps.len(), 3, "each has a begin and an end: {steps:?}");
    assert!(
        steps
            .iter()
            .any(|(step, outcome, ..)| *step == 0 && *outcome == Outcome::Canceled),
        "{steps:?}"
    );
    assert!(
        steps.iter().any(|(step, _, code, _)| *step == 1 && *code == Some(9)),
        "{steps:?}"
    );
    let pid = fs::read_to_string(world.home().join("project/pid")).unwrap();
    assert!(!fs::exists(format!("/proc/{}", pid.trim())).unwrap(), "it still runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_may_halt_the_job() {
    let world = World::new(vec![
        run("circleci-agent step halt; echo to the end of this step"),
        run("echo never"),
        when(StepWhen::Always, run("echo not this either")),
    ]);
    assert_eq!(world.run().await, (Outcome::Succeeded, None));
    assert_eq!(world.log(0), "to the end of this step\n");
    assert_eq!(world.steps().len(), 1);
    // `circleci step halt` is another name of the command. A job that has failed before it still fails.
    let world = World::new(vec![run("circleci step halt; exit 4"), run("echo never")]);
    assert_eq!(world.run().await.0, Outcome::Failed);
    assert_eq!(world.steps().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_ends_soon_and_what_it_started_with_it() {
    let world = World::new(vec![
        run_with("sleep 600", |step| step.background = true),
        run("trap '' TERM; echo $$ > pid; echo begun; while true; do sleep 0.1; done"),
        when(StepWhen::Always, run("echo never")),
    ]);
    let agent = world.start();
    world.log_until(1, "begun").await;
    let began = Instant::now();
    world.cancel();
    assert_eq!(end(agent).await.code, Some(0));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(world.finished().0, Outcome::Canceled);
    assert!(!world.log(2).contains("never"));
    let pid = fs::read_to_string(world.home().join("project/pid")).unwrap();
    assert!(!fs::exists(format!("/proc/{}", pid.trim())).unwrap(), "it still runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_has_an_end_and_a_command_is_tried_again_as_often_as_it_says() {
    let world = World::with(vec![run("echo begun; sleep 600")], |spec| {
        spec.time_limit_seconds = Some(1)
    });
    let (outcome, message) = world.run().await;
    assert_eq!(
        (outcome, message.as_deref()),
        (Outcome::TimedOut, Some("the job ran longer than 1s"))
    );
    assert_eq!(world.log(0), "begun\n");

    let world = World::new(vec![run_with("echo x >> tries; test $(wc -l < tries) = 3", |step| {
        step.max_auto_reruns = 5
    })]);
    assert_eq!(world.run().await.0, Outcome::Succeeded);
    assert_eq!(
        fs::read_to_string(world.home().join("project/tries")).unwrap(),
        "x\nx\nx\n"
    );
    assert!(world.log(0).contains("running it again (2 of 5)"), "{}", world.log(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_shell_or_folder_is_reported() {
    for (step, expected) in [
        (
            run_with("x", |step| step.shell = Some("fish -c".into())),
            "this environment has no shell `fish`",
        ),
        (
            run_with("x", |step| step.shell = Some("bash 'open".into())),
            "is not a command",
        ),
        (
            run_with("x", |step| step.working_directory = Some("/no/such".into())),
            "the working directory `/no/such` does not exist",
        ),
    ] {
        let world = World::new(vec![step]);
        let (outcome, message) = world.run().await;
        assert_eq!(outcome, Outcome::Failed);
        assert!(message.as_deref().unwrap().contains(expected), "{message:?}");
        let ended = world.steps().remove(0);
        assert!(ended.3.as_deref().unwrap().contains(expected), "{ended:?}");
    }
    let world = World::with(vec![run("x")], |spec| spec.working_directory = "/proc/nobody".into());
    let (outcome, message) = world.run().await;
    assert_eq!(outcome, Outcome::Errored, "no step's fault");
    assert!(message.as_deref().unwrap().contains("/proc/nobody"), "{message:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_shell_leaves_behind_keeps_nobody_waiting() {
    let world = World::new(vec![
        run("sleep 600 & echo $! > pid; echo done"),
        run("kill $(cat pid); echo killed"),
    ]);
    let began = Instant::now();
    assert_eq!(world.run().await.0, Outcome::Succeeded);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!((world.log(0).as_str(), world.log(1).as_str()), ("done\n", "killed\n"));
}

// A server that comes and goes.

const LINES: &str = "seq 0 399999 | sed 's/^/line /'";

fn lines() -> String {
    (0..400_000).map(|i| format!("line {i}\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_arrives_whole_and_once_whatever_is_lost_on_the_way() {
    let world = World::new(vec![run(LINES), run("echo end")]);
    let (lost, less, gap) = (Fault::AnswerLost, Fault::TakesLess, Fault::Forgets(1000));
    world.fault(
        "/agent/v1/logs",
        [
            lost,
            Fault::RequestLost,
            less,
            lost,
            gap,
            Fault::Answered(503),
            less,
            gap,
            lost,
        ],
    );
    world.fault(
        "/agent/v1/reports",
        [lost, Fault::RequestLost, Fault::Answered(500), lost, lost, lost],
    );
    world.fault(
        "/agent/v1/job",
        [Fault::RequestLost, Fault::Answered(503), Fault::Answered(202)],
    );
    assert_eq!(world.run().await, (Outcome::Succeeded, None));
    assert!(world.log(0) == lines(), "a gap, or a line twice");
    assert_eq!(world.log(1), "end\n");
    let kinds: Vec<&str> = world
        .state()
        .reports
        .iter()
        .map(|report| match report {
            Report::StepStarted { .. } => "started",
            Report::StepFinished { .. } => "finished",
            Report::JobFinished { .. } => "over",
        })
        .collect();
    assert_eq!(
        kinds,
        ["started", "finished", "started", "finished", "over"],
        "a report twice, or not at all"
    );
    let left: usize = world.state().faults.iter().map(|(_, faults)| faults.len()).sum();
    assert_eq!(left, 0, "not everything went wrong that should have");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_while_there_is_no_server() {
    let mut world = World::new(vec![
        run("echo begun; until [ -e go ]; do sleep 0.02; done; seq 5000"),
        run("echo after"),
    ]);
    let agent = world.start();
    world.log_until(0, "begun").await;
    world.server.close();
    fs::write(world.home().join("project/go"), "").unwrap();
    // The second step ends while no server listens, and the job with it.
    let scripts = world.folder.path().join("state/scripts");
    until("the second step to have begun", BOUND, async || {
        Ok(if scripts.join("1.sh").exists() {
            Probe::Found(())
        } else {
            Probe::NotYet("the first runs".into())
        })
    })
    .await
    .unwrap();
    world.server.open();
    assert_eq!(end(agent).await.code, Some(0));
    assert_eq!(world.finished().0, Outcome::Succeeded);
    let expected: String = (1..=5000).map(|i| format!("{i}\n")).collect();
    assert_eq!(world.log(0), format!("begun\n{expected}"));
    assert_eq!(world.log(1), "after\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_no_longer_knows_the_job_ends_it() {
    for code in [410, 401] {
        let world = World::new(vec![run(
            "echo $$ > pid; echo begun; while true; do echo more; sleep 0.02; done",
        )]);
        let agent = world.start();
        world.log_until(0, "begun").await;
        world.fault("/agent/v1/logs", vec![Fault::Answered(code); 1000]);
        let ended = end(agent).await;
        assert_eq!(ended.code, Some(3), "{}", ended.stderr);
        assert!(
            ended
                .stderr
                .contains("the server no longer knows this job; stopped everything that ran"),
            "{}",
            ended.stderr
        );
        let pid = fs::read_to_string(world.home().join("project/pid")).unwrap();
        until("what ran to be gone", BOUND, async || {
            let gone = !fs::exists(format!("/proc/{}", pid.trim()))?;
            Ok(if gone {
                Probe::Found(())
            } else {
                Probe::NotYet("it still runs".into())
            })
        })
        .await
        .unwrap();
    }
}

// Secrets, and how much.

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_leaves_however_it_is_cut() {
    let secret = "hunter2-hunter2-hunter2";
    let steps = vec![
        // In pieces, with pauses between them.
        run(
            "for p in 'hunt' 'er2-hun' 'ter2-hunter' '2'; do printf %s \"$p\"; sleep 0.05; done; echo .; printf 'hunter2-'; sleep 1.1; echo 'hunter2-hunter2 end'",
        ),
        // Across the end of any buffer.
        run(
            "for n in 4094 8190 16380 32760 65530 65535 131070; do head -c $n /dev/zero | tr '\\0' x; printf %s \"$PASSWORD\"; echo; done",
        ),
        run("echo $PASSWORD | base64; echo $PASSWORD | sed 's/-/%2D/g'"),
        run("exit 1 # hunter2-hunter2-hunter2"),
        when(
            StepWhen::Always,
            run_with("x", |step| step.shell = Some(format!("/no/{secret}"))),
        ),
    ];
    let world = World::with(steps, |spec| {
        spec.mask = vec![SecretString::new(secret.into())];
        spec.environment = vec![set("PASSWORD", secret)];
    });
    let (outcome, message) = world.run().await;
    assert_eq!(outcome, Outcome::Failed);
    assert!(!message.unwrap().contains("hunter2"));
    let first = world.log(0);
    assert_eq!(first, "****.\n**** end\n");
    let second = world.log(1);
    assert_eq!(second.matches("x****\n").count(), 7, "{}", second.len());
    for step in 0..5 {
        assert!(!world.log(step).contains(secret), "step {step}");
    }
    assert!(world.log(2).starts_with("****"), "{}", world.log(2));
    let said = serde_json::to_string(&world.state().reports).unwrap();
    assert!(!said.contains(secret) && said.contains("exit 1 # ****"), "{said}");
    let said = format!("{:?}", world.state().requests);
    assert!(!said.contains(secret), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_of_output_takes_no_memory_and_no_end_of_room() {
    let world = World::with(
        vec![run("head -c 1073741824 /dev/zero | tr '\\0' x"), run("echo next")],
        |spec| {
            spec.log_limit_bytes = Some(50 << 20);
            spec.mask = vec![SecretString::new("hunter2hunter2".into())];
        },
    );
    world.state().counts_only = true;
    let mut agent = world.start();
    let id = agent.id().unwrap();
    let mut most = 0;
    let ended = until("the agent to end", Duration::from_secs(240), async || {
        let text = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes: u64 = line
            .and_then(|line| line.split_whitespace().next()?.parse().ok())
            .unwrap_or(0);
        most = most.max(kilobytes);
        Ok(match agent.try_wait()? {
            Some(status) => Probe::Found(status),
            None => Probe::NotYet(format!("{kilobytes} KiB")),
        })
    })
    .await
    .unwrap();
    assert!(ended.success());
    assert_eq!(world.finished().0, Outcome::Succeeded);
    let kept = world.state().lengths[&0];
    assert!(
        ((50 << 20)..(51 << 20)).contains(&kept),
        "{kept} bytes of the log were kept"
    );
    assert!(most > 0 && most < 64 << 10, "the agent took {most} KiB");
    assert!(
        world
            .steps()
            .iter()
            .all(|(_, outcome, ..)| *outcome == Outcome::Succeeded)
    );
}

// Archives.

fn layer(id: &str) -> WorkspaceLayer {
    WorkspaceLayer {
        id: id.into(),
        job: "before".into(),
        follows: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_that_lead_out_of_their_folder_are_refused() {
    let file = EntryType::Regular;
    let escaping: &[(&str, &[Entry<'_>])] = &[
        ("up", &[("../escaped", file, "", "x")]),
        ("up and down", &[("a/../../escaped", file, "", "x")]),
        ("absolute", &[("/tmp/towpath-escaped", file, "", "x")]),
        (
            "a link to above",
            &[("up", EntryType::Symlink, "..", ""), ("up/escaped", file, "", "x")],
        ),
        (
            "two links",
            &[
                ("a", EntryType::Symlink, ".", ""),
                ("a/b", EntryType::Symlink, "..", ""),
                ("b/escaped", file, "", "x"),
            ],
        ),
        ("a hard link", &[("stolen", EntryType::Link, "../secret", "")]),
        ("a device", &[("null", EntryType::Char, "", "")]),
    ];
    for (name, entries) in escaping {
        let world = World::new(vec![action(StepAction::AttachWorkspace { at: "in".into() })]);
        fs::create_dir_all(world.home().join("project")).unwrap();
        fs::write(world.home().join("project/secret"), "s").unwrap();
        world.state().layers.push((layer("l"), archive(entries)));
        let (outcome, message) = world.run().await;
        assert_eq!(outcome, Outcome::Failed, "{name}: {message:?}");
        assert!(
            message.as_deref().unwrap().contains("failed to unpack"),
            "{name}: {message:?}"
        );
        for path in [
            world.home().join("project/escaped"),
            world.home().join("escaped"),
            "/tmp/towpath-escaped".into(),
        ] {
            assert!(!exists(&path), "{name}: {} is there", path.display());
        }
        assert!(!exists(&world.home().join("project/in/stolen")), "{name}");
    }
    // Entries of caches belong below the working directory, the home or the root, and nowhere else.
    for (name, entries) in escaping
        .iter()
        .take(2)
        .chain(&[("elsewhere", &[("other/file", file, "", "x")][..])])
    {
        let world = World::new(vec![action(StepAction::RestoreCache {
            keys: vec!["v1".into()],
        })]);
        world.state().caches.push(("v1".into(), archive(entries)));
        let (outcome, message) = world.run().await;
        // On CircleCI a missing cache does not fail a job. A malicious one does.
        assert_ne!(outcome, Outcome::Succeeded, "{name}: {message:?}");
        assert!(!exists(&world.home().join("escaped")), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_test_results_that_is_too_large_is_named_with_the_limit() {
    let world = World::new(vec![
        run("mkdir out; printf '<testsuite/>' > out/r.xml; truncate -s 65M out/large.xml"),
        action(StepAction::StoreTestResults { path: "out".into() }),
    ]);
    assert_eq!(world.run().await, (Outcome::Succeeded, None));
    let log = world.log(1);
    assert!(log.contains("out/large.xml has 65 MiB"), "{log}");
    assert!(log.contains("64 MiB or more"), "{log}");
    assert!(log.contains("Uploaded 1 files"), "{log}");
    assert_eq!(world.state().test_results.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_comes_back_also_when_the_connection_breaks() {
    let cache = |key: &str| StepAction::SaveCache {
        paths: vec!["deps".into(), "~/.tool".into(), "absent".into()],
        key: key.into(),
    };
    let world = World::new(vec![
        run(
            "mkdir -p deps/a out ~/.tool; echo dep > deps/a/file; ln -s a/file deps/link; echo tool > ~/.tool/conf; echo made > out/made; head -c 3000000 /dev/urandom > deps/big; printf '<testsuite/>' > out/r.xml",
        ),
        action(cache("v1-{{ .Branch }}-x")),
        action(cache("v1-{{ .Branch }}-x")),
        action(StepAction::PersistToWorkspace {
            root: "out".into(),
            paths: vec!["*".into()],
        }),
        action(StepAction::StoreArtifacts {
            path: "out".into(),
            destination: Some("kept".into()),
        }),
        action(StepAction::StoreTestResults { path: "out".into() }),
    ]);
    for path in [
        "/agent/v1/caches",
        "/agent/v1/workspace",
        "/agent/v1/artifacts",
        "/agent/v1/test-results",
    ] {
        world.fault(path, [Fault::RequestLost, Fault::AnswerLost, Fault::Answered(503)]);
    }
    assert_eq!(world.run().await, (Outcome::Succeeded, None));
    let (cache, persisted, names) = {
        let state = world.state();
        assert_eq!(state.caches.len(), 1);
        let names: Vec<String> = state
            .artifacts
            .keys()
            .chain(state.test_results.keys())
            .cloned()
            .collect();
        (state.caches[0].clone(), state.persisted[&3].clone(), names)
    };
    assert!(names.contains(&"kept/made".to_string()), "{names:?}");
    assert!(names.iter().any(|name| name.ends_with("r.xml")), "{names:?}");
    assert!(
        world.log(2).contains("already exists for key: v1--x"),
        "{}",
        world.log(2)
    );

    let next = World::new(vec![
        action(StepAction::RestoreCache {
            keys: vec!["v2-".into(), "v1-".into()],
        }),
        action(StepAction::AttachWorkspace { at: "in".into() }),
        run("cat deps/link ~/.tool/conf in/made; stat -c %s deps/big"),
    ]);
    next.state().caches.push(cache);
    next.state().layers.push((layer("l"), persisted));
    next.fault(
        "/agent/v1/caches",
        [
            Fault::RequestLost,
            Fault::Answered(404),
            Fault::BreaksOff,
            Fault::BreaksOff,
        ],
    );
    next.fault("/agent/v1/workspace/", [Fault::BreaksOff]);
    assert_eq!(next.run().await, (Outcome::Succeeded, None));
    assert_eq!(next.log(2), "dep\ntool\nmade\n3000000\n");
    assert!(next.log(0).contains("Found a cache with key: v1--x"), "{}", next.log(0));

    // Two unrelated jobs wrote the same file.
    let both = World::new(vec![action(StepAction::AttachWorkspace { at: ".".into() })]);
    for id in ["a", "b"] {
        let entries = archive(&[("same", EntryType::Regular, "", id)]);
        both.state().layers.push((layer(id), entries));
    }
    let (outcome, message) = both.run().await;
    assert_eq!(outcome, Outcome::Failed);
    assert!(
        message
            .as_deref()
            .unwrap()
            .contains("Concurrent upstream jobs persisted the same file(s)"),
        "{message:?}"
    );
    // A refusal fails the step, with the server's message.
    let full = World::new(vec![
        run("echo x > file"),
        action(StepAction::StoreArtifacts {
            path: "file".into(),
            destination: None,
        }),
    ]);
    full.fault("/agent/v1/artifacts", [Fault::Answered(507)]);
    let (outcome, message) = full.run().await;
    assert_ne!(outcome, Outcome::Succeeded);
    assert!(message.as_deref().unwrap().contains("as told"), "{message:?}");
}

#[tokio::test]
async fn no_step_finds_the_agents_token() {
    // Build the token from two parts, so that the search does not find the script itself.
    let (one, two) = server::TOKEN.split_at(4);
    let script = format!(
        r#"
        echo "mine: $(env | grep -c {step_one}""{step_two})"
        found=0
        for file in /proc/[0-9]*/environ; do
            if tr '\0' '\n' < "$file" | grep -q {one}""{two}; then found=$((found + 1)); fi
        done 2> /dev/null
        echo "found: $found"
        if head -c 1 "/proc/$PPID/environ" > /dev/null 2>&1; then echo "the agent is open"; else echo "the agent is closed"; fi
        if head -c 0 "/proc/$PPID/mem" > /dev/null 2>&1; then echo "its memory is open"; else echo "its memory is closed"; fi
        "#,
        step_one = &server::STEP_TOKEN[..4],
        step_two = &server::STEP_TOKEN[4..],
    );
    let world = World::new(vec![run(&script)]);
    let ended = end(world.start_without_power()).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(
        world.log(0),
        "mine: 1\nfound: 0\nthe agent is closed\nits memory is closed\n"
    );
}

#[tokio::test]
async fn a_log_that_cannot_be_kept_fails_the_job_with_the_reason() {
    // Lose the log while the step runs: the agent stops the step and begins no other.
    let world = World::new(vec![run("echo working; sleep 600"), run("echo never")]);
    world.fault("/agent/v1/logs", [Fault::Answered(507)]);
    let (outcome, message) = world.run().await;
    assert_eq!(outcome, Outcome::Errored);
    let message = message.unwrap();
    assert!(
        message.contains("the log of a step could not be kept: as told"),
        "{message}"
    );
    assert_eq!(world.steps().len(), 1, "{:?}", world.steps());
    // Lose the log after the last step has ended: the job still does not succeed.
    let late = World::new(vec![run("echo done")]);
    late.fault("/agent/v1/logs", [Fault::Answered(503), Fault::Answered(507)]);
    let (outcome, message) = late.run().await;
    assert_eq!(outcome, Outcome::Errored, "{message:?}");
    // A short outage of the server fails nothing.
    let away = World::new(vec![run("echo done")]);
    away.fault("/agent/v1/logs", [Fault::Answered(503), Fault::Answered(500)]);
    assert_eq!(away.run().await.0, Outcome::Succeeded);
    assert_eq!(away.log(0), "done\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_reaches_nothing_but_the_jobs_own_folders_on_the_machine_itself() {
    let outside = tempfile::tempdir().unwrap();
    let path = outside.path().join("planted");
    let name = format!("root{}", path.display());
    let restore = || {
        action(StepAction::RestoreCache {
            keys: vec!["v1".into()],
        })
    };
    for (on_host, expected) in [(true, Outcome::Errored), (false, Outcome::Succeeded)] {
        let world = World::with(vec![restore()], |spec| spec.on_host = on_host);
        let entries = archive(&[(name.as_str(), EntryType::Regular, "", "planted")]);
        world.state().caches.push(("v1".into(), entries));
        let (outcome, message) = world.run().await;
        assert_eq!((outcome, path.exists()), (expected, !on_host), "{message:?}");
    }
    let save = action(StepAction::SaveCache {
        paths: vec![path.to_string_lossy().into_owned()],
        key: "v2".into(),
    });
    let world = World::with(vec![save], |spec| spec.on_host = true);
    let (outcome, message) = world.run().await;
    assert_eq!(outcome, Outcome::Failed);
    assert!(message.unwrap().contains("neither below the job's home"));
}
