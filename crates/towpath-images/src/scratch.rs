//! Images `FROM scratch`, made of files, without a Dockerfile and without a builder.
//!
//! The same files and settings make the same image, byte for byte; its name holds the digest of all of that. So an image of
//! that name that is in the engine already is the one that is wanted.
//!
//! Source: <https://github.com/opencontainers/image-spec/blob/main/config.md>; the archive is `docker save`'s.

use crate::tar_stream::{Exactly, stream_tar};
use bollard::{Docker, query_parameters::ImportImageOptionsBuilder};
use futures::StreamExt;
use std::{
    collections::BTreeMap,
    fs, io,
    io::{Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};
use towpath_types::{Digest, Digester, ImageReference};

/// What is in a file of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileContent {
    /// The bytes of a file of this machine: `/proc/self/exe`, for one.
    Copy(PathBuf),
    /// These bytes.
    Bytes(Vec<u8>),
}

/// One file of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScratchFile {
    /// Where, without a leading slash: `bin/towpath`. The folders above it are made.
    pub path: String,
    /// Permissions: `0o755`.
    pub mode: u32,
    /// What.
    pub content: FileContent,
}

/// An image to make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScratchImage {
    /// Its name without a tag: `towpath/agent`. The tag is made of the digest.
    pub repository: String,
    /// Its files.
    pub files: Vec<ScratchFile>,
    /// Empty folders, with their permissions: `tmp`, `0o1777`.
    pub folders: Vec<(String, u32)>,
    /// What a container runs.
    pub entrypoint: Vec<String>,
    /// Arguments, unless the container has its own.
    pub command: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// Why the image is not in the engine.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// The repository and the tag make no name.
    #[error("the image cannot be named")]
    Name(#[from] towpath_types::ImageReferenceError),
    /// A file cannot be read.
    #[error("failed to put `{}` into the image", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The engine does not answer, or refused.
    #[error("failed to load the image `{image}` into the container engine")]
    Engine {
        /// The image.
        image: String,
        /// Why not.
        source: bollard::errors::Error,
    },
}

/// The parts of an image that its digest depends on, ready to be sent.
struct Prepared {
    image: ScratchImage,
    config: Vec<u8>,
    /// Sizes of the files, in the order of the image's, in bytes.
    sizes: Vec<u64>,
    layer_size: u64,
    name: ImageReference,
}

/// Loads `image` into the engine, unless it is there; answers the name that it has there: the repository, and as tag the begin
/// of the digest of everything in it.
///
/// Safe to repeat and to do at the same time.
///
/// # Errors
/// `File` when a file cannot be read, or changes while it is; `Engine`.
pub async fn load_scratch_image(docker: &Docker, image: ScratchImage) -> Result<ImageReference, ScratchError> {
    let prepared = match tokio::task::spawn_blocking(move || prepare(image)).await {
        Ok(prepared) => prepared?,
        Err(e) => {
            return Err(ScratchError::File {
                path: PathBuf::new(),
                source: io::Error::other(e),
            });
        }
    };
    let name = prepared.name.clone();
    let failed = |source| ScratchError::Engine {
        image: name.to_string(),
        source,
    };
    match docker.inspect_image(&name.to_string()).await {
        Ok(_) => return Ok(name),
        Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => {}
        Err(e) => return Err(failed(e)),
    }
    let (archive, mut unreadable) = stream_tar(move |archive| write_archive(archive, &prepared));
    // The engine answers when it has read the whole archive.
    let docker = docker.clone().with_timeout(Duration::from_secs(600));
    let options = ImportImageOptionsBuilder::default().quiet(true).build();
    let mut answers = Box::pin(docker.import_image(options, bollard::body_try_stream(archive), None));
    while let Some(answer) = answers.next().await {
        if let Err(e) = answer {
            return Err(unreadable.try_recv().unwrap_or_else(|_| failed(e)));
        }
    }
    Ok(name)
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> ScratchError {
    let path = path.to_path_buf();
    move |source| ScratchError::File { path, source }
}

/// Counts and digests what is written.
#[derive(Default)]
struct Measure {
    digester: Digester,
    size: u64,
}

impl Write for Measure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.digester.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn prepare(image: ScratchImage) -> Result<Prepared, ScratchError> {
    let mut sizes = Vec::new();
    for file in &image.files {
        sizes.push(match &file.content {
            FileContent::Copy(path) => fs::metadata(path).map_err(failed(path))?.len(),
            FileContent::Bytes(bytes) => bytes.len() as u64,
        });
    }
    let mut measure = Measure::default();
    write_layer(&mut measure, &image, &sizes)?;
    let layer_size = measure.size;
    let layer = measure.digester.finish();
    let config = serde_json::json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "Entrypoint": image.entrypoint,
            "Cmd": image.command,
            "Env": image.environment,
            "Labels": image.labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [layer]},
        "history": [{"created_by": "towpath"}],
    });
    let config = config.to_string().into_bytes();
    let tag = Digest::of(&config).hex()[..20].to_string();
    let name = format!("{}:{tag}", image.repository).parse()?;
    Ok(Prepared {
        image,
        config,
        sizes,
        layer_size,
        name,
    })
}

