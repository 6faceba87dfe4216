//! Who may hand sessions to agents: edges in one registry, and what becomes of one that is removed.

use std::fs;
use std::process::Command;

use crate::feed::{hears_of, world};
use crate::handoff::{ends, stays_at};
use crate::harness::{Output, World, run_with_input, wait};
use crate::operations::{keyway, offline};
use crate::signing::beside;

/// What users read of an edge that was removed.
const WORD: &str = "this server may not connect anybody to";

/// Alice's way in, once or as often as it takes.
fn gets_in(world: &World, address: &str) {
    let target = world.target("alice", address);
    wait::until("a way in", wait::SOON, || target.ssh(&[], "echo in").stdout == b"in\n");
}

#[track_caller]
fn is_told(world: &World, address: &str, text: &str) {
    let output = world.target("alice", address).ssh(&[], "echo in");
    assert!(output.status != 0 && output.stderr.contains(text), "{}", output.stderr);
}

/// Name and state of all edges.
fn edges(world: &World) -> Vec<(String, String)> {
    let list = keyway(world, &["edge", "list", "--output", "json"]).ok().text();
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    let text = |edge: &serde_json::Value, key: &str| edge[key].as_str().expect("a text").to_owned();
    let all = list.as_array().expect("a list").iter();
    all.map(|edge| (text(edge, "name"), text(edge, "state"))).collect()
}

fn add(world: &World, name: &str, identity: &str) -> Output {
    let line = world.path("identity.pub");
    fs::write(&line, identity).expect("a line");
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyway"));
    command.args(["edge", "add", name, "--identity", "-", "--config"]);
    run_with_input(command.arg(world.path("keyway.toml")), &line)
}

/// The store, and what tells that there was one.
fn forget_store(world: &World) {
    for entry in fs::read_dir(world.path("state")).expect("its state_dir").flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        if file.starts_with("registry.db") || file.starts_with("routes.") {
            fs::remove_file(entry.path()).expect("a file");
        }
    }
}

/// Neither shares a store with the other: what the agent follows says who both are.
#[test]
fn an_agent_admits_two_edges_of_one_registry_and_drops_the_one_that_is_removed() {
    if World::is_passed_by() {
        return;
    }
    let plan = World::plan().address("s001").address("s002").user("alice");
    let plan = plan.vm("blue", "alice", "s001").vm("red", "alice", "s002");
    let mut world = plan.followed().start();
    let mut identity = String::new();
    let second = beside(&mut world, |_, second| second.clone_into(&mut identity));
    hears_of(&mut world, 2);
    assert_eq!(edges(&world).len(), 1, "who serves registers itself");
    // What to do about one that is unknown stands where an operator looks.
    is_told(&world, "s002", "its host does not take sessions");
    let hint = "is none of agent's edges: `keyway edge list` at control";
    wait::until("the agent's line", wait::SOON, || world.agent_log().contains(hint));
    assert!(second.log().contains("`keyway edge add`"), "{}", second.log());

    add(&world, "edge2", &identity).ok();
    gets_in(&world, "s002");
    gets_in(&world, "s001");
    let ((mut red, said), (mut blue, _)) = (stays_at(&world, "s002"), stays_at(&world, "s001"));
    keyway(&world, &["edge", "rm", "edge2"]).ok();
    ends(&mut red);
    let said = fs::read_to_string(said).expect("what ssh said");
    assert!(said.contains(WORD), "{said}");
    let cut = || world.agent_log().contains("\"detail\":\"trusted no more\"");
    wait::until("the link's end", wait::SOON, cut);
    is_told(&world, "s002", "its host does not take sessions");
    // The other one is not touched.
    gets_in(&world, "s001");
    assert!(blue.try_wait().expect("ssh").is_none());
    blue.kill().expect("ssh");
    ends(&mut blue);
}

/// What the agent knows of edges is on its disk, or nothing of them is.
fn an_agent_that_starts_while_control_is_away(is_full: bool) {
    if World::is_passed_by() {
        return;
    }
    let plan = World::plan().address("s001").address("s002").user("alice");
    let plan = plan.vm("blue", "alice", "s001").vm("red", "alice", "s002");
    let mut world = plan.followed().start();
    let mut identity = String::new();
    let _second = beside(&mut world, |_, second| second.clone_into(&mut identity));
    hears_of(&mut world, 2);
    add(&world, "edge2", &identity).ok();
    gets_in(&world, "s002");
    let unsaved = |world: &World| !world.agent_page().contains("keyway_routes_unsaved_seconds 0\n");
    assert!(!unsaved(&world), "{}", world.agent_page());
    if is_full {
        // Where it writes what is to take the place of what it knows.
        fs::create_dir(world.path("agent_state").join("front_door.new")).expect("in the way");
    }
    keyway(&world, &["edge", "rm", "edge2"]).ok();
    let cut = || world.agent_log().contains("\"detail\":\"trusted no more\"");
    wait::until("the link's end", wait::SOON, cut);
    wait::until("what the disk says", wait::SOON, || unsaved(&world) == is_full);
    if is_full {
        let said = || world.agent_log().contains("a restart has nothing of it");
        wait::until("what a restart would lose", wait::SOON, said);
    }
    world.kill();
    world.restart_agent();
    assert!(world.agent_page().contains("keyway_feed_connected 0\n"));
    is_told(&world, "s002", "its host does not take sessions");
}

