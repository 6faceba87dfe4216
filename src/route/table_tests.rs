//! Tests of `table`.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;
use crate::route::testing::*;
use crate::route::user_routes::{NEAR, Rest, SpilledSlots};
use crate::route::versioned::Cell;
use crate::route::{
    Carry, Contents, EntryIndex, KeyEntry, Slot, Snapshot, TEAMS_MAX, UserEntry, What,
};

#[test]
fn the_same_address_leads_each_user_to_their_own_vm() {
    let table = table(contents());
    assert_eq!(tell(&table, Who::Key([1; 32]), 1, "me"), "me@blue");
    assert_eq!(tell(&table, Who::Key([2; 32]), 1, "me"), "me@blue");
    assert_eq!(tell(&table, Who::Key([3; 32]), 1, "me"), "root@red");
    assert_eq!(tell(&table, Who::User("bob"), 1, "me"), "root@red");
    assert_eq!(tell(&table, Who::Key([4; 32]), 1, "me"), "no VM at this address");
    assert_eq!(tell(&table, Who::Key([5; 32]), 1, "me"), "not registered");
    assert_eq!(tell(&table, Who::User("nobody"), 1, "me"), "not registered");
}

#[test]
fn a_teams_slot_opens_to_its_members_only() {
    let table = table(contents());
    assert_eq!(tell(&table, Who::Key([1; 32]), 2, "me"), "me@shared");
    assert_eq!(tell(&table, Who::Key([3; 32]), 2, "me"), "me@shared");
    assert_eq!(tell(&table, Who::Key([4; 32]), 2, "me"), "no VM at this address");
}

#[test]
fn the_lobby_lets_every_registered_user_in_and_nobody_else() {
    let table = table(contents());
    assert_eq!(tell(&table, Who::Key([4; 32]), 9, "x"), "lobby of carol");
    assert_eq!(tell(&table, Who::Key([5; 32]), 9, "x"), "not registered");
    assert_eq!(tell(&table, Who::Key([4; 32]), 9, "x+blue"), "x@blue by name");
}

#[test]
fn a_vm_is_asked_for_by_name_after_the_last_plus() {
    let table = table(contents());
    for last in [1, 2, 9] {
        assert_eq!(tell(&table, Who::Key([4; 32]), last, "root+blue"), "root@blue by name");
        assert_eq!(tell(&table, Who::Key([1; 32]), last, "a+b+shared"), "a+b@shared by name");
        assert_eq!(tell(&table, Who::Key([3; 32]), last, "me+red"), "root@red by name");
    }
}

#[test]
fn a_name_that_is_unknown_or_forbidden_is_never_a_plain_login() {
    let table = table(contents());
    for login in ["me+none", "me+", "+", "me+Blue", "blue+me"] {
        assert_eq!(tell(&table, Who::Key([1; 32]), 1, login), "no VM of that name", "{login}");
        assert!(table.admit(Who::Key([1; 32]), &at(&table, 1), login).is_none());
    }
    assert_eq!(tell(&table, Who::Key([4; 32]), 1, "me+red"), "not allowed to enter that VM");
    assert_eq!(tell(&table, Who::Key([1; 32]), 1, "me+red"), "not allowed to enter that VM");
}

#[test]
fn an_empty_login_needs_one_configured() {
    let table = table(contents());
    assert_eq!(tell(&table, Who::Key([1; 32]), 1, ""), "no login name");
    assert_eq!(tell(&table, Who::Key([1; 32]), 1, "+blue"), "no login name");
    assert_eq!(tell(&table, Who::Key([3; 32]), 1, "+red"), "root@red by name");
}

#[test]
fn every_form_of_an_address_is_the_same_address() {
    let mut contents = contents();
    contents.addresses[0].private = Some("10.0.0.7".parse().unwrap());
    contents.addresses[0].public6 = Some("2001:db8::1".parse().unwrap());
    let table = table(contents);
    for local in ["127.0.77.1", "10.0.0.7", "2001:db8::1", "::ffff:127.0.77.1", "::ffff:10.0.0.7"] {
        let address = table.address(local.parse().unwrap()).unwrap();
        assert_eq!(address.name, "s001", "{local}");
    }
}

