//! Volumes that every user may write to at first, as on a cluster.
//!
//! An engine makes a volume whose root belongs to root, and changes a volume only through a container. So a volume is made
//! together with a container that is never started: the opener. As long as the opener is there, the volume is not ready.

use super::start_error::StartError;
use std::{
    io,
    time::{SystemTime, UNIX_EPOCH},
};
use towpath_container::{ContainerClient, ContainerError, ContainerSpec, Labels, Mount, MountSource};

/// Where the opener sees the volume.
const INSIDE: &str = "volume";

fn opener(volume: &str) -> String {
    format!("{volume}-opener")
}

/// Makes the volume, or finishes making it, unless it is ready. `image` is any image that the engine has.
///
/// One call for a volume at a time: one that somebody writes to already must not be opened again.
pub(crate) async fn ensure_open(
    engine: &ContainerClient,
    volume: &str,
    image: &str,
    labels: &Labels,
) -> Result<(), StartError> {
    if engine.has_volume(volume).await? && engine.inspect(&opener(volume)).await?.is_none() {
        return Ok(());
    }
    let failed = |error: &dyn std::error::Error| {
        let why = towpath_types::with_causes(error);
        StartError::Passing(format!(
            "failed to let every user write to the volume `{volume}`: {why}"
        ))
    };
    let archive = open_folder(INSIDE).map_err(|error| failed(&error))?;
    let opened = open(engine, volume, image, labels, archive).await;
    opened.map_err(|error| failed(&error))
}

async fn open(
    engine: &ContainerClient,
    volume: &str,
    image: &str,
    labels: &Labels,
    archive: Vec<u8>,
) -> Result<(), ContainerError> {
    let name = opener(volume);
    let spec = ContainerSpec {
        image: image.to_string(),
        labels: labels.clone(),
        mounts: vec![Mount {
            source: MountSource::Volume {
                name: volume.to_string(),
                labels: labels.clone(),
            },
            target: format!("/{INSIDE}"),
            read_only: false,
        }],
        ..ContainerSpec::default()
    };
    // Taken, it is one that an earlier server did not get to the end of.
    let _ = engine.create(&name, &spec).await?;
    // The archive holds the folder itself: engines do not apply what it says of `.`.
    engine.unpack(&name, "/", archive).await?;
    engine.remove(&name).await
}

/// An archive of one folder that every user may write to.
fn open_folder(name: &str) -> io::Result<Vec<u8>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o777);
    header.set_size(0);
    header.set_mtime(now.map_or(0, |since| since.as_secs()));
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, format!("{name}/"), io::empty())?;
    archive.into_inner()
}
