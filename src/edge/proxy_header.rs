//! The PROXY protocol, versions 1 and 2: how a load balancer says who connected and
//! what they dialled.
//!
//! A header is *required* from the listed networks, which may send nothing else first, and
//! *refused* from everybody else, who would choose their own source and destination by it
//! (CVE-2024-35175). Pure: the caller keeps the bytes it has read, gives all of them from the first
//! on, and drops as many as the verdict says were used; what follows them is the client's SSH.
//! Until the header is whole the edge sends nothing, so no banner is lost in a balancer.
//!
//! Source: HAProxy `doc/proxy-protocol.txt`, 2020/03/05, §2.1 (text), §2.2 (binary).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

/// The most bytes a header may have, so the most a caller needs to keep while waiting for one. The
/// binary form could say 65,551; balancers send under 300.
pub const HEADER_BYTES_MAX: usize = 4096;

/// The most bytes a text header has with its line end (§2.1).
const TEXT_BYTES_MAX: usize = 107;

/// How a text header begins.
const TEXT_START: &[u8] = b"PROXY ";

/// How a binary header begins (§2.2).
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and transport, length of the rest.
const FIXED_BYTES: usize = 16;

/// The field that carries a checksum of the whole header (§2.2.4), `PP2_TYPE_CRC32C`.
const TYPE_CRC32C: u8 = 0x03;

/// The networks that must, and alone may, send a header.
#[derive(Clone, Debug, Default)]
pub struct Senders(Vec<IpNet>);

/// What a peer owes us before SSH begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expected {
    /// A header, whatever else.
    Header,
    /// SSH at once.
    Plain,
}

/// Who connected to the balancer, and where. An IPv4 address written as IPv6 is given as IPv4.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Origin {
    /// The client: what admission, logs and `source-address` see.
    pub source: SocketAddr,
    /// What it dialled; goes through the private -> public map like any other local address.
    pub destination: SocketAddr,
}

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HeaderVerdict {
    /// Not enough to tell: ask again with at least this many bytes, counted from the first.
    More {
        /// Bytes from the start of the connection; at most [`HEADER_BYTES_MAX`].
        at_least: usize,
    },
    /// No header, as it should be: every byte is SSH.
    Plain,
    /// A client behind a balancer; its SSH begins `used` bytes in.
    Proxied {
        /// From where to where.
        origin: Origin,
        /// Bytes of the header.
        used: usize,
    },
    /// The balancer itself (`LOCAL`, `UNKNOWN`, `UNSPEC`), which wants to know whether SSH is
    /// spoken here: gets the identification line and is closed, uncounted, never penalised.
    HealthCheck,
}

/// Why the bytes are refused. Never the client's fault: it is the sender in between that is
/// wrong, or not listed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProxyHeaderError {
    /// A header from a peer that may not send one.
    #[error("PROXY header from an address that is not in proxy_protocol_from")]
    NotListed,
    /// A listed peer that sent something else.
    #[error("no PROXY header from an address in proxy_protocol_from")]
    Missing,
    /// A text header that does not follow §2.1.
    #[error("malformed PROXY header (version 1)")]
    Text,
    /// A binary header that does not follow §2.2.
    #[error("malformed PROXY header (version 2)")]
    Binary,
    /// A version or command that does not exist yet.
    #[error("PROXY header of an unknown version or command")]
    Version,
    /// UDP or a Unix socket: SSH comes over neither.
    #[error("PROXY header for another transport than TCP")]
    Transport,
    /// Over [`HEADER_BYTES_MAX`].
    #[error("PROXY header of {0} bytes")]
    TooLong(usize),
    /// The checksum it carries does not hold.
    #[error("PROXY header with a wrong checksum")]
    Checksum,
}

impl Senders {
    /// The networks as configured (`proxy_protocol_from`).
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// What the peer at `address`, the one of the TCP connection itself, has to send.
    #[must_use]
    pub fn expect(&self, address: IpAddr) -> Expected {
        let address = address.to_canonical();
        if self.0.iter().any(|network| network.contains(&address)) {
            Expected::Header
        } else {
            Expected::Plain
        }
    }
}