#[test]
fn an_address_outside_the_pool_is_unknown() {
    let table = table(contents());
    for local in ["127.0.77.3", "0.0.0.0", "::1", "::ffff:127.0.77.3"] {
        assert_eq!(table.address(local.parse().unwrap()), None, "{local}");
    }
    assert_eq!(Table::new().address(ip(1)), None);
}

#[test]
fn the_lobby_list_names_each_vm_once_with_its_address() {
    let mut contents = contents();
    let slot = Slot { principal: "alice".to_owned(), address: "s001".to_owned() };
    contents.vms[2].by_name.push("carol".to_owned());
    contents.vms[2].slots.push(Slot { principal: "carol".to_owned(), ..slot });
    let table = table(contents);
    let list = |user: &str| -> Vec<String> {
        let place = |a: Option<Arc<Address>>| a.map_or("-".to_owned(), |a| a.name.clone());
        table.visible(user).into_iter().map(|(vm, a)| format!("{} {}", vm.name, place(a))).collect()
    };
    assert_eq!(list("alice"), ["blue s001", "shared s002"]);
    assert_eq!(list("bob"), ["red s001", "shared s002"]);
    assert_eq!(list("carol"), ["blue -", "shared s001"]);
    assert!(list("nobody").is_empty());
}

#[test]
fn the_lobby_list_prefers_the_address_of_a_vms_name_and_one_that_is_open() {
    let mut contents = contents();
    let slot = |address: &str| Slot { principal: "alice".to_owned(), address: address.to_owned() };
    contents.addresses.extend([address("s003", 3), address("s004", 4)]);
    contents.vms[0].slots.extend([slot("s003"), slot("s004")]);
    let list = |contents: &Contents| {
        let seen = table(contents.clone()).visible("alice");
        seen.first().unwrap().1.as_ref().map(|at| at.name.clone())
    };
    for at in ["s001", "s003", "s004"] {
        contents.vms[0].vm.address = Some(at.to_owned());
        assert_eq!(list(&contents).as_deref(), Some(at));
    }
    contents.addresses.iter_mut().find(|a| a.name == "s004").unwrap().closed = true;
    assert_eq!(list(&contents).as_deref(), Some("s001"));
    contents.vms[0].vm.address = None;
    assert_eq!(list(&contents).as_deref(), Some("s001"));
}

#[test]
fn members_by_name_enter_a_teams_vms_without_its_slots() {
    let mut contents = contents();
    contents.teams[0].members_by_name.push("carol".to_owned());
    // Carol has a VM where the team has one: its slot is not hers.
    contents.vms.push(vm("mine", "carol", "s002"));
    let table = table(contents);
    assert_eq!(tell(&table, Who::Key([4; 32]), 2, "me"), "me@mine");
    assert_eq!(tell(&table, Who::Key([4; 32]), 2, "me+shared"), "me@shared by name");
    let list: Vec<_> =
        table.visible("carol").iter().map(|(vm, at)| (vm.name.clone(), at.is_some())).collect();
    let expected = [("blue", false), ("mine", true), ("shared", false)];
    assert_eq!(list, expected.map(|(name, at)| (name.to_owned(), at)));
}

#[test]
fn a_closed_address_is_refused_and_keeps_its_name_and_slots() {
    let table = table(contents());
    let dialled = at(&table, 1);
    let mut other = contents();
    other.addresses[0].closed = true;
    table.apply(Snapshot::new(other).unwrap());
    assert_eq!(table.address(ip(1)), None);
    assert!(table.address_named("s001").unwrap().closed);
    assert_eq!(table.counts().slots, 3);
    // Who is half way in goes on.
    assert!(table.lookup(Who::Key([1; 32]), &dialled, |_| ()).is_some());
    table.apply(Snapshot::new(contents()).unwrap());
    assert_eq!(tell(&table, Who::Key([1; 32]), 1, "me"), "me@blue");
}

