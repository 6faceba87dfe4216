//! Tests of `snapshot`.

use super::*;
use crate::route::Carry;

fn address(name: &str, public: &str) -> AddressEntry {
    let public = public.parse().unwrap();
    AddressEntry {
        name: name.to_owned(),
        public,
        public6: None,
        private: None,
        lobby: false,
        closed: false,
    }
}

fn user(name: &str, keys: &[u8]) -> UserEntry {
    UserEntry {
        name: name.to_owned(),
        keys: keys.iter().map(|&k| KeyEntry::plain([k; 32])).collect(),
        closed: false,
    }
}

fn team(name: &str, members: &[&str]) -> TeamEntry {
    let members = members.iter().map(|&m| m.to_owned()).collect();
    TeamEntry { name: name.to_owned(), members, members_by_name: Vec::new() }
}

fn vm(name: &str, owner: &str, at: &str) -> VmEntry {
    let vm = Vm {
        id: name.to_owned(),
        name: name.to_owned(),
        owner: owner.to_owned(),
        endpoint: "127.0.0.1:22".to_owned(),
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

fn sound() -> Contents {
    Contents {
        addresses: vec![address("s001", "127.0.77.1"), address("s002", "127.0.77.2")],
        users: vec![user("alice", &[1, 2]), user("bob", &[3])],
        teams: vec![team("ops", &["alice", "bob"])],
        nodes: Vec::new(),
        vms: vec![vm("blue", "alice", "s001"), vm("red", "bob", "s001")],
    }
}

fn faults(contents: Contents) -> Vec<String> {
    let found = Snapshot::new(contents).map(|_| ()).unwrap_err();
    found.iter().map(|c| format!("{:?}: {c}", c.at)).collect()
}

#[test]
fn two_users_may_share_an_address() {
    Snapshot::new(sound()).unwrap();
}

#[test]
fn two_vms_of_one_owner_at_one_address_are_refused() {
    let mut contents = sound();
    contents.vms.push(vm("green", "alice", "s001"));
    assert_eq!(faults(contents), ["Vm(2): VM `blue` already answers to `alice` at address `s001`"]);
}

#[test]
fn a_teams_vm_where_a_member_has_one_is_refused() {
    let mut contents = sound();
    contents.vms.push(vm("shared", "team:ops", "s001"));
    assert_eq!(
        faults(contents),
        [
            "Vm(2): VM `blue` already answers to `alice` at address `s001`",
            "Vm(2): VM `red` already answers to `bob` at address `s001`",
        ]
    );
}

#[test]
fn a_share_where_the_guest_has_a_vm_is_refused() {
    let mut contents = sound();
    let slot = Slot { principal: "bob".to_owned(), address: "s001".to_owned() };
    contents.vms[0].slots.push(slot);
    assert_eq!(faults(contents), ["Vm(1): VM `blue` already answers to `bob` at address `s001`"]);
}

#[test]
fn a_share_by_name_takes_no_slot() {
    let mut contents = sound();
    contents.vms[0].by_name.push("bob".to_owned());
    Snapshot::new(contents).unwrap();
}

#[test]
fn one_vm_through_two_principals_at_one_address_is_no_conflict() {
    let mut contents = sound();
    let slot = Slot { principal: "team:ops".to_owned(), address: "s002".to_owned() };
    contents.vms[0].slots.push(slot);
    let slot = Slot { principal: "alice".to_owned(), address: "s002".to_owned() };
    contents.vms[0].slots.push(slot);
    Snapshot::new(contents).unwrap();
}

#[test]
fn an_empty_team_cannot_hold_two_vms_at_one_address() {
    let mut contents = sound();
    contents.teams.push(team("empty", &[]));
    contents.vms.push(vm("one", "team:empty", "s002"));
    contents.vms.push(vm("two", "team:empty", "s002"));
    assert_eq!(
        faults(contents),
        ["Vm(3): VM `one` already answers to `team:empty` at address `s002`"]
    );
}

#[test]
fn a_key_of_two_users_is_refused_by_its_raw_fingerprint() {
    let mut contents = sound();
    contents.users.push(user("carol", &[2]));
    contents.users.push(user("dave", &[9, 9]));
    assert_eq!(
        faults(contents),
        [
            "User(2): key 0202020202020202 is already a key of user `alice`",
            "User(3): key 0909090909090909 is already a key of user `dave`",
        ]
    );
}

#[test]
fn names_of_vms_and_addresses_are_one_namespace() {
    let mut contents = sound();
    for name in ["s001", "blue", "ns", "lobby", "apex"] {
        contents.vms.push(vm(name, "alice", "s002"));
        // Only the names are at stake here.
        contents.vms.last_mut().unwrap().slots.clear();
    }
    contents.addresses.push(address("s002", "127.0.77.3"));
    contents.addresses.push(address("lobby", "127.0.77.4"));
    assert_eq!(
        faults(contents),
        [
            "Address(2): name `s002` is already taken by another address",
            "Address(3): name `lobby` is reserved",
            "Vm(2): name `s001` is already taken by an address",
            "Vm(3): name `blue` is already taken by another VM",
            "Vm(4): name `ns` is reserved",
            "Vm(5): name `lobby` is reserved",
            "Vm(6): name `apex` is reserved",
        ]
    );
}

#[test]
fn the_lobby_may_be_called_lobby_and_holds_no_vm() {
    let mut contents = sound();
    contents.addresses.push(AddressEntry { lobby: true, ..address("lobby", "127.0.77.4") });
    Snapshot::new(contents.clone()).unwrap();
    contents.vms.push(vm("green", "alice", "lobby"));
    assert_eq!(faults(contents), ["Vm(2): address `lobby` is a lobby"]);
}

#[test]
fn users_and_teams_may_be_called_like_vms_and_each_other() {
    let mut contents = sound();
    contents.users.push(user("blue", &[]));
    contents.teams.push(team("alice", &[]));
    Snapshot::new(contents).unwrap();
}

#[test]
fn names_are_dns_labels() {
    for name in ["a", "a-1", "0", &"x".repeat(63)] {
        assert!(is_label(name), "{name}");
    }
    for name in ["", "-a", "a-", "A", "a.b", "a_b", "a+b", "team:a", "ä", "a\n", &"x".repeat(64)] {
        assert!(!is_label(name), "{name}");
    }
    let mut contents = sound();
    contents.users.push(user("Carol", &[]));
    assert_eq!(faults(contents), ["User(2): name `Carol` is not a DNS label"]);
}

#[test]
fn unknown_names_are_each_told_once() {
    let mut contents = sound();
    contents.vms.push(vm("green", "nobody", "s009"));
    contents.vms[0].by_name.push("team:none".to_owned());
    contents.teams.push(team("devs", &["mallory", "alice", "alice"]));
    assert_eq!(
        faults(contents),
        [
            "Team(1): member `mallory` is not a user",
            "Team(1): member `alice` is named twice",
            "Vm(0): principal `team:none` is not known",
            "Vm(2): owner `nobody` is not known",
            "Vm(2): address `s009` is not known",
        ]
    );
}

#[test]
fn an_address_in_both_columns_is_refused() {
    let mut contents = sound();
    contents.addresses[0].private = Some("10.0.0.7".parse().unwrap());
    contents.addresses[1].private = Some("::ffff:127.0.77.1".parse().unwrap());
    contents.addresses.push(address("s003", "10.0.0.7"));
    contents.addresses.push(AddressEntry {
        public6: Some("2001:db8::1".parse().unwrap()),
        private: Some("2001:db8::1".parse().unwrap()),
        ..address("s004", "127.0.77.4")
    });
    assert_eq!(
        faults(contents),
        [
            "Address(1): private 127.0.77.1 is already public of address `s001`",
            "Address(2): public 10.0.0.7 is already private of address `s001`",
            "Address(3): private 2001:db8::1 is already public6 of address `s004`",
        ]
    );
}

#[test]
fn addresses_that_no_client_can_dial_are_refused() {
    let mut contents = sound();
    for (index, ip) in
        ["0.0.0.0", "224.0.0.1", "255.255.255.255", "fe80::1", "::"].iter().enumerate()
    {
        contents.addresses.push(address(&format!("s01{index}"), ip));
    }
    contents.addresses[0].public6 = Some("10.1.1.1".parse().unwrap());
    assert_eq!(
        faults(contents),
        [
            "Address(0): public6 10.1.1.1 is not an IPv6 address",
            "Address(2): public 0.0.0.0 cannot be a pool address",
            "Address(3): public 224.0.0.1 cannot be a pool address",
            "Address(4): public 255.255.255.255 cannot be a pool address",
            "Address(5): public fe80::1 cannot be a pool address",
            "Address(6): public :: cannot be a pool address",
        ]
    );
}

#[test]
fn sixty_four_teams_are_the_most() {
    let mut contents = sound();
    contents.teams = (0..64).map(|n| team(&format!("t{n}"), &["alice"])).collect();
    Snapshot::new(contents.clone()).unwrap();
    contents.teams.push(team("one-more", &["alice"]));
    assert_eq!(faults(contents), ["User(0): user `alice` is in 65 teams, more than 64"]);
}

#[test]
fn a_closed_user_is_saved_as_one() {
    for entry in [user("u", &[1]), UserEntry { closed: true, ..user("u", &[]) }] {
        let bytes = postcard::to_allocvec(&entry).unwrap();
        assert_eq!(postcard::from_bytes::<UserEntry>(&bytes).unwrap(), entry);
    }
}
