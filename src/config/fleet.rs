//! Walks `fleet.toml`: pool addresses, users, teams, nodes, edges, VMs. What can be wrong with the
//! file by itself is told with its line; beside a `keyway.toml`, what the two say about each other
//! too, and what would lead anybody astray.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use super::document::{Document, Section, Value};
use super::fleet_values::{label, login, parse_ip, principal, vm_id};
use super::keyway::ConfigDraft;
use super::source::{Source, source};
use super::values::read_source_address;
use super::{Config, Finding, Report, keys};
use crate::registry::document::{AddressState, Origin, VmState};
use crate::registry::fleet::{FleetAddress, FleetTeam, FleetUser, FleetVm};
use crate::registry::{self, Label, endpoint};
use crate::route::{Carry, Contradiction, EntryIndex, Snapshot, TEAM_PREFIX, What};
use crate::ssh::publickey::Fingerprint;

mod edge;
mod node;
mod replica;

pub(super) use self::replica::read_alone;

const VM_STATES: [(&str, VmState); 2] =
    [(VmState::Ready.word(), VmState::Ready), (VmState::Maint.word(), VmState::Maint)];
const CARRIES: [(&str, Carry); 3] = [
    (Carry::Auto.word(), Carry::Auto),
    (Carry::Relay.word(), Carry::Relay),
    (Carry::Handoff.word(), Carry::Handoff),
];
const ADDRESS_STATES: [(&str, AddressState); 3] = [
    (AddressState::Ready.word(), AddressState::Ready),
    (AddressState::Drain.word(), AddressState::Drain),
    (AddressState::Maint.word(), AddressState::Maint),
];

/// Who may go where: `fleet.toml`.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// For [`crate::route::Table::apply`].
    pub snapshot: Snapshot,
    /// For the registry.
    pub desired: registry::fleet::Fleet,
    file: Arc<str>,
    order: usize,
}

/// A file that says nothing: a start is not kept from opening its door by it, and nothing is done
/// that it does not say.
const EMPTY: &str = "there is nothing in it";
const EMPTY_FIX: &str = "name what there is to be; `keyway export` writes what there is";

impl Fleet {
    /// What is wrong with it though a door can open beside it: it is empty, and is not carried out.
    #[must_use]
    pub fn fault(&self) -> Option<Finding> {
        self.desired.is_empty().then(|| Finding {
            order: self.order,
            line: 1,
            file: Arc::clone(&self.file),
            what: EMPTY.to_owned(),
            fix: EMPTY_FIX.to_owned(),
        })
    }
}

/// Reads a fleet file by itself. Whoever is named in it may stand in a registry already.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read_fleet(file: &Path) -> Result<(registry::fleet::Fleet, Vec<Finding>), Report> {
    let source =
        source(file, 1).map_err(|fault| Report { faults: vec![fault], warnings: Vec::new() })?;
    alone(&source)
}

/// As [`read_fleet`], from text.
fn alone(source: &Source) -> Result<(registry::fleet::Fleet, Vec<Finding>), Report> {
    let document = Document::new(&source.name, source.order, &source.text);
    let fleet = Walk::new(&document, None).all(&source.text).fleet;
    if fleet.is_empty() && document.faults_found() == 0 {
        document.fault(1, EMPTY, EMPTY_FIX);
    }
    let (mut faults, mut warnings) = document.into_findings();
    faults.sort();
    warnings.sort();
    if faults.is_empty() { Ok((fleet, warnings)) } else { Err(Report { faults, warnings }) }
}

/// Walks the fleet file beside a walked `keyway.toml`, whose faults may grow in number here.
pub(super) fn read(
    source: &Source,
    config: &Document,
    draft: &ConfigDraft,
) -> (Document, Option<Fleet>) {
    let document = Document::new(&source.name, source.order, &source.text);
    let walk = Walk::new(&document, Some(draft)).all(&source.text);
    walk.check_pool(config, draft);
    walk.check_name_servers(draft.config());
    let fleet = walk.finish(source);
    (document, fleet)
}

