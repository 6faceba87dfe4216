//! Walks `keyway.toml`. What is faulty falls back to its default, so that the walk can go on; the result is used only
//! if no fault was found.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;

use super::{
    Config, Count, Edge, FleetFile, Found, HostKeys, Log, Metrics, PreferGcm, Principals, Registry,
    Source, UserCa, VmCredential, VmLeg, api, dns,
    document::{Document, Section, Value},
    keys,
};
use crate::{
    plural,
    registry::{Limits, apply::served_file::RemovalsMax},
    route::SourceAddress,
    ssh::{publickey::PublicKey, revocation::Revocations},
};

/// Beyond any machine's cores.
const SHARDS_MAX: u32 = 1024;
/// Beyond any machine's file descriptors for one process (`fs.nr_open`'s ceiling is 2^30, half for each leg).
const SESSIONS_MAX: u32 = 1 << 29;
/// Longer than the slowest touch of a security key; shorter lets honest clients in on bad lines fail.
const LOGIN_GRACE_S: RangeInclusive<u32> = 1..=600;
/// A week: whoever wants to wait longer for sessions to end does not want to drain.
const DRAIN_S: RangeInclusive<u32> = 0..=604_800;
/// A day: nobody would notice a client that is gone. 0 asks none.
const CLIENT_ALIVE_INTERVAL_S: RangeInclusive<u32> = 0..=86_400;
/// Beyond a week at OpenSSH's usual intervals.
const CLIENT_ALIVE_COUNT: RangeInclusive<u32> = 0..=100_000;
/// A client would not wait longer.
const DIAL_TIMEOUT_S: RangeInclusive<u32> = 1..=300;
/// Bounds the linear search at each accept and dial.
const NETWORKS_MAX: usize = 1024;

/// The state directory if nothing says otherwise.
pub(crate) const STATE_DIR: &str = "/var/lib/keyway";
/// The usual time to live in DNS.
const QUARANTINE_ODD_S: u32 = 60;
/// The API's socket in the state directory.
pub(crate) const SOCKET: &str = "keyway.sock";
/// A month: names in DNS live for hours at most.
const QUARANTINE_S: RangeInclusive<u32> = 0..=2_592_000;
/// A century is as good as for ever.
const AUDIT_KEEP_DAYS: RangeInclusive<u32> = 0..=36_500;
/// A year, and a month in which somebody looks at it.
const AUDIT_KEEP_USUAL_DAYS: u32 = 400;
const DAY_S: u64 = 86_400;
const LISTEN_PORT: u16 = 22;
const METRICS_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9644);
/// Loopback and the private ranges (RFC 1918, RFC 4193).
const NETWORKS: [(IpAddr, u8); 5] = [
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), 12),
    (IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), 16),
    (IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), 7),
];

/// What the walk found, sound or not, with the lines that the fleet's checks refer back to.
pub(super) struct ConfigDraft {
    config: Config,
    pub(super) lines: Lines,
}

/// Lines of `keyway.toml`.
pub(super) struct Lines {
    pub(super) listen: usize,
    pub(super) metrics: usize,
    /// Of `api.listen`.
    pub(super) api: usize,
    /// Of `api.socket`.
    pub(super) socket: usize,
    /// Of `api.peers`.
    pub(super) peers: usize,
    /// Of `dns.listen`.
    pub(super) dns: usize,
    /// Of `dns.ttl`, if it is given.
    pub(super) ttl: Option<usize>,
    /// Of `registry.quarantine_s`.
    pub(super) quarantine: usize,
    /// Of `sessions_max` or `half_open_max`.
    pub(super) counts: usize,
    /// Whether `networks` could be read, so that VM endpoints can be held against it.
    pub(super) networks_sound: bool,
}

impl ConfigDraft {
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// For when no fault was found.
    pub(super) fn finish(self) -> Config {
        self.config
    }
}

pub(super) fn read(source: &Source) -> (Document, ConfigDraft) {
    let document = Document::new(&source.name, source.order, &source.text);
    let table = document.parse(&source.text);
    let root = Section::root(&document, &table);
    let mut lines = Lines {
        listen: 1,
        metrics: 1,
        api: 1,
        socket: 1,
        peers: 1,
        dns: 1,
        ttl: None,
        quarantine: 1,
        counts: 1,
        networks_sound: true,
    };
    let mut config = Config {
        state_dir: state_dir(&root, &source.base),
        edge: read_edge(&root, &source.base, &mut lines),
        vm_leg: read_vm_leg(&root, &source.base, &mut lines),
        metrics: read_metrics(&root, &mut lines),
        api: api::read(&root, &source.base, &mut lines),
        registry: read_registry(&root, &mut lines),
        fleet_file: read_fleet_file(&root),
        dns: dns::read(&root, &source.base, &mut lines),
    };
    dns::cap_expire(&document, &mut config, &lines);
    if config.api.socket.as_os_str().is_empty() {
        config.api.socket = config.state_dir.join(SOCKET);
    }
    root.finish();
    check_metrics(&document, &config, &lines);
    api::check(&document, &config, &lines);
    dns::check(&document, &config, &lines);
    drop(table);
    (document, ConfigDraft { config, lines })
}

