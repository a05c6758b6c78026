//! Building an image from a Dockerfile, and pushing it, with the container engine's own builder.
//!
//! The context is sent as the engine's command line would send it: without what `.dockerignore` names, as root's files,
//! streamed. Nothing of the engine's configuration is read: credentials are the caller's.

mod context;
mod dockerignore;
mod push;

pub use push::{PushError, push};

use crate::Credentials;
use bollard::{
    Docker,
    query_parameters::{BuildImageOptionsBuilder, TagImageOptionsBuilder},
};
use context::{Context, ContextError};
use futures::StreamExt;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};
use towpath_types::{ImageReference, Outcome};

/// The engine's library gives up on a request after this time when no answer begins; a build begins to answer when it
/// has the whole context. Whoever wants less wraps the call in a timeout of their own.
const NO_LIMIT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What to build.
#[derive(Debug, Clone, Default)]
pub struct BuildRequest {
    /// The folder that `COPY` copies from.
    pub context_dir: PathBuf,
    /// The Dockerfile: a path in the context, or an absolute one, which may lie outside.
    pub dockerfile: PathBuf,
    /// `ARG`s. They can be read from the image's history, so no secrets.
    pub build_args: BTreeMap<String, String>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// The stage to stop at; the last when `None`.
    pub target: Option<String>,
    /// Names to give the image in the engine, once it is built.
    pub tags: Vec<ImageReference>,
    /// For the base images: whom to be at which registry.
    pub credentials: BTreeMap<String, Credentials>,
}

/// An image in the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// The engine's id of it, `sha256:…`: not the digest that a registry gives it.
    pub id: String,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The engine does not answer.
    #[error("no container engine answers: is it running, and may this user use its socket?")]
    NoEngine {
        /// What happened instead.
        source: bollard::errors::Error,
    },
    /// The Dockerfile is not there.
    #[error("there is no Dockerfile at `{}`", .0.display())]
    DockerfileMissing(PathBuf),
    /// The context is not a folder.
    #[error("the build context `{}` is not a folder", .0.display())]
    ContextMissing(PathBuf),
    /// A file of the context cannot be read.
    #[error("failed to read `{}` of the build context", path.display())]
    ContextUnreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A line of `.dockerignore` means nothing.
    #[error("`{line}` in `{}` is not a pattern: {why}", path.display())]
    Dockerignore {
        /// The file.
        path: PathBuf,
        /// The line.
        line: String,
        /// Why not.
        why: String,
    },
    /// `COPY` or `ADD` of something that is not in the context.
    #[error("`{instruction}` copies what is not in the build context (check the path, and `.dockerignore`): {message}")]
    SourceMissing {
        /// The Dockerfile's instruction.
        instruction: String,
        /// The engine's words.
        message: String,
    },
    /// The image behind `FROM` is not on this machine and cannot be pulled.
    #[error("the base image of `{instruction}` cannot be pulled: {message}")]
    BaseImage {
        /// The Dockerfile's instruction.
        instruction: String,
        /// The engine's words.
        message: String,
    },
    /// A command of the Dockerfile ended with another code than 0.
    #[error("`{instruction}` failed: {message}")]
    Command {
        /// The Dockerfile's instruction.
        instruction: String,
        /// The engine's words.
        message: String,
    },
    /// The engine does not accept the Dockerfile.
    #[error("the Dockerfile cannot be built{}: {message}", match instruction.as_str() {
        "" => String::new(),
        instruction => format!(" at `{instruction}`"),
    })]
    Dockerfile {
        /// The instruction that it was at; empty when at none.
        instruction: String,
        /// The engine's words.
        message: String,
    },
    /// The engine broke off.
    #[error("the container engine failed while it was building")]
    Engine {
        /// How.
        source: bollard::errors::Error,
    },
    /// The engine said that it is done, but not what it built.
    #[error("the container engine ended the build without naming an image")]
    NoImage,
    /// The image was built, but not named.
    #[error("failed to tag the image as `{tag}`")]
    Tag {
        /// The name.
        tag: String,
        /// Why not.
        source: bollard::errors::Error,
    },
}

