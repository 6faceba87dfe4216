//! Everything at one moment: what a table is made equal to, checked as a whole before anybody sees it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt::Write,
    net::IpAddr,
};

use super::Vm;

/// Teams one user may be in. Bounds the second step of a lookup.
pub const TEAMS_MAX: usize = 64;
/// Length of a name, in bytes (RFC 1035 §2.3.4).
pub const LABEL_BYTES_MAX: usize = 63;
/// Stands before a team's name where a user's name could stand too.
pub const TEAM_PREFIX: &str = "team:";
/// Names that mean something else in the zone of the VMs' names. A lobby address may be called `lobby`.
pub const RESERVED: [&str; 3] = ["lobby", "ns", "apex"];

/// A pool address as configured.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AddressEntry {
    /// Its name, e.g. `s003`.
    pub name: String,
    /// What clients dial.
    pub public: IpAddr,
    /// What clients dial over IPv6.
    pub public6: Option<IpAddr>,
    /// What the host sees when a NAT stands before it.
    pub private: Option<IpAddr>,
    /// Whether every registered user gets the list of their VMs here.
    pub lobby: bool,
}

/// A user and the SHA-256 fingerprints of the user's raw public keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UserEntry {
    /// A DNS label.
    pub name: String,
    /// Globally unique.
    pub keys: Vec<[u8; 32]>,
}

/// A team and its members' names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TeamEntry {
    /// A DNS label, without the prefix.
    pub name: String,
    /// Users.
    pub members: Vec<String>,
}

/// A principal's way to a VM: at this address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Slot {
    /// A user's name, or `team:` and a team's.
    pub principal: String,
    /// The pool address's name.
    pub address: String,
}

/// A VM and who may enter it how. Its owner may always enter it by name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VmEntry {
    /// The VM.
    pub vm: Vm,
    /// Where it answers, for whom: also by name, at any address.
    pub slots: Vec<Slot>,
    /// Principals who may enter it by name only.
    pub by_name: Vec<String>,
}

impl VmEntry {
    /// A VM that answers at one address, for its owner.
    #[must_use]
    pub fn owned(vm: Vm, address: &str) -> Self {
        let slot = Slot { principal: vm.owner.clone(), address: address.to_owned() };
        Self { vm, slots: vec![slot], by_name: Vec::new() }
    }
}

/// What a snapshot is made from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Contents {
    /// The pool.
    pub addresses: Vec<AddressEntry>,
    /// All users.
    pub users: Vec<UserEntry>,
    /// All teams.
    pub teams: Vec<TeamEntry>,
    /// All VMs.
    pub vms: Vec<VmEntry>,
}

/// An entry of [`Contents`], by its index.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Place {
    /// In `addresses`.
    Address(usize),
    /// In `users`.
    User(usize),
    /// In `teams`.
    Team(usize),
    /// In `vms`.
    Vm(usize),
}

/// One thing in [`Contents`] that cannot be true beside the rest. The operator's fault.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{what}")]
pub struct Contradiction {
    /// The entry to change: of two that collide, the later one.
    pub at: Place,
    /// What is wrong with it.
    pub what: What,
}

/// The ways in which [`Contents`] can be wrong.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum What {
    /// Names become part of DNS names.
    #[error("name `{name}` is not a DNS label")]
    NotALabel {
        /// As given.
        name: String,
    },
    /// See [`RESERVED`].
    #[error("name `{name}` is reserved")]
    Reserved {
        /// As given.
        name: String,
    },
    /// VMs and addresses share one namespace; users and teams have one each.
    #[error("name `{name}` is already taken by {by}")]
    NameTaken {
        /// As given.
        name: String,
        /// What has it: "a VM", "an address"...
        by: &'static str,
    },
    /// An IP address stands in two places, as public in one and private in another, or twice the same.
    #[error("{column} {ip} is already {there} of address `{of}`")]
    IpTaken {
        /// The IP address.
        ip: IpAddr,
        /// "public", "public6" or "private".
        column: &'static str,
        /// Its column in the other place.
        there: &'static str,
        /// The address that has it.
        of: String,
    },
    /// An IP address that no client can dial: unspecified, multicast, broadcast or bound to one link.
    #[error("{column} {ip} cannot be a pool address")]
    NotDialable {
        /// The IP address.
        ip: IpAddr,
        /// "public", "public6" or "private".
        column: &'static str,
    },
    /// `public6` holds an IPv4 address.
    #[error("public6 {ip} is not an IPv6 address")]
    NotV6 {
        /// The IP address.
        ip: IpAddr,
    },
    /// A raw fingerprint names one user, or nobody knows whom.
    #[error("key {} is already a key of user `{of}`", show(.fingerprint))]
    KeyTaken {
        /// SHA-256 of the raw key.
        fingerprint: [u8; 32],
        /// The user who has it; the same user where it was given twice.
        of: String,
    },
    /// A team has a member who is no user.
    #[error("member `{member}` is not a user")]
    UnknownMember {
        /// As given.
        member: String,
    },
    /// A team names a member twice.
    #[error("member `{member}` is named twice")]
    MemberTwice {
        /// As given.
        member: String,
    },
    /// A user is in more than [`TEAMS_MAX`] teams.
    #[error("user `{user}` is in {teams} teams, more than {TEAMS_MAX}")]
    TooManyTeams {
        /// The user's name.
        user: String,
        /// How many.
        teams: usize,
    },
    /// The owner of a VM is nobody.
    #[error("owner `{owner}` is not known")]
    UnknownOwner {
        /// As given.
        owner: String,
    },
    /// A grant to nobody.
    #[error("principal `{principal}` is not known")]
    UnknownPrincipal {
        /// As given.
        principal: String,
    },
    /// A slot at no pool address.
    #[error("address `{address}` is not known")]
    UnknownAddress {
        /// As given.
        address: String,
    },
    /// A lobby answers with the list of VMs, so no VM can answer there.
    #[error("address `{address}` is a lobby")]
    AtLobby {
        /// The address's name.
        address: String,
    },
    /// Two VMs for one user at one address: through a slot of the user's own, or one of a team's.
    #[error("VM `{other}` already answers to `{user}` at address `{address}`")]
    SlotTaken {
        /// The principal with two VMs there.
        user: String,
        /// The address's name.
        address: String,
        /// The VM that is there.
        other: String,
    },
}

