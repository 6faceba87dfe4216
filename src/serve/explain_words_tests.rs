//! What `explain` says in the cases that people ask about.

use super::*;
use crate::route::{AddressEntry, Agent, Carry, KeyEntry, NodeEntry, VmEntry};

/// Alice, whose key is the first, has v0 at s0; bob, of the second, may enter it by name;
/// v1 has no address.
fn told_state() -> State {
    let vm = |name: &str, at: Option<&str>| Vm {
        id: name.to_owned(),
        name: name.to_owned(),
        owner: "alice".to_owned(),
        endpoint: "127.0.0.1:22".to_owned(),
        login: None,
        host_key: None,
        address: at.map(str::to_owned),
        source_address: None,
        closed: false,
        carry: Carry::Auto,
        node: None,
    };
    let user = |name: &str, key: usize| UserEntry {
        name: name.to_owned(),
        keys: vec![KeyEntry::plain(KEYS[key].public().fingerprint().0)],
        closed: false,
    };
    let address = |name: &str, last| AddressEntry {
        name: name.to_owned(),
        public: [10, 0, 0, last].into(),
        public6: None,
        private: None,
        lobby: false,
        closed: false,
    };
    let mut v0 = VmEntry::owned(vm("v0", Some("s0")), "s0");
    v0.by_name.push("bob".to_owned());
    let v1 = VmEntry { vm: vm("v1", None), slots: Vec::new(), by_name: Vec::new() };
    let contents = Contents {
        addresses: vec![address("s0", 1), address("s1", 2)],
        users: vec![user("alice", 0), user("bob", 1)],
        teams: Vec::new(),
        nodes: Vec::new(),
        vms: vec![v0, v1],
    };
    State { contents, revoked: Vec::new(), by_sha1: false }
}

fn explain(state: &State, asked: Asked, target: Target, from: Option<&str>) -> Explanation {
    let shared = state.shared();
    let from = from.map(|text| text.parse().unwrap());
    let question = Question { asked, target, login: None, from };
    let live = shared.live.load();
    Walk::new(&shared.table, &live, clock::unix_s()).explain(&question, Some("vm.test"))
}

#[test]
fn what_would_carry_the_session_is_said_and_why() {
    let asked = || Asked::Key(KEYS[0].public().clone());
    let key = [9; 32];
    let agent = Some(Agent { at: ([10, 0, 0, 21], 7022).into(), key });
    let node = |agent, trusted| NodeEntry { name: "n0".to_owned(), agent, trusted };
    for (entry, carry, carried, step) in [
        (None, Carry::Auto, Carried::Relay, ""),
        (
            Some(node(agent, true)),
            Carry::Auto,
            Carried::Handoff,
            "carriage: handed to the agent of node n0, at 10.0.0.21:7022\n",
        ),
        (
            Some(node(agent, true)),
            Carry::Relay,
            Carried::Relay,
            "carriage: relayed, as carry of the VM says, though it lies on node n0\n",
        ),
        (
            Some(node(agent, false)),
            Carry::Auto,
            Carried::Relay,
            "carriage: relayed: node n0 is not trusted\n",
        ),
        (
            Some(node(None, true)),
            Carry::Auto,
            Carried::Relay,
            "carriage: relayed: node n0 has no agent that is known\n",
        ),
    ] {
        let mut state = told_state();
        let vm = &mut state.contents.vms[0].vm;
        (vm.node, vm.carry) = (entry.as_ref().map(|node| node.name.as_str().into()), carry);
        state.contents.nodes.extend(entry);
        let said = explain(&state, asked(), at_v0(), None);
        assert_eq!(said.carried, Some(carried), "{said:?}");
        let told = steps(&said);
        assert!(told.ends_with(step) && told.contains("carriage") != step.is_empty(), "{told}");
    }
    let refused = explain(&told_state(), Asked::Key(KEYS[1].public().clone()), at_v0(), None);
    assert_eq!(refused.carried, None);
}

fn at_v0() -> Target {
    Target::Name("v0.vm.test".to_owned())
}

