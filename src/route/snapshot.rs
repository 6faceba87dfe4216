//! Everything at one moment: what a table is made equal to, checked as a whole before
//! anybody sees it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::node::Host;
use super::{
    AddressEntry, Contents, Contradiction, EntryIndex, KeyEntry, NodeEntry, Slot, TEAMS_MAX,
    TeamEntry, UserEntry, Vm, VmEntry, What,
};

/// Length of a name, in bytes (RFC 1035 §2.3.4).
pub const LABEL_BYTES_MAX: usize = 63;
/// Stands before a team's name where a user's name could stand too.
pub const TEAM_PREFIX: &str = "team:";
/// Names that mean something else in the zone of the VMs' names. A lobby address may
/// be called `lobby`.
pub const RESERVED: [&str; 3] = ["lobby", "ns", "apex"];

/// Whether `name` can be one label of a DNS name: 1 to 63 of `a-z 0-9 -`, no hyphen at either end.
/// Upper case is out so that two names never differ for SSH and agree for DNS.
#[must_use]
pub fn is_label(name: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Whether `id` can name a VM for good: 1 to 63 of `a-z A-Z 0-9 - _`. It stands in certificates and
/// in files of one VM a line.
#[must_use]
pub fn is_id(id: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// Everything at one moment, e.g. from fleet.toml. Cannot contradict itself (see
/// [`Snapshot::new`]).
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(super) addresses: Vec<AddressEntry>,
    pub(super) users: Vec<UserEntry>,
    pub(super) teams: Vec<TeamEntry>,
    /// Per user.
    pub(super) teams_of: Vec<TeamsOf>,
    pub(super) nodes: Vec<NodeEntry>,
    pub(super) vms: Vec<Resolved>,
}

/// The teams of one user.
#[derive(Clone, Debug, Default)]
pub(super) struct TeamsOf {
    /// Whose slots are the user's too.
    pub(super) slots: Vec<TeamIndex>,
    /// Whose VMs the user may enter by name only.
    pub(super) by_name: Vec<TeamIndex>,
}

/// An index into `teams`.
pub(super) type TeamIndex = usize;
/// An index into the users, and from their end on into the teams.
pub(super) type PrincipalIndex = usize;

/// A [`VmEntry`] whose names were looked up.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    pub(super) vm: Vm,
    /// Principal and index of the address; sorted, unique.
    pub(super) slots: Vec<(PrincipalIndex, usize)>,
    /// The index of the address its DNS name points at.
    pub(super) address: Option<usize>,
    /// Everybody who may enter it by name, the owner and all of `slots` included; sorted, unique.
    pub(super) by_name: Vec<PrincipalIndex>,
}

impl Snapshot {
    /// Checks `contents` as a whole. IPv4-mapped IPv6 addresses become IPv4.
    ///
    /// # Errors
    /// All contradictions, in the order addresses, users, teams, nodes, VMs.
    pub fn new(contents: Contents) -> Result<Self, Vec<Contradiction>> {
        let mut found = Vec::new();
        let Contents { mut addresses, users, teams, nodes, mut vms } = contents;
        for address in &mut addresses {
            address.make_canonical();
        }
        let names = check_names(&addresses, &users, &teams, &vms, &mut found);
        lie_on(&nodes, &mut vms, &mut found);
        check_ips(&addresses, &mut found);
        check_keys(&users, &mut found);
        let teams_of = join_teams(&users, &teams, &names, &mut found);
        let resolved = resolve(&addresses, vms, &names, &mut found);
        check_slots(&addresses, &users, &teams, &teams_of, &resolved, &mut found);
        if found.is_empty() {
            Ok(Self { addresses, users, teams, teams_of, nodes, vms: resolved })
        } else {
            found.sort_by_key(|contradiction| contradiction.at);
            Err(found)
        }
    }

    /// All VMs.
    pub fn vms(&self) -> impl ExactSizeIterator<Item = &Vm> {
        self.vms.iter().map(|resolved| &resolved.vm)
    }

    /// All nodes.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &NodeEntry> {
        self.nodes.iter()
    }

    /// All pool addresses.
    pub fn addresses(&self) -> impl ExactSizeIterator<Item = &AddressEntry> {
        self.addresses.iter()
    }

    /// All users.
    pub fn users(&self) -> impl ExactSizeIterator<Item = &UserEntry> {
        self.users.iter()
    }
}

