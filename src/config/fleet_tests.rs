//! Tests of `fleet`: files by themselves, and the same files where the routing map is made of them.

use std::path::PathBuf;

use super::*;
use crate::config::load::load_sources;
use crate::route::{Admission, Carriage, Table, Who};

const KEYS: [&str; 3] = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINILzCr80scSuAcnYpxLu4nnirz6xztusEayvak/vj9f",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKZ4OKVDwhc8rgp0Am0kQ0GiUdVUB4fDN8AuKC8zvZ2B",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINwFXW9EIcBV8PVrDClFmfVhjkzSbXhTVnXbn4gHJbPU",
];

fn file(text: &str) -> Source {
    Source { name: "fleet.toml".to_owned(), order: 1, base: PathBuf::new(), text: text.to_owned() }
}

fn faults(text: &str) -> Vec<String> {
    let report = alone(&file(text)).unwrap_err();
    report.faults.iter().map(ToString::to_string).collect()
}

fn whole() -> String {
    let [alice, bob, carol] = KEYS;
    format!(
        r#"[[address]]
name = "s001"
public = "127.0.77.1"
private = "10.0.0.7"
[[address]]
name = "home"
public = "127.0.77.2"
lobby = true
state = "drain"
origin = "fleet"
[[user]]
name = "alice"
keys = ["{alice} \"laptop\" \\ back"]
[[user]]
name = "bob"
keys = [
    "{bob}",
    "restrict {carol}",
]
[[user]]
name = "carol"
[[team]]
name = "ops"
members = ["bob"]
members_by_name = ["carol"]
origin = "command"
[[node]]
name = "n1"
agent = "10.0.0.21:7022"
agent_key = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
trusted = true
[[node]]
name = "n2"
origin = "fleet"
[[edge]]
name = "e1"
identity = "{alice}"
[[edge]]
name = "e1"
identity = "{bob}"
removed = true
origin = "fleet"
[[vm]]
name = "blue"
owner = "alice"
address = "s001"
ssh = "10.0.0.5:22"
login = "root"
share = ["team:ops"]
node = "n1"
carry = "handoff"
[[vm]]
name = "red"
owner = "team:ops"
no_address = true
ssh = "10.0.0.6:22"
share_by_name = ["alice"]
id = "red_2"
state = "maint"
origin = "fleet"
"#
    )
}

#[test]
fn what_is_written_is_read_and_what_is_read_is_written() {
    let text = whole();
    let (desired, warnings) = alone(&file(&text)).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(desired.to_toml(), text);
    let json = serde_json::to_string(&desired).unwrap();
    assert_eq!(serde_json::from_str::<registry::fleet::Fleet>(&json).unwrap(), desired);
    assert_eq!(desired.len(), 12);
    let blue = &desired.vms[0];
    assert_eq!(
        (blue.shares.as_slice(), blue.no_address),
        (&["team:ops".parse().unwrap()][..], false)
    );
}

#[test]
fn an_owner_that_is_not_in_the_file_may_stand_in_the_registry() {
    let text = "[[vm]]\nname = \"blue\"\nowner = \"team:elsewhere\"\nssh = \"h.example:22\"\n";
    let (desired, _) = alone(&file(text)).unwrap();
    assert_eq!(desired.vms[0].address, None);
}

#[test]
fn a_file_that_says_nothing_is_faulty_and_opens_a_door_all_the_same() {
    for text in ["", "\n# [[user]]\n", "\u{feff}"] {
        let told = faults(text);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("fleet.toml:1: there is nothing in it; fix: "), "{told:?}");
    }
    let config = Source { name: "keyway.toml".to_owned(), order: 0, ..file("") };
    let fleet = load_sources(&config, Some(file(""))).unwrap().fleet.unwrap();
    assert_eq!(fleet.fault().unwrap().to_string(), faults("")[0]);
    let fleet = load_sources(&config, Some(file(&whole()))).unwrap().fleet.unwrap();
    assert_eq!(fleet.fault(), None);
}

