//! Archives: packed while they are sent and unpacked while they arrive, so that they never have to fit into memory.

use crate::client::{Body, Client, ClientError, streamed};
use bytes::Bytes;
use futures::TryStreamExt;
use http_body_util::BodyExt;
use hyper::{Response, StatusCode, body::Incoming};
use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::sync::mpsc;
use tokio_util::io::{StreamReader, SyncIoBridge};
use walkdir::WalkDir;

const PIECE_BYTES: usize = 128 << 10;
/// Zstandard's default level: the size of gzip in little more than a tenth of the time.
const LEVEL: i32 = 3;

/// A file, or a directory with everything in it, and its name in the archive.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) path: PathBuf,
    pub(crate) name: PathBuf,
}

/// A body that is being packed. `failure` is set if packing fails.
pub(crate) struct Packed {
    pub(crate) body: Body,
    pub(crate) failure: Arc<OnceLock<String>>,
}

/// Packs `items` into a tar archive compressed with zstd. Links stay links; sockets and devices are left out.
pub(crate) fn pack(items: Vec<Item>) -> Packed {
    let (sender, mut receiver) = mpsc::channel::<io::Result<Bytes>>(4);
    let failure = Arc::new(OnceLock::new());
    let told = Arc::clone(&failure);
    tokio::task::spawn_blocking(move || {
        let mut pieces = Pieces {
            sender,
            buffer: Vec::with_capacity(PIECE_BYTES),
        };
        if let Err(error) = write_archive(&items, &mut pieces) {
            // If the channel is closed, the request broke off, and the client reports that.
            if !pieces.sender.is_closed() {
                let _ = told.set(error.to_string());
            }
            let _ = pieces.sender.blocking_send(Err(error));
        }
    });
    let body = streamed(futures::stream::poll_fn(move |cx| receiver.poll_recv(cx)));
    Packed { body, failure }
}

fn write_archive(items: &[Item], pieces: &mut Pieces) -> io::Result<()> {
    let mut builder = tar::Builder::new(zstd::Encoder::new(&mut *pieces, LEVEL)?);
    builder.follow_symlinks(false);
    builder.sparse(false);
    for item in items {
        // Keep a link as a link, even if it is the item itself. The archive does not hold the link's target.
        for entry in WalkDir::new(&item.path)
            .follow_root_links(item.name.as_os_str().is_empty())
            .sort_by_file_name()
        {
            let entry = entry.map_err(io::Error::from)?;
            let inside = entry.path().strip_prefix(&item.path).map_err(io::Error::other)?;
            // Joining an empty path would add a slash to a file's name.
            let name = if inside.as_os_str().is_empty() {
                item.name.clone()
            } else {
                item.name.join(inside)
            };
            let kept = append(&mut builder, entry.path(), &name);
            kept.map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("failed to pack `{}`: {error}", entry.path().display()),
                )
            })?;
        }
    }
    builder.into_inner()?.finish()?.flush()
}

fn append(builder: &mut tar::Builder<impl Write>, path: &Path, name: &Path) -> io::Result<()> {
    // An empty name is the root itself, which exists already.
    if name.as_os_str().is_empty() {
        return Ok(());
    }
    let metadata = fs::symlink_metadata(path)?;
    let kind = metadata.file_type();
    if kind.is_dir() {
        return builder.append_dir(name, path);
    }
    if kind.is_symlink() {
        return builder.append_path_with_name(path, name);
    }
    if !kind.is_file() {
        return Ok(());
    }
    // If the file grows meanwhile, do not let the extra bytes overwrite the next entry.
    let file = File::open(path)?;
    let size = metadata.len();
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&metadata);
    header.set_size(size);
    let mut counted = Counted {
        inner: file.take(size),
        count: 0,
    };
    builder.append_data(&mut header, name, &mut counted)?;
    if counted.count == size {
        Ok(())
    } else {
        Err(io::Error::other("the file shrank while it was being packed"))
    }
}

struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        Ok(count)
    }
}

/// A writer that cuts what it gets into the pieces of a body.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE_BYTES));
        self.sender
            .blocking_send(Ok(piece.into()))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Sends an archive of `items` to `path`.
pub(crate) async fn send(client: &Client, path: &str, items: &[Item]) -> Result<StatusCode, ClientError> {
    client
        .persist(|| {
            let Packed { body, failure } = pack(items.to_vec());
            async move {
                let sent = client.put_once(path, body).await;
                match (sent, failure.get()) {
                    (Err(ClientError::Away(_)), Some(message)) => Err(ClientError::Refused {
                        status: StatusCode::BAD_REQUEST,
                        message: message.clone(),
                    }),
                    (sent, _) => sent,
                }
            }
        })
        .await
}

/// Where an entry goes: a directory that it must not leave, and a path below that directory.
pub(crate) type Target = (PathBuf, PathBuf);

/// Decides where the entries of an archive go.
pub(crate) trait Destination: Send + 'static {
    /// Where `name` goes; `None` if the archive must not contain it.
    fn target(&self, name: &Path) -> Option<Target>;

    /// Called before anything but a directory is written. An error stops the unpacking.
    fn admit(&mut self, _name: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// Unpacks everything below one directory.
#[derive(Debug, Clone)]
pub(crate) struct Under(pub(crate) PathBuf);

impl Destination for Under {
    fn target(&self, name: &Path) -> Option<Target> {
        Some((self.0.clone(), name.to_path_buf()))
    }
}

/// Unpacks the server's answer to `path`, and asks again if the answer breaks off. `None` if the server has nothing there.
///
/// `destination` is called for each attempt, and `found` for each answer before it is unpacked.
pub(crate) async fn receive<D: Destination>(
    client: &Client,
    path: &str,
    compressed: bool,
    mut destination: impl FnMut() -> D,
    found: impl Fn(&Response<Incoming>),
) -> Result<Option<()>, ClientError> {
    let found = &found;
    client
        .persist(|| {
            let destination = destination();
            let response = client.get_stream_once(path);
            async move {
                let Some(response) = response.await? else {
                    return Ok(None);
                };
                found(&response);
                unpack_body(response, compressed, destination).await.map(Some)
            }
        })
        .await
}

async fn unpack_body(
    response: Response<Incoming>,
    compressed: bool,
    mut destination: impl Destination,
) -> Result<(), ClientError> {
    let broken = Arc::new(AtomicBool::new(false));
    let noticed = Arc::clone(&broken);
    let pieces = response.into_body().into_data_stream().map_err(move |error| {
        noticed.store(true, Ordering::Release);
        io::Error::other(error)
    });
    let reader = SyncIoBridge::new(StreamReader::new(pieces));
    let unpacked = tokio::task::spawn_blocking(move || {
        if compressed {
            unpack(zstd::Decoder::new(reader)?, &mut destination)
        } else {
            unpack(reader, &mut destination)
        }
    })
    .await
    .unwrap_or_else(|error| Err(io::Error::other(error)));
    match unpacked {
        Ok(()) => Ok(()),
        Err(error) if broken.load(Ordering::Acquire) => Err(ClientError::Away(error.to_string())),
        Err(error) => Err(ClientError::Refused {
            status: StatusCode::OK,
            message: error.to_string(),
        }),
    }
}

/// Unpacks a tar archive. Writes nothing outside the directories that `destination` names, whatever the archive contains and
/// whatever links exist there already. Replaces files that exist.
pub(crate) fn unpack(mut reader: impl Read, destination: &mut impl Destination) -> io::Result<()> {
    let mut directories = Vec::new();
    {
        let mut archive = tar::Archive::new(&mut reader);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let name = entry.path()?.into_owned();
            let placed = unpack_entry(&mut entry, &name, destination, &mut directories);
            placed.map_err(|error| {
                io::Error::new(error.kind(), format!("failed to unpack `{}`: {error}", name.display()))
            })?;
        }
    }
    // Read to the end, to notice a stream that was cut off.
    io::copy(&mut reader, &mut io::sink())?;
    // Last, because files have to be written into directories that will be read-only.
    for (path, mode) in directories.into_iter().rev() {
        fs::set_permissions(path, Permissions::from_mode(mode & 0o777))?;
    }
    Ok(())
}