/// This machine's architecture, as images write it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn header(mode: u32, size: u64, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn write_layer(layer: &mut dyn Write, image: &ScratchImage, sizes: &[u64]) -> Result<(), ScratchError> {
    let mut archive = tar::Builder::new(layer);
    let mut folders: BTreeMap<String, u32> = BTreeMap::new();
    for file in &image.files {
        for (at, _) in file.path.match_indices('/') {
            folders.insert(file.path[..at].to_string(), 0o755);
        }
    }
    folders.extend(image.folders.iter().cloned());
    for (path, mode) in &folders {
        archive
            .append_data(
                &mut header(*mode, 0, tar::EntryType::Directory),
                format!("{path}/"),
                io::empty(),
            )
            .map_err(failed(Path::new(path)))?;
    }
    for (file, size) in image.files.iter().zip(sizes) {
        let source: Box<dyn Read> = match &file.content {
            FileContent::Copy(path) => Box::new(fs::File::open(path).map_err(failed(path))?),
            FileContent::Bytes(bytes) => Box::new(bytes.as_slice()),
        };
        let mut header = header(file.mode, *size, tar::EntryType::Regular);
        archive
            .append_data(&mut header, &file.path, Exactly::new(source, *size))
            .map_err(failed(Path::new(&file.path)))?;
    }
    archive.finish().map_err(failed(Path::new("the image's layer")))
}

/// The archive that `docker load` reads: configuration, layer, and a list of the two.
fn write_archive(archive: &mut tar::Builder<&mut dyn Write>, prepared: &Prepared) -> Result<(), ScratchError> {
    let config_name = format!("{}.json", Digest::of(&prepared.config).hex());
    let list = serde_json::json!([{
        "Config": config_name,
        "RepoTags": [prepared.name.to_string()],
        "Layers": ["layer.tar"],
    }]);
    let list = list.to_string();
    for (name, bytes) in [
        (config_name.as_str(), prepared.config.as_slice()),
        ("manifest.json", list.as_bytes()),
    ] {
        archive
            .append_data(
                &mut header(0o644, bytes.len() as u64, tar::EntryType::Regular),
                name,
                bytes,
            )
            .map_err(failed(Path::new(name)))?;
    }
    // The layer is an archive in the archive; it is written a second time rather than kept. The engine compares its
    // digest, so a file that changed in between is noticed.
    let path = Path::new("layer.tar");
    let mut outer = header(0o644, prepared.layer_size, tar::EntryType::Regular);
    outer.set_path(path).map_err(failed(path))?;
    outer.set_cksum();
    let writer = archive.get_mut();
    writer.write_all(outer.as_bytes()).map_err(failed(path))?;
    // An archive is whole blocks, so nothing needs to be filled up behind it.
    write_layer(writer, &prepared.image, &prepared.sizes)
}
