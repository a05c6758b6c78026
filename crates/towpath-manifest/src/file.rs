//! One file below `.k8s/`, as the command line sends it and as a commit holds it.

use serde::{Deserialize, Serialize};

/// A file that Towpath reads or renders manifests from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// The file's path from the repository's root.
    pub path: String,
    /// Its content.
    #[serde(flatten)]
    pub content: ManifestContent,
}

/// The content of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ManifestContent {
    /// Text.
    Text(String),
    /// Bytes that are not text, which only a renderer can use. On the wire they are base64.
    #[serde(with = "as_base64")]
    Bytes(Vec<u8>),
    /// The file cannot be read. Holds the rest of a sentence whose subject is the path, which may be a folder's. Towpath does
    /// not deploy an environment that needs the file: leaving the file out would prune the objects that it created before.
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

    /// The file's text; empty if it has none. This is enough for decisions that depend on names alone.
    #[must_use]
    pub fn text_or_nothing(&self) -> &str {
        match &self.content {
            ManifestContent::Text(text) => text,
            ManifestContent::Bytes(_) | ManifestContent::Unread(_) => "",
        }
    }

    /// A sentence on why the file cannot be read, if it cannot.
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
