//! The command line, as `--help` shows it.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use towpath_orbs::{UrlPrefix, UrlPrefixError};
use towpath_store::ObjectLocation;
use towpath_types::SecretString;

/// The longest name of a server.
const LONGEST_NAME: usize = 40;

/// A server's name, which is the name of a folder.
fn server_name(text: &str) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(good) && !text.starts_with('-') {
        return Ok(text.to_string());
    }
    Err(format!(
        "a server's name is 1 to {LONGEST_NAME} lower-case letters, digits and `-`"
    ))
}

/// Carries a commit from push to production: tests, image, smoke test, approval, rollout.
///
/// Start with `towpath up` in one terminal and `towpath init` in your repository.
#[derive(Debug, Parser)]
#[command(name = "towpath", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start Towpath: page, git remote, registry and everything else in one process
    Up(Up),
    /// Look at this repository, write down what was found, and connect it to Towpath
    Init(Init),
    /// Show the newest pipelines
    Pipelines(At),
    /// Start a pipeline of a branch or a tag without a push
    Trigger(Trigger),
    /// Show the default branch, or choose another one: it says which environments there are and how they are protected
    DefaultBranch(DefaultBranch),
    /// Show the gates that wait, and what approving each would change
    Gates(At),
    /// Approve a gate: what its plan shows is what is then done
    Approve(Approve),
    /// Cancel a workflow
    Cancel(Cancel),
    /// Print the log of a job
    Logs(Logs),
    /// Build this working tree's images and push them
    Build(Build),
    /// Deploy an image with this working tree's manifests
    Deploy(Deploy),
    /// Show what `deploy` would change; exits with 0 if nothing would change, with 2 if something would
    Diff(Diff),
    /// Deploy the image that another environment runs: the same digest
    Promote(Promote),
    /// Go back to an earlier release
    Rollback(Rollback),
    /// Show the environments of this working tree, and where each of their values comes from
    #[command(subcommand)]
    Env(Env),
    /// Print the JSON Schema of towpath.toml, for editors
    Schema,
    /// Show what runs in an environment
    Status(Environment),
    /// Show the releases of an environment
    History(Environment),
    /// Run a one-off job, follow its log, and exit with its exit code
    Job(Named),
    /// Apply one cron job, run one now, or list them with their runs
    Cronjob(Cronjob),
    /// Show what of a running environment a first deployment would take over, and from whom; changes nothing
    Adopt(Adopt),
    /// Run the tests of the chart that an environment runs: its hooks `test`
    Test(Test),
    /// Show what in an environment is no longer as its release has it, and who changed it; exits with 2 if anything is
    Drift(Drift),
    /// Keep others from deploying to an environment for some time
    Lock(Lock),
    /// Let everybody deploy to an environment again
    Unlock(Unlock),
    /// Set, list and remove an environment's secrets
    #[command(subcommand)]
    Secrets(Secrets),
    /// Set, list and remove the variables of contexts
    #[command(subcommand)]
    Context(Context),
    /// Check a CircleCI configuration, print what it compiles to, or draw it
    #[command(subcommand)]
    Config(Config),
    /// Publish orbs in Towpath's registry, look at them, and lock what a configuration uses
    #[command(subcommand)]
    Orb(Orb),
    /// Serve an editor by the Language Server Protocol, on standard input: diagnostics, hover, definitions, completion
    Lsp(Lsp),
    /// Run a job's steps (started by the engine, not by people)
    #[command(hide = true)]
    Agent,
    /// Forward requests to an application's pods (started by the local target, not by people)
    #[command(hide = true)]
    Proxy(Proxy),
    /// git's hooks (called by git, not by people)
    #[command(hide = true)]
    Hook {
        /// `pre-receive` or `post-receive`.
        name: String,
    },
    /// git's credential helper (called by git, not by people)
    #[command(hide = true)]
    Credential {
        /// `get`, `store` or `erase`.
        operation: String,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Debug, Clone, Args)]
pub struct At {
    /// Towpath's data directory, which holds its address and your token
    /// [default: $XDG_DATA_HOME/towpath or ~/.local/share/towpath]
    #[arg(long, env = "TOWPATH_DATA_DIR", value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
    /// The project [default: what towpath.toml says, or the folder's name]
    #[arg(long, env = "TOWPATH_PROJECT", value_name = "NAME", global = true)]
    pub project: Option<String>,
}

