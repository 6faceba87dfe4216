//! Names of zones and hosts.

use std::fmt;

use crate::route::is_label;

/// Longest domain name in dotted form without its final dot (RFC 1035 §2.3.4: 255
/// bytes on the wire).
pub(super) const NAME_BYTES_MAX: usize = 253;

/// A host name in lower case, without its final dot: labels of `a-z 0-9 -`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DomainName(String);

impl DomainName {
    /// `None` if `text` is no such name. Upper case becomes lower case, a final dot is dropped.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        (text.len() <= NAME_BYTES_MAX && text.split('.').all(is_label)).then_some(Self(text))
    }

    /// The name server of a zone that names none itself. A zone leaves room for it.
    pub(super) fn usual_ns(zone: &Self) -> Self {
        Self(format!("ns.{zone}"))
    }

    /// `ns1.vm.test`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before `zone`: `ns1`, or nothing for the zone itself; `None` outside it.
    #[must_use]
    pub fn below<'a>(&'a self, zone: &Self) -> Option<&'a str> {
        let before = self.0.strip_suffix(zone.as_str())?;
        if before.is_empty() { Some(before) } else { before.strip_suffix('.') }
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
