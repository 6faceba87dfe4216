//! Walks `keyway.toml`. What is faulty falls back to its default, so that the walk can go on; the
//! result is used only if no fault was found.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use super::document::{Document, Section, Value};
use super::door::{
    SESSIONS_MAX, check_metrics, count, door, log, read_listen, read_metrics, read_vm_leg,
    state_dir,
};
use super::lines::Lines;
use super::source::Source;
use super::values::read_networks;
use super::{Config, Edge, FleetFile, HostKeys, Log, Nodes, Registry, api, dns, keys};
use crate::registry::Limits;
use crate::registry::apply::served_file::RemovalsMax;

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
const NODE_HEALTH_S: RangeInclusive<u32> = 1..=3600;
const NODE_HEALTH_USUAL_S: u32 = 30;
const LISTEN_PORT: u16 = 22;
const METRICS_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9644);

/// What the walk found, sound or not, with the lines that the fleet's checks refer back to.
pub(super) struct ConfigDraft {
    config: Config,
    pub(super) lines: Lines,
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
    let mut lines = Lines::default();
    let mut config = Config {
        state_dir: state_dir(&root, &source.base, STATE_DIR),
        edge: read_edge(&root, &source.base, &mut lines),
        vm_leg: read_vm_leg(&root, &source.base, &mut lines),
        metrics: read_metrics(&root, METRICS_LISTEN, &mut lines),
        api: api::read(&root, &source.base, &mut lines),
        registry: read_registry(&root, &mut lines),
        nodes: read_nodes(&root),
        fleet_file: read_fleet_file(&root),
        dns: dns::read(&root, &source.base, &mut lines),
    };
    dns::cap_expire(&document, &mut config, &lines);
    if config.api.socket.as_os_str().is_empty() {
        config.api.socket = config.state_dir.join(SOCKET);
    }
    root.finish();
    let at = ("edge.listen", "every pool address");
    check_metrics(&document, config.metrics, at, &config.edge.listen, &lines);
    api::check(&document, &config, &lines);
    dns::check(&document, &config, &lines);
    drop(table);
    (document, ConfigDraft { config, lines })
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

fn read_edge(root: &Section<'_, '_>, base: &Path, lines: &mut Lines) -> Edge {
    let section = root.section("edge");
    let get = |key| section.as_ref().and_then(|section| section.get(key));
    let flag = |key, otherwise| get(key).and_then(|value| value.boolean()).unwrap_or(otherwise);
    let share = |key| count(&get, key, SESSIONS_MAX, "sessions; 0 for half of sessions_max");
    let common = door(&get, base, lines);
    let edge = Edge {
        listen: get("listen")
            .and_then(|value| read_listen(&value, value.strings()?, lines))
            .unwrap_or_else(|| {
                let v6 = IpAddr::from(Ipv6Addr::UNSPECIFIED);
                [Ipv4Addr::UNSPECIFIED.into(), v6].map(|ip| SocketAddr::new(ip, LISTEN_PORT)).into()
            }),
        host_keys: get("host_keys")
            .and_then(|value| read_host_keys(&value, base))
            .unwrap_or(HostKeys::InState),
        proxy_protocol_from: get("proxy_protocol_from")
            .and_then(|value| read_networks(&value))
            .unwrap_or_default(),
        sessions_max_per_user: share("sessions_max_per_user"),
        sessions_max_per_vm: share("sessions_max_per_vm"),
        hide_keys: flag("hide_keys", false),
        legacy_macs: flag("legacy_macs", true),
        legacy_kex: flag("legacy_kex", true),
        original_dst: flag("original_dst", false),
        ..common
    };
    if let Some(section) = section {
        section.finish();
    }
    edge
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

fn read_fleet_file(root: &Section<'_, '_>) -> FleetFile {
    let section = root.section("fleet_file");
    let most = section.as_ref().and_then(|section| section.get("removals_max"));
    let most = most.and_then(|value| value.integer(0..=u32::MAX, "things"));
    if let Some(section) = section {
        section.finish();
    }
    FleetFile { removals_max: most.map_or(RemovalsMax::Usual, RemovalsMax::Things) }
}

fn read_nodes(root: &Section<'_, '_>) -> Nodes {
    let section = root.section("nodes");
    let health_s = section.as_ref().and_then(|section| section.get("health_s"));
    let health_s = health_s.and_then(|value| value.integer(NODE_HEALTH_S, "seconds"));
    if let Some(section) = section {
        section.finish();
    }
    Nodes { health: Duration::from_secs(health_s.unwrap_or(NODE_HEALTH_USUAL_S).into()) }
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
