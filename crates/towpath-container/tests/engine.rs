//! The client on a real container engine. The containers run this test program, which is static.
#![allow(clippy::unwrap_used, clippy::panic)]

use futures::{FutureExt, StreamExt, future::join_all};
use std::{future::Future, panic::AssertUnwindSafe, time::Duration};
use towpath_container::{
    ContainerClient, ContainerSpec, ContainerState, Creation, ErrorKind, Labels, LogLimit, Mount, MountSource, Network,
    Phase, PullFailure, ScratchImage, Tail, load_scratch_image,
    scratch::{FileContent, ScratchFile},
};
use towpath_testkit::{Probe, engine_answers, remove_instance, skipped, until};
use towpath_types::SecretString;

const BOUND: Duration = Duration::from_secs(40);
/// What the program in a container does: see [`a_program_in_a_container`].
const DO: &str = "TOWPATH_TEST_DO";
const INSTANCE: &str = "dev.towpath.instance";

/// Not a test by itself: what runs in the containers.
#[test]
fn a_program_in_a_container() {
    let Ok(order) = std::env::var(DO) else { return };
    match order.split_once(' ') {
        Some(("exit", code)) => std::process::exit(code.parse().unwrap()),
        Some(("print", lines)) => (1..=lines.parse().unwrap()).for_each(|line: u32| println!("line {line}")),
        _ => loop {
            std::thread::park();
        },
    }
}

struct World {
    client: ContainerClient,
    instance: String,
    image: String,
}

impl World {
    fn name(&self, what: &str) -> String {
        format!("{}-{what}", self.instance)
    }

    fn labels(&self) -> Labels {
        Labels::from([(INSTANCE.to_string(), self.instance.clone())])
    }

    fn spec(&self, order: &str) -> ContainerSpec {
        ContainerSpec {
            image: self.image.clone(),
            environment: vec![(DO.into(), SecretString::new(order.into()))],
            labels: self.labels(),
            log_limit: Some(LogLimit { mebibytes: 1 }),
            ..ContainerSpec::default()
        }
    }

    async fn run(&self, what: &str, order: &str) -> String {
        let name = self.name(what);
        assert_eq!(
            self.client.create(&name, &self.spec(order)).await.unwrap(),
            Creation::Made
        );
        self.client.start(&name).await.unwrap();
        name
    }

    async fn state(&self, name: &str) -> Option<ContainerState> {
        self.client.inspect(name).await.unwrap()
    }

    async fn names(&self) -> Vec<String> {
        let all = self.client.list(&[(INSTANCE, &self.instance)]).await.unwrap();
        let mut names: Vec<String> = all.into_iter().map(|container| container.name).collect();
        names.sort();
        names
    }
}

