//! Volumes that every user may write to at first, as on a cluster.
//!
//! An engine creates a volume whose root folder belongs to root, and changes a volume only through a container. So the target
//! creates a volume together with a container that never starts: the opener. While the opener exists, the volume is not ready.

use super::start_error::StartError;
use std::{
    io,
    time::{SystemTime, UNIX_EPOCH},
};
use towpath_container::{ContainerClient, ContainerError, ContainerSpec, Labels, Mount, MountSource};

/// The path of the volume in the opener.
const INSIDE: &str = "volume";

fn opener(volume: &str) -> String {
    format!("{volume}-opener")
}

/// Creates the volume, or finishes creating it, unless it is ready. `image` is any image that the engine has.
///
/// Call it for one volume at a time: a volume that is already in use must not be opened again.
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
    // If the name is taken, an earlier server did not finish with this opener.
    let _ = engine.create(&name, &spec).await?;
    // The archive contains the folder itself: engines ignore the permissions of `.`.
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