#[derive(Debug, Args)]
pub struct Up {
    /// Where everything is kept: git repositories, images, sealed secrets, tokens; without the options below also rows, logs
    /// and blobs. Several servers of one installation share it
    /// [default: $XDG_DATA_HOME/towpath or ~/.local/share/towpath]
    #[arg(long, env = "TOWPATH_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Keep rows in PostgreSQL, which several servers may share: postgres://USER:PASSWORD@HOST/DATABASE. Set the variable
    /// instead of the option, so that the password is in no list of processes [default: SQLite in the data directory]
    #[arg(long, env = "TOWPATH_DATABASE", hide_env_values = true, value_name = "URL")]
    pub database: Option<SecretString>,
    /// Keep logs and blobs elsewhere: in a folder that all servers reach, or in an S3-compatible object store, which the
    /// usual AWS_… variables say how to reach [default: in the data directory]
    #[arg(long, env = "TOWPATH_OBJECTS", value_name = "s3://BUCKET/PREFIX|FOLDER")]
    pub objects: Option<ObjectLocation>,
    /// The name of this server, if several share the data directory: each needs one of its own
    #[arg(long, env = "TOWPATH_NAME", value_name = "NAME", value_parser = server_name)]
    pub name: Option<String>,
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:7070", value_name = "ADDRESS")]
    pub listen: String,
    /// An environment variable of this shell that jobs of `machine` executors get too; may be given again
    #[arg(long, value_name = "NAME")]
    pub host_env: Vec<String>,
    /// The user that each job of a `machine` executor runs as. A server that does not run as root has no choice: it is its own
    #[arg(long, env = "TOWPATH_HOST_JOBS_USER", value_enum, default_value = "own")]
    pub host_jobs_user: HostJobsUser,
    /// The first of the 1,000 user ids (and group ids) that are kept for such jobs: nobody else may have them, and no
    /// server with another --host-jobs-dir
    #[arg(long, env = "TOWPATH_HOST_JOBS_FIRST_USER", value_name = "ID", default_value = "70000",
          value_parser = clap::value_parser!(u32).range(1_000..4_000_000_000))]
    pub host_jobs_first_user: u32,
    /// Which of these jobs may use this machine's container engine. Whoever may use it can do everything on the machine
    #[arg(long, env = "TOWPATH_HOST_JOBS_ENGINE", value_enum, default_value = "named")]
    pub host_jobs_engine: HostJobsEngine,
    /// The folder for such jobs; every user has to be able to pass through the folders around it
    /// [default: /var/lib/towpath-jobs for root, in the data directory for others]
    #[arg(long, env = "TOWPATH_HOST_JOBS_DIR", value_name = "DIR")]
    pub host_jobs_dir: Option<PathBuf>,
    #[command(flatten)]
    pub orbs: OrbOptions,
    /// Where environments are: on this machine's container engine, or in the clusters of the kube contexts that their folders
    /// are named after; auto takes clusters if this shell knows any (a kubeconfig, TOWPATH_KUBE_SERVER, or a pod's account)
    #[arg(long, env = "TOWPATH_TARGET", value_enum, default_value = "auto")]
    pub target: Target,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum HostJobsUser {
    /// One of its own, who is not root, cannot become root, and reads nothing of the server or of other jobs.
    Own,
    /// The server's: jobs can do whatever the server can, `sudo` included.
    Server,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum HostJobsEngine {
    /// Those whose configuration names docker.
    Named,
    /// All of them.
    Always,
    /// None of them.
    Never,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Target {
    /// Clusters, if this shell knows any.
    Auto,
    /// This machine's container engine.
    Local,
    /// Clusters.
    Kubernetes,
}

#[derive(Debug, Subcommand)]
pub enum Env {
    /// List the environments: what each is made from, its kube context, its namespace, and who said so
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Debug, Args)]
pub struct Init {
    #[command(flatten)]
    pub at: At,
}

#[derive(Debug, Args)]
pub struct Approve {
    /// The gate's name in the configuration, such as `hold-dev`, or its id
    pub gate: String,
    #[command(flatten)]
    pub agreement: Agreement,
    #[command(flatten)]
    pub at: At,
}

/// To what somebody agrees. A gate that deploys, and a protected environment, begin nothing that nobody agreed to.
#[derive(Debug, Clone, Args)]
pub struct Agreement {
    /// Agree to this plan and to no other: its whole digest, as `towpath gates`, `towpath diff` and the pages show it
    #[arg(long, value_name = "DIGEST")]
    pub plan: Option<String>,
    /// Agree to the plan as it is now, without being asked
    #[arg(long, short)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct Trigger {
    /// The branch [default: the project's default branch]
    #[arg(long, value_name = "NAME", conflicts_with = "tag")]
    pub branch: Option<String>,
    /// The tag
    #[arg(long, value_name = "NAME")]
    pub tag: Option<String>,
    #[command(flatten)]
    pub at: At,
}

#[derive(Debug, Args)]
pub struct DefaultBranch {
    /// The new default branch
    pub branch: Option<String>,
    #[command(flatten)]
    pub at: At,
}

#[derive(Debug, Args)]
pub struct Cancel {
    /// The workflow's id
    pub workflow: String,
    #[command(flatten)]
    pub at: At,
}

#[derive(Debug, Args)]
pub struct Logs {
    /// The job's number
    pub job: i64,
    #[command(flatten)]
    pub at: At,
}

#[derive(Debug, Args)]
pub struct Build {
    /// The names of the images in towpath.toml [default: all that have a Dockerfile there]
    pub images: Vec<String>,
    /// Build only; push nothing
    #[arg(long)]
    pub no_push: bool,
    #[command(flatten)]
    pub at: At,
}

#[derive(Debug, Args)]
pub struct Deploy {
    /// The environment, one of `towpath env list`
    pub environment: String,
    /// `latest`, `<branch>-latest`, a commit, or a whole tag [default: latest]
    pub tag: Option<String>,
    #[command(flatten)]
    pub policy: Policy,
    #[command(flatten)]
    pub agreement: Agreement,
    #[command(flatten)]
    pub at: At,
}

#[derive(Debug, Clone, Args)]
pub struct Policy {
    /// If it fails: put the release before it back, or stop and leave everything as it is
    /// [default: what towpath.toml says, or rollback]
    #[arg(long, value_enum, value_name = "WHAT")]
    pub on_failure: Option<OnFailure>,
    /// Deploy although the environment is frozen; the history says why
    #[arg(long, value_name = "REASON")]
    pub despite_freeze: Option<String>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum OnFailure {
    /// Put the release before it back.
    Rollback,
    /// Leave everything as it is.
    Stop,
}

#[derive(Debug, Args)]
pub struct Promote {
    /// The environment that runs the image
    pub from: String,
    /// The environment that gets it, with this working tree's manifests
    pub to: String,
    #[command(flatten)]
    pub policy: Policy,
    #[command(flatten)]
    pub agreement: Agreement,
    #[command(flatten)]
    pub at: At,
}

#[derive(Debug, Args)]
pub struct Drift {
    /// The environment [default: each one of the manifests]
    pub environment: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub at: At,
}

#[derive(Debug, Args)]
pub struct Lock {
    /// The environment
    pub environment: String,
    /// Why, for people who find it locked
    #[arg(long, short, default_value = "", hide_default_value = true)]
    pub reason: String,
    /// How long: `30m`, `8h`
    #[arg(long = "for", value_name = "TIME", default_value = "1h")]
    pub lasts: String,
    #[command(flatten)]
    pub at: At,
}

#[derive(Debug, Args)]
pub struct Unlock {
    /// The environment
    pub environment: String,
    /// End somebody else's lock, too
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub at: At,
}

#[derive(Debug, Args)]
pub struct Adopt {
    /// The environment, as `towpath env list` names it
    pub environment: String,
    /// `latest`, `<branch>-latest`, a commit, or a whole tag
    #[arg(default_value = "latest")]
    pub tag: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub at: At,
}

#[derive(Debug, Args)]
pub struct Test {
    /// The environment
    pub environment: String,
    #[command(flatten)]
    pub agreement: Agreement,
    #[command(flatten)]
    pub at: At,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Cronjob {
    #[command(subcommand)]
    pub command: Option<CronjobCommand>,
    /// Its name: the manifest's file name or the object's
    #[arg(required = true)]
    pub name: Option<String>,
    /// The environment
    #[arg(required = true)]
    pub environment: Option<String>,
    /// The image's tag, as for `deploy` [default: what the environment runs]
    pub tag: Option<String>,
    #[command(flatten)]
    pub agreement: Agreement,
    #[command(flatten)]
    pub at: At,
}

#[derive(Debug, Subcommand)]
pub enum CronjobCommand {
    /// Run a cron job now, follow its log, and exit with its exit code
    Run {
        /// Its name
        name: String,
        /// The environment
        environment: String,
        #[command(flatten)]
        agreement: Agreement,
        #[command(flatten)]
        at: At,
    },
    /// List an environment's cron jobs: last and next runs, and failures
    List(Environment),
}

#[derive(Debug, Args)]
pub struct Diff {
    /// The environment, one of `towpath env list`
    pub environment: String,
    /// `latest`, `<branch>-latest`, a commit, or a whole tag
    #[arg(default_value = "latest")]
    pub tag: String,
    /// Print JSON
    #[arg(long, conflicts_with = "markdown")]
    pub json: bool,
    /// Print Markdown, for a comment on a pull request
    #[arg(long)]
    pub markdown: bool,
    #[command(flatten)]
    pub at: At,
}

#[derive(Debug, Args)]
pub struct Rollback {
    /// The environment
    pub environment: String,
    /// The release to go back to, by its number in `towpath history` [default: the one before the current]
    pub release: Option<i64>,
    #[command(flatten)]
    pub agreement: Agreement,
    #[command(flatten)]
    pub at: At,
}

#[derive(Debug, Args)]
pub struct Environment {
    /// The environment
    pub environment: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub at: At,
}

#[derive(Debug, Args)]
pub struct Named {
    /// Its name: the manifest's file name or the object's
    pub name: String,
    /// The environment
    pub environment: String,
    /// The image's tag, as for `deploy` [default: what the environment runs]
    pub tag: Option<String>,
    #[command(flatten)]
    pub agreement: Agreement,
    #[command(flatten)]
    pub at: At,
}

#[derive(Debug, Subcommand)]
pub enum Secrets {
    /// Set a key of a Secret; the value is read from a file or standard input, byte for byte
    Set {
        /// The environment
        environment: String,
        /// The Secret's name
        secret: String,
        /// The key in it
        key: String,
        /// Read the value from this file; otherwise from standard input
        #[arg(long, value_name = "FILE")]
        from_file: Option<PathBuf>,
        #[command(flatten)]
        at: At,
    },
    /// List Secrets and their keys, never their values
    List {
        /// The environment
        environment: String,
        #[command(flatten)]
        at: At,
    },
    /// Remove a key of a Secret
    Unset {
        /// The environment
        environment: String,
        /// The Secret's name
        secret: String,
        /// The key in it
        key: String,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Debug, Subcommand)]
pub enum Context {
    /// Set a variable of a context; the value is read from a file or standard input, byte for byte
    Set {
        /// The context
        context: String,
        /// The variable
        key: String,
        /// Read the value from this file; otherwise from standard input
        #[arg(long, value_name = "FILE")]
        from_file: Option<PathBuf>,
        #[command(flatten)]
        at: At,
    },
    /// Say whose jobs may have a context's variables; without a list, any project's or any branch's
    Restrict {
        /// The context
        context: String,
        /// A project whose jobs may have it; may be given several times
        #[arg(long = "for", value_name = "PROJECT")]
        projects: Vec<String>,
        /// A branch whose jobs may have it: a name, or the beginning of names with a `*`; may be given several times
        #[arg(long = "branch", value_name = "BRANCH")]
        branches: Vec<String>,
        #[command(flatten)]
        at: At,
    },
    /// List contexts and their variables, never their values
    List {
        #[command(flatten)]
        at: At,
    },
    /// Remove a variable of a context
    Unset {
        /// The context
        context: String,
        /// The variable
        key: String,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Debug, Subcommand)]
pub enum Config {
    /// Say what is wrong with a configuration, and where
    Validate {
        #[command(flatten)]
        compile: Compile,
        /// Print JSON, for editors: a list of {code, severity, message, context, primary, secondary, hint}
        #[arg(long)]
        json: bool,
    },
    /// Print what a configuration compiles to
    Process(Compile),
    /// Draw its workflows: which job waits for which
    Graph {
        #[command(flatten)]
        compile: Compile,
        /// Only this workflow
        #[arg(long, value_name = "NAME")]
        workflow: Option<String>,
        /// Text for a terminal, dot for Graphviz, svg for a browser
        #[arg(long, value_enum, default_value = "text")]
        format: Graph,
    },
    /// Say where each value of a compiled job comes from: the line, and the calls and parameters on the way
    Explain {
        /// The job's name, as `process` prints it
        job: String,
        #[command(flatten)]
        compile: Compile,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Find what compiles but cannot be meant: jobs that nobody runs, secrets in plain text, and more
    Lint {
        #[command(flatten)]
        compile: Compile,
        /// Print JSON, as `validate` does
        #[arg(long)]
        json: bool,
    },
    /// Print a folder of small files as one configuration
    Pack {
        /// The folder
        folder: PathBuf,
    },
    /// Print the JSON Schema of the language, for editors that check YAML by one
    Schema,
}

/// A configuration, and what it is compiled for.
#[derive(Debug, Clone, Args)]
pub struct Compile {
    /// The file; `-` is standard input
    #[arg(default_value = ".circleci/config.yml")]
    pub file: PathBuf,
    /// A pipeline parameter; may be given again
    #[arg(long = "parameter", short = 'p', value_name = "NAME=VALUE")]
    pub parameters: Vec<String>,
    /// Compile for a push to this branch [default: main]
    #[arg(long, value_name = "NAME", conflicts_with = "tag")]
    pub branch: Option<String>,
    /// Compile for a push of this tag
    #[arg(long, value_name = "NAME")]
    pub tag: Option<String>,
    #[command(flatten)]
    pub orbs: OrbOptions,
    #[command(flatten)]
    pub at: At,
}

/// Forms of a graph.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Graph {
    /// One job a line.
    Text,
    /// For Graphviz.
    Dot,
    /// For a browser.
    Svg,
}

#[derive(Debug, Subcommand)]
pub enum Orb {
    /// Publish a version of an orb; makes namespace and orb if they do not exist
    Publish {
        /// The orb's packed source
        file: PathBuf,
        /// `namespace/orb@1.2.3`, or `namespace/orb@dev:label`, which may be published again
        reference: String,
        /// Only people who are signed in see it; decided when the orb is new
        #[arg(long)]
        private: bool,
        #[command(flatten)]
        at: At,
    },
    /// Print a folder of small files as one orb
    Pack {
        /// The folder
        folder: PathBuf,
    },
    /// Say what is wrong with an orb: with each of its commands, executors and jobs
    Validate {
        /// What to check: the orb's packed source.
        #[command(flatten)]
        compile: Compile,
        /// Print JSON, as `towpath config validate` does
        #[arg(long)]
        json: bool,
    },
    /// List the orbs of Towpath's registry, with their newest versions
    List {
        /// Only this namespace
        namespace: Option<String>,
        #[command(flatten)]
        at: At,
    },
    /// Print an orb's source, as it was published
    Source {
        /// `namespace/orb`, or with a version
        reference: String,
        #[command(flatten)]
        at: At,
    },
    /// Write `.circleci/orbs.lock`: the exact orbs that a configuration uses, and goes on to use until it is written again
    Lock(Compile),
}

/// Where orbs come from, apart from the configuration, the repository and Towpath's own registry.
#[derive(Debug, Clone, Args)]
pub struct OrbOptions {
    /// The public registry for orbs that are neither vendored nor published in Towpath's own; `none` asks none. A token for
    /// it is in TOWPATH_ORB_REGISTRY_TOKEN
    #[arg(
        long,
        env = "TOWPATH_ORB_REGISTRY",
        value_name = "URL",
        default_value = "https://circleci.com"
    )]
    pub orb_registry: String,
    /// The beginning of URLs that orbs may come from, such as `https://example.com/orbs/`; may be given again. Without one,
    /// orbs come from no URL
    #[arg(long, env = "TOWPATH_ORB_URL_PREFIX", value_name = "PREFIX", value_delimiter = ',')]
    pub orb_url_prefix: Vec<String>,
}

impl OrbOptions {
    /// The beginnings of URLs that orbs may come from. An empty variable names none.
    ///
    /// # Errors
    /// For a text that no such URL begins with.
    pub fn url_prefixes(&self) -> Result<Vec<UrlPrefix>, UrlPrefixError> {
        let said = self.orb_url_prefix.iter().map(|text| text.trim());
        said.filter(|text| !text.is_empty()).map(str::parse).collect()
    }

    /// What that registry knows its reader by, from TOWPATH_ORB_REGISTRY_TOKEN. It is no argument: others could read it.
    pub fn registry_token() -> Option<SecretString> {
        let token = std::env::var("TOWPATH_ORB_REGISTRY_TOKEN").ok();
        token.filter(|token| !token.is_empty()).map(SecretString::new)
    }

    /// The public registry, unless it must not be asked.
    pub fn registry(&self) -> Option<&str> {
        Some(&*self.orb_registry).filter(|base| *base != "none")
    }
}

#[derive(Debug, Clone, Args)]
pub struct Lsp {
    #[command(flatten)]
    pub orbs: OrbOptions,
    /// Ignored: editors pass it to say that they speak on standard input and output
    #[arg(long, hide = true)]
    pub stdio: bool,
    #[command(flatten)]
    pub at: At,
}

#[derive(Debug, Args)]
pub struct Proxy {
    /// The folder with `routes.json`
    #[arg(long, value_name = "DIR")]
    pub routes: PathBuf,
}
