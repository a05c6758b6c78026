//! The demo of a repository with several images: one of three services changes, and only its pods are replaced.

use crate::demo::{Example, Target, clean_up, folder, part, prepare, say, start};
use anyhow::{Context, Result, ensure};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};
use towpath_testkit::{Api, Gate, Plan, Probe, Repository, Towpath, Workflow, pods, until};

const POLLS: Example = Example {
    project: "polls",
    folder: "demo-monorepo",
    repositories: &["polls/vote", "polls/tally", "polls/result"],
};
/// How long to wait for anything.
const BOUND: Duration = Duration::from_secs(300);
const SERVICES: [&str; 3] = ["vote", "tally", "result"];

/// The pods of each Deployment, as [`pods`] has them.
type Pods = BTreeMap<String, BTreeSet<(String, String)>>;

struct Demo {
    server: Towpath,
    repository: Repository,
    api: Api,
    http: reqwest::Client,
}

/// Removes what the demo left, except cargo's build directory.
pub async fn clean() -> Result<()> {
    clean_up(POLLS).await
}

/// Runs the demo, and removes everything again.
pub async fn demo() -> Result<()> {
    let began = Instant::now();
    let mut parts = Vec::new();
    let options = part(
        &mut parts,
        1,
        "find a container engine, remove what an earlier run left",
        prepare(POLLS, Target::Local),
    )
    .await?;
    let server = part(&mut parts, 2, "`towpath up`", start(options)).await?;
    let message = "Polls: vote, tally and result";
    let repository = Repository::of_project(&folder(POLLS)?.join("work"), POLLS.project, message).await?;
    let mut demo = Demo {
        api: server.api()?,
        server,
        repository,
        http: reqwest::Client::new(),
    };
    let result = demo.walk(&mut parts).await;
    if result.is_err() {
        eprintln!("\nThe server's log ends with:\n{}", demo.server.log_tail(20));
    }
    demo.server.stop().await?;
    clean().await?;
    result?;
    println!(
        "\nThree images, one of which changed, in {:.1} s:",
        began.elapsed().as_secs_f64()
    );
    for (number, (what, took)) in (1..).zip(&parts) {
        println!("  {number}. {:>6.1} s  {what}", took.as_secs_f64());
    }
    Ok(())
}

impl Demo {
    async fn walk(&self, parts: &mut Vec<(String, Duration)>) -> Result<()> {
        part(
            parts,
            3,
            "connect the repository, push it, and deploy three images",
            self.first_release(),
        )
        .await?;
        part(parts, 4, "vote once", self.vote()).await?;
        part(parts, 5, "change one service, and deploy", self.change_one()).await?;
        part(parts, 6, "go back", self.go_back()).await?;
        part(
            parts,
            7,
            "build one image and deploy it, from the laptop",
            self.laptop(),
        )
        .await
    }

    async fn towpath(&self, arguments: &[&str]) -> Result<String> {
        println!("   $ towpath {}", arguments.join(" "));
        self.server.run(self.repository.directory(), arguments, &[]).await
    }

    async fn first_release(&self) -> Result<()> {
        say(self.towpath(&["init"]).await?);
        let (workflow, gate) = self.push().await?;
        let plan = plan_of(&gate)?;
        let names: Vec<&str> = plan.images.keys().map(String::as_str).collect();
        ensure!(
            names == ["result", "tally", "vote"],
            "the plan has the images {names:?}"
        );
        self.approve(&workflow, &gate).await
    }

    /// Pushes the branch, and waits until its pipeline is on hold.
    async fn push(&self) -> Result<(Workflow, Gate)> {
        println!("   $ git push towpath main");
        self.repository.push("main").await?;
        let head = self.repository.head().await?;
        let pipeline = self.api.pipeline_of(POLLS.project, "main", &head, BOUND).await?;
        let workflow = self.api.workflow_of(&pipeline, "test-build-deploy").await?;
        for job in ["test", "build-vote", "build-tally", "build-result"] {
            self.api
                .job_until(POLLS.project, &workflow, job, &["success"], BOUND)
                .await?;
            say(format!("{job}: success"));
        }
        let gate = self.api.gate_of(POLLS.project, &workflow, "hold-dev", BOUND).await?;
        Ok((workflow, gate))
    }

    /// Shows a gate's plan, approves exactly that plan, and waits for the deployment.
    async fn approve(&self, workflow: &Workflow, gate: &Gate) -> Result<()> {
        let plan = plan_of(gate)?;
        for (name, image) in &plan.images {
            say(match plan.previous_images.get(name) {
                Some(previous) if previous == image => format!("{name}: {image} (unchanged)"),
                Some(previous) => format!("{name}: {previous}\n  -> {image}"),
                None => format!("{name}: {image} (new)"),
            });
        }
        for change in &plan.changes {
            say(format!("{} {} {}", change.action, change.kind, change.name));
        }
        let (gate, plan) = (gate.job.to_string(), plan.id.to_string());
        self.towpath(&["approve", &gate, "--plan", &plan]).await?;
        let deployed = self
            .api
            .job_until(POLLS.project, workflow, "deploy-dev", &["success"], BOUND);
        deployed.await.map(drop)
    }

