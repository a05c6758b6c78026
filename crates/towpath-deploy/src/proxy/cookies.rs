//! Towpath's own cookies. Browsers send them to every port of the host, but no application may see them.

use hyper::{
    HeaderMap,
    header::{self, HeaderValue},
};
use towpath_types::SESSION_COOKIE_PREFIX;

/// Removes the cookies of signed-in browsers from a request.
pub(super) fn strip_session(headers: &mut HeaderMap) {
    let is_ours = |pair: &[u8]| pair.trim_ascii_start().starts_with(SESSION_COOKIE_PREFIX.as_bytes());
    let lines: Vec<HeaderValue> = headers.get_all(header::COOKIE).iter().cloned().collect();
    if !lines
        .iter()
        .any(|line| line.as_bytes().split(|byte| *byte == b';').any(is_ours))
    {
        return;
    }
    headers.remove(header::COOKIE);
    for line in lines {
        let pairs = line.as_bytes().split(|byte| *byte == b';');
        let others: Vec<&[u8]> = pairs.filter(|pair| !is_ours(pair)).map(<[u8]>::trim_ascii).collect();
        if let Ok(kept) = HeaderValue::from_bytes(&others.join(&b"; "[..]))
            && !kept.is_empty()
        {
            headers.append(header::COOKIE, kept);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_application_never_sees_the_session() {
        let check = |lines: &[&'static str], expected: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::COOKIE, HeaderValue::from_static(line));
            }
            strip_session(&mut headers);
            let left: Vec<&str> = headers
                .get_all(header::COOKIE)
                .iter()
                .map(|value| value.to_str().unwrap())
                .collect();
            assert_eq!(left, expected, "{lines:?}");
        };
        check(&["a=b; towpath_session_0190abcd=secret; c=d"], &["a=b; c=d"]);
        check(&["towpath_session_0190abcd=secret"], &[]);
        check(
            &["a=b", "towpath_session_1=x;towpath_session_2=y", "c=d"],
            &["a=b", "c=d"],
        );
        check(&["a=b;c=d"], &["a=b;c=d"]);
        check(&["mine=towpath_session_1"], &["mine=towpath_session_1"]);
    }
}