fn unpack_entry<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    name: &Path,
    destination: &mut impl Destination,
    directories: &mut Vec<(PathBuf, u32)>,
) -> io::Result<()> {
    use tar::EntryType;
    let kind = entry.header().entry_type();
    let mode = entry.header().mode()?;
    if kind == EntryType::XGlobalHeader {
        return Ok(());
    }
    let Some(path) = inside(destination, name)? else {
        return Ok(());
    };
    if kind != EntryType::Directory {
        destination.admit(name)?;
    }
    match kind {
        EntryType::Directory => {
            if !path.is_dir() {
                fs::create_dir(&path)?;
            } else if fs::symlink_metadata(&path)?.is_symlink() {
                // Keep a link to a directory that exists already.
                return Ok(());
            }
            directories.push((path, mode));
        }
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            clear(&path)?;
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode & 0o777)
                .open(&path)?;
            io::copy(entry, &mut file)?;
            file.set_permissions(Permissions::from_mode(mode & 0o777))?;
            let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(entry.header().mtime()?);
            file.set_modified(modified)?;
        }
        EntryType::Symlink => {
            clear(&path)?;
            symlink(linked(entry)?, &path)?;
        }
        EntryType::Link => {
            let first = inside(destination, &linked(entry)?)?.ok_or(io::ErrorKind::InvalidData)?;
            if !fs::symlink_metadata(&first)?.is_file() {
                return Err(io::Error::other(format!(
                    "it is a hard link to `{}`, which is not a file",
                    first.display()
                )));
            }
            clear(&path)?;
            fs::hard_link(first, &path)?;
        }
        other => {
            return Err(io::Error::other(format!(
                "an archive of a job must not contain {other:?}"
            )));
        }
    }
    Ok(())
}

fn linked<R: Read>(entry: &tar::Entry<'_, R>) -> io::Result<PathBuf> {
    Ok(entry
        .link_name()?
        .ok_or_else(|| io::Error::other("it is a link without a target"))?
        .into_owned())
}