#[test]
fn names_lead_to_vms_and_addresses() {
    let table = table(contents());
    assert_eq!(table.vm("blue").unwrap().address.as_deref(), Some("s001"));
    assert!(table.vm("s001").is_none() && table.address_named("blue").is_none());
    assert_eq!(table.address_named("s002").unwrap().public, ip(2));
    let names: Vec<_> = table.addresses().iter().map(|at| at.name.clone()).collect();
    assert_eq!(names, ["lobby", "s001", "s002"]);
    let mut zone = Vec::new();
    let revision = table.zone(&mut |vm| zone.push((vm.name.clone(), vm.address.clone())));
    zone.sort();
    let expected = [("blue", "s001"), ("red", "s001"), ("shared", "s002")];
    assert_eq!(zone, expected.map(|(vm, at)| (vm.to_owned(), Some(at.to_owned()))));
    assert_eq!(revision, table.revision());
}

#[test]
fn the_revision_moves_only_when_something_changed() {
    let table = table(contents());
    let first = table.revision();
    table.apply(Snapshot::new(contents()).unwrap());
    assert_eq!(table.revision(), first);
    let mut reordered = contents();
    reordered.addresses.reverse();
    reordered.users.reverse();
    reordered.users[2].keys.reverse();
    reordered.vms.reverse();
    table.apply(Snapshot::new(reordered).unwrap());
    assert_eq!(table.revision(), first);
    let mut other = contents();
    other.vms[0].vm.login = Some("admin".to_owned());
    table.apply(Snapshot::new(other).unwrap());
    assert_ne!(table.revision(), first);
    assert_eq!(tell(&table, Who::Key([1; 32]), 1, "me"), "admin@blue");
}

#[test]
fn what_did_not_change_stays_the_same_object() {
    let table = table(contents());
    let (blue, place) =
        (table.lookup(Who::Key([1; 32]), &at(&table, 1), Arc::clone).unwrap(), at(&table, 1));
    let mut other = contents();
    other.users.push(user("dave", &[7]));
    table.apply(Snapshot::new(other).unwrap());
    assert!(Arc::ptr_eq(&blue, &table.lookup(Who::Key([1; 32]), &place, Arc::clone).unwrap()));
    assert!(Arc::ptr_eq(&place, &at(&table, 1)));
}

#[test]
fn what_is_gone_is_gone() {
    let table = table(contents());
    let (first, lobby) = (at(&table, 1), at(&table, 9));
    table.apply(Snapshot::new(Contents::default()).unwrap());
    assert_eq!(table.counts(), Counts::default());
    assert!(table.lookup(Who::Key([1; 32]), &first, |_| ()).is_none());
    assert!(table.admit(Who::Key([1; 32]), &lobby, "x").is_none());
    assert!(table.admit(Who::Key([1; 32]), &first, "x+blue").is_none());
    assert_eq!(table.address(ip(1)), None);
    assert!(table.places.map.is_empty() && table.names.map.is_empty() && table.keys.map.is_empty());
}

#[test]
fn an_address_that_changed_is_another_one_to_a_connection_that_dialled_it_before() {
    let table = table(contents());
    let dialled = at(&table, 1);
    let mut other = contents();
    // Alice's blue moves to 127.0.77.3, and another VM answers at the name s001.
    other.addresses[0] = address("s001", 3);
    other.addresses.push(address("s009", 1));
    other.vms[0] = vm("blue", "alice", "s009");
    other.vms.push(vm("green", "alice", "s001"));
    table.apply(Snapshot::new(other).unwrap());
    assert!(table.lookup(Who::Key([1; 32]), &dialled, |_| ()).is_none());
    assert_eq!(tell(&table, Who::Key([1; 32]), 1, "me"), "me@blue");
    assert_eq!(tell(&table, Who::Key([1; 32]), 3, "me"), "me@green");
}