#[test]
fn an_agent_that_starts_while_control_is_away_does_not_bring_a_removed_edge_back() {
    an_agent_that_starts_while_control_is_away(false);
}

#[test]
fn an_agent_whose_disk_was_full_when_an_edge_was_removed_does_not_bring_it_back_either() {
    an_agent_that_starts_while_control_is_away(true);
}

#[test]
fn a_front_door_whose_identity_is_removed_says_so_and_hands_nothing_over_until_it_is_added_again() {
    let Some(mut world) = world() else { return };
    let (name, state) = edges(&world).remove(0);
    assert_eq!(state, "admitted");
    assert!(keyway(&world, &["status"]).ok().text().contains(&format!("is edge {name}")));
    let (mut ssh, said) = stays_at(&world, "s001");
    keyway(&world, &["edge", "rm", &name]).ok();
    ends(&mut ssh);
    let said = fs::read_to_string(said).expect("what ssh said");
    assert!(said.contains(WORD), "{said}");
    let is_removed = |world: &World| {
        is_told(world, "s001", WORD);
        let status = keyway(world, &["status"]);
        let fix = format!("`keyway edge add {name} --identity 'ssh-ed25519 ");
        assert!(status.text().contains(&fix), "{}", status.ends(1).text());
        assert!(world.log().contains("was removed at"), "{}", world.log());
        assert!(world.page("/metrics").contains("keyway_edge_admitted 0\n"));
        let key = world.path("alice.pub").display().to_string();
        let why = keyway(world, &["explain", "--key", &key, "--name", "blue"]);
        assert!(why.text().contains("no session is handed to an agent"), "{}", why.text());
        assert_eq!(edges(world), [(name.clone(), "removed".to_owned())]);
        let check = offline(world, &["check"]);
        assert!(check.ok().text().contains("identity of this front door"), "no warning");
    };
    is_removed(&world);
    // Neither a start nor a registry that is begun anew is a way back.
    world.restart();
    is_removed(&world);
    world.kill();
    forget_store(&world);
    world.restart();
    assert_eq!(edges(&world), [(name.clone(), "removed".to_owned())]);
    is_told(&world, "s001", WORD);
    // The agent believes the registry that was there, until it is told otherwise.
    for file in ["routes.snapshot", "routes.journal"] {
        fs::remove_file(world.path("agent_state").join(file)).expect("a file");
    }
    world.restart_agent();
    hears_of(&mut world, 1);
    add(&world, &name, &world.identity("keyway.toml", &[])).ok();
    gets_in(&world, "s001");
    assert!(keyway(&world, &["status"]).ok().text().contains(&format!("is edge {name}")));
}

/// A backup of when it was admitted.
#[test]
fn an_edge_that_was_removed_does_not_come_back_with_a_backup() {
    let Some(mut world) = world() else { return };
    let (name, _) = edges(&world).remove(0);
    let backup = world.path("backup.db").display().to_string();
    offline(&world, &["store", "backup", &backup]).ok();
    keyway(&world, &["edge", "rm", &name]).ok();
    world.kill();
    offline(&world, &["store", "restore", &backup]).ok();
    offline(&world, &["store", "adopt"]).ok();
    world.restart();
    let is_told_of = || world.log().contains("was removed after the backup: it stays so");
    wait::until("a line in the log", wait::SOON, is_told_of);
    assert_eq!(edges(&world), [(name.clone(), "removed".to_owned())]);
    is_told(&world, "s001", WORD);
    let audit = keyway(&world, &["audit", "list"]).ok().text();
    assert!(audit.contains("edge-rm"), "{audit}");
    // Nor where it was put back by hand, and nothing tells that the store is another one.
    world.kill();
    forget_store(&world);
    fs::copy(&backup, world.path("state").join("registry.db")).expect("a copy");
    world.restart();
    assert_eq!(edges(&world), [(name.clone(), "removed".to_owned())]);
    is_told(&world, "s001", WORD);
}
