//! Where logs and blobs are kept.

use crate::StoreError;
use std::str::FromStr;

/// Where to store logs and blobs, as `--objects` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectLocation {
    /// A folder.
    Folder(std::path::PathBuf),
    /// `s3://bucket/prefix`: the bucket, and the prefix of each key without slashes at its ends.
    S3 {
        /// The bucket.
        bucket: String,
        /// The prefix of each key; may be empty.
        prefix: String,
    },
}

impl FromStr for ObjectLocation {
    type Err = StoreError;
    /// Reads `s3://bucket/prefix` or a path.
    fn from_str(text: &str) -> Result<Self, StoreError> {
        let Some(rest) = text.strip_prefix("s3://") else {
            if text.is_empty() || text.contains("://") {
                return Err(StoreError::Address(format!(
                    "`{}` is not a place for objects: `s3://BUCKET/PREFIX`, or a folder's path",
                    text.escape_debug()
                )));
            }
            return Ok(Self::Folder(text.into()));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(StoreError::Address(format!(
                "`{}` names no bucket",
                text.escape_debug()
            )));
        }
        Ok(Self::S3 {
            bucket: bucket.to_string(),
            prefix: prefix.trim_matches('/').to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_location_is_a_folder_or_a_bucket() {
        let s3 = |bucket: &str, prefix: &str| ObjectLocation::S3 {
            bucket: bucket.into(),
            prefix: prefix.into(),
        };
        for (text, expected) in [
            ("s3://towpath", s3("towpath", "")),
            ("s3://towpath/", s3("towpath", "")),
            ("s3://towpath/a/b/", s3("towpath", "a/b")),
            ("/var/lib/towpath", ObjectLocation::Folder("/var/lib/towpath".into())),
        ] {
            assert_eq!(text.parse::<ObjectLocation>().unwrap(), expected);
        }
        for bad in ["", "s3://", "s3:///a", "gs://towpath"] {
            let error = bad.parse::<ObjectLocation>().unwrap_err();
            assert!(matches!(error, StoreError::Address(_)), "{bad}");
        }
    }
}
