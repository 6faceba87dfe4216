//! Tests of `node`: what carries a session, and what nodes and VMs must not say of each other.

use super::*;
use crate::route::Change::{self, PutNode, PutVm, RemoveNode, RemoveVm};
use crate::route::testing::{carried, contents, node, table, vm};
use crate::route::{Changed, Contents, Delta, Pin, Snapshot, SourceAddress, Table, VmEntry};

fn on(name: &str, node: Option<&str>, carry: Carry) -> VmEntry {
    let entry = vm(name, "carol", "s001");
    VmEntry { vm: Vm { node: node.map(Arc::from), carry, ..entry.vm }, slots: Vec::new(), ..entry }
}

/// Three nodes: trusted, not trusted, without an agent. Carol's VMs `a` to `d` lie on
/// them and on none.
fn hosts() -> Contents {
    let mut contents = contents();
    let plain = NodeEntry { agent: None, ..node("n3", 3, true) };
    contents.nodes = vec![node("n1", 1, true), node("n2", 2, false), plain];
    let at = [Some("n1"), Some("n2"), Some("n3"), None];
    let vms = ["a", "b", "c", "d"].into_iter().zip(at);
    contents.vms.extend(vms.map(|(name, node)| on(name, node, Carry::Auto)));
    contents
}

fn change(table: &Table, changes: Vec<Change>) -> Changed {
    table.change(Delta { changes }).unwrap()
}

fn refused(table: &Table, changes: Vec<Change>) -> Vec<String> {
    let (revision, found) = (table.revision(), table.change(Delta { changes }).unwrap_err());
    assert_eq!(table.revision(), revision);
    found.iter().map(|it| format!("{:?}: {it}", it.at)).collect()
}

fn carries(table: &Table, name: &str) -> String {
    carried(table, &table.vm(name).unwrap())
}

#[test]
fn a_session_is_handed_off_where_a_trusted_node_has_an_agent_and_relayed_elsewhere() {
    let table = table(hosts());
    let all = ["a", "b", "c", "d"].map(|name| carries(&table, name));
    assert_eq!(all, ["handoff to n1 at 127.0.77.1:7022", "relay", "relay", "relay"]);
    change(&table, vec![PutVm(on("a", Some("n1"), Carry::Relay))]);
    assert_eq!(carries(&table, "a"), "relay");
    change(&table, vec![PutVm(on("a", Some("n1"), Carry::Handoff))]);
    assert_eq!(carries(&table, "a"), "handoff to n1 at 127.0.77.1:7022");
    let key = table.node("n1").map(|node| node.agent_key);
    assert_eq!((key, table.node("n3"), table.node("none")), (Some([1; 32]), None, None));
}

#[test]
fn a_node_that_changes_changes_what_carries_the_vms_that_lie_on_it() {
    let table = table(hosts());
    let before = table.vm("a").unwrap();
    let lost = change(&table, vec![PutNode(node("n1", 1, false)), PutNode(node("n2", 2, true))]);
    assert!(lost.takes_away, "sessions were handed off to n1");
    assert_eq!((carries(&table, "a"), carries(&table, "b").contains("n2")), ("relay".into(), true));
    assert!(Arc::ptr_eq(&before, &table.vm("a").unwrap()));
    assert!(!change(&table, vec![PutNode(node("n1", 1, true))]).takes_away);
    let same = change(&table, vec![PutNode(node("n1", 1, true))]);
    assert_eq!((same.revision, same.takes_away), (table.revision(), false));
    // The same name with another identity, and none at all.
    assert!(change(&table, vec![PutNode(node("n1", 4, true))]).takes_away);
    assert_eq!(carries(&table, "a"), "handoff to n1 at 127.0.77.4:7022");
    let off = |name| PutVm(on(name, None, Carry::Auto));
    assert!(change(&table, vec![off("a"), RemoveNode("n1".into())]).takes_away);
    assert!(!change(&table, vec![off("c"), RemoveNode("n3".into())]).takes_away);
}

#[test]
fn a_vm_that_is_another_one_by_now_is_never_carried_in_another_way_than_it_says() {
    let table = table(hosts());
    let (auto, handoff) = (on("a", Some("n1"), Carry::Auto), on("e", Some("n1"), Carry::Handoff));
    change(&table, vec![PutVm(handoff.clone())]);
    let moved = PutVm(on("e", Some("n1"), Carry::Auto));
    change(&table, vec![moved, PutNode(node("n1", 1, false))]);
    assert_eq!((carried(&table, &auto.vm), table.carriage(&handoff.vm)), ("relay".into(), None));
    let gone = ["a", "e"].map(|name| RemoveVm(name.into()));
    change(&table, gone.into_iter().chain([RemoveNode("n1".into())]).collect());
    assert_eq!((table.carriage(&auto.vm), table.carriage(&handoff.vm)), (None, None));
}