/// What finds a running front door.
pub(super) fn read_found(source: &Source) -> (Document, Found) {
    let document = Document::new(&source.name, source.order, &source.text);
    let table = document.parse(&source.text);
    let root = Section::root(&document, &table);
    let state_dir = state_dir(&root, &source.base);
    let socket = root.section("api").and_then(|section| section.get("socket"));
    let socket = socket.and_then(|value| path_or_none(&value, &source.base));
    let socket = socket.unwrap_or_else(|| state_dir.join(SOCKET));
    drop(table);
    (document, Found { state_dir, socket })
}

/// `edge.log`, whatever else is wrong.
pub(super) fn read_log(source: &Source) -> Log {
    let document = Document::new(&source.name, source.order, &source.text);
    let table = document.parse(&source.text);
    let root = Section::root(&document, &table);
    let edge = root.section("edge");
    let given = edge.and_then(|section| section.get("log")).and_then(|value| log(&value));
    given.unwrap_or(Log::Auto)
}

fn log(value: &Value<'_, '_>) -> Option<Log> {
    value.word(&[("auto", Log::Auto), ("json", Log::Json), ("readable", Log::Readable)])
}

fn state_dir(root: &Section<'_, '_>, base: &Path) -> PathBuf {
    let given = root.get("state_dir").and_then(|value| path(&value, base));
    given.unwrap_or_else(|| PathBuf::from(STATE_DIR))
}

fn read_edge(root: &Section<'_, '_>, base: &Path, lines: &mut Lines) -> Edge {
    let section = root.section("edge");
    let get = |key| section.as_ref().and_then(|section| section.get(key));
    let flag = |key, otherwise| get(key).and_then(|value| value.boolean()).unwrap_or(otherwise);
    let count = |key, max, unit| {
        let number = get(key).and_then(|value| value.integer(0..=max, unit));
        number.and_then(NonZeroU32::new).map_or(Count::Automatic, Count::Exactly)
    };
    let seconds = |key, range, otherwise| {
        let number = get(key).and_then(|value| value.integer(range, "seconds"));
        Duration::from_secs(number.unwrap_or(otherwise).into())
    };
    let listen = get("listen").and_then(|value| {
        lines.listen = value.line;
        read_listen(&value)
    });
    if let Some(value) = get("sessions_max").or_else(|| get("half_open_max")) {
        lines.counts = value.line;
    }
    let (revoked_keys, revocations) = revocations(&get, base);
    let edge = Edge {
        listen: listen.unwrap_or_else(|| {
            let any = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
            any.map(|ip| SocketAddr::new(ip, LISTEN_PORT)).to_vec()
        }),
        shards: count("shards", SHARDS_MAX, "cores; 0 for all"),
        host_keys: get("host_keys")
            .and_then(|value| read_host_keys(&value, base))
            .unwrap_or(HostKeys::InState),
        login_grace: seconds("login_grace_s", LOGIN_GRACE_S, 30),
        drain: seconds("drain_s", DRAIN_S, 3600),
        proxy_protocol_from: get("proxy_protocol_from")
            .and_then(|value| read_networks(&value))
            .unwrap_or_default(),
        sessions_max: count("sessions_max", SESSIONS_MAX, "sessions; 0 for as many as fit"),
        sessions_max_per_user: count(
            "sessions_max_per_user",
            SESSIONS_MAX,
            "sessions; 0 for half of sessions_max",
        ),
        sessions_max_per_vm: count(
            "sessions_max_per_vm",
            SESSIONS_MAX,
            "sessions; 0 for half of sessions_max",
        ),
        half_open_max: count("half_open_max", SESSIONS_MAX, "connections; 0 for as many as fit"),
        log: get("log").and_then(|value| log(&value)).unwrap_or(Log::Auto),
        hide_keys: flag("hide_keys", false),
        legacy_macs: flag("legacy_macs", true),
        legacy_kex: flag("legacy_kex", true),
        prefer_gcm: get("prefer_gcm")
            .and_then(|value| value.word(&[("bulk", PreferGcm::Bulk), ("never", PreferGcm::Never)]))
            .unwrap_or(PreferGcm::Bulk),
        client_alive_interval: seconds("client_alive_interval_s", CLIENT_ALIVE_INTERVAL_S, 300),
        client_alive_count_max: get("client_alive_count_max")
            .and_then(|value| {
                value.integer(CLIENT_ALIVE_COUNT, "unanswered questions; 0 for any number")
            })
            .unwrap_or(12),
        original_dst: flag("original_dst", false),
        revoked_keys,
        revocations,
        trusted_user_cas: trusted_user_cas(&get),
    };
    if let Some(section) = section {
        section.finish();
    }
    edge
}

