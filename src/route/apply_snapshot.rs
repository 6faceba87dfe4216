//! Makes the table equal to a snapshot.

use std::collections::{HashMap, HashSet};
use std::hash::RandomState;
use std::net::IpAddr;
use std::sync::Arc;

use super::contents::columns;
use super::hash::Fingerprint;
use super::ids::{AddressId, PrincipalId};
use super::node::Host;
use super::snapshot::{Resolved, Snapshot, TeamIndex, TeamsOf};
use super::table::{Marks, Table};
use super::user_routes::{Named, Reaching, Rest, Team, UserRoutes, VmId, VmName};
use super::writer::{Known, KnownAddress, KnownNode, Writer};
use super::{
    Address, AddressEntry, Carry, Counts, KeyEntry, NodeEntry, TEAM_PREFIX, TeamEntry, UserEntry,
};

impl Table {
    /// Makes the table equal to `snapshot`, for every reader at one instant. Takes time and memory
    /// in proportion to the snapshot: not for a shard's thread.
    pub fn apply(&self, snapshot: Snapshot) {
        // A writer that panicked published nothing, and what it marked is overwritten here. Of what
        // it noted for itself nothing is believed but which identities may have been given out.
        let mut writer = self.writer.lock().unwrap_or_else(|poisoned| {
            let mut writer = poisoned.into_inner();
            *writer = Writer { given: writer.given, ..Writer::default() };
            self.writer.clear_poison();
            writer
        });
        let shown = self.revision();
        let wanted = self.wanted(&mut writer, snapshot, shown);
        let marks = Marks {
            addresses: self.addresses.mark_all(wanted.addresses, shown),
            places: self.places.mark_all(wanted.places, shown),
            address_names: self.address_names.mark_all(wanted.address_names, shown),
            keys: self.keys.mark_all(wanted.keys, shown),
            options: self.options.mark_all(wanted.options, shown),
            users: self.users.mark_all(wanted.users, shown),
            teams: self.teams.mark_all(wanted.teams, shown),
            nodes: self.nodes.mark_all(wanted.nodes, shown),
            names: self.names.mark_all(wanted.names, shown),
            retired: wanted.retired,
        };
        let counts = wanted.writer.counts;
        *writer = wanted.writer;
        self.publish(marks, counts);
    }
}

type Hosts = Vec<(Arc<str>, Host)>;

/// What the maps must hold for a snapshot. No key stands twice: [`Snapshot::new`] saw to it.
struct TargetEntries {
    addresses: Vec<(IpAddr, Arc<Address>)>,
    places: Vec<(AddressId, Arc<Address>)>,
    address_names: Vec<(String, Arc<Address>)>,
    keys: Vec<(Fingerprint, UserRoutes)>,
    options: Vec<(Fingerprint, Arc<str>)>,
    users: Vec<(Arc<str>, UserRoutes)>,
    teams: Vec<(PrincipalId, Team)>,
    nodes: Hosts,
    names: Vec<(VmName, Named)>,
    retired: Vec<Arc<Address>>,
    writer: Writer,
}