impl BuildError {
    /// `Failed` when the repository has to change, `Errored` when it is this machine or what it stands on.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::DockerfileMissing(_)
            | Self::ContextMissing(_)
            | Self::Dockerignore { .. }
            | Self::SourceMissing { .. }
            | Self::Command { .. }
            | Self::Dockerfile { .. } => Outcome::Failed,
            Self::NoEngine { .. }
            | Self::ContextUnreadable { .. }
            | Self::BaseImage { .. }
            | Self::Engine { .. }
            | Self::NoImage
            | Self::Tag { .. } => Outcome::Errored,
        }
    }
}

impl From<ContextError> for BuildError {
    fn from(error: ContextError) -> Self {
        match error {
            ContextError::Unreadable { path, source } => Self::ContextUnreadable { path, source },
            ContextError::Pattern { path, line, why } => Self::Dockerignore { path, line, why },
            ContextError::DockerfileMissing(path) => Self::DockerfileMissing(path),
            ContextError::NotAFolder(path) => Self::ContextMissing(path),
        }
    }
}

/// Builds `request` and names the image; every line that the engine prints goes to `progress` as it arrives.
///
/// Never gives up by itself. Dropping the future ends the build in the engine. Safe to repeat: what did not change
/// comes from the engine's cache.
///
/// # Errors
/// See [`BuildError`]; [`BuildError::outcome`] says whose fault it is.
pub async fn build(
    docker: &Docker,
    request: &BuildRequest,
    progress: &mut (dyn FnMut(&str) + Send),
) -> Result<BuiltImage, BuildError> {
    let docker = docker.clone().with_timeout(NO_LIMIT);
    let (dir, file) = (request.context_dir.clone(), request.dockerfile.clone());
    let context = match tokio::task::spawn_blocking(move || Context::open(&dir, &file)).await {
        Ok(context) => context?,
        Err(e) => {
            return Err(BuildError::ContextUnreadable {
                path: request.context_dir.clone(),
                source: std::io::Error::other(e),
            });
        }
    };
    let mut options = BuildImageOptionsBuilder::default()
        .dockerfile(&context.dockerfile)
        .rm(true)
        .forcerm(true)
        .buildargs(&request.build_args.clone().into_iter().collect())
        .labels(&request.labels.clone().into_iter().collect());
    if let Some(target) = &request.target {
        options = options.target(target);
    }
    let logins = request.credentials.iter();
    let logins = logins
        .map(|(registry, credentials)| (registry.clone(), credentials.for_engine(registry)))
        .collect();
    let (archive, mut unreadable) = crate::tar_stream::stream_tar(move |archive| context.write(archive));
    let body = bollard::body_try_stream(archive);
    let mut answers = docker.build_image(options.build(), Some(logins), Some(body));

    let mut printer = Printer::new(progress);
    let mut id = None;
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(info) => {
                if let Some(text) = &info.stream {
                    printer.print(text);
                }
                if let Some(status) = &info.status {
                    printer.status(info.id.as_deref(), status);
                }
                id = info.aux.and_then(|aux| aux.id).or(id);
            }
            Err(e) => {
                printer.end();
                // When the archive broke off, what the engine says about it is beside the point.
                return Err(match unreadable.try_recv() {
                    Ok(cause) => cause.into(),
                    Err(_) => classify(e, &printer.instruction),
                });
            }
        }
    }
    printer.end();
    let image = BuiltImage {
        id: id.ok_or(BuildError::NoImage)?,
    };
    for tag in &request.tags {
        name_image(&docker, &image, tag)
            .await
            .map_err(|source| BuildError::Tag {
                tag: tag.to_string(),
                source,
            })?;
    }
    Ok(image)
}

/// Gives an image of the engine another name.
async fn name_image(docker: &Docker, image: &BuiltImage, name: &ImageReference) -> Result<(), bollard::errors::Error> {
    let options = TagImageOptionsBuilder::default()
        .repo(&name.name())
        .tag(name.tag.as_deref().unwrap_or("latest"))
        .build();
    docker.tag_image(&image.id, Some(options)).await
}

