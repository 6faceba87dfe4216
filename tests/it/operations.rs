//! What operators do to a front door that runs: they edit its files, send it signals, start it twice.

use crate::harness::{Process, World, process, run, wait};
use nix::sys::signal::Signal;
use std::{fs, net::TcpStream, path::Path, process::Command};

/// Sends SIGHUP and waits until the log tells what came of it.
#[track_caller]
fn reload(world: &mut World) -> String {
    let before = world.log().len();
    process::signal(world.edge().id(), Signal::SIGHUP);
    wait::until("the reload", wait::SOON, || world.log()[before..].contains("reloaded"));
    world.log()[before..].to_owned()
}

#[test]
fn a_pin_whose_line_an_operator_removes_is_forgotten_at_sighup() {
    if World::is_direct() {
        return;
    }
    let mut world = World::usual();
    let target = world.target("alice", "s001");
    target.ssh(&[], "true").ok();
    world.vm("blue").change_host_key();
    let pins = world.path("state").join("pins");
    let text = fs::read_to_string(&pins).expect("the pins");
    assert!(text.contains("\nblue "), "{text}");

    fs::write(&pins, text.clone() + "rubbish\n").expect("the pins");
    let log = reload(&mut world);
    let line = text.lines().count() + 1;
    assert!(log.contains("not reloaded") && log.contains(&format!("pins:{line}")), "{log}");
    assert!(target.ssh(&[], "true").ends(255).stderr.contains("host key"), "the pin is gone");

    let rest = text.split_inclusive('\n').filter(|line| !line.starts_with("blue "));
    fs::write(&pins, rest.collect::<String>()).expect("the pins");
    assert!(!reload(&mut world).contains("not reloaded"));
    assert_eq!(target.ssh(&[], "echo $KEYWAY_VM").ok().text(), "blue");
    assert!(fs::read_to_string(&pins).expect("the pins").contains("\nblue "), "pinned anew");
}

/// `keyway serve` on the files of `world`, with `config` as the first.
fn serve(world: &World, config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyway"));
    command.arg("serve").arg("--config").arg(config);
    command.arg("--fleet").arg(world.path("fleet.toml"));
    command
}

#[test]
fn a_second_process_on_one_state_directory_is_told_who_has_it() {
    if World::is_direct() {
        return;
    }
    let mut world = World::usual();
    let output = run(&mut serve(&world, &world.path("keyway.toml")));
    assert_ne!(output.status, 0);
    let id = world.edge().id();
    assert!(output.stderr.contains(&format!("(process {id})")), "{}", output.stderr);
    world.target("alice", "s001").ssh(&[], "true").ok();
}

#[test]
fn a_successor_opens_while_the_sessions_of_its_predecessor_go_on() {
    if World::is_direct() {
        return;
    }
    let mut world = World::usual();
    let target = world.target("alice", "s001");
    let gate = world.path("gate");
    let command = format!("touch {0}; while [ -e {0} ]; do sleep 0.1; done", gate.display());
    let mut held = target.openssh("ssh").arg("door").arg(&command).spawn().expect("ssh starts");
    wait::until("the session runs", wait::SOON, || gate.exists());
    process::signal(world.edge().id(), Signal::SIGTERM);
    let address = (target.host.clone(), target.port);
    wait::until("the door closes", wait::SOON, || TcpStream::connect(&address).is_err());
    // The metrics of the one that drains are still to be read.
    let config = world.path("successor.toml");
    let text = fs::read_to_string(world.path("keyway.toml")).expect("keyway.toml");
    let metrics = world.spare(0);
    fs::write(&config, text.replace(&world.metrics().to_string(), &metrics.to_string()))
        .expect("a config");
    let mut successor = Process::start("successor", world.dir(), &mut serve(&world, &config));
    wait::listens(&mut successor, metrics);
    assert_eq!(target.ssh(&[], "echo $KEYWAY_VM").ok().text(), "blue");
    assert!(held.try_wait().expect("a child of ours").is_none(), "the session was cut");
    fs::remove_file(&gate).expect("the gate opens");
    wait::until("the session ends", wait::SOON, || {
        held.try_wait().expect("a child of ours").is_some_and(|status| status.success())
    });
}

#[test]
fn more_sessions_than_the_descriptor_limit_carries_are_warned_of_at_start() {
    if World::is_direct() {
        return;
    }
    let plan = World::plan().address("s001").user("alice").vm("blue", "alice", "s001");
    let world = plan.edge("sessions_max = 536870912").start();
    let log = world.log();
    let line = log.lines().find(|line| line.contains("536870912 sessions")).expect("a warning");
    assert!(line.contains("WARN") && line.contains("; fix: "), "{line}");
}
