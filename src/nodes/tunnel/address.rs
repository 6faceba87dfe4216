//! Which addresses a node may have.
//!
//! What is special to this host or to its cloud is refused, whatever name led to it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Why an address is not dialled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unfit {
    /// It leads to the host that dials.
    Loopback,
    /// It is valid on one link only.
    LinkLocal,
    /// A cloud's metadata service, which hands out credentials.
    Metadata,
    /// A group, or everybody.
    Multicast,
    /// No address: `0.0.0.0`, `::`.
    Unspecified,
    /// In none of the node's networks.
    Outside,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "the address of a cloud's metadata service",
            Self::Multicast => "a multicast or broadcast address",
            Self::Unspecified => "the unspecified address",
            Self::Outside => "in none of the node's networks",
        })
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

const fn v6(bits: u128, length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), length))
}

/// The special ranges, the narrowest first.
///
/// Sources: IANA's special-purpose registries; the metadata services of AWS and Google
/// (169.254.169.254, fd00:ec2::254, fd20:ce::254), Azure (168.63.129.16), Alibaba
/// (100.100.100.200), Oracle (192.0.0.192).
const SPECIAL: [(IpNet, Unfit); 16] = [
    (v4(169, 254, 169, 254, 32), Unfit::Metadata),
    (v4(168, 63, 129, 16, 32), Unfit::Metadata),
    (v4(100, 100, 100, 200, 32), Unfit::Metadata),
    (v4(192, 0, 0, 192, 32), Unfit::Metadata),
    (v6(0xfd00_0ec2_0000_0000_0000_0000_0000_0254, 128), Unfit::Metadata),
    (v6(0xfd20_00ce_0000_0000_0000_0000_0000_0254, 128), Unfit::Metadata),
    (v4(255, 255, 255, 255, 32), Unfit::Multicast),
    (v4(127, 0, 0, 0, 8), Unfit::Loopback),
    (v4(0, 0, 0, 0, 8), Unfit::Unspecified),
    (v4(169, 254, 0, 0, 16), Unfit::LinkLocal),
    (v4(224, 0, 0, 0, 4), Unfit::Multicast),
    (v6(1, 128), Unfit::Loopback),
    (v6(0, 128), Unfit::Unspecified),
    (v6(0xfe80_0000_0000_0000_0000_0000_0000_0000, 10), Unfit::LinkLocal),
    (v6(0xfec0_0000_0000_0000_0000_0000_0000_0000, 10), Unfit::LinkLocal),
    (v6(0xff00_0000_0000_0000_0000_0000_0000_0000, 8), Unfit::Multicast),
];