/// Whether the engine could not even be spoken to.
fn is_unreachable(error: &bollard::errors::Error) -> bool {
    use bollard::errors::Error;
    match error {
        Error::HyperLegacyError { err } => err.is_connect(),
        Error::SocketNotFoundError(_) => true,
        _ => false,
    }
}

/// What the engine's words mean. It has no codes for this; the words are those of its classic builder.
fn classify(error: bollard::errors::Error, instruction: &str) -> BuildError {
    use bollard::errors::Error;
    if is_unreachable(&error) {
        return BuildError::NoEngine { source: error };
    }
    let message = match &error {
        Error::DockerStreamError { error } => error.trim().to_string(),
        // Refused before anything was done: the Dockerfile's syntax.
        Error::DockerResponseServerError {
            status_code: 400,
            message,
        } => message.trim().to_string(),
        _ => return BuildError::Engine { source: error },
    };
    let instruction = instruction.to_string();
    let word = instruction
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_ascii_uppercase();
    let copies = matches!(word.as_str(), "COPY" | "ADD");
    let absent = [
        "not found in build context",
        "no such file or directory",
        "file does not exist",
        "no source files",
    ];
    if copies && absent.iter().any(|words| message.contains(words)) {
        BuildError::SourceMissing { instruction, message }
    } else if word == "FROM" && !message.contains("invalid reference format") {
        BuildError::BaseImage { instruction, message }
    } else if message.contains("returned a non-zero code") {
        BuildError::Command { instruction, message }
    } else {
        BuildError::Dockerfile { instruction, message }
    }
}

/// Turns the engine's pieces of text into lines, and remembers which instruction it is at.
struct Printer<'a> {
    progress: &'a mut (dyn FnMut(&str) + Send),
    line: String,
    last_status: BTreeMap<String, String>,
    instruction: String,
}

impl<'a> Printer<'a> {
    fn new(progress: &'a mut (dyn FnMut(&str) + Send)) -> Self {
        Self {
            progress,
            line: String::new(),
            last_status: BTreeMap::new(),
            instruction: String::new(),
        }
    }

    fn print(&mut self, text: &str) {
        let mut rest = text;
        while let Some((head, tail)) = rest.split_once('\n') {
            self.line.push_str(head);
            self.end();
            rest = tail;
        }
        self.line.push_str(rest);
        self.notice_instruction();
    }

    /// A status of one thing of many (a layer that is pulled or pushed): only when it changes.
    fn status(&mut self, id: Option<&str>, status: &str) {
        let id = id.unwrap_or_default();
        if !id.is_empty() && self.last_status.get(id).is_some_and(|last| last == status) {
            return;
        }
        self.last_status.insert(id.to_string(), status.to_string());
        let line = if id.is_empty() {
            status.to_string()
        } else {
            format!("{id}: {status}")
        };
        self.end();
        self.print(&line);
        self.end();
    }

    /// Ends a line that the engine began.
    fn end(&mut self) {
        self.notice_instruction();
        let line = std::mem::take(&mut self.line);
        let line = line.trim_end();
        if !line.is_empty() {
            (self.progress)(line);
        }
    }

    /// `Step 2/5 : COPY a b`
    fn notice_instruction(&mut self) {
        if let Some(step) = self.line.strip_prefix("Step ")
            && let Some((_, instruction)) = step.split_once(" : ")
        {
            self.instruction = instruction.trim().to_string();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_lines() {
        let mut lines = Vec::new();
        let mut progress = |line: &str| lines.push(line.to_string());
        let mut printer = Printer::new(&mut progress);
        printer.print("Step 1/2 : COPY a");
        printer.print(" b\n");
        printer.print("\n ---> abc\nhalf");
        printer.status(Some("layer"), "Downloading");
        printer.status(Some("layer"), "Downloading");
        printer.status(None, "Digest: x");
        printer.print("rest");
        printer.end();
        assert_eq!(printer.instruction, "COPY a b");
        assert_eq!(
            lines,
            [
                "Step 1/2 : COPY a b",
                " ---> abc",
                "half",
                "layer: Downloading",
                "Digest: x",
                "rest"
            ]
        );
    }
}
