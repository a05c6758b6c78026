//! Tar archives written while they are sent, so that neither a build context nor a program is ever whole in memory.

use bytes::Bytes;
use futures::{Stream, StreamExt};
use std::io::{self, Read, Write};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

/// The size of the pieces to send, in bytes.
const PIECE: usize = 256 * 1024;

struct Sender {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Sender {
    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        self.pieces
            .blocking_send(Ok(piece.into()))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == PIECE {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

/// Writes an archive with `write`, on a blocking thread, while the stream is read.
///
/// When `write` fails, the stream ends with an error, so that no engine mistakes half an archive for a whole one. The
/// second value receives the error; it stays empty when the reader went away first.
pub fn stream_tar<E: Send + 'static>(
    write: impl FnOnce(&mut tar::Builder<&mut dyn Write>) -> Result<(), E> + Send + 'static,
) -> (
    impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    oneshot::Receiver<E>,
) {
    let (pieces, receiver) = mpsc::channel(4);
    let (failure, failed) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let mut sender = Sender {
            pieces,
            buffer: Vec::with_capacity(PIECE),
        };
        let mut archive = tar::Builder::new(&mut sender as &mut dyn Write);
        let written = write(&mut archive);
        // Ends the archive: two empty blocks.
        let ended = archive.into_inner().map(drop).and_then(|()| sender.flush());
        // If the reader went away, the error is a consequence of that.
        if sender.pieces.is_closed() {
            return;
        }
        if written.is_err() || ended.is_err() {
            if let Err(e) = written {
                // The receiver may be gone.
                let _ = failure.send(e);
            }
            let end = io::Error::other("the archive could not be written to its end");
            let _ = sender.pieces.blocking_send(Err(end));
        }
    });
    (ReceiverStream::new(receiver).fuse(), failed)
}

/// Reads exactly the promised number of bytes. A file that shrinks or grows meanwhile must not shift what follows in
/// the archive.
#[derive(Debug)]
pub struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Exactly<R> {
    /// The first `length` bytes of `inner`; reading fails when it has fewer.
    #[must_use]
    pub fn new(inner: R, length: u64) -> Self {
        Self { inner, left: length }
    }
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        match self.inner.read(&mut buffer[..most])? {
            0 => Err(io::Error::other("the file became shorter while it was read")),
            read => {
                self.left -= read as u64;
                Ok(read)
            }
        }
    }
}
