//! The `[dns]` section: the zone of the VMs' names, and who may ask for all of it.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use super::document::{Document, Section, Value};
use super::domain_name::{DomainName, NAME_BYTES_MAX};
use super::keys;
use super::lines::Lines;
use super::sections::{Config, Dns, NameServer, Secondary};
use super::values::{meet, network, path_or_none, socket_address};
use crate::plural::count;
use crate::route::LABEL_BYTES_MAX;
use crate::ssh::keytype::KeyType;
use crate::ssh::private_key::PrivateKey;

/// So that the longest label still fits below the zone, with its dot.
const ZONE_BYTES_MAX: usize = NAME_BYTES_MAX - LABEL_BYTES_MAX - 1;
/// Below a second nothing may be cached; beyond an hour a renumbered VM is sought where
/// it no longer is.
const TTL_S: RangeInclusive<u32> = 1..=3600;
const TTL_USUAL_S: u32 = 60;
/// Each is a socket, a listener and two tasks.
const LISTEN_MAX: usize = 64;
/// All of them must fit one answer with their addresses.
const NS_MAX: usize = 13;
/// Addresses of one name server.
const NS_ADDRESSES_MAX: usize = 8;
/// Bounds the linear search at each transfer, and the NOTIFYs of each change.
const SECONDARIES_MAX: usize = 64;
/// Where a secondary that was given as a bare address takes NOTIFY.
const NOTIFY_PORT: u16 = 53;

/// More than one thread answers.
const RESPONSES_PER_SECOND: RangeInclusive<u32> = 0..=1_000_000;
/// As NSD has it. The largest public resolvers ask from many networks, and each remembers an answer
/// for the TTL; whoever asks more often is told to come by TCP. An attacker has 50 kB a second sent
/// to somebody at most.
const RESPONSES_PER_SECOND_USUAL: u32 = 200;

/// A week: longest time that a secondary serves a copy which it cannot renew.
const EXPIRE_S_MAX: u32 = 604_800;
/// A look and another try (REFRESH and RETRY of the zone): a copy that ends sooner comes and goes.
const EXPIRE_S_MIN: u32 = 90;

pub(super) fn read(root: &Section<'_, '_>, base: &Path, lines: &mut Lines) -> Option<Dns> {
    let section = root.section("dns")?;
    let zone = section.require("zone", "\"vm.example.net\"").and_then(|value| read_zone(&value));
    let listen = section.require("listen", "\"192.0.2.53:53\"").and_then(|value| {
        lines.dns = value.line;
        let listen = read_listen(&value)?;
        Some((value, listen))
    });
    let ns = section.get("ns").and_then(|value| {
        let names = read_names(&value)?;
        Some((value, names))
    });
    let glue = section.get("ns_addresses").and_then(|value| read_glue(&value));
    let ttl_s = section.get("ttl").and_then(|value| {
        lines.ttl = Some(value.line);
        value.integer(TTL_S, "seconds")
    });
    let secondaries = section.get("secondaries").and_then(|value| {
        let secondaries = read_secondaries(&value)?;
        Some((value, secondaries))
    });
    let dnssec_key = section.get("dnssec_key").and_then(|value| read_key(&value, base));
    let responses = section.get("responses_per_second");
    let responses = responses
        .and_then(|value| value.integer(RESPONSES_PER_SECOND, "to each network; 0 for no limit"));
    section.finish();
    if let (Some((value, some)), Some(_)) = (&secondaries, &dnssec_key)
        && !some.is_empty()
    {
        value.fault(
            "and `dns.dnssec_key` are both given: answers are signed as they are asked for, and a copy would have none",
            "keep dnssec_key and point the parent's NS at Keyway's own addresses, or let the secondaries sign",
        );
    }
    let (zone, (listen_value, listen)) = (zone?, listen?);
    let names = match ns {
        None => vec![DomainName::usual_ns(&zone)],
        Some((value, names)) => {
            if names.contains(&zone) {
                let fix = format!("write a name below it, such as \"ns.{zone}\"");
                value.fault(format_args!("holds {zone}, the zone itself"), fix);
            }
            names
        }
    };
    let ns = with_addresses(names, &zone, &glue.unwrap_or_default(), &listen);
    if let Some(without) = ns.iter().find(|ns| in_zone(&ns.name, &zone) && ns.addresses.is_empty())
    {
        let name = &without.name;
        listen_value.warn(
            format_args!("names no address to publish for {name}, so that nobody finds it"),
            format_args!("write dns.ns_addresses = {{ \"{name}\" = [\"192.0.2.53\"] }}"),
        );
    }
    Some(Dns {
        zone,
        listen,
        ns,
        ttl_s: ttl_s.unwrap_or(TTL_USUAL_S),
        expire_s: EXPIRE_S_MAX,
        secondaries: secondaries.map(|(_, some)| some).unwrap_or_default(),
        dnssec_key,
        responses_per_second: NonZeroU32::new(responses.unwrap_or(RESPONSES_PER_SECOND_USUAL)),
    })
}

