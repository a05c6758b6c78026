//! What containers print.

use crate::{
    client::ContainerClient,
    error::{ContainerError, status},
};
use bollard::query_parameters::LogsOptionsBuilder;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use std::collections::VecDeque;

/// Where output begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// At the oldest line that the engine still has.
    All,
    /// This many lines before the end.
    Lines(u32),
}

impl ContainerClient {
    /// A container's output, standard output and error in order, in pieces of any length. With `follow`, continues with
    /// new output until the container ends.
    pub fn output(
        &self,
        container: &str,
        tail: Tail,
        follow: bool,
    ) -> impl Stream<Item = Result<Bytes, ContainerError>> + Send + 'static + use<> {
        let tail = match tail {
            Tail::All => "all".to_string(),
            Tail::Lines(lines) => lines.to_string(),
        };
        let options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .follow(follow)
            .tail(&tail)
            .build();
        let failed = ContainerError::of(format!("read what the container `{container}` printed"));
        self.docker
            .logs(container, Some(options))
            .map(move |piece| piece.map(|piece| piece.into_bytes()).map_err(&failed))
    }

    /// The last whole lines of a container's output, at most `limit` bytes; none when the container is gone.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn last_output(&self, container: &str, limit: usize) -> Result<Vec<u8>, ContainerError> {
        self.last_output_of(container, Tail::All, limit).await
    }

    /// The last `lines` lines of a container's output, limited to whole lines in the last `limit` bytes; none when the
    /// container is gone.
    ///
    /// # Errors
    /// When the engine cannot be asked.
    pub async fn last_lines(&self, container: &str, lines: u32, limit: usize) -> Result<Vec<u8>, ContainerError> {
        self.last_output_of(container, Tail::Lines(lines), limit).await
    }

    async fn last_output_of(&self, container: &str, tail: Tail, limit: usize) -> Result<Vec<u8>, ContainerError> {
        let mut pieces = std::pin::pin!(self.output(container, tail, false));
        let mut last: VecDeque<u8> = VecDeque::new();
        let mut is_cut = false;
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(piece) => {
                    last.extend(piece);
                    let excess = last.len().saturating_sub(limit);
                    last.drain(..excess);
                    is_cut |= excess > 0;
                }
                Err(error) if error.status() == Some(404) => break,
                Err(error) => return Err(error),
            }
        }
        // A partial line may begin with the second half of a secret, which no mask would recognise.
        if is_cut {
            let line_end = last
                .iter()
                .position(|byte| *byte == b'\n')
                .map_or(last.len(), |at| at + 1);
            last.drain(..line_end);
        }
        Ok(last.into())
    }

    /// Whether `path` exists in a container's file system, running or not.
    ///
    /// # Errors
    /// When the container is not there, or the engine cannot be asked.
    pub async fn has_path(&self, container: &str, path: &str) -> Result<bool, ContainerError> {
        use bollard::query_parameters::ContainerArchiveInfoOptionsBuilder;
        let look = ContainerArchiveInfoOptionsBuilder::default().path(path).build();
        match self.docker.get_container_archive_info(container, Some(look)).await {
            Ok(_) => Ok(true),
            Err(error) if status(&error) == Some(404) && self.inspect(container).await?.is_some() => Ok(false),
            Err(error) => Err(ContainerError::of(format!(
                "look for `{path}` in the container `{container}`"
            ))(error)),
        }
    }

    /// Unpacks an archive into a container's file system, running or not, below `path`.
    ///
    /// # Errors
    /// When the container or the path is not there.
    pub async fn unpack(&self, container: &str, path: &str, archive: Vec<u8>) -> Result<(), ContainerError> {
        use bollard::query_parameters::UploadToContainerOptionsBuilder;
        let options = UploadToContainerOptionsBuilder::default().path(path).build();
        let unpacked = self
            .docker
            .upload_to_container(container, Some(options), bollard::body_full(archive.into()));
        unpacked.await.map_err(ContainerError::of(format!(
            "write to `{path}` in the container `{container}`"
        )))
    }
}
