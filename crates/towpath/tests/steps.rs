//! What steps of jobs on this machine do with a real server: git, secrets, results, and files with odd names.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;
use towpath_testkit::{Repository, ServerOptions, Towpath, engine_answers, remove_instance, skipped};

const BOUND: Duration = Duration::from_secs(120);

/// A server and a repository that it knows.
struct World {
    folder: tempfile::TempDir,
    server: Towpath,
    repository: Repository,
}

impl World {
    async fn start(name: &str, config: &str) -> Option<Self> {
        if let Err(absent) = engine_answers().await {
            skipped(name, &absent);
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let options = ServerOptions {
            binary: env!("CARGO_BIN_EXE_towpath").into(),
            data_dir: folder.path().join("data"),
            listen: "127.0.0.1:0".into(),
            host_environment: Vec::new(),
            variables: Vec::new(),
            log: folder.path().join("server.log"),
            kubeconfig: None,
        };
        let server = Towpath::start(options).await.unwrap();
        let files = [(".circleci/config.yml", config)];
        let repository = Repository::of_files(folder.path(), "app", &files).await.unwrap();
        server.run(repository.directory(), &["init"], b"").await.unwrap();
        Some(Self {
            folder,
            server,
            repository,
        })
    }

    /// Pushes `what`, and waits until `job` of its only workflow succeeds. Returns the job's number and log.
    async fn run(&self, what: &str, job: &str) -> (i64, String) {
        self.repository.push(what).await.unwrap();
        let head = self.repository.head().await.unwrap();
        let api = self.server.api().unwrap();
        let pipelines = api.pipelines("app").await.unwrap();
        let pipeline = pipelines.iter().find(|pipeline| pipeline.vcs.revision == head).unwrap();
        let workflow = api.workflow_of(pipeline, "main").await.unwrap();
        let ended = api.job_until("app", &workflow, job, &["success"], BOUND).await;
        let ended = ended.unwrap_or_else(|error| panic!("{error:#}\n{}", self.server.log_tail(30)));
        let number = ended.job_number.unwrap();
        let number_text = number.to_string();
        let arguments = ["logs", number_text.as_str()];
        let log = self.server.run(self.repository.directory(), &arguments, b"").await;
        (number, log.unwrap())
    }

    async fn get(&self, path: &str) -> serde_json::Value {
        self.server.api().unwrap().get(path).await.unwrap()
    }

    async fn end(mut self) {
        let instance = Towpath::instance(self.server.data_dir()).unwrap();
        self.server.stop().await.unwrap();
        remove_instance(&instance).await.unwrap();
    }
}

const GIT: &str = r#"
version: 2.1
jobs:
  fetch:
    machine: true
    steps:
      - checkout
      - run: echo "on [$CIRCLE_BRANCH]"; git symbolic-ref HEAD; git log -1 --format=%s
      - run: |
          git fetch --quiet origin && git fetch --quiet --tags origin
          git rev-parse --verify --quiet refs/tags/v1 > /dev/null && echo the tag is there
          git submodule --quiet sync && git submodule --quiet update --init
          cat lib/name
          git clone --quiet --depth 1 "$CIRCLE_REPOSITORY_URL" again && ls again
      - run: |
          if git push origin HEAD:refs/heads/other; then exit 1; fi
      - run: |
          if git fetch "${CIRCLE_REPOSITORY_URL%app.git}nosuch.git"; then exit 1; fi
workflows:
  main:
    jobs: [fetch]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn git_in_a_step_reads_the_servers_repositories_and_writes_none() {
    let name = "git_in_a_step_reads_the_servers_repositories_and_writes_none";
    let Some(world) = World::start(name, GIT).await else {
        return;
    };
    let library = Repository::of_files(world.folder.path(), "lib", &[("name", "a library\n")])
        .await
        .unwrap();
    world.server.run(library.directory(), &["init"], b"").await.unwrap();
    library.push("HEAD").await.unwrap();
    let link = format!("160000,{},lib", library.head().await.unwrap());
    world
        .repository
        .write(".gitmodules", "[submodule \"lib\"]\n\tpath = lib\n\turl = ../lib.git\n")
        .unwrap();
    world.repository.git(&["add", "--all"]).await.unwrap();
    world
        .repository
        .git(&["update-index", "--add", "--cacheinfo", &link])
        .await
        .unwrap();
    world
        .repository
        .git(&["commit", "--quiet", "--message", "Use the library"])
        .await
        .unwrap();
    let (_, log) = world.run("HEAD", "fetch").await;
    assert!(log.contains("on [main]\nrefs/heads/main\nUse the library\n"), "{log}");
    assert!(log.contains("a library\n"), "{log}");
    assert!(log.contains("a job cannot push to Towpath's repositories"), "{log}");
    assert!(log.contains("there is no project `nosuch`"), "{log}");

    // A branch may have a name that `git checkout` does not take.
    world.repository.git(&["tag", "v1"]).await.unwrap();
    world.repository.push("refs/tags/v1").await.unwrap();
    world
        .repository
        .git(&["commit", "--quiet", "--allow-empty", "--message", "On an odd branch"])
        .await
        .unwrap();
    let (_, log) = world.run("HEAD:refs/heads/HEAD", "fetch").await;
    assert!(log.contains("on [HEAD]\nrefs/heads/HEAD\n"), "{log}");
    // git prints a warning in between that the name is ambiguous.
    assert!(log.contains("\nOn an odd branch\n"), "{log}");
    assert!(log.contains("the tag is there"), "{log}");
    world.end().await;
}

/// A value with every character that programs quote.
const SECRET: &str = "sw0rd\"fi'sh\\and$more";

const PRINTS: &str = r#"
version: 2.1
jobs:
  print:
    machine: true
    steps:
      - run: |
          printf %s "$PASSWORD" | head -c 8; sleep 0.7; printf '%s\n' "${PASSWORD:8}"
          ( set -x; true "$PASSWORD" ) 2>&1
          printf '%q\n' "$PASSWORD"; declare -p PASSWORD; export -p | grep PASSWORD
          printf '%s' "$PASSWORD" | base64 -w 9; echo
          printf 'user:%s' "$PASSWORD" | base64
          printf '%s' "$PASSWORD" | od -An -tx1
          printf '%s' "$PASSWORD" | od -An -tx1 | tr -d ' \n' | tr a-f A-F; echo
          echo end of the forms
      - run: |
          mkdir -p results 'out/C# docs'
          printf '<testsuite><testcase name="t" file="./spec/t.rb"><failure>it was &quot;%s&quot;</failure></testcase></testsuite>' \
            "$(printf %s "$PASSWORD" | sed 's/"/\&quot;/g')" > results/good.xml
          printf '<testsuite><testcase name="caf\xe9"/><testcase na' > results/odd.xml
          echo no results > results/other.xml
          for name in 'a#b' '100%25' 'what?' "it's \"q\"" 'C# docs/x;y&z' $'latin\xe9'; do echo 1 > "out/$name"; done
          echo 1 > "out/$PASSWORD"
      - store_test_results: {path: results}
      - store_artifacts: {path: out, destination: out}
workflows:
  main:
    jobs:
      - print: {context: vault}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_stays_hidden_and_every_file_is_found() {
    let name = "a_secret_stays_hidden_and_every_file_is_found";
    let Some(world) = World::start(name, PRINTS).await else {
        return;
    };
    let set = ["context", "set", "vault", "PASSWORD"];
    world
        .server
        .run(world.repository.directory(), &set, SECRET.as_bytes())
        .await
        .unwrap();
    world.repository.commit("What towpath found").await.unwrap();
    let (number, log) = world.run("HEAD", "print").await;
    let forms = log.split_once("end of the forms").unwrap().0;
    let shown: Vec<&str> = forms.lines().filter(|line| line.contains("****")).collect();
    assert!(shown.len() >= 9, "{log}");

    assert!(log.contains("odd.xml`: it breaks off at line 1"), "{log}");
    assert!(log.contains("other.xml: ") && log.contains("is not JUnit XML"), "{log}");
    let tests = world
        .get(&format!("/api/v2/project/towpath/local/app/{number}/tests"))
        .await;
    let artifacts = world
        .get(&format!("/api/v2/project/towpath/local/app/{number}/artifacts"))
        .await;
    let mut names = Vec::new();
    for artifact in artifacts["items"].as_array().unwrap() {
        names.push(artifact["path"].as_str().unwrap().to_string());
        let url = artifact["url"].as_str().unwrap();
        let (_, path) = url.split_once("/artifacts/").unwrap();
        assert_eq!(world.get(&format!("/artifacts/{path}")).await, 1, "{url}");
    }
    names.sort();
    let expected = [
        "out/****",
        "out/100%25",
        "out/C# docs/x;y&z",
        "out/a#b",
        "out/it's \"q\"",
        "out/latin\\xe9",
        "out/what?",
    ];
    assert_eq!(names, expected);
    let read: Vec<&str> = tests["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|test| test["name"].as_str().unwrap())
        .collect();
    assert_eq!(read, ["t", "caf\u{fffd}"]);

    let everything = format!("{log}{tests}{artifacts}{}", world.server.log_tail(10_000));
    let forms = [
        "sw0rd",
        "fi'sh",
        "and$more",
        "and\\$more",
        // Pieces of its base64 and hex.
        "c3cwcmQi",
        "c3cwcmQ",
        "dzByZCJma",
        "737730",
        "73 77 30",
        "666927",
    ];
    for form in forms {
        assert!(!everything.contains(form), "`{form}` is in\n{everything}");
    }
    world.end().await;
}

const TOOLS: &str = r#"
version: 2.1
jobs:
  report:
    machine: true
    steps:
      - checkout
      - run: |
          mkdir results && cat > results/r.xml \<<'END'
          <testsuite>
            <testcase name="a" file="./spec/a_spec.rb" time="1"/><testcase name="b" file="./spec/b_spec.rb" time="1"/>
            <testcase name="c" file="./spec/with blank_spec.rb" time="1"/><testcase name="slow" file="./spec/slow_spec.rb" time="30"/>
          </testsuite>
          END
          mkdir -p releases/2 && echo two > releases/2/app && ln -s releases/2 current && ln -s nowhere dangling
      - store_test_results: {path: results}
      - persist_to_workspace: {root: ., paths: ["[^.a-qs-z]*", current, dangling]}
  split:
    machine: true
    steps:
      - checkout
      - attach_workspace: {at: ws}
      - run: cat ws/current/app; readlink ws/dangling
      - run: |
          circleci tests glob 'spec/**_spec.rb' > all
          for node in 0 1; do
            echo "node $node"; circleci tests split --split-by=timings --total=2 --index=$node < all
          done
          circleci env subst 'app:${TAG:-latest} costs $$5'
workflows:
  main:
    jobs:
      - report
      - split: {requires: [report]}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn tests_are_split_by_what_reports_say_and_links_are_passed_on() {
    let name = "tests_are_split_by_what_reports_say_and_links_are_passed_on";
    let Some(world) = World::start(name, TOOLS).await else {
        return;
    };
    for file in ["a", "b", "with blank", "slow"] {
        world.repository.write(&format!("spec/{file}_spec.rb"), "").unwrap();
    }
    world.repository.commit("Add tests").await.unwrap();
    let (_, log) = world.run("HEAD", "split").await;
    let expected = "node 0\nspec/slow_spec.rb\nnode 1\nspec/a_spec.rb\nspec/b_spec.rb\nspec/with blank_spec.rb\napp:latest costs $5";
    assert!(log.contains(expected), "{log}");
    assert!(log.contains("two\nnowhere\n"), "{log}");
    world.end().await;
}