#[test]
fn nodes_and_vms_that_contradict_each_other_are_refused_in_a_snapshot_and_in_a_delta() {
    let table = table(hosts());
    let handoff = |node| on("e", node, Carry::Handoff);
    let cases: [(Vec<Change>, &[&str]); 9] = [
        (vec![PutVm(on("e", Some("n9"), Carry::Relay))], &["node `n9` is not known"]),
        (vec![PutVm(handoff(None))], &["carry is handoff, but the VM has no node"]),
        (vec![PutVm(handoff(Some("n2")))], &["carry is handoff, but the node is not trusted"]),
        (vec![PutVm(handoff(Some("n3")))], &["carry is handoff, but the node has no agent"]),
        (vec![PutNode(node("N", 9, true))], &["name `N` is not a DNS label"]),
        (
            vec![PutNode(node("n4", 1, true))],
            &["agent key 0101010101010101 is already that of node `n1`"],
        ),
        (vec![RemoveNode("n2".into())], &["`n2` is still named by VMs, 1 of them"]),
        (
            vec![PutVm(handoff(Some("n1"))), PutNode(node("n1", 1, false))],
            &[
                "carry is handoff, but the node is not trusted",
                "node `n1` holds VMs whose carry is handoff, 1 of them, but the node is not trusted",
            ],
        ),
        (
            vec![PutVm(handoff(Some("n1"))), RemoveNode("n1".into())],
            &["node `n1` is not known", "`n1` is still named by VMs, 2 of them"],
        ),
    ];
    for (changes, expected) in cases {
        let told = refused(&table, changes);
        let told: Vec<_> = told.iter().map(|text| text.split_once(": ").unwrap().1).collect();
        assert_eq!(told, expected);
    }
    // Where one node's key is given up, another may have it.
    change(&table, vec![PutNode(node("n1", 2, true)), PutNode(node("n2", 1, false))]);

    let mut contents = hosts();
    contents.nodes.extend([node("n1", 8, true), node("n5", 1, true)]);
    contents.vms.extend([handoff(None), on("f", Some("n9"), Carry::Auto)]);
    let found = Snapshot::new(contents).unwrap_err();
    let told: Vec<_> = found.iter().map(|it| format!("{:?}: {it}", it.at)).collect();
    assert_eq!(
        told,
        [
            "Node(3): name `n1` is already taken by another node",
            "Node(4): agent key 0101010101010101 is already that of node `n1`",
            "Vm(7): carry is handoff, but the VM has no node",
            "Vm(8): node `n9` is not known",
        ]
    );
}

#[test]
fn the_name_of_a_node_is_one_text_for_all_vms_that_lie_on_it() {
    let mut contents = hosts();
    contents.vms.push(on("e", Some("n1"), Carry::Auto));
    let table = table(contents);
    let [one, other] = ["a", "e"].map(|name| table.vm(name).unwrap().node.clone().unwrap());
    assert!(Arc::ptr_eq(&one, &other));
}

/// Whoever compares two maps must see every change but those that are one's own.
#[test]
fn a_vms_entry_is_another_one_with_whatever_both_maps_ought_to_have() {
    let plain = on("a", Some("n1"), Carry::Auto).vm;
    let of = |change: &dyn Fn(&mut Vm)| {
        let mut vm = plain.clone();
        change(&mut vm);
        vm.entry()
    };
    let same = plain.entry();
    assert_eq!(of(&|vm| vm.host_key = Some(Pin::Fingerprint([1; 32]))), same);
    assert_eq!(of(&|vm| vm.address = None), of(&|vm| vm.address = Some("s009".into())));
    let changes: [&dyn Fn(&mut Vm); 9] = [
        &|vm| vm.id.push('x'),
        &|vm| vm.name.push('x'),
        &|vm| vm.owner.push('x'),
        &|vm| vm.endpoint.push('1'),
        &|vm| vm.login = Some("root".into()),
        &|vm| vm.source_address = Some(SourceAddress::Own),
        &|vm| vm.closed = !vm.closed,
        &|vm| vm.carry = Carry::Handoff,
        &|vm| vm.node = None,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert_ne!(of(change), same, "{number}");
    }
}