/// `edge.revoked_keys`: the file and what it revokes, if it can be read.
pub(super) fn revocations<'d, 'i: 'd>(
    get: &dyn Fn(&'static str) -> Option<Value<'d, 'i>>,
    base: &Path,
) -> (Option<PathBuf>, Revocations) {
    let named = get("revoked_keys").and_then(|value| Some((path_or_none(&value, base)?, value)));
    let Some((path, value)) = named else { return (None, Revocations::default()) };
    let revocations = keys::revocations(&value, &path).unwrap_or_default();
    (Some(path), revocations)
}

/// `edge.trusted_user_cas`.
pub(super) fn trusted_user_cas<'d, 'i: 'd>(
    get: &dyn Fn(&'static str) -> Option<Value<'d, 'i>>,
) -> Vec<PublicKey> {
    let lines = get("trusted_user_cas").and_then(|value| value.strings()).unwrap_or_default();
    lines.iter().filter_map(|(item, line)| keys::ca_line(item, line)).collect()
}

fn read_listen(value: &Value<'_, '_>) -> Option<Vec<SocketAddr>> {
    let items = value.strings()?;
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

fn read_host_keys(value: &Value<'_, '_>, base: &Path) -> Option<HostKeys> {
    let items = value.strings()?;
    if items.is_empty() {
        return Some(HostKeys::InState);
    }
    let mut first = HashMap::new();
    let mut sound = Vec::new();
    for (item, text) in items {
        if text.is_empty() {
            item.fault(
                "holds an empty path",
                "name a private key file, or write [] for a key made once",
            );
            continue;
        }
        let path = keys::resolve(base, text);
        let Some(key) = keys::host_key(&item, &path) else { continue };
        if let Some(other) = first.insert(key.key.public().key_type(), text) {
            let what = format!("names two keys of one type, {other} and {text}");
            item.fault(what, "keep one: a client asks for a type, not for a key");
        }
        sound.push(key);
    }
    Some(HostKeys::Given(sound))
}

/// Networks in CIDR notation; a single address counts as a network of one.
fn read_networks(value: &Value<'_, '_>) -> Option<Vec<IpNet>> {
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

fn read_vm_leg(root: &Section<'_, '_>, base: &Path, lines: &mut Lines) -> VmLeg {
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

fn read_credential<'d, 'i: 'd>(
    get: &dyn Fn(&'static str) -> Option<Value<'d, 'i>>,
    base: &Path,
) -> VmCredential {
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

fn read_metrics(root: &Section<'_, '_>, lines: &mut Lines) -> Metrics {
    let section = root.section("metrics");
    let listen = section.as_ref().and_then(|section| section.get("listen")).and_then(|value| {
        lines.metrics = value.line;
        socket_address(&value, value.string()?)
    });
    if let Some(section) = section {
        section.finish();
    }
    Metrics { listen: listen.unwrap_or(METRICS_LISTEN) }
}

fn read_fleet_file(root: &Section<'_, '_>) -> FleetFile {
    let section = root.section("fleet_file");
    let most = section.as_ref().and_then(|section| section.get("removals_max"));
    let most = most.and_then(|value| value.integer(0..=u32::MAX, "things"));
    if let Some(section) = section {
        section.finish();
    }
    FleetFile { removals_max: most.map_or(RemovalsMax::Usual, RemovalsMax::Things) }
}

fn read_registry(root: &Section<'_, '_>, lines: &mut Lines) -> Registry {
    let section = root.section("registry");
    let quarantine_s = section.as_ref().and_then(|section| section.get("quarantine_s"));
    let quarantine_s = quarantine_s.and_then(|value| {
        lines.quarantine = value.line;
        let seconds = value.integer(QUARANTINE_S, "seconds")?;
        if seconds < QUARANTINE_ODD_S {
            value.warn(
                format_args!(
                    "is {seconds}: a name that somebody's resolver remembers may lead to another VM"
                ),
                "write at least the time to live in DNS and a margin; 3600 is usual",
            );
        }
        Some(seconds)
    });
    let days = section.as_ref().and_then(|section| section.get("audit_keep_days"));
    let days = days.and_then(|value| value.integer(AUDIT_KEEP_DAYS, "days; 0 for ever"));
    if let Some(section) = section {
        section.finish();
    }
    let standard = Limits::default().quarantine_s;
    Registry {
        quarantine_s: quarantine_s.map_or(standard, u64::from),
        audit_keep_s: u64::from(days.unwrap_or(AUDIT_KEEP_USUAL_DAYS)) * DAY_S,
    }
}

/// The metrics must not meet the clients. Pool addresses are held against them where the fleet is known.
fn check_metrics(document: &Document, config: &Config, lines: &Lines) {
    let metrics = config.metrics.listen;
    if metrics.ip().is_unspecified() {
        let what = format!("`metrics.listen` is {metrics}, which includes every pool address");
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
    if let Some(listen) = config.edge.listen.iter().find(|listen| meet(**listen, metrics)) {
        let what = format!("`metrics.listen` is {metrics}, where `edge.listen` has {listen}");
        document.fault(lines.metrics, what, "write another port");
    }
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
