//! Tests of `delta` and of the draft behind it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use Change::{
    PutAddress, PutNode, PutTeam, PutUser, PutVm, RemoveAddress, RemoveNode, RemoveTeam,
    RemoveUser, RemoveVm,
};
use proptest::prelude::*;

use super::*;
use crate::route::testing::*;
use crate::route::{
    AddressEntry, Admission, Admitted, Change, Contents, NodeEntry, Slot, Snapshot, TEAMS_MAX,
    TeamEntry, UserEntry, VmEntry, Who,
};

fn change(table: &Table, changes: Vec<Change>) -> Changed {
    table.change(Delta { changes }).unwrap()
}

fn faults(table: &Table, changes: Vec<Change>) -> Vec<String> {
    let (revision, noted) = (table.revision(), table.writer.lock().unwrap().clone());
    let found = table.change(Delta { changes }).unwrap_err();
    assert_eq!(table.revision(), revision);
    assert!(*table.writer.lock().unwrap() == noted);
    found.iter().map(|c| format!("{:?}: {c}", c.at)).collect()
}

fn named(name: &str) -> String {
    name.to_owned()
}

const ALICE: Who<'_> = Who::Key([1; 32]);
const BOB: Who<'_> = Who::Key([3; 32]);

#[test]
fn a_vm_comes_moves_and_goes() {
    let table = table(contents());
    change(&table, vec![PutVm(vm("green", "alice", "s002")), PutTeam(team("ops", vec![]))]);
    assert_eq!(tell(&table, ALICE, 2, "me"), "me@green");
    let moved = change(&table, vec![PutVm(vm("green", "bob", "s002"))]);
    assert!(moved.takes_away);
    assert_eq!(tell(&table, ALICE, 2, "me"), "no VM at this address");
    assert_eq!(tell(&table, ALICE, 2, "me+green"), "not allowed to enter that VM");
    assert_eq!(tell(&table, BOB, 2, "me"), "me@green");
    let gone = change(&table, vec![RemoveVm(named("green")), RemoveVm(named("never-was"))]);
    assert_eq!((gone.revision, gone.takes_away), (table.revision(), true));
    assert_eq!(tell(&table, BOB, 2, "me"), "no VM at this address");
    assert_eq!(tell(&table, BOB, 2, "me+green"), "no VM of that name");
}

#[test]
fn what_changes_nothing_is_no_revision() {
    let table = table(contents());
    let before = table.revision();
    let all = contents();
    let same = all.vms.into_iter().map(PutVm).chain(all.users.into_iter().map(PutUser));
    let same = same.chain(all.teams.into_iter().map(PutTeam));
    let same = same.chain(all.addresses.into_iter().map(PutAddress)).collect();
    let none = Changed { revision: before, takes_away: false };
    assert_eq!(change(&table, same), none);
    assert_eq!(change(&table, vec![RemoveTeam(named("none")), RemoveVm(named("s001"))]), none);
}

