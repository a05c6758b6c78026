//! Images `FROM scratch`: a few files, without a Dockerfile and without a builder.
//!
//! The same files and settings give the same image, byte for byte, and the image's tag is a digest of its content. So
//! if the engine already has an image of that name, it is the right one.
//!
//! Source: <https://github.com/opencontainers/image-spec/blob/main/config.md>. The archive is what `docker save`
//! writes.

use crate::{
    archive::{Exactly, stream_tar},
    client::ContainerClient,
    error::ContainerError,
};
use std::{
    collections::BTreeMap,
    fs, io,
    io::{Read, Write},
    path::{Path, PathBuf},
};
use towpath_types::{Digest, Digester, ImageReference};

/// The content of a file of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileContent {
    /// A copy of a file of this machine, such as `/proc/self/exe`.
    Copy(PathBuf),
    #[allow(missing_docs)]
    Bytes(Vec<u8>),
}

/// One file of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ScratchFile {
    /// The path without a leading slash: `bin/towpath`. Parent folders are created.
    pub path: String,
    /// Permissions: `0o755`.
    pub mode: u32,
    pub content: FileContent,
}

/// An image to make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ScratchImage {
    /// The image's name without a tag: `towpath/agent`. The tag comes from the digest.
    pub repository: String,
    pub files: Vec<ScratchFile>,
    /// Empty folders, with their permissions: `tmp`, `0o1777`.
    pub folders: Vec<(String, u32)>,
    pub entrypoint: Vec<String>,
    /// The default arguments of a container.
    pub command: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    pub labels: BTreeMap<String, String>,
}

/// Why the image is not in the engine.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// The repository cannot be part of an image's name.
    #[error("the image cannot be named")]
    Name(#[from] towpath_types::ImageReferenceError),
    /// A file cannot be read.
    #[error("failed to put `{}` into the image", path.display())]
    #[allow(missing_docs)]
    File { path: PathBuf, source: io::Error },
    /// The engine does not answer, or does not take the image.
    #[error("failed to load the image `{image}` into the container engine")]
    #[allow(missing_docs)]
    Engine { image: String, source: ContainerError },
}

/// The inputs of an image's digest, ready to send.
struct Prepared {
    image: ScratchImage,
    config: Vec<u8>,
    /// The sizes in bytes, in the order of the image's files.
    sizes: Vec<u64>,
    layer_size: u64,
    name: ImageReference,
}

/// Loads `image` into the engine unless it is there. Returns its name: the repository, with the beginning of the
/// content's digest as its tag.
///
/// Safe to repeat, and to do several times at once.
///
/// # Errors
/// `File` also when a file changes while it is read.
pub async fn load_scratch_image(engine: &ContainerClient, image: ScratchImage) -> Result<ImageReference, ScratchError> {
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
    if engine.has_image(&name.to_string()).await.map_err(failed)? {
        return Ok(name);
    }
    let (archive, mut unreadable) = stream_tar(move |archive| write_archive(archive, &prepared));
    match engine.load(archive).await {
        Ok(()) => Ok(name),
        // If reading the archive failed, the engine's message is only a consequence.
        Err(error) => Err(unreadable.try_recv().unwrap_or_else(|_| failed(error))),
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> ScratchError {
    let path = path.to_path_buf();
    move |source| ScratchError::File { path, source }
}

/// Measures the size and the digest of what is written to it.
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
    let tag = Digest::of(&config).hex().to_string();
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
    // The layer is an archive in the archive. Write it a second time rather than keep it: the engine compares its
    // digest, so a file that changed in between is noticed.
    let path = Path::new("layer.tar");
    let mut outer = header(0o644, prepared.layer_size, tar::EntryType::Regular);
    outer.set_path(path).map_err(failed(path))?;
    outer.set_cksum();
    let writer = archive.get_mut();
    writer.write_all(outer.as_bytes()).map_err(failed(path))?;
    // An archive consists of whole blocks, so no padding is needed after it.
    write_layer(writer, &prepared.image, &prepared.sizes)
}