/// Judges `input`, all bytes since the connection began.
///
/// # Errors
/// [`ProxyHeaderError`]: final, close the connection without a word.
pub fn inspect(expected: Expected, input: &[u8]) -> Result<HeaderVerdict, ProxyHeaderError> {
    let text = Start::of(input, TEXT_START);
    let binary = Start::of(input, SIGNATURE);
    match (expected, text, binary) {
        (Expected::Plain, Start::Other, Start::Other) => Ok(HeaderVerdict::Plain),
        (Expected::Plain, Start::Whole, _) | (Expected::Plain, _, Start::Whole) => {
            Err(ProxyHeaderError::NotListed)
        }
        (Expected::Header, Start::Whole, _) => parse_text(input),
        (Expected::Header, _, Start::Whole) => parse_binary(input),
        (_, Start::Begun, _) | (_, _, Start::Begun) => {
            Ok(HeaderVerdict::More { at_least: input.len() + 1 })
        }
        (Expected::Header, Start::Other, Start::Other) => Err(ProxyHeaderError::Missing),
    }
}

/// How far `input` agrees with one of the two ways to begin.
#[derive(Clone, Copy)]
enum Start {
    /// It cannot become it any more.
    Other,
    /// It is a part of it.
    Begun,
    /// It is all there.
    Whole,
}

impl Start {
    fn of(input: &[u8], begin: &[u8]) -> Self {
        if input.starts_with(begin) {
            Self::Whole
        } else if begin.starts_with(input) {
            Self::Begun
        } else {
            Self::Other
        }
    }
}

/// `PROXY TCP4 192.0.2.1 198.51.100.2 56324 22\r\n`.
fn parse_text(input: &[u8]) -> Result<HeaderVerdict, ProxyHeaderError> {
    let window = input.get(..TEXT_BYTES_MAX).unwrap_or(input);
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if input.len() < TEXT_BYTES_MAX {
            Ok(HeaderVerdict::More { at_least: input.len() + 1 })
        } else {
            Err(ProxyHeaderError::Text)
        };
    };
    let line = window.get(TEXT_START.len()..end).ok_or(ProxyHeaderError::Text)?;
    let line = std::str::from_utf8(line).map_err(|_| ProxyHeaderError::Text)?;
    let mut words = line.split(' ');
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        // §2.1: whatever stands behind it must be ignored.
        return Ok(HeaderVerdict::HealthCheck);
    }
    let mut next = || words.next().ok_or(ProxyHeaderError::Text);
    let (source, destination) = (next()?, next()?);
    let ports = (port(next()?)?, port(next()?)?);
    if words.next().is_some() {
        return Err(ProxyHeaderError::Text);
    }
    let (source, destination) = match family {
        "TCP4" => (address::<Ipv4Addr>(source)?, address::<Ipv4Addr>(destination)?),
        "TCP6" => (address::<Ipv6Addr>(source)?, address::<Ipv6Addr>(destination)?),
        _ => return Err(ProxyHeaderError::Text),
    };
    Ok(HeaderVerdict::Proxied {
        origin: Origin {
            source: SocketAddr::new(source, ports.0),
            destination: SocketAddr::new(destination, ports.1),
        },
        used: end + 2,
    })
}

fn address<A: std::str::FromStr + Into<IpAddr>>(word: &str) -> Result<IpAddr, ProxyHeaderError> {
    let parsed: A = word.parse().map_err(|_| ProxyHeaderError::Text)?;
    Ok(parsed.into().to_canonical())
}

/// Decimal without sign or leading zeros (§2.1): what two readers could read
/// differently is refused.
fn port(word: &str) -> Result<u16, ProxyHeaderError> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit());
    if !plain || (word.len() > 1 && word.starts_with('0')) {
        return Err(ProxyHeaderError::Text);
    }
    word.parse().map_err(|_| ProxyHeaderError::Text)
}