/// Runs `test` with its own instance, and removes what it left, even if it fails.
async fn in_world<F: Future<Output = ()>>(name: &str, test: impl FnOnce(std::sync::Arc<World>) -> F) {
    if let Err(absent) = engine_answers().await {
        return skipped(name, &absent);
    }
    let client = ContainerClient::connect().await.unwrap();
    let instance = format!("c{}", &uuid::Uuid::now_v7().simple().to_string()[20..]);
    let image = ScratchImage {
        repository: format!("towpath-test/{instance}"),
        files: vec![ScratchFile {
            path: "program".into(),
            mode: 0o755,
            content: FileContent::Copy(std::env::current_exe().unwrap()),
        }],
        entrypoint: [
            "/program",
            "a_program_in_a_container",
            "--exact",
            "--nocapture",
            "--quiet",
        ]
        .map(String::from)
        .to_vec(),
        ..ScratchImage::default()
    };
    let image = load_scratch_image(&client, image).await.unwrap().to_string();
    let world = std::sync::Arc::new(World {
        client,
        instance,
        image,
    });
    let result = AssertUnwindSafe(test(world.clone())).catch_unwind().await;
    remove_instance(&world.instance).await.unwrap();
    for _ in 0..2 {
        world.client.remove_image(&world.image).await.unwrap();
        assert!(!world.client.has_image(&world.image).await.unwrap());
    }
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_from_its_creation_to_its_removal() {
    in_world("a_container_from_its_creation", async |world| {
        let client = &world.client;
        let name = world.name("one");
        assert_eq!(world.state(&name).await, None);
        assert_eq!(client.create(&name, &world.spec("wait")).await.unwrap(), Creation::Made);
        assert_eq!(
            client.create(&name, &world.spec("wait")).await.unwrap(),
            Creation::NameTaken
        );
        assert_eq!(world.state(&name).await.unwrap().phase, Phase::Created);
        for _ in 0..2 {
            client.start(&name).await.unwrap();
        }
        let state = world.state(&name).await.unwrap();
        assert!(state.is_running() && state.address.is_some(), "{state:?}");
        assert_eq!(state.labels.get(INSTANCE), Some(&world.instance));
        assert_eq!(world.names().await, std::slice::from_ref(&name));
        assert_eq!(
            client
                .list(&[(INSTANCE, &world.instance), ("no-such", "")])
                .await
                .unwrap(),
            []
        );
        // As process 1 it ignores the signal, so it is killed after the grace period.
        for _ in 0..2 {
            client.stop(&name, Duration::from_secs(1)).await.unwrap();
        }
        let state = world.state(&name).await.unwrap();
        assert_eq!(
            (state.phase, state.exit_code, state.out_of_memory),
            (Phase::Ended, Some(137), false)
        );
        assert_eq!(client.wait(&name).await, Some(137));
        for _ in 0..2 {
            client.remove(&name).await.unwrap();
            assert_eq!(world.state(&name).await, None);
        }
        client.stop(&name, Duration::from_secs(1)).await.unwrap();
        assert_eq!(client.wait(&name).await, None);
        assert_eq!(world.names().await, Vec::<String>::new());

        let ended = world.run("ended", "exit 7").await;
        assert_eq!(client.wait(&ended).await, Some(7));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_make_it_at_once_one_does_and_all_see_it() {
    in_world("of_many_who_make_it", async |world| {
        for round in 0..5 {
            let name = world.name(&format!("round-{round}"));
            let spec = world.spec("wait");
            let made = (0..8).map(|_| world.client.ensure_created(&name, &spec, BOUND));
            for state in join_all(made).await {
                assert_eq!(state.unwrap().phase, Phase::Created);
            }
        }
        assert_eq!(world.names().await.len(), 5);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_remove_it_at_once_each_returns_when_it_is_gone() {
    in_world("of_many_who_remove_it", async |world| {
        for round in 0..5 {
            let name = world.run(&format!("round-{round}"), "wait").await;
            let gone = world.client.wait_until_removed(&name);
            let removals = join_all((0..8).map(|_| async {
                world.client.remove(&name).await.unwrap();
                assert_eq!(world.state(&name).await, None);
                // The name is free again.
                assert!(
                    world
                        .client
                        .list(&[(INSTANCE, &world.instance)])
                        .await
                        .unwrap()
                        .is_empty()
                );
            }));
            let (waited, _) = tokio::join!(tokio::time::timeout(BOUND, gone), removals);
            waited.expect("the wait to end with the removal");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_says_how_it_ended_and_is_killed_when_nobody_waits() {
    in_world("a_command_says", async |world| {
        let name = world.run("one", "wait").await;
        let program = |extra: &[&str]| -> Vec<String> {
            let words = [
                "/program",
                "a_program_in_a_container",
                "--exact",
                "--nocapture",
                "--quiet",
            ];
            words.iter().chain(extra).map(|word| (*word).to_string()).collect()
        };
        let listed = world.client.execute(&name, &program(&["--list"])).await.unwrap();
        assert_eq!(listed.exit_code, 0);
        assert!(
            listed.output.contains("a_program_in_a_container: test"),
            "{}",
            listed.output
        );
        let odd = vec!["/program".to_string(), "--no-such-option".into()];
        assert_ne!(world.client.execute(&name, &odd).await.unwrap().exit_code, 0);
        let nothing = world.client.execute(&name, &["/no-such-program".into()]).await;
        assert!(nothing.is_err() || nothing.unwrap().exit_code != 0);

        // It has the container's variable, so it never ends on its own.
        let mark = format!("--skip={}", world.instance);
        let endless = program(&[&mark]);
        let waiting = world.client.execute(&name, &endless);
        let running = until("the command to run", BOUND, async || {
            Ok(match processes_with(&mark) {
                0 => Probe::NotYet("it does not".into()),
                _ => Probe::Found(()),
            })
        });
        tokio::select! {
            ended = waiting => panic!("{ended:?}"),
            running = running => running.unwrap(),
        }
        until("the command to be killed", BOUND, async || {
            Ok(match processes_with(&mark) {
                0 => Probe::Found(()),
                count => Probe::NotYet(format!("{count} run")),
            })
        })
        .await
        .unwrap();
        assert!(world.state(&name).await.unwrap().is_running());
    })
    .await;
}

/// The number of processes on this machine that have `argument`.
fn processes_with(argument: &str) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let has = |entry: &std::fs::DirEntry| {
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|one| one == argument.as_bytes())
    };
    all.filter(has).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_container_prints() {
    in_world("what_a_container_prints", async |world| {
        let name = world.run("one", "print 1000").await;
        assert_eq!(world.client.wait(&name).await, Some(0));
        let followed: Vec<_> = world.client.output(&name, Tail::All, true).collect().await;
        let all: Vec<u8> = followed.into_iter().flat_map(|piece| piece.unwrap()).collect();
        let all = String::from_utf8(all).unwrap();
        assert!(all.contains("line 1\nline 2\n") && all.contains("line 1000\n"), "{all}");
        let last = world.client.last_output(&name, 64).await.unwrap();
        let (_, whole) = all[all.len() - 64..].split_once('\n').unwrap();
        assert_eq!(String::from_utf8(last).unwrap(), whole, "whole lines only");
        let lines = world.client.last_lines(&name, 3, 4096).await.unwrap();
        assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 3);
        world.client.remove(&name).await.unwrap();
        assert!(world.client.last_output(&name, 64).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_and_volumes_are_made_once_and_removed_twice() {
    in_world("networks_and_volumes", async |world| {
        let client = &world.client;
        let network = world.name("network");
        let labels = world.labels();
        for made in join_all((0..4).map(|_| client.ensure_network(&network, &labels))).await {
            made.unwrap();
        }
        client.ensure_network(&network, &labels).await.unwrap();
        let volume = world.name("volume");
        assert!(!client.has_volume(&volume).await.unwrap());
        let spec = ContainerSpec {
            network: Network::Named {
                name: network.clone(),
                aliases: vec!["other".into()],
            },
            mounts: vec![Mount {
                source: MountSource::Volume {
                    name: volume.clone(),
                    labels: labels.clone(),
                },
                target: "/data".into(),
                read_only: false,
            }],
            ..world.spec("wait")
        };
        let name = world.name("one");
        assert_eq!(client.create(&name, &spec).await.unwrap(), Creation::Made);
        client.start(&name).await.unwrap();
        assert!(client.remove_network(&network).await.is_err(), "a container is in it");
        assert!(client.remove_volume(&volume).await.is_err(), "a container has it");
        assert!(client.has_volume(&volume).await.unwrap());
        assert_eq!(
            client.volumes(&[(INSTANCE, &world.instance)]).await.unwrap(),
            std::slice::from_ref(&volume)
        );
        assert!(client.has_path(&name, "/data").await.unwrap());
        assert!(!client.has_path(&name, "/no-such").await.unwrap());
        assert!(client.has_path(&world.name("nobody"), "/").await.is_err());
        client.remove(&name).await.unwrap();
        for _ in 0..2 {
            client.remove_volume(&volume).await.unwrap();
            client.remove_network(&network).await.unwrap();
        }
        assert_eq!(
            client.volumes(&[(INSTANCE, &world.instance)]).await.unwrap(),
            Vec::<String>::new()
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_say_what_can_never_be() {
    in_world("errors_say", async |world| {
        let client = &world.client;
        let no_image = ContainerSpec {
            image: "towpath-test/no-such:1".into(),
            ..world.spec("wait")
        };
        let error = client.create(&world.name("no-image"), &no_image).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.status()),
            (ErrorKind::Failed, Some(404)),
            "{error:?}"
        );
        for (what, spec) in [
            (
                "no-user",
                ContainerSpec {
                    user: Some("nobody-of-that-name".into()),
                    ..world.spec("wait")
                },
            ),
            (
                "no-program",
                ContainerSpec {
                    entrypoint: Some(vec!["/no-such-program".into()]),
                    ..world.spec("wait")
                },
            ),
        ] {
            let name = world.name(what);
            assert_eq!(client.create(&name, &spec).await.unwrap(), Creation::Made);
            let error = client.start(&name).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Impossible, "{what}: {error:?}");
        }
        let nobody_listens = "127.0.0.1:1/app:1".parse().unwrap();
        let error = client.pull(&nobody_listens, None).await.unwrap_err();
        assert_eq!(error.failure(), PullFailure::Failed, "{error:?}");
        let error = client.find_in_registry(&nobody_listens, None).await.unwrap_err();
        assert_eq!(error.failure(), PullFailure::Failed, "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn an_engine_says_which_it_is() {
    if let Err(absent) = engine_answers().await {
        return skipped("an_engine_says_which_it_is", &absent);
    }
    let info = ContainerClient::connect().await.unwrap().info().await.unwrap();
    assert!(
        !info.id.is_empty() && info.processors > 0 && info.memory_bytes > 1 << 26,
        "{info:?}"
    );
    assert_eq!(ContainerClient::connect().await.unwrap().info().await.unwrap(), info);
}

#[tokio::test]
async fn without_an_engine() {
    let nobody = ContainerClient::at("http://127.0.0.1:1").unwrap();
    let error = nobody.info().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.status()),
        (ErrorKind::Unreachable, None),
        "{error:?}"
    );
    assert!(ContainerClient::at("not an address").is_err());
}
