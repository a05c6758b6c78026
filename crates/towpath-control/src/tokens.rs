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
/// - `grant` of an issued token returns its grant, on every server that shares the key, for ever.
/// - `grant` of anything else is `None`.
/// - Two issues of one grant are the same token.
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
        let seal = hex::decode(seal).ok()?;
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

    #[test]
    fn a_token_is_known_again_after_a_restart_and_by_nobody_else() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let node = NodeId {
            job: Uuid::now_v7().into(),
            attempt: 2,
            node: 3,
        };
        let grants = [
            Grant::Owner,
            Grant::Agent(node),
            Grant::Step(node),
            Grant::JobImages {
                project: "my.app".into(),
                job: node.job,
                attempt: 7,
            },
            Grant::Pull {
                project: "my.app".into(),
            },
            Grant::Hook {
                project: "my.app".into(),
                push: Uuid::new_v4(),
            },
        ];
        let tokens = Tokens::open(dir.path()).unwrap();
        for grant in grants {
            let token = tokens.issue(&grant);
            assert_eq!(Tokens::open(dir.path()).unwrap().check(token.expose()), Some(grant));
            assert_eq!(Tokens::open(other.path()).unwrap().check(token.expose()), None);
            for (from, to) in [("step.", "agent."), ("pull.", "images."), ("agent.", "owner.")] {
                let forged = token.expose().replace(from, to);
                assert!(forged == token.expose() || tokens.check(&forged).is_none());
            }
        }
        for bad in ["", "tp.", "tp.owner", "tp.owner.00", "owner"] {
            assert_eq!(tokens.check(bad), None, "{bad}");
        }
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
