//! A real PostgreSQL: Debian's, in a folder and on a port of its own.

use crate::{Absent, program};
use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{User, chown, geteuid};
use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

const USER: &str = "towpath";
/// The password of the cluster's one user. It must not appear in any message.
pub const POSTGRES_PASSWORD: &str = "open-sesame";

/// A cluster of databases. It ends, with all that it holds, when it is dropped or when its process ends in any way.
pub struct Postgres {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    durable: bool,
    databases: AtomicU32,
    /// Ends the cluster when its standard input closes.
    watchdog: Child,
}

impl Postgres {
    /// Starts one that trades durability across power cuts for speed.
    ///
    /// # Errors
    /// When it does not start; the inner error says that the machine does not have it.
    pub fn start() -> Result<Result<Self, Absent>> {
        Self::start_with(false)
    }

    /// Starts one that waits for the disk, as in production: for measurements.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub fn start_durable() -> Result<Result<Self, Absent>> {
        Self::start_with(true)
    }

    fn start_with(durable: bool) -> Result<Result<Self, Absent>> {
        let Some(programs) = programs() else {
            let absent = "PostgreSQL is not installed: run scripts/ensure-test-parts";
            return Ok(Err(Absent(absent.into())));
        };
        let folder = tempfile::Builder::new().prefix("towpath-postgres-").tempdir()?;
        if let Some(user) = other_user()? {
            chown(folder.path(), Some(user.uid), Some(user.gid)).context("failed to give the folder away")?;
        }
        let watchdog = watch(&programs, folder.path())?;
        let cluster = Self {
            programs,
            folder: folder.keep(),
            port: free_port()?,
            durable,
            databases: AtomicU32::new(0),
            watchdog,
        };
        let password = cluster.folder.join("password");
        std::fs::write(&password, POSTGRES_PASSWORD).context("failed to write the password")?;
        if let Some(user) = other_user()? {
            chown(&password, Some(user.uid), Some(user.gid)).context("failed to give the password away")?;
        }
        cluster.run(
            "initdb",
            &[
                "--no-sync",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--username",
                USER,
            ],
            &["--pwfile".as_ref(), password.as_path(), "-D".as_ref(), &cluster.data()],
        )?;
        cluster.resume()?;
        Ok(Ok(cluster))
    }

    /// Makes an empty database and answers with its address.
    ///
    /// # Errors
    /// With what `psql` says.
    pub fn database(&self) -> Result<String> {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql(&format!("CREATE DATABASE {name}"))?;
        Ok(format!(
            "postgres://{USER}:{POSTGRES_PASSWORD}@127.0.0.1:{}/{name}",
            self.port
        ))
    }

    /// Runs SQL as the cluster's owner.
    ///
    /// # Errors
    /// With what `psql` says.
    pub fn sql(&self, sql: &str) -> Result<()> {
        let output = Command::new(self.programs.join("psql"))
            .args([
                "--no-psqlrc",
                "--quiet",
                "--host",
                "127.0.0.1",
                "--username",
                USER,
                "--port",
            ])
            .arg(self.port.to_string())
            .args(["--dbname", "postgres", "--command", sql])
            .env("PGPASSWORD", POSTGRES_PASSWORD)
            .output()
            .context("failed to run psql")?;
        succeeded("psql", &output)
    }

    /// Ends the server as a power cut would: no transaction is finished, nobody is told.
    ///
    /// # Errors
    /// With what `pg_ctl` says.
    pub fn crash(&self) -> Result<()> {
        self.control(&["stop", "-m", "immediate"])
    }

    /// Starts the server, with what it had stored.
    ///
    /// # Errors
    /// With what `pg_ctl` says.
    pub fn resume(&self) -> Result<()> {
        let fsync = if self.durable { "on" } else { "off" };
        let options = format!(
            "-c listen_addresses=127.0.0.1 -c port={} -c unix_socket_directories='' -c fsync={fsync} -c max_connections=200",
            self.port
        );
        let log = self.folder.join("log").display().to_string();
        self.control(&["start", "-w", "-o", &options, "-l", &log])
    }

    fn control(&self, arguments: &[&str]) -> Result<()> {
        self.run("pg_ctl", arguments, &["-D".as_ref(), &self.data()])
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Runs one of PostgreSQL's programs as a user that it accepts: it refuses root.
    fn run(&self, program: &str, arguments: &[&str], paths: &[&Path]) -> Result<()> {
        let output = as_other_user(&self.programs.join(program))?
            .args(arguments)
            .args(paths)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            // The server would keep a pipe open for as long as it runs.
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.folder.join("errors")).context("no room for errors")?)
            .output()
            .with_context(|| format!("failed to run {program}"))?;
        if output.status.success() {
            return Ok(());
        }
        let read = |file| std::fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        bail!("{program} failed: {}\n{}", read("errors"), read("log"))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        // It ends the cluster and removes the folder.
        let _ = self.watchdog.wait();
    }
}

fn succeeded(program: &str, output: &Output) -> Result<()> {
    ensure!(
        output.status.success(),
        "{program} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// The folder of PostgreSQL's programs. Debian keeps each version's in a folder of its own, beside the PATH.
fn programs() -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, path)| path.join("pg_ctl").is_file() && path.join("psql").exists())
        .collect();
    versions.sort();
    let newest = versions.pop().map(|(_, path)| path);
    newest.or_else(|| Some(program("pg_ctl").ok()?.parent()?.to_path_buf()))
}

/// Whom to run it as, if we are root.
fn other_user() -> Result<Option<User>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let Some(user) = User::from_name(name).context("failed to read the users")? {
            return Ok(Some(user));
        }
    }
    bail!("there is no user `postgres` or `nobody` to run PostgreSQL as")
}

fn as_other_user(program: &Path) -> Result<Command> {
    let Some(user) = other_user()? else {
        return Ok(Command::new(program));
    };
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={}", user.uid))
        .arg(format!("--regid={}", user.gid))
        .args(["--clear-groups", "--"])
        .arg(program);
    Ok(command)
}

/// Starts a process that ends the cluster and removes its folder once its standard input closes, which happens however
/// this process ends.
fn watch(programs: &Path, folder: &Path) -> Result<Child> {
    let script = r#"read -r _; "$1/pg_ctl" -D "$2/data" -m immediate stop; rm -rf "$2""#;
    as_other_user("/bin/sh".as_ref())?
        .args(["-c", script, "sh"])
        .args([programs, folder])
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("failed to start the watchdog")
}

/// A port that nobody listens on now.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("failed to find a port")?;
    Ok(listener.local_addr().context("no address")?.port())
}
