//! Small fleets for the tests of this room, and the rules once more, as plainly as
//! they can be said.

use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::{
    Address, AddressEntry, Admission, Admitted, Agent, Carriage, Carry, Change, Contents, Delta,
    EntryIndex, KeyEntry, KeyLine, NodeEntry, Slot, Snapshot, Table, TeamEntry, UserEntry, Vm,
    VmEntry, Way, Who,
};

pub(super) fn ip(last: u8) -> IpAddr {
    IpAddr::from([127, 0, 77, last])
}

pub(super) fn address(name: &str, last: u8) -> AddressEntry {
    AddressEntry {
        name: name.to_owned(),
        public: ip(last),
        public6: None,
        private: None,
        lobby: false,
        closed: false,
    }
}

pub(super) fn user(name: &str, keys: &[u8]) -> UserEntry {
    UserEntry {
        name: name.to_owned(),
        keys: keys.iter().map(|&k| KeyEntry::plain([k; 32])).collect(),
        closed: false,
    }
}

/// A key without options.
pub(super) fn key_of(key: u8) -> KeyEntry {
    KeyEntry::plain([key; 32])
}

pub(super) fn team(name: &str, members: Vec<String>) -> TeamEntry {
    TeamEntry { name: name.to_owned(), members, members_by_name: Vec::new() }
}

pub(crate) fn vm(name: &str, owner: &str, at: &str) -> VmEntry {
    let vm = Vm {
        id: name.to_owned(),
        name: name.to_owned(),
        owner: owner.to_owned(),
        endpoint: format!("{name}:22"),
        login: None,
        host_key: None,
        source_address: None,
        address: Some(at.to_owned()),
        closed: false,
        carry: Carry::Auto,
        node: None,
    };
    VmEntry::owned(vm, at)
}

/// A node whose agent has the key `key`.
pub(super) fn node(name: &str, key: u8, trusted: bool) -> NodeEntry {
    let at = (ip(key), 7022).into();
    NodeEntry { name: name.to_owned(), agent: Some(Agent { at, key: [key; 32] }), trusted }
}

pub(crate) fn contents() -> Contents {
    let members = vec!["alice".to_owned(), "bob".to_owned()];
    let mut lobby = address("lobby", 9);
    lobby.lobby = true;
    let mut contents = Contents {
        addresses: vec![address("s001", 1), address("s002", 2), lobby],
        users: vec![user("alice", &[1, 2]), user("bob", &[3]), user("carol", &[4])],
        teams: vec![team("ops", members)],
        nodes: Vec::new(),
        vms: vec![
            vm("blue", "alice", "s001"),
            vm("red", "bob", "s001"),
            vm("shared", "team:ops", "s002"),
        ],
    };
    contents.vms[0].by_name.push("carol".to_owned());
    contents.vms[1].vm.login = Some("root".to_owned());
    contents
}

pub(super) fn table(contents: Contents) -> Table {
    let table = Table::new();
    table.apply(Snapshot::new(contents).unwrap());
    table
}

pub(super) fn at(table: &Table, last: u8) -> Arc<Address> {
    table.address(ip(last)).unwrap()
}

/// As logins are judged, but for the lines of keys and everything else that is not of this room:
/// what is closed leads nowhere.
impl Table {
    pub(crate) fn admit(&self, who: Who<'_>, address: &Address, login: &str) -> Option<Admission> {
        let open = |user: &Arc<str>, way: Way<'_>| (!way.closed()).then(|| way.admission(user));
        self.ask(who, address, login, open).ok()?.0
    }

    pub(super) fn keeps(&self, who: Who<'_>, admitted: &Admitted) -> bool {
        self.hold(who, admitted, |vm| !vm.closed).is_ok_and(|(open, _)| open)
    }
}

/// An admission in the model's words.
pub(super) fn told(admission: Option<Admission>) -> String {
    match admission {
        Some(Admission::Vm(Admitted { login, vm, by_name, .. })) => {
            format!("{login}@{}{}", vm.name, if by_name { " by name" } else { "" })
        }
        Some(Admission::Lobby { user }) => format!("lobby of {user}"),
        None => "nothing".to_owned(),
    }
}

/// An admission in one word: `login@vm`, `login@vm by name`, `lobby of user`, or the refusal.
pub(super) fn tell(table: &Table, who: Who<'_>, last: u8, login: &str) -> String {
    match table.ask(who, &at(table, last), login, |user, way| way.admission(user)) {
        Ok((admission, _)) => told(Some(admission)),
        Err(refusal) => refusal.to_string(),
    }
}

/// The rules once more, as slowly and plainly as they can be said.
pub(crate) mod model {
    use super::*;

