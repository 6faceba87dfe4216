//! The state a delta leads to, written over the present one: only what the delta touches is copied.
//!
//! In reading order: here who and where there is, in `nodes` what VMs lie on, in `vms` what may be
//! entered, in `checks` what can be judged only at the end, in `finish` what the table must hold.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::changes::{Changes, Sorted};
use super::contents::columns;
use super::hash::{Asked, Fingerprint};
use super::ids::{AddressId, PrincipalId};
use super::node::Host;
use super::snapshot::{judge_ip, judge_name};
use super::table::Table;
use super::user_routes::{Named, UserRoutes, VmId, VmName};
use super::writer::{IdAllocator, Known, Writer};
use super::{
    Address, AddressEntry, Contradiction, Counts, EntryIndex, KeyEntry, TEAM_PREFIX, TeamEntry,
    UserEntry, Vm, What,
};

mod checks;
mod finish;
mod nodes;
mod vms;

pub(super) struct TableDraft<'t> {
    table: &'t Table,
    writer: &'t Writer,
    shown: u64,
    found: Vec<Contradiction>,
    takes_away: bool,
    given: IdAllocator,
    counts: Counts,
    /// By name, teams with their prefix. `None`: gone. The others are as they were.
    principals: HashMap<Arc<str>, Option<PrincipalId>>,
    users: HashMap<PrincipalId, User>,
    teams: HashMap<PrincipalId, Members>,
    reach: HashMap<PrincipalId, Reach>,
    key_owners: HashMap<[u8; 32], Option<PrincipalId>>,
    options: Vec<(Fingerprint, Option<Arc<str>>)>,
    /// By name. `None`: gone.
    addresses: HashMap<String, Option<Arc<Address>>>,
    ips: HashMap<IpAddr, Option<Arc<Address>>>,
    hanging: HashMap<AddressId, Hanging>,
    /// By name. `None`: gone.
    nodes: HashMap<Arc<str>, Option<Host>>,
    /// By the name of the node.
    lying: HashMap<Arc<str>, Lying>,
    names: Vec<(VmName, Option<Named>)>,
    ids_freed: HashSet<VmId>,
    ids_taken: HashSet<VmId>,
}

/// Whether an entry is of the state before, of the one after, or of both.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Life {
    Stays,
    Comes,
    Goes,
}

/// A user whose keys or teams change.
struct User {
    life: Life,
    name: Arc<str>,
    closed: bool,
    keys: Vec<[u8; 32]>,
    teams: Vec<PrincipalId>,
    teams_by_name: Vec<PrincipalId>,
    /// Those of `teams` whose slots are new to the user.
    joined: Vec<PrincipalId>,
}

/// A team whose members change.
struct Members {
    life: Life,
    name: Arc<str>,
    /// Which change of the delta it is.
    index: usize,
    /// Sorted, as `by_name`.
    slots: Vec<PrincipalId>,
    by_name: Vec<PrincipalId>,
}

impl User {
    fn comes(name: Arc<str>, closed: bool) -> Self {
        let (keys, teams, teams_by_name) = (Vec::new(), Vec::new(), Vec::new());
        Self { life: Life::Comes, name, closed, keys, teams, teams_by_name, joined: Vec::new() }
    }
}

/// A principal whose VMs change.
#[derive(Default)]
struct Reach {
    /// Sorted by address.
    slots: Vec<(AddressId, Arc<Vm>)>,
    by_name: Vec<Arc<Vm>>,
    lost: Vec<(AddressId, Arc<Vm>)>,
    gained: Vec<AddressId>,
}

/// How much more hangs on an address than before.
#[derive(Clone, Copy, Default)]
struct Hanging {
    slots: isize,
    pointing: isize,
}

/// How much more lies on a node than before.
#[derive(Clone, Copy, Default)]
struct Lying {
    vms: isize,
    handoffs: isize,
}

