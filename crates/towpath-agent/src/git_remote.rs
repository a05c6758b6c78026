//! `git-remote-towpath`: how git in a job's steps reaches the server's repositories.
//!
//! The addresses of these repositories are the server's own (`http://127.0.0.1:7070/git/app.git`). Inside a container they lead
//! nowhere, and a step has no password for them. So the agent's environment makes git call this for them. It passes the
//! conversation on through the agent's socket, with the job's token. It only reads.
//!
//! Source: <https://git-scm.com/docs/gitremote-helpers>

use crate::client::Client;
use bytes::Bytes;
use http_body_util::BodyExt;
use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    io::{self, BufRead, Read, Write},
    process::ExitCode,
};
use tokio::sync::mpsc;
use towpath_protocol::{route, variable};
use towpath_types::SecretString;

/// The name by which git calls this.
pub(crate) const PROGRAM: &str = "git-remote-towpath";
const PIECE_BYTES: usize = 64 << 10;

/// Makes git in `environment` call this for every address that begins with `repositories`.
///
/// Source: <https://git-scm.com/docs/git-config#ENVIRONMENT>
pub(crate) fn configure(environment: &mut BTreeMap<OsString, OsString>, repositories: &str) {
    let count = environment.get(OsStr::new("GIT_CONFIG_COUNT"));
    let count: usize = count
        .and_then(|text| text.to_str())
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let settings = [
        (format!("url.towpath::{repositories}.insteadOf"), repositories),
        // Without this, git does not use a helper for submodules.
        ("protocol.towpath.allow".to_string(), "always"),
    ];
    let mut end = count;
    for (key, value) in settings {
        environment.insert(format!("GIT_CONFIG_KEY_{end}").into(), key.into());
        environment.insert(format!("GIT_CONFIG_VALUE_{end}").into(), value.into());
        end += 1;
    }
    environment.insert("GIT_CONFIG_COUNT".into(), end.to_string().into());
}

/// Runs the helper. `arguments` are the remote's name and its address.
#[must_use]
pub fn git_remote_main(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let _name = arguments.next();
    match serve(&arguments.next().unwrap_or_default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("towpath: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The project of `http://127.0.0.1:7070/git/app.git`.
fn project(address: &str) -> Option<&str> {
    let name = address.trim_end_matches('/').rsplit('/').next()?;
    Some(name.strip_suffix(".git").unwrap_or(name)).filter(|name| !name.is_empty())
}

fn serve(address: &str) -> Result<(), String> {
    let project = project(address).ok_or_else(|| format!("`{address}` names no repository"))?;
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let answer = |output: &mut io::StdoutLock<'_>, text: &str| {
        let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
        written.map_err(|error| format!("git does not listen: {error}"))
    };
    loop {
        let mut line = String::new();
        let read = input.read_line(&mut line);
        if read.map_err(|error| format!("failed to read what git says: {error}"))? == 0 {
            return Ok(());
        }
        match line.trim_end().split_once(' ').unwrap_or((line.trim_end(), "")) {
            ("", _) => return Ok(()),
            ("capabilities", _) => answer(&mut output, "connect\n\n")?,
            ("connect", "git-upload-pack") => {
                answer(&mut output, "\n")?;
                drop(input);
                drop(output);
                return converse(project);
            }
            ("connect", _) => {
                return Err(
                    "a job cannot push to Towpath's repositories: what a job pushes would start jobs. Push from outside, or give the \
                        job a remote of its own with credentials from a context"
                        .into(),
                );
            }
            (other, _) => return Err(format!("git asks for `{other}`, which this does not know")),
        }
    }
}

/// Connects standard input and output to the server's git.
fn converse(project: &str) -> Result<(), String> {
    let missing = || "this address works in a step of a job only".to_string();
    let socket = env::var_os(variable::AGENT_SOCKET).ok_or_else(missing)?;
    let token = SecretString::new(env::var(variable::JOB_TOKEN).map_err(|_| missing())?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("failed to start: {error}"))?;
    let done = runtime.block_on(async {
        let (sender, mut receiver) = mpsc::channel::<io::Result<Bytes>>(4);
        // Use a thread of its own, which ends with the process, because a read from a pipe cannot be cancelled.
        std::thread::spawn(move || {
            let mut input = io::stdin().lock();
            let mut buffer = vec![0; PIECE_BYTES];
            while let Ok(count @ 1..) = input.read(&mut buffer) {
                if sender
                    .blocking_send(Ok(Bytes::copy_from_slice(&buffer[..count])))
                    .is_err()
                {
                    return;
                }
            }
        });
        let body = crate::client::streamed(futures::stream::poll_fn(move |context| receiver.poll_recv(context)));
        let path = route::GIT.replace("{project}", project);
        let client = Client::new(socket.into(), token);
        let answer = client
            .post_stream_once(&path, body)
            .await
            .map_err(|error| error.to_string())?;
        let mut pieces = answer.into_body();
        while let Some(frame) = pieces.frame().await {
            let frame = frame.map_err(|error| format!("the connection to the server broke: {error}"))?;
            if let Ok(bytes) = frame.into_data() {
                let written = io::stdout().write_all(&bytes).and_then(|()| io::stdout().flush());
                written.map_err(|error| format!("git does not listen: {error}"))?;
            }
        }
        Ok(())
    });
    runtime.shutdown_background();
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_the_last_part_of_its_address() {
        for address in [
            "http://127.0.0.1:7070/git/my.app.git",
            "http://x/git/my.app",
            "http://x/git/my.app.git/",
        ] {
            assert_eq!(project(address), Some("my.app"), "{address}");
        }
        assert_eq!(project(""), None);
    }

    #[test]
    fn what_a_job_configures_itself_stays() {
        let mut environment: BTreeMap<OsString, OsString> = [
            ("GIT_CONFIG_COUNT", "1"),
            ("GIT_CONFIG_KEY_0", "user.name"),
            ("GIT_CONFIG_VALUE_0", "ci"),
        ]
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
        configure(&mut environment, "http://127.0.0.1:7070/git/");
        let get = |name: &str| environment[OsStr::new(name)].to_str().unwrap_or_default();
        assert_eq!(get("GIT_CONFIG_COUNT"), "3");
        assert_eq!(get("GIT_CONFIG_KEY_0"), "user.name");
        assert_eq!(
            get("GIT_CONFIG_KEY_1"),
            "url.towpath::http://127.0.0.1:7070/git/.insteadOf"
        );
        assert_eq!(get("GIT_CONFIG_VALUE_1"), "http://127.0.0.1:7070/git/");
    }
}
