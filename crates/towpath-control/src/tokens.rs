//! Tokens: one for the owner, and derived ones for jobs, hooks and registry clients.
//!
//! A derived token is a keyed hash of its grant. So tokens need no storage to survive a restart, and the token of one
//! attempt of a job is useless for another. A valid token says what it was made for; each endpoint checks whether that
//! is still in progress ([`crate::Standing`], [`crate::Pushes`]).

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::{
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};
use towpath_types::{JobId, NodeId, SecretString};
use uuid::Uuid;

/// What a token allows its bearer, while its purpose lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// Everything: the owner of the data directory.
    Owner,
    /// What an agent does for one node of one attempt of a job: its log, its reports, its files. Steps do not get this
    /// token.
    Agent(NodeId),
    /// What a step of that node may request: the deployment that its configuration declares, and test timings.
    Step(NodeId),
    /// Pull and push the images of one project, while the attempt of the job runs.
    JobImages {
        /// The project's name.
        project: String,
        /// The job, which attributes pushes to its workflow.
        job: JobId,
        /// The attempt's number.
        attempt: u32,
    },
    /// Pull the images of one project.
    Pull {
        /// The project's name.
        project: String,
    },
    /// Report one push to one project's repository, while git is accepting it.
    Hook {
        /// The project's name.
        project: String,
        /// The push's id.
        push: Uuid,
    },
}

impl Grant {
    fn text(&self) -> String {
        match self {
            Self::Owner => "owner".into(),
            Self::Agent(node) => format!("agent.{node}"),
            Self::Step(node) => format!("step.{node}"),
            Self::JobImages { project, job, attempt } => format!("images.{project}.{job}.{attempt}"),
            Self::Pull { project } => format!("pull.{project}"),
            Self::Hook { project, push } => format!("hook.{project}.{push}"),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once('.').unwrap_or((text, ""));
        Some(match kind {
            "owner" if rest.is_empty() => Self::Owner,
            "agent" => Self::Agent(rest.parse().ok()?),
            "step" => Self::Step(rest.parse().ok()?),
            // A project's name may contain dots, so parse these from the end.
            "images" => {
                let (rest, attempt) = rest.rsplit_once('.')?;
                let (project, job) = rest.rsplit_once('.')?;
                Self::JobImages {
                    project: project.to_string(),
                    job: job.parse().ok()?,
                    attempt: attempt.parse().ok()?,
                }
            }
            "pull" => Self::Pull {
                project: rest.to_string(),
            },
            "hook" => {
                let (project, push) = rest.rsplit_once('.')?;
                Self::Hook {
                    project: project.to_string(),
                    push: push.parse().ok()?,
                }
            }
            _ => return None,
        })
    }
}

/// Why the key for tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// A file could not be read or written.
    #[error("failed to {attempt} `{}`", path.display())]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The key file has unexpected content.
    #[error("`{}` is not a key of 64 hex digits: restore it, or delete it to make all tokens anew", .0.display())]
    Damaged(PathBuf),
}

/// Issues tokens and identifies their bearers.
///
/// # Contract
/// The tests of this file check it. There is no fake: [`Tokens`] needs a folder and nothing else, so that every test can
/// have the real one.
///
/// - `grant` of an issued token returns its grant, on every server that shares the key, for ever.
/// - `grant` of anything else is `None`: of another installation's token, of a token that was changed in any place, cut off
///   or added to, and of no token at all.
/// - Two issues of one grant are the same token, wherever they happen. Two grants never have the same token.
/// - A token is one line of visible ASCII without a colon. It can be sent as a header and as the password of Basic
///   credentials.
/// - Any task may call any method at any time. Neither waits, fails, or stores anything.
pub trait Identity: Send + Sync {
    /// What `token` allows; `None` if it is not valid.
    fn grant(&self, token: &str) -> Option<Grant>;

    /// The token of `grant`.
    fn issue(&self, grant: &Grant) -> SecretString;
}

impl Identity for Tokens {
    fn grant(&self, token: &str) -> Option<Grant> {
        self.check(token)
    }

    fn issue(&self, grant: &Grant) -> SecretString {
        let text = grant.text();
        SecretString::new(format!("tp.{text}.{}", hex::encode(self.seal(&text))))
    }
}

/// Issues and checks tokens with a key that all servers of an installation share.
pub struct Tokens {
    key: [u8; 32],
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
    }
}

impl Tokens {
    /// Reads the key in `data_dir`, or creates it, and writes the owner's token to `data_dir/token`. Both files have
    /// mode 0600.
    ///
    /// # Errors
    /// When a file cannot be read or written, or the key is damaged.
    pub fn open(data_dir: &Path) -> Result<Self, TokenError> {
        let path = data_dir.join("token.key");
        let key = match std::fs::read_to_string(&path) {
            Ok(text) => hex::decode(text.trim())
                .ok()
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or(TokenError::Damaged(path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key: [u8; 32] = rand::random();
                write_private(&path, &hex::encode(key))?;
                key
            }
            Err(source) => {
                return Err(TokenError::Io {
                    attempt: "read",
                    path,
                    source,
                });
            }
        };
        let tokens = Self { key };
        write_private(&data_dir.join("token"), tokens.issue(&Grant::Owner).expose())?;
        Ok(tokens)
    }

    fn check(&self, token: &str) -> Option<Grant> {
        let (text, seal) = token.strip_prefix("tp.")?.rsplit_once('.')?;
        // A seal has one spelling: `hex` also reads capital letters, and a token in those was never issued.
        let seal = match seal.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => return None,
            false => hex::decode(seal).ok()?,
        };
        // Compares in constant time.
        self.mac(text).verify_slice(&seal).ok()?;
        Grant::parse(text)
    }