impl<'t> TableDraft<'t> {
    pub(super) fn new(table: &'t Table, writer: &'t Writer, shown: u64, delta: &Sorted) -> Self {
        let mut draft = Self {
            table,
            writer,
            shown,
            found: Vec::new(),
            takes_away: false,
            given: writer.given,
            counts: writer.counts,
            principals: HashMap::new(),
            users: HashMap::new(),
            teams: HashMap::new(),
            reach: HashMap::new(),
            key_owners: HashMap::new(),
            options: Vec::new(),
            addresses: HashMap::new(),
            ips: HashMap::new(),
            hanging: HashMap::new(),
            nodes: HashMap::new(),
            lying: HashMap::new(),
            names: Vec::new(),
            ids_freed: HashSet::new(),
            ids_taken: HashSet::new(),
        };
        draft.put_addresses(delta);
        draft.put_users(&delta.users);
        draft.put_teams(&delta.teams);
        draft.put_keys(&delta.users);
        draft.join(&delta.teams);
        draft.put_nodes(&delta.nodes);
        draft.put_vms(&delta.vms);
        draft.check_all(delta);
        draft
    }

    /// Each is told once: the same name may be wrong in several places of one entry.
    fn fault(&mut self, index: usize, what: What) {
        let fault = Contradiction { at: EntryIndex::Change(index), what };
        let mut of_this = self.found.iter().rev().take_while(|other| other.at == fault.at);
        if of_this.all(|other| *other != fault) {
            self.found.push(fault);
        }
    }

    fn faults(&mut self, faults: Vec<(usize, What)>) {
        for (index, what) in faults {
            self.fault(index, what);
        }
    }

    /// The address of that name in the end.
    fn address(&self, name: &str) -> Option<&Arc<Address>> {
        match self.addresses.get(name) {
            Some(changed) => changed.as_ref(),
            None => self.writer.addresses.get(name).map(|held| &held.address),
        }
    }

    /// The user, or with its prefix the team, of that name in the end.
    fn principal(&self, name: &str) -> Option<PrincipalId> {
        match self.principals.get(name) {
            Some(changed) => *changed,
            None => self.writer.principals.get(name).copied(),
        }
    }

    fn put_addresses(&mut self, delta: &Sorted) {
        for (name, (index, entry)) in &delta.addresses {
            let before = self.writer.addresses.get(name).map(|held| &held.address);
            let after = entry.as_ref().map(|entry| {
                // A VM that is put in is told of itself.
                let has = |vm: &str| self.table.names.with(vm, self.shown, |_| ()).is_some();
                let taken = !delta.vms.contains_key(name) && has(name);
                let what = judge_name(name, taken.then_some("a VM"), true, entry.lobby);
                self.found.extend(
                    what.map(|what| Contradiction { at: EntryIndex::Change(*index), what }),
                );
                self.given.address(entry, before)
            });
            // Whoever visits it has no other right there; nothing but a slot leads to a VM.
            self.takes_away |= before.is_some_and(|before| {
                let stays = |after: &Arc<Address>| after.dialled() == before.dialled();
                before.lobby && !after.as_ref().is_some_and(stays)
            });
            self.counts.addresses += usize::from(before.is_none() && after.is_some());
            self.counts.addresses -= usize::from(before.is_some() && after.is_none());
            if let Some(before) = before {
                let ips = columns(before.public, before.public6, before.private);
                self.ips.extend(ips.map(|(_, ip)| (ip, None)));
            }
            self.addresses.insert(name.clone(), after);
        }
        for (index, entry) in delta.addresses.values() {
            let Some(entry) = entry else { continue };
            self.put_ips(*index, entry);
        }
    }

    fn put_ips(&mut self, index: usize, entry: &AddressEntry) {
        let Some(address) = self.address(&entry.name).map(Arc::clone) else { return };
        for (column, ip) in entry.columns() {
            for what in judge_ip(ip, column) {
                self.fault(index, what);
            }
            let taken = match self.ips.get(&ip) {
                Some(changed) => changed.clone(),
                None => self.table.addresses.get(&ip, self.shown),
            };
            if let Some(of) = taken {
                let mut columns = columns(of.public, of.public6, of.private);
                let there = columns.find(|(_, other)| *other == ip).map_or("public", |(at, _)| at);
                let of = of.name.clone();
                self.fault(index, What::IpTaken { ip, column, there, of });
            } else {
                self.ips.insert(ip, Some(Arc::clone(&address)));
            }
        }
    }

