//! Base64, base32 and hex, as the mask looks for them.

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

const DIGITS_OF_BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// `bytes` in base64, at each of the three places of a group where they may begin in a longer text, and alone.
///
/// The digits at the edges depend on the neighbours in the longer text, and are left out.
pub(super) fn base64_anywhere(bytes: &[u8]) -> Vec<Vec<u8>> {
    anywhere(bytes, 6, base64)
}

/// `bytes` in base32, like [`base64_anywhere`].
pub(super) fn base32_anywhere(bytes: &[u8]) -> Vec<Vec<u8>> {
    anywhere(bytes, 5, base32)
}

/// A group has as many bytes as a digit has bits, or half as many.
fn anywhere(bytes: &[u8], bits: usize, encode: fn(&[u8]) -> Vec<u8>) -> Vec<Vec<u8>> {
    let group = if bits.is_multiple_of(2) { bits / 2 } else { bits };
    let mut forms = vec![encode(bytes)];
    for shift in 0..group {
        let mut shifted = vec![0; shift];
        shifted.extend_from_slice(bytes);
        let whole = shifted.len() * 8 / bits;
        let first = (shift * 8).div_ceil(bits).min(whole);
        forms.push(encode(&shifted)[first..whole].to_vec());
    }
    forms
}

/// Without padding. Source: <https://www.rfc-editor.org/rfc/rfc4648#section-6>
pub(super) fn base32(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len().div_ceil(5) * 8);
    for group in bytes.chunks(5) {
        let bits = group.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte)) << (8 * (5 - group.len()));
        for digit in 0..(group.len() * 8).div_ceil(5) {
            out.push(DIGITS_OF_BASE32[(bits >> (35 - 5 * digit)) as usize & 31]);
        }
    }
    out
}

/// `text` in UTF-16 with the low byte first, as Windows has it.
pub(super) fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Without padding. Source: <https://www.rfc-editor.org/rfc/rfc4648#section-4>
pub(super) fn base64(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..=group.len() {
            out.push(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63]);
        }
    }
    out
}

pub(super) fn hex(bytes: &[u8], upper: bool) -> Vec<u8> {
    let text = if upper {
        hex::encode_upper(bytes)
    } else {
        hex::encode(bytes)
    };
    text.into_bytes()
}
