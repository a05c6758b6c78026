//! A disk of 64 MB: the job that fills it fails with that reason, and nothing else is lost.

use crate::world::{self, PROJECT};
use std::{path::Path, process::Command, time::Duration};
use towpath_testkit::{
    Absent, Api, Pipeline, Probe, Repository, Towpath, engine_answers, let_everybody_pass, program, skipped, until,
};

const BOUND: Duration = Duration::from_secs(90);
const PATIENCE: Duration = Duration::from_secs(60);

/// A small file system of its own.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Result<Self, Absent> {
        program("mount")?;
        let disk = Self(tempfile::tempdir().unwrap());
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64m,mode=0700", "towpath-small-disk"])
            .arg(disk.0.path())
            .output()
            .unwrap();
        match mounted.status.success() {
            true => Ok(disk),
            false => {
                let why = String::from_utf8_lossy(&mounted.stderr).trim().to_string();
                Err(Absent(format!(
                    "a disk of 64 MB cannot be mounted (are you root?): {why}"
                )))
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A server that still runs keeps the mount until it ends.
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

fn config(steps: &str) -> String {
    format!(
        "version: 2.1\njobs:\n  work:\n    machine: true\n    steps:\n{steps}workflows:\n  main: {{jobs: [work]}}\n"
    )
}

/// Pushes a commit with this configuration to a branch of its own. Returns the commit's pipeline.
async fn pushed(server: &Towpath, repository: &Repository, branch: &str, config: &str) -> Pipeline {
    repository.write(".circleci/config.yml", config).unwrap();
    let commit = repository.commit(branch).await.unwrap();
    repository.push(&format!("HEAD:refs/heads/{branch}")).await.unwrap();
    let api = server.api().unwrap();
    api.pipeline_of(PROJECT, branch, &commit, BOUND).await.unwrap()
}

/// How the only job of a pipeline ended: CircleCI's status, its number, and the reason.
async fn end(server: &Towpath, pipeline: &Pipeline) -> (String, i64, String) {
    let api: Api = server.api().unwrap();
    let workflow = api.workflow_of(pipeline, "main").await.unwrap();
    let ended = until("the job's end", BOUND, async || {
        let job = api.jobs(&workflow.id).await?.remove(0);
        Ok(match (job.status.as_str(), job.job_number) {
            ("success" | "failed" | "infrastructure_fail" | "canceled", Some(number)) => {
                Probe::Found((job.status, number))
            }
            (status, _) => Probe::NotYet(status.to_string()),
        })
    });
    let (status, number) = match ended.await {
        Ok(ended) => ended,
        Err(error) => panic!("{error:#}\n{}", server.log_tail(30)),
    };
    let detail: serde_json::Value = api.get(&format!("/api/towpath/jobs/{PROJECT}/{number}")).await.unwrap();
    let message = detail["job"]["message"].as_str().unwrap_or_default().to_string();
    (status, number, message)
}

/// Removes the logs of jobs, as an administrator of a full disk does.
fn make_room(data: &Path) {
    std::fs::remove_dir_all(data.join("logs/jobs")).unwrap();
    std::fs::create_dir(data.join("logs/jobs")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_the_job_that_meets_it_and_loses_no_push() {
    let name = "a_full_disk_fails_the_job_that_meets_it_and_loses_no_push";
    if let Err(absent) = engine_answers().await {
        return skipped(name, &absent);
    }
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        // No script can install the right to mount, so this is no failure with `CI=true` either.
        Err(absent) => {
            eprintln!("SKIPPED: {name}: {}", absent.0);
            return;
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let data = disk.path().join("data");
    let mut server = world::server(folder.path(), &data, 0).await;
    let fits = config("      - run: echo small\n");
    let repository = world::repository(folder.path(), &server, &fits).await;

    // Its log does not fit.
    let prints = config("      - run: head -c 90000000 /dev/zero | tr '\\0' x | fold -w 99\n");
    let pipeline = pushed(&server, &repository, "prints", &prints).await;
    let (status, _, why) = end(&server, &pipeline).await;
    assert_eq!(status, "infrastructure_fail", "{why}");
    assert!(
        why.contains("is full") || why.contains("No space left on device"),
        "the reason is said: {why}"
    );
    make_room(&data);

    // What it stores does not fit.
    let large = folder.path().join("large");
    std::fs::write(&large, vec![b'x'; 80 << 20]).unwrap();
    let_everybody_pass(folder.path()).unwrap();
    let stores = config(&format!("      - store_artifacts: {{path: {}}}\n", large.display()));
    let pipeline = pushed(&server, &repository, "stores", &stores).await;
    let (status, _, why) = end(&server, &pipeline).await;
    assert_ne!(status, "success");
    assert!(why.contains("is full"), "the reason is said: {why}");

    // The next one has room again.
    let pipeline = pushed(&server, &repository, "fits", &fits).await;
    let (status, _, why) = end(&server, &pipeline).await;
    assert_eq!(status, "success", "{why}");

    // Another program fills the last byte. A push is either refused, or gets its pipeline as soon as there is room.
    let ballast = disk.path().join("ballast");
    let filled = Command::new("dd")
        .args(["if=/dev/zero", "bs=4k"])
        .arg(format!("of={}", ballast.display()))
        .output()
        .unwrap();
    assert!(!filled.status.success(), "the disk is full");
    let commit = world::commit(repository.directory(), &data, "while it is full").await;
    let refspec = format!("{commit}:refs/heads/while-full");
    let push = ["push", "towpath", &refspec];
    let tried = world::git(repository.directory(), &data, &push, PATIENCE);
    let was_taken = tried.await.is_some_and(|output| output.status.success());
    std::fs::remove_file(&ballast).unwrap();
    let api = server.api().unwrap();
    if was_taken {
        api.pipeline_of(PROJECT, "while-full", &commit, BOUND).await.unwrap();
    }
    let again = config("      - run: echo small again\n");
    let pipeline = pushed(&server, &repository, "afterwards", &again).await;
    let (status, _, why) = end(&server, &pipeline).await;
    assert_eq!(status, "success", "{why}");
    let aside: serde_json::Value = api.get("/api/towpath/work").await.unwrap();
    assert_eq!(aside, serde_json::json!([]), "nothing was set aside");
    server.stop().await.unwrap();
}
