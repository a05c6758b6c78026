//! Base64 and hex, as the mask looks for them.

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// `bytes` in base64, at each of the three places of a group where they may begin in a longer text, and alone.
///
/// The digits at the edges depend on the neighbours in the longer text, and are left out.
pub(super) fn base64_anywhere(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![base64(bytes)];
    for shift in 0..3 {
        let mut shifted = vec![0; shift];
        shifted.extend_from_slice(bytes);
        let whole = shifted.len() * 8 / 6;
        let first = (shift * 8).div_ceil(6).min(whole);
        forms.push(base64(&shifted)[first..whole].to_vec());
    }
    forms
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