#[test]
fn a_user_deleted_and_created_again_inherits_no_slot_of_a_connection_in_flight() {
    let table = table(contents());
    let mut other = contents();
    other.users.remove(2);
    other.vms[0].by_name.clear();
    table.apply(Snapshot::new(other).unwrap());
    let before = table.writer.lock().unwrap().principals["bob"];
    table.apply(Snapshot::new(contents()).unwrap());
    let writer = table.writer.lock().unwrap();
    assert!(writer.principals["carol"] > before.max(writer.principals["team:ops"]));
    drop(writer);
    assert_eq!(tell(&table, Who::Key([4; 32]), 1, "me+blue"), "me@blue by name");
}

#[test]
fn a_session_keeps_its_right_until_the_user_loses_the_way_in() {
    let table = table(contents());
    let key = Who::Key([1; 32]);
    let Some(Admission::Vm(admitted)) = table.admit(key, &at(&table, 1), "me") else {
        panic!("alice has a VM there");
    };
    let after = |change: &dyn Fn(&mut Contents)| {
        let mut other = contents();
        change(&mut other);
        table.apply(Snapshot::new(other).unwrap());
        table.keeps(key, &admitted)
    };
    assert!(after(&|_| {}));
    // Moved to another address, restarted elsewhere: still hers.
    assert!(after(&|c| c.vms[0].slots.clear()));
    assert!(after(&|c| c.vms[0].vm.endpoint = "elsewhere:22".to_owned()));
    // The key is gone, or somebody else's.
    assert!(!after(&|c| c.users[0].keys = vec![key_of(2)]));
    assert!(!after(&|c| {
        c.users[0].keys.clear();
        c.users[2].keys.push(key_of(1));
    }));
    // The VM is gone, or changed hands.
    assert!(!after(&|c| drop(c.vms.remove(0))));
    assert!(!after(&|c| c.vms[0] = vm("blue", "carol", "s001")));
    // Another VM has its name now, which she may enter too.
    assert!(!after(&|c| c.vms[0].vm.id = "other".to_owned()));
    // It changed hands, but she may still enter it: through a team, by name only, or
    // under a new name.
    let belongs_to_the_team = |c: &mut Contents| c.vms[0] = vm("blue", "team:ops", "s003");
    let with_s003 = |c: &mut Contents| c.addresses.push(address("s003", 3));
    assert!(after(&|c| {
        with_s003(c);
        belongs_to_the_team(c);
    }));
    assert!(after(&|c| {
        with_s003(c);
        belongs_to_the_team(c);
        c.teams[0].members_by_name = std::mem::take(&mut c.teams[0].members);
        c.vms[0].vm.name = "azure".to_owned();
    }));
    assert!(after(&|c| {
        c.vms[0].vm.name = "azure".to_owned();
        c.vms[0].slots.clear();
    }));
}

#[test]
fn a_writer_that_died_half_way_is_overwritten() {
    let table = table(contents());
    // As if `apply` had been interrupted after its first map.
    let shown = table.revision();
    let rest = Rest {
        name: Arc::from("mallory"),
        own: PrincipalId(77),
        far: SpilledSlots::default(),
        teams: Box::default(),
        teams_by_name: Box::default(),
        closed: false,
    };
    let stranger = UserRoutes { near: InlineSlots::default(), rest: Arc::new(rest) };
    table.keys.mark_all(vec![(Fingerprint([66; 32]), stranger)], shown);
    assert_eq!(tell(&table, Who::Key([1; 32]), 1, "me"), "me@blue");
    assert_eq!(tell(&table, Who::Key([66; 32]), 1, "me"), "not registered");
    table.apply(Snapshot::new(contents()).unwrap());
    assert_eq!(tell(&table, Who::Key([1; 32]), 1, "me"), "me@blue");
    assert_eq!(tell(&table, Who::Key([66; 32]), 1, "me"), "not registered");
    assert_eq!(table.keys.map.len(), 4);
}