    /// The user, those whose slots are the user's, and those who count by name.
    fn principals(contents: &Contents, who: Who<'_>) -> Option<(String, [Vec<String>; 2])> {
        let user = contents.users.iter().find(|user| match who {
            Who::Key(key) => user.keys.iter().any(|entry| entry.fingerprint == key),
            Who::User(name) => user.name == name && !user.closed,
        })?;
        let prefixed = |team: &TeamEntry| format!("team:{}", team.name);
        let slots = contents.teams.iter().filter(|team| team.members.contains(&user.name));
        let mut all = [vec![user.name.clone()], vec![user.name.clone()]];
        all[0].extend(slots.map(prefixed));
        let is_in = |team: &&TeamEntry| {
            team.members.contains(&user.name) || team.members_by_name.contains(&user.name)
        };
        all[1].extend(contents.teams.iter().filter(is_in).map(prefixed));
        Some((user.name.clone(), all))
    }

    /// What the line of a key says.
    pub(in super::super) fn line(contents: &Contents, key: [u8; 32]) -> KeyLine {
        let keys = contents.users.iter().flat_map(|user| &user.keys);
        let found = keys.into_iter().find(|entry| entry.fingerprint == key);
        found.map_or(KeyLine::Unknown, |entry| {
            entry.options.clone().map_or(KeyLine::Plain, KeyLine::Options)
        })
    }

    /// What carries a VM's sessions.
    pub(in super::super) fn carried(contents: &Contents, vm: &Vm) -> String {
        let node = contents.nodes.iter().find(|node| vm.node.as_deref() == Some(&*node.name));
        let trusted = node.filter(|node| node.trusted).and_then(|node| node.agent);
        match (vm.carry, trusted, node) {
            (Carry::Auto | Carry::Handoff, Some(agent), Some(node)) => {
                format!("handoff to {} at {}", node.name, agent.at)
            }
            (Carry::Auto | Carry::Relay, _, _) => "relay".to_owned(),
            (Carry::Handoff, _, _) => panic!("{} is to be handed off", vm.name),
        }
    }

    pub(crate) fn admit(contents: &Contents, who: Who<'_>, address: &str, login: &str) -> String {
        let Some((user, [slots, by_name])) = principals(contents, who) else {
            return "nothing".to_owned();
        };
        let told = |vm: &Vm, login: &str, how: &str| {
            let login = vm.login.clone().unwrap_or(login.to_owned());
            if login.is_empty() {
                "nothing".to_owned()
            } else {
                format!("{login}@{}{how}", vm.name)
            }
        };
        if let Some(plus) = login.rfind('+') {
            let (login, name) = (&login[..plus], &login[plus + 1..]);
            let may = |entry: &&VmEntry| {
                let mut allowed = vec![entry.vm.owner.clone()];
                allowed.extend(entry.by_name.clone());
                allowed.extend(entry.slots.iter().map(|slot| slot.principal.clone()));
                entry.vm.name == name && by_name.iter().any(|p| allowed.contains(p))
            };
            let found = contents.vms.iter().find(may);
            return found.map_or("nothing".to_owned(), |entry| told(&entry.vm, login, " by name"));
        }
        if contents.addresses.iter().any(|a| a.name == address && a.lobby) {
            return format!("lobby of {user}");
        }
        let here = |slot: &Slot| slot.address == address && slots.contains(&slot.principal);
        let found: Vec<&VmEntry> =
            contents.vms.iter().filter(|entry| entry.slots.iter().any(here)).collect();
        assert!(found.len() <= 1, "{user} has {} VMs at {address}", found.len());
        found.first().map_or("nothing".to_owned(), |entry| told(&entry.vm, login, ""))
    }
}

/// What carries a VM's sessions, in a word.
pub(super) fn carried(table: &Table, vm: &Vm) -> String {
    match table.carriage(vm) {
        None => "nothing".to_owned(),
        Some(Carriage::Relay) => "relay".to_owned(),
        Some(Carriage::Handoff(node)) => format!("handoff to {} at {}", node.name, node.agent),
    }
}

/// Every third key has options.
pub(super) fn key_entry(key: u8) -> KeyEntry {
    let options = key.is_multiple_of(3).then(|| Arc::from(format!("from=\"192.0.2.{key}\"")));
    KeyEntry { fingerprint: [key; 32], options }
}