#[test]
fn only_what_may_have_cost_somebody_a_right_says_so() {
    let with = |changes: Vec<Change>| change(&table(contents()), changes).takes_away;
    let blue = || vm("blue", "alice", "s001");
    let by_name = |entry: VmEntry| VmEntry { by_name: vec![named("carol")], ..entry };
    assert!(!with(vec![PutVm(vm("green", "carol", "s002")), PutTeam(team("new", vec![]))]));
    assert!(!with(vec![PutUser(user("dave", &[7])), PutUser(user("carol", &[4, 8]))]));
    // Another endpoint, another slot for the same people, another name.
    let mut moved = by_name(vm("blue", "alice", "s003"));
    moved.vm.endpoint = named("elsewhere:22");
    let quit = || PutTeam(team("ops", vec![named("bob")]));
    assert!(!with(vec![PutVm(by_name(vm("blue", "alice", "s001")))]));
    assert!(!with(vec![PutAddress(address("s003", 3)), PutVm(moved)]));
    let mut renamed = by_name(vm("azure", "alice", "s001"));
    renamed.vm.id = named("blue");
    assert!(!with(vec![RemoveVm(named("blue")), PutVm(renamed.clone())]));
    let members = vec![named("alice"), named("bob"), named("carol")];
    assert!(!with(vec![PutTeam(team("ops", members))]));
    // Carol loses it.
    assert!(with(vec![PutVm(blue())]));
    renamed.by_name.clear();
    assert!(with(vec![RemoveVm(named("blue")), PutVm(renamed)]));
    assert!(with(vec![quit()]));
    assert!(with(vec![PutUser(user("alice", &[1]))]));
    assert!(with(vec![PutUser(user("bob", &[2, 3])), PutUser(user("alice", &[1]))]));
    assert!(with(vec![RemoveUser(named("carol")), PutVm(blue())]));
    assert!(with(vec![RemoveTeam(named("ops")), RemoveVm(named("shared"))]));
    // Whoever is at a lobby has nothing there but the lobby.
    let lobby = |last, closed| AddressEntry { lobby: true, closed, ..address("lobby", last) };
    assert!(!with(vec![PutAddress(lobby(9, true))]));
    assert!(with(vec![PutAddress(lobby(8, false))]));
    assert!(with(vec![RemoveAddress(named("lobby"))]));
}

#[test]
fn a_renamed_vm_is_found_by_its_new_name_and_keeps_its_sessions() {
    let table = table(contents());
    let Some(Admission::Vm(admitted)) = table.admit(ALICE, &at(&table, 1), "me") else { panic!() };
    let mut renamed = vm("azure", "alice", "s001");
    renamed.vm.id = named("blue");
    // Somebody else's VM has the old name at once.
    let mut other = vm("blue", "bob", "s002");
    other.vm.id = named("second");
    change(&table, vec![PutVm(renamed), PutTeam(team("ops", vec![])), PutVm(other)]);
    assert_eq!(tell(&table, ALICE, 1, "me"), "me@azure");
    assert_eq!(tell(&table, BOB, 2, "me"), "me@blue");
    assert!(table.keeps(ALICE, &admitted));
    assert!(!table.keeps(BOB, &admitted));
}

#[test]
fn an_address_that_gets_another_ip_keeps_its_slots_and_loses_who_dialled_it_before() {
    let table = table(contents());
    let dialled = at(&table, 1);
    change(&table, vec![PutAddress(address("s001", 5))]);
    assert!(table.lookup(ALICE, &dialled, |_| ()).is_none());
    assert_eq!(table.address(ip(1)), None);
    assert_eq!(tell(&table, ALICE, 5, "me"), "me@blue");
    // Two change places in one step.
    let dialled = (at(&table, 5), at(&table, 2));
    change(&table, vec![PutAddress(address("s001", 2)), PutAddress(address("s002", 5))]);
    assert_eq!(tell(&table, ALICE, 2, "me"), "me@blue");
    assert_eq!(tell(&table, ALICE, 5, "me"), "me@shared");
    assert!(table.lookup(ALICE, &dialled.0, |_| ()).is_none());
    assert!(table.lookup(ALICE, &dialled.1, |_| ()).is_none());
    // Closed, it is only not dialled any more.
    let dialled = at(&table, 2);
    let closed = AddressEntry { closed: true, ..address("s001", 2) };
    change(&table, vec![PutAddress(closed)]);
    assert_eq!(table.address(ip(2)), None);
    assert!(table.lookup(ALICE, &dialled, |_| ()).is_some());
}

