//! Names as Docker writes them. Whatever is not one goes into no path: `../images/json?x=` would be
//! another question than the one that was asked.
//!
//! Source: moby `daemon/names`, `volume/local`; distribution `reference/regexp.go`; OCI image
//! specification, descriptors §digests.

use std::fmt;
use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

use crate::plain_text::{SHOWN_CHARS_MAX, masked};

/// Bytes of a name: a file of that name has to be possible.
const NAME_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;

/// A name that Docker has none of.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{name}` is no {kind}: {rule}")]
pub struct NameFault {
    kind: &'static str,
    /// What was written, cut and masked.
    name: String,
    rule: &'static str,
}

/// What has names of its own.
pub trait Named {
    /// What one of these is called.
    const KIND: &'static str;
}

/// A name or id of a `K`.
#[derive(Deserialize, Serialize)]
#[serde(try_from = "String", into = "String", bound = "K: Named")]
pub struct Name<K>(String, PhantomData<fn() -> K>);

macro_rules! named {
    ($($kind:ident, $name:ident, $text:literal;)*) => {$(
        #[doc = concat!("Has the names of a ", $text, ".")]
        #[derive(Debug)]
        pub enum $kind {}
        impl Named for $kind {
            const KIND: &'static str = $text;
        }
        #[doc = concat!("Name or id of a ", $text, ".")]
        pub type $name = Name<$kind>;
    )*};
}

named! {
    OfContainer, ContainerName, "container";
    OfVolume, VolumeName, "volume";
    OfNetwork, NetworkName, "network";
    OfExec, ExecId, "command in a container";
}

impl<K: Named> Name<K> {
    /// The name that `text` is.
    ///
    /// # Errors
    /// [`NameFault`].
    pub fn new(text: &str) -> Result<Self, NameFault> {
        let first = text.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric());
        let rest = text.bytes().all(|c| c.is_ascii_alphanumeric() || b"_.-".contains(&c));
        if first && rest && text.len() <= NAME_BYTES_MAX {
            return Ok(Self(text.to_owned(), PhantomData));
        }
        let rule = "letters, digits, `_`, `.` and `-`, a letter or digit first, 255 at most";
        Err(NameFault { kind: K::KIND, name: masked(text, SHOWN_CHARS_MAX), rule })
    }

    /// As it goes into a path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<K: Named> TryFrom<String> for Name<K> {
    type Error = NameFault;

    fn try_from(text: String) -> Result<Self, NameFault> {
        Self::new(&text)
    }
}

impl<K> From<Name<K>> for String {
    fn from(name: Name<K>) -> Self {
        name.0
    }
}

impl<K> Clone for Name<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<K> PartialEq for Name<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<K> Eq for Name<K> {}

impl<K> fmt::Debug for Name<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<K> fmt::Display for Name<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A reference to an image: a name with a tag or digest, or an id.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName {
    whole: String,
    /// Where the repository ends.
    repository_len: usize,
}

