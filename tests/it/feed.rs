//! An agent that follows the front door it takes sessions from: nothing of who may go where stands
//! in its own files.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;

use crate::agent_drain::status;
use crate::handoff::{ends, stays, take_alices_key};
use crate::harness::target::login;
use crate::harness::wire::{Kind, Passing, To, Wire};
use crate::harness::{World, process, wait};
use crate::operations::{offline, reload, replace};

pub(crate) fn world() -> Option<World> {
    let mut world = (!World::is_passed_by()).then(|| World::usual_plan().followed().start())?;
    follows(&mut world);
    Some(world)
}

/// Waits until the agent has what the front door has.
fn follows(world: &mut World) {
    hears_of(world, 1);
}

/// The same, of so many VMs.
pub(crate) fn hears_of(world: &mut World, vms: usize) {
    let connected = || world.agent_page().contains("keyway_feed_connected 1\n");
    wait::until("the feed", wait::SOON, connected);
    let all = format!("keyway_vms {vms}\n");
    wait::until("the VMs", wait::SOON, || world.agent_page().contains(&all));
}

/// The VM's host key is pinned on the way: at control, where it can be seen.
#[test]
fn a_session_is_handed_to_an_agent_that_judges_by_the_feed() {
    let Some(mut world) = world() else { return };
    let target = world.target("alice", "s001");
    assert_eq!(target.ssh(&[], "echo \"$KEYWAY_VM\"").ok().text(), "blue");
    let handed = || world.log().contains("\"carry\":\"splice\"");
    wait::until("the line", wait::SOON, handed);
    assert!(world.page("/metrics").contains("keyway_feed_followers 1\n"));
    let names = fs::read_dir(world.path("agent_state")).expect("its state_dir").flatten();
    let names: Vec<PathBuf> = names.map(|entry| entry.file_name().into()).collect();
    assert!(!names.contains(&"vm_host_keys".into()), "nothing is pinned there: {names:?}");
    take_alices_key(&world);
    let (mut ssh, said) = stays(&world);
    reload(&mut world);
    ends(&mut ssh);
    let said = fs::read_to_string(said).expect("what ssh said");
    // The edge has no key to say it with.
    assert!(said.contains("your access to blue was taken away"), "{said}");
}

/// An agent knows the whole pool: a VM is entered by its name at any address.
#[test]
fn a_vm_is_entered_by_name_at_an_address_that_no_vm_of_the_node_has() {
    if World::is_passed_by() {
        return;
    }
    let plan = World::usual_plan().address("s002").followed();
    let mut world = plan.start();
    follows(&mut world);
    let login = format!("User={}+blue", login());
    let reached = world.target("alice", "s002").ssh(&["-o", &login], "echo $KEYWAY_VM").ok();
    assert_eq!(reached.text(), "blue");
    wait::until("the line", wait::SOON, || world.log().contains("\"carry\":\"splice\""));
}

#[test]
fn a_key_that_is_revoked_at_the_front_door_ends_its_sessions_at_the_agent() {
    let Some(mut world) = world() else { return };
    let (mut ssh, said) = stays(&world);
    fs::write(world.path("revoked"), world.key("alice").public_line()).expect("a list");
    let text = fs::read_to_string(world.path("keyway.toml")).expect("keyway.toml");
    let more = format!("[edge]\nrevoked_keys = \"{}\"\n", world.path("revoked").display());
    fs::write(world.path("keyway.toml"), text.replace("[edge]\n", &more)).expect("keyway.toml");
    reload(&mut world);
    ends(&mut ssh);
    let said = fs::read_to_string(said).expect("what ssh said");
    assert!(said.contains("taken away") || said.contains("revoked"), "{said}");
}

#[test]
fn an_agent_starts_while_control_is_away_and_goes_on_when_it_is_back() {
    let Some(mut world) = world() else { return };
    let target = world.target("alice", "s001");
    assert_eq!(target.ssh(&[], "echo in").ok().text(), "in");
    has_all(&world);
    world.kill();
    world.restart_agent();
    let log = world.agent_log();
    assert!(log.contains("the routes are those that control sent last"), "{log}");
    let page = world.agent_page();
    assert!(
        page.contains("keyway_feed_connected 0\n") && page.contains("keyway_vms 1\n"),
        "{page}"
    );
    world.restart();
    follows(&mut world);
    let (mut ssh, _) = stays(&world);
    assert_eq!(target.ssh(&[], "echo again").ok().text(), "again");
    // The next one takes over what was saved, under a session that goes on.
    let before = world.replace_agent();
    follows(&mut world);
    assert_eq!(target.ssh(&[], "echo new").ok().text(), "new");
    assert!(ssh.try_wait().expect("ssh").is_none(), "{}", before.log());
    ssh.kill().expect("ssh");
    ends(&mut ssh);
}

/// Waits until the agent has all that control has.
fn has_all(world: &World) {
    let known = |page: &str, name: &str| {
        page.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
    };
    wait::until("the revision", wait::SOON, || {
        let there = known(&world.page("/metrics"), "keyway_registry_revision ");
        there.is_some() && known(&world.agent_page(), "keyway_feed_revision ") == there
    });
}

