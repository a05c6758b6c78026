//! Building an image from a Dockerfile.

use super::{
    buildkit::{Need, needs_buildkit},
    context::{BuildContext, ContextError},
    progress::Printer,
};
use futures::StreamExt;
use std::{collections::BTreeMap, path::PathBuf};
use towpath_container::{
    BuildProgress, BuildSettings, ContainerClient, ContainerError, ErrorKind, archive::stream_tar,
};
use towpath_types::{ImageReference, Outcome, RegistryCredentials};

/// What to build.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct BuildRequest {
    /// The folder that `COPY` copies from.
    pub context_dir: PathBuf,
    /// The Dockerfile: a path in the context, or an absolute one, which may lie outside.
    pub dockerfile: PathBuf,
    /// `ARG`s. They can be read from the image's history, so give no secrets.
    pub build_args: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// The stage to stop at; the last when `None`.
    pub target: Option<String>,
    /// Names that the image gets in the engine once it is built.
    pub tags: Vec<ImageReference>,
    /// The credentials for base images, keyed by registry.
    pub credentials: BTreeMap<String, RegistryCredentials>,
}

/// An image in the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// The engine's own id, `sha256:…`. It is not the digest that a registry gives the image.
    pub id: String,
}

/// Why no image was built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The engine does not answer.
    #[error("no container engine answers: is it running, and may this user use its socket?")]
    #[allow(missing_docs)]
    NoEngine { source: ContainerError },
    /// The Dockerfile does not exist.
    #[error("there is no Dockerfile at `{}`", .0.display())]
    DockerfileMissing(PathBuf),
    /// The Dockerfile uses a feature that only BuildKit has.
    #[error(
        "`{}:{line}`: `{what}` needs BuildKit, and Towpath builds with the engine's own builder, which does not have it. Write it without, or \
         build the image in a job with `docker build` and `docker push`: a deployment takes what a job pushed", path.display()
    )]
    NeedsBuildKit {
        #[allow(missing_docs)]
        path: PathBuf,
        /// Counts from 1.
        line: usize,
        /// In the Dockerfile's own words.
        what: String,
    },
    /// The context is not a folder.
    #[error("the build context `{}` is not a folder", .0.display())]
    ContextMissing(PathBuf),
    /// A file of the context cannot be read.
    #[error("failed to read `{}` of the build context", path.display())]
    #[allow(missing_docs)]
    ContextUnreadable { path: PathBuf, source: std::io::Error },
    /// A line of `.dockerignore` is not a valid pattern.
    #[error("`{line}` in `{}` is not a pattern: {why}", path.display())]
    #[allow(missing_docs)]
    Dockerignore { path: PathBuf, line: String, why: String },
    /// `COPY` or `ADD` of something that is not in the context.
    #[error("`{instruction}` copies what is not in the build context (check the path, and `.dockerignore`): {message}")]
    #[allow(missing_docs)]
    SourceMissing { instruction: String, message: String },
    /// The image behind `FROM` is not on this machine and cannot be pulled.
    #[error("the base image of `{instruction}` cannot be pulled: {message}")]
    #[allow(missing_docs)]
    BaseImage { instruction: String, message: String },
    /// A command of the Dockerfile exited with a code other than 0.
    #[error("`{instruction}` failed: {message}")]
    #[allow(missing_docs)]
    Command { instruction: String, message: String },
    /// The engine does not accept the Dockerfile.
    #[error("the Dockerfile cannot be built{}: {message}", match instruction.as_str() {
        "" => String::new(),
        instruction => format!(" at `{instruction}`"),
    })]
    Dockerfile {
        /// Empty if the engine had not reached an instruction.
        instruction: String,
        #[allow(missing_docs)]
        message: String,
    },
    /// The engine failed, or the connection to it broke.
    #[error("the container engine failed while it was building")]
    #[allow(missing_docs)]
    Engine { source: ContainerError },
    /// The engine reports success, but not the image's id.
    #[error("the container engine ended the build without naming an image")]
    NoImage,
    /// The image was built, but not named.
    #[error("failed to tag the image as `{tag}`")]
    #[allow(missing_docs)]
    Tag { tag: String, source: ContainerError },
}

impl BuildError {
    /// `Failed` when the repository has to change, `Errored` when the cause is this machine or something it depends on.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::DockerfileMissing(_)
            | Self::NeedsBuildKit { .. }
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

/// Builds an image and names it. Every line that the engine prints goes to `progress` as it arrives.
///
/// It has no timeout. Dropping the future ends the build in the engine. Safe to repeat: unchanged steps come from the engine's
/// cache.
///
/// # Errors
/// See [`BuildError`]; [`BuildError::outcome`] says whose fault it is.
pub async fn build(
    engine: &ContainerClient,
    request: &BuildRequest,
    progress: &mut (dyn FnMut(&str) + Send),
) -> Result<BuiltImage, BuildError> {
    let (dir, file, arguments) = (
        request.context_dir.clone(),
        request.dockerfile.clone(),
        request.build_args.clone(),
    );
    let open = move || {
        let context = BuildContext::open(&dir, &file)?;
        match needs_buildkit(&context.dockerfile_text()?, &arguments) {
            Some(Need { line, what }) => Err(BuildError::NeedsBuildKit { path: file, line, what }),
            None => Ok(context),
        }
    };
    let context = match tokio::task::spawn_blocking(open).await {
        Ok(context) => context?,
        Err(e) => {
            return Err(BuildError::ContextUnreadable {
                path: request.context_dir.clone(),
                source: std::io::Error::other(e),
            });
        }
    };
    let settings = BuildSettings {
        dockerfile: context.dockerfile.clone(),
        arguments: request.build_args.clone(),
        labels: request.labels.clone(),
        target: request.target.clone(),
        credentials: request.credentials.clone(),
    };
    let (archive, mut unreadable) = stream_tar(move |archive| context.write(archive));
    let mut answers = engine.build(&settings, archive);
    let mut printer = Printer::new(progress);
    let mut id = None;
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(BuildProgress::Printed(text)) => printer.print(&text),
            Ok(BuildProgress::Status { id, text }) => printer.status(id.as_deref(), &text),
            Ok(BuildProgress::Built(built)) => id = Some(built),
            Err(error) => {
                printer.end();
                // When the archive broke off, report that, not the engine's error about it.
                return Err(match unreadable.try_recv() {
                    Ok(cause) => cause.into(),
                    Err(_) => classify(error, &printer.instruction),
                });
            }
        }
    }
    printer.end();
    let image = BuiltImage {
        id: id.ok_or(BuildError::NoImage)?,
    };
    for tag in &request.tags {
        let failed = |source| BuildError::Tag {
            tag: tag.to_string(),
            source,
        };
        engine.tag(&image.id, tag).await.map_err(failed)?;
    }
    Ok(image)
}

/// Maps the engine's message to an error. The engine has no codes for this; the words are those of its classic builder.
fn classify(error: ContainerError, instruction: &str) -> BuildError {
    if error.kind() == ErrorKind::Unreachable {
        return BuildError::NoEngine { source: error };
    }
    // With status 400, the engine refuses a Dockerfile's syntax before it does anything.
    if !error.is_said_midway() && error.status() != Some(400) {
        return BuildError::Engine { source: error };
    }
    let message = error.said();
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