#[test]
fn keys_change_hands_in_one_step_with_what_their_lines_say() {
    let table = table(contents());
    let mut alice = user("alice", &[2]);
    alice.keys[0].options = Some(Arc::from("restrict"));
    change(&table, vec![PutUser(alice), PutUser(user("bob", &[1, 3]))]);
    assert_eq!(tell(&table, ALICE, 1, "me"), "root@red");
    assert_eq!(table.key_options(&[1; 32]), crate::route::KeyLine::Plain);
    let options = crate::route::KeyLine::Options(Arc::from("restrict"));
    assert_eq!(table.key_options(&[2; 32]), options);
    assert!(change(&table, vec![PutUser(user("alice", &[2]))]).takes_away);
    assert_eq!(table.key_options(&[2; 32]), crate::route::KeyLine::Plain);
    change(&table, vec![PutUser(user("alice", &[]))]);
    assert_eq!(table.key_options(&[2; 32]), crate::route::KeyLine::Unknown);
}

#[test]
fn contradictions_refuse_the_whole_delta_and_change_nothing() {
    let table = table(contents());
    let good = || PutUser(user("erin", &[]));
    let lobby = AddressEntry { lobby: true, ..address("s002", 2) };
    let full = |n: usize| PutTeam(team(&format!("t{n}"), vec![named("alice")]));
    let too_many: Vec<_> = (0..TEAMS_MAX).map(full).collect();
    let mut twin = vm("twin", "carol", "s002");
    twin.vm.id = named("red");
    let mut odd = vm("odd", "carol", "s002");
    (odd.vm.id, odd.vm.address) = (named("a,b"), Some(named("s008")));
    let cases: Vec<(Vec<Change>, &[&str])> = vec![
        (vec![PutVm(vm("s001", "carol", "s002"))], &["name `s001` is already taken by an address"]),
        (vec![PutAddress(address("blue", 7))], &["name `blue` is already taken by a VM"]),
        (vec![PutVm(vm("Up", "carol", "s002"))], &["name `Up` is not a DNS label"]),
        (vec![PutUser(user("-", &[]))], &["name `-` is not a DNS label"]),
        (vec![PutVm(vm("ns", "carol", "s002"))], &["name `ns` is reserved"]),
        (
            vec![PutVm(vm("v", "nobody", "s009"))],
            &[
                "address `s009` is not known",
                "owner `nobody` is not known",
                "principal `nobody` is not known",
            ],
        ),
        (vec![PutVm(vm("v", "carol", "lobby"))], &["address `lobby` is a lobby"]),
        (vec![PutAddress(lobby)], &["address `s002` is a lobby"]),
        (vec![PutVm(twin)], &["id `red` is already another VM's"]),
        (
            vec![PutVm(odd)],
            &["id `a,b` is not 1 to 63 letters, digits, - and _", "address `s008` is not known"],
        ),
        (
            vec![PutAddress(address("s003", 1))],
            &["public 127.0.77.1 is already public of address `s001`"],
        ),
        (
            vec![PutUser(user("carol", &[1]))],
            &["key 0101010101010101 is already a key of user `alice`"],
        ),
        (
            vec![PutUser(user("dave", &[9, 9]))],
            &["key 0909090909090909 is already a key of user `dave`"],
        ),
        (
            vec![PutTeam(team("ops", vec![named("team:ops"), named("bob"), named("bob")]))],
            &["member `team:ops` is not a user", "member `bob` is named twice"],
        ),
        (vec![RemoveUser(named("carol"))], &["`carol` is still named by VM `blue`"]),
        (
            vec![RemoveUser(named("bob")), RemoveVm(named("red"))],
            &["`bob` is still named by team `ops`"],
        ),
        (vec![RemoveTeam(named("ops"))], &["`ops` is still named by VM `shared`"]),
        (
            vec![RemoveAddress(named("s001"))],
            &["`s001` is still named by slots and VMs, 4 of them"],
        ),
        (too_many, &["user `alice` is in 65 teams, more than 64"]),
        // A slot of the same user; of a member of the team; of a team that somebody joins.
        (
            vec![PutVm(vm("v", "alice", "s001"))],
            &["VM `blue` already answers to `alice` at address `s001`"],
        ),
        (
            vec![PutVm(vm("v", "team:ops", "s002"))],
            &["VM `shared` already answers to `team:ops` at address `s002`"],
        ),
        (
            vec![PutVm(vm("v", "bob", "s002"))],
            &["VM `shared` already answers to `bob` at address `s002`"],
        ),
    ];
    for (bad, expected) in cases {
        let at = bad.len() - 1;
        let told = faults(&table, bad.into_iter().chain([good()]).collect());
        let told: Vec<_> = told.iter().map(|text| text.split_once(": ").unwrap().1).collect();
        assert_eq!(told, expected, "{at}");
        assert_eq!(table.user(Who::User("erin")), None);
    }
    change(&table, vec![good(), PutVm(vm("green", "carol", "s002"))]);
    let joins = PutTeam(team("ops", ["alice", "bob", "carol"].map(named).to_vec()));
    assert_eq!(
        faults(&table, vec![RemoveVm(named("never-was")), joins]),
        ["Change(1): VM `green` already answers to `carol` at address `s002`"]
    );
}

