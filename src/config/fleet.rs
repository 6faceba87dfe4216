//! Walks `fleet.toml`: pool addresses, users, VMs.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use super::{
    Config, Source,
    desired::{self, Desired, Members, Shares},
    document::{Document, Section, Value},
    keys,
    keyway::Draft,
};
use crate::{
    route::{
        AddressEntry, Contents, Contradiction, KeyEntry, Place, Slot, Snapshot, TEAM_PREFIX,
        TeamEntry, UserEntry, Vm, VmEntry, What,
    },
    ssh::publickey::Fingerprint,
};

/// Longest login name, in bytes: what one `USERAUTH_REQUEST` may reasonably hold, and the limit of our own user names.
const LOGIN_BYTES_MAX: usize = 255;
/// Longest host name, in bytes (RFC 1035 §2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// Who may go where: `fleet.toml`.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// For [`crate::route::Table::apply`].
    pub snapshot: Snapshot,
    /// For the registry.
    pub desired: Desired,
}

/// Walks the fleet file beside a walked `keyway.toml`, whose faults may grow in number here.
pub(super) fn read(
    source: &Source,
    config: &Document,
    draft: &Draft,
) -> (Document, Option<Snapshot>) {
    let document = Document::new(&source.name, source.order, &source.text);
    let table = document.parse(&source.text);
    let root = Section::root(&document, &table);
    let mut walk = Walk::new(draft);
    for section in root.sections("address") {
        walk.address(section);
    }
    for section in root.sections("user") {
        walk.user(section);
    }
    for section in root.sections("team") {
        walk.team(section);
    }
    for section in root.sections("vm") {
        walk.vm(section);
    }
    root.finish();
    walk.check_pool(&document, config, draft);
    walk.check_name_servers(&document);
    let Walk { contents, places, broken, .. } = walk;
    let snapshot = match Snapshot::new(contents) {
        Ok(snapshot) => Some(snapshot),
        Err(found) => {
            for contradiction in found {
                tell(&document, &contradiction, &places, &broken);
            }
            None
        }
    };
    drop(table);
    (document, snapshot)
}

/// Lines of one entry: of its header, of its keys, and of the items of its lists.
#[derive(Default)]
struct Lines {
    header: usize,
    keys: HashMap<&'static str, usize>,
    fingerprints: Vec<([u8; 32], usize)>,
    /// Members and shares.
    named: Vec<(String, usize)>,
}

impl Lines {
    fn of(&self, key: &str) -> usize {
        self.keys.get(key).copied().unwrap_or(self.header)
    }

    fn of_named(&self, name: &str) -> usize {
        let found = self.named.iter().rev().find(|(other, _)| other == name);
        found.map_or(self.header, |(_, line)| *line)
    }
}

/// Where the entries of [`Contents`] stand in the file.
#[derive(Default)]
struct Places {
    addresses: Vec<Lines>,
    users: Vec<Lines>,
    teams: Vec<Lines>,
    vms: Vec<Lines>,
}

/// Names of entries that were left out for another fault: to miss them is no fault of who refers to them.
#[derive(Default)]
struct Broken {
    addresses: HashSet<String>,
}

struct Walk<'c> {
    config: &'c Config,
    networks_sound: bool,
    contents: Contents,
    places: Places,
    broken: Broken,
}

impl<'c> Walk<'c> {
    fn new(draft: &'c Draft) -> Self {
        Self {
            config: draft.config(),
            networks_sound: draft.lines.networks_sound,
            contents: Contents::default(),
            places: Places::default(),
            broken: Broken::default(),
        }
    }

    fn address(&mut self, section: Section<'_, '_>) {
        let mut lines = Lines { header: section.line, ..Lines::default() };
        let mut ip = |value: Option<Value<'_, '_>>, key| -> Option<Result<IpAddr, ()>> {
            let value = value?;
            lines.keys.insert(key, value.line);
            Some(parse_ip(&value).ok_or(()))
        };
        let public = ip(section.require("public", "\"192.0.2.1\""), "public");
        let public6 = ip(section.get("public6"), "public6");
        let private = ip(section.get("private"), "private");
        let name = text(section.require("name", "\"s001\""), "name", &mut lines);
        let lobby = section.get("lobby").and_then(|value| {
            lines.keys.insert("lobby", value.line);
            value.boolean()
        });
        section.finish();
        let sound = (public, public6.transpose(), private.transpose(), name);
        if let (Some(Ok(public)), Ok(public6), Ok(private), Some(name)) = sound {
            let lobby = lobby.unwrap_or(false);
            let closed = false;
            let entry = AddressEntry { name, public, public6, private, lobby, closed };
            self.contents.addresses.push(entry);
            self.places.addresses.push(lines);
        } else {
            self.broken.addresses.extend(sound.3);
        }
    }

