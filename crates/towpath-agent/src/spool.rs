//! A step's log on its way to the server: masked, limited in size, and on disk until the server has it.

use crate::stderr::say;
use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::sync::Notify;
use towpath_types::{Mask, Masker};

/// The size limit of a log if the job does not set one.
pub(crate) const DEFAULT_LIMIT_BYTES: u64 = 100 << 20;

/// One step's log, shared by its writer and its sender.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) step: u32,
    pub(crate) path: PathBuf,
    length: AtomicU64,
    finished: AtomicBool,
    /// Why the rest of the log could not be written.
    failure: OnceLock<String>,
}

impl Log {
    /// Why the rest of the log was lost, if it was.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// How many bytes may be sent.
    pub(crate) fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    /// Whether the log is complete.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }
}

/// The writer of one log. Dropping it ends the log.
pub(crate) struct Spool {
    log: Arc<Log>,
    file: File,
    masker: Masker,
    written: Arc<Notify>,
    limit: u64,
    cut: bool,
    buffer: Vec<u8>,
}

impl Spool {
    /// Begins a log in `directory`. Notifies `written` whenever the log grows.
    pub(crate) fn begin(
        directory: &Path,
        step: u32,
        mask: &Mask,
        limit: u64,
        written: Arc<Notify>,
    ) -> io::Result<(Self, Arc<Log>)> {
        let path = directory.join(format!("{step}.log"));
        let file = File::create(&path)?;
        let log = Arc::new(Log {
            step,
            path,
            length: AtomicU64::new(0),
            finished: AtomicBool::new(false),
            failure: OnceLock::new(),
        });
        let spool = Self {
            log: Arc::clone(&log),
            file,
            masker: mask.masker(),
            written,
            limit,
            cut: false,
            buffer: Vec::new(),
        };
        Ok((spool, log))
    }

    /// Appends output. It holds back what may be the beginning of a secret until more output decides it.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        if self.cut {
            return;
        }
        let mut out = std::mem::take(&mut self.buffer);
        self.masker.push(bytes, &mut out);
        self.append(&mut out);
        self.buffer = out;
    }

    /// Appends a line by the agent itself.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) {
        self.write(line.as_ref().as_bytes());
        self.write(b"\n");
    }

    /// Writes on this thread: a write to the page cache is too short to need another thread.
    fn append(&mut self, out: &mut Vec<u8>) {
        if out.is_empty() || self.cut {
            out.clear();
            return;
        }
        let length = self.log.length();
        let room = self.limit.saturating_sub(length);
        if out.len() as u64 > room {
            self.cut = true;
            out.truncate(usize::try_from(room).unwrap_or(usize::MAX));
            let note = format!(
                "\n[this step's log is longer than {} bytes; the rest is not kept]\n",
                self.limit
            );
            out.extend_from_slice(note.as_bytes());
        }
        match self.file.write_all(out) {
            Ok(()) => {
                self.log.length.store(length + out.len() as u64, Ordering::Release);
                self.written.notify_one();
            }
            // Without its log, nobody can tell what a step did, so whoever sends the log ends the job.
            Err(error) => {
                self.cut = true;
                say(&format!(
                    "failed to write to `{}`: {error}; the rest of the log is lost",
                    self.log.path.display()
                ));
                self.note_lost_rest(&error);
                let why = format!("the log of a step could not be written: {error}");
                // The first failure is the one that counts.
                let _ = self.log.failure.set(why);
                self.written.notify_one();
            }
        }
        out.clear();
    }

    /// Ends the log with a line about the error. The line takes the room of the last output, which was only partly written.
    fn note_lost_rest(&mut self, error: &io::Error) {
        let length = self.log.length();
        let note = format!("\n[failed to write this step's log: {error}; the rest is not kept]\n");
        let written = self
            .file
            .set_len(length)
            .and_then(|()| self.file.seek(SeekFrom::Start(length)))
            .and_then(|_| self.file.write_all(note.as_bytes()));
        if written.is_ok() {
            self.log.length.store(length + note.len() as u64, Ordering::Release);
            self.written.notify_one();
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let mut rest = std::mem::take(&mut self.buffer);
        self.masker.finish(&mut rest);
        self.append(&mut rest);
        self.log.finished.store(true, Ordering::Release);
        self.written.notify_one();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;
    use towpath_types::SecretString;

    #[test]
    fn a_log_is_masked_and_cut_off_with_a_note() {
        let directory = tempfile::tempdir().unwrap();
        let secrets = [SecretString::new("hunter2".into())];
        let (mut spool, log) = Spool::begin(directory.path(), 3, &Mask::new(&secrets), 20, Arc::default()).unwrap();
        spool.write(b"say hun");
        assert_eq!(fs::read_to_string(&log.path).unwrap(), "say ");
        spool.write(b"ter2\n");
        assert_eq!(fs::read_to_string(&log.path).unwrap(), "say ****\n");
        for _ in 0..100 {
            spool.line("0123456789");
        }
        assert!(!log.is_finished());
        drop(spool);
        assert!(log.is_finished());
        let text = fs::read_to_string(&log.path).unwrap();
        assert!(
            text.starts_with("say ****\n0123456789\n\n[this step's log is longer than 20 bytes"),
            "{text}"
        );
        assert!(text.len() < 120);
        assert_eq!(log.length(), text.len() as u64);
    }

    /// `/dev/full` is a disk that is always full.
    #[test]
    fn a_full_disk_loses_the_log_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/full", directory.path().join("0.log")).unwrap();
        let (mut spool, log) = Spool::begin(
            directory.path(),
            0,
            &Mask::new::<SecretString>(&[]),
            1000,
            Arc::default(),
        )
        .unwrap();
        spool.line("lost");
        spool.line("and more");
        drop(spool);
        assert!(log.is_finished());
        assert_eq!(log.length(), 0);
        assert!(log.failure().unwrap().contains("No space left on device"));
    }
}