/// What else listens where DNS would: all of them take TCP.
pub(super) fn check(document: &Document, config: &Config, lines: &Lines) {
    let Some(dns) = &config.dns else { return };
    let (ttl_s, quarantine_s) = (dns.ttl_s, config.registry.quarantine_s);
    if u64::from(ttl_s) > quarantine_s {
        let what = format!(
            "`dns.ttl` is {ttl_s} and `registry.quarantine_s` {quarantine_s}: a name that a resolver remembers may lead \
             to another VM"
        );
        let fix =
            format!("write a quarantine_s of at least {ttl_s} and a margin, or a smaller ttl");
        document.fault(lines.ttl.unwrap_or(lines.quarantine), what, fix);
    }
    let edge = config.edge.listen.iter().map(|at| ("edge.listen", *at));
    let api = config.api.tls.iter().map(|tls| ("api.listen", tls.listen));
    let metrics = std::iter::once(("metrics.listen", config.metrics.listen));
    let others: Vec<_> = edge.chain(api).chain(metrics).collect();
    for listen in &dns.listen {
        let met = others.iter().filter(|(_, at)| meet(*at, *listen));
        for (key, at) in met {
            let what = format!("`dns.listen` is {listen}, where `{key}` has {at}");
            document.fault(lines.dns, what, "write another port; DNS takes TCP too");
        }
    }
}

/// A copy of the zone that nobody renews must end before a slot leads to another VM.
pub(super) fn cap_expire(document: &Document, config: &mut Config, lines: &Lines) {
    let quarantine_s = u32::try_from(config.registry.quarantine_s).unwrap_or(u32::MAX);
    let Some(dns) = &mut config.dns else { return };
    let left_s = quarantine_s.saturating_sub(dns.ttl_s);
    if left_s < EXPIRE_S_MIN && !dns.secondaries.is_empty() {
        let what = format!(
            "`registry.quarantine_s` is {quarantine_s} and `dns.ttl` {}: a secondary that has lost touch may show a name for \
             {EXPIRE_S_MIN} s more and a TTL, when its slot leads to another VM already",
            dns.ttl_s
        );
        let least = dns.ttl_s.saturating_add(EXPIRE_S_MIN);
        document.warn(
            lines.dns,
            what,
            format_args!("write registry.quarantine_s = {least} or more"),
        );
    }
    dns.expire_s = left_s.clamp(EXPIRE_S_MIN, EXPIRE_S_MAX);
}

fn in_zone(name: &DomainName, zone: &DomainName) -> bool {
    name.below(zone).is_some()
}

/// Given addresses come first; a name in the zone without any is taken to be this host,
/// where it listens.
fn with_addresses(
    names: Vec<DomainName>,
    zone: &DomainName,
    glue: &[(Value<'_, '_>, DomainName, Vec<IpAddr>)],
    listen: &[SocketAddr],
) -> Vec<NameServer> {
    for (value, name, _) in glue {
        if !names.contains(name) {
            value.fault(format_args!("names {name}, which is not in dns.ns"), "add it to dns.ns");
        } else if !in_zone(name, zone) {
            let what = format!("names {name}, which is not in {zone}");
            value.fault(what, "remove it: its own zone publishes its addresses");
        }
    }
    let here = || {
        let mut own: Vec<IpAddr> = listen.iter().map(SocketAddr::ip).collect();
        own.retain(|ip| !ip.is_unspecified());
        own.dedup();
        own.truncate(NS_ADDRESSES_MAX);
        own
    };
    let each = names.into_iter().map(|name| {
        let given = glue.iter().find(|(_, of, _)| *of == name);
        let addresses = match given {
            Some((_, _, addresses)) => addresses.clone(),
            None if in_zone(&name, zone) => here(),
            None => Vec::new(),
        };
        NameServer { name, addresses }
    });
    each.collect()
}

fn read_zone(value: &Value<'_, '_>) -> Option<DomainName> {
    let text = value.string()?;
    match DomainName::new(text) {
        Some(zone) if zone.as_str().len() > ZONE_BYTES_MAX => {
            let what = format!("is {} bytes long", zone.as_str().len());
            value.fault(what, format_args!("write {ZONE_BYTES_MAX} at most, for names below it"));
            None
        }
        Some(zone) => Some(zone),
        None => {
            value.fault(
                format_args!("is \"{text}\", which is no domain name"),
                "write one such as \"vm.example.net\"",
            );
            None
        }
    }
}