#[test]
fn every_fault_of_a_file_is_told_with_its_line() {
    let key = KEYS[0];
    for (text, fault) in [
        ("[[team]]\nmembers = []\n", "1: `team.name` is missing"),
        ("[[team]]\nname = \"Ops\"\n", "2: `team.name` is \"Ops\", which is no name"),
        (
            "[[team]]\nname = \"a\"\nmembers = \"bob\"\n",
            "3: `team.members` is a string, not a list",
        ),
        (
            "[[team]]\nname = \"a\"\nmembers = [\n\"team:b\"]\n",
            "4: `team.members` is \"team:b\", which is no name",
        ),
        (
            "[[team]]\nname = \"a\"\nmembers = [\"b\"]\nmembers_by_name = [\"b\"]\n",
            "4: `b` is named in line 3 already",
        ),
        (
            "[[team]]\nname = \"a\"\n[[team]]\nname = \"a\"\n",
            "4: `team.name` is \"a\", as in line 2",
        ),
        (
            "[[team]]\nname = \"a\"\nmember = [\"b\"]\n",
            "3: unknown key `team.member`; fix: did you mean `members`?",
        ),
        (
            "[[vm]]\nname = \"a\"\nowner = \"x y\"\nssh = \"h:1\"\n",
            "3: `vm.owner` is \"x y\", which is no name",
        ),
        (
            "[[vm]]\nname = \"a\"\nowner = \"b\"\nssh = \"h\"\n",
            "4: `vm.ssh` is \"h\", which is no host:port",
        ),
        (
            "[[vm]]\nname = \"a\"\nowner = \"b\"\nssh = \"h:1\"\nshare = [\"team:\"]\n",
            "5: `vm.share` is \"team:\", which is no name",
        ),
        (
            "[[vm]]\nname = \"a\"\nowner = \"b\"\nssh = \"h:1\"\nlogin = \"\"\n",
            "5: `vm.login` is \"\", which is no login name",
        ),
        (
            "[[vm]]\nname = \"a\"\nowner = \"b\"\nssh = \"h:1\"\nhost_key = \"x\"\n",
            "5: `vm.host_key` is no host key",
        ),
        (
            "[[vm]]\nname = \"a\"\nowner = \"b\"\nssh = \"h:1\"\naddress = \"s\"\nno_address = true\n",
            "6: `vm.no_address` and `vm.address` are both given",
        ),
        (
            "[[address]]\nname = \"a\"\npublic = \"h\"\n",
            "3: `address.public` is \"h\", which is no IP address",
        ),
        (
            "[[address]]\nname = \"a\"\npublic = \"1.2.3.4\"\n[[vm]]\nname = \"a\"\nowner = \"b\"\nssh = \"h:1\"\n",
            "5: `vm.name` is \"a\", as in line 2",
        ),
        (
            &format!(
                "[[user]]\nname = \"a\"\nkeys = [\"{key}\"]\n[[user]]\nname = \"b\"\nkeys = [\"{key}\"]\n"
            ),
            "which stands in line 3 too",
        ),
        ("[[user]]\nname = \"a\"\nkeys = [\"x\"]\n", "3: `user.keys` holds a line that is no key"),
        (
            "[[address]]\nname = \"a\"\npublic = \"fd00::1\"\npublic6 = \"fd00::2\"\n",
            "3: `address.public` is fd00::1, an IPv6 address, beside `public6` fd00::2; fix: write the IPv4",
        ),
        (
            "[[vm]]\nname = \"a\"\nowner = \"b\"\nssh = \"h:1\"\nid = \"a b\"\n",
            "5: `vm.id` is \"a b\", which is no id of a VM",
        ),
        (
            "[[vm]]\nname = \"a\"\nowner = \"b\"\nssh = \"h:1\"\nstate = \"off\"\n",
            "5: `vm.state` is \"off\"; fix: write \"ready\" or \"maint\"",
        ),
        ("[[host]]\n", "1: unknown key `host`"),
        ("x", "1: not TOML"),
    ] {
        let told = faults(text);
        assert!(told.iter().any(|line| line.contains(fault)), "{text}: {told:?}");
        assert_eq!(told.len(), 1, "{text}: {told:?}");
    }
}

#[test]
fn every_fault_about_edges_is_told_with_its_line() {
    let [one, two, _] = KEYS;
    let edge =
        |name: &str, key: &str| format!("[[edge]]\nname = \"{name}\"\nidentity = \"{key}\"\n");
    for (text, fault) in [
        (
            "[[edge]]\nname = \"e\"\n".to_owned(),
            "1: `edge.identity` is missing; fix: add `identity = ",
        ),
        (
            edge("e", "x"),
            "3: `edge.identity` is \"x\", which is no identity of an edge; fix: write the ssh-ed25519 line",
        ),
        (edge("E", one), "2: `edge.name` is \"E\""),
        (edge("e", one) + &edge("e", two), "5: `edge.name` is \"e\", as in line 2"),
        (
            edge("e", one) + &edge("f", one) + "removed = true\n",
            "as in line 3; fix: every agent and",
        ),
    ] {
        let told = faults(&text);
        assert!(told.len() == 1 && told[0].contains(fault), "{text}: {told:?}");
    }
}