#[test]
fn readers_see_one_snapshot_or_the_other_and_never_a_mixture() {
    // Between the two, key 1 changes hands, and both users' slots get other VMs. {key, VM} pairs of
    // neither are misroutes; so is a refusal, for both snapshots let the key in.
    let before = contents();
    let mut after = contents();
    after.users[0].keys = vec![key_of(3)];
    after.users[1].keys = vec![key_of(1), key_of(2)];
    after.vms[0] = vm("blue", "bob", "s001");
    after.vms[1] = vm("red", "carol", "s001");
    after.vms.push(vm("green", "alice", "s001"));
    let filler = |contents: &mut Contents, from: u16| {
        for n in from..from + 200 {
            let name = format!("u{n}");
            let mut key = [0xee; 32];
            key[..2].copy_from_slice(&n.to_be_bytes());
            contents.users.push(UserEntry {
                name: name.clone(),
                keys: vec![KeyEntry::plain(key)],
                closed: false,
            });
            contents.vms.push(vm(&format!("v{n}"), &name, "s002"));
        }
    };
    let (mut before, mut after) = (before, after);
    filler(&mut before, 0);
    filler(&mut after, 100);
    let (before, after) = (Snapshot::new(before).unwrap(), Snapshot::new(after).unwrap());

    let table = Table::new();
    table.apply(before.clone());
    let place = at(&table, 1);
    let stop = AtomicBool::new(false);
    let (allowed_1, allowed_3) =
        (["blue of alice", "blue of bob"], ["red of bob", "green of alice"]);
    let reads = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen: HashMap<String, u64> = HashMap::new();
                    while !stop.load(Ordering::Relaxed) {
                        for (key, allowed) in [([1; 32], allowed_1), ([3; 32], allowed_3)] {
                            let said = match table.admit(Who::Key(key), &place, "me") {
                                Some(Admission::Vm(a)) => format!("{} of {}", a.vm.name, a.user),
                                other => format!("{other:?}"),
                            };
                            assert!(allowed.contains(&said.as_str()), "{said}");
                            *seen.entry(said).or_default() += 1;
                            let found = table.lookup(Who::Key(key), &place, Arc::clone).unwrap();
                            let name = allowed.map(|a| a.split(' ').next().unwrap());
                            assert!(name.contains(&found.name.as_str()));
                        }
                    }
                    seen
                })
            })
            .collect();
        for _ in 0..100 {
            table.apply(after.clone());
            table.apply(before.clone());
        }
        stop.store(true, Ordering::Relaxed);
        readers.into_iter().map(|reader| reader.join().unwrap()).collect::<Vec<_>>()
    });
    // Both sides of the change were seen, or the test shows nothing.
    let all: HashSet<&str> =
        reads.iter().flat_map(|seen| seen.keys().map(String::as_str)).collect();
    assert_eq!(all.len(), 4, "{all:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    /// The model itself asserts that nobody has two VMs at one address: `Snapshot::new`
    /// let none through.
    #[test]
    fn the_table_answers_as_the_plain_rules_do_after_any_history(
        history in prop::collection::vec(arbitrary(), 1..4)
    ) {
        let table = Table::new();
        for contents in history {
            let (contents, snapshot) = sound(contents);
            table.apply(snapshot);
            let slots: HashSet<_> = contents.vms.iter()
                .flat_map(|entry| entry.slots.iter().map(|s| (s.principal.clone(), s.address.clone())))
                .collect();
            prop_assert_eq!(table.counts().slots, slots.len());
            let users: Vec<String> = (0..5).map(|n| format!("u{n}")).collect();
            let askers = (0..7).map(|k| Who::Key([k; 32])).chain(users.iter().map(|u| Who::User(u)));
            for who in askers {
                for entry in &contents.addresses {
                    let place = table.address_named(&entry.name).unwrap();
                    prop_assert_eq!(table.address(entry.public), (!entry.closed).then(|| place.clone()));
                    for login in ["me", "", "me+v0", "me+v1", "a+b+v2", "+v3", "me+u0", "me+s0"] {
                        let expected = model::admit(&contents, who, &entry.name, login);
                        let told = told(table.admit(who, &place, login));
                        prop_assert_eq!(told, expected.clone(), "{:?} {} {}", who, entry.name, login);
                        let Who::Key(key) = who else { continue };
                        let line = model::line(&contents, key);
                        prop_assert_eq!(table.key_options(&key), line.clone());
                        let asked = table.ask(who, &place, login, |_, _| ()).ok();
                        prop_assert_eq!(asked.map(|((), line)| line), (expected != "nothing").then_some(line));
                    }
                }
            }
        }
    }

    #[test]
    fn a_vm_taken_out_as_contradicting_did_contradict(contents in arbitrary()) {
        if let Err(found) = Snapshot::new(contents.clone()) {
            for contradiction in found {
                if let What::AtLobby { address } = contradiction.what {
                    prop_assert_eq!(address, "s3");
                    continue;
                }
                if let What::UnknownNode { node } = contradiction.what {
                    prop_assert_eq!(node, "n4");
                    continue;
                }
                if let What::NoHandoff(why) = contradiction.what {
                    let EntryIndex::Vm(index) = contradiction.at else { panic!("{why}") };
                    prop_assert_eq!(contents.vms[index].vm.carry, Carry::Handoff);
                    continue;
                }
                let What::SlotTaken { user, address, other } = contradiction.what else {
                    panic!("{}", contradiction.what);
                };
                // Somebody who is `user` has a way to both at that address.
                let EntryIndex::Vm(index) = contradiction.at else { panic!("a slot is a VM's") };
                let mut all = vec![user.clone()];
                all.extend(contents.teams.iter().filter(|team| team.members.contains(&user))
                    .map(|team| format!("team:{}", team.name)));
                for name in [contents.vms[index].vm.name.clone(), other] {
                    let entry = contents.vms.iter().find(|entry| entry.vm.name == name).unwrap();
                    prop_assert!(entry.slots.iter()
                        .any(|slot| slot.address == address && all.contains(&slot.principal)));
                }
            }
        }
    }
}