/// What contents become: entries by kind and name.
#[derive(Clone, Default)]
struct World {
    addresses: BTreeMap<String, AddressEntry>,
    users: BTreeMap<String, UserEntry>,
    teams: BTreeMap<String, TeamEntry>,
    nodes: BTreeMap<String, NodeEntry>,
    vms: BTreeMap<String, VmEntry>,
}

impl World {
    fn take(&mut self, changes: &[Change]) {
        for change in changes.iter().cloned() {
            match change {
                PutAddress(entry) => drop(self.addresses.insert(entry.name.clone(), entry)),
                RemoveAddress(name) => drop(self.addresses.remove(&name)),
                PutUser(entry) => drop(self.users.insert(entry.name.clone(), entry)),
                RemoveUser(name) => drop(self.users.remove(&name)),
                PutTeam(entry) => drop(self.teams.insert(entry.name.clone(), entry)),
                RemoveTeam(name) => drop(self.teams.remove(&name)),
                PutNode(entry) => drop(self.nodes.insert(entry.name.clone(), entry)),
                RemoveNode(name) => drop(self.nodes.remove(&name)),
                PutVm(entry) => drop(self.vms.insert(entry.vm.name.clone(), entry)),
                RemoveVm(name) => drop(self.vms.remove(&name)),
            }
        }
    }

    fn contents(&self) -> Contents {
        Contents {
            addresses: self.addresses.values().cloned().collect(),
            users: self.users.values().cloned().collect(),
            teams: self.teams.values().cloned().collect(),
            nodes: self.nodes.values().cloned().collect(),
            vms: self.vms.values().cloned().collect(),
        }
    }
}

