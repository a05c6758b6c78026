//! Durations as Go writes them: `1h30m`, `1.5h`, `90s`.

/// Nanoseconds of each unit.
///
/// Source: <https://pkg.go.dev/time#ParseDuration>
const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Parses `text` to nanoseconds; `None` when it is not a duration, or is longer than 292 years.
pub(crate) fn nanoseconds(text: &str) -> Option<i64> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if unsigned == "0" {
        return Some(0);
    }
    let mut rest = unsigned;
    let mut total: i128 = 0;
    loop {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let end = after
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(*unit)?)?;
        total = total.checked_add(part_of(fraction, *unit))?;
        if total > i128::from(i64::MAX) + i128::from(negative) {
            return None;
        }
        if after.is_empty() {
            return i64::try_from(if negative { -total } else { total }).ok();
        }
        rest = after;
    }
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// `0.<fraction>` of `unit`, rounded down. Digits after the eighteenth are less than a nanosecond in any unit.
fn part_of(fraction: &str, unit: i128) -> i128 {
    let (mut part, mut scale) = (0, 1);
    for digit in fraction.bytes().take(18) {
        part = part * 10 + i128::from(digit - b'0');
        scale *= 10;
    }
    part * unit / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_reads_them() {
        const SECOND: i64 = 1_000_000_000;
        for (text, expect) in [
            ("0", Some(0)),
            ("+0", Some(0)),
            ("5s", Some(5 * SECOND)),
            ("1h30m", Some(5400 * SECOND)),
            ("1.5h", Some(5400 * SECOND)),
            (".5m", Some(30 * SECOND)),
            ("1.m", Some(60 * SECOND)),
            ("-2m", Some(-120 * SECOND)),
            ("100ms", Some(SECOND / 10)),
            ("1\u{b5}s2us3\u{3bc}s", Some(6_000)),
            ("2562047h47m16.854775807s", Some(i64::MAX)),
            ("-2562047h47m16.854775808s", Some(i64::MIN)),
            ("2562047h47m16.854775808s", None),
            ("99999999999999999999999999999999999999999h", None),
            ("", None),
            ("-", None),
            ("5", None),
            ("s", None),
            (".s", None),
            ("1 h", None),
            ("1d", None),
            ("1h30", None),
            ("1H", None),
            ("0x1s", None),
        ] {
            assert_eq!(nanoseconds(text), expect, "{text}");
        }
    }
}
