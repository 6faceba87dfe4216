//! Paths of the API and their queries.

use std::fmt::Write as _;

/// A path of the API: every part as one segment, whatever it holds (RFC 3986 §2.3).
pub(super) fn path<'p>(parts: impl IntoIterator<Item = &'p str>) -> String {
    let mut path = "/v1".to_owned();
    for part in parts {
        path.push('/');
        encode(part, &mut path);
    }
    path
}

/// The path with a query behind it.
pub(super) fn with_query<'q>(
    path: &str,
    query: impl IntoIterator<Item = (&'q str, String)>,
) -> String {
    let mut whole = path.to_owned();
    for (index, (name, value)) in query.into_iter().enumerate() {
        whole.push(if index == 0 { '?' } else { '&' });
        whole.push_str(name);
        whole.push('=');
        encode(&value, &mut whole);
    }
    whole
}

fn encode(text: &str, into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            into.push(char::from(byte));
        } else {
            let _ = write!(into, "%{byte:02X}");
        }
    }
}