/// Where each name stands.
struct Names {
    users: HashMap<String, PrincipalIndex>,
    /// With their prefix.
    teams: HashMap<String, PrincipalIndex>,
    addresses: HashMap<String, usize>,
}

impl Names {
    fn principal(&self, name: &str) -> Option<PrincipalIndex> {
        self.users.get(name).or_else(|| self.teams.get(name)).copied()
    }
}

fn check_names(
    addresses: &[AddressEntry],
    users: &[UserEntry],
    teams: &[TeamEntry],
    vms: &[VmEntry],
    found: &mut Vec<Contradiction>,
) -> Names {
    let mut check = |at, name: &str, taken: Option<&'static str>, lobby: bool| {
        let zone = matches!(at, EntryIndex::Address(_) | EntryIndex::Vm(_));
        if let Some(what) = judge_name(name, taken, zone, lobby) {
            found.push(Contradiction { at, what });
        }
    };
    // Of two equal names the first keeps its meaning, so that one fault does not cause others.
    let mut names =
        Names { users: HashMap::new(), teams: HashMap::new(), addresses: HashMap::new() };
    for (index, entry) in addresses.iter().enumerate() {
        let taken = names.addresses.contains_key(&entry.name).then_some("another address");
        check(EntryIndex::Address(index), &entry.name, taken, entry.lobby);
        names.addresses.entry(entry.name.clone()).or_insert(index);
    }
    for (index, entry) in users.iter().enumerate() {
        let taken = names.users.contains_key(&entry.name).then_some("another user");
        check(EntryIndex::User(index), &entry.name, taken, false);
        names.users.entry(entry.name.clone()).or_insert(index);
    }
    for (index, entry) in teams.iter().enumerate() {
        let name = format!("{TEAM_PREFIX}{}", entry.name);
        let taken = names.teams.contains_key(&name).then_some("another team");
        check(EntryIndex::Team(index), &entry.name, taken, false);
        names.teams.entry(name).or_insert(users.len() + index);
    }
    let mut vm_names = HashSet::with_capacity(vms.len());
    for (index, entry) in vms.iter().enumerate() {
        let name = &entry.vm.name;
        let taken = if names.addresses.contains_key(name) {
            Some("an address")
        } else {
            (!vm_names.insert(name)).then_some("another VM")
        };
        check(EntryIndex::Vm(index), name, taken, false);
    }
    drop(vm_names);
    let mut ids = HashSet::with_capacity(vms.len());
    let told: HashSet<EntryIndex> = found.iter().map(|contradiction| contradiction.at).collect();
    for (index, entry) in vms.iter().enumerate() {
        let (at, id) = (EntryIndex::Vm(index), &entry.vm.id);
        let what = judge_id(id, !ids.insert(id));
        // In a fleet file the id is the name, whose fault is told already.
        found.extend(what.filter(|_| !told.contains(&at)).map(|what| Contradiction { at, what }));
    }
    names
}

/// What is wrong with a name, if anything is. `zone`: it is part of a DNS name.
pub(super) fn judge_name(
    name: &str,
    taken: Option<&'static str>,
    zone: bool,
    lobby: bool,
) -> Option<What> {
    let own = || name.to_owned();
    if !is_label(name) {
        Some(What::NotALabel { name: own() })
    } else if zone && RESERVED.contains(&name) && !(lobby && name == "lobby") {
        Some(What::Reserved { name: own() })
    } else {
        taken.map(|by| What::NameTaken { name: own(), by })
    }
}

/// What is wrong with a VM's id, if anything is.
pub(super) fn judge_id(id: &str, taken: bool) -> Option<What> {
    if is_id(id) {
        taken.then(|| What::IdTaken { id: id.to_owned() })
    } else {
        Some(What::NotAnId { id: id.to_owned() })
    }
}

/// What is wrong with an IP address in its column, whatever stands elsewhere.
pub(super) fn judge_ip(ip: IpAddr, column: &'static str) -> impl Iterator<Item = What> {
    let dialable = (!is_dialable(ip)).then_some(What::NotDialable { ip, column });
    let v6 = (column == "public6" && ip.is_ipv4()).then_some(What::NotV6 { ip });
    dialable.into_iter().chain(v6)
}

