//! Values that both the files of a front door and that of an agent have: addresses,
//! networks, paths.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::document::Value;
use super::keys;
use crate::plural;
use crate::route::SourceAddress;

/// Bounds the linear search at each accept and dial.
const NETWORKS_MAX: usize = 1024;

pub(super) fn socket_address(value: &Value<'_, '_>, text: &str) -> Option<SocketAddr> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => {
            let what = format!("has no port in \"{text}\"");
            value.fault(what, "write a port from 1 to 65535");
        }
        Ok(address) if address.ip().to_canonical() != address.ip() => {
            let what = format!("holds an IPv4-mapped IPv6 address, \"{text}\"");
            let v4 = SocketAddr::new(address.ip().to_canonical(), address.port());
            value.fault(what, format_args!("write \"{v4}\""));
        }
        Ok(address) => return Some(address),
        Err(_) => {
            let what = format!("holds \"{text}\", which is no address and port");
            value.fault(
                what,
                "write \"192.0.2.1:22\" or \"[2001:db8::1]:22\"; host names are not looked up",
            );
        }
    }
    None
}

/// Networks in CIDR notation; a single address counts as a network of one.
pub(super) fn read_networks(value: &Value<'_, '_>) -> Option<Vec<IpNet>> {
    let items = value.strings()?;
    if items.len() > NETWORKS_MAX {
        let what = format!("holds {}", plural::count(items.len(), "network"));
        value.fault(what, format_args!("merge them into {NETWORKS_MAX} at most"));
        return None;
    }
    let count = items.len();
    let sound: Vec<IpNet> =
        items.into_iter().filter_map(|(item, text)| network(&item, text)).collect();
    (sound.len() == count).then_some(sound)
}

pub(super) fn network(item: &Value<'_, '_>, text: &str) -> Option<IpNet> {
    let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    match parsed {
        Ok(network) if network.trunc() != network => item.fault(
            format_args!("holds {text}, which has bits set beyond its prefix"),
            format_args!("write \"{}\"", network.trunc()),
        ),
        Ok(network) if network.addr().to_canonical() != network.addr() => item.fault(
            format_args!("holds {text}, an IPv4-mapped IPv6 network"),
            "write the IPv4 network",
        ),
        Ok(network) => return Some(network),
        Err(_) => item.fault(
            format_args!("holds \"{text}\", which is no network"),
            "write \"10.0.0.0/8\" or \"fd00::/8\"",
        ),
    }
    None
}

/// `"own"`, `"none"` or networks.
pub(super) fn read_source_address(value: &Value<'_, '_>) -> Option<SourceAddress> {
    let items = value.one_or_more()?;
    let read = match &items[..] {
        [(_, text)] => text.parse(),
        many => SourceAddress::networks(many.iter().map(|(_, text)| *text)),
    };
    match read {
        Ok(SourceAddress::Anywhere) => {
            source_is_open(value);
            Some(SourceAddress::Anywhere)
        }
        Ok(source) => Some(source),
        Err(fault) => {
            value.fault(
                format_args!("is no source address: {fault}"),
                "write \"own\", or the networks from which VMs see this server come, as [\"10.0.2.2\"]",
            );
            None
        }
    }
}

/// Of `[vm_leg]`, or of one VM.
fn source_is_open(value: &Value<'_, '_>) {
    value.warn(
        "is \"none\": a login minted for a VM is good from any address for its minute of life",
        "write the networks from which the VM sees this server come, for example [\"10.0.2.2\"]",
    );
}

/// Whether two listeners want the same, one of them perhaps with much beside it.
pub(super) fn meet(one: SocketAddr, other: SocketAddr) -> bool {
    let any = one.ip().is_unspecified() || other.ip().is_unspecified();
    let same = one.ip() == other.ip() || any && one.is_ipv4() == other.is_ipv4();
    same && one.port() == other.port()
}

pub(super) fn path(value: &Value<'_, '_>, base: &Path) -> Option<PathBuf> {
    let text = value.string()?;
    if text.is_empty() || text.contains('\0') {
        value.fault("is not a path", "write a path in double quotes");
        return None;
    }
    Some(keys::resolve(base, text))
}

/// A path where `""` means that there is none.
pub(super) fn path_or_none(value: &Value<'_, '_>, base: &Path) -> Option<PathBuf> {
    if value.string()?.is_empty() { None } else { path(value, base) }
}
