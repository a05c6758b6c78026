//! An image of one static binary, as an archive that an engine loads.

use std::io::{self, Write};
use towpath_types::Digest;

/// An image called `name`, `FROM scratch`, with `binary` as `/bin/<program>` and its entrypoint, and an empty `/tmp`.
///
/// Source: <https://github.com/moby/docker-image-spec/blob/main/spec.md#combined-image-json--filesystem-changeset-format>
///
/// # Errors
/// When memory cannot be written to: never.
pub fn scratch_image(name: &str, program: &str, binary: &[u8]) -> io::Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    for (path, mode) in [("bin/", 0o755), ("tmp/", 0o1777)] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(mode);
        header.set_size(0);
        layer.append_data(&mut header, path, io::empty())?;
    }
    add(&mut layer, &format!("bin/{program}"), 0o755, binary)?;
    let layer = layer.into_inner()?;
    let layer_digest = Digest::of(&layer);
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = serde_json::json!({
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": [format!("/bin/{program}")], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [layer_digest.as_str()]},
    });
    let config = serde_json::to_vec(&config)?;
    let config_name = format!("{}.json", Digest::of(&config).hex());
    let layer_name = format!("{}.tar", layer_digest.hex());
    let manifest = serde_json::json!([{"Config": config_name, "RepoTags": [name], "Layers": [layer_name]}]);
    let mut archive = tar::Builder::new(Vec::new());
    add(&mut archive, &config_name, 0o644, &config)?;
    add(&mut archive, &layer_name, 0o644, &layer)?;
    add(&mut archive, "manifest.json", 0o644, &serde_json::to_vec(&manifest)?)?;
    archive.into_inner()
}

fn add(archive: &mut tar::Builder<impl Write>, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, path, content)
}
