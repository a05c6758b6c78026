//! What a job on this machine with a user of its own can do, and what it leaves.

use super::{AGENT, FEW_PROCESSES, Kind, new_id, run};
use std::{path::Path, sync::Arc};
use tokio::net::UnixListener;
use towpath_engines::{EnvironmentKind, EnvironmentState, HostEngine, HostOptions};
use towpath_types::NodeId;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_a_user_of_its_own_reaches_nothing_of_the_server_or_of_others() {
    run("a_job_with_a_user_of_its_own", Kind::OwnUser, async |world| {
        let data = world.folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::write(data.join("token"), "the owner's").unwrap();
        let (one, other) = (new_id(), new_id());
        world.start(one).await;
        world.start(other).await;
        let mut agent = world.agent(one).await;
        let mut neighbour = world.agent(other).await;
        let (own, theirs) = (agent.ask("ids").await, neighbour.ask("ids").await);
        assert_ne!(own, theirs, "each has a user of its own");
        for ids in [&own, &theirs] {
            let id: u32 = ids.split(' ').next().unwrap().parse().unwrap();
            let users = world.users();
            assert!((users.first..users.first + users.count).contains(&id), "{ids}");
            assert_eq!(
                *ids,
                format!("{id} {id} {id} {id}, in groups: {id}, no new privileges: true")
            );
        }
        assert_eq!(agent.ask("name").await, "circleci");

        let refused = "permission denied";
        let read = |path: &Path| format!("read {}", path.display());
        assert_eq!(agent.ask(&read(&data.join("token"))).await, refused);
        assert_eq!(agent.ask(&read(&data)).await, refused);
        let home = |id: NodeId| world.jobs(&world.instance).join(id.to_string()).join("home");
        assert_eq!(
            neighbour
                .ask(&format!("write {}", home(other).join("secret").display()))
                .await,
            "done"
        );
        assert_eq!(neighbour.ask(&read(&home(other).join("secret"))).await, "done");
        assert_eq!(agent.ask(&read(&home(other).join("secret"))).await, refused);
        assert_eq!(agent.ask(&read(&home(other))).await, refused);
        // What the engine writes down about a job is not the job's to change.
        let place = world.jobs(&world.instance).join(one.to_string());
        for name in ["agent.pid", "user", "passwd", "another"] {
            let answer = agent.ask(&format!("write {}", place.join(name).display())).await;
            assert_eq!(answer, refused, "{name}");
        }

        let their_pid = neighbour.name.split(' ').next().unwrap().to_string();
        for pid in [std::process::id().to_string(), their_pid] {
            assert_eq!(
                agent.ask(&read(Path::new(&format!("/proc/{pid}/environ")))).await,
                refused
            );
            assert_eq!(agent.ask(&format!("signal {pid}")).await, refused);
        }
        assert_eq!(world.state(other).await, EnvironmentState::Running);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_in_the_engines_group_only_if_it_uses_the_engine() {
    run("a_job_is_in_the_engines_group", Kind::OwnUser, async |world| {
        let socket = world.engine_socket();
        let _listener = UnixListener::bind(&socket).unwrap();
        std::os::unix::fs::chown(&socket, None, Some(84_999)).unwrap();
        std::fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o660)).unwrap();
        for (uses_engine, answer) in [(true, "done"), (false, "permission denied")] {
            let id = new_id();
            let mut request = world.request(id);
            request.kind = EnvironmentKind::Host { uses_engine };
            world.engine().start(&request).await.unwrap();
            let mut agent = world.agent(id).await;
            let groups = agent.ask("ids").await;
            assert_eq!(groups.contains("84999"), uses_engine, "{groups}");
            assert_eq!(agent.ask(&format!("connect {}", socket.display())).await, answer);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_bomb_ends_at_its_own_jobs_limit_and_all_of_it_is_killed() {
    run("a_fork_bomb", Kind::OwnUser, async |world| {
        let (bomb, other) = (new_id(), new_id());
        world.start(bomb).await;
        world.start(other).await;
        let mut agent = world.agent(bomb).await;
        let answer = agent.ask("bomb").await;
        let (started, why) = answer.split_once(' ').unwrap();
        let started: u64 = started.parse().unwrap();
        assert!(started > FEW_PROCESSES / 2 && started < FEW_PROCESSES, "{answer}");
        assert!(why.contains("Resource temporarily unavailable"), "{answer}");
        // The limit is the job's own.
        let mut neighbour = world.agent(other).await;
        assert!(neighbour.ask("hidden").await.parse::<u32>().is_ok());

        let user: u32 = agent.ask("ids").await.split(' ').next().unwrap().parse().unwrap();
        assert!(processes_of(user) > 20);
        world.engine().stop(&bomb).await.unwrap();
        assert_eq!(processes_of(user), 0);
        assert_eq!(world.state(other).await, EnvironmentState::Running);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_job_that_hides_its_processes_and_files() {
    run("nothing_is_left_of_a_job", Kind::OwnUser, async |world| {
        let id = new_id();
        world.start(id).await;
        let mut agent = world.agent(id).await;
        let user: u32 = agent.ask("ids").await.split(' ').next().unwrap().parse().unwrap();
        // It has no environment, no name of the job, and a session of its own.
        assert!(agent.ask("hidden").await.parse::<u32>().is_ok());
        let left = Path::new("/tmp").join(format!("towpath-test-left-{user}"));
        assert_eq!(agent.ask(&format!("write {}", left.display())).await, "done");
        assert!(processes_of(user) >= 2);
        world.close();
        world.open().await;
        world.engine().stop(&id).await.unwrap();
        assert_eq!(processes_of(user), 0);
        assert!(!left.exists());
        assert_eq!(world.list().await, []);
    })
    .await;
}

/// How many living processes have the user.
fn processes_of(user: u32) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let wanted = format!("Uid:\t{user}\t");
    all.filter_map(|entry| std::fs::read_to_string(entry.path().join("status")).ok())
        .filter(|status| status.contains(&wanted) && !status.contains("State:\tZ"))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_only_the_server_can_reach_is_copied_and_a_closed_folder_is_refused() {
    run(
        "an_agent_that_only_the_server_can_reach",
        Kind::OwnUser,
        async |world| {
            let private = world.folder.path().join("private");
            std::fs::create_dir(&private).unwrap();
            std::fs::set_permissions(&private, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
            let binary = private.join("agent");
            std::fs::copy(AGENT, &binary).unwrap();
            let options = HostOptions {
                agent_binary: binary,
                ..world.host_options(&world.instance)
            };
            world.engine = Some(Arc::new(HostEngine::new(options).unwrap()));
            let id = new_id();
            world.start(id).await;
            assert_eq!(world.agents(id).await, 1);
            assert_eq!(world.list().await, [id], "the copy is no job");

            let options = HostOptions {
                directory: private.join("deep").join("jobs").join("here"),
                ..world.host_options(&world.instance)
            };
            let refused = HostEngine::new(options).unwrap_err().to_string();
            assert!(refused.contains("private/deep/jobs/here` as the user"), "{refused}");
            assert!(refused.contains("--host-jobs-dir"), "{refused}");
        },
    )
    .await;
}