#[test]
fn the_last_of_sixty_four_teams_still_opens_its_slot() {
    let mut contents = contents();
    let member = vec!["carol".to_owned()];
    contents.teams = (0..TEAMS_MAX).map(|n| team(&format!("t{n}"), member.clone())).collect();
    contents.vms.pop();
    contents.vms.push(vm("far", "team:t63", "s002"));
    let table = table(contents);
    assert_eq!(tell(&table, Who::Key([4; 32]), 2, "me"), "me@far");
    assert_eq!(tell(&table, Who::Key([4; 32]), 2, "me+far"), "me@far by name");
}

#[test]
fn a_user_with_more_vms_than_stand_near_reaches_them_all() {
    let mut contents = contents();
    for n in 10..10 + 3 * u8::try_from(NEAR).unwrap() {
        contents.addresses.push(address(&format!("s{n}"), n));
        contents.vms.push(vm(&format!("v{n}"), "carol", &format!("s{n}")));
    }
    let table = table(contents);
    for n in 10..10 + 3 * u8::try_from(NEAR).unwrap() {
        assert_eq!(tell(&table, Who::Key([4; 32]), n, "me"), format!("me@v{n}"));
    }
    assert_eq!(tell(&table, Who::Key([4; 32]), 1, "me"), "no VM at this address");
    assert_eq!(table.visible("carol").len(), 3 * NEAR + 1);
    assert_eq!(table.counts().slots, 3 * NEAR + 3);
}

#[test]
fn the_entry_of_a_key_fills_two_lines_of_cache() {
    assert_eq!(size_of::<Fingerprint>() + size_of::<Cell<UserRoutes>>(), 128);
}
