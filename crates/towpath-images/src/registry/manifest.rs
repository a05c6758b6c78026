//! What a manifest refers to.
//!
//! Source: <https://github.com/opencontainers/image-spec/blob/main/manifest.md>,
//! <https://github.com/opencontainers/image-spec/blob/main/image-index.md>,
//! <https://distribution.github.io/distribution/spec/manifest-v2-2/>

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use towpath_types::Digest;

/// The largest manifest, in bytes. The specification asks registries to accept at least four megabytes.
pub(super) const MAX_MANIFEST_BYTES: usize = 4 * 1024 * 1024;

pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A document is not a manifest that the registry accepts.
#[derive(Debug, thiserror::Error)]
pub(super) enum Rejected {
    #[error("the media type `{0}` is not that of an image manifest or index of OCI or Docker (schema 2)")]
    MediaType(String),
    #[error("the manifest cannot be parsed: {0}")]
    Json(String),
    #[error("the manifest {0}")]
    Shape(String),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
}

impl Descriptor {
    /// Layers that may not be redistributed are downloaded from their vendor and never pushed.
    fn is_elsewhere(&self) -> bool {
        self.media_type
            .starts_with("application/vnd.oci.image.layer.nondistributable.")
            || self
                .media_type
                .starts_with("application/vnd.docker.image.rootfs.foreign.")
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ManifestDocument {
    schema_version: u64,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    /// The manifest that this one describes; it need not exist.
    pub subject: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

/// A manifest as an entry in the list of its subject's referrers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Referrer<'a> {
    media_type: &'a str,
    digest: &'a Digest,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a BTreeMap<String, String>>,
}

/// Parses a manifest that was pushed as `media_type`.
///
/// Refuses a document that could be both an image and an index: readers must not disagree about what it is
/// (<https://github.com/opencontainers/distribution-spec/security/advisories/GHSA-mc8v-mgrf-8f4m>).
pub(super) fn parse(media_type: &str, bytes: &[u8]) -> Result<ManifestDocument, Rejected> {
    let is_index = match media_type {
        OCI_INDEX | DOCKER_LIST => true,
        OCI_MANIFEST | DOCKER_MANIFEST => false,
        other => return Err(Rejected::MediaType(other.chars().take(200).collect())),
    };
    let document: ManifestDocument = serde_json::from_slice(bytes).map_err(|e| Rejected::Json(e.to_string()))?;
    let shape = |problem: &str| Err(Rejected::Shape(problem.to_string()));
    if document.schema_version != 2 {
        return shape("has a `schemaVersion` other than 2");
    }
    if let Some(inside) = &document.media_type
        && inside != media_type
    {
        return shape(&format!(
            "calls itself `{}` but was sent as `{media_type}`",
            inside.chars().take(200).collect::<String>()
        ));
    }
    let has_image = document.config.is_some() || document.layers.is_some();
    match is_index {
        true if has_image => shape("is an index but has `config` or `layers`"),
        true if document.manifests.is_none() => shape("is an index without `manifests`"),
        false if document.manifests.is_some() => shape("is an image but has `manifests`"),
        false if document.config.is_none() => shape("is an image without `config`"),
        false if document.layers.is_none() => shape("is an image without `layers`"),
        _ => Ok(document),
    }
}

impl ManifestDocument {
    /// The blobs that the repository must have.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let layers = self.layers.iter().flatten().filter(|layer| !layer.is_elsewhere());
        self.config.iter().chain(layers)
    }

    /// The manifests that an index names.
    pub fn manifests(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests.iter().flatten()
    }

    /// This manifest as an entry in the list of its subject's referrers. Without an artifact type of its own it has its
    /// config's media type.
    ///
    /// Source: <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-referrers>
    pub fn as_referrer<'a>(&'a self, media_type: &'a str, digest: &'a Digest, size: u64) -> Referrer<'a> {
        let of_config = self.config.as_ref().map(|config| config.media_type.as_str());
        Referrer {
            media_type,
            digest,
            size,
            artifact_type: self
                .artifact_type
                .as_deref()
                .filter(|name| !name.is_empty())
                .or(of_config),
            annotations: self.annotations.as_ref(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn check(media_type: &str, body: serde_json::Value, expect: Result<(usize, usize), &str>) {
        let parsed = parse(media_type, body.to_string().as_bytes());
        match (parsed, expect) {
            (Ok(document), Ok(counts)) => {
                assert_eq!(
                    (document.blobs().count(), document.manifests().count()),
                    counts,
                    "{body}"
                );
            }
            (Err(e), Err(part)) => assert!(e.to_string().contains(part), "{e}"),
            (got, expect) => panic!("{body}: {got:?}, but expected {expect:?}"),
        }
    }

    #[test]
    fn only_whole_images_and_indexes_are_accepted() {
        let blob = serde_json::json!({"mediaType": "x", "digest": Digest::of(b""), "size": 0});
        let foreign = serde_json::json!({
            "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "digest": Digest::of(b"f"), "size": 1, "urls": ["https://example.org"],
        });
        let image = serde_json::json!({"schemaVersion": 2, "config": blob, "layers": [blob, foreign]});
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [blob]});
        check(OCI_MANIFEST, image.clone(), Ok((2, 0)));
        check(DOCKER_MANIFEST, image.clone(), Ok((2, 0)));
        check(OCI_INDEX, index.clone(), Ok((0, 1)));
        check(DOCKER_LIST, index.clone(), Ok((0, 1)));
        check(OCI_INDEX, image.clone(), Err("is an index but has"));
        check(OCI_MANIFEST, index.clone(), Err("is an image but has"));
        check("text/plain", image.clone(), Err("`text/plain`"));
        check(
            OCI_MANIFEST,
            serde_json::json!({"schemaVersion": 1}),
            Err("schemaVersion"),
        );
        check(OCI_MANIFEST, serde_json::json!([]), Err("cannot be parsed"));
        check(
            OCI_MANIFEST,
            serde_json::json!({"schemaVersion": 2, "layers": []}),
            Err("without `config`"),
        );
        let mut lying = image.clone();
        lying["mediaType"] = OCI_INDEX.into();
        check(OCI_MANIFEST, lying, Err("calls itself"));
        let mut odd = image;
        odd["config"]["digest"] = "sha512:00".into();
        check(OCI_MANIFEST, odd, Err("is not a digest"));
        assert!(parse(OCI_MANIFEST, b"\xff").is_err());
    }
}
