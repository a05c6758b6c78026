//! A file's bytes as text.

use std::fmt;

/// Why bytes are not text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotText {
    /// A program has encrypted them.
    Encrypted {
        /// The program's name.
        by: &'static str,
        /// The command that decrypts them.
        unlock: &'static str,
    },
    /// They are UTF-16 or UTF-32, or contain zero bytes: a binary file.
    Binary,
    /// They are not UTF-8 from this place on.
    NotUtf8 {
        /// Counts from 1.
        line: usize,
        /// Counts from 1, in characters.
        column: usize,
        /// The first byte that is not UTF-8.
        byte: u8,
    },
}

impl fmt::Display for NotText {
    /// The rest of a sentence whose subject is the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encrypted { by, unlock } => write!(
                f,
                "is encrypted by {by}, and a commit holds it so: {unlock} and deploy from that working tree, or keep its values out of the \
                 repository"
            ),
            Self::Binary => {
                f.write_str("is not text: it holds zero bytes; save it as UTF-8 if it is text in another encoding")
            }
            Self::NotUtf8 { line, column, byte } => write!(
                f,
                "is not UTF-8: line {line}, column {column} has the byte 0x{byte:02x}; save it as UTF-8"
            ),
        }
    }
}

/// The first bytes of encrypted files.
const ENCRYPTED: [(&[u8], &str, &str); 3] = [
    // Source: <https://github.com/AGWA/git-crypt/blob/master/crypto.hpp>
    (b"\0GITCRYPT\0", "git-crypt", "run `git-crypt unlock` in a clone of it"),
    // Source: <https://github.com/C2SP/C2SP/blob/main/age.md>
    (b"age-encryption.org/v1\n", "age", "decrypt it with `age --decrypt`"),
    // Source: <https://docs.openssl.org/master/man1/openssl-enc/>
    (b"Salted__", "openssl", "decrypt it with `openssl enc -d`"),
];

/// Reads bytes as UTF-8. It replaces no invalid bytes, because Towpath would deploy the replacement.
///
/// # Errors
/// When the bytes are not UTF-8, with the place; when they are encrypted, with how to unlock them.
pub fn text(bytes: Vec<u8>) -> Result<String, NotText> {
    if let Some((_, by, unlock)) = ENCRYPTED.iter().find(|(start, ..)| bytes.starts_with(start)) {
        return Err(NotText::Encrypted { by, unlock });
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes();
        if bytes.contains(&0) {
            return NotText::Binary;
        }
        let before = String::from_utf8_lossy(&bytes[..good]);
        NotText::NotUtf8 {
            line: before.matches('\n').count() + 1,
            column: before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1,
            byte: bytes.get(good).copied().unwrap_or_default(),
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_no_text_says_where_or_what_it_is() {
        let said = |bytes: &[u8]| text(bytes.to_vec()).map_err(|error| error.to_string());
        assert_eq!(said("größe: 1\n".as_bytes()), Ok("größe: 1\n".into()));
        assert_eq!(
            said(b"a: 1\n\xc3\xa4: gr\xfc\xdfe\n"),
            Err("is not UTF-8: line 2, column 6 has the byte 0xfc; save it as UTF-8".into())
        );
        assert!(said(b"a\xff\0b\0").is_err_and(|said| said.starts_with("is not text")));
        let crypt = said(b"\0GITCRYPT\0\x12\x99").unwrap_err();
        assert!(
            crypt.contains("encrypted by git-crypt") && crypt.contains("`git-crypt unlock`"),
            "{crypt}"
        );
    }
}