fn parse_binary(input: &[u8]) -> Result<HeaderVerdict, ProxyHeaderError> {
    let Some(fixed) = input.first_chunk::<FIXED_BYTES>() else {
        return Ok(HeaderVerdict::More { at_least: FIXED_BYTES });
    };
    let [.., command, family, high, low] = *fixed;
    let used = FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if used > HEADER_BYTES_MAX {
        return Err(ProxyHeaderError::TooLong(used));
    }
    let Some(header) = input.get(..used) else {
        return Ok(HeaderVerdict::More { at_least: used });
    };
    let body = header.get(FIXED_BYTES..).unwrap_or_default();
    match command {
        0x20 => return Ok(HeaderVerdict::HealthCheck),
        0x21 => {}
        _ => return Err(ProxyHeaderError::Version),
    }
    let (origin, fields) = match family {
        0x00 => return Ok(HeaderVerdict::HealthCheck),
        0x11 => endpoints::<4>(body)?,
        0x21 => endpoints::<16>(body)?,
        _ => return Err(ProxyHeaderError::Transport),
    };
    check(header, fields)?;
    Ok(HeaderVerdict::Proxied { origin, used })
}

/// Source, destination, and their ports, at the start of a binary header's body (§2.2); the
/// rest are its fields.
fn endpoints<const WIDTH: usize>(body: &[u8]) -> Result<(Origin, &[u8]), ProxyHeaderError>
where
    IpAddr: From<[u8; WIDTH]>,
{
    let (source, rest) = body.split_first_chunk::<WIDTH>().ok_or(ProxyHeaderError::Binary)?;
    let (destination, rest) = rest.split_first_chunk::<WIDTH>().ok_or(ProxyHeaderError::Binary)?;
    let (source_port, rest) = rest.split_first_chunk::<2>().ok_or(ProxyHeaderError::Binary)?;
    let (destination_port, fields) =
        rest.split_first_chunk::<2>().ok_or(ProxyHeaderError::Binary)?;
    let socket = |ip: [u8; WIDTH], port: [u8; 2]| {
        SocketAddr::new(IpAddr::from(ip).to_canonical(), u16::from_be_bytes(port))
    };
    let origin = Origin {
        source: socket(*source, *source_port),
        destination: socket(*destination, *destination_port),
    };
    Ok((origin, fields))
}

/// Walks the fields of `header`: each must fit, and a checksum among them must hold (§2.2.4).
fn check(header: &[u8], mut fields: &[u8]) -> Result<(), ProxyHeaderError> {
    let mut seen = false;
    while let Some((&kind, rest)) = fields.split_first() {
        let (len, rest) = rest.split_first_chunk::<2>().ok_or(ProxyHeaderError::Binary)?;
        let len = usize::from(u16::from_be_bytes(*len));
        let (value, rest) = rest.split_at_checked(len).ok_or(ProxyHeaderError::Binary)?;
        if kind == TYPE_CRC32C {
            let claimed = <[u8; 4]>::try_from(value).map_err(|_| ProxyHeaderError::Binary)?;
            if std::mem::replace(&mut seen, true) {
                return Err(ProxyHeaderError::Binary);
            }
            let after = rest.len();
            let before = header.len() - after - value.len();
            let blanked = header.iter().enumerate().map(|(position, &byte)| {
                if (before..before + value.len()).contains(&position) { 0 } else { byte }
            });
            if crc32c(blanked) != u32::from_be_bytes(claimed) {
                return Err(ProxyHeaderError::Checksum);
            }
        }
        fields = rest;
    }
    Ok(())
}

/// CRC-32C (Castagnoli), reflected (RFC 4960 appendix B). Bit by bit: at most 4 KiB,
/// once a connection.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    !bytes.fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| {
            (sum >> 1) ^ (POLYNOMIAL & (sum & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
#[path = "proxy_header_tests.rs"]
mod tests;