/// Lines of one entry: of its header, of its keys, and of the items of its lists.
#[derive(Default)]
struct Lines {
    header: usize,
    keys: HashMap<&'static str, usize>,
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

    /// The value of a key, whose line is noted.
    fn note<'d, 'i>(
        &mut self,
        key: &'static str,
        value: Option<Value<'d, 'i>>,
    ) -> Option<Value<'d, 'i>> {
        self.keys.extend(value.as_ref().map(|value| (key, value.line)));
        value
    }
}

/// Where the entries of a fleet stand in the file.
#[derive(Default)]
struct EntryLines {
    addresses: Vec<Lines>,
    users: Vec<Lines>,
    teams: Vec<Lines>,
    nodes: Vec<Lines>,
    vms: Vec<Lines>,
}

/// Names of entries that were left out for another fault: to miss them is no fault of
/// who refers to them.
#[derive(Default)]
struct Broken {
    addresses: HashSet<String>,
    nodes: HashSet<String>,
}

struct Walk<'d> {
    document: &'d Document,
    /// The file beside it.
    draft: Option<&'d ConfigDraft>,
    fleet: registry::fleet::Fleet,
    places: EntryLines,
    broken: Broken,
    /// Kind of name and name -> the line that has it.
    taken: HashMap<(&'static str, Label), usize>,
    keys: HashMap<Fingerprint, usize>,
    /// Of agents and edges.
    identities: HashMap<Fingerprint, usize>,
}

impl<'d> Walk<'d> {
    fn new(document: &'d Document, draft: Option<&'d ConfigDraft>) -> Self {
        Self {
            document,
            draft,
            fleet: registry::fleet::Fleet::default(),
            places: EntryLines::default(),
            broken: Broken::default(),
            taken: HashMap::new(),
            keys: HashMap::new(),
            identities: HashMap::new(),
        }
    }

    fn all(mut self, text: &str) -> Self {
        let table = self.document.parse(text);
        let root = Section::root(self.document, &table);
        for section in root.sections("address") {
            self.address(section);
        }
        for section in root.sections("user") {
            self.user(section);
        }
        for section in root.sections("team") {
            self.team(section);
        }
        for section in root.sections("node") {
            self.node(section);
        }
        for section in root.sections("edge") {
            self.edge(section);
        }
        for section in root.sections("vm") {
            self.vm(section);
        }
        root.finish();
        self.check_handoffs();
        self
    }

    /// The map that comes of it, or what contradicts itself in it is told.
    fn finish(self, source: &Source) -> Option<Fleet> {
        let Self { document, fleet, places, broken, .. } = self;
        match Snapshot::new(fleet.contents()) {
            Ok(snapshot) => {
                let (file, order) = (source.name.as_str().into(), source.order);
                Some(Fleet { snapshot, desired: fleet, file, order })
            }
            Err(found) => {
                for contradiction in found {
                    tell(document, &contradiction, &places, &broken);
                }
                None
            }
        }
    }

    fn address(&mut self, section: Section<'_, '_>) {
        let mut lines = Lines { header: section.line, ..Lines::default() };
        let mut ip = |value: Option<Value<'_, '_>>, key| -> Option<Result<IpAddr, ()>> {
            Some(parse_ip(&lines.note(key, value)?).ok_or(()))
        };
        let public = ip(section.require("public", "\"192.0.2.1\""), "public");
        let public6 = ip(section.get("public6"), "public6");
        let private = ip(section.get("private"), "private");
        // VMs and addresses are names of one zone.
        let name = self.name(&section, "VM or address", "\"s001\"", &mut lines);
        let lobby = lines.note("lobby", section.get("lobby"));
        let lobby = lobby.and_then(|value| value.boolean()).unwrap_or(false);
        let state = section.get("state").and_then(|value| value.word(&ADDRESS_STATES));
        let origin = origin(&section);
        section.finish();
        if let (Some(Ok(IpAddr::V6(public))), Some(Ok(public6))) = (public.map(canonical), public6)
        {
            let what = format!(
                "`address.public` is {public}, an IPv6 address, beside `public6` {public6}"
            );
            let fix = "write the IPv4 address as public, or leave public6 out";
            self.document.fault(lines.of("public"), what, fix);
        }
        let sound = (public, public6.transpose(), private.transpose(), name);
        if let (Some(Ok(public)), Ok(public6), Ok(private), Some(name)) = sound {
            let address = FleetAddress { name, public, public6, private, lobby, state, origin };
            self.fleet.addresses.push(address);
            self.places.addresses.push(lines);
        } else {
            self.broken.addresses.extend(sound.3.map(|name| name.to_string()));
        }
    }