/// What it has it shows by a digest: who told it is asked by nobody.
#[test]
fn after_an_upgrade_of_control_an_agent_goes_on_with_what_it_has() {
    let Some(mut world) = world() else { return };
    let target = world.target("alice", "s001");
    assert_eq!(target.ssh(&[], "echo in").ok().text(), "in");
    has_all(&world);
    world.kill();
    // The agent too has nothing but what is on its disk.
    world.restart_agent();
    world.upgrade();
    follows(&mut world);
    let page = world.page("/metrics");
    let came = |how: &str, count: u64| format!("keyway_feed_came_total{{how=\"{how}\"}} {count}\n");
    assert!(page.contains(&came("went_on", 1)) && page.contains(&came("anew", 0)), "{page}");
    // What comes then comes as a change.
    let fleet = fs::read_to_string(world.path("fleet.toml")).expect("the fleet");
    let more = format!("{fleet}\n[[user]]\nname = \"zoe\"\n");
    fs::write(world.path("fleet.toml"), more).expect("the fleet");
    reload(&mut world);
    has_all(&world);
    assert!(world.page("/metrics").contains(&came("anew", 0)));
    assert_eq!(target.ssh(&[], "echo again").ok().text(), "again");
}

/// What an operator says at control is said once: agents believe the store that was restored.
#[test]
fn a_store_that_was_adopted_at_control_is_followed_and_no_other() {
    let Some(mut world) = world() else { return };
    let backup = world.path("backup.db").display().to_string();
    offline(&world, &["store", "backup", &backup]).ok();
    // One more revision that the agent has, and the backup has not.
    let fleet = fs::read_to_string(world.path("fleet.toml")).expect("the fleet");
    let more = format!("{fleet}\n[[user]]\nname = \"zoe\"\n");
    fs::write(world.path("fleet.toml"), more).expect("the fleet");
    reload(&mut world);
    has_all(&world);
    world.kill();
    offline(&world, &["store", "restore", &backup]).ok();
    offline(&world, &["store", "adopt"]).ok();
    world.restart();
    let adopted = || world.agent_log().contains("control has adopted another store");
    wait::until("the adoption", wait::SOON, adopted);
    follows(&mut world);
    assert_eq!(world.target("alice", "s001").ssh(&[], "echo in").ok().text(), "in");
    // A store that is new there was adopted in nobody's place.
    world.kill();
    fs::rename(world.path("state"), world.path("elsewhere")).expect("a state directory");
    world.restart();
    let refused = || world.agent_log().contains("in whose place it was not adopted there");
    wait::until("the refusal", wait::SOON, refused);
    assert!(world.agent_page().contains("keyway_feed_connected 0\n"));
}

/// Has the agent follow through a wire; edge and agent reach each other as before.
fn wire_the_feed(world: &mut World) -> Wire {
    let config = world.path("agent.toml");
    let text = fs::read_to_string(&config).expect("agent.toml");
    let (_, rest) = text.split_once("url = \"https://").expect("where control is");
    let control: SocketAddr = rest.split('"').next().expect("a line").parse().expect("an address");
    // The certificate is of the IP.
    let at = SocketAddr::new(control.ip(), control.port() + 1);
    let wire = Wire::lay(at, To::Door(control), Passing::Whole);
    replace(&config, &control.to_string(), &at.to_string());
    world.restart_agent();
    follows(world);
    wire
}

/// Control is away and nothing else: the agent goes on by what it knows, however old that is, and
/// says how old.
#[test]
fn without_the_feed_sessions_go_on_and_new_ones_come_be_it_away_for_a_day() {
    let Some(mut world) = world() else { return };
    let wire = wire_the_feed(&mut world);
    let target = world.target("alice", "s001");
    let (mut ssh, _) = stays(&world);
    // The VM's host key was pinned at control: the agent has it once it has all there is.
    has_all(&world);
    wire.let_pass(Kind::Client, false);
    wire.tear(Kind::Client);
    let away = |world: &World| world.agent_page().contains("keyway_feed_connected 0\n");
    wait::until("the feed is away", wait::SOON, || away(&world));
    // The control link is there: what needs a signature gets one.
    let come = target.ssh(&["-o", "RekeyLimit=1M"], "head -c 3000000 /dev/zero").ok().stdout;
    assert_eq!(come.len(), 3_000_000);
    assert!(ssh.try_wait().expect("ssh").is_none(), "{}", world.agent_log());
    ssh.kill().expect("ssh");
    ends(&mut ssh);

    // A day later, by what an agent has to tell the time from: when it was written.
    process::signal(world.agent().id(), Signal::SIGINT);
    wait::until("its end", wait::SOON, || world.agent().has_ended());
    let day = Duration::from_hours(24);
    for name in ["routes.snapshot", "routes.journal"] {
        let file = fs::File::options().append(true).open(world.path("agent_state").join(name));
        file.and_then(|file| file.set_modified(SystemTime::now() - day)).expect("a saved file");
    }
    world.restart_agent();
    assert_eq!(target.ssh(&[], "echo $KEYWAY_VM").ok().text(), "blue");
    let page = world.agent_page();
    let age = page.lines().find_map(|line| line.strip_prefix("keyway_feed_age_seconds "));
    let age: u64 = age.and_then(|age| age.parse().ok()).expect("an age");
    assert!(age >= day.as_secs() && away(&world), "{page}");
    assert!(world.page("/metrics").contains("keyway_feed_followers 0\n"));
    let said = status(&world).ends(1).text();
    assert!(said.contains("feed       away, revision "), "{said}");
    wire.let_pass(Kind::Client, true);
    follows(&mut world);
    status(&world).ok();
}