/// Small enough that names, keys and addresses collide all the time.
pub(crate) fn arbitrary() -> impl Strategy<Value = Contents> {
    let principal = || {
        prop_oneof![3 => (0..4).prop_map(|n| format!("u{n}")),
                                   1 => (0..2).prop_map(|n| format!("team:t{n}"))]
    };
    let slot =
        (principal(), 0..4).prop_map(|(principal, n)| Slot { principal, address: format!("s{n}") });
    // Of each user: outside, with the slots, by name only.
    let members = prop::collection::vec(0..3_u8, 4);
    let teams = prop::collection::vec(members, 2).prop_map(|teams| {
        let entry = |(n, members): (usize, Vec<u8>)| {
            let those = |how: u8| {
                let all = members.iter().enumerate().filter(move |(_, is)| **is == how);
                all.map(|(n, _)| format!("u{n}")).collect()
            };
            TeamEntry { name: format!("t{n}"), members: those(1), members_by_name: those(2) }
        };
        teams.into_iter().enumerate().map(entry).collect::<Vec<_>>()
    });
    let users = prop::collection::vec(0..4_usize, 6).prop_map(|owners| {
        let mut users: Vec<UserEntry> = (0..4).map(|n| user(&format!("u{n}"), &[])).collect();
        for (key, owner) in (0..).zip(owners) {
            users[owner].keys.push(key_entry(key));
        }
        users
    });
    let one = (
        principal(),
        prop::collection::vec(slot, 0..3),
        prop::collection::vec(principal(), 0..2),
        prop::option::of(Just("root".to_owned())),
        lying(),
    );
    let vms = prop::collection::vec(one, 0..4).prop_map(|all| {
        let entry = |(n, (owner, slots, by_name, login, (node, carry)))| {
            let plain: Vm = vm(&format!("v{n}"), String::as_str(&owner), "s0").vm;
            VmEntry { vm: Vm { login, carry, node, ..plain }, slots, by_name }
        };
        all.into_iter().enumerate().map(entry).collect::<Vec<_>>()
    });
    let addresses = (0..3_u8, any::<bool>(), any::<bool>()).prop_map(|(shift, lobby, closed)| {
        let mut all: Vec<AddressEntry> =
            (0..4).map(|n| address(&format!("s{n}"), 1 + (n + shift) % 4)).collect();
        all[3].lobby = lobby;
        all[0].closed = closed;
        all
    });
    let nodes = prop::collection::vec(any::<(bool, bool)>(), 3).prop_map(|nodes| {
        let all = (1..).zip(nodes).map(|(n, (plain, trusted))| {
            let node = node(&format!("n{n}"), n, trusted);
            NodeEntry { agent: node.agent.filter(|_| !plain), ..node }
        });
        all.collect::<Vec<_>>()
    });
    (addresses, users, teams, nodes, vms).prop_map(|(addresses, users, teams, nodes, vms)| {
        Contents { addresses, users, teams, nodes, vms }
    })
}

/// What a VM says of its node.
pub(super) fn lying() -> impl Strategy<Value = (Option<Arc<str>>, Carry)> {
    let node = prop::option::of((1..5).prop_map(|n| Arc::from(format!("n{n}"))));
    (node, prop_oneof![3 => Just(Carry::Auto), 1 => Just(Carry::Relay), 1 => Just(Carry::Handoff)])
}

/// Contents, with the VMs that would contradict the rest taken out.
pub(crate) fn sound(mut contents: Contents) -> (Contents, Snapshot) {
    loop {
        match Snapshot::new(contents.clone()) {
            Ok(snapshot) => return (contents, snapshot),
            Err(found) => {
                let EntryIndex::Vm(index) = found[0].at else { panic!("{}", found[0]) };
                contents.vms.remove(index);
            }
        }
    }
}

/// The same contents, whatever the order.
pub(crate) fn sorted(mut contents: Contents) -> Contents {
    contents.addresses.sort_by(|a, b| a.name.cmp(&b.name));
    contents.users.sort_by(|a, b| a.name.cmp(&b.name));
    contents.teams.sort_by(|a, b| a.name.cmp(&b.name));
    contents.nodes.sort_by(|a, b| a.name.cmp(&b.name));
    contents.vms.sort_by(|a, b| a.vm.name.cmp(&b.vm.name));
    contents
}

fn put<T: Clone>(all: &mut Vec<T>, entry: &T, name: impl Fn(&T) -> String) {
    take(all, &name(entry), &name);
    all.push(entry.clone());
}

fn take<T>(all: &mut Vec<T>, gone: &str, name: &impl Fn(&T) -> String) {
    all.retain(|it| name(it) != gone);
}

/// Entry by entry, as plainly as can be.
pub(crate) fn apply(contents: &mut Contents, delta: &Delta) {
    let Contents { addresses, users, teams, nodes, vms } = contents;
    for change in &delta.changes {
        match change {
            Change::PutAddress(it) => put(addresses, it, |it| it.name.clone()),
            Change::PutUser(it) => put(users, it, |it| it.name.clone()),
            Change::PutTeam(it) => put(teams, it, |it| it.name.clone()),
            Change::PutNode(it) => put(nodes, it, |it| it.name.clone()),
            Change::PutVm(it) => put(vms, it, |it| it.vm.name.clone()),
            Change::RemoveAddress(name) => take(addresses, name, &|it| it.name.clone()),
            Change::RemoveUser(name) => take(users, name, &|it| it.name.clone()),
            Change::RemoveTeam(name) => take(teams, name, &|it| it.name.clone()),
            Change::RemoveNode(name) => take(nodes, name, &|it| it.name.clone()),
            Change::RemoveVm(name) => take(vms, name, &|it| it.vm.name.clone()),
        }
    }
}