    fn user(&mut self, section: Section<'_, '_>) {
        let mut lines = Lines { header: section.line, ..Lines::default() };
        let name = self.name(&section, "user", "\"alice\"", &mut lines);
        let value = lines.note("keys", section.get("keys"));
        let items = value.and_then(|value| value.strings()).unwrap_or_default();
        let edge = self.draft.map(|draft| &draft.config().edge);
        if let Some(name) = &name
            && items.is_empty()
            && edge.is_some_and(|edge| edge.trusted_user_cas.is_empty())
        {
            let what = format!("user `{name}` has no way to log in");
            let fix = "add a key, or a CA to edge.trusted_user_cas";
            section.document.warn(section.line, what, fix);
        }
        let mut keys = Vec::new();
        for (item, line) in items {
            let Some(key) = keys::user_line(&item, line) else { continue };
            let fingerprint = key.key.fingerprint();
            if edge.is_some_and(|edge| edge.revocations.revokes_key(&key.key)) {
                let what = format!("holds {fingerprint}, which edge.revoked_keys lists");
                item.warn(what, "remove the key");
            }
            if let Some(first) = self.keys.insert(fingerprint, item.line) {
                let what = format!("holds key {fingerprint}, which stands in line {first} too");
                item.fault(what, "remove it here or there: a key names one user");
            }
            keys.push(line.trim().to_owned());
        }
        let origin = origin(&section);
        section.finish();
        if let Some(name) = name {
            self.fleet.users.push(FleetUser { name, keys, origin });
            self.places.users.push(lines);
        }
    }

    fn team(&mut self, section: Section<'_, '_>) {
        let mut lines = Lines { header: section.line, ..Lines::default() };
        let name = self.name(&section, "team", "\"ops\"", &mut lines);
        let [members, members_by_name] =
            ["members", "members_by_name"].map(|key| named(&section, key, label, &mut lines));
        lines.twice(&section);
        let origin = origin(&section);
        section.finish();
        if let Some(name) = name {
            self.fleet.teams.push(FleetTeam { name, members, members_by_name, origin });
            self.places.teams.push(lines);
        }
    }

    fn vm(&mut self, section: Section<'_, '_>) {
        let mut lines = Lines { header: section.line, ..Lines::default() };
        let name = self.name(&section, "VM or address", "\"blue\"", &mut lines);
        let owner = lines.note("owner", section.require("owner", "\"alice\""));
        let owner = owner.and_then(|value| principal(&value));
        let address = lines.note("address", section.get("address"));
        let address = address.and_then(|value| label(&value));
        let no_address = no_address(&section);
        let [shares, shares_by_name] =
            ["share", "share_by_name"].map(|key| named(&section, key, principal, &mut lines));
        lines.twice(&section);
        let ssh = lines.note("ssh", section.require("ssh", "\"10.0.0.5:22\""));
        let ssh = ssh.and_then(|value| {
            let text = value.string()?;
            self.check_endpoint(&value, text);
            Some(text.to_owned())
        });
        let login = section.get("login").and_then(|value| login(&value));
        let host_key = section.get("host_key").and_then(|value| {
            let text = value.string()?;
            keys::pin(&value, text).map(|_| text.trim().to_owned())
        });
        let node = lines.note("node", section.get("node")).and_then(|value| label(&value));
        let carry = lines.note("carry", section.get("carry"));
        let carry = carry.and_then(|value| value.word(&CARRIES)).unwrap_or_default();
        let id = lines.note("id", section.get("id")).and_then(|value| vm_id(&value));
        let state = section.get("state").and_then(|value| value.word(&VM_STATES));
        let origin = origin(&section);
        let source_address = section
            .get("source_address")
            .and_then(|value| read_source_address(&value).map(|source| source.to_string()));
        section.finish();
        // Without the rest the fault is told already, and the other entries are still held
        // against this one.
        if let (Some(name), Some(owner)) = (name, owner) {
            let ssh = ssh.unwrap_or_default();
            let vm = FleetVm {
                name,
                owner,
                ssh,
                login,
                host_key,
                source_address,
                address,
                no_address,
                shares,
                shares_by_name,
                node,
                carry,
                id,
                state,
                origin,
            };
            self.fleet.vms.push(vm);
            self.places.vms.push(lines);
        }
    }

