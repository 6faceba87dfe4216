//! What a front door and an agent are told alike: the keys of the door itself,
//! `[vm_leg]`, `[metrics]`.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::document::{Document, Section, Value};
use super::lines::Lines;
use super::values::{meet, path, path_or_none, read_networks, read_source_address, socket_address};
use super::{
    Count, Edge, HostKeys, Log, Metrics, PreferGcm, Principals, UserCa, VmCredential, VmLeg, keys,
};
use crate::ssh::publickey::PublicKey;
use crate::ssh::revocation::Revocations;

/// Beyond any machine's file descriptors for one process (`fs.nr_open`'s ceiling is 2^30,
/// half for each leg).
pub(super) const SESSIONS_MAX: u32 = 1 << 29;
/// Beyond any machine's cores.
const SHARDS_MAX: u32 = 1024;
/// Longer than the slowest touch of a security key; shorter lets honest clients in
/// on bad lines fail.
const LOGIN_GRACE_S: RangeInclusive<u32> = 1..=600;
/// A week: whoever wants to wait longer for sessions to end does not want to drain.
const DRAIN_S: RangeInclusive<u32> = 0..=604_800;
/// A day: nobody would notice a client that is gone. 0 asks none.
const CLIENT_ALIVE_INTERVAL_S: RangeInclusive<u32> = 0..=86_400;
/// Beyond a week at OpenSSH's usual intervals.
const CLIENT_ALIVE_COUNT: RangeInclusive<u32> = 0..=100_000;
/// A client would not wait longer.
const DIAL_TIMEOUT_S: RangeInclusive<u32> = 1..=300;
/// Loopback and the private ranges (RFC 1918, RFC 4193).
const NETWORKS: [(IpAddr, u8); 5] = [
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), 12),
    (IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), 16),
    (IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), 7),
];

/// Reads keys of a table one by one.
pub(super) type Get<'g, 'd, 'i> = &'g dyn Fn(&'static str) -> Option<Value<'d, 'i>>;

/// The keys that both have. What only a front door has is as it is where nobody says anything, and
/// nothing listens.
pub(super) fn door<'d, 'i: 'd>(get: Get<'_, 'd, 'i>, base: &Path, lines: &mut Lines) -> Edge {
    let seconds = |key, range, otherwise| {
        let number = get(key).and_then(|value| value.integer(range, "seconds"));
        Duration::from_secs(number.unwrap_or(otherwise).into())
    };
    if let Some(value) = get("sessions_max").or_else(|| get("half_open_max")) {
        lines.counts = value.line;
    }
    let (revoked_keys, revocations) = revocations(get, base);
    let (sessions, half_open) =
        ("sessions; 0 for as many as fit", "connections; 0 for as many as fit");
    Edge {
        listen: Vec::new(),
        shards: count(get, "shards", SHARDS_MAX, "cores; 0 for all"),
        host_keys: HostKeys::InState,
        login_grace: seconds("login_grace_s", LOGIN_GRACE_S, 30),
        drain: seconds("drain_s", DRAIN_S, 3600),
        proxy_protocol_from: Vec::new(),
        sessions_max: count(get, "sessions_max", SESSIONS_MAX, sessions),
        sessions_max_per_user: Count::Automatic,
        sessions_max_per_vm: Count::Automatic,
        half_open_max: count(get, "half_open_max", SESSIONS_MAX, half_open),
        log: get("log").and_then(|value| log(&value)).unwrap_or(Log::Auto),
        hide_keys: false,
        legacy_macs: true,
        legacy_kex: true,
        prefer_gcm: get("prefer_gcm")
            .and_then(|value| value.word(&[("bulk", PreferGcm::Bulk), ("never", PreferGcm::Never)]))
            .unwrap_or(PreferGcm::Bulk),
        client_alive_interval: seconds("client_alive_interval_s", CLIENT_ALIVE_INTERVAL_S, 300),
        client_alive_count_max: get("client_alive_count_max")
            .and_then(|value| {
                value.integer(CLIENT_ALIVE_COUNT, "unanswered questions; 0 for any number")
            })
            .unwrap_or(12),
        original_dst: false,
        revoked_keys,
        revocations,
        trusted_user_cas: trusted_user_cas(get),
    }
}

/// A number that may be left to the program by 0.
pub(super) fn count<'d, 'i: 'd>(
    get: Get<'_, 'd, 'i>,
    key: &'static str,
    max: u32,
    unit: &str,
) -> Count {
    let number = get(key).and_then(|value| value.integer(0..=max, unit));
    number.and_then(NonZeroU32::new).map_or(Count::Automatic, Count::Exactly)
}

pub(super) fn state_dir(root: &Section<'_, '_>, base: &Path, usual: &str) -> PathBuf {
    let given = root.get("state_dir").and_then(|value| path(&value, base));
    given.unwrap_or_else(|| PathBuf::from(usual))
}

pub(super) fn log(value: &Value<'_, '_>) -> Option<Log> {
    value.word(&[("auto", Log::Auto), ("json", Log::Json), ("readable", Log::Readable)])
}

/// `revoked_keys`: the file and what it revokes, if it can be read.
pub(super) fn revocations<'d, 'i: 'd>(
    get: Get<'_, 'd, 'i>,
    base: &Path,
) -> (Option<PathBuf>, Revocations) {
    let named = get("revoked_keys").and_then(|value| Some((path_or_none(&value, base)?, value)));
    let Some((path, value)) = named else { return (None, Revocations::default()) };
    let revocations = keys::revocations(&value, &path).unwrap_or_default();
    (Some(path), revocations)
}

