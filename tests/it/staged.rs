//! A large commit goes to one agent first: the others have what it takes away, and the rest later.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use crate::feed::{hears_of, world};
use crate::handoff::{ends, stays, take_alices_key};
use crate::harness::world::page_at;
use crate::harness::{Process, World, wait};
use crate::operations::{keyway, reload, replace};

/// An agent of another node, which nobody's sessions go to.
struct Other {
    metrics: SocketAddr,
    _process: Process,
}

impl Other {
    /// Has the front door know it, and starts it.
    fn start(world: &mut World) -> Self {
        let (at, metrics) = (world.spare(45), world.spare(46));
        let config = world.path("agent2.toml");
        let text = fs::read_to_string(world.path("agent.toml")).expect("agent.toml");
        let (text, _) = text.split_once("[metrics]").expect("where it is measured");
        let text = text
            .replace("agent_state", "agent2_state")
            .replace(&world.agent_at().to_string(), &at.to_string());
        fs::write(&config, format!("{text}[metrics]\nlisten = \"{metrics}\"\n")).expect("a file");
        let key = world.identity("agent2.toml", &["--fingerprint"]);
        more(
            world,
            &format!(
                "[[node]]\nname = \"n2\"\nagent = \"{at}\"\nagent_key = \"{key}\"\ntrusted = true\n"
            ),
        );
        reload(world);
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyway"));
        command.arg("agent").arg("--config").arg(config);
        let process = Process::start("agent2", world.dir(), &mut command);
        wait::until("the agent", wait::SOON, || process.log().contains("is up"));
        let follow = || world.page("/metrics").contains("keyway_feed_followers 2\n");
        wait::until("both follow", wait::SOON, follow);
        Self { metrics, _process: process }
    }

    fn has(&self, vms: usize) {
        let all = format!("keyway_vms {vms}\n");
        wait::until("the VMs", wait::SOON, || page_at(self.metrics, "/metrics").contains(&all));
    }
}

/// Says more in the fleet file.
fn more(world: &World, text: &str) {
    let fleet = fs::read_to_string(world.path("fleet.toml")).expect("the fleet");
    fs::write(world.path("fleet.toml"), format!("{fleet}\n{text}")).expect("the fleet");
}

/// So many VMs on `n2`, and one on `n1`.
fn large(world: &mut World, vms: usize) {
    let mut text = String::new();
    for n in 0..=vms {
        let (name, node) = if n == vms { ("late", "n1") } else { ("vm", "n2") };
        let _ = write!(
            text,
            "[[vm]]\nname = \"{name}{n}\"\nowner = \"alice\"\nno_address = true\nssh = \"127.0.0.1:9\"\nnode = \"{node}\"\n"
        );
    }
    more(world, &text);
    reload(world);
}

fn watches_for(world: &mut World, seconds: u32) -> Other {
    replace(&world.path("keyway.toml"), "[api]\n", &format!("[api]\ncanary_s = {seconds}\n"));
    world.restart();
    hears_of(world, 1);
    Other::start(world)
}

fn staged(world: &World) -> String {
    keyway(world, &["node", "staged", "--output", "json"]).ok().text()
}

#[test]
fn a_right_that_is_taken_away_ends_its_session_where_a_large_commit_has_not_come() {
    let Some(mut world) = world() else { return };
    let other = watches_for(&mut world, 600);
    let (mut ssh, said) = stays(&world);
    large(&mut world, 40);
    other.has(40);
    let shown = staged(&world);
    assert!(shown.contains("\"canary\":\"n2\"") && shown.contains("\"waiting\":1"), "{shown}");
    assert!(world.page("/metrics").contains("keyway_feed_staged{state=\"waiting\"} 1\n"));
    assert!(world.agent_page().contains("keyway_vms 1\n"), "it has not come");
    take_alices_key(&world);
    reload(&mut world);
    ends(&mut ssh);
    let said = fs::read_to_string(said).expect("what ssh said");
    assert!(said.contains("your access to blue was taken away"), "{said}");
    assert!(world.agent_page().contains("keyway_vms 1\n"), "nor has it now");
    // Rights first, the disk after.
    let denied = world.path("agent_state").join("denied.known");
    wait::until("what is denied is kept", wait::SOON, || denied.exists());
    // What was taken away does not come back from the disk.
    world.restart_agent();
    assert!(world.agent_log().contains("what was taken away is refused still"));
    hears_of(&mut world, 1);
    // With everything come, nothing is refused beside it.
    let done = keyway(&world, &["node", "release"]).ok().text();
    assert!(done.contains("what waited goes to all agents"), "{done}");
    hears_of(&mut world, 2);
    wait::until("nothing is denied", wait::SOON, || !denied.exists());
    assert_eq!(staged(&world).trim(), "[]");
    let nothing = keyway(&world, &["node", "release"]).ok();
    assert!(nothing.stderr.contains("no large commit waits"), "{nothing:?}");
    let audit = keyway(&world, &["audit", "list"]).ok().text();
    assert!(audit.contains("node-release"), "{audit}");
}

#[test]
fn a_large_commit_goes_to_all_once_an_agent_was_well_with_it() {
    let Some(mut world) = world() else { return };
    let other = watches_for(&mut world, 1);
    large(&mut world, 40);
    other.has(40);
    hears_of(&mut world, 2);
    let log = world.log();
    assert!(log.contains("a large commit goes to one agent first"), "{log}");
    assert!(log.contains("a large commit goes to all: an agent is well with it"), "{log}");
}
