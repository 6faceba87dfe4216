//! From where a certificate for a VM may be used, as the VM sees it.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::plain_text::masked;

/// Most networks: OpenSSH reads the list anew for every login.
const NETWORKS_MAX: usize = 64;

/// The critical option `source-address` of the certificates that let the edge into a VM (OpenSSH
/// PROTOCOL.certkeys).
///
/// A VM behind a port forward sees the forwarder's address, not the one that the edge dialled from.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum SourceAddress {
    /// The edge's own address on that connection.
    #[default]
    Own,
    /// No such option: good from anywhere.
    Anywhere,
    /// One of these; at least one.
    Networks(Box<[IpNet]>),
}

/// Why a text is no [`SourceAddress`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SourceAddressError {
    /// One of its items.
    #[error("\"{0}\" is no network; write \"own\", \"none\", or networks like \"10.0.0.0/8\"")]
    NoNetwork(String),
    /// One of its items.
    #[error("{network} has bits set beyond its prefix; write \"{}\"", .network.trunc())]
    HostBits {
        /// As written.
        network: IpNet,
    },
    /// Too many items.
    #[error("more than {NETWORKS_MAX} networks; merge them")]
    TooMany,
}

impl SourceAddress {
    /// The value of the option in a certificate, for an edge that dials from `own`.
    /// `None`: no such option.
    #[must_use]
    pub fn option(&self, own: Option<IpAddr>) -> Option<String> {
        match self {
            Self::Own => own.map(|ip| ip.to_string()),
            Self::Anywhere => None,
            Self::Networks(_) => Some(self.to_string()),
        }
    }

    /// As [`str::parse`], for items that stand apart.
    ///
    /// # Errors
    /// The first that is faulty.
    pub fn networks<'a>(items: impl Iterator<Item = &'a str>) -> Result<Self, SourceAddressError> {
        let networks = items.map(|item| network(item.trim()));
        let networks = networks.take(NETWORKS_MAX + 1).collect::<Result<Box<[_]>, _>>()?;
        if networks.len() > NETWORKS_MAX {
            return Err(SourceAddressError::TooMany);
        }
        if networks.is_empty() { Err(no_network("")) } else { Ok(Self::Networks(networks)) }
    }
}

fn network(item: &str) -> Result<IpNet, SourceAddressError> {
    let parsed = item.parse().or_else(|_| item.parse::<IpAddr>().map(IpNet::from));
    match parsed {
        Ok(network) if network.trunc() != network => Err(SourceAddressError::HostBits { network }),
        Ok(network) if network.addr().to_canonical() != network.addr() => Err(no_network(item)),
        Ok(network) => Ok(network),
        Err(_) => Err(no_network(item)),
    }
}

fn no_network(item: &str) -> SourceAddressError {
    SourceAddressError::NoNetwork(masked(item, 64))
}

impl std::str::FromStr for SourceAddress {
    type Err = SourceAddressError;

    fn from_str(text: &str) -> Result<Self, SourceAddressError> {
        match text.trim() {
            "own" => Ok(Self::Own),
            "none" => Ok(Self::Anywhere),
            list => Self::networks(list.split(',')),
        }
    }
}

impl TryFrom<String> for SourceAddress {
    type Error = SourceAddressError;

    fn try_from(text: String) -> Result<Self, SourceAddressError> {
        text.parse()
    }
}

impl std::fmt::Display for SourceAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Own => f.write_str("own"),
            Self::Anywhere => f.write_str("none"),
            Self::Networks(networks) => {
                for (at, network) in networks.iter().enumerate() {
                    if at > 0 {
                        f.write_str(",")?;
                    }
                    write!(f, "{network}")?;
                }
                Ok(())
            }
        }
    }
}

impl From<SourceAddress> for String {
    fn from(source: SourceAddress) -> Self {
        source.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_reads_back_as_it_is_written() {
        for (text, written) in [
            ("own", "own"),
            (" none ", "none"),
            ("10.0.0.0/8, fd00::/8", "10.0.0.0/8,fd00::/8"),
            ("192.0.2.7", "192.0.2.7/32"),
        ] {
            let source: SourceAddress = text.parse().unwrap();
            assert_eq!(source.to_string(), written);
            assert_eq!(written.parse(), Ok(source));
        }
    }

    #[test]
    fn what_a_certificate_says_is_what_the_vm_is_to_see() {
        let own = Some([192, 0, 2, 7].into());
        let says = |text: &str| text.parse::<SourceAddress>().unwrap().option(own);
        assert_eq!(says("own").as_deref(), Some("192.0.2.7"));
        assert_eq!(says("none"), None);
        assert_eq!(says("127.0.0.1,10.0.0.0/8").as_deref(), Some("127.0.0.1/32,10.0.0.0/8"));
    }

    #[test]
    fn what_openssh_would_refuse_is_refused_here() {
        for text in ["", "nowhere", "10.0.0.0/8,", "10.0.0.0/33", "::ffff:10.0.0.1", "10.0.0.*"] {
            assert!(
                matches!(text.parse::<SourceAddress>(), Err(SourceAddressError::NoNetwork(_))),
                "{text}"
            );
        }
        let fault = "10.0.0.1/8".parse::<SourceAddress>().unwrap_err().to_string();
        assert_eq!(fault, "10.0.0.1/8 has bits set beyond its prefix; write \"10.0.0.0/8\"");
        let many = ["10.0.0.1"; NETWORKS_MAX + 1].join(",");
        assert_eq!(many.parse::<SourceAddress>(), Err(SourceAddressError::TooMany));
        assert!(many["10.0.0.1,".len()..].parse::<SourceAddress>().is_ok());
    }
}
