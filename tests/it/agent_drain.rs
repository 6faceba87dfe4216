//! The end of an agent: it takes nobody more, its sessions go on, and whoever asks sees how it
//! goes.

use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::handoff::{ends, stays, world};
use crate::harness::{Output, Process, World, process, run, wait};
use crate::operations::replace;

/// `keyway agent` with these words, about the agent of `world`.
fn agent(world: &World, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyway"));
    command.arg("agent").args(words).arg("--config").arg(world.path("agent.toml"));
    command
}

pub(crate) fn status(world: &World) -> Output {
    run(&mut agent(world, &["status"]))
}

/// The processes that answer, as programs see them.
#[track_caller]
fn processes(world: &World) -> Vec<Value> {
    let said = run(&mut agent(world, &["status", "--output", "json"])).stdout;
    let all: Value = serde_json::from_slice(&said).expect("JSON");
    all.as_array().expect("a list").clone()
}

#[track_caller]
fn drain(world: &mut World) -> Process {
    let drain = Process::start("drain", world.dir(), &mut agent(world, &["drain"]));
    wait::until("the drain", wait::SOON, || world.agent().log().contains("\"draining: "));
    drain
}

#[test]
fn an_agent_that_drains_takes_nobody_more_and_tells_how_it_goes_until_its_last_session_is_over() {
    let Some(mut world) = world() else { return };
    let (mut ssh, _) = stays(&world);
    let shown = status(&world).ok().text();
    let identity = world.identity("keyway.toml", &["--fingerprint"]);
    for line in
        ["state      up\n", "sessions   1 of ", "feed       none: a fleet file\n", &identity]
    {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    let mut drain = drain(&mut world);
    let shown = status(&world).ends(3).text();
    assert!(shown.starts_with("PROCESS ") && shown.contains("  draining  1 "), "{shown}");
    assert!(processes(&world)[0]["until_s"].as_u64().is_some());
    let said = world.target("alice", "s001").ssh(&[], "true").ends(255).stderr;
    assert!(said.contains("blue is not reachable right now (its host does not"), "{said}");
    assert!(ssh.try_wait().expect("ssh").is_none() && !drain.has_ended());
    ssh.kill().expect("ssh");
    ends(&mut ssh);
    wait::until("its end", wait::SOON, || drain.has_ended() && world.agent().has_ended());
    assert!(drain.log().contains("agent drained in "), "{}", drain.log());
    assert!(world.agent().log().contains("\"drained\""));
    let said = status(&world).ends(3).stderr;
    assert!(said.contains("no agent runs with the state directory"), "{said}");
}

#[test]
fn whoever_is_left_at_the_end_of_an_agents_drain_reads_so() {
    let Some(mut world) = world() else { return };
    replace(&world.path("agent.toml"), "log = ", "drain_s = 1\nlog = ");
    world.restart_agent();
    let (mut ssh, said) = stays(&world);
    process::signal(world.agent().id(), Signal::SIGTERM);
    ends(&mut ssh);
    let said = std::fs::read_to_string(said).expect("what ssh said");
    assert!(said.contains("keyway: this server is going down for maintenance"), "{said}");
}

/// What an upgrade is: the one that takes over is there before the other is told to go.
#[test]
fn a_drain_beside_a_successor_is_an_upgrade_and_both_are_shown() {
    let Some(mut world) = world() else { return };
    let (mut ssh, _) = stays(&world);
    let mut command = agent(&world, &[]);
    let successor = Process::start("successor", world.dir(), &mut command);
    let waits = || successor.log().contains("waiting until it hands over");
    wait::until("the successor", wait::SOON, waits);
    let mut drain = drain(&mut world);
    wait::until("its turn", wait::SOON, || successor.log().contains(" is up"));
    wait::until("both", wait::SOON, || {
        let all = processes(&world);
        all.len() == 2 && all[0]["state"] == "up" && all[0]["pid"] == successor.id()
    });
    let before = &processes(&world)[1];
    assert_eq!(before["pid"], world.agent().id());
    assert_eq!((&before["state"], &before["sessions"]), (&"draining".into(), &1.into()));
    status(&world).ok();
    assert_eq!(world.target("alice", "s001").ssh(&[], "echo new").ok().text(), "new");
    assert!(ssh.try_wait().expect("ssh").is_none(), "{}", world.agent().log());
    run(&mut agent(&world, &["drain", "--now"])).ok();
    ends(&mut ssh);
    wait::until("the end of both", wait::SOON, || drain.has_ended() && world.agent().has_ended());
    assert_eq!(processes(&world)[0]["pid"], successor.id(), "it is not meant");
}
