//! Where a key or certificate may be used from: the address lists of `from=` and `source-address`.
//!
//! Addresses only. A host name would need a reverse lookup, whose answer belongs to whoever
//! connects. An IPv4 address that arrives mapped into IPv6 (`::ffff:192.0.2.1`) is the IPv4
//! address, on both sides.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// Most entries in one list: far above any list kept by hand, and it bounds the work for one login.
const PATTERNS_MAX: usize = 256;

/// An entry of an address list that cannot be honoured, as it was written.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SourceFault {
    /// A host name or a host name pattern.
    #[error(
        "from= entry {0:?} is not an address, a network or an address pattern; host names are not looked up"
    )]
    Name(String),
    /// Something with a `/` that is not a network.
    #[error("from= entry {0:?} is not a network, or has bits set beyond its prefix")]
    Network(String),
    /// More entries than [`PATTERNS_MAX`].
    #[error("from= has more than {PATTERNS_MAX} entries")]
    Many,
}

/// The value of `from="..."`: addresses, networks and `*` `?` address patterns, each maybe negated
/// by `!` (`ssh_config(5)`, PATTERNS).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SourcePatterns(Vec<Pattern>);

#[derive(Clone, Debug, Eq, PartialEq)]
struct Pattern {
    sense: Sense,
    shape: Shape,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Sense {
    Allow,
    Deny,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Shape {
    Network(IpNet),
    Glob(String),
}

impl SourcePatterns {
    /// Reads a comma-separated list.
    ///
    /// # Errors
    /// [`SourceFault`] names the entry.
    pub fn parse(list: &str) -> Result<Self, SourceFault> {
        let patterns = list
            .split(',')
            .take(PATTERNS_MAX.saturating_add(1))
            .map(|entry| Pattern::parse(entry.trim()))
            .collect::<Result<Vec<_>, _>>()?;
        if patterns.len() > PATTERNS_MAX { Err(SourceFault::Many) } else { Ok(Self(patterns)) }
    }

    /// True if an entry allows `source` and none denies it.
    pub fn admits(&self, source: IpAddr) -> bool {
        let source = source.to_canonical();
        let text = source.to_string();
        let hit =
            |sense| self.0.iter().any(|entry| entry.sense == sense && entry.is_hit(source, &text));
        hit(Sense::Allow) && !hit(Sense::Deny)
    }
}

impl Pattern {
    fn parse(entry: &str) -> Result<Self, SourceFault> {
        let (sense, body) =
            entry.strip_prefix('!').map_or((Sense::Allow, entry), |rest| (Sense::Deny, rest));
        let shape = if let Some(network) = parse_network(body) {
            Shape::Network(network)
        } else if body.contains('/') {
            return Err(SourceFault::Network(entry.to_owned()));
        } else if is_address_glob(body) {
            Shape::Glob(body.to_ascii_lowercase())
        } else {
            return Err(SourceFault::Name(entry.to_owned()));
        };
        Ok(Self { sense, shape })
    }

    fn is_hit(&self, source: IpAddr, text: &str) -> bool {
        match &self.shape {
            Shape::Network(network) => network.contains(&source),
            Shape::Glob(glob) => matches_glob(glob.as_bytes(), text.as_bytes()),
        }
    }
}

/// A certificate's `source-address`: a comma-separated list of addresses and networks, without
/// negation or wildcards. `None` if any entry is malformed, else whether `source` is in it.
///
/// Source: OpenSSH `addr_match_cidr_list`.
pub(super) fn is_in_networks(list: &str, source: IpAddr) -> Option<bool> {
    let source = source.to_canonical();
    list.split(',')
        .try_fold(false, |hit, entry| Some(hit | parse_network(entry)?.contains(&source)))
}

/// An address, or a network with no bit set beyond its prefix.
fn parse_network(text: &str) -> Option<IpNet> {
    let network = if text.contains('/') {
        text.parse::<IpNet>().ok()?
    } else {
        text.parse::<IpAddr>().ok()?.into()
    };
    (network.addr() == network.network()).then(|| unmap(network))
}

/// `::ffff:192.0.2.0/120` is `192.0.2.0/24`.
fn unmap(network: IpNet) -> IpNet {
    match (network.addr().to_canonical(), network.prefix_len().checked_sub(96)) {
        (IpAddr::V4(address), Some(prefix)) if network.addr().is_ipv6() => {
            Ipv4Net::new(address, prefix).map_or(network, IpNet::V4)
        }
        _ => network,
    }
}

/// True for what can only be meant for an address: digits and dots, or something with a colon,
/// beside wildcards.
fn is_address_glob(text: &str) -> bool {
    let wild = |byte: u8| matches!(byte, b'*' | b'?');
    text.bytes().any(wild)
        && (text.bytes().all(|byte| wild(byte) || byte.is_ascii_digit() || byte == b'.')
            || text.contains(':')
                && text.bytes().all(|byte| {
                    wild(byte) || byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')
                }))
}

/// `*` is any run of bytes, `?` any one. At most pattern times text steps: only the last `*`
/// is ever retried.
fn matches_glob(mut pattern: &[u8], mut text: &[u8]) -> bool {
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern, text) {
            ([b'*', rest @ ..], _) => {
                retry = Some((rest, text));
                pattern = rest;
            }
            ([], []) => return true,
            ([want, more @ ..], [have, left @ ..]) if *want == b'?' || want == have => {
                (pattern, text) = (more, left);
            }
            _ => {
                let Some((after, [_, left @ ..])) = retry else { return false };
                retry = Some((after, left));
                (pattern, text) = (after, left);
            }
        }
    }
}

#[cfg(test)]
#[path = "source_address_tests.rs"]
mod tests;