#[test]
fn every_fault_about_nodes_is_told_with_its_line() {
    let key = KEYS[0];
    for (text, fault) in [
        ("[[node]]\n", "1: `node.name` is missing"),
        (
            "[[node]]\nname = \"n\"\nagent = \"h:1\"\nagent_key = \"SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"\n",
            "3: `node.agent` is \"h:1\", which is no address of an agent; fix: write an IP address and a port",
        ),
        (
            "[[node]]\nname = \"n\"\nagent = \"10.0.0.1:1\"\nagent_key = \"x\"\n",
            "4: `node.agent_key` is \"x\", which is no key of an agent; fix: write SHA256:...",
        ),
        (
            &format!("[[node]]\nname = \"n\"\nagent_key = \"{key}\"\n"),
            "3: `node.agent_key` is given, and `node.agent` is not; fix: give both",
        ),
        (
            "[[node]]\nname = \"n\"\nagent = \"10.0.0.1:1\"\n[[vm]]\nname = \"a\"\nowner = \"b\"\nssh = \"h:1\"\nnode = \"n\"\ncarry = \"handoff\"\n",
            "9: `vm.carry` is \"handoff\", and node `n` has an agent that this file has no key of; fix: write agent_key",
        ),
        (
            "[[node]]\nname = \"n\"\n[[node]]\nname = \"n\"\n",
            "4: `node.name` is \"n\", as in line 2",
        ),
        (
            &format!(
                "[[node]]\nname = \"n\"\nagent = \"10.0.0.1:1\"\nagent_key = \"{key}\"\n\
                 [[node]]\nname = \"m\"\nagent = \"10.0.0.2:1\"\nagent_key = \"{key}\"\n"
            ),
            "as in line 4; fix: every agent has an identity of its own",
        ),
        (
            "[[vm]]\nname = \"a\"\nowner = \"b\"\nssh = \"h:1\"\ncarry = \"splice\"\n",
            "5: `vm.carry` is \"splice\"; fix: write \"auto\" or \"relay\" or \"handoff\"",
        ),
        (
            "[[vm]]\nname = \"a\"\nowner = \"b\"\nssh = \"h:1\"\ncarry = \"handoff\"\n",
            "5: `vm.carry` is \"handoff\", and the VM has no node; fix: name the VM's `node`",
        ),
        (
            "[[node]]\nname = \"n\"\n[[vm]]\nname = \"a\"\nowner = \"b\"\nssh = \"h:1\"\nnode = \"n\"\ncarry = \"handoff\"\n",
            "8: `vm.carry` is \"handoff\", and node `n` has no agent; fix: write agent and agent_key there (line 1)",
        ),
    ] {
        let told = faults(text);
        assert!(told.len() == 1 && told[0].contains(fault), "{text}: {told:?}");
    }
}