/// First 8 bytes in hexadecimal are enough to find a key by; the room does not know how SSH writes fingerprints.
fn show(fingerprint: &[u8; 32]) -> String {
    fingerprint.iter().take(8).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Whether `name` can be one label of a DNS name: 1 to 63 of `a-z 0-9 -`, no hyphen at either end. Upper case is out so
/// that two names never differ for SSH and agree for DNS.
#[must_use]
pub fn is_label(name: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Everything at one moment, e.g. from fleet.toml. Cannot contradict itself (see [`Snapshot::new`]).
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(super) addresses: Vec<AddressEntry>,
    pub(super) users: Vec<UserEntry>,
    pub(super) teams: Vec<TeamEntry>,
    /// Per user: its teams.
    pub(super) teams_of: Vec<Vec<TeamIndex>>,
    pub(super) vms: Vec<Resolved>,
}

/// An index into `teams`.
pub(super) type TeamIndex = usize;
/// An index into the users, and from their end on into the teams.
pub(super) type PrincipalIndex = usize;

/// A [`VmEntry`] whose names were looked up.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    pub(super) vm: Vm,
    /// Principal and index of the address.
    pub(super) slots: Vec<(PrincipalIndex, usize)>,
    /// Everybody who may enter it by name, the owner and all of `slots` included; sorted, unique.
    pub(super) by_name: Vec<PrincipalIndex>,
}

impl Snapshot {
    /// Checks `contents` as a whole. IPv4-mapped IPv6 addresses become IPv4.
    ///
    /// # Errors
    /// All contradictions, in the order addresses, users, teams, VMs.
    pub fn new(contents: Contents) -> Result<Self, Vec<Contradiction>> {
        let mut found = Vec::new();
        let Contents { mut addresses, users, teams, vms } = contents;
        for address in &mut addresses {
            address.public = address.public.to_canonical();
            address.public6 = address.public6.map(|ip| ip.to_canonical());
            address.private = address.private.map(|ip| ip.to_canonical());
        }
        let names = check_names(&addresses, &users, &teams, &vms, &mut found);
        check_ips(&addresses, &mut found);
        check_keys(&users, &mut found);
        let teams_of = join_teams(&users, &teams, &names, &mut found);
        let resolved = resolve(&addresses, vms, &names, &mut found);
        check_slots(&addresses, &users, &teams, &teams_of, &resolved, &mut found);
        if found.is_empty() {
            Ok(Self { addresses, users, teams, teams_of, vms: resolved })
        } else {
            found.sort_by_key(|contradiction| contradiction.at);
            Err(found)
        }
    }

    /// All VMs.
    pub fn vms(&self) -> impl ExactSizeIterator<Item = &Vm> {
        self.vms.iter().map(|resolved| &resolved.vm)
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
        let name = name.to_owned();
        let zone = matches!(at, Place::Address(_) | Place::Vm(_));
        let what = if !is_label(&name) {
            What::NotALabel { name }
        } else if zone && RESERVED.contains(&name.as_str()) && !(lobby && name == "lobby") {
            What::Reserved { name }
        } else if let Some(by) = taken {
            What::NameTaken { name, by }
        } else {
            return;
        };
        found.push(Contradiction { at, what });
    };
    // Of two equal names the first keeps its meaning, so that one fault does not cause others.
    let mut names =
        Names { users: HashMap::new(), teams: HashMap::new(), addresses: HashMap::new() };
    for (index, entry) in addresses.iter().enumerate() {
        let taken = names.addresses.contains_key(&entry.name).then_some("another address");
        check(Place::Address(index), &entry.name, taken, entry.lobby);
        names.addresses.entry(entry.name.clone()).or_insert(index);
    }
    for (index, entry) in users.iter().enumerate() {
        let taken = names.users.contains_key(&entry.name).then_some("another user");
        check(Place::User(index), &entry.name, taken, false);
        names.users.entry(entry.name.clone()).or_insert(index);
    }
    for (index, entry) in teams.iter().enumerate() {
        let name = format!("{TEAM_PREFIX}{}", entry.name);
        let taken = names.teams.contains_key(&name).then_some("another team");
        check(Place::Team(index), &entry.name, taken, false);
        names.teams.entry(name).or_insert(users.len() + index);
    }
    let mut vm_names = HashSet::new();
    for (index, entry) in vms.iter().enumerate() {
        let name = &entry.vm.name;
        let taken = if names.addresses.contains_key(name) {
            Some("an address")
        } else {
            (!vm_names.insert(name)).then_some("another VM")
        };
        check(Place::Vm(index), name, taken, false);
    }
    names
}