    fn user(&mut self, section: Section<'_, '_>) {
        let mut lines = Lines { header: section.line, ..Lines::default() };
        let name = text(section.require("name", "\"alice\""), "name", &mut lines);
        let items = section.get("keys").and_then(|value| {
            lines.keys.insert("keys", value.line);
            value.strings()
        });
        let items = items.unwrap_or_default();
        if items.is_empty() && self.config.edge.trusted_user_cas.is_empty() {
            let what = format!("user `{}` has no way to log in", name.as_deref().unwrap_or("?"));
            section.document.warn(
                section.line,
                what,
                "add a key, or a CA to edge.trusted_user_cas",
            );
        }
        let mut entries = Vec::new();
        for (item, line) in items {
            let Some(key) = keys::user_line(&item, line) else { continue };
            let fingerprint = key.key.fingerprint();
            if self.config.edge.revocations.revokes_key(&key.key) {
                let what = format!("holds {fingerprint}, which edge.revoked_keys lists");
                item.warn(what, "remove the key");
            }
            let options = key.options_text.map(Into::into);
            entries.push(KeyEntry { fingerprint: fingerprint.0, options });
            lines.fingerprints.push((fingerprint.0, item.line));
        }
        section.finish();
        if let Some(name) = name {
            self.contents.users.push(UserEntry { name, keys: entries });
            self.places.users.push(lines);
        }
    }

    fn team(&mut self, section: Section<'_, '_>) {
        let mut lines = Lines { header: section.line, ..Lines::default() };
        let name = text(section.require("name", "\"ops\""), "name", &mut lines);
        let Members { members, by_name } = desired::members(&section);
        lines.named.clone_from(&members);
        lines.named.extend(by_name.iter().cloned());
        section.finish();
        if let Some(name) = name {
            let names =
                |list: Vec<(String, usize)>| list.into_iter().map(|(name, _)| name).collect();
            let (members, members_by_name) = (names(members), names(by_name));
            self.contents.teams.push(TeamEntry { name, members, members_by_name });
            self.places.teams.push(lines);
        }
    }

    fn vm(&mut self, section: Section<'_, '_>) {
        let mut lines = Lines { header: section.line, ..Lines::default() };
        let name = text(section.require("name", "\"blue\""), "name", &mut lines);
        let owner = text(section.require("owner", "\"alice\""), "owner", &mut lines);
        let address = text(section.get("address"), "address", &mut lines);
        let without = desired::no_address(&section);
        let shares = desired::shares(&section);
        lines.named.extend(shares.share.iter().chain(&shares.by_name).cloned());
        let endpoint = section.require("ssh", "\"10.0.0.5:22\"").and_then(|value| {
            lines.keys.insert("ssh", value.line);
            let text = value.string()?;
            self.check_endpoint(&value, text);
            Some(text.to_owned())
        });
        let login = section.get("login").and_then(|value| login(&value));
        let host_key = section.get("host_key").and_then(|value| keys::pin(&value, value.string()?));
        section.finish();
        // Without the rest the fault is told already, and the other entries are still held against this one.
        if let (Some(name), Some(owner)) = (name, owner) {
            let endpoint = endpoint.unwrap_or_default();
            let address = address.filter(|_| !without);
            let (id, at) = (name.clone(), address.clone());
            let vm = Vm { id, name, owner, endpoint, login, host_key, address: at };
            self.contents.vms.push(entry(vm, shares));
            self.places.vms.push(lines);
        }
    }

    fn check_endpoint(&self, value: &Value<'_, '_>, text: &str) {
        let ip = match parse_endpoint(text) {
            Ok(Host::Ip(ip)) => ip,
            Ok(Host::Name) => return,
            Err(fix) => {
                return value.fault(format_args!("is \"{text}\", which is no host:port"), fix);
            }
        };
        let networks = &self.config.vm_leg.networks;
        if self.networks_sound && !networks.iter().any(|network| network.contains(&ip)) {
            value.fault(
                format_args!("is {text}, which is in none of vm_leg.networks"),
                "correct the address, or add its network to vm_leg.networks in keyway.toml",
            );
        }
    }

