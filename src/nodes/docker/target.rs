//! Targets of requests (RFC 9112 §3.2), made of parts that mean nothing but themselves.

use std::fmt::Write as _;

use super::names::{ImageName, Name, Named};

/// A path below the API's version, and its query.
#[derive(Clone, Debug)]
pub(super) struct Target {
    text: String,
    has_query: bool,
}

impl Target {
    /// From a path of ours.
    pub(super) fn new(path: &'static str) -> Self {
        Self { text: path.to_owned(), has_query: false }
    }

    /// `/containers/NAME` and its like.
    pub(super) fn of<K: Named>(path: &'static str, name: &Name<K>) -> Self {
        Self::new(path).part(name.as_str())
    }

    /// `/images/NAME`.
    pub(super) fn of_image(name: &ImageName) -> Self {
        Self::new("/images").part(name.as_str())
    }

    /// The next part of the path. An image's name has slashes, and no part of it climbs.
    fn part(mut self, name: &str) -> Self {
        self.text.push('/');
        encode(name, b"/", &mut self.text);
        self
    }

    /// The rest of a path of ours.
    pub(super) fn then(mut self, path: &'static str) -> Self {
        self.text.push_str(path);
        self
    }

    pub(super) fn query(mut self, key: &'static str, value: &str) -> Self {
        self.text.push(if self.has_query { '&' } else { '?' });
        self.has_query = true;
        self.text.push_str(key);
        self.text.push('=');
        encode(value, b"", &mut self.text);
        self
    }

    /// Says it only where it is so.
    pub(super) fn flag(self, key: &'static str, value: bool) -> Self {
        if value { self.query(key, "1") } else { self }
    }

    /// Says it only where there is something to say.
    pub(super) fn maybe(self, key: &'static str, value: Option<&str>) -> Self {
        if let Some(value) = value { self.query(key, value) } else { self }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }
}

/// Percent-encodes all but what RFC 3986 §2.3 leaves unreserved, and `kept`.
fn encode(text: &str, kept: &[u8], into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            into.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::ContainerName;
    use super::*;

    #[test]
    fn what_is_asked_cannot_become_another_question() {
        let image = ImageName::new("localhost:5000/team/app:1").unwrap();
        let target =
            Target::of_image(&image).then("/json").query("x", "a b&c=d/../é").flag("y", true);
        let path = "/images/localhost%3A5000/team/app%3A1/json?x=a%20b%26c%3Dd%2F..%2F%C3%A9&y=1";
        assert_eq!(target.as_str(), path);
        let web = ContainerName::new("web").unwrap();
        let target = Target::of("/containers", &web).flag("y", false).maybe("t", Some("3"));
        assert_eq!(target.as_str(), "/containers/web?t=3");
    }
}