fn check_ips(addresses: &[AddressEntry], found: &mut Vec<Contradiction>) {
    let mut taken: HashMap<IpAddr, (&'static str, &str)> = HashMap::new();
    for (index, entry) in addresses.iter().enumerate() {
        let at = Place::Address(index);
        let columns = [
            ("public", Some(entry.public)),
            ("public6", entry.public6),
            ("private", entry.private),
        ];
        for (column, ip) in columns {
            let Some(ip) = ip else { continue };
            if !is_dialable(ip) {
                found.push(Contradiction { at, what: What::NotDialable { ip, column } });
            }
            if column == "public6" && ip.is_ipv4() {
                found.push(Contradiction { at, what: What::NotV6 { ip } });
            }
            if let Some((there, of)) = taken.get(&ip) {
                let what = What::IpTaken { ip, column, there, of: (*of).to_owned() };
                found.push(Contradiction { at, what });
            } else {
                taken.insert(ip, (column, &entry.name));
            }
        }
    }
}

/// Link-local addresses mean something else on every link, and the live map has no scope beside an IP.
fn is_dialable(ip: IpAddr) -> bool {
    let elsewhere = match ip {
        IpAddr::V4(v4) => v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(ip.is_unspecified() || ip.is_multicast() || elsewhere)
}

fn check_keys(users: &[UserEntry], found: &mut Vec<Contradiction>) {
    let mut taken: HashMap<&[u8; 32], &str> = HashMap::new();
    for (index, entry) in users.iter().enumerate() {
        for fingerprint in &entry.keys {
            if let Some(of) = taken.get(fingerprint) {
                let what = What::KeyTaken { fingerprint: *fingerprint, of: (*of).to_owned() };
                found.push(Contradiction { at: Place::User(index), what });
            } else {
                taken.insert(fingerprint, &entry.name);
            }
        }
    }
}

fn join_teams(
    users: &[UserEntry],
    teams: &[TeamEntry],
    names: &Names,
    found: &mut Vec<Contradiction>,
) -> Vec<Vec<TeamIndex>> {
    let mut teams_of = vec![Vec::new(); users.len()];
    for (index, team) in teams.iter().enumerate() {
        let at = Place::Team(index);
        let mut seen = HashSet::new();
        for member in &team.members {
            if !seen.insert(member) {
                let what = What::MemberTwice { member: member.clone() };
                found.push(Contradiction { at, what });
                continue;
            }
            match names.users.get(member).and_then(|&user| teams_of.get_mut(user)) {
                Some(of) => of.push(index),
                None => found.push(Contradiction {
                    at,
                    what: What::UnknownMember { member: member.clone() },
                }),
            }
        }
    }
    for (index, (user, of)) in users.iter().zip(&teams_of).enumerate() {
        if of.len() > TEAMS_MAX {
            let what = What::TooManyTeams { user: user.name.clone(), teams: of.len() };
            found.push(Contradiction { at: Place::User(index), what });
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
        let at = Place::Vm(index);
        let mut wrong = BTreeSet::new();
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
                Some(_) => {}
                None => found.push(Contradiction { at, what: What::UnknownAddress { address } }),
            }
            allowed.extend(principal);
            places.extend(principal.zip(place));
        }
        for principal in by_name {
            allowed.extend(known(principal, found));
        }
        allowed.sort_unstable();
        allowed.dedup();
        resolved.push(Resolved { vm, slots: places, by_name: allowed });
    }
    resolved
}

/// Nobody may see two VMs at one address, over everything that opens a way: the user's own slots and the teams'.
fn check_slots(
    addresses: &[AddressEntry],
    users: &[UserEntry],
    teams: &[TeamEntry],
    teams_of: &[Vec<TeamIndex>],
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
                found.push(Contradiction { at: Place::Vm(high), what });
            }
        }
    };
    for (index, (user, of)) in users.iter().zip(teams_of).enumerate() {
        let mut principals = std::iter::once(index).chain(of.iter().map(|team| users.len() + team));
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
