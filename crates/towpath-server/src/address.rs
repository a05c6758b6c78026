//! Addresses of artifacts on this server.

use crate::PAGES;
use std::fmt::{Display, Write};

/// An artifact's address on this server. Its name may have any character: `C#/100%.txt`.
pub(crate) fn artifact(job: impl Display, node: u32, path: &str) -> String {
    let parts: Vec<String> = path.split('/').map(percent_encoded).collect();
    format!("{PAGES}/artifacts/{job}/{node}/{}", parts.join("/"))
}

/// `text` as one part of a path.
///
/// Source: <https://www.rfc-editor.org/rfc/rfc3986#section-2.3>
pub(crate) fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_one_path() {
        assert_eq!(
            artifact("j", 0, "C# docs/what?.txt"),
            "/towpath/artifacts/j/0/C%23%20docs/what%3F.txt"
        );
        assert_eq!(artifact("j", 1, "100%25 ä"), "/towpath/artifacts/j/1/100%2525%20%C3%A4");
        assert_eq!(
            artifact("j", 0, "it's \"q\"+&;"),
            "/towpath/artifacts/j/0/it%27s%20%22q%22%2B%26%3B"
        );
    }
}