impl Table {
    fn wanted(&self, writer: &mut Writer, snapshot: Snapshot, shown: u64) -> TargetEntries {
        let Snapshot { addresses, users, teams, teams_of, nodes, vms } = snapshot;
        let (nodes, hosts) = writer.host(&nodes, &vms);
        let mut held = writer.place(&addresses);
        let principals = writer.name(&users, &teams);
        let mut reaching = vec![Reaching::default(); principals.len()];
        let names = self.enter(vms, &mut held, &principals, &mut reaching, shown);
        let slots = held.iter().map(|held| held.slots).sum();

        let mut reached = principals.iter().zip(reaching.into_iter().map(Reaching::finish));
        let mut keys = Vec::with_capacity(users.iter().map(|user| user.keys.len()).sum());
        let mut options = Vec::new();
        let mut people = Vec::with_capacity(users.len());
        let mut known = HashMap::with_capacity(principals.len());
        let team_ids = principals.get(users.len()..).unwrap_or_default();
        for ((user, of), ((name, own), (near, far))) in
            users.into_iter().zip(&teams_of).zip(&mut reached)
        {
            let (teams, teams_by_name) = (ids(&of.slots, team_ids), ids(&of.by_name, team_ids));
            let (name, own, closed) = (Arc::clone(name), *own, user.closed);
            let rest = Rest { name: Arc::clone(&name), own, far, teams, teams_by_name, closed };
            let person = UserRoutes { near, rest: Arc::new(rest) };
            let fingerprints = user.keys.iter().map(|key| key.fingerprint).collect();
            let known_as = Arc::clone(&name);
            known.insert(own, Known::User { name: known_as, keys: fingerprints });
            for KeyEntry { fingerprint, options: text } in user.keys {
                keys.push((Fingerprint(fingerprint), person.clone()));
                options.extend(text.map(|text| (Fingerprint(fingerprint), text)));
            }
            people.push((name, person));
        }
        let by_team: Vec<_> = reached
            .map(|((_, id), (near, far))| (*id, Team { near, far: Arc::new(far) }))
            .collect();
        note_members(&mut known, &teams_of, &principals, team_ids);

        let by_ip = held.iter().flat_map(|KnownAddress { address, .. }| {
            let ips = columns(address.public, address.public6, address.private);
            ips.map(|(_, ip)| (ip, Arc::clone(address)))
        });
        let by_ip = by_ip.collect();
        let all = || held.iter().map(|held| Arc::clone(&held.address));
        let counts = Counts {
            users: people.len(),
            keys: keys.len(),
            vms: names.len(),
            addresses: held.len(),
            slots,
        };
        let (places, address_names) = (
            all().map(|address| (address.id, address)).collect(),
            all().map(|address| (address.name.clone(), address)).collect(),
        );
        let mut ids = HashSet::with_capacity_and_hasher(names.len(), RandomState::new());
        ids.extend(names.iter().map(|(VmName(vm), _)| VmId(Arc::clone(vm))));
        let addresses: HashMap<_, _> =
            held.into_iter().map(|held| (held.address.name.clone(), held)).collect();
        let retired = writer.retired(&addresses);
        let principals = principals.into_iter().collect();
        let given = writer.given;
        let writer = Writer { principals, known, addresses, nodes, ids, given, counts };
        TargetEntries {
            addresses: by_ip,
            places,
            address_names,
            keys,
            options,
            users: people,
            teams: by_team,
            nodes: hosts,
            names,
            retired,
            writer,
        }
    }

    /// Gives every VM to whom may enter it.
    #[expect(clippy::indexing_slicing, reason = "Snapshot::new resolved every index")]
    fn enter(
        &self,
        vms: Vec<Resolved>,
        addresses: &mut [KnownAddress],
        principals: &[(Arc<str>, PrincipalId)],
        reaching: &mut [Reaching],
        shown: u64,
    ) -> Vec<(VmName, Named)> {
        let mut names = Vec::with_capacity(vms.len());
        for Resolved { vm, slots, address, by_name } in vms {
            // An unchanged VM stays the one that sessions hold, in memory once.
            let same = |now: &Named| (*now.vm == vm).then(|| Arc::clone(&now.vm));
            let now = self.names.with(vm.name.as_str(), shown, same).flatten();
            let vm = now.unwrap_or_else(|| Arc::new(vm));
            if let Some(address) = address {
                addresses[address].pointing += 1;
            }
            for &(principal, address) in &slots {
                addresses[address].slots += 1;
                let slot = (addresses[address].address.id, Arc::clone(&vm));
                reaching[principal].slots.push(slot);
            }
            let slotless = |principal: &&usize| slots.iter().all(|(other, _)| other != *principal);
            for &principal in by_name.iter().filter(slotless) {
                reaching[principal].by_name.push(Arc::clone(&vm));
            }
            let allowed = by_name.into_iter().map(|principal| principals[principal].1).collect();
            names.push((VmName(Arc::clone(&vm)), Named::new(vm, allowed)));
        }
        names
    }
}