/// Removes a file or link that is in the way.
fn clear(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The path on the disk for `name`, with its parents created. `None` for the destination's directory itself.
fn inside(destination: &impl Destination, name: &Path) -> io::Result<Option<PathBuf>> {
    let leads_out = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "it leads out of the directory that it is unpacked to",
        )
    };
    let (root, rest) = destination.target(name).ok_or_else(leads_out)?;
    let root = fs::canonicalize(root)?;
    let mut parts = Vec::new();
    for part in rest.components() {
        match part {
            Component::Normal(part) => parts.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return Err(leads_out()),
        }
    }
    let Some(last) = parts.pop() else {
        return Ok(None);
    };
    let mut at = root.clone();
    for part in parts {
        at.push(part);
        match fs::symlink_metadata(&at) {
            Ok(found) if found.is_dir() => {}
            Ok(found) if found.is_symlink() => {
                at = fs::canonicalize(&at)?;
                if !at.starts_with(&root) || !at.is_dir() {
                    return Err(leads_out());
                }
            }
            Ok(_) => return Err(io::Error::other(format!("`{}` is in the way", at.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir(&at)?,
            Err(error) => return Err(error),
        }
    }
    at.push(last);
    Ok(Some(at))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    enum Entry<'a> {
        File(&'a str, &'a str),
        Directory(&'a str, u32),
        Symlink(&'a str, &'a str),
        Link(&'a str, &'a str),
        Fifo(&'a str),
    }

    /// Writes names directly into the headers, because the tar library refuses the ones that matter here.
    fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for entry in entries {
            let mut header = tar::Header::new_gnu();
            let (name, link, kind, mode, data) = match entry {
                Entry::File(name, data) => (name, "", tar::EntryType::Regular, 0o644, *data),
                Entry::Directory(name, mode) => (name, "", tar::EntryType::Directory, *mode, ""),
                Entry::Symlink(name, to) => (name, *to, tar::EntryType::Symlink, 0o777, ""),
                Entry::Link(name, to) => (name, *to, tar::EntryType::Link, 0o644, ""),
                Entry::Fifo(name) => (name, "", tar::EntryType::Fifo, 0o644, ""),
            };
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_mtime(1_000_000_000);
            header.set_size(data.len() as u64);
            header.set_cksum();
            builder.append(&header, data.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpack_into(root: &Path, entries: &[Entry<'_>]) -> io::Result<()> {
        unpack(archive(entries).as_slice(), &mut Under(root.to_path_buf()))
    }

    #[test]
    fn no_entry_leaves_the_directory() {
        let refused: [&[Entry<'_>]; 8] = [
            &[Entry::File("../secret", "changed")],
            &[Entry::File("a/../../secret", "changed")],
            &[Entry::File("/secret", "changed")],
            &[Entry::Symlink("out", ".."), Entry::File("out/secret", "changed")],
            &[
                Entry::Symlink("out", "/"),
                Entry::Directory("out/tmp/towpath-escaped", 0o755),
            ],
            &[
                Entry::Symlink("a", "b"),
                Entry::Symlink("b", ".."),
                Entry::File("a/secret", "changed"),
            ],
            &[Entry::Link("mine", "../secret"), Entry::File("mine", "changed")],
            &[Entry::Symlink("out", "../secret"), Entry::Link("mine", "out")],
        ];
        for entries in refused {
            let around = tempfile::tempdir().unwrap();
            let root = around.path().join("root");
            fs::create_dir(&root).unwrap();
            fs::write(around.path().join("secret"), "kept").unwrap();
            assert!(unpack_into(&root, entries).is_err());
            assert_eq!(fs::read_to_string(around.path().join("secret")).unwrap(), "kept");
            assert_eq!(fs::metadata(around.path().join("secret")).unwrap().nlink(), 1);
            assert_eq!(fs::read_dir(around.path()).unwrap().count(), 2);
        }
        let around = tempfile::tempdir().unwrap();
        assert!(unpack_into(around.path(), &[Entry::Fifo("pipe")]).is_err());
    }

    #[test]
    fn a_link_is_replaced_and_not_followed() {
        let around = tempfile::tempdir().unwrap();
        let root = around.path().join("root");
        fs::create_dir(&root).unwrap();
        let outside = around.path().join("outside");
        fs::write(&outside, "kept").unwrap();
        fs::create_dir(around.path().join("closed")).unwrap();
        fs::set_permissions(around.path().join("closed"), Permissions::from_mode(0o700)).unwrap();
        symlink(&outside, root.join("file")).unwrap();
        symlink("../closed", root.join("directory")).unwrap();
        unpack_into(
            &root,
            &[Entry::File("file", "new"), Entry::Directory("directory", 0o777)],
        )
        .unwrap();
        assert_eq!(fs::read_to_string(&outside).unwrap(), "kept");
        assert_eq!(fs::read_to_string(root.join("file")).unwrap(), "new");
        assert_eq!(
            fs::metadata(around.path().join("closed")).unwrap().mode() & 0o777,
            0o700
        );
    }

    /// An archive of these paths under these names.
    fn packed(items: &[(&Path, &str)]) -> Vec<u8> {
        let (sender, mut receiver) = mpsc::channel(1000);
        let mut pieces = Pieces {
            sender,
            buffer: Vec::new(),
        };
        let items: Vec<Item> = items
            .iter()
            .map(|(path, name)| Item {
                path: path.to_path_buf(),
                name: name.into(),
            })
            .collect();
        write_archive(&items, &mut pieces).unwrap();
        drop(pieces);
        let mut bytes = Vec::new();
        while let Some(piece) = receiver.blocking_recv() {
            bytes.extend_from_slice(&piece.unwrap());
        }
        bytes
    }

    #[test]
    fn a_link_that_is_asked_for_is_kept_as_the_link_that_it_is() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |name: &str| from.path().join(name);
        fs::create_dir_all(at("builds/7/css")).unwrap();
        fs::write(at("builds/7/css/x.css"), "x").unwrap();
        symlink("builds/7", at("latest")).unwrap();
        symlink("gone", at("broken")).unwrap();
        symlink("builds", at("alone")).unwrap();
        let bytes = packed(&[
            (&at("latest"), "latest"),
            (&at("broken"), "broken"),
            (&at("builds"), "builds"),
        ]);
        let alone = packed(&[(&at("alone"), "alone")]);
        // Unpack twice: the second time replaces the links.
        for bytes in [&bytes, &bytes, &alone] {
            let reader = zstd::Decoder::new(bytes.as_slice()).unwrap();
            unpack(reader, &mut Under(to.path().to_path_buf())).unwrap();
        }
        let link = |name: &str| fs::read_link(to.path().join(name)).unwrap();
        assert_eq!(link("latest"), Path::new("builds/7"));
        assert_eq!(link("broken"), Path::new("gone"));
        assert_eq!(link("alone"), Path::new("builds"));
        assert_eq!(fs::read_to_string(to.path().join("latest/css/x.css")).unwrap(), "x");
        // Items with an empty name are the content of a folder. A link to the folder gives the same content.
        let inside = packed(&[(&at("latest"), "")]);
        let to = tempfile::tempdir().unwrap();
        let reader = zstd::Decoder::new(inside.as_slice()).unwrap();
        unpack(reader, &mut Under(to.path().to_path_buf())).unwrap();
        assert!(to.path().join("css/x.css").is_file());
    }

    #[test]
    fn files_links_modes_and_times_come_back() {
        let from = tempfile::tempdir().unwrap();
        let to = tempfile::tempdir().unwrap();
        let tree = from.path().join("tree");
        fs::create_dir_all(tree.join("a/empty")).unwrap();
        fs::write(tree.join("a/run.sh"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(tree.join("a/run.sh"), Permissions::from_mode(0o755)).unwrap();
        symlink("run.sh", tree.join("a/link")).unwrap();
        fs::write(tree.join(format!("{}.txt", "n".repeat(180))), "long name").unwrap();
        fs::set_permissions(tree.join("a"), Permissions::from_mode(0o555)).unwrap();

        let bytes = packed(&[(tree.as_path(), "")]);
        // Unpack twice: the second time replaces the files.
        for _ in 0..2 {
            let reader = zstd::Decoder::new(bytes.as_slice()).unwrap();
            let result = unpack(reader, &mut Under(to.path().to_path_buf()));
            fs::set_permissions(to.path().join("a"), Permissions::from_mode(0o755)).unwrap();
            result.unwrap();
        }
        assert_eq!(fs::read_link(to.path().join("a/link")).unwrap(), Path::new("run.sh"));
        let (old, new) = (
            fs::metadata(tree.join("a/run.sh")).unwrap(),
            fs::metadata(to.path().join("a/run.sh")).unwrap(),
        );
        assert_eq!((old.mode(), old.mtime()), (new.mode(), new.mtime()));
        assert!(to.path().join("a/empty").is_dir());
        assert!(to.path().join(format!("{}.txt", "n".repeat(180))).is_file());
        fs::set_permissions(tree.join("a"), Permissions::from_mode(0o755)).unwrap();

        let cut = &bytes[..bytes.len() / 2];
        assert!(unpack(zstd::Decoder::new(cut).unwrap(), &mut Under(to.path().to_path_buf())).is_err());
    }
}