    /// The body of an answer of the application, once it has `text`.
    async fn page(&self, path: &str, text: &str) -> Result<String> {
        let environment = self.api.environment(POLLS.project, "dev").await?;
        let address = environment.addresses.first().cloned().context("dev has no address")?;
        let url = format!("{address}{path}");
        until(format!("`{text}` at {url}"), BOUND, async || {
            let answer = match self.http.get(&url).send().await {
                Ok(answer) => answer.text().await,
                Err(error) => Err(error),
            };
            Ok(match answer {
                Ok(body) if body.contains(text) => Probe::Found(body),
                Ok(body) => Probe::NotYet(body),
                Err(error) => Probe::NotYet(error.to_string()),
            })
        })
        .await
    }

    async fn vote(&self) -> Result<()> {
        self.page("/", "Cats or dogs?").await?;
        let environment = self.api.environment(POLLS.project, "dev").await?;
        let address = environment.addresses.first().cloned().context("dev has no address")?;
        let answer = self.http.post(format!("{address}/cats")).send().await;
        let answer = answer.context("nobody took the vote")?.text().await?;
        ensure!(answer == "cats 1\n", "the vote was answered with {answer:?}");
        self.page("/result", "cats 1").await?;
        say("/result: cats 1");
        Ok(())
    }

    async fn pods(&self) -> Result<Pods> {
        let instance = Towpath::instance(self.server.data_dir()).context("the server has no instance")?;
        let pods = pods(&instance).await?;
        let names: BTreeSet<&str> = pods.keys().map(String::as_str).collect();
        ensure!(names == BTreeSet::from(SERVICES), "there are pods of {names:?}");
        Ok(pods)
    }

    async fn change_one(&self) -> Result<()> {
        self.repository
            .replace("vote/src/main.rs", "Cats or dogs?", "Cats or dogs, finally?")?;
        self.repository.commit("Ask once more").await?;
        let (workflow, gate) = self.push().await?;
        let plan = plan_of(&gate)?;
        let is_other = |(name, image): &(&String, &String)| plan.previous_images.get(*name) != Some(*image);
        let images: Vec<_> = plan
            .images
            .iter()
            .filter(is_other)
            .map(|(name, _)| name.as_str())
            .collect();
        ensure!(images == ["vote"], "the plan changes the images {images:?}");
        let changes = plan
            .changes
            .iter()
            .map(|change| format!("{}/{}", change.kind, change.name));
        let changes: Vec<String> = changes.collect();
        ensure!(changes == ["Deployment/vote"], "the plan changes {changes:?}");
        let before = self.pods().await?;
        self.approve(&workflow, &gate).await?;
        self.page("/", "Cats or dogs, finally?").await?;
        self.only_vote_rolled(&before).await
    }

    async fn go_back(&self) -> Result<()> {
        let before = self.pods().await?;
        say(self.towpath(&["rollback", "dev"]).await?);
        self.page("/", "Cats or dogs?").await?;
        self.only_vote_rolled(&before).await
    }

    async fn laptop(&self) -> Result<()> {
        let before = self.pods().await?;
        let said = self.towpath(&["build", "vote"]).await?;
        let pushed = said.lines().filter(|line| line.starts_with("pushed "));
        say(pushed.collect::<Vec<_>>().join("\n"));
        self.towpath(&["deploy", "dev", "latest"]).await?;
        self.page("/", "Cats or dogs, finally?").await?;
        self.only_vote_rolled(&before).await?;
        say(self.towpath(&["status", "dev"]).await?);
        Ok(())
    }

    /// Waits until the pods of `vote` are others than `before`, and checks that all others are the same and never restarted.
    async fn only_vote_rolled(&self, before: &Pods) -> Result<()> {
        let after = until("only new pods of `vote`", BOUND, async || {
            let pods = self.pods().await?;
            let (old, new) = (before.get("vote"), pods.get("vote"));
            let is_new = old.zip(new).is_some_and(|(old, new)| old.is_disjoint(new));
            Ok(match is_new {
                true => Probe::Found(pods),
                false => Probe::NotYet(format!("{new:?}")),
            })
        })
        .await?;
        for service in ["tally", "result"] {
            let (old, new) = (before.get(service), after.get(service));
            ensure!(old == new, "the pods of `{service}` were {old:?}, and now are {new:?}");
        }
        self.page("/result", "cats 1").await?;
        say("vote has a new pod; those of tally and result run on, and tally still has the vote");
        Ok(())
    }
}

fn plan_of(gate: &Gate) -> Result<&Plan> {
    let plan = gate.plan.as_ref();
    let plan = plan.with_context(|| format!("the gate has no plan: {:?}", gate.plan_error))?;
    ensure!(
        plan.blockers.is_empty(),
        "the plan cannot be carried out: {:?}",
        plan.blockers
    );
    Ok(plan)
}