impl ImageName {
    /// The reference that `text` is.
    ///
    /// # Errors
    /// [`NameFault`].
    pub fn new(text: &str) -> Result<Self, NameFault> {
        let rule =
            "as in `app:1`, `registry.example:5000/team/app@sha256:...` or an id, in lower case";
        let fault = || NameFault { kind: "image", name: masked(text, SHOWN_CHARS_MAX), rule };
        let whole = text.to_owned();
        if is_digest(text) {
            return Ok(Self { whole, repository_len: text.len() });
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash belongs to the registry's port.
        let last = name.rfind('/').map_or(0, |slash| slash + 1);
        let (repository, tag) = match name[last..].split_once(':') {
            Some((part, tag)) => (&name[..last + part.len()], Some(tag)),
            None => (name, None),
        };
        let good =
            is_repository(repository) && tag.is_none_or(is_tag) && digest.is_none_or(is_digest);
        let repository_len = repository.len();
        if good { Ok(Self { whole, repository_len }) } else { Err(fault()) }
    }

    /// All of it.
    pub fn as_str(&self) -> &str {
        &self.whole
    }

    /// What stands before tag and digest.
    pub(super) fn repository(&self) -> &str {
        &self.whole[..self.repository_len]
    }

    /// The digest, else the tag, else `latest`: without one, a pull would take every tag there is.
    pub(super) fn tag(&self) -> &str {
        let rest = &self.whole[self.repository_len..];
        match (rest.split_once('@'), rest.strip_prefix(':')) {
            (Some((_, digest)), _) => digest,
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }
}

impl TryFrom<String> for ImageName {
    type Error = NameFault;

    fn try_from(text: String) -> Result<Self, NameFault> {
        Self::new(&text)
    }
}

impl From<ImageName> for String {
    fn from(name: ImageName) -> Self {
        name.whole
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.whole.fmt(f)
    }
}

fn is_repository(name: &str) -> bool {
    if name.len() > NAME_BYTES_MAX {
        return false;
    }
    let mut parts = name.split('/').peekable();
    let first = name.split('/').next().unwrap_or_default();
    // With a dot, a port, upper case or as `localhost` a first part is a registry's host.
    let host = name.len() > first.len()
        && (first.contains(['.', ':', '['])
            || first == "localhost"
            || first.bytes().any(|c| c.is_ascii_uppercase()));
    if host {
        parts.next();
        if !is_host(first) {
            return false;
        }
    }
    parts.all(is_path_part)
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((ip, "")) => (ip, None),
        Some((ip, port)) => (ip, port.strip_prefix(':').or(Some(""))),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.is_none_or(|port| port.parse::<u16>().is_ok() && !port.starts_with('+'));
    let ip = text.starts_with('[') && host.parse::<std::net::Ipv6Addr>().is_ok();
    let labels = |host: &str| {
        host.split('.').all(|label| {
            let plain = label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
            plain && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
        })
    };
    port && (ip || !text.starts_with('[') && labels(host))
}

/// Lower case and digits, with one `.`, one or two `_` or any number of `-` between them.
fn is_path_part(part: &str) -> bool {
    let is_alnum = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ends = [part.bytes().next(), part.bytes().last()];
    let mut between = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends.iter().all(|end| end.is_some_and(is_alnum))
        && between.all(|gap| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|c| c == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let first = tag.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric() || c == b'_');
    let rest = tag.bytes().all(|c| c.is_ascii_alphanumeric() || b"_.-".contains(&c));
    first && rest && tag.len() <= TAG_BYTES_MAX
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    let hex_len = match algorithm {
        "sha256" => 64,
        "sha512" => 128,
        _ => return false,
    };
    hex.len() == hex_len && hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_leads_to_nothing_but_itself() {
        for name in ["a", "web-1", "keyway-vm.1_x", "0", &"a".repeat(255)] {
            assert!(ContainerName::new(name).is_ok(), "{name}");
        }
        let long = "a".repeat(256);
        for name in
            ["", "..", ".a", "-a", "a/b", "../images/json?x=", "a%2f", "a b", "a\n", "é", &long]
        {
            assert!(VolumeName::new(name).is_err(), "{name}");
        }
        let fault = NetworkName::new("../x\x1b[2J\u{202e}").unwrap_err().to_string();
        assert!(fault.starts_with("`../x?[2J?` is no network: "), "{fault}");
    }

    #[test]
    fn an_image_is_named_as_docker_does() {
        let digest = format!("sha256:{}", "0af".repeat(21) + "1");
        let with_digest = format!("app@{digest}");
        for (text, repository, tag) in [
            ("app", "app", "latest"),
            ("app:1", "app", "1"),
            ("debian:12-slim", "debian", "12-slim"),
            ("a__b/c.d/e--f:_T", "a__b/c.d/e--f", "_T"),
            ("localhost:5000/x", "localhost:5000/x", "latest"),
            ("Reg.example:5000/team/app:v1", "Reg.example:5000/team/app", "v1"),
            ("[fd00::1]:5000/x:y", "[fd00::1]:5000/x", "y"),
            (&with_digest, "app", &digest),
            ("0123456789ab", "0123456789ab", "latest"),
        ] {
            let name = ImageName::new(text).unwrap();
            assert_eq!((name.repository(), name.tag()), (repository, tag), "{text}");
        }
        assert!(ImageName::new(&digest).is_ok());
    }

    #[test]
    fn what_docker_would_not_take_is_no_image() {
        let long = "a".repeat(256);
        for text in [
            "",
            "App",
            "app:",
            "app:-1",
            "app@sha256:12",
            "../images/json?x=",
            "a/../b",
            "a//b",
            "/a",
            "a/",
            "a..b",
            "a___b",
            "a.-b",
            "x y",
            "app:1?x",
            "a:1:2",
            "a:99999/b",
            "[::1/x",
            "[x]/y",
            "app:1@",
            "é",
            &long,
        ] {
            assert!(ImageName::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_from_a_daemon_is_judged_too() {
        assert!(serde_json::from_str::<ContainerName>("\"abc\"").is_ok());
        assert!(serde_json::from_str::<ContainerName>("\"../abc\"").is_err());
        assert!(serde_json::from_str::<ImageName>("\"app:1\"").is_ok());
        assert!(serde_json::from_str::<ImageName>("\"<none>:<none>\"").is_err());
    }

    proptest! {
        #[test]
        fn no_part_of_a_name_climbs(text in "[a-z0-9A-Z_./:@%?#-]{0,24}") {
            if let Ok(name) = ImageName::new(&text) {
                let climbs = |part: &str| part.is_empty() || part == "." || part == "..";
                prop_assert!(!name.as_str().split('/').any(climbs));
                prop_assert!(!text.contains(['%', '?', '#']));
            }
        }
    }
}