/// `trusted_user_cas`.
pub(super) fn trusted_user_cas<'d, 'i: 'd>(get: Get<'_, 'd, 'i>) -> Vec<PublicKey> {
    let lines = get("trusted_user_cas").and_then(|value| value.strings()).unwrap_or_default();
    lines.iter().filter_map(|(item, line)| keys::ca_line(item, line)).collect()
}

/// Where to listen: `items` are what `value` holds.
pub(super) fn read_listen<'d, 'i>(
    value: &Value<'d, 'i>,
    items: Vec<(Value<'d, 'i>, &str)>,
    lines: &mut Lines,
) -> Option<Vec<SocketAddr>> {
    lines.listen = value.line;
    if items.is_empty() {
        value.fault("is empty: nothing would listen", "write at least one \"address:port\"");
        return None;
    }
    let mut seen = HashSet::new();
    let mut sound = Vec::new();
    for (item, text) in items {
        let Some(address) = socket_address(&item, text) else { continue };
        if seen.insert(address) {
            sound.push(address);
        } else {
            item.fault(format_args!("names {address} twice"), "write it once");
        }
    }
    (!sound.is_empty()).then_some(sound)
}

pub(super) fn read_vm_leg(root: &Section<'_, '_>, base: &Path, lines: &mut Lines) -> VmLeg {
    let section = root.section("vm_leg");
    let get = |key| section.as_ref().and_then(|section| section.get(key));
    let credential = read_credential(&get, base);
    let dial_timeout_s =
        get("dial_timeout_s").and_then(|value| value.integer(DIAL_TIMEOUT_S, "seconds"));
    let standard = || {
        let all = NETWORKS.iter().filter_map(|(ip, bits)| IpNet::new(*ip, *bits).ok());
        all.collect()
    };
    let networks = get("networks").map_or_else(standard, |value| match read_networks(&value) {
        Some(networks) if networks.is_empty() => {
            value.fault("is empty: no VM could be reached", "write the networks of your VMs");
            lines.networks_sound = false;
            networks
        }
        Some(networks) => networks,
        None => {
            lines.networks_sound = false;
            Vec::new()
        }
    });
    let source_address = get("source_address").and_then(|value| read_source_address(&value));
    let source_address = source_address.unwrap_or_default();
    if let Some(section) = section {
        section.finish();
    }
    VmLeg {
        credential,
        dial_timeout: Duration::from_secs(dial_timeout_s.unwrap_or(10).into()),
        networks,
        source_address,
    }
}

fn read_credential<'d, 'i: 'd>(get: Get<'_, 'd, 'i>, base: &Path) -> VmCredential {
    let file = |key| {
        let value = get(key)?;
        let path = path_or_none(&value, base)?;
        let key = keys::private_key(&value, &path, keys::ED25519);
        Some((value, key))
    };
    let ca = file("user_ca");
    let identity = file("identity");
    let principals = get("principals").and_then(|value| {
        let word = value.word(&[("vm", Principals::Vm), ("login", Principals::Login)])?;
        Some((value, word))
    });
    if let Some((value, Principals::Login)) = &principals {
        value.warn(
            "is \"login\": a login minted for one VM is good for every VM that trusts the CA",
            "write \"vm\", and give each VM its AuthorizedPrincipalsFile (keyway ca show --drop-in)",
        );
    }
    if let Some((value, key)) = identity {
        if ca.is_some() {
            value.fault(
                "and `vm_leg.user_ca` are both given",
                "keep user_ca for certificates, or identity for one plain key",
            );
        }
        if let Some(key) = key {
            return VmCredential::Key(key);
        }
    }
    VmCredential::Certificates {
        ca: ca.and_then(|(_, key)| key).map_or(UserCa::InState, UserCa::Given),
        principals: principals.map_or(Principals::Vm, |(_, word)| word),
    }
}

pub(super) fn read_metrics(
    root: &Section<'_, '_>,
    usual: SocketAddr,
    lines: &mut Lines,
) -> Metrics {
    let section = root.section("metrics");
    let listen = section.as_ref().and_then(|section| section.get("listen")).and_then(|value| {
        lines.metrics = value.line;
        socket_address(&value, value.string()?)
    });
    if let Some(section) = section {
        section.finish();
    }
    Metrics { listen: listen.unwrap_or(usual) }
}

/// The metrics must not meet the clients. Pool addresses are held against them where
/// the fleet is known.
///
/// `door`: the key that says where clients are let in, and what is there, in words.
pub(super) fn check_metrics(
    document: &Document,
    Metrics { listen: metrics }: Metrics,
    (door, what_is_there): (&str, &str),
    listen: &[SocketAddr],
    lines: &Lines,
) {
    if metrics.ip().is_unspecified() {
        let what = format!("`metrics.listen` is {metrics}, which includes {what_is_there}");
        document.fault(
            lines.metrics,
            what,
            "write an address of the management network, or 127.0.0.1",
        );
    } else if !metrics.ip().is_loopback() {
        let what =
            format!("`metrics.listen` is {metrics}, where others than this host can read it");
        document.warn(
            lines.metrics,
            what,
            "write 127.0.0.1, or make sure that a firewall stands before it",
        );
    }
    if let Some(listen) = listen.iter().find(|listen| meet(**listen, metrics)) {
        let what = format!("`metrics.listen` is {metrics}, where `{door}` has {listen}");
        document.fault(lines.metrics, what, "write another port");
    }
}
