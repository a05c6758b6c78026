//! Containers' output as whole lines, masked.

use bytes::Bytes;
use futures::{Stream, StreamExt, stream::BoxStream};
use towpath_types::{Mask, Masker, with_causes};

/// A longer line is passed on in pieces.
const LONGEST_LINE: usize = 64 << 10;

/// Masks a stream and passes it on in whole lines, each after a prefix.
pub(crate) struct LineCutter {
    masker: Masker,
    prefix: String,
    rest: Vec<u8>,
}

impl LineCutter {
    pub(crate) fn new(mask: &Mask, prefix: String) -> Self {
        Self {
            masker: mask.masker(),
            prefix,
            rest: Vec::new(),
        }
    }

    /// Takes a piece. Returns the lines that it completes.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Option<Bytes> {
        self.masker.push(piece, &mut self.rest);
        let end = match self.rest.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => at + 1,
            None if self.rest.len() > LONGEST_LINE => self.rest.len(),
            None => return None,
        };
        let whole: Vec<u8> = self.rest.drain(..end).collect();
        Some(self.prefixed(whole))
    }

    /// Returns the rest once the stream has ended.
    pub(crate) fn finish(mut self) -> Option<Bytes> {
        self.masker.finish(&mut self.rest);
        let rest = std::mem::take(&mut self.rest);
        (!rest.is_empty()).then(|| self.prefixed(rest))
    }

    fn prefixed(&self, lines: Vec<u8>) -> Bytes {
        if self.prefix.is_empty() {
            return lines.into();
        }
        let mut out = Vec::with_capacity(lines.len() + self.prefix.len());
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            out.extend_from_slice(self.prefix.as_bytes());
            out.extend_from_slice(line);
        }
        out.into()
    }
}

/// Cuts a container's output into whole lines. A read error ends the stream.
pub(crate) fn whole_lines<E: std::error::Error + Send + 'static>(
    pieces: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    cutter: LineCutter,
) -> BoxStream<'static, Bytes> {
    futures::stream::unfold((pieces.boxed(), Some(cutter)), |(mut pieces, mut cutter)| async move {
        loop {
            let lines = cutter.as_mut()?;
            match pieces.next().await {
                Some(Ok(piece)) => {
                    if let Some(out) = lines.push(&piece) {
                        return Some((out, (pieces, cutter)));
                    }
                }
                Some(Err(error)) => {
                    tracing::debug!(error = with_causes(&error), "a container's output ends early");
                    let rest = cutter.take().and_then(LineCutter::finish)?;
                    return Some((rest, (pieces, None)));
                }
                None => {
                    let rest = cutter.take().and_then(LineCutter::finish)?;
                    return Some((rest, (pieces, None)));
                }
            }
        }
    })
    .boxed()
}