fn steps(said: &Explanation) -> String {
    let lines = said.steps.iter().map(|step| format!("{}: {}", step.step, step.answer));
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

#[test]
fn a_key_is_explained_however_it_is_given() {
    let key = KEYS[0].public();
    for asked in [Asked::Key(key.clone()), Asked::Fingerprint(key.fingerprint())] {
        let mut state = told_state();
        let ask = |state: &State, from| explain(state, asked.clone(), at_v0(), from);
        let said = ask(&state, None);
        assert_eq!((said.decision, &*said.code), (Decision::Vm, "vm"), "{said:?}");
        state.contents.users[0].keys[0].options = Some(Arc::from("from=\"192.0.2.0/24\""));
        let said = ask(&state, None);
        assert_eq!((said.decision, &*said.code), (Decision::Depends, "source-needed"));
        assert!(said.reason.contains("--from") && said.vm.as_deref() == Some("v0"), "{said:?}");
        assert_eq!(ask(&state, Some("192.0.2.9")).decision, Decision::Vm);
        let said = ask(&state, Some("198.51.100.1"));
        assert_eq!((said.decision, &*said.code), (Decision::Refused, "from"));
        assert_eq!(said.principal.as_deref(), Some("alice"));
        state.revoked.push(0);
        let said = ask(&state, None);
        assert_eq!((said.decision, &*said.code), (Decision::Refused, "revoked"), "{said:?}");
    }
}

#[test]
fn what_a_fingerprint_alone_does_not_say_is_asked_for() {
    let key = KEYS[0].public();
    let ask = |state: &State| {
        let asked = [Asked::Key(key.clone()), Asked::Fingerprint(key.fingerprint())];
        asked.map(|asked| explain(state, asked, at_v0(), None))
    };
    let mut listed = told_state();
    (listed.revoked, listed.by_sha1) = (vec![0], true);
    let mut verified = told_state();
    verified.contents.users[0].keys[0].options = Some(Arc::from("verify-required"));
    for (state, code) in [(&listed, "revoked"), (&verified, "verify-required")] {
        let [by_key, by_fingerprint] = ask(state);
        assert_eq!((by_key.decision, &*by_key.code), (Decision::Refused, code));
        let said = (by_fingerprint.decision, &*by_fingerprint.code);
        assert_eq!(said, (Decision::Depends, "key-needed"), "{by_fingerprint:?}");
        assert!(by_fingerprint.reason.contains("--key FILE"), "{by_fingerprint:?}");
    }
}

#[test]
fn a_login_that_the_door_refuses_at_the_request_is_refused_for_everybody() {
    let (state, now_s) = (told_state(), clock::unix_s());
    let shared = state.shared();
    let live = shared.live.load();
    for (key, login) in [(0, "al\0ice"), (0, "al\nice+v0"), (2, "\u{9b}2J"), (0, &"x".repeat(256))]
    {
        let question = Question {
            asked: Asked::Key(KEYS[key].public().clone()),
            target: at_v0(),
            login: Some(login.to_owned()),
            from: None,
        };
        let said = Walk::new(&shared.table, &live, now_s).explain(&question, Some("vm.test"));
        assert_eq!((said.decision, &*said.code), (Decision::Refused, "login-name"), "{login:?}");
    }
}

#[test]
fn maintenance_is_named_whoever_asks_and_however_the_place_is_given() {
    let key = || Asked::Key(KEYS[0].public().clone());
    let address = || Target::Address("10.0.0.1".to_owned());
    for (vm, code, words) in [
        (true, "vm-maintenance", "VM v0 is in maintenance"),
        (false, "address-maintenance", "address s0 is in maintenance"),
    ] {
        let mut state = told_state();
        state.contents.vms[0].vm.closed = vm;
        state.contents.addresses[0].closed = !vm;
        for target in [at_v0(), address()] {
            let said = explain(&state, key(), target.clone(), None);
            assert_eq!((said.decision, &*said.code), (Decision::Refused, code), "{said:?}");
            let is_named = !vm || matches!(target, Target::Name(_));
            assert_eq!(steps(&said).contains(words), is_named, "{said:?}");
        }
        // Somebody who would not get in anyway hears that first, and reads of the maintenance
        // among the steps.
        let said = explain(&state, Asked::Key(KEYS[2].public().clone()), at_v0(), None);
        assert_eq!(said.code, "not-registered");
        assert!(steps(&said).contains(words), "{said:?}");
    }
}

#[test]
fn whoever_may_enter_by_name_is_told_how() {
    let bob = || Asked::Key(KEYS[1].public().clone());
    let said = explain(&told_state(), bob(), at_v0(), None);
    assert_eq!((said.decision, &*said.code), (Decision::Refused, "no-vm-here"));
    assert!(said.reason.contains("bob may enter v0 by name: ssh LOGIN+v0@"), "{said:?}");
    let said = explain(&told_state(), bob(), Target::Name("v1".to_owned()), None);
    assert_eq!(&*said.code, "no-address");
    assert!(said.reason.contains("LOGIN+v1@"), "{said:?}");
    let stranger = Asked::Key(KEYS[2].public().clone());
    assert!(!explain(&told_state(), stranger, at_v0(), None).reason.contains("LOGIN+"));
}

#[test]
fn a_certificate_is_explained_by_what_is_wrong_with_it() {
    let state = told_state();
    let good = |principals| Comes::Certificate {
        key: 5,
        ca: 0,
        principals,
        dates: 0,
        source: None,
        no_pty: false,
        forged: false,
    };
    let ask = |state: &State, comes: &Comes| {
        explain(state, comes.asked(clock::unix_s()), at_v0(), Some("192.0.2.7"))
    };
    let change = |change: &dyn Fn(&mut Comes)| {
        let mut comes = good(vec!["alice"]);
        change(&mut comes);
        comes
    };
    let said = ask(&state, &good(vec!["root", "alice", "alice"]));
    assert_eq!((said.decision, said.principal.as_deref()), (Decision::Vm, Some("alice")));
    assert!(steps(&said).contains("root (no user), alice (a user)"), "{said:?}");
    for (comes, code) in [
        (good(vec!["root", "admin"]), "principals-unknown"),
        (good(vec!["alice", "bob"]), "principals-several"),
        (change(&|it| set(it, 1, 0, None, false)), "ca-unknown"),
        (change(&|it| set(it, 0, 1, None, false)), "certificate-expired"),
        (change(&|it| set(it, 0, -1, None, false)), "certificate-not-yet"),
        (change(&|it| set(it, 0, 0, Some("10.0.0.0/8"), false)), "source-address"),
        (change(&|it| set(it, 0, 0, None, true)), "ca-signature"),
    ] {
        let said = ask(&state, &comes);
        assert_eq!((said.decision, &*said.code), (Decision::Refused, code), "{said:?}");
    }
    let revoked = State { revoked: vec![100], ..state };
    assert_eq!(ask(&revoked, &good(vec!["alice"])).code, "revoked");
}

fn set(comes: &mut Comes, at: usize, when: i8, from: Option<&'static str>, is_forged: bool) {
    if let Comes::Certificate { ca, dates, source, forged, .. } = comes {
        (*ca, *dates, *source, *forged) = (at, when, from, is_forged);
    }
}