    fn mac(&self, text: &str) -> Hmac<Sha256> {
        // HMAC pads a short key with zeroes to the hash's block.
        let mut block = [0; 64];
        block[..self.key.len()].copy_from_slice(&self.key);
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
        mac.update(text.as_bytes());
        mac
    }

    fn seal(&self, text: &str) -> [u8; 32] {
        self.mac(text).finalize().into_bytes().into()
    }
}

/// The token in a request: `Circle-Token`, a bearer token, or the password of Basic credentials.
#[must_use]
pub fn presented(headers: &http::HeaderMap) -> Option<String> {
    use base64::Engine as _;
    if let Some(token) = headers.get("circle-token").and_then(|value| value.to_str().ok()) {
        return Some(token.to_string());
    }
    let text = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    // CircleCI's older command line sends the token alone.
    let Some((scheme, rest)) = text.split_once(' ') else {
        return Some(text.to_string());
    };
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_string());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(rest.trim()).ok()?;
    // CircleCI's API takes the token as the name, and git's helpers send it as the password.
    let (name, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some(if password.is_empty() { name } else { password }.to_string())
}

fn write_private(path: &Path, text: &str) -> Result<(), TokenError> {
    let failed = |source| TokenError::Io {
        attempt: "write",
        path: path.to_path_buf(),
        source,
    };
    let temporary = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
        .map_err(failed)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    std::fs::rename(&temporary, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    /// Grants of every kind, among them some that differ in one part only.
    fn grants() -> Vec<Grant> {
        let node = |attempt, node| NodeId {
            job: Uuid::from_u128(7).into(),
            attempt,
            node,
        };
        let projects = ["app", "my.app", "my.app.1"].map(str::to_string);
        let mut grants = vec![Grant::Owner];
        for node in [node(1, 0), node(1, 1), node(2, 0), node(11, 0)] {
            grants.extend([Grant::Agent(node), Grant::Step(node)]);
        }
        for project in projects {
            for attempt in [1, 11] {
                let (project, job) = (project.clone(), Uuid::from_u128(8).into());
                grants.push(Grant::JobImages { project, job, attempt });
            }
            let push = Uuid::from_u128(9);
            grants.push(Grant::Pull {
                project: project.clone(),
            });
            grants.push(Grant::Hook { project, push });
        }
        grants
    }

    /// Checks the contract of [`Identity`]: `servers` share a key, `stranger` has another one.
    fn check(servers: &[&dyn Identity], stranger: &dyn Identity) {
        let mut known = BTreeSet::new();
        for grant in grants() {
            let token = servers[0].issue(&grant);
            let token = token.expose();
            assert!(known.insert(token.to_string()), "{grant:?} has a token of its own");
            let is_sendable = |byte: u8| byte.is_ascii_graphic() && byte != b':';
            assert!(token.bytes().all(is_sendable), "{grant:?}: its token can be sent");
            for server in servers {
                assert!(
                    server.issue(&grant).expose() == token,
                    "{grant:?}: one token everywhere"
                );
                assert_eq!(server.grant(token), Some(grant.clone()));
            }
            assert_eq!(stranger.grant(token), None, "{grant:?}: another installation");
            for changed in changed(token) {
                assert_eq!(servers[0].grant(&changed), None, "{grant:?}: a changed token");
            }
        }
        for bad in [
            "",
            " ",
            "tp.",
            "tp..",
            "tp.owner",
            "tp.owner.",
            "tp.owner.00",
            "owner",
            "\u{0}",
        ] {
            assert_eq!(servers[0].grant(bad), None, "{bad:?}");
        }
    }

    /// A token with one place changed, cut off, or added to.
    fn changed(token: &str) -> Vec<String> {
        let mut all = vec![format!("{token}0"), format!("{token} "), format!(" {token}")];
        for (at, byte) in token.bytes().enumerate() {
            let (before, after) = (&token[..at], &token[at + 1..]);
            let swapped = match byte {
                _ if byte.is_ascii_lowercase() => byte.to_ascii_uppercase(),
                b'0' => b'1',
                _ => b'0',
            };
            all.push(before.to_string());
            all.push(format!("{before}{}{after}", char::from(swapped)));
            all.push(format!("{before}{after}"));
        }
        for (from, to) in [("step.", "agent."), ("pull.", "images."), ("agent.", "owner.")] {
            all.extend(token.contains(from).then(|| token.replace(from, to)));
        }
        all
    }

    #[test]
    fn tokens_keep_the_contract() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = Tokens::open(dir.path()).unwrap();
        let after_a_restart = Tokens::open(dir.path()).unwrap();
        check(&[&first, &after_a_restart], &Tokens::open(other.path()).unwrap());
    }

    #[test]
    fn the_files_are_the_owners_alone_and_damage_is_said() {
        let dir = tempfile::tempdir().unwrap();
        Tokens::open(dir.path()).unwrap();
        for name in ["token", "token.key"] {
            let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        std::fs::write(dir.path().join("token.key"), "zz").unwrap();
        let error = Tokens::open(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("token.key") && error.contains("64 hex digits"),
            "{error}"
        );
    }
}