/// So few names, keys, ids and addresses that changes meet all the time.
fn arbitrary_change() -> impl Strategy<Value = Change> {
    let numbered =
        |prefix: &'static str, count: u8| (0..count).prop_map(move |n| format!("{prefix}{n}"));
    let principal = move || prop_oneof![3 => numbered("u", 4), 1 => numbered("team:t", 2)];
    let slot = (principal(), numbered("s", 5))
        .prop_map(|(principal, address)| Slot { principal, address });
    let put_vm = (
        (numbered("v", 5), numbered("i", 6), principal()),
        prop::collection::vec(slot, 0..3),
        prop::collection::vec(principal(), 0..2),
        prop::option::of(numbered("s", 5)),
        any::<bool>(),
        lying(),
    );
    let put_vm = put_vm.prop_map(|((name, id, owner), slots, by_name, address, login, lies)| {
        let mut plain = vm(&name, &owner, "s0").vm;
        (plain.id, plain.address) = (id, address);
        plain.login = login.then(|| "root".to_owned());
        (plain.node, plain.carry) = lies;
        PutVm(VmEntry { vm: plain, slots, by_name })
    });
    let put_user = (numbered("u", 4), prop::collection::btree_set(0..6_u8, 0..3), any::<bool>());
    let put_user = put_user.prop_map(|(name, keys, plain)| {
        let key = |key: u8| if plain { key_of(key) } else { key_entry(key) };
        let closed = keys.is_empty() && plain;
        PutUser(UserEntry { name, keys: keys.into_iter().map(key).collect(), closed })
    });
    let members = || prop::collection::btree_set(numbered("u", 4), 0..3);
    let put_team = (numbered("t", 2), members(), members(), any::<bool>());
    let put_team = put_team.prop_map(|(name, members, by_name, both)| {
        let slotless = |name: &String| both && !members.contains(name);
        let members_by_name = by_name.into_iter().filter(slotless).collect();
        PutTeam(TeamEntry { name, members: members.iter().cloned().collect(), members_by_name })
    });
    let put_address = (numbered("s", 5), 1..9_u8, prop::option::of(1..9_u8), 0..12_u8);
    let put_address = put_address.prop_map(|(name, public, private, flags)| {
        let private = private.filter(|private| *private != public).map(ip);
        let entry = address(&name, public);
        PutAddress(AddressEntry { private, lobby: flags == 0, closed: flags == 1, ..entry })
    });
    let put_node = (numbered("n", 5), 1..5_u8, any::<bool>(), 0..3_u8);
    let put_node = put_node.prop_map(|(name, key, trusted, plain)| {
        let entry = node(&name, key, trusted);
        PutNode(NodeEntry { agent: entry.agent.filter(|_| plain > 0), ..entry })
    });
    prop_oneof![
        2 => put_node,
        1 => numbered("n", 5).prop_map(RemoveNode),
        8 => put_vm,
        3 => numbered("v", 5).prop_map(RemoveVm),
        4 => put_user,
        1 => numbered("u", 4).prop_map(RemoveUser),
        3 => put_team,
        1 => numbered("t", 2).prop_map(RemoveTeam),
        3 => put_address,
        1 => numbered("s", 5).prop_map(RemoveAddress),
    ]
}

/// Every way in that there is, as it was found.
fn sessions(table: &Table, contents: &Contents) -> Vec<(u8, Admitted)> {
    let mut all = Vec::new();
    for entry in &contents.addresses {
        let place = table.address_named(&entry.name).unwrap();
        for key in 0..6 {
            for login in ["me", "me+v0", "me+v1", "me+v2", "me+v3", "me+v4"] {
                if let Some(Admission::Vm(admitted)) =
                    table.admit(Who::Key([key; 32]), &place, login)
                {
                    all.push((key, admitted));
                }
            }
        }
    }
    all
}

