//! The envelope of what an environment keeps of itself: `{"version": 1, "towpath": "0.1.0", "record": {…}}`.
//!
//! - **Invariant:** Towpath can always read every version ever written. Adding a field with a default is allowed; anything
//!   else needs a new version.
//! - **Invariant:** what a newer version wrote is an error that says so. It is never taken for damaged, because a damaged record
//!   is replaced.
//!
//! What has no version is not read: Towpath never writes such a record.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The version to write.
const VERSION: u32 = 1;
/// The Towpath that writes, for whoever cannot read it.
const TOWPATH: &str = env!("CARGO_PKG_VERSION");

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error(
        "Towpath {towpath} wrote it, in version {version} of its form, and this Towpath ({TOWPATH}) reads up to version {VERSION}: use \
         Towpath {towpath} or a newer one for this environment"
    )]
    Newer { version: u32, towpath: String },
    #[error(
        "it has no version, so this Towpath did not write it: restore it from a backup, or begin with an empty data directory"
    )]
    Unversioned,
    #[error("it is not what Towpath writes")]
    Form(#[source] serde_json::Error),
}

#[derive(Serialize)]
struct Writing<'a, T> {
    version: u32,
    towpath: &'static str,
    record: &'a T,
}

#[derive(Deserialize)]
struct Versioned {
    version: Option<u32>,
    #[serde(default)]
    towpath: String,
}

#[derive(Deserialize)]
struct V1<T> {
    record: T,
}

/// A record in its envelope.
pub(crate) fn versioned<T: Serialize>(record: &T) -> impl Serialize {
    Writing {
        version: VERSION,
        towpath: TOWPATH,
        record,
    }
}

/// Reads a record that [`versioned`] wrapped, in this or an earlier version.
pub(crate) fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, WireError> {
    let Versioned { version, towpath } = serde_json::from_slice(text).map_err(WireError::Form)?;
    match version {
        None => Err(WireError::Unversioned),
        Some(1) => {
            let V1 { record } = serde_json::from_slice(text).map_err(WireError::Form)?;
            Ok(record)
        }
        Some(version) => Err(WireError::Newer {
            version,
            // Whoever may write the record may write anything here.
            towpath: towpath.chars().filter(|c| !c.is_control()).take(40).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_record_is_read_back_and_says_who_wrote_it() {
        let text = serde_json::to_string(&versioned(&vec![1, 2])).unwrap();
        assert_eq!(
            text,
            format!("{{\"version\":1,\"towpath\":\"{TOWPATH}\",\"record\":[1,2]}}")
        );
        assert_eq!(read::<Vec<u8>>(text.as_bytes()).unwrap(), [1, 2]);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let why = |text: &str| read::<Vec<u8>>(text.as_bytes()).unwrap_err();
        assert_eq!(
            why(r#"{"version": 2, "towpath": "7.1.0\u001b", "what": "is new"}"#).to_string(),
            format!(
                "Towpath 7.1.0 wrote it, in version 2 of its form, and this Towpath ({TOWPATH}) reads up to version 1: use Towpath 7.1.0 \
                 or a newer one for this environment"
            )
        );
        assert!(matches!(why(r#"{"record": [1]}"#), WireError::Unversioned));
        for damaged in [
            "",
            "[]",
            r#"{"version": "1"}"#,
            r#"{"version": 1}"#,
            r#"{"version": 1, "record": {}}"#,
        ] {
            assert!(matches!(why(damaged), WireError::Form(_)), "{damaged}");
        }
    }
}
