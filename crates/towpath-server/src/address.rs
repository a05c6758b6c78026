//! Addresses of artifacts on this server.

use crate::PAGES;
use std::fmt::Display;
use towpath_types::percent_encoded;

/// An artifact's address on this server. Its name may have any character: `C#/100%.txt`.
pub(crate) fn artifact(job: impl Display, node: u32, path: &str) -> String {
    let parts: Vec<String> = path.split('/').map(percent_encoded).collect();
    format!("{PAGES}/artifacts/{job}/{node}/{}", parts.join("/"))
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