fn shown(table: &Table, user: &str) -> Vec<(String, Option<String>)> {
    let row = |(vm, at): (Arc<crate::route::Vm>, Option<Arc<crate::route::Address>>)| {
        (vm.id.clone(), at.map(|at| at.name.clone()))
    };
    table.visible(user).into_iter().map(row).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// After every delta the table answers as one that was made from the end state alone, holds
    /// to the last entry what a snapshot of it would make it hold, and refused what a snapshot
    /// would have refused.
    #[test]
    fn deltas_lead_where_a_snapshot_of_the_end_state_leads(
        start in arbitrary(),
        history in prop::collection::vec(prop::collection::vec(arbitrary_change(), 1..5), 1..16),
    ) {
        let (start, snapshot) = sound(start);
        let table = Table::new();
        table.apply(snapshot);
        let mut world = World::default();
        world.take(&start.addresses.iter().cloned().map(PutAddress).collect::<Vec<_>>());
        world.take(&start.users.iter().cloned().map(PutUser).collect::<Vec<_>>());
        world.take(&start.teams.iter().cloned().map(PutTeam).collect::<Vec<_>>());
        world.take(&start.nodes.iter().cloned().map(PutNode).collect::<Vec<_>>());
        world.take(&start.vms.iter().cloned().map(PutVm).collect::<Vec<_>>());
        for changes in history {
            let mut next = world.clone();
            next.take(&changes);
            let (revision, held) = (table.revision(), sessions(&table, &world.contents()));
            let expected = Snapshot::new(next.contents());
            let changed = table.change(Delta { changes });
            prop_assert_eq!(changed.is_ok(), expected.is_ok(), "{:?} {:?}", changed, expected.err());
            let Ok(changed) = changed else {
                prop_assert_eq!(table.revision(), revision);
                continue;
            };
            world = next;
            let (contents, snapshot) = (world.contents(), expected.unwrap());
            let fresh = Table::new();
            fresh.apply(snapshot.clone());
            prop_assert_eq!(table.counts(), fresh.counts());
            for user in world.users.keys() {
                prop_assert_eq!(shown(&table, user), shown(&fresh, user));
            }
            for VmEntry { vm, .. } in &contents.vms {
                prop_assert_eq!(carried(&table, vm), model::carried(&contents, vm));
            }
            for name in (0..5).map(|n| format!("n{n}")) {
                prop_assert_eq!(table.node(&name), fresh.node(&name));
            }
            for (key, admitted) in &held {
                let who = Who::Key([*key; 32]);
                let keeps = table.keeps(who, admitted);
                prop_assert_eq!(keeps, fresh.keeps(who, admitted));
                prop_assert!(keeps || changed.takes_away, "{:?} lost {:?}", who, admitted);
            }
            let users: Vec<String> = (0..5).map(|n| format!("u{n}")).collect();
            let askers = (0..7).map(|k| Who::Key([k; 32])).chain(users.iter().map(|u| Who::User(u)));
            for who in askers {
                for entry in &contents.addresses {
                    let place = table.address_named(&entry.name).unwrap();
                    for login in ["me", "", "me+v0", "me+v3", "+v4", "me+u0"] {
                        let expected = model::admit(&contents, who, &entry.name, login);
                        let told = told(table.admit(who, &place, login));
                        prop_assert_eq!(told, expected, "{:?} {} {}", who, entry.name, login);
                    }
                }
                if let Who::Key(key) = who {
                    prop_assert_eq!(table.key_options(&key), model::line(&contents, key));
                }
            }
            for last in 0..10 {
                let name = |table: &Table| table.address(ip(last)).map(|at| at.name.clone());
                prop_assert_eq!(name(&table), name(&fresh));
            }
            let noted = table.writer.lock().unwrap().clone();
            table.apply(snapshot);
            prop_assert_eq!(table.revision(), changed.revision, "a snapshot found something to do");
            prop_assert_eq!(&*table.writer.lock().unwrap(), &noted);
        }
    }

    #[test]
    fn the_order_within_a_delta_does_not_matter(
        start in arbitrary(),
        changes in prop::collection::vec(arbitrary_change(), 2..6).prop_shuffle(),
    ) {
        let (_, snapshot) = sound(start);
        let name = |change: &Change| match change {
            PutAddress(entry) => format!("a {}", entry.name),
            PutUser(entry) => format!("u {}", entry.name),
            PutTeam(entry) => format!("t {}", entry.name),
            PutNode(entry) => format!("n {}", entry.name),
            PutVm(entry) => format!("v {}", entry.vm.name),
            RemoveAddress(name) => format!("a {name}"),
            RemoveUser(name) => format!("u {name}"),
            RemoveTeam(name) => format!("t {name}"),
            RemoveNode(name) => format!("n {name}"),
            RemoveVm(name) => format!("v {name}"),
        };
        let mut seen = BTreeSet::new();
        let changes: Vec<Change> =
            changes.into_iter().filter(|change| seen.insert(name(change))).collect();
        let result = |changes: Vec<Change>| {
            let table = Table::new();
            table.apply(snapshot.clone());
            let told = table.change(Delta { changes }).is_ok();
            let lists: Vec<_> = (0..4).map(|n| shown(&table, &format!("u{n}"))).collect();
            (told, table.counts(), lists)
        };
        let backwards = changes.iter().rev().cloned().collect();
        prop_assert_eq!(result(changes), result(backwards));
    }
}