/// Sorted, whatever the order of the teams.
fn ids(teams: &[TeamIndex], team_ids: &[(Arc<str>, PrincipalId)]) -> Box<[PrincipalId]> {
    let ids = teams.iter().filter_map(|&team| team_ids.get(team)).map(|(_, id)| *id);
    let mut ids: Box<[_]> = ids.collect();
    ids.sort_unstable();
    ids
}

/// Who is in which team, the other way round.
fn note_members(
    known: &mut HashMap<PrincipalId, Known>,
    teams_of: &[TeamsOf],
    principals: &[(Arc<str>, PrincipalId)],
    team_ids: &[(Arc<str>, PrincipalId)],
) {
    let mut members = vec![(Vec::new(), Vec::new()); team_ids.len()];
    for (of, (_, user)) in teams_of.iter().zip(principals) {
        for &team in &of.slots {
            members.get_mut(team).into_iter().for_each(|(slots, _)| slots.push(*user));
        }
        for &team in &of.by_name {
            members.get_mut(team).into_iter().for_each(|(_, by_name)| by_name.push(*user));
        }
    }
    for ((name, id), (mut members, mut members_by_name)) in team_ids.iter().zip(members) {
        members.sort_unstable();
        members_by_name.sort_unstable();
        let team = Known::Team {
            name: Arc::clone(name),
            members: members.into(),
            members_by_name: members_by_name.into(),
        };
        known.insert(*id, team);
    }
}

impl Writer {
    fn place(&mut self, entries: &[AddressEntry]) -> Vec<KnownAddress> {
        let place = |entry: &AddressEntry| {
            let now = self.addresses.get(&entry.name).map(|held| &held.address);
            KnownAddress { address: self.given.address(entry, now), slots: 0, pointing: 0 }
        };
        entries.iter().map(place).collect()
    }

    /// In whose slots nothing is once the pool is this.
    fn retired(&self, addresses: &HashMap<String, KnownAddress>) -> Vec<Arc<Address>> {
        let retired = self.addresses.values().filter(|before| {
            let now = addresses.get(&before.address.name);
            now.is_none_or(|now| now.address.dialled() != before.address.dialled())
        });
        retired.map(|before| Arc::clone(&before.address)).collect()
    }

    /// The nodes of the snapshot with what lies on each, and as the map holds them.
    fn host(
        &self,
        entries: &[NodeEntry],
        vms: &[Resolved],
    ) -> (HashMap<Arc<str>, KnownNode>, Hosts) {
        let held = |entry: &NodeEntry| {
            let now = self.nodes.get_key_value(entry.name.as_str());
            let name = now.map_or_else(|| entry.name.as_str().into(), |(name, _)| Arc::clone(name));
            let host = Host::of(entry, now.map(|(_, held)| &held.host));
            (name, KnownNode { host, vms: 0, handoffs: 0 })
        };
        let mut nodes: HashMap<_, _> = entries.iter().map(held).collect();
        for Resolved { vm, .. } in vms {
            if let Some(held) = vm.node.as_ref().and_then(|name| nodes.get_mut(name)) {
                held.vms += 1;
                held.handoffs += usize::from(vm.carry == Carry::Handoff);
            }
        }
        let by_name = |(name, held): (&Arc<str>, &KnownNode)| (Arc::clone(name), held.host.clone());
        let hosts = nodes.iter().map(by_name).collect();
        (nodes, hosts)
    }

    /// One identity for each principal of the snapshot, users first.
    fn name(&mut self, users: &[UserEntry], teams: &[TeamEntry]) -> Vec<(Arc<str>, PrincipalId)> {
        let mut all: Vec<(Arc<str>, PrincipalId)> = Vec::with_capacity(users.len() + teams.len());
        let mut named = |name: &str| {
            let now = self.principals.get_key_value(name);
            let now = now.map(|(name, id)| (Arc::clone(name), *id));
            all.push(now.unwrap_or_else(|| (Arc::from(name), self.given.principal())));
        };
        for user in users {
            named(&user.name);
        }
        for team in teams {
            named(&format!("{TEAM_PREFIX}{}", team.name));
        }
        all
    }
}