    fn put_users(&mut self, users: &Changes<UserEntry>) {
        for (name, (index, entry)) in users {
            let before = self.writer.principals.get_key_value(&**name);
            if entry.is_some()
                && let Some(what) = judge_name(name, None, false, false)
            {
                self.fault(*index, what);
            }
            match (before, entry) {
                (Some((_, id)), Some(entry)) => {
                    self.takes_away |= entry.closed;
                    if let Some(user) = self.user(*id) {
                        user.closed = entry.closed;
                    }
                }
                (Some((name, id)), None) => {
                    self.principals.insert(Arc::clone(name), None);
                    self.takes_away = true;
                    self.counts.users -= 1;
                    if let Some(user) = self.user(*id) {
                        user.life = Life::Goes;
                    }
                }
                (None, Some(entry)) => {
                    let (id, name) = (self.given.principal(), Arc::from(name.as_str()));
                    self.principals.insert(Arc::clone(&name), Some(id));
                    self.counts.users += 1;
                    self.users.insert(id, User::comes(name, entry.closed));
                    self.reach.insert(id, Reach::default());
                }
                (None, None) => {}
            }
        }
    }

    fn put_teams(&mut self, teams: &Changes<TeamEntry>) {
        for (name, (index, entry)) in teams {
            if entry.is_some()
                && let Some(what) = judge_name(name, None, false, false)
            {
                self.fault(*index, what);
            }
            let name = format!("{TEAM_PREFIX}{name}");
            let before = self.writer.principals.get_key_value(name.as_str());
            let (id, name, life) = match (before, entry) {
                (Some((name, id)), Some(_)) => (*id, Arc::clone(name), Life::Stays),
                (Some((name, id)), None) => (*id, Arc::clone(name), Life::Goes),
                (None, Some(_)) => {
                    let id = self.given.principal();
                    self.reach.insert(id, Reach::default());
                    (id, Arc::from(name), Life::Comes)
                }
                (None, None) => continue,
            };
            let after = (life != Life::Goes).then_some(id);
            self.principals.insert(Arc::clone(&name), after);
            let (slots, by_name) = (Vec::new(), Vec::new());
            self.teams.insert(id, Members { life, name, index: *index, slots, by_name });
        }
    }

    /// A user to be changed, as the user is so far.
    fn user(&mut self, id: PrincipalId) -> Option<&mut User> {
        if !self.users.contains_key(&id) {
            let Known::User { name, keys } = self.writer.known.get(&id)? else { return None };
            let rest = |person: &UserRoutes| Arc::clone(&person.rest);
            let rest = self.table.users.with(&**name, self.shown, rest)?;
            let (teams, teams_by_name) = (rest.teams.to_vec(), rest.teams_by_name.to_vec());
            let user = User {
                life: Life::Stays,
                name: Arc::clone(name),
                closed: rest.closed,
                keys: keys.to_vec(),
                teams,
                teams_by_name,
                joined: Vec::new(),
            };
            self.users.insert(id, user);
        }
        self.users.get_mut(&id)
    }