#[test]
fn readers_see_all_of_a_delta_or_nothing_of_it() {
    // With each step key 1 changes hands and both users' slots get other VMs: {key, VM} pairs of
    // neither state would be misroutes, and so would a refusal be.
    let table = table(Contents { teams: Vec::new(), vms: Vec::new(), ..contents() });
    let before = [
        PutUser(user("alice", &[1])),
        PutUser(user("bob", &[2, 3])),
        PutVm(vm("blue", "alice", "s001")),
        PutVm(vm("red", "bob", "s001")),
        RemoveVm(named("green")),
    ];
    let mut renamed = vm("azure", "bob", "s001");
    renamed.vm.id = named("blue");
    let after = [
        PutUser(user("alice", &[3])),
        PutUser(user("bob", &[1, 2])),
        RemoveVm(named("red")),
        PutVm(renamed),
        RemoveVm(named("blue")),
        PutVm(vm("green", "alice", "s001")),
    ];
    let back = before.iter().cloned().chain([RemoveVm(named("azure"))]);
    let (there, back) = (after.to_vec(), back.collect::<Vec<_>>());
    change(&table, before.to_vec());
    let place = at(&table, 1);
    let stop = AtomicBool::new(false);
    let (allowed_1, allowed_3) =
        (["blue of alice", "azure of bob"], ["red of bob", "green of alice"]);
    let reads = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen: HashMap<String, u64> = HashMap::new();
                    while !stop.load(Ordering::Relaxed) {
                        for (key, allowed) in [([1; 32], allowed_1), ([3; 32], allowed_3)] {
                            let Some(Admission::Vm(a)) = table.admit(Who::Key(key), &place, "me")
                            else {
                                panic!("both states let the key in");
                            };
                            let said = format!("{} of {}", a.vm.name, a.user);
                            assert!(allowed.contains(&said.as_str()), "{said}");
                            *seen.entry(said).or_default() += 1;
                        }
                        let list = shown(&table, "bob");
                        assert_eq!(list.len(), 1, "{list:?}");
                    }
                    seen
                })
            })
            .collect();
        for _ in 0..5_000 {
            change(&table, there.clone());
            change(&table, back.clone());
        }
        stop.store(true, Ordering::Relaxed);
        readers.into_iter().map(|reader| reader.join().unwrap()).collect::<Vec<_>>()
    });
    let all: BTreeSet<&str> =
        reads.iter().flat_map(|seen| seen.keys().map(String::as_str)).collect();
    assert_eq!(all.len(), 4, "{all:?}");
}

#[test]
fn after_a_writer_that_died_only_a_snapshot_is_believed() {
    let table = table(contents());
    let died = catch_unwind(AssertUnwindSafe(|| {
        let _writer = table.writer.lock().unwrap();
        let shown = table.revision();
        let person = table.users.get("alice", shown).unwrap();
        table.keys.mark(vec![(crate::route::hash::Fingerprint([66; 32]), Some(person))], shown);
        panic!("half way");
    }));
    assert!(died.is_err());
    let told = table.change(Delta { changes: vec![RemoveVm(named("blue"))] }).unwrap_err();
    assert_eq!(told[0].what, What::CutShort);
    assert_eq!(tell(&table, ALICE, 1, "me"), "me@blue");
    table.apply(Snapshot::new(contents()).unwrap());
    change(&table, vec![RemoveVm(named("blue"))]);
    assert_eq!(tell(&table, Who::Key([66; 32]), 1, "me"), "not registered");
    assert_eq!(tell(&table, ALICE, 1, "me"), "no VM at this address");
}
