//! Percent-encoding.

use std::fmt::Write as _;

/// `text` as one segment of a URL's path, or one value of its query.
///
/// Source: <https://www.rfc-editor.org/rfc/rfc3986#section-2.3>
#[must_use]
pub fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unreserved_characters_stay() {
        assert_eq!(percent_encoded("a b/c=d,ü"), "a%20b%2Fc%3Dd%2C%C3%BC");
        assert_eq!(percent_encoded("Az09-_.~"), "Az09-_.~");
    }
}