/// One string or a list of them.
fn read_listen(value: &Value<'_, '_>) -> Option<Vec<SocketAddr>> {
    let items = value.one_or_more()?;
    if items.is_empty() || items.len() > LISTEN_MAX {
        let what = format!("holds {}", count(items.len(), "address"));
        value.fault(what, format_args!("write 1 to {LISTEN_MAX} of them, as \"address:port\""));
        return None;
    }
    let (count, mut seen, mut sound) = (items.len(), HashSet::new(), Vec::new());
    for (item, text) in items {
        let Some(address) = socket_address(&item, text) else { continue };
        let same_port: Vec<_> = sound.iter().filter(|it| port_and_family(it, address)).collect();
        let any = |it: &&&SocketAddr| it.ip().is_unspecified() || address.ip().is_unspecified();
        if !seen.insert(address) {
            item.fault(format_args!("names {address} twice"), "write it once");
        } else if let Some(other) = same_port.iter().find(|it| any(it)) {
            let what = format!("names {address} and {other}, one of which includes the other");
            item.fault(what, "keep one of them");
        }
        sound.push(address);
    }
    (sound.len() == count).then_some(sound)
}

fn port_and_family(one: &SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port() && one.is_ipv4() == other.is_ipv4()
}

fn read_names(value: &Value<'_, '_>) -> Option<Vec<DomainName>> {
    let items = value.one_or_more()?;
    if items.is_empty() || items.len() > NS_MAX {
        let what = format!("holds {}", count(items.len(), "name"));
        value.fault(what, format_args!("write 1 to {NS_MAX} of them"));
        return None;
    }
    let (count, mut sound) = (items.len(), Vec::new());
    for (item, text) in items {
        match DomainName::new(text) {
            Some(name) if sound.contains(&name) => {
                item.fault(format_args!("names {name} twice"), "write it once");
            }
            Some(name) => sound.push(name),
            None => item.fault(
                format_args!("holds \"{text}\", which is no host name"),
                "write one such as \"ns1.example.net\"",
            ),
        }
    }
    (sound.len() == count).then_some(sound)
}

/// `{ "ns1.vm.test" = ["192.0.2.1", "2001:db8::1"] }`.
fn read_glue<'d, 'i>(
    value: &Value<'d, 'i>,
) -> Option<Vec<(Value<'d, 'i>, DomainName, Vec<IpAddr>)>> {
    let mut all = Vec::new();
    for (name, entry) in value.entries("write it as { \"ns1.vm.test\" = [\"192.0.2.1\"] }")? {
        let Some(name) = DomainName::new(name) else {
            entry.fault("names no host", "write a name of dns.ns");
            continue;
        };
        let Some(items) = entry.one_or_more() else { continue };
        if items.is_empty() || items.len() > NS_ADDRESSES_MAX {
            let what = format!("holds {}", count(items.len(), "address"));
            entry.fault(what, format_args!("write 1 to {NS_ADDRESSES_MAX} of them"));
        }
        let mut addresses = Vec::new();
        for (item, text) in items {
            match text.parse::<IpAddr>() {
                Ok(ip) if !ip.is_unspecified() => addresses.push(ip.to_canonical()),
                Ok(_) | Err(_) => item.fault(
                    format_args!("holds \"{text}\", which is no address to publish"),
                    "write \"192.0.2.1\" or \"2001:db8::1\"",
                ),
            }
        }
        all.push((entry, name, addresses));
    }
    Some(all)
}

/// Each one an address, an address and port for NOTIFY, or a network.
fn read_secondaries(value: &Value<'_, '_>) -> Option<Vec<Secondary>> {
    let items = value.one_or_more()?;
    if items.len() > SECONDARIES_MAX {
        let what = format!("holds {}", count(items.len(), "entry"));
        value.fault(what, format_args!("merge them into {SECONDARIES_MAX} at most"));
        return None;
    }
    let each = items.into_iter().filter_map(|(item, text)| {
        if text.parse::<SocketAddr>().is_ok() {
            let address = socket_address(&item, text)?;
            return Some(Secondary { network: address.ip().into(), notify: Some(address) });
        }
        let network = network(&item, text)?;
        let one = network.prefix_len() == network.max_prefix_len();
        let notify = one.then(|| SocketAddr::new(network.addr(), NOTIFY_PORT));
        Some(Secondary { network, notify })
    });
    Some(each.collect())
}

fn read_key(value: &Value<'_, '_>, base: &Path) -> Option<Arc<PrivateKey>> {
    let key = keys::private_key(value, &path_or_none(value, base)?, keys::ECDSA_P256)?;
    if key.public().key_type() == KeyType::EcdsaP256 {
        return Some(Arc::new(key));
    }
    let what = format!("is a key of type {}", key.public().key_type().name());
    value.fault(what, format_args!("make one with: ssh-keygen {} -N '' -f FILE", keys::ECDSA_P256));
    None
}