    /// What the two files say about one address.
    fn check_pool(&self, document: &Document, config: &Document, draft: &Draft) {
        let metrics = self.config.metrics.listen;
        let listen = &self.config.edge.listen;
        // With either of these the socket's own address is not the one that counts.
        let indirect =
            self.config.edge.original_dst || !self.config.edge.proxy_protocol_from.is_empty();
        let pool = self.contents.addresses.iter().zip(&self.places.addresses);
        for (entry, lines) in pool.clone() {
            let all = [Some(entry.public), entry.public6, entry.private];
            if all.into_iter().flatten().any(|ip| ip.to_canonical() == metrics.ip()) {
                let what = format!(
                    "`metrics.listen` is {metrics}, which is pool address `{}`",
                    entry.name
                );
                let fix = "write an address that is not in the pool, for example 127.0.0.1";
                config.fault(draft.lines.metrics, what, fix);
            }
            let api = self.config.api.tls.as_ref().map(|tls| tls.listen);
            let here =
                |at: &SocketAddr| all.into_iter().flatten().any(|ip| ip.to_canonical() == at.ip());
            if let Some(api) = api.filter(here) {
                let what = format!("`api.listen` is {api}, which is pool address `{}`", entry.name);
                let fix = "write an address that is not in the pool, for example 127.0.0.1";
                config.fault(draft.lines.api, what, fix);
            }
            let v4_or_private = entry.private.or(Some(entry.public));
            for (key, ip) in [("public", v4_or_private), ("public6", entry.public6)] {
                let Some(ip) = ip.filter(|_| !indirect) else { continue };
                if !listen.iter().any(|at| covers(*at, ip)) {
                    let what = format!("nothing listens at {ip} of address `{}`", entry.name);
                    let fix =
                        format!("add it to edge.listen (keyway.toml, line {})", draft.lines.listen);
                    document.warn(lines.of(key), what, fix);
                }
            }
        }
        for (entry, lines) in self.contents.vms.iter().zip(&self.places.vms) {
            let Ok(endpoint) = entry.vm.endpoint.parse::<SocketAddr>() else { continue };
            let ip = endpoint.ip().to_canonical();
            let ports = listen.iter().any(|at| at.port() == endpoint.port() && covers(*at, ip));
            let of = pool.clone().find(|(address, _)| {
                [Some(address.public), address.public6, address.private].contains(&Some(ip))
            });
            if let (true, Some((address, _))) = (ports, of) {
                let what = format!(
                    "`vm.ssh` is {endpoint}, which is this front door at `{}`",
                    address.name
                );
                document.fault(lines.of("ssh"), what, "write the address of the VM itself");
            }
        }
    }

    /// The zone has one namespace.
    fn check_name_servers(&self, document: &Document) {
        let Some(dns) = &self.config.dns else { return };
        let addresses = self.contents.addresses.iter().map(|entry| &entry.name);
        let vms = self.contents.vms.iter().map(|entry| &entry.vm.name);
        let lines = self.places.addresses.iter().chain(&self.places.vms);
        for (name, lines) in addresses.chain(vms).zip(lines) {
            if let Some(ns) = dns.ns.iter().find(|ns| ns.name.below(&dns.zone) == Some(name)) {
                let what = format!("name `{name}` belongs to {} of dns.ns", ns.name);
                document.fault(lines.of("name"), what, "choose another name");
            }
        }
    }
}

fn covers(listen: SocketAddr, ip: IpAddr) -> bool {
    let any = listen.ip().is_unspecified() && listen.is_ipv4() == ip.is_ipv4();
    any || listen.ip() == ip
}

fn text(value: Option<Value<'_, '_>>, key: &'static str, lines: &mut Lines) -> Option<String> {
    let value = value?;
    lines.keys.insert(key, value.line);
    value.string().map(str::to_owned)
}

/// A VM that answers at its address, if it has one, for its owner and those it is shared with.
fn entry(vm: Vm, shares: Shares) -> VmEntry {
    let names = |shares: Vec<(String, usize)>| shares.into_iter().map(|(name, _)| name);
    let entitled = std::iter::once(vm.owner.clone()).chain(names(shares.share));
    let mut by_name: Vec<String> = names(shares.by_name).collect();
    let mut slots = Vec::new();
    if let Some(address) = &vm.address {
        slots.extend(entitled.map(|principal| Slot { principal, address: address.clone() }));
    } else {
        by_name.extend(entitled);
    }
    VmEntry { vm, slots, by_name }
}

/// Whether `text` can be the name of an account.
pub(crate) fn is_login(text: &str) -> bool {
    let printable = !text.chars().any(|c| c.is_control() || c.is_whitespace());
    (1..=LOGIN_BYTES_MAX).contains(&text.len()) && printable
}

pub(super) fn login(value: &Value<'_, '_>) -> Option<String> {
    let login = value.string()?;
    if !is_login(login) {
        value.fault(
            format_args!("is \"{login}\", which is no login name"),
            "write the name of an account in the VM, or leave the key out",
        );
    }
    Some(login.to_owned())
}

pub(super) fn parse_ip(value: &Value<'_, '_>) -> Option<IpAddr> {
    let text = value.string()?;
    let parsed = text.parse().ok();
    if parsed.is_none() {
        value.fault(
            format_args!("is \"{text}\", which is no IP address"),
            "write one address, without a port or prefix",
        );
    }
    parsed
}

