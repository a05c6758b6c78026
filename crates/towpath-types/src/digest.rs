//! Content digests as OCI writes them: `sha256:` and 64 hex digits, or `sha512:` and 128.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};
use std::{fmt, str::FromStr};

/// The digest of some bytes.
///
/// Towpath itself uses SHA-256, the one algorithm that every registry must accept. What others push may also be named by
/// SHA-512, the other registered algorithm.
/// Source: <https://github.com/opencontainers/image-spec/blob/main/descriptor.md#registered-algorithms>
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// How a digest is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DigestAlgorithm {
    /// `sha256`
    #[default]
    Sha256,
    /// `sha512`
    Sha512,
}

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest (`sha256:` and 64, or `sha512:` and 128 lower-case hex digits)")]
pub struct DigestError(String);

impl DigestAlgorithm {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// As a digest begins, without the colon.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The number of hex digits.
    fn digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }

    /// The digest of `bytes`.
    #[must_use]
    pub fn digest(self, bytes: &[u8]) -> Digest {
        let mut digester = Digester::new(self);
        digester.update(bytes);
        digester.finish()
    }
}

impl Digest {
    /// The SHA-256 digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        DigestAlgorithm::Sha256.digest(bytes)
    }

    /// The digest whose hex digits are `hex`. Their number tells the algorithm.
    ///
    /// # Errors
    /// When they are the digits of no digest.
    pub fn of_hex(hex: &str) -> Result<Self, DigestError> {
        let fits = |algorithm: &DigestAlgorithm| algorithm.digits() == hex.len();
        let algorithm = DigestAlgorithm::ALL.into_iter().find(fits).unwrap_or_default();
        format!("{}:{hex}", algorithm.as_str()).parse()
    }

    /// `sha256:…`, whole.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How it was computed.
    #[must_use]
    pub fn algorithm(&self) -> DigestAlgorithm {
        let is = |algorithm: &DigestAlgorithm| self.0.starts_with(algorithm.as_str());
        DigestAlgorithm::ALL.into_iter().find(is).unwrap_or_default()
    }

    /// The hex digits: 64 or 128.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// The first 12 hex digits, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let is_digest = DigestAlgorithm::ALL.into_iter().any(|algorithm| {
            let rest = text.strip_prefix(algorithm.as_str());
            let hex = rest.and_then(|rest| rest.strip_prefix(':'));
            hex.is_some_and(|hex| hex.len() == algorithm.digits() && hex.bytes().all(is_digit))
        });
        if is_digest {
            Ok(Self(text.to_string()))
        } else {
            Err(DigestError(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

/// Computes a [`Digest`] of bytes that arrive in pieces.
#[derive(Debug, Clone)]
pub enum Digester {
    /// A SHA-256 digest.
    Sha256(Sha256),
    /// A SHA-512 digest.
    Sha512(Sha512),
}

impl Default for Digester {
    fn default() -> Self {
        Self::new(DigestAlgorithm::default())
    }
}

impl Digester {
    /// Of no bytes yet.
    #[must_use]
    pub fn new(algorithm: DigestAlgorithm) -> Self {
        match algorithm {
            DigestAlgorithm::Sha256 => Self::Sha256(Sha256::new()),
            DigestAlgorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(digester) => digester.update(bytes),
            Self::Sha512(digester) => digester.update(bytes),
        }
    }

    /// The digest of everything added.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(match self {
            Self::Sha256(digester) => format!("sha256:{}", hex::encode(digester.finalize())),
            Self::Sha512(digester) => format!("sha512:{}", hex::encode(digester.finalize())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_digest_is_the_known_one() {
        let empty = Digest::of(b"");
        assert_eq!(
            empty.as_str(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(empty.short(), "e3b0c44298fc");
        assert_eq!(empty.as_str().parse::<Digest>(), Ok(empty));
    }

    /// Source: FIPS 180-4's example of `abc`
    #[test]
    fn the_other_algorithm_is_the_known_one() {
        let abc = DigestAlgorithm::Sha512.digest(b"abc");
        let known = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
        assert_eq!(abc.as_str(), known);
        assert_eq!(abc.algorithm(), DigestAlgorithm::Sha512);
        assert_eq!(abc.as_str().parse::<Digest>(), Ok(abc.clone()));
        assert_eq!(Digest::of_hex(abc.hex()), Ok(abc));
        assert_eq!(Digest::of_hex(Digest::of(b"").hex()), Ok(Digest::of(b"")));
    }

    #[test]
    fn pieces_make_the_same_digest() {
        for algorithm in DigestAlgorithm::ALL {
            let mut digester = Digester::new(algorithm);
            digester.update(b"tow");
            digester.update(b"path");
            assert_eq!(digester.finish(), algorithm.digest(b"towpath"));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "sha256:",
            "sha512:00",
            "sha512:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "sha384:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "e3b0c442",
            "sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