/// The IPv4 address inside one of IPv6: mapped (RFC 4291), compatible, or behind the well-known
/// translator (RFC 6052).
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(ip) = address.to_canonical() else { return address.to_canonical() };
    let inner = match ip.segments() {
        // Not `::` and `::1`, which look like compatible ones.
        [0, 0, 0, 0, 0, 0, high, low] if high > 0 => Some((high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some((high, low)),
        _ => None,
    };
    inner.map_or(IpAddr::V6(ip), |(high, low)| {
        IpAddr::V4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
    })
}

/// Whether a node may lie at this address. If it has networks, it must lie in one of them; a
/// special address is allowed by a network that lies wholly in the special range, not
/// by one that happens to hold it.
pub(super) fn judge(address: IpAddr, networks: &[IpNet]) -> Result<(), Unfit> {
    let address = plain(address);
    let mut holding = networks.iter().filter(|network| network.contains(&address)).peekable();
    let special = SPECIAL.iter().find(|(range, _)| range.contains(&address));
    match special {
        Some((range, why)) => {
            if holding.any(|network| range.contains(network)) {
                Ok(())
            } else {
                Err(*why)
            }
        }
        None if networks.is_empty() || holding.peek().is_some() => Ok(()),
        None => Err(Unfit::Outside),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn judged(address: &str, networks: &[&str]) -> Result<(), Unfit> {
        let networks: Vec<IpNet> = networks.iter().map(|text| text.parse().unwrap()).collect();
        judge(address.parse().unwrap(), &networks)
    }

    #[test]
    fn trap_47_special_addresses_are_refused_in_every_spelling() {
        for (address, why) in [
            ("127.0.0.1", Unfit::Loopback),
            ("127.255.3.4", Unfit::Loopback),
            ("::1", Unfit::Loopback),
            ("::ffff:127.0.0.1", Unfit::Loopback),
            ("::127.0.0.1", Unfit::Loopback),
            ("64:ff9b::127.0.0.1", Unfit::Loopback),
            ("169.254.1.1", Unfit::LinkLocal),
            ("fe80::1", Unfit::LinkLocal),
            ("febf::1", Unfit::LinkLocal),
            ("fec0::1", Unfit::LinkLocal),
            ("169.254.169.254", Unfit::Metadata),
            ("::ffff:169.254.169.254", Unfit::Metadata),
            ("64:ff9b::a9fe:a9fe", Unfit::Metadata),
            ("fd00:ec2::254", Unfit::Metadata),
            ("168.63.129.16", Unfit::Metadata),
            ("100.100.100.200", Unfit::Metadata),
            ("224.0.0.1", Unfit::Multicast),
            ("239.255.255.255", Unfit::Multicast),
            ("255.255.255.255", Unfit::Multicast),
            ("::ffff:224.0.0.1", Unfit::Multicast),
            ("ff02::1", Unfit::Multicast),
            ("0.0.0.0", Unfit::Unspecified),
            ("0.1.2.3", Unfit::Unspecified),
            ("::", Unfit::Unspecified),
            ("::ffff:0.0.0.0", Unfit::Unspecified),
        ] {
            assert_eq!(judged(address, &[]), Err(why), "{address}");
            assert_eq!(judged(address, &["0.0.0.0/0", "::/0"]), Err(why), "{address}");
            assert_eq!(judged(address, &["10.0.0.0/8"]), Err(why), "{address}");
        }
        for address in ["10.0.0.1", "192.168.1.1", "203.0.113.9", "2001:db8::1", "fd00::1"] {
            assert_eq!(judged(address, &[]), Ok(()), "{address}");
        }
    }

    #[test]
    fn networks_allow_what_lies_in_them_and_nothing_else() {
        assert_eq!(judged("127.0.0.1", &["127.0.0.0/8"]), Ok(()));
        assert_eq!(judged("127.0.0.2", &["127.0.0.1/32"]), Err(Unfit::Loopback));
        assert_eq!(judged("::ffff:127.0.0.1", &["127.0.0.0/8"]), Ok(()));
        assert_eq!(judged("10.1.2.3", &["10.0.0.0/8"]), Ok(()));
        assert_eq!(judged("11.1.2.3", &["10.0.0.0/8"]), Err(Unfit::Outside));
        assert_eq!(judged("2001:db8::1", &["10.0.0.0/8", "2001:db8::/32"]), Ok(()));
        // Who writes link-local does not mean the service that hands out credentials.
        assert_eq!(judged("169.254.169.254", &["169.254.0.0/16"]), Err(Unfit::Metadata));
        assert_eq!(judged("169.254.169.254", &["169.254.169.254/32"]), Ok(()));
    }

    proptest! {
        #[test]
        fn a_mapped_address_is_judged_as_the_one_it_maps(bits: u32, net: u32, length in 0_u8..=32) {
            let ip = Ipv4Addr::from(bits);
            let network = Ipv4Net::new(Ipv4Addr::from(net), length).unwrap().trunc();
            for networks in [vec![], vec![IpNet::V4(network)]] {
                prop_assert_eq!(
                    judge(ip.into(), &networks),
                    judge(ip.to_ipv6_mapped().into(), &networks)
                );
            }
        }
    }
}