fn check_ips(addresses: &[AddressEntry], found: &mut Vec<Contradiction>) {
    let mut taken: HashMap<IpAddr, (&'static str, &str)> = HashMap::new();
    for (index, entry) in addresses.iter().enumerate() {
        let at = EntryIndex::Address(index);
        for (column, ip) in entry.columns() {
            found.extend(judge_ip(ip, column).map(|what| Contradiction { at, what }));
            if let Some((there, of)) = taken.get(&ip) {
                let what = What::IpTaken { ip, column, there, of: (*of).to_owned() };
                found.push(Contradiction { at, what });
            } else {
                taken.insert(ip, (column, &entry.name));
            }
        }
    }
}

/// Whether an IP address can be dialled. Link-local addresses mean something else on every link,
/// and nothing here has a scope beside an IP.
#[must_use]
pub fn is_dialable(ip: IpAddr) -> bool {
    let elsewhere = match ip {
        IpAddr::V4(v4) => v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(ip.is_unspecified() || ip.is_multicast() || elsewhere)
}

fn check_keys(users: &[UserEntry], found: &mut Vec<Contradiction>) {
    let mut taken: HashMap<&[u8; 32], &str> = HashMap::new();
    for (index, entry) in users.iter().enumerate() {
        for KeyEntry { fingerprint, .. } in &entry.keys {
            if let Some(of) = taken.get(fingerprint) {
                let what = What::KeyTaken { fingerprint: *fingerprint, of: (*of).to_owned() };
                found.push(Contradiction { at: EntryIndex::User(index), what });
            } else {
                taken.insert(fingerprint, &entry.name);
            }
        }
    }
}

/// Checks the nodes, and what VMs say of them. Their names become one text each.
fn lie_on(nodes: &[NodeEntry], vms: &mut [VmEntry], found: &mut Vec<Contradiction>) {
    let mut hosts: HashMap<Arc<str>, Host> = HashMap::with_capacity(nodes.len());
    let mut keys: HashMap<&[u8; 32], &str> = HashMap::new();
    for (index, entry) in nodes.iter().enumerate() {
        let at = EntryIndex::Node(index);
        let taken = hosts.contains_key(entry.name.as_str()).then_some("another node");
        let mut wrong = judge_name(&entry.name, taken, false, false);
        if let Some(agent) = &entry.agent
            && let Some(of) = keys.insert(&agent.key, &entry.name)
        {
            let what = What::AgentKeyTaken { key: agent.key, of: of.to_owned() };
            wrong = wrong.or(Some(what));
        }
        found.extend(wrong.map(|what| Contradiction { at, what }));
        let host = || Host::of(entry, None);
        hosts.entry(entry.name.as_str().into()).or_insert_with(host);
    }
    for (index, VmEntry { vm, .. }) in vms.iter_mut().enumerate() {
        let at = EntryIndex::Vm(index);
        let host = match &mut vm.node {
            None => None,
            Some(name) => {
                let Some((node, host)) = hosts.get_key_value(&**name) else {
                    let what = What::UnknownNode { node: name.as_ref().to_owned() };
                    found.push(Contradiction { at, what });
                    continue;
                };
                *name = Arc::clone(node);
                Some(host)
            }
        };
        if let Err(why) = vm.carriage(host) {
            found.push(Contradiction { at, what: What::NoHandoff(why) });
        }
    }
}

fn join_teams(
    users: &[UserEntry],
    teams: &[TeamEntry],
    names: &Names,
    found: &mut Vec<Contradiction>,
) -> Vec<TeamsOf> {
    let mut teams_of = vec![TeamsOf::default(); users.len()];
    for (index, team) in teams.iter().enumerate() {
        let at = EntryIndex::Team(index);
        let mut seen = HashSet::new();
        let members = team.members.iter().map(|member| (member, false));
        for (member, by_name) in members.chain(team.members_by_name.iter().map(|m| (m, true))) {
            if !seen.insert(member) {
                let what = What::MemberTwice { member: member.clone() };
                found.push(Contradiction { at, what });
                continue;
            }
            match names.users.get(member).and_then(|&user| teams_of.get_mut(user)) {
                Some(of) if by_name => of.by_name.push(index),
                Some(of) => of.slots.push(index),
                None => found.push(Contradiction {
                    at,
                    what: What::UnknownMember { member: member.clone() },
                }),
            }
        }
    }
    for (index, (user, of)) in users.iter().zip(&teams_of).enumerate() {
        let teams = of.slots.len() + of.by_name.len();
        if teams > TEAMS_MAX {
            let what = What::TooManyTeams { user: user.name.clone(), teams };
            found.push(Contradiction { at: EntryIndex::User(index), what });
        }
    }
    teams_of
}

fn resolve(
    addresses: &[AddressEntry],
    vms: Vec<VmEntry>,
    names: &Names,
    found: &mut Vec<Contradiction>,
) -> Vec<Resolved> {
    let mut resolved = Vec::with_capacity(vms.len());
    for (index, VmEntry { vm, slots, by_name }) in vms.into_iter().enumerate() {
        let at = EntryIndex::Vm(index);
        let (mut wrong, mut nowhere) = (BTreeSet::new(), BTreeSet::new());
        let mut allowed = Vec::with_capacity(1 + slots.len() + by_name.len());
        let owner = names.principal(&vm.owner);
        if owner.is_none() {
            wrong.insert(vm.owner.clone());
            let what = What::UnknownOwner { owner: vm.owner.clone() };
            found.push(Contradiction { at, what });
        }
        allowed.extend(owner);
        let mut known = |principal: String, found: &mut Vec<Contradiction>| {
            let index = names.principal(&principal);
            if index.is_none() && wrong.insert(principal.clone()) {
                found.push(Contradiction { at, what: What::UnknownPrincipal { principal } });
            }
            index
        };
        let mut places = Vec::with_capacity(slots.len());
        for Slot { principal, address } in slots {
            let principal = known(principal, found);
            let place = names.addresses.get(&address).copied();
            match place.and_then(|index| addresses.get(index)) {
                Some(entry) if entry.lobby => {
                    found.push(Contradiction { at, what: What::AtLobby { address } });
                }
                None if nowhere.insert(address.clone()) => {
                    found.push(Contradiction { at, what: What::UnknownAddress { address } });
                }
                Some(_) | None => {}
            }
            allowed.extend(principal);
            places.extend(principal.zip(place));
        }
        for principal in by_name {
            allowed.extend(known(principal, found));
        }
        allowed.sort_unstable();
        allowed.dedup();
        places.sort_unstable();
        places.dedup();
        let address = vm.address.as_ref().and_then(|address| {
            let place = names.addresses.get(address).copied();
            if place.is_none() && !nowhere.contains(address) {
                let what = What::UnknownAddress { address: address.clone() };
                found.push(Contradiction { at, what });
            }
            place
        });
        resolved.push(Resolved { vm, slots: places, address, by_name: allowed });
    }
    resolved
}

/// Nobody may see two VMs at one address, over everything that opens a way: the user's own
/// slots and the teams'.
fn check_slots(
    addresses: &[AddressEntry],
    users: &[UserEntry],
    teams: &[TeamEntry],
    teams_of: &[TeamsOf],
    vms: &[Resolved],
    found: &mut Vec<Contradiction>,
) {
    let mut slots_of: Vec<Vec<(usize, usize)>> = vec![Vec::new(); users.len() + teams.len()];
    for (vm, resolved) in vms.iter().enumerate() {
        for &(principal, address) in &resolved.slots {
            if let Some(of) = slots_of.get_mut(principal) {
                of.push((address, vm));
            }
        }
    }
    let mut told = HashSet::new();
    let mut check = |user: &dyn Fn() -> String, principals: &mut dyn Iterator<Item = usize>| {
        let mut here: HashMap<usize, usize> = HashMap::new();
        for &(address, vm) in principals.filter_map(|p| slots_of.get(p)).flatten() {
            let first = *here.entry(address).or_insert(vm);
            let (low, high) = (first.min(vm), first.max(vm));
            if low == high || !told.insert((address, low, high)) {
                continue;
            }
            if let (Some(entry), Some(other)) = (addresses.get(address), vms.get(low)) {
                let (address, other) = (entry.name.clone(), other.vm.name.clone());
                let what = What::SlotTaken { user: user(), address, other };
                found.push(Contradiction { at: EntryIndex::Vm(high), what });
            }
        }
    };
    for (index, (user, of)) in users.iter().zip(teams_of).enumerate() {
        let mut principals =
            std::iter::once(index).chain(of.slots.iter().map(|team| users.len() + team));
        check(&|| user.name.clone(), &mut principals);
    }
    // A team without members would otherwise pass, and its first member would find the conflict.
    for (index, team) in teams.iter().enumerate() {
        let name = || format!("{TEAM_PREFIX}{}", team.name);
        check(&name, &mut std::iter::once(users.len() + index));
    }
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
