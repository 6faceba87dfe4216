//! What a routing map says of a registry, held against the registry.

use super::*;
use crate::registry::document::{OldSlot, Role, Token};
use crate::route::Carry;
use crate::ssh::entropy::SystemEntropy;
use crate::ssh::private_key::PrivateKey;

fn name(name: &str) -> Label {
    Label::new(name).unwrap()
}

fn of(principal: &str) -> Principal {
    principal.parse().unwrap()
}

fn key() -> PublicKey {
    PrivateKey::generate_ed25519(&mut SystemEntropy::default()).public().clone()
}

fn nodes() -> [(Key, Document); 2] {
    let key = Some(key().fingerprint().to_string());
    let agent = Agent { at: ([10, 0, 0, 21], 7022).into(), key };
    let node = Node { agent: Some(agent), trusted: true, origin: Origin::Fleet, ..Node::default() };
    [(name("n1"), node), (name("n2"), Node::default())]
        .map(|(name, node)| (Key::Node(name), Document::Node(Box::new(node))))
}

fn registry() -> Model {
    let mut model = Model::new(Limits::default());
    let mut put = |key, document| drop(model.put(&key, Some(document), 7));
    for (at, last) in [("s001", 1), ("s002", 2)] {
        let document = Address {
            public: [127, 0, 77, last].into(),
            public6: None,
            private: Some([10, 0, 0, last].into()),
            lobby: false,
            state: if last == 2 { AddressState::Maint } else { AddressState::Ready },
            origin: Origin::Fleet,
        };
        put(Key::Address(name(at)), Document::Address(document));
    }
    for user in ["alice", "bob", "carol"] {
        let key = key();
        let key = UserKey {
            fingerprint: key.fingerprint().to_string(),
            options: "restrict".to_owned(),
            key: key.to_line(),
            comment: "laptop".to_owned(),
        };
        let (keys, going) = (vec![key], user == "carol");
        let document = User { keys, origin: Origin::Command, going };
        put(Key::User(name(user)), Document::User(document));
    }
    let members = [(name("alice"), Access::Slot), (name("bob"), Access::ByName)];
    let document = Team { members: members.into(), origin: Origin::Command, going: false };
    put(Key::Team(name("ops")), Document::Team(document));
    let token = Token { hash: "00".to_owned(), role: Role::Reader, created_s: 1, expires_s: None };
    put(Key::Token(name("ci")), Document::Token(token));
    for (key, node) in nodes() {
        put(key, node);
    }
    let vm = Vm {
        name: name("blue"),
        id: "once-red".to_owned(),
        owner: of("alice"),
        shares: [(of("bob"), Access::Slot), (of("team:ops"), Access::ByName)].into(),
        address: Some(name("s001")),
        old: Vec::new(),
        ssh: "10.9.9.9:22".to_owned(),
        login: Some("root".to_owned()),
        host_key: None,
        source_address: None,
        pin: Some(key().to_line().into_boxed_str()),
        pinned_s: 5,
        node: Some(name("n1")),
        carry: Carry::Handoff,
        state: VmState::Maint,
        origin: Origin::Fleet,
    };
    let fingerprint = Some(key().fingerprint().to_string());
    let (green, grey) = (name("green"), name("grey"));
    let green = Vm {
        name: green,
        id: "green".to_owned(),
        host_key: fingerprint,
        pin: None,
        state: VmState::Ready,
        owner: of("team:ops"),
        shares: [(of("bob"), Access::Slot)].into(),
        ..vm.clone()
    };
    let grey = Vm { name: grey, id: "grey".to_owned(), address: None, ..vm.clone() };
    for (serial, vm) in [(71, vm), (72, green), (73, grey)] {
        put(Key::Vm(Serial(serial)), Document::Vm(Box::new(vm)));
    }
    model
}

/// In an order of its own.
fn sorted(mut contents: Contents) -> Contents {
    contents.addresses.sort_by(|one, other| one.name.cmp(&other.name));
    contents.users.sort_by(|one, other| one.name.cmp(&other.name));
    contents.teams.sort_by(|one, other| one.name.cmp(&other.name));
    contents.nodes.sort_by(|one, other| one.name.cmp(&other.name));
    contents.vms.sort_by(|one, other| one.vm.name.cmp(&other.vm.name));
    contents
}

#[test]
fn what_stands_in_has_the_routes_it_is_made_of() {
    let model = registry();
    let shown = Model::of_routes(Limits::default(), 9, model.contents());
    assert_eq!(shown.revision(), 9);
    assert_eq!(sorted(shown.contents()), sorted(model.contents()));
}

#[test]
fn what_routes_say_of_a_vm_is_shown_as_the_registry_would() {
    let model = registry();
    let shown = Model::of_routes(Limits::default(), 9, model.contents());
    for vm in ["blue", "green"] {
        let (_, is) = shown.vm_named(&name(vm)).unwrap();
        let (_, was) = model.vm_named(&name(vm)).unwrap();
        let was = Vm { pinned_s: 0, origin: Origin::Command, ..(*was.document).clone() };
        assert_eq!(*is.document, was);
    }
    assert!(shown.tokens().is_empty());
    let user = &shown.users()[&name("alice")].document;
    assert_eq!((user.keys[0].options.as_str(), user.keys[0].key.as_str()), ("restrict", ""));
    assert_eq!(shown.vms_at(&name("s001")).unwrap().len(), 2);
}

#[test]
fn a_second_way_is_a_share_as_long_as_it_leads_there() {
    let mut model = registry();
    let (serial, stored) = model.vm_named(&name("grey")).unwrap();
    let old = OldSlot { address: name("s001"), principals: vec![of("bob")], until_s: 99 };
    let vm = Vm { old: vec![old], ..(*stored.document).clone() };
    model.put(&Key::Vm(serial), Some(Document::Vm(Box::new(vm))), 8);
    let shown = Model::of_routes(Limits::default(), 9, model.contents());
    let (_, is) = shown.vm_named(&name("grey")).unwrap();
    assert_eq!(is.document.shares[&of("bob")], Access::Slot);
}