    fn put_keys(&mut self, users: &Changes<UserEntry>) {
        let ids: Vec<_> = self.users.iter().map(|(id, user)| (*id, user.keys.clone())).collect();
        for (_, keys) in &ids {
            self.key_owners.extend(keys.iter().map(|key| (*key, None)));
            self.counts.keys -= keys.len();
        }
        for (name, (index, entry)) in users {
            let (Some(id), Some(entry)) = (self.principal(name), entry) else { continue };
            for KeyEntry { fingerprint, options } in &entry.keys {
                let of = match self.key_owners.get(fingerprint) {
                    Some(None) => None,
                    Some(Some(of)) => self.users.get(of).map(|user| Arc::clone(&user.name)),
                    None => {
                        let name = |person: &UserRoutes| Arc::clone(&person.rest.name);
                        self.table.keys.with(&Asked(fingerprint), self.shown, name)
                    }
                };
                if let Some(of) = of {
                    let of = of.as_ref().to_owned();
                    self.fault(*index, What::KeyTaken { fingerprint: *fingerprint, of });
                    continue;
                }
                let before = self.key_owners.insert(*fingerprint, Some(id));
                let fingerprint = Fingerprint(*fingerprint);
                self.takes_away |= before.is_some()
                    && self.table.options.get(&Asked(&fingerprint.0), self.shown) != *options;
                self.options.push((fingerprint, options.clone()));
            }
            self.counts.keys += entry.keys.len();
            if let Some(user) = self.users.get_mut(&id) {
                user.keys = entry.keys.iter().map(|key| key.fingerprint).collect();
            }
        }
        for (id, keys) in ids {
            for key in keys {
                let owner = self.key_owners.get(&key).copied().flatten();
                self.takes_away |= owner != Some(id);
                if owner.is_none() {
                    self.options.push((Fingerprint(key), None));
                }
            }
        }
    }

    /// Who is in which of the changed teams.
    fn join(&mut self, teams: &Changes<TeamEntry>) {
        for (name, (index, entry)) in teams {
            let name = format!("{TEAM_PREFIX}{name}");
            let before = self.writer.principals.get(name.as_str());
            let Some(team) = before.copied().or_else(|| self.principal(&name)) else { continue };
            let (mut slots, mut by_name) = (Vec::new(), Vec::new());
            if let Some(entry) = entry {
                let mut seen = HashSet::new();
                let kinds = [(&entry.members, &mut slots), (&entry.members_by_name, &mut by_name)];
                for (members, ids) in kinds {
                    for member in members {
                        let user = Some(member).filter(|name| !name.starts_with(TEAM_PREFIX));
                        let user = user.and_then(|name| self.principal(name));
                        let member = member.clone();
                        if !seen.insert(member.clone()) {
                            self.fault(*index, What::MemberTwice { member });
                        } else if let Some(user) = user {
                            ids.push(user);
                        } else {
                            self.fault(*index, What::UnknownMember { member });
                        }
                    }
                }
            }
            slots.sort_unstable();
            by_name.sort_unstable();
            self.take_members(team, slots, by_name);
        }
    }

    fn take_members(
        &mut self,
        team: PrincipalId,
        slots: Vec<PrincipalId>,
        by_name: Vec<PrincipalId>,
    ) {
        let (before, before_by_name): (&[_], &[_]) = match self.writer.known.get(&team) {
            Some(Known::Team { members, members_by_name, .. }) => (members, members_by_name),
            Some(Known::User { .. }) | None => (&[], &[]),
        };
        let is_in = |list: &[PrincipalId], id| list.binary_search(id).is_ok();
        for id in before.iter().filter(|id| !is_in(&slots, id)) {
            self.takes_away |= !is_in(&by_name, id);
            if let Some(user) = self.user(*id) {
                user.teams.retain(|id| *id != team);
            }
        }
        for id in before_by_name.iter().filter(|id| !is_in(&by_name, id)) {
            self.takes_away |= !is_in(&slots, id);
            if let Some(user) = self.user(*id) {
                user.teams_by_name.retain(|id| *id != team);
            }
        }
        for id in slots.iter().filter(|id| !is_in(before, id)) {
            if let Some(user) = self.user(*id) {
                user.teams.push(team);
                user.joined.push(team);
            }
        }
        for id in by_name.iter().filter(|id| !is_in(before_by_name, id)) {
            if let Some(user) = self.user(*id) {
                user.teams_by_name.push(team);
            }
        }
        if let Some(members) = self.teams.get_mut(&team) {
            (members.slots, members.by_name) = (slots, by_name);
        }
    }
}
