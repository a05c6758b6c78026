//! One file below `.k8s/`, as the command line sends it and as it is read from a commit.

use serde::{Deserialize, Serialize};

/// A file that manifests are read or rendered from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its path from the repository's root.
    pub path: String,
    /// Its content.
    #[serde(flatten)]
    pub content: ManifestContent,
}

/// What is in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ManifestContent {
    /// Text.
    Text(String),
    /// Something else, which only a renderer can use. On the wire it is base64.
    #[serde(with = "as_base64")]
    Bytes(Vec<u8>),
    /// It cannot be read: the rest of a sentence whose subject is the path. The path may be a folder's. What needs the file
    /// cannot be deployed, because leaving it out would prune what it brought before.
    Unread(String),
}

impl ManifestFile {
    /// A file of text.
    #[must_use]
    pub fn text(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            content: ManifestContent::Text(text.into()),
        }
    }

    /// Its text; empty when it has none. What is decided by names alone needs no more.
    #[must_use]
    pub fn text_or_nothing(&self) -> &str {
        match &self.content {
            ManifestContent::Text(text) => text,
            ManifestContent::Bytes(_) | ManifestContent::Unread(_) => "",
        }
    }

    /// What is wrong with it, as a sentence, if it cannot be read.
    #[must_use]
    pub fn wrong(&self) -> Option<String> {
        match &self.content {
            ManifestContent::Unread(why) => Some(format!("error[manifest::unread]: `{}` {why}", self.path)),
            ManifestContent::Text(_) | ManifestContent::Bytes(_) => None,
        }
    }
}

mod as_base64 {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn files_travel_as_text_as_base64_or_as_a_reason() {
        for (content, wire) in [
            (
                ManifestContent::Text("a: 1\n".into()),
                json!({"path": "a", "text": "a: 1\n"}),
            ),
            (
                ManifestContent::Bytes(vec![0, 255]),
                json!({"path": "a", "bytes": "AP8="}),
            ),
            (
                ManifestContent::Unread("is away".into()),
                json!({"path": "a", "unread": "is away"}),
            ),
        ] {
            let file = ManifestFile {
                path: "a".into(),
                content,
            };
            assert_eq!(serde_json::to_value(&file).unwrap(), wire);
            assert_eq!(serde_json::from_value::<ManifestFile>(wire).unwrap(), file);
        }
    }
}