enum Host {
    Ip(IpAddr),
    Name,
}

/// Whether `text` is a `host:port`; the IP if it names one.
///
/// # Errors
/// What to do.
pub(crate) fn check_endpoint(text: &str) -> Result<Option<IpAddr>, &'static str> {
    parse_endpoint(text).map(|host| match host {
        Host::Ip(ip) => Some(ip),
        Host::Name => None,
    })
}

/// Reads `host:port`. The error is what to do.
fn parse_endpoint(text: &str) -> Result<Host, &'static str> {
    const FORM: &str = "write \"10.0.0.5:22\", \"[fd00::5]:22\" or \"host.example:22\"";
    if let Ok(endpoint) = text.parse::<SocketAddr>() {
        let port = if endpoint.port() == 0 { Err("write a port from 1 to 65535") } else { Ok(()) };
        return port.map(|()| Host::Ip(endpoint.ip().to_canonical()));
    }
    if text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
        return Err("put the IPv6 address in brackets and add the port: \"[fd00::5]:22\"");
    }
    let (host, port) = text.rsplit_once(':').ok_or("add the port: \"host:22\"")?;
    if !port.parse::<u16>().is_ok_and(|port| port != 0) {
        return Err("write a port from 1 to 65535");
    }
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(inner)
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    // All digits and dots would be a mistyped address that some resolvers take for another one (1.2.3 = 1.2.0.3).
    let numeric = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if host.len() > HOST_BYTES_MAX || numeric || !name.split('.').all(label) {
        return Err(FORM);
    }
    Ok(Host::Name)
}

/// Puts a contradiction at the line of the key that has to change.
fn tell(document: &Document, contradiction: &Contradiction, places: &Places, broken: &Broken) {
    let none = Lines { header: 1, ..Lines::default() };
    let (noun, lines) = match contradiction.at {
        Place::Address(index) => ("address", places.addresses.get(index)),
        Place::User(index) => ("user", places.users.get(index)),
        Place::Team(index) => ("team", places.teams.get(index)),
        Place::Vm(index) => ("vm", places.vms.get(index)),
        Place::Change(_) => ("change", None),
    };
    let lines = lines.unwrap_or(&none);
    let what = &contradiction.what;
    let (line, fix) = match what {
        // A VM of this file has its name for an id.
        What::NotALabel { .. } | What::NotAnId { .. } => (
            lines.of("name"),
            "write 1 to 63 of a-z, 0-9 and -, with no - at either end".to_owned(),
        ),
        What::Reserved { .. } | What::NameTaken { .. } | What::IdTaken { .. } => {
            (lines.of("name"), format!("give the {noun} another name"))
        }
        What::IpTaken { column, .. } => {
            (lines.of(column), "write every IP address once, in one column".to_owned())
        }
        What::NotDialable { column, .. } => {
            (lines.of(column), "write an address that clients can dial".to_owned())
        }
        What::NotV6 { .. } => {
            (lines.of("public6"), "write an IPv6 address, or leave the key out".to_owned())
        }
        What::KeyTaken { fingerprint, of } => {
            let found = lines.fingerprints.iter().rev().find(|(other, _)| other == fingerprint);
            let line = found.map_or(lines.header, |(_, line)| *line);
            let what = format!("key {} is already a key of user `{of}`", Fingerprint(*fingerprint));
            return document.fault(line, what, "remove it here or there: a key names one user");
        }
        What::UnknownAddress { address } if broken.addresses.contains(address) => return,
        What::UnknownAddress { .. } => {
            (lines.of("address"), "name an [[address]] of this file".to_owned())
        }
        What::UnknownOwner { .. } => (
            lines.of("owner"),
            format!("name a [[user]] of this file, or {TEAM_PREFIX} and a [[team]]"),
        ),
        What::AtLobby { .. } => (lines.of("address"), "put the VM at another address".to_owned()),
        What::SlotTaken { .. } => {
            (lines.of("address"), "put one of the two VMs at another address".to_owned())
        }
        // Told with both lines where the team was read.
        What::MemberTwice { .. } => return,
        What::UnknownMember { member } => {
            (lines.of_named(member), "name a [[user]] of this file".to_owned())
        }
        What::UnknownPrincipal { principal } => (
            lines.of_named(principal),
            format!("name a [[user]] of this file, or {TEAM_PREFIX} and a [[team]]"),
        ),
        What::TooManyTeams { .. } => (lines.header, "take the user out of some".to_owned()),
        What::InUse { .. } | What::CutShort => (lines.header, "correct the name".to_owned()),
    };
    document.fault(line, what, fix);
}