    /// The name of an entry, which no other of its kind has.
    fn name(
        &mut self,
        section: &Section<'_, '_>,
        kind: &'static str,
        example: &str,
        lines: &mut Lines,
    ) -> Option<Label> {
        let value = lines.note("name", section.require("name", example))?;
        let name = label(&value)?;
        if let Some(first) = self.taken.insert((kind, name.clone()), value.line) {
            let what = format!("is \"{name}\", as in line {first}");
            value.fault(what, format_args!("a {kind} has a name of its own"));
        }
        Some(name)
    }

    fn check_endpoint(&self, value: &Value<'_, '_>, text: &str) {
        let ip = match endpoint(text) {
            Ok(Some(ip)) => ip,
            Ok(None) => return,
            Err(fix) => {
                return value.fault(format_args!("is \"{text}\", which is no host:port"), fix);
            }
        };
        let Some(draft) = self.draft.filter(|draft| draft.lines.networks_sound) else { return };
        if !draft.config().vm_leg.networks.iter().any(|network| network.contains(&ip)) {
            value.fault(
                format_args!("is {text}, which is in none of vm_leg.networks"),
                "correct the address, or add its network to vm_leg.networks in keyway.toml",
            );
        }
    }

    /// What the two files say about one address.
    fn check_pool(&self, config: &Document, draft: &ConfigDraft) {
        let (document, settings) = (self.document, draft.config());
        let metrics = settings.metrics.listen;
        let listen = &settings.edge.listen;
        // With either of these the socket's own address is not the one that counts.
        let indirect = settings.edge.original_dst || !settings.edge.proxy_protocol_from.is_empty();
        let pool = self.fleet.addresses.iter().zip(&self.places.addresses);
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
            let api = settings.api.tls.as_ref().map(|tls| tls.listen);
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
        for (entry, lines) in self.fleet.vms.iter().zip(&self.places.vms) {
            let Ok(endpoint) = entry.ssh.parse::<SocketAddr>() else { continue };
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
    fn check_name_servers(&self, settings: &Config) {
        let Some(dns) = &settings.dns else { return };
        let addresses = self.fleet.addresses.iter().map(|entry| &entry.name);
        let vms = self.fleet.vms.iter().map(|entry| &entry.name);
        let lines = self.places.addresses.iter().chain(&self.places.vms);
        for (name, lines) in addresses.chain(vms).zip(lines) {
            if let Some(ns) =
                dns.ns.iter().find(|ns| ns.name.below(&dns.zone) == Some(name.as_str()))
            {
                let what = format!("name `{name}` belongs to {} of dns.ns", ns.name);
                self.document.fault(lines.of("name"), what, "choose another name");
            }
        }
    }
}

/// Whose a thing is, as an export says it.
fn origin(section: &Section<'_, '_>) -> Option<Origin> {
    let words = [Origin::Command, Origin::Fleet].map(|origin| (origin.word(), origin));
    section.get("origin").and_then(|value| value.word(&words))
}

fn covers(listen: SocketAddr, ip: IpAddr) -> bool {
    let any = listen.ip().is_unspecified() && listen.is_ipv4() == ip.is_ipv4();
    any || listen.ip() == ip
}

impl Lines {
    /// Tells who is named more than once: in which way they are meant nobody knows.
    fn twice(&self, section: &Section<'_, '_>) {
        let mut seen = HashMap::new();
        for (name, line) in &self.named {
            if let Some(first) = seen.insert(name, line) {
                let what = format!("`{name}` is named in line {first} already");
                section.document.fault(*line, what, "name each once");
            }
        }
    }
}

fn canonical(ip: Result<IpAddr, ()>) -> Result<IpAddr, ()> {
    ip.map(|ip| ip.to_canonical())
}

/// `no_address` of a `[[vm]]`.
fn no_address(section: &Section<'_, '_>) -> bool {
    let Some(value) = section.get("no_address") else { return false };
    let without = value.boolean().unwrap_or(false);
    if without && section.get("address").is_some() {
        value.fault("and `vm.address` are both given", "keep one of the two");
    }
    without
}

/// A list of names, whose lines are noted.
fn named<T: ToString>(
    section: &Section<'_, '_>,
    key: &'static str,
    read: fn(&Value<'_, '_>) -> Option<T>,
    lines: &mut Lines,
) -> Vec<T> {
    let items = section.get(key).and_then(|value| value.strings()).unwrap_or_default();
    let mut all = Vec::with_capacity(items.len());
    for (item, _) in items {
        let Some(name) = read(&item) else { continue };
        lines.named.push((name.to_string(), item.line));
        all.push(name);
    }
    all
}

/// Puts a contradiction at the line of the key that has to change.
fn tell(document: &Document, contradiction: &Contradiction, places: &EntryLines, broken: &Broken) {
    let none = Lines { header: 1, ..Lines::default() };
    let (noun, lines) = match contradiction.at {
        EntryIndex::Address(index) => ("address", places.addresses.get(index)),
        EntryIndex::User(index) => ("user", places.users.get(index)),
        EntryIndex::Team(index) => ("team", places.teams.get(index)),
        EntryIndex::Vm(index) => ("vm", places.vms.get(index)),
        EntryIndex::Node(index) => ("node", places.nodes.get(index)),
        EntryIndex::Change(_) => ("change", None),
    };
    let lines = lines.unwrap_or(&none);
    let what = &contradiction.what;
    let (line, fix) = match what {
        What::Reserved { .. } => (lines.of("name"), format!("give the {noun} another name")),
        // Told with both lines where it was read, or no name that could be read.
        What::NotALabel { .. }
        | What::NotAnId { .. }
        | What::NameTaken { .. }
        | What::KeyTaken { .. }
        | What::AgentKeyTaken { .. }
        | What::NoHandoff(_)
        | What::HandoffNeeded { .. }
        | What::MemberTwice { .. } => return,
        What::IdTaken { .. } => (
            lines.of("id"),
            "give it another `id`: certificates for one would be good for the other".to_owned(),
        ),
        What::IpTaken { column, .. } => {
            (lines.of(column), "write every IP address once, in one column".to_owned())
        }
        What::NotDialable { column, .. } => {
            (lines.of(column), "write an address that clients can dial".to_owned())
        }
        What::NotV6 { .. } => {
            (lines.of("public6"), "write an IPv6 address, or leave the key out".to_owned())
        }
        What::UnknownAddress { address } if broken.addresses.contains(address) => return,
        What::UnknownAddress { .. } => {
            (lines.of("address"), "name an [[address]] of this file".to_owned())
        }
        What::UnknownOwner { .. } => (
            lines.of("owner"),
            format!("name a [[user]] of this file, or {TEAM_PREFIX} and a [[team]]"),
        ),
        What::UnknownNode { node } if broken.nodes.contains(node) => return,
        What::UnknownNode { .. } => (lines.of("node"), "name a [[node]] of this file".to_owned()),
        What::AtLobby { .. } => (lines.of("address"), "put the VM at another address".to_owned()),
        What::SlotTaken { .. } => {
            (lines.of("address"), "put one of the two VMs at another address".to_owned())
        }
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

#[cfg(test)]
#[path = "fleet_tests.rs"]
mod tests;