/// The file checked beside a `keyway.toml` that says nothing.
fn checked(text: &str) -> Result<Table, Vec<String>> {
    let config = Source {
        name: "keyway.toml".to_owned(),
        order: 0,
        base: PathBuf::new(),
        text: String::new(),
    };
    match load_sources(&config, Some(file(text))) {
        Ok(loaded) => {
            let table = Table::new();
            table.apply(loaded.fleet.unwrap().snapshot);
            Ok(table)
        }
        Err(report) => Err(report.faults.iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn teams_and_shares_open_ways_in() {
    let [alice, bob, carol] = KEYS
        .map(|key| crate::ssh::publickey::PublicKey::parse_line(key).unwrap().0.fingerprint().0);
    let text = whole()
        .replace("name = \"carol\"\n", &format!("name = \"carol\"\nkeys = [\"{}\"]\n", KEYS[2]));
    let text = text.replace(&format!("    \"restrict {}\",\n", KEYS[2]), "");
    let table = checked(&text.replace("state = \"maint\"\n", "")).unwrap();
    let at = table.address("10.0.0.7".parse().unwrap()).unwrap();
    let vm = |key, login: &str| match table.admit(Who::Key(key), &at, login) {
        Some(Admission::Vm(admitted)) => Some(admitted.vm.name.clone()),
        Some(Admission::Lobby { .. }) | None => None,
    };
    let blue = Some("blue".to_owned());
    let red = Some("red".to_owned());
    assert_eq!([vm(alice, "x"), vm(bob, "x"), vm(carol, "x")], [blue.clone(), blue.clone(), None]);
    for (key, name, found) in [
        (carol, "x+blue", &blue),
        (carol, "x+red", &red),
        (bob, "x+red", &red),
        (alice, "x+red", &red),
    ] {
        assert_eq!(vm(key, name), *found, "{name}");
    }
}

#[test]
fn what_lies_on_a_trusted_node_with_an_agent_is_handed_off() {
    let carried = |text: &str| {
        let table = checked(text).unwrap();
        ["blue", "red"].map(|name| match table.carriage(&table.vm(name).unwrap()) {
            Some(Carriage::Handoff(node)) => format!("handoff to {}", node.agent),
            Some(Carriage::Relay) => "relay".to_owned(),
            None => panic!("{name} cannot be carried"),
        })
    };
    let handoff = "handoff to 10.0.0.21:7022".to_owned();
    assert_eq!(carried(&whole()), [handoff.clone(), "relay".to_owned()]);
    let auto = whole().replace("carry = \"handoff\"\n", "");
    assert_eq!(carried(&auto), [handoff, "relay".to_owned()]);
    let relay = "relay".to_owned();
    assert_eq!(carried(&auto.replace("trusted = true\n", "")), [relay.clone(), relay]);
}

#[test]
fn whoever_is_nobody_is_told_at_the_line_that_names_them() {
    let base = "[[user]]\nname = \"alice\"\nkeys = []\n";
    for (text, fault) in [
        (
            "[[team]]\nname = \"t\"\nmembers = [\"alice\",\n\"bob\"]\n",
            "7: member `bob` is not a user; fix: name a [[user]]",
        ),
        ("[[team]]\nname = \"t\"\nmembers_by_name = [\"bob\"]\n", "6: member `bob` is not a user"),
        (
            "[[team]]\nname = \"t\"\nmembers = [\"alice\", \"alice\"]\n",
            "6: `alice` is named in line 6 already",
        ),
        (
            "[[vm]]\nname = \"v\"\nowner = \"team:t\"\nssh = \"10.0.0.1:22\"\n",
            "6: owner `team:t` is not known",
        ),
        (
            "[[vm]]\nname = \"v\"\nowner = \"alice\"\nssh = \"10.0.0.1:22\"\nshare = [\n\"bob\"]\n",
            "9: principal `bob` is not known",
        ),
        (
            "[[vm]]\nname = \"v\"\nowner = \"alice\"\nssh = \"10.0.0.1:22\"\nshare_by_name = [\"team:x\"]\n",
            "8: principal `team:x` is not known",
        ),
        (
            "[[vm]]\nname = \"v\"\nowner = \"alice\"\nssh = \"10.0.0.1:22\"\n\
             [[vm]]\nname = \"w\"\nowner = \"alice\"\nssh = \"10.0.0.1:22\"\nid = \"v\"\n",
            "12: id `v` is already another VM's; fix: give it another `id`",
        ),
        (
            "[[vm]]\nname = \"v\"\nowner = \"alice\"\nssh = \"10.0.0.1:22\"\nnode = \"n\"\n",
            "8: node `n` is not known; fix: name a [[node]] of this file",
        ),
        (
            "[[node]]\nname = \"n\"\nagent = \"h\"\nagent_key = \"SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"\n\
             [[vm]]\nname = \"v\"\nowner = \"alice\"\nssh = \"10.0.0.1:22\"\nnode = \"n\"\n",
            "`node.agent` is",
        ),
        (
            "[[node]]\nname = \"n\"\n[[vm]]\nname = \"v\"\nowner = \"alice\"\n\
             ssh = \"10.0.0.1:22\"\nnode = \"n\"\ncarry = \"handoff\"\n",
            "11: `vm.carry` is \"handoff\", and node `n` has no agent",
        ),
    ] {
        let told = checked(&format!("{base}{text}")).map(drop).unwrap_err();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains(fault), "{told:?}");
    }
}
