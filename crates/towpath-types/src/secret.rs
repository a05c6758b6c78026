//! Strings and bytes that cannot print themselves.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use zeroize::{Zeroize, Zeroizing};

/// How the names of the cookies begin by which browsers are signed in to a Towpath. They are for Towpath alone: its proxy passes
/// them on to no application.
pub const SESSION_COOKIE_PREFIX: &str = "towpath_session_";

/// A secret text: a token, a password, a variable of a job. `Debug` shows stars, there is no `Display`, and memory is cleared on
/// drop. What a person keeps in a Secret is [`SecretBytes`].
///
/// It serialises *with* its value, because a job's specification must carry it to the agent; what is written to a disk
/// is encrypted by whoever writes it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SecretString(String);

impl SecretString {
    /// Takes the value over.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The value itself. Each caller is a place where a secret could leak: keep them few.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretString {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl fmt::Debug for SecretString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

impl Drop for SecretString {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Serialize for SecretString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SecretString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// The value of a key of a Secret: bytes, kept exactly. `Debug` shows stars, there is no `Display`, memory is cleared on drop,
/// and nothing serialises it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Takes the value over.
    #[must_use]
    pub fn new(value: Vec<u8>) -> Self {
        Self(value)
    }

    /// The value itself. Each caller is a place where a secret could leak: keep them few.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The value as an environment variable's.
    ///
    /// # Errors
    /// When no environment variable can have it.
    pub fn to_variable(&self) -> Result<SecretString, NoVariable> {
        NoVariable::check(&self.0).map(|text| SecretString::new(text.to_string()))
    }
}

impl From<&SecretString> for SecretBytes {
    fn from(value: &SecretString) -> Self {
        Self(value.0.as_bytes().to_vec())
    }
}

impl From<Zeroizing<Vec<u8>>> for SecretBytes {
    fn from(mut value: Zeroizing<Vec<u8>>) -> Self {
        Self(std::mem::take(&mut *value))
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Why no environment variable can have a value.
///
/// Source: <https://man7.org/linux/man-pages/man7/environ.7.html>; container engines and Kubernetes' kubelet pass variables on as
/// text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum NoVariable {
    /// It is not text.
    #[error("is not text (UTF-8)")]
    NotText,
    /// A variable ends at its first zero byte.
    #[error("has a zero byte")]
    ZeroByte,
}

impl NoVariable {
    /// `value` as text, if an environment variable can have it.
    ///
    /// # Errors
    /// When none can.
    pub fn check(value: &[u8]) -> Result<&str, Self> {
        let text = std::str::from_utf8(value).map_err(|_| Self::NotText)?;
        if text.contains('\0') {
            return Err(Self::ZeroByte);
        }
        Ok(text)
    }
}

/// Something whose value is not to be shown.
pub trait Secret {
    /// The value itself.
    fn bytes(&self) -> &[u8];
}

impl Secret for SecretString {
    fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Secret for SecretBytes {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_value() {
        let secret = SecretString::new("hunter2".into());
        assert_eq!(format!("{secret:?}"), "****");
        assert_eq!(format!("{:?}", Some(&secret)), "Some(****)");
        let bytes = SecretBytes::from(&secret);
        assert_eq!(format!("{bytes:?} {:?}", Some(&bytes)), "**** Some(****)");
    }

    #[test]
    fn a_variable_holds_text_without_zero_bytes() {
        let variable = |bytes: &[u8]| SecretBytes::new(bytes.to_vec()).to_variable();
        for text in ["", "line\r\n", "d\u{e9}j\u{e0} vu \u{fffd}"] {
            assert_eq!(variable(text.as_bytes()), Ok(SecretString::new(text.into())));
        }
        assert_eq!(variable(b"a\0"), Err(NoVariable::ZeroByte));
        for binary in [&b"\xff\xfe"[..], b"cut \xe2\x82", b"\0\xff"] {
            assert_eq!(variable(binary), Err(NoVariable::NotText));
        }
    }
}
