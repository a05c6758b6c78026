//! `Range` of downloads and `Content-Range` of uploads.

/// Bytes `first..=last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ByteRange {
    pub first: u64,
    pub last: u64,
}

impl ByteRange {
    pub fn len(self) -> u64 {
        self.last - self.first + 1
    }
}

/// Which part of a blob to send.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    All,
    Part(ByteRange),
    /// The range lies outside the blob: 416.
    Nothing,
}

/// Parses a `Range` header for a blob of `size` bytes. Anything but a single range of bytes gets the whole blob, as RFC 9110
/// allows.
///
/// Source: <https://www.rfc-editor.org/rfc/rfc9110#section-14.2>
pub(super) fn wanted(header: &str, size: u64) -> Wanted {
    let Some((first, last)) = header
        .trim()
        .strip_prefix("bytes=")
        .and_then(|ranges| ranges.trim().split_once('-'))
    else {
        return Wanted::All;
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // A number that does not fit lies beyond the end of any blob.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => Wanted::All,
        (Some(first), _) if last.is_empty() || number(last).is_some() => {
            if first >= size {
                return Wanted::Nothing;
            }
            let last = number(last).unwrap_or(u64::MAX).min(size - 1);
            Wanted::Part(ByteRange { first, last })
        }
        (None, Some(suffix)) if first.is_empty() => {
            if suffix == 0 || size == 0 {
                return Wanted::Nothing;
            }
            Wanted::Part(ByteRange {
                first: size.saturating_sub(suffix),
                last: size - 1,
            })
        }
        _ => Wanted::All,
    }
}

/// Parses the `Content-Range` of a chunk: `0-99`, or HTTP's own `bytes 0-99/1000`.
///
/// Source: <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-a-blob-in-chunks>
pub(super) fn chunk(header: &str) -> Option<ByteRange> {
    let text = header.trim();
    let text = text.strip_prefix("bytes ").unwrap_or(text);
    let text = text.split_once('/').map_or(text, |(range, _)| range);
    let (first, last) = text.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last && last < u64::MAX).then_some(ByteRange { first, last })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ten_bytes() {
        let part = |first, last| Wanted::Part(ByteRange { first, last });
        for (header, expect) in [
            ("bytes=0-0", part(0, 0)),
            ("bytes=2-4", part(2, 4)),
            ("bytes=2-", part(2, 9)),
            ("bytes=2-99", part(2, 9)),
            ("bytes=-3", part(7, 9)),
            ("bytes=-99", part(0, 9)),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=10-12", Wanted::Nothing),
            ("bytes=99999999999999999999999-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=4-2", Wanted::All),
            ("bytes=0-1,3-4", Wanted::All),
            ("bytes=-", Wanted::All),
            ("bytes=a-b", Wanted::All),
            ("bytes=+1-2", Wanted::All),
            ("lines=0-1", Wanted::All),
            ("", Wanted::All),
        ] {
            assert_eq!(wanted(header, 10), expect, "{header}");
        }
        assert_eq!(wanted("bytes=0-", 0), Wanted::Nothing);
        assert_eq!(wanted("bytes=-1", 0), Wanted::Nothing);
    }

    #[test]
    fn chunks() {
        let range = |first, last| Some(ByteRange { first, last });
        for (header, expect) in [
            ("0-99", range(0, 99)),
            ("bytes 5-5/10", range(5, 5)),
            ("bytes 5-6/*", range(5, 6)),
            ("6-5", None),
            ("5", None),
            ("-5", None),
            ("0-18446744073709551615", None),
            ("a-b", None),
            ("", None),
        ] {
            assert_eq!(chunk(header), expect, "{header}");
        }
        assert_eq!(chunk("5-9").map(ByteRange::len), Some(5));
    }
}
